package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/midas-go/midas"
	"github.com/stretchr/testify/require"
)

// What a backend in another language does, written from docs/protocol.md 2 and 5 with
// nothing of this repository: signatures, an order, the answer to a callback.

const (
	rawAppID  = "1450000001"
	rawAppKey = "raw-http-key"
)

// percent encodes every byte but letters, digits and those in keep.
func percent(s, keep string) string {
	const plain = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	out := ""
	for _, b := range []byte(s) {
		if strings.ContainsRune(plain+keep, rune(b)) && b < 0x80 {
			out += string(rune(b))
		} else {
			out += fmt.Sprintf("%%%02X", b)
		}
	}
	return out
}

// rawSign signs parameters; pre is done to their values first.
func rawSign(key, path string, params map[string]string, pre func(string) string) string {
	var pairs []string
	for name, value := range params {
		pairs = append(pairs, name+"="+pre(value))
	}
	slices.Sort(pairs) // no name here is the beginning of another
	mac := hmac.New(sha1.New, []byte(key+"&"))
	io.WriteString(mac, "GET&"+percent(path, "-_.")+"&"+percent(strings.Join(pairs, "&"), "-_."))
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

func rawOrder() map[string]string {
	return map[string]string{
		"openid": "o_TESTopenid", "openkey": "OPENKEY-SECRET", "pfkey": "PFKEY-SECRET", "appid": rawAppID, "ts": "1518081937",
		"pf": "qq_m_qq-2001-android-2011-xxxx", "zoneid": "1", "payitem": "3*0.1*1", "goodsmeta": "金币*一枚 <金币>", "goodsurl": "",
		"app_metadata": "order*7", "appmode": "1", "format": "json",
	}
}

func rawOrderURL(base string, params map[string]string, sig string) string {
	query := "sig=" + percent(sig, "")
	for name, value := range params {
		query += "&" + name + "=" + percent(value, "")
	}
	return base + "/mpay/buy_goods_m?" + query
}

// call makes a request and returns the status and the body.
func call(t *testing.T, method, url, body string, header map[string]string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	require.NoError(t, err)
	for name, value := range header {
		req.Header.Set(name, value)
	}
	if host := header["Host"]; host != "" {
		req.Host = host
	}
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, string(text)
}

var rawCookies = map[string]string{"Cookie": "session_id=openid; session_type=kp_actoken; org_loc=%2Fv3%2Fr%2Fmpay%2Fbuy_goods_m"}

// rawBackend answers callbacks; mode says how well.
func rawBackend(t *testing.T, mode *atomic.Value) *httptest.Server {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		params := map[string]string{}
		for pair := range strings.SplitSeq(r.URL.RawQuery, "&") {
			name, value, _ := strings.Cut(pair, "=")
			value, err := url.PathUnescape(value)
			if err != nil {
				t.Errorf("a value that cannot be decoded: %s", pair)
			}
			params[name] = value
		}
		sig := params["sig"]
		delete(params, "sig")
		right := sig == rawSign(rawAppKey, "/pay/notify", params, func(v string) string { return percent(v, "!*()") })
		switch {
		case !right && mode.Load() != "gullible" && mode.Load() != "gullible newline":
			io.WriteString(w, `{"ret":4,"msg":"bad_parameter:sig"}`)
		case mode.Load() == "newline", mode.Load() == "gullible newline":
			io.WriteString(w, "{\"ret\":0,\"msg\":\"OK\"}\n")
		case mode.Load() == "markup":
			io.WriteString(w, "</pre><script>alert(1)</script>\xef\xbb\xbf")
		default:
			io.WriteString(w, `{"ret":0,"msg":"OK"}`)
		}
	}))
	t.Cleanup(backend.Close)
	return backend
}

// serve starts a sandbox behind its Host check, as the command does.
func serve(t *testing.T, callback string, change ...func(*sandbox)) string {
	s := newSandbox(rawAppID, rawAppKey, callback, "")
	for _, f := range change {
		f(s)
	}
	server := httptest.NewServer(s.handler(netip.MustParseAddr("127.0.0.1"), []string{"sandbox.example"}))
	t.Cleanup(server.Close)
	t.Cleanup(server.CloseClientConnections) // live pages
	return server.URL
}

func post(t *testing.T, url, body string) (status int, answer map[string]any) {
	t.Helper()
	status, text := call(t, "POST", url, body, nil)
	if text != "" {
		require.NoError(t, json.Unmarshal([]byte(text), &answer), text)
	}
	return status, answer
}

// place places an order and returns its token and url_params.
func place(t *testing.T, base string, params map[string]string) (token, urlParams string) {
	t.Helper()
	sig := rawSign(rawAppKey, "/v3/r/mpay/buy_goods_m", params, func(v string) string { return v })
	status, text := call(t, "GET", rawOrderURL(base, params, sig), "", rawCookies)
	require.Equal(t, http.StatusOK, status)
	var answer struct {
		Ret       int
		Token     string
		URLParams string `json:"url_params"`
	}
	require.NoError(t, json.Unmarshal([]byte(text), &answer))
	require.Zero(t, answer.Ret, text)
	return answer.Token, answer.URLParams
}

func exchangesOf(t *testing.T, base string) (exchanges []exchange) {
	t.Helper()
	status, text := call(t, "GET", base+"/api/exchanges", "", nil)
	require.Equal(t, http.StatusOK, status)
	require.NoError(t, json.Unmarshal([]byte(text), &exchanges))
	return exchanges
}

