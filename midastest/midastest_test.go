package midastest_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midastest"
	"github.com/stretchr/testify/require"
)

const deliveryPath = "/pay/notify"

// A vector is a known answer; ../testdata/README.md says where each is from.
type vector struct {
	Name, Kind, Method, Path string
	AppKey                   string `json:"app_key"`
	Params                   map[string]string
	BaseString               string `json:"base_string"`
	Sig                      string
}

func (v vector) values() url.Values {
	values := url.Values{}
	for name, value := range v.Params {
		values.Set(name, value)
	}
	return values
}

var readVectors = sync.OnceValues(func() (vectors []vector, err error) {
	data, err := os.ReadFile("../testdata/signatures.json")
	if err != nil {
		return nil, err
	}
	return vectors, json.Unmarshal(data, &vectors)
})

func vectorNamed(t *testing.T, name string) vector {
	vectors, err := readVectors()
	require.NoError(t, err)
	i := slices.IndexFunc(vectors, func(v vector) bool { return v.Name == name })
	require.GreaterOrEqual(t, i, 0, name)
	return vectors[i]
}

// signature signs the plain way, so that the fake is not measured with the library that
// it measures. It has the known answers to hold against: see the next test.
func signature(kind, method, path string, params url.Values, key string) string {
	escape := func(s string) string { // E of the protocol's description
		return strings.NewReplacer("+", "%20", "~", "%7E").Replace(url.QueryEscape(s))
	}
	escapeCallback := func(s string) string { // C
		return strings.NewReplacer("-", "%2D", "_", "%5F", ".", "%2E", "%21", "!", "%2A", "*", "%28", "(", "%29", ")").Replace(escape(s))
	}
	var pairs []string
	for _, name := range slices.Sorted(maps.Keys(params)) {
		value := params.Get(name)
		switch {
		case name == "sig", kind == "callback" && name == "cee_extend":
			continue
		case kind == "callback":
			value = escapeCallback(value)
		}
		pairs = append(pairs, name+"="+value)
	}
	mac := hmac.New(sha1.New, []byte(key+"&"))
	io.WriteString(mac, strings.ToUpper(method)+"&"+escape(path)+"&"+escape(strings.Join(pairs, "&")))
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

func TestTheSignaturesTheFakeIsMeasuredWithAreTheKnownAnswers(t *testing.T) {
	t.Parallel()
	vectors, err := readVectors()
	require.NoError(t, err)
	for _, v := range vectors {
		require.Equal(t, v.Sig, signature(v.Kind, v.Method, v.Path, v.values(), v.AppKey), v.Name)
	}
}

func orderRequest(login midas.Login) midas.OrderRequest {
	return midas.OrderRequest{
		Player: midas.Player{Login: login, OpenID: "o_TESTopenid", OpenKey: "test-openkey", PayToken: "test-paytoken", PF: "qq_m_qq-2001-android-2011-test", PFKey: "test-pfkey"},

		Items:     []midas.Item{{ID: "sword", Price: 10 * midas.QPoint, Quantity: 2}},
		GoodsName: "剑", GoodsDescription: "一把好剑", Metadata: "shop*42",
	}
}

// newClient returns a client of a server, through its socket if it has one.
func newClient(t *testing.T, srv *midastest.Server) *midas.Client {
	cfg := srv.ClientConfig(deliveryPath)
	cfg.MaxRetries = -1
	c, err := midas.New(cfg)
	require.NoError(t, err)
	return c
}

// A granter is a DeliverFunc that notes what it was called with.
type granter struct {
	mu         sync.Mutex
	deliveries []*midas.Delivery
}

func (g *granter) deliver(ctx context.Context, d *midas.Delivery) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.deliveries = append(g.deliveries, d)
	return nil
}

// A complaints is an Errorf for tests in which the fake must complain.
type complaints struct {
	mu    sync.Mutex
	lines []string
}

func (c *complaints) errorf(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lines = append(c.lines, fmt.Sprintf(format, args...))
}

