package minigame

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/midas-go/midas/internal/answer"
)

// GameHandlers are a mini game's functions, one for each kind of push. They are called
// concurrently, also for the same push, which WeChat repeats until it is acknowledged: they return
// nil again for work already done. ctx ends after DeliverTimeout of the configuration, or when
// WeChat hangs up; give up and roll back then.
//
// nil acknowledges the push. Any error, or a panic, asks for it again: deliveries come 15
// more times in 24 hours, the rest a little less (minigame.md 3.3).
type GameHandlers struct {
	// Deliver grants an item, once for each (AppID, Env, OutTradeNo). Without it
	// deliveries are not acknowledged.
	Deliver func(ctx context.Context, d *Delivery) error

	// Refund takes note of a refund, once for each RefundID. Without it refunds are not
	// acknowledged.
	Refund func(ctx context.Context, r *RefundPush) error

	// Coins hears of coins that WeChat credited. Without it they go to Other.
	Coins func(ctx context.Context, p *CoinPayment) error

	// Gift grants a gift pack, once for each OrderID. Without it gifts go to Other, and are not
	// acknowledged without either.
	Gift func(ctx context.Context, g *Gift) error

	// Other gets every other message; look at Push.Authentic before believing one. Without
	// it they are acknowledged, unless it looks like the delivery of a paid order.
	Other func(ctx context.Context, p *Push) error
}

func (h *GameHandlers) function(p *Push) function {
	switch pushed := p.Content.(type) {
	case *Delivery:
		return taking(h.Deliver, pushed)
	case *RefundPush:
		return taking(h.Refund, pushed)
	case *CoinPayment:
		return taking(h.Coins, pushed)
	case *Gift:
		return taking(h.Gift, pushed)
	}
	return nil
}

// ProgramHandlers are a mini program's functions. What is said of [GameHandlers] holds for them;
// pushes come up to 15 more times at intervals that double.
type ProgramHandlers struct {
	// Deliver grants an item, once for each (AppID, Env, OutTradeNo), Subscription what Apple
	// charged a subscriber for, in the same way. Without them such pushes are not acknowledged.
	Deliver      func(ctx context.Context, d *Delivery) error
	Subscription func(ctx context.Context, c *SubscriptionCharge) error

	// Refund takes note of a refund, once for each RefundID. Without it refunds are not
	// acknowledged.
	Refund func(ctx context.Context, r *RefundPush) error

	// Coins hears of tokens that WeChat credited, Complaint of complaints, Notice of what WeChat
	// Pay has against the merchant. Without them these go to Other, except for tokens that came
	// as xpay_goods_deliver_notify, which are then not acknowledged.
	Coins     func(ctx context.Context, p *CoinPayment) error
	Complaint func(ctx context.Context, c *Complaint) error
	Notice    func(ctx context.Context, n *MerchantNotice) error

	// RefundInquiry answers Apple's question about a refund. Without it the question goes to
	// Other, and is acknowledged without advice.
	RefundInquiry func(ctx context.Context, r *RefundInquiry) (Advice, error)

	// Other gets every other message. Without it they are acknowledged, unless it looks like the
	// delivery of a paid order.
	Other func(ctx context.Context, p *Push) error
}

func (h *ProgramHandlers) function(p *Push) function {
	switch pushed := p.Content.(type) {
	case *Delivery:
		return taking(h.Deliver, pushed)
	case *SubscriptionCharge:
		return taking(h.Subscription, pushed)
	case *RefundPush:
		return taking(h.Refund, pushed)
	case *CoinPayment:
		return taking(h.Coins, pushed)
	case *Complaint:
		return taking(h.Complaint, pushed)
	case *MerchantNotice:
		return taking(h.Notice, pushed)
	case *RefundInquiry:
		if h.RefundInquiry != nil {
			return func(ctx context.Context) (*Advice, error) {
				advice, err := h.RefundInquiry(ctx, pushed)
				return &advice, err
			}
		}
	}
	return nil
}

// A function is one of the game's, with what it gets. Advice is nil except for a RefundInquiry.
type function func(ctx context.Context) (*Advice, error)

