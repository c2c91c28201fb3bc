// Package ledgermodel is an explicit-state model of the ledger: one payment, its refunds, the inbox, the game's record. Each SQL
// statement is a step, and each state is checked. Here it is walked at random, for histories that a second model judges.
package ledgermodel

import (
	"fmt"
)

const (
	done = iota
	waiting
	cancelled
	broken
	noted
)

var stNames = []string{"done", "waiting", "cancelled", "broken", "noted"}

const CH = 2 // what was charged, in units

const (
	rPAY = 1 << iota
	rINB
	rREF0
	rREF1
	rREF2
	rGEN
)

type Pay struct{ ex, st, tok, gen, done, ref, hand, mark uint8 }
type Inb struct{ ex, own, live, claims, maybe, nb uint8 } // nb: the last hand-out was not given back
type DB struct {
	pay Pay
	inb Inb
	ref [3]uint8
	gen uint8
}
type Tx struct {
	on, dirty, x, sh, hs uint8
	w, snap              DB
	grant                uint8
	tellR, tellG         uint8 // tellR: id+1
	over, sum            uint8
}
type Proc struct {
	pc, calls, l1, l2, l3, l4 uint8
	tx                        Tx
}

const NP = 5

type State struct {
	db                          DB
	p                           [NP]Proc
	items                       uint8 // committed by Once, or by the older backend
	adds, have, id              uint8 // the game's record
	bkAdds, bkHave, bkID, bk    uint8 // its backup
	ever                        uint8 // handed out at least once
	told, toldG, rack, taken    [3]uint8
	ack, ackS, cancelNil        uint8
	cancelDone, importOK        uint8
	seen, over, faults, restore uint8
	retried, bad, looked        uint8
}

type Role int

const (
	none Role = iota
	once
	deliver
	settleOnce
	settleInbox
	refund
	worker
	cancel
	retry
	importer
	person
)

type P struct {
	role  Role
	calls uint8
	r     int   // refund: id
	a     uint8 // and amount
	tok   uint8
}

type Cfg struct {
	name   string
	procs  []P
	rr     bool // MySQL's REPEATABLE READ: plain reads see the snapshot of the first one
	shared bool // MySQL: an INSERT IGNORE that finds the key keeps a shared lock
	faults uint8
	limit  int

	B                                       bool // the design of issue B
	Column                                  bool // sum on the payment's row
	LockNoted, RepeatExcl, RefundLock       bool
	CompareFirst, NumberFirst, SumLocking   bool // reads before the lock; sum as a locking read
	Hand                                    int  // refund and cancel look at the inbox row: 0 no, 1 plain read, 2 locked
	HandKept, DoneMarks                     bool
	BrokenNoted, PersonNoted, FreshSum      bool
	RetryLock                               bool
	CancelNoted                             bool
	TakeID                                  bool
	ImportResolve                           bool
	ClaimCond, ClaimLock                    bool
	HandSticky, ReopenMay                   bool // not-now does not wipe an older hand-out; what Retry puts back may be there
	RetryPageFirst, RefundOne, RetryOne     bool // a plain SELECT before the lock; lock and sum in one statement
	OrderFirst, RetryReports, staleDone     bool
	losesAtomic, noIDs                      bool
	TwoTx                                   bool // after an ignored insert: ROLLBACK, then UPDATE … WHERE noted opens a transaction
	NoGen                                   bool // counter-example: Done does not look at the generation
	AfterImport                             bool // callbacks come to this backend after the import only
	OverNotice                              bool
	SettleTokEmpty                          bool // a token that is not stored is not written to the row
	loses, withRestore, withBackup, oldGave bool
	notnow                                  bool
	noUnique                                bool // counter-example: decided by a look
	inTell                                  bool // players in this database
	stop                                    map[string]bool
}

func (c *Cfg) amount(r int) uint8 {
	for _, p := range c.procs {
		if p.role == refund && p.r == r {
			return p.a
		}
	}
	return 0
}

var running *Cfg

func sumOf(d *DB) uint8 { return running.sum(d) }

func (c *Cfg) sum(d *DB) (n uint8) {
	for r, ex := range d.ref {
		if ex == 1 {
			n += c.amount(r)
		}
	}
	return
}

// ---- transactions ----

func (s *State) begin(p int)    { s.p[p].tx = Tx{on: 1} }
func (s *State) rollback(p int) { s.p[p].tx = Tx{} }

func overlay(base *DB, t *Tx) DB {
	d := *base
	if t.dirty&rPAY != 0 {
		d.pay = t.w.pay
	}
	if t.dirty&rINB != 0 {
		d.inb = t.w.inb
	}
	for i := range d.ref {
		if t.dirty&(rREF0<<i) != 0 {
			d.ref[i] = t.w.ref[i]
		}
	}
	if t.dirty&rGEN != 0 {
		d.gen = t.w.gen
	}
	return d
}

// cur is what UPDATE and locking reads see.
func (s *State) cur(p int) DB { return overlay(&s.db, &s.p[p].tx) }

// view is what a plain SELECT sees.
func (c *Cfg) view(s *State, p int) DB {
	t := &s.p[p].tx
	if !c.rr {
		return overlay(&s.db, t)
	}
	if t.hs == 0 {
		t.hs, t.snap = 1, s.db
	}
	return overlay(&t.snap, t)
}

func (s *State) heldX(p int, rec uint8) bool {
	for q := range s.p {
		if q != p && s.p[q].tx.on == 1 && s.p[q].tx.x&rec != 0 {
			return true
		}
	}
	return false
}
func (s *State) heldS(p int, rec uint8) bool {
	for q := range s.p {
		if q != p && s.p[q].tx.on == 1 && s.p[q].tx.sh&rec != 0 {
			return true
		}
	}
	return false
}
func (s *State) canX(p int, rec uint8) bool { return !s.heldX(p, rec) && !s.heldS(p, rec) }

