package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/examples/internal/servers"
	"github.com/midas-go/midas/midassql"
	"github.com/midas-go/midas/midastest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The size of the proofs, and what repeats one: go test . -run TestPayments -orders 10000.
var (
	ordersFlag  = flag.Int("orders", 200, "paid orders of TestPayments")
	callersFlag = flag.Int("callers", 32, "concurrent callers of TestPayments")
)

// TestPayments is a day of a shop: two servers on one database, every payment called back
// one to five times, wherever and whenever, with forgeries in between. Each payment is granted
// exactly once and finally answered OK; nothing else is granted.
func TestPayments(t *testing.T) {
	onEach(t, func(t *testing.T, databaseURL string) { testPayments(t, databaseURL, *ordersFlag, *callersFlag) })
}

// A callback is one call that Midas, or somebody else, makes.
type callback struct {
	at       float64 // its place in the sequence
	rawQuery string
	server   int
	want     int // ret
}

func testPayments(t *testing.T, databaseURL string, orders, callers int) {
	start := time.Now()
	random := servers.Random(t)
	fake := servers.Midas(t, "/pay/notify")
	backends := []*servers.Process{startServer(t, fake, databaseURL), startServer(t, fake, databaseURL)}

	// The orders: some players differ by case alone; some never pay.
	type order struct {
		payment
		paid  bool
		token string
	}
	book := make([]order, orders+orders/10)
	for i := range book {
		player := fmt.Sprint("oPlayer", random.IntN(len(book)/4+1))
		if random.IntN(2) == 0 {
			player = fmt.Sprint("oplayer", random.IntN(len(book)/4+1))
		}
		item := []string{"gem60", "gem300", "sticker"}[random.IntN(3)]
		book[i] = order{payment: payment{openID: player, item: item, quantity: 1 + random.IntN(3)}, paid: i < orders}
	}
	random.Shuffle(len(book), func(i, j int) { book[i], book[j] = book[j], book[i] })
	concurrently(callers, len(book), func(i int) {
		o := &book[i]
		token, err := placeOrder(t.Context(), backends[i%2], o.openID, o.item, o.quantity)
		assert.NoError(t, err)
		o.token = token
	})
	require.False(t, t.Failed())
	placed := time.Since(start)

	// The callbacks. Those of one payment come all at once, or spread over the others.
	var calls []callback
	var paid []payment
	for i, o := range book {
		add := func(want int, rawQuery string, err error, times int) {
			require.NoError(t, err)
			spread := []float64{0, 3, float64(len(book)) / 4}[random.IntN(3)]
			for range times {
				calls = append(calls, callback{float64(i) + spread*random.Float64(), rawQuery, random.IntN(2), want})
			}
		}
		forge := func(want int, opts ...midastest.PayOption) {
			rawQuery, err := fake.Callback(o.token, opts...)
			add(want, rawQuery, err, 1)
		}
		if o.paid {
			o.billNo = fmt.Sprintf("-APPDJ-%d", i)
			paid = append(paid, o.payment)
			discount := midastest.Discount([]int{100, 95, 80}[random.IntN(3)])
			rawQuery, err := fake.Callback(o.token, midastest.BillNo(o.billNo), discount)
			add(0, rawQuery, err, 1+random.IntN(5))
		}
		if o.paid && random.IntN(5) > 0 {
			continue
		}
		switch random.IntN(8) {
		case 0:
			forge(4, midastest.WrongKey("guessed"))
		case 1:
			forge(4, midastest.SignedPath("/mpay/buy_goods_m"))
		case 2:
			forge(4, midastest.Tampered("payitem", "gem300*300*99"))
		case 3:
			forge(4, midastest.Tampered("openid", "oThief"))
		// What follows is signed, and is still not what was ordered.
		case 4:
			forge(4, midastest.Param("openid", "oThief"))
		case 5:
			forge(4, midastest.Param("payitem", "gem300*0.1*1"))
		case 6:
			forge(4, midastest.Quantity(o.quantity+1))
		case 7:
			item := midas.Item{ID: o.item, Price: catalogue[o.item].price, Quantity: o.quantity}
			token := fake.AppOrder(midas.OrderRequest{Player: midas.Player{Login: midas.QQ, OpenID: o.openID}, Items: []midas.Item{item}})
			// Not a young one, which is ret 1 (midassql.ErrNoOrder).
			rawQuery, err := fake.Callback(token, midastest.Param("ts", strconv.FormatInt(time.Now().Add(-time.Minute).Unix(), 10)))
			add(3, rawQuery, err, 1)
		}
	}
	slices.SortStableFunc(calls, func(a, b callback) int {
		if a.at < b.at {
			return -1
		}
		return 1
	})

	var busy, forged, unanswered atomic.Int64
	limit, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	concurrently(callers, len(calls), func(i int) {
		c := calls[i]
		ret := call(limit, backends[c.server], c.rawQuery)
		for try := 0; (ret == 1 || ret == servers.NoAnswer) && limit.Err() == nil; try++ { // Midas calls again, wherever
			if ret == 1 {
				busy.Add(1)
			} else {
				unanswered.Add(1)
			}
			ret = call(limit, backends[(c.server+try)%2], c.rawQuery)
		}
		if c.want != 0 {
			forged.Add(1)
		}
		assert.Equal(t, c.want, ret)
	})
	require.Zero(t, unanswered.Load(), "a server that runs answers")
	requireExactlyOnce(t, databaseURL, paid)
	checkInventory(t, backends[0], paid, random)
	t.Logf("%d payments called back %d times by %d callers on 2 servers: each granted once; ret 1 was answered %d times; %d forged, altered or unknown callbacks, none granted; %d orders unpaid; %v, orders %v of it",
		len(paid), len(calls)-int(forged.Load()), callers, busy.Load(), forged.Load(), len(book)-len(paid), time.Since(start).Round(time.Millisecond), placed.Round(time.Millisecond))
}

