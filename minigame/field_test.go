package minigame

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/midas-go/midas"
	"github.com/stretchr/testify/require"
)

// A fieldCase is what somebody ran into with another library: testdata/README.md.
type fieldCase struct {
	ID    string
	Input struct {
		Tool        string
		Config      struct{ AppID, AppKey, Token, EncodingAESKey string }
		Query, Body string
		Answer      json.RawMessage
		Want        map[string]any `json:"want_in_signData"`
	}
	Expected struct {
		Status    int
		Body      string
		Delivered struct {
			OutTradeNo, ProductID string
			Quantity              int
		}
		Words []string
	}
}

func TestCasesOfTheField(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("testdata/field.json")
	require.NoError(t, err)
	var file struct{ Cases []fieldCase }
	require.NoError(t, json.Unmarshal(data, &file))
	require.Len(t, file.Cases, 7)
	pages := map[string]string{}
	for _, ending := range []string{".md", ".zh-CN.md"} {
		for _, name := range []string{"minigame", "minigame-errors", "minigame-live"} {
			page, err := os.ReadFile("../docs/" + name + ending)
			require.NoError(t, err)
			pages[ending] += string(page)
		}
	}
	for _, test := range file.Cases {
		t.Run(test.ID, func(t *testing.T) {
			in, want := test.Input, test.Expected
			switch {
			case in.Tool == "PushHandler":
				var got *Delivery
				program := newProgram(t, func(cfg *ProgramConfig) {
					cfg.AppID, cfg.AppKey = in.Config.AppID, Secret(in.Config.AppKey)
					cfg.PushKeys = []PushKey{{Secret(in.Config.Token), Secret(in.Config.EncodingAESKey)}}
				})
				w := post(program.PushHandler(ProgramHandlers{Deliver: func(_ context.Context, d *Delivery) error { got = d; return nil }}), in.Query, in.Body)
				require.Equal(t, want.Status, w.Code)
				require.Equal(t, want.Body, w.Body.String())
				require.Equal(t, want.Delivered.OutTradeNo, got.OutTradeNo)
				require.Equal(t, want.Delivered.ProductID, got.ProductID)
				require.Equal(t, want.Delivered.Quantity, got.Quantity)
			case test.ID == "errmsg-user-signature":
				err := refusedWith(t, string(in.Answer))
				require.ErrorIs(t, err, ErrLoginExpired)
				require.NotErrorIs(t, err, ErrSignature)
				require.ErrorContains(t, err, "use the newest session_key")
				require.NotContains(t, err.Error(), "AppKey")
				var refusal *Error
				require.ErrorAs(t, err, &refusal)
				require.Equal(t, "用户态签名(signature)校验失败 rid: 69ddee24-00000000-00000000", refusal.Msg)
			case test.ID == "extra-info":
				order, err := newGame(t, nil).NewOrder(OrderRequest{SessionKey: "k", ProductID: "p", Quantity: 1, Price: midas.Fen, Extra: in.Want})
				require.NoError(t, err)
				require.Contains(t, order.SignData, `,"extraInfo":{"a":1}`)
			case test.ID == "words-of-client-errors":
				for name, page := range pages {
					for _, word := range want.Words {
						_, _, found := strings.Cut(page, word) // Contains would print the page
						require.True(t, found, "%s: %s", name, word)
					}
				}
			case test.ID == "invalid-platform":
				for name, page := range pages {
					_, program, _ := strings.Cut(page, "INVALID_PLATFORM")
					for _, word := range []string{"8.0.68", "iOS 15", "IAP", "1"} {
						_, _, found := strings.Cut(program, word)
						require.True(t, found, "%s: %s", name, word)
					}
				}
			case test.ID == "ios-refund":
				for name, page := range pages {
					_, rest, found := strings.Cut(page, "`RefundOrder`")
					require.True(t, found, name)
					require.True(t, strings.Contains(rest, "Apple") && strings.Contains(rest, "RefundInquiry"), name)
				}
			default:
				t.Fatalf("nothing looks at %q", test.ID)
			}
		})
	}
}

// refusedWith is the error of a call that WeChat answers so.
func refusedWith(t *testing.T, answer string) error {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, answer) }))
	defer server.Close()
	program := newProgram(t, func(cfg *ProgramConfig) {
		cfg.BaseURL, cfg.MaxRetries = server.URL, -1
		cfg.AccessToken = func(context.Context, string) (string, error) { return "token", nil }
	})
	_, err := program.TokenBalance(t.Context(), CallPlayer{OpenID: "o", SessionKey: "s", IP: "203.0.113.7"}, Live)
	require.Error(t, err)
	return err
}

