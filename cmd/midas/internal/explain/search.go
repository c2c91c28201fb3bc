package explain

import (
	"encoding/base64"
	"encoding/hex"
	"slices"
	"strings"

	"github.com/midas-go/midas/cmd/midas/internal/lang"
)

// A Mistake is something that implementations get wrong (protocol.md 8, minigame.md 7).
type Mistake struct {
	Name string    `json:"name"`        // stable, for programs
	What lang.Text `json:"what"`        // how the signature was made
	Cure lang.Text `json:"cure"`        // what to change
	If   lang.Text `json:"if,omitzero"` // what tells it from another that makes the same signature

	apply func(*recipe)       // makes it, of those in making a signature
	reads func(string) string // undoes it, of those in writing one down
	rare  bool                // not tried together with another rare one
	with  *encoder            // what was used instead of the right encoding
}

// A Finding are mistakes which together make the signature received.
type Finding []Mistake

// maxWork bounds a search, in bytes: those signed, and for each parameter what it costs to
// copy and sort it. The longest input takes less than half a second then, and an ordinary
// message half of that.
const maxWork = 24 << 20

const workPerParam = 64

// A search looks for the mistakes that make the signature received.
//
// The sequence of mistakes matters twice: of two explanations the first is shown first, and of
// two mistakes together the first is made first. So what replaces a part comes before what
// changes it.
type search struct {
	mistakes []Mistake                       // in making the signature, the likelier first
	written  []Mistake                       // in writing it down
	unsigned func(names ...string) []Mistake // that leave these parameters unsigned; nil where there are none
	expected func(name string) bool          // whether a parameter is documented
	contexts []string                        // endings of keys of the catalogue, the closest first

	signings int
	work     int
	limit    int
	gaveUp   bool // before all was tried

	readings map[string]map[string][]Mistake
	base     []byte // working memory
}

// A slip is a line in a table of mistakes: its key in the catalogue, the mistake's name and
// perhaps "/" and which of several; how it is made; what is filled into its text.
type slip struct {
	key   string
	apply func(*recipe)
	args  []any
}

// new returns a mistake with the texts that the catalogue has for it: those of its key, or else
// of its name, and of the context before those of none.
func (s *search) new(key string, args ...any) Mistake {
	name, _, _ := strings.Cut(key, "/")
	text := func(keys ...string) lang.Text {
		var all []string
		for _, key := range keys {
			for _, context := range s.contexts {
				all = append(all, key+context)
			}
			all = append(all, key)
		}
		return lang.First(args, all...)
	}
	m := Mistake{Name: name, What: text(key), Cure: text(key+".cure", name+".cure")}
	if because := text(key+".if", name+".if"); lang.Has(because.Key) {
		m.If = because
	}
	return m
}

func (s *search) add(key string, apply func(*recipe), args ...any) *Mistake {
	m := s.new(key, args...)
	m.apply = apply
	s.mistakes = append(s.mistakes, m)
	return &s.mistakes[len(s.mistakes)-1]
}

func (s *search) addAll(table []slip) {
	for _, line := range table {
		s.add(line.key, line.apply, line.args...)
	}
}

