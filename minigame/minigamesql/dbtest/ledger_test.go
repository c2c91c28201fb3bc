package dbtest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midassql"
	"github.com/midas-go/midas/midassql/dbtest/testdb"
	"github.com/midas-go/midas/minigame"
	"github.com/midas-go/midas/minigame/minigamesql"
	"github.com/midas-go/midas/minigame/minigametest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A miniShop is a mini game's backend on a database, and the WeChat that it sells through.
type miniShop struct {
	wechat *minigametest.Server
	client *minigame.Game
	store  *midassql.Store
	ledger *minigamesql.Ledger

	mu      sync.Mutex
	refunds []string // "RefundID granted=…"
	players []string // of the refunds
}

func openMiniShop(t *testing.T, db *testdb.Database, deliver func(*midassql.Store) midas.DeliverFunc) *miniShop {
	t.Helper()
	s := &miniShop{wechat: minigametest.NewServer(minigametest.Config{Errorf: t.Errorf})}
	t.Cleanup(s.wechat.Close)
	cfg := s.wechat.GameConfig()
	cfg.DeliverSandbox = true
	var err error
	s.client, err = minigame.NewGame(cfg)
	require.NoError(t, err)
	s.store = db.Store(t, midassql.Options{})
	s.ledger = minigamesql.New(s.store, minigamesql.Options{
		AppID: cfg.AppID, Deliver: deliver(s.store), ShopProducts: map[string]midas.Amount{"chest": 3000},
		Refund: func(_ context.Context, _ *sql.Tx, r *minigame.RefundPush, p *midassql.Payment, granted bool) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.players = append(s.players, p.OpenID)
			s.refunds = append(s.refunds, fmt.Sprintf("%s granted=%t", r.RefundID, granted))
			return nil
		},
		RefundFailed: func(_ context.Context, r *minigame.RefundPush) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.refunds = append(s.refunds, r.RefundID+" failed")
			return nil
		},
	})
	s.wechat.PushToHandler(s.client.PushHandler(minigame.GameHandlers{Deliver: s.ledger.Deliver, Refund: s.ledger.Refund}), "/push")
	s.wechat.Publish("sword", 600)
	s.wechat.Publish("chest", 3000)
	return s
}

// order stores an order of two swords.
func (s *miniShop) order(t *testing.T, openID string, env minigame.Env) *minigame.Order {
	t.Helper()
	session, err := s.client.Code2Session(t.Context(), s.wechat.Login(openID))
	require.NoError(t, err)
	req := minigame.OrderRequest{SessionKey: session.SessionKey, Env: env, ProductID: "sword", Quantity: 2, Price: 600, Attach: "mail 7"}
	order, err := s.client.NewOrder(req)
	require.NoError(t, err)
	require.NoError(t, s.ledger.SaveOrder(t.Context(), openID, req, order))
	return order
}

func TestMiniGamePaymentsAreGrantedOnce(t *testing.T) {
	t.Parallel()
	testdb.OnEach(t, func(t *testing.T, db *testdb.Database) {
		s := openMiniShop(t, db, func(store *midassql.Store) midas.DeliverFunc { return store.Once(db.Grant) })
		order := s.order(t, "ANNA", minigame.Live)
		receipt, err := s.wechat.Pay(t.Context(), "ANNA", order, minigametest.Charged(1000)) // a discount
		require.NoError(t, err)
		require.True(t, receipt.Accepted, receipt.Reason)
		repeat, err := s.wechat.Repeat(t.Context(), minigame.Live, order.OutTradeNo)
		require.NoError(t, err)
		require.True(t, repeat.Accepted, repeat.Reason)
		require.Equal(t, 1, db.Count(t, "SELECT COUNT(*) FROM items WHERE openid = 'ANNA' AND item = 'sword' AND quantity = 2"))

		for p, err := range s.store.Payments(t.Context(), midassql.Query{OpenID: "ANNA"}) {
			require.NoError(t, err)
			require.Equal(t, s.wechat.GameConfig().AppID+"/0/"+order.OutTradeNo, p.BillNo)
			require.Equal(t, midas.Amount(1000), p.Charged)
			require.Equal(t, "mail 7", p.Metadata)
		}
	})
}

func TestASandboxNumberNeverHidesALivePayment(t *testing.T) {
	t.Parallel()
	testdb.OnEach(t, func(t *testing.T, db *testdb.Database) {
		s := openMiniShop(t, db, func(store *midassql.Store) midas.DeliverFunc { return store.Once(db.Grant) })
		for _, env := range []minigame.Env{minigame.Sandbox, minigame.Live} {
			req := minigame.OrderRequest{ProductID: "sword", Quantity: 1, Price: 600}
			require.NoError(t, s.ledger.SaveOrder(t.Context(), "ANNA", req, &minigame.Order{OutTradeNo: "same-number", Env: env}))
			require.NoError(t, s.ledger.Deliver(t.Context(), &minigame.Delivery{
				AppID: s.wechat.GameConfig().AppID, Env: env, OpenID: "ANNA", OutTradeNo: "same-number", ProductID: "sword", Quantity: 1, OrigPrice: 600, ActualPrice: 600,
			}))
		}
		require.Equal(t, 2, db.Count(t, "SELECT COUNT(*) FROM items"))
	})
}

