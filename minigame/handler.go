package minigame

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime/debug"
	"strconv"
	"sync/atomic"
	"time"
)

// Handlers are the game's functions, one for each kind of push. They are called
// concurrently, also for the same push, which WeChat repeats until it is acknowledged: for
// what was done before they return nil again. ctx ends after Config.DeliverTimeout, or
// when WeChat hangs up; give up and roll back then.
//
// nil acknowledges the push. Any error, or a panic, asks for it again: deliveries come 15
// more times in 24 hours, the rest a little less (minigame.md 4.4).
type Handlers struct {
	// Deliver grants an item, once for each (AppID, Env, OutTradeNo). Without it
	// deliveries are not acknowledged.
	Deliver func(ctx context.Context, d *Delivery) error

	// Refund takes note of a refund, once for each RefundID. Without it refunds are not
	// acknowledged.
	Refund func(ctx context.Context, r *Refund) error

	// Coins hears of coins that WeChat credited, Complaint of complaints. Without them
	// these go to Other, and so do complaints that anybody can have sent: see
	// Config.TrustPlaintext.
	Coins     func(ctx context.Context, p *CoinPayment) error
	Complaint func(ctx context.Context, c *Complaint) error

	// RefundInquiry answers Apple's question about a refund. Without it the question goes to
	// Other, and is acknowledged without advice; so is one that anybody can have sent.
	RefundInquiry func(ctx context.Context, r *RefundInquiry) (Advice, error)

	// Other gets every other message; look at Push.Authentic before believing one. Without
	// it they are acknowledged, but for one that looks like the delivery of a paid order.
	Other func(ctx context.Context, p *Push) error
}

// function returns the game's function for p, or nil if p is to be acknowledged without
// one.
func (h *Handlers) function(p *Push) func(ctx context.Context) (*Advice, error) {
	plain := func(err error) (*Advice, error) { return nil, err }
	switch {
	case p.Mock:
		return nil
	case p.Delivery != nil:
		return func(ctx context.Context) (*Advice, error) {
			if h.Deliver == nil {
				return nil, errors.New("a delivery, and Handlers.Deliver is nil")
			}
			return plain(h.Deliver(ctx, p.Delivery))
		}
	case p.Refund != nil:
		return func(ctx context.Context) (*Advice, error) {
			if h.Refund == nil {
				return nil, errors.New("a refund, and Handlers.Refund is nil")
			}
			return plain(h.Refund(ctx, p.Refund))
		}
	case p.Coins != nil && h.Coins != nil:
		return func(ctx context.Context) (*Advice, error) { return plain(h.Coins(ctx, p.Coins)) }
	case p.Complaint != nil && h.Complaint != nil:
		return func(ctx context.Context) (*Advice, error) { return plain(h.Complaint(ctx, p.Complaint)) }
	case p.RefundInquiry != nil && h.RefundInquiry != nil:
		return func(ctx context.Context) (*Advice, error) {
			advice, err := h.RefundInquiry(ctx, p.RefundInquiry)
			return &advice, err
		}
	case h.Other != nil:
		return func(ctx context.Context) (*Advice, error) { return plain(h.Other(ctx, p)) }
	case p.paid:
		return func(context.Context) (*Advice, error) {
			return nil, errors.New("a paid order in an event that is not known, and Handlers.Other is nil")
		}
	}
	return nil
}

// PushHandler returns the handler of the push URL: it answers the console's verification
// (GET), verifies each push (POST), runs the game's function for it and answers. It
// serves whatever path it is mounted at, and one handler may serve several.
//
// A mock push is acknowledged and nothing is granted for it; a sandbox payment is refused
// unless Config.DeliverSandbox is set. A push that does not verify is answered 403,
// everything else 200 with the bytes of a [Reply]. The answer leaves after
// Config.AnswerTimeout at the latest: without a result by then it is a failure, and so is
// a panic, and any push that needs a function while Config.MaxDeliveries are running.
//
// Config.Logger and Config.OnPush get one [PushEvent] for each answer, and one more where
// a function returned after it.
//
// It panics if Config.PushKeys is empty: nothing could be verified. The handler is safe
// for concurrent use.
func (c *Client) PushHandler(h Handlers) http.Handler {
	if len(c.config().PushKeys) == 0 {
		panic((&ConfigError{"PushKeys", "empty: set the Token and EncodingAESKey of the console"}).Error())
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		if r.Method != http.MethodPost && r.ContentLength != 0 {
			// net/http would wait for the body: before the answer unless the connection is
			// closed, and after it unless its time is up.
			w.Header().Set("Connection", "close")
			defer func() { _ = http.NewResponseController(w).SetReadDeadline(start) }() // not every server can
		}
		switch r.Method {
		case http.MethodGet:
			c.serveVerification(w, r, start)
		case http.MethodPost:
			c.servePush(w, r, &h, start)
		default:
			w.Header().Set("Allow", "GET, POST")
			_ = send(w, http.StatusMethodNotAllowed, Reply{})
			c.report(r.Context(), refused(r, fmt.Errorf("%w: neither GET nor POST", ErrSignature)), start)
		}
	})
}

