package midas_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"maps"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/midas-go/midas"
	"github.com/stretchr/testify/require"
)

func TestTheDocumentedCallbackBecomesADelivery(t *testing.T) {
	t.Parallel()
	d, err := documentedClient(t).ParseDeliveryQuery(documentedCallback)
	require.NoError(t, err)
	require.Equal(t, &midas.Delivery{
		AppID: "1101255891", OpenID: "F11669C63D76BAB0BC2F6CC869B19E53", BillNo: "-APPDJSX18246-20140401-1206311492",
		Token: "5056117C0597793C38C4F1D29F884C5E25887", ZoneID: "1",
		Items:    []midas.Item{{ID: "G1", Price: 200, Quantity: 2}},
		Charged:  320, // a discount of 20 %: fen, not Q-points
		Metadata: "customkey", PayMethod: "qdqb", Platform: "qq",
		Time: time.Unix(1396325191, 0), ProvideType: 5,
		Params: midas.Params{
			{"amt", "320"}, {"appid", "1101255891"}, {"appmeta", "customkey*qdqb*qq"}, {"billno", "-APPDJSX18246-20140401-1206311492"},
			{"clientver", "android"}, {"openid", "F11669C63D76BAB0BC2F6CC869B19E53"}, {"payamt_coins", "0"}, {"payitem", "G1*20*2"},
			{"providetype", "5"}, {"pubacct_payamt_coins", ""}, {"token", "5056117C0597793C38C4F1D29F884C5E25887"},
			{"ts", "1396325191"}, {"version", "v3"}, {"zoneid", "1"},
		},
	}, d)
}

func TestCallbackVectorsVerifyFromTheRawQuery(t *testing.T) {
	t.Parallel()
	verified := 0
	for _, v := range midas.Vectors() {
		if v.Kind != "callback" || !strings.EqualFold(v.Method, "GET") {
			continue
		}
		verified++
		t.Run(v.Name, func(t *testing.T) {
			t.Parallel()
			q := v.Values()
			q.Set("sig", v.Sig)
			require.True(t, midas.Verify(q.Encode(), v.Path, v.AppKey), "a blank as +")
			require.True(t, midas.Verify(strings.ReplaceAll(q.Encode(), "+", "%20"), v.Path, v.AppKey), "a blank as %%20")
			require.False(t, midas.Verify(q.Encode(), v.Path+"/", v.AppKey), "another path")
			require.False(t, midas.Verify(q.Encode(), v.Path, v.AppKey+"x"), "another key")
		})
	}
	require.Greater(t, verified, 40)
}

func TestTheRawQueryIsReadAsMidasWritesIt(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		what, query string
		want        midas.Params
	}{
		{"semicolons are data", "payitem=a*1*1;b*2*2&sig=s", midas.Params{{"payitem", "a*1*1;b*2*2"}, {"sig", "s"}}},
		{"empty pairs are skipped", "&&b=2&&a=1&sig=s&", midas.Params{{"a", "1"}, {"b", "2"}, {"sig", "s"}}},
		{"the first = counts", "a=1=2==&sig=s=", midas.Params{{"a", "1=2=="}, {"sig", "s="}}},
		{"a bare name has an empty value", "empty&sig=s", midas.Params{{"empty", ""}, {"sig", "s"}}},
		{"a stray % is itself", "a=100%&b=%zz&c=%4&d=%&e=%%41&sig=s", midas.Params{{"a", "100%"}, {"b", "%zz"}, {"c", "%4"}, {"d", "%"}, {"e", "%A"}, {"sig", "s"}}},
		{"escapes of either case", "a=%e5%89%91%E5%89%91&sig=s", midas.Params{{"a", "剑剑"}, {"sig", "s"}}},
		{"escaped separators are data", "a=1%26b%3D2&sig=s", midas.Params{{"a", "1&b=2"}, {"sig", "s"}}},
		{"hex digits that are letters", "a=%4a%4A%6f&sig=s", midas.Params{{"a", "JJo"}, {"sig", "s"}}},
		{"a plus is a blank", "a=1+2%2B3&sig=s", midas.Params{{"a", "1 2+3"}, {"sig", "s"}}},
		{"names are decoded", "%61=1&%73ig=s", midas.Params{{"a", "1"}, {"sig", "s"}}},
		{"names in byte order", "b=1&B=2&a_=3&a.=4&a-=5&sig=s", midas.Params{{"B", "2"}, {"a-", "5"}, {"a.", "4"}, {"a_", "3"}, {"b", "1"}, {"sig", "s"}}},
	} {
		t.Run(test.what, func(t *testing.T) {
			t.Parallel()
			got, err := midas.SplitQuery(test.query, ' ')
			require.NoError(t, err)
			require.Equal(t, test.want, got)
		})
	}
}

