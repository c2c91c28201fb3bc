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
func newRefundable(t *testing.T) (*Server, *minigame.Program, string) {
	t.Helper()
	s, client, order := newSale(t, Config{MiniProgram: true})
	s.PushToHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }), "/push")
	_, err := s.Pay(t.Context(), "p", order)
	require.NoError(t, err)
	return s, client.(*minigame.Program), order.OutTradeNo
}

func TestAnOrderIsFoundByEitherOfItsNumbers(t *testing.T) {
	t.Parallel()
	_, client, number := newRefundable(t)
	byNumber := minigame.ProgramOrderQuery{OpenID: "p", OrderID: number}
	paid, err := client.QueryOrder(t.Context(), byNumber)
	require.NoError(t, err)
	require.Equal(t, minigame.OrderPaid, paid.Status)

	byWeChat := minigame.ProgramOrderQuery{OpenID: "p", WxOrderID: paid.WxOrderID}
	require.NoError(t, client.NotifyDelivered(t.Context(), byWeChat))
	delivered, err := client.QueryOrder(t.Context(), byWeChat)
	require.NoError(t, err)
	require.Equal(t, number, delivered.OrderID)
	require.Equal(t, minigame.OrderDelivered, delivered.Status)
	require.Zero(t, delivered.OrderType)

	refund := minigame.RefundRequest{ProgramOrderQuery: byWeChat, RefundOrderID: "refund-0001", LeftFee: 1200 * midas.Fen, RefundFee: 200 * midas.Fen, From: 1}
	started, err := client.RefundOrder(t.Context(), refund)
	require.NoError(t, err)
	require.Equal(t, number, started.PayOrderID)
	require.Equal(t, paid.WxOrderID, started.PayWxOrderID)
	refund.ProgramOrderQuery = byNumber
	started, err = client.RefundOrder(t.Context(), refund)
	require.NoError(t, err)
	require.True(t, started.Repeated, "the same order by its other number")

	for _, unknown := range []minigame.ProgramOrderQuery{
		{OpenID: "p", WxOrderID: "wx-unknown"}, {OpenID: "p", Env: minigame.Sandbox, OrderID: number}, {OpenID: "p", Env: minigame.Sandbox, WxOrderID: paid.WxOrderID},
		{OpenID: "other", OrderID: number},
	} {
		_, err = client.QueryOrder(t.Context(), unknown)
		require.ErrorContains(t, err, "order not exist")
		refund.ProgramOrderQuery, refund.RefundOrderID = unknown, "refund-0009"
		_, err = client.RefundOrder(t.Context(), refund)
		require.ErrorContains(t, err, "order not exist")
	}
}

func TestRefundsAreKnownByTheirNumbers(t *testing.T) {
	t.Parallel()
	s, client, number := newRefundable(t)
	query := minigame.ProgramOrderQuery{OpenID: "p", OrderID: number}
	left := func() midas.Amount {
		order, err := client.QueryOrder(t.Context(), query)
		require.NoError(t, err)
		return order.LeftFee
	}
	first := minigame.RefundRequest{ProgramOrderQuery: query, RefundOrderID: "refund-0001", LeftFee: 1200 * midas.Fen, RefundFee: 200 * midas.Fen, From: 1}
	second := minigame.RefundRequest{ProgramOrderQuery: query, RefundOrderID: "refund-0002", LeftFee: 1000 * midas.Fen, RefundFee: 300 * midas.Fen, From: 1}
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

	refund, err := client.QueryOrder(t.Context(), minigame.ProgramOrderQuery{OpenID: "p", OrderID: "refund-0001"})
	require.NoError(t, err)
	require.Equal(t, "refund-0001", refund.OrderID)
	require.Equal(t, 1, refund.OrderType)
	require.Equal(t, 200*midas.Fen, refund.RefundFee)
	require.True(t, refund.Refunded())
	require.False(t, refund.Paid())
	_, err = client.QueryOrder(t.Context(), minigame.ProgramOrderQuery{OpenID: "other", OrderID: "refund-0001"})
	require.ErrorContains(t, err, "order not exist")

	var told *minigame.RefundPush
	s.PushToHandler(client.PushHandler(minigame.ProgramHandlers{Refund: func(_ context.Context, r *minigame.RefundPush) error { told = r; return nil }}), "/push")
	_, err = s.Refund(t.Context(), minigame.Live, number)
	require.NoError(t, err)
	require.Equal(t, 700*midas.Fen, told.Amount, "what was left")
	require.Zero(t, left())
	_, err = s.Refund(t.Context(), minigame.Live, number)
	require.ErrorContains(t, err, "nothing is left")
}

