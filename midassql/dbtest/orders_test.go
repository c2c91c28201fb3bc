package dbtest

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midassql"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Servers start while others work: one that has written and not yet committed is not waited
// for, and nobody waits behind.
func TestMigrateHoldsUpNobody(t *testing.T) {
	t.Parallel()
	on(t, func(t *testing.T, db *database) {
		store := db.store(t, midassql.Options{})
		ordered(t, store, "player", "token")
		deliver := store.Once(db.grant)
		granting, commit := make(chan struct{}), make(chan struct{})
		slow := make(chan error, 1)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		go func() {
			slow <- store.Once(func(ctx context.Context, _ *sql.Tx, _ *midas.Delivery) error {
				close(granting)
				select {
				case <-commit:
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			})(ctx, paid("player", "token", "-slow"))
		}()
		<-granting

		require.NoError(t, store.Migrate(ctx))
		require.NoError(t, deliver(ctx, paid("player", "token", "-1")))
		ordered(t, store, "player", "token2")
		close(commit)
		require.NoError(t, <-slow)
	}, midassql.PostgreSQL, midassql.MySQL) // SQLite has one writer
}

func TestSavedOrdersHoldNoSecret(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		store := db.store(t, midassql.Options{})
		req := midas.OrderRequest{
			Player: midas.Player{Login: midas.QQ, OpenID: "player", OpenKey: "SECRET-openkey", PayToken: "SECRET-paytoken", PF: "qq_m", PFKey: "SECRET-pfkey", ZoneID: "7"},
			Items:  []midas.Item{gem}, Metadata: "order*42", MaxQuantity: 9,
		}
		require.NoError(t, store.SaveOrder(t.Context(), req, &midas.Order{Token: "token", URLParams: "/v1/SECRET-params"}))
		require.ErrorContains(t, store.SaveOrder(t.Context(), req, &midas.Order{Token: "token"}), "SaveOrder", "a token is stored once")

		var token, openid, zone, items, metadata string
		var maxQuantity int
		require.NoError(t, db.QueryRow(db.sql("SELECT token, openid, zone, items, metadata, max_quantity FROM orders")).
			Scan(&token, &openid, &zone, &items, &metadata, &maxQuantity))
		require.Equal(t, "token player 7 order*42 9", fmt.Sprint(token, " ", openid, " ", zone, " ", metadata, " ", maxQuantity))
		require.Equal(t, "gem60*60*2", items)

		rows, err := db.Query(db.sql("SELECT * FROM orders"))
		require.NoError(t, err)
		defer rows.Close()
		columns, err := rows.Columns()
		require.NoError(t, err)
		require.Len(t, columns, 8)
		require.True(t, rows.Next())
		values := make([]any, len(columns))
		for i := range values {
			values[i] = new(string)
		}
		require.NoError(t, rows.Scan(values...))
		for i, value := range values {
			require.NotContains(t, *value.(*string), "SECRET", columns[i])
		}
	})
}

// A clock is an Options.Now that tests set. A Store reads it from goroutines of its own too: the one that stores attempts.
type clock struct {
	mu   sync.Mutex
	time time.Time
}

func clockAt(t time.Time) *clock { return &clock{time: t} }

func (c *clock) now() time.Time { return c.add(0) }

func (c *clock) add(d time.Duration) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.time = c.time.Add(d)
	return c.time
}

func (c *clock) set(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.time = t
}

