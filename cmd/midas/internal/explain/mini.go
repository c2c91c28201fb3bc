package explain

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"

	"github.com/midas-go/midas/cmd/midas/internal/lang"
)

// A check is a signature of a mini game to be checked.
type check struct {
	name  string
	keys  []string // of several the first should be right; none: it cannot be checked
	noKey string   // what to give then: a key of the catalogue
	right recipe   // its key is the first of keys
	shown bool     // what is signed is shown
	slips func() *search
}

func (e *Explanation) check(c check) {
	s := Signature{Name: c.name, Received: c.right.sig, Missing: c.right.sig == ""}
	if c.shown {
		s.Signed = c.right.baseString()
	}
	if len(c.keys) == 0 {
		s.Unchecked = lang.T(c.noKey)
	} else {
		s.Correct, s.Verified = c.right.sign(), c.right.fits()
		if !s.Verified && !s.Missing {
			s.explained(c.right, c.slips())
		}
	}
	e.Signatures = append(e.Signatures, s)
}

// unchecked says why a signature that is needed is not seen.
func (e *Explanation) unchecked(name, why string) {
	e.Signatures = append(e.Signatures, Signature{Name: name, Unchecked: lang.T(why)})
}

func first(list []string) string { return append(slices.Clip(list), "")[0] }

// paySig checks a signature under the AppKey: paySig, pay_sig or PayEventSig.
func (e *Explanation) paySig(name, sig, what, text string, o Options, prefixes, texts []slip) {
	e.check(check{name: name, keys: o.Keys, noKey: "unchecked.app-key", right: miniRecipe(first(o.Keys), what+"&", text, sig), shown: true, slips: func() *search {
		return miniSearch(keysInstead(o.Keys, "session-key-used", o.SessionKeys, "token-used", o.Tokens), prefixes, texts)
	}})
}

// userSig checks a signature under the session_key, which covers the text alone.
func (e *Explanation) userSig(sig, text string, o Options, prefixes []string, texts []slip) {
	e.check(check{name: "signature", keys: o.SessionKeys, noKey: "unchecked.session-key", right: miniRecipe(first(o.SessionKeys), "", text, sig), shown: true, slips: func() *search {
		var before []slip
		for _, what := range prefixes {
			before = append(before, slip{"prefix-signed", func(r *recipe) { r.prefix = what + "&" }, []any{what}})
		}
		return miniSearch(keysInstead(o.SessionKeys, "app-key-used", o.Keys, "", nil), before, texts)
	}})
}

func (e *Explanation) explainOrder(m *Message, o Options) {
	if m.asObject {
		e.refuse(lang.T("problem.object"))
	}
	what, other, item := m.product()
	if other != "" && len(o.Keys) > 0 {
		if r := miniRecipe(o.Keys[0], other+"&", m.signData, m.paySig); r.fits() {
			what = other
		}
	}
	texts := textSlips(m.signData)
	e.paySig("paySig", m.paySig, what, m.signData, o, prefixSlips(what, ""), texts)
	e.userSig(m.signature, m.signData, o, clientMethods, texts)
	table := orderFields(what)
	if item {
		table = strings.NewReplacer("productId?", "productId", "goodsPrice?", "goodsPrice").Replace(table)
	}
	e.noteFields(m.signData, table, "order")
	if what == forPrograms && m.mode == "" {
		e.note("note.mode-outside")
	}
}

// The methods of the client that sell items.
const (
	forGames    = "requestMidasPaymentGameItem"
	forPrograms = "requestVirtualPayment"
)

var clientMethods = []string{forGames, forPrograms}

// product returns the method that an order is for, and where the order does not say that
// clearly, the other one; and whether it is for an item. A mini game has mode inside signData, a mini program beside it
// (minigame.md 3.1 and 4.1), though some write it inside, too.
func (m *Message) product() (what, other string, item bool) {
	var fields struct{ Mode string }
	err := json.Unmarshal([]byte(m.signData), &fields)
	program := strings.HasPrefix(fields.Mode, "short_series_") || m.mode != ""
	game := fields.Mode == "goods" || fields.Mode == "coins"
	item = strings.HasSuffix(cmp.Or(m.mode, fields.Mode), "goods")
	switch {
	case program && game:
		return forPrograms, forGames, item
	case program:
		return forPrograms, "", item
	case game:
		return forGames, "", item
	case err != nil || fields.Mode != "":
		return forGames, forPrograms, item
	}
	return forPrograms, "", item // without a mode it is no mini game's
}

