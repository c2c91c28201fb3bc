package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/parser"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/midas-go/midas"
	"github.com/stretchr/testify/require"
)

func TestStateIsBounded(t *testing.T) {
	t.Parallel()
	s := newSandbox(settings{appID: rawAppID, appKey: rawAppKey})
	handler := s.handler(netip.Addr{}, nil)
	server := httptest.NewServer(handler)
	defer server.Close()
	first, _ := place(t, server.URL, rawOrder())
	second, _ := place(t, server.URL, rawOrder())
	for range maxKept - 1 {
		handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "http://localhost/mpay/buy_goods_m?a=b", nil))
	}
	exchanges := exchangesOf(t, server.URL)
	require.Len(t, exchanges, maxKept)
	require.Equal(t, second, exchanges[0].Token)
	require.Equal(t, 2, exchanges[0].Seq)
	status, _ := post(t, server.URL+"/api/orders/"+first+"/pay", "")
	require.Equal(t, http.StatusNotFound, status)
	_, err := s.midas.Callback(first)
	require.ErrorIs(t, err, midas.ErrTokenNotFound)
	status, _ = post(t, server.URL+"/api/orders/"+second+"/pay", "")
	require.Equal(t, http.StatusOK, status)
	require.Len(t, exchangesOf(t, server.URL), maxKept)
	for _, after := range []string{"-9223372036854775808", "-9223372036854775807", "-1", "0", "1"} { // of which 1 and more are kept no more
		status, text := call(t, "GET", server.URL+"/api/exchanges?after="+after, "", nil)
		require.Equal(t, http.StatusOK, status)
		require.Equal(t, maxKept, strings.Count(text, `"seq":`), after)
	}

	for range maxFaults {
		status, _ = call(t, "POST", server.URL+"/api/next", `{"ret":1018}`, nil)
		require.Equal(t, http.StatusNoContent, status)
	}
	status, answer := post(t, server.URL+"/api/next", `{"ret":1018}`)
	require.Equal(t, http.StatusConflict, status)
	require.Contains(t, answer["error"], "place those first")
	call(t, "GET", server.URL+"/mpay/buy_goods_m", "", nil)
	status, _ = call(t, "POST", server.URL+"/api/next", `{"ret":1018}`, nil)
	require.Equal(t, http.StatusNoContent, status)
}

func TestAHugeOrderIsNotSearchedForMistakes(t *testing.T) {
	t.Parallel()
	base := serve(t, "")
	for size, want := range map[int]int{10: 1, maxSearched: 0} {
		params := rawOrder()
		params["goodsurl"] = strings.Repeat("x", size)
		call(t, "GET", rawOrderURL(base, params, rawSign(rawAppKey, "/mpay/buy_goods_m", params, func(v string) string { return v })), "", rawCookies)
		exchanges := exchangesOf(t, base)
		require.Len(t, exchanges[len(exchanges)-1].Mistakes, want)
		require.NotEmpty(t, exchanges[len(exchanges)-1].BaseString)
	}
}

// A newcomer starts it without flags and pastes the line it prints.
func TestSandboxWithoutFlagsPrintsACurlLineThatWorks(t *testing.T) {
	t.Parallel()
	base, welcome, stop := startCommand(t, nil, "-addr", "127.0.0.1:0")
	require.Contains(t, welcome, "(this machine only)")
	require.Contains(t, welcome, "midastest-demo-key")
	curl := regexp.MustCompile(`curl -b '([^']+)' '(http://127\.0\.0\.1:\d+/mpay/[^']+)'`).FindStringSubmatch(welcome)
	require.NotNil(t, curl, welcome)
	status, text := call(t, "GET", curl[2], "", map[string]string{"Cookie": curl[1]})
	require.Equal(t, http.StatusOK, status)
	token := regexp.MustCompile(`^\{"ret":0,"token":"([0-9A-F]+)"`).FindStringSubmatch(text)
	require.NotNil(t, token, text)
	status, answer := post(t, base+"/api/orders/"+token[1]+"/pay", "")
	require.Equal(t, http.StatusOK, status)
	require.Equal(t, true, answer["accepted"])

	openEvents(t, base+"/events", "") // a page that is open does not hold it up
	log := stop()
	require.Len(t, log, 3)
	require.Contains(t, log[1], "  order     "+base+"/v1/sx8/1450000000/mobile_goods_info?token_id="+token[1])
	require.Contains(t, log[2], "  callback  pay: accepted")
}

