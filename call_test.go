package midas

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The request of Tencent's page on get_balance_m, with the sig that the page shows. The page
// names an older gateway: the signed path is that of the URL (protocol.md 2, request signature).
func TestTheDocumentedBalanceRequestHasItsSignature(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("testdata/get-balance.json")
	require.NoError(t, err)
	var known struct {
		Vector
		URLPath string `json:"url_path"`
		Wire    string
		Cookie  string
	}
	require.NoError(t, json.Unmarshal(data, &known))
	require.Equal(t, "w0swu02BmhUPQyrAiS+pwuRgCcI=", known.Sig)
	require.Equal(t, known.BaseString, BaseString(known.Method, known.Path, known.Values()))
	require.Equal(t, known.Sig, Sign(known.Method, known.Path, known.Values(), known.AppKey))

	// The same read back from the query that goes over the wire: sig is among it, and not signed.
	sent, err := url.ParseQuery(known.Wire)
	require.NoError(t, err)
	require.Equal(t, known.Sig, sent.Get("sig"))
	require.Equal(t, known.Sig, Sign(known.Method, known.URLPath, sent, known.AppKey))

	require.NotEqual(t, known.Sig, Sign(known.Method, "/v3/r"+known.Path, sent, known.AppKey), "YSDK's path")
	require.NotEqual(t, known.Sig, Sign("POST", known.Path, sent, known.AppKey), "another method")

	// And made by a call, on the gateway that the page names: the same request to the byte.
	var got *http.Request
	ts, err := strconv.ParseInt(sent.Get("ts"), 10, 64)
	require.NoError(t, err)
	c, err := New(Config{
		AppID: "1101255891", AppKey: known.AppKey, Gateway: MSDK(), Now: func() time.Time { return time.Unix(ts, 0) },
		HTTPClient: &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			got = r
			return &http.Response{StatusCode: 200, Body: io.NopCloser(strings.NewReader(`{"ret":0,"balance":220,"gen_balance":0}`)), Request: r}, nil
		})},
	})
	require.NoError(t, err)
	var balance struct {
		Balance int `json:"balance"`
	}
	player := Player{
		Login: QQ, OpenID: sent.Get("openid"), OpenKey: sent.Get("openkey"), PayToken: sent.Get("pay_token"),
		PF: sent.Get("pf"), PFKey: sent.Get("pfkey"), ZoneID: sent.Get("zoneid"),
	}
	require.NoError(t, c.Call(t.Context(), Call{API: known.URLPath, Player: player}, &balance))
	require.Equal(t, 220, balance.Balance)
	require.Equal(t, "http://msdk.qq.com"+known.URLPath, "http://"+got.URL.Host+got.URL.Path)
	require.Equal(t, known.Wire, got.URL.RawQuery)
	require.Equal(t, []string{known.Cookie}, got.Header["Cookie"])
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// Any answer type will do; one that can be wrong says so itself.
func TestAnAnswerOfAnotherShapeIsNotTaken(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]string{
		`{"ret":0,"balance":"220"}`: "a field is of another type",
		`{"ret":0,"balance":2.5}`:   "a field is of another type",
		`{"ret":"x"}`:               "it is not the JSON of an answer",
		`{"balance":220}`:           "it has no ret",
	} {
		var balance struct{ Balance int }
		refused, wrong := readAnswer([]byte(body), &balance, func() []string { return nil })
		require.Nil(t, refused)
		require.Equal(t, want, wrong)
	}
}