func TestBackendInAnyLanguageSellsThroughRawHTTP(t *testing.T) {
	t.Parallel()
	var mode atomic.Value
	base := serve(t, rawBackend(t, &mode).URL+"/pay/notify")
	token, urlParams := place(t, base, rawOrder())
	require.Equal(t, "/v1/sx8/"+rawAppID+"/mobile_goods_info?token_id="+token, urlParams)

	status, cashier := call(t, "GET", base+urlParams, "", nil)
	require.Equal(t, http.StatusOK, status)
	require.Contains(t, cashier, "金币")
	require.Contains(t, cashier, "<b>0.1</b> Q-points")
	require.Contains(t, cashier, "0.01 yuan")

	api := base + "/api/orders/" + token
	status, answer := post(t, api+"/repeat", "")
	require.Equal(t, http.StatusConflict, status)
	require.Contains(t, answer["error"], "pay first")

	status, answer = post(t, api+"/pay", `{"method":"wechat"}`)
	require.Equal(t, http.StatusOK, status)
	require.Equal(t, true, answer["accepted"])
	require.Equal(t, `{"ret":0,"msg":"OK"}`, answer["reply"])
	require.Contains(t, answer["url"], "appmeta=order%2A7%2Awechat%2Aqq&")
	billNo := answer["billno"]

	status, answer = post(t, api+"/forge", "")
	require.Equal(t, http.StatusOK, status)
	require.Equal(t, false, answer["accepted"])
	require.Equal(t, "the backend answered ret 4 (bad_parameter:sig)", answer["reason"])
	require.Equal(t, true, answer["ok"])
	require.EqualValues(t, 4, answer["ret"])

	mode.Store("gullible")
	_, answer = post(t, api+"/forge", "")
	require.Equal(t, true, answer["accepted"])
	require.Equal(t, false, answer["ok"])
	require.EqualValues(t, 0, answer["ret"])
	_, dashboard := call(t, "GET", base+"/", "", nil)
	require.Contains(t, dashboard, "A FORGERY WAS ACCEPTED")
	mode.Store("gullible newline") // Midas would not take it, the forgery was taken all the same
	_, answer = post(t, api+"/forge", "")
	require.Equal(t, false, answer["accepted"])
	_, dashboard = call(t, "GET", base+"/", "", nil)
	require.Equal(t, 2, strings.Count(dashboard, "A FORGERY WAS ACCEPTED"))
	require.Equal(t, 1, strings.Count(dashboard, "refused, as a forgery should be"))
	mode.Store("")

	_, answer = post(t, api+"/repeat", "") // of the payment, not of the forgery
	require.Equal(t, true, answer["accepted"])
	require.Equal(t, billNo, answer["billno"])
	require.Equal(t, true, answer["ok"])

	_, answer = post(t, api+"/pay", `{"times":3,"percent":95,"quantity":200}`)
	require.Equal(t, true, answer["accepted"])
	require.Len(t, answer["duplicates"], 2)
	require.Contains(t, answer["url"], "amt=190&") // 95 % of 200 fen
	require.Equal(t, answer["billno"], answer["duplicates"].([]any)[1].(map[string]any)["billno"])
	require.NotEqual(t, billNo, answer["billno"])

	_, answer = post(t, api+"/expire", "")
	require.Equal(t, true, answer["accepted"])
	ts := regexp.MustCompile(`&ts=(\d+)`).FindStringSubmatch(answer["url"].(string))
	require.NotNil(t, ts)
	require.Greater(t, ts[1], fmt.Sprint(time.Now().Add(5*time.Minute).Unix()))

	mode.Store("newline")
	_, answer = post(t, api+"/pay", "")
	require.Equal(t, false, answer["accepted"])
	require.Equal(t, "{\"ret\":0,\"msg\":\"OK\"}\n", answer["reply"])
	require.Contains(t, answer["reason"], "the body ends in a newline")

	status, _ = post(t, api+"/cancel", "")
	require.Equal(t, http.StatusOK, status)

	var kinds []string
	for i, e := range exchangesOf(t, base) {
		require.Equal(t, i+1, e.Seq)
		kinds = append(kinds, strings.TrimSpace(e.Kind+" "+e.Action))
	}
	require.Equal(t, []string{"order", "callback pay", "callback forge", "callback forge", "callback forge", "callback repeat", "callback pay", "callback pay", "callback pay",
		"callback expire", "callback pay", "cancel"}, kinds)
	_, text := call(t, "GET", base+"/api/exchanges?after=11", "", nil)
	var exchanges []exchange
	require.NoError(t, json.Unmarshal([]byte(text), &exchanges))
	require.Len(t, exchanges, 1)
}

func TestOrdersAreRefusedAsTheRealOneDoes(t *testing.T) {
	t.Parallel()
	base := serve(t, "")
	raw := func(v string) string { return v }
	right := rawSign(rawAppKey, "/v3/r/mpay/buy_goods_m", rawOrder(), raw)
	for name, c := range map[string]struct {
		sig     string
		cookies map[string]string
		change  map[string]string
		want    string
		mistake string
	}{
		"no cookies":            {sig: right, want: `"ret":1018`},
		"the URL's path signed": {sig: rawSign(rawAppKey, "/mpay/buy_goods_m", rawOrder(), raw), cookies: rawCookies, want: `{"ret":1001,"msg":"sig error"}`, mistake: "msdk-path"},
		"values encoded before signing": {sig: rawSign(rawAppKey, "/v3/r/mpay/buy_goods_m", rawOrder(), func(v string) string { return percent(v, "-_.") }),
			cookies: rawCookies, want: `{"ret":1001,"msg":"sig error"}`, mistake: "values-pre-encoded"},
		"another app": {sig: right, cookies: rawCookies, change: map[string]string{"appid": "1"}, want: `"err_code":"1016-1016-0"`},
	} {
		params := rawOrder()
		maps.Copy(params, c.change)
		status, text := call(t, "GET", rawOrderURL(base, params, c.sig), "", c.cookies)
		require.Equal(t, http.StatusOK, status, name)
		require.Contains(t, text, c.want, name)

		// The API tells more than Midas does.
		exchanges := exchangesOf(t, base)
		last := exchanges[len(exchanges)-1]
		require.False(t, last.Accepted, name)
		require.NotEmpty(t, last.Reason, name)
		require.Empty(t, last.Token, name)
		if c.mistake != "" {
			require.Len(t, last.Mistakes, 1, name)
			require.Equal(t, c.mistake, last.Mistakes[0].Name, name)
			require.True(t, strings.HasPrefix(last.BaseString, "GET&%2Fv3%2Fr%2Fmpay%2Fbuy_goods_m&app_metadata%3Dorder%2A7%26appid%3D1450000001%26"), last.BaseString)
		}
	}
}

