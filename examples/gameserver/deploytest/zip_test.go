package deploytest

import (
	"archive/zip"
	"bytes"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// zipped returns files of root as a module's zip, without the modules within it.
func zipped(t *testing.T, root, prefix string, files, modules []string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, name := range files {
		if slices.ContainsFunc(modules, func(mod string) bool { return strings.HasPrefix(name, path.Dir(mod)+"/") }) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(root, name))
		require.NoError(t, err)
		file, err := w.Create(prefix + name)
		require.NoError(t, err)
		_, err = file.Write(text)
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return b.Bytes()
}
