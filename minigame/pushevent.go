package minigame

import (
	"context"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// maxShown is how much is kept of what anybody can send, in bytes.
const maxShown = 100

// maxName is how much is kept of a name in a push: more than the longest that is used, in bytes.
const maxName = 4 * 128

// An Outcome says what became of a push.
type Outcome string

// The outcomes of pushes.
const (
	Done         Outcome = "done"         // the game's function returned nil in time
	Failed       Outcome = "failed"       // it returned an error
	Panicked     Outcome = "panicked"     // it panicked or ended its goroutine
	TimedOut     Outcome = "timed_out"    // it had not returned when the answer had to leave
	Shed         Outcome = "shed"         // Config.MaxDeliveries were running
	HungUp       Outcome = "hung_up"      // WeChat hung up first, or the answer left after its 3 s
	Mock         Outcome = "mock"         // a mock push or a shop test: acknowledged, nothing granted
	Ignored      Outcome = "ignored"      // acknowledged, there is no function for it
	WrongEnv     Outcome = "wrong_env"    // a payment in an environment that is not served
	Malformed    Outcome = "malformed"    // a verified push with a field that is missing or does not fit, or of the other product
	Unverified   Outcome = "unverified"   // a signature does not match: anybody can send these
	Verification Outcome = "verification" // the console's GET
)

// A PushEvent says what became of one request to a PushHandler. Each answer makes one; a
// function that returns after its push was answered makes another one, which is Late. It
// holds no secret.
type PushEvent struct {
	Outcome  Outcome
	Late     bool          // the function returned after a failure had been answered
	OK       bool          // whether it was acknowledged; of a Late event, whether it would have been
	Duration time.Duration // since the request arrived
	Err      error         // why it was not acknowledged, or what is odd about a mock push

	Event              string // WeChat's name for it; empty for an unverified push
	Env                Env
	OpenID, OutTradeNo string

	// Path and Remote are those of an unverified push as the handler saw them, cut at a "?"
	// and after 100 bytes.
	Path, Remote string

	// Missed is how many events before this one were dropped because OnPush took too
	// long: more than a thousand were waiting.
	Missed int

	stack    string // of a panic
	anybodys bool   // anybody can have sent it
}

// LogValue shows the event as a group, the openid shortened.
func (e PushEvent) LogValue() slog.Value {
	attrs := []slog.Attr{slog.String("outcome", string(e.Outcome)), slog.Bool("ok", e.OK), slog.Duration("duration", e.Duration)}
	text := func(name, value string) {
		if value != "" {
			attrs = append(attrs, slog.String(name, value))
		}
	}
	text("event", clip(e.Event, 100))
	if e.OutTradeNo != "" {
		attrs = append(attrs, slog.Int("env", int(e.Env)))
	}
	text("out_trade_no", clip(e.OutTradeNo, 200))
	text("openid", clip(e.OpenID, 4))
	if e.Late {
		attrs = append(attrs, slog.Bool("late", true))
	}
	if e.Err != nil {
		text("error", e.Err.Error())
	}
	text("path", e.Path)
	text("remote", e.Remote)
	text("stack", e.stack)
	if e.Missed > 0 {
		attrs = append(attrs, slog.Int("missed", e.Missed))
	}
	return slog.GroupValue(attrs...)
}

func (e PushEvent) level() slog.Level {
	switch {
	case e.Outcome == Unverified, e.Outcome == HungUp, e.Outcome == WrongEnv, e.Late && e.OK:
		return slog.LevelWarn
	case !e.OK:
		return slog.LevelError
	case e.Err != nil:
		return slog.LevelWarn
	}
	return slog.LevelInfo
}

// about returns the event of a push that was parsed.
func about(p *Push, outcome Outcome, err error) PushEvent {
	e := PushEvent{Outcome: outcome, Err: err, Event: p.Event, Env: p.named.env, OpenID: p.named.openID, OutTradeNo: p.named.outTradeNo, anybodys: !p.Authentic && !p.believed}
	switch {
	case p.Delivery != nil:
		e.Env, e.OpenID, e.OutTradeNo = p.Delivery.Env, p.Delivery.OpenID, p.Delivery.OutTradeNo
	case p.Coins != nil:
		e.Env, e.OpenID, e.OutTradeNo = p.Coins.Env, p.Coins.OpenID, p.Coins.OutTradeNo
	case p.Refund != nil:
		e.Env, e.OpenID, e.OutTradeNo = p.Refund.Env, p.Refund.OpenID, p.Refund.OutTradeNo
	case p.Complaint != nil:
		e.OpenID, e.OutTradeNo = p.Complaint.OpenID, p.Complaint.OutTradeNo
	}
	e.Event, e.OpenID, e.OutTradeNo = clip(e.Event, maxName), clip(e.OpenID, maxName), clip(e.OutTradeNo, maxName)
	return e
}

// refused returns the event of a request that is not verified.
func refused(r *http.Request, err error) PushEvent {
	// Cloned, since events may wait and would keep the whole request line.
	path, _, _ := strings.Cut(r.URL.Path, "?") // which a proxy may have escaped: a query would follow
	path, remote := strings.Clone(clip(path, maxShown)), strings.Clone(clip(r.RemoteAddr, maxShown))
	return PushEvent{Outcome: Unverified, Err: err, Path: path, Remote: remote}
}

// report hands an event to the log and the hook.
func (c *Client) report(ctx context.Context, e PushEvent, start time.Time) {
	if c.log == nil && c.hook == nil {
		return
	}
	e.Duration = time.Since(start)
	key := "" // of what must not be dropped: a payment that WeChat does not know to be delivered
	if e.OutTradeNo != "" && !e.anybodys && (!e.OK || e.Late) {
		key = strconv.Itoa(int(e.Env)) + "/" + e.OutTradeNo + "/" + e.Event + string(e.Outcome) + strconv.FormatBool(e.Late)
	}
	if c.hook != nil {
		c.hook.Add(key, func(missed int) {
			e := e
			e.Missed = missed
			c.config().OnPush(e)
		})
	}
	if c.log == nil {
		return
	}
	var suppressed int
	if e.Outcome == Unverified || e.Outcome == WrongEnv && e.OutTradeNo == "" {
		var ok bool
		if suppressed, ok = c.forged.Allow(start); !ok {
			return
		}
	}
	ctx = context.WithoutCancel(ctx) // for what a log handler takes from it, such as a trace
	c.log.Add(key, func(missed int) {
		e := e
		e.Missed = missed + suppressed
		c.config().Logger.LogAttrs(ctx, e.level(), "minigame: push", e.LogValue().Group()...)
	})
}

// clip shortens text for a log line.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return s[:n] + "…"
}
