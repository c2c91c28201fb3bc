// Package midassql delivers each payment exactly once, with the help of the game's own
// database.
//
// A verified callback can come twice, at once on two machines, or while a machine dies
// (protocol.md 1, the whole flow). (openid, billno) identifies the payment, and the only safe place to
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
// # What happened
//
// [Store.OnCallback] goes into midas.Config and keeps the callbacks that were not answered OK for
// [Store.Attempts]; [Store.Acts] has what somebody did by hand. Options.Environment keeps a sandbox
// server from granting out of the live tables.
//
// # Databases
//
// The package uses database/sql and imports no driver. It is tested (module dbtest) with pgx
// on PostgreSQL, go-sql-driver/mysql on MariaDB and MySQL, and modernc.org/sqlite;
// examples/gameserver shows how each is opened. db must be the primary, never a replica
// that lags behind.
//
// A payment is answered OK once it is committed, so a commit must be on disk: a database that is
// configured to lose its last second in a crash loses payments with it.
//
//   - PostgreSQL: leave synchronous_commit and fsync on, which is the default.
//   - MySQL, MariaDB: leave innodb_flush_log_at_trx_commit at its default 1; with a binary log
//     set sync_binlog=1. Set readTimeout and writeTimeout in go-sql-driver's DSN, since a
//     COMMIT does not end with the context, and innodb_lock_wait_timeout=1, since the server
//     goes on waiting for a lock after its client gave up. interpolateParams=true saves a round
//     trip for each statement, and is safe with UTF-8 alone (docs/databases.md).
//   - SQLite: leave PRAGMA synchronous at its default FULL. Set a busy timeout below the
//     time limit of a callback and let transactions begin with the write lock
//     ("?_pragma=busy_timeout(500)&_txlock=immediate" with modernc.org/sqlite); in WAL mode
//     readers do not wait. With one open connection (SetMaxOpenConns(1)) callers queue in
//     Go, which is fairer than SQLite's polling.
//
// Through PgBouncer in transaction mode pgx must not keep prepared statements: put
// default_query_exec_mode=exec into the connection string. On Galera and Percona XtraDB Cluster
// set wsrep_sync_wait=1 and interpolateParams=true, and where several members of a Group Replication
// are written to group_replication_consistency='BEFORE', or write to one node only.
//
// [Store.Check] reads which of these settings a server has. [Store.Migrate] creates the tables. Teams that
// run migrations of their own take the files in the folder schema, which are what Migrate runs.
// docs/ledger.md describes the tables.
//
// A [Store] is safe for use by multiple goroutines, and by any number of processes on one
// database.
package midassql

import (
	"context"
	"database/sql"
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

	// Environment is which world the tables belong to, such as "live" or "sandbox": lower-case letters, digits
	// and "_.-", at most 64. Migrate stores it in the tables, and a Store that names another one, or none, is
	// refused with [ErrEnvironment], so that a sandbox server that runs on the live database by mistake grants
	// nothing. Every Store reads it before its first write and each minute. Several offer ids may share the
	// tables of an environment. Empty and not stored either: nothing is compared, which is logged.
	Environment string

	// AttemptsKept is how long [Store.Attempts] knows a callback that was not answered OK. 0: 30 days;
	// below 0: none is stored.
	AttemptsKept time.Duration

	// Classify optionally says what an error of a transaction means, the grant's errors
	// included: whether the transaction is run again, and whether a failed commit may have
	// happened all the same. It calls [Dialect.Classify] for errors that it does not know. If
	// nil, it is that function. Vitess's 1105 and 1203 of a COMMIT are ClassUnknown whatever it says.
	Classify func(err error) Class

	// Logger optionally receives problems that need a person and that no return value reports: a grant
	// that lost its transaction, a payment that is stuck, that was granted although it was cancelled, or
	// that Retry cannot put back, a Work that cannot reach the database. At level Warn it receives what
	// somebody should look at one day, such as a payment in another zone than its order's. If nil, the
	// Store is silent.
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

	environment environment
	attempts    attempts

	mu      sync.Mutex
	wakeups map[chan struct{}]*Inbox // of every Work on this Store
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
		return nil, fmt.Errorf(`midassql: New: Options.TablePrefix %q: want at most 32 of a-z, 0-9 and "_", no digit first`, opts.TablePrefix)
	}
	if opts.Environment != "" && !plainEnvironment.MatchString(opts.Environment) {
		return nil, fmt.Errorf(`midassql: New: Options.Environment %q: want at most 64 of a-z, 0-9 and "_.-", such as "live"`, opts.Environment)
	}
	if opts.AttemptsKept == 0 {
		opts.AttemptsKept = attemptsKept
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
	s := &Store{db: db, dialect: dialect, grammar: grammar, opts: opts, wakeups: make(map[chan struct{}]*Inbox)}
	s.attempts.hurry = make(chan struct{}, 1)
	s.sql = s.statements()
	return s, nil
}

// Waits between the tries of a transaction; each has up to half of it taken off at random,
// so that two that collided do not collide again.
const (
	firstWait = 10 * time.Millisecond
	maxWait   = 200 * time.Millisecond
)

// inTx runs do in a transaction that writes: the tables have to be this environment's.
func (s *Store) inTx(ctx context.Context, do func(tx *sql.Tx) error) error {
	return s.inTxAt(ctx, sql.LevelDefault, do)
}

