package main

import (
	"database/sql"
	"fmt"
	"io"
	"net"
	"net/url"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/midas-go/midas/examples/internal/servers"
	"github.com/midas-go/midas/midastest"
	"github.com/stretchr/testify/require"
)

// The old primary becomes read-only and stays up, as after a switchover or on a full disk; the
// standby is promoted. The pool has connections to the old one, and Midas does not wait.
func TestThePoolLeavesAPostgreSQLThatBecameReadOnly(t *testing.T) {
	t.Parallel()
	a := servers.PostgreSQL(t)
	b := servers.Standby(t, a)
	fake := servers.Midas(t, "/pay/notify")
	server := startServer(t, fake, bothHosts(t, a.URL, b.URL)+"&target_session_attrs=read-write")
	paid := buy(t, fake, server, "before", 40)

	old := reader(t, a.URL)
	execSQL(t, old, "ALTER SYSTEM SET default_transaction_read_only = on")
	execSQL(t, old, "SELECT pg_reload_conf()")
	var position string
	require.NoError(t, old.QueryRow("SELECT pg_current_wal_lsn()").Scan(&position))
	standby := reader(t, b.URL)
	require.Eventually(t, func() bool {
		var caughtUp bool
		err := standby.QueryRow("SELECT pg_last_wal_replay_lsn() >= $1::pg_lsn", position).Scan(&caughtUp)
		return err == nil && caughtUp
	}, time.Minute, 20*time.Millisecond)
	execSQL(t, standby, "SELECT pg_promote()")

	paid = append(paid, buy(t, fake, server, "after", 40)...)
	requireExactlyOnce(t, b.URL, paid)
	require.Len(t, granted(t, old), 40, "the old primary took a write")
}

// MySQL's own: a server becomes read-only and keeps its connections, and its name leads to
// another one. (Here both begin empty, and each has what was bought while it was the primary.)
func TestThePoolLeavesAMySQLThatBecameReadOnly(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]startDatabase{"mariadb": servers.MariaDB, "mysql": servers.MySQL} {
		t.Run(name, func(t *testing.T) {
			a, b := start(t), start(t)
			for _, node := range []*servers.Process{a, b} { // root may write to a read-only server
				db := reader(t, node.URL)
				execSQL(t, db, "CREATE USER game@'127.0.0.1' IDENTIFIED BY 'game'")
				execSQL(t, db, "GRANT ALL ON game.* TO game@'127.0.0.1'")
			}
			name := newName(t, a.Address)
			databaseURL := "mysql://game:game@" + name.address + "/game"
			fake := servers.Midas(t, "/pay/notify")
			server := startServer(t, fake, databaseURL)
			before := buy(t, fake, server, "before", 40)
			require.Empty(t, itemsOf(t, startServer(t, fake, b.URL), "player")) // it has made the tables

			execSQL(t, reader(t, a.URL), "SET GLOBAL read_only = 1")
			name.leadsTo.Store(&b.Address)
			after := buy(t, fake, server, "after", 40)
			requireExactlyOnce(t, a.URL, before)
			requireExactlyOnce(t, b.URL, after)
		})
	}
}

// buy buys n items, 10 at a time, and fails unless each callback is answered OK at once.
func buy(t *testing.T, fake *midastest.Server, server *servers.Process, prefix string, n int) []payment {
	t.Helper()
	payments, failed := make([]payment, n), make([]string, n)
	concurrently(10, n, func(i int) {
		p := payment{fmt.Sprint("player-", i), fmt.Sprintf("-%s-%d", prefix, i), "gem60", 1}
		payments[i] = p
		token, err := placeOrder(t.Context(), server, p.openID, p.item, p.quantity)
		if err != nil {
			failed[i] = "order: " + err.Error()
			return
		}
		rawQuery, err := fake.Callback(token, midastest.BillNo(p.billNo))
		if err != nil {
			failed[i] = err.Error()
			return
		}
		if ret := call(t.Context(), server, rawQuery); ret != 0 {
			failed[i] = fmt.Sprint("callback: ret ", ret)
		}
	})
	for i, reason := range failed {
		require.Empty(t, reason, "payment %d of %d", i, n)
	}
	return payments
}

func bothHosts(t *testing.T, first, second string) string {
	u, err := url.Parse(second)
	require.NoError(t, err)
	return strings.Replace(first, "/postgres?", ","+u.Host+"/postgres?", 1)
}

func execSQL(t *testing.T, db *database, statement string) {
	t.Helper()
	_, err := db.Exec(statement)
	require.NoError(t, err)
}

// A name is an address that leads to one server or another, as a DNS name or a virtual IP does.
// Connections stay where they are.
type name struct {
	address string
	leadsTo atomic.Pointer[string]
}

func newName(t *testing.T, leadsTo string) *name {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	n := &name{address: l.Addr().String()}
	n.leadsTo.Store(&leadsTo)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", *n.leadsTo.Load())
			if err != nil {
				in.Close()
				continue
			}
			for _, pair := range [][2]net.Conn{{in, out}, {out, in}} {
				go func() {
					io.Copy(pair[0], pair[1])
					pair[0].Close()
				}()
			}
		}
	}()
	return n
}

// PgBouncer in transaction mode gives each transaction another connection, so prepared
// statements that pgx keeps are not there: say default_query_exec_mode=exec.
func TestBehindPgBouncer(t *testing.T) {
	t.Parallel()
	bouncer := servers.PgBouncer(t, servers.PostgreSQL(t)).URL
	fake := servers.Midas(t, "/pay/notify")
	server := startServer(t, fake, bouncer+"?sslmode=disable&default_query_exec_mode=exec")
	requireExactlyOnce(t, bouncer+"?sslmode=disable&default_query_exec_mode=exec", buy(t, fake, server, "bounced", 60))

	// Without it: what the documentation warns of.
	server = startServer(t, fake, bouncer+"?sslmode=disable")
	var failed atomic.Int64
	concurrently(10, 60, func(i int) {
		if _, err := placeOrder(t.Context(), server, fmt.Sprint("player-", i), "gem60", 1); err != nil {
			failed.Add(1)
		}
	})
	t.Logf("%d of 60 orders failed without it", failed.Load())
	version, err := exec.Command(servers.Program(t, "pgbouncer", "/usr/sbin/"), "--version").Output()
	require.NoError(t, err)
	if strings.Contains(string(version), "PgBouncer 1.1") { // later ones keep track of prepared statements, if told to
		require.NotZero(t, failed.Load())
	}
}

func TestFewConnectionsAreOpenedAtOnce(t *testing.T) {
	t.Parallel()
	servers.TestFewConnectionsAreOpenedAtOnce(t, func(url string) *sql.DB {
		db, err := openDatabase(url)
		require.NoError(t, err)
		return db.DB
	})
}