// The one errcode for both signatures (D13): WeChat's words tell which, also where they are withheld.
func TestWhichSignatureWasRefused(t *testing.T) {
	t.Parallel()
	for msg, want := range map[string]error{
		"支付签名(pay_sig)校验失败": ErrSignature, "invalid paySig 0123456789abcdef": ErrSignature, "signature error": ErrLoginExpired,
		"用户态签名 0123456789abcdef 错误": ErrLoginExpired, "something is wrong": ErrSignature,
	} {
		err := refusedWith(t, fmt.Sprintf(`{"errcode":268490003,"errmsg":%q}`, msg))
		for _, is := range []error{ErrSignature, ErrLoginExpired} {
			require.Equal(t, is == want, errors.Is(err, is), msg)
		}
	}
}

// Blanks inside Encrypt are what a reader of forms makes of each plus (D7).
func TestBlanksInsideEncryptAreLostPluses(t *testing.T) {
	t.Parallel()
	program := newProgram(t, nil)
	query, body := "", ""
	inside := regexp.MustCompile(`"Encrypt":"[^"+]+\+[^"]*[^"+]"`) // at either end a blank is one that XML may have around it
	for !inside.MatchString(body) {
		query, body = sealed(t, "wxba5fad812f8e6fb9", `{"Event":"x"}`)
	}
	_, err := program.ParsePush(query, []byte(strings.ReplaceAll(body, "+", " ")))
	require.ErrorIs(t, err, ErrSignature)
	require.ErrorContains(t, err, "read the body as a form")
	_, err = program.ParsePush(query, []byte(strings.Replace(body, `"Encrypt":"`, `"Encrypt":" \n`, 1)))
	require.NoError(t, err)
}

// JSON of another type is named as that, and not as a forgery (D17).
func TestAPayloadThatIsAnObject(t *testing.T) {
	t.Parallel()
	game := newGame(t, func(cfg *GameConfig) { cfg.PushKeys[0].EncodingAESKey = testAESKey })
	query, body := sealed(t, "wxba5fad812f8e6fb9", `{"MsgType":"event","Event":"`+eventGoods+`","MiniGame":{"Payload":{"Env":0},"PayEventSig":"x"}}`)
	w := post(game.PushHandler(GameHandlers{}), query, body)
	require.Equal(t, http.StatusOK, w.Code)
	require.Equal(t, failJSON, w.Body.String())
	_, err := game.ParsePush(query, []byte(body))
	var param *ParamError
	require.ErrorAs(t, err, &param)
	require.Equal(t, "MiniGame.Payload", param.Param)
}

func TestExtraMembersOfSignData(t *testing.T) {
	t.Parallel()
	order := func(extra map[string]any) (*Order, error) {
		return newProgram(t, nil).NewOrder(OrderRequest{SessionKey: "k", ProductID: "p", Quantity: 1, Price: midas.Fen, OutTradeNo: "order-01", Extra: extra})
	}
	got, err := order(map[string]any{"b": "<&>", "a": []int{1, 2}})
	require.NoError(t, err)
	const want = `{"offerId":"123","buyQuantity":1,"env":0,"currencyType":"CNY","productId":"p","goodsPrice":1,"outTradeNo":"order-01","attach":"","a":[1,2],"b":"<&>"}`
	require.Equal(t, want, got.SignData)
	require.Equal(t, PaySig("requestVirtualPayment", want, "12345"), got.PaySig)
	require.Equal(t, Signature(want, "k"), got.Signature)

	refused := []map[string]any{{"": 1}, {"a b": 1}, {`a":1,"b`: 1}, {"a": func() {}}, {"OUTTRADENO": 1}}
	data := reflect.TypeFor[signData]()
	require.Len(t, signDataMembers, data.NumField())
	for i := range data.NumField() {
		name, _, _ := strings.Cut(data.Field(i).Tag.Get("json"), ",")
		refused = append(refused, map[string]any{name: "of the caller"})
	}
	for _, extra := range refused {
		_, err := order(extra)
		var of *FieldError
		require.ErrorAs(t, err, &of, extra)
		require.Equal(t, "Extra", of.Field)
	}
}

