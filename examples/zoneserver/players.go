package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/midas-go/midas"
	"github.com/redis/go-redis/v9"
)

// A record is what is saved of a player, as a whole.
type record struct {
	Items  map[string]int `json:"items"`
	Bought []string       `json:"bought"` // billnos, for the player to look at; a real game shows the newest few
	Played int            `json:"played"` // the rest of the game
}

// with returns r and what was paid for, and leaves r as it is.
func (r record) with(d *midas.Delivery) record {
	r.Items = maps.Clone(r.Items)
	if r.Items == nil {
		r.Items = make(map[string]int)
	}
	for _, item := range d.Items {
		r.Items[item.ID] += item.Quantity
	}
	r.Bought = append(slices.Clip(r.Bought), d.BillNo)
	return r
}

// players keeps the players of all zones in Redis: for each the hash player:{zone:openid}, with
// the record and the number of the session that may save it, and the sorted set
// paid:{zone:openid}, with the payments' ids by the time of their save. The braces
// keep both on one node of a cluster.
type players struct{ redis *redis.Client }

func keys(zone, openID string) []string {
	return []string{"player:{" + zone + ":" + openID + "}", "paid:{" + zone + ":" + openID + "}"}
}

// errStale says that the player has been loaded since by somebody else, here or on another
// zone server: what is in memory must not be saved any more.
var errStale = errors.New("the player belongs to a newer session")

// loadScript begins a session. From here on the sessions before it save nothing, also what they
// have sent already and Redis has not yet seen.
var loadScript = redis.NewScript(`
local session = redis.call('HINCRBY', KEYS[1], 'session', 1)
return {session, redis.call('HGET', KEYS[1], 'record') or '{}'}`)

// load loads a player for a new session.
func (p *players) load(ctx context.Context, zone, openID string) (session int64, r record, err error) {
	loaded, err := loadScript.Run(ctx, p.redis, keys(zone, openID)).Slice()
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

// saveText saves the record and the payment's id in one step, or neither: a script runs as a
// whole, and goes as a whole into the append-only file.
const (
	saveText = `
if redis.call('HGET', KEYS[1], 'session') ~= ARGV[1] then return 'stale' end
` + idText + `
redis.call('HSET', KEYS[1], 'record', ARGV[2])
return 'saved'`

	idText = `if ARGV[3] ~= '' and redis.call('ZADD', KEYS[2], ARGV[4], ARGV[3]) == 0 then return 'known' end`
)

var saveScript = redis.NewScript(saveText)

// save saves a player, together with the id of the payment that was granted; without one, id
// is empty. It reports false, and saves nothing, if that payment is in the saved record already. After an
// error that is not errStale the save may have happened or still happen: the session must not
// save again.
func (p *players) save(ctx context.Context, zone, openID string, session int64, r record, id string) (bool, error) {
	text, err := json.Marshal(r)
	if err != nil {
		return false, err
	}
	result, err := saveScript.Run(ctx, p.redis, keys(zone, openID), strconv.FormatInt(session, 10), text, id, time.Now().Unix()).Text()
	switch {
	case err != nil:
		return false, fmt.Errorf("saving a player: %w", err)
	case result == "stale":
		return false, errStale
	}
	return result == "saved", nil
}

// idsKept is for how long a record remembers a payment after it was last handed out: longer
// than any backup that would be restored, and 30 days at least (see midassql.Inbox).
const idsKept = 90 * 24 * time.Hour

// forget forgets old ids. It is for the moment after everything that waited for the player
// was handed out, which made its ids young again.
func (p *players) forget(ctx context.Context, zone, openID string) error {
	until := strconv.FormatInt(time.Now().Add(-idsKept).Unix(), 10)
	return p.redis.ZRemRangeByScore(ctx, keys(zone, openID)[1], "-inf", until).Err()
}

// Redis carries a word from the gateway to the zone servers, too. It may get lost: they also
// look by themselves, each second.
const storedChannel = "midas:stored"

// announce tells the zone servers that a payment is stored. The callback is not yet answered,
// so it has little time.
func (p *players) announce(ctx context.Context, d *midas.Delivery) {
	ctx, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	p.redis.Publish(ctx, storedChannel, d.ZoneID) // an error: see storedChannel
}
