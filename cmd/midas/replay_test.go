package main

import (
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/midas-go/midas/midastest"
	"github.com/stretchr/testify/require"
)

// A recorder is an endpoint that keeps the queries it was called with. It refuses the billno "-refuse".
func recorder(t *testing.T) (url string, queries *[]string) {
	queries = new([]string)
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		*queries = append(*queries, r.URL.RawQuery) // they come one after another
		if strings.Contains(r.URL.RawQuery, "-refuse") {
			io.WriteString(w, `{"ret":3,"msg":"token_not_found"}`)
			return
		}
		io.WriteString(w, `{"ret":0,"msg":"OK"}`)
	}))
	t.Cleanup(backend.Close)
	return backend.URL + "/pay/notify", queries
}

func TestReplaySendsWhatTheSandboxRecorded(t *testing.T) {
	t.Parallel()
	var mode atomic.Value
	record := filepath.Join(t.TempDir(), "record.jsonl")
	base, _, stop := startCommand(t, map[string]string{"MIDAS_APP_KEY": rawAppKey}, "-addr", "127.0.0.1:0", "-app-id", rawAppID, "-callback", rawBackend(t, &mode).URL+"/pay/notify", "-record", record)
	params := rawOrder()
	params["payitem"] = "3*0.1*1;4*0.2*2" // a semicolon in the callback
	token, _ := place(t, base, params)
	first := recordedQuery(t, base, token, "pay")
	recordedQuery(t, base, token, "repeat") // the same once more
	recordedQuery(t, base, token, "forge")
	second := recordedQuery(t, base, token, "pay")
	stop()

	endpoint, got := recorder(t)
	code, stdout, stderr := runWith(t, "", nil, "replay", "-url", endpoint, "-rate", "1000", record)
	require.Empty(t, stderr)
	require.Equal(t, exitOK, code, stdout)
	require.Equal(t, []string{first, second}, *got)
	require.Contains(t, stdout, "2 callbacks to send, 3 lines left out\n")
	require.Regexp(t, `(?m)^2/2  -APPDJ\S+  accepted$`, stdout)
	require.Contains(t, stdout, "\n2 accepted, 0 not; payments among the accepted, by (openid, billno): 2\n")
}

// recordedQuery does an action, and returns the query of its callback.
func recordedQuery(t *testing.T, base, token, action string) string {
	t.Helper()
	_, answer := post(t, base+"/api/orders/"+token+"/"+action, "")
	_, query, found := strings.Cut(answer["url"].(string), "?")
	require.True(t, found)
	return query
}

func TestReplayReadsAnAccessLog(t *testing.T) {
	t.Parallel()
	endpoint, got := recorder(t)
	const good = "amt=1&openid=o&billno=-B1&ts=1518081937&payitem=a*1*1;b*1*1&sig=x%2By"
	log := strings.Join([]string{
		`192.0.2.1 - - [08/Feb/2018:17:25:37 +0800] "GET /pay/notify?` + good + ` HTTP/1.1" 200 20 "-" "-"`,
		`192.0.2.1 - - [08/Feb/2018:17:25:37 +0800] "GET /favicon.ico HTTP/1.1" 404 0`,
		`192.0.2.1 - - "GET /pay/notify?` + good + ` HTTP/1.1" 200 20`, // once more
		`192.0.2.1 - - "HEAD /pay/notify?billno=-B2&openid=o&ts=1518081940&sig=x HTTP/1.1" 405 0`,
		`192.0.2.1 - - "GET /pay/notify?billno=-B3&openid=o&ts=1518081941 HTTP/1.1" 200 20`,                       // its sig is gone
		`192.0.2.1 - - "GET /mpay/buy_goods_m?openkey=x&billno=-B4&openid=o&ts=1518081941&sig=x HTTP/1.1" 200 20`, // an order
		`192.0.2.1 - - "GET /pay/notify?billno=-refuse&openid=o&ts=1518081942&sig=\x41 HTTP/1.1" 200 20`,
		"",
		"noise \xff\x00 ?=&",
		`{"kind":"callback","url":"http://h/p?billno=-B5&openid=o&ts=1518081943&sig=x"}`,
		`{"kind":"callback","url":"http://h/p?billno=-B5&openid=o&ts=1518081999&sig=y"}`, // the same payment, called back later
		`{"kind":"order","url":"http://h/p?billno=-B6&openid=o&ts=1518081943&sig=x"}`,
	}, "\n")
	code, stdout, stderr := runWith(t, log, nil, "replay", "-url", endpoint, "-rate", "1000", "-lang", "zh", "-")
	require.Empty(t, stderr)
	require.Equal(t, exitFailed, code)
	require.Equal(t, []string{good, "billno=-refuse&openid=o&ts=1518081942&sig=A", "billno=-B5&openid=o&ts=1518081943&sig=x", "billno=-B5&openid=o&ts=1518081999&sig=y"}, *got)
	require.Contains(t, stdout, "待重放的回调 4 个，略过 8 行\n1/4  -B1  已接受\n2/4  -refuse  被拒绝，原因：后端应答 ret 3（token_not_found）\n3/4  -B5  已接受\n4/4  -B5  已接受\n已接受 3 个，未接受 1 个；已接受的共 2 笔支付（按 openid 和 billno 计）\n")

	*got = nil
	_, stdout, _ = runWith(t, log, nil, "replay", "-url", endpoint, "-rate", "1000", "-since", "1518081942", "-")
	require.Len(t, *got, 3, stdout)
}

