package failovertest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midassql"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// testdata/vitess-routes.txt has each statement on the ledger's tables, and where the planner of Vitess 24.0.4 sends
// it with the vindexes of ../schema/vitess.json: to one shard, to those of some players, or to all. A new statement
// is to be planned, too.
func TestEachStatementHasARoute(t *testing.T) {
	seen := exercised(t)
	routes := readRoutes(t)
	for statement := range seen {
		assert.NotEmpty(t, routes[shapeOf(statement)], "write down its route, as VEXPLAIN PLAN shows it: %s", shapeOf(statement))
	}
	require.Greater(t, len(seen), 70)
}

// readRoutes reads lines of a route and a statement.
func readRoutes(t *testing.T) map[string]string {
	t.Helper()
	content, err := os.ReadFile("testdata/vitess-routes.txt")
	require.NoError(t, err)
	routes := make(map[string]string)
	for line := range strings.Lines(string(content)) {
		route, shape, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		routes[shape] = route
	}
	return routes
}

// exercised calls what reads and writes the ledger's tables, and returns the statements on them.
func exercised(t *testing.T) map[string]bool {
	t.Helper()
	config, err := mysql.ParseDSN(mysqlDSN(newMariaDBNodes(t).startAlone(t).address, "game", ""))
	require.NoError(t, err)
	config.InterpolateParams = true // as docs/databases.md has it
	var mu sync.Mutex
	seen := make(map[string]bool)
	db := sql.OpenDB(&rewritten{&mysql.MySQLDriver{}, config.FormatDSN(), func(query string) string {
		mu.Lock()
		defer mu.Unlock()
		if strings.Contains(query, "midas_") {
			seen[query] = true
		}
		return query
	}})
	defer db.Close()
	w := newWriter(t, db, midassql.MySQL, false)
	createTables(t, w, midassql.MySQL)
	mu.Lock()
	clear(seen)
	mu.Unlock()
	exercise(t, w.store)
	mu.Lock()
	defer mu.Unlock()
	return maps.Clone(seen)
}

var (
	blanks  = regexp.MustCompile(`\s+`)
	literal = regexp.MustCompile(`x'[0-9a-f]*'`)
	another = regexp.MustCompile(`( OR w\.openid = \? AND w\.billno = \?)+|(, \?){2,}`)
)

// shapeOf returns a statement without what differs from call to call.
func shapeOf(statement string) string {
	statement = literal.ReplaceAllString(blanks.ReplaceAllString(statement, " "), "?")
	return another.ReplaceAllString(statement, "…")
}

