package midas_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midassql"
)

// The code of README.md. midassql's own tests run its parts on real databases.

// A product is what the shop sells. Price and items are the server's, never the app's.
type product struct {
	name, description string
	items             []midas.Item
}

var catalogue = map[string]product{
	"starter": {"Starter pack", "60 gems and a sword", []midas.Item{
		{ID: "gem60", Price: 60 * midas.QPoint, Quantity: 1},
		{ID: "sword", Price: 18 * midas.QPoint, Quantity: 1},
	}},
}

// A player is who is logged in at the game, with what the app got from QQ or WeChat.
type player struct {
	login                      midas.Login
	openID, openKey, pf, pfKey string
	zone                       string
}

// newBackend mounts the two handlers of a shop.
func newBackend(ctx context.Context, client *midas.Client, db *sql.DB, playerOf func(*http.Request) (player, error)) (http.Handler, error) {
	store, err := midassql.New(db, midassql.MySQL, midassql.Options{}) // MariaDB too; or PostgreSQL, SQLite
	if err != nil {
		return nil, err
	}
	if err := store.Migrate(ctx); err != nil { // creates midassql's tables
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("POST /orders", orderHandler(client, store, playerOf))
	mux.Handle("/pay/notify", client.DeliveryHandler(store.Once(grant))) // the path registered at Tencent
	return mux, nil
}

// orderHandler places an order, stores it, and only then hands it to the app.
func orderHandler(client *midas.Client, store *midassql.Store, playerOf func(*http.Request) (player, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		p, err := playerOf(r)
		goods, sold := catalogue[r.FormValue("product")]
		if err != nil || !sold {
			http.Error(w, "not logged in, or no such product", http.StatusBadRequest)
			return
		}
		req := midas.OrderRequest{
			Login: p.login, OpenID: p.openID, OpenKey: p.openKey, PF: p.pf, PFKey: p.pfKey, ZoneID: p.zone,
			Items: goods.items, GoodsName: goods.name, GoodsDescription: goods.description,
		}
		ctx, cancel := context.WithTimeout(r.Context(), 8*time.Second)
		defer cancel()
		order, err := client.CreateOrder(ctx, req)
		if err == nil {
			err = store.SaveOrder(ctx, req, order) // first: the player may pay as soon as the app has it
		}
		switch {
		case errors.Is(err, midas.ErrLoginExpired):
			http.Error(w, "log in again", http.StatusUnauthorized)
		case err != nil:
			slog.WarnContext(ctx, "no order", "error", err) // holds no secret
			http.Error(w, "try again later", http.StatusBadGateway)
		default:
			w.Header().Set("Content-Type", "application/json")
			json.NewEncoder(w).Encode(order) // token and url_params, for the client SDK
		}
	}
}

// grant runs once for each payment, after it was verified and compared with the stored
// order, in the transaction that stores it: either all of it is committed or nothing.
func grant(ctx context.Context, tx *sql.Tx, d *midas.Delivery) error {
	for _, item := range d.Items { // what was really bought; d.Charged may be less than the price
		_, err := tx.ExecContext(ctx, "INSERT INTO player_items (openid, zone, item, quantity) VALUES (?, ?, ?, ?)",
			d.OpenID, d.ZoneID, item.ID, item.Quantity)
		if err != nil {
			return err // rolled back, and Midas is answered ret 1
		}
	}
	return nil
}

// Not run here: they take a database and a sandbox.
var _, _ = newBackend, sandboxClient

func sandboxClient() (*midas.Client, error) {
	client, err := midas.New(midas.Config{
		AppID:        "1450000000",
		AppKey:       "my-test-key",
		Gateway:      midas.Sandbox().At("http://127.0.0.1:9100"), // where "midas sandbox" listens
		DeliveryPath: "/pay/notify",
		Logger:       slog.Default(),
	})
	return client, err
}