func TestAQueryThatNoSignatureCouldMakeSafeIsRefused(t *testing.T) {
	t.Parallel()
	good := signed(nil)
	for _, test := range []struct{ what, query, param, reply string }{
		{"nothing", "", "sig", "bad_parameter:sig"},
		{"no sig", "amt=1", "sig", "bad_parameter:sig"},
		{"an empty sig", "amt=1&sig=", "sig", "bad_parameter:sig"},
		{"sig twice", good + "&sig=x", "sig", "bad_parameter:sig"},
		{"a known parameter twice", good + "&amt=1", "amt", "bad_parameter:amt"},
		{"a known parameter twice, once escaped", good + "&%61mt=1", "amt", "bad_parameter:amt"},
		{"an unknown parameter twice", good + "&xbazinga=1&xbazinga=1", "query", "bad_parameter"},
		{"an = in a name", good + "&a%3Db=1", "query", "bad_parameter"},
		{"a blank in a name", good + "&a+b=1", "query", "bad_parameter"},
		{"a NUL in a name", good + "&a%00=1", "query", "bad_parameter"},
		{"no name", good + "&=1", "query", "bad_parameter"},
		{"a Chinese name", good + "&%E5%89%91=1", "query", "bad_parameter"},
		{"a name with a stray %", good + "&a%=1", "query", "bad_parameter"},
		{"over 16 KiB", good + "&x=" + strings.Repeat("x", 16<<10), "query", "bad_parameter"},
		{"the v5 protocol", "version=v5&sign=abc&appid=1", "version", "bad_parameter:version"},
	} {
		t.Run(test.what, func(t *testing.T) {
			t.Parallel()
			d, err := callbackClient(t).ParseDeliveryQuery(test.query)
			require.Nil(t, d)
			require.ErrorIs(t, err, midas.ErrSignature)
			var paramErr *midas.ParamError
			require.ErrorAs(t, err, &paramErr)
			require.Equal(t, test.param, paramErr.Param)
			require.Equal(t, `{"ret":4,"msg":"`+test.reply+`"}`, string(midas.ReplyTo(err).Bytes()))
		})
	}
	_, err := callbackClient(t).ParseDeliveryQuery(good)
	require.NoError(t, err, "the query that they were made of is good")
}

func TestACallbackSignedForSomethingElseIsRefused(t *testing.T) {
	t.Parallel()
	params := url.Values{"openid": {"o"}, "appid": {testAppID}, "token": {"T"}, "billno": {"-a-b"}, "payitem": {"a*1*1"}, "amt": {"10"}, "ts": {"1"}}
	for what, sig := range map[string]string{
		"the order's path":   midas.SignCallback("GET", "/v3/r/mpay/buy_goods_m", params, testAppKey),
		"a trailing slash":   midas.SignCallback("GET", "/pay/notify/", params, testAppKey),
		"another case":       midas.SignCallback("GET", "/pay/Notify", params, testAppKey),
		"another method":     midas.SignCallback("POST", "/pay/notify", params, testAppKey),
		"another key":        midas.SignCallback("GET", "/pay/notify", params, testAppKey+"2"),
		"the & doubled":      midas.SignCallback("GET", "/pay/notify", params, testAppKey+"&"),
		"the request's rule": midas.Sign("GET", "/pay/notify", params, testAppKey),
		"nothing":            "AAAAAAAAAAAAAAAAAAAAAAAAAAA=",
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			q := maps.Clone(params)
			q.Set("sig", sig)
			d, err := callbackClient(t).ParseDeliveryQuery(q.Encode())
			require.Nil(t, d)
			require.ErrorIs(t, err, midas.ErrSignature)
			require.ErrorContains(t, err, "DeliveryPath, /pay/notify, is the registered path")
			require.Equal(t, `{"ret":4,"msg":"bad_parameter:sig"}`, string(midas.ReplyTo(err).Bytes()))
		})
	}
	params.Set("sig", midas.SignCallback("GET", "/pay/notify", params, testAppKey))
	_, err := callbackClient(t).ParseDeliveryQuery(params.Encode())
	require.NoError(t, err, "signed for this, it is good")
}

