package dbtest

import (
	"context"
	"database/sql/driver"
	"encoding/json"
	"fmt"
	"iter"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midassql"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	modernc "modernc.org/sqlite"
)

func payments(t testing.TB, store *midassql.Store, q midassql.Query) (billNos []string) {
	t.Helper()
	for p, err := range store.Payments(t.Context(), q) {
		require.NoError(t, err)
		billNos = append(billNos, p.BillNo)
	}
	return billNos
}

// onlyPayment returns the only payment that a query finds.
func onlyPayment(t testing.TB, store *midassql.Store, q midassql.Query) (p midassql.Payment) {
	t.Helper()
	n := 0
	for found, err := range store.Payments(t.Context(), q) {
		require.NoError(t, err)
		p = found
		n++
	}
	require.Equal(t, 1, n)
	return p
}

// failure returns the error that a list ends with.
func failure[T any](list iter.Seq2[T, error]) (err error) {
	for _, err = range list {
	}
	return err
}

func TestLookUps(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		noon := time.Date(2024, 2, 8, 12, 0, 0, 0, time.UTC)
		c := &clock{}
		store := db.store(t, midassql.Options{Now: c.now})
		for i := range 6 {
			c.set(noon.Add(time.Duration(i/2) * time.Hour))
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
			{"a time range", midassql.Query{From: noon, To: noon.Add(time.Hour)}, []string{"-8", "-9"}, []string{"token0", "token1"}, nil},
			{"all times, more than MySQL's column of the time has", midassql.Query{From: time.Unix(-1<<32, 0), To: time.Unix(1<<33, 0)},
				[]string{"-8", "-9", "-6", "-7", "-5"}, []string{"token0", "token1", "token2", "token3", "token4", "token5"}, nil},
			{"times before that column's", midassql.Query{From: time.Unix(-1<<33, 0), To: time.Unix(-1<<32, 0)}, nil, nil, nil},
			{"times after that column's", midassql.Query{From: time.Unix(1<<33, 0), To: time.Unix(1<<34, 0)}, nil, nil, nil},
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
		require.Empty(t, payments(t, store, midassql.Query{OpenID: "player0", State: midassql.StateWaiting}))
		require.Len(t, payments(t, store, midassql.Query{OpenID: "player0", State: midassql.StateDone}), 3)
		for o, err := range store.UnpaidOrders(t.Context(), noon, noon.Add(24*time.Hour)) {
			require.NoError(t, err)
			require.Equal(t, "token5", o.Token)
		}

		inbox := newInbox(t, store, midassql.InboxOptions{})
		db.stored(t, store, inbox, "away", "-waits")
		require.Equal(t, []string{"-waits"}, payments(t, store, midassql.Query{State: midassql.StateWaiting}))
		require.Equal(t, []string{"-waits"}, payments(t, store, midassql.Query{State: midassql.StateWaiting, From: noon}))
		require.Empty(t, payments(t, store, midassql.Query{State: midassql.StateWaiting, From: noon.Add(24 * time.Hour)}))
		require.Empty(t, payments(t, store, midassql.Query{State: midassql.StateWaiting, To: noon}))
		require.Empty(t, payments(t, store, midassql.Query{State: midassql.StateStuck}))

		for _, q := range []midassql.Query{{}, {From: noon}, {To: noon}, {State: midassql.StateDone}, {OpenID: "player0", State: "lost"}} {
			require.ErrorContains(t, failure(store.Payments(t.Context(), q)), "Query", "%+v", q)
		}
		require.ErrorContains(t, failure(store.Orders(t.Context(), midassql.Query{BillNo: "-7"})), "orders have no BillNo")
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
	onEachPlanner(t, func(t *testing.T, db *database) {
		recorded, seen := db.recordedStore(t)
		db.fill(t, db.rows(20_000))
		ordered(t, recorded, "player", "token")
		require.NoError(t, recorded.Once(db.grant)(t.Context(), paid("player", "token", "-1")))
		require.NoError(t, recorded.Once(db.grant)(t.Context(), paid("player", "token", "-1")))
		inbox := newInbox(t, recorded, midassql.InboxOptions{Zones: []string{"1", "2"}})
		every := newInbox(t, recorded, midassql.InboxOptions{})
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
		for _, q := range []midassql.Query{{OpenID: openIDOf(7)}, {Token: tokenOf(7)}, {Metadata: metadataOf(7)}, {From: day, To: day.Add(time.Minute)},
			{BillNo: billNoOf(7)}, {OpenID: openIDOf(7), From: day}, {OpenID: openIDOf(7), State: midassql.StateStuck}} {
			payments(t, recorded, q)
			for range recorded.Orders(t.Context(), q) {
			}
		}
		for range recorded.UnpaidOrders(t.Context(), day, day.Add(time.Minute)) {
		}
		ordered(t, recorded, "player", "unpaid")
		db.must(t, "UPDATE orders SET saved_at = saved_at - 60 WHERE token = 'unpaid'")
		require.Equal(t, []string{"unpaid"}, claimed(t, recorded, "unpaid", 10))
		_, err = recorded.Spent(t.Context(), []string{openIDOf(7), openIDOf(8)}, day, day.Add(time.Minute))
		require.NoError(t, err)
		_, err = recorded.Settle(t.Context(), midassql.Settlement{Delivery: paid("player", "token", "-4"), By: "wang"}, db.grant)
		require.NoError(t, err)
		for i := range 6 {
			recorded.OnCallback(failedCallback("-5", fmt.Sprint(i)))
		}
		require.NoError(t, recorded.Wait(t.Context()))
		for _, q := range []midassql.Query{{OpenID: openIDOf(7)}, {BillNo: billNoOf(7)}, {Token: tokenOf(7)}, {OpenID: openIDOf(7), BillNo: billNoOf(7)}, {From: day, To: day.Add(time.Minute)}} {
			attempts(t, recorded, q)
			if q.Token == "" {
				acts(t, recorded, q)
			}
		}
		_, err = recorded.Purge(t.Context(), 365*24*time.Hour)
		require.NoError(t, err)
		for _, table := range []string{"deliveries", "orders", "inbox", "attempts", "acts"} {
			db.must(t, "DELETE FROM "+table)
		}
		db.fill(t, db.rows(20_000)) // again: what plans are for

		checked := 0
		for _, statement := range seen.statements() {
			if !regexp.MustCompile(`^\s*(SELECT|UPDATE|DELETE|WITH)`).MatchString(statement.query) {
				continue
			}
			for _, table := range []string{"deliveries", "orders", "inbox", "attempts", "acts"} {
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

// A payment of fill is as long as a real one: an openid of 28 bytes, a token of 36, a dated billno.
func openIDOf(player int) string  { return fmt.Sprintf("o%027d", player) }
func tokenOf(order int) string    { return fmt.Sprintf("%036d", order) }
func billNoOf(payment int) string { return fmt.Sprintf("-APPDJSX41312-20240208-%010d", payment) }
func metadataOf(order int) string { return fmt.Sprintf("shop*%011d", order) }

// playerOf returns which of the players of fill has placed an order.
func playerOf(order, n int) int { return order * 7919 % players(n) }
func players(n int) int         { return n/3 + 1 }

// fill makes n payments and orders by SQL, and 2,000 that wait in other zones. Rows are written in the order
// of their keys; the players and orders of the payments come as if drawn at random.
func (db *database) fill(t testing.TB, n int) {
	t.Helper()
	series, text := db.series(n)
	order := fmt.Sprintf("(i * 104729 %% %d)", n) // of payment i; no n has this factor
	openID := func(order string) string {
		return db.padded("o", 27, fmt.Sprintf("(%s * 7919 %% %d)", order, players(n)))
	}
	billNo, token := db.padded("-APPDJSX41312-20240208-", 10, "i"), db.padded("", 36, order)
	db.must(t, "INSERT INTO orders (token, openid, zone, items, metadata, max_quantity, saved_at) SELECT "+
		db.padded("", 36, "(i - 1)")+", "+openID("(i - 1)")+", '1', 'gem60*60*2', "+db.padded("shop*", 11, "(i - 1)")+", 0, 1707393600 + i FROM "+series)
	db.must(t, "INSERT INTO deliveries (openid, billno, token, zone, items, charged, called_at, granted_at, app_id, metadata, done_ms) SELECT "+
		openID(order)+", "+billNo+", "+token+", '1', 'gem60*60*2', 1200, 1707393600 + i, 1707393600 + i, '1450012345', "+
		db.padded("shop*", 11, order)+", 1707393600000 + 1000 * i FROM "+series)
	db.must(t, "INSERT INTO inbox (openid, billno, zone, base, stored_ms, due_ms) SELECT "+
		openID(order)+", "+billNo+", "+text("zone")+", "+text("zone")+", 1707393600000, 99999999999999 FROM "+series+" WHERE i <= 2000")
	db.must(t, "INSERT INTO attempts (openid, billno, id, token, tried_ms, outcome, ret, late, error) SELECT "+
		openID(order)+", "+billNo+", i, "+token+", 1707393600000 + 1000 * i, 'failed', 1, 0, '' FROM "+series+" WHERE i <= 20000")
	db.must(t, "INSERT INTO acts (openid, billno, id, acted_ms, act, actor, reason) SELECT "+
		openID(order)+", "+billNo+", i, 1707393600000 + 1000 * i, 'retry', '', '' FROM "+series+" WHERE i <= 20000")
	db.analyze(t)
}

// padded is an SQL expression: a number behind a prefix, with zeros before it.
func (db *database) padded(prefix string, digits int, number string) string {
	switch db.dialect {
	case midassql.MySQL:
		return fmt.Sprintf("CONCAT('%s', LPAD(%s, %d, '0'))", prefix, number, digits)
	case midassql.PostgreSQL:
		return fmt.Sprintf("'%s' || LPAD(CAST(%s AS text), %d, '0')", prefix, number, digits)
	}
	return fmt.Sprintf("'%s' || printf('%%0%dd', %s)", prefix, digits, number)
}

var anIndex = regexp.MustCompile(`(?:KEY|INDEX IF NOT EXISTS) midas_((orders|deliveries)_\w+) (?:ON \w+ )?(\([^)]*\))`)

// withoutIndexes fills the tables without the indexes of payments and orders, and makes them afterwards, by
// sorting: a million rows that go into each of them at random take minutes.
func (db *database) withoutIndexes(t testing.TB, fill func()) {
	t.Helper()
	schema, err := os.ReadFile("../schema/" + string(db.dialect) + ".sql")
	require.NoError(t, err)
	indexes := anIndex.FindAllStringSubmatch(string(schema), -1)
	require.Len(t, indexes, 8)
	for _, index := range indexes {
		drop := "DROP INDEX " + db.prefix + index[1]
		if db.dialect == midassql.MySQL {
			drop += " ON " + db.prefix + index[2]
		}
		db.must(t, drop)
	}
	fill()
	for _, index := range indexes {
		db.must(t, "CREATE INDEX "+db.prefix+index[1]+" ON "+index[2]+" "+index[3])
	}
}

// waitElsewhere has n payments waiting for a zone that nobody works on: all of them due, before any
// other one.
func (db *database) waitElsewhere(t testing.TB, n int, zone, base string) {
	t.Helper()
	series, text := db.series(n)
	db.must(t, "INSERT INTO inbox (openid, billno, zone, base, stored_ms, due_ms) SELECT "+text("absent")+", "+text("-")+", ?, ?, 1, i FROM "+series, zone, base)
	db.analyze(t)
}

// series returns a table with a column i from 1 to n, and how a text that ends with i is written.
func (db *database) series(n int) (series string, text func(string) string) {
	series = map[midassql.Dialect]string{
		midassql.PostgreSQL: fmt.Sprintf("(SELECT i FROM generate_series(1::bigint, %d) AS s(i)) AS series", n),
		midassql.MySQL:      mySQLSeries(n),
		midassql.SQLite:     fmt.Sprintf("(WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s WHERE i < %d) SELECT i FROM s) AS series", n),
	}[db.dialect]
	return series, func(name string) string {
		if db.dialect == midassql.MySQL {
			return "CONCAT('" + name + "', i)"
		}
		return "'" + name + "' || i"
	}
}

// mySQLSeries joins a table of digits as often as n has digits. (A recursive query ends at 1000 rows.)
func mySQLSeries(n int) string {
	const digit = "(SELECT 0 AS i UNION ALL SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4 UNION ALL SELECT 5" +
		" UNION ALL SELECT 6 UNION ALL SELECT 7 UNION ALL SELECT 8 UNION ALL SELECT 9) AS d"
	sum, from := "1", ""
	for weight := 1; weight < n; weight *= 10 {
		sum += fmt.Sprintf(" + %d * d%d.i", weight, weight)
		from = fmt.Sprint(digit, weight, " STRAIGHT_JOIN ") + from // the least weight is read last: the rows come in order
	}
	return fmt.Sprintf("(SELECT i FROM (SELECT %s AS i FROM %s (SELECT 0) AS one) AS counted WHERE i <= %d) AS series", sum, from, n)
}

func (db *database) analyze(t testing.TB) {
	t.Helper()
	for _, table := range []string{"orders", "deliveries", "inbox", "attempts", "acts"} {
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
	conn, err := db.Conn(t.Context())
	require.NoError(t, err)
	defer conn.Close()
	if db.Server == mySQL.Server { // the form that MariaDB's has, too
		_, err := conn.ExecContext(t.Context(), "SET explain_json_format_version = 1")
		require.NoError(t, err)
	}
	rows, err := conn.QueryContext(t.Context(), explain+statement.query, statement.args...)
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
	onEachPlanner(t, func(t *testing.T, db *database) {
		recorded, seen := db.recordedStore(t)
		db.waitElsewhere(t, 20_000, "2", "2")
		ordered(t, recorded, "player", "token")
		index := map[midassql.Dialect]string{midassql.PostgreSQL: `"Index Name": "`, midassql.MySQL: `"key": "`, midassql.SQLite: "USING INDEX "}[db.dialect]
		for _, zones := range [][]string{{"1"}, {"1_7", "3"}} { // the second one for the roles 7 of zone 1
			inbox := newInbox(t, recorded, midassql.InboxOptions{Zones: zones})
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

// Games name their zones s_1, s_2, …: of one that is down, a claim for another passes over the entries of an
// index, and neither reads nor locks a row.
func TestAClaimReadsNoRowsOfADeadZoneWhoseNameBeginsAlike(t *testing.T) {
	t.Parallel()
	onEachPlanner(t, func(t *testing.T, db *database) {
		db.store(t, midassql.Options{})
		seen := new(recorder)
		store := seen.store(t, db, midassql.Options{AcceptAppOrders: true})
		db.waitElsewhere(t, db.rows(100_000), "s_2", "s")
		inbox := newInbox(t, store, midassql.InboxOptions{Zones: []string{"s_1"}})
		deliver := func(billNo string) {
			require.NoError(t, inbox.Deliver(t.Context(), paid("player", "token", billNo, func(d *midas.Delivery) { d.ZoneID = "s_1" })))
		}
		deliver("-1")
		require.Equal(t, []string{"-1"}, worked(t, inbox, 1, saved))

		deliver("-2")
		checked := 0
		for _, statement := range seen.statements() {
			if strings.Contains(statement.query, " w WHERE due_ms <= ") {
				began := time.Now()
				read := db.rowsRead(t, statement)
				t.Logf("%d rows read, in %v", read, time.Since(began))
				require.Positive(t, read, "nothing was counted")
				require.LessOrEqual(t, read, 50, statement.query)
				checked++
			}
		}
		require.Equal(t, 1, checked)
	})
}

// rows is how many rows a test fills in: on SQLite, which is Go and slow under the race detector, a tenth. Its
// plans do not depend on it.
func (db *database) rows(most int) int {
	if db.dialect == midassql.SQLite {
		return most / 10
	}
	return most
}

// rowsOfSQLite counts the rows of which SQLite has looked at a column that no index has.
var rowsOfSQLite atomic.Int64

func init() {
	modernc.MustRegisterScalarFunction("looked_at", 1, func(*modernc.FunctionContext, []driver.Value) (driver.Value, error) {
		rowsOfSQLite.Add(1)
		return int64(1), nil
	})
}

// rowsRead returns how many rows a claim's statement reads, by what the server counts. It is rolled back.
func (db *database) rowsRead(t *testing.T, statement recorded) (n int) {
	t.Helper()
	tx, err := db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	defer tx.Rollback()
	run := func(query string, args ...any) (lines [][]byte) {
		rows, err := tx.QueryContext(t.Context(), query, args...)
		require.NoError(t, err)
		defer rows.Close()
		for rows.Next() {
			var last []byte
			columns, err := rows.Columns()
			require.NoError(t, err)
			values := make([]any, len(columns))
			for i := range values {
				values[i] = new(any)
			}
			values[len(values)-1] = &last
			require.NoError(t, rows.Scan(values...))
			lines = append(lines, last)
		}
		require.NoError(t, rows.Err())
		return lines
	}
	switch db.dialect {
	case midassql.PostgreSQL:
		var tree any
		require.NoError(t, json.Unmarshal(run("EXPLAIN (ANALYZE, FORMAT JSON) "+statement.query, statement.args...)[0], &tree))
		visit(tree, func(node map[string]any) {
			if strings.HasSuffix(fmt.Sprint(node["Node Type"]), "Scan") {
				for _, count := range []string{"Actual Rows", "Rows Removed by Filter", "Rows Removed by Index Recheck"} {
					rows, _ := node[count].(float64)
					n += int(rows * node["Actual Loops"].(float64))
				}
			}
		})
	case midassql.MySQL:
		counted := func() (sum int) {
			for _, value := range run("SHOW SESSION STATUS LIKE 'Handler_read%'") {
				n, err := strconv.Atoi(string(value))
				require.NoError(t, err)
				sum += n
			}
			return sum
		}
		counted()
		before, again := counted(), counted() // SHOW reads rows, too
		run(statement.query, statement.args...)
		n = counted() - again - (again - before)
	case midassql.SQLite:
		before := rowsOfSQLite.Load()
		run(strings.Replace(statement.query, " w WHERE ", " w WHERE looked_at(w.lease_ms) = 1 AND ", 1), statement.args...)
		n = int(rowsOfSQLite.Load() - before)
	}
	return n
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

// Retry with DoneFrom puts back what the game saved; what Once granted is in the same database as the
// players, and comes back with it. The column done_ms tells the two apart, DoneAt does not show it.
func TestDoneAtIsThereForBothKindsOfPayments(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		noon := time.Date(2024, 2, 8, 12, 0, 0, 0, time.UTC)
		store := db.store(t, midassql.Options{Now: func() time.Time { return noon }, AcceptAppOrders: true})
		inbox := newInbox(t, store, midassql.InboxOptions{})
		require.NoError(t, store.Once(db.grant)(t.Context(), paid("player", "token", "-once")))
		_, err := store.Settle(t.Context(), midassql.Settlement{Delivery: paid("player", "", "-settled"), By: "anna"}, db.grant)
		require.NoError(t, err)
		for _, billNo := range []string{"-done", "-waits", "-cancelled"} {
			require.NoError(t, inbox.Deliver(t.Context(), paid("player", "token", billNo)))
		}
		before := time.Now()
		require.NoError(t, inbox.Done(t.Context(), "player", "-done"))
		require.NoError(t, inbox.Cancel(t.Context(), "player", "-cancelled", "refunded"))

		doneAt := func() map[string]time.Time {
			times := make(map[string]time.Time)
			for p, err := range store.Payments(t.Context(), midassql.Query{OpenID: "player"}) {
				require.NoError(t, err)
				times[p.BillNo] = p.DoneAt
			}
			return times
		}
		times := doneAt()
		require.True(t, times["-once"].Equal(noon), "when Once granted it")
		require.True(t, times["-settled"].Equal(noon), "when it was settled")
		require.WithinDuration(t, before, times["-done"], time.Minute, "by the database's clock")
		require.Zero(t, times["-waits"])
		require.Zero(t, times["-cancelled"])

		n, err := inbox.Retry(t.Context(), midassql.RetryOptions{DoneFrom: noon.Add(-time.Hour)})
		require.NoError(t, err)
		require.EqualValues(t, 1, n.PutBack, "neither what Once granted nor what was settled in its way")
		require.Zero(t, doneAt()["-done"], "it waits again")
		require.ElementsMatch(t, []string{"-done", "-waits"}, waiting(t, inbox, "player"))
	})
}
