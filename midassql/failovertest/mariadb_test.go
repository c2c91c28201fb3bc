package failovertest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/midas-go/midas"
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
	m.awaitReplicas(t, "1")
}

// awaitReplicas waits until the primary knows of n replicas that acknowledge.
func (m *mariaDB) awaitReplicas(t *testing.T, n string) {
	t.Helper()
	db := openMySQL(t, mysqlDSN(m.primary.address, "", ""))
	eventually(t, n+" replicas", func() error {
		var name, clients string
		err := db.QueryRowContext(t.Context(), "SHOW STATUS LIKE 'Rpl_semi_sync_master_clients'").Scan(&name, &clients)
		if err == nil && clients != n {
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
	m.replication.lead(nobody)
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

// nobody is an address where nobody listens.
const nobody = "127.0.0.1:1"

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

// The primary has no replica for a while. Waiting for the one that may come is the default.
func TestMariaDBWithoutItsReplica(t *testing.T) {
	m := startMariaDB(t, practicallyForever)
	requireExactlyOnce(t, m.withoutReplica(t))
}

// The counter-example: without a replica the primary does not wait, whatever the timeout.
func TestMariaDBLosesWithoutWaitNoSlave(t *testing.T) {
	m := startMariaDB(t, practicallyForever)
	execute(t, openMySQL(t, mysqlDSN(m.primary.address, "", "")), "SET GLOBAL rpl_semi_sync_master_wait_no_slave = OFF")
	r := m.withoutReplica(t)
	require.NotZero(t, r.lost, "nothing was lost: the proof would not see a loss")
}

// withoutReplica disconnects the replica for a while, and promotes it. The replica takes its leave:
// a primary with a broken connection notices nothing until it has something to send.
func (m *mariaDB) withoutReplica(t *testing.T) result {
	t.Helper()
	return during(t, m.writers(t), func() {
		execute(t, openMySQL(t, mysqlDSN(m.replica.address, "", "")), "STOP SLAVE IO_THREAD")
		m.awaitReplicas(t, "0")
		pause(t.Context(), stalled)
		m.replication.stall()
		m.promote(t)
	})
}

// A commit that waits for the replica is ended by an administrator: it succeeds.
func TestMariaDBLosesWithKillQuery(t *testing.T) {
	m := startMariaDB(t, practicallyForever)
	writers := m.writers(t)
	err := m.whileCommitWaits(t, writers[0], 0, "KILL QUERY ")
	m.promote(t)
	require.NoError(t, err, "a killed commit is an error now: docs/databases.md says otherwise")
	r := compare(t, writers, map[int]error{0: err})
	require.Equal(t, 1, r.lost, "the payment is still there: docs/databases.md says otherwise")
}

// Its connection is ended, or the server's own limit for statements passes: there is no OK.
func TestMariaDBKillsAConnection(t *testing.T) {
	m := startMariaDB(t, practicallyForever)
	m.writers(t)
	for i, test := range []struct{ more, statement string }{{"", "KILL "}, {"&max_statement_time=0.2", ""}} {
		t.Run(test.statement+test.more, func(t *testing.T) {
			w := newWriter(t, openMySQL(t, mysqlDSN(m.front.address, "game", test.more)), midassql.MySQL, false)
			err := m.whileCommitWaits(t, w, i, test.statement)
			t.Log(err)
			require.Error(t, err)
			m.replication.resume()
		})
	}
}

// whileCommitWaits stalls the replica, and ends the commit of payment i by a statement with the
// number of its connection. It returns what the callback was answered.
func (m *mariaDB) whileCommitWaits(t *testing.T, w *writer, i int, statement string) error {
	t.Helper()
	token, err := saveUntilDone(t.Context(), []*writer{w}, i)
	require.NoError(t, err)
	admin := openMySQL(t, mysqlDSN(m.primary.address, "", ""))
	m.replication.stall()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	answer := make(chan error, 1)
	go func() { answer <- w.deliver(ctx, payment(i, token)) }()
	eventually(t, "a commit that waits", func() error {
		var id int
		err := admin.QueryRowContext(t.Context(), `SELECT id FROM information_schema.processlist
			WHERE command = 'Query' AND state LIKE 'Waiting for semi-sync ACK%'`).Scan(&id)
		if err == nil && statement != "" {
			_, err = admin.ExecContext(t.Context(), fmt.Sprint(statement, id))
		}
		return err
	})
	return <-answer
}

// A game server on the replica: orders are not there yet, and what it grants is not on the primary.
func TestMariaDBLosesOnAReplica(t *testing.T) {
	m := startMariaDB(t, practicallyForever)
	primary := m.writers(t)[:1]
	db := openMySQL(t, mysqlDSN(m.replica.address, "game", ""))
	replica := newWriter(t, db, midassql.MySQL, false)
	execute(t, db, "STOP SLAVE SQL_THREAD") // it is behind
	token, err := saveUntilDone(t.Context(), primary, 0)
	require.NoError(t, err)
	require.ErrorIs(t, replica.call(t.Context(), payment(0, token)), midas.ErrTokenNotFound)

	execute(t, db, "START SLAVE SQL_THREAD")
	eventually(t, "the order", func() error {
		var found string
		return db.QueryRowContext(t.Context(), `SELECT openid FROM midas_orders WHERE token = ?`, token).Scan(&found)
	})
	err = replica.call(t.Context(), payment(0, token))
	require.NoError(t, err)
	require.Equal(t, 1, compare(t, primary, map[int]error{0: err}).lost, "docs/databases.md says otherwise")
}

// docs/databases.md has settings to copy: the server knows them.
func TestMariaDBStartsWithThePagesSettings(t *testing.T) {
	nodes := newMariaDBNodes(t)
	for _, page := range []string{"databases.md", "databases.zh-CN.md"} {
		text, err := os.ReadFile(filepath.Join("..", "..", "docs", page))
		require.NoError(t, err)
		blocks := strings.Split(string(text), "```")
		i := slices.IndexFunc(blocks, func(block string) bool { return strings.Contains(block, "\nrpl_semi_sync_master_timeout=") })
		require.Positive(t, i, page)
		file := filepath.Join(nodes.account.folder, page+".cnf")
		require.NoError(t, os.WriteFile(file, []byte("[mariadbd]"+blocks[i]), 0o644))
		n := nodes.newNode(t)
		require.Equal(t, "--no-defaults", n.args[1])
		n.args[1] = "--defaults-file=" + file
		var timeout int
		require.NoError(t, startMariaDBNode(t, n).QueryRowContext(t.Context(), "SELECT @@rpl_semi_sync_master_timeout").Scan(&timeout))
		require.Equal(t, practicallyForever, time.Duration(timeout)*time.Millisecond, page)
	}
}

// A power cut, imitated: what the server was not told to flush of the binary log is gone, and at
// the next start so is what InnoDB had not yet flushed as committed. (A cut that hits later
// finds it flushed: InnoDB does that once a second.)
func TestMariaDBLosesWithoutSyncBinlog(t *testing.T) {
	n := newMariaDBNodes(t).newNode(t, "--sync-binlog=0")
	execute(t, startMariaDBNode(t, n), "CREATE DATABASE game")
	db := openMySQL(t, mysqlDSN(n.address, "game", ""))
	writers := []*writer{newWriter(t, db, midassql.MySQL, false)}
	createTables(t, writers[0], midassql.MySQL)
	answered := make(map[int]error)
	const most = 10
	for i := range most {
		token, err := saveUntilDone(t.Context(), writers, i)
		require.NoError(t, err)
		var file string
		var flushed int64
		var ignore any
		require.NoError(t, db.QueryRowContext(t.Context(), "SHOW MASTER STATUS").Scan(&file, &flushed, &ignore, &ignore))
		answered[i] = callUntilDone(t.Context(), writers, payment(i, token))
		n.kill()
		require.NoError(t, os.Truncate(filepath.Join(n.data, file), flushed))
		startMariaDBNode(t, n)
		if compare(t, writers, answered).lost > 0 {
			return
		}
	}
	t.Fatal("nothing was lost: docs/databases.md says otherwise")
}

// Payments of one player at once, each with a grant that changes his balance: none needs
// another callback, though snapshot isolation refuses what another transaction has changed.
func TestMariaDBSnapshotIsolation(t *testing.T) {
	nodes := newMariaDBNodes(t)
	n := nodes.newNode(t)
	execute(t, startMariaDBNode(t, n), "CREATE DATABASE game")
	writers := []*writer{newWriter(t, openMySQL(t, mysqlDSN(n.address, "game", "")), midassql.MySQL, false)}
	createTables(t, writers[0], midassql.MySQL)
	// Not the time of a callback: on a slow disk five commits one after the other may take longer.
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	const at, rounds = 5, 20
	answered := make(map[int]error)
	for round := range rounds {
		errs := make([]error, at)
		var calls sync.WaitGroup
		for i := range at {
			id := (round*at + i) * players // of one player
			token, err := saveUntilDone(t.Context(), writers, id)
			require.NoError(t, err)
			calls.Go(func() { errs[i] = writers[0].call(ctx, payment(id, token)) })
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

// InnoDB refuses to write at the isolation of a claim where the binary log holds statements. The
// payment is not lost: it waits until the setting is mended.
func TestMariaDBHandsNothingOutWithAStatementLog(t *testing.T) {
	n := newMariaDBNodes(t).newNode(t, "--binlog-format=STATEMENT")
	execute(t, startMariaDBNode(t, n), "CREATE DATABASE game")
	w := newWriter(t, openMySQL(t, mysqlDSN(n.address, "game", "")), midassql.MySQL, false)
	createTables(t, w, midassql.MySQL)
	token, err := saveUntilDone(t.Context(), []*writer{w}, 0)
	require.NoError(t, err)
	require.NoError(t, w.store.Inbox(midassql.InboxOptions{}).Deliver(t.Context(), payment(0, token)))
	waiting := func(more string) (handed int, err error) {
		w := newWriter(t, openMySQL(t, mysqlDSN(n.address, "game", more)), midassql.MySQL, false)
		for d, err := range w.store.Inbox(midassql.InboxOptions{}).Waiting(t.Context(), player(0)) {
			if err != nil {
				return handed, err
			}
			require.Equal(t, billNo(0), d.BillNo)
			handed++
		}
		return handed, nil
	}
	_, err = waiting("")
	require.ErrorContains(t, err, "BINLOG_FORMAT", "docs/databases.md says otherwise")
	handed, err := waiting("&binlog_format=MIXED")
	require.NoError(t, err)
	require.Equal(t, 1, handed)
}
