package main

import (
	"errors"
	"flag"
	"strings"
)

// language returns the language a command prints in, "en" or "zh": the one asked for with
// -lang, or else the environment's.
func language(flag string, env func(string) string) string {
	if flag != "" {
		return flag
	}
	for _, name := range []string{"LC_ALL", "LC_MESSAGES", "LANG"} { // POSIX: the first one set wins
		if locale := env(name); locale != "" {
			if strings.HasPrefix(strings.ToLower(locale), "zh") {
				return "zh"
			}
			return "en"
		}
	}
	return "en"
}

// langFlag registers -lang; the value goes to [language].
func langFlag(flags *flag.FlagSet) *string {
	lang := new(string)
	flags.Func("lang", "`language` of what is printed, en or zh; if not given, that of the environment (LC_ALL, LC_MESSAGES, LANG)", func(s string) error {
		if s != "en" && s != "zh" {
			return errors.New("want en or zh")
		}
		*lang = s
		return nil
	})
	return lang
}
