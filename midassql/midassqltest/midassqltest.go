// Package midassqltest proves that a database does what package midassql needs of it: an engine that midassql
// does not name, a proxy or pooler in front of one, a driver, or the settings of a server.
//
//	func TestOurDatabase(t *testing.T) {
//		open := func() (*sql.DB, error) { return sql.Open("mysql", os.Getenv("GAME_DSN")) }
//		midassqltest.Run(t, open, midassql.MySQL, midassql.Options{})
//	}
//
// What only shows when a machine dies, such as a commit that was not on disk, it cannot prove: docs/databases.md
// names the settings that decide it, and [midassql.Store.Check] reads them.
package midassqltest

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midassql"
)

// granted is the table of the game that Run plays, after the prefix. A database with tables of the prefix and
// without this one is somebody's.
const granted = "granted_by_test"

// created are the tables that Run drops, granted last: it says whose the others are.
var created = []string{"acts", "attempts", "deliveries", "inbox", "meta", "numbers", "orders", "refunds", "zones", granted}

// ruleTime is the longest that one rule may take.
const ruleTime = time.Minute

// Run checks each rule that midassql needs the database to keep, in a subtest of its own that says what to do
// where the rule is broken. It calls open twice, for the pools of two servers, and closes both. It takes some
// seconds, and at most a minute for each rule.
//
// Run creates midassql's tables and one of its own under opts.TablePrefix, which is "midassqltest_" where it
// is empty, and drops them at the end, or at the next Run after one that was killed: it knows that they are its own
// by its table granted_by_test. Where that is missing, or a table of the prefix has a name that Run does not create,
// it drops nothing and fails. Two Runs at once on one database need two prefixes, neither the beginning of the other.
// opts.AcceptAppOrders and opts.Now are Run's own; everything else of opts is used as it is.
//
// Where tables must be known before they are created, as to a sharded engine, declare these, with the prefix: by
// openid orders, deliveries, inbox, refunds, numbers, attempts, acts and granted_by_test, whose primary key is
// (openid, id); by name meta and zones.
func Run(t *testing.T, open func() (*sql.DB, error), dialect midassql.Dialect, opts midassql.Options) {
	t.Helper()
	if opts.TablePrefix == "" {
		opts.TablePrefix = "midassqltest_"
	}
	opts.AcceptAppOrders = false
	opts.Now = nil
	g := &game{dialect: dialect, prefix: opts.TablePrefix}
	for i := range g.servers {
		db, err := open()
		if err != nil {
			t.Fatalf("open: %v", err)
		}
		t.Cleanup(func() { db.Close() })
		store, err := midassql.New(db, dialect, opts)
		if err != nil {
			t.Fatal(err)
		}
		g.servers[i] = server{db, store}
	}
	g.create(t)
	for i, r := range rules {
		kept := t.Run(r.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), ruleTime)
			defer cancel()
			t.Cleanup(func() {
				if t.Failed() {
					t.Logf("what to do: %s", r.remedy)
				}
			})
			r.check(&play{game: g, T: t, ctx: ctx, openID: fmt.Sprintf("player%d", i), zone: fmt.Sprintf("zone%d", i)})
		})
		if !kept && r.needed {
			t.Fatal("the other rules need this one")
		}
	}
}

// A rule is what midassql needs of a database.
type rule struct {
	name   string
	remedy string
	needed bool // the others cannot be checked without it
	check  func(p *play)
}

// A server is one of the game's two.
type server struct {
	db    *sql.DB
	store *midassql.Store
}

// A game keeps what it granted in a table that is keyed by openid first, so that an engine may be sharded by it.
// The id is drawn at random: a second grant of one payment shows, and no engine has to count.
type game struct {
	dialect midassql.Dialect
	prefix  string
	servers [2]server
}

func (g *game) create(t *testing.T) {
	t.Helper()
	tables, err := g.tables(t.Context())
	if err != nil {
		t.Fatalf("list the tables: %v", err)
	}
	for _, table := range tables {
		if !slices.Contains(tables, g.prefix+granted) || !slices.Contains(created, strings.TrimPrefix(table, g.prefix)) {
			t.Fatalf("the table %s begins with %q and is no test's: give Options.TablePrefix another value", table, g.prefix)
		}
	}
	g.drop(t, tables)
	t.Cleanup(func() {
		tables, err := g.tables(context.Background())
		if err != nil {
			t.Errorf("list the tables: %v", err)
		}
		g.drop(t, tables)
		for _, table := range tables {
			if !slices.Contains(created, strings.TrimPrefix(table, g.prefix)) {
				t.Errorf("Run leaves the table %s", table)
			}
		}
	})
	text := "VARBINARY(255)"
	if g.dialect != midassql.MySQL {
		text = "TEXT"
	}
	g.must(t, "CREATE TABLE "+g.prefix+granted+" (openid "+text+" NOT NULL, id BIGINT NOT NULL, billno "+text+
		" NOT NULL, quantity BIGINT NOT NULL, PRIMARY KEY (openid, id))")
}

// drop drops those of the tables that Run creates.
func (g *game) drop(t *testing.T, tables []string) {
	t.Helper()
	for _, name := range created {
		if slices.Contains(tables, g.prefix+name) {
			g.must(t, "DROP TABLE "+g.prefix+name)
		}
	}
}

func (g *game) must(t *testing.T, statement string) {
	t.Helper()
	if _, err := g.servers[0].db.ExecContext(context.Background(), statement); err != nil { // also after the test has ended
		t.Errorf("%s: %v", statement, err)
	}
}

