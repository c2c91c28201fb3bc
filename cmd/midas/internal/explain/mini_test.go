package explain

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A miniCase is a message of testdata/minigame.json, signed by Python.
type miniCase struct {
	Name, Text, Body, Signature  string
	Want                         []string // empty: verified; nil: nothing fits
	AppKeys, SessionKeys, Tokens []string
}

func (c *miniCase) UnmarshalJSON(data []byte) error {
	type plain miniCase
	var keys struct {
		AppKeys     []string `json:"app_keys"`
		SessionKeys []string `json:"session_keys"`
	}
	if err := json.Unmarshal(data, &keys); err != nil {
		return err
	}
	err := json.Unmarshal(data, (*plain)(c))
	c.AppKeys, c.SessionKeys = keys.AppKeys, keys.SessionKeys
	return err
}

func TestExplainNamesEachMistakeOfAMiniGame(t *testing.T) {
	t.Parallel()
	var cases []miniCase
	readJSON(t, "testdata/minigame.json", &cases)
	require.NotEmpty(t, cases)
	var tally tally
	t.Cleanup(func() { t.Log(&tally) })
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			e := explained(t, c.Text, c.Body, Options{Keys: c.AppKeys, SessionKeys: c.SessionKeys, Tokens: c.Tokens})
			sealed, judged := false, 0 // these have no EncodingAESKey
			for _, s := range e.Signatures {
				if s.Unchecked.Key == "unchecked.encrypted" {
					sealed = true
					continue
				}
				require.Empty(t, s.Unchecked)
				if s.Name != c.Signature {
					require.True(t, s.Verified, s.Name)
					continue
				}
				tally.judge(t, &s, c.Want)
				judged++
				require.Equal(t, c.Want != nil && len(c.Want) == 0, s.Verified)
				require.ElementsMatch(t, c.Want, s.names(), "findings: %v", s.Findings)
			}
			require.Equal(t, 1, judged, c.Signature)
			right := !slices.ContainsFunc(e.Signatures, func(s Signature) bool { return !s.Verified && s.Unchecked.IsZero() })
			require.Equal(t, right && !sealed, e.Verified)
			text, err := json.Marshal(e)
			require.NoError(t, err)
			for _, key := range append(c.AppKeys, c.SessionKeys...) {
				require.NotContains(t, string(text), key)
			}
			require.NotContains(t, string(text), "access_token")
		})
	}
}

// A vector is a known answer of the protocol's page: testdata/README.md of package minigame.
func TestRightSignaturesOfMiniGamesVerify(t *testing.T) {
	t.Parallel()
	var file struct {
		Vectors []struct {
			Kind, Name, Key string
			Inputs          json.RawMessage
			Expected        json.RawMessage
			Signature       string
		}
	}
	readJSON(t, "../../../../minigame/testdata/minigame.json", &file)
	checked := map[string]int{}
	for _, v := range file.Vectors {
		var in struct {
			SignData   string `json:"sign_data"`
			SessionKey string `json:"session_key"`
			URI        string
			PostBody   string `json:"post_body"`
			Body       string
			Event      string
			Payload    string
			Token      string
			Timestamp  string
			Nonce      string
			Encrypt    string
		}
		var want string
		if json.Unmarshal(v.Expected, &want) != nil || json.Unmarshal(v.Inputs, &in) != nil {
			continue
		}
		var text, body string
		var o Options
		switch v.Kind {
		case "minigame_client_pay_sig", "miniprogram_client_pay_sig":
			// The one is refused for its key, the other is a mini game's order with the method of mini programs.
			if in.SignData == "" || in.SessionKey == "" || v.Key == "" || v.Name == "the mini-game signData under the mini-program method" {
				continue
			}
			order, err := json.Marshal(map[string]string{"signData": in.SignData, "paySig": want, "signature": v.Signature})
			require.NoError(t, err)
			text, o.Keys, o.SessionKeys = string(order), []string{v.Key}, []string{in.SessionKey}
		case "server_pay_sig":
			if in.PostBody == "" {
				continue
			}
			text, body, o.Keys = "https://api.weixin.qq.com"+in.URI+"?access_token=x&pay_sig="+want, in.PostBody, []string{v.Key}
		case "pay_event_sig":
			if in.Payload == "" {
				continue
			}
			push, err := json.Marshal(map[string]any{"Event": in.Event, "MiniGame": map[string]string{"Payload": in.Payload, "PayEventSig": want}})
			require.NoError(t, err)
			text, o.Keys = string(push), []string{v.Key}
		case "push_signature":
			text, o.Tokens = "/push?signature="+want+"&timestamp="+in.Timestamp+"&nonce="+in.Nonce, []string{in.Token}
		default:
			continue
		}
		e := explained(t, text, body, o)
		assert.True(t, e.Signatures[0].Verified, "%s %s: %+v", v.Kind, v.Name, e)
		checked[v.Kind]++
	}
	require.Len(t, checked, 5)
	for kind, n := range checked {
		require.Greater(t, n, 10, kind)
	}
}