func (s *Store) inTxAt(ctx context.Context, level sql.IsolationLevel, do func(tx *sql.Tx) error) error {
	if ctx == nil {
		return errNilContext // database/sql would panic, and never give the connection back
	}
	if err := s.checkEnvironment(ctx); err != nil {
		return err
	}
	return s.transact(ctx, level, do)
}

// look runs do in a transaction that only reads.
func (s *Store) look(ctx context.Context, do func(tx *sql.Tx) error) error {
	if ctx == nil {
		return errNilContext
	}
	return s.transact(ctx, sql.LevelDefault, do)
}

// elsewhere runs a SELECT that counts rows of other players, and reports whether there are any. Where the tables
// are split by openid, they are on any shard, and Vitess before 23 refuses that in a transaction if transaction_mode
// is SINGLE. There alone the SELECT is in none: a proxy that splits reads would send it to a replica that lags.
func (s *Store) elsewhere(ctx context.Context, statement string, args ...any) (there bool, err error) {
	n, refused := 0, false
	err = s.look(ctx, func(tx *sql.Tx) error {
		err := tx.QueryRowContext(ctx, statement, args...).Scan(&n)
		refused = err != nil && strings.Contains(err.Error(), "multi-db transaction attempted")
		if refused {
			return nil
		}
		return err
	})
	if err == nil && refused {
		err = again(ctx, func() (Class, error) {
			if err := s.alone(ctx, statement, args, &n); err != nil {
				return s.classify(err, false), err
			}
			return ClassRolledBack, nil // no further try
		})
	}
	return n > 0, err
}

// alone runs a SELECT outside a transaction.
func (s *Store) alone(ctx context.Context, statement string, args []any, result any) error {
	conn, err := s.db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.QueryRowContext(ctx, statement, args...).Scan(result); err != nil {
		return err
	}
	// Where autocommit is off, the SELECT has begun a transaction, and the next BEGIN on the connection ends it.
	tx, err := conn.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	return tx.Rollback()
}

// transact runs do in a transaction, and retries until it commits, fails permanently, or ctx ends. Single
// statements need a transaction too: they would not be committed where autocommit is off. It does not
// retry after a commit with an unknown outcome.
func (s *Store) transact(ctx context.Context, level sql.IsolationLevel, do func(tx *sql.Tx) error) error {
	return again(ctx, func() (Class, error) { return s.try(ctx, level, do) })
}

// again calls try until the class of its error is not [ClassAgain], or ctx ends.
func again(ctx context.Context, try func() (Class, error)) error {
	for wait := firstWait; ; wait = min(2*wait, maxWait) {
		class, err := try()
		if class != ClassAgain {
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

// try runs do in one transaction, once.
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
	if err == nil && s.grammar.cancelledCommitMayHold {
		err = ctx.Err()
	}
	if err == nil {
		return ClassRolledBack, nil // no further try
	}
	class := s.classify(err, true)
	if class == ClassUnknown {
		err = fmt.Errorf("%w: %w", errOutcomeUnknown, err)
	}
	return class, err
}

func (s *Store) log(ctx context.Context, message string, attrs ...slog.Attr) {
	s.logAt(ctx, slog.LevelError, message, attrs...)
}

// logAt logs. A log handler that panics must not cost an answer or, in a goroutine of Work, the process.
func (s *Store) logAt(ctx context.Context, level slog.Level, message string, attrs ...slog.Attr) {
	defer func() { _ = recover() }()
	s.opts.Logger.LogAttrs(ctx, level, message, attrs...)
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

// maxText is the size of text columns on MySQL, whose INSERT IGNORE silently truncates longer values; the
// other databases keep the same limit.
const maxText = 255

// checkText says why a value cannot be stored byte for byte in every database; "" if it can.
func checkText(value string) (reason string) {
	switch {
	case len(value) > maxText:
		return fmt.Sprintf("%d bytes, at most %d are stored", len(value), maxText)
	case !utf8.ValidString(value) || strings.Contains(value, "\x00"):
		return "is not UTF-8 text without NUL"
	}
	return ""
}

// checkKey is checkText for a value that must not be empty.
func checkKey(value string) (reason string) {
	if value == "" {
		return "missing"
	}
	return checkText(value)
}

// clip makes descriptive text fit its column: a payment is not refused because of it.
func clip(text string) string {
	text = strings.ReplaceAll(strings.ToValidUTF8(text, "?"), "\x00", "?")
	if len(text) <= maxText {
		return text
	}
	return strings.ToValidUTF8(text[:maxText], "")
}

// pageSize is the number of rows that a look-up reads at once. Between two pages it holds no
// connection and no lock.
const pageSize = 500

// pages yields rows page by page; page reads the rows that follow last. in is Store.look, or Store.inTx where
// page writes, too. An error comes as the last pair.
func pages[T any](ctx context.Context, in func(context.Context, func(*sql.Tx) error) error, what string, page func(tx *sql.Tx, last *T) ([]T, error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var last *T
		for {
			var rows []T
			err := in(ctx, func(tx *sql.Tx) (err error) {
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

// parseItems reads a column items.
func parseItems(payitem string) ([]midas.Item, error) {
	if payitem == "" { // archived
		return nil, nil
	}
	return midas.ParseItems(payitem)
}

// formatItems is the inverse of parseItems. reason says what is wrong with items that would not read
// back the same.
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
