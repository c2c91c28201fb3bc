package main

import (
	"database/sql"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/midas-go/midas/midassql"
)

// openDatabase opens the database of orders and payments; examples/gameserver says more about
// it. It does not connect yet, and no error shows the password.
func openDatabase(name string) (*sql.DB, midassql.Dialect, error) {
	scheme, _, _ := strings.Cut(name, "://")
	var (
		db      *sql.DB
		dialect midassql.Dialect
		err     error
	)
	switch scheme {
	case "postgres", "postgresql":
		dialect = midassql.PostgreSQL
		db, err = openPostgreSQL(name)
	case "mysql":
		dialect = midassql.MySQL
		db, err = openMySQL(name)
	default:
		err = errors.New("want postgres://… or mysql://…")
	}
	if err != nil {
		return nil, "", fmt.Errorf("-db: %w", err)
	}
	db.SetMaxOpenConns(20)
	db.SetMaxIdleConns(20)
	db.SetConnMaxLifetime(5 * time.Minute)
	return db, dialect, nil
}

func openPostgreSQL(name string) (*sql.DB, error) {
	config, err := pgx.ParseConfig(name)
	if err != nil {
		return nil, err // pgx masks the password
	}
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = time.Second // a callback has 1.5 s
	}
	return stdlib.OpenDB(*config), nil
}

func openMySQL(name string) (*sql.DB, error) {
	u, err := url.Parse(name)
	if err != nil {
		return nil, errors.New(`want "mysql://user:password@host:3306/database"`) // err shows the password
	}
	// The driver does not end a COMMIT with the context, and the server goes on waiting for a
	// lock after its client gave up.
	config, err := mysql.ParseDSN("/?timeout=1s&readTimeout=3s&writeTimeout=3s&innodb_lock_wait_timeout=1&lock_wait_timeout=1&" + u.RawQuery)
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
