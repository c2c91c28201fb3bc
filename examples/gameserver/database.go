package main

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/midas-go/midas/midassql"
	_ "modernc.org/sqlite"
)

// maxConns of one process leaves room for a few more under PostgreSQL's default of 100.
const maxConns = 20

// maxConnAge lets the pool find its way back after a failover that nobody noticed.
const maxConnAge = 5 * time.Minute

// A database is one of the three, opened as midassql wants it.
type database struct {
	*sql.DB
	dialect midassql.Dialect

	insertItem, takeBack, hadItems, selectItems, insertSession, selectSession, isReadOnly string

	createTables []string // each in a call of its own
}

// readOnlyTransaction is PostgreSQL's code for a write on a node that takes none.
const readOnlyTransaction = "25006"

// classify is for midassql.Options. Where one connection has lost its node, so have those that
// wait in the pool.
func (db *database) classify(err error) midassql.Class {
	var refused *pgconn.PgError
	readOnly := errors.As(err, &refused) && refused.Code == readOnlyTransaction
	if readOnly || errors.Is(err, driver.ErrBadConn) {
		db.hangUp()
	}
	if readOnly {
		return midassql.ClassAgain // on the node that takes writes now
	}
	return db.dialect.Classify(err)
}

// noTable reports whether a statement named a table that is not there.
func noTable(err error) bool {
	var postgres *pgconn.PgError
	var maria *mysql.MySQLError
	switch {
	case errors.As(err, &postgres):
		return postgres.Code == "42P01" // undefined_table
	case errors.As(err, &maria):
		return maria.Number == 1146 // ER_NO_SUCH_TABLE
	}
	return strings.Contains(err.Error(), "no such table") // SQLite has one code for this and much else
}

// hangUp closes the connections that are idle.
func (db *database) hangUp() {
	db.SetMaxIdleConns(0)
	db.SetMaxIdleConns(maxConns)
}

// health returns why no payment could be stored now.
func (db *database) health(ctx context.Context) error {
	var readOnly bool
	if err := db.QueryRowContext(ctx, db.isReadOnly).Scan(&readOnly); err != nil {
		return err
	}
	if readOnly {
		db.hangUp()
		return errors.New("the database is read-only")
	}
	return nil
}

// openDatabase opens postgres://…, mysql://… or the file of an SQLite database. It does not
// connect yet. No error shows the password.
func openDatabase(name string) (*database, error) {
	db := &database{
		insertItem: "INSERT INTO item_journal (openid, billno, item, quantity) VALUES (?, ?, ?, ?)",
		takeBack: `INSERT INTO item_journal (openid, billno, item, quantity)
			SELECT openid, billno, item, -SUM(quantity) FROM item_journal WHERE openid = ? AND billno = ? GROUP BY openid, billno, item HAVING SUM(quantity) <> 0`,
		hadItems:    "SELECT COUNT(*) > 0 FROM item_journal WHERE openid = ? AND billno = ?",
		selectItems: "SELECT item, SUM(quantity) FROM item_journal WHERE openid = ? GROUP BY item ORDER BY item",

		insertSession: "INSERT INTO player_sessions (id, openid, zone) VALUES (?, ?, ?)",
		selectSession: "SELECT openid, zone FROM player_sessions WHERE id = ?",
	}
	scheme, _, isURL := strings.Cut(name, "://")
	var err error
	switch {
	case !isURL && !strings.HasPrefix(name, ".") && !filepath.IsAbs(name) &&
		(strings.ContainsAny(name, "=@") || strings.Contains(name, "tcp(")): // it may hold a password, so it is not shown
		err = errors.New(`this looks like a driver's own notation (it holds "=", "@" or "tcp("): want postgres://…, mysql://… or a file name ("./…" if it is one)`)
	case !isURL:
		err = db.openSQLite(name)
	case scheme == "postgres" || scheme == "postgresql":
		err = db.openPostgreSQL(name)
	case scheme == "mysql":
		err = db.openMySQL(name)
	default:
		err = errors.New("want postgres://…, mysql://… or a file name")
	}
	if err != nil {
		return nil, fmt.Errorf("-db: %w", err)
	}
	return db, nil
}

