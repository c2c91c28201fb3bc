package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/midas-go/midas/midastest"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

// What the tests stand on: servers of their own, on free ports and in folders of their own, that can be
// killed, and Midas's side of a callback.

const (
	appID  = "1450000000"
	appKey = "test-pay-key"

	startTime = time.Minute // for a server, its recovery included
)

// TestMain lets the test binary be the gateway and the zone servers, too: so they are built as the
// tests are, with the race detector or without.
func TestMain(m *testing.M) {
	if os.Getenv("ZONESERVER_PROCESS") == "1" {
		text := saveText
		if os.Getenv("ZONESERVER_WITHOUT_IDS") == "1" {
			text = strings.Replace(text, "ARGV[2]", `(string.gsub(ARGV[2], '"paid":%b{}', '"paid":{}'))`, 1)
		}
		if os.Getenv("ZONESERVER_WITHOUT_SESSIONS") == "1" {
			text = strings.Replace(text, fenceText, "", 1)
		}
		saveScript = redis.NewScript(text)
		main()
		return
	}
	os.Exit(m.Run())
}

// A server runs in a process of its own and can be killed.
type server struct {
	name, address, url string

	command []string
	folder  string
	env     []string

	cmd   *exec.Cmd
	ended chan struct{} // closed when cmd has ended
}

func newServer(t *testing.T, name, folder string, env []string, command func(address string) []string) *server {
	t.Helper()
	address := freeAddress(t)
	s := &server{name: name, address: address, url: "http://" + address, folder: folder, env: append(os.Environ(), env...), command: command(address)}
	t.Cleanup(func() {
		s.kill()
		if t.Failed() {
			t.Logf("the end of the log of %s:\n%s", s.name, tail(s.log()))
		}
	})
	require.NoError(t, s.start(t.Context()))
	return s
}

func (s *server) log() string { return filepath.Join(s.folder, s.name+".log") }

// start starts the server and returns once it answers. As under systemd it is started again
// when it ends because what it needs is not there.
func (s *server) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	for {
		log, err := os.OpenFile(s.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		s.cmd = exec.Command(s.command[0], s.command[1:]...)
		s.cmd.Dir, s.cmd.Env, s.cmd.Stdout, s.cmd.Stderr = s.folder, s.env, log, log
		s.ended = make(chan struct{})
		err = s.cmd.Start()
		log.Close()
		if err != nil {
			return err
		}
		go func(cmd *exec.Cmd, ended chan struct{}) {
			cmd.Wait()
			close(ended)
		}(s.cmd, s.ended)
		if listens(ctx, s.ended, s.address) {
			return nil
		}
		s.kill()
		if ctx.Err() != nil {
			return fmt.Errorf("%s does not start: %s", s.name, tail(s.log()))
		}
		pause(ctx, 50*time.Millisecond)
	}
}

// kill ends the server as a power cut would.
func (s *server) kill() {
	if s.cmd != nil && s.cmd.Process != nil {
		s.cmd.Process.Kill() // an error means that it has ended
		<-s.ended
	}
}

func (s *server) restart(ctx context.Context) error {
	s.kill()
	return s.start(ctx)
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

// A target is what the crash proof kills and starts again.
type target interface {
	restart(ctx context.Context) error
}

// startGame starts a gateway or a zone server.
func startGame(t *testing.T, name string, env []string, args ...string) *server {
	t.Helper()
	env = append([]string{"ZONESERVER_PROCESS=1", "MIDAS_APP_KEY=" + appKey}, env...)
	return newServer(t, name, t.TempDir(), env, func(address string) []string {
		return append([]string{os.Args[0], args[0], "-listen", address}, args[1:]...)
	})
}

// startRedis starts a Redis that has what it answered on disk.
func startRedis(t *testing.T, options ...string) *server {
	t.Helper()
	redisServer := program(t, "redis-server", "/usr/bin/")
	return newServer(t, "redis", t.TempDir(), nil, func(address string) []string {
		host, port, _ := net.SplitHostPort(address)
		return append([]string{redisServer, "--bind", host, "--port", port, "--save", "", "--appendonly", "yes", "--appendfsync", "always"}, options...)
	})
}

// redisClient waits until Redis has read its file.
func redisClient(t *testing.T, s *server) *redis.Client {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: s.address, MaxRetries: -1, ContextTimeoutEnabled: true})
	t.Cleanup(func() { client.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), startTime)
	defer cancel()
	for client.Ping(ctx).Err() != nil && ctx.Err() == nil {
		pause(ctx, 20*time.Millisecond)
	}
	require.NoError(t, client.Ping(ctx).Err())
	return client
}

