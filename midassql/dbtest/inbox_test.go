package dbtest

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midassql"
	"github.com/midas-go/midas/midassql/dbtest/testdb"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// stored stores payments of a player with orders of their own.
func (db *database) stored(t testing.TB, store *midassql.Store, inbox *midassql.Inbox, openID string, billNos ...string) {
	t.Helper()
	for _, billNo := range billNos {
		token := "token of " + openID + billNo
		ordered(t, store, openID, token)
		require.NoError(t, inbox.Deliver(t.Context(), paid(openID, token, billNo)))
	}
}

// pass lets time pass in the database: all that the Inbox has noted is so much longer ago.
func (db *database) pass(t testing.TB, d time.Duration) {
	t.Helper()
	ms := d.Milliseconds()
	for _, column := range []string{"stored_ms", "due_ms"} {
		db.must(t, "UPDATE inbox SET "+column+" = "+column+" - ?", ms)
	}
	for _, column := range []string{"lease_ms", "failing_ms"} {
		db.must(t, "UPDATE inbox SET "+column+" = "+column+" - ? WHERE "+column+" > 0", ms)
	}
}

// worked runs Work until so many payments have been handed out, and what work returned was
// written down.
func worked(t testing.TB, inbox *midassql.Inbox, n int, work func(ctx context.Context, d *midas.Delivery) error) (billNos []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var mu sync.Mutex
	err := inbox.Work(ctx, func(ctx context.Context, d *midas.Delivery) error {
		defer func() { // also after a panic
			mu.Lock()
			defer mu.Unlock()
			billNos = append(billNos, d.BillNo)
			if len(billNos) == n {
				time.AfterFunc(200*time.Millisecond, cancel) // what is due too early would come until then
			}
		}()
		return work(ctx, d)
	})
	require.Equal(t, context.Canceled, err, "Work returned before %d payments", n)
	slices.Sort(billNos)
	return billNos
}

// nameZones lets a worker name its zones, of which this is the last.
func nameZones(t *testing.T, db *database, inbox *midassql.Inbox, last string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var working sync.WaitGroup
	working.Go(func() { inbox.Work(ctx, func(context.Context, *midas.Delivery) error { return midassql.ErrNotNow }) })
	require.Eventually(t, func() bool { return db.count(t, "SELECT COUNT(*) FROM zones WHERE name = '"+last+"'") == 1 }, time.Minute, time.Millisecond)
	cancel()
	working.Wait()
}

func waiting(t testing.TB, inbox *midassql.Inbox, openID string) (billNos []string) {
	t.Helper()
	for d, err := range inbox.Waiting(t.Context(), openID) {
		require.NoError(t, err)
		billNos = append(billNos, d.BillNo)
	}
	return billNos
}

func saved(context.Context, *midas.Delivery) error { return nil }

func TestAStoredPaymentIsHandedOutUntilItIsDone(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		store := db.store(t, midassql.Options{})
		inbox := newInbox(t, store, midassql.InboxOptions{})
		ordered(t, store, "player", "token")
		d := paid("player", "token", "-1", func(d *midas.Delivery) {
			d.AppID, d.Metadata, d.PayMethod, d.Platform, d.ProvideType, d.Charged = "1450000000", "shop*7", "wechat", "st_dummy", 5, 1140
		})
		require.NoError(t, inbox.Deliver(t.Context(), d))
		require.NoError(t, inbox.Deliver(t.Context(), d), "a repeat is answered OK")
		require.NoError(t, store.Once(db.grant)(t.Context(), d), "also by Once")
		require.Zero(t, db.count(t, "SELECT COUNT(*) FROM items"), "which grants nothing")
		require.Equal(t, 1, db.count(t, "SELECT COUNT(*) FROM inbox"))

		require.Equal(t, []string{"-1"}, worked(t, inbox, 1, func(_ context.Context, got *midas.Delivery) error {
			assert.Equal(t, d, got, "all that the callback said")
			return nil
		}))
		require.Zero(t, db.count(t, "SELECT COUNT(*) FROM inbox"))
		require.Empty(t, waiting(t, inbox, "player"))
		require.NoError(t, inbox.Deliver(t.Context(), d))
		require.Zero(t, db.count(t, "SELECT COUNT(*) FROM inbox"), "what is done is not handed out again")
		p := onlyPayment(t, store, midassql.Query{OpenID: "player"})
		require.Equal(t, midassql.StateDone, p.State)
		require.WithinDuration(t, time.Now(), p.DoneAt, time.Minute)
		require.Equal(t, 3, p.Repeats)

		// What Once granted is done too.
		ordered(t, store, "player", "token2")
		require.NoError(t, store.Once(db.grant)(t.Context(), paid("player", "token2", "-2")))
		require.NoError(t, inbox.Deliver(t.Context(), paid("player", "token2", "-2")))
		require.Empty(t, waiting(t, inbox, "player"))
	})
}

func TestTheInboxComparesWithTheOrder(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		store := db.store(t, midassql.Options{})
		inbox := newInbox(t, store, midassql.InboxOptions{})
		ordered(t, store, "player", "token")
		var param *midas.ParamError
		require.ErrorAs(t, inbox.Deliver(t.Context(), paid("thief", "token", "-1")), &param)
		require.ErrorIs(t, inbox.Deliver(t.Context(), paid("player", "unknown", "-1")), midas.ErrTokenNotFound)
		require.Zero(t, db.count(t, "SELECT COUNT(*) FROM deliveries"))
		require.Zero(t, db.count(t, "SELECT COUNT(*) FROM inbox"))
	})
}

