package midassql

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/midas-go/midas"
)

const (
	firstRetry = time.Second
	lastRetry  = 10 * time.Minute
	stuckAfter = 72 * time.Hour
	stuckRetry = time.Hour

	minOffer = 5 * time.Second // between two offers of a payment that is not now
	maxOffer = time.Hour

	// finishTime is for writing down what became of a payment, which ctx does not end.
	finishTime = 10 * time.Second
)

// Waiting yields the payments of a player that wait in the Inbox's zones, for the moment when
// the player has logged in. Each is leased when it is yielded, as if [ErrAccepted] had
// been returned for it: grant, save together with the id, and call [Inbox.Done] (or
// [Inbox.Fail]). It ignores waits, and yields stuck payments too. While Work or somebody else
// handles one of the player's payments in a zone, the others of that zone are left out, like
// those that are leased; Work gets them afterwards. An error, also that of ctx, comes as the last
// pair.
func (b *Inbox) Waiting(ctx context.Context, openID string) iter.Seq2[*midas.Delivery, error] {
	return func(yield func(*midas.Delivery, error) bool) {
		if err := b.waiting(ctx, openID, yield); err != nil {
			yield(nil, fmt.Errorf("midassql: Waiting: %w", err))
		}
	}
}

// waiting returns an error that is to be yielded.
func (b *Inbox) waiting(ctx context.Context, openID string, yield func(*midas.Delivery, error) bool) error {
	// Nearly always nothing waits, and that costs one look-up. Where something does, it is made
	// due: a payment that a worker is about to give back as not now must not wait for an hour when
	// the player has just logged in.
	some, err := b.makeDue(ctx, openID)
	if err != nil || !some {
		return err
	}
	last := ""
	for {
		claims, leased, err := b.claim(ctx, 1, func() []condition { return b.ofPlayer(openID, last) })
		if err != nil || len(leased) == 0 {
			return err
		}
		last = leased[0].billNo
		if len(claims) == 0 { // given back: another zone's may be free
			if ctx.Err() != nil {
				return ctx.Err()
			}
			continue
		}
		c := claims[0]
		b.remember(c, false)
		more := yield(c.delivery, nil)
		finish, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishTime)
		err = b.accept(finish, c)
		cancel()
		if !more {
			return nil
		}
		if err = cmp.Or(err, ctx.Err()); err != nil {
			return err
		}
	}
}

// Fail says that a payment which work has taken over, or that came from Waiting, could not be
// handled: it is tried again as if work had returned cause. With [ErrNotNow] no attempt is counted.
// It does nothing if this Inbox has no lease on the payment any more. If it has been handed the payment
// again, Fail does nothing until work has returned [ErrAccepted] for the newer hand-out, and is about
// that one from then on.
func (b *Inbox) Fail(ctx context.Context, openID, billNo string, cause error) error {
	b.mu.Lock()
	h, known := b.handed[paymentID{openID, billNo}]
	b.mu.Unlock()
	var err error
	switch {
	case ctx == nil:
		err = errNilContext
	case !known || h.unsure:
		return nil
	case errors.Is(cause, ErrNotNow):
		err = b.notNow(ctx, h.claim)
	default:
		err = b.failed(ctx, h.claim, cause)
	}
	if err != nil {
		return fmt.Errorf("midassql: Fail: %w", err)
	}
	b.forget(h.claim)
	return nil
}

// A handOut is a claim that the game may call Fail for.
type handOut struct {
	claim
	unsure bool // work is at it, and the game may still be at an older one
}

// remember keeps a claim that work begins with, or that Waiting yields. It drops those that nobody has
// said Done or Fail for, once they must have been handed out again.
func (b *Inbox) remember(c claim, working bool) {
	c.delivery = nil // Fail does not need it
	b.mu.Lock()
	defer b.mu.Unlock()
	_, older := b.handed[c.id]
	b.handed[c.id] = handOut{c, working && older}
	if keep := (stuckRetry + 2*b.opts.Lease).Milliseconds(); c.now > b.cleared+keep {
		maps.DeleteFunc(b.handed, func(_ paymentID, h handOut) bool { return c.now > h.now+keep })
		b.cleared = c.now
	}
}

