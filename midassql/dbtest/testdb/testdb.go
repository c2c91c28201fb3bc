// Package testdb opens the databases that the ledger's tests run on, each test with tables of its own.
//
// SQLite needs no set-up. The others are used where these variables hold their URLs:
//
//	MIDAS_TEST_POSTGRES=postgres://postgres@127.0.0.1/test?sslmode=disable
//	MIDAS_TEST_MARIADB=mysql://root@127.0.0.1/test
//	MIDAS_TEST_MYSQL=mysql://root@127.0.0.1:3307/test
//
// With MIDAS_TEST_REQUIRE_ALL=1 a database that is not there is a failure instead of a skip.
package testdb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midassql"
	"github.com/stretchr/testify/require"
	_ "modernc.org/sqlite"
)

// A Kind of database is what tests run on.
type Kind struct {
	Name    string
	Dialect midassql.Dialect
	Server  string   // the variable with its URL
	options []string // of the DSN
}

// The kinds of databases.
var (
	PostgreSQL = Kind{"postgresql", midassql.PostgreSQL, "MIDAS_TEST_POSTGRES", nil}
	MariaDB    = Kind{"mariadb", midassql.MySQL, "MIDAS_TEST_MARIADB", nil}
	MySQL      = Kind{"mysql", midassql.MySQL, "MIDAS_TEST_MYSQL", nil}
	// MySQLReadCommitted is what most studios set, against gap locks.
	MySQLReadCommitted = Kind{"mysql, read committed", midassql.MySQL, "MIDAS_TEST_MYSQL", []string{"transaction_isolation='READ-COMMITTED'"}}
	SQLite             = Kind{"sqlite", midassql.SQLite, "", nil}

	Kinds = []Kind{PostgreSQL, MariaDB, MySQL, MySQLReadCommitted, SQLite}
)

// Run runs test on a database of the kind.
func (k Kind) Run(t *testing.T, test func(t *testing.T, db *Database)) {
	t.Run(k.Name, func(t *testing.T) { test(t, Open(t, k)) })
}

// A Database is one of a test's own: its tables have a prefix that no other test has.
type Database struct {
	*sql.DB
	Kind
	Prefix string
	DSN    string
	Open   func() *sql.DB // another pool of connections to the same
}

// On runs test on each kind of database of the dialects.
func On(t *testing.T, test func(t *testing.T, db *Database), dialects ...midassql.Dialect) {
	for _, k := range Kinds {
		if slices.Contains(dialects, k.Dialect) {
			k.Run(t, test)
		}
	}
}

// OnEach runs test on each kind of database.
func OnEach(t *testing.T, test func(t *testing.T, db *Database)) {
	On(t, test, midassql.PostgreSQL, midassql.MySQL, midassql.SQLite)
}

var databases atomic.Int64

// Open opens a database of the test's own. The options go into the DSN.
func Open(t testing.TB, k Kind, options ...string) *Database {
	t.Helper()
	db := &Database{Kind: k, Prefix: fmt.Sprintf("t%d_%d_", os.Getpid(), databases.Add(1))}
	options = append(slices.Clone(k.options), options...)
	var dsn string
	switch k.Dialect {
	case midassql.PostgreSQL:
		u, err := url.Parse(environment(t, k.Server))
		require.NoError(t, err)
		q := u.Query()
		for _, option := range options {
			name, value, _ := strings.Cut(option, "=")
			q.Set(name, value)
		}
		u.RawQuery = strings.ReplaceAll(q.Encode(), "+", "%20") // pgx does not read "+" as a blank
		dsn = u.String()
	case midassql.MySQL:
		u, err := url.Parse(environment(t, k.Server))
		require.NoError(t, err)
		config := mysql.NewConfig()
		config.Net, config.Addr = "tcp", u.Host
		if u.Port() == "" {
			config.Addr += ":3306"
		}
		config.User, config.DBName = u.User.Username(), strings.TrimPrefix(u.Path, "/")
		config.Passwd, _ = u.User.Password()
		config.Params = map[string]string{"innodb_lock_wait_timeout": "1"}
		for _, option := range options {
			name, value, _ := strings.Cut(option, "=")
			config.Params[name] = value
		}
		dsn = config.FormatDSN()
	case midassql.SQLite:
		if len(options) == 0 {
			options = []string{"_txlock=immediate"}
		}
		options = append(options, "_pragma=busy_timeout(500)", "_pragma=journal_mode(WAL)")
		dsn = "file:" + filepath.Join(t.TempDir(), "game.db") + "?" + strings.Join(options, "&")
	}
	db.DSN = dsn
	db.Open = func() *sql.DB {
		pool, err := sql.Open(DriverName(k.Dialect), dsn)
		require.NoError(t, err)
		pool.SetMaxOpenConns(20)
		t.Cleanup(func() { pool.Close() })
		return pool
	}
	db.DB = db.Open()
	require.NoError(t, db.Ping())
	t.Cleanup(func() {
		for _, table := range Tables {
			if _, err := db.Exec("DROP TABLE IF EXISTS " + db.Prefix + table); err != nil && !errors.Is(err, sql.ErrConnDone) {
				t.Log(err)
			}
		}
	})
	return db
}

