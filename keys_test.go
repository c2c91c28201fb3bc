package midas_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"

	"github.com/midas-go/midas"
	"github.com/stretchr/testify/require"
)

// The five steps of docs/deployment, "Changing the pay key": servers restart one by one while
// Midas still signs under the old key, and then under the new one.
func TestAPayKeyIsChangedWithoutRefusingACallback(t *testing.T) {
	t.Parallel()
	const oldKey, newKey = "old-pay-key", "new-pay-key"
	var mu sync.Mutex
	keys := map[int]int{} // CallbackEvent.Key -> verified callbacks
	var clients []*midas.Client
	start := func(appKey string, others ...string) http.Handler {
		c := newClient(t, midas.Config{AppID: testAppID, AppKey: appKey, OtherAppKeys: others, DeliveryPath: "/pay/notify", OnCallback: func(e midas.CallbackEvent) {
			mu.Lock()
			defer mu.Unlock()
			if e.Outcome == midas.Delivered {
				keys[e.Key]++
			}
		}})
		clients = append(clients, c)
		return c.DeliveryHandler(func(context.Context, *midas.Delivery) error { return nil })
	}
	servers := []http.Handler{start(oldKey), start(oldKey), start(oldKey)}
	callBack := func(key string) (refused int) {
		for _, server := range servers {
			w := httptest.NewRecorder()
			server.ServeHTTP(w, httptest.NewRequest("GET", "/pay/notify?"+signedWith(key), nil))
			if w.Body.String() != `{"ret":0,"msg":"OK"}` {
				refused++
			}
		}
		return refused
	}
	restart := func(during []string, appKey string, others ...string) {
		for i := range servers {
			servers[i] = start(appKey, others...)
			for _, key := range during {
				require.Zero(t, callBack(key), "with %d servers restarted", i+1)
			}
		}
	}
	// used returns how many callbacks each key has verified since the last time.
	used := func() map[int]int {
		for _, c := range clients {
			require.NoError(t, c.Wait(t.Context()))
		}
		mu.Lock()
		defer mu.Unlock()
		counted := keys
		keys = map[int]int{}
		return counted
	}
	require.Zero(t, callBack(oldKey))
	require.Equal(t, 3, callBack(newKey), "what happened before there were two keys")

	restart([]string{oldKey}, oldKey, newKey) // 1. the new key is accepted everywhere
	require.Zero(t, callBack(newKey), "2. the console changes: callbacks come under either key")
	require.Zero(t, callBack(oldKey))
	restart([]string{oldKey, newKey}, newKey, oldKey) // 3. orders are signed with the new one
	used()
	require.Zero(t, callBack(oldKey), "4. until the last old order is paid")
	require.Equal(t, map[int]int{1: 3}, used(), "the old key is still in use")
	require.Zero(t, callBack(newKey))
	require.Equal(t, map[int]int{0: 3}, used(), "and now it is not")
	restart([]string{newKey}, newKey) // 5. so it goes
	require.Equal(t, 3, callBack(oldKey))
}

func signedWith(key string) string {
	params, err := url.ParseQuery(signed(nil))
	if err != nil {
		panic(err)
	}
	params.Set("sig", midas.SignCallback("GET", "/pay/notify", params, key))
	return params.Encode()
}

func TestAnEventSaysWhichKeyItWas(t *testing.T) {
	t.Parallel()
	var log journal
	var got events
	c := callbackClient(t, log.attach, func(cfg *midas.Config) {
		cfg.OtherAppKeys, cfg.OnCallback = []string{"second", "third"}, got.add
	})
	h := c.DeliveryHandler(func(context.Context, *midas.Delivery) error { return nil })
	for _, key := range []string{testAppKey, "second", "third", "fourth"} {
		serve(h, "GET", signedWith(key))
	}
	require.NoError(t, c.Wait(t.Context()))
	var keys []any
	for i, line := range log.lines(t) {
		keys = append(keys, []any{got.all[i].Key, line["other_key"], got.all[i].Outcome})
	}
	require.Equal(t, []any{
		[]any{0, nil, midas.Delivered}, []any{1, 1.0, midas.Delivered}, []any{2, 2.0, midas.Delivered}, []any{0, nil, midas.Unverified},
	}, keys)
}

func TestOtherKeysAreCheckedLikeTheFirst(t *testing.T) {
	t.Parallel()
	for field, others := range map[string][]string{
		"OtherAppKeys[0]": {""}, "OtherAppKeys[1]": {"a", "b&"}, "OtherAppKeys[2]": {"a", "b", " c"}, "OtherAppKeys": {"a", "b", "c", "d"},
	} {
		_, err := midas.New(midas.Config{AppID: testAppID, AppKey: testAppKey, OtherAppKeys: others})
		var wrong *midas.ConfigError
		require.ErrorAs(t, err, &wrong)
		require.Equal(t, field, wrong.Field)
	}
	for _, twice := range [][]string{{testAppKey}, {"a", "a"}} {
		_, err := midas.New(midas.Config{AppID: testAppID, AppKey: testAppKey, OtherAppKeys: twice})
		require.ErrorContains(t, err, "is the same as one before it")
	}
}
