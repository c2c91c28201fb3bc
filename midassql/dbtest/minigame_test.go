package dbtest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midassql"
	"github.com/midas-go/midas/minigame"
	"github.com/midas-go/midas/minigame/minigametest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A miniShop is a mini game's backend on a database, and the WeChat that it sells through.
type miniShop struct {
	wechat *minigametest.Server
	client *minigame.Client
	store  *midassql.Store
	ledger *midassql.MiniGame

	mu      sync.Mutex
	refunds []string // "RefundID granted=…"
	players []string // of the refunds
}

func openMiniShop(t *testing.T, db *database, deliver func(*midassql.Store) midas.DeliverFunc) *miniShop {
	t.Helper()
	s := &miniShop{wechat: minigametest.NewServer(minigametest.Config{Errorf: t.Errorf})}
	t.Cleanup(s.wechat.Close)
	cfg := s.wechat.ClientConfig()
	cfg.DeliverSandbox = true
	var err error
	s.client, err = minigame.New(cfg)
	require.NoError(t, err)
	s.store = db.store(t, midassql.Options{})
	s.ledger = s.store.MiniGame(midassql.MiniGameOptions{
		AppID: cfg.AppID, Deliver: deliver(s.store), ShopProducts: map[string]midas.Amount{"chest": 3000},
		Refund: func(_ context.Context, _ *sql.Tx, r *minigame.Refund, granted bool) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.players = append(s.players, r.OpenID)
			s.refunds = append(s.refunds, fmt.Sprintf("%s granted=%t", r.RefundID, granted))
			return nil
		},
	})
	s.wechat.PushToHandler(s.client.PushHandler(minigame.Handlers{Deliver: s.ledger.Deliver, Refund: s.ledger.Refund}))
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
	onEach(t, func(t *testing.T, db *database) {
		s := openMiniShop(t, db, func(store *midassql.Store) midas.DeliverFunc { return store.Once(db.grant) })
		order := s.order(t, "ANNA", minigame.Live)
		receipt, err := s.wechat.Pay(t.Context(), "ANNA", order, minigametest.Charged(1000)) // a discount
		require.NoError(t, err)
		require.True(t, receipt.Accepted, receipt.Reason)
		repeat, err := s.wechat.Repeat(t.Context(), minigame.Live, order.OutTradeNo)
		require.NoError(t, err)
		require.True(t, repeat.Accepted, repeat.Reason)
		require.Equal(t, 1, db.count(t, "SELECT COUNT(*) FROM items WHERE openid = 'ANNA' AND item = 'sword' AND quantity = 2"))

		for p, err := range s.store.Payments(t.Context(), midassql.Query{OpenID: "ANNA"}) {
			require.NoError(t, err)
			require.Equal(t, s.wechat.ClientConfig().AppID+"/0/"+order.OutTradeNo, p.BillNo)
			require.Equal(t, midas.Amount(1000), p.Charged)
			require.Equal(t, "mail 7", p.Metadata)
		}
	})
}

func TestASandboxNumberNeverHidesALivePayment(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		s := openMiniShop(t, db, func(store *midassql.Store) midas.DeliverFunc { return store.Once(db.grant) })
		for _, env := range []minigame.Env{minigame.Sandbox, minigame.Live} {
			req := minigame.OrderRequest{ProductID: "sword", Quantity: 1, Price: 600}
			require.NoError(t, s.ledger.SaveOrder(t.Context(), "ANNA", req, &minigame.Order{OutTradeNo: "same-number", Env: env}))
			require.NoError(t, s.ledger.Deliver(t.Context(), &minigame.Delivery{
				AppID: s.wechat.ClientConfig().AppID, Env: env, OpenID: "ANNA", OutTradeNo: "same-number", ProductID: "sword", Quantity: 1, OrigPrice: 600, ActualPrice: 600,
			}))
		}
		require.Equal(t, 2, db.count(t, "SELECT COUNT(*) FROM items"))
	})
}

