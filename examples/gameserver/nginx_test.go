package main

import (
	"crypto/tls"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/examples/internal/servers"
	"github.com/midas-go/midas/midastest"
	"github.com/stretchr/testify/require"
)

// startNginx runs nginx with the site of deploy/nginx.conf, changed where a test must: names of
// files, port, backend. It returns the site's base URL and the folder of its logs.
func startNginx(t *testing.T, backend *servers.Process, certFile, keyFile string) (base, logs string) {
	t.Helper()
	nginx := servers.Program(t, "nginx", "/usr/sbin/")
	site, err := os.ReadFile("deploy/nginx.conf")
	require.NoError(t, err)
	logs = t.TempDir()
	file := func(name string) string { return filepath.Join(logs, name) }
	var settings strings.Builder
	if os.Geteuid() == 0 {
		settings.WriteString("user root;\n") // the certificate is in a folder of the test's
	}
	fmt.Fprintf(&settings, "daemon off;\nworker_processes 1;\npid %s;\nerror_log %s;\nevents {}\nhttp {\n", file("pid"), file("error.log"))
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		fmt.Fprintf(&settings, "%s_temp_path %s;\n", kind, file(kind))
	}
	p := servers.Start(t, "nginx", logs, "https://%s", func(address string) []string {
		for _, change := range [][2]string{
			{"listen 443 ssl;", "listen " + address + " ssl;"},
			{"/etc/gameserver/tls/midas.crt", certFile},
			{"/etc/gameserver/tls/midas.key", keyFile},
			{"server 127.0.0.1:9001;", "server " + backend.Address + ";"},
			{"/var/log/nginx/midas.log", file("access.log")},
			{"/var/log/nginx/midas.error.log", file("site.error.log")},
		} {
			require.Equal(t, 1, strings.Count(string(site), change[0]), "deploy/nginx.conf: %s", change[0])
			site = []byte(strings.Replace(string(site), change[0], change[1], 1))
		}
		require.NoError(t, os.WriteFile(file("nginx.conf"), []byte(settings.String()+string(site)+"}\n"), 0o600))
		return []string{nginx, "-c", file("nginx.conf"), "-p", logs}
	})
	t.Cleanup(func() { p.End(p.Stop) }) // nginx ends its workers
	return p.URL, logs
}

// Real nginx with the site in deploy terminates TLS and hands callbacks on, byte for byte.
func TestNginx(t *testing.T) {
	t.Parallel()
	cert, key, roots := certificate(t, "127.0.0.1")
	fake := servers.Midas(t, "/pay/notify")
	databaseURL := newDatabase(t, sqlite)
	server := startServer(t, fake, databaseURL, "-delivery-path", "/pay/notify")
	base, logs := startNginx(t, server, cert, key)
	midasCalls := trusting(roots, tls.VersionTLS12, 0)

	order := orderOver(t, midasCalls, base)
	require.Contains(t, order.URLParams, "token_id=")

	// Values that proxies like to tidy up: all are signed as they are.
	var paid []payment
	for i, odd := range []string{"plain", "a;b", "100%", "a b+c", "%2F%252F", "../..//x", "中文", strings.Repeat("long", 2000)} {
		p := payment{"player", fmt.Sprint("-nginx-", i), "gem60", 1}
		rawQuery, err := fake.Callback(order.Token, midastest.BillNo(p.billNo), midastest.Param("cftid", odd))
		require.NoError(t, err)
		require.Equal(t, 0, servers.Call(t.Context(), midasCalls, base+"/pay/notify", rawQuery), "%.20q", odd)
		paid = append(paid, p)
	}
	// As Midas may write it: bare ";" and "*", and a stray "%".
	params := signed("/pay/notify", order.Token, "-nginx-raw", url.Values{"cftid": {"5%"}})
	rawQuery := strings.NewReplacer("%3B", ";", "%2A", "*", "%25", "%").Replace(params)
	require.Contains(t, rawQuery, "cftid=5%&")
	require.Equal(t, 0, servers.Call(t.Context(), midasCalls, base+"/pay/notify", rawQuery))
	paid = append(paid, payment{"player", "-nginx-raw", "gem60", 1})

	forged, err := fake.Callback(order.Token, midastest.WrongKey("guessed"))
	require.NoError(t, err)
	require.Equal(t, 4, servers.Call(t.Context(), midasCalls, base+"/pay/notify", forged))
	requireExactlyOnce(t, databaseURL, paid)

	_, err = trusting(roots, tls.VersionTLS10, tls.VersionTLS11).Get(base + "/healthz")
	require.ErrorContains(t, err, "protocol version")

	// The query belongs in no log, also while the server is away.
	server.Kill()
	require.Equal(t, servers.NoAnswer, servers.Call(t.Context(), midasCalls, base+"/pay/notify", rawQuery))
	accessLog := filepath.Join(logs, "access.log")
	require.Eventually(t, func() bool { return strings.Contains(servers.Tail(accessLog), "GET /pay/notify 502") }, time.Minute, 5*time.Millisecond)
	files, err := filepath.Glob(filepath.Join(logs, "*.log"))
	require.NoError(t, err)
	require.Len(t, files, 4) // and what nginx prints
	for _, file := range files {
		log, err := os.ReadFile(file)
		require.NoError(t, err)
		require.NotContains(t, string(log), "openid", file)
	}
	require.Contains(t, servers.Tail(accessLog), "GET /pay/notify 200")
}

// signed returns the query of a callback for an order of a gem60, signed for path.
func signed(path, token, billNo string, more url.Values) string {
	params := url.Values{"openid": {"player"}, "appid": {servers.AppID}, "ts": {"1518081937"}, "payitem": {"gem60*60*1"}, "token": {token},
		"billno": {billNo}, "version": {"v3"}, "zoneid": {"1"}, "providetype": {"5"}, "amt": {"600"}, "ebazinga": {"1"}}
	maps.Copy(params, more)
	params.Set("sig", midas.SignCallback(http.MethodGet, path, params, servers.AppKey))
	return strings.ReplaceAll(params.Encode(), "+", "%20")
}

// nginx rewrites /midas/notify to /pay/notify. What counts is the registered path, which Midas
// signs, and not the one that the server sees.
func TestNginxThatRewritesThePath(t *testing.T) {
	t.Parallel()
	cert, key, roots := certificate(t, "127.0.0.1")
	midasCalls := trusting(roots, tls.VersionTLS12, 0)
	fake := servers.Midas(t, "/midas/notify") // the registered path

	for _, test := range []struct {
		name string
		args []string
		want int
	}{
		{"told of both paths", []string{"-delivery-path", "/midas/notify", "-callback-path", "/pay/notify"}, 0},
		{"told of the path it sees alone", []string{"-delivery-path", "/pay/notify"}, 4},
	} {
		t.Run(test.name, func(t *testing.T) {
			databaseURL := newDatabase(t, sqlite)
			server := startServer(t, fake, databaseURL, test.args...)
			base, _ := startNginx(t, server, cert, key)
			token, err := placeOrder(t.Context(), server, "player", "gem60", 1)
			require.NoError(t, err)
			rawQuery, err := fake.Callback(token, midastest.BillNo("-rewritten"))
			require.NoError(t, err)
			require.Equal(t, test.want, servers.Call(t.Context(), midasCalls, base+"/midas/notify", rawQuery))
			if test.want == 0 {
				requireExactlyOnce(t, databaseURL, []payment{{"player", "-rewritten", "gem60", 1}})
			} else {
				require.Empty(t, granted(t, reader(t, databaseURL)))
			}
		})
	}
}
