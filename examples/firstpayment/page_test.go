package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/midas-go/midas/midastest"
	"github.com/stretchr/testify/require"
)

// An afternoon is the page's: its terminals, a player's phone, and Midas.
type afternoon struct {
	*testing.T
	dir   string
	env   []string
	names *strings.Replacer // of the world outside: Tencent's gateway, and ports that are free here
	midas *midastest.Server
	last  string // query of the last callback

	mu       sync.Mutex
	changed  *sync.Cond
	printed  bytes.Buffer
	programs map[string]*exec.Cmd // that run until they are stopped, by name
	ended    map[string]chan error
}

func (a *afternoon) Write(p []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.changed.Broadcast()
	return a.printed.Write(p)
}

// run runs the commands of a block as they stand there, and returns what they print.
func (a *afternoon) run(block string) string {
	a.Helper()
	if strings.HasPrefix(block, "midas tap report") {
		a.stop("midas") // Ctrl-C in the recorder's terminal
	}
	var own bytes.Buffer
	cmd := exec.Command("bash", "-c", a.names.Replace(block))                            // a context of the test would kill it before it is stopped
	cmd.Dir, cmd.Env, cmd.Stdin = a.dir, a.env, strings.NewReader(a.midas.AppKey()+"\n") // pasted
	name, _, _ := strings.Cut(block, " ")
	if name == "firstpayment" || strings.HasPrefix(block, "midas tap -") {
		cmd.Stdout, cmd.Stderr = a, a
		require.NoError(a, cmd.Start(), block)
		ended := make(chan error, 1)
		a.programs[name], a.ended[name] = cmd, ended
		go func() { ended <- cmd.Wait() }()
		return ""
	}
	cmd.Stdout, cmd.Stderr = &own, a
	require.NoError(a, cmd.Run(), "%s\n%s", block, &own)
	a.Write(append(own.Bytes(), '\n')) // the next may be another terminal's
	return own.String()
}

func (a *afternoon) stop(name string) {
	a.Helper()
	cmd, ended := a.programs[name], a.ended[name]
	delete(a.programs, name)
	require.NoError(a, cmd.Process.Signal(syscall.SIGINT))
	ctx, cancel := context.WithTimeout(context.WithoutCancel(a.Context()), time.Minute) // which is over in a cleanup
	defer cancel()
	select {
	case err := <-ended:
		require.NoError(a, err)
	case <-ctx.Done():
		_ = cmd.Process.Kill()
		require.Fail(a, name+" did not end", "%v", <-ended)
	}
}

// expect waits until each line of a block was printed.
func (a *afternoon) expect(block string) {
	a.Helper()
	ctx, cancel := context.WithTimeout(a.Context(), time.Minute) // for a page that is wrong
	defer cancel()
	context.AfterFunc(ctx, a.changed.Broadcast)
	for line := range strings.Lines(a.names.Replace(block)) {
		want := pattern(strings.TrimRight(line, "\n"))
		a.mu.Lock()
		for !want.Match(a.printed.Bytes()) && ctx.Err() == nil {
			a.changed.Wait()
		}
		printed := a.printed.String()
		a.mu.Unlock()
		require.Regexp(a, want, printed)
	}
}

// pattern returns what a line of a page stands for, in which "…" is anything.
func pattern(line string) *regexp.Regexp {
	return regexp.MustCompile(`(?m)^` + strings.ReplaceAll(regexp.QuoteMeta(line), "…", ".*"))
}

var tokenOf = regexp.MustCompile(`"token":"(\w+)"`)

// pay is the player, who pays what was ordered.
func (a *afternoon) pay(order string) {
	a.Helper()
	token := tokenOf.FindStringSubmatch(order)
	require.NotNil(a, token, order)
	query, err := a.midas.Callback(token[1])
	require.NoError(a, err)
	a.last = query
	a.callBack()
}

func (a *afternoon) callBack() {
	a.Helper()
	_, err := a.midas.Deliver(a.Context(), a.last)
	require.NoError(a, err)
}

