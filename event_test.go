package midas_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/midas-go/midas"
	"github.com/stretchr/testify/require"
)

// events collects what OnCallback gets. Wait for the Client before reading all.
type events struct {
	mu  sync.Mutex
	all []midas.CallbackEvent
}

func (e *events) add(event midas.CallbackEvent) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, event)
}

func TestEveryAnswerMakesOneEvent(t *testing.T) {
	t.Parallel()
	failed := errors.New("database is down")
	returning := func(err error) midas.DeliverFunc {
		return func(context.Context, *midas.Delivery) error { return err }
	}
	after := func(d time.Duration, err error) midas.DeliverFunc {
		return func(context.Context, *midas.Delivery) error { time.Sleep(d); return err }
	}
	type event struct {
		outcome   midas.Outcome
		late      bool
		ret       int
		reconcile bool
		level     slog.Level
	}
	for _, test := range []struct {
		what    string
		deliver midas.DeliverFunc
		request func(r *http.Request) *http.Request
		writer  http.ResponseWriter
		body    string
		want    []event
	}{
		{"delivered", returning(nil), nil, nil, `{"ret":0,"msg":"OK"}`, []event{{midas.Delivered, false, 0, false, slog.LevelInfo}}},
		{"expired", returning(midas.ErrTokenExpired), nil, nil, `{"ret":2,"msg":"token_expired"}`, []event{{midas.Declined, false, 2, false, slog.LevelWarn}}},
		{"not found", returning(midas.ErrTokenNotFound), nil, nil, `{"ret":3,"msg":"token_not_found"}`, []event{{midas.Declined, false, 3, false, slog.LevelWarn}}},
		{"a parameter", returning(&midas.ParamError{Param: "amt"}), nil, nil, `{"ret":4,"msg":"bad_parameter:amt"}`, []event{{midas.Declined, false, 4, false, slog.LevelWarn}}},
		{"failed", returning(failed), nil, nil, `{"ret":1,"msg":"system_busy"}`, []event{{midas.Failed, false, 1, false, slog.LevelError}}},
		{"panicked", func(context.Context, *midas.Delivery) error { panic("no shop") }, nil, nil, `{"ret":1,"msg":"system_busy"}`, []event{{midas.Panicked, false, 1, false, slog.LevelError}}},
		{"ended its goroutine", func(context.Context, *midas.Delivery) error { runtime.Goexit(); return nil }, nil, nil, `{"ret":1,"msg":"system_busy"}`, []event{{midas.Panicked, false, 1, false, slog.LevelError}}},
		{"timed out, then delivered", after(3*time.Second, nil), nil, nil, `{"ret":1,"msg":"system_busy"}`, []event{{midas.TimedOut, false, 1, false, slog.LevelError}, {midas.Delivered, true, 0, true, slog.LevelError}}},
		{"timed out, then failed", after(3*time.Second, failed), nil, nil, `{"ret":1,"msg":"system_busy"}`, []event{{midas.TimedOut, false, 1, false, slog.LevelError}, {midas.TimedOut, true, 1, false, slog.LevelError}}},
		{"Midas hung up", returning(nil), func(r *http.Request) *http.Request {
			ctx, cancel := context.WithCancel(r.Context())
			cancel()
			return r.WithContext(ctx)
		}, nil, `{"ret":0,"msg":"OK"}`, []event{{midas.HungUp, false, 0, true, slog.LevelError}}},
		{"the answer left late", returning(nil), nil, &lostAnswer{delay: 2100 * time.Millisecond}, "", []event{{midas.HungUp, false, 0, true, slog.LevelError}}},
		{"the connection is lost", returning(nil), nil, &lostAnswer{err: io.ErrClosedPipe}, "", []event{{midas.HungUp, false, 0, true, slog.LevelError}}},
		{"the ResponseWriter panics", returning(nil), nil, &lostAnswer{panics: true}, "", []event{{midas.HungUp, false, 0, true, slog.LevelError}}},
		{"the wrong signature", returning(nil), func(r *http.Request) *http.Request {
			return httptest.NewRequest("GET", r.URL.Path+"?"+strings.Replace(r.URL.RawQuery, "amt=600", "amt=601", 1), nil)
		}, nil, `{"ret":4,"msg":"bad_parameter:sig"}`, []event{{midas.Unverified, false, 4, false, slog.LevelWarn}}},
		{"verified, without openid", returning(nil), func(r *http.Request) *http.Request {
			return httptest.NewRequest("GET", r.URL.Path+"?"+signed(map[string]string{"openid": ""}), nil)
		}, nil, `{"ret":4,"msg":"bad_parameter:openid"}`, []event{{midas.Malformed, false, 4, false, slog.LevelWarn}}},
		{"a POST", returning(nil), func(r *http.Request) *http.Request {
			return httptest.NewRequest("POST", r.URL.String(), nil)
		}, nil, "", []event{{midas.Unverified, false, 0, false, slog.LevelWarn}}},
	} {
		t.Run(test.what, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var got events
				var lines lineCounter
				c := callbackClient(t, func(cfg *midas.Config) { cfg.OnCallback, cfg.Logger = got.add, slog.New(&lines) })
				r := httptest.NewRequest("GET", "/pay/notify?"+signed(nil), nil)
				if test.request != nil {
					r = test.request(r)
				}
				recorder := httptest.NewRecorder()
				w := test.writer
				if w == nil {
					w = recorder
				}
				c.DeliveryHandler(test.deliver).ServeHTTP(w, r)
				require.NoError(t, c.Wait(t.Context()))
				require.Equal(t, test.body, recorder.Body.String())

				var seen []event
				for i, e := range got.all {
					seen = append(seen, event{e.Outcome, e.Late, e.Ret, e.MustReconcile(), lines.records[i].Level})
					if e.Outcome != midas.Unverified {
						require.Equal(t, []string{"-APPDJ0-1", "TOKEN"}, []string{e.BillNo, e.Token})
					}
					if e.Outcome != midas.Delivered && e.Outcome != midas.HungUp {
						require.Error(t, e.Err)
					}
				}
				require.Equal(t, test.want, seen)
				require.Len(t, lines.records, len(test.want), "the log line is the same event")
			})
		})
	}
}

