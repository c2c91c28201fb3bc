package midas_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/midas-go/midas"
	"github.com/stretchr/testify/require"
)

func TestAnOrderGoesOutAsTheProtocolSays(t *testing.T) {
	t.Parallel()
	g := newGateway(t, answering(goldenAnswer))
	order, err := g.client(t, at(1518081937)).CreateOrder(t.Context(), goldenOrder())
	require.NoError(t, err)

	require.Len(t, g.requests, 1)
	r := g.requests[0]
	require.Equal(t, http.MethodGet, r.Method)
	require.Equal(t, "/mpay/buy_goods_m", r.URL.Path)
	require.Equal(t, "app_metadata=shop%2A42&appid=1450000000&appmode=1&format=json&goodsmeta=%E5%B1%A0%E9%BE%99%20%E5%88%80%2A%E4%B8%80%E6%8A%8A%7E%E5%88%80&goodsurl=&openid=o_TEST-openid&openkey=test%2Bopenkey%2F1&payitem=sword%2A60%2A2&pf=qq_m_qq-2001-android-2011-xxxx&pfkey=test%3Dpfkey&ts=1518081937&zoneid=1"+
		"&sig=DPPT2MZpK9gU%2F0hc5DBXQeUkFwk%3D", r.URL.RawQuery)
	require.Equal(t, "session_id=openid; session_type=kp_actoken; org_loc=%2Fv3%2Fr%2Fmpay%2Fbuy_goods_m", r.Header.Get("Cookie"))

	require.Equal(t, &midas.Order{
		Token:     "842C2C19D11B7780D0E9B4D8E73ED80531721",
		URLParams: "/v1/sx8/1450000000/mobile_goods_info?token_id=842C2C19D11B7780D0E9B4D8E73ED80531721",
		Expires:   time.Unix(1518081937+300, 0),
	}, order)
}

func TestTheOlderGatewaysAreSignedForTheirOwnPath(t *testing.T) {
	t.Parallel()
	g := newGateway(t, answering(goldenAnswer))
	c := g.client(t, at(1518081937), func(cfg *midas.Config) {
		cfg.Gateway = midas.MSDKSandbox().At(g.URL + "/") // a slash too many does no harm
	})
	req := goldenOrder()
	req.Player.Login = midas.WeChat
	req.Player.PayToken = "not for WeChat"
	req.Items = []midas.Item{{ID: "sword", Price: midas.Fen, Quantity: 1}, {ID: "shield", Price: 60 * midas.QPoint, Quantity: 2}}
	req.Player.UserIP = "192.0.2.7"
	_, err := c.CreateOrder(t.Context(), req)
	require.NoError(t, err)

	r := g.requests[0]
	require.Equal(t, "/mpay/buy_goods_m", r.URL.Path)
	require.Equal(t, "XzdY48VoKQuj5AS3sYgiCn6nBvE=", r.URL.Query().Get("sig")) // by PHP
	require.Equal(t, []string{""}, r.URL.Query()["pay_token"])
	require.Equal(t, "session_id=hy_gameid; session_type=wc_actoken; org_loc=%2Fmpay%2Fbuy_goods_m", r.Header.Get("Cookie"))
}

func TestEachLoginHasItsSessionCookies(t *testing.T) {
	t.Parallel()
	for login, want := range map[midas.Login]string{ // protocol.md 4
		midas.QQ:     "session_id=openid; session_type=kp_actoken",
		midas.WeChat: "session_id=hy_gameid; session_type=wc_actoken",
		midas.Guest:  "session_id=hy_gameid; session_type=st_dummy",
		midas.H5:     "session_id=openid; session_type=openkey",
	} {
		t.Run(string(login), func(t *testing.T) {
			t.Parallel()
			g := newGateway(t, answering(goldenAnswer))
			c := g.client(t, func(cfg *midas.Config) { cfg.Gateway.OrgLocPrefix = "" }) // as Tencent's PHP SDK sends it
			req := goldenOrder()
			req.Player.Login = login
			_, err := c.CreateOrder(t.Context(), req)
			require.NoError(t, err)
			require.Equal(t, want+"; org_loc=%2Fmpay%2Fbuy_goods_m", g.requests[0].Header.Get("Cookie"))
		})
	}
}