func TestOfflinePlayersArePaidAtLogin(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		store := db.store(t, midassql.Options{})
		inbox := newInbox(t, store, midassql.InboxOptions{})
		db.stored(t, store, inbox, "player", "-1", "-2")
		db.stored(t, store, inbox, "another", "-3")
		worked(t, inbox, 3, func(context.Context, *midas.Delivery) error { return fmt.Errorf("offline: %w", midassql.ErrNotNow) })
		require.Zero(t, db.count(t, "SELECT SUM(attempts) FROM inbox"), "that is no attempt")

		ended, cancel := context.WithCancel(t.Context())
		defer cancel()
		var errs []error
		for _, err := range inbox.Waiting(ended, "player") {
			errs = append(errs, err)
			cancel()
		}
		require.Len(t, errs, 2, "the context ended after the first")
		require.ErrorIs(t, errs[1], context.Canceled)
		require.NoError(t, inbox.Fail(t.Context(), "player", "-1", midassql.ErrNotNow))

		require.Equal(t, []string{"-1", "-2"}, waiting(t, inbox, "player"))
		require.Empty(t, waiting(t, inbox, "player"), "they are accepted")
		require.NoError(t, inbox.Done(t.Context(), "player", "-1"))
		require.NoError(t, inbox.Done(t.Context(), "player", "-1"), "Done is idempotent")
		require.NoError(t, inbox.Fail(t.Context(), "player", "-2", midassql.ErrNotNow))
		require.Equal(t, []string{"-2"}, waiting(t, inbox, "player"), "what was given back is yielded again")
		require.ErrorIs(t, inbox.Done(t.Context(), "player", "-9"), midassql.ErrNoPayment)
	})
}

// A payment that is being handled while the player logs in, and then is found not to be
// possible, must not wait for the next offer.
func TestALoginCountsForWhatIsLeased(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		store := db.store(t, midassql.Options{})
		inbox := newInbox(t, store, midassql.InboxOptions{})
		db.stored(t, store, inbox, "player", "-1")
		db.pass(t, 10*time.Hour)
		offers := 0
		worked(t, inbox, 2, func(context.Context, *midas.Delivery) error {
			if offers++; offers == 1 {
				assert.Empty(t, waiting(t, inbox, "player"), "it is leased")
				return midassql.ErrNotNow
			}
			return nil
		})
	})
}

func TestAbsentPlayersAreOfferedLessOften(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		store := db.store(t, midassql.Options{})
		inbox := newInbox(t, store, midassql.InboxOptions{})
		for _, test := range []struct{ age, wait time.Duration }{
			{0, 5 * time.Second}, {time.Minute, 15 * time.Second}, {2 * time.Hour, 30 * time.Minute}, {100 * time.Hour, time.Hour},
		} {
			db.must(t, "DELETE FROM inbox")
			db.stored(t, store, inbox, "player", fmt.Sprint("-", test.age))
			db.pass(t, test.age)
			worked(t, inbox, 1, func(context.Context, *midas.Delivery) error { return midassql.ErrNotNow })
			require.InDelta(t, (test.age + test.wait).Seconds(), float64(db.count(t, "SELECT due_ms - stored_ms FROM inbox"))/1000, 3, "after %v", test.age)
		}
	})
}

// A game that knows when the reason ends says so.
func TestNotNowSaysWhen(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		store := db.store(t, midassql.Options{})
		inbox := newInbox(t, store, midassql.InboxOptions{})
		due := func(openID string) (due time.Time) {
			for p, err := range store.Payments(t.Context(), midassql.Query{OpenID: openID, State: midassql.StateWaiting}) {
				require.NoError(t, err)
				require.Zero(t, p.Attempts, "that is no attempt")
				due = p.Due
			}
			return due
		}
		for _, test := range []struct {
			name   string
			result error
			wait   time.Duration
		}{
			{"until the match ends", midassql.NotNow(20 * time.Minute), 20 * time.Minute},
			{"wrapped", fmt.Errorf("in a match: %w", midassql.NotNow(20*time.Minute)), 20 * time.Minute},
			{"beside another error", errors.Join(errors.New("in a match"), midassql.NotNow(20*time.Minute)), 20 * time.Minute},
			{"for months", midassql.NotNow(2000 * time.Hour), 24 * time.Hour},
			{"no time at all", midassql.NotNow(0), time.Second},
			{"before now", midassql.NotNow(-time.Hour), time.Second},
		} {
			db.stored(t, store, inbox, test.name, "-1")
			began := time.Now()
			worked(t, inbox, 1, func(context.Context, *midas.Delivery) error { return test.result })
			requireDueIn(t, test.wait, due(test.name), began)
		}

		db.must(t, "DELETE FROM inbox")
		db.stored(t, store, inbox, "player", "-login")
		worked(t, inbox, 1, func(context.Context, *midas.Delivery) error { return midassql.NotNow(time.Hour) })
		require.Equal(t, []string{"-login"}, waiting(t, inbox, "player"), "a login does not wait")
		began := time.Now()
		require.NoError(t, inbox.Fail(t.Context(), "player", "-login", midassql.NotNow(time.Hour)))
		requireDueIn(t, time.Hour, due("player"), began)
		db.pass(t, time.Hour)
		require.Equal(t, []string{"-login"}, worked(t, inbox, 1, saved), "and then it is due")
	})
}

