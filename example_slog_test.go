package midas_test

import (
	"context"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midastest"
)

// The lines that Config.Logger receives: here one for a repeated try of an order, and one for
// each callback. What differs from run to run is left out.
func ExampleConfig_logger() {
	logger := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{
		ReplaceAttr: func(_ []string, attr slog.Attr) slog.Attr {
			switch attr.Key {
			case slog.TimeKey, "delay", "duration":
				return slog.Attr{}
			}
			return attr
		},
	}))

	fake := midastest.NewServer(midastest.Config{AppID: "1101255891", AppKey: "Lf6AtMEB1QlE8BYS"})
	defer fake.Close()
	client, err := midas.New(midas.Config{
		AppID: fake.AppID(), AppKey: fake.AppKey(), Gateway: fake.Gateway(),
		DeliveryPath: "/pay/mt.php",
		Logger:       logger,
	})
	if err != nil {
		log.Fatal(err)
	}

	fake.NextOrders(midastest.Fault{Status: http.StatusBadGateway, Body: "upstream is down"})
	_, err = client.CreateOrder(context.Background(), midas.OrderRequest{
		Player:    midas.Player{Login: midas.WeChat, OpenID: "o_openid", OpenKey: "access-token", PF: "wechat_wx-2001-android-2011-xxxx", PFKey: "pfkey"},
		Items:     []midas.Item{{ID: "gem60", Price: 60 * midas.QPoint, Quantity: 1}},
		GoodsName: "60 gems", GoodsDescription: "A purse of sixty gems",
	})
	if err != nil {
		log.Fatal(err)
	}

	granted := func(context.Context, *midas.Delivery) error { return nil }
	handler := client.DeliveryHandler(granted)
	for _, query := range []string{documentedCallback, "amt=1&sig=forged"} {
		handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/pay/mt.php?"+query, nil))
	}
	if err := client.Wait(context.Background()); err != nil { // lines are written after the answer
		log.Fatal(err)
	}
	// Output:
	// level=WARN msg="midas: call failed, trying again" api=/mpay/buy_goods_m try=1 error="no usable answer (HTTP status 502, text/html, 16 bytes): want status 200"
	// level=INFO msg="midas: callback" outcome=delivered ret=0 billno=-APPDJSX18246-20140401-1206311492 openid=F116… token=5056117C0597793C38C4F1D29F884C5E25887
	// level=WARN msg="midas: callback" outcome=unverified ret=4 error="signature not verified: check the pay key, its environment, and that DeliveryPath, /pay/mt.php, is the registered path" path=/pay/mt.php remote=192.0.2.1:1234
}
