package midas_test

import (
	"bytes"
	"flag"
	"fmt"
	"go/ast"
	"go/doc"
	"go/format"
	"go/parser"
	"go/printer"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write testdata/api.txt anew")

const apiFile = "testdata/api.txt"

// What users can import is written down in testdata/api.txt, so that it changes only when
// somebody means it to. Each package is settled or young, and so is a name of a settled one
// (README, "Stability").
func TestTheAPIIsTheOneWrittenDown(t *testing.T) {
	t.Parallel()
	var api bytes.Buffer
	for _, pkg := range []struct{ dir, stability string }{
		{".", "settled"}, {"midastest", "settled"}, {"midassql", "settled"}, {"midassql/midassqltest", "young"}, {"minigame", "young"}, {"minigame/minigametest", "young"}, {"minigame/minigamesql", "young"},
	} {
		writeAPI(t, &api, pkg.dir, pkg.stability)
	}
	if *update {
		require.NoError(t, os.WriteFile(apiFile, api.Bytes(), 0o644))
	}
	want, err := os.ReadFile(apiFile)
	require.NoError(t, err)
	if string(want) == api.String() {
		return
	}
	before, now := strings.Split(string(want), "\n\n"), strings.Split(api.String(), "\n\n")
	t.Errorf(`The exported API is not the one in %s.
If the change is meant, write the file anew, commit it together with the change, and say in
CHANGELOG.md what users have to do:

	go test -run TestTheAPI . -update

Only in the file:

%s

Only in the code:

%s
`, apiFile, without(before, now), without(now, before))
}

// without returns the declarations that others lack.
func without(declarations, others []string) string {
	return strings.Join(slices.DeleteFunc(slices.Clone(declarations), func(d string) bool {
		return slices.Contains(others, d)
	}), "\n\n")
}

// young begin the declarations of settled packages that are young themselves.
var young = []string{"type Call struct", "func (c *Client) Call(", "func (c *Client) Shadow(", "type ImportResult struct", "type KnownPayment struct",
	"func (s *Store) Import(", "func (s *Store) CheckImport("}

// writeAPI writes the exported declarations of the package in dir, without comments.
func writeAPI(t *testing.T, out *bytes.Buffer, dir, stability string) {
	fset := token.NewFileSet()
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	require.NoError(t, err)
	var files []*ast.File
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(fset, name, nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		files = append(files, file)
	}
	pkg, err := doc.NewFromFiles(fset, files, filepath.ToSlash(filepath.Join("github.com/midas-go/midas", dir)))
	require.NoError(t, err)

	write := func(decl ast.Decl) {
		var text bytes.Buffer
		require.NoError(t, printer.Fprint(&text, fset, decl))
		dense := strings.ReplaceAll(text.String(), "\n\n", "\n") // blank lines are where comments were
		formatted, err := format.Source([]byte(dense))
		require.NoError(t, err)
		if slices.ContainsFunc(young, func(begins string) bool { return strings.HasPrefix(string(formatted), begins) }) {
			fmt.Fprintln(out, "// young")
		}
		fmt.Fprintf(out, "%s\n\n", formatted)
	}
	values := func(groups ...[]*doc.Value) {
		for _, group := range groups {
			for _, value := range group {
				write(value.Decl)
			}
		}
	}
	funcs := func(groups ...[]*doc.Func) {
		for _, group := range groups {
			for _, f := range group {
				write(f.Decl)
			}
		}
	}
	fmt.Fprintf(out, "package %s // import %q, %s\n\n", pkg.Name, pkg.ImportPath, stability)
	values(pkg.Consts, pkg.Vars)
	funcs(pkg.Funcs)
	for _, typ := range pkg.Types {
		write(typ.Decl)
		values(typ.Consts, typ.Vars)
		funcs(typ.Funcs, typ.Methods)
	}
}
