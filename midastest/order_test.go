package midastest_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midastest"
	"github.com/stretchr/testify/require"
)

const (
	qqCookies     = "session_id=openid; session_type=kp_actoken; "
	wechatCookies = "session_id=hy_gameid; session_type=wc_actoken; "
	guestCookies  = "session_id=hy_gameid; session_type=st_dummy; "
	orgLoc        = "org_loc=%2Fv3%2Fr%2Fmpay%2Fbuy_goods_m"
	msdkOrgLoc    = "org_loc=%2Fmpay%2Fbuy_goods_m"
)

// documentedOrder is Tencent's example of an order, signed for YSDK, as the vectors have it.
func documentedOrder(t *testing.T) (vector, url.Values) {
	v := vectorNamed(t, "constructed-doc-buy-goods-m-v3r-path")
	params := v.values()
	params.Set("sig", v.Sig)
	return v, params
}

// place sends a request for an order as any HTTP client does, and returns the answer's body.
func place(srv http.Handler, method string, rawQuery, cookies string) string {
	r := httptest.NewRequest(method, "/mpay/buy_goods_m?"+rawQuery, nil)
	r.Header.Set("Cookie", cookies)
	w := httptest.NewRecorder()
	srv.ServeHTTP(w, r)
	return w.Body.String()
}

func escaped(params url.Values) string { return strings.ReplaceAll(params.Encode(), "+", "%20") }

func TestTencentsExampleOfAnOrderIsTaken(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, vector, cookies string
		like                  midas.Gateway
	}{
		{"on YSDK", "constructed-doc-buy-goods-m-v3r-path", qqCookies + orgLoc, midas.Sandbox()},
		{"on MSDK", "constructed-doc-buy-goods-m-openapi-path", qqCookies + msdkOrgLoc, midas.MSDK()},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			v := vectorNamed(t, test.vector)
			var attempts []midastest.OrderAttempt
			srv := midastest.New(midastest.Config{
				AppID: v.Params["appid"], AppKey: v.AppKey, Like: test.like, Errorf: t.Errorf,
				OnOrder: func(o midastest.OrderAttempt) { attempts = append(attempts, o) },
			})
			params := v.values()
			params.Set("sig", v.Sig)
			body := place(srv, http.MethodGet, escaped(params), test.cookies)

			require.Len(t, attempts, 1)
			token := attempts[0].Token
			require.NotEmpty(t, token)
			require.Equal(t, `{"ret":0,"token":"`+token+`","url_params":"\/v1\/sx8\/1101255891\/mobile_goods_info?token_id=`+token+`","attach":""}`, body)
			require.Equal(t, body, attempts[0].Body)
			require.Empty(t, attempts[0].Problem)
			require.Equal(t, "G1*20*2", attempts[0].Params.Get("payitem"))
		})
	}
}

func TestAHookThatChangesParamsChangesNoOrder(t *testing.T) {
	t.Parallel()
	v, params := documentedOrder(t)
	srv := midastest.New(midastest.Config{
		AppID: v.Params["appid"], AppKey: v.AppKey, Errorf: t.Errorf,
		OnOrder: func(o midastest.OrderAttempt) {
			for _, values := range o.Params { // of the slices, too
				values[0] = "[masked]"
			}
			o.Params.Del("zoneid")
		},
	})
	srv.DeliverToHandler(http.HandlerFunc(answerOK), deliveryPath)
	var answer struct{ Token string }
	require.NoError(t, json.Unmarshal([]byte(place(srv, http.MethodGet, escaped(params), qqCookies+orgLoc)), &answer))
	callback, err := srv.Callback(answer.Token)
	require.NoError(t, err)
	got, err := url.ParseQuery(callback)
	require.NoError(t, err)
	for _, name := range []string{"openid", "appid", "zoneid", "payitem"} {
		require.Equal(t, params.Get(name), got.Get(name), name)
	}
}

