// Package answer is what the handlers of both protocols share: an answer that leaves in
// time whatever the game's function does, and events that hold up no answer. It knows
// neither protocol.
package answer

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// Limits are when a function's context ends and when the answer leaves at the latest, both
// counted from Start.
type Limits struct {
	Start        time.Time
	Work, Answer time.Duration
}

// CheckLimits calls refuse for each field of a configuration that is out of its range.
// patience is how long the caller waits for the answer.
func CheckLimits(most int, work, answer, patience time.Duration, refuse func(field, reason string)) {
	if most < 0 {
		refuse("MaxDeliveries", "negative: 0 means the default")
	}
	if work < 0 || work > answer {
		refuse("DeliverTimeout", fmt.Sprintf("%s is negative, or above AnswerTimeout, which is %s", work, answer))
	}
	if answer < 0 || answer >= patience {
		refuse("AnswerTimeout", fmt.Sprintf("negative, or not below the %s before the caller hangs up", patience))
	}
}

// A Kind says how a function came to its result.
type Kind int

// The kinds of results.
const (
	Returned Kind = iota
	Panicked      // or it ended its goroutine
	TimedOut      // it used up Limits.Work, or has not returned when the answer has to leave
	Shed          // it was not called, since no place was free
)

// A Result is what became of a function. Err is nil only if it returned nil, and Value is its
// other result, zero unless it returned.
type Result[T any] struct {
	Kind   Kind
	Value  T
	Err    error
	Repeat bool   // it called MarkRepeat
	Stack  string // of a panic
}

var errUsedUp = errors.New("the time of the function is used up")

// Run takes a place, calls f in a goroutine of its own, and returns what became of it by the
// time that the answer has to leave. Then f goes on, and late gets its result. name is what
// the game calls f. Whatever may panic over what the game returned belongs into f.
func Run[T any](ctx context.Context, places *Places, limits Limits, name string, f func(context.Context) (T, error), late func(Result[T])) Result[T] {
	if full := places.Take(); full != nil {
		return Result[T]{Kind: Shed, Err: full}
	}
	limited, cancel := context.WithTimeoutCause(ctx, limits.Work-time.Since(limits.Start), errUsedUp)
	// The result and the timer race to set answered; the winner decides the answer. So a
	// success is either answered as one or known to be late, never lost in between.
	var answered atomic.Bool
	results := make(chan Result[T], 1)
	go func() {
		defer places.Leave()
		defer cancel()
		result := Result[T]{Kind: Panicked, Err: fmt.Errorf("the %s ended its goroutine", name)}
		defer func() { // deferred, for a function that calls runtime.Goexit
			if answered.CompareAndSwap(false, true) {
				results <- result
			} else {
				late(result)
			}
		}()
		result.call(limited, f, limits.Work, name)
	}()

	select {
	case result := <-results:
		return result
	case <-limited.Done(): // a timer for the answer is hardly ever needed
	}
	answerBy := time.NewTimer(limits.Answer - time.Since(limits.Start))
	defer answerBy.Stop()
	select {
	case result := <-results:
		return result
	case <-answerBy.C:
		if answered.CompareAndSwap(false, true) {
			return Result[T]{Kind: TimedOut, Err: fmt.Errorf("the %s has not returned, and its %s (Config.DeliverTimeout) are used up", name, limits.Work)}
		}
		return <-results
	}
}

// call calls f and sets in r what became of it. Goexit, and panic(nil) under
// GODEBUG=panicnil=1, leave r as it is.
func (r *Result[T]) call(ctx context.Context, f func(context.Context) (T, error), limit time.Duration, name string) {
	defer func() {
		if cause := recover(); cause != nil {
			*r = Result[T]{Kind: Panicked, Err: fmt.Errorf("the %s panicked: %v", name, cause), Stack: string(debug.Stack())}
		}
	}()
	work := &workContext{Context: ctx}
	value, err := f(work)
	kind := Returned
	if err != nil {
		_ = err.Error()                      // panics here if it ever does, and not where the event is logged
		if context.Cause(ctx) == errUsedUp { //nolint:errorlint // it is the value itself
			kind, err = TimedOut, fmt.Errorf("the %s used up its %s (Config.DeliverTimeout): %w", name, limit, err)
		}
	}
	*r = Result[T]{Kind: kind, Value: value, Err: err, Repeat: work.repeat.Load()}
}

// A workContext is the context of a function; it keeps what the function says of its
// payment.
type workContext struct {
	context.Context
	repeat atomic.Bool
}

type repeatKey struct{}

func (c *workContext) Value(key any) any {
	if key == (repeatKey{}) {
		return &c.repeat
	}
	return c.Context.Value(key)
}

// MarkRepeat notes that the payment which ctx is about had been granted before.
func MarkRepeat(ctx context.Context) {
	if repeat, ok := ctx.Value(repeatKey{}).(*atomic.Bool); ok {
		repeat.Store(true)
	}
}

// HangUp has the connection closed after the answer, since the rest of a body is not read. On
// HTTP/2 that would cost all other requests theirs.
func HangUp(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor == 1 {
		w.Header().Set("Connection", "close")
	}
}

// RefuseBody lets a request be answered whose body is not read: net/http would wait for it,
// before the answer unless the connection is closed, and after it unless its time is up. Call
// what it returns after the answer.
func RefuseBody(w http.ResponseWriter, r *http.Request, start time.Time) (answered func()) {
	if r.ContentLength == 0 {
		return func() {}
	}
	HangUp(w, r)
	// A deadline that passes before the answer would end the request's context where
	// middleware has read the body.
	return func() { _ = http.NewResponseController(w).SetReadDeadline(start) } // not every server can
}

// Send sends an answer at once. A ResponseWriter that panics did not send it.
func Send(w http.ResponseWriter, status int, contentType string, body []byte) (err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("the ResponseWriter panicked: %v", cause)
		}
	}()
	header := w.Header()
	if contentType != "" {
		header.Set("Content-Type", contentType)
	}
	header.Set("Content-Length", strconv.Itoa(len(body)))
	header.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	if _, err := w.Write(body); err != nil {
		return err
	}
	if err := http.NewResponseController(w).Flush(); !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	return nil
}

// maxStranger is the most text of an unverified request that an event keeps, in bytes.
const maxStranger = 100

// Stranger returns the path and the address of an unverified request as its event shows them.
func Stranger(r *http.Request) (path, remote string) {
	path, _, _ = strings.Cut(r.URL.Path, "?") // which a proxy may have escaped: a query would follow
	// Cloned, since events may wait and would keep the whole request line.
	return strings.Clone(Clip(path, maxStranger)), strings.Clone(Clip(r.RemoteAddr, maxStranger))
}

// Clip shortens text to n bytes, and no character is cut in two.
func Clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}

// ShortID is how an openid is shown: enough to tell players apart in a log, too little to
// find one elsewhere.
func ShortID(openID string) string { return Clip(openID, 4) }
