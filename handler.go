package midas

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// maxShown is how much is kept of what anybody can send, in bytes.
const maxShown = 100

// midasPatience is how long Midas waits for the answer to a callback; then it
// reports "system busy" and may cancel the charge (protocol.md 1, the whole flow).
const midasPatience = 2 * time.Second

// DeliverFunc grants the items of a verified delivery. It is called concurrently,
// also for the same payment, and must grant once for each (OpenID, BillNo); for a
// payment that was granted before it returns nil again.
//
// ctx ends after Config.DeliverTimeout, or when Midas hangs up; give up and roll back
// then. (A caller that closes its half of the connection counts as one that hung up.)
// The DeliverFunc may keep and modify d.
//
// What it returns decides the answer, as [ReplyTo] says. nil is the only way to answer
// OK. 2, 3 and 4, which Midas takes as final, are answered only for [ErrTokenExpired],
// for [ErrTokenNotFound], and for a [*ParamError] without a Field or [ErrSignature]. Any
// other error, a panic included, is ret 1.
type DeliverFunc func(ctx context.Context, d *Delivery) error

// An Outcome says what became of a callback.
type Outcome string

// The outcomes of callbacks.
const (
	Delivered  Outcome = "delivered"  // the DeliverFunc returned nil and was answered ret 0 in time
	Declined   Outcome = "declined"   // the DeliverFunc chose to answer 2, 3 or 4
	Failed     Outcome = "failed"     // the DeliverFunc returned another error
	Panicked   Outcome = "panicked"   // the DeliverFunc panicked or ended its goroutine
	TimedOut   Outcome = "timed_out"  // ret 1 was answered because there was no result in time
	Shed       Outcome = "shed"       // ret 1 was answered because Config.MaxDeliveries were running
	HungUp     Outcome = "hung_up"    // Midas hung up first, or the answer left after its two seconds
	Malformed  Outcome = "malformed"  // a verified callback with a parameter that is missing or does not fit
	Unverified Outcome = "unverified" // not a GET, or the signature does not match: anybody can send these
)

// A CallbackEvent says what became of one callback. Each answer makes one event; a
// DeliverFunc that returns after its callback was answered makes another one, which
// is Late. It holds no secret, unless the DeliverFunc's own error does.
type CallbackEvent struct {
	Outcome  Outcome
	Late     bool          // the DeliverFunc returned after ret 1 had been answered
	Ret      int           // as answered; of a Late event, what it would have been; -1 for status 405
	Duration time.Duration // since the callback arrived
	Err      error         // why it was not delivered; nil if it was

	// OpenID, BillNo and Token are those of a verified callback; empty for an unverified
	// one.
	OpenID, BillNo, Token string

	// Path and Remote are those of an unverified callback as the handler saw them, cut
	// at a "?" and after 100 bytes.
	Path, Remote string

	// Missed is how many events before this one were dropped because OnCallback took too
	// long: a thousand were waiting, or one like it was. An event that has to be reconciled
	// is dropped only where the same one of the same payment is waiting.
	Missed int

	stack string // of a panic
}

// Reconcile reports whether the items were granted although Midas may not know it:
// the player's charge may have been cancelled, so somebody should look at it.
func (e CallbackEvent) Reconcile() bool {
	return e.Ret == 0 && (e.Late || e.Outcome == HungUp)
}

// LogValue shows the event as a group, the openid shortened.
func (e CallbackEvent) LogValue() slog.Value {
	attrs := []slog.Attr{slog.String("outcome", string(e.Outcome)), slog.Int("ret", e.Ret), slog.Duration("duration", e.Duration)}
	add := func(name, value string) {
		if value != "" {
			attrs = append(attrs, slog.String(name, value))
		}
	}
	add("billno", clip(e.BillNo, 4*maxBillNo))
	add("openid", clip(e.OpenID, 4))
	add("token", clip(e.Token, 200))
	if e.Late {
		attrs = append(attrs, slog.Bool("late", true))
	}
	if e.Err != nil {
		add("error", e.Err.Error())
	}
	add("path", e.Path)
	add("remote", e.Remote)
	add("stack", e.stack)
	if e.Missed > 0 {
		attrs = append(attrs, slog.Int("missed", e.Missed))
	}
	return slog.GroupValue(attrs...)
}

func (e CallbackEvent) level() slog.Level {
	switch {
	case e.Reconcile(), e.Ret == 1:
		return slog.LevelError
	case e.Outcome == Delivered:
		return slog.LevelInfo
	}
	return slog.LevelWarn
}

func (e CallbackEvent) message() string {
	if e.Reconcile() {
		return "midas: delivered, but Midas may have cancelled the charge: reconcile it"
	}
	return "midas: callback"
}

// clip shortens text for a log line.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}