func TestABadRequestGetsTheRetOfTheRealOneAndAComplaint(t *testing.T) {
	t.Parallel()
	long := func(n int) string { return strings.Repeat("x", n) }
	set := func(pairs ...string) func(url.Values) {
		return func(params url.Values) {
			for i := 0; i < len(pairs); i += 2 {
				params.Set(pairs[i], pairs[i+1])
			}
		}
	}
	for _, test := range []struct {
		name    string
		change  func(url.Values) // before signing
		cookies string           // if not of a QQ login on YSDK
		answer  string           // what the JSON begins with
		says    string           // complaint
	}{
		{"another app", set("appid", "1450000001"), "", `{"ret":1016,"msg":"对不起,你还没有接入权限","err_code":"1016-1016-0"}`, `"1450000001" is not this app's`},
		{"no cookies", nil, "-", `{"ret":1018,"msg":"请先登录","err_code":"1018--2-20"}`, "belong to no login"},
		{"the openid instead of the word", nil, "session_id=o_TEST; session_type=kp_actoken; " + orgLoc, `{"ret":1018,`, `session_id="o_TEST"`},
		{"a cookie of WeChat with one of QQ", nil, "session_id=openid; session_type=wc_actoken; " + orgLoc, `{"ret":1018,`, "belong to no login"},
		{"no org_loc", nil, qqCookies, `{"ret":1018,`, `org_loc=""`},
		{"org_loc of another call", nil, qqCookies + "org_loc=%2Fv3%2Fr%2Fmpay%2Fpay_m", `{"ret":1018,`, "org_loc="},
		{"org_loc encoded twice", nil, qqCookies + "org_loc=%252Fmpay%252Fbuy_goods_m", `{"ret":1018,`, "org_loc="},
		{"a guest's openid over 32 characters", set("openid", long(33)), guestCookies + orgLoc, `{"ret":1001,`, "parameter openid"},
		{"a guest's openid with a bracket", set("openid", "a(b"), guestCookies + orgLoc, `{"ret":1001,`, "parameter openid"},
		{"ts not a number", set("ts", "now"), "", `{"ret":1001,`, "parameter ts"},
		{"ts in milliseconds", set("ts", "1396325191000"), "", `{"ret":1001,"msg":"请求参数错误(ts)"}`, "parameter ts: in milliseconds"},
		{"ts of 13 digits", set("ts", "1000000000000"), "", `{"ret":1001,`, "parameter ts"},
		{"ts negative", set("ts", "-1"), "", `{"ret":1001,`, "parameter ts"},
		{"pf over 150 bytes", set("pf", long(151)), "", `{"ret":1001,`, "parameter pf"},
		{"goodsurl over 511 bytes", set("goodsurl", long(512)), "", `{"ret":1001,`, "parameter goodsurl"},
		{"app_metadata over 128 bytes", set("app_metadata", long(129)), "", `{"ret":1001,`, "parameter app_metadata"},
		{"app_metadata in Chinese", set("app_metadata", "订单"), "", `{"ret":1001,`, "parameter app_metadata"},
		{"payitem over 511 bytes", set("payitem", long(508)+"*1*1"), "", `{"ret":1001,`, "parameter payitem"},
		{"payitem without a quantity", set("payitem", "G1*20"), "", `{"ret":1001,`, "parameter payitem"},
		{"payitem without an id", set("payitem", "*20*2"), "", `{"ret":1001,`, "parameter payitem"},
		{"payitem with a blank in the id", set("payitem", "G 1*20*2"), "", `{"ret":1001,`, "parameter payitem"},
		{"payitem with a trailing semicolon", set("payitem", "G1*20*2;", "appmode", "1"), "", `{"ret":1001,`, "parameter payitem"},
		{"a price of a tenth of a fen", set("payitem", "G1*0.01*2"), "", `{"ret":1001,`, "parameter payitem"},
		{"a price of nothing", set("payitem", "G1*0*2"), "", `{"ret":1001,`, "parameter payitem"},
		{"a quantity of nothing", set("payitem", "G1*20*0"), "", `{"ret":1001,`, "parameter payitem"},
		{"a negative quantity", set("payitem", "G1*20*-2"), "", `{"ret":1001,`, "parameter payitem"},
		{"over 2,000,000,000 fen", set("payitem", "G1*200000000.1*1"), "", `{"ret":1001,`, "parameter payitem"},
		{"over 2,000,000,000 fen in all", set("payitem", "G1*100000000*1;G2*100000000.1*1", "appmode", "1"), "", `{"ret":1001,`, "parameter payitem"},
		{"an amt that is not the sum", set("amt", "400"), "", `{"ret":1001,`, "parameter amt"},
		{"goodsmeta without a description", set("goodsmeta", "name"), "", `{"ret":1001,`, "parameter goodsmeta"},
		{"goodsmeta with two stars", set("goodsmeta", "a*b*c"), "", `{"ret":1001,`, "parameter goodsmeta"},
		{"goodsmeta with a line break", set("goodsmeta", "a*b\nc"), "", `{"ret":1001,`, "parameter goodsmeta"},
		{"goodsmeta not UTF-8", set("goodsmeta", "a*\xff"), "", `{"ret":1001,`, "parameter goodsmeta"},
		{"goodsmeta over 256 characters", set("goodsmeta", "剑*"+strings.Repeat("好", 255)), "", `{"ret":1001,`, "parameter goodsmeta"},
		{"appmode 3", set("appmode", "3"), "", `{"ret":1001,`, "parameter appmode"},
		{"several items whose quantity may change", set("payitem", "a*1*1;b*1*1", "appmode", "2"), "", `{"ret":1001,`, "parameter appmode"},
		{"several items without appmode, which is 2", set("payitem", "a*1*1;b*1*1"), "", `{"ret":1001,`, "parameter appmode"},
		{"max_num not above the quantity", set("appmode", "2", "max_num", "2"), "", `{"ret":1001,`, "parameter max_num"},
		{"max_num with a fixed quantity", set("appmode", "1", "max_num", "9"), "", `{"ret":1001,`, "parameter max_num"},
		{"max_num not a number", set("appmode", "2", "max_num", "many"), "", `{"ret":1001,`, "parameter max_num"},
		{"format xml", set("format", "xml"), "", `{"ret":1001,`, "parameter format"},
		{"an unknown accounttype", set("accounttype", "gold"), "", `{"ret":1001,`, "parameter accounttype"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			v, params := documentedOrder(t)
			if test.change != nil {
				test.change(params)
				params.Set("sig", signature("request", "GET", v.Path, params, v.AppKey))
			}
			cookies := qqCookies + orgLoc
			if test.cookies != "" {
				cookies = test.cookies
			}
			var said complaints
			srv := midastest.New(midastest.Config{AppID: v.Params["appid"], AppKey: v.AppKey, Errorf: said.errorf})
			body := place(srv, http.MethodGet, escaped(params), cookies)
			require.True(t, strings.HasPrefix(body, test.answer), body)
			require.Len(t, said.lines, 1)
			require.Contains(t, said.lines[0], test.says)
		})
	}
}

