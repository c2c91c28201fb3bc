package dbtest

import (
	"context"
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
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
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
		inbox := store.Inbox(midassql.InboxOptions{})
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
		for p, err := range store.Payments(t.Context(), midassql.Query{OpenID: "player"}) {
			require.NoError(t, err)
			require.Equal(t, midassql.Done, p.State)
			require.WithinDuration(t, time.Now(), p.Done, time.Minute)
			require.Equal(t, 3, p.Repeats)
		}

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
		inbox := store.Inbox(midassql.InboxOptions{})
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
		inbox := store.Inbox(midassql.InboxOptions{})
		db.stored(t, store, inbox, "player", "-1", "-2")
		db.stored(t, store, inbox, "another", "-3")
		worked(t, inbox, 3, func(context.Context, *midas.Delivery) error { return fmt.Errorf("offline: %w", midassql.ErrNotNow) })
		require.Zero(t, db.count(t, "SELECT SUM(attempts) FROM inbox"), "that is no attempt")

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
		inbox := store.Inbox(midassql.InboxOptions{})
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
		inbox := store.Inbox(midassql.InboxOptions{})
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

func TestFailuresWaitLongerAndLonger(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		var logged lines
		store := db.store(t, midassql.Options{Logger: slog.New(slog.NewTextHandler(&logged, nil))})
		inbox := store.Inbox(midassql.InboxOptions{})
		db.stored(t, store, inbox, "player", "-1")
		fail := func(context.Context, *midas.Delivery) error { return errors.New("the bag is full") }
		last := func() midassql.Payment {
			for p, err := range store.Payments(t.Context(), midassql.Query{OpenID: "player"}) {
				require.NoError(t, err)
				return p
			}
			return midassql.Payment{}
		}
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
			require.Equal(t, midassql.Waiting, p.State)
			require.InDelta(t, wait*time.Second, p.Due.Sub(began), float64(2*time.Second))
			db.pass(t, wait*time.Second)
		}
		require.NotContains(t, logged.String(), "stuck")

		db.pass(t, 72*time.Hour)
		began := time.Now()
		worked(t, inbox, 1, fail)
		require.Equal(t, midassql.Stuck, last().State)
		require.InDelta(t, time.Hour, last().Due.Sub(began), float64(2*time.Second))
		require.Contains(t, logged.String(), "stuck")
		counts, err := inbox.Counts(t.Context())
		require.NoError(t, err)
		require.Equal(t, [2]int64{1, 1}, [2]int64{counts.Waiting, counts.Stuck})
		require.Greater(t, time.Since(counts.Oldest), 72*time.Hour)
		n := 0
		for p, err := range store.Payments(t.Context(), midassql.Query{State: midassql.Stuck}) {
			require.NoError(t, err)
			require.Equal(t, "-1", p.BillNo)
			n++
		}
		require.Equal(t, 1, n)

		db.pass(t, time.Hour)
		worked(t, inbox, 1, fail) // it is still tried
		require.Equal(t, []string{"-1"}, waiting(t, inbox, "player"), "and at login")
		require.NoError(t, inbox.Fail(t.Context(), "player", "-1", errors.New("the bag is full")))

		put, err := inbox.Retry(t.Context(), midassql.RetryOptions{})
		require.NoError(t, err)
		require.EqualValues(t, 1, put)
		require.Equal(t, midassql.Waiting, last().State)
		worked(t, inbox, 1, saved)
		require.Equal(t, midassql.Done, last().State)
	})
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
		inbox := store.Inbox(midassql.InboxOptions{})
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
		dead, alive := store.Inbox(midassql.InboxOptions{}), store.Inbox(midassql.InboxOptions{})
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

func TestWorkIsToldThatItsLeaseEnds(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		store := db.store(t, midassql.Options{})
		inbox := store.Inbox(midassql.InboxOptions{Lease: time.Second})
		db.stored(t, store, inbox, "player", "-1")
		began := time.Now()
		worked(t, inbox, 1, func(ctx context.Context, _ *midas.Delivery) error {
			<-ctx.Done()
			assert.Equal(t, midassql.ErrLeaseEnded, context.Cause(ctx))
			assert.Less(t, time.Since(began), 5*time.Second)
			return ctx.Err()
		})
		require.Equal(t, 1, db.count(t, "SELECT attempts FROM inbox"))
	})
}

