package dbtest

import (
	"log/slog"
	"testing"

	"github.com/midas-go/midas/midassql"
	"github.com/midas-go/midas/midassql/dbtest/testdb"
	"github.com/stretchr/testify/require"
)

// Settings of one connection, and what Check says of it.
func TestCheckReadsTheSettingsOfTheServerAndTheConnection(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name    string
		kind    testdb.Kind
		options []string
		setting string
		found   string // its value; empty: fine
	}{
		{"postgresql", postgreSQL, nil, "synchronous_commit", ""},
		{"postgresql that answers early", postgreSQL, []string{"synchronous_commit=off"}, "synchronous_commit", "off"},
		{"postgresql that refuses writes", postgreSQL, []string{"default_transaction_read_only=on"}, "transaction_read_only", "on"},
		{"mariadb", mariaDB, nil, "innodb_lock_wait_timeout", ""},
		{"mariadb that waits", mariaDB, []string{"innodb_lock_wait_timeout=50"}, "innodb_lock_wait_timeout", "50"},
		{"mysql", mySQL, nil, "innodb_lock_wait_timeout", ""},
		{"mysql that waits", mySQL, []string{"innodb_lock_wait_timeout=50"}, "innodb_lock_wait_timeout", "50"},
		{"sqlite", sqlite, nil, "synchronous", ""},
		{"sqlite that loses", sqlite, []string{"_pragma=synchronous(OFF)"}, "synchronous", "0"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			db := openDatabase(t, row.kind, row.options...)
			store, err := midassql.New(db.DB, db.dialect, midassql.Options{TablePrefix: db.prefix})
			require.NoError(t, err)
			found, err := store.Check(t.Context())
			require.NoError(t, err)
			value := ""
			for _, f := range found {
				if f.Setting == row.setting {
					value = f.Value
				}
			}
			require.Equal(t, row.found, value, "%v", found)
		})
	}
}

func TestMigrateLogsWhatCheckFinds(t *testing.T) {
	t.Parallel()
	db := openDatabase(t, sqlite, "_txlock=immediate", "_pragma=synchronous(OFF)")
	logged := new(lines)
	db.store(t, midassql.Options{Environment: "live", Logger: slog.New(slog.NewTextHandler(logged, nil))})
	require.Contains(t, logged.String(), "level=WARN")
	require.Contains(t, logged.String(), "setting=synchronous value=0")
}
