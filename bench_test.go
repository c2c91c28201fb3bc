package midas_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midastest"
	"github.com/stretchr/testify/require"
)

// Each benchmark stands beside its floor, so that the ratio holds on a noisy machine.
// Compare with: go test -bench . -count 6

const benchKey = "12345f9a47df4d1eaeb3bad9a7e54321"

// orderValues are the parameters of a usual order.
func orderValues() url.Values {
	return url.Values{
		"openid": {"0000000000000000000000000E111111"}, "openkey": {"1111806DC5D1C52150CF405E42222222"},
		"appid": {"1450000000"}, "ts": {"1518081937"}, "pf": {"qq_m_qq-2001-android-2011-xxxx"},
		"pfkey": {"1B59A5C3D77C7C56D7AFC3E2C823105D"}, "zoneid": {"1"}, "payitem": {"G001*10*1"},
		"goodsmeta": {"道具*测试描述信息！！！"}, "goodsurl": {"http://example.com/sword.png"}, "appmode": {"1"},
		"app_metadata": {"order-20181116-000001"}, "format": {"json"},
	}
}

func BenchmarkSign(b *testing.B) {
	params := orderValues()
	const path = "/v3/r/mpay/buy_goods_m"
	base := []byte(midas.BaseString("GET", path, params))
	want := midas.Sign("GET", path, params, benchKey)

	b.Run("floor", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			mac := hmac.New(sha1.New, []byte(benchKey+"&"))
			mac.Write(base)
			mac.Sum(nil)
		}
	})
	b.Run("plain", func(b *testing.B) {
		require.Equal(b, want, plainSign(path, params))
		b.ReportAllocs()
		for b.Loop() {
			plainSign(path, params)
		}
	})
	b.Run("midas", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			midas.Sign("GET", path, params, benchKey)
		}
	})
	for _, n := range []int{1, 10} { // ten times the parameters: linear, but for the sorting
		many := url.Values{}
		for name, values := range params {
			for i := range n {
				many[strconv.Itoa(i)+name] = values
			}
		}
		b.Run(fmt.Sprintf("params=%d", len(many)), func(b *testing.B) {
			for b.Loop() {
				midas.Sign("GET", path, many, benchKey)
			}
		})
	}
}

// plainSign is a signature the way it is usually written: sort the names, concatenate,
// url.QueryEscape and mend what it does differently.
func plainSign(path string, params url.Values) string {
	escape := func(s string) string {
		s = strings.ReplaceAll(url.QueryEscape(s), "+", "%20")
		return strings.ReplaceAll(s, "~", "%7E")
	}
	var names []string
	for name := range params {
		names = append(names, name)
	}
	sort.Strings(names)
	var query string
	for _, name := range names {
		query += name + "=" + params.Get(name) + "&"
	}
	base := "GET&" + escape(path) + "&" + escape(strings.TrimSuffix(query, "&"))
	mac := hmac.New(sha1.New, []byte(benchKey+"&"))
	mac.Write([]byte(base))
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// benchCallback returns a callback of 20 parameters and a Client that verifies it.
func benchCallback(b *testing.B) (c *midas.Client, rawQuery string, base []byte) {
	params := url.Values{
		"amt": {"95"}, "appid": {"1450000000"}, "appmeta": {"1468380818068990000*wechat*wechat"},
		"billno": {"-APPDJ00000-20180116-1150260000"}, "cftid": {"4200000100201801160000000000"},
		"channel_id": {"00000000-android-00000000-000000000000000-ysdkwater-wechat"}, "clientver": {"android"},
		"openid": {"o_TESTopenid_ABCdef-0123456789"}, "payamt_coins": {"0"}, "paychannelsubid": {"1"},
		"payitem": {"test_item_30*10*1"}, "providetype": {"5"}, "pubacct_payamt_coins": {""},
		"token": {"00000000000000000000000000000000000A1"}, "ts": {"1516080285"}, "version": {"v3"}, "zoneid": {"1"},
		"ubazinga": {"1"}, "discountid": {"0"},
	}
	params.Set("sig", midas.SignCallback("GET", "/pay/notify", params, benchKey))
	require.Len(b, params, 20)
	c, err := midas.New(midas.Config{AppID: "1450000000", AppKey: benchKey, DeliveryPath: "/pay/notify"})
	require.NoError(b, err)
	return c, params.Encode(), []byte(midas.CallbackBaseString("GET", "/pay/notify", params))
}

func BenchmarkDelivery(b *testing.B) {
	c, rawQuery, base := benchCallback(b)
	b.Run("floor", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			mac := hmac.New(sha1.New, []byte(benchKey+"&"))
			mac.Write(base)
			mac.Sum(nil)
		}
	})
	b.Run("midas", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := c.ParseDeliveryQuery(rawQuery); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkHandler compares with a handler that takes every caller's word for it, but keeps
// the time limit and answers the same bytes.
func BenchmarkHandler(b *testing.B) {
	c, rawQuery, _ := benchCallback(b)
	deliver := func(context.Context, *midas.Delivery) error { return nil }
	bare := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), 1500*time.Millisecond)
		defer cancel()
		result := make(chan error, 1)
		go func() { result <- deliver(ctx, nil) }()
		timer := time.NewTimer(1800 * time.Millisecond)
		defer timer.Stop()
		err := errors.New("late")
		select {
		case err = <-result:
		case <-timer.C:
		}
		body := `{"ret":0,"msg":"OK"}`
		if err != nil {
			body = `{"ret":1,"msg":"system_busy"}`
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		io.WriteString(w, body)
	})
	for _, bench := range []struct {
		name    string
		handler http.Handler
	}{{"bare", bare}, {"midas", c.DeliveryHandler(deliver)}} {
		b.Run(bench.name, func(b *testing.B) {
			srv := httptest.NewServer(bench.handler)
			defer srv.Close()
			target := srv.URL + "/pay/notify?" + rawQuery
			b.ReportAllocs()
			for b.Loop() {
				resp, err := http.Get(target)
				if err != nil {
					b.Fatal(err)
				}
				body, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if err != nil || string(body) != `{"ret":0,"msg":"OK"}` {
					b.Fatal(err, string(body))
				}
			}
		})
	}
}

