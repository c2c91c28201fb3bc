package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

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
			require.Len(t, last.Mistakes[0], 1, name)
			require.Equal(t, c.mistake, last.Mistakes[0][0].Name, name)
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
		"a link to the dashboard":          {"GET", base + "/", map[string]string{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "document"}, 200},
		"a link to an order":               {"GET", base + "/mpay/buy_goods_m", map[string]string{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "document"}, 403},
		"the dashboard as an image":        {"GET", base + "/", map[string]string{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "image"}, 403},
		"the dashboard in a frame":         {"GET", base + "/", map[string]string{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "iframe"}, 403},
		"live events on another site":      {"GET", base + "/events", map[string]string{"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}, 403},
		"on another port":                  {"GET", base + "/events", map[string]string{"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:1"}, 403},
		"that says its origin only":        {"GET", base + "/events", map[string]string{"Origin": "https://evil.example"}, 403},
		"exchanges on another site":        {"GET", base + "/api/exchanges", map[string]string{"Sec-Fetch-Site": "cross-site"}, 403},
		"exchanges on the page itself":     {"GET", base + "/api/exchanges", map[string]string{"Sec-Fetch-Site": "same-origin", "Origin": base}, 200},
	} {
		status, text := call(t, c.method, c.url, "", c.header)
		require.Equal(t, c.want, status, name)
		if c.want == 403 {
			require.Regexp(t, `^\{"error":".+"\}\n$`, text, name)
		}
	}
	require.Len(t, exchangesOf(t, base), 5) // those answered with 200, and the one that is no call
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
		require.NoError(t, conn.SetDeadline(time.Now().Add(time.Minute)))
		fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Length: 9999\r\n\r\n%s", c.target, c.host, c.body)
		answer, err := io.ReadAll(conn)
		require.NoError(t, err, c.target)
		require.True(t, bytes.HasPrefix(answer, []byte("HTTP/1.1 ")), "%s: %s", c.target, answer)
	}
}

func TestACallbackWhoseCallerHangsUpIsSeenAllTheSame(t *testing.T) {
	t.Parallel()
	s := newSandbox(settings{appID: rawAppID, appKey: rawAppKey})
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
