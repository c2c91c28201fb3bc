package answer_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/midas-go/midas/internal/answer"
	"github.com/stretchr/testify/require"
)

func TestTheResultAndTheTimerRace(t *testing.T) {
	t.Parallel()
	failed := errors.New("failed")
	const hangs = "the function has not returned, and its 1.5s (Config.DeliverTimeout) are used up"
	for _, test := range []struct {
		what  string
		f     func(ctx context.Context) error
		kind  answer.Kind
		err   string // "": nil
		after time.Duration
		late  string // the error of the late result; "none" where there is none
		value int    // 7 if f returned in time
	}{
		{"at once", func(context.Context) error { return nil }, answer.Returned, "", 0, "none", 7},
		{"an error", func(context.Context) error { return failed }, answer.Returned, "failed", 0, "none", 7},
		{"at the end of its context", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
			answer.TimedOut, "the function used up its 1.5s (Config.DeliverTimeout): context deadline exceeded", 1500 * time.Millisecond, "none", 7},
		{"a success at the end of its context", func(ctx context.Context) error { <-ctx.Done(); return nil }, answer.Returned, "", 1500 * time.Millisecond, "none", 7},
		{"a success between the two moments", func(context.Context) error { time.Sleep(1700 * time.Millisecond); return nil }, answer.Returned, "", 1700 * time.Millisecond, "none", 7},
		{"a success after the answer", func(context.Context) error { time.Sleep(time.Minute); return nil }, answer.TimedOut, hangs, 1800 * time.Millisecond, "", 0},
		{"an error after the answer", func(context.Context) error { time.Sleep(time.Minute); return failed }, answer.TimedOut, hangs, 1800 * time.Millisecond,
			"the function used up its 1.5s (Config.DeliverTimeout): failed", 0},
		{"never: it ends its goroutine", func(context.Context) error { runtime.Goexit(); return nil }, answer.Panicked, "the function ended its goroutine", 0, "none", 0},
		{"never, after the answer", func(context.Context) error { time.Sleep(time.Minute); runtime.Goexit(); return nil }, answer.TimedOut, hangs, 1800 * time.Millisecond, "the function ended its goroutine", 0},
		{"a panic", func(context.Context) error { panic("x") }, answer.Panicked, "the function panicked: x", 0, "none", 0},
		{"a panic in Error", func(context.Context) error { return new(badError) }, answer.Panicked, "the function panicked: in Error", 0, "none", 0},
	} {
		t.Run(test.what, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				places := answer.NewPlaces(1)
				start := time.Now()
				limits := answer.Limits{Start: start, Work: 1500 * time.Millisecond, Answer: 1800 * time.Millisecond}
				late := "none"
				got := answer.Run(t.Context(), places, limits, "function", value(test.f), func(r answer.Result[int]) { late = answer.Text(r.Err) })
				require.Equal(t, test.after, time.Since(start))
				require.Equal(t, test.kind, got.Kind)
				require.Equal(t, test.err, answer.Text(got.Err))
				require.Equal(t, test.err == "", got.Err == nil)
				require.Equal(t, test.value, got.Value)
				require.Equal(t, strings.Contains(test.what, "panic"), strings.Contains(got.Stack, "answer_test.go"))
				require.NoError(t, places.Wait(t.Context()))
				require.Equal(t, test.late, late)
				require.NoError(t, places.Full())
			})
		})
	}
}

// value gives a function another result, which it takes longest to make.
func value(f func(context.Context) error) func(context.Context) (int, error) {
	return func(ctx context.Context) (int, error) { err := f(ctx); return 7, err }
}

type badError struct{}

func (*badError) Error() string { panic("in Error") }

// What was spent before, reading a body for instance, is not given again.
func TestTheTimesCountFromTheArrival(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		arrived := time.Now()
		time.Sleep(time.Second)
		limits := answer.Limits{Start: arrived, Work: 1500 * time.Millisecond, Answer: 1800 * time.Millisecond}
		r := answer.Run(t.Context(), answer.NewPlaces(1), limits, "function", value(func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }), nil)
		require.Equal(t, answer.TimedOut, r.Kind)
		require.Equal(t, 1500*time.Millisecond, time.Since(arrived))
	})
}

func TestAFunctionWithoutAPlaceIsNotCalled(t *testing.T) {
	t.Parallel()
	r := answer.Run(t.Context(), answer.NewPlaces(0), answer.Limits{}, "function", value(func(context.Context) error { panic("called") }), nil)
	require.Equal(t, answer.Shed, r.Kind)
	require.EqualError(t, r.Err, "0 functions are running, at most 0 may: does one ignore its context?")
}

// One who hangs up ends the context too, but uses up no time.
func TestACallerWhoHangsUpIsNotATimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hungUp, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Millisecond, cancel)
		r := answer.Run(hungUp, answer.NewPlaces(1), answer.Limits{Start: time.Now(), Work: time.Second, Answer: 2 * time.Second}, "function", value(func(ctx context.Context) error {
			child, cancel := context.WithCancel(ctx) // as a database driver makes one
			defer cancel()
			<-child.Done()
			return child.Err()
		}), nil)
		require.Equal(t, answer.Result[int]{Value: 7, Err: context.Canceled}, r)
	})
}