func TestAMiniGamePaymentThatDiffersFromItsOrderIsRefused(t *testing.T) {
	t.Parallel()
	testdb.OnEach(t, func(t *testing.T, db *testdb.Database) {
		s := openMiniShop(t, db, func(store *midassql.Store) midas.DeliverFunc { return store.Once(db.Grant) })
		order := s.order(t, "ANNA", minigame.Live)
		appID := s.wechat.GameConfig().AppID
		for what, change := range map[string]func(*minigame.Delivery){
			"another player":       func(d *minigame.Delivery) { d.OpenID = "BO" },
			"another product":      func(d *minigame.Delivery) { d.ProductID = "shield" },
			"another quantity":     func(d *minigame.Delivery) { d.Quantity = 3 },
			"another price":        func(d *minigame.Delivery) { d.OrigPrice = 1 },
			"another environment":  func(d *minigame.Delivery) { d.Env = minigame.Sandbox },
			"another app":          func(d *minigame.Delivery) { d.AppID = "wx0000000000000001" },
			"an unknown order":     func(d *minigame.Delivery) { d.OutTradeNo = "never-placed" },
			"the shop, not listed": func(d *minigame.Delivery) { d.OutTradeNo, d.Source, d.ProductID = "shop-1", minigame.FromShop, "crown" },
		} {
			t.Run(what, func(t *testing.T) {
				d := &minigame.Delivery{AppID: appID, OpenID: "ANNA", OutTradeNo: order.OutTradeNo, ProductID: "sword", Quantity: 2, OrigPrice: 600, ActualPrice: 1200}
				change(d)
				require.Error(t, s.ledger.Deliver(t.Context(), d))
				require.Zero(t, db.Count(t, "SELECT COUNT(*) FROM items"))
			})
		}
	})
}

func TestShopOrdersAreGrantedByProduct(t *testing.T) {
	t.Parallel()
	testdb.OnEach(t, func(t *testing.T, db *testdb.Database) {
		s := openMiniShop(t, db, func(store *midassql.Store) midas.DeliverFunc { return store.Once(db.Grant) })
		receipt, err := s.wechat.BuyInShop(t.Context(), "ANNA", "chest", 1)
		require.NoError(t, err)
		require.True(t, receipt.Accepted, receipt.Reason)
		require.Equal(t, 1, db.Count(t, "SELECT COUNT(*) FROM items WHERE item = 'chest'"))
	})
}

