//go:build unix

package minigame_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/minigame"
	"github.com/stretchr/testify/require"
)

// Each benchmark alternates with its floor in one run and reports the ratio, so that it
// holds on a noisy machine: go test -bench . -benchtime 20000x ./minigame

// ratio runs both functions in turns and reports how many times the floor's processor time
// ours takes. Other processes do not count into that, unlike into the time on the clock.
func ratio(b *testing.B, floor, ours func()) {
	b.ReportAllocs()
	const turn = 100
	spent := func(f func()) time.Duration {
		start := processorTime(b)
		for range turn {
			f()
		}
		return processorTime(b) - start
	}
	var floorTime, ourTime time.Duration
	n := 0
	for b.Loop() {
		if n++; n%turn == 0 {
			floorTime += spent(floor)
			ourTime += spent(ours)
		}
	}
	if floorTime > 0 {
		b.ReportMetric(float64(ourTime)/float64(floorTime), "x-floor")
		b.ReportMetric(float64(floorTime)/float64(n), "cpu-ns-floor/op")
	}
	b.ReportMetric(float64(ourTime)/float64(n), "cpu-ns/op")
	b.ReportMetric(0, "ns/op") // it covers both
}

// processorTime is what this process has used, client and server together.
func processorTime(b *testing.B) time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Skip(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func benchClient(b *testing.B) *minigame.Game {
	client, err := minigame.NewGame(minigame.GameConfig{
		AppID: "wx0123456789abcdef", OfferID: "1450000000", AppKey: "12345f9a47df4d1eaeb3bad9a7e54321", PushKeys: []minigame.PushKey{{Token: "AAAAA"}},
	})
	require.NoError(b, err)
	return client
}

// BenchmarkNewOrder compares with the two bare HMACs that an order needs, over the same
// bytes.
func BenchmarkNewOrder(b *testing.B) {
	client := benchClient(b)
	req := minigame.OrderRequest{
		SessionKey: "9hAb/NEYUlkaMBEsmFgzig==", ProductID: "sword", Quantity: 1, Price: 600 * midas.Fen,
		OutTradeNo: "order-20260131-000001", Attach: "server-1",
	}
	order, err := client.NewOrder(req)
	require.NoError(b, err)
	signed := []byte("requestMidasPaymentGameItem&" + order.SignData)
	appKey, sessionKey := []byte("12345f9a47df4d1eaeb3bad9a7e54321"), []byte(req.SessionKey)
	mac := func(key, message []byte) {
		m := hmac.New(sha256.New, key)
		m.Write(message)
		m.Sum(nil)
	}
	ratio(b, func() {
		mac(appKey, signed)
		mac(sessionKey, signed[len("requestMidasPaymentGameItem&"):])
	}, func() {
		if _, err := client.NewOrder(req); err != nil {
			b.Fatal(err)
		}
	})
}

// BenchmarkPushHandler compares with a handler that takes every caller's word for it, but
// reads the JSON, keeps the time limit and answers the same bytes.
func BenchmarkPushHandler(b *testing.B) {
	const payload = `{"OpenId":"oUrsf0TSXNtiZjP7JL9UUFiGJzmQ","OutTradeNo":"order-20260131-000001","WeChatPayInfo":{"MchOrderNo":"example_mch_order_no","TransactionId":"example_transaction_id"},"Env":0,"GoodsInfo":{"ProductId":"sword","Quantity":1,"ZoneId":"1","OrigPrice":600,"ActualPrice":600,"Attach":"server-1","OrderSource":1}}`
	const event, answer = "minigame_game_pay_goods_deliver_notify", `{"ErrCode":0,"ErrMsg":"Success"}`
	message, err := json.Marshal(map[string]any{
		"ToUserName": "gh_31b2a1c7e78a", "FromUserName": "oUrsf0TSXNtiZjP7JL9UUFiGJzmQ", "CreateTime": 1583202606, "MsgType": "event", "Event": event,
		"MiniGame": map[string]any{"Payload": payload, "PayEventSig": minigame.PayEventSig(event, payload, "12345f9a47df4d1eaeb3bad9a7e54321"), "IsMock": false},
	})
	require.NoError(b, err)
	query := url.Values{"timestamp": {"1714036504"}, "nonce": {"1514711492"}, "signature": {minigame.PushSignature("AAAAA", "1714036504", "1514711492")}}.Encode()

	type outer struct {
		Event    string
		MiniGame struct{ Payload string }
	}
	type inner struct { // what a game needs of a delivery
		OpenId, OutTradeNo string
		Env                int
		WeChatPayInfo      struct{ MchOrderNo, TransactionId string }
		GoodsInfo          struct {
			ProductId, ZoneId, Attach                     string
			Quantity, OrigPrice, ActualPrice, OrderSource int64
		}
	}
	bare := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var m outer
		var p inner
		if err != nil || json.Unmarshal(body, &m) != nil || json.Unmarshal([]byte(m.MiniGame.Payload), &p) != nil || p.GoodsInfo.Quantity != 1 {
			w.WriteHeader(400)
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), 2*time.Second)
		defer cancel()
		result := make(chan error, 1)
		go func() { result <- ctx.Err() }()
		timer := time.NewTimer(2500 * time.Millisecond)
		defer timer.Stop()
		err = errors.New("late")
		select {
		case err = <-result:
		case <-timer.C:
		}
		if err == nil {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Content-Length", strconv.Itoa(len(answer)))
			io.WriteString(w, answer)
		}
	}))
	defer bare.Close()
	ours := httptest.NewServer(benchClient(b).PushHandler(minigame.GameHandlers{Deliver: func(context.Context, *minigame.Delivery) error { return nil }}))
	defer ours.Close()
	push := func(server *httptest.Server) func() {
		target := server.URL + "/push?" + query
		return func() {
			resp, err := http.Post(target, "application/json", strings.NewReader(string(message)))
			if err != nil {
				b.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || string(body) != answer {
				b.Fatal(err, string(body))
			}
		}
	}
	ratio(b, push(bare), push(ours))
}