func TestMovingABoundaryBetweenNameAndValueNeverVerifies(t *testing.T) {
	t.Parallel()
	c := documentedClient(t)
	// Every "=" and "&" of the query, escaped or moved by a few bytes in either direction, and
	// every "%3D" put in their place.
	tried := 0
	for i, b := range []byte(documentedCallback) {
		if b != '=' && b != '&' {
			continue
		}
		before, after := documentedCallback[:i], documentedCallback[i+1:]
		variants := []string{before + after, before + url.QueryEscape(string(b)) + after, before + "=" + url.QueryEscape(string(b)) + after, before + "&" + after, before + "%3D" + after, before + "%253D" + after}
		for n := 1; n <= 4; n++ {
			if i-n >= 0 {
				variants = append(variants, documentedCallback[:i-n]+string(b)+documentedCallback[i-n:i]+after, documentedCallback[:i-n]+string(b)+documentedCallback[i-n:i]+url.QueryEscape(string(b))+after)
			}
			if n < len(after) {
				variants = append(variants, before+after[:n]+string(b)+after[n:], before+url.QueryEscape(string(b))+after[:n]+string(b)+after[n:])
			}
		}
		for _, variant := range variants {
			if sameParameters(variant, documentedCallback) {
				continue
			}
			_, err := c.ParseDeliveryQuery(variant)
			require.Error(t, err, variant)
			tried++
		}
	}
	require.Greater(t, tried, 300)

	// The case of protocol.md 5: unencoded names would let one parameter pass for two.
	for _, forged := range []string{
		strings.Replace(documentedCallback, "amt=320&appid=1101255891", "amt%3D320&appid=1101255891", 1),
		strings.Replace(documentedCallback, "amt=320&appid=1101255891", "amt=320%26appid%3D1101255891", 1),
		strings.Replace(documentedCallback, "amt=320&appid=1101255891", "amt%3D320%26appid=1101255891", 1),
	} {
		t.Run(forged, func(t *testing.T) {
			t.Parallel()
			_, err := c.ParseDeliveryQuery(forged)
			require.ErrorIs(t, err, midas.ErrSignature)
		})
	}
}

// sameParameters compares two queries as a standard parser reads them.
func sameParameters(a, b string) bool {
	pa, errA := url.ParseQuery(a)
	pb, errB := url.ParseQuery(b)
	return errA == nil && errB == nil && maps.EqualFunc(pa, pb, slices.Equal)
}

// (openid, billno) is the payment: two payments have one id in no notation of either.
func TestPaymentIDsOfDistinctPaymentsDiffer(t *testing.T) {
	t.Parallel()
	require.Equal(t, "o_TEST-1/-APPDJ0-1", midas.PaymentID("o_TEST-1", "-APPDJ0-1"))
	payments := [][2]string{
		{"a", "b"}, {"A", "b"}, {"a", "B"}, {"ab", ""}, {"", "ab"}, {"", ""}, {"a/", "b"}, {"a", "/b"}, {"a/b", ""}, {"", "a/b"}, {"a", "b/"}, {"a/b", "c"}, {"a", "b/c"},
		{"a%2F", "b"}, {"a%2f", "b"}, {"a%2Fb", ""}, {"a%252F", "b"}, {"a ", "b"}, {"a", " b"}, {"a+", "b"}, {"a%20", "b"}, {"a\x00", "b"}, {"a", "\x00b"}, {"a\xff", "b"}, {"a\ufffd", "b"}, {"剑", "b"}, {"a", "剑b"},
	}
	of := map[string][2]string{}
	for _, payment := range payments {
		id := midas.PaymentID(payment[0], payment[1])
		require.NotContains(t, of, id, "%q and %q", payment, of[id])
		of[id] = payment
	}
}

func FuzzPaymentID(f *testing.F) {
	f.Add("a/", "b", "a", "/b")
	f.Add("a%2F", "b", "a/", "b")
	f.Fuzz(func(t *testing.T, openID1, billNo1, openID2, billNo2 string) {
		same := openID1 == openID2 && billNo1 == billNo2
		require.Equal(t, same, midas.PaymentID(openID1, billNo1) == midas.PaymentID(openID2, billNo2))
	})
}