func TestAMiniGamePaymentThatDiffersFromItsOrderIsRefused(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		s := openMiniShop(t, db, func(store *midassql.Store) midas.DeliverFunc { return store.Once(db.grant) })
		order := s.order(t, "ANNA", minigame.Live)
		appID := s.wechat.ClientConfig().AppID
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
				require.Zero(t, db.count(t, "SELECT COUNT(*) FROM items"))
			})
		}
	})
}

func TestShopOrdersAreGrantedByProduct(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		s := openMiniShop(t, db, func(store *midassql.Store) midas.DeliverFunc { return store.Once(db.grant) })
		receipt, err := s.wechat.BuyInShop(t.Context(), "ANNA", "chest", 1)
		require.NoError(t, err)
		require.True(t, receipt.Accepted, receipt.Reason)
		require.Equal(t, 1, db.count(t, "SELECT COUNT(*) FROM items WHERE item = 'chest'"))
	})
}

func TestRefunds(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		var inbox *midassql.Inbox
		s := openMiniShop(t, db, func(store *midassql.Store) midas.DeliverFunc {
			inbox = store.Inbox(midassql.InboxOptions{})
			return inbox.Deliver
		})
		appID := s.wechat.ClientConfig().AppID
		delivery := func(order *minigame.Order) *minigame.Delivery {
			return &minigame.Delivery{AppID: appID, OpenID: "ANNA", OutTradeNo: order.OutTradeNo, ProductID: "sword", Quantity: 2, OrigPrice: 600, ActualPrice: 1200,
				WeChatPay: minigame.WeChatPay{TransactionID: "T-" + order.OutTradeNo}}
		}
		refund := func(id string, change func(*minigame.Refund)) *minigame.Refund {
			r := &minigame.Refund{AppID: appID, EnvKnown: true, OpenID: "ANNA", RefundID: id, Amount: 1200}
			change(r)
			return r
		}
		waiting := func() (n int) {
			for _, err := range s.store.Payments(t.Context(), midassql.Query{State: midassql.Waiting}) {
				require.NoError(t, err)
				n++
			}
			return n
		}

		early := s.order(t, "ANNA", minigame.Live)
		for range 2 { // before its delivery, and repeated
			require.NoError(t, s.ledger.Refund(t.Context(), refund("R1", func(r *minigame.Refund) { r.OutTradeNo = early.OutTradeNo })))
		}
		require.NoError(t, s.ledger.Deliver(t.Context(), delivery(early)), "it is acknowledged, or WeChat would never stop")
		require.Zero(t, waiting(), "and grants nothing")

		cancelled := s.order(t, "ANNA", minigame.Live)
		require.NoError(t, s.ledger.Deliver(t.Context(), delivery(cancelled)))
		require.Equal(t, 1, waiting())
		require.NoError(t, s.ledger.Refund(t.Context(), refund("R2", func(r *minigame.Refund) { r.WeChatPay.TransactionID = "T-" + cancelled.OutTradeNo }))) // names no order
		require.Zero(t, waiting(), "it is not handed out any more")

		done := s.order(t, "ANNA", minigame.Live)
		require.NoError(t, s.ledger.Deliver(t.Context(), delivery(done)))
		require.NoError(t, inbox.Done(t.Context(), "ANNA", appID+"/0/"+done.OutTradeNo))
		require.NoError(t, s.ledger.Refund(t.Context(), refund("R3", func(r *minigame.Refund) { r.OutTradeNo, r.EnvKnown = done.OutTradeNo, false })))

		part := s.order(t, "ANNA", minigame.Live)
		require.NoError(t, s.ledger.Deliver(t.Context(), delivery(part)))
		require.NoError(t, s.ledger.Refund(t.Context(), refund("R4", func(r *minigame.Refund) { r.OutTradeNo, r.Amount = part.OutTradeNo, 100 })))
		require.Equal(t, 1, waiting(), "a part of the money is no reason to keep the items back")

		require.Error(t, s.ledger.Refund(t.Context(), refund("R1", func(r *minigame.Refund) { r.OutTradeNo = part.OutTradeNo })), "the number is another refund's")
		require.Error(t, s.ledger.Refund(t.Context(), refund("R5", func(r *minigame.Refund) { r.WeChatPay.TransactionID = "T-unknown" })))
		require.NoError(t, s.ledger.Refund(t.Context(), refund("R6", func(r *minigame.Refund) { r.OutTradeNo, r.Failed = part.OutTradeNo, true })))
		require.Equal(t, 1, waiting())
		require.Equal(t, []string{"R1 granted=false", "R2 granted=false", "R3 granted=true", "R4 granted=false", "R6 granted=false"}, s.refunds)

		// The players are restored from a backup.
		require.NoError(t, inbox.Done(t.Context(), "ANNA", appID+"/0/"+part.OutTradeNo))
		parts := s.order(t, "ANNA", minigame.Live)
		require.NoError(t, s.ledger.Deliver(t.Context(), delivery(parts)))
		require.NoError(t, inbox.Done(t.Context(), "ANNA", appID+"/0/"+parts.OutTradeNo))
		for _, id := range []string{"P1", "P2"} {
			require.NoError(t, s.ledger.Refund(t.Context(), refund(id, func(r *minigame.Refund) { r.OutTradeNo, r.Amount = parts.OutTradeNo, 600 })))
		}
		put, err := inbox.Retry(t.Context(), midassql.RetryOptions{DoneFrom: time.Now().Add(-time.Hour)})
		require.NoError(t, err)
		require.EqualValues(t, 1, put, "what was refunded in full stays done")
		for p, err := range s.store.Payments(t.Context(), midassql.Query{State: midassql.Waiting}) {
			require.NoError(t, err)
			require.Equal(t, appID+"/0/"+part.OutTradeNo, p.BillNo)
		}

		// Nobody knows whether the player of a broken payment has the items.
		db.must(t, "UPDATE deliveries SET state = 3 WHERE state = 0")
		require.NoError(t, s.ledger.Refund(t.Context(), refund("R7", func(r *minigame.Refund) { r.OutTradeNo = done.OutTradeNo })))
		require.NoError(t, s.ledger.Refund(t.Context(), refund("R8", func(r *minigame.Refund) { r.OutTradeNo, r.Failed = done.OutTradeNo, true })))
		require.Equal(t, []string{"R7 granted=true", "R8 granted=true"}, s.refunds[len(s.refunds)-2:])

		// Two parts are all of it, and it still waits.
		again := s.order(t, "ANNA", minigame.Live)
		require.NoError(t, s.ledger.Deliver(t.Context(), delivery(again)))
		require.Equal(t, 2, waiting())
		require.NoError(t, s.ledger.Refund(t.Context(), refund("R9", func(r *minigame.Refund) { r.OutTradeNo, r.Amount = again.OutTradeNo, 500 })))
		require.Equal(t, 2, waiting())
		require.NoError(t, s.ledger.Refund(t.Context(), refund("R10", func(r *minigame.Refund) { r.OutTradeNo, r.Amount = again.OutTradeNo, 700 })))
		require.Equal(t, 1, waiting())
	})
}

