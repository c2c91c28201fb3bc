package minigame

import (
	"cmp"
	"context"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/midas-go/midas/internal/answer"
)

// maxName is the cap on identifiers from a push, in bytes: above the longest in use.
const maxName = 4 * 128

// An Outcome says what became of a push.
type Outcome string

// The outcomes of pushes.
const (
	Handled      Outcome = "handled"      // the game's function returned nil in time
	Failed       Outcome = "failed"       // it returned an error
	Panicked     Outcome = "panicked"     // it panicked or ended its goroutine
	TimedOut     Outcome = "timed_out"    // it used up DeliverTimeout, whether it then returned an error or not at all
	Shed         Outcome = "shed"         // MaxDeliveries were running
	HungUp       Outcome = "hung_up"      // WeChat hung up first, or the answer left after its 3 s
	Mock         Outcome = "mock"         // a mock push or a shop test: acknowledged, nothing granted
	Ignored      Outcome = "ignored"      // acknowledged, there is no function for it
	WrongEnv     Outcome = "wrong_env"    // a payment in an environment that is not served
	Malformed    Outcome = "malformed"    // a verified push with a field that is missing or does not fit, or of the other product
	Unverified   Outcome = "unverified"   // a signature does not match: anyone can send these
	Verification Outcome = "verification" // the console's GET
)

// A PushEvent says what became of one request to a PushHandler. Each answer makes one; a
// function that returns after its push was answered makes another one, which is Late. It
// holds no secret.
type PushEvent struct {
	Outcome  Outcome
	Late     bool          // the function returned after a failure had been answered
	Repeat   bool          // the function says that it had done this before: see MarkRepeat
	OK       bool          // whether it was acknowledged; of a Late or HungUp event, whether it would have been
	Key      int           // the key of its PayEventSig: 0 is AppKey, or none, n is OtherAppKeys[n-1]
	PushKey  int           // the index in PushKeys of the key that opened it; 0 also in plaintext mode
	Duration time.Duration // since the request arrived
	Err      error         // why it was not acknowledged, or what is odd about one that was

	Event              string // WeChat's name for it; empty for an unverified push
	Env                Env
	OpenID, OutTradeNo string

	// Path and Remote are those of an unverified push as the handler saw them, cut at a "?"
	// and after 100 bytes.
	Path, Remote string

	// Missed is how many events before this one were dropped because OnPush took too
	// long: a thousand were waiting, or an identical one was. One with an OutTradeNo that was
	// not acknowledged, or is Late, is dropped only for an identical one, unless the push was
	// unverified.
	Missed int

	reply    Reply
	stack    string // of a panic
	stranger bool   // anyone can have sent it
	alarm    bool   // a person must hear of it
}

// LogValue shows the event as a group, the openid shortened.
func (e PushEvent) LogValue() slog.Value {
	attrs := []slog.Attr{slog.String("outcome", string(e.Outcome)), slog.Bool("ok", e.OK), slog.Duration("duration", e.Duration)}
	if e.OutTradeNo != "" {
		attrs = append(attrs, slog.Int("env", int(e.Env)))
	}
	return slog.GroupValue(append(attrs, answer.Attrs(
		slog.String("event", answer.Clip(e.Event, 100)),
		slog.String("out_trade_no", answer.Clip(e.OutTradeNo, 200)),
		slog.String("openid", answer.ShortID(e.OpenID)),
		slog.Int("other_key", e.Key),
		slog.Int("push_key", e.PushKey),
		slog.Bool("late", e.Late),
		slog.Bool("repeat", e.Repeat),
		slog.String("error", answer.Text(e.Err)),
		slog.String("path", e.Path),
		slog.String("remote", e.Remote),
		slog.String("stack", e.stack),
		slog.Int("missed", e.Missed),
	)...)...)
}

func (e PushEvent) level() slog.Level {
	switch {
	case e.alarm:
		return slog.LevelError
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
	clip := func(name string) string { return answer.Clip(name, maxName) }
	return PushEvent{
		Outcome: outcome, Err: cmp.Or(err, p.odd), Event: clip(p.Event), Env: p.named.env, OpenID: clip(p.named.openID), OutTradeNo: clip(p.named.outTradeNo),
		Key: max(p.keyIndex, 0), PushKey: p.pushKeyIndex, stranger: !p.Authentic, alarm: p.alarm,
	}
}

// refused returns the event of a request that is not verified.
func refused(r *http.Request, err error) PushEvent {
	path, remote := answer.Stranger(r)
	return PushEvent{Outcome: Unverified, Err: err, Path: path, Remote: remote, stranger: true}
}

// report hands an event to the log and the hook.
func (c *core) report(ctx context.Context, e PushEvent, start time.Time) {
	if c.events.Silent() {
		return
	}
	e.Duration, e.reply = time.Since(start), Reply{}
	told := answer.Event{Level: e.level(), Message: "minigame: push"}
	if e.stranger {
		told.Stranger = string(e.Outcome)
	} else if e.alarm || e.OutTradeNo != "" && (!e.OK || e.Late || e.Outcome == HungUp) { // WeChat does not know that it was delivered
		told.Key = strconv.Itoa(int(e.Env)) + "/" + e.OutTradeNo + "/" + e.Event + string(e.Outcome) + strconv.FormatBool(e.Late)
	}
	after := func(missed int) PushEvent {
		e := e // the log and the hook have a goroutine each
		e.Missed = missed
		return e
	}
	told.Attrs = func(missed int) []slog.Attr { return after(missed).LogValue().Group() }
	told.Hook = func(missed int) { c.config().OnPush(after(missed)) }
	c.events.Tell(ctx, told, start)
}