// canInsert: an uncommitted row of the same key is waited for.
func (c *Cfg) canInsert(s *State, p int, rec uint8) bool {
	for q := range s.p {
		t := &s.p[q].tx
		if q != p && t.on == 1 && t.x&rec != 0 && (c.shared || t.dirty&rec != 0) {
			return false
		}
	}
	return true
}

func (s *State) write(p int, rec uint8, f func(*DB)) {
	t := &s.p[p].tx
	d := s.cur(p)
	f(&d)
	if rec&rPAY != 0 {
		t.w.pay = d.pay
	}
	if rec&rINB != 0 {
		t.w.inb = d.inb
	}
	for i := range d.ref {
		if rec&(rREF0<<i) != 0 {
			t.w.ref[i] = d.ref[i]
		}
	}
	if rec&rGEN != 0 {
		t.w.gen = d.gen
	}
	t.dirty |= rec
	t.x |= rec
}

func (s *State) commit(p int) {
	t := &s.p[p].tx
	s.db = overlay(&s.db, t)
	s.items += t.grant
	if t.tellR > 0 {
		s.told[t.tellR-1]++
		s.toldG[t.tellR-1] = t.tellG
		if t.sum > 0 && t.sum != sumOf(&s.db) {
			s.bad = 3
		}
	}
	if t.over == 1 {
		s.over = 1
	}
	*t = Tx{}
}

type emitter func(State, string)

// ---- steps ----

func (c *Cfg) finish(s State, p int, what string, ok, fail func(*State), e emitter) {
	a := s
	a.commit(p)
	ok(&a)
	e(a, what+": COMMIT")
	if s.faults > 0 {
		b := s
		b.faults--
		b.commit(p)
		fail(&b)
		e(b, what+": COMMIT lasts, the caller does not learn it")
		d := s
		d.faults--
		d.rollback(p)
		fail(&d)
		e(d, what+": COMMIT fails, rolled back")
	}
}

func (c *Cfg) blocked(s State, p int, what string, e emitter) {
	s.rollback(p)
	s.p[p].pc, s.p[p].l1, s.p[p].l2, s.p[p].l3, s.p[p].l4 = 0, 0, 0, 0, 0
	e(s, what+": gives up waiting for a lock, rolled back")
}

func (c *Cfg) steps(s State, p int, e emitter) {
	pr := c.procs[p]
	x := &s.p[p]
	if c.losesAtomic { // nothing happens between the loss and the row that says broken
		for q := range c.procs {
			if s.p[q].pc == 30 {
				if q == p {
					c.store(s, p, e)
				}
				if s.canX(q, rPAY) {
					return
				}
			}
		}
	}
	// a crash at any step
	if x.pc != 0 && s.faults > 0 && pr.role != person {
		d := s
		d.faults--
		d.rollback(p)
		n := d.p[p].calls
		d.p[p] = Proc{calls: n}
		if pr.role == worker || pr.role == retry {
			d.p[p].l4 = s.db.gen
		}
		e(d, c.who(p)+": crash")
	}
	switch pr.role {
	case once, deliver, settleOnce, settleInbox:
		c.store(s, p, e)
	case refund:
		if c.B {
			c.refundB(s, p, e)
		} else {
			c.refundToday(s, p, e)
		}
	case worker:
		c.worker(s, p, e)
	case cancel:
		c.cancel(s, p, e)
	case retry:
		c.retry(s, p, e)
	case importer:
		c.importer(s, p, e)
	case person:
		c.person(s, p, e)
	}
}

func (c *Cfg) who(p int) string {
	n := map[Role]string{once: "callback", deliver: "callback", settleOnce: "Settle", settleInbox: "Inbox.Settle", refund: "refund", worker: "worker", cancel: "Cancel", retry: "Retry", importer: "Import", person: "person"}[c.procs[p].role]
	if c.procs[p].role == refund {
		return fmt.Sprintf("%s R%d(%d of %d)", n, c.procs[p].r+1, c.procs[p].a, CH)
	}
	return fmt.Sprintf("%s %c", n, 'A'+p)
}

