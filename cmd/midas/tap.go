package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/cmd/midas/internal/explain"
	"github.com/midas-go/midas/cmd/midas/internal/lang"
	"github.com/midas-go/midas/cmd/midas/internal/report"
	"github.com/midas-go/midas/cmd/midas/internal/tap"
)

func runTap(ctx context.Context, args []string, t *terminal) int {
	if len(args) > 0 && args[0] == "report" {
		return runTapReport(args[1:], t)
	}
	const name = "tap"
	flags := newFlags(name)
	keys := newKeyFlags(flags, "key")
	gateway := flags.String("gateway", "", "")
	orders := flags.String("orders", "127.0.0.1:9101", "")
	backend := flags.String("backend", "", "")
	callbacks := flags.String("callbacks", "127.0.0.1:9102", "")
	cert := flags.String("cert", "", "")
	certKey := flags.String("cert-key", "", "")
	record := flags.String("record", "", "")
	keepSecrets := flags.Bool("keep-secrets", false, "")
	appID := flags.String("app-id", "", "")
	path := flags.String("path", "", "")
	tokens, aesKeys := repeatable(flags, "token"), repeatable(flags, "encoding-aes-key")
	shadow := flags.Bool("shadow", false, "")
	if code, ok := t.parse(flags, args); !ok {
		return code
	}
	v := verifier{appID: *appID, path: *path, tokens: *tokens, aesKeys: *aesKeys}
	var err error
	if keys.given(t) {
		v.keys, err = severalKeys(keys, t)
	}
	if t.refused(name, err, when(flags.NArg() > 0, lang.T("sandbox.no-arguments", flags.Arg(0))), when(*gateway == "" && *backend == "", lang.T("tap.nowhere")),
		flagError("-path", wrongConfig(midas.Config{AppID: "any", AppKey: "any", DeliveryPath: *path})), when(*shadow && v.keys == nil, lang.T("tap.shadow-key", keyVariable)),
		when(*shadow && *backend == "", lang.T("tap.needs", "-shadow", "-backend")), when(*keepSecrets && *record == "", lang.T("tap.needs", "-keep-secrets", "-record")),
		when(len(*aesKeys) > 0 && (*appID == "" || len(*tokens) == 0), lang.T("tap.needs", "-encoding-aes-key", "-token, -app-id"))) {
		return exitUsage
	}

	cfg := tap.Config{
		KeepSecrets: *keepSecrets,
		Secret:      mayBeSecret,
		Trouble:     func(err error, lost int) { fmt.Fprintln(t.err, t.say("tap.trouble", err, lost)) },
	}
	if v.keys != nil || v.tokens != nil {
		cfg.Verdict = v.verdict
	}
	scheme := "http"
	for _, leg := range []struct{ kind, flag, to, at string }{{tap.Order, "gateway", *gateway, *orders}, {tap.Callback, "backend", *backend, *callbacks}} {
		if leg.to == "" {
			continue
		}
		to, err := url.Parse(leg.to)
		if err != nil || to.Scheme != "http" && to.Scheme != "https" || to.Host == "" || strings.Trim(to.Path, "/") != "" || to.RawQuery != "" || to.User != nil {
			return t.misused(name, flagError("-"+leg.flag, lang.T("tap.host", leg.to)))
		}
		listener, err := net.Listen("tcp", leg.at)
		if err != nil {
			return t.failed(name, err)
		}
		defer listener.Close()
		if leg.kind == tap.Callback && (*cert != "" || *certKey != "") {
			pair, err := tls.LoadX509KeyPair(*cert, *certKey)
			if err != nil {
				return t.failed(name, flagError("-cert, -cert-key", err))
			}
			listener, scheme = tls.NewListener(listener, anyTLS(pair)), "https"
		}
		cfg.Legs = append(cfg.Legs, tap.Leg{Kind: leg.kind, Listener: listener, To: to})
	}
	if *record != "" {
		// Of this run alone: names stay the same in one file, and nobody else may read it.
		file, err := os.OpenFile(*record, os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND, 0o600)
		if err != nil {
			return t.failed(name, flagError("-record", err))
		}
		defer file.Close()
		cfg.Recording = file
	}

	for _, leg := range cfg.Legs {
		if leg.Kind == tap.Order {
			fmt.Fprintln(t.out, t.say("tap.orders", leg.Listener.Addr(), leg.To))
		} else {
			fmt.Fprintln(t.out, t.say("tap.callbacks", scheme, leg.Listener.Addr(), leg.To))
		}
	}
	switch {
	case *record == "":
	case *keepSecrets:
		fmt.Fprintln(t.out, t.paint(explain.Red, t.say("tap.recording-secrets", *record)))
	default:
		fmt.Fprintln(t.out, t.say("tap.recording", *record))
	}
	fmt.Fprintln(t.out)
	seen := 0
	var compared report.Comparison
	cfg.Seen = func(e *tap.Exchange) {
		seen++
		differs := compared.Add(e)
		if !*shadow || differs {
			fmt.Fprintln(t.out, t.exchangeLine(e, differs))
		}
	}
	lost, err := tap.Run(ctx, cfg)
	if err != nil {
		return t.failed(name, err)
	}
	if *record == "" {
		lost = 0
	}
	fmt.Fprintln(t.out, t.say("tap.done", seen, lost))
	if *shadow {
		t.printComparison(&compared)
	}
	if lost > 0 || *shadow && len(compared.Differences) > 0 {
		return exitFailed
	}
	return exitOK
}