func TestFailuresWaitLongerAndLonger(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		store, logged := db.loggedStore(t)
		inbox := newInbox(t, store, midassql.InboxOptions{})
		db.stored(t, store, inbox, "player", "-1")
		fail := func(context.Context, *midas.Delivery) error { return errors.New("the bag is full") }
		last := func() midassql.Payment { return onlyPayment(t, store, midassql.Query{OpenID: "player"}) }
		for i, wait := range []time.Duration{1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600} {
			began := time.Now()
			if i%3 == 2 {
				worked(t, inbox, 1, func(context.Context, *midas.Delivery) error { panic("the bag is full") })
			} else {
				worked(t, inbox, 1, fail)
			}
			p := last()
			require.Equal(t, i+1, p.Attempts)
			require.Contains(t, p.LastError, "the bag is full")
			require.Equal(t, midassql.StateWaiting, p.State)
			requireDueIn(t, wait*time.Second, p.Due, began)
			db.pass(t, wait*time.Second)
		}
		require.NotContains(t, logged.String(), "stuck")

		db.pass(t, 72*time.Hour)
		began := time.Now()
		worked(t, inbox, 1, fail)
		require.Equal(t, midassql.StateStuck, last().State)
		requireDueIn(t, time.Hour, last().Due, began)
		require.Contains(t, logged.String(), "stuck")
		counts, err := inbox.Counts(t.Context())
		require.NoError(t, err)
		require.Equal(t, [2]int64{1, 1}, [2]int64{counts.Waiting, counts.Stuck})
		require.Greater(t, time.Since(counts.Oldest), 72*time.Hour)
		require.Equal(t, "-1", onlyPayment(t, store, midassql.Query{State: midassql.StateStuck}).BillNo)

		db.pass(t, time.Hour)
		worked(t, inbox, 1, fail) // it is still tried
		require.Equal(t, []string{"-1"}, waiting(t, inbox, "player"), "and at login")
		require.NoError(t, inbox.Fail(t.Context(), "player", "-1", errors.New("the bag is full")))

		put, err := inbox.Retry(t.Context(), midassql.RetryOptions{})
		require.NoError(t, err)
		require.EqualValues(t, 1, put.PutBack)
		require.Equal(t, midassql.StateWaiting, last().State)
		worked(t, inbox, 1, saved)
		require.Equal(t, midassql.StateDone, last().State)
	})
}

// requireDueIn requires that due was set to be in wait, some time between began and now.
func requireDueIn(t *testing.T, wait time.Duration, due, began time.Time) {
	t.Helper()
	const rounding = 10 * time.Millisecond // SQLite's clock is a float
	set := due.Add(-wait)
	require.False(t, set.Before(began.Add(-rounding)), "due in %v", due.Sub(began))
	require.False(t, set.After(time.Now().Add(rounding)), "due in %v", due.Sub(began))
}

// Only payments that still fail after 72 h are stuck: not those whose players are away.
func TestAbsentPlayersPaymentsAreNotStuck(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		store, logged := db.loggedStore(t)
		inbox := newInbox(t, store, midassql.InboxOptions{})
		db.stored(t, store, inbox, "player", "-1")
		worked(t, inbox, 1, func(context.Context, *midas.Delivery) error { return errors.New("Redis restarts") })
		for range 2 {
			db.pass(t, 73*time.Hour)
			worked(t, inbox, 1, func(context.Context, *midas.Delivery) error { return midassql.ErrNotNow })
		}
		require.Zero(t, db.count(t, "SELECT stuck FROM inbox"))
		require.NotContains(t, logged.String(), "stuck")

		// A worker that dies each time fails, too.
		db.pass(t, 73*time.Hour)
		require.Equal(t, []string{"-1"}, waiting(t, inbox, "player"))
		db.pass(t, time.Hour)
		require.Equal(t, []string{"-1"}, waiting(t, inbox, "player"))
		require.Equal(t, 1, db.count(t, "SELECT stuck FROM inbox"))
		require.Contains(t, logged.String(), "stuck")
	})
}

// loggedStore returns a Store and what it logs.
func (db *database) loggedStore(t *testing.T) (*midassql.Store, *lines) {
	t.Helper()
	logged := new(lines)
	return db.store(t, midassql.Options{Logger: slog.New(slog.NewTextHandler(logged, nil))}), logged
}

// lines is a log that goroutines write.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func TestAFailingPaymentDoesNotHoldUpTheNextOne(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		store := db.store(t, midassql.Options{})
		inbox := newInbox(t, store, midassql.InboxOptions{})
		db.stored(t, store, inbox, "player", "-1", "-2", "-3")
		got := worked(t, inbox, 3, func(_ context.Context, d *midas.Delivery) error {
			if d.BillNo == "-1" {
				return errors.New("never")
			}
			return nil
		})
		require.Equal(t, []string{"-1", "-2", "-3"}, got)
		require.Equal(t, 1, db.count(t, "SELECT COUNT(*) FROM inbox"))
	})
}

// Two processes: one dies with the lease, the other has the payment when it is over. What
// the first says later counts as far as it says Done.
func TestAWorkerThatDiesLosesItsLease(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		store := db.store(t, midassql.Options{})
		dead, alive := newInbox(t, store, midassql.InboxOptions{}), newInbox(t, store, midassql.InboxOptions{})
		db.stored(t, store, dead, "player", "-1", "-2")
		require.Equal(t, []string{"-1", "-2"}, waiting(t, dead, "player"))
		require.Empty(t, waiting(t, alive, "player"), "leased")
		db.pass(t, 31*time.Second)
		require.Equal(t, 2, db.count(t, "SELECT SUM(attempts) FROM inbox"), "each lost lease is an attempt")

		require.Equal(t, []string{"-1", "-2"}, waiting(t, alive, "player"))
		require.NoError(t, dead.Fail(t.Context(), "player", "-1", errors.New("late")), "does nothing")
		require.Empty(t, waiting(t, dead, "player"), "the other has the lease")
		require.NoError(t, dead.Done(t.Context(), "player", "-2"), "Done counts whenever it comes")
		db.pass(t, 31*time.Second)
		require.Equal(t, []string{"-1"}, waiting(t, alive, "player"))
	})
}