func TestRefunds(t *testing.T) {
	t.Parallel()
	testdb.OnEach(t, func(t *testing.T, db *testdb.Database) {
		var inbox *midassql.Inbox
		s := openMiniShop(t, db, func(store *midassql.Store) midas.DeliverFunc {
			inbox = newInbox(t, store, midassql.InboxOptions{})
			return inbox.Deliver
		})
		appID := s.wechat.GameConfig().AppID
		delivery := func(order *minigame.Order) *minigame.Delivery {
			return &minigame.Delivery{AppID: appID, OpenID: "ANNA", OutTradeNo: order.OutTradeNo, ProductID: "sword", Quantity: 2, OrigPrice: 600, ActualPrice: 1200,
				WeChatPay: minigame.WeChatPay{TransactionID: "T-" + order.OutTradeNo}}
		}
		refund := func(id string, change func(*minigame.RefundPush)) *minigame.RefundPush {
			r := &minigame.RefundPush{AppID: appID, EnvKnown: true, OpenID: "ANNA", RefundID: id, Amount: 1200}
			change(r)
			return r
		}
		waiting := func() (n int) {
			for _, err := range s.store.Payments(t.Context(), midassql.Query{State: midassql.StateWaiting}) {
				require.NoError(t, err)
				n++
			}
			return n
		}

		early := s.order(t, "ANNA", minigame.Live)
		for range 2 { // before its delivery, and repeated
			require.NoError(t, s.ledger.Refund(t.Context(), refund("R1", func(r *minigame.RefundPush) { r.OutTradeNo = early.OutTradeNo })))
		}
		require.NoError(t, s.ledger.Deliver(t.Context(), delivery(early)), "it is acknowledged, or WeChat would never stop")
		require.Zero(t, waiting(), "and grants nothing")

		cancelled := s.order(t, "ANNA", minigame.Live)
		require.NoError(t, s.ledger.Deliver(t.Context(), delivery(cancelled)))
		require.Equal(t, 1, waiting())
		require.NoError(t, s.ledger.Refund(t.Context(), refund("R2", func(r *minigame.RefundPush) { r.WeChatPay.TransactionID = "T-" + cancelled.OutTradeNo }))) // names no order
		require.Zero(t, waiting(), "it is not handed out any more")

		done := s.order(t, "ANNA", minigame.Live)
		require.NoError(t, s.ledger.Deliver(t.Context(), delivery(done)))
		require.NoError(t, inbox.Done(t.Context(), "ANNA", appID+"/0/"+done.OutTradeNo))
		require.NoError(t, s.ledger.Refund(t.Context(), refund("R3", func(r *minigame.RefundPush) { r.OutTradeNo, r.EnvKnown = done.OutTradeNo, false })))

		part := s.order(t, "ANNA", minigame.Live)
		require.NoError(t, s.ledger.Deliver(t.Context(), delivery(part)))
		require.NoError(t, s.ledger.Refund(t.Context(), refund("R4", func(r *minigame.RefundPush) { r.OutTradeNo, r.Amount = part.OutTradeNo, 100 })))
		require.Equal(t, 1, waiting(), "a part of the money is no reason to keep the items back")

		require.Error(t, s.ledger.Refund(t.Context(), refund("R1", func(r *minigame.RefundPush) { r.OutTradeNo = part.OutTradeNo })), "the number is another refund's")
		require.Error(t, s.ledger.Refund(t.Context(), refund("R5", func(r *minigame.RefundPush) { r.WeChatPay.TransactionID = "T-unknown" })))
		require.NoError(t, s.ledger.Refund(t.Context(), refund("R6", func(r *minigame.RefundPush) { r.OutTradeNo, r.Failed = part.OutTradeNo, true })))
		require.Equal(t, 1, waiting())
		require.Equal(t, []string{"R1 granted=false", "R2 granted=false", "R3 granted=true", "R4 granted=false", "R6 failed"}, s.refunds)

		// The players are restored from a backup.
		require.NoError(t, inbox.Done(t.Context(), "ANNA", appID+"/0/"+part.OutTradeNo))
		parts := s.order(t, "ANNA", minigame.Live)
		require.NoError(t, s.ledger.Deliver(t.Context(), delivery(parts)))
		require.NoError(t, inbox.Done(t.Context(), "ANNA", appID+"/0/"+parts.OutTradeNo))
		for _, id := range []string{"P1", "P2"} {
			require.NoError(t, s.ledger.Refund(t.Context(), refund(id, func(r *minigame.RefundPush) { r.OutTradeNo, r.Amount = parts.OutTradeNo, 600 })))
		}
		put, err := inbox.Retry(t.Context(), midassql.RetryOptions{DoneFrom: time.Now().Add(-time.Hour)})
		require.NoError(t, err)
		require.EqualValues(t, 1, put.PutBack, "what was refunded in full stays done")
		for p, err := range s.store.Payments(t.Context(), midassql.Query{State: midassql.StateWaiting}) {
			require.NoError(t, err)
			require.Equal(t, appID+"/0/"+part.OutTradeNo, p.BillNo)
		}

		// Nobody knows whether the player of a broken payment has the items.
		db.Must(t, "UPDATE deliveries SET state = 3 WHERE state = 0")
		require.NoError(t, s.ledger.Refund(t.Context(), refund("R7", func(r *minigame.RefundPush) { r.OutTradeNo = done.OutTradeNo })))
		require.Equal(t, "R7 granted=true", s.refunds[len(s.refunds)-1])

		// Two parts are all of it, and it still waits.
		again := s.order(t, "ANNA", minigame.Live)
		require.NoError(t, s.ledger.Deliver(t.Context(), delivery(again)))
		require.Equal(t, 2, waiting())
		require.NoError(t, s.ledger.Refund(t.Context(), refund("R9", func(r *minigame.RefundPush) { r.OutTradeNo, r.Amount = again.OutTradeNo, 500 })))
		require.Equal(t, 2, waiting())
		require.NoError(t, s.ledger.Refund(t.Context(), refund("R10", func(r *minigame.RefundPush) { r.OutTradeNo, r.Amount = again.OutTradeNo, 700 })))
		require.Equal(t, 1, waiting())
	})
}

