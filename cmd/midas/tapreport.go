package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/midas-go/midas/cmd/midas/internal/lang"
	"github.com/midas-go/midas/cmd/midas/internal/report"
	"github.com/midas-go/midas/cmd/midas/internal/tap"
)

func runTapReport(args []string, t *terminal) int {
	const name = "tap report"
	flags := newFlags(name)
	asJSON := flags.Bool("json", false, "")
	if code, ok := t.parse(flags, args); !ok {
		return code
	}
	if flags.NArg() != 1 {
		return t.misused(name, lang.T("tap-report.no-file"))
	}
	file, err := os.Open(flags.Arg(0))
	if err != nil {
		return t.failed(name, err)
	}
	defer file.Close()
	sheet, err := report.Make(file, tap.Masking(mayBeSecret))
	switch {
	case err != nil:
		return t.failed(name, err)
	case sheet.Seen.Lines == 0:
		return t.failed(name, lang.T("tap-report.no-recording", flags.Arg(0)))
	case *asJSON:
		out := json.NewEncoder(t.out)
		out.SetEscapeHTML(false)
		out.SetIndent("", "  ")
		if err := out.Encode(sheet); err != nil {
			return t.failed(name, err)
		}
	default:
		t.printSheet(sheet)
	}
	return exitOK
}

func (t *terminal) printSheet(s *report.Sheet) {
	seen := s.Seen
	fmt.Fprintln(t.out, t.say("tap-report.title", version()))
	fmt.Fprintln(t.out, t.say("tap-report.lines", seen.Lines, seen.Torn, seen.Lost, seen.From.UTC().Format(time.RFC3339), seen.To.UTC().Format(time.RFC3339)))
	fmt.Fprintln(t.out, t.say("tap-report.orders", seen.Orders, seen.Taken, seen.Calls, strings.Join(seen.Gateways, ", ")))
	fmt.Fprintln(t.out, t.say("tap-report.callbacks", seen.Callbacks, seen.Pushes, seen.Verified))
	fmt.Fprintln(t.out)
	decided := 0
	for _, p := range s.Points {
		if p.Decided {
			decided++
		}
	}
	fmt.Fprintln(t.out, t.say("tap-report.decided", decided, len(s.Points)))
	for _, p := range s.Points {
		if p.Decided {
			fmt.Fprintf(t.out, "\n  %s (%s)  %s\n", p.ID, p.Section, p.Question.In(t.lang))
			for _, answer := range p.Answers {
				fmt.Fprintf(t.out, "    %s\n", answer.In(t.lang))
			}
			fmt.Fprintf(t.out, "    %s\n", t.say("tap-report.seen-in", shorten(p.Lines)))
		}
	}
	fmt.Fprintf(t.out, "\n%s\n", t.say("tap-report.open", len(s.Points)-decided))
	for _, p := range s.Points {
		if !p.Decided {
			fmt.Fprintf(t.out, "\n  %s (%s)  %s\n    %s\n", p.ID, p.Section, p.Question.In(t.lang), t.say("tap-report.wanted", p.By))
		}
	}
	fmt.Fprintln(t.out)
	t.printComparison(&s.Compared)
}

// shorten returns the first lines of many.
func shorten(lines []int) string {
	const most = 12
	text := strings.Trim(strings.ReplaceAll(fmt.Sprint(lines[:min(len(lines), most)]), " ", ", "), "[]")
	if len(lines) > most {
		text += " …"
	}
	return text
}
