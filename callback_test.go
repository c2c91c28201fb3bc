package midas_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/midas-go/midas"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Tencent's documented callback; testdata/README.md says where it is from.
const (
	documentedKey   = "Lf6AtMEB1QlE8BYS"
	documentedPath  = "/pay/mt.php"
	documentedQuery = "amt=320&appid=1101255891&appmeta=customkey%2Aqdqb%2Aqq&billno=-APPDJSX18246-20140401-1206311492&clientver=android" +
		"&openid=F11669C63D76BAB0BC2F6CC869B19E53&payamt_coins=0&payitem=G1%2A20%2A2&providetype=5&pubacct_payamt_coins=" +
		"&token=5056117C0597793C38C4F1D29F884C5E25887&ts=1396325191&version=v3&zoneid=1&sig=ai1eD5CA16n5pWBx9abjZguMR5Y%3D"
)

func documentedClient(t testing.TB, change ...func(*midas.Config)) *midas.Client {
	cfg := midas.Config{AppID: "1101255891", AppKey: documentedKey, DeliveryPath: documentedPath}
	for _, f := range change {
		f(&cfg)
	}
	c, err := midas.New(cfg)
	require.NoError(t, err)
	return c
}

func TestTheDocumentedCallbackBecomesADelivery(t *testing.T) {
	t.Parallel()
	d, err := documentedClient(t).ParseDeliveryQuery(documentedQuery)
	require.NoError(t, err)
	params, err := url.ParseQuery(documentedQuery)
	require.NoError(t, err)
	params.Del("sig")
	require.Equal(t, &midas.Delivery{
		OpenID: "F11669C63D76BAB0BC2F6CC869B19E53", BillNo: "-APPDJSX18246-20140401-1206311492",
		Token: "5056117C0597793C38C4F1D29F884C5E25887", ZoneID: "1",
		Items:    []midas.Item{{ID: "G1", Price: 200, Quantity: 2}},
		Charged:  320, // a discount of 20 %: fen, not Q-points
		Metadata: "customkey", PayMethod: "qdqb", Platform: "qq",
		Time: time.Unix(1396325191, 0), ProvideType: 5, Params: params,
	}, d)
}

func TestTheDocumentedCallbackPassesTheRealHandler(t *testing.T) {
	t.Parallel()
	var got *midas.Delivery
	h := documentedClient(t).DeliveryHandler(func(_ context.Context, d *midas.Delivery) error { got = d; return nil })
	srv := httptest.NewServer(h)
	defer srv.Close()
	resp, err := http.Get(srv.URL + "/behind/another/path?" + documentedQuery)
	require.NoError(t, err)
	defer resp.Body.Close()
	var body bytes.Buffer
	_, err = body.ReadFrom(resp.Body)
	require.NoError(t, err)
	require.Equal(t, 200, resp.StatusCode)
	require.Equal(t, []byte(`{"ret":0,"msg":"OK"}`), body.Bytes())
	require.EqualValues(t, 20, resp.ContentLength)
	require.Equal(t, "-APPDJSX18246-20140401-1206311492", got.BillNo)
}

func TestCallbackVectorsVerifyFromTheRawQuery(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("testdata/signatures.json")
	require.NoError(t, err)
	var vectors []struct {
		Name, Kind, Method, Path, Sig string
		AppKey                        string `json:"app_key"`
		Params                        map[string]string
	}
	require.NoError(t, json.Unmarshal(data, &vectors))
	verified := 0
	for _, v := range vectors {
		if v.Kind != "callback" || !strings.EqualFold(v.Method, "GET") {
			continue
		}
		q := url.Values{"sig": {v.Sig}}
		for name, value := range v.Params {
			q.Set(name, value)
		}
		require.True(t, midas.Verify(q.Encode(), v.Path, v.AppKey), "%s, a blank as +", v.Name)
		require.True(t, midas.Verify(strings.ReplaceAll(q.Encode(), "+", "%20"), v.Path, v.AppKey), "%s, a blank as %%20", v.Name)
		require.False(t, midas.Verify(q.Encode(), v.Path+"/", v.AppKey), v.Name)
		require.False(t, midas.Verify(q.Encode(), v.Path, v.AppKey+"x"), v.Name)
		verified++
	}
	require.Greater(t, verified, 40)
}

