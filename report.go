package midas

import (
	"context"
	"fmt"
	"math"
	"os"
	"sync"
	"time"
)

// maxPending is how many reports may wait for a log handler or a hook that is slow.
// More are dropped and counted, except those that somebody has to act on.
const maxPending = 1000

// A reporter calls functions one after the other in a goroutine of its own, so that a
// log handler or a hook that blocks or panics holds up nothing else. The goroutine
// ends when there is nothing to do.
type reporter struct {
	mu      sync.Mutex
	queue   []report
	keys    map[string]bool // of the reports in queue that have one
	missed  int             // since the last report that was queued
	active  bool            // the goroutine runs
	pending counter
}

type report struct {
	key    string // of what must not be dropped; one of each is enough
	call   func(missed int)
	missed int
}

// add queues a call. A call with a key is dropped only if one with the same key waits
// already, so that a repeated callback cannot fill the memory.
func (r *reporter) add(key string, call func(missed int)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if key == "" && len(r.queue) >= maxPending || r.keys[key] {
		r.missed++
		return
	}
	if key != "" {
		if r.keys == nil {
			r.keys = make(map[string]bool)
		}
		r.keys[key] = true
	}
	r.queue = append(r.queue, report{key, call, r.missed})
	r.missed = 0
	r.pending.add(math.MaxInt)
	if !r.active {
		r.active = true
		go r.work()
	}
}

func (r *reporter) work() {
	for {
		r.mu.Lock()
		if len(r.queue) == 0 {
			r.queue, r.active = nil, false
			r.mu.Unlock()
			return
		}
		next := r.queue[0]
		r.queue[0] = report{}
		r.queue = r.queue[1:]
		delete(r.keys, next.key)
		r.mu.Unlock()
		r.do(next)
	}
}

// do makes a call that may panic, or end the goroutine as a test's FailNow does.
func (r *reporter) do(next report) {
	returned := false
	defer func() {
		cause := recover()
		if cause != nil && next.key != "" { // what somebody has to act on is said somewhere
			fmt.Fprintf(os.Stderr, "midas: a log handler or OnCallback panicked over payment %q: %v\n", next.key, cause)
		}
		r.pending.done()
		if cause == nil && !returned {
			go r.work()
		}
	}()
	next.call(next.missed)
	returned = true
}

// A counter counts what is running and lets others wait for none. (A sync.WaitGroup
// must not be waited for while its counter may rise from zero.)
type counter struct {
	mu   sync.Mutex
	n    int
	zero chan struct{} // closed when n falls to 0; nil if nobody waits
}

// add counts one more, or reports that limit are running.
func (c *counter) add(limit int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n >= limit {
		return false
	}
	c.n++
	return true
}

func (c *counter) done() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n--; c.n == 0 && c.zero != nil {
		close(c.zero)
		c.zero = nil
	}
}

func (c *counter) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}

// wait returns when nothing is running, or ctx.Err() when ctx ends.
func (c *counter) wait(ctx context.Context) error {
	c.mu.Lock()
	if c.n == 0 {
		c.mu.Unlock()
		return nil
	}
	if c.zero == nil {
		c.zero = make(chan struct{})
	}
	zero := c.zero
	c.mu.Unlock()
	select {
	case <-zero:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// logLimit lets ten lines a minute pass.
type logLimit struct {
	mu         sync.Mutex
	minute     time.Time // start of the current minute
	lines      int       // in the current minute
	suppressed int       // since the last line
}

// allow reports whether a line may be written now, and how many were not since the
// last one.
func (l *logLimit) allow(now time.Time) (suppressed int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.minute) >= time.Minute {
		l.minute, l.lines = now, 0
	}
	if l.lines == 10 {
		l.suppressed++
		return 0, false
	}
	l.lines++
	suppressed, l.suppressed = l.suppressed, 0
	return suppressed, true
}