// DriverName returns the name of the dialect's driver.
func DriverName(dialect midassql.Dialect) string {
	return map[midassql.Dialect]string{midassql.PostgreSQL: "pgx", midassql.MySQL: "mysql", midassql.SQLite: "sqlite"}[dialect]
}

// environment returns the URL of a database, or skips the test.
func environment(t testing.TB, name string) string {
	value := os.Getenv(name)
	if value == "" && os.Getenv("MIDAS_TEST_REQUIRE_ALL") == "1" {
		t.Fatalf("%s is not set, and MIDAS_TEST_REQUIRE_ALL=1", name)
	}
	if value == "" {
		t.Skipf("SKIPPED, NOT TESTED: set %s to test on this database", name)
	}
	return value
}

// Store returns a Store on db with its tables, and a table of items.
func (db *Database) Store(t testing.TB, opts midassql.Options) *midassql.Store {
	t.Helper()
	opts.TablePrefix = db.Prefix
	store, err := midassql.New(db.DB, db.Dialect, opts)
	require.NoError(t, err)
	require.NoError(t, store.Migrate(t.Context()))
	db.Create(t, "items", "openid, billno, item", "quantity")
	return store
}

// Create creates a table of texts and numbers, unless it is there. On MySQL it has a key of its own, as
// sql_require_primary_key=ON asks for.
func (db *Database) Create(t testing.TB, table, texts, numbers string) {
	t.Helper()
	text, columns := " TEXT", []string{}
	if db.Dialect == midassql.MySQL {
		text, columns = " VARBINARY(255)", []string{"id BIGINT AUTO_INCREMENT PRIMARY KEY"}
	}
	for column := range strings.SplitSeq(texts, ", ") {
		columns = append(columns, column+text)
	}
	if numbers != "" {
		columns = append(columns, numbers+" BIGINT")
	}
	db.Must(t, "CREATE TABLE IF NOT EXISTS "+table+" ("+strings.Join(columns, ", ")+")")
}

// Tables are those of a Store, one of items, and one of refunds that were handed over.
var Tables = []string{"orders", "deliveries", "inbox", "zones", "meta", "refunds", "numbers", "attempts", "acts", "items", "told"}

// SQL writes "?" and table names as db has them.
func (db *Database) SQL(statement string) string {
	for _, table := range Tables {
		for _, before := range []string{"INTO ", "FROM ", "TABLE ", "EXISTS ", "ON ", "UPDATE "} {
			statement = strings.ReplaceAll(statement, before+table, before+db.Prefix+table)
		}
	}
	if db.Dialect == midassql.PostgreSQL {
		for i := 1; strings.Contains(statement, "?"); i++ {
			statement = strings.Replace(statement, "?", fmt.Sprintf("$%d", i), 1)
		}
	}
	return statement
}

// Must runs a statement.
func (db *Database) Must(t testing.TB, statement string, args ...any) {
	t.Helper()
	_, err := db.Exec(db.SQL(statement), args...)
	require.NoError(t, err)
}

// Count returns the number that a query yields.
func (db *Database) Count(t testing.TB, query string, args ...any) (n int) {
	t.Helper()
	require.NoError(t, db.QueryRow(db.SQL(query), args...).Scan(&n))
	return n
}

// Grant inserts what was bought. Its table has no unique key: a second grant would show.
func (db *Database) Grant(ctx context.Context, tx *sql.Tx, d *midas.Delivery) error {
	for _, item := range d.Items {
		_, err := tx.ExecContext(ctx, db.SQL("INSERT INTO items (openid, billno, item, quantity) VALUES (?, ?, ?, ?)"),
			d.OpenID, d.BillNo, item.ID, item.Quantity)
		if err != nil {
			return err
		}
	}
	return nil
}

// AwaitWaiter returns when a statement on db's tables waits for a lock, or when over is closed. SQLite
// does not show its waiters: there whoever writes waits before its transaction begins. It reports whether one waits.
func (db *Database) AwaitWaiter(t testing.TB, over <-chan struct{}) bool {
	t.Helper()
	waiting := map[string]string{ // by the server
		PostgreSQL.Server: "SELECT COUNT(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%" + db.Prefix + "%'",
		MariaDB.Server: "SELECT COUNT(*) FROM information_schema.processlist WHERE command IN ('Execute', 'Query') AND time_ms > 20 AND info LIKE '%" +
			db.Prefix + "%' AND id <> CONNECTION_ID()",
		// Not innodb_trx, which is made anew only when nobody has looked for 100 ms.
		MySQL.Server: "SELECT COUNT(*) FROM performance_schema.data_lock_waits w JOIN performance_schema.data_locks l" +
			" ON l.engine_lock_id = w.requesting_engine_lock_id WHERE l.object_name LIKE '" + db.Prefix + "%'",
		SQLite.Server: "SELECT 1",
	}[db.Server]
	for {
		var n int
		if err := db.QueryRow(waiting).Scan(&n); err != nil {
			t.Error(err)
			return false
		}
		if n > 0 {
			return true
		}
		select {
		case <-over:
			return false
		case <-t.Context().Done():
			t.Error("nobody waits")
			return false
		case <-time.After(5 * time.Millisecond):
		}
	}
}