// checkInventory asks the server what some of the players have.
func checkInventory(t *testing.T, server *servers.Process, paid []payment, random *rand.Rand) {
	t.Helper()
	want := make(map[string]map[string]int)
	for _, p := range paid {
		if want[p.openID] == nil {
			want[p.openID] = make(map[string]int)
		}
		want[p.openID][p.item] += p.quantity
	}
	for range 20 {
		player := paid[random.IntN(len(paid))].openID
		require.Equal(t, want[player], itemsOf(t, server, player), player)
	}
}

// A lock on the deliveries for 5 s: the answers are ret 1 within Midas's two seconds, and the
// repeat afterwards delivers once.
func TestSlowDatabase(t *testing.T) {
	const held = 5 * time.Second
	onEach(t, func(t *testing.T, databaseURL string) {
		t.Parallel()
		fake := servers.Midas(t, "/pay/notify")
		server := startServer(t, fake, databaseURL)
		var paid []payment
		var queries []string
		for i := range 8 {
			p := payment{fmt.Sprint("player", i), fmt.Sprint("-slow-", i), "gem60", 1}
			token, err := placeOrder(t.Context(), server, p.openID, p.item, p.quantity)
			require.NoError(t, err)
			rawQuery, err := fake.Callback(token, midastest.BillNo(p.billNo))
			require.NoError(t, err)
			paid, queries = append(paid, p), append(queries, rawQuery)
		}

		unlock := lockDeliveries(t, databaseURL)
		until := time.Now().Add(held)
		var busy, late atomic.Int64
		var callers sync.WaitGroup
		for _, rawQuery := range queries {
			callers.Go(func() {
				for time.Until(until) > 2*time.Second { // so that the last call ends while the lock is held
					start := time.Now()
					ret := servers.Call(t.Context(), servers.Apps, server.URL+"/pay/notify", rawQuery) // more patient than Midas
					if time.Since(start) >= midastest.Patience {
						late.Add(1)
						continue
					}
					assert.Equal(t, 1, ret)
					busy.Add(1)
				}
			})
		}
		callers.Wait()
		servers.Pause(t.Context(), time.Until(until))
		unlock()
		require.NotZero(t, busy.Load())
		require.LessOrEqual(t, late.Load(), busy.Load(), "late; a machine that stalls makes all late that wait just then")

		for _, rawQuery := range queries {
			ret := 1
			for range 20 {
				if ret = call(t.Context(), server, rawQuery); ret == 0 {
					break
				}
			}
			require.Equal(t, 0, ret)
			require.Equal(t, 0, call(t.Context(), server, rawQuery))
		}
		requireExactlyOnce(t, databaseURL, paid)
		t.Logf("locked for %v: ret 1 was answered %d times, too late %d times; then each of %d payments granted once",
			held, busy.Load(), late.Load(), len(paid))
	})
}

// lockDeliveries locks the table of deliveries, or all of SQLite, until unlock is called.
func lockDeliveries(t *testing.T, databaseURL string) (unlock func()) {
	t.Helper()
	db := reader(t, databaseURL)
	conn, err := db.Conn(context.Background())
	require.NoError(t, err)
	lock := map[midassql.Dialect][]string{
		midassql.PostgreSQL: {"BEGIN", "LOCK TABLE midas_deliveries IN ACCESS EXCLUSIVE MODE"},
		midassql.MySQL:      {"LOCK TABLES midas_deliveries WRITE"},
		midassql.SQLite:     {"BEGIN EXCLUSIVE"},
	}[db.dialect]
	release := map[midassql.Dialect]string{midassql.PostgreSQL: "ROLLBACK", midassql.MySQL: "UNLOCK TABLES", midassql.SQLite: "ROLLBACK"}[db.dialect]
	for _, statement := range lock {
		_, err := conn.ExecContext(t.Context(), statement)
		require.NoError(t, err)
	}
	return func() {
		_, err := conn.ExecContext(context.Background(), release)
		require.NoError(t, err)
		require.NoError(t, conn.Close())
	}
}
