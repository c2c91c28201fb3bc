// Package midassql delivers each payment exactly once, with the help of the game's own
// database.
//
// A verified callback can come twice, at once on two machines, or while a machine dies
// (protocol.md 1, the whole flow). (openid, billno) is the payment's identity, and the only safe place to
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
// # Players who live elsewhere
//
// Where the player's items are not in this database (in the memory of a zone server, in Redis,
// in MongoDB), [Store.Inbox] stores the payment, answers OK, and hands it to the game until
// the game says that it is saved.
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
// Through PgBouncer in transaction mode pgx must not keep prepared statements: put
// default_query_exec_mode=exec into the connection string. On Galera and Percona XtraDB Cluster
// set wsrep_sync_wait=1 and interpolateParams=true, or write to one node only.
//
// [Store.Migrate] creates the tables. Teams that run migrations of their own take the files in
// the folder schema, which are what Migrate runs. docs/ledger.md describes the tables.
//
// A [Store] is safe for use by multiple goroutines, and by any number of processes on one
// database.
package midassql

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/midas-go/midas"
)

// Options changes how a [Store] works. The zero value is right for most games.
type Options struct {
	// TablePrefix is the beginning of the names of tables and indexes: lower-case letters,
	// digits and "_", at most 32. Empty means "midas_": midas_orders, midas_deliveries …
	TablePrefix string

	// AcceptAppOrders delivers payments whose token is not stored: orders that the app
	// itself placed (APP下单, protocol.md 1, the whole flow). There is nothing to compare those with, so
	// the grant must check item id and price against the game's catalogue. An order that is
	// stored is compared all the same. If false, an unknown token is refused: see [Store.Once].
	AcceptAppOrders bool

	// Classify optionally says what an error of a transaction means, the grant's errors
	// included: whether it is run again, and, of a commit that failed, whether it may have
	// happened all the same. It calls [Dialect.Classify] for what it does not know itself. If
	// nil, it is that function.
	Classify func(err error) Class

	// Logger optionally gets what somebody must look at and no caller is told: a grant that
	// lost its transaction, a payment that is stuck, one that was granted although it was
	// cancelled, one that Retry cannot put back, a Work that cannot reach the database. If nil, it is silent.
	Logger *slog.Logger

	// Now optionally specifies the clock that orders and payments are stored by. If nil,
	// time.Now. Waits and leases of an [Inbox] go by the database's clock.
	Now func() time.Time
}

// A Store remembers orders and payments in the game's database. Make one with [New]. It
// does not close the database. The zero value is not usable.
type Store struct {
	db      *sql.DB
	dialect Dialect
	grammar grammar
	opts    Options // every default filled in
	sql     statements

	mu      sync.Mutex
	wakeups map[chan struct{}]bool // of every Work on this Store
}

var plainPrefix = regexp.MustCompile(`^[a-z_][a-z0-9_]{0,31}$`)