func TestNextOrderIsAnsweredAsAsked(t *testing.T) {
	t.Parallel()
	base := serve(t, "")
	order := func() (int, string, time.Duration) {
		sig := rawSign(rawAppKey, "/v3/r/mpay/buy_goods_m", rawOrder(), func(v string) string { return v })
		start := time.Now()
		status, text := call(t, "GET", rawOrderURL(base, rawOrder(), sig), "", rawCookies)
		return status, text, time.Since(start)
	}
	next := func(body string) {
		status, _ := call(t, "POST", base+"/api/next", body, nil)
		require.Equal(t, http.StatusNoContent, status)
	}
	next(`{"ret":1018,"msg":"请先登录","err_code":"1018--2-20"}`)
	_, text, _ := order()
	require.Equal(t, `{"ret":1018,"msg":"请先登录","err_code":"1018--2-20"}`, text)
	next(`{"html":true}`)
	status, text, _ := order()
	require.Equal(t, http.StatusOK, status)
	require.Contains(t, text, "<html>")
	next(`{"status":502}`)
	status, _, _ = order()
	require.Equal(t, http.StatusBadGateway, status)
	next(`{"delay_ms":150}`)
	_, text, took := order()
	require.Contains(t, text, `"ret":0`)
	require.GreaterOrEqual(t, took, 150*time.Millisecond)
	_, text, _ = order()
	require.Contains(t, text, `"ret":0`)

	exchanges := exchangesOf(t, base)
	require.Len(t, exchanges, 5) // those too that were never checked
	require.Equal(t, "a fault was asked for", exchanges[0].Reason)
	require.Contains(t, exchanges[1].Reply, "openkey=[masked]") // a page that repeats the URL
	require.Equal(t, http.StatusBadGateway, exchanges[2].Status)
	require.True(t, exchanges[3].Accepted)
}

func TestAPIRefusesWhatMakesNoSense(t *testing.T) {
	t.Parallel()
	base := serve(t, "")
	token, _ := place(t, base, rawOrder())
	for path, bodies := range map[string]map[string]string{
		"/api/orders/" + token + "/pay": {
			`{"percent":101}`: "percent: want a number from 1 to 100", `{"times":99}`: "times: want", `{"quantity":-1}`: "quantity: want",
			`{"percent":0}`: "percent: want a number from 1 to 100", `{"times":0}`: "times: want", `{"times":2}{"times":3}`: "something follows it", `{} x`: "something follows it",
			`[`: "the body is not the JSON wanted", `{"percent":"95"}`: "the body is not the JSON wanted", `{"precent":95}`: `unknown field "precent"`, strings.Repeat(" ", 5000): "the body: http: request body too large",
		},
		"/api/next": {
			"": "say how", `{"delay_ms":61000}`: "delay_ms: want a number from 1 to 60000", `{"delay_ms":-1}`: "delay_ms: want", `{"status":99}`: "status: want", `{"status":304}`: "status: want", `{"status":204}`: "status: want", `{"ret":0}`: "say how",
			`{"msg":"x"}`: "msg, err_code: want a ret", `{"html":true,"err_code":"x"}`: "msg, err_code: want a ret", `{"ret":1018,"html":true}`: "ret: not together with html", `{"ret":1018,"status":502}`: "ret: not together with html",
		},
	} {
		for body, want := range bodies {
			status, answer := post(t, base+path, body)
			require.Equal(t, http.StatusBadRequest, status, body)
			require.Contains(t, answer["error"], want)
		}
	}
	status, answer := post(t, base+"/api/orders/NOSUCH/pay", "")
	require.Equal(t, http.StatusNotFound, status)
	require.Equal(t, "token not found", answer["error"])
	status, _ = call(t, "GET", base+"/api/orders/"+token+"/pay", "", nil)
	require.Equal(t, http.StatusMethodNotAllowed, status)
	status, page := call(t, "GET", base+"/v1/sx8/"+rawAppID+"/mobile_goods_info?token_id=NOSUCH", "", nil)
	require.Equal(t, http.StatusNotFound, status)
	require.Contains(t, page, "No such order")
}

func TestExpiredOrderCannotBePaidButPretended(t *testing.T) {
	t.Parallel()
	var later atomic.Int64
	base := serve(t, "", func(s *sandbox) {
		s.now = func() time.Time { return time.Now().Add(time.Duration(later.Load())) }
	})
	token, urlParams := place(t, base, rawOrder())
	later.Store(int64(6 * time.Minute)) // protocol.md 1: a token lives five
	_, page := call(t, "GET", base+urlParams, "", nil)
	require.Contains(t, page, "This order has expired")
	require.NotContains(t, page, "<button")
	status, answer := post(t, base+"/api/orders/"+token+"/pay", "")
	require.Equal(t, http.StatusGone, status)
	require.Contains(t, answer["error"], "the token expired")
	status, answer = post(t, base+"/api/orders/"+token+"/expire", "")
	require.Equal(t, http.StatusOK, status)
	require.Equal(t, true, answer["accepted"])
}

