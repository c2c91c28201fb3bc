package dbtest

import (
	"context"
	"database/sql"
	"fmt"
	"os"
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

// release01 makes the tables that release 0.1 made, with its schema files, and rows as it wrote them.
func (db *database) release01(t *testing.T, rows int) {
	t.Helper()
	content, err := os.ReadFile("testdata/schema-0.1/" + string(db.dialect) + ".sql")
	require.NoError(t, err)
	for statement := range strings.SplitSeq(strings.ReplaceAll(string(content), "midas_", db.prefix), ";\n") {
		if strings.TrimSpace(statement) != "" {
			_, err := db.Exec(statement)
			require.NoError(t, err)
		}
	}
	tx, err := db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	defer tx.Rollback()
	for i := range rows {
		_, err := tx.Exec(db.sql(`INSERT INTO orders (token, openid, zone, items, metadata, max_quantity, saved_at) VALUES (?, 'player', '1', ?, '', 0, 1707393600)`),
			fmt.Sprint("old", i), jsonOfGem)
		require.NoError(t, err)
		if i%2 == 0 {
			require.NoError(t, db.deliver01(t.Context(), tx, fmt.Sprint("old", i)))
		}
	}
	require.NoError(t, tx.Commit())
}

const jsonOfGem = `[{"ID":"gem60","Price":600,"Quantity":2}]`

// deliver01 is the INSERT of release 0.1.
func (db *database) deliver01(ctx context.Context, tx *sql.Tx, token string) error {
	insert, end := "INSERT", " ON CONFLICT (openid, billno) DO NOTHING"
	if db.dialect == midassql.MySQL {
		insert, end = "INSERT IGNORE", ""
	}
	_, err := tx.ExecContext(ctx, db.sql(insert+` INTO deliveries (openid, billno, token, zone, items, charged, called_at, granted_at) VALUES ('player', ?, ?, '1', ?, 1200, 1518081937, 1707393600)`+end),
		"-"+token, token, jsonOfGem)
	return err
}

// The tables of release 0.1 are changed while servers of 0.1 go on writing.
func TestMigrateFromRelease01(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		const rows = 2000
		db.release01(t, rows)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var migrated atomic.Bool
		var during atomic.Int64
		var old, processes sync.WaitGroup
		old.Go(func() {
			for n := 0; !migrated.Load() || n < 50; n++ {
				err := func() error {
					tx, err := db.BeginTx(ctx, nil)
					if err != nil {
						return err
					}
					defer tx.Rollback()
					if err := db.deliver01(ctx, tx, fmt.Sprint("during", n)); err != nil {
						return err
					}
					return tx.Commit()
				}()
				if err == nil {
					during.Add(1)
				} else if db.dialect.Classify(err) != midassql.Again { // answered ret 1
					assert.NoError(t, err)
					return
				}
			}
		})
		for range 4 {
			store, err := midassql.New(db.open(), db.dialect, midassql.Options{TablePrefix: db.prefix})
			require.NoError(t, err)
			processes.Go(func() { assert.NoError(t, store.Migrate(ctx)) })
		}
		processes.Wait()
		migrated.Store(true)
		old.Wait()

		store := db.store(t, midassql.Options{})
		n := 0
		for p, err := range store.Payments(ctx, midassql.Query{OpenID: "player"}) {
			require.NoError(t, err)
			require.Equal(t, midassql.Done, p.State, p.BillNo)
			require.Equal(t, []midas.Item{gem}, p.Items)
			n++
		}
		require.EqualValues(t, rows/2+during.Load(), n)

		// What 0.1 granted is not granted again, nor handed out; what it stored can be paid.
		inbox := store.Inbox(midassql.InboxOptions{})
		for _, token := range []string{"old0", "during0"} {
			require.NoError(t, store.Once(db.grant)(ctx, paid("player", token, "-"+token)))
			require.NoError(t, inbox.Deliver(ctx, paid("player", token, "-"+token)))
		}
		require.Zero(t, db.count(t, "SELECT COUNT(*) FROM items"))
		require.Empty(t, waiting(t, inbox, "player"))
		require.NoError(t, store.Once(db.grant)(ctx, paid("player", "old1", "-old1")))
		require.Equal(t, 1, db.count(t, "SELECT COUNT(*) FROM items"))
		require.NoError(t, inbox.Deliver(ctx, paid("player", "old3", "-old3")))
		require.Equal(t, []string{"-old3"}, waiting(t, inbox, "player"))
		require.ErrorIs(t, store.Once(db.grant)(ctx, paid("player", "unknown", "-unknown")), midassql.ErrNoOrder, "0.1 may have purged its order")

		fresh := openDatabase(t, db.dialect)
		fresh.store(t, midassql.Options{})
		require.Equal(t, fresh.layout(t), db.layout(t), "as if the tables were new")
	})
}