// What is said about a hand-out whose lease was lost does nothing to the next one, also in the same
// process.
func TestAnOldHandOutDoesNotEndTheNextOne(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		store, seen := db.recordedStore(t)
		inbox, other := newInbox(t, store, midassql.InboxOptions{}), newInbox(t, store, midassql.InboxOptions{})
		db.stored(t, store, inbox, "player", "-1")
		worked(t, inbox, 1, func(context.Context, *midas.Delivery) error { return midassql.ErrAccepted })
		db.pass(t, 40*time.Second)
		worked(t, inbox, 1, func(context.Context, *midas.Delivery) error {
			assert.NoError(t, inbox.Fail(t.Context(), "player", "-1", errors.New("the first save failed, late")))
			assert.Empty(t, waiting(t, other, "player"), "this one is being handled")
			return nil
		})
		require.Zero(t, db.count(t, "SELECT COUNT(*) FROM inbox"))

		// The save of this hand-out fails before work has returned, and so does that of the next one.
		db.stored(t, store, inbox, "player", "-3")
		for attempt := 1; attempt <= 2; attempt++ {
			worked(t, inbox, 1, func(context.Context, *midas.Delivery) error {
				assert.NoError(t, inbox.Fail(t.Context(), "player", "-3", errors.New("Redis is away")))
				return midassql.ErrAccepted
			})
			require.Equal(t, attempt, db.count(t, "SELECT attempts FROM inbox WHERE billno = '-3' AND lease_ms = 0 AND last_error = 'Redis is away'"))
			db.pass(t, 10*time.Second)
		}
		require.NoError(t, inbox.Done(t.Context(), "player", "-3"))

		// A hand-out that is accepted only after the next one.
		db.stored(t, store, inbox, "player", "-4")
		next, accepted := make(chan struct{}), atomic.Int32{}
		worked(t, inbox, 2, func(context.Context, *midas.Delivery) error {
			if accepted.Add(1) == 1 {
				db.pass(t, 40*time.Second)
				inbox.Wake()
				<-next
				assert.Eventually(t, func() bool { return db.count(t, "SELECT accepted FROM inbox WHERE billno = '-4'") == 1 }, time.Minute, time.Millisecond)
			} else {
				close(next)
			}
			return midassql.ErrAccepted
		})
		require.NoError(t, inbox.Fail(t.Context(), "player", "-4", midassql.ErrNotNow))
		require.Equal(t, 1, db.count(t, "SELECT COUNT(*) FROM inbox WHERE billno = '-4' AND lease_ms = 0"))
		require.NoError(t, inbox.Done(t.Context(), "player", "-4"))

		// A work function that outlives its lease.
		seen.clear()
		db.stored(t, store, inbox, "player", "-2")
		again, gaveBack := make(chan struct{}), make(chan struct{})
		calls := atomic.Int32{}
		worked(t, inbox, 2, func(context.Context, *midas.Delivery) error {
			if calls.Add(1) == 1 {
				db.pass(t, 40*time.Second)
				inbox.Wake()
				<-again
				go func() { // once this result is written down
					assert.Eventually(t, func() bool { return seen.has("SET due_ms = CASE") }, time.Minute, time.Millisecond)
					close(gaveBack)
				}()
				return errors.New("late")
			}
			close(again)
			<-gaveBack
			assert.Empty(t, waiting(t, other, "player"), "this one is being handled")
			return nil
		})
		require.Zero(t, db.count(t, "SELECT COUNT(*) FROM inbox"))
	})
}

// The end of Work in the moment of a claim must not leave payments that are leased to nobody.
func TestAClaimIsNotCutOff(t *testing.T) {
	t.Parallel()
	db, line := lossy(t)
	store := db.store(t, midassql.Options{})
	inbox := newInbox(t, store, midassql.InboxOptions{})
	db.stored(t, store, inbox, "player", "-1")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	line.commit = func(tx driver.Tx) error {
		if len(line.statements) > 0 && strings.Contains(line.statements[len(line.statements)-1], "WITH next") {
			cancel()
		}
		return tx.Commit()
	}
	require.Equal(t, context.Canceled, inbox.Work(ctx, func(ctx context.Context, _ *midas.Delivery) error { return ctx.Err() }))
	require.Equal(t, 1, db.count(t, "SELECT claims FROM inbox"))
	require.Zero(t, db.count(t, "SELECT lease_ms + attempts FROM inbox"), "it is given back")
}

// Two workers that lease one payment each of a player, in the same moment: one of them notices.
func TestTwoClaimsOfOnePlayerInTheSameMoment(t *testing.T) {
	t.Parallel()
	db, line := lossy(t)
	store := db.store(t, midassql.Options{})
	inbox := newInbox(t, store, midassql.InboxOptions{})
	db.stored(t, store, inbox, "player", "-2")
	outside := db.open()
	leased, gone := false, false
	line.begin = func() {
		last := strings.Join(line.statements[max(0, len(line.statements)-1):], "")
		switch {
		case !leased && strings.Contains(last, "WITH next"): // -2 is leased, and not read yet
			leased = true
			_, err := outside.Exec(db.sql("INSERT INTO inbox (openid, billno, zone, base, stored_ms, due_ms, lease_ms, owner) VALUES ('player', '-1', '1', '1', 1, 1, 99999999999999, 7)"))
			assert.NoError(t, err)
		case leased && !gone && strings.Contains(last, "SET due_ms = CASE"): // -2 is given back
			gone = true
			_, err := outside.Exec(db.sql("DELETE FROM inbox WHERE billno = '-1'"))
			assert.NoError(t, err)
		}
	}
	worked(t, inbox, 1, func(context.Context, *midas.Delivery) error {
		assert.Zero(t, db.count(t, "SELECT COUNT(*) FROM inbox WHERE billno = '-1'"), "two at once")
		return nil
	})
	require.True(t, gone)
}

