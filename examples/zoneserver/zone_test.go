package main

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/examples/internal/servers"
	"github.com/midas-go/midas/midassql"
	"github.com/midas-go/midas/midastest"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

// A game is a ledger and a Redis, with zones in the test's own process.
type game struct {
	t      *testing.T
	db     *database
	store  *midassql.Store
	client *redis.Client
	redis  *redisPlayers
	log    *slog.Logger
	logged *bytes.Buffer
}

func newGame(t *testing.T, start startDatabase) *game {
	t.Helper()
	db, err := openDatabase(start(t).URL)
	require.NoError(t, err)
	t.Cleanup(func() { db.Close() })
	store, err := midassql.New(db.DB, db.dialect, midassql.Options{AcceptAppOrders: true})
	require.NoError(t, err)
	require.NoError(t, store.Migrate(t.Context()))
	client := redisClient(t, servers.Redis(t))
	logged := new(bytes.Buffer)
	return &game{t: t, db: db, store: store, client: client, redis: &redisPlayers{client: client}, logged: logged,
		log: slog.New(slog.NewTextHandler(logged, nil))}
}

func (g *game) zone(p players) *zone {
	return newZone("1", g.store, g.inbox(midassql.InboxOptions{Zones: []string{"1"}, Lease: time.Second, Poll: 20 * time.Millisecond}), p, g.log)
}

func (g *game) inbox(opts midassql.InboxOptions) *midassql.Inbox {
	g.t.Helper()
	inbox, err := g.store.Inbox(opts)
	require.NoError(g.t, err)
	return inbox
}

func delivery(billNo string) *midas.Delivery {
	return &midas.Delivery{OpenID: "player", BillNo: billNo, Token: "token" + billNo, ZoneID: "1",
		Items: []midas.Item{{ID: "gem60", Price: 60 * midas.QPoint, Quantity: 1}}, Charged: 60 * midas.QPoint, Time: time.Now()}
}

func (g *game) deliver(billNo string) {
	g.t.Helper()
	require.NoError(g.t, g.inbox(midassql.InboxOptions{}).Deliver(g.t.Context(), delivery(billNo)))
}

// work lets z grant until nothing of the player waits.
func (g *game) work(z *zone) {
	g.t.Helper()
	ctx, stop := context.WithCancel(g.t.Context())
	var working sync.WaitGroup
	working.Go(func() { z.inbox.Work(ctx, z.grant) })
	require.Eventually(g.t, func() bool {
		for range g.store.Payments(ctx, midassql.Query{OpenID: "player", State: midassql.StateWaiting}) {
			return false
		}
		return true
	}, servers.StartTime, 20*time.Millisecond)
	stop()
	working.Wait()
}

// saved returns the record that a new session would have.
func (g *game) saved(p players) record {
	g.t.Helper()
	_, r, err := p.load(g.t.Context(), "1", "player")
	require.NoError(g.t, err)
	return r
}

func (g *game) sql() *sqlPlayers {
	g.t.Helper()
	p, err := openSQLPlayers(g.t.Context(), g.db)
	require.NoError(g.t, err)
	return p
}

var starts = map[string]startDatabase{"postgresql": servers.PostgreSQL, "mariadb": servers.MariaDB, "mysql": servers.MySQL}

// A player who was loaded by another zone server is not overwritten by the first one.
func TestAnOlderSessionSavesNothing(t *testing.T) {
	t.Parallel()
	for name, start := range starts {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGame(t, start)
			for _, p := range []players{g.redis, g.sql()} {
				older, empty, err := p.load(t.Context(), "1", "player")
				require.NoError(t, err)
				current, _, err := p.load(t.Context(), "1", "player")
				require.NoError(t, err)
				now := time.Unix(1700000000, 0)
				bought := empty.with(delivery("-1"), now)
				require.NoError(t, p.save(t.Context(), "1", "player", current, bought))
				require.NoError(t, p.save(t.Context(), "1", "player", current, bought), "saving the same again")
				require.ErrorIs(t, p.save(t.Context(), "1", "player", older, record{Played: 1}), errStale)
				require.Equal(t, record{Items: map[string]int{"gem60": 1}, Paid: map[string]int64{"player/-1": now.Unix()}, Bought: []string{"-1"}}, g.saved(p))
			}
			if g.db.dialect == midassql.MySQL {
				servers.TestNothingIsPrepared(t, g.db.DB)
			}
		})
	}
}

