package docs_test

import (
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var (
	codeIn   = regexp.MustCompile("`([^`]+)`")
	goName   = regexp.MustCompile(`^[A-Za-z]\w+$`)
	mayBeAny = []string{"Example", "Raw", "Amount", "int", "wrong"} // names that a list tells to write, or to use
)

func text(t *testing.T, name string) string {
	content, err := fs.ReadFile(repository, name)
	require.NoError(t, err)
	return string(content)
}

// sections returns the parts of a page whose heading begins like that.
func sections(page, heading string) (found []string) {
	for _, part := range strings.Split(page, "\n## ")[1:] {
		if strings.HasPrefix(part, heading) {
			found = append(found, part)
		}
	}
	return found
}

// items returns the items of the lists of a text, each with its further lines.
func items(text string) (found []string) {
	for line := range strings.Lines(text) {
		switch {
		case strings.HasPrefix(line, "- ") || len(line) > 2 && line[0] >= '1' && line[0] <= '9' && line[1] == '.':
			found = append(found, line)
		case strings.HasPrefix(line, "  ") && len(found) > 0:
			found[len(found)-1] += line
		}
	}
	return found
}

// The places that CONTRIBUTING names are there: a name in an item is in one of the files that the
// item links to.
func TestContributingNamesPlacesThatExist(t *testing.T) {
	t.Parallel()
	for name, heading := range map[string]string{"CONTRIBUTING.md": "To add", "CONTRIBUTING.zh-CN.md": "增加"} {
		lists := sections(text(t, name), heading)
		require.NotEmpty(t, lists, name)
		for _, list := range lists {
			for _, item := range items(list) {
				var linked string
				for _, l := range readPage(item).links {
					if path.Ext(l.target) != "" {
						linked += text(t, l.target)
					}
				}
				for _, m := range codeIn.FindAllStringSubmatch(item, -1) {
					if goName.MatchString(m[1]) && linked != "" && !slices.Contains(mayBeAny, m[1]) && !strings.Contains(linked, m[1]) {
						t.Errorf("%s: no %s in the files linked in: %s", name, m[1], item)
					}
				}
			}
		}
	}
}

// What both languages list has the same names in the same places.
func TestListsAreTheSameInBothLanguages(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"CONTRIBUTING", "CHANGELOG"} {
		english, chinese := items(text(t, name+".md")), items(text(t, name+".zh-CN.md"))
		require.Len(t, chinese, len(english), name)
		for i := range english {
			names := func(item string) []string {
				var names []string
				for _, m := range codeIn.FindAllStringSubmatch(item, -1) {
					names = append(names, m[1])
				}
				slices.Sort(names)
				return slices.Compact(names)
			}
			assert.Equal(t, names(english[i]), names(chinese[i]), "%s\n%s", english[i], chinese[i])
		}
	}
}

// Each step of .ci/run is in a job of the workflow, once.
func TestTheWorkflowRunsEveryStep(t *testing.T) {
	t.Parallel()
	_, list, _ := strings.Cut(text(t, ".ci/run"), "steps=(\n")
	list, _, _ = strings.Cut(list, "\n)")
	var steps []string
	for line := range strings.Lines(list) {
		steps = append(steps, strings.Fields(strings.Trim(line, "\t'\""))[0])
	}
	workflow := text(t, ".github/workflows/ci.yml")
	_, proofs, _ := strings.Cut(workflow, "step: [")
	proofs, _, _ = strings.Cut(proofs, "]")
	_, quick, _ := strings.Cut(workflow, "steps: format")
	quick, _, _ = strings.Cut("format"+quick, "\n")
	inJobs := append(strings.Fields(quick), strings.Split(proofs, ", ")...)
	slices.Sort(steps)
	slices.Sort(inJobs)
	require.NotEmpty(t, steps)
	require.Equal(t, steps, inJobs)

	makefile := text(t, "Makefile")
	require.Contains(t, makefile, "quick := "+strings.Replace(quick, " build", " race build", 1)+"\n", "what make proofs leaves out")
	for _, page := range []string{"CONTRIBUTING.md", "CONTRIBUTING.zh-CN.md"} {
		require.Contains(t, text(t, page), "`bash .ci/run "+quick+"`")
	}
}

// The first line of an example's page says what to copy and what to leave.
func TestExamplesSayWhatToCopy(t *testing.T) {
	t.Parallel()
	for ending, says := range map[string]string{"README.md": `^Copy .+; leave `, "README.zh-CN.md": `^拷走：.+。留下：`} {
		pages, err := fs.Glob(repository, "examples/*/"+ending)
		require.NoError(t, err)
		require.NotEmpty(t, pages)
		for _, page := range pages {
			paragraphs := strings.SplitN(text(t, page), "\n\n", 4) // title, the other language, this
			assert.Regexp(t, says, paragraphs[2], page)
		}
	}
}

// go test passes where -run matches nothing.
func TestTheWorkflowForMySQLNamesTestsThatExist(t *testing.T) {
	t.Parallel()
	var all strings.Builder
	files, err := fs.Glob(repository, "midassql/dbtest/*_test.go")
	require.NoError(t, err)
	for _, file := range files {
		all.WriteString(text(t, file))
	}
	names := regexp.MustCompile(`\bTest[A-Z]\w+`).FindAllString(text(t, ".github/workflows/mysql.yml"), -1)
	require.NotEmpty(t, names)
	for _, name := range names {
		if name != "TestPayments" { // of examples/gameserver
			assert.Contains(t, all.String(), "func "+name+"(")
		}
	}
}
