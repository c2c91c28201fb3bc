package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/cmd/midas/internal/explain"
	"github.com/midas-go/midas/cmd/midas/internal/lang"
	"github.com/midas-go/midas/midastest"
)

// The demo app, for a start without flags. Its key is no secret.
const (
	demoAppID  = "1450000000"
	demoAppKey = "midastest-demo-key"
	demoPath   = "/pay/notify"
)

// Where orders go, and what stands before that in the signed path of YSDK (protocol.md 2).
const (
	orderPath  = "/mpay/buy_goods_m"
	ysdkPrefix = "/v3/r"
)

// faultAskedFor is what midastest says of an answer that was set with /api/next.
const faultAskedFor = "a fault was asked for"

// How much is kept.
const (
	maxKept      = 3000     // orders and callbacks
	maxKeptBytes = 32 << 20 // of all of them, as exchange.size counts
	maxReply     = 4 << 10  // bytes of an answer
	maxFaults    = 100      // for orders to come
)

// maxSearched is how long an order may be for its mistakes to be searched for: the search takes
// time, and orders are mostly a quarter of that.
const maxSearched = 4 << 10

func runSandbox(ctx context.Context, args []string, t *terminal) int {
	const name = "sandbox"
	flags := newFlags(name)
	keys := newKeyFlags(flags, "app-key")
	appID := flags.String("app-id", "", "")
	callback := flags.String("callback", "", "")
	path := flags.String("path", "", "")
	addr := flags.String("addr", "127.0.0.1:9100", "")
	hosts := repeatable(flags, "host")
	record := flags.String("record", "", "")
	secrets := flags.Bool("secrets", false, "")
	strict := flags.Bool("strict", false, "")
	if code, ok := t.parse(flags, args); !ok {
		return code
	}
	appKey := demoAppKey
	if *appID == "" && !keys.given(t) {
		*appID = demoAppID
	} else {
		key, err := keys.one(t)
		if t.refused(name, when(*appID == "", lang.T("sandbox.no-app-id", keyVariable)), err) {
			return exitUsage
		}
		appKey = key
	}
	cfg := midas.Config{AppID: *appID, AppKey: appKey}
	wrongID := wrongConfig(cfg) // the key was checked before
	cfg.DeliveryPath = *path
	wrongURL := checkDeliveryURL(cmp.Or(*callback, "http://127.0.0.1"+demoPath))
	if t.refused(name, when(flags.NArg() > 0, lang.T("sandbox.no-arguments", flags.Arg(0))), flagError("-app-id", wrongID), flagError("-path", wrongConfig(cfg)), flagError("-callback", wrongURL)) {
		return exitUsage
	}

	s := newSandbox(settings{
		appID: *appID, appKey: appKey, callback: *callback, path: *path, strict: *strict, secrets: *secrets, lang: t.lang,
	})
	recorded := io.Discard
	if *record != "" {
		file, err := openRecord(*record)
		if err != nil {
			return t.failed(name, flagError("-record", err))
		}
		defer file.Close()
		recorded = file
	}
	listener, err := net.Listen("tcp", *addr)
	if err != nil {
		if errors.Is(err, syscall.EADDRINUSE) {
			err = lang.T("sandbox.addr-in-use", *addr)
		}
		return t.failed(name, flagError("-addr", err))
	}
	bound := listener.Addr().(*net.TCPAddr).AddrPort()
	bound = netip.AddrPortFrom(bound.Addr().Unmap(), bound.Port())
	base := s.welcome(t, bound)
	s.seen = func(e exchange) {
		line := e.summary(s.lang, base, s.appID)
		if e.ForgeryTaken() {
			line = t.paint(explain.Red, line)
		}
		fmt.Fprintf(t.out, "%s  %s\n", e.Time.Format(time.TimeOnly), line)
		if err := writeRecord(recorded, e); err != nil {
			t.failed(name, flagError("-record", err))
		}
	}

	server := &http.Server{
		Handler:           s.handler(bound.Addr(), *hosts),
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       time.Minute,
		WriteTimeout:      maxDelay + 10*time.Second,
		MaxHeaderBytes:    explain.MaxQuery,                                  // which an order is; net/http adds 4 KiB
		BaseContext:       func(net.Listener) context.Context { return ctx }, // live pages end with it
	}
	stopped := context.AfterFunc(ctx, func() { server.Close() })
	defer stopped()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return t.failed(name, err)
	}
	return exitOK
}

