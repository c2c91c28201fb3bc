package dbtest

import (
	"context"
	"database/sql"
	"fmt"
	"log"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midassql"
	"github.com/midas-go/midas/minigame"
	"github.com/midas-go/midas/minigame/minigamesql"
	"github.com/midas-go/midas/minigame/minigametest"
)

// A mini game's payments in the ledger: the order is stored before the app gets it, WeChat
// pushes the delivery twice, and later a refund.
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
	wechat := minigametest.NewServer(minigametest.Config{})
	defer wechat.Close()
	wechat.Publish("sword", 600*midas.Fen)
	client, err := minigame.NewGame(wechat.GameConfig())
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
	appID := wechat.GameConfig().AppID

	ledger := minigamesql.New(store, minigamesql.Options{
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
		Refund: func(ctx context.Context, tx *sql.Tx, r *minigame.RefundPush, p *midassql.Payment, granted bool) error {
			fmt.Printf("refund of %s yuan, all of it: %t, granted: %t\n", r.Amount.Yuan(), p.RefundedInFull, granted) // write the debt into tx
			return nil
		},
		ShopProducts: map[string]midas.Amount{"chest": 3000 * midas.Fen},
	})
	handler := client.PushHandler(minigame.GameHandlers{Deliver: ledger.Deliver, Refund: ledger.Refund})

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
	wechat.PushToHandler(handler, "/push")
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
	// refund of 6.00 yuan, all of it: true, granted: true
	// player sword 600 done
}

// The player has paid and no push comes. Two minutes later the ledger asks.
func ExampleLedger_AskUnpaid() {
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
	wechat := minigametest.NewServer(minigametest.Config{MiniProgram: true})
	defer wechat.Close()
	wechat.Publish("sword", 600*midas.Fen)
	client, err := minigame.NewProgram(wechat.ProgramConfig())
	if err != nil {
		log.Fatal(err)
	}
	var later atomic.Int64
	now := func() time.Time { return time.Now().Add(time.Duration(later.Load())) }
	store, err := midassql.New(db, midassql.SQLite, midassql.Options{Now: now})
	if err != nil {
		log.Fatal(err)
	}
	if err := store.Migrate(ctx); err != nil {
		log.Fatal(err)
	}
	granted := make(chan string, 1)
	ledger := minigamesql.New(store, minigamesql.Options{
		AppID: wechat.ProgramConfig().AppID, Program: client, Now: now, Poll: 10 * time.Millisecond,
		Deliver: store.Once(func(ctx context.Context, tx *sql.Tx, d *midas.Delivery) error {
			granted <- fmt.Sprint(d.OpenID, " has paid for ", d.Items[0].ID) // and write it into tx
			return nil
		}),
	})

	session, err := client.Code2Session(ctx, wechat.Login("player"))
	if err != nil {
		log.Fatal(err)
	}
	req := minigame.OrderRequest{SessionKey: session.SessionKey, ProductID: "sword", Quantity: 1, Price: 600 * midas.Fen}
	order, err := client.NewOrder(req)
	if err != nil {
		log.Fatal(err)
	}
	if err := ledger.SaveOrder(ctx, session.OpenID, req, order); err != nil {
		log.Fatal(err) // the app gets no order
	}
	wechat.PushToHandler(http.NotFoundHandler(), "/push") // a wrong URL in the console
	if _, err := wechat.Pay(ctx, "player", order); err != nil {
		log.Fatal(err)
	}

	later.Store(int64(2 * time.Minute))
	asking, stop := context.WithCancel(ctx)
	stopped := make(chan error)
	go func() { stopped <- ledger.AskUnpaid(asking) }() // in a server: until it shuts down
	fmt.Println(<-granted)
	stop()
	fmt.Println(<-stopped)

	// Output:
	// player has paid for sword
	// context canceled
}
