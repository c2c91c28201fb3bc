package dbtest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midassql"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// exported are payments as an older backend has them.
func exported(payments ...*midas.Delivery) iter.Seq2[*midas.Delivery, error] {
	return func(yield func(*midas.Delivery, error) bool) {
		for _, d := range payments {
			if !yield(d, nil) {
				return
			}
		}
	}
}

// empty deletes what a case before this one stored.
func (db *database) empty(t testing.TB) {
	t.Helper()
	for _, table := range []string{"orders", "deliveries", "inbox", "refunds", "acts", "items"} {
		db.must(t, "DELETE FROM "+table)
	}
}

func onlyKnown(t testing.TB, store *midassql.Store) midassql.KnownPayment {
	t.Helper()
	result, err := store.Import(t.Context(), exported(paid("player", "token", "-1", ofOffer)))
	require.NoError(t, err)
	require.Len(t, result.Known, 1)
	require.Equal(t, midassql.ImportResult{Known: result.Known}, result)
	return result.Known[0]
}

func TestAnImportedPaymentIsDone(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		last := time.Date(2026, 10, 31, 23, 0, 0, 0, time.UTC)
		store := db.store(t, midassql.Options{Now: func() time.Time { return last.AddDate(0, 0, 10) }})
		inbox := newInbox(t, store, midassql.InboxOptions{})
		old := paid("player", "", "-1", func(d *midas.Delivery) {
			d.Time, d.Items, d.Charged, d.Numbers = last, nil, 999, []string{"4200001"}
		})
		ctx := midassql.By(t.Context(), "wang")
		for _, want := range []midassql.ImportResult{{New: 1}, {Repeats: 1}} {
			result, err := store.Import(ctx, exported(old))
			require.NoError(t, err)
			require.Equal(t, want, result)
		}
		p := onlyPayment(t, store, midassql.Query{OpenID: "player"})
		require.Equal(t, midassql.StateDone, p.State)
		require.Equal(t, "wang", p.SettledBy)
		require.Equal(t, "granted by an earlier backend", p.Note)
		require.True(t, p.Stored.Equal(last) && p.DoneAt.Equal(last), "it was granted then, not today")
		spent, err := store.Spent(ctx, []string{"player"}, last.AddDate(0, 0, -1), last.Add(time.Hour))
		require.NoError(t, err)
		require.EqualValues(t, 999, spent, "of last month")
		require.Equal(t, []string{"import player/-1 by wang: new"}, acts(t, store, midassql.Query{BillNo: "-1"}))

		// Its callback may come again, for an order that is not stored; it knows better what was paid.
		again := paid("player", "token", "-1", ofOffer)
		for range 2 {
			require.NoError(t, store.Once(db.grant)(ctx, again))
			require.NoError(t, inbox.Deliver(ctx, again))
		}
		granted, err := store.Settle(ctx, midassql.Settlement{Delivery: again, By: "li"}, db.grant)
		require.NoError(t, err)
		require.False(t, granted)
		p = onlyPayment(t, store, midassql.Query{OpenID: "player"})
		require.Equal(t, []any{"token", offer, charged, 5}, []any{p.Token, p.AppID, p.Charged, p.Repeats})
		require.Zero(t, db.count(t, "SELECT COUNT(*) FROM items"))

		// Nothing hands it out, also after a restore of the players.
		require.Empty(t, waiting(t, inbox, "player"))
		retried, err := inbox.Retry(ctx, midassql.RetryOptions{DoneFrom: time.Unix(1, 0)})
		require.NoError(t, err)
		require.Zero(t, retried.PutBack)

		// And its money may go back.
		var game teller
		half := midassql.Refund{ID: "R1", Number: "4200001", Amount: charged / 2}
		result, err := store.Refund(ctx, half, game.tell)
		require.NoError(t, err)
		require.Equal(t, midassql.RefundResult{Granted: true, Refunded: charged / 2, Charged: charged}, result)
		result, err = store.Refund(ctx, part("R2", charged/2), game.tell)
		require.NoError(t, err)
		require.Equal(t, midassql.RefundResult{Granted: true, Full: true, Refunded: charged, Charged: charged}, result)
		require.Equal(t, []bool{true, true}, game.told)
		require.NoError(t, store.Once(db.grant)(ctx, again))
		require.Zero(t, db.count(t, "SELECT COUNT(*) FROM items"))
	})
}