// late passes on a save, but only when it is told to: so long hangs the zone server.
type late struct {
	players
	asked, goOn chan struct{}
}

func (p late) save(ctx context.Context, zone, openID string, session int64, r record) error {
	close(p.asked)
	<-p.goOn
	return p.players.save(context.WithoutCancel(ctx), zone, openID, session, r)
}

// withoutSessions saves, whoever has begun a session since.
type withoutSessions struct{ *redisPlayers }

func (p withoutSessions) save(ctx context.Context, zone, openID string, _ int64, r record) error {
	current, err := p.client.HGet(ctx, key(zone, openID), "session").Int64()
	if err != nil {
		return err
	}
	return p.redisPlayers.save(ctx, zone, openID, current, r)
}

// A zone server hangs between the hand-out of a payment and the save, and goes on when its lease
// has ended and another one has granted that payment, and a second one.
func TestAZoneServerOutlivesItsLease(t *testing.T) {
	t.Parallel()
	g := newGame(t, servers.PostgreSQL)
	sql := g.sql()
	sqlWithoutSessions := *sql
	sqlWithoutSessions.update = strings.Replace(sql.update, "session = ", "session >= ", 1)
	for i, row := range []struct {
		name    string
		players players
		gems    int
	}{
		{"players in redis", g.redis, 2},
		{"players in redis, saved by any session", withoutSessions{g.redis}, 1},
		{"players in sql", sql, 2},
		{"players in sql, saved by any session", &sqlWithoutSessions, 1},
	} {
		t.Run(row.name, func(t *testing.T) {
			require.NoError(t, g.client.FlushAll(t.Context()).Err())
			_, err := g.db.Exec("DELETE FROM players")
			require.NoError(t, err)
			hung := late{row.players, make(chan struct{}), make(chan struct{})}
			first, second := g.zone(hung), g.zone(row.players)
			_, err = first.login(t.Context(), "player")
			require.NoError(t, err)
			g.deliver(fmt.Sprintf("-%d-1", i))
			ctx, stop := context.WithCancel(t.Context())
			var working sync.WaitGroup
			working.Go(func() { first.inbox.Work(ctx, first.grant) })
			<-hung.asked
			stop()

			_, err = second.login(t.Context(), "player")
			require.NoError(t, err)
			g.deliver(fmt.Sprintf("-%d-2", i))
			g.work(second)
			close(hung.goOn)
			working.Wait()
			require.Equal(t, row.gems, g.saved(row.players).Items["gem60"])
		})
	}
}

// overtaken is a store where each player is loaded once more, by somebody else.
type overtaken struct{ players }

func (p overtaken) load(ctx context.Context, zone, openID string) (session int64, r record, err error) {
	session, r, err = p.players.load(ctx, zone, openID)
	if err == nil {
		_, _, err = p.players.load(ctx, zone, openID)
	}
	return session, r, err
}

