package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
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
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/cmd/midas/internal/report"
	"github.com/midas-go/midas/cmd/midas/internal/tap"
	"github.com/midas-go/midas/midastest"
	"github.com/midas-go/midas/minigame/minigametest"
	"github.com/stretchr/testify/require"
)

// A stage is a backend with a tap, and Tencent on the other side of it.
type stage struct {
	*testing.T
	orders, callbacks string // the tap's addresses
	midas             *midastest.Server
	wechat            *minigametest.Server

	mu      sync.Mutex
	time    time.Time
	answers []answer // of the backend, the next first; then OK
	buffer  bytes.Buffer

	recorded chan struct{} // one for each exchange
}

// An answer is one of the backend: after a time, or none at all.
type answer struct {
	after  time.Duration
	status int
	body   string
	break_ bool
}

const deliveryOK = `{"ret":0,"msg":"OK"}`

func (s *stage) now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.time = s.time.Add(time.Millisecond) // what comes later is later
	return s.time
}

func (s *stage) wait(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.time = s.time.Add(d)
}

func (s *stage) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buffer.Write(p)
}

// backend answers as it is told to.
func (s *stage) backend(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	a := answer{status: http.StatusOK, body: deliveryOK}
	if strings.Contains(r.URL.RawQuery, "nonce=") {
		a.body = `{"ErrCode":0,"ErrMsg":"Success"}`
	}
	if len(s.answers) > 0 {
		a, s.answers = s.answers[0], s.answers[1:]
	}
	s.time = s.time.Add(a.after)
	s.mu.Unlock()
	if a.break_ {
		panic(http.ErrAbortHandler)
	}
	w.WriteHeader(a.status)
	io.WriteString(w, a.body)
}

// A play is one variant of Tencent.
type play struct {
	mini   *minigametest.Config // nil: the older Midas
	leg    func(net.Listener) net.Listener
	keep   bool // secrets
	script func(*stage)
	want   map[string]string // the points that it decides, and how
}

// perform lets a play run through a tap and returns the recording.
func (p play) perform(t *testing.T) string {
	s := &stage{T: t, recorded: make(chan struct{}, 1000), time: time.Date(2026, 11, 28, 10, 0, 0, 0, time.UTC)}
	v := verifier{keys: []string{rawAppKey}}
	gateway := ""
	if p.mini == nil {
		s.midas = midastest.NewServer(midastest.Config{AppID: rawAppID, AppKey: rawAppKey, Now: s.now})
		t.Cleanup(s.midas.Close)
		gateway = s.midas.Gateway().BaseURL
	} else {
		cfg := *p.mini
		cfg.AppID, cfg.AppKey, cfg.SandboxAppKey, cfg.Token, cfg.Now = "wx0123456789abcdef", "live-app-key", "sandbox-app-key", "pushToken", s.now
		cfg.EncodingAESKey = "minigametest0123456789ABCDEFGHIJKLMNOPQRSTU"
		s.wechat = minigametest.NewServer(cfg)
		t.Cleanup(s.wechat.Close)
		gateway = s.wechat.GameConfig().BaseURL
		v = verifier{keys: []string{cfg.AppKey, cfg.SandboxAppKey}, tokens: []string{cfg.Token}, aesKeys: []string{cfg.EncodingAESKey}, appID: cfg.AppID}
	}
	backend := httptest.NewServer(http.HandlerFunc(s.backend))
	t.Cleanup(backend.Close)
	cfg := tap.Config{Recording: s, KeepSecrets: p.keep, Secret: mayBeSecret, Verdict: v.verdict, Now: s.now, Seen: func(*tap.Exchange) { s.recorded <- struct{}{} }}
	for _, leg := range []struct{ kind, to string }{{tap.Order, gateway}, {tap.Callback, backend.URL}} {
		to, err := url.Parse(leg.to)
		require.NoError(t, err)
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		addr := "http://" + listener.Addr().String()
		if leg.kind == tap.Order {
			s.orders = addr
		} else {
			s.callbacks = addr
			if p.leg != nil {
				listener = p.leg(listener)
			}
		}
		cfg.Legs = append(cfg.Legs, tap.Leg{Kind: leg.kind, Listener: listener, To: to})
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := tap.Run(ctx, cfg)
		ended <- err
	}()
	if s.midas != nil {
		s.midas.DeliverTo(s.callbacks + "/pay/notify")
	} else {
		s.wechat.PushTo(s.callbacks + "/push")
	}
	p.script(s)
	cancel()
	require.NoError(t, <-ended)
	return s.buffer.String()
}

