package main

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"

	"github.com/midas-go/midas/midastest"
)

// startFake starts a Midas inside, whose players pay with POST /fake/pay. Its pay key is
// another one at each start. Close it.
func startFake(mux *http.ServeMux, deliveryURL string, log *slog.Logger) *midastest.Server {
	fake := midastest.NewServer(midastest.Config{
		AppKey: rand.Text(),
		Errorf: func(format string, args ...any) { log.Warn(fmt.Sprintf(format, args...)) },
	})
	fake.DeliverTo(deliveryURL)

	// The cashier: it is handed what the app got for its order, and calls the delivery URL.
	mux.HandleFunc("POST /fake/pay", func(w http.ResponseWriter, r *http.Request) {
		var order struct {
			Token string `json:"token"`
		}
		if err := json.NewDecoder(r.Body).Decode(&order); err != nil || order.Token == "" {
			refuse(w, http.StatusBadRequest, "want the JSON that POST /orders answered, with its token")
			return
		}
		receipt, err := fake.Pay(r.Context(), order.Token)
		if err != nil {
			refuse(w, http.StatusConflict, err.Error())
			return
		}
		writeJSON(w, http.StatusOK, map[string]any{
			"paid": true, "billno": receipt.BillNo, "answer": string(receipt.Body), "delivered": receipt.Accepted, "reason": receipt.Reason,
		})
	})
	return fake
}

// printCommands prints how to buy something.
func printCommands(w io.Writer, base string) {
	fmt.Fprintf(w, `A shop with a Midas inside. Log in, place an order, and pay for it:

  curl -s -c session.txt %[1]s/login -d '{"openid":"player-1"}'
  curl -s -b session.txt %[1]s/orders -d '{"login":"qq","openid":"player-1","openkey":"demo","pf":"qq_m_qq-2001-android-2011-xxxx","pfkey":"demo","item":"gem60","quantity":1}' | tee order.json
  curl -s %[1]s/fake/pay -d @order.json

What the player has now:

  curl -s %[1]s/players/player-1/items

`, base)
}
