package midas_test

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midassql"
	"github.com/midas-go/midas/midastest"
)

// documentedCallback is the query of the delivery callback in Tencent's documentation.
const documentedCallback = "amt=320&appid=1101255891&appmeta=customkey%2Aqdqb%2Aqq&billno=-APPDJSX18246-20140401-1206311492" +
	"&clientver=android&openid=F11669C63D76BAB0BC2F6CC869B19E53&payamt_coins=0&payitem=G1%2A20%2A2&providetype=5" +
	"&pubacct_payamt_coins=&token=5056117C0597793C38C4F1D29F884C5E25887&ts=1396325191&version=v3&zoneid=1" +
	"&sig=ai1eD5CA16n5pWBx9abjZguMR5Y%3D"

func ExampleClient_CreateOrder() {
	fake := midastest.NewServer(midastest.Config{Errorf: log.Printf})
	defer fake.Close()
	client, err := midas.New(fake.ClientConfig(""))
	if err != nil {
		log.Fatal(err)
	}

	order, err := client.CreateOrder(context.Background(), midas.OrderRequest{
		Player: midas.Player{Login: midas.WeChat, OpenID: "o_openid", OpenKey: "access-token", PF: "wechat_wx-2001-android-2011-xxxx", PFKey: "pfkey"},
		// from the app
		Items:     []midas.Item{{ID: "gem60", Price: 60 * midas.QPoint, Quantity: 1}}, // from the server's catalogue
		GoodsName: "60 gems", GoodsDescription: "A purse of sixty gems",
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(strings.ReplaceAll(order.URLParams, order.Token, "TOKEN"))
	// Output: /v1/sx8/1450000000/mobile_goods_info?token_id=TOKEN
}

func ExampleClient_DeliveryHandler() {
	client, err := midas.New(midas.Config{AppID: "1101255891", AppKey: "Lf6AtMEB1QlE8BYS", DeliveryPath: "/pay/mt.php"})
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/pay/mt.php", client.DeliveryHandler(func(ctx context.Context, d *midas.Delivery) error {
		// Grant once for (d.OpenID, d.BillNo), and only what was ordered.
		fmt.Println("granting", d.Items[0].Quantity, d.Items[0].ID)
		return nil
	}))
	backend := httptest.NewServer(mux)
	defer backend.Close()

	resp, err := http.Get(backend.URL + "/pay/mt.php?" + documentedCallback) // as Midas does
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%q\n", body)
	// Output:
	// granting 2 G1
	// "{\"ret\":0,\"msg\":\"OK\"}"
}

func ExampleClient_ParseDeliveryQuery() {
	client, err := midas.New(midas.Config{AppID: "1101255891", AppKey: "Lf6AtMEB1QlE8BYS", DeliveryPath: "/pay/mt.php"})
	if err != nil {
		log.Fatal(err)
	}
	d, err := client.ParseDeliveryQuery(documentedCallback)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("player ", d.OpenID)
	fmt.Println("payment", d.BillNo)
	fmt.Println("item   ", d.Items[0].ID, d.Items[0].Quantity, "x", d.Items[0].Price)
	fmt.Println("charged", d.Charged)
	fmt.Println("appmeta", d.Metadata, d.PayMethod, d.Platform)

	_, err = client.ParseDeliveryQuery(strings.Replace(documentedCallback, "amt=320", "amt=1", 1))
	fmt.Println("forged ", errors.Is(err, midas.ErrSignature))
	// Output:
	// player  F11669C63D76BAB0BC2F6CC869B19E53
	// payment -APPDJSX18246-20140401-1206311492
	// item    G1 2 x 20 Q-points (2.00 yuan)
	// charged 32 Q-points (3.20 yuan)
	// appmeta customkey qdqb qq
	// forged  true
}

