package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/midas-go/midas"
	"github.com/stretchr/testify/require"
)

// Signatures and base strings are those of Tencent's documentation: the vectors
// documented-mpay-pay-m and documented-cb-mobile-mt-php-empty-value.
func TestSignMatchesTheDocumentedSignatures(t *testing.T) {
	t.Parallel()
	request := strings.Split("openid=F11669C63D76BAB0BC2F6CC869B19E53&openkey=3968DD5F3F14427EF103A05E00AB59B4&pf=desktop_m_qq-10000144-android-2002-"+
		"&zoneid=1&format=json&appid=1101255891&pfkey=5971dce2d3035669e49a1496d590f1ba&pay_token=6554E0A9225B05A1CE4C4AF215A8C369&ts=1396522813&amt=1", "&")
	callback := strings.Split(strings.TrimSuffix(documentedQuery, "&sig=ai1eD5CA16n5pWBx9abjZguMR5Y%3D"), "&")
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"a request":                  {append([]string{"-path", "/mpay/pay_m"}, request...), "6dHhW7yDF6n3rPOjTMsn2Faf8/I="},
		"a callback":                 {append([]string{"-callback", "-path", "/pay/mt.php"}, callback...), "ai1eD5CA16n5pWBx9abjZguMR5Y="},
		"a sig given is not signed":  {append([]string{"-path", "/mpay/pay_m", "-method", "get", "sig=x"}, request...), "6dHhW7yDF6n3rPOjTMsn2Faf8/I="},
		"the base string of an item": {[]string{"-base", "payitem=1*10*1"}, "GET&%2Fv3%2Fr%2Fmpay%2Fbuy_goods_m&payitem%3D1%2A10%2A1"},
		"the query":                  {append([]string{"-query", "-callback", "-path", "/pay/mt.php"}, callback...), "zoneid=1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, stdout, stderr := runWith(t, "", map[string]string{"MIDAS_APP_KEY": documentedKey}, append([]string{"sign"}, c.args...)...)
			require.Empty(t, stderr)
			require.Equal(t, exitOK, code)
			if name == "the query" {
				code, explained, _ := runWith(t, stdout, nil, "explain", "-key", documentedKey, "-path", "/pay/mt.php", "-")
				require.Equal(t, exitOK, code, explained)
				require.Contains(t, stdout, "sig=ai1eD5CA16n5pWBx9abjZguMR5Y%3D")
				return
			}
			require.Equal(t, c.want+"\n", stdout)
		})
	}
}

func TestCallbackJudgesTheReply(t *testing.T) {
	t.Parallel()
	client, err := midas.New(midas.Config{AppID: demoAppID, AppKey: "test-key", DeliveryPath: "/pay/notify"})
	require.NoError(t, err)
	mux := http.NewServeMux()
	mux.Handle("/pay/notify", client.DeliveryHandler(func(ctx context.Context, d *midas.Delivery) error {
		if d.Token != "TOKEN-1" || d.Charged != 95 || d.OpenID != "o_1" || d.ZoneID != "7" || d.BillNo != "-B1" ||
			d.Metadata != "meta" || d.Items[0] != (midas.Item{ID: "axe", Price: 50, Quantity: 2}) || d.Params.Get("discountid") != "UM1" {
			return midas.ErrTokenNotFound
		}
		return nil
	}))
	mux.HandleFunc("/newline", func(w http.ResponseWriter, r *http.Request) { w.Write([]byte("{\"ret\":0,\"msg\":\"OK\"}\n")) })
	backend := httptest.NewServer(mux)
	defer backend.Close()

	callback := func(args ...string) (int, string, string) {
		return runWith(t, "", nil, append([]string{"callback", "-key", "test-key", "-token", "TOKEN-1"}, args...)...)
	}
	order := []string{"-openid", "o_1", "-zone", "7", "-payitem", "axe*5*2", "-amt", "95", "-metadata", "meta", "-billno", "-B1", "discountid=UM1"}
	notify := []string{"-url", backend.URL + "/pay/notify"}

	code, stdout, stderr := callback(append(notify, order...)...)
	require.Empty(t, stderr)
	require.Equal(t, exitOK, code)
	require.Contains(t, stdout, `reply    {"ret":0,"msg":"OK"}`)
	require.True(t, strings.HasSuffix(stdout, "\naccepted\n"), stdout)

	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"an order it does not know": {notify, "refused because the backend answered ret 3 (token_not_found)"},
		"another signed path":       {append([]string{"-path", "/other"}, append(notify, order...)...), "refused because the backend answered ret 4 (bad_parameter:sig); the callback is signed for the path /other"},
		"a newline too many":        {[]string{"-url", backend.URL + "/newline"}, "refused because the body ends in a newline"},
		"a newline is shown":        {[]string{"-url", backend.URL + "/newline"}, `reply    {"ret":0,"msg":"OK"}‹LF›`},
		"nobody there":              {[]string{"-url", "http://127.0.0.1:1/pay/notify"}, "refused because no answer: "},
	} {
		code, stdout, stderr := callback(c.args...)
		require.Empty(t, stderr, name)
		require.Equal(t, exitFailed, code, name)
		require.Contains(t, stdout, c.want, name)
	}

	code, stdout, _ = callback("-json", "-url", backend.URL+"/newline")
	require.Equal(t, exitFailed, code)
	var reply map[string]any
	require.NoError(t, json.Unmarshal([]byte(stdout), &reply))
	require.Equal(t, false, reply["accepted"])
	require.Equal(t, "{\"ret\":0,\"msg\":\"OK\"}\n", reply["reply"])
	require.Contains(t, reply["reason"], "newline")
}

