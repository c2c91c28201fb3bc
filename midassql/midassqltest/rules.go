package midassqltest

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midassql"
)

const (
	lostCommit = "a commit that was answered has to be there for every connection at once: no replica, no cache and no " +
		"connection that commits by itself may stand in between; write to the primary and read from it"
	noKey = "(openid, billno) has to be a unique key, in one place for all of a player's rows: create the tables by Migrate or from midassql/schema, " +
		"and shard by openid and nothing else"
	noLock = "what a transaction has locked has to wait in the others: look whether a proxy splits reads from writes, or an engine accepts FOR UPDATE " +
		"and does not lock"
)

// The rules, the one first that the others need.
var rules = []rule{
	{"migrate: two servers at once, and again", "let Migrate run with an account that may create tables; on a sharded engine declare the tables before (see Run)",
		true, migrate},
	{"transaction: it reads what it wrote", "a read in a transaction has to go where its writes went: a proxy that splits reads has to leave transactions alone", true, readsItsWrites},
	{"commit: what was answered is there for every server at once", lostCommit, true, answeredIsThere},

	{"once: a repeat is answered OK and grants nothing", noKey, false, onceEach},
	{"once: one of many callers grants", noKey, false, onceOfMany},
	{"once: what fails is rolled back", "the grant and the ledger have to be one transaction: tables of an engine without transactions and " +
		"proxies that spread one over several connections cannot hold payments", false, rollsBack},
	{"once: a grant that commits by itself is noticed", lostCommit, false, commitsItself},
	{"once: a row that a grant has locked waits", noLock, false, locks},
	{"once: payments of one player add up", "a transaction that the engine refused for a conflict has to be run again: give Options.Classify that knows its error, or " +
		"report the error", false, addUp},

	{"compare: what was ordered is granted, and nothing else", "numbers and texts have to come back as they were stored: compare the tables with midassql/schema", false, compares},
	{"compare: ids are bytes", "text has to be compared byte by byte: a collation that ignores case, accents or trailing blanks gives one player's payment to another one; " +
		"create the tables from midassql/schema", false, idsAreBytes},
	{"compare: long ids are stored whole or refused", "an id has to be stored whole: compare the tables with midassql/schema", false, longIDs},

	{"claim: each payment goes to one worker, never two of a player at once", "an UPDATE has to see what others have committed, and to count the rows that it changed: " +
		"set transaction isolation and the driver's options as docs/databases.md has them", false, claims},
	{"lease: it ends by the database's clock, and not before", "the clock of the database has to go like any other, and has to be one for all connections", false, leases},
	{"lease: what is done or cancelled is not handed out", lostCommit, false, doneOrCancelled},

	{"refund: each is told once, with the right sum", noKey, false, refunds},
	{"refund: a refund that the game refused is told again", "a refund and what the game does about it have to be one transaction", false, refusedRefund},
	{"refund: halves at once add up", noLock, false, halves},
	{"refund: a payment and its refund in the same moment", noLock, false, sameMoment},

	{"settle: by hand once, and the callback after it grants nothing", noKey, false, settles},
}

func migrate(p *play) {
	var all sync.WaitGroup
	for _, s := range p.servers {
		for range 3 {
			all.Go(func() {
				if err := s.store.Migrate(p.ctx); err != nil {
					p.Errorf("Migrate: %v", err)
				}
			})
		}
	}
	all.Wait()
	if p.Failed() {
		return
	}
	p.order(p.openID, "before")
	p.ok(p.servers[1].store.Migrate(p.ctx), "Migrate again")
	n := 0
	for _, err := range p.servers[1].store.Orders(p.ctx, midassql.Query{OpenID: p.openID}) {
		p.ok(err, "Orders")
		n++
	}
	want(p, n, 1, "orders after a second Migrate")
}