func taking[T any](f func(context.Context, T) error, pushed T) function {
	if f == nil {
		return nil
	}
	return func(ctx context.Context) (*Advice, error) { return nil, f(ctx, pushed) }
}

// orOther returns what is called where f, the function for p, may be nil; nil if p is acknowledged
// without one.
func (p *Push) orOther(f function, other func(context.Context, *Push) error) function {
	switch {
	case p.Mock:
		return nil
	case f != nil:
		return f
	case other != nil && p.stake != owed:
		return taking(other, p)
	case p.stake >= gift:
		return func(context.Context) (*Advice, error) { return nil, errors.New("no function of the handlers takes it") }
	}
	return nil
}

// PushHandler returns the handler of the push URL: it answers the console's verification
// (GET), verifies each push (POST), runs the game's function for it and answers. It
// serves whatever path it is mounted at, and one handler may serve several.
//
// A mock push is acknowledged and nothing is granted for it; a sandbox payment is refused
// unless DeliverSandbox of the configuration is set. A push that does not verify is answered 403,
// everything else 200 with the bytes of a [Reply]. The answer leaves after AnswerTimeout at the
// latest: without a result by then it is a failure, and so is a panic, and any push that needs a
// function while MaxDeliveries are running.
//
// Logger and OnPush get one [PushEvent] for each answer, and one more where a function returned
// after it.
//
// It panics if PushKeys is empty: nothing could be verified. The handler is safe for concurrent
// use.
func (g *Game) PushHandler(h GameHandlers) http.Handler {
	return g.pushHandler(func(p *Push) function { return p.orOther(h.function(p), h.Other) })
}

// PushHandler is [Game.PushHandler] for a mini program.
func (p *Program) PushHandler(h ProgramHandlers) http.Handler {
	return p.pushHandler(func(p *Push) function { return p.orOther(h.function(p), h.Other) })
}

func (c *core) pushHandler(functionFor func(*Push) function) http.Handler {
	if len(c.config().PushKeys) == 0 {
		panic((&ConfigError{"PushKeys", "empty: set the Token and EncodingAESKey of the console"}).Error())
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		if r.Method != http.MethodPost {
			defer answer.RefuseBody(w, r, start)()
		}
		switch r.Method {
		case http.MethodGet:
			c.serveVerification(w, r, start)
		case http.MethodPost:
			c.servePush(w, r, functionFor, start)
		default:
			w.Header().Set("Allow", "GET, POST")
			_ = answer.Send(w, http.StatusMethodNotAllowed, "", nil)
			c.report(r.Context(), refused(r, fmt.Errorf("%w: neither GET nor POST", ErrSignature)), start)
		}
	})
}

// serveVerification answers the console's GET with its echostr, nothing around it.
func (c *core) serveVerification(w http.ResponseWriter, r *http.Request, start time.Time) {
	query, err := pushQuery(r.URL.RawQuery)
	if err == nil && !c.signedURL(query, false) {
		err = unverified("signature: check the Token")
	}
	if err != nil {
		_ = send(w, http.StatusForbidden, (&Push{}).Reply(err))
		c.report(r.Context(), refused(r, err), start)
		return
	}
	w.Header().Set("X-Content-Type-Options", "nosniff") // echostr is the caller's
	_ = send(w, http.StatusOK, Reply{true, typeText, query.Get("echostr")})
	c.report(r.Context(), PushEvent{Outcome: Verification, OK: true}, start)
}

func (c *core) servePush(w http.ResponseWriter, r *http.Request, functionFor func(*Push) function, start time.Time) {
	body, err := c.readBody(w, r, start)
	p := new(Push)
	if err == nil {
		p, err = c.parse(r.URL.RawQuery, body)
	}
	if err != nil {
		status, e := http.StatusOK, about(p, Malformed, err)
		switch {
		case errors.Is(err, ErrSignature):
			status, e = http.StatusForbidden, refused(r, err)
		case errors.Is(err, ErrEnvironment):
			e.Outcome = WrongEnv
		}
		_ = send(w, status, p.Reply(err))
		c.report(r.Context(), e, start)
		return
	}
	var e PushEvent
	if f := functionFor(p); f != nil {
		e = c.run(r.Context(), p, start, f)
	} else {
		e = about(p, Ignored, nil)
		if p.Mock {
			e.Outcome = Mock
		}
		e.reply = p.Reply(nil)
	}
	e.OK = e.reply.ok
	hungUp := r.Context().Err() != nil // before the answer: after it WeChat may well hang up
	sent := send(w, http.StatusOK, e.reply)
	if hungUp || sent != nil || time.Since(start) >= weChatPatience {
		e.Outcome = HungUp
	}
	c.report(r.Context(), e, start)
}

