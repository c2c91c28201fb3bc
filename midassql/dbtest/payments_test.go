package dbtest

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midassql"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func payments(t testing.TB, store *midassql.Store, q midassql.Query) (billNos []string) {
	t.Helper()
	for p, err := range store.Payments(t.Context(), q) {
		require.NoError(t, err)
		billNos = append(billNos, p.BillNo)
	}
	return billNos
}

func TestLookUps(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		noon := time.Date(2024, 2, 8, 12, 0, 0, 0, time.UTC)
		c := &clock{}
		store := db.store(t, midassql.Options{Now: c.now})
		for i := range 6 {
			c.Time = noon.Add(time.Duration(i/2) * time.Hour)
			player, token, metadata := fmt.Sprint("player", i%2), fmt.Sprint("token", i), fmt.Sprint("shop", i/3)
			ordered(t, store, player, token, func(r *midas.OrderRequest) { r.Metadata = metadata })
			if i < 5 {
				require.NoError(t, store.Once(db.grant)(t.Context(), paid(player, token, fmt.Sprint("-", 9-i), func(d *midas.Delivery) { d.Metadata = metadata })))
			}
		}
		for _, test := range []struct {
			name           string
			query          midassql.Query
			payments       []string // "": not allowed
			orders, unpaid []string
		}{
			{"a player, by time", midassql.Query{OpenID: "player0"}, []string{"-9", "-7", "-5"}, []string{"token0", "token2", "token4"}, nil},
			{"a player from a time on", midassql.Query{OpenID: "player0", From: noon.Add(time.Hour)}, []string{"-7", "-5"}, []string{"token2", "token4"}, nil},
			{"a token", midassql.Query{Token: "token3"}, []string{"-6"}, []string{"token3"}, nil},
			{"metadata", midassql.Query{Metadata: "shop1"}, []string{"-6", "-5"}, []string{"token3", "token4", "token5"}, nil},
			{"a time range", midassql.Query{From: noon, To: noon.Add(time.Hour)}, []string{"-9", "-8"}, []string{"token0", "token1"}, nil},
			{"what does not go together", midassql.Query{OpenID: "player1", Token: "token0"}, nil, nil, nil},
		} {
			t.Run(test.name, func(t *testing.T) {
				require.Equal(t, test.payments, payments(t, store, test.query))
				var orders []string
				for o, err := range store.Orders(t.Context(), test.query) {
					require.NoError(t, err)
					orders = append(orders, o.Token)
				}
				require.Equal(t, test.orders, orders)
			})
		}
		require.Equal(t, []string{"-7"}, payments(t, store, midassql.Query{BillNo: "-7"}))
		require.Empty(t, payments(t, store, midassql.Query{OpenID: "player0", State: midassql.Waiting}))
		require.Len(t, payments(t, store, midassql.Query{OpenID: "player0", State: midassql.Done}), 3)
		for o, err := range store.UnpaidOrders(t.Context(), noon, noon.Add(24*time.Hour)) {
			require.NoError(t, err)
			require.Equal(t, "token5", o.Token)
		}

		inbox := store.Inbox(midassql.InboxOptions{})
		db.stored(t, store, inbox, "away", "-waits")
		require.Equal(t, []string{"-waits"}, payments(t, store, midassql.Query{State: midassql.Waiting}))
		require.Equal(t, []string{"-waits"}, payments(t, store, midassql.Query{State: midassql.Waiting, From: noon}))
		require.Empty(t, payments(t, store, midassql.Query{State: midassql.Waiting, From: noon.Add(24 * time.Hour)}))
		require.Empty(t, payments(t, store, midassql.Query{State: midassql.Waiting, To: noon}))
		require.Empty(t, payments(t, store, midassql.Query{State: midassql.Stuck}))

		for _, q := range []midassql.Query{{}, {From: noon}, {To: noon}, {State: midassql.Done}, {OpenID: "player0", State: "lost"}} {
			for _, err := range store.Payments(t.Context(), q) {
				require.ErrorContains(t, err, "Query", "%+v", q)
			}
		}
		for _, err := range store.Orders(t.Context(), midassql.Query{BillNo: "-7"}) {
			require.ErrorContains(t, err, "billno")
		}
	})
}

