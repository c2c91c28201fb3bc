package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
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
	restartsFlag = flag.Int("restarts", 2, "how often TestDatabaseCrash restarts its PostgreSQL server")
)

// TestServersCrash kills servers at random moments while players order and pay.
func TestServersCrash(t *testing.T) {
	for _, dialect := range []midassql.Dialect{midassql.PostgreSQL, midassql.MySQL, midassql.SQLite} {
		t.Run(string(dialect), func(t *testing.T) { testCrash(t, newDatabase(t, dialect), *killsFlag, nil) })
	}
}

// TestDatabaseCrash does the same, and restarts the database server in between: a
// PostgreSQL of the test's own.
func TestDatabaseCrash(t *testing.T) {
	server := startPostgreSQL(t)
	db := reader(t, server.url)
	t.Logf("on %s", version(t, db))
	testCrash(t, server.url, *killsFlag, server)
}

// testCrash lets players order and pay until the servers have been killed so often, and the
// database restarted. Midas's side repeats what was not answered OK, wherever. At the end
// exactly what was paid is granted.
func testCrash(t *testing.T, databaseURL string, kills int, postgres *postgreSQL) {
	start := time.Now()
	random := randomness(t)
	fake := newFake(t, "/pay/notify")
	servers := []*process{startProcess(t, fake, databaseURL), startProcess(t, fake, databaseURL)}
	limit, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
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
	if postgres != nil {
		restarts = *restartsFlag
	}
	var databaseDown sync.WaitGroup
	for i := range kills {
		pause(limit, time.Duration(50+random.IntN(250))*time.Millisecond)
		if restarts > 0 && i%max(1, kills/restarts) == 0 && i/max(1, kills/restarts) < restarts {
			databaseDown.Wait()
			mode := []string{"immediate", "fast"}[i/max(1, kills/restarts)%2] // immediate is a crash with recovery
			databaseDown.Go(func() { assert.NoError(t, postgres.restart(mode)) })
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

// A postgreSQL is a PostgreSQL server of a test's own, on a free port, with its data in a
// temporary folder.
type postgreSQL struct {
	url, folder string
	pgCtl       string
	as          []string // in front of commands: it refuses to run as root
}

func startPostgreSQL(t *testing.T) *postgreSQL {
	t.Helper()
	initdb := postgresProgram("initdb")
	s := &postgreSQL{pgCtl: postgresProgram("pg_ctl")}
	if initdb == "" || s.pgCtl == "" {
		missing(t, "initdb and pg_ctl of PostgreSQL are not installed")
	}
	// Not t.TempDir, into which the other account could not go.
	folder, err := os.MkdirTemp("", "gameserver-postgresql-")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(folder) })
	s.folder = folder
	if os.Geteuid() == 0 {
		if _, err := user.Lookup("postgres"); err != nil {
			missing(t, "PostgreSQL does not run as root, and there is no account postgres")
		}
		s.as = []string{"runuser", "-u", "postgres", "--"}
		require.NoError(t, exec.Command("chown", "postgres", folder).Run())
	}
	host, port, err := net.SplitHostPort(freeAddress(t))
	require.NoError(t, err)
	s.url = fmt.Sprintf("postgres://game@%s:%s/postgres?sslmode=disable", host, port)

	require.NoError(t, s.run(initdb, "-D", s.data(), "-U", "game", "-A", "trust", "-E", "UTF8", "--locale=C"))
	options := fmt.Sprintf("-p %s -k %s -c listen_addresses=%s", port, folder, host)
	require.NoError(t, s.run(s.pgCtl, "-D", s.data(), "-w", "-l", filepath.Join(folder, "log"), "-o", options, "start"))
	t.Cleanup(func() {
		if err := s.run(s.pgCtl, "-D", s.data(), "-w", "-m", "immediate", "stop"); err != nil {
			t.Error(err)
		}
	})
	return s
}

func (s *postgreSQL) data() string { return filepath.Join(s.folder, "data") }

// restart restarts the server; the mode "immediate" is a crash, after which it recovers.
func (s *postgreSQL) restart(mode string) error {
	return s.run(s.pgCtl, "-D", s.data(), "-w", "-m", mode, "-l", filepath.Join(s.folder, "log"), "restart")
}

func (s *postgreSQL) run(program string, args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	command := slices.Concat(s.as, []string{program}, args)
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Dir = s.folder
	// To a file: a server that pg_ctl starts would hold a pipe open.
	output, err := os.Create(filepath.Join(s.folder, filepath.Base(program)+".output"))
	if err != nil {
		return err
	}
	defer output.Close()
	cmd.Stdout, cmd.Stderr = output, output
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", filepath.Base(program), err, tail(output.Name()))
	}
	return nil
}

// postgresProgram returns the path of a program of PostgreSQL's server, or "". Debian
// keeps them out of PATH.
func postgresProgram(name string) string {
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	paths, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	if len(paths) == 0 {
		return ""
	}
	return paths[len(paths)-1]
}
