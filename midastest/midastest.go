// Package midastest plays Midas (米大师) in tests. It checks orders as the real gateway does
// (signature, session cookies, required parameters, limits), lets players pay, sends the
// signed delivery callback and judges the answer.
//
// A test of a backend:
//
//	srv := midastest.NewServer(midastest.Config{Errorf: t.Errorf})
//	defer srv.Close()
//	client, _ := midas.New(srv.ClientConfig("/pay/notify"))
//	srv.DeliverToHandler(client.DeliveryHandler(shop.deliver), "/pay/notify")
//	… place an order through the backend …
//	receipt, _ := srv.Pay(ctx, token)
//	if !receipt.Accepted { t.Error(receipt.Reason) }
//
// Where the protocol is open, nobody knows how strict the real Midas is; midastest then
// follows docs/protocol.md. docs/testing.md has recipes for faults, repeats, forgeries and
// clocks.
package midastest

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/internal/inprocess"
)

// Config configures a [Server]. The zero value is ready to use.
type Config struct {
	AppID  string // offer id of the one app it serves; empty means "1450000000"
	AppKey string // that app's pay key; empty means "midastest-demo-key"

	// Like is the gateway to play: it decides what is signed, what org_loc holds and whether
	// pay_token is required. Its BaseURL is ignored. The zero value means midas.Sandbox().
	Like midas.Gateway

	// Now optionally specifies the clock that tokens expire by and callbacks are stamped
	// with. If nil, time.Now is used. How long an answer takes is always measured on the real
	// clock, or on the bubble's inside testing/synctest.
	Now func() time.Time

	// Strict also rejects requests that contradict Tencent's pages although deployed servers
	// send them and Midas appears to accept them: the cookie org_loc with the other path or not
	// percent-encoded, and a bare ";" in the query (protocol.md 4, cookies). By default such an order
	// is accepted, and OrderAttempt.Notes says what was tolerated.
	Strict bool

	// Errorf is told what is wrong with each bad request: t.Errorf in a test. If nil, only
	// the answer and OnOrder tell.
	Errorf func(format string, args ...any)

	// CallbackClient optionally specifies the client that sends callbacks to the URL given to
	// DeliverTo, such as one that trusts your own certificate. If nil, a plain one is used.
	// Redirects are never followed.
	CallbackClient *http.Client

	// OnOrder optionally specifies a function to call with every request for an order, accepted
	// or not, before it is answered. Concurrent orders call it concurrently.
	OnOrder func(OrderAttempt)
}

// Server is a fake Midas, and an [http.Handler]. It is safe for concurrent use. Make one with
// [NewServer] or [New]; the zero value is not usable.
type Server struct {
	cfg  Config
	http *httptest.Server // nil without a socket

	mu      sync.Mutex
	orders  map[string]*order // by token
	faults  []Fault
	serial  int     // of the last payment
	deliver *target // nil until DeliverTo or DeliverToHandler
}

// NewServer returns a Server that listens on a free loopback port. The caller must close it.
func NewServer(cfg Config) *Server {
	s := New(cfg)
	s.http = httptest.NewServer(s)
	return s
}

// New returns a Server without a socket: use it as an [http.Handler], or through
// [Server.ClientConfig]. It works inside a testing/synctest bubble, where sockets do not.
func New(cfg Config) *Server {
	if cfg.AppID == "" {
		cfg.AppID = "1450000000"
	}
	if cfg.AppKey == "" {
		cfg.AppKey = "midastest-demo-key"
	}
	if cfg.Like == (midas.Gateway{}) {
		cfg.Like = midas.Sandbox()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Server{cfg: cfg, orders: make(map[string]*order)}
}

// Close stops listening and waits for the requests in progress. Without a socket it does
// nothing.
func (s *Server) Close() {
	if s.http != nil {
		s.http.Close()
	}
}

// AppID returns the offer id for midas.Config.
func (s *Server) AppID() string { return s.cfg.AppID }

// AppKey returns the pay key for midas.Config.
func (s *Server) AppKey() string { return s.cfg.AppKey }

// Gateway returns the gateway for midas.Config. Without a socket its host does not exist, so
// it needs [Server.HTTPClient].
func (s *Server) Gateway() midas.Gateway {
	g := s.cfg.Like
	g.BaseURL = "http://midastest-new-has-no-socket-use-its-httpclient.invalid" // shown by the failed lookup
	if s.http != nil {
		g.BaseURL = s.http.URL
	}
	return g
}

// ClientConfig returns the configuration of a client for s, ready for [midas.New]: AppID,
// AppKey, Gateway and, without a socket, HTTPClient. Change what you like before using it.
// deliveryPath may be empty where only orders are placed.
func (s *Server) ClientConfig(deliveryPath string) midas.Config {
	cfg := midas.Config{AppID: s.AppID(), AppKey: s.AppKey(), Gateway: s.Gateway(), DeliveryPath: deliveryPath}
	if s.http == nil {
		cfg.HTTPClient = s.HTTPClient()
	}
	return cfg
}

// HTTPClient returns the client for midas.Config that reaches s without a socket.
func (s *Server) HTTPClient() *http.Client {
	return &http.Client{Transport: inprocess.Transport{Handler: s}}
}

// DeliverTo sets the delivery URL, as registered at Tencent. Callbacks are signed for its
// path. It panics if deliveryURL is not an absolute http or https URL with a path and without
// a query.
func (s *Server) DeliverTo(deliveryURL string) {
	u, err := url.Parse(deliveryURL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.Path == "" || u.RawQuery != "" {
		panic(fmt.Sprintf("midastest: DeliverTo(%q): want an absolute URL with a path and without a query", deliveryURL))
	}
	client := http.Client{}
	if s.cfg.CallbackClient != nil {
		client = *s.cfg.CallbackClient
	}
	s.setTarget(&target{client: &client, url: deliveryURL, path: u.Path})
}

// DeliverToHandler is DeliverTo without a socket: callbacks go straight to h, signed for path.
// It panics if path does not begin with "/".
func (s *Server) DeliverToHandler(h http.Handler, path string) {
	if !strings.HasPrefix(path, "/") {
		panic(fmt.Sprintf("midastest: DeliverToHandler: path %q does not begin with \"/\"", path))
	}
	s.setTarget(&target{client: &http.Client{Transport: inprocess.Transport{Handler: h}}, url: "http://backend.test" + path, path: path})
}

// A target is where callbacks go.
type target struct {
	client *http.Client
	url    string
	path   string // the registered path
}

func (s *Server) setTarget(t *target) {
	t.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deliver = t
}

// complain tells the test about a bad request.
func (s *Server) complain(format string, args ...any) {
	if s.cfg.Errorf != nil {
		s.cfg.Errorf("midastest: "+format, args...)
	}
}
