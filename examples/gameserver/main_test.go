package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"database/sql"
	"encoding/json"
	"encoding/pem"
	"flag"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/midas-go/midas"
	"github.com/midas-go/midas/examples/internal/servers"
	"github.com/midas-go/midas/midassql"
	"github.com/midas-go/midas/midastest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func environment(pairs ...string) func(string) string {
	return func(name string) string {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1]
			}
		}
		return ""
	}
}

func TestWrongUsageIsNamed(t *testing.T) {
	t.Parallel()
	live := environment("MIDAS_APP_ID", servers.AppID, "MIDAS_APP_KEY", servers.AppKey)
	for _, test := range []struct {
		args   string
		getenv func(string) string
		want   string
	}{
		{"-midas live", environment(), "-app-id"},
		{"-zones 1,,2", environment(), "-zones"},
		{"-midas live", environment("MIDAS_APP_ID", servers.AppID), "MIDAS_APP_KEY"},
		{"-midas moon", live, "-midas"},
		{"", live, "-midas fake with an app id"},
		{"-listen :8080", environment(), "-listen"},
		{"-listen 192.0.2.1:8080", environment(), "-listen"},
		{"-listen 8080", environment(), "-listen"},
		{"-dry-run -midas live", live, "-dry-run"},
		{"-dry-run -midas msdk", live, "-dry-run"},
		{"-dry-run -midas https://proxy.example.com", live, "-dry-run"},
		{"-tls-cert x -midas sandbox", live, "-tls-key"},
		{"-tls-cert x -tls-key y", environment(), "-tls-cert"},
		{"-delivery-path notify -midas sandbox", live, "-delivery-path"},
		{"-callback-path notify -midas sandbox", live, "-callback-path"},
		{"-callback-path /{x} -midas sandbox", live, "-callback-path"},
		{"-callback-path /notify?x=1 -midas sandbox", live, "-callback-path"},
		{"-callback-path /pay//notify -midas sandbox", live, `"/pay/notify"`},
		{"-callback-path /pay/./x -midas sandbox", live, `"/pay/x"`},
		{"-callback-path /pay/../x/ -midas sandbox", live, `"/x/"`},
		{"-callback-path /healthz -midas sandbox", live, `"GET /healthz"`},
		{"-callback-path /orders -midas sandbox", live, `"POST /orders"`},
		{"-callback-path /players/a/items -midas sandbox", live, `"GET /players/{openid}/items"`},
		{"-delivery-path /healthz -midas sandbox", live, "-delivery-path"},
		{"-callback-path /other", environment(), "-callback-path"},
		{"serve", environment(), `"serve"`},
	} {
		t.Run(test.args, func(t *testing.T) {
			_, err := readConfig(strings.Fields(test.args), test.getenv, io.Discard)
			require.ErrorContains(t, err, test.want)
			require.NotContains(t, err.Error(), servers.AppKey)
		})
	}

	// What the client or the database refuses is an error at the start, too.
	for _, test := range []struct{ args, want string }{
		{"-delivery-path /notify?x=1", "-delivery-path"},
		{"-delivery-path /notify?x=1 -callback-path /notify", "DeliveryPath"},
		{"-db oracle://x", "-db"},
		{"-db mysql://u:hunter2@127.0.0.1:port/x", "-db"},
		{"-db postgres://u:hunter2@127.0.0.1:port/x", "-db"},
		{"-db password=hunter2", "postgres://"},
		{"-db u:hunter2@/x", "mysql://"},
		{"-db tcp(hunter2)", "mysql://"},
		{"-listen 127.0.0.1:99999", "-listen"},
		{"-tls-cert none.crt -tls-key none.key", "none.crt"},
	} {
		t.Run(test.args, func(t *testing.T) {
			args := append([]string{"-midas", "sandbox", "-listen", "127.0.0.1:0", "-db", filepath.Join(t.TempDir(), "game.db")}, strings.Fields(test.args)...)
			err := run(t.Context(), args, live, io.Discard, io.Discard)
			require.ErrorContains(t, err, test.want)
			require.NotContains(t, err.Error(), "hunter2")
		})
	}
}

