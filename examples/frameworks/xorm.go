package frameworks

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"

	"github.com/midas-go/midas"
	"xorm.io/xorm"
	"xorm.io/xorm/core"
)

// GrantWithXorm is a grant for midassql.Store.Once that writes with xorm, on the delivery's own
// transaction. For PostgreSQL write "postgres", "dbname=game".
func GrantWithXorm(ctx context.Context, tx *sql.Tx, d *midas.Delivery) error {
	db := sql.OpenDB(onTx{tx})
	defer db.Close()
	engine, err := xorm.NewEngineWithDB("mysql", "/", core.FromDB(db))
	if err != nil {
		return err
	}
	rows := bagItems(d)
	_, err = engine.Context(ctx).Insert(&rows)
	return err
}

// onTx lets a library that takes a *sql.DB and no *sql.Tx work on a transaction: sql.OpenDB makes a
// DB of it whose connections all are that transaction. Use one at a time, so read a
// result to its end before the next statement.
type onTx struct{ *sql.Tx }

func (c onTx) Connect(context.Context) (driver.Conn, error) { return c, nil }
func (c onTx) Driver() driver.Driver                        { return nil }

var errOnTx = errors.New("this is a transaction already: it is committed with the delivery")

func (c onTx) Begin() (driver.Tx, error)                { return nil, errOnTx }
func (c onTx) Prepare(string) (driver.Stmt, error)      { return nil, errors.New("no prepared statements") }
func (c onTx) Close() error                             { return nil }
func (c onTx) CheckNamedValue(*driver.NamedValue) error { return nil } // the real driver converts

func (c onTx) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	return c.Tx.ExecContext(ctx, query, values(args)...)
}

func (c onTx) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	rows, err := c.Tx.QueryContext(ctx, query, values(args)...) //nolint:rowserrcheck // Next returns it
	if err != nil {
		return nil, err
	}
	columns, err := rows.Columns()
	return &rowsOnTx{rows, columns}, err
}

func values(args []driver.NamedValue) []any {
	values := make([]any, len(args))
	for i, arg := range args {
		values[i] = arg.Value
	}
	return values
}

type rowsOnTx struct {
	*sql.Rows
	columns []string
}

func (r *rowsOnTx) Columns() []string { return r.columns }

func (r *rowsOnTx) Next(row []driver.Value) error {
	if !r.Rows.Next() {
		if err := r.Err(); err != nil {
			return err
		}
		return io.EOF
	}
	into := make([]any, len(row))
	for i := range row {
		into[i] = &row[i]
	}
	return r.Scan(into...)
}

// ColumnTypeDatabaseTypeName is what xorm reads values by.
func (r *rowsOnTx) ColumnTypeDatabaseTypeName(i int) string {
	types, err := r.ColumnTypes()
	if err != nil {
		return ""
	}
	return types[i].DatabaseTypeName()
}
