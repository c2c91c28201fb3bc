package explain

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/midas-go/midas/cmd/midas/internal/lang"
	"github.com/stretchr/testify/require"
)

// A fieldCase is a message that somebody posted, with made-up keys: testdata/field.json. What is
// right of it was computed with Python's hmac and hashlib, not with this code.
type fieldCase struct {
	ID    string
	Input struct {
		Tool, Text, Body, Path string
		Keys                   []string
		SessionKeys            []string `json:"session_keys"`
		Tokens                 []string
	}
	Expected map[string]any
}

func (c fieldCase) options() Options {
	return Options{Keys: c.Input.Keys, SessionKeys: c.Input.SessionKeys, Tokens: c.Input.Tokens, Path: c.Input.Path}
}

// fieldCases returns those that are explain's.
func fieldCases(t *testing.T) (cases []fieldCase) {
	var file struct{ Cases []fieldCase }
	readJSON(t, "testdata/field.json", &file)
	for _, c := range file.Cases {
		if c.Input.Tool == "midas explain" {
			cases = append(cases, c)
		}
	}
	require.Len(t, cases, 20)
	return cases
}

// The mistakes in the words of the cases, by the names they have here; and what else is said.
var (
	fieldMistakes = map[string]string{
		"the body is a form; the JSON of the same fields was signed: send that JSON": "form-sent",
		"leading slash before the client's method":                                   "method-with-slash",
		"signData is a JSON string of the JSON that was signed":                      "json-string-sent",
		"the HMAC is cut at its first zero byte":                                     "hmac-cut-at-zero",
	}
	fieldSays = map[string]string{
		"32 hex digits are an MD5; 64 of HMAC-SHA256 are wanted":                  "32 hex digits is the length of an MD5",
		"sig_method=hmac_sha256 is missing":                                       "sig_method=hmac_sha256 is missing",
		"virtual payment 1.0 (/cgi-bin/midas): not supported; docs/minigame.md 0": "virtual payment 1.0 (/cgi-bin/midas), which is not supported",
	}
	fieldNever = map[string][]string{
		"other-prefix, or advice to sign requestMidasPaymentGameItem": {"other-prefix", "requestMidasPaymentGameItem"},
		"callback; Midas calls back with GET":                         {"callback", "calls back with GET"},
		"another key, or a forgery":                                   {"another key", "forgery"},
		"callback; parameter sig: missing":                            {"callback", "parameter sig"},
		"no URL with a query and a sig in this line":                  {"no URL with a query"},
	}
)