func TestHelpShowsNoSecretOfTheEnvironment(t *testing.T) {
	t.Parallel()
	var help bytes.Buffer
	_, err := readConfig([]string{"-h"}, environment("MIDAS_APP_KEY", "SECRET", "MIDAS_DATABASE_URL", "postgres://u:SECRET@h/d"), &help)
	require.ErrorIs(t, err, flag.ErrHelp)
	require.Contains(t, help.String(), "-delivery-path")
	require.Contains(t, help.String(), "MIDAS_APP_KEY")
	require.NotContains(t, help.String(), "SECRET")
}

func TestTheEnvironmentIsUsedWhereAFlagIsNotGiven(t *testing.T) {
	t.Parallel()
	getenv := environment("MIDAS_APP_ID", "1", "MIDAS_APP_KEY", "k", "MIDAS_GATEWAY", "sandbox", "MIDAS_DATABASE_URL", "postgres://h/d",
		"MIDAS_DELIVERY_PATH", "/env", "MIDAS_LISTEN", ":1")
	c, err := readConfig([]string{"-delivery-path", "/flag"}, getenv, io.Discard)
	require.NoError(t, err)
	require.Equal(t, &config{listen: ":1", db: "postgres://h/d", midas: "sandbox", appID: "1", appKey: "k",
		deliveryPath: "/flag", callbackPath: "/flag", zones: "1", gateway: midas.Sandbox()}, c)
}

