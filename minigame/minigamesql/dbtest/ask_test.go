package dbtest

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
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

const (
	gameOrders    = "/wxa/game/queryorderinfo"
	programOrders = "/xpay/query_order"
)

// An askShop sells swords through a WeChat whose pushes are lost until lost is false.
type askShop struct {
	wechat  *minigametest.Server
	game    *minigame.Game
	program *minigame.Program
	db      *testdb.Database
	lost    atomic.Bool
	ahead   atomic.Int64 // of the clock, in ns

	mu   sync.Mutex
	keys map[string]minigame.Secret
	logs bytes.Buffer
}

func openAskShop(t *testing.T, db *testdb.Database, program bool) (*askShop, *minigamesql.Ledger) {
	t.Helper()
	s := &askShop{db: db, keys: map[string]minigame.Secret{}}
	s.lost.Store(true)
	s.wechat = minigametest.NewServer(minigametest.Config{Errorf: t.Errorf, MiniProgram: program})
	t.Cleanup(s.wechat.Close)
	s.wechat.Publish("sword", 600)
	var err error
	if program {
		s.program, err = minigame.NewProgram(s.wechat.ProgramConfig())
	} else {
		s.game, err = minigame.NewGame(s.wechat.GameConfig())
	}
	require.NoError(t, err)
	ledger := s.ledger(t, db.Store(t, midassql.Options{Now: s.now}), nil)
	handler := http.Handler(nil)
	if program {
		handler = s.program.PushHandler(minigame.ProgramHandlers{Deliver: ledger.Deliver, Refund: ledger.Refund})
	} else {
		handler = s.game.PushHandler(minigame.GameHandlers{Deliver: ledger.Deliver, Refund: ledger.Refund})
	}
	s.wechat.PushToHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.lost.Load() {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		handler.ServeHTTP(w, r)
	}), "/push")
	return s, ledger
}

func (s *askShop) now() time.Time { return time.Now().Add(time.Duration(s.ahead.Load())) }

// another returns a second server's ledger, on a pool of its own.
func (s *askShop) another(t *testing.T, change func(*minigamesql.Options)) *minigamesql.Ledger {
	t.Helper()
	store, err := midassql.New(s.db.Open(), s.db.Dialect, midassql.Options{TablePrefix: s.db.Prefix, Now: s.now})
	require.NoError(t, err)
	return s.ledger(t, store, change)
}