// oneRequest is a client whose requests each have a connection of their own, so that what is
// recorded stands in the sequence in which it was sent.
var oneRequest = &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: anyServer}}

var anyServer = &tls.Config{InsecureSkipVerify: true} // a tap has a certificate of its own here

// send sends a request and returns the answer; header lines are "Name: value".
func (s *stage) send(client *http.Client, method, target, body string, header ...string) string {
	s.Helper()
	req, err := http.NewRequestWithContext(s.Context(), method, target, strings.NewReader(body))
	require.NoError(s, err)
	for _, line := range header {
		name, value, _ := strings.Cut(line, ": ")
		req.Header.Set(name, value)
	}
	resp, err := client.Do(req)
	<-s.recorded // so that the clock goes on after that, and what is sent next stands below
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	return string(text)
}

// order places an order as a backend does, with parameters changed, and returns its token.
func (s *stage) order(cookie string, change ...string) (token string) {
	s.Helper()
	params := rawOrder()
	for i := 0; i < len(change); i += 2 {
		params[change[i]] = change[i+1]
	}
	sig := rawSign(rawAppKey, "/v3/r/mpay/buy_goods_m", params, func(v string) string { return v })
	var answered struct{ Token string }
	text := s.send(oneRequest, "GET", rawOrderURL(s.orders, params, sig), "", "Cookie: session_id=openid; session_type=kp_actoken; org_loc="+cookie)
	require.NoError(s, json.Unmarshal([]byte(text), &answered), text)
	return answered.Token
}

// query returns the query of a callback.
func (s *stage) query(token string, options ...midastest.PayOption) string {
	s.Helper()
	query, err := s.midas.Callback(token, append([]midastest.PayOption{midastest.Param("decoy-to-delete", "")}, options...)...)
	require.NoError(s, err)
	// The same names each time: the decoy is for a play of its own.
	values, err := url.ParseQuery(query)
	require.NoError(s, err)
	for name := range values {
		if strings.HasSuffix(name, "bazinga") || name == "decoy-to-delete" || name == "sig" || values.Get(name) == "" {
			values.Del(name)
		}
	}
	values.Set("sig", midas.SignCallback("GET", "/pay/notify", values, rawAppKey))
	return strings.ReplaceAll(values.Encode(), "+", "%20")
}

// pay sends a callback.
func (s *stage) pay(query string, header ...string) {
	s.send(oneRequest, "GET", s.callbacks+"/pay/notify?"+query, "", header...)
}

const prefixed = "%2Fv3%2Fr%2Fmpay%2Fbuy_goods_m"

// appOrder is an order that does not go through the tap, so that a play is about its callback alone.
func (s *stage) appOrder() string {
	return s.midas.AppOrder(midas.OrderRequest{Player: midas.Player{OpenID: "o_PLAYER1234"}, Items: []midas.Item{{ID: "a", Price: midas.QPoint, Quantity: 1}}})
}

// repeated is a play in which a payment is called back again after an answer.
func repeated(a answer, point, when string, wait time.Duration) play {
	return play{script: func(s *stage) {
		s.answers = []answer{a}
		query := s.query(s.appOrder())
		s.pay(query)
		s.wait(wait)
		s.pay(query)
	}, want: map[string]string{"amount": "100 % of price times number", point: "yes; after the one before it began: " + when}}
}

// An at is a connection that seems to come from elsewhere.
type at struct {
	*net.TCPConn
	addr string
}

func (c at) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(c.addr)) }

type from struct {
	net.Listener
	addr string
}

func (l from) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return at{conn.(*net.TCPConn), l.addr}, nil
}

func comesFrom(addr string) func(net.Listener) net.Listener {
	return func(l net.Listener) net.Listener { return from{l, addr} }
}