// serveVerification answers the console's GET with its echostr, nothing around it.
func (c *Client) serveVerification(w http.ResponseWriter, r *http.Request, start time.Time) {
	query, err := pushQuery(r.URL.RawQuery)
	if err == nil && !c.verifyURL(query) {
		err = unverified("signature: check the Token")
	}
	if err != nil {
		_ = send(w, http.StatusForbidden, (&Push{}).Reply(err))
		c.report(r.Context(), refused(r, err), start)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff") // echostr is the caller's
	_ = send(w, http.StatusOK, Reply{true, typeText, query.Get("echostr")})
	c.report(r.Context(), PushEvent{Outcome: Verification, OK: true}, start)
}

func (c *Client) servePush(w http.ResponseWriter, r *http.Request, h *Handlers, start time.Time) {
	body, err := c.readBody(w, r, start)
	p := &Push{}
	if err == nil {
		var parsed *Push
		if parsed, err = c.parsePush(r.URL.RawQuery, body); err == nil || parsed != nil {
			p = parsed
		}
	}
	if err != nil {
		status := http.StatusOK
		e := about(p, Malformed, err)
		if errors.Is(err, ErrSignature) || p.appID == "" {
			status, e = http.StatusForbidden, refused(r, err)
		} else if errors.Is(err, ErrEnvironment) {
			e.Outcome = WrongEnv
		}
		_ = send(w, status, p.Reply(err))
		c.report(r.Context(), e, start)
		return
	}
	var (
		function = h.function(p)
		e        PushEvent
		reply    Reply
	)
	switch {
	case function == nil:
		e, reply = about(p, Ignored, p.note), p.Reply(nil)
		if p.Mock {
			e.Outcome = Mock
		}
	case !c.running.Add(c.config().MaxDeliveries):
		e, reply = about(p, Shed, fullUp(c.config().MaxDeliveries, c.config().MaxDeliveries)), p.Reply(errNoResult)
	default:
		confirmed := func(ctx context.Context) (*Advice, error) {
			if err := c.confirm(ctx, p); err != nil {
				return nil, err
			}
			return function(ctx)
		}
		e, reply = c.run(r.Context(), confirmed, p, start)
	}
	e.OK = reply.ok
	hungUp := r.Context().Err() != nil // before the answer: after it WeChat may well hang up
	sent := send(w, http.StatusOK, reply)
	if hungUp || sent != nil || time.Since(start) >= weChatPatience {
		e.Outcome = HungUp
	}
	c.report(r.Context(), e, start)
}

// readBody reads the body of a push, within the time for an answer.
func (c *Client) readBody(w http.ResponseWriter, r *http.Request, start time.Time) ([]byte, error) {
	// A deadline for every push would cost more than its signature: one is set when it is due.
	expired := make(chan struct{})
	timer := time.AfterFunc(c.config().DeliverTimeout-time.Since(start), func() {
		_ = http.NewResponseController(w).SetReadDeadline(time.Now()) // not every ResponseWriter has one
		close(expired)
	})
	buf, err := readAll(r)
	if !timer.Stop() {
		<-expired
		return nil, unverified("the body did not arrive in time")
	}
	if err == nil && len(buf) > maxPushBytes {
		w.Header().Set("Connection", "close")
		err = unverified("the body is over 128 KiB")
	}
	return buf, err
}

// readAll reads a body up to one byte over the limit.
func readAll(r *http.Request) ([]byte, error) {
	size := int64(1 << 10)
	if r.ContentLength > 0 && r.ContentLength <= maxPushBytes {
		size = min(r.ContentLength+1, 16<<10) // not on the caller's word alone
	}
	buf := make([]byte, 0, size)
	limited := io.LimitReader(r.Body, maxPushBytes+1)
	for {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := limited.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if err == io.EOF {
			return buf, nil
		}
		if err != nil {
			return nil, unverified("the body did not arrive")
		}
	}
}

// send sends an answer at once. A ResponseWriter that panics is one that did not send it.
func send(w http.ResponseWriter, status int, reply Reply) (err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("the ResponseWriter panicked: %v", cause)
		}
	}()
	h := w.Header()
	if reply.contentType != "" {
		h.Set("Content-Type", reply.contentType)
	}
	h.Set("Content-Length", strconv.Itoa(len(reply.body)))
	w.WriteHeader(status)
	if _, err := io.WriteString(w, reply.body); err != nil {
		return err
	}
	if err := http.NewResponseController(w).Flush(); !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	return nil
}

