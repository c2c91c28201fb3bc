package midastest_test

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midastest"
	"github.com/stretchr/testify/require"
)

func answerOK(w http.ResponseWriter, r *http.Request) { io.WriteString(w, `{"ret":0,"msg":"OK"}`) }

// The fake's callback and one that was recorded and recomputed differ in random parts only:
// with those set, they are one.
func TestACallbackIsTheKnownOneParameterForParameter(t *testing.T) {
	t.Parallel()
	v := vectorNamed(t, "constructed-cb-live-shape-wechat-ubazinga")
	srv := midastest.New(midastest.Config{
		AppID: v.Params["appid"], AppKey: v.AppKey, Errorf: t.Errorf, Now: func() time.Time { return time.Unix(1516080285, 0) },
	})
	srv.DeliverToHandler(http.HandlerFunc(answerOK), v.Path)
	token := srv.AppOrder(midas.OrderRequest{
		Player: midas.Player{Login: midas.WeChat, OpenID: v.Params["openid"]}, Metadata: "1468380818068990000",
		Items: []midas.Item{{ID: "test_item_30", Price: 10 * midas.QPoint, Quantity: 1}},
	})
	for { // until the decoy's random letter is the one of the vector
		query, err := srv.Callback(token, midastest.Discount(95), midastest.BillNo(v.Params["billno"]),
			midastest.Param("token", v.Params["token"]), midastest.Param("cftid", v.Params["cftid"]))
		require.NoError(t, err)
		if !strings.Contains(query, "&ubazinga=1") {
			continue
		}
		want := v.values()
		want.Set("sig", v.Sig)
		got, err := url.ParseQuery(query)
		require.NoError(t, err)
		require.Equal(t, want, got)
		return
	}
}

func TestTheDecoyChangesItsName(t *testing.T) {
	t.Parallel()
	srv := midastest.New(midastest.Config{})
	srv.DeliverToHandler(http.HandlerFunc(answerOK), deliveryPath)
	token := srv.AppOrder(orderRequest(midas.QQ))
	decoy := regexp.MustCompile(`[a-z]bazinga=1`)
	first, err := srv.Callback(token)
	require.NoError(t, err)
	name := decoy.FindString(first)
	require.NotEmpty(t, name)
	for query := first; strings.Contains(query, name); { // ends: the chance to go on is 1 in 26 each time
		query, err = srv.Callback(token)
		require.NoError(t, err)
	}
}

func TestEachOptionChangesTheCallback(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		opts []midastest.PayOption
		want map[string]string // parameters of the callback; "" is absent
	}{
		{"none", nil, map[string]string{"amt": "200", "payitem": "sword*10*2", "appmeta": "shop*42*qqwallet*qq", "zoneid": "1", "version": "v3", "providetype": "5"}},
		{"a discount", []midastest.PayOption{midastest.Discount(80)}, map[string]string{"amt": "160", "payitem": "sword*10*2"}},
		{"a discount that leaves a part of a fen", []midastest.PayOption{midastest.Quantity(1), midastest.Discount(33)}, map[string]string{"amt": "33"}},
		{"a discount that leaves nothing", []midastest.PayOption{midastest.Discount(0)}, map[string]string{"amt": "1"}},
		{"a changed quantity", []midastest.PayOption{midastest.Quantity(7)}, map[string]string{"amt": "700", "payitem": "sword*10*7"}},
		{"another pay method", []midastest.PayOption{midastest.PayMethod("qdqb")}, map[string]string{"appmeta": "shop*42*qdqb*qq"}},
		{"a serial number", []midastest.PayOption{midastest.BillNo("-APP-1")}, map[string]string{"billno": "-APP-1"}},
		{"a parameter more", []midastest.PayOption{midastest.Param("giftcoins", "3 + ~*()!'é")}, map[string]string{"giftcoins": "3 + ~*()!'é"}},
		{"a parameter of another value", []midastest.PayOption{midastest.Param("providetype", "0")}, map[string]string{"providetype": "0"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			srv := midastest.New(midastest.Config{Errorf: t.Errorf})
			srv.DeliverToHandler(http.HandlerFunc(answerOK), deliveryPath)
			receipt, err := srv.Pay(t.Context(), srv.AppOrder(orderRequest(midas.QQ)), test.opts...)
			require.NoError(t, err)
			require.True(t, receipt.Accepted, receipt.Reason)

			require.NotContains(t, receipt.URL, "+", "a blank is %20")
			params := queryOf(t, receipt)
			for name, value := range test.want {
				require.Equal(t, value, params.Get(name), name)
			}
			require.Equal(t, receipt.BillNo, params.Get("billno"))
			require.Equal(t, []string{""}, params["pubacct_payamt_coins"], "sent although empty")
			require.Equal(t, signature("callback", "GET", deliveryPath, params, srv.AppKey()), params.Get("sig"))
		})
	}
}

