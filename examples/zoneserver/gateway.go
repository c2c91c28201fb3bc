package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midassql"
)

// What the shop sells. Prices are the server's, never the app's.
var catalogue = map[string]midas.Amount{"gem60": 60 * midas.QPoint, "gem300": 300 * midas.QPoint, "sticker": midas.Fen}

// A gateway talks to Midas. It holds no player.
type gateway struct {
	client *midas.Client
	store  *midassql.Store
	log    *slog.Logger
}

// order places an order with Midas, stores it, and only then hands it to the app.
func (g *gateway) order(w http.ResponseWriter, r *http.Request) {
	var wish struct {
		Login    midas.Login `json:"login"`
		OpenID   string      `json:"openid"`
		OpenKey  string      `json:"openkey"`
		PayToken string      `json:"pay_token"`
		PF       string      `json:"pf"`
		PFKey    string      `json:"pfkey"`
		Zone     string      `json:"zone"`
		Item     string      `json:"item"`
		Quantity int         `json:"quantity"`
	}
	if err := json.NewDecoder(r.Body).Decode(&wish); err != nil {
		refuse(w, http.StatusBadRequest, "the body is not the JSON wanted")
		return
	}
	price, known := catalogue[wish.Item]
	if !known {
		refuse(w, http.StatusBadRequest, "item is not in the catalogue")
		return
	}
	req := midas.OrderRequest{
		Login: wish.Login, OpenID: wish.OpenID, OpenKey: wish.OpenKey, PayToken: wish.PayToken, PF: wish.PF, PFKey: wish.PFKey,
		ZoneID:    wish.Zone, // decides which zone server takes the payment
		Items:     []midas.Item{{ID: wish.Item, Price: price, Quantity: wish.Quantity}},
		GoodsName: wish.Item, GoodsDescription: wish.Item,
		Metadata: rand.Text(), // the game's own order number
	}
	ctx, cancel := context.WithTimeout(r.Context(), 15*time.Second) // three tries of 5 s
	defer cancel()
	order, err := g.client.CreateOrder(ctx, req)
	if err == nil {
		err = g.store.SaveOrder(ctx, req, order)
	}
	var param *midas.ParamError
	switch {
	case err == nil:
		answer(w, http.StatusCreated, order)
	case errors.As(err, &param):
		refuse(w, http.StatusBadRequest, param.Error())
	default:
		g.log.WarnContext(ctx, "order failed", "error", err.Error())
		refuse(w, http.StatusBadGateway, "no order could be placed: try again")
	}
}

func refuse(w http.ResponseWriter, status int, reason string) {
	answer(w, status, map[string]string{"error": reason})
}

// answer answers the game's own endpoints. (Not the callback: Midas takes no line end.)
func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false) // url_params goes to the cashier as it is
	encoder.Encode(v)            // an error means that the app hung up
}
