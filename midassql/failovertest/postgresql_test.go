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

	"github.com/jackc/pgx/v5/pgconn"
	_ "github.com/jackc/pgx/v5/stdlib"
	_ "github.com/lib/pq"
	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midassql"
	"github.com/stretchr/testify/require"
)

const (
	stalled = 3 * time.Second // how long the standby hears nothing before the primary is killed
	between = 3 * time.Second // two failovers
)

// A postgreSQL is a primary and a standby, which replicates over a link.
type postgreSQL struct {
	account          *account
	bin              string // folder
	primary, standby *node
	replication      *link
}

// startPostgreSQL starts both. With a synchronous standby a commit waits until it is on both
// disks.
func startPostgreSQL(t *testing.T, synchronous bool) *postgreSQL {
	t.Helper()
	p := newPostgreSQL(t)
	p.primary, p.standby = p.newNode(t, "a"), p.newNode(t, "b")
	p.init(t, p.primary)
	settings := "wal_log_hints = on\nwal_retrieve_retry_interval = 200ms\nunix_socket_directories = ''\n"
	if synchronous {
		// By name: for '*' a running pg_basebackup is a synchronous standby too.
		settings += "synchronous_standby_names = 'standby'\n"
	}
	file, err := os.OpenFile(filepath.Join(p.primary.data, "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = file.WriteString(settings)
	require.NoError(t, err)
	require.NoError(t, file.Close())
	p.start(t, p.primary)
	p.replication.lead(p.primary.address)
	p.makeStandby(t)
	return p
}

func newPostgreSQL(t *testing.T) *postgreSQL {
	t.Helper()
	bin := *pgFolder
	if bin == "" {
		bin = filepath.Dir(program(t, "initdb", "/usr/lib/postgresql/*/bin/"))
	}
	return &postgreSQL{account: newAccount(t, "postgres"), bin: bin, replication: newLink(t)}
}

func (p *postgreSQL) init(t *testing.T, n *node, more ...string) {
	t.Helper()
	p.account.run(t, append([]string{filepath.Join(p.bin, "initdb"), "-D", n.data, "-U", "game", "-A", "trust", "-E", "UTF8", "--locale=C"}, more...)...)
}

func (p *postgreSQL) newNode(t *testing.T, name string) *node {
	n := newNode(t, p.account, name)
	n.args = []string{filepath.Join(p.bin, "postgres"), "-D", n.data, "-p", n.port(), "-c", "listen_addresses=127.0.0.1",
		"-c", "cluster_name=standby"} // the name that a standby shows to its primary
	return n
}

func (p *postgreSQL) start(t *testing.T, n *node) {
	t.Helper()
	n.start(t, func() error { return p.open(t, n.address).PingContext(t.Context()) })
}

// makeStandby makes the standby anew, as a copy of the primary.
func (p *postgreSQL) makeStandby(t *testing.T) {
	t.Helper()
	require.NoError(t, os.RemoveAll(p.standby.data))
	host, port, err := net.SplitHostPort(p.replication.address)
	require.NoError(t, err)
	p.account.run(t, filepath.Join(p.bin, "pg_basebackup"), "-h", host, "-p", port, "-U", "game", "-D", p.standby.data, "-R", "-X", "stream", "-c", "fast")
	p.start(t, p.standby)
	db := p.open(t, p.primary.address)
	eventually(t, "the standby to follow", func() error {
		var n int
		err := db.QueryRowContext(t.Context(), `SELECT COUNT(*) FROM pg_stat_replication WHERE state = 'streaming'`).Scan(&n)
		if err == nil && n == 0 {
			err = sql.ErrNoRows
		}
		return err
	})
}

// failover kills the primary after the standby has heard nothing for a while, and promotes the
// standby.
func (p *postgreSQL) failover(t *testing.T) {
	t.Helper()
	p.replication.stall()
	pause(t.Context(), stalled)
	p.promote(t)
}

// promote goes on from a stalled link.
func (p *postgreSQL) promote(t *testing.T) {
	t.Helper()
	p.primary.kill()
	p.replication.lead(p.standby.address)
	p.replication.resume()
	p.account.run(t, filepath.Join(p.bin, "pg_ctl"), "promote", "-w", "-D", p.standby.data)
	p.primary, p.standby = p.standby, p.primary
	p.makeStandby(t)
}

// dsn finds the primary, whichever it is.
func (p *postgreSQL) dsn() string {
	return fmt.Sprintf("postgres://game@%s,%s/postgres?sslmode=disable&target_session_attrs=read-write&connect_timeout=1", p.primary.address, p.standby.address)
}

func (p *postgreSQL) url(address string) string {
	return "postgres://game@" + address + "/postgres?sslmode=disable&connect_timeout=1"
}

func (p *postgreSQL) open(t *testing.T, address string) *sql.DB {
	return openPGX(t, p.url(address))
}

func openPGX(t *testing.T, dsn string) *sql.DB { return openPostgreSQL(t, "pgx", dsn) }

func openPostgreSQL(t *testing.T, driver, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open(driver, dsn)
	require.NoError(t, err)
	db.SetMaxOpenConns(10)
	db.SetMaxIdleConns(10)
	t.Cleanup(func() { db.Close() })
	return db
}

// writers are game servers.
func (p *postgreSQL) writers(t *testing.T) []*writer {
	return newWriters(t, func() *sql.DB { return openPGX(t, p.dsn()) }, midassql.PostgreSQL)
}

func TestPostgreSQL(t *testing.T) {
	p := startPostgreSQL(t, true)
	requireSurvives(t, p.writers(t), func() { p.failover(t) })
}

// The counter-example: OK is answered before the standby has the payment.
func TestPostgreSQLLosesWithAsynchronousStandby(t *testing.T) {
	p := startPostgreSQL(t, false)
	writers := p.writers(t)
	r := during(t, writers, func() { p.failover(t) })
	require.NotZero(t, r.lost, "nothing was lost: the proof would not see a loss")
}

// A callback that got no answer while the standby hears nothing has left its row on the primary
// alone, where its repeat sees it.
func TestPostgreSQLRepeatsWhileTheStandbyIsStalled(t *testing.T) {
	p := startPostgreSQL(t, true)
	writers := p.writers(t)
	requireExactlyOnce(t, p.repeats(t, writers, 0))

	t.Run("loses: a repeat that only reads", func(t *testing.T) {
		for _, w := range writers {
			w.deliver = onceByHand(w.db, midassql.PostgreSQL, false)
		}
		r := p.repeats(t, writers, callers)
		require.NotZero(t, r.lost, "nothing was lost: the proof would not see a loss")
	})
}

// repeats calls payments back while the standby hears nothing, from the first on, and fails
// over.
func (p *postgreSQL) repeats(t *testing.T, writers []*writer, first int) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	errs := make([]error, callers)
	var calls sync.WaitGroup
	tokens := make([]string, callers)
	for i := range callers {
		var err error
		tokens[i], err = saveUntilDone(ctx, writers, first+i)
		require.NoError(t, err)
	}
	p.replication.stall()
	for i := range callers {
		calls.Go(func() { errs[i] = callUntilDone(ctx, writers, payment(first+i, tokens[i])) })
	}
	pause(ctx, stalled)
	p.promote(t)
	calls.Wait()
	answered := make(map[int]error)
	for i, err := range errs {
		answered[first+i] = err
	}
	return compare(t, writers, answered)
}

// A commit that waits for the standby is cancelled by an administrator: PostgreSQL ends it with
// success, and a warning that nobody reads.
func TestPostgreSQLLosesWithCancelBackend(t *testing.T) {
	p := startPostgreSQL(t, true)
	w := p.writers(t)[0]
	err := p.whileCommitWaits(t, w, `SELECT pg_cancel_backend(pid)`)
	p.promote(t)
	require.NoError(t, err, "a cancelled commit is an error now: docs/databases.md says otherwise")
	r := compare(t, []*writer{w}, map[int]error{0: err})
	require.Equal(t, 1, r.lost, "the payment is still there: docs/databases.md says otherwise")
}

// Its connection is ended: there is no OK.
func TestPostgreSQLTerminatesABackend(t *testing.T) {
	p := startPostgreSQL(t, true)
	require.Error(t, p.whileCommitWaits(t, p.writers(t)[0], `SELECT pg_terminate_backend(pid)`))
	p.replication.resume()
}

// whileCommitWaits stalls the standby, and has an administrator select something of the backend whose
// commit of payment 0 waits for it. It returns what the callback was answered.
func (p *postgreSQL) whileCommitWaits(t *testing.T, w *writer, selects string) error {
	t.Helper()
	require.NoError(t, w.store.SaveOrder(t.Context(), order(0), &midas.Order{Token: "token"}))
	admin := p.open(t, p.primary.address)
	p.replication.stall()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	answer := make(chan error, 1)
	go func() { answer <- w.deliver(ctx, payment(0, "token")) }()
	eventually(t, "a commit that waits", func() error {
		var done bool
		return admin.QueryRowContext(t.Context(), selects+` FROM pg_stat_activity WHERE wait_event = 'SyncRep'`).Scan(&done)
	})
	return <-answer
}

// For '*' a running copy of the primary is a synchronous standby, while the real one is away: it
// confirms what it has received by the segment. (Its name is the program's, pg_basebackup.)
func TestPostgreSQLLosesWithAnyStandby(t *testing.T) {
	p := startPostgreSQL(t, true)
	w := p.writers(t)[0]
	token, err := saveUntilDone(t.Context(), []*writer{w}, 0)
	require.NoError(t, err)
	admin := p.open(t, p.primary.address)
	execute(t, admin, `ALTER SYSTEM SET synchronous_standby_names = '*'`, `SELECT pg_reload_conf()`)

	p.replication.lead(nobody)
	host, port, err := net.SplitHostPort(p.primary.address)
	require.NoError(t, err)
	backup := newNode(t, p.account, "backup")
	backup.args = []string{filepath.Join(p.bin, "pg_basebackup"), "-h", host, "-p", port, "-U", "game", "-D", backup.data, "-c", "fast", "--max-rate=32k"}
	backup.start(t, func() error {
		var state string
		err := admin.QueryRowContext(t.Context(), `SELECT sync_state FROM pg_stat_replication WHERE application_name = 'pg_basebackup' AND state = 'streaming'`).Scan(&state)
		if err == nil && state != "sync" {
			err = errors.New(state)
		}
		return err
	})
	answer := make(chan error, 1)
	go func() { answer <- w.deliver(context.Background(), payment(0, token)) }()
	eventually(t, "an answer", func() error {
		execute(t, admin, `SELECT pg_switch_wal()`) // as after 16 MB, or archive_timeout
		select {
		case err = <-answer:
			return nil
		default:
			return errors.New("none yet")
		}
	})
	require.NoError(t, err)
	backup.kill()
	p.replication.stall()
	p.promote(t)
	require.Equal(t, 1, compare(t, []*writer{w}, map[int]error{0: err}).lost, "the payment is still there: docs/databases.md says otherwise")
}

// A switchover may leave the old primary up, and read-only. A pool stays with it for as long as
// its connections last.
func TestPostgreSQLPoolLeavesAReadOnlyNode(t *testing.T) {
	p := startPostgreSQL(t, false)
	stays := newWriter(t, openPGX(t, p.dsn()), midassql.PostgreSQL, false)
	leaves := newWriter(t, openPGX(t, p.dsn()), midassql.PostgreSQL, false)
	leaves.db.SetConnMaxLifetime(time.Second)
	createTables(t, stays, midassql.PostgreSQL)
	require.NoError(t, leaves.db.PingContext(t.Context()))
	var refused *pgconn.PgError
	onStandby := newWriter(t, p.open(t, p.standby.address), midassql.PostgreSQL, false)
	awaitTables(t, onStandby.db)
	require.ErrorAs(t, onStandby.deliver(t.Context(), payment(0, "token")), &refused, "docs/databases.md says otherwise")
	require.Equal(t, "25006", refused.Code) // read_only_sql_transaction

	execute(t, p.open(t, p.primary.address), `ALTER SYSTEM SET default_transaction_read_only = on`, `SELECT pg_reload_conf()`)
	p.account.run(t, filepath.Join(p.bin, "pg_ctl"), "promote", "-w", "-D", p.standby.data)
	pause(t.Context(), 2*time.Second)

	refused = nil
	require.ErrorAs(t, stays.payOnce(t.Context(), 0), &refused, "docs/databases.md says otherwise")
	require.Equal(t, "25006", refused.Code)
	require.NoError(t, leaves.payOnce(t.Context(), 1))
}

// A context that ends while a commit waits for the standby: drivers cancel the commit, which
// PostgreSQL ends with success, and lib/pq passes that on. (The server's own limit for statements
// has ended before the commit waits.)
func TestPostgreSQLContextEndsDuringCommit(t *testing.T) {
	p := startPostgreSQL(t, true)
	orders := newWriter(t, openPGX(t, p.dsn()), midassql.PostgreSQL, false)
	createTables(t, orders, midassql.PostgreSQL)
	for i, test := range []struct{ driver, more string }{{"pgx", ""}, {"postgres", ""}, {"pgx", "&statement_timeout=200"}} { // postgres is lib/pq
		t.Run(test.driver+test.more, func(t *testing.T) {
			w := newWriter(t, openPostgreSQL(t, test.driver, p.url(p.primary.address)+test.more), midassql.PostgreSQL, false)
			token := fmt.Sprint("token", i)
			require.NoError(t, orders.store.SaveOrder(t.Context(), order(i), &midas.Order{Token: token}))
			p.replication.stall()
			defer p.replication.resume()
			for range 2 { // the payment, and its repeat
				ctx, cancel := context.WithTimeout(t.Context(), callTime)
				err := w.deliver(ctx, payment(i, token))
				cancel()
				require.Error(t, err, "OK for what the standby does not have")
			}
		})
	}
}

// onceByHand is Once as somebody would write it who does not know why midassql does more: a
// repeat only reads. With selects, the transaction also looks at the order, by a prepared
// statement.
func onceByHand(db *sql.DB, dialect midassql.Dialect, selects bool) midas.DeliverFunc {
	insert := `INSERT INTO byhand (openid, billno) VALUES ($1, $2) ON CONFLICT DO NOTHING`
	if dialect == midassql.MySQL {
		insert = `INSERT IGNORE INTO byhand (openid, billno) VALUES (?, ?)`
	}
	return func(ctx context.Context, d *midas.Delivery) error {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer tx.Rollback()
		inserted, err := tx.ExecContext(ctx, insert, d.OpenID, d.BillNo)
		if err != nil {
			return err
		}
		if n, err := inserted.RowsAffected(); err != nil || n == 0 {
			return err // granted before
		}
		if selects {
			var openID string
			if err := tx.QueryRowContext(ctx, placeholders(dialect, `SELECT openid FROM midas_orders WHERE token = ? `+slowly()), d.Token).Scan(&openID); err != nil {
				return err
			}
		}
		if err := grant(ctx, tx, dialect, d, false, ""); err != nil {
			return err
		}
		return tx.Commit()
	}
}
