package midas_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midastest"
	"github.com/stretchr/testify/require"
)

const (
	testAppID  = "1450000000"
	testAppKey = "test-pay-key"
)

// goldenOrder is the order whose query and signatures below were made with PHP
// (rawurlencode with "~" encoded, ksort, hash_hmac).
func goldenOrder() midas.OrderRequest {
	return midas.OrderRequest{
		Login:            midas.QQ,
		OpenID:           "o_TEST-openid",
		OpenKey:          "test+openkey/1",
		PF:               "qq_m_qq-2001-android-2011-xxxx",
		PFKey:            "test=pfkey",
		Items:            []midas.Item{{ID: "sword", Price: 60 * midas.QPoint, Quantity: 2}},
		GoodsName:        "屠龙 刀",
		GoodsDescription: "一把~刀",
		Metadata:         "shop*42",
	}
}

const goldenAnswer = `{"ret":0,"token":"842C2C19D11B7780D0E9B4D8E73ED80531721","url_params":"\/v1\/sx8\/1450000000\/mobile_goods_info?token_id=842C2C19D11B7780D0E9B4D8E73ED80531721","attach":""}`

// A gateway answers orders as a test says and keeps what it was asked.
type gateway struct {
	*httptest.Server
	mu       sync.Mutex
	requests []*http.Request
}

func newGateway(t *testing.T, answer http.HandlerFunc) *gateway {
	g := new(gateway)
	g.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.mu.Lock()
		g.requests = append(g.requests, r)
		g.mu.Unlock()
		answer(w, r)
	}))
	t.Cleanup(g.Close)
	return g
}

func answering(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, body) }
}

// client returns a Client for g that repeats without noticeable waits.
func (g *gateway) client(t *testing.T, change ...func(*midas.Config)) *midas.Client {
	cfg := midas.Config{AppID: testAppID, AppKey: testAppKey, Gateway: midas.Sandbox(), RetryDelay: time.Nanosecond}
	cfg.Gateway.BaseURL = g.URL
	return newClient(t, cfg, change...)
}

func newClient(t *testing.T, cfg midas.Config, change ...func(*midas.Config)) *midas.Client {
	for _, f := range change {
		f(&cfg)
	}
	c, err := midas.New(cfg)
	require.NoError(t, err)
	return c
}

func at(unix int64) func(*midas.Config) {
	return func(cfg *midas.Config) { cfg.Now = func() time.Time { return time.Unix(unix, 0) } }
}

func TestAnOrderGoesOutAsTheProtocolSays(t *testing.T) {
	t.Parallel()
	g := newGateway(t, answering(goldenAnswer))
	order, err := g.client(t, at(1518081937)).CreateOrder(t.Context(), goldenOrder())
	require.NoError(t, err)

	require.Len(t, g.requests, 1)
	r := g.requests[0]
	require.Equal(t, http.MethodGet, r.Method)
	require.Equal(t, "/mpay/buy_goods_m", r.URL.Path)
	require.Equal(t, "app_metadata=shop%2A42&appid=1450000000&appmode=1&format=json&goodsmeta=%E5%B1%A0%E9%BE%99%20%E5%88%80%2A%E4%B8%80%E6%8A%8A%7E%E5%88%80&goodsurl=&openid=o_TEST-openid&openkey=test%2Bopenkey%2F1&payitem=sword%2A60%2A2&pf=qq_m_qq-2001-android-2011-xxxx&pfkey=test%3Dpfkey&ts=1518081937&zoneid=1"+
		"&sig=DPPT2MZpK9gU%2F0hc5DBXQeUkFwk%3D", r.URL.RawQuery)
	require.Equal(t, "session_id=openid; session_type=kp_actoken; org_loc=%2Fv3%2Fr%2Fmpay%2Fbuy_goods_m", r.Header.Get("Cookie"))

	require.Equal(t, &midas.Order{
		Token:     "842C2C19D11B7780D0E9B4D8E73ED80531721",
		URLParams: "/v1/sx8/1450000000/mobile_goods_info?token_id=842C2C19D11B7780D0E9B4D8E73ED80531721",
		Expires:   time.Unix(1518081937+300, 0),
	}, order)
}

