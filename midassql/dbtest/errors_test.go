package dbtest

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/mattn/go-sqlite3"
	"github.com/midas-go/midas/midassql"
	"github.com/stretchr/testify/require"
)

// The drivers' own errors, which the root module cannot import.
func TestClassifyKnowsTheDrivers(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		dialect midassql.Dialect
		err     error
		want    midassql.Class
	}{
		{midassql.PostgreSQL, &pgconn.PgError{Code: "40001"}, midassql.Again},
		{midassql.PostgreSQL, &pgconn.PgError{Code: "40P01"}, midassql.Again},
		{midassql.PostgreSQL, &pgconn.PgError{Code: "23505"}, midassql.RolledBack},
		{midassql.PostgreSQL, &pgconn.PgError{Code: "57P01"}, midassql.Unknown},
		{midassql.MySQL, &mysql.MySQLError{Number: 1205}, midassql.Again},
		{midassql.MySQL, &mysql.MySQLError{Number: 1213}, midassql.Again},
		{midassql.MySQL, &mysql.MySQLError{Number: 1020}, midassql.Again},
		{midassql.MySQL, &mysql.MySQLError{Number: 1062}, midassql.RolledBack},
		{midassql.MySQL, mysql.ErrInvalidConn, midassql.Unknown}, // sent, and who knows what became of it
		{midassql.SQLite, sqlite3.Error{Code: sqlite3.ErrBusy}, midassql.Again},
		{midassql.SQLite, sqlite3.Error{Code: sqlite3.ErrLocked}, midassql.Again},
		{midassql.SQLite, sqlite3.Error{Code: sqlite3.ErrFull}, midassql.RolledBack},
		{midassql.SQLite, sqlite3.Error{Code: sqlite3.ErrIoErr}, midassql.Unknown},
	} {
		t.Run(fmt.Sprintf("%s %v", test.dialect, test.err), func(t *testing.T) {
			require.Equal(t, test.want, test.dialect.Classify(test.err))
			require.Equal(t, test.want, test.dialect.Classify(fmt.Errorf("grant: %w", test.err)))
		})
	}
}

// SQLite's errors as they come, from both drivers.
func TestClassifyABusySQLite(t *testing.T) {
	t.Parallel()
	for _, driverName := range []string{"sqlite", "sqlite3"} { // modernc, mattn
		t.Run(driverName, func(t *testing.T) {
			file := "file:" + filepath.Join(t.TempDir(), "game.db")
			first, err := sql.Open(driverName, file)
			require.NoError(t, err)
			defer first.Close()
			second, err := sql.Open(driverName, file+"?_busy_timeout=1") // mattn waits 5 s by default
			require.NoError(t, err)
			defer second.Close()
			conn, err := first.Conn(t.Context())
			require.NoError(t, err)
			defer conn.Close()
			_, err = conn.ExecContext(t.Context(), "BEGIN EXCLUSIVE")
			require.NoError(t, err)
			_, busy := second.Exec("CREATE TABLE x (y)")
			require.Error(t, busy)
			_, wrong := conn.ExecContext(t.Context(), "CREATE NONSENSE")
			require.Error(t, wrong)
			for err, want := range map[error]midassql.Class{busy: midassql.Again, fmt.Errorf("grant: %w", busy): midassql.Again,
				driver.ErrBadConn: midassql.Again, wrong: midassql.Unknown, context.Canceled: midassql.Unknown} {
				require.Equal(t, want, midassql.SQLite.Classify(err), "%v", err)
			}
		})
	}
}