func TestTheCommandDoesWhatItsFlagsSay(t *testing.T) {
	t.Parallel()
	var mode atomic.Value
	callback := rawBackend(t, &mode).URL + "/behind/a/proxy" // it verifies for /pay/notify
	record := filepath.Join(t.TempDir(), "record.jsonl")
	require.NoError(t, os.WriteFile(record, []byte("an earlier line\n"), 0o666))
	env := map[string]string{"MIDAS_APP_KEY": rawAppKey}
	for _, secrets := range []bool{true, false} {
		args := []string{"-addr", "127.0.0.1:0", "-app-id", rawAppID, "-callback", callback, "-path", "/pay/notify", "-host", "sandbox.example", "-record", record}
		if secrets {
			args = append(args, "-secrets")
		}
		base, welcome, stop := startCommand(t, env, args...)
		require.Contains(t, welcome, "delivery URL   "+callback+", signed for /pay/notify")
		require.NotContains(t, welcome, "curl", "the backend would be called back for an order that it never placed")
		_, dashboard := call(t, "GET", base+"/", "", nil)
		require.NotContains(t, dashboard, "curl")
		require.Contains(t, dashboard, "Have your backend place one")
		for host, want := range map[string]int{"evil.example": 403, "sandbox.example:9100": 200} {
			status, _ := call(t, "GET", base+"/", "", map[string]string{"Host": host})
			require.Equal(t, want, status, host)
		}
		token, _ := place(t, base, rawOrder())
		_, answer := post(t, base+"/api/orders/"+token+"/pay", "")
		require.Equal(t, true, answer["accepted"], answer)
		mode.Store("gullible")
		post(t, base+"/api/orders/"+token+"/forge", "")
		mode.Store("")
		log := stop()
		require.Contains(t, log[len(log)-1], "  callback  forge: A FORGERY WAS ACCEPTED")
		require.NotContains(t, welcome+strings.Join(log, "\n"), rawAppKey)
	}
	text, err := os.ReadFile(record)
	require.NoError(t, err)
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	require.Len(t, lines, 1+2*3)
	require.Equal(t, "an earlier line", lines[0])
	require.Contains(t, lines[1], `"value":"OPENKEY-SECRET"`)
	require.Contains(t, lines[4], "openkey=[masked]")
	require.NotContains(t, strings.Join(lines[4:], ""), "OPENKEY-SECRET")
	info, err := os.Stat(record)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode())
}

func TestTheSandboxSaysWhoCanReachIt(t *testing.T) {
	t.Parallel()
	_, help, _ := runWith(t, "", nil, "sandbox", "-h")
	require.Contains(t, help, "(default 127.0.0.1:9100)")
	base, welcome, stop := startCommand(t, nil, "-addr", "0.0.0.0:0")
	require.NotEmpty(t, base)
	require.Contains(t, welcome, "(OTHER MACHINES CAN REACH IT)")
	stop()
}

func TestSandboxSaysWhatIsWrongWithItsFlags(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		args []string
		code int
		want string
	}{
		"a key without an app":      {[]string{"-app-key", "secret-key"}, exitUsage, "-app-id: missing"},
		"an app without a key":      {[]string{"-app-id", "1450000001"}, exitUsage, "no pay key: give -app-key KEY"},
		"a key with its ampersand":  {[]string{"-app-id", "1", "-app-key", "secret-key&"}, exitUsage, `-app-key: ends in "&"`},
		"an odd path":               {[]string{"-path", "pay/notify"}, exitUsage, `-path: does not begin with "/"`},
		"a callback without a path": {[]string{"-callback", "http://127.0.0.1:8080"}, exitUsage, "-callback: "},
		"a callback with a query":   {[]string{"-callback", "http://127.0.0.1:8080/a?b=c"}, exitUsage, "holds a query"},
		"a word":                    {[]string{"start"}, exitUsage, `"start": all settings are flags`},
		"an address that is not":    {[]string{"-addr", "256.0.0.1:1"}, exitFailed, "-addr: "},
		"a record in no folder":     {[]string{"-record", "/does/not/exist"}, exitFailed, "-record: "},
	} {
		code, stdout, stderr := runWith(t, "", nil, append([]string{"sandbox"}, c.args...)...)
		require.Equal(t, c.code, code, name)
		require.Contains(t, stderr, c.want, name)
		require.NotContains(t, stdout+stderr, "secret-key", name)
	}
	code, _, stderr := runWith(t, "", map[string]string{"MIDAS_APP_KEY": "secret-key"}, "sandbox", "-addr", "256.0.0.1:1")
	require.Equal(t, exitUsage, code, "a key in the environment is not forgotten in silence")
	require.Contains(t, stderr, "-app-id: missing")
}