// The page is gone through as it stands, with midastest in Tencent's place: each command is run, and each
// output that the page shows must come.
func TestTheFirstPaymentIsMadeAsThePageSays(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		missing(t, "the page's commands are for a Unix shell")
	}
	for _, name := range []string{"bash", "curl", "tee"} {
		if _, err := exec.LookPath(name); err != nil {
			missing(t, name+" is not installed")
		}
	}
	bin := t.TempDir()
	build, err := exec.CommandContext(t.Context(), "go", "build", "-o", bin, "../../cmd/midas", ".").CombinedOutput()
	require.NoError(t, err, string(build))
	ports := freePorts(t, 8)
	for page, ports := range map[string][]string{"first-payment.md": ports[:4], "first-payment.zh-CN.md": ports[4:]} {
		t.Run(page, func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile("../../docs/" + page)
			require.NoError(t, err)
			require.LessOrEqual(t, len(strings.Fields(string(text))), 1200)
			blocks := regexp.MustCompile("(?ms)^```(\\w+)\n(.*?)^```$").FindAllStringSubmatch(string(text), -1)

			orders, callbacks, backend, control := ports[0], ports[1], ports[2], ports[3]
			fake := midastest.NewServer(midastest.Config{CallbackClient: &http.Client{Transport: &http.Transport{
				TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, // Tencent's CA signed it, which nobody has here
			}}})
			t.Cleanup(fake.Close)
			fake.DeliverTo("https://127.0.0.1:" + callbacks + "/pay/notify")
			a := &afternoon{
				T: t, dir: t.TempDir(), midas: fake, programs: map[string]*exec.Cmd{}, ended: map[string]chan error{},
				env: append(os.Environ(), "PATH="+bin+string(os.PathListSeparator)+os.Getenv("PATH"), "LC_ALL=C.UTF-8"),
				// The ports are the defaults of flags, too.
				names: strings.NewReplacer("https://ysdktest.qq.com", fake.Gateway().BaseURL, ":9101", ":"+orders, ":9102", ":"+callbacks, ":8080", ":"+backend, ":8081", ":"+control,
					" -record", " -orders 127.0.0.1:"+orders+" -callbacks 127.0.0.1:"+callbacks+" -record",
					"firstpayment -app-id", "firstpayment -listen 127.0.0.1:"+backend+" -control 127.0.0.1:"+control+" -app-id"),
			}
			a.changed = sync.NewCond(&a.mu)
			t.Cleanup(func() {
				for name := range a.programs {
					a.stop(name)
				}
			})
			certificate(t, a.dir)
			require.NoError(t, os.WriteFile(filepath.Join(a.dir, "login.json"), []byte(`{"login":"qq","openid":"o_PLAYER1234","openkey":"OPENKEY-SECRET","pf":"qq_m_qq-2001-android-2011-xxxx","pfkey":"PFKEY-SECRET"}`), 0o600))

			var order, sheet string // the block that places an order; the sheet
			for i, block := range blocks {
				if block[1] == "text" {
					a.expect(block[2])
					continue
				}
				printed := a.run(block[2])
				switch {
				case strings.Contains(block[2], "/orders"):
					if order == "" {
						order = block[2]
					}
					a.pay(printed)
				case strings.Contains(block[2], "/answer"): // "place an order as before, pay it", and Midas calls again
					a.pay(a.run(order))
					a.callBack()
				case strings.HasPrefix(block[2], "midas tap report"):
					sheet = printed
					inSequence(t, sheet, blocks[i+1][2])
				}
			}
			require.NotEmpty(t, sheet)
			kept, err := os.ReadFile(filepath.Join(a.dir, "sheet.txt"))
			require.NoError(t, err)
			require.Equal(t, sheet, string(kept))
			recording, err := os.ReadFile(filepath.Join(a.dir, "first.jsonl"))
			require.NoError(t, err)
			for _, secret := range []string{"OPENKEY", "PFKEY", "PLAYER1234", fake.AppKey()} {
				require.NotContains(t, sheet, secret)
				require.NotContains(t, string(recording), secret)
				require.NotContains(t, a.printed.String(), secret)
			}
			info, err := os.Stat(filepath.Join(a.dir, "pay.key"))
			require.NoError(t, err)
			require.Equal(t, os.FileMode(0o600), info.Mode())
		})
	}
}

// inSequence checks that the lines of a block stand in a text one below the other: what it shows as decided
// is above what is open.
func inSequence(t *testing.T, text, block string) {
	t.Helper()
	for line := range strings.Lines(block) {
		at := pattern(strings.TrimRight(line, "\n")).FindStringIndex(text)
		require.NotNil(t, at, "%s is not in\n%s", line, text)
		text = text[at[1]:]
	}
}

