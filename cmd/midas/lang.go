package main

import (
	"errors"
	"flag"
	"strings"
)

// language returns the language a command prints in, "en" or "zh": the one asked for with
// -lang, or else the environment's.
func language(flag string, env func(string) string) string {
	if flag != "" {
		return flag
	}
	for _, name := range []string{"LC_ALL", "LC_MESSAGES", "LANG"} { // POSIX: the first one set wins
		if locale := env(name); locale != "" {
			if strings.HasPrefix(strings.ToLower(locale), "zh") {
				return "zh"
			}
			return "en"
		}
	}
	return "en"
}

// langFlag registers -lang; the value goes to [language].
func langFlag(flags *flag.FlagSet) *string {
	lang := new(langValue)
	flags.Var(lang, "lang", "`language` of what is printed, en or zh; if not given, that of the environment (LC_ALL, LC_MESSAGES, LANG)")
	return (*string)(lang)
}

type langValue string

func (l *langValue) String() string { return string(*l) }

func (l *langValue) Set(s string) error {
	if s != "en" && s != "zh" {
		return errors.New("want en or zh")
	}
	*l = langValue(s)
	return nil
}

// help returns what -h says of a command: in Chinese if that is asked for and there is one.
func (t *terminal) help(flags *flag.FlagSet, about string) string {
	asked := ""
	if lang := flags.Lookup("lang"); lang != nil {
		asked = lang.Value.String()
	}
	chinese, found := chineseHelp[flags.Name()]
	if !found || language(asked, t.env) != "zh" {
		return about + "\nFlags:\n"
	}
	flags.VisitAll(func(f *flag.Flag) {
		if usage, found := chinese.flags[f.Name]; found {
			f.Usage = usage
		}
	})
	return chinese.about + "\n参数：\n"
}

