package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midastest"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var (
	paymentsFlag = flag.Int("payments", 150, "how many payments the crash proof makes at least")
	killsFlag    = flag.Int("kills", 8, "how often it kills the gateway, a zone server, the database or Redis")
	seedFlag     = flag.Uint64("seed", 0, "of the order of kills; 0 takes one from the clock")
)

// Whatever is killed, each payment is in one saved player's record, once.
func TestEachPaymentIsSavedOnce(t *testing.T) {
	for name, start := range map[string]func(*testing.T) databaseServer{"postgresql": startPostgreSQL, "mariadb": startMariaDB} {
		t.Run(name, func(t *testing.T) {
			c := newCrash(t, start(t))
			c.run(*paymentsFlag, *killsFlag)
			s := c.saved()
			for _, p := range c.paid {
				if n := s.bought[p]; n != 1 {
					t.Errorf("%v is in the records %d times", p, n)
				}
				if !s.ids[p] {
					t.Errorf("the record has no id of %v", p)
				}
			}
			if len(s.bought) != len(c.paid) {
				t.Errorf("%d payments were paid, %d are in the records", len(c.paid), len(s.bought))
			}
			require.Equal(t, c.owed(), s.items)
			t.Logf("%s; each is in one saved record, once", c)
		})
	}
}

// The proof above can fail: where the id is not saved with the items, the same kills grant twice.
func TestWithoutTheIDPaymentsAreSavedTwice(t *testing.T) {
	c := newCrash(t, startPostgreSQL(t), "ZONESERVER_WITHOUT_IDS=1")
	twice := 0
	for round := 0; twice == 0 && round < 20; round++ {
		c.run(*paymentsFlag, *killsFlag)
		for p, n := range c.saved().bought {
			if n > 1 {
				t.Logf("%v is in the records %d times", p, n)
				twice++
			}
		}
	}
	require.NotZero(t, twice, "%s, and none was granted twice: the proof would not see it", c)
	t.Logf("%s; %d were granted twice", c, twice)
}

// A payment is what a player really paid.
type payment struct {
	zone, openID, billNo, item string
	quantity                   int
}

// A crash is a game that payments come in for, and whose servers are killed.
type crash struct {
	t        *testing.T
	limit    context.Context
	env      []string
	midas    *midastest.Server
	random   *rand.Rand
	database databaseServer
	redis    *server
	gateway  *server
	zones    map[string]*atomic.Pointer[server]
	players  []payment // zone and openID only

	mu   sync.Mutex
	paid []payment

	answered           atomic.Int64 // OK
	busy, unanswered   atomic.Int64 // and repeated
	logins, logouts    atomic.Int64
	kills, generations int
	killed             map[string]int
	took               time.Duration
}

func newCrash(t *testing.T, database databaseServer, env ...string) *crash {
	t.Helper()
	seed := *seedFlag
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("-seed %d", seed)
	c := &crash{t: t, limit: t.Context(), env: env, random: rand.New(rand.NewPCG(seed, 0)), database: database, redis: startRedis(t),
		zones: make(map[string]*atomic.Pointer[server]), killed: make(map[string]int)}
	if deadline, ok := t.Deadline(); ok {
		limit, cancel := context.WithDeadline(t.Context(), deadline.Add(-20*time.Second))
		t.Cleanup(cancel)
		c.limit = limit
	}
	c.midas = midastest.NewServer(midastest.Config{AppID: appID, AppKey: appKey, Errorf: t.Errorf})
	t.Cleanup(c.midas.Close)
	c.midas.DeliverTo("http://gateway.test/pay/notify") // the callbacks are sent here, by untilOK
	c.gateway = startGame(t, "gateway", env, c.with("gateway", "-midas", c.midas.Gateway().BaseURL, "-app-id", appID)...)
	for _, zone := range []string{"1", "2"} {
		c.zones[zone] = new(atomic.Pointer[server])
		c.zones[zone].Store(c.startZone(zone))
	}
	for i := range 20 {
		c.players = append(c.players, payment{zone: fmt.Sprint(1 + i%2), openID: fmt.Sprint("oPlayer", i)})
	}
	return c
}

func (c *crash) with(role string, args ...string) []string {
	return append([]string{role, "-db", c.database.databaseURL(), "-redis", "redis://" + c.redis.address + "/0"}, args...)
}