func (db *database) openPostgreSQL(name string) error {
	config, err := pgx.ParseConfig(name)
	if err != nil {
		return err // pgx masks the password
	}
	// A node that became read-only stays connected. Hang up on it: the next connection goes to the
	// node that takes writes, where name has several hosts and target_session_attrs=read-write.
	onPgError := config.OnPgError
	config.OnPgError = func(conn *pgconn.PgConn, err *pgconn.PgError) bool {
		return err.Code != readOnlyTransaction && onPgError(conn, err)
	}
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = time.Second // a callback has 1.5 s
	}
	db.dialect = midassql.PostgreSQL
	db.DB = sql.OpenDB(fewAtOnce{stdlib.GetConnector(*config), make(chan struct{}, 2)})
	db.SetMaxOpenConns(maxConns)
	db.SetMaxIdleConns(maxConns)
	db.SetConnMaxLifetime(maxConnAge)
	db.isReadOnly = "SELECT current_setting('transaction_read_only') = 'on'"
	db.insertItem = "INSERT INTO item_journal (openid, billno, item, quantity) VALUES ($1, $2, $3, $4)"
	db.takeBack = strings.Replace(strings.Replace(db.takeBack, "?", "$1", 1), "?", "$2", 1)
	db.hadItems = strings.Replace(strings.Replace(db.hadItems, "?", "$1", 1), "?", "$2", 1)
	db.selectItems = strings.Replace(db.selectItems, "?", "$1", 1)
	db.insertSession = "INSERT INTO player_sessions (id, openid, zone) VALUES ($1, $2, $3)"
	db.selectSession = strings.Replace(db.selectSession, "?", "$1", 1)
	// The lock keeps two servers that start at once from creating the same table. The key is
	// the index for selectItems: CREATE INDEX IF NOT EXISTS would hold up every delivery
	// at each start, while a writer is at work.
	db.createTables = []string{`SELECT pg_advisory_xact_lock(20240208);
		CREATE TABLE IF NOT EXISTS item_journal (
			id bigint GENERATED ALWAYS AS IDENTITY,
			openid text NOT NULL, billno text NOT NULL, item text NOT NULL, quantity bigint NOT NULL,
			PRIMARY KEY (openid, id));
		CREATE TABLE IF NOT EXISTS player_sessions (id text PRIMARY KEY, openid text NOT NULL, zone text NOT NULL)`}
	return nil
}

// fewAtOnce opens no more connections at once than its channel has room for. PostgreSQL starts a
// process for each, also for those whose client has given up meanwhile. If all of a pool come
// at once when it has just started, on a slow machine each of them gives up after its second, and
// the next ones wait behind them for ever.
type fewAtOnce struct {
	driver.Connector
	opening chan struct{}
}