// DeliveryHandler returns the handler of the delivery URL: it verifies each callback,
// runs deliver for it and answers Midas. It serves whatever path it is mounted at;
// the path that was signed is Config.DeliveryPath. Mount it before middleware that
// rewrites the query.
//
// Every GET is answered with status 200 and the bytes of a [Reply], any other method
// with 405. The answer leaves after Config.AnswerTimeout at the latest: without a
// result by then it is ret 1. So is a panic of deliver, and so is any verified callback
// while Config.MaxDeliveries are running. A request that announces a body is answered
// without reading it, and its connection is closed.
//
// Config.Logger and Config.OnCallback get one [CallbackEvent] for each answer, and
// one more where deliver returned after it. Neither can hold up an answer. Log lines
// are at Info level for deliveries, at Warn for what was refused (ten a minute at most
// of callbacks that do not verify), at Error for ret 1 and for what must be reconciled:
// a delivery that Midas may not know of, because it came after the answer or Midas hung
// up, so that the charge may have been cancelled.
//
// It panics if Config.DeliveryPath is empty or deliver is nil. The handler is safe for
// concurrent use.
func (c *Client) DeliveryHandler(deliver DeliverFunc) http.Handler {
	if c.cfg.DeliveryPath == "" {
		panic(errNoDeliveryPath.Error())
	}
	if deliver == nil {
		panic("midas: DeliveryHandler without a DeliverFunc")
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		if r.ContentLength != 0 {
			// net/http would wait for the body: before the answer unless the connection is
			// closed, and after it unless its time is up. A deadline that passes earlier would
			// end the request's context where middleware has read the body.
			w.Header().Set("Connection", "close")
			defer func() { _ = http.NewResponseController(w).SetReadDeadline(start) }() // not every server can
		}
		if r.Method != http.MethodGet { // the signature covers the method
			w.Header().Set("Allow", http.MethodGet)
			w.Header().Set("Content-Length", "0")
			w.WriteHeader(http.StatusMethodNotAllowed)
			c.report(r.Context(), unverified(r, errNotGet), start)
			return
		}
		// Adaptors of other servers reuse the memory of a request that a DeliverFunc may outlive.
		d, err := c.parse(strings.Clone(r.URL.RawQuery))
		var (
			e     CallbackEvent
			reply = systemBusy
		)
		switch {
		case d == nil:
			e, reply = unverified(r, err), ReplyTo(err)
		case err != nil:
			e, reply = about(d, Malformed, err), ReplyTo(err)
		case !c.running.Add(c.cfg.MaxDeliveries):
			e = about(d, Shed, c.fullUp(c.cfg.MaxDeliveries))
		default:
			e, reply = c.run(r.Context(), deliver, d, start)
		}
		e.Ret = reply.ret
		hungUp := r.Context().Err() != nil // before the answer: after it Midas may well hang up
		sent := send(w, reply)
		tooLate := time.Since(start) >= midasPatience
		if err == nil && (hungUp || sent != nil || tooLate) {
			e.Outcome = HungUp
		}
		c.report(r.Context(), e, start)
	})
}

// about returns the event of a verified callback.
func about(d *Delivery, outcome Outcome, err error) CallbackEvent {
	return CallbackEvent{Outcome: outcome, Err: err, OpenID: d.OpenID, BillNo: d.BillNo, Token: d.Token}
}

// unverified returns the event of a callback that is not verified.
func unverified(r *http.Request, err error) CallbackEvent {
	if _, received, _ := strings.Cut(r.RequestURI, "?"); r.RequestURI != "" && received != r.URL.RawQuery {
		err = fmt.Errorf("%w; something rewrote the query on its way to this handler: mount it before that middleware", err)
	}
	// Cloned, since events may wait and would keep the whole request line.
	path, _, _ := strings.Cut(r.URL.Path, "?") // which a proxy may have escaped: a query would follow
	path, remote := strings.Clone(clip(path, maxShown)), strings.Clone(clip(r.RemoteAddr, maxShown))
	return CallbackEvent{Outcome: Unverified, Ret: -1, Err: err, Path: path, Remote: remote}
}

// send sends an answer at once. A ResponseWriter that panics is one that did not send it.
func send(w http.ResponseWriter, reply Reply) (err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("the ResponseWriter panicked: %v", cause)
		}
	}()
	body := reply.Bytes()
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store")
	if _, err := w.Write(body); err != nil {
		return err
	}
	if err := http.NewResponseController(w).Flush(); !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	return nil
}

var errNoResult = errors.New("the DeliverFunc has not returned in time")

