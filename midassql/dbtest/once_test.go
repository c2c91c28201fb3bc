package dbtest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
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

func TestEachPaymentIsGrantedOnce(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		store := db.store(t, midassql.Options{})
		deliver := store.Once(db.grant)
		ordered(t, store, "player", "token")

		require.NoError(t, deliver(t.Context(), paid("player", "token", "-1")))
		require.Equal(t, 1, db.count(t, "SELECT COUNT(*) FROM items"))
		require.NoError(t, deliver(t.Context(), paid("player", "token", "-1")), "a repeat is answered OK")
		require.Equal(t, 1, db.count(t, "SELECT COUNT(*) FROM items"), "and grants nothing")
		require.NoError(t, deliver(t.Context(), paid("player", "token", "-1")))
		require.Equal(t, 2, db.count(t, "SELECT repeats FROM deliveries"), "but is counted")

		// Two billnos for one token are two payments.
		require.NoError(t, deliver(t.Context(), paid("player", "token", "-2")))
		require.Equal(t, 2, db.count(t, "SELECT COUNT(*) FROM items"))
		require.Equal(t, 2, db.count(t, "SELECT COUNT(*) FROM deliveries WHERE token = ?", "token"))
	})
}

func TestPaymentsThatDifferFromTheOrderAreRefused(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		store := db.store(t, midassql.Options{})
		deliver := store.Once(db.grant)
		sword := midas.Item{ID: "sword", Price: 1, Quantity: 1}
		ordered(t, store, "player", "fixed")
		ordered(t, store, "player", "changeable", func(r *midas.OrderRequest) { r.MaxQuantity = 10 })
		ordered(t, store, "player", "two", func(r *midas.OrderRequest) { r.Items = []midas.Item{gem, sword} })

		items := func(items ...midas.Item) func(*midas.Delivery) {
			return func(d *midas.Delivery) { d.Items = items }
		}
		n := 0
		for _, test := range []struct {
			name   string
			token  string
			change func(*midas.Delivery)
			param  string // refused for; "": granted
		}{
			{"another player", "fixed", func(d *midas.Delivery) { d.OpenID = "thief" }, "openid"},
			{"the player in another case", "fixed", func(d *midas.Delivery) { d.OpenID = "Player" }, "openid"},
			{"another item", "fixed", items(midas.Item{ID: "gem600", Price: gem.Price, Quantity: 2}), "payitem"},
			{"another price", "fixed", items(midas.Item{ID: gem.ID, Price: gem.Price - 1, Quantity: 2}), "payitem"},
			{"another quantity", "fixed", items(midas.Item{ID: gem.ID, Price: gem.Price, Quantity: 3}), "payitem"},
			{"an item more", "fixed", items(gem, sword), "payitem"},
			{"an item less", "two", items(gem), "payitem"},
			{"more than allowed", "changeable", items(midas.Item{ID: gem.ID, Price: gem.Price, Quantity: 11}), "payitem"},
			{"as many as allowed", "changeable", items(midas.Item{ID: gem.ID, Price: gem.Price, Quantity: 10}), ""},
			{"a discount", "fixed", func(d *midas.Delivery) { d.Charged = 1 }, ""},
			{"both items", "two", items(gem, sword), ""},
			{"both items in another sequence", "two", items(sword, gem), ""},
		} {
			t.Run(test.name, func(t *testing.T) {
				n++
				d := paid("player", test.token, fmt.Sprint("-", n), test.change)
				err := deliver(t.Context(), d)
				granted := db.count(t, "SELECT COUNT(*) FROM items WHERE billno = ?", d.BillNo)
				remembered := db.count(t, "SELECT COUNT(*) FROM deliveries WHERE billno = ?", d.BillNo)
				if test.param == "" {
					require.NoError(t, err)
					require.Equal(t, len(d.Items), granted)
					return
				}
				var param *midas.ParamError
				require.ErrorAs(t, err, &param)
				require.Equal(t, test.param, param.Param)
				require.JSONEq(t, `{"ret":4,"msg":"bad_parameter:`+test.param+`"}`, string(midas.ReplyTo(err).Bytes()))
				require.Zero(t, granted)
				require.Zero(t, remembered, "a refusal rolls back")
			})
		}
	})
}

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

// The default collation of MySQL and MariaDB takes these for one another: one player
// would pay and another one have it.
func TestKeysAreComparedByBytes(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		store := db.store(t, midassql.Options{})
		deliver := store.Once(db.grant)
		players := []string{"oAbC", "oabc", "OABC", "oabc ", "oäbc", "oabc\t"}
		for _, player := range players {
			ordered(t, store, player, "token of "+player)
		}
		billnos := []string{"-app-1", "-APP-1", "-app-1 "}
		for _, player := range players {
			for _, billno := range billnos {
				require.NoError(t, deliver(t.Context(), paid(player, "token of "+player, billno)))
			}
		}
		require.Equal(t, len(players)*len(billnos), db.count(t, "SELECT COUNT(*) FROM items"))
		for _, player := range players {
			require.Equal(t, len(billnos), db.count(t, "SELECT COUNT(*) FROM items WHERE openid = ?", player), "%q", player)
		}
	})
}

