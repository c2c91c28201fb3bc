package midas_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/midas-go/midas"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestTheDocumentedCallbackPassesTheRealHandler(t *testing.T) {
	t.Parallel()
	var got *midas.Delivery
	h := documentedClient(t).DeliveryHandler(func(_ context.Context, d *midas.Delivery) error { got = d; return nil })
	srv := httptest.NewServer(h)
	defer srv.Close()
	resp, err := http.Get(srv.URL + "/behind/another/path?" + documentedCallback)
	require.NoError(t, err)
	defer resp.Body.Close()
	var body bytes.Buffer
	_, err = body.ReadFrom(resp.Body)
	require.NoError(t, err)
	require.Equal(t, 200, resp.StatusCode)
	require.Equal(t, []byte(`{"ret":0,"msg":"OK"}`), body.Bytes())
	require.EqualValues(t, 20, resp.ContentLength)
	require.Equal(t, "-APPDJSX18246-20140401-1206311492", got.BillNo)
}

func TestEveryGETIsAnsweredWithTheExactBytes(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		what    string
		query   string
		deliver midas.DeliverFunc
		want    string
	}{
		{"delivered", signed(nil), func(context.Context, *midas.Delivery) error { return nil }, `{"ret":0,"msg":"OK"}`},
		{"failed", signed(nil), func(context.Context, *midas.Delivery) error { return errors.New("x") }, `{"ret":1,"msg":"system_busy"}`},
		{"token expired", signed(nil), func(context.Context, *midas.Delivery) error { return midas.ErrTokenExpired }, `{"ret":2,"msg":"token_expired"}`},
		{"no such token", signed(nil), func(context.Context, *midas.Delivery) error { return midas.ErrTokenNotFound }, `{"ret":3,"msg":"token_not_found"}`},
		{"bad parameter", signed(nil), func(context.Context, *midas.Delivery) error { return &midas.ParamError{Param: "payitem"} }, `{"ret":4,"msg":"bad_parameter:payitem"}`},
		{"panic", signed(nil), func(context.Context, *midas.Delivery) error { panic("x") }, `{"ret":1,"msg":"system_busy"}`},
		{"abort", signed(nil), func(context.Context, *midas.Delivery) error { panic(http.ErrAbortHandler) }, `{"ret":1,"msg":"system_busy"}`},
		{"an error that is a nil pointer", signed(nil), func(context.Context, *midas.Delivery) error { var p *midas.ParamError; return p }, `{"ret":1,"msg":"system_busy"}`},
		{"an error whose text panics", signed(nil), func(context.Context, *midas.Delivery) error { return (*panickyError)(nil) }, `{"ret":1,"msg":"system_busy"}`},
		{"forged", signed(nil) + "x", nil, `{"ret":4,"msg":"bad_parameter:sig"}`},
		{"another app's", signed(map[string]string{"appid": "7"}), nil, `{"ret":4,"msg":"bad_parameter:appid"}`},
	} {
		t.Run(test.what, func(t *testing.T) {
			t.Parallel()
			if test.deliver == nil {
				test.deliver = func(context.Context, *midas.Delivery) error { t.Error("delivered"); return nil }
			}
			w := serve(callbackClient(t).DeliveryHandler(test.deliver), "GET", test.query)
			require.Equal(t, 200, w.Code)
			require.Equal(t, test.want, w.Body.String())
			require.Equal(t, http.Header{
				"Content-Length": {strconv.Itoa(len(test.want))}, "Content-Type": {"application/json"}, "Cache-Control": {"no-store"},
			}, w.Result().Header)
		})
	}
}

type panickyError struct{ text string }

func (e *panickyError) Error() string { return e.text }

// With GODEBUG=panicnil=1, which some old programs need, recover returns nil for panic(nil).
func TestAPanicWithNilIsNoSuccess(t *testing.T) {
	t.Setenv("GODEBUG", "panicnil=1")
	h := callbackClient(t).DeliveryHandler(func(context.Context, *midas.Delivery) error { panic(nil) })
	require.Equal(t, `{"ret":1,"msg":"system_busy"}`, serve(h, "GET", signed(nil)).Body.String())
}

