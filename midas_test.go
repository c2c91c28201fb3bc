package midas_test

import (
	"crypto/tls"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/midas-go/midas"
	"github.com/stretchr/testify/require"
)

func TestGateways(t *testing.T) {
	t.Parallel()
	// protocol.md 2 and 4
	require.Equal(t, midas.Gateway{BaseURL: "https://ysdk.qq.com", SignPrefix: "/v3/r", OrgLocPrefix: "/v3/r"}, midas.Production())
	require.Equal(t, midas.Gateway{BaseURL: "https://ysdktest.qq.com", SignPrefix: "/v3/r", OrgLocPrefix: "/v3/r"}, midas.Sandbox())
	require.Equal(t, midas.Gateway{BaseURL: "http://msdk.qq.com", PayToken: true}, midas.MSDK())
	require.Equal(t, midas.Gateway{BaseURL: "http://msdktest.qq.com", PayToken: true}, midas.MSDKSandbox())
}

func TestAGatewayAtAnotherAddressIsSignedAlike(t *testing.T) {
	t.Parallel()
	g := midas.MSDK()
	require.Equal(t, midas.Gateway{BaseURL: "http://127.0.0.1:9100", PayToken: true}, g.At("http://127.0.0.1:9100"))
	require.Equal(t, midas.MSDK(), g, "it is a copy")
	require.Equal(t, midas.Gateway{BaseURL: "https://proxy.example/midas", SignPrefix: "/v3/r", OrgLocPrefix: "/v3/r"}, midas.Sandbox().At("https://proxy.example/midas"))

	proxy := newGateway(t, answering(goldenAnswer))
	c := newClient(t, midas.Config{AppID: testAppID, AppKey: testAppKey, Gateway: midas.Sandbox().At(proxy.URL + "/midas")}, at(1518081937))
	_, err := c.CreateOrder(t.Context(), goldenOrder())
	require.NoError(t, err)
	r := proxy.requests[0]
	require.Equal(t, "/midas/mpay/buy_goods_m", r.URL.Path)
	require.Equal(t, "DPPT2MZpK9gU/0hc5DBXQeUkFwk=", r.URL.Query().Get("sig")) // by PHP, as without the proxy
	require.Contains(t, r.Header.Get("Cookie"), "org_loc=%2Fv3%2Fr%2Fmpay%2Fbuy_goods_m")
}

// An http.Client without a transport uses http.DefaultTransport, which anything in the process may
// have changed. Not a parallel test: it does so itself.
func TestADefaultTransportWithoutTLSVerificationIsRefused(t *testing.T) {
	previous := http.DefaultTransport
	defer func() { http.DefaultTransport = previous }()
	http.DefaultTransport = &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}

	_, err := midas.New(midas.Config{AppID: testAppID, AppKey: testAppKey, HTTPClient: &http.Client{}})
	var configErr *midas.ConfigError
	require.ErrorAs(t, err, &configErr)
	require.Equal(t, "HTTPClient", configErr.Field)
	require.ErrorContains(t, err, "RootCAs")

	_, err = midas.New(midas.Config{AppID: testAppID, AppKey: testAppKey})
	require.NoError(t, err, "the library's own client does not use it")
	_, err = midas.New(midas.Config{AppID: testAppID, AppKey: testAppKey, HTTPClient: &http.Client{Transport: roundTripper(nil)}})
	require.NoError(t, err, "a transport of one's own does not, either")
}

func TestTheZeroGatewayIsProduction(t *testing.T) {
	t.Parallel()
	var host string
	c := newClient(t, midas.Config{AppID: testAppID, AppKey: testAppKey, MaxRetries: -1, HTTPClient: &http.Client{
		Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			host = r.URL.Scheme + "://" + r.URL.Host
			return nil, errors.New("offline")
		})}})
	_, err := c.CreateOrder(t.Context(), goldenOrder())
	require.ErrorContains(t, err, "offline")
	require.Equal(t, "https://ysdk.qq.com", host)
}

