// Package midassql delivers each payment exactly once, with the help of the game's own
// database.
//
// A verified callback can come twice, at once on two machines, or while a machine dies
// (protocol.md 1). (openid, billno) is the payment's identity, and the only safe place to
// remember it is the database transaction that grants the items: then both happen or
// neither does. [Store.Once] is that transaction, as a [midas.DeliverFunc]:
//
//	store, err := midassql.New(db, midassql.PostgreSQL, midassql.Options{})
//	...
//	deliver := store.Once(func(ctx context.Context, tx *sql.Tx, d *midas.Delivery) error {
//		for _, item := range d.Items {
//			_, err := tx.ExecContext(ctx, `INSERT INTO player_items (openid, item, quantity) VALUES ($1, $2, $3)`,
//				d.OpenID, item.ID, item.Quantity)
//			if err != nil {
//				return err
//			}
//		}
//		return nil
//	})
//	mux.Handle("/pay/notify", client.DeliveryHandler(deliver))
//
// A runnable example with its output is in midassql/dbtest/example_test.go.
//
// # Items that live elsewhere
//
// Where the items are not in this database (another server's, a game process's memory)
// the grant writes a job into it, and a worker carries the job out until that succeeded;
// the job's key makes the worker's calls repeatable:
//
//	_, err := tx.ExecContext(ctx, `INSERT INTO grant_jobs (openid, billno, items) VALUES ($1, $2, $3)`,
//		d.OpenID, d.BillNo, items)
//	return err
//
// # The order comes first
//
// The backend places the order, stores it with [Store.SaveOrder], and only then hands
// Order.URLParams to the app. Once compares what was paid with what was stored.
//
// # Databases
//
// The package uses database/sql and imports no driver. It was tested (module dbtest) with pgx
// on PostgreSQL 15, go-sql-driver/mysql on MariaDB 10.11 and modernc.org/sqlite;
// examples/gameserver shows how each is opened. db must be the primary, never a replica
// that lags behind.
//
// OK is answered for what is committed, so a commit must be on disk: a database that is set
// to lose its last second in a crash loses payments with it.
//
//   - PostgreSQL: leave synchronous_commit and fsync on, which is the default.
//   - MySQL, MariaDB: leave innodb_flush_log_at_trx_commit at its default 1; with a binary log
//     set sync_binlog=1. Set readTimeout and writeTimeout in go-sql-driver's DSN, since a
//     COMMIT does not end with the context, and innodb_lock_wait_timeout=1, since the server
//     goes on waiting for a lock after its client gave up.
//   - SQLite: leave PRAGMA synchronous at its default FULL. Set a busy timeout below the
//     time limit of a callback and let transactions begin with the write lock
//     ("?_pragma=busy_timeout(500)&_txlock=immediate" with modernc.org/sqlite); in WAL mode
//     readers do not wait. With one open connection (SetMaxOpenConns(1)) callers queue in
//     Go, which is fairer than SQLite's polling.
//
// [Store.Migrate] creates the two tables. Teams that run migrations of their own take the
// files in the folder schema, which are what Migrate runs.
//
// A [Store] is safe for use by multiple goroutines, and by any number of processes on one
// database.
package midassql

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"embed"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/midas-go/midas"
)

// A Dialect is the SQL that a database speaks. The zero value is refused.
type Dialect string

// The dialects, named like their files in the folder schema.
const (
	PostgreSQL Dialect = "postgresql"
	MySQL      Dialect = "mysql" // MariaDB too
	SQLite     Dialect = "sqlite"
)

//go:embed schema
var schema embed.FS

// Options changes how a [Store] works. The zero value is right for most games.
type Options struct {
	// TablePrefix is the beginning of the names of tables and indexes: lower-case letters,
	// digits and "_", at most 32. Empty means "midas_": midas_orders, midas_deliveries.
	TablePrefix string

	// AcceptAppOrders delivers payments whose token is not stored: orders that the app
	// itself placed (APP下单, protocol.md 1). There is nothing to compare those with, so
	// the grant must check item id and price against the game's catalogue. An order that is
	// stored is compared all the same. If false, an unknown token is refused with
	// [midas.ErrTokenNotFound].
	AcceptAppOrders bool

	// Transient optionally reports whether the transaction that failed with err may succeed
	// when it is run again; it is asked about the grant's errors too. If nil, these are
	// errors whose method SQLState returns 40001 (serialisation) or 40P01 (deadlock), which
	// pgx's do, and driver.ErrBadConn. Drivers for MySQL and SQLite have error numbers
	// instead: examples/gameserver shows the function for each.
	Transient func(err error) bool

	// Now optionally specifies the clock that orders and deliveries are stored by. If nil,
	// time.Now.
	Now func() time.Time
}