// readBody reads the body of a push, within the time for an answer.
func (c *core) readBody(w http.ResponseWriter, r *http.Request, start time.Time) ([]byte, error) {
	// A deadline for every push would cost more than its signature: one is set when it is due.
	expired := make(chan struct{})
	timer := time.AfterFunc(c.config().DeliverTimeout-time.Since(start), func() {
		_ = http.NewResponseController(w).SetReadDeadline(time.Now()) // not every ResponseWriter has one
		close(expired)
	})
	size := min(max(r.ContentLength, 0), 16<<10) + bytes.MinRead // no large allocation on Content-Length alone
	buf := bytes.NewBuffer(make([]byte, 0, size))
	_, err := buf.ReadFrom(io.LimitReader(r.Body, maxPushBytes+1))
	switch stopped := timer.Stop(); {
	case !stopped:
		<-expired
		return nil, unverified("the body did not arrive in time")
	case err != nil:
		return nil, unverified("the body did not arrive")
	case buf.Len() > maxPushBytes:
		answer.HangUp(w, r)
		return nil, unverified("the body is over 128 KiB")
	}
	return buf.Bytes(), nil
}

func send(w http.ResponseWriter, status int, reply Reply) error {
	return answer.Send(w, status, reply.contentType, reply.Bytes())
}

// run runs the game's function and returns what became of it, or a failure when the
// answer has to leave. Then the function goes on in the background; see Wait.
func (c *core) run(ctx context.Context, p *Push, start time.Time, f function) PushEvent {
	cfg := c.config()
	limits := answer.Limits{Start: start, Work: cfg.DeliverTimeout, Answer: cfg.AnswerTimeout}
	named := about(p, Handled, nil) // now: the function may change what p holds
	failed := p.Reply(errors.New("failed"))
	event := func(r answer.Result[*Advice]) PushEvent {
		e := named
		e.Err, e.Repeat, e.stack, e.reply = cmp.Or(r.Err, e.Err), r.Repeat, r.Stack, failed
		switch {
		case r.Err != nil:
			e.Outcome = outcomes[r.Kind]
		case r.Value != nil:
			e.reply = p.ReplyAdvice(*r.Value)
		default:
			e.reply = p.Reply(nil)
		}
		e.OK = e.reply.ok
		return e
	}
	return event(answer.Run(ctx, c.running, limits, "function", f, func(late answer.Result[*Advice]) {
		e := event(late)
		e.Late = true
		c.report(ctx, e, start)
	}))
}

var outcomes = map[answer.Kind]Outcome{answer.Returned: Failed, answer.Panicked: Panicked, answer.TimedOut: TimedOut, answer.Shed: Shed}

// Ready returns nil, or an error while MaxDeliveries functions are running, which
// means that new pushes are answered with a failure. For a readiness check.
func (c *core) Ready() error {
	if err := c.running.Full(); err != nil {
		return fmt.Errorf("minigame: %w", err)
	}
	return nil
}

// Wait returns once every function that is running has returned, including those whose
// push was answered long ago, and everything about them has been logged; or it returns
// ctx.Err() when ctx ends first. For a graceful shutdown call it after
// http.Server.Shutdown and before the database is closed.
func (c *core) Wait(ctx context.Context) error {
	if err := c.running.Wait(ctx); err != nil {
		return err
	}
	return c.events.Wait(ctx)
}

// MarkRepeat says, in one of the game's functions and with its context, that it had done this
// before: [PushEvent].Repeat, logs and metrics then tell a repeat from a new grant.
func MarkRepeat(ctx context.Context) { answer.MarkRepeat(ctx) }