func TestTheOlderGatewaysAreSignedForTheirOwnPath(t *testing.T) {
	t.Parallel()
	g := newGateway(t, answering(goldenAnswer))
	c := g.client(t, at(1518081937), func(cfg *midas.Config) {
		cfg.Gateway = midas.MSDKSandbox()
		cfg.Gateway.BaseURL = g.URL + "/" // a slash too many does no harm
	})
	req := goldenOrder()
	req.Login = midas.WeChat
	req.PayToken = "not for WeChat"
	req.Items = []midas.Item{{ID: "sword", Price: midas.Fen, Quantity: 1}, {ID: "shield", Price: 60 * midas.QPoint, Quantity: 2}}
	req.UserIP = "192.0.2.7"
	_, err := c.CreateOrder(t.Context(), req)
	require.NoError(t, err)

	r := g.requests[0]
	require.Equal(t, "/mpay/buy_goods_m", r.URL.Path)
	require.Equal(t, "XzdY48VoKQuj5AS3sYgiCn6nBvE=", r.URL.Query().Get("sig")) // by PHP
	require.Equal(t, []string{""}, r.URL.Query()["pay_token"])
	require.Equal(t, "session_id=hy_gameid; session_type=wc_actoken; org_loc=%2Fmpay%2Fbuy_goods_m", r.Header.Get("Cookie"))
}

func TestEachLoginHasItsSessionCookies(t *testing.T) {
	t.Parallel()
	for login, want := range map[midas.Login]string{ // protocol.md 4
		midas.QQ:     "session_id=openid; session_type=kp_actoken",
		midas.WeChat: "session_id=hy_gameid; session_type=wc_actoken",
		midas.Guest:  "session_id=hy_gameid; session_type=st_dummy",
		midas.H5:     "session_id=openid; session_type=openkey",
	} {
		g := newGateway(t, answering(goldenAnswer))
		c := g.client(t, func(cfg *midas.Config) { cfg.Gateway.OrgLocPrefix = "" }) // as Tencent's PHP SDK sends it
		req := goldenOrder()
		req.Login = login
		_, err := c.CreateOrder(t.Context(), req)
		require.NoError(t, err)
		require.Equal(t, want+"; org_loc=%2Fmpay%2Fbuy_goods_m", g.requests[0].Header.Get("Cookie"))
	}
}

func TestOptionalParametersAreSentWhenSet(t *testing.T) {
	t.Parallel()
	g := newGateway(t, answering(goldenAnswer))
	req := goldenOrder()
	req.ZoneID, req.GoodsURL, req.UserIP, req.AccountType = "2_role%201", "http://example.com/剑.png", "2001:db8::1", "security"
	req.MaxQuantity = 3
	req.Extra = url.Values{"out_trade_no": {"T 1"}, "sp_info": {""}}
	_, err := g.client(t, at(1518081937)).CreateOrder(t.Context(), req)
	require.NoError(t, err)

	got, err := url.ParseQuery(g.requests[0].URL.RawQuery)
	require.NoError(t, err)
	sig := got.Get("sig")
	require.Equal(t, url.Values{
		"openid": {"o_TEST-openid"}, "openkey": {"test+openkey/1"}, "appid": {testAppID}, "ts": {"1518081937"},
		"pf": {"qq_m_qq-2001-android-2011-xxxx"}, "pfkey": {"test=pfkey"}, "zoneid": {"2_role%201"},
		"payitem": {"sword*60*2"}, "goodsmeta": {"屠龙 刀*一把~刀"}, "goodsurl": {"http://example.com/剑.png"},
		"appmode": {"2"}, "max_num": {"3"}, "app_metadata": {"shop*42"}, "userip": {"2001:db8::1"}, "format": {"json"},
		"accounttype": {"security"}, "out_trade_no": {"T 1"}, "sp_info": {""}, "sig": {sig},
	}, got)
	require.Equal(t, midas.Sign("GET", "/v3/r/mpay/buy_goods_m", got, testAppKey), sig)
}

