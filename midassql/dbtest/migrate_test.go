package dbtest

import (
	"context"
	"database/sql"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/midas-go/midas/midassql"
	"github.com/midas-go/midas/midassql/dbtest/testdb"
	"github.com/midas-go/midas/midassql/internal/migratetest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// next returns a release after this one, which adds a column, an index and a table.
func (db *database) next(t *testing.T) (files fs.FS, version int64) {
	t.Helper()
	today, err := os.ReadFile("../schema/" + string(db.dialect) + ".sql")
	require.NoError(t, err)
	version = int64(db.count(t, "SELECT value FROM meta WHERE name = 'schema'"))
	text := map[midassql.Dialect]string{midassql.PostgreSQL: "text", midassql.MySQL: "VARBINARY(255)", midassql.SQLite: "TEXT"}[db.dialect]
	column := "ALTER TABLE midas_deliveries ADD COLUMN colour " + text + " NOT NULL DEFAULT 'none';\n"
	index := "CREATE INDEX IF NOT EXISTS midas_deliveries_colour ON midas_deliveries (colour);\n"
	beside := index
	switch db.dialect {
	case midassql.PostgreSQL:
		beside = strings.Replace(index, "INDEX", "INDEX CONCURRENTLY", 1)
	case midassql.MySQL:
		beside = "ALTER TABLE midas_deliveries ADD INDEX midas_deliveries_colour (colour), ALGORITHM=INPLACE, LOCK=NONE;\n"
		index = beside
	}
	table := "CREATE TABLE IF NOT EXISTS midas_told (name " + text + " NOT NULL, PRIMARY KEY (name));\n"
	store := fmt.Sprintf("UPDATE midas_meta SET value = %d WHERE name = 'schema' AND value = %d;\n", version+1, version)
	return fstest.MapFS{
		fmt.Sprintf("schema/from-%d/%s.sql", version, db.dialect): {Data: []byte("-- The step.\n" + column + beside + table + store)},
		fmt.Sprintf("schema/%s.sql", db.dialect):                  {Data: []byte(string(today) + column + index + table + store)},
	}, version + 1
}

// migrateToNext is Migrate of a server of the next release.
func (db *database) migrateToNext(ctx context.Context, pool *sql.DB, files fs.FS, version int64) error {
	store, err := midassql.New(pool, db.dialect, midassql.Options{TablePrefix: db.prefix})
	if err != nil {
		return err
	}
	return migratetest.MigrateTo(ctx, store, files, version)
}

// The tables are changed by four processes at once, while servers of the earlier release go on.
func TestMigrateFromAnEarlierRelease(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		store := db.store(t, midassql.Options{AcceptAppOrders: true})
		deliver := store.Once(db.grant)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		require.NoError(t, deliver(ctx, paid("player", "token", "-before")))
		files, version := db.next(t)

		var migrated atomic.Bool
		var servers, processes sync.WaitGroup
		during := 0
		servers.Go(func() {
			for ; !migrated.Load() || during < 50; during++ {
				if !assert.NoError(t, deliver(ctx, paid("player", "token", fmt.Sprint("-", during)))) {
					return
				}
			}
		})
		for range 4 {
			pool := db.open()
			processes.Go(func() { assert.NoError(t, db.migrateToNext(ctx, pool, files, version)) })
		}
		processes.Wait()
		migrated.Store(true)
		servers.Wait()

		require.Equal(t, 1+during, db.count(t, "SELECT COUNT(*) FROM deliveries WHERE colour = 'none'"))
		require.NoError(t, deliver(ctx, paid("player", "token", "-before")), "granted before, so OK")
		require.Equal(t, 1+during, db.count(t, "SELECT COUNT(*) FROM items"), "and not granted again")
		require.ErrorContains(t, store.Migrate(ctx), "newer release")

		fresh := openDatabase(t, db.kind)
		require.NoError(t, fresh.migrateToNext(ctx, fresh.DB, files, version))
		require.Equal(t, fresh.layout(t), db.layout(t), "as if the tables were new")
		require.EqualValues(t, version, db.count(t, "SELECT value FROM meta WHERE name = 'schema'"))
	})
}

// layout describes the tables, without their prefix and the order of columns.
func (db *database) layout(t *testing.T) (layout []string) {
	t.Helper()
	for _, table := range testdb.Tables {
		if table == "items" { // the game's
			continue
		}
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
		deliver := db.store(t, midassql.Options{AcceptAppOrders: true}).Once(db.grant)
		files, version := db.next(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		long, err := db.BeginTx(ctx, nil)
		require.NoError(t, err)
		defer long.Rollback()
		if db.dialect == midassql.MySQL {
			require.NoError(t, long.QueryRowContext(ctx, db.sql("SELECT COUNT(*) FROM deliveries")).Scan(new(int)))
		} else {
			_, err := long.ExecContext(ctx, db.sql("UPDATE deliveries SET note = '' WHERE billno = '-none'"))
			require.NoError(t, err)
		}
		pool := db.open()
		migrated := make(chan error, 1)
		go func() { migrated <- db.migrateToNext(ctx, pool, files, version) }()
		for n, start := 0, time.Now(); time.Since(start) < 3*time.Second; n++ {
			// Migrate lets go after a second at most; the rest is for a slow disk.
			limited, cancel := context.WithTimeout(ctx, 10*time.Second)
			require.NoError(t, deliver(limited, paid("player", "token", fmt.Sprint("-", n))))
			cancel()
		}
		select {
		case err := <-migrated:
			t.Fatalf("it did not wait: %v", err)
		default:
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

// A first Migrate that was stopped halfway is not taken for one that was finished.
func TestMigrateIsStoppedHalfway(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		db.store(t, midassql.Options{})
		db.must(t, "DROP TABLE refunds")
		db.must(t, "DELETE FROM meta WHERE name = 'schema'")
		require.Zero(t, db.count(t, "SELECT COUNT(*) FROM meta WHERE name = 'schema'"))
		db.store(t, midassql.Options{})
		require.Zero(t, db.count(t, "SELECT COUNT(*) FROM refunds"))
		require.Equal(t, 1, db.count(t, "SELECT value FROM meta WHERE name = 'schema'"))
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
