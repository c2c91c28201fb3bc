package failovertest

import (
	"fmt"

	"github.com/anishathalye/porcupine"
	"github.com/midas-go/midas"
)

// A ledger of one payment, as everybody sees it who calls the ledger: what its state may be, and which answers it allows. A
// history of calls and answers is right if there is an order of the calls, each at some moment between its call
// and its answer, in which every answer is one that this page allows.
type ledger struct {
	stored    bool // a callback or a settlement has brought it
	granted   bool // in the database: by Once or Settle
	waiting   bool // for its hand-out by an Inbox
	cancelled bool
	saved     bool // in the game's record
	holder    int  // the server that has it, and 0
	refunds   [2]midas.Amount
}

const price = 2 * midas.QPoint // two refunds of half of it are a refund in full

func (p ledger) refunded() midas.Amount { return p.refunds[0] + p.refunds[1] }
func (p ledger) full() bool             { return p.refunded() >= price }

// A call is what somebody asked of the ledger, or saw.
type call struct {
	Op     string // one of the cases of step
	Inbox  bool   // the payment is for an Inbox
	Refund int    // which of its refunds
	Server int    // hand, back
}

// An answer is what he was told.
type answer struct {
	Unknown bool // an error, or none: it happened, now or later, or it did not
	Told    bool // refund: that the player has the items or may have
	Repeat  bool // refund
	Saved   bool // back: by the game
	Granted bool // settle
	Rows    int  // look, page: how often the player has it
	Sum     midas.Amount
	State   string // look
}

// step returns the states that a call may leave behind, none if its answer is wrong.
func step(p ledger, c call, a answer) []ledger {
	next := p
	allowed := true
	switch c.Op {
	case "callback": // OK only where it is granted, now or before, or refunded in full
		next = p.come(c)
	case "settle":
		allowed = a.Granted == !p.stored && !(p.full() && !p.stored)
		next = p.come(c)
	case "refund":
		repeat := p.refunds[c.Refund] > 0
		if !repeat {
			next.refunds[c.Refund] = price / 2
			if next.full() && p.waiting {
				next.waiting, next.cancelled = false, true
			}
		}
		has, mayHave := p.granted || p.saved || p.holder != 0, p.granted || c.Inbox && p.stored
		allowed = a.Repeat == repeat && (repeat || a.Sum == next.refunded() && (a.Told || !has) && (!a.Told || mayHave))
	case "cancel": // OK only where nothing hands it out any more
		allowed = p.waiting || p.cancelled
		if p.waiting {
			next.waiting, next.cancelled = false, true
		}
	case "done": // OK only where it is not handed out again
		allowed = p.stored && (p.waiting || !p.cancelled)
		next.waiting = false
	case "retry": // a restore: what is done waits again
		if c.Inbox && p.stored && !p.granted && !p.cancelled && !p.full() {
			next.waiting = true
		}
	case "hand": // to one server at a time, and never what is done, or refunded in full
		allowed = p.waiting && p.holder == 0
		next.holder = c.Server
	case "hand, leases may end":
		allowed = p.waiting
		next.holder = c.Server
	case "back": // from a server, or its lease ends
		if p.holder == c.Server {
			next.holder = 0
		}
		next.saved = p.saved || a.Saved
	case "page": // late, if its read was split
		allowed = a.Rows == 0 || a.Rows == 1 && p.granted
	case "look": // when all is over
		has := 0
		if p.granted {
			has = 1
		}
		lost := p.state() == "done" && !p.granted && !p.saved
		allowed = a.Rows == has && !lost && a.Sum == p.refunded() && a.State == p.state()
	}
	switch {
	case a.Unknown && next == p:
		return []ledger{p}
	case a.Unknown:
		return []ledger{p, next}
	case allowed:
		return []ledger{next}
	}
	return nil
}

// come is a payment's first callback or settlement.
func (p ledger) come(c call) ledger {
	switch {
	case p.stored:
		return p
	case p.full():
		p.cancelled = true
	case c.Inbox:
		p.waiting = true
	default:
		p.granted = true
	}
	p.stored = true
	return p
}

func (p ledger) state() string {
	switch {
	case !p.stored && p.refunded() > 0:
		return "noted"
	case !p.stored:
		return ""
	case p.waiting:
		return "waiting"
	case p.cancelled:
		return "cancelled"
	}
	return "done"
}

// model is the page above, for the checker.
var model = (&porcupine.NondeterministicModel{
	Init: func() []any { return []any{ledger{}} },
	Step: func(state, input, output any) (states []any) {
		for _, next := range step(state.(ledger), input.(call), output.(answer)) {
			states = append(states, next)
		}
		return states
	},
	DescribeOperation: func(input, output any) string {
		c, a := input.(call), output.(answer)
		if a.Unknown {
			return fmt.Sprintf("%s -> ?", c.Op)
		}
		switch c.Op {
		case "refund":
			return fmt.Sprintf("refund %d -> told %t, repeat %t, sum %d", c.Refund, a.Told, a.Repeat, a.Sum)
		case "hand", "back":
			return fmt.Sprintf("%s, server %d, saved %t", c.Op, c.Server, a.Saved)
		case "page":
			return fmt.Sprintf("page -> %d times", a.Rows)
		case "look":
			return fmt.Sprintf("look -> %d times, %s, refunded %d", a.Rows, a.State, a.Sum)
		}
		return c.Op + " -> OK"
	},
	DescribeState: func(state any) string { return fmt.Sprintf("%+v", state) },
}).ToModel()