// find returns what explains the signature: first what is likeliest, then whatever makes the
// same signature with as few mistakes.
func (s *search) find(right recipe) []Finding {
	// Mistakes that make the same signature of this message are one to the search, and those
	// that change nothing are none.
	s.limit = maxWork
	var classes [][]Mistake
	class := map[[2]string]int{}
	var found []Finding
	if sig, ok := s.sign(&right); ok {
		class[[2]string{sig, right.sig}] = -1
		if made, ok := s.read(right.sig)[sig]; ok {
			found = append(found, made)
		}
	}
	for _, m := range s.mistakes {
		r := right
		m.apply(&r)
		sig, ok := s.sign(&r)
		if !ok {
			break
		}
		made := [2]string{sig, r.sig}
		i, known := class[made]
		switch {
		case i < 0:
			continue
		case !known:
			class[made], classes = len(classes), append(classes, []Mistake{m})
		case slices.ContainsFunc(classes[i], func(other Mistake) bool { return other.Name == m.Name }):
			continue
		default:
			classes[i] = append(classes[i], m)
		}
		if others, ok := s.read(r.sig)[sig]; ok {
			found = append(found, append(Finding{m}, others...))
		}
	}
	if fewest(found) == 1 {
		return simplest(found)
	}

	// Two or three parameters that are not signed.
	s.limit = maxWork / 2
	if found := s.findUnsigned(right); found != nil {
		return found
	}
	s.limit = maxWork

	// Every two, in their sequence.
	for i, first := range classes {
		for _, second := range classes[i+1:] {
			if first[0].rare && second[0].rare {
				continue
			}
			r := right
			first[0].apply(&r)
			second[0].apply(&r)
			sig, ok := s.sign(&r)
			if !ok {
				return simplest(found)
			}
			others, ok := s.read(r.sig)[sig]
			if !ok {
				continue
			}
			for _, a := range first {
				for _, b := range second {
					found = append(found, append(Finding{a, b}, others...))
				}
			}
		}
	}
	return simplest(found)
}

func fewest(found []Finding) int {
	n := 0
	for _, f := range found {
		if n == 0 || len(f) < n {
			n = len(f)
		}
	}
	return n
}

// maxFindings is how many explanations are shown.
const maxFindings = 48

// simplest returns the findings of the fewest mistakes, each once.
func simplest(found []Finding) (simple []Finding) {
	n := fewest(found)
	for _, f := range found {
		same := func(other Finding) bool { return slices.EqualFunc(f, other, Mistake.same) }
		if len(f) == n && len(simple) < maxFindings && !slices.ContainsFunc(simple, same) {
			simple = append(simple, f)
		}
	}
	return simple
}

func (m Mistake) same(other Mistake) bool {
	return m.Name == other.Name && m.What.Error() == other.What.Error()
}

// findUnsigned tries whether two or three parameters are not signed, those first that are
// not documented.
func (s *search) findUnsigned(right recipe) []Finding {
	if s.unsigned == nil {
		return nil
	}
	params := slices.Clone(right.params)
	slices.SortStableFunc(params, func(a, b Param) int {
		switch known := s.expected(a.Name); {
		case known == s.expected(b.Name):
			return 0
		case known:
			return 1
		}
		return -1
	})
	params = params[:min(len(params), 40)]
	var pairs [][2]int
	unsigned := func(names ...string) (found []Finding, ok bool) {
		r := right
		r.without(func(p Param) bool { return slices.Contains(names, p.Name) })
		sig, ok := s.sign(&r)
		if !ok {
			return nil, false
		}
		if others, fits := s.read(r.sig)[sig]; fits {
			for _, m := range s.unsigned(names...) {
				found = append(found, append(Finding{m}, others...))
			}
		}
		return found, true
	}
	for i, a := range params {
		for j, b := range params[:i] {
			if found, ok := unsigned(a.Name, b.Name); !ok || found != nil {
				return found
			}
			pairs = append(pairs, [2]int{i, j})
		}
	}
	for _, pair := range pairs {
		for _, c := range params[:pair[1]] {
			if found, ok := unsigned(params[pair[0]].Name, params[pair[1]].Name, c.Name); !ok || found != nil {
				return found
			}
		}
	}
	return nil
}

// sign returns the signature of a recipe, unless the search has cost too much.
func (s *search) sign(r *recipe) (sig string, ok bool) {
	if s.work >= s.limit {
		s.gaveUp = true
		return "", false
	}
	s.base = r.base(r, s.base[:0])
	s.signings++
	s.work += len(s.base) + workPerParam*len(r.params)
	return r.write(r.digest(r.key, s.base)), true
}

