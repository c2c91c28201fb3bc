package midassql

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"reflect"
	"strings"
)

// A Class says what an error of a transaction means. See Options.Classify.
type Class int

const (
	// ClassUnknown: nothing is known. For a COMMIT it means that the transaction may have been
	// committed.
	ClassUnknown Class = iota
	// ClassRolledBack: the transaction did not happen, and would fail again.
	ClassRolledBack
	// ClassAgain: the transaction did not happen, and may succeed when it is run again.
	ClassAgain
)

// classify is Options.Classify after what the package knows by itself. Only the server can say that
// a commit failed: a commit that got no answer may have happened.
func (s *Store) classify(err error, commit bool) Class {
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.Is(err, errStoredBefore), errors.Is(err, errNotOneTransaction):
		return ClassUnknown
	case errors.Is(err, driver.ErrBadConn) && commit:
		return ClassUnknown
	}
	class := s.opts.Classify(err)
	if commit && class == ClassAgain && s.fromVitess(err) {
		return ClassUnknown
	}
	return class
}

// fromVitess reports whether err is one of vtgate's own. A COMMIT that fails so may have reached the shard.
func (s *Store) fromVitess(err error) (is bool) {
	walk(err, func(err error) { is = is || s.dialect == MySQL && vitessIsElsewhere(err) })
	return is
}

// Classify returns the default of Options.Classify for a dialect. It knows the errors of the
// usual drivers without importing them:
//
//   - PostgreSQL: those with a method SQLState() string, as pgx and lib/pq have. ClassAgain are 40001
//     (serialisation), 40P01 (deadlock) and 55P03 (lock not available).
//   - MySQL: *mysql.MySQLError of go-sql-driver. ClassAgain are 1205, 1213, 1020 (another
//     transaction changed the row, MariaDB 11.6.2 and later), 3101 and 1180 "Got error 149" (group replication), 1047 (a Galera
//     node that is leaving), Vitess's 1105 while a shard gets another primary or is split, and 1203 where a
//     tablet has no connection left, and TiDB's 8002, 8022, 8028 and 9007. Of a COMMIT a Store takes Vitess's for
//     ClassUnknown: the shard may have it.
//   - SQLite: the errors of modernc.org/sqlite, mattn/go-sqlite3 and ncruces/go-sqlite3. ClassAgain
//     are SQLITE_BUSY and SQLITE_LOCKED.
//
// driver.ErrBadConn is ClassAgain in every dialect. A Dialect that [New] refuses knows no error.
func (d Dialect) Classify(err error) Class {
	grammar, known := grammars[d]
	switch {
	case errors.Is(err, driver.ErrBadConn):
		return ClassAgain
	case !known:
		return ClassUnknown
	}
	class := ClassUnknown
	walk(err, func(err error) {
		if class == ClassUnknown {
			class = grammar.classify(err)
		}
	})
	return class
}

// sqliteCode returns the code of an error of SQLite.
func sqliteCode(err error) (code int64, ok bool) {
	if code, ok = intField(err, "Code"); ok { // mattn
		return code, true
	}
	return intMethod(err, "Code") // modernc, ncruces
}

// mayEndTx reports whether err may mean that the database rolled back the whole transaction, not just
// the statement: a deadlock, a full disk, an interrupt.
func (s *Store) mayEndTx(err error) bool {
	may := s.opts.Classify(err) == ClassAgain
	walk(err, func(err error) { may = may || s.grammar.mayEndTx(err) })
	return may
}

// PostgreSQL keeps a transaction whose statement failed: nothing in it succeeds any more, its commit
// included.
func postgresMayEndTx(error) bool { return false }

func mysqlMayEndTx(err error) bool {
	if _, ok := intField(err, "Number"); !ok {
		return false
	}
	switch state := stringField(err, "SQLState"); {
	case strings.HasPrefix(state, "22"), strings.HasPrefix(state, "23"), strings.HasPrefix(state, "42"):
		return false // the statement's data, a constraint, the statement itself
	}
	return true
}

func sqliteMayEndTx(err error) bool {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return true // a context of the grant's own interrupts its statement, and that rolls back
	}
	code, _ := sqliteCode(err)
	switch code & 0xff {
	case 4, 5, 6, 7, 9, 10, 13: // SQLITE_ABORT, BUSY, LOCKED, NOMEM, INTERRUPT, IOERR, FULL
		return true
	}
	return false
}

func classifyPostgres(err error) Class {
	coded, ok := err.(interface{ SQLState() string })
	if !ok {
		return ClassUnknown
	}
	state := coded.SQLState()
	switch {
	case state == "40001", state == "40P01", state == "55P03":
		return ClassAgain
	case state == "40003" || len(state) != 5: // statement completion unknown
		return ClassUnknown
	}
	switch state[:2] {
	case "22", "23", "25", "40", "42", "53", "54", "55": // the server refused: data, constraints, read-only, resources …
		return ClassRolledBack
	}
	return ClassUnknown
}