// with adds to what a play decides.
func with(want map[string]string, more ...string) map[string]string {
	all := maps.Clone(want)
	for i := 0; i < len(more); i += 2 {
		all[more[i]] = more[i+1]
	}
	return all
}

var (
	paid      = map[string]string{"amount": "100 % of price times number"}
	placed    = map[string]string{"org-loc-prefix": "yes"}
	orderPaid = with(placed, "amount", "100 % of price times number", "zone", "as ordered")
)

// Midas in every variant.
var midasPlays = map[string]play{
	"nothing happens":          {script: func(*stage) {}, want: map[string]string{}},
	"org_loc with /v3/r":       {script: func(s *stage) { s.order(prefixed) }, want: placed},
	"org_loc without /v3/r":    {script: func(s *stage) { s.order("%2Fmpay%2Fbuy_goods_m") }, want: map[string]string{"org-loc-bare": "yes"}},
	"org_loc not encoded":      {script: func(s *stage) { s.order("/v3/r/mpay/buy_goods_m") }, want: with(placed, "org-loc-raw", "yes")},
	"a long pf":                {script: func(s *stage) { s.order(prefixed, "pf", strings.Repeat("x", 150)) }, want: with(placed, "pf-length", "yes: 150 bytes were taken")},
	"amt in Q-points":          {script: func(s *stage) { s.order(prefixed, "amt", "0.1") }, want: with(placed, "amt-sent", "taken in Q-points")},
	"parameters of some texts": {script: func(s *stage) { s.order(prefixed, "sp_info", "x", "my_secret_name", "y") }, want: with(placed, "order-names", "taken: sp_info")},
	"amt in tenths": {script: func(s *stage) {
		s.midas.NextOrders(midastest.Fault{Body: `{"ret":"0","token":"T","url_params":"/"}`})
		s.order(prefixed, "amt", "1")
	}, want: with(placed, "amt-sent", "taken in 0.1 Q-points")},
	"amt is neither": {script: func(s *stage) {
		s.midas.NextOrders(midastest.Fault{Body: `{"ret":"0","token":"T","url_params":"/"}`})
		s.order(prefixed, "amt", "1.9")
	}, want: placed},
	"an attach": {script: func(s *stage) {
		s.midas.NextOrders(midastest.Fault{Body: `{"ret":0,"token":"T","url_params":"/","attach":"hello"}`})
		s.order(prefixed)
	}, want: with(placed, "attach", "something of 5 bytes")},
	"an order is refused": {script: func(s *stage) {
		s.midas.NextOrders(midastest.Fault{Ret: 1018}, midastest.Fault{Status: 502}, midastest.Fault{Cut: true})
		s.order(prefixed)
		for range 2 {
			s.send(oneRequest, "GET", s.orders+"/mpay/buy_goods_m?x=1", "", "Cookie: org_loc="+prefixed)
		}
	}, want: map[string]string{}},

	"an order is paid":           {script: func(s *stage) { s.pay(s.query(s.order(prefixed))) }, want: orderPaid},
	"a role":                     {script: func(s *stage) { s.pay(s.query(s.order(prefixed, "zoneid", "1_77"))) }, want: with(orderPaid, "zone", "as ordered, with the role")},
	"the role is lost":           {script: func(s *stage) { s.pay(s.query(s.order(prefixed, "zoneid", "1_77"), midastest.Param("zoneid", "1"))) }, want: with(orderPaid, "zone", "otherwise: without the role of the order")},
	"another zone":               {script: func(s *stage) { s.pay(s.query(s.order(prefixed), midastest.Param("zoneid", "2"))) }, want: with(orderPaid, "zone", "otherwise: another than the order's")},
	"a payment of another order": {script: func(s *stage) { s.order(prefixed); s.pay(s.query(s.appOrder())) }, want: with(placed, "amount", "100 % of price times number")},
	"items in their sequence": {script: func(s *stage) { s.pay(s.query(s.order(prefixed, "payitem", "b*1*1;a*2*1"))) },
		want: with(orderPaid, "item-sequence", "in the sequence of the order")},
	"items in another sequence": {script: func(s *stage) {
		s.pay(s.query(s.order(prefixed, "payitem", "b*1*1;a*2*1"), midastest.Param("payitem", "a*2*1;b*1*1")))
	}, want: with(orderPaid, "item-sequence", "in another sequence")},
	"other items": {script: func(s *stage) {
		s.pay(s.query(s.order(prefixed, "payitem", "b*1*1;a*2*1"), midastest.Param("payitem", "b*3*1")))
	}, want: with(orderPaid, "item-sequence", "not the same items")},
	"a discount":       {script: func(s *stage) { s.pay(s.query(s.appOrder(), midastest.Param("amt", "8"))) }, want: map[string]string{"amount": "80 % of price times number"}},
	"the decoy":        {script: func(s *stage) { s.pay(s.resigned(s.query(s.appOrder()), "qbazinga", "1")) }, want: with(paid, "decoy", "qbazinga")},
	"empty parameters": {script: func(s *stage) { s.pay(s.resigned(s.query(s.appOrder()), "giftcoins", "")) }, want: with(paid, "empty", "signed as empty: giftcoins")},
	"a new name":       {script: func(s *stage) { s.pay(s.resigned(s.query(s.appOrder()), "wx_number", "1")) }, want: with(paid, "new-names", "wx_number")},
	"a bare + is a space": {script: func(s *stage) {
		s.pay(strings.Replace(s.resigned(s.query(s.appOrder()), "appmeta", "a b*x*y"), "a%20b", "a+b", 1))
	}, want: with(paid, "plus", "a space")},
	"a bare + is itself": {script: func(s *stage) {
		s.pay(strings.Replace(s.resigned(s.query(s.appOrder()), "appmeta", "a+b*x*y"), "a%2Bb", "a+b", 1))
	}, want: with(paid, "plus", "a plus")},
	"a bare + in the sig alone": {script: func(s *stage) {
		for query := ""; ; {
			if query = s.query(s.appOrder()); strings.Contains(query, "%2B") {
				s.pay(strings.ReplaceAll(query, "%2B", "+"))
				return
			}
		}
	}, want: paid},
	"cee_extend is not signed": {script: func(s *stage) { s.pay(s.query(s.appOrder()) + "&cee_extend=x") }, want: with(paid, "cee-extend", "no")},
	"cee_extend is signed": {script: func(s *stage) {
		values, _ := url.ParseQuery(s.query(s.appOrder()) + "&cee_extend=x")
		values.Del("sig")
		params := map[string]string{}
		for name := range values {
			params[name] = values.Get(name)
		}
		values.Set("sig", rawSign(rawAppKey, "/pay/notify", params, func(v string) string { return percent(v, "!*()") }))
		s.pay(values.Encode())
	}, want: with(paid, "cee-extend", "yes")},
	"an escaped path is signed as it is": {script: func(s *stage) { s.payTo("/pay%2Fnotify", "GET", "/pay%2Fnotify") }, want: with(paid, "escaped-path", "as it is written")},
	"an escaped path is decoded":         {script: func(s *stage) { s.payTo("/pay%2Fnotify", "GET", "/pay/notify") }, want: with(paid, "escaped-path", "decoded")},
	"a callback by POST":                 {script: func(s *stage) { s.payTo("/pay/notify", "POST", "/pay/notify") }, want: with(paid, "post", "yes")},
	"a callback by POST that is a forgery": {script: func(s *stage) {
		s.send(oneRequest, "POST", s.callbacks+"/pay/notify", s.query(s.appOrder()), "Content-Type: application/x-www-form-urlencoded")
	}, want: map[string]string{}},
	"an order by POST": {script: func(s *stage) {
		token := s.appOrder()
		s.midas.NextOrders(midastest.Fault{Body: `{"ret":0,"token":"` + token + `","url_params":"/"}`})
		s.send(oneRequest, "POST", s.orders+"/mpay/buy_goods_m", "zoneid=1&payitem=a*1*1", "Content-Type: application/x-www-form-urlencoded")
		s.pay(s.resigned(s.query(token), "zoneid", "1"))
	}, want: with(paid, "order-by-post", "a callback by GET", "zone", "as ordered")},

	"a token lives for long": {script: func(s *stage) {
		token := s.order(prefixed)
		s.wait(6 * time.Minute)
		s.pay(s.query(token, midastest.ExpiredToken()))
	}, want: orderPaid}, // what came before may not have arrived
	"a token lives for very long": {script: func(s *stage) {
		token := s.order(prefixed)
		s.wait(time.Hour)
		s.pay(s.query(token, midastest.ExpiredToken()))
	}, want: orderPaid},
	"a payment is made in time and repeated late": {script: func(s *stage) {
		query := s.query(s.order(prefixed))
		s.pay(query)
		s.wait(time.Hour)
		s.pay(query)
	}, want: with(orderPaid, "repeat-ret0", "yes; after the one before it began: 1h0m0s")},
	"a payment is made in time and called back late": {script: func(s *stage) {
		query := s.query(s.order(prefixed))
		s.wait(time.Hour)
		s.pay(query)
	}, want: orderPaid},

	"a repeat after OK":      repeated(answer{status: 200, body: deliveryOK}, "repeat-ret0", "15s", 15*time.Second),
	"a repeat after ret 1":   repeated(answer{status: 200, body: `{"ret":1,"msg":"system_busy"}`}, "repeat-ret1", "30s", 30*time.Second),
	"a repeat after ret 2":   repeated(answer{status: 200, body: `{"ret":2,"msg":"token_expired"}`}, "repeat-ret2", "5s", 5*time.Second),
	"a repeat after ret 3":   repeated(answer{status: 200, body: `{"ret":3,"msg":"token_not_found"}`}, "repeat-ret3", "5s", 5*time.Second),
	"a repeat after ret 4":   repeated(answer{status: 200, body: `{"ret":4,"msg":"bad_parameter:amt"}`}, "repeat-ret4", "1h0m0s", time.Hour),
	"a repeat after 3 s":     repeated(answer{after: 3 * time.Second, status: 200, body: deliveryOK}, "repeat-late", "8s", 5*time.Second),
	"a repeat after silence": repeated(answer{after: 3 * time.Second, break_: true}, "repeat-late", "8s", 5*time.Second),
	"a repeat after a 502":   repeated(answer{status: 502}, "repeat-broken", "5s", 5*time.Second),
	"a repeat after a break": repeated(answer{break_: true}, "repeat-broken", "5s", 5*time.Second),
	"a repeat after a line":  repeated(answer{status: 200, body: deliveryOK + "\n"}, "repeat-broken", "5s", 5*time.Second),
	"no repeat after a ret 1": {script: func(s *stage) {
		s.answers = []answer{{status: 200, body: `{"ret":1,"msg":"x"}`}}
		s.pay(s.query(s.appOrder()))
		s.wait(time.Hour)
		s.pay(s.query(s.appOrder()))
	}, want: paid},
	"a replay is no repeat": {script: func(s *stage) {
		query := s.query(s.appOrder())
		s.pay(query, "User-Agent: Midas")
		s.wait(time.Hour)
		s.pay(query)
	}, want: paid},
	"the command's own callback": {script: func(s *stage) { s.pay(s.query(s.appOrder()), "User-Agent: "+report.OwnAgent) }, want: map[string]string{}},
	"several repeats": {script: func(s *stage) {
		busy := answer{status: 200, body: `{"ret":1,"msg":"system_busy"}`}
		s.answers = []answer{busy, busy, busy}
		query := s.query(s.appOrder())
		for _, d := range []time.Duration{15 * time.Second, time.Minute, time.Hour, 0} {
			s.pay(query)
			s.wait(d)
		}
	}, want: with(paid, "repeat-ret1", "yes; after the one before it began: 15s, 1m0s, 1h0m0s")},

	"from an address of IPv4": secured("203.0.113.7:4711", func(s *stage) { s.pay(s.query(s.appOrder())) },
		with(closing, "address-family", "IPv4")),
	"from an address of IPv6": secured("[2001:db8::7]:4711", func(s *stage) { s.pay(s.query(s.appOrder())) },
		with(closing, "address-family", "IPv6")),
	"from a cloud's own address":                        secured("100.64.0.7:4711", func(s *stage) { s.pay(s.query(s.appOrder())) }, closing),
	"through what may be a proxy that took off the TLS": {leg: comesFrom("203.0.113.7:4711"), script: func(s *stage) { s.pay(s.query(s.appOrder())) }, want: paid},
	"HTTP/1.0": secured("203.0.113.7:4711", func(s *stage) {
		conn, err := tls.Dial("tcp", strings.TrimPrefix(s.callbacks, "https://"), anyServer)
		require.NoError(s, err)
		defer conn.Close()
		fmt.Fprintf(conn, "GET /pay/notify?%s HTTP/1.0\r\n\r\n", s.query(s.appOrder()))
		io.Copy(io.Discard, conn)
	}, with(closing, "address-family", "IPv4", "http-version", "HTTP/1.0")),
	"through a proxy": secured("203.0.113.7:4711", func(s *stage) { s.pay(s.query(s.appOrder()), "X-Forwarded-For: 198.51.100.1") }, paid),
	"two callbacks on a connection": secured("203.0.113.7:4711", func(s *stage) {
		conn, err := tls.Dial("tcp", strings.TrimPrefix(s.callbacks, "https://"), anyServer) // net/http does not keep every connection that it could
		require.NoError(s, err)
		defer conn.Close()
		answers := bufio.NewReader(conn)
		for range 2 {
			fmt.Fprintf(conn, "GET /pay/notify?%s HTTP/1.1\r\nHost: game.example.com\r\n\r\n", s.query(s.appOrder()))
			resp, err := http.ReadResponse(answers, nil)
			require.NoError(s, err)
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			<-s.recorded
		}
	}, with(closing, "address-family", "IPv4", "keep-alive", "yes")),
	"one callback on a connection that is kept": secured("203.0.113.7:4711", func(s *stage) {
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: anyServer}}
		s.send(client, "GET", s.callbacks+"/pay/notify?"+s.query(s.appOrder()), "")
		client.CloseIdleConnections()
	}, with(paid, "address-family", "IPv4", "http-version", "HTTP/1.1", "tls", "TLS 1.3")),
	"TLS 1.3": overTLS(tls.VersionTLS13, "TLS 1.3"),
	"TLS 1.2": overTLS(tls.VersionTLS12, "TLS 1.2"),
	"TLS 1.0": overTLS(tls.VersionTLS10, "TLS 1.0"),
}