func queryOf(t *testing.T, receipt *midastest.Receipt) url.Values {
	_, query, _ := strings.Cut(receipt.URL, "?")
	params, err := url.ParseQuery(query)
	require.NoError(t, err)
	return params
}

func TestAForgeryIsSignedWrong(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name      string
		opt       midastest.PayOption
		key, path string // it is signed with, if not the right ones
		hint      string
	}{
		{"with another key", midastest.WrongKey("a-guess"), "a-guess", deliveryPath, ""},
		{"for another path", midastest.SignedPath("/pay/notify/"), "midastest-demo-key", "/pay/notify/",
			"; the callback is signed for the path /pay/notify/: does the backend verify for that path, with the same pay key?"},
		{"and changed afterwards", midastest.Tampered("amt", "1"), "", "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var shop granter
			srv := midastest.New(midastest.Config{Errorf: t.Errorf})
			srv.DeliverToHandler(newClient(t, srv).DeliveryHandler(shop.deliver), deliveryPath)
			receipt, err := srv.Pay(t.Context(), srv.AppOrder(orderRequest(midas.QQ)), test.opt)
			require.NoError(t, err)

			require.False(t, receipt.Accepted)
			require.Equal(t, "the backend answered ret 4 (bad_parameter:sig)"+test.hint, receipt.Reason)
			require.Empty(t, shop.deliveries)
			params := queryOf(t, receipt)
			require.NotEqual(t, signature("callback", "GET", deliveryPath, params, srv.AppKey()), params.Get("sig"))
			if test.key != "" {
				require.Equal(t, signature("callback", "GET", test.path, params, test.key), params.Get("sig"))
			}
		})
	}
}

func TestABackendThatRefusesAGenuinePaymentIsToldWhatWasSigned(t *testing.T) {
	t.Parallel()
	srv := midastest.New(midastest.Config{Errorf: t.Errorf})
	srv.DeliverToHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, `{"ret":4,"msg":"bad_parameter:sig"}`)
	}), deliveryPath)
	receipt, err := srv.Pay(t.Context(), srv.AppOrder(orderRequest(midas.QQ)), midastest.Duplicates(2))
	require.NoError(t, err)
	const want = "the backend answered ret 4 (bad_parameter:sig); the callback is signed for the path /pay/notify: does the backend verify for that path, with the same pay key?"
	require.Equal(t, want, receipt.Reason)
	require.Equal(t, want, receipt.Duplicates[0].Reason)
}

func TestDuplicatesComeAtOnceAndAreTheSame(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const n = 5
		var all sync.WaitGroup
		all.Add(n)
		srv := midastest.New(midastest.Config{Errorf: t.Errorf})
		srv.DeliverToHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			all.Done()
			all.Wait() // one after the other they would never be answered
			answerOK(w, r)
		}), deliveryPath)
		receipt, err := srv.Pay(t.Context(), srv.AppOrder(orderRequest(midas.QQ)), midastest.Duplicates(n))
		require.NoError(t, err)
		require.True(t, receipt.Accepted, receipt.Reason)
		require.Len(t, receipt.Duplicates, n-1)
		for _, duplicate := range receipt.Duplicates {
			require.True(t, duplicate.Accepted, duplicate.Reason)
			require.Equal(t, receipt.URL, duplicate.URL)
		}
	})
}

func TestPaymentsOfOneOrderAreTwo(t *testing.T) {
	t.Parallel()
	srv := midastest.New(midastest.Config{Errorf: t.Errorf})
	srv.DeliverToHandler(http.HandlerFunc(answerOK), deliveryPath)
	token := srv.AppOrder(orderRequest(midas.QQ))
	first, err := srv.Pay(t.Context(), token)
	require.NoError(t, err)
	second, err := srv.Pay(t.Context(), token)
	require.NoError(t, err)
	require.NotEqual(t, first.BillNo, second.BillNo)
	require.NotEqual(t, queryOf(t, first).Get("cftid"), queryOf(t, second).Get("cftid"))

	again, err := srv.Pay(t.Context(), token, midastest.BillNo(first.BillNo))
	require.NoError(t, err)
	require.Equal(t, first.BillNo, again.BillNo, "the first payment, called back again")
}