// tables returns the tables whose names begin with the prefix.
func (g *game) tables(ctx context.Context) (names []string, err error) {
	rows, err := g.servers[0].db.QueryContext(ctx, map[midassql.Dialect]string{
		midassql.PostgreSQL: "SELECT table_name FROM information_schema.tables WHERE table_schema = current_schema()",
		midassql.MySQL:      "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE()",
		midassql.SQLite:     "SELECT name FROM sqlite_master WHERE type = 'table'",
	}[g.dialect])
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, err
		}
		if strings.HasPrefix(name, g.prefix) {
			names = append(names, name)
		}
	}
	return names, rows.Err()
}

// sql writes "?" as the database has it, and the game's table for "granted".
func (g *game) sql(statement string) string {
	statement = strings.Replace(statement, "granted", g.prefix+granted, 1)
	if g.dialect == midassql.PostgreSQL {
		for i := 1; strings.Contains(statement, "?"); i++ {
			statement = strings.Replace(statement, "?", fmt.Sprintf("$%d", i), 1)
		}
	}
	return statement
}

// grant inserts what was bought.
func (g *game) grant(ctx context.Context, tx *sql.Tx, d *midas.Delivery) error {
	for _, item := range d.Items {
		_, err := tx.ExecContext(ctx, g.sql("INSERT INTO granted (openid, id, billno, quantity) VALUES (?, ?, ?, ?)"),
			d.OpenID, 1+rand.Int64N(1<<62), d.BillNo, item.Quantity)
		if err != nil {
			return err
		}
	}
	return nil
}

// A play is a game while one rule is checked, with a player and a zone that no other rule has.
type play struct {
	*game
	*testing.T
	ctx          context.Context
	openID, zone string
}

// ok fails the test if err is one.
func (p *play) ok(err error, what string, args ...any) {
	p.Helper()
	if err != nil {
		p.Fatalf("%s: %v", fmt.Sprintf(what, args...), err)
	}
}

// want fails the test if got is not what is wanted.
func want[T comparable](p *play, got, want T, what string, args ...any) {
	p.Helper()
	if got != want {
		p.Fatalf("%s: %v, want %v", fmt.Sprintf(what, args...), got, want)
	}
}

var gems = midas.Item{ID: "gem60", Price: 60 * midas.QPoint, Quantity: 2}

var charged = gems.Price * midas.Amount(gems.Quantity)

const offer = "1450000000"

// order stores an order of gems.
func (p *play) order(openID, token string, change ...func(*midas.OrderRequest)) {
	p.Helper()
	req := midas.OrderRequest{Player: midas.Player{Login: midas.QQ, OpenID: openID, ZoneID: p.zone}, Items: []midas.Item{gems}}
	for _, c := range change {
		c(&req)
	}
	p.ok(p.servers[0].store.SaveOrder(p.ctx, req, &midas.Order{Token: token}), "SaveOrder of the token %q", token)
}

// paid is the payment of an order of gems.
func (p *play) paid(openID, token, billNo string) *midas.Delivery {
	return &midas.Delivery{AppID: offer, OpenID: openID, Token: token, BillNo: billNo, ZoneID: p.zone, Items: []midas.Item{gems},
		Charged: charged, Time: time.Unix(1518081937, 0)}
}

// buy stores an order and returns its payment.
func (p *play) buy(billNo string) *midas.Delivery {
	p.Helper()
	token := "token-of-" + p.openID + billNo
	p.order(p.openID, token)
	return p.paid(p.openID, token, billNo)
}

// grants returns how often a payment was granted, as the second server sees it: what the first one was told is
// committed has to be there.
func (p *play) grants(openID, billNo string) (n int) {
	p.Helper()
	p.ok(p.servers[1].db.QueryRowContext(p.ctx, p.sql("SELECT COUNT(*) FROM granted WHERE openid = ? AND billno = ?"), openID, billNo).Scan(&n),
		"count what was granted")
	return n
}

// payment returns a payment of the player as the second server sees it.
func (p *play) payment(billNo string) (payment midassql.Payment) {
	p.Helper()
	for found, err := range p.servers[1].store.Payments(p.ctx, midassql.Query{OpenID: p.openID, BillNo: billNo}) {
		p.ok(err, "Payments")
		payment = found
	}
	want(p, p.rows(p.openID, billNo), 1, "payments %s in the ledger", billNo)
	return payment
}

// rows returns how many rows of the ledger a payment has.
func (p *play) rows(openID, billNo string) (n int) {
	p.Helper()
	for _, err := range p.servers[1].store.Payments(p.ctx, midassql.Query{OpenID: openID, BillNo: billNo}) {
		p.ok(err, "Payments")
		n++
	}
	return n
}

// inbox returns a server's, for the zone of the play.
func (p *play) inbox(server int, lease time.Duration) *midassql.Inbox {
	p.Helper()
	inbox, err := p.servers[server].store.Inbox(midassql.InboxOptions{Zones: []string{p.zone}, Lease: lease, Poll: 10 * time.Millisecond})
	p.ok(err, "Inbox")
	return inbox
}

// waiting leases what waits for the player, and returns how many those were.
func (p *play) waiting(inbox *midassql.Inbox) (n int) {
	p.Helper()
	for _, err := range inbox.Waiting(p.ctx, p.openID) {
		p.ok(err, "Waiting")
		n++
	}
	return n
}

// pause waits between two looks at the same.
func (p *play) pause() {
	p.Helper()
	select {
	case <-time.After(20 * time.Millisecond):
	case <-p.ctx.Done():
		p.Fatalf("not within %v", ruleTime)
	}
}