// Behind a proxy or a power cut, connections that were open stay silent for ever. Work goes on with
// another one.
func TestWorkLeavesADeadConnection(t *testing.T) {
	t.Parallel()
	db, line := lossy(t)
	store := db.store(t, midassql.Options{})
	inbox := newInbox(t, store, midassql.InboxOptions{Zones: []string{"1"}, Poll: time.Millisecond})
	db.stored(t, store, inbox, "player", "-1")
	silent := 0
	line.wait = func(ctx context.Context, statement string) error {
		if (strings.Contains(statement, "_zones") || strings.Contains(statement, "_meta")) && silent < 3 {
			silent++
			_, limited := ctx.Deadline()
			assert.True(t, limited, "it would wait for ever: %s", statement)
			return context.DeadlineExceeded
		}
		return nil
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	inbox.Work(ctx, func(context.Context, *midas.Delivery) error {
		cancel()
		return nil
	})
	require.Equal(t, 3, silent)
	require.Zero(t, db.count(t, "SELECT COUNT(*) FROM inbox"))
}

func TestWorkIsToldThatItsLeaseEnds(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		store := db.store(t, midassql.Options{})
		inbox := newInbox(t, store, midassql.InboxOptions{Lease: time.Second})
		db.stored(t, store, inbox, "player", "-1")
		worked(t, inbox, 1, func(ctx context.Context, _ *midas.Delivery) error {
			<-ctx.Done()
			assert.Equal(t, midassql.ErrLeaseEnded, context.Cause(ctx))
			return ctx.Err()
		})
		require.Equal(t, 1, db.count(t, "SELECT attempts FROM inbox"))
	})
}

func TestTheEndOfWorkIsNoAttempt(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		store := db.store(t, midassql.Options{})
		inbox := newInbox(t, store, midassql.InboxOptions{})
		db.stored(t, store, inbox, "player", "-1")
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		require.Equal(t, context.Canceled, inbox.Work(ctx, func(ctx context.Context, _ *midas.Delivery) error {
			cancel()
			return ctx.Err()
		}))
		require.Equal(t, 0, db.count(t, "SELECT attempts FROM inbox"))
		require.Equal(t, []string{"-1"}, worked(t, inbox, 1, saved), "and it is due at once")

		db.stored(t, store, inbox, "player", "-2")
		ctx, cancel = context.WithCancel(t.Context())
		defer cancel()
		require.Equal(t, context.Canceled, inbox.Work(ctx, func(context.Context, *midas.Delivery) error {
			cancel()
			return nil // it was saved all the same
		}))
		require.Zero(t, db.count(t, "SELECT COUNT(*) FROM inbox"))
	})
}

func TestAcceptedPaymentsAreLeasedUntilTheyAreDone(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		store := db.store(t, midassql.Options{})
		inbox := newInbox(t, store, midassql.InboxOptions{})
		db.stored(t, store, inbox, "player", "-1", "-2")
		accept := func(context.Context, *midas.Delivery) error { return midassql.ErrAccepted }
		require.Equal(t, []string{"-1", "-2"}, worked(t, inbox, 2, accept), "the second does not wait for the first's save")
		require.NoError(t, inbox.Done(t.Context(), "player", "-1"))
		db.pass(t, 32*time.Second) // the lease, and the wait after an attempt
		require.Equal(t, []string{"-2"}, worked(t, inbox, 1, accept))
	})
}

// What was claimed may be done, cancelled or given back before it is read.
func TestWaitingGoesOnBehindAPaymentThatIsGone(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		store := db.store(t, midassql.Options{})
		inbox := newInbox(t, store, midassql.InboxOptions{})
		db.stored(t, store, inbox, "player", "-1", "-2")
		db.must(t, "DELETE FROM deliveries WHERE billno = '-1'")
		db.must(t, "UPDATE inbox SET zone = '2', base = '2' WHERE billno = '-2'")
		require.Equal(t, []string{"-2"}, waiting(t, inbox, "player"))
	})
}