// signed returns the raw query of a callback with these parameters on top of usual ones; an
// empty value removes a parameter.
func signed(change map[string]string) string {
	params := url.Values{
		"openid": {"o_TESTopenid"}, "appid": {testAppID}, "zoneid": {"1"}, "token": {"TOKEN"}, "billno": {"-APPDJ0-1"},
		"payitem": {"sword*60*1"}, "amt": {"600"}, "ts": {"1516080285"}, "version": {"v3"}, "providetype": {"5"}, "pubacct_payamt_coins": {""},
	}
	for name, value := range change {
		params.Set(name, value)
		if value == "" {
			params.Del(name)
		}
	}
	params.Set("sig", midas.SignCallback("GET", "/pay/notify", params, testAppKey))
	return params.Encode()
}

func callbackClient(t testing.TB, change ...func(*midas.Config)) *midas.Client {
	return documentedClient(t, append([]func(*midas.Config){func(cfg *midas.Config) {
		cfg.AppID, cfg.AppKey, cfg.DeliveryPath = testAppID, testAppKey, "/pay/notify"
	}}, change...)...)
}

func TestTheRawQueryIsReadAsMidasWritesIt(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		what, query   string
		names, values []string
	}{
		{"semicolons are data", "payitem=a*1*1;b*2*2&sig=s", []string{"payitem", "sig"}, []string{"a*1*1;b*2*2", "s"}},
		{"empty pairs are skipped", "&&b=2&&a=1&sig=s&", []string{"a", "b", "sig"}, []string{"1", "2", "s"}},
		{"the first = counts", "a=1=2==&sig=s=", []string{"a", "sig"}, []string{"1=2==", "s="}},
		{"a bare name has an empty value", "empty&sig=s", []string{"empty", "sig"}, []string{"", "s"}},
		{"a stray % is itself", "a=100%&b=%zz&c=%4&d=%&e=%%41&sig=s", []string{"a", "b", "c", "d", "e", "sig"}, []string{"100%", "%zz", "%4", "%", "%A", "s"}},
		{"escapes of either case", "a=%e5%89%91%E5%89%91&sig=s", []string{"a", "sig"}, []string{"剑剑", "s"}},
		{"escaped separators are data", "a=1%26b%3D2&sig=s", []string{"a", "sig"}, []string{"1&b=2", "s"}},
		{"hex digits that are letters", "a=%4a%4A%6f&sig=s", []string{"a", "sig"}, []string{"JJo", "s"}},
		{"a plus is a blank", "a=1+2%2B3&sig=s", []string{"a", "sig"}, []string{"1 2+3", "s"}},
		{"names are decoded", "%61=1&%73ig=s", []string{"a", "sig"}, []string{"1", "s"}},
		{"names in byte order", "b=1&B=2&a_=3&a.=4&a-=5&sig=s", []string{"B", "a-", "a.", "a_", "b", "sig"}, []string{"2", "5", "4", "3", "1", "s"}},
	} {
		names, values, err := midas.SplitQuery(test.query, ' ')
		require.NoError(t, err, test.what)
		require.Equal(t, test.names, names, test.what)
		require.Equal(t, test.values, values, test.what)
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
		d, err := callbackClient(t).ParseDeliveryQuery(test.query)
		require.Nil(t, d, test.what)
		require.ErrorIs(t, err, midas.ErrSignature, test.what)
		var paramErr *midas.ParamError
		require.ErrorAs(t, err, &paramErr, test.what)
		require.Equal(t, test.param, paramErr.Param, test.what)
		require.Equal(t, midas.Reply{Ret: 4, Msg: test.reply}, midas.ReplyTo(err), test.what)
	}
	_, err := callbackClient(t).ParseDeliveryQuery(good)
	require.NoError(t, err, "the query they were made of is good")
}

func TestACallbackSignedForSomethingElseIsRefused(t *testing.T) {
	t.Parallel()
	params := url.Values{"openid": {"o"}, "appid": {testAppID}, "token": {"T"}, "billno": {"-1"}, "payitem": {"a*1*1"}, "amt": {"10"}, "ts": {"1"}}
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
		q := maps.Clone(params)
		q.Set("sig", sig)
		_, err := callbackClient(t).ParseDeliveryQuery(q.Encode())
		if what == "the request's rule" { // the same where no value needs encoding: so give it one that does
			q.Set("billno", "-a-b")
			q.Set("sig", midas.Sign("GET", "/pay/notify", q, testAppKey))
			_, err = callbackClient(t).ParseDeliveryQuery(q.Encode())
		}
		require.ErrorIs(t, err, midas.ErrSignature, what)
		require.ErrorContains(t, err, "DeliveryPath, /pay/notify, is the registered path", what)
		require.Equal(t, midas.Reply{Ret: 4, Msg: "bad_parameter:sig"}, midas.ReplyTo(err))
	}
}

