package lang

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestBothLanguagesHaveTheSameKeysAndGaps(t *testing.T) {
	t.Parallel()
	en, zh := catalogues["en"](), catalogues["zh"]()
	require.Greater(t, len(en.entries), 500)
	require.Len(t, en.text, len(en.entries), "a key comes twice")
	require.Len(t, zh.text, len(zh.entries), "a key comes twice")
	han := func(s string) bool {
		return strings.ContainsFunc(s, func(r rune) bool { return unicode.Is(unicode.Han, r) })
	}
	gaps := func(s string) []string {
		return slices.Compact(slices.Sorted(slices.Values(regexp.MustCompile(`\{[0-9]+\}`).FindAllString(s, -1))))
	}
	whole := func(c catalogue, text string) string { // with the entries that it includes
		for range 4 {
			text = gap.ReplaceAllStringFunc(text, func(hole string) string {
				if included, ok := c.text[strings.Trim(hole, "{}")]; ok {
					return included
				}
				return hole
			})
		}
		return text
	}
	sentence := regexp.MustCompile(`[a-z]{3,} [a-z]+ [a-z]+`)
	for _, e := range en.entries {
		english, chinese := whole(en, e.text), whole(zh, zh.text[e.key])
		assert.NotEmpty(t, chinese, e.key)
		assert.NotEmpty(t, english, e.key)
		assert.Equal(t, gaps(english), gaps(chinese), e.key)
		assert.False(t, han(strings.ReplaceAll(english, "米大师", "")), "%s: %s", e.key, english)
		assert.True(t, han(chinese) || !sentence.MatchString(english), "%s: %s", e.key, chinese)
		if !strings.Contains(e.key, "welcome") {
			assert.NotRegexp(t, sentence, regexp.MustCompile(`midas \w+ (-\w+|report).*`).ReplaceAllString(chinese, ""), e.key)
		}
		for _, hole := range gap.FindAllString(e.text, -1) {
			if name := strings.Trim(hole, "{}"); name[0] > '9' {
				assert.True(t, Has(name), "%s: there is no %s", e.key, name)
			}
		}
	}
	for _, e := range zh.entries {
		assert.True(t, Has(e.key), "%s is in the Chinese catalogue alone", e.key)
	}
}

// What nothing says would be translated for nothing.
func TestEveryEntryIsUsed(t *testing.T) {
	t.Parallel()
	var sources strings.Builder
	for _, pattern := range []string{"../../*.go", "../explain/*.go", "../report/*.go", "../../pages/*", "en.txt", "lang.go"} {
		files, err := filepath.Glob(pattern)
		require.NoError(t, err)
		for _, file := range files {
			data, err := os.ReadFile(file)
			require.NoError(t, err)
			if !strings.HasSuffix(file, "_test.go") {
				sources.Write(data)
			}
		}
	}
	text := sources.String()
	made := regexp.MustCompile(`^(said|flag|[a-z ]+\.flag|[a-z ]+\.about|answer\.(plus-|cee-|no-cee-|escaped-|decoded-)|note\.(env|type|member-unknown)-|print\.(joined|[a-z-]+-older)|kind|line|hint)`) // keys that are put together, or matched
	context := regexp.MustCompile(`\.(request|callback|callback-own|mini|push)$`)
	for _, e := range catalogues["en"]().entries {
		key := e.key
		if made.MatchString(key) {
			continue
		}
		key = strings.TrimPrefix(strings.TrimPrefix(key, "page."), "place.")
		if id, ok := strings.CutPrefix(key, "point."); ok { // a point's ID
			key = strings.TrimSuffix(id, ".by")
		}
		if !strings.HasPrefix(key, "print.") {
			key = strings.TrimSuffix(strings.TrimSuffix(context.ReplaceAllString(key, ""), ".cure"), ".if")
		}
		name, which, _ := strings.Cut(key, "/")
		used := func(s string) bool {
			for _, around := range []string{`"%"`, `"%/`, `{%}`, `{%.`, `/%"`, `.%}`, `.%"`} {
				if strings.Contains(text, strings.Replace(around, "%", s, 1)) {
					return true
				}
			}
			return false
		}
		assert.True(t, used(key) || used(name) && (which == "" || used(which)) || strings.HasPrefix(key, "method-"), e.key)
	}
}

func TestAnErrorOfAnotherPackageIsAKeyAndArguments(t *testing.T) {
	t.Parallel()
	text := Said(`cookies session_id="{}" and session_type="b" belong to no login`)
	require.Equal(t, "said.cookies", text.Key)
	require.Equal(t, `Cookie session_id="{}"、session_type="b" 不属于任何登录方式`, text.In("zh"))
	require.Equal(t, `cookies session_id="{1}" and session_type="b" belong to no login`, Said(`cookies session_id="{1}" and session_type="b" belong to no login`).In("en"))
	require.Equal(t, "unknown words", Said("unknown words").In("zh"))
	require.Equal(t, "没有 -foo 这个选项", T("text", errors.New("flag provided but not defined: -foo")).In("zh"))
	require.Equal(t, `a\u001B[31mb\xFF`, T("text", "a\x1b[31mb\xff").In("en"))
	require.Equal(t, `"a", "b"`, T("text", []string{"a", "b"}).In("en"))
	require.Equal(t, "a、b", T("text", []string{"a", "b"}).In("zh"))
}
