package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestNoWritingOfACredentialIsShown(t *testing.T) {
	t.Parallel()
	for _, query := range []string{
		"openkey='SECRET-1", "open%6bey=SECRET-1", "%6fpenkey=SECRET-1", "OpenKey=SECRET-1", "openkey =SECRET-1", "+openkey=SECRET-1", "openkey%3DSECRET-1", "openkey%253DSECRET-1",
		"open_key=SECRET-1", "openKey%20=SECRET-1", "opnekey=SECRET-1", "pfkye=SECRET-1", "pf-key=SECRET-1", "paytoken=SECRET-1", "payToken=SECRET-1", "pay_tokn=SECRET-1", "access_token=SECRET-1", "accessToken=SECRET-1",
		"appkey=SECRET-1", "app_secret=SECRET-1", "session_key=SECRET-1", "openkeySECRET-1", "a=opnkey:SECRET-1",
		"a=%26pfkey%3DSECRET-1", "a=1;pay_token=SECRET-1", `a=%7B%22openkey%22:%22SECRET-1%22%7D`, "openkey=<SECRET-1", `openkey=a"SECRET-1`, "openkey=SECRET-1&openkey=SECRET-1",
	} {
		for _, secrets := range []bool{false, true} {
			base, record := serveRecorded(t, secrets)
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
	const shown = "openkey=&a=b&openkeys&openid=1&appid=1&pf=1&ts=1&zoneid=1&payitem=1*1*1&goodsmeta=a*key:b&app_metadata=1&amt=1&token=1&sig=1&ebazinga=1&trace=1&cftid=1&channel_id=1"
	require.Equal(t, shown, maskQuery(shown))
}

func TestACredentialIsShownInNoPath(t *testing.T) {
	t.Parallel()
	for path, missing := range map[string]bool{ // whether the answer tells of the "?"
		"/mpay/buy_goods_m&openid=o1&openkey=SECRET-1":                                    true,
		"/mpay/buy_goods_m%3Fopenid=o1&openkey=SECRET-1":                                  true,
		"/mpay/buy_goods_m%3fopenid=o1&openkey=a%26SECRET-1":                              true,
		"/mpay/buy_goods_m%3Fopenid%3Do1%26openkey%3DSECRET-1":                            true,
		"/mpay/buy_goods_m%253Fopenid%253Do1%2526openkey%253DSECRET-1":                    true,
		"/mpay/buy_goods_m%3Fopenkey=SECRET-1?openkey=SECRET-1":                           true,
		"/v3/r/mpay/buy_goods_m;openkey=SECRET-1":                                         true,
		"/mpay/buy_goods_m%26pfkey=SECRET-1":                                              true,
		"/mpay/buy_goods_m%3Bopenid=o1;pay_token=SECRET-1?zoneid=1&access_token=SECRET-1": true,
		"/mpay/openkey=SECRET-1?openkey=SECRET-1":                                         false,
		"/mpay/buy_goods_m/openkey/SECRET-1":                                              false,
		"/mpay/pay_m?openkey=SECRET-1":                                                    false,
	} {
		for _, secrets := range []bool{false, true} {
			base, record := serveRecorded(t, secrets)
			status, answer := call(t, "GET", base+path, "", nil)
			require.Equal(t, 404, status, path)
			require.Equal(t, missing, strings.Contains(answer, `the "?" before the query is missing or escaped`), path)
			require.NotContains(t, answer, "SECRET-1")
			_, exchanges := call(t, "GET", base+"/api/exchanges", "", nil)
			_, dashboard := call(t, "GET", base+"/", "", nil)
			require.False(t, !secrets && strings.Contains(dashboard, "SECRET-1"), path)
			for _, text := range []string{record.String(), exchanges} {
				require.Equal(t, secrets, strings.Contains(text, "SECRET-1"), "%s: %s", path, text)
				require.Equal(t, !secrets, strings.Contains(text, "[masked]"), path)
			}
		}
	}
	base := serve(t, "")
	call(t, "GET", base+"/mpay/buy_goods_m&openid=o1&ts=1", "", nil)
	require.Equal(t, "/mpay/buy_goods_m&openid=o1&ts=1", exchangesOf(t, base)[0].URL)
}

func TestAnUnknownCookieIsMasked(t *testing.T) {
	t.Parallel()
	base := serve(t, "")
	right := rawSign(rawAppKey, "/v3/r/mpay/buy_goods_m", rawOrder(), func(v string) string { return v })
	call(t, "GET", rawOrderURL(base, rawOrder(), right), "", map[string]string{"Cookie": "session_id=SECRET-1; session_type=kp_actoken; org_loc=/mpay/buy_goods_m; PHPSESSID=SECRET-2"})
	got := exchangesOf(t, base)[0]
	require.Equal(t, []param{{Name: "session_id", Value: "[masked]"}, {Name: "session_type", Value: "kp_actoken"}, {Name: "org_loc", Value: "/mpay/buy_goods_m"}, {Name: "PHPSESSID", Value: "[masked]"}}, got.Cookies)
	require.Equal(t, `cookies session_id="[masked]" and session_type="kp_actoken" belong to no login`, got.Reason)
}

// serveRecorded serves a sandbox and returns what it records.
func serveRecorded(t *testing.T, secrets bool) (base string, record *strings.Builder) {
	record = new(strings.Builder)
	base = serve(t, "", func(s *sandbox) {
		s.secrets = secrets
		s.seen = func(e exchange) {
			if err := writeRecord(record, e); err != nil {
				t.Error(err)
			}
		}
	})
	return base, record
}