func TestMovingABoundaryBetweenNameAndValueNeverVerifies(t *testing.T) {
	t.Parallel()
	c := documentedClient(t)
	// Every "=" and "&" of the query, escaped or moved by a few bytes in either direction, and
	// every "%3D" put in their place.
	tried := 0
	for i, b := range []byte(documentedQuery) {
		if b != '=' && b != '&' {
			continue
		}
		before, after := documentedQuery[:i], documentedQuery[i+1:]
		variants := []string{before + after, before + url.QueryEscape(string(b)) + after, before + "=" + url.QueryEscape(string(b)) + after, before + "&" + after, before + "%3D" + after, before + "%253D" + after}
		for n := 1; n <= 4; n++ {
			if i-n >= 0 {
				variants = append(variants, documentedQuery[:i-n]+string(b)+documentedQuery[i-n:i]+after, documentedQuery[:i-n]+string(b)+documentedQuery[i-n:i]+url.QueryEscape(string(b))+after)
			}
			if n < len(after) {
				variants = append(variants, before+after[:n]+string(b)+after[n:], before+url.QueryEscape(string(b))+after[:n]+string(b)+after[n:])
			}
		}
		for _, variant := range variants {
			if sameParameters(variant, documentedQuery) {
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
		strings.Replace(documentedQuery, "amt=320&appid=1101255891", "amt%3D320&appid=1101255891", 1),
		strings.Replace(documentedQuery, "amt=320&appid=1101255891", "amt=320%26appid%3D1101255891", 1),
		strings.Replace(documentedQuery, "amt=320&appid=1101255891", "amt%3D320%26appid=1101255891", 1),
	} {
		_, err := c.ParseDeliveryQuery(forged)
		require.ErrorIs(t, err, midas.ErrSignature, forged)
	}
}

// sameParameters compares two queries as a standard parser reads them.
func sameParameters(a, b string) bool {
	pa, errA := url.ParseQuery(a)
	pb, errB := url.ParseQuery(b)
	return errA == nil && errB == nil && maps.EqualFunc(pa, pb, slices.Equal)
}

func TestABarePlusMayBeLiteral(t *testing.T) {
	t.Parallel()
	c := callbackClient(t)
	for _, cftid := range []string{"1 2", "1+2", "1+2 3"} {
		query := signed(map[string]string{"cftid": cftid, "amt": "7"}) // a blank as +, a plus as %2B
		d, err := c.ParseDeliveryQuery(query)
		require.NoError(t, err)
		require.Equal(t, cftid, d.Params.Get("cftid"))
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
	require.NotContains(t, d.Params, "cee_extend", "it is not signed, so anybody may have written it")

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
		d, err := callbackClient(t).ParseDeliveryQuery(signed(map[string]string{test.name: test.value}))
		require.Nil(t, d, test.what)
		var paramErr *midas.ParamError
		require.ErrorAs(t, err, &paramErr, test.what)
		require.Equal(t, test.name, paramErr.Param, test.what)
		require.NotErrorIs(t, err, midas.ErrSignature, test.what)
		require.Equal(t, midas.Reply{Ret: 4, Msg: "bad_parameter:" + test.name}, midas.ReplyTo(err), test.what)
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
		d, err := c.ParseDeliveryQuery(signed(test.change))
		require.NoError(t, err, test.what)
		test.check(t, d)
		require.NotContains(t, d.Params, "sig")
	}
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
	_, err := c.ParseDeliveryQuery(documentedQuery)
	var configErr *midas.ConfigError
	require.ErrorAs(t, err, &configErr)
	require.Equal(t, "DeliveryPath", configErr.Field)
	require.Equal(t, 1, midas.ReplyTo(err).Ret, "not the caller's fault")
	require.PanicsWithValue(t, "midas.Config.DeliveryPath: empty: set it to the path of the delivery URL as registered at Tencent",
		func() { c.DeliveryHandler(func(context.Context, *midas.Delivery) error { return nil }) })
	require.PanicsWithValue(t, "midas: DeliveryHandler without a DeliverFunc", func() { documentedClient(t).DeliveryHandler(nil) })

	for _, method := range []string{"POST", "HEAD", "get"} {
		r := httptest.NewRequest("GET", documentedPath+"?"+documentedQuery, nil)
		r.Method = method
		_, err := documentedClient(t).ParseDelivery(r)
		require.ErrorIs(t, err, midas.ErrSignature)
	}
	d, err := documentedClient(t).ParseDelivery(httptest.NewRequest("GET", "/x?"+documentedQuery, nil))
	require.NoError(t, err)
	require.Equal(t, "customkey", d.Metadata)
}

func TestReplies(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		err  error
		want string // protocol.md 5
	}{
		{nil, `{"ret":0,"msg":"OK"}`},
		{errors.New("the database says: no\n"), `{"ret":1,"msg":"system_busy"}`},
		{context.DeadlineExceeded, `{"ret":1,"msg":"system_busy"}`},
		{fmt.Errorf("x: %w", midas.ErrTokenExpired), `{"ret":2,"msg":"token_expired"}`},
		{fmt.Errorf("x: %w", midas.ErrTokenNotFound), `{"ret":3,"msg":"token_not_found"}`},
		{fmt.Errorf("x: %w", &midas.ParamError{Param: "amt"}), `{"ret":4,"msg":"bad_parameter:amt"}`},
		{&midas.ParamError{Param: "<b>"}, `{"ret":4,"msg":"bad_parameter"}`},
		{midas.ErrSignature, `{"ret":4,"msg":"bad_parameter:sig"}`},
		{&midas.Error{Ret: 1018}, `{"ret":1,"msg":"system_busy"}`},
		{&midas.Error{Ret: 1001, Msg: "sig error"}, `{"ret":1,"msg":"system_busy"}`}, // of an order, not of the callback
		{(*midas.ParamError)(nil), `{"ret":1,"msg":"system_busy"}`},                  // no nil: an error with a nil in it
		{(*midas.Error)(nil), `{"ret":1,"msg":"system_busy"}`},
	} {
		reply := midas.ReplyTo(test.err)
		require.Equal(t, test.want, reply.String())
		require.Equal(t, []byte(test.want), reply.Bytes())
		inJSON, err := json.Marshal(reply)
		require.NoError(t, err)
		require.Equal(t, test.want, string(inJSON))
	}
	odd := midas.Reply{Ret: 1, Msg: "a b\tc\nd\"e\\f<g>h&i\x00j\x7fk\xffl"}
	require.Equal(t, `{"ret":1,"msg":"a_b_c_d_e_f_g_h_i_j_k_l"}`, odd.String(), "no blanks and nothing that JSON escapes")
}

// hmacSHA1 is the second stage of a signature.
func hmacSHA1(base, key string) string {
	mac := hmac.New(sha1.New, []byte(key+"&"))
	mac.Write([]byte(base))
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// serve calls the handler in process.
func serve(h http.Handler, method, query string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, "/pay/notify?"+query, nil))
	return w
}

