package main

import (
	"encoding/base64"
	"encoding/hex"
	"maps"
	"slices"
	"strings"
)

// maxWork bounds a search, in bytes: those signed, and for each parameter what it costs to
// copy and sort it. The longest input takes less than half a second then, and an ordinary
// message half of that.
const maxWork = 24 << 20

const workPerParam = 64

// A search looks for the mistakes that make the signature received. See newSearch.
type search struct {
	mistakes []mistake                       // in making the signature, the likelier first
	written  []mistake                       // in writing it down
	unsigned func(names ...string) []mistake // that leave these parameters unsigned
	expected func(name string) bool          // whether a parameter is documented

	signings int
	work     int
	limit    int
	gaveUp   bool // before all was tried

	readings    map[string]map[string][]mistake
	base, stage []byte // working memory
}

// A finding are mistakes which together make the signature received.
type finding = []mistake

// find returns what explains the signature: first what is likeliest, then whatever makes the
// same signature with as few mistakes.
func (s *search) find(right recipe) []finding {
	// Mistakes that make the same signature of this message are one to the search, and those
	// that change nothing are none.
	s.limit = maxWork
	var classes [][]mistake
	class := map[[2]string]int{}
	var found []finding
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
			class[made], classes = len(classes), append(classes, []mistake{m})
		case slices.ContainsFunc(classes[i], func(other mistake) bool { return other.Name == m.Name }):
			continue
		default:
			classes[i] = append(classes[i], m)
		}
		if others, ok := s.read(r.sig)[sig]; ok {
			found = append(found, append(finding{m}, others...))
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

	// Every two, in the sequence that newSearch gives them.
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
					found = append(found, append(finding{a, b}, others...))
				}
			}
		}
	}
	return simplest(found)
}

func fewest(found []finding) int {
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
func simplest(found []finding) (simple []finding) {
	n := fewest(found)
	for _, f := range found {
		same := func(other finding) bool {
			return slices.EqualFunc(f, other, func(a, b mistake) bool { return a.Name == b.Name && a.What == b.What })
		}
		if len(f) == n && len(simple) < maxFindings && !slices.ContainsFunc(simple, same) {
			simple = append(simple, f)
		}
	}
	return simple
}

// findUnsigned tries whether two or three parameters are not signed, those first that are
// not documented.
func (s *search) findUnsigned(right recipe) []finding {
	params := slices.Clone(right.params)
	slices.SortStableFunc(params, func(a, b param) int {
		switch known := s.expected(a.Name); {
		case known == s.expected(b.Name):
			return 0
		case known:
			return 1
		}
		return -1
	})
	params = params[:min(len(params), 40)]
	unsigned := func(names ...string) (found []finding, ok bool) {
		r := right
		r.without(func(p param) bool { return slices.Contains(names, p.Name) })
		sig, ok := s.sign(&r)
		if !ok {
			return nil, false
		}
		if others, fits := s.read(r.sig)[sig]; fits {
			for _, m := range s.unsigned(names...) {
				found = append(found, append(finding{m}, others...))
			}
		}
		return found, true
	}
	for _, three := range []bool{false, true} {
		for i, a := range params {
			for j, b := range params[:i] {
				if !three {
					if found, ok := unsigned(a.Name, b.Name); !ok || found != nil {
						return found
					}
					continue
				}
				for _, c := range params[:j] {
					if found, ok := unsigned(a.Name, b.Name, c.Name); !ok || found != nil {
						return found
					}
				}
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
	s.stage = r.appendJoined(s.stage[:0])
	s.base = r.appendBase(s.base[:0], s.stage)
	s.signings++
	s.work += len(s.base) + workPerParam*len(r.params)
	return base64.StdEncoding.EncodeToString(r.digest(r.key, s.base)), true
}

// read returns the signatures that the one received may stand for, each with the mistakes
// that were made when it was written down: none for itself.
func (s *search) read(sig string) map[string][]mistake {
	if known, ok := s.readings[sig]; ok {
		return known
	}
	readings := map[string][]mistake{sig: nil}
	if len(sig) <= 512 { // no signature is longer
		for _, first := range s.written {
			once := first.reads(sig)
			if _, known := readings[once]; !known {
				readings[once] = []mistake{first}
			}
		}
		for once, made := range maps.Clone(readings) {
			for _, second := range s.written {
				twice := second.reads(once)
				if _, known := readings[twice]; !known {
					readings[twice] = append(slices.Clone(made), second)
				}
			}
		}
	}
	if s.readings == nil {
		s.readings = map[string]map[string][]mistake{}
	}
	s.readings[sig] = readings
	return readings
}

// How a signature is written down wrongly: each returns what is meant, or the text as it is.

func fromHex(sig string) string {
	if sum, err := hex.DecodeString(sig); err == nil && isSum(sum) {
		return base64.StdEncoding.EncodeToString(sum)
	}
	return sig
}

func fromBase64Hex(sig string) string {
	text, err := base64.StdEncoding.DecodeString(sig)
	if meant := fromHex(string(text)); err == nil && meant != string(text) {
		return meant
	}
	return sig
}

func fromBytes(sig string) string {
	if isSum([]byte(sig)) {
		return base64.StdEncoding.EncodeToString([]byte(sig))
	}
	return sig
}

func padded(sig string) string {
	if missing := -len(sig) & 3; len(sig) > 0 && missing < 3 {
		return sig + strings.Repeat("=", missing)
	}
	return sig
}

func isSum(b []byte) bool { return len(b) == 16 || len(b) == 20 || len(b) == 32 }
