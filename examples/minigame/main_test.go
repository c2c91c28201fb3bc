package main

import (
	"bytes"
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/minigame"
	"github.com/midas-go/midas/minigame/minigametest"
	"github.com/stretchr/testify/require"
)

func TestTheStoryEndsWellAndShowsNoSecret(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	require.NoError(t, tell(t.Context(), &out, openShop), "%s", &out)
	story := out.String()
	require.Contains(t, story, `{"ErrCode":0,"ErrMsg":"Success"}`)
	require.Contains(t, story, `{"ErrCode":99999,"ErrMsg":"internal error"}`)
	require.Contains(t, story, `"goodsPrice":600`)
	require.NotContains(t, story, "✗")
	require.NotContains(t, story, "minigametest-live-key")
	require.NotRegexp(t, `[0-9a-f]{64}`, story)
}

// TestTheStoryFailsOnAShopThat tells the story with shops that have a mistake.
func TestTheStoryFailsOnAShopThat(t *testing.T) {
	t.Parallel()
	for sentence, test := range map[string]struct {
		handlers func(*shop) minigame.GameHandlers
		says     string
	}{
		"has no function for refunds": {func(s *shop) minigame.GameHandlers {
			return minigame.GameHandlers{Deliver: s.deliver}
		}, "✗ WeChat takes the answer ErrCode 99999"},
		"has no function for deliveries": {func(s *shop) minigame.GameHandlers {
			return minigame.GameHandlers{Refund: s.ledger.Refund}
		}, "✗ the player owns 0 items, want 2"},
	} {
		t.Run(sentence, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			err := tell(t.Context(), &out, func(ctx context.Context, game *minigame.Game, appID, file string) (*shop, error) {
				s, err := openShop(ctx, game, appID, file)
				if err == nil {
					s.handler = game.PushHandler(test.handlers(s))
				}
				return s, err
			})
			require.ErrorContains(t, err, "not as they should be")
			require.Contains(t, out.String(), test.says)
		})
	}
}

// newWorld returns a shop with a WeChat, and anna's order of two swords.
func newWorld(t *testing.T) (*minigametest.Server, *shop, *minigame.Order) {
	t.Helper()
	wechat := minigametest.NewServer(minigametest.Config{Errorf: t.Errorf})
	t.Cleanup(wechat.Close)
	cfg := wechat.GameConfig()
	game, err := minigame.NewGame(cfg)
	require.NoError(t, err)
	s, err := openShop(t.Context(), game, cfg.AppID, filepath.Join(t.TempDir(), "game.db"))
	require.NoError(t, err)
	t.Cleanup(func() { s.db.Close() })
	wechat.PushToHandler(s.handler, "/push")
	for id, price := range catalogue {
		wechat.Publish(id, price)
	}
	require.NoError(t, s.login(t.Context(), wechat.Login("anna")))
	order, err := s.order(t.Context(), "anna", minigame.Live, "sword", 2)
	require.NoError(t, err)
	return wechat, s, order
}

func (s *shop) owns(t *testing.T, want int, why string) {
	t.Helper()
	got, err := s.items(t.Context(), "anna")
	require.NoError(t, err)
	require.Equal(t, want, got, why)
}

// While WeChat is slow to answer about one order, the deliveries of all the others go on.
func TestASlowQuestionHoldsUpNoDelivery(t *testing.T) {
	t.Parallel()
	wechat, s, order := newWorld(t)
	wechat.NextCalls("/wxa/game/queryorderinfo", minigametest.Fault{Delay: time.Hour})
	ctx, cancel := context.WithCancel(t.Context())
	asked := make(chan error, 1)
	go func() {
		_, err := s.ask(ctx, "anna", order.OutTradeNo)
		asked <- err
	}()
	require.Eventually(t, func() bool { return wechat.Calls("/wxa/game/queryorderinfo") > 0 }, 10*time.Second, time.Millisecond)
	receipt, err := wechat.Pay(t.Context(), "anna", order)
	require.NoError(t, err)
	require.True(t, receipt.Accepted, receipt.Reason)
	s.owns(t, 2, "delivered")
	cancel()
	require.ErrorIs(t, <-asked, context.Canceled)
}

func TestWhatIsAskedForIsGrantedOnce(t *testing.T) {
	t.Parallel()
	wechat, s, order := newWorld(t)
	_, err := s.ask(t.Context(), "anna", order.OutTradeNo)
	require.ErrorIs(t, err, minigame.ErrNotFound, "not paid yet")
	s.down.Store(true)
	receipt, err := wechat.Pay(t.Context(), "anna", order)
	require.NoError(t, err)
	require.False(t, receipt.Accepted)
	s.down.Store(false)
	for range 2 {
		asked, err := s.ask(t.Context(), "anna", order.OutTradeNo)
		require.NoError(t, err)
		require.True(t, asked.Paid)
		s.owns(t, 2, "asked for")
	}
	receipt, err = wechat.Repeat(t.Context(), minigame.Live, order.OutTradeNo)
	require.NoError(t, err)
	require.True(t, receipt.Accepted, receipt.Reason)
	s.owns(t, 2, "and pushed")
}

// What was not refunded, or only a part of it, is not taken back.
func TestOnlyAWholeRefundTakesItemsBack(t *testing.T) {
	t.Parallel()
	wechat, s, order := newWorld(t)
	_, err := wechat.Pay(t.Context(), "anna", order)
	require.NoError(t, err)
	require.NoError(t, s.ledger.Refund(t.Context(), &minigame.RefundPush{AppID: s.appID, EnvKnown: true, OutTradeNo: order.OutTradeNo, RefundID: "r0", Amount: 1200, Failed: true}))
	s.owns(t, 2, "a refund that failed")
	part := &minigame.RefundPush{AppID: s.appID, EnvKnown: true, OutTradeNo: order.OutTradeNo, RefundID: "r1", Amount: 700}
	require.NoError(t, s.ledger.Refund(t.Context(), part))
	require.NoError(t, s.ledger.Refund(t.Context(), part))
	s.owns(t, 2, "a part, told twice")
	receipt, err := wechat.Refund(t.Context(), minigame.Live, order.OutTradeNo, minigametest.Part(500*midas.Fen), minigametest.WithoutOutTradeNo())
	require.NoError(t, err)
	require.True(t, receipt.Accepted, receipt.Reason)
	s.owns(t, 0, "the rest, as Tencent's sample tells it")
}