// net/http repeats a GET by itself when a kept connection breaks: a call that pays would be
// handled twice. (It keeps most connections, on a slow machine not every one.)
func TestACallThatIsSentOnceIsHandledOnce(t *testing.T) {
	t.Parallel()
	for _, once := range []bool{false, true} {
		var mu sync.Mutex
		var callers []string // their addresses
		broke := false       // a kept connection
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			kept := slices.Contains(callers, r.RemoteAddr)
			callers = append(callers, r.RemoteAddr)
			if broke || !kept {
				io.WriteString(w, `{"ret":0}`)
			} else if conn, _, err := w.(http.Hijacker).Hijack(); err == nil {
				broke = true
				conn.Close()
			}
		}))
		defer server.Close()
		c, err := New(Config{AppID: "1450000000", AppKey: "test-pay-key", Gateway: Sandbox().At(server.URL), MaxRetries: -1})
		require.NoError(t, err)
		place := func() (handled int, err error) {
			mu.Lock()
			before := len(callers)
			mu.Unlock()
			player := Player{Login: QQ, OpenID: "o", OpenKey: "k", PF: "p", PFKey: "k"}
			err = c.Call(t.Context(), Call{API: "/mpay/pay_m", Player: player, SendOnce: once}, nil)
			mu.Lock()
			defer mu.Unlock()
			return len(callers) - before, err
		}
		handled := 0
		for tries := 0; !broke; tries++ {
			require.NoError(t, err)
			require.Less(t, tries, 10, "no connection is kept")
			handled, err = place()
		}
		if !once {
			require.NoError(t, err)
			require.Equal(t, 2, handled, "one call, handled twice")
			continue
		}
		require.ErrorContains(t, err, "midas: pay_m: no answer")
		require.NotErrorIs(t, err, ErrNotSent)
		require.Equal(t, 1, handled)
		callers = nil
		for range 10 {
			_, err := place()
			require.NoError(t, err)
		}
		slices.Sort(callers)
		require.Less(t, len(slices.Compact(callers)), 5, "keep-alive stays")
	}
}

