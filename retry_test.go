package midas_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midastest"
	"github.com/stretchr/testify/require"
)

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
		require.ErrorContains(t, err, "context deadline exceeded; the last try: no usable answer (HTTP status 502")
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
		cfg.Gateway = midas.Sandbox().At("http://127.0.0.1:1") // where nobody listens
		cfg.HTTPClient = &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			tries++
			return http.DefaultTransport.RoundTrip(r)
		})}
	})
	_, err := c.CreateOrder(t.Context(), goldenOrder())
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
	require.ErrorContains(t, err, "midas: buy_goods_m: no connection: dial tcp")
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
	cfg := midas.Config{AppID: testAppID, AppKey: testAppKey, Gateway: midas.Sandbox().At(srv.URL), RetryDelay: time.Nanosecond}

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

func (j *oneCookieJar) Cookies(*url.URL) []*http.Cookie { return j.cookies }

func TestRepeatedTriesAreLogged(t *testing.T) {
	t.Parallel()
	var log journal
	g := newGateway(t, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(502) })
	c := g.client(t, log.attach)
	_, err := c.CreateOrder(t.Context(), goldenOrder())
	require.Error(t, err)
	require.NoError(t, c.Wait(t.Context()))
	lines := log.lines(t)
	require.Len(t, lines, 2)
	for i, line := range lines {
		require.Equal(t, "WARN", line["level"])
		require.Equal(t, "midas: call failed, trying again", line["msg"])
		require.Equal(t, "/mpay/buy_goods_m", line["api"])
		require.EqualValues(t, i+1, line["try"])
		require.Equal(t, "no usable answer (HTTP status 502, 0 bytes): want status 200", line["error"])
		require.Contains(t, line, "delay")
	}
}
