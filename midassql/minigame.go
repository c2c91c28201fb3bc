package midassql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"strconv"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/minigame"
)

// MiniGameOptions says how a [MiniGame] works.
type MiniGameOptions struct {
	// AppID is the mini game's or mini program's; required. Payments of another one are
	// refused.
	AppID string

	// Deliver grants a payment: what [Store.Once] returned, or an [Inbox]'s Deliver. Required.
	Deliver midas.DeliverFunc

	// Refund is called for each refund, in the transaction that notes it, once for each
	// RefundID; an error rolls it back, and WeChat asks again. granted says whether the player
	// has the items, or may have: take them back, or let somebody decide. It is false for a
	// payment that was still waiting, or has not come yet: that one is never handed out. It is
	// called for a refund that failed, too (see minigame.Refund), as often as WeChat tells of it.
	// r.OpenID is set also for a mini game, whose push does not tell it.
	// nil: refunds are noted only.
	Refund func(ctx context.Context, tx *sql.Tx, r *minigame.Refund, granted bool) error

	// ShopProducts are the products that players buy in WeChat's shop (商城) without an order of
	// the game's, with the price of one piece. Any other product is refused there.
	ShopProducts map[string]midas.Amount
}

// A MiniGame takes the payments of WeChat mini games and mini programs into a Store. Its methods
// Deliver and Refund are those of [minigame.Handlers]. In the ledger the BillNo of such a
// payment, and the token of its order, is "AppID/Env/OutTradeNo": a sandbox number never
// hides a live payment. PayMethod and Platform are WeChat Pay's MchOrderNo and TransactionID.
// It is safe for use by multiple goroutines.
type MiniGame struct {
	store *Store
	opts  MiniGameOptions
}

// MiniGame returns a MiniGame on the Store. It panics if AppID or Deliver is missing.
func (s *Store) MiniGame(opts MiniGameOptions) *MiniGame {
	if opts.AppID == "" || opts.Deliver == nil {
		panic("midassql: MiniGame: want AppID and Deliver")
	}
	opts.ShopProducts = maps.Clone(opts.ShopProducts)
	return &MiniGame{s, opts}
}

func (g *MiniGame) billNo(env minigame.Env, outTradeNo string) string {
	return g.opts.AppID + "/" + strconv.Itoa(int(env)) + "/" + outTradeNo
}

// SaveOrder stores an order of the player openID. Call it before the order leaves the server:
// the app may pay as soon as it has it. The session key is not stored. The errors are those
// of [Store.SaveOrder]; an OutTradeNo that was used before is one.
func (g *MiniGame) SaveOrder(ctx context.Context, openID string, req minigame.OrderRequest, order *minigame.Order) error {
	if order == nil || req.Coins {
		return errors.New("midassql: SaveOrder: want an order of an item")
	}
	return g.store.SaveOrder(ctx, midas.OrderRequest{
		OpenID: openID, ZoneID: req.ZoneID, Metadata: clip(req.Attach),
		Items: []midas.Item{{ID: req.ProductID, Price: req.Price, Quantity: req.Quantity}},
	}, &midas.Order{Token: g.billNo(order.Env, order.OutTradeNo)})
}

// Deliver compares a payment with the stored order, openid, product, quantity and list price,
// and grants it through MiniGameOptions.Deliver. A payment from the shop is compared with
// ShopProducts. nil means that it is granted, or was before; after any other result WeChat
// calls again.
func (g *MiniGame) Deliver(ctx context.Context, d *minigame.Delivery) error {
	if d.AppID != g.opts.AppID {
		return errors.New("midassql: MiniGame: a payment of another app")
	}
	token := g.billNo(d.Env, d.OutTradeNo)
	price, err := g.price(ctx, token, d)
	if err != nil {
		return fmt.Errorf("midassql: MiniGame: %w", err)
	}
	paid, err := d.Midas(price)
	if err != nil {
		return fmt.Errorf("midassql: MiniGame: %w", err)
	}
	paid.Token, paid.PayMethod, paid.Platform = token, d.WeChatPay.MchOrderNo, d.WeChatPay.TransactionID
	if paid.Time = d.WeChatPay.PaidTime; paid.Time.IsZero() {
		paid.Time = g.store.opts.Now()
	}
	return g.opts.Deliver(ctx, paid)
}