func TestZones(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		store := db.store(t, midassql.Options{})
		gateway := newInbox(t, store, midassql.InboxOptions{})
		for i, zone := range []string{"1", "1_8", "1_2", "1_2_7", "12", "2", "1`", "1-2", "9_1"} {
			token := fmt.Sprint("token", i)
			ordered(t, store, "player", token)
			require.NoError(t, gateway.Deliver(t.Context(), paid("player", token, "-"+zone, func(d *midas.Delivery) { d.ZoneID = zone })))
		}
		one := newInbox(t, store, midassql.InboxOptions{Zones: []string{"1"}})
		merged := newInbox(t, store, midassql.InboxOptions{Zones: []string{"1_2", "2"}})
		require.Equal(t, []string{"-1_2", "-1_2_7", "-2"}, waiting(t, merged, "player"), "several names, and with a role")
		for _, billNo := range []string{"-1_2", "-1_2_7", "-2"} {
			require.NoError(t, merged.Fail(t.Context(), "player", billNo, midassql.ErrNotNow))
		}
		nameZones(t, db, merged, "2")
		require.Equal(t, []string{"-1", "-1_8"}, waiting(t, one, "player"), "the longest name wins")

		counts, err := gateway.Counts(t.Context())
		require.NoError(t, err)
		require.Equal(t, map[string]int64{"1": 1, "1_8": 1, "12": 1, "1`": 1, "1-2": 1, "9_1": 1}, counts.Unserved)
		require.EqualValues(t, 9, counts.Waiting)
		moved, err := gateway.MoveZone(t.Context(), "1", "3")
		require.NoError(t, err)
		require.EqualValues(t, 2, moved, "not those of the longer name")
		moved, err = gateway.MoveZone(t.Context(), "3", "1")
		require.NoError(t, err)
		require.EqualValues(t, 2, moved)
		moved, err = gateway.MoveZone(t.Context(), "9", "2")
		require.NoError(t, err)
		require.EqualValues(t, 1, moved)
		require.Equal(t, []string{"-9_1"}, worked(t, merged, 1, func(context.Context, *midas.Delivery) error { return midassql.ErrAccepted }))

		// What the longest name takes is not served by a shorter one.
		nameZones(t, db, one, "1")
		db.must(t, "UPDATE zones SET seen_ms = seen_ms - 3600000 WHERE name = '1_2'")
		counts, err = gateway.Counts(t.Context())
		require.NoError(t, err)
		require.Equal(t, map[string]int64{"1_2": 1, "1_2_7": 1, "12": 1, "1`": 1, "1-2": 1}, counts.Unserved)

		// A name that is gone does not count any more.
		moved, err = gateway.MoveZone(t.Context(), "1_2", "1")
		require.NoError(t, err)
		require.EqualValues(t, 2, moved)
		db.pass(t, time.Minute)
		one = newInbox(t, store, midassql.InboxOptions{Zones: []string{"1"}})
		require.Equal(t, []string{"-1", "-1_2", "-1_2_7", "-1_8"}, waiting(t, one, "player"))
	})
}

func TestCancelledPaymentsAreNotHandedOut(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		store := db.store(t, midassql.Options{})
		inbox := newInbox(t, store, midassql.InboxOptions{})
		db.stored(t, store, inbox, "player", "-1", "-2")
		require.NoError(t, inbox.Cancel(t.Context(), "player", "-1", "refunded, ticket 7"))
		require.NoError(t, inbox.Cancel(t.Context(), "player", "-1", "again"))
		require.Equal(t, []string{"-2"}, waiting(t, inbox, "player"))
		require.ErrorIs(t, inbox.Done(t.Context(), "player", "-1"), midassql.ErrCancelled)
		require.NoError(t, inbox.Done(t.Context(), "player", "-2"))
		require.ErrorContains(t, inbox.Cancel(t.Context(), "player", "-2", ""), "done")
		require.ErrorIs(t, inbox.Cancel(t.Context(), "player", "-3", ""), midassql.ErrNoPayment)
		require.NoError(t, inbox.Deliver(t.Context(), paid("player", "token of player-1", "-1")), "a repeat is answered OK")
		require.Empty(t, waiting(t, inbox, "player"))
		p := onlyPayment(t, store, midassql.Query{OpenID: "player", BillNo: "-1"})
		require.Equal(t, midassql.StateCancelled, p.State)
		require.Equal(t, "refunded, ticket 7", p.Note)
	})
}

// After a restore of the players from a backup, what was done since is handed out again, and
// a Done about a save from before it does not count.
func TestRetryAfterARestore(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		store := db.store(t, midassql.Options{})
		before := newInbox(t, store, midassql.InboxOptions{})
		db.stored(t, store, before, "player", "-1", "-2", "-3", "-4")
		require.Len(t, waiting(t, before, "player"), 4)
		for _, billNo := range []string{"-1", "-2", "-3"} { // -4 is accepted, not saved
			require.NoError(t, before.Done(t.Context(), "player", billNo))
		}
		require.NoError(t, store.Once(db.grant)(t.Context(), paid("player", "token of player-1", "-once")))
		db.must(t, "UPDATE deliveries SET done_ms = done_ms - 3600000 WHERE billno = '-1'")

		after := newInbox(t, store, midassql.InboxOptions{})
		put, err := after.Retry(t.Context(), midassql.RetryOptions{DoneFrom: time.Now().Add(-30 * time.Minute)})
		require.NoError(t, err)
		require.EqualValues(t, 2, put.PutBack, "-1 was done before the backup, -once is not the players'")

		require.ErrorIs(t, before.Done(t.Context(), "player", "-2"), midassql.ErrRestored)
		require.ErrorIs(t, before.Done(t.Context(), "player", "-4"), midassql.ErrRestored, "the save was restored away, too")
		require.Equal(t, []string{"-2", "-3"}, waiting(t, after, "player"))
		db.pass(t, time.Minute)
		require.Equal(t, []string{"-2", "-3", "-4"}, waiting(t, after, "player"))
		require.NoError(t, after.Done(t.Context(), "player", "-2"))
		require.ErrorIs(t, before.Done(t.Context(), "player", "-2"), midassql.ErrRestored)
		require.NoError(t, after.Done(t.Context(), "player", "-3"))
		require.NoError(t, after.Done(t.Context(), "player", "-4"))

		// A time range: none of these was done before an hour ago.
		put, err = after.Retry(t.Context(), midassql.RetryOptions{DoneFrom: time.Now().Add(-24 * time.Hour), DoneTo: time.Now().Add(-time.Minute)})
		require.NoError(t, err)
		require.EqualValues(t, 1, put.PutBack, "-1 alone")
		require.Equal(t, []string{"-1"}, waiting(t, after, "player"))
		require.NoError(t, after.Done(t.Context(), "player", "-1"))
		db.must(t, "UPDATE deliveries SET done_ms = done_ms - 3600000 WHERE billno = '-1'")

		// A second restore.
		put, err = after.Retry(t.Context(), midassql.RetryOptions{OpenID: "player", DoneFrom: time.Now().Add(-30 * time.Minute)})
		require.NoError(t, err)
		require.EqualValues(t, 3, put.PutBack)
		require.ErrorIs(t, after.Done(t.Context(), "player", "-2"), midassql.ErrRestored, "an Inbox from before it")
		require.Equal(t, []string{"-2", "-3", "-4"}, waiting(t, after, "player"), "until it is handed out there again")
		require.NoError(t, after.Done(t.Context(), "player", "-2"))
	})
}