func TestEveryLoginBuysOnEveryGatewayWithAndWithoutSockets(t *testing.T) {
	t.Parallel()
	payMethods := map[midas.Login]string{midas.QQ: "qqwallet/qq", midas.WeChat: "wechat/wechat", midas.Guest: "wechat/st_dummy", midas.H5: "qqwallet/qq"}
	for name, like := range map[string]midas.Gateway{"default": {}, "live": midas.Production(), "MSDK": midas.MSDKSandbox()} {
		for login, payMethod := range payMethods {
			for _, sockets := range []bool{true, false} {
				t.Run(fmt.Sprintf("%s/%s/sockets=%t", name, login, sockets), func(t *testing.T) {
					t.Parallel()
					cfg := midastest.Config{Like: like, Errorf: t.Errorf}
					var (
						srv  *midastest.Server
						shop granter
					)
					if sockets {
						srv = midastest.NewServer(cfg)
						defer srv.Close()
					} else {
						srv = midastest.New(cfg)
					}
					client := newClient(t, srv)
					callback := client.DeliveryHandler(shop.deliver)
					if sockets {
						backend := httptest.NewServer(callback)
						defer backend.Close()
						srv.DeliverTo(backend.URL + deliveryPath)
					} else {
						srv.DeliverToHandler(callback, deliveryPath)
					}

					order, err := client.CreateOrder(t.Context(), orderRequest(login))
					require.NoError(t, err)
					receipt, err := srv.Pay(t.Context(), order.Token)
					require.NoError(t, err)
					require.Empty(t, receipt.Reason)
					require.True(t, receipt.Accepted)
					require.Equal(t, http.StatusOK, receipt.Status)
					require.Equal(t, `{"ret":0,"msg":"OK"}`, string(receipt.Body))

					require.Len(t, shop.deliveries, 1)
					d := shop.deliveries[0]
					require.Equal(t, "o_TESTopenid", d.OpenID)
					require.Equal(t, order.Token, d.Token)
					require.Equal(t, receipt.BillNo, d.BillNo)
					require.Equal(t, []midas.Item{{ID: "sword", Price: 100, Quantity: 2}}, d.Items)
					require.Equal(t, midas.Amount(200), d.Charged)
					require.Equal(t, "shop*42", d.Metadata)
					require.Equal(t, payMethod, d.PayMethod+"/"+d.Platform)
				})
			}
		}
	}
}

func TestASaleInABubble(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		srv := midastest.New(midastest.Config{Errorf: t.Errorf})
		client := newClient(t, srv)
		srv.DeliverToHandler(client.DeliveryHandler(func(ctx context.Context, d *midas.Delivery) error {
			time.Sleep(time.Second) // of the bubble
			return nil
		}), deliveryPath)

		order, err := client.CreateOrder(t.Context(), orderRequest(midas.QQ))
		require.NoError(t, err)
		require.Equal(t, time.Now().Add(5*time.Minute), order.Expires)
		receipt, err := srv.Pay(t.Context(), order.Token)
		require.NoError(t, err)
		require.True(t, receipt.Accepted, receipt.Reason)
		require.Equal(t, time.Second, receipt.Took)

		time.Sleep(5 * time.Minute)
		late := midastest.New(midastest.Config{}) // the bubble's clock is the default one
		late.DeliverToHandler(http.NotFoundHandler(), deliveryPath)
		token := late.AppOrder(orderRequest(midas.QQ))
		time.Sleep(5*time.Minute + time.Second)
		_, err = late.Pay(t.Context(), token)
		require.ErrorIs(t, err, midas.ErrTokenExpired)
	})
}

func TestADeliveryURLThatCannotBeIsRefusedWhenItIsSet(t *testing.T) {
	t.Parallel()
	srv := midastest.New(midastest.Config{})
	for _, deliveryURL := range []string{"", "/pay/notify", "ftp://game.example/pay", "http://game.example", "http:///pay", "http://game.example/pay?a=b", "http://game.example/%zz"} {
		require.Panics(t, func() { srv.DeliverTo(deliveryURL) }, deliveryURL)
	}
	for _, path := range []string{"", "pay/notify", "http://game.example/pay/notify"} {
		require.Panics(t, func() { srv.DeliverToHandler(http.NotFoundHandler(), path) }, path)
	}
}