// accepted notes that work has accepted a claim: Fail is about that one from now on, unless Done or
// Fail has come already, or a newer hand-out.
func (b *Inbox) accepted(c claim) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if h := b.handed[c.id]; h.claims == c.claims {
		h.unsure = false
		b.handed[c.id] = h
	}
}

func (b *Inbox) forget(c claim) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.handed[c.id].claims == c.claims {
		delete(b.handed, c.id)
	}
}

// makeDue makes the player's payments due, and reports whether there are any. One that is
// leased is due when it is given back.
func (b *Inbox) makeDue(ctx context.Context, openID string) (some bool, err error) {
	s := b.store
	err = s.inTx(ctx, func(tx *sql.Tx) error {
		var n int
		if err := tx.QueryRowContext(ctx, s.sql.anyWaiting, openID).Scan(&n); err != nil {
			return err
		}
		some = n > 0
		return nil
	})
	if err != nil || !some {
		return false, err
	}
	if err := b.seeZones(ctx); err != nil {
		return false, err
	}
	zones, args := b.inZones()
	return true, s.inTx(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, s.write("UPDATE midas_inbox SET due_ms = 0 WHERE openid = ? AND "+zones), append([]any{openID}, args...)...)
		return err
	})
}

// A claim is a payment that this Inbox leased.
type claim struct {
	id       paymentID
	delivery *midas.Delivery

	// Of the row: times in the database's milliseconds.
	now, stored, failing int64
	claims               int64 // which claim of the payment this is
	attempts, stuck      int
	lastError            string
}

// A condition on the table inbox, as w, says what is to be claimed.
const (
	// One of each player in a zone: the one that is due longest, and none while another one is
	// being handled. So the lock on that row keeps two workers from taking one each, apart from
	// rare moments: see contended.
	//
	// It asks for one row, and does not say NOT EXISTS, so that PostgreSQL looks at the rows in the order
	// of the index until it has enough, whatever it believes about a table that was empty a moment ago.
	due = `due_ms <= {now} AND lease_ms <= {now} AND (SELECT 1 FROM midas_inbox other
		WHERE other.openid = w.openid AND other.zone = w.zone AND (other.lease_ms > {now} AND other.accepted = 0
			OR other.lease_ms <= {now} AND (other.due_ms < w.due_ms OR other.due_ms = w.due_ms AND other.billno < w.billno)) LIMIT 1) IS NULL`
	ofPlayer = `openid = ? AND billno > ? AND lease_ms <= {now} AND NOT EXISTS (SELECT 1 FROM midas_inbox other
		WHERE other.openid = w.openid AND other.zone = w.zone AND other.lease_ms > {now} AND other.accepted = 0)`

	claimedPayments = `SELECT ` + deliveryColumns + `, generation, stored_ms, claims, attempts, failing_ms, stuck, last_error, {now},
			CASE WHEN EXISTS (SELECT 1 FROM midas_inbox other WHERE other.openid = midas_inbox.openid AND other.zone = midas_inbox.zone
				AND other.billno <> midas_inbox.billno AND other.lease_ms > {now} AND other.accepted = 0) THEN 1 ELSE 0 END
		FROM midas_inbox JOIN midas_deliveries USING (openid, billno)
		WHERE owner = ? AND `
)

// claimed is what a claim does to a row. It counts an attempt in advance, and makes the payment due
// again as failed does, for the case that nothing more is heard of it. A lease that was not given back
// was such a failure. MySQL sees the new values of columns to the left.
var claimed = fmt.Sprintf(`due_ms = {now} + ? + CASE WHEN stuck = 1 THEN %d WHEN attempts < 10 THEN %d << attempts ELSE %d END,
		attempts = attempts + 1, claims = claims + 1, owner = ?, accepted = 0,
		stuck = CASE WHEN lease_ms > 0 AND failing_ms > 0 AND failing_ms <= {now} - %d THEN 1 ELSE stuck END,
		failing_ms = CASE WHEN failing_ms = 0 AND lease_ms > 0 THEN lease_ms ELSE failing_ms END,
		lease_ms = {now} + ?`,
	stuckRetry.Milliseconds(), firstRetry.Milliseconds(), lastRetry.Milliseconds(), stuckAfter.Milliseconds())

