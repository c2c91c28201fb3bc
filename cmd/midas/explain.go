package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/midas-go/midas"
)

const explainAbout = `Usage: midas explain -key KEY [-path /registered/path] URL-or-query

Says whether the signature of a delivery callback or of a request to Midas is right, and if it
is not, which of the known mistakes made it and what to change. It prints the parameters and
the base string at both stages, to be compared with your own.

The input is a URL, a raw query, or a line of an access log; "-" reads it from standard input:

  grep billno= access.log | tail -1 | midas explain -key-file pay.key -path /pay/notify -

A request is told from a callback by its parameters. With -sig it is your own signature of this
message that is explained, as your code computed it.

Mini games and mini programs: the input is the JSON with signData, paySig and signature, the URL
of a server call or of a push (its body with -body), or a push's body alone. -key is the AppKey;
give -session-key for signature, -token for the signatures of a push.

openkey, pfkey and pay_token are masked in what is printed, unless -secrets is given; the keys
never are printed. Exit code 0: verified; 1: not; 2: wrong usage.
`

const explainAboutChinese = `用法：midas explain -key KEY [-path /registered/path] URL或查询串

校验一个发货回调或一个发往米大师的请求的签名；不对时指出是哪一种已知错误算出了它，以及怎么改。
同时打印参数和两个阶段的源串，便于与你自己的对比。

输入是 URL、原始查询串或一行访问日志；"-" 表示从标准输入读取：

  grep billno= access.log | tail -1 | midas explain -key-file pay.key -path /pay/notify -

是请求还是回调由参数判断。给出 -sig 时，解释的是你的代码对这条消息算出的签名。

小游戏和小程序：输入是含 signData、paySig、signature 的 JSON，服务端接口或消息推送的 URL
（请求体用 -body 给出），或单独的推送请求体。-key 是 AppKey；校验 signature 还要 -session-key，
校验推送的签名要 -token。

除非给出 -secrets，打印时遮盖 openkey、pfkey、pay_token；密钥从不打印。
退出码：0 通过；1 未通过；2 用法错误。
`

// sayIn returns what picks the text of a language.
func sayIn(lang string) func(en, zh string) string {
	return func(en, zh string) string {
		if lang == "zh" {
			return zh
		}
		return en
	}
}

func runExplain(args []string, t *terminal) int {
	const name = "explain"
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	var keys keyFlags
	keys.register(flags, "key", "`pay key`, without the trailing \"&\"; give a second -key to have it tried too (the other environment's)")
	path := flags.String("path", "", "signed `path`: of a callback that of the delivery URL as registered at Tencent; if empty, the URL's (of an order /v3/r/mpay/buy_goods_m)")
	sig := flags.String("sig", "", "explain this `signature` instead of the one in the message")
	asJSON := flags.Bool("json", false, "print JSON")
	secrets := flags.Bool("secrets", false, "show openkey, pfkey and pay_token")
	var mini miniKeys
	flags.Func("session-key", "a player's `session_key`, for mini games; give an older one with a second", func(key string) error {
		mini.sessionKeys = append(mini.sessionKeys, key)
		return nil
	})
	flags.Func("token", "`Token` of the message push, for mini games", func(token string) error {
		mini.tokens = append(mini.tokens, token)
		return nil
	})
	body := flags.String("body", "", "`body` of a server call or a push of a mini game; @FILE reads it from a file")
	lang := langFlag(flags)
	if code, ok := t.parse(flags, args, explainAbout); !ok {
		return code
	}
	if flags.NArg() != 1 {
		return t.misused(name, errors.New(`want one URL or query, quoted, after the flags ("-" for standard input)`))
	}
	text := flags.Arg(0)
	if text == "-" {
		input, err := io.ReadAll(io.LimitReader(t.in, maxMiniMessage+1))
		if err != nil {
			return t.failed(name, fmt.Errorf("reading standard input: %w", err))
		}
		text = string(input)
	}
	if file, ok := strings.CutPrefix(*body, "@"); ok {
		content, err := os.ReadFile(file)
		if err != nil {
			return t.misused(name, fmt.Errorf("-body: %w", err))
		}
		*body = string(content)
	}
	if m, err := parseMiniMessage(text, *body); err != nil {
		return t.failed(name, err)
	} else if m != nil {
		var err error
		if mini.appKeys, err = keys.read(t, "key"); err != nil && (len(keys.keys) > 0 || keys.file != "") {
			return t.misused(name, err)
		}
		e := explainMini(language(*lang, t.env), m, mini)
		if *asJSON {
			t.printJSON(e)
		} else {
			e.print(t, language(*lang, t.env))
		}
		if !e.Verified {
			return exitFailed
		}
		return exitOK
	}
	given, err := keys.read(t, "key")
	if err != nil {
		return t.misused(name, err)
	}
	m, err := parseMessage(text)
	switch {
	case err != nil && flags.Arg(0) == "-": // data, not usage
		return t.failed(name, err)
	case err != nil:
		return t.misused(name, err)
	}
	e := &explanation{lang: language(*lang, t.env)}
	if err := e.explain(m, *path, given, *sig, *secrets); err != nil {
		return t.misused(name, err)
	}
	if *asJSON {
		t.printJSON(e)
	} else {
		e.print(t)
	}
	if !e.Verified || e.Problem != "" {
		return exitFailed
	}
	return exitOK
}

