package main

import (
	"context"
	"fmt"
	"net/url"
	"strings"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/cmd/midas/internal/lang"
)

func runSign(_ context.Context, args []string, t *terminal) int {
	const name = "sign"
	flags := newFlags(name)
	keys := newKeyFlags(flags, "key")
	callback := flags.Bool("callback", false, "")
	method := flags.String("method", "GET", "")
	path := flags.String("path", "", "")
	base := flags.Bool("base", false, "")
	query := flags.Bool("query", false, "")
	if code, ok := t.parse(flags, args); !ok {
		return code
	}
	key, err := keys.one(t)
	if t.refused(name, err, when(flags.NArg() == 0, lang.T("sign.no-params")), when(*callback && *path == "", lang.T("usage.no-path")),
		when(*callback && *method != "GET", lang.T("sign.get")), when(*base && *query, lang.T("sign.base-and-query"))) {
		return exitUsage
	}
	params := url.Values{}
	for _, arg := range flags.Args() {
		param, value, err := cutParam(arg)
		if t.refused(name, err, when(params.Has(param), lang.T("sign.twice", param))) {
			return exitUsage
		}
		params.Set(param, value)
	}
	params.Del("sig")
	sign, baseString := midas.Sign, midas.BaseString
	if *callback {
		sign, baseString = midas.SignCallback, midas.CallbackBaseString
	} else if *path == "" {
		*path = ysdkPrefix + orderPath
	}
	sig := sign(*method, *path, params, key)
	switch {
	case *base:
		fmt.Fprintln(t.out, baseString(*method, *path, params))
	case *query:
		params.Set("sig", sig)
		fmt.Fprintln(t.out, encodeQuery(params))
	default:
		fmt.Fprintln(t.out, sig)
	}
	return exitOK
}

// encodeQuery encodes every value once, a space as %20.
func encodeQuery(params url.Values) string { return strings.ReplaceAll(params.Encode(), "+", "%20") }
