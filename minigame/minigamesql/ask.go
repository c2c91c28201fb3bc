package minigamesql

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midassql"
	"github.com/midas-go/midas/minigame"
)

const (
	defaultPoll = 10 * time.Second
	longestWait = 60 // times Options.Poll

	// askBatch is how many orders an AskUnpaid claims at once: if it is stopped, so many are asked about no
	// sooner than when they are due again.
	askBatch = 10

	// grantTime limits the grant of one payment.
	grantTime = 5 * time.Second
)

// AskUnpaid asks WeChat about stored orders whose push has not come, until ctx ends, and returns ctx.Err(). What
// was paid is granted as Deliver grants it: once, whether the push comes before, meanwhile or later. Of a
// mini program WeChat is told then that it is delivered. Any number of servers may run it, and one
// server several times, for more questions at once: an order is asked about 1, 5, 15 and 60 minutes after
// SaveOrder, then each day for 7 days, each time by one of them (see [midassql.Store.ClaimUnpaid]). That is up
// to 11 calls for an order that is never paid.
//
// At WeChat's limits (45009, 45011 and 268490015) it waits, longer each time, and asks the same again. What
// else fails is logged, and the order is asked about the next time that it is due. It asks about no player of
// a game without a session_key, or whose session_key has expired, and about no sandbox order unless
// DeliverSandbox is set.
//
// WeChat tells neither price nor quantity of a mini game's order, so what is granted is the stored order, once
// WeChat agrees to its number and item; the charge in the ledger is then the list price. Nor does that answer
// tell of refunds: such an order is granted unless the refund's push came first. An order of a mini program
// whose money went back is not granted.
//
// It returns another error at once if Options has neither Game nor Program, or both, or no SessionKey
// for Game, or a negative Poll.
func (l *Ledger) AskUnpaid(ctx context.Context) error {
	switch {
	case (l.opts.Game == nil) == (l.opts.Program == nil):
		return errors.New("minigamesql: AskUnpaid: Options: set either Game or Program")
	case l.opts.Game != nil && l.opts.SessionKey == nil:
		return errors.New("minigamesql: AskUnpaid: Options: SessionKey is missing")
	case l.opts.Poll < 0:
		return errors.New("minigamesql: AskUnpaid: Options: Poll is negative")
	}
	wait := l.opts.Poll // after the next failure
	fail := func(level slog.Level, message string, err error, about ...slog.Attr) {
		if ctx.Err() != nil {
			return
		}
		l.log(ctx, level, message, append(about, slog.Any("error", err), slog.Duration("wait", wait))...)
		sleep(ctx, wait)
		wait = min(2*wait, longestWait*l.opts.Poll)
	}
	for ctx.Err() == nil {
		orders, err := l.store.ClaimUnpaid(ctx, l.opts.AppID+"/", askBatch)
		if err != nil {
			fail(slog.LevelError, "minigamesql: AskUnpaid cannot look for orders; it goes on trying", err)
			continue
		}
		for _, o := range orders {
			about := []slog.Attr{slog.String("openid", o.OpenID), slog.String("token", o.Token)}
			limited := true
			for limited && ctx.Err() == nil && l.opts.Now().Before(o.Until) { // later, another server may ask
				err := l.ask(ctx, o)
				limited = errors.Is(err, minigame.ErrRateLimit)
				switch {
				case err == nil:
					wait = l.opts.Poll
				case errors.Is(err, errNotNow):
					l.log(ctx, slog.LevelDebug, "minigamesql: WeChat does not say that an order was paid", append(about, slog.Any("error", err))...)
				case limited:
					fail(slog.LevelWarn, "minigamesql: AskUnpaid waits: WeChat's limit is reached", err, about...)
				default:
					fail(slog.LevelError, "minigamesql: AskUnpaid failed; it asks about the order when it is due again", err, about...)
				}
			}
		}
		if len(orders) == 0 {
			sleep(ctx, l.opts.Poll)
		}
	}
	return ctx.Err()
}

// errNotNow is in the errors that are no fault: most orders are never paid, and players go.
var errNotNow = errors.New("not now")

// notNow marks such an error. For a mini program's order that was never opened WeChat complains of a parameter.
func notNow(err error) error {
	var refusal *minigame.Error
	if errors.Is(err, minigame.ErrNotFound) || errors.Is(err, minigame.ErrLoginExpired) || errors.As(err, &refusal) && refusal.Code == 268490002 {
		return fmt.Errorf("%w: %w", errNotNow, err)
	}
	return err
}

