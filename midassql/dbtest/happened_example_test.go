package dbtest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midassql"
)

// A player paid and has nothing: what was tried, a settlement by hand, who did it, and what the player has
// spent this month.
func Example_whatHappened() {
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
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	store, err := midassql.New(db, midassql.SQLite, midassql.Options{Environment: "live", Now: func() time.Time { return now }})
	if err != nil {
		log.Fatal(err)
	}
	if err := store.Migrate(ctx); err != nil {
		log.Fatal(err)
	}
	req := midas.OrderRequest{Player: midas.Player{OpenID: "player", ZoneID: "3"}, Items: []midas.Item{{ID: "gem60", Price: 60 * midas.QPoint, Quantity: 1}}}
	if err := store.SaveOrder(ctx, req, &midas.Order{Token: "842C…"}); err != nil {
		log.Fatal(err)
	}

	// midas.Config{OnCallback: store.OnCallback} does this for every callback.
	store.OnCallback(midas.CallbackEvent{Outcome: midas.Failed, Ret: 1, OpenID: "player", BillNo: "-APP-1", Token: "842C…", Err: errors.New("the bag is full")})
	if err := store.Wait(ctx); err != nil {
		log.Fatal(err)
	}
	for a, err := range store.Attempts(ctx, midassql.Query{OpenID: "player"}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s %s: ret %d, %s: %s\n", a.Time.UTC().Format(time.DateTime), a.BillNo, a.Ret, a.Outcome, a.Error)
	}

	grant := func(_ context.Context, _ *sql.Tx, d *midas.Delivery) error {
		fmt.Println("granted in zone", d.ZoneID)
		return nil
	}
	settlement := midassql.Settlement{By: "anna", Reason: "ticket 4711", Delivery: &midas.Delivery{
		OpenID: "player", BillNo: "-APP-1", Token: "842C…", Items: req.Items, Charged: 600, Time: now}}
	if _, err := store.Settle(ctx, settlement, grant); err != nil {
		log.Fatal(err)
	}
	settlement.Delivery.BillNo = "-APP-1 " // pasted once more, with a blank
	_, err = store.Settle(ctx, settlement, grant)
	fmt.Println(err)

	for a, err := range store.Acts(ctx, midassql.Query{OpenID: "player"}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(a.Kind, a.BillNo, "by", a.By+":", a.Reason)
	}
	spent, err := store.Spent(ctx, []string{"player"}, now.AddDate(0, 0, -23), now.AddDate(0, 0, 7))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("spent", spent)

	// Output:
	// 2026-11-24 12:00:00 -APP-1: ret 1, failed: the bag is full
	// granted in zone 3
	// midassql: Settle: BillNo (parameter billno): holds white space or invisible characters: type it as Midas writes it
	// settle -APP-1 by anna: ticket 4711
	// spent 60 Q-points (6.00 yuan)
}
