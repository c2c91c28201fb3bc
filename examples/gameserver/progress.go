package main

import (
	"fmt"
	"io"
	"os"
	"time"
)

// A progress shows on a terminal how far something is, and how much is left.
type progress struct {
	out   io.Writer // nil: nobody looks
	what  string
	total int64
	now   func() time.Time

	done         int64
	begun, shown time.Time
}

func newProgress(out io.Writer, what string, total int64) *progress {
	return &progress{out: out, what: what, total: total, now: time.Now}
}

// Write counts bytes: what is read through a TeeReader.
func (p *progress) Write(b []byte) (int, error) {
	p.at(p.done + int64(len(b)))
	return len(b), nil
}

// at says how much of the total is done. It writes five times a second at most.
func (p *progress) at(done int64) {
	p.done = done
	if p.out == nil || p.total <= 0 {
		return
	}
	now := p.now()
	if p.begun.IsZero() {
		p.begun, p.shown = now, now
	}
	if done <= 0 || now.Sub(p.shown) < 200*time.Millisecond {
		return
	}
	p.shown = now
	part := min(float64(done)/float64(p.total), 1)
	left := time.Duration(float64(now.Sub(p.begun)) * (1 - part) / part)
	fmt.Fprintf(p.out, "\r\x1b[K%s: %d %%, %s left", p.what, int(100*part), left.Round(time.Second))
}

// end takes the line away.
func (p *progress) end() {
	if p.out != nil && p.shown.After(p.begun) {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
}

// isTerminal reports whether somebody sees what is written to w.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