func TestAForgeryPassesOnlyIfItWasRefused(t *testing.T) {
	t.Parallel()
	const taken = "A FORGERY WAS ACCEPTED: the backend does not check the signature"
	for name, c := range map[string]struct {
		status int
		reply  string
		code   int
		want   string
	}{
		"refused":                  {200, `{"ret":4,"msg":"bad_parameter:sig"}`, exitOK, "refused, as a forgery should be"},
		"taken":                    {200, `{"ret":0,"msg":"OK"}`, exitFailed, taken},
		"taken, with a newline":    {200, "{\"ret\":0,\"msg\":\"OK\"}\n", exitFailed, taken},
		"no such page":             {404, "404 page not found", exitFailed, "refused because status 404"},
		"refused with an error":    {500, `{"ret":4,"msg":"bad_parameter:sig"}`, exitFailed, "refused because status 500"},
		"a page":                   {200, "<html>", exitFailed, "refused because the body is not"},
		"JSON without a ret":       {200, `{"code":4,"msg":"bad"}`, exitFailed, "refused because the body is not"},
		"a ret that is no number":  {200, `{"ret":"4","msg":"bad"}`, exitFailed, "refused because the body is not"},
		"a ret that says no error": {200, `{"ret":-1,"msg":"bad"}`, exitFailed, "refused because the backend answered ret -1"},
	} {
		backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(c.status)
			io.WriteString(w, c.reply)
		}))
		defer backend.Close()
		args := []string{"callback", "-key", "test-key", "-token", "TOKEN-1", "-forged", "-url", backend.URL + "/pay/notify"}
		code, stdout, stderr := runWith(t, "", nil, args...)
		require.Empty(t, stderr, name)
		require.Equal(t, c.code, code, name)
		require.Contains(t, stdout, "\n"+c.want, name)

		code, stdout, _ = runWith(t, "", nil, append(args, "-json")...)
		require.Equal(t, c.code, code, name)
		require.Contains(t, stdout, fmt.Sprintf(`"ok":%t`, c.code == exitOK), name)
	}
	code, stdout, _ := runWith(t, "", nil, "callback", "-key", "test-key", "-token", "TOKEN-1", "-forged", "-url", "http://127.0.0.1:1/pay/notify")
	require.Equal(t, exitFailed, code, "nobody there")
	require.Contains(t, stdout, "refused because no answer: ")
}

// It may be the pay key.
func TestAFlagAfterTheParametersIsNotRepeated(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"sign", "-base", "openid=1", "-key=SECRET-1"},
		{"sign", "openid=1", "--key=SECRET-1"},
		{"sign", "openid=1", "-key", "SECRET-1"},
		{"callback", "-token", "T", "-url", "http://127.0.0.1:1/p", "discountid=1", "-key=SECRET-1"},
	} {
		code, stdout, stderr := runWith(t, "", map[string]string{"MIDAS_APP_KEY": "test-key"}, args...)
		require.Equal(t, exitUsage, code)
		require.Empty(t, stdout)
		require.Contains(t, stderr, "flags go first")
		require.NotContains(t, stderr, "SECRET-1")
	}
}

func TestInvisibleBytesAreShown(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"{\"ret\": 0}\r\n": `{"ret":‹SP›0}‹CR›‹LF›`,
		"\xef\xbb\xbf{}\t": `‹BOM›{}‹TAB›`,
		"a\x00b\x7f":       `a‹NUL›b‹U+007F›`,
		"a\u200bb\u00a0":   `a‹U+200B›b‹U+00A0›`,
		"\xff道\x1b[0m":     `‹\xFF›道‹U+001B›[0m`,
	} {
		require.Equal(t, want, visibleText(in, len(in)))
	}
	require.Equal(t, "ab‹… and 7 bytes more›", visibleText("ab", 9))
}

func TestColoursAreForATerminalAlone(t *testing.T) {
	t.Parallel()
	device, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0) // a character device, as a terminal is
	require.NoError(t, err)
	defer device.Close()
	file, err := os.Create(filepath.Join(t.TempDir(), "out"))
	require.NoError(t, err)
	defer file.Close()
	for name, c := range map[string]struct {
		out  io.Writer
		env  map[string]string
		want string
	}{
		"a terminal":          {device, nil, "\x1b[31mno\x1b[0m"},
		"NO_COLOR":            {device, map[string]string{"NO_COLOR": "1"}, "no"},
		"a dumb terminal":     {device, map[string]string{"TERM": "dumb"}, "no"},
		"a file":              {file, nil, "no"},
		"anything else":       {io.Discard, nil, "no"},
		"NO_COLOR, but empty": {device, map[string]string{"NO_COLOR": ""}, "\x1b[31mno\x1b[0m"},
	} {
		terminal := &terminal{out: c.out, env: func(name string) string { return c.env[name] }}
		require.Equal(t, c.want, terminal.paint("31", "no"), name)
	}
}
