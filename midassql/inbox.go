package midassql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/midas-go/midas"
)

// What a work function of [Inbox.Work] may return besides nil and an ordinary error. An error that
// wraps one of them means the same.
var (
	// ErrAccepted says that the game has taken the payment over and not saved it yet. The
	// payment stays leased until the game calls [Inbox.Done], or [Inbox.Fail]; without either
	// it is handed out again when the lease ends. The player's next payment does not wait.
	ErrAccepted = errors.New("accepted, not saved yet")

	// ErrNotNow says that the payment cannot be handled now, and that this is not a failure:
	// the player is offline. It is offered again at the player's login by [Inbox.Waiting], and
	// by Work after a wait of a quarter of the payment's age, at least 5 s and at most 1 h.
	// [NotNow] says after what time instead.
	ErrNotNow = errors.New("not now")
)

const (
	minNotNow = time.Second
	maxNotNow = 24 * time.Hour
)

// NotNow returns an [ErrNotNow] that says when: Work offers the payment again after wait, by the
// database's clock. It is for a game that knows when the reason ends: a match, a maintenance. A wait under
// 1 s is taken as 1 s, so that a payment does not go in circles, and one above 24 h as 24 h, so that a
// mistaken unit does not hide a payment that the player has made. [Inbox.Waiting], at the player's login,
// does not wait for it. An error that wraps it means the same; of several in one error the first counts.
func NotNow(wait time.Duration) error {
	return &notNowError{min(max(wait, minNotNow), maxNotNow)}
}

type notNowError struct{ wait time.Duration }

func (e *notNowError) Error() string { return fmt.Sprintf("%v: again in %v", ErrNotNow, e.wait) }
func (e *notNowError) Unwrap() error { return ErrNotNow }

// What the methods of an [Inbox] report about a payment.
var (
	// ErrNoPayment: no payment with this openid and billno is stored.
	ErrNoPayment = errors.New("no such payment")

	// ErrCancelled: [Inbox.Cancel] or a refund in full took the payment back. If Done returns it, the items
	// were granted all the same, and support has to decide about them.
	ErrCancelled = errors.New("the payment was cancelled")

	// ErrRestored: the players were restored from a backup, [Inbox.Retry] hands the payment out
	// again, and this Done is about a save from before that.
	ErrRestored = errors.New("the payment was put back after a restore of the players")

	// ErrLeaseEnded is the cause (see [context.Cause]) that ends the context of a work
	// function shortly before its lease does.
	ErrLeaseEnded = errors.New("the lease on the payment ended")
)

// InboxOptions changes how an [Inbox] works. The zero value is right for a game without
// zones.
type InboxOptions struct {
	// Zones are the zones whose payments Work and Waiting hand out. A payment belongs to a
	// name if its zoneid is that name, or begins with it and "_" (zone_role, protocol.md 3, parameters);
	// among all names that any worker on this database has ever had, the longest one that
	// fits wins. A worker notices a longer name within a minute of its first use, and takes that
	// zone's payments until then: start the worker of such a zone a minute before its players pay.
	// After a merge of zones (合服) name them all. nil: every zone; empty and not nil is refused.
	Zones []string

	// Workers is how many payments Work handles at once; no two of them are one player's in one
	// zone. 0: 8.
	Workers int

	// Lease is how long a payment that was handed out belongs to its receiver, by the database's
	// clock. The context of a work function ends after five sixths of it. A game that
	// returns ErrAccepted sets more than the time between two saves. 0: 30 s; at least 1 s.
	Lease time.Duration

	// Poll is how often Work looks for payments without being woken: for those that other processes
	// stored, and those whose wait is over. 0: 1 s. On MySQL and MariaDB it looks again within 0.2 s
	// where the claims of others were in its way.
	Poll time.Duration

	// OnStored is optionally called after a payment was stored for the first time, to wake the
	// processes that work on it: a Redis PUBLISH, a NOTIFY; the process that receives it calls
	// [Inbox.Wake]. Deliver and Settle do not wait for it: it runs in a goroutine of its own, at most 64
	// at once, with a context of 2 s and a copy of the payment. While 64 are running it is not
	// called. A failure in it, even a panic, delays the payment by no more than Poll.
	OnStored func(ctx context.Context, d *midas.Delivery)
}