func TestEveryGETIsAnsweredWithTheExactBytes(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		what    string
		query   string
		deliver midas.DeliverFunc
		want    string
	}{
		{"delivered", signed(nil), func(context.Context, *midas.Delivery) error { return nil }, `{"ret":0,"msg":"OK"}`},
		{"failed", signed(nil), func(context.Context, *midas.Delivery) error { return errors.New("x") }, `{"ret":1,"msg":"system_busy"}`},
		{"token expired", signed(nil), func(context.Context, *midas.Delivery) error { return midas.ErrTokenExpired }, `{"ret":2,"msg":"token_expired"}`},
		{"no such token", signed(nil), func(context.Context, *midas.Delivery) error { return midas.ErrTokenNotFound }, `{"ret":3,"msg":"token_not_found"}`},
		{"bad parameter", signed(nil), func(context.Context, *midas.Delivery) error { return &midas.ParamError{Param: "payitem"} }, `{"ret":4,"msg":"bad_parameter:payitem"}`},
		{"panic", signed(nil), func(context.Context, *midas.Delivery) error { panic("x") }, `{"ret":1,"msg":"system_busy"}`},
		{"abort", signed(nil), func(context.Context, *midas.Delivery) error { panic(http.ErrAbortHandler) }, `{"ret":1,"msg":"system_busy"}`},
		{"an error that is a nil pointer", signed(nil), func(context.Context, *midas.Delivery) error { var p *midas.ParamError; return p }, `{"ret":1,"msg":"system_busy"}`},
		{"an error whose text panics", signed(nil), func(context.Context, *midas.Delivery) error { return (*panickyError)(nil) }, `{"ret":1,"msg":"system_busy"}`},
		{"forged", signed(nil) + "x", nil, `{"ret":4,"msg":"bad_parameter:sig"}`},
		{"another app's", signed(map[string]string{"appid": "7"}), nil, `{"ret":4,"msg":"bad_parameter:appid"}`},
	} {
		if test.deliver == nil {
			test.deliver = func(context.Context, *midas.Delivery) error { t.Error("delivered: " + test.what); return nil }
		}
		w := serve(callbackClient(t).DeliveryHandler(test.deliver), "GET", test.query)
		require.Equal(t, 200, w.Code, test.what)
		require.Equal(t, test.want, w.Body.String(), test.what)
		require.Equal(t, http.Header{
			"Content-Length": {strconv.Itoa(len(test.want))}, "Content-Type": {"application/json"}, "Cache-Control": {"no-store"},
		}, w.Result().Header, test.what)
	}
}