func readsItsWrites(p *play) {
	tx, err := p.servers[0].db.BeginTx(p.ctx, nil)
	p.ok(err, "begin a transaction")
	defer tx.Rollback()
	p.ok(p.grant(p.ctx, tx, p.paid(p.openID, "", "-1")), "insert")
	seen := 0
	p.ok(tx.QueryRowContext(p.ctx, p.sql("SELECT COUNT(*) FROM granted WHERE openid = ? AND billno = ?"), p.openID, "-1").Scan(&seen), "count")
	want(p, seen, 1, "rows that a transaction has inserted and reads")
}

func answeredIsThere(p *play) {
	for i := range 10 {
		d := p.buy(fmt.Sprint("-", i)) // stored by the first server
		p.ok(p.servers[1].store.Once(p.grant)(p.ctx, d), "the callback that came to the second server")
		want(p, p.grants(p.openID, d.BillNo), 1, "grants")
	}
}

func onceEach(p *play) {
	d := p.buy("-1")
	for range 3 {
		for _, s := range p.servers {
			p.ok(s.store.Once(p.grant)(p.ctx, d), "a callback")
			want(p, p.grants(p.openID, "-1"), 1, "grants")
		}
	}
	want(p, p.payment("-1").Repeats, 5, "callbacks after the first one")
	p.ok(p.servers[0].store.Once(p.grant)(p.ctx, p.paid(p.openID, d.Token, "-2")), "a second payment for one token")
	want(p, p.grants(p.openID, "-2"), 1, "grants of a second payment for one token")
}

func onceOfMany(p *play) {
	const payments, callers = 10, 8
	for i := range payments {
		d := p.buy(fmt.Sprint("-", i))
		var all sync.WaitGroup
		for caller := range callers {
			deliver := p.servers[caller%2].store.Once(p.grant)
			all.Go(func() {
				if err := deliver(p.ctx, d); err != nil {
					p.Errorf("a callback: %v", err)
				}
			})
		}
		all.Wait()
		want(p, p.grants(p.openID, d.BillNo), 1, "grants of a payment that was called back %d times at once", callers)
	}
}

func rollsBack(p *play) {
	d := p.buy("-1")
	for _, failure := range []struct {
		name string
		ret  int
		fail func(cancel func(), tx *sql.Tx) error
	}{
		{"its error", 1, func(func(), *sql.Tx) error { return errors.New("the bag is full") }},
		{"an expired token", 2, func(func(), *sql.Tx) error { return midas.ErrTokenExpired }},
		{"the end of its context, which it ignored", 1, func(cancel func(), _ *sql.Tx) error { cancel(); return nil }},
		{"its own rollback", 1, func(_ func(), tx *sql.Tx) error { return tx.Rollback() }},
		{"a panic", 1, func(func(), *sql.Tx) error { panic("oops") }},
	} {
		ctx, cancel := context.WithCancel(p.ctx)
		err := recovered(func() error {
			return p.servers[0].store.Once(func(ctx context.Context, tx *sql.Tx, d *midas.Delivery) error {
				if err := p.grant(ctx, tx, d); err != nil {
					return err
				}
				return failure.fail(cancel, tx)
			})(ctx, d)
		})
		cancel()
		want(p, midas.ReplyTo(err).Ret(), failure.ret, "the answer after %s (%v)", failure.name, err)
		want(p, p.grants(p.openID, "-1"), 0, "grants after %s", failure.name)
	}
	p.ok(p.servers[0].store.Once(p.grant)(p.ctx, d), "the next callback")
	want(p, p.grants(p.openID, "-1"), 1, "grants after the next callback")
}

// recovered calls f as an HTTP server does.
func recovered(f func() error) (err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("panic: %v", cause)
		}
	}()
	return f()
}

func commitsItself(p *play) {
	d := p.buy("-1")
	for range 2 {
		err := p.servers[0].store.Once(func(ctx context.Context, tx *sql.Tx, d *midas.Delivery) error {
			return cmp.Or(p.grant(ctx, tx, d), tx.Commit(), errors.New("and then it failed"))
		})(p.ctx, d)
		want(p, errors.Is(err, midassql.ErrBroken), true, "ErrBroken from %q", fmt.Sprint(err))
		want(p, p.grants(p.openID, "-1"), 1, "grants")
	}
	want(p, p.payment("-1").State, midassql.StateBroken, "the payment's state")
}