// An Inbox stores payments for players who live outside the database: in the memory of a zone
// server, in Redis, in MongoDB. [Inbox.Deliver] answers OK as soon as the payment is on disk;
// [Inbox.Work] and [Inbox.Waiting] hand it to the game until [Inbox.Done] says that it is
// saved.
//
//	inbox, err := store.Inbox(midassql.InboxOptions{Zones: []string{"1"}})
//	...
//	mux.Handle("/pay/notify", client.DeliveryHandler(inbox.Deliver)) // in the gateway
//	...
//	err = inbox.Work(ctx, func(ctx context.Context, d *midas.Delivery) error { // in the zone server
//		player := online(d.OpenID)
//		if player == nil {
//			return midassql.ErrNotNow
//		}
//		return player.SaveItems(ctx, midas.PaymentID(d.OpenID, d.BillNo), d.Items)
//	})
//
// # A payment may be handed out again
//
// A crash between the game's save and Done leaves a payment that is saved and waits. So the
// game saves the payment's id ([midas.PaymentID]) in the same write as the items. Where the record
// holds the id already, it adds no items, and saves the record all the same: docs/inbox.md says why.
// Without this the Inbox grants twice.
//
// A record keeps an id until the payment's Done is older than the oldest backup that the
// players would ever be restored from, and 30 days at least. Where players move to another zone
// (合服), the ids move with their records.
//
// The id keeps items from doubling; it does not keep a save from being overwritten by another
// process that holds the same player. Saves are atomic on the server, or conditional on the
// owner or the version that was loaded.
//
// # What is promised
//
// Nothing that was answered OK is lost, nothing that is done is handed out again (unless
// [Inbox.Retry] puts it back), and no two payments of one player in one zone are handed out at once. A
// payment that fails is tried again after 1 s, 2 s, 4 s … 10 min, and never holds up the
// player's next one. One that fails 72 h after it failed first is stuck, which is an alarm (see
// [Inbox.Counts]); it is still tried each hour and at login. Waiting payments are never
// deleted. Those that are due longest come first, within the zones whose names begin alike, so that
// absent players do not starve the others.
//
// An Inbox is safe for use by multiple goroutines, and by any number of processes on one
// database. It needs MySQL 8, MariaDB 10.6, PostgreSQL 12 or SQLite 3.35. A binary log of MySQL or MariaDB
// needs a binlog_format other than STATEMENT.
type Inbox struct {
	store *Store
	opts  InboxOptions  // every default filled in
	owner int64         // of leases; not 0
	hooks chan struct{} // holds one for each OnStored that runs

	mu         sync.Mutex
	generation int64                 // what Retry had begun when this Inbox was first used; -1: not used yet
	reopened   map[paymentID]int64   // the generation of payments that were put back since then and handed out here
	handed     map[paymentID]handOut // for Fail
	cleared    int64                 // when handed was last cleared, by the database's clock
	others     []string              // names of other workers' zones inside this Inbox's own
	zonesSeen  time.Time             // when others was read
}

type paymentID struct{ openID, billNo string }

// Inbox returns an Inbox on the Store's payments. The Inboxes of a Store, and [Store.Once],
// may work side by side: what Once granted is done, and Once grants nothing for a payment that
// waits. It does not use the database yet. The error names each option that is out of its range.
func (s *Store) Inbox(opts InboxOptions) (*Inbox, error) {
	if opts.Workers == 0 {
		opts.Workers = 8
	}
	if opts.Lease == 0 {
		opts.Lease = 30 * time.Second
	}
	if opts.Poll == 0 {
		opts.Poll = time.Second
	}
	opts.Zones = slices.Clone(opts.Zones)
	if err := opts.check(); err != nil {
		return nil, fmt.Errorf("midassql: Inbox: %w", err)
	}
	return &Inbox{store: s, opts: opts, owner: 1 + rand.Int64N(1<<62), hooks: make(chan struct{}, maxHooks),
		generation: -1, reopened: make(map[paymentID]int64), handed: make(map[paymentID]handOut)}, nil
}

func (opts InboxOptions) check() error {
	var wrong []error
	refuse := func(format string, args ...any) { wrong = append(wrong, fmt.Errorf(format, args...)) }
	if opts.Zones != nil && len(opts.Zones) == 0 {
		refuse("InboxOptions.Zones is empty and not nil: want names, or nil for every zone")
	}
	for i, zone := range opts.Zones {
		if reason := checkKey(zone); reason != "" {
			refuse("InboxOptions.Zones[%d]: %s", i, reason)
		}
	}
	if opts.Workers < 0 {
		refuse("InboxOptions.Workers is %d: want 1 or more, or 0 for 8", opts.Workers)
	}
	if opts.Lease < time.Second {
		refuse("InboxOptions.Lease is %v: want 1s or more, or 0 for 30s", opts.Lease)
	}
	if opts.Poll < 0 {
		refuse("InboxOptions.Poll is %v: want more than 0, or 0 for 1s", opts.Poll)
	}
	return errors.Join(wrong...)
}