// A mini game's refund names the order and not the player.
func TestARefundThatDoesNotNameThePlayer(t *testing.T) {
	t.Parallel()
	testdb.OnEach(t, func(t *testing.T, db *testdb.Database) {
		s := openMiniShop(t, db, func(store *midassql.Store) midas.DeliverFunc { return store.Once(db.Grant) })
		refund := func(outTradeNo, id string) *minigame.RefundPush {
			return &minigame.RefundPush{AppID: s.wechat.GameConfig().AppID, EnvKnown: true, OutTradeNo: outTradeNo, RefundID: id, Amount: 1200}
		}
		early := s.order(t, "ANNA", minigame.Live)
		require.NoError(t, s.ledger.Refund(t.Context(), refund(early.OutTradeNo, "R1")))
		receipt, err := s.wechat.Pay(t.Context(), "ANNA", early)
		require.NoError(t, err)
		require.True(t, receipt.Accepted, receipt.Reason)
		require.Zero(t, db.Count(t, "SELECT COUNT(*) FROM items"))

		paid := s.order(t, "ANNA", minigame.Live)
		_, err = s.wechat.Pay(t.Context(), "ANNA", paid)
		require.NoError(t, err)
		db.Must(t, "DELETE FROM orders") // purged
		receipt, err = s.wechat.Refund(t.Context(), minigame.Live, paid.OutTradeNo)
		require.NoError(t, err)
		require.True(t, receipt.Accepted, receipt.Reason)
		require.Len(t, s.refunds, 2)
		require.Equal(t, "R1 granted=false", s.refunds[0])
		require.Contains(t, s.refunds[1], "granted=true")
		require.Equal(t, []string{"ANNA", "ANNA"}, s.players, "the game is told")

		require.ErrorContains(t, s.ledger.Refund(t.Context(), refund("never-placed", "R3")), "names neither a player nor an order")
	})
}

// The sample of a mini game's push names neither a player nor an order (minigame.md 3.3): WeChat Pay's
// numbers find the payment.
func TestARefundByWeChatPaysNumbers(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		refund  minigame.RefundPush
		granted bool
	}{
		{"the transaction", minigame.RefundPush{WeChatPay: minigame.WeChatPay{TransactionID: "T1"}}, true},
		{"the merchant's order number", minigame.RefundPush{WeChatPay: minigame.WeChatPay{MchOrderNo: "M1"}}, true},
		{"both, as in the sample", minigame.RefundPush{WeChatPay: minigame.WeChatPay{TransactionID: "T1", MchOrderNo: "M1"}}, true},
		{"an order that nobody knows, and the transaction", minigame.RefundPush{OutTradeNo: "never-placed", WeChatPay: minigame.WeChatPay{TransactionID: "T1"}}, true},
		{"the player and the transaction", minigame.RefundPush{OpenID: "ANNA", WeChatPay: minigame.WeChatPay{TransactionID: "T1"}}, true},
		{"another player and the transaction", minigame.RefundPush{OpenID: "BO", WeChatPay: minigame.WeChatPay{TransactionID: "T1"}}, false},
		{"numbers that no payment has", minigame.RefundPush{WeChatPay: minigame.WeChatPay{TransactionID: "T2", MchOrderNo: "M2"}}, false},
		{"nothing", minigame.RefundPush{}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			testdb.OnEach(t, func(t *testing.T, db *testdb.Database) {
				s := openMiniShop(t, db, func(store *midassql.Store) midas.DeliverFunc { return store.Once(db.Grant) })
				order, appID := s.order(t, "ANNA", minigame.Live), s.wechat.GameConfig().AppID
				require.NoError(t, s.ledger.Deliver(t.Context(), &minigame.Delivery{AppID: appID, OpenID: "ANNA", OutTradeNo: order.OutTradeNo, ProductID: "sword",
					Quantity: 2, OrigPrice: 600, ActualPrice: 1200, WeChatPay: minigame.WeChatPay{TransactionID: "T1", MchOrderNo: "M1"}}))

				refund := test.refund
				refund.AppID, refund.EnvKnown, refund.RefundID, refund.Amount = appID, true, "R1", 1200
				err := s.ledger.Refund(t.Context(), &refund)
				if !test.granted {
					require.Error(t, err, "WeChat asks again")
					require.Empty(t, s.refunds)
					require.Zero(t, db.Count(t, "SELECT COUNT(*) FROM refunds"))
					return
				}
				require.NoError(t, err)
				require.Equal(t, []string{"R1 granted=true"}, s.refunds)
				require.Equal(t, []string{"ANNA"}, s.players)
			})
		})
	}
}

// A part of the money that comes back before the delivery is no reason to keep the items; all of it is.
func TestRefundsThatComeBeforeTheDelivery(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		parts   []midas.Amount
		granted int
	}{
		{"a fen", []midas.Amount{1}, 1},
		{"two parts", []midas.Amount{500, 699}, 1},
		{"two parts that are all of it", []midas.Amount{500, 700}, 0},
		{"all of it", []midas.Amount{1200}, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			testdb.OnEach(t, func(t *testing.T, db *testdb.Database) {
				s := openMiniShop(t, db, func(store *midassql.Store) midas.DeliverFunc { return store.Once(db.Grant) })
				order := s.order(t, "ANNA", minigame.Live)
				for i, amount := range test.parts {
					require.NoError(t, s.ledger.Refund(t.Context(), &minigame.RefundPush{AppID: s.wechat.GameConfig().AppID, EnvKnown: true,
						OutTradeNo: order.OutTradeNo, RefundID: fmt.Sprint("R", i), Amount: amount}))
				}
				receipt, err := s.wechat.Pay(t.Context(), "ANNA", order)
				require.NoError(t, err)
				require.True(t, receipt.Accepted, receipt.Reason)
				require.Equal(t, test.granted, db.Count(t, "SELECT COUNT(*) FROM items"))
			})
		})
	}
}

