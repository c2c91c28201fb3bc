package main

import (
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/cmd/midas/internal/lang"
	"github.com/midas-go/midas/midastest"
	"github.com/stretchr/testify/require"
)

// said returns everything that midastest says of orders and answers, by provoking it.
func said(t *testing.T) (sentences []string) {
	say := func(s string) {
		if s != "" {
			sentences = append(sentences, s)
		}
	}
	order := func(method string, cookies string, params map[string]string, change ...string) {
		srv := midastest.New(midastest.Config{AppID: rawAppID, AppKey: rawAppKey, OnOrder: func(a midastest.OrderAttempt) {
			say(a.Problem)
			sentences = append(sentences, a.Notes...)
		}})
		for i := 0; i < len(change); i += 2 {
			params[change[i]] = change[i+1]
		}
		sig := rawSign(rawAppKey, "/v3/r/mpay/buy_goods_m", params, func(v string) string { return v })
		r := httptest.NewRequest(method, rawOrderURL("http://localhost", params, sig), nil)
		r.Header.Set("Cookie", cookies)
		srv.ServeHTTP(httptest.NewRecorder(), r)
	}
	qq := rawCookies["Cookie"]
	order("POST", qq, rawOrder())
	order("GET", "", rawOrder())
	order("GET", "session_id=openid; session_type=kp_actoken", rawOrder())
	order("GET", "session_id=openid; session_type=kp_actoken; org_loc=/mpay/buy_goods_m", rawOrder())
	order("GET", "session_id=hy_gameid; session_type=st_dummy; org_loc=/mpay/buy_goods_m", rawOrder(), "openid", "a(b")
	for _, change := range [][]string{
		{"appid", "1"}, {"openkey", ""}, {"ts", "now"}, {"ts", "1518081937000"}, {"pf", strings.Repeat("x", 151)}, {"payitem", "x"}, {"payitem", "剑*1*1"}, {"payitem", "a*0.01*1"}, {"payitem", "a*0*1"}, {"payitem", "a*1*0"},
		{"payitem", "a*200000000*2"}, {"amt", "7"}, {"goodsmeta", "x"}, {"appmode", "3"}, {"payitem", "a*1*1;b*1*1", "appmode", "2"}, {"max_num", "7"}, {"app_metadata", "剑"}, {"format", "xml"}, {"accounttype", "gold"},
	} {
		order("GET", qq, rawOrder(), change...)
	}
	for _, strict := range []bool{false, true} {
		srv := midastest.New(midastest.Config{AppID: rawAppID, AppKey: rawAppKey, Strict: strict, OnOrder: func(a midastest.OrderAttempt) {
			say(a.Problem)
			sentences = append(sentences, a.Notes...)
		}})
		for _, query := range []string{"a=%zz", "a=1&a=2", "openid=;", strings.ReplaceAll(strings.TrimPrefix(rawOrderURL("", rawOrder(), "wrong"), "/mpay/buy_goods_m?"), "%3B", ";") + "&x=;"} {
			srv.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/mpay/buy_goods_m?"+query, nil))
		}
		srv.NextOrders(midastest.Fault{Ret: 1018})
		srv.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/mpay/buy_goods_m", nil))
	}
	for _, body := range []string{"", "\xef\xbb\xbf{}", "\x1f\x8b\x08", "{}\n", "{} {}", "x", `{"ret":1,"msg":"no"}`, `{"ret":0,"msg":"ok"}`, `{"msg":"OK","ret":0}`} {
		say(midastest.Judge(200, []byte(body), 0))
	}
	for _, status := range []int{301, 404, 500} {
		say(midastest.Judge(status, nil, 0))
	}
	say(midastest.Judge(200, nil, 3*time.Second))
	srv := midastest.New(midastest.Config{})
	srv.DeliverToHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Write([]byte(`{"ret":4,"msg":"bad_parameter:sig"}`)) }), "/pay/notify")
	receipt, err := srv.Pay(t.Context(), srv.AppOrder(midas.OrderRequest{Player: midas.Player{OpenID: "1"}, Items: []midas.Item{{ID: "a", Price: 1, Quantity: 1}}}))
	require.NoError(t, err)
	say(receipt.Reason)
	srv.DeliverTo("http://127.0.0.1:1/pay/notify")
	receipt, err = srv.Deliver(t.Context(), "a=b")
	require.NoError(t, err)
	say(receipt.Reason)
	return append(sentences, "no answer within 2s: Midas hangs up and may cancel the charge", "the caller hung up during the delay that was asked for")
}

func TestEveryVerdictIsInChineseToo(t *testing.T) {
	t.Parallel()
	// What is left of English are names and code.
	quoted := regexp.MustCompile(`"[^"]*"|\{.*\}|/[a-z0-9/_]+|[a-z]+_[a-z_]+|json\.Encoder|fmt\.Fprintln`)
	for _, english := range said(t) {
		chinese := lang.Said(english).In("zh")
		require.NotEqual(t, english, chinese)
		require.Equal(t, english, lang.Said(english).In("en"))
		require.NotRegexp(t, `[a-z]{3,} [a-z]+ [a-z]+`, quoted.ReplaceAllString(chinese, ""), "%s: %s", english, chinese)
	}
}