func TestExplainOfAMiniGameInPlainWords(t *testing.T) {
	t.Parallel()
	order := `{"signData":"{\"mode\":\"goods\",\"offerId\":\"123\"}","paySig":"00","signature":"00"}`
	text := printed(explained(t, order, "", Options{}), "en")
	require.Contains(t, text, "NOT CHECKED: give the AppKey with -key.")
	require.Contains(t, text, "NOT CHECKED: give the session_key with -session-key.")
	text = printed(explained(t, order, "", Options{Keys: []string{"k"}, SessionKeys: []string{"s"}}), "zh")
	require.Contains(t, text, "小游戏/小程序的下单参数")
	require.Regexp(t, `\d+ 种已知错误及其两两组合都对不上`, text)
	object := strings.Replace(order, `"{\"mode\":\"goods\",\"offerId\":\"123\"}"`, `{"mode":"goods"}`, 1)
	require.Contains(t, printed(explained(t, object, "", Options{Keys: []string{"k"}}), "en"), "REFUSED: signData is an object")
	both := strings.Replace(order, "{", `{"signData_str":{"mode":"goods"},"sign_data":{"mode":"goods"},`, 1)
	for range 20 { // of two spellings the text is what was signed, whatever their order
		require.NotContains(t, printed(explained(t, both, "", Options{Keys: []string{"k"}}), "en"), "is an object")
	}

	push := `<xml><Event><![CDATA[e]]></Event><MiniGame><Payload><![CDATA[{"Env":0}]]></Payload><PayEventSig>00</PayEventSig></MiniGame></xml>`
	keys := Options{Keys: []string{"k"}, Tokens: []string{"t"}}
	require.Contains(t, printed(explained(t, "/push?signature=00&timestamp=1&nonce=2", push, keys), "en"), `e&{"Env":0}`)
	text = printed(explained(t, "/push?signature=00&msg_signature=1&timestamp=1&nonce=2", `{"Encrypt":"x"}`, keys), "en")
	require.Contains(t, text, "NOT CHECKED: the body is encrypted")
	_, err := Parse(strings.Repeat("{", MaxInput+1), "")
	require.EqualError(t, err, "the input is over 64 KiB")
}

// A delivery URL may have a path that begins like those of WeChat.
func TestADeliveryCallbackIsNoCallOfAMiniGameWhateverItsPath(t *testing.T) {
	t.Parallel()
	for text, kind := range map[string]string{
		"https://game.example.com/xpay/notify?openid=o&billno=-B1&sig=x&signature=x":        Callback,
		"https://game.example.com/wxa/notify?openid=o&billno=-B1&sig=x&access_token=x":      Callback,
		"https://api.weixin.qq.com/xpay/query_order?access_token=x&pay_sig=00":              Call,
		"https://api.weixin.qq.com/wxa/game/getbalance?access_token=x&signature=00":         Call,
		"https://api.weixin.qq.com/wxa/game/queryorderinfo?access_token=x":                  Call, // its pay_sig is missing
		"https://gateway.example.com/queryorderinfo?openid=o&pay_sig=00":                    Call, // through a proxy
		"https://game.example.com/xpay/push?signature=00&timestamp=1&nonce=2&openid=o_TEST": Push, // to such a path
		"https://game.example.com/xpay/order?openid=o&openkey=k&sig=x":                      Request,
		"https://game.example.com/pay/notify?access_token=x&openid=o":                       Callback,
	} {
		m, err := Parse(text, "")
		require.NoError(t, err)
		require.Equal(t, kind, m.Kind, text)
	}
}

