package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/midas-go/midas"
)

const explainAbout = `Usage: midas explain -key KEY [-path /registered/path] URL-or-query

Says whether the signature of a delivery callback or of a request to Midas is right, and if it
is not, which of the known mistakes made it and what to change. It prints the parameters and
the base string at both stages, to be compared with your own.

The input is a URL, a raw query, or a line of an access log; "-" reads it from standard input:

  grep billno= access.log | tail -1 | midas explain -key-file pay.key -path /pay/notify -

A request is told from a callback by its parameters. With -sig it is your own signature of this
message that is explained, as your code computed it.

openkey, pfkey and pay_token are masked in what is printed, unless -secrets is given; the pay
key never is printed. Exit code 0: verified; 1: not; 2: wrong usage.
`

func runExplain(args []string, t *terminal) int {
	const name = "explain"
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	var keys keyFlags
	keys.register(flags, "key", "`pay key`, without the trailing \"&\"; give a second -key to have it tried too (the other environment's)")
	path := flags.String("path", "", "signed `path`: of a callback that of the delivery URL as registered at Tencent; if empty, the URL's (of an order /v3/r/mpay/buy_goods_m)")
	sig := flags.String("sig", "", "explain this `signature` instead of the one in the message")
	asJSON := flags.Bool("json", false, "print JSON")
	secrets := flags.Bool("secrets", false, "show openkey, pfkey and pay_token")
	if code, ok := t.parse(flags, args, explainAbout); !ok {
		return code
	}
	if flags.NArg() != 1 {
		return t.misused(name, errors.New(`want one URL or query, quoted, after the flags ("-" for standard input)`))
	}
	given, err := keys.read(t, "key")
	if err != nil {
		return t.misused(name, err)
	}
	text := flags.Arg(0)
	if text == "-" {
		input, err := io.ReadAll(io.LimitReader(t.in, maxMessage+1))
		if err != nil {
			return t.failed(name, fmt.Errorf("reading standard input: %w", err))
		}
		text = string(input)
	}
	m, err := parseMessage(text)
	switch {
	case err != nil && flags.Arg(0) == "-": // data, not usage
		return t.failed(name, err)
	case err != nil:
		return t.misused(name, err)
	}
	e, err := explain(m, *path, given, *sig, *secrets)
	if err != nil {
		return t.misused(name, err)
	}
	if *asJSON {
		out := json.NewEncoder(t.out)
		out.SetEscapeHTML(false)
		out.SetIndent("", "  ")
		out.Encode(e)
	} else {
		e.print(t)
	}
	if !e.Verified || e.Problem != "" {
		return exitFailed
	}
	return exitOK
}

// An explanation says why a signature is right or wrong.
type explanation struct {
	Kind       string    `json:"kind"` // "callback" or "request"
	Verified   bool      `json:"verified"`
	Problem    string    `json:"problem,omitempty"` // why it would be refused all the same
	Method     string    `json:"method"`
	Path       string    `json:"path"`
	Params     []param   `json:"params"` // those that are signed
	Values     string    `json:"values"` // stage 1
	BaseString string    `json:"base_string"`
	Sig        string    `json:"sig"`         // as received
	RightSig   string    `json:"correct_sig"` // as it should be
	Mistakes   []mistake `json:"mistakes"`    // together they make the signature received
	Alike      []string  `json:"alike,omitempty"`
	Tried      int       `json:"tried"` // how many mistakes were tried
	Notes      []string  `json:"notes,omitempty"`
}

// explain verifies m for a signed path, under the first of keys. The error says what is
// wrong with the flags.
func explain(m *message, path string, keys []string, sig string, secrets bool) (*explanation, error) {
	if path == "" {
		path = m.signedPath()
	}
	if path == "" {
		return nil, errors.New("-path: a callback is signed for the path of its delivery URL; a query alone does not hold it, so give it")
	}
	right := newRecipe(m, path, keys[0])
	if sig != "" {
		right.sig = sig
	}
	e := &explanation{
		Kind: "request", Method: right.method, Path: path, Params: right.params,
		Sig: right.sig, RightSig: right.sign(), Verified: right.fits(),
	}
	if m.callback {
		e.Kind = "callback"
		if err := e.asTheLibrarySeesIt(m, path, keys[0], sig); err != nil {
			return nil, err
		}
	} else {
		e.checkRequest(m, right.sig)
	}
	if !e.Verified && e.Problem == "" {
		mistakes := mistakesFor(m, right, keys[1:])
		e.Mistakes, e.Alike = findMistakes(right, mistakes)
		e.Tried = len(mistakes)
	}

	shown := right
	if !secrets {
		shown.params = maskParams(right.params)
	}
	e.Params, e.Values, e.BaseString = shown.params, shown.joined(), shown.base()
	return e, nil
}

