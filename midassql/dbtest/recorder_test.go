package dbtest

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/midas-go/midas/midassql"
	"github.com/stretchr/testify/require"
)

// A recorder is a database/sql driver in front of another one that remembers the statements.
type recorder struct {
	mu   sync.Mutex
	seen []recorded
}

// recordedStore returns a Store whose statements are recorded.
func (db *database) recordedStore(t *testing.T) (*midassql.Store, *recorder) {
	t.Helper()
	db.store(t, midassql.Options{})
	seen := new(recorder)
	store, err := midassql.New(seen.between(db), db.dialect, midassql.Options{TablePrefix: db.prefix})
	require.NoError(t, err)
	return store, seen
}

// between returns a pool to db whose statements are recorded.
func (r *recorder) between(db *database) *sql.DB {
	return sql.OpenDB(&recordingConnector{db.DB.Driver(), db.dsn, r})
}

// statements returns each statement once, with the arguments of the first time.
func (r *recorder) statements() (all []recorded) {
	r.mu.Lock()
	defer r.mu.Unlock()
	seen := make(map[string]bool)
	for _, statement := range r.seen {
		if !seen[statement.query] {
			seen[statement.query] = true
			all = append(all, statement)
		}
	}
	return all
}

func (r *recorder) clear() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen = nil
}

// has reports whether a statement with such a part was run.
func (r *recorder) has(part string) bool {
	return slices.ContainsFunc(r.statements(), func(s recorded) bool { return strings.Contains(s.query, part) })
}

type recordingConnector struct {
	driver driver.Driver
	dsn    string
	r      *recorder
}

func (c *recordingConnector) Driver() driver.Driver { return c.driver }

func (c *recordingConnector) Connect(context.Context) (driver.Conn, error) {
	conn, err := c.driver.Open(c.dsn)
	return &recordingConn{conn, c.r}, err
}

type recordingConn struct {
	driver.Conn
	r *recorder
}

func (c *recordingConn) record(query string, args []driver.NamedValue) {
	c.r.mu.Lock()
	defer c.r.mu.Unlock()
	statement := recorded{query: query}
	for _, arg := range args {
		statement.args = append(statement.args, arg.Value)
	}
	c.r.seen = append(c.r.seen, statement)
}

func (c *recordingConn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	return c.Conn.(driver.ConnBeginTx).BeginTx(ctx, opts)
}

func (c *recordingConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	c.record(query, args)
	if execer, ok := c.Conn.(driver.ExecerContext); ok {
		result, err := execer.ExecContext(ctx, query, args)
		if err != driver.ErrSkip {
			return result, err
		}
	}
	return nil, driver.ErrSkip
}

func (c *recordingConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	c.record(query, args)
	if queryer, ok := c.Conn.(driver.QueryerContext); ok {
		rows, err := queryer.QueryContext(ctx, query, args)
		if err != driver.ErrSkip {
			return rows, err
		}
	}
	return nil, driver.ErrSkip
}

func (c *recordingConn) CheckNamedValue(value *driver.NamedValue) error {
	if checker, ok := c.Conn.(driver.NamedValueChecker); ok {
		return checker.CheckNamedValue(value)
	}
	var err error
	value.Value, err = driver.DefaultParameterConverter.ConvertValue(value.Value)
	return err
}