// due returns a condition for each base of the Inbox's zones, which an index has in the order of
// due_ms, so that a claim does not walk over what waits for a zone that is down. They are tried in
// random order, so that none of them starves.
func (b *Inbox) due() []condition {
	if b.opts.Zones == nil {
		return []condition{{sql: due + " ORDER BY due_ms"}}
	}
	b.mu.Lock()
	others := byBase(b.others)
	b.mu.Unlock()
	var conditions []condition
	for base, ours := range byBase(b.opts.Zones) {
		c := condition{sql: due}
		c.and("base = ?", base)
		zones, args := zonesCondition(ours, others[base])
		c.and(zones, args...)
		c.sql += " ORDER BY due_ms"
		conditions = append(conditions, c)
	}
	rand.Shuffle(len(conditions), func(i, j int) { conditions[i], conditions[j] = conditions[j], conditions[i] })
	return conditions
}

func (b *Inbox) ofPlayer(openID, after string) []condition {
	zones, args := b.inZones()
	return []condition{{sql: ofPlayer + " AND " + zones + " ORDER BY billno", args: append([]any{openID, after}, args...)}}
}

// claim leases up to n of the payments that one of the conditions holds for. leased are those that it
// found, and their number tells whether there may be more; some of them may be missing in claims: given
// back, done or cancelled meanwhile.
func (b *Inbox) claim(ctx context.Context, n int, conditions func() []condition) (claims []claim, leased []paymentID, err error) {
	if ctx == nil {
		return nil, nil, errNilContext
	}
	// Work's ctx alone would wait for ever on a connection to a server that is gone.
	limited, stop := context.WithTimeout(ctx, finishTime)
	defer stop()
	if err := b.begin(limited); err != nil {
		return nil, nil, err
	}
	if err := b.seeZones(limited); err != nil {
		return nil, nil, err
	}
	// The end of ctx must not leave payments that are leased to nobody.
	finish, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishTime)
	defer cancel()
	where := conditions()
	err = b.store.inTxAt(finish, b.store.grammar.claims, func(tx *sql.Tx) error {
		if before := b.store.grammar.beforeClaim; before != "" {
			if _, err := tx.ExecContext(finish, before); err != nil {
				return err
			}
		}
		leased = nil
		for i := 0; i < len(where) && len(leased) < n; i++ {
			more, err := b.lease(finish, tx, n-len(leased), where[i])
			if err != nil {
				return err
			}
			leased = append(leased, more...)
		}
		return nil
	})
	if err != nil || len(leased) == 0 {
		return nil, nil, err
	}
	claims, err = b.claimed(finish, leased)
	return claims, leased, err
}

func (b *Inbox) lease(ctx context.Context, tx *sql.Tx, n int, where condition) ([]paymentID, error) {
	s, milliseconds := b.store, b.opts.Lease.Milliseconds()
	next := "SELECT openid, billno FROM midas_inbox w WHERE " + where.sql + " LIMIT " + strconv.Itoa(n) + s.grammar.skipLocked
	if s.grammar.returning {
		return query(ctx, tx, scanID, s.write("WITH next AS ("+next+") UPDATE midas_inbox SET "+claimed+
			" WHERE (openid, billno) IN (SELECT openid, billno FROM next) RETURNING openid, billno"),
			append(slices.Clone(where.args), milliseconds, b.owner, milliseconds)...)
	}
	ids, err := query(ctx, tx, scanID, s.write(next), where.args...)
	if err != nil {
		return nil, err
	}
	var leased []paymentID
	for _, id := range ids {
		ok, err := changed(ctx, tx, s.write("UPDATE midas_inbox SET "+claimed+" WHERE openid = ? AND billno = ? AND lease_ms <= {now}"),
			milliseconds, b.owner, milliseconds, id.openID, id.billNo)
		if err != nil {
			return nil, err
		}
		if ok {
			leased = append(leased, id)
		}
	}
	return leased, nil
}