func (c *Cfg) store(s State, p int, e emitter) {
	pr, x := c.procs[p], &s.p[p]
	byHand := pr.role == settleOnce || pr.role == settleInbox
	toInbox := pr.role == deliver || pr.role == settleInbox
	w := c.who(p)
	end := func(s *State) { s.p[p].pc, s.p[p].l1, s.p[p].l2, s.p[p].l3, s.p[p].l4 = 0, 0, 0, 0, 0 }
	okay := func(s *State) {
		end(s)
		if byHand {
			s.ackS = 1
		} else {
			s.ack = 1
		}
	}
	target := uint8(done)
	if toInbox {
		target = waiting
	}
	tok := pr.tok
	if byHand && c.SettleTokEmpty && tok == 2 {
		tok = 0
	}
	switch x.pc {
	case 0:
		if x.calls < pr.calls && (!c.AfterImport || s.importOK == 1) {
			x.calls++
			s.begin(p)
			x.pc = 1
			if c.noUnique {
				x.pc = 40
			}
			if c.OrderFirst && byHand {
				c.view(&s, p)
				e(s, w+": SELECT order (its zone)")
				return
			}
			c.store(s, p, e)
		}
	case 40: // counter-example: a look instead of the key
		d := c.view(&s, p)
		if d.pay.ex == 1 {
			s.rollback(p)
			okay(&s)
			e(s, w+": looks, there, nil")
			return
		}
		x.pc = 41
		e(s, w+": looks, not there")
	case 41:
		s.write(p, rPAY, func(d *DB) { d.pay = Pay{ex: 1, st: target, tok: tok, mark: uint8(p + 1)} })
		x.pc = 4
		e(s, w+": writes the row")
	case 1:
		if !c.canInsert(&s, p, rPAY) {
			c.blocked(s, p, w, e)
			return
		}
		d := s.cur(p)
		if d.pay.ex == 0 {
			s.write(p, rPAY, func(d *DB) { d.pay = Pay{ex: 1, st: target, tok: tok, mark: uint8(p + 1)} })
			x.pc = 3
			if c.B && c.FreshSum {
				x.pc = 5
			}
			e(s, w+": INSERT payment")
			return
		}
		if !c.B {
			s.rollback(p)
			x.pc = 20
			e(s, w+": INSERT payment finds a row, ROLLBACK")
			return
		}
		if c.TwoTx {
			s.rollback(p)
			x.pc = 51
			e(s, w+": INSERT payment finds a row, ROLLBACK")
			return
		}
		if c.shared {
			x.tx.sh |= rPAY
		}
		x.pc = 2
		if c.CompareFirst {
			x.pc = 7
		}
		e(s, w+": INSERT payment finds a row")
	case 51:
		if x.tx.on == 0 {
			s.begin(p)
		}
		if !s.canX(p, rPAY) {
			c.blocked(s, p, w, e)
			return
		}
		d := s.cur(p)
		if d.pay.ex == 0 || d.pay.st != noted {
			s.rollback(p)
			x.pc = 20
			e(s, w+": UPDATE payment WHERE noted changes nothing, ROLLBACK")
			return
		}
		x.l1, x.l2, x.pc = 1, d.pay.ref, 52
		s.write(p, rPAY, func(d *DB) {
			d.pay.st, d.pay.tok, d.pay.mark = target, tok, uint8(p+1)
			if d.pay.ref >= CH {
				d.pay.st = cancelled
			}
		})
		if x.l2 > CH && c.OverNotice {
			x.tx.over = 1
		}
		e(s, w+": UPDATE payment WHERE noted")
	case 52:
		c.view(&s, p)
		x.pc = 53
		e(s, w+": compares with the order")
	case 53:
		x.pc = 6
		switch {
		case x.l2 >= CH:
			e(s, w+": it is cancelled")
		case toInbox:
			s.write(p, rINB, func(d *DB) { d.inb = Inb{ex: 1} })
			e(s, w+": INSERT inbox")
		default:
			if c.loses {
				for _, part := range []uint8{0, 1} {
					b := s
					b.rollback(p)
					b.items += part
					b.p[p].pc = 30
					e(b, fmt.Sprintf("%s: the grant loses its transaction, and %d item is committed on its own", w, part))
				}
			}
			x.tx.grant = 1
			e(s, w+": grant")
		}
	case 7:
		c.view(&s, p)
		x.pc = 2
		e(s, w+": SELECT order")
	case 2:
		var d DB
		if c.LockNoted {
			if !s.canX(p, rPAY) {
				c.blocked(s, p, w, e)
				return
			}
			x.tx.x |= rPAY
			d = s.cur(p)
		} else {
			d = c.view(&s, p)
		}
		if d.pay.st != noted {
			s.rollback(p)
			x.pc = 20
			e(s, w+": the row is "+stNames[d.pay.st]+", ROLLBACK")
			return
		}
		x.l1, x.pc = 1, 5
		e(s, w+": the row is noted")
	case 5: // the sum
		var d DB
		if c.SumLocking {
			d = s.cur(p)
		} else {
			d = c.view(&s, p)
		}
		if c.Column {
			d = s.cur(p)
			x.l2 = d.pay.ref
		} else {
			x.l2 = c.sum(&d)
		}
		x.pc = 3
		e(s, fmt.Sprintf("%s: sum of refunds = %d", w, x.l2))
	case 3:
		c.view(&s, p)
		x.pc = 4
		e(s, w+": compares with the order")
	case 4:
		full := x.l2 >= CH
		if x.l1 == 1 || x.l2 > 0 {
			if !s.canX(p, rPAY) {
				c.blocked(s, p, w, e)
				return
			}
			if c.Column && x.l1 == 1 && s.cur(p).pay.st != noted { // UPDATE … WHERE state = noted
				s.rollback(p)
				x.pc = 20
				e(s, w+": UPDATE payment WHERE noted changes nothing, ROLLBACK")
				return
			}
			s.write(p, rPAY, func(d *DB) {
				if c.Column {
					full = d.pay.ref >= CH
				}
				d.pay.st, d.pay.tok, d.pay.mark = target, tok, uint8(p+1)
				if full {
					d.pay.st = cancelled
				}
			})
			if x.l2 > CH && c.OverNotice {
				x.tx.over = 1
			}
		}
		x.pc = 6
		if full && (x.l1 == 1 || x.l2 > 0) {
			e(s, w+": UPDATE payment: cancelled")
			return
		}
		if toInbox {
			s.write(p, rINB, func(d *DB) { d.inb = Inb{ex: 1} })
			e(s, w+": INSERT inbox")
			return
		}
		if c.loses {
			for _, part := range []uint8{0, 1} {
				b := s
				b.rollback(p)
				b.items += part
				b.p[p].pc = 30
				e(b, fmt.Sprintf("%s: the grant loses its transaction, and %d item is committed on its own", w, part))
			}
		}
		x.tx.grant = 1
		e(s, w+": grant")
	case 6:
		c.finish(s, p, w, okay, end, e)
	case 20:
		if x.tx.on == 0 {
			s.begin(p)
		}
		if !s.canX(p, rPAY) {
			c.blocked(s, p, w, e)
			return
		}
		d := s.cur(p)
		match := d.pay.ex == 1 && (byHand || d.pay.tok == pr.tok || d.pay.tok == 0) && d.pay.st != broken && !(c.B && c.RepeatExcl && d.pay.st == noted)
		if !match {
			s.rollback(p)
			if !byHand && d.pay.ex == 1 && d.pay.st < broken {
				s.bad = 1
			}
			end(&s)
			e(s, w+": UPDATE repeats finds nothing: ret 1")
			return
		}
		s.write(p, rPAY, func(d *DB) {
			if !byHand {
				d.pay.tok = pr.tok
			}
		})
		x.pc = 21
		e(s, w+": UPDATE repeats")
	case 21:
		c.finish(s, p, w, okay, end, e)
	case 30:
		s.begin(p)
		if !s.canX(p, rPAY) {
			return // waits
		}
		d := s.cur(p)
		switch {
		case d.pay.ex == 0:
			s.write(p, rPAY, func(d *DB) { d.pay = Pay{ex: 1, st: broken, tok: tok, mark: uint8(p + 1)} })
		case d.pay.mark == uint8(p+1), c.B && c.BrokenNoted && d.pay.st == noted:
			s.write(p, rPAY, func(d *DB) { d.pay.st = broken })
		}
		s.commit(p)
		end(&s)
		e(s, w+": stores that it is broken (if it can): ret 1")
	}
}