// A refund needs no more than openid and billno where the export had the offer id.
func TestARefundOfAnImportedPayment(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		store := db.store(t, midassql.Options{})
		_, err := store.Import(t.Context(), exported(paid("player", "", "-1", ofOffer), paid("player", "", "-2")))
		require.NoError(t, err)
		result, err := store.Refund(t.Context(), midassql.Refund{ID: "R1", OpenID: "player", BillNo: "-1"}, nil)
		require.NoError(t, err)
		require.Equal(t, midassql.RefundResult{Granted: true, Full: true, Charged: charged}, result)
		_, err = store.Refund(t.Context(), midassql.Refund{ID: "R2", OpenID: "player", BillNo: "-2"}, nil)
		var field *midas.FieldError
		require.ErrorAs(t, err, &field)
		require.Equal(t, "AppID", field.Field)
		_, err = store.Refund(t.Context(), midassql.Refund{ID: "R2", AppID: offer, OpenID: "player", BillNo: "-2"}, nil)
		require.NoError(t, err)
	})
}

// What the ledger has already, in each of its states.
func TestImportMeetsWhatIsHere(t *testing.T) {
	t.Parallel()
	deliver := func(t *testing.T, _ *database, store *midassql.Store, inbox *midassql.Inbox) {
		require.NoError(t, inbox.Deliver(t.Context(), paid("player", "token", "-1", ofOffer)))
	}
	handOut := func(t *testing.T, db *database, store *midassql.Store, inbox *midassql.Inbox) {
		deliver(t, db, store, inbox)
		require.Equal(t, []string{"-1"}, waiting(t, inbox, "player"))
	}
	grant := func(t *testing.T, db *database, store *midassql.Store, _ *midassql.Inbox) {
		require.NoError(t, store.Once(db.grant)(t.Context(), paid("player", "token", "-1", ofOffer)))
	}
	refund := func(amount midas.Amount) func(t *testing.T, _ *database, store *midassql.Store, _ *midassql.Inbox) {
		return func(t *testing.T, _ *database, store *midassql.Store, _ *midassql.Inbox) {
			_, err := store.Refund(t.Context(), part("R1", amount), nil)
			require.NoError(t, err)
		}
	}
	cancel := func(t *testing.T, _ *database, _ *midassql.Store, inbox *midassql.Inbox) {
		require.NoError(t, inbox.Cancel(t.Context(), "player", "-1", "charged back"))
	}
	type step = func(t *testing.T, db *database, store *midassql.Store, inbox *midassql.Inbox)
	tests := []struct {
		name    string
		before  []step
		met     midassql.State
		mayHave bool
		then    midassql.State
	}{
		{"waits", []step{deliver}, midassql.StateWaiting, false, midassql.StateDone},
		{"waits, a part of it back", []step{deliver, refund(100)}, midassql.StateWaiting, false, midassql.StateDone},
		{"is handed out", []step{handOut}, midassql.StateWaiting, true, midassql.StateDone},
		{"was put back after a restore of the players", []step{handOut,
			func(t *testing.T, _ *database, _ *midassql.Store, inbox *midassql.Inbox) {
				require.NoError(t, inbox.Done(t.Context(), "player", "-1"))
				retried, err := inbox.Retry(t.Context(), midassql.RetryOptions{DoneFrom: time.Unix(1, 0)})
				require.NoError(t, err)
				require.EqualValues(t, 1, retried.PutBack)
			}}, midassql.StateWaiting, true, midassql.StateDone},
		{"a part of it came back first", []step{refund(100)}, midassql.StateNoted, false, midassql.StateDone},
		{"all of it came back first", []step{refund(charged)}, midassql.StateNoted, false, midassql.StateDone},
		{"was granted", []step{grant}, midassql.StateDone, true, midassql.StateDone},
		{"was granted, and all of it came back", []step{grant, refund(charged)}, midassql.StateDone, true, midassql.StateDone},
		{"was handed out and is done", []step{handOut, func(t *testing.T, _ *database, _ *midassql.Store, inbox *midassql.Inbox) {
			require.NoError(t, inbox.Done(t.Context(), "player", "-1"))
		}}, midassql.StateDone, true, midassql.StateDone},
		{"was settled", []step{func(t *testing.T, db *database, store *midassql.Store, _ *midassql.Inbox) {
			_, err := store.Settle(t.Context(), midassql.Settlement{Delivery: paid("player", "", "-1", ofOffer), By: "import"}, db.grant)
			require.NoError(t, err)
		}}, midassql.StateDone, true, midassql.StateDone},
		{"was cancelled", []step{deliver, cancel}, midassql.StateCancelled, false, midassql.StateCancelled},
		{"was cancelled while it was handed out", []step{handOut, cancel}, midassql.StateCancelled, true, midassql.StateCancelled},
		{"all of it came back while it waited", []step{deliver, refund(charged)}, midassql.StateCancelled, false, midassql.StateCancelled},
		{"is broken", []step{grant, func(t *testing.T, db *database, _ *midassql.Store, _ *midassql.Inbox) {
			db.must(t, "UPDATE deliveries SET state = 3")
		}}, midassql.StateBroken, true, midassql.StateBroken},
	}
	isolations(t, func(t *testing.T, db *database) {
		store := db.store(t, midassql.Options{})
		for _, test := range tests {
			t.Run(test.name, func(t *testing.T) {
				db.empty(t)
				inbox := newInbox(t, store, midassql.InboxOptions{})
				ordered(t, store, "player", "token")
				for _, do := range test.before {
					do(t, db, store, inbox)
				}
				grants, refunded := db.count(t, "SELECT COUNT(*) FROM items"), onlyPayment(t, store, midassql.Query{OpenID: "player"}).Refunded
				for range 3 { // each run says the same, so one that was killed is no loss
					require.Equal(t, midassql.KnownPayment{OpenID: "player", BillNo: "-1", State: test.met, MayHave: test.mayHave}, onlyKnown(t, store))
				}
				p := onlyPayment(t, store, midassql.Query{OpenID: "player"})
				require.Equal(t, test.then, p.State)
				require.Equal(t, refunded, p.Refunded)
				require.Equal(t, test.then == midassql.StateCancelled, p.MayHave, "the earlier backend granted it")
				require.Zero(t, db.count(t, "SELECT COUNT(*) FROM inbox"))
				require.Equal(t, 1, db.count(t, "SELECT COUNT(*) FROM acts WHERE act = 'import'"))

				err := store.Once(db.grant)(t.Context(), paid("player", "token", "-1", ofOffer))
				if test.then == midassql.StateBroken {
					require.ErrorIs(t, err, midassql.ErrBroken)
				} else {
					require.NoError(t, err)
				}
				require.Equal(t, grants, db.count(t, "SELECT COUNT(*) FROM items"))
				retried, err := inbox.Retry(t.Context(), midassql.RetryOptions{DoneFrom: time.Unix(1, 0)})
				require.NoError(t, err)
				if test.name != "was handed out and is done" { // by this backend, so it is this backend's to hand out again
					require.Zero(t, retried.PutBack)
				}
			})
		}
	})
}