func TestNewNamesEachWrongField(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		what   string
		change func(*midas.Config)
		field  string // "" is accepted
		says   string
	}{
		{"nothing wrong", func(*midas.Config) {}, "", ""},
		{"no delivery path", func(cfg *midas.Config) { cfg.DeliveryPath = "" }, "", ""},
		{"no app id", func(cfg *midas.Config) { cfg.AppID = "" }, "AppID", "set the offer id"},
		{"an app id with a line end", func(cfg *midas.Config) { cfg.AppID += "\n" }, "AppID", "whitespace"},
		{"no key", func(cfg *midas.Config) { cfg.AppKey = "" }, "AppKey", "set the pay key"},
		{"a key with the &", func(cfg *midas.Config) { cfg.AppKey += "&" }, "AppKey", `leave the "&" out`},
		{"a key with a blank", func(cfg *midas.Config) { cfg.AppKey = " " + cfg.AppKey }, "AppKey", "whitespace"},
		{"a key with a no-break space", func(cfg *midas.Config) { cfg.AppKey += "\u00a0" }, "AppKey", "whitespace"},
		{"a key with an ideographic space", func(cfg *midas.Config) { cfg.AppKey += "\u3000" }, "AppKey", "whitespace"},
		{"a key with a zero-width space", func(cfg *midas.Config) { cfg.AppKey += "\u200b" }, "AppKey", "invisible"},
		{"a key that is not UTF-8", func(cfg *midas.Config) { cfg.AppKey += "\xff" }, "AppKey", "copied"},
		{"a key of 1025 bytes", func(cfg *midas.Config) { cfg.AppKey = strings.Repeat("-", 1025) }, "AppKey", "copied"},
		{"a key in quotes", func(cfg *midas.Config) { cfg.AppKey = `"` + cfg.AppKey + `"` }, "AppKey", "quotes"},
		{"a gateway without BaseURL", func(cfg *midas.Config) { cfg.Gateway = midas.Gateway{PayToken: true} }, "Gateway", "Sandbox()"},
		{"a BaseURL without scheme", func(cfg *midas.Config) { cfg.Gateway.BaseURL = "ysdk.qq.com" }, "Gateway", "https://host"},
		{"a BaseURL of another scheme", func(cfg *midas.Config) { cfg.Gateway.BaseURL = "ftp://ysdk.qq.com" }, "Gateway", "https://host"},
		{"a BaseURL that is none", func(cfg *midas.Config) { cfg.Gateway.BaseURL = "https://%zz" }, "Gateway", "https://host"},
		{"a BaseURL with a password", func(cfg *midas.Config) { cfg.Gateway.BaseURL = "https://a:b@ysdk.qq.com" }, "Gateway", "user"},
		{"a BaseURL with a query", func(cfg *midas.Config) { cfg.Gateway.BaseURL = "https://ysdk.qq.com?a=b" }, "Gateway", "query"},
		{"a BaseURL with a fragment", func(cfg *midas.Config) { cfg.Gateway.BaseURL = "https://ysdk.qq.com#x" }, "Gateway", "fragment"},
		{"a BaseURL with an empty fragment", func(cfg *midas.Config) { cfg.Gateway.BaseURL = "https://ysdk.qq.com#" }, "Gateway", "fragment"},
		{"a BaseURL with half the API path", func(cfg *midas.Config) { cfg.Gateway.BaseURL = "https://ysdk.qq.com/mpay/" }, "Gateway", "leave"},
		{"a BaseURL with the API path", func(cfg *midas.Config) { cfg.Gateway.BaseURL = "https://ysdk.qq.com/mpay/buy_goods_m" }, "Gateway", "leave"},
		{"a prefix without /", func(cfg *midas.Config) { cfg.Gateway.SignPrefix = "v3/r" }, "Gateway", "prefix"},
		{"a prefix with / at the end", func(cfg *midas.Config) { cfg.Gateway.OrgLocPrefix = "/v3/r/" }, "Gateway", "prefix"},
		{"a delivery URL", func(cfg *midas.Config) { cfg.DeliveryPath = "https://game.example/pay" }, "DeliveryPath", "give its path alone"},
		{"a relative delivery path", func(cfg *midas.Config) { cfg.DeliveryPath = "pay/notify" }, "DeliveryPath", "does not begin"},
		{"a delivery path with a query", func(cfg *midas.Config) { cfg.DeliveryPath = "/pay?a=b" }, "DeliveryPath", "query"},
		{"an escaped delivery path", func(cfg *midas.Config) { cfg.DeliveryPath = "/%E5%89%91" }, "DeliveryPath", "escaped"},
		{"a Chinese delivery path", func(cfg *midas.Config) { cfg.DeliveryPath = "/回调" }, "DeliveryPath", "escaped"},
		{"a delivery path with a blank", func(cfg *midas.Config) { cfg.DeliveryPath = "/pay notify" }, "DeliveryPath", "escaped"},
		{"a delivery path with ServeMux's {$}", func(cfg *midas.Config) { cfg.DeliveryPath = "/pay/notify/{$}" }, "DeliveryPath", "escaped"},
		{"the path of orders", func(cfg *midas.Config) { cfg.DeliveryPath = "/v3/r/mpay/buy_goods_m" }, "DeliveryPath", "your own delivery URL"},
		{"a WeChat app id on YSDK", func(cfg *midas.Config) { cfg.AppID = "wx0123456789abcdef" }, "AppID", "is a WeChat app id"},
		{"a WeChat app id on the live YSDK", func(cfg *midas.Config) { cfg.AppID, cfg.Gateway = "wx0123456789abcdef", midas.Gateway{} }, "AppID", "charged with the offer id too"},
		{"a WeChat app id on a YSDK sandbox elsewhere", func(cfg *midas.Config) {
			cfg.AppID, cfg.Gateway = "wx0123456789abcdef", midas.Sandbox().At("http://127.0.0.1:9100")
		}, "AppID", "is a WeChat app id"},
		{"a WeChat app id on an older gateway", func(cfg *midas.Config) { cfg.AppID, cfg.Gateway = "wx0123456789abcdef", midas.MSDK() }, "", ""},
		{"an app id that only begins like WeChat's", func(cfg *midas.Config) { cfg.AppID = "wx0123456789abcdef0" }, "", ""},
		{"only the BaseURL of Sandbox", func(cfg *midas.Config) { cfg.Gateway = midas.Gateway{BaseURL: "https://ysdktest.qq.com"} }, "Gateway", "start from Production() or Sandbox()"},
		{"only the BaseURL of Production", func(cfg *midas.Config) { cfg.Gateway = midas.Gateway{BaseURL: "https://ysdk.qq.com/"} }, "Gateway", "has no SignPrefix"},
		{"only a BaseURL with a port", func(cfg *midas.Config) { cfg.Gateway = midas.Gateway{BaseURL: "https://ysdk.qq.com:443"} }, "Gateway", "has no SignPrefix"},
		{"only a BaseURL in capitals", func(cfg *midas.Config) { cfg.Gateway = midas.Gateway{BaseURL: "https://YSDK.qq.com"} }, "Gateway", "has no SignPrefix"},
		{"only the BaseURL of a server of one's own", func(cfg *midas.Config) { cfg.Gateway = midas.Gateway{BaseURL: "http://127.0.0.1:9100"} }, "", ""},
		{"TLS verification off", func(cfg *midas.Config) {
			cfg.HTTPClient = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
		}, "HTTPClient", "RootCAs"},
		{"a negative number of deliveries", func(cfg *midas.Config) { cfg.MaxDeliveries = -1 }, "MaxDeliveries", "negative: 0 means the default"},
		{"one delivery", func(cfg *midas.Config) { cfg.MaxDeliveries = 1 }, "", ""},
		{"too many retries", func(cfg *midas.Config) { cfg.MaxRetries = 11 }, "MaxRetries", "over 10"},
		{"a negative delay", func(cfg *midas.Config) { cfg.RetryDelay = -1 }, "RetryDelay", "negative"},
		{"an endless delay", func(cfg *midas.Config) { cfg.RetryDelay = time.Hour }, "RetryDelay", "minute"},
		{"limits in the wrong order", func(cfg *midas.Config) { cfg.AnswerTimeout = time.Second }, "DeliverTimeout", "1.5s is negative, or above AnswerTimeout, which is 1s"},
		{"a negative limit", func(cfg *midas.Config) { cfg.DeliverTimeout = -1 }, "DeliverTimeout", "negative"},
		{"an answer after Midas hung up", func(cfg *midas.Config) { cfg.AnswerTimeout = 2 * time.Second }, "AnswerTimeout", "2s"},
	} {
		t.Run(test.what, func(t *testing.T) {
			t.Parallel()
			cfg := midas.Config{AppID: testAppID, AppKey: testAppKey, Gateway: midas.Sandbox(), DeliveryPath: "/pay/notify"}
			test.change(&cfg)
			c, err := midas.New(cfg)
			if test.field == "" {
				require.NoError(t, err)
				return
			}
			require.Nil(t, c)
			var configErr *midas.ConfigError
			require.ErrorAs(t, err, &configErr)
			require.Equal(t, test.field, configErr.Field)
			require.ErrorContains(t, err, "midas.Config."+test.field+": ")
			require.ErrorContains(t, err, test.says)
			require.NotContains(t, err.Error(), testAppKey)
		})
	}
}

func TestNewReportsEverythingAtOnce(t *testing.T) {
	t.Parallel()
	_, err := midas.New(midas.Config{DeliveryPath: "pay", Gateway: midas.Gateway{SignPrefix: "/v3/r"}})
	for _, field := range []string{"AppID", "AppKey", "Gateway", "DeliveryPath"} {
		require.ErrorContains(t, err, "midas.Config."+field+": ")
	}
}