func TestABarePlusMayBeLiteral(t *testing.T) {
	t.Parallel()
	c := callbackClient(t)
	for _, cftid := range []string{"1 2", "1+2", "1+2 3"} {
		t.Run(cftid, func(t *testing.T) {
			t.Parallel()
			query := signed(map[string]string{"cftid": cftid, "amt": "7"}) // a blank as +, a plus as %2B
			d, err := c.ParseDeliveryQuery(query)
			require.NoError(t, err)
			require.Equal(t, cftid, d.Params.Get("cftid"))
			require.Equal(t, []string{cftid}, d.Numbers)
		})
	}
	literal := strings.NewReplacer("%2B", "+", "+", "%20").Replace(signed(map[string]string{"cftid": "1+2 3"}))
	require.Contains(t, literal, "cftid=1+2%203")
	d, err := c.ParseDeliveryQuery(literal)
	require.NoError(t, err)
	require.Equal(t, "1+2 3", d.Params.Get("cftid"))
}

func TestAnUnescapedPlusInTheSignatureIsUnderstood(t *testing.T) {
	t.Parallel()
	c := callbackClient(t)
	for i := range 1000 {
		query := signed(map[string]string{"billno": strconv.Itoa(i), "cftid": "a blank"})
		if !strings.Contains(query, "%2B") {
			continue
		}
		for _, plus := range []string{"+", "%20"} { // while a "+" elsewhere is a blank
			_, err := c.ParseDeliveryQuery(strings.ReplaceAll(query, "%2B", plus))
			require.NoError(t, err)
		}
		return
	}
	t.Fatal("no signature with a plus among 1000")
}

func TestCeeExtendIsTriedBothWays(t *testing.T) {
	t.Parallel()
	c := callbackClient(t)

	unsigned := signed(nil) + "&cee_extend=dom%2A1%2Aws"
	d, err := c.ParseDeliveryQuery(unsigned)
	require.NoError(t, err)
	require.False(t, has(d.Params, "cee_extend"), "it is not signed, so anybody may have written it")

	params, err := url.ParseQuery(signed(nil))
	require.NoError(t, err)
	params.Del("sig")
	params.Set("cee_extend", "dom*1*ws")
	renamed := url.Values{} // a name that SignCallback does not leave out, and that sorts alike
	for name, values := range params {
		renamed[strings.Replace(name, "cee_extend", "cee_extenX", 1)] = values
	}
	base := strings.Replace(midas.CallbackBaseString("GET", "/pay/notify", renamed), "cee_extenX", "cee_extend", 1)
	params.Set("sig", hmacSHA1(base, testAppKey))
	d, err = c.ParseDeliveryQuery(params.Encode())
	require.NoError(t, err)
	require.Equal(t, "dom*1*ws", d.Params.Get("cee_extend"))

	params.Set("cee_extend", "changed")
	_, err = c.ParseDeliveryQuery(params.Encode())
	require.ErrorIs(t, err, midas.ErrSignature)
}

// hmacSHA1 is the second stage of a signature.
func hmacSHA1(base, key string) string {
	mac := hmac.New(sha1.New, []byte(key+"&"))
	mac.Write([]byte(base))
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

func TestAVerifiedCallbackWithABadParameterIsRefusedByName(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ what, name, value string }{
		{"no openid", "openid", ""},
		{"no billno", "billno", ""},
		{"a billno of 65 characters", "billno", strings.Repeat("号", 65)},
		{"no token", "token", ""},
		{"no appid", "appid", ""},
		{"another app", "appid", "1450000001"},
		{"no payitem", "payitem", ""},
		{"no price", "payitem", "sword"},
		{"no quantity", "payitem", "sword*60"},
		{"no id", "payitem", "*60*1"},
		{"a part of a fen", "payitem", "sword*0.01*1"},
		{"a negative price", "payitem", "sword*-60*1"},
		{"a price in exponents", "payitem", "sword*6e1*1"},
		{"a price that does not fit", "payitem", "sword*922337203685477580.8*1"},
		{"quantity 0", "payitem", "sword*60*0"},
		{"a negative quantity", "payitem", "sword*60*-1"},
		{"a quantity with a sign", "payitem", "sword*60*+1"},
		{"a quantity that does not fit", "payitem", "sword*60*2147483648"},
		{"a fourth part", "payitem", "sword*60*1*2"},
		{"an empty second item", "payitem", "sword*60*1;"},
		{"no amt", "amt", ""},
		{"a fraction of a fen", "amt", "0.5"},
		{"a negative amt", "amt", "-1"},
		{"amt with a sign", "amt", "+1"},
		{"amt in hex", "amt", "0x10"},
		{"an amt that does not fit", "amt", "9223372036854775808"},
		{"amt in Arabic digits", "amt", "١"},
		{"no ts", "ts", ""},
		{"a ts that is no number", "ts", "now"},
		{"a ts beyond year 9999", "ts", "253402300800"},
		{"a providetype that does not fit", "providetype", "2147483648"},
		{"another version", "version", "v4"},
	} {
		t.Run(test.what, func(t *testing.T) {
			t.Parallel()
			d, err := callbackClient(t).ParseDeliveryQuery(signed(map[string]string{test.name: test.value}))
			require.Nil(t, d)
			var paramErr *midas.ParamError
			require.ErrorAs(t, err, &paramErr)
			require.Equal(t, test.name, paramErr.Param)
			require.NotErrorIs(t, err, midas.ErrSignature)
			require.Equal(t, `{"ret":4,"msg":"bad_parameter:`+test.name+`"}`, string(midas.ReplyTo(err).Bytes()))
		})
	}
}

