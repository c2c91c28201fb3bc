package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"flag"
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
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midastest"
)

// The demo app, for a start without flags. Its key is no secret.
const (
	demoAppID  = "1450000000"
	demoAppKey = "midastest-demo-key"
	demoPath   = "/pay/notify"
)

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

const sandboxAbout = `Usage: midas sandbox [-app-id ID -app-key KEY] [-callback http://127.0.0.1:8080/pay/notify] [flags]

Plays Midas on this machine, for a backend in any language: point its base URL here instead of at
https://ysdktest.qq.com. It takes orders as the YSDK sandbox does (signature, cookies, ret codes),
shows the cashier page at the url_params of an order, and calls your delivery URL when the player pays.
Without -app-id and -app-key it plays a demo app; without -callback a built-in backend answers.

Pages:
  /                                 dashboard: orders and callbacks, live
  /v1/…/mobile_goods_info?token_id=TOKEN   cashier: the url_params of an order

Midas:
  GET  /mpay/buy_goods_m            an order

JSON API (a body may be left out; the answer to a callback says accepted, or the reason):
  POST /api/orders/TOKEN/pay        {"percent":95,"times":2,"method":"wechat","quantity":3}, each optional
  POST /api/orders/TOKEN/repeat     the last callback again
  POST /api/orders/TOKEN/forge      a callback signed with a wrong key: your backend has to refuse it
  POST /api/orders/TOKEN/expire     a payment after the token expired
  POST /api/orders/TOKEN/cancel     the player leaves: no callback
  POST /api/next                    what the next order gets: {"ret":1018}, {"html":true} or {"status":502},
                                    and with any of them or alone {"delay_ms":3000} and {"cut":true}
  GET  /api/exchanges?after=SEQ     orders and callbacks after that number, oldest first

The answer to a callback also says ok: the backend did right, that is it accepted a payment, or refused
a forgery with a ret above 0. A backend that is down refuses no forgery.

Orders are taken as shipped servers send them; a note says where that is not what Tencent's pages ask for. With -strict such
an order is refused.

State is in memory: the last 3000 orders and callbacks, or 32 MiB of them. It listens on the loopback interface unless -addr says otherwise.
`