// 64 characters of a billno take up to 256 bytes; what the column cannot hold is
// refused, never cut: cut, two payments would become one.
func TestLongKeysAreRefusedNotCut(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		store := db.store(t, midassql.Options{})
		deliver := store.Once(db.grant)
		long := strings.Repeat("b", 255)
		ordered(t, store, long, long)
		require.NoError(t, deliver(t.Context(), paid(long, long, long)), "255 bytes fit")
		require.Equal(t, 1, db.count(t, "SELECT COUNT(*) FROM items WHERE billno = ?", long))

		err := deliver(t.Context(), paid(long, long, long+"1"))
		var param *midas.ParamError
		require.ErrorAs(t, err, &param)
		require.Equal(t, "billno", param.Param)
		require.Equal(t, 1, db.count(t, "SELECT COUNT(*) FROM deliveries"))
	})
}

func TestOneOfManyConcurrentCallersGrants(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		const payments, callers = 20, 8
		store := db.store(t, midassql.Options{})
		other, err := midassql.New(db.open(), db.dialect, midassql.Options{TablePrefix: db.prefix})
		require.NoError(t, err)
		for i := range payments {
			ordered(t, store, "player", fmt.Sprint("token", i))
		}
		stores := []*midassql.Store{store, other} // as two machines
		var callersDone sync.WaitGroup
		for i := range payments {
			for caller := range callers {
				deliver := stores[caller%2].Once(db.grant)
				d := paid("player", fmt.Sprint("token", i), fmt.Sprint("-", i))
				callersDone.Go(func() { assert.NoError(t, untilDelivered(t.Context(), deliver, d)) })
			}
		}
		callersDone.Wait()
		require.Equal(t, payments, db.count(t, "SELECT COUNT(*) FROM deliveries"))
		require.Equal(t, payments, db.count(t, "SELECT COUNT(*) FROM items"))
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

func TestWhateverFailsInTheGrantRollsBack(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		store := db.store(t, midassql.Options{})
		ordered(t, store, "player", "token")
		full := errors.New("the bag is full")

		for _, test := range []struct {
			name  string
			grant func(ctx context.Context, cancel context.CancelFunc, tx *sql.Tx) error
			check func(t *testing.T, err error)
		}{
			{"an error", func(context.Context, context.CancelFunc, *sql.Tx) error { return full },
				func(t *testing.T, err error) { require.ErrorIs(t, err, full) }},
			{"ret 2", func(context.Context, context.CancelFunc, *sql.Tx) error { return midas.ErrTokenExpired },
				func(t *testing.T, err error) { require.Equal(t, 2, midas.ReplyTo(err).Ret()) }},
			{"the end of the context", func(ctx context.Context, cancel context.CancelFunc, _ *sql.Tx) error {
				cancel()
				return nil // and does not care
			}, func(t *testing.T, err error) { require.Equal(t, 1, midas.ReplyTo(err).Ret()) }},
			{"a rollback of its own", func(_ context.Context, _ context.CancelFunc, tx *sql.Tx) error { return tx.Rollback() },
				func(t *testing.T, err error) { require.Equal(t, 1, midas.ReplyTo(err).Ret()) }},
		} {
			t.Run(test.name, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				err := store.Once(func(ctx context.Context, tx *sql.Tx, d *midas.Delivery) error {
					if err := db.grant(ctx, tx, d); err != nil {
						return err
					}
					return test.grant(ctx, cancel, tx)
				})(ctx, paid("player", "token", "-1"))
				require.Error(t, err)
				test.check(t, err)
				require.Zero(t, db.count(t, "SELECT COUNT(*) FROM items"))
				require.Zero(t, db.count(t, "SELECT COUNT(*) FROM deliveries"))
			})
		}

		t.Run("a panic", func(t *testing.T) {
			require.PanicsWithValue(t, "oops", func() {
				store.Once(func(ctx context.Context, tx *sql.Tx, d *midas.Delivery) error {
					if err := db.grant(ctx, tx, d); err != nil {
						return err
					}
					panic("oops")
				})(t.Context(), paid("player", "token", "-1"))
			})
			require.Zero(t, db.count(t, "SELECT COUNT(*) FROM items"))
		})

		// None of it has spoilt the payment.
		require.NoError(t, store.Once(db.grant)(t.Context(), paid("player", "token", "-1")))
		require.Equal(t, 1, db.count(t, "SELECT COUNT(*) FROM items"))
	})
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
			db := openDatabase(t, midassql.PostgreSQL, "default_transaction_isolation="+level)
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
	db := openDatabase(t, midassql.SQLite)
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
	db := openDatabase(t, midassql.SQLite, "_txlock=deferred")
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
		db := openDatabase(t, midassql.PostgreSQL)
		store := db.store(t, midassql.Options{})
		ordered(t, store, "player", "token")
		child := db.prefix + "deliveries_2024"
		db.must(t, "CREATE TABLE "+child+" () INHERITS ("+db.prefix+"deliveries)")
		t.Cleanup(func() { db.Exec("DROP TABLE " + db.prefix + "deliveries CASCADE") })
		trigger(t, db, "INSERT INTO "+child+" SELECT NEW.*;")
		refused(t, db, store)
	})
}
