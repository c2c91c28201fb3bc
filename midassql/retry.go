package midassql

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"time"
)

// RetryOptions says which payments [Inbox.Retry] puts back.
type RetryOptions struct {
	OpenID string // one player's; empty: every player's

	// DoneFrom and DoneTo also put back what was done in [DoneFrom, DoneTo), after the players were
	// restored from a backup. DoneFrom is the time of the backup, less some minutes for clocks and running
	// saves; the ids in the records keep items that survived from doubling. A zero DoneTo is the time of
	// the call. If DoneFrom is zero, only stuck payments are put back.
	DoneFrom, DoneTo time.Time

	Reason string // why, for Store.Acts; By says who
}

// A RetryResult is what [Inbox.Retry] did.
type RetryResult struct {
	PutBack int64 // payments that are handed out again

	// Refunded are the refunds since DoneFrom of which the game was told that the player had the items, or
	// might have: what it took back for them may be in the restored records again. Take it back once more,
	// with the payment's id, before you start the processes.
	Refunded []Refund
}

// Retry makes payments of the Inbox's zones due at once: the stuck ones, as if they had never
// failed, and with DoneFrom those that are done, after a restore. With DoneFrom it begins a new
// generation: a Done about a save from before it is refused with [ErrRestored], even if the payment
// was still waiting. Stop the processes that hold restored players in their memory before you call it.
//
// What it returns holds even when it stopped at an error; then call it
// again. With DoneFrom it reads every payment of the ledger, in pages; with OpenID, that player's.
// Done payments are put back in batches, each in the zone that it was paid for: payments that
// [Inbox.MoveZone] had moved need an Inbox without Zones here, and have to be moved again. A payment
// that was archived meanwhile (docs/ledger.md) has lost its items and stays done, with a line in
// Options.Logger. A payment that was refunded in full stays done, too (see [Store.Refund]).
func (b *Inbox) Retry(ctx context.Context, opts RetryOptions) (RetryResult, error) {
	result, err := b.retry(ctx, opts)
	if result.PutBack > 0 {
		b.store.wake(func(*Inbox) bool { return true }) // of whatever zones
	}
	return result, err
}

func (b *Inbox) retry(ctx context.Context, opts RetryOptions) (result RetryResult, err error) {
	act := b.store.newAct(ctx, ActRetry, opts.Reason)
	where, generation, n, err := b.retryStuck(ctx, opts, act)
	result.PutBack = n
	if err != nil {
		return result, fmt.Errorf("midassql: Retry: %w", err)
	}
	if opts.DoneFrom.IsZero() {
		return result, nil
	}
	// Waiting payments come first: from here on, a Done about an older save is refused, or it came
	// earlier and is seen below.
	for _, err := range pages(ctx, b.store.inTx, "Retry", func(tx *sql.Tx, last *paymentID) ([]paymentID, error) {
		return b.regenerate(ctx, tx, where, generation, last)
	}) {
		if err != nil {
			return result, err
		}
	}
	until, err := b.retryUntil(ctx, opts.DoneTo)
	if err != nil {
		return result, fmt.Errorf("midassql: Retry: %w", err)
	}
	for p, err := range pages(ctx, b.store.inTx, "Retry", func(tx *sql.Tx, last *historyPayment) ([]historyPayment, error) {
		if last == nil {
			last = new(historyPayment)
		}
		return b.reopen(ctx, tx, opts.OpenID, opts.DoneFrom.UnixMilli(), until, generation, last.paymentID, act)
	}) {
		if err != nil {
			return result, err
		}
		if p.reopened {
			result.PutBack++
		}
		if p.archived {
			b.store.log(ctx, "midassql: Retry cannot put a payment back that is archived: look up in the archive what it was for",
				slog.String("openid", p.openID), slog.String("billno", p.billNo))
		}
	}
	// Last, so that a refund which kept a payment from being put back is among them.
	for r, err := range pages(ctx, b.store.look, "Retry", func(tx *sql.Tx, last *notedRefund) ([]notedRefund, error) {
		if last == nil {
			last = &notedRefund{at: opts.DoneFrom.Unix()}
		}
		return query(ctx, tx, scanNotedRefund, b.store.sql.refundsSince, last.at, last.at, last.AppID, last.AppID, last.ID, pageSize)
	}) {
		if err != nil {
			return result, err
		}
		if (opts.OpenID == "" || r.OpenID == opts.OpenID) && b.serves(r.zone) {
			result.Refunded = append(result.Refunded, r.Refund)
			b.store.log(ctx, "midassql: a payment was refunded after the backup of the players: take back again what the restore may have brought back",
				slog.String("openid", r.OpenID), slog.String("billno", r.BillNo), slog.String("refund", r.ID), slog.Int64("amount", int64(r.Amount)))
		}
	}
	return result, nil
}

// retryMargin is the largest difference expected between the clocks of a cluster's nodes.
const retryMargin = time.Minute

