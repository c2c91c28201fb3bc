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
	"sync"
	"time"

	"github.com/midas-go/midas"
)

// An Attempt is a verified callback that was not answered OK, or whose answer Midas may not have got.
type Attempt struct {
	OpenID, BillNo, Token string
	Time                  time.Time     // by Options.Now, to the millisecond
	Outcome               midas.Outcome // midas.Failed, midas.TimedOut …
	Ret                   int           // as answered; of a late one, what it would have been
	Late                  bool          // the DeliverFunc returned after ret 1 had been answered: with Ret 0 the items are granted
	Error                 string        // at most 255 bytes

	id int64
}

const (
	attemptsKept      = 30 * 24 * time.Hour // unless Options.AttemptsKept says otherwise
	attemptsOfPayment = 5
	attemptsInMemory  = 1000 // which the database does not have yet
	attemptsBatch     = 100  // in one transaction

	// attemptsTime limits the transaction that stores a batch, so that it gives its connection back to
	// the callbacks.
	attemptsTime     = 500 * time.Millisecond
	lastAttemptsWait = 30 * time.Second
	purgeEvery       = time.Hour
)

// attempts are what OnCallback took and the database does not have yet.
type attempts struct {
	mu     sync.Mutex
	queue  []*Attempt
	missed int           // dropped since the last batch, because the queue was full
	stored chan struct{} // closed when the queue is empty; nil: it is, and nobody writes
	hurry  chan struct{} // somebody waits: try again now

	purged time.Time // by Options.Now; only the goroutine that writes uses it
}

// OnCallback goes into [midas.Config].OnCallback, by itself or called from there: it keeps the verified
// callbacks that were not answered OK, for [Store.Attempts].
//
// It never waits, and nothing about an answer depends on it. The attempts are stored in batches, in
// transactions of their own, by one goroutine that takes one connection of the pool, and only while the pool
// has one to spare. While the database fails, the newest 1000 are kept in memory. [Store.Wait] waits for them.
func (s *Store) OnCallback(e midas.CallbackEvent) {
	switch {
	case s.opts.AttemptsKept < 0, e.OpenID == "" && e.BillNo == "": // not verified, or nobody's
		return
	case e.Outcome == midas.Delivered && !e.Late:
		return
	}
	a := &Attempt{OpenID: clip(e.OpenID), BillNo: clip(e.BillNo), Token: clip(e.Token), Time: s.opts.Now(),
		Outcome: e.Outcome, Ret: e.Ret, Late: e.Late, id: rand.Int64()}
	if e.Err != nil {
		a.Error = clip(fmt.Sprint(e.Err)) // Sprint survives an Error method that panics
	}
	q := &s.attempts
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.queue) == attemptsInMemory {
		q.queue = q.queue[1:]
		q.missed++
	}
	q.queue = append(q.queue, a)
	if q.stored == nil {
		select {
		case <-q.hurry: // of a Wait that is over
		default:
		}
		q.stored = make(chan struct{})
		go s.storeQueue()
	}
}

// Wait returns once everything that OnCallback took is stored, or an error when ctx ends first. For a
// graceful shutdown call it after [midas.Client.Wait] and before the database is closed.
func (s *Store) Wait(ctx context.Context) error {
	q := &s.attempts
	q.mu.Lock()
	stored := q.stored
	q.mu.Unlock()
	if stored == nil {
		return nil
	}
	select {
	case q.hurry <- struct{}{}:
	default:
	}
	select {
	case <-stored:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("midassql: Wait: %w", ctx.Err())
	}
}

// next returns what to store next. It ends the writing if there is nothing.
func (q *attempts) next() (batch []*Attempt, missed int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.queue) == 0 {
		close(q.stored)
		q.stored, q.queue = nil, nil
		return nil, 0
	}
	n := min(len(q.queue), attemptsBatch)
	batch, q.queue = q.queue[:n:n], q.queue[n:]
	missed, q.missed = q.missed, 0
	return batch, missed
}

// storeQueue stores what OnCallback took until there is nothing left.
func (s *Store) storeQueue() {
	ctx := context.Background() // no callback's: those have been answered
	for {
		batch, missed := s.attempts.next()
		if batch == nil {
			return
		}
		if missed > 0 {
			s.logAt(ctx, slog.LevelWarn, "midassql: attempts were dropped because the database did not take them in time", slog.Int("missed", missed))
		}
		logged := false
		for wait := firstWait; ; wait = min(max(2*wait, firstWait), lastAttemptsWait) {
			err := s.storeBatch(ctx, batch)
			if err == nil {
				break
			}
			if !logged && !errors.Is(err, errNoneToSpare) {
				logged = true
				s.logAt(ctx, slog.LevelWarn, "midassql: attempts cannot be stored; it goes on trying", slog.Any("error", err))
			}
			timer := time.NewTimer(wait)
			select {
			case <-timer.C:
			case <-s.attempts.hurry:
				timer.Stop()
				wait = 0
			}
		}
		if err := s.purgeOld(ctx); err != nil {
			s.logAt(ctx, slog.LevelWarn, "midassql: old attempts cannot be deleted; it tries again in an hour", slog.Any("error", err))
		}
	}
}

