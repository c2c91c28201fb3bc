package main

import (
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
