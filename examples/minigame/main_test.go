package main

import (
	"bytes"
	"net/http"
	"testing"

	"github.com/midas-go/midas/minigame"
	"github.com/stretchr/testify/require"
)

func TestTheStoryEndsWellAndShowsNoSecret(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	require.NoError(t, tell(t.Context(), &out, newShop), "%s", &out)
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
		handlers func(*shop) minigame.Handlers
		says     string
	}{
		"has no function for refunds": {func(s *shop) minigame.Handlers {
			return minigame.Handlers{Deliver: s.deliver}
		}, "✗ WeChat takes the answer ErrCode 99999"},
		"has no function for deliveries": {func(s *shop) minigame.Handlers {
			return minigame.Handlers{Refund: s.refund}
		}, "✗ the player owns 0 items, want 2"},
	} {
		t.Run(sentence, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			err := tell(t.Context(), &out, func(client *minigame.Client) *shop {
				s := newShop(client)
				s.handler = func() http.Handler { return client.PushHandler(test.handlers(s)) }
				return s
			})
			require.ErrorContains(t, err, "not as they should be")
			require.Contains(t, out.String(), test.says)
		})
	}
}