func scanID(rows *sql.Rows) (id paymentID, err error) {
	return id, rows.Scan(&id.openID, &id.billNo)
}

// claimed reads payments that were leased. It gives one back if another one of the player's is
// being handled: two workers may have leased one each in the same moment, and then at
// least one of them sees it here.
func (b *Inbox) claimed(ctx context.Context, ids []paymentID) (claims []claim, err error) {
	type row struct {
		claim
		generation int64
		contended  bool
	}
	keys, args := make([]string, len(ids)), []any{b.owner}
	for i, id := range ids {
		keys[i] = "openid = ? AND billno = ?"
		args = append(args, id.openID, id.billNo)
	}
	var rows []row
	err = b.store.inTx(ctx, func(tx *sql.Tx) (err error) {
		rows, err = query(ctx, tx, func(rows *sql.Rows) (r row, err error) {
			r.delivery = new(midas.Delivery)
			err = scanDelivery(rows, r.delivery, &r.generation, &r.stored, &r.claims, &r.attempts, &r.failing, &r.stuck, &r.lastError, &r.now, &r.contended)
			r.id = paymentID{r.delivery.OpenID, r.delivery.BillNo}
			return r, err
		}, b.store.write(claimedPayments+"("+strings.Join(keys, " OR ")+")"), args...)
		return err
	})
	for i := range rows {
		c := rows[i].claim
		if rows[i].contended {
			if err := b.release(ctx, c, rand.N(100*time.Millisecond), false); err != nil {
				return claims, err
			}
			continue
		}
		if c.stuck == 1 {
			b.logStuck(ctx, c)
		}
		b.mu.Lock()
		if rows[i].generation > b.generation {
			b.reopened[c.id] = rows[i].generation
		}
		b.mu.Unlock()
		claims = append(claims, c)
	}
	return claims, err
}

// accept keeps the lease and lets the player's next payment be handled.
func (b *Inbox) accept(ctx context.Context, c claim) error {
	return b.store.inTx(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, b.store.sql.accept, c.id.openID, c.id.billNo, b.owner, c.claims)
		return err
	})
}

// notNow gives a payment back that is not now.
func (b *Inbox) notNow(ctx context.Context, c claim) error {
	age := time.Duration(c.now-c.stored) * time.Millisecond
	return b.release(ctx, c, min(max(age/4, minOffer), maxOffer), false)
}

// failed gives a payment back after an attempt that failed.
func (b *Inbox) failed(ctx context.Context, c claim, cause error) error {
	if c.failing == 0 {
		c.failing = c.now
	}
	wait := lastRetry
	if c.attempts <= 10 {
		wait = min(firstRetry<<max(c.attempts-1, 0), lastRetry)
	}
	c.lastError = clip(fmt.Sprint(cause))
	if c.stuck == 0 && time.Duration(c.now-c.failing)*time.Millisecond >= stuckAfter {
		c.stuck = 1
		b.logStuck(ctx, c)
	}
	if c.stuck == 1 {
		wait = stuckRetry
	}
	return b.release(ctx, c, wait, true)
}

// logStuck is called when a payment becomes stuck, and when a stuck one is handed out.
func (b *Inbox) logStuck(ctx context.Context, c claim) {
	b.store.log(ctx, "midassql: a payment is stuck: the player has paid and not received",
		slog.String("openid", c.id.openID), slog.String("billno", c.id.billNo), slog.Int("attempts", c.attempts), slog.String("error", c.lastError))
}

// release gives a payment back, to be due after wait. It does nothing if the lease is lost.
func (b *Inbox) release(ctx context.Context, c claim, wait time.Duration, attempt bool) error {
	uncounted := 1
	if attempt {
		uncounted = 0
	}
	return b.store.inTx(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, b.store.sql.release, wait.Milliseconds(), uncounted, c.failing, c.stuck, c.lastError,
			c.id.openID, c.id.billNo, b.owner, c.claims)
		return err
	})
}
