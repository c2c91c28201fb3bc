package midas

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/midas-go/midas/internal/answer"
)

// midasPatience is how long Midas waits for the answer to a callback; then it
// reports "system busy" and may cancel the charge (protocol.md 1, the whole flow).
const midasPatience = 2 * time.Second

// DeliverFunc grants the items of a verified delivery. It is called concurrently,
// also for the same payment, and must grant once for each (OpenID, BillNo); for a
// payment that was granted before it returns nil again, and may call [MarkRepeat].
//
// ctx ends after Config.DeliverTimeout, or when Midas hangs up; give up and roll back
// then. A commit that succeeds all the same before Config.AnswerTimeout is still answered OK. (net/http treats a half-closed connection as hung up.)
// The DeliverFunc may keep and modify d.
//
// What it returns decides the answer, as [ReplyTo] says. Only nil answers OK. 2, 3 and 4,
// which Midas is assumed to take as final, are answered only for [ErrTokenExpired], for
// [ErrTokenNotFound], and for a [*ParamError] or [ErrSignature]. Any other error, a panic
// included, is ret 1.
type DeliverFunc func(ctx context.Context, d *Delivery) error

// An Outcome says what became of a callback.
type Outcome string

// The outcomes of callbacks.
const (
	Delivered  Outcome = "delivered"  // the DeliverFunc returned nil and was answered ret 0 in time
	Declined   Outcome = "declined"   // the DeliverFunc chose to answer 2, 3 or 4
	Failed     Outcome = "failed"     // the DeliverFunc returned another error
	Panicked   Outcome = "panicked"   // the DeliverFunc panicked or ended its goroutine
	TimedOut   Outcome = "timed_out"  // ret 1 was answered: the DeliverFunc used up Config.DeliverTimeout, whether it then returned an error or not at all
	Shed       Outcome = "shed"       // ret 1 was answered because Config.MaxDeliveries were running
	HungUp     Outcome = "hung_up"    // Midas hung up first, or the answer left after its two seconds
	Malformed  Outcome = "malformed"  // a verified callback with a parameter that is missing or does not fit
	Unverified Outcome = "unverified" // not a GET, or the signature does not match: a stranger may have sent it
)

// A CallbackEvent says what became of one callback. Each answer makes one event; a
// DeliverFunc that returns after its callback was answered makes another one, which
// is Late. It holds no secret, unless the DeliverFunc's own error does.
type CallbackEvent struct {
	Outcome  Outcome
	Late     bool          // the DeliverFunc returned after ret 1 had been answered
	Repeat   bool          // the DeliverFunc says that it had granted the payment before: see MarkRepeat
	Status   int           // HTTP status of the answer: 405 if the method is not GET, else 200
	Ret      int           // as answered; of a Late event, what it would have been; 0 with status 405
	Key      int           // the key that it verified under: 0 is Config.AppKey, or none, n is OtherAppKeys[n-1]
	Duration time.Duration // since the callback arrived
	Err      error         // why it was not delivered; nil if it was, also where Midas had hung up

	// OpenID, BillNo and Token are those of a verified callback; empty for an unverified
	// one.
	OpenID, BillNo, Token string

	// Path and Remote are those of an unverified callback as the handler saw them, cut
	// at a "?" and after 100 bytes.
	Path, Remote string

	// Missed is how many events before this one were dropped because OnCallback took too
	// long: a thousand were waiting, or an identical one was. An event about a verified
	// callback that was not answered OK is dropped only for an identical one.
	Missed int

	reply Reply
	stack string // of a panic
}

// MustReconcile reports whether the items were granted although Midas may not know of it:
// the player's charge may have been cancelled, so it needs a person's attention.
func (e CallbackEvent) MustReconcile() bool {
	return e.Ret == 0 && (e.Late || e.Outcome == HungUp)
}

