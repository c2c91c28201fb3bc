package main

import (
	"context"
	"flag"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/midas-go/midas/midassql"
	"github.com/midas-go/midas/midastest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var (
	killsFlag    = flag.Int("kills", 6, "how often TestServersCrash and TestDatabaseCrash kill a server")
	restartsFlag = flag.Int("restarts", 2, "how often TestDatabaseCrash restarts each of its database servers")
	spreadFlag   = flag.Int("spread", 0, "at least how many payments the kills of TestDatabaseCrash are spread over")
)

// TestServersCrash kills servers at random moments while players order and pay.
func TestServersCrash(t *testing.T) {
	for _, dialect := range []midassql.Dialect{midassql.PostgreSQL, midassql.MySQL, midassql.SQLite} {
		t.Run(string(dialect), func(t *testing.T) { testCrash(t, newDatabase(t, dialect), *killsFlag, 0, nil) })
	}
}

// TestDatabaseCrash does the same, and restarts the database server in between: one of the
// test's own.
func TestDatabaseCrash(t *testing.T) {
	t.Run("postgresql", func(t *testing.T) { testDatabaseCrash(t, startPostgreSQL(t)) })
	t.Run("mysql", func(t *testing.T) { testDatabaseCrash(t, startMariaDB(t)) })
}

func testDatabaseCrash(t *testing.T, server databaseServer) {
	t.Logf("on %s", version(t, reader(t, server.databaseURL())))
	testCrash(t, server.databaseURL(), *killsFlag, *spreadFlag, server)
}

// InnoDB shows a commit before it is on disk. The crash that comes in between must not take
// back what a repeat, which saw it, was answered OK for.
func TestARepeatIsOnDiskBeforeItIsAnsweredOK(t *testing.T) {
	t.Parallel()
	mariaDB := startMariaDB(t)
	db := reader(t, mariaDB.databaseURL())
	fake := newFake(t, "/pay/notify")
	server := startProcess(t, fake, mariaDB.databaseURL())
	token, err := placeOrder(t.Context(), server.url, "player", "gem60", 1)
	require.NoError(t, err)
	rawQuery, err := fake.Callback(token, midastest.BillNo("-flushed-1"))
	require.NoError(t, err)
	set := func(variable string, value int) {
		_, err := db.Exec(fmt.Sprintf("SET GLOBAL %s = %d", variable, value))
		require.NoError(t, err)
	}

	// This commit stays in memory, as each does for a moment.
	set("innodb_flush_log_at_timeout", 2700)
	set("innodb_flush_log_at_trx_commit", 0)
	require.Equal(t, 0, call(t.Context(), midasCalls, server.url+"/pay/notify", rawQuery))
	set("innodb_flush_log_at_trx_commit", 1)
	require.Equal(t, 0, call(t.Context(), midasCalls, server.url+"/pay/notify", rawQuery))
	require.NoError(t, mariaDB.restart(true))
	requireExactlyOnce(t, mariaDB.databaseURL(), []payment{{"player", "-flushed-1", "gem60", 1}})
}

// testCrash lets players order and pay until the servers have been killed so often, the
// database has been restarted, and at least so many were paid. Midas's side repeats what was not
// answered OK, wherever. At the end exactly what was paid is granted.
func testCrash(t *testing.T, databaseURL string, kills, payments int, database databaseServer) {
	start := time.Now()
	random := randomness(t)
	fake := newFake(t, "/pay/notify")
	servers := []*process{startProcess(t, fake, databaseURL), startProcess(t, fake, databaseURL)}
	limit, cancel := context.WithTimeout(t.Context(), 5*time.Minute+time.Duration(payments)*5*time.Millisecond)
	defer cancel()

	var (
		chaosOver                atomic.Bool
		running                  atomic.Int64 // callbacks
		busy, unanswered, orders atomic.Int64
		mu                       sync.Mutex
		paid                     []payment
	)
	// A call is repeated until it is answered OK, as Midas's side of a payment.
	untilOK := func(rawQuery string, server int) {
		for limit.Err() == nil {
			running.Add(1)
			ret := call(limit, midasCalls, servers[server%2].url+"/pay/notify", rawQuery)
			running.Add(-1)
			switch ret {
			case 0:
				return
			case 1:
				busy.Add(1)
			case noAnswer:
				unanswered.Add(1)
			default:
				assert.Fail(t, "a payment was refused", "ret %d", ret)
				return
			}
			server++
			pause(limit, 5*time.Millisecond)
		}
		assert.Fail(t, "a payment was never answered OK")
	}
	var players sync.WaitGroup
	for player := range 16 {
		players.Go(func() {
			for n := 0; !chaosOver.Load() && limit.Err() == nil; n++ {
				p := payment{fmt.Sprint("oPlayer", player), fmt.Sprintf("-crash-%d-%d", player, n), "gem60", 1 + n%3}
				token, err := placeOrder(limit, servers[(player+n)%2].url, p.openID, p.item, p.quantity)
				if err != nil { // no order, no payment: the app asks again
					pause(limit, 5*time.Millisecond)
					continue
				}
				orders.Add(1)
				rawQuery, err := fake.Callback(token, midastest.BillNo(p.billNo))
				if !assert.NoError(t, err) {
					return
				}
				mu.Lock()
				paid = append(paid, p)
				mu.Unlock()
				var calls sync.WaitGroup
				for i := range 1 + n%3 {
					calls.Go(func() { untilOK(rawQuery, player+n+i) })
				}
				calls.Wait()
			}
		})
	}

	// The chaos. Database restarts are spread among the kills.
	killedRunning, restarts := 0, 0
	if database != nil {
		restarts = *restartsFlag
	}
	var databaseDown sync.WaitGroup
	for i := range kills {
		pause(limit, time.Duration(50+random.IntN(250))*time.Millisecond)
		for orders.Load() < int64(payments)*int64(i+1)/int64(kills) && limit.Err() == nil {
			pause(limit, 10*time.Millisecond)
		}
		if restarts > 0 && i%max(1, kills/restarts) == 0 && i/max(1, kills/restarts) < restarts {
			databaseDown.Wait()
			crash := i/max(1, kills/restarts)%2 == 0
			databaseDown.Go(func() { assert.NoError(t, database.restart(crash)) })
		}
		victim := servers[random.IntN(2)]
		if running.Load() > 0 {
			killedRunning++
		}
		victim.kill()
		pause(limit, time.Duration(random.IntN(100))*time.Millisecond)
		if !assert.NoError(t, victim.start(limit)) {
			break
		}
	}
	databaseDown.Wait()
	chaosOver.Store(true)
	players.Wait()
	require.False(t, t.Failed())

	require.NotZero(t, unanswered.Load(), "no callback was running when a server was killed")
	requireExactlyOnce(t, databaseURL, paid)
	t.Logf("%d kills of a server (%d with callbacks running), %d restarts of the database: %d payments, each granted once; %d callbacks were not answered, %d answered ret 1, all repeated; %v",
		kills, killedRunning, restarts, len(paid), unanswered.Load(), busy.Load(), time.Since(start).Round(time.Millisecond))
}

// pause waits for d, or the end of ctx.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