// add reads the balance of the player and writes one more.
func (p *play) add(ctx context.Context, tx *sql.Tx, meanwhile func()) error {
	read := "SELECT quantity FROM granted WHERE openid = ? AND id = 0"
	if p.dialect != midassql.SQLite {
		read += " FOR UPDATE"
	}
	var balance int
	if err := tx.QueryRowContext(ctx, p.sql(read), p.openID).Scan(&balance); err != nil {
		return err
	}
	meanwhile()
	_, err := tx.ExecContext(ctx, p.sql("UPDATE granted SET quantity = ? WHERE openid = ? AND id = 0"), balance+1, p.openID)
	return err
}

// openBalance gives the player a balance of 0.
func (p *play) openBalance() {
	p.Helper()
	_, err := p.servers[0].db.ExecContext(p.ctx, p.sql("INSERT INTO granted (openid, id, billno, quantity) VALUES (?, 0, '', 0)"), p.openID)
	p.ok(err, "insert a balance")
}

func (p *play) balance() (n int) {
	p.Helper()
	p.ok(p.servers[1].db.QueryRowContext(p.ctx, p.sql("SELECT quantity FROM granted WHERE openid = ? AND id = 0"), p.openID).Scan(&n), "read the balance")
	return n
}

// lockedTime is how long somebody tries to get what another one has locked. An engine that locks refuses it by then,
// or lets it wait; one that does not lock has answered by then, even a slow one.
const lockedTime = 5 * time.Second

// locks: a grant has read the balance and not written it yet; whoever reads it for a change has to wait until
// that is done, or one of the two is lost.
func locks(p *play) {
	p.openBalance()
	d := p.buy("-1")
	added, tried := 1, false
	p.ok(p.servers[0].store.Once(func(ctx context.Context, tx *sql.Tx, d *midas.Delivery) error {
		return p.add(ctx, tx, func() {
			if tried {
				return // the engine has found the conflict, and the grant runs again
			}
			tried = true
			ctx, cancel := context.WithTimeout(ctx, lockedTime)
			defer cancel()
			second, err := p.servers[1].db.BeginTx(ctx, nil)
			if err != nil {
				return
			}
			defer second.Rollback()
			if p.dialect == midassql.PostgreSQL { // the others have a limit of their own
				if _, err := second.ExecContext(ctx, "SET LOCAL lock_timeout = '500ms'"); err != nil {
					p.Errorf("set lock_timeout: %v", err)
				}
			}
			if p.add(ctx, second, func() {}) == nil && second.Commit() == nil {
				added++
			}
		})
	})(p.ctx, d), "the callback")
	want(p, p.balance(), added, "the balance after %d that added one each", added)
}

func addUp(p *play) {
	const payments = 20
	p.openBalance()
	var all sync.WaitGroup
	for i := range payments {
		d := p.buy(fmt.Sprint("-", i))
		deliver := p.servers[i%2].store.Once(func(ctx context.Context, tx *sql.Tx, _ *midas.Delivery) error { return p.add(ctx, tx, func() {}) })
		all.Go(func() {
			if err := deliver(p.ctx, d); err != nil {
				p.Errorf("a callback: %v", err)
			}
		})
	}
	all.Wait()
	want(p, p.balance(), payments, "the balance after %d payments of one each", payments)
}

