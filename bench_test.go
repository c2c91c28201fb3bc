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
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/midas-go/midas"
	"github.com/stretchr/testify/require"
)

// Each benchmark measures itself beside its floor and reports the ratio, which holds on
// a noisy machine:
//
//	go test -run '^$' -bench . .

const benchKey = "12345f9a47df4d1eaeb3bad9a7e54321"

// beside runs floor and subject in turns, ten times each, and reports the medians and
// the median of the ten ratios, as "x-floor".
func beside(b *testing.B, floor, subject func()) {
	const rounds = 10
	const slice = 30 * time.Millisecond
	measure := func(f func()) float64 {
		n := 0
		start := time.Now()
		for time.Since(start) < slice {
			for range 16 {
				f()
			}
			n += 16
		}
		return float64(time.Since(start).Nanoseconds()) / float64(n)
	}
	median := func(values []float64) float64 {
		slices.Sort(values)
		return (values[len(values)/2-1] + values[len(values)/2]) / 2
	}
	measure(floor) // what is made once
	measure(subject)
	for b.Loop() {
		var floors, subjects, ratios []float64
		for range rounds {
			f, s := measure(floor), measure(subject)
			floors, subjects, ratios = append(floors, f), append(subjects, s), append(ratios, s/f)
		}
		b.ReportMetric(median(ratios), "x-floor")
		b.ReportMetric(median(floors), "floor-ns")
		b.ReportMetric(median(subjects), "subject-ns")
	}
	b.ReportMetric(testing.AllocsPerRun(100, subject), "allocs/subject")
	b.ReportMetric(0, "ns/op") // that of all rounds together says nothing
}

// bareHMAC is the floor of a signature: the HMAC of a base string that is there already.
func bareHMAC(base []byte) func() {
	return func() {
		mac := hmac.New(sha1.New, []byte(benchKey+"&"))
		mac.Write(base)
		mac.Sum(nil)
	}
}

// orderValues are the parameters of a usual order.
func orderValues() url.Values {
	return url.Values{
		"openid": {"0000000000000000000000000E111111"}, "openkey": {"1111806DC5D1C52150CF405E42222222"}, "appid": {"1450000000"},
		"ts": {"1516080285"}, "pf": {"qq_m_qq-2001-android-2011-xxxx"}, "pfkey": {"1B59A5C3D77C7C56D7AFC3E2C823105D"}, "zoneid": {"1"},
		"payitem": {"G001*10*1"}, "goodsmeta": {"道具*测试描述信息！！！"}, "goodsurl": {"http://example.com/sword.png"}, "appmode": {"1"},
		"app_metadata": {"order-20181116-000001"}, "format": {"json"},
	}
}

func BenchmarkSign(b *testing.B) {
	params := orderValues()
	const path = "/v3/r/mpay/buy_goods_m"
	base := []byte(midas.BaseString("GET", path, params))
	require.Equal(b, midas.Sign("GET", path, params, benchKey), plainSign(path, params))

	sign := func(params url.Values) func() {
		return func() { midas.Sign("GET", path, params, benchKey) }
	}
	b.Run("beside a bare HMAC", func(b *testing.B) { beside(b, bareHMAC(base), sign(params)) })
	b.Run("the usual way beside it", func(b *testing.B) {
		beside(b, sign(params), func() { plainSign(path, params) })
	})
	b.Run("ten times the parameters", func(b *testing.B) { // linear except for the sorting
		many := url.Values{}
		for name, values := range params {
			for i := range 10 {
				many[strconv.Itoa(i)+name] = values
			}
		}
		beside(b, sign(params), sign(many))
	})
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

func BenchmarkParseDeliveryQuery(b *testing.B) {
	c, rawQuery, base := benchCallback(b)
	beside(b, bareHMAC(base), func() {
		if _, err := c.ParseDeliveryQuery(rawQuery); err != nil {
			b.Fatal(err)
		}
	})
}

// calling serves a handler and returns a function that calls it back and is answered OK.
func calling(b *testing.B, h http.Handler, rawQuery string) func() {
	srv := httptest.NewServer(h)
	b.Cleanup(srv.Close)
	target := srv.URL + "/pay/notify?" + rawQuery
	return func() {
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
}

// BenchmarkHandler compares with a handler that takes every caller's word for it, but keeps
// the time limit and answers the same bytes; and with one that verifies the way it is usually
// written, without typed fields, money, items and events.
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
	usual := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), 1500*time.Millisecond)
		defer cancel()
		reply := map[string]any{"ret": 4, "msg": "bad_parameter:sig"}
		if query := r.URL.Query(); plainCallbackSig("/pay/notify", query) == query.Get("sig") {
			result := make(chan error, 1)
			go func() { result <- deliver(ctx, nil) }()
			select {
			case err := <-result:
				reply = map[string]any{"ret": 0, "msg": "OK"}
				if err != nil {
					reply = map[string]any{"ret": 1, "msg": "system_busy"}
				}
			case <-time.After(1800 * time.Millisecond):
				reply = map[string]any{"ret": 1, "msg": "system_busy"}
			}
		}
		body, _ := json.Marshal(reply)
		w.Header().Set("Content-Type", "application/json")
		if string(body) == `{"msg":"OK","ret":0}` { // Midas wants these bytes
			body = []byte(`{"ret":0,"msg":"OK"}`)
		}
		w.Write(body)
	})
	call := func(h http.Handler) func() { return calling(b, h, rawQuery) }
	ours := call(c.DeliveryHandler(deliver))
	b.Run("beside a bare one", func(b *testing.B) { beside(b, call(bare), ours) })
	b.Run("the usual way beside it", func(b *testing.B) { beside(b, ours, call(usual)) })
}