func TestWhatAVerifiedCallbackMayLookLike(t *testing.T) {
	t.Parallel()
	c := callbackClient(t)
	for _, test := range []struct {
		what   string
		change map[string]string
		check  func(t *testing.T, d *midas.Delivery)
	}{
		{"several items, trailing zeros", map[string]string{"payitem": "a*60.0*2;b*0.10*1;c*0.1*3"}, func(t *testing.T, d *midas.Delivery) {
			require.Equal(t, []midas.Item{{"a", 600, 2}, {"b", 1, 1}, {"c", 1, 3}}, d.Items)
		}},
		{"largest numbers", map[string]string{"amt": "9223372036854775807", "payitem": "a*922337203685477580.7*2147483647", "ts": "253402300799"}, func(t *testing.T, d *midas.Delivery) {
			require.Equal(t, midas.Amount(9223372036854775807), d.Charged)
			require.Equal(t, []midas.Item{{"a", 9223372036854775807, 2147483647}}, d.Items)
			require.Equal(t, 9999, d.Time.UTC().Year())
		}},
		{"metadata with stars", map[string]string{"appmeta": "orderType*1234567890*qqwallet*qq"}, func(t *testing.T, d *midas.Delivery) {
			require.Equal(t, []string{"orderType*1234567890", "qqwallet", "qq"}, []string{d.Metadata, d.PayMethod, d.Platform})
		}},
		{"empty metadata", map[string]string{"appmeta": "*wechat*st_dummy"}, func(t *testing.T, d *midas.Delivery) {
			require.Equal(t, []string{"", "wechat", "st_dummy"}, []string{d.Metadata, d.PayMethod, d.Platform})
		}},
		{"appmeta without its suffix", map[string]string{"appmeta": "a*b"}, func(t *testing.T, d *midas.Delivery) {
			require.Equal(t, []string{"a*b", "", ""}, []string{d.Metadata, d.PayMethod, d.Platform})
		}},
		{"a very old call", map[string]string{"ts": "1"}, func(t *testing.T, d *midas.Delivery) { require.EqualValues(t, 1, d.Time.Unix()) }},
		{"a decoy", map[string]string{"wbazinga": "1"}, func(t *testing.T, d *midas.Delivery) { require.Equal(t, "1", d.Params.Get("wbazinga")) }},
		{"other modes", map[string]string{"providetype": "3"}, func(t *testing.T, d *midas.Delivery) { require.Equal(t, 3, d.ProvideType) }},
		{"less than usual", map[string]string{"providetype": "", "version": "", "zoneid": ""}, func(t *testing.T, d *midas.Delivery) {
			require.Zero(t, d.ProvideType)
			require.Empty(t, d.ZoneID)
		}},
		{"a billno of 64 characters", map[string]string{"billno": strings.Repeat("号", 64)}, func(t *testing.T, d *midas.Delivery) { require.Len(t, d.BillNo, 192) }},
		{"many parameters", manyParams(), func(t *testing.T, d *midas.Delivery) { require.Len(t, d.Params, 111) }},
	} {
		t.Run(test.what, func(t *testing.T) {
			t.Parallel()
			d, err := c.ParseDeliveryQuery(signed(test.change))
			require.NoError(t, err)
			test.check(t, d)
			require.Equal(t, testAppID, d.AppID)
			require.False(t, has(d.Params, "sig"))
		})
	}
}

// has reports whether there is a parameter, even an empty one.
func has(params midas.Params, name string) bool {
	return slices.ContainsFunc(params, func(p midas.Param) bool { return p.Name == name })
}

func manyParams() map[string]string {
	many := map[string]string{}
	for i := range 100 {
		many[fmt.Sprintf("p%d", i)] = "x"
	}
	return many
}