func (c *Cfg) refundToday(s State, p int, e emitter) {
	pr, x := c.procs[p], &s.p[p]
	w := c.who(p)
	rec := uint8(rREF0 << pr.r)
	end := func(s *State) { n := s.p[p].calls; s.p[p] = Proc{calls: n} }
	okay := func(s *State) { end(s); s.rack[pr.r] = 1 }
	switch x.pc {
	case 0:
		if x.calls < pr.calls {
			x.calls++
			s.begin(p)
			x.pc = 1
			c.refundToday(s, p, e)
		}
	case 1:
		if !c.canInsert(&s, p, rec) {
			c.blocked(s, p, w, e)
			return
		}
		if s.cur(p).ref[pr.r] == 1 {
			x.pc = 7
			e(s, w+": the id is there, UPDATE repeats")
			return
		}
		s.write(p, rec, func(d *DB) { d.ref[pr.r] = 1 })
		x.pc = 2
		e(s, w+": INSERT refund")
	case 2:
		if !c.canInsert(&s, p, rPAY) {
			c.blocked(s, p, w, e)
			return
		}
		if s.cur(p).pay.ex == 0 {
			s.write(p, rPAY, func(d *DB) { d.pay = Pay{ex: 1, st: cancelled} })
			x.pc = 6
			e(s, w+": INSERT payment as cancelled")
			return
		}
		if c.shared {
			x.tx.sh |= rPAY
		}
		x.pc = 3
		e(s, w+": INSERT payment finds a row")
	case 3:
		d := c.view(&s, p)
		x.l1 = c.sum(&d)
		x.pc = 4
		e(s, fmt.Sprintf("%s: sum of refunds = %d", w, x.l1))
	case 4:
		if !s.canX(p, rPAY) {
			c.blocked(s, p, w, e)
			return
		}
		d := s.cur(p)
		if x.l1 >= CH && d.pay.st == waiting {
			s.write(p, rPAY, func(d *DB) { d.pay.st = cancelled })
			x.pc = 5
			e(s, w+": UPDATE payment: cancelled")
			return
		}
		s.write(p, rPAY, func(d *DB) {})
		d = c.view(&s, p)
		x.tx.tellG = b2u(d.pay.st == done || d.pay.st == broken)
		x.pc = 6
		e(s, w+": UPDATE payment: note")
	case 5:
		if !s.canX(p, rINB) {
			c.blocked(s, p, w, e)
			return
		}
		s.write(p, rINB, func(d *DB) { d.inb = Inb{} })
		x.pc = 6
		e(s, w+": DELETE inbox")
	case 6:
		x.tx.tellR = uint8(pr.r + 1)
		x.pc = 7
		e(s, fmt.Sprintf("%s: tell(granted=%v)", w, x.tx.tellG == 1))
	case 7:
		c.finish(s, p, w, okay, end, e)
	}
}

func b2u(b bool) uint8 {
	if b {
		return 1
	}
	return 0
}