// LogValue shows the event as a group, the openid shortened.
func (e CallbackEvent) LogValue() slog.Value {
	attrs := []slog.Attr{slog.String("outcome", string(e.Outcome)), slog.Int("ret", e.Ret), slog.Duration("duration", e.Duration)}
	attrs = append(attrs, answer.Attrs(
		slog.String("billno", answer.Clip(e.BillNo, 4*maxBillNo)),
		slog.String("openid", answer.ShortID(e.OpenID)),
		slog.String("token", answer.Clip(e.Token, 200)),
		slog.Int("other_key", e.Key),
		slog.Bool("late", e.Late),
		slog.Bool("repeat", e.Repeat),
		slog.String("error", answer.Text(e.Err)),
		slog.String("path", e.Path),
		slog.String("remote", e.Remote),
		slog.String("stack", e.stack),
		slog.Int("missed", e.Missed),
	)...)
	return slog.GroupValue(attrs...)
}

func (e CallbackEvent) level() slog.Level {
	switch {
	case e.MustReconcile(), e.Ret == 1:
		return slog.LevelError
	case e.Outcome == Delivered:
		return slog.LevelInfo
	}
	return slog.LevelWarn
}

func (e CallbackEvent) message() string {
	if e.MustReconcile() {
		return "midas: delivered, but Midas may have cancelled the charge: reconcile it"
	}
	return "midas: callback"
}

// DeliveryHandler returns the handler of the delivery URL: it verifies each callback,
// runs deliver for it and answers Midas. It serves whatever path it is mounted at;
// the path that was signed is Config.DeliveryPath. Mount it before middleware that
// rewrites the query.
//
// Every GET is answered with status 200 and the bytes of a [Reply], any other method
// with 405. The answer leaves after Config.AnswerTimeout at the latest. Without a result by
// then, after a panic, and while Config.MaxDeliveries are running, it is ret 1. A request
// that announces a body is answered without reading it, and on HTTP/1 its connection is
// closed.
//
// Config.Logger and Config.OnCallback get one [CallbackEvent] for each answer, and
// one more where deliver returned after it. Neither can hold up an answer. Log lines are at
// Info level for deliveries and at Warn for what was refused; of callbacks that do not verify
// there are ten a minute at most. They are at Error for ret 1, and for what must be
// reconciled: a delivery that Midas may not know of, because it came after the answer or Midas
// hung up, so that the charge may have been cancelled.
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
		defer answer.RefuseBody(w, r, start)()
		if r.Method != http.MethodGet { // the signature covers the method
			w.Header().Set("Allow", http.MethodGet)
			_ = answer.Send(w, http.StatusMethodNotAllowed, "", nil)
			e := unverified(r, Reply{}, errNotGet)
			e.Status = http.StatusMethodNotAllowed
			c.report(r.Context(), e, start)
			return
		}
		// Adaptors of other servers reuse the memory of a request that a DeliverFunc may outlive.
		d, key, err := c.parse(strings.Clone(r.URL.RawQuery))
		var e CallbackEvent
		switch {
		case d == nil:
			e = unverified(r, ReplyTo(err), err)
		case err != nil:
			e = about(d, Malformed, ReplyTo(err), err)
		default:
			e = c.run(r.Context(), deliver, d, key, start)
		}
		e.Key = key
		hungUp := r.Context().Err() != nil // before the answer: after it Midas may well hang up
		sent := answer.Send(w, http.StatusOK, "application/json", e.reply.Bytes())
		if e.Outcome != Unverified && e.Outcome != Malformed && (hungUp || sent != nil || time.Since(start) >= midasPatience) {
			e.Outcome = HungUp
		}
		c.report(r.Context(), e, start)
	})
}

// about returns the event of a verified callback.
func about(d *Delivery, outcome Outcome, reply Reply, err error) CallbackEvent {
	return CallbackEvent{Outcome: outcome, Status: http.StatusOK, Ret: reply.ret, Err: err, OpenID: d.OpenID, BillNo: d.BillNo, Token: d.Token, reply: reply}
}

