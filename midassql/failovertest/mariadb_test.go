package failovertest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/midas-go/midas/midassql"
	"github.com/stretchr/testify/require"
)

// mysqlDSN is a DSN as docs/databases.md recommends it.
func mysqlDSN(address, database, more string) string {
	return "root@tcp(" + address + ")/" + database + "?timeout=1s&readTimeout=3s&writeTimeout=3s&innodb_lock_wait_timeout=1" + more
}

func openMySQL(t *testing.T, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open("mysql", dsn)
	require.NoError(t, err)
	db.SetMaxOpenConns(10)
	db.SetMaxIdleConns(10)
	t.Cleanup(func() { db.Close() })
	return db
}

func execute(t *testing.T, db *sql.DB, statements ...string) {
	t.Helper()
	for _, statement := range statements {
		_, err := db.ExecContext(t.Context(), statement)
		require.NoError(t, err, statement)
	}
}

// mariaDBNodes makes nodes of MariaDB, each with a copy of one empty data folder.
type mariaDBNodes struct {
	account  *account
	server   string
	template string // folder
	made     int
}

func newMariaDBNodes(t *testing.T) *mariaDBNodes {
	t.Helper()
	m := &mariaDBNodes{account: newAccount(t, "mysql"), server: program(t, "mariadbd", "/usr/sbin/")}
	m.template = filepath.Join(m.account.folder, "template")
	m.account.run(t, program(t, "mariadb-install-db", "/usr/bin/"), "--no-defaults", "--datadir="+m.template, "--tmpdir="+m.account.folder,
		"--auth-root-authentication-method=normal", "--skip-test-db")
	return m
}

func (m *mariaDBNodes) newNode(t *testing.T, settings ...string) *node {
	t.Helper()
	m.made++
	n := newNode(t, m.account, fmt.Sprintf("node%d", m.made))
	m.account.run(t, "cp", "-a", m.template, n.data)
	tmp := n.data + ".tmp" // of its own: a server that starts deletes those of others
	m.account.run(t, "mkdir", tmp)
	n.args = append([]string{m.server, "--no-defaults", "--datadir=" + n.data, "--tmpdir=" + tmp,
		"--bind-address=127.0.0.1", "--port=" + n.port(), "--skip-name-resolve",
		"--socket=" + filepath.Join(tmp, "socket"), "--pid-file=" + filepath.Join(tmp, "pid"),
		"--log-bin=" + filepath.Join(n.data, "binlog"), "--binlog-format=ROW", "--sync-binlog=1", "--log-slave-updates=ON",
		fmt.Sprintf("--server-id=%d", m.made),
		"--innodb-snapshot-isolation=ON", // the default from MariaDB 11.6.2 on
	}, settings...)
	return n
}

// startMariaDBNode starts a node, with extra arguments for this start.
func startMariaDBNode(t *testing.T, n *node, extra ...string) *sql.DB {
	t.Helper()
	db := openMySQL(t, mysqlDSN(n.address, "", ""))
	n.start(t, func() error { return db.PingContext(t.Context()) }, extra...)
	return db
}

// A mariaDB is a primary with a semi-synchronous replica, behind an address that leads to the
// primary.
type mariaDB struct {
	nodes              *mariaDBNodes
	timeout            time.Duration // after which the primary goes on without its replica
	primary, replica   *node
	front, replication *link
}

func startMariaDB(t *testing.T, timeout time.Duration) *mariaDB {
	t.Helper()
	m := &mariaDB{nodes: newMariaDBNodes(t), timeout: timeout, front: newLink(t), replication: newLink(t)}
	m.primary = m.newNode(t)
	m.lead(t, startMariaDBNode(t, m.primary))
	m.makeReplica(t)
	execute(t, openMySQL(t, mysqlDSN(m.front.address, "", "")), "CREATE DATABASE game")
	return m
}

func (m *mariaDB) newNode(t *testing.T) *node {
	return m.nodes.newNode(t,
		"--rpl-semi-sync-slave-enabled=ON",
		"--rpl-semi-sync-master-wait-point=AFTER_SYNC",
		"--rpl-semi-sync-master-wait-no-slave=ON",
		fmt.Sprintf("--rpl-semi-sync-master-timeout=%d", m.timeout.Milliseconds()))
}

// lead makes the node of db the primary for those who come to the front.
func (m *mariaDB) lead(t *testing.T, db *sql.DB) {
	t.Helper()
	execute(t, db, "SET GLOBAL rpl_semi_sync_master_enabled = ON")
	m.front.lead(m.primary.address)
	m.replication.lead(m.primary.address)
}

// makeReplica makes a new replica, which gets everything from the primary's binary log.
func (m *mariaDB) makeReplica(t *testing.T) {
	t.Helper()
	m.replica = m.newNode(t)
	db := startMariaDBNode(t, m.replica)
	host, port, err := net.SplitHostPort(m.replication.address)
	require.NoError(t, err)
	execute(t, db, fmt.Sprintf("CHANGE MASTER TO master_host = '%s', master_port = %s, master_user = 'root', master_use_gtid = slave_pos, master_connect_retry = 1", host, port),
		"START SLAVE")
	primary := openMySQL(t, mysqlDSN(m.primary.address, "", ""))
	eventually(t, "the replica to follow", func() error {
		var name, clients string
		err := primary.QueryRowContext(t.Context(), "SHOW STATUS LIKE 'Rpl_semi_sync_master_clients'").Scan(&name, &clients)
		if err == nil && clients != "1" {
			err = errors.New(clients + " replicas")
		}
		return err
	})
}

