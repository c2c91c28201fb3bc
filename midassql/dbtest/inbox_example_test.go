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

// A player's record, as the game saves it in one write: items and the ids of the payments that
// brought them.
type record struct {
	gems int
	paid map[string]bool
}

// A payment for a player in a zone server's memory. The worker is called again for a payment that
// it has saved, as after a crash; the id in the record keeps the gems from doubling.
func ExampleStore_Inbox() {
	dir, err := os.MkdirTemp("", "midassql")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "game.db")+"?_pragma=busy_timeout(500)&_pragma=journal_mode(WAL)&_txlock=immediate")
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	store, err := midassql.New(db, midassql.SQLite, midassql.Options{})
	if err != nil {
		log.Fatal(err)
	}
	if err := store.Migrate(ctx); err != nil {
		log.Fatal(err)
	}
	inbox, err := store.Inbox(midassql.InboxOptions{Zones: []string{"1"}})
	if err != nil {
		log.Fatal(err)
	}

	// The backend places an order, and the gateway gets the callback.
	req := midas.OrderRequest{Player: midas.Player{OpenID: "ANNA", ZoneID: "1"}, Items: []midas.Item{{ID: "gem60", Price: 60 * midas.QPoint, Quantity: 1}}}
	if err := store.SaveOrder(ctx, req, &midas.Order{Token: "842C…1"}); err != nil {
		log.Fatal(err)
	}
	d := &midas.Delivery{OpenID: "ANNA", BillNo: "-APP-1", Token: "842C…1", ZoneID: "1", Items: req.Items, Charged: 600}
	fmt.Printf("%s\n", midas.ReplyTo(inbox.Deliver(ctx, d)).Bytes())

	// The zone server.
	players := map[string]*record{"ANNA": {paid: make(map[string]bool)}}
	save := func(d *midas.Delivery) {
		player, id := players[d.OpenID], midas.PaymentID(d.OpenID, d.BillNo)
		if !player.paid[id] {
			player.gems += 60 * d.Items[0].Quantity
			player.paid[id] = true
		}
	}
	calls := 0
	working, stop := context.WithCancel(ctx)
	inbox.Work(working, func(_ context.Context, d *midas.Delivery) error {
		save(d)
		if calls++; calls == 1 {
			return fmt.Errorf("the answer of the save was lost") // so it is tried again after 1 s
		}
		stop()
		return nil
	})
	fmt.Println("calls:", calls, "gems:", players["ANNA"].gems)

	// At the next login nothing waits.
	for d, err := range inbox.Waiting(ctx, "ANNA") {
		fmt.Println("waits:", d, err)
	}
	// Output:
	// {"ret":0,"msg":"OK"}
	// calls: 2 gems: 60
}
