// Package midastest is a Midas (米大师) for tests. It takes orders and checks them as the
// real one does (signature, session cookies, required parameters, limits), lets players
// pay, sends the signed delivery callback and judges the answer.
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
// What it cannot know is how strict the real Midas is where the protocol is open; it
// then follows docs/protocol.md. Recipes for faults, repeats, forgeries and clocks are in
// docs/testing.md.
package midastest

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing/iotest"
	"time"

	"github.com/midas-go/midas"
)

// Config configures a [Server]. Every field has a usable zero value.
type Config struct {
	AppID  string // offer id of the only app it knows; empty means "1450000000"
	AppKey string // pay key of that app; empty means "midastest-demo-key"

	// Like is the gateway to play: how requests are signed, what org_loc holds, whether
	// pay_token is asked for. Its BaseURL does not matter. The zero value means
	// midas.Sandbox().
	Like midas.Gateway

	// Now optionally specifies the clock that tokens expire by and that callbacks are
	// stamped with. If nil, time.Now. The time an answer takes is measured on the real clock
	// (in a testing/synctest bubble: on the bubble's).
	Now func() time.Time

	// Errorf is told of every bad request, in words: t.Errorf in a test. If nil, the words
	// are in the answer alone.
	Errorf func(format string, args ...any)

	// CallbackClient optionally specifies the client that sends callbacks to the URL given to
	// DeliverTo, such as one that trusts your own certificate. If nil, a plain one is used.
	// Redirects are never followed.
	CallbackClient *http.Client

	// OnOrder optionally specifies what is called for every request for an order, accepted or
	// not, before it is answered; concurrently, if orders come concurrently.
	OnOrder func(OrderAttempt)
}

// Server is a fake Midas. It is safe for concurrent use, and an [http.Handler] as well. Make
// one with [NewServer] or [New]; the zero value is not usable.
type Server struct {
	cfg  Config
	http *httptest.Server // nil without a socket

	mu      sync.Mutex
	orders  map[string]*order // by token
	faults  []Fault
	serial  int     // of the last payment
	deliver *target // nil until DeliverTo or DeliverToHandler
}

// NewServer returns a Server that listens on a free port of the loopback interface. Close it.
func NewServer(cfg Config) *Server {
	s := New(cfg)
	s.http = httptest.NewServer(s)
	return s
}

// New returns a Server without a socket, for use as an [http.Handler] or through
// [Server.HTTPClient]; also inside a testing/synctest bubble, where sockets never go idle.
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

// Close stops listening. It waits for requests that are being answered.
func (s *Server) Close() {
	if s.http != nil {
		s.http.Close()
	}
}

// AppID and AppKey return what goes into midas.Config.
func (s *Server) AppID() string { return s.cfg.AppID }

// AppKey returns the pay key that goes into midas.Config.
func (s *Server) AppKey() string { return s.cfg.AppKey }

// Gateway returns the gateway for midas.Config. Without a socket its host does not exist:
// use [Server.HTTPClient] with it.
func (s *Server) Gateway() midas.Gateway {
	g := s.cfg.Like
	g.BaseURL = "http://midastest-new-has-no-socket-use-its-httpclient.invalid" // what a failed look-up will show
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

// HTTPClient returns a client for midas.Config whose requests reach s without a socket.
func (s *Server) HTTPClient() *http.Client {
	return &http.Client{Transport: inProcess{s}}
}

// DeliverTo sets the delivery URL, as it would be registered at Tencent; callbacks are
// signed for its path. It panics if url is not an absolute http or https URL with a path.
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

// DeliverToHandler sets a handler to be called without a socket, and the path that the
// delivery URL would have: callbacks are signed for it. It panics if path does not begin
// with "/".
func (s *Server) DeliverToHandler(h http.Handler, path string) {
	if !strings.HasPrefix(path, "/") {
		panic(fmt.Sprintf("midastest: DeliverToHandler: path %q does not begin with \"/\"", path))
	}
	s.setTarget(&target{client: &http.Client{Transport: inProcess{h}}, url: "http://backend.test" + path, path: path})
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

// inProcess is a transport that calls a handler instead of a server. The handler may
// outlive the request, as behind a socket.
type inProcess struct{ handler http.Handler }

func (t inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	in := r.Clone(r.Context()) // and what makes it a server's request
	in.RequestURI = r.URL.RequestURI()
	in.RemoteAddr = "192.0.2.1:1234"
	in.URL.Scheme, in.URL.Host = "", ""
	if in.Body == nil {
		in.Body = http.NoBody
	}
	rec := httptest.NewRecorder()
	done := make(chan any, 1)
	go func() {
		defer func() { done <- recover() }()
		t.handler.ServeHTTP(rec, in)
	}()
	select {
	case p := <-done:
		if p != nil { // net/http would close the connection
			return nil, fmt.Errorf("the handler panicked: %v", p)
		}
		resp := rec.Result()
		resp.Request = r
		if resp.ContentLength > int64(rec.Body.Len()) { // less than was promised: a connection would break off
			resp.Body = io.NopCloser(io.MultiReader(resp.Body, iotest.ErrReader(io.ErrUnexpectedEOF)))
		}
		return resp, nil
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
}

// complain reports a bad request.
func (s *Server) complain(format string, args ...any) {
	if s.cfg.Errorf != nil {
		s.cfg.Errorf("midastest: "+format, args...)
	}
}