// More rows than a page has, many of one second. Between the pages the loop may use the database.
func TestLookUpsOfSeveralPages(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		store := db.store(t, midassql.Options{})
		db.SetMaxOpenConns(1)
		const rows = 1203
		tx, err := db.BeginTx(t.Context(), nil)
		require.NoError(t, err)
		defer tx.Rollback()
		var want []string
		for i := range rows {
			billNo := fmt.Sprintf("-%04d", i)
			want = append(want, fmt.Sprint(1707393600+i/700, billNo))
			_, err := tx.Exec(db.sql("INSERT INTO deliveries (openid, billno, token, zone, items, charged, called_at, granted_at) VALUES ('player', ?, 't', '1', 'gem60*60*2', 1, 1, ?)"),
				billNo, 1707393600+i/700)
			require.NoError(t, err)
			_, err = tx.Exec(db.sql("INSERT INTO orders (token, openid, zone, items, metadata, max_quantity, saved_at) VALUES (?, 'player', '1', 'gem60*60*2', '', 0, ?)"),
				billNo, 1707393600+i/700)
			require.NoError(t, err)
		}
		require.NoError(t, tx.Commit())
		for _, q := range []midassql.Query{{OpenID: "player"}, {Token: "t"}, {From: time.Unix(1707393600, 0), To: time.Unix(1707393700, 0)}} {
			var got []string
			for p, err := range store.Payments(t.Context(), q) {
				require.NoError(t, err)
				got = append(got, fmt.Sprint(p.Stored.Unix(), p.BillNo))
				if len(got)%300 == 0 {
					require.Equal(t, rows, db.count(t, "SELECT COUNT(*) FROM deliveries"))
				}
			}
			require.Equal(t, want, got, "%+v", q)
		}
		n := 0
		for _, err := range store.UnpaidOrders(t.Context(), time.Unix(1707393600, 0), time.Unix(1707393700, 0)) {
			require.NoError(t, err)
			n++
		}
		require.Equal(t, rows, n)
	})
}

// Each statement that a callback, a worker or a look-up runs finds its rows by an index, among
// 20,000 payments and orders.
func TestStatementsUseTheirIndexes(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		recorded, seen := db.recordedStore(t)
		db.fill(t, 20_000)
		ordered(t, recorded, "player", "token")
		require.NoError(t, recorded.Once(db.grant)(t.Context(), paid("player", "token", "-1")))
		require.NoError(t, recorded.Once(db.grant)(t.Context(), paid("player", "token", "-1")))
		inbox := recorded.Inbox(midassql.InboxOptions{Zones: []string{"1", "2"}})
		every := recorded.Inbox(midassql.InboxOptions{})
		require.NoError(t, inbox.Deliver(t.Context(), paid("player", "token", "-2")))
		require.Equal(t, []string{"-2"}, worked(t, inbox, 1, func(context.Context, *midas.Delivery) error { return midassql.ErrAccepted }))
		require.NoError(t, inbox.Done(t.Context(), "player", "-2"))
		require.NoError(t, inbox.Deliver(t.Context(), paid("player", "token", "-3")))
		require.Equal(t, []string{"-3"}, worked(t, every, 1, func(context.Context, *midas.Delivery) error { return midassql.ErrNotNow }))
		require.Equal(t, []string{"-3"}, waiting(t, inbox, "player"))
		require.NoError(t, inbox.Fail(t.Context(), "player", "-3", midassql.ErrNotNow))
		require.NoError(t, inbox.Cancel(t.Context(), "player", "-3", ""))
		_, err := inbox.Retry(t.Context(), midassql.RetryOptions{DoneFrom: time.Now().Add(-time.Second)})
		require.NoError(t, err)
		day := time.Unix(1707393600, 0)
		for _, q := range []midassql.Query{{OpenID: "player7"}, {Token: "token7"}, {Metadata: "metadata7"}, {From: day, To: day.Add(time.Minute)},
			{BillNo: "-7"}, {OpenID: "player7", From: day}, {OpenID: "player7", State: midassql.Stuck}} {
			payments(t, recorded, q)
			for range recorded.Orders(t.Context(), q) {
			}
		}
		for range recorded.UnpaidOrders(t.Context(), day, day.Add(time.Minute)) {
		}
		_, err = recorded.Purge(t.Context(), 365*24*time.Hour)
		require.NoError(t, err)
		db.must(t, "DELETE FROM deliveries")
		db.must(t, "DELETE FROM orders")
		db.must(t, "DELETE FROM inbox")
		db.fill(t, 20_000) // again: what plans are for

		checked := 0
		for _, statement := range seen.statements() {
			if !regexp.MustCompile(`^\s*(SELECT|UPDATE|DELETE|WITH)`).MatchString(statement.query) {
				continue
			}
			for _, table := range []string{"deliveries", "orders", "inbox"} {
				if table == "inbox" && (strings.Contains(statement.query, "stuck = 0 WHERE stuck = 1") || strings.HasPrefix(statement.query, "SELECT openid, billno FROM "+db.prefix+"inbox WHERE")) {
					continue // Retry, a person's call, reads all that waits
				}
				if table == "inbox" && strings.Contains(statement.query, "LEFT JOIN") || strings.HasPrefix(statement.query, "DELETE") && strings.Contains(statement.query, " IN (") {
					continue // so many of its rows are wanted that reading all of this small table is right
				}
				assert.NotContains(t, db.scanned(t, statement), db.prefix+table, "reads all of it: %s", statement.query)
			}
			for _, alias := range []string{"w", "other"} { // in claims
				assert.NotContains(t, db.scanned(t, statement), alias, "reads all of it: %s", statement.query)
			}
			checked++
		}
		require.Greater(t, checked, 20)
	})
}