func TestTheEndOfWorkIsNoAttempt(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		store := db.store(t, midassql.Options{})
		inbox := store.Inbox(midassql.InboxOptions{})
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

// Several workers on several machines: each payment once, never two of one player at once.
func TestNeverTwoOfOnePlayerAtOnce(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		const players, each, machines = 6, 15, 3
		first := db.store(t, midassql.Options{})
		var inboxes []*midassql.Inbox
		for range machines {
			store, err := midassql.New(db.open(), db.dialect, midassql.Options{TablePrefix: db.prefix})
			require.NoError(t, err)
			inboxes = append(inboxes, store.Inbox(midassql.InboxOptions{Poll: 10 * time.Millisecond}))
		}
		for p := range players {
			for n := range each {
				db.stored(t, first, inboxes[0], fmt.Sprint("player", p), fmt.Sprintf("-%d-%d", p, n))
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
		defer cancel()
		var mu sync.Mutex
		handed := make(map[string]int)
		busy := make(map[string]bool)
		var machinesDone sync.WaitGroup
		for _, inbox := range inboxes {
			machinesDone.Go(func() {
				inbox.Work(ctx, func(ctx context.Context, d *midas.Delivery) error {
					mu.Lock()
					assert.False(t, busy[d.OpenID], "two at once")
					busy[d.OpenID] = true
					handed[d.BillNo]++
					if len(handed) == players*each {
						cancel()
					}
					mu.Unlock()
					assert.NoError(t, db.PingContext(t.Context())) // takes a moment
					mu.Lock()
					defer mu.Unlock()
					busy[d.OpenID] = false
					return nil
				})
			})
		}
		machinesDone.Wait()
		require.Len(t, handed, players*each)
		for billNo, times := range handed {
			require.Equal(t, 1, times, billNo)
		}
		require.Zero(t, db.count(t, "SELECT COUNT(*) FROM inbox"))
	})
}

func TestAcceptedPaymentsAreLeasedUntilTheyAreDone(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		store := db.store(t, midassql.Options{})
		inbox := store.Inbox(midassql.InboxOptions{})
		db.stored(t, store, inbox, "player", "-1", "-2")
		accept := func(context.Context, *midas.Delivery) error { return midassql.ErrAccepted }
		require.Equal(t, []string{"-1", "-2"}, worked(t, inbox, 2, accept), "the second does not wait for the first's save")
		require.NoError(t, inbox.Done(t.Context(), "player", "-1"))
		db.pass(t, 32*time.Second) // the lease, and the wait after an attempt
		require.Equal(t, []string{"-2"}, worked(t, inbox, 1, accept))
	})
}

func TestZones(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		store := db.store(t, midassql.Options{})
		gateway := store.Inbox(midassql.InboxOptions{})
		for i, zone := range []string{"1", "1_8", "1_2", "1_2_7", "12", "2", "1`", "1-2", "9_1"} {
			token := fmt.Sprint("token", i)
			ordered(t, store, "player", token)
			require.NoError(t, gateway.Deliver(t.Context(), paid("player", token, "-"+zone, func(d *midas.Delivery) { d.ZoneID = zone })))
		}
		one := store.Inbox(midassql.InboxOptions{Zones: []string{"1"}})
		merged := store.Inbox(midassql.InboxOptions{Zones: []string{"1_2", "2"}})
		require.Equal(t, []string{"-1_2", "-1_2_7", "-2"}, waiting(t, merged, "player"), "several names, and with a role")
		for _, billNo := range []string{"-1_2", "-1_2_7", "-2"} {
			require.NoError(t, merged.Fail(t.Context(), "player", billNo, midassql.ErrNotNow))
		}
		idle, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond) // a worker names its zones
		defer cancel()
		merged.Work(idle, func(context.Context, *midas.Delivery) error { return midassql.ErrNotNow })
		require.Equal(t, []string{"-1", "-1_8"}, waiting(t, one, "player"), "the longest name wins")

		counts, err := gateway.Counts(t.Context())
		require.NoError(t, err)
		require.Equal(t, map[string]int64{"1": 1, "1_8": 1, "12": 1, "1`": 1, "1-2": 1, "9_1": 1}, counts.Unserved)
		require.EqualValues(t, 9, counts.Waiting)
		moved, err := gateway.MoveZone(t.Context(), "9", "2")
		require.NoError(t, err)
		require.EqualValues(t, 1, moved)
		require.Contains(t, waiting(t, merged, "player"), "-9_1")

		// A name that is gone does not count any more.
		moved, err = gateway.MoveZone(t.Context(), "1_2", "1")
		require.NoError(t, err)
		require.EqualValues(t, 2, moved)
		db.pass(t, time.Minute)
		one = store.Inbox(midassql.InboxOptions{Zones: []string{"1"}})
		require.Equal(t, []string{"-1", "-1_2", "-1_2_7", "-1_8"}, waiting(t, one, "player"))
	})
}

func TestCancelledPaymentsAreNotHandedOut(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		store := db.store(t, midassql.Options{})
		inbox := store.Inbox(midassql.InboxOptions{})
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
		for p, err := range store.Payments(t.Context(), midassql.Query{OpenID: "player", BillNo: "-1"}) {
			require.NoError(t, err)
			require.Equal(t, midassql.Cancelled, p.State)
			require.Equal(t, "refunded, ticket 7", p.Note)
		}
	})
}