// New returns a Store on db, which speaks dialect. It does not use db yet. The error names
// the argument or option that is missing or wrong.
func New(db *sql.DB, dialect Dialect, opts Options) (*Store, error) {
	if db == nil {
		return nil, errors.New("midassql: New: db is nil")
	}
	grammar, known := grammars[dialect]
	if !known {
		return nil, fmt.Errorf("midassql: New: unknown dialect %q: want midassql.PostgreSQL, MySQL (MariaDB too) or SQLite", string(dialect))
	}
	if opts.TablePrefix == "" {
		opts.TablePrefix = defaultPrefix
	}
	if !plainPrefix.MatchString(opts.TablePrefix) {
		return nil, fmt.Errorf(`midassql: Options.TablePrefix %q: want at most 32 of a-z, 0-9 and "_", no digit first`, opts.TablePrefix)
	}
	if opts.Classify == nil {
		opts.Classify = dialect.Classify
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	s := &Store{db: db, dialect: dialect, grammar: grammar, opts: opts, wakeups: make(map[chan struct{}]bool)}
	s.sql = s.statements()
	return s, nil
}

// Waits between the tries of a transaction; each has up to half of it taken off at random,
// so that two that collided do not collide again.
const (
	firstWait = 10 * time.Millisecond
	maxWait   = 200 * time.Millisecond
)

// inTx runs do in a transaction, as often as it takes until it succeeds or fails for good, or
// ctx ends. Single statements are run in one too: where autocommit is off they would not
// be committed. Nothing is tried again after a commit with an unknown outcome.
func (s *Store) inTx(ctx context.Context, do func(tx *sql.Tx) error) error {
	return s.inTxAt(ctx, sql.LevelDefault, do)
}

func (s *Store) inTxAt(ctx context.Context, level sql.IsolationLevel, do func(tx *sql.Tx) error) error {
	if ctx == nil {
		return errNilContext // database/sql would panic, and never give the connection back
	}
	for wait := firstWait; ; wait = min(2*wait, maxWait) {
		class, err := s.try(ctx, level, do)
		if class != Again {
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

// try is one try.
func (s *Store) try(ctx context.Context, level sql.IsolationLevel, do func(tx *sql.Tx) error) (Class, error) {
	tx, err := s.db.BeginTx(ctx, &sql.TxOptions{Isolation: level})
	if err != nil {
		return s.classify(err, false), err
	}
	defer tx.Rollback() // does nothing after a commit
	if err := do(tx); err != nil {
		return s.classify(err, false), err
	}
	err = tx.Commit()
	if err == nil && s.dialect == PostgreSQL {
		// When ctx ends, lib/pq cancels the commit. One that waits for a synchronous standby
		// then succeeds without it.
		err = ctx.Err()
	}
	if err == nil {
		return RolledBack, nil // no further try
	}
	class := s.classify(err, true)
	if class == Unknown {
		err = fmt.Errorf("%w: %w", errOutcomeUnknown, err)
	}
	return class, err
}

// log logs an error. A log handler that panics must cost neither an answer nor, in a goroutine
// of Work, the process.
func (s *Store) log(ctx context.Context, message string, attrs ...slog.Attr) {
	defer func() { _ = recover() }()
	s.opts.Logger.LogAttrs(ctx, slog.LevelError, message, attrs...)
}

// changed runs a statement of tx and reports whether it changed a row.
func changed(ctx context.Context, tx *sql.Tx, statement string, args ...any) (bool, error) {
	result, err := tx.ExecContext(ctx, statement, args...)
	if err != nil {
		return false, err
	}
	n, err := result.RowsAffected()
	return n > 0, err
}

// maxText is the size of text columns on MySQL, whose INSERT IGNORE cuts what is longer
// without a word; the other databases keep the same limit.
const maxText = 255

// checkText says why a value cannot be stored byte for byte in each database; "" if it can.
func checkText(value string) (reason string) {
	switch {
	case len(value) > maxText:
		return fmt.Sprintf("%d bytes, at most %d are stored", len(value), maxText)
	case !utf8.ValidString(value) || strings.Contains(value, "\x00"):
		return "is not UTF-8 text without NUL"
	}
	return ""
}

// checkKey is checkText for what must not be empty.
func checkKey(value string) (reason string) {
	if value == "" {
		return "missing"
	}
	return checkText(value)
}

// clip makes text that only describes a payment fit its column: a paid item is not refused
// for it.
func clip(text string) string {
	text = strings.ReplaceAll(strings.ToValidUTF8(text, "?"), "\x00", "?")
	if len(text) <= maxText {
		return text
	}
	return strings.ToValidUTF8(text[:maxText], "")
}

// pageSize is how many rows a look-up reads at once. Between two pages it holds neither
// connection nor lock.
const pageSize = 500

// pages yields the rows of one page after the other; page reads the one after last. An error
// comes as the last pair.
func pages[T any](ctx context.Context, s *Store, what string, page func(tx *sql.Tx, last *T) ([]T, error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var last *T
		for {
			var rows []T
			err := s.inTx(ctx, func(tx *sql.Tx) (err error) {
				rows, err = page(tx, last)
				return err
			})
			if err != nil {
				var none T
				yield(none, fmt.Errorf("midassql: %s: %w", what, err))
				return
			}
			for _, row := range rows {
				if !yield(row, nil) {
					return
				}
			}
			if len(rows) < pageSize {
				return
			}
			last = &rows[len(rows)-1]
		}
	}
}

// query returns the rows of a SELECT.
func query[T any](ctx context.Context, tx *sql.Tx, scan func(*sql.Rows) (T, error), statement string, args ...any) ([]T, error) {
	rows, err := tx.QueryContext(ctx, statement, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []T
	for rows.Next() {
		row, err := scan(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, row)
	}
	return all, rows.Err()
}

// parseItems reads a column items: payitem, or the JSON that release 0.1 wrote, which no
// payitem is.
func parseItems(column string) ([]midas.Item, error) {
	var items []midas.Item
	if json.Unmarshal([]byte(column), &items) == nil || column == "" { // empty: archived
		return items, nil
	}
	return midas.ParseItems(column)
}

// formatItems is the inverse of parseItems, and says what is wrong with items that would not be
// read back the same.
func formatItems(items []midas.Item) (payitem, reason string) {
	payitem = midas.FormatItems(items)
	parsed, err := midas.ParseItems(payitem)
	switch {
	case len(items) == 0:
		return "", "empty"
	case err != nil || !slices.Equal(parsed, items):
		return "", "an item's id, price or quantity cannot be written as id*price*num"
	}
	return payitem, ""
}
