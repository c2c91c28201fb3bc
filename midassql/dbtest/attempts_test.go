package dbtest

import (
	"context"
	"database/sql"
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
	"github.com/midas-go/midas/midastest"
	"github.com/stretchr/testify/require"
)

func attempts(t testing.TB, store *midassql.Store, q midassql.Query) (all []*midassql.Attempt) {
	t.Helper()
	for a, err := range store.Attempts(t.Context(), q) {
		require.NoError(t, err)
		all = append(all, a)
	}
	return all
}

// failedCallback is the event of a callback that was answered ret 1.
func failedCallback(billNo, why string) midas.CallbackEvent {
	return midas.CallbackEvent{Outcome: midas.Failed, Ret: 1, OpenID: "player", BillNo: billNo, Token: "token", Err: errors.New(why)}
}

// Through the handler: what Midas was not answered OK is kept, what was and what nobody signed is not.
func TestCallbacksThatWereNotAnsweredOKAreKept(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		store := db.store(t, midassql.Options{})
		fake := midastest.NewServer(midastest.Config{Errorf: t.Errorf})
		defer fake.Close()
		client, err := midas.New(midas.Config{AppID: fake.AppID(), AppKey: fake.AppKey(), Gateway: fake.Gateway(), DeliveryPath: "/pay/notify", OnCallback: store.OnCallback})
		require.NoError(t, err)
		fails := true
		fake.DeliverToHandler(client.DeliveryHandler(store.Once(func(ctx context.Context, tx *sql.Tx, d *midas.Delivery) error {
			if fails {
				fails = false
				return errors.New("the bag is full")
			}
			return db.grant(ctx, tx, d)
		})), "/pay/notify")
		order := func(openID string) *midas.Order {
			req := midas.OrderRequest{Player: midas.Player{Login: midas.QQ, OpenID: openID, OpenKey: "key", PF: "qq_m_qq-2001-android-2011-xxxx", PFKey: "pfkey"},
				Items: []midas.Item{gem}, GoodsName: "gems", GoodsDescription: "gems"}
			order, err := client.CreateOrder(t.Context(), req)
			require.NoError(t, err)
			if openID != "forgotten" {
				require.NoError(t, store.SaveOrder(t.Context(), req, order))
			}
			return order
		}
		kept := order("player")
		receipt, err := fake.Pay(t.Context(), kept.Token)
		require.NoError(t, err)
		unknown, err := fake.Pay(t.Context(), order("forgotten").Token)
		require.NoError(t, err)
		_, err = fake.Pay(t.Context(), order("lucky").Token)
		require.NoError(t, err)
		require.NoError(t, client.Wait(t.Context()))
		require.NoError(t, store.Wait(t.Context()))

		require.Equal(t, 2, db.count(t, "SELECT COUNT(*) FROM attempts"))
		for _, q := range []midassql.Query{{OpenID: "player"}, {BillNo: receipt.BillNo}, {Token: kept.Token}, {OpenID: "player", From: time.Now().Add(-time.Minute), To: time.Now().Add(time.Minute)}} {
			all := attempts(t, store, q)
			require.Len(t, all, 1, "%+v", q)
			a := all[0]
			require.Equal(t, []string{"player", receipt.BillNo, kept.Token, "failed"}, []string{a.OpenID, a.BillNo, a.Token, string(a.Outcome)})
			require.Equal(t, 1, a.Ret)
			require.False(t, a.Late)
			require.Contains(t, a.Error, "the bag is full")
			require.WithinDuration(t, time.Now(), a.Time, time.Minute)
		}
		all := attempts(t, store, midassql.Query{BillNo: unknown.BillNo})
		require.Len(t, all, 1)
		require.Equal(t, 1, all[0].Ret, "a young callback without an order is asked for again")
		require.Contains(t, all[0].Error, "no order")
	})
}