func (t *terminal) printJSON(v any) {
	out := json.NewEncoder(t.out)
	out.SetEscapeHTML(false)
	out.SetIndent("", "  ")
	out.Encode(v)
}

// An explanation says why a signature is right or wrong.
type explanation struct {
	Kind         string    `json:"kind"` // "callback" or "request"
	Verified     bool      `json:"verified"`
	Problem      string    `json:"problem,omitempty"` // why it would be refused all the same
	Method       string    `json:"method"`
	Path         string    `json:"path"`
	Params       []param   `json:"params"` // those that are signed
	Values       string    `json:"values"` // stage 1
	BaseString   string    `json:"base_string"`
	Sig          string    `json:"sig"`                    // as received
	RightSig     string    `json:"correct_sig"`            // as it should be
	Mistakes     finding   `json:"mistakes"`               // together they make the signature received
	Alternatives []finding `json:"alternatives,omitempty"` // and so do these: If tells which it is
	Tried        int       `json:"tried"`                  // how many mistakes
	Signings     int       `json:"signings"`               // how many signatures were made to try them
	GaveUp       bool      `json:"gave_up,omitempty"`      // the message is too long for all to be tried
	Notes        []string  `json:"notes,omitempty"`

	lang string
}

// explain verifies m for a signed path, under the first of keys. The error says what is
// wrong with the flags.
func (e *explanation) explain(m *message, path string, keys []string, sig string, secrets bool) error {
	if path == "" {
		path = m.signedPath()
	}
	if path == "" {
		return errors.New("-path: a callback is signed for the path of its delivery URL; a query alone does not hold it, so give it")
	}
	right := newRecipe(m, path, keys[0])
	own := sig != ""
	if own {
		if !right.fits() {
			e.note("the sig in the message itself is another one than the parameters want, too: explain it without -sig first", "消息里的 sig 本身与参数也不一致：请先去掉 -sig 解释它")
			own = false
		}
		right.sig = sig
	}
	e.Kind, e.Method, e.Path, e.Params = "request", right.method, path, right.params
	e.Sig, e.RightSig, e.Verified = right.sig, right.sign(), right.fits()
	if m.callback {
		e.Kind = "callback"
		if err := e.asTheLibrarySeesIt(m, path, keys[0], sig); err != nil {
			return err
		}
	} else {
		e.checkRequest(m, right.sig)
	}
	if !e.Verified && e.Problem == "" {
		s := newSearch(e.lang, m, right, keys[1:], own)
		if found := s.find(right); found != nil {
			e.Mistakes, e.Alternatives = found[0], e.apart(found)
		}
		e.Tried, e.Signings, e.GaveUp = len(s.mistakes)+len(s.written), s.signings, s.gaveUp
	}
	if m.callback && e.Problem != "" && !own {
		e.lookForAdditions(right)
	}
	e.Problem = translate(e.lang, e.Problem)

	shown := right
	if !secrets {
		shown.params = maskParams(right.params)
	}
	e.Params, e.Values, e.BaseString = shown.params, shown.joined(), shown.base()
	return nil
}