// A Store remembers orders and deliveries in the game's database. Make one with [New]. It
// does not close the database. The zero value is not usable.
type Store struct {
	db      *sql.DB
	dialect Dialect
	opts    Options // every default filled in
	sql     statements
}

// statements are the package's SQL, in the dialect and with the table prefix of a Store.
type statements struct {
	saveOrder, order, unpaidOrders, oldestUnpaid   string
	insertDelivery, repeatDelivery, listDeliveries string
}

var plainPrefix = regexp.MustCompile(`^[a-z_][a-z0-9_]{0,31}$`)

const defaultPrefix = "midas_"

// New returns a Store on db, which speaks dialect. It does not use db yet. The error names
// the argument or option that is missing or wrong.
func New(db *sql.DB, dialect Dialect, opts Options) (*Store, error) {
	if db == nil {
		return nil, errors.New("midassql: New: db is nil")
	}
	if dialect != PostgreSQL && dialect != MySQL && dialect != SQLite {
		return nil, fmt.Errorf("midassql: New: unknown dialect %q: want midassql.PostgreSQL, MySQL (MariaDB too) or SQLite", string(dialect))
	}
	if opts.TablePrefix == "" {
		opts.TablePrefix = defaultPrefix
	}
	if !plainPrefix.MatchString(opts.TablePrefix) {
		return nil, fmt.Errorf(`midassql: Options.TablePrefix %q: want at most 32 of a-z, 0-9 and "_", no digit first`, opts.TablePrefix)
	}
	if opts.Transient == nil {
		opts.Transient = transient
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	s := &Store{db: db, dialect: dialect, opts: opts}

	// The unique key decides, never a read before the write (protocol.md 1). MySQL's IGNORE
	// hides more than duplicates: see grantedBefore.
	insert, onConflict := "INSERT", " ON CONFLICT (openid, billno) DO NOTHING"
	if dialect == MySQL {
		insert, onConflict = "INSERT IGNORE", ""
	}
	s.sql = statements{
		saveOrder: s.write(`INSERT INTO midas_orders (token, openid, zone, items, metadata, max_quantity, saved_at)
			VALUES (?, ?, ?, ?, ?, ?, ?)`),
		order: s.write(`SELECT openid, items, max_quantity FROM midas_orders WHERE token = ?`),
		unpaidOrders: s.write(`SELECT token, openid, zone, items, metadata, max_quantity, saved_at FROM midas_orders
			WHERE saved_at <= ? AND NOT EXISTS (SELECT 1 FROM midas_deliveries WHERE midas_deliveries.token = midas_orders.token)
			ORDER BY saved_at, token`),
		oldestUnpaid: s.write(`SELECT token, saved_at FROM midas_orders
			WHERE saved_at >= ? AND saved_at <= ? AND NOT EXISTS (SELECT 1 FROM midas_deliveries WHERE midas_deliveries.token = midas_orders.token)
			ORDER BY saved_at LIMIT ?`),
		insertDelivery: s.write(insert + ` INTO midas_deliveries (openid, billno, token, zone, items, charged, called_at, granted_at)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?)` + onConflict),
		repeatDelivery: s.write(`UPDATE midas_deliveries SET repeats = repeats + 1 WHERE openid = ? AND billno = ?`),
		listDeliveries: s.write(`SELECT openid, billno, token, zone, items, charged, called_at, granted_at FROM midas_deliveries
			WHERE granted_at >= ? AND granted_at < ? ORDER BY granted_at, openid, billno`),
	}
	return s, nil
}

// write returns a statement as the Store's database reads it.
func (s *Store) write(statement string) string {
	statement = strings.ReplaceAll(statement, defaultPrefix, s.opts.TablePrefix)
	if s.dialect != PostgreSQL {
		return statement
	}
	var numbered strings.Builder
	for i, part := range strings.Split(statement, "?") {
		if i > 0 {
			numbered.WriteString("$" + strconv.Itoa(i))
		}
		numbered.WriteString(part)
	}
	return numbered.String()
}

// migrationLock keeps two processes on PostgreSQL from creating the same table at once,
// which IF NOT EXISTS does not.
const migrationLock = `SELECT pg_advisory_xact_lock(7793147120258115)`

// On PostgreSQL a name that is there is left out: CREATE INDEX IF NOT EXISTS waits for the
// writers of the table before it looks, and new writers wait behind it.
const thereAlready = `SELECT to_regclass(quote_ident(current_schema()) || '.' || $1) IS NOT NULL`

var createdName = regexp.MustCompile(`IF NOT EXISTS (\S+)`)

// Migrate creates the tables and indexes that are missing; it changes none that exist, and
// where nothing is missing it holds up nobody. Any number of processes may call it at
// once, at every start. It needs the right to create tables. For teams that run their own
// migrations the same SQL is in the folder schema.
func (s *Store) Migrate(ctx context.Context) error {
	file, err := schema.ReadFile("schema/" + string(s.dialect) + ".sql")
	if err != nil {
		return fmt.Errorf("midassql: Migrate: %w", err)
	}
	err = s.retry(ctx, func() error { return s.migrate(ctx, string(file)) })
	if err != nil {
		return fmt.Errorf("midassql: Migrate: %w", err)
	}
	return nil
}

func (s *Store) migrate(ctx context.Context, file string) error {
	create := func(statement string) error { // elsewhere each statement is by itself
		_, err := s.db.ExecContext(ctx, statement)
		return err
	}
	commit := func() error { return nil }
	if s.dialect == PostgreSQL {
		tx, err := s.db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer tx.Rollback() // does nothing after a commit
		if _, err := tx.ExecContext(ctx, migrationLock); err != nil {
			return err
		}
		create = func(statement string) error {
			var there bool
			err := tx.QueryRowContext(ctx, thereAlready, createdName.FindStringSubmatch(statement)[1]).Scan(&there)
			if err == nil && !there {
				_, err = tx.ExecContext(ctx, statement)
			}
			return err
		}
		commit = tx.Commit
	}
	for statement := range strings.SplitSeq(file, ";\n") { // not every driver takes several at once
		if strings.TrimSpace(statement) == "" {
			continue
		}
		if err := create(s.write(statement)); err != nil {
			return err
		}
	}
	return commit()
}

// Waits between the tries of a transaction; each has up to half of it taken off at random,
// so that two that collided do not collide again.
const (
	firstWait = 10 * time.Millisecond
	maxWait   = 200 * time.Millisecond
)

// retry calls try until it succeeds or fails for good, or ctx ends. Nothing is tried again
// after a commit with an unknown outcome.
func (s *Store) retry(ctx context.Context, try func() error) error {
	for wait := firstWait; ; wait = min(2*wait, maxWait) {
		err := try()
		if err == nil || errors.Is(err, errOutcomeUnknown) || !s.opts.Transient(err) {
			return err
		}
		timer := time.NewTimer(wait - rand.N(wait/2))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("%w; the last try: %w", ctx.Err(), err)
		}
	}
}