// Not parallel: it measures the heap.
func TestWhateverTrafficComesLittleIsKept(t *testing.T) {
	long := func(n int) string { return strings.Repeat("x", n) }
	right := func(v string) string { return v }
	tiny := rawOrder()
	for i := range 1000 {
		tiny[fmt.Sprintf("a%03d", i)] = ""
	}
	huge, markup := rawOrder(), rawOrder()
	huge["extra"], markup["extra"] = long(14_000), strings.Repeat("<", 4500) // as %3C
	for _, c := range []struct {
		name   string
		params map[string]string
		sig    string // "": the right one
		most   int    // that may be kept of twice as many
	}{
		{"accepted", huge, "", 99},
		{"accepted, of many small parameters", tiny, "", 37},
		{"refused, with a base string", huge, "wrong", 80},
		{"refused, of markup", markup, "wrong", 112},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSandbox(settings{appID: rawAppID, appKey: rawAppKey})
			const share = 8
			s.size = maxKeptBytes - maxKeptBytes/share // as if so much were kept: the rest fills up sooner
			handler := s.handler(netip.Addr{}, nil)
			sig := c.sig
			if sig == "" {
				sig = rawSign(rawAppKey, "/v3/r/mpay/buy_goods_m", c.params, right)
			}
			target := rawOrderURL("http://localhost", c.params, sig)
			before := heap()
			for range 2 * c.most {
				r := httptest.NewRequest(http.MethodGet, target, nil)
				r.Header.Set("Cookie", rawCookies["Cookie"])
				handler.ServeHTTP(httptest.NewRecorder(), r)
			}
			kept := len(s.all())
			require.Greater(t, kept*share, 100, "enough to work with")
			require.LessOrEqual(t, kept, c.most)
			require.Equal(t, c.sig == "", s.all()[kept-1].Accepted, s.all()[kept-1].Reason)
			used := heap() - before
			t.Logf("%d exchanges in %d KiB", kept, used>>10)
			require.Less(t, used, int64(60<<20)/share)

			// Pages that begin at the first exchange, and are slow to read it.
			stuck, release := make(chan struct{}), make(chan struct{})
			var pages sync.WaitGroup
			for range 24 {
				pages.Go(func() {
					r := httptest.NewRequest(http.MethodGet, "http://localhost/events?after="+s.eventID(0), nil)
					handler.ServeHTTP(&slowReader{stuck: stuck, release: release}, r)
				})
			}
			for range 24 {
				<-stuck
			}
			used = heap() - before
			close(release)
			pages.Wait()
			t.Logf("%d KiB with 24 slow pages", used>>10)
			require.Less(t, used, int64(60<<20)/share)
		})
	}
}

// heap returns the bytes in use.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// A slowReader takes the first write, is stuck in the second until release, and then gone.
type slowReader struct {
	stuck, release chan struct{}
	writes         int
}

func (*slowReader) Header() http.Header              { return http.Header{} }
func (*slowReader) WriteHeader(int)                  {}
func (*slowReader) FlushError() error                { return nil }
func (*slowReader) SetWriteDeadline(time.Time) error { return nil }
func (w *slowReader) Write(b []byte) (int, error) {
	if w.writes++; w.writes == 1 {
		return len(b), nil
	}
	w.stuck <- struct{}{}
	<-w.release
	return 0, io.ErrClosedPipe
}

func TestTheSandboxTakesWhatShippedServersSend(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("../../testdata/php-orders.json")
	require.NoError(t, err)
	var recorded struct {
		AppKey   string `json:"app_key"`
		AppID    string `json:"app_id"`
		Requests []struct {
			Name        string
			RequestLine string `json:"request_line"`
			Headers     map[string]string
		}
	}
	require.NoError(t, json.Unmarshal(data, &recorded))
	for _, strict := range []bool{false, true} {
		t.Run(fmt.Sprintf("strict=%t", strict), func(t *testing.T) {
			t.Parallel()
			args := []string{"-addr", "127.0.0.1:0", "-app-id", recorded.AppID}
			if strict {
				args = append(args, "-strict")
			}
			base, _, stop := startCommand(t, map[string]string{"MIDAS_APP_KEY": recorded.AppKey}, args...)
			for _, order := range recorded.Requests {
				conn, err := net.Dial("tcp", strings.TrimPrefix(base, "http://"))
				require.NoError(t, err)
				defer conn.Close()
				require.NoError(t, conn.SetDeadline(time.Now().Add(time.Minute)))
				fmt.Fprintf(conn, "%s\r\nHost: localhost\r\nConnection: close\r\nCookie: %s\r\n\r\n", order.RequestLine, order.Headers["Cookie"])
				answer, err := io.ReadAll(conn)
				require.NoError(t, err)
				sdks := strings.HasPrefix(order.Headers["Cookie"], "org_loc=%2Fmpay") // its own, the older path
				require.Equal(t, !strict || !sdks, bytes.Contains(answer, []byte(`{"ret":0,"token":"`)), "%s: %s", order.Name, answer)
			}
			var noted, refused int
			for _, e := range exchangesOf(t, base) {
				noted += len(e.Notes)
				if !e.Accepted {
					refused++
				}
			}
			want := map[bool][2]int{false: {10, 0}, true: {0, 10}}[strict]
			require.Equal(t, want, [2]int{noted, refused})
			_, dashboard := call(t, "GET", base+"/", "", map[string]string{"Accept-Language": "zh-CN"})
			require.Equal(t, noted, strings.Count(dashboard, "不影响受理，但请注意：Cookie org_loc=&#34;%2Fmpay%2Fbuy_goods_m&#34;：已上线的服务器也有这样传的"))
			require.Equal(t, noted, strings.Count(strings.Join(stop(), "\n"), `cookie org_loc="%2Fmpay%2Fbuy_goods_m", which shipped servers send too`))
		})
	}
}