func TestPaymentsOfATimeRange(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		noon := time.Date(2024, 2, 8, 12, 0, 0, 0, time.UTC)
		c := clockAt(noon)
		store := db.store(t, midassql.Options{Now: c.now})
		deliver := store.Once(db.grant)
		ordered(t, store, "player", "token")
		for i := range 5 { // at 12:00, 12:01 … 12:04
			c.set(noon.Add(time.Duration(i) * time.Minute))
			require.NoError(t, deliver(t.Context(), paid("player", "token", fmt.Sprint("-", i), func(d *midas.Delivery) { d.Charged = 1140 })))
		}

		var billnos []string
		for d, err := range store.Payments(t.Context(), midassql.Query{From: noon.Add(time.Minute), To: noon.Add(4 * time.Minute)}) {
			require.NoError(t, err)
			billnos = append(billnos, d.BillNo)
		}
		require.Equal(t, []string{"-1", "-2", "-3"}, billnos, "the range has its start and not its end")

		for d, err := range store.Payments(t.Context(), midassql.Query{From: noon, To: noon.Add(time.Hour)}) {
			require.NoError(t, err)
			require.Equal(t, midassql.Payment{Delivery: midas.Delivery{OpenID: "player", BillNo: "-0", Token: "token", ZoneID: "1",
				Items: []midas.Item{gem}, Charged: 1140, Time: time.Unix(1518081937, 0)}, State: midassql.StateDone, Stored: noon.Local(), DoneAt: noon.Local()}, d)
			break // a loop may stop early
		}
		for range 30 { // and gives its connection back: the pool has 20
			for range store.Payments(t.Context(), midassql.Query{From: noon, To: noon.Add(time.Hour)}) {
				break
			}
		}

		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		require.ErrorIs(t, failure(store.Payments(ctx, midassql.Query{From: noon, To: noon.Add(time.Hour)})), context.Canceled)
	})
}

func TestUnpaidOrdersAndPurge(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		const day = 24 * time.Hour
		now := time.Date(2024, 2, 8, 12, 0, 0, 0, time.UTC)
		c := &clock{}
		store := db.store(t, midassql.Options{Now: c.now})
		for _, age := range []int{30, 10, 8, 6, 1} {
			c.set(now.Add(-time.Duration(age) * day))
			for _, kind := range []string{"paid", "unpaid"} {
				token := fmt.Sprint(kind, age)
				ordered(t, store, "player", token)
				if kind == "paid" {
					require.NoError(t, store.Once(db.grant)(t.Context(), paid("player", token, "-"+token)))
				}
			}
		}
		c.set(now)

		unpaid := func(age time.Duration) (tokens []string) {
			for o, err := range store.UnpaidOrders(t.Context(), time.Unix(0, 0), now.Add(-age).Add(time.Second)) {
				require.NoError(t, err)
				require.Equal(t, []midas.Item{gem}, o.Items)
				require.Equal(t, "1", o.ZoneID, "as it is sent where the game has no zones")
				tokens = append(tokens, o.Token)
			}
			return tokens
		}
		require.Equal(t, []string{"unpaid30", "unpaid10", "unpaid8", "unpaid6", "unpaid1"}, unpaid(0), "oldest first")
		require.Equal(t, []string{"unpaid30", "unpaid10"}, unpaid(10*day))

		_, err := store.Purge(t.Context(), 7*day-time.Second)
		require.ErrorContains(t, err, "Purge")
		require.Len(t, unpaid(0), 5, "nothing was purged")
		purged, err := store.Purge(t.Context(), 9*day)
		require.NoError(t, err)
		require.EqualValues(t, 4, purged, "paid or not")
		require.Equal(t, []string{"unpaid8", "unpaid6", "unpaid1"}, unpaid(0))
		require.Equal(t, 6, db.count(t, "SELECT COUNT(*) FROM orders"))
		require.Equal(t, 5, db.count(t, "SELECT COUNT(*) FROM deliveries"))

		// A payment of a purged order is repeated OK, and an unknown token may be one of the
		// purged.
		deliver := store.Once(db.grant)
		require.NoError(t, deliver(t.Context(), paid("player", "paid30", "-paid30")))
		require.Equal(t, 5, db.count(t, "SELECT COUNT(*) FROM items"))
		err = deliver(t.Context(), paid("player", "unpaid30", "-late"))
		require.ErrorIs(t, err, midassql.ErrNoOrder)
		require.ErrorContains(t, err, "purged")
		require.Equal(t, 1, midas.ReplyTo(err).Ret(), "never ret 3: the player has paid")
		purged, err = store.Purge(t.Context(), 9*day)
		require.NoError(t, err)
		require.Zero(t, purged)
	})
}