func TestABadOrderIsRefusedByNameAndNotSent(t *testing.T) {
	t.Parallel()
	g := newGateway(t, answering(goldenAnswer))
	ysdk := g.client(t)
	older := g.client(t, func(cfg *midas.Config) { cfg.Gateway.PayToken = true })
	item := func(id string, price midas.Amount, quantity int) func(*midas.OrderRequest) {
		return func(r *midas.OrderRequest) { r.Items = []midas.Item{{ID: id, Price: price, Quantity: quantity}} }
	}
	guest := func(openid string) func(*midas.OrderRequest) {
		return func(r *midas.OrderRequest) { r.Login, r.OpenID = midas.Guest, openid }
	}
	for _, test := range []struct {
		what   string
		client *midas.Client
		change func(*midas.OrderRequest)
		param  string // "" is accepted
	}{
		{"no login", ysdk, func(r *midas.OrderRequest) { r.Login = "" }, "session_type"},
		{"unknown login", ysdk, func(r *midas.OrderRequest) { r.Login = "QQ" }, "session_type"},
		{"no openid", ysdk, func(r *midas.OrderRequest) { r.OpenID = "" }, "openid"},
		{"a guest's openid of 33 characters", ysdk, guest(strings.Repeat("访", 33)), "openid"},
		{"a guest's openid of 32 characters", ysdk, guest(strings.Repeat("访", 32)), ""},
		{"a guest's openid with a bracket", ysdk, guest("a(b"), "openid"},
		{"a guest's openid with a caret", ysdk, guest("a^b"), "openid"},
		{"a QQ openid with a bracket", ysdk, func(r *midas.OrderRequest) { r.OpenID = "a(b" }, ""},
		{"no openkey", ysdk, func(r *midas.OrderRequest) { r.OpenKey = "" }, "openkey"},
		{"an openkey of 1025 bytes", ysdk, func(r *midas.OrderRequest) { r.OpenKey = strings.Repeat("-", 1025) }, "openkey"},
		{"an openkey of 1024 bytes", ysdk, func(r *midas.OrderRequest) { r.OpenKey = strings.Repeat("-", 1024) }, ""},
		{"an openkey that is not UTF-8", ysdk, func(r *midas.OrderRequest) { r.OpenKey = "open\xffkey" }, "openkey"},
		{"a pfkey of 1025 bytes", ysdk, func(r *midas.OrderRequest) { r.PFKey = strings.Repeat("-", 1025) }, "pfkey"},
		{"a pay_token of 1025 bytes", ysdk, func(r *midas.OrderRequest) { r.PayToken = strings.Repeat("-", 1025) }, "pay_token"},
		{"an openid of 1025 bytes", ysdk, func(r *midas.OrderRequest) { r.OpenID = strings.Repeat("-", 1025) }, "openid"},
		{"1025 bytes in Extra", ysdk, func(r *midas.OrderRequest) { r.Extra = url.Values{"x": {strings.Repeat("-", 1025)}} }, "x"},
		{"no pay_token on YSDK", ysdk, func(r *midas.OrderRequest) { r.PayToken = "" }, ""},
		{"no pay_token with QQ on an older gateway", older, func(r *midas.OrderRequest) { r.PayToken = "" }, "pay_token"},
		{"no pay_token with WeChat on an older gateway", older, func(r *midas.OrderRequest) { r.Login = midas.WeChat }, ""},
		{"no pf", ysdk, func(r *midas.OrderRequest) { r.PF = "" }, "pf"},
		{"pf of 150 bytes", ysdk, func(r *midas.OrderRequest) { r.PF = strings.Repeat("p", 150) }, ""},
		{"pf of 151 bytes", ysdk, func(r *midas.OrderRequest) { r.PF = strings.Repeat("p", 151) }, "pf"},
		{"no pfkey", ysdk, func(r *midas.OrderRequest) { r.PFKey = "" }, "pfkey"},
		{"no items", ysdk, func(r *midas.OrderRequest) { r.Items = nil }, "payitem"},
		{"an item without id", ysdk, item("", 10, 1), "payitem"},
		{"an id with a star", ysdk, item("a*b", 10, 1), "payitem"},
		{"an id with a semicolon", ysdk, item("a;b", 10, 1), "payitem"},
		{"an id with a bar", ysdk, item("a|b", 10, 1), "payitem"},
		{"an id with a blank", ysdk, item("a b", 10, 1), "payitem"},
		{"an id with a line end", ysdk, item("a\n", 10, 1), "payitem"},
		{"an id that is not ASCII", ysdk, item("剑", 10, 1), "payitem"},
		{"a free item", ysdk, item("a", 0, 1), "payitem"},
		{"a negative price", ysdk, item("a", -1, 1), "payitem"},
		{"no quantity", ysdk, item("a", 10, 0), "payitem"},
		{"a negative quantity", ysdk, item("a", 10, -1), "payitem"},
		{"2,000,000,000 fen", ysdk, item("a", 1_000_000_000, 2), ""},
		{"one fen more", ysdk, item("a", 2_000_000_001, 1), "payitem"},
		{"a total that overflows int64", ysdk, item("a", 1<<62, 4), "payitem"},
		{"a total over several items", ysdk, func(r *midas.OrderRequest) {
			r.Items = []midas.Item{{"a", 1_999_999_999, 1}, {"b", 1, 2}}
		}, "payitem"},
		{"payitem of 511 bytes", ysdk, item(strings.Repeat("i", 506), 100, 1), ""}, // and "*10*1"
		{"payitem of 512 bytes", ysdk, item(strings.Repeat("i", 507), 100, 1), "payitem"},
		{"no name", ysdk, func(r *midas.OrderRequest) { r.GoodsName = "" }, "goodsmeta"},
		{"no description", ysdk, func(r *midas.OrderRequest) { r.GoodsDescription = "" }, "goodsmeta"},
		{"a star in the name", ysdk, func(r *midas.OrderRequest) { r.GoodsName = "a*b" }, "goodsmeta"},
		{"a line end in the description", ysdk, func(r *midas.OrderRequest) { r.GoodsDescription = "a\nb" }, "goodsmeta"},
		{"a carriage return in the name", ysdk, func(r *midas.OrderRequest) { r.GoodsName = "a\rb" }, "goodsmeta"},
		{"a name in GBK", ysdk, func(r *midas.OrderRequest) { r.GoodsName = "\xb5\xc0\xbe\xdf" }, "goodsmeta"},
		{"goodsmeta of 256 characters", ysdk, func(r *midas.OrderRequest) { r.GoodsName, r.GoodsDescription = "刀", strings.Repeat("刀", 254) }, ""},
		{"goodsmeta of 257 characters", ysdk, func(r *midas.OrderRequest) { r.GoodsName, r.GoodsDescription = "刀", strings.Repeat("刀", 255) }, "goodsmeta"},
		{"goodsurl of 511 bytes", ysdk, func(r *midas.OrderRequest) { r.GoodsURL = strings.Repeat("u", 511) }, ""},
		{"goodsurl of 512 bytes", ysdk, func(r *midas.OrderRequest) { r.GoodsURL = strings.Repeat("u", 512) }, "goodsurl"},
		{"MaxQuantity equal to the quantity", ysdk, func(r *midas.OrderRequest) { r.MaxQuantity = 2 }, "max_num"},
		{"a negative MaxQuantity", ysdk, func(r *midas.OrderRequest) { r.MaxQuantity = -1 }, "max_num"},
		{"MaxQuantity with two items", ysdk, func(r *midas.OrderRequest) {
			r.MaxQuantity, r.Items = 9, []midas.Item{{"a", 10, 1}, {"b", 10, 1}}
		}, "max_num"},
		{"metadata of 128 bytes", ysdk, func(r *midas.OrderRequest) { r.Metadata = strings.Repeat("m", 128) }, ""},
		{"metadata of 129 bytes", ysdk, func(r *midas.OrderRequest) { r.Metadata = strings.Repeat("m", 129) }, "app_metadata"},
		{"metadata that is not ASCII", ysdk, func(r *midas.OrderRequest) { r.Metadata = "订单" }, "app_metadata"},
		{"an address with a port", ysdk, func(r *midas.OrderRequest) { r.UserIP = "192.0.2.7:80" }, "userip"},
		{"an unknown account type", ysdk, func(r *midas.OrderRequest) { r.AccountType = "gold" }, "accounttype"},
		{"a table name in Extra", ysdk, func(r *midas.OrderRequest) { r.Extra = url.Values{"amt": {"20"}} }, "amt"},
		{"sig in Extra", ysdk, func(r *midas.OrderRequest) { r.Extra = url.Values{"sig": {"x"}} }, "sig"},
		{"an odd name in Extra", ysdk, func(r *midas.OrderRequest) { r.Extra = url.Values{"a=b": {"x"}} }, `"a=b"`},
		{"two values in Extra", ysdk, func(r *midas.OrderRequest) { r.Extra = url.Values{"x": {"1", "2"}} }, "x"},
	} {
		req := goldenOrder()
		test.change(&req)
		before := len(g.requests)
		_, err := test.client.CreateOrder(t.Context(), req)
		if test.param == "" {
			require.NoError(t, err, test.what)
			continue
		}
		var paramErr *midas.ParamError
		require.ErrorAs(t, err, &paramErr, test.what)
		require.Equal(t, test.param, paramErr.Param, test.what)
		require.ErrorContains(t, err, "midas: buy_goods_m: parameter "+test.param+": ", test.what)
		require.Len(t, g.requests, before, test.what)
	}
}