func TestARepeatIsMarkedInItsOwnContext(t *testing.T) {
	t.Parallel()
	type key struct{}
	ctx := context.WithValue(t.Context(), key{}, "kept")
	limits := answer.Limits{Start: time.Now(), Work: time.Minute, Answer: time.Minute}
	marked := answer.Run(ctx, answer.NewPlaces(1), limits, "function", value(func(ctx context.Context) error {
		require.Equal(t, "kept", ctx.Value(key{}))
		answer.MarkRepeat(context.WithValue(ctx, key{}, "another"))
		return nil
	}), nil)
	require.Equal(t, answer.Result[int]{Value: 7, Repeat: true}, marked)
	answer.MarkRepeat(t.Context()) // nobody's: nothing happens
	require.Equal(t, answer.Result[int]{Value: 7}, answer.Run(ctx, answer.NewPlaces(1), limits, "function", value(func(context.Context) error { return nil }), nil))
}

func TestPlacesAreCounted(t *testing.T) {
	t.Parallel()
	places := answer.NewPlaces(2)
	require.NoError(t, places.Wait(t.Context()))
	require.NoError(t, places.Take())
	require.NoError(t, places.Full())
	require.NoError(t, places.Take())
	require.EqualError(t, places.Take(), "2 functions are running, at most 2 may: does one ignore its context?")
	require.EqualError(t, places.Full(), "2 functions are running, at most 2 may: does one ignore its context?")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, places.Wait(ended), context.Canceled)
	places.Leave()
	places.Leave()
	require.NoError(t, places.Wait(t.Context()))
}

// A lines is a log handler that keeps its lines.
type lines struct {
	mu    sync.Mutex
	lines []string
	hook  func()
}

func (l *lines) Enabled(context.Context, slog.Level) bool { return true }
func (l *lines) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l *lines) WithGroup(string) slog.Handler            { return l }
func (l *lines) Handle(_ context.Context, r slog.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	line := r.Level.String() + " " + r.Message
	r.Attrs(func(a slog.Attr) bool { line += " " + a.String(); return true })
	l.lines = append(l.lines, line)
	if l.hook != nil {
		l.hook()
	}
	return nil
}

func event(key, stranger string) answer.Event {
	return answer.Event{
		Key: key, Stranger: stranger, Level: slog.LevelError, Message: "event",
		Attrs: func(missed int) []slog.Attr { return answer.Attrs(slog.Int("missed", missed)) }, Hook: func(int) {},
	}
}

func TestLinesOfStrangersAreFewAndQuiet(t *testing.T) {
	t.Parallel()
	var log lines
	e := answer.NewEvents(slog.New(&log), false)
	start := time.Unix(1516080285, 0)
	for i := range 500 {
		e.Tell(t.Context(), event("", "unverified"), start.Add(time.Duration(i)*time.Millisecond))
		e.Tell(t.Context(), event("", "mock"), start.Add(time.Duration(i)*time.Millisecond))
	}
	require.NoError(t, e.Wait(t.Context()))
	require.Len(t, log.lines, 20)
	require.Equal(t, "WARN event", log.lines[0])
	e.Tell(t.Context(), event("", "unverified"), start.Add(time.Minute))
	require.NoError(t, e.Wait(t.Context()))
	require.Equal(t, "WARN event missed=490", log.lines[20])
	for range 20 {
		e.Tell(t.Context(), event("", ""), start)
	}
	require.NoError(t, e.Wait(t.Context()))
	require.Len(t, log.lines, 41)
	require.Equal(t, "ERROR event", log.lines[40])
}

func TestAnEventThatNeedsActionIsNotLostWithItsHook(t *testing.T) {
	t.Parallel()
	var log lines
	e := answer.NewEvents(slog.New(&log), true)
	needed, other := event("payment 1", ""), event("", "")
	needed.Hook, other.Hook = func(int) { panic("hook") }, func(int) { panic("hook") }
	e.Tell(t.Context(), needed, time.Now())
	e.Tell(t.Context(), other, time.Now())
	require.NoError(t, e.Wait(t.Context()))
	require.ElementsMatch(t, []string{"ERROR event", "ERROR event", "ERROR event: the hook for it panicked panic=hook"}, log.lines)
}

func TestEventsWithoutAReaderAreSilent(t *testing.T) {
	t.Parallel()
	e := answer.NewEvents(nil, false)
	require.True(t, e.Silent())
	e.Log(t.Context(), "line")
	e.Tell(t.Context(), event("", ""), time.Now())
	require.NoError(t, e.Wait(t.Context()))
	require.False(t, answer.NewEvents(nil, true).Silent())
}