type panickyError struct{ text string }

func (e *panickyError) Error() string { return e.text }

// With GODEBUG=panicnil=1, which some old programs need, recover returns nil for panic(nil).
func TestAPanicWithNilIsNoSuccess(t *testing.T) {
	t.Setenv("GODEBUG", "panicnil=1")
	h := callbackClient(t).DeliveryHandler(func(context.Context, *midas.Delivery) error { panic(nil) })
	require.Equal(t, `{"ret":1,"msg":"system_busy"}`, serve(h, "GET", signed(nil)).Body.String())
}

// A log may block: on a pipe, a full disk, a collector. Midas waits for two seconds only.
func TestTheAnswerDoesNotWaitForTheLog(t *testing.T) {
	t.Parallel()
	for query, want := range map[string]string{signed(nil): `{"ret":0,"msg":"OK"}`, "": `{"ret":4,"msg":"bad_parameter:sig"}`} {
		logging, release := make(chan bool), make(chan bool)
		c := callbackClient(t, func(cfg *midas.Config) {
			cfg.Logger = slog.New(slog.NewTextHandler(writer(func(p []byte) (int, error) {
				close(logging)
				<-release
				return len(p), nil
			}), nil))
		})
		srv := httptest.NewServer(c.DeliveryHandler(func(context.Context, *midas.Delivery) error { return nil }))
		resp, err := http.Get(srv.URL + "/pay/notify?" + query)
		require.NoError(t, err)
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.Equal(t, want, string(body))
		<-logging
		close(release)
		srv.Close()
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

// The DeliverFunc and the timer end at the same moment, over and over: each success is either
// answered or logged as unanswered.
func TestASuccessAtTheLastMomentIsNeverLost(t *testing.T) {
	t.Parallel()
	outcomes := map[string]int{}
	for range 400 {
		synctest.Test(t, func(t *testing.T) {
			var log journal
			c := callbackClient(t, log.attach)
			h := c.DeliveryHandler(func(context.Context, *midas.Delivery) error { time.Sleep(1800 * time.Millisecond); return nil })
			body := serve(h, "GET", signed(nil)).Body.String()
			require.NoError(t, c.Wait(t.Context()))
			late := strings.Contains(log.String(), "reconcile")
			require.Equal(t, body == `{"ret":0,"msg":"OK"}`, !late, "answered %s, late %v", body, late)
			outcomes[body]++
		})
	}
	require.Len(t, outcomes, 2, "both happen: %v", outcomes)
}

func TestADeliverFuncMayChangeItsDelivery(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log journal
		c := callbackClient(t, log.attach)
		h := c.DeliveryHandler(func(_ context.Context, d *midas.Delivery) error {
			for range 5 {
				d.BillNo, d.OpenID = d.BillNo+"x", "x"
				time.Sleep(time.Second)
			}
			return nil
		})
		serve(h, "GET", signed(nil))
		require.NoError(t, c.Wait(t.Context()))
		lines := log.lines(t)
		require.Len(t, lines, 2)
		for _, line := range lines {
			require.Equal(t, "-APPDJ0-1", line["billno"])
			require.Equal(t, "o_TE…", line["openid"])
		}
	})
}

func TestAnAnswerThatCannotBeSentIsLogged(t *testing.T) {
	t.Parallel()
	var log journal
	h := callbackClient(t, log.attach).DeliveryHandler(func(context.Context, *midas.Delivery) error { return nil })
	h.ServeHTTP(brokenWriter{httptest.NewRecorder()}, httptest.NewRequest("GET", "/pay/notify?"+signed(nil), nil))
	lines := log.lines(t)
	require.Len(t, lines, 2)
	require.Contains(t, lines[1]["msg"], "delivered after Midas hung up")
}

type brokenWriter struct{ http.ResponseWriter }

func (brokenWriter) Write([]byte) (int, error) { return 0, syscall.EPIPE }

