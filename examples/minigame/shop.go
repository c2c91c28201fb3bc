package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midassql"
	"github.com/midas-go/midas/minigame"
	"github.com/midas-go/midas/minigame/minigamesql"
	_ "modernc.org/sqlite"
)

// The shop's prices for one piece. They never come from the app.
var catalogue = map[string]midas.Amount{"sword": 600 * midas.Fen, "gem": 100 * midas.Fen}

// tables are the game's own; the ledger makes its own beside them.
const tables = `
CREATE TABLE IF NOT EXISTS sessions (openid TEXT PRIMARY KEY, session_key TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS items (billno TEXT NOT NULL, openid TEXT NOT NULL, item TEXT NOT NULL, quantity INTEGER NOT NULL, PRIMARY KEY (billno, item));`

// A shop sells items in a mini game. Everything that it must not forget is in its database.
type shop struct {
	game    *minigame.Game
	appID   string
	db      *sql.DB
	store   *midassql.Store
	ledger  *minigamesql.Ledger
	handler http.Handler // of the push URL
	down    atomic.Bool  // the story's: the database does not answer
}

// openShop opens the shop of the mini game appID on the database in a file.
func openShop(ctx context.Context, game *minigame.Game, appID, file string) (*shop, error) {
	db, err := sql.Open("sqlite", "file:"+file+"?_pragma=busy_timeout(500)&_pragma=journal_mode(WAL)&_txlock=immediate")
	if err != nil {
		return nil, err
	}
	s := &shop{game: game, appID: appID, db: db}
	if err := s.open(ctx); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return s, nil
}

func (s *shop) open(ctx context.Context) (err error) {
	if s.store, err = midassql.New(s.db, midassql.SQLite, midassql.Options{}); err != nil {
		return err
	}
	if err := s.store.Migrate(ctx); err != nil {
		return err
	}
	if _, err := s.db.ExecContext(ctx, tables); err != nil {
		return err
	}
	s.ledger = minigamesql.New(s.store, minigamesql.Options{AppID: s.appID, Deliver: s.store.Once(s.grant), Refund: s.takeBack})
	s.handler = s.game.PushHandler(minigame.GameHandlers{Deliver: s.deliver, Refund: s.ledger.Refund})
	return nil
}

// login is what the app calls after wx.login.
func (s *shop) login(ctx context.Context, code string) error {
	session, err := s.game.Code2Session(ctx, code)
	if err != nil {
		return err
	}
	_, err = s.db.ExecContext(ctx, "INSERT INTO sessions VALUES (?, ?) ON CONFLICT (openid) DO UPDATE SET session_key = excluded.session_key",
		session.OpenID, string(session.SessionKey))
	return err
}

// player is a player as calls need one. The session_key is the newest.
func (s *shop) player(ctx context.Context, openID string) (minigame.CallPlayer, error) {
	var sessionKey string
	err := s.db.QueryRowContext(ctx, "SELECT session_key FROM sessions WHERE openid = ?", openID).Scan(&sessionKey)
	return minigame.CallPlayer{OpenID: openID, SessionKey: minigame.Secret(sessionKey)}, err
}

// order is what the app calls when the player picks an item. Its answer is the JSON of the
// minigame.Order, which the app hands to wx.requestMidasPaymentGameItem unchanged.
func (s *shop) order(ctx context.Context, openID string, env minigame.Env, productID string, quantity int) (*minigame.Order, error) {
	price, ok := catalogue[productID]
	if !ok {
		return nil, fmt.Errorf("no item %q", productID)
	}
	player, err := s.player(ctx, openID)
	if err != nil {
		return nil, err
	}
	req := minigame.OrderRequest{SessionKey: player.SessionKey, Env: env, ProductID: productID, Quantity: quantity, Price: price}
	order, err := s.game.NewOrder(req)
	if err != nil {
		return nil, err
	}
	if err := s.ledger.SaveOrder(ctx, openID, req, order); err != nil {
		return nil, err // the app gets no order: a player can pay from the moment it has one
	}
	return order, nil
}

var errDown = errors.New("the database is down")

// deliver is the ledger's, unless the story has the database down.
func (s *shop) deliver(ctx context.Context, d *minigame.Delivery) error {
	if s.down.Load() {
		return errDown
	}
	return s.ledger.Deliver(ctx, d)
}

// grant gives the player what was paid for, in the ledger's transaction and once for each payment.
func (s *shop) grant(ctx context.Context, tx *sql.Tx, d *midas.Delivery) error {
	for _, item := range d.Items {
		if _, err := tx.ExecContext(ctx, "INSERT INTO items VALUES (?, ?, ?, ?)", d.BillNo, d.OpenID, item.ID, item.Quantity); err != nil {
			return err
		}
	}
	return nil
}

// takeBack takes the items back once all the money went back, in the ledger's transaction and once
// for each refund. A refund that failed does not come here.
func (s *shop) takeBack(ctx context.Context, tx *sql.Tx, _ *minigame.RefundPush, p *midassql.Payment, granted bool) error {
	if !granted || !p.RefundedInFull {
		return nil
	}
	_, err := tx.ExecContext(ctx, "DELETE FROM items WHERE billno = ?", p.BillNo)
	return err
}

// ask is for an order whose push does not come: from 10 s after it, at growing intervals. What is
// paid is granted as the stored order says; a push that comes later is a repeat. WeChat may take
// seconds to answer, so nothing is locked and no transaction is open meanwhile.
func (s *shop) ask(ctx context.Context, openID, outTradeNo string) (*minigame.GameOrder, error) {
	player, err := s.player(ctx, openID)
	if err != nil {
		return nil, err
	}
	asked, err := s.game.QueryOrder(ctx, minigame.GameOrderQuery{Player: player, OutTradeNo: outTradeNo})
	if err != nil || !asked.Paid {
		return asked, err
	}
	for stored, err := range s.store.Orders(ctx, midassql.Query{Token: minigame.BillNo(s.appID, minigame.Live, outTradeNo)}) {
		if err != nil {
			return nil, err
		}
		item := stored.Items[0]
		return asked, s.deliver(ctx, &minigame.Delivery{
			AppID: s.appID, OpenID: openID, OutTradeNo: outTradeNo, ProductID: asked.ProductID, Quantity: item.Quantity,
			OrigPrice: item.Price, ActualPrice: item.Price * midas.Amount(item.Quantity), // WeChat does not say what was paid
			WeChatPay: minigame.WeChatPay{MchOrderNo: asked.MchOrderNo, TransactionID: asked.TransactionID, PaidTime: asked.PaidTime},
		})
	}
	return nil, fmt.Errorf("order %s is paid, and not stored here", outTradeNo)
}

// items counts what a player owns.
func (s *shop) items(ctx context.Context, openID string) (n int, err error) {
	err = s.db.QueryRowContext(ctx, "SELECT COALESCE(SUM(quantity), 0) FROM items WHERE openid = ?", openID).Scan(&n)
	return n, err
}
