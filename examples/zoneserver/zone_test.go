package main

import (
	"testing"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midastest"
	"github.com/stretchr/testify/require"
)

// A player who was loaded by another zone server is not overwritten by the first one.
func TestAnOlderSessionSavesNothing(t *testing.T) {
	t.Parallel()
	p := &players{redisClient(t, startRedis(t))}
	d := &midas.Delivery{OpenID: "player", BillNo: "-1", ZoneID: "1", Items: []midas.Item{{ID: "gem60", Price: 60 * midas.QPoint, Quantity: 2}}}
	old, empty, err := p.load(t.Context(), "1", "player")
	require.NoError(t, err)
	current, _, err := p.load(t.Context(), "1", "player")
	require.NoError(t, err)
	saved, err := p.save(t.Context(), "1", "player", current, empty.with(d), "id of the payment")
	require.NoError(t, err)
	require.True(t, saved)

	_, err = p.save(t.Context(), "1", "player", old, record{Played: 1}, "")
	require.ErrorIs(t, err, errStale)
	_, err = p.save(t.Context(), "1", "player", old, record{}.with(d), "another id")
	require.ErrorIs(t, err, errStale)

	_, r, err := p.load(t.Context(), "1", "player")
	require.NoError(t, err)
	require.Equal(t, record{Items: map[string]int{"gem60": 2}, Bought: []string{"-1"}}, r)
	ids, err := p.redis.ZRange(t.Context(), "paid:{1:player}", 0, -1).Result()
	require.NoError(t, err)
	require.Equal(t, []string{"id of the payment"}, ids)
}

// An id is forgotten when it is old, and young again when its payment is handed out again.
func TestOldIDsAreForgotten(t *testing.T) {
	t.Parallel()
	p := &players{redisClient(t, startRedis(t))}
	session, r, err := p.load(t.Context(), "1", "player")
	require.NoError(t, err)
	for _, id := range []string{"old", "old and seen", "young"} {
		_, err := p.save(t.Context(), "1", "player", session, r, id)
		require.NoError(t, err)
	}
	const key = "paid:{1:player}"
	for _, id := range []string{"old", "old and seen"} {
		require.NoError(t, p.redis.ZIncrBy(t.Context(), key, -float64(91*24*60*60), id).Err())
	}
	saved, err := p.save(t.Context(), "1", "player", session, r, "old and seen")
	require.NoError(t, err)
	require.False(t, saved)

	require.NoError(t, p.forget(t.Context(), "1", "player"))
	ids, err := p.redis.ZRange(t.Context(), key, 0, -1).Result()
	require.NoError(t, err)
	require.ElementsMatch(t, []string{"old and seen", "young"}, ids)
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
			c := newCrash(t, startPostgreSQL(t), row.env...)
			db, _, err := openDatabase(c.database.databaseURL())
			require.NoError(t, err)
			defer db.Close()

			p := payment{zone: "1", openID: "oPlayer0", billNo: "-1", item: "gem60", quantity: 1}
			token, err := placeOrder(t.Context(), c.gateway.url, p)
			require.NoError(t, err)
			rawQuery, err := c.midas.Callback(token, midastest.BillNo(p.billNo))
			require.NoError(t, err)
			require.Equal(t, 0, call(t.Context(), c.gateway.url+"/pay/notify", rawQuery))
			c.paid = []payment{p}

			// Done has to wait for this lock.
			tx, err := db.BeginTx(t.Context(), nil)
			require.NoError(t, err)
			_, err = tx.Exec("SELECT billno FROM midas_deliveries FOR UPDATE")
			require.NoError(t, err)
			login := make(chan bool)
			zone := c.zones["1"].Load()
			go func() { login <- ask(c.limit, zone.url, p.openID, "login") }()
			for c.saved().bought[p] == 0 {
				require.NoError(t, c.limit.Err(), "the payment is never granted")
				pause(c.limit, 20*time.Millisecond)
			}
			zone.kill()
			<-login // no answer, unless Work was first and left nothing for the login to grant
			require.NoError(t, tx.Rollback())

			require.NoError(t, zone.start(c.limit))
			c.drain()
			require.Equal(t, row.times, c.saved().bought[p])
		})
	}
}