func TestOtherMethodsGet405AndNoBody(t *testing.T) {
	t.Parallel()
	h := callbackClient(t).DeliveryHandler(func(context.Context, *midas.Delivery) error { t.Error("delivered"); return nil })
	for _, method := range []string{"POST", "HEAD", "PUT", "OPTIONS"} {
		w := serve(h, method, signed(nil))
		require.Equal(t, 405, w.Code)
		require.Equal(t, "GET", w.Header().Get("Allow"))
		require.Equal(t, "0", w.Header().Get("Content-Length"))
		require.Empty(t, w.Body.Bytes())
	}
}

func TestHostileQueriesAreAnsweredAndDeliverNothing(t *testing.T) {
	t.Parallel()
	h := callbackClient(t).DeliveryHandler(func(_ context.Context, d *midas.Delivery) error { t.Error("delivered", d.Params); return nil })
	random := rand.New(rand.NewPCG(2018, 2))
	good := signed(nil)
	atoms := []string{"&", "=", "%", "%00", "%zz", ";", "+", "\x00", "\xff\xfe", "剑", "sig", "sig=x", "sig=AAAA&sig=BBBB", "amt=-1", "amt=99999999999999999999",
		"version=v5&sign=abc", "payitem=a*b*c", "billno=" + strings.Repeat("9", 70), strings.Repeat("A", 300), "a[]=1", "../../etc/passwd", "<script>", "' OR 1=1 --", "\r\nSet-Cookie: a=b", "%0d%0a", good, good[:len(good)/2]}
	queries := []string{strings.Repeat("a=b&", 8<<10), strings.Repeat("&", 16<<10), strings.Repeat("%", 16<<10), strings.Replace(good, "sig=", "Sig=", 1)}
	for len(queries) < 1000 {
		var q strings.Builder
		for range 1 + random.IntN(12) {
			q.WriteString(atoms[random.IntN(len(atoms))])
			if random.IntN(2) == 0 {
				q.WriteByte('&')
			}
		}
		queries = append(queries, q.String())
	}
	for i, query := range queries {
		if query == good || query == good+"&" {
			continue
		}
		r := httptest.NewRequest("GET", "/pay/notify", nil)
		r.URL.RawQuery = query
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		require.Equal(t, 200, w.Code)
		var reply midas.Reply
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &reply), "query %d: %q", i, query)
		require.Equal(t, 4, reply.Ret, "query %d: %q", i, query)
		require.Equal(t, fmt.Sprintf(`{"ret":4,"msg":"%s"}`, reply.Msg), w.Body.String())
		require.NotContains(t, w.Body.String(), " ")
	}
}

// A journal is what a test's logger wrote.
type journal struct {
	mu sync.Mutex
	bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.Buffer.Write(p)
}

// lines returns the lines written, as JSON objects.
func (j *journal) lines(t *testing.T) (lines []map[string]any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for line := range strings.Lines(j.String()) {
		var fields map[string]any
		require.NoError(t, json.Unmarshal([]byte(line), &fields))
		lines = append(lines, fields)
	}
	return lines
}

func (j *journal) attach(cfg *midas.Config) { cfg.Logger = slog.New(slog.NewJSONHandler(j, nil)) }

func TestAStuckDeliveryIsAnsweredInTimeAndItsLateSuccessLogged(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log journal
		c := callbackClient(t, log.attach)
		h := c.DeliveryHandler(func(ctx context.Context, d *midas.Delivery) error {
			time.Sleep(time.Minute) // a bubble's minute; a commit that does not look at ctx
			return nil
		})
		start := time.Now()
		w := serve(h, "GET", signed(nil))
		require.Equal(t, 1800*time.Millisecond, time.Since(start))
		require.Equal(t, `{"ret":1,"msg":"system_busy"}`, w.Body.String())
		require.Len(t, log.lines(t), 1)
		require.Equal(t, "no result in time", log.lines(t)[0]["error"])
		require.Equal(t, "ERROR", log.lines(t)[0]["level"])

		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		require.ErrorIs(t, c.Wait(ctx), context.DeadlineExceeded, "it still runs")
		require.NoError(t, c.Wait(t.Context()))
		require.Equal(t, time.Minute, time.Since(start))
		require.Len(t, log.lines(t), 2)
		late := log.lines(t)[1]
		require.Equal(t, "ERROR", late["level"])
		require.Equal(t, "-APPDJ0-1", late["billno"])
		require.Contains(t, late["msg"], "delivered after ret 1 was answered")
	})
}

