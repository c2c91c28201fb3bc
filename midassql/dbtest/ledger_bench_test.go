package dbtest

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midassql"
	"github.com/midas-go/midas/midassql/dbtest/testdb"
	"github.com/stretchr/testify/require"
)

var (
	history = flag.Int("history", 1000, "payments and orders in the tables before BenchmarkLedger begins, 1 % of them waiting for a zone that is down; 10 million take minutes to fill in")
	rounds  = flag.Int("rounds", 1, "how often BenchmarkLedger measures each call on the tables that it filled")
)

// BenchmarkLedger is what each call costs with -history payments in the tables, for players drawn at random.
// Compare the medians of runs with different histories: the cost must not grow with it.
//
//	go test -run '^$' -bench Ledger -benchtime 1000x -args -history 1000000 -rounds 5
func BenchmarkLedger(b *testing.B) {
	for _, k := range []testdb.Kind{postgreSQL, mariaDB, mySQL, sqlite} {
		b.Run(k.Name, func(b *testing.B) { benchmarkLedger(b, openDatabase(b, k)) })
	}
}

func benchmarkLedger(b *testing.B, db *database) {
	store := db.store(b, midassql.Options{})
	start := time.Now()
	db.withoutIndexes(b, func() { db.fill(b, *history) })
	db.waitElsewhere(b, *history/100, "2", "2")
	b.Logf("filled %d in %v", *history, time.Since(start).Round(time.Second))
	inbox := newInbox(b, store, midassql.InboxOptions{Zones: []string{"1"}})
	_, err := store.Purge(b.Context(), 50*365*24*time.Hour)
	require.NoError(b, err)
	var n atomic.Int64
	anyone := func() (openID, token string) {
		order := rand.N(*history)
		return openIDOf(playerOf(order, *history)), tokenOf(order)
	}
	next := func() *midas.Delivery {
		openID, token := anyone()
		return paid(openID, token, billNoOf(*history+int(n.Add(1))))
	}

	once := store.Once(db.grant)
	for range *rounds {
		for _, call := range []struct {
			name string
			call func(ctx context.Context) error
		}{
			{"Once", func(ctx context.Context) error { return once(ctx, next()) }},
			{"Deliver", func(ctx context.Context) error { return inbox.Deliver(ctx, next()) }},
			{"PurgeNothing", func(ctx context.Context) error {
				_, err := store.Purge(ctx, 50*365*24*time.Hour)
				return err
			}},
			{"LookUp", func(ctx context.Context) error {
				openID, _ := anyone()
				for range store.Payments(ctx, midassql.Query{OpenID: openID}) {
				}
				return nil
			}},
			{"WaitingNothing", func(ctx context.Context) error {
				for _, err := range inbox.Waiting(ctx, "nobody") {
					return err
				}
				return nil
			}},
		} {
			b.Run(call.name, func(b *testing.B) {
				for b.Loop() {
					require.NoError(b, call.call(b.Context()))
				}
			})
		}
		// A claim and its Done, of what Deliver has stored.
		b.Run("ClaimAndDone", func(b *testing.B) {
			db.must(b, "DELETE FROM inbox WHERE zone = '1'")
			b.StopTimer()
			for range b.N {
				require.NoError(b, inbox.Deliver(b.Context(), next()))
			}
			b.StartTimer()
			handleAll(b, inbox, b.N)
		})
	}
}

// handleAll runs Work until n payments are done.
func handleAll(b *testing.B, inbox *midassql.Inbox, n int) {
	ctx, cancel := context.WithTimeout(b.Context(), 5*time.Minute)
	defer cancel()
	var handled atomic.Int64
	inbox.Work(ctx, func(context.Context, *midas.Delivery) error {
		if handled.Add(1) == int64(n) {
			cancel()
		}
		return nil
	})
	if handled.Load() != int64(n) {
		b.Errorf("%d payments were handed out, want %d", handled.Load(), n)
	}
}

// BenchmarkInbox is Deliver and Work beside Once, on the same database with the same callers: what
// a payment costs that is handed on.
func BenchmarkInbox(b *testing.B) {
	for _, k := range []testdb.Kind{postgreSQL, mariaDB, sqlite} {
		b.Run(k.Name, func(b *testing.B) {
			db := openDatabase(b, k)
			store := db.store(b, midassql.Options{})
			db.fill(b, 20_000) // what plans are for
			const players = 1000
			for i := range players {
				ordered(b, store, fmt.Sprint("payer", i), fmt.Sprint("order", i))
			}
			var n atomic.Int64
			deliverAll := func(b *testing.B, deliver midas.DeliverFunc) {
				b.SetParallelism(8)
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						i := n.Add(1)
						if err := deliver(b.Context(), paid(fmt.Sprint("payer", i%players), fmt.Sprint("order", i%players), fmt.Sprint("-paid", i))); err != nil {
							b.Error(err)
						}
					}
				})
			}
			b.Run("Once", func(b *testing.B) { deliverAll(b, store.Once(db.grant)) })
			b.Run("DeliverAndWork", func(b *testing.B) {
				inbox := newInbox(b, store, midassql.InboxOptions{Zones: []string{"1"}, Workers: 64})
				done := make(chan struct{})
				go func() {
					defer close(done)
					handleAll(b, inbox, b.N)
				}()
				deliverAll(b, inbox.Deliver)
				<-done
			})
		})
	}
}