func TestOtherSitesAndOtherNamesAreRefused(t *testing.T) {
	t.Parallel()
	base := serve(t, "")
	token, _ := place(t, base, rawOrder()) // the first exchange
	pay := base + "/api/orders/" + token + "/pay"
	for name, c := range map[string]struct {
		method, url string
		header      map[string]string
		want        int
	}{
		"a form on another site":           {"POST", pay, map[string]string{"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}, 403},
		"one that says its origin only":    {"POST", pay, map[string]string{"Origin": "https://evil.example"}, 403},
		"the same for the next order":      {"POST", base + "/api/next", map[string]string{"Sec-Fetch-Site": "same-site"}, 403},
		"the page itself":                  {"POST", pay, map[string]string{"Sec-Fetch-Site": "same-origin", "Origin": base}, 200},
		"a program":                        {"POST", pay, nil, 200},
		"a name that resolves to here":     {"GET", base + "/", map[string]string{"Host": "evil.example:9100"}, 403},
		"the same for the API":             {"GET", base + "/api/exchanges", map[string]string{"Host": "evil.example"}, 403},
		"the same for the live events":     {"GET", base + "/events", map[string]string{"Host": "evil.example"}, 403},
		"the same for an order":            {"GET", base + "/mpay/buy_goods_m", map[string]string{"Host": "evil.example"}, 403},
		"a subdomain of localhost":         {"GET", base + "/", map[string]string{"Host": "localhost.evil.example"}, 403},
		"another address":                  {"GET", base + "/", map[string]string{"Host": "192.0.2.1:9100"}, 403},
		"localhost":                        {"GET", base + "/", map[string]string{"Host": "localhost:9100"}, 200},
		"IPv6 loopback":                    {"GET", base + "/", map[string]string{"Host": "[::1]:9100"}, 200},
		"a name allowed with -host":        {"GET", base + "/", map[string]string{"Host": "Sandbox.example"}, 200},
		"no such order page, still no 403": {"GET", base + "/mpay/pay_m", nil, 404},
		"an image on another site":         {"GET", base + "/mpay/buy_goods_m", map[string]string{"Sec-Fetch-Site": "cross-site"}, 403},
		"one on another port":              {"GET", base + "/mpay/buy_goods_m", map[string]string{"Sec-Fetch-Site": "same-site"}, 403},
		"the same for a call there is not": {"GET", base + "/v3/r/mpay/buy_goods_m", map[string]string{"Sec-Fetch-Site": "cross-site"}, 403},
		"the same for another call":        {"GET", base + "/mpay/pay_m", map[string]string{"Sec-Fetch-Site": "cross-site"}, 403},
		"an order in the address bar":      {"GET", base + "/mpay/buy_goods_m", map[string]string{"Sec-Fetch-Site": "none"}, 200},
		"a link to the dashboard":          {"GET", base + "/", map[string]string{"Sec-Fetch-Site": "cross-site"}, 200},
	} {
		status, text := call(t, c.method, c.url, "", c.header)
		require.Equal(t, c.want, status, name)
		if c.want == 403 {
			require.Regexp(t, `^\{"error":".+"\}\n$`, text, name)
		}
	}
	require.Len(t, exchangesOf(t, base), 5) // those answered with 200, and the one that is no call
}

func TestEveryValueOnThePagesIsEscaped(t *testing.T) {
	t.Parallel()
	const markup = `"'><script>alert(1)</script><img src=x onerror=alert(1)>{{.}}`
	var mode atomic.Value
	mode.Store("markup")
	base := serve(t, rawBackend(t, &mode).URL+"/pay/notify")
	params := rawOrder()
	for _, name := range []string{"openid", "openkey", "pfkey", "pf", "zoneid", "goodsurl", "app_metadata"} {
		params[name] = markup
	}
	params["payitem"], params["goodsmeta"], params["extra"] = `<b>id</b>*0.1*1`, markup+"*"+markup, markup
	token, urlParams := place(t, base, params)
	post(t, base+"/api/orders/"+token+"/pay", `{"method":"<i>qq</i>"}`)
	params["payitem"], params[`<u>name</u>`] = markup, markup // refused, and shown all the same
	call(t, "GET", rawOrderURL(base, params, markup), "", map[string]string{"Cookie": `session_id=<s>x</s>; session_type=<s>y</s>`})
	call(t, "GET", base+"/mpay/buy_goods_m?<b>raw</b>&payitem=<b>", "", nil)

	_, dashboard := call(t, "GET", base+"/", "", nil)
	_, cashier := call(t, "GET", base+urlParams, "", nil)
	live := nextEvents(t, openEvents(t, base+"/events", ""), 4)
	for name, page := range map[string]string{"dashboard": dashboard, "cashier": cashier, "live": live} {
		require.Contains(t, page, "&lt;script&gt;alert(1)", name)
		for _, tag := range []string{"<script>", "<img src=x", "<b>id", "<i>qq", "<u>", "<s>", "<b>raw", `"'>`} {
			require.NotContains(t, page, tag, name)
		}
	}
	require.Contains(t, dashboard, "&lt;/pre&gt;&lt;script&gt;alert(1)&lt;/script&gt;<mark>BOM</mark>")
	require.NotContains(t, dashboard, "OPENKEY-SECRET")
}

// openEvents opens a stream of events, for ten seconds at most.
func openEvents(t *testing.T, url, lastEventID string) *bufio.Scanner {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	require.NoError(t, err)
	req.Header.Set("Last-Event-ID", lastEventID)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	t.Cleanup(func() { resp.Body.Close() })
	require.Equal(t, "text/event-stream", resp.Header.Get("Content-Type"))
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	return lines
}

// nextEvents returns the HTML of the next n events.
func nextEvents(t *testing.T, lines *bufio.Scanner, n int) (html string) {
	t.Helper()
	for n > 0 && lines.Scan() {
		if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
			var event struct{ HTML string }
			require.NoError(t, json.Unmarshal([]byte(data), &event))
			html += event.HTML
			n--
		}
	}
	require.Zero(t, n, "the stream ended early: %v", lines.Err())
	return html
}

func TestEventsArriveAsTheyHappenAndGoOnAfterAReconnect(t *testing.T) {
	t.Parallel()
	base := serve(t, "")
	events := openEvents(t, base+"/events", "")
	token, _ := place(t, base, rawOrder())
	require.Contains(t, nextEvents(t, events, 1), `<article class="order" data-token="`+token+`">`)
	post(t, base+"/api/orders/"+token+"/pay", "")
	require.Contains(t, nextEvents(t, events, 1), `data-action="pay"`)
	post(t, base+"/api/orders/"+token+"/cancel", "")
	require.Contains(t, nextEvents(t, events, 1), `The player left the cashier.`)

	// What a browser does: first it has the number from the page, later from the stream.
	_, dashboard := call(t, "GET", base+"/", "", nil)
	last := regexp.MustCompile(`data-last="([A-Z0-9]+)-3"`).FindStringSubmatch(dashboard)
	require.NotNil(t, last)
	again := openEvents(t, base+"/events?after="+last[1]+"-0", last[1]+"-2")
	require.True(t, again.Scan())
	require.Equal(t, "id: "+last[1]+"-3", again.Text())

	restarted := serve(t, "") // the numbers begin anew
	place(t, restarted, rawOrder())
	for _, events := range []*bufio.Scanner{openEvents(t, restarted+"/events?after="+last[1]+"-3", ""), openEvents(t, restarted+"/events", last[1]+"-3")} {
		require.True(t, events.Scan())
		require.Equal(t, "event: reload", events.Text())
	}
}

func TestPagesSpeakTheBrowsersLanguageAndAllowNoForeignCode(t *testing.T) {
	t.Parallel()
	base := serve(t, "")
	for accept, want := range map[string]string{
		"": "Midas sandbox", "en-GB,en;q=0.9,zh;q=0.8": "Midas sandbox", "zh-CN,zh;q=0.9,en;q=0.8": "米大师沙箱", "fr, zh-TW": "米大师沙箱", "de": "Midas sandbox",
	} {
		_, page := call(t, "GET", base+"/", "", map[string]string{"Accept-Language": accept})
		require.Contains(t, page, "<title>"+want+"</title>", accept)
	}
	resp, err := http.Get(base + "/")
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
		resp.Header.Get("Content-Security-Policy"))
	require.Equal(t, "nosniff", resp.Header.Get("X-Content-Type-Options"))
	total := 0
	for _, file := range []string{"style.css", "sandbox.js", "icon.svg"} {
		status, text := call(t, "GET", base+"/pages/"+file, "", nil)
		require.Equal(t, http.StatusOK, status)
		require.NotRegexp(t, `https?://[^w]`, text, "a foreign asset") // w: the namespace of SVG
		total += len(text)
	}
	require.Less(t, total, 12<<10, "a few kilobytes")
	status, _ := call(t, "GET", base+"/pages/cashier.html", "", nil)
	require.Equal(t, http.StatusNotFound, status)
}