func TestEveryNameOfTheTableIsRefusedInExtra(t *testing.T) {
	t.Parallel()
	c := newGateway(t, answering(goldenAnswer)).client(t)
	// protocol.md 3, first column
	for name := range strings.FieldsSeq("openid openkey pay_token appid ts pf pfkey zoneid payitem goodsmeta goodsurl amt appmode max_num app_metadata userip format accounttype") {
		req := goldenOrder()
		req.Extra = url.Values{name: {"x"}}
		_, err := c.CreateOrder(t.Context(), req)
		require.ErrorContains(t, err, "parameter "+name+": not allowed in Extra")
	}
}

func TestTheAnswerIsUnderstood(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ what, body, attach string }{
		{"ret is a number", goldenAnswer, ""},
		{"ret is a numeric string", strings.Replace(goldenAnswer, `"ret":0`, `"ret":"0"`, 1), ""},
		{"attach is an object", strings.Replace(goldenAnswer, `"attach":""`, `"attach":{"a":1}`, 1), `{"a":1}`},
		{"attach is null", strings.Replace(goldenAnswer, `"attach":""`, `"attach":null`, 1), ""},
		{"attach is escaped", strings.Replace(goldenAnswer, `"attach":""`, `"attach":"\u5251\/"`, 1), "剑/"},
		{"more fields than expected", strings.Replace(goldenAnswer, `{`, `{"new":[1,2],`, 1), ""},
	} {
		order, err := newGateway(t, answering(test.body)).client(t).CreateOrder(t.Context(), goldenOrder())
		require.NoError(t, err, test.what)
		require.Equal(t, "842C2C19D11B7780D0E9B4D8E73ED80531721", order.Token, test.what)
		require.Equal(t, test.attach, order.Attach, test.what)
	}
}

