package dbtest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midassql"
	"github.com/midas-go/midas/midassql/dbtest/testdb"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A grant that updates what another payment updates too: a balance, a balance that is read
// first, and a stock that runs out. MariaDB from 11.6.2 on refuses such updates with error 1020,
// as it does here where the option is on; PostgreSQL from repeatable read on.
func TestGrantsThatUpdateTheSameRow(t *testing.T) {
	t.Parallel()
	for _, engine := range []struct {
		name   string
		kind   testdb.Kind
		option string
	}{
		{"postgresql", postgreSQL, "default_transaction_isolation=read committed"},
		{"postgresql, repeatable read", postgreSQL, "default_transaction_isolation=repeatable read"},
		{"mariadb", mariaDB, "innodb_lock_wait_timeout=1"},
		{"mariadb, snapshot isolation", mariaDB, "innodb_snapshot_isolation=ON"},
		{"mysql", mySQL, "innodb_lock_wait_timeout=1"},
		{"mysql, read committed", mySQLReadCommitted, "innodb_lock_wait_timeout=1"},
		{"sqlite", sqlite, "_txlock=immediate"},
	} {
		t.Run(engine.name, func(t *testing.T) {
			const payments = 20
			db := openDatabase(t, engine.kind, engine.option)
			store := db.store(t, midassql.Options{})
			read := "SELECT quantity FROM items WHERE item = ?"
			if engine.kind.Dialect != midassql.SQLite {
				read += " FOR UPDATE"
			}
			soldOut := errors.New("sold out")
			grants := map[string]func(ctx context.Context, tx *sql.Tx) error{
				"balance": func(ctx context.Context, tx *sql.Tx) error {
					_, err := tx.ExecContext(ctx, db.sql("UPDATE items SET quantity = quantity + 1 WHERE item = 'balance'"))
					return err
				},
				"read": func(ctx context.Context, tx *sql.Tx) error {
					var n int
					if err := tx.QueryRowContext(ctx, db.sql(read), "read").Scan(&n); err != nil {
						return err
					}
					_, err := tx.ExecContext(ctx, db.sql("UPDATE items SET quantity = ? WHERE item = 'read'"), n+1)
					return err
				},
				"stock": func(ctx context.Context, tx *sql.Tx) error {
					result, err := tx.ExecContext(ctx, db.sql("UPDATE items SET quantity = quantity - 1 WHERE item = 'stock' AND quantity > 0"))
					if err != nil {
						return err
					}
					if n, err := result.RowsAffected(); err != nil || n == 0 {
						return errors.Join(err, soldOut)
					}
					return nil
				},
			}
			for name, grant := range grants {
				start := 0
				if name == "stock" {
					start = payments - 5
				}
				db.must(t, "INSERT INTO items (openid, billno, item, quantity) VALUES ('player', '', ?, ?)", name, start)
				deliver := store.Once(func(ctx context.Context, tx *sql.Tx, d *midas.Delivery) error { return grant(ctx, tx) })
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				for i := range payments {
					ordered(t, store, "player", fmt.Sprint(name, i))
				}
				refused := make(chan error, payments)
				var callers sync.WaitGroup
				for i := range payments {
					callers.Go(func() {
						token := fmt.Sprint(name, i)
						refused <- deliver(ctx, paid("player", token, "-"+token))
					})
				}
				callers.Wait()
				close(refused)
				n := 0
				for err := range refused {
					if err != nil {
						require.ErrorIs(t, err, soldOut)
						n++
					}
				}
				want := map[string][2]int{"balance": {payments, 0}, "read": {payments, 0}, "stock": {0, 5}}[name]
				require.Equal(t, want, [2]int{db.count(t, "SELECT quantity FROM items WHERE item = ?", name), n}, name)
			}
		})
	}
}

// A server or a DSN may have autocommit off: single statements must be committed too.
func TestWithoutAutocommit(t *testing.T) {
	t.Parallel()
	on(t, func(t *testing.T, outside *database) {
		db := openDatabase(t, outside.kind, "autocommit=0")
		db.Prefix = outside.prefix
		store := db.store(t, midassql.Options{})
		inbox := newInbox(t, store, midassql.InboxOptions{})
		ordered(t, store, "player", "token")
		require.Equal(t, 1, outside.count(t, "SELECT COUNT(*) FROM orders"))
		for range 3 {
			require.NoError(t, store.Once(db.grant)(t.Context(), paid("player", "token", "-1")))
		}
		require.Equal(t, 2, outside.count(t, "SELECT repeats FROM deliveries"))
		require.NoError(t, inbox.Deliver(t.Context(), paid("player", "token", "-2")))
		require.Equal(t, []string{"-2"}, waiting(t, inbox, "player"))
		require.NoError(t, inbox.Done(t.Context(), "player", "-2"))
		require.Zero(t, outside.count(t, "SELECT COUNT(*) FROM inbox"))
		for range 25 { // on whichever connection: none has an old view of the tables
			outside.must(t, "UPDATE deliveries SET note = CONCAT(note, 'x') WHERE billno = '-1'")
			want := outside.count(t, "SELECT LENGTH(note) FROM deliveries WHERE billno = '-1'")
			require.Len(t, onlyPayment(t, store, midassql.Query{OpenID: "player", BillNo: "-1"}).Note, want)
		}
		purged, err := store.Purge(t.Context(), 7*24*time.Hour)
		require.NoError(t, err)
		require.Zero(t, purged)
	}, midassql.MySQL)
}