func TestOfAPaymentTheLastFiveAttemptsAreKept(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		c := clockAt(time.UnixMilli(1707393600123))
		store := db.store(t, midassql.Options{Now: c.now})
		errorsOf := func(billNo string) (all []string) {
			for _, a := range attempts(t, store, midassql.Query{BillNo: billNo}) {
				all = append(all, a.Error)
			}
			return all
		}
		for i := range 7 {
			c.add(time.Millisecond)
			store.OnCallback(failedCallback("-1", fmt.Sprint("error ", i)))
			if i%3 == 0 {
				require.NoError(t, store.Wait(t.Context()))
			}
			store.OnCallback(failedCallback(fmt.Sprint("-other", i), "error"))
		}
		require.NoError(t, store.Wait(t.Context()))
		require.Equal(t, []string{"error 2", "error 3", "error 4", "error 5", "error 6"}, errorsOf("-1"))
		require.Equal(t, c.now().UnixMilli(), attempts(t, store, midassql.Query{BillNo: "-1"})[4].Time.UnixMilli())
		require.Equal(t, 5+7, db.count(t, "SELECT COUNT(*) FROM attempts"))

		// Late, odd and long ones.
		store.OnCallback(midas.CallbackEvent{Outcome: midas.Delivered, Late: true, OpenID: "player", BillNo: "-late"})
		store.OnCallback(midas.CallbackEvent{Outcome: midas.HungUp, OpenID: "player", BillNo: "-hung-up"})
		store.OnCallback(midas.CallbackEvent{Outcome: midas.Malformed, Ret: 4, OpenID: "player\x00", BillNo: strings.Repeat("长", 100), Err: errors.New(strings.Repeat("错", 1000))})
		store.OnCallback(midas.CallbackEvent{Outcome: midas.Panicked, Ret: 1, OpenID: "player", BillNo: "-panicked", Err: panics{}})
		store.OnCallback(midas.CallbackEvent{Outcome: midas.Delivered, OpenID: "player", BillNo: "-fine"})
		store.OnCallback(midas.CallbackEvent{Outcome: midas.Unverified, Ret: 4, Err: midas.ErrSignature})
		require.NoError(t, store.Wait(t.Context()))
		require.True(t, attempts(t, store, midassql.Query{BillNo: "-late"})[0].Late)
		require.Zero(t, attempts(t, store, midassql.Query{BillNo: "-hung-up"})[0].Ret)
		require.Contains(t, errorsOf("-panicked")[0], "in Error")
		clipped := attempts(t, store, midassql.Query{OpenID: "player?"})
		require.Len(t, clipped, 1)
		require.Len(t, clipped[0].Error, 255)
		require.Len(t, clipped[0].BillNo, 255)
		require.Equal(t, 5+7+4, db.count(t, "SELECT COUNT(*) FROM attempts"))
	})
}

type panics struct{}

func (panics) Error() string { panic("in Error") }

