package main

import (
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
			require.Equal(t, c.want, language(c.flag, func(name string) string { return c.env[name] }))
		})
	}
}

func TestHelpIsInTheLanguageAskedFor(t *testing.T) {
	t.Parallel()
	chinese := map[string]string{"LANG": "zh_CN.UTF-8"}
	for _, command := range []string{"sandbox", "explain", "callback", "replay"} {
		t.Run(command, func(t *testing.T) {
			t.Parallel()
			_, english, _ := runWith(t, "", nil, command, "-h")
			require.True(t, strings.HasPrefix(english, "Usage: midas "+command), english)
			code, help, _ := runWith(t, "", chinese, command, "-h")
			require.Equal(t, exitOK, code)
			require.True(t, strings.HasPrefix(help, "用法：midas "+command), help)
			_, byFlag, _ := runWith(t, "", nil, command, "-lang", "zh", "-h")
			require.Equal(t, help, byFlag)
			_, byFlag, _ = runWith(t, "", chinese, command, "-lang", "en", "-h")
			require.Equal(t, english, byFlag)

			// The same flags, each in Chinese.
			flags := strings.Split(help[strings.Index(help, "\n参数：\n"):], "\n  -")
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
