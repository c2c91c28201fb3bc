package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/midas-go/midas"
)

// A product is what the shop sells. Its price is the server's, never the app's.
type product struct {
	name, description string
	price             midas.Amount
}

var catalogue = map[string]product{
	"gem60": {"60 gems", "A purse of sixty gems", 60 * midas.QPoint},
	"sword": {"Sword", "A sharp sword", 18 * midas.QPoint},
}

// orderTime is for an order, repeated tries included: the app waits for it.
const orderTime = 8 * time.Second

// A shop is a game's backend. It keeps everything in memory, so as to run anywhere;
// package midassql does the same on a real database.
type shop struct {
	midas *midas.Client
	log   *slog.Logger

	mu      sync.Mutex
	orders  map[string]order          // by token
	granted map[payment]bool          // what was paid and granted
	bags    map[string]map[string]int // what players own: openid -> item -> quantity
}

// An order is what a payment is compared with. It holds no openkey and no pfkey.
type order struct {
	openID, zoneID string
	items          []midas.Item
}

// A payment is one payment, however often Midas calls back for it.
type payment struct{ openID, billNo string }

func newShop(client *midas.Client, log *slog.Logger) *shop {
	return &shop{
		midas: client, log: log,
		orders: map[string]order{}, granted: map[payment]bool{}, bags: map[string]map[string]int{},
	}
}

// handler serves the app's requests, and Midas's callbacks at deliveryPath.
func (s *shop) handler(deliveryPath string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /players/{openid}/items", s.ownedItems)
	mux.HandleFunc("POST /orders", s.placeOrder)
	mux.Handle(deliveryPath, s.midas.DeliveryHandler(s.deliver))
	return mux
}

// placeOrder places an order at Midas, stores it, and only then hands it to the app.
func (s *shop) placeOrder(w http.ResponseWriter, r *http.Request) {
	var wish struct { // which item, but not for how much; Midas checks openid against openkey
		Login    midas.Login `json:"login"`
		OpenID   string      `json:"openid"`
		OpenKey  string      `json:"openkey"`
		PF       string      `json:"pf"`
		PFKey    string      `json:"pfkey"`
		Item     string      `json:"item"`
		Quantity int         `json:"quantity"`
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 16<<10)).Decode(&wish); err != nil {
		http.Error(w, "the body is not the JSON of an order", http.StatusBadRequest)
		return
	}
	goods, sold := catalogue[wish.Item]
	if !sold {
		http.Error(w, "no such item", http.StatusNotFound)
		return
	}

	req := midas.OrderRequest{
		Player:    midas.Player{Login: wish.Login, OpenID: wish.OpenID, OpenKey: wish.OpenKey, PF: wish.PF, PFKey: wish.PFKey, ZoneID: "1"},
		Items:     []midas.Item{{ID: wish.Item, Price: goods.price, Quantity: wish.Quantity}},
		GoodsName: goods.name, GoodsDescription: goods.description,
		Metadata: rand.Text(), // an order number of the shop's own, to find a payment by; comes back as d.Metadata
	}
	ctx, cancel := context.WithTimeout(r.Context(), orderTime)
	defer cancel()
	placed, err := s.midas.CreateOrder(ctx, req)
	if err != nil {
		s.refuseOrder(w, r, err)
		return
	}

	s.mu.Lock() // stored first: the player may pay as soon as the app has the order
	s.orders[placed.Token] = order{req.Player.OpenID, req.Player.ZoneID, req.Items}
	s.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(placed) // token and url_params, for the client SDK
}

// refuseOrder tells the app what it can do about an order that failed.
func (s *shop) refuseOrder(w http.ResponseWriter, r *http.Request, err error) {
	s.log.WarnContext(r.Context(), "order failed", "error", err)
	var param *midas.FieldError
	switch {
	case errors.As(err, &param): // nothing was sent; the text holds no secret
		http.Error(w, param.Error(), http.StatusBadRequest)
	case errors.Is(err, midas.ErrLoginExpired):
		http.Error(w, "log in again", http.StatusUnauthorized)
	default:
		http.Error(w, "try again later", http.StatusBadGateway)
	}
}

// deliver grants what a verified callback says was paid for: once for (OpenID, BillNo), and
// only if it is what was ordered.
func (s *shop) deliver(ctx context.Context, d *midas.Delivery) error {
	s.mu.Lock()
	defer s.mu.Unlock()

	paid := payment{d.OpenID, d.BillNo}
	if s.granted[paid] {
		return nil // a repeat: it was granted, so the answer is OK again
	}

	ordered, known := s.orders[d.Token]
	switch {
	case !known:
		return midas.ErrTokenNotFound
	case d.OpenID != ordered.openID:
		return &midas.ParamError{Param: "openid", Reason: "is not the player who ordered"}
	case d.ZoneID != ordered.zoneID:
		return &midas.ParamError{Param: "zoneid", Reason: "is not the zone of the order"}
	case !slices.Equal(d.Items, ordered.items): // id, price and quantity
		return &midas.ParamError{Param: "payitem", Reason: "is not what was ordered"}
	}
	// d.Charged is not compared: with a channel's discount it is less than the price.

	bag := s.bags[d.OpenID]
	if bag == nil {
		bag = map[string]int{}
		s.bags[d.OpenID] = bag
	}
	for _, item := range d.Items {
		bag[item.ID] += item.Quantity
	}
	s.granted[paid] = true // with the items, in one step: on a database, in one transaction
	return nil
}

// ownedItems answers what a player owns. (A real backend answers the player's own session only.)
func (s *shop) ownedItems(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(s.bags[r.PathValue("openid")])
}