// exercise calls what reads and writes the tables.
func exercise(t *testing.T, store *midassql.Store) {
	t.Helper()
	ctx := t.Context()
	inTx := func(context.Context, *sql.Tx, *midas.Delivery) error { return nil }
	inbox, err := store.Inbox(midassql.InboxOptions{Zones: []string{"1", "2"}})
	require.NoError(t, err)
	every, err := store.Inbox(midassql.InboxOptions{})
	require.NoError(t, err)
	run := fmt.Sprint(time.Now().UnixNano())
	pay := func(i int) *midas.Delivery {
		d := payment(i, "token"+run+fmt.Sprint(i))
		d.BillNo, d.AppID, d.Numbers = run+d.BillNo, "app", []string{run + d.BillNo}
		return d
	}
	work := func(b *midassql.Inbox, result error) {
		ctx, stop := context.WithTimeout(ctx, 10*time.Second)
		defer stop()
		handed := false
		b.Work(ctx, func(context.Context, *midas.Delivery) error { handed = true; stop(); return result })
		require.True(t, handed)
	}
	for i := range 8 {
		require.NoError(t, store.SaveOrder(ctx, order(i), &midas.Order{Token: pay(i).Token}))
	}
	once := store.Once(inTx)
	require.NoError(t, once(ctx, pay(0)))
	require.NoError(t, once(ctx, pay(0)))
	unknown := pay(0)
	unknown.BillNo, unknown.Token = run+"unknown", "unknown"
	require.ErrorIs(t, once(ctx, unknown), midas.ErrTokenNotFound)
	for i, result := range []error{nil, midassql.ErrAccepted, errors.New("failed"), midassql.ErrNotNow} {
		require.NoError(t, inbox.Deliver(ctx, pay(1+i)))
		work([]*midassql.Inbox{inbox, every}[i%2], result)
	}
	for i := 1; i < 5; i++ {
		for d, err := range inbox.Waiting(ctx, player(i)) {
			require.NoError(t, err)
			require.NoError(t, inbox.Fail(ctx, d.OpenID, d.BillNo, midassql.ErrNotNow))
		}
	}
	require.NoError(t, inbox.Done(ctx, player(1), pay(1).BillNo))
	require.NoError(t, inbox.Done(ctx, player(2), pay(2).BillNo))
	require.NoError(t, inbox.Cancel(ctx, player(3), pay(3).BillNo, ""))
	_, err = inbox.MoveZone(ctx, "1", "2")
	require.NoError(t, err)
	_, err = inbox.MoveZone(ctx, "2", "1")
	require.NoError(t, err)
	_, err = inbox.Retry(ctx, midassql.RetryOptions{DoneFrom: time.Now().Add(-time.Hour)})
	require.NoError(t, err)
	_, err = inbox.Counts(ctx)
	require.NoError(t, err)
	_, err = every.Counts(ctx)
	require.NoError(t, err)
	_, err = store.Settle(ctx, midassql.Settlement{Delivery: pay(5), By: "wang"}, inTx)
	require.NoError(t, err)
	for _, r := range []midassql.Refund{
		{ID: run + "part", AppID: "app", OpenID: player(0), BillNo: pay(0).BillNo, Amount: 1},
		{ID: run + "part", AppID: "app", OpenID: player(0), BillNo: pay(0).BillNo, Amount: 1},
		{ID: run + "number", Number: pay(0).Numbers[0], Amount: 1},
		{ID: run + "early", AppID: "app", OpenID: player(6), BillNo: pay(6).BillNo},
	} {
		_, err := store.Refund(ctx, r, func(context.Context, *sql.Tx, *midassql.Payment, bool) error { return nil })
		require.NoError(t, err)
	}
	_, err = store.Refund(ctx, midassql.Refund{ID: run + "part", AppID: "app", OpenID: player(4), BillNo: pay(4).BillNo, Amount: 1}, nil)
	require.ErrorContains(t, err, "with another payment")
	require.NoError(t, once(ctx, pay(6)))
	store.OnCallback(midas.CallbackEvent{OpenID: player(0), BillNo: pay(0).BillNo, Token: "token", Outcome: midas.Failed, Ret: 1})
	require.NoError(t, store.Wait(ctx))
	day := time.Now().Add(-24 * time.Hour)
	for _, q := range []midassql.Query{
		{OpenID: player(0)}, {Token: "token"}, {Metadata: "m"}, {BillNo: "b"}, {Number: "n"}, {From: day, To: day.Add(time.Hour)},
		{OpenID: player(0), BillNo: pay(0).BillNo}, {State: midassql.StateStuck}, {State: midassql.StateWaiting},
	} {
		for range store.Payments(ctx, q) {
		}
		for range store.Orders(ctx, q) {
		}
		for range store.Attempts(ctx, q) {
		}
		for range store.Acts(ctx, q) {
		}
	}
	for _, err := range store.UnpaidOrders(ctx, day, time.Now()) {
		require.NoError(t, err)
	}
	_, err = store.ClaimUnpaid(ctx, "token", 10)
	require.NoError(t, err)
	_, err = store.Spent(ctx, []string{player(0)}, day, time.Now())
	require.NoError(t, err)
	_, err = store.Spent(ctx, []string{player(0), player(1)}, day, time.Now())
	require.NoError(t, err)
	for range 2 {
		_, err = store.Import(ctx, func(yield func(*midas.Delivery, error) bool) { yield(pay(7), nil) })
		require.NoError(t, err)
	}
	_, err = store.Purge(ctx, 8*24*time.Hour)
	require.NoError(t, err)
	_, err = store.Check(ctx)
	require.NoError(t, err)
	require.NoError(t, store.Migrate(ctx))
}