func TestWhatShippedServersSendIsTakenWithANoteAndRefusedWhenStrict(t *testing.T) {
	t.Parallel()
	const bare = "&note=a;b" // a parameter whose value holds a semicolon
	for _, test := range []struct {
		name, orgLoc, query string
		note                string // "": nothing to note
		strict              string // what a strict answer begins with
	}{
		{"as Tencent's page has it", "%2Fv3%2Fr%2Fmpay%2Fbuy_goods_m", "&note=a%3Bb", "", `{"ret":0,`},
		{"not encoded", "/v3/r/mpay/buy_goods_m", "&note=a%3Bb", `org_loc="/v3/r/mpay/buy_goods_m"`, `{"ret":1018,`},
		{"the older path, as Tencent's PHP SDK", "%2Fmpay%2Fbuy_goods_m", "&note=a%3Bb", `org_loc="%2Fmpay%2Fbuy_goods_m"`, `{"ret":1018,`},
		{"the older path, not encoded", "/mpay/buy_goods_m", "&note=a%3Bb", `org_loc="/mpay/buy_goods_m"`, `{"ret":1018,`},
		{"a bare semicolon", "%2Fv3%2Fr%2Fmpay%2Fbuy_goods_m", bare, `a bare ";"`, `{"ret":1001,"msg":"请求参数错误(query)"`},
	} {
		for _, strict := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/strict=%t", test.name, strict), func(t *testing.T) {
				t.Parallel()
				v, params := documentedOrder(t)
				params.Set("note", "a;b")
				params.Set("sig", signature("request", "GET", v.Path, params, v.AppKey))
				params.Del("note")
				var said complaints
				var attempt midastest.OrderAttempt
				srv := midastest.New(midastest.Config{
					AppID: v.Params["appid"], AppKey: v.AppKey, Strict: strict, Errorf: said.errorf, OnOrder: func(o midastest.OrderAttempt) { attempt = o },
				})
				body := place(srv, http.MethodGet, escaped(params)+test.query, qqCookies+"org_loc="+test.orgLoc)
				if strict {
					require.True(t, strings.HasPrefix(body, test.strict), body)
					require.Empty(t, attempt.Notes)
					return
				}
				require.True(t, strings.HasPrefix(body, `{"ret":0,`), body)
				require.Empty(t, said.lines, "what is tolerated fails no test")
				require.Equal(t, "a;b", attempt.Params.Get("note"))
				if test.note == "" {
					require.Empty(t, attempt.Notes)
					return
				}
				require.Len(t, attempt.Notes, 1)
				require.Contains(t, attempt.Notes[0], test.note)
			})
		}
	}
}