func compares(p *play) {
	sword := midas.Item{ID: "sword", Price: 1, Quantity: 1}
	fixed, changeable, both := "gems of "+p.openID, "some gems of "+p.openID, "gems and sword of "+p.openID
	p.order(p.openID, fixed)
	p.order(p.openID, changeable, func(r *midas.OrderRequest) { r.MaxQuantity = 10 })
	p.order(p.openID, both, func(r *midas.OrderRequest) { r.Items = []midas.Item{gems, sword} })
	items := func(items ...midas.Item) func(*midas.Delivery) { return func(d *midas.Delivery) { d.Items = items } }
	quantity := func(n int) func(*midas.Delivery) {
		return items(midas.Item{ID: gems.ID, Price: gems.Price, Quantity: n})
	}
	for i, payment := range []struct {
		name, token string
		change      func(d *midas.Delivery)
		param       string // refused for; "": granted
	}{
		{"what was ordered", fixed, items(gems), ""},
		{"another player", fixed, func(d *midas.Delivery) { d.OpenID += "x" }, "openid"},
		{"the player in another case", fixed, func(d *midas.Delivery) { d.OpenID = strings.ToUpper(d.OpenID) }, "openid"},
		{"another item", fixed, items(midas.Item{ID: "gem600", Price: gems.Price, Quantity: gems.Quantity}), "payitem"},
		{"another price", fixed, items(midas.Item{ID: gems.ID, Price: gems.Price - 1, Quantity: gems.Quantity}), "payitem"},
		{"another quantity", fixed, quantity(3), "payitem"},
		{"an item more", fixed, items(gems, sword), "payitem"},
		{"an item less", both, items(gems), "payitem"},
		{"more than allowed", changeable, quantity(11), "payitem"},
		{"as many as allowed", changeable, quantity(10), ""},
		{"a discount", fixed, func(d *midas.Delivery) { d.Charged = 1 }, ""},
		{"both items", both, items(gems, sword), ""},
		{"both items in another sequence", both, items(sword, gems), ""},
	} {
		d := p.paid(p.openID, payment.token, fmt.Sprint("-", i))
		payment.change(d)
		err := p.servers[1].store.Once(p.grant)(p.ctx, d)
		var refused *midas.ParamError
		param := ""
		if errors.As(err, &refused) {
			param = refused.Param
		}
		want(p, param, payment.param, "%s: the parameter that was refused (%v)", payment.name, err)
		granted := len(d.Items)
		if param != "" {
			granted = 0
		}
		want(p, p.grants(d.OpenID, d.BillNo), granted, "%s: items", payment.name)
		want(p, p.rows(d.OpenID, d.BillNo), min(granted, 1), "%s: payments in the ledger", payment.name)
	}
	err := p.servers[1].store.Once(p.grant)(p.ctx, p.paid(p.openID, "nobody's", "-unknown"))
	want(p, errors.Is(err, midas.ErrTokenNotFound), true, "a token that no order has is refused (%v)", err)
}

func idsAreBytes(p *play) {
	players := []string{"oAbC", "oabc", "OABC", "oabc ", "oäbc", "oabc\t", "o'a\\b%_\"c"}
	billNos := []string{"-app-1", "-APP-1", "-app-1 "}
	for i, player := range players {
		token := p.openID + " " + player
		p.order(player+p.openID, token)
		for _, billNo := range billNos {
			p.ok(p.servers[i%2].store.Once(p.grant)(p.ctx, p.paid(player+p.openID, token, billNo)), "the callback of %q with the billno %q", player, billNo)
		}
	}
	for _, player := range players {
		for _, billNo := range billNos {
			want(p, p.grants(player+p.openID, billNo), 1, "grants to %q for the billno %q", player, billNo)
		}
	}
}

func longIDs(p *play) {
	long := strings.Repeat("b", 255-len(p.openID)) + p.openID
	p.order(long, long)
	d := p.paid(long, long, long)
	p.ok(p.servers[0].store.Once(p.grant)(p.ctx, d), "the callback of ids of 255 bytes")
	want(p, p.grants(long, long), 1, "grants for ids of 255 bytes")
	d.BillNo += "1"
	err := p.servers[0].store.Once(p.grant)(p.ctx, d)
	want(p, midas.ReplyTo(err).Ret(), 4, "the answer to a billno of 256 bytes (%v)", err)
}