// retryUntil returns doneTo, or the latest time of a Done about a save from before the restore.
func (b *Inbox) retryUntil(ctx context.Context, doneTo time.Time) (until int64, err error) {
	if !doneTo.IsZero() {
		return doneTo.UnixMilli(), nil
	}
	err = b.store.look(ctx, func(tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, b.store.sql.now).Scan(&until)
	})
	return until + retryMargin.Milliseconds(), err
}

// retryStuck puts the stuck payments back, and begins a new generation if opts wants one. where is the
// condition for what waits in the table inbox.
func (b *Inbox) retryStuck(ctx context.Context, opts RetryOptions, act Act) (where condition, generation, n int64, err error) {
	if err := b.seeZones(ctx); err != nil {
		return condition{}, 0, 0, err
	}
	s := b.store
	where.sql, where.args = b.inZones()
	if opts.OpenID != "" {
		where.and("openid = ?", opts.OpenID)
	}
	err = s.inTx(ctx, func(tx *sql.Tx) error {
		stuck := condition{sql: "stuck = 1 AND lease_ms <= {now}"}
		stuck.and(where.sql, where.args...)
		if err := s.storeActs(ctx, tx, act, stuck); err != nil {
			return err
		}
		acted := actedOn(act)
		result, err := tx.ExecContext(ctx, s.write("UPDATE midas_inbox SET due_ms = {now}, attempts = 0, failing_ms = 0, stuck = 0 WHERE stuck = 1 AND "+
			acted.sql), acted.args...)
		if err != nil {
			return err
		}
		if n, err = result.RowsAffected(); err != nil || opts.DoneFrom.IsZero() {
			return err
		}
		if _, err := tx.ExecContext(ctx, s.sql.nextGeneration); err != nil {
			return err
		}
		statement, args := s.inline(s.sql.meta, "generation")
		return tx.QueryRowContext(ctx, statement, args...).Scan(&generation)
	})
	if err != nil {
		return condition{}, 0, 0, err
	}
	return where, generation, n, nil
}

// regenerate lifts one page of waiting payments into a generation.
func (b *Inbox) regenerate(ctx context.Context, tx *sql.Tx, where condition, generation int64, last *paymentID) ([]paymentID, error) {
	s := b.store
	if last != nil {
		where.args = slices.Clone(where.args)
		where.and("(openid > ? OR (openid = ? AND billno > ?))", last.openID, last.openID, last.billNo)
	}
	page, err := query(ctx, tx, scanID, s.write("SELECT openid, billno FROM midas_inbox WHERE "+where.sql+" ORDER BY openid, billno LIMIT "+strconv.Itoa(pageSize)), where.args...)
	if err != nil {
		return nil, err
	}
	for _, id := range page {
		if _, err := tx.ExecContext(ctx, s.sql.regenerate, generation, id.openID, id.billNo, generation); err != nil {
			return nil, err
		}
	}
	return page, nil
}

// A historyPayment is a payment that a Retry passes by.
type historyPayment struct {
	paymentID
	zone               string
	done               int64 // unix milliseconds; 0 unless it is done, by Inbox.Done
	archived, reopened bool
}

// reopen puts back those payments of one page of the history that were done in [from, until). No index has
// done_ms: each payment would pay for it, those of Once too, and a restore of the players is rare.
func (b *Inbox) reopen(ctx context.Context, tx *sql.Tx, openID string, from, until, generation int64, last paymentID, act Act) ([]historyPayment, error) {
	var where condition
	where.and("billno >= ? AND (billno > ? OR openid > ?)", last.billNo, last.billNo, last.openID)
	if openID != "" {
		where.and("openid = ?", openID)
	}
	page, err := query(ctx, tx, func(rows *sql.Rows) (p historyPayment, err error) {
		err = rows.Scan(&p.openID, &p.billNo, &p.zone, &p.done, &p.archived)
		p.zone = zoneOf(p.zone)
		return p, err
	}, b.store.write("SELECT openid, billno, zone, CASE WHEN state = 0 THEN COALESCE(done_ms, 0) ELSE 0 END, CASE WHEN items = '' THEN 1 ELSE 0 END"+
		" FROM midas_deliveries WHERE "+where.sql+" ORDER BY billno, openid LIMIT "+strconv.Itoa(pageSize)), where.args...)
	if err != nil {
		return nil, err
	}
	for i, p := range page {
		wanted := p.done > 0 && from <= p.done && p.done < until && b.serves(p.zone)
		page[i].archived = wanted && p.archived
		if !wanted || p.archived {
			continue
		}
		// It decides whether the payment was refunded in full, too: a refund that commits meanwhile is seen.
		page[i].reopened, err = changed(ctx, tx, b.store.sql.reopenPayment, generation, p.openID, p.billNo, generation)
		if err == nil && page[i].reopened {
			_, err = tx.ExecContext(ctx, b.store.sql.insertWaiting, p.openID, p.billNo, p.zone, base(p.zone), 1) // the restored record may have it
			if err == nil {
				err = b.store.storeAct(ctx, tx, act, p.paymentID)
			}
		}
		if err != nil {
			return nil, err
		}
	}
	return page, nil
}