func ExampleError() {
	fake := midastest.NewServer(midastest.Config{})
	defer fake.Close()
	fake.NextOrders(midastest.Fault{Ret: 1018, Msg: "请先登录", Code: "1018--2-20"})
	client, err := midas.New(fake.ClientConfig(""))
	if err != nil {
		log.Fatal(err)
	}
	_, err = client.CreateOrder(context.Background(), midas.OrderRequest{
		Player:    midas.Player{Login: midas.QQ, OpenID: "openid", OpenKey: "pay-token", PF: "qq_m_qq-2001-android-2011-xxxx", PFKey: "pfkey"},
		Items:     []midas.Item{{ID: "gem60", Price: 60 * midas.QPoint, Quantity: 1}},
		GoodsName: "60 gems", GoodsDescription: "A purse of sixty gems",
	})

	var (
		field    *midas.FieldError
		refused  *midas.Error
		unusable *midas.ResponseError
	)
	switch {
	case errors.As(err, &field): // nothing was sent
		fmt.Println("fix the field", field.Field)
	case errors.Is(err, midas.ErrLoginExpired):
		fmt.Println("the app has to log in again")
	case errors.Is(err, midas.ErrPermission), errors.Is(err, midas.ErrSignature):
		fmt.Println("sandbox and live are mixed up, or the pay key is wrong")
	case errors.As(err, &refused): // anything else that Midas does not like
		fmt.Println("refused with ret", refused.Ret)
	case errors.As(err, &unusable): // a proxy's page, half an answer
		fmt.Println("try again later: HTTP status", unusable.StatusCode)
	case err != nil: // the network, or the context's end
		fmt.Println("try again later")
	}
	// Output: the app has to log in again
}

func ExampleAmount() {
	price := 18 * midas.QPoint
	fmt.Println(price.QPoints(), "Q-points")
	fmt.Println(price.Yuan(), "yuan")
	fmt.Println(int64(price), "fen")
	fmt.Println(midas.Fen)
	// Output:
	// 18 Q-points
	// 1.80 yuan
	// 180 fen
	// 0.1 Q-points (0.01 yuan)
}

func ExampleParseQPoints() {
	for _, s := range []string{"60", "0.1", "60.0", "0.01", "-1"} {
		price, err := midas.ParseQPoints(s)
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Println(s, "is", int64(price), "fen")
	}
	// Output:
	// 60 is 600 fen
	// 0.1 is 1 fen
	// 60.0 is 600 fen
	// amount: want Q-points such as "60" or "0.1", to the fen
	// amount: want Q-points such as "60" or "0.1", to the fen
}

// A catalogue in yuan.
func ExampleParseYuan() {
	for _, s := range []string{"6", "0.29", "6.50", "0.001"} {
		price, err := midas.ParseYuan(s)
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Println(s, "yuan are", price.QPoints(), "Q-points, to the fen", price.Yuan())
	}
	// Output:
	// 6 yuan are 60 Q-points, to the fen 6.00
	// 0.29 yuan are 2.9 Q-points, to the fen 0.29
	// 6.50 yuan are 65 Q-points, to the fen 6.50
	// amount: want yuan such as "6" or "0.29", to the fen
}

// What a catalogue or a table of orders holds, in the notation of the parameter payitem.
func ExampleParseItems() {
	items, err := midas.ParseItems("sword*18*1;gem60*60.0*2")
	if err != nil {
		log.Fatal(err)
	}
	for _, item := range items {
		fmt.Println(item.Quantity, "x", item.ID, "at", item.Price)
	}
	fmt.Println(midas.FormatItems(items))
	// Output:
	// 1 x sword at 18 Q-points (1.80 yuan)
	// 2 x gem60 at 60 Q-points (6.00 yuan)
	// sword*18*1;gem60*60*2
}

// One id for a payment, to save in the same write as the items of a player whose data is not in
// the database of the payments.
func ExamplePaymentID() {
	fmt.Println(midas.PaymentID("o_player", "-APPDJSX18246-20140401-1206311492"))
	fmt.Println(midas.PaymentID("a/b", "1"), midas.PaymentID("a", "b/1"))
	// Output:
	// o_player/-APPDJSX18246-20140401-1206311492
	// a%2Fb/1 a/b/1
}

// What SnsSigCheck::makeSig does. The request is one of Tencent's documentation.
func ExampleSign() {
	params := url.Values{
		"openid": {"11111111111111111"}, "openkey": {"2222222222222222"}, "appid": {"123456"},
		"pf": {"qzone"}, "format": {"json"}, "userip": {"112.90.139.30"},
	}
	sig := midas.Sign("GET", "/v3/user/get_info", params, "228bf094169a40a3bd188ba37ebe8723") // no "&" behind the key
	fmt.Println(sig)
	fmt.Println(midas.BaseString("GET", "/v3/user/get_info", params)[:40])
	// Output:
	// FdJkiDYwMj5Aj1UG2RUPc83iokk=
	// GET&%2Fv3%2Fuser%2Fget_info&appid%3D1234
}