// A recordedOrder is a request as Tencent's PHP SDK put it on the wire: see ../testdata/README.md.
type recordedOrder struct {
	Name        string
	RequestLine string `json:"request_line"`
	Headers     map[string]string
}

func TestOrdersOfTencentsPHPSDKAreTakenByteForByte(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("../testdata/php-orders.json")
	require.NoError(t, err)
	var recorded struct {
		AppKey   string `json:"app_key"`
		AppID    string `json:"app_id"`
		Requests []recordedOrder
	}
	require.NoError(t, json.Unmarshal(data, &recorded))
	require.Len(t, recorded.Requests, 15)
	for _, strict := range []bool{false, true} {
		srv := midastest.NewServer(midastest.Config{AppID: recorded.AppID, AppKey: recorded.AppKey, Strict: strict})
		defer srv.Close()
		refused := 0
		for _, order := range recorded.Requests {
			answer := sendBytes(t, srv.Gateway().BaseURL, order)
			// The SDK itself sends the older org_loc to YSDK; the seed article's code does not.
			wantRefused := strict && strings.HasPrefix(order.Headers["Cookie"], "org_loc=%2Fmpay")
			if wantRefused {
				refused++
			}
			require.Equal(t, !wantRefused, strings.Contains(answer, `{"ret":0,"token":"`), "%s, strict=%t: %s", order.Name, strict, answer)
		}
		require.Equal(t, map[bool]int{false: 0, true: 10}[strict], refused)
	}
}

// sendBytes sends a recorded request without an HTTP client, which might write it another way.
func sendBytes(t *testing.T, baseURL string, order recordedOrder) (answer string) {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(baseURL, "http://"))
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(time.Minute)))
	request := order.RequestLine + "\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
	for name, value := range order.Headers {
		request += name + ": " + value + "\r\n"
	}
	_, err = io.WriteString(conn, request+"\r\n")
	require.NoError(t, err)
	text, err := io.ReadAll(conn)
	require.NoError(t, err)
	return string(text)
}

func TestALoginErrorThatPassesByItself(t *testing.T) {
	t.Parallel()
	srv := midastest.New(midastest.Config{Errorf: t.Errorf})
	srv.NextOrders(midastest.Fault{Ret: 1018})
	client := newClient(t, srv)
	_, err := client.CreateOrder(t.Context(), orderRequest(midas.QQ))
	var refused *midas.Error
	require.ErrorAs(t, err, &refused)
	require.Equal(t, midas.Error{Ret: 1018, Msg: "请先登录", Code: "1018--2-20"}, *refused)
	_, err = client.CreateOrder(t.Context(), orderRequest(midas.QQ)) // the same openkey
	require.NoError(t, err)
}