// The first minutes of a newcomer: no set-up, and the commands that were printed.
func TestPrintedCommandsBuySomething(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("curl"); err != nil {
		servers.Missing(t, "curl is not installed")
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	stdoutReader, stdout := io.Pipe()
	var log bytes.Buffer
	ended := make(chan error, 1)
	folder := t.TempDir()
	go func() {
		ended <- run(ctx, []string{"-listen", "127.0.0.1:0", "-db", filepath.Join(folder, "game.db")}, environment(), stdout, &log)
		stdout.Close()
	}()
	var commands []string
	printed := make([]byte, 4096)
	for len(commands) < 4 {
		n, err := stdoutReader.Read(printed)
		require.NoError(t, err)
		for line := range strings.Lines(string(printed[:n])) {
			if line = strings.TrimSpace(line); strings.HasPrefix(line, "curl ") {
				commands = append(commands, line)
			}
		}
	}

	shell := func(command string) string {
		cmd := exec.CommandContext(ctx, "sh", "-c", command)
		cmd.Dir = folder // for order.json
		output, err := cmd.CombinedOutput()
		require.NoError(t, err, string(output))
		return string(output)
	}
	require.Contains(t, shell(commands[0]), `"openkey":"`)
	require.Contains(t, shell(commands[1]), `"url_params":"/v1/`)
	require.Contains(t, shell(commands[2]), `"delivered":true`)
	require.JSONEq(t, `{"items":[{"id":"gem60","quantity":1}]}`, shell(commands[3]))

	stop()
	require.NoError(t, <-ended)
	require.Contains(t, log.String(), `"outcome":"delivered"`)
	require.Contains(t, log.String(), `"msg":"stopped"`)
	for line := range strings.Lines(log.String()) {
		require.True(t, json.Valid([]byte(line)), "not JSON: %s", line)
	}
	require.NotContains(t, log.String(), "sig=")
}

// openid, pfkey and prices as an app sends them.
const goodOrder = `{"login":"qq","openid":"player","openkey":"SECRET-openkey","pf":"qq_m","pfkey":"SECRET-pfkey","item":"gem60","quantity":1}`

func TestOrdersOfTheApp(t *testing.T) {
	t.Parallel()
	fake := servers.Midas(t, "/pay/notify")
	databaseURL := newDatabase(t, sqlite)
	server := startServer(t, fake, databaseURL)
	player := playerOf(t, server.URL, `{"openid":"player"}`)

	for _, test := range []struct {
		name, body string
		status     int
		want       string
	}{
		{"a good one", goodOrder, http.StatusCreated, `"token":"`},
		{"a price of the app's own", strings.Replace(goodOrder, `"item"`, `"price":1,"item"`, 1), http.StatusBadRequest, "price"},
		{"an item that is not for sale", strings.Replace(goodOrder, "gem60", "crown", 1), http.StatusBadRequest, "catalogue"},
		{"no openkey", strings.Replace(goodOrder, "SECRET-openkey", "", 1), http.StatusBadRequest, "openkey"},
		{"a zone of the app's own", strings.Replace(goodOrder, `"item"`, `"zone":"7","item"`, 1), http.StatusBadRequest, "zone"},
		{"another player's openid", strings.Replace(goodOrder, `"player"`, `"anna"`, 1), http.StatusUnauthorized, "the session's"},
		{"a negative quantity", strings.Replace(goodOrder, `"quantity":1`, `"quantity":-1`, 1), http.StatusBadRequest, "payitem"},
		{"no JSON", "openid=player", http.StatusBadRequest, "JSON"},
		{"17 KiB", `{"openid":"` + strings.Repeat("x", 17<<10) + `"}`, http.StatusRequestEntityTooLarge, "16 KiB"},
	} {
		t.Run(test.name, func(t *testing.T) {
			status, body := player.post(t, "/orders", test.body)
			require.Equal(t, test.status, status, body)
			require.Contains(t, body, test.want)
		})
	}

	fake.NextOrders(midastest.Fault{Ret: 1018, Msg: "not logged in"})
	status, body := player.post(t, "/orders", goodOrder)
	require.Equal(t, http.StatusUnauthorized, status)
	require.Contains(t, body, "log in again")
	fake.NextOrders(midastest.Fault{HTML: true})
	status, _ = player.post(t, "/orders", goodOrder)
	require.Equal(t, http.StatusBadGateway, status)

	// Stored is what was accepted, and no secret anywhere.
	db := reader(t, databaseURL)
	var stored int
	require.NoError(t, db.QueryRow("SELECT COUNT(*) FROM midas_orders").Scan(&stored))
	require.Equal(t, 1, stored)
	log, err := os.ReadFile(server.Log)
	require.NoError(t, err)
	for _, secret := range []string{"SECRET", servers.AppKey, "sig="} {
		require.NotContains(t, string(log), secret)
	}
}

// The zone is the session's, and one that there is: a payment for another one would wait for ever.
func TestTheZoneComesFromTheSession(t *testing.T) {
	t.Parallel()
	fake := servers.Midas(t, "/pay/notify")
	databaseURL := newDatabase(t, sqlite)
	server := startServer(t, fake, databaseURL, "-zones", "1,2_7")
	for _, login := range []struct{ body, zone string }{
		{`{"openid":"player"}`, "1"}, {`{"openid":"player","zone":"1"}`, "1"}, {`{"openid":"player","zone":"2_7"}`, "2_7"},
	} {
		status, body := playerOf(t, server.URL, login.body).post(t, "/orders", goodOrder)
		require.Equal(t, http.StatusCreated, status, body)
		var order midas.Order
		require.NoError(t, json.Unmarshal([]byte(body), &order))
		var zone string
		require.NoError(t, reader(t, databaseURL).QueryRow("SELECT zone FROM midas_orders WHERE token = '"+order.Token+"'").Scan(&zone))
		require.Equal(t, login.zone, zone)
	}
	stranger := app{http.DefaultClient, server.URL}
	for _, body := range []string{`{"openid":"player","zone":"nowhere-1"}`, `{"openid":"player","zone":"2"}`, `{"zone":"1"}`} {
		status, text := stranger.post(t, "/login", body)
		require.Equal(t, http.StatusBadRequest, status, text)
	}
	status, text := stranger.post(t, "/orders", goodOrder)
	require.Equal(t, http.StatusUnauthorized, status, text)

	// A zone that was closed after the login.
	player := playerOf(t, server.URL, `{"openid":"player","zone":"2_7"}`)
	closed := startServer(t, fake, databaseURL, "-zones", "1")
	status, text = app{player.Client, closed.URL}.post(t, "/orders", goodOrder) // cookies know no ports
	require.Equal(t, http.StatusUnauthorized, status, text)
}

// An app keeps its cookies.
type app struct {
	*http.Client
	server string
}

// playerOf returns the app of a player who has logged in.
func playerOf(t *testing.T, server, login string) app {
	t.Helper()
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	a := app{&http.Client{Timeout: servers.Apps.Timeout, Transport: servers.Apps.Transport, Jar: jar}, server}
	status, body := a.post(t, "/login", login)
	require.Equal(t, http.StatusOK, status, body)
	return a
}

func (a app) post(t *testing.T, path, body string) (int, string) {
	t.Helper()
	resp, err := a.Post(a.server+path, "application/json", strings.NewReader(body))
	require.NoError(t, err)
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, string(answer)
}

// A database that is away, from the start or later, neither restarts a server nor takes it out
// of service; callbacks are answered ret 1 meanwhile, and granted afterwards.
func TestADatabaseThatIsAway(t *testing.T) {
	t.Parallel()
	postgres := servers.PostgreSQL(t)
	postgres.End(postgres.Stop)
	fake := servers.Midas(t, "/pay/notify")
	server := startServer(t, fake, postgres.URL)
	status := func(path string) int {
		resp, err := servers.Apps.Get(server.URL + path)
		require.NoError(t, err)
		resp.Body.Close()
		return resp.StatusCode
	}
	probes := func() []int { return []int{status("/livez"), status("/readyz"), status("/healthz")} }
	become := func(live, ready, healthy int) {
		t.Helper()
		require.Eventually(t, func() bool { return slices.Equal(probes(), []int{live, ready, healthy}) }, time.Minute, 50*time.Millisecond)
	}
	require.Equal(t, []int{200, 503, 503}, probes())
	require.NoError(t, postgres.Start(t.Context()))
	become(200, 200, 200)

	token, err := placeOrder(t.Context(), server, "player", "gem60", 1)
	require.NoError(t, err)
	rawQuery, err := fake.Callback(token, midastest.BillNo("-away-1"))
	require.NoError(t, err)
	postgres.End(postgres.Stop)
	require.Equal(t, []int{200, 200, 503}, probes())
	require.Equal(t, 1, call(t.Context(), server, rawQuery))
	require.NoError(t, postgres.Start(t.Context()))
	become(200, 200, 200)
	require.Equal(t, 0, call(t.Context(), server, rawQuery))
	requireExactlyOnce(t, postgres.URL, []payment{{"player", "-away-1", "gem60", 1}})
}

// A server that starts neither waits for those who write, nor lets anybody wait behind it.
func TestAStartHoldsUpNobody(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, databaseURL string) {
		fake := servers.Midas(t, "/pay/notify")
		startServer(t, fake, databaseURL)
		db := reader(t, databaseURL)
		writer, err := db.BeginTx(t.Context(), nil)
		require.NoError(t, err)
		defer writer.Rollback()
		_, err = writer.ExecContext(t.Context(), db.insertItem, "player", "-uncommitted", "gem60", 1)
		require.NoError(t, err)
		_, err = writer.ExecContext(t.Context(), `INSERT INTO midas_deliveries (openid, billno, token, zone, items, charged, called_at, granted_at)
			VALUES ('player', '-uncommitted', 'token', '1', '[]', 0, 0, 0)`)
		require.NoError(t, err)

		server := startServer(t, fake, databaseURL)
		token, err := placeOrder(t.Context(), server, "player", "gem60", 1)
		require.NoError(t, err)
		rawQuery, err := fake.Callback(token, midastest.BillNo("-start-1"))
		require.NoError(t, err)
		require.Equal(t, 0, call(t.Context(), server, rawQuery))
		require.NoError(t, writer.Rollback())
		requireExactlyOnce(t, databaseURL, []payment{{"player", "-start-1", "gem60", 1}})
	}, sqlite) // which has one writer
}