func TestWhatWaitsIsBounded(t *testing.T) {
	t.Parallel()
	release, first := make(chan struct{}), make(chan struct{})
	var told []int // missed, by each hook
	e := answer.NewEvents(nil, true)
	blocking := event("", "")
	blocking.Hook = func(int) { close(first); <-release }
	e.Tell(t.Context(), blocking, time.Now())
	<-first
	for range 1500 {
		plain := event("", "")
		plain.Hook = func(missed int) { told = append(told, missed) }
		e.Tell(t.Context(), plain, time.Now())
	}
	for range 3 {
		needed := event("payment 1", "")
		needed.Hook = func(missed int) { told = append(told, missed) }
		e.Tell(t.Context(), needed, time.Now())
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, e.Wait(ended), context.Canceled)
	close(release)
	require.NoError(t, e.Wait(t.Context()))
	require.Len(t, told, 1001)
	require.Equal(t, 500, told[1000], "dropped before the one that must not be")
}

func TestALogHandlerMayEndItsGoroutine(t *testing.T) {
	t.Parallel()
	log := lines{hook: runtime.Goexit}
	e := answer.NewEvents(slog.New(&log), false)
	for range 3 {
		e.Log(t.Context(), "line", slog.Int("n", 1))
	}
	require.NoError(t, e.Wait(t.Context()))
	require.Equal(t, []string{"WARN line n=1", "WARN line n=1", "WARN line n=1"}, log.lines)
}

type badWriter struct {
	http.ResponseWriter
	write func() (int, error)
}

func (w badWriter) Write([]byte) (int, error) { return w.write() }

func TestAnAnswerIsSentOrItIsSaid(t *testing.T) {
	t.Parallel()
	w := httptest.NewRecorder()
	require.NoError(t, answer.Send(w, 403, "text/plain", []byte("no")))
	require.Equal(t, 403, w.Code)
	require.True(t, w.Flushed)
	require.Equal(t, http.Header{"Content-Type": {"text/plain"}, "Content-Length": {"2"}, "Cache-Control": {"no-store"}}, w.Header())
	w = httptest.NewRecorder()
	require.NoError(t, answer.Send(w, 405, "", nil))
	require.NotContains(t, w.Header(), "Content-Type")

	lost := errors.New("lost")
	require.ErrorIs(t, answer.Send(badWriter{httptest.NewRecorder(), func() (int, error) { return 0, lost }}, 200, "", nil), lost)
	require.EqualError(t, answer.Send(badWriter{httptest.NewRecorder(), func() (int, error) { panic("x") }}, 200, "", nil), "the ResponseWriter panicked: x")
}

// On HTTP/1 the connection of a body that is not read is closed; on HTTP/2 that would cost all
// other requests on it theirs.
func TestABodyThatIsNotReadCostsOnlyItsOwnRequest(t *testing.T) {
	t.Parallel()
	for _, http2 := range []bool{false, true} {
		var mu sync.Mutex
		connections := 0
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/too-long" {
				answer.HangUp(w, r)
			} else {
				defer answer.RefuseBody(w, r, time.Now())()
			}
			_ = answer.Send(w, 200, "", []byte("ok"))
		}))
		server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
			if state == http.StateNew {
				mu.Lock()
				connections++
				mu.Unlock()
			}
		}
		server.EnableHTTP2 = http2
		server.StartTLS()
		defer server.Close()
		for i := range 5 {
			path := "/refused"
			if i%2 == 0 {
				path = "/too-long"
			}
			resp, err := server.Client().Post(server.URL+path, "text/plain", strings.NewReader("body"))
			require.NoError(t, err)
			require.Equal(t, http2, resp.ProtoMajor == 2)
			_, err = io.Copy(io.Discard, resp.Body)
			require.NoError(t, err)
			resp.Body.Close()
		}
		mu.Lock()
		require.Equal(t, map[bool]int{false: 5, true: 1}[http2], connections)
		mu.Unlock()
	}
}

func TestOfAStrangerLittleIsKept(t *testing.T) {
	t.Parallel()
	r := httptest.NewRequest(http.MethodGet, "/pay%3Fopenkey=SECRET", nil)
	r.RemoteAddr = strings.Repeat("剑", 200)
	path, remote := answer.Stranger(r)
	require.Equal(t, "/pay", path)
	require.Equal(t, strings.Repeat("剑", 33)+"…", remote)
	require.True(t, utf8.ValidString(remote))
	require.Equal(t, "oABC…", answer.ShortID("oABCdef"))
}

func TestLimitsOutOfRangeAreRefused(t *testing.T) {
	t.Parallel()
	const s = time.Second
	for _, test := range []struct {
		most         int
		work, answer time.Duration
		want         string
	}{
		{1, s, s, ""}, {-1, s, s, "MaxDeliveries"}, {0, 2 * s, s, "DeliverTimeout"}, {0, -s, s, "DeliverTimeout"}, {0, 0, -s, "DeliverTimeout AnswerTimeout"}, {0, s, 3 * s, "AnswerTimeout"},
	} {
		var refused []string
		answer.CheckLimits(test.most, test.work, test.answer, 3*s, func(field, _ string) { refused = append(refused, field) })
		require.Equal(t, test.want, strings.Join(refused, " "))
	}
}
