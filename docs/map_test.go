package docs_test

import (
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var (
	forWhom = regexp.MustCompile(`(?m)\A# .+\n\n.+\n\n(?:For|读者：) ?(.+)(?:\.|。)$`)
	target  = regexp.MustCompile(`\]\(([^)]+)\)`)
)

// Every page says in its first sentence whom it is for; the map leads to it once by what a reader
// wants to do, and under each role that the sentence names.
func TestTheMapIsInStepWithThePages(t *testing.T) {
	t.Parallel()
	for ending, roles := range map[string][]string{
		".md":       {"backend engineers", "operators", "support", "contributors"},
		".zh-CN.md": {"后端工程师", "运维", "客服与财务", "贡献者"},
	} {
		tasks, byRole, found := strings.Cut(read(t, "docs/README"+ending), "\n## ")
		require.True(t, found)
		rows := 0
		for line := range strings.Lines(tasks) {
			if strings.HasPrefix(line, "| ") && !strings.HasPrefix(line, "| ---") {
				rows++
				if links := len(target.FindAllString(line, -1)); rows > 1 && links != 1 {
					t.Errorf("README%s: one link, not %d: %s", ending, links, line)
				}
			}
		}
		under := make(map[string][]string) // by role, the pages that its row links to
		for line := range strings.Lines(byRole) {
			for _, role := range roles {
				if strings.HasPrefix(line, "| "+role+" |") {
					for _, m := range target.FindAllStringSubmatch(line, -1) {
						under[role] = append(under[role], m[1])
					}
				}
			}
		}
		for _, name := range files(t, ending) {
			if path.Dir(name) != "docs" || strings.HasSuffix(name, ".zh-CN.md") != (ending == ".zh-CN.md") || strings.HasPrefix(path.Base(name), "README.") {
				continue
			}
			page := path.Base(name)
			if n := strings.Count(tasks, "]("+page+")"); n != 1 {
				t.Errorf("README%s leads to %s %d times by what a reader wants to do", ending, page, n)
			}
			whom := forWhom.FindStringSubmatch(read(t, name))
			if whom == nil {
				t.Errorf("%s does not begin with whom it is for", name)
				continue
			}
			named := false
			for _, role := range roles {
				is := strings.Contains(whom[1], role)
				named = named || is
				if is != slices.Contains(under[role], page) {
					t.Errorf("%s is for %s; README%s has it under %s: %t", name, whom[1], ending, role, !is)
				}
			}
			if !named {
				t.Errorf("%s is for %s, a role that the map does not have", name, whom[1])
			}
		}
	}
}

// What the English pages of the first edition may hold together, and a later page alone, in words.
func TestPagesAreShort(t *testing.T) {
	t.Parallel()
	first := []string{"backend", "databases", "deployment", "errors", "frameworks", "inbox", "ledger", "minigame", "observability", "pitfalls",
		"protocol", "sandbox", "support", "testing"}
	sum := 0
	for _, name := range files(t, ".md") {
		words := len(strings.Fields(read(t, name)))
		page := strings.TrimSuffix(path.Base(name), ".md")
		switch {
		case path.Dir(name) != "docs" || strings.HasSuffix(name, ".zh-CN.md"):
		case slices.Contains(first, page):
			sum += words
		case words > 1200:
			t.Errorf("%s has %d words, above 1,200", name, words)
		}
	}
	require.LessOrEqual(t, sum, 27216)
}