// The cookie org_loc as Tencent's PHP SDK sends it.
func ExampleGateway() {
	gateway := midas.Sandbox()
	gateway.OrgLocPrefix = "" // org_loc=%2Fmpay%2Fbuy_goods_m
	client, err := midas.New(midas.Config{AppID: "1450000000", AppKey: "sandbox-pay-key", Gateway: gateway})
	if err != nil {
		log.Fatal(err)
	}
	_ = client
}

// The sandbox on your own machine, "midas sandbox", is a YSDK gateway at another address.
func ExampleGateway_sandboxOnThisMachine() {
	gateway := midas.Sandbox().At("http://127.0.0.1:9100") // where "midas sandbox" listens
	client, err := midas.New(midas.Config{AppID: "1450000000", AppKey: "my-test-key", Gateway: gateway, DeliveryPath: "/pay/notify"})
	if err != nil {
		log.Fatal(err)
	}
	_ = client
}

// The sig of the callback in Tencent's documentation.
func ExampleSignCallback() {
	params := url.Values{
		"amt": {"320"}, "appid": {"1101255891"}, "appmeta": {"customkey*qdqb*qq"}, "billno": {"-APPDJSX18246-20140401-1206311492"},
		"clientver": {"android"}, "openid": {"F11669C63D76BAB0BC2F6CC869B19E53"}, "payamt_coins": {"0"}, "payitem": {"G1*20*2"},
		"providetype": {"5"}, "pubacct_payamt_coins": {""}, "token": {"5056117C0597793C38C4F1D29F884C5E25887"},
		"ts": {"1396325191"}, "version": {"v3"}, "zoneid": {"1"},
	}
	fmt.Println(midas.SignCallback("GET", "/pay/mt.php", params, "Lf6AtMEB1QlE8BYS"))
	// Output: ai1eD5CA16n5pWBx9abjZguMR5Y=
}

func ExampleReplyTo() {
	for _, err := range []error{
		nil,
		midas.ErrTokenExpired,
		midas.ErrTokenNotFound,
		&midas.ParamError{Param: "payitem", Reason: "is not what was ordered"},
		fmt.Errorf("callback: %w", midas.ErrSignature),
		errors.New("the database is down"),
	} {
		fmt.Printf("%s\n", midas.ReplyTo(err).Bytes())
	}
	// Output:
	// {"ret":0,"msg":"OK"}
	// {"ret":2,"msg":"token_expired"}
	// {"ret":3,"msg":"token_not_found"}
	// {"ret":4,"msg":"bad_parameter:payitem"}
	// {"ret":4,"msg":"bad_parameter:sig"}
	// {"ret":1,"msg":"system_busy"}
}

// Sandbox and live are a gateway and a pay key; nothing else differs.
func ExampleConfig() {
	var db *sql.DB // the game's
	gateway := midas.Sandbox()
	if os.Getenv("MIDAS_ENV") == "live" {
		gateway = midas.Production()
	}
	store, err := midassql.New(db, midassql.MySQL, midassql.Options{Environment: os.Getenv("MIDAS_ENV"), Logger: slog.Default()})
	if err != nil {
		log.Fatal(err)
	}
	client, err := midas.New(midas.Config{
		AppID:        os.Getenv("MIDAS_APP_ID"),  // offer id
		AppKey:       os.Getenv("MIDAS_APP_KEY"), // of that environment, without the trailing "&"
		Gateway:      gateway,
		DeliveryPath: "/pay/notify",
		OnCallback:   store.OnCallback, // keeps what was not answered OK, for support
		Logger:       slog.Default(),
	})
	if err != nil {
		log.Fatal(err)
	}
	_ = client
}

