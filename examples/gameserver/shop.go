package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midassql"
)

const (
	maxBody    = 16 << 10         // bytes of a request's body
	orderTime  = 15 * time.Second // for an order: three tries of 5 s
	queryTime  = 2 * time.Second  // for a query to the database
	healthTime = time.Second
)

// A product is what the shop sells. Prices are the server's, never the app's.
type product struct {
	name, description string
	price             midas.Amount
}

var catalogue = map[string]product{
	"gem60":   {"60 gems", "A purse of sixty gems", 60 * midas.QPoint},
	"gem300":  {"300 gems", "A chest of three hundred gems", 300 * midas.QPoint},
	"sticker": {"Sticker", "A sticker for your helmet", midas.Fen},
}

type shop struct {
	client *midas.Client
	store  *midassql.Store
	db     *database
	log    *slog.Logger
	zones  []string // that there are

	appOrders bool // orders that are not stored are granted, too

	migrated atomic.Bool // the tables are there
}

func (s *shop) register(mux *http.ServeMux, callbackPath string, dryRun bool) {
	deliver := s.store.Once(s.grant)
	if dryRun {
		deliver = s.dryRun
	}
	if strings.HasSuffix(callbackPath, "/") {
		callbackPath += "{$}" // this path alone, not all below it
	}
	mux.Handle(callbackPath, s.client.DeliveryHandler(deliver))
	s.endpoints(mux)
}

// endpoints registers the game's own.
func (s *shop) endpoints(mux *http.ServeMux) {
	mux.HandleFunc("POST /login", s.login)
	mux.HandleFunc("POST /orders", s.order)
	mux.HandleFunc("GET /players/{openid}/items", s.items)
	mux.HandleFunc("GET /healthz", s.health)
	mux.HandleFunc("GET /livez", s.live)
	mux.HandleFunc("GET /readyz", s.ready)
}

// sessionCookie is how an app shows who has logged in.
const sessionCookie = "session"

// login is a stub: a real app gets openkey, pf and pfkey from the QQ or WeChat SDK, and a real backend asks
// QQ or WeChat whether it is this player. It begins the player's session, in one of the zones that there
// are: from here on the zone comes from the session, since it decides where the items go.
func (s *shop) login(w http.ResponseWriter, r *http.Request) {
	var player struct {
		OpenID string `json:"openid"`
		Zone   string `json:"zone"` // empty: the first one
	}
	if !readJSON(w, r, &player) {
		return
	}
	zone := cmp.Or(player.Zone, s.zones[0])
	switch {
	case player.OpenID == "":
		refuse(w, http.StatusBadRequest, "openid is missing")
		return
	case !slices.Contains(s.zones, zone):
		refuse(w, http.StatusBadRequest, "there is no such zone")
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), queryTime)
	defer cancel()
	id := rand.Text()
	if _, err := s.db.ExecContext(ctx, s.db.insertSession, id, player.OpenID, zone); err != nil {
		s.log.ErrorContext(ctx, "login", "error", err.Error())
		refuse(w, http.StatusServiceUnavailable, "try again")
		return
	}
	http.SetCookie(w, &http.Cookie{Name: sessionCookie, Value: id, Path: "/", HttpOnly: true, Secure: r.TLS != nil, SameSite: http.SameSiteStrictMode})
	writeJSON(w, http.StatusOK, map[string]string{
		"login": string(midas.QQ), "openid": player.OpenID, "openkey": "demo-openkey",
		"pf": "qq_m_qq-2001-android-2011-xxxx", "pfkey": "demo-pfkey",
	})
}

// order places an order with Midas, stores it, and only then hands it to the app.
func (s *shop) order(w http.ResponseWriter, r *http.Request) {
	var wish struct { // no price and no zone: an app that sends one is refused
		Login    midas.Login `json:"login"`
		OpenID   string      `json:"openid"`
		OpenKey  string      `json:"openkey"`
		PayToken string      `json:"pay_token"`
		PF       string      `json:"pf"`
		PFKey    string      `json:"pfkey"`
		Item     string      `json:"item"`
		Quantity int         `json:"quantity"`
	}
	if !readJSON(w, r, &wish) {
		return
	}
	player, ok := s.sessionOf(w, r)
	if !ok {
		return
	}
	if player.openID != wish.OpenID {
		refuse(w, http.StatusUnauthorized, "openid is not the session's: log in again")
		return
	}
	goods, known := catalogue[wish.Item]
	if !known {
		refuse(w, http.StatusBadRequest, "item is not in the catalogue")
		return
	}
	req := midas.OrderRequest{
		Player: midas.Player{Login: wish.Login, OpenID: wish.OpenID, OpenKey: wish.OpenKey, PayToken: wish.PayToken, PF: wish.PF, PFKey: wish.PFKey, ZoneID: player.zone},

		Items:     []midas.Item{{ID: wish.Item, Price: goods.price, Quantity: wish.Quantity}},
		GoodsName: goods.name, GoodsDescription: goods.description,
		Metadata: rand.Text(), // the game's own order number
	}
	ctx, cancel := context.WithTimeout(r.Context(), orderTime)
	defer cancel()
	order, err := s.client.CreateOrder(ctx, req)
	if err == nil {
		err = s.store.SaveOrder(ctx, req, order)
	}
	if err != nil {
		s.refuseOrder(w, r, err)
		return
	}
	s.log.InfoContext(ctx, "order", "number", req.Metadata, "item", wish.Item, "quantity", wish.Quantity)
	writeJSON(w, http.StatusCreated, order)
}

