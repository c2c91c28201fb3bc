package dbtest

import (
	"database/sql"
	"database/sql/driver"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/midas-go/midas/midassql"
	"github.com/midas-go/midas/midassql/dbtest/testdb"
	"github.com/midas-go/midas/midassql/midassqltest"
	"github.com/stretchr/testify/require"
)

// What any *sql.DB can show. The other tests of this module need a driver that fails, or look into the tables.
func TestEngines(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		t.Parallel()
		open := func() (*sql.DB, error) { return db.open(), nil }
		midassqltest.Run(t, open, db.dialect, midassql.Options{TablePrefix: db.prefix})
	})
}

// An engine or a driver with a fault.
type wrongEngine struct {
	kind   testdb.Kind
	server [2]*recorder
	breaks string // a rule of midassqltest
}

const wrongEnv = "MIDAS_TEST_WRONG_ENGINE"

// both is a fault that both servers meet.
func both(r *recorder) [2]*recorder { return [2]*recorder{r, r} }

// replaced writes a part of each statement otherwise.
func replaced(from, to string) *recorder {
	return &recorder{rewrite: func(query string) string { return strings.ReplaceAll(query, from, to) }}
}

// slowly takes a second for each change of a balance.
func slowly(r *recorder) *recorder {
	r.before = func(query string) error {
		if strings.HasPrefix(query, "UPDATE") && strings.Contains(query, "granted_by_test") {
			time.Sleep(time.Second)
		}
		return nil
	}
	return r
}

// keyless creates payments without their unique key.
func keyless() *recorder {
	return &recorder{rewrite: func(query string) string {
		if strings.Contains(query, "deliveries (") {
			query = paymentKey.ReplaceAllString(query, "PRIMARY KEY (openid, billno, mark)")
		}
		return query
	}}
}

var paymentKey = regexp.MustCompile(`PRIMARY KEY \((openid, billno|billno, openid)\)`)

// losing answers the commit of a payment and rolls back.
func losing() *recorder {
	var paid atomic.Bool // SQLite has one writer
	r := new(recorder)
	r.before = func(query string) error {
		if strings.HasPrefix(query, "INSERT") && strings.Contains(query, "deliveries") {
			paid.Store(true)
		}
		return nil
	}
	r.end = func(tx driver.Tx, commit bool) error {
		if paid.Swap(false) || !commit {
			return tx.Rollback()
		}
		return tx.Commit()
	}
	return r
}

var wrongEngines = map[string]wrongEngine{
	"none": {sqlite, both(&recorder{}), ""},
	"no unique key": {sqlite, both(keyless()),
		"once: a repeat is answered OK and grants nothing"},
	"no unique key, and many callers": {sqlite, both(keyless()),
		"once: one of many callers grants"},
	"a rollback commits": {sqlite, both(&recorder{end: func(tx driver.Tx, commit bool) error { return tx.Commit() }}),
		"once: what fails is rolled back"},
	"a rollback commits a refund": {sqlite, both(&recorder{end: func(tx driver.Tx, commit bool) error { return tx.Commit() }}),
		"refund: a refund that the game refused is told again"},
	"a commit is lost": {sqlite, both(losing()),
		"commit: what was answered is there for every server at once"},
	"reads are split": {sqlite, both(&recorder{split: true}),
		"transaction: it reads what it wrote"},
	"a collation ignores case": {sqlite, both(replaced("TEXT NOT NULL,", "TEXT COLLATE NOCASE NOT NULL,")),
		"compare: ids are bytes"},
	"long texts are cut": {mariaDB, both(replaced("billno       VARBINARY(255)", "billno VARBINARY(100)")),
		"compare: long ids are stored whole or refused"},
	"a server's clock is ahead": {sqlite, [2]*recorder{{}, replaced("julianday('now')", "julianday('now', '+1 hour')")},
		"lease: it ends by the database's clock, and not before"},
	"PostgreSQL does not lock": {postgreSQL, both(replaced(" FOR UPDATE", "")),
		"once: a row that a grant has locked waits"},
	"a slow PostgreSQL does not lock": {postgreSQL, both(slowly(replaced(" FOR UPDATE", ""))),
		"once: a row that a grant has locked waits"},
	"MariaDB does not lock": {mariaDB, both(replaced(" FOR UPDATE", "")),
		"once: a row that a grant has locked waits"},
	"MySQL does not lock": {mySQL, both(replaced(" FOR UPDATE", "")),
		"once: a row that a grant has locked waits"},
	"a refund adds nothing": {sqlite, both(replaced("refunded = refunded + ?", "refunded = refunded + 0 * ?")),
		"refund: each is told once, with the right sum"},
	"halves add nothing": {sqlite, both(replaced("refunded = refunded + ?", "refunded = refunded + 0 * ?")),
		"refund: halves at once add up"},
}

// Of an engine with a fault, Run names the rule that is broken and what to do. Each is run by a process of its
// own, whose test is to fail.
func TestAWrongEngineFails(t *testing.T) {
	t.Parallel()
	for name, engine := range wrongEngines {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			openDatabase(t, engine.kind) // or skip
			broken := strings.ReplaceAll(engine.breaks, " ", "_")
			process := exec.CommandContext(t.Context(), os.Args[0], "-test.v", "-test.run=^Engine$/^(migrate|transaction|commit|"+regexp.QuoteMeta(broken)+")")
			process.Env = append(os.Environ(), wrongEnv+"="+name)
			out, err := process.CombinedOutput()
			require.Contains(t, string(out), "--- PASS: Engine/migrate")
			if engine.breaks == "" {
				require.NoError(t, err, "%s", out)
				return
			}
			require.Error(t, err, "%s", out)
			require.Contains(t, string(out), "--- FAIL: Engine/"+broken)
			require.Contains(t, string(out), "what to do: ")
		})
	}
}

// runWrong is the test of such a process.
func runWrong(t *testing.T, name string) {
	engine := wrongEngines[name]
	var options []string
	if engine.kind.Server == mariaDB.Server { // ON, as it is from 11.6.2 on, refuses what a missing lock lets pass
		options = []string{"innodb_snapshot_isolation=OFF"}
	}
	db := openDatabase(t, engine.kind, options...)
	servers := engine.server[:]
	open := func() (*sql.DB, error) {
		server := servers[0]
		servers = servers[1:]
		return server.between(db), nil
	}
	midassqltest.Run(t, open, db.dialect, midassql.Options{TablePrefix: db.prefix})
}