func TestTheDeliveryContextEndsBeforeTheAnswerGoesOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		type key struct{}
		for _, test := range []struct {
			what    string
			after   time.Duration // from the end of the context to the return of DeliverFunc
			config  func(*midas.Config)
			want    string
			took    time.Duration
			entries int
		}{
			{"an error right away", 0, func(*midas.Config) {}, `{"ret":1,"msg":"system_busy"}`, 1500 * time.Millisecond, 1},
			{"a commit that just succeeds", 299 * time.Millisecond, func(*midas.Config) {}, `{"ret":0,"msg":"OK"}`, 1799 * time.Millisecond, 1},
			{"a commit that succeeds too late", 301 * time.Millisecond, func(*midas.Config) {}, `{"ret":1,"msg":"system_busy"}`, 1800 * time.Millisecond, 2},
			{"other limits", 20 * time.Millisecond, func(cfg *midas.Config) {
				cfg.DeliverTimeout, cfg.AnswerTimeout = 100*time.Millisecond, 110*time.Millisecond
			}, `{"ret":1,"msg":"system_busy"}`, 110 * time.Millisecond, 2},
		} {
			var log journal
			c := callbackClient(t, log.attach, test.config)
			h := c.DeliveryHandler(func(ctx context.Context, d *midas.Delivery) error {
				require.Equal(t, "request", ctx.Value(key{}), "derived from the request's context")
				<-ctx.Done()
				if test.after == 0 {
					return ctx.Err()
				}
				time.Sleep(test.after)
				return nil
			})
			start := time.Now()
			r := httptest.NewRequest("GET", "/pay/notify?"+signed(nil), nil)
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r.WithContext(context.WithValue(t.Context(), key{}, "request")))
			require.Equal(t, test.want, w.Body.String(), test.what)
			require.Equal(t, test.took, time.Since(start), test.what)
			require.NoError(t, c.Wait(t.Context()))
			require.Len(t, log.lines(t), test.entries, test.what)
		}
	})
}

// t.FailNow in a DeliverFunc, say.
func TestADeliverFuncThatEndsItsGoroutineIsAnswered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := callbackClient(t)
		start := time.Now()
		w := serve(c.DeliveryHandler(func(context.Context, *midas.Delivery) error { runtime.Goexit(); return nil }), "GET", signed(nil))
		require.Equal(t, `{"ret":1,"msg":"system_busy"}`, w.Body.String())
		require.Zero(t, time.Since(start), "at once")
		require.NoError(t, c.Wait(t.Context()))
	})
}

func TestADeliveryAfterMidasHungUpIsLogged(t *testing.T) {
	t.Parallel()
	var log journal
	ctx, hangUp := context.WithCancel(t.Context())
	h := callbackClient(t, log.attach).DeliveryHandler(func(ctx context.Context, d *midas.Delivery) error {
		hangUp()
		<-ctx.Done()
		assert.ErrorIs(t, ctx.Err(), context.Canceled, "at once, not at the time limit")
		return nil // the commit was through already
	})
	r := httptest.NewRequest("GET", "/pay/notify?"+signed(nil), nil).WithContext(ctx)
	h.ServeHTTP(httptest.NewRecorder(), r)
	lines := log.lines(t)
	require.Len(t, lines, 2)
	require.Equal(t, "ERROR", lines[1]["level"])
	require.Equal(t, "-APPDJ0-1", lines[1]["billno"])
}

func TestWaitReturnsAtOnceWhenNothingRuns(t *testing.T) {
	t.Parallel()
	c := callbackClient(t)
	require.NoError(t, c.Wait(t.Context()))
	h := c.DeliveryHandler(func(context.Context, *midas.Delivery) error { return nil })
	var calls sync.WaitGroup
	for range 50 {
		calls.Go(func() { serve(h, "GET", signed(nil)) })
		calls.Go(func() { require.NoError(t, c.Wait(t.Context())) })
	}
	calls.Wait()
	require.NoError(t, c.Wait(t.Context()))
}

func TestCallbacksAreDeliveredConcurrently(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var running, most atomic.Int32
		h := callbackClient(t).DeliveryHandler(func(context.Context, *midas.Delivery) error {
			most.Store(max(most.Load(), running.Add(1)))
			time.Sleep(time.Second)
			running.Add(-1)
			return nil
		})
		var calls sync.WaitGroup
		for range 20 {
			calls.Go(func() { require.Equal(t, `{"ret":0,"msg":"OK"}`, serve(h, "GET", signed(nil)).Body.String()) })
		}
		calls.Wait()
		require.EqualValues(t, 20, most.Load())
	})
}