func TestRecordHoldsEveryExchangeButNoCredential(t *testing.T) {
	t.Parallel()
	for _, secrets := range []bool{false, true} {
		name := filepath.Join(t.TempDir(), "record.jsonl")
		require.NoError(t, os.WriteFile(name, nil, 0o666)) // one that was there before
		record, err := openRecord(name)
		require.NoError(t, err)
		base := serve(t, "", func(s *sandbox) {
			s.secrets = secrets
			s.seen = func(e exchange) {
				if err := writeRecord(record, e); err != nil {
					t.Error(err)
				}
			}
		})
		params := rawOrder()
		params["pay_token"] = "PAYTOKEN-SECRET"
		token, _ := place(t, base, params)
		post(t, base+"/api/orders/"+token+"/pay", "")
		call(t, "GET", rawOrderURL(base, params, "wrong"), "", rawCookies)
		call(t, "POST", base+"/api/next", `{"html":true}`, nil)
		call(t, "GET", rawOrderURL(base, params, "wrong"), "", rawCookies)
		require.NoError(t, record.Close())

		info, err := os.Stat(name)
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode())
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
		require.Len(t, lines, 4)
		for _, line := range lines {
			require.True(t, json.Valid(line))
		}
		for _, secret := range []string{"OPENKEY-SECRET", "PFKEY-SECRET", "PAYTOKEN-SECRET"} {
			require.Equal(t, secrets, bytes.Contains(text, []byte(secret)), secret)
		}
		require.NotContains(t, string(text), rawAppKey)

		// A recorded callback can be explained as it is.
		code, stdout, stderr := runWith(t, string(lines[1]), nil, "explain", "-key", rawAppKey, "-")
		require.Equal(t, exitOK, code, stdout+stderr)
	}
}

func TestStateIsBounded(t *testing.T) {
	t.Parallel()
	s := newSandbox(rawAppID, rawAppKey, "", "")
	handler := s.handler(netip.Addr{}, nil)
	server := httptest.NewServer(handler)
	defer server.Close()
	first, _ := place(t, server.URL, rawOrder())
	second, _ := place(t, server.URL, rawOrder())
	for range maxKept - 1 {
		handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "http://localhost/mpay/buy_goods_m?a=b", nil))
	}
	exchanges := exchangesOf(t, server.URL)
	require.Len(t, exchanges, maxKept)
	require.Equal(t, second, exchanges[0].Token)
	require.Equal(t, 2, exchanges[0].Seq)
	status, _ := post(t, server.URL+"/api/orders/"+first+"/pay", "")
	require.Equal(t, http.StatusNotFound, status)
	_, err := s.midas.Callback(first)
	require.ErrorIs(t, err, midas.ErrTokenNotFound)
	status, _ = post(t, server.URL+"/api/orders/"+second+"/pay", "")
	require.Equal(t, http.StatusOK, status)
	require.Len(t, exchangesOf(t, server.URL), maxKept)

	for range maxFaults {
		status, _ = call(t, "POST", server.URL+"/api/next", `{"ret":1018}`, nil)
		require.Equal(t, http.StatusNoContent, status)
	}
	status, answer := post(t, server.URL+"/api/next", `{"ret":1018}`)
	require.Equal(t, http.StatusConflict, status)
	require.Contains(t, answer["error"], "place those first")
	call(t, "GET", server.URL+"/mpay/buy_goods_m", "", nil)
	status, _ = call(t, "POST", server.URL+"/api/next", `{"ret":1018}`, nil)
	require.Equal(t, http.StatusNoContent, status)
}