// A lostAnswer is a ResponseWriter whose answers do not arrive, or not in time.
type lostAnswer struct {
	header http.Header
	delay  time.Duration
	err    error
	panics bool
}

func (w *lostAnswer) Header() http.Header {
	if w.header == nil {
		w.header = http.Header{}
	}
	return w.header
}
func (w *lostAnswer) WriteHeader(int) {}
func (w *lostAnswer) Write(b []byte) (int, error) {
	if w.panics {
		panic("a middleware's bug")
	}
	time.Sleep(w.delay) // in a bubble
	return len(b), w.err
}

// A lineCounter is a log handler that keeps what it gets.
type lineCounter struct {
	mu      sync.Mutex
	records []slog.Record
}

func (h *lineCounter) Enabled(context.Context, slog.Level) bool { return true }
func (h *lineCounter) WithAttrs([]slog.Attr) slog.Handler       { return h }
func (h *lineCounter) WithGroup(string) slog.Handler            { return h }
func (h *lineCounter) Handle(_ context.Context, r slog.Record) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.records = append(h.records, r)
	return nil
}

// A handlerFunc is a log handler.
type handlerFunc func(slog.Record)

func (h handlerFunc) Enabled(context.Context, slog.Level) bool           { return true }
func (h handlerFunc) WithAttrs([]slog.Attr) slog.Handler                 { return h }
func (h handlerFunc) WithGroup(string) slog.Handler                      { return h }
func (h handlerFunc) Handle(_ context.Context, record slog.Record) error { h(record); return nil }