// After a restore of the players from a backup, what was done since is handed out again, and
// a Done about a save from before it does not count.
func TestRetryAfterARestore(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		store := db.store(t, midassql.Options{})
		before := store.Inbox(midassql.InboxOptions{})
		db.stored(t, store, before, "player", "-1", "-2", "-3", "-4")
		require.Len(t, waiting(t, before, "player"), 4)
		for _, billNo := range []string{"-1", "-2", "-3"} { // -4 is accepted, not saved
			require.NoError(t, before.Done(t.Context(), "player", billNo))
		}
		require.NoError(t, store.Once(db.grant)(t.Context(), paid("player", "token of player-1", "-once")))
		db.must(t, "UPDATE deliveries SET done_ms = done_ms - 3600000 WHERE billno = '-1'")

		after := store.Inbox(midassql.InboxOptions{})
		put, err := after.Retry(t.Context(), midassql.RetryOptions{DoneFrom: time.Now().Add(-30 * time.Minute)})
		require.NoError(t, err)
		require.EqualValues(t, 2, put, "-1 was done before the backup, -once is not the players'")

		require.ErrorIs(t, before.Done(t.Context(), "player", "-2"), midassql.ErrRestored)
		require.NoError(t, before.Done(t.Context(), "player", "-4"), "this one was not put back")
		require.Equal(t, []string{"-2", "-3"}, waiting(t, after, "player"))
		require.NoError(t, after.Done(t.Context(), "player", "-2"))
		require.ErrorIs(t, before.Done(t.Context(), "player", "-2"), midassql.ErrRestored)
		require.NoError(t, after.Done(t.Context(), "player", "-3"))

		// A second restore.
		put, err = after.Retry(t.Context(), midassql.RetryOptions{OpenID: "player", DoneFrom: time.Now().Add(-30 * time.Minute)})
		require.NoError(t, err)
		require.EqualValues(t, 3, put)
		require.ErrorIs(t, after.Done(t.Context(), "player", "-2"), midassql.ErrRestored, "an Inbox from before it")
		require.Equal(t, []string{"-2", "-3", "-4"}, waiting(t, after, "player"), "until it is handed out there again")
		require.NoError(t, after.Done(t.Context(), "player", "-2"))
	})
}

func TestWhoIsWokenUp(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		store := db.store(t, midassql.Options{})
		var hooked atomic.Int32
		gateway := store.Inbox(midassql.InboxOptions{OnStored: func(_ context.Context, d *midas.Delivery) {
			assert.Equal(t, "-1", d.BillNo)
			hooked.Add(1)
		}})
		zone := store.Inbox(midassql.InboxOptions{Zones: []string{"1"}, Poll: time.Hour})
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		done := make(chan error, 1)
		idle := make(chan struct{})
		db.stored(t, store, store.Inbox(midassql.InboxOptions{}), "first", "-0")
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
		require.NoError(t, gateway.Deliver(t.Context(), paid("player", "token", "-1")))
		require.EqualValues(t, 1, hooked.Load(), "not for a repeat")
	})
}

// A new payment does not wait behind thousands of absent players.
func TestAbsentPlayersDoNotStarveNewOnes(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		store := db.store(t, midassql.Options{})
		inbox := store.Inbox(midassql.InboxOptions{Workers: 2})
		tx, err := db.BeginTx(t.Context(), nil)
		require.NoError(t, err)
		defer tx.Rollback()
		for i := range 2000 {
			_, err := tx.ExecContext(t.Context(), db.sql("INSERT INTO inbox (openid, billno, zone, stored_ms, due_ms) VALUES (?, '-', '1', 0, 99999999999999)"), fmt.Sprint("absent", i))
			require.NoError(t, err)
		}
		require.NoError(t, tx.Commit())
		db.stored(t, store, inbox, "player", "-1")
		require.Equal(t, []string{"-1"}, worked(t, inbox, 1, saved))
	})
}

func TestNilsAreErrors(t *testing.T) {
	t.Parallel()
	db := openDatabase(t, midassql.SQLite)
	db.SetMaxOpenConns(1)
	store := db.store(t, midassql.Options{})
	inbox := store.Inbox(midassql.InboxOptions{})
	var none context.Context
	require.ErrorContains(t, inbox.Deliver(none, paid("player", "token", "-1")), "context is nil")
	require.ErrorContains(t, inbox.Work(none, saved), "context is nil")
	require.ErrorContains(t, inbox.Work(t.Context(), nil), "work is nil")
	require.ErrorContains(t, inbox.Done(none, "player", "-1"), "context is nil")
	require.ErrorContains(t, inbox.Fail(none, "player", "-1", nil), "context is nil")
	require.ErrorContains(t, inbox.Cancel(none, "player", "-1", ""), "context is nil")
	require.ErrorContains(t, store.SaveOrder(none, midas.OrderRequest{OpenID: "player", Items: []midas.Item{gem}}, &midas.Order{Token: "token"}), "context is nil")
	require.ErrorContains(t, store.Migrate(none), "context is nil")
	for _, err := range inbox.Waiting(none, "player") {
		require.ErrorContains(t, err, "context is nil")
	}
	for _, err := range store.Payments(none, midassql.Query{OpenID: "player"}) {
		require.ErrorContains(t, err, "context is nil")
	}
	require.NoError(t, db.QueryRowContext(t.Context(), "SELECT 1").Scan(new(int)), "the connection is still there")
}