// An id is forgotten when it is old and no payment of the player waits.
func TestOldIDsAreForgotten(t *testing.T) {
	t.Parallel()
	g := newGame(t, servers.PostgreSQL)
	now := time.Now()
	old := now.Add(-idsKept - time.Hour)
	for i, row := range []struct {
		name    string
		prepare func(*testing.T, *zone, func(billNo string)) // deliver delivers, and saves without Done
		gems    int
		ids     []string
	}{
		{
			name: "nothing waits: old ones are forgotten", gems: 2, ids: []string{"young"},
			prepare: func(*testing.T, *zone, func(string)) {},
		},
		{
			name: "one that waits is young again", gems: 3, ids: []string{"young", "waits"},
			prepare: func(_ *testing.T, _ *zone, deliver func(string)) { deliver("waits") },
		},
		{
			name: "one waits that a dead zone server has a lease on: none is forgotten", gems: 3, ids: []string{"old", "young", "waits"},
			prepare: func(t *testing.T, _ *zone, deliver func(string)) {
				deliver("waits")
				dead := g.inbox(midassql.InboxOptions{Zones: []string{"1"}, Lease: 10 * time.Second})
				leased := 0
				for _, err := range dead.Waiting(t.Context(), "player") {
					require.NoError(t, err)
					leased++
					break
				}
				require.Equal(t, 1, leased)
			},
		},
		{
			name: "the session is over, so what waits cannot be granted: none is forgotten", gems: 3, ids: []string{"old", "young", "waits"},
			prepare: func(_ *testing.T, z *zone, deliver func(string)) {
				deliver("waits")
				z.players = overtaken{g.redis}
			},
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			require.NoError(t, g.client.FlushAll(t.Context()).Err())
			billNo := func(name string) string { return fmt.Sprintf("-%d-%s", i, name) }
			save := func(name string, handedOut time.Time) {
				session, r, err := g.redis.load(t.Context(), "1", "player")
				require.NoError(t, err)
				require.NoError(t, g.redis.save(t.Context(), "1", "player", session, r.with(delivery(billNo(name)), handedOut)))
			}
			save("old", old)
			save("young", now)
			z := g.zone(g.redis)
			row.prepare(t, z, func(name string) {
				g.deliver(billNo(name))
				save(name, old)
			})
			_, err := z.login(t.Context(), "player")
			require.NoError(t, err)
			var ids []string
			r := g.saved(g.redis)
			for id := range r.Paid {
				ids = append(ids, strings.TrimPrefix(id, "player/"+billNo("")))
			}
			require.ElementsMatch(t, row.ids, ids)

			z = g.zone(g.redis)
			_, err = z.login(t.Context(), "player")
			require.NoError(t, err)
			g.work(z)
			require.Equal(t, row.gems, g.saved(g.redis).Items["gem60"])
		})
	}
}

// A replica without the last save takes over. The player is online all the time.
func TestARedisReplicaTakesOverWithoutTheSave(t *testing.T) {
	t.Parallel()
	g := newGame(t, servers.PostgreSQL)
	for i, savesFirst := range []bool{true, false} {
		t.Run(fmt.Sprintf("a save before Retry: %t", savesFirst), func(t *testing.T) {
			require.NoError(t, g.client.FlushAll(t.Context()).Err())
			began := time.Now()
			z := g.zone(g.redis)
			p, err := z.login(t.Context(), "player")
			require.NoError(t, err)
			replica, err := g.client.Dump(t.Context(), key("1", "player")).Result()
			require.NoError(t, err)
			g.deliver(fmt.Sprint("-", i))
			g.work(z)
			require.Equal(t, 1, p.record.Items["gem60"])
			require.NoError(t, g.client.RestoreReplace(t.Context(), key("1", "player"), 0, replica).Err())

			if savesFirst {
				p.mu.Lock()
				p.played = true
				p.mu.Unlock()
				require.Zero(t, z.saveAll(t.Context()))
			}
			n, err := z.inbox.Retry(t.Context(), midassql.RetryOptions{DoneFrom: began})
			require.NoError(t, err)
			require.NotZero(t, n.PutBack)
			g.work(z)
			require.Equal(t, 1, g.saved(g.redis).Items["gem60"])
		})
	}
}

// Redis hangs while the zone server stops.
func TestTheLastSaveEnds(t *testing.T) {
	t.Parallel()
	server := servers.Redis(t)
	p := &redisPlayers{client: redisClient(t, server)}
	z := newZone("1", nil, nil, p, slog.New(slog.DiscardHandler))
	for i := range 200 {
		openID := fmt.Sprint("player", i)
		session, r, err := p.load(t.Context(), "1", openID)
		require.NoError(t, err)
		z.enter(&player{openID: openID, session: session, record: r, played: true})
	}
	require.NoError(t, server.Signal(syscall.SIGSTOP))
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	began := time.Now()
	left := z.saveAll(ctx)
	require.Less(t, time.Since(began), 30*time.Second, "one after the other would take a minute and more")
	require.NotZero(t, left)
}

