package main

import (
	"context"
	"flag"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/midas-go/midas/examples/internal/servers"
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
	onEach(t, func(t *testing.T, databaseURL string) { testCrash(t, databaseURL, *killsFlag, 0, nil) })
}

// TestDatabaseCrash does the same, and restarts the database server in between: one of the
// test's own.
func TestDatabaseCrash(t *testing.T) {
	for name, start := range map[string]startDatabase{"postgresql": servers.PostgreSQL, "mariadb": servers.MariaDB, "mysql": servers.MySQL} {
		t.Run(name, func(t *testing.T) {
			server := start(t)
			t.Logf("on %s", version(t, reader(t, server.URL)))
			testCrash(t, server.URL, *killsFlag, *spreadFlag, server)
		})
	}
}

// InnoDB shows a commit before it is on disk. The crash that comes in between must not take
// back what a repeat, which saw it, was answered OK for.
func TestARepeatIsOnDiskBeforeItIsAnsweredOK(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]startDatabase{"mariadb": servers.MariaDB, "mysql": servers.MySQL} {
		t.Run(name, func(t *testing.T) {
			database := start(t, "--skip-log-bin") // from which a commit would be recovered
			db := reader(t, database.URL)
			fake := servers.Midas(t, "/pay/notify")
			server := startServer(t, fake, database.URL)
			token, err := placeOrder(t.Context(), server, "player", "gem60", 1)
			require.NoError(t, err)
			rawQuery, err := fake.Callback(token, midastest.BillNo("-flushed-1"))
			require.NoError(t, err)

			// This commit stays in memory, as each does for a moment.
			execSQL(t, db, "SET GLOBAL innodb_flush_log_at_timeout = 2700")
			execSQL(t, db, "SET GLOBAL innodb_flush_log_at_trx_commit = 0")
			require.Equal(t, 0, call(t.Context(), server, rawQuery))
			execSQL(t, db, "SET GLOBAL innodb_flush_log_at_trx_commit = 1")
			require.Equal(t, 0, call(t.Context(), server, rawQuery))
			require.NoError(t, database.Restart(t.Context(), syscall.SIGKILL))
			requireExactlyOnce(t, database.URL, []payment{{"player", "-flushed-1", "gem60", 1}})
		})
	}
}

// testCrash lets players order and pay until the servers have been killed so often, the
// database has been restarted, and at least so many were paid. Midas's side repeats what was not
// answered OK, wherever. At the end exactly what was paid is granted.
func testCrash(t *testing.T, databaseURL string, kills, payments int, database *servers.Process) {
	start := time.Now()
	random := servers.Random(t)
	fake := servers.Midas(t, "/pay/notify")
	backends := []*servers.Process{startServer(t, fake, databaseURL), startServer(t, fake, databaseURL)}
	limit, cancel := context.WithTimeout(t.Context(), 5*time.Minute+time.Duration(payments)*5*time.Millisecond)
	defer cancel()

	var (
		chaosOver atomic.Bool
		orders    atomic.Int64
		midas     servers.Caller
		mu        sync.Mutex
		paid      []payment
	)
	var players sync.WaitGroup
	for player := range 16 {
		players.Go(func() {
			for n := 0; !chaosOver.Load() && limit.Err() == nil; n++ {
				p := payment{fmt.Sprint("oPlayer", player), fmt.Sprintf("-crash-%d-%d", player, n), "gem60", 1 + n%3}
				token, err := placeOrder(limit, backends[(player+n)%2], p.openID, p.item, p.quantity)
				if err != nil { // no order, no payment: the app asks again
					servers.Pause(limit, 5*time.Millisecond)
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
					calls.Go(func() {
						midas.UntilOK(limit, t, rawQuery, func(call int) string { return backends[(player+n+i+call)%2].URL + "/pay/notify" })
					})
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
	i := 0
	for ; (i < kills || midas.Unanswered.Load() == 0) && limit.Err() == nil; i++ { // until one had a callback running
		servers.Pause(limit, time.Duration(50+random.IntN(250))*time.Millisecond)
		for orders.Load() < int64(payments)*int64(i+1)/int64(kills) && limit.Err() == nil {
			servers.Pause(limit, 10*time.Millisecond)
		}
		if restarts > 0 && i%max(1, kills/restarts) == 0 && i/max(1, kills/restarts) < restarts {
			databaseDown.Wait()
			signal := database.Stop
			if i/max(1, kills/restarts)%2 == 0 {
				signal = syscall.SIGKILL
			}
			databaseDown.Go(func() { assert.NoError(t, database.Restart(limit, signal)) })
		}
		victim := backends[random.IntN(2)]
		if midas.Running.Load() > 0 {
			killedRunning++
		}
		victim.Kill()
		servers.Pause(limit, time.Duration(random.IntN(100))*time.Millisecond)
		if !assert.NoError(t, victim.Start(limit)) {
			break
		}
	}
	databaseDown.Wait()
	chaosOver.Store(true)
	players.Wait()
	require.False(t, t.Failed())

	require.NotZero(t, midas.Unanswered.Load(), "no callback was running when a server was killed")
	requireExactlyOnce(t, databaseURL, paid)
	t.Logf("%d kills of a server (%d with callbacks running), %d restarts of the database: %d payments, each granted once; %d callbacks were not answered, %d answered ret 1, all repeated; %v",
		i, killedRunning, restarts, len(paid), midas.Unanswered.Load(), midas.Busy.Load(), time.Since(start).Round(time.Millisecond))
}