func TestATokenExpiresAfterFiveMinutesOnTheClockGiven(t *testing.T) {
	t.Parallel()
	now := time.Date(2018, 2, 8, 17, 25, 37, 0, time.UTC)
	srv := midastest.New(midastest.Config{Now: func() time.Time { return now }})
	srv.DeliverToHandler(http.HandlerFunc(answerOK), deliveryPath)
	token := srv.AppOrder(orderRequest(midas.QQ))

	now = now.Add(5 * time.Minute)
	receipt, err := srv.Pay(t.Context(), token)
	require.NoError(t, err)
	require.Equal(t, "1518111037", queryOf(t, receipt).Get("ts"))

	now = now.Add(time.Second)
	_, err = srv.Pay(t.Context(), token)
	require.ErrorIs(t, err, midas.ErrTokenExpired)
	_, err = srv.Callback(token)
	require.ErrorIs(t, err, midas.ErrTokenExpired)

	late, err := srv.Pay(t.Context(), token, midastest.ExpiredToken())
	require.NoError(t, err)
	require.True(t, late.Accepted, late.Reason)
}

func TestPayingWhatCannotBePaidIsAnError(t *testing.T) {
	t.Parallel()
	ok := http.HandlerFunc(answerOK)
	for _, test := range []struct {
		name  string
		pay   func(context.Context, *midastest.Server) error
		check func(*testing.T, error)
	}{
		{"a token that was never issued", func(ctx context.Context, srv *midastest.Server) error {
			srv.DeliverToHandler(ok, deliveryPath)
			_, err := srv.Pay(ctx, "F00")
			return err
		}, func(t *testing.T, err error) { require.ErrorIs(t, err, midas.ErrTokenNotFound) }},
		{"no delivery URL", func(ctx context.Context, srv *midastest.Server) error {
			_, err := srv.Pay(ctx, srv.AppOrder(orderRequest(midas.QQ)))
			return err
		}, func(t *testing.T, err error) { require.ErrorContains(t, err, "DeliverTo") }},
		{"no delivery URL, with a path to sign", func(ctx context.Context, srv *midastest.Server) error {
			_, err := srv.Pay(ctx, srv.AppOrder(orderRequest(midas.QQ)), midastest.SignedPath(deliveryPath))
			return err
		}, func(t *testing.T, err error) { require.ErrorContains(t, err, "DeliverTo") }},
		{"no delivery URL for a recorded callback", func(ctx context.Context, srv *midastest.Server) error {
			_, err := srv.Deliver(ctx, "a=b")
			return err
		}, func(t *testing.T, err error) { require.ErrorContains(t, err, "DeliverTo") }},
		{"another quantity of several items", func(ctx context.Context, srv *midastest.Server) error {
			srv.DeliverToHandler(ok, deliveryPath)
			req := orderRequest(midas.QQ)
			req.Items = append(req.Items, midas.Item{ID: "shield", Price: 1, Quantity: 1})
			_, err := srv.Pay(ctx, srv.AppOrder(req), midastest.Quantity(3))
			return err
		}, func(t *testing.T, err error) { require.ErrorContains(t, err, "single item") }},
		{"an order of the app without items", func(ctx context.Context, srv *midastest.Server) error {
			srv.DeliverToHandler(ok, deliveryPath)
			_, err := srv.Pay(ctx, srv.AppOrder(midas.OrderRequest{Player: midas.Player{OpenID: "o"}}))
			return err
		}, func(t *testing.T, err error) { require.ErrorContains(t, err, "payitem") }},
		{"with a context that ended", func(ctx context.Context, srv *midastest.Server) error {
			srv.DeliverToHandler(ok, deliveryPath)
			ctx, cancel := context.WithCancel(ctx)
			cancel()
			_, err := srv.Pay(ctx, srv.AppOrder(orderRequest(midas.QQ)))
			return err
		}, func(t *testing.T, err error) { require.ErrorIs(t, err, context.Canceled) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.check(t, test.pay(t.Context(), midastest.New(midastest.Config{})))
		})
	}
}

func TestACallbackForASignedPathNeedsNoDeliveryURL(t *testing.T) {
	t.Parallel()
	srv := midastest.New(midastest.Config{})
	token := srv.AppOrder(orderRequest(midas.QQ))
	_, err := srv.Callback(token)
	require.ErrorContains(t, err, "DeliverTo")
	query, err := srv.Callback(token, midastest.SignedPath(deliveryPath))
	require.NoError(t, err)
	params, err := url.ParseQuery(query)
	require.NoError(t, err)
	require.Equal(t, signature("callback", "GET", deliveryPath, params, srv.AppKey()), params.Get("sig"))
}
