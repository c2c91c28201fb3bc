// Package dbtest tests midassql on real databases. It is a module of its own because
// the drivers are; it has nothing but tests.
//
// SQLite needs no set-up. PostgreSQL and MySQL or MariaDB are used where MIDAS_TEST_POSTGRES
// and MIDAS_TEST_MYSQL hold their URLs:
//
//	MIDAS_TEST_POSTGRES=postgres://postgres@127.0.0.1/test?sslmode=disable
//	MIDAS_TEST_MYSQL=mysql://root@127.0.0.1/test
//
// With MIDAS_TEST_REQUIRE_ALL=1 a database that is not there is a failure instead of a skip.
package dbtest

import (
	"context"
	"database/sql"
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

// A database is one of a test's own: its tables have a prefix that no other test has.
type database struct {
	*sql.DB
	dialect midassql.Dialect
	prefix  string
	dsn     string
	open    func() *sql.DB // another pool of connections to the same
}

// on runs test on each of the databases named.
func on(t *testing.T, test func(t *testing.T, db *database), dialects ...midassql.Dialect) {
	for _, dialect := range dialects {
		t.Run(string(dialect), func(t *testing.T) { test(t, openDatabase(t, dialect)) })
	}
}

func onEach(t *testing.T, test func(t *testing.T, db *database)) {
	on(t, test, midassql.PostgreSQL, midassql.MySQL, midassql.SQLite)
}

var databases atomic.Int64

func openDatabase(t testing.TB, dialect midassql.Dialect, options ...string) *database {
	t.Helper()
	db := &database{dialect: dialect, prefix: fmt.Sprintf("t%d_%d_", os.Getpid(), databases.Add(1))}
	var dsn string
	switch dialect {
	case midassql.PostgreSQL:
		u, err := url.Parse(environment(t, "MIDAS_TEST_POSTGRES"))
		require.NoError(t, err)
		q := u.Query()
		for _, option := range options {
			name, value, _ := strings.Cut(option, "=")
			q.Set(name, value)
		}
		u.RawQuery = strings.ReplaceAll(q.Encode(), "+", "%20") // pgx does not read "+" as a blank
		dsn = u.String()
	case midassql.MySQL:
		u, err := url.Parse(environment(t, "MIDAS_TEST_MYSQL"))
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
		if options == nil {
			options = []string{"_txlock=immediate"}
		}
		options = append(options, "_pragma=busy_timeout(500)", "_pragma=journal_mode(WAL)")
		dsn = "file:" + filepath.Join(t.TempDir(), "game.db") + "?" + strings.Join(options, "&")
	}
	db.dsn = dsn
	db.open = func() *sql.DB {
		pool, err := sql.Open(driverName(dialect), dsn)
		require.NoError(t, err)
		pool.SetMaxOpenConns(20)
		t.Cleanup(func() { pool.Close() })
		return pool
	}
	db.DB = db.open()
	require.NoError(t, db.Ping())
	t.Cleanup(func() {
		for _, table := range tables {
			db.Exec("DROP TABLE IF EXISTS " + db.prefix + table)
		}
	})
	return db
}

func driverName(dialect midassql.Dialect) string {
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

// store returns a Store on db with its tables, and a table of items.
func (db *database) store(t testing.TB, opts midassql.Options) *midassql.Store {
	t.Helper()
	opts.TablePrefix = db.prefix
	store, err := midassql.New(db.DB, db.dialect, opts)
	require.NoError(t, err)
	require.NoError(t, store.Migrate(t.Context()))
	text := "TEXT"
	if db.dialect == midassql.MySQL {
		text = "VARBINARY(255)"
	}
	db.must(t, "CREATE TABLE IF NOT EXISTS items (openid "+text+", billno "+text+", item "+text+", quantity BIGINT)")
	return store
}

// tables are those of a Store, one of items, and one of refunds that were handed over.
var tables = []string{"orders", "deliveries", "inbox", "zones", "meta", "refunds", "items", "told"}

// sql writes "?" and table names as db has them.
func (db *database) sql(statement string) string {
	for _, table := range tables {
		for _, before := range []string{"INTO ", "FROM ", "TABLE ", "EXISTS ", "ON ", "UPDATE "} {
			statement = strings.ReplaceAll(statement, before+table, before+db.prefix+table)
		}
	}
	if db.dialect == midassql.PostgreSQL {
		for i := 1; strings.Contains(statement, "?"); i++ {
			statement = strings.Replace(statement, "?", fmt.Sprintf("$%d", i), 1)
		}
	}
	return statement
}

func (db *database) must(t testing.TB, statement string, args ...any) {
	t.Helper()
	_, err := db.Exec(db.sql(statement), args...)
	require.NoError(t, err)
}

func (db *database) count(t testing.TB, query string, args ...any) (n int) {
	t.Helper()
	require.NoError(t, db.QueryRow(db.sql(query), args...).Scan(&n))
	return n
}

// grant inserts what was bought. Its table has no unique key: a second grant would show.
func (db *database) grant(ctx context.Context, tx *sql.Tx, d *midas.Delivery) error {
	for _, item := range d.Items {
		_, err := tx.ExecContext(ctx, db.sql("INSERT INTO items (openid, billno, item, quantity) VALUES (?, ?, ?, ?)"),
			d.OpenID, d.BillNo, item.ID, item.Quantity)
		if err != nil {
			return err
		}
	}
	return nil
}

var gem = midas.Item{ID: "gem60", Price: 60 * midas.QPoint, Quantity: 2}

// ordered stores an order of two gems.
func ordered(t testing.TB, store *midassql.Store, openID, token string, change ...func(*midas.OrderRequest)) {
	t.Helper()
	req := midas.OrderRequest{Login: midas.QQ, OpenID: openID, Items: []midas.Item{gem}}
	for _, c := range change {
		c(&req)
	}
	require.NoError(t, store.SaveOrder(t.Context(), req, &midas.Order{Token: token}))
}

// paid returns the delivery of such an order.
func paid(openID, token, billNo string, change ...func(*midas.Delivery)) *midas.Delivery {
	d := &midas.Delivery{OpenID: openID, Token: token, BillNo: billNo, ZoneID: "1", Items: []midas.Item{gem},
		Charged: gem.Price * midas.Amount(gem.Quantity), Time: time.Unix(1518081937, 0)}
	d.Items = slices.Clone(d.Items)
	for _, c := range change {
		c(d)
	}
	return d
}
