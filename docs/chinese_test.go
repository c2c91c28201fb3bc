package docs_test

import (
	"io/fs"
	"regexp"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

// Words that people search for, on the pages that answer them.
var searchedWords = map[string][]string{
	"README.zh-CN.md": {"米大师支付接入", "道具直购", "YSDK", "MSDK", "应用宝", "手Q", "发货回调", "支付回调", "服务器下单", "掉单", "漏单", "丢单", "补单", "对账", "幂等",
		"发货失败", "签名错误", "sig error", "1001", "1016", "1018", "登录态", "offerid", "游戏币", "虚拟支付", "requestMidasPaymentGameItem", "requestVirtualPayment", "xpay",
		"测试向量", "本地消息表", "模拟米大师", "沙箱", "gorm"},
	"docs/support.zh-CN.md":    {"掉单", "漏单", "丢单", "补单", "补发", "发货失败", "对账", "退款"},
	"docs/moving.zh-CN.md":     {"迁移", "对账", "补单", "掉单", "重复发货", "验签"},
	"docs/ledger.zh-CN.md":     {"补单", "对账", "幂等"},
	"docs/inbox.zh-CN.md":      {"本地消息表", "掉单", "幂等"},
	"docs/pitfalls.zh-CN.md":   {"掉单", "幂等", "验签", "签名校验", "回调根本没到", "https"},
	"docs/testing.zh-CN.md":    {"模拟米大师", "发货回调", "重复回调"},
	"docs/errors.zh-CN.md":     {"请求参数错误", "你还没有接入权限", "签名错误", "登录态", "脱敏"},
	"docs/deployment.zh-CN.md": {"对账", "发货 URL", "掉单", "补单"},
	"docs/databases.zh-CN.md":  {"掉单", "对账", "主从"},
	"docs/sandbox.zh-CN.md":    {"模拟米大师", "发货回调", "幂等", "补单"},
	"docs/frameworks.zh-CN.md": {"发货回调", "掉单", "gin"},
	"CONTRIBUTING.zh-CN.md":    {"测试向量"},
	"docs/minigame.zh-CN.md":   {"小游戏", "道具直购", "虚拟支付", "发货推送"},
}

func TestPagesHoldTheWordsThatPeopleSearchFor(t *testing.T) {
	t.Parallel()
	for name, words := range searchedWords {
		text := read(t, name)
		for _, word := range words {
			if !strings.Contains(text, word) { // Contains would print the page
				t.Errorf("people search for %s, and %s answers", word, name)
			}
		}
	}
}

var avoided = regexp.MustCompile("(?m)^\\| `([^`]+)` \\| (.+) \\|$")

// CONTRIBUTING lists, in each language, what no page says, and what to write instead.
func TestNoPageUsesAWordToAvoid(t *testing.T) {
	t.Parallel()
	for ending, heading := range map[string]string{".md": "## Words to avoid\n", ".zh-CN.md": "## 不要用的词\n"} {
		_, list, found := strings.Cut(read(t, "CONTRIBUTING"+ending), heading)
		require.True(t, found)
		list, _, _ = strings.Cut(list, "\n## ")
		words := avoided.FindAllStringSubmatch(list, -1)
		require.NotEmpty(t, words)
		for _, name := range files(t, ending) {
			isChinese := strings.HasSuffix(name, ".zh-CN.md")
			if isChinese != (ending == ".zh-CN.md") || strings.HasPrefix(name, "CONTRIBUTING") || strings.HasPrefix(name, "CHANGELOG") {
				continue
			}
			prose := strings.ReplaceAll(read(t, name), "`", "")
			for _, word := range words {
				if strings.Contains(prose, " "+word[1]) || isChinese && strings.Contains(prose, word[1]) { // of English, whole words: not "recommended"
					t.Errorf("%s: %s: write %s", name, word[1], word[2])
				}
			}
		}
	}
}

// A line that ends in one Chinese character and goes on with another is shown with a gap between them.
func TestNoLineBreaksBetweenTwoHanzi(t *testing.T) {
	t.Parallel()
	hanzi := func(r rune) bool { return unicode.Is(unicode.Han, r) }
	for _, name := range files(t, ".zh-CN.md") {
		text, err := fs.ReadFile(repository, name)
		require.NoError(t, err)
		lines := strings.Split(string(text), "\n")
		for i, code := 0, false; i < len(lines)-1; i++ {
			if strings.HasPrefix(strings.TrimSpace(lines[i]), "```") {
				code = !code
			}
			last, _ := utf8.DecodeLastRuneInString(lines[i])
			next, _ := utf8.DecodeRuneInString(strings.TrimSpace(lines[i+1]))
			if !code && !strings.HasPrefix(lines[i], "    ") && hanzi(last) && hanzi(next) && !strings.HasPrefix(lines[i], "#") {
				t.Errorf("%s:%d: breaks the line between %c and %c", name, i+1, last, next)
			}
		}
	}
}
