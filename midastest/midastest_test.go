package midastest_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midastest"
	"github.com/stretchr/testify/require"
)

func request(login midas.Login) midas.OrderRequest {
	return midas.OrderRequest{
		Login: login, OpenID: "o_TESTopenid", OpenKey: "test-openkey", PayToken: "test-paytoken", PF: "qq_m_qq-2001-android-2011-test", PFKey: "test-pfkey",
		Items: []midas.Item{{ID: "sword", Price: 10 * midas.QPoint, Quantity: 2}}, GoodsName: "剑", GoodsDescription: "一把好剑", Metadata: "shop*42",
	}
}

func newClient(t *testing.T, srv *midastest.Server, change ...func(*midas.Config)) *midas.Client {
	cfg := midas.Config{AppID: srv.AppID(), AppKey: srv.AppKey(), Gateway: srv.Gateway(), DeliveryPath: "/pay/notify", HTTPClient: srv.HTTPClient()}
	for _, f := range change {
		f(&cfg)
	}
	c, err := midas.New(cfg)
	require.NoError(t, err)
	return c
}

func TestEveryLoginBuysOnEveryGateway(t *testing.T) {
	t.Parallel()
	for _, like := range []midas.Gateway{midas.Sandbox(), midas.MSDKSandbox()} {
		for _, login := range []midas.Login{midas.QQ, midas.WeChat, midas.Guest, midas.H5} {
			srv := midastest.New(midastest.Config{Like: like, Errorf: t.Errorf})
			c := newClient(t, srv)
			var granted atomic.Int32
			srv.DeliverToHandler(c.DeliveryHandler(func(ctx context.Context, d *midas.Delivery) error {
				granted.Add(1)
				require.Equal(t, "shop*42", d.Metadata)
				return nil
			}), "/pay/notify")
			order, err := c.CreateOrder(t.Context(), request(login))
			require.NoError(t, err)
			receipt, err := srv.Pay(t.Context(), order.Token)
			require.NoError(t, err)
			require.Empty(t, receipt.Reason)
			require.True(t, receipt.Accepted)
			require.Equal(t, `{"ret":0,"msg":"OK"}`, string(receipt.Body))
			require.EqualValues(t, 1, granted.Load())
		}
	}
}

func TestPayOnUnknownToken(t *testing.T) {
	t.Parallel()
	srv := midastest.New(midastest.Config{})
	_, err := srv.Pay(t.Context(), "nothing")
	require.True(t, errors.Is(err, midas.ErrTokenNotFound))
}