func TestOfALongAnswerTheBeginningIsKeptAndItsSizeToldAndNoByteIsLost(t *testing.T) {
	t.Parallel()
	body := "\xff" + strings.Repeat("x", 9999)
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, body) }))
	defer backend.Close()
	base := serve(t, backend.URL+"/pay/notify")
	token, _ := place(t, base, rawOrder())
	_, answer := post(t, base+"/api/orders/"+token+"/pay", "")
	require.EqualValues(t, 10000, answer["reply_size"])
	raw, err := base64.StdEncoding.DecodeString(answer["reply_base64"].(string))
	require.NoError(t, err)
	require.Equal(t, body[:4096], string(raw))
	_, dashboard := call(t, "GET", base+"/", "", nil)
	require.Contains(t, dashboard, `<mark>\xFF</mark>xxx`)
	require.Contains(t, dashboard, `xxx<mark>… and 5904 bytes more</mark>`)
}

func TestABodyThatNeverComesKeepsNoConnection(t *testing.T) {
	t.Parallel()
	base := serve(t, "", func(s *sandbox) { s.bodyTime = 20 * time.Millisecond })
	token, _ := place(t, base, rawOrder())
	for _, c := range []struct{ target, host, body string }{
		{"/api/next", "localhost", "{"},
		{"/api/next", "localhost", strings.Repeat(" ", 5000)}, // more than is read
		{"/api/orders/" + token + "/pay", "localhost", ""},
		{"/api/orders/" + token + "/pay", "evil.example", ""},
		{"/mpay/buy_goods_m", "localhost", "a"},
		{"/nowhere", "localhost", "a"},
	} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(base, "http://"))
		require.NoError(t, err)
		defer conn.Close()
		require.NoError(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
		fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Length: 9999\r\n\r\n%s", c.target, c.host, c.body)
		answer, err := io.ReadAll(conn)
		require.NoError(t, err, c.target)
		require.True(t, bytes.HasPrefix(answer, []byte("HTTP/1.1 ")), "%s: %s", c.target, answer)
	}
}

func TestACallbackWhoseCallerHangsUpIsSeenAllTheSame(t *testing.T) {
	t.Parallel()
	s := newSandbox(rawAppID, rawAppKey, "", "")
	handler := s.handler(netip.Addr{}, nil)
	server := httptest.NewServer(handler)
	defer server.Close()
	token, _ := place(t, server.URL, rawOrder())
	gone, hangUp := context.WithCancel(t.Context())
	hangUp()
	for _, action := range []string{"pay", "repeat"} {
		r := httptest.NewRequestWithContext(gone, http.MethodPost, "http://localhost/api/orders/"+token+"/"+action, nil)
		handler.ServeHTTP(httptest.NewRecorder(), r)
		exchanges := exchangesOf(t, server.URL)
		require.Equal(t, action, exchanges[len(exchanges)-1].Action)
		require.True(t, exchanges[len(exchanges)-1].Accepted)
	}
}

func TestAHugeOrderIsNotSearchedForMistakes(t *testing.T) {
	t.Parallel()
	base := serve(t, "")
	for size, want := range map[int]int{10: 1, maxSearched: 0} {
		params := rawOrder()
		params["goodsurl"] = strings.Repeat("x", size)
		call(t, "GET", rawOrderURL(base, params, rawSign(rawAppKey, "/mpay/buy_goods_m", params, func(v string) string { return v })), "", rawCookies)
		exchanges := exchangesOf(t, base)
		require.Len(t, exchanges[len(exchanges)-1].Mistakes, want)
		require.NotEmpty(t, exchanges[len(exchanges)-1].BaseString)
	}
}

func TestTheSignedPathTakenForTheURLsIsShown(t *testing.T) {
	t.Parallel()
	base := serve(t, "")
	for _, path := range []string{"/v3/r/mpay/buy_goods_m", "/mpay/pay_m"} {
		status, _ := call(t, "GET", base+path+"?openkey=OPENKEY-SECRET&openid=1", "", rawCookies)
		require.Equal(t, http.StatusNotFound, status)
		exchanges := exchangesOf(t, base)
		last := exchanges[len(exchanges)-1]
		require.False(t, last.Accepted)
		require.Equal(t, path+"?openkey=[masked]&openid=1", last.URL)
		require.Equal(t, "there is no such call: orders go to /mpay/buy_goods_m; /v3/r stands in the signed path alone", last.Reason)
		require.Len(t, last.Cookies, 3)
	}
}

func TestNoWritingOfACredentialIsShown(t *testing.T) {
	t.Parallel()
	for _, query := range []string{
		"openkey='SECRET-1", "open%6bey=SECRET-1", "%6fpenkey=SECRET-1", "OpenKey=SECRET-1", "openkey =SECRET-1", "+openkey=SECRET-1", "openkey%3DSECRET-1", "openkey%253DSECRET-1",
		"a=%26pfkey%3DSECRET-1", "a=1;pay_token=SECRET-1", `a=%7B%22openkey%22:%22SECRET-1%22%7D`, "openkey=<SECRET-1", `openkey=a"SECRET-1`, "openkey=SECRET-1&openkey=SECRET-1",
	} {
		for _, secrets := range []bool{false, true} {
			var record strings.Builder
			base := serve(t, "", func(s *sandbox) {
				s.secrets = secrets
				s.seen = func(e exchange) {
					if err := writeRecord(&record, e); err != nil {
						t.Error(err)
					}
				}
			})
			target := base + "/mpay/buy_goods_m?zoneid=1&" + strings.ReplaceAll(query, " ", "%20")
			call(t, "GET", target, "", nil)
			call(t, "POST", base+"/api/next", `{"html":true}`, nil) // a page that repeats the URL
			call(t, "GET", target, "", nil)
			_, dashboard := call(t, "GET", base+"/", "", nil)
			for _, text := range []string{record.String(), dashboard} {
				require.Equal(t, secrets, strings.Contains(text, "SECRET-1"), "%s: %s", query, text)
				require.Equal(t, !secrets, strings.Contains(text, "[masked]"), query)
				require.Contains(t, text, "zoneid=1&")
			}
		}
	}
	require.Equal(t, "openkey=&a=b&openkeys", maskQuery("openkey=&a=b&openkeys"))
}