func (f fewAtOnce) Connect(ctx context.Context) (driver.Conn, error) {
	select {
	case f.opening <- struct{}{}:
		defer func() { <-f.opening }()
		return f.Connector.Connect(ctx)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (db *database) openMySQL(name string) error {
	u, err := url.Parse(name)
	if err != nil {
		return errors.New(`mysql: want "mysql://user:password@host:3306/database"`) // err shows the password
	}
	if err := checkCharset(u.RawQuery); err != nil {
		return fmt.Errorf("mysql: %w", err)
	}
	// The driver does not end a COMMIT with the context, and the server goes on waiting for a
	// lock after its client gave up: both need limits of their own. rejectReadOnly hangs up on a
	// server that became read-only, since its address may belong to another one now. interpolateParams
	// saves the round trip that prepares a statement. What name
	// says of the driver's parameters comes later, and so counts.
	config, err := mysql.ParseDSN("/?timeout=1s&readTimeout=3s&writeTimeout=3s&rejectReadOnly=true&interpolateParams=true&innodb_lock_wait_timeout=1&lock_wait_timeout=1&" + u.RawQuery)
	if err != nil {
		return fmt.Errorf("mysql: %w", err)
	}
	config.Net, config.Addr = "tcp", u.Host
	if u.Port() == "" {
		config.Addr = net.JoinHostPort(u.Hostname(), "3306")
	}
	config.DBName = strings.TrimPrefix(u.Path, "/")
	config.User = u.User.Username()
	config.Passwd, _ = u.User.Password()
	connector, err := mysql.NewConnector(config)
	if err != nil {
		return fmt.Errorf("mysql: %w", err)
	}
	db.dialect = midassql.MySQL
	db.DB = sql.OpenDB(connector)
	db.SetMaxOpenConns(maxConns)
	db.SetMaxIdleConns(maxConns)
	db.SetConnMaxLifetime(maxConnAge) // the server closes idle ones
	db.isReadOnly = "SELECT @@global.read_only"
	db.createTables = []string{`CREATE TABLE IF NOT EXISTS item_journal (
		id BIGINT AUTO_INCREMENT PRIMARY KEY,
		openid VARBINARY(255) NOT NULL, billno VARBINARY(255) NOT NULL, item VARBINARY(255) NOT NULL, quantity BIGINT NOT NULL,
		KEY item_journal_openid (openid)) ENGINE=InnoDB`, `CREATE TABLE IF NOT EXISTS player_sessions (
		id VARBINARY(64) PRIMARY KEY, openid VARBINARY(255) NOT NULL, zone VARBINARY(255) NOT NULL) ENGINE=InnoDB`}
	return nil
}

// checkCharset allows UTF-8 alone. In GBK, GB18030, Big5, Shift JIS and CP932 the backslash that
// interpolateParams writes before a quote may be taken for the second byte of a character, and
// the quote then ends the text. The driver refuses their collations, but not charset=gbk.
func checkCharset(params string) error {
	for param := range strings.SplitSeq(params, "&") {
		name, value, _ := strings.Cut(param, "=")
		if name != "charset" && name != "collation" && !strings.EqualFold(name, "character_set_client") {
			continue
		}
		for charset := range strings.SplitSeq(strings.ToLower(value), ",") {
			if !strings.HasPrefix(charset, "utf8") {
				return fmt.Errorf("%s=%s: want utf8mb4 (interpolateParams is safe with UTF-8, not with GBK and others)", name, value)
			}
		}
	}
	return nil
}

func (db *database) openSQLite(file string) error {
	if file == "" {
		return errors.New("sqlite: the file has no name")
	}
	// A URI, in which these three have a meaning.
	file = strings.NewReplacer("%", "%25", "?", "%3F", "#", "%23").Replace(file)
	// Transactions begin with the write lock; whoever waits for it gives up before the
	// callback's 1.5 s and is tried again.
	var err error
	db.DB, err = sql.Open("sqlite", "file:"+file+"?_txlock=immediate&_pragma=busy_timeout(500)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)")
	if err != nil {
		return fmt.Errorf("sqlite: %w", err)
	}
	db.dialect = midassql.SQLite
	db.SetMaxOpenConns(1) // there is one writer anyway, and waiting in Go is fair
	db.isReadOnly = "SELECT 0"
	db.createTables = []string{`CREATE TABLE IF NOT EXISTS item_journal (
			id INTEGER PRIMARY KEY,
			openid TEXT NOT NULL, billno TEXT NOT NULL, item TEXT NOT NULL, quantity INTEGER NOT NULL);
		CREATE INDEX IF NOT EXISTS item_journal_openid ON item_journal (openid);
		CREATE TABLE IF NOT EXISTS player_sessions (id TEXT PRIMARY KEY, openid TEXT NOT NULL, zone TEXT NOT NULL)`}
	return nil
}

// startTime is for the tables when a server starts, another server's turn at it included. (To
// change large ones takes longer: gameserver migrate.)
const startTime = 30 * time.Second

// migrate creates the tables that are missing.
func (s *shop) migrate(ctx context.Context) error {
	if err := s.store.Migrate(ctx); err != nil {
		return err
	}
	for _, statement := range s.db.createTables {
		if _, err := s.db.ExecContext(ctx, statement); err != nil {
			return fmt.Errorf("creating the game's tables: %w", err)
		}
	}
	s.migrated.Store(true)
	return nil
}

// createTables creates the tables, or goes on trying in the background: where the database is
// away, callbacks are answered ret 1 until it is back. Call what it returns before the
// database is closed.
func (s *shop) createTables(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var later sync.WaitGroup
	if err := s.migrateAtStart(ctx); err != nil {
		s.log.Error("no tables yet", "error", err.Error())
		later.Go(func() { s.migrateLater(ctx) })
	}
	return func() {
		cancel()
		later.Wait()
	}
}

func (s *shop) migrateAtStart(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	return s.migrate(ctx)
}

// migrateLater tries again until the tables are there or ctx ends.
func (s *shop) migrateLater(ctx context.Context) {
	for wait := time.Second; ; wait = min(2*wait, 10*time.Second) {
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
		err := s.migrateAtStart(ctx)
		if err == nil {
			s.log.Info("the tables are there")
			return
		}
		s.log.Error("no tables yet", "error", err.Error())
	}
}

// A session is a player who has logged in.
type session struct{ openID, zone string }

// session returns the session with an id, or sql.ErrNoRows.
func (db *database) session(ctx context.Context, id string) (s session, err error) {
	err = db.QueryRowContext(ctx, db.selectSession, id).Scan(&s.openID, &s.zone)
	return s, err
}

// An ownedItem is how many of an item a player has.
type ownedItem struct {
	ID       string `json:"id"`
	Quantity int    `json:"quantity"`
}

func (db *database) itemsOf(ctx context.Context, openID string) ([]ownedItem, error) {
	rows, err := db.QueryContext(ctx, db.selectItems, openID)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	items := []ownedItem{}
	for rows.Next() {
		var item ownedItem
		if err := rows.Scan(&item.ID, &item.Quantity); err != nil {
			return nil, err
		}
		items = append(items, item)
	}
	return items, rows.Err()
}
