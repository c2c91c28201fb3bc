package dbtest

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midassql"
	"github.com/stretchr/testify/require"
)

// A lossyConnector is SQLite behind a line that breaks where a test says so.
type lossyConnector struct {
	sqlite     driver.Driver
	dsn        string
	statements []string                 // of transactions, in order; tests use one goroutine
	commit     func(tx driver.Tx) error // instead of tx.Commit
	exec       func(statement string) error
	begin      func()                                            // before a transaction
	wait       func(ctx context.Context, statement string) error // before each statement
}

func (c *lossyConnector) Driver() driver.Driver { return c.sqlite }

func (c *lossyConnector) Connect(context.Context) (driver.Conn, error) {
	conn, err := c.sqlite.Open(c.dsn)
	return &lossyConn{conn, c}, err
}

type lossyConn struct {
	driver.Conn
	c *lossyConnector
}

func (l *lossyConn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	if l.c.begin != nil {
		l.c.begin()
	}
	l.c.statements = append(l.c.statements, "BEGIN")
	tx, err := l.Conn.(driver.ConnBeginTx).BeginTx(ctx, opts)
	return &lossyTx{tx, l.c}, err
}

func (l *lossyConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	l.c.statements = append(l.c.statements, query)
	if l.c.wait != nil {
		if err := l.c.wait(ctx, query); err != nil {
			return nil, err
		}
	}
	if l.c.exec != nil {
		if err := l.c.exec(query); err != nil {
			return nil, err
		}
	}
	return l.Conn.(driver.ExecerContext).ExecContext(ctx, query, args)
}

func (l *lossyConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	l.c.statements = append(l.c.statements, query)
	if l.c.wait != nil {
		if err := l.c.wait(ctx, query); err != nil {
			return nil, err
		}
	}
	return l.Conn.(driver.QueryerContext).QueryContext(ctx, query, args)
}

type lossyTx struct {
	driver.Tx
	c *lossyConnector
}

func (l *lossyTx) Commit() error {
	if l.c.commit == nil {
		return l.Tx.Commit()
	}
	return l.c.commit(l.Tx)
}

// lossy puts a lossyConnector between db and its database.
func lossy(t *testing.T) (*database, *lossyConnector) {
	db := openDatabase(t, sqlite)
	var path string
	require.NoError(t, db.QueryRow("SELECT file FROM pragma_database_list WHERE name = 'main'").Scan(&path))
	c := &lossyConnector{sqlite: db.DB.Driver(), dsn: "file:" + path + "?_pragma=busy_timeout(500)&_txlock=immediate"}
	db.DB = sql.OpenDB(c)
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { db.DB.Close() })
	return db, c
}

// serialisation is a refusal as PostgreSQL words it.
type serialisation struct{}

func (serialisation) Error() string    { return "could not serialize access" }
func (serialisation) SQLState() string { return "40001" }

func classifySerialisation(err error) midassql.Class {
	if errors.As(err, new(serialisation)) {
		return midassql.ClassAgain
	}
	return midassql.SQLite.Classify(err)
}

func TestOKIsAnsweredOnlyAfterAKnownCommit(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		commit func(tx driver.Tx) error
		grants int // how often the grant has run, the repeat included
	}{
		{"committed, and then the line broke", func(tx driver.Tx) error {
			return errors.Join(tx.Commit(), driver.ErrBadConn)
		}, 1},
		{"committed, and then something else broke", func(tx driver.Tx) error {
			return errors.Join(tx.Commit(), errors.New("unexpected EOF"))
		}, 1},
		{"committed, and then the time was over", func(tx driver.Tx) error {
			return errors.Join(tx.Commit(), context.DeadlineExceeded)
		}, 1},
		{"not committed: the line broke before", func(tx driver.Tx) error {
			return errors.Join(tx.Rollback(), driver.ErrBadConn)
		}, 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			db, line := lossy(t)
			store := db.store(t, midassql.Options{})
			ordered(t, store, "player", "token")
			grants := 0
			deliver := store.Once(func(ctx context.Context, tx *sql.Tx, d *midas.Delivery) error {
				grants++
				return db.grant(ctx, tx, d)
			})
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()

			line.commit = test.commit
			err := deliver(ctx, paid("player", "token", "-1"))
			require.Error(t, err, "nobody knows the outcome")
			require.Equal(t, 1, midas.ReplyTo(err).Ret())
			require.Equal(t, 1, grants, "and it is not for this call to find out")

			line.commit = nil
			require.NoError(t, deliver(t.Context(), paid("player", "token", "-1")), "the repeat finds the row, or grants")
			require.Equal(t, test.grants, grants)
			require.Equal(t, 1, db.count(t, "SELECT COUNT(*) FROM items"), "granted once, whatever happened")
		})
	}
}

