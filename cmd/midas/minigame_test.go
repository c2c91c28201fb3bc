package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

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
	data, err := os.ReadFile("testdata/minigame.json")
	require.NoError(t, err)
	var cases []miniCase
	require.NoError(t, json.Unmarshal(data, &cases))
	require.NotEmpty(t, cases)
	var tally tally
	t.Cleanup(func() { t.Log(&tally) })
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			args := []string{"explain", "-json", "-body", c.Body}
			for flag, keys := range map[string][]string{"-key": c.AppKeys, "-session-key": c.SessionKeys, "-token": c.Tokens} {
				for _, key := range keys {
					args = append(args, flag, key)
				}
			}
			code, stdout, stderr := runWith(t, "", nil, append(args, c.Text)...)
			require.Empty(t, stderr)
			var got miniExplanation
			require.NoError(t, json.Unmarshal([]byte(stdout), &got))
			for _, s := range got.Signatures {
				require.Empty(t, s.Unchecked)
				if s.Name != c.Signature {
					require.True(t, s.Verified, s.Name)
					continue
				}
				tally.judge(t, &explanation{Verified: s.Verified, Mistakes: s.Mistakes, Alternatives: s.Alternatives}, c.Want)
				require.Equal(t, c.Want != nil && len(c.Want) == 0, s.Verified)
				require.Equal(t, s.Verified, code == exitOK)
				require.ElementsMatch(t, c.Want, namesOf(s.Mistakes), "alternatives: %v", s.Alternatives)
			}
			for _, key := range append(c.AppKeys, c.SessionKeys...) {
				require.NotContains(t, stdout, key)
			}
			require.NotContains(t, stdout, "access_token")
		})
	}
}

// A vector is a known answer of the protocol's page: testdata/README.md of package minigame.
func TestRightSignaturesOfMiniGamesVerify(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("../../minigame/testdata/minigame.json")
	require.NoError(t, err)
	var file struct {
		Vectors []struct {
			Kind, Name, Key string
			Inputs          json.RawMessage
			Expected        json.RawMessage
			Signature       string
		}
	}
	require.NoError(t, json.Unmarshal(data, &file))
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
		keys := miniKeys{}
		switch v.Kind {
		case "minigame_client_pay_sig", "miniprogram_client_pay_sig":
			// The one is refused for its key, the other is a mini game's order with the method of mini programs.
			if in.SignData == "" || in.SessionKey == "" || v.Key == "" || v.Name == "the mini-game signData under the mini-program method" {
				continue
			}
			order, err := json.Marshal(map[string]string{"signData": in.SignData, "paySig": want, "signature": v.Signature})
			require.NoError(t, err)
			text, keys.appKeys, keys.sessionKeys = string(order), []string{v.Key}, []string{in.SessionKey}
		case "server_pay_sig":
			if in.PostBody == "" {
				continue
			}
			text, body, keys.appKeys = "https://api.weixin.qq.com"+in.URI+"?access_token=x&pay_sig="+want, in.PostBody, []string{v.Key}
		case "pay_event_sig":
			if in.Payload == "" {
				continue
			}
			push, err := json.Marshal(map[string]any{"Event": in.Event, "MiniGame": map[string]string{"Payload": in.Payload, "PayEventSig": want}})
			require.NoError(t, err)
			text, keys.appKeys = string(push), []string{v.Key}
		case "push_signature":
			text, keys.tokens = "/push?signature="+want+"&timestamp="+in.Timestamp+"&nonce="+in.Nonce, []string{in.Token}
		default:
			continue
		}
		m, err := parseMiniMessage(text, body)
		require.NoError(t, err, v.Name)
		require.NotNil(t, m, v.Name)
		e := explainMini("en", m, keys)
		assert.True(t, e.Verified, "%s %s: %+v", v.Kind, v.Name, e)
		assert.NotEmpty(t, e.Signatures)
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
	_, stdout, _ := runWith(t, "", nil, "explain", order)
	require.Contains(t, stdout, "NOT CHECKED: give the AppKey with -key.")
	require.Contains(t, stdout, "NOT CHECKED: give the session_key with -session-key.")
	_, stdout, _ = runWith(t, order, map[string]string{"LANG": "zh_CN.UTF-8"}, "explain", "-key", "k", "-session-key", "s", "-")
	require.Contains(t, stdout, "小游戏/小程序的下单参数")
	require.Contains(t, stdout, "已知的错误及其两两组合都算不出它")
	_, stdout, _ = runWith(t, "", nil, "explain", "-key", "k", strings.Replace(order, `"{\"mode\":\"goods\",\"offerId\":\"123\"}"`, `{"mode":"goods"}`, 1))
	require.Contains(t, stdout, "REFUSED: signData is an object")

	body := t.TempDir() + "/body"
	require.NoError(t, os.WriteFile(body, []byte(`<xml><Event><![CDATA[e]]></Event><MiniGame><Payload><![CDATA[{"Env":0}]]></Payload><PayEventSig>00</PayEventSig></MiniGame></xml>`), 0o600))
	_, stdout, _ = runWith(t, "", nil, "explain", "-key", "k", "-token", "t", "-body", "@"+body, "/push?signature=00&timestamp=1&nonce=2")
	require.Contains(t, stdout, `e&{"Env":0}`)
	_, stdout, _ = runWith(t, "", nil, "explain", "-token", "t", "-body", `{"Encrypt":"x"}`, "/push?signature=00&msg_signature=1&timestamp=1&nonce=2")
	require.Contains(t, stdout, "Note: the body is encrypted")
	code, _, stderr := runWith(t, "", nil, "explain", "-key", "k", strings.Repeat("{", maxMiniMessage+1))
	require.Equal(t, exitFailed, code)
	require.Contains(t, stderr, "over 64 KiB")
}