// A long text is signed a few thousand times at most.
func TestNoMiniGameInputMakesTheSearchLong(t *testing.T) {
	t.Parallel()
	skipUnderRaceDetector(t)
	for name, text := range map[string]string{
		"an order": `{"a": "<中/>"}`, "a long text": strings.Repeat("a", 60_000), "long JSON": `{"a":"` + strings.Repeat("<", 50_000) + `"}`,
		"a long form": strings.Repeat("a=1&", 15_000), "many members": "{" + strings.Repeat(`"a":1,`, 9_000) + `"b":2}`,
	} {
		keys := keysInstead([]string{"AAAA", "b"}, "session-key-used", []string{"CCCC", "d"}, "token-used", []string{"e", "f"})
		s := miniSearch(keys, prefixSlips("/xpay/query_order", "access_token=x"), textSlips(text))
		require.Empty(t, s.find(miniRecipe("AAAA", "/xpay/query_order&", text, "00")))
		require.Less(t, s.signings, 10_000, name)
		require.LessOrEqual(t, s.work, maxWork+12*len(text), name) // percent-encoded it is three times as long
	}
}

// Each level's text is copied into that of the level around it, so the depth is what costs.
func TestDeeplyNestedJSONIsNotWrittenAnew(t *testing.T) {
	t.Parallel()
	nested := func(depth int) string { return strings.Repeat("[", depth) + strings.Repeat("]", depth) }
	written, ok := jsonStyle{}.rewrite(nested(maxObjects))
	require.True(t, ok)
	require.Equal(t, nested(maxObjects), written)
	for _, text := range []string{nested(maxObjects + 1), nested(30_000), strings.Repeat("[", 60_000), strings.Repeat(`{"a":`, 12_000), "{", `{"a":1}{}`} {
		_, ok := jsonStyle{sorted: true}.rewrite(text)
		require.False(t, ok)
	}
}

func FuzzExplainMini(f *testing.F) {
	f.Add(`{"signData":"{\"mode\":\"goods\"}","paySig":"x","signature":"y"}`, "")
	f.Add("/wxa/game/pay?pay_sig=1&signature=2", `{"a":[1,{"b":null}],"\u00e9":true}`)
	f.Add("/push?signature=1&timestamp=2&nonce=3&msg_signature=4", `<xml><Encrypt>x</Encrypt></xml>`)
	f.Add(`{"data":{"sig":"x","openid":"1","openkey":"SECRET"}}`, "a=1&b=2")
	const secret = "0123456789-the-key-abcdefghijklmnopqrstuvwx"
	f.Fuzz(func(t *testing.T, text, body string) {
		m, err := Parse(text, body)
		if err != nil || strings.Contains(text+body, secret) {
			return
		}
		e, err := m.Explain(Options{Keys: []string{secret + "1"}, SessionKeys: []string{secret + "2"}, Tokens: []string{secret + "3"}, AESKeys: []string{secret}, Path: "/p"})
		if err != nil {
			return
		}
		out, err := json.Marshal(e)
		require.NoError(t, err)
		for _, language := range []string{"en", "zh"} {
			shown := printed(e, language)
			require.NotContains(t, shown+string(out), secret)
			for _, r := range shown {
				require.True(t, r == '\n' || r == ' ' || unicode.IsPrint(r), "%#x", r)
			}
		}
	})
}