// The help must not promise more: nothing in an access log names a forgery.
func TestReplayLeavesOutOnlyTheForgeriesThatTheRecordNames(t *testing.T) {
	t.Parallel()
	const query = "billno=-B1&openid=o&ts=1518081937&sig=forged"
	_, sent := readCallback(`{"kind":"callback","action":"forge","url":"http://h/p?` + query + `"}`)
	require.False(t, sent)
	_, sent = readCallback("GET /pay/notify?" + query + " HTTP/1.1")
	require.True(t, sent)
	_, help, _ := runWith(t, "", nil, "replay", "-h")
	require.Contains(t, help, "An access log does not")
	require.NotContains(t, help, "and forgeries")
}

func TestNoCommandTakesACompressedAnswerForADelivery(t *testing.T) {
	t.Parallel()
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		zip := gzip.NewWriter(w)
		io.WriteString(zip, `{"ret":0,"msg":"OK"}`)
		zip.Close()
	}))
	defer backend.Close()
	endpoint := backend.URL + "/pay/notify"
	code, stdout, _ := runWith(t, "", nil, "callback", "-key", rawAppKey, "-url", endpoint, "-token", "T")
	require.Equal(t, exitFailed, code)
	require.Contains(t, stdout, "compressed with gzip")
	code, stdout, _ = runWith(t, "GET /pay/notify?openid=o&billno=-B1&ts=1518081937&sig=x", nil, "replay", "-url", endpoint, "-")
	require.Equal(t, exitFailed, code)
	require.Contains(t, stdout, "compressed with gzip")
}

func TestReplayIsPacedShowsWhatIsLeftAndStopsCleanly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		recorded := []recordedCallback{{query: "1", billNo: "-B1", ts: 100}, {query: "2", billNo: "-B2", ts: 103}, {query: "3", billNo: "-B3", ts: 102}, {query: "4", billNo: "-B4", ts: 104}}
		var out strings.Builder
		var shown []string
		var times []time.Duration
		begin := time.Now()
		ctx, interrupt := context.WithCancel(t.Context())
		r := &replay{
			terminal: &terminal{out: &out, err: &out, env: func(string) string { return "" }, lang: "en"}, pause: 2 * time.Second,
			progress: func(text string) { shown = append(shown, text) },
			deliver: func(ctx context.Context, query string) (*midastest.Receipt, error) {
				times = append(times, time.Since(begin))
				if query == "2" {
					interrupt() // Ctrl-C in the middle of it
				}
				time.Sleep(500 * time.Millisecond)
				return &midastest.Receipt{Status: 200, Body: []byte(`{"ret":0,"msg":"OK"}`), Accepted: true}, ctx.Err()
			},
		}
		require.Equal(t, exitFailed, r.run(ctx, recorded))
		require.Equal(t, []time.Duration{0, 2 * time.Second}, times)
		require.Equal(t, []string{"", "3 left, 0 not accepted, about 6s to go; Ctrl-C stops", "", "2 left, 0 not accepted, about 4s to go; Ctrl-C stops", ""}, shown)
		require.Equal(t, "1/4  -B1  accepted\n2/4  -B2  accepted\nstopped: 2 sent, 2 left; to go on, give -since 102\n", out.String())
	})
}

