package minigametest

import (
	"compress/gzip"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/minigame"
	"github.com/stretchr/testify/require"
)

// anyAccount is a Game or a Program.
type anyAccount interface {
	Code2Session(ctx context.Context, code string) (*minigame.Session, error)
	NewOrder(req minigame.OrderRequest) (*minigame.Order, error)
}

func newAccount(t *testing.T, s *Server) (a anyAccount) {
	t.Helper()
	var err error
	if s.cfg.MiniProgram {
		a, err = minigame.NewProgram(s.ProgramConfig())
	} else {
		a, err = minigame.NewGame(s.GameConfig())
	}
	require.NoError(t, err)
	return a
}

// newSale returns a Server and the order of a player who has yet to pay.
func newSale(t *testing.T, cfg Config) (*Server, anyAccount, *minigame.Order) {
	t.Helper()
	if cfg.Errorf == nil {
		cfg.Errorf = t.Errorf
	}
	s := NewServer(cfg)
	t.Cleanup(s.Close)
	s.Publish("sword", 600*midas.Fen)
	client := newAccount(t, s)
	session, err := client.Code2Session(t.Context(), s.Login("p"))
	require.NoError(t, err)
	order, err := client.NewOrder(minigame.OrderRequest{SessionKey: session.SessionKey, ProductID: "sword", Quantity: 2, Price: 600 * midas.Fen})
	require.NoError(t, err)
	return s, client, order
}

const success = `{"ErrCode":0,"ErrMsg":"Success"}`

func TestAHandlerIsWaitedForAsAServerIs(t *testing.T) {
	t.Parallel()
	t.Run("a success after 3s is too late", func(t *testing.T) {
		s, _, order := newSale(t, Config{})
		synctest.Test(t, func(t *testing.T) {
			s.PushToHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				<-r.Context().Done()
				io.WriteString(w, success)
			}), "/push")
			start := time.Now()
			receipt, err := s.Pay(t.Context(), "p", order)
			require.NoError(t, err)
			require.False(t, receipt.Accepted)
			require.Equal(t, "no answer within 3s", receipt.Reason)
			require.Equal(t, Patience, time.Since(start))
		})
	})
	t.Run("a handler that never returns does not hold up the caller", func(t *testing.T) {
		s, _, order := newSale(t, Config{})
		synctest.Test(t, func(t *testing.T) {
			never := make(chan struct{})
			defer close(never)
			s.PushToHandler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-never }), "/push")
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			start := time.Now()
			_, err := s.Pay(ctx, "p", order)
			require.Equal(t, context.DeadlineExceeded, err)
			require.Equal(t, 100*time.Millisecond, time.Since(start))
		})
	})
	for sentence, handler := range map[string]http.HandlerFunc{
		"a handler that panics": func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, success)
			panic("no such table")
		},
		"a handler that breaks off":                             func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"a handler that ends its goroutine, as t.FailNow does,": func(http.ResponseWriter, *http.Request) { runtime.Goexit() },
		"an answer that is shorter than it says": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			io.WriteString(w, success)
		},
	} {
		t.Run(sentence+" is a broken connection", func(t *testing.T) {
			s, _, order := newSale(t, Config{})
			s.PushToHandler(handler, "/push")
			receipt, err := s.Pay(t.Context(), "p", order)
			require.NoError(t, err)
			require.False(t, receipt.Accepted)
		})
	}
}

func TestAPushThatTheContextEndsIsStillWaiting(t *testing.T) {
	t.Parallel()
	now := time.Unix(1700000000, 0)
	s := NewServer(Config{Now: func() time.Time { return now }})
	defer s.Close()
	s.Publish("sword", 600*midas.Fen)
	var end context.CancelFunc
	pushed := 0
	s.PushToHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if pushed++; pushed == 1 || pushed == 5 { // the first payment's first push; the second of three that are due
			end()
			<-r.Context().Done()
			return
		}
		w.WriteHeader(500)
	}), "/push")
	var ctx context.Context
	ctx, end = context.WithCancel(t.Context())
	_, err := s.BuyInShop(ctx, "p", "sword", 1)
	require.Equal(t, context.Canceled, err)
	due, waiting := s.NextPush()
	require.True(t, waiting)
	require.Equal(t, now, due)
	for range 2 {
		_, err = s.BuyInShop(t.Context(), "p", "sword", 1)
		require.NoError(t, err)
	}
	now = now.Add(15 * time.Second)
	ctx, end = context.WithCancel(t.Context())
	receipts, err := s.PushDue(ctx)
	require.Equal(t, context.Canceled, err)
	require.Len(t, receipts, 1)
	require.Equal(t, 1, receipts[0].Try, "what the context ended does not count")
	receipts, err = s.PushDue(t.Context())
	require.NoError(t, err)
	require.Len(t, receipts, 2)
	for _, receipt := range receipts {
		require.Equal(t, 2, receipt.Try)
	}

	end()
	_, err = s.Push(ctx, `{"Event":"x"}`)
	require.Equal(t, context.Canceled, err)
	now = now.Add(15 * time.Second)
	receipts, err = s.PushDue(t.Context())
	require.NoError(t, err)
	require.Len(t, receipts, 3, "a message that is pushed once does not wait")
}

func TestPushesWithoutAURL(t *testing.T) {
	t.Parallel()
	s, _, order := newSale(t, Config{})
	_, err := s.Pay(t.Context(), "p", order)
	require.ErrorContains(t, err, "call PushTo or PushToHandler")
	s.PushToHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, success) }), "/push")
	receipts, err := s.PushDue(t.Context())
	require.NoError(t, err)
	require.Len(t, receipts, 1, "the payment's push was waiting")
	require.True(t, receipts[0].Accepted)
}

func TestAReasonIsTheCauseWithoutTheURL(t *testing.T) {
	t.Parallel()
	s := NewServer(Config{})
	defer s.Close()
	s.PushTo("http://127.0.0.1:1/the-path") // where nobody listens
	receipt, err := s.Push(t.Context(), `{"Event":"x"}`)
	require.NoError(t, err)
	require.Contains(t, receipt.Reason, "refused")
	require.NotContains(t, receipt.Reason, "3s")
	require.NotContains(t, receipt.Reason, "the-path")
	require.NotContains(t, receipt.Reason, "signature")
}

func TestWhatIsJudgedIsWhatWasOnTheWire(t *testing.T) {
	t.Parallel()
	game := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
			io.WriteString(w, success)
			return
		}
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		io.WriteString(z, success)
		_ = z.Close()
	}))
	defer game.Close()
	ignoring := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Set("Accept-Encoding", "gzip")
		game.Config.Handler.ServeHTTP(w, r)
	}))
	defer ignoring.Close()
	s := NewServer(Config{})
	defer s.Close()
	for url, accepted := range map[string]bool{game.URL: true, ignoring.URL: false} {
		s.PushTo(url + "/push")
		receipt, err := s.Push(t.Context(), `{"Event":"x"}`)
		require.NoError(t, err)
		require.Equal(t, accepted, receipt.Accepted, receipt.Reason)
	}
}