func classifyMySQL(err error) Class {
	switch number, _ := intField(err, "Number"); number {
	case 1180: // at COMMIT, for many reasons; 149 is group replication's: another member's transaction was first
		if strings.Contains(err.Error(), "Got error 149 - ") {
			return ClassAgain
		}
	case 1205, 1213, // lock wait timeout; deadlock, or Galera's certification
		1020,       // changed since last read: MariaDB's innodb_snapshot_isolation
		1047, 3101, // a Galera node that is leaving; group replication
		8002, 8022, 8028, 9007: // TiDB: conflicts, and a schema that changed
		return ClassAgain
	case 1062, 1290, 1792, 1836, 1021, 1114, 3100: // duplicate; read-only; full; refused by a hook
		return ClassRolledBack
	}
	if vitessIsElsewhere(err) {
		return ClassAgain
	}
	return ClassUnknown
}

// vitessIsElsewhere reports whether a statement met a shard of Vitess while it got another primary or was
// split, or a tablet whose pool was full. 1105 is any error of vtgate's own: the text says which.
func vitessIsElsewhere(err error) bool {
	switch number, _ := intField(err, "Number"); number {
	case 1203:
		return true
	case 1105:
		for _, text := range []string{
			"there may be a reparent operation in progress", "current keyspace is being resharded", "disallowed due to rule",
			"SHUTTING_DOWN", "NOT_SERVING", "no healthy tablet available",
		} {
			if strings.Contains(err.Error(), text) {
				return true
			}
		}
	}
	return false
}

func classifySQLite(err error) Class {
	code, _ := sqliteCode(err)
	switch code & 0xff { // the primary code of an extended one
	case 5, 6: // SQLITE_BUSY, SQLITE_LOCKED
		return ClassAgain
	case 8, 13, 19: // SQLITE_READONLY, SQLITE_FULL, SQLITE_CONSTRAINT
		return ClassRolledBack
	}
	return ClassUnknown
}

// walk calls visit for err and for every error that it wraps.
func walk(err error, visit func(error)) {
	if err == nil {
		return
	}
	visit(err)
	switch e := err.(type) { //nolint:errorlint // this walks the tree itself
	case interface{ Unwrap() error }:
		walk(e.Unwrap(), visit)
	case interface{ Unwrap() []error }:
		for _, wrapped := range e.Unwrap() {
			walk(wrapped, visit)
		}
	}
}

// intField returns an integer field of the struct that err is or points to.
func intField(err error, name string) (int64, bool) {
	v := reflect.Indirect(reflect.ValueOf(err))
	if v.Kind() != reflect.Struct {
		return 0, false
	}
	return toInt(v.FieldByName(name))
}

// stringField returns a field of the struct that err is or points to, which is an array of bytes.
func stringField(err error, name string) string {
	v := reflect.Indirect(reflect.ValueOf(err))
	if v.Kind() != reflect.Struct {
		return ""
	}
	if v = v.FieldByName(name); !v.IsValid() || v.Kind() != reflect.Array || v.Type().Elem().Kind() != reflect.Uint8 {
		return ""
	}
	text := make([]byte, v.Len())
	reflect.Copy(reflect.ValueOf(text), v)
	return string(text)
}

// intMethod returns what a method without arguments returns, if that is an integer.
func intMethod(err error, name string) (int64, bool) {
	m := reflect.ValueOf(err).MethodByName(name)
	if !m.IsValid() || m.Type().NumIn() != 0 || m.Type().NumOut() != 1 {
		return 0, false
	}
	return toInt(m.Call(nil)[0])
}

func toInt(v reflect.Value) (int64, bool) {
	switch {
	case !v.IsValid():
	case v.CanInt():
		return v.Int(), true
	case v.CanUint():
		return int64(v.Uint()), true
	}
	return 0, false
}

// ErrNoOrder says that no order with the token of a callback is stored, and that the payment is not
// refused for it (ret 1): orders have been purged (see [Store.Purge]), or the callback is
// under 10 s old by its parameter ts, so that a node of the database may be behind the node that
// saved the order. With an older ts the error is [midas.ErrTokenNotFound], ret 3.
var ErrNoOrder = errors.New("no order with this token is stored")

// ErrBroken says that a payment is [StateBroken]: a grant ended its transaction while it ran, and part of
// what it did may be committed. No callback grants the payment or is answered OK before support has
// looked at what the player has (docs/repair.md).
var ErrBroken = errors.New("the payment is broken: see what the player has (docs/repair.md)")

// ErrRefunded says that a payment was refunded in full, so that it is not to be settled by hand.
var ErrRefunded = errors.New("the payment was refunded in full")

// errOutcomeUnknown is a failed commit that may have happened all the same.
var errOutcomeUnknown = errors.New("outcome of the commit unknown")

// errStoredBefore rolls back a transaction whose first write found the payment, or the refund, in another
// state than expected.
var errStoredBefore = errors.New("stored before")

// ErrTellEnded says that the tell of a refund failed after its transaction had ended (see [Store.Refund]): the
// refund is noted, so that nothing tells of it again, and part of what tell did may be committed. See what the
// player has (docs/repair.md).
var ErrTellEnded = errors.New("the refund is noted and was told in part: see what the player has (docs/repair.md)")

var errNilContext = errors.New("the context is nil")

// errNotOneTransaction says that a grant ended its transaction: see checkMark.
var errNotOneTransaction = fmt.Errorf("%w: the grant's transaction ended while it ran, and part of what it did may be committed: "+
	"does it ignore or replace an error of its tx, or run DDL?", ErrBroken)
