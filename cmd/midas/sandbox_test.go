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
	server := httptest.NewServer(checkHost(s.handler(), netip.MustParseAddr("127.0.0.1"), []string{"sandbox.example"}))
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
	require.Contains(t, answer["reason"], "the backend answered ret 4 (bad_parameter:sig)")

	mode.Store("gullible")
	_, answer = post(t, api+"/forge", "")
	require.Equal(t, true, answer["accepted"])
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

	status, text := call(t, "GET", base+"/api/exchanges", "", nil)
	require.Equal(t, http.StatusOK, status)
	var exchanges []exchange
	require.NoError(t, json.Unmarshal([]byte(text), &exchanges))
	var kinds []string
	for i, e := range exchanges {
		require.Equal(t, i+1, e.Seq)
		kinds = append(kinds, strings.TrimSpace(e.Kind+" "+e.Action))
	}
	require.Equal(t, []string{"order", "callback pay", "callback forge", "callback forge", "callback forge", "callback repeat", "callback pay", "callback pay", "callback pay",
		"callback expire", "callback pay", "cancel"}, kinds)
	_, text = call(t, "GET", base+"/api/exchanges?after=11", "", nil)
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
		_, text = call(t, "GET", base+"/api/exchanges", "", nil)
		var exchanges []exchange
		require.NoError(t, json.Unmarshal([]byte(text), &exchanges))
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

	_, text = call(t, "GET", base+"/api/exchanges", "", nil)
	var exchanges []exchange
	require.NoError(t, json.Unmarshal([]byte(text), &exchanges))
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
			`[`: "the body is not the JSON wanted", `{"percent":"95"}`: "the body is not the JSON wanted", `{"precent":95}`: `unknown field "precent"`, strings.Repeat(" ", 5000): "the body: http: request body too large",
		},
		"/api/next": {
			"": "say how", `{"delay_ms":61000}`: "delay_ms: want a number from 1 to 60000", `{"delay_ms":-1}`: "delay_ms: want", `{"status":99}`: "status: want",
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
	token, _ := place(t, base, rawOrder())
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
	} {
		status, _ := call(t, c.method, c.url, "", c.header)
		require.Equal(t, c.want, status, name)
	}
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
	params["payitem"], params["goodsmeta"], params["x"+"extra"] = `<b>id</b>*0.1*1`, markup+"*"+markup, markup
	token, urlParams := place(t, base, params)
	post(t, base+"/api/orders/"+token+"/pay", `{"method":"<i>qq</i>"}`)
	params["payitem"], params[`<u>name</u>`] = markup, markup // refused, and shown all the same
	call(t, "GET", rawOrderURL(base, params, markup), "", map[string]string{"Cookie": `session_id=<s>x</s>; session_type=<s>y</s>`})
	call(t, "GET", base+"/mpay/buy_goods_m?<b>raw</b>&payitem=<b>", "", nil)

	_, dashboard := call(t, "GET", base+"/", "", nil)
	_, cashier := call(t, "GET", base+urlParams, "", nil)
	live := nextEvents(t, openEvents(t, base+"/events?after=0", ""), 4)
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
	events := openEvents(t, base+"/events?after=0", "")
	token, _ := place(t, base, rawOrder())
	require.Contains(t, nextEvents(t, events, 1), `<article class="order" data-token="`+token+`">`)
	post(t, base+"/api/orders/"+token+"/pay", "")
	require.Contains(t, nextEvents(t, events, 1), `data-action="pay"`)
	post(t, base+"/api/orders/"+token+"/cancel", "")
	require.Contains(t, nextEvents(t, events, 1), `The player left the cashier.`)

	again := openEvents(t, base+"/events?after=0", "2") // what a browser does
	require.True(t, again.Scan())
	require.Equal(t, "id: 3", again.Text())
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
	require.Contains(t, resp.Header.Get("Content-Security-Policy"), "default-src 'none'; script-src 'self';")
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
	handler := s.handler()
	server := httptest.NewServer(handler)
	defer server.Close()
	first, _ := place(t, server.URL, rawOrder())
	second, _ := place(t, server.URL, rawOrder())
	for range maxOrders - 1 {
		handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/mpay/buy_goods_m?a=b", nil))
	}
	require.Len(t, s.orders, maxOrders)
	status, _ := post(t, server.URL+"/api/orders/"+first+"/pay", "")
	require.Equal(t, http.StatusNotFound, status)
	for range maxCallbacks + 1 {
		status, _ = post(t, server.URL+"/api/orders/"+second+"/cancel", "")
		require.Equal(t, http.StatusOK, status)
	}
	require.Len(t, s.find(second).callbacks, maxCallbacks)
}

// A newcomer starts it without flags and pastes the line it prints.
func TestSandboxWithoutFlagsPrintsACurlLineThatWorks(t *testing.T) {
	t.Parallel()
	ctx, stop := context.WithCancel(t.Context())
	out, in := io.Pipe()
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, []string{"sandbox", "-addr", "127.0.0.1:0"}, &terminal{strings.NewReader(""), in, io.Discard, func(string) string { return "" }})
		in.Close()
	}()
	var printed strings.Builder
	lines := bufio.NewScanner(out)
	for lines.Scan() && !strings.HasPrefix(lines.Text(), "Then ") {
		printed.WriteString(lines.Text() + "\n")
	}
	seen := make(chan string, 10)
	go func() {
		defer close(seen)
		for lines.Scan() {
			seen <- lines.Text()
		}
	}()
	require.Contains(t, printed.String(), "(this machine only)")
	require.Contains(t, printed.String(), "midastest-demo-key")
	curl := regexp.MustCompile(`curl -b '([^']+)' '(http://127\.0\.0\.1:\d+/mpay/[^']+)'`).FindStringSubmatch(printed.String())
	require.NotNil(t, curl, printed.String())
	status, text := call(t, "GET", curl[2], "", map[string]string{"Cookie": curl[1]})
	require.Equal(t, http.StatusOK, status)
	token := regexp.MustCompile(`^\{"ret":0,"token":"([0-9A-F]+)"`).FindStringSubmatch(text)
	require.NotNil(t, token, text)
	base, _, _ := strings.Cut(curl[2], "/mpay")
	status, answer := post(t, base+"/api/orders/"+token[1]+"/pay", "")
	require.Equal(t, http.StatusOK, status)
	require.Equal(t, true, answer["accepted"])

	openEvents(t, base+"/events?after=0", "") // a page that is open does not hold it up
	stop()
	require.Equal(t, exitOK, <-ended)
	var log []string
	for line := range seen {
		log = append(log, line)
	}
	require.Len(t, log, 3)
	require.Contains(t, log[1], "  order     "+base+"/v1/sx8/1450000000/mobile_goods_info?token_id="+token[1])
	require.Contains(t, log[2], "  callback  pay: accepted")
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
}
