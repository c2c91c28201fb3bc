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
	"github.com/midas-go/midas/minigame"
	"github.com/midas-go/midas/minigame/minigametest"
)

// A mini game's payments in the ledger: the order is stored before the app gets it, WeChat
// pushes the delivery twice, and later a refund.
func Example_miniGame() {
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
	wechat := minigametest.NewServer(minigametest.Config{})
	defer wechat.Close()
	wechat.Publish("sword", 600*midas.Fen)
	client, err := minigame.New(wechat.ClientConfig())
	if err != nil {
		log.Fatal(err)
	}
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
	appID := wechat.ClientConfig().AppID

	ledger := store.MiniGame(midassql.MiniGameOptions{
		AppID: appID,
		Deliver: store.Once(func(ctx context.Context, tx *sql.Tx, d *midas.Delivery) error {
			for _, item := range d.Items {
				_, err := tx.ExecContext(ctx, "INSERT INTO player_items VALUES (?, ?, ?)", d.OpenID, item.ID, item.Quantity)
				if err != nil {
					return err
				}
			}
			return nil
		}),
		Refund: func(ctx context.Context, tx *sql.Tx, r *minigame.Refund, granted bool) error {
			fmt.Printf("refund of %d fen, granted: %t\n", r.Amount, granted) // write the debt into tx
			return nil
		},
		ShopProducts: map[string]midas.Amount{"chest": 3000 * midas.Fen},
	})
	handler := client.PushHandler(minigame.Handlers{Deliver: ledger.Deliver, Refund: ledger.Refund})

	// The endpoint where the app orders:
	session, err := client.Code2Session(ctx, wechat.Login("player"))
	if err != nil {
		log.Fatal(err)
	}
	req := minigame.OrderRequest{SessionKey: session.SessionKey, ProductID: "sword", Quantity: 1, Price: 600 * midas.Fen, OutTradeNo: "order-0001"}
	order, err := client.NewOrder(req)
	if err != nil {
		log.Fatal(err)
	}
	if err := ledger.SaveOrder(ctx, session.OpenID, req, order); err != nil {
		log.Fatal(err) // the app gets no order
	}

	// The player pays, and WeChat pushes:
	wechat.PushToHandler(handler)
	first, err := wechat.Pay(ctx, "player", order)
	if err != nil {
		log.Fatal(err)
	}
	second, err := wechat.Repeat(ctx, minigame.Live, order.OutTradeNo)
	if err != nil {
		log.Fatal(err)
	}
	var swords int
	if err := db.QueryRowContext(ctx, "SELECT SUM(quantity) FROM player_items").Scan(&swords); err != nil {
		log.Fatal(err)
	}
	fmt.Println("accepted:", first.Accepted, second.Accepted, "swords:", swords)
	if _, err := wechat.Refund(ctx, minigame.Live, order.OutTradeNo); err != nil {
		log.Fatal(err)
	}
	for p, err := range store.Payments(ctx, midassql.Query{BillNo: appID + "/0/order-0001"}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(p.OpenID, p.Items[0].ID, int64(p.Charged), p.State)
	}

	// Output:
	// accepted: true true swords: 1
	// refund of 600 fen, granted: true
	// player sword 600 done
}
