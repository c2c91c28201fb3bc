package midassql

import (
	"context"
	"errors"
	"iter"
	"time"

	"github.com/midas-go/midas"
)

// What the function of [Inbox.Work] may return besides nil and a failure. Errors that wrap
// them mean the same.
var (
	// ErrAccepted says that the game has taken the payment over and not saved it yet. The
	// payment stays leased until the game calls [Inbox.Done], or [Inbox.Fail]; without either
	// it is handed out again when the lease ends. The player's next payment does not wait.
	ErrAccepted = errors.New("midassql: accepted, not saved yet")

	// ErrNotNow says that the payment cannot be handled now, and that this is no failure:
	// the player is offline. It is offered again at the player's login by [Inbox.Waiting], and
	// by Work after a quarter of its age, at least 5 s and at most 1 h.
	ErrNotNow = errors.New("midassql: not now")
)

// What Inbox's methods report about a payment.
var (
	// ErrNoPayment: no payment with this openid and billno is stored.
	ErrNoPayment = errors.New("midassql: no such payment")

	// ErrCancelled: [Inbox.Cancel] took the payment back. If Done returns it, the items were
	// granted all the same, and somebody has to decide about them.
	ErrCancelled = errors.New("midassql: the payment was cancelled")

	// ErrRestored: [Inbox.Retry] handed the payment out again because the players were
	// restored from a backup, and this Done is about a save from before that.
	ErrRestored = errors.New("midassql: the payment was put back after a restore of the players")

	// ErrLeaseEnded is the cause (see [context.Cause]) that ends the context of a work
	// function shortly before its lease does.
	ErrLeaseEnded = errors.New("midassql: the lease on the payment ended")
)

// InboxOptions changes how an [Inbox] works. The zero value is right for a game without
// zones.
type InboxOptions struct {
	// Zones are the zones whose payments Work and Waiting hand out. A payment belongs to a
	// name if its zoneid is that name, or begins with it and "_" (zone_role, protocol.md 3);
	// among all names that any worker on this database has ever had, the longest one that
	// fits wins. After a merge of zones (合服) name them all. nil: every zone.
	Zones []string

	// Workers is how many payments Work handles at once; each is another player's. 0: 8.
	Workers int

	// Lease is how long a payment belongs to whom it was handed out to, by the database's
	// clock. The context of a work function ends after five sixths of it. A game that
	// returns ErrAccepted sets more than the time between two saves. 0: 30 s; at least 1 s.
	Lease time.Duration

	// Poll is how often Work looks for payments that nothing woke it up for: those of other
	// processes, and those whose wait is over. 0: 5 s.
	Poll time.Duration

	// OnStored is optionally called by Deliver after a payment was stored for the first time,
	// to wake the processes that work on it: a Redis PUBLISH, a NOTIFY; whoever receives that
	// calls [Inbox.Wake]. It is called before OK is answered and has until ctx ends. What
	// goes wrong in it delays the payment by no more than Poll.
	OnStored func(ctx context.Context, d *midas.Delivery)
}

// An Inbox stores payments for players who live outside the database: in the memory of a zone
// server, in Redis, in MongoDB. [Inbox.Deliver] answers OK as soon as the payment is on disk;
// [Inbox.Work] and [Inbox.Waiting] hand it to the game until [Inbox.Done] says that it is
// saved.
//
//	inbox := store.Inbox(midassql.InboxOptions{Zones: []string{"1"}})
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
// game saves the payment's id ([midas.PaymentID]) in the same write as the items, and a
// payment whose id the record holds is done already: return nil and change nothing. Without
// this the Inbox grants twice.
//
// A record keeps an id until the payment's Done is older than the oldest backup that the
// players would ever be restored from, and 30 days at least.
//
// The id keeps items from doubling; it does not keep a save from being overwritten by another
// process that holds the same player. Saves are atomic on the server, or conditional on the
// owner or the version that was loaded.
//
// # What is promised
//
// Nothing that was answered OK is lost, nothing that is done is handed out again (but see
// [Inbox.Retry]), and no two payments of one player in one zone are handed out at once. A
// payment that fails is tried again after 1 s, 2 s, 4 s … 10 min, and never holds up the
// player's next one. One that has failed for 72 h is stuck, which is an alarm (see
// [Inbox.Counts]); it is still tried each hour and at login. Waiting payments are never
// deleted. Those that are due longest come first, so that absent players do not
// starve the others.
//
// An Inbox is safe for use by multiple goroutines, and by any number of processes on one
// database. It needs MySQL 8, MariaDB 10.6, PostgreSQL 12 or SQLite 3.35.
type Inbox struct {
	store *Store
	opts  InboxOptions
}

