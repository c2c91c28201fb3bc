package minigame_test

import (
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/midas-go/midas/minigame"
	"github.com/stretchr/testify/require"
)

// Every error code has its line in both languages, under the heading of its product.
func TestEveryErrorCodeIsDocumented(t *testing.T) {
	t.Parallel()
	game := []int64{-1, -2, 1, 7, -6, -15001, -15002, -15003, -15004, -15005, -15006, -15007, -15009, -15010, -15011, -15012, -15013, -15014, -15015,
		-15016, -15017, 2, 3, 4, 5, 6, 1000, 1001, 1003, 3017, 701001}
	program := []int64{-1, -2, -4, -5, 1001, -15001, -15002, -15003, -15004, -15005, -15006, -15007, -15008, -15009, -15010, -15011, -15012, -15013,
		-15014, -15016, -15017, -15018, -15019, -15020, -15021}
	code := regexp.MustCompile(`-?\d+`)
	for _, name := range []string{"../docs/minigame-errors.md", "../docs/minigame-errors.zh-CN.md"} {
		page, err := os.ReadFile(name)
		require.NoError(t, err)
		for number, want := range map[string][]int64{"3.2": game, "4.2": program, "2.4": minigame.MeaningCodes()} {
			_, section, found := strings.Cut(string(page), "\n## "+number+" ")
			require.True(t, found, number)
			section, _, _ = strings.Cut(section, "\n## ")
			documented := map[int64]bool{}
			for line := range strings.Lines(section) {
				cells := strings.Split(line, "|")
				if len(cells) < 2 {
					continue
				}
				for _, text := range code.FindAllString(cells[1], -1) {
					n, err := strconv.ParseInt(text, 10, 64)
					require.NoError(t, err)
					documented[n] = true
				}
			}
			for _, n := range want {
				require.True(t, documented[n], "%s, section %q: %d", name, number, n)
				delete(documented, n)
			}
			require.Empty(t, documented, "%s: codes that nobody knows", name)
		}
	}
}
