package frameworks

import (
	"context"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midastest"
	"github.com/stretchr/testify/require"
)

func TestByHand(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, method string
		deliver      midas.DeliverFunc
		opts         []midastest.PayOption
		status       int
		body         string
		after        time.Duration
	}{
		{"a callback", http.MethodGet, func(context.Context, *midas.Delivery) error { return nil }, nil, 200, ok, 0},
		{"a grant that gives up in time", http.MethodGet, func(ctx context.Context, _ *midas.Delivery) error {
			<-ctx.Done()
			return ctx.Err()
		}, nil, 200, busy, 1500 * time.Millisecond},
		{"a grant that outlives its answer", http.MethodGet, func(context.Context, *midas.Delivery) error {
			time.Sleep(time.Minute)
			return nil
		}, nil, 200, busy, 1800 * time.Millisecond},
		{"a panic", http.MethodGet, func(context.Context, *midas.Delivery) error { panic("a bug in the grant") }, nil, 200, busy, 0},
		{"a forgery", http.MethodGet, nil, []midastest.PayOption{midastest.WrongKey("guessed")}, 200, sig, 0},
		{"POST", http.MethodPost, nil, nil, 405, "", 0},
		{"HEAD", http.MethodHead, nil, nil, 405, "", 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fake, client := newMidas(t)
				rawQuery := callbackFor(t, fake, quick, test.opts...)
				begin := time.Now()
				status, body := ByHand(client, test.deliver, test.method, rawQuery)
				require.Equal(t, test.after, time.Since(begin))
				require.Equal(t, test.status, status)
				require.Equal(t, test.body, string(body))
				time.Sleep(time.Hour) // in the bubble's time: every grant has ended
			})
		})
	}
}
