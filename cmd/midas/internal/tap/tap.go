// Package tap records what a backend and Midas say to each other, while it passes each byte on.
//
// It stands on both legs, backend -> gateway and Midas -> backend, and is a relay of
// connections, not an HTTP proxy: for each connection that comes in one goes out, what is read
// from one is written to the other as it is, and a parser looks on. So whatever a backend gets
// through a tap, well formed or not, is what it would get without one; and it is the backend
// and Midas alone who decide how long to wait. The one thing that is changed is the header Host
// of requests to the gateway, which would name the tap.
//
// What the parser finds goes through a bounded queue to a recorder, which masks it and writes
// it as JSON lines. A disk that is full or slow costs exchanges in the recording, which are
// counted, and never a message.
package tap

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/url"
	"sync"
	"time"
)

// The kinds of exchanges, which are the legs.
const (
	Order    = "order"    // the backend calls the gateway
	Callback = "callback" // Midas calls the backend
)

// A Leg is where connections come in, and where they go.
type Leg struct {
	Kind     string
	Listener net.Listener
	To       *url.URL // scheme and host of the gateway or the backend

	// TLS is for https. If nil, the system's certificates are asked. The name is always
	// that of To, and verified.
	TLS *tls.Config
}

// Config configures a tap.
type Config struct {
	Legs      []Leg
	Recording io.Writer // gets whole lines, one Write each; nil for none

	// KeepSecrets records everything as it is. Otherwise secrets are replaced by
	// placeholders, and openids by names.
	KeepSecrets bool

	// Secret reports whether the value of a parameter, a cookie or a header of this name is
	// to be replaced, besides signatures, which always are. It is called with the decoded value.
	Secret func(name, value string) bool

	// Verdict judges a request as it came: see [Verdict].
	Verdict func(*Exchange) *Verdict

	// Seen, if not nil, is told of each exchange as it is recorded, one after another; and
	// Trouble of what keeps the recording from being whole, at most once a minute.
	Seen    func(*Exchange)
	Trouble func(err error, lost int)

	// Limit is how many bytes are recorded of a head, and of a body. Zero means 64 KiB.
	Limit int

	// Now is the clock of what is recorded. If nil, time.Now.
	Now func() time.Time
}

const (
	defaultLimit   = 64 << 10
	maxConnections = 1000 // of a leg; more wait in the listener's backlog
	dialTime       = 5 * time.Second
	handshakeTime  = 5 * time.Second
	lingerTime     = time.Second     // in which the rest of a connection is read, so that a reset destroys no answer
	graceTime      = 3 * time.Second // that exchanges under way have when the tap ends
)

// Run passes messages on until ctx ends, or until a listener fails. Then exchanges under way
// have three seconds, and the recorder writes what waits unless that comes to a halt. It
// closes the listeners, and returns how many exchanges are not in the recording.
func Run(ctx context.Context, cfg Config) (lost int, err error) {
	cfg.Limit = cmp.Or(cfg.Limit, defaultLimit)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	t := &tap{cfg: cfg, recorder: newRecorder(cfg), open: map[*conversation]bool{}}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var listening sync.WaitGroup
	for _, leg := range cfg.Legs {
		context.AfterFunc(ctx, func() { leg.Listener.Close() })
		listening.Go(func() { cancel(t.listen(ctx, leg)) })
	}
	listening.Wait()
	t.finish(graceTime)
	lost = t.recorder.finish(graceTime)
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return lost, err
	}
	return lost, nil
}

// A tap is a running one.
type tap struct {
	cfg      Config
	recorder *recorder

	mu      sync.Mutex
	open    map[*conversation]bool
	number  int // of the last connection
	ending  bool
	talking sync.WaitGroup
}

// listen takes the connections of a leg until ctx ends.
func (t *tap) listen(ctx context.Context, leg Leg) error {
	places := make(chan struct{}, maxConnections)
	for {
		select {
		case places <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		client, err := leg.Listener.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if !isShortage(err) {
				return err
			}
			<-places
			pause := time.NewTimer(100 * time.Millisecond) // some connection will end
			select {
			case <-pause.C:
			case <-ctx.Done():
			}
			continue
		}
		c := t.begin(leg, client)
		t.talking.Go(func() {
			defer func() { <-places }()
			c.run(ctx)
			t.mu.Lock()
			delete(t.open, c)
			t.mu.Unlock()
		})
	}
}

func (t *tap) begin(leg Leg, client net.Conn) *conversation {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.number++
	c := newConversation(t, leg, client, t.number)
	t.open[c] = true
	return c
}

// finish closes idle connections at once, and the others when they are idle or after a time.
func (t *tap) finish(grace time.Duration) {
	t.mu.Lock()
	t.ending = true
	for c := range t.open {
		c.closeIfIdle()
	}
	t.mu.Unlock()
	ended := make(chan struct{})
	go func() { t.talking.Wait(); close(ended) }()
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-ended:
		return
	case <-timer.C:
	}
	t.mu.Lock()
	for c := range t.open {
		c.close()
	}
	t.mu.Unlock()
	<-ended
}

func (t *tap) isEnding() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.ending
}
