package main

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/midas-go/midas/examples/internal/servers"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) {
	servers.Main(m, func() {
		text := saveText
		if os.Getenv("ZONESERVER_WITHOUT_IDS") == "1" {
			text = strings.Replace(text, "ARGV[2]", `(string.gsub(ARGV[2], '"paid":%b{}', '"paid":{}'))`, 1)
		}
		if os.Getenv("ZONESERVER_WITHOUT_SESSIONS") == "1" {
			text = strings.Replace(text, fenceText, "", 1)
		}
		saveScript = redis.NewScript(text)
		main()
	})
}

// startDatabase starts a server of the test's own.
type startDatabase = func(t *testing.T, options ...string) *servers.Process

// startGame starts a gateway or a zone server: the first of args is its role.
func startGame(t *testing.T, name string, env []string, args ...string) *servers.Process {
	t.Helper()
	return servers.Example(t, name, append([]string{"MIDAS_APP_KEY=" + servers.AppKey}, env...), args...)
}

// redisClient waits until Redis has read its file.
func redisClient(t *testing.T, s *servers.Process) *redis.Client {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: s.Address, MaxRetries: -1, ContextTimeoutEnabled: true})
	t.Cleanup(func() { client.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), servers.StartTime)
	defer cancel()
	for client.Ping(ctx).Err() != nil && ctx.Err() == nil {
		servers.Pause(ctx, 20*time.Millisecond)
	}
	require.NoError(t, client.Ping(ctx).Err())
	return client
}

// placeOrder orders what is to be paid, and returns the token.
func placeOrder(ctx context.Context, gateway *servers.Process, p payment) (token string, err error) {
	return servers.PlaceOrder(ctx, gateway.URL, servers.Order{OpenID: p.openID, Zone: p.zone, Item: p.item, Quantity: p.quantity})
}

// ask lets a player do something: "login", "play" or "logout". It reports whether it was done.
func ask(ctx context.Context, zoneURL, openID, what string) bool {
	return servers.Post(ctx, zoneURL+"/players/"+openID+"/"+what)
}
