package dbtest

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midassql"
	"github.com/stretchr/testify/require"
)

// Vitess drops FOR UPDATE from a SELECT with a correlated subquery, and says nothing.
func TestNoLockStandsBesideASubquery(t *testing.T) {
	t.Parallel()
	on(t, func(t *testing.T, db *database) {
		store, seen := db.recordedStore(t)
		inbox := newInbox(t, store, midassql.InboxOptions{Zones: []string{"1"}})
		for _, billNo := range []string{"-1", "-2", "-3"} {
			ordered(t, store, "player", billNo)
			require.NoError(t, inbox.Deliver(t.Context(), paid("player", billNo, billNo)))
		}
		require.NotEmpty(t, worked(t, inbox, 1, func(context.Context, *midas.Delivery) error { return midassql.ErrNotNow }))
		require.NotEmpty(t, waiting(t, inbox, "player"))
		require.NoError(t, inbox.Cancel(t.Context(), "player", "-2", ""))
		_, err := store.Refund(t.Context(), midassql.Refund{ID: "r", AppID: "app", OpenID: "player", BillNo: "-3"}, nil)
		require.NoError(t, err)
		_, err = inbox.MoveZone(t.Context(), "1", "2")
		require.NoError(t, err)
		locks := 0
		for _, statement := range seen.statements() {
			if strings.Contains(statement.query, "FOR UPDATE") {
				locks++
				require.Equal(t, 1, strings.Count(statement.query, "SELECT"), statement.query)
			}
		}
		require.NotZero(t, locks)
	}, midassql.MySQL)
}

// Engines exist that accept SKIP LOCKED and do not lock (Vitess drops it from some plans). A claim is
// decided by what its UPDATE changed: here a second one has read what the first is about to commit.
func TestAClaimDoesNotRelyOnTheLocksOfItsSelect(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		store := db.store(t, midassql.Options{AcceptAppOrders: true})
		var removed, waited atomic.Int64
		// PostgreSQL's plan decides whether it looks at the row again: some rounds are enough to see both.
		for round := range 8 {
			billNo := fmt.Sprint("-", round)
			require.NoError(t, newInbox(t, store, midassql.InboxOptions{}).Deliver(t.Context(), paid(billNo, "token", billNo)))
			var handed atomic.Int64
			// work claims once, and calls before with its claim not yet committed.
			work := func(before func()) {
				ctx, stop := context.WithCancel(t.Context())
				defer stop()
				var claims atomic.Bool
				lockless := &recorder{rewrite: func(query string) string {
					without := strings.ReplaceAll(query, " FOR UPDATE SKIP LOCKED", "")
					if without != query {
						removed.Add(1)
					}
					if without != query || strings.Contains(query, "claims = claims + 1") {
						claims.Store(true)
					}
					return without
				}}
				lockless.commit = func() {
					if claims.Load() {
						before()
						stop()
					}
				}
				inbox := newInbox(t, lockless.store(t, db, midassql.Options{}), midassql.InboxOptions{})
				inbox.Work(ctx, func(context.Context, *midas.Delivery) error {
					handed.Add(1)
					return midassql.ErrAccepted
				})
			}
			var (
				once sync.Once
				both sync.WaitGroup
			)
			work(func() {
				once.Do(func() {
					over := make(chan struct{})
					both.Go(func() {
						defer close(over)
						work(func() {})
					})
					if db.AwaitWaiter(t, over) {
						waited.Add(1)
					}
				})
			})
			both.Wait()
			// A second lease takes the payment from the first one, which may then hand out nothing.
			require.Equal(t, 1, db.count(t, "SELECT claims FROM inbox WHERE billno = ?", billNo), "leases of one payment")
			require.EqualValues(t, 1, handed.Load(), "hand-outs of one payment")
		}
		if db.dialect != midassql.SQLite { // which locks no row, and where nobody sees who waits
			require.Positive(t, removed.Load(), "locks that the claims went without")
			require.Positive(t, waited.Load(), "claims of a row that another one was changing")
		}
	})
}

// MySQL's claim finds rows without a lock. One that another claim has given back since then, for later, is not due any more.
func TestAClaimLooksAgainAtWhatItLocks(t *testing.T) {
	t.Parallel()
	on(t, func(t *testing.T, db *database) {
		store := db.store(t, midassql.Options{AcceptAppOrders: true})
		require.NoError(t, newInbox(t, store, midassql.InboxOptions{}).Deliver(t.Context(), paid("player", "token", "-1")))
		later := func() { // a claim that gives the payment back
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			newInbox(t, db.store(t, midassql.Options{}), midassql.InboxOptions{}).Work(ctx, func(context.Context, *midas.Delivery) error {
				stop()
				return midassql.NotNow(time.Hour)
			})
		}
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		var locks atomic.Int64
		slow := &recorder{}
		slow.before = func(query string) error {
			if strings.Contains(query, "SKIP LOCKED") && locks.Add(1) == 1 {
				later()
			}
			return nil
		}
		slow.commit = func() {
			if locks.Load() > 0 {
				stop()
			}
		}
		newInbox(t, slow.store(t, db, midassql.Options{}), midassql.InboxOptions{}).Work(ctx, func(context.Context, *midas.Delivery) error {
			t.Error("handed out before the hour is over")
			return midassql.ErrAccepted
		})
		require.Equal(t, int64(1), locks.Load())
		require.Equal(t, 1, db.count(t, "SELECT claims FROM inbox"))
	}, midassql.MySQL)
}