// What Retry puts back, and MoveZone moves, is found by the workers of its zone; other zones are left
// alone.
func TestRetryOfAZone(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		store := db.store(t, midassql.Options{})
		all := newInbox(t, store, midassql.InboxOptions{})
		two, five := newInbox(t, store, midassql.InboxOptions{Zones: []string{"2"}}), newInbox(t, store, midassql.InboxOptions{Zones: []string{"5"}})
		ordered(t, store, "player", "token")
		for _, zone := range []string{"2_7", "3"} {
			require.NoError(t, all.Deliver(t.Context(), paid("player", "token", "-"+zone, func(d *midas.Delivery) { d.ZoneID = zone })))
		}
		worked(t, all, 2, saved)
		put, err := two.Retry(t.Context(), midassql.RetryOptions{DoneFrom: time.Now().Add(-time.Hour)})
		require.NoError(t, err)
		require.EqualValues(t, 1, put.PutBack)
		require.Equal(t, []string{"-2_7"}, worked(t, two, 1, func(context.Context, *midas.Delivery) error { return midassql.ErrNotNow }))
		db.pass(t, time.Minute)
		_, err = all.MoveZone(t.Context(), "2", "5")
		require.NoError(t, err)
		require.Equal(t, []string{"-2_7"}, worked(t, five, 1, saved))

		// All that waits in the zone begins the new generation, be it more than a page.
		series, text := db.series(1203)
		for zone, n := range map[string]int{"2": 1203, "3": 10} {
			db.must(t, "INSERT INTO deliveries (openid, billno, token, zone, items, charged, called_at, granted_at, state) SELECT "+
				text("waits")+", '-"+zone+"', 't', '"+zone+"', 'gem*1*1', 1, 1, 1, 1 FROM "+series+fmt.Sprint(" WHERE i <= ", n))
			db.must(t, "INSERT INTO inbox (openid, billno, zone, base, stored_ms, due_ms) SELECT "+
				text("waits")+", '-"+zone+"', '"+zone+"', '"+zone+"', 1, 99999999999999 FROM "+series+fmt.Sprint(" WHERE i <= ", n))
		}
		_, err = two.Retry(t.Context(), midassql.RetryOptions{DoneFrom: time.Now().Add(-time.Hour)})
		require.NoError(t, err)
		require.Equal(t, 1203, db.count(t, "SELECT COUNT(*) FROM deliveries WHERE token = 't' AND generation = 2"))
		require.Equal(t, 10, db.count(t, "SELECT COUNT(*) FROM deliveries WHERE token = 't' AND generation = 0"))
	})
}

// One place is free, and three zones have payments: one of them is leased.
func TestNoMoreIsLeasedThanWorkersAreFree(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		store := db.store(t, midassql.Options{})
		inbox := newInbox(t, store, midassql.InboxOptions{Zones: []string{"1", "2", "3"}, Workers: 1})
		for i, zone := range []string{"1", "2", "3"} {
			player := fmt.Sprint("player", i)
			ordered(t, store, player, "token of "+player)
			require.NoError(t, inbox.Deliver(t.Context(), paid(player, "token of "+player, "-1", func(d *midas.Delivery) { d.ZoneID = zone })))
		}
		worked(t, inbox, 3, func(context.Context, *midas.Delivery) error {
			assert.Equal(t, 1, db.count(t, "SELECT COUNT(*) FROM inbox WHERE lease_ms > 0"))
			return nil
		})
	})
}

// A payment that was archived has no items any more: it must not come back as an empty one.
func TestRetryLeavesArchivedPaymentsAlone(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		store, logged := db.loggedStore(t)
		inbox := newInbox(t, store, midassql.InboxOptions{})
		db.stored(t, store, inbox, "player", "-1", "-2")
		worked(t, inbox, 2, saved)
		db.must(t, "UPDATE deliveries SET items = '' WHERE billno = '-1'")
		put, err := inbox.Retry(t.Context(), midassql.RetryOptions{DoneFrom: time.Now().Add(-time.Hour)})
		require.NoError(t, err)
		require.EqualValues(t, 1, put.PutBack)
		require.Equal(t, []string{"-2"}, waiting(t, inbox, "player"))
		require.Contains(t, logged.String(), "archived")
		require.Contains(t, logged.String(), "billno=-1")
	})
}

// A hook that never returns costs no answer.
func TestDeliverDoesNotWaitForItsHook(t *testing.T) {
	t.Parallel()
	db := openDatabase(t, sqlite)
	store := db.store(t, midassql.Options{})
	ordered(t, store, "player", "token")
	var running atomic.Int32
	end := make(chan struct{})
	defer close(end)
	inbox := newInbox(t, store, midassql.InboxOptions{OnStored: func(ctx context.Context, _ *midas.Delivery) {
		_, limited := ctx.Deadline()
		assert.True(t, limited)
		running.Add(1)
		<-end
	}})
	for i := range 70 {
		require.NoError(t, inbox.Deliver(t.Context(), paid("player", "token", fmt.Sprint("-", i))))
	}
	require.Eventually(t, func() bool { return running.Load() == 64 }, time.Minute, time.Millisecond)
}