func TestAnUnknownCookieIsMasked(t *testing.T) {
	t.Parallel()
	base := serve(t, "")
	right := rawSign(rawAppKey, "/v3/r/mpay/buy_goods_m", rawOrder(), func(v string) string { return v })
	call(t, "GET", rawOrderURL(base, rawOrder(), right), "", map[string]string{"Cookie": "session_id=SECRET-1; session_type=kp_actoken; org_loc=/mpay/buy_goods_m; PHPSESSID=SECRET-2"})
	got := exchangesOf(t, base)[0]
	require.Equal(t, []param{{"session_id", "[masked]"}, {"session_type", "kp_actoken"}, {"org_loc", "/mpay/buy_goods_m"}, {"PHPSESSID", "[masked]"}}, got.Cookies)
	require.Equal(t, `cookies session_id="[masked]" and session_type="kp_actoken" belong to no login`, got.Reason)
}

func TestTheDashboardShowsWhatADeveloperLooksFor(t *testing.T) {
	t.Parallel()
	base := serve(t, "", func(s *sandbox) {
		s.now = func() time.Time { return time.Date(2018, 2, 8, 17, 25, 37, 0, time.UTC) }
	})
	first, _ := place(t, base, rawOrder())
	second, _ := place(t, base, rawOrder())
	call(t, "GET", rawOrderURL(base, map[string]string{"openid": "1", "openkey": "1", "appid": rawAppID, "ts": "1", "pf": "1", "pfkey": "1", "zoneid": "1", "payitem": "1", "goodsmeta": "1"}, "x"), "", rawCookies)
	_, dashboard := call(t, "GET", base+"/", "", nil)
	require.Contains(t, dashboard, "<time>17:25:37</time>")
	require.Contains(t, dashboard, "<tr><th>session_type<td>kp_actoken")
	require.Contains(t, dashboard, "<pre>GET&amp;%2Fv3%2Fr%2Fmpay%2Fbuy_goods_m&amp;appid%3D"+rawAppID+"%26goodsmeta%3D1%26openid%3D1%26openkey%3D%5Bmasked%5D%26")
	newest, older := strings.Index(dashboard, `data-token="`+second+`"`), strings.Index(dashboard, `data-token="`+first+`"`)
	require.Positive(t, newest)
	require.Less(t, newest, older)
}

func TestTheCashierBeginsWithTheLoginsOwnPayMethod(t *testing.T) {
	t.Parallel()
	base := serve(t, "")
	right := rawSign(rawAppKey, "/v3/r/mpay/buy_goods_m", rawOrder(), func(v string) string { return v })
	for session, want := range map[string]string{"session_id=openid; session_type=kp_actoken": "qqwallet", "session_id=hy_gameid; session_type=wc_actoken": "wechat"} {
		call(t, "GET", rawOrderURL(base, rawOrder(), right), "", map[string]string{"Cookie": session + "; org_loc=%2Fv3%2Fr%2Fmpay%2Fbuy_goods_m"})
		exchanges := exchangesOf(t, base)
		_, cashier := call(t, "GET", base+cashierPath(rawAppID, exchanges[len(exchanges)-1].Token), "", nil)
		require.Equal(t, []string{`value="` + want + `" checked`}, regexp.MustCompile(`value="\w+" checked`).FindAllString(cashier, -1))
	}
}

// Each button of the pages, pressed as their script does.
func TestEachButtonDoesWhatItSays(t *testing.T) {
	t.Parallel()
	var mode atomic.Value
	base := serve(t, rawBackend(t, &mode).URL+"/pay/notify")
	params := rawOrder()
	params["payitem"] = "sword*60*1"
	token, urlParams := place(t, base, params)
	_, dashboard := call(t, "GET", base+"/", "", nil)
	_, cashier := call(t, "GET", base+urlParams, "", nil)
	var got []string
	for _, button := range regexp.MustCompile(`<button[^>]* data-post="([^"]*)"(?: data-body='([^']*)')?`).FindAllStringSubmatch(dashboard+cashier, -1) {
		path, body := button[1], button[2]
		if path == "/api/next" { // its fields are the form's
			body = `{"ret":1018}`
		}
		before := len(exchangesOf(t, base))
		status, _ := call(t, "POST", base+path, body, nil)
		require.Less(t, status, 300, path)
		line := strings.TrimPrefix(path, "/api/orders/"+token)
		for _, e := range exchangesOf(t, base)[before:] {
			line += fmt.Sprintf(" %s %s ok=%t", e.Kind, value(e.Params, "amt"), e.OK)
		}
		got = append(got, line)
	}
	require.Equal(t, []string{
		"/api/next",
		"/pay callback 600 ok=true",
		"/pay callback 600 ok=true callback 600 ok=true",
		"/pay callback 570 ok=true",
		"/repeat callback 570 ok=true",
		"/forge callback 600 ok=true",
		"/expire callback 600 ok=true",
		"/pay callback 600 ok=true",
		"/pay callback 570 ok=true",
		"/cancel cancel  ok=false",
	}, got)
}

// startCommand runs the command as main does. It returns what it printed first, and a function
// that stops it and returns the lines that came then.
func startCommand(t *testing.T, env map[string]string, args ...string) (base, welcome string, stop func() []string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	out, in := io.Pipe()
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, append([]string{"sandbox"}, args...), &terminal{strings.NewReader(""), in, in, func(name string) string { return env[name] }})
		in.Close()
	}()
	lines := bufio.NewScanner(out)
	for lines.Scan() && !strings.HasPrefix(lines.Text(), "Then ") {
		welcome += lines.Text() + "\n"
	}
	seen := make(chan []string, 1)
	go func() {
		var log []string
		for lines.Scan() {
			log = append(log, lines.Text())
		}
		seen <- log
	}()
	stop = func() []string {
		cancel()
		require.Equal(t, exitOK, <-ended)
		return <-seen
	}
	return regexp.MustCompile(`http://127\.0\.0\.1:\d+`).FindString(welcome), welcome, stop
}