// A log may block: on a pipe, a full disk, a collector. Midas waits for two seconds only.
func TestTheAnswerDoesNotWaitForTheLog(t *testing.T) {
	t.Parallel()
	for what, test := range map[string]struct{ query, want string }{
		"delivered": {signed(nil), `{"ret":0,"msg":"OK"}`},
		"refused":   {"", `{"ret":4,"msg":"bad_parameter:sig"}`},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			logging, release := make(chan bool), make(chan bool)
			c := callbackClient(t, func(cfg *midas.Config) {
				cfg.Logger = slog.New(handlerFunc(func(slog.Record) { close(logging); <-release }))
			})
			srv := httptest.NewServer(c.DeliveryHandler(func(context.Context, *midas.Delivery) error { return nil }))
			defer srv.Close()
			resp, err := http.Get(srv.URL + "/pay/notify?" + test.query)
			require.NoError(t, err)
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			require.Equal(t, test.want, string(body))
			<-logging
			close(release)
			require.NoError(t, c.Wait(t.Context()))
		})
	}
}

func TestOtherMethodsGet405AndNoBody(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"POST", "HEAD", "PUT", "OPTIONS"} {
		t.Run(method, func(t *testing.T) {
			t.Parallel()
			h := callbackClient(t).DeliveryHandler(func(context.Context, *midas.Delivery) error { t.Error("delivered"); return nil })
			w := serve(h, method, signed(nil))
			require.Equal(t, 405, w.Code)
			require.Equal(t, "GET", w.Header().Get("Allow"))
			require.Equal(t, "0", w.Header().Get("Content-Length"))
			require.Empty(t, w.Body.Bytes())
		})
	}
}

func TestHostileQueriesAreAnsweredAndDeliverNothing(t *testing.T) {
	t.Parallel()
	h := callbackClient(t).DeliveryHandler(func(_ context.Context, d *midas.Delivery) error { t.Error("delivered", d.Params); return nil })
	random := rand.New(rand.NewPCG(2018, 2))
	good := signed(nil)
	atoms := []string{"&", "=", "%", "%00", "%zz", ";", "+", "\x00", "\xff\xfe", "剑", "sig", "sig=x", "sig=AAAA&sig=BBBB", "amt=-1", "amt=99999999999999999999",
		"version=v5&sign=abc", "payitem=a*b*c", "billno=" + strings.Repeat("9", 70), strings.Repeat("A", 300), "a[]=1", "../../etc/passwd", "<script>", "' OR 1=1 --", "\r\nSet-Cookie: a=b", "%0d%0a", good, good[:len(good)/2]}
	queries := []string{strings.Repeat("a=b&", 8<<10), strings.Repeat("&", 16<<10), strings.Repeat("%", 16<<10), strings.Replace(good, "sig=", "Sig=", 1)}
	for len(queries) < 1000 {
		var q strings.Builder
		for range 1 + random.IntN(12) {
			q.WriteString(atoms[random.IntN(len(atoms))])
			if random.IntN(2) == 0 {
				q.WriteByte('&')
			}
		}
		queries = append(queries, q.String())
	}
	for i, query := range queries {
		if query == good || query == good+"&" {
			continue
		}
		r := httptest.NewRequest("GET", "/pay/notify", nil)
		r.URL.RawQuery = query
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		require.Equal(t, 200, w.Code)
		var reply struct {
			Ret int
			Msg string
		}
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &reply), "query %d: %q", i, query)
		require.Equal(t, 4, reply.Ret, "query %d: %q", i, query)
		require.Equal(t, fmt.Sprintf(`{"ret":4,"msg":"%s"}`, reply.Msg), w.Body.String())
		require.NotContains(t, w.Body.String(), " ")
	}
}

