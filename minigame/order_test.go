package minigame

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/midas-go/midas"
	"github.com/stretchr/testify/require"
)

func newGame(t testing.TB, change func(*GameConfig)) *Game {
	t.Helper()
	cfg := GameConfig{
		AppID: "wxba5fad812f8e6fb9", OfferID: "123", AppKey: "12345", SandboxAppKey: "67890", Secret: "app-secret",
		PushKeys: []PushKey{{Token: "AAAAA"}},
	}
	if change != nil {
		change(&cfg)
	}
	g, err := NewGame(cfg)
	require.NoError(t, err)
	return g
}

func newProgram(t testing.TB, change func(*ProgramConfig)) *Program {
	t.Helper()
	cfg := ProgramConfig{
		AppID: "wxba5fad812f8e6fb9", OfferID: "123", AppKey: "12345", SandboxAppKey: "67890", Secret: "app-secret",
		PushKeys: []PushKey{{Token: "AAAAA", EncodingAESKey: testAESKey}},
	}
	if change != nil {
		change(&cfg)
	}
	p, err := NewProgram(cfg)
	require.NoError(t, err)
	return p
}

// newAccount returns what both products share.
func newAccount(t testing.TB, program bool) *core {
	if program {
		return newProgram(t, nil).core
	}
	return newGame(t, nil).core
}

// TestOrdersOfTheVectors builds the signData of every vector, except those in another spelling or with nothing to build.
func TestOrdersOfTheVectors(t *testing.T) {
	t.Parallel()
	spelling := regexp.MustCompile(`/(< > & written as|empty |same fields|other key order|indented|without optional keys|the mini-game signData under)|^minigame_client_pay_sig/attach: empty`)
	for kind, want := range map[string]int{"minigame_client_pay_sig": 15, "miniprogram_client_pay_sig": 16} {
		built := slices.DeleteFunc(vectors(t, kind), func(v vector) bool { return spelling.MatchString(kind + "/" + v.Name) })
		require.Len(t, built, want)
		for _, v := range built {
			t.Run(kind+"/"+v.Name, func(t *testing.T) {
				fields := map[string]any{}
				for _, f := range v.Inputs.FieldsInOrder {
					fields[f[0].(string)] = f[1]
				}
				text := func(name string) string { s, _ := fields[name].(string); return s }
				number := func(name string) int { n, _ := fields[name].(float64); return int(n) }
				client := newAccount(t, kind == "miniprogram_client_pay_sig")
				client.config().OfferID = text("offerId")
				client.config().AppKey, client.config().SandboxAppKey = Secret(v.Key), Secret(v.Key) // past New, which refuses some of these keys
				order, err := client.NewOrder(OrderRequest{
					SessionKey: Secret(v.Inputs.SessionKey), Env: Env(number("env")), ProductID: text("productId"), Quantity: number("buyQuantity"),
					Price: midas.Amount(number("goodsPrice")) * midas.Fen, SellingPrice: midas.Amount(number("activitySellingPrice")) * midas.Fen,
					OutTradeNo: text("outTradeNo"), Attach: text("attach"), ZoneID: text("zoneId"), Coins: text("productId") == "",
				})
				require.NoError(t, err)
				require.Equal(t, v.Inputs.SignData, order.SignData)
				require.Equal(t, v.expected(t), order.PaySig)
				require.Equal(t, v.Signature, order.Signature)
			})
		}
	}
}