// A delivery URL may have a path that begins like those of WeChat.
func TestADeliveryCallbackIsNoCallOfAMiniGameWhateverItsPath(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"/xpay/notify", "/wxa/notify", "/pay/notify"} {
		params := map[string]string{"openid": "o_TESTopenid", "appid": rawAppID, "billno": "-B1", "amt": "10", "payitem": "sword*1*1", "token": "T", "ts": "1518081937", "version": "v3", "zoneid": "1"}
		query := "sig=" + percent(rawSign(rawAppKey, path, params, func(v string) string { return percent(v, "!*()") }), "")
		for name, value := range params {
			query += "&" + name + "=" + percent(value, "")
		}
		for _, further := range []string{"", "&signature=x", "&pay_sig=x", "&access_token=x"} { // which no one signed
			code, stdout, stderr := runWith(t, "", nil, "explain", "-json", "-key", rawAppKey, "https://game.example.com"+path+"?"+query+further)
			require.Empty(t, stderr)
			require.Contains(t, stdout, `"kind": "callback"`, path+further)
			require.Equal(t, further == "", code == exitOK, stdout)
		}
	}
	for text, kind := range map[string]string{
		"https://api.weixin.qq.com/xpay/query_order?access_token=x&pay_sig=00":              "call",
		"https://api.weixin.qq.com/wxa/game/getbalance?access_token=x&signature=00":         "call",
		"https://api.weixin.qq.com/wxa/game/queryorderinfo?access_token=x":                  "call", // its pay_sig is missing
		"https://gateway.example.com/queryorderinfo?openid=o&pay_sig=00":                    "call", // through a proxy
		"https://game.example.com/xpay/push?signature=00&timestamp=1&nonce=2&openid=o_TEST": "push", // to such a path
		"https://game.example.com/xpay/order?openid=o&openkey=k&sig=x":                      "",     // of no mini game
		"https://game.example.com/pay/notify?access_token=x&openid=o":                       "",
	} {
		m, err := parseMiniMessage(text, "")
		require.NoError(t, err)
		if kind == "" {
			require.Nil(t, m, text)
			continue
		}
		require.NotNil(t, m, text)
		require.Equal(t, kind, m.kind, text)
	}
}

func TestEachMistakeOfAMiniGameIsDocumented(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("testdata/minigame.json")
	require.NoError(t, err)
	var cases []miniCase
	require.NoError(t, json.Unmarshal(data, &cases))
	for _, page := range []string{"../../docs/sandbox.md", "../../docs/sandbox.zh-CN.md"} {
		text, err := os.ReadFile(page)
		require.NoError(t, err)
		for _, c := range cases {
			for _, name := range c.Want {
				if !strings.Contains(string(text), "`"+name+"`") {
					t.Errorf("%s does not name %s", page, name)
				}
			}
		}
	}
}

// A long text is signed a thousand times at most.
func TestNoMiniGameInputMakesTheSearchLong(t *testing.T) {
	t.Parallel()
	keys := miniKeys{[]string{"AAAA", "b"}, []string{"CCCC", "d"}, []string{"e", "f"}}
	n := 0
	prefixes := append([]choice{{text: "/xpay/query_order&"}}, whatChoices("en", "/xpay/query_order", nil)...)
	found := pairsOf([][]choice{appKeyChoices("en", keys), prefixes, signedChoices("en", `{"a": "<中/>"}`), make([]choice, 5)}, func([]choice) ([]mistake, bool) {
		n++
		return nil, false
	})
	require.Empty(t, found)
	require.Less(t, n, 1500)
}

// Each level's text is copied into that of the level around it, so the depth is what costs.
func TestDeeplyNestedJSONIsNotWrittenAnew(t *testing.T) {
	t.Parallel()
	nested := func(depth int) string { return strings.Repeat("[", depth) + strings.Repeat("]", depth) }
	written, err := jsonStyle{}.rewrite(nested(maxMiniDepth))
	require.NoError(t, err)
	require.Equal(t, nested(maxMiniDepth), written)
	for _, text := range []string{nested(maxMiniDepth + 1), nested(30_000), strings.Repeat("[", 60_000), strings.Repeat(`{"a":`, 12_000)} {
		_, err := jsonStyle{sorted: true}.rewrite(text)
		require.ErrorIs(t, err, errTooDeep)
		require.Len(t, signedChoices("en", text), 4) // the text, two line ends, and none
	}
}

func FuzzExplainMini(f *testing.F) {
	f.Add(`{"signData":"{\"mode\":\"goods\"}","paySig":"x","signature":"y"}`, "")
	f.Add("/wxa/game/pay?pay_sig=1&signature=2", `{"a":[1,{"b":null}],"\u00e9":true}`)
	f.Add("/push?signature=1&timestamp=2&nonce=3&msg_signature=4", `<xml><Encrypt>x</Encrypt></xml>`)
	f.Fuzz(func(t *testing.T, text, body string) {
		m, err := parseMiniMessage(text, body)
		if err != nil || m == nil {
			return
		}
		explainMini("en", m, miniKeys{[]string{"k"}, []string{"AAAA"}, []string{"t"}})
	})
}