func TestOptionalParametersAreSentWhenSet(t *testing.T) {
	t.Parallel()
	g := newGateway(t, answering(goldenAnswer))
	req := goldenOrder()
	req.Player.ZoneID, req.GoodsURL, req.Player.UserIP, req.AccountType = "2_role%201", "http://example.com/剑.png", "2001:db8::1", "security"
	req.MaxQuantity = 3
	req.Extra = url.Values{"out_trade_no": {"T 1"}, "sp_info": {""}}
	_, err := g.client(t, at(1518081937)).CreateOrder(t.Context(), req)
	require.NoError(t, err)

	got, err := url.ParseQuery(g.requests[0].URL.RawQuery)
	require.NoError(t, err)
	sig := got.Get("sig")
	require.Equal(t, url.Values{
		"openid": {"o_TEST-openid"}, "openkey": {"test+openkey/1"}, "appid": {testAppID}, "ts": {"1518081937"},
		"pf": {"qq_m_qq-2001-android-2011-xxxx"}, "pfkey": {"test=pfkey"}, "zoneid": {"2_role%201"},
		"payitem": {"sword*60*2"}, "goodsmeta": {"屠龙 刀*一把~刀"}, "goodsurl": {"http://example.com/剑.png"},
		"appmode": {"2"}, "max_num": {"3"}, "app_metadata": {"shop*42"}, "userip": {"2001:db8::1"}, "format": {"json"},
		"accounttype": {"security"}, "out_trade_no": {"T 1"}, "sp_info": {""}, "sig": {sig},
	}, got)
	require.Equal(t, midas.Sign("GET", "/v3/r/mpay/buy_goods_m", got, testAppKey), sig)
}

