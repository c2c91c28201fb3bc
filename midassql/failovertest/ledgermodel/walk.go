package ledgermodel

import (
	"math/rand/v2"
	"strings"
)

// An Event is what somebody outside the ledger sees in a walk.
type Event struct {
	Process int
	Begins  bool   // a call, or else its answer
	Op      string // callback, refund, cancel; hand, back, done of a worker
	Refund  int    // which
	OK      bool   // the answer was nil
	Told    bool   // of a refund
	Repeat  bool   // of a refund
	Saved   bool   // back
	Sum     int    // of a refund, in halves of the payment
}

// An End is what the database holds at the end of a walk.
type End struct {
	Grants, Refunded int
	State            string // "" if no row is there
}

// A Case is a game, with every rule of the ledger or without one.
type Case struct {
	Name  string
	Inbox bool
	Right bool // no walk breaks a rule
	cfg   Cfg
}

// Cases are games that are seen from outside: callbacks, refunds in two halves, Cancel and workers, with crashes and
// commits whose answer is lost.
func Cases() []Case {
	calls := func(role Role, n uint8) P { return P{role: role, calls: n, tok: 1} }
	half := func(r int, n uint8) P { return P{role: refund, r: r, a: 1, calls: n} }
	right := func(faults uint8, procs ...P) Cfg { // the sum is on the payment's row
		return Cfg{procs: procs, faults: faults, B: true, Column: true, TwoTx: true, RepeatExcl: true, Hand: 2, HandKept: true, DoneMarks: true,
			BrokenNoted: true, PersonNoted: true, CancelNoted: true, TakeID: true, ImportResolve: true, ClaimCond: true, ClaimLock: true,
			OverNotice: true, SettleTokEmpty: true, HandSticky: true, ReopenMay: true, RetryReports: true}
	}
	looks := Cfg{procs: []P{calls(once, 1), calls(once, 1)}, noUnique: true, ClaimCond: true, ClaimLock: true}
	adds := right(0, calls(deliver, 1), half(0, 1), half(1, 1))
	adds.Column, adds.TwoTx = false, false // the sum of the refunds is read, without a lock
	absent := right(0, calls(deliver, 1), calls(worker, 3), calls(cancel, 1), half(0, 1), half(1, 1))
	absent.notnow = true
	return []Case{
		{"Once, callbacks and halves", false, true, right(2, calls(once, 2), calls(once, 1), half(0, 2), half(1, 1))},
		{"Inbox, workers, halves", true, true, right(1, calls(deliver, 2), calls(worker, 2), calls(worker, 1), half(0, 1), half(1, 2))},
		{"Inbox, absent players, Cancel", true, true, absent},
		{"without the unique key", false, false, looks},
		{"without the sum on the row", true, false, adds},
	}
}

// Walk takes steps at random until none is left. broken are the rules that a state has broken.
func (c Case) Walk(r *rand.Rand) (events []Event, end End, broken []string) {
	cfg := &c.cfg
	running = cfg
	s := State{faults: cfg.faults}
	type step struct {
		to    State
		label string
		by    int
	}
	for {
		var steps []step
		for p := range cfg.procs {
			cfg.steps(s, p, func(to State, label string) { steps = append(steps, step{to, label, p}) })
		}
		cfg.env(s, func(to State, label string) { steps = append(steps, step{to, label, -1}) })
		if len(steps) == 0 {
			break
		}
		n := steps[r.IntN(len(steps))]
		if n.by >= 0 {
			events = append(events, cfg.seen(&s, &n.to, n.by, n.label)...)
		}
		s = n.to
		broken = append(broken, cfg.check(&s)...)
	}
	end = End{Grants: int(s.items), Refunded: int(cfg.sum(&s.db))}
	if s.db.pay.ex == 1 {
		end.State = stNames[s.db.pay.st]
	}
	return events, end, broken
}

// seen is what a step shows.
func (c *Cfg) seen(from, to *State, p int, label string) (events []Event) {
	role := c.procs[p].role
	e := Event{Process: p, Op: map[Role]string{once: "callback", deliver: "callback", refund: "refund", cancel: "cancel", worker: "done"}[role], Refund: c.procs[p].r}
	says := func(what string) bool { return strings.Contains(label, what) }
	if role == worker {
		switch {
		case says("hands it to the game"):
			e.Op = "hand"
			return []Event{e}
		case says("the game"):
			back := e
			back.Op, back.Saved = "back", says("SAVES") || says("finds the id")
			events = append(events, back)
			if back.Saved {
				e.Begins = true
				events = append(events, e)
			}
			return events
		case from.p[p].pc < 5 || from.p[p].pc > 7 || to.p[p].pc != 0: // no Done ends
			return nil
		}
	} else if to.p[p].calls > from.p[p].calls {
		begins := e
		begins.Begins = true
		events = append(events, begins)
	}
	if to.p[p].pc != 0 {
		return events
	}
	e.OK = strings.HasSuffix(label, ": COMMIT") || strings.HasSuffix(label, ", nil")
	if r := e.Refund; role == refund && e.OK {
		e.Repeat = to.told[r] == from.told[r]
		e.Told, e.Sum = !e.Repeat && to.toldG[r] == 1, int(c.sum(&to.db))
	}
	return append(events, e)
}