// A refund that failed is none: nothing is noted, no transaction runs, and the same number may succeed later.
func TestARefundThatFailed(t *testing.T) {
	t.Parallel()
	testdb.OnEach(t, func(t *testing.T, db *testdb.Database) {
		store := db.Store(t, midassql.Options{})
		var calls []string
		ledger := minigamesql.New(store, minigamesql.Options{AppID: "wx0", Deliver: store.Once(db.Grant),
			Refund: func(_ context.Context, _ *sql.Tx, r *minigame.RefundPush, _ *midassql.Payment, _ bool) error {
				calls = append(calls, r.RefundID)
				return nil
			},
			RefundFailed: func(_ context.Context, r *minigame.RefundPush) error {
				calls = append(calls, fmt.Sprint(r.RefundID, " failed: ", r.RetCode, ", connections in use: ", db.Stats().InUse))
				if len(calls) == 1 {
					return errors.New("not now")
				}
				return nil
			}})
		r := &minigame.RefundPush{AppID: "wx0", EnvKnown: true, OpenID: "ANNA", OutTradeNo: "n1", RefundID: "R1", Amount: 1, Failed: true, RetCode: 7}
		require.ErrorContains(t, ledger.Refund(t.Context(), r), "not now", "WeChat tells again")
		require.NoError(t, ledger.Refund(t.Context(), r))
		require.Zero(t, db.Count(t, "SELECT COUNT(*) FROM refunds"))
		require.Zero(t, db.Count(t, "SELECT COUNT(*) FROM deliveries"))
		r.Failed = false
		require.NoError(t, ledger.Refund(t.Context(), r))
		require.Equal(t, []string{"R1 failed: 7, connections in use: 0", "R1 failed: 7, connections in use: 0", "R1"}, calls)
	})
}

// A refund function that fails is asked again; what it wrote is rolled back with the note.
func TestARefundIsHandedOverUntilItIsTaken(t *testing.T) {
	t.Parallel()
	testdb.OnEach(t, func(t *testing.T, db *testdb.Database) {
		store := db.Store(t, midassql.Options{})
		calls := 0
		ledger := minigamesql.New(store, minigamesql.Options{AppID: "wx0", Deliver: store.Once(db.Grant),
			Refund: func(ctx context.Context, tx *sql.Tx, r *minigame.RefundPush, p *midassql.Payment, _ bool) error {
				_, err := tx.ExecContext(ctx, db.SQL("INSERT INTO items (openid, billno, item, quantity) VALUES (?, ?, ?, ?)"), p.OpenID, r.RefundID, "taken back", 1)
				if calls++; err == nil && calls == 1 {
					err = errors.New("not now")
				}
				return err
			}})
		r := &minigame.RefundPush{AppID: "wx0", EnvKnown: true, OpenID: "ANNA", OutTradeNo: "n1", RefundID: "R1", Amount: 1}
		require.ErrorContains(t, ledger.Refund(t.Context(), r), "not now")
		require.NoError(t, ledger.Refund(t.Context(), r))
		require.NoError(t, ledger.Refund(t.Context(), r))
		require.Equal(t, 1, db.Count(t, "SELECT COUNT(*) FROM items"))
		require.Equal(t, 2, calls)
	})
}

// A refund and its delivery that come in the same moment: either the refund is told that the
// items were granted, or they are not.
func TestARefundInTheMomentOfItsDelivery(t *testing.T) {
	t.Parallel()
	testdb.OnEach(t, func(t *testing.T, db *testdb.Database) {
		store := db.Store(t, midassql.Options{})
		var toldGranted atomic.Int64
		ledger := minigamesql.New(store, minigamesql.Options{AppID: "wx0", Deliver: store.Once(db.Grant),
			Refund: func(_ context.Context, _ *sql.Tx, _ *minigame.RefundPush, _ *midassql.Payment, granted bool) error {
				if granted {
					toldGranted.Add(1)
				}
				return nil
			}})
		const rounds = 50
		for i := range rounds {
			number := fmt.Sprintf("n%d", i)
			req := minigame.OrderRequest{ProductID: "sword", Quantity: 1, Price: 600}
			require.NoError(t, ledger.SaveOrder(t.Context(), "ANNA", req, &minigame.Order{OutTradeNo: number}))
			until := func(call func() error) {
				for range 50 {
					if call() == nil {
						return
					}
				}
				assert.Fail(t, "never acknowledged")
			}
			var both sync.WaitGroup
			both.Go(func() {
				until(func() error {
					return ledger.Deliver(t.Context(), &minigame.Delivery{AppID: "wx0", OpenID: "ANNA", OutTradeNo: number, ProductID: "sword", Quantity: 1, OrigPrice: 600, ActualPrice: 600})
				})
			})
			both.Go(func() {
				until(func() error {
					return ledger.Refund(t.Context(), &minigame.RefundPush{AppID: "wx0", EnvKnown: true, OpenID: "ANNA", OutTradeNo: number, RefundID: "R" + number, Amount: 600})
				})
			})
			both.Wait()
		}
		require.EqualValues(t, db.Count(t, "SELECT COUNT(*) FROM items"), toldGranted.Load())
		require.Equal(t, rounds, db.Count(t, "SELECT COUNT(*) FROM refunds"))
	})
}

