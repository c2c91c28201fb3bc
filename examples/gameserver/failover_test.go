package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/midas-go/midas/midastest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The old primary becomes read-only and stays up, as after a switchover or on a full disk; the
// standby is promoted. The pool has connections to the old one, and Midas does not wait.
func TestThePoolLeavesAPostgreSQLThatBecameReadOnly(t *testing.T) {
	t.Parallel()
	a := startPostgreSQL(t)
	b := a.startStandby(t)
	fake := newFake(t, "/pay/notify")
	server := startProcess(t, fake, bothHosts(t, a.url, b.url)+"&target_session_attrs=read-write")
	paid := buy(t, fake, server, "before", 40)

	old := reader(t, a.url)
	execSQL(t, old, "ALTER SYSTEM SET default_transaction_read_only = on")
	execSQL(t, old, "SELECT pg_reload_conf()")
	var position string
	require.NoError(t, old.QueryRow("SELECT pg_current_wal_lsn()").Scan(&position))
	standby := reader(t, b.url)
	require.Eventually(t, func() bool {
		var caughtUp bool
		err := standby.QueryRow("SELECT pg_last_wal_replay_lsn() >= $1::pg_lsn", position).Scan(&caughtUp)
		return err == nil && caughtUp
	}, time.Minute, 20*time.Millisecond)
	require.NoError(t, b.control("promote"))

	paid = append(paid, buy(t, fake, server, "after", 40)...)
	requireExactlyOnce(t, b.url, paid)
	require.Len(t, granted(t, old), 40, "the old primary took a write")
}

// MySQL's own: a server becomes read-only and keeps its connections, and its name leads to
// another one. (Here both begin empty, and each has what was bought while it was the primary.)
func TestThePoolLeavesAMariaDBThatBecameReadOnly(t *testing.T) {
	t.Parallel()
	a, b := startMariaDB(t), startMariaDB(t)
	for _, node := range []*mariaDB{a, b} { // root may write to a read-only server
		db := reader(t, node.databaseURL())
		execSQL(t, db, "CREATE USER game@'127.0.0.1' IDENTIFIED BY 'game'")
		execSQL(t, db, "GRANT ALL ON game.* TO game@'127.0.0.1'")
	}
	name := newName(t, a.address)
	databaseURL := "mysql://game:game@" + name.address + "/game"
	fake := newFake(t, "/pay/notify")
	server := startProcess(t, fake, databaseURL)
	before := buy(t, fake, server, "before", 40)
	require.Empty(t, itemsOf(t, startProcess(t, fake, b.databaseURL()).url, "player")) // it has made the tables

	execSQL(t, reader(t, a.databaseURL()), "SET GLOBAL read_only = 1")
	name.leadsTo.Store(&b.address)
	after := buy(t, fake, server, "after", 40)
	requireExactlyOnce(t, a.databaseURL(), before)
	requireExactlyOnce(t, b.databaseURL(), after)
}

// buy buys n items, 10 at a time, and fails unless each callback is answered OK at once.
func buy(t *testing.T, fake *midastest.Server, server *process, prefix string, n int) []payment {
	t.Helper()
	payments, failed := make([]payment, n), make([]string, n)
	concurrently(10, n, func(i int) {
		p := payment{fmt.Sprint("player-", i), fmt.Sprintf("-%s-%d", prefix, i), "gem60", 1}
		payments[i] = p
		token, err := placeOrder(t.Context(), server.url, p.openID, p.item, p.quantity)
		if err != nil {
			failed[i] = "order: " + err.Error()
			return
		}
		rawQuery, err := fake.Callback(token, midastest.BillNo(p.billNo))
		if err != nil {
			failed[i] = err.Error()
			return
		}
		if ret := call(t.Context(), midasCalls, server.url+"/pay/notify", rawQuery); ret != 0 {
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
	bouncer := startPgBouncer(t, startPostgreSQL(t))
	fake := newFake(t, "/pay/notify")
	server := startProcess(t, fake, bouncer+"?sslmode=disable&default_query_exec_mode=exec")
	requireExactlyOnce(t, bouncer+"?sslmode=disable&default_query_exec_mode=exec", buy(t, fake, server, "bounced", 60))

	// Without it: what the documentation warns of.
	server = startProcess(t, fake, bouncer+"?sslmode=disable")
	var failed atomic.Int64
	concurrently(10, 60, func(i int) {
		if _, err := placeOrder(t.Context(), server.url, fmt.Sprint("player-", i), "gem60", 1); err != nil {
			failed.Add(1)
		}
	})
	t.Logf("%d of 60 orders failed without it", failed.Load())
	version, err := exec.Command(program(t, "pgbouncer", "/usr/sbin/"), "--version").Output()
	require.NoError(t, err)
	if strings.Contains(string(version), "PgBouncer 1.1") { // later ones keep track of prepared statements, if told to
		require.NotZero(t, failed.Load())
	}
}

// startPgBouncer starts one in front of a server and returns its URL, without parameters.
func startPgBouncer(t *testing.T, postgres *postgreSQL) string {
	t.Helper()
	bouncer := program(t, "pgbouncer", "/usr/sbin/")
	folder, as := newFolder(t, "postgres")
	host, port, err := net.SplitHostPort(freeAddress(t))
	require.NoError(t, err)
	u, err := url.Parse(postgres.url)
	require.NoError(t, err)
	config := filepath.Join(folder, "pgbouncer.ini")
	require.NoError(t, os.WriteFile(filepath.Join(folder, "users"), []byte(`"game" ""`), 0o644))
	require.NoError(t, os.WriteFile(config, fmt.Appendf(nil, `[databases]
postgres = host=%s port=%s
[pgbouncer]
listen_addr = %s
listen_port = %s
unix_socket_dir =
auth_type = trust
auth_file = %s
pool_mode = transaction
default_pool_size = 4
`, u.Hostname(), u.Port(), host, port, filepath.Join(folder, "users")), 0o644))
	args := []string{config}
	if as != nil {
		args = []string{"-u", "postgres", config} // and not runuser, which would be killed in its place
	}
	cmd := exec.Command(bouncer, args...)
	require.NoError(t, cmd.Start())
	ended := make(chan struct{})
	go func() {
		cmd.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		cmd.Process.Kill() // an error means that it has ended
		<-ended
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	require.True(t, listens(ctx, ended, net.JoinHostPort(host, port)), "PgBouncer does not start")
	return fmt.Sprintf("postgres://game@%s/postgres", net.JoinHostPort(host, port))
}

// A PostgreSQL that accepts and does not answer.
func TestFewConnectionsAreOpenedAtOnce(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer silent.Close()
	db, err := openDatabase("postgres://game@" + silent.Addr().String() + "/game?sslmode=disable&connect_timeout=30")
	require.NoError(t, err)
	defer db.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var pings sync.WaitGroup
	for range 10 {
		pings.Go(func() { assert.ErrorIs(t, db.PingContext(ctx), context.Canceled) })
	}
	for range 2 {
		conn, err := silent.Accept()
		require.NoError(t, err)
		defer conn.Close()
	}
	time.AfterFunc(300*time.Millisecond, cancel) // a third one would have come
	pings.Wait()

	last, err := net.Dial("tcp", silent.Addr().String())
	require.NoError(t, err)
	defer last.Close()
	next, err := silent.Accept()
	require.NoError(t, err)
	defer next.Close()
	require.Equal(t, last.LocalAddr().String(), next.RemoteAddr().String(), "a third one was opened")
}