// read returns the signatures that the one received may stand for, each with the mistakes
// that were made when it was written down: none for itself.
func (s *search) read(sig string) map[string][]Mistake {
	if known, ok := s.readings[sig]; ok {
		return known
	}
	readings := map[string][]Mistake{sig: nil}
	texts := []string{sig} // in the order of the table
	if len(sig) <= 512 {   // no signature is longer
		for _, first := range s.written {
			once := first.reads(sig)
			if _, known := readings[once]; !known {
				readings[once] = []Mistake{first}
				texts = append(texts, once)
			}
		}
		for _, once := range texts {
			for _, second := range s.written {
				twice := second.reads(once)
				if _, known := readings[twice]; !known {
					readings[twice] = append(slices.Clone(readings[once]), second)
				}
			}
		}
	}
	if s.readings == nil {
		s.readings = map[string]map[string][]Mistake{}
	}
	s.readings[sig] = readings
	return readings
}

// A reading undoes a way to write a signature down: it returns what is meant, or the text as it
// is.
type reading struct {
	key   string
	reads func(sig string) string
}

func (s *search) addWritten(table []reading) {
	for _, way := range table {
		m := s.new(way.key)
		m.reads = way.reads
		s.written = append(s.written, m)
	}
}

func blankToPlus(sig string) string { return strings.ReplaceAll(sig, " ", "+") }

// Of the older Midas, in base64.
var writtenBase64 = []reading{
	{"sig-not-decoded", literalPlus},
	{"sig-decoded-twice", blankToPlus},
	{"sig-line-end", strings.NewReplacer("\r", "", "\n", "").Replace},
	{"sig-base64url", strings.NewReplacer("-", "+", "_", "/").Replace},
	{"sig-without-padding", padded},
	{"sig-in-hex", sumIn(hex.DecodeString, toBase64)},
	{"sig-base64-of-hex", sumIn(hexInBase64, toBase64)},
	{"sig-not-base64", sumIn(func(sig string) ([]byte, error) { return []byte(sig), nil }, toBase64)},
}

// Of mini games, in lower-case hex.
var writtenHex = []reading{
	{"sig-upper-case", strings.ToLower},
	{"sig-line-end", strings.TrimSpace},
	{"sig-in-base64", sumIn(base64.StdEncoding.DecodeString, hex.EncodeToString)},
	{"sig-base64-of-hex", sumIn(hexInBase64, hex.EncodeToString)},
}

var toBase64 = base64.StdEncoding.EncodeToString

func hexInBase64(sig string) ([]byte, error) {
	digits, _ := base64.StdEncoding.DecodeString(sig) // what is none has no digits
	return hex.DecodeString(string(digits))
}

// sumIn writes the hash in another form.
func sumIn(decode func(string) ([]byte, error), encode func([]byte) string) func(sig string) string {
	return func(sig string) string {
		if sum, err := decode(sig); err == nil && isSum(sum) {
			return encode(sum)
		}
		return sig
	}
}

func padded(sig string) string {
	if missing := -len(sig) & 3; len(sig) > 0 && missing < 3 {
		return sig + strings.Repeat("=", missing)
	}
	return sig
}

// sums are the hashes that are told by the length of what they make (minigame.md 2.2).
var sums = map[int]string{16: "MD5", 20: "SHA-1", 32: "SHA-256", 48: "SHA-384", 64: "SHA-512"}

func isSum(b []byte) bool { return sums[len(b)] != "" }

// hint says what the length of a signature tells, where it is not that of the right one.
func (r *recipe) hint() (hint lang.Text) {
	want := len(r.digest(r.key, nil))
	sum, err := hex.DecodeString(strings.TrimSpace(r.sig))
	form := "hint.hex"
	if err != nil {
		sum, err = base64.StdEncoding.DecodeString(padded(r.sig))
		form = "hint.base64"
	}
	if err == nil && len(sum) != want && isSum(sum) {
		return lang.T(form, len(r.sig), sums[len(sum)], sums[want])
	}
	return hint
}