// One server for several apps: a Client each, and a delivery URL each.
func ExampleClient_DeliveryHandler_severalApps() {
	grant := func(ctx context.Context, d *midas.Delivery) error { return nil }
	mux := http.NewServeMux()
	for path, cfg := range map[string]midas.Config{
		"/pay/red/notify":  {AppID: "1450000001", AppKey: "red-pay-key"},
		"/pay/blue/notify": {AppID: "1450000002", AppKey: "blue-pay-key"},
	} {
		cfg.DeliveryPath = path
		client, err := midas.New(cfg)
		if err != nil {
			log.Fatal(err)
		}
		mux.Handle(path, client.DeliveryHandler(grant))
	}

	backend := httptest.NewServer(mux)
	defer backend.Close()
	resp, err := http.Get(backend.URL + "/pay/red/notify?" + documentedCallback) // of a third app
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(answer))
	// Output: {"ret":4,"msg":"bad_parameter:sig"}
}

// A framework that is not net/http: hand over the raw query, send the bytes.
func ExampleReplyTo_otherFrameworks() {
	var client *midas.Client
	grant := func(ctx context.Context, d *midas.Delivery) error { return nil }

	handle := func(ctx context.Context, rawQuery string, answer func(status int, body []byte)) {
		d, err := client.ParseDeliveryQuery(rawQuery) // what follows the "?", untouched
		if err == nil {
			ctx, cancel := context.WithTimeout(ctx, 1500*time.Millisecond)
			defer cancel()
			err = grant(ctx, d)
		}
		answer(http.StatusOK, midas.ReplyTo(err).Bytes())
	}
	_ = handle
}

// A graceful shutdown: no new callbacks, then the end of those that still run.
func ExampleClient_Wait() {
	var client *midas.Client
	var backend http.Handler

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	server := &http.Server{
		Addr: ":8080", Handler: backend,
		ReadHeaderTimeout: 5 * time.Second,
		WriteTimeout:      10 * time.Second, // above the 1.8 s of a callback's answer
	}
	go func() {
		if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
			log.Fatal(err)
		}
	}()
	<-ctx.Done()

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	err := errors.Join(server.Shutdown(ctx), client.Wait(ctx)) // a DeliverFunc may outlive its answer
	if err != nil {
		log.Print(err)
	}
	// now close the database
}

// Printed, logged or marshalled, what holds secrets does not show them.
func ExampleOrderRequest() {
	req := midas.OrderRequest{Player: midas.Player{Login: midas.QQ, OpenID: "openid", OpenKey: "secret", PFKey: "secret"}}
	text, err := json.Marshal(req)
	fmt.Println(bytes.Contains(text, []byte("secret")), strings.Contains(fmt.Sprintf("%+v %#v", req, &req), "secret"), err)
	// Output: false false <nil>
}

// A call that this module has no method for: the player's Q-points, with get_balance_m, on
// YSDK, where the cookie org_loc of such a call has no prefix (protocol.md 7, neighbours). Its
// answer type has the fields that are wanted.
func ExampleClient_Call() {
	gateway := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		orgLoc, _ := r.Cookie("org_loc")
		fmt.Println(r.URL.Path, orgLoc.Value)
		fmt.Fprint(w, `{"ret":0,"balance":220,"gen_balance":20,"first_save":1}`)
	}))
	defer gateway.Close()
	client, err := midas.New(midas.Config{AppID: "1450000000", AppKey: "my-test-key", Gateway: midas.Sandbox().At(gateway.URL)})
	if err != nil {
		log.Fatal(err)
	}

	var answer struct {
		Balance int `json:"balance"`     // all Q-points
		Given   int `json:"gen_balance"` // of them, given for free
	}
	err = client.Call(context.Background(), midas.Call{
		API:    "/mpay/get_balance_m",
		OrgLoc: "/mpay/get_balance_m",
		Player: midas.Player{Login: midas.QQ, OpenID: "openid", OpenKey: "pay-token", PF: "qq_m_qq-2001-android-2011-xxxx", PFKey: "pfkey"},
	}, &answer)
	var field *midas.FieldError
	switch {
	case errors.As(err, &field): // nothing was sent, and nothing ever would be
		fmt.Println("fix the field", field.Field)
	case errors.Is(err, midas.ErrNotSent): // making it again cannot do it twice
		fmt.Println("try again")
	case err != nil:
		fmt.Println(err)
	default:
		fmt.Println(answer.Balance, "Q-points,", answer.Given, "of them for free")
	}
	// Output:
	// /mpay/get_balance_m %2Fmpay%2Fget_balance_m
	// 220 Q-points, 20 of them for free
}
