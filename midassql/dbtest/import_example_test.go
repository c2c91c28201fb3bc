package dbtest

import (
	"context"
	"database/sql"
	"fmt"
	"iter"
	"log"
	"os"
	"path/filepath"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midassql"
)

// A backend in PHP has granted two payments. After the import a callback that comes again grants nothing.
func ExampleStore_Import() {
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

	for range 2 { // the second time nothing changes
		result, err := store.Import(midassql.By(ctx, "wang"), oldPayments())
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println("new:", result.New, "imported before:", result.Repeats)
		for _, known := range result.Known {
			fmt.Println("here already:", known.BillNo, known.State, "granted twice:", known.MayHave)
		}
	}

	deliver := store.Once(func(context.Context, *sql.Tx, *midas.Delivery) error {
		fmt.Println("granted")
		return nil
	})
	err = deliver(ctx, &midas.Delivery{AppID: "1450000000", OpenID: "oPlayer", BillNo: "-APPDJ-1", Token: "842C…", ZoneID: "1",
		Items: []midas.Item{{ID: "gem60", Price: 60 * midas.QPoint, Quantity: 1}}, Charged: 60 * midas.QPoint})
	fmt.Println("answered OK:", err == nil)

	// Output:
	// new: 2 imported before: 0
	// new: 0 imported before: 2
	// answered OK: true
}

// oldPayments are the payments that the older backend granted, such as from a query on its database.
func oldPayments() iter.Seq2[*midas.Delivery, error] {
	return func(yield func(*midas.Delivery, error) bool) {
		for i, at := range []string{"2026-11-23 20:15:00", "2026-11-24 09:30:00"} {
			granted, err := time.ParseInLocation(time.DateTime, at, time.Local)
			d := &midas.Delivery{AppID: "1450000000", OpenID: "oPlayer", BillNo: fmt.Sprintf("-APPDJ-%d", i+1), ZoneID: "1",
				Items: []midas.Item{{ID: "gem60", Price: 60 * midas.QPoint, Quantity: 1}}, Charged: 600 * midas.Fen, Time: granted}
			if !yield(d, err) {
				return
			}
		}
	}
}
