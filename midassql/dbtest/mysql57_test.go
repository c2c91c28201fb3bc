package dbtest

import (
	"database/sql"
	"strings"
	"testing"

	"github.com/go-sql-driver/mysql"
	"github.com/midas-go/midas/midassql"
	"github.com/stretchr/testify/require"
)

// MySQL 5.7 does not know SKIP LOCKED. Once needs no such thing; an Inbox stores payments and hands none out.
func TestMySQL57IsForOnceAlone(t *testing.T) {
	t.Parallel()
	db := openDatabase(t, mySQL)
	db.store(t, midassql.Options{})
	old := (&recorder{
		rewrite: func(query string) string {
			if strings.HasPrefix(query, "SHOW VARIABLES") {
				return "SELECT 'version', '5.7.44-log'"
			}
			return query
		},
		before: func(query string) error {
			if strings.Contains(query, "SKIP LOCKED") {
				return &mysql.MySQLError{Number: 1064, Message: "You have an error in your SQL syntax"}
			}
			return nil
		},
	}).between(db)
	defer old.Close()
	for _, row := range []struct {
		db   *sql.DB
		want int
	}{{db.DB, 0}, {old, 1}} {
		store, err := midassql.New(row.db, midassql.MySQL, midassql.Options{TablePrefix: db.prefix})
		require.NoError(t, err)
		found, err := store.Check(t.Context())
		require.NoError(t, err)
		var versions []midassql.Finding
		for _, f := range found {
			if f.Setting == "version" {
				versions = append(versions, f)
			}
		}
		require.Len(t, versions, row.want, "%v", found)
		for _, f := range versions {
			require.Equal(t, "5.7.44-log", f.Value)
			require.Contains(t, f.Advice, "Inbox")
			require.Contains(t, f.Advice, "Store.Once")
		}
	}

	store, err := midassql.New(old, midassql.MySQL, midassql.Options{TablePrefix: db.prefix})
	require.NoError(t, err)
	ordered(t, store, "player", "token")
	for range 2 { // the payment, and its repeat
		require.NoError(t, store.Once(db.grant)(t.Context(), paid("player", "token", "bill")))
	}
	require.Equal(t, 1, db.count(t, "SELECT COUNT(*) FROM items"))

	ordered(t, store, "player", "token2")
	inbox := newInbox(t, store, midassql.InboxOptions{})
	require.NoError(t, inbox.Deliver(t.Context(), paid("player", "token2", "bill2")))
	require.ErrorContains(t, failure(inbox.Waiting(t.Context(), "player")), "1064")
}