func TestWhoIsWokenUp(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		store := db.store(t, midassql.Options{})
		hooked := make(chan string, 9)
		gateway := newInbox(t, store, midassql.InboxOptions{OnStored: func(_ context.Context, d *midas.Delivery) { hooked <- d.BillNo }})
		zone := newInbox(t, store, midassql.InboxOptions{Zones: []string{"1"}, Poll: time.Hour})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		done := make(chan error, 1)
		idle := make(chan struct{})
		db.stored(t, store, newInbox(t, store, midassql.InboxOptions{}), "first", "-0")
		go func() {
			done <- zone.Work(ctx, func(_ context.Context, d *midas.Delivery) error {
				if d.BillNo == "-0" {
					close(idle)
				} else {
					cancel()
				}
				return nil
			})
		}()
		<-idle
		ordered(t, store, "player", "token")
		require.NoError(t, gateway.Deliver(t.Context(), paid("player", "token", "-1")))
		require.Equal(t, context.Canceled, <-done, "the poll would have taken an hour")
		require.Equal(t, "-1", <-hooked)
		require.NoError(t, gateway.Deliver(t.Context(), paid("player", "token", "-1")))
		d := paid("player", "token", "-2")
		require.NoError(t, gateway.Deliver(t.Context(), d))
		d.BillNo = "the caller goes on with it"
		require.Equal(t, "-2", <-hooked, "not for a repeat")
	})
}

// A new payment does not wait behind thousands of absent players.
func TestAbsentPlayersDoNotStarveNewOnes(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		store := db.store(t, midassql.Options{})
		inbox := newInbox(t, store, midassql.InboxOptions{Workers: 2})
		tx, err := db.BeginTx(t.Context(), nil)
		require.NoError(t, err)
		defer tx.Rollback()
		for i := range 2000 {
			_, err := tx.ExecContext(t.Context(), db.sql("INSERT INTO inbox (openid, billno, zone, base, stored_ms, due_ms) VALUES (?, '-', '1', '1', 0, 99999999999999)"), fmt.Sprint("absent", i))
			require.NoError(t, err)
		}
		require.NoError(t, tx.Commit())
		db.stored(t, store, inbox, "player", "-1")
		require.Equal(t, []string{"-1"}, worked(t, inbox, 1, saved))
	})
}

func TestNilsAreErrors(t *testing.T) {
	t.Parallel()
	db := openDatabase(t, sqlite)
	db.SetMaxOpenConns(1)
	store := db.store(t, midassql.Options{})
	inbox := newInbox(t, store, midassql.InboxOptions{})
	var none context.Context
	require.ErrorContains(t, inbox.Deliver(none, paid("player", "token", "-1")), "context is nil")
	require.ErrorContains(t, inbox.Work(none, saved), "context is nil")
	require.ErrorContains(t, inbox.Work(t.Context(), nil), "work is nil")
	require.ErrorContains(t, inbox.Done(none, "player", "-1"), "context is nil")
	require.ErrorContains(t, inbox.Fail(none, "player", "-1", nil), "context is nil")
	require.ErrorContains(t, inbox.Cancel(none, "player", "-1", ""), "context is nil")
	require.ErrorContains(t, store.SaveOrder(none, midas.OrderRequest{Player: midas.Player{OpenID: "player"}, Items: []midas.Item{gem}}, &midas.Order{Token: "token"}), "context is nil")
	require.ErrorContains(t, store.Migrate(none), "context is nil")
	_, err := store.Settle(t.Context(), midassql.Settlement{Delivery: paid("player", "", "-6"), By: "wang"}, nil)
	require.ErrorContains(t, err, "grant is nil")
	accepts, err := midassql.New(db.DB, db.dialect, midassql.Options{TablePrefix: db.prefix, AcceptAppOrders: true})
	require.NoError(t, err)
	require.ErrorContains(t, accepts.Once(db.grant)(none, paid("player", "token", "-1")), "context is nil")
	require.ErrorContains(t, failure(inbox.Waiting(none, "player")), "context is nil")
	require.ErrorContains(t, failure(store.Payments(none, midassql.Query{OpenID: "player"})), "context is nil")
	require.NoError(t, db.QueryRowContext(t.Context(), "SELECT 1").Scan(new(int)), "the connection is still there")
}

// A payment that comes while Cancel looks for it is cancelled, or Cancel says that there is none: never nil for
// one that is handed out afterwards.
func TestAPaymentThatComesDuringItsCancel(t *testing.T) {
	t.Parallel()
	for _, kind := range []testdb.Kind{postgreSQL, mySQLReadCommitted} { // on the others it waits until Cancel is over
		kind.Run(t, func(t *testing.T, tdb *testdb.Database) {
			db := wrap(tdb)
			inbox := newInbox(t, db.store(t, midassql.Options{AcceptAppOrders: true}), midassql.InboxOptions{})
			var once sync.Once
			between := &recorder{before: func(query string) error {
				if strings.HasPrefix(query, "SELECT state") {
					once.Do(func() { assert.NoError(t, inbox.Deliver(t.Context(), paid("player", "token", "-1"))) })
				}
				return nil
			}}
			require.NoError(t, newInbox(t, between.store(t, db, midassql.Options{}), midassql.InboxOptions{}).Cancel(t.Context(), "player", "-1", "refunded"))
			require.Empty(t, waiting(t, inbox, "player"))
			require.ErrorIs(t, inbox.Done(t.Context(), "player", "-1"), midassql.ErrCancelled)
		})
	}
}
