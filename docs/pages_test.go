package docs_test

import (
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/stretchr/testify/require"
)

// The names of files in these tests are those of the repository.
var repository = os.DirFS("..")

// A page is a Markdown file, read as far as the checks below need it.
type page struct {
	links    []link
	anchors  []string
	outline  []int // levels of the headings
	rows     int   // of its tables, indented ones too
	snippets []snippet
}

type link struct {
	line         int
	text, target string
	image        bool
}

type snippet struct {
	line           int
	language, code string
}

// Every link of every page leads somewhere, and one named after a test leads to that test.
// Web addresses are read, not called.
func TestLinksLeadSomewhere(t *testing.T) {
	t.Parallel()
	pages := readPages(t)
	for name, p := range pages {
		for _, l := range p.links {
			if err := follow(name, l, pages); err != nil {
				t.Errorf("%s:%d: %s: %v", name, l.line, l.target, err)
			}
		}
	}
}

func TestTheLinkCheckerSeesWhatIsWrong(t *testing.T) {
	t.Parallel()
	const text = "# The `page`, 第一 (1)\n## Twice\n## Twice\n<a id=\"here\"></a>\n" +
		"[right](LICENSE) [right](#the-page-第一-1) [right](https://example.com/a?b#c) [right](#twice-1) [right](#here)\n" +
		"[text over\nlines](missing-1) ![no text](missing-2) [![in a link](missing-3)](missing-4)\n" +
		"`[code](no-link)` [`code`](missing-5) <img src=\"missing-6\" alt=\"x\"> ![](LICENSE)\n" +
		"```sh\n[code](no-link)\n# no heading\n````\n\n[name]: missing-7\n" +
		"[x](#no-heading) [x](../main) [x](/LICENSE) [x](go.mod#L3) [x](ftp://example.com) [x](http://localhost)\n" +
		"[`TestLinksLeadSomewhere`](docs/pages_test.go) [`TestNowhere`](docs/pages_test.go)\n"
	p := readPage(text)

	var wrong []string
	for _, l := range p.links {
		if follow("page.md", l, map[string]*page{"page.md": p}) != nil {
			wrong = append(wrong, fmt.Sprintf("%d %s", l.line, l.target))
		}
	}
	slices.Sort(wrong)
	require.Equal(t, []string{
		"14 missing-7", "15 #no-heading", "15 ../main", "15 /LICENSE", "15 ftp://example.com", "15 go.mod#L3", "15 http://localhost",
		"16 docs/pages_test.go", "6 missing-1", "7 missing-2", "7 missing-3", "7 missing-4", "8 LICENSE", "8 missing-5", "8 missing-6",
	}, wrong)
}

// The Go code on a page is a piece of a file that is compiled, indentation aside.
func TestSnippetsAreCompiled(t *testing.T) {
	t.Parallel()
	var compiled strings.Builder
	for _, name := range files(t, ".go") {
		source, err := fs.ReadFile(repository, name)
		require.NoError(t, err)
		compiled.WriteString("\n" + withoutIndent(string(source)))
	}
	for name, p := range readPages(t) {
		for _, s := range p.snippets {
			if s.language == "go" && !strings.Contains(compiled.String(), "\n"+withoutIndent(s.code)) {
				t.Errorf("%s:%d: in no Go file of this repository:\n%s", name, s.line, s.code)
			}
		}
	}
}