// Deliver is a [midas.DeliverFunc]: it compares the payment with the stored order and stores it
// as waiting, in one transaction. nil means that it is on disk. A payment that was stored
// before is nil again and not handed out again. The errors are those of [Store.Once].
func (b *Inbox) Deliver(ctx context.Context, d *midas.Delivery) error {
	stored, err := b.store.record(ctx, d, entry{state: storedWaiting}, b.store.insertWaiting)
	if err != nil {
		return fmt.Errorf("midassql: Deliver: %w", err)
	}
	if stored {
		b.stored(ctx, d)
	}
	return nil
}

func (s *Store) insertWaiting(ctx context.Context, tx *sql.Tx, d *midas.Delivery) error {
	_, err := tx.ExecContext(ctx, s.sql.insertWaiting, d.OpenID, d.BillNo, zoneOf(d.ZoneID), base(zoneOf(d.ZoneID)), 0)
	return err
}

const (
	maxHooks = 64
	hookTime = 2 * time.Second
)

// stored wakes the workers for d. A hook must not cost the answer: the payment is on disk.
func (b *Inbox) stored(ctx context.Context, d *midas.Delivery) {
	b.store.wakeZone(zoneOf(d.ZoneID))
	if b.opts.OnStored == nil {
		return
	}
	select {
	case b.hooks <- struct{}{}:
	default:
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), hookTime)
	hooked := *d // the caller goes on with d
	hooked.Items, hooked.Params, hooked.Numbers = slices.Clone(d.Items), slices.Clone(d.Params), slices.Clone(d.Numbers)
	go func() {
		defer func() {
			if cause := recover(); cause != nil {
				b.store.log(ctx, "midassql: InboxOptions.OnStored panicked",
					slog.String("openid", hooked.OpenID), slog.String("billno", hooked.BillNo), slog.String("panic", fmt.Sprint(cause)))
			}
			cancel()
			<-b.hooks
		}()
		b.opts.OnStored(ctx, &hooked)
	}()
}

// Done says that the items of a payment are saved, with the payment's id. The payment is not
// handed out again. Done is idempotent, and counts whenever and from wherever it comes, also
// after the lease was lost.
//
// It returns [ErrNoPayment], [ErrCancelled], [ErrBroken], or [ErrRestored] if [Inbox.Retry] has put the payment
// into a new generation since this Inbox last handed it out; an Inbox that never did counts from its
// own first use. After any other error call it again; until then the payment may be handed out
// again, and the saved id keeps it from doubling.
func (b *Inbox) Done(ctx context.Context, openID, billNo string) error {
	if err := b.done(ctx, paymentID{openID, billNo}); err != nil {
		return fmt.Errorf("midassql: Done: %w", err)
	}
	return nil
}

func (b *Inbox) done(ctx context.Context, id paymentID) error {
	results, err := b.doneAll(ctx, []paymentID{id})
	if err != nil {
		return err
	}
	b.mu.Lock()
	delete(b.handed, id)
	b.mu.Unlock()
	return results[0]
}

