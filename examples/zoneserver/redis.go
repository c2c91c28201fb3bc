package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/midas-go/midas"
	"github.com/redis/go-redis/v9"
)

// redisPlayers keeps each player in a hash: the record, and the number of the session that may
// save it.
type redisPlayers struct {
	client   *redis.Client
	replicas int // that must have a save before it counts
}

func key(zone, openID string) string { return "player:" + zone + ":" + openID }

var loadScript = redis.NewScript(`
local session = redis.call('HINCRBY', KEYS[1], 'session', 1)
return {session, redis.call('HGET', KEYS[1], 'record') or '{}'}`)

func (p *redisPlayers) load(ctx context.Context, zone, openID string) (session int64, r record, err error) {
	loaded, err := loadScript.Run(ctx, p.client, []string{key(zone, openID)}).Slice()
	if err != nil {
		return 0, record{}, fmt.Errorf("loading a player: %w", err)
	}
	session, _ = loaded[0].(int64)
	text, _ := loaded[1].(string)
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		return 0, record{}, fmt.Errorf("loading a player: %w", err)
	}
	return session, r, nil
}

// A script runs as a whole, and goes as a whole into the append-only file.
const (
	saveText = fenceText + `
redis.call('HSET', KEYS[1], 'record', ARGV[2])
return 'saved'`

	fenceText = `
if redis.call('HGET', KEYS[1], 'session') ~= ARGV[1] then return 'stale' end`
)

var saveScript = redis.NewScript(saveText)

// waitTime is for the replicas. It is less than saveTime.
const waitTime = time.Second

func (p *redisPlayers) save(ctx context.Context, zone, openID string, session int64, r record) error {
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	// One connection for both: WAIT is about the writes of its own connection, and on
	// another one from the pool it would say at once that the replicas have them all.
	conn := p.client.Conn()
	defer conn.Close()
	result, err := saveScript.Run(ctx, conn, []string{key(zone, openID)}, session, text).Text()
	switch {
	case err != nil:
		return fmt.Errorf("saving a player: %w", err)
	case result == "stale":
		return errStale
	case p.replicas == 0:
		return nil
	}
	n, err := conn.Wait(ctx, p.replicas, waitTime).Result()
	switch {
	case err != nil:
		return fmt.Errorf("saving a player: waiting for the replicas: %w", err)
	case n < int64(p.replicas):
		return fmt.Errorf("saving a player: %d of %d replicas have the save", n, p.replicas)
	}
	return nil
}

// Redis carries a word from the gateway to the zone servers, too. It may get lost: they also
// look by themselves, each second.
const storedChannel = "midas:stored"

// announce returns what tells the zone servers that a payment is stored.
func announce(client *redis.Client) func(context.Context, *midas.Delivery) {
	return func(ctx context.Context, d *midas.Delivery) {
		client.Publish(ctx, storedChannel, d.ZoneID) // an error: see storedChannel
	}
}