// manyUnpaid stores n orders of 2024 that nobody paid, all of one second.
func (db *database) manyUnpaid(t *testing.T, n int) {
	t.Helper()
	tx, err := db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	defer tx.Rollback()
	for i := range n {
		_, err := tx.ExecContext(t.Context(), db.sql("INSERT INTO orders (token, openid, zone, items, metadata, max_quantity, saved_at) VALUES (?, 'player', '1', '[]', '', 0, 1707393600)"),
			fmt.Sprint("many", i))
		require.NoError(t, err)
	}
	require.NoError(t, tx.Commit())
}

func TestPurgeOfMoreThanABatch(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		store := db.store(t, midassql.Options{})
		db.manyUnpaid(t, 1234)
		ordered(t, store, "player", "new")
		purged, err := store.Purge(t.Context(), 7*24*time.Hour)
		require.NoError(t, err)
		require.EqualValues(t, 1234, purged)
		require.Equal(t, 1, db.count(t, "SELECT COUNT(*) FROM orders"), "the new one is kept")
	})
}

func TestPurgeStopsBetweenBatches(t *testing.T) {
	t.Parallel()
	db, line := lossy(t)
	store := db.store(t, midassql.Options{})
	db.manyUnpaid(t, 1234)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	deletes := 0
	line.exec = func(statement string) error {
		if !strings.HasPrefix(statement, "DELETE") {
			return nil
		}
		if deletes++; deletes == 2 {
			cancel()
			return ctx.Err()
		}
		return nil
	}
	purged, err := store.Purge(ctx, 7*24*time.Hour)
	require.ErrorIs(t, err, context.Canceled)
	require.EqualValues(t, 500, purged, "what was purged is told")
	require.Equal(t, 734, db.count(t, "SELECT COUNT(*) FROM orders"))

	line.exec = nil
	purged, err = store.Purge(t.Context(), 7*24*time.Hour)
	require.NoError(t, err)
	require.EqualValues(t, 734, purged, "the next one goes on where it stopped")
}

// A batch whose commit was refused is run again, and not passed over.
func TestPurgeRunsARefusedBatchAgain(t *testing.T) {
	t.Parallel()
	db, line := lossy(t)
	store := db.store(t, midassql.Options{Classify: classifySerialisation})
	tx, err := db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	for i := range 700 { // each in a second of its own
		_, err := tx.Exec(db.sql("INSERT INTO orders (token, openid, zone, items, metadata, max_quantity, saved_at) VALUES (?, 'player', '1', 'gem*1*1', '', 0, ?)"), fmt.Sprint("token", i), 1704067200+i)
		require.NoError(t, err)
	}
	require.NoError(t, tx.Commit())
	refused := false
	line.commit = func(tx driver.Tx) error {
		if !refused && strings.HasPrefix(line.statements[len(line.statements)-1], "DELETE") {
			refused = true
			return errors.Join(tx.Rollback(), serialisation{})
		}
		return tx.Commit()
	}
	purged, err := store.Purge(t.Context(), 7*24*time.Hour)
	require.NoError(t, err)
	require.True(t, refused)
	require.EqualValues(t, 700, purged)
}

// On a sharded database a commit can succeed in part: an order that is gone is marked before, or its payment
// would be refused for good.
func TestPurgeMarksBeforeItDeletes(t *testing.T) {
	t.Parallel()
	db, line := lossy(t)
	store := db.store(t, midassql.Options{})
	deliver := store.Once(db.grant)
	require.ErrorIs(t, deliver(t.Context(), paid("player", "unknown", "-1")), midas.ErrTokenNotFound)
	_, err := store.Purge(t.Context(), 7*24*time.Hour)
	require.NoError(t, err)
	require.ErrorIs(t, deliver(t.Context(), paid("player", "unknown", "-1")), midas.ErrTokenNotFound, "it had nothing to delete")

	db.must(t, "UPDATE meta SET value = 0 WHERE name = 'swept'") // else Purge would begin a day before
	db.manyUnpaid(t, 3)
	line.statements = nil
	_, err = store.Purge(t.Context(), 7*24*time.Hour)
	require.NoError(t, err)
	mark := slices.IndexFunc(line.statements, func(s string) bool { return strings.HasPrefix(s, "UPDATE "+db.prefix+"meta") })
	deletion := slices.IndexFunc(line.statements, func(s string) bool { return strings.HasPrefix(s, "DELETE FROM "+db.prefix+"orders") })
	require.NotEqual(t, -1, mark)
	require.Greater(t, deletion, mark)
	require.Contains(t, line.statements[mark:deletion], "BEGIN", "the mark is in a transaction of its own")
	require.ErrorIs(t, deliver(t.Context(), paid("player", "unknown", "-1")), midassql.ErrNoOrder)
}

