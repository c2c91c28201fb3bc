package midas_test

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Words that a Chinese engineer would not write, and what to write instead; from a reading
// of the first edition.
var stiffWords = map[string]string{
	"登记":              "配置",
	"假米大师":            "模拟米大师",
	"已知答案":            "测试向量",
	"网络上传了什么":         "实际收发的报文",
	"从这里到第一笔收入":       "接入步骤",
	"商店一停就忘了":         "示例不落库，重启后发货记录全部丢失",
	"让它写一条任务":         "在事务内写入发货任务表（本地消息表），由 worker 异步发放",
	"既要当它只来一次":        "既要防掉单，也要防重复回调",
	"从 http 或末尾斜杠的跳转": "http→https 跳转、补斜杠跳转",
	"像钱一样备份":          "属于资金凭证，按账务数据标准备份",
	"循环的最后一对":         "迭代返回的最后一个元素（带 err）",
	"最清楚情况的地方计数":      "在能拿到明确结果的位置埋点",
	"发货URL":           "发货 URL，与命令的输出一致",
	"APP下单":           "APP 下单",
	"腾讯控制台":           "腾讯后台：控制台是沙箱的页面",
}

// Words that people search for, on the pages that answer them.
var searchedWords = map[string][]string{
	"README.zh-CN.md":          {"道具直购", "发货回调", "掉单", "补单", "对账", "幂等", "测试向量", "本地消息表", "模拟米大师", "沙箱"},
	"docs/support.zh-CN.md":    {"掉单", "补单", "对账", "退款"},
	"docs/ledger.zh-CN.md":     {"补单", "对账", "幂等"},
	"docs/inbox.zh-CN.md":      {"本地消息表", "掉单", "幂等"},
	"docs/pitfalls.zh-CN.md":   {"掉单", "幂等", "验签"},
	"docs/testing.zh-CN.md":    {"模拟米大师", "发货回调", "重复回调"},
	"docs/errors.zh-CN.md":     {"请求参数错误", "你还没有接入权限"},
	"docs/deployment.zh-CN.md": {"对账", "发货 URL", "掉单", "补单"},
	"docs/databases.zh-CN.md":  {"掉单", "对账", "主从"},
	"docs/sandbox.zh-CN.md":    {"模拟米大师", "发货回调", "幂等", "补单"},
	"docs/frameworks.zh-CN.md": {"发货回调", "掉单", "gin"},
	"CONTRIBUTING.zh-CN.md":    {"测试向量"},
	"docs/minigame.zh-CN.md":   {"小游戏", "道具直购", "虚拟支付", "发货推送"},
}

func TestChinesePagesUseAnEngineersWords(t *testing.T) {
	t.Parallel()
	for _, name := range files(t, ".zh-CN.md") {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(name)
			require.NoError(t, err)
			prose := strings.ReplaceAll(string(text), "`", "")
			for stiff, better := range stiffWords {
				if strings.Contains(prose, stiff) { // NotContains would print the page
					t.Errorf("%s: write %s", stiff, better)
				}
			}
			for _, word := range searchedWords[name] {
				if !strings.Contains(string(text), word) {
					t.Errorf("people search for %s, and this page answers", word)
				}
			}
		})
	}
	for name := range searchedWords {
		_, err := os.Stat(name)
		require.NoError(t, err)
	}
}

// The README is read in one sitting.
func TestTheREADMEIsShort(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"README.md", "README.zh-CN.md"} {
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		require.LessOrEqual(t, strings.Count(string(text), "\n"), 250, name)
	}
}
