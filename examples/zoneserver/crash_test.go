package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/examples/internal/servers"
	"github.com/midas-go/midas/midastest"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var (
	paymentsFlag = flag.Int("payments", 150, "how many payments the crash proof makes at least")
	killsFlag    = flag.Int("kills", 6, "how often it kills the gateway, a zone server, the database or Redis")
)

// Whatever is killed, each payment is in one saved player's record, once.
func TestEachPaymentIsSavedOnce(t *testing.T) {
	for _, row := range []struct {
		name, players string
		start         startDatabase
	}{
		{"postgresql, players in redis", "redis", servers.PostgreSQL},
		{"mariadb, players in redis", "redis", servers.MariaDB},
		{"mysql, players in redis", "redis", servers.MySQL},
		{"postgresql, players in sql", "sql", servers.PostgreSQL},
		{"mariadb, players in sql", "sql", servers.MariaDB},
		{"mysql, players in sql", "sql", servers.MySQL},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			c := newCrash(t, row.start(t), row.players)
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

			// What did not happen was not survived.
			for _, what := range kinds {
				require.NotZero(t, c.killed[what], "%s: %s", what, c)
			}
			for _, n := range []int64{c.logins.Load(), c.logouts.Load(), c.calls.Unanswered.Load(), int64(c.refused)} {
				require.NotZero(t, n, "%s", c)
			}
			t.Logf("%s; each is in one saved record, once", c)
		})
	}
}

// The proof above can fail: where the ids are not saved with the items, the same kills grant twice.
func TestWithoutTheIDPaymentsAreSavedTwice(t *testing.T) {
	untilFound(t, "granted twice", "ZONESERVER_WITHOUT_IDS=1", func(n int) bool { return n > 1 })
}

// Where a save does not ask for the session, a zone server that hung overwrites what was saved
// meanwhile.
func TestWithoutTheSessionPaymentsAreLost(t *testing.T) {
	untilFound(t, "lost", "ZONESERVER_WITHOUT_SESSIONS=1", func(n int) bool { return n == 0 })
}

// untilFound runs the proof until there is a payment of which found says that the number of
// records it is in is wrong.
func untilFound(t *testing.T, what, env string, found func(n int) bool) {
	t.Parallel()
	c := newCrash(t, servers.PostgreSQL(t), "redis", env)
	n := 0
	for round := 0; n == 0 && round < 20; round++ {
		c.run(*paymentsFlag, *killsFlag)
		s := c.saved()
		for _, p := range c.paid {
			if found(s.bought[p]) {
				n++
			}
		}
	}
	require.NotZero(t, n, "%s, and none was %s: the proof would not see it", c, what)
	t.Logf("%s; %d were %s", c, n, what)
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
	saveIn   string // redis or sql
	midas    *midastest.Server
	random   *rand.Rand
	database *servers.Process
	redis    *servers.Process
	gateway  *servers.Process
	zones    map[string]*atomic.Pointer[servers.Process]
	players  []payment // zone and openID only

	mu   sync.Mutex
	paid []payment

	answered           atomic.Int64 // OK
	calls              servers.Caller
	logins, logouts    atomic.Int64
	kills, generations int
	killed             map[string]int
	refused            int // saves of zone servers that hung
	took               time.Duration
}

func newCrash(t *testing.T, database *servers.Process, saveIn string, env ...string) *crash {
	t.Helper()
	c := &crash{t: t, limit: t.Context(), env: env, saveIn: saveIn, random: servers.Random(t), database: database, redis: servers.Redis(t),
		zones: make(map[string]*atomic.Pointer[servers.Process]), killed: make(map[string]int)}
	if deadline, ok := t.Deadline(); ok {
		limit, cancel := context.WithDeadline(t.Context(), deadline.Add(-20*time.Second))
		t.Cleanup(cancel)
		c.limit = limit
	}
	c.midas = servers.Midas(t, "/pay/notify")
	c.gateway = startGame(t, "gateway", env, c.with("gateway", "-midas", c.midas.Gateway().BaseURL, "-app-id", servers.AppID, "-zones", "1,2")...)
	for _, zone := range []string{"1", "2"} {
		c.zones[zone] = new(atomic.Pointer[servers.Process])
		c.zones[zone].Store(c.startZone(zone))
	}
	for i := range 20 {
		c.players = append(c.players, payment{zone: fmt.Sprint(1 + i%2), openID: fmt.Sprint("oPlayer", i)})
	}
	return c
}

func (c *crash) with(role string, args ...string) []string {
	return append([]string{role, "-db", c.database.URL, "-redis", c.redis.URL}, args...)
}