// Two Purges at once: the one that is left with nothing to delete does not stop before the end.
func TestTwoPurgesAtOnce(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		store := db.store(t, midassql.Options{})
		db.manyUnpaid(t, 5000)
		var purges sync.WaitGroup
		var purged atomic.Int64
		for range 2 {
			purges.Go(func() {
				n, err := store.Purge(t.Context(), 7*24*time.Hour)
				assert.NoError(t, err)
				assert.Zero(t, db.count(t, "SELECT COUNT(*) FROM orders"), "it ended with orders left")
				purged.Add(n)
			})
		}
		purges.Wait()
		require.EqualValues(t, 5000, purged.Load())
	})
}

// What comes into the table late, or was saved while a clock was wrong, goes with the next Purge.
func TestPurgeFindsWhatCameLate(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		c := clockAt(time.Date(2024, 2, 8, 12, 0, 0, 0, time.UTC))
		store := db.store(t, midassql.Options{Now: c.now})
		purge := func() int64 {
			n, err := store.Purge(t.Context(), 7*24*time.Hour)
			require.NoError(t, err)
			return n
		}
		require.Zero(t, purge())
		c.add(-7*24*time.Hour - 12*time.Hour)
		ordered(t, store, "player", "late")
		c.add(7*24*time.Hour + 12*time.Hour)
		require.EqualValues(t, 1, purge())

		c.add(365 * 24 * time.Hour) // wrong by a year
		require.Zero(t, purge())
		c.add(-365 * 24 * time.Hour)
		ordered(t, store, "player", "token")
		c.add(7 * 24 * time.Hour)
		require.EqualValues(t, 1, purge())
	})
}

// Nor does a Purge that finds nothing make an unknown token doubtful.
func TestPurgeLeavesWhatWaits(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		c := clockAt(time.Date(2024, 2, 8, 12, 0, 0, 0, time.UTC))
		store := db.store(t, midassql.Options{Now: c.now})
		inbox := newInbox(t, store, midassql.InboxOptions{})
		db.stored(t, store, inbox, "player", "-1")
		purged, err := store.Purge(t.Context(), 7*24*time.Hour)
		require.NoError(t, err)
		require.Zero(t, purged)
		require.ErrorIs(t, inbox.Deliver(t.Context(), paid("player", "unknown", "-2")), midas.ErrTokenNotFound)

		c.add(365 * 24 * time.Hour)
		purged, err = store.Purge(t.Context(), 7*24*time.Hour)
		require.NoError(t, err)
		require.EqualValues(t, 1, purged)
		require.ErrorIs(t, inbox.Deliver(t.Context(), paid("player", "unknown", "-2")), midassql.ErrNoOrder)
		require.Equal(t, []string{"-1"}, waiting(t, inbox, "player"), "the payment waits on")
	})
}

// The key look-ups of a callback must not read the whole table.
func TestMySQLUsesItsKeys(t *testing.T) {
	t.Parallel()
	on(t, func(t *testing.T, db *database) {
		store := db.store(t, midassql.Options{})
		for i := range 50 {
			ordered(t, store, "player", fmt.Sprint("token", i))
		}
		plan := db.plan(t, recorded{query: "SELECT openid FROM " + db.prefix + "orders WHERE token = ?", args: []any{"token7"}})
		require.Len(t, plan, 1)
		require.Contains(t, plan[0], `"key": "PRIMARY"`)
	}, midassql.MySQL)
}
