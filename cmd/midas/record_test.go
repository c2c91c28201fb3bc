package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRecordHoldsEveryExchangeButNoCredential(t *testing.T) {
	t.Parallel()
	for _, secrets := range []bool{false, true} {
		name := filepath.Join(t.TempDir(), "record.jsonl")
		require.NoError(t, os.WriteFile(name, nil, 0o666)) // one that was there before
		record, err := openRecord(name)
		require.NoError(t, err)
		base := serve(t, "", func(s *sandbox) {
			s.secrets = secrets
			s.seen = func(e exchange) {
				if err := writeRecord(record, e); err != nil {
					t.Error(err)
				}
			}
		})
		params := rawOrder()
		params["pay_token"] = "PAYTOKEN-SECRET"
		token, _ := place(t, base, params)
		post(t, base+"/api/orders/"+token+"/pay", "")
		call(t, "GET", rawOrderURL(base, params, "wrong"), "", rawCookies)
		call(t, "POST", base+"/api/next", `{"html":true}`, nil)
		call(t, "GET", rawOrderURL(base, params, "wrong"), "", rawCookies)
		require.NoError(t, record.Close())

		info, err := os.Stat(name)
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode())
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
		require.Len(t, lines, 4)
		for _, line := range lines {
			require.True(t, json.Valid(line))
		}
		for _, secret := range []string{"OPENKEY-SECRET", "PFKEY-SECRET", "PAYTOKEN-SECRET"} {
			require.Equal(t, secrets, bytes.Contains(text, []byte(secret)), secret)
		}
		require.NotContains(t, string(text), rawAppKey)

		// A recorded callback can be explained as it is.
		code, stdout, stderr := runWith(t, string(lines[1]), nil, "explain", "-key", rawAppKey, "-")
		require.Equal(t, exitOK, code, stdout+stderr)
	}
}

// Every line that the sandbox prints about an exchange, in both languages.
func TestEveryLineOnTheTerminalIsInBothLanguages(t *testing.T) {
	t.Parallel()
	ret := func(n int) *int { return &n }
	for english, c := range map[string]struct {
		e       exchange
		chinese string
	}{
		"order     http://b/v1/sx8/1/mobile_goods_info?token_id=T":                          {exchange{Kind: "order", Accepted: true, OK: true, Token: "T"}, "下单      http://b/v1/sx8/1/mobile_goods_info?token_id=T"},
		"order     refused because parameter ts: not unix seconds":                          {exchange{Kind: "order", Reason: "parameter ts: not unix seconds", Ret: ret(1001)}, "下单      被拒绝，原因：参数 ts：不是 Unix 秒"},
		"order     ret 1018, as asked for":                                                  {exchange{Kind: "order", Preset: true, Ret: ret(1018)}, "下单      按预设返回 ret 1018"},
		"order     status 502, as asked for":                                                {exchange{Kind: "order", Preset: true, Status: 502}, "下单      按预设返回 状态码 502"},
		"callback  pay: accepted":                                                           {exchange{Kind: "callback", Action: "pay", Accepted: true}, "回调      支付：已接受"},
		"callback  repeat: refused because the body is empty":                               {exchange{Kind: "callback", Action: "repeat", Reason: "the body is empty"}, "回调      重发：被拒绝，原因：应答为空"},
		"callback  expire: accepted":                                                        {exchange{Kind: "callback", Action: "expire", Accepted: true}, "回调      过期后支付：已接受"},
		"callback  forge: refused, as a forgery should be":                                  {exchange{Kind: "callback", Action: "forge", OK: true, Ret: ret(4)}, "回调      伪造：已拒绝伪造的回调（正确）"},
		"callback  forge: A FORGERY WAS ACCEPTED: the backend does not check the signature": {exchange{Kind: "callback", Action: "forge", Ret: ret(0)}, "回调      伪造：伪造的回调被接受了：后端没有校验签名"},
		"cashier   The player left the cashier.":                                            {exchange{Kind: "cancel"}, "收银台    玩家离开了收银台。"},
	} {
		require.Equal(t, english, c.e.summary("en", "http://b", "1"))
		require.Equal(t, c.chinese, c.e.summary("zh", "http://b", "1"))
	}
}
