package main

import (
	"bufio"
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// What a backend in another language does, written from docs/protocol.md 2 and 5 with
// nothing of this repository: signatures, an order, the answer to a callback.

const (
	rawAppID  = "1450000001"
	rawAppKey = "raw-http-key"
)

// percent encodes every byte but letters, digits and those in keep.
func percent(s, keep string) string {
	const plain = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	out := ""
	for _, b := range []byte(s) {
		if strings.ContainsRune(plain+keep, rune(b)) && b < 0x80 {
			out += string(rune(b))
		} else {
			out += fmt.Sprintf("%%%02X", b)
		}
	}
	return out
}

// rawSign signs parameters; pre is done to their values first.
func rawSign(key, path string, params map[string]string, pre func(string) string) string {
	var pairs []string
	for name, value := range params {
		pairs = append(pairs, name+"="+pre(value))
	}
	slices.Sort(pairs) // no name here is the beginning of another
	mac := hmac.New(sha1.New, []byte(key+"&"))
	io.WriteString(mac, "GET&"+percent(path, "-_.")+"&"+percent(strings.Join(pairs, "&"), "-_."))
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

func rawOrder() map[string]string {
	return map[string]string{
		"openid": "o_TESTopenid", "openkey": "OPENKEY-SECRET", "pfkey": "PFKEY-SECRET", "appid": rawAppID, "ts": "1518081937",
		"pf": "qq_m_qq-2001-android-2011-xxxx", "zoneid": "1", "payitem": "3*0.1*1", "goodsmeta": "金币*一枚 <金币>", "goodsurl": "",
		"app_metadata": "order*7", "appmode": "1", "format": "json",
	}
}

func rawOrderURL(base string, params map[string]string, sig string) string {
	query := "sig=" + percent(sig, "")
	for name, value := range params {
		query += "&" + name + "=" + percent(value, "")
	}
	return base + "/mpay/buy_goods_m?" + query
}

// call makes a request and returns the status and the body.
func call(t *testing.T, method, url, body string, header map[string]string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	require.NoError(t, err)
	for name, value := range header {
		req.Header.Set(name, value)
	}
	if host := header["Host"]; host != "" {
		req.Host = host
	}
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, string(text)
}

var rawCookies = map[string]string{"Cookie": "session_id=openid; session_type=kp_actoken; org_loc=%2Fv3%2Fr%2Fmpay%2Fbuy_goods_m"}

// rawBackend answers callbacks; mode says how well.
func rawBackend(t *testing.T, mode *atomic.Value) *httptest.Server {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		params := map[string]string{}
		for pair := range strings.SplitSeq(r.URL.RawQuery, "&") {
			name, value, _ := strings.Cut(pair, "=")
			value, err := url.PathUnescape(value)
			if err != nil {
				t.Errorf("a value that cannot be decoded: %s", pair)
			}
			params[name] = value
		}
		sig := params["sig"]
		delete(params, "sig")
		right := sig == rawSign(rawAppKey, "/pay/notify", params, func(v string) string { return percent(v, "!*()") })
		switch {
		case !right && mode.Load() != "gullible" && mode.Load() != "gullible newline":
			io.WriteString(w, `{"ret":4,"msg":"bad_parameter:sig"}`)
		case mode.Load() == "newline", mode.Load() == "gullible newline":
			io.WriteString(w, "{\"ret\":0,\"msg\":\"OK\"}\n")
		case mode.Load() == "markup":
			io.WriteString(w, "</pre><script>alert(1)</script>\xef\xbb\xbf")
		default:
			io.WriteString(w, `{"ret":0,"msg":"OK"}`)
		}
	}))
	t.Cleanup(backend.Close)
	return backend
}

// serve starts a sandbox behind its Host check, as the command does.
func serve(t *testing.T, callback string, change ...func(*sandbox)) string {
	s := newSandbox(settings{appID: rawAppID, appKey: rawAppKey, callback: callback, lang: "en"})
	for _, f := range change {
		f(s)
	}
	server := httptest.NewServer(s.handler(netip.MustParseAddr("127.0.0.1"), []string{"sandbox.example"}))
	t.Cleanup(server.Close)
	t.Cleanup(server.CloseClientConnections) // live pages
	return server.URL
}

func post(t *testing.T, url, body string) (status int, answer map[string]any) {
	t.Helper()
	status, text := call(t, "POST", url, body, nil)
	if text != "" {
		require.NoError(t, json.Unmarshal([]byte(text), &answer), text)
	}
	return status, answer
}

// place places an order and returns its token and url_params.
func place(t *testing.T, base string, params map[string]string) (token, urlParams string) {
	t.Helper()
	sig := rawSign(rawAppKey, "/v3/r/mpay/buy_goods_m", params, func(v string) string { return v })
	status, text := call(t, "GET", rawOrderURL(base, params, sig), "", rawCookies)
	require.Equal(t, http.StatusOK, status)
	var answer struct {
		Ret       int
		Token     string
		URLParams string `json:"url_params"`
	}
	require.NoError(t, json.Unmarshal([]byte(text), &answer))
	require.Zero(t, answer.Ret, text)
	return answer.Token, answer.URLParams
}

func exchangesOf(t *testing.T, base string) (exchanges []exchange) {
	t.Helper()
	status, text := call(t, "GET", base+"/api/exchanges", "", nil)
	require.Equal(t, http.StatusOK, status)
	require.NoError(t, json.Unmarshal([]byte(text), &exchanges))
	return exchanges
}

// openEvents opens a stream of events, for a minute at most.
func openEvents(t *testing.T, url, lastEventID string) *bufio.Scanner {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	require.NoError(t, err)
	req.Header.Set("Last-Event-ID", lastEventID)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	t.Cleanup(func() { resp.Body.Close() })
	require.Equal(t, "text/event-stream", resp.Header.Get("Content-Type"))
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	return lines
}

// nextEvents returns the HTML of the next n events.
func nextEvents(t *testing.T, lines *bufio.Scanner, n int) (html string) {
	t.Helper()
	for n > 0 && lines.Scan() {
		if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
			var event struct{ HTML string }
			require.NoError(t, json.Unmarshal([]byte(data), &event))
			html += event.HTML
			n--
		}
	}
	require.Zero(t, n, "the stream ended early: %v", lines.Err())
	return html
}

// startCommand runs the command as main does. It returns what it printed first, and a function
// that stops it and returns the lines that came then.
func startCommand(t *testing.T, env map[string]string, args ...string) (base, welcome string, stop func() []string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	out, in := io.Pipe()
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, append([]string{"sandbox"}, args...), &terminal{in: strings.NewReader(""), out: in, err: in, env: func(name string) string { return env[name] }})
		in.Close()
	}()
	lines := bufio.NewScanner(out)
	for lines.Scan() && !strings.HasPrefix(lines.Text(), "Then ") && !strings.HasPrefix(lines.Text(), "然后") {
		welcome += lines.Text() + "\n"
	}
	seen := make(chan []string, 1)
	go func() {
		var log []string
		for lines.Scan() {
			log = append(log, lines.Text())
		}
		seen <- log
	}()
	stop = func() []string {
		cancel()
		require.Equal(t, exitOK, <-ended)
		return <-seen
	}
	return regexp.MustCompile(`http://127\.0\.0\.1:\d+`).FindString(welcome), welcome, stop
}