func claims(p *play) {
	const players, each = 5, 8
	store := p.inbox(0, 0)
	for player := range players {
		for n := range each {
			token := fmt.Sprintf("%s-%d-%d", p.openID, player, n)
			openID := fmt.Sprintf("%s-%d", p.openID, player)
			p.order(openID, token)
			p.ok(store.Deliver(p.ctx, p.paid(openID, token, fmt.Sprint("-", n))), "Deliver")
		}
	}
	ctx, cancel := context.WithCancel(p.ctx)
	defer cancel()
	var (
		mu     sync.Mutex
		handed = make(map[string]int)
		busy   = make(map[string]bool)
		all    sync.WaitGroup
	)
	work := func(_ context.Context, d *midas.Delivery) error {
		mu.Lock()
		if busy[d.OpenID] {
			p.Errorf("two payments of %s are handed out at once", d.OpenID)
		}
		busy[d.OpenID] = true
		handed[d.OpenID+d.BillNo]++
		if len(handed) == players*each {
			cancel()
		}
		mu.Unlock()
		err := p.servers[0].db.PingContext(p.ctx) // takes a moment
		mu.Lock()
		defer mu.Unlock()
		busy[d.OpenID] = false
		return err
	}
	for i := range p.servers {
		inbox := p.inbox(i, 0)
		all.Go(func() {
			if err := inbox.Work(ctx, work); !errors.Is(err, context.Canceled) {
				p.Errorf("Work ended with %v", err)
			}
		})
	}
	all.Wait()
	for player := range players {
		for n := range each {
			payment := fmt.Sprintf("%s-%d-%d", p.openID, player, n)
			want(p, handed[payment], 1, "how often the payment %s was handed out", payment)
		}
	}
	counts, err := p.inbox(1, 0).Counts(p.ctx)
	p.ok(err, "Counts")
	want(p, counts.Waiting, 0, "payments that still wait")
}

func leases(p *play) {
	long := p.inbox(0, 30*time.Minute)
	p.ok(long.Deliver(p.ctx, p.buy("-long")), "Deliver")
	want(p, p.waiting(long), 1, "payments that wait")
	want(p, p.waiting(p.inbox(1, 0)), 0, "payments that wait for another server while one has them for half an hour")
	p.ok(long.Done(p.ctx, p.openID, "-long"), "Done")

	const lease = time.Second
	first, second := p.inbox(0, lease), p.inbox(1, lease)
	p.ok(first.Deliver(p.ctx, p.buy("-1")), "Deliver")
	began := time.Now()
	want(p, p.waiting(first), 1, "payments that wait")
	for p.waiting(second) == 0 {
		p.pause()
	}
	if took := time.Since(began); took < lease*9/10 {
		p.Fatalf("a payment that was leased for %v was handed out again after %v", lease, took)
	}
	p.ok(first.Done(p.ctx, p.openID, "-1"), "Done from the server that lost its lease")
	want(p, p.payment("-1").State, midassql.StateDone, "the payment's state")
}

func doneOrCancelled(p *play) {
	first, second := p.inbox(0, time.Second), p.inbox(1, time.Second)
	for _, billNo := range []string{"-done", "-cancelled"} {
		d := p.buy(billNo)
		p.ok(first.Deliver(p.ctx, d), "Deliver")
		p.ok(second.Deliver(p.ctx, d), "Deliver, repeated")
		p.ok(p.servers[1].store.Once(p.grant)(p.ctx, d), "Once, for a payment that waits")
		want(p, p.grants(p.openID, billNo), 0, "grants by Once of a payment that waits")
	}
	p.ok(first.Done(p.ctx, p.openID, "-done"), "Done")
	p.ok(first.Cancel(p.ctx, p.openID, "-cancelled", "refunded"), "Cancel")
	want(p, p.waiting(second), 0, "payments that wait")
	want(p, p.payment("-done").State, midassql.StateDone, "the state of what is done")
	want(p, p.payment("-cancelled").State, midassql.StateCancelled, "the state of what is cancelled")
	want(p, errors.Is(second.Done(p.ctx, p.openID, "-cancelled"), midassql.ErrCancelled), true, "Done of what is cancelled is ErrCancelled")
}

