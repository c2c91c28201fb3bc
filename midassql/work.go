package midassql

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/midas-go/midas"
)

// Work hands waiting payments to work until ctx ends, up to InboxOptions.Workers at once, and
// then waits for those to return. It returns ctx.Err(). While the database fails it logs and
// goes on.
//
// work may be called again for a payment that it has handled: see [Inbox]. What it returns
// decides:
//
//   - nil: the items and the payment's id are saved. Work calls Done.
//   - [ErrAccepted]: the game will save, and call Done itself.
//   - [ErrNotNow] or [NotNow]: later; no attempt is counted.
//   - anything else, a panic, or a lease that ends: an attempt failed, the next one follows
//     after a wait. If ctx ended meanwhile, it counts as no attempt, and the payment is due
//     at once.
//
// The context of work ends with ctx and shortly before the lease does. d.Params and
// d.Numbers are nil; the rest of d is what the callback said.
func (b *Inbox) Work(ctx context.Context, work func(ctx context.Context, d *midas.Delivery) error) error {
	switch {
	case ctx == nil:
		return fmt.Errorf("midassql: Work: %w", errNilContext)
	case work == nil:
		return errors.New("midassql: Work: work is nil")
	}
	wake := b.store.subscribe(b)
	defer b.store.unsubscribe(wake)
	finished := make(chan struct{}, b.opts.Workers)
	saved := make(chan savedPayment, b.opts.Workers)
	defer close(saved)
	go b.storeSaved(saved)
	poll := time.NewTimer(0)
	defer poll.Stop()

	free := b.opts.Workers
	var named time.Time
	for ctx.Err() == nil {
		if now := b.store.opts.Now(); named.IsZero() || now.Sub(named) >= zonesEvery {
			if err := b.nameZones(ctx); err != nil {
				b.store.log(ctx, "midassql: Work cannot name its zones; it tries again with the next look", slog.Any("error", err))
			} else {
				named = now
			}
		}
		for range len(finished) {
			<-finished
			free++
		}
		// A payment hides the others of its player until it is finished; those of other players do not need a
		// look then, which would cost more than the payment where each of many zones has few.
		more, hides, crowded := false, free < b.opts.Workers, false
		if free > 0 {
			began := time.Now()
			claims, leased, fewer, err := b.claim(ctx, free, b.due)
			if err != nil {
				b.store.log(ctx, "midassql: Work cannot claim payments; it goes on trying", slog.Any("error", err))
			}
			more, crowded = len(leased) == free, fewer
			hides = hides || len(claims) < len(leased)
			free -= len(claims)
			for _, c := range claims {
				hides = hides || c.others
				go func() {
					defer func() { finished <- struct{}{} }()
					b.handle(ctx, work, c, began, saved)
				}()
			}
		}
		if more && free == 0 {
			select {
			case <-finished:
				free++
			case <-ctx.Done():
			}
			continue
		}
		shows := finished
		if !hides {
			shows = nil
		}
		wait := b.opts.Poll
		if crowded { // what is left is behind rows that others are about to lease
			wait = min(wait, maxWait)
		}
		poll.Reset(wait)
		select {
		case <-shows: // the player's next payment may be due
			free++
		case <-wake:
		case <-poll.C:
		case <-ctx.Done():
		}
	}
	for ; free < b.opts.Workers; free++ {
		<-finished
	}
	return ctx.Err()
}

// Wake lets each Work of this Inbox, and of no other, look for payments now. It does not block.
func (b *Inbox) Wake() { b.store.wake(func(of *Inbox) bool { return of == b }) }

func (s *Store) subscribe(b *Inbox) chan struct{} {
	wake := make(chan struct{}, 1)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wakeups[wake] = b
	return wake
}

func (s *Store) unsubscribe(wake chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.wakeups, wake)
}

// wake wakes the Works of those Inboxes that have something to look for. Every look is a transaction: one
// process may work on a hundred zones, and a payment is for one of them.
func (s *Store) wake(those func(*Inbox) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for wake, b := range s.wakeups {
		if !those(b) {
			continue
		}
		select {
		case wake <- struct{}{}:
		default: // it is awake
		}
	}
}

func (s *Store) wakeZone(zoneid string) {
	s.wake(func(b *Inbox) bool { return b.serves(zoneid) })
}

// handle lets work handle a payment that was leased after began, and stores what became of it.
func (b *Inbox) handle(ctx context.Context, work func(context.Context, *midas.Delivery) error, c claim, began time.Time, saved chan<- savedPayment) {
	leased, cancel := context.WithDeadlineCause(ctx, began.Add(b.opts.Lease/6*5), ErrLeaseEnded)
	defer cancel()
	b.remember(c, true)
	result := protected(leased, work, c.delivery)
	if !errors.Is(result, ErrAccepted) {
		b.forget(c)
	}
	finish, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishTime)
	defer cancel()

	var err error
	switch {
	case result == nil:
		stored := make(chan error, 1)
		saved <- savedPayment{c.id, stored}
		err = <-stored
	case errors.Is(result, ErrAccepted):
		b.accepted(c)
		err = b.accept(finish, c)
	case errors.Is(result, ErrNotNow):
		err = b.notNow(finish, c, result)
	case ctx.Err() != nil:
		err = b.release(finish, c, 0, interrupted)
	default:
		err = b.failed(finish, c, result)
	}
	var message string
	switch {
	case err == nil:
		return
	case errors.Is(err, ErrCancelled):
		message = "midassql: a payment was granted although it had been cancelled: decide whether the player keeps the items"
	case errors.Is(err, ErrRestored):
		message = "midassql: a payment was saved before the players were restored; it is handed out again"
	default:
		message = "midassql: what became of a payment could not be stored; unless it is done or gone, it is handed out again when its lease ends"
	}
	b.store.log(ctx, message,
		slog.String("openid", c.id.openID), slog.String("billno", c.id.billNo), slog.Any("result", result), slog.Any("error", err))
}

// A savedPayment is a payment that work has saved, and that waits for its Done.
type savedPayment struct {
	id     paymentID
	stored chan<- error
}

// storeSaved calls Done for what work has saved, in one transaction for all payments that came while
// the previous one was being committed.
func (b *Inbox) storeSaved(saved <-chan savedPayment) {
	for first := range saved {
		batch := []savedPayment{first}
		for range len(saved) {
			batch = append(batch, <-saved)
		}
		ids := make([]paymentID, len(batch))
		for i, p := range batch {
			ids[i] = p.id
		}
		ctx, cancel := context.WithTimeout(context.Background(), finishTime)
		results, err := b.doneAll(ctx, ids)
		cancel()
		for i, p := range batch {
			if err == nil {
				p.stored <- results[i]
			} else {
				p.stored <- err
			}
		}
	}
}

// protected returns work's panic as an error.
func protected(ctx context.Context, work func(context.Context, *midas.Delivery) error, d *midas.Delivery) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return work(ctx, d)
}