// A databaseServer is a PostgreSQL or MariaDB.
type databaseServer interface {
	target
	databaseURL() string
}

type postgreSQL struct {
	folder, data, url string
	start             []string
}

func startPostgreSQL(t *testing.T) databaseServer {
	t.Helper()
	initdb, pgCtl := program(t, "initdb", "/usr/lib/postgresql/*/bin/"), program(t, "pg_ctl", "/usr/lib/postgresql/*/bin/")
	folder, as := newFolder(t, "postgres")
	host, port, err := net.SplitHostPort(freeAddress(t))
	require.NoError(t, err)
	s := &postgreSQL{folder: folder, data: filepath.Join(folder, "data"), url: fmt.Sprintf("postgres://game@%s:%s/postgres?sslmode=disable", host, port)}
	s.start = slices.Concat(as, []string{pgCtl, "-D", s.data, "-w", "-l", filepath.Join(folder, "log"), "start",
		"-o", fmt.Sprintf("-p %s -k %s -c listen_addresses=%s", port, folder, host)})
	require.NoError(t, runIn(folder, slices.Concat(as, []string{initdb, "-D", s.data, "-U", "game", "-A", "trust", "-E", "UTF8", "--locale=C"})...))
	require.NoError(t, runIn(folder, s.start...))
	t.Cleanup(func() {
		require.NoError(t, runIn(folder, slices.Concat(as, []string{pgCtl, "-D", s.data, "-w", "-m", "immediate", "stop"})...))
	})
	return s
}

func (s *postgreSQL) databaseURL() string { return s.url }

// restart kills the server's first process; the others end when they see that.
func (s *postgreSQL) restart(ctx context.Context) error {
	text, err := os.ReadFile(filepath.Join(s.data, "postmaster.pid"))
	if err != nil {
		return err
	}
	first, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(first)
	if err != nil {
		return err
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return err
	}
	// While one of the others is left, the server does not start.
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	for {
		if err = runIn(s.folder, s.start...); err == nil || ctx.Err() != nil {
			return err
		}
		pause(ctx, 100*time.Millisecond)
	}
}

type mariaDB struct{ *server }

func startMariaDB(t *testing.T) databaseServer {
	t.Helper()
	install, mariadbd := program(t, "mariadb-install-db", "/usr/bin/"), program(t, "mariadbd", "/usr/sbin/")
	folder, as := newFolder(t, "mysql")
	// A folder for temporary files of its own: when it starts it deletes those of others.
	files := []string{"--no-defaults", "--datadir=" + filepath.Join(folder, "data"), "--tmpdir=" + folder}
	require.NoError(t, runIn(folder, slices.Concat(as, []string{install}, files, []string{"--auth-root-authentication-method=normal", "--skip-test-db"})...))
	s := mariaDB{newServer(t, "mariadb", folder, nil, func(address string) []string {
		host, port, _ := net.SplitHostPort(address)
		command := slices.Concat([]string{mariadbd}, files, []string{"--bind-address=" + host, "--port=" + port,
			"--socket=" + filepath.Join(folder, "socket"), "--pid-file=" + filepath.Join(folder, "pid")})
		if as != nil {
			command = append(command, "--user=mysql") // and not runuser, which would be killed in its place
		}
		return command
	})}
	db, err := openDatabase("mysql://root@" + s.address + "/")
	require.NoError(t, err)
	defer db.Close()
	_, err = db.Exec("CREATE DATABASE game")
	require.NoError(t, err)
	return s
}

func (s mariaDB) databaseURL() string { return "mysql://root@" + s.address + "/game" }

