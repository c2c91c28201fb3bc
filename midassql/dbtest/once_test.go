package dbtest

import (
	"context"
	"database/sql"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midassql"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestUnknownTokens(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		store := db.store(t, midassql.Options{})
		ordered(t, store, "player", "token")
		err := store.Once(db.grant)(t.Context(), paid("player", "TOKEN", "-1")) // tokens are bytes too
		require.ErrorIs(t, err, midas.ErrTokenNotFound)
		require.Zero(t, db.count(t, "SELECT COUNT(*) FROM deliveries"))

		// While a callback is young, the database's node may only be behind.
		called := paid("player", "not there yet", "-2")
		at := func(age time.Duration) midas.DeliverFunc {
			now := func() time.Time { return called.Time.Add(age) }
			return db.store(t, midassql.Options{Now: now}).Once(db.grant)
		}
		for _, age := range []time.Duration{-time.Hour, 0, 10*time.Second - 1} {
			err := at(age)(t.Context(), called)
			require.ErrorIs(t, err, midassql.ErrNoOrder)
			require.Equal(t, 1, midas.ReplyTo(err).Ret())
		}
		err = at(10*time.Second)(t.Context(), called)
		require.ErrorIs(t, err, midas.ErrTokenNotFound)
		require.Equal(t, 3, midas.ReplyTo(err).Ret())
		require.Zero(t, db.count(t, "SELECT COUNT(*) FROM deliveries"))
		ordered(t, store, "player", "not there yet")
		require.NoError(t, at(time.Second)(t.Context(), called))
		db.must(t, "DELETE FROM items")

		// The app placed the order itself: only where an option says so.
		deliver := db.store(t, midassql.Options{AcceptAppOrders: true}).Once(db.grant)
		require.NoError(t, deliver(t.Context(), paid("player", "the app's", "-1")))
		require.NoError(t, deliver(t.Context(), paid("player", "the app's", "-1")))
		require.Equal(t, 1, db.count(t, "SELECT COUNT(*) FROM items"))
		err = deliver(t.Context(), paid("thief", "token", "-2"))
		var param *midas.ParamError
		require.ErrorAs(t, err, &param, "an order that is stored is compared all the same")
	})
}

// untilDelivered calls back as Midas may: again after each ret 1.
func untilDelivered(ctx context.Context, deliver midas.DeliverFunc, d *midas.Delivery) (err error) {
	for range 50 {
		limited, cancel := context.WithTimeout(ctx, 1500*time.Millisecond)
		err = deliver(limited, d)
		cancel()
		if midas.ReplyTo(err).Ret() != 1 {
			return err
		}
	}
	return fmt.Errorf("not delivered after 50 calls: %w", err)
}

// A statement that failed has ended the transaction on PostgreSQL, whatever the grant makes
// of it.
func TestAGrantThatHidesAFailureIsNotCommitted(t *testing.T) {
	t.Parallel()
	on(t, func(t *testing.T, db *database) {
		store := db.store(t, midassql.Options{})
		ordered(t, store, "player", "token")
		err := store.Once(func(ctx context.Context, tx *sql.Tx, d *midas.Delivery) error {
			tx.ExecContext(ctx, "INSERT INTO no_such_table VALUES (1)")
			return nil
		})(t.Context(), paid("player", "token", "-1"))
		require.Equal(t, 1, midas.ReplyTo(err).Ret())
		require.Zero(t, db.count(t, "SELECT COUNT(*) FROM deliveries"))
	}, midassql.PostgreSQL)
}

