package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/midas-go/midas/cmd/midas/internal/explain"
	"github.com/midas-go/midas/cmd/midas/internal/report"
	"github.com/midas-go/midas/cmd/midas/internal/tap"
	"github.com/midas-go/midas/minigame/minigametest"
	"github.com/stretchr/testify/require"
)

// startTap runs the command as main does, on ports that are free. end ends it.
func startTap(t *testing.T, env map[string]string, args ...string) (orders, callbacks string, end func() (code int, said string)) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	out, in := io.Pipe()
	code := make(chan int, 1)
	go func() {
		args := append([]string{"tap", "-orders", "127.0.0.1:0", "-callbacks", "127.0.0.1:0"}, args...)
		code <- run(ctx, args, &terminal{in: strings.NewReader(""), out: in, err: in, env: func(name string) string { return env[name] }})
		in.Close()
	}()
	lines := bufio.NewReader(out)
	address := regexp.MustCompile(`https?://127\.0\.0\.1:\d+`)
	for {
		line, err := lines.ReadString('\n')
		require.NoError(t, err, line)
		switch {
		case strings.HasPrefix(line, "orders"), strings.HasPrefix(line, "下单"):
			orders = address.FindString(line)
		case strings.HasPrefix(line, "callbacks"), strings.HasPrefix(line, "回调"):
			callbacks = address.FindString(line)
		}
		if line == "\n" {
			break
		}
	}
	said := make(chan string, 1)
	go func() {
		text, _ := io.ReadAll(lines)
		said <- string(text)
	}()
	var once sync.Once
	end = func() (result int, text string) {
		once.Do(func() { cancel(); result, text = <-code, <-said })
		return result, text
	}
	t.Cleanup(func() { end() })
	return orders, callbacks, end
}

func readTap(t *testing.T, name string) (all []*tap.Exchange) {
	t.Helper()
	info, err := os.Stat(name)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode())
	file, err := os.Open(name)
	require.NoError(t, err)
	defer file.Close()
	torn, err := tap.Read(file, func(e *tap.Exchange) error { all = append(all, e); return nil })
	require.NoError(t, err)
	require.Zero(t, torn)
	return all
}