// A mini game's refund names the order and not the player.
func TestARefundThatDoesNotNameThePlayer(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		s := openMiniShop(t, db, func(store *midassql.Store) midas.DeliverFunc { return store.Once(db.grant) })
		refund := func(outTradeNo, id string) *minigame.Refund {
			return &minigame.Refund{AppID: s.wechat.ClientConfig().AppID, EnvKnown: true, OutTradeNo: outTradeNo, RefundID: id, Amount: 1200}
		}
		early := s.order(t, "ANNA", minigame.Live)
		require.NoError(t, s.ledger.Refund(t.Context(), refund(early.OutTradeNo, "R1")))
		receipt, err := s.wechat.Pay(t.Context(), "ANNA", early)
		require.NoError(t, err)
		require.True(t, receipt.Accepted, receipt.Reason)
		require.Zero(t, db.count(t, "SELECT COUNT(*) FROM items"))

		paid := s.order(t, "ANNA", minigame.Live)
		_, err = s.wechat.Pay(t.Context(), "ANNA", paid)
		require.NoError(t, err)
		db.must(t, "DELETE FROM orders") // purged
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

// A refund function that fails is asked again; what it wrote is rolled back with the note.
func TestARefundIsHandedOverUntilItIsTaken(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		store := db.store(t, midassql.Options{})
		calls := 0
		ledger := store.MiniGame(midassql.MiniGameOptions{AppID: "wx0", Deliver: store.Once(db.grant),
			Refund: func(ctx context.Context, tx *sql.Tx, r *minigame.Refund, _ bool) error {
				_, err := tx.ExecContext(ctx, db.sql("INSERT INTO items (openid, billno, item, quantity) VALUES (?, ?, ?, ?)"), r.OpenID, r.RefundID, "taken back", 1)
				if calls++; err == nil && calls == 1 {
					err = errors.New("not now")
				}
				return err
			}})
		r := &minigame.Refund{AppID: "wx0", EnvKnown: true, OpenID: "ANNA", OutTradeNo: "n1", RefundID: "R1", Amount: 1}
		require.ErrorContains(t, ledger.Refund(t.Context(), r), "not now")
		require.NoError(t, ledger.Refund(t.Context(), r))
		require.NoError(t, ledger.Refund(t.Context(), r))
		require.Equal(t, 1, db.count(t, "SELECT COUNT(*) FROM items"))
		require.Equal(t, 2, calls)
	})
}

