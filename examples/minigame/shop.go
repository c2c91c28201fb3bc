package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/minigame"
)

// The shop's prices for one piece. They never come from the app.
var catalogue = map[string]midas.Amount{"sword": 600 * midas.Fen, "gem": 100 * midas.Fen}

// A shop sells items in a mini game. What it keeps in memory belongs into a database, in
// one transaction for each push.
type shop struct {
	wechat  *minigame.Client
	handler func() http.Handler // of the push URL
	down    atomic.Bool         // the database does not answer

	mu       sync.Mutex
	sessions map[string]minigame.Secret // newest session_key by openid
	orders   map[key]*order
}

// A key is a payment's identity: a sandbox order must not hide a live one.
type key struct {
	env        minigame.Env
	outTradeNo string
}

type order struct {
	openID, productID string
	quantity          int
	price             midas.Amount
	granted, refunded bool
}

func newShop(client *minigame.Client) *shop {
	s := &shop{wechat: client, sessions: map[string]minigame.Secret{}, orders: map[key]*order{}}
	s.handler = func() http.Handler {
		return client.PushHandler(minigame.Handlers{Deliver: s.deliver, Refund: s.refund})
	}
	return s
}

// login is what the app calls after wx.login.
func (s *shop) login(ctx context.Context, code string) error {
	session, err := s.wechat.Code2Session(ctx, code)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sessions[session.OpenID] = session.SessionKey
	return nil
}

// order is what the app calls when the player picks an item. Its answer is the JSON of the
// minigame.Order, which the app hands to wx.requestMidasPaymentGameItem unchanged.
func (s *shop) order(openID string, env minigame.Env, productID string, quantity int) (*minigame.Order, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	price, ok := catalogue[productID]
	if !ok {
		return nil, fmt.Errorf("no item %q", productID)
	}
	made, err := s.wechat.NewOrder(minigame.OrderRequest{
		SessionKey: s.sessions[openID], Env: env, ProductID: productID, Quantity: quantity, Price: price,
	})
	if err != nil {
		return nil, err
	}
	s.orders[key{env, made.OutTradeNo}] = &order{openID: openID, productID: productID, quantity: quantity, price: price}
	return made, nil // only after it was stored
}

var (
	errDown    = errors.New("the database is down")
	errUnknown = errors.New("no such order: somebody should look at it")
)

// deliver grants a payment once.
func (s *shop) deliver(_ context.Context, d *minigame.Delivery) error {
	if s.down.Load() {
		return errDown
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.orders[key{d.Env, d.OutTradeNo}]
	if o == nil || o.openID != d.OpenID || o.productID != d.ProductID || o.quantity != d.Quantity {
		return errUnknown
	}
	if o.refunded { // the refund came first
		return nil
	}
	o.granted = true // again for a repeated push, which changes nothing
	return nil
}

// refund takes the items back.
func (s *shop) refund(_ context.Context, r *minigame.Refund) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.orders[key{r.Env, r.OutTradeNo}]
	if o == nil {
		return errUnknown
	}
	o.refunded = true
	return nil
}

// ask is for an order whose push does not come: from 10 s after it, at growing intervals.
// What is paid is granted as the stored order says.
func (s *shop) ask(ctx context.Context, openID, outTradeNo string) (*minigame.OrderInfo, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	player := minigame.Player{OpenID: openID, SessionKey: s.sessions[openID]}
	info, err := s.wechat.QueryOrderInfo(ctx, minigame.OrderInfoQuery{Player: player, OutTradeNo: outTradeNo})
	if err != nil {
		return nil, err
	}
	o := s.orders[key{minigame.Live, outTradeNo}]
	if o != nil && info.Paid && info.OutTradeNo == outTradeNo && info.ProductID == o.productID {
		o.granted = true
	}
	return info, nil
}

// items counts what a player owns.
func (s *shop) items(openID string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range s.orders {
		if o.openID == openID && o.granted && !o.refunded {
			n += o.quantity
		}
	}
	return n
}