// A repeat is the same openid, billno and token.
func TestOKIsNotAnsweredForAnotherPayment(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		store := db.store(t, midassql.Options{})
		deliver := store.Once(db.grant)
		ordered(t, store, "player", "token")
		ordered(t, store, "player", "token2")
		require.NoError(t, deliver(t.Context(), paid("player", "token", "-1")))
		err := deliver(t.Context(), paid("player", "token2", "-1"))
		require.ErrorContains(t, err, "token")
		require.Equal(t, 1, midas.ReplyTo(err).Ret())
		require.Equal(t, 1, db.count(t, "SELECT COUNT(*) FROM items"))
	})
	t.Run("tables made by hand that ignore case", func(t *testing.T) {
		on(t, func(t *testing.T, db *database) {
			store := db.store(t, midassql.Options{})
			db.must(t, "ALTER TABLE deliveries MODIFY openid VARCHAR(191) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci NOT NULL")
			ordered(t, store, "oAbC", "token")
			ordered(t, store, "oabc", "token2")
			require.NoError(t, store.Once(db.grant)(t.Context(), paid("oAbC", "token", "-1")))
			require.ErrorContains(t, store.Once(db.grant)(t.Context(), paid("oabc", "token2", "-1")), "collation")
		}, midassql.MySQL)
	})
}

// A grant that breaks its contract is noticed. No callback is answered OK for it, and none grants
// again, before somebody has looked.
func TestAGrantThatEndsItsTransaction(t *testing.T) {
	t.Parallel()
	gift := "INSERT INTO items (openid, billno, item, quantity) VALUES ('player', '-1', 'gem60', 2)"
	onEach(t, func(t *testing.T, db *database) {
		for _, test := range []struct {
			name, noted string
			grant       func(ctx context.Context, tx *sql.Tx) error
		}{
			{"rolled back, and went on", "the grant's transaction ended", func(ctx context.Context, tx *sql.Tx) error { // as after a deadlock whose error is ignored
				tx.ExecContext(ctx, "ROLLBACK")
				_, err := tx.ExecContext(ctx, db.sql(gift))
				return err
			}},
			{"rolled back, went on, and failed", "the bag is full", func(ctx context.Context, tx *sql.Tx) error {
				tx.ExecContext(ctx, "ROLLBACK")
				_, err := tx.ExecContext(ctx, db.sql(gift))
				assert.NoError(t, err)
				return errors.New("the bag is full")
			}},
			{"rolled back, went on, and refused", "token not found", func(ctx context.Context, tx *sql.Tx) error {
				tx.ExecContext(ctx, "ROLLBACK")
				_, err := tx.ExecContext(ctx, db.sql(gift))
				assert.NoError(t, err)
				return midas.ErrTokenNotFound // ret 3, which is final
			}},
			{"rolled back, went on, and met a duplicate", "the grant returned", func(ctx context.Context, tx *sql.Tx) error {
				tx.ExecContext(ctx, "ROLLBACK")
				_, err := tx.ExecContext(ctx, db.sql(gift))
				assert.NoError(t, err)
				_, err = tx.ExecContext(ctx, db.sql("INSERT INTO meta (name, value) VALUES ('schema', 2)"))
				assert.Error(t, err)
				return err
			}},
			{"rolled back, went on, and met no table", "nowhere", func(ctx context.Context, tx *sql.Tx) error {
				tx.ExecContext(ctx, "ROLLBACK")
				_, err := tx.ExecContext(ctx, db.sql(gift))
				assert.NoError(t, err)
				_, err = tx.ExecContext(ctx, "DELETE FROM nowhere")
				assert.Error(t, err)
				return err
			}},
			{"committed, and then refused", "token not found", func(ctx context.Context, tx *sql.Tx) error {
				tx.ExecContext(ctx, "COMMIT")
				return midas.ErrTokenNotFound
			}},
			{"committed, and then failed", "the bag is full", func(ctx context.Context, tx *sql.Tx) error { // as DDL does
				tx.ExecContext(ctx, "COMMIT")
				return errors.New("the bag is full")
			}},
			{"committed by the Tx, and then failed", "the bag is full", func(ctx context.Context, tx *sql.Tx) error {
				assert.NoError(t, tx.Commit())
				return errors.New("the bag is full")
			}},
		} {
			t.Run(test.name, func(t *testing.T) {
				store, logged := db.loggedStore(t)
				defer db.must(t, "DELETE FROM deliveries")
				defer db.must(t, "DELETE FROM orders")
				ordered(t, store, "player", "token")
				runs := 0
				deliver := store.Once(func(ctx context.Context, tx *sql.Tx, d *midas.Delivery) error {
					runs++
					return test.grant(ctx, tx)
				})
				for range 3 {
					err := deliver(t.Context(), paid("player", "token", "-1"))
					require.Equal(t, 1, midas.ReplyTo(err).Ret(), "%v", err)
					require.ErrorIs(t, err, midassql.ErrBroken)
				}
				require.Equal(t, 1, runs)
				require.Contains(t, logged.String(), "gem60*60*2")

				inbox := newInbox(t, store, midassql.InboxOptions{})
				require.ErrorIs(t, inbox.Done(t.Context(), "player", "-1"), midassql.ErrBroken)
				require.ErrorIs(t, inbox.Cancel(t.Context(), "player", "-1", "refunded"), midassql.ErrBroken)
				_, err := inbox.Settle(t.Context(), midassql.Settlement{Delivery: paid("player", "token", "-1"), By: "anna"})
				require.ErrorIs(t, err, midassql.ErrBroken)
				p := onlyPayment(t, store, midassql.Query{OpenID: "player"})
				require.Equal(t, midassql.StateBroken, p.State)
				require.Contains(t, p.Note, test.noted)
			})
		}
	})
}