func (s *askShop) ledger(t *testing.T, store *midassql.Store, change func(*minigamesql.Options)) *minigamesql.Ledger {
	t.Helper()
	opts := minigamesql.Options{
		AppID: s.wechat.GameConfig().AppID, Deliver: store.Once(s.db.Grant), Game: s.game, Program: s.program, Poll: time.Millisecond, Now: s.now,
		SessionKey: func(_ context.Context, openID string) (minigame.Secret, error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.keys[openID], nil
		},
		Logger: slog.New(slog.NewJSONHandler(s, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	if change != nil {
		change(&opts)
	}
	return minigamesql.New(store, opts)
}

func (s *askShop) Write(line []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.logs.Write(line)
}

// logged returns what was logged.
func (s *askShop) logged(t *testing.T) (lines []map[string]any) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for line := range bytes.Lines(s.logs.Bytes()) {
		var one map[string]any
		require.NoError(t, json.Unmarshal(line, &one))
		lines = append(lines, one)
	}
	return lines
}

// order stores an order of two swords; keep is whether the player's session_key is kept for AskUnpaid.
func (s *askShop) order(t *testing.T, ledger *minigamesql.Ledger, openID string, env minigame.Env, keep bool) *minigame.Order {
	t.Helper()
	login, newOrder := s.login()
	session, err := login(t.Context(), s.wechat.Login(openID))
	require.NoError(t, err)
	if keep {
		s.mu.Lock()
		s.keys[openID] = session.SessionKey
		s.mu.Unlock()
	}
	req := minigame.OrderRequest{SessionKey: session.SessionKey, Env: env, ProductID: "sword", Quantity: 2, Price: 600, Attach: "mail 7"}
	order, err := newOrder(req)
	require.NoError(t, err)
	require.NoError(t, ledger.SaveOrder(t.Context(), openID, req, order))
	return order
}

func (s *askShop) login() (func(context.Context, string) (*minigame.Session, error), func(minigame.OrderRequest) (*minigame.Order, error)) {
	if s.program != nil {
		return s.program.Code2Session, s.program.NewOrder
	}
	return s.game.Code2Session, s.game.NewOrder
}

// pay pays an order whose push is lost.
func (s *askShop) pay(t *testing.T, openID string, order *minigame.Order) {
	t.Helper()
	receipt, err := s.wechat.Pay(t.Context(), openID, order)
	require.NoError(t, err)
	require.False(t, receipt.Accepted)
}

// asking runs AskUnpaid of each ledger until stop, or the end of the test.
func asking(t *testing.T, ledgers ...*minigamesql.Ledger) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var workers sync.WaitGroup
	for _, ledger := range ledgers {
		workers.Go(func() { assert.ErrorIs(t, ledger.AskUnpaid(ctx), context.Canceled) })
	}
	stop = sync.OnceFunc(func() {
		cancel()
		workers.Wait()
	})
	t.Cleanup(stop)
	return stop
}

// await waits until what is true.
func await(t *testing.T, what func() bool, message string) {
	t.Helper()
	require.Eventually(t, what, time.Minute, time.Millisecond, message)
}

func (s *askShop) swords(t *testing.T, openID string) int {
	t.Helper()
	return s.db.Count(t, "SELECT COUNT(*) FROM items WHERE openid = ? AND item = 'sword' AND quantity = 2", openID)
}

// Two servers ask. ANNA paid, BERT did not, and CARL, who paid, has no session_key until the fourth minute.
func TestAGamePaymentWhosePushDoesNotComeIsGrantedOnce(t *testing.T) {
	t.Parallel()
	testdb.OnEach(t, func(t *testing.T, db *testdb.Database) {
		s, ledger := openAskShop(t, db, false)
		anna := s.order(t, ledger, "ANNA", minigame.Live, true)
		s.order(t, ledger, "BERT", minigame.Live, true)
		carl := s.order(t, ledger, "CARL", minigame.Live, false)
		s.pay(t, "ANNA", anna)
		s.pay(t, "CARL", carl)
		stop := asking(t, ledger, s.another(t, nil))

		s.ahead.Store(int64(61 * time.Second))
		await(t, func() bool { return s.swords(t, "ANNA") == 1 && s.wechat.Calls(gameOrders) == 2 }, "ANNA's payment is not granted")
		stop()
		require.Equal(t, 2, s.wechat.Calls(gameOrders))
		require.Zero(t, s.swords(t, "CARL"))

		s.order(t, ledger, "CARL", minigame.Live, true) // he is back
		stop = asking(t, ledger, s.another(t, nil))
		s.ahead.Store(int64(301 * time.Second))
		await(t, func() bool { return s.swords(t, "CARL") == 1 && s.wechat.Calls(gameOrders) == 5 }, "CARL's payment is not granted")
		stop()
		require.Equal(t, 5, s.wechat.Calls(gameOrders), "BERT's order, CARL's and his new one")

		s.lost.Store(false)
		for _, order := range []*minigame.Order{anna, carl} {
			receipt, err := s.wechat.Repeat(t.Context(), minigame.Live, order.OutTradeNo)
			require.NoError(t, err)
			require.True(t, receipt.Accepted, receipt.Reason)
		}
		require.Equal(t, 2, db.Count(t, "SELECT COUNT(*) FROM items"))
		require.Zero(t, s.swords(t, "BERT"))
		require.Empty(t, s.logged(t))
		annas := 0
		for p, err := range store(t, db).Payments(t.Context(), midassql.Query{OpenID: "ANNA"}) {
			require.NoError(t, err)
			annas++
			require.Equal(t, minigame.BillNo(s.wechat.GameConfig().AppID, minigame.Live, anna.OutTradeNo), p.BillNo)
			require.Equal(t, []any{midas.Amount(1200), "mail 7", "1"}, []any{p.Charged, p.Metadata, p.ZoneID})
			require.NotEmpty(t, p.Platform, "the TransactionID, which refunds are found by")
		}
		require.Equal(t, 1, annas)
	})
}

func store(t *testing.T, db *testdb.Database) *midassql.Store {
	t.Helper()
	return db.Store(t, midassql.Options{})
}

func TestWeChatIsToldWhatWasDeliveredToAMiniProgram(t *testing.T) {
	t.Parallel()
	testdb.OnEach(t, func(t *testing.T, db *testdb.Database) {
		const told = "/xpay/notify_provide_goods"
		s, ledger := openAskShop(t, db, true)
		anna, carl := s.order(t, ledger, "ANNA", minigame.Live, false), s.order(t, ledger, "CARL", minigame.Live, false)
		s.order(t, ledger, "BERT", minigame.Live, false)
		s.pay(t, "ANNA", anna)
		s.pay(t, "CARL", carl)
		_, err := s.wechat.Refund(t.Context(), minigame.Live, carl.OutTradeNo) // its push is lost, too
		require.NoError(t, err)
		s.wechat.NextCalls(told, minigametest.Fault{Code: 45009})
		stop := asking(t, ledger, s.another(t, nil))
		s.ahead.Store(int64(61 * time.Second))
		await(t, func() bool { return s.wechat.Calls(told) == 2 && s.wechat.Calls(programOrders) == 4 }, "WeChat is not told")
		stop()
		require.Equal(t, 4, s.wechat.Calls(programOrders), "ANNA's a second time, as the quota was used up")
		answer, err := s.program.QueryOrder(t.Context(), minigame.ProgramOrderQuery{OpenID: "ANNA", OrderID: anna.OutTradeNo})
		require.NoError(t, err)
		require.Equal(t, minigame.OrderDelivered, answer.Status)

		s.lost.Store(false)
		receipt, err := s.wechat.Repeat(t.Context(), minigame.Live, anna.OutTradeNo)
		require.NoError(t, err)
		require.True(t, receipt.Accepted, receipt.Reason)
		require.Equal(t, 1, s.swords(t, "ANNA"))
		require.Equal(t, 1, db.Count(t, "SELECT COUNT(*) FROM items"), "CARL's money went back")
	})
}

func TestAskUnpaidWaitsLongerEachTimeAtWeChatsLimits(t *testing.T) {
	t.Parallel()
	testdb.On(t, func(t *testing.T, db *testdb.Database) {
		s, ledger := openAskShop(t, db, false)
		order := s.order(t, ledger, "ANNA", minigame.Live, true)
		s.pay(t, "ANNA", order)
		s.wechat.NextCalls(gameOrders, minigametest.Fault{Code: 45009}, minigametest.Fault{Code: 45009}, minigametest.Fault{Code: 45011}, minigametest.Fault{Code: 45009})
		stop := asking(t, ledger)
		s.ahead.Store(int64(61 * time.Second))
		await(t, func() bool { return s.swords(t, "ANNA") == 1 }, "ANNA's payment is not granted")
		stop()
		require.Equal(t, 5, s.wechat.Calls(gameOrders))
		var waits []time.Duration
		for _, line := range s.logged(t) {
			require.Contains(t, line["msg"], "limit")
			waits = append(waits, time.Duration(line["wait"].(float64)))
		}
		require.Equal(t, []time.Duration{time.Millisecond, 2 * time.Millisecond, 4 * time.Millisecond, 8 * time.Millisecond}, waits)
	}, midassql.SQLite)
}

// Poll is an hour: AskUnpaid returns from a wait when its context ends, or this test does not end.
func TestAskUnpaidObeysItsContextWhileItWaits(t *testing.T) {
	t.Parallel()
	testdb.On(t, func(t *testing.T, db *testdb.Database) {
		s, saver := openAskShop(t, db, false)
		s.order(t, saver, "ANNA", minigame.Live, true)
		s.wechat.NextCalls(gameOrders, minigametest.Fault{Code: 45009})
		s.ahead.Store(int64(61 * time.Second))
		stop := asking(t, s.another(t, func(o *minigamesql.Options) { o.Poll = time.Hour }))
		await(t, func() bool { return len(s.logged(t)) == 1 }, "it does not wait")
		stop()
		require.Equal(t, 1, s.wechat.Calls(gameOrders))
	}, midassql.SQLite)
}

func TestManyWorkersAskAboutAnOrderOnce(t *testing.T) {
	t.Parallel()
	testdb.OnEach(t, func(t *testing.T, db *testdb.Database) {
		s, ledger := openAskShop(t, db, true)
		const orders = 60
		for i := range orders {
			openID := fmt.Sprint("player", i)
			order := s.order(t, ledger, openID, minigame.Live, false)
			if i%3 == 0 {
				s.pay(t, openID, order)
			}
		}
		s.ahead.Store(int64(61 * time.Second))
		other := s.another(t, nil)
		stop := asking(t, ledger, other, ledger, other)
		await(t, func() bool {
			return s.wechat.Calls("/xpay/notify_provide_goods") == orders/3 && s.wechat.Calls(programOrders) >= orders
		}, "not all were asked about")
		stop()
		require.Equal(t, orders, s.wechat.Calls(programOrders))
		require.Equal(t, orders/3, db.Count(t, "SELECT COUNT(*) FROM items"))
	})
}

// What is paid and cannot be granted is told to a person, and granted when the order is due again.
func TestAPaymentThatAskUnpaidCannotGrantIsGrantedLater(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]func() error{
		"the grant fails":  func() error { return fmt.Errorf("the bag is full: %w", minigame.ErrNotFound) },
		"the grant panics": func() error { panic("the bag is full") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testdb.On(t, func(t *testing.T, db *testdb.Database) {
				s, saver := openAskShop(t, db, false)
				s.pay(t, "ANNA", s.order(t, saver, "ANNA", minigame.Live, true))
				var fails atomic.Bool
				fails.Store(true)
				ledger := s.another(t, func(o *minigamesql.Options) {
					once := store(t, db).Once(func(ctx context.Context, tx *sql.Tx, d *midas.Delivery) error {
						if fails.Load() {
							return fault()
						}
						return db.Grant(ctx, tx, d)
					})
					o.Deliver = once
				})
				asking(t, ledger)
				s.ahead.Store(int64(61 * time.Second))
				await(t, func() bool { return len(s.logged(t)) == 1 }, "nobody is told")
				line := s.logged(t)[0]
				require.Equal(t, "ERROR", line["level"])
				require.Contains(t, line["error"], "it was paid and is not granted")
				require.Contains(t, line["error"], "the bag is full")
				fails.Store(false)
				s.ahead.Store(int64(301 * time.Second))
				await(t, func() bool { return s.swords(t, "ANNA") == 1 }, "ANNA's payment is not granted")
			}, midassql.SQLite)
		})
	}
}