// slow loads the player "slow" only when it is told to.
type slow struct {
	players
	asked, goOn chan struct{}
}

func (p slow) load(ctx context.Context, zone, openID string) (session int64, r record, err error) {
	if openID == "slow" {
		close(p.asked)
		select {
		case <-p.goOn:
		case <-ctx.Done():
		}
	}
	return p.players.load(ctx, zone, openID)
}

// While the server stops it still answers what has begun. What was granted and played by then is saved.
func TestTheLastSaveComesAfterTheLastAnswer(t *testing.T) {
	t.Parallel()
	g := newGame(t, servers.PostgreSQL)
	loads := slow{g.redis, make(chan struct{}), make(chan struct{})}
	z := g.zone(loads)
	p, err := z.login(t.Context(), "player")
	require.NoError(t, err)

	limit, cancel := context.WithTimeout(t.Context(), servers.StartTime)
	defer cancel()
	ctx, stop := context.WithCancel(limit)
	address, served, login := servers.FreeAddress(t), make(chan error, 1), make(chan bool, 1)
	go func() { served <- z.serve(ctx, address, g.client, time.Hour) }()
	require.True(t, servers.Listens(limit, nil, address))
	go func() { login <- ask(limit, "http://"+address, "slow", "login") }()
	select {
	case <-loads.asked:
	case <-limit.Done():
		require.NoError(t, limit.Err(), "nobody logs in")
	}
	stop()
	g.deliver("-1")
	require.Eventually(t, func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.record.Items["gem60"] == 1
	}, shutdownTime, 10*time.Millisecond, "nothing is granted any more")
	play := httptest.NewRecorder()
	z.endpoints().ServeHTTP(play, httptest.NewRequest(http.MethodPost, "/players/player/play", nil))
	require.Equal(t, http.StatusOK, play.Code)
	close(loads.goOn)
	require.True(t, <-login)
	require.NoError(t, <-served)
	r := g.saved(g.redis)
	require.Equal(t, 1, r.Items["gem60"])
	require.Equal(t, 1, r.Played)
}

// beforeWrite calls the function before it writes an answer.
type beforeWrite struct {
	http.ResponseWriter
	do func()
}

func (w beforeWrite) Write(text []byte) (int, error) {
	w.do()
	return w.ResponseWriter.Write(text)
}

// An app that does not read its answer holds up no save of the player.
func TestAnAnswerIsWrittenWithoutTheLock(t *testing.T) {
	t.Parallel()
	g := newGame(t, servers.PostgreSQL)
	z := g.zone(g.redis)
	p, err := z.login(t.Context(), "player")
	require.NoError(t, err)
	play := func(what string) int {
		free := false
		recorder := httptest.NewRecorder()
		w := beforeWrite{recorder, func() {
			if free = p.mu.TryLock(); free {
				p.mu.Unlock()
			}
		}}
		z.endpoints().ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/players/player/"+what, nil))
		require.True(t, free, what)
		return recorder.Code
	}
	require.Equal(t, http.StatusOK, play("login"))
	require.Equal(t, http.StatusOK, play("play"))
	require.Equal(t, 1, p.record.Played)

	// The session ends while the request waits for the lock.
	p.over = true
	require.Equal(t, http.StatusNotFound, play("play"))
	require.Equal(t, 1, p.record.Played)
}

// A player who has been on another zone server meanwhile is loaded again; one who has not keeps what
// was played.
func TestALoginAsksWhetherTheSessionIsTheNewest(t *testing.T) {
	t.Parallel()
	g := newGame(t, servers.PostgreSQL)
	first, second := g.zone(g.redis), g.zone(g.redis)
	p, err := first.login(t.Context(), "player")
	require.NoError(t, err)
	p.record.Played++
	again, err := first.login(t.Context(), "player")
	require.NoError(t, err)
	require.Same(t, p, again)

	_, err = second.login(t.Context(), "player")
	require.NoError(t, err)
	g.deliver("-1")
	g.work(second)
	p, err = first.login(t.Context(), "player")
	require.NoError(t, err)
	require.Equal(t, 1, p.record.Items["gem60"])
	require.Equal(t, 1, p.record.Played)
	require.NoError(t, first.logout(t.Context(), "player"))
}