func (c *crash) startZone(zone string) *server {
	return startGame(c.t, "zone"+zone, c.env, c.with("zone", "-name", zone, "-lease", "3s", "-save", "100ms")...)
}

func (c *crash) String() string {
	return fmt.Sprintf("%d payments and %d kills %v in %v, %d logins, %d logouts, %d callbacks without an answer, %d answered ret 1, all repeated until OK",
		len(c.paid), c.kills, c.killed, c.took.Round(time.Second), c.logins.Load(), c.logouts.Load(), c.unanswered.Load(), c.busy.Load())
}

// run lets the players pay, log in and out while servers are killed, until there were so many
// payments and kills more, and then until nothing waits.
func (c *crash) run(payments, kills int) {
	t, start := c.t, time.Now()
	c.generations++
	until, over := c.answered.Load()+int64(payments), make(chan struct{})
	isOver := func() bool {
		select {
		case <-over:
			return true
		case <-c.limit.Done():
			return true
		default:
			return false
		}
	}
	var running sync.WaitGroup
	for i := range c.players {
		running.Go(func() { c.pay(i, isOver) })
		running.Go(func() { c.comeAndGo(i, isOver) })
	}

	// The kills are spread over the payments.
	failed := false
	for i := range kills {
		for c.answered.Load() < until-int64(payments)+int64(i*payments/kills) && c.limit.Err() == nil {
			pause(c.limit, 5*time.Millisecond)
		}
		pause(c.limit, time.Duration(c.random.IntN(100))*time.Millisecond)
		if failed = !assert.NoError(t, c.kill()); failed {
			break
		}
	}
	for !failed && c.answered.Load() < until && c.limit.Err() == nil {
		pause(c.limit, 5*time.Millisecond)
	}
	close(over)
	running.Wait()
	require.NoError(t, c.limit.Err(), "out of time: %s", c)
	require.False(t, t.Failed())

	c.drain()
	// What is not on disk is lost here.
	require.NoError(t, c.redis.restart(c.limit))
	require.NoError(t, c.database.restart(c.limit))
	c.took += time.Since(start)
}

// kill kills something at random, and starts it again.
func (c *crash) kill() error {
	c.kills++
	what := []string{"gateway", "zone", "zone", "zone hung", "database", "redis"}[c.random.IntN(6)]
	c.killed[what]++
	zone := c.zones[fmt.Sprint(1+c.random.IntN(2))]
	switch what {
	case "gateway":
		return c.gateway.restart(c.limit)
	case "database":
		return c.database.restart(c.limit)
	case "redis":
		return c.redis.restart(c.limit)
	case "zone":
		return zone.Load().restart(c.limit)
	}
	// The zone server hangs, another one takes its place, and then it goes on, with players
	// in its memory who have been playing elsewhere.
	hung := zone.Load()
	if err := hung.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	zone.Store(c.startZone(hung.name[len("zone"):]))
	pause(c.limit, time.Duration(c.random.IntN(500))*time.Millisecond)
	if err := hung.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		return err
	}
	pause(c.limit, time.Duration(c.random.IntN(1000))*time.Millisecond)
	hung.kill()
	return nil
}

// pay lets a player order and pay, one payment after the other.
func (c *crash) pay(player int, isOver func() bool) {
	for n := 0; !isOver(); n++ {
		p := c.players[player]
		p.billNo, p.item, p.quantity = fmt.Sprintf("-%d-%d-%d", c.generations, player, n), "gem60", 1+n%3
		token, err := placeOrder(c.limit, c.gateway.url, p)
		if err != nil { // no order, no payment: the app asks again
			pause(c.limit, 20*time.Millisecond)
			continue
		}
		rawQuery, err := c.midas.Callback(token, midastest.BillNo(p.billNo))
		if !assert.NoError(c.t, err) {
			return
		}
		c.mu.Lock()
		c.paid = append(c.paid, p)
		c.mu.Unlock()
		var calls sync.WaitGroup
		for range 1 + n%2 {
			calls.Go(func() { c.untilOK(rawQuery) })
		}
		calls.Wait()
		c.answered.Add(1)
	}
}