// An order and its payment go through a tap on both legs, between a backend and the sandbox.
func TestTapRecordsBothLegs(t *testing.T) {
	t.Parallel()
	for _, keep := range []bool{false, true} {
		t.Run(fmt.Sprintf("secrets kept: %t", keep), func(t *testing.T) {
			t.Parallel()
			backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				answer := `{"ret":0,"msg":"OK"}`
				if r.URL.Query().Get("openid") != "o_TESTopenid" {
					answer = `{"ret":4,"msg":"bad_parameter:openid"}`
				}
				io.WriteString(w, answer)
			}))
			defer backend.Close()
			// The sandbox is told of the tap, and the tap of the sandbox: one has to be first.
			var sandbox http.Handler
			midas := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { sandbox.ServeHTTP(w, r) }))
			defer midas.Close()
			file := filepath.Join(t.TempDir(), "tap.jsonl")
			keys := filepath.Join(t.TempDir(), "keys")
			require.NoError(t, os.WriteFile(keys, []byte("another-key\r\n"+rawAppKey+"\n"), 0o600))
			args := []string{"-gateway", midas.URL, "-backend", backend.URL, "-record", file, "-key-file", keys, fmt.Sprintf("-keep-secrets=%t", keep)}
			orders, callbacks, end := startTap(t, nil, args...)
			sandbox = sandboxFor(t, callbacks+"/pay/notify")

			params := rawOrder()
			token, _ := place(t, orders, params)
			_, paid := post(t, midas.URL+"/api/orders/"+token+"/pay", "")
			require.Equal(t, true, paid["accepted"], paid)
			_, forged := post(t, midas.URL+"/api/orders/"+token+"/forge", "") // this backend takes it
			require.Equal(t, false, forged["ok"], forged)
			call(t, "GET", rawOrderURL(orders, params, "wrong"), "", rawCookies)
			http.DefaultClient.CloseIdleConnections()
			code, said := end()
			require.Equal(t, exitOK, code, said)
			require.Contains(t, said, "4 exchanges, 0 of them not recorded\n")
			require.Contains(t, said, "order     GET /mpay/buy_goods_m  200")
			require.NotContains(t, said, "sig=")
			require.Contains(t, said, "YOUR BACKEND ANSWERED OK")

			all := readTap(t, file)
			require.Len(t, all, 4)
			var got []string
			for _, e := range all {
				got = append(got, fmt.Sprint(e.Kind, " ", e.Verdict.OK, " ", e.Verdict.English[:8], " ", e.Verdict.Chinese, " ", e.Answer.Status, " ", e.Masked))
			}
			const no, noWhy = "the sign", "签名不一致：请检查支付密钥、环境和签名用的路径"
			masked := fmt.Sprint(!keep)
			require.Equal(t, []string{
				"order true verified 验签通过 200 " + masked, "callback true verified 验签通过 200 " + masked,
				"callback false " + no + " " + noWhy + " 200 " + masked, "order false " + no + " " + noWhy + " 200 " + masked,
			}, got)
			require.Equal(t, token, regexp.MustCompile(`"token":"(\w+)"`).FindStringSubmatch(string(all[0].Answer.Body))[1])

			text, err := os.ReadFile(file)
			require.NoError(t, err)
			for _, secret := range []string{"OPENKEY%2DSECRET", "PFKEY%2DSECRET", "TESTopenid"} {
				require.Equal(t, keep, strings.Contains(string(text), secret), secret)
			}
			require.NotContains(t, string(text), rawAppKey)
			for line := range strings.Lines(string(text)) {
				require.Equal(t, !keep, tap.Masked(line))
			}
			// One name for one player, on both legs.
			name := func(e *tap.Exchange) string {
				return explain.Decode(regexp.MustCompile(`[?&]openid=([^&]+)`).FindStringSubmatch(e.URL)[1])
			}
			require.Equal(t, name(all[0]), name(all[1]))
			require.Regexp(t, `^[a-z]_[A-Z]{4}[a-z]{6}$`, name(all[0]))

			// What was recorded as it came can be explained, and sent again.
			if keep {
				lines := strings.SplitAfter(string(text), "\n")
				code, stdout, stderr := runWith(t, lines[1], nil, "explain", "-key", rawAppKey, "-")
				require.Equal(t, exitOK, code, stdout+stderr)
				code, stdout, stderr = runWith(t, string(text), nil, "replay", "-url", backend.URL+"/pay/notify", "-")
				require.Equal(t, exitOK, code, stdout+stderr)
			}
			if !keep {
				for i, line := range strings.SplitAfter(strings.TrimSpace(string(text)), "\n") {
					code, stdout, _ := runWith(t, line, nil, "explain", "-lang", "zh", "-key", rawAppKey, "-")
					require.Equal(t, map[bool]int{true: exitOK, false: exitFailed}[all[i].Verdict.OK], code)
					require.Contains(t, stdout, "由“midas tap”记录，敏感信息已替换，签名无法再验；收到时的结论："+all[i].Verdict.Chinese)
				}
				code, _, stderr := runWith(t, string(text), nil, "replay", "-url", backend.URL+"/pay/notify", "-")
				require.Equal(t, exitFailed, code)
				require.Contains(t, stderr, "line 1: recorded by \"midas tap\" with its secrets replaced")
			}
			code, _, stderr := runWith(t, "", nil, append([]string{"tap", "-orders", "127.0.0.1:0", "-callbacks", "127.0.0.1:0"}, args...)...)
			require.Equal(t, exitFailed, code, "a recording is not written over")
			require.Contains(t, stderr, "exists")
		})
	}
}

// sandboxFor returns a sandbox that calls back to a URL.
func sandboxFor(t *testing.T, callback string) http.Handler {
	base := serve(t, callback)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out, err := http.NewRequestWithContext(r.Context(), r.Method, base+r.RequestURI, r.Body)
		if err != nil {
			t.Error(err)
			return
		}
		out.Header = r.Header
		resp, err := http.DefaultClient.Do(out)
		if err != nil {
			t.Error(err)
			return
		}
		defer resp.Body.Close()
		w.WriteHeader(resp.StatusCode)
		io.Copy(w, resp.Body)
	})
}

func TestTapInTheShadowCountsWhereTheBackendDiffers(t *testing.T) {
	t.Parallel()
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.RawQuery, "refuse") {
			io.WriteString(w, `{"ret":1,"msg":"system_busy"}`)
			return
		}
		io.WriteString(w, `{"ret":0,"msg":"OK"}`)
	}))
	defer backend.Close()
	file := filepath.Join(t.TempDir(), "tap.jsonl")
	_, callbacks, end := startTap(t, map[string]string{keyVariable: "test-key", "LANG": "zh_CN.UTF-8"}, "-shadow", "-backend", backend.URL, "-record", file)
	for _, args := range [][]string{{"-billno", "B1"}, {"-billno", "refuse"}, {"-billno", "B2", "-forged"}, {"-billno", "B3"}} {
		runWith(t, "", nil, append([]string{"callback", "-key", "test-key", "-url", callbacks + "/pay/notify", "-token", "T"}, args...)...)
	}
	code, said := end()
	require.Equal(t, exitFailed, code)
	require.Contains(t, said, "你的后端没有应答成功\n")
	require.Contains(t, said, "你的后端应答了成功\n")
	require.Contains(t, said, "2 个回调结论一致，其中 2 个验签通过；2 个不一致\n")
	require.Contains(t, said, "     1  验签通过  你的后端没有应答成功\n     1  签名不一致：请检查支付密钥、环境和签名用的路径  你的后端应答了成功\n")
	require.Equal(t, 2, strings.Count(said, "GET /pay/notify"))
	for _, e := range readTap(t, file) { // which "midas tap report" does not take for Midas's
		require.Equal(t, []string{report.OwnAgent}, e.Request.Header("User-Agent"))
	}
}