// The first has written and not committed when the second comes. Whoever is first: what this ledger granted
// stands in the result.
func TestAnImportAndACallbackInTheSameMoment(t *testing.T) {
	t.Parallel()
	isolations(t, func(t *testing.T, db *database) {
		store := db.store(t, midassql.Options{})
		for _, way := range []string{"Once", "Inbox"} {
			for _, importFirst := range []bool{true, false} {
				t.Run(fmt.Sprintf("%s, import first: %v", way, importFirst), func(t *testing.T) {
					db.empty(t)
					ordered(t, store, "player", "token")
					var result midassql.ImportResult
					imports := func(store *midassql.Store) (err error) {
						result, err = store.Import(t.Context(), exported(paid("other", "", "-0"), paid("player", "", "-1"), paid("other", "", "-2")))
						return err
					}
					calls := func(store *midassql.Store) error {
						deliver := store.Once(db.grant)
						if way == "Inbox" {
							deliver = newInbox(t, store, midassql.InboxOptions{}).Deliver
						}
						return deliver(t.Context(), paid("player", "token", "-1"))
					}
					first, second := calls, imports
					if importFirst {
						first, second = imports, calls
					}
					var meanwhile sync.WaitGroup
					begun := stopped(t, db, midassql.Options{}, func() {
						over := make(chan struct{})
						meanwhile.Go(func() {
							defer close(over)
							assert.NoError(t, second(store))
						})
						assert.True(t, db.AwaitWaiter(t, over), "the second did not wait for the first")
					})
					require.NoError(t, first(begun))
					meanwhile.Wait()

					grants := db.count(t, "SELECT COUNT(*) FROM items")
					require.Zero(t, db.count(t, "SELECT COUNT(*) FROM inbox"))
					require.Equal(t, midassql.StateDone, onlyPayment(t, store, midassql.Query{OpenID: "player"}).State)
					if importFirst {
						require.Equal(t, midassql.ImportResult{New: 3}, result)
						require.Zero(t, grants)
						return
					}
					known := midassql.KnownPayment{OpenID: "player", BillNo: "-1", State: midassql.StateWaiting}
					if way == "Once" {
						known.State, known.MayHave = midassql.StateDone, true
						require.Equal(t, 1, grants)
					}
					require.Equal(t, midassql.ImportResult{New: 2, Known: []midassql.KnownPayment{known}}, result)
				})
			}
		}
	})
}

