package dbtest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midassql"
	"github.com/stretchr/testify/require"
)

// The snippet of docs/limits.md.

var errLimit = errors.New("above what a minor may pay in a month")

// reserve makes room for an order in the person's month, or refuses it. Call it before CreateOrder.
func reserve(ctx context.Context, db *sql.DB, store *midassql.Store, person string, openIDs []string, amount, limit midas.Amount, now time.Time) error {
	month := time.Date(now.Year(), now.Month(), 1, 0, 0, 0, 0, now.Location()) // in China's time
	spent, err := store.Spent(ctx, openIDs, month, month.AddDate(0, 1, 0))
	if err != nil {
		return err // no answer, no order
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	// The lock: the person's next order waits here. It is committed before Midas is asked.
	if _, err := tx.ExecContext(ctx, `UPDATE persons SET orders = orders + 1 WHERE id = $1`, person); err != nil {
		return err
	}
	// What is reserved and paid counts twice until the reservation ends; never the other way round.
	var reserved midas.Amount
	err = tx.QueryRowContext(ctx, `SELECT CAST(COALESCE(SUM(amount), 0) AS bigint) FROM reserved WHERE person = $1 AND until > $2`,
		person, now.Unix()).Scan(&reserved)
	if err != nil {
		return err
	}
	if spent+reserved+amount > limit {
		return errLimit
	}
	until := now.Add(midas.TokenLifetime + time.Minute) // a callback comes after the payment
	if _, err := tx.ExecContext(ctx, `INSERT INTO reserved (person, amount, until) VALUES ($1, $2, $3)`, person, int64(amount), until.Unix()); err != nil {
		return err
	}
	return tx.Commit()
}

// Two orders at once, each within the limit and both together above it.
func TestTwoOrdersAtOnceAndALimit(t *testing.T) {
	t.Parallel()
	outside := openDatabase(t, postgreSQL)
	schema := outside.prefix + "limits"
	_, err := outside.Exec("CREATE SCHEMA " + schema)
	require.NoError(t, err)
	defer outside.Exec("DROP SCHEMA " + schema + " CASCADE")
	db := openDatabase(t, postgreSQL, "search_path="+schema)
	now := time.Date(2026, 11, 30, 23, 58, 0, 0, time.FixedZone("", 8*3600))
	store := db.store(t, midassql.Options{Now: func() time.Time { return now }, AcceptAppOrders: true})
	for _, statement := range []string{"CREATE TABLE persons (id text PRIMARY KEY, orders bigint NOT NULL)",
		"CREATE TABLE reserved (person text NOT NULL, amount bigint NOT NULL, until bigint NOT NULL)", "INSERT INTO persons VALUES ('440101…', 0)"} {
		_, err := db.Exec(statement)
		require.NoError(t, err)
	}
	openIDs := []string{"qq", "wechat"}
	ask := func(amount midas.Amount) error {
		return reserve(t.Context(), db.DB, store, "440101…", openIDs, amount, 20000, now)
	}
	pay := func(openID, billNo string, amount midas.Amount) {
		require.NoError(t, store.Once(db.grant)(t.Context(), paid(openID, "token", billNo, func(d *midas.Delivery) { d.Charged = amount })))
	}
	pay("qq", "-1", 10000)

	// Spent alone lets both pass: neither is paid yet.
	for range 2 {
		spent, err := store.Spent(t.Context(), openIDs, now.AddDate(0, 0, -29), now.Add(time.Minute))
		require.NoError(t, err)
		require.LessOrEqual(t, spent+6000, midas.Amount(20000))
	}
	// With the lock one of them does.
	results := make([]error, 8)
	var all sync.WaitGroup
	for i := range results {
		all.Go(func() { results[i] = ask(6000) })
	}
	all.Wait()
	passed := 0
	for _, err := range results {
		if err == nil {
			passed++
		} else {
			require.ErrorIs(t, err, errLimit)
		}
	}
	require.Equal(t, 1, passed, fmt.Sprint(results))
	require.NoError(t, ask(4000), "what is left")
	require.ErrorIs(t, ask(1), errLimit)

	// An order that nobody paid makes room again, and so does the next month.
	now = now.Add(midas.TokenLifetime + 2*time.Minute)
	require.NoError(t, ask(20000), "December")
	require.ErrorIs(t, ask(1), errLimit)
}