func TestURLParamsAreHandedOnByteForByte(t *testing.T) {
	t.Parallel()
	const odd = `/v1/x?a=1&b=%2F%2f+ ~<>"\'` + "剑\u2028"
	body, err := json.Marshal(map[string]any{"ret": 0, "token": "T", "url_params": odd})
	require.NoError(t, err)
	order, err := newGateway(t, answering(string(body))).client(t).CreateOrder(t.Context(), goldenOrder())
	require.NoError(t, err)
	require.Equal(t, odd, order.URLParams)
}

func TestARefusalByMidasIsAnErrorToMatch(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		body string
		want midas.Error
		is   error
		says string
	}{
		{`{"ret":1018,"msg":"请先登录","err_code":"1018--2-20"}`, midas.Error{Ret: 1018, Msg: "请先登录", Code: "1018--2-20"}, midas.ErrLoginExpired, "let the app log in again"},
		{`{"ret":"1016","msg":"no permission","err_code":"1016-1016-0"}`, midas.Error{Ret: 1016, Msg: "no permission", Code: "1016-1016-0"}, midas.ErrPermission, "sandbox or live"},
		{`{"ret":1001,"msg":"sig error"}`, midas.Error{Ret: 1001, Msg: "sig error"}, midas.ErrSignature, "check the pay key"},
		{`{"ret":1001,"msg":"请求参数错误：(sig)"}`, midas.Error{Ret: 1001, Msg: "请求参数错误：(sig)"}, midas.ErrSignature, "check the pay key"},
		{`{"ret":1001,"msg":"bad design","err_code":7}`, midas.Error{Ret: 1001, Msg: "bad design", Code: "7"}, nil, "fix the request"},
		{`{"ret":1001,"msg":"please sign in"}`, midas.Error{Ret: 1001, Msg: "please sign in"}, nil, "fix the request"},
		{`{"ret":1018,"msg":"m","token":0,"url_params":[]}`, midas.Error{Ret: 1018, Msg: "m"}, midas.ErrLoginExpired, "log in again"}, // PHP's empty array
		{`{"ret":-5}`, midas.Error{Ret: -5}, nil, "ret -5"},
	} {
		g := newGateway(t, answering(test.body))
		order, err := g.client(t).CreateOrder(t.Context(), goldenOrder())
		require.Nil(t, order)
		var refused *midas.Error
		require.ErrorAs(t, err, &refused)
		require.Equal(t, test.want, *refused)
		for _, sentinel := range []error{midas.ErrLoginExpired, midas.ErrPermission, midas.ErrSignature, midas.ErrTokenExpired, midas.ErrTokenNotFound} {
			require.Equal(t, sentinel == test.is, errors.Is(err, sentinel), "%s is %v", test.body, sentinel)
		}
		require.ErrorContains(t, err, test.says)
		require.Len(t, g.requests, 1, "a refusal is not repeated")
	}
}

