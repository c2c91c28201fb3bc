package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midastest"
)

const callbackAbout = `Usage: midas callback -key KEY -url http://127.0.0.1:8080/pay/notify -token TOKEN [flags]

Sends one delivery callback to an endpoint, signed as Midas signs it, and says whether Midas would
take the reply for a delivery. NAME=VALUE after the flags sets further parameters.
Exit code 0: accepted, or, with -forged, refused with a ret above 0; 1: not; 2: wrong usage.
`

func runCallback(ctx context.Context, args []string, t *terminal) int {
	const name = "callback"
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	var keys keyFlags
	keys.register(flags, "key", "`pay key`, without the trailing \"&\"")
	endpoint := flags.String("url", "", "delivery `URL` to call")
	path := flags.String("path", "", "`path` to sign, if the registered URL's path is not that of -url")
	token := flags.String("token", "", "`token` of the order, as your backend stored it")
	appID := flags.String("app-id", demoAppID, "`offer id`, the parameter appid")
	openID := flags.String("openid", "o_TESTopenid", "the player's `openid`")
	zone := flags.String("zone", "1", "server `zone`, the parameter zoneid")
	item := flags.String("payitem", "sword*10*1", "`id*price*num`, price in Q-points; several joined by \";\"")
	amount := flags.Int("amt", 0, "what is charged, in `fen` (0.1 Q-points); 0 means the items' price")
	metadata := flags.String("metadata", "", "`app_metadata` of the order, the first part of appmeta")
	billNo := flags.String("billno", "", "Midas's `serial number`: give an earlier one to repeat that payment; if empty, a new one")
	forged := flags.Bool("forged", false, "sign with a wrong pay key: the endpoint has to refuse it")
	asJSON := flags.Bool("json", false, "print JSON")
	lang := langFlag(flags)
	if code, ok := t.parse(flags, args, callbackAbout); !ok {
		return code
	}
	given, err := keys.read(t, "key")
	switch {
	case err != nil:
		return t.misused(name, err)
	case len(given) > 1:
		return t.misused(name, errors.New("-key: give one pay key"))
	case *token == "":
		return t.misused(name, errors.New("-token: missing; it is in Midas's answer to the order"))
	case *amount < 0:
		return t.misused(name, errors.New("-amt: below 0"))
	}
	if err := checkDeliveryURL(*endpoint); err != nil {
		return t.misused(name, fmt.Errorf("-url: %w", err))
	}
	if _, err := newClient(midas.Config{AppID: "any", AppKey: given[0], DeliveryPath: *path}); err != nil {
		return t.misused(name, fmt.Errorf("-path: %w", err))
	}
	items, err := midas.ParseItems(*item)
	if err != nil {
		return t.misused(name, fmt.Errorf("-%w", err))
	}

	if *billNo == "" { // another one for each call, also within a second
		*billNo = "-APPDJ00000-" + strings.Replace(time.Now().Format("20060102-150405.000000"), ".", "", 1)
	}
	srv := midastest.New(midastest.Config{AppID: *appID, AppKey: given[0]})
	srv.DeliverTo(*endpoint)
	options := []midastest.PayOption{midastest.Param("token", *token), midastest.BillNo(*billNo), midastest.SignedPath(*path)}
	if *amount > 0 {
		options = append(options, midastest.Param("amt", strconv.Itoa(*amount)))
	}
	if *forged {
		options = append(options, midastest.WrongKey(given[0]+"-forged"))
	}
	for _, arg := range flags.Args() {
		param, value, err := cutParam(arg)
		if err != nil {
			return t.misused(name, err)
		}
		options = append(options, midastest.Param(param, value))
	}
	order := srv.AppOrder(midas.OrderRequest{OpenID: *openID, ZoneID: *zone, Items: items, Metadata: *metadata})
	receipt, err := srv.Pay(ctx, order, options...)
	if err != nil {
		return t.failed(name, err)
	}
	action := "pay"
	if *forged {
		action = "forge"
	}
	e := newCallback(action, receipt)
	code, colour := exitFailed, red
	if e.OK {
		code, colour = exitOK, green
	}
	if *asJSON {
		out := json.NewEncoder(t.out)
		out.SetEscapeHTML(false)
		out.Encode(e)
		return code
	}
	say := words[language(*lang, t.env)]
	fmt.Fprintf(t.out, say["callbackSent"],
		printable(e.URL), printable(e.BillNo), e.Status, receipt.Took.Round(100_000), visibleText(e.Reply, e.ReplySize), t.paint(colour, e.verdict(language(*lang, t.env))))
	return code
}

// checkDeliveryURL says what is wrong with a delivery URL. (A query or an escaped path is open
// in protocol.md 5.)
func checkDeliveryURL(text string) error {
	u, err := url.Parse(text)
	switch {
	case text == "":
		return errors.New("missing; give your backend's delivery URL, such as http://127.0.0.1:8080/pay/notify")
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return fmt.Errorf("%s is not of the form http://host/path", quote(text))
	case u.Path == "":
		return fmt.Errorf("%s has no path: the callback is signed for it", quote(text))
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return fmt.Errorf("%s holds a query or a fragment", quote(text))
	}
	return nil
}