// WeChat repeats a push on its schedule until it is acknowledged, here while the database
// refuses half of the transactions at any point: each payment is granted once, and at the
// end nothing is left to push.
func TestMiniGamePushesSurviveAFailingDatabase(t *testing.T) {
	t.Parallel()
	testdb.OnEach(t, func(t *testing.T, db *testdb.Database) {
		now := time.Date(2026, 2, 8, 12, 0, 0, 0, time.UTC)
		var clock atomic.Pointer[time.Time]
		clock.Store(&now)
		wechat := minigametest.NewServer(minigametest.Config{Errorf: t.Errorf, Now: func() time.Time { return *clock.Load() }})
		defer wechat.Close()
		wechat.Publish("sword", 600)
		client, err := minigame.NewGame(wechat.GameConfig())
		require.NoError(t, err)
		store := db.Store(t, midassql.Options{})
		fails := 0
		ledger := minigamesql.New(store, minigamesql.Options{AppID: wechat.GameConfig().AppID,
			Deliver: store.Once(func(ctx context.Context, tx *sql.Tx, d *midas.Delivery) error {
				if fails++; fails%2 == 1 {
					return errors.New("the database fails")
				}
				return db.Grant(ctx, tx, d)
			})})
		wechat.PushToHandler(client.PushHandler(minigame.GameHandlers{Deliver: ledger.Deliver, Refund: ledger.Refund}), "/push")
		const payments = 20
		for i := range payments {
			openID := fmt.Sprintf("player-%d", i)
			session, err := client.Code2Session(t.Context(), wechat.Login(openID))
			require.NoError(t, err)
			req := minigame.OrderRequest{SessionKey: session.SessionKey, ProductID: "sword", Quantity: 1, Price: 600}
			order, err := client.NewOrder(req)
			require.NoError(t, err)
			require.NoError(t, ledger.SaveOrder(t.Context(), openID, req, order))
			_, err = wechat.Pay(t.Context(), openID, order)
			require.NoError(t, err)
		}
		for range 100 {
			due, more := wechat.NextPush()
			if !more {
				break
			}
			clock.Store(&due)
			_, err := wechat.PushDue(t.Context())
			require.NoError(t, err)
		}
		_, more := wechat.NextPush()
		require.False(t, more)
		require.Equal(t, payments, db.Count(t, "SELECT COUNT(*) FROM items"))
		var players []string
		for p, err := range store.Payments(t.Context(), midassql.Query{From: time.Now().Add(-time.Hour), To: time.Now().Add(time.Hour)}) {
			require.NoError(t, err)
			players = append(players, p.OpenID)
		}
		slices.Sort(players)
		require.Len(t, slices.Compact(players), payments)
	})
}

// An order that names no zone is signed with the client's own.
func TestAnOrderIsStoredWithTheZoneThatWasSigned(t *testing.T) {
	t.Parallel()
	db := testdb.Open(t, testdb.SQLite)
	wechat, client, session := logIn(t, func(cfg *minigame.GameConfig) { cfg.ZoneID = "7" })
	store := db.Store(t, midassql.Options{})
	appID := wechat.GameConfig().AppID
	ledger := minigamesql.New(store, minigamesql.Options{AppID: appID, Deliver: store.Once(db.Grant)})
	for zone, want := range map[string]string{"": "7", "8": "8"} {
		req := minigame.OrderRequest{SessionKey: session, ProductID: "sword", Quantity: 1, Price: 600, ZoneID: zone}
		order, err := client.NewOrder(req)
		require.NoError(t, err)
		require.NoError(t, ledger.SaveOrder(t.Context(), "ANNA", req, order))
		for o, err := range store.Orders(t.Context(), midassql.Query{Token: appID + "/0/" + order.OutTradeNo}) {
			require.NoError(t, err)
			require.Equal(t, want, o.ZoneID)
		}
		require.Equal(t, 1, db.Count(t, "SELECT COUNT(*) FROM orders WHERE zone = ?", want))
	}
}