// The payments of a zone's roles wake its zone server up, too.
func TestNewsOfARole(t *testing.T) {
	t.Parallel()
	g := newGame(t, servers.PostgreSQL)
	store, err := midassql.New(g.db.DB, g.db.dialect, midassql.Options{AcceptAppOrders: true}) // one of its own, which does not wake g.store up
	require.NoError(t, err)
	gateway, err := store.Inbox(midassql.InboxOptions{OnStored: announce(g.client)})
	require.NoError(t, err)
	z := g.zone(g.redis)
	z.inbox = g.inbox(midassql.InboxOptions{Zones: []string{"1"}, Poll: time.Hour})
	_, err = z.login(t.Context(), "player")
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	running.Go(func() { z.run(ctx, g.client, time.Hour) })
	require.Eventually(t, func() bool { return g.client.PubSubNumSub(ctx, storedChannel).Val()[storedChannel] == 1 }, servers.StartTime, 10*time.Millisecond)
	for i, zoneID := range []string{"1", "1_7", "1_8"} {
		d := delivery(fmt.Sprint("-", i))
		d.ZoneID = zoneID
		require.NoError(t, gateway.Deliver(ctx, d))
		require.Eventually(t, func() bool {
			for range g.store.Payments(ctx, midassql.Query{OpenID: "player", State: midassql.StateWaiting}) {
				return false
			}
			return true
		}, servers.StartTime, 20*time.Millisecond, "nobody says that a payment of %s is there", zoneID)
	}
}

// A payment is refunded in the moment in which it is granted.
func TestAPaymentIsCancelledWhileItIsGranted(t *testing.T) {
	t.Parallel()
	g := newGame(t, servers.PostgreSQL)
	g.deliver("-1")
	hung := late{g.redis, make(chan struct{}), make(chan struct{})}
	z := g.zone(hung)
	go func() {
		<-hung.asked
		z.inbox.Cancel(t.Context(), "player", "-1", "refunded")
		close(hung.goOn)
	}()
	_, err := z.login(t.Context(), "player")
	require.NoError(t, err)
	require.Equal(t, 1, g.saved(g.redis).Items["gem60"])
	require.Contains(t, g.logged.String(), "somebody must decide")
	require.NotContains(t, g.logged.String(), "handed out again")
}

// A save counts once a replica has it.
func TestASaveWaitsForTheReplica(t *testing.T) {
	t.Parallel()
	primary := servers.Redis(t)
	host, port, _ := strings.Cut(primary.Address, ":")
	replica := servers.Redis(t, "--replicaof", host, port)
	p := &redisPlayers{redisClient(t, primary), 1}
	session, r, err := p.load(t.Context(), "1", "player")
	require.NoError(t, err)
	require.Eventually(t, func() bool { return p.save(t.Context(), "1", "player", session, r) == nil }, servers.StartTime, 10*time.Millisecond)

	// The pool has idle connections, for WAIT to be sent on the wrong one.
	var conns []*redis.Conn
	for range 3 {
		conn := p.client.Conn()
		defer conn.Close()
		require.NoError(t, conn.Ping(t.Context()).Err())
		conns = append(conns, conn)
	}
	other := conns[2]
	require.NoError(t, conns[0].Close())
	require.NoError(t, conns[1].Close())
	// WAIT counts from where the primary was at a connection's last command. (PING and WAIT itself
	// write to replicas.)
	offsets := regexp.MustCompile(`(?s)state=online,offset=(\d+),.*master_repl_offset:(\d+)`)
	require.Eventually(t, func() bool {
		found := offsets.FindStringSubmatch(other.Info(t.Context(), "replication").Val())
		return found != nil && found[1] == found[2]
	}, servers.StartTime, 10*time.Millisecond)
	require.NoError(t, replica.Signal(syscall.SIGSTOP))
	require.ErrorContains(t, p.save(t.Context(), "1", "player", session, r.with(delivery("-1"), time.Now())), "0 of 1 replicas have the save")
	n, err := other.Wait(t.Context(), 1, waitTime).Result()
	require.NoError(t, err)
	require.EqualValues(t, 1, n, "WAIT on another connection knows nothing of the save")
}