var closing = with(paid, "tls", "TLS 1.3", "http-version", "HTTP/1.1", "keep-alive", "no: it asks for the end of the connection")

// certified has TLS on a leg.
func certified(leg func(net.Listener) net.Listener) func(net.Listener) net.Listener {
	return func(l net.Listener) net.Listener {
		server := httptest.NewUnstartedServer(nil)
		server.StartTLS()
		defer server.Close()
		return tls.NewListener(leg(l), anyTLS(server.TLS.Certificates[0]))
	}
}

// secured is a play whose callbacks come over TLS from an address.
func secured(addr string, script func(*stage), want map[string]string) play {
	return play{leg: certified(comesFrom(addr)), want: want, script: func(s *stage) {
		s.callbacks = strings.Replace(s.callbacks, "http:", "https:", 1)
		script(s)
	}}
}

// overTLS is a caller that has no newer TLS, and of 1.0 only what servers take no more. It comes out of a tunnel.
func overTLS(version uint16, name string) play {
	return secured("127.0.0.1:4711", func(s *stage) {
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{
			InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: version, // it plays a caller of long ago
			CipherSuites: map[uint16][]uint16{tls.VersionTLS10: {tls.TLS_RSA_WITH_AES_128_CBC_SHA}}[version],
		}}}
		s.send(client, "GET", s.callbacks+"/pay/notify?"+s.query(s.appOrder()), "")
	}, with(closing, "tls", name))
}