func TestACommitThatIsKnownToBeRolledBackIsTriedAgain(t *testing.T) {
	t.Parallel()
	db, line := lossy(t)
	store := db.store(t, midassql.Options{Classify: classifySerialisation})
	ordered(t, store, "player", "token")
	commits := 0
	line.commit = func(tx driver.Tx) error {
		if commits++; commits == 1 {
			return errors.Join(tx.Rollback(), serialisation{})
		}
		return tx.Commit()
	}
	require.NoError(t, store.Once(db.grant)(t.Context(), paid("player", "token", "-1")))
	require.Equal(t, 2, commits)
	require.Equal(t, 1, db.count(t, "SELECT COUNT(*) FROM items"))
}

func TestABadConnectionIsTriedAgain(t *testing.T) {
	t.Parallel()
	db, line := lossy(t)
	store := db.store(t, midassql.Options{})
	ordered(t, store, "player", "token")
	inserts := 0
	line.exec = func(statement string) error {
		if strings.Contains(statement, "_deliveries") {
			if inserts++; inserts <= 3 {
				return driver.ErrBadConn
			}
		}
		return nil
	}
	require.NoError(t, store.Once(db.grant)(t.Context(), paid("player", "token", "-1")))
	require.Equal(t, 4, inserts)
	require.Equal(t, 1, db.count(t, "SELECT COUNT(*) FROM items"))

	// But not beyond the context.
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	tries := 0
	line.exec = func(string) error {
		if tries++; tries == 3 {
			cancel()
		}
		return driver.ErrBadConn
	}
	err := store.Once(db.grant)(ctx, paid("player", "token", "-2"))
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, err, driver.ErrBadConn, "the last failure is told")
}

func TestClassifyIsTheCallersWord(t *testing.T) {
	t.Parallel()
	busy := errors.New("busy")
	for _, again := range []bool{true, false} {
		db := openDatabase(t, sqlite)
		store := db.store(t, midassql.Options{Classify: func(err error) midassql.Class {
			if again && errors.Is(err, busy) {
				return midassql.ClassAgain
			}
			return midassql.SQLite.Classify(err)
		}})
		ordered(t, store, "player", "token")
		tries := 0
		err := store.Once(func(ctx context.Context, tx *sql.Tx, d *midas.Delivery) error {
			if tries++; tries == 1 {
				return busy
			}
			return db.grant(ctx, tx, d)
		})(t.Context(), paid("player", "token", "-1"))
		if again {
			require.NoError(t, err)
			require.Equal(t, 2, tries)
		} else {
			require.ErrorIs(t, err, busy)
			require.Equal(t, 1, tries)
		}
	}
}

// What was stored although ret 1 was answered is handed out like any other.
func TestAPaymentStoredAfterRet1IsHandedOut(t *testing.T) {
	t.Parallel()
	db, line := lossy(t)
	store := db.store(t, midassql.Options{})
	inbox := newInbox(t, store, midassql.InboxOptions{})
	ordered(t, store, "player", "token")
	line.commit = func(tx driver.Tx) error { return errors.Join(tx.Commit(), driver.ErrBadConn) }
	err := inbox.Deliver(t.Context(), paid("player", "token", "-1"))
	require.ErrorContains(t, err, "unknown")
	require.Equal(t, 1, midas.ReplyTo(err).Ret())
	line.commit = nil
	require.Equal(t, []string{"-1"}, worked(t, inbox, 1, saved))
	require.NoError(t, inbox.Deliver(t.Context(), paid("player", "token", "-1")))
	require.Zero(t, db.count(t, "SELECT COUNT(*) FROM inbox"))
}

// begun returns the statements that came through line since the last call, by their first
// three words.
func (c *lossyConnector) begun() (statements []string) {
	for _, statement := range c.statements {
		words := strings.Fields(statement)
		statements = append(statements, strings.Join(words[:min(3, len(words))], " "))
	}
	c.statements = nil
	return statements
}

// The insert comes first; and a repeat is answered OK after a write of its own, whose commit
// flushes what it saw.
func TestTheStatementsOfADelivery(t *testing.T) {
	t.Parallel()
	db, line := lossy(t)
	store := db.store(t, midassql.Options{})
	ordered(t, store, "player", "token")
	insert := "INSERT INTO " + db.prefix + "deliveries"
	line.begun()
	require.NoError(t, store.Once(db.grant)(t.Context(), paid("player", "token", "-1")))
	require.Equal(t, []string{"BEGIN", insert, "SELECT o.token, o.openid,", "INSERT INTO " + db.prefix + "items", "SELECT mark FROM"}, line.begun())
	require.NoError(t, store.Once(db.grant)(t.Context(), paid("player", "token", "-1")))
	update := "UPDATE " + db.prefix + "deliveries SET" // of a row that a refund has noted, and of a repeat
	require.Equal(t, []string{"BEGIN", insert, "BEGIN", update, update}, line.begun())
}