// The node becomes read-only and stays up, as after a switchover. The pool hangs up on it.
func TestThePoolLeavesAPostgreSQLThatBecameReadOnly(t *testing.T) {
	t.Parallel()
	g := newGame(t, servers.PostgreSQL)
	g.deliver("-1")
	old, err := g.db.Conn(t.Context())
	require.NoError(t, err)
	defer old.Close()
	_, err = old.ExecContext(t.Context(), "SET default_transaction_read_only = on")
	require.NoError(t, err)
	_, err = old.ExecContext(t.Context(), "DELETE FROM midas_inbox")
	require.Equal(t, midassql.ClassAgain, g.db.classify(err))
	require.Error(t, old.PingContext(t.Context()), "the pool would use this connection again")
	require.Zero(t, g.db.Stats().Idle)
}

// A pool that opens all of its connections at once finds no way back to a slow PostgreSQL.
func TestFewConnectionsAreOpenedAtOnce(t *testing.T) {
	t.Parallel()
	servers.TestFewConnectionsAreOpenedAtOnce(t, func(url string) *sql.DB {
		db, err := openDatabase(url)
		require.NoError(t, err)
		return db.DB
	})
}

// A driver's own escaping is not safe in every character set.
func TestTheCharacterSetIsUTF8(t *testing.T) {
	t.Parallel()
	for _, params := range []string{"charset=gbk", "charset=utf8mb4&charset=gbk", "charset=utf8mb4,GB18030", "collation=big5_bin", "Character_Set_Client=gbk"} {
		_, err := openDatabase("mysql://root@127.0.0.1/game?" + params)
		require.ErrorContains(t, err, "want utf8mb4", params)
	}
	db, err := openDatabase("mysql://root@127.0.0.1/game?charset=utf8mb4")
	require.NoError(t, err)
	db.Close()
}

// What would panic later is an error that names its flag.
func TestWrongFlags(t *testing.T) {
	t.Parallel()
	const db = "postgres://game@127.0.0.1:1/game"
	for _, args := range [][]string{
		{"-name", ""},
		{"-save", "0"},
		{"-save", "-1s"},
		{"-lease", "500ms"},
		{"-lease", "0"}, // would be the default of midassql
		{"-redis", "http://player:SECRET@127.0.0.1:1"},
	} {
		err := run(t.Context(), append([]string{"zone", "-db", db}, args...), io.Discard)
		require.ErrorContains(t, err, args[0]+": want", args)
		require.NotContains(t, err.Error(), "SECRET")
	}
}

// A URL with a password need not be in the process list.
func TestTheURLOfRedisMayBeInTheEnvironment(t *testing.T) {
	t.Setenv("REDIS_URL", "http://player:SECRET@127.0.0.1:1") // one that is refused
	var help bytes.Buffer
	gateway := func(args ...string) error {
		return run(t.Context(), append([]string{"gateway", "-db", "postgres://game@127.0.0.1:1/game"}, args...), &help)
	}
	require.ErrorContains(t, gateway(), "-redis: want")
	require.ErrorContains(t, gateway("-redis", "redis://127.0.0.1:1"), "AppID", "the flag counts")
	require.ErrorIs(t, gateway("-h"), flag.ErrHelp)
	require.Contains(t, help.String(), "REDIS_URL")
	require.NotContains(t, help.String(), "SECRET")
}

