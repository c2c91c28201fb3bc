package main

import (
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTheLanguageIsTheFlagsOrElseTheEnvironments(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		flag string
		env  map[string]string
		want string
	}{
		"nothing set":                {"", nil, "en"},
		"LANG":                       {"", map[string]string{"LANG": "zh_CN.UTF-8"}, "zh"},
		"a Chinese of another place": {"", map[string]string{"LANG": "zh_TW"}, "zh"},
		"a language there is not":    {"", map[string]string{"LANG": "de_DE.UTF-8"}, "en"},
		"the C locale":               {"", map[string]string{"LANG": "C.UTF-8"}, "en"},
		"LC_ALL before LANG":         {"", map[string]string{"LANG": "zh_CN.UTF-8", "LC_ALL": "C"}, "en"},
		"LC_MESSAGES before LANG":    {"", map[string]string{"LANG": "en_US.UTF-8", "LC_MESSAGES": "zh_CN"}, "zh"},
		"an empty LC_ALL":            {"", map[string]string{"LANG": "zh_CN", "LC_ALL": ""}, "zh"},
		"the flag before all":        {"en", map[string]string{"LC_ALL": "zh_CN"}, "en"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var args []string
			if c.flag != "" {
				args = []string{"explain", "-lang", c.flag}
			}
			require.Equal(t, c.want, language(args, func(name string) string { return c.env[name] }))
		})
	}
}

func TestHelpIsInTheLanguageAskedFor(t *testing.T) {
	t.Parallel()
	chinese := map[string]string{"LANG": "zh_CN.UTF-8"}
	for _, command := range []string{"sandbox", "explain", "sign", "callback", "tap", "tap report", "replay"} {
		t.Run(command, func(t *testing.T) {
			t.Parallel()
			args := strings.Fields(command)
			ask := func(more ...string) []string { return append(slices.Clip(args), more...) }
			_, english, _ := runWith(t, "", nil, ask("-h")...)
			require.True(t, strings.HasPrefix(english, "Usage: midas "+command), english)
			code, help, _ := runWith(t, "", chinese, ask("-h")...)
			require.Equal(t, exitOK, code)
			require.True(t, strings.HasPrefix(help, "用法：midas "+command), help)
			_, byFlag, _ := runWith(t, "", nil, ask("-lang", "zh", "-h")...)
			require.Equal(t, help, byFlag)
			_, byFlag, _ = runWith(t, "", chinese, ask("-lang", "en", "-h")...)
			require.Equal(t, english, byFlag)

			// The same flags, each in Chinese.
			flags := strings.Split(help[strings.Index(help, "\n选项：\n"):], "\n  -")
			require.Len(t, flags, strings.Count(english, "\n  -")+1)
			for _, flag := range flags[1:] {
				require.Regexp(t, `\p{Han}`, flag)
			}
		})
	}
	code, stdout, _ := runWith(t, "", chinese, "help")
	require.Equal(t, exitOK, code)
	require.Contains(t, stdout, "replay     把记录下来的回调再发一遍")
}

func TestCallbackSpeaksChinese(t *testing.T) {
	t.Parallel()
	endpoint, _ := recorder(t)
	args := []string{"callback", "-key", "test-key", "-url", endpoint, "-token", "T"}
	code, stdout, _ := runWith(t, "", map[string]string{"LC_ALL": "zh_CN.UTF-8"}, append(args, "-billno", "-B1")...)
	require.Equal(t, exitOK, code)
	require.Contains(t, stdout, "  流水号   -B1\n  状态码   200\n")
	require.Contains(t, stdout, "\n已接受\n")
	code, stdout, _ = runWith(t, "", nil, append(args, "-lang", "zh", "-billno", "-refuse")...)
	require.Equal(t, exitFailed, code)
	require.Contains(t, stdout, "\n被拒绝，原因：后端应答 ret 3（token_not_found）\n")
}

// What can go wrong once a command runs, in both languages.
func TestEveryFailureIsInTheLanguageAskedFor(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { taken.Close() }) // not before the subtests end
	for name, c := range map[string]struct {
		args          []string
		english, want string
	}{
		"an address in use":      {[]string{"sandbox", "-addr", taken.Addr().String()}, "is in use: take another one", "已被占用：换一个"},
		"a record in no folder":  {[]string{"sandbox", "-addr", "127.0.0.1:0", "-record", "/no/such/folder/f"}, "open /no/such/folder/f: no such file", "没有 /no/such/folder/f 这个文件"},
		"a file that is missing": {[]string{"replay", "-url", "http://127.0.0.1/p", "/no/such/file"}, "open /no/such/file: no such file", "没有 /no/such/file 这个文件"},
		"a text that is none":    {[]string{"explain", "-key", "k", "hello"}, "this is neither a URL with a query", "这不是带查询串的 URL"},
		"a log without queries":  {[]string{"explain", "-key", "k", `"GET /pay/notify HTTP/1.1" 200`}, "the log left out the query", "日志没有记录 /pay/notify 的查询串"},
		"nobody there":           {[]string{"callback", "-key", "k", "-token", "T", "-url", "http://127.0.0.1:1/p"}, "connection refused", "没有应答：连不上 127.0.0.1:1，后端启动了吗？"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, stdout, stderr := runWith(t, "", nil, c.args...)
			require.Equal(t, exitFailed, code)
			require.Contains(t, stdout+stderr, c.english)
			code, stdout, stderr = runWith(t, "", nil, append([]string{c.args[0], "-lang", "zh"}, c.args[1:]...)...)
			require.Equal(t, exitFailed, code)
			require.Contains(t, stdout+stderr, c.want)
		})
	}
}
