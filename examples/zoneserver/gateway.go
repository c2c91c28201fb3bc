package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midassql"
	"github.com/redis/go-redis/v9"
)

// What the shop sells. Prices are the server's, never the app's.
var catalogue = map[string]midas.Amount{"gem60": 60 * midas.QPoint, "gem300": 300 * midas.QPoint, "sticker": midas.Fen}

// A gateway talks to Midas, and begins the players' sessions. It holds no player.
type gateway struct {
	client   *midas.Client
	store    *midassql.Store
	sessions *redis.Client
	zones    []string // that there are
	log      *slog.Logger
}

const (
	sessionCookie = "session"
	sessionTime   = 24 * time.Hour
)

// A session is a player who has logged in to a zone.
type session struct {
	OpenID string `json:"openid"`
	Zone   string `json:"zone"`
}

// login is a stub: a real gateway asks QQ or WeChat whether it is this player. The zone is one that there
// is: a payment for another one would wait for ever.
func (g *gateway) login(w http.ResponseWriter, r *http.Request) {
	var player session
	if err := json.NewDecoder(r.Body).Decode(&player); err != nil || player.OpenID == "" || !slices.Contains(g.zones, player.Zone) {
		refuse(w, http.StatusBadRequest, "want the JSON of openid, and of a zone that there is")
		return
	}
	text, err := json.Marshal(player)
	id := rand.Text()
	if err == nil {
		err = g.sessions.Set(r.Context(), "session:"+id, text, sessionTime).Err()
	}
	if err != nil {
		g.log.WarnContext(r.Context(), "login failed", "error", err.Error())
		refuse(w, http.StatusServiceUnavailable, "try again")
		return
	}
	http.SetCookie(w, &http.Cookie{Name: sessionCookie, Value: id, Path: "/", HttpOnly: true, Secure: r.TLS != nil, SameSite: http.SameSiteStrictMode})
	w.WriteHeader(http.StatusNoContent)
}

// sessionOf returns the player who has logged in, or answers that nobody has. A zone that has been closed
// since is none.
func (g *gateway) sessionOf(w http.ResponseWriter, r *http.Request) (player session, ok bool) {
	cookie, err := r.Cookie(sessionCookie)
	if err == nil {
		var text []byte
		if text, err = g.sessions.Get(r.Context(), "session:"+cookie.Value).Bytes(); err == nil {
			err = json.Unmarshal(text, &player)
		}
	}
	switch {
	case errors.Is(err, http.ErrNoCookie), errors.Is(err, redis.Nil), err == nil && !slices.Contains(g.zones, player.Zone):
		refuse(w, http.StatusUnauthorized, "log in first")
	case err != nil:
		g.log.WarnContext(r.Context(), "session", "error", err.Error())
		refuse(w, http.StatusServiceUnavailable, "try again")
	default:
		return player, true
	}
	return session{}, false
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
		Item     string      `json:"item"`
		Quantity int         `json:"quantity"`
	}
	if err := json.NewDecoder(r.Body).Decode(&wish); err != nil {
		refuse(w, http.StatusBadRequest, "the body is not the JSON wanted")
		return
	}
	player, ok := g.sessionOf(w, r)
	if !ok {
		return
	}
	if player.OpenID != wish.OpenID {
		refuse(w, http.StatusUnauthorized, "openid is not the session's: log in again")
		return
	}
	price, known := catalogue[wish.Item]
	if !known {
		refuse(w, http.StatusBadRequest, "item is not in the catalogue")
		return
	}
	req := midas.OrderRequest{
		Player: midas.Player{Login: wish.Login, OpenID: wish.OpenID, OpenKey: wish.OpenKey, PayToken: wish.PayToken, PF: wish.PF, PFKey: wish.PFKey,
			ZoneID: player.Zone}, // decides which zone server takes the payment
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
	var param *midas.FieldError
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
