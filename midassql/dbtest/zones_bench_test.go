package dbtest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midassql"
	"github.com/midas-go/midas/midassql/dbtest/testdb"
)

// BenchmarkZones is Deliver in a process that works on one zone, on a hundred, and on a hundred where each
// payment wakes every Work instead of those of its zone: what each of these looks costs. Compare them within
// one run; see .ci/databases.
func BenchmarkZones(b *testing.B) {
	for _, k := range []testdb.Kind{postgreSQL, mariaDB, mySQL} {
		b.Run(k.Name, func(b *testing.B) {
			db := openDatabase(b, k)
			store := db.store(b, midassql.Options{AcceptAppOrders: true})
			var n atomic.Int64
			for _, contender := range []struct {
				name      string
				zones     int
				wakeEvery bool
			}{{"one", 1, false}, {"hundred", 100, false}, {"wakesEvery", 100, true}} {
				b.Run(contender.name, func(b *testing.B) {
					inboxes, zone := make([]*midassql.Inbox, contender.zones), func(i int) string { return fmt.Sprint(contender.name, i) }
					ctx, cancel := context.WithCancel(b.Context())
					var working sync.WaitGroup
					defer working.Wait()
					defer cancel()
					for i := range inboxes {
						inboxes[i] = newInbox(b, store, midassql.InboxOptions{Zones: []string{zone(i)}, Poll: time.Minute})
						working.Go(func() { inboxes[i].Work(ctx, func(context.Context, *midas.Delivery) error { return nil }) })
					}
					for db.count(b, "SELECT COUNT(*) FROM zones WHERE name LIKE '"+contender.name+"%'") < contender.zones {
						time.Sleep(time.Millisecond) // until each of them works
					}
					b.SetParallelism(4) // callers a core
					b.ResetTimer()
					b.RunParallel(func(pb *testing.PB) {
						for pb.Next() {
							payment, i := fmt.Sprint(n.Add(1)), rand.N(len(inboxes))
							d := paid("player"+payment, "token", "-"+payment, func(d *midas.Delivery) { d.ZoneID = zone(i) })
							if err := inboxes[i].Deliver(b.Context(), d); err != nil {
								b.Error(err)
							}
							if contender.wakeEvery {
								for _, inbox := range inboxes {
									inbox.Wake()
								}
							}
						}
					})
					b.StopTimer()
				})
			}
		})
	}
}