// logIn returns a WeChat that sells swords, a client of it, and ANNA's session key.
func logIn(t *testing.T, change func(*minigame.GameConfig)) (*minigametest.Server, *minigame.Game, minigame.Secret) {
	t.Helper()
	wechat := minigametest.NewServer(minigametest.Config{Errorf: t.Errorf})
	t.Cleanup(wechat.Close)
	wechat.Publish("sword", 600)
	cfg := wechat.GameConfig()
	change(&cfg)
	client, err := minigame.NewGame(cfg)
	require.NoError(t, err)
	session, err := client.Code2Session(t.Context(), wechat.Login("ANNA"))
	require.NoError(t, err)
	return wechat, client, session.SessionKey
}

func TestASandboxPaymentIsNotGrantedOutOfLiveTables(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		word string
		env  minigame.Env
		ours bool
	}{
		{"live", minigame.Live, true}, {"live", minigame.Sandbox, false},
		{"sandbox", minigame.Live, false}, {"sandbox", minigame.Sandbox, true},
		{"staging", minigame.Live, false}, {"staging", minigame.Sandbox, true},
		{"", minigame.Live, true}, {"", minigame.Sandbox, true},
	} {
		t.Run(fmt.Sprintf("%q, Env %d", row.word, row.env), func(t *testing.T) {
			t.Parallel()
			db := testdb.Open(t, testdb.SQLite)
			store := db.Store(t, midassql.Options{Environment: row.word})
			ledger := minigamesql.New(store, minigamesql.Options{AppID: "wx1", Deliver: store.Once(db.Grant)})
			req := minigame.OrderRequest{ProductID: "sword", Quantity: 1, Price: 600}
			saved := ledger.SaveOrder(t.Context(), "ANNA", req, &minigame.Order{OutTradeNo: "no-1", Env: row.env})
			delivered := ledger.Deliver(t.Context(), &minigame.Delivery{AppID: "wx1", Env: row.env, OpenID: "ANNA", OutTradeNo: "no-1", ProductID: "sword", Quantity: 1})
			refunded := ledger.Refund(t.Context(), &minigame.RefundPush{AppID: "wx1", Env: row.env, EnvKnown: true, OpenID: "ANNA", OutTradeNo: "no-1", RefundID: "r", Amount: 1})
			for what, err := range map[string]error{"SaveOrder": saved, "Deliver": delivered, "Refund": refunded} {
				require.Equal(t, !row.ours, errors.Is(err, midassql.ErrEnvironment), "%s: %v", what, err)
			}
			if !row.ours {
				require.Zero(t, db.Count(t, "SELECT COUNT(*) FROM deliveries"))
				require.Zero(t, db.Count(t, "SELECT COUNT(*) FROM orders"))
			}
		})
	}
}

// A mini program's refund does not tell the environment: the Store's word does, else the payment, else its
// order. Under the other environment's number it would never meet its payment, which would be granted.
func TestAnEarlyRefundThatDoesNotTellItsEnvironment(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, word string
		orders     []minigame.Env
		want       string // the number that it is noted under; empty: refused
	}{
		{"live tables", "live", []minigame.Env{minigame.Live}, "wx1/0/no-1"},
		{"sandbox tables", "sandbox", []minigame.Env{minigame.Sandbox}, "wx1/1/no-1"},
		{"sandbox tables, and no order", "sandbox", nil, "wx1/1/no-1"},
		{"no word, and a live order", "", []minigame.Env{minigame.Live}, "wx1/0/no-1"},
		{"no word, and a sandbox order", "", []minigame.Env{minigame.Sandbox}, "wx1/1/no-1"},
		{"no word, and no order", "", nil, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			testdb.OnEach(t, func(t *testing.T, db *testdb.Database) {
				store := db.Store(t, midassql.Options{Environment: test.word})
				ledger := minigamesql.New(store, minigamesql.Options{AppID: "wx1", Deliver: store.Once(db.Grant)})
				for _, env := range test.orders {
					req := minigame.OrderRequest{ProductID: "sword", Quantity: 1, Price: 600}
					require.NoError(t, ledger.SaveOrder(t.Context(), "ANNA", req, &minigame.Order{OutTradeNo: "no-1", Env: env}))
				}
				err := ledger.Refund(t.Context(), &minigame.RefundPush{AppID: "wx1", OpenID: "ANNA", OutTradeNo: "no-1", RefundID: "R1", Amount: 600})
				if test.want == "" {
					require.ErrorContains(t, err, "environment", "WeChat asks again")
					require.Zero(t, db.Count(t, "SELECT COUNT(*) FROM deliveries"))
					return
				}
				require.NoError(t, err)
				require.Equal(t, 1, db.Count(t, "SELECT COUNT(*) FROM deliveries WHERE billno = ?", test.want))
				for _, env := range test.orders {
					require.NoError(t, ledger.Deliver(t.Context(), &minigame.Delivery{AppID: "wx1", Env: env, OpenID: "ANNA", OutTradeNo: "no-1",
						ProductID: "sword", Quantity: 1, OrigPrice: 600, ActualPrice: 600}))
				}
				require.Zero(t, db.Count(t, "SELECT COUNT(*) FROM items"))
			})
		})
	}
}