func TestAttemptsAreDeletedAfterTheirTime(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		start := time.UnixMilli(1707393600000)
		c := clockAt(start)
		store := db.store(t, midassql.Options{Now: c.now})
		keep := func(billNo string) {
			store.OnCallback(failedCallback(billNo, "error"))
			require.NoError(t, store.Wait(t.Context()))
		}
		left := func() (billNos []string) {
			for _, a := range attempts(t, store, midassql.Query{OpenID: "player"}) {
				billNos = append(billNos, a.BillNo)
			}
			return billNos
		}
		for i := range 250 { // more than one batch
			store.OnCallback(failedCallback(fmt.Sprintf("-old%03d", i), "error"))
		}
		keep("-old")
		c.set(start.Add(time.Hour))
		keep("-young")
		c.set(start.Add(30 * 24 * time.Hour))
		_, err := store.Purge(t.Context(), 30*24*time.Hour)
		require.NoError(t, err)
		require.Len(t, left(), 252, "not one that is just 30 days old")
		c.add(time.Millisecond)
		_, err = store.Purge(t.Context(), 30*24*time.Hour)
		require.NoError(t, err)
		require.Equal(t, []string{"-young"}, left())

		// Without Purge, too, once an hour.
		c.set(start.Add(31 * 24 * time.Hour))
		keep("-new")
		for range 3 { // on a busy machine it may exceed its time limit; then it is tried again an hour later
			if !slices.Contains(left(), "-young") {
				break
			}
			c.add(time.Hour)
			keep("-new")
		}
		require.Equal(t, []string{"-new"}, slices.Compact(left()))

		off := db.store(t, midassql.Options{AttemptsKept: -1})
		off.OnCallback(failedCallback("-off", "error"))
		require.NoError(t, off.Wait(t.Context()))
		require.Equal(t, []string{"-new"}, slices.Compact(left()))
		week := db.store(t, midassql.Options{Now: c.now, AttemptsKept: 7 * 24 * time.Hour})
		c.add(7*24*time.Hour + time.Millisecond)
		_, err = week.Purge(t.Context(), 30*24*time.Hour)
		require.NoError(t, err)
		require.Empty(t, left())
	})
}

// What a busy day left is deleted whether or not another callback fails, and not 100 an hour.
func TestManyOldAttemptsAreDeletedTogether(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		c := clockAt(time.UnixMilli(1707393600000))
		var logged lines
		store := db.store(t, midassql.Options{Now: c.now, Logger: slog.New(slog.NewTextHandler(&logged, nil))})
		for i := range 350 {
			store.OnCallback(failedCallback(fmt.Sprintf("-old%03d", i), "error"))
		}
		require.NoError(t, store.Wait(t.Context()))
		require.Equal(t, 350, db.count(t, "SELECT COUNT(*) FROM attempts"))
		c.add(31 * 24 * time.Hour)
		deleted := func() bool { return db.count(t, "SELECT COUNT(*) FROM attempts WHERE billno LIKE '-old%'") == 0 }
		tooSlow := func() int { return strings.Count(logged.String(), "cannot be deleted") } // on a busy machine: then in an hour
		for hours := 0; !deleted(); hours++ {
			require.LessOrEqual(t, hours, tooSlow(), "100 an hour")
			before := tooSlow()
			store.OnCallback(failedCallback("-new", "error"))
			require.Eventually(t, func() bool { return deleted() || tooSlow() > before }, 5*time.Minute, 20*time.Millisecond)
			c.add(time.Hour)
		}
	})
}

// Nothing that the goroutine behind OnCallback calls ends the process.
func TestAPanicWhileOldAttemptsAreDeletedCostsNothing(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		db.store(t, midassql.Options{})
		var logged lines
		fails := errors.New("the look-up of old attempts fails")
		store := (&recorder{before: func(query string) error {
			if strings.Contains(query, "WHERE tried_ms <") {
				return fails
			}
			return nil
		}}).store(t, db, midassql.Options{Logger: slog.New(slog.NewTextHandler(&logged, nil)), Classify: func(err error) midassql.Class {
			if errors.Is(err, fails) {
				panic("in Classify")
			}
			return db.dialect.Classify(err)
		}})
		store.OnCallback(failedCallback("-1", "error"))
		require.NoError(t, store.Wait(t.Context()))
		require.Len(t, attempts(t, store, midassql.Query{OpenID: "player"}), 1)
		require.Contains(t, logged.String(), "panic: in Classify")
	})
}

