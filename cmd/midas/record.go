package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"time"

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

	Status   int    `json:"status"` // HTTP status of the answer; 0 without one
	Reply    string `json:"reply"`  // its bytes
	TookMS   int64  `json:"took_ms"`
	Accepted bool   `json:"accepted"`
	Reason   string `json:"reason,omitempty"` // why not

	BaseString string    `json:"base_string,omitempty"` // what is signed
	Mistakes   []mistake `json:"mistakes,omitempty"`    // that make the signature received

	reply []byte // Reply, whatever its bytes
}

func newCallback(action string, r *midastest.Receipt) exchange {
	return exchange{
		Time: time.Now(), Kind: "callback", Action: action, URL: r.URL, BillNo: r.BillNo, Status: r.Status,
		Reply: string(r.Body), TookMS: r.Took.Milliseconds(), Accepted: r.Accepted, Reason: r.Reason, reply: r.Body,
	}
}

// summary is a line about e for the terminal.
func (e exchange) summary(base, appID string) string {
	outcome := "accepted"
	if !e.Accepted {
		outcome = "refused because " + printable(e.Reason)
	}
	switch e.Kind {
	case "order":
		if e.Accepted {
			outcome = base + cashierPath(appID, e.Token)
		}
	case "callback":
		outcome = e.Action + ": " + outcome
	case "cancel":
		outcome = "the player left the cashier"
	}
	return fmt.Sprintf("%-8s  %s", e.Kind, outcome)
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

// secretNames are the player's credentials.
var secretNames = []string{"openkey", "pfkey", "pay_token"}

const masked = "[masked]"

func maskParams(params []param) []param {
	params = slices.Clone(params)
	for i, p := range params {
		if slices.Contains(secretNames, p.Name) && p.Value != "" {
			params[i].Value = masked
		}
	}
	return params
}

// A secret in a query, also where an error page repeats the URL.
var secretInText = regexp.MustCompile(`\b(openkey|pfkey|pay_token)=[^&\s"'<>]+`)

// maskText masks the player's credentials in a URL or a page.
func maskText(text string) string { return secretInText.ReplaceAllString(text, "${1}="+masked) }