// A panic in a goroutine without recover ends the process (reliability review, R4).
func TestALogHandlerOrHookThatPanicsCostsNothing(t *testing.T) {
	t.Parallel()
	for what, test := range map[string]struct {
		crash func()
		lines int // two answers, two late deliveries, and the hook's panics
	}{"panic": {func() { panic("log handler") }, 8}, "Goexit": {runtime.Goexit, 4}} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				calls := 0
				c := callbackClient(t, func(cfg *midas.Config) {
					cfg.Logger = slog.New(handlerFunc(func(slog.Record) { calls++; test.crash() }))
					cfg.OnCallback = func(midas.CallbackEvent) { test.crash() }
				})
				h := c.DeliveryHandler(func(context.Context, *midas.Delivery) error { time.Sleep(3 * time.Second); return nil })
				for range 2 {
					recorder := httptest.NewRecorder()
					h.ServeHTTP(recorder, httptest.NewRequest("GET", "/pay/notify?"+signed(nil), nil))
					require.Equal(t, `{"ret":1,"msg":"system_busy"}`, recorder.Body.String())
				}
				require.NoError(t, c.Wait(t.Context()))
				require.Equal(t, test.lines, calls)
			})
		})
	}
}

// One connection carries one callback after the other, so a log line must not be written
// before the handler returns (R5).
func TestALogHandlerOrHookThatBlocksHoldsUpNothing(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	var logged, hooked sync.Map // by billno
	var missed int
	c := callbackClient(t, func(cfg *midas.Config) {
		cfg.Logger = slog.New(handlerFunc(func(r slog.Record) {
			<-release
			r.Attrs(func(a slog.Attr) bool {
				if a.Key == "billno" {
					logged.Store(a.Value.String(), true)
				}
				return true
			})
		}))
		cfg.OnCallback = func(e midas.CallbackEvent) {
			<-release
			hooked.Store(e.BillNo, true)
			missed += e.Missed
		}
	})
	h := c.DeliveryHandler(func(_ context.Context, d *midas.Delivery) error {
		if strings.HasPrefix(d.BillNo, "failed") {
			return errors.New("no database")
		}
		return nil
	})
	const each = 1500 // more than may wait
	for i := range each {
		for _, kind := range []string{"failed", "delivered"} {
			recorder := httptest.NewRecorder()
			query := signed(map[string]string{"billno": kind + strconv.Itoa(i)})
			for range 2 { // a repeat must not fill the memory
				h.ServeHTTP(recorder, httptest.NewRequest("GET", "/pay/notify?"+query, nil))
			}
			require.Equal(t, 200, recorder.Code)
		}
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, c.Wait(canceled), context.Canceled, "there are lines that are not written yet")
	close(release)
	require.NoError(t, c.Wait(t.Context()))

	for i := range each {
		for _, seen := range []*sync.Map{&logged, &hooked} {
			_, ok := seen.Load("failed" + strconv.Itoa(i))
			require.True(t, ok, "payment failed%d was not reported", i)
		}
	}
	_, first := hooked.Load("delivered0")
	_, last := hooked.Load(fmt.Sprint("delivered", each-1))
	require.True(t, first)
	require.False(t, last, "deliveries that are in order are dropped when a thousand reports wait")
	require.Positive(t, missed)
}

// net/http waits for a body before it sends the answer (R9).
func TestARequestThatPromisesABodyIsAnswered(t *testing.T) {
	t.Parallel()
	c := callbackClient(t)
	srv := httptest.NewServer(c.DeliveryHandler(func(context.Context, *midas.Delivery) error { return nil }))
	defer srv.Close()
	for _, test := range []struct{ method, answer string }{{"GET", `{"ret":0,"msg":"OK"}`}, {"POST", ""}} {
		t.Run(test.method, func(t *testing.T) {
			conn, err := net.Dial("tcp", srv.Listener.Addr().String())
			require.NoError(t, err)
			defer conn.Close()
			fmt.Fprintf(conn, "%s /pay/notify?%s HTTP/1.1\r\nHost: game.test\r\nContent-Length: 1000\r\n\r\n", test.method, signed(nil))
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			require.NoError(t, err)
			body, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			require.Equal(t, test.answer, string(body))
			require.True(t, resp.Close)
			_, err = conn.Read(make([]byte, 1))
			require.ErrorIs(t, err, io.EOF, "the connection is closed")
		})
	}
}

func TestRunningDeliverFuncsAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var lines lineCounter
		var got events
		c := callbackClient(t, func(cfg *midas.Config) {
			cfg.MaxDeliveries, cfg.OnCallback, cfg.Logger = 2, got.add, slog.New(&lines)
		})
		stuck := make(chan struct{})
		h := c.DeliveryHandler(func(context.Context, *midas.Delivery) error { <-stuck; return nil })
		call := func(billNo, query string) (body string, took time.Duration) {
			start := time.Now()
			recorder := httptest.NewRecorder()
			h.ServeHTTP(recorder, httptest.NewRequest("GET", "/pay/notify?"+signed(map[string]string{"billno": billNo})+query, nil))
			return recorder.Body.String(), time.Since(start)
		}
		require.NoError(t, c.Ready())
		for _, billNo := range []string{"one", "two"} {
			body, took := call(billNo, "")
			require.Equal(t, `{"ret":1,"msg":"system_busy"}`, body)
			require.Equal(t, 1800*time.Millisecond, took)
		}
		require.ErrorContains(t, c.Ready(), "2 functions are running, at most 2 may")

		body, took := call("three", "")
		require.Equal(t, `{"ret":1,"msg":"system_busy"}`, body)
		require.Zero(t, took, "at once")
		body, _ = call("four", "&forged=1")
		require.Equal(t, `{"ret":4,"msg":"bad_parameter:sig"}`, body, "it is verified first")

		close(stuck)
		require.NoError(t, c.Wait(t.Context()))
		require.NoError(t, c.Ready())
		body, _ = call("three", "")
		require.Equal(t, `{"ret":0,"msg":"OK"}`, body)
		require.NoError(t, c.Wait(t.Context()))

		var shed []string
		for i, e := range got.all {
			if e.Outcome == midas.Shed {
				shed = append(shed, e.BillNo)
				require.Equal(t, slog.LevelError, lines.records[i].Level)
			}
		}
		require.Equal(t, []string{"three"}, shed)
	})
}

// A payment that failed and whose caller hung up may be granted when it is called back, again
// without Midas knowing: that one must be reconciled, whatever still waits to be logged.
func TestARepeatThatMustBeReconciledIsNotTakenForTheFirst(t *testing.T) {
	t.Parallel()
	var got events
	release := make(chan struct{})
	c := callbackClient(t, func(cfg *midas.Config) {
		cfg.OnCallback = func(e midas.CallbackEvent) { <-release; got.add(e) }
	})
	result := errors.New("database is down")
	h := c.DeliveryHandler(func(context.Context, *midas.Delivery) error { return result })
	hungUp, cancel := context.WithCancel(t.Context())
	cancel()
	callBack := func() {
		r := httptest.NewRequest("GET", "/pay/notify?"+signed(nil), nil)
		h.ServeHTTP(httptest.NewRecorder(), r.WithContext(hungUp))
	}
	serve(h, "GET", "forged=1") // keeps the hook busy
	callBack()
	result = nil
	callBack()
	close(release)
	require.NoError(t, c.Wait(t.Context()))
	require.Len(t, got.all, 3)
	require.True(t, got.all[2].MustReconcile())
}

// Anybody can send a callback that does not verify, with a path of a megabyte.
func TestAnUnverifiedEventIsSmall(t *testing.T) {
	t.Parallel()
	var got events
	c := callbackClient(t, func(cfg *midas.Config) { cfg.OnCallback = got.add })
	r := httptest.NewRequest("GET", "/"+strings.Repeat("p", 1<<20), nil)
	r.RemoteAddr = strings.Repeat("r", 1<<20) // middleware may have taken it from a header
	c.DeliveryHandler(func(context.Context, *midas.Delivery) error { return nil }).ServeHTTP(httptest.NewRecorder(), r)
	require.NoError(t, c.Wait(t.Context()))
	require.LessOrEqual(t, len(got.all[0].Path), 110)
	require.LessOrEqual(t, len(got.all[0].Remote), 110)
}