// asTheLibrarySeesIt verifies a callback with the library itself: it also knows the cases
// where protocol.md 5 obliges to try twice, and what is refused although it verifies.
func (e *explanation) asTheLibrarySeesIt(m *message, path, key, sig string) error {
	appID := value(m.params(once), "appid")
	if appID == "" || strings.ContainsAny(appID, " \t\r\n") {
		appID = "any"
	}
	client, err := newClient(midas.Config{AppID: appID, AppKey: key, DeliveryPath: path})
	if err != nil {
		return fmt.Errorf("-path %s: %w", quote(path), err) // the key was checked before
	}
	if m.method != "GET" {
		e.Notes = append(e.Notes, "it was recorded with the method "+m.method+"; Midas calls back with GET, and signs that")
	}
	if sig != "" {
		return nil // another signature than the message's
	}
	_, err = client.ParseDeliveryQuery(m.query)
	e.Verified = !errors.Is(err, midas.ErrSignature)
	var wrong *midas.ParamError
	if errors.As(err, &wrong) {
		e.Problem = wrong.Error()
	}
	if strings.Contains(value(m.params(once), "sig"), " ") {
		e.Notes = append(e.Notes, `the sig holds a space where base64 has "+": it was not encoded in the URL, or decoded twice; the library reads it all the same, as servers in other languages do`)
	}
	return nil
}

// checkRequest looks for what makes a request unreadable for Midas.
func (e *explanation) checkRequest(m *message, sig string) {
	received := m.params(once)
	for i, p := range received {
		if slices.ContainsFunc(received[:i], func(before param) bool { return before.Name == p.Name }) {
			e.Problem = "parameter " + quote(p.Name) + ": comes twice"
			return
		}
		if p.Value == masked {
			e.Problem = "parameter " + quote(p.Name) + ": is masked in this text, so the signature cannot be checked; record it with -secrets"
			return
		}
	}
	if sig == "" {
		e.Problem = "parameter sig: missing"
	}
}

// signedPath returns the path that the signature is for, as far as the message shows it.
func (m *message) signedPath() string {
	switch {
	case m.callback:
		return m.path
	case m.path == "":
		return ysdkPrefix + orderPath
	case strings.HasPrefix(m.path, "/mpay/") && !strings.Contains(m.site, "//msdk") && !strings.Contains(m.site, "//openapi."):
		return ysdkPrefix + m.path // YSDK's signed path is not the URL's (protocol.md 2)
	}
	return m.path
}

func (e *explanation) print(t *terminal) {
	fmt.Fprintf(t.out, "%s  %s %s\n\n", t.paint(bold, e.Kind), e.Method, printable(e.Path))
	width := 0
	for _, p := range e.Params {
		width = max(width, len(printable(p.Name)))
	}
	for _, p := range e.Params {
		line := fmt.Sprintf("  %-*s  %s", width, printable(p.Name), printable(p.Value))
		if meaning := e.meaning(p); meaning != "" {
			line += t.paint(dim, "   "+printable(meaning))
		}
		fmt.Fprintln(t.out, strings.TrimRight(line, " "))
	}
	stage1 := "parameters joined"
	if e.Kind == "callback" {
		stage1 = "parameters joined, their values encoded"
	}
	fmt.Fprintf(t.out, "\n%s\n  %s\n", t.paint(bold, "1. "+stage1), printable(e.Values))
	fmt.Fprintf(t.out, "%s\n  %s\n", t.paint(bold, "2. base string"), printable(e.BaseString))
	fmt.Fprintf(t.out, "%s\n  received  %s\n", t.paint(bold, "3. signature"), printable(e.Sig))
	if !e.Verified {
		fmt.Fprintf(t.out, "  correct   %s\n", e.RightSig)
	}
	fmt.Fprintln(t.out)
	for _, note := range e.Notes {
		fmt.Fprintf(t.out, "Note: %s.\n", printable(note))
	}
	switch {
	case e.Verified && e.Problem == "":
		fmt.Fprintln(t.out, t.paint(green, "VERIFIED")+": the signature is right.")
	case e.Problem != "":
		fmt.Fprintf(t.out, "%s: %s.\n", t.paint(red, "REFUSED"), printable(e.Problem))
	case e.Mistakes == nil:
		fmt.Fprintf(t.out, `%s: the signature is another one, and none of the %d mistakes tried makes it,
nor any two of them together. What is left: another pay key (give the other environment's with
a second -key), a path rewritten on the way (give the registered one with -path), a parameter
changed, added or lost after signing, or a forgery. Compare the base string with your own.
`, t.paint(red, "NOT VERIFIED"), e.Tried)
	default:
		fmt.Fprintf(t.out, "%s: the signature is another one. It is made like this:\n", t.paint(red, "NOT VERIFIED"))
		for _, m := range e.Mistakes {
			fmt.Fprintf(t.out, "\n  %s: %s.\n  To change: %s.\n", t.paint(bold, m.Name), m.What, m.Cure)
		}
		if len(e.Alike) > 0 {
			fmt.Fprintf(t.out, "\nFor this message these come to the same: %s.\n", strings.Join(e.Alike, ", "))
		}
	}
}

// meaning says what a parameter of a callback stands for, where that is not obvious
// (protocol.md 5).
func (e *explanation) meaning(p param) string {
	n, err := strconv.ParseInt(p.Value, 10, 64)
	switch {
	case p.Name == "ts" && err == nil && n > 0 && n < 1<<36:
		return time.Unix(n, 0).UTC().Format(time.DateTime) + " UTC"
	case p.Name == "amt" && err == nil && e.Kind == "callback":
		return "charged: " + midas.Amount(n).String()
	}
	return ""
}