// fill makes n payments and orders by SQL, and 2,000 that wait in other zones.
func (db *database) fill(t testing.TB, n int) {
	t.Helper()
	if n == 0 {
		return
	}
	series, text := db.series(n)
	db.must(t, "INSERT INTO orders (token, openid, zone, items, metadata, max_quantity, saved_at) SELECT "+
		text("token")+", "+text("player")+", '1', 'gem60*60*2', "+text("metadata")+", 0, 1707393600 + i FROM "+series)
	db.must(t, "INSERT INTO deliveries (openid, billno, token, zone, items, charged, called_at, granted_at, metadata, done_ms) SELECT "+
		text("player")+", "+text("-")+", "+text("token")+", '1', 'gem60*60*2', 1200, 1707393600 + i, 1707393600 + i, "+text("metadata")+", 1707393600000 + 1000 * i FROM "+series)
	db.must(t, "INSERT INTO inbox (openid, billno, zone, base, stored_ms, due_ms) SELECT "+
		text("player")+", "+text("-")+", "+text("zone")+", "+text("zone")+", 1707393600000, 99999999999999 FROM "+series+" WHERE i <= 2000")
	db.analyze(t)
}

// waitElsewhere has n payments waiting for zone 2, which nobody works on: all of them due, before any
// other one.
func (db *database) waitElsewhere(t testing.TB, n int) {
	t.Helper()
	series, text := db.series(n)
	db.must(t, "INSERT INTO inbox (openid, billno, zone, base, stored_ms, due_ms) SELECT "+text("absent")+", "+text("-")+", '2', '2', 1, i FROM "+series)
	db.analyze(t)
}

// series returns a table with a column i from 1 to n, and how a text that ends with i is written.
func (db *database) series(n int) (series string, text func(string) string) {
	series = map[midassql.Dialect]string{
		midassql.PostgreSQL: fmt.Sprintf("(SELECT i FROM generate_series(1::bigint, %d) AS s(i)) AS series", n),
		midassql.MySQL:      fmt.Sprintf("(SELECT seq AS i FROM seq_1_to_%d) AS series", n),
		midassql.SQLite:     fmt.Sprintf("(WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s WHERE i < %d) SELECT i FROM s) AS series", n),
	}[db.dialect]
	return series, func(name string) string {
		if db.dialect == midassql.MySQL {
			return "CONCAT('" + name + "', i)"
		}
		return "'" + name + "' || i"
	}
}

