package explain

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/cmd/midas/internal/lang"
)

// The colours of what is printed.
const (
	Red   = "31"
	Green = "32"
	Bold  = "1"
	Dim   = "2"
)

// A printer prints an explanation in a language.
type printer struct {
	io.Writer
	language string
	paint    func(colour, text string) string
}

func (p printer) say(key string, args ...any) string { return lang.T(key, args...).In(p.language) }

func (p printer) line(key string, args ...any) { fmt.Fprintln(p, p.say(key, args...)) }

// pairs prints names and values in two columns.
func (p printer) pairs(pairs ...string) {
	width := 0
	for i := 0; i < len(pairs); i += 2 {
		width = max(width, lang.Columns(pairs[i]))
	}
	for i := 0; i < len(pairs); i += 2 {
		fmt.Fprintln(p, strings.TrimRight("  "+lang.Pad(pairs[i], width)+"  "+pairs[i+1], " "))
	}
}

// Print writes e for a reader. paint colours a text, or returns it as it is.
func (e *Explanation) Print(w io.Writer, language string, paint func(colour, text string) string) {
	p := printer{w, language, paint}
	older := e.Method != ""
	heading := p.say("kind." + e.Kind)
	if older {
		fmt.Fprintf(w, "%s  %s %s\n\n", paint(Bold, heading), e.Method, lang.Printable(e.Path))
		var pairs []string
		for _, param := range e.Params {
			value := lang.Printable(param.Value)
			if meaning := e.meaning(param); !meaning.IsZero() {
				value += paint(Dim, "   "+meaning.In(language))
			}
			pairs = append(pairs, lang.Printable(param.Name), value)
		}
		p.pairs(pairs...)
		fmt.Fprintf(w, "\n%s\n  %s\n", paint(Bold, "1. "+p.say("print.joined."+e.Kind)), lang.Printable(e.Values))
		fmt.Fprintf(w, "%s\n  %s\n", paint(Bold, "2. "+p.say("print.base-string")), lang.Printable(e.Signatures[0].Signed))
	} else {
		fmt.Fprintln(w, paint(Bold, heading))
	}
	for _, s := range e.Signatures {
		if older {
			fmt.Fprintln(w, paint(Bold, "3. "+p.say("print.signature")))
		} else {
			fmt.Fprintf(w, "\n%s\n", paint(Bold, s.Name))
		}
		p.signature(s, older, len(e.Problems) > 0)
	}
	if len(e.Notes)+len(e.Problems) > 0 {
		fmt.Fprintln(w)
	}
	for _, note := range e.Notes {
		p.line("print.note", note)
	}
	for _, problem := range e.Problems {
		p.line("print.refused", p.painted(Red, "print.REFUSED"), problem)
	}
}

func (p printer) painted(colour, key string) lang.Raw { return lang.Raw(p.paint(colour, p.say(key))) }

func (p printer) signature(s Signature, older, refused bool) {
	var pairs []string
	if !older && s.Signed != "" {
		pairs = append(pairs, p.say("print.signed"), lang.Printable(s.Signed))
	}
	pairs = append(pairs, p.say("print.received"), lang.Printable(s.Received))
	if !s.Verified && s.Correct != "" {
		pairs = append(pairs, p.say("print.correct"), s.Correct)
	}
	p.pairs(pairs...)
	ending := ""
	if older {
		ending = "-older"
		fmt.Fprintln(p)
	}
	bad := p.painted(Red, "print.NOT-VERIFIED")
	switch {
	case s.Missing:
		p.line("print.missing", p.painted(Red, "print.MISSING"))
	case s.Verified && s.Name == "Encrypt":
		p.line("print.decrypted", p.painted(Bold, "print.DECRYPTED"))
	case s.Verified && older && refused:
		p.line("print.right-but-refused")
	case s.Verified:
		p.line("print.verified", p.painted(Green, "print.VERIFIED"))
	case s.Findings != nil:
		p.line("print.made"+ending, bad)
		p.mistakes(s)
	case s.GaveUp:
		p.line("print.gave-up", bad, s.Tried)
	case s.Tried > 0:
		p.line("print.nothing-fits"+ending, bad, s.Tried)
	}
	if !s.Unchecked.IsZero() {
		p.line("print.unchecked", s.Unchecked)
	}
	if !s.Hint.IsZero() {
		fmt.Fprintln(p)
		p.line("print.note", s.Hint)
	}
}

func (p printer) mistakes(s Signature) {
	show := func(m Mistake) {
		fmt.Fprintf(p, "\n  %s\n  %s\n", p.say("print.mistake", lang.Raw(p.paint(Bold, m.Name)), m.What), p.say("print.cure", m.Cure))
		if len(s.Findings) > 1 && !m.If.IsZero() {
			fmt.Fprintf(p, "  %s\n", p.say("print.if", m.If))
		}
	}
	first := s.Findings[0]
	for _, m := range first {
		show(m)
	}
	shown := slices.Clone(first)
	var sameCure []string
	for _, alternative := range s.Findings[1:] {
		for i, m := range alternative {
			switch {
			case slices.ContainsFunc(shown, m.same):
			case i < len(first) && m.Cure.Error() == first[i].Cure.Error():
				sameCure = append(sameCure, p.say("print.same-cure", m.Name, m.because()))
			default:
				fmt.Fprintln(p)
				p.line("print.or")
				show(m)
			}
			shown = append(shown, m)
		}
	}
	if len(sameCure) > 0 {
		fmt.Fprintln(p)
		p.line("print.same-cures")
		for _, line := range sameCure {
			fmt.Fprintln(p, "  "+line)
		}
	}
}

// because says what tells m from others, or else what it is.
func (m Mistake) because() lang.Text {
	if m.If.IsZero() {
		return m.What
	}
	return m.If
}

// meaning says what a parameter stands for, where that is not obvious (protocol.md 5).
func (e *Explanation) meaning(p Param) (meaning lang.Text) {
	n, err := strconv.ParseInt(p.Value, 10, 64)
	switch {
	case p.Name == "ts" && err == nil && n > 0 && n < 1<<36:
		return lang.T("text", time.Unix(n, 0).Format("2006-01-02 15:04:05 -07:00"))
	case p.Name == "amt" && err == nil && e.Kind == Callback:
		return lang.T("meaning.charged", midas.Amount(n).QPoints(), midas.Amount(n).Yuan())
	}
	return meaning
}