var (
	errNoResult = errors.New("the function has not returned in time")
	errEnded    = errors.New("the function ended its goroutine")
)

// run runs the game's function and returns what became of it, or a failure when the
// answer has to leave. Then the function goes on in the background; see Wait.
func (c *Client) run(ctx context.Context, function func(context.Context) (*Advice, error), p *Push, start time.Time) (PushEvent, Reply) {
	cfg := c.config()
	answerBy := time.NewTimer(cfg.AnswerTimeout - time.Since(start))
	defer answerBy.Stop()
	limited, cancel := context.WithTimeout(ctx, cfg.DeliverTimeout-time.Since(start))
	timedOut, failed := about(p, TimedOut, errNoResult), p.Reply(errNoResult) // now: the function may change what p holds

	// Whoever sets answered first decides the answer, the result or the timer.
	var answered atomic.Bool
	type result struct {
		event PushEvent
		reply Reply
	}
	results := make(chan result, 1)
	go func() {
		defer c.running.Done()
		defer cancel()
		res := result{timedOut, failed}
		res.event.Outcome, res.event.Err = Panicked, errEnded
		defer func() { // deferred, for a function that calls runtime.Goexit
			if answered.CompareAndSwap(false, true) {
				results <- res
				return
			}
			res.event.Late, res.event.OK = true, res.reply.ok
			c.report(ctx, res.event, start)
		}()
		call(limited, function, p, &res.event, &res.reply)
	}()

	select {
	case res := <-results:
		return res.event, res.reply
	case <-answerBy.C:
		if answered.CompareAndSwap(false, true) {
			return timedOut, failed
		}
		res := <-results
		return res.event, res.reply
	}
}

// call calls the game's function and sets what became of it. Only a nil error that it
// returns acknowledges the push: panic(nil) leaves e and reply as they are.
func call(ctx context.Context, function func(context.Context) (*Advice, error), p *Push, e *PushEvent, reply *Reply) {
	failed := *reply
	defer func() {
		if cause := recover(); cause != nil {
			e.Outcome, e.Err, e.stack = Panicked, fmt.Errorf("the function panicked: %v", cause), string(debug.Stack())
			*reply = failed
		}
	}()
	advice, err := function(ctx)
	e.anybodys = !p.Authentic && !p.believed // query_order may have confirmed it
	if err != nil {
		_ = err.Error() // may panic, better here than in the log
		e.Outcome, e.Err = Failed, err
		return
	}
	answer := p.Reply(nil)
	if advice != nil {
		answer = p.ReplyAdvice(*advice)
	}
	e.Outcome, e.Err, *reply = Done, nil, answer
}

// Ready returns nil, or an error while Config.MaxDeliveries functions are running, which
// means that new pushes are answered with a failure. For a readiness check.
func (c *Client) Ready() error {
	if n := c.running.Count(); n >= c.config().MaxDeliveries {
		return fullUp(n, c.config().MaxDeliveries)
	}
	return nil
}

func fullUp(running, most int) error {
	return fmt.Errorf("minigame: %d functions are running, at most %d may: does one ignore its context?", running, most)
}

// Wait returns once every function that is running has returned, including those whose
// push was answered long ago, and everything about them has been logged; or it returns
// ctx.Err() when ctx ends first. For a graceful shutdown call it after
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
