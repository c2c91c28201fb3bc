package main

import (
	"regexp"
	"strings"
)

// words are what the pages and the terminal say. Those named like an action are its name.
var words = map[string]map[string]string{
	"en": {
		"sandbox": "Midas sandbox", "live": "live", "lost": "connection lost", "none": "No orders yet. Place one:",
		"baseURL": "Base URL", "offerID": "Offer id", "signedFor": "Callbacks signed for", "cashier": "Cashier",
		"next": "The next order gets", "ret": "ret", "delay": "delay, ms", "html": "an HTML page", "set": "Set", "isSet": "The next order gets that answer.",
		"pay": "Pay", "twice": "Twice at once", "discount": "Pay 95 %", "repeat": "Repeat the last", "forge": "Forged", "expire": "After expiry",
		"issued": "token issued", "refused": "refused because ", "accepted": "accepted", "forgeryRefused": "refused, as a forgery should be",
		"forgeryAccepted": "A FORGERY WAS ACCEPTED: the backend does not check the signature", "cancelled": "The player left the cashier.",
		"asked": "Order request", "called": "Callback request", "params": "Parameters", "cookies": "Cookies", "baseString": "Base string of the right signature",
		"answer": "Answer", "status": "status", "of": "of 2 s", "made": "The signature received was made with this mistake:",
		"colon": ": ", "stop": ". ", "change": "To change: ", "or": "Or with this one, which makes the same signature:", "if": "It is this if %s. ", "player": "Player", "zone": "zone",
		"unknown": "No such order", "unknownHint": "The token is unknown here: place an order and open the url_params of its answer.",
		"expired": "This order has expired. Place a new one.", "method": "Pay with", "qqwallet": "QQ Wallet", "wechat": "WeChat Pay", "qdqb": "Q-coins",
		"qpoints": "Q-points", "yuan": "yuan", "payNow": "Pay", "payDiscount": "Pay with 5 % discount", "cancel": "Cancel",
		"paid": "Paid. The backend has delivered.", "notDelivered": "Paid, but not delivered: ", "left": "Cancelled. Nothing was charged.", "test": "Sandbox: no money moves",
		"noneYet":   "No orders yet. Have your backend place one at this base URL: one placed by hand would be unknown to it.",
		"tolerated": "Tolerated: ",

		// On the terminal.
		"thisMachine": "this machine only", "otherMachines": "OTHER MACHINES CAN REACH IT", "keyGiven": "as given", "builtIn": "(a built-in backend; set yours with -callback URL)",
		"welcome": `%s at %s (%s)

Settings of your backend
  base URL       %s   instead of https://ysdktest.qq.com
  signed path    %s
  offer id       %s
  pay key        %s
  delivery URL   %s, signed for %s

Place an order
  %s

Then pay on the cashier page, whose URL appears here, or on the dashboard %s/

`,
		"fromBackend":  "from your backend (one placed by hand would be unknown to it, and it would rightly answer token_not_found)",
		"playerLeft":   "the player left the cashier",
		"callbackSent": "GET %s\n\n  billno   %s\n  status   %d\n  took     %s of 2s\n  reply    %s\n\n%s\n",
		"replayRead":   "%d callbacks to send, %d lines left out\n", "replayLeft": "%d left, %d not accepted, about %s to go; Ctrl-C stops",
		"replayStopped": "stopped: %d sent, %d left; to go on, give -since %d\n", "replayDone": "%d accepted, %d not\n",
	},
	"zh": {
		"sandbox": "米大师沙箱", "live": "实时", "lost": "连接已断开", "none": "还没有订单。下一单试试：",
		"baseURL": "网关地址", "offerID": "应用 ID（offer id）", "signedFor": "回调签名路径", "cashier": "收银台",
		"next": "下一单的应答", "ret": "ret", "delay": "延迟（毫秒）", "html": "HTML 页面", "set": "设定", "isSet": "下一单将得到这个应答。",
		"pay": "支付", "twice": "同时两次", "discount": "95 折支付", "repeat": "重发上次回调", "forge": "伪造回调", "expire": "过期后支付",
		"issued": "已发放 token", "refused": "被拒绝，原因：", "accepted": "已接受", "forgeryRefused": "伪造的回调被拒绝，正确",
		"forgeryAccepted": "伪造的回调被接受了：后端没有校验签名", "cancelled": "玩家离开了收银台。",
		"asked": "下单请求", "called": "回调请求", "params": "参数", "cookies": "Cookie", "baseString": "正确签名的源串",
		"answer": "应答", "status": "状态码", "of": "/ 2 秒", "made": "收到的签名是这样算错的：",
		"colon": "：", "stop": "。", "change": "改法：", "or": "也可能是这样，算出的签名相同：", "if": "如果%s，就是这一种。", "player": "玩家", "zone": "大区",
		"unknown": "没有这个订单", "unknownHint": "这里不认识该 token：请先下单，再打开应答里的 url_params。",
		"expired": "订单已过期，请重新下单。", "method": "支付方式", "qqwallet": "QQ 钱包", "wechat": "微信支付", "qdqb": "Q 币",
		"qpoints": "Q点", "yuan": "元", "payNow": "立即支付", "payDiscount": "95 折支付", "cancel": "取消",
		"paid": "支付成功，道具已发货。", "notDelivered": "已支付，但未发货：", "left": "已取消，没有扣款。", "test": "沙箱环境，不会真实扣款",
		"noneYet":   "还没有订单。请让你的后端向这个网关地址下单：手工下的单，后端并不认识。",
		"tolerated": "不影响受理，但请注意：",

		"thisMachine": "仅限本机", "otherMachines": "其他机器可以访问", "keyGiven": "你给的那个", "builtIn": "（内置后端；用 -callback URL 换成你的）",
		"welcome": `%s：%s（%s）

后端配置
  网关地址   %s   代替 https://ysdktest.qq.com
  签名路径   %s
  offer id   %s
  支付密钥   %s
  发货 URL   %s，按路径 %s 签名

下单
  %s

然后在收银台支付（网址会显示在这里），或打开控制台 %s/

`,
		"fromBackend":  "由你的后端下单（手工下的单后端并不认识，会正确地应答 token_not_found）",
		"playerLeft":   "玩家离开了收银台",
		"callbackSent": "GET %s\n\n  流水号   %s\n  状态码   %d\n  用时     %s / 2s\n  应答     %s\n\n%s\n",
		"replayRead":   "待重放的回调 %d 个，略过 %d 行\n", "replayLeft": "剩余 %d 个，未被接受 %d 个，约需 %s；按 Ctrl-C 停止",
		"replayStopped": "已停止：发送了 %d 个，剩余 %d 个；继续请加 -since %d\n", "replayDone": "已接受 %d 个，未接受 %d 个\n",
	},
}

