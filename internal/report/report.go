// Package report keeps what a handler tells the log and the metrics from holding up its
// answers, and counts what is still running. The handlers of both protocols use it.
package report

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

// A Reporter calls functions one after the other in a goroutine of its own, so that a
// log handler or a hook that blocks or panics holds up nothing else. The goroutine
// ends when there is nothing to do.
type Reporter struct {
	mu      sync.Mutex
	queue   []job
	keys    map[string]bool // of the jobs in queue that have one
	missed  int             // since the last job that was queued
	active  bool            // the goroutine runs
	pending Counter
}

type job struct {
	key    string // of what must not be dropped; one of each is enough
	call   func(missed int)
	missed int
}

// Add queues a call. missed is how many were dropped before it. A call with a key is
// dropped only if one with the same key waits already, so that repeats cannot fill the
// memory; a call without one also if maxPending wait.
func (r *Reporter) Add(key string, call func(missed int)) {
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
	r.queue = append(r.queue, job{key, call, r.missed})
	r.missed = 0
	r.pending.Add(math.MaxInt)
	if !r.active {
		r.active = true
		go r.work()
	}
}

func (r *Reporter) work() {
	for {
		r.mu.Lock()
		if len(r.queue) == 0 {
			r.queue, r.active = nil, false
			r.mu.Unlock()
			return
		}
		next := r.queue[0]
		r.queue[0] = job{}
		r.queue = r.queue[1:]
		delete(r.keys, next.key)
		r.mu.Unlock()
		r.do(next)
	}
}

// do makes a call that may panic, or end the goroutine as a test's FailNow does.
func (r *Reporter) do(next job) {
	returned := false
	defer func() {
		cause := recover()
		if cause != nil && next.key != "" { // what somebody has to act on is said somewhere
			fmt.Fprintf(os.Stderr, "midas: a log handler or a hook panicked over payment %q: %v\n", next.key, cause)
		}
		r.pending.Done()
		if cause == nil && !returned {
			go r.work()
		}
	}()
	next.call(next.missed)
	returned = true
}

// Wait returns when every call that was added has been made, or ctx.Err() when ctx ends.
// A nil Reporter has none.
func (r *Reporter) Wait(ctx context.Context) error {
	if r == nil {
		return nil
	}
	return r.pending.Wait(ctx)
}

// A Counter counts what is running and lets others wait for none. (A sync.WaitGroup
// must not be waited for while its counter may rise from zero.)
type Counter struct {
	mu   sync.Mutex
	n    int
	zero chan struct{} // closed when n falls to 0; nil if nobody waits
}

// Add counts one more and returns true, or returns false where limit are running already.
func (c *Counter) Add(limit int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n >= limit {
		return false
	}
	c.n++
	return true
}

// Done counts one less.
func (c *Counter) Done() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n--; c.n == 0 && c.zero != nil {
		close(c.zero)
		c.zero = nil
	}
}

// Count returns how many are running.
func (c *Counter) Count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}

// Wait returns when nothing is running, or ctx.Err() when ctx ends.
func (c *Counter) Wait(ctx context.Context) error {
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

// A Limit lets ten lines a minute pass.
type Limit struct {
	mu         sync.Mutex
	minute     time.Time // start of the current minute
	lines      int       // in the current minute
	suppressed int       // since the last line
}

// Allow reports whether a line may be written now, and how many were not since the
// last one.
func (l *Limit) Allow(now time.Time) (suppressed int, ok bool) {
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
