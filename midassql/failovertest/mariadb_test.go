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

// mysqlNodes makes nodes of MariaDB or MySQL, each with a copy of one empty data folder.
type mysqlNodes struct {
	account  *account
	server   []string // the command
	settings []string
	semiSync []string // settings without which it knows nothing of semi-synchronous replication
	template string   // folder
	made     int

	words   *strings.Replacer // what the server calls what MariaDB's settings and statements name
	applied string            // selects 1 on a replica that has applied what it has received
}

func newMariaDBNodes(t *testing.T) *mysqlNodes {
	t.Helper()
	m := &mysqlNodes{account: newAccount(t, "mysql"), server: []string{program(t, "mariadbd", "/usr/sbin/"), "--no-defaults"},
		settings: []string{"--log-slave-updates=ON", "--innodb-snapshot-isolation=ON"}, // the latter is the default from MariaDB 11.6.2 on
		words:    strings.NewReplacer(),
		applied: `SELECT COUNT(*) > 0 FROM information_schema.processlist
			WHERE user = 'system user' AND state LIKE 'Slave has read all relay log%'`}
	m.template = filepath.Join(m.account.folder, "template")
	m.account.run(t, program(t, "mariadb-install-db", "/usr/bin/"), "--no-defaults", "--datadir="+m.template, "--tmpdir="+m.account.folder,
		"--auth-root-authentication-method=normal", "--skip-test-db")
	return m
}

func (m *mysqlNodes) newNode(t *testing.T, settings ...string) *node {
	t.Helper()
	m.made++
	n := newNode(t, m.account, fmt.Sprintf("node%d", m.made))
	m.account.run(t, "cp", "-aT", m.template, n.data)
	tmp := n.data + ".tmp" // of its own: a server that starts deletes those of others
	m.account.run(t, "mkdir", tmp)
	n.args = slices.Concat(m.server, []string{"--datadir=" + n.data, "--tmpdir=" + tmp,
		"--bind-address=127.0.0.1", "--port=" + n.port(), "--skip-name-resolve",
		"--socket=" + filepath.Join(tmp, "socket"), "--pid-file=" + filepath.Join(tmp, "pid"),
		"--log-bin=" + filepath.Join(n.data, "binlog"), "--binlog-format=ROW", "--sync-binlog=1",
		fmt.Sprintf("--server-id=%d", m.made)}, m.settings, settings)
	return n
}

// startMySQLNode starts a node, with extra arguments for this start.
func startMySQLNode(t *testing.T, n *node, extra ...string) *sql.DB {
	t.Helper()
	db := openMySQL(t, mysqlDSN(n.address, "", "&readTimeout=2m")) // a slow disk is no fault here
	n.start(t, func() error { return db.PingContext(t.Context()) }, extra...)
	return db
}

func openGame(t *testing.T, address string) *sql.DB {
	return openMySQL(t, mysqlDSN(address, "game", ""))
}

// startAlone starts a new node that has the game's database, and no replica.
func (m *mysqlNodes) startAlone(t *testing.T, settings ...string) *node {
	t.Helper()
	n := m.newNode(t, settings...)
	execute(t, startMySQLNode(t, n), "CREATE DATABASE game")
	return n
}

// A semiSync is a primary with a semi-synchronous replica, behind an address that leads to the
// primary.
type semiSync struct {
	nodes              *mysqlNodes
	timeout            time.Duration // after which the primary goes on without its replica
	primary, replica   *node
	front, replication *link
}

func startMariaDB(t *testing.T, timeout time.Duration) *semiSync {
	t.Helper()
	return startSemiSync(t, newMariaDBNodes(t), timeout)
}

func startSemiSync(t *testing.T, nodes *mysqlNodes, timeout time.Duration) *semiSync {
	t.Helper()
	m := &semiSync{nodes: nodes, timeout: timeout, front: newLink(t), replication: newLink(t)}
	m.primary = m.newNode(t)
	m.lead(t, startMySQLNode(t, m.primary))
	m.makeReplica(t)
	execute(t, openMySQL(t, mysqlDSN(m.front.address, "", "")), "CREATE DATABASE game")
	return m
}

func (m *semiSync) newNode(t *testing.T) *node {
	settings := slices.Clone(m.nodes.semiSync)
	for _, setting := range []string{"slave-enabled=ON", "master-wait-point=AFTER_SYNC", "master-wait-no-slave=ON", fmt.Sprint("master-timeout=", m.timeout.Milliseconds())} {
		settings = append(settings, "--rpl-semi-sync-"+m.nodes.words.Replace(setting))
	}
	return m.nodes.newNode(t, settings...)
}

// execute executes statements that are in MariaDB's words.
func (m *mysqlNodes) execute(t *testing.T, db *sql.DB, statements ...string) {
	t.Helper()
	for _, statement := range statements {
		execute(t, db, m.words.Replace(statement))
	}
}