func (c *Cfg) refundB(s State, p int, e emitter) {
	pr, x := c.procs[p], &s.p[p]
	w := c.who(p)
	rec := uint8(rREF0 << pr.r)
	end := func(s *State) { n := s.p[p].calls; s.p[p] = Proc{calls: n} }
	okay := func(s *State) { end(s); s.rack[pr.r] = 1 }
	switch x.pc {
	case 0:
		if x.calls < pr.calls {
			x.calls++
			s.begin(p)
			x.pc = 1
			if c.NumberFirst {
				c.view(&s, p)
				e(s, w+": SELECT the payment's number")
				return
			}
			c.refundB(s, p, e)
		}
	case 1:
		if !c.canInsert(&s, p, rec) {
			c.blocked(s, p, w, e)
			return
		}
		if s.cur(p).ref[pr.r] == 1 {
			x.pc = 7
			e(s, w+": the id is there, UPDATE repeats")
			return
		}
		s.write(p, rec, func(d *DB) { d.ref[pr.r] = 1 })
		x.pc = 2
		e(s, w+": INSERT refund")
	case 2:
		if !c.canInsert(&s, p, rPAY) {
			c.blocked(s, p, w, e)
			return
		}
		if s.cur(p).pay.ex == 0 {
			s.write(p, rPAY, func(d *DB) { d.pay = Pay{ex: 1, st: noted}; d.pay.ref = pr.a })
			x.l1 = pr.a
			x.pc = 6
			e(s, w+": INSERT payment as noted")
			return
		}
		if c.shared {
			x.tx.sh |= rPAY
		}
		x.pc = 3
		e(s, w+": INSERT payment finds a row")
	case 3:
		if c.RefundOne && x.l2 == 0 {
			d := c.view(&s, p)
			x.l2, x.l1 = 1, c.sum(&d)
			e(s, w+": the statement that locks and sums begins")
			return
		}
		if c.RefundLock || c.Column {
			if !s.canX(p, rPAY) {
				c.blocked(s, p, w, e)
				return
			}
			x.tx.x |= rPAY
			if c.Column {
				s.write(p, rPAY, func(d *DB) { d.pay.ref += pr.a })
			}
		}
		x.pc = 4
		if c.RefundOne {
			x.pc = 5
			e(s, fmt.Sprintf("%s: locks the payment; sum as of the statement's begin = %d", w, x.l1))
			return
		}
		e(s, w+": locks the payment")
	case 4:
		d := c.view(&s, p)
		if c.SumLocking {
			d = s.cur(p)
		}
		x.l1 = c.sum(&d)
		if c.Column {
			x.l1 = s.cur(p).pay.ref
		}
		x.pc = 5
		e(s, fmt.Sprintf("%s: sum of refunds = %d", w, x.l1))
	case 5:
		if !s.canX(p, rPAY) {
			c.blocked(s, p, w, e)
			return
		}
		d := s.cur(p)
		switch {
		case d.pay.st == waiting && x.l1 >= CH:
			x.pc = 8
			if c.Hand == 0 {
				x.pc = 9
			}
			s.write(p, rPAY, func(d *DB) { d.pay.st = cancelled })
			e(s, w+": UPDATE payment: cancelled")
			return
		case d.pay.st == waiting: // in part: it waits on, and somebody may have it
			if !s.canX(p, rINB) {
				c.blocked(s, p, w, e)
				return
			}
			x.tx.x |= rINB
			s.write(p, rPAY, func(d *DB) {})
			x.tx.tellG = d.inb.maybe | d.inb.nb
		case d.pay.st == cancelled:
			s.write(p, rPAY, func(d *DB) {})
			x.tx.tellG = b2u(c.HandKept && d.pay.hand == 1)
		default:
			s.write(p, rPAY, func(d *DB) {})
			x.tx.tellG = b2u(d.pay.st == done || d.pay.st == broken)
		}
		if d.pay.st != noted && x.l1 > CH && c.OverNotice {
			x.tx.over = 1
		}
		x.pc = 6
		e(s, w+": UPDATE payment: note ("+stNames[d.pay.st]+")")
	case 8: // was it handed out?
		var d DB
		if c.Hand == 2 {
			if !s.canX(p, rINB) {
				c.blocked(s, p, w, e)
				return
			}
			x.tx.x |= rINB
			d = s.cur(p)
		} else {
			d = c.view(&s, p)
		}
		may := d.inb.maybe | d.inb.nb
		x.tx.tellG = may
		s.write(p, rPAY, func(q *DB) { q.pay.hand = may })
		x.pc = 9
		e(s, fmt.Sprintf("%s: looks at the inbox row: may have it = %d", w, may))
	case 9:
		if !s.canX(p, rINB) {
			c.blocked(s, p, w, e)
			return
		}
		s.write(p, rINB, func(d *DB) { d.inb = Inb{} })
		if x.l1 > CH && c.OverNotice {
			x.tx.over = 1
		}
		x.pc = 6
		e(s, w+": DELETE inbox")
	case 6:
		x.tx.tellR, x.tx.sum = uint8(pr.r+1), x.l1
		x.pc = 7
		e(s, fmt.Sprintf("%s: tell(granted=%v)", w, x.tx.tellG == 1))
	case 7:
		c.finish(s, p, w, okay, end, e)
	}
}

