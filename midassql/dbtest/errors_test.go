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
		{midassql.PostgreSQL, &pgconn.PgError{Code: "40001"}, midassql.ClassAgain},
		{midassql.PostgreSQL, &pgconn.PgError{Code: "40P01"}, midassql.ClassAgain},
		{midassql.PostgreSQL, &pgconn.PgError{Code: "23505"}, midassql.ClassRolledBack},
		{midassql.PostgreSQL, &pgconn.PgError{Code: "57P01"}, midassql.ClassUnknown},
		{midassql.MySQL, &mysql.MySQLError{Number: 1205}, midassql.ClassAgain},
		{midassql.MySQL, &mysql.MySQLError{Number: 1213}, midassql.ClassAgain},
		{midassql.MySQL, &mysql.MySQLError{Number: 1020}, midassql.ClassAgain},
		{midassql.MySQL, &mysql.MySQLError{Number: 1180, Message: "Got error 149 - 'Lock deadlock; Retry transaction' during COMMIT"}, midassql.ClassAgain},
		{midassql.MySQL, &mysql.MySQLError{Number: 1180, Message: "Got error 28 - 'No space left on device' during COMMIT"}, midassql.ClassUnknown},
		{midassql.MySQL, &mysql.MySQLError{Number: 1062}, midassql.ClassRolledBack},
		{midassql.MySQL, &mysql.MySQLError{Number: 1105, Message: "target: game.-80.primary: primary is not serving, there may be a reparent operation in progress"}, midassql.ClassAgain},
		{midassql.MySQL, &mysql.MySQLError{Number: 1105, Message: "target: game.-80.primary: vttablet: rpc error: code = FailedPrecondition desc = operation not allowed in state SHUTTING_DOWN"}, midassql.ClassAgain},
		{midassql.MySQL, &mysql.MySQLError{Number: 1105, Message: "table nowhere not found"}, midassql.ClassUnknown},
		{midassql.MySQL, &mysql.MySQLError{Number: 1203, Message: "target: game.-80.primary: transaction pool connection limit exceeded"}, midassql.ClassAgain},
		{midassql.MySQL, mysql.ErrInvalidConn, midassql.ClassUnknown}, // sent, and who knows what became of it
		{midassql.SQLite, sqlite3.Error{Code: sqlite3.ErrBusy}, midassql.ClassAgain},
		{midassql.SQLite, sqlite3.Error{Code: sqlite3.ErrLocked}, midassql.ClassAgain},
		{midassql.SQLite, sqlite3.Error{Code: sqlite3.ErrFull}, midassql.ClassRolledBack},
		{midassql.SQLite, sqlite3.Error{Code: sqlite3.ErrIoErr}, midassql.ClassUnknown},
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
			for err, want := range map[error]midassql.Class{busy: midassql.ClassAgain, fmt.Errorf("grant: %w", busy): midassql.ClassAgain,
				driver.ErrBadConn: midassql.ClassAgain, wrong: midassql.ClassUnknown, context.Canceled: midassql.ClassUnknown} {
				require.Equal(t, want, midassql.SQLite.Classify(err), "%v", err)
			}
		})
	}
}