// A refund and its delivery that come in the same moment: either the refund is told that the
// items were granted, or they are not.
func TestARefundInTheMomentOfItsDelivery(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		store := db.store(t, midassql.Options{})
		var toldGranted atomic.Int64
		ledger := store.MiniGame(midassql.MiniGameOptions{AppID: "wx0", Deliver: store.Once(db.grant),
			Refund: func(_ context.Context, _ *sql.Tx, _ *minigame.Refund, granted bool) error {
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
					return ledger.Refund(t.Context(), &minigame.Refund{AppID: "wx0", EnvKnown: true, OpenID: "ANNA", OutTradeNo: number, RefundID: "R" + number, Amount: 600})
				})
			})
			both.Wait()
		}
		require.EqualValues(t, db.count(t, "SELECT COUNT(*) FROM items"), toldGranted.Load())
		require.Equal(t, rounds, db.count(t, "SELECT COUNT(*) FROM refunds"))
	})
}

// WeChat repeats a push on its schedule until it is acknowledged, here while the database
// refuses half of the transactions at any point: each payment is granted once, and at the
// end nothing is left to push.
func TestMiniGamePushesSurviveAFailingDatabase(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		now := time.Date(2026, 2, 8, 12, 0, 0, 0, time.UTC)
		var clock atomic.Pointer[time.Time]
		clock.Store(&now)
		wechat := minigametest.NewServer(minigametest.Config{Errorf: t.Errorf, Now: func() time.Time { return *clock.Load() }})
		defer wechat.Close()
		wechat.Publish("sword", 600)
		client, err := minigame.New(wechat.ClientConfig())
		require.NoError(t, err)
		store := db.store(t, midassql.Options{})
		fails := 0
		ledger := store.MiniGame(midassql.MiniGameOptions{AppID: wechat.ClientConfig().AppID,
			Deliver: store.Once(func(ctx context.Context, tx *sql.Tx, d *midas.Delivery) error {
				if fails++; fails%2 == 1 {
					return errors.New("the database fails")
				}
				return db.grant(ctx, tx, d)
			})})
		wechat.PushToHandler(client.PushHandler(minigame.Handlers{Deliver: ledger.Deliver, Refund: ledger.Refund}))
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
		require.Equal(t, payments, db.count(t, "SELECT COUNT(*) FROM items"))
		var players []string
		for p, err := range store.Payments(t.Context(), midassql.Query{From: time.Now().Add(-time.Hour), To: time.Now().Add(time.Hour)}) {
			require.NoError(t, err)
			players = append(players, p.OpenID)
		}
		slices.Sort(players)
		require.Len(t, slices.Compact(players), payments)
	})
}
