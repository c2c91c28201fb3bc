package main

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/midas-go/midas/midassql"
)

// A database is that of orders and payments, opened as midassql wants it.
type database struct {
	*sql.DB
	dialect midassql.Dialect
}

const maxConns = 20

// openDatabase opens postgres://… or mysql://…; examples/gameserver says more about it. It does
// not connect yet, and no error shows the password.
func openDatabase(name string) (*database, error) {
	scheme, _, _ := strings.Cut(name, "://")
	db := new(database)
	err := errors.New("want postgres://… or mysql://…")
	switch scheme {
	case "postgres", "postgresql":
		db.dialect = midassql.PostgreSQL
		db.DB, err = openPostgreSQL(name)
	case "mysql":
		db.dialect = midassql.MySQL
		db.DB, err = openMySQL(name)
	}
	if err != nil {
		return nil, fmt.Errorf("-db: %w", err)
	}
	db.SetMaxOpenConns(maxConns)
	db.SetMaxIdleConns(maxConns)
	db.SetConnMaxLifetime(5 * time.Minute)
	return db, nil
}

// readOnlyTransaction is PostgreSQL's code for a write on a node that takes none.
const readOnlyTransaction = "25006"

// classify is for midassql.Options. Where one connection has lost its node, so have those that
// wait in the pool.
func (db *database) classify(err error) midassql.Class {
	var refused *pgconn.PgError
	readOnly := errors.As(err, &refused) && refused.Code == readOnlyTransaction
	if readOnly || errors.Is(err, driver.ErrBadConn) {
		db.SetMaxIdleConns(0) // closes the idle ones
		db.SetMaxIdleConns(maxConns)
	}
	if readOnly {
		return midassql.ClassAgain // on the node that takes writes now
	}
	return db.dialect.Classify(err)
}

func openPostgreSQL(name string) (*sql.DB, error) {
	config, err := pgx.ParseConfig(name)
	if err != nil {
		return nil, err // pgx masks the password
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
	return sql.OpenDB(fewAtOnce{stdlib.GetConnector(*config), make(chan struct{}, 2)}), nil
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

func openMySQL(name string) (*sql.DB, error) {
	u, err := url.Parse(name)
	if err != nil {
		return nil, errors.New(`want "mysql://user:password@host:3306/database"`) // err shows the password
	}
	if err := checkCharset(u.RawQuery); err != nil {
		return nil, err
	}
	// The driver does not end a COMMIT with the context, and the server goes on waiting for a
	// lock after its client gave up: both need limits of their own. rejectReadOnly hangs up on a
	// server that became read-only, since its address may belong to another one now. interpolateParams
	// saves the round trip that prepares a statement.
	config, err := mysql.ParseDSN("/?timeout=1s&readTimeout=3s&writeTimeout=3s&rejectReadOnly=true&interpolateParams=true&innodb_lock_wait_timeout=1&lock_wait_timeout=1&" + u.RawQuery)
	if err != nil {
		return nil, err
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
		return nil, err
	}
	return sql.OpenDB(connector), nil
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