// Who settles by hand may leave the AppID out; the number of such a payment tells it.
func TestARefundFindsASettledPaymentByItsNumber(t *testing.T) {
	t.Parallel()
	testdb.OnEach(t, func(t *testing.T, db *testdb.Database) {
		store := db.Store(t, midassql.Options{})
		ledger := minigamesql.New(store, minigamesql.Options{AppID: "wx1", Deliver: store.Once(db.Grant)})
		for _, app := range []string{"wx2", "wx1"} { // the other one's is not ours
			_, err := store.Settle(t.Context(), midassql.Settlement{By: "lee", Delivery: &midas.Delivery{OpenID: "ANNA", BillNo: app + "/0/no-1", ZoneID: "1",
				Items: []midas.Item{{ID: "sword", Price: 600, Quantity: 1}}, Charged: 600, Numbers: []string{"T1"}, Time: time.Now()}}, db.Grant)
			require.NoError(t, err)
		}
		require.NoError(t, ledger.Refund(t.Context(), &minigame.RefundPush{AppID: "wx1", EnvKnown: true, RefundID: "R1", Amount: 600,
			WeChatPay: minigame.WeChatPay{TransactionID: "T1"}}))
		require.Equal(t, 1, db.Count(t, "SELECT COUNT(*) FROM refunds WHERE billno = 'wx1/0/no-1'"))
	})
}

// Without an amount a refund would be one in full.
func TestARefundWithoutAnAmountIsRefused(t *testing.T) {
	t.Parallel()
	db := testdb.Open(t, testdb.SQLite)
	store := db.Store(t, midassql.Options{})
	ledger := minigamesql.New(store, minigamesql.Options{AppID: "wx1", Deliver: store.Once(db.Grant)})
	require.ErrorContains(t, ledger.Refund(t.Context(), &minigame.RefundPush{AppID: "wx1", EnvKnown: true, OpenID: "ANNA", OutTradeNo: "no-1", RefundID: "R1"}), "amount")
	require.Zero(t, db.Count(t, "SELECT COUNT(*) FROM refunds"))
}

// What WeChat was not told OK is to be read under the ledger's number, like a callback of a phone game.
func TestPushesThatWereNotAcknowledgedAreKept(t *testing.T) {
	t.Parallel()
	db := testdb.Open(t, testdb.SQLite)
	store := db.Store(t, midassql.Options{})
	fails := true
	var ledger *minigamesql.Ledger
	wechat, client, session := logIn(t, func(cfg *minigame.GameConfig) {
		ledger = minigamesql.New(store, minigamesql.Options{AppID: cfg.AppID, Deliver: store.Once(func(ctx context.Context, tx *sql.Tx, d *midas.Delivery) error {
			if fails {
				return errors.New("the bag is full")
			}
			return db.Grant(ctx, tx, d)
		})})
		cfg.OnPush = ledger.OnPush
	})
	wechat.PushToHandler(client.PushHandler(minigame.GameHandlers{Deliver: ledger.Deliver, Refund: ledger.Refund}), "/push")
	for range 2 {
		req := minigame.OrderRequest{SessionKey: session, ProductID: "sword", Quantity: 1, Price: 600}
		order, err := client.NewOrder(req)
		require.NoError(t, err)
		require.NoError(t, ledger.SaveOrder(t.Context(), "ANNA", req, order))
		_, err = wechat.Pay(t.Context(), "ANNA", order)
		require.NoError(t, err)
		fails = false
	}
	require.NoError(t, client.Wait(t.Context()))
	require.NoError(t, store.Wait(t.Context()))
	var kept []string
	for a, err := range store.Attempts(t.Context(), midassql.Query{OpenID: "ANNA"}) {
		require.NoError(t, err)
		require.Equal(t, a.BillNo, a.Token)
		require.True(t, strings.HasPrefix(a.BillNo, wechat.GameConfig().AppID+"/0/"), a.BillNo)
		require.Contains(t, a.Error, "the bag is full")
		kept = append(kept, fmt.Sprint(a.Outcome, " ", a.Ret))
	}
	require.Equal(t, []string{"failed 1"}, kept)

	// Strangers can send these in plaintext mode.
	for _, outcome := range []minigame.Outcome{minigame.Malformed, minigame.Mock, minigame.WrongEnv, minigame.Unverified, minigame.Verification, minigame.Ignored, minigame.Handled} {
		ledger.OnPush(minigame.PushEvent{Outcome: outcome, OpenID: "ANNA", OutTradeNo: "no-1"})
	}
	require.NoError(t, store.Wait(t.Context()))
	require.Equal(t, 1, db.Count(t, "SELECT COUNT(*) FROM attempts"))
}
