package midassql

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/midas-go/midas"
	"github.com/stretchr/testify/require"
)

// The tests on real databases need drivers: they are the module in dbtest.

// noDatabase is a driver.Connector without a database behind it: what a test wants to be
// refused before the database is asked.
type noDatabase struct{}

func (noDatabase) Connect(context.Context) (driver.Conn, error) {
	return nil, errors.New("no database")
}
func (noDatabase) Driver() driver.Driver { return nil }

func newStore(t *testing.T) *Store {
	db := sql.OpenDB(noDatabase{})
	t.Cleanup(func() { db.Close() })
	store, err := New(db, PostgreSQL, Options{})
	require.NoError(t, err)
	return store
}

func TestNewNamesWhatIsWrong(t *testing.T) {
	t.Parallel()
	db := sql.OpenDB(noDatabase{})
	defer db.Close()

	for _, test := range []struct {
		name    string
		db      *sql.DB
		dialect Dialect
		opts    Options
		want    string
	}{
		{"no database", nil, PostgreSQL, Options{}, "db is nil"},
		{"no dialect", db, "", Options{}, "unknown dialect"},
		{"a dialect it does not speak", db, "oracle", Options{}, `"oracle"`},
		{"a prefix that is SQL", db, SQLite, Options{TablePrefix: "x; DROP TABLE y"}, "TablePrefix"},
		{"a prefix in upper case", db, SQLite, Options{TablePrefix: "Midas"}, "TablePrefix"},
		{"a prefix that begins with a digit", db, SQLite, Options{TablePrefix: "9_"}, "TablePrefix"},
		{"a prefix too long for PostgreSQL's names", db, SQLite, Options{TablePrefix: strings.Repeat("p", 33)}, "TablePrefix"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := New(test.db, test.dialect, test.opts)
			require.ErrorContains(t, err, test.want)
		})
	}
}

func TestStatementsAreInTheDialectWithThePrefix(t *testing.T) {
	t.Parallel()
	db := sql.OpenDB(noDatabase{})
	defer db.Close()
	for dialect, want := range map[Dialect]string{
		PostgreSQL: "SELECT openid, items, max_quantity FROM game_orders WHERE token = $1",
		MySQL:      "SELECT openid, items, max_quantity FROM game_orders WHERE token = ?",
		SQLite:     "SELECT openid, items, max_quantity FROM game_orders WHERE token = ?",
	} {
		store, err := New(db, dialect, Options{TablePrefix: "game_"})
		require.NoError(t, err)
		require.Equal(t, want, store.sql.order)
	}
}

func TestEveryDialectHasItsSchemaFile(t *testing.T) {
	t.Parallel()
	for _, folder := range []string{"schema/", "schema/from-0.1/"} {
		files, err := fs.Glob(schema, folder+"*.sql")
		require.NoError(t, err)
		require.ElementsMatch(t, []string{folder + "postgresql.sql", folder + "mysql.sql", folder + "sqlite.sql"}, files)
	}
}

func TestCompareItems(t *testing.T) {
	t.Parallel()
	gem := midas.Item{ID: "gem60", Price: 60 * midas.QPoint, Quantity: 2}
	sword := midas.Item{ID: "sword", Price: 5 * midas.Fen, Quantity: 1}
	gems := func(n int) []midas.Item { return []midas.Item{{ID: gem.ID, Price: gem.Price, Quantity: n}} }

	for _, test := range []struct {
		name        string
		paid        []midas.Item
		ordered     []midas.Item
		maxQuantity int
		ok          bool
	}{
		{"the same", []midas.Item{gem, sword}, []midas.Item{gem, sword}, 0, true},
		{"another sequence", []midas.Item{sword, gem}, []midas.Item{gem, sword}, 0, true},
		{"another sequence of one item's quantities", append(gems(3), gem), append(gems(2), gems(3)...), 0, true},
		{"one item twice instead of two", []midas.Item{gem, gem}, []midas.Item{gem, sword}, 0, false},
		{"an item less", []midas.Item{gem}, []midas.Item{gem, sword}, 0, false},
		{"an item more", []midas.Item{gem, sword}, []midas.Item{gem}, 0, false},
		{"none", nil, []midas.Item{gem}, 0, false},
		{"another item", []midas.Item{{ID: "gem61", Price: gem.Price, Quantity: 2}}, []midas.Item{gem}, 0, false},
		{"an id in another case", []midas.Item{{ID: "GEM60", Price: gem.Price, Quantity: 2}}, []midas.Item{gem}, 0, false},
		{"a fen less", []midas.Item{{ID: gem.ID, Price: gem.Price - midas.Fen, Quantity: 2}}, []midas.Item{gem}, 0, false},
		{"a fen more", []midas.Item{{ID: gem.ID, Price: gem.Price + midas.Fen, Quantity: 2}}, []midas.Item{gem}, 0, false},
		{"one more, fixed", gems(3), gems(2), 0, false},
		{"one less, fixed", gems(1), gems(2), 0, false},
		{"one less, changeable", gems(1), gems(2), 5, true},
		{"as many as allowed", gems(5), gems(2), 5, true},
		{"more than allowed", gems(6), gems(2), 5, false},
		{"none of them, changeable", gems(0), gems(2), 5, false},
		{"another price, changeable", []midas.Item{{ID: gem.ID, Price: 1, Quantity: 2}}, gems(2), 5, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := compareItems(test.paid, test.ordered, test.maxQuantity)
			if test.ok {
				require.NoError(t, err)
				return
			}
			var param *midas.ParamError
			require.ErrorAs(t, err, &param)
			require.Equal(t, "payitem", param.Param)
		})
	}
}