// A proxy may escape the "?" of a callback: its query is shown no more than elsewhere.
func TestAQueryInThePathIsNotShown(t *testing.T) {
	t.Parallel()
	var got events
	c := callbackClient(t, func(cfg *midas.Config) { cfg.OnCallback = got.add })
	r := httptest.NewRequest("GET", "/pay/notify%3Fsig=abcdefg&openid=1", nil)
	c.DeliveryHandler(func(context.Context, *midas.Delivery) error { return nil }).ServeHTTP(httptest.NewRecorder(), r)
	require.NoError(t, c.Wait(t.Context()))
	require.Equal(t, "/pay/notify", got.all[0].Path)
}

// Middleware that logs requests may read the body before the handler does.
func TestABodyThatMiddlewareReadDoesNotEndTheContext(t *testing.T) {
	t.Parallel()
	ended := make(chan error, 1)
	h := callbackClient(t).DeliveryHandler(func(ctx context.Context, _ *midas.Delivery) error {
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
		ended <- ctx.Err()
		return nil
	})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		h.ServeHTTP(w, r)
	}))
	defer srv.Close()
	r, err := http.NewRequest("GET", srv.URL+"/pay/notify?"+signed(nil), strings.NewReader("{}"))
	require.NoError(t, err)
	resp, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	resp.Body.Close()
	require.NoError(t, <-ended)
}

// A caller that closes its connection as soon as it has the answer has not hung up.
func TestHangingUpAfterTheAnswerIsInOrder(t *testing.T) {
	t.Parallel()
	var got events
	c := callbackClient(t, func(cfg *midas.Config) { cfg.OnCallback = got.add })
	ctx, hangUp := context.WithCancel(t.Context())
	w := writeHook{httptest.NewRecorder(), hangUp}
	r := httptest.NewRequest("GET", "/pay/notify?"+signed(nil), nil).WithContext(ctx)
	c.DeliveryHandler(func(context.Context, *midas.Delivery) error { return nil }).ServeHTTP(w, r)
	require.NoError(t, c.Wait(t.Context()))
	require.Equal(t, midas.Delivered, got.all[0].Outcome)
}

// A writeHook calls a function once the answer is written.
type writeHook struct {
	http.ResponseWriter
	written func()
}

func (w writeHook) Write(b []byte) (int, error) {
	defer w.written()
	return w.ResponseWriter.Write(b)
}

// Middleware that rewrites the query makes every signature wrong, and nothing else would
// say so (newcomer review, N7).
func TestARewrittenQueryIsNamed(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		what    string
		rewrite func(r *http.Request)
		named   bool
	}{
		{"untouched", func(r *http.Request) {}, false},
		{"a parameter added", func(r *http.Request) { r.URL.RawQuery += "&trace=1" }, true},
		{"sorted and encoded anew", func(r *http.Request) { r.URL.RawQuery = r.URL.Query().Encode() + "&" }, true},
		{"the path stripped", func(r *http.Request) { r.URL.Path = "/" }, false},
	} {
		t.Run(test.what, func(t *testing.T) {
			t.Parallel()
			var got events
			c := callbackClient(t, func(cfg *midas.Config) { cfg.OnCallback = got.add })
			r := httptest.NewRequest("GET", "/pay/notify?"+signed(nil)+"&forged=1", nil)
			test.rewrite(r)
			c.DeliveryHandler(func(context.Context, *midas.Delivery) error { return nil }).ServeHTTP(httptest.NewRecorder(), r)
			require.NoError(t, c.Wait(t.Context()))
			require.ErrorIs(t, got.all[0].Err, midas.ErrSignature)
			require.Equal(t, test.named, strings.Contains(got.all[0].Err.Error(), "something rewrote the query"))
		})
	}
}