func (e *Explanation) explainCall(m *Message, o Options) {
	api, known := calls[m.path]
	get := m.path == checkSession
	if known && !get && m.Method == "GET" {
		e.refuse(lang.T("problem.get"))
	}
	paySig, signature := m.values.Get("pay_sig"), m.values.Get("signature")
	needsPay := !get && signedCall(m.path) || m.values.Has("pay_sig")
	needsUser := api.userSig || m.values.Has("signature")
	if m.body == "" && !get { // logs rarely hold it
		if needsPay {
			e.check(check{name: "pay_sig", right: recipe{sig: paySig}, noKey: "unchecked.body"})
		}
		if needsUser {
			e.check(check{name: "signature", right: recipe{sig: signature}, noKey: "unchecked.body"})
		}
	} else {
		texts := textSlips(m.body)
		if needsPay {
			e.paySig("pay_sig", paySig, m.path, m.body, o, prefixSlips(m.path, m.RawQuery), texts)
		}
		if needsUser {
			e.userSig(signature, m.body, o, append([]string{m.path}, clientMethods...), texts)
		}
		if !get && !json.Valid([]byte(m.body)) {
			e.refuse(lang.T("problem.body-not-json"))
		}
	}
	if signedCall(m.path) && m.values.Get("access_token") == "" {
		e.refuse(lang.T("problem.access-token"))
	}
	if method := m.values.Get("sig_method"); needsUser && strings.HasPrefix(m.path, "/wxa/") && method != "hmac_sha256" {
		e.refuse(lang.T("problem.sig-method"))
	}
	if known && m.body != "" {
		e.noteFields(m.body, api.body, "call")
	}
}

func (e *Explanation) explainPush(m *Message, o Options) {
	timestamp, nonce := m.values.Get("timestamp"), m.values.Get("nonce")
	keys, noKey := o.Tokens, "unchecked.token"
	for _, name := range []string{"timestamp", "nonce"} {
		if m.values != nil && !m.values.Has(name) {
			e.refuse(lang.T("problem.missing", name))
			keys, noKey = nil, "unchecked.part"
		}
	}
	token := func(name string, right recipe, parts []slip) {
		e.check(check{name: name, keys: keys, noKey: noKey, right: right, slips: func() *search {
			return pushSearch(keysInstead(o.Tokens, "app-key-used", o.Keys, "token-missing", []string{""}), parts)
		}})
	}
	if m.values.Has("signature") {
		token("signature", pushRecipe(first(o.Tokens), m.values.Get("signature"), timestamp, nonce), []slip{
			{"encrypt-signed", func(r *recipe) { r.parts = append(slices.Clone(r.parts), m.encrypt) }, nil},
			{"body-signed", func(r *recipe) { r.parts = append(slices.Clone(r.parts), m.body) }, nil},
		})
	}
	// In compatible mode a body that can be read stands beside Encrypt, and a URL without
	// msg_signature is for that.
	bare, readable := m.values == nil, m.event != "" || m.payload != ""
	secure := m.values.Get("encrypt_type") == "aes" || m.values.Has("msg_signature") || m.encrypt != "" && (bare || !readable)
	switch sig := m.values.Get("msg_signature"); {
	case secure && bare:
		e.unchecked("msg_signature", "unchecked.url")
	case secure && m.body == "":
		e.check(check{name: "msg_signature", right: recipe{sig: sig}, noKey: "unchecked.body"})
	case secure && m.encrypt == "":
		e.check(check{name: "msg_signature", right: recipe{sig: sig}, noKey: "unchecked.encrypt"})
	case secure:
		with := func(last string) func(*recipe) {
			return func(r *recipe) { r.parts = []string{timestamp, nonce, last} }
		}
		token("msg_signature", pushRecipe(first(o.Tokens), sig, timestamp, nonce, m.encrypt), []slip{
			{"encrypt-not-signed", func(r *recipe) { r.parts = []string{timestamp, nonce} }, nil},
			{"body-signed/encrypted", with(m.body), nil},
			{"blanks-around-encrypt", with(m.rawEncrypt), nil},
			{"encrypt-plus-lost", with(blankToPlus(m.encrypt)), nil},
		})
	case !bare && m.body != "" && m.payload == "":
		e.note("note.plaintext")
	}
	if secure && m.encrypt != "" {
		if len(o.AESKeys) == 0 {
			e.unchecked("PayEventSig", "unchecked.encrypted")
			return
		}
		if m = e.open(m, o); m == nil {
			return
		}
	}
	flat := strings.HasPrefix(m.event, "xpay_") || m.event == "minigame_deliver_goods"
	switch {
	case flat && !secure && !bare:
		e.refuse(lang.T("problem.plaintext"))
	case flat:
		if !secure {
			e.unchecked("msg_signature", "unchecked.url")
		}
		e.note("note.flat")
	case m.payload != "", slices.Contains(signedEvents, m.event):
		texts := textSlips(m.payload)
		if m.rawPayload != "" && m.rawPayload != m.payload {
			texts = append(texts, slip{"payload-not-decoded", func(r *recipe) { r.text = m.rawPayload }, nil})
		}
		e.paySig("PayEventSig", m.payEventSig, m.event, m.payload, o, prefixSlips(m.event, ""), texts)
	}
}