func runSandbox(ctx context.Context, args []string, t *terminal) int {
	const name = "sandbox"
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	var keys keyFlags
	keys.register(flags, "app-key", "`pay key` of the app, without the trailing \"&\"")
	appID := flags.String("app-id", "", "`offer id` of the app it plays Midas for; if empty, the demo app "+demoAppID)
	callback := flags.String("callback", "", "your backend's delivery `URL`")
	path := flags.String("path", "", "`path` that callbacks are signed for, if the registered URL's is not that of -callback")
	addr := flags.String("addr", "127.0.0.1:9100", "`address` to listen on; other machines can reach it if it is not loopback")
	var hosts []string
	flags.Func("host", "a further `name` under which it may be called, such as host.docker.internal; may be repeated", func(host string) error {
		hosts = append(hosts, host)
		return nil
	})
	record := flags.String("record", "", "append every exchange to this `file`, as JSON lines (mode 0600)")
	secrets := flags.Bool("secrets", false, "show openkey, pfkey and pay_token, in the record too, instead of masking them")
	strict := flags.Bool("strict", false, "refuse orders whose org_loc or query is not as Tencent's pages ask for, instead of noting it")
	lang := langFlag(flags)
	if code, ok := t.parse(flags, args, sandboxAbout); !ok {
		return code
	}
	if flags.NArg() > 0 {
		return t.misused(name, fmt.Errorf("%s: all settings are flags", quote(flags.Arg(0))))
	}
	appKey := demoAppKey
	if demo := *appID == "" && len(keys.keys) == 0 && keys.file == "" && t.env(keyVariable) == ""; demo {
		*appID = demoAppID
	} else {
		given, err := keys.read(t, "app-key")
		switch {
		case *appID == "":
			return t.misused(name, errors.New("-app-id: missing; give it with the pay key (-app-key, -app-key-file or "+keyVariable+"), or neither for the demo app"))
		case err != nil:
			return t.misused(name, err)
		case len(given) > 1:
			return t.misused(name, errors.New("-app-key: give one pay key"))
		}
		appKey = given[0]
	}
	if _, err := newClient(midas.Config{AppID: *appID, AppKey: appKey}); err != nil {
		return t.misused(name, fmt.Errorf("-app-id: %w", err)) // the key was checked before
	}
	if _, err := newClient(midas.Config{AppID: *appID, AppKey: appKey, DeliveryPath: *path}); err != nil {
		return t.misused(name, fmt.Errorf("-path: %w", err))
	}
	if *callback != "" {
		if err := checkDeliveryURL(*callback); err != nil {
			return t.misused(name, fmt.Errorf("-callback: %w", err))
		}
	}

	s := newSandbox(settings{
		appID: *appID, appKey: appKey, callback: *callback, path: *path, strict: *strict, secrets: *secrets, lang: language(*lang, t.env),
	})
	recorded := io.Discard
	if *record != "" {
		file, err := openRecord(*record)
		if err != nil {
			return t.failed(name, fmt.Errorf("-record: %w", err))
		}
		defer file.Close()
		recorded = file
	}
	listener, err := net.Listen("tcp", *addr)
	if err != nil {
		return t.failed(name, fmt.Errorf("-addr: %w", err))
	}
	bound := listener.Addr().(*net.TCPAddr).AddrPort()
	bound = netip.AddrPortFrom(bound.Addr().Unmap(), bound.Port())
	base := s.welcome(t, bound)
	s.seen = func(e exchange) {
		line := e.summary(s.lang, base, s.appID)
		if e.ForgeryTaken() {
			line = t.paint(red, line)
		}
		fmt.Fprintf(t.out, "%s  %s\n", e.Time.Format(time.TimeOnly), line)
		if err := writeRecord(recorded, e); err != nil {
			t.failed(name, fmt.Errorf("-record: %w", err))
		}
	}

	server := &http.Server{
		Handler:           s.handler(bound.Addr(), hosts),
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       time.Minute,
		WriteTimeout:      maxDelay + 10*time.Second,
		MaxHeaderBytes:    maxMessage,                                        // which an order is; net/http adds 4 KiB
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
	say := words[s.lang]
	reach := say["thisMachine"]
	if !addr.Addr().IsLoopback() {
		reach = t.paint(red, say["otherMachines"])
	}
	if addr.Addr().IsUnspecified() {
		addr = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), addr.Port())
	}
	base = "http://" + addr.String()
	key := say["keyGiven"]
	if s.appKey == demoAppKey {
		key = demoAppKey
	}
	callback, order := s.callback, say["fromBackend"]
	if callback == "" {
		callback, order = say["builtIn"], s.curl(base)
	}
	fmt.Fprintf(t.out, say["welcome"], t.paint(bold, say["sandbox"]), base, reach, base, ysdkPrefix+orderPath, s.appID, key, callback, s.path, order, base)
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
			writeError(w, r, http.StatusForbidden, errors.New("the host "+strconv.Quote(r.Host)+" is not this server's; start it with -host NAME to allow a name"))
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
		client, err := newClient(midas.Config{AppID: s.appID, AppKey: s.appKey, DeliveryPath: s.path})
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
	m := &message{method: "GET", query: a.RawQuery}
	e := exchange{
		Time: a.Time, Kind: "order", Token: a.Token, URL: before + a.RawQuery, Params: m.params(once), Status: a.Status,
		Reply: a.Body, Accepted: a.Problem == "", Reason: a.Problem, Notes: a.Notes, OK: a.Problem == "",
	}
	for _, c := range a.Cookies {
		e.Cookies = append(e.Cookies, param{c.Name, c.Value})
	}
	if a.BaseString != "" { // the signature is the problem
		right := newRecipe(m, ysdkPrefix+orderPath, s.appKey)
		if len(a.RawQuery) <= maxSearched {
			if found := explanations("en", m, right); found != nil {
				e.Mistakes, e.Alternatives = found[0], found[1:]
				e.chinese = explanations("zh", m, right)
			}
		}
		if !s.secrets {
			right.params = maskParams(right.params)
		}
		e.BaseString = right.base()
	}
	if !s.secrets {
		e.mask(before, a.RawQuery)
	}
	e.setReply([]byte(e.Reply))
	s.add(e)
}

// explanations says how the signature received was made, in a language.
func explanations(lang string, m *message, right recipe) []finding {
	found := newSearch(lang, m, right, nil, false).find(right)
	for _, mistakes := range found {
		for i, wrong := range mistakes { // without what its functions hold on to
			mistakes[i] = mistake{Name: wrong.Name, What: wrong.What, Cure: wrong.Cure, If: wrong.If}
		}
	}
	return found
}

// called keeps a callback of an order.
func (s *sandbox) called(order *exchange, e exchange) exchange {
	e.Token = order.Token
	if _, query, ok := strings.Cut(e.URL, "?"); ok {
		m := &message{callback: true, method: "GET", query: query}
		right := newRecipe(m, s.path, s.appKey)
		e.Params, e.BaseString = m.params(once), right.base()
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
