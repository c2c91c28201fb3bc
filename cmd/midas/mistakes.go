package main

import (
	"cmp"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A mistake is something that implementations get wrong (protocol.md 8).
type mistake struct {
	Name string `json:"name"`         // stable, for programs
	What string `json:"what"`         // how the signature was made
	Cure string `json:"cure"`         // what to change
	If   string `json:"if,omitempty"` // what tells it from another that makes the same signature

	apply func(*recipe)       // makes it, of those in making a signature
	reads func(string) string // undoes it, of those in writing one down
	rare  bool                // not tried together with another rare one
	with  *encoder            // what was used instead of the right encoding
}

const (
	ysdkPrefix = "/v3/r"
	orderPath  = "/mpay/buy_goods_m"
)

// calls are those of protocol.md 3 and 7.
var calls = []string{"buy_goods_m", "get_balance_m", "pay_m", "cancel_pay_m", "present_m", "subscribe_m"}

// newSearch lists what can be wrong with the signature of m, in words of a language. own says
// that the signature was computed by the one who asks, so that nothing was added to the
// message after it was signed.
//
// The sequence matters twice: of two explanations the first is shown first, and of two
// mistakes together the first is made first. So what replaces a part comes before what
// changes it.
func newSearch(lang string, m *message, right recipe, otherKeys []string, own bool) *search {
	say := sayIn(lang)
	s := &search{expected: requestNames.has}
	if m.callback {
		s.expected = func(name string) bool { return callbackNames.has(name) || decoy.MatchString(name) }
	}
	add := func(name, what, cure string, apply func(*recipe)) *mistake {
		s.mistakes = append(s.mistakes, mistake{Name: name, What: what, Cure: cure, apply: apply})
		return &s.mistakes[len(s.mistakes)-1]
	}
	// in names a place in a message.
	in := func(en, zh, arg string) string { return fmt.Sprintf(say(en, zh), quote(arg)) }

	// The key. Another key comes first, so that a second mistake can be made with it.
	for i, key := range otherKeys {
		add("other-key", fmt.Sprintf(say("it is signed with pay key number %d of those given", "签名用的是给出的第 %d 个支付密钥"), i+2),
			say("sandbox and live have a pay key each: use the key of the environment that the message belongs to", "沙箱和现网各有一个支付密钥：消息属于哪个环境，就用哪个环境的密钥"),
			func(r *recipe) { r.key = key + "&" })
	}
	oneAmpersand := say(`configure the pay key without an "&", and append exactly one when signing`, `支付密钥本身不带 "&"，签名时在后面加且只加一个`)
	trim := say("trim the pay key after reading it from its file or variable: no blank, no line end, no byte order mark", "从文件或环境变量读出支付密钥后去掉首尾的空白、换行和 BOM")
	add("key-with-bom", say("the pay key begins with a byte order mark", "支付密钥开头带着 BOM（字节顺序标记）"), trim,
		func(r *recipe) { r.key = "\ufeff" + r.key })
	add("key-without-ampersand", say(`the "&" after the pay key is missing`, `支付密钥后面漏了 "&"`),
		say(`the key of the HMAC is the pay key and one "&": append it`, `HMAC 的密钥是支付密钥加一个 "&"：请补上`),
		func(r *recipe) { r.key = strings.TrimSuffix(r.key, "&") })
	add("key-with-two-ampersands", say(`there are two "&" after the pay key`, `支付密钥后面有两个 "&"`), oneAmpersand, func(r *recipe) { r.key += "&" })
	for _, blank := range []string{"\n", "\r\n", " "} {
		add("key-with-blank", fmt.Sprintf(say(`the pay key ends in %q, before the "&"`, `支付密钥末尾、"&" 之前带着 %q`), blank), trim,
			func(r *recipe) { r.key = strings.TrimSuffix(r.key, "&") + blank + "&" })
		add("key-with-blank", fmt.Sprintf(say(`the pay key is followed by "&" and %q`, `支付密钥后面是 "&" 和 %q`), blank), trim, func(r *recipe) { r.key += blank })
		add("key-with-blank", fmt.Sprintf(say(`the pay key ends in "&" and %q, and another "&" was appended`, `支付密钥末尾是 "&" 和 %q，又加了一个 "&"`), blank), trim+"; "+oneAmpersand,
			func(r *recipe) { r.key += blank + "&" })
	}
	add("key-mapped", say("the pay key's - and _ were turned into + and /, as Tencent's PHP SDK does", "支付密钥里的 - 和 _ 被换成了 + 和 /，腾讯的 PHP SDK 就这样做"),
		say("use the pay key as it is", "支付密钥原样使用"), func(r *recipe) { r.key = strings.NewReplacer("-", "+", "_", "/").Replace(r.key) })

	// The hash.
	hmac := say(`the signature is HMAC-SHA1: the key (pay key and "&") goes into the HMAC, not into the text`, `签名是 HMAC-SHA1：密钥（支付密钥加 "&"）是 HMAC 的密钥，不拼进文本`)
	for _, hash := range []struct {
		name, what string
		digest     digest
	}{
		{"sha1-of-key-and-text", say("it is the plain SHA-1 of the key and the base string", "签名是“密钥 + 源串”的普通 SHA-1"), sha1KeyFirst},
		{"sha1-of-key-and-text", say("it is the plain SHA-1 of the base string and the key", "签名是“源串 + 密钥”的普通 SHA-1"), sha1KeyLast},
		{"hmac-sha256", say("it is an HMAC-SHA256", "签名是 HMAC-SHA256"), hmacSHA256},
		{"hmac-md5", say("it is an HMAC-MD5", "签名是 HMAC-MD5"), hmacMD5},
	} {
		add(hash.name, hash.what, hmac, func(r *recipe) { r.digest = hash.digest })
	}

	// How the query is read.
	reread := func(decode func(string) string) func(*recipe) {
		params := m.signed(m.params(decode))
		return func(r *recipe) { r.params = params }
	}
	add("plus-not-encoded", say(`a bare "+" in the query stands for "+", but is read as a space`, `查询串里未编码的 "+" 本意是加号，却被读成空格`),
		say(`percent-encode every value in the URL: "+" is %2B`, `URL 里每个值都要百分号编码："+" 是 %2B`), reread(literalPlus)).If = say("the sender does not encode the plus sign in the URL", "发送方没有在 URL 里编码加号")
	if m.callback { // for the sender of a request it is values-pre-encoded
		add("values-not-decoded", say("the values are signed as they stand in the URL, still percent-encoded", "参与签名的是 URL 里的原样，没有解码"),
			say("decode every value once before signing", "签名前每个值解码一次"), reread(func(s string) string { return s })).If =
			say("the code cuts the query up by itself", "代码自己切分查询串")
	}
	parsed, _ := url.ParseQuery(m.query) // the error is what the mistake ignores
	var standard []param
	for name, values := range parsed {
		standard = append(standard, param{name, values[0]})
	}
	standard = m.signed(standard)
	add("standard-parser", say(`a standard query parser left out the pairs with a ";" or a stray "%"`, `标准库的查询串解析丢掉了含 ";" 或孤立 "%" 的参数`),
		say(`split the raw query on "&" alone; a "%" that starts no escape is itself`, `原始查询串只按 "&" 切分；不构成转义的 "%" 就是它自己`),
		func(r *recipe) { r.params = standard }).If = say("the query goes through url.ParseQuery, r.URL.Query() or the like", "查询串经过 url.ParseQuery、r.URL.Query() 之类")
	twice := m.signed(m.params(func(s string) string { return once(once(s)) }))
	if !slices.Equal(twice, right.params) {
		add("url-encoded-twice", say("the values stand percent-encoded twice in the URL", "URL 里的值被编码了两次"),
			say("encode every value once when the URL is made; an HTTP library that encodes wants raw values", "拼 URL 时每个值只编码一次；会自动编码的 HTTP 库要的是原始值"),
			func(r *recipe) { r.params, r.sig = twice, literalPlus(r.sig) })
	}

	// The path.
	path := func(name, what, cure, wrong string) *mistake {
		if wrong == right.path {
			return &mistake{}
		}
		return add(name, what+": "+quote(wrong), cure, func(r *recipe) { r.path = wrong })
	}
	pathCure := say("YSDK signs /v3/r/mpay/…, the older gateways (MSDK) sign /mpay/…, whatever the path of the URL", "YSDK 的签名路径是 /v3/r/mpay/…，老网关（MSDK）是 /mpay/…，与 URL 的路径无关")
	if m.callback {
		pathCure = say("sign for the path of the delivery URL as registered at Tencent, byte for byte", "用腾讯后台配置的发货 URL 的路径签名，一个字节都不差")
		if !own {
			pathCure += say("; if Midas itself sent this callback, the path named here is the registered one: configure that", "；如果这个回调确是米大师发来的，这里指出的就是后台配置的路径，请照此配置")
		}
		path("order-path", say("it is signed for the path of the order, not of the delivery URL", "签名用了下单的路径，而不是发货 URL 的路径"),
			say("sign for the path of the delivery URL as registered at Tencent", "用腾讯后台配置的发货 URL 的路径签名"), ysdkPrefix+orderPath)
		path("order-path-msdk", say("it is signed for the path of the older gateways' order, not of the delivery URL", "签名用了老网关下单的路径，而不是发货 URL 的路径"),
			say("sign for the path of the delivery URL as registered at Tencent", "用腾讯后台配置的发货 URL 的路径签名"), orderPath)
		if m.path != "" {
			path("url-path", say("it is signed for the path in the URL, not for that of -path", "签名用了 URL 里的路径，而不是 -path 给的路径"), pathCure, m.path).If =
				say("the path is taken from the request as it arrived", "代码从收到的请求里取路径")
		}
		for rest, cut := right.path, 0; cut < 16 && strings.Count(rest, "/") > 1; cut++ {
			rest = rest[1+strings.IndexByte(rest[1:], '/'):]
			path("prefix-stripped", say("it is signed for a path whose beginning is missing, as a backend behind a rewriting proxy sees it", "签名路径少了开头一段，改写路径的代理后面看到的就是这样"), pathCure, rest).If =
				say("a proxy before the backend strips the beginning of the path", "后端前面的代理去掉了路径的开头")
		}
	} else {
		if rest, ok := strings.CutPrefix(right.path, ysdkPrefix); ok {
			path("msdk-path", say("it is signed for the path of the older gateways (MSDK)", "签名用了老网关（MSDK）的路径"), pathCure+say(": on YSDK add /v3/r", "：YSDK 要加上 /v3/r"), rest).If =
				say("the code was written for MSDK", "代码是按 MSDK 写的")
		} else {
			path("ysdk-path", say("it is signed for the path of YSDK", "签名用了 YSDK 的路径"), pathCure+say(": on MSDK leave /v3/r out", "：MSDK 不带 /v3/r"), ysdkPrefix+right.path).If =
				say("the code was written for YSDK", "代码是按 YSDK 写的")
		}
		if m.path != "" {
			path("url-path", say("it is signed for the path of the URL", "签名用了 URL 的路径"), pathCure, m.path).If = say("the path is taken from the URL", "代码从 URL 里取路径")
		}
	}
	for _, call := range calls {
		if strings.HasSuffix(right.path, "/mpay/"+call) || m.callback && call == "buy_goods_m" {
			continue
		}
		for _, prefix := range []string{ysdkPrefix, ""} {
			cure := pathCure
			if m.callback {
				cure = say("sign for the path of the delivery URL as registered at Tencent", "用腾讯后台配置的发货 URL 的路径签名")
			}
			path("other-call", say("it is signed for the path of another call", "签名用了另一个接口的路径"), cure+say("; each call has its own path", "；每个接口有自己的路径"), prefix+"/mpay/"+call)
		}
	}
	for _, site := range []string{m.site, "https://ysdk.qq.com", "https://ysdktest.qq.com"} {
		if site != "" {
			path("whole-url", say("it is signed for the whole URL", "签名用了整个 URL"), say("sign the path alone, without scheme and host", "只签路径，不带协议和主机"), site+cmp.Or(m.path, right.path))
		}
	}
	ending := func(path string) string {
		if trimmed := strings.TrimRight(path, "/"); trimmed != path {
			return trimmed
		}
		return path + "/"
	}
	slash := say("the path has a trailing slash more", "签名路径末尾多了一个斜杠")
	if ending(right.path) < right.path {
		slash = say("the path's trailing slash is missing", "签名路径末尾少了斜杠")
	}
	add("trailing-slash", slash+": "+quote(ending(right.path)), pathCure+say("; its trailing slash counts", "；末尾的斜杠也算"), func(r *recipe) { r.path = ending(r.path) })
	for _, query := range []string{m.query, strings.Join(slices.DeleteFunc(strings.Split(m.query, "&"), func(pair string) bool { return strings.HasPrefix(pair, "sig=") }), "&")} {
		add("path-with-query", say("it is signed for the path with its query, as in REQUEST_URI", "签名路径带上了查询串，REQUEST_URI 就是这样"), say("sign the path alone, up to the \"?\"", "只签 \"?\" 之前的路径"),
			func(r *recipe) { r.path += "?" + query })
	}
	for _, change := range []func(string) string{strings.ToLower, strings.ToUpper, capitalised} {
		if changed := change(right.path); changed != right.path {
			add("path-in-other-case", say("it is signed for the path in other case", "签名路径的大小写不同")+": "+quote(changed), pathCure+say("; its case counts", "；区分大小写"), func(r *recipe) { r.path = change(r.path) })
		}
	}
	add("path-without-slash", say("the path is signed without its leading slash", "签名路径少了开头的斜杠"), say("the path begins with \"/\"", "路径以 \"/\" 开头"), func(r *recipe) { r.path = strings.TrimPrefix(r.path, "/") })

	// The method.
	get := say("the method is part of the signature: sign with the one that is used, in capitals; buy_goods_m and callbacks use GET", "请求方法参与签名：用实际的方法，大写；buy_goods_m 和回调都是 GET")
	for _, method := range []string{"GET", "POST"} {
		if method != right.method {
			add("method-"+strings.ToLower(method), say("it is signed with the method ", "签名用的方法是 ")+method, get, func(r *recipe) { r.method = method })
		}
	}
	add("method-lower-case", say("it is signed with the method in small letters", "签名用的方法是小写"), get, func(r *recipe) { r.method = strings.ToLower(r.method) })

	// Which parameters are signed.
	signAll := say("sign every parameter that is sent, but for sig", "除 sig 外，发出的每个参数都要签名")
	byOwnCode := say("your own code made the signature, in a test or to compare", "签名是你自己的代码算的（测试或对比）")
	s.unsigned = func(names ...string) []mistake {
		list := strings.Join(quoted(names), ", ")
		added := mistake{
			Name: "added-on-the-way", If: say("Midas sent this callback: it signs all that it sends", "这个回调确是米大师发来的：它发出的参数全都签名"),
			What: fmt.Sprintf(say("the parameter %s was added on the way, by a gateway, a framework or a channel's SDK", "参数 %s 是半路加上的（网关、框架或渠道 SDK）"), list),
			Cure: say("take it out before verifying", "验签之前把它去掉"),
		}
		left := mistake{Name: "left-out", What: fmt.Sprintf(say("the parameter %s is left out", "漏签了参数 %s"), list), Cure: signAll, If: byOwnCode}
		if len(names) > 1 {
			added.What = fmt.Sprintf(say("the parameters %s were added on the way, by a gateway, a framework or a channel's SDK", "参数 %s 是半路加上的（网关、框架或渠道 SDK）"), list)
			added.Cure = say("take them out before verifying", "验签之前把它们去掉")
			left.What = fmt.Sprintf(say("the parameters %s are left out", "漏签了参数 %s"), list)
		}
		switch {
		case own:
			return []mistake{left}
		case !m.callback:
			left.Cure = say("sign every parameter that is sent, but for sig; what a library adds after signing must not be sent", "除 sig 外，发出的每个参数都要签名；签名之后由库加上的参数不要发出去")
			return []mistake{left}
		case slices.ContainsFunc(names, decoy.MatchString): // nobody but Midas adds that
			return []mistake{left}
		case slices.ContainsFunc(names, s.expected):
			return []mistake{left, added}
		}
		return []mistake{added, left}
	}
	removing := func(names []string) func(*recipe) {
		return func(r *recipe) { r.without(func(p param) bool { return slices.Contains(names, p.Name) }) }
	}
	// Nobody sends more than 64 parameters; the search has to end.
	var strange, single []mistake
	var strangers []string
	for _, p := range right.params[:min(len(right.params), 64)] {
		for i, mistake := range s.unsigned(p.Name) {
			mistake.apply = removing([]string{p.Name})
			if mistake.Name == "added-on-the-way" && i == 0 {
				strange, strangers = append(strange, mistake), append(strangers, p.Name)
			} else {
				single = append(single, mistake)
			}
		}
	}
	s.mistakes = append(s.mistakes, strange...)
	if len(strangers) > 1 {
		all := s.unsigned(strangers...)[0]
		all.apply = removing(strangers)
		s.mistakes = append(s.mistakes, all)
	}
	add("empty-dropped", say("parameters with an empty value are left out", "空值参数没有参与签名"), say("sign empty values too if they are sent: name=", "发出的空值也要签名：name="),
		func(r *recipe) { r.without(func(p param) bool { return p.Value == "" }) }).If = say("your own code skips empty values", "你自己的代码跳过空值")
	fixed := []nameSet{callbackNames.and(requestNames)}
	if m.callback {
		fixed = append(fixed, callbackNames, oldCallbackNames, oldCallbackNames.and(nameSet{"appmeta": true, "clientver": true}))
	} else {
		fixed = append(fixed, requestNames, oldRequestNames)
	}
	for i, list := range fixed {
		what := say("only the documented parameters are signed", "只签了文档里的参数")
		if i > 1 {
			what = say("only the parameters of an old page of the documentation are signed", "只签了旧文档里的参数")
		}
		add("fixed-names", what, say("sign every parameter received, unknown ones too: some change from call to call", "收到的每个参数都要签名，不认识的也签：有些参数每次不同"),
			func(r *recipe) { r.without(func(p param) bool { return !list.has(p.Name) }) }).If = say("your own code has a fixed list of parameters", "你自己的代码里写死了参数列表")
		var dropped []string
		for _, p := range right.params {
			if !list.has(p.Name) {
				dropped = append(dropped, p.Name)
			}
		}
		if 1 < len(dropped) && len(dropped) < 10 {
			for _, mistake := range s.unsigned(dropped...) {
				mistake.apply = removing(dropped)
				s.mistakes = append(s.mistakes, mistake)
			}
		}
	}
	s.mistakes = append(s.mistakes, single...)
	if own {
		add("sig-signed", say("sig itself is among the signed parameters", "sig 自己也参与了签名"), say("take sig out before signing", "签名前先去掉 sig"), func(r *recipe) {
			r.params = sorted(append(slices.Clone(r.params), param{"sig", value(m.params(once), "sig")}))
		})
	}
	position := map[string]int{}
	for i, p := range m.params(once) {
		position[p.Name] = i
	}
	byteOrder := say("sort the parameters by name, in byte order", "参数按名字的字节序排序")
	for _, order := range []struct {
		name, what string
		compare    func(a, b param) int
	}{
		{"not-sorted", say("the parameters are in the order of the URL", "参数按 URL 里的顺序拼接，没有排序"), func(a, b param) int { return cmp.Compare(position[a.Name], position[b.Name]) }},
		{"sorted-without-case", say("the parameters are sorted as if capitals were small letters", "参数排序时没有区分大小写"), func(a, b param) int { return cmp.Compare(strings.ToLower(a.Name), strings.ToLower(b.Name)) }},
		{"sorted-as-numbers", say("names that are numbers are sorted as numbers, as PHP's ksort does", "数字名字按数值排序，PHP 的 ksort 就这样做"), byNumber},
	} {
		add(order.name, order.what, byteOrder, func(r *recipe) {
			r.params = slices.Clone(r.params)
			slices.SortStableFunc(r.params, order.compare)
		})
	}

	// What is signed and not sent.
	with := func(extra param) func(*recipe) {
		return func(r *recipe) { r.params = sorted(append(slices.Clone(r.params), extra)) }
	}
	rarely := func(name, what, cure string, apply func(*recipe)) { add(name, what, cure, apply).rare = true }
	for _, name := range []string{"appkey", "app_key", "appKey", "key", "secret"} {
		cure := say("the pay key is the key of the HMAC, and no parameter", "支付密钥是 HMAC 的密钥，不是参数")
		keyParam := fmt.Sprintf(say("the pay key is among the parameters, as %s", "支付密钥被当作参数 %s 参与签名"), name)
		bare := func(key string) string { return strings.Trim(key, "& \r\n\ufeff") }
		rarely("key-among-parameters", keyParam, cure, func(r *recipe) { with(param{name, bare(r.key)})(r) })
		rarely("key-among-parameters", keyParam+say(", at their end", "（拼在末尾）"), cure, func(r *recipe) { r.tail += "&" + name + "=" + bare(r.key) })
	}
	documented := requestNames
	if m.callback {
		documented = callbackNames
	}
	nothings := []string{"", "null", "undefined", "None", "nil"}
	sent := sorted(m.params(once))
	for _, name := range documented.sorted() {
		if slices.ContainsFunc(sent, func(p param) bool { return p.Name == name }) {
			continue
		}
		for _, text := range nothings {
			rarely("signed-not-sent", in("%s is signed, and not sent", "%s 参与了签名，却没有发出", name+"="+text), say("sign exactly what is sent: what has no value is neither signed nor sent", "签的就是发的：没有值的参数既不签名也不发送"), with(param{name, text}))
		}
	}
	for _, text := range nothings[1:] {
		rarely("word-for-nothing", in("%s is signed where the value sent is empty", "发出的是空值，签名时却写成 %s", text), say("an empty value is signed as it is sent: name=", "空值怎么发就怎么签：name="), func(r *recipe) {
			r.reword(func(value string) string { return cmp.Or(value, text) })
		})
	}
	noEnd := say(`join with "&" between the parameters alone`, `"&" 只用在参数之间`)
	add("trailing-ampersand", say(`the joined parameters end in "&"`, `拼接好的参数末尾多了 "&"`), noEnd, func(r *recipe) { r.tail += "&" })
	add("trailing-ampersand", say(`the base string ends in "&"`, `源串末尾多了 "&"`), noEnd, func(r *recipe) { r.baseEnd += "&" })

	// The characters of the values.
	utf8Cure := say("the values are UTF-8 throughout: in the URL and in what is signed", "值始终用 UTF-8：URL 里是，参与签名的也是")
	for _, charset := range []struct {
		name, what string
		change     func(string) string
	}{
		{"gbk", say("the values are signed in GBK, and sent in UTF-8", "签名时值用的是 GBK，发出的是 UTF-8"), toGBK},
		{"gbk", say("the values are sent in GBK, and signed in UTF-8", "发出的值是 GBK，签名时用的是 UTF-8"), fromGBK},
		{"mojibake", say("UTF-8 was read as Latin-1, and each byte became a character of its own", "UTF-8 被当作 Latin-1 读入，每个字节成了一个字符（乱码）"), mojibake},
		{"question-marks", say(`what Latin-1 does not have became "?"`, `Latin-1 里没有的字符变成了 "?"`), questionMarks},
	} {
		add(charset.name, charset.what, utf8Cure, func(r *recipe) { r.reword(charset.change) })
	}

	s.addEncodings(m, say, add)
	for _, way := range []struct {
		name, what, cure string
		reads            func(string) string
	}{
		{"sig-not-decoded", say("the sig is still percent-encoded after it was decoded once", "sig 解码一次之后仍是编码过的"), say("encode the sig once in the URL, and decode it once: here it was encoded twice or not decoded", "sig 在 URL 里只编码一次，也只解码一次：这里编码了两次，或没有解码"), literalPlus},
		{"sig-decoded-twice", say(`the sig holds a space where base64 has "+": it was decoded twice, or not encoded in the URL`, `sig 里本该是 "+" 的地方成了空格：解码了两次，或没有在 URL 里编码`), say(`encode the sig once in the URL ("+" is %2B), and decode it once`, `sig 在 URL 里编码一次（"+" 是 %2B），解码一次`), func(sig string) string { return strings.ReplaceAll(sig, " ", "+") }},
		{"sig-line-end", say("the sig holds a line end, which some base64 functions write", "sig 里有换行，有些 base64 函数会写换行"), say("take a base64 function that writes no line ends (in Python b64encode, not encodestring), or trim its result", "换用不写换行的 base64 函数（Python 用 b64encode，不用 encodestring），或去掉换行"), func(sig string) string { return strings.NewReplacer("\r", "", "\n", "").Replace(sig) }},
		{"sig-base64url", say("the sig is in the URL-safe base64 alphabet", "sig 用了 URL 安全的 base64 字母表"), say("use the standard base64 alphabet, with + and / and padding", "用标准 base64：含 + 和 /，带填充"), func(sig string) string { return strings.NewReplacer("-", "+", "_", "/").Replace(sig) }},
		{"sig-without-padding", say(`the sig lacks its "=" at the end`, `sig 末尾少了 "="`), say(`use base64 with padding: a sig ends in "="; in the URL it is %3D`, `用带填充的 base64：sig 以 "=" 结尾，在 URL 里是 %3D`), padded},
		{"sig-in-hex", say("the sig is in hex", "sig 是十六进制"), say("encode the 20 bytes of the HMAC in base64, not their hex digits", "用 base64 编码 HMAC 的 20 个字节，不要用十六进制"), fromHex},
		{"sig-base64-of-hex", say("the sig is the base64 of hex digits", "sig 是十六进制串的 base64"), say("encode the 20 bytes of the HMAC in base64, not their hex digits", "用 base64 编码 HMAC 的 20 个字节，而不是它们的十六进制串"), fromBase64Hex},
		{"sig-not-base64", say("the sig is the bytes of the HMAC, not in base64", "sig 是 HMAC 的原始字节，没有 base64 编码"), say("encode the 20 bytes of the HMAC in base64, then percent-encode that in the URL", "HMAC 的 20 个字节先做 base64，再在 URL 里百分号编码"), fromBytes},
	} {
		s.written = append(s.written, mistake{Name: way.name, What: way.what, Cure: way.cure, reads: way.reads})
	}
	return s
}

// capitalised returns a path with each part's first letter in capitals.
func capitalised(path string) string {
	parts := strings.Split(path, "/")
	for i, part := range parts {
		if part != "" {
			parts[i] = strings.ToUpper(part[:1]) + part[1:]
		}
	}
	return strings.Join(parts, "/")
}

// byNumber compares names that are numbers by their value, others by their bytes.
func byNumber(a, b param) int {
	m, errA := strconv.ParseInt(a.Name, 10, 64)
	n, errB := strconv.ParseInt(b.Name, 10, 64)
	if errA == nil && errB == nil {
		return cmp.Compare(m, n)
	}
	return cmp.Compare(a.Name, b.Name)
}

func quoted(names []string) []string {
	quoted := make([]string, len(names))
	for i, name := range names {
		quoted[i] = quote(name)
	}
	return quoted
}

// A nameSet is a set of parameter names.
type nameSet map[string]bool

func (n nameSet) has(name string) bool { return n[name] }

func (n nameSet) sorted() []string { return slices.Sorted(maps.Keys(n)) }

func (n nameSet) and(others nameSet) nameSet {
	both := maps.Clone(n)
	maps.Copy(both, others)
	return both
}

// listed returns names that are separated by blanks.
func listed(text string) nameSet {
	n := nameSet{}
	for name := range strings.FieldsSeq(text) {
		n[name] = true
	}
	return n
}

// The parameters but for sig, as protocol.md 3 and 5 list them, and as pages of before did.
var (
	requestNames     = listed("openid openkey pay_token appid ts pf pfkey zoneid payitem goodsmeta goodsurl amt appmode max_num app_metadata userip format accounttype")
	oldRequestNames  = listed("openid openkey pay_token appid ts pf pfkey zoneid payitem goodsmeta goodsurl")
	callbackNames    = listed("openid appid zoneid token billno payitem amt payamt_coins pubacct_payamt_coins appmeta ts providetype version clientver channel_id paychannel paychannelsubid cftid discountid giftcoins")
	oldCallbackNames = listed("openid appid zoneid token billno payitem amt payamt_coins pubacct_payamt_coins ts providetype version")
)

// Midas sends a parameter whose first letter changes (protocol.md 5, delivery callback).
var decoy = regexp.MustCompile(`^[a-z]bazinga$`)