func (c *Cfg) worker(s State, p int, e emitter) {
	pr, x := c.procs[p], &s.p[p]
	w := c.who(p)
	end := func(s *State) { n, g := s.p[p].calls, s.p[p].l4; s.p[p] = Proc{calls: n, l4: g} } // l4: its generation
	if s.restore == 1 && s.retried == 0 && !(c.staleDone && x.pc >= 5 && x.pc <= 7) {
		return // stopped until Retry has run
	}
	switch x.pc {
	case 0:
		if x.calls >= pr.calls {
			return
		}
		d := s.db
		if d.inb.ex == 0 || d.inb.live == 1 {
			return
		}
		if c.ClaimLock && s.heldX(p, rINB) {
			return // SKIP LOCKED
		}
		x.calls++
		s.begin(p)
		if c.ClaimLock {
			x.tx.x |= rINB
		}
		x.pc = 1
		e(s, w+": SELECT what is due")
	case 1:
		if !s.canX(p, rINB) {
			c.blocked(s, p, w, e)
			return
		}
		d := s.cur(p)
		if d.inb.ex == 0 || c.ClaimCond && d.inb.live == 1 {
			s.rollback(p)
			end(&s)
			e(s, w+": UPDATE changes nothing")
			return
		}
		s.write(p, rINB, func(d *DB) {
			if d.inb.live == 1 && s.restore == 0 {
				s.bad = 2
			}
			if d.inb.nb == 1 {
				d.inb.maybe = 1 // nothing was heard of the last one
			}
			d.inb.own, d.inb.live, d.inb.nb = uint8(p+1), 1, 1
			d.inb.claims++
		})
		x.pc = 2
		e(s, w+": UPDATE lease")
	case 2:
		c.finish(s, p, w+" claims", func(s *State) { s.p[p].pc = 3 }, end, e)
	case 3:
		d := s.db
		if d.inb.ex == 0 || d.inb.own != uint8(p+1) {
			end(&s)
			e(s, w+": the row is gone")
			return
		}
		x.l1 = d.inb.claims
		x.l4 = max(x.l4, d.pay.gen)
		x.pc = 4
		s.ever = 1
		e(s, w+": hands it to the game")
	case 4:
		a := s
		a.p[p].pc = 5
		if a.id == 0 || c.noIDs {
			a.adds++
			a.have, a.id = 1, 1
			e(a, w+": the game SAVES items and id")
		} else {
			e(a, w+": the game finds the id")
		}
		if c.notnow {
			a = s
			a.p[p].pc = 10
			e(a, w+": the game says not now")
			a = s
			a.p[p].pc = 11
			e(a, w+": the game fails, nothing saved")
		}
	case 5:
		if x.tx.on == 0 {
			s.begin(p)
		}
		if !s.canX(p, rPAY) {
			c.blocked5(s, p, w, e)
			return
		}
		d := s.cur(p)
		if d.pay.st == waiting && (d.pay.gen <= x.l4 || c.NoGen) {
			s.write(p, rPAY, func(d *DB) { d.pay.st, d.pay.done = done, 1 })
			x.pc = 6
			e(s, w+": Done: UPDATE payment: done")
			return
		}
		if d.pay.st == cancelled {
			s.seen = 1
			if c.DoneMarks {
				s.write(p, rPAY, func(d *DB) { d.pay.hand = 1 })
				s.commit(p)
			}
		}
		s.rollback(p)
		end(&s)
		e(s, w+": Done: the payment is "+stNames[d.pay.st])
	case 6:
		if !s.canX(p, rINB) {
			c.blocked5(s, p, w, e)
			return
		}
		s.write(p, rINB, func(d *DB) { d.inb = Inb{} })
		x.pc = 7
		e(s, w+": Done: DELETE inbox")
	case 7:
		c.finish(s, p, w+" Done", end, end, e)
	case 10, 11:
		if !s.canX(p, rINB) {
			return
		}
		d := s.db
		if d.inb.ex == 1 && d.inb.own == uint8(p+1) && d.inb.claims == x.l1 && d.inb.live == 1 {
			s.db.inb.live, s.db.inb.nb = 0, 0
			if x.pc == 11 {
				s.db.inb.maybe = 1
			} else if !c.HandSticky {
				s.db.inb.maybe = 0
			}
		}
		end(&s)
		e(s, w+": gives it back")
	}
}

func (c *Cfg) blocked5(s State, p int, w string, e emitter) {
	s.rollback(p)
	n, g := s.p[p].calls, s.p[p].l4
	s.p[p] = Proc{calls: n, l4: g}
	e(s, w+": Done gives up waiting for a lock")
}

func (c *Cfg) cancel(s State, p int, e emitter) {
	pr, x := c.procs[p], &s.p[p]
	w := c.who(p)
	end := func(s *State) { n := s.p[p].calls; s.p[p] = Proc{calls: n} }
	switch x.pc {
	case 0:
		if x.calls < pr.calls {
			x.calls++
			s.begin(p)
			x.pc = 1
			c.cancel(s, p, e)
		}
	case 1:
		if !s.canX(p, rPAY) {
			c.blocked(s, p, w, e)
			return
		}
		d := s.cur(p)
		switch {
		case d.pay.ex == 1 && d.pay.st == waiting:
			s.write(p, rPAY, func(d *DB) { d.pay.st = cancelled })
			x.pc = 2
			if c.Hand > 0 {
				x.pc = 4
			}
			e(s, w+": UPDATE payment: cancelled")
			return
		case d.pay.ex == 1 && (d.pay.st == cancelled || d.pay.st == noted && !(c.B && c.CancelNoted)):
			s.cancelNil = 1
		}
		s.rollback(p)
		end(&s)
		e(s, w+": nothing waits: its answer")
	case 4:
		var d DB
		if c.Hand == 2 {
			if !s.canX(p, rINB) {
				c.blocked(s, p, w, e)
				return
			}
			x.tx.x |= rINB
			d = s.cur(p)
		} else {
			d = c.view(&s, p)
		}
		may := d.inb.maybe | d.inb.nb
		s.write(p, rPAY, func(q *DB) { q.pay.hand = may })
		x.pc = 2
		e(s, fmt.Sprintf("%s: looks at the inbox row: may have it = %d", w, may))
	case 2:
		if !s.canX(p, rINB) {
			c.blocked(s, p, w, e)
			return
		}
		s.write(p, rINB, func(d *DB) { d.inb = Inb{} })
		x.pc = 3
		e(s, w+": DELETE inbox")
	case 3:
		c.finish(s, p, w, func(s *State) { end(s); s.cancelDone = 1; s.cancelNil = 1 }, func(s *State) {
			end(s)
			if s.db.pay.st == cancelled {
				s.cancelDone = 1
			}
		}, e)
	}
}

