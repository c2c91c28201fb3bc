package dbtest

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/go-sql-driver/mysql"
	"github.com/midas-go/midas/midassql"
	"github.com/midas-go/midas/midassql/dbtest/testdb"
	"github.com/stretchr/testify/require"
)

// A splitter is a database behind a proxy that splits reads from writes: what only reads goes to a replica,
// unless it is in a transaction. The replica is as far behind as one can be: it has the tables and not a row.
type splitter struct {
	driver.Connector
	prefix, replica string // of the tables
	transactions    bool   // splits these, too: what they read before their first write
	split           atomic.Int64
}

// splitReads returns db behind a splitter, with a Store on it.
func splitReads(t *testing.T, db *database, transactions bool) (*database, *midassql.Store, *splitter) {
	t.Helper()
	db.store(t, midassql.Options{Environment: "live"})
	replica := openDatabase(t, db.kind)
	replica.store(t, midassql.Options{Environment: "live"})
	config, err := mysql.ParseDSN(db.dsn)
	require.NoError(t, err)
	config.InterpolateParams = true // statements reach the driver as they are: SELECT …
	connector, err := mysql.NewConnector(config)
	require.NoError(t, err)
	s := &splitter{Connector: connector, prefix: db.prefix, replica: replica.prefix, transactions: transactions}
	behind := *db
	behind.Database = &testdb.Database{DB: sql.OpenDB(s), Kind: db.Kind, Prefix: db.prefix}
	t.Cleanup(func() { behind.DB.Close() })
	store, err := midassql.New(behind.DB, db.dialect, midassql.Options{TablePrefix: db.prefix, Environment: "live"})
	require.NoError(t, err)
	return &behind, store, s
}

func (s *splitter) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := s.Connector.Connect(ctx)
	return &splitConn{Conn: conn, s: s}, err
}

type splitConn struct {
	driver.Conn
	s           *splitter
	inTx, wrote bool
}

func (c *splitConn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	tx, err := c.Conn.(driver.ConnBeginTx).BeginTx(ctx, opts)
	c.inTx, c.wrote = err == nil, false
	return &splitTx{tx, c}, err
}

type splitTx struct {
	driver.Tx
	c *splitConn
}

func (tx *splitTx) Commit() error {
	tx.c.inTx = false
	return tx.Tx.Commit()
}

func (tx *splitTx) Rollback() error {
	tx.c.inTx = false
	return tx.Tx.Rollback()
}

func (c *splitConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	c.wrote = true
	return c.Conn.(driver.ExecerContext).ExecContext(ctx, query, args)
}

func (c *splitConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	reads := strings.HasPrefix(query, "SELECT") && !strings.Contains(query, "FOR UPDATE")
	if reads && (!c.inTx || c.s.transactions && !c.wrote) {
		c.s.split.Add(1)
		query = strings.ReplaceAll(query, c.s.prefix, c.s.replica)
	}
	return c.Conn.(driver.QueryerContext).QueryContext(ctx, query, args)
}

// midassql sends each statement in a transaction. A proxy that splits only what is outside of one sends none of
// them to a replica; a SELECT of the game's own goes there.
func TestReadsOutsideATransactionMayBeSplit(t *testing.T) {
	t.Parallel()
	for _, kind := range []testdb.Kind{mariaDB, mySQL} {
		kind.Run(t, func(t *testing.T, db *testdb.Database) {
			behind, store, s := splitReads(t, wrap(db), false)
			ordered(t, store, "player", "token")
			deliver := store.Once(behind.grant)
			for range 2 { // the payment, and its repeat
				require.NoError(t, deliver(t.Context(), paid("player", "token", "bill")))
			}
			ordered(t, store, "player", "token2")
			inbox := newInbox(t, store, midassql.InboxOptions{})
			require.NoError(t, inbox.Deliver(t.Context(), paid("player", "token2", "bill2")))
			require.Equal(t, []string{"bill2"}, waiting(t, inbox, "player"))
			require.NoError(t, inbox.Done(t.Context(), "player", "bill2"))
			require.Len(t, payments(t, store, midassql.Query{OpenID: "player"}), 2)
			claimed, err := store.ClaimUnpaid(t.Context(), "", 10)
			require.NoError(t, err)
			require.Empty(t, claimed, "both are paid")
			_, err = store.Refund(t.Context(), midassql.Refund{ID: "refund", AppID: "app", OpenID: "player", BillNo: "bill", Amount: 1}, nil)
			require.NoError(t, err)
			_, err = store.Check(t.Context())
			require.NoError(t, err)

			// What another player has is looked for as well.
			ordered(t, store, "another", "token3")
			accepts, err := midassql.New(behind.DB, behind.dialect, midassql.Options{TablePrefix: behind.prefix, AcceptAppOrders: true})
			require.NoError(t, err)
			for _, of := range []*midassql.Store{store, accepts} {
				require.ErrorContains(t, of.Once(behind.grant)(t.Context(), paid("player", "token3", "bill3")), "openid")
			}
			_, err = store.Settle(t.Context(), midassql.Settlement{Delivery: paid("player", "token3", "bill3"), By: "anna"}, behind.grant)
			require.ErrorContains(t, err, "OpenID")
			_, err = store.Refund(t.Context(), midassql.Refund{ID: "refund", AppID: "app", OpenID: "player", BillNo: "bill2", Amount: 1}, nil)
			require.ErrorContains(t, err, "with another payment")
			require.Zero(t, s.split.Load(), "docs/mysql.md says otherwise")

			// A page that shows the player's items may be late. What decides over a grant may not.
			items := behind.sql("SELECT COUNT(*) FROM items")
			require.Zero(t, behind.count(t, items), "the replica is behind")
			require.NotZero(t, s.split.Load())
			tx, err := behind.BeginTx(t.Context(), nil)
			require.NoError(t, err)
			defer tx.Rollback()
			var granted int
			require.NoError(t, tx.QueryRowContext(t.Context(), items).Scan(&granted))
			require.Equal(t, 1, granted)
		})
	}
}

// A proxy that splits transactions as well. A payment is written before anything is read, and so it is granted
// once. What only looks is late: the environment, the inbox, support.
func TestReadsInATransactionMayNotBeSplit(t *testing.T) {
	t.Parallel()
	for _, kind := range []testdb.Kind{mariaDB, mySQL} {
		kind.Run(t, func(t *testing.T, db *testdb.Database) {
			behind, store, s := splitReads(t, wrap(db), true)
			ordered(t, store, "player", "token")
			for range 2 {
				require.NoError(t, store.Once(behind.grant)(t.Context(), paid("player", "token", "bill")))
			}
			require.Equal(t, 1, wrap(db).count(t, "SELECT COUNT(*) FROM items"))
			require.Empty(t, payments(t, store, midassql.Query{OpenID: "player"}), "support finds nothing")

			ordered(t, store, "player", "token2")
			inbox := newInbox(t, store, midassql.InboxOptions{})
			require.NoError(t, inbox.Deliver(t.Context(), paid("player", "token2", "bill2")))
			require.Empty(t, waiting(t, inbox, "player"), "nothing is handed out at login")
			require.NotZero(t, s.split.Load())
		})
	}
}