// lead makes the node of db the primary for those who come to the front.
func (m *semiSync) lead(t *testing.T, db *sql.DB) {
	t.Helper()
	m.nodes.execute(t, db, "SET GLOBAL rpl_semi_sync_master_enabled = ON")
	m.front.lead(m.primary.address)
	m.replication.lead(m.primary.address)
}

// makeReplica makes a new replica.
func (m *semiSync) makeReplica(t *testing.T) {
	t.Helper()
	m.replica = m.newNode(t)
	m.nodes.follow(t, m.replica, m.replication.address)
	m.nodes.awaitReplicas(t, m.primary.address, "1")
}

// follow starts a new node as a replica of the one at address, from whose binary log it gets everything.
func (m *mysqlNodes) follow(t *testing.T, n *node, address string) {
	t.Helper()
	db := startMySQLNode(t, n)
	host, port, err := net.SplitHostPort(address)
	require.NoError(t, err)
	m.execute(t, db, fmt.Sprintf("CHANGE MASTER TO master_host = '%s', master_port = %s, master_user = 'root', master_use_gtid = slave_pos, master_connect_retry = 1", host, port),
		"START SLAVE")
}

// awaitReplicas waits until the server at address knows of n replicas that acknowledge.
func (m *mysqlNodes) awaitReplicas(t *testing.T, address, n string) {
	t.Helper()
	db := openMySQL(t, mysqlDSN(address, "", ""))
	defer db.Close()
	eventually(t, n+" replicas", func() error {
		var name, clients string
		err := db.QueryRowContext(t.Context(), m.words.Replace("SHOW STATUS LIKE 'Rpl_semi_sync_master_clients'")).Scan(&name, &clients)
		if err == nil && clients != n {
			err = errors.New(clients + " replicas")
		}
		return err
	})
}

// failover kills the primary after the replica was cut off from it for a while, and promotes
// the replica.
func (m *semiSync) failover(t *testing.T) {
	t.Helper()
	m.replication.stall()
	pause(t.Context(), stalled)
	m.promote(t)
}

// promote goes on from a stalled link. The replica applies what it has received before it
// leads.
func (m *semiSync) promote(t *testing.T) {
	t.Helper()
	m.primary.kill()
	m.replication.lead(nobody)
	m.replication.resume()
	db := openMySQL(t, mysqlDSN(m.replica.address, "", "&readTimeout=2m"))
	m.nodes.execute(t, db, "STOP SLAVE IO_THREAD")
	eventually(t, "the replica to apply its relay log", func() error {
		var n int
		err := db.QueryRowContext(t.Context(), m.nodes.applied).Scan(&n)
		if err == nil && n == 0 {
			err = errors.New("not yet")
		}
		return err
	})
	m.nodes.execute(t, db, "STOP SLAVE", "RESET SLAVE ALL")
	require.NoError(t, os.RemoveAll(m.primary.data))
	m.primary = m.replica
	m.lead(t, db)
	m.makeReplica(t)
}

func (m *semiSync) writers(t *testing.T) []*writer {
	return newWriters(t, func() *sql.DB { return openGame(t, m.front.address) }, midassql.MySQL)
}

const practicallyForever = time.Hour

// nobody is an address where nobody listens.
const nobody = "127.0.0.1:1"

func TestMariaDB(t *testing.T) {
	m := startMariaDB(t, practicallyForever)
	requireSurvives(t, m.writers(t), func() { m.failover(t) })
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
	m.nodes.execute(t, openMySQL(t, mysqlDSN(m.primary.address, "", "")), "SET GLOBAL rpl_semi_sync_master_wait_no_slave = OFF")
	r := m.withoutReplica(t)
	require.NotZero(t, r.lost, "nothing was lost: the proof would not see a loss")
}

