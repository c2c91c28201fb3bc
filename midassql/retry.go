package midassql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"time"
)

// RetryOptions says which payments [Inbox.Retry] puts back.
type RetryOptions struct {
	OpenID string // one player's; empty: every player's

	// DoneFrom and DoneTo, for the time after a restore of the players from a backup, put back
	// what was done in [DoneFrom, DoneTo), too. DoneFrom is the time of the backup, less some
	// minutes for clocks and running saves; the ids in the records keep what survived from
	// doubling. A zero DoneTo is the time of the call. If DoneFrom is zero, only stuck payments are
	// put back.
	DoneFrom, DoneTo time.Time
}

// Retry makes payments of the Inbox's zones due at once: the stuck ones, as if they had never
// failed, and with DoneFrom those that are done, after a restore. With DoneFrom it begins a new
// generation: a Done about a save from before it is refused with [ErrRestored], also that of a
// payment that was still waiting. Stop the processes that hold restored players in their memory
// before you call it.
//
// It returns how many payments it put back, also when it stopped at an error; then call it again.
// What was done is put back in batches. It comes back in the zone that it was paid for: what
// [Inbox.MoveZone] had moved needs an Inbox without Zones here, and is to be moved again. A payment
// that was archived meanwhile (docs/ledger.md) has lost its items and stays done, with a line in
// Options.Logger. A mini game's payment that was refunded in full stays done, too. Other games' refunds
// are not in the ledger: [Inbox.Cancel] those payments before you start the processes again.
func (b *Inbox) Retry(ctx context.Context, opts RetryOptions) (n int64, err error) {
	defer func() {
		if n > 0 {
			b.Wake()
		}
	}()
	where, generation, n, err := b.retryStuck(ctx, opts)
	if err != nil {
		return n, fmt.Errorf("midassql: Retry: %w", err)
	}
	if opts.DoneFrom.IsZero() {
		return n, nil
	}
	// First what waits: from here on a Done about a save from before is refused, or it came earlier
	// and is seen below.
	for _, err := range pages(ctx, b.store, "Retry", func(tx *sql.Tx, last *paymentID) ([]paymentID, error) {
		return b.regenerate(ctx, tx, where, generation, last)
	}) {
		if err != nil {
			return n, err
		}
	}
	until, err := b.retryUntil(ctx, opts.DoneTo)
	if err != nil {
		return n, fmt.Errorf("midassql: Retry: %w", err)
	}
	for p, err := range pages(ctx, b.store, "Retry", func(tx *sql.Tx, last *donePayment) ([]donePayment, error) {
		if last == nil {
			last = &donePayment{done: opts.DoneFrom.UnixMilli()}
		}
		return b.reopen(ctx, tx, opts.OpenID, generation, *last, until)
	}) {
		if err != nil {
			return n, err
		}
		if p.reopened {
			n++
		}
		if p.archived {
			b.store.log(ctx, "midassql: Retry cannot put a payment back that is archived: look up in the archive what it was for",
				slog.String("openid", p.openID), slog.String("billno", p.billNo))
		}
	}
	return n, nil
}

// retryMargin is by how much the clocks of a cluster's nodes may differ.
const retryMargin = time.Minute

// retryUntil returns doneTo, or the time until which a Done may have come that is about a save from
// before the restore.
func (b *Inbox) retryUntil(ctx context.Context, doneTo time.Time) (until int64, err error) {
	if !doneTo.IsZero() {
		return doneTo.UnixMilli(), nil
	}
	err = b.store.inTx(ctx, func(tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, b.store.sql.now).Scan(&until)
	})
	return until + retryMargin.Milliseconds(), err
}