// The answer to a repeat is that of a grant, so only the DeliverFunc can tell them apart
// (newcomer review, N10).
func TestARepeatIsToldFromAGrant(t *testing.T) {
	t.Parallel()
	var log journal
	var got events
	granted := map[string]bool{}
	c := callbackClient(t, log.attach, func(cfg *midas.Config) { cfg.OnCallback = got.add })
	h := c.DeliveryHandler(func(ctx context.Context, d *midas.Delivery) error {
		if granted[d.BillNo] {
			midas.MarkRepeat(ctx)
		}
		granted[d.BillNo] = true
		return nil
	})
	for range 3 {
		require.Equal(t, `{"ret":0,"msg":"OK"}`, serve(h, "GET", signed(nil)).Body.String())
	}
	require.NoError(t, c.Wait(t.Context()))
	var repeats, logged []any
	for i, line := range log.lines(t) {
		require.Equal(t, midas.Delivered, got.all[i].Outcome)
		require.Equal(t, "delivered", line["outcome"])
		repeats, logged = append(repeats, got.all[i].Repeat), append(logged, line["repeat"])
	}
	require.Equal(t, []any{false, true, true}, repeats)
	require.Equal(t, []any{nil, true, true}, logged)
}

// A grant that obeys its context says which time was used up, like one that does not (N11).
func TestAGrantThatGivesUpInTimeSaysWhichTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var got events
		c := callbackClient(t, func(cfg *midas.Config) { cfg.OnCallback = got.add })
		h := c.DeliveryHandler(func(ctx context.Context, _ *midas.Delivery) error {
			<-ctx.Done()
			return fmt.Errorf("insert: %w", ctx.Err())
		})
		require.Equal(t, `{"ret":1,"msg":"system_busy"}`, serve(h, "GET", signed(nil)).Body.String())
		require.NoError(t, c.Wait(t.Context()))
		require.Equal(t, midas.TimedOut, got.all[0].Outcome)
		require.Equal(t, 1500*time.Millisecond, got.all[0].Duration)
		require.EqualError(t, got.all[0].Err, "the DeliverFunc used up its 1.5s (Config.DeliverTimeout): insert: context deadline exceeded")
		require.ErrorIs(t, got.all[0].Err, context.DeadlineExceeded)
	})
}

// Looking at an error must not end the process: it may be of a type of the game's own.
func TestAnErrorThatPanicsWhereItIsLookedAtIsAPanic(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, late := range []time.Duration{0, 3 * time.Second} {
			var got events
			c := callbackClient(t, func(cfg *midas.Config) { cfg.OnCallback = got.add })
			h := c.DeliveryHandler(func(context.Context, *midas.Delivery) error { time.Sleep(late); return panickingError{} })
			require.Equal(t, `{"ret":1,"msg":"system_busy"}`, serve(h, "GET", signed(nil)).Body.String())
			require.NoError(t, c.Wait(t.Context()))
			last := got.all[len(got.all)-1]
			require.Equal(t, midas.Panicked, last.Outcome)
			require.Equal(t, late > 0, last.Late)
		}
	})
}

type panickingError struct{}

func (panickingError) Error() string { return "x" }
func (panickingError) Is(error) bool { panic("in Is") }

// 2, 3 and 4 stay what the DeliverFunc chose, though its time was used up.
func TestAnAnswerThatWasChosenIsGivenThoughTheTimeIsUsedUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var got events
		c := callbackClient(t, func(cfg *midas.Config) { cfg.OnCallback, cfg.OtherAppKeys = got.add, []string{"second"} })
		h := c.DeliveryHandler(func(ctx context.Context, _ *midas.Delivery) error { <-ctx.Done(); return midas.ErrTokenNotFound })
		require.Equal(t, `{"ret":3,"msg":"token_not_found"}`, serve(h, "GET", signed(nil)).Body.String())
		h = c.DeliveryHandler(func(context.Context, *midas.Delivery) error { time.Sleep(time.Minute); return nil })
		serve(h, "GET", signedWith("second"))
		require.NoError(t, c.Wait(t.Context()))
		require.Equal(t, midas.Declined, got.all[0].Outcome)
		require.Equal(t, []any{true, 1}, []any{got.all[2].Late, got.all[2].Key}, "a late event has its key too")
	})
}