func TestTheSandboxSpeaksChinese(t *testing.T) {
	t.Parallel()
	var mode atomic.Value
	backend := rawBackend(t, &mode)
	for name, c := range map[string]struct {
		env  map[string]string
		args []string
	}{
		"by its environment": {map[string]string{"LANG": "zh_CN.UTF-8", "MIDAS_APP_KEY": rawAppKey}, nil},
		"by its flag":        {map[string]string{"MIDAS_APP_KEY": rawAppKey}, []string{"-lang", "zh"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			base, welcome, stop := startCommand(t, c.env, append([]string{"-addr", "127.0.0.1:0", "-app-id", rawAppID, "-callback", backend.URL + "/pay/other"}, c.args...)...)
			require.Contains(t, welcome, "米大师沙箱："+base+"（仅限本机）")
			require.Contains(t, welcome, "发货 URL   "+backend.URL+"/pay/other，按路径 /pay/other 签名")
			require.NotContains(t, welcome, "curl", "its order would be unknown to the backend")
			token, _ := place(t, base, rawOrder())
			_, answer := post(t, base+"/api/orders/"+token+"/pay", "")
			require.Contains(t, answer["reason"], "the backend answered ret 4", "the API speaks English unless asked otherwise")
			const verdict = "后端应答 ret 4（bad_parameter:sig）；回调按路径 /pay/other 签名：后端是否用这个路径、同一个支付密钥验签？"
			status, text := call(t, "POST", base+"/api/orders/"+token+"/pay", "", map[string]string{"Accept-Language": "zh-CN,zh"})
			require.Equal(t, http.StatusOK, status)
			require.Contains(t, text, `"reason":"`+verdict+`"`)
			_, text = call(t, "POST", base+"/api/orders/NOSUCH/pay", "", map[string]string{"Accept-Language": "zh-CN,zh"})
			require.JSONEq(t, `{"error":"没有这个 token"}`, text)
			_, dashboard := call(t, "GET", base+"/", "", map[string]string{"Accept-Language": "zh-CN,zh"})
			require.Contains(t, dashboard, "被拒绝，原因："+verdict)

			call(t, "GET", rawOrderURL(base, rawOrder(), rawSign(rawAppKey, "/mpay/buy_goods_m", rawOrder(), func(v string) string { return v })), "", rawCookies)
			_, dashboard = call(t, "GET", base+"/", "", map[string]string{"Accept-Language": "zh-CN,zh"})
			require.Regexp(t, `签名错误的原因：</p><p><b>msdk-path</b>：签名用了.*。改法：YSDK 的签名路径是.*。</p>`, dashboard)
			_, dashboard = call(t, "GET", base+"/", "", nil)
			require.Regexp(t, `made with this mistake:</p><p><b>msdk-path</b>: it is signed .*\. To change: .*\.</p>`, dashboard)
			require.Contains(t, stop()[2], "  回调      支付：被拒绝，原因："+verdict)
		})
	}
}

// What the sandbox prints for a backend is pasted: into a shell, and into Go.
func TestWhatTheSandboxPrintsCanBePasted(t *testing.T) {
	t.Parallel()
	for _, language := range []string{"en", "zh"} {
		base, welcome, stop := startCommand(t, nil, "-addr", "127.0.0.1:0", "-lang", language)
		stop()
		export := regexp.MustCompile(`(?m)^  (export .*)$`).FindStringSubmatch(welcome)
		require.NotNil(t, export, welcome)
		out, err := exec.Command("sh", "-c", export[1]+`; echo "$MIDAS $MIDAS_APP_ID $MIDAS_APP_KEY $MIDAS_DELIVERY_PATH"`).Output()
		require.NoError(t, err)
		require.Equal(t, base+" "+demoAppID+" "+demoAppKey+" "+demoPath+"\n", string(out))
		config := regexp.MustCompile(`(?m)^  (midas\.Config\{.*)$`).FindStringSubmatch(welcome)
		require.NotNil(t, config, welcome)
		_, err = parser.ParseExpr(config[1])
		require.NoError(t, err)
		require.Contains(t, config[1], `midas.Sandbox().At("`+base+`")`)
	}
}