func TestTheDeliveryContextEndsBeforeTheAnswerGoesOut(t *testing.T) {
	t.Parallel()
	type key struct{}
	for _, test := range []struct {
		what   string
		after  time.Duration // from the end of the context to the return of DeliverFunc
		config func(*midas.Config)
		want   string
		took   time.Duration
		lines  int
	}{
		{"an error right away", 0, func(*midas.Config) {}, `{"ret":1,"msg":"system_busy"}`, 1500 * time.Millisecond, 1},
		{"a commit that just succeeds", 299 * time.Millisecond, func(*midas.Config) {}, `{"ret":0,"msg":"OK"}`, 1799 * time.Millisecond, 1},
		{"a commit that succeeds too late", 301 * time.Millisecond, func(*midas.Config) {}, `{"ret":1,"msg":"system_busy"}`, 1800 * time.Millisecond, 2},
		{"other limits", 20 * time.Millisecond, func(cfg *midas.Config) {
			cfg.DeliverTimeout, cfg.AnswerTimeout = 100*time.Millisecond, 110*time.Millisecond
		}, `{"ret":1,"msg":"system_busy"}`, 110 * time.Millisecond, 2},
	} {
		t.Run(test.what, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var log journal
				c := callbackClient(t, log.attach, test.config)
				h := c.DeliveryHandler(func(ctx context.Context, d *midas.Delivery) error {
					assert.Equal(t, "request", ctx.Value(key{}), "derived from the request's context")
					<-ctx.Done()
					if test.after == 0 {
						return ctx.Err()
					}
					time.Sleep(test.after)
					return nil
				})
				start := time.Now()
				r := httptest.NewRequest("GET", "/pay/notify?"+signed(nil), nil)
				w := httptest.NewRecorder()
				h.ServeHTTP(w, r.WithContext(context.WithValue(t.Context(), key{}, "request")))
				require.Equal(t, test.want, w.Body.String())
				require.Equal(t, test.took, time.Since(start))
				require.NoError(t, c.Wait(t.Context()))
				require.Len(t, log.lines(t), test.lines)
			})
		})
	}
}

func TestAStuckDeliveryIsAnsweredInTimeAndItsLateSuccessLogged(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log journal
		c := callbackClient(t, log.attach)
		h := c.DeliveryHandler(func(ctx context.Context, d *midas.Delivery) error {
			time.Sleep(time.Minute) // a bubble's minute; a commit that does not look at ctx
			return nil
		})
		start := time.Now()
		w := serve(h, "GET", signed(nil))
		require.Equal(t, 1800*time.Millisecond, time.Since(start))
		require.Equal(t, `{"ret":1,"msg":"system_busy"}`, w.Body.String())
		synctest.Wait() // for the log
		require.Len(t, log.lines(t), 1)
		require.Equal(t, "the DeliverFunc has not returned, and its 1.5s (Config.DeliverTimeout) are used up", log.lines(t)[0]["error"])
		require.Equal(t, "timed_out", log.lines(t)[0]["outcome"])
		require.Equal(t, "ERROR", log.lines(t)[0]["level"])

		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		require.ErrorIs(t, c.Wait(ctx), context.DeadlineExceeded, "it still runs")
		require.NoError(t, c.Wait(t.Context()))
		require.Equal(t, time.Minute, time.Since(start))
		require.Len(t, log.lines(t), 2)
		late := log.lines(t)[1]
		require.Equal(t, "ERROR", late["level"])
		require.Equal(t, "-APPDJ0-1", late["billno"])
		require.Equal(t, "delivered", late["outcome"])
		require.Equal(t, true, late["late"])
		require.EqualValues(t, time.Minute, late["duration"])
		require.Contains(t, late["msg"], "reconcile it")
	})
}

// The DeliverFunc and the timer end at the same moment, over and over: each success is either
// answered or logged as unanswered.
func TestASuccessAtTheLastMomentIsNeverLost(t *testing.T) {
	t.Parallel()
	outcomes := map[string]int{}
	for range 400 {
		synctest.Test(t, func(t *testing.T) {
			var log journal
			c := callbackClient(t, log.attach)
			h := c.DeliveryHandler(func(context.Context, *midas.Delivery) error { time.Sleep(1800 * time.Millisecond); return nil })
			body := serve(h, "GET", signed(nil)).Body.String()
			require.NoError(t, c.Wait(t.Context()))
			late := strings.Contains(log.String(), "reconcile")
			require.Equal(t, body == `{"ret":0,"msg":"OK"}`, !late, "answered %s, late %v", body, late)
			outcomes[body]++
		})
	}
	require.Len(t, outcomes, 2, "both happen: %v", outcomes)
}