func TestWhatAMiniProgramHearsBesides(t *testing.T) {
	t.Parallel()
	for _, xml := range []bool{false, true} {
		s, sold, order := newSale(t, Config{MiniProgram: true, XML: xml})
		program, number := sold.(*minigame.Program), order.OutTradeNo
		var heard []any
		advice := minigame.Advice{Against: true, Info: "used", Evidence: "level 7 <&>"}
		s.PushToHandler(program.PushHandler(minigame.ProgramHandlers{
			Deliver: func(context.Context, *minigame.Delivery) error { return nil },
			Complaint: func(_ context.Context, c *minigame.Complaint) error {
				heard = append(heard, c.ComplaintDetail, c.OutTradeNo)
				return nil
			},
			Notice: func(_ context.Context, n *minigame.MerchantNotice) error { heard = append(heard, n.Kind); return nil },
			Subscription: func(_ context.Context, c *minigame.SubscriptionCharge) error {
				heard = append(heard, c.OriginalTransactionID)
				return nil
			},
			RefundInquiry: func(_ context.Context, r *minigame.RefundInquiry) (minigame.Advice, error) {
				heard = append(heard, r.PayOrderID, r.Quantity)
				return advice, nil
			},
		}), "/push")
		_, err := s.Complain(t.Context(), minigame.Live, number, "no sword")
		require.ErrorContains(t, err, "no such order")
		_, err = s.FinishRefund(t.Context(), minigame.Live, "refund-0001")
		require.ErrorContains(t, err, "no such refund")
		accepted := func(receipt *Receipt, err error) *Receipt {
			t.Helper()
			require.NoError(t, err)
			require.True(t, receipt.Accepted, receipt.Reason)
			return receipt
		}
		accepted(s.Pay(t.Context(), "p", order))
		accepted(s.Complain(t.Context(), minigame.Live, number, "no sword"))
		accepted(s.NotifyMerchant(t.Context(), "punishment"))
		accepted(s.ChargeSubscription(t.Context(), "p", "sword"))
		require.Equal(t, &advice, accepted(s.AskRefund(t.Context(), minigame.Live, number)).Advice)
		require.Equal(t, []any{"no sword", number, "punishment", "original-of-p", number, 2}, heard)

		advice.Evidence = "" // which is required
		receipt, err := s.AskRefund(t.Context(), minigame.Live, number)
		require.NoError(t, err)
		require.False(t, receipt.Accepted)
	}
}

func TestCoinsThatArePaidForAreCredited(t *testing.T) {
	t.Parallel()
	for _, program := range []bool{false, true} {
		s, sold, _ := newSale(t, Config{MiniProgram: program})
		var got *minigame.CoinPayment
		coins := func(_ context.Context, p *minigame.CoinPayment) error { got = p; return nil }
		session, err := sold.Code2Session(t.Context(), s.Login("p"))
		require.NoError(t, err)
		player := minigame.CallPlayer{OpenID: "p", SessionKey: session.SessionKey, IP: "203.0.113.7"}
		request := minigame.OrderRequest{SessionKey: session.SessionKey, Quantity: 60, Coins: true}
		var balance *minigame.Balance
		pay := func() {
			t.Helper()
			order, err := sold.NewOrder(request)
			require.NoError(t, err)
			receipt, err := s.Pay(t.Context(), "p", order)
			require.NoError(t, err)
			require.True(t, receipt.Accepted, receipt.Reason)
		}
		if of, ok := sold.(*minigame.Program); ok {
			s.PushToHandler(of.PushHandler(minigame.ProgramHandlers{Coins: coins}), "/push")
			pay()
			balance, err = of.TokenBalance(t.Context(), player, minigame.Live)
		} else {
			of := sold.(*minigame.Game)
			request.Price = 10 * midas.Fen
			s.PushToHandler(of.PushHandler(minigame.GameHandlers{Coins: coins}), "/push")
			pay()
			balance, err = of.CoinBalance(t.Context(), minigame.CoinAccount{Player: player})
		}
		require.NoError(t, err)
		require.EqualValues(t, 60, balance.Balance)
		require.Equal(t, 60, got.Quantity)
		require.Equal(t, 600*midas.Fen, got.ActualPrice)
	}
}

