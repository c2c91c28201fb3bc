package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/midas-go/midas/cmd/midas/internal/explain"
	"github.com/midas-go/midas/cmd/midas/internal/lang"
	"github.com/midas-go/midas/midastest"
)

// An exchange is a request and its answer: an order that the backend placed, or a callback
// that it was sent. The API, the pages and the record show the same.
type exchange struct {
	Seq    int       `json:"seq"` // 1 is the first since the start
	Time   time.Time `json:"time"`
	Kind   string    `json:"kind"`             // "order", "callback", or "cancel": the player left
	Action string    `json:"action,omitempty"` // what a callback came from: pay, repeat, forge, expire
	Token  string    `json:"token,omitempty"`  // of the order; empty if it was refused

	URL     string  `json:"url,omitempty"` // what was called
	Params  []param `json:"params,omitempty"`
	Cookies []param `json:"cookies,omitempty"`
	BillNo  string  `json:"billno,omitempty"`

	Status      int      `json:"status"`                 // HTTP status of the answer; 0 without one
	Reply       string   `json:"reply"`                  // its bytes, the first 4 KiB
	ReplyBase64 []byte   `json:"reply_base64,omitempty"` // Reply, where JSON cannot hold it since it is not UTF-8
	ReplySize   int      `json:"reply_size"`
	Ret         *int     `json:"ret,omitempty"` // of the answer, if it is JSON that has one
	TookMS      int64    `json:"took_ms"`
	Accepted    bool     `json:"accepted"`
	Reason      string   `json:"reason,omitempty"` // why not
	Preset      bool     `json:"preset,omitempty"` // the answer was asked for with /api/next
	Notes       []string `json:"notes,omitempty"`  // of an order: what was tolerated
	OK          bool     `json:"ok"`               // accepted; of a forgery: refused, with a ret above 0

	BaseString string            `json:"base_string,omitempty"` // what is signed
	Mistakes   []explain.Finding `json:"mistakes,omitempty"`    // each makes the signature received, the likeliest first
}

// size returns about how many bytes it takes to keep e, and the order that midastest keeps
// besides, which holds the parameters once more.
func (e exchange) size() int {
	n := 1 << 10 // e itself, and the like
	for _, s := range append([]string{e.URL, e.Token, e.Action, e.BillNo, e.Reply, string(e.ReplyBase64), e.Reason, e.BaseString}, e.Notes...) {
		n += len(s)
	}
	for _, p := range slices.Concat(e.Params, e.Cookies) {
		n += 2 * (len(p.Name) + len(p.Value) + 64)
	}
	for _, mistakes := range e.Mistakes {
		for _, m := range mistakes {
			n += len(m.Name) + len(fmt.Sprint(m.What, m.Cure, m.If)) + 512
		}
	}
	return n
}

func newCallback(action string, r *midastest.Receipt) exchange {
	e := exchange{
		Time: time.Now(), Kind: "callback", Action: action, URL: r.URL, BillNo: r.BillNo, Status: r.Status,
		TookMS: r.Took.Milliseconds(), Accepted: r.Accepted, Reason: r.Reason, OK: r.Accepted,
	}
	e.setReply(r.Body)
	if action == "forge" { // no answer, or an ill-formed one, refuses no forgery
		e.OK = e.Status == http.StatusOK && e.Ret != nil && *e.Ret > 0
	}
	return e
}

// setReply keeps an answer, or its beginning.
func (e *exchange) setReply(body []byte) {
	e.Reply, e.ReplySize = string(body[:min(len(body), maxReply)]), len(body)
	if !utf8.ValidString(e.Reply) {
		e.ReplyBase64 = []byte(e.Reply)
	}
	var reply struct{ Ret *int }
	if json.Unmarshal(body, &reply) == nil {
		e.Ret = reply.Ret
	}
}

// ForgeryTaken reports whether the backend took a forgery for a payment, however it wrote that.
func (e exchange) ForgeryTaken() bool { return e.Action == "forge" && e.Ret != nil && *e.Ret == 0 }

// verdict says in words how it went.
func (e exchange) verdict() lang.Text {
	switch {
	case e.ForgeryTaken():
		return lang.T("page.forgeryAccepted")
	case e.Action == "forge" && e.OK:
		return lang.T("page.forgeryRefused")
	case e.Accepted:
		return lang.T("page.accepted")
	case e.Preset:
		return lang.T("verdict.preset", e.RetText())
	}
	return lang.T("verdict.refused", lang.Said(e.Reason))
}

// RetText is the ret of an answer, or what was answered in its place.
func (e exchange) RetText() lang.Text {
	if e.Ret != nil {
		return lang.T("verdict.ret", *e.Ret)
	}
	return lang.T("verdict.status", e.Status)
}

// summary is a line about e for the terminal.
func (e exchange) summary(language, base, appID string) string {
	outcome := e.verdict().In(language)
	switch {
	case e.Kind == "order" && e.Accepted:
		outcome = base + cashierPath(appID, e.Token)
		for _, note := range e.Notes {
			outcome += "\n                    " + lang.Said(note).In(language)
		}
	case e.Kind == "callback":
		outcome = lang.T("line.outcome", lang.T("line.action."+e.Action), lang.Raw(outcome)).In(language)
	case e.Kind == "cancel":
		outcome = lang.T("page.cancelled").In(language)
	}
	return lang.Pad(lang.T("line."+e.Kind).In(language), 8) + "  " + outcome
}

// cashierPath is the url_params of an order (protocol.md 4).
func cashierPath(appID, token string) string {
	return "/v1/sx8/" + appID + "/mobile_goods_info?token_id=" + token
}

// openRecord opens a record for appending. Only its owner may read it: it holds players' ids.
func openRecord(name string) (*os.File, error) {
	file, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	if err := file.Chmod(0o600); err != nil { // it may have been there before
		file.Close()
		return nil, err
	}
	return file, nil
}

// writeRecord appends an exchange to a record, as a line of JSON.
func writeRecord(record io.Writer, e exchange) error {
	line := json.NewEncoder(record)
	line.SetEscapeHTML(false) // a recorded URL can be given to "midas explain -"
	return line.Encode(e)
}
