package midassql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"math/rand/v2"
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
// [Inbox.Fail]). It ignores waits, and yields stuck payments too. One that somebody else has a
// lease on is left out; Work gets it when that lease ends. An error, also that of
// ctx, comes as the last pair.
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
	// due: what somebody is just handling, only to find that the player was offline, must
	// not wait for an hour.
	some, err := b.makeDue(ctx, openID)
	if err != nil || !some {
		return err
	}
	last := ""
	for {
		claims, _, err := b.claim(ctx, 1, func() (string, []any) { return b.ofPlayer(openID, last) })
		if err != nil || len(claims) == 0 {
			return err
		}
		c := claims[0]
		last = c.id.billNo
		more := yield(c.delivery, nil)
		finish, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishTime)
		err = b.accept(finish, c)
		cancel()
		if !more {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// Fail says that a payment which was accepted, or came from Waiting, could not be handled:
// it is tried again as if work had returned cause. With [ErrNotNow] no attempt is counted. It
// does nothing if this Inbox has no lease on the payment any more.
func (b *Inbox) Fail(ctx context.Context, openID, billNo string, cause error) error {
	c := &claim{id: paymentID{openID, billNo}}
	mine := false
	err := b.store.inTx(ctx, func(tx *sql.Tx) error {
		var owner, lease int64
		err := tx.QueryRowContext(ctx, b.store.sql.waiting, openID, billNo).
			Scan(&c.stored, &lease, &owner, &c.claims, &c.attempts, &c.failing, &c.stuck, &c.lastError, &c.now)
		mine = owner == b.owner && lease > c.now
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		return err
	})
	if err == nil && mine {
		if errors.Is(cause, ErrNotNow) {
			err = b.notNow(ctx, c)
		} else {
			err = b.failed(ctx, c, cause)
		}
	}
	if err != nil {
		return fmt.Errorf("midassql: Fail: %w", err)
	}
	return nil
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
	// It counts, and does not say NOT EXISTS, so that PostgreSQL looks at the rows in the order of the
	// index until it has enough, whatever it believes about a table that was empty a moment ago.
	due = `due_ms <= {now} AND lease_ms <= {now} AND 0 = (SELECT COUNT(*) FROM midas_inbox other
		WHERE other.openid = w.openid AND other.zone = w.zone AND (other.lease_ms > {now} AND other.accepted = 0
			OR other.lease_ms <= {now} AND (other.due_ms < w.due_ms OR other.due_ms = w.due_ms AND other.billno < w.billno)))`
	ofPlayer = `openid = ? AND billno > ? AND lease_ms <= {now} AND NOT EXISTS (SELECT 1 FROM midas_inbox other
		WHERE other.openid = w.openid AND other.zone = w.zone AND other.lease_ms > {now} AND other.accepted = 0)`

	// A claim counts an attempt in advance, and makes the payment due again for the case that
	// nothing more is heard of it. MySQL sees the new values of columns to the left.
	claimed = `due_ms = {now} + ? + CASE WHEN stuck = 1 THEN 3600000 WHEN attempts < 10 THEN 1000 << attempts ELSE 600000 END,
		attempts = attempts + 1, claims = claims + 1, owner = ?, accepted = 0,
		stuck = CASE WHEN failing_ms > 0 AND failing_ms <= {now} - 259200000 THEN 1 ELSE stuck END,
		failing_ms = CASE WHEN failing_ms = 0 AND lease_ms > 0 THEN lease_ms ELSE failing_ms END,
		lease_ms = {now} + ?`

	claimedPayments = `SELECT ` + deliveryColumns + `, generation, stored_ms, claims, attempts, failing_ms, stuck, last_error, {now},
			CASE WHEN EXISTS (SELECT 1 FROM midas_inbox other WHERE other.openid = midas_inbox.openid AND other.zone = midas_inbox.zone
				AND other.billno <> midas_inbox.billno AND other.lease_ms > {now} AND other.accepted = 0) THEN 1 ELSE 0 END
		FROM midas_inbox JOIN midas_deliveries USING (openid, billno)
		WHERE owner = ? AND `
)

func (b *Inbox) due() (string, []any) {
	zones, args := b.inZones()
	return due + " AND " + zones + " ORDER BY due_ms", args
}

func (b *Inbox) ofPlayer(openID, after string) (string, []any) {
	zones, args := b.inZones()
	return ofPlayer + " AND " + zones + " ORDER BY billno", append([]any{openID, after}, args...)
}

// claim leases up to n of the payments that where says. leased is how many it found; some may have
// been given back, or be done or cancelled meanwhile.
func (b *Inbox) claim(ctx context.Context, n int, where func() (string, []any)) (claims []*claim, leased int, err error) {
	if ctx == nil {
		return nil, 0, errNilContext
	}
	if err := b.begin(ctx); err != nil {
		return nil, 0, err
	}
	if err := b.seeZones(ctx); err != nil {
		return nil, 0, err
	}
	// The end of ctx must not leave payments that are leased to nobody.
	finish, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishTime)
	defer cancel()
	condition, args := where()
	var ids []paymentID
	err = b.store.inTxAt(finish, b.store.grammar.claims, func(tx *sql.Tx) (err error) {
		ids, err = b.lease(finish, tx, n, condition, args)
		return err
	})
	if err != nil || len(ids) == 0 {
		return nil, 0, err
	}
	claims, err = b.claimed(finish, ids)
	return claims, len(ids), err
}