// chineseHelp is the help of the commands in Chinese, and of their flags.
var chineseHelp = map[string]struct {
	about string
	flags map[string]string
}{
	"": {about: `midas 是腾讯米大师道具直购的开发工具。

用法：midas 命令 [参数]

  sandbox    本机上的米大师，带收银台和控制台
  explain    说明一个请求或回调的签名为什么不对
  sign       给请求或回调的参数签名
  callback   向一个地址发送一个签名的回调，并评判应答
  replay     把记录下来的回调再发一遍，并评判应答
  version    打印版本

“midas 命令 -h”查看命令的说明。退出码：0 完成、通过或被接受；1 未通过、未被接受或无法完成；2 用法错误。
`},
	"sandbox": {`用法：midas sandbox [-app-id ID -app-key KEY] [-callback http://127.0.0.1:8080/pay/notify] [参数]

在本机扮演米大师，适用于任何语言的后端：把后端的网关地址从 https://ysdktest.qq.com 改成这里。它像 YSDK 沙箱一样受理订单
（签名、Cookie、ret），在订单的 url_params 处显示收银台，玩家支付后回调你的发货 URL。
不带 -app-id 和 -app-key 时扮演演示应用；不带 -callback 时由内置的后端应答。

页面：
  /                                 控制台：订单和回调，实时显示
  /v1/…/mobile_goods_info?token_id=TOKEN   收银台：即订单的 url_params

米大师：
  GET  /mpay/buy_goods_m            下单

JSON API（请求体可省略；回调的结果里有 accepted，或 reason）：
  POST /api/orders/TOKEN/pay        {"percent":95,"times":2,"method":"wechat","quantity":3}，各字段均可省略
  POST /api/orders/TOKEN/repeat     原样重发上一次回调
  POST /api/orders/TOKEN/forge      用错误密钥签名的回调：后端必须拒绝
  POST /api/orders/TOKEN/expire     token 过期后的支付
  POST /api/orders/TOKEN/cancel     玩家离开：没有回调
  POST /api/next                    下一单的应答：{"ret":1018}、{"html":true} 或 {"status":502}，
                                    可再加，也可单独用 {"delay_ms":3000}、{"cut":true}
  GET  /api/exchanges?after=SEQ     该序号之后的订单和回调，旧的在前

结果里的 ok 表示后端做对了：接受了支付，或以大于 0 的 ret 拒绝了伪造的回调。没有启动的后端不算拒绝。

已上线的服务器怎么传，订单就怎么受理；与腾讯文档不一致的地方会注明。加 -strict 则拒绝这样的订单。

状态只在内存里：最近 3000 个订单和回调，最多 32 MiB。只监听本机回环地址，除非用 -addr 指定。
`, map[string]string{
		"app-key":      "应用的`支付密钥`，不带末尾的 \"&\"；也可用环境变量 " + keyVariable,
		"app-key-file": "从这个`文件`读取支付密钥",
		"app-id":       "扮演米大师的应用的 `offer id`；不给则为演示应用 " + demoAppID,
		"callback":     "你的后端的发货 `URL`",
		"path":         "回调签名用的`路径`，配置的 URL 与 -callback 路径不同时才需要",
		"addr":         "监听`地址`；不是回环地址时其他机器也能访问",
		"host":         "还可以用这个`主机名`访问，如 host.docker.internal；可重复",
		"record":       "把每次交互追加到这个`文件`，每行一个 JSON（权限 0600）",
		"secrets":      "显示 openkey、pfkey、pay_token 而不遮盖，记录文件里也是",
		"strict":       "org_loc 或查询串与腾讯文档不一致的订单，一律拒绝，而不只是注明",
		"lang":         "输出的`语言`，en 或 zh；不给则按环境变量（LC_ALL、LC_MESSAGES、LANG）",
	}},
	"callback": {`用法：midas callback -key KEY -url http://127.0.0.1:8080/pay/notify -token TOKEN [参数]

按米大师的方式签名，向一个地址发送一个发货回调，并说明米大师是否会认为已发货。参数之后的“名称=值”设置其他回调参数。
退出码：0 被接受，或加 -forged 时以大于 0 的 ret 被拒绝；1 不是这样；2 用法错误。
`, map[string]string{
		"key":      "`支付密钥`，不带末尾的 \"&\"；也可用环境变量 " + keyVariable,
		"key-file": "从这个`文件`读取支付密钥",
		"url":      "要回调的发货 `URL`",
		"path":     "签名用的`路径`，配置的 URL 与 -url 路径不同时才需要",
		"token":    "订单的 `token`，即你的后端保存的那个",
		"app-id":   "`offer id`，即参数 appid",
		"openid":   "玩家的 `openid`",
		"zone":     "大区，即参数 `zoneid`",
		"payitem":  "`id*price*num`，单价以 Q 点计；多种道具用 \";\" 连接",
		"amt":      "实际扣费，单位`分`（0.1 Q 点）；0 表示按道具的价格",
		"metadata": "订单的 `app_metadata`，即 appmeta 的第一部分",
		"billno":   "米大师的`流水号`：给以前的流水号就是重发那笔支付；不给则用新的",
		"forged":   "用错误的支付密钥签名：对方必须拒绝",
		"json":     "输出 JSON",
		"lang":     "输出的`语言`，en 或 zh；不给则按环境变量（LC_ALL、LC_MESSAGES、LANG）",
	}},
	"explain": {explainAboutChinese, map[string]string{
		"key":         "`支付密钥`，不带末尾的 \"&\"；再给一个 -key，就连它（另一个环境的）一起试；也可用环境变量 " + keyVariable,
		"key-file":    "从这个`文件`读取支付密钥",
		"path":        "签名用的`路径`：回调为腾讯后台配置的发货 URL 的路径；不给则取 URL 的（下单为 /v3/r/mpay/buy_goods_m）",
		"sig":         "不看消息里的签名，而是解释这个`签名`",
		"session-key": "玩家的 `session_key`（小游戏）；再给一个，就连它（旧的）一起试",
		"token":       "消息推送的 `Token`（小游戏）",
		"body":        "小游戏服务端接口或消息推送的`请求体`；@文件 表示从文件读取",
		"json":        "输出 JSON",
		"secrets":     "显示 openkey、pfkey、pay_token",
		"lang":        "输出的`语言`，en 或 zh；不给则按环境变量（LC_ALL、LC_MESSAGES、LANG）",
	}},
	"replay": {`用法：midas replay -url http://127.0.0.1:8080/pay/notify [-since 时间] [-rate N] 文件

把记录下来的回调原样、逐个再发给一个地址，并对每个应答说明米大师是否会认为已发货。文件是“midas sandbox -record”写的，
或查询串和 sig 还完整的访问日志；“-”表示标准输入。没有回调的行和伪造的回调会略过；重复出现的回调只发一次。

后端必须幂等：发过货的，再次收到时应答成功，但不再发货。

只发往本机，除非加 -live：应答太晚的回调，扣费可能已被取消，重放却会照样发货。请先与账单核对。

按 Ctrl-C：进行中的回调发完后停止，并说明剩余多少、怎样继续。
退出码：0 全部被接受；1 不是这样；2 用法错误。
`, map[string]string{
		"url":   "要回调的发货 `URL`",
		"since": "略过 ts 早于这个`时间`的回调：\"2026-11-25 10:00:00\"（本地时间）、\"2026-11-25\"、\"2026-11-25T10:00:00+08:00\"、Unix 秒，或从现在往回数的时长，如 2h",
		"rate":  "每秒最多发送的个数 `N`",
		"live":  "允许发往其他机器",
		"lang":  "输出的`语言`，en 或 zh；不给则按环境变量（LC_ALL、LC_MESSAGES、LANG）",
	}},
}