func TestABadOrderIsRefusedByNameAndNotSent(t *testing.T) {
	t.Parallel()
	const (
		ysdk  = false
		older = true // a gateway with pay_token
	)
	item := func(id string, price midas.Amount, quantity int) func(*midas.OrderRequest) {
		return func(r *midas.OrderRequest) { r.Items = []midas.Item{{ID: id, Price: price, Quantity: quantity}} }
	}
	guest := func(openid string) func(*midas.OrderRequest) {
		return func(r *midas.OrderRequest) { r.Player.Login, r.Player.OpenID = midas.Guest, openid }
	}
	for _, test := range []struct {
		what   string
		older  bool
		change func(*midas.OrderRequest)
		param  string // "" is accepted
		field  string
	}{
		{"no login", ysdk, func(r *midas.OrderRequest) { r.Player.Login = "" }, "session_type", "Player.Login"},
		{"unknown login", ysdk, func(r *midas.OrderRequest) { r.Player.Login = "QQ" }, "session_type", "Player.Login"},
		{"no openid", ysdk, func(r *midas.OrderRequest) { r.Player.OpenID = "" }, "openid", "Player.OpenID"},
		{"a guest's openid of 33 characters", ysdk, guest(strings.Repeat("访", 33)), "openid", "Player.OpenID"},
		{"a guest's openid of 32 characters", ysdk, guest(strings.Repeat("访", 32)), "", ""},
		{"a guest's openid with a bracket", ysdk, guest("a(b"), "openid", "Player.OpenID"},
		{"a guest's openid with a caret", ysdk, guest("a^b"), "openid", "Player.OpenID"},
		{"a QQ openid with a bracket", ysdk, func(r *midas.OrderRequest) { r.Player.OpenID = "a(b" }, "", ""},
		{"no openkey", ysdk, func(r *midas.OrderRequest) { r.Player.OpenKey = "" }, "openkey", "Player.OpenKey"},
		{"an openkey of 1025 bytes", ysdk, func(r *midas.OrderRequest) { r.Player.OpenKey = strings.Repeat("-", 1025) }, "openkey", "Player.OpenKey"},
		{"an openkey of 1024 bytes", ysdk, func(r *midas.OrderRequest) { r.Player.OpenKey = strings.Repeat("-", 1024) }, "", ""},
		{"an openkey that is not UTF-8", ysdk, func(r *midas.OrderRequest) { r.Player.OpenKey = "open\xffkey" }, "openkey", "Player.OpenKey"},
		{"a pfkey of 1025 bytes", ysdk, func(r *midas.OrderRequest) { r.Player.PFKey = strings.Repeat("-", 1025) }, "pfkey", "Player.PFKey"},
		{"a pay_token of 1025 bytes", ysdk, func(r *midas.OrderRequest) { r.Player.PayToken = strings.Repeat("-", 1025) }, "pay_token", "Player.PayToken"},
		{"an openid of 1025 bytes", ysdk, func(r *midas.OrderRequest) { r.Player.OpenID = strings.Repeat("-", 1025) }, "openid", "Player.OpenID"},
		{"a zone of 1025 bytes", ysdk, func(r *midas.OrderRequest) { r.Player.ZoneID = strings.Repeat("1", 1025) }, "zoneid", "Player.ZoneID"},
		{"a zone that is not UTF-8", ysdk, func(r *midas.OrderRequest) { r.Player.ZoneID = "1_\xff" }, "zoneid", "Player.ZoneID"},
		{"no zone", ysdk, func(r *midas.OrderRequest) { r.Player.ZoneID = "" }, "", ""},
		{"1025 bytes in Extra", ysdk, func(r *midas.OrderRequest) { r.Extra = url.Values{"x": {strings.Repeat("-", 1025)}} }, "x", `Extra["x"]`},
		{"no pay_token on YSDK", ysdk, func(r *midas.OrderRequest) { r.Player.PayToken = "" }, "", ""},
		{"no pay_token with QQ on an older gateway", older, func(r *midas.OrderRequest) { r.Player.PayToken = "" }, "pay_token", "Player.PayToken"},
		{"no pay_token with WeChat on an older gateway", older, func(r *midas.OrderRequest) { r.Player.Login = midas.WeChat }, "", ""},
		{"no pf", ysdk, func(r *midas.OrderRequest) { r.Player.PF = "" }, "pf", "Player.PF"},
		{"pf of 150 bytes", ysdk, func(r *midas.OrderRequest) { r.Player.PF = strings.Repeat("p", 150) }, "", ""},
		{"pf of 151 bytes", ysdk, func(r *midas.OrderRequest) { r.Player.PF = strings.Repeat("p", 151) }, "pf", "Player.PF"},
		{"no pfkey", ysdk, func(r *midas.OrderRequest) { r.Player.PFKey = "" }, "pfkey", "Player.PFKey"},
		{"no items", ysdk, func(r *midas.OrderRequest) { r.Items = nil }, "payitem", "Items"},
		{"an item without id", ysdk, item("", 10, 1), "payitem", "Items[0].ID"},
		{"an id with a star", ysdk, item("a*b", 10, 1), "payitem", "Items[0].ID"},
		{"an id with a semicolon", ysdk, item("a;b", 10, 1), "payitem", "Items[0].ID"},
		{"an id with a bar", ysdk, item("a|b", 10, 1), "payitem", "Items[0].ID"},
		{"an id with a blank", ysdk, item("a b", 10, 1), "payitem", "Items[0].ID"},
		{"an id with a line end", ysdk, item("a\n", 10, 1), "payitem", "Items[0].ID"},
		{"an id that is not ASCII", ysdk, item("剑", 10, 1), "payitem", "Items[0].ID"},
		{"a free item", ysdk, item("a", 0, 1), "payitem", "Items[0].Price"},
		{"a negative price", ysdk, item("a", -1, 1), "payitem", "Items[0].Price"},
		{"no quantity", ysdk, item("a", 10, 0), "payitem", "Items[0].Quantity"},
		{"a negative quantity", ysdk, item("a", 10, -1), "payitem", "Items[0].Quantity"},
		{"2,000,000,000 fen", ysdk, item("a", 1_000_000_000, 2), "", ""},
		{"one fen more", ysdk, item("a", 2_000_000_001, 1), "payitem", "Items"},
		{"a total that overflows int64", ysdk, item("a", 1<<62, 4), "payitem", "Items"},
		{"a total over several items", ysdk, func(r *midas.OrderRequest) {
			r.Items = []midas.Item{{"a", 1_999_999_999, 1}, {"b", 1, 2}}
		}, "payitem", "Items"},
		{"payitem of 511 bytes", ysdk, item(strings.Repeat("i", 506), 100, 1), "", ""}, // and "*10*1"
		{"payitem of 512 bytes", ysdk, item(strings.Repeat("i", 507), 100, 1), "payitem", "Items"},
		{"no name", ysdk, func(r *midas.OrderRequest) { r.GoodsName = "" }, "goodsmeta", "GoodsName"},
		{"no description", ysdk, func(r *midas.OrderRequest) { r.GoodsDescription = "" }, "goodsmeta", "GoodsDescription"},
		{"a star in the name", ysdk, func(r *midas.OrderRequest) { r.GoodsName = "a*b" }, "goodsmeta", "GoodsName"},
		{"a line end in the description", ysdk, func(r *midas.OrderRequest) { r.GoodsDescription = "a\nb" }, "goodsmeta", "GoodsDescription"},
		{"a carriage return in the name", ysdk, func(r *midas.OrderRequest) { r.GoodsName = "a\rb" }, "goodsmeta", "GoodsName"},
		{"a name in GBK", ysdk, func(r *midas.OrderRequest) { r.GoodsName = "\xb5\xc0\xbe\xdf" }, "goodsmeta", "GoodsName"},
		{"goodsmeta of 256 characters", ysdk, func(r *midas.OrderRequest) { r.GoodsName, r.GoodsDescription = "刀", strings.Repeat("刀", 254) }, "", ""},
		{"goodsmeta of 257 characters", ysdk, func(r *midas.OrderRequest) { r.GoodsName, r.GoodsDescription = "刀", strings.Repeat("刀", 255) }, "goodsmeta", "GoodsName"},
		{"goodsurl of 511 bytes", ysdk, func(r *midas.OrderRequest) { r.GoodsURL = strings.Repeat("u", 511) }, "", ""},
		{"goodsurl of 512 bytes", ysdk, func(r *midas.OrderRequest) { r.GoodsURL = strings.Repeat("u", 512) }, "goodsurl", "GoodsURL"},
		{"MaxQuantity equal to the quantity", ysdk, func(r *midas.OrderRequest) { r.MaxQuantity = 2 }, "max_num", "MaxQuantity"},
		{"a negative MaxQuantity", ysdk, func(r *midas.OrderRequest) { r.MaxQuantity = -1 }, "max_num", "MaxQuantity"},
		{"MaxQuantity with two items", ysdk, func(r *midas.OrderRequest) {
			r.MaxQuantity, r.Items = 9, []midas.Item{{"a", 10, 1}, {"b", 10, 1}}
		}, "max_num", "MaxQuantity"},
		{"metadata of 128 bytes", ysdk, func(r *midas.OrderRequest) { r.Metadata = strings.Repeat("m", 128) }, "", ""},
		{"metadata of 129 bytes", ysdk, func(r *midas.OrderRequest) { r.Metadata = strings.Repeat("m", 129) }, "app_metadata", "Metadata"},
		{"metadata that is not ASCII", ysdk, func(r *midas.OrderRequest) { r.Metadata = "订单" }, "app_metadata", "Metadata"},
		{"an address with a port", ysdk, func(r *midas.OrderRequest) { r.Player.UserIP = "192.0.2.7:80" }, "userip", "Player.UserIP"},
		{"an unknown account type", ysdk, func(r *midas.OrderRequest) { r.AccountType = "gold" }, "accounttype", "AccountType"},
		{"a table name in Extra", ysdk, func(r *midas.OrderRequest) { r.Extra = url.Values{"amt": {"20"}} }, "amt", `Extra["amt"]`},
		{"sig in Extra", ysdk, func(r *midas.OrderRequest) { r.Extra = url.Values{"sig": {"x"}} }, "sig", `Extra["sig"]`},
		{"an odd name in Extra", ysdk, func(r *midas.OrderRequest) { r.Extra = url.Values{"a=b": {"x"}} }, "", `Extra["a=b"]`},
		{"two values in Extra", ysdk, func(r *midas.OrderRequest) { r.Extra = url.Values{"x": {"1", "2"}} }, "x", `Extra["x"]`},
	} {
		t.Run(test.what, func(t *testing.T) {
			t.Parallel()
			g := newGateway(t, answering(goldenAnswer))
			req := goldenOrder()
			test.change(&req)
			_, err := g.client(t, func(cfg *midas.Config) { cfg.Gateway.PayToken = test.older }).CreateOrder(t.Context(), req)
			if test.field == "" {
				require.NoError(t, err)
				return
			}
			require.Equal(t, []string{test.field + " " + test.param}, wrongFields(t, err))
			require.ErrorContains(t, err, "midas: buy_goods_m: "+test.field)
			require.Equal(t, 1, midas.ReplyTo(err).Ret(), "it says nothing about a callback")
			require.Empty(t, g.requests)
		})
	}
}

