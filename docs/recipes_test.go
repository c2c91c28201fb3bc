package docs_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midassql"
	"github.com/midas-go/midas/midastest"
	"github.com/midas-go/midas/minigame"
	"github.com/midas-go/midas/minigame/minigametest"
	"github.com/stretchr/testify/require"
)

// What the pages in this folder show: functions that are compiled, and tests that are run.

// openStore mounts a delivery callback that grants each payment once, on the game's own database.
func openStore(ctx context.Context, db *sql.DB, client *midas.Client, mux *http.ServeMux) (*midassql.Store, error) {
	store, err := midassql.New(db, midassql.PostgreSQL, midassql.Options{}) // or MySQL, SQLite
	if err != nil {
		return nil, err
	}
	if err := store.Migrate(ctx); err != nil { // its tables; or run the files in midassql/schema yourself
		return nil, err
	}
	deliver := store.Once(func(ctx context.Context, tx *sql.Tx, d *midas.Delivery) error {
		for _, item := range d.Items {
			_, err := tx.ExecContext(ctx, "INSERT INTO player_items (openid, billno, item, quantity) VALUES ($1, $2, $3, $4)",
				d.OpenID, d.BillNo, item.ID, item.Quantity)
			if err != nil {
				return err // rolls everything back, and Midas gets ret 1
			}
		}
		return nil
	})
	mux.Handle("/pay/notify", client.DeliveryHandler(deliver))
	return store, nil
}

// placeOrder returns an order that is stored: only such a one may go to the app.
func placeOrder(ctx context.Context, client *midas.Client, store *midassql.Store, req midas.OrderRequest) (*midas.Order, error) {
	order, err := client.CreateOrder(ctx, req)
	if err != nil {
		return nil, err
	}
	if err := store.SaveOrder(ctx, req, order); err != nil {
		return nil, err // the app gets no order, and asks for another one
	}
	return order, nil
}

// Not run here: they take a database. The example in midassql/dbtest does the same on SQLite.
var _, _ = openStore, placeOrder

// gems is an order as the recipes below place it.
var gems = midas.OrderRequest{
	Player:    midas.Player{Login: midas.QQ, OpenID: "ANNA", OpenKey: "pay-token", PF: "qq_m_qq-2001-android-2011-xxxx", PFKey: "pfkey"},
	Items:     []midas.Item{{ID: "gem60", Price: 60 * midas.QPoint, Quantity: 1}},
	GoodsName: "60 gems", GoodsDescription: "A purse of sixty gems",
}

// openMidas returns a fake Midas and a client that talks to it, without sockets. The fake
// calls back to a handler that runs deliver.
func openMidas(t *testing.T, cfg midastest.Config, deliver midas.DeliverFunc) (*midastest.Server, *midas.Client) {
	fake := midastest.New(cfg)
	client, err := midas.New(fake.ClientConfig("/pay/notify"))
	require.NoError(t, err)
	fake.DeliverToHandler(client.DeliveryHandler(deliver), "/pay/notify")
	return fake, client
}

func grantNothing(context.Context, *midas.Delivery) error { return nil }

func TestRecipeOrderAsSent(t *testing.T) {
	t.Parallel()
	var sent midastest.OrderAttempt
	_, client := openMidas(t, midastest.Config{
		Errorf:  t.Errorf, // a bad signature, cookie or parameter fails the test, in words
		OnOrder: func(o midastest.OrderAttempt) { sent = o },
	}, grantNothing)

	order, err := client.CreateOrder(t.Context(), gems)
	require.NoError(t, err)
	require.Equal(t, order.Token, sent.Token)
	require.Equal(t, "gem60*60*1", sent.Params.Get("payitem"))
	require.Equal(t, "1", sent.Params.Get("zoneid"))
}

func TestRecipeFaults(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // the waits between tries take no time in a bubble
		fake, client := openMidas(t, midastest.Config{Errorf: t.Errorf}, grantNothing)

		fake.NextOrders(midastest.Fault{Status: http.StatusBadGateway}, midastest.Fault{Cut: true})
		_, err := client.CreateOrder(t.Context(), gems)
		require.NoError(t, err, "two bad answers, and a third try that works")

		fake.NextOrders(midastest.Fault{Ret: 1018, Msg: "login expired", Code: "1018--2-20"})
		_, err = client.CreateOrder(t.Context(), gems)
		require.ErrorIs(t, err, midas.ErrLoginExpired)

		fake.NextOrders(midastest.Fault{Delay: time.Minute})
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		_, err = client.CreateOrder(ctx, gems)
		require.ErrorIs(t, err, context.DeadlineExceeded)
	})
}

