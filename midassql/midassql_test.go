package midassql

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
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
		PostgreSQL: "SELECT o.token, o.openid, o.zone, o.items, o.metadata, o.max_quantity, o.saved_at FROM game_orders o WHERE o.openid = $1 AND o.token = $2",
		MySQL:      "SELECT o.token, o.openid, o.zone, o.items, o.metadata, o.max_quantity, o.saved_at FROM game_orders o WHERE o.openid = ? AND o.token = ?",
		SQLite:     "SELECT o.token, o.openid, o.zone, o.items, o.metadata, o.max_quantity, o.saved_at FROM game_orders o WHERE o.openid = ? AND o.token = ?",
	} {
		store, err := New(db, dialect, Options{TablePrefix: "game_"})
		require.NoError(t, err)
		require.Equal(t, want, store.sql.order)
	}
}

func TestEveryDialectHasItsSchemaFile(t *testing.T) {
	t.Parallel()
	folders := []string{"schema/"}
	for version := range thisRelease.version - 1 {
		folders = append(folders, fmt.Sprintf("schema/from-%d/", version+1))
	}
	for _, folder := range folders {
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
			require.Equal(t, test.ok, compareItems(test.paid, test.ordered, test.maxQuantity) == "")
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
		{PostgreSQL, coded("40001"), ClassAgain},
		{PostgreSQL, coded("40P01"), ClassAgain},
		{PostgreSQL, coded("55P03"), ClassAgain},
		{PostgreSQL, driver.ErrBadConn, ClassAgain},
		{PostgreSQL, fmt.Errorf("grant: %w", coded("40001")), ClassAgain},
		{PostgreSQL, errors.Join(errors.New("two"), coded("40001")), ClassAgain},
		{PostgreSQL, coded("23505"), ClassRolledBack},
		{PostgreSQL, coded("25006"), ClassRolledBack}, // read-only
		{PostgreSQL, coded("40003"), ClassUnknown},    // statement completion unknown
		{PostgreSQL, coded("57P01"), ClassUnknown},    // the server shuts down
		{PostgreSQL, coded(""), ClassUnknown},
		{PostgreSQL, &numbered{1213}, ClassUnknown},
		{PostgreSQL, context.DeadlineExceeded, ClassUnknown},
		{PostgreSQL, midas.ErrTokenNotFound, ClassUnknown},
		{MySQL, &numbered{1213}, ClassAgain},
		{MySQL, &numbered{1205}, ClassAgain},
		{MySQL, &numbered{1020}, ClassAgain},
		{MySQL, &numbered{9007}, ClassAgain},
		{MySQL, fmt.Errorf("grant: %w", &numbered{1213}), ClassAgain},
		{MySQL, &numbered{1062}, ClassRolledBack},
		{MySQL, &numbered{2013}, ClassUnknown},
		{MySQL, (*numbered)(nil), ClassUnknown},
		{MySQL, coded("40001"), ClassUnknown},
		{MySQL, driver.ErrBadConn, ClassAgain},
		{SQLite, driver.ErrBadConn, ClassAgain},
		{SQLite, errors.New("SQLITE_BUSY"), ClassUnknown},
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
		req := midas.OrderRequest{Player: midas.Player{OpenID: "o"}, Items: []midas.Item{{ID: "i", Price: 1, Quantity: 1}}}
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
		{"an order with a long openid", "openid", order(func(r *midas.OrderRequest, _ *midas.Order) { r.Player.OpenID = long })},
		{"an order without openid", "openid", order(func(r *midas.OrderRequest, _ *midas.Order) { r.Player.OpenID = "" })},
		{"an order without token", "token", order(func(_ *midas.OrderRequest, o *midas.Order) { o.Token = "" })},
		{"an order with a long token", "token", order(func(_ *midas.OrderRequest, o *midas.Order) { o.Token = long })},
		{"an order with a long zone", "zoneid", order(func(r *midas.OrderRequest, _ *midas.Order) { r.Player.ZoneID = long })},
		{"an order with long metadata", "app_metadata", order(func(r *midas.OrderRequest, _ *midas.Order) { r.Metadata = long })},
		{"an order without items", "payitem", order(func(r *midas.OrderRequest, _ *midas.Order) { r.Items = nil })},
	} {
		t.Run(test.name, func(t *testing.T) {
			if strings.Contains(test.name, "order") { // it says nothing about a callback
				var field *midas.FieldError
				require.ErrorAs(t, test.err, &field)
				require.Equal(t, test.param, field.Param)
				return
			}
			var param *midas.ParamError
			require.ErrorAs(t, test.err, &param)
			require.Equal(t, test.param, param.Param)
		})
	}
	require.ErrorContains(t, store.SaveOrder(t.Context(), midas.OrderRequest{}, nil), "order is nil")
}

// Support copies it from the log.
func TestTheStatementForAnEnvironmentIsRight(t *testing.T) {
	t.Parallel()
	db := sql.OpenDB(noDatabase{})
	defer db.Close()
	store, err := New(db, PostgreSQL, Options{TablePrefix: "shop_", Environment: "midas_live"})
	require.NoError(t, err)
	require.ErrorContains(t, store.compareEnvironment(""), "INSERT INTO shop_meta (name, value, word) VALUES ('environment', 0, 'midas_live')")
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
	inbox, err := store.Inbox(InboxOptions{})
	require.NoError(t, err)
	err = inbox.Work(ctx, func(context.Context, *midas.Delivery) error { return nil })
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
	inbox, err := newStore(t).Inbox(InboxOptions{OnStored: func(context.Context, *midas.Delivery) { panic("no Redis") }})
	require.NoError(t, err)
	require.NotPanics(t, func() { inbox.stored(t.Context(), &midas.Delivery{OpenID: "o", BillNo: "b"}) })
}

// With a hundred zones in a process, a look of each for every payment costs more than the payment.
func TestAStoredPaymentWakesTheWorksOfItsZone(t *testing.T) {
	t.Parallel()
	store := newStore(t)
	inboxes, wakes := make(map[string]*Inbox), make(map[string]chan struct{})
	for name, zones := range map[string][]string{"every": nil, "1": {"1"}, "s": {"s"}, "s_1": {"s_1", "7"}} {
		inbox, err := store.Inbox(InboxOptions{Zones: zones})
		require.NoError(t, err)
		inboxes[name], wakes[name] = inbox, store.subscribe(inbox)
	}
	inboxes["s"].others = []string{"s_1"} // as seeZones has read them
	woken := func() (names []string) {
		for name, wake := range wakes {
			select {
			case <-wake:
				names = append(names, name)
			default:
			}
		}
		slices.Sort(names)
		return names
	}

	for zoneid, want := range map[string][]string{
		"": {"1", "every"}, "1_role": {"1", "every"}, "s_2": {"every", "s"}, "s_1": {"every", "s_1"}, "s_1_role": {"every", "s_1"},
		"7": {"every", "s_1"}, "12": {"every"},
	} {
		inboxes["1"].stored(t.Context(), &midas.Delivery{OpenID: "o", BillNo: "b", ZoneID: zoneid})
		require.Equal(t, want, woken(), "zone %q", zoneid)
	}
	inboxes["s"].Wake()
	require.Equal(t, []string{"s"}, woken(), "Wake is the Inbox's own")
	store.unsubscribe(wakes["s"])
	inboxes["s"].Wake()
	require.Empty(t, woken())
}