// doneAll is Done for several payments in one transaction. results holds, for each payment, why it is
// refused, or nil.
func (b *Inbox) doneAll(ctx context.Context, ids []paymentID) (results []error, err error) {
	generations := make([]int64, len(ids))
	for i, id := range ids {
		if generations[i], err = b.generationOf(ctx, id); err != nil {
			return nil, err
		}
	}
	results = make([]error, len(ids))
	return results, b.store.inTx(ctx, func(tx *sql.Tx) error {
		for i, id := range ids {
			if results[i], err = b.doneOne(ctx, tx, id, generations[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

func (b *Inbox) doneOne(ctx context.Context, tx *sql.Tx, id paymentID, generation int64) (result, err error) {
	done, err := changed(ctx, tx, b.store.sql.donePayment, id.openID, id.billNo, generation)
	if err != nil {
		return nil, err
	}
	if done {
		_, err := tx.ExecContext(ctx, b.store.sql.removeWaiting, id.openID, id.billNo)
		return nil, err
	}
	p, err := b.store.state(ctx, tx, id)
	switch {
	case errors.Is(err, ErrNoPayment):
		return err, nil
	case err != nil:
		return nil, err
	case p.state == storedNoted:
		return ErrNoPayment, nil
	case p.state == storedCancelled:
		if _, err := tx.ExecContext(ctx, b.store.sql.mayHave, id.openID, id.billNo); err != nil {
			return nil, err
		}
		why := p.note
		if p.full {
			why = "refunded in full"
		}
		return fmt.Errorf("%w: %s", ErrCancelled, why), b.store.storeDoneAfterCancel(ctx, tx, id, why)
	case p.generation > generation:
		return ErrRestored, nil
	case p.state == storedBroken:
		return ErrBroken, nil
	}
	return nil, nil // done before
}

// generationOf returns the generation that a Done of this Inbox is about.
func (b *Inbox) generationOf(ctx context.Context, id paymentID) (int64, error) {
	if err := b.begin(ctx); err != nil {
		return 0, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if generation, ok := b.reopened[id]; ok {
		return generation, nil
	}
	return b.generation, nil
}

// begin reads the generation in which this Inbox begins, the first time.
func (b *Inbox) begin(ctx context.Context) error {
	b.mu.Lock()
	begun := b.generation >= 0
	b.mu.Unlock()
	if begun {
		return nil
	}
	var generation int64
	err := b.store.look(ctx, func(tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, b.store.sql.meta, "generation").Scan(&generation)
	})
	b.mu.Lock()
	defer b.mu.Unlock()
	if err == nil && b.generation < 0 {
		b.generation = generation
	}
	return err
}

// A paymentState is the part of a row that decides what may be done with the payment.
type paymentState struct {
	state             int
	generation        int64
	note              string
	refunded, charged midas.Amount
	full              bool // refunded in full
}

func (s *Store) state(ctx context.Context, tx *sql.Tx, id paymentID) (p paymentState, err error) {
	statement, args := s.inline(s.sql.paymentState, id.openID, id.billNo)
	err = tx.QueryRowContext(ctx, statement, args...).Scan(&p.state, &p.generation, &p.note, &p.refunded, &p.charged, &p.full)
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrNoPayment
	}
	return p, err
}

// handedOut locks the row of a waiting payment, so that no worker takes it meanwhile, and reports whether
// one may have handed it to the game. waiting is whether there is such a row.
func (s *Store) handedOut(ctx context.Context, tx *sql.Tx, id paymentID) (may, waiting bool, err error) {
	statement, args := s.inline(s.sql.handedOut, id.openID, id.billNo)
	err = tx.QueryRowContext(ctx, statement, args...).Scan(&may)
	if errors.Is(err, sql.ErrNoRows) {
		return false, false, nil
	}
	return may, err == nil, err
}

// takeBack removes a payment that was just cancelled, or imported, from the queue. The row of a cancelled one keeps
// whether the player may have the items.
func (s *Store) takeBack(ctx context.Context, tx *sql.Tx, id paymentID) (may, waiting bool, err error) {
	if may, waiting, err = s.handedOut(ctx, tx, id); err != nil || !waiting {
		return may, waiting, err
	}
	if may {
		if _, err := tx.ExecContext(ctx, s.sql.mayHave, id.openID, id.billNo); err != nil {
			return may, waiting, err
		}
	}
	_, err = tx.ExecContext(ctx, s.sql.removeWaiting, id.openID, id.billNo)
	return may, waiting, err
}

// Cancel takes a waiting payment back, for a refund: it is not handed out any more. The
// reason is kept with the payment, at most 255 bytes; [By] says who. A payment that is done already, not stored
// ([ErrNoPayment]) or broken ([ErrBroken]) is an error, and so are openID and billNo with white space or
// invisible characters, or a billNo that is not ASCII (a [*midas.FieldError]). If it is being handled at this
// moment, the Done that follows returns [ErrCancelled]. Payment.MayHave says afterwards whether the player may
// have the items all the same: look at it before you refund.
func (b *Inbox) Cancel(ctx context.Context, openID, billNo, reason string) error {
	if err := b.cancel(ctx, paymentID{openID, billNo}, reason); err != nil {
		return fmt.Errorf("midassql: Cancel: %w", err)
	}
	return nil
}

func (b *Inbox) cancel(ctx context.Context, id paymentID, reason string) (err error) {
	if err := checkTyped(id.openID, id.billNo, "", ""); err != nil {
		return err
	}
	for range 10 { // a payment comes once, so a second round is the last one unless Retry puts it back meanwhile
		err = b.store.inTx(ctx, func(tx *sql.Tx) error { return b.cancelIn(ctx, tx, id, reason) })
		if !errors.Is(err, errStoredBefore) {
			break
		}
	}
	return err
}

func (b *Inbox) cancelIn(ctx context.Context, tx *sql.Tx, id paymentID, reason string) error {
	cancelled, err := changed(ctx, tx, b.store.sql.cancelPayment, clip(reason), id.openID, id.billNo)
	if err != nil {
		return err
	}
	if cancelled {
		if _, _, err := b.store.takeBack(ctx, tx, id); err != nil {
			return err
		}
		return b.store.storeAct(ctx, tx, b.store.newAct(ctx, ActCancel, reason), id)
	}
	p, err := b.store.state(ctx, tx, id)
	switch {
	case err != nil:
		return err
	case p.state == storedWaiting:
		return errStoredBefore // after the UPDATE
	case p.state == storedNoted:
		return ErrNoPayment
	case p.state == storedDone:
		return errors.New("the payment is done: the player has the items")
	case p.state == storedBroken:
		return ErrBroken
	}
	return nil // cancelled before
}
