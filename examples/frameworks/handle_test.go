package frameworks

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/beego/beego/v2/core/logs"
	"github.com/cloudwego/hertz/pkg/app/server"
	"github.com/gofiber/fiber/v3"
	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midastest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/zeromicro/go-zero/core/conf"
	"github.com/zeromicro/go-zero/core/logx"
	"github.com/zeromicro/go-zero/rest"
)

// start starts a server on loopback that is stopped when the test ends, and returns its address
// and a function that returns its access log.
type start func(t *testing.T, deliveries, game http.Handler) (address string, accessLog func() string)

var frameworks = []struct {
	name       string
	start      start
	compresses bool // what the game answers
}{
	{"net/http", startHandler(NetHTTP), true},
	{"gin", startHandler(Gin), true},
	{"echo", startHandler(Echo), true},
	{"beego", startBeego, false}, // gzip is for what controllers answer
	{"go-zero", startGoZero, false},
	{"fiber", startFiber, true},
	{"hertz", startHertz, false}, // gzip is for what its own handlers answer
}

// Players, by what becomes of their grants. As many bytes each: memory that is reused would not
// show by its length.
const (
	quick = "SECRET-openid-quick"
	slow  = "SECRET-openid-slow-"
	wild  = "SECRET-openid-panic"
	other = "SECRET-openid-other"
)

const (
	ok   = `{"ret":0,"msg":"OK"}`
	busy = `{"ret":1,"msg":"system_busy"}`
	sig  = `{"ret":4,"msg":"bad_parameter:sig"}`
)

// callbacks are what each framework is put through, in this sequence and on one connection.
var callbacks = []struct {
	name, openID string
	method       string // GET if empty
	path         string // deliveryPath if empty
	opts         []midastest.PayOption
	header       http.Header
	want         string // the answer's bytes; "" for one that Midas would not take
	grants       int
	either       bool // the framework may take it or not: what counts is that OK is a grant
}{
	{name: "a grant that outlives its answer", openID: slow, want: busy},
	{name: "a callback", openID: quick, want: ok, grants: 1},
	{name: "a panic", openID: wild, want: busy},
	{name: "a caller that takes gzip", openID: quick, want: ok, grants: 1,
		header: http.Header{"Accept-Encoding": {"gzip, deflate, br"}}},
	{name: "values that a parser would write otherwise", openID: quick, want: ok, grants: 1,
		opts: []midastest.PayOption{midastest.Param("channel_id", "~a;b=c *d%2")}},
	{name: "a forgery", openID: quick, want: sig, opts: []midastest.PayOption{midastest.WrongKey("guessed")}},
	{name: "POST", openID: quick, method: http.MethodPost},
	{name: "HEAD", openID: quick, method: http.MethodHead},
	{name: "a slash too many", openID: quick, path: deliveryPath + "/", either: true},
	{name: "a query of 15 KiB", openID: quick, want: ok, grants: 1,
		opts: []midastest.PayOption{midastest.Param("channel_id", strings.Repeat("x", 15<<10))}},
	{name: "another callback", openID: other, want: ok, grants: 1},
}

func TestEveryFrameworkDelivers(t *testing.T) {
	t.Parallel()
	for _, framework := range frameworks {
		t.Run(framework.name, func(t *testing.T) {
			t.Parallel()
			fake, client := newMidas(t)
			bags := newBags()
			address, accessLog := framework.start(t, client.DeliveryHandler(bags.grant), http.HandlerFunc(game))
			web := &http.Client{
				Timeout:       20 * time.Second,
				Transport:     &http.Transport{DisableCompression: true, MaxConnsPerHost: 1},
				CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // as Midas
			}
			defer web.CloseIdleConnections()
			get := func(t *testing.T, method, pathAndQuery string, header http.Header) (*http.Response, string) {
				req, err := http.NewRequestWithContext(t.Context(), method, "http://"+address+pathAndQuery, nil)
				require.NoError(t, err)
				req.Header = header
				resp, err := web.Do(req)
				require.NoError(t, err)
				defer resp.Body.Close()
				body, err := io.ReadAll(resp.Body)
				require.NoError(t, err)
				return resp, string(body)
			}

			for _, test := range callbacks {
				t.Run(test.name, func(t *testing.T) {
					rawQuery := callbackFor(t, fake, test.openID, test.opts...)
					before := bags.of(test.openID)
					path := deliveryPath
					if test.path != "" {
						path = test.path
					}
					resp, body := get(t, test.method, path+"?"+rawQuery, test.header)

					grants := bags.of(test.openID) - before
					if test.either {
						assert.Equal(t, body == ok, grants == 1, body)
						return
					}
					assert.Equal(t, test.grants, grants, "grants")
					if test.want == "" {
						assert.NotContains(t, body, ok)
						return
					}
					assert.Equal(t, test.want, body)
					assert.Equal(t, http.StatusOK, resp.StatusCode)
					assert.Equal(t, int64(len(test.want)), resp.ContentLength, "not sent in one piece")
					assert.Equal(t, "application/json", resp.Header.Get("Content-Type"))
					assert.Empty(t, resp.Header.Get("Content-Encoding"))
				})
			}

			// The middleware is there: the game's own answers are compressed, its panics caught, its
			// requests logged.
			resp, _ := get(t, http.MethodGet, "/game/hello", http.Header{"Accept-Encoding": {"gzip"}})
			assert.Equal(t, http.StatusOK, resp.StatusCode)
			assert.Equal(t, framework.compresses, resp.Header.Get("Content-Encoding") == "gzip")
			resp, _ = get(t, http.MethodGet, "/game/boom", nil)
			assert.Equal(t, http.StatusInternalServerError, resp.StatusCode)
			assert.Contains(t, accessLog(), "/game/hello")
			assert.NotContains(t, accessLog(), "SECRET")
			assert.NotContains(t, accessLog(), "sig=")

			close(bags.release)
			require.NoError(t, client.Wait(t.Context()))
			assert.Equal(t, 1, bags.of(slow), "the grant that outlived its answer was for another player")
		})
	}
}