// missing skips the test with words, or fails it where everything must be there.
func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("MIDAS_TEST_REQUIRE_ALL") == "1" {
		t.Fatalf("%s, and MIDAS_TEST_REQUIRE_ALL=1", what)
	}
	t.Skipf("SKIPPED, NOT TESTED: %s", what)
}

// freePorts returns ports that nothing listens on, each once, below those that systems give to whoever asks
// for any: nobody takes them before they are used.
func freePorts(t *testing.T, n int) (ports []string) {
	t.Helper()
	for range 100 * n {
		port := strconv.Itoa(20_000 + rand.IntN(12_000))
		listener, err := net.Listen("tcp", "127.0.0.1:"+port)
		if err != nil {
			continue
		}
		defer listener.Close() // once all are chosen
		if ports = append(ports, port); len(ports) == n {
			return ports
		}
	}
	t.Fatal("no port is free")
	return nil
}

// certificate writes the two files of the sandbox's certificate set.
func certificate(t *testing.T, dir string) {
	t.Helper()
	server := httptest.NewTLSServer(nil)
	defer server.Close()
	pair := server.TLS.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	require.NoError(t, err)
	for name, block := range map[string]*pem.Block{"sandbox.crt": {Type: "CERTIFICATE", Bytes: pair.Certificate[0]}, "sandbox.key": {Type: "PRIVATE KEY", Bytes: key}} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600))
	}
}

// Each answer of the table is one that the backend gives.
func TestTheAnswersOfThePageAreThoseOfTheBackend(t *testing.T) {
	t.Parallel()
	for _, page := range []string{"first-payment.md", "first-payment.zh-CN.md"} {
		text, err := os.ReadFile("../../docs/" + page)
		require.NoError(t, err)
		var names []string
		for _, found := range regexp.MustCompile("(?m)^\\| `(\\w+)` \\|").FindAllStringSubmatch(string(text), -1) {
			names = append(names, found[1])
		}
		require.Equal(t, []string{"ret1", "ret4", "late", "broken", "ok"}, names)
	}
	for name, want := range map[string]string{
		"ok": `{"ret":0,"msg":"OK"}`, "ret1": `{"ret":1,"msg":"system_busy"}`, "ret2": `{"ret":2,"msg":"token_expired"}`,
		"ret3": `{"ret":3,"msg":"token_not_found"}`, "ret4": `{"ret":4,"msg":"bad_parameter:payitem"}`,
	} {
		w := httptest.NewRecorder()
		answers[name](w)
		require.Equal(t, want, w.Body.String())
	}
	require.PanicsWithValue(t, http.ErrAbortHandler, func() { answers["broken"](nil) })
	require.Len(t, answers, 7)
}

// What comes from outside may neither place orders nor choose answers.
func TestThePublicAddressTakesCallbacksAlone(t *testing.T) {
	t.Parallel()
	key := filepath.Join(t.TempDir(), "pay.key")
	require.NoError(t, os.WriteFile(key, []byte("test-key"), 0o600))
	ctx, cancel := context.WithCancel(t.Context())
	out, printed := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		err := run(ctx, []string{"-app-id", "1450000000", "-key-file", key, "-gateway", "http://127.0.0.1:1", "-items", "sword*1*1", "-listen", "127.0.0.1:0", "-control", "127.0.0.1:0"}, printed)
		printed.CloseWithError(err)
		ended <- err
	}()
	var addrs []string
	for lines := bufio.NewScanner(out); len(addrs) < 2 && lines.Scan(); {
		addrs = append(addrs, regexp.MustCompile(`http://[0-9.:]+[0-9]`).FindString(lines.Text()))
	}
	require.Len(t, addrs, 2)
	go io.Copy(io.Discard, out)
	for path, body := range map[string]string{"/orders": "{", "/answer": "ret1"} {
		for i, want := range []int{http.StatusNotFound, map[string]int{"/orders": http.StatusBadRequest, "/answer": http.StatusOK}[path]} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, addrs[i]+path, strings.NewReader(body))
			require.NoError(t, err)
			resp, err := http.DefaultClient.Do(req)
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			require.Equal(t, want, resp.StatusCode, addrs[i]+path)
		}
	}
	cancel()
	require.NoError(t, <-ended)
}