// newFolder returns a folder of an account's own, and what to put in front of a command to run
// it under the account: databases do not run as root.
func newFolder(t *testing.T, account string) (folder string, as []string) {
	t.Helper()
	if os.Geteuid() == 0 {
		if _, err := user.Lookup(account); err != nil {
			missing(t, "the database does not run as root, and there is no account "+account)
		}
		as = []string{"runuser", "-u", account, "--"}
	}
	folder, err := os.MkdirTemp("", "zoneserver-"+account+"-") // t.TempDir is closed to the account
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(folder) })
	if as != nil {
		require.NoError(t, exec.Command("chown", account, folder).Run())
	}
	return folder, as
}

// runIn runs a command in folder, to its end.
func runIn(folder string, command ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), startTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Dir = folder
	// To a file: a server that pg_ctl starts would hold a pipe open.
	output, err := os.CreateTemp(folder, "output")
	if err != nil {
		return err
	}
	defer os.Remove(output.Name())
	defer output.Close()
	cmd.Stdout, cmd.Stderr = output, output
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", command, err, tail(output.Name()))
	}
	return nil
}

// program returns the path of a program, or skips the test. Debian keeps those of servers
// out of PATH.
func program(t *testing.T, name, elsewhere string) string {
	t.Helper()
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	paths, err := filepath.Glob(elsewhere + name)
	require.NoError(t, err)
	if len(paths) == 0 {
		missing(t, name+" is not installed")
	}
	return paths[len(paths)-1]
}

// missing skips the test with words, or fails it where everything must be there.
func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("MIDAS_TEST_REQUIRE_ALL") == "1" {
		t.Fatalf("%s, and MIDAS_TEST_REQUIRE_ALL=1", what)
	}
	t.Skipf("SKIPPED, NOT TESTED: %s", what)
}

func tail(file string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-3000):])
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().String()
}

// pause waits for d, or the end of ctx.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// noAnswer is what call returns when there was no usable answer.
const noAnswer = -1

// midasCalls is Midas's side of a callback: it hangs up after 2 s.
var midasCalls = &http.Client{Timeout: midastest.Patience, Transport: &http.Transport{MaxIdleConnsPerHost: 64}}

// call sends a callback and returns the ret of the answer.
func call(ctx context.Context, deliveryURL, rawQuery string) int {
	_, body, err := do(ctx, midasCalls, http.MethodGet, deliveryURL+"?"+rawQuery, nil)
	switch {
	case err != nil:
		return noAnswer
	case string(body) == `{"ret":0,"msg":"OK"}`:
		return 0
	}
	var answer struct{ Ret *int }
	if json.Unmarshal(body, &answer) != nil || answer.Ret == nil || *answer.Ret == 0 {
		return noAnswer
	}
	return *answer.Ret
}

// apps is the HTTP client of the players' apps.
var apps = &http.Client{Timeout: 15 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 64}}

// placeOrder orders an item as the app does, and returns the token.
func placeOrder(ctx context.Context, gatewayURL string, p payment) (string, error) {
	body, err := json.Marshal(map[string]any{
		"login": "qq", "openid": p.openID, "openkey": "SECRET-openkey", "pf": "qq_m_qq-2001-android-2011-xxxx", "pfkey": "SECRET-pfkey",
		"zone": p.zone, "item": p.item, "quantity": p.quantity,
	})
	if err != nil {
		return "", err
	}
	status, body, err := do(ctx, apps, http.MethodPost, gatewayURL+"/orders", body)
	if err != nil {
		return "", err
	}
	var order struct{ Token string }
	if status != http.StatusCreated || json.Unmarshal(body, &order) != nil || order.Token == "" {
		return "", errors.New("no order")
	}
	return order.Token, nil
}

// ask lets a player do something: "login", "play" or "logout". It reports whether it was done.
func ask(ctx context.Context, zoneURL, openID, what string) bool {
	status, _, err := do(ctx, apps, http.MethodPost, zoneURL+"/players/"+openID+"/"+what, nil)
	return err == nil && status < 300
}

func do(ctx context.Context, client *http.Client, method, url string, body []byte) (status int, answer []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return resp.StatusCode, answer, err
}