func (c *crash) startZone(zone string) *servers.Process {
	return startGame(c.t, "zone"+zone, c.env, c.with("zone", "-name", zone, "-players", c.saveIn, "-lease", lease.String(), "-save", "100ms")...)
}

const lease = 2 * time.Second

func (c *crash) String() string {
	return fmt.Sprintf("%d payments and %d kills %v in %v, %d logins, %d logouts, %d saves of hung zone servers refused, %d callbacks without an answer, %d answered ret 1, all repeated until OK",
		len(c.paid), c.kills, c.killed, c.took.Round(time.Second), c.logins.Load(), c.logouts.Load(), c.refused, c.calls.Unanswered.Load(), c.calls.Busy.Load())
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
	for i, what := range c.plan(kills) {
		for c.answered.Load() < until-int64(payments)+int64(i*payments/kills) && c.limit.Err() == nil {
			servers.Pause(c.limit, 5*time.Millisecond)
		}
		servers.Pause(c.limit, time.Duration(c.random.IntN(100))*time.Millisecond)
		if failed = !assert.NoError(t, c.kill(what)); failed {
			break
		}
	}
	for !failed && c.answered.Load() < until && c.limit.Err() == nil {
		servers.Pause(c.limit, 5*time.Millisecond)
	}
	close(over)
	running.Wait()
	require.NoError(t, c.limit.Err(), "out of time: %s", c)
	require.False(t, t.Failed())

	c.drain()
	// What is not on disk is lost here.
	require.NoError(t, c.redis.Restart(c.limit, syscall.SIGKILL))
	require.NoError(t, c.database.Restart(c.limit, syscall.SIGKILL))
	c.took += time.Since(start)
}

// kinds are what is killed.
var kinds = []string{"gateway", "zone", "zone that hung", "database", "redis"}

// plan returns what to kill, in random order: each kind once, and then any.
func (c *crash) plan(kills int) []string {
	plan := slices.Clone(kinds)
	for len(plan) < kills {
		plan = append(plan, kinds[c.random.IntN(len(kinds))])
	}
	c.random.Shuffle(len(plan), func(i, j int) { plan[i], plan[j] = plan[j], plan[i] })
	return plan
}

// kill kills something, and starts it again: the gateway while a callback is under way, and a zone
// server that hung until it has tried to save a player who is elsewhere, if it does.
func (c *crash) kill(what string) error {
	c.kills++
	c.killed[what]++
	zone := c.zones[fmt.Sprint(1+c.random.IntN(2))]
	switch what {
	case "gateway":
		for before := c.calls.Unanswered.Load(); c.calls.Unanswered.Load() == before; {
			for c.calls.Running.Load() == 0 && c.limit.Err() == nil {
				servers.Pause(c.limit, time.Millisecond)
			}
			if err := c.gateway.Restart(c.limit, syscall.SIGKILL); err != nil {
				return err
			}
		}
		return nil
	case "database":
		return c.database.Restart(c.limit, syscall.SIGKILL)
	case "redis":
		return c.redis.Restart(c.limit, syscall.SIGKILL)
	case "zone":
		return zone.Load().Restart(c.limit, syscall.SIGKILL)
	}
	for before, try := c.refused, 1; ; try++ {
		err := c.hang(zone)
		// Three tries, and the first refusal is waited for; a counter-example may refuse none.
		enough := c.refused > before || try >= 3 && c.refused > 0 || c.env != nil
		if err != nil || enough || c.limit.Err() != nil {
			return err
		}
	}
}

// hang lets a zone server hang, and another one take its place. It goes on after its leases have ended,
// with players in its memory who have been playing elsewhere.
func (c *crash) hang(zone *atomic.Pointer[servers.Process]) error {
	hung := zone.Load()
	if err := hung.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	zone.Store(c.startZone(hung.Name[len("zone"):]))
	servers.Pause(c.limit, lease+time.Duration(c.random.IntN(500))*time.Millisecond)
	if err := hung.Signal(syscall.SIGCONT); err != nil {
		return err
	}
	servers.Pause(c.limit, time.Duration(300+c.random.IntN(700))*time.Millisecond)
	hung.Kill()
	log, err := os.ReadFile(hung.Log)
	c.refused += strings.Count(string(log), errStale.Error())
	return err
}

// pay lets a player order and pay, one payment after the other.
func (c *crash) pay(player int, isOver func() bool) {
	for n := 0; !isOver(); n++ {
		p := c.players[player]
		p.billNo, p.item, p.quantity = fmt.Sprintf("-%d-%d-%d", c.generations, player, n), "gem60", 1+n%3
		token, err := placeOrder(c.limit, c.gateway, p)
		if err != nil { // no order, no payment: the app asks again
			servers.Pause(c.limit, 20*time.Millisecond)
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
			calls.Go(func() { c.calls.UntilOK(c.limit, c.t, rawQuery, c.deliveryURL) })
		}
		calls.Wait()
		c.answered.Add(1)
	}
}