// Callbacks and workers run while it imports: each callback is answered OK, and what a player got here stands in
// the result, and nothing else.
func TestCallbacksRunWhileItImports(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		const payments = 250 // half of each way
		store := db.store(t, midassql.Options{AcceptAppOrders: true})
		inbox := newInbox(t, store, midassql.InboxOptions{Workers: 2, Poll: time.Millisecond})
		var all []*midas.Delivery
		for i := range payments {
			all = append(all, paid(fmt.Sprint("player-", i%2), fmt.Sprint("token-", i), fmt.Sprint("-", i)))
		}
		var mu sync.Mutex
		handedOut := make(map[string]bool)
		ctx, stop := context.WithCancel(t.Context())
		var workers, callbacks sync.WaitGroup
		workers.Go(func() {
			inbox.Work(ctx, func(_ context.Context, d *midas.Delivery) error {
				mu.Lock()
				defer mu.Unlock()
				handedOut[d.BillNo] = true
				return nil
			})
		})
		begun := make(chan struct{}, payments)
		next := make(chan int)
		for range 4 {
			callbacks.Go(func() {
				for i := range next {
					deliver := inbox.Deliver
					if i%2 == 1 {
						deliver = store.Once(db.grant)
					}
					assert.NoError(t, deliver(t.Context(), all[i]))
					begun <- struct{}{}
				}
			})
		}
		callbacks.Go(func() { // from the end, so that the two meet
			for i := payments - 1; i >= 0; i-- {
				next <- i
			}
			close(next)
		})
		for range 20 {
			<-begun
		}
		result, err := store.Import(t.Context(), exported(all...))
		require.NoError(t, err)
		callbacks.Wait()
		again, err := store.Import(t.Context(), exported(all...))
		require.NoError(t, err)
		require.Equal(t, midassql.ImportResult{Repeats: result.New, Known: result.Known}, again)
		stop()
		workers.Wait()

		require.Equal(t, payments, result.New+len(result.Known))
		require.NotEmpty(t, result.Known)
		listed, granted := make(map[string]bool), make(map[string]bool)
		for _, k := range result.Known {
			if k.MayHave {
				listed[k.BillNo] = true
			}
		}
		rows, err := db.Query(db.sql("SELECT billno FROM items"))
		require.NoError(t, err)
		defer rows.Close()
		for rows.Next() {
			var billNo string
			require.NoError(t, rows.Scan(&billNo))
			require.False(t, granted[billNo], "granted twice here")
			granted[billNo] = true
			require.True(t, listed[billNo], "%s was granted here, and is not listed", billNo)
		}
		require.NoError(t, rows.Err())
		for billNo := range handedOut {
			require.True(t, listed[billNo], "%s was handed out here, and is not listed", billNo)
		}
		for i := 1; i < payments; i += 2 { // one that was leased may not have been handed out; of Once's it is known
			require.Equal(t, granted[all[i].BillNo], listed[all[i].BillNo])
		}
		require.Zero(t, db.count(t, "SELECT COUNT(*) FROM inbox"))
		require.Equal(t, payments, db.count(t, "SELECT COUNT(*) FROM deliveries WHERE state = 0"))
		t.Logf("of %d payments %d came here first, of which %d were granted or handed out", payments, len(result.Known), len(listed))
	})
}

