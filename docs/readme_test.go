package docs_test

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// pageOne returns the README in both languages.
func pageOne(t *testing.T) map[string]string {
	pages := make(map[string]string)
	for _, name := range []string{"README.md", "README.zh-CN.md"} {
		pages[name] = read(t, name)
	}
	return pages
}

// read returns a file of the repository.
func read(t *testing.T, name string) string {
	text, err := fs.ReadFile(repository, name)
	require.NoError(t, err)
	return string(text)
}

// Page one is read in one sitting.
func TestTheREADMEIsShort(t *testing.T) {
	t.Parallel()
	for name, text := range pageOne(t) {
		require.LessOrEqual(t, strings.Count(text, "\n"), 180, name)
	}
}

// The two commands that do everything on a machine with nothing but Go are those that CI runs.
func TestCIRunsTheCommandsOfTheREADME(t *testing.T) {
	t.Parallel()
	if _, err := fs.Stat(repository, ".ci"); err != nil {
		t.Skip("a downloaded module has no .ci")
	}
	ci := read(t, ".ci/run")
	for name, text := range pageOne(t) {
		for _, command := range []string{"go run ./examples/quickstart", "go test ./..."} {
			require.Contains(t, text, "\n"+command+"\n", name)
			require.Contains(t, ci, command)
		}
	}
}

// Where the test vectors are from, as page one says it.
func TestTheREADMECountsTheVectors(t *testing.T) {
	t.Parallel()
	var vectors []struct{ Source string }
	require.NoError(t, json.Unmarshal([]byte(read(t, "testdata/signatures.json")), &vectors))
	from := make(map[string]int)
	for _, v := range vectors {
		switch {
		case v.Source == "random input, signed by Tencent's PHP SDK":
			from["SDK"]++
		case strings.HasPrefix(v.Source, "Tencent "):
			from["pages"]++
		case strings.HasPrefix(v.Source, "independent implementation's test"):
			from["others"]++
		case strings.HasPrefix(v.Source, "constructed;"):
			from["made"]++
		default:
			t.Errorf("page one does not tell of %q", v.Source)
		}
	}
	for name, format := range map[string]string{
		"README.md": "Of %d test vectors of the signatures %d were made by running Tencent's own PHP SDK on random input, %d are from Tencent's pages, " +
			"%d is from another implementation's test, and %d were made for one rule each.",
		"README.zh-CN.md": "签名有 %d 组测试向量：%d 组是用腾讯官方 PHP SDK 对随机输入算出来的，%d 组来自腾讯的文档，%d 组来自另一个实现的测试，%d 组是针对单条规则构造的。",
	} {
		want := fmt.Sprintf(format, len(vectors), from["SDK"], from["pages"], from["others"], from["made"])
		got := strings.ReplaceAll(read(t, name), "，\n", "，")
		require.Contains(t, strings.ReplaceAll(got, "\n", " "), want, name)
	}
}