// InboxCounts are the figures of [Inbox.Counts].
type InboxCounts struct {
	Waiting int64     // waiting payments, including stuck ones
	Stuck   int64     // failed for 72 h: raise an alarm
	Oldest  time.Time // when the payment that waits longest was stored; zero: none waits

	// Unserved counts the waiting payments by zoneid where the longest name that fits has had no
	// worker for 10 minutes, or where no name fits. Only an Inbox without Zones sees payments for zones
	// that no worker has named. [Inbox.MoveZone] moves them.
	Unserved map[string]int64
}

// Counts counts the waiting payments of the Inbox's zones, for metrics and alarms. It reads
// every waiting payment: call it every minute, not for each payment.
func (b *Inbox) Counts(ctx context.Context) (InboxCounts, error) {
	c, err := b.counts(ctx)
	if err != nil {
		return InboxCounts{}, fmt.Errorf("midassql: Counts: %w", err)
	}
	return c, nil
}

func (b *Inbox) counts(ctx context.Context) (InboxCounts, error) {
	if err := b.seeZones(ctx); err != nil {
		return InboxCounts{}, err
	}
	type zone struct {
		name                   string
		waiting, stuck, oldest int64
	}
	condition, args := b.inZones()
	var zones []zone
	var names []zoneName
	err := b.store.look(ctx, func(tx *sql.Tx) (err error) {
		zones, err = query(ctx, tx, func(rows *sql.Rows) (z zone, err error) {
			return z, rows.Scan(&z.name, &z.waiting, &z.stuck, &z.oldest)
		}, b.store.write("SELECT zone, COUNT(*), SUM(stuck), MIN(stored_ms) FROM midas_inbox WHERE "+condition+" GROUP BY zone"), args...)
		if err == nil {
			names, err = query(ctx, tx, scanZoneName, b.store.sql.zones, unservedAfter.Milliseconds())
		}
		return err
	})
	c := InboxCounts{Unserved: make(map[string]int64)}
	var oldest int64
	for _, z := range zones {
		c.Waiting += z.waiting
		c.Stuck += z.stuck
		if oldest == 0 || z.oldest < oldest {
			oldest = z.oldest
		}
		if !served(z.name, names) {
			c.Unserved[z.name] = z.waiting
		}
	}
	if oldest > 0 {
		c.Oldest = time.UnixMilli(oldest)
	}
	return c, err
}

// served reports whether zoneid has a worker: one for every zone, or one for the longest name that fits.
func served(zoneid string, names []zoneName) bool {
	var winner zoneName
	for _, n := range names {
		if n.name == "" && n.served {
			return true
		}
		if inZone(zoneid, n.name) && len(n.name) > len(winner.name) {
			winner = n
		}
	}
	return winner.served
}

// MoveZone lets the waiting payments of zone from be handed out as payments of zone to, and returns
// their number. It does not move payments that a longer name fits (see InboxOptions.Zones). The Delivery
// still has the ZoneID that Midas sent. Later payments of zone from are not moved: they go to a shorter
// name that fits, or wait until a worker names from again.
//
// Stop the servers of zone from first, then merge the players' records, and call MoveZone last: a server that
// still runs would save what it was handed into a record that is merged already. The ids of the payments that
// players have saved must go with the players: see [Inbox].
func (b *Inbox) MoveZone(ctx context.Context, from, to string) (moved int64, err error) {
	for _, zone := range []struct{ param, name string }{{"from", from}, {"to", to}} {
		if reason := checkKey(zone.name); reason != "" {
			return 0, fmt.Errorf("midassql: MoveZone: %s: %s", zone.param, reason)
		}
	}
	s := b.store
	act := s.newAct(ctx, ActMoveZone, "from "+from+" to "+to)
	err = s.inTx(ctx, func(tx *sql.Tx) error {
		names, err := query(ctx, tx, scanZoneName, s.sql.zones, unservedAfter.Milliseconds())
		if err != nil {
			return err
		}
		ours := []string{from}
		var where condition
		where.sql, where.args = zonesCondition(ours, inside(ours, names))
		if err := s.storeActs(ctx, tx, act, where); err != nil {
			return err
		}
		acted := actedOn(act)
		result, err := tx.ExecContext(ctx, s.write("UPDATE midas_inbox SET zone = ?, base = ? WHERE "+acted.sql), append([]any{to, base(to)}, acted.args...)...)
		if err != nil {
			return err
		}
		if moved, err = result.RowsAffected(); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, s.sql.forgetZone, from)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("midassql: MoveZone: %w", err)
	}
	s.wakeZone(to)
	return moved, nil
}