// The app's JSON has no OutTradeNo of its own (newcomer, N16).
func TestAnOrderSurvivesItsJSON(t *testing.T) {
	t.Parallel()
	for _, program := range []bool{false, true} {
		made, err := newAccount(t, program).NewOrder(OrderRequest{SessionKey: "k", Env: Sandbox, ProductID: "p", Quantity: 1, Price: midas.Fen})
		require.NoError(t, err)
		text, err := json.Marshal(made)
		require.NoError(t, err)
		var back Order
		require.NoError(t, json.Unmarshal(text, &back))
		require.Equal(t, *made, back)
		require.NotContains(t, string(text), "OutTradeNo")
	}
	require.Error(t, json.Unmarshal([]byte(`{"signData":7}`), new(Order)))
	require.Error(t, json.Unmarshal([]byte(`{"signData":"x"}`), new(Order)))
}

// WeChat knows no Q-points (N16).
func TestMoneyPrintsInYuan(t *testing.T) {
	t.Parallel()
	for want, value := range map[string]any{
		`minigame.OrderRequest{SessionKey:"[redacted]" Env:0 ProductID:p Quantity:1 Price:6.00 yuan SellingPrice:3.00 yuan OutTradeNo: Attach: ZoneID: Coins:false Extra:map[]}`: OrderRequest{
			SessionKey: "k", ProductID: "p", Quantity: 1, Price: 600, SellingPrice: 300},
		`OrigPrice:6.00 yuan ActualPrice:5.99 yuan`: &Delivery{OrigPrice: 600, ActualPrice: 599, Raw: Raw("withheld")},
		`ActualPrice:0.01 yuan`:                     CoinPayment{ActualPrice: 1},
		`Amount:12.00 yuan`:                         &RefundPush{Amount: 1200, Raw: Raw("withheld")},
		`LeftFee:0.30 yuan`:                         ProgramOrder{LeftFee: 30},
		`RefundFee:0.03 yuan`:                       &RefundRequest{RefundFee: 3},
		`ActualPrice:6.00 yuan Source`:              SubscriptionCharge{Delivery: Delivery{ActualPrice: 600}},
		`OriginalTransactionID:contract-1}`:         &SubscriptionCharge{OriginalTransactionID: "contract-1"},
	} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
			text := fmt.Sprintf(verb, value)
			require.Contains(t, text, want)
			require.NotContains(t, text, "Q-points")
			require.NotContains(t, text, "withheld")
		}
		require.NotContains(t, logged(value), "Q-points")
	}
}

// A call of the other product does not compile: the products share nothing but these.
func TestEachProductHasItsCallsOnly(t *testing.T) {
	t.Parallel()
	methods := func(of reflect.Type) map[string]bool {
		names := map[string]bool{}
		for i := range of.NumMethod() {
			names[of.Method(i).Name] = true
		}
		return names
	}
	game, program := methods(reflect.TypeFor[*Game]()), methods(reflect.TypeFor[*Program]())
	var both []string
	for name := range game {
		if program[name] {
			both = append(both, name)
		}
	}
	require.ElementsMatch(t, []string{"Code2Session", "CheckSessionKey", "NewOrder", "QueryOrder", "PushHandler", "ParsePush", "Serves", "Ready", "Wait"}, both)
	require.Len(t, game, len(both)+4)
	require.Len(t, program, len(both)+9)
}

// In every event a time is a time.Time, a count an int and money an Amount.
func TestEventsHaveOneTypeForEachThing(t *testing.T) {
	t.Parallel()
	for _, of := range []reflect.Type{
		reflect.TypeFor[Delivery](), reflect.TypeFor[SubscriptionCharge](), reflect.TypeFor[CoinPayment](), reflect.TypeFor[RefundPush](), reflect.TypeFor[Gift](),
		reflect.TypeFor[Complaint](), reflect.TypeFor[MerchantNotice](), reflect.TypeFor[RefundInquiry](),
	} {
		raw := false
		for _, field := range reflect.VisibleFields(of) {
			raw = raw || field.Name == "Raw"
			switch {
			case strings.HasSuffix(field.Name, "Time"), strings.HasSuffix(field.Name, "By"), strings.HasSuffix(field.Name, "ed") && field.Name != "Failed":
				require.Equal(t, reflect.TypeFor[time.Time](), field.Type, "%s.%s", of, field.Name)
			case strings.HasSuffix(field.Name, "Price"), field.Name == "Amount":
				require.Equal(t, reflect.TypeFor[midas.Amount](), field.Type, "%s.%s", of, field.Name)
			case field.Name == "Quantity", field.Name == "RetryTimes":
				require.Equal(t, reflect.TypeFor[int](), field.Type, "%s.%s", of, field.Name)
			}
		}
		require.True(t, raw, "%s has no Raw", of)
	}
}