// failover kills the primary after the replica was cut off from it for a while, and promotes
// the replica.
func (m *mariaDB) failover(t *testing.T) {
	t.Helper()
	m.replication.stall()
	pause(t.Context(), stalled)
	m.promote(t)
}

// promote goes on from a stalled link. The replica applies what it has received before it
// leads.
func (m *mariaDB) promote(t *testing.T) {
	t.Helper()
	m.primary.kill()
	m.replication.lead("127.0.0.1:1") // nobody
	m.replication.resume()
	db := openMySQL(t, mysqlDSN(m.replica.address, "", ""))
	execute(t, db, "STOP SLAVE IO_THREAD")
	eventually(t, "the replica to apply its relay log", func() error {
		var n int
		err := db.QueryRowContext(t.Context(), `SELECT COUNT(*) FROM information_schema.processlist
			WHERE user = 'system user' AND state LIKE 'Slave has read all relay log%'`).Scan(&n)
		if err == nil && n == 0 {
			err = errors.New("not yet")
		}
		return err
	})
	execute(t, db, "STOP SLAVE", "RESET SLAVE ALL")
	require.NoError(t, os.RemoveAll(m.primary.data))
	m.primary = m.replica
	m.lead(t, db)
	m.makeReplica(t)
}

func (m *mariaDB) writers(t *testing.T) (writers []*writer) {
	for i := range 3 {
		writers = append(writers, newWriter(t, openMySQL(t, mysqlDSN(m.front.address, "game", "")), midassql.MySQL, i > 0))
	}
	createTables(t, writers[0], midassql.MySQL)
	return writers
}

const practicallyForever = time.Hour

func TestMariaDB(t *testing.T) {
	m := startMariaDB(t, practicallyForever)
	writers := m.writers(t)
	r := during(t, writers, func() {
		for range *failovers {
			m.failover(t)
			pause(t.Context(), between)
		}
	})
	requireExactlyOnce(t, r)
}

// The counter-example: after a timeout the primary goes on alone. (MariaDB's default is 10 s.)
func TestMariaDBLosesWithSemiSyncTimeout(t *testing.T) {
	m := startMariaDB(t, time.Second)
	writers := m.writers(t)
	r := during(t, writers, func() { m.failover(t) })
	require.NotZero(t, r.lost, "nothing was lost: the proof would not see a loss")
}

// A commit that waits for the replica is ended by an administrator: it succeeds.
func TestMariaDBLosesWithKillQuery(t *testing.T) {
	m := startMariaDB(t, practicallyForever)
	writers := m.writers(t)
	token, err := saveUntilDone(t.Context(), writers, 0)
	require.NoError(t, err)
	admin := openMySQL(t, mysqlDSN(m.primary.address, "", ""))

	m.replication.stall()
	answer := make(chan error)
	go func() { answer <- writers[0].deliver(context.Background(), payment(0, token)) }()
	eventually(t, "a commit that waits", func() error {
		var id int
		err := admin.QueryRowContext(t.Context(), `SELECT id FROM information_schema.processlist
			WHERE command = 'Query' AND state LIKE 'Waiting for semi-sync ACK%'`).Scan(&id)
		if err == nil {
			_, err = admin.ExecContext(t.Context(), fmt.Sprint("KILL QUERY ", id))
		}
		return err
	})
	err = <-answer
	m.promote(t)
	require.NoError(t, err, "a killed commit is an error now: docs/databases.md says otherwise")
	r := compare(t, writers, map[int]error{0: err})
	require.Equal(t, 1, r.lost, "the payment is still there: docs/databases.md says otherwise")
}

// Payments of one player at once, each with a grant that changes his balance: none needs
// another callback, though snapshot isolation refuses what another transaction has changed.
func TestMariaDBSnapshotIsolation(t *testing.T) {
	nodes := newMariaDBNodes(t)
	n := nodes.newNode(t)
	execute(t, startMariaDBNode(t, n), "CREATE DATABASE game")
	writers := []*writer{newWriter(t, openMySQL(t, mysqlDSN(n.address, "game", "")), midassql.MySQL, false)}
	createTables(t, writers[0], midassql.MySQL)
	const at, rounds = 5, 20
	answered := make(map[int]error)
	for round := range rounds {
		errs := make([]error, at)
		var calls sync.WaitGroup
		for i := range at {
			id := (round*at + i) * players // of one player
			token, err := saveUntilDone(t.Context(), writers, id)
			require.NoError(t, err)
			calls.Go(func() { errs[i] = callUntilDone(t.Context(), writers, payment(id, token)) })
		}
		calls.Wait()
		for i, err := range errs {
			answered[(round*at+i)*players] = err
		}
	}
	r := compare(t, writers, answered)
	requireExactlyOnce(t, r)
	require.Zero(t, r.notOK)
}
