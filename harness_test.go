package midas_test

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/midas-go/midas"
	"github.com/stretchr/testify/require"
)

// Key and path of Tencent's documented callback; testdata/README.md says where it is from.
const (
	documentedKey  = "Lf6AtMEB1QlE8BYS"
	documentedPath = "/pay/mt.php"
)

// documentedClient returns the Client that takes the documented callback.
func documentedClient(t testing.TB, change ...func(*midas.Config)) *midas.Client {
	return newClient(t, midas.Config{AppID: "1101255891", AppKey: documentedKey, DeliveryPath: documentedPath}, change...)
}

const (
	testAppID  = "1450000000"
	testAppKey = "test-pay-key"
)

func newClient(t testing.TB, cfg midas.Config, change ...func(*midas.Config)) *midas.Client {
	for _, f := range change {
		f(&cfg)
	}
	c, err := midas.New(cfg)
	require.NoError(t, err)
	return c
}

// callbackClient returns the Client that takes the callbacks of signed.
func callbackClient(t testing.TB, change ...func(*midas.Config)) *midas.Client {
	return newClient(t, midas.Config{AppID: testAppID, AppKey: testAppKey, DeliveryPath: "/pay/notify"}, change...)
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

// serve calls the handler in process.
func serve(h http.Handler, method, query string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, "/pay/notify?"+query, nil))
	return w
}

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
	return newClient(t, midas.Config{
		AppID: testAppID, AppKey: testAppKey, Gateway: midas.Sandbox().At(g.URL), RetryDelay: time.Nanosecond,
	}, change...)
}

func at(unix int64) func(*midas.Config) {
	return func(cfg *midas.Config) { cfg.Now = func() time.Time { return time.Unix(unix, 0) } }
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// goldenOrder is the order whose query and signatures in order_test.go were made with PHP
// (rawurlencode with "~" encoded, ksort, hash_hmac).
func goldenOrder() midas.OrderRequest {
	return midas.OrderRequest{
		Player: midas.Player{Login: midas.QQ, OpenID: "o_TEST-openid", OpenKey: "test+openkey/1", PF: "qq_m_qq-2001-android-2011-xxxx", PFKey: "test=pfkey"},

		Items:            []midas.Item{{ID: "sword", Price: 60 * midas.QPoint, Quantity: 2}},
		GoodsName:        "屠龙 刀",
		GoodsDescription: "一把~刀",
		Metadata:         "shop*42",
	}
}

const goldenAnswer = `{"ret":0,"token":"842C2C19D11B7780D0E9B4D8E73ED80531721","url_params":"\/v1\/sx8\/1450000000\/mobile_goods_info?token_id=842C2C19D11B7780D0E9B4D8E73ED80531721","attach":""}`

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

// lines returns the lines written, as JSON objects. Lines are written after the answer: wait for
// the Client first.
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

func requireNoURLError(t *testing.T, err error) {
	t.Helper()
	var urlErr *url.Error
	require.NotErrorAs(t, err, &urlErr, "a *url.Error is in the chain: it prints the query")
}