func (b *Inbox) lease(ctx context.Context, tx *sql.Tx, n int, condition string, args []any) ([]paymentID, error) {
	s, milliseconds := b.store, b.opts.Lease.Milliseconds()
	next := "SELECT openid, billno FROM midas_inbox w WHERE " + condition + " LIMIT " + strconv.Itoa(n) + s.grammar.skipLocked
	if s.grammar.returning {
		return query(ctx, tx, scanID, s.write("WITH next AS ("+next+") UPDATE midas_inbox SET "+claimed+
			" WHERE (openid, billno) IN (SELECT openid, billno FROM next) RETURNING openid, billno"),
			append(args, milliseconds, b.owner, milliseconds)...)
	}
	ids, err := query(ctx, tx, scanID, s.write(next), args...)
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
func (b *Inbox) claimed(ctx context.Context, ids []paymentID) (claims []*claim, err error) {
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
		c := &rows[i].claim
		if rows[i].contended {
			if err := b.release(ctx, c, rand.N(100*time.Millisecond), false); err != nil {
				return claims, err
			}
			continue
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
func (b *Inbox) accept(ctx context.Context, c *claim) error {
	return b.store.inTx(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, b.store.sql.accept, c.id.openID, c.id.billNo, b.owner, c.claims)
		return err
	})
}

// notNow gives a payment back that is not now.
func (b *Inbox) notNow(ctx context.Context, c *claim) error {
	age := time.Duration(c.now-c.stored) * time.Millisecond
	return b.release(ctx, c, min(max(age/4, minOffer), maxOffer), false)
}

// failed gives a payment back after an attempt that failed.
func (b *Inbox) failed(ctx context.Context, c *claim, cause error) error {
	if c.failing == 0 {
		c.failing = c.now
	}
	wait := lastRetry
	if c.attempts <= 10 {
		wait = min(firstRetry<<max(c.attempts-1, 0), lastRetry)
	}
	if c.stuck == 1 || time.Duration(c.now-c.failing)*time.Millisecond >= stuckAfter {
		c.stuck, wait = 1, stuckRetry
		b.store.log(ctx, "midassql: a payment is stuck: the player has paid and not received",
			slog.String("openid", c.id.openID), slog.String("billno", c.id.billNo), slog.Int("attempts", c.attempts), slog.Any("error", cause))
	}
	c.lastError = clip(fmt.Sprint(cause))
	return b.release(ctx, c, wait, true)
}

// release gives a payment back, to be due after wait. It does nothing if the lease is lost.
func (b *Inbox) release(ctx context.Context, c *claim, wait time.Duration, attempt bool) error {
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
