package midassql

import (
	"context"
	"database/sql/driver"
	"errors"
	"reflect"
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
		code, ok := intField(err, "Code") // mattn
		if !ok {
			code, ok = intMethod(err, "Code") // modernc, ncruces
		}
		if ok {
			return sqliteClass(code)
		}
	}
	return Unknown
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

// errOutcomeUnknown is a commit that failed in a way that may have come after it.
var errOutcomeUnknown = errors.New("outcome of the commit unknown")

// errStoredBefore rolls back a transaction whose insert found the payment there.
var errStoredBefore = errors.New("stored before")

var errNilContext = errors.New("the context is nil")

// errNotOneTransaction: see checkMark.
var errNotOneTransaction = errors.New("the grant's transaction ended while it ran, and part of what it did may be committed: " +
	"does it ignore an error of its tx, or run DDL?")