// resigned returns a query with a parameter more, or another one.
func (s *stage) resigned(query, name, value string) string {
	values, err := url.ParseQuery(query)
	require.NoError(s, err)
	values.Set(name, value)
	values.Set("sig", midas.SignCallback("GET", "/pay/notify", values, rawAppKey))
	return strings.ReplaceAll(values.Encode(), "+", "%20")
}

// payTo sends a callback to a path by a method, signed for that method and a path.
func (s *stage) payTo(path, method, signed string) {
	values, err := url.ParseQuery(s.query(s.appOrder()))
	require.NoError(s, err)
	values.Set("sig", midas.SignCallback(method, signed, values, rawAppKey))
	if method == "POST" {
		s.send(oneRequest, method, s.callbacks+path, values.Encode(), "Content-Type: application/x-www-form-urlencoded")
		return
	}
	s.send(oneRequest, method, s.callbacks+path+"?"+values.Encode(), "")
}

// decided returns the points that a recording decides, and how.
func decided(t *testing.T, recording string) map[string]string {
	t.Helper()
	sheet, err := report.Make(strings.NewReader(recording), tap.Masking(mayBeSecret))
	require.NoError(t, err)
	got := map[string]string{}
	for _, p := range sheet.Points {
		require.Equal(t, p.Decided, len(p.Lines) > 0, p.ID)
		require.Equal(t, p.Decided, len(p.Answers) > 0, p.ID)
		var answers []string
		for _, a := range p.Answers {
			answers = append(answers, a.In("en"))
			require.NotEmpty(t, a.In("zh"))
		}
		if p.Decided {
			got[p.ID] = strings.Join(answers, "; ")
		}
	}
	return got
}