// A push is verified and read without a pay key of callbacks, and recorded masked.
func TestTapReadsPushes(t *testing.T) {
	t.Parallel()
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "success") }))
	defer backend.Close()
	const aesKey, appID = "minigametest0123456789ABCDEFGHIJKLMNOPQRSTU", "wx0123456789abcdef"
	file := filepath.Join(t.TempDir(), "tap.jsonl")
	_, callbacks, end := startTap(t, nil, "-backend", backend.URL, "-record", file, "-token", "other", "-token", "pushToken", "-encoding-aes-key", aesKey, "-app-id", appID)
	wechat := minigametest.NewServer(minigametest.Config{MiniProgram: true, AppID: appID, Token: "pushToken", EncodingAESKey: aesKey})
	defer wechat.Close()
	wechat.PushTo(callbacks + "/push")
	_, err := wechat.Push(t.Context(), xpayGoods("n1", 1, "hello"))
	require.NoError(t, err)
	http.DefaultClient.CloseIdleConnections()
	code, said := end()
	require.Equal(t, exitOK, code, said)
	require.Contains(t, said, "callback  POST /push  200")
	e := readTap(t, file)[0]
	require.True(t, e.Verdict.OK)
	require.Equal(t, []string{report.SignedJSON, report.SignedEncrypted}, e.Verdict.Signed)
	require.Contains(t, string(e.Verdict.Message), `"Attach":"hello"`)
	require.NotContains(t, string(e.Verdict.Message), "oPLAYER1234")
}

func TestTapRefusesWrongUsage(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"nowhere to go":      {nil, "-gateway"},
		"a path":             {[]string{"-backend", "http://127.0.0.1/pay"}, "-backend"},
		"no scheme":          {[]string{"-gateway", "ysdktest.qq.com"}, "-gateway"},
		"shadow, no key":     {[]string{"-backend", "http://127.0.0.1", "-shadow"}, "-shadow"},
		"shadow of orders":   {[]string{"-gateway", "http://127.0.0.1", "-shadow", "-key", "k"}, "-shadow: needs -backend"},
		"secrets of nothing": {[]string{"-gateway", "http://127.0.0.1", "-keep-secrets"}, "-keep-secrets: needs -record"},
		"a key with an end":  {[]string{"-backend", "http://127.0.0.1", "-key", "k&"}, "-key"},
		"a key twice":        {[]string{"-backend", "http://127.0.0.1", "-key", "k", "-key", "k"}, "-key"},
		"a file that is not": {[]string{"-backend", "http://127.0.0.1", "-key-file", "/nowhere"}, "-key-file"},
		"a registered query": {[]string{"-backend", "http://127.0.0.1", "-path", "/p?x"}, "-path"},
		"text":               {[]string{"text"}, "text"},
		"pushes of nobody":   {[]string{"-backend", "http://127.0.0.1", "-encoding-aes-key", "k"}, "-encoding-aes-key: needs -token, -app-id"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, _, stderr := runWith(t, "", nil, append([]string{"tap"}, c.args...)...)
			require.Equal(t, exitUsage, code)
			require.Contains(t, stderr, c.want)
		})
	}
}

func TestAPushThatCannotBeCheckedHasNoVerdict(t *testing.T) {
	t.Parallel()
	signed := `{"Event":"e","MiniGame":{"Payload":"{}","PayEventSig":"00"}}`
	key, opens := verifier{keys: []string{"theAppKey"}}, verifier{tokens: []string{"token"}, aesKeys: []string{"key"}}
	require.Nil(t, key.push("", `{"Encrypt":"AAAA"}`))
	require.Nil(t, key.push("", `{"Event":"e","MiniGame":{}}`), "not signed inside")
	require.Nil(t, opens.push("", signed))
	require.False(t, key.push("", signed).OK)
	require.False(t, opens.push("", `{"Encrypt":"AAAA"}`).OK)
}