// refund notes a refund of the player and returns what the game was told: "granted", "not granted", or "" if it
// was not.
func (p *play) refund(server int, id, billNo string, amount midas.Amount) (result midassql.RefundResult, told string) {
	p.Helper()
	result, err := p.servers[server].store.Refund(p.ctx, midassql.Refund{ID: id + " of " + p.openID + billNo, AppID: offer, OpenID: p.openID, BillNo: billNo, Amount: amount},
		func(_ context.Context, _ *sql.Tx, payment *midassql.Payment, granted bool) error {
			told = "not granted"
			if granted {
				told = "granted"
			}
			return nil
		})
	p.ok(err, "Refund")
	return result, told
}

func refunds(p *play) {
	once, inbox := p.servers[0].store.Once(p.grant), p.inbox(0, 0)

	d := p.buy("-once")
	p.ok(once(p.ctx, d), "the callback")
	for _, step := range []struct {
		id, told     string
		amount       midas.Amount
		repeat, full bool
	}{
		{"a", "granted", charged / 2, false, false}, {"a", "", charged / 2, true, false}, {"b", "granted", charged / 2, false, true}, {"a", "", charged / 2, true, false},
	} {
		result, told := p.refund(1, step.id, "-once", step.amount)
		want(p, told, step.told, "what the game was told of the refund %s", step.id)
		want(p, result.Repeat, step.repeat, "Repeat of the refund %s", step.id)
		want(p, result.Full, step.full, "Full of the refund %s", step.id)
	}
	want(p, p.payment("-once").Refunded, charged, "the sum of the refunds")

	p.ok(inbox.Deliver(p.ctx, p.buy("-waits")), "Deliver")
	_, told := p.refund(1, "a", "-waits", charged)
	want(p, told, "not granted", "what the game was told of a payment that waits")
	want(p, p.payment("-waits").State, midassql.StateCancelled, "the state of a payment that was refunded while it waited")

	p.ok(inbox.Deliver(p.ctx, p.buy("-handed")), "Deliver")
	want(p, p.waiting(inbox), 1, "payments that wait")
	_, told = p.refund(1, "a", "-handed", charged)
	want(p, told, "granted", "what the game was told of a payment that is handed out")

	d = p.buy("-early")
	_, told = p.refund(1, "a", "-early", charged)
	want(p, told, "not granted", "what the game was told of a payment that has not come")
	p.ok(once(p.ctx, d), "the callback after a refund in full")
	want(p, p.grants(p.openID, "-early"), 0, "grants of what was refunded before it came")

	d = p.buy("-part")
	p.refund(1, "a", "-part", charged/2)
	p.ok(once(p.ctx, d), "the callback after a refund in part")
	want(p, p.grants(p.openID, "-part"), 1, "grants of what was refunded in part before it came")
	want(p, p.payment("-part").Refunded, charged/2, "the sum of its refunds")
}

func refusedRefund(p *play) {
	p.ok(p.servers[0].store.Once(p.grant)(p.ctx, p.buy("-1")), "the callback")
	full := errors.New("the game's queue is full")
	_, err := p.servers[0].store.Refund(p.ctx, midassql.Refund{ID: "a of " + p.openID + "-1", AppID: offer, OpenID: p.openID, BillNo: "-1", Amount: charged},
		func(ctx context.Context, tx *sql.Tx, payment *midassql.Payment, _ bool) error {
			return cmp.Or(p.grant(ctx, tx, p.paid(p.openID, "", "-taken back")), full)
		})
	want(p, errors.Is(err, full), true, "Refund returns what the game returned (%v)", err)
	want(p, p.grants(p.openID, "-taken back"), 0, "rows of a refund that was rolled back")
	_, told := p.refund(1, "a", "-1", charged)
	want(p, told, "granted", "what the game was told of the same refund")
}

