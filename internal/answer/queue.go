package answer

import (
	"context"
	"fmt"
	"sync"
)

// Places count the functions that are running, and let others wait until none is. (A
// sync.WaitGroup must not be waited for while its counter may rise from zero.)
type Places struct {
	most int

	mu    sync.Mutex
	taken int
	zero  chan struct{} // closed when taken falls to 0; nil if nobody waits
}

// NewPlaces returns places for most functions at once.
func NewPlaces(most int) *Places { return &Places{most: most} }

// Take takes a place and returns nil, or an error where none is free.
func (p *Places) Take() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.full(); err != nil {
		return err
	}
	p.taken++
	return nil
}

// Full returns an error while no place is free.
func (p *Places) Full() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.full()
}

func (p *Places) full() error {
	if p.taken < p.most {
		return nil
	}
	return fmt.Errorf("%d functions are running, at most %d may: does one ignore its context?", p.taken, p.most)
}

// Leave gives a place back.
func (p *Places) Leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.taken--; p.taken == 0 && p.zero != nil {
		close(p.zero)
		p.zero = nil
	}
}

// Wait returns when no place is taken, or ctx.Err() when ctx ends.
func (p *Places) Wait(ctx context.Context) error {
	p.mu.Lock()
	if p.taken == 0 {
		p.mu.Unlock()
		return nil
	}
	if p.zero == nil {
		p.zero = make(chan struct{})
	}
	zero := p.zero
	p.mu.Unlock()
	select {
	case <-zero:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// maxPending is how many jobs may wait for a log handler or a hook that is slow. More are
// dropped and counted, except those that need action.
const maxPending = 1000

// A queue does jobs one after the other in a goroutine of its own, so that a log handler
// or a hook that blocks or panics holds up nothing else. The goroutine ends when there is
// nothing to do.
type queue struct {
	mu      sync.Mutex
	jobs    []job
	keys    map[string]bool // of the jobs that have one
	missed  int             // since the last job that was queued
	active  bool            // the goroutine runs
	pending *Places
}

type job struct {
	key    string // of what must not be dropped; one of each is enough
	do     func(missed int)
	failed func(cause any) // do panicked; may be nil
	missed int
}

// add queues a job, which learns how many were dropped before it. One with a key is
// dropped only if one with the same key waits already, so that repeats cannot fill the
// memory; one without also if maxPending wait.
func (q *queue) add(next job) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if next.key == "" && len(q.jobs) >= maxPending || q.keys[next.key] {
		q.missed++
		return
	}
	if next.key != "" {
		q.keys[next.key] = true
	}
	next.missed, q.missed = q.missed, 0
	q.jobs = append(q.jobs, next)
	_ = q.pending.Take() // of so many that one is always free
	if !q.active {
		q.active = true
		go q.work()
	}
}

// miss adds to what the next job that is queued learns was dropped before it.
func (q *queue) miss(n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.missed += n
}

func (q *queue) work() {
	for {
		q.mu.Lock()
		if len(q.jobs) == 0 {
			q.jobs, q.active = nil, false
			q.mu.Unlock()
			return
		}
		next := q.jobs[0]
		q.jobs[0] = job{}
		q.jobs = q.jobs[1:]
		delete(q.keys, next.key)
		q.mu.Unlock()
		q.do(next)
	}
}

// do does a job that may panic, or end the goroutine as a test's FailNow does.
func (q *queue) do(next job) {
	returned := false
	defer func() {
		cause := recover()
		if cause != nil && next.failed != nil {
			next.failed(cause)
		}
		q.pending.Leave()
		if cause == nil && !returned {
			go q.work()
		}
	}()
	next.do(next.missed)
	returned = true
}
