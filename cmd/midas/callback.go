package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/cmd/midas/internal/explain"
	"github.com/midas-go/midas/cmd/midas/internal/lang"
	"github.com/midas-go/midas/cmd/midas/internal/report"
	"github.com/midas-go/midas/midastest"
)

func runCallback(ctx context.Context, args []string, t *terminal) int {
	const name = "callback"
	flags := newFlags(name)
	keys := newKeyFlags(flags, "key")
	endpoint := flags.String("url", "", "")
	path := flags.String("path", "", "")
	token := flags.String("token", "", "")
	appID := flags.String("app-id", demoAppID, "")
	openID := flags.String("openid", "o_TESTopenid", "")
	zone := flags.String("zone", "1", "")
	item := flags.String("payitem", "sword*10*1", "")
	amount := flags.Int("amt", 0, "")
	metadata := flags.String("metadata", "", "")
	billNo := flags.String("billno", "", "")
	forged := flags.Bool("forged", false, "")
	asJSON := flags.Bool("json", false, "")
	if code, ok := t.parse(flags, args); !ok {
		return code
	}
	key, err := keys.one(t)
	if t.refused(name, err, when(*token == "", lang.T("callback.no-token")), when(*amount < 0, lang.T("callback.amt")), flagError("-url", checkDeliveryURL(*endpoint)),
		flagError("-path", wrongConfig(midas.Config{AppID: "any", AppKey: key, DeliveryPath: *path}))) {
		return exitUsage
	}
	items, err := midas.ParseItems(*item)
	if t.refused(name, when(err != nil, lang.T("text", err))) {
		return exitUsage
	}

	if *billNo == "" { // another one for each call, also within a second
		*billNo = "-APPDJ00000-" + strings.Replace(time.Now().Format("20060102-150405.000000"), ".", "", 1)
	}
	srv := midastest.New(midastest.Config{AppID: *appID, AppKey: key, CallbackClient: ownClient})
	srv.DeliverTo(*endpoint)
	options := []midastest.PayOption{midastest.Param("token", *token), midastest.BillNo(*billNo), midastest.SignedPath(*path)}
	if *amount > 0 {
		options = append(options, midastest.Param("amt", strconv.Itoa(*amount)))
	}
	if *forged {
		options = append(options, midastest.WrongKey(key+"-forged"))
	}
	for _, arg := range flags.Args() {
		param, value, err := cutParam(arg)
		if t.refused(name, err) {
			return exitUsage
		}
		options = append(options, midastest.Param(param, value))
	}
	order := srv.AppOrder(midas.OrderRequest{Player: midas.Player{OpenID: *openID, ZoneID: *zone}, Items: items, Metadata: *metadata})
	receipt, err := srv.Pay(ctx, order, options...)
	if err != nil {
		return t.failed(name, err)
	}
	action := "pay"
	if *forged {
		action = "forge"
	}
	e := newCallback(action, receipt)
	code, colour := exitFailed, explain.Red
	if e.OK {
		code, colour = exitOK, explain.Green
	}
	if *asJSON {
		out := json.NewEncoder(t.out)
		out.SetEscapeHTML(false)
		out.Encode(e)
		return code
	}
	status := cmp.Or(strings.TrimPrefix(strconv.Itoa(e.Status), "0"), "—") // 0 is no answer
	fmt.Fprintf(t.out, "%s\n%s\n", t.say("callback.sent", e.URL, e.BillNo, status, receipt.Took.Round(100_000), lang.Raw(visibleText(e.Reply, e.ReplySize))), t.paint(colour, e.verdict().In(t.lang)))
	return code
}

// ownClient says who it is, so that "midas tap report" takes nothing that it sends for Midas's.
var ownClient = &http.Client{Transport: ownTransport{}}

type ownTransport struct{}

func (ownTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("User-Agent", report.OwnAgent)
	return http.DefaultTransport.RoundTrip(r)
}

// checkDeliveryURL says what is wrong with a delivery URL. (A query or an escaped path is open
// in protocol.md 5.)
func checkDeliveryURL(text string) error {
	u, err := url.Parse(text)
	switch {
	case text == "":
		return lang.T("delivery-url.missing")
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return lang.T("delivery-url.form", text)
	case u.Path == "":
		return lang.T("delivery-url.no-path", text)
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return lang.T("delivery-url.query", text)
	}
	return nil
}