// Tencent's bring-up step: verified, logged, answered OK, and nothing granted, although no such
// order was ever stored.
func TestDryRun(t *testing.T) {
	t.Parallel()
	fake := servers.Midas(t, "/pay/notify")
	databaseURL := newDatabase(t, sqlite)
	server := startServer(t, fake, databaseURL, "-midas", "sandbox", "-dry-run") // Tencent's sandbox is not asked

	token := fake.AppOrder(midas.OrderRequest{Player: midas.Player{Login: midas.QQ, OpenID: "player"}, Items: []midas.Item{{ID: "gem60", Price: 600, Quantity: 1}}})
	rawQuery, err := fake.Callback(token, midastest.BillNo("-dry-1"))
	require.NoError(t, err)
	require.Equal(t, 0, call(t.Context(), server, rawQuery))
	forged, err := fake.Callback(token, midastest.WrongKey("guessed"))
	require.NoError(t, err)
	require.Equal(t, 4, call(t.Context(), server, forged))

	require.Empty(t, itemsOf(t, server, "player"))
	db := reader(t, databaseURL)
	require.Empty(t, granted(t, db))
	require.Empty(t, remembered(t, db), "the real delivery comes with the real run")
	log, err := os.ReadFile(server.Log)
	require.NoError(t, err)
	require.Contains(t, string(log), "dry run: verified, nothing is granted")
	require.Contains(t, string(log), "-dry-1")
}

