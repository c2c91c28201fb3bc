package answer

import (
	"context"
	"log/slog"
	"math"
	"slices"
	"sync"
	"time"
)

// Events hand log lines to a log handler, and events to a hook, without waiting for
// either. Without a Logger and a hook they are silent.
type Events struct {
	logger    *slog.Logger
	hooked    bool
	log, hook *queue
	lines     lineLimits
}

// NewEvents returns Events for a Logger, which may be nil, and a hook if hooked.
func NewEvents(logger *slog.Logger, hooked bool) *Events {
	newQueue := func() *queue {
		return &queue{keys: make(map[string]bool), pending: NewPlaces(math.MaxInt)}
	}
	return &Events{logger: logger, hooked: hooked, log: newQueue(), hook: newQueue()}
}

// An Event is told to the log and the hook.
type Event struct {
	Key      string // of what must not be dropped; one of each is enough
	Stranger string // the kind of event, where an unverified caller can cause it: its lines are limited, and at Warn
	Level    slog.Level
	Message  string
	Attrs    func(missed int) []slog.Attr // missed: events dropped before this one
	Hook     func(missed int)
}

// Silent reports whether nobody listens.
func (e *Events) Silent() bool { return e.logger == nil && !e.hooked }

// Tell queues an event. A hook that panics over an event with a key is logged, since an
// event that needs action is never lost silently.
func (e *Events) Tell(ctx context.Context, event Event, now time.Time) {
	ctx = context.WithoutCancel(ctx) // for what a log handler takes from it, such as a trace
	if e.hooked {
		e.hook.add(job{key: event.Key, do: event.Hook, failed: func(cause any) {
			if event.Key != "" {
				e.line(ctx, slog.LevelError, event.Message+": the hook for it panicked", append(event.Attrs(0), slog.Any("panic", cause)))
			}
		}})
	}
	if e.logger == nil {
		return
	}
	suppressed, ok := e.admit(&event, now)
	if !ok {
		return
	}
	e.log.add(job{key: event.Key, do: func(missed int) {
		e.logger.LogAttrs(ctx, event.Level, event.Message, event.Attrs(missed+suppressed)...)
	}})
}

// Check queues a check that may come to an event for the log. It runs where the lines are
// written, so that what it costs holds up no answer.
func (e *Events) Check(ctx context.Context, check func() (event Event, found bool), now time.Time) {
	if e.logger == nil {
		return
	}
	ctx = context.WithoutCancel(ctx)
	e.log.add(job{do: func(missed int) {
		event, found := check()
		suppressed, ok := 0, false
		if found {
			suppressed, ok = e.admit(&event, now)
		}
		if !ok {
			e.log.miss(missed) // for the next line to say
			return
		}
		e.logger.LogAttrs(ctx, event.Level, event.Message, event.Attrs(missed+suppressed)...)
	}})
}

// admit reports whether the line of an event may be written, and how many of its kind were not
// since the last one. It lowers the level of what a stranger can cause.
func (e *Events) admit(event *Event, now time.Time) (suppressed int, ok bool) {
	if event.Stranger == "" {
		return 0, true
	}
	event.Level = min(event.Level, slog.LevelWarn)
	return e.lines.allow(event.Stranger, now)
}

// Log queues a line at Warn that belongs to no event.
func (e *Events) Log(ctx context.Context, message string, attrs ...slog.Attr) {
	e.line(ctx, slog.LevelWarn, message, attrs)
}

func (e *Events) line(ctx context.Context, level slog.Level, message string, attrs []slog.Attr) {
	if e.logger == nil {
		return
	}
	ctx = context.WithoutCancel(ctx)
	e.log.add(job{do: func(missed int) {
		e.logger.LogAttrs(ctx, level, message, append(attrs, Attrs(slog.Int("missed", missed))...)...)
	}})
}

// Attrs returns attrs without those that are empty.
func Attrs(attrs ...slog.Attr) []slog.Attr {
	return slices.DeleteFunc(attrs, func(a slog.Attr) bool {
		return a.Value.Equal(slog.StringValue("")) || a.Value.Equal(slog.BoolValue(false)) || a.Value.Equal(slog.IntValue(0))
	})
}

// Text returns the text of err, or "".
func Text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// Wait returns when everything queued has been told, or ctx.Err() when ctx ends.
func (e *Events) Wait(ctx context.Context) error {
	if err := e.hook.pending.Wait(ctx); err != nil {
		return err
	}
	return e.log.pending.Wait(ctx)
}

// maxLines is how many lines a minute unverified callers can cause, of each kind.
const maxLines = 10

// lineLimits count the lines of each kind.
type lineLimits struct {
	mu    sync.Mutex
	kinds map[string]*lineLimit
}

type lineLimit struct {
	minute     time.Time // start of the current minute
	lines      int       // in the current minute
	suppressed int       // since the last line
}

// allow reports whether a line may be written now, and how many were not since the last
// one.
func (l *lineLimits) allow(kind string, now time.Time) (suppressed int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.kinds[kind]
	if k == nil {
		k = new(lineLimit)
		if l.kinds == nil {
			l.kinds = make(map[string]*lineLimit)
		}
		l.kinds[kind] = k
	}
	if now.Sub(k.minute) >= time.Minute {
		k.minute, k.lines = now, 0
	}
	if k.lines == maxLines {
		k.suppressed++
		return 0, false
	}
	k.lines++
	suppressed, k.suppressed = k.suppressed, 0
	return suppressed, true
}