func TestAnUnusableAnswerIsAResponseError(t *testing.T) {
	t.Parallel()
	status := func(code int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(code)
			io.WriteString(w, body)
		}
	}
	for _, test := range []struct {
		what    string
		answer  http.HandlerFunc
		status  int
		excerpt string
		reason  string
		tries   int
	}{
		{"nothing", answering(""), 200, "", "it is empty", 1},
		{"HTML", answering("<html>hello"), 200, "<html>hello", "not the JSON", 1},
		{"half an answer, in full", answering(goldenAnswer[:20]), 200, goldenAnswer[:20], "not the JSON", 1},
		{"JSON of something else", answering(`[]`), 200, "[]", "no ret", 1},
		{"no ret", answering(`{"msg":"x"}`), 200, `{"msg":"x"}`, "no ret", 1},
		{"ret is null", answering(`{"ret":null}`), 200, `{"ret":null}`, "no ret", 1},
		{"ret is no number", answering(`{"ret":"ok"}`), 200, `{"ret":"ok"}`, "not the JSON", 1},
		{"ret is a fraction", answering(`{"ret":0.5}`), 200, `{"ret":0.5}`, "not the JSON", 1},
		{"ret 0 without a token", answering(`{"ret":0,"url_params":"/v1"}`), 200, `{"ret":0,"url_params":"/v1"}`, "token or url_params is missing", 1},
		{"ret 0 without url_params", answering(`{"ret":0,"token":"T"}`), 200, `{"ret":0,"token":"T"}`, "token or url_params is missing", 1},
		{"ret 0 and not UTF-8", answering(`{"ret":0,"token":"T","url_params":"` + "\xff" + `"}`), 200, `{"ret":0,"token":"T","url_params":"` + "\ufffd" + `"}`, "not UTF-8", 1},
		{"url_params with half a character", answering(`{"ret":0,"token":"T","url_params":"\ud800"}`), 200, `{"ret":0,"token":"T","url_params":"\ud800"}`, "not UTF-8", 1},
		{"ret 0 with an empty array", answering(`{"ret":0,"token":"T","url_params":[]}`), 200, `{"ret":0,"token":"T","url_params":[]}`, "token or url_params is missing", 1},
		{"10 MiB", answering(strings.Repeat("刀", 10<<20/3)), 200, strings.Repeat("刀", 66) + "…", "over 1 MiB", 1},
		{"a redirect", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://login.example/?next="+r.URL.String(), http.StatusFound)
		}, 302, "", "redirects are not followed", 1},
		{"204", status(204, ""), 204, "", "want status 200", 1},
		{"404 that breaks off", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "500")
			w.WriteHeader(404)
			io.WriteString(w, "no such")
		}, 404, "no such", "it broke off", 1},
		{"404", status(404, "no such page"), 404, "no such page", "want status 200", 1},
		{"429", status(429, "slow down"), 429, "slow down", "want status 200", 3},
		{"500", status(500, "oops"), 500, "oops", "want status 200", 3},
		{"an answer that counts, with status 503", status(503, goldenAnswer), 503, goldenAnswer, "want status 200", 3},
		{"a body that breaks off", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "500")
			io.WriteString(w, goldenAnswer)
		}, 200, goldenAnswer, "it broke off", 3},
	} {
		g := newGateway(t, test.answer)
		_, err := g.client(t).CreateOrder(t.Context(), goldenOrder())
		var respErr *midas.ResponseError
		require.ErrorAs(t, err, &respErr, test.what)
		require.Equal(t, test.status, respErr.StatusCode, test.what)
		if test.what != "a redirect" { // net/http writes that body
			require.Equal(t, strings.ReplaceAll(test.excerpt, "?token_id=842C2C19D11B7780D0E9B4D8E73ED80531721", "?[redacted]"), respErr.Excerpt, test.what)
		}
		require.Contains(t, respErr.Reason, test.reason, test.what)
		require.ErrorContains(t, err, fmt.Sprintf("midas: buy_goods_m: no usable answer (HTTP status %d)", test.status), test.what)
		require.Len(t, g.requests, test.tries, test.what)
		requireNoURLError(t, err)
	}
}

func requireNoURLError(t *testing.T, err error) {
	t.Helper()
	var urlErr *url.Error
	require.NotErrorAs(t, err, &urlErr, "a *url.Error is in the chain: it prints the query")
}

