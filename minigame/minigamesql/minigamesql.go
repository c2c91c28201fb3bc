// Package minigamesql puts the pushes of WeChat mini games and mini programs into midassql's ledger: each
// payment is granted once, and each refund handed over once.
//
//	ledger := minigamesql.New(store, minigamesql.Options{AppID: appID, Deliver: store.Once(grant), Refund: takeBack})
//	...
//	handler := game.PushHandler(minigame.GameHandlers{Deliver: ledger.Deliver, Refund: ledger.Refund})
//
// docs/minigame-ledger.md has the whole story.
package minigamesql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"strings"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midassql"
	"github.com/midas-go/midas/minigame"
)

// Options says how a [Ledger] works.
type Options struct {
	// AppID is the mini game's or mini program's; required. Payments of another one are
	// refused.
	AppID string

	// Deliver grants a payment: what [midassql.Store.Once] returned, or an [midassql.Inbox]'s Deliver. Required.
	Deliver midas.DeliverFunc

	// Refund is called for each refund, in the transaction that notes it, once for each
	// RefundID; an error rolls it back, and WeChat asks again. p is the payment with this refund in it: its
	// player and BillNo, which r need not tell, and RefundedInFull, which a partial refund does not set.
	// granted says whether the player has the items, or may have: take them back, or let somebody decide (see
	// [midassql.Store.Refund]). nil: refunds are noted only.
	Refund func(ctx context.Context, tx *sql.Tx, r *minigame.RefundPush, p *midassql.Payment, granted bool) error

	// RefundFailed is called for a refund that did not happen (minigame.RefundPush.Failed), as often as WeChat
	// tells of it and outside of any transaction: nothing is noted, and the same RefundID may succeed later.
	// An error lets WeChat tell again. nil: it is acknowledged.
	RefundFailed func(ctx context.Context, r *minigame.RefundPush) error

	// ShopProducts are the products that players buy in WeChat's shop (商城) without an order of
	// the game's, with the price of one piece. Any other product is refused there.
	ShopProducts map[string]midas.Amount

	// Game or Program is who AskUnpaid asks WeChat through; one of them. Nothing else needs it.
	Game    *minigame.Game
	Program *minigame.Program

	// SessionKey returns the newest session_key of a player, which WeChat wants with a question about a mini
	// game's order; AskUnpaid needs it with Game. Empty: there is none, and the order waits until it is due
	// the next time, and so it does after an error, which is logged. It has to be safe for concurrent use.
	SessionKey func(ctx context.Context, openID string) (minigame.Secret, error)

	// Poll is how often AskUnpaid looks for orders that are due. Zero means 10 s. After a failure it waits
	// as long, then longer each time, up to 60 times that. Negative: AskUnpaid returns an error.
	Poll time.Duration

	// Logger optionally receives what AskUnpaid cannot do. If nil, it is silent.
	Logger *slog.Logger

	// Now optionally specifies the clock, for payments whose push tells no time, and for AskUnpaid, where it
	// should be the Store's. If nil, time.Now.
	Now func() time.Time
}

// A Ledger takes the payments of a mini game or mini program into a [midassql.Store]. Its methods
// Deliver and Refund are those of [minigame.GameHandlers] and [minigame.ProgramHandlers]. In the ledger the BillNo of such a
// payment, and the token of its order, is "AppID/Env/OutTradeNo": a sandbox number never
// hides a live payment. PayMethod and Platform are WeChat Pay's MchOrderNo and TransactionID, and
// both are its Numbers. It is safe for use by multiple goroutines.
type Ledger struct {
	store *midassql.Store
	opts  Options
}