// wrongFields returns field and parameter of each error joined in that of an order.
func wrongFields(t *testing.T, err error) (fields []string) {
	require.ErrorIs(t, err, midas.ErrNotSent)
	joined, ok := errors.Unwrap(errors.Unwrap(err)).(interface{ Unwrap() []error })
	require.True(t, ok, "%v", err)
	for _, err := range joined.Unwrap() {
		var param *midas.FieldError
		require.ErrorAs(t, err, &param)
		require.NotEmpty(t, param.Reason)
		fields = append(fields, param.Field+" "+param.Param)
	}
	return fields
}

func TestAllWrongFieldsOfAnOrderAreReportedAtOnce(t *testing.T) {
	t.Parallel()
	c := newClient(t, midas.Config{AppID: testAppID, AppKey: testAppKey, Gateway: midas.MSDK()})
	_, err := c.CreateOrder(t.Context(), midas.OrderRequest{})
	require.Equal(t, []string{
		"Player.Login session_type", "Player.OpenID openid", "Player.OpenKey openkey", "Player.PF pf", "Player.PFKey pfkey",
		"GoodsName goodsmeta", "GoodsDescription goodsmeta", "Items payitem",
	}, wrongFields(t, err))

	_, err = c.CreateOrder(t.Context(), midas.OrderRequest{
		Player:    midas.Player{Login: midas.QQ, OpenID: "\xff", OpenKey: strings.Repeat("k", 1025), PF: strings.Repeat("p", 151), PFKey: "k", UserIP: "localhost"},
		Items:     []midas.Item{{ID: "a*b", Price: 0, Quantity: -1}, {ID: "a", Price: 1, Quantity: 1}, {Price: 2_000_000_001, Quantity: 1}},
		GoodsName: "*", GoodsDescription: strings.Repeat("d", 256), GoodsURL: strings.Repeat("u", 512), Metadata: strings.Repeat("号", 43),
		AccountType: "gold", MaxQuantity: 3, Extra: url.Values{"ts": {"1"}, "b": {"1", "2"}, "剑": {""}},
	})
	require.Equal(t, []string{
		"Player.OpenID openid", "Player.OpenKey openkey", "Player.PayToken pay_token", "Player.PF pf", "Player.UserIP userip", "GoodsURL goodsurl", "Metadata app_metadata",
		"Items[0].ID payitem", "Items[0].Price payitem", "Items[0].Quantity payitem", "Items[2].ID payitem", "Items payitem",
		"GoodsName goodsmeta", "GoodsName goodsmeta", "MaxQuantity max_num", "Metadata app_metadata",
		"AccountType accounttype", `Extra["b"] b`, `Extra["ts"] ts`, `Extra["剑"] `,
	}, wrongFields(t, err))
}

