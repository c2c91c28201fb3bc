package tap

import (
	"errors"
	"fmt"
	"net"
	"sync"
)

// maxPending is how many requests may wait for their answers on one connection before they are
// not recorded any more: what is recorded of them is kept in memory.
const maxPending = 100

var (
	errPipelined = errors.New("more than 100 requests on one connection wait for their answers")
	errUnasked   = errors.New("this came without a request")
)

// A conversation is a connection that came in, the one that went out for it, and the exchanges
// on them.
type conversation struct {
	tap       *tap
	leg       Leg
	client    net.Conn
	number    int
	callerTLS string
	requests  *stream
	answers   *stream

	mu      sync.Mutex // guards what follows and both streams
	server  net.Conn   // nil before it is connected
	closed  bool
	over    bool        // the caller says no more: it waits for answers to what it asked, or has hung up
	writing int         // messages, or parts of them, that are on their way out
	count   int         // of requests
	asking  *Exchange   // whose request has not ended; nil between requests
	pending []*Exchange // whose answer has not ended, oldest first
}

func newConversation(t *tap, leg Leg, client net.Conn, number int) *conversation {
	c := &conversation{tap: t, leg: leg, client: client, number: number}
	c.requests = &stream{limit: t.cfg.Limit, begun: c.requestBegun, ended: c.requestEnded}
	c.answers = &stream{limit: t.cfg.Limit, isAnswer: true, begun: c.answerBegun, ended: c.answerEnded, asked: c.asked}
	if leg.Kind == Order { // the gateway has never heard of the tap's name
		c.requests.host = leg.To.Host
	}
	return c
}

// connected takes the connection that goes out, unless the tap has ended.
func (c *conversation) connected(server net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.server = server
	return !c.closed
}

func (c *conversation) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	c.client.Close()
	if c.server != nil {
		c.server.Close()
	}
}

// closeIfIdle closes a connection on which nothing is under way.
func (c *conversation) closeIfIdle() {
	c.mu.Lock()
	idle := len(c.pending) == 0 && c.asking == nil && c.writing == 0
	c.mu.Unlock()
	if idle {
		c.close()
	}
}

// feed shows a stream what came, and returns what is to be passed on. The caller calls written
// afterwards.
func (c *conversation) feed(s *stream, p []byte) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writing++
	return s.feed(p)
}

func (c *conversation) written() {
	c.mu.Lock()
	c.writing--
	c.mu.Unlock()
	if c.tap.isEnding() {
		c.closeIfIdle()
	}
}

// finish tells a stream that nothing more comes, and returns what it still held.
func (c *conversation) finish(s *stream) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writing++
	c.over = c.over || !s.isAnswer
	return s.finish()
}

// hasRequest reports whether a whole request is there, or one that cannot be followed.
func (c *conversation) hasRequest() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.requests.lost != nil || c.asking == nil && len(c.pending) > 0
}

// noMoreAnswers is told when no more answers come: whatever waits for one has waited so long.
func (c *conversation) noMoreAnswers() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range c.pending {
		e.Broke = e.since()
	}
}

// fail says why what is under way has no answer of the other end's.
func (c *conversation) fail(why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range c.pending {
		e.Error = why.Error()
	}
}

// end records what was under way when the connection ended.
func (c *conversation) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range c.pending {
		switch {
		case c.requests.lost != nil && e == c.asking:
		case e.Request != nil && e.Request.Ended == 0:
			e.say("the request broke off")
		case e.Answer == nil:
			e.say("no answer came")
		default:
			e.say("the answer broke off")
		}
		if e.Broke == 0 {
			e.Broke = e.since()
		}
		c.record(e)
	}
	if c.asking != nil && c.asking.answered { // which is not pending any more
		if c.requests.lost == nil {
			c.asking.say("the request broke off")
		}
		c.record(c.asking)
	}
	c.asking, c.pending = nil, nil
}

func (c *conversation) record(e *Exchange) {
	for _, s := range []*stream{c.requests, c.answers} {
		if s.lost != nil && s.unrecorded > 0 && s.last == e {
			e.say(fmt.Sprintf("%d more bytes of the %s were passed on and not recorded", s.unrecorded, s.name()))
		}
	}
	c.tap.recorder.add(e)
}

// The following are called by the streams.

func (c *conversation) newExchange() *Exchange {
	c.count++
	e := &Exchange{Time: c.tap.cfg.Now(), now: c.tap.cfg.Now, Kind: c.leg.Kind, Caller: Caller{
		Address: c.client.RemoteAddr().String(), TLS: c.callerTLS, Connection: c.number, Request: c.count,
	}, base: c.leg.To.Scheme + "://" + c.leg.To.Host}
	c.pending = append(c.pending, e)
	return e
}

func (c *conversation) requestBegun() (*Exchange, *Message, error) {
	if len(c.pending) >= maxPending {
		return nil, nil, errPipelined
	}
	c.asking = c.newExchange()
	c.asking.Request = new(Message)
	return c.asking, c.asking.Request, nil
}

func (c *conversation) requestEnded() {
	e := c.asking
	c.asking = nil
	if e.answered {
		c.record(e)
	}
}

func (c *conversation) answerBegun() (*Exchange, *Message, error) {
	if len(c.pending) == 0 {
		if c.requests.lost != nil {
			return nil, nil, errUnasked
		}
		e := c.newExchange()
		e.Answer = new(Message)
		e.say(errUnasked.Error())
		return e, e.Answer, nil
	}
	e := c.pending[0]
	e.Answer = new(Message)
	if c.over {
		e.say("the caller had closed its side before the answer came")
	}
	return e, e.Answer, nil
}

// asked returns the method of the request that is being answered.
func (c *conversation) asked() string {
	if e := c.pending[0]; e.Request != nil {
		return e.method
	}
	return ""
}

func (c *conversation) answerEnded() {
	e := c.pending[0]
	c.pending[0] = nil
	c.pending = c.pending[1:]
	e.answered = true
	if e != c.asking {
		c.record(e)
	}
}

// say adds to what is to be said of an exchange.
func (e *Exchange) say(what string) {
	if e.Error != "" {
		what = e.Error + "; " + what
	}
	e.Error = what
}