// A zone server dies between the save and Done. The payment is handed out again: the id in the
// record is what keeps it from being granted twice.
func TestAZoneServerDiesBetweenSaveAndDone(t *testing.T) {
	for _, row := range []struct {
		name  string
		env   []string
		times int
	}{
		{name: "with the id in the save it is granted once", times: 1},
		{name: "without it, twice", env: []string{"ZONESERVER_WITHOUT_IDS=1"}, times: 2},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			c := newCrash(t, servers.PostgreSQL(t), "redis", row.env...)
			db, err := openDatabase(c.database.URL)
			require.NoError(t, err)
			defer db.Close()

			p := payment{zone: "1", openID: "oPlayer0", billNo: "-1", item: "gem60", quantity: 1}
			token, err := placeOrder(t.Context(), c.gateway, p)
			require.NoError(t, err)
			rawQuery, err := c.midas.Callback(token, midastest.BillNo(p.billNo))
			require.NoError(t, err)
			require.Equal(t, 0, servers.Call(t.Context(), servers.Callers, c.deliveryURL(0), rawQuery))
			c.paid = []payment{p}

			// Done has to wait for this lock.
			tx, err := db.BeginTx(t.Context(), nil)
			require.NoError(t, err)
			_, err = tx.Exec("SELECT billno FROM midas_deliveries FOR UPDATE")
			require.NoError(t, err)
			login := make(chan bool)
			zone := c.zones["1"].Load()
			go func() { login <- ask(c.limit, zone.URL, p.openID, "login") }()
			for c.saved().bought[p] == 0 {
				require.NoError(t, c.limit.Err(), "the payment is never granted")
				servers.Pause(c.limit, 20*time.Millisecond)
			}
			zone.Kill()
			<-login // no answer, unless Work was first and left nothing for the login to grant
			require.NoError(t, tx.Rollback())

			require.NoError(t, zone.Start(c.limit))
			c.drain()
			require.Equal(t, row.times, c.saved().bought[p])
		})
	}
}

// The zone is the session's, and one that there is: a payment for another one would wait for ever.
func TestTheZoneComesFromTheSession(t *testing.T) {
	t.Parallel()
	game := newGame(t, servers.PostgreSQL)
	fake := servers.Midas(t, "/pay/notify")
	client, err := midas.New(midas.Config{AppID: servers.AppID, AppKey: servers.AppKey, Gateway: fake.Gateway(), DeliveryPath: "/pay/notify"})
	require.NoError(t, err)
	g := &gateway{client: client, store: game.store, sessions: game.client, zones: []string{"1", "2_7"}, log: game.log}
	ask := func(handler http.HandlerFunc, body string, cookies ...*http.Cookie) *http.Response {
		request := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
		for _, cookie := range cookies {
			request.AddCookie(cookie)
		}
		answer := httptest.NewRecorder()
		handler(answer, request)
		return answer.Result()
	}
	order := func(openID string, cookies ...*http.Cookie) *http.Response {
		return ask(g.order, `{"login":"qq","openid":"`+openID+`","openkey":"k","pf":"qq_m","pfkey":"k","zone":"nowhere-1","item":"gem60","quantity":1}`, cookies...)
	}
	for _, body := range []string{`{"openid":"ann","zone":"nowhere-1"}`, `{"openid":"ann","zone":"2"}`, `{"openid":"ann"}`, `{"zone":"1"}`, `zone=1`} {
		require.Equal(t, http.StatusBadRequest, ask(g.login, body).StatusCode, body)
	}
	session := ask(g.login, `{"openid":"ann","zone":"2_7"}`).Cookies()
	require.Len(t, session, 1)
	placed := order("ann", session...)
	require.Equal(t, http.StatusCreated, placed.StatusCode)
	var handedOut midas.Order
	require.NoError(t, json.NewDecoder(placed.Body).Decode(&handedOut))
	for o, err := range game.store.Orders(t.Context(), midassql.Query{Token: handedOut.Token}) {
		require.NoError(t, err)
		require.Equal(t, "2_7", o.ZoneID, "whatever the app says")
	}
	require.Equal(t, http.StatusUnauthorized, order("bob", session...).StatusCode, "another player's openid")
	require.Equal(t, http.StatusUnauthorized, order("ann").StatusCode, "nobody has logged in")
	require.Equal(t, http.StatusUnauthorized, order("ann", &http.Cookie{Name: sessionCookie, Value: "guessed"}).StatusCode)
	g.zones = []string{"1"}
	require.Equal(t, http.StatusUnauthorized, order("ann", session...).StatusCode, "the zone was closed")
}