func TestEachTryHasAFreshTimeAndSignature(t *testing.T) {
	t.Parallel()
	var calls int64
	g := newGateway(t, func(w http.ResponseWriter, r *http.Request) {
		if calls < 3 {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		io.WriteString(w, goldenAnswer)
	})
	c := g.client(t, func(cfg *midas.Config) {
		cfg.Now = func() time.Time { calls++; return time.Unix(1518081937+calls, 0) }
	})
	order, err := c.CreateOrder(t.Context(), goldenOrder())
	require.NoError(t, err)
	require.Equal(t, time.Unix(1518081940+300, 0), order.Expires)
	require.Len(t, g.requests, 3)
	for i, r := range g.requests {
		q := r.URL.Query()
		require.Equal(t, fmt.Sprint(1518081938+i), q.Get("ts"))
		require.Equal(t, midas.Sign("GET", "/v3/r/mpay/buy_goods_m", q, testAppKey), q.Get("sig"))
	}
}

func TestRepeatedTriesWaitLongerEachTimeAndObeyTheContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		srv := midastest.New(midastest.Config{AppID: testAppID, AppKey: testAppKey})
		c := newClient(t, midas.Config{AppID: testAppID, AppKey: testAppKey, Gateway: srv.Gateway(), HTTPClient: srv.HTTPClient(), RetryDelay: time.Second})
		bad := midastest.Fault{Status: http.StatusBadGateway}

		start := time.Now()
		srv.NextOrders(bad, bad)
		_, err := c.CreateOrder(t.Context(), goldenOrder())
		require.NoError(t, err)
		waited := time.Since(start)
		require.GreaterOrEqual(t, waited, 1500*time.Millisecond, "half of 1s and of 2s at the least")
		require.Less(t, waited, 3*time.Second, "something is taken off at random")

		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		start = time.Now()
		srv.NextOrders(bad, bad, bad)
		_, err = c.CreateOrder(ctx, goldenOrder())
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, 300*time.Millisecond, time.Since(start))
		require.ErrorContains(t, err, "context deadline exceeded; the last try: no usable answer (HTTP status 502)")
		requireNoURLError(t, err)
	})
}

func TestACancelledOrderIsNotRepeated(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	g := newGateway(t, func(w http.ResponseWriter, r *http.Request) { cancel(); <-r.Context().Done() })
	_, err := g.client(t).CreateOrder(ctx, goldenOrder())
	require.ErrorIs(t, err, context.Canceled)
	require.EqualError(t, err, "midas: buy_goods_m: context canceled")
	require.Len(t, g.requests, 1)
	requireNoURLError(t, err)
}

// The time limit of an http.Client looks like the end of a context, but is one of a try.
func TestATryThatHangsIsRepeated(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		srv := midastest.New(midastest.Config{AppID: testAppID, AppKey: testAppKey})
		hc := srv.HTTPClient()
		hc.Timeout = 5 * time.Second
		c := newClient(t, midas.Config{AppID: testAppID, AppKey: testAppKey, Gateway: srv.Gateway(), HTTPClient: hc})
		srv.NextOrders(midastest.Fault{Delay: time.Hour})
		_, err := c.CreateOrder(t.Context(), goldenOrder())
		require.NoError(t, err)

		srv.NextOrders(midastest.Fault{Delay: time.Hour}, midastest.Fault{Delay: time.Hour}, midastest.Fault{Delay: time.Hour})
		start := time.Now()
		_, err = c.CreateOrder(t.Context(), goldenOrder())
		var netErr net.Error
		require.ErrorAs(t, err, &netErr)
		require.True(t, netErr.Timeout())
		require.Greater(t, time.Since(start), 15*time.Second)
		requireNoURLError(t, err)
	})
}

func TestRefusedConnectionsAreRepeatedAndKeepTheirCause(t *testing.T) {
	t.Parallel()
	g := newGateway(t, answering(goldenAnswer))
	tries := 0
	c := g.client(t, func(cfg *midas.Config) {
		cfg.HTTPClient = &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			tries++
			return http.DefaultTransport.RoundTrip(r)
		})}
	})
	g.Close()
	_, err := c.CreateOrder(t.Context(), goldenOrder())
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
	require.ErrorContains(t, err, "midas: buy_goods_m: no answer: dial tcp")
	require.Equal(t, 3, tries)
	requireNoURLError(t, err)

	none := g.client(t, func(cfg *midas.Config) {
		cfg.MaxRetries = -1
		cfg.HTTPClient = &http.Client{Transport: roundTripper(func(*http.Request) (*http.Response, error) {
			tries++
			return nil, fmt.Errorf("proxy: %w", &url.Error{Op: "Get", URL: g.URL + "?sig=x", Err: io.ErrUnexpectedEOF})
		})}
	})
	tries = 0
	_, err = none.CreateOrder(t.Context(), goldenOrder())
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.Equal(t, 1, tries, "a negative MaxRetries means never")
	requireNoURLError(t, err)
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestAnUntrustedCertificateIsNotTriedAgain(t *testing.T) {
	t.Parallel()
	var handshakes atomic.Int32
	srv := httptest.NewUnstartedServer(answering(goldenAnswer))
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			handshakes.Add(1)
		}
	}
	srv.StartTLS()
	defer srv.Close()
	cfg := midas.Config{AppID: testAppID, AppKey: testAppKey, Gateway: midas.Sandbox(), RetryDelay: time.Nanosecond}
	cfg.Gateway.BaseURL = srv.URL

	_, err := newClient(t, cfg).CreateOrder(t.Context(), goldenOrder())
	require.ErrorContains(t, err, "certificate")
	require.EqualValues(t, 1, handshakes.Load())
	requireNoURLError(t, err)

	cfg.HTTPClient = srv.Client() // which trusts it
	_, err = newClient(t, cfg).CreateOrder(t.Context(), goldenOrder())
	require.NoError(t, err)
}

