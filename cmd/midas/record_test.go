package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
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

func TestNoWritingOfACredentialIsShown(t *testing.T) {
	t.Parallel()
	for _, query := range []string{
		"openkey='SECRET-1", "open%6bey=SECRET-1", "%6fpenkey=SECRET-1", "OpenKey=SECRET-1", "openkey =SECRET-1", "+openkey=SECRET-1", "openkey%3DSECRET-1", "openkey%253DSECRET-1",
		"a=%26pfkey%3DSECRET-1", "a=1;pay_token=SECRET-1", `a=%7B%22openkey%22:%22SECRET-1%22%7D`, "openkey=<SECRET-1", `openkey=a"SECRET-1`, "openkey=SECRET-1&openkey=SECRET-1",
	} {
		for _, secrets := range []bool{false, true} {
			var record strings.Builder
			base := serve(t, "", func(s *sandbox) {
				s.secrets = secrets
				s.seen = func(e exchange) {
					if err := writeRecord(&record, e); err != nil {
						t.Error(err)
					}
				}
			})
			target := base + "/mpay/buy_goods_m?zoneid=1&" + strings.ReplaceAll(query, " ", "%20")
			call(t, "GET", target, "", nil)
			call(t, "POST", base+"/api/next", `{"html":true}`, nil) // a page that repeats the URL
			call(t, "GET", target, "", nil)
			_, dashboard := call(t, "GET", base+"/", "", nil)
			for _, text := range []string{record.String(), dashboard} {
				require.Equal(t, secrets, strings.Contains(text, "SECRET-1"), "%s: %s", query, text)
				require.Equal(t, !secrets, strings.Contains(text, "[masked]"), query)
				require.Contains(t, text, "zoneid=1&")
			}
		}
	}
	require.Equal(t, "openkey=&a=b&openkeys", maskQuery("openkey=&a=b&openkeys"))
}

func TestAnUnknownCookieIsMasked(t *testing.T) {
	t.Parallel()
	base := serve(t, "")
	right := rawSign(rawAppKey, "/v3/r/mpay/buy_goods_m", rawOrder(), func(v string) string { return v })
	call(t, "GET", rawOrderURL(base, rawOrder(), right), "", map[string]string{"Cookie": "session_id=SECRET-1; session_type=kp_actoken; org_loc=/mpay/buy_goods_m; PHPSESSID=SECRET-2"})
	got := exchangesOf(t, base)[0]
	require.Equal(t, []param{{"session_id", "[masked]"}, {"session_type", "kp_actoken"}, {"org_loc", "/mpay/buy_goods_m"}, {"PHPSESSID", "[masked]"}}, got.Cookies)
	require.Equal(t, `cookies session_id="[masked]" and session_type="kp_actoken" belong to no login`, got.Reason)
}