// layout describes the tables, without their prefix and the order of columns.
func (db *database) layout(t *testing.T) (layout []string) {
	t.Helper()
	for _, table := range tables {
		query := map[midassql.Dialect]string{
			midassql.PostgreSQL: `SELECT column_name || ' ' || data_type || ' ' || is_nullable || ' ' || COALESCE(column_default, '') || COALESCE(collation_name, '')
				FROM information_schema.columns WHERE table_schema = current_schema() AND table_name = '%s'
				UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = current_schema() AND tablename = '%[1]s'`,
			midassql.MySQL: `SELECT CONCAT(column_name, ' ', column_type, ' ', is_nullable, ' ', COALESCE(column_default, 'none'))
				FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = '%s'
				UNION ALL SELECT CONCAT(index_name, ' ', seq_in_index, ' ', column_name) FROM information_schema.statistics
				WHERE table_schema = DATABASE() AND table_name = '%[1]s'`,
			midassql.SQLite: `SELECT name || ' ' || type || ' ' || "notnull" || ' ' || COALESCE(dflt_value, '') || ' ' || pk FROM pragma_table_info('%s')
				UNION ALL SELECT sql FROM sqlite_master WHERE type = 'index' AND tbl_name = '%[1]s' AND sql IS NOT NULL`,
		}[db.dialect]
		rows, err := db.Query(fmt.Sprintf(query, db.prefix+table))
		require.NoError(t, err)
		defer rows.Close()
		for rows.Next() {
			var line string
			require.NoError(t, rows.Scan(&line))
			layout = append(layout, table+": "+strings.ReplaceAll(line, db.prefix, ""))
		}
		require.NoError(t, rows.Err())
	}
	slices.Sort(layout)
	return layout
}

// A transaction that goes on for a long time keeps Migrate waiting, and nobody else: one that writes,
// or, on MySQL, one that has only read, like a dump.
func TestMigrateWaitsWithoutHoldingUpOthers(t *testing.T) {
	t.Parallel()
	on(t, func(t *testing.T, db *database) {
		db.release01(t, 10)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		long, err := db.BeginTx(ctx, nil)
		require.NoError(t, err)
		defer long.Rollback()
		if db.dialect == midassql.MySQL {
			require.NoError(t, long.QueryRowContext(ctx, db.sql("SELECT COUNT(*) FROM deliveries")).Scan(new(int)))
		} else {
			require.NoError(t, db.deliver01(ctx, long, "long"))
		}
		pool := db.open()
		store, err := midassql.New(pool, db.dialect, midassql.Options{TablePrefix: db.prefix})
		require.NoError(t, err)
		migrated := make(chan error, 1)
		go func() { migrated <- store.Migrate(ctx) }()
		for n, start := 0, time.Now(); time.Since(start) < 3*time.Second; n++ {
			// Migrate lets go after a second at most; the rest is for a slow disk.
			limited, cancel := context.WithTimeout(ctx, 10*time.Second)
			tx, err := db.BeginTx(limited, nil)
			require.NoError(t, err)
			require.NoError(t, db.deliver01(limited, tx, fmt.Sprint("short", n)))
			require.NoError(t, tx.Commit())
			cancel()
		}
		require.NoError(t, long.Commit())
		require.NoError(t, <-migrated)
		if db.dialect == midassql.MySQL {
			pool.SetMaxOpenConns(1) // which closes the idle ones but this
			var session, global int
			require.NoError(t, pool.QueryRowContext(ctx, "SELECT @@SESSION.lock_wait_timeout, @@GLOBAL.lock_wait_timeout").Scan(&session, &global))
			require.Equal(t, global, session)
		}
	}, midassql.PostgreSQL, midassql.MySQL)
}

// A first Migrate that was stopped halfway does not leave tables that pass for those of 0.1.
func TestMigrateIsStoppedHalfway(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		db.store(t, midassql.Options{})
		db.must(t, "DROP TABLE refunds")
		db.must(t, "DELETE FROM meta WHERE name = 'schema'")
		store := db.store(t, midassql.Options{})
		require.ErrorIs(t, store.Once(db.grant)(t.Context(), paid("player", "unknown", "-1")), midas.ErrTokenNotFound)
	})
}

func TestMigrateRefusesTablesOfANewerRelease(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		store := db.store(t, midassql.Options{})
		db.must(t, "UPDATE meta SET value = 99 WHERE name = 'schema'")
		require.ErrorContains(t, store.Migrate(t.Context()), "99")
	})
}