func (db *database) analyze(t testing.TB) {
	t.Helper()
	for _, table := range []string{"orders", "deliveries", "inbox"} {
		analyze := map[midassql.Dialect]string{midassql.PostgreSQL: "VACUUM ANALYZE ", midassql.MySQL: "ANALYZE TABLE ", midassql.SQLite: "ANALYZE "}[db.dialect]
		_, err := db.Exec(analyze + db.prefix + table)
		require.NoError(t, err)
	}
}

// scanned returns the tables that a statement reads from end to end.
func (db *database) scanned(t *testing.T, statement recorded) (tables []string) {
	t.Helper()
	for _, plan := range db.plan(t, statement) {
		if db.dialect == midassql.SQLite {
			if words := strings.Fields(plan); words[0] == "SCAN" && !strings.Contains(plan, "USING") {
				tables = append(tables, words[1])
			}
			continue
		}
		var tree any
		require.NoError(t, json.Unmarshal([]byte(plan), &tree))
		visit(tree, func(node map[string]any) {
			if node["Node Type"] == "Seq Scan" {
				tables = append(tables, node["Relation Name"].(string))
			}
			if access := node["access_type"]; access == "ALL" || access == "index" && node["attached_condition"] == nil && !strings.Contains(statement.query, "LIMIT") {
				tables = append(tables, fmt.Sprint(node["table_name"]))
			}
		})
	}
	return tables
}

// plan returns the lines of what EXPLAIN says: SQLite's steps, or one tree in JSON.
func (db *database) plan(t *testing.T, statement recorded) (lines []string) {
	t.Helper()
	explain := map[midassql.Dialect]string{midassql.PostgreSQL: "EXPLAIN (FORMAT JSON) ", midassql.MySQL: "EXPLAIN FORMAT=JSON ", midassql.SQLite: "EXPLAIN QUERY PLAN "}[db.dialect]
	rows, err := db.Query(explain+statement.query, statement.args...)
	require.NoError(t, err, statement.query)
	defer rows.Close()
	for rows.Next() {
		var line string
		if db.dialect == midassql.SQLite {
			var id, parent, unused int
			require.NoError(t, rows.Scan(&id, &parent, &unused, &line))
		} else {
			require.NoError(t, rows.Scan(&line))
		}
		lines = append(lines, line)
	}
	require.NoError(t, rows.Err())
	return lines
}

// A zone that is down for long costs the others nothing: their claims do not walk over what is
// due there.
func TestClaimsDoNotReadOtherZones(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		recorded, seen := db.recordedStore(t)
		db.waitElsewhere(t, 20_000)
		ordered(t, recorded, "player", "token")
		index := map[midassql.Dialect]string{midassql.PostgreSQL: `"Index Name": "`, midassql.MySQL: `"key": "`, midassql.SQLite: "USING INDEX "}[db.dialect]
		for _, zones := range [][]string{{"1"}, {"1_7", "3"}} { // the second one for the roles 7 of zone 1
			inbox := recorded.Inbox(midassql.InboxOptions{Zones: zones})
			require.NoError(t, inbox.Deliver(t.Context(), paid("player", "token", "-"+zones[0], func(d *midas.Delivery) { d.ZoneID = zones[0] })))
			require.Equal(t, []string{"-" + zones[0]}, worked(t, inbox, 1, func(context.Context, *midas.Delivery) error { return nil }))
		}
		checked := 0
		for _, statement := range seen.statements() {
			if strings.Contains(statement.query, " w WHERE due_ms <= ") {
				plan := strings.Join(db.plan(t, statement), "\n")
				assert.Contains(t, plan, index+db.prefix+"inbox_base", "it walks over all that is due")
				checked++
			}
		}
		require.NotZero(t, checked)
		if db.dialect == midassql.PostgreSQL { // EXPLAIN shows no plan that is kept for any zone
			require.True(t, seen.has("force_custom_plan"))
			require.True(t, seen.has("'jit', 'off'"))
		}
	})
}

func visit(tree any, see func(map[string]any)) {
	switch node := tree.(type) {
	case map[string]any:
		see(node)
		for _, child := range node {
			visit(child, see)
		}
	case []any:
		for _, child := range node {
			visit(child, see)
		}
	}
}

