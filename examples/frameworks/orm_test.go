package frameworks

import (
	"context"
	"database/sql"
	"errors"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/go-sql-driver/mysql"
	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midassql"
	"github.com/stretchr/testify/require"
)

// What gorm and xorm write is gone with the delivery when the grant fails, and there once
// when it does not.
func TestAnORMsRowsAreRolledBackWithTheDelivery(t *testing.T) {
	db := openMySQL(t)
	for _, test := range []struct {
		name  string
		grant func(context.Context, *sql.Tx, *midas.Delivery) error
	}{
		{"gorm", GrantWithGorm},
		{"xorm", GrantWithXorm},
	} {
		t.Run(test.name, func(t *testing.T) {
			store, err := midassql.New(db, midassql.MySQL, midassql.Options{TablePrefix: "frameworks_", AcceptAppOrders: true})
			require.NoError(t, err)
			require.NoError(t, store.Migrate(t.Context()))
			t.Cleanup(func() { execute(t, db, "DROP TABLE frameworks_orders, frameworks_deliveries, bag_items") })
			execute(t, db, `CREATE TABLE bag_items (id BIGINT AUTO_INCREMENT PRIMARY KEY,
				openid VARCHAR(255) NOT NULL, billno VARCHAR(255) NOT NULL, item VARCHAR(255) NOT NULL, quantity INT NOT NULL)`)

			fail := true
			deliver := store.Once(func(ctx context.Context, tx *sql.Tx, d *midas.Delivery) error {
				if err := test.grant(ctx, tx, d); err != nil {
					return err
				}
				var n int
				require.NoError(t, tx.QueryRowContext(ctx, "SELECT COUNT(*) FROM bag_items").Scan(&n))
				require.Equal(t, 2, n, "not on the delivery's transaction")
				if fail {
					return errors.New("the bag is full")
				}
				return nil
			})
			d := &midas.Delivery{OpenID: "player", BillNo: "-1", Token: "token", ZoneID: "1", Charged: 660 * midas.Fen,
				Items: []midas.Item{{ID: "gem60", Price: 60 * midas.QPoint, Quantity: 1}, {ID: "sword", Price: 3 * midas.QPoint, Quantity: 2}}}

			require.ErrorContains(t, deliver(t.Context(), d), "the bag is full")
			require.Empty(t, bagItems(t, db), "kept although the delivery was rolled back")
			fail = false
			for range 3 { // repeats
				require.NoError(t, deliver(t.Context(), d))
			}
			require.Equal(t, []BagItem{
				{OpenID: "player", BillNo: "-1", Item: "gem60", Quantity: 1},
				{OpenID: "player", BillNo: "-1", Item: "sword", Quantity: 2},
			}, bagItems(t, db))
		})
	}
}

func bagItems(t *testing.T, db *sql.DB) (items []BagItem) {
	rows, err := db.QueryContext(t.Context(), "SELECT openid, billno, item, quantity FROM bag_items ORDER BY id")
	require.NoError(t, err)
	defer rows.Close()
	for rows.Next() {
		var item BagItem
		require.NoError(t, rows.Scan(&item.OpenID, &item.BillNo, &item.Item, &item.Quantity))
		items = append(items, item)
	}
	require.NoError(t, rows.Err())
	return items
}

func execute(t *testing.T, db *sql.DB, statement string) {
	_, err := db.Exec(statement)
	require.NoError(t, err)
}

func openMySQL(t *testing.T) *sql.DB {
	server := os.Getenv("MIDAS_TEST_MYSQL") // mysql://user:password@host:port/database
	if server == "" {
		if os.Getenv("MIDAS_TEST_REQUIRE_ALL") == "1" {
			t.Fatal("MIDAS_TEST_MYSQL is not set, and MIDAS_TEST_REQUIRE_ALL=1")
		}
		t.Skip("SKIPPED, NOT TESTED: MIDAS_TEST_MYSQL is not set")
	}
	u, err := url.Parse(server)
	require.NoError(t, err)
	config := mysql.NewConfig()
	config.Net, config.Addr, config.DBName, config.User = "tcp", u.Host, strings.TrimPrefix(u.Path, "/"), u.User.Username()
	config.Passwd, _ = u.User.Password()
	connector, err := mysql.NewConnector(config)
	require.NoError(t, err)
	db := sql.OpenDB(connector)
	t.Cleanup(func() { db.Close() })
	return db
}