// BenchmarkShadow compares an old handler in the shadow with the same one alone: as fast as one
// caller can call, which includes the work done beside the answer, and at 500 callbacks a second.
func BenchmarkShadow(b *testing.B) {
	plain, rawQuery, _ := benchCallback(b)
	c, err := midas.New(midas.Config{AppID: "1450000000", AppKey: benchKey, DeliveryPath: "/pay/notify", Logger: slog.New(slog.DiscardHandler)})
	require.NoError(b, err)
	_, err = plain.ParseDeliveryQuery(rawQuery)
	require.NoError(b, err)
	old := answering(`{"ret":0,"msg":"OK"}`)
	alone, shadowed := calling(b, old, rawQuery), calling(b, c.Shadow(old), rawQuery)
	b.Run("beside the old handler alone", func(b *testing.B) { beside(b, alone, shadowed) })
	b.Run("500 a second beside the old handler alone", func(b *testing.B) {
		var took [2][]time.Duration
		tick := time.NewTicker(time.Second / 1000) // of which every other one is shadowed
		defer tick.Stop()
		for b.Loop() {
			for i := range 2000 {
				<-tick.C
				start := time.Now()
				[]func(){alone, shadowed}[i%2]()
				took[i%2] = append(took[i%2], time.Since(start))
			}
		}
		for i := range took {
			slices.Sort(took[i])
		}
		floor, subject := took[0][len(took[0])/2], took[1][len(took[1])/2]
		b.ReportMetric(float64(subject)/float64(floor), "x-floor")
		b.ReportMetric(float64(floor.Nanoseconds()), "floor-ns")
		b.ReportMetric(float64((subject - floor).Microseconds()), "added-µs")
		b.ReportMetric(0, "ns/op")
	})
}