func TestAskUnpaidGrantsNothingThatDiffersFromItsOrder(t *testing.T) {
	t.Parallel()
	testdb.On(t, func(t *testing.T, db *testdb.Database) {
		s, ledger := openAskShop(t, db, false)
		order := s.order(t, ledger, "ANNA", minigame.Live, true)
		sandbox := s.order(t, ledger, "ANNA", minigame.Sandbox, true) // DeliverSandbox is not set
		s.pay(t, "ANNA", sandbox)
		s.wechat.NextCalls(gameOrders, minigametest.Fault{Body: `{"errcode":0,"out_trade_no":"` + order.OutTradeNo + `","product_id":"castle","pay_state":2}`})
		stop := asking(t, ledger)
		s.ahead.Store(int64(61 * time.Second))
		await(t, func() bool { return len(s.logged(t)) == 1 }, "nobody is told")
		stop()
		require.Contains(t, s.logged(t)[0]["error"], "another order or item")
		require.Equal(t, 1, s.wechat.Calls(gameOrders), "nobody asks about the sandbox")
		require.Zero(t, db.Count(t, "SELECT COUNT(*) FROM deliveries"))
	}, midassql.SQLite)
}

func TestAskUnpaidGoesOnTryingWhileTheDatabaseFails(t *testing.T) {
	t.Parallel()
	testdb.On(t, func(t *testing.T, db *testdb.Database) {
		s, _ := openAskShop(t, db, false)
		pool := db.Open()
		broken, err := midassql.New(pool, db.Dialect, midassql.Options{TablePrefix: db.Prefix})
		require.NoError(t, err)
		require.NoError(t, pool.Close())
		stop := asking(t, s.ledger(t, broken, nil))
		await(t, func() bool { return len(s.logged(t)) >= 3 }, "it does not try again")
		stop()
		require.Contains(t, s.logged(t)[2]["error"], "ClaimUnpaid")
	}, midassql.SQLite)
}

func TestAskUnpaidNamesTheOptionThatIsMissing(t *testing.T) {
	t.Parallel()
	db := testdb.Open(t, testdb.SQLite)
	s, _ := openAskShop(t, db, false)
	program, err := minigame.NewProgram(s.wechat.ProgramConfig())
	require.NoError(t, err)
	for name, change := range map[string]func(*minigamesql.Options){
		"Game or Program":        func(o *minigamesql.Options) { o.Game = nil },
		"either Game or Program": func(o *minigamesql.Options) { o.Program = program },
		"SessionKey":             func(o *minigamesql.Options) { o.SessionKey = nil },
		"Poll":                   func(o *minigamesql.Options) { o.Poll = -1 },
	} {
		err := s.another(t, change).AskUnpaid(t.Context())
		require.ErrorContains(t, err, "minigamesql: AskUnpaid: ")
		require.ErrorContains(t, err, name)
		require.NotErrorIs(t, err, context.Canceled)
	}
}
