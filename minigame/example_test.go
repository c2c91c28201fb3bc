package minigame_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/minigame"
	"github.com/midas-go/midas/minigame/minigametest"
)

func ExampleClient_NewOrder() {
	client, err := minigame.New(minigame.Config{AppID: "wx0123456789abcdef", OfferID: "123", AppKey: "12345"})
	if err != nil {
		fmt.Println(err)
		return
	}
	order, err := client.NewOrder(minigame.OrderRequest{
		SessionKey: "9hAb/NEYUlkaMBEsmFgzig==", // the player's newest, from code2Session
		ProductID:  "testproductId", Quantity: 1, Price: 10 * midas.Fen,
		OutTradeNo: "xxxxxx", Attach: "testdata",
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	// Store order.OutTradeNo with the player, the item and the price; then:
	forTheApp, err := json.MarshalIndent(order, "", "  ")
	fmt.Println(string(forTheApp), err)
	// Output:
	// {
	//   "signData": "{\"mode\":\"goods\",\"offerId\":\"123\",\"buyQuantity\":1,\"env\":0,\"currencyType\":\"CNY\",\"platform\":\"android\",\"zoneId\":\"1\",\"productId\":\"testproductId\",\"goodsPrice\":10,\"outTradeNo\":\"xxxxxx\",\"attach\":\"testdata\"}",
	//   "paySig": "309fa3ae45ac82ed892eec950721558316d23b009c6b479d40d5f949bd5030eb",
	//   "signature": "2aa917c33e119f0e9278f31555a893c9312720ff171f775c2e1b26c09e7d4424"
	// } <nil>
}

func ExampleClient_PushHandler() {
	wechat := minigametest.NewServer(minigametest.Config{}) // the real one in real life
	defer wechat.Close()
	client, err := minigame.New(wechat.ClientConfig())
	if err != nil {
		fmt.Println(err)
		return
	}
	var mu sync.Mutex
	granted := map[string]bool{} // a unique key in the database that holds the items
	handler := client.PushHandler(minigame.Handlers{
		Deliver: func(_ context.Context, d *minigame.Delivery) error {
			paid, err := d.Midas(600 * midas.Fen) // the price of the stored order
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			if !granted[paid.BillNo] {
				granted[paid.BillNo] = true
				fmt.Println("grant", d.Quantity, d.ProductID)
			}
			return nil
		},
		Refund: func(context.Context, *minigame.Refund) error { return errors.New("not written yet") },
	})
	wechat.PushToHandler(handler) // http.Handle("/push", handler)

	ctx := context.Background()
	wechat.Publish("sword", 600*midas.Fen)
	session, err := client.Code2Session(ctx, wechat.Login("player-1"))
	if err != nil {
		fmt.Println(err)
		return
	}
	order, err := client.NewOrder(minigame.OrderRequest{SessionKey: session.SessionKey, ProductID: "sword", Quantity: 2, Price: 600 * midas.Fen})
	if err != nil {
		fmt.Println(err)
		return
	}
	receipt, err := wechat.Pay(ctx, session.OpenID, order)
	fmt.Println(string(receipt.Body), err)
	receipt, err = wechat.Repeat(ctx, minigame.Live, order.OutTradeNo)
	fmt.Println(string(receipt.Body), err)
	// Output:
	// grant 2 sword
	// {"ErrCode":0,"ErrMsg":"Success"} <nil>
	// {"ErrCode":0,"ErrMsg":"Success"} <nil>
}
