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

func ExampleGame_NewOrder() {
	game, err := minigame.NewGame(minigame.GameConfig{AppID: "wx0123456789abcdef", OfferID: "123", AppKey: "12345"})
	if err != nil {
		fmt.Println(err)
		return
	}
	order, err := game.NewOrder(minigame.OrderRequest{
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

func ExampleGame_PushHandler() {
	wechat := minigametest.NewServer(minigametest.Config{}) // the real one in real life
	defer wechat.Close()
	game, err := minigame.NewGame(wechat.GameConfig())
	if err != nil {
		fmt.Println(err)
		return
	}
	var mu sync.Mutex
	granted := map[string]bool{} // a unique key in the database that holds the items
	handler := game.PushHandler(minigame.GameHandlers{
		Deliver: func(_ context.Context, d *minigame.Delivery) error {
			if !d.PricedAt(600 * midas.Fen) { // the price of the stored order
				return errors.New("not the price of the order")
			}
			mu.Lock()
			defer mu.Unlock()
			if !granted[d.BillNo()] {
				granted[d.BillNo()] = true
				fmt.Println("grant", d.Quantity, d.ProductID)
			}
			return nil
		},
		Refund: func(context.Context, *minigame.RefundPush) error { return errors.New("not written yet") },
	})
	wechat.PushToHandler(handler, "/push") // http.Handle("/push", handler, "/push")

	ctx := context.Background()
	wechat.Publish("sword", 600*midas.Fen)
	session, err := game.Code2Session(ctx, wechat.Login("player-1"))
	if err != nil {
		fmt.Println(err)
		return
	}
	order, err := game.NewOrder(minigame.OrderRequest{SessionKey: session.SessionKey, ProductID: "sword", Quantity: 2, Price: 600 * midas.Fen})
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

// A mini program sells an item and gives a part of the money back.
func ExampleProgram_RefundOrder() {
	wechat := minigametest.NewServer(minigametest.Config{MiniProgram: true}) // the real one in real life
	defer wechat.Close()
	program, err := minigame.NewProgram(wechat.ProgramConfig())
	if err != nil {
		fmt.Println(err)
		return
	}
	wechat.PushToHandler(program.PushHandler(minigame.ProgramHandlers{
		Deliver: func(_ context.Context, d *minigame.Delivery) error {
			fmt.Println("grant", d.Quantity, d.ProductID)
			return nil
		},
		Refund: func(_ context.Context, r *minigame.RefundPush) error {
			fmt.Println(r.MchRefundID, "gave back", r.Amount.Yuan(), "yuan")
			return nil
		},
	}), "/push")

	ctx := context.Background()
	wechat.Publish("sword", 600*midas.Fen)
	session, err := program.Code2Session(ctx, wechat.Login("player-1"))
	if err != nil {
		fmt.Println(err)
		return
	}
	order, err := program.NewOrder(minigame.OrderRequest{
		SessionKey: session.SessionKey, ProductID: "sword", Quantity: 1, Price: 600 * midas.Fen, Attach: "server-1",
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	if _, err := wechat.Pay(ctx, session.OpenID, order); err != nil {
		fmt.Println(err)
		return
	}

	query := minigame.ProgramOrderQuery{OpenID: session.OpenID, OrderID: order.OutTradeNo}
	paid, err := program.QueryOrder(ctx, query)
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = program.RefundOrder(ctx, minigame.RefundRequest{
		ProgramOrderQuery: query, RefundOrderID: "refund-0001", // stored before the call
		LeftFee: paid.LeftFee, RefundFee: 150 * midas.Fen, From: 1,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = wechat.FinishRefund(ctx, minigame.Live, "refund-0001") // WeChat pushes when it is done
	fmt.Println(err)
	// Output:
	// grant 1 sword
	// refund-0001 gave back 1.50 yuan
	// <nil>
}