// Batches stay, and the same import goes on after them.
func TestAnImportThatIsInterrupted(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		store := db.store(t, midassql.Options{})
		var all []*midas.Delivery
		for i := range 250 {
			all = append(all, paid("player", "", fmt.Sprint("-", i)))
		}
		unreadable := errors.New("line 251")
		result, err := store.Import(t.Context(), func(yield func(*midas.Delivery, error) bool) {
			for _, d := range all {
				yield(d, nil)
			}
			yield(nil, unreadable)
		})
		require.ErrorIs(t, err, unreadable)
		require.Equal(t, midassql.ImportResult{New: 250}, result, "what came before it")

		ctx, stop := context.WithCancel(t.Context())
		n := 0
		result, err = store.Import(ctx, func(yield func(*midas.Delivery, error) bool) {
			for _, d := range slices.Concat(all, []*midas.Delivery{paid("new", "", "-1"), paid("new", "", "-2")}) {
				if n++; n == 150 {
					stop()
				}
				if !yield(d, nil) {
					return
				}
			}
		})
		require.ErrorIs(t, err, context.Canceled)
		require.Equal(t, midassql.ImportResult{Repeats: 100}, result)
		require.Less(t, n, 252)

		twice := slices.Concat(all, []*midas.Delivery{paid("new", "", "-1"), paid("new", "", "-2"), paid("new", "", "-1")})
		result, err = store.Import(t.Context(), exported(twice...))
		require.NoError(t, err)
		require.Equal(t, midassql.ImportResult{New: 2, Repeats: 251}, result)
		result, err = store.Import(t.Context(), exported())
		require.NoError(t, err)
		require.Zero(t, result)
	})
}

// Two that import the same: each payment is new to one of them.
func TestTwoImportAtOnce(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		store := db.store(t, midassql.Options{})
		var all []*midas.Delivery
		for i := range 300 {
			all = append(all, paid("player", "", fmt.Sprint("-", i)))
		}
		backwards := slices.Clone(all)
		slices.Reverse(backwards)
		var results [2]midassql.ImportResult
		var both sync.WaitGroup
		for i, payments := range [][]*midas.Delivery{all, backwards} {
			both.Go(func() {
				var err error
				results[i], err = store.Import(t.Context(), exported(payments...))
				assert.NoError(t, err)
			})
		}
		both.Wait()
		require.Equal(t, 300, results[0].New+results[1].New)
		require.Equal(t, 300, results[0].Repeats+results[1].Repeats)
		require.Empty(t, results[0].Known)
		require.Empty(t, results[1].Known)
	})
}

