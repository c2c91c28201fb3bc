package minigametest

import (
	"context"
	"net/http"
	"testing"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/minigame"
	"github.com/stretchr/testify/require"
)

// newRefundable returns a mini program and the number of an order of 1200 fen that is paid and
// not delivered.
func newRefundable(t *testing.T) (*Server, *minigame.Client, string) {
	t.Helper()
	s, client, order := newSale(t, Config{MiniProgram: true})
	s.PushToHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }))
	_, err := s.Pay(t.Context(), "p", order)
	require.NoError(t, err)
	return s, client, order.OutTradeNo
}

func TestAnOrderIsFoundByEitherOfItsNumbers(t *testing.T) {
	t.Parallel()
	_, client, number := newRefundable(t)
	byNumber := minigame.OrderQuery{OpenID: "p", OrderID: number}
	paid, err := client.QueryOrder(t.Context(), byNumber)
	require.NoError(t, err)
	require.Equal(t, minigame.OrderPaid, paid.Status)

	byWeChat := minigame.OrderQuery{OpenID: "p", WxOrderID: paid.WxOrderID}
	require.NoError(t, client.NotifyProvideGoods(t.Context(), byWeChat))
	delivered, err := client.QueryOrder(t.Context(), byWeChat)
	require.NoError(t, err)
	require.Equal(t, number, delivered.OrderID)
	require.Equal(t, minigame.OrderDelivered, delivered.Status)
	require.Zero(t, delivered.OrderType)

	refund := minigame.RefundRequest{OrderQuery: byWeChat, RefundOrderID: "refund-0001", LeftFee: 1200 * midas.Fen, RefundFee: 200 * midas.Fen, From: 1}
	started, err := client.RefundOrder(t.Context(), refund)
	require.NoError(t, err)
	require.Equal(t, number, started.PayOrderID)
	require.Equal(t, paid.WxOrderID, started.PayWxOrderID)
	refund.OrderQuery = byNumber
	started, err = client.RefundOrder(t.Context(), refund)
	require.NoError(t, err)
	require.True(t, started.Repeated, "the same order by its other number")

	for _, unknown := range []minigame.OrderQuery{
		{OpenID: "p", WxOrderID: "wx-unknown"}, {OpenID: "p", Env: minigame.Sandbox, OrderID: number}, {OpenID: "p", Env: minigame.Sandbox, WxOrderID: paid.WxOrderID},
		{OpenID: "other", OrderID: number},
	} {
		_, err = client.QueryOrder(t.Context(), unknown)
		require.ErrorContains(t, err, "order not exist")
		refund.OrderQuery, refund.RefundOrderID = unknown, "refund-0009"
		_, err = client.RefundOrder(t.Context(), refund)
		require.ErrorContains(t, err, "order not exist")
	}
}

