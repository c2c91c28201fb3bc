package main

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/midas-go/midas/midassql"
	"github.com/midas-go/midas/midastest"
	"github.com/stretchr/testify/require"
)

// What the tests stand on: server processes that can be killed, a database of each test's
// own, and Midas's side of a callback.

const (
	appID  = "1450000000"
	appKey = "test-pay-key"
)

// TestMain lets the test binary be the server too: so a server process is built as the tests
// are, with the race detector or without.
func TestMain(m *testing.M) {
	if os.Getenv("GAMESERVER_PROCESS") == "1" {
		main()
		return
	}
	os.Exit(m.Run())
}

// A process is a game server that runs in a process of its own.
type process struct {
	address, url string // 127.0.0.1:port, http://127.0.0.1:port

	log  string // file
	args []string
	env  []string

	cmd   *exec.Cmd
	ended chan struct{} // closed when cmd has ended
}

// startProcess starts a server. Its port is kept when it is killed and started again.
func startProcess(t *testing.T, fake *midastest.Server, databaseURL string, args ...string) *process {
	t.Helper()
	address := freeAddress(t)
	p := &process{address: address, url: "http://" + address, log: filepath.Join(t.TempDir(), "server.log")}
	p.args = append([]string{"-listen", address, "-midas", fake.Gateway().BaseURL}, args...)
	p.env = append(os.Environ(), "GAMESERVER_PROCESS=1", "MIDAS_DATABASE_URL="+databaseURL, "MIDAS_APP_ID="+appID, "MIDAS_APP_KEY="+appKey)
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("the end of the log of %s:\n%s", p.url, tail(p.log))
		}
	})
	require.NoError(t, p.start(t.Context()))
	return p
}

// start starts the server and returns once it answers. As under systemd it is started again
// when it ends because the database is not there.
func (p *process) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		p.cmd = exec.Command(os.Args[0], p.args...)
		p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr = p.env, log, log
		err = p.cmd.Start()
		log.Close()
		if err != nil {
			return err
		}
		p.ended = make(chan struct{})
		go func(cmd *exec.Cmd, ended chan struct{}) {
			cmd.Wait()
			close(ended)
		}(p.cmd, p.ended)
		if listens(ctx, p.ended, p.address) {
			return nil
		}
		p.kill()
		if ctx.Err() != nil {
			return fmt.Errorf("the server does not start: %s", tail(p.log))
		}
	}
}

// listens polls until somebody listens at address, or ended is closed or ctx ends.
func listens(ctx context.Context, ended <-chan struct{}, address string) bool {
	every := time.NewTicker(10 * time.Millisecond)
	defer every.Stop()
	for {
		if conn, err := net.Dial("tcp", address); err == nil {
			conn.Close()
			return true
		}
		select {
		case <-every.C:
		case <-ended:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

// kill ends the server as a power cut would.
func (p *process) kill() { p.end(syscall.SIGKILL) }

// end sends a signal, waits for the end, and returns the exit code.
func (p *process) end(signal os.Signal) int {
	if p.cmd == nil || p.cmd.Process == nil {
		return 0
	}
	p.cmd.Process.Signal(signal) // an error means that it has ended
	<-p.ended
	return p.cmd.ProcessState.ExitCode()
}

func tail(file string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-3000):])
}

func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().String()
}

// newFake returns a Midas of the test's own. Callbacks are signed for path.
func newFake(t *testing.T, path string) *midastest.Server {
	fake := midastest.NewServer(midastest.Config{AppID: appID, AppKey: appKey, Errorf: t.Errorf})
	t.Cleanup(fake.Close)
	fake.DeliverTo("http://backend.test" + path) // tests send the callbacks themselves
	return fake
}

// midasCalls is Midas's side of a callback: it hangs up after 2 s.
var midasCalls = &http.Client{
	Timeout:   midastest.Patience,
	Transport: &http.Transport{MaxIdleConnsPerHost: 64, MaxIdleConns: 256},
}

// noAnswer is what call returns when there was no usable answer.
const noAnswer = -1

// call sends a callback and returns the ret of the answer, after having checked its form.
func call(ctx context.Context, midas *http.Client, deliveryURL, rawQuery string) int {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, deliveryURL+"?"+rawQuery, nil)
	if err != nil {
		return noAnswer
	}
	resp, err := midas.Do(req)
	if err != nil {
		return noAnswer
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return noAnswer
	}
	for _, known := range []struct {
		ret  int
		body string
	}{
		{0, `{"ret":0,"msg":"OK"}`}, {1, `{"ret":1,"msg":"system_busy"}`}, {2, `{"ret":2,"msg":"token_expired"}`},
		{3, `{"ret":3,"msg":"token_not_found"}`}, {4, `{"ret":4,"msg":"bad_parameter`},
	} {
		if string(body) == known.body || known.ret == 4 && strings.HasPrefix(string(body), known.body) {
			return known.ret
		}
	}
	return noAnswer
}

// apps is the HTTP client of the players' apps.
var apps = &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 64, MaxIdleConns: 256}}

// placeOrder orders an item as the app does, and returns the token.
func placeOrder(ctx context.Context, serverURL, openID, item string, quantity int) (string, error) {
	body, err := json.Marshal(map[string]any{
		"login": "qq", "openid": openID, "openkey": "SECRET-openkey", "pf": "qq_m_qq-2001-android-2011-xxxx", "pfkey": "SECRET-pfkey",
		"item": item, "quantity": quantity,
	})
	if err != nil {
		return "", err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, serverURL+"/orders", bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	resp, err := apps.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	var order struct{ Token, Error string }
	if err := json.NewDecoder(resp.Body).Decode(&order); err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusCreated {
		return "", fmt.Errorf("status %d: %s", resp.StatusCode, order.Error)
	}
	return order.Token, nil
}

// itemsOf returns what a player has, as the server says.
func itemsOf(t *testing.T, serverURL, openID string) map[string]int {
	t.Helper()
	resp, err := apps.Get(serverURL + "/players/" + url.PathEscape(openID) + "/items")
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

// newDatabase creates an empty database and returns its URL, or skips the test.
func newDatabase(t *testing.T, dialect midassql.Dialect) string {
	t.Helper()
	if dialect == midassql.SQLite {
		return filepath.Join(t.TempDir(), "game.db")
	}
	env := map[midassql.Dialect]string{midassql.PostgreSQL: "MIDAS_TEST_POSTGRES", midassql.MySQL: "MIDAS_TEST_MYSQL"}[dialect]
	server := os.Getenv(env)
	if server == "" {
		missing(t, env+" is not set")
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

// missing skips the test with words, or fails it where everything must be there.
func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("MIDAS_TEST_REQUIRE_ALL") == "1" {
		t.Fatalf("%s, and MIDAS_TEST_REQUIRE_ALL=1", what)
	}
	t.Skipf("SKIPPED, NOT TESTED: %s", what)
}

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

// randomness returns random numbers that -seed repeats, and prints their seed.
func randomness(t *testing.T) *rand.Rand {
	seed := *seedFlag
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed: -seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}