// Whoever moves money by a call has to know whether it may be made again.
func TestACallSaysWhetherAnythingWasSent(t *testing.T) {
	t.Parallel()
	refusesToDial := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("refused") }}
	hangsUp := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	defer hangsUp.Close()
	refuses := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"ret":1018}`) }))
	defer refuses.Close()
	once := httptest.NewUnstartedServer(nil) // hangs up on the first request, and is gone for the second
	once.Config.Handler = http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		once.Listener.Close()
		panic(http.ErrAbortHandler)
	})
	once.Start()
	defer once.Close()
	player := Player{Login: QQ, OpenID: "o", OpenKey: "k", PF: "p", PFKey: "k"}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, test := range []struct {
		what, url string
		ctx       context.Context
		player    Player
		unsent    bool
	}{
		{"nobody listens", "http://nobody.invalid", t.Context(), player, true},
		{"the context has ended", refuses.URL, ended, player, true},
		{"a field is wrong", refuses.URL, t.Context(), Player{}, true},
		{"the server hangs up", hangsUp.URL, t.Context(), player, false},
		{"Midas refuses", refuses.URL, t.Context(), player, false},
		{"only the second try finds nobody", once.URL, t.Context(), player, false},
	} {
		t.Run(test.what, func(t *testing.T) {
			cfg := Config{AppID: "1450000000", AppKey: "test-pay-key", Gateway: Sandbox().At(test.url), MaxRetries: 1, RetryDelay: time.Nanosecond}
			if test.what == "nobody listens" {
				cfg.HTTPClient = &http.Client{Transport: refusesToDial}
			}
			c, err := New(cfg)
			require.NoError(t, err)
			err = c.Call(test.ctx, Call{API: "/mpay/get_balance_m", Player: test.player}, nil)
			require.Error(t, err)
			require.Equal(t, test.unsent, errors.Is(err, ErrNotSent), "%v", err)
			require.Equal(t, 1, ReplyTo(err).Ret())
		})
	}
}

func TestAWrongCallIsRefusedByNameAndNotSent(t *testing.T) {
	t.Parallel()
	c, err := New(Config{AppID: "1450000000", AppKey: "test-pay-key", HTTPClient: &http.Client{Transport: roundTripper(func(*http.Request) (*http.Response, error) {
		return nil, errors.New("sent")
	})}})
	require.NoError(t, err)
	good := Call{API: "/mpay/get_balance_m", Player: Player{Login: QQ, OpenID: "o", OpenKey: "k", PF: "p", PFKey: "k"}}
	for want, change := range map[string]func(*Call){
		"API":             func(c *Call) { c.API = "" },
		"API (a query)":   func(c *Call) { c.API = "/mpay/x?a=1" },
		"SignedPath":      func(c *Call) { c.SignedPath = "mpay" },
		"OrgLoc":          func(c *Call) { c.OrgLoc = "https://x/mpay" },
		"Player.OpenKey":  func(c *Call) { c.Player.OpenKey = "" },
		`Params["appid"]`: func(c *Call) { c.Params = url.Values{"appid": {"1"}} },
		`Params["a b"]`:   func(c *Call) { c.Params = url.Values{"a b": {"1"}} },
	} {
		call := good
		change(&call)
		err := c.Call(t.Context(), call, nil)
		var field *FieldError
		require.ErrorAs(t, err, &field)
		require.Equal(t, strings.TrimSuffix(want, " (a query)"), field.Field)
		require.ErrorIs(t, err, ErrNotSent)
	}
	for _, answer := range []any{struct{}{}, (*struct{})(nil)} {
		err := c.Call(t.Context(), good, answer)
		require.ErrorContains(t, err, "midas: Call: answer: is neither nil nor a pointer")
		require.ErrorIs(t, err, ErrNotSent)
	}
	var none context.Context
	require.ErrorContains(t, c.Call(none, good, nil), "ctx: is nil")
}

// A call of another family has its own signed path; none of its values is shown.
func TestACallMayHavePathsOfItsOwn(t *testing.T) {
	t.Parallel()
	var got *http.Request
	c, err := New(Config{AppID: "1450000000", AppKey: "test-pay-key", Now: func() time.Time { return time.Unix(1516080285, 0) },
		HTTPClient: &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			got = r
			return &http.Response{StatusCode: 200, Body: io.NopCloser(strings.NewReader(`{"ret":1001,"msg":"no such bill my bill of today"}`)), Request: r}, nil
		})}})
	require.NoError(t, err)
	err = c.Call(t.Context(), Call{
		API: "/mpay/cancel_pay_m", SignedPath: "/v9/x/cancel", OrgLoc: "/mpay/other",
		Player: Player{Login: WeChat, OpenID: "o", OpenKey: "k", PF: "p", PFKey: "k"}, Params: url.Values{"billno": {"my bill of today"}, "left_out": {}},
	}, nil)
	require.EqualError(t, err, `midas: cancel_pay_m: midas refused: ret 1001 (bad parameter: fix the request): "[withheld]"`)
	sent := got.URL.Query()
	sig := sent.Get("sig")
	require.Equal(t, "my bill of today", sent.Get("billno"))
	require.NotContains(t, sent, "left_out")
	require.Equal(t, "session_id=hy_gameid; session_type=wc_actoken; org_loc=%2Fmpay%2Fother", got.Header.Get("Cookie"))
	require.Equal(t, Sign("GET", "/v9/x/cancel", sent, "test-pay-key"), sig)
}

// Whatever else would be tried again is not, where a call moves money.
func TestACallThatIsSentOnceIsNotTriedAgain(t *testing.T) {
	t.Parallel()
	for what, answer := range map[string]http.HandlerFunc{
		"502":     func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(502) },
		"429":     func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(429) },
		"hang-up": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"half an answer": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			io.WriteString(w, "{")
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			var handled atomic.Int32
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				handled.Add(1)
				answer(w, r)
			}))
			defer server.Close()
			c, err := New(Config{AppID: "1450000000", AppKey: "test-pay-key", Gateway: Sandbox().At(server.URL), RetryDelay: time.Nanosecond})
			require.NoError(t, err)
			for _, once := range []bool{true, false} {
				handled.Store(0)
				err := c.Call(t.Context(), Call{API: "/mpay/pay_m", Player: Player{Login: QQ, OpenID: "o", OpenKey: "k", PF: "p", PFKey: "k"}, SendOnce: once}, nil)
				require.Error(t, err)
				require.NotErrorIs(t, err, ErrNotSent)
				require.Equal(t, map[bool]int32{true: 1, false: 3}[once], handled.Load())
			}
		})
	}
}

// Midas's "no" is a "no", though the context ended as it came: it tells what became of the call.
func TestARefusalAtTheLastMomentIsTold(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	c, err := New(Config{AppID: "1450000000", AppKey: "test-pay-key", HTTPClient: &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 200, Body: endingBody{strings.NewReader(`{"ret":1018}`), cancel}, Request: r}, nil
	})}})
	require.NoError(t, err)
	err = c.Call(ctx, Call{API: "/mpay/pay_m", Player: Player{Login: QQ, OpenID: "o", OpenKey: "k", PF: "p", PFKey: "k"}}, nil)
	require.Error(t, ctx.Err())
	require.ErrorIs(t, err, ErrLoginExpired)
}

// endingBody ends a context as it is closed.
type endingBody struct {
	io.Reader
	end func()
}

func (b endingBody) Close() error { b.end(); return nil }