func TestTheSheetNamesWhatMidasDoes(t *testing.T) {
	t.Parallel()
	for name, p := range midasPlays {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			recording := p.perform(t)
			require.Equal(t, p.want, decided(t, recording), recording)
			decidesNothingWithoutProof(t, recording)
		})
	}
}

func TestTheSheetOfMidasHoldsNoSecretThatTheRecordingHolds(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"an order is paid", "an order is refused", "several repeats", "a callback by POST", "TLS 1.0"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := midasPlays[name]
			p.keep = true
			recording := p.perform(t)
			require.Equal(t, p.want, decided(t, recording), recording)
			holdsNoSecret(t, recording)
		})
	}
}

// edited returns a recording in which something was changed in each line.
func edited(t *testing.T, recording string, change func(map[string]any)) string {
	t.Helper()
	var out strings.Builder
	for line := range strings.Lines(recording) {
		var fields map[string]any
		require.NoError(t, json.Unmarshal([]byte(line), &fields))
		change(fields)
		text, err := json.Marshal(fields)
		require.NoError(t, err)
		out.Write(append(text, '\n'))
	}
	return out.String()
}

// decidesNothingWithoutProof makes forgeries of the callbacks and pushes of a recording, and refusals
// of its orders: then it may decide nothing any more.
func decidesNothingWithoutProof(t *testing.T, recording string) {
	t.Helper()
	forged := edited(t, recording, func(e map[string]any) {
		if delete(e, "verdict"); fmt.Sprint(e["kind"]) == tap.Callback {
			e["verdict"] = map[string]any{"ok": false, "en": "no", "zh": "no"}
		}
	})
	byAnswer := map[string]bool{"pf-length": true, "amt-sent": true, "order-names": true, "attach": true,
		"mini-user-ip": true, "mini-return-codes": true, "xpay-pay-sig": true, "xpay-part-refund": true}
	for id := range decided(t, forged) {
		require.True(t, byAnswer[id], id)
	}
	require.Empty(t, decided(t, edited(t, forged, func(e map[string]any) {
		if answer, ok := e["answer"].(map[string]any); ok {
			answer["body"] = `{"ret":1001,"errcode":90011,"msg":"x","order":{}}`
			if strings.Contains(fmt.Sprint(e["url"]), "cancelpay") { // each of its codes is an answer
				delete(e, "answer")
			}
		}
	})))
}