// coded is a driver's error with a SQLSTATE, as pgx has them.
type coded string

func (c coded) Error() string    { return "SQLSTATE " + string(c) }
func (c coded) SQLState() string { return string(c) }

// numbered is a driver's error with a number, as go-sql-driver/mysql has them.
type numbered struct{ Number uint16 }

func (n *numbered) Error() string { return fmt.Sprint("number ", n.Number) }

// The errors of the real drivers are tested in dbtest.
func TestClassifyByDefault(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		dialect Dialect
		err     error
		want    Class
	}{
		{PostgreSQL, coded("40001"), Again},
		{PostgreSQL, coded("40P01"), Again},
		{PostgreSQL, coded("55P03"), Again},
		{PostgreSQL, driver.ErrBadConn, Again},
		{PostgreSQL, fmt.Errorf("grant: %w", coded("40001")), Again},
		{PostgreSQL, errors.Join(errors.New("two"), coded("40001")), Again},
		{PostgreSQL, coded("23505"), RolledBack},
		{PostgreSQL, coded("25006"), RolledBack}, // read-only
		{PostgreSQL, coded("40003"), Unknown},    // statement completion unknown
		{PostgreSQL, coded("57P01"), Unknown},    // the server shuts down
		{PostgreSQL, coded(""), Unknown},
		{PostgreSQL, &numbered{1213}, Unknown},
		{PostgreSQL, context.DeadlineExceeded, Unknown},
		{PostgreSQL, midas.ErrTokenNotFound, Unknown},
		{MySQL, &numbered{1213}, Again},
		{MySQL, &numbered{1205}, Again},
		{MySQL, &numbered{1020}, Again},
		{MySQL, &numbered{9007}, Again},
		{MySQL, fmt.Errorf("grant: %w", &numbered{1213}), Again},
		{MySQL, &numbered{1062}, RolledBack},
		{MySQL, &numbered{2013}, Unknown},
		{MySQL, (*numbered)(nil), Unknown},
		{MySQL, coded("40001"), Unknown},
		{MySQL, driver.ErrBadConn, Again},
		{SQLite, driver.ErrBadConn, Again},
		{SQLite, errors.New("SQLITE_BUSY"), Unknown},
	} {
		t.Run(fmt.Sprintf("%s %T %v", test.dialect, test.err, test.want), func(t *testing.T) {
			require.Equal(t, test.want, test.dialect.Classify(test.err))
		})
	}
}

