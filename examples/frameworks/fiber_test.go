package frameworks

import (
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/gofiber/fiber/v3"
	"github.com/gofiber/fiber/v3/middleware/adaptor"
	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midastest"
	"github.com/stretchr/testify/require"
)

// fasthttp reuses the memory of a request as soon as it is answered. A grant that outlives its
// answer must not see the openid of a later request: DeliveryHandler copies the query.
func TestAGrantThatOutlivesItsFiberRequestIsItsPlayers(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		mount func(http.Handler) http.Handler
	}{
		{"the adaptor alone", func(h http.Handler) http.Handler { return h }},
		{"with ownRequest", ownRequest},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			fake, client := newMidas(t)
			bags := newBags()
			l, fiberApp := listen(t), fiber.New()
			fiberApp.Get(deliveryPath, adaptor.HTTPHandler(test.mount(client.DeliveryHandler(bags.grant))))
			ended := make(chan error, 1)
			go func() { ended <- fiberApp.Listener(l, fiber.ListenConfig{DisableStartupMessage: true}) }()

			web := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{MaxConnsPerHost: 1}}
			for _, call := range []struct{ openID, want string }{{slow, busy}, {other, ok}, {other, ok}, {other, ok}} {
				require.Equal(t, call.want, fetch(t, web, "http://"+l.Addr().String()+deliveryPath+"?"+callbackFor(t, fake, call.openID)))
			}
			close(bags.release)
			require.NoError(t, client.Wait(t.Context()))
			require.Equal(t, 1, bags.of(slow))
			require.NoError(t, fiberApp.Shutdown())
			require.NoError(t, <-ended)
		})
	}
}

func fetch(t *testing.T, web *http.Client, url string) string {
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	require.NoError(t, err)
	resp, err := web.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return string(body)
}

// newMidas returns a Midas without sockets and a client of it.
func newMidas(t *testing.T) (*midastest.Server, *midas.Client) {
	fake := midastest.New(midastest.Config{Errorf: t.Errorf})
	fake.DeliverToHandler(http.NotFoundHandler(), deliveryPath) // the tests send the callbacks themselves
	client, err := midas.New(fake.ClientConfig(deliveryPath))
	require.NoError(t, err)
	return fake, client
}

// callbackFor returns the raw query of a callback for an item that openID paid for.
func callbackFor(t *testing.T, fake *midastest.Server, openID string, opts ...midastest.PayOption) string {
	token := fake.AppOrder(midas.OrderRequest{Player: midas.Player{Login: midas.QQ, OpenID: openID},
		Items: []midas.Item{{ID: "gem60", Price: 60 * midas.QPoint, Quantity: 1}}})
	rawQuery, err := fake.Callback(token, opts...)
	require.NoError(t, err)
	return rawQuery
}
