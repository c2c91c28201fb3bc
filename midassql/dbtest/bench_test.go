package dbtest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midassql"
	"github.com/stretchr/testify/require"
)

// BenchmarkOnce is Once beside the same transaction written by hand, on PostgreSQL: what
// the package costs. Compare the two within one run; see .ci/databases.
func BenchmarkOnce(b *testing.B) { benchmarkOnce(b, openDatabase(b, postgreSQL)) }

// BenchmarkOnceSQLite is the same on SQLite, where no network hides the package's cost.
func BenchmarkOnceSQLite(b *testing.B) {
	db := openDatabase(b, sqlite)
	db.SetMaxOpenConns(1)
	benchmarkOnce(b, db)
}

func benchmarkOnce(b *testing.B, db *database) {
	store := db.store(b, midassql.Options{})
	const orders = 1000
	for i := range orders {
		ordered(b, store, "player", fmt.Sprint("token", i))
	}
	var payments atomic.Int64
	for _, contender := range []struct {
		name    string
		deliver midas.DeliverFunc
	}{
		{"handwritten", handwritten(db)},
		{"midassql", store.Once(db.grant)},
	} {
		b.Run(contender.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetParallelism(8) // callers a core
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					n := payments.Add(1)
					d := paid("player", fmt.Sprint("token", n%orders), fmt.Sprint("-", n))
					ctx, cancel := context.WithTimeout(b.Context(), 10*time.Second)
					err := contender.deliver(ctx, d)
					cancel()
					require.NoError(b, err)
				}
			})
		})
	}
}

// handwritten is what a careful backend would write without the package: the insert under the
// unique key, the order's look-up, the comparison, the grant, in one transaction.
func handwritten(db *database) midas.DeliverFunc {
	insert := db.sql(`INSERT INTO deliveries (openid, billno, token, zone, items, charged, called_at, granted_at)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (openid, billno) DO NOTHING`)
	lookUp := db.sql(`SELECT openid, items, max_quantity FROM orders WHERE token = ?`)
	return func(ctx context.Context, d *midas.Delivery) error {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer tx.Rollback()
		result, err := tx.ExecContext(ctx, insert, d.OpenID, d.BillNo, d.Token, d.ZoneID, midas.FormatItems(d.Items),
			int64(d.Charged), d.Time.Unix(), time.Now().Unix())
		if err != nil {
			return err
		}
		if n, err := result.RowsAffected(); err != nil || n == 0 {
			return err
		}
		var openID string
		var stored string
		var maxQuantity int
		switch err := tx.QueryRowContext(ctx, lookUp, d.Token).Scan(&openID, &stored, &maxQuantity); {
		case errors.Is(err, sql.ErrNoRows):
			return midas.ErrTokenNotFound
		case err != nil:
			return err
		}
		items, err := midas.ParseItems(stored)
		if err != nil {
			return err
		}
		if openID != d.OpenID || len(items) != len(d.Items) {
			return errors.New("not what was ordered")
		}
		for i := range items {
			if items[i] != d.Items[i] {
				return errors.New("not what was ordered")
			}
		}
		if err := db.grant(ctx, tx, d); err != nil {
			return err
		}
		return tx.Commit()
	}
}
