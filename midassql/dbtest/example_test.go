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
	_ "modernc.org/sqlite"
)

// The whole life of a payment: the order is stored before the app gets it, the callback
// comes twice, the items are granted once.
func Example() {
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

	store, err := midassql.New(db, midassql.SQLite, midassql.Options{})
	if err != nil {
		log.Fatal(err)
	}
	if err := store.Migrate(ctx); err != nil {
		log.Fatal(err)
	}
	if _, err := db.ExecContext(ctx, "CREATE TABLE player_items (openid TEXT, item TEXT, quantity INTEGER)"); err != nil {
		log.Fatal(err)
	}

	// After Client.CreateOrder, and before the app gets order.URLParams:
	req := midas.OrderRequest{Player: midas.Player{OpenID: "player"}, Items: []midas.Item{{ID: "gem60", Price: 60 * midas.QPoint, Quantity: 2}}}
	order := &midas.Order{Token: "842C…"}
	if err := store.SaveOrder(ctx, req, order); err != nil {
		log.Fatal(err)
	}

	deliver := store.Once(func(ctx context.Context, tx *sql.Tx, d *midas.Delivery) error {
		for _, item := range d.Items {
			_, err := tx.ExecContext(ctx, "INSERT INTO player_items VALUES (?, ?, ?)", d.OpenID, item.ID, item.Quantity)
			if err != nil {
				return err
			}
		}
		return nil
	})

	// A client's DeliveryHandler calls it for each verified callback.
	d := &midas.Delivery{OpenID: "player", Token: order.Token, BillNo: "-APP-1", Items: req.Items, Charged: 1200}
	fmt.Printf("%s\n", midas.ReplyTo(deliver(ctx, d)).Bytes())
	fmt.Printf("%s\n", midas.ReplyTo(deliver(ctx, d)).Bytes())
	d.Items[0].Price = 1
	d.BillNo = "-APP-2"
	fmt.Printf("%s\n", midas.ReplyTo(deliver(ctx, d)).Bytes())

	var gems int
	if err := db.QueryRowContext(ctx, "SELECT SUM(quantity) FROM player_items").Scan(&gems); err != nil {
		log.Fatal(err)
	}
	fmt.Println("gems:", gems)

	// Output:
	// {"ret":0,"msg":"OK"}
	// {"ret":0,"msg":"OK"}
	// {"ret":4,"msg":"bad_parameter:payitem"}
	// gems: 2
}