func halves(p *play) {
	const payments = 20
	inbox := p.inbox(0, 0)
	var all sync.WaitGroup
	for i := range payments {
		billNo := fmt.Sprint("-", i)
		p.ok(inbox.Deliver(p.ctx, p.buy(billNo)), "Deliver")
		for server, id := range []string{"a", "b"} {
			all.Go(func() {
				_, err := p.servers[server].store.Refund(p.ctx, midassql.Refund{ID: id + " of " + p.openID + billNo, AppID: offer, OpenID: p.openID, BillNo: billNo, Amount: charged / 2}, nil)
				if err != nil {
					p.Errorf("Refund: %v", err)
				}
			})
		}
	}
	all.Wait()
	for i := range payments {
		payment := p.payment(fmt.Sprint("-", i))
		want(p, payment.Refunded, charged, "the sum of two halves")
		want(p, payment.State, midassql.StateCancelled, "the state of a payment that was refunded in full while it waited")
	}
	want(p, p.waiting(inbox), 0, "payments that wait though they were refunded")
}

func sameMoment(p *play) {
	const payments = 20
	deliver := p.servers[0].store.Once(p.grant)
	told := make([]bool, payments)
	var all sync.WaitGroup
	for i := range payments {
		billNo := fmt.Sprint("-", i)
		d := p.buy(billNo)
		all.Go(func() {
			if err := deliver(p.ctx, d); err != nil {
				p.Errorf("the callback: %v", err)
			}
		})
		all.Go(func() {
			_, err := p.servers[1].store.Refund(p.ctx, midassql.Refund{ID: "a of " + p.openID + billNo, AppID: offer, OpenID: p.openID, BillNo: billNo, Amount: charged},
				func(_ context.Context, _ *sql.Tx, _ *midassql.Payment, granted bool) error {
					told[i] = granted
					return nil
				})
			if err != nil {
				p.Errorf("Refund: %v", err)
			}
		})
	}
	all.Wait()
	for i := range payments {
		want(p, p.grants(p.openID, fmt.Sprint("-", i)) == 1, told[i], "that the player has what was refunded in the same moment, as the game was told")
	}
}

func settles(p *play) {
	store := p.servers[0].store
	settle := func(d *midas.Delivery) bool {
		granted, err := store.Settle(p.ctx, midassql.Settlement{Delivery: d, By: "wang", Reason: "ticket 7"}, p.grant)
		p.ok(err, "Settle")
		return granted
	}
	d := p.buy("-1")
	byHand := p.paid(p.openID, "", "-1")
	want(p, settle(byHand), true, "that Settle grants")
	want(p, settle(byHand), false, "that Settle grants again")
	for range 2 {
		p.ok(p.servers[1].store.Once(p.grant)(p.ctx, d), "the callback after it")
	}
	want(p, p.servers[1].store.Once(p.grant)(p.ctx, p.paid(p.openID, "another", "-1")) != nil, true, "that a callback with another token is refused")
	want(p, p.grants(p.openID, "-1"), 1, "grants")
	payment := p.payment("-1")
	want(p, payment.Token, d.Token, "the token, which is the first callback's")
	want(p, payment.SettledBy+", "+payment.Note, "wang, ticket 7", "who settled it and why")

	d = p.buy("-2")
	p.ok(p.servers[1].store.Once(p.grant)(p.ctx, d), "the callback")
	want(p, settle(p.paid(p.openID, "", "-2")), false, "that Settle grants what a callback has granted")
	want(p, p.grants(p.openID, "-2"), 1, "grants")

	_, err := store.Settle(p.ctx, midassql.Settlement{Delivery: p.paid(p.openID+"x", d.Token, "-3"), By: "wang"}, p.grant)
	var field *midas.FieldError
	want(p, errors.As(err, &field) && field.Field == "OpenID", true, "that another player's order is refused (%v)", err)
	want(p, settle(p.paid(p.openID, "purged", "-3")), true, "that Settle grants where the order is gone")

	inbox := p.inbox(0, 0)
	stored, err := inbox.Settle(p.ctx, midassql.Settlement{Delivery: p.paid(p.openID, "", "-4"), By: "wang"})
	p.ok(err, "Inbox.Settle")
	want(p, stored, true, "that Inbox.Settle stores")
	p.ok(p.servers[1].store.Once(p.grant)(p.ctx, p.paid(p.openID, d.Token, "-4")), "the callback after it")
	want(p, p.grants(p.openID, "-4"), 0, "grants of a payment that was settled and waits")
	want(p, p.waiting(inbox), 1, "payments that wait")
}
