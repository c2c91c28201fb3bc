package main

import (
	"errors"
	"flag"
	"fmt"
	"net/url"
	"strings"

	"github.com/midas-go/midas"
)

const signAbout = `Usage: midas sign -key KEY [-path PATH] NAME=VALUE...
       midas sign -key KEY -callback -path /registered/path NAME=VALUE...

Prints the signature (sig) of the parameters of a request to Midas, or of a delivery callback.
Values are given raw, not percent-encoded; empty ones are signed too; a sig among them is not.
`

func runSign(args []string, t *terminal) int {
	const name = "sign"
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	var keys keyFlags
	keys.register(flags, "key", "`pay key`, without the trailing \"&\"")
	callback := flags.Bool("callback", false, "sign a delivery callback instead of a request")
	method := flags.String("method", "GET", "`method` of a request")
	path := flags.String("path", "", "signed `path`: of a callback that of the delivery URL as registered at Tencent; of a request, if empty, /v3/r/mpay/buy_goods_m")
	base := flags.Bool("base", false, "print the base string, which is signed, instead of the signature")
	query := flags.Bool("query", false, "print the signed query, ready for a URL, instead of the signature")
	if code, ok := t.parse(flags, args, signAbout); !ok {
		return code
	}
	given, err := keys.read(t, "key")
	switch {
	case err != nil:
		return t.misused(name, err)
	case len(given) > 1:
		return t.misused(name, errors.New("-key: give one pay key"))
	case flags.NArg() == 0:
		return t.misused(name, errors.New("no parameters: give NAME=VALUE after the flags"))
	case *callback && *path == "":
		return t.misused(name, errors.New("-path: a callback is signed for the path of its delivery URL, so give it"))
	case *callback && *method != "GET":
		return t.misused(name, errors.New("-method: Midas calls back with GET"))
	case *base && *query:
		return t.misused(name, errors.New("-base and -query: give one of them"))
	}
	params := url.Values{}
	for _, arg := range flags.Args() {
		param, value, err := cutParam(arg)
		if err != nil {
			return t.misused(name, err)
		}
		if params.Has(param) {
			return t.misused(name, fmt.Errorf("parameter %s: given twice", quote(param)))
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
	sig := sign(*method, *path, params, given[0])
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
