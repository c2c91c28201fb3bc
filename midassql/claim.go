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

	minOffer = 5 * time.Second // between two offers of a payment after ErrNotNow
	maxOffer = time.Hour

	spareClaims = 16 // how many more than it wants a claim looks at, where it locks what it has found: see lease

	// finishTime limits the transaction that stores what became of a payment, which the end of ctx does
	// not stop.
	finishTime = 10 * time.Second
)

// Waiting yields the payments of a player that wait in the Inbox's zones, for the moment when
// the player has logged in. Each is leased when it is yielded, as if [ErrAccepted] had
// been returned for it: grant, save together with the id, and call [Inbox.Done] (or
// [Inbox.Fail]). It ignores waits, and yields stuck payments too. It leaves out payments that are
// leased and, while one of the player's payments in a zone is being handled, the others of that zone;
// Work gets them afterwards. An error, including that of ctx, comes as the last pair.
func (b *Inbox) Waiting(ctx context.Context, openID string) iter.Seq2[*midas.Delivery, error] {
	return func(yield func(*midas.Delivery, error) bool) {
		if err := b.waiting(ctx, openID, yield); err != nil {
			yield(nil, fmt.Errorf("midassql: Waiting: %w", err))
		}
	}
}

// waiting returns an error that is to be yielded.
func (b *Inbox) waiting(ctx context.Context, openID string, yield func(*midas.Delivery, error) bool) error {
	// Nearly always nothing waits, and that costs one look-up. What waits is made due: a payment that a
	// worker is about to return with ErrNotNow must not wait for an hour when the player has just
	// logged in.
	some, err := b.makeDue(ctx, openID)
	if err != nil || !some {
		return err
	}
	last := ""
	for {
		claims, leased, _, err := b.claim(ctx, 1, func() []condition { return b.ofPlayer(openID, last) })
		if err != nil || len(leased) == 0 {
			return err
		}
		last = leased[0].billNo
		if len(claims) == 0 { // returned to the queue: a payment of another zone may be free
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
// It does nothing if this Inbox has no lease on the payment any more, and returns [ErrNoPayment] if there
// is no such payment. If this Inbox has handed the payment out again, Fail does nothing until work has
// returned [ErrAccepted] for the newer hand-out, and is about the newer one from then on.
func (b *Inbox) Fail(ctx context.Context, openID, billNo string, cause error) error {
	b.mu.Lock()
	h, known := b.handed[paymentID{openID, billNo}]
	b.mu.Unlock()
	var err error
	switch {
	case ctx == nil:
		err = errNilContext
	case !known:
		err = b.store.known(ctx, paymentID{openID, billNo})
	case h.unsure:
		return nil
	case errors.Is(cause, ErrNotNow):
		err = b.notNow(ctx, h.claim, cause)
	default:
		err = b.failed(ctx, h.claim, cause)
	}
	if err != nil {
		return fmt.Errorf("midassql: Fail: %w", err)
	}
	if known {
		b.forget(h.claim)
	}
	return nil
}

// known returns ErrNoPayment unless the payment is there.
func (s *Store) known(ctx context.Context, id paymentID) error {
	return s.inTx(ctx, func(tx *sql.Tx) error {
		p, err := s.state(ctx, tx, id)
		if err == nil && p.state == storedNoted {
			err = ErrNoPayment
		}
		return err
	})
}

// A handOut is a claim in the game's hands, kept so that Fail can find it.
type handOut struct {
	claim
	unsure bool // work is running, and the game may still hold an older hand-out
}

// remember keeps a claim that work begins with, or that Waiting yields. It drops claims without a Done
// or Fail once they must have been handed out again.
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

// accepted notes that work has accepted a claim: Fail is about this claim from now on, unless Done, Fail
// or a newer hand-out has come already.
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

// makeDue makes the player's payments due, and reports whether there are any. A leased payment is due
// when it returns to the queue.
func (b *Inbox) makeDue(ctx context.Context, openID string) (some bool, err error) {
	s := b.store
	err = s.look(ctx, func(tx *sql.Tx) error {
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

	// From the row; times are in the database's milliseconds.
	now, stored, failing int64
	claims               int64 // which claim of the payment this is
	attempts, stuck      int
	lastError            string
	others               bool // more of the player's payments wait in the zone
}

// Conditions on the table inbox, as w, for the payments to claim.
const (
	// dueSQL takes one payment of each player in a zone: the one that is due longest, and none while
	// another is being handled. So the lock on that row keeps two workers from taking one each, apart
	// from rare moments: see contended.
	//
	// It asks for one row, and does not say NOT EXISTS, so that PostgreSQL looks at the rows in the order
	// of the index until it has enough, whatever it believes about a table that was empty a moment ago.
	dueSQL = `due_ms <= {now} AND lease_ms <= {now} AND (SELECT 1 FROM midas_inbox other
		WHERE other.openid = w.openid AND other.zone = w.zone AND (other.lease_ms > {now} AND other.accepted = 0
			OR other.lease_ms <= {now} AND (other.due_ms < w.due_ms OR other.due_ms = w.due_ms AND other.billno < w.billno)) LIMIT 1) IS NULL`
	// stillDue is what another claim may have changed since dueSQL was read without a lock: it claimed the payment
	// and gave it back, for later.
	stillDue = " AND due_ms <= {now}"

	ofPlayerSQL = `openid = ? AND billno > ? AND lease_ms <= {now} AND NOT EXISTS (SELECT 1 FROM midas_inbox other
		WHERE other.openid = w.openid AND other.zone = w.zone AND other.lease_ms > {now} AND other.accepted = 0)`

	claimedPaymentsSQL = `SELECT ` + deliveryColumns + `, d.generation, w.stored_ms, w.claims, w.attempts, w.failing_ms, w.stuck, w.last_error, {now},
			CASE WHEN EXISTS (SELECT 1 FROM midas_inbox other WHERE other.openid = w.openid AND other.zone = w.zone
				AND other.billno <> w.billno AND other.lease_ms > {now} AND other.accepted = 0) THEN 1 ELSE 0 END,
			CASE WHEN EXISTS (SELECT 1 FROM midas_inbox other WHERE other.openid = w.openid AND other.zone = w.zone
				AND other.billno <> w.billno) THEN 1 ELSE 0 END
		FROM midas_inbox w JOIN midas_deliveries d ON d.openid = w.openid AND d.billno = w.billno
		WHERE w.owner = ? AND `
)

// claimedSQL changes a row for a claim. It counts an attempt in advance, and makes the payment due again
// as failed does, in case nothing more is heard of it. A lease that ended without a word was such a
// failure, and the game may have saved the payment. MySQL sees the new values of columns to the left.
var claimedSQL = fmt.Sprintf(`due_ms = {now} + ? + CASE WHEN stuck = 1 THEN %d WHEN attempts < 10 THEN %d << attempts ELSE %d END,
		attempts = attempts + 1, claims = claims + 1, owner = ?, accepted = 0,
		stuck = CASE WHEN lease_ms > 0 AND failing_ms > 0 AND failing_ms <= {now} - %d THEN 1 ELSE stuck END,
		failing_ms = CASE WHEN failing_ms = 0 AND lease_ms > 0 THEN lease_ms ELSE failing_ms END,
		may_have = CASE WHEN lease_ms > 0 THEN 1 ELSE may_have END,
		lease_ms = {now} + ?`,
	stuckRetry.Milliseconds(), firstRetry.Milliseconds(), lastRetry.Milliseconds(), stuckAfter.Milliseconds())

// due returns a condition for each base of the Inbox's zones. An index has the payments of a base in the
// order of due_ms and zone: a claim neither reads nor locks the rows of a zone that is down, whatever its
// name. Without zone in the ORDER BY, MySQL would take the index on due_ms alone. The conditions are tried in
// random order, so that no zone starves.
func (b *Inbox) due() []condition {
	if b.opts.Zones == nil {
		return []condition{{sql: dueSQL + " ORDER BY due_ms", still: stillDue}}
	}
	b.mu.Lock()
	others := byBase(b.others)
	b.mu.Unlock()
	var conditions []condition
	for base, ours := range byBase(b.opts.Zones) {
		c := condition{sql: dueSQL, still: stillDue}
		c.and("base = ?", base)
		zones, args := zonesCondition(ours, others[base])
		c.and(zones, args...)
		c.sql += " ORDER BY due_ms, zone"
		conditions = append(conditions, c)
	}
	rand.Shuffle(len(conditions), func(i, j int) { conditions[i], conditions[j] = conditions[j], conditions[i] })
	return conditions
}

func (b *Inbox) ofPlayer(openID, after string) []condition {
	zones, args := b.inZones()
	return []condition{{sql: ofPlayerSQL + " AND " + zones + " ORDER BY billno", args: append([]any{openID, after}, args...)}}
}

// claim leases up to n of the payments that match one of the conditions. leased are those that it
// found, and their number tells whether there may be more; some of them may be missing in claims:
// returned to the queue, done or cancelled meanwhile. crowded: other claims have locked so many that it
// did not see all.
func (b *Inbox) claim(ctx context.Context, n int, conditions func() []condition) (claims []claim, leased []paymentID, crowded bool, err error) {
	if ctx == nil {
		return nil, nil, false, errNilContext
	}
	// With Work's ctx alone it would wait forever on a connection to a server that is gone.
	limited, stop := context.WithTimeout(ctx, finishTime)
	defer stop()
	if err := b.begin(limited); err != nil {
		return nil, nil, false, err
	}
	if err := b.seeZones(limited); err != nil {
		return nil, nil, false, err
	}
	// The end of ctx must not leave leased payments that no worker handles.
	finish, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishTime)
	defer cancel()
	where := conditions()
	err = b.store.inTxAt(finish, b.store.grammar.claims, func(tx *sql.Tx) error {
		if before := b.store.grammar.beforeClaim; before != "" {
			if _, err := tx.ExecContext(finish, before); err != nil {
				return err
			}
		}
		leased, crowded = nil, false
		for i := 0; i < len(where) && len(leased) < n; i++ {
			some, all, err := b.lease(finish, tx, n-len(leased), where[i])
			if err != nil {
				return err
			}
			leased, crowded = append(leased, some...), crowded || !all
		}
		return nil
	})
	if err != nil || len(leased) == 0 {
		return nil, nil, crowded, err
	}
	claims, err = b.claimed(finish, leased)
	return claims, leased, crowded, err
}

// lease decides by what its UPDATE changes. The locks of its SELECT only keep claims out of each other's
// way: there are engines that take SKIP LOCKED and do not lock. all: it leased n, or saw each row there is.
func (b *Inbox) lease(ctx context.Context, tx *sql.Tx, n int, where condition) (leased []paymentID, all bool, err error) {
	s, milliseconds := b.store, b.opts.Lease.Milliseconds()
	next := "SELECT openid, billno FROM midas_inbox w WHERE " + where.sql + " LIMIT "
	if s.grammar.returning {
		leased, err = query(ctx, tx, scanID, s.write("WITH next AS ("+next+strconv.Itoa(n)+s.grammar.skipLocked+") UPDATE midas_inbox SET "+claimedSQL+
			" WHERE (openid, billno) IN (SELECT openid, billno FROM next) AND lease_ms <= {now} RETURNING openid, billno"),
			append(slices.Clone(where.args), milliseconds, b.owner, milliseconds)...)
		return leased, true, err
	}
	// Vitess drops the FOR UPDATE of a SELECT with a subquery. So the rows are found first, more than are wanted,
	// since other claims may have locked some, and are then locked by their keys.
	ids, err := query(ctx, tx, scanID, s.write(next+strconv.Itoa(n+spareClaims)), where.args...)
	seen := len(ids)
	for err == nil && len(ids) > 0 && len(leased) < n {
		some := ids[:min(n-len(leased), len(ids))]
		ids = ids[len(some):]
		keys, args := anyOf(some)
		some, err = query(ctx, tx, scanID, s.write("SELECT w.openid, w.billno FROM midas_inbox w WHERE ("+keys+") AND w.lease_ms <= {now}"+where.still+s.grammar.skipLocked), args...)
		for _, id := range some {
			ok, err := changed(ctx, tx, s.write("UPDATE midas_inbox SET "+claimedSQL+" WHERE openid = ? AND billno = ? AND lease_ms <= {now}"+where.still),
				milliseconds, b.owner, milliseconds, id.openID, id.billNo)
			if err != nil {
				return nil, false, err
			}
			if ok {
				leased = append(leased, id)
			}
		}
	}
	return leased, len(leased) == n || seen < n+spareClaims, err
}

// anyOf is the condition for rows w of the inbox.
func anyOf(ids []paymentID) (sql string, args []any) {
	keys := make([]string, len(ids))
	for i, id := range ids {
		keys[i] = "w.openid = ? AND w.billno = ?"
		args = append(args, id.openID, id.billNo)
	}
	return strings.Join(keys, " OR "), args
}

func scanID(rows *sql.Rows) (id paymentID, err error) {
	return id, rows.Scan(&id.openID, &id.billNo)
}

// claimed reads payments that were leased. It returns a payment to the queue if another payment of the
// same player is being handled: two workers may have leased one each in the same moment, and then at
// least one of them sees it here.
func (b *Inbox) claimed(ctx context.Context, ids []paymentID) (claims []claim, err error) {
	type row struct {
		claim
		generation int64
		contended  bool
	}
	keys, args := anyOf(ids)
	var rows []row
	err = b.store.look(ctx, func(tx *sql.Tx) (err error) {
		rows, err = query(ctx, tx, func(rows *sql.Rows) (r row, err error) {
			r.delivery = new(midas.Delivery)
			err = scanDelivery(rows, r.delivery, &r.generation, &r.stored, &r.claims, &r.attempts, &r.failing, &r.stuck, &r.lastError, &r.now, &r.contended, &r.others)
			r.id = paymentID{r.delivery.OpenID, r.delivery.BillNo}
			return r, err
		}, b.store.write(claimedPaymentsSQL+"("+keys+")"), append([]any{b.owner}, args...)...)
		return err
	})
	for i := range rows {
		c := rows[i].claim
		if rows[i].contended {
			if err := b.release(ctx, c, rand.N(100*time.Millisecond), untouched); err != nil {
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

// notNow returns a payment to the queue after ErrNotNow.
func (b *Inbox) notNow(ctx context.Context, c claim, result error) error {
	if told := (*notNowError)(nil); errors.As(result, &told) {
		return b.release(ctx, c, told.wait, untouched)
	}
	age := time.Duration(c.now-c.stored) * time.Millisecond
	return b.release(ctx, c, min(max(age/4, minOffer), maxOffer), untouched)
}

// failed returns a payment to the queue after an attempt that failed.
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
	return b.release(ctx, c, wait, attempted)
}

// logStuck is called when a payment becomes stuck, and when a stuck one is handed out.
func (b *Inbox) logStuck(ctx context.Context, c claim) {
	b.store.log(ctx, "midassql: a payment is stuck: the player has paid and not received",
		slog.String("openid", c.id.openID), slog.String("billno", c.id.billNo), slog.Int("attempts", c.attempts), slog.String("error", c.lastError))
}

// A handling is what became of a hand-out that is given back.
type handling int

const (
	untouched   handling = iota // the game has done nothing with it
	interrupted                 // no attempt is counted, and the game may have saved it
	attempted                   // an attempt failed, and the game may have saved it
)

// release returns a payment to the queue, due after wait. It does nothing if the lease is lost.
func (b *Inbox) release(ctx context.Context, c claim, wait time.Duration, h handling) error {
	uncounted, mayHave := 1, 1
	switch h {
	case untouched: // of an earlier hand-out nothing more is known
		mayHave = 0
	case attempted:
		uncounted = 0
	}
	return b.store.inTx(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, b.store.sql.release, wait.Milliseconds(), uncounted, c.failing, c.stuck, c.lastError, mayHave,
			c.id.openID, c.id.billNo, b.owner, c.claims)
		return err
	})
}