// transient is the default of Options.Transient.
func transient(err error) bool {
	return errors.Is(err, driver.ErrBadConn) || rolledBack(err)
}

// rolledBack reports whether err is a database's word that it rolled the transaction back
// because of another one.
func rolledBack(err error) bool {
	var coded interface{ SQLState() string }
	return errors.As(err, &coded) && (coded.SQLState() == "40001" || coded.SQLState() == "40P01")
}

// maxText is the size of text columns on MySQL, whose INSERT IGNORE cuts what is longer
// without a word; the other databases keep the same limit.
const maxText = 255

// checkText returns a *midas.ParamError unless the value of a parameter can be stored
// byte for byte in each database.
func checkText(param, value string) error {
	reason := ""
	switch {
	case len(value) > maxText:
		reason = fmt.Sprintf("%d bytes, at most %d are stored", len(value), maxText)
	case !utf8.ValidString(value) || strings.Contains(value, "\x00"):
		reason = "is not UTF-8 text without NUL"
	default:
		return nil
	}
	return &midas.ParamError{Param: param, Reason: reason}
}

// checkKey is checkText for what must not be empty.
func checkKey(param, value string) error {
	if value == "" {
		return &midas.ParamError{Param: param, Reason: "missing"}
	}
	return checkText(param, value)
}

// all iterates over the rows of a query. It yields an error once, as the last thing.
func all[T any](ctx context.Context, s *Store, scan func(*sql.Rows) (T, error), query string, args ...any) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		rows, err := s.db.QueryContext(ctx, query, args...)
		if err != nil {
			yield(none, fmt.Errorf("midassql: %w", err))
			return
		}
		defer rows.Close()
		for rows.Next() {
			row, err := scan(rows)
			if err != nil {
				yield(none, fmt.Errorf("midassql: %w", err))
				return
			}
			if !yield(row, nil) {
				return
			}
		}
		if err := rows.Err(); err != nil {
			yield(none, fmt.Errorf("midassql: %w", err))
		}
	}
}