// BenchmarkCreateOrder compares with a GET of the same URL and cookies from the same server.
func BenchmarkCreateOrder(b *testing.B) {
	var srv *midastest.Server
	srv = midastest.NewServer(midastest.Config{AppID: testAppID, AppKey: benchKey, OnOrder: func(a midastest.OrderAttempt) {
		srv.Forget(a.Token) // or the orders of one run would slow the next one
	}})
	defer srv.Close()
	var sent *http.Request
	recording := &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
		sent = r
		return http.DefaultTransport.RoundTrip(r)
	})}
	place := func(hc *http.Client) func() {
		c, err := midas.New(midas.Config{AppID: testAppID, AppKey: benchKey, Gateway: srv.Gateway(), HTTPClient: hc})
		require.NoError(b, err)
		return func() {
			_, err := c.CreateOrder(b.Context(), midas.OrderRequest{
				Login: midas.QQ, OpenID: "0000000000000000000000000E111111", OpenKey: "1111806DC5D1C52150CF405E42222222",
				PF: "qq_m_qq-2001-android-2011-xxxx", PFKey: "1B59A5C3D77C7C56D7AFC3E2C823105D",
				Items: []midas.Item{{"G001", 10 * midas.QPoint, 1}}, GoodsName: "道具", GoodsDescription: "测试描述信息！！！",
				GoodsURL: "http://example.com/sword.png", Metadata: "order-20181116-000001",
			})
			if err != nil {
				b.Fatal(err)
			}
		}
	}
	place(recording)()

	b.Run("bare", func(b *testing.B) {
		target := sent.URL.String()
		cookies := sent.Cookies()
		b.ReportAllocs()
		for b.Loop() {
			req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, target, nil)
			if err != nil {
				b.Fatal(err)
			}
			for _, cookie := range cookies {
				req.AddCookie(cookie)
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				b.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			var answer struct {
				Ret                int
				Msg, Token, Attach string
				URLParams          string `json:"url_params"`
			}
			if err != nil || json.Unmarshal(body, &answer) != nil || answer.Token == "" {
				b.Fatal(err, string(body))
			}
		}
	})
	b.Run("midas", func(b *testing.B) {
		order := place(http.DefaultClient)
		b.ReportAllocs()
		for b.Loop() {
			order()
		}
	})
}