func (c *Cfg) retry(s State, p int, e emitter) {
	pr, x := c.procs[p], &s.p[p]
	w := c.who(p)
	end := func(s *State) { n := s.p[p].calls; s.p[p] = Proc{calls: n} }
	switch x.pc {
	case 0:
		if s.restore == 1 && x.calls < pr.calls && s.retried == 0 {
			x.calls++
			s.db.gen++
			x.l1 = s.db.gen
			x.pc = 1
			e(s, w+": begins a generation")
		}
	case 1: // regenerate
		if !s.canX(p, rPAY) {
			return
		}
		if s.db.inb.ex == 1 && s.db.pay.st == waiting && s.db.pay.gen < x.l1 {
			s.db.pay.gen = x.l1
		}
		x.pc = 2
		e(s, w+": lifts what waits")
	case 2:
		if x.tx.on == 0 {
			s.begin(p)
		}
		if c.RetryPageFirst && x.l2 == 0 {
			x.l2 = 1
			c.view(&s, p)
			e(s, w+": SELECT the page, without a lock")
			return
		}
		if c.RetryOne && x.l2 == 0 {
			d := c.view(&s, p)
			x.l2, x.l3 = 1, b2u(c.sum(&d) >= CH)
			e(s, w+": the statement that locks and sums begins")
			return
		}
		if c.B && c.RetryLock {
			if !s.canX(p, rPAY) {
				c.blocked(s, p, w, e)
				return
			}
			x.tx.x |= rPAY
			x.pc = 3
			e(s, w+": locks the page's rows")
			return
		}
		x.pc = 3
		c.retry(s, p, e)
	case 3:
		d := c.view(&s, p)
		full := c.sum(&d) >= CH
		if c.B && c.Column {
			d = s.cur(p)
			full = d.pay.ref >= CH
		} else if c.B && c.SumLocking {
			d = s.cur(p)
			full = c.sum(&d) >= CH
		}
		if c.RetryOne {
			d = s.cur(p)
			full = x.l3 == 1
		}
		if d.pay.ex == 0 || d.pay.st != done || d.pay.done == 0 || full {
			s.rollback(p)
			n := x.calls
			s.p[p] = Proc{calls: n}
			s.retried = 1
			s.looked |= b2u(c.RetryReports && full)
			e(s, w+": nothing to put back")
			return
		}
		x.pc = 4
		e(s, w+": reads what was done, not refunded in full")
	case 4:
		if !s.canX(p, rPAY) {
			c.blocked(s, p, w, e)
			return
		}
		d := s.cur(p)
		if d.pay.st != done || d.pay.done == 0 || d.pay.gen >= x.l1 || c.B && c.Column && d.pay.ref >= CH {
			s.looked |= b2u(c.RetryReports && d.pay.ref >= CH)
			s.rollback(p)
			end(&s)
			s.retried = 1
			e(s, w+": UPDATE changes nothing")
			return
		}
		s.write(p, rPAY, func(d *DB) { d.pay.st, d.pay.gen = waiting, x.l1 })
		s.write(p, rINB, func(d *DB) { d.inb = Inb{ex: 1, maybe: b2u(c.ReopenMay)} })
		x.pc = 5
		e(s, w+": UPDATE payment: waiting; INSERT inbox")
	case 5:
		c.finish(s, p, w, func(s *State) { end(s); s.retried = 1 }, end, e)
	}
}

func (c *Cfg) importer(s State, p int, e emitter) {
	pr, x := c.procs[p], &s.p[p]
	w := c.who(p)
	end := func(s *State) { n := s.p[p].calls; s.p[p] = Proc{calls: n} }
	switch x.pc {
	case 0:
		if x.calls < pr.calls {
			x.calls++
			s.begin(p)
			x.pc = 1
			c.importer(s, p, e)
		}
	case 1:
		if !c.canInsert(&s, p, rPAY) {
			c.blocked(s, p, w, e)
			return
		}
		d := s.cur(p)
		x.pc = 3
		if d.pay.ex == 0 {
			s.write(p, rPAY, func(d *DB) { d.pay = Pay{ex: 1, st: done} })
			e(s, w+": INSERT payment as done")
			return
		}
		if c.ImportResolve {
			x.pc = 2
		}
		e(s, w+": INSERT payment finds a row")
	case 2:
		if !s.canX(p, rPAY|rINB) {
			c.blocked(s, p, w, e)
			return
		}
		d := s.cur(p)
		if d.pay.st == waiting || d.pay.st == noted {
			s.looked = 1 // reported in ImportResult
			s.write(p, rPAY, func(d *DB) { d.pay.st = done })
			s.write(p, rINB, func(d *DB) { d.inb = Inb{} })
		}
		x.pc = 3
		e(s, w+": UPDATE payment: done (was "+stNames[d.pay.st]+")")
	case 3:
		c.finish(s, p, w, func(s *State) { end(s); s.importOK = 1 }, end, e)
	}
}

// person looks at a broken payment: he knows what the player has.
func (c *Cfg) person(s State, p int, e emitter) {
	x := &s.p[p]
	if s.db.pay.ex == 0 || s.db.pay.st != broken || x.calls >= c.procs[p].calls || !s.canX(p, rPAY) {
		return
	}
	x.calls++
	if s.items > 0 {
		s.db.pay.st = done
		if c.sum(&s.db) >= CH {
			s.db.pay.st, s.items, s.looked = cancelled, 0, 1
			e(s, "person: the player has it, and it was refunded: takes it back")
			return
		}
		e(s, "person: the player has it: done")
		return
	}
	if c.B && c.PersonNoted {
		s.db.pay.st, s.db.pay.mark = noted, 0
		e(s, "person: the player has nothing: noted")
		return
	}
	s.db.pay = Pay{}
	e(s, "person: the player has nothing: DELETE")
}