// retryStuck puts the stuck payments back, and begins a new generation if opts wants one. where is the
// condition for what waits in the table inbox.
func (b *Inbox) retryStuck(ctx context.Context, opts RetryOptions) (where condition, generation, n int64, err error) {
	if err := b.seeZones(ctx); err != nil {
		return condition{}, 0, 0, err
	}
	s := b.store
	where.sql, where.args = b.inZones()
	if opts.OpenID != "" {
		where.and("openid = ?", opts.OpenID)
	}
	err = s.inTx(ctx, func(tx *sql.Tx) error {
		result, err := tx.ExecContext(ctx, s.write("UPDATE midas_inbox SET due_ms = {now}, attempts = 0, failing_ms = 0, stuck = 0 WHERE stuck = 1 AND lease_ms <= {now} AND "+
			where.sql), where.args...)
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

// regenerate lifts payments that wait, one page of them, into a generation.
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

type donePayment struct {
	paymentID
	zone                         string
	done                         int64
	archived, refunded, reopened bool
}

// reopen puts the payments of one page back that were done from last's time on.
func (b *Inbox) reopen(ctx context.Context, tx *sql.Tx, openID string, generation int64, last donePayment, until int64) ([]donePayment, error) {
	page, err := query(ctx, tx, func(rows *sql.Rows) (p donePayment, err error) {
		return p, rows.Scan(&p.openID, &p.billNo, &p.zone, &p.done, &p.archived, &p.refunded)
	}, b.store.sql.doneSince, last.done, until, last.done, last.openID, last.openID, last.billNo, pageSize)
	if err != nil {
		return nil, err
	}
	for i, p := range page {
		wanted := (openID == "" || p.openID == openID) && b.serves(p.zone) && !p.refunded
		page[i].archived = wanted && p.archived
		if !wanted || p.archived {
			continue
		}
		page[i].reopened, err = changed(ctx, tx, b.store.sql.reopenPayment, generation, p.openID, p.billNo, generation)
		if err == nil && page[i].reopened {
			_, err = tx.ExecContext(ctx, b.store.sql.insertWaiting, p.openID, p.billNo, p.zone, base(p.zone))
		}
		if err != nil {
			return nil, err
		}
	}
	return page, nil
}

// InboxCounts are the figures of [Inbox.Counts].
type InboxCounts struct {
	Waiting int64     // all that wait, stuck ones included
	Stuck   int64     // failed for 72 h: raise an alarm
	Oldest  time.Time // when the payment that waits longest was stored; zero: none waits

	// Unserved counts the waiting payments by zoneid where the longest name that fits has had no
	// worker for 10 minutes, or where no name fits. Only an Inbox without Zones sees payments for zones
	// that nobody has named. [Inbox.MoveZone] moves them.
	Unserved map[string]int64
}

// Counts counts the waiting payments of the Inbox's zones, for metrics and alarms. It reads
// all that wait: call it every minute, not for each payment.
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
	err := b.store.inTx(ctx, func(tx *sql.Tx) (err error) {
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

// served reports whether a worker for a zoneid is there: one for every zone, or one of the longest
// name that fits.
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

// MoveZone lets the waiting payments that belong to zone from be handed out as those of zone to,
// and returns how many they were. Those that a longer name fits (see InboxOptions.Zones) are not
// moved with them. The Delivery still has the ZoneID that Midas sent. Later payments of zone from are
// not moved: they go to a shorter name that fits, or wait until a worker names from again.
//
// The ids of the payments that players have saved must go with the players: see [Inbox].
func (b *Inbox) MoveZone(ctx context.Context, from, to string) (moved int64, err error) {
	if reason := checkKey(from) + checkKey(to); reason != "" {
		return 0, errors.New("midassql: MoveZone: " + reason)
	}
	s := b.store
	err = s.inTx(ctx, func(tx *sql.Tx) error {
		names, err := query(ctx, tx, scanZoneName, s.sql.zones, unservedAfter.Milliseconds())
		if err != nil {
			return err
		}
		ours := []string{from}
		where, args := zonesCondition(ours, inside(ours, names))
		result, err := tx.ExecContext(ctx, s.write("UPDATE midas_inbox SET zone = ?, base = ? WHERE "+where), append([]any{to, base(to)}, args...)...)
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
	b.Wake()
	return moved, nil
}
