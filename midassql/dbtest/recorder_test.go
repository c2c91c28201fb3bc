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
	before  func(query string) error  // optional: what happens before a statement runs
	rewrite func(query string) string // optional: what the database gets instead
	commit  func()                    // optional: called before each COMMIT

	end   func(tx driver.Tx, commit bool) error // optional: instead of COMMIT and ROLLBACK
	split bool                                  // a SELECT goes to another connection, whatever transaction it is in

	mu   sync.Mutex
	seen []recorded
}

// recordedStore returns a Store whose statements are recorded.
func (db *database) recordedStore(t *testing.T) (*midassql.Store, *recorder) {
	t.Helper()
	db.store(t, midassql.Options{})
	seen := new(recorder)
	return seen.store(t, db, midassql.Options{}), seen
}

// store returns a Store on db's tables whose statements go through r.
func (r *recorder) store(t *testing.T, db *database, opts midassql.Options) *midassql.Store {
	t.Helper()
	pool := r.between(db)
	t.Cleanup(func() { pool.Close() })
	opts.TablePrefix = db.prefix
	store, err := midassql.New(pool, db.dialect, opts)
	require.NoError(t, err)
	return store
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
	if err != nil {
		return nil, err
	}
	recording := &recordingConn{conn, conn, c.r}
	if c.r.split {
		recording.reads, err = c.driver.Open(c.dsn)
	}
	return recording, err
}

type recordingConn struct {
	driver.Conn
	reads driver.Conn
	r     *recorder
}

func (c *recordingConn) Close() error {
	if c.reads != c.Conn {
		c.reads.Close()
	}
	return c.Conn.Close()
}

// record returns the statement that the database gets.
func (c *recordingConn) record(query string, args []driver.NamedValue) (string, error) {
	if c.r.before != nil {
		if err := c.r.before(query); err != nil {
			return "", err
		}
	}
	if c.r.rewrite != nil {
		query = c.r.rewrite(query)
	}
	c.r.mu.Lock()
	defer c.r.mu.Unlock()
	statement := recorded{query: query}
	for _, arg := range args {
		statement.args = append(statement.args, arg.Value)
	}
	c.r.seen = append(c.r.seen, statement)
	return query, nil
}

func (c *recordingConn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	tx, err := c.Conn.(driver.ConnBeginTx).BeginTx(ctx, opts)
	return &recordingTx{tx, c.r}, err
}

type recordingTx struct {
	driver.Tx
	r *recorder
}

func (tx *recordingTx) Commit() error {
	if tx.r.commit != nil {
		tx.r.commit()
	}
	if tx.r.end != nil {
		return tx.r.end(tx.Tx, true)
	}
	return tx.Tx.Commit()
}

func (tx *recordingTx) Rollback() error {
	if tx.r.end != nil {
		return tx.r.end(tx.Tx, false)
	}
	return tx.Tx.Rollback()
}

// beforeKey is the key of a func(query string) in a context that is called before each of its statements.
type beforeKey struct{}

func (c *recordingConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	if before, ok := ctx.Value(beforeKey{}).(func(string)); ok {
		before(query)
	}
	query, err := c.record(query, args)
	if err != nil {
		return nil, err
	}
	if execer, ok := c.Conn.(driver.ExecerContext); ok {
		result, err := execer.ExecContext(ctx, query, args)
		if err != driver.ErrSkip {
			return result, err
		}
	}
	return nil, driver.ErrSkip
}

func (c *recordingConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	query, err := c.record(query, args)
	if err != nil {
		return nil, err
	}
	if queryer, ok := c.reads.(driver.QueryerContext); ok {
		rows, err := queryer.QueryContext(ctx, query, args)
		if err != driver.ErrSkip {
			return rows, err
		}
	}
	return nil, driver.ErrSkip
}

// Prepare is where a statement comes that the driver does not run without preparing it.
func (c *recordingConn) Prepare(query string) (driver.Stmt, error) {
	if c.r.rewrite != nil {
		query = c.r.rewrite(query)
	}
	return c.Conn.Prepare(query)
}

func (c *recordingConn) CheckNamedValue(value *driver.NamedValue) error {
	if checker, ok := c.Conn.(driver.NamedValueChecker); ok {
		return checker.CheckNamedValue(value)
	}
	var err error
	value.Value, err = driver.DefaultParameterConverter.ConvertValue(value.Value)
	return err
}