func TestAnEmptyAttachIsWarnedOfOnce(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	client := newProgram(t, func(cfg *ProgramConfig) { cfg.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	for range 2 {
		_, err := client.NewOrder(OrderRequest{SessionKey: "k", ProductID: "p", Quantity: 1, Price: midas.Fen})
		require.NoError(t, err)
	}
	require.NoError(t, client.Wait(t.Context()))
	require.Equal(t, 1, strings.Count(log.String(), "without Attach"))
}

func TestFreshOrderNumbers(t *testing.T) {
	t.Parallel()
	client, seen := newProgram(t, nil), map[string]bool{}
	for range 100 {
		order, err := client.NewOrder(OrderRequest{SessionKey: "k", ProductID: "p", Quantity: 1, Price: midas.Fen})
		require.NoError(t, err)
		require.Regexp(t, `^[A-Z2-7]{26}$`, order.OutTradeNo)
		require.Contains(t, order.SignData, `"outTradeNo":"`+order.OutTradeNo+`"`)
		require.False(t, seen[order.OutTradeNo])
		seen[order.OutTradeNo] = true
	}
}

func TestNewOrderRefuses(t *testing.T) {
	t.Parallel()
	good := OrderRequest{SessionKey: "k", ProductID: "p", Quantity: 1, Price: 100 * midas.Fen, OutTradeNo: "order-01"}
	for _, test := range []struct {
		sentence string
		program  bool
		change   func(*OrderRequest)
		field    string // empty: accepted
	}{
		{"nothing of a good one", false, func(r *OrderRequest) {}, ""},
		{"no session_key", false, func(r *OrderRequest) { r.SessionKey = "" }, "SessionKey"},
		{"a session_key with a line end", false, func(r *OrderRequest) { r.SessionKey = "k\n" }, "SessionKey"},
		{"quantity 0", false, func(r *OrderRequest) { r.Quantity = 0 }, "Quantity"},
		{"no product", false, func(r *OrderRequest) { r.ProductID = "" }, "ProductID"},
		{"price 0", false, func(r *OrderRequest) { r.Price = 0 }, "Price"},
		{"a negative price", true, func(r *OrderRequest) { r.Price = -midas.Fen }, "Price"},
		{"a sale in a mini game", false, func(r *OrderRequest) { r.SellingPrice = 50 * midas.Fen }, "SellingPrice"},
		{"a sale at 40 %", true, func(r *OrderRequest) { r.SellingPrice = 40 * midas.Fen }, ""},
		{"a sale at 39 %", true, func(r *OrderRequest) { r.SellingPrice = 39 * midas.Fen }, "SellingPrice"},
		{"a sale at the full price", true, func(r *OrderRequest) { r.SellingPrice = 100 * midas.Fen }, "SellingPrice"},
		{"32 characters of every kind", false, func(r *OrderRequest) { r.OutTradeNo = "aZ09_-|*@" + strings.Repeat("x", 23) }, ""},
		{"33 characters", false, func(r *OrderRequest) { r.OutTradeNo = strings.Repeat("x", 33) }, "OutTradeNo"},
		{"a leading underscore", false, func(r *OrderRequest) { r.OutTradeNo = "_order-01" }, "OutTradeNo"},
		{"a dot", false, func(r *OrderRequest) { r.OutTradeNo = "order.01" }, "OutTradeNo"},
		{"Chinese in the number", false, func(r *OrderRequest) { r.OutTradeNo = "订单000001" }, "OutTradeNo"},
		{"one character in a mini game", false, func(r *OrderRequest) { r.OutTradeNo = "x" }, ""},
		{"7 characters in a mini program", true, func(r *OrderRequest) { r.OutTradeNo = "order-1" }, "OutTradeNo"},
		{"1024 bytes of attach", false, func(r *OrderRequest) { r.Attach = strings.Repeat("x", 1024) }, ""},
		{"1025 bytes of attach", false, func(r *OrderRequest) { r.Attach = strings.Repeat("x", 1025) }, "Attach"},
		{"attach that is not UTF-8", false, func(r *OrderRequest) { r.Attach = "\xff" }, "Attach"},
		{"a zone in a mini program", true, func(r *OrderRequest) { r.ZoneID = "1" }, "ZoneID"},
		{"coins with a product", false, func(r *OrderRequest) { r.Coins = true }, "ProductID"},
		{"coins with attach in a mini game", false, func(r *OrderRequest) { r.Coins, r.ProductID, r.Attach = true, "", "x" }, "Attach"},
		{"coins with attach in a mini program", true, func(r *OrderRequest) { r.Coins, r.ProductID, r.Price, r.Attach = true, "", 0, "x" }, ""},
		{"coins with a price in a mini program", true, func(r *OrderRequest) { r.Coins, r.ProductID = true, "" }, "Price"},
	} {
		t.Run(test.sentence, func(t *testing.T) {
			req := good
			test.change(&req)
			order, err := newAccount(t, test.program).NewOrder(req)
			if test.field == "" {
				require.NoError(t, err)
				require.True(t, json.Valid([]byte(order.SignData)))
				return
			}
			require.Nil(t, order)
			var param *FieldError
			require.ErrorAs(t, err, &param)
			require.Equal(t, test.field, param.Field)
		})
	}
	t.Run("and names all fields at once", func(t *testing.T) {
		_, err := newGame(t, nil).NewOrder(OrderRequest{OutTradeNo: "_"})
		for _, field := range []string{"SessionKey", "Quantity", "ProductID", "Price", "OutTradeNo"} {
			require.ErrorContains(t, err, field)
		}
	})
	t.Run("an environment without a key", func(t *testing.T) {
		_, err := newGame(t, func(cfg *GameConfig) { cfg.SandboxAppKey = "" }).NewOrder(OrderRequest{Env: Sandbox})
		require.ErrorContains(t, err, "SandboxAppKey")
		_, err = newGame(t, nil).NewOrder(OrderRequest{Env: 2})
		require.ErrorContains(t, err, "neither")
		_, err = newGame(t, func(cfg *GameConfig) { cfg.OfferID = "" }).NewOrder(good)
		require.ErrorContains(t, err, "OfferID")
	})
}

func FuzzSignDataIsTheJSONOfItsFields(f *testing.F) {
	f.Add("attach", "product")
	f.Add("\"\\\n\r\t\x00\x1f<>&\u2028🎮", "p")
	client := newGame(f, func(cfg *GameConfig) { cfg.MaxAttach = 1 << 20 })
	f.Fuzz(func(t *testing.T, attach, product string) {
		order, err := client.NewOrder(OrderRequest{SessionKey: "k", ProductID: product, Quantity: 1, Price: midas.Fen, Attach: attach})
		if err != nil {
			return
		}
		var back struct{ Attach, ProductID string }
		require.NoError(t, json.Unmarshal([]byte(order.SignData), &back))
		require.Equal(t, attach, back.Attach)
		require.Equal(t, product, back.ProductID)
		require.Equal(t, Signature(order.SignData, "k"), order.Signature)
	})
}

func TestNothingPrintedHoldsASecret(t *testing.T) {
	t.Parallel()
	secret := regexp.MustCompile(`s3cr3t|[0-9a-f]{64}`)
	cfg := GameConfig{
		AppID: "wx1", OfferID: "1", AppKey: "s3cr3t-live", SandboxAppKey: "s3cr3t-sandbox", Secret: "s3cr3t-app",
		PushKeys: []PushKey{{Token: "s3cr3t-token", EncodingAESKey: "s3cr3tghijklmnopqrstuvwxyz0123456789ABCDEFG"}},
	}
	client, err := NewGame(cfg)
	require.NoError(t, err)
	req := OrderRequest{SessionKey: "s3cr3t-session", ProductID: "p", Quantity: 1, Price: midas.Fen}
	order, err := client.NewOrder(req)
	require.NoError(t, err)
	encrypted, err := EncryptPush("s3cr3tghijklmnopqrstuvwxyz0123456789ABCDEFG", "wx1", []byte(`{}`))
	require.NoError(t, err)
	push, err := client.ParsePush("encrypt_type=aes&msg_signature="+PushSignature("s3cr3t-token", "", "", encrypted), []byte(`{"Encrypt":"`+encrypted+`"}`))
	require.NoError(t, err)
	for _, value := range []any{push, *push, cfg, &cfg, client, *client, client.core, req, &req, order, *order, Session{SessionKey: "s3cr3t"}, CallPlayer{SessionKey: "s3cr3t"}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%d", "%q", "%x"} {
			require.NotRegexp(t, secret, fmt.Sprintf(verb, value), "%T printed with %s", value, verb)
		}
		require.NotRegexp(t, secret, logged(value))
	}
	for _, value := range []any{req, &req, Session{SessionKey: "s3cr3t"}, cfg.PushKeys} {
		_, err := json.Marshal(value)
		require.ErrorContains(t, err, "not marshalled")
	}
	_, err = Secret("s3cr3t").GobEncode()
	require.Error(t, err)
	require.Equal(t, `""`, fmt.Sprint(Secret("")))
	require.Contains(t, logged(Secret("s3cr3t")), "[redacted]")
}