// On Tencent's CEE the path has its prefix, and callbacks carry cee_extend, which nobody
// signs.
func TestCEE(t *testing.T) {
	t.Parallel()
	fake := servers.Midas(t, "/ceecloudpay/notify")
	databaseURL := newDatabase(t, sqlite)
	server := startServer(t, fake, databaseURL, "-delivery-path", "/ceecloudpay/notify")
	token, err := placeOrder(t.Context(), server, "player", "gem60", 2)
	require.NoError(t, err)
	rawQuery, err := fake.Callback(token, midastest.BillNo("-cee-1"))
	require.NoError(t, err)
	require.Equal(t, 0, servers.Call(t.Context(), servers.Callers, server.URL+"/ceecloudpay/notify", rawQuery+"&cee_extend=MyZ4"))
	requireExactlyOnce(t, databaseURL, []payment{{"player", "-cee-1", "gem60", 2}})
}

// A delivery path that ends in a slash is that path, and not what is below it.
func TestDeliveryPathWithSlash(t *testing.T) {
	t.Parallel()
	fake := servers.Midas(t, "/pay/")
	databaseURL := newDatabase(t, sqlite)
	server := startServer(t, fake, databaseURL, "-delivery-path", "/pay/")
	token, err := placeOrder(t.Context(), server, "player", "gem60", 1)
	require.NoError(t, err)
	rawQuery, err := fake.Callback(token, midastest.BillNo("-slash-1"))
	require.NoError(t, err)
	require.Equal(t, servers.NoAnswer, servers.Call(t.Context(), servers.Callers, server.URL+"/pay/below", rawQuery))
	require.Equal(t, 0, servers.Call(t.Context(), servers.Callers, server.URL+"/pay/", rawQuery))
	requireExactlyOnce(t, databaseURL, []payment{{"player", "-slash-1", "gem60", 1}})
}