// A page for users is there in English and Chinese: linked to each other, with the same
// headings, as many rows in tables, and the same code.
func TestPagesAreInBothLanguages(t *testing.T) {
	t.Parallel()
	pages := readPages(t)
	for name, p := range pages {
		if name != "README.md" && path.Dir(name) != "docs" || strings.HasSuffix(name, ".zh-CN.md") {
			continue
		}
		chinese := strings.TrimSuffix(name, ".md") + ".zh-CN.md"
		other, found := pages[chinese]
		if !found {
			t.Errorf("%s: there is no %s", name, chinese)
			continue
		}
		linksTo := func(p *page, target string) bool {
			return slices.ContainsFunc(p.links, func(l link) bool { return l.target == path.Base(target) })
		}
		if !linksTo(p, chinese) || !linksTo(other, name) {
			t.Errorf("%s and %s do not link to each other", name, chinese)
		}
		if !slices.Equal(p.outline, other.outline) {
			t.Errorf("%s and %s have other headings: levels %v and %v", name, chinese, p.outline, other.outline)
		}
		if p.rows != other.rows {
			t.Errorf("%s and %s have other tables: %d and %d rows", name, chinese, p.rows, other.rows)
		}
		goCode := func(p *page) (code []string) {
			for _, s := range p.snippets {
				if s.language == "go" {
					code = append(code, s.code)
				}
			}
			return code
		}
		if !slices.Equal(goCode(p), goCode(other)) {
			t.Errorf("%s and %s have other Go code", name, chinese)
		}
	}
	for name := range pages {
		if english := strings.TrimSuffix(name, ".zh-CN.md"); english != name && pages[english+".md"] == nil {
			t.Errorf("%s: there is no %s.md", name, english)
		}
	}
}

// follow says what is wrong with a link on the page called name.
func follow(name string, l link, pages map[string]*page) error {
	u, err := url.Parse(l.target)
	switch {
	case err != nil:
		return err
	case l.image && l.text == "":
		return fmt.Errorf("the picture has no text for those who do not see it")
	case u.Scheme == "http" || u.Scheme == "https":
		if !strings.Contains(u.Hostname(), ".") || strings.Trim(u.Hostname(), ".") != u.Hostname() {
			return fmt.Errorf("not a web address")
		}
		return nil
	case u.Scheme != "" || u.Host != "" || strings.HasPrefix(l.target, "/"):
		return fmt.Errorf("want a path relative to the page, or a web address")
	}

	file := name
	if u.Path != "" {
		file = path.Join(path.Dir(name), u.Path)
	}
	if strings.HasPrefix(file, "..") {
		return fmt.Errorf("leaves the repository")
	}
	if pages[file] == nil {
		if _, err := fs.Stat(repository, file); err != nil {
			return err
		}
	}
	if u.Fragment != "" {
		p := pages[file]
		if p == nil {
			return fmt.Errorf("lines move: link to the file and name the function")
		}
		if !slices.Contains(p.anchors, u.Fragment) {
			return fmt.Errorf("there is no such heading; there are %s", strings.Join(p.anchors, ", "))
		}
	}
	if function := testName.FindString(l.text); function != "" && strings.HasSuffix(file, "_test.go") {
		source, err := fs.ReadFile(repository, file)
		if err != nil {
			return err
		}
		if !strings.Contains(string(source), "\nfunc "+function+"(") {
			return fmt.Errorf("the file has no %s", function)
		}
	}
	return nil
}

var testName = regexp.MustCompile(`\b(Test|Fuzz|Example|Benchmark)[A-Z_]\w*`)

// readPages returns the repository's Markdown files by name.
func readPages(t *testing.T) map[string]*page {
	pages := make(map[string]*page)
	for _, name := range files(t, ".md") {
		text, err := fs.ReadFile(repository, name)
		require.NoError(t, err)
		pages[name] = readPage(string(text))
	}
	require.NotEmpty(t, pages)
	return pages
}

// files returns the names of the repository's files with an ending, with slashes.
func files(t *testing.T, ending string) []string {
	if _, err := fs.Stat(repository, ".git"); err != nil {
		t.Skip("not a checkout: a downloaded module lacks the modules within it")
	}
	var names []string
	require.NoError(t, fs.WalkDir(repository, ".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (entry.Name() == ".git" || entry.Name() == "testdata" && ending == ".go"):
			return fs.SkipDir
		case strings.HasSuffix(name, ending):
			names = append(names, name)
		}
		return nil
	}))
	return names
}

