package midassql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"
)

// RetryOptions says which payments [Inbox.Retry] puts back.
type RetryOptions struct {
	OpenID string // one player's; empty: every player's

	// DoneFrom and DoneTo, for the time after a restore of the players from a backup, put back
	// what was done in [DoneFrom, DoneTo), too. DoneFrom is the time of the backup, less some
	// minutes for clocks and running saves; the ids in the records keep what survived from
	// doubling. A zero DoneTo is now. If DoneFrom is zero, only stuck payments are put back.
	DoneFrom, DoneTo time.Time
}

// Retry makes payments of the Inbox's zones due at once: the stuck ones, as if they had never
// failed, and with DoneFrom those that are done, after a restore. The latter begin a new
// generation: a Done from before is refused with [ErrRestored]. Stop the processes
// that hold restored players in their memory before you call it. It works in
// batches, and returns how many payments it put back, also when it stopped at an error; then
// call it again.
func (b *Inbox) Retry(ctx context.Context, opts RetryOptions) (int64, error) {
	n, err := b.retry(ctx, opts)
	if n > 0 {
		b.Wake()
	}
	if err != nil {
		return n, fmt.Errorf("midassql: Retry: %w", err)
	}
	return n, nil
}

func (b *Inbox) retry(ctx context.Context, opts RetryOptions) (n int64, err error) {
	if err := b.seeZones(ctx); err != nil {
		return 0, err
	}
	s := b.store
	zones, args := b.inZones()
	statement := "UPDATE midas_inbox SET due_ms = {now}, attempts = 0, failing_ms = 0, stuck = 0 WHERE stuck = 1 AND lease_ms <= {now} AND " + zones
	if opts.OpenID != "" {
		statement, args = statement+" AND openid = ?", append(args, opts.OpenID)
	}
	var generation, now int64
	err = s.inTx(ctx, func(tx *sql.Tx) error {
		result, err := tx.ExecContext(ctx, s.write(statement), args...)
		if err != nil {
			return err
		}
		if n, err = result.RowsAffected(); err != nil || opts.DoneFrom.IsZero() {
			return err
		}
		if _, err := tx.ExecContext(ctx, s.sql.nextGeneration); err != nil {
			return err
		}
		return tx.QueryRowContext(ctx, s.sql.generationNow).Scan(&generation, &now)
	})
	if err != nil || opts.DoneFrom.IsZero() {
		return n, err
	}
	until := now + 1
	if !opts.DoneTo.IsZero() {
		until = opts.DoneTo.UnixMilli()
	}
	last := donePayment{done: opts.DoneFrom.UnixMilli()}
	for {
		var reopened int64
		var page []donePayment
		err := s.inTx(ctx, func(tx *sql.Tx) (err error) {
			page, reopened, err = b.reopen(ctx, tx, opts.OpenID, generation, last, until)
			return err
		})
		if err != nil {
			return n, err
		}
		n += reopened
		if len(page) < pageSize {
			return n, nil
		}
		last = page[len(page)-1]
	}
}

type donePayment struct {
	paymentID
	zone string
	done int64
}

// reopen puts the payments of one page back that were done from last's time on.
func (b *Inbox) reopen(ctx context.Context, tx *sql.Tx, openID string, generation int64, last donePayment, until int64) (page []donePayment, n int64, err error) {
	page, err = query(ctx, tx, func(rows *sql.Rows) (p donePayment, err error) {
		return p, rows.Scan(&p.openID, &p.billNo, &p.zone, &p.done)
	}, b.store.sql.doneSince, last.done, until, last.done, last.openID, last.openID, last.billNo, pageSize)
	if err != nil {
		return nil, 0, err
	}
	for _, p := range page {
		if openID != "" && p.openID != openID || !b.serves(p.zone) {
			continue
		}
		reopened, err := changed(ctx, tx, b.store.sql.reopenPayment, generation, p.openID, p.billNo, generation)
		if err != nil {
			return nil, 0, err
		}
		if reopened {
			if _, err := tx.ExecContext(ctx, b.store.sql.insertWaiting, p.openID, p.billNo, p.zone); err != nil {
				return nil, 0, err
			}
			n++
		}
	}
	return page, n, nil
}

// InboxCounts are the figures of [Inbox.Counts].
type InboxCounts struct {
	Waiting int64     // all that wait, stuck ones included
	Stuck   int64     // failed for 72 h: raise an alarm
	Oldest  time.Time // when the payment that waits longest was stored; zero: none waits

	// Unserved counts the waiting payments by zoneid where no worker has named their zone for
	// 10 minutes. [Inbox.MoveZone] moves them.
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
		if !slices.ContainsFunc(names, func(n zoneName) bool { return n.served && (n.name == "" || inZone(z.name, n.name)) }) {
			c.Unserved[z.name] = z.waiting
		}
	}
	if oldest > 0 {
		c.Oldest = time.UnixMilli(oldest)
	}
	return c, err
}

// MoveZone lets the waiting payments of zone from, and of the zones that begin with it and
// "_", be handed out as those of zone to, and returns how many they were. The Delivery still
// has the ZoneID that Midas sent. The name from has no effect on later payments any more
// until a worker names it again.
func (b *Inbox) MoveZone(ctx context.Context, from, to string) (moved int64, err error) {
	if reason := checkKey(from) + checkKey(to); reason != "" {
		return 0, errors.New("midassql: MoveZone: " + reason)
	}
	err = b.store.inTx(ctx, func(tx *sql.Tx) error {
		condition, args := zoneCondition(from)
		result, err := tx.ExecContext(ctx, b.store.write("UPDATE midas_inbox SET zone = ? WHERE "+condition), append([]any{to}, args...)...)
		if err != nil {
			return err
		}
		if moved, err = result.RowsAffected(); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, b.store.sql.forgetZone, from)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("midassql: MoveZone: %w", err)
	}
	b.Wake()
	return moved, nil
}
