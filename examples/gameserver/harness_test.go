package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/midas-go/midas/examples/internal/servers"
	"github.com/midas-go/midas/midassql"
	"github.com/midas-go/midas/midastest"
	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) { servers.Main(m, main) }

// startServer starts a game server in a process of its own.
func startServer(t *testing.T, fake *midastest.Server, databaseURL string, args ...string) *servers.Process {
	t.Helper()
	env := []string{"MIDAS_DATABASE_URL=" + databaseURL, "MIDAS_APP_ID=" + servers.AppID, "MIDAS_APP_KEY=" + servers.AppKey}
	return servers.Example(t, "server", env, append([]string{"-midas", fake.Gateway().BaseURL}, args...)...)
}

// call sends a callback as Midas does, to the path of most tests.
func call(ctx context.Context, server *servers.Process, rawQuery string) int {
	return servers.Call(ctx, servers.Callers, server.URL+"/pay/notify", rawQuery)
}

func placeOrder(ctx context.Context, server *servers.Process, openID, item string, quantity int) (token string, err error) {
	return servers.PlaceOrder(ctx, server.URL, servers.Order{OpenID: openID, Item: item, Quantity: quantity})
}

// itemsOf returns what a player has, as the server says.
func itemsOf(t *testing.T, server *servers.Process, openID string) map[string]int {
	t.Helper()
	resp, err := servers.Apps.Get(server.URL + "/players/" + url.PathEscape(openID) + "/items")
	require.NoError(t, err)
	defer resp.Body.Close()
	var answer struct{ Items []ownedItem }
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&answer))
	items := make(map[string]int)
	for _, item := range answer.Items {
		items[item.ID] = item.Quantity
	}
	return items
}

// What the tests run on: SQLite, and the servers that these variables name.
const sqlite = "sqlite"

var databaseServers = map[string]string{"postgresql": "MIDAS_TEST_POSTGRES", "mariadb": "MIDAS_TEST_MARIADB", "mysql": "MIDAS_TEST_MYSQL"}

// onEach runs a test on each kind of database, with the URL of an empty one.
func onEach(t *testing.T, test func(t *testing.T, databaseURL string), but ...string) {
	t.Helper()
	for _, kind := range []string{"postgresql", "mariadb", "mysql", sqlite} {
		if !slices.Contains(but, kind) {
			t.Run(kind, func(t *testing.T) { test(t, newDatabase(t, kind)) })
		}
	}
}

// newDatabase creates an empty database and returns its URL, or skips the test.
func newDatabase(t *testing.T, kind string) string {
	t.Helper()
	if kind == sqlite {
		return filepath.Join(t.TempDir(), "game.db")
	}
	server := os.Getenv(databaseServers[kind])
	if server == "" {
		servers.Missing(t, databaseServers[kind]+" is not set")
	}
	admin, err := openDatabase(server)
	require.NoError(t, err)
	defer admin.Close()
	t.Logf("on %s", version(t, admin))
	name := fmt.Sprintf("gameserver_%d_%d", os.Getpid(), databases.Add(1))
	_, err = admin.Exec("CREATE DATABASE " + name)
	require.NoError(t, err)
	t.Cleanup(func() {
		admin, err := openDatabase(server)
		require.NoError(t, err)
		defer admin.Close()
		_, err = admin.Exec("DROP DATABASE " + name)
		require.NoError(t, err)
	})
	u, err := url.Parse(server)
	require.NoError(t, err)
	u.Path = "/" + name
	return u.String()
}

var databases atomic.Int64

// startDatabase starts a server of the test's own.
type startDatabase = func(t *testing.T, options ...string) *servers.Process

func version(t *testing.T, db *database) (version string) {
	t.Helper()
	query := "SELECT version()"
	if db.dialect == midassql.SQLite {
		query = "SELECT 'SQLite ' || sqlite_version()"
	}
	require.NoError(t, db.QueryRow(query).Scan(&version))
	return version
}

// reader opens the database beside the servers, to see what they did.
func reader(t *testing.T, databaseURL string) *database {
	t.Helper()
	db, err := openDatabase(databaseURL)
	require.NoError(t, err)
	t.Cleanup(func() { db.Close() })
	return db
}

// A payment is what a player really paid.
type payment struct {
	openID, billNo, item string
	quantity             int
}

// granted returns the journal of grants: how often each payment was granted.
func granted(t *testing.T, db *database) map[payment]int {
	t.Helper()
	rows, err := db.Query("SELECT openid, billno, item, quantity FROM item_journal")
	require.NoError(t, err)
	return counted(t, rows)
}

// remembered returns how often each payment is among the deliveries.
func remembered(t *testing.T, db *database) map[payment]int {
	t.Helper()
	store, err := midassql.New(db.DB, db.dialect, midassql.Options{})
	require.NoError(t, err)
	n := make(map[payment]int)
	for d, err := range store.Payments(t.Context(), midassql.Query{From: time.Unix(0, 0), To: time.Now().Add(time.Hour)}) {
		require.NoError(t, err)
		n[payment{d.OpenID, d.BillNo, d.Items[0].ID, d.Items[0].Quantity}]++
	}
	return n
}

func counted(t *testing.T, rows *sql.Rows) map[payment]int {
	t.Helper()
	defer rows.Close()
	n := make(map[payment]int)
	for rows.Next() {
		var p payment
		require.NoError(t, rows.Scan(&p.openID, &p.billNo, &p.item, &p.quantity))
		n[p]++
	}
	require.NoError(t, rows.Err())
	return n
}

// requireExactlyOnce fails unless each of the payments was granted once, and nothing else was.
func requireExactlyOnce(t *testing.T, databaseURL string, paid []payment) {
	t.Helper()
	require.NotEmpty(t, paid)
	db := reader(t, databaseURL)
	once := make(map[payment]int)
	for _, p := range paid {
		once[p]++
	}
	require.Len(t, once, len(paid), "the test paid twice under one billno")
	for name, got := range map[string]map[payment]int{"item_journal": granted(t, db), "midas_deliveries": remembered(t, db)} {
		lost, twice, unpaid := 0, 0, 0
		for p := range once {
			if got[p] == 0 {
				lost++
			}
		}
		for p, n := range got {
			if n > 1 {
				twice++
			}
			if once[p] == 0 {
				unpaid++
			}
		}
		require.Zero(t, lost+twice+unpaid, "%s: of %d payments %d were lost, %d granted twice, and %d that nobody paid granted",
			name, len(paid), lost, twice, unpaid)
	}
}

// concurrently runs work(i) for each i below n on so many goroutines.
func concurrently(goroutines, n int, work func(i int)) {
	var next atomic.Int64
	var all sync.WaitGroup
	for range goroutines {
		all.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				work(i)
			}
		})
	}
	all.Wait()
}