func TestWhatPeoplePostIsExplainedRight(t *testing.T) {
	t.Parallel()
	for _, c := range fieldCases(t) {
		t.Run(c.ID, func(t *testing.T) {
			t.Parallel()
			if c.ID == "midas-1.0-call" { // named, and not explained
				_, err := Parse(c.Input.Text, c.Input.Body)
				require.ErrorContains(t, err, fieldSays[c.Expected["says"].(string)])
				require.NotContains(t, err.Error(), "callback")
				return
			}
			e := explained(t, c.Input.Text, c.Input.Body, c.options())
			text := printed(e, "en")
			same := "" // the mistake of the signature before
			for _, name := range []string{"sig", "paySig", "pay_sig", "PayEventSig", "msg_signature", "signature"} {
				want, _ := c.Expected[name].(map[string]any)
				if want == nil {
					continue
				}
				s := signatureOf(t, e, name)
				for fact, value := range want {
					switch fact {
					case "verified":
						require.Equal(t, value, s.Verified, name)
					case "missing":
						require.Equal(t, value, s.Missing, name)
					case "unchecked":
						require.Equal(t, value, !s.Unchecked.IsZero(), name)
						require.Empty(t, s.Correct, name)
					case "correct", "correct_for_sent":
						require.Equal(t, value, s.Correct, name)
					case "correct_inner": // what was signed is inside what was sent
						require.Equal(t, value, s.Received, name)
					case "mistake":
						if says := fieldSays[value.(string)]; says != "" {
							require.Contains(t, text, says)
							continue
						}
						mistake := fieldMistakes[value.(string)]
						if value == "same" {
							mistake = same
						}
						require.NotEmpty(t, mistake, value)
						require.Equal(t, []string{mistake}, s.names(), name)
						require.Len(t, s.Findings, 1, name)
						same = mistake
					default:
						t.Fatalf("%s: %s is not compared", name, fact)
					}
				}
			}
			for fact, value := range c.Expected {
				switch fact {
				case "exit":
					require.Equal(t, value == 0.0, e.Verified)
				case "kind":
					require.Equal(t, value, e.Kind)
				case "note", "says":
					require.NotEmpty(t, fieldSays[value.(string)])
					require.Contains(t, text, fieldSays[value.(string)])
				case "never":
					if never, ok := value.(string); ok {
						require.NotEmpty(t, fieldNever[never])
						for _, words := range fieldNever[never] {
							require.NotContains(t, text, words)
						}
						continue
					}
					require.Equal(t, map[string]any{"msg_signature.correct": "2eaa65ef0896ea6b9815aa2519d6ec018ea4f673"}, value)
					require.Empty(t, signatureOf(t, e, "msg_signature").Correct)
				case "or_says", "or_mistake": // would do instead of verifying the message, which is compared above
				default:
					require.Contains(t, []string{"sig", "paySig", "pay_sig", "PayEventSig", "msg_signature", "signature"}, fact, "is not compared")
				}
			}
		})
	}
}

func signatureOf(t *testing.T, e *Explanation, name string) Signature {
	t.Helper()
	for _, s := range e.Signatures {
		if s.Name == name {
			return s
		}
	}
	t.Fatalf("%s is not looked at", name)
	return Signature{}
}

// A kindCase is a message of testdata/kinds.json, made by Python: what stands behind the cases of
// the field.
type kindCase struct {
	Name, Text, Body, Signature, Path string
	Want                              any    // of Signature: names of mistakes, or what else is said
	OK                                *bool  // of the whole message, where that is looked at
	Refused, Says, Never              string // in what is printed
	Keys, Tokens                      []string
	SessionKeys                       []string `json:"session_keys"`
	AESKeys                           []string `json:"aes_keys"`
	AppID                             string   `json:"app_id"`
}

func TestEachKindBehindTheFieldIsExplainedRight(t *testing.T) {
	t.Parallel()
	var cases []kindCase
	readJSON(t, "testdata/kinds.json", &cases)
	require.NotEmpty(t, cases)
	var tally tally
	t.Cleanup(func() { t.Log(&tally) })
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			e := explained(t, c.Text, c.Body, Options{Keys: c.Keys, SessionKeys: c.SessionKeys, Tokens: c.Tokens, AESKeys: c.AESKeys, AppID: c.AppID, Path: c.Path})
			s := signatureOf(t, e, c.Signature)
			text := printed(e, "en")
			if c.Refused == "" {
				require.Empty(t, e.Problems)
			} else {
				require.Contains(t, text, "REFUSED: "+c.Refused)
				require.False(t, e.Verified)
			}
			if c.OK != nil {
				require.Equal(t, *c.OK, e.Verified, text)
			}
			require.Contains(t, text, c.Says)
			require.Equal(t, e.Verified, !regexp.MustCompile(`NOT VERIFIED|MISSING|NOT CHECKED|REFUSED`).MatchString(text), text)
			if c.Never != "" {
				require.NotContains(t, text, c.Never)
			}
			switch want := c.Want.(type) {
			case string:
				require.Equal(t, want == "missing", s.Missing)
				require.Equal(t, want == "unchecked", !s.Unchecked.IsZero())
				require.Equal(t, want == "unchecked", s.Correct == "")
				require.Empty(t, s.Findings)
				require.False(t, e.Verified)
			case []any:
				var names []string
				for _, name := range want {
					names = append(names, name.(string))
				}
				tally.judge(t, &s, names)
				require.Equal(t, len(names) == 0, s.Verified, s)
				require.ElementsMatch(t, names, s.names(), "findings: %v", s.Findings)
			}
		})
	}
}