// A database that rolls back by itself and says so has not been overtaken by anything: the next callback
// grants.
func TestADatabaseThatRollsBackBreaksNoPayment(t *testing.T) {
	t.Parallel()
	opaque := errors.New("what a driver says that nobody knows")
	insert := func(ctx context.Context, tx *sql.Tx, statement string, args ...any) error {
		if _, err := tx.ExecContext(ctx, statement, args...); err != nil {
			return fmt.Errorf("the grant: %w", err)
		}
		return nil
	}
	for _, test := range []struct {
		name     string
		dialects []midassql.Dialect
		grant    func(ctx context.Context, tx *sql.Tx, db *database) error
	}{
		{"the disk is full", []midassql.Dialect{midassql.SQLite}, func(ctx context.Context, tx *sql.Tx, db *database) error {
			var pages int
			if err := tx.QueryRowContext(ctx, "PRAGMA page_count").Scan(&pages); err != nil {
				return err
			}
			if err := insert(ctx, tx, fmt.Sprintf("PRAGMA max_page_count = %d", pages+2)); err != nil {
				return err
			}
			return insert(ctx, tx, db.sql("INSERT INTO items (openid, billno, item, quantity) VALUES (?, '', '', 0)"), strings.Repeat("x", 100_000))
		}},
		{"the grant's own time limit", []midassql.Dialect{midassql.SQLite}, func(ctx context.Context, tx *sql.Tx, db *database) error {
			ctx, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
			defer cancel()
			return insert(ctx, tx, db.sql("INSERT INTO items (openid, billno, item, quantity) "+
				"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT 'player', '', '', COUNT(*) FROM n"))
		}},
		{"Options.Classify says Again", []midassql.Dialect{midassql.SQLite, midassql.MySQL}, func(ctx context.Context, tx *sql.Tx, _ *database) error {
			tx.ExecContext(ctx, "ROLLBACK")
			return opaque
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			on(t, func(t *testing.T, db *database) {
				store := db.store(t, midassql.Options{Classify: func(err error) midassql.Class {
					if errors.Is(err, opaque) {
						return midassql.ClassAgain
					}
					return db.dialect.Classify(err)
				}})
				ordered(t, store, "player", "token")
				runs := 0
				deliver := store.Once(func(ctx context.Context, tx *sql.Tx, d *midas.Delivery) error {
					if runs++; runs == 1 {
						err := test.grant(ctx, tx, db)
						assert.Error(t, err)
						return err
					}
					if db.dialect == midassql.SQLite {
						assert.NoError(t, insert(ctx, tx, "PRAGMA max_page_count = 1000000"))
					}
					return db.grant(ctx, tx, d)
				})
				err := deliver(t.Context(), paid("player", "token", "-1"))
				require.NotErrorIs(t, err, midassql.ErrBroken)
				require.NoError(t, deliver(t.Context(), paid("player", "token", "-1")))
				require.Equal(t, 2, runs)
				require.Equal(t, 1, db.count(t, "SELECT COUNT(*) FROM items"))
			}, test.dialects...)
		})
	}
}
