package midastest_test

import (
	"context"
	"fmt"
	"log"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midastest"
)

// A sale, and a forgery that the backend refuses.
func Example() {
	fake := midastest.New(midastest.Config{Errorf: log.Printf}) // t.Errorf in a test
	client, err := midas.New(fake.ClientConfig("/pay/notify"))
	if err != nil {
		log.Fatal(err)
	}
	granted := map[string]bool{}
	fake.DeliverToHandler(client.DeliveryHandler(func(ctx context.Context, d *midas.Delivery) error {
		granted[d.OpenID+" "+d.BillNo] = true
		return nil
	}), "/pay/notify")

	ctx := context.Background()
	order, err := client.CreateOrder(ctx, midas.OrderRequest{
		Player:    midas.Player{Login: midas.QQ, OpenID: "openid", OpenKey: "pay-token", PF: "qq_m_qq-2001-android-2011-xxxx", PFKey: "pfkey"},
		Items:     []midas.Item{{ID: "gem60", Price: 60 * midas.QPoint, Quantity: 1}},
		GoodsName: "60 gems", GoodsDescription: "A purse of sixty gems",
	})
	if err != nil {
		log.Fatal(err)
	}
	paid, err := fake.Pay(ctx, order.Token, midastest.Discount(95))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s accepted: %t\n", paid.Body, paid.Accepted)

	forged, err := fake.Pay(ctx, order.Token, midastest.WrongKey("a-guess"))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s accepted: %t\n", forged.Body, forged.Accepted)
	fmt.Println("granted:", len(granted))
	// Output:
	// {"ret":0,"msg":"OK"} accepted: true
	// {"ret":4,"msg":"bad_parameter:sig"} accepted: false
	// granted: 1
}

func ExampleServer_NextOrders() {
	fake := midastest.New(midastest.Config{})
	client, err := midas.New(fake.ClientConfig(""))
	if err != nil {
		log.Fatal(err)
	}
	fake.NextOrders(midastest.Fault{Ret: 1016, Code: "1016-1016-0"})
	_, err = client.CreateOrder(context.Background(), orderRequest(midas.QQ))
	fmt.Println(err)
	// Output: midas: buy_goods_m: midas refused: ret 1016 (no permission: are gateway, offer id and pay key of the same environment, and is the sandbox published in the console?), err_code "1016-1016-0"
}

func ExampleJudge() {
	fmt.Println(midastest.Judge(200, []byte("{\"ret\":0,\"msg\":\"OK\"}\n"), 0))
	fmt.Println(midastest.Judge(200, []byte(`{"ret":0,"msg":"ok"}`), 0))
	// Output:
	// the body ends in a newline: json.Encoder and fmt.Fprintln write one
	// msg is "ok", want OK
}
