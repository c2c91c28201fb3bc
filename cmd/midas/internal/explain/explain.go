// Package explain says whether the signatures of a message are right, and if one is not, which
// of the known mistakes made it: of the older Midas (protocol.md 2 and 5) and of mini games and
// mini programs (minigame.md 2.2). [Parse] reads what people have; what a
// server got is a [Message] already; [Message.Explain] explains it. What it says are keys of the
// catalogue and arguments.
package explain

import (
	"cmp"
	"errors"
	"regexp"
	"slices"
	"strings"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/cmd/midas/internal/lang"
)

// Options are the keys, and what else is known of a message. Of several keys the first should
// be right; the others are tried as those that may have been used instead.
type Options struct {
	Keys        []string          // pay keys; AppKeys
	SessionKeys []string          // of the player, for signature
	Tokens      []string          // of the message push
	AESKeys     []string          // EncodingAESKeys of the message push
	AppID       string            // behind the message in a push that is encrypted; "" for any
	Path        string            // signed path of the older Midas; "" for that of the message
	Sig         string            // explained in place of the one in the message
	Mask        func(Param) Param // what is shown of a parameter; nil for all of it
}

// An Explanation says why signatures are right or wrong.
type Explanation struct {
	Kind       string      `json:"kind"`
	Verified   bool        `json:"verified"`           // everything needed is there, and is right
	Problems   []lang.Text `json:"problems,omitempty"` // why it is refused whatever its signatures
	Method     string      `json:"method,omitempty"`
	Path       string      `json:"path,omitempty"`
	Params     []Param     `json:"params,omitempty"` // those that are signed
	Values     string      `json:"values,omitempty"` // the parameters joined: stage 1
	Signatures []Signature `json:"signatures"`
	Notes      []lang.Text `json:"notes,omitempty"`
}

// A Signature is one signature of a message.
type Signature struct {
	Name      string    `json:"name"`
	Verified  bool      `json:"verified"`           // of Encrypt: it could be decrypted, which vouches for nothing
	Missing   bool      `json:"missing,omitempty"`  // it is needed, and is not there
	Unchecked lang.Text `json:"unchecked,omitzero"` // why it is not checked
	Received  string    `json:"received"`
	Correct   string    `json:"correct,omitempty"`
	Signed    string    `json:"signed,omitempty"`   // the base string, the text that is signed
	Findings  []Finding `json:"findings,omitempty"` // each makes the signature received, the likeliest first
	Hint      lang.Text `json:"hint,omitzero"`      // what its length tells
	Tried     int       `json:"tried,omitempty"`    // how many mistakes
	Signings  int       `json:"signings,omitempty"` // how many signatures were made to try them
	GaveUp    bool      `json:"gave_up,omitempty"`  // the message is too long for all to be tried
}

// Explain checks every signature of m that it has a key for. The error says what is missing or
// wrong in o; it is a [lang.Text].
func (m *Message) Explain(o Options) (*Explanation, error) {
	if o.Mask == nil {
		o.Mask = func(p Param) Param { return p }
	}
	e := &Explanation{Kind: m.Kind, Notes: slices.Clone(m.notes)}
	switch m.Kind {
	case Order:
		e.explainOrder(m, o)
	case Call:
		e.explainCall(m, o)
	case Push:
		e.explainPush(m, o)
	default:
		if err := e.explainOlder(m, o); err != nil {
			return nil, err
		}
	}
	if e.Method == "" {
		for i, s := range e.Signatures {
			e.Signatures[i].Signed, e.Signatures[i].Received = o.masked(s.Signed), o.withoutKeys(s.Received)
		}
		for _, said := range slices.Concat(e.Notes, e.Problems) {
			for i, arg := range said.Args {
				if s, ok := arg.(string); ok {
					said.Args[i] = o.masked(s)
				}
			}
		}
	}
	e.Verified = len(e.Problems) == 0 && len(e.Signatures) > 0 && !slices.ContainsFunc(e.Signatures, func(s Signature) bool { return !s.Verified })
	return e, nil
}

func (e *Explanation) note(key string, args ...any) { e.Notes = append(e.Notes, lang.T(key, args...)) }

func (e *Explanation) refuse(reason lang.Text) { e.Problems = append(e.Problems, reason) }

// explained sets what a search found. Of an encoder it says which character would show the
// difference from the likeliest one.
func (s *Signature) explained(right recipe, by *search) {
	s.Findings, s.Hint = by.find(right), right.hint()
	if n := len(s.Received); s.Findings == nil && n >= 8 && strings.HasPrefix(s.Correct, s.Received) {
		s.Findings, s.Hint = []Finding{{by.new("sig-cut", n, len(s.Correct))}}, lang.Text{}
	}
	for _, f := range slices.Backward(s.Findings) { // the first one last: it is compared with
		for i, m := range f {
			if first := s.Findings[0]; i < len(first) && m.with != nil && first[i].with != nil {
				if char := m.with.apart(*first[i].with); char != "" {
					m.If = lang.T("if.character", m.If, char)
				}
			}
			f[i] = Mistake{Name: m.Name, What: m.What, Cure: m.Cure, If: m.If} // without what functions hold on to
		}
	}
	s.Tried, s.Signings, s.GaveUp = len(by.mistakes)+len(by.written), by.signings, by.gaveUp
}