func TestWhatImportRefuses(t *testing.T) {
	t.Parallel()
	db := openDatabase(t, sqlite)
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	store := db.store(t, midassql.Options{Now: func() time.Time { return now }})
	for _, test := range []struct {
		name   string
		change func(d *midas.Delivery)
		fields string // empty: it is taken
	}{
		{"the least", func(d *midas.Delivery) {
			*d = midas.Delivery{OpenID: "player", BillNo: "-least", Charged: 1, Time: time.Unix(1, 0)}
		}, ""},
		{"a clock that is ahead", func(d *midas.Delivery) { d.BillNo, d.Time = "-ahead", now.Add(24*time.Hour) }, ""},
		{"nobody's", func(d *midas.Delivery) { d.OpenID = "" }, "OpenID"},
		{"without a number", func(d *midas.Delivery) { d.BillNo = "" }, "BillNo"},
		{"a number with a blank", func(d *midas.Delivery) { d.BillNo = "-1 " }, "BillNo"},
		{"a token with a line end", func(d *midas.Delivery) { d.Token = "token\n" }, "Token"},
		{"an app with a full-width digit", func(d *midas.Delivery) { d.AppID = "145000000\uff10" }, "AppID"},
		{"a long zone", func(d *midas.Delivery) { d.ZoneID = strings.Repeat("1", 256) }, "ZoneID"},
		{"no charge", func(d *midas.Delivery) { d.Charged = 0 }, "Charged"},
		{"a negative charge", func(d *midas.Delivery) { d.Charged = -1 }, "Charged"},
		{"a charge in another unit", func(d *midas.Delivery) { d.Charged = 1_000_000_000_001 }, "Charged"},
		{"no time", func(d *midas.Delivery) { d.Time = time.Time{} }, "Time"},
		{"the beginning of time", func(d *midas.Delivery) { d.Time = time.Unix(0, 0) }, "Time"},
		{"milliseconds", func(d *midas.Delivery) { d.Time = time.Unix(now.UnixMilli(), 0) }, "Time"},
		{"an item that has no notation", func(d *midas.Delivery) { d.Items[0].ID = "a*b" }, "Items"},
		{"a type that is no number of 32 bits", func(d *midas.Delivery) { d.ProvideType = 1 << 31 }, "ProvideType"},
		{"no ids at all", func(d *midas.Delivery) { d.OpenID, d.BillNo = "", "" }, "OpenID BillNo"},
		{"several", func(d *midas.Delivery) { d.BillNo, d.Charged, d.Time = "-1\t", 0, time.Time{} }, "BillNo Charged Time"},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := paid("player", "token", "-1")
			test.change(d)
			err := store.CheckImport(d)
			result, imported := store.Import(t.Context(), exported(d))
			if test.fields == "" {
				require.NoError(t, err)
				require.NoError(t, imported)
				require.Equal(t, 1, result.New)
				return
			}
			require.Equal(t, "midassql: Import: "+strings.TrimPrefix(err.Error(), "midassql: CheckImport: "), imported.Error())
			require.Zero(t, result)
			var fields []string
			for _, err := range refusals(err) {
				fields = append(fields, err.Field)
			}
			require.Equal(t, test.fields, strings.Join(fields, " "))
		})
	}
	require.Error(t, store.CheckImport(nil))
	_, err := store.Import(t.Context(), exported(nil))
	require.ErrorContains(t, err, "Delivery")
	require.Equal(t, 2, db.count(t, "SELECT COUNT(*) FROM deliveries"))
}

// refusals returns each FieldError of err.
func refusals(err error) (all []*midas.FieldError) {
	switch e := err.(type) {
	case *midas.FieldError:
		return []*midas.FieldError{e}
	case interface{ Unwrap() error }:
		return refusals(e.Unwrap())
	case interface{ Unwrap() []error }:
		for _, err := range e.Unwrap() {
			all = append(all, refusals(err)...)
		}
	}
	return all
}

// An export of the sandbox stays out of the live tables.
func TestImportKnowsTheEnvironment(t *testing.T) {
	t.Parallel()
	db := openDatabase(t, sqlite)
	db.store(t, midassql.Options{Environment: "live"})
	sandbox, err := midassql.New(db.DB, db.dialect, midassql.Options{TablePrefix: db.prefix, Environment: "sandbox"})
	require.NoError(t, err)
	_, err = sandbox.Import(t.Context(), exported(paid("player", "", "-1")))
	require.ErrorIs(t, err, midassql.ErrEnvironment)
	require.Zero(t, db.count(t, "SELECT COUNT(*) FROM deliveries"))
}

// The counter-example of the issue: one backend at a time is switched, and the old one still grants. A callback
// that it granted and did not answer in time comes again, here. No import helps.
func TestABackendThatIsSwitchedWhileAnotherOneGrants(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		store := db.store(t, midassql.Options{AcceptAppOrders: true})
		d := paid("player", "token", "-1")
		grants := 0
		old := func(*midas.Delivery) { grants++ } // and its answer comes too late

		result, err := store.Import(t.Context(), exported())
		require.NoError(t, err)
		require.Zero(t, result)
		old(d)
		require.NoError(t, store.Once(func(context.Context, *sql.Tx, *midas.Delivery) error { grants++; return nil })(t.Context(), d))
		require.Equal(t, 2, grants)
		result, err = store.Import(t.Context(), exported(d))
		require.NoError(t, err)
		require.Equal(t, []midassql.KnownPayment{{OpenID: "player", BillNo: "-1", State: midassql.StateDone, MayHave: true}}, result.Known)
	})
}