// A phrase is something that midastest or the sandbox says in English, and the same in
// Chinese. Each {} stands for any text; in the Chinese they come in the same sequence.
type phrase struct {
	english *regexp.Regexp
	chinese string
}

// inChinese returns a sentence in Chinese if it is one of phrases, else as it is.
func inChinese(s string) string {
	for _, p := range phrases {
		found := p.english.FindStringSubmatch(s)
		if found == nil {
			continue
		}
		chinese := p.chinese
		for _, part := range found[1:] { // a part may be a phrase itself
			before, after, _ := strings.Cut(chinese, "{}")
			// What is filled in is no place to be filled.
			chinese = before + strings.ReplaceAll(inChinese(part), "{}", "{\x00}") + after
		}
		return strings.ReplaceAll(chinese, "{\x00}", "{}")
	}
	return s
}

// translate returns a sentence in a language.
func translate(lang, s string) string {
	if lang == "zh" {
		return inChinese(s)
	}
	return s
}

// phrases are tried in their sequence.
var phrases = func() (phrases []phrase) {
	for _, p := range [][2]string{
		// Orders: midastest's refusals and notes.
		{`{}; the callback is signed for the path {}: does the backend verify for that path, with the same pay key?`, `{}；回调按路径 {} 签名：后端是否用这个路径、同一个支付密钥验签？`},
		{`parameter method: {}, want GET; the signature covers it`, `请求方法是 {}，应为 GET：签名包含请求方法`},
		{`parameter query: {}`, `查询串：{}`},
		{`parameter {}: {}`, `参数 {}：{}`},
		{`cannot be read: a ";" is not percent-encoded`, `无法解析，";" 没有百分号编码`},
		{`cannot be read: a value is not percent-encoded`, `无法解析，有的值没有百分号编码`},
		{`sent twice`, `重复出现`},
		{`missing or empty`, `缺失或为空`},
		{`{} is not this app's offer id`, `{} 不是这个应用的 offer id`},
		{`a guest's has at most 32 characters and none of {}`, `游客的 openid 最多 32 个字符，不能含 {}`},
		{`not unix seconds`, `不是 Unix 秒`},
		{`in milliseconds, want unix seconds`, `是毫秒，应为 Unix 秒`},
		{`over {} bytes`, `超过 {} 字节`},
		{`item {}: {}`, `第 {} 项：{}`},
		{`want id*price*num`, `应为 id*price*num`},
		{`the id is not plain ASCII without spaces and |`, `id 只能是 ASCII 字符，不含空格和 |`},
		{`the price is not a number of Q-points with at most one decimal, or too large`, `单价不是以 Q 点计、最多一位小数的数，或过大`},
		{`the price is 0`, `单价为 0`},
		{`the quantity is not a number from 1 to {}`, `数量不是 1 至 {} 的整数`},
		{`over 2,000,000,000 fen in all`, `总价超过 2,000,000,000 分`},
		{`not the sum of price*num in Q-points; best left out`, `不等于 price*num 之和（Q 点）；最好不传`},
		{`want name*description, one pair, at most 256 characters of UTF-8 without line breaks`, `应为“名称*描述”，只有一组，UTF-8，最多 256 个字符，不含换行`},
		{`want 1 or 2`, `应为 1 或 2`},
		{`must be 1 with several items`, `多种道具时必须为 1`},
		{`want a number above num, with appmode 2`, `应为大于 num 的数，且 appmode 为 2`},
		{`not ASCII`, `含非 ASCII 字符`},
		{`want json`, `应为 json`},
		{`want common or security`, `应为 common 或 security`},
		{`the signature does not match: wrong pay key, wrong signed path (here {}), or wrong encoding`, `签名不一致：密钥、签名路径（这里是 {}）或编码不对`},
		{`cookies session_id={} and session_type={} belong to no login`, `Cookie session_id={}、session_type={} 不属于任何登录方式`},
		{`cookie org_loc={}, want {}`, `Cookie org_loc={}，应为 {}`},
		{`cookie org_loc={}, which shipped servers send too; Tencent's page says {}`, `Cookie org_loc={}：已上线的服务器也有这样传的；腾讯文档写的是 {}`},
		{`the query holds a bare ";", taken as part of a value; whether Midas does so is not known: send %3B`, `查询串里有未编码的 ";"，按值的一部分处理；真实的米大师是否如此无从得知，请编码为 %3B`},
		{`a fault was asked for`, `这个应答是预设的`},
		{`the caller hung up during the delay that was asked for`, `在预设的延迟期间，对方断开了连接`},
		{`there is no such call: the "?" before the query is missing or escaped`, `没有这个接口：查询串前面的 "?" 缺失，或被转义了`},
		{`there is no such call: orders go to {}; {} stands in the signed path alone`, `没有这个接口：下单请求发往 {}；{} 只出现在签名路径里`},

		// Callbacks: midastest's judgement of the answer.
		{`took {}: Midas hangs up after 2s and may cancel the charge`, `用了 {}：米大师 2 秒后断开，可能取消扣费`},
		{`no answer within 2s: Midas hangs up and may cancel the charge`, `2 秒内没有应答：米大师断开连接，可能取消扣费`},
		{`no answer: {}`, `没有应答：{}`},
		{`status {}, a redirect: is the handler mounted at the registered path, trailing slash included?`, `状态码 {}，是跳转：处理函数是否挂在配置的路径上，末尾斜杠也一致？`},
		{`status 404: is the handler mounted at the registered path?`, `状态码 404：处理函数是否挂在配置的路径上？`},
		{`status {}, want 200`, `状态码 {}，应为 200`},
		{`the body is empty`, `应答为空`},
		{`the body begins with a byte order mark`, `应答以 BOM（字节顺序标记）开头`},
		{`the body is compressed with gzip: keep compression off the delivery URL`, `应答经过 gzip 压缩：发货 URL 不要开压缩`},
		{`the body ends in a newline: json.Encoder and fmt.Fprintln write one`, `应答以换行结尾：json.Encoder 和 fmt.Fprintln 会写换行`},
		{`the body holds a space, a tab or a line break`, `应答含有空格、制表符或换行`},
		{`the body is not {"ret":…,"msg":"…"}`, `应答不是 {"ret":…,"msg":"…"}`},
		{`the backend answered ret {} ({})`, `后端应答 ret {}（{}）`},
		{`msg is {}, want OK`, `msg 是 {}，应为 OK`},
		{`the body is JSON but not the bytes {"ret":0,"msg":"OK"}`, `应答是 JSON，但不是 {"ret":0,"msg":"OK"} 这些字节`},

		// The API.
		{`no callback was sent for this order yet: pay first`, `这个订单还没有回调过：请先支付`},
		{`the token expired: place a new order, or use the action expire`, `token 已过期：请重新下单，或用“过期后支付”`},
		{`token not found`, `没有这个 token`},
		{`quantity: for orders of a single item`, `quantity：只用于单种道具的订单`},
		{`say how: {}`, `请说明应答是什么：{}`},
		{`{}: want a number from {} to {}`, `{}：应为 {} 至 {} 的数`},
		{`{} answers are waiting for orders: place those first`, `已预设 {} 个应答：请先下单用掉`},
		{`called by a page of another site`, `由其他网站的页面调用`},

		// explain: why the library or Midas refuses a message whatever its signature.
		{`over 16 KiB`, `超过 16 KiB`},
		{`a name holds something other than letters, digits and _ . -`, `有的参数名含字母、数字、_ . - 以外的字符`},
		{`comes twice`, `重复出现`},
		{`v5 is the order centre's callback, signed with RSA: another protocol`, `v5 是订单中心的回调，用 RSA 签名，是另一种协议`},
		{`missing`, `缺失`},
		{`is not this client's; each app needs a Client of its own`, `不是这个 Client 的；每个应用各用一个 Client`},
		{`is not v3`, `不是 v3`},
		{`over 64 characters`, `超过 64 个字符`},
		{`not a number from 0 to {}`, `不是 0 至 {} 的整数`},
		{`is masked in this text, so the signature cannot be checked; record it with -secrets`, `在这段文本里被遮盖了，无法验签；请用 -secrets 记录`},
	} {
		pattern := strings.ReplaceAll(regexp.QuoteMeta(p[0]), `\{\}`, `(.*?)`)
		phrases = append(phrases, phrase{regexp.MustCompile(`(?s)^` + pattern + `$`), p[1]})
	}
	return phrases
}()