// env are the steps of the world.
func (c *Cfg) env(s State, e emitter) {
	if s.db.inb.ex == 1 && s.db.inb.live == 1 {
		free := true
		for q := range s.p {
			free = free && s.p[q].tx.x&rINB == 0
		}
		if free {
			a := s
			a.db.inb.live = 0
			e(a, "the lease ends")
		}
	}
	for r := range s.told {
		if s.told[r] > 0 && s.toldG[r] == 1 && s.taken[r] == 0 && c.hasInbox() && c.sum(&s.db) >= CH {
			a := s
			a.taken[r] = 1
			if a.have == 1 {
				a.have = 0
			}
			if c.TakeID {
				a.id = 1
			}
			e(a, fmt.Sprintf("the game takes back what R%d says", r+1))
		}
	}
	if c.withBackup && s.bk == 0 && s.restore == 0 && s.adds > 0 {
		a := s
		a.bk, a.bkAdds, a.bkHave, a.bkID = 1, a.adds, a.have, a.id
		e(a, "backup of the players")
	}
	if c.withRestore && s.restore == 0 && s.adds > 0 {
		a := s
		a.restore = 1
		a.adds, a.have, a.id = a.bkAdds, a.bkHave, a.bkID
		for q, p := range c.procs {
			if p.role == worker && !(c.staleDone && a.p[q].pc >= 5 && a.p[q].pc <= 7) {
				n := a.p[q].calls
				a.p[q] = Proc{calls: n}
			}
		}
		e(a, "the players are restored from the backup; zone servers stopped")
	}
}

func (c *Cfg) hasInbox() bool {
	for _, p := range c.procs {
		if p.role == deliver || p.role == settleInbox {
			return true
		}
	}
	return false
}

// ---- what must hold ----

func (c *Cfg) check(s *State) (bad []string) {
	v := func(cond bool, text string) {
		if cond {
			bad = append(bad, text)
		}
	}
	sum := c.sum(&s.db)
	idle, workers := true, true
	anyTold := uint8(0)
	for q := range c.procs {
		if s.p[q].pc != 0 {
			idle = false
			if c.procs[q].role == worker {
				workers = false
			}
		}
	}
	allToldFalse := sum > 0
	pendingTake := false
	for r := range s.told {
		if s.db.ref[r] == 1 {
			if s.toldG[r] == 1 {
				allToldFalse, anyTold = false, 1
				if s.taken[r] == 0 {
					pendingTake = true
				}
			}
			v(s.told[r] == 0, "(d) a stored refund that nobody was told")
		}
		v(s.told[r] > 1, "(d) told twice")
		v(s.rack[r] == 1 && s.db.ref[r] == 0, "(e) refund answered nil, not stored")
	}
	has := s.items > 0 || s.have == 1
	pay := s.db.pay
	v(s.items+s.adds > 1, "(b) granted twice")
	v((s.ack == 1 || s.ackS == 1) && pay.ex == 0, "(e) nil and no row")
	v((s.ack == 1 || s.ackS == 1) && pay.ex == 1 && pay.st == noted, "(e)(a) nil, and the row is only noted: never granted")
	v(pay.ex == 1 && (pay.st == waiting) != (s.db.inb.ex == 1), "(f) waiting and inbox row differ")
	v(pay.ex == 1 && pay.st == done && s.items+s.adds == 0 && s.restore == 0 && !c.oldGave, "(a) done, and nothing granted")
	v(s.restore == 1 && s.retried == 1 && idle && pay.st == done && s.have == 0 && sum < CH, "(a) done, and the restored record lacks it")
	v(pay.ex == 1 && pay.st == waiting && sum >= CH, "(c) refunded in full, and waits to be handed out")
	v(pay.ex == 1 && pay.st == waiting && s.items > 0 && !(c.oldGave && s.importOK == 0), "(g)(b) what was granted in the database waits to be handed out")
	v(sum >= CH && allToldFalse && has && !c.brokenSeen(s) && !(c.oldGave && s.importOK == 0), "(c) refunded in full, always told granted=false, and the player has the items")
	if !c.hasInbox() {
		v(anyTold == 1 && s.items == 0 && !c.loses, "(c) told granted=true, and nothing was granted")
	} else {
		v(anyTold == 1 && s.ever == 0 && s.items == 0 && s.db.inb.claims == 0 && !c.claimBegun(s) && s.restore == 0, "(c) told granted=true, and it was never leased")
	}
	v(pay.ex == 1 && pay.st == cancelled && sum < CH && s.cancelDone == 0, "(a) cancelled, though neither refunded in full nor taken back: the purchase is swallowed")
	v(sum > CH && pay.ex == 1 && pay.st != noted && s.over == 0 && idle, "(d) more refunded than charged, and nobody notices")
	v(s.cancelNil == 1 && pay.ex == 1 && (pay.st == waiting || pay.st == done) && s.restore == 0, "(e) Cancel answered nil, and the payment goes on")
	v(idle && anyTold == 1 && !pendingTake && sum >= CH && c.hasInbox() && s.have == 1 && s.restore == 0, "(c) taken back, and saved after that: the player has items and money")
	v(idle && anyTold == 1 && !pendingTake && sum >= CH && c.hasInbox() && s.have == 1 && s.restore == 1 && s.retried == 1 && s.looked == 0, "(c) the restore undid the take-back, and nobody is told again")
	v(workers && pay.ex == 1 && pay.st == cancelled && s.have == 1 && sum < CH && pay.hand == 0 && s.seen == 0, "(f) cancelled, the player has the items, and nothing shows it")
	v(workers && pay.ex == 1 && pay.st == cancelled && s.have == 1 && sum < CH && pay.hand == 0 && s.seen == 1, "(f) cancelled, the player has the items, and only a log line shows it")
	v(s.bad == 2, "(b) leased while somebody's lease runs")
	v(s.bad == 3, "(d) tell was given a wrong sum")
	v(s.bad == 1, "(f) a stored payment's callback is answered ret 1 for ever")
	return bad
}

// brokenSeen: somebody sees it, or will in a moment.
func (c *Cfg) brokenSeen(s *State) bool {
	for q := range c.procs {
		if c.loses && s.p[q].pc == 30 {
			return true
		}
	}
	return s.db.pay.st == broken || s.looked == 1
}

func (c *Cfg) claimBegun(s *State) bool {
	for q, p := range c.procs {
		if p.role == worker && s.p[q].calls > 0 {
			return true
		}
	}
	return false
}