// ask asks WeChat about an order and grants it if it was paid.
func (l *Ledger) ask(ctx context.Context, o midassql.ClaimedOrder) error {
	number, err := l.number(o.Token)
	if err != nil {
		return err
	}
	query := minigame.ProgramOrderQuery{OpenID: o.OpenID, Env: number.env, OrderID: number.outTradeNo}
	d := &minigame.Delivery{AppID: l.opts.AppID, Env: number.env, OpenID: o.OpenID, OutTradeNo: number.outTradeNo, ZoneID: o.ZoneID, Attach: o.Metadata,
		Source: minigame.FromGame}
	if len(o.Items) != 1 {
		return fmt.Errorf("the stored order has %d items, and WeChat's have one", len(o.Items))
	}
	item := o.Items[0]
	d.ProductID, d.Quantity, d.OrigPrice, d.ActualPrice = item.ID, item.Quantity, item.Price, item.Price*midas.Amount(item.Quantity)
	delivered, paid := false, false
	if l.opts.Game != nil {
		paid, err = l.askGame(ctx, o, d)
	} else {
		paid, delivered, err = l.askProgram(ctx, query, d)
	}
	if err != nil || !paid {
		return notNow(err)
	}
	if err := l.grant(ctx, d); err != nil {
		return fmt.Errorf("it was paid and is not granted: %w", err)
	}
	l.log(ctx, slog.LevelInfo, "minigamesql: a payment was granted whose push has not come", slog.String("openid", o.OpenID), slog.String("token", o.Token))
	if l.opts.Game != nil || delivered {
		return nil // a mini game has no such call
	}
	if err := l.opts.Program.NotifyDelivered(ctx, query); err != nil {
		return fmt.Errorf("it is granted, and WeChat is not told: %w", err)
	}
	return nil
}

// askGame asks about an order of a mini game, and completes d if it was paid.
func (l *Ledger) askGame(ctx context.Context, o midassql.ClaimedOrder, d *minigame.Delivery) (paid bool, err error) {
	if err := l.opts.Game.Serves(d.Env); err != nil {
		return false, fmt.Errorf("%w: %w", errNotNow, err)
	}
	var key minigame.Secret
	err = protected(func() (err error) {
		key, err = l.opts.SessionKey(ctx, o.OpenID)
		return err
	})
	if err != nil {
		return false, fmt.Errorf("SessionKey: %w", err)
	}
	if key == "" {
		return false, fmt.Errorf("%w: the player has no session_key", errNotNow)
	}
	answer, err := l.opts.Game.QueryOrder(ctx, minigame.GameOrderQuery{
		Player: minigame.CallPlayer{OpenID: o.OpenID, SessionKey: key}, Env: d.Env, OutTradeNo: d.OutTradeNo, ZoneID: o.ZoneID,
	})
	switch {
	case err != nil || !answer.Paid:
		return false, err
	case answer.OutTradeNo != d.OutTradeNo || answer.ProductID != d.ProductID:
		return false, errors.New("WeChat's answer is about another order or item")
	}
	d.WeChatPay = minigame.WeChatPay{MchOrderNo: answer.MchOrderNo, TransactionID: answer.TransactionID, PaidTime: answer.PaidTime}
	return true, nil
}

// askProgram is askGame for a mini program. delivered is whether WeChat knows that it is delivered.
func (l *Ledger) askProgram(ctx context.Context, q minigame.ProgramOrderQuery, d *minigame.Delivery) (paid, delivered bool, err error) {
	if err := l.opts.Program.Serves(d.Env); err != nil {
		return false, false, fmt.Errorf("%w: %w", errNotNow, err)
	}
	answer, err := l.opts.Program.QueryOrder(ctx, q)
	switch {
	case err != nil || !answer.Paid():
		return false, false, err
	case answer.OrderID != d.OutTradeNo:
		return false, false, errors.New("WeChat's answer is about another order")
	}
	d.ActualPrice = answer.PaidFee
	d.WeChatPay = minigame.WeChatPay{TransactionID: answer.WxPayOrderID, PaidTime: answer.PaidTime}
	return true, answer.Status == minigame.OrderDelivered, nil
}

// grant is Deliver with a time limit.
func (l *Ledger) grant(ctx context.Context, d *minigame.Delivery) error {
	ctx, cancel := context.WithTimeout(ctx, grantTime)
	defer cancel()
	return protected(func() error { return l.Deliver(ctx, d) })
}

// protected returns the panic of one of the game's functions as an error.
func protected(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return f()
}

// A number is what a token is made of: see minigame.BillNo.
type number struct {
	env        minigame.Env
	outTradeNo string
}

func (l *Ledger) number(token string) (n number, err error) {
	rest, _ := strings.CutPrefix(token, l.opts.AppID+"/")
	env, outTradeNo, _ := strings.Cut(rest, "/")
	i, err := strconv.Atoi(env)
	n = number{minigame.Env(i), outTradeNo}
	if err != nil || l.billNo(n.env, n.outTradeNo) != token {
		return number{}, errors.New("its token is not of the form AppID/Env/OutTradeNo")
	}
	return n, nil
}

// sleep waits for d, up to half of it taken off at random so that servers do not ask in step, or until ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d - rand.N(d/2+1))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// log logs. A log handler that panics must not end the worker.
func (l *Ledger) log(ctx context.Context, level slog.Level, message string, attrs ...slog.Attr) {
	defer func() { _ = recover() }()
	l.opts.Logger.LogAttrs(ctx, level, message, attrs...)
}
