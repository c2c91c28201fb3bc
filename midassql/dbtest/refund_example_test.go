package dbtest

import (
	"context"
	"database/sql"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midassql"
)

// A refund in part leaves the payment alone, and one in full takes the items back, each told once.
func ExampleStore_Refund() {
	dir, err := os.MkdirTemp("", "midassql")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "game.db")+"?_pragma=busy_timeout(500)&_txlock=immediate")
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	store, err := midassql.New(db, midassql.SQLite, midassql.Options{AcceptAppOrders: true})
	if err != nil {
		log.Fatal(err)
	}
	if err := store.Migrate(ctx); err != nil {
		log.Fatal(err)
	}
	if _, err := db.ExecContext(ctx, "CREATE TABLE player_items (openid TEXT, billno TEXT, item TEXT, quantity INTEGER)"); err != nil {
		log.Fatal(err)
	}
	deliver := store.Once(func(ctx context.Context, tx *sql.Tx, d *midas.Delivery) error {
		_, err := tx.ExecContext(ctx, "INSERT INTO player_items VALUES (?, ?, ?, ?)", d.OpenID, d.BillNo, d.Items[0].ID, d.Items[0].Quantity)
		return err
	})
	if err := deliver(ctx, &midas.Delivery{AppID: "1450000000", OpenID: "oPlayer", BillNo: "-APPDJ-1", Token: "842C…", ZoneID: "1",
		Items: []midas.Item{{ID: "gem60", Price: 60 * midas.QPoint, Quantity: 1}}, Charged: 60 * midas.QPoint}); err != nil {
		log.Fatal(err)
	}

	for _, refund := range []struct {
		ticket string
		amount midas.Amount
	}{{"4711", 20 * midas.QPoint}, {"4712", 40 * midas.QPoint}, {"4712", 40 * midas.QPoint}} {
		result, err := refundByHand(ctx, store, "1450000000", refund.ticket, "oPlayer", "-APPDJ-1", refund.amount)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(result.Refunded.Yuan(), "of", result.Charged.Yuan(), "full:", result.Full, "repeat:", result.Repeat)
	}
	var gems int
	if err := db.QueryRowContext(ctx, "SELECT COALESCE(SUM(quantity), 0) FROM player_items").Scan(&gems); err != nil {
		log.Fatal(err)
	}
	fmt.Println("gems:", gems)

	// Output:
	// 2.00 of 6.00 full: false repeat: false
	// 6.00 of 6.00 full: true repeat: false
	// 6.00 of 6.00 full: true repeat: true
	// gems: 0
}

// refundByHand is the snippet of docs/support.md.
func refundByHand(ctx context.Context, store *midassql.Store, appID, ticket, openID, billNo string, amount midas.Amount) (midassql.RefundResult, error) {
	return store.Refund(ctx, midassql.Refund{
		ID: ticket, AppID: appID, OpenID: openID, BillNo: billNo, Amount: amount, // fen; 0: all of it
		By: "wang", Reason: "bought by a child",
	}, func(ctx context.Context, tx *sql.Tx, p *midassql.Payment, granted bool) error {
		if !granted || !p.RefundedInFull {
			return nil // the player never had it, or keeps it
		}
		_, err := tx.ExecContext(ctx, "DELETE FROM player_items WHERE openid = ? AND billno = ?", p.OpenID, p.BillNo)
		return err
	})
}