var (
	fence    = regexp.MustCompile("^\\s*(```+|~~~+)\\s*(\\w*)")
	heading  = regexp.MustCompile(`^(#{1,6})\s+(.+?)(?:\s+#+)?\s*$`)
	codeSpan = regexp.MustCompile("`[^`]*`")
	linked   = regexp.MustCompile(`(!?)\[((?:[^\[\]]|!?\[[^\[\]]*\](?:\([^()]*\))?)*)\]\(\s*<?([^\s()<>]*(?:\([^()]*\)[^\s()<>]*)*)>?(?:\s+"[^"]*")?\s*\)`)
	defined  = regexp.MustCompile(`(?m)^ {0,3}\[([^\]]+)\]: *<?(\S+?)>?(?: +"[^"]*")? *$`)
	inHTML   = regexp.MustCompile(`<(a|img)\b[^>]*?\b(?:href|src)="([^"]*)"[^>]*>`)
	altText  = regexp.MustCompile(`\balt="([^"]*)"`)
	anchorID = regexp.MustCompile(`<[^>]*\b(?:id|name)="([^"]*)"`)
)

func readPage(text string) *page {
	p := new(page)
	var prose strings.Builder // what is not in a fenced block, on the same lines
	var code *snippet         // inside a fenced block
	var end string
	for i, line := range strings.Split(text, "\n") {
		begin := fence.FindStringSubmatch(line)
		switch {
		case code == nil && begin != nil:
			code, end = &snippet{line: i + 1, language: begin[2]}, begin[1]
		case code != nil && begin != nil && strings.TrimSpace(line) == begin[1] && strings.HasPrefix(begin[1], end):
			p.snippets = append(p.snippets, *code)
			code = nil
		case code != nil:
			code.code += line + "\n"
		default:
			if h := heading.FindStringSubmatch(line); h != nil {
				p.outline = append(p.outline, len(h[1]))
				p.addAnchor(h[2])
			}
			if strings.HasPrefix(strings.TrimSpace(line), "|") {
				p.rows++
			}
			prose.WriteString(line)
		}
		prose.WriteString("\n")
	}
	// What a code span holds is no link, though it may be the text of one.
	p.addLinks(1, codeSpan.ReplaceAllStringFunc(prose.String(), func(span string) string {
		return strings.NewReplacer("`", "", "[", "", "]", "", "<", "").Replace(span)
	}))
	return p
}

// addLinks adds the links in prose, which begins on a line of the page.
func (p *page) addLinks(line int, prose string) {
	add := func(at int, text, target string, image bool) {
		p.links = append(p.links, link{line + strings.Count(prose[:at], "\n"), text, target, image})
	}
	for _, m := range linked.FindAllStringSubmatchIndex(prose, -1) {
		text := prose[m[4]:m[5]]
		add(m[0], text, prose[m[6]:m[7]], m[2] < m[3])
		p.addLinks(line+strings.Count(prose[:m[0]], "\n"), text) // a picture in a link
	}
	for _, m := range defined.FindAllStringSubmatchIndex(prose, -1) {
		add(m[0], prose[m[2]:m[3]], prose[m[4]:m[5]], false)
	}
	for _, m := range inHTML.FindAllStringSubmatchIndex(prose, -1) {
		alt := altText.FindStringSubmatch(prose[m[0]:m[1]])
		add(m[0], strings.Join(alt, ""), prose[m[4]:m[5]], prose[m[2]:m[3]] == "img")
	}
	for _, m := range anchorID.FindAllStringSubmatch(prose, -1) {
		p.anchors = append(p.anchors, m[1])
	}
}

// addAnchor adds the anchor that GitHub makes of a heading.
func (p *page) addAnchor(heading string) {
	heading = linked.ReplaceAllString(heading, "$2")
	anchor := strings.Map(func(c rune) rune {
		switch {
		case unicode.IsLetter(c) || unicode.IsDigit(c) || unicode.IsMark(c) || c == '-' || c == '_':
			return unicode.ToLower(c)
		case c == ' ':
			return '-'
		}
		return -1
	}, heading)
	numbered := anchor
	for n := 1; slices.Contains(p.anchors, numbered); n++ {
		numbered = fmt.Sprintf("%s-%d", anchor, n)
	}
	p.anchors = append(p.anchors, numbered)
}

var indent = regexp.MustCompile(`(?m)^[ \t]+`)

func withoutIndent(code string) string { return indent.ReplaceAllString(code, "") }