// New returns a Ledger on store. It panics if store, AppID or Deliver is missing.
func New(store *midassql.Store, opts Options) *Ledger {
	if store == nil || opts.AppID == "" || opts.Deliver == nil {
		panic("minigamesql: New: want a store, AppID and Deliver")
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Poll == 0 {
		opts.Poll = defaultPoll
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	opts.ShopProducts = maps.Clone(opts.ShopProducts)
	return &Ledger{store, opts}
}

func (l *Ledger) billNo(env minigame.Env, outTradeNo string) string {
	return minigame.BillNo(l.opts.AppID, env, outTradeNo)
}

// SaveOrder stores an order of the player openID. Call it before the order leaves the server:
// the app may pay as soon as it has it. The session key is not stored. The errors are those
// of [midassql.Store.SaveOrder]; an OutTradeNo that was used before is one. The zone that is stored is the one
// that was signed. An order of another environment than the Store's is [midassql.ErrEnvironment].
func (l *Ledger) SaveOrder(ctx context.Context, openID string, req minigame.OrderRequest, order *minigame.Order) error {
	if order == nil || req.Coins {
		return errors.New("minigamesql: SaveOrder: want an order of an item")
	}
	err := l.checkEnv(order.Env)
	if err == nil {
		err = l.saveOrder(ctx, openID, l.billNo(order.Env, order.OutTradeNo), order.ZoneID, req.Attach,
			midas.Item{ID: req.ProductID, Price: req.Price, Quantity: req.Quantity})
	}
	if err != nil {
		return fmt.Errorf("minigamesql: SaveOrder: %w", err)
	}
	return nil
}

// checkEnv returns nil if the payments of env belong to the Store's environment: what was paid in the sandbox
// is not granted out of tables that are "live", nor a live payment out of any others. A Store without a word
// takes both.
func (l *Ledger) checkEnv(env minigame.Env) error {
	word := l.store.Environment()
	if word == "" || (word == "live") == (env == minigame.Live) {
		return nil
	}
	return fmt.Errorf("%w: they are %q, and this is about Env %d", midassql.ErrEnvironment, word, env)
}

// maxMetadata is what the ledger keeps of an attach, which may be longer: an order is not refused for it.
const maxMetadata = 255

func (l *Ledger) saveOrder(ctx context.Context, openID, token, zoneID, attach string, item midas.Item) error {
	attach = strings.ReplaceAll(strings.ToValidUTF8(attach, "?"), "\x00", "?")
	attach = strings.ToValidUTF8(attach[:min(len(attach), maxMetadata)], "")
	return l.store.SaveOrder(ctx, midas.OrderRequest{
		Player: midas.Player{OpenID: openID, ZoneID: zoneID}, Metadata: attach, Items: []midas.Item{item},
	}, &midas.Order{Token: token})
}

// Deliver compares a payment with the stored order, openid, product, quantity and list price,
// and grants it through Options.Deliver. A payment from the shop is compared with
// ShopProducts. nil means that it is granted, or was before; after any other result WeChat
// calls again. A payment of another environment than the Store's is [midassql.ErrEnvironment].
func (l *Ledger) Deliver(ctx context.Context, d *minigame.Delivery) error {
	if d.AppID != l.opts.AppID {
		return errors.New("minigamesql: Deliver: a payment of another app")
	}
	if err := l.checkEnv(d.Env); err != nil {
		return fmt.Errorf("minigamesql: Deliver: %w", err)
	}
	token := l.billNo(d.Env, d.OutTradeNo)
	price, err := l.price(ctx, token, d)
	if err != nil {
		return fmt.Errorf("minigamesql: Deliver: %w", err)
	}
	if !d.PricedAt(price) {
		return errors.New("minigamesql: Deliver: OrigPrice is neither the price of the order nor that times its quantity")
	}
	paid := &midas.Delivery{
		AppID: d.AppID, OpenID: d.OpenID, BillNo: token, Token: token, ZoneID: d.ZoneID, Charged: d.ActualPrice, Metadata: d.Attach,
		Items:     []midas.Item{{ID: d.ProductID, Price: price, Quantity: d.Quantity}},
		PayMethod: d.WeChatPay.MchOrderNo, Platform: d.WeChatPay.TransactionID, Numbers: numbers(d.WeChatPay), Time: d.WeChatPay.PaidTime,
	}
	if paid.Time.IsZero() {
		paid.Time = l.opts.Now()
	}
	return l.opts.Deliver(ctx, paid)
}

// numbers returns what WeChat Pay calls a payment.
func numbers(pay minigame.WeChatPay) (all []string) {
	for _, number := range []string{pay.TransactionID, pay.MchOrderNo} {
		if number != "" {
			all = append(all, number)
		}
	}
	return all
}

// price returns the price of one piece that was agreed on.
func (l *Ledger) price(ctx context.Context, token string, d *minigame.Delivery) (midas.Amount, error) {
	price, found, err := l.storedPrice(ctx, token, d.OpenID)
	switch {
	case err != nil || found:
		return price, err
	case d.Source != minigame.FromShop:
		return 0, midas.ErrTokenNotFound
	}
	price, sold := l.opts.ShopProducts[d.ProductID]
	if !sold {
		return 0, errors.New("a payment from the shop for a product that is not in ShopProducts: configure it, and WeChat's next push is granted")
	}
	// Its order is stored now, so that it is compared and granted like any other.
	saved := l.saveOrder(ctx, d.OpenID, token, d.ZoneID, d.Attach, midas.Item{ID: d.ProductID, Price: price, Quantity: d.Quantity})
	if saved == nil {
		return price, nil
	}
	price, found, err = l.storedPrice(ctx, token, d.OpenID) // the same push came in the same moment
	if err == nil && !found {
		err = saved
	}
	return price, err
}

// storedPrice returns the price of one piece in the ledger. The order may have been purged, if this is a
// repeat. A payment that only a refund has noted has no price yet.
func (l *Ledger) storedPrice(ctx context.Context, token, openID string) (price midas.Amount, found bool, err error) {
	order, err := first(l.store.Orders(ctx, midassql.Query{Token: token}))
	items := order.Items
	if err == nil && len(items) == 0 {
		var payment midassql.Payment
		payment, err = first(l.store.Payments(ctx, midassql.Query{OpenID: openID, BillNo: token}))
		items = payment.Items
	}
	if err != nil || len(items) == 0 {
		return 0, false, err
	}
	return items[0].Price, true, nil
}

// first returns the first of what a look-up yields; the zero value if that is nothing.
func first[T any](all iter.Seq2[T, error]) (one T, err error) {
	for one, err := range all {
		return one, err
	}
	return one, nil
}

// Refund notes a refund on its payment and calls Options.Refund, in one transaction: see
// [midassql.Store.Refund]. The payment is found by OutTradeNo, else by TransactionID or MchOrderNo. A refund
// without an OpenID is that of the player who placed the order, or whose payment has the number. One whose
// payment is not known here is refused, and WeChat asks again; but one that names the player and the order
// may come before its delivery. One that does not tell its environment, as those of mini programs, is of the
// Store's; of a Store without a word, it is that of its payment, else of its order. nil means that it is on disk.
func (l *Ledger) Refund(ctx context.Context, r *minigame.RefundPush) error {
	if err := l.refund(ctx, r); err != nil {
		return fmt.Errorf("minigamesql: Refund: %w", err)
	}
	return nil
}

func (l *Ledger) refund(ctx context.Context, r *minigame.RefundPush) error {
	switch {
	case r.AppID != l.opts.AppID:
		return errors.New("it is another app's")
	case r.EnvKnown && l.checkEnv(r.Env) != nil:
		return l.checkEnv(r.Env)
	case r.Failed && l.opts.RefundFailed == nil:
		return nil
	case r.Failed:
		return l.opts.RefundFailed(ctx, r)
	case r.Amount <= 0: // midassql would take it for all of the money
		return errors.New("it has no amount")
	}
	openID, billNo, err := l.refunded(ctx, r)
	if err != nil {
		return err
	}
	_, err = l.store.Refund(ctx, midassql.Refund{ID: r.RefundID, AppID: r.AppID, OpenID: openID, BillNo: billNo, Amount: r.Amount},
		func(ctx context.Context, tx *sql.Tx, p *midassql.Payment, granted bool) error {
			if l.opts.Refund == nil {
				return nil
			}
			return l.opts.Refund(ctx, tx, r, p, granted)
		})
	return err
}

// OnPush goes into OnPush of [minigame.GameConfig] or [minigame.ProgramConfig], by itself or called from there: it keeps the pushes of payments
// and refunds that a function was asked about and that were not acknowledged, for
// [midassql.Store.Attempts]. It never waits: see [midassql.Store.OnCallback].
func (l *Ledger) OnPush(e minigame.PushEvent) {
	kept := midas.CallbackEvent{Outcome: midas.Outcome(e.Outcome), Late: e.Late, OpenID: e.OpenID, BillNo: l.billNo(e.Env, e.OutTradeNo), Err: e.Err}
	kept.Token = kept.BillNo
	switch {
	case e.OutTradeNo == "":
		return
	case e.Outcome == minigame.Handled && e.Late:
		kept.Outcome = midas.Delivered
	case e.Outcome == minigame.Failed, e.Outcome == minigame.Panicked, e.Outcome == minigame.TimedOut, e.Outcome == minigame.Shed, e.Outcome == minigame.HungUp:
	default: // acknowledged, or not a verified push of something that was paid
		return
	}
	if !e.OK {
		kept.Ret = 1
	}
	l.store.OnCallback(kept)
}

// refunded returns the payment that a refund is about. Mini games' refunds do not tell the
// player (minigame.md 3.3), and mini programs' do not tell the environment.
func (l *Ledger) refunded(ctx context.Context, r *minigame.RefundPush) (openID, billNo string, err error) {
	if r.OutTradeNo == "" {
		return l.numbered(ctx, r)
	}
	envs := l.envs(r)
	if len(envs) == 1 && r.OpenID != "" {
		return r.OpenID, l.billNo(envs[0], r.OutTradeNo), nil // it may come before its delivery
	}
	// The order may have been purged since it was paid.
	for _, known := range []func(ctx context.Context, openID, billNo string) (string, error){l.payer, l.orderer} {
		for _, env := range envs {
			billNo = l.billNo(env, r.OutTradeNo)
			if openID, err = known(ctx, r.OpenID, billNo); err != nil || openID != "" {
				return openID, billNo, err
			}
		}
	}
	if r.OpenID == "" {
		return l.numbered(ctx, r)
	}
	return "", "", errors.New("it does not tell its environment, and neither its payment nor its order is known here yet")
}

// envs returns the environments that a refund may be about: its own, or the Store's.
func (l *Ledger) envs(r *minigame.RefundPush) []minigame.Env {
	switch word := l.store.Environment(); {
	case r.EnvKnown:
		return []minigame.Env{r.Env}
	case word == "":
		return []minigame.Env{minigame.Live, minigame.Sandbox}
	case word == "live":
		return []minigame.Env{minigame.Live}
	}
	return []minigame.Env{minigame.Sandbox}
}

// payer returns who paid; "" if it is not known, or not openID, where one is given.
func (l *Ledger) payer(ctx context.Context, openID, billNo string) (string, error) {
	payment, err := first(l.store.Payments(ctx, midassql.Query{OpenID: openID, BillNo: billNo}))
	return payment.OpenID, err
}

// orderer returns who placed the order, as payer does.
func (l *Ledger) orderer(ctx context.Context, openID, billNo string) (string, error) {
	order, err := first(l.store.Orders(ctx, midassql.Query{OpenID: openID, Token: billNo}))
	return order.OpenID, err
}

// numbered finds a payment by what WeChat Pay calls it.
func (l *Ledger) numbered(ctx context.Context, r *minigame.RefundPush) (openID, billNo string, err error) {
	for _, number := range numbers(r.WeChatPay) {
		for p, err := range l.store.Payments(ctx, midassql.Query{Number: number, OpenID: r.OpenID}) {
			switch {
			case err != nil:
				return "", "", err
			case !strings.HasPrefix(p.BillNo, l.opts.AppID+"/"): // who settled it may have left its AppID out
			case billNo != "" && billNo != p.BillNo:
				return "", "", errors.New("more than one payment has its WeChat Pay numbers")
			default:
				openID, billNo = p.OpenID, p.BillNo
			}
		}
		if billNo != "" {
			return openID, billNo, nil
		}
	}
	return "", "", fmt.Errorf("it names neither a player nor an order that is known here, and no payment has its WeChat Pay numbers %q yet", numbers(r.WeChatPay))
}