// The frames of the protocol's page, which were encrypted elsewhere.
func TestEveryEncryptedPushOfTheVectorsIsOpened(t *testing.T) {
	t.Parallel()
	var file struct {
		Vectors []struct {
			Kind, Name, Key string
			Inputs          struct{ AppID, Encrypt string }
			Expected        json.RawMessage
		}
	}
	readJSON(t, "../../../../minigame/testdata/minigame.json", &file)
	opened := map[string]int{}
	for _, v := range file.Vectors {
		if v.Kind != "push_decrypt" && v.Kind != "push_decrypt_refused" || strings.HasPrefix(v.Name, "good ciphertext") { // what is refused there is msg_signature
			continue
		}
		e := &Explanation{}
		s, inner := e.openWith(&Message{encrypt: v.Inputs.Encrypt}, v.Key, v.Inputs.AppID)
		require.Equal(t, v.Kind == "push_decrypt", inner != nil, v.Name)
		require.Equal(t, inner != nil, s.Verified, v.Name)
		require.Equal(t, inner == nil, len(s.Findings) == 1, v.Name)
		if inner != nil {
			var want struct{ Msg *string }
			require.NoError(t, json.Unmarshal(v.Expected, &want), v.Name)
			require.NotNil(t, want.Msg, v.Name)
			require.Equal(t, *want.Msg, s.Signed, v.Name)
		}
		opened[v.Kind]++
	}
	require.Equal(t, map[string]int{"push_decrypt": 28, "push_decrypt_refused": 10}, opened)
}