// apart returns all findings but the first. Of an encoder it says which character would show
// the difference from the first one's.
func (e *explanation) apart(found []finding) []finding {
	for _, alternative := range found[1:] {
		for i, m := range alternative {
			if i >= len(found[0]) || m.with == nil || found[0][i].with == nil {
				continue
			}
			for _, char := range "~*/ !'()-_.+:@&=$,;?#%" {
				if one := string(char); string(m.with.append(nil, one)) != string(found[0][i].with.append(nil, one)) {
					alternative[i].If += fmt.Sprintf(sayIn(e.lang)("; a value with %q tells it from the first", "；值里有 %q 时就与第一种不同"), one)
					break
				}
			}
		}
	}
	return found[1:]
}

func (e *explanation) note(en, zh string) { e.Notes = append(e.Notes, sayIn(e.lang)(en, zh)) }

// asTheLibrarySeesIt verifies a callback with the library itself: it also knows the cases
// where protocol.md 5 obliges to try twice, and what is refused although it verifies.
func (e *explanation) asTheLibrarySeesIt(m *message, path, key, sig string) error {
	appID := value(m.params(once), "appid")
	if appID == "" || strings.ContainsAny(appID, " \t\r\n") {
		appID = "any"
	}
	client, err := newClient(midas.Config{AppID: appID, AppKey: key, DeliveryPath: path})
	if err != nil {
		return fmt.Errorf("-path %s: %w", quote(path), err) // the key was checked before
	}
	if m.method != "GET" {
		e.note("it was recorded with the method "+m.method+"; Midas calls back with GET, and signs that", "记录的方法是 "+m.method+"；米大师用 GET 回调，签名用的也是 GET")
	}
	if sig != "" {
		return nil // another signature than the message's
	}
	_, err = client.ParseDeliveryQuery(m.query)
	e.Verified = !errors.Is(err, midas.ErrSignature)
	var wrong *midas.ParamError
	if errors.As(err, &wrong) {
		e.Problem = wrong.Error()
	}
	if strings.Contains(value(m.params(once), "sig"), " ") {
		e.note(`the sig holds a space where base64 has "+": it was not encoded in the URL, or decoded twice; the library reads it all the same, as servers in other languages do`,
			`sig 里本该是 "+" 的地方成了空格：没有在 URL 里编码，或解码了两次；本库照样接受，其他语言的服务器也是如此`)
	}
	return nil
}

// plainName is what a parameter's name may be (protocol.md 5, delivery callback).
var plainName = regexp.MustCompile(`^[A-Za-z0-9_.-]+$`)

// lookForAdditions notes whether a callback that is refused for its names is right without
// what a router or a gateway added: the path as a name, or a name that was there before.
func (e *explanation) lookForAdditions(right recipe) {
	keeping := func(keep func(i int, p param) bool) {
		var kept, added []param
		for i, p := range right.params {
			if keep(i, p) {
				kept = append(kept, p)
			} else {
				added = append(added, p)
			}
		}
		r := right
		if r.params = kept; len(added) == 0 || !r.fits() {
			return
		}
		var list []string
		for _, p := range added {
			list = append(list, quote(p.Name+"="+p.Value))
		}
		e.note("without "+strings.Join(list, ", ")+" the signature is right: that was added on the way; take it out before verifying",
			"去掉 "+strings.Join(list, "、")+" 后签名正确：它是半路加上的，验签之前把它去掉")
	}
	same := func(p param) func(param) bool {
		return func(other param) bool { return other.Name == p.Name }
	}
	keeping(func(_ int, p param) bool { return plainName.MatchString(p.Name) })
	keeping(func(i int, p param) bool { return !slices.ContainsFunc(right.params[:i], same(p)) })
	keeping(func(i int, p param) bool { return !slices.ContainsFunc(right.params[i+1:], same(p)) })
}