func TestRecipeRepeats(t *testing.T) {
	t.Parallel()
	var calls int
	fake, client := openMidas(t, midastest.Config{Errorf: t.Errorf}, func(ctx context.Context, d *midas.Delivery) error {
		calls++
		return nil
	})
	order, err := client.CreateOrder(t.Context(), gems)
	require.NoError(t, err)

	first, err := fake.Pay(t.Context(), order.Token)
	require.NoError(t, err)
	again, err := fake.Pay(t.Context(), order.Token, midastest.BillNo(first.BillNo)) // the same payment, called back again
	require.NoError(t, err)
	other, err := fake.Pay(t.Context(), order.Token) // another payment with the same token
	require.NoError(t, err)
	require.Equal(t, first.BillNo, again.BillNo)
	require.NotEqual(t, first.BillNo, other.BillNo)
	require.Equal(t, 3, calls) // the DeliverFunc sees each of them: granting once is its work
}

func TestRecipeForgeries(t *testing.T) {
	t.Parallel()
	fake, client := openMidas(t, midastest.Config{}, func(ctx context.Context, d *midas.Delivery) error {
		t.Error("a forgery was delivered")
		return nil
	})
	order, err := client.CreateOrder(t.Context(), gems)
	require.NoError(t, err)
	for name, forgery := range map[string]midastest.PayOption{
		"signed with another key":      midastest.WrongKey("a-guess"),
		"signed with the order's path": midastest.SignedPath("/v3/r/mpay/buy_goods_m"),
		"changed after it was signed":  midastest.Tampered("openid", "BO"),
	} {
		t.Run(name, func(t *testing.T) {
			receipt, err := fake.Pay(t.Context(), order.Token, forgery)
			require.NoError(t, err)
			require.False(t, receipt.Accepted)
			require.Equal(t, `{"ret":4,"msg":"bad_parameter:sig"}`, string(receipt.Body))
		})
	}
}

func TestRecipeCallbackByHand(t *testing.T) {
	t.Parallel()
	fake, client := openMidas(t, midastest.Config{}, grantNothing)
	token := fake.AppOrder(gems) // no order of the backend's: the app placed it
	rawQuery, err := fake.Callback(token, midastest.PayMethod("wechat"), midastest.Param("zoneid", "7"))
	require.NoError(t, err)

	answer := httptest.NewRecorder()
	client.DeliveryHandler(grantNothing).ServeHTTP(answer, httptest.NewRequest("GET", "/pay/notify?"+rawQuery, nil))
	require.Equal(t, `{"ret":0,"msg":"OK"}`, answer.Body.String())
}

func TestRecipeClock(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 2, 8, 12, 0, 0, 0, time.UTC)
	fake, client := openMidas(t, midastest.Config{Errorf: t.Errorf, Now: func() time.Time { return now }}, grantNothing)
	order, err := client.CreateOrder(t.Context(), gems)
	require.NoError(t, err)

	now = now.Add(midas.TokenLifetime + time.Second)
	_, err = fake.Pay(t.Context(), order.Token)
	require.ErrorIs(t, err, midas.ErrTokenExpired) // the cashier does not open any more

	late, err := fake.Pay(t.Context(), order.Token, midastest.ExpiredToken()) // a callback that comes late all the same
	require.NoError(t, err)
	require.True(t, late.Accepted, late.Reason)
}

func TestRecipeSlowDatabase(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fake, client := openMidas(t, midastest.Config{Errorf: t.Errorf}, func(ctx context.Context, d *midas.Delivery) error {
			select {
			case <-time.After(time.Minute): // a database that hangs
				return nil
			case <-ctx.Done():
				return ctx.Err() // roll back
			}
		})
		order, err := client.CreateOrder(t.Context(), gems)
		require.NoError(t, err)

		receipt, err := fake.Pay(t.Context(), order.Token)
		require.NoError(t, err)
		require.Equal(t, `{"ret":1,"msg":"system_busy"}`, string(receipt.Body))
		require.Equal(t, 1500*time.Millisecond, receipt.Took) // of the bubble's time
	})
}

// gone is a database that nobody answers for: sql.OpenDB(gone{}).
type gone struct{}

func (gone) Connect(context.Context) (driver.Conn, error) { return nil, syscall.ECONNREFUSED }
func (gone) Driver() driver.Driver                        { return nil }