// Inbox returns an Inbox on the Store's payments. The Inboxes of a Store, and [Store.Once],
// may work side by side: what Once granted is done, and of a payment that waits Once grants
// nothing. It panics if an option is out of its range.
func (s *Store) Inbox(opts InboxOptions) *Inbox {
	return &Inbox{store: s, opts: opts}
}

var errNotYet = errors.New("midassql: the Inbox is not written yet")

// Deliver is a [midas.DeliverFunc]: it compares the payment with the stored order and stores it
// as waiting, in one transaction. nil means that it is on disk. A payment that was stored
// before is nil again and not handed out again. The errors are those of [Store.Once].
func (b *Inbox) Deliver(ctx context.Context, d *midas.Delivery) error { return errNotYet }

// Work hands waiting payments to work until ctx ends, up to InboxOptions.Workers at once, and
// then waits for those to return. It returns ctx.Err(). While the database fails it logs and
// goes on.
//
// work may be called again for a payment that it has handled: see [Inbox]. What it returns
// decides:
//
//   - nil: the items and the payment's id are saved. Work calls Done.
//   - [ErrAccepted]: the game will save, and call Done itself.
//   - [ErrNotNow]: later; no attempt is counted.
//   - anything else, a panic, or a lease that ends: an attempt failed, the next one follows
//     after a wait. If ctx ended meanwhile, it counts as no attempt, and the payment is due
//     at once.
//
// The context of work ends with ctx and shortly before the lease does. d.Params is nil; the
// rest of d is what the callback said.
func (b *Inbox) Work(ctx context.Context, work func(ctx context.Context, d *midas.Delivery) error) error {
	return errNotYet
}

// Waiting yields the payments of a player that wait in the Inbox's zones, for the moment when
// the player has logged in. Each is leased when it is yielded, as if [ErrAccepted] had
// been returned for it: grant, save together with the id, and call [Inbox.Done] (or
// [Inbox.Fail]). It ignores waits, and yields stuck payments too. One that somebody else has a
// lease on is left out; Work gets it when that lease ends. An error, also that of
// ctx, comes as the last pair.
func (b *Inbox) Waiting(ctx context.Context, openID string) iter.Seq2[*midas.Delivery, error] {
	return func(yield func(*midas.Delivery, error) bool) { yield(nil, errNotYet) }
}

// Done says that the items of a payment are saved, with the payment's id. The payment is not
// handed out again. Done is idempotent, and counts whenever and from wherever it comes, also
// after the lease was lost.
//
// It returns [ErrNoPayment], [ErrCancelled], or [ErrRestored] where the payment was put back by
// [Inbox.Retry] after this Inbox had handed it out, or, if it did not, after the first use of
// this Inbox. After any other error call it again; until then the payment may be handed out
// again, and the saved id keeps it from doubling.
func (b *Inbox) Done(ctx context.Context, openID, billNo string) error { return errNotYet }

// Fail says that a payment which was accepted, or came from Waiting, could not be handled:
// it is tried again as if work had returned cause. With [ErrNotNow] no attempt is counted. It
// does nothing if this Inbox has no lease on the payment any more.
func (b *Inbox) Fail(ctx context.Context, openID, billNo string, cause error) error { return errNotYet }

// Wake lets a Work of this Inbox look for payments now. It does not block.
func (b *Inbox) Wake() {}

// Cancel takes a waiting payment back, for a refund: it is not handed out any more. The
// reason is kept with the payment, at most 255 bytes. A payment that is done already, or not
// stored, is an error. If it is being handled at this moment, the Done that follows returns
// [ErrCancelled].
func (b *Inbox) Cancel(ctx context.Context, openID, billNo, reason string) error { return errNotYet }

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
func (b *Inbox) Retry(ctx context.Context, opts RetryOptions) (int64, error) { return 0, errNotYet }

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
func (b *Inbox) Counts(ctx context.Context) (InboxCounts, error) { return InboxCounts{}, errNotYet }

// MoveZone lets the waiting payments of zone from, and of the zones that begin with it and
// "_", be handed out as those of zone to, and returns how many they were. The Delivery still
// has the ZoneID that Midas sent. The name from has no effect on later payments any more
// until a worker names it again.
func (b *Inbox) MoveZone(ctx context.Context, from, to string) (int64, error) { return 0, errNotYet }