// SIGTERM while a delivery commits: it ends before the server does, whether Midas is still
// there or was answered ret 1.
func TestShutdownLetsDeliveriesFinish(t *testing.T) {
	t.Parallel()
	const eventually, often = time.Minute, 5 * time.Millisecond
	mariaDB := servers.MariaDB(t)
	fake := servers.Midas(t, "/pay/notify")
	var paid []payment
	for _, want := range []int{0, 1} {
		t.Run(fmt.Sprint("ret ", want), func(t *testing.T) {
			server := startServer(t, fake, mariaDB.URL+"?lock_wait_timeout=10&readTimeout=10s") // while the test looks on
			p := payment{"player", fmt.Sprint("-stop-", want), "gem60", 1}
			token, err := placeOrder(t.Context(), server, p.openID, p.item, p.quantity)
			require.NoError(t, err)
			rawQuery, err := fake.Callback(token, midastest.BillNo(p.billNo))
			require.NoError(t, err)

			// A backup stops commits, and nothing else.
			backup, err := reader(t, mariaDB.URL).Conn(t.Context())
			require.NoError(t, err)
			defer backup.Close()
			stage := func(name string) {
				_, err := backup.ExecContext(t.Context(), "BACKUP STAGE "+name)
				require.NoError(t, err)
			}
			stage("START")
			stage("BLOCK_COMMIT")
			answer, code := make(chan int, 1), make(chan int, 1)
			go func() { answer <- servers.Call(t.Context(), servers.Apps, server.URL+"/pay/notify", rawQuery) }() // not Callers: on a slow machine it would hang up after 2 s
			require.Eventually(t, func() bool {
				var commits int
				err := backup.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM information_schema.processlist WHERE info = 'COMMIT'").Scan(&commits)
				return err == nil && commits == 1
			}, eventually, often)
			if want == 1 {
				require.Equal(t, 1, <-answer)
				answer <- 1 // for below
			}
			go func() { code <- server.End(syscall.SIGTERM) }()
			require.Eventually(t, func() bool { return strings.Contains(servers.Tail(server.Log), `"msg":"stopping"`) }, eventually, often)
			if want == 1 {
				ended := func() bool { return len(code) > 0 }
				require.Never(t, ended, 200*time.Millisecond, often, "the server did not wait for the delivery")
			}
			stage("END")
			require.Equal(t, want, <-answer)
			require.Zero(t, <-code)
			log := servers.Tail(server.Log)
			require.Contains(t, log, `"msg":"stopped"`)
			require.Equal(t, want == 1, strings.Contains(log, "reconcile it"), "delivered after ret 1 was answered")
			paid = append(paid, p)
			requireExactlyOnce(t, mariaDB.URL, paid)
		})
	}
}

func TestHTTPS(t *testing.T) {
	t.Parallel()
	cert, key, roots := certificate(t, "127.0.0.1")
	fake := servers.Midas(t, "/pay/notify")
	databaseURL := newDatabase(t, sqlite)
	server := startServer(t, fake, databaseURL, "-tls-cert", cert, "-tls-key", key)
	base := "https://" + server.Address
	client := trusting(roots, tls.VersionTLS12, 0)

	order := orderOver(t, client, base)
	rawQuery, err := fake.Callback(order.Token, midastest.BillNo("-tls-1"))
	require.NoError(t, err)
	require.Equal(t, 0, servers.Call(t.Context(), client, base+"/pay/notify", rawQuery))
	requireExactlyOnce(t, databaseURL, []payment{{"player", "-tls-1", "gem60", 1}})

	_, err = trusting(roots, tls.VersionTLS10, tls.VersionTLS11).Get(base + "/healthz")
	require.ErrorContains(t, err, "protocol version")
}

// orderOver places an order over https.
func orderOver(t *testing.T, client *http.Client, base string) (order midas.Order) {
	t.Helper()
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	player := app{&http.Client{Timeout: servers.Apps.Timeout, Transport: client.Transport, Jar: jar}, base}
	status, body := player.post(t, "/login", `{"openid":"player"}`)
	require.Equal(t, http.StatusOK, status, body)
	status, body = player.post(t, "/orders", goodOrder)
	require.Equal(t, http.StatusCreated, status, body)
	require.NoError(t, json.Unmarshal([]byte(body), &order))
	return order
}

// trusting returns a client of Midas's patience that trusts roots, and speaks the versions
// of TLS; 0 is any.
func trusting(roots *x509.CertPool, minVersion, maxVersion uint16) *http.Client {
	return &http.Client{Timeout: midastest.Patience, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: minVersion, MaxVersion: maxVersion},
	}}
}