// What is secret in a request or an answer, by its name.
var secretValue = regexp.MustCompile(`(?i)(?:openid|openkey|pfkey|sig|access_token|signature|PayEventSig|fromusername|Cookie)\\{0,3}"?\s?[=:]\s?\\{0,3}"?([A-Za-z0-9_%+/=.-]{6,})`)

// holdsNoSecret prints the sheet of a recording, which may hold secrets, in every way.
func holdsNoSecret(t *testing.T, recording string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "tap.jsonl")
	require.NoError(t, os.WriteFile(file, []byte(recording), 0o600))
	secrets := secretValue.FindAllStringSubmatch(recording, -1)
	require.NotEmpty(t, secrets)
	for _, args := range [][]string{{"-lang", "en"}, {"-lang", "zh"}, {"-json"}} {
		code, sheet, stderr := runWith(t, "", nil, append(append([]string{"tap", "report"}, args...), file)...)
		require.Equal(t, exitOK, code, stderr)
		for _, found := range secrets {
			require.NotContains(t, sheet, found[1], found[0])
		}
		for _, word := range []string{"TESTopenid", "PLAYER1234", "OPENKEY", "PFKEY", "ACCESSTOKEN1", "my_secret_name", rawAppKey, "APPDJ"} {
			require.NotContains(t, sheet, word)
		}
	}
}