func TestRecipeDatabaseThatIsGone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // the ledger tries again until the 1.5 s are over
		db := sql.OpenDB(gone{})
		defer db.Close()
		store, err := midassql.New(db, midassql.MySQL, midassql.Options{})
		require.NoError(t, err)
		fake, client := openMidas(t, midastest.Config{Errorf: t.Errorf}, store.Once(func(context.Context, *sql.Tx, *midas.Delivery) error { return nil }))

		order, err := client.CreateOrder(t.Context(), gems)
		require.NoError(t, err)
		require.ErrorIs(t, store.SaveOrder(t.Context(), gems, order), syscall.ECONNREFUSED) // so the app gets no order

		receipt, err := fake.Pay(t.Context(), order.Token) // of an order from before
		require.NoError(t, err)
		require.Equal(t, `{"ret":1,"msg":"system_busy"}`, string(receipt.Body))
		require.LessOrEqual(t, receipt.Took, 1500*time.Millisecond)
	})
}

func TestRecipeMiniGame(t *testing.T) {
	t.Parallel()
	wechat := minigametest.NewServer(minigametest.Config{Errorf: t.Errorf})
	defer wechat.Close()
	game, err := minigame.NewGame(wechat.GameConfig())
	require.NoError(t, err)
	var granted []string
	wechat.PushToHandler(game.PushHandler(minigame.GameHandlers{Deliver: func(_ context.Context, d *minigame.Delivery) error {
		granted = append(granted, d.BillNo())
		return nil
	}}), "/wx/push")
	wechat.Publish("sword", 600*midas.Fen)

	session, err := game.Code2Session(t.Context(), wechat.Login("player-1"))
	require.NoError(t, err)
	order, err := game.NewOrder(minigame.OrderRequest{
		SessionKey: session.SessionKey, ProductID: "sword", Quantity: 1, Price: 600 * midas.Fen, OutTradeNo: "order-1",
	})
	require.NoError(t, err)
	receipt, err := wechat.Pay(t.Context(), "player-1", order)
	require.NoError(t, err)
	require.True(t, receipt.Accepted, receipt.Reason)
	_, err = wechat.Repeat(t.Context(), minigame.Live, "order-1") // the same push again
	require.NoError(t, err)
	require.Len(t, granted, 2) // granting once is the game's work
}

// A genuine callback for two items, and what stands before a handler that makes it fail.
func TestPitfallQueryThatWentThroughAParser(t *testing.T) {
	t.Parallel()
	fake, client := openMidas(t, midastest.Config{}, grantNothing)
	two := gems
	two.Items = []midas.Item{{ID: "gem60", Price: 600, Quantity: 1}, {ID: "sword", Price: 180, Quantity: 1}}
	rawQuery, err := fake.Callback(fake.AppOrder(two))
	require.NoError(t, err)
	rawQuery = strings.Replace(rawQuery, "%3B", ";", 1) // the same parameters, in a query that Midas may send
	handler := client.DeliveryHandler(grantNothing)

	for name, test := range map[string]struct {
		middleware func(*http.Request)
		ret        int
	}{
		"nothing":                        {func(*http.Request) {}, 0},
		"reading":                        {func(r *http.Request) { _ = r.FormValue("openid") }, 0},
		"parsed and written anew":        {func(r *http.Request) { r.URL.RawQuery = r.URL.Query().Encode() }, 4},
		"a gateway's parameter":          {func(r *http.Request) { r.URL.RawQuery += "&gateway=1" }, 4},
		"encoded twice":                  {func(r *http.Request) { r.URL.RawQuery = strings.Replace(r.URL.RawQuery, "%2A", "%252A", 1) }, 4},
		"POST, as a careless proxy does": {func(r *http.Request) { r.Method = http.MethodPost }, -1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := httptest.NewRequest(http.MethodGet, "/pay/notify?"+rawQuery, nil)
			test.middleware(r)
			answer := httptest.NewRecorder()
			handler.ServeHTTP(answer, r)
			if test.ret < 0 {
				require.Equal(t, http.StatusMethodNotAllowed, answer.Code)
				return
			}
			require.Contains(t, answer.Body.String(), fmt.Sprintf(`{"ret":%d,`, test.ret))
		})
	}
}

func TestPitfallWriteTimeout(t *testing.T) {
	t.Parallel()
	grant := func(context.Context, *midas.Delivery) error { return nil }
	fake, client := openMidas(t, midastest.Config{}, grant)
	backend := httptest.NewUnstartedServer(client.DeliveryHandler(grant))
	backend.Config.WriteTimeout = time.Nanosecond // any that ends before the answer is written
	backend.Start()
	defer backend.Close()
	fake.DeliverTo(backend.URL + "/pay/notify")

	receipt, err := fake.Pay(t.Context(), fake.AppOrder(gems))
	require.NoError(t, err)
	require.False(t, receipt.Accepted)
	require.Contains(t, receipt.Reason, "no answer")
}