// withoutReplica disconnects the replica for a while, and promotes it. The replica takes its leave:
// a primary with a broken connection notices nothing until it has something to send.
func (m *semiSync) withoutReplica(t *testing.T) result {
	t.Helper()
	return during(t, m.writers(t), func() {
		m.nodes.execute(t, openMySQL(t, mysqlDSN(m.replica.address, "", "")), "STOP SLAVE IO_THREAD")
		m.nodes.awaitReplicas(t, m.primary.address, "0")
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

// Its connection is ended by KILL, or by the driver's readTimeout, since max_statement_time does not touch a commit
// that waits: there is no OK.
func TestMariaDBKillsAConnection(t *testing.T) {
	m := startMariaDB(t, practicallyForever)
	m.writers(t)
	for i, test := range []struct{ more, statement string }{{"", "KILL "}, {"&max_statement_time=2", ""}} {
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
func (m *semiSync) whileCommitWaits(t *testing.T, w *writer, i int, statement string) error {
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
	db := openGame(t, m.replica.address)
	replica := newWriter(t, db, midassql.MySQL, false)
	awaitTables(t, db)
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

func TestMariaDBStartsWithThePagesSettings(t *testing.T) {
	newMariaDBNodes(t).startWithThePagesSettings(t)
}

// startWithThePagesSettings: docs/databases.md has settings to copy, and the server knows them.
func (m *mysqlNodes) startWithThePagesSettings(t *testing.T) {
	t.Helper()
	name := m.words.Replace("rpl_semi_sync_master_timeout")
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "databases.md"))
	require.NoError(t, err)
	blocks := strings.Split(string(text), "```")
	i := slices.IndexFunc(blocks, func(block string) bool { return strings.Contains(block, "\n"+name+"=") })
	require.Positive(t, i)
	var settings []string
	for line := range strings.Lines(strings.TrimSpace(blocks[i])) {
		setting, _, _ := strings.Cut(line, "#")
		settings = append(settings, "--"+strings.TrimSpace(setting))
	}
	var timeout int
	require.NoError(t, startMySQLNode(t, m.newNode(t, settings...)).QueryRowContext(t.Context(), "SELECT @@"+name).Scan(&timeout))
	require.Equal(t, practicallyForever, time.Duration(timeout)*time.Millisecond)
}

func TestMariaDBLosesWithoutSyncBinlog(t *testing.T) {
	newMariaDBNodes(t).losesWithoutSyncBinlog(t)
}

// losesWithoutSyncBinlog imitates a power cut: what the server was not told to flush of the binary log is
// gone, and at the next start so is what InnoDB had not yet flushed as committed. (A cut that hits later
// finds it flushed: InnoDB does that once a second.)
func (m *mysqlNodes) losesWithoutSyncBinlog(t *testing.T) {
	t.Helper()
	var binlog string // file
	var flushed int64 // its length
	m.losesAtOnce(t, func(n *node) { require.NoError(t, os.Truncate(filepath.Join(n.data, binlog), flushed)) }, func(db *sql.DB) {
		rows, err := db.QueryContext(t.Context(), m.words.Replace("SHOW MASTER STATUS"))
		require.NoError(t, err)
		defer rows.Close()
		columns, err := rows.Columns()
		require.NoError(t, err)
		values := []any{&binlog, &flushed}
		for range columns[2:] {
			values = append(values, new(any))
		}
		require.True(t, rows.Next())
		require.NoError(t, rows.Scan(values...))
	}, "--sync-binlog=0")
}

// losesAtOnce kills a node right after it has answered OK, until a payment is lost. look is called before
// each payment, and cut between the kill and the next start.
func (m *mysqlNodes) losesAtOnce(t *testing.T, cut func(*node), look func(*sql.DB), settings ...string) {
	t.Helper()
	n := m.startAlone(t, settings...)
	db := openGame(t, n.address)
	writers := []*writer{newWriter(t, db, midassql.MySQL, false)}
	createTables(t, writers[0], midassql.MySQL)
	answered := make(map[int]error)
	const most = 10
	for i := range most {
		token, err := saveUntilDone(t.Context(), writers, i)
		require.NoError(t, err)
		look(db)
		answered[i] = callUntilDone(t.Context(), writers, payment(i, token))
		n.kill()
		cut(n)
		startMySQLNode(t, n)
		if compare(t, writers, answered).lost > 0 {
			return
		}
	}
	t.Fatal("nothing was lost: docs/databases.md says otherwise")
}

// Payments of one player at once, each with a grant that changes his balance: none needs
// another callback, though snapshot isolation refuses what another transaction has changed.
func TestMariaDBSnapshotIsolation(t *testing.T) {
	n := newMariaDBNodes(t).startAlone(t)
	writers := []*writer{newWriter(t, openGame(t, n.address), midassql.MySQL, false)}
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
	n := newMariaDBNodes(t).startAlone(t, "--binlog-format=STATEMENT")
	w := newWriter(t, openGame(t, n.address), midassql.MySQL, false)
	createTables(t, w, midassql.MySQL)
	token, err := saveUntilDone(t.Context(), []*writer{w}, 0)
	require.NoError(t, err)
	inbox, err := w.store.Inbox(midassql.InboxOptions{})
	require.NoError(t, err)
	require.NoError(t, inbox.Deliver(t.Context(), payment(0, token)))
	waiting := func(more string) (handed int, err error) {
		w := newWriter(t, openMySQL(t, mysqlDSN(n.address, "game", more)), midassql.MySQL, false)
		inbox, err := w.store.Inbox(midassql.InboxOptions{})
		require.NoError(t, err)
		for d, err := range inbox.Waiting(t.Context(), player(0)) {
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