// untilOK repeats a callback until it is answered OK, as Midas does.
func (c *crash) untilOK(rawQuery string) {
	for c.limit.Err() == nil {
		switch ret := call(c.limit, c.gateway.url+"/pay/notify", rawQuery); ret {
		case 0:
			return
		case 1:
			c.busy.Add(1)
		case noAnswer:
			c.unanswered.Add(1)
		default:
			assert.Fail(c.t, "a payment was refused", "ret %d", ret)
			return
		}
		pause(c.limit, 20*time.Millisecond)
	}
	assert.Fail(c.t, "a payment was never answered OK")
}

// comeAndGo lets a player log in, play and log out. When his zone server is killed he is out.
func (c *crash) comeAndGo(player int, isOver func() bool) {
	p := c.players[player]
	for !isOver() {
		zone := c.zones[p.zone].Load().url
		if ask(c.limit, zone, p.openID, "login") {
			c.logins.Add(1)
		}
		for range rand.IntN(8) {
			pause(c.limit, 50*time.Millisecond)
			if !ask(c.limit, zone, p.openID, "play") {
				break
			}
		}
		if rand.IntN(2) == 0 && ask(c.limit, zone, p.openID, "logout") {
			c.logouts.Add(1)
			pause(c.limit, time.Duration(rand.IntN(300))*time.Millisecond)
		}
		pause(c.limit, 20*time.Millisecond)
	}
}

// drain lets everybody log in until nothing waits, and then out.
func (c *crash) drain() {
	db, _, err := openDatabase(c.database.databaseURL())
	require.NoError(c.t, err)
	defer db.Close()
	for {
		var everybody sync.WaitGroup
		for _, p := range c.players {
			everybody.Go(func() { ask(c.limit, c.zones[p.zone].Load().url, p.openID, "login") })
		}
		everybody.Wait()
		var waiting int
		err := db.QueryRowContext(c.limit, "SELECT count(*) FROM midas_inbox").Scan(&waiting)
		if err == nil && waiting == 0 {
			break
		}
		require.NoError(c.t, c.limit.Err(), "%d payments wait for ever", waiting)
		pause(c.limit, 200*time.Millisecond)
	}
	var stored, open int
	require.NoError(c.t, db.QueryRowContext(c.limit, "SELECT count(*) FROM midas_deliveries").Scan(&stored))
	require.NoError(c.t, db.QueryRowContext(c.limit, "SELECT count(*) FROM midas_deliveries WHERE state <> 0").Scan(&open))
	require.Equal(c.t, len(c.paid), stored)
	require.Zero(c.t, open, "payments that nobody looks for are not done")
	for _, p := range c.players {
		require.True(c.t, ask(c.limit, c.zones[p.zone].Load().url, p.openID, "logout"))
	}
}

// What all records hold.
type saved struct {
	bought map[payment]int
	ids    map[payment]bool
	items  map[string]int // by zone, openid and item
}

func (c *crash) owed() map[string]int {
	items := make(map[string]int)
	for _, p := range c.paid {
		items[p.zone+" "+p.openID+" "+p.item] += p.quantity
	}
	return items
}

// saved reads every record in Redis.
func (c *crash) saved() saved {
	t := c.t
	client := redisClient(t, c.redis)
	paid := make(map[string]payment) // by billno
	for _, p := range c.paid {
		paid[p.billNo] = p
	}
	s := saved{bought: make(map[payment]int), ids: make(map[payment]bool), items: make(map[string]int)}
	keys, err := client.Keys(t.Context(), "player:*").Result()
	require.NoError(t, err)
	for _, key := range keys {
		zone, openID, _ := strings.Cut(strings.TrimSuffix(strings.TrimPrefix(key, "player:{"), "}"), ":")
		text, err := client.HGet(t.Context(), key, "record").Result()
		if errors.Is(err, redis.Nil) {
			continue // loaded, never saved
		}
		require.NoError(t, err)
		var r record
		require.NoError(t, json.Unmarshal([]byte(text), &r))
		ids, err := client.ZRange(t.Context(), "paid:{"+zone+":"+openID+"}", 0, -1).Result()
		require.NoError(t, err)
		for _, billNo := range r.Bought {
			p := paid[billNo]
			require.Equal(t, [2]string{zone, openID}, [2]string{p.zone, p.openID}, "a payment in the wrong record")
			s.bought[p]++
			s.ids[p] = slices.Contains(ids, midas.PaymentID(openID, billNo))
		}
		for item, n := range maps.All(r.Items) {
			s.items[zone+" "+openID+" "+item] = n
		}
	}
	return s
}