// The word that people type is not the one that the apps send.
func TestAnUnknownLoginIsToldTheKnownOnes(t *testing.T) {
	t.Parallel()
	for _, login := range []midas.Login{"wechat", "WX", "QQ", ""} {
		t.Run(string(login), func(t *testing.T) {
			t.Parallel()
			req := goldenOrder()
			req.Player.Login = login
			_, err := newClient(t, midas.Config{AppID: testAppID, AppKey: testAppKey}).CreateOrder(t.Context(), req)
			require.EqualError(t, err, `midas: buy_goods_m: Player.Login (parameter session_type): unknown: want midas.QQ ("qq"), midas.WeChat ("wx"), midas.Guest ("guest") or midas.H5 ("h5")`)
		})
	}
}

func TestAnOrderNeedsAContext(t *testing.T) {
	t.Parallel()
	g := newGateway(t, answering(goldenAnswer))
	var none context.Context
	_, err := g.client(t).CreateOrder(none, goldenOrder())
	var param *midas.FieldError
	require.ErrorAs(t, err, &param)
	require.Equal(t, "ctx", param.Field)
	require.EqualError(t, err, "midas: buy_goods_m: ctx: is nil: pass the context of the player's request")
	require.Equal(t, 1, midas.ReplyTo(err).Ret())
	require.Empty(t, g.requests)
}

func TestEveryNameOfTheTableIsRefusedInExtra(t *testing.T) {
	t.Parallel()
	c := newClient(t, midas.Config{AppID: testAppID, AppKey: testAppKey})
	// protocol.md 3, first column
	for name := range strings.FieldsSeq("openid openkey pay_token appid ts pf pfkey zoneid payitem goodsmeta goodsurl amt appmode max_num app_metadata userip format accounttype sig") {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			req := goldenOrder()
			req.Extra = url.Values{name: {"x"}}
			_, err := c.CreateOrder(t.Context(), req)
			require.EqualError(t, err, fmt.Sprintf("midas: buy_goods_m: Extra[%q] (parameter %s): not allowed here: the library sets it", name, name))
		})
	}
}