func TestADeliverFuncMayChangeItsDelivery(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log journal
		c := callbackClient(t, log.attach)
		h := c.DeliveryHandler(func(_ context.Context, d *midas.Delivery) error {
			for range 5 {
				d.BillNo, d.OpenID = d.BillNo+"x", "x"
				time.Sleep(time.Second)
			}
			return nil
		})
		serve(h, "GET", signed(nil))
		require.NoError(t, c.Wait(t.Context()))
		lines := log.lines(t)
		require.Len(t, lines, 2)
		for _, line := range lines {
			require.Equal(t, "-APPDJ0-1", line["billno"])
			require.Equal(t, "o_TE…", line["openid"])
		}
	})
}

// t.FailNow in a DeliverFunc, say.
func TestADeliverFuncThatEndsItsGoroutineIsAnswered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := callbackClient(t)
		start := time.Now()
		w := serve(c.DeliveryHandler(func(context.Context, *midas.Delivery) error { runtime.Goexit(); return nil }), "GET", signed(nil))
		require.Equal(t, `{"ret":1,"msg":"system_busy"}`, w.Body.String())
		require.Zero(t, time.Since(start), "at once")
		require.NoError(t, c.Wait(t.Context()))
	})
}

func TestCallbacksAreDeliveredConcurrently(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var running atomic.Int32
		var all atomic.Bool
		h := callbackClient(t).DeliveryHandler(func(context.Context, *midas.Delivery) error {
			if running.Add(1) == 20 {
				all.Store(true)
			}
			time.Sleep(time.Second)
			running.Add(-1)
			return nil
		})
		var calls sync.WaitGroup
		for range 20 {
			calls.Go(func() { assert.Equal(t, `{"ret":0,"msg":"OK"}`, serve(h, "GET", signed(nil)).Body.String()) })
		}
		calls.Wait()
		require.True(t, all.Load())
	})
}

func TestWaitReturnsAtOnceWhenNothingRuns(t *testing.T) {
	t.Parallel()
	c := callbackClient(t)
	require.NoError(t, c.Wait(t.Context()))
	h := c.DeliveryHandler(func(context.Context, *midas.Delivery) error { return nil })
	var calls sync.WaitGroup
	for range 50 {
		calls.Go(func() { serve(h, "GET", signed(nil)) })
		calls.Go(func() { assert.NoError(t, c.Wait(t.Context())) })
	}
	calls.Wait()
	require.NoError(t, c.Wait(t.Context()))
}

func TestEachCallbackIsLoggedOnce(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		what    string
		method  string
		query   string
		outcome error
		want    string
	}{
		{"delivered", "GET", signed(nil), nil, "INFO delivered -APPDJ0-1 o_TE… TOKEN 0 <nil> <nil>"},
		{"no such token", "GET", signed(nil), midas.ErrTokenNotFound, "WARN declined -APPDJ0-1 o_TE… TOKEN 3 token not found <nil>"},
		{"a failure", "GET", signed(nil), errors.New("disk full"), "ERROR failed -APPDJ0-1 o_TE… TOKEN 1 disk full <nil>"},
		{"forged", "GET", signed(nil) + "x", nil, "WARN unverified <nil> <nil> <nil> 4 signature not verified: check the pay key, its environment, and that DeliveryPath, /pay/notify, is the registered path /pay/notify"},
		{"POST", "POST", "", nil, "WARN unverified <nil> <nil> <nil> 0 the method is not GET /pay/notify"},
		{"malformed", "GET", signed(map[string]string{"amt": "x"}), nil, "WARN malformed -APPDJ0-1 o_TE… TOKEN 4 parameter amt: not a number from 0 to 9223372036854775807 <nil>"},
	} {
		t.Run(test.what, func(t *testing.T) {
			t.Parallel()
			var log journal
			c := callbackClient(t, log.attach)
			serve(c.DeliveryHandler(func(context.Context, *midas.Delivery) error { return test.outcome }), test.method, test.query)
			require.NoError(t, c.Wait(t.Context()))
			lines := log.lines(t)
			require.Len(t, lines, 1)
			line := lines[0]
			require.Equal(t, "midas: callback", line["msg"])
			require.Contains(t, line, "duration")
			require.Equal(t, test.want, fmt.Sprint(line["level"], " ", line["outcome"], " ", line["billno"], " ", line["openid"], " ", line["token"], " ", line["ret"], " ", line["error"], " ", line["path"]))
		})
	}
}

