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
	// Unknown: nothing is known. Of a COMMIT it means that the transaction may have been
	// committed.
	Unknown Class = iota
	// RolledBack: the transaction did not happen, and running it again is no use.
	RolledBack
	// Again: the transaction did not happen, and may succeed when it is run again.
	Again
)

// classify is Options.Classify in all that the package decides by itself. Of a commit, only
// a server's word counts: one that got no answer may have happened.
func (s *Store) classify(err error, commit bool) Class {
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.Is(err, errStoredBefore), errors.Is(err, errNotOneTransaction):
		return Unknown
	case errors.Is(err, driver.ErrBadConn) && commit:
		return Unknown
	}
	return s.opts.Classify(err)
}

// Classify returns the default of Options.Classify for a dialect. It knows the errors of the
// usual drivers without importing them:
//
//   - PostgreSQL: those with a method SQLState() string, as pgx and lib/pq have. Again are 40001
//     (serialisation), 40P01 (deadlock) and 55P03 (lock not to be had).
//   - MySQL: *mysql.MySQLError of go-sql-driver. Again are 1205, 1213, 1020 (another transaction
//     changed the row, MariaDB 11.6.2 and later), 3101 (group replication), 1047 (a Galera node that
//     is leaving) and TiDB's 8002, 8022, 8028 and 9007.
//   - SQLite: the errors of modernc.org/sqlite, mattn/go-sqlite3 and ncruces/go-sqlite3. Again are
//     SQLITE_BUSY and SQLITE_LOCKED.
//
// driver.ErrBadConn is Again for all of them.
func (d Dialect) Classify(err error) Class {
	if errors.Is(err, driver.ErrBadConn) {
		return Again
	}
	class := Unknown
	walk(err, func(err error) {
		if class == Unknown {
			class = d.classifyOne(err)
		}
	})
	return class
}

func (d Dialect) classifyOne(err error) Class {
	switch d {
	case PostgreSQL:
		if coded, ok := err.(interface{ SQLState() string }); ok {
			return sqlStateClass(coded.SQLState())
		}
	case MySQL:
		if number, ok := intField(err, "Number"); ok {
			return mysqlClass(number)
		}
	case SQLite:
		if code, ok := sqliteCode(err); ok {
			return sqliteClass(code)
		}
	}
	return Unknown
}

// sqliteCode returns the code of an error of SQLite.
func sqliteCode(err error) (code int64, ok bool) {
	if code, ok = intField(err, "Code"); ok { // mattn
		return code, true
	}
	return intMethod(err, "Code") // modernc, ncruces
}

// mayEndTx reports whether err may be how the database said that it has rolled back all of a
// transaction, and not only the statement: a deadlock, a full disk, an interrupt.
func (s *Store) mayEndTx(err error) bool {
	if s.opts.Classify(err) == Again {
		return true
	}
	may := false
	switch s.dialect {
	case MySQL:
		walk(err, func(err error) { may = may || mysqlMayEndTx(err) })
	case SQLite:
		// A context of the grant's own interrupts its statement, and that rolls back.
		may = errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
		walk(err, func(err error) { may = may || sqliteMayEndTx(err) })
	}
	return may
}

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
	code, _ := sqliteCode(err)
	switch code & 0xff {
	case 4, 5, 6, 7, 9, 10, 13: // SQLITE_ABORT, BUSY, LOCKED, NOMEM, INTERRUPT, IOERR, FULL
		return true
	}
	return false
}

func sqlStateClass(state string) Class {
	switch {
	case state == "40001", state == "40P01", state == "55P03":
		return Again
	case state == "40003" || len(state) != 5: // statement completion unknown
		return Unknown
	}
	switch state[:2] {
	case "22", "23", "25", "40", "42", "53", "54", "55": // the server refused: data, constraints, read-only, resources …
		return RolledBack
	}
	return Unknown
}

func mysqlClass(number int64) Class {
	switch number {
	case 1205, 1213, // lock wait timeout; deadlock, or Galera's certification
		1020,       // changed since last read: MariaDB's innodb_snapshot_isolation
		1047, 3101, // a Galera node that is leaving; group replication
		8002, 8022, 8028, 9007: // TiDB: conflicts, and a schema that changed
		return Again
	case 1062, 1290, 1792, 1836, 1021, 1114, 3100: // duplicate; read-only; full; refused by a hook
		return RolledBack
	}
	return Unknown
}

func sqliteClass(code int64) Class {
	switch code & 0xff { // the primary code of an extended one
	case 5, 6: // SQLITE_BUSY, SQLITE_LOCKED
		return Again
	case 8, 13, 19: // SQLITE_READONLY, SQLITE_FULL, SQLITE_CONSTRAINT
		return RolledBack
	}
	return Unknown
}

// walk calls visit for err and all that it wraps.
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
// refused for it (ret 1): orders have been purged before (see [Store.Purge]), or the callback is
// under 10 s old by its parameter ts, so that a node of the database may be behind the one that
// saved the order. With an older ts it is [midas.ErrTokenNotFound], ret 3.
var ErrNoOrder = errors.New("no order with this token is stored")

// ErrBroken says that a payment is [Broken]: a grant ended its transaction while it ran, and nobody
// knows what the player got. No callback grants it or is answered OK before somebody has looked
// (docs/ledger.md, payments that need a person).
var ErrBroken = errors.New("the payment is broken: see what the player has (docs/ledger.md, payments that need a person)")

// errOutcomeUnknown is a commit that failed in a way that may have come after it.
var errOutcomeUnknown = errors.New("outcome of the commit unknown")

// errStoredBefore rolls back a transaction whose insert found the payment there.
var errStoredBefore = errors.New("stored before")

var errNilContext = errors.New("the context is nil")

// errNotOneTransaction: see checkMark.
var errNotOneTransaction = fmt.Errorf("%w: the grant's transaction ended while it ran, and part of what it did may be committed: "+
	"does it ignore or replace an error of its tx, or run DDL?", ErrBroken)