// run runs deliver and returns what became of it, or ret 1 when the answer has to
// leave. Then deliver goes on in the background; see Wait.
func (c *Client) run(ctx context.Context, deliver DeliverFunc, d *Delivery, start time.Time) (CallbackEvent, Reply) {
	answerBy := time.NewTimer(c.cfg.AnswerTimeout - time.Since(start))
	defer answerBy.Stop()
	limited, cancel := context.WithTimeout(ctx, c.cfg.DeliverTimeout-time.Since(start))
	timedOut := about(d, TimedOut, errNoResult)

	// Whoever sets answered first decides the answer, the result or the timer. So a nil is
	// either answered ret 0 or known to be late, never lost in between.
	var answered atomic.Bool
	type result struct {
		event CallbackEvent
		reply Reply
	}
	results := make(chan result, 1)
	go func() {
		defer c.running.Done()
		defer cancel()
		res := result{about(d, Panicked, errors.New("the DeliverFunc ended its goroutine")), systemBusy}
		defer func() { // deferred, for a DeliverFunc that calls runtime.Goexit
			if answered.CompareAndSwap(false, true) {
				results <- res
				return
			}
			res.event.Late, res.event.Ret = true, res.reply.ret
			c.report(ctx, res.event, start)
		}()
		call(limited, deliver, d, &res.event, &res.reply)
	}()

	select {
	case res := <-results:
		return res.event, res.reply
	case <-answerBy.C:
		if answered.CompareAndSwap(false, true) {
			return timedOut, systemBusy
		}
		res := <-results
		return res.event, res.reply
	}
}

// call calls deliver and sets what became of it. Only a nil that deliver returns
// becomes ret 0. A panic is ret 1, and so is one in the Error method of what it
// returned. Goexit, and panic(nil) under GODEBUG=panicnil=1, leave e and reply as they
// are.
func call(ctx context.Context, deliver DeliverFunc, d *Delivery, e *CallbackEvent, reply *Reply) {
	defer func() {
		if cause := recover(); cause != nil {
			e.Outcome, e.Err, e.stack = Panicked, fmt.Errorf("the DeliverFunc panicked: %v", cause), string(debug.Stack())
			*reply = systemBusy
		}
	}()
	err := deliver(ctx, d)
	if err != nil {
		_ = err.Error() // panics here if it ever does, and not where the event is logged
	}
	answer := ReplyTo(err)
	outcome := Declined
	switch answer.ret {
	case 0:
		outcome = Delivered
	case 1:
		outcome = Failed
	}
	e.Outcome, e.Err, *reply = outcome, err, answer
}

// report hands an event to the log and the hook.
func (c *Client) report(ctx context.Context, e CallbackEvent, start time.Time) {
	if c.log == nil && c.hook == nil {
		return
	}
	e.Duration = time.Since(start)
	key := "" // of what must not be dropped: a verified payment that Midas does not know to be delivered
	if e.BillNo != "" && (e.Outcome != Delivered || e.Late) {
		key = fmt.Sprintf("%s %s %d %t", PaymentID(e.OpenID, e.BillNo), e.Outcome, e.Ret, e.Late)
	}
	if c.hook != nil {
		c.hook.Add(key, func(missed int) {
			e := e
			e.Missed = missed
			c.cfg.OnCallback(e)
		})
	}
	if c.log == nil {
		return
	}
	var suppressed int
	if e.Outcome == Unverified {
		var ok bool
		if suppressed, ok = c.forged.Allow(start); !ok {
			return
		}
	}
	ctx = context.WithoutCancel(ctx) // for what a log handler takes from it, such as a trace
	c.log.Add(key, func(missed int) {
		e := e
		e.Missed = missed + suppressed
		c.cfg.Logger.LogAttrs(ctx, e.level(), e.message(), e.LogValue().Group()...)
	})
}

// Ready returns nil, or an error while Config.MaxDeliveries DeliverFuncs are running,
// which means that new callbacks are answered ret 1. For a readiness check:
// DeliverFuncs that ignore their context may never make room, and somebody must hear of it.
func (c *Client) Ready() error {
	if n := c.running.Count(); n >= c.cfg.MaxDeliveries {
		return c.fullUp(n)
	}
	return nil
}

func (c *Client) fullUp(running int) error {
	return fmt.Errorf("midas: %d DeliverFuncs are running, at most %d may: does one ignore its context?", running, c.cfg.MaxDeliveries)
}

// Wait returns once every DeliverFunc that is running has returned, including those
// whose callback was answered long ago, and everything about them has been logged; or
// it returns ctx.Err() when ctx ends first. For a graceful shutdown call it after
// http.Server.Shutdown and before the database is closed.
func (c *Client) Wait(ctx context.Context) error {
	if err := c.running.Wait(ctx); err != nil {
		return err
	}
	if err := c.hook.Wait(ctx); err != nil {
		return err
	}
	return c.log.Wait(ctx)
}