// A newcomer starts it without flags and pastes the line it prints.
func TestSandboxWithoutFlagsPrintsACurlLineThatWorks(t *testing.T) {
	t.Parallel()
	base, welcome, stop := startCommand(t, nil, "-addr", "127.0.0.1:0")
	require.Contains(t, welcome, "(this machine only)")
	require.Contains(t, welcome, "midastest-demo-key")
	curl := regexp.MustCompile(`curl -b '([^']+)' '(http://127\.0\.0\.1:\d+/mpay/[^']+)'`).FindStringSubmatch(welcome)
	require.NotNil(t, curl, welcome)
	status, text := call(t, "GET", curl[2], "", map[string]string{"Cookie": curl[1]})
	require.Equal(t, http.StatusOK, status)
	token := regexp.MustCompile(`^\{"ret":0,"token":"([0-9A-F]+)"`).FindStringSubmatch(text)
	require.NotNil(t, token, text)
	status, answer := post(t, base+"/api/orders/"+token[1]+"/pay", "")
	require.Equal(t, http.StatusOK, status)
	require.Equal(t, true, answer["accepted"])

	openEvents(t, base+"/events", "") // a page that is open does not hold it up
	log := stop()
	require.Len(t, log, 3)
	require.Contains(t, log[1], "  order     "+base+"/v1/sx8/1450000000/mobile_goods_info?token_id="+token[1])
	require.Contains(t, log[2], "  callback  pay: accepted")
}

func TestTheCommandDoesWhatItsFlagsSay(t *testing.T) {
	t.Parallel()
	var mode atomic.Value
	callback := rawBackend(t, &mode).URL + "/behind/a/proxy" // it verifies for /pay/notify
	record := filepath.Join(t.TempDir(), "record.jsonl")
	require.NoError(t, os.WriteFile(record, []byte("an earlier line\n"), 0o666))
	env := map[string]string{"MIDAS_APP_KEY": rawAppKey}
	for _, secrets := range []bool{true, false} {
		args := []string{"-addr", "127.0.0.1:0", "-app-id", rawAppID, "-callback", callback, "-path", "/pay/notify", "-host", "sandbox.example", "-record", record}
		if secrets {
			args = append(args, "-secrets")
		}
		base, welcome, stop := startCommand(t, env, args...)
		require.Contains(t, welcome, "delivery URL   "+callback+", signed for /pay/notify")
		for host, want := range map[string]int{"evil.example": 403, "sandbox.example:9100": 200} {
			status, _ := call(t, "GET", base+"/", "", map[string]string{"Host": host})
			require.Equal(t, want, status, host)
		}
		token, _ := place(t, base, rawOrder())
		_, answer := post(t, base+"/api/orders/"+token+"/pay", "")
		require.Equal(t, true, answer["accepted"], answer)
		mode.Store("gullible")
		post(t, base+"/api/orders/"+token+"/forge", "")
		mode.Store("")
		log := stop()
		require.Contains(t, log[len(log)-1], "  callback  forge: A FORGERY WAS ACCEPTED")
		require.NotContains(t, welcome+strings.Join(log, "\n"), rawAppKey)
	}
	text, err := os.ReadFile(record)
	require.NoError(t, err)
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	require.Len(t, lines, 1+2*3)
	require.Equal(t, "an earlier line", lines[0])
	require.Contains(t, lines[1], `"value":"OPENKEY-SECRET"`)
	require.Contains(t, lines[4], "openkey=[masked]")
	require.NotContains(t, strings.Join(lines[4:], ""), "OPENKEY-SECRET")
	info, err := os.Stat(record)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode())
}

func TestTheSandboxSaysWhoCanReachIt(t *testing.T) {
	t.Parallel()
	_, help, _ := runWith(t, "", nil, "sandbox", "-h")
	require.Contains(t, help, `(default "127.0.0.1:9100")`)
	base, welcome, stop := startCommand(t, nil, "-addr", "0.0.0.0:0")
	require.NotEmpty(t, base)
	require.Contains(t, welcome, "(OTHER MACHINES CAN REACH IT)")
	stop()
}

func TestSandboxSaysWhatIsWrongWithItsFlags(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		args []string
		code int
		want string
	}{
		"a key without an app":      {[]string{"-app-key", "secret-key"}, exitUsage, "-app-id: missing"},
		"an app without a key":      {[]string{"-app-id", "1450000001"}, exitUsage, "no pay key: give -app-key KEY"},
		"a key with its ampersand":  {[]string{"-app-id", "1", "-app-key", "secret-key&"}, exitUsage, `-app-key: ends in "&"`},
		"an odd path":               {[]string{"-path", "pay/notify"}, exitUsage, `-path: does not begin with "/"`},
		"a callback without a path": {[]string{"-callback", "http://127.0.0.1:8080"}, exitUsage, "-callback: "},
		"a callback with a query":   {[]string{"-callback", "http://127.0.0.1:8080/a?b=c"}, exitUsage, "holds a query"},
		"a word":                    {[]string{"start"}, exitUsage, `"start": all settings are flags`},
		"an address that is not":    {[]string{"-addr", "256.0.0.1:1"}, exitFailed, "-addr: "},
		"a record in no folder":     {[]string{"-record", "/does/not/exist"}, exitFailed, "-record: "},
	} {
		code, stdout, stderr := runWith(t, "", nil, append([]string{"sandbox"}, c.args...)...)
		require.Equal(t, c.code, code, name)
		require.Contains(t, stderr, c.want, name)
		require.NotContains(t, stdout+stderr, "secret-key", name)
	}
	code, _, stderr := runWith(t, "", map[string]string{"MIDAS_APP_KEY": "secret-key"}, "sandbox", "-addr", "256.0.0.1:1")
	require.Equal(t, exitUsage, code, "a key in the environment is not forgotten in silence")
	require.Contains(t, stderr, "-app-id: missing")
}