// The signatures cover an order and a call, whatever stands in them.
func TestWhatIsOddInAnOrderOrACallIsNoted(t *testing.T) {
	t.Parallel()
	order := func(data string) string {
		text, err := json.Marshal(map[string]string{"signData": data, "paySig": "00", "signature": "00"})
		require.NoError(t, err)
		return string(text)
	}
	const right = `{"mode":"goods","offerId":"1450500001","buyQuantity":1,"env":1,"currencyType":"CNY","productId":"gem60","goodsPrice":600,"outTradeNo":"K1"}`
	call := "https://api.weixin.qq.com/xpay/query_order?access_token=T&pay_sig=00"
	for name, c := range map[string]struct {
		text, body string
		en, zh     string
	}{
		"a right order, of the sandbox":                                     {order(right), "", "Note: env is 1, the sandbox: the key given must be the sandbox AppKey.", "注意：env 是 1（沙箱）：给出的密钥必须是沙箱的 AppKey。"},
		"an order of a program without attach, on which the pages disagree": {strings.Replace(order(strings.Replace(right, `"mode":"goods",`, "", 1)), "{", `{"mode":"short_series_goods",`, 1), "", "Note: attach is missing.", "注意：缺少 attach。"},
		"an offerId that is a number":                                       {order(strings.Replace(right, `"1450500001"`, "1450500001", 1)), "", `"offerId" must be a string`, "offerId 必须是字符串"},
		"a price in yuan":                                                   {order(strings.Replace(right, "600", "19.9", 1)), "", `"goodsPrice" must be a whole number, and is 19.9: money is in fen`, "goodsPrice 必须是整数，这里是 19.9"},
		"env as a string":                                                   {order(strings.Replace(right, `"env":1`, `"env":"0"`, 1)), "", `"env" must be a number`, "env 必须是数字"},
		"an env that there is not":                                          {order(strings.Replace(right, `"env":1`, `"env":2`, 1)), "", "env must be 0 (live) or 1 (sandbox), and is 2", "env 只能是 0（现网）或 1（沙箱），这里是 2"},
		"attach that is an object":                                          {order(strings.Replace(right, `"env"`, `"attach":{"a":1},"env"`, 1)), "", `"attach" must be a string`, "attach 必须是字符串"},
		"an outTradeNo with _":                                              {order(strings.Replace(right, "K1", "_a", 1)), "", `outTradeNo "_a": must be at most 32`, "不能以 _ 开头：_a 不符合"},
		"dollars":                                                           {order(strings.Replace(right, "CNY", "USD", 1)), "", "currencyType must be CNY", "currencyType 只能是 CNY"},
		"a price that is missing":                                           {order(strings.Replace(right, `"goodsPrice":600,`, "", 1)), "", "REFUSED: goodsPrice is missing", "拒绝：缺少 goodsPrice"},
		"a member that there is not":                                        {order(strings.Replace(right, "productId", "product_id", 1)), "", `"product_id" is not a member of signData`, "signData 没有 product_id 这个字段"},
		"order_id has another name here":                                    {call, `{"openid":"o","env":0,"out_trade_no":"K1"}`, `"out_trade_no" is not a parameter of this call`, "这个接口没有参数 out_trade_no"},
		"the name it has":                                                   {call, `{"openid":"o","env":0,"out_trade_no":"K1"}`, "order_id / wx_order_id is missing", "缺少 order_id / wx_order_id"},
		"a line of curl":                                                    {`curl -X POST '` + call + `' -H 'Content-Type: application/json' -d '{"openid":"o","env":2,"order_id":"K1"}'`, "", "env must be 0 (live)", "env 只能是 0（现网）"},
		"another list":                                                      {order(right), "x", "the body given with -body is not used", "-body 给出的请求体没有用到"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := explained(t, c.text, c.body, Options{Keys: []string{"k"}, SessionKeys: []string{"s"}})
			require.Contains(t, printed(e, "en"), c.en)
			require.Contains(t, printed(e, "zh"), c.zh)
			if !strings.HasPrefix(name, "a right") {
				e.Notes = slices.DeleteFunc(e.Notes, func(n lang.Text) bool { return strings.HasPrefix(n.Key, "note.env-") })
				require.LessOrEqual(t, len(e.Notes), 2, e.Notes)
			}
		})
	}
}

// The orders and calls of the vectors, which were not made with this code, have the members and
// types of the tables.
func TestNothingIsOddInTheVectors(t *testing.T) {
	t.Parallel()
	var file struct {
		Vectors []struct {
			Kind, Name string
			Inputs     struct {
				URI      string
				PostBody string `json:"post_body"`
				SignData string `json:"sign_data"`
			}
		}
	}
	readJSON(t, "../../../../minigame/testdata/minigame.json", &file)
	looked := 0
	for _, v := range file.Vectors {
		e := &Explanation{Signatures: []Signature{{Verified: true}}}
		switch {
		case v.Name == "the mini-game signData under the mini-program method":
		case v.Kind == "minigame_client_pay_sig":
			e.noteFields(v.Inputs.SignData, orderFields(forGames), "order")
		case v.Kind == "miniprogram_client_pay_sig":
			e.noteFields(v.Inputs.SignData, orderFields(forPrograms), "order")
		case v.Kind != "server_pay_sig", calls[v.Inputs.URI].names == nil:
		case v.Inputs.URI == "/xpay/query_order": // many bodies there are made up
		case v.Name == "doc: wxa/game/getbalance": // the sample lacks user_ip, which the table requires
		default:
			e.noteFields(v.Inputs.PostBody, calls[v.Inputs.URI].body, "call")
			looked++
		}
		for _, note := range e.Notes {
			require.True(t, strings.HasPrefix(note.Key, "note.env-"), "%s: %s", v.Name, note)
		}
	}
	require.Equal(t, 8, looked)
}