func TestSettle(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		store := db.store(t, midassql.Options{})
		deliver := store.Once(db.grant)
		settle := func(d *midas.Delivery) bool {
			granted, err := store.Settle(t.Context(), midassql.Settlement{Delivery: d, By: "wang", Reason: "ticket 7"}, db.grant)
			require.NoError(t, err)
			return granted
		}
		items := func(n int) { t.Helper(); require.Equal(t, n, db.count(t, "SELECT COUNT(*) FROM items")) }

		// Without its token, and Midas calls late.
		require.True(t, settle(paid("player", "", "-1")))
		items(1)
		require.False(t, settle(paid("player", "", "-1")))
		ordered(t, store, "player", "token")
		ordered(t, store, "player", "token2")
		require.NoError(t, deliver(t.Context(), paid("player", "token", "-1")))
		require.NoError(t, deliver(t.Context(), paid("player", "token", "-1")))
		require.ErrorContains(t, deliver(t.Context(), paid("player", "token2", "-1")), "token", "it has the first callback's")
		items(1)
		for p, err := range store.Payments(t.Context(), midassql.Query{Token: "token"}) {
			require.NoError(t, err)
			require.Equal(t, "-1 wang ticket 7", p.BillNo+" "+p.SettledBy+" "+p.Note)
		}

		// With a token, which is compared; and of an order that is gone.
		_, err := store.Settle(t.Context(), midassql.Settlement{Delivery: paid("thief", "token", "-2"), By: "wang"}, db.grant)
		var param *midas.ParamError
		require.ErrorAs(t, err, &param)
		require.True(t, settle(paid("player", "token2", "-2")))
		require.True(t, settle(paid("player", "purged", "-3")))
		items(3)

		// A callback came first.
		require.NoError(t, deliver(t.Context(), paid("player", "token", "-4")))
		require.False(t, settle(paid("player", "", "-4")))
		items(4)

		// Through the Inbox.
		inbox := store.Inbox(midassql.InboxOptions{})
		stored, err := inbox.Settle(t.Context(), midassql.Settlement{Delivery: paid("player", "", "-5"), By: "wang"})
		require.NoError(t, err)
		require.True(t, stored)
		require.NoError(t, deliver(t.Context(), paid("player", "token", "-5")))
		require.Equal(t, []string{"-5"}, waiting(t, inbox, "player"))
		items(4)

		for _, p := range []midassql.Settlement{{By: "wang"}, {Delivery: paid("player", "", "-6")}} {
			_, err := store.Settle(t.Context(), p, db.grant)
			require.ErrorContains(t, err, "Settle")
		}
		_, err = store.Settle(t.Context(), midassql.Settlement{Delivery: paid("player", "", "-6"), By: "wang"}, nil)
		require.ErrorContains(t, err, "grant is nil")
	})
}

// As docs/ledger.md archives: the row stays, what makes it large goes.
func TestArchivedPaymentsAreNotGrantedAgain(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		for _, appOrders := range []bool{false, true} {
			store := db.store(t, midassql.Options{AcceptAppOrders: appOrders})
			deliver := store.Once(db.grant)
			token := fmt.Sprint("token", appOrders)
			ordered(t, store, "player", token)
			require.NoError(t, deliver(t.Context(), paid("player", token, "-"+token)))
			db.must(t, "UPDATE deliveries SET items = '', metadata = '', pay_method = '', platform = '', app_id = '', note = '' WHERE granted_at < ? AND state = 0 AND (done_ms IS NULL OR done_ms < ?)", time.Now().Unix()+10, time.Now().Unix()*1000)
			db.must(t, "DELETE FROM orders")
			granted := db.count(t, "SELECT COUNT(*) FROM items")
			require.NoError(t, deliver(t.Context(), paid("player", token, "-"+token)))
			require.ErrorContains(t, deliver(t.Context(), paid("player", "another", "-"+token)), "token")
			require.Equal(t, granted, db.count(t, "SELECT COUNT(*) FROM items"))
			require.Len(t, payments(t, store, midassql.Query{Token: token}), 1)
		}
	})
}

// recorded is a statement with the arguments that it ran with.
type recorded struct {
	query string
	args  []any
}
