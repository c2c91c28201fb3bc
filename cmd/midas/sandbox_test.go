package main

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"

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
	require.Contains(t, help, `(default "127.0.0.1:9100")`)
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