func TestADeliveryAfterMidasHungUpIsLogged(t *testing.T) {
	t.Parallel()
	var log journal
	ctx, hangUp := context.WithCancel(t.Context())
	c := callbackClient(t, log.attach)
	h := c.DeliveryHandler(func(ctx context.Context, d *midas.Delivery) error {
		hangUp()
		<-ctx.Done()
		assert.ErrorIs(t, ctx.Err(), context.Canceled, "at once, not at the time limit")
		return nil // the commit was through already
	})
	r := httptest.NewRequest("GET", "/pay/notify?"+signed(nil), nil).WithContext(ctx)
	h.ServeHTTP(httptest.NewRecorder(), r)
	require.NoError(t, c.Wait(t.Context()))
	lines := log.lines(t)
	require.Len(t, lines, 1)
	require.Equal(t, "ERROR", lines[0]["level"])
	require.Equal(t, "hung_up", lines[0]["outcome"])
	require.Equal(t, "-APPDJ0-1", lines[0]["billno"])
}

func TestAnAnswerThatCannotBeSentIsLogged(t *testing.T) {
	t.Parallel()
	var log journal
	c := callbackClient(t, log.attach)
	h := c.DeliveryHandler(func(context.Context, *midas.Delivery) error { return nil })
	h.ServeHTTP(brokenWriter{httptest.NewRecorder()}, httptest.NewRequest("GET", "/pay/notify?"+signed(nil), nil))
	require.NoError(t, c.Wait(t.Context()))
	lines := log.lines(t)
	require.Len(t, lines, 1)
	require.Equal(t, "ERROR", lines[0]["level"])
	require.Equal(t, "hung_up", lines[0]["outcome"])
	require.Equal(t, "midas: delivered, but Midas may have cancelled the charge: reconcile it", lines[0]["msg"])
}

type brokenWriter struct{ http.ResponseWriter }

func (brokenWriter) Write([]byte) (int, error) { return 0, syscall.EPIPE }

func TestAPanicIsLoggedWithItsStack(t *testing.T) {
	t.Parallel()
	var log journal
	c := callbackClient(t, log.attach)
	serve(c.DeliveryHandler(func(context.Context, *midas.Delivery) error { panic("no map") }), "GET", signed(nil))
	require.NoError(t, c.Wait(t.Context()))
	lines := log.lines(t)
	require.Len(t, lines, 1)
	require.Contains(t, lines[0]["stack"], "TestAPanicIsLoggedWithItsStack")
	require.Equal(t, "the DeliverFunc panicked: no map", lines[0]["error"])
	require.Equal(t, "-APPDJ0-1", lines[0]["billno"])
}

func TestALatePanicIsLoggedWithItsStack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log journal
		c := callbackClient(t, log.attach)
		serve(c.DeliveryHandler(func(context.Context, *midas.Delivery) error { time.Sleep(time.Minute); panic("late") }), "GET", signed(nil))
		require.NoError(t, c.Wait(t.Context()))
		lines := log.lines(t)
		require.Len(t, lines, 2)
		require.Equal(t, "timed_out", lines[0]["outcome"])
		require.Equal(t, "panicked", lines[1]["outcome"])
		require.Equal(t, "the DeliverFunc panicked: late", lines[1]["error"])
		require.Contains(t, lines[1]["stack"], "TestALatePanicIsLoggedWithItsStack")
	})
}

func TestAFloodOfForgeriesDoesNotFillADisk(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log journal
		c := callbackClient(t, log.attach)
		h := c.DeliveryHandler(func(context.Context, *midas.Delivery) error { return nil })
		lines := func() []map[string]any {
			require.NoError(t, c.Wait(t.Context()))
			return log.lines(t)
		}
		for range 1000 {
			serve(h, "GET", signed(nil)+"x")
		}
		require.Len(t, lines(), 10)
		serve(h, "GET", signed(nil))
		require.Len(t, lines(), 11, "deliveries are logged all the same")
		serve(h, "GET", signed(map[string]string{"amt": "x"}))
		require.Len(t, lines(), 12, "and what only Midas can send wrongly, too")

		time.Sleep(time.Minute)
		serve(h, "GET", signed(nil)+"x")
		require.Len(t, lines(), 13)
		require.EqualValues(t, 990, lines()[12]["missed"])
		serve(h, "GET", signed(nil)+"x")
		require.NotContains(t, lines()[13], "missed", "counted once")
	})
}