// price returns the price of one piece that was agreed on.
func (g *MiniGame) price(ctx context.Context, token string, d *minigame.Delivery) (midas.Amount, error) {
	price, found, err := g.storedPrice(ctx, g.store.sql.orderItems, token)
	if err == nil && !found { // the order may have been purged, and this is a repeat
		price, found, err = g.storedPrice(ctx, g.store.sql.paymentItems, d.OpenID, token)
	}
	switch {
	case err != nil || found:
		return price, err
	case d.Source != minigame.FromShop:
		return 0, midas.ErrTokenNotFound
	}
	price, sold := g.opts.ShopProducts[d.ProductID]
	if !sold {
		return 0, errors.New("a payment from the shop for a product that is not in ShopProducts: configure it, and WeChat's next push is granted")
	}
	// Its order is stored now, so that it is compared and granted like any other.
	payitem, wrong := formatItems([]midas.Item{{ID: d.ProductID, Price: price, Quantity: d.Quantity}})
	if wrong != "" {
		return 0, &midas.ParamError{Param: "payitem", Reason: wrong}
	}
	err = g.store.inTx(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, g.store.sql.saveShopOrder, token, d.OpenID, d.ZoneID, payitem, clip(d.Attach), 0, g.store.opts.Now().Unix())
		return err
	})
	return price, err
}

// storedPrice returns the price of one piece in a row of the ledger. A refund that came before
// its delivery left a row without one, which is right for any price: it grants nothing.
func (g *MiniGame) storedPrice(ctx context.Context, statement string, args ...string) (price midas.Amount, found bool, err error) {
	var column string
	err = g.store.inTx(ctx, func(tx *sql.Tx) error {
		statement, args := g.store.inline(statement, args...)
		return tx.QueryRowContext(ctx, statement, args...).Scan(&column)
	})
	if errors.Is(err, sql.ErrNoRows) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	items, err := parseItems(column)
	if err != nil || len(items) == 0 {
		return 0, false, err
	}
	return items[0].Price, true, nil
}

// Refund notes a refund on its payment and calls MiniGameOptions.Refund, in one transaction. A
// payment that waits in an [Inbox] is cancelled, unless only a part of it was refunded. One that
// has not come yet is stored as cancelled, so that it never grants. A refund without an OpenID is
// that of the player who placed the order OutTradeNo; without such an order it is refused, and
// WeChat asks again. nil means that it is on disk.
func (g *MiniGame) Refund(ctx context.Context, r *minigame.Refund) error {
	if err := g.refund(ctx, r); err != nil {
		return fmt.Errorf("midassql: MiniGame: refund: %w", err)
	}
	return nil
}

func (g *MiniGame) refund(ctx context.Context, r *minigame.Refund) error {
	if reason := checkKey(r.RefundID) + checkText(r.OpenID); r.AppID != g.opts.AppID || reason != "" {
		return errors.New("it is another app's, or its RefundID or OpenID cannot be stored")
	}
	id, err := g.refunded(ctx, r)
	if err != nil {
		return err
	}
	named := *r
	named.OpenID, r = id.openID, &named
	s := g.store
	return s.inTx(ctx, func(tx *sql.Tx) error {
		if r.Failed { // the same number may succeed later
			p, err := s.state(ctx, tx, id)
			if err != nil && !errors.Is(err, ErrNoPayment) {
				return err
			}
			return g.tell(ctx, tx, r, err == nil && p.mayHaveItems())
		}
		now := s.opts.Now().Unix()
		first, err := changed(ctx, tx, s.sql.insertRefund, r.RefundID, id.openID, id.billNo, int64(r.Amount), now)
		if err != nil {
			return err
		}
		if !first { // written and not only read, like a repeated payment
			found, err := changed(ctx, tx, s.sql.repeatRefund, r.RefundID, id.openID, id.billNo)
			if err == nil && !found {
				err = errors.New("this RefundID is another payment's")
			}
			return err
		}
		note := clip("refunded: " + r.RefundID)
		// The unique key decides between this and a delivery that comes in the same moment.
		early, err := changed(ctx, tx, s.sql.insertRefunded, id.openID, id.billNo, now, now, r.AppID, note)
		if err != nil {
			return err
		}
		granted := false
		if !early {
			if granted, err = g.note(ctx, tx, id, note); err != nil {
				return err
			}
		}
		return g.tell(ctx, tx, r, granted)
	})
}