func (c *crash) deliveryURL(int) string { return c.gateway.URL + "/pay/notify" }

// comeAndGo lets a player log in, play and log out. When his zone server is killed he is out; when
// it does not answer, he hangs up and logs in where it is replaced.
func (c *crash) comeAndGo(player int, isOver func() bool) {
	p := c.players[player]
	ask := func(zone, what string) bool {
		ctx, cancel := context.WithTimeout(c.limit, time.Second)
		defer cancel()
		return ask(ctx, zone, p.openID, what)
	}
	for !isOver() {
		zone := c.zones[p.zone].Load().URL
		if ask(zone, "login") {
			c.logins.Add(1)
		}
		for range rand.IntN(8) {
			servers.Pause(c.limit, 50*time.Millisecond)
			if !ask(zone, "play") {
				break
			}
		}
		if rand.IntN(2) == 0 && ask(zone, "logout") {
			c.logouts.Add(1)
			servers.Pause(c.limit, time.Duration(rand.IntN(300))*time.Millisecond)
		}
		servers.Pause(c.limit, 20*time.Millisecond)
	}
}

// drain lets everybody log in until nothing waits, and then out.
func (c *crash) drain() {
	db, err := openDatabase(c.database.URL)
	require.NoError(c.t, err)
	defer db.Close()
	for {
		var everybody sync.WaitGroup
		for _, p := range c.players {
			everybody.Go(func() { ask(c.limit, c.zones[p.zone].Load().URL, p.openID, "login") })
		}
		everybody.Wait()
		var waiting int
		err := db.QueryRowContext(c.limit, "SELECT count(*) FROM midas_inbox").Scan(&waiting)
		if err == nil && waiting == 0 {
			break
		}
		require.NoError(c.t, c.limit.Err(), "%d payments wait for ever", waiting)
		servers.Pause(c.limit, 200*time.Millisecond)
	}
	var stored, open int
	require.NoError(c.t, db.QueryRowContext(c.limit, "SELECT count(*) FROM midas_deliveries").Scan(&stored))
	require.NoError(c.t, db.QueryRowContext(c.limit, "SELECT count(*) FROM midas_deliveries WHERE state <> 0").Scan(&open))
	require.Equal(c.t, len(c.paid), stored)
	require.Zero(c.t, open, "payments that nobody looks for are not done")
	for _, p := range c.players {
		require.True(c.t, ask(c.limit, c.zones[p.zone].Load().URL, p.openID, "logout"))
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

// saved reads every record.
func (c *crash) saved() saved {
	t := c.t
	paid := make(map[string]payment) // by billno
	for _, p := range c.paid {
		paid[p.billNo] = p
	}
	s := saved{bought: make(map[payment]int), ids: make(map[payment]bool), items: make(map[string]int)}
	for player, text := range c.records() {
		zone, openID, _ := strings.Cut(player, ":")
		var r record
		require.NoError(t, json.Unmarshal([]byte(text), &r))
		for _, billNo := range r.Bought {
			p := paid[billNo]
			require.Equal(t, [2]string{zone, openID}, [2]string{p.zone, p.openID}, "a payment in the wrong record")
			s.bought[p]++
			_, s.ids[p] = r.Paid[midas.PaymentID(openID, billNo)]
		}
		for item, n := range r.Items {
			s.items[zone+" "+openID+" "+item] = n
		}
	}
	return s
}

// records returns every record by zone, a colon, and openid.
func (c *crash) records() map[string]string {
	t, records := c.t, make(map[string]string)
	if c.saveIn == "sql" {
		db, err := openDatabase(c.database.URL)
		require.NoError(t, err)
		defer db.Close()
		rows, err := db.Query("SELECT zone, openid, record FROM players")
		require.NoError(t, err)
		defer rows.Close()
		for rows.Next() {
			var zone, openID, text string
			require.NoError(t, rows.Scan(&zone, &openID, &text))
			records[zone+":"+openID] = text
		}
		require.NoError(t, rows.Err())
		return records
	}
	client := redisClient(t, c.redis)
	keys, err := client.Keys(t.Context(), "player:*").Result()
	require.NoError(t, err)
	for _, key := range keys {
		text, err := client.HGet(t.Context(), key, "record").Result()
		if errors.Is(err, redis.Nil) {
			continue // loaded, never saved
		}
		require.NoError(t, err)
		records[strings.TrimPrefix(key, "player:")] = text
	}
	return records
}