func TestRefundsAreKnownByTheirNumbers(t *testing.T) {
	t.Parallel()
	s, client, number := newRefundable(t)
	query := minigame.OrderQuery{OpenID: "p", OrderID: number}
	left := func() midas.Amount {
		order, err := client.QueryOrder(t.Context(), query)
		require.NoError(t, err)
		return order.LeftFee
	}
	first := minigame.RefundRequest{OrderQuery: query, RefundOrderID: "refund-0001", LeftFee: 1200 * midas.Fen, RefundFee: 200 * midas.Fen, From: 1}
	second := minigame.RefundRequest{OrderQuery: query, RefundOrderID: "refund-0002", LeftFee: 1000 * midas.Fen, RefundFee: 300 * midas.Fen, From: 1}
	for _, refund := range []minigame.RefundRequest{first, second} {
		started, err := client.RefundOrder(t.Context(), refund)
		require.NoError(t, err)
		require.False(t, started.Repeated)
	}
	started, err := client.RefundOrder(t.Context(), first)
	require.NoError(t, err)
	require.True(t, started.Repeated)
	require.Equal(t, 700*midas.Fen, left())

	other := first
	other.LeftFee = left()
	_, err = client.RefundOrder(t.Context(), other)
	require.Error(t, err, "the number with another left_fee")
	require.Equal(t, 700*midas.Fen, left())

	tooMuch := &body{OpenID: "p", OrderID: number, RefundOrderID: "refund-0003", LeftFee: 700, RefundFee: 701}
	s.cfg.Errorf = func(string, ...any) {}
	require.Equal(t, 268490002, s.carryOut("/xpay/refund_order", tooMuch)["errcode"])
	require.Equal(t, 700*midas.Fen, left())

	refund, err := client.QueryOrder(t.Context(), minigame.OrderQuery{OpenID: "p", OrderID: "refund-0001"})
	require.NoError(t, err)
	require.Equal(t, "refund-0001", refund.OrderID)
	require.Equal(t, 1, refund.OrderType)
	require.Equal(t, 200*midas.Fen, refund.RefundFee)
	require.True(t, refund.Refunded())
	require.False(t, refund.Paid())
	_, err = client.QueryOrder(t.Context(), minigame.OrderQuery{OpenID: "other", OrderID: "refund-0001"})
	require.ErrorContains(t, err, "order not exist")

	var told *minigame.Refund
	s.PushToHandler(client.PushHandler(minigame.Handlers{Refund: func(_ context.Context, r *minigame.Refund) error { told = r; return nil }}))
	_, err = s.Refund(t.Context(), minigame.Live, number)
	require.NoError(t, err)
	require.Equal(t, 700*midas.Fen, told.Amount, "what was left")
	require.Zero(t, left())
	_, err = s.Refund(t.Context(), minigame.Live, number)
	require.ErrorContains(t, err, "nothing is left")
}

func TestNobodySeesAnOrderBeforeItsOptions(t *testing.T) {
	t.Parallel()
	s, _, toPay := newSale(t, Config{})
	s.PushToHandler(http.NotFoundHandler())
	_, err := s.Pay(t.Context(), "p", toPay, func(*order) { require.Empty(t, s.orders, "a poll would see the list price") })
	require.NoError(t, err)
	require.Len(t, s.orders, 1)
}

func TestEveryZoneHasItsCoinsAndNumbers(t *testing.T) {
	t.Parallel()
	s, client, _ := newSale(t, Config{})
	session, err := client.Code2Session(t.Context(), s.Login("p"))
	require.NoError(t, err)
	zone := func(id string) minigame.Coins {
		return minigame.Coins{Player: minigame.Player{OpenID: "p", SessionKey: session.SessionKey, IP: "203.0.113.7"}, ZoneID: id}
	}
	balance := func(id string) int64 {
		b, err := client.GetBalance(t.Context(), zone(id))
		require.NoError(t, err)
		return b.Balance
	}
	s.GiveCoins("p", minigame.Live, 10)
	require.EqualValues(t, 10, balance("1"))
	require.Zero(t, balance("2"))

	for _, id := range []string{"1", "2"} {
		present, err := client.Present(t.Context(), minigame.Payment{Coins: zone(id), BillNo: "bill-1", Amount: 5})
		require.NoError(t, err)
		require.False(t, present.Repeated, "a bill_no is unique in its zone only")
	}
	require.EqualValues(t, 15, balance("1"))
	require.EqualValues(t, 5, balance("2"))
	_, err = client.Pay(t.Context(), minigame.Payment{Coins: zone("2"), BillNo: "bill-2", Amount: 6})
	require.ErrorIs(t, err, minigame.ErrInsufficient)
}

func TestTheSessionOfNobodyDoesNotExpire(t *testing.T) {
	t.Parallel()
	s, _, order := newSale(t, Config{})
	s.ExpireSession("unknown")
	_, err := s.Pay(t.Context(), "other", order)
	require.ErrorContains(t, err, "signature", "the session of a player who never logged in did not expire")
}