// checkRequest looks for what makes a request unreadable for Midas.
func (e *explanation) checkRequest(m *message, sig string) {
	received := m.params(once)
	for i, p := range received {
		if slices.ContainsFunc(received[:i], func(before param) bool { return before.Name == p.Name }) {
			e.Problem = "parameter " + quote(p.Name) + ": comes twice"
			return
		}
		if p.Value == masked {
			e.Problem = "parameter " + quote(p.Name) + ": is masked in this text, so the signature cannot be checked; record it with -secrets"
			return
		}
	}
	if sig == "" {
		e.Problem = "parameter sig: missing"
	}
}

// signedPath returns the path that the signature is for, as far as the message shows it.
func (m *message) signedPath() string {
	switch {
	case m.callback:
		return m.path
	case m.path == "":
		return ysdkPrefix + orderPath
	case strings.HasPrefix(m.path, "/mpay/") && !strings.Contains(m.site, "//msdk") && !strings.Contains(m.site, "//openapi."):
		return ysdkPrefix + m.path // YSDK's signed path is not the URL's (protocol.md 2)
	}
	return m.path
}

func (e *explanation) print(t *terminal) {
	say := sayIn(e.lang)
	kind := say(e.Kind, map[string]string{"callback": "回调", "request": "请求"}[e.Kind])
	fmt.Fprintf(t.out, "%s  %s %s\n\n", t.paint(bold, kind), e.Method, printable(e.Path))
	width := 0
	for _, p := range e.Params {
		width = max(width, len(printable(p.Name)))
	}
	for _, p := range e.Params {
		line := fmt.Sprintf("  %-*s  %s", width, printable(p.Name), printable(p.Value))
		if meaning := e.meaning(p); meaning != "" {
			line += t.paint(dim, "   "+printable(meaning))
		}
		fmt.Fprintln(t.out, strings.TrimRight(line, " "))
	}
	stage1 := say("parameters joined", "拼接参数")
	if e.Kind == "callback" {
		stage1 = say("parameters joined, their values encoded", "值编码后拼接参数")
	}
	fmt.Fprintf(t.out, "\n%s\n  %s\n", t.paint(bold, "1. "+stage1), printable(e.Values))
	fmt.Fprintf(t.out, "%s\n  %s\n", t.paint(bold, "2. "+say("base string", "源串")), printable(e.BaseString))
	fmt.Fprintf(t.out, "%s\n  %s  %s\n", t.paint(bold, "3. "+say("signature", "签名")), say("received", "收到的"), printable(e.Sig))
	if !e.Verified {
		fmt.Fprintf(t.out, "  %s  %s\n", say("correct ", "正确的"), e.RightSig)
	}
	fmt.Fprintln(t.out)
	for _, note := range e.Notes {
		fmt.Fprintf(t.out, say("Note: %s.\n", "注意：%s。\n"), printable(note))
	}
	bad := t.paint(red, say("NOT VERIFIED", "签名不对"))
	switch {
	case e.Verified && e.Problem == "":
		fmt.Fprintf(t.out, say("%s: the signature is right.\n", "%s：签名正确。\n"), t.paint(green, say("VERIFIED", "通过")))
	case e.Problem != "":
		fmt.Fprintf(t.out, say("%s: %s.\n", "%s：%s。\n"), t.paint(red, say("REFUSED", "拒绝")), printable(e.Problem))
	case e.Mistakes == nil && e.GaveUp:
		fmt.Fprintf(t.out, say(`%s: the signature is another one. The message is too long to try every
combination of the %d mistakes known, and none of those tried makes it. Try a shorter message, or
compare the base string with your own.
`, `%s：收到的是另一个签名。消息太长，%d 种已知错误的组合没有试完，试过的都算不出它。
请换一条短一些的消息再试，或把源串与你自己的对比。
`), bad, e.Tried)
	case e.Mistakes == nil:
		fmt.Fprintf(t.out, say(`%s: the signature is another one, and none of the %d mistakes tried makes it,
nor any two of them together. What is left: another pay key (give the other environment's with
a second -key), a path rewritten on the way (give the registered one with -path), a parameter
changed or lost after signing, or a forgery. Compare the base string with your own.
`, `%s：收到的是另一个签名，试过的 %d 种错误及其两两组合都算不出它。剩下的可能：
用了另一个支付密钥（用第二个 -key 给出另一个环境的）、路径在半路被改写（用 -path 给出后台配置的）、
签名之后有参数被改动或丢失，或者是伪造。请把源串与你自己的对比。
`), bad, e.Tried)
	default:
		fmt.Fprintf(t.out, say("%s: the signature is another one. It is made like this:\n", "%s：收到的是另一个签名，它是这样算出来的：\n"), bad)
		e.printMistakes(t)
	}
}