// Two grants that take the same two locks in opposite order: the database ends one, which
// is tried again.
func TestDeadlocksAreTriedAgain(t *testing.T) {
	t.Parallel()
	on(t, func(t *testing.T, db *database) {
		store := db.store(t, midassql.Options{})
		ordered(t, store, "player", "a")
		ordered(t, store, "player", "b")
		db.must(t, "INSERT INTO items (openid, billno, item, quantity) VALUES ('x', '', 'a', 0)")
		db.must(t, "INSERT INTO items (openid, billno, item, quantity) VALUES ('x', '', 'b', 0)")
		db.must(t, "CREATE INDEX "+db.prefix+"lock ON items (item)")

		bothHoldOne := make(chan struct{})
		var tries, holding atomic.Int32
		swap := map[string]string{"a": "b", "b": "a"}
		deliver := store.Once(func(ctx context.Context, tx *sql.Tx, d *midas.Delivery) error {
			tries.Add(1)
			lock := func(item string) error {
				_, err := tx.ExecContext(ctx, db.sql("UPDATE items SET quantity = quantity + 1 WHERE item = ?"), item)
				return err
			}
			if err := lock(d.Token); err != nil {
				return err
			}
			if holding.Add(1) == 2 {
				close(bothHoldOne)
			}
			select {
			case <-bothHoldOne:
			case <-ctx.Done():
				return ctx.Err()
			}
			return lock(swap[d.Token])
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var both sync.WaitGroup
		for token := range swap {
			both.Go(func() { assert.NoError(t, deliver(ctx, paid("player", token, "-"+token))) })
		}
		both.Wait()
		require.Greater(t, tries.Load(), int32(2), "there was no deadlock")
		require.Equal(t, 4, db.count(t, "SELECT SUM(quantity) FROM items"), "each grant counts once")
	}, midassql.PostgreSQL, midassql.MySQL)
}

// At the strictest isolation the database refuses more, and the grant is tried again.
func TestSerialisationFailuresAreTriedAgain(t *testing.T) {
	t.Parallel()
	for _, level := range []string{"repeatable read", "serializable"} {
		t.Run(level, func(t *testing.T) {
			db := openDatabase(t, postgreSQL, "default_transaction_isolation="+level)
			const payments = 12
			store := db.store(t, midassql.Options{})
			db.must(t, "INSERT INTO items (openid, billno, item, quantity) VALUES ('player', '', 'purse', 0)")
			twoHaveRead := make(chan struct{})
			var tries, reading atomic.Int32
			deliver := store.Once(func(ctx context.Context, tx *sql.Tx, d *midas.Delivery) error {
				tries.Add(1)
				var purse int
				if err := tx.QueryRowContext(ctx, db.sql("SELECT quantity FROM items WHERE item = 'purse'")).Scan(&purse); err != nil {
					return err
				}
				if reading.Add(1) == 2 {
					close(twoHaveRead)
				}
				select {
				case <-twoHaveRead:
				case <-ctx.Done():
					return ctx.Err()
				}
				_, err := tx.ExecContext(ctx, db.sql("UPDATE items SET quantity = ? WHERE item = 'purse'"), purse+1)
				return err
			})
			for i := range payments {
				ordered(t, store, "player", fmt.Sprint("token", i))
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			var callers sync.WaitGroup
			for i := range payments {
				for range 3 { // each payment is called back three times at once
					callers.Go(func() {
						assert.NoError(t, deliver(ctx, paid("player", fmt.Sprint("token", i), fmt.Sprint("-", i))))
					})
				}
			}
			callers.Wait()
			require.Equal(t, payments, db.count(t, "SELECT quantity FROM items WHERE item = 'purse'"))
			require.Greater(t, tries.Load(), int32(payments), "nothing collided")
		})
	}
}

// SQLite has one writer. Whoever does not get the lock in time is tried again until the
// time limit, and then leaves nothing behind.
func TestSQLiteWaitsForTheLock(t *testing.T) {
	t.Parallel()
	db := openDatabase(t, sqlite)
	store := db.store(t, midassql.Options{})
	ordered(t, store, "player", "token")

	writer, err := db.open().BeginTx(t.Context(), nil) // takes the lock (_txlock=immediate)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 1200*time.Millisecond)
	defer cancel()
	start := time.Now()
	require.ErrorIs(t, store.Once(db.grant)(ctx, paid("player", "token", "-1")), context.DeadlineExceeded)
	require.Less(t, time.Since(start), 1800*time.Millisecond, "Midas waits 2 s")
	require.NoError(t, writer.Rollback())

	require.NoError(t, store.Once(db.grant)(t.Context(), paid("player", "token", "-1")))
	require.Equal(t, 1, db.count(t, "SELECT COUNT(*) FROM items"))
}

// Without _txlock=immediate a transaction of SQLite begins as a reader. One that had read
// before it wrote would fail as soon as somebody else wrote in between.
func TestSQLiteWithDeferredTransactions(t *testing.T) {
	t.Parallel()
	db := openDatabase(t, sqlite, "_txlock=deferred")
	store := db.store(t, midassql.Options{})
	const payments = 30
	var callers sync.WaitGroup
	for i := range payments {
		ordered(t, store, "player", fmt.Sprint("token", i))
	}
	for i := range payments {
		callers.Go(func() {
			d := paid("player", fmt.Sprint("token", i), fmt.Sprint("-", i))
			assert.NoError(t, untilDelivered(t.Context(), store.Once(db.grant), d))
		})
	}
	callers.Wait()
	require.Equal(t, payments, db.count(t, "SELECT COUNT(*) FROM items"))
}

// "Nothing inserted" is taken for "granted before" only if a committed row is there.
func TestAnInsertThatTheDatabaseIgnoresIsAnError(t *testing.T) {
	t.Parallel()
	refused := func(t *testing.T, db *database, store *midassql.Store) {
		t.Helper()
		err := store.Once(db.grant)(t.Context(), paid("player", "token", "-1"))
		require.ErrorContains(t, err, "ignored the insert")
		require.Equal(t, 1, midas.ReplyTo(err).Ret())
		require.Zero(t, db.count(t, "SELECT COUNT(*) FROM items"))
	}
	trigger := func(t *testing.T, db *database, body string) {
		t.Helper()
		function := db.prefix + "trigger"
		db.must(t, "CREATE FUNCTION "+function+"() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "+body+" RETURN NULL; END $$")
		t.Cleanup(func() { db.Exec("DROP FUNCTION " + function + " CASCADE") })
		db.must(t, "CREATE TRIGGER t BEFORE INSERT ON deliveries FOR EACH ROW EXECUTE FUNCTION "+function+"()")
	}
	onEach(t, func(t *testing.T, db *database) {
		store := db.store(t, midassql.Options{})
		ordered(t, store, "player", "token")
		switch db.dialect {
		case midassql.PostgreSQL:
			trigger(t, db, "")
		case midassql.MySQL: // INSERT IGNORE ignores a foreign key that is not met as well
			db.must(t, "ALTER TABLE deliveries ADD FOREIGN KEY (openid) REFERENCES "+db.prefix+"orders (token)")
			defer db.must(t, "DROP TABLE deliveries") // before orders
		case midassql.SQLite:
			db.must(t, "CREATE TRIGGER t BEFORE INSERT ON deliveries BEGIN SELECT RAISE(IGNORE); END")
		}
		refused(t, db, store)
	})
	t.Run("partitions by trigger", func(t *testing.T) { // the row is there, but only for the transaction itself
		db := openDatabase(t, postgreSQL)
		store := db.store(t, midassql.Options{})
		ordered(t, store, "player", "token")
		child := db.prefix + "deliveries_2024"
		db.must(t, "CREATE TABLE "+child+" () INHERITS ("+db.prefix+"deliveries)")
		t.Cleanup(func() { db.Exec("DROP TABLE " + db.prefix + "deliveries CASCADE") })
		trigger(t, db, "INSERT INTO "+child+" SELECT NEW.*;")
		refused(t, db, store)
	})
}