// What a column cannot hold byte for byte is refused before a database sees it.
func TestWhatCannotBeStoredIsNamed(t *testing.T) {
	t.Parallel()
	store := newStore(t)
	long := strings.Repeat("x", 256)
	delivery := func(change func(*midas.Delivery)) error {
		d := &midas.Delivery{OpenID: "o", BillNo: "-b", Token: "t", ZoneID: "1", Items: []midas.Item{{ID: "i", Price: 1, Quantity: 1}}}
		change(d)
		return store.Once(func(context.Context, *sql.Tx, *midas.Delivery) error { return nil })(t.Context(), d) // there is no database: it must not come that far
	}
	order := func(change func(*midas.OrderRequest, *midas.Order)) error {
		req := midas.OrderRequest{OpenID: "o", Items: []midas.Item{{ID: "i", Price: 1, Quantity: 1}}}
		order := midas.Order{Token: "t"}
		change(&req, &order)
		return store.SaveOrder(t.Context(), req, &order)
	}

	for _, test := range []struct {
		name, param string
		err         error
	}{
		{"a long openid", "openid", delivery(func(d *midas.Delivery) { d.OpenID = long })},
		{"a long billno", "billno", delivery(func(d *midas.Delivery) { d.BillNo = long })},
		{"a long token", "token", delivery(func(d *midas.Delivery) { d.Token = long })},
		{"a long zone", "zoneid", delivery(func(d *midas.Delivery) { d.ZoneID = long })},
		{"no openid", "openid", delivery(func(d *midas.Delivery) { d.OpenID = "" })},
		{"no billno", "billno", delivery(func(d *midas.Delivery) { d.BillNo = "" })},
		{"no token", "token", delivery(func(d *midas.Delivery) { d.Token = "" })},
		{"no items", "payitem", delivery(func(d *midas.Delivery) { d.Items = nil })},
		{"an item that is two", "payitem", delivery(func(d *midas.Delivery) { d.Items[0].ID = "i*1*1;j" })},
		{"none of an item", "payitem", delivery(func(d *midas.Delivery) { d.Items[0].Quantity = 0 })},
		{"a NUL", "billno", delivery(func(d *midas.Delivery) { d.BillNo = "-b\x00" })},
		{"no UTF-8", "openid", delivery(func(d *midas.Delivery) { d.OpenID = "\xff" })},
		{"an order with a long openid", "openid", order(func(r *midas.OrderRequest, _ *midas.Order) { r.OpenID = long })},
		{"an order without openid", "openid", order(func(r *midas.OrderRequest, _ *midas.Order) { r.OpenID = "" })},
		{"an order without token", "token", order(func(_ *midas.OrderRequest, o *midas.Order) { o.Token = "" })},
		{"an order with a long token", "token", order(func(_ *midas.OrderRequest, o *midas.Order) { o.Token = long })},
		{"an order with a long zone", "zoneid", order(func(r *midas.OrderRequest, _ *midas.Order) { r.ZoneID = long })},
		{"an order with long metadata", "app_metadata", order(func(r *midas.OrderRequest, _ *midas.Order) { r.Metadata = long })},
		{"an order without items", "payitem", order(func(r *midas.OrderRequest, _ *midas.Order) { r.Items = nil })},
	} {
		t.Run(test.name, func(t *testing.T) {
			var param *midas.ParamError
			require.ErrorAs(t, test.err, &param)
			require.Equal(t, test.param, param.Param)
		})
	}
	require.ErrorContains(t, store.SaveOrder(t.Context(), midas.OrderRequest{}, nil), "order is nil")
}

func TestPurgeRefusesOrdersThatMayStillBeCalledBack(t *testing.T) {
	t.Parallel()
	_, err := newStore(t).Purge(t.Context(), 7*24*time.Hour-time.Nanosecond)
	require.ErrorContains(t, err, "under 168h")
}

func TestOnceWithoutGrantPanics(t *testing.T) {
	t.Parallel()
	require.PanicsWithValue(t, "midassql: Once without a grant", func() { newStore(t).Once(nil) })
}

// A database that cannot be reached is an error at once, for ret 1: it is not the time
// limit that ends the try.
func TestNoDatabaseIsAnError(t *testing.T) {
	t.Parallel()
	store := newStore(t)
	deliver := store.Once(func(context.Context, *sql.Tx, *midas.Delivery) error {
		t.Error("granted without a database")
		return nil
	})
	require.ErrorContains(t, deliver(t.Context(), &midas.Delivery{OpenID: "o", BillNo: "b", Token: "t", Items: []midas.Item{{ID: "i", Price: 1, Quantity: 1}}}), "no database")
	require.ErrorContains(t, store.Migrate(t.Context()), "no database")
	for _, err := range store.Payments(t.Context(), Query{OpenID: "o"}) {
		require.ErrorContains(t, err, "no database")
	}
	for _, err := range store.UnpaidOrders(t.Context(), time.Unix(0, 0), time.Now()) {
		require.ErrorContains(t, err, "no database")
	}
	_, err := store.Purge(t.Context(), minPurgeAge)
	require.ErrorContains(t, err, "no database")
}

// Work is called in a goroutine of the game's, where a panic would end the process.
func TestALogHandlerThatPanicsCostsNothing(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	store := newStore(t)
	store.opts.Logger = slog.New(panickingHandler{slog.DiscardHandler, cancel})
	err := store.Inbox(InboxOptions{}).Work(ctx, func(context.Context, *midas.Delivery) error { return nil })
	require.ErrorIs(t, err, context.Canceled)
}

type panickingHandler struct {
	slog.Handler
	called func()
}

func (panickingHandler) Enabled(context.Context, slog.Level) bool { return true }

func (h panickingHandler) Handle(context.Context, slog.Record) error {
	h.called()
	panic("log handler")
}

// The payment is on disk when OnStored is called, so it must be answered OK.
func TestAnOnStoredThatPanicsCostsNothing(t *testing.T) {
	t.Parallel()
	inbox := newStore(t).Inbox(InboxOptions{OnStored: func(context.Context, *midas.Delivery) { panic("no Redis") }})
	require.NotPanics(t, func() { inbox.stored(t.Context(), &midas.Delivery{OpenID: "o", BillNo: "b"}) })
}
