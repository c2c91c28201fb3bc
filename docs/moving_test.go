package docs_test

import (
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
)

// The page quotes what "midas tap -shadow" prints.
func TestMovingQuotesTheTap(t *testing.T) {
	t.Parallel()
	for lang, page := range map[string]string{"en": "docs/moving.md", "zh": "docs/moving.zh-CN.md"} {
		text := read(t, page)
		said := regexp.MustCompile(`(?m)^tap\.(?:refused|took|verified|not-verified) = ([^:：\n]+)`).FindAllStringSubmatch(read(t, "cmd/midas/internal/lang/"+lang+".txt"), -1)
		require.Len(t, said, 4)
		for _, sentence := range said {
			require.Contains(t, text, "`"+sentence[1]+"`", page)
		}
	}
}