// sessionOf returns the player who has logged in, or answers that nobody has. A zone that has been closed
// since is none.
func (s *shop) sessionOf(w http.ResponseWriter, r *http.Request) (player session, ok bool) {
	ctx, cancel := context.WithTimeout(r.Context(), queryTime)
	defer cancel()
	cookie, err := r.Cookie(sessionCookie)
	if err == nil {
		player, err = s.db.session(ctx, cookie.Value)
	}
	switch {
	case errors.Is(err, http.ErrNoCookie), errors.Is(err, sql.ErrNoRows), err == nil && !slices.Contains(s.zones, player.zone):
		refuse(w, http.StatusUnauthorized, "log in first")
	case err != nil:
		s.log.ErrorContext(ctx, "session", "error", err.Error())
		refuse(w, http.StatusServiceUnavailable, "try again")
	default:
		return player, true
	}
	return session{}, false
}

// refuseOrder tells the app what it can do about a failed order.
func (s *shop) refuseOrder(w http.ResponseWriter, r *http.Request, err error) {
	s.log.WarnContext(r.Context(), "order failed", "error", err.Error())
	var param *midas.FieldError
	switch {
	case errors.As(err, &param):
		refuse(w, http.StatusBadRequest, param.Error())
	case errors.Is(err, midas.ErrLoginExpired):
		refuse(w, http.StatusUnauthorized, "login expired: log in again")
	default:
		refuse(w, http.StatusBadGateway, "no order could be placed: try again")
	}
}

// grant gives the player what was bought, in the transaction of the delivery. The items are
// rows of a journal, and what a player has is their sum: nothing to lock, and a payment can
// be found again by its billno.
func (s *shop) grant(ctx context.Context, tx *sql.Tx, d *midas.Delivery) error {
	for _, item := range d.Items {
		if goods, known := catalogue[item.ID]; s.appOrders && (!known || goods.price != item.Price) { // no order to compare with
			return fmt.Errorf("%s at %s Q-points is not in the catalogue: settle the payment by hand", item.ID, item.Price.QPoints())
		}
		if _, err := tx.ExecContext(ctx, s.db.insertItem, d.OpenID, d.BillNo, item.ID, item.Quantity); err != nil {
			return err
		}
	}
	return nil
}

// dryRun is Tencent's step for bringing up an endpoint (protocol.md 5): the callback is
// verified and logged, and answered OK.
func (s *shop) dryRun(ctx context.Context, d *midas.Delivery) error {
	s.log.InfoContext(ctx, "dry run: verified, nothing is granted", "billno", d.BillNo, "items", d.Items,
		"charged", d.Charged.String(), "zone", d.ZoneID, "metadata", d.Metadata, "pay_method", d.PayMethod)
	return nil
}

// items answers what a player has. (A real backend answers only the player's own session.)
func (s *shop) items(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), queryTime)
	defer cancel()
	items, err := s.db.itemsOf(ctx, r.PathValue("openid"))
	if err != nil {
		s.log.ErrorContext(ctx, "items", "error", err.Error())
		refuse(w, http.StatusServiceUnavailable, "try again")
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{"items": items})
}

// health is for monitoring: can a payment be stored now?
func (s *shop) health(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), healthTime)
	defer cancel()
	if err := s.db.health(ctx); err != nil {
		s.log.WarnContext(ctx, "health", "error", err.Error())
		refuse(w, http.StatusServiceUnavailable, "the database does not answer, or takes no writes")
		return
	}
	writeJSON(w, http.StatusOK, map[string]string{"status": "ok"})
}

// live is for a probe that restarts what fails it. A database that is away is no reason: a
// restart would not bring it back. Grants that never return are one.
func (s *shop) live(w http.ResponseWriter, _ *http.Request) {
	if err := s.client.Ready(); err != nil {
		refuse(w, http.StatusServiceUnavailable, err.Error())
		return
	}
	writeJSON(w, http.StatusOK, map[string]string{"status": "ok"})
}

// ready is for a probe that takes a server out of service. It does not ask the database, which
// would take out all of them at once: to answer a callback ret 1 is better than not to
// answer. A server that has never reached its database has nothing to offer yet.
func (s *shop) ready(w http.ResponseWriter, _ *http.Request) {
	if !s.migrated.Load() {
		refuse(w, http.StatusServiceUnavailable, "the tables are not there yet")
		return
	}
	writeJSON(w, http.StatusOK, map[string]string{"status": "ok"})
}

// readJSON reads the body into v, or answers what is wrong with it.
func readJSON(w http.ResponseWriter, r *http.Request, v any) bool {
	decoder := json.NewDecoder(r.Body)
	decoder.DisallowUnknownFields()
	err := decoder.Decode(v)
	var tooLarge *http.MaxBytesError
	switch {
	case err == nil:
		return true
	case errors.As(err, &tooLarge):
		refuse(w, http.StatusRequestEntityTooLarge, "the body is over 16 KiB")
	default:
		refuse(w, http.StatusBadRequest, "the body is not the JSON wanted: "+err.Error())
	}
	return false
}

func refuse(w http.ResponseWriter, status int, reason string) {
	writeJSON(w, status, map[string]string{"error": reason})
}

// writeJSON answers the game's own endpoints. (Not the callback: Midas takes no line end.)
func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false) // url_params goes to the cashier as it is
	encoder.Encode(v)            // an error means that the app hung up
}