func TestAFaultsWordsAreTheRealOnesUnlessGiven(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		fault midastest.Fault
		want  string
	}{
		"1001":      {midastest.Fault{Ret: 1001}, `{"ret":1001,"msg":"请求参数错误"}`},
		"1016":      {midastest.Fault{Ret: 1016}, `{"ret":1016,"msg":"对不起,你还没有接入权限","err_code":"1016-1016-0"}`},
		"1018":      {midastest.Fault{Ret: 1018}, `{"ret":1018,"msg":"请先登录","err_code":"1018--2-20"}`},
		"a msg":     {midastest.Fault{Ret: 1018, Msg: "no"}, `{"ret":1018,"msg":"no"}`},
		"a code":    {midastest.Fault{Ret: 1016, Code: "1016-1"}, `{"ret":1016,"msg":"","err_code":"1016-1"}`},
		"any other": {midastest.Fault{Ret: 9999}, `{"ret":9999,"msg":""}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := midastest.New(midastest.Config{})
			srv.NextOrders(c.fault)
			require.Equal(t, c.want, place(srv, http.MethodGet, "", ""))
		})
	}
}

func TestWhatIsJustWithinTheLimitsIsTaken(t *testing.T) {
	t.Parallel()
	for name, change := range map[string][2]string{
		"pf of 150 bytes":                {"pf", strings.Repeat("x", 150)},
		"goodsurl of 511 bytes":          {"goodsurl", strings.Repeat("x", 511)},
		"app_metadata of 128 bytes":      {"app_metadata", strings.Repeat("x", 128)},
		"payitem of 511 bytes":           {"payitem", strings.Repeat("x", 507) + "*1*1"},
		"2,000,000,000 fen":              {"payitem", "G1*200000000*1"},
		"a price of a fen":               {"payitem", "G1*0.1*1"},
		"goodsmeta of 256 characters":    {"goodsmeta", "剑*" + strings.Repeat("好", 254)},
		"the sum of the items, Q-points": {"amt", "40"},
		"a QQ openid of 33 characters":   {"openid", strings.Repeat("x", 33)},
		"accounttype security":           {"accounttype", "security"},
		"an unknown parameter":           {"out_trade_no", "a b~*ü"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v, params := documentedOrder(t)
			params.Set(change[0], change[1])
			params.Set("sig", signature("request", "GET", v.Path, params, v.AppKey))
			srv := midastest.New(midastest.Config{AppID: v.Params["appid"], AppKey: v.AppKey, Errorf: t.Errorf})
			require.Contains(t, place(srv, http.MethodGet, escaped(params), qqCookies+orgLoc), `{"ret":0,`)
		})
	}
}

func TestAParameterThatIsMissingOrEmptyIsNamed(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"openid", "openkey", "appid", "ts", "pf", "pfkey", "zoneid", "payitem", "goodsmeta", "sig"} {
		for _, empty := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/empty=%t", name, empty), func(t *testing.T) {
				t.Parallel()
				v, params := documentedOrder(t)
				params.Del(name)
				if empty {
					params.Set(name, "")
				}
				if name != "sig" {
					params.Set("sig", signature("request", "GET", v.Path, params, v.AppKey))
				}
				var said complaints
				srv := midastest.New(midastest.Config{AppID: v.Params["appid"], AppKey: v.AppKey, Errorf: said.errorf})
				require.Equal(t, `{"ret":1001,"msg":"请求参数错误(`+name+`)"}`, place(srv, http.MethodGet, escaped(params), qqCookies+orgLoc))
				require.Equal(t, []string{"midastest: order refused: parameter " + name + ": missing or empty"}, said.lines)
			})
		}
	}
}

func TestASignatureThatDiffersIsRefusedWithTheBaseStringToCompare(t *testing.T) {
	t.Parallel()
	for name, sig := range map[string]string{
		"another path's": vectorNamed(t, "constructed-doc-buy-goods-m-openapi-path").Sig,
		"another key's":  signature("request", "GET", "/v3/r/mpay/buy_goods_m", vectorNamed(t, "constructed-doc-buy-goods-m-v3r-path").values(), "Lf6AtMEB1QlE8BYX"),
		"POST's":         signature("request", "POST", "/v3/r/mpay/buy_goods_m", vectorNamed(t, "constructed-doc-buy-goods-m-v3r-path").values(), "Lf6AtMEB1QlE8BYS"),
		"cut short":      "aFAvai4BcfGyLCXETEQg1DzDZhU",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v, params := documentedOrder(t)
			params.Set("sig", sig)
			var said complaints
			var attempt midastest.OrderAttempt
			srv := midastest.New(midastest.Config{
				AppID: v.Params["appid"], AppKey: v.AppKey, Errorf: said.errorf, OnOrder: func(o midastest.OrderAttempt) { attempt = o },
			})
			require.Equal(t, `{"ret":1001,"msg":"sig error"}`, place(srv, http.MethodGet, escaped(params), qqCookies+orgLoc))
			require.Len(t, said.lines, 1)
			require.Contains(t, said.lines[0], "signature does not match")
			require.Equal(t, v.BaseString, attempt.BaseString)
			require.Equal(t, 1001, attempt.Ret)
			require.Empty(t, attempt.Token)
			for _, secret := range []string{v.AppKey, v.Params["openkey"], v.Params["pfkey"], sig} {
				require.NotContains(t, said.lines[0], secret)
			}
		})
	}
}

func TestOlderGatewaysWantPayTokenToFitTheLogin(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, payToken, cookies, answer string }{
		{"QQ with one", "91E5", qqCookies, `{"ret":0,`},
		{"QQ with an empty one", "", qqCookies, `{"ret":1001,"msg":"请求参数错误(pay_token)"}`},
		{"QQ without", "none", qqCookies, `{"ret":1001,"msg":"请求参数错误(pay_token)"}`},
		{"WeChat with an empty one", "", wechatCookies, `{"ret":0,`},
		{"WeChat with one", "91E5", wechatCookies, `{"ret":1001,"msg":"请求参数错误(pay_token)"}`},
		{"H5 with an empty one", "", "session_id=openid; session_type=openkey; ", `{"ret":0,`},
		{"WeChat without", "none", wechatCookies, `{"ret":1001,"msg":"请求参数错误(pay_token)"}`},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			v := vectorNamed(t, "constructed-doc-buy-goods-m-openapi-path")
			params := v.values()
			params.Set("pay_token", test.payToken)
			if test.payToken == "none" {
				params.Del("pay_token")
			}
			params.Set("sig", signature("request", "GET", v.Path, params, v.AppKey))
			srv := midastest.New(midastest.Config{AppID: v.Params["appid"], AppKey: v.AppKey, Like: midas.MSDKSandbox()})
			body := place(srv, http.MethodGet, escaped(params), test.cookies+msdkOrgLoc)
			require.True(t, strings.HasPrefix(body, test.answer), body)
		})
	}
}

func TestRequestsThatAreNoOrdersAreComplainedAbout(t *testing.T) {
	t.Parallel()
	v, params := documentedOrder(t)
	for _, test := range []struct {
		name, method, target string
		status               int
		says                 string
	}{
		{"POST", http.MethodPost, "/mpay/buy_goods_m?" + escaped(params), 200, "POST, want GET"},
		{"a value that is not escaped", http.MethodGet, "/mpay/buy_goods_m?" + escaped(params) + "&goodsname=100%", 200, "not percent-encoded"},
		{"a parameter that comes twice", http.MethodGet, "/mpay/buy_goods_m?" + escaped(params) + "&zoneid=2", 200, "parameter zoneid: sent twice"},
		{"the signed path instead of the URL's", http.MethodGet, "/v3/r/mpay/buy_goods_m?" + escaped(params), 404, "no such path"},
		{"another call", http.MethodGet, "/mpay/pay_m?" + escaped(params), 404, "no such path"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var said complaints
			srv := midastest.New(midastest.Config{AppID: v.Params["appid"], AppKey: v.AppKey, Errorf: said.errorf})
			w := httptest.NewRecorder()
			r := httptest.NewRequest(test.method, test.target, nil)
			r.Header.Set("Cookie", qqCookies+orgLoc)
			srv.ServeHTTP(w, r)
			require.Equal(t, test.status, w.Code)
			require.Len(t, said.lines, 1)
			require.Contains(t, said.lines[0], test.says)
			for _, secret := range []string{v.Params["openkey"], v.Params["pfkey"], v.Sig} {
				require.NotContains(t, said.lines[0], secret)
			}
		})
	}
}

func TestEachFaultIsMetOnceWithAndWithoutSockets(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		fault midastest.Fault
		check func(*testing.T, error)
	}{
		{"an HTTP status", midastest.Fault{Status: 502}, func(t *testing.T, err error) {
			var unusable *midas.ResponseError
			require.ErrorAs(t, err, &unusable)
			require.Equal(t, 502, unusable.StatusCode)
			require.Equal(t, "text/html", unusable.ContentType)
		}},
		{"HTML", midastest.Fault{HTML: true}, func(t *testing.T, err error) {
			var unusable *midas.ResponseError
			require.ErrorAs(t, err, &unusable)
			require.Equal(t, 200, unusable.StatusCode)
			require.Equal(t, "text/html", unusable.ContentType)
		}},
		{"a body that is cut", midastest.Fault{Cut: true}, func(t *testing.T, err error) {
			require.ErrorIs(t, err, io.ErrUnexpectedEOF)
			var unusable *midas.ResponseError
			require.ErrorAs(t, err, &unusable)
			require.Equal(t, 200, unusable.StatusCode)
		}},
		{"a body of one's own", midastest.Fault{Body: `{"ret":"1002","msg":"busy"}`}, func(t *testing.T, err error) {
			var refused *midas.Error
			require.ErrorAs(t, err, &refused)
			require.Equal(t, midas.Error{Ret: 1002, Msg: "busy"}, *refused)
		}},
		{"a ret", midastest.Fault{Ret: 1018, Msg: "请先登录", Code: "1018--2-20"}, func(t *testing.T, err error) {
			require.ErrorIs(t, err, midas.ErrLoginExpired)
			var refused *midas.Error
			require.ErrorAs(t, err, &refused)
			require.Equal(t, midas.Error{Ret: 1018, Msg: "请先登录", Code: "1018--2-20"}, *refused)
		}},
	} {
		for _, sockets := range []bool{true, false} {
			t.Run(test.name+map[bool]string{true: " over a socket", false: " in process"}[sockets], func(t *testing.T) {
				t.Parallel()
				srv := midastest.New(midastest.Config{Errorf: t.Errorf})
				if sockets {
					srv = midastest.NewServer(midastest.Config{Errorf: t.Errorf})
					defer srv.Close()
				}
				client := newClient(t, srv)
				srv.NextOrders(test.fault)
				_, err := client.CreateOrder(t.Context(), orderRequest(midas.QQ))
				test.check(t, err)
				_, err = client.CreateOrder(t.Context(), orderRequest(midas.QQ))
				require.NoError(t, err, "after its fault an order works again")
			})
		}
	}
}

func TestAPageThatRepeatsTheURLRunsNoneOfIt(t *testing.T) {
	t.Parallel()
	srv := midastest.New(midastest.Config{Errorf: t.Errorf})
	srv.NextOrders(midastest.Fault{HTML: true})
	body := place(srv, http.MethodGet, `a=<script>alert("1")</script>&b='`, "")
	require.Equal(t, "<html><body><h1>midastest: fault asked for</h1><p>/mpay/buy_goods_m?a=&lt;script&gt;alert(&#34;1&#34;)&lt;/script&gt;&amp;b=&#39;</p></body></html>", body)
}

func TestFaultsAreMetInTheirSequence(t *testing.T) {
	t.Parallel()
	srv := midastest.New(midastest.Config{Errorf: t.Errorf})
	srv.NextOrders(midastest.Fault{Ret: 1016}, midastest.Fault{}, midastest.Fault{Ret: 1018})
	client := newClient(t, srv)
	for _, want := range []error{midas.ErrPermission, nil, midas.ErrLoginExpired, nil} {
		_, err := client.CreateOrder(t.Context(), orderRequest(midas.QQ))
		require.ErrorIs(t, err, want)
	}
}

func TestADelayedOrder(t *testing.T) {
	t.Parallel()
	t.Run("is answered late", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			srv := midastest.New(midastest.Config{Errorf: t.Errorf})
			srv.NextOrders(midastest.Fault{Delay: time.Hour})
			start := time.Now()
			_, err := newClient(t, srv).CreateOrder(t.Context(), orderRequest(midas.QQ))
			require.NoError(t, err)
			require.Equal(t, time.Hour, time.Since(start))
		})
	})
	t.Run("is left by a caller without patience", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			attempts := make(chan midastest.OrderAttempt, 1)
			srv := midastest.New(midastest.Config{Errorf: t.Errorf, OnOrder: func(o midastest.OrderAttempt) { attempts <- o }})
			srv.NextOrders(midastest.Fault{Delay: time.Hour})
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			start := time.Now()
			_, err := newClient(t, srv).CreateOrder(ctx, orderRequest(midas.QQ))
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.Equal(t, 3*time.Second, time.Since(start))
			attempt := <-attempts
			require.Zero(t, attempt.Status)
			require.Contains(t, attempt.Problem, "hung up")
		})
	})
}

func TestAForgottenOrderCannotBePaid(t *testing.T) {
	t.Parallel()
	srv := midastest.New(midastest.Config{})
	srv.DeliverToHandler(http.NotFoundHandler(), deliveryPath)
	token := srv.AppOrder(orderRequest(midas.QQ))
	srv.Forget(token)
	_, err := srv.Pay(t.Context(), token)
	require.ErrorIs(t, err, midas.ErrTokenNotFound)
}