func TestAnHTTPClientIsNeitherChangedNorGivenCookies(t *testing.T) {
	t.Parallel()
	g := newGateway(t, func(w http.ResponseWriter, r *http.Request) {
		http.SetCookie(w, &http.Cookie{Name: "player", Value: "A"})
		io.WriteString(w, goldenAnswer)
	})
	jar := &oneCookieJar{}
	hc := &http.Client{Jar: jar, Timeout: time.Minute}
	c := g.client(t, func(cfg *midas.Config) { cfg.HTTPClient = hc })
	for range 2 {
		_, err := c.CreateOrder(t.Context(), goldenOrder())
		require.NoError(t, err)
	}
	require.NotContains(t, g.requests[1].Header.Get("Cookie"), "player", "one player's session is not another's")
	require.Equal(t, &http.Client{Jar: jar, Timeout: time.Minute}, hc)
}

type oneCookieJar struct{ cookies []*http.Cookie }

func (j *oneCookieJar) SetCookies(_ *url.URL, c []*http.Cookie) { j.cookies = c }
func (j *oneCookieJar) Cookies(*url.URL) []*http.Cookie         { return j.cookies }

func TestRepeatedTriesAreLogged(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	g := newGateway(t, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(502) })
	c := g.client(t, func(cfg *midas.Config) { cfg.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	_, err := c.CreateOrder(t.Context(), goldenOrder())
	require.Error(t, err)
	require.Equal(t, 2, strings.Count(log.String(), "level=WARN"))
	require.Contains(t, log.String(), "api=/mpay/buy_goods_m try=1 error=\"no usable answer (HTTP status 502): want status 200\"")
}

func FuzzPayItems(f *testing.F) {
	f.Add("sword", int64(1), 1, "shield", int64(600), 20)
	f.Add("G1", int64(200), 2, "x_1", int64(99), 1)
	f.Fuzz(func(t *testing.T, id1 string, price1 int64, n1 int, id2 string, price2 int64, n2 int) {
		req := goldenOrder()
		req.Items = []midas.Item{{id1, midas.Amount(price1), n1}, {id2, midas.Amount(price2), n2}}
		if midas.ValidateItems(req.Items) != nil {
			return
		}
		got, err := midas.ParsePayItems(midas.EncodePayItems(req.Items))
		require.NoError(t, err)
		require.Equal(t, req.Items, got)
	})
}

func FuzzParsePayItems(f *testing.F) {
	for _, seed := range []string{"3*0.1*1", "G1*20*2", "G001*10*1;G008*8*2", "a*60.0*1", "a*0.10*1", "a*0.01*1", "a**1", ";", "a*1*0", "a*1*99999999999"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		items, err := midas.ParsePayItems(s)
		if err != nil {
			var paramErr *midas.ParamError
			require.ErrorAs(t, err, &paramErr)
			require.Equal(t, "payitem", paramErr.Param)
			return
		}
		again, err := midas.ParsePayItems(midas.EncodePayItems(items))
		require.NoError(t, err)
		require.Equal(t, items, again)
	})
}

func FuzzOrderAnswer(f *testing.F) {
	f.Add([]byte(goldenAnswer))
	f.Add([]byte(`{"ret":"1018","msg":"x","err_code":7}`))
	f.Add([]byte(`{"ret":0,"token":1}`))
	f.Add([]byte("\x00"))
	f.Fuzz(func(t *testing.T, body []byte) {
		ret, token, urlParams, err := midas.DecodeOrderAnswer(body)
		if err == nil && ret == 0 {
			require.NotEmpty(t, token)
			require.NotEmpty(t, urlParams)
			// encoding/json, into no type of ours, reads the same.
			var plain map[string]any
			require.NoError(t, json.Unmarshal(body, &plain))
		}
	})
}