func (e *explanation) printMistakes(t *terminal) {
	say := sayIn(e.lang)
	show := func(m mistake) {
		fmt.Fprintf(t.out, say("\n  %s: %s.\n", "\n  %s：%s。\n"), t.paint(bold, m.Name), printable(m.What))
		fmt.Fprintf(t.out, say("  To change: %s.\n", "  改法：%s。\n"), printable(m.Cure))
		if len(e.Alternatives) > 0 && m.If != "" {
			fmt.Fprintf(t.out, say("  It is this if %s.\n", "  如果%s，就是这一种。\n"), printable(m.If))
		}
	}
	for _, m := range e.Mistakes {
		show(m)
	}
	shown := slices.Clone(e.Mistakes)
	named := func(m mistake) bool {
		return slices.ContainsFunc(shown, func(s mistake) bool { return s.Name == m.Name && s.What == m.What })
	}
	var sameCure []string
	for _, alternative := range e.Alternatives {
		for i, m := range alternative {
			switch {
			case named(m):
			case i < len(e.Mistakes) && m.Cure == e.Mistakes[i].Cure:
				sameCure = append(sameCure, fmt.Sprintf(say("  %s, if %s\n", "  %s：%s\n"), m.Name, cmp.Or(printable(m.If), printable(m.What))))
			default:
				fmt.Fprint(t.out, say("\nOr, which makes the same signature of this message:\n", "\n也可能是下面这种，对这条消息算出的签名相同：\n"))
				show(m)
			}
			shown = append(shown, m)
		}
	}
	if len(sameCure) > 0 {
		fmt.Fprint(t.out, say("\nFor this message these come to the same, and so does what to change:\n", "\n对这条消息，下面这些结果相同，改法也相同：\n"))
		for _, line := range sameCure {
			fmt.Fprint(t.out, line)
		}
	}
}

// meaning says what a parameter of a callback stands for, where that is not obvious
// (protocol.md 5).
func (e *explanation) meaning(p param) string {
	n, err := strconv.ParseInt(p.Value, 10, 64)
	switch {
	case p.Name == "ts" && err == nil && n > 0 && n < 1<<36:
		return time.Unix(n, 0).UTC().Format(time.DateTime) + " UTC"
	case p.Name == "amt" && err == nil && e.Kind == "callback":
		return sayIn(e.lang)("charged: "+midas.Amount(n).String(), "实付 "+midas.Amount(n).QPoints()+" Q 点（"+midas.Amount(n).Yuan()+" 元）")
	}
	return ""
}
