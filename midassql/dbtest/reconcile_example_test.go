package dbtest

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midassql"
	_ "modernc.org/sqlite"
)

// A payment is what makes it one: the bill has to be read into these.
type payment struct{ openID, billNo string }

// reconcile compares a bill of [from, to) with what was granted, and prints what a person has
// to look at.
func reconcile(ctx context.Context, out io.Writer, store *midassql.Store, bill map[payment]midas.Amount, from, to time.Time) error {
	const margin = 10 * time.Minute // Tencent's clock is not ours, and a callback may be late
	granted := make(map[payment]midassql.Payment)
	for d, err := range store.Payments(ctx, midassql.Query{From: from.Add(-margin), To: to.Add(margin)}) {
		if err != nil {
			return err
		}
		if d.State != midassql.StateNoted { // a refund that came before its payment
			granted[payment{d.OpenID, d.BillNo}] = d
		}
	}
	for p, charged := range bill {
		switch d, found := granted[p]; {
		case !found:
			fmt.Fprintln(out, "paid, not granted:", p.openID, p.billNo, charged)
		case d.Charged != charged:
			fmt.Fprintln(out, "another charge:", p.openID, p.billNo, "bill", charged, "callback", d.Charged)
		}
	}
	for p, d := range granted {
		inRange := !d.Time.Before(from) && d.Time.Before(to)
		if _, found := bill[p]; !found && inRange {
			fmt.Fprintln(out, "granted, not on the bill:", p.openID, p.billNo, d.Charged)
		}
	}
	return nil
}

func Example_reconcile() {
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
	noon := time.Date(2026, 2, 8, 12, 0, 0, 0, time.UTC)
	store, err := midassql.New(db, midassql.SQLite, midassql.Options{Now: func() time.Time { return noon }})
	if err != nil {
		log.Fatal(err)
	}
	if err := store.Migrate(ctx); err != nil {
		log.Fatal(err)
	}
	req := midas.OrderRequest{Player: midas.Player{OpenID: "ANNA"}, Items: []midas.Item{{ID: "gem60", Price: 60 * midas.QPoint, Quantity: 1}}}
	for _, token := range []string{"842C…1", "842C…2"} {
		if err := store.SaveOrder(ctx, req, &midas.Order{Token: token}); err != nil {
			log.Fatal(err)
		}
	}
	deliver := store.Once(func(context.Context, *sql.Tx, *midas.Delivery) error { return nil })
	for _, billNo := range []string{"-APP-1", "-APP-2"} {
		d := &midas.Delivery{OpenID: "ANNA", BillNo: billNo, Token: "842C…1", ZoneID: "1", Items: req.Items, Charged: 570, Time: noon}
		if err := deliver(ctx, d); err != nil {
			log.Fatal(err)
		}
	}

	bill := map[payment]midas.Amount{{"ANNA", "-APP-1"}: 570, {"ANNA", "-APP-3"}: 600}
	if err := reconcile(ctx, os.Stdout, store, bill, noon.Add(-12*time.Hour), noon.Add(12*time.Hour)); err != nil {
		log.Fatal(err)
	}
	for o, err := range store.UnpaidOrders(ctx, noon.Add(-time.Hour), noon.Add(time.Hour)) { // of a player who complains: what was ordered and never called back
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println("no callback yet:", o.OpenID, o.Token)
	}
	// Output:
	// paid, not granted: ANNA -APP-3 60 Q-points (6.00 yuan)
	// granted, not on the bill: ANNA -APP-2 57 Q-points (5.70 yuan)
	// no callback yet: ANNA 842C…2
}
