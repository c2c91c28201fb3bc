package main

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midastest"
	"github.com/stretchr/testify/require"
)

// openShop returns a shop and the Midas that it sells through, both without sockets.
func openShop(t *testing.T, cfg midastest.Config) (*shop, http.Handler, *midastest.Server) {
	fake := midastest.New(cfg)
	client, err := midas.New(fake.ClientConfig(deliveryPath))
	require.NoError(t, err)
	s := newShop(client, slog.New(slog.DiscardHandler))
	backend := s.handler(deliveryPath)
	fake.DeliverToHandler(backend, deliveryPath)
	return s, backend, fake
}

func TestAPlayerGetsWhatWasPaidForOnce(t *testing.T) {
	t.Parallel()
	s, backend, fake := openShop(t, midastest.Config{Errorf: t.Errorf}) // a bad request fails the test, in words
	token := orderSword(t, backend)

	receipt, err := fake.Pay(t.Context(), token, midastest.Discount(80), midastest.Duplicates(5))
	require.NoError(t, err)
	for _, r := range append(receipt.Duplicates, receipt) {
		require.True(t, r.Accepted, r.Reason) // would Midas take this answer, to the byte and in time?
	}
	require.Equal(t, map[string]int{"sword": 1}, s.bags["ANNA"])
}

// orderSword orders a sword as the app does, and returns the order's token.
func orderSword(t *testing.T, backend http.Handler) string {
	answer := post(backend, `{"login":"qq","openid":"ANNA","openkey":"k","pf":"pf","pfkey":"k","item":"sword","quantity":1}`)
	require.Equal(t, http.StatusOK, answer.Code, answer.Body)
	var placed midas.Order
	require.NoError(t, json.Unmarshal(answer.Body.Bytes(), &placed))
	return placed.Token
}

func post(backend http.Handler, body string) *httptest.ResponseRecorder {
	answer := httptest.NewRecorder()
	backend.ServeHTTP(answer, httptest.NewRequest(http.MethodPost, "/orders", strings.NewReader(body)))
	return answer
}

func TestADeliveryThatDiffersFromTheOrderGrantsNothing(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		opt   midastest.PayOption
		reply string
	}{
		{"another player", midastest.Param("openid", "BO"), `{"ret":4,"msg":"bad_parameter:openid"}`},
		{"another zone", midastest.Param("zoneid", "2"), `{"ret":4,"msg":"bad_parameter:zoneid"}`},
		{"another quantity", midastest.Quantity(2), `{"ret":4,"msg":"bad_parameter:payitem"}`},
		{"a lower price", midastest.Param("payitem", "sword*0.1*1"), `{"ret":4,"msg":"bad_parameter:payitem"}`},
		{"another item", midastest.Param("payitem", "gem60*18*1"), `{"ret":4,"msg":"bad_parameter:payitem"}`},
		{"an order that was never placed", midastest.Param("token", "F00"), `{"ret":3,"msg":"token_not_found"}`},
		{"a forgery", midastest.WrongKey("a-guess"), `{"ret":4,"msg":"bad_parameter:sig"}`},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s, backend, fake := openShop(t, midastest.Config{Errorf: t.Errorf})
			receipt, err := fake.Pay(t.Context(), orderSword(t, backend), test.opt)
			require.NoError(t, err)
			require.Equal(t, test.reply, string(receipt.Body))
			require.Empty(t, s.bags)
		})
	}
}

func TestThePriceIsTheCataloguesWhateverTheAppSays(t *testing.T) {
	t.Parallel()
	var payItem string
	_, backend, _ := openShop(t, midastest.Config{Errorf: t.Errorf, OnOrder: func(o midastest.OrderAttempt) { payItem = o.Params.Get("payitem") }})
	answer := post(backend, `{"login":"qq","openid":"ANNA","openkey":"k","pf":"pf","pfkey":"k","item":"sword","quantity":3,"price":1,"Price":1,"amt":1}`)
	require.Equal(t, http.StatusOK, answer.Code)
	require.Equal(t, "sword*18*3", payItem)
}

func TestAnOrderThatFailsTellsTheAppWhatToDo(t *testing.T) {
	t.Parallel()
	const good = `{"login":"qq","openid":"ANNA","openkey":"k","pf":"pf","pfkey":"k","item":"sword","quantity":1}`
	for _, test := range []struct {
		name   string
		body   string
		fault  midastest.Fault
		status int
	}{
		{"no JSON", `sword, please`, midastest.Fault{}, http.StatusBadRequest},
		{"an item that is not sold", strings.Replace(good, "sword", "crown", 1), midastest.Fault{}, http.StatusNotFound},
		{"a negative quantity", strings.Replace(good, `"quantity":1`, `"quantity":-1`, 1), midastest.Fault{}, http.StatusBadRequest},
		{"an unknown login", strings.Replace(good, `"qq"`, `"fb"`, 1), midastest.Fault{}, http.StatusBadRequest},
		{"an expired login", good, midastest.Fault{Ret: 1018}, http.StatusUnauthorized},
		{"any other refusal", good, midastest.Fault{Ret: 1016}, http.StatusBadGateway},
		{"an answer that is none", good, midastest.Fault{HTML: true}, http.StatusBadGateway},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s, backend, fake := openShop(t, midastest.Config{Errorf: t.Errorf})
			fake.NextOrders(test.fault)
			require.Equal(t, test.status, post(backend, test.body).Code)
			require.Empty(t, s.orders)
		})
	}
}