func TestReplayCallsOtherMachinesOnlyIfToldSo(t *testing.T) {
	t.Parallel()
	empty := filepath.Join(t.TempDir(), "empty.log")
	require.NoError(t, os.WriteFile(empty, nil, 0o600))
	for endpoint, local := range map[string]bool{
		"http://127.0.0.1:1/pay": true, "http://127.9.9.9:1/pay": true, "http://localhost:1/pay": true, "http://LOCALHOST/pay": true, "http://[::1]:1/pay": true, "http://[::ffff:127.0.0.1]/pay": true,
		"https://game.example/pay": false, "http://192.0.2.1/pay": false, "http://0.0.0.0:1/pay": false, "http://localhost.evil.example/pay": false, "http://127.0.0.1@evil.example/pay": false,
	} {
		code, _, stderr := runWith(t, "", nil, "replay", "-url", endpoint, empty)
		require.Equal(t, map[bool]int{true: exitOK, false: exitUsage}[local], code, endpoint)
		require.Equal(t, !local, strings.Contains(stderr, "not on this machine; a callback whose charge was cancelled would be granted"), endpoint)
		code, _, _ = runWith(t, "", nil, "replay", "-live", "-url", endpoint, empty)
		require.Equal(t, exitOK, code, endpoint)
	}
}

func TestReplaySaysWhatIsWrongWithItsUsageAndItsFile(t *testing.T) {
	t.Parallel()
	const url = "http://127.0.0.1:1/pay"
	many := func(n, size int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "billno=%d&openid=o&sig=x&pad=%s\n", i, strings.Repeat("x", size))
		}
		return b.String()
	}
	for name, c := range map[string]struct {
		in   string
		args []string
		code int
		want string
	}{
		"no file":                {"", []string{"-url", url}, exitUsage, "want one file"},
		"no URL":                 {"", []string{"-"}, exitUsage, "-url: missing"},
		"a file there is not":    {"", []string{"-url", url, "/does/not/exist"}, exitFailed, "/does/not/exist"},
		"a rate of nothing":      {"", []string{"-url", url, "-rate", "0", "-"}, exitUsage, "-rate: want"},
		"a time that is none":    {"", []string{"-url", url, "-since", "yesterday", "-"}, exitUsage, `-since: "yesterday" is neither`},
		"a language that is not": {"", []string{"-url", url, "-lang", "fr", "-"}, exitUsage, "want en or zh"},
		"a line without end":     {strings.Repeat("x", maxLine+1), []string{"-url", url, "-"}, exitFailed, "line 1: "},
		"more than can be kept":  {many(maxReplay/15_000+1, 15_000), []string{"-url", url, "-"}, exitFailed, "more than 64 MiB"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, _, stderr := runWith(t, c.in, nil, append([]string{"replay"}, c.args...)...)
			require.Equal(t, c.code, code)
			require.Contains(t, stderr, c.want)
		})
	}
}

func TestReplayStopsWhileItWaitsForItsInput(t *testing.T) {
	t.Parallel()
	never, _ := io.Pipe()
	ctx, interrupt := context.WithCancel(t.Context())
	interrupt()
	var said strings.Builder
	code := run(ctx, []string{"replay", "-url", "http://127.0.0.1:1/pay", "-"}, &terminal{in: never, out: &said, err: &said, env: func(string) string { return "" }})
	require.Equal(t, exitFailed, code)
	require.Contains(t, said.String(), "stopped before anything was sent")
}

func TestTimesToReplayFrom(t *testing.T) {
	t.Parallel()
	china := time.FixedZone("", 8*3600)
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, china)
	for text, want := range map[string]int64{
		"2h": now.Unix() - 7200, "1764043200": 1764043200, "0": 0, "2026-11-25": now.Unix() - 12*3600, "2026-11-25 10:00": now.Unix() - 7200,
		"2026-11-25 10:00:01": now.Unix() - 7199, "2026-11-25T10:00:00+08:00": now.Unix() - 7200, "2026-11-25T02:00:00Z": now.Unix() - 7200,
	} {
		got, err := parseSince(text, now)
		require.NoError(t, err, text)
		require.Equal(t, want, got.Unix(), text)
	}
	_, err := parseSince("-2h", now)
	require.Error(t, err)
}

func TestTheVersionIsPrinted(t *testing.T) {
	t.Parallel()
	code, stdout, _ := runWith(t, "", nil, "version")
	require.Equal(t, exitOK, code)
	require.Regexp(t, `^midas \S+, built with go1\.\d+.* for \w+/\w+\n$`, stdout)
}
