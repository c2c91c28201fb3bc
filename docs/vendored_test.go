package docs_test

import (
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// What docs/releasing says may be taken alone is what the compiler needs: each part's packages of
// this module are those of its row and, in turn, of the rows of what its row names.
func TestWhatMayBeVendoredAlone(t *testing.T) {
	t.Parallel()
	const module = "github.com/midas-go/midas"
	row := regexp.MustCompile("(?m)^\\| `([^`]+)` \\| (.+) \\|$")
	for page, heading := range map[string]string{"docs/releasing.md": "What may be vendored alone", "docs/releasing.zh-CN.md": "哪些可以单独拷走"} {
		table := sections(text(t, page), heading)
		require.Len(t, table, 1, page)
		with := map[string][]string{}
		for _, r := range row.FindAllStringSubmatch(table[0], -1) {
			with[r[1]] = nil
			for _, name := range codeIn.FindAllStringSubmatch(r[2], -1) {
				with[r[1]] = append(with[r[1]], name[1])
			}
		}
		require.Len(t, with, 7, page)
		for part := range with {
			folders := map[string]bool{}
			needed := []string{part}
			for len(needed) > 0 {
				folders[needed[0]] = true
				needed = append(needed[1:], with[needed[0]]...)
			}
			path := module
			if part != "midas" { // the root
				path += "/" + part
			}
			out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", path).CombinedOutput()
			require.NoError(t, err, "%s", out)
			found := map[string]bool{}
			for imported := range strings.FieldsSeq(string(out)) {
				if imported != module && !strings.HasPrefix(imported, module+"/") {
					continue
				}
				name := strings.TrimPrefix(strings.TrimPrefix(imported, module), "/")
				switch parent, _, below := strings.Cut(name, "/internal/"); {
				case name == "":
					name = "midas"
				case below:
					name = parent + "/internal"
				}
				found[name] = true
				if name == "midassql" {
					found["midassql/schema"] = true // embedded
				}
			}
			require.Equal(t, found, folders, "%s: %s", page, part)
		}
	}
}