// welcome prints what a backend needs to know, and returns its base URL.
func (s *sandbox) welcome(t *terminal, addr netip.AddrPort) (base string) {
	reach := t.say("sandbox.this-machine")
	if !addr.Addr().IsLoopback() {
		reach = t.paint(explain.Red, t.say("sandbox.other-machines"))
	}
	if addr.Addr().IsUnspecified() {
		addr = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), addr.Port())
	}
	base = "http://" + addr.String()
	// A key that was given is no demo's, and is printed nowhere.
	key, pasted, callback, order := t.say("sandbox.key-given"), `"$MIDAS_APP_KEY"`, s.callback, t.say("sandbox.from-backend")
	if s.appKey == demoAppKey {
		key, pasted = demoAppKey, demoAppKey
	}
	if callback == "" {
		callback, order = t.say("sandbox.built-in"), s.curl(base)
	}
	fmt.Fprintln(t.out, t.say("sandbox.welcome", lang.Raw(t.paint(explain.Bold, t.say("page.sandbox"))), base, lang.Raw(reach), ysdkPrefix+orderPath, s.appID, key, callback, s.path, order, pasted))
	return base
}

// curl returns a command that places an order. It is for the built-in backend alone: another
// one would be called back for an order that it never placed.
func (s *sandbox) curl(base string) string {
	params := url.Values{
		"openid": {"o_TESTopenid"}, "openkey": {"test-openkey"}, "appid": {s.appID}, "ts": {strconv.FormatInt(time.Now().Unix(), 10)},
		"pf": {"qq_m_qq-2001-android-2011-test"}, "pfkey": {"test-pfkey"}, "zoneid": {"1"}, "payitem": {"sword*60*1"},
		"goodsmeta": {"屠龙刀*一把好刀"}, "goodsurl": {""}, "app_metadata": {"order-1"}, "appmode": {"1"}, "format": {"json"},
	}
	params.Set("sig", midas.Sign(http.MethodGet, ysdkPrefix+orderPath, params, s.appKey))
	return "curl -b 'session_id=openid; session_type=kp_actoken; org_loc=%2Fv3%2Fr%2Fmpay%2Fbuy_goods_m' '" +
		base + orderPath + "?" + encodeQuery(params) + "'"
}

