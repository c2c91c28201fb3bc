package dbtest

import (
	"fmt"
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

// isolations are the databases with each isolation that a server may have as its default. SQLite has one.
func isolations(t *testing.T, test func(t *testing.T, db *database)) {
	for _, of := range []struct {
		kind                testdb.Kind
		name, option, shown string
	}{
		{postgreSQL, "read committed", "default_transaction_isolation=read committed", "SHOW transaction_isolation"},
		{postgreSQL, "repeatable read", "default_transaction_isolation=repeatable read", "SHOW transaction_isolation"},
		{mariaDB, "READ-COMMITTED", "tx_isolation='READ-COMMITTED'", "SELECT @@tx_isolation"},
		{mariaDB, "REPEATABLE-READ", "tx_isolation='REPEATABLE-READ'", "SELECT @@tx_isolation"},
		{mySQL, "READ-COMMITTED", "transaction_isolation='READ-COMMITTED'", "SELECT @@transaction_isolation"},
		{mySQL, "REPEATABLE-READ", "transaction_isolation='REPEATABLE-READ'", "SELECT @@transaction_isolation"},
		{sqlite, "serial", "_txlock=immediate", "SELECT 'serial'"},
	} {
		t.Run(of.kind.Name+" "+of.name, func(t *testing.T) {
			db := openDatabase(t, of.kind, of.option)
			var name string
			require.NoError(t, db.QueryRow(of.shown).Scan(&name))
			require.Equal(t, of.name, name)
			test(t, db)
		})
	}
}

// stopped returns a Store whose first transaction that writes a payment calls meanwhile before its COMMIT.
func stopped(t *testing.T, db *database, opts midassql.Options, meanwhile func()) *midassql.Store {
	var writes, called atomic.Bool
	r := &recorder{rewrite: func(query string) string {
		if write := strings.HasPrefix(query, "INSERT") || strings.HasPrefix(query, "UPDATE"); write && strings.Contains(query, db.prefix+"deliveries") {
			writes.Store(true)
		}
		return query
	}}
	r.commit = func() {
		if writes.Load() && called.CompareAndSwap(false, true) {
			meanwhile()
		}
	}
	return r.store(t, db, opts)
}

// Two of them in the same moment: the first has written and not committed when the second comes. Whoever is
// first, the player has either the items or all of the money, the game is told which, and nothing is lost.
func TestAPaymentAndItsRefundsInTheSameMoment(t *testing.T) {
	t.Parallel()
	type call struct {
		name   string
		amount midas.Amount // of a refund; 0: the payment comes
	}
	payment, full, one, other := call{"the payment", 0}, call{"all of it", charged}, call{"a half", charged / 2}, call{"the other half", charged / 2}
	for _, test := range []struct {
		name                string
		before, both, after []call
		once, inbox         midassql.State
		toldOnce, toldInbox []bool
		refunded            midas.Amount
	}{
		{name: "two callbacks", both: []call{payment, payment}, once: midassql.StateDone, inbox: midassql.StateWaiting},
		{name: "the payment and all of it back", both: []call{payment, full}, refunded: charged,
			once: midassql.StateDone, toldOnce: []bool{true}, inbox: midassql.StateCancelled, toldInbox: []bool{false}},
		{name: "all of it back and the payment", both: []call{full, payment}, refunded: charged,
			once: midassql.StateCancelled, toldOnce: []bool{false}, inbox: midassql.StateCancelled, toldInbox: []bool{false}},
		{name: "the payment and a half back", both: []call{payment, one}, refunded: charged / 2,
			once: midassql.StateDone, toldOnce: []bool{true}, inbox: midassql.StateWaiting, toldInbox: []bool{false}},
		{name: "a half back and the payment", both: []call{one, payment}, refunded: charged / 2,
			once: midassql.StateDone, toldOnce: []bool{false}, inbox: midassql.StateWaiting, toldInbox: []bool{false}},
		{name: "two halves back", before: []call{payment}, both: []call{one, other}, refunded: charged,
			once: midassql.StateDone, toldOnce: []bool{true, true}, inbox: midassql.StateCancelled, toldInbox: []bool{false, false}},
		{name: "two halves back before the payment", both: []call{one, other}, after: []call{payment}, refunded: charged,
			once: midassql.StateCancelled, toldOnce: []bool{false, false}, inbox: midassql.StateCancelled, toldInbox: []bool{false, false}},
		{name: "the same half back twice", before: []call{payment}, both: []call{one, one}, refunded: charged / 2,
			once: midassql.StateDone, toldOnce: []bool{true}, inbox: midassql.StateWaiting, toldInbox: []bool{false}},
		{name: "the same early half back twice", both: []call{one, one}, after: []call{payment}, refunded: charged / 2,
			once: midassql.StateDone, toldOnce: []bool{false}, inbox: midassql.StateWaiting, toldInbox: []bool{false}},
		{name: "a half back before, the payment and the other half", before: []call{one}, both: []call{payment, other}, refunded: charged,
			once: midassql.StateDone, toldOnce: []bool{false, true}, inbox: midassql.StateCancelled, toldInbox: []bool{false, false}},
		{name: "a half back before, the other half and the payment", before: []call{one}, both: []call{other, payment}, refunded: charged,
			once: midassql.StateCancelled, toldOnce: []bool{false, false}, inbox: midassql.StateCancelled, toldInbox: []bool{false, false}},
	} {
		for _, way := range []string{"Once", "Inbox"} {
			t.Run(test.name+", "+way, func(t *testing.T) {
				t.Parallel()
				isolations(t, func(t *testing.T, db *database) {
					store := db.store(t, midassql.Options{})
					ordered(t, store, "player", "token")
					var game teller
					do := func(store *midassql.Store, c call) error {
						if c.amount > 0 {
							_, err := store.Refund(t.Context(), part(c.name, c.amount), game.tell)
							return err
						}
						deliver := store.Once(db.grant)
						if way == "Inbox" {
							deliver = newInbox(t, store, midassql.InboxOptions{}).Deliver
						}
						return deliver(t.Context(), paid("player", "token", "-1", ofOffer))
					}
					for _, c := range test.before {
						require.NoError(t, do(store, c))
					}
					var second sync.WaitGroup
					first := stopped(t, db, midassql.Options{}, func() {
						over := make(chan struct{})
						second.Go(func() {
							defer close(over)
							assert.NoError(t, do(store, test.both[1]))
						})
						assert.True(t, db.AwaitWaiter(t, over), "the second did not wait for the first")
					})
					require.NoError(t, do(first, test.both[0]))
					second.Wait()
					for range 2 {
						for _, c := range append(append(test.before, test.both...), test.after...) { // all of them again
							require.NoError(t, do(store, c))
						}
					}

					state, told := test.once, test.toldOnce
					if way == "Inbox" {
						state, told = test.inbox, test.toldInbox
					}
					p := onlyPayment(t, store, midassql.Query{OpenID: "player"})
					require.Equal(t, state, p.State)
					require.Equal(t, told, game.told)
					require.Equal(t, test.refunded, p.Refunded)
					require.Equal(t, state == midassql.StateDone, db.count(t, "SELECT COUNT(*) FROM items") == 1)
					require.Equal(t, state == midassql.StateWaiting, db.count(t, "SELECT COUNT(*) FROM inbox") == 1)
				})
			})
		}
	}
}

// A refund in full and Retry in the same moment: in the end nothing waits, and the game is told that the
// player may have the items.
func TestARefundAndRetryInTheSameMoment(t *testing.T) {
	t.Parallel()
	for _, refundFirst := range []bool{true, false} {
		t.Run(fmt.Sprint("the refund is first: ", refundFirst), func(t *testing.T) {
			t.Parallel()
			isolations(t, func(t *testing.T, db *database) {
				store := db.store(t, midassql.Options{AcceptAppOrders: true})
				inbox := newInbox(t, store, midassql.InboxOptions{})
				require.NoError(t, inbox.Deliver(t.Context(), paid("player", "token", "-1", ofOffer)))
				require.NoError(t, inbox.Done(t.Context(), "player", "-1"))
				var game teller
				refund := func(store *midassql.Store) {
					_, err := store.Refund(t.Context(), part("R1", charged), game.tell)
					assert.NoError(t, err)
				}
				retry := func(store *midassql.Store) {
					_, err := newInbox(t, store, midassql.InboxOptions{}).Retry(t.Context(), midassql.RetryOptions{DoneFrom: time.Now().Add(-time.Hour)})
					assert.NoError(t, err)
				}
				first, second := retry, refund
				if refundFirst {
					first, second = refund, retry
				}
				var both sync.WaitGroup
				first(stopped(t, db, midassql.Options{}, func() {
					over := make(chan struct{})
					both.Go(func() {
						defer close(over)
						second(store)
					})
					assert.True(t, db.AwaitWaiter(t, over), "the second did not wait for the first")
				}))
				both.Wait()
				require.Zero(t, db.count(t, "SELECT COUNT(*) FROM inbox"))
				require.Equal(t, []bool{true}, game.told)
				p := onlyPayment(t, store, midassql.Query{OpenID: "player"})
				require.True(t, p.RefundedInFull)
				require.NotEqual(t, midassql.StateWaiting, p.State)
			})
		})
	}
}