// game is the rest of the backend.
func game(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/game/boom" {
		panic("boom")
	}
	w.Header().Set("Content-Type", "text/plain")
	io.WriteString(w, strings.Repeat("hello ", 1000))
}

// bags is who was granted how much.
type bags struct {
	mu      sync.Mutex
	gems    map[string]int
	release chan struct{} // closed when slow grants may end
}

func newBags() *bags { return &bags{gems: make(map[string]int), release: make(chan struct{})} }

func (b *bags) grant(_ context.Context, d *midas.Delivery) error {
	switch d.OpenID {
	case slow:
		<-b.release // whatever the context says
	case wild:
		panic("a bug in the grant")
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.gems[strings.Clone(d.OpenID)]++
	return nil
}

func (b *bags) of(openID string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.gems[openID]
}

// lines is an access log.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func startHandler(mount func(deliveries, game http.Handler, accessLog io.Writer) http.Handler) start {
	return func(t *testing.T, deliveries, game http.Handler) (string, func() string) {
		log := new(lines)
		s := httptest.NewServer(mount(deliveries, game, log))
		t.Cleanup(s.Close)
		return s.Listener.Addr().String(), log.String
	}
}

func startBeego(t *testing.T, deliveries, game http.Handler) (string, func() string) {
	file := filepath.Join(t.TempDir(), "access.log")
	require.NoError(t, logs.SetLogger(logs.AdapterFile, `{"filename":`+strconv.Quote(file)+`}`))
	t.Cleanup(func() { assert.NoError(t, logs.GetBeeLogger().DelLogger(logs.AdapterFile)) })
	s := httptest.NewServer(Beego(deliveries, game))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String(), func() string {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		return string(text)
	}
}

func startGoZero(t *testing.T, deliveries, game http.Handler) (string, func() string) {
	log := new(lines)
	var c rest.RestConf
	require.NoError(t, conf.FillDefault(&c)) // all middleware is on
	c.Host, c.Port, c.DevServer.Enabled = "127.0.0.1", 0, false
	c.Log.Stat = false
	servers, addresses := make(chan *http.Server, 1), make(chan string, 1)
	go StartGoZero(c, []rest.Route{ // returns after the shutdown of the whole process only
		{Method: http.MethodGet, Path: "/game/hello", Handler: game.ServeHTTP},
		{Method: http.MethodGet, Path: "/game/boom", Handler: game.ServeHTTP},
	}, deliveries, func(s *http.Server) {
		logx.SetWriter(logx.NewWriter(log))                    // after MustNewServer has set its own
		s.BaseContext = func(l net.Listener) context.Context { // go-zero takes no listener, and does not say which port it got
			addresses <- l.Addr().String()
			return context.Background()
		}
		servers <- s
	})
	s := <-servers
	t.Cleanup(func() { s.Close() })
	return <-addresses, log.String
}

func startFiber(t *testing.T, deliveries, game http.Handler) (string, func() string) {
	l, log := listen(t), new(lines)
	app := Fiber(deliveries, game, log)
	ended := make(chan error, 1)
	go func() { ended <- app.Listener(l, fiber.ListenConfig{DisableStartupMessage: true}) }()
	t.Cleanup(func() {
		assert.NoError(t, app.Shutdown())
		assert.NoError(t, <-ended)
	})
	return l.Addr().String(), log.String
}

func startHertz(t *testing.T, deliveries, game http.Handler) (string, func() string) {
	l, log := listen(t), new(lines)
	h := Hertz(deliveries, game, log, server.WithListener(l), server.WithDisablePrintRoute(true))
	ended := make(chan error, 1)
	go func() { ended <- h.Run() }()
	t.Cleanup(func() {
		assert.NoError(t, h.Shutdown(context.WithoutCancel(t.Context())))
		if err := <-ended; err != nil && !errors.Is(err, net.ErrClosed) {
			t.Log(err)
		}
	})
	return l.Addr().String(), log.String
}

func listen(t *testing.T) net.Listener {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	return l
}