// The statement that stores attempts hangs, in a driver that minds no context. Every callback is answered as
// if there were no attempts, though the pool has but one connection more: if a single one waited for the
// attempts, this test would not end. (SQLite has one writer at a time: a batch takes its turn there.)
func TestAttemptsThatHangDelayAndChangeNoAnswer(t *testing.T) {
	t.Parallel()
	on(t, func(t *testing.T, db *database) {
		db.store(t, midassql.Options{})
		hangs, release := make(chan struct{}), make(chan struct{})
		var hung atomic.Int64
		seen := &recorder{before: func(query string) error {
			if strings.Contains(query, db.prefix+"attempts") {
				if hung.Add(1) == 1 {
					close(hangs)
				}
				<-release
			}
			return nil
		}}
		pool := seen.between(db)
		pool.SetMaxOpenConns(2)
		t.Cleanup(func() { pool.Close() })
		store, err := midassql.New(pool, db.dialect, midassql.Options{TablePrefix: db.prefix})
		require.NoError(t, err)
		ordered(t, store, "player", "token")
		store.OnCallback(failedCallback("-hangs", "error"))
		<-hangs

		deliver := store.Once(func(ctx context.Context, tx *sql.Tx, d *midas.Delivery) error {
			if d.BillNo[1] == 'f' {
				return errors.New("the bag is full")
			}
			return db.grant(ctx, tx, d)
		})
		var all sync.WaitGroup
		for i := range 20 {
			all.Go(func() {
				fails := deliver(t.Context(), paid("player", "token", fmt.Sprint("-f", i)))
				store.OnCallback(failedCallback(fmt.Sprint("-f", i), fmt.Sprint(fails)))
				if midas.ReplyTo(fails).Ret() != 1 || !strings.Contains(fmt.Sprint(fails), "the bag is full") {
					t.Errorf("answered %v", fails)
				}
				if err := deliver(t.Context(), paid("player", "token", fmt.Sprint("-ok", i))); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		for i := range 2000 { // what does not fit is dropped, never waited for
			store.OnCallback(failedCallback(fmt.Sprint("-more", i), "error"))
		}
		require.EqualValues(t, 1, hung.Load(), "it takes one connection, not more")
		require.Equal(t, 20, db.count(t, "SELECT COUNT(*) FROM items"))
		ended, end := context.WithCancel(t.Context())
		end()
		require.ErrorIs(t, store.Wait(ended), context.Canceled)

		close(release)
		require.NoError(t, store.Wait(t.Context()))
		require.Equal(t, 1001, db.count(t, "SELECT COUNT(*) FROM attempts"), "the one that hung, and the newest thousand")
	}, midassql.PostgreSQL, midassql.MySQL)
}

// What the database did not take is stored once it does, the newest thousand, and the log says so.
func TestAttemptsOfADatabaseThatFailedAreStoredLater(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		db.store(t, midassql.Options{})
		var fails atomic.Bool
		fails.Store(true)
		failed := make(chan struct{}, 1)
		seen := &recorder{before: func(query string) error {
			if strings.Contains(query, db.prefix+"attempts") && fails.Load() {
				select {
				case failed <- struct{}{}:
				default:
				}
				return errors.New("no space left")
			}
			return nil
		}}
		pool := seen.between(db)
		t.Cleanup(func() { pool.Close() })
		logged := new(lines)
		store, err := midassql.New(pool, db.dialect, midassql.Options{TablePrefix: db.prefix, Logger: slog.New(slog.NewTextHandler(logged, nil))})
		require.NoError(t, err)
		store.OnCallback(failedCallback("-first", "error"))
		<-failed
		for i := range 1500 {
			store.OnCallback(failedCallback(fmt.Sprintf("-%04d", i), "error"))
		}
		fails.Store(false)
		require.NoError(t, store.Wait(t.Context()))
		var billNos []string
		for _, a := range attempts(t, store, midassql.Query{OpenID: "player"}) { // three pages
			billNos = append(billNos, a.BillNo)
		}
		require.Len(t, billNos, 1001)
		require.Contains(t, billNos, "-first")
		require.Contains(t, billNos, "-0500")
		require.NotContains(t, billNos, "-0499")
		require.Contains(t, logged.String(), "no space left")
		require.Contains(t, logged.String(), "missed=500")
		require.NotContains(t, logged.String(), "level=ERROR", "a callback's own line is the error")
	})
}