// plainCallbackSig is the signature of a callback the way it is usually written.
func plainCallbackSig(path string, params url.Values) string {
	encode := func(s string) string { // all but letters, digits and !*()
		var out strings.Builder
		for i := 0; i < len(s); i++ {
			if c := s[i]; c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || strings.IndexByte("!*()", c) >= 0 {
				out.WriteByte(c)
			} else {
				fmt.Fprintf(&out, "%%%02X", c)
			}
		}
		return out.String()
	}
	escape := func(s string) string {
		s = strings.ReplaceAll(url.QueryEscape(s), "+", "%20")
		return strings.ReplaceAll(s, "~", "%7E")
	}
	var names []string
	for name := range params {
		if name != "sig" {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	var query []string
	for _, name := range names {
		query = append(query, name+"="+encode(params.Get(name)))
	}
	mac := hmac.New(sha1.New, []byte(benchKey+"&"))
	mac.Write([]byte("GET&" + escape(path) + "&" + escape(strings.Join(query, "&"))))
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// BenchmarkCreateOrder compares with a GET of the same URL and cookies from the same
// server, which answers a constant; and with an order the way it is usually written.
func BenchmarkCreateOrder(b *testing.B) {
	const answer = `{"ret":0,"token":"842C0000000000000000000000000000AAAAA","url_params":"\/v1\/sx8\/1450000000\/mobile_goods_info?token_id=842C0000000000000000000000000000AAAAA","attach":""}`
	var sent *http.Request
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if sent == nil {
			sent = r
		}
		io.WriteString(w, answer)
	}))
	defer srv.Close()
	c, err := midas.New(midas.Config{AppID: "1450000000", AppKey: benchKey, Gateway: midas.Sandbox().At(srv.URL), HTTPClient: http.DefaultClient})
	require.NoError(b, err)
	midasOrder := func() {
		_, err := c.CreateOrder(b.Context(), midas.OrderRequest{
			Player: midas.Player{Login: midas.QQ, OpenID: "0000000000000000000000000E111111", OpenKey: "1111806DC5D1C52150CF405E42222222", PF: "qq_m_qq-2001-android-2011-xxxx", PFKey: "1B59A5C3D77C7C56D7AFC3E2C823105D"},

			Items: []midas.Item{{ID: "G001", Price: 10 * midas.QPoint, Quantity: 1}}, GoodsName: "道具", GoodsDescription: "测试描述信息！！！",
			GoodsURL: "http://example.com/sword.png", Metadata: "order-20181116-000001",
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	midasOrder()
	target, cookies := srv.URL+sent.RequestURI, sent.Cookies()
	bare := func() {
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
		var order struct {
			Ret                int
			Msg, Token, Attach string
			URLParams          string `json:"url_params"`
		}
		if err != nil || json.Unmarshal(body, &order) != nil || order.Token == "" {
			b.Fatal(err, string(body))
		}
	}
	usual := func() {
		params := orderValues()
		params.Set("ts", strconv.FormatInt(time.Now().Unix(), 10))
		params.Set("sig", plainSign("/v3/r/mpay/buy_goods_m", params))
		req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, srv.URL+"/mpay/buy_goods_m?"+params.Encode(), nil)
		if err != nil {
			b.Fatal(err)
		}
		for name, value := range map[string]string{"session_id": "openid", "session_type": "kp_actoken", "org_loc": url.QueryEscape("/v3/r/mpay/buy_goods_m")} {
			req.AddCookie(&http.Cookie{Name: name, Value: value})
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			b.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		var order map[string]any
		if err != nil || json.Unmarshal(body, &order) != nil || order["token"] == "" {
			b.Fatal(err, string(body))
		}
	}
	b.Run("beside a bare GET", func(b *testing.B) { beside(b, bare, midasOrder) })
	b.Run("the usual way beside it", func(b *testing.B) { beside(b, midasOrder, usual) })
}

// What an error says of an answer must not cost more because of what a player sent or
// what a body holds (at most 2 and 20 are asked for).
func BenchmarkUnusableAnswer(b *testing.B) {
	refusal := func(openKey, msg string) func() {
		body := []byte(`{"ret":1018,"msg":` + strconv.Quote(msg) + `,"err_code":"1018--2-20"}`)
		return judge(b, openKey, body)
	}
	ordinary := strings.Repeat("1B59A5C3D77C7C56", 64) // 1 KiB, as long as the worst
	for _, worst := range []string{strings.Repeat("+", 1023) + "a", strings.Repeat("%", 1024), strings.Repeat("\\u", 512), strings.Repeat("号", 341)} {
		b.Run(fmt.Sprintf("openkey of %.4s beside an ordinary one", worst), func(b *testing.B) {
			beside(b, refusal(ordinary, "请求参数错误(pfkey)"), refusal(worst, "请求参数错误(pfkey)"))
		})
	}
	for name, body := range map[string]string{
		"pluses": strings.Repeat("+", 1<<20), "JSON": `{"msg":"` + strings.Repeat("+", 1<<20) + `"}`,
		"brackets": `{"msg":` + strings.Repeat("[", 1<<20), "escapes": `{"msg":"` + strings.Repeat(`\u0041`, 1<<17) + `"}`,
	} {
		b.Run("1 MiB of "+name+" beside reading it", func(b *testing.B) {
			read := func() {
				if _, err := io.ReadAll(strings.NewReader(body)); err != nil {
					b.Fatal(err)
				}
			}
			beside(b, read, judge(b, ordinary, []byte(body)))
		})
	}
}

// judge returns a function that places an order and is answered body.
func judge(b *testing.B, openKey string, body []byte) func() {
	answers := roundTripper(func(r *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 200, ProtoMajor: 1, Body: io.NopCloser(strings.NewReader(string(body))), ContentLength: int64(len(body)), Request: r}, nil
	})
	c, err := midas.New(midas.Config{AppID: "1450000000", AppKey: benchKey, Gateway: midas.MSDK(), MaxRetries: -1, HTTPClient: &http.Client{Transport: answers}})
	require.NoError(b, err)
	req := midas.OrderRequest{
		Player: midas.Player{Login: midas.QQ, OpenID: "o_TEST", OpenKey: openKey, PayToken: openKey, PF: "qq_m_qq-2001-android-2011-xxxx", PFKey: openKey},
		Items:  []midas.Item{{ID: "G001", Price: 10 * midas.QPoint, Quantity: 1}}, GoodsName: "道具", GoodsDescription: "测试",
	}
	return func() {
		if _, err := c.CreateOrder(b.Context(), req); err == nil {
			b.Fatal("accepted")
		}
	}
}