func TestAMiniGameHearsOfGifts(t *testing.T) {
	t.Parallel()
	for _, xml := range []bool{false, true} {
		s, sold, _ := newSale(t, Config{XML: xml})
		var got *minigame.Gift
		s.PushToHandler(sold.(*minigame.Game).PushHandler(minigame.GameHandlers{Gift: func(_ context.Context, g *minigame.Gift) error { got = g; return nil }}), "/push")
		items := []minigame.GiftItem{{ID: "sword", Quantity: 1}, {ID: "gem", Quantity: 5}}
		receipt, err := s.Gift(t.Context(), "p", items...)
		require.NoError(t, err)
		require.True(t, receipt.Accepted, receipt.Reason)
		require.Equal(t, items, got.Items)
		require.Equal(t, "p", got.OpenID)
	}
}

func TestNobodySeesAnOrderBeforeItsOptions(t *testing.T) {
	t.Parallel()
	s, _, toPay := newSale(t, Config{})
	s.PushToHandler(http.NotFoundHandler(), "/push")
	_, err := s.Pay(t.Context(), "p", toPay, func(*order) { require.Empty(t, s.orders, "a poll would see the list price") })
	require.NoError(t, err)
	require.Len(t, s.orders, 1)
}

func TestEveryZoneHasItsCoinsAndNumbers(t *testing.T) {
	t.Parallel()
	s, sold, _ := newSale(t, Config{})
	client := sold.(*minigame.Game)
	session, err := client.Code2Session(t.Context(), s.Login("p"))
	require.NoError(t, err)
	zone := func(id string) minigame.CoinAccount {
		return minigame.CoinAccount{Player: minigame.CallPlayer{OpenID: "p", SessionKey: session.SessionKey, IP: "203.0.113.7"}, ZoneID: id}
	}
	balance := func(id string) int64 {
		b, err := client.CoinBalance(t.Context(), zone(id))
		require.NoError(t, err)
		return b.Balance
	}
	s.GiveCoins("p", minigame.Live, 10)
	require.EqualValues(t, 10, balance("1"))
	require.Zero(t, balance("2"))

	for _, id := range []string{"1", "2"} {
		present, err := client.GiveCoins(t.Context(), minigame.CoinMove{CoinAccount: zone(id), BillNo: "bill-1", Amount: 5})
		require.NoError(t, err)
		require.False(t, present.Repeated, "a bill_no is unique in its zone only")
	}
	require.EqualValues(t, 15, balance("1"))
	require.EqualValues(t, 5, balance("2"))
	_, err = client.SpendCoins(t.Context(), minigame.CoinMove{CoinAccount: zone("2"), BillNo: "bill-2", Amount: 6})
	require.ErrorIs(t, err, minigame.ErrInsufficient)
}

func TestTheSessionOfNobodyDoesNotExpire(t *testing.T) {
	t.Parallel()
	s, _, order := newSale(t, Config{})
	s.ExpireSession("unknown")
	_, err := s.Pay(t.Context(), "other", order)
	require.ErrorContains(t, err, "SIGNATURE_INVALID", "the session of a player who never logged in did not expire")
}
