// Package dbtest tests midassql on real databases: see package testdb, which opens them. It is a module of
// its own because the drivers are.
package dbtest

import (
	"context"
	"database/sql"
	"slices"
	"testing"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midassql"
	"github.com/midas-go/midas/midassql/dbtest/testdb"
	"github.com/stretchr/testify/require"
)

var (
	postgreSQL         = testdb.PostgreSQL
	mariaDB            = testdb.MariaDB
	mySQL              = testdb.MySQL
	mySQLReadCommitted = testdb.MySQLReadCommitted
	sqlite             = testdb.SQLite
)

// A database is one of a test's own: its tables have a prefix that no other test has.
type database struct {
	*testdb.Database
	kind    testdb.Kind
	name    string
	dialect midassql.Dialect
	prefix  string
	dsn     string
	open    func() *sql.DB // another pool of connections to the same
}

// on runs test on each kind of database of the dialects.
func on(t *testing.T, test func(t *testing.T, db *database), dialects ...midassql.Dialect) {
	testdb.On(t, func(t *testing.T, db *testdb.Database) { test(t, wrap(db)) }, dialects...)
}

func onEach(t *testing.T, test func(t *testing.T, db *database)) {
	testdb.OnEach(t, func(t *testing.T, db *testdb.Database) { test(t, wrap(db)) })
}

// onEachPlanner is onEach for how statements are executed, whatever the isolation.
func onEachPlanner(t *testing.T, test func(t *testing.T, db *database)) {
	for _, k := range []testdb.Kind{postgreSQL, mariaDB, mySQL, sqlite} {
		k.Run(t, func(t *testing.T, db *testdb.Database) { test(t, wrap(db)) })
	}
}

func openDatabase(t testing.TB, k testdb.Kind, options ...string) *database {
	t.Helper()
	return wrap(testdb.Open(t, k, options...))
}

func wrap(db *testdb.Database) *database {
	return &database{db, db.Kind, db.Name, db.Dialect, db.Prefix, db.DSN, db.Open}
}

// store returns a Store on db with its tables, and a table of items.
func (db *database) store(t testing.TB, opts midassql.Options) *midassql.Store {
	t.Helper()
	return db.Store(t, opts)
}

func (db *database) sql(statement string) string { return db.SQL(statement) }

func (db *database) must(t testing.TB, statement string, args ...any) {
	t.Helper()
	db.Must(t, statement, args...)
}

func (db *database) count(t testing.TB, query string, args ...any) int {
	t.Helper()
	return db.Count(t, query, args...)
}

func (db *database) grant(ctx context.Context, tx *sql.Tx, d *midas.Delivery) error {
	return db.Grant(ctx, tx, d)
}

func newInbox(t testing.TB, store *midassql.Store, opts midassql.InboxOptions) *midassql.Inbox {
	t.Helper()
	inbox, err := store.Inbox(opts)
	require.NoError(t, err)
	return inbox
}

var gem = midas.Item{ID: "gem60", Price: 60 * midas.QPoint, Quantity: 2}

// ordered stores an order of two gems.
func ordered(t testing.TB, store *midassql.Store, openID, token string, change ...func(*midas.OrderRequest)) {
	t.Helper()
	req := midas.OrderRequest{Player: midas.Player{Login: midas.QQ, OpenID: openID}, Items: []midas.Item{gem}}
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
