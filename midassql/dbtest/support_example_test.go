package dbtest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midassql"
)

// The snippets of docs/ledger.md.

func lookUp(ctx context.Context, store *midassql.Store, day time.Time) error {
	for _, q := range []midassql.Query{
		{OpenID: "oPlayer"},                               // a player who complains
		{BillNo: "-APPDJ-1"},                              // a line of Tencent's bill
		{Number: "4200000042"},                            // what the player's receipt shows
		{Metadata: "shop-7"},                              // the game's own order number
		{From: day, To: day.Add(24 * time.Hour)},          // a day
		{State: midassql.StateStuck},                      // what needs a person
		{OpenID: "oPlayer", State: midassql.StateWaiting}, // what waits for a player
	} {
		for p, err := range store.Payments(ctx, q) {
			if err != nil {
				return err
			}
			fmt.Println(p.OpenID, p.BillNo, p.State, p.Stored, p.LastError)
		}
	}
	for o, err := range store.UnpaidOrders(ctx, day, day.Add(24*time.Hour)) { // ordered and not paid
		if err != nil {
			return err
		}
		fmt.Println(o.OpenID, o.Token, o.Saved)
	}
	return nil
}

func settleFromBill(ctx context.Context, store *midassql.Store, grant func(context.Context, *sql.Tx, *midas.Delivery) error) error {
	granted, err := store.Settle(ctx, midassql.Settlement{
		Delivery: &midas.Delivery{OpenID: "oPlayer", BillNo: "-APPDJ-1", ZoneID: "1",
			Items: []midas.Item{{ID: "gem60", Price: 60 * midas.QPoint, Quantity: 1}}, Charged: 60 * midas.QPoint, Time: time.Now()},
		By: "wang", Reason: "4711",
	}, grant)
	if err != nil {
		return err
	}
	if !granted {
		return errors.New("the payment is in the ledger already")
	}
	return nil
}

// Of docs/support.md.

// regrant grants a payment of the bill whose callback never came, with the backend's own grant.
func regrant(ctx context.Context, store *midassql.Store, appID, openID, billNo, zone, items, yuan, token, by, reason string) error {
	bought, err := midas.ParseItems(items) // gem60*60*1
	charged, err2 := midas.ParseYuan(yuan)
	if err := errors.Join(err, err2); err != nil {
		return err
	}
	granted, err := store.Settle(ctx, midassql.Settlement{
		Delivery: &midas.Delivery{AppID: appID, OpenID: openID, BillNo: billNo, ZoneID: zone, // without a token the zone is needed
			Items: bought, Charged: charged, Token: token, Time: time.Now()},
		By: by, Reason: reason,
	}, grant)
	if err == nil {
		fmt.Println("granted now:", granted) // false: it was in the ledger before
	}
	return err
}

func Example_regrant() {
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
	ctx := context.Background()
	store, err := midassql.New(db, midassql.SQLite, midassql.Options{})
	if err != nil {
		log.Fatal(err)
	}
	_, err = db.ExecContext(ctx, "CREATE TABLE player_items (openid TEXT, zone TEXT, item TEXT, quantity INTEGER)")
	req := catalogue["starter"]
	req.Player = midas.Player{OpenID: "oBO", ZoneID: "3"}
	if err := errors.Join(err, store.Migrate(ctx), store.SaveOrder(ctx, req, &midas.Order{Token: "842C0123"})); err != nil {
		log.Fatal(err)
	}
	for _, items := range []string{"gem60*60*1;sword*18*1", "gem60*60*1;sword*18*1", "sword*18*99"} {
		billNo := "-APPDJ-" + items[:3] // the third line is another payment
		if err := regrant(ctx, store, "1450000000", "oBO", billNo, "", items, "7.80", "842C0123", "lee", "ticket 4711"); err != nil {
			fmt.Println(err)
		}
	}
	for _, zone := range []string{"", "3"} { // no token: an order of the app's, or one that was purged
		if err := regrant(ctx, store, "1450000000", "oBO", "-APPDJ-app", zone, "gem60*60*1", "6.00", "", "lee", "ticket 4712"); err != nil {
			fmt.Println(err)
		}
	}
	var zone string
	var quantity int
	if err := db.QueryRowContext(ctx, "SELECT zone, SUM(quantity) FROM player_items").Scan(&zone, &quantity); err != nil {
		log.Fatal(err)
	}
	fmt.Println(quantity, "items in zone", zone)
	// Output:
	// granted now: true
	// granted now: false
	// midassql: Settle: Items (parameter payitem): 1 items, 2 were ordered
	// midassql: Settle: ZoneID (parameter zoneid): missing, and no order with this token is stored that would say it
	// granted now: true
	// 3 items in zone 3
}

func happened(ctx context.Context, store *midassql.Store) error {
	for a, err := range store.Attempts(ctx, midassql.Query{BillNo: "-APPDJ-1"}) { // callbacks that were not answered OK
		if err != nil {
			return err
		}
		fmt.Println(a.Time, a.Outcome, a.Ret, a.Error)
	}
	for a, err := range store.Acts(ctx, midassql.Query{OpenID: "oPlayer"}) { // what somebody did by hand
		if err != nil {
			return err
		}
		fmt.Println(a.Time, a.By, a.Kind, a.BillNo, a.Reason)
	}
	return nil
}

// Of docs/databases.md.
func check(ctx context.Context, db *sql.DB) error {
	store, err := midassql.New(db, midassql.PostgreSQL, midassql.Options{Environment: "live", Logger: slog.Default()})
	if err != nil {
		return err
	}
	findings, err := store.Check(ctx)
	for _, f := range findings {
		fmt.Println(f)
	}
	return err
}

var _, _, _, _ = lookUp, settleFromBill, happened, check
