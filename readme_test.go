package midas_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Each Go snippet of the README is a piece of a file that the tests compile, indentation aside.
func TestTheReadmesSnippetsAreCompiled(t *testing.T) {
	t.Parallel()
	var compiled strings.Builder
	for _, pattern := range []string{"example_test.go", "docs_example_test.go", "midastest/example_test.go", "examples/quickstart/*.go"} {
		files, err := filepath.Glob(pattern)
		require.NoError(t, err)
		require.NotEmpty(t, files, pattern)
		for _, file := range files {
			source, err := os.ReadFile(file)
			require.NoError(t, err)
			compiled.WriteString(unindented(string(source)))
		}
	}

	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	snippets := regexp.MustCompile("(?ms)^```go\n(.*?)^```$").FindAllStringSubmatch(string(readme), -1)
	require.NotEmpty(t, snippets)
	require.Len(t, snippets, strings.Count(string(readme), "```go"), "each begins at the start of a line")
	for _, snippet := range snippets {
		if !strings.Contains(compiled.String(), "\n"+unindented(snippet[1])) {
			t.Errorf("not in a file that is compiled:\n%s", snippet[1])
		}
	}
}

// The README's links within the repository lead somewhere.
func TestTheReadmesLinksLeadSomewhere(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	links := regexp.MustCompile(`\]\(([^)#:]+)\)`).FindAllStringSubmatch(string(readme), -1)
	require.NotEmpty(t, links)
	for _, link := range links {
		_, err := os.Stat(link[1])
		require.NoError(t, err)
	}
}

// unindented returns text without the white space that its lines begin with.
func unindented(text string) string {
	return regexp.MustCompile(`(?m)^[ \t]+`).ReplaceAllString(text, "")
}