// unverified returns the event of a callback that is not verified.
func unverified(r *http.Request, reply Reply, err error) CallbackEvent {
	if _, received, _ := strings.Cut(r.RequestURI, "?"); r.RequestURI != "" && received != r.URL.RawQuery {
		err = fmt.Errorf("%w; something rewrote the query on its way to this handler: mount it before that middleware", err)
	}
	path, remote := answer.Stranger(r)
	return CallbackEvent{Outcome: Unverified, Status: http.StatusOK, Ret: reply.ret, Err: err, Path: path, Remote: remote, reply: reply}
}

// run runs deliver and returns what became of it, or ret 1 when the answer has to
// leave. Then deliver goes on in the background; see Wait.
func (c *Client) run(ctx context.Context, deliver DeliverFunc, d *Delivery, key int, start time.Time) CallbackEvent {
	limits := answer.Limits{Start: start, Work: c.cfg.DeliverTimeout, Answer: c.cfg.AnswerTimeout}
	payment := *d // deliver may change what d holds
	event := func(r answer.Result[Reply]) CallbackEvent {
		reply, outcome := r.Value, outcomes[r.Kind]
		switch {
		case reply == (Reply{}): // deliver has not returned
			reply = systemBusy
		case reply.ret == 0:
			outcome = Delivered
		case reply.ret != 1:
			outcome = Declined
		}
		e := about(&payment, outcome, reply, r.Err)
		e.Repeat, e.Key, e.stack = r.Repeat, key, r.Stack
		return e
	}
	return event(answer.Run(ctx, c.running, limits, "DeliverFunc", func(ctx context.Context) (Reply, error) {
		err := deliver(ctx, d)
		return ReplyTo(err), err
	}, func(late answer.Result[Reply]) {
		e := event(late)
		e.Late = true
		c.report(ctx, e, start)
	}))
}

var outcomes = map[answer.Kind]Outcome{answer.Returned: Failed, answer.Panicked: Panicked, answer.TimedOut: TimedOut, answer.Shed: Shed}

// report hands an event to the log and the hook.
func (c *Client) report(ctx context.Context, e CallbackEvent, start time.Time) {
	if c.events.Silent() {
		return
	}
	e.Duration, e.reply = time.Since(start), Reply{}
	told := answer.Event{Level: e.level(), Message: e.message()}
	if e.Outcome == Unverified {
		told.Stranger = string(Unverified)
	} else if e.Outcome != Delivered || e.Late { // Midas does not know that it was delivered
		told.Key = fmt.Sprintf("%s %s %d %t", PaymentID(e.OpenID, e.BillNo), e.Outcome, e.Ret, e.Late)
	}
	told.Attrs = func(missed int) []slog.Attr {
		e := e
		e.Missed = missed
		return e.LogValue().Group()
	}
	told.Hook = func(missed int) {
		e := e
		e.Missed = missed
		c.cfg.OnCallback(e)
	}
	c.events.Tell(ctx, told, start)
}

// Ready returns nil, or an error while Config.MaxDeliveries DeliverFuncs are running,
// which means that new callbacks are answered ret 1. Use it as a readiness check, and raise an
// alert: DeliverFuncs that ignore their context may never make room.
func (c *Client) Ready() error {
	if err := c.running.Full(); err != nil {
		return fmt.Errorf("midas: %w", err)
	}
	return nil
}

// Wait returns once every DeliverFunc that is running has returned, including those
// whose callback was answered long ago, and everything about them has been logged; or
// it returns ctx.Err() when ctx ends first. For a graceful shutdown call it after
// http.Server.Shutdown and before the database is closed.
func (c *Client) Wait(ctx context.Context) error {
	if err := c.running.Wait(ctx); err != nil {
		return err
	}
	return c.events.Wait(ctx)
}

// MarkRepeat says, in a DeliverFunc and with its context, that the payment had been granted
// before: [CallbackEvent].Repeat, logs and metrics then tell it from a new grant.
// midassql's DeliverFuncs call it. With another context it does nothing.
func MarkRepeat(ctx context.Context) { answer.MarkRepeat(ctx) }