// certificate makes a throw-away certificate and returns its files and a pool that trusts it.
func certificate(t *testing.T, name string) (certFile, keyFile string, roots *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.ParseIP(name)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	parsed, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	roots = x509.NewCertPool()
	roots.AddCert(parsed)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	write := func(file, kind string, der []byte) string {
		file = filepath.Join(t.TempDir(), file)
		require.NoError(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
		return file
	}
	return write("server.crt", "CERTIFICATE", der), write("server.key", "PRIVATE KEY", keyDER), roots
}

func TestDatabaseURLs(t *testing.T) {
	t.Parallel()
	for name, dialect := range map[string]midassql.Dialect{
		"game.db":                                midassql.SQLite,
		"./a=b@c.db":                             midassql.SQLite,
		"dir with blank/ga%me?.db":               midassql.SQLite,
		"postgres://u:p@h/d?sslmode=disable":     midassql.PostgreSQL,
		"postgresql://h/d":                       midassql.PostgreSQL,
		"mysql://u:p%40ss@h:3307/d?tls=true":     midassql.MySQL,
		"mysql://h/d?charset=utf8mb4&timeout=1s": midassql.MySQL,
	} {
		db, err := openDatabase(name)
		require.NoError(t, err, name)
		assert.Equal(t, dialect, db.dialect, name)
		db.Close()
	}
	for _, name := range []string{"", "host=h password=p", "u:p@tcp(h)/d", "tcp(h)/d", "oracle://h/d", "mysql://h:x/d", "mysql://h/d?timeout=soon", "postgres://h:x/d"} {
		_, err := openDatabase(name)
		require.ErrorContains(t, err, "-db", name)
	}
	for _, params := range []string{"charset=gbk", "charset=utf8mb4,GB18030", "collation=big5_bin", "character_set_client=sjis", "tls=true&charset=cp932"} {
		_, err := openDatabase("mysql://h/d?" + params)
		require.ErrorContains(t, err, "want utf8mb4", params)
	}
	file := filepath.Join(t.TempDir(), "odd ?#%41 name.db")
	db, err := openDatabase(file)
	require.NoError(t, err)
	defer db.Close()
	require.NoError(t, db.Ping())
	require.FileExists(t, file)
}

// Who sends slowly, or too much, does not keep a connection.
func TestLimitsOfTheServer(t *testing.T) {
	t.Parallel()
	server := startServer(t, servers.Midas(t, "/pay/notify"), newDatabase(t, sqlite))
	for _, test := range []struct{ name, sent, answer string }{
		{"headers that do not end", "GET /healthz HTTP/1.1\r\nHost: x\r\n", ""},
		{"a body that does not come", "POST /orders HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n", "HTTP/1.1 400 "},
		{"40 KiB of headers", "GET /healthz?" + strings.Repeat("x", 40<<10) + " HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 431 "},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			conn, err := net.Dial("tcp", server.Address)
			require.NoError(t, err)
			defer conn.Close()
			require.NoError(t, conn.SetDeadline(time.Now().Add(time.Minute)))
			_, err = io.WriteString(conn, test.sent)
			require.NoError(t, err)
			answer, err := io.ReadAll(conn)
			require.NotErrorIs(t, err, os.ErrDeadlineExceeded, "the server keeps the connection")
			require.Equal(t, test.answer, string(answer[:min(len(answer), len(test.answer))]))
		})
	}
}

// Each command line that the documentation shows is one that the server takes.
func TestDocumentedCommandLines(t *testing.T) {
	t.Parallel()
	texts := []string{usage}
	for _, pattern := range []string{"README*.md", "deploy/*"} {
		files, err := filepath.Glob(pattern)
		require.NoError(t, err)
		require.NotEmpty(t, files)
		for _, file := range files {
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			texts = append(texts, string(text))
		}
	}
	getenv := environment("MIDAS_APP_ID", servers.AppID, "MIDAS_APP_KEY", servers.AppKey, "MIDAS_GATEWAY", "sandbox")
	n := 0
	for _, line := range regexp.MustCompile("gameserver((?: -[a-z-]+(?: [^- `][^ `\n]*)?)+)").FindAllStringSubmatch(strings.Join(texts, "\n"), -1) {
		if line[1] == " -h" {
			continue
		}
		_, err := readConfig(strings.Fields(line[1]), getenv, io.Discard)
		require.NoError(t, err, line[0])
		n++
	}
	require.GreaterOrEqual(t, n, 18)
}