func TestEachCallbackIsLoggedOnce(t *testing.T) {
	t.Parallel()
	var log journal
	var outcome error
	h := callbackClient(t, log.attach).DeliveryHandler(func(context.Context, *midas.Delivery) error { return outcome })
	for _, outcome = range []error{nil, midas.ErrTokenNotFound, errors.New("disk full")} {
		serve(h, "GET", signed(nil))
	}
	serve(h, "GET", signed(nil)+"x")
	serve(h, "POST", "")
	serve(h, "GET", signed(map[string]string{"amt": "x"}))
	var got []string
	for _, line := range log.lines(t) {
		require.Contains(t, line, "duration")
		got = append(got, fmt.Sprint(line["level"], " ", line["outcome"], " ", line["billno"], " ", line["openid"], " ", line["ret"], " ", line["error"]))
	}
	require.Equal(t, []string{
		"INFO delivered -APPDJ0-1 o_TE… 0 <nil>",
		"WARN not delivered -APPDJ0-1 o_TE… 3 token not found",
		"ERROR failed -APPDJ0-1 o_TE… 1 disk full",
		"WARN refused <nil> <nil> <nil> signature not verified: check the pay key, its environment, and that DeliveryPath, /pay/notify, is the registered path",
		"WARN refused <nil> <nil> <nil> signature not verified: method is not GET",
		"WARN refused -APPDJ0-1 o_TE… <nil> parameter amt: not a number from 0 to 9223372036854775807",
	}, got)
}

func TestAPanicIsLoggedWithItsStack(t *testing.T) {
	t.Parallel()
	var log journal
	h := callbackClient(t, log.attach).DeliveryHandler(func(context.Context, *midas.Delivery) error { panic("no map") })
	serve(h, "GET", signed(nil))
	lines := log.lines(t)
	require.Len(t, lines, 1)
	require.Contains(t, lines[0]["stack"], "TestAPanicIsLoggedWithItsStack")
	require.Equal(t, "DeliverFunc panicked: no map", lines[0]["error"])
	require.Equal(t, "-APPDJ0-1", lines[0]["billno"])
}

func TestALatePanicIsLoggedWithItsStack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log journal
		c := callbackClient(t, log.attach)
		serve(c.DeliveryHandler(func(context.Context, *midas.Delivery) error { time.Sleep(time.Minute); panic("late") }), "GET", signed(nil))
		require.NoError(t, c.Wait(t.Context()))
		lines := log.lines(t)
		require.Len(t, lines, 2)
		require.Equal(t, "no result in time", lines[0]["error"])
		require.Equal(t, "DeliverFunc panicked: late", lines[1]["error"])
		require.Contains(t, lines[1]["stack"], "TestALatePanicIsLoggedWithItsStack")
	})
}

func TestAFloodOfForgeriesDoesNotFillADisk(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log journal
		h := callbackClient(t, log.attach).DeliveryHandler(func(context.Context, *midas.Delivery) error { return nil })
		for range 1000 {
			serve(h, "GET", signed(nil)+"x")
		}
		require.Len(t, log.lines(t), 10)
		serve(h, "GET", signed(nil))
		require.Len(t, log.lines(t), 11, "deliveries are logged all the same")
		serve(h, "GET", signed(map[string]string{"amt": "x"}))
		require.Len(t, log.lines(t), 12, "and what only Midas can send wrongly, too")

		time.Sleep(time.Minute)
		serve(h, "GET", signed(nil)+"x")
		lines := log.lines(t)
		require.Len(t, lines, 13)
		require.EqualValues(t, 990, lines[12]["suppressed"])
		serve(h, "GET", signed(nil)+"x")
		require.EqualValues(t, 0, log.lines(t)[13]["suppressed"], "counted once")
	})
}

func FuzzSplitQuery(f *testing.F) {
	for _, seed := range []string{documentedQuery, "a=1&b", "%", "a=%4", "&&", "a+b=1", "=", "a%3D1&appid=145", "x=\xff\x00", "version=v5"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, query string) {
		for _, plus := range []byte{' ', '+'} {
			names, values, err := midas.SplitQuery(query, plus)
			if err != nil {
				continue
			}
			require.True(t, slices.IsSorted(names))
			require.Len(t, slices.Compact(slices.Clone(names)), len(values), "a name twice")
			// Where the standard parser takes the query too, they agree.
			if std, err := url.ParseQuery(query); err == nil && plus == ' ' {
				require.Len(t, std, len(names))
				for i, name := range names {
					require.Equal(t, std.Get(name), values[i])
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