// note notes a refund on a payment that is there, and reports whether the player has its items.
func (g *MiniGame) note(ctx context.Context, tx *sql.Tx, id paymentID, note string) (granted bool, err error) {
	s := g.store
	var all bool
	statement, args := s.inline(s.sql.refunded, id.openID, id.billNo)
	if err := tx.QueryRowContext(ctx, statement, args...).Scan(&all); err != nil {
		return false, err
	}
	if all {
		cancelled, err := changed(ctx, tx, s.sql.cancelPayment, note, id.openID, id.billNo)
		if err != nil {
			return false, err
		}
		if cancelled {
			_, err := tx.ExecContext(ctx, s.sql.removeWaiting, id.openID, id.billNo)
			return false, err
		}
	}
	if _, err := tx.ExecContext(ctx, s.sql.notePayment, note, id.openID, id.billNo); err != nil {
		return false, err
	}
	p, err := s.state(ctx, tx, id)
	return p.mayHaveItems(), err
}

func (g *MiniGame) tell(ctx context.Context, tx *sql.Tx, r *minigame.Refund, granted bool) error {
	if g.opts.Refund == nil {
		return nil
	}
	return g.opts.Refund(ctx, tx, r, granted)
}

// player returns whose order it is.
func (g *MiniGame) player(ctx context.Context, billNo string) (openID string, err error) {
	for o, err := range g.store.Orders(ctx, Query{Token: billNo}) {
		if err != nil {
			return "", err
		}
		openID = o.OpenID
	}
	if openID != "" {
		return openID, nil
	}
	for p, err := range g.store.Payments(ctx, Query{BillNo: billNo}) { // the order was purged
		if err != nil {
			return "", err
		}
		openID = p.OpenID
	}
	if openID == "" {
		err = errors.New("it names neither a player nor an order that is known here")
	}
	return openID, err
}

// refunded returns the payment that a refund is about. Mini games' refunds do not tell the
// player (minigame.md 4.2), and mini programs' do not tell the environment.
func (g *MiniGame) refunded(ctx context.Context, r *minigame.Refund) (paymentID, error) {
	named := paymentID{r.OpenID, g.billNo(r.Env, r.OutTradeNo)}
	if r.OpenID == "" {
		var err error
		named.openID, err = g.player(ctx, named.billNo)
		return named, err
	}
	if r.OutTradeNo != "" && r.EnvKnown {
		return named, nil
	}
	sandbox := g.billNo(minigame.Sandbox, r.OutTradeNo)
	for p, err := range g.store.Payments(ctx, Query{OpenID: r.OpenID}) {
		switch pay := r.WeChatPay; {
		case err != nil:
			return paymentID{}, err
		case p.AppID != g.opts.AppID:
		case r.OutTradeNo != "" && (p.BillNo == named.billNo || p.BillNo == sandbox),
			r.OutTradeNo == "" && pay.TransactionID != "" && p.Platform == pay.TransactionID,
			r.OutTradeNo == "" && pay.MchOrderNo != "" && p.PayMethod == pay.MchOrderNo:
			return paymentID{p.OpenID, p.BillNo}, nil
		}
	}
	if r.OutTradeNo == "" {
		return paymentID{}, errors.New("it names no order, and no payment of this player has its WeChat Pay numbers yet")
	}
	return named, nil // it comes before its delivery
}