// purgeOld deletes the attempts that are too old, once an hour. While new ones wait, or Wait does, it stops
// after a batch and goes on after the next ones.
func (s *Store) purgeOld(ctx context.Context) (err error) {
	defer recovered(&err)
	now := s.opts.Now()
	if now.Sub(s.attempts.purged) < purgeEvery {
		return nil
	}
	for more := true; err == nil && more; {
		more, err = s.purgeBatch(ctx)
		if err == nil && more && s.attempts.hasMore() {
			return nil
		}
	}
	s.attempts.purged = now
	return err
}

func (s *Store) purgeBatch(ctx context.Context) (more bool, err error) {
	defer recovered(&err)
	ctx, cancel := context.WithTimeout(ctx, attemptsTime)
	defer cancel()
	return s.purgeAttempts(ctx)
}

// hasMore reports whether there is more to store, or somebody waits for the end.
func (q *attempts) hasMore() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.queue) > 0 || len(q.hurry) > 0
}

// recovered makes an error of the panic of a driver, of Options.Classify or of Options.Now: in the goroutine
// of storeQueue it would end the process.
func recovered(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("panic: %v", p)
	}
}

// errNoneToSpare: each connection of the pool, or each but one, is in use.
var errNoneToSpare = errors.New("no connection to spare")

func (s *Store) storeBatch(ctx context.Context, batch []*Attempt) (err error) {
	defer recovered(&err)
	if pool := s.db.Stats(); pool.MaxOpenConnections > 0 && pool.InUse >= max(pool.MaxOpenConnections-1, 1) {
		return errNoneToSpare
	}
	ctx, cancel := context.WithTimeout(ctx, attemptsTime)
	defer cancel()
	return s.inTx(ctx, func(tx *sql.Tx) error {
		payments := make(map[paymentID]bool)
		for _, a := range batch {
			payments[paymentID{a.OpenID, a.BillNo}] = true
			if _, err := tx.ExecContext(ctx, s.sql.insertAttempt, a.OpenID, a.BillNo, a.id, a.Token, a.Time.UnixMilli(),
				clip(string(a.Outcome)), a.Ret, bit(a.Late), a.Error); err != nil {
				return err
			}
		}
		for id := range payments {
			if err := s.keepLast(ctx, tx, id); err != nil {
				return err
			}
		}
		return nil
	})
}

// keepLast deletes all but the last attempts of a payment.
func (s *Store) keepLast(ctx context.Context, tx *sql.Tx, id paymentID) error {
	statement, args := s.inline(s.sql.olderAttempts, id.openID, id.billNo)
	older, err := query(ctx, tx, func(rows *sql.Rows) (n int64, err error) { return n, rows.Scan(&n) }, statement, args...)
	if err != nil {
		return err
	}
	for _, n := range older {
		if _, err := tx.ExecContext(ctx, s.sql.deleteAttempt, id.openID, id.billNo, n); err != nil {
			return err
		}
	}
	return nil
}

// purgeAttempts deletes some of the attempts that are too old, and reports whether there may be more.
func (s *Store) purgeAttempts(ctx context.Context) (more bool, err error) {
	type attempt struct {
		paymentID
		id int64
	}
	var old []attempt
	err = s.look(ctx, func(tx *sql.Tx) (err error) {
		old, err = query(ctx, tx, func(rows *sql.Rows) (a attempt, err error) {
			return a, rows.Scan(&a.openID, &a.billNo, &a.id)
		}, s.sql.oldAttempts, s.opts.Now().Add(-max(s.opts.AttemptsKept, 0)).UnixMilli(), attemptsBatch)
		return err
	})
	if err != nil || len(old) == 0 {
		return false, err
	}
	return len(old) == attemptsBatch, s.inTx(ctx, func(tx *sql.Tx) error {
		for _, a := range old {
			if _, err := tx.ExecContext(ctx, s.sql.deleteAttempt, a.openID, a.billNo, a.id); err != nil {
				return err
			}
		}
		return nil
	})
}

const attemptColumns = `openid, billno, id, token, tried_ms, outcome, ret, late, error`

// Attempts iterates over the attempts that q asks for, oldest first: by OpenID, BillNo or Token, or those
// of a time range. The other fields of a Query are not an attempt's. The last five of each payment are
// kept, for Options.AttemptsKept. An error, including that of ctx, comes as the last pair.
func (s *Store) Attempts(ctx context.Context, q Query) iter.Seq2[*Attempt, error] {
	return pages(ctx, s.look, "Attempts", func(tx *sql.Tx, last **Attempt) ([]*Attempt, error) {
		w, err := q.where(attemptRows)
		if err != nil {
			return nil, err
		}
		if last != nil {
			at := (*last).Time.UnixMilli()
			w.and("a.tried_ms >= ? AND (a.tried_ms > ? OR a.id > ?)", at, at, (*last).id)
		}
		return query(ctx, tx, scanAttempt, s.write(`SELECT `+attemptColumns+` FROM midas_attempts a WHERE `+w.sql+
			` ORDER BY `+w.time+`, a.id LIMIT `+strconv.Itoa(pageSize)), w.args...)
	})
}

func scanAttempt(rows *sql.Rows) (*Attempt, error) {
	var (
		a     Attempt
		tried int64
	)
	err := rows.Scan(&a.OpenID, &a.BillNo, &a.id, &a.Token, &tried, &a.Outcome, &a.Ret, &a.Late, &a.Error)
	a.Time = time.UnixMilli(tried)
	return &a, err
}