// explainOlder verifies a message of the older Midas for a signed path, under the first key.
func (e *Explanation) explainOlder(m *Message, o Options) error {
	path := cmp.Or(o.Path, m.signedPath())
	switch {
	case len(o.Keys) == 0:
		return lang.T("usage.no-key", "-key", "-key-file", "MIDAS_APP_KEY")
	case path == "":
		return lang.T("usage.no-path")
	}
	right := m.recipe(path, o.Keys[0])
	own := o.Sig != ""
	if own {
		if !right.fits() {
			e.note("note.own-and-other")
			own = false
		}
		right.sig = o.Sig
	}
	s := Signature{Name: "sig", Received: right.sig, Correct: right.sign(), Verified: right.fits(), Missing: right.sig == ""}
	e.Method, e.Path = right.method, path
	if m.Kind == Callback {
		if err := e.asTheLibrarySeesIt(m, &s, path, o); err != nil {
			return err
		}
	} else {
		e.checkRequest(m, right.sig)
	}
	if !s.Verified && len(e.Problems) == 0 {
		s.explained(right, m.newSearch(right, o, own))
	}
	if m.Kind == Callback && len(e.Problems) > 0 && !own {
		e.lookForAdditions(right, o.Mask)
	}
	if m.Kind == Callback && m.Method != "" && m.Method != "GET" {
		e.refuse(lang.T("said.method", m.Method))
	}
	shown := right.masked(o.Mask)
	e.Params, e.Values, s.Signed = shown.params, string(shown.appendJoined(nil)), shown.baseString()
	e.Signatures = []Signature{s}
	return nil
}

// BaseString returns what is signed of a message of the older Midas.
func (m *Message) BaseString(path, key string, mask func(Param) Param) string {
	shown := m.recipe(path, key)
	shown = shown.masked(mask)
	return shown.baseString()
}

func (r recipe) masked(mask func(Param) Param) recipe {
	if mask != nil {
		r.params = slices.Clone(r.params)
		for i, p := range r.params {
			r.params[i] = mask(p)
		}
	}
	return r
}

// asTheLibrarySeesIt verifies a callback with the library itself: it also knows the cases
// where protocol.md 5 obliges to try twice, and what is refused although it verifies.
func (e *Explanation) asTheLibrarySeesIt(m *Message, s *Signature, path string, o Options) error {
	appID := Value(m.params(Decode), "appid")
	if appID == "" || strings.ContainsAny(appID, " \t\r\n") {
		appID = "any"
	}
	client, err := midas.New(midas.Config{AppID: appID, AppKey: o.Keys[0], DeliveryPath: path})
	var config *midas.ConfigError
	if errors.As(err, &config) { // the key was checked before
		return lang.T("usage.value", "-path", path, errors.New(config.Reason))
	} else if err != nil {
		return err
	}
	if o.Sig != "" {
		return nil // another signature than the message's
	}
	_, err = client.ParseDeliveryQuery(m.RawQuery)
	s.Verified = !errors.Is(err, midas.ErrSignature)
	var wrong *midas.ParamError
	if errors.As(err, &wrong) {
		e.refuse(lang.Said(wrong.Error()))
	}
	if strings.Contains(Value(m.params(Decode), "sig"), " ") {
		e.note("note.sig-with-blank")
	}
	return nil
}

// plainName is what a parameter's name may be (protocol.md 5, delivery callback).
var plainName = regexp.MustCompile(`^[A-Za-z0-9_.-]+$`)

// lookForAdditions notes whether a callback that is refused for its names is right without
// what a router or a gateway added: the path as a name, or a name that was there before.
func (e *Explanation) lookForAdditions(right recipe, mask func(Param) Param) {
	within := func(params []Param, p Param) bool {
		return slices.ContainsFunc(params, func(q Param) bool { return q.Name == p.Name })
	}
	for _, keep := range []func(i int, p Param) bool{
		func(_ int, p Param) bool { return plainName.MatchString(p.Name) },
		func(i int, p Param) bool { return !within(right.params[:i], p) },
		func(i int, p Param) bool { return !within(right.params[i+1:], p) },
	} {
		var kept []Param
		var added []string
		for i, p := range right.params {
			if keep(i, p) {
				kept = append(kept, p)
			} else {
				p = mask(p)
				added = append(added, p.Name+"="+p.Value)
			}
		}
		r := right
		if r.params = kept; len(added) > 0 && r.fits() {
			e.note("note.added", added)
		}
	}
}

// Masked stands for what was not recorded.
const Masked = "[masked]"

// checkRequest looks for what makes a request unreadable for Midas.
func (e *Explanation) checkRequest(m *Message, sig string) {
	received := m.params(Decode)
	for i, p := range received {
		switch {
		case slices.ContainsFunc(received[:i], func(before Param) bool { return before.Name == p.Name }):
			e.refuse(lang.T("problem.twice", p.Name))
			return
		case p.Value == Masked:
			e.refuse(lang.T("problem.masked", p.Name))
			return
		}
	}
	if sig == "" {
		e.refuse(lang.T("problem.missing", "sig"))
	}
}

// signedPath returns the path that the signature is for, as far as the message shows it.
func (m *Message) signedPath() string {
	switch {
	case m.Kind == Callback:
		return m.path
	case m.path == "":
		return ysdkPrefix + orderPath
	case strings.HasPrefix(m.path, "/mpay/") && !strings.Contains(m.site, "//msdk") && !strings.Contains(m.site, "//openapi."):
		return ysdkPrefix + m.path // YSDK's signed path is not the URL's (protocol.md 2)
	}
	return m.path
}