// So are those for customer service, in this folder and, where it is there, in docs.
func TestDocumentedSupport(t *testing.T) {
	t.Parallel()
	databaseURL := newDatabase(t, sqlite)
	newLedger(t, databaseURL).storeOrder(t, "0123456789ABCDEF", "842C0123")
	files, err := filepath.Glob("../../docs/support*.md")
	require.NoError(t, err)
	n := 0
	for _, file := range append(files, "README.md", "README.zh-CN.md", "../../docs/moving.md", "../../docs/moving.zh-CN.md") {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		whole := strings.ReplaceAll(string(text), "\\\n", " ")
		for _, line := range regexp.MustCompile(`(?m)^ *gameserver ((?:payments|regrant|refund|reconcile|import) .*)$`).FindAllStringSubmatch(whole, -1) {
			args, err := exec.Command("sh", "-c", "printf '%s\\n' "+line[1]).Output()
			require.NoError(t, err)
			_, err = runOn(t, databaseURL, strings.Split(strings.TrimSpace(string(args)), "\n")...)
			switch command, _, _ := strings.Cut(line[1], " "); command {
			case "reconcile":
				require.ErrorContains(t, err, "bill.csv", line[0]) // there is none
			case "import":
				require.ErrorContains(t, err, "day.csv", line[0])
			default:
				require.NoError(t, err, line[0])
			}
			n++
		}
	}
	require.GreaterOrEqual(t, n, 6)
}

// The table of variables in each README is what the server reads, no more and no less.
func TestDocumentedVariables(t *testing.T) {
	t.Parallel()
	var help bytes.Buffer
	_, err := readConfig([]string{"-h"}, environment(), &help)
	require.ErrorIs(t, err, flag.ErrHelp)
	known := map[string]string{"MIDAS_APP_KEY": ""} // by flag
	for _, found := range regexp.MustCompile(`(?m)^  -([a-z-]+)[^\n]*\n[^\n]*\[(MIDAS_[A-Z_]+)\]`).FindAllStringSubmatch(help.String(), -1) {
		known[found[2]] = "-" + found[1]
	}
	for _, file := range []string{"README.md", "README.zh-CN.md"} {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		documented := make(map[string]string)
		for _, row := range regexp.MustCompile("(?m)^\\| `(MIDAS_[A-Z_]+)` \\| (?:`(-[a-z-]+)`|none|无) \\|").FindAllStringSubmatch(string(text), -1) {
			documented[row[1]] = row[2]
		}
		require.Equal(t, known, documented, file)
	}
}

func TestMySQLPreparesNothing(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, databaseURL string) {
		db, err := openDatabase(databaseURL)
		require.NoError(t, err)
		defer db.Close()
		servers.TestNothingIsPrepared(t, db.DB)
	}, "postgresql", sqlite)
}

// Why openDatabase refuses other character sets than UTF-8: with one of those, what a player sends
// becomes a part of the statement.
func TestInterpolateParamsIsUnsafeWithGBK(t *testing.T) {
	t.Parallel()
	u, err := url.Parse(newDatabase(t, "mysql"))
	require.NoError(t, err)
	for charset, want := range map[string]int{"gbk": 2, "utf8mb4": 1} {
		config, err := mysql.ParseDSN("/?interpolateParams=true&charset=" + charset)
		require.NoError(t, err)
		config.Net, config.Addr, config.User = "tcp", u.Host, u.User.Username()
		config.Passwd, _ = u.User.Password()
		connector, err := mysql.NewConnector(config)
		require.NoError(t, err)
		db := sql.OpenDB(connector)
		defer db.Close()
		rows, err := db.Query("SELECT ?", "中', 42 -- ")
		require.NoError(t, err)
		defer rows.Close()
		columns, err := rows.Columns()
		require.NoError(t, err)
		require.Len(t, columns, want, "%s: docs/databases.md says otherwise", charset)
	}
}