func TestParsingNeedsADeliveryPathAndAGET(t *testing.T) {
	t.Parallel()
	c := documentedClient(t, func(cfg *midas.Config) { cfg.DeliveryPath = "" })
	_, err := c.ParseDeliveryQuery(documentedCallback)
	var configErr *midas.ConfigError
	require.ErrorAs(t, err, &configErr)
	require.Equal(t, "DeliveryPath", configErr.Field)
	require.Equal(t, 1, midas.ReplyTo(err).Ret(), "not the caller's fault")
	require.PanicsWithValue(t, "midas.Config.DeliveryPath: empty: set it to the path of the delivery URL as registered at Tencent",
		func() { c.DeliveryHandler(func(context.Context, *midas.Delivery) error { return nil }) })
	require.PanicsWithValue(t, "midas: DeliveryHandler without a DeliverFunc", func() { documentedClient(t).DeliveryHandler(nil) })

	for _, method := range []string{"POST", "HEAD", "get"} {
		t.Run(method, func(t *testing.T) {
			t.Parallel()
			r := httptest.NewRequest("GET", documentedPath+"?"+documentedCallback, nil)
			r.Method = method
			_, err := documentedClient(t).ParseDelivery(r)
			require.ErrorIs(t, err, midas.ErrSignature)
		})
	}
	d, err := documentedClient(t).ParseDelivery(httptest.NewRequest("GET", "/x?"+documentedCallback, nil))
	require.NoError(t, err)
	require.Equal(t, "customkey", d.Metadata)
}

func FuzzSplitQuery(f *testing.F) {
	for _, seed := range []string{documentedCallback, "a=1&b", "%", "a=%4", "&&", "a+b=1", "=", "a%3D1&appid=145", "x=\xff\x00", "version=v5"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, query string) {
		for _, plus := range []byte{' ', '+'} {
			params, err := midas.SplitQuery(query, plus)
			if err != nil {
				continue
			}
			for i := range params {
				require.True(t, i == 0 || params[i-1].Name < params[i].Name, "sorted, no name twice")
			}
			// Where the standard parser takes the query too, they agree.
			if std, err := url.ParseQuery(query); err == nil && plus == ' ' {
				require.Len(t, params, len(std))
				for _, p := range params {
					require.Equal(t, std.Get(p.Name), p.Value)
				}
			}
		}
	})
}

func FuzzASignedQueryVerifiesAndAChangedOneDoesNot(f *testing.F) {
	f.Add("amt", "320", "appmeta", "a*b*c", "/pay/mt.php", "key", uint(3), byte(1))
	f.Add("a", "", "b", "+ %41;=&\x00\xff", "/", "k", uint(0), byte(255))
	f.Add("cee_extend", "x", "cee", "剑", "/x", "k", uint(1), byte(7))
	f.Fuzz(func(t *testing.T, name1, value1, name2, value2, path, key string, at uint, change byte) {
		for _, name := range []string{name1, name2} {
			if name == "" || name == "sig" || name == "cee_extend" || strings.Trim(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-") != "" {
				return
			}
		}
		if name1 == name2 || len(value1)+len(value2)+len(name1)+len(name2) > 4000 || name1 == "version" || name2 == "version" {
			return
		}
		params := url.Values{name1: {value1}, name2: {value2}}
		params.Set("sig", midas.SignCallback("GET", path, params, key))
		require.True(t, midas.Verify(params.Encode(), path, key))
		require.True(t, midas.Verify(strings.ReplaceAll(params.Encode(), "+", "%20"), path, key))

		if len(value1) == 0 || change == 0 {
			return
		}
		changed := []byte(value1)
		changed[at%uint(len(changed))] ^= change
		params.Set(name1, string(changed))
		// Blanks as %20: a bare "+" may stand for the plus that was signed, and then nothing is changed.
		require.False(t, midas.Verify(strings.ReplaceAll(params.Encode(), "+", "%20"), path, key))
	})
}

func FuzzAppMeta(f *testing.F) {
	f.Add("shop*42", "qqwallet", "qq")
	f.Add("", "", "")
	f.Fuzz(func(t *testing.T, metadata, payMethod, platform string) {
		if strings.Contains(payMethod+platform, "*") {
			return
		}
		m, p, pl := midas.SplitAppMeta(metadata + "*" + payMethod + "*" + platform)
		require.Equal(t, []string{metadata, payMethod, platform}, []string{m, p, pl})
	})
}