// checkHost refuses calls under a name that is not this server's: a page on the web could
// make its own name resolve to this machine (DNS rebinding) and then read and press
// everything here.
func checkHost(next http.Handler, listen netip.Addr, hosts []string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if name, _, err := net.SplitHostPort(host); err == nil {
			host = name
		}
		host = strings.ToLower(strings.Trim(host, "[]"))
		ip, err := netip.ParseAddr(host)
		isAddress := err == nil && (ip.IsLoopback() || ip == listen || listen.IsUnspecified())
		isName := host == "localhost" || slices.ContainsFunc(hosts, func(h string) bool { return strings.EqualFold(h, host) })
		if !isAddress && !isName {
			writeError(w, r, lang.T("api.other-host", r.Host))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// settings are what the flags say.
type settings struct {
	appID, appKey   string
	callback        string // delivery URL; "" for a built-in backend that accepts every right callback
	path            string // that callbacks are signed for; "" for the delivery URL's
	strict, secrets bool
	lang            string // of the terminal
}

// A sandbox is a Midas with pages, and what it has seen.
type sandbox struct {
	settings
	midas    *midastest.Server
	now      func() time.Time
	bodyTime time.Duration  // that a caller has for a body
	start    string         // another one each time it is started
	seen     func(exchange) // told of every exchange, one after another

	adding sync.Mutex // is held while seen is told; mu is not, so that a slow disk or terminal holds up no page

	mu        sync.Mutex
	seq       int               // of the last exchange
	exchanges []*exchange       // the last ones, oldest first, their numbers without a gap; never changed
	size      int               // of exchanges, in bytes
	faults    []midastest.Fault // of the next orders
	changed   chan struct{}     // closed at the next exchange
}

func newSandbox(cfg settings) *sandbox {
	s := &sandbox{
		settings: cfg, now: time.Now, bodyTime: 5 * time.Second, start: rand.Text(),
		changed: make(chan struct{}), seen: func(exchange) {},
	}
	s.midas = midastest.New(midastest.Config{
		AppID: s.appID, AppKey: s.appKey, Strict: s.strict, Now: func() time.Time { return s.now() },
		OnOrder: func(a midastest.OrderAttempt) { s.ordered(orderPath+"?", a) },
	})
	if s.callback == "" {
		s.path = cmp.Or(s.path, demoPath)
		client, err := midas.New(midas.Config{AppID: s.appID, AppKey: s.appKey, DeliveryPath: s.path})
		if err != nil {
			panic(err) // the settings were checked before
		}
		s.midas.DeliverToHandler(client.DeliveryHandler(func(context.Context, *midas.Delivery) error { return nil }), s.path)
		return s
	}
	s.midas.DeliverTo(s.callback)
	u, _ := url.Parse(s.callback) // checked before
	s.path = cmp.Or(s.path, u.Path)
	return s
}

// ordered keeps what came of a request for an order. In its URL before comes before the query,
// a "?" included.
func (s *sandbox) ordered(before string, a midastest.OrderAttempt) {
	m := &explain.Message{Kind: explain.Request, RawQuery: a.RawQuery}
	e := exchange{
		Time: a.Time, Kind: "order", Token: a.Token, URL: before + a.RawQuery, Params: m.Params(), Status: a.Status,
		Reply: a.Body, Accepted: a.Problem == "", Reason: a.Problem, Notes: a.Notes, OK: a.Problem == "", Preset: a.Problem == faultAskedFor,
	}
	for _, c := range a.Cookies {
		e.Cookies = append(e.Cookies, param{Name: c.Name, Value: c.Value})
	}
	options := explain.Options{Keys: []string{s.appKey}, Path: ysdkPrefix + orderPath, Mask: mask}
	if s.secrets {
		options.Mask = nil
	}
	if a.BaseString != "" { // the signature is the problem
		e.BaseString = m.BaseString(options.Path, s.appKey, options.Mask)
		if len(a.RawQuery) <= maxSearched {
			if found, err := m.Explain(options); err == nil {
				e.Mistakes = found.Signatures[0].Findings
			}
		}
	}
	if !s.secrets {
		e.mask(before, a.RawQuery)
	}
	e.setReply([]byte(e.Reply))
	s.add(e)
}

// called keeps a callback of an order.
func (s *sandbox) called(order *exchange, e exchange) exchange {
	e.Token = order.Token
	if _, query, ok := strings.Cut(e.URL, "?"); ok {
		m := &explain.Message{Kind: explain.Callback, RawQuery: query}
		e.Params, e.BaseString = m.Params(), m.BaseString(s.path, s.appKey, nil)
	}
	return s.add(e)
}

// add numbers an exchange, keeps it, and tells the live pages and seen.
func (s *sandbox) add(e exchange) exchange {
	s.adding.Lock()
	defer s.adding.Unlock()
	s.mu.Lock()
	s.seq++
	e.Seq = s.seq
	s.exchanges = append(s.exchanges, &e)
	s.size += e.size()
	for len(s.exchanges) > maxKept || s.size > maxKeptBytes && len(s.exchanges) > 1 {
		oldest := s.exchanges[0]
		s.exchanges[0] = nil // the array behind the slice would keep it
		s.exchanges = s.exchanges[1:]
		s.size -= oldest.size()
		if oldest.Kind == "order" {
			s.midas.Forget(oldest.Token)
		}
	}
	close(s.changed)
	s.changed = make(chan struct{})
	s.mu.Unlock()
	s.seen(e)
	return e
}

// after returns the oldest exchange kept after seq, or nil, and a channel that is closed when
// there are more.
func (s *sandbox) after(seq int) (e *exchange, changed <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if seq >= s.seq {
		return nil, s.changed
	}
	// It may be any number, and the difference below must not wrap around.
	seq = max(seq, 0)
	first := s.seq - len(s.exchanges) + 1 // numbers have no gap
	return s.exchanges[max(seq+1-first, 0)], s.changed
}

// newest returns the number of the last exchange, 0 if there was none yet.
func (s *sandbox) newest() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seq
}

// all returns the exchanges kept, oldest first.
func (s *sandbox) all() []*exchange {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.exchanges)
}

// last returns the last exchange of a token that is as wanted.
func (s *sandbox) last(token string, wanted func(*exchange) bool) (e *exchange, found bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range slices.Backward(s.exchanges) {
		if e.Token == token && wanted(e) {
			return e, true
		}
	}
	return nil, false
}

// order returns the order with this token.
func (s *sandbox) order(token string) (order *exchange, found bool) {
	return s.last(token, func(e *exchange) bool { return e.Kind == "order" && e.Accepted })
}

// expiry returns when the token of an order expires.
func expiry(order *exchange) time.Time { return order.Time.Add(midas.TokenLifetime) }
