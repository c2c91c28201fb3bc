package dbtest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midassql"
)

// The snippets of docs/ledger.md.

func lookUp(ctx context.Context, store *midassql.Store, day time.Time) error {
	for _, q := range []midassql.Query{
		{OpenID: "oPlayer"},                          // a player who complains
		{BillNo: "-APPDJ-1"},                         // a line of Tencent's bill
		{Metadata: "shop-7"},                         // the game's own order number
		{From: day, To: day.Add(24 * time.Hour)},     // a day
		{State: midassql.Stuck},                      // what needs a person
		{OpenID: "oPlayer", State: midassql.Waiting}, // what waits for a player
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

var _, _ = lookUp, settleFromBill