// anyTLS takes whatever version and cipher a caller has: which it has is what the tap is to find
// out, and whoever is behind it decides what is good enough.
func anyTLS(certificate tls.Certificate) *tls.Config {
	cfg := &tls.Config{Certificates: []tls.Certificate{certificate}, NextProtos: []string{"http/1.1"}, MinVersion: tls.VersionTLS10} //nolint:gosec // see above
	for _, suite := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
		cfg.CipherSuites = append(cfg.CipherSuites, suite.ID)
	}
	return cfg
}

// mayBeSecret reports whether a recording must not hold a value. Those of the session cookies that are
// words of the protocol it keeps.
func mayBeSecret(name, value string) bool {
	return secretName(name) && !sessionCookie.MatchString(explain.Decode(explain.Decode(value)))
}

// printComparison says how often a backend and this library agreed, and counts the differences by
// our reason.
func (t *terminal) printComparison(c *report.Comparison) {
	differed := 0
	for _, d := range c.Differences {
		differed += d.Count
	}
	fmt.Fprintln(t.out, t.say("tap.agreed", c.Agreed, c.Verified, differed))
	for _, d := range c.Differences {
		fmt.Fprintf(t.out, "  %4d  %s  %s\n", d.Count, lang.Printable(t.verdict(d.Verdict)), t.answerTo(d.Verdict))
	}
}

// severalKeys reads the pay keys, of which a file may hold one on each line.
func severalKeys(keys keyFlags, t *terminal) ([]string, error) {
	if *keys.file != "" {
		text, err := os.ReadFile(*keys.file)
		if err != nil {
			return nil, flagError("-key-file", err)
		}
		*keys.keys, *keys.file = append(*keys.keys, strings.Fields(string(text))...), ""
	}
	given, err := keys.read(t)
	if err != nil {
		return nil, err
	}
	return given, flagError("-key", wrongConfig(midas.Config{AppID: "any", AppKey: given[0], OtherAppKeys: given[1:]}))
}

// exchangeLine is a line about e for the terminal.
func (t *terminal) exchangeLine(e *tap.Exchange, differs bool) string {
	what, _, _ := strings.Cut(e.Line(), "?")
	outcome := t.say("tap.no-answer")
	if e.Answer != nil {
		outcome = fmt.Sprintf("%d  %s", e.Answer.Status, e.Took().Round(100*time.Microsecond))
	}
	parts := []string{e.Time.Format(time.TimeOnly), fmt.Sprintf("%-8s", e.Kind), lang.Printable(what[:min(len(what), 100)]), outcome}
	if verdict := t.verdict(e.Verdict); verdict != "" {
		colour := explain.Green
		if !e.Verdict.OK {
			colour = explain.Red
		}
		parts = append(parts, t.paint(colour, lang.Printable(verdict)))
	}
	if differs {
		parts = append(parts, t.paint(explain.Red, t.answerTo(e.Verdict)))
	}
	if e.Error != "" {
		parts = append(parts, lang.Printable(e.Error))
	}
	return strings.Join(parts, "  ")
}

// answerTo says what the backend did where it differs from the verdict.
func (t *terminal) answerTo(v *tap.Verdict) string {
	if v.OK {
		return t.say("tap.refused")
	}
	return t.say("tap.took")
}

func (t *terminal) verdict(v *tap.Verdict) string {
	switch {
	case v == nil:
		return ""
	case t.lang == "zh":
		return v.Chinese
	}
	return v.English
}

// explainMasked says what tap found out about a message whose secrets it replaced.
func (t *terminal) explainMasked(line string) int {
	var recorded *tap.Exchange
	if _, err := tap.Read(strings.NewReader(line), func(e *tap.Exchange) error { recorded = e; return nil }); err != nil {
		return t.failed("explain", err)
	}
	if recorded.Verdict == nil {
		return t.failed("explain", lang.T("tap.no-verdict"))
	}
	fmt.Fprintln(t.out, t.say("tap.masked", t.verdict(recorded.Verdict)))
	if !recorded.Verdict.OK {
		return exitFailed
	}
	return exitOK
}