// Where a line is missing, what came first and what was answered before is not known.
func TestARecordingWithAGapDecidesNoRepeat(t *testing.T) {
	t.Parallel()
	recording := midasPlays["several repeats"].perform(t)
	lines := strings.SplitAfter(recording, "\n")
	require.Len(t, lines, 5)
	require.NotEmpty(t, decided(t, lines[0]+lines[1])["repeat-ret1"])
	require.NotEmpty(t, decided(t, recording+`{"seq":5,"time":"2026-11`)["repeat-ret1"], "tap was killed")
	require.Empty(t, decided(t, lines[0]+lines[2])["repeat-ret1"])
	require.Empty(t, decided(t, lines[1]+lines[2])["repeat-ret1"])
}

func TestTheSheetCountsWhereTheBackendDiffers(t *testing.T) {
	t.Parallel()
	p := play{script: func(s *stage) {
		s.answers = []answer{{status: 200, body: deliveryOK}, {status: 200, body: `{"ret":1,"msg":"x"}`}, {status: 200, body: deliveryOK}, {status: 200, body: deliveryOK}}
		s.pay(s.query(s.appOrder()))
		s.pay(s.query(s.appOrder()))
		for range 2 {
			s.pay(s.query(s.appOrder(), midastest.Tampered("amt", "1")) + "&x=1")
		}
		s.answers = []answer{{status: 404}, {status: 404}}
		s.send(oneRequest, "GET", s.callbacks+"/favicon.ico", "") // on which everybody agrees
		s.send(oneRequest, "GET", s.callbacks+"/pay/notify?hello=1", "")
	}}
	file := filepath.Join(t.TempDir(), "tap.jsonl")
	require.NoError(t, os.WriteFile(file, []byte(p.perform(t)), 0o600))
	_, sheet, _ := runWith(t, "", nil, "tap", "report", file)
	require.Contains(t, sheet, "inward     4 callbacks, 0 pushes; 2 verified with the keys that tap had: only these count\n")
	require.Contains(t, sheet, "\n1 callbacks with the same verdict, 1 of them verified; 3 with another\n"+
		"     2  the signature does not match: check the pay key, its environment, and the path that is signed  YOUR BACKEND ANSWERED OK\n"+
		"     1  verified  YOUR BACKEND DID NOT ANSWER OK\n")
	_, sheet, _ = runWith(t, "", map[string]string{"LANG": "zh_CN.UTF-8"}, "tap", "report", file)
	require.Contains(t, sheet, "\n1 个回调结论一致，其中 1 个验签通过；3 个不一致\n     2  签名不一致")
	require.Contains(t, sheet, "  amount (5)  amt 是标价的多少？\n    单价乘数量的 100 %\n    记录里的 seq：1, 2\n")
}

func TestReportRefusesWrongUsage(t *testing.T) {
	t.Parallel()
	other := filepath.Join(t.TempDir(), "other")
	require.NoError(t, os.WriteFile(other, []byte("GET /pay/notify?sig=x 200\n"), 0o600))
	for name, c := range map[string]struct {
		args []string
		code int
		want string
	}{
		"no file":            {nil, exitUsage, "'midas tap report -h'"},
		"two files":          {[]string{other, other}, exitUsage, "name the recording"},
		"a file that is not": {[]string{"/nowhere"}, exitFailed, "/nowhere"},
		"another file":       {[]string{other}, exitFailed, "is no recording"},
		"a flag":             {[]string{"-x"}, exitUsage, "-x"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, _, stderr := runWith(t, "", nil, append([]string{"tap", "report"}, c.args...)...)
			require.Equal(t, c.code, code)
			require.Contains(t, stderr, c.want)
		})
	}
}
