package explain

import (
	"cmp"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

const (
	ysdkPrefix = "/v3/r"
	orderPath  = "/mpay/buy_goods_m"
)

// newSearch lists what can be wrong with a signature of the older Midas. own says that it was
// computed by the one who asks, so that nothing was added to the message after it was signed.
func (m *Message) newSearch(right recipe, o Options, own bool) *search {
	s := &search{expected: requestNames.has, contexts: []string{"." + m.Kind}}
	if m.Kind == Callback {
		s.expected = func(name string) bool { return callbackNames.has(name) || decoy.MatchString(name) }
	}
	if own {
		s.contexts = append([]string{"." + m.Kind + "-own"}, s.contexts...)
	}
	// Another key comes first, so that a second mistake can be made with it.
	for i, key := range o.Keys[min(len(o.Keys), 1):] {
		s.add("other-key", func(r *recipe) { r.key = key + "&" }, i+2)
	}
	s.addAll(keySlips)
	s.addAll(hashSlips)
	s.addReadings(m, right)
	s.addPaths(m, right)
	s.addAll(methodSlips)
	s.addUnsigned(m, right, o.Mask, own)
	s.addOrders(m)
	s.addUnsent(m)
	s.addAll(endSlips)
	s.addAll(charsetSlips)
	s.addEncodings(m)
	s.addWritten(writtenBase64)
	return s
}

var keySlips = func() []slip {
	slips := []slip{
		{"key-with-bom", func(r *recipe) { r.key = "\ufeff" + r.key }, nil},
		{"key-without-ampersand", func(r *recipe) { r.key = strings.TrimSuffix(r.key, "&") }, nil},
		{"key-with-two-ampersands", func(r *recipe) { r.key += "&" }, nil},
	}
	for _, blank := range blanks {
		shown := []any{strconv.Quote(blank)}
		slips = append(slips,
			slip{"key-with-blank/before", func(r *recipe) { r.key = strings.TrimSuffix(r.key, "&") + blank + "&" }, shown},
			slip{"key-with-blank/after", func(r *recipe) { r.key += blank }, shown},
			slip{"key-with-blank/between", func(r *recipe) { r.key += blank + "&" }, shown})
	}
	return append(slips, slip{"key-mapped", func(r *recipe) { r.key = strings.NewReplacer("-", "+", "_", "/").Replace(r.key) }, nil})
}()

// What files and variables have at their ends.
var blanks = []string{"\n", "\r\n", " "}

// Of both protocols: what is right in one of them changes nothing there, so that it is no mistake.
var hashSlips = []slip{
	{"sha1-of-key-and-text", func(r *recipe) { r.digest = keyFirst(sha1.New) }, nil},
	{"sha1-of-key-and-text/last", func(r *recipe) { r.digest = keyLast(sha1.New) }, nil},
	{"hmac-sha1", func(r *recipe) { r.digest = hmacSHA1 }, nil},
	{"hmac-sha256", func(r *recipe) { r.digest = hmacSHA256 }, nil},
	{"hmac-sha512", func(r *recipe) { r.digest = hmacSHA512 }, nil},
	{"hmac-md5", func(r *recipe) { r.digest = hmacMD5 }, nil},
	{"sha256-of-key-and-text", func(r *recipe) { r.digest = keyFirst(sha256.New) }, nil},
	{"sha256-of-text-and-key", func(r *recipe) { r.digest = keyLast(sha256.New) }, nil},
	{"md5-of-key-and-text", func(r *recipe) { r.digest = keyFirst(md5.New) }, nil},
	{"md5-of-key-and-text/last", func(r *recipe) { r.digest = keyLast(md5.New) }, nil},
	{"hmac-swapped", func(r *recipe) { r.digest = r.digest.swap }, nil},
	{"hmac-cut-at-zero", func(r *recipe) { r.digest = r.digest.cutAtZero }, nil},
}

// addReadings adds how the query is read.
func (s *search) addReadings(m *Message, right recipe) {
	reread := func(params []Param) func(*recipe) {
		params = m.signed(params)
		return func(r *recipe) { r.params = params }
	}
	s.add("plus-not-encoded", reread(m.params(literalPlus)))
	if m.Kind == Callback { // for the sender of a request it is values-pre-encoded
		s.add("values-not-decoded", reread(m.params(func(s string) string { return s })))
	}
	parsed, _ := url.ParseQuery(m.RawQuery) // the error is what the mistake ignores
	var standard []Param
	for name, values := range parsed {
		standard = append(standard, Param{name, values[0]})
	}
	s.add("standard-parser", reread(standard))
	twice := m.signed(m.params(func(s string) string { return Decode(Decode(s)) }))
	if !slices.Equal(twice, right.params) {
		s.add("url-encoded-twice", func(r *recipe) { r.params, r.sig = twice, literalPlus(r.sig) })
	}
}

// addPaths adds paths that are signed in place of the right one.
func (s *search) addPaths(m *Message, right recipe) {
	instead := func(key, wrong string) { s.add(key, func(r *recipe) { r.path = wrong }, wrong) }
	if m.Kind == Callback {
		instead("order-path", ysdkPrefix+orderPath)
		instead("order-path-msdk", orderPath)
		if m.path != "" {
			instead("url-path", m.path)
		}
		for rest, cut := right.path, 0; cut < 16 && strings.Count(rest, "/") > 1; cut++ {
			rest = rest[1+strings.IndexByte(rest[1:], '/'):]
			instead("prefix-stripped", rest)
		}
	} else {
		if rest, ok := strings.CutPrefix(right.path, ysdkPrefix); ok {
			instead("msdk-path", rest)
		} else {
			instead("ysdk-path", ysdkPrefix+right.path)
		}
		if m.path != "" {
			instead("url-path", m.path)
		}
	}
	// The calls of protocol.md 3 and 7.
	for _, call := range []string{"buy_goods_m", "get_balance_m", "pay_m", "cancel_pay_m", "present_m", "subscribe_m"} {
		if !strings.HasSuffix(right.path, "/mpay/"+call) && (m.Kind != Callback || call != "buy_goods_m") {
			instead("other-call", ysdkPrefix+"/mpay/"+call)
			instead("other-call", "/mpay/"+call)
		}
	}
	for _, site := range []string{m.site, "https://ysdk.qq.com", "https://ysdktest.qq.com"} {
		if site != "" {
			instead("whole-url", site+cmp.Or(m.path, right.path))
		}
	}
	ending := func(path string) string {
		if trimmed := strings.TrimRight(path, "/"); trimmed != path {
			return trimmed
		}
		return path + "/"
	}
	slash := "trailing-slash"
	if ending(right.path) < right.path {
		slash = "trailing-slash/missing"
	}
	s.add(slash, func(r *recipe) { r.path = ending(r.path) }, ending(right.path))
	for _, query := range []string{m.RawQuery, strings.Join(slices.DeleteFunc(strings.Split(m.RawQuery, "&"), func(pair string) bool { return strings.HasPrefix(pair, "sig=") }), "&")} {
		s.add("path-with-query", func(r *recipe) { r.path += "?" + query })
	}
	for _, change := range []func(string) string{strings.ToLower, strings.ToUpper, capitalised} {
		s.add("path-in-other-case", func(r *recipe) { r.path = change(r.path) }, change(right.path))
	}
	s.add("path-without-slash", func(r *recipe) { r.path = strings.TrimPrefix(r.path, "/") })
	s.add("path-with-two-slashes", func(r *recipe) { r.path = "/" + r.path })
}

var methodSlips = []slip{
	{"method-get", func(r *recipe) { r.method = "GET" }, nil},
	{"method-post", func(r *recipe) { r.method = "POST" }, nil},
	{"method-lower-case", func(r *recipe) { r.method = strings.ToLower(r.method) }, nil},
}

// addUnsigned adds which parameters are not signed.
func (s *search) addUnsigned(m *Message, right recipe, mask func(Param) Param, own bool) {
	s.unsigned = func(names ...string) []Mistake {
		several := ""
		if len(names) > 1 {
			several = "/several"
		}
		shown := slices.Clone(names) // a name may hold a value
		for i, name := range names {
			shown[i] = mask(Param{Name: name}).Name
		}
		left, added := s.new("left-out"+several, shown), s.new("added-on-the-way"+several, shown)
		switch {
		case own, m.Kind != Callback:
			return []Mistake{left}
		case slices.ContainsFunc(names, decoy.MatchString): // nobody but Midas adds that
			return []Mistake{left}
		case slices.ContainsFunc(names, s.expected):
			return []Mistake{left, added}
		}
		return []Mistake{added, left}
	}
	removing := func(names []string) func(*recipe) {
		return func(r *recipe) { r.without(func(p Param) bool { return slices.Contains(names, p.Name) }) }
	}
	// Nobody sends more than 64 parameters; the search has to end.
	var single []Mistake
	var strangers []string
	for _, p := range right.params[:min(len(right.params), 64)] {
		for i, mistake := range s.unsigned(p.Name) {
			mistake.apply = removing([]string{p.Name})
			if mistake.Name == "added-on-the-way" && i == 0 {
				s.mistakes, strangers = append(s.mistakes, mistake), append(strangers, p.Name)
			} else {
				single = append(single, mistake)
			}
		}
	}
	if len(strangers) > 1 {
		all := s.unsigned(strangers...)[0]
		all.apply = removing(strangers)
		s.mistakes = append(s.mistakes, all)
	}
	s.add("empty-dropped", func(r *recipe) { r.without(func(p Param) bool { return p.Value == "" }) })
	fixed := []nameSet{callbackNames.and(requestNames)}
	if m.Kind == Callback {
		fixed = append(fixed, callbackNames, oldCallbackNames, oldCallbackNames.and(nameSet{"appmeta": true, "clientver": true}))
	} else {
		fixed = append(fixed, requestNames, oldRequestNames)
	}
	for i, list := range fixed {
		key := "fixed-names"
		if i > 1 {
			key = "fixed-names/old"
		}
		s.add(key, func(r *recipe) { r.without(func(p Param) bool { return !list.has(p.Name) }) })
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
		sig := Param{"sig", Value(m.params(Decode), "sig")}
		s.add("sig-signed", func(r *recipe) { r.params = sorted(append(slices.Clone(r.params), sig)) })
	}
}

// addOrders adds sequences of the parameters that are not the right one.
func (s *search) addOrders(m *Message) {
	position := map[string]int{}
	for i, p := range m.params(Decode) {
		position[p.Name] = i
	}
	by := func(key string, compare func(a, b string) int) {
		s.add(key, func(r *recipe) {
			r.params = slices.Clone(r.params)
			slices.SortStableFunc(r.params, func(a, b Param) int { return compare(a.Name, b.Name) })
		})
	}
	by("not-sorted", func(a, b string) int { return cmp.Compare(position[a], position[b]) })
	by("sorted-without-case", func(a, b string) int { return cmp.Compare(strings.ToLower(a), strings.ToLower(b)) })
	by("sorted-as-numbers", byNumber)
}

// addUnsent adds what is signed and not sent.
func (s *search) addUnsent(m *Message) {
	with := func(r *recipe, extra Param) { r.params = sorted(append(slices.Clone(r.params), extra)) }
	bare := func(key string) string { return strings.Trim(key, "& \r\n\ufeff") }
	for _, name := range []string{"appkey", "app_key", "appKey", "key", "secret"} {
		s.add("key-among-parameters", func(r *recipe) { with(r, Param{name, bare(r.key)}) }, name).rare = true
		s.add("key-among-parameters/last", func(r *recipe) { r.tail += "&" + name + "=" + bare(r.key) }, name).rare = true
	}
	documented := requestNames
	if m.Kind == Callback {
		documented = callbackNames
	}
	nothings := []string{"", "null", "undefined", "None", "nil"}
	sent := m.params(Decode)
	for _, name := range slices.Sorted(maps.Keys(documented)) {
		if slices.ContainsFunc(sent, func(p Param) bool { return p.Name == name }) {
			continue
		}
		for _, text := range nothings {
			s.add("signed-not-sent", func(r *recipe) { with(r, Param{name, text}) }, name+"="+text).rare = true
		}
	}
	for _, text := range nothings[1:] {
		s.add("word-for-nothing", func(r *recipe) {
			r.reword(func(value string) string { return cmp.Or(value, text) })
		}, text).rare = true
	}
}

var endSlips = []slip{
	{"trailing-ampersand", func(r *recipe) { r.tail += "&" }, nil},
	{"trailing-ampersand/base", func(r *recipe) { r.baseEnd += "&" }, nil},
}

var charsetSlips = []slip{
	{"gbk", func(r *recipe) { r.reword(toGBK) }, nil},
	{"gbk/sent", func(r *recipe) { r.reword(fromGBK) }, nil},
	{"mojibake", func(r *recipe) { r.reword(mojibake) }, nil},
	{"question-marks", func(r *recipe) { r.reword(questionMarks) }, nil},
}

// capitalised returns a path with each part's first letter in capitals.
func capitalised(path string) string { return firstLetter.ReplaceAllStringFunc(path, strings.ToUpper) }

var firstLetter = regexp.MustCompile(`/[a-z]`)

// byNumber compares names that are numbers by their value, others by their bytes.
func byNumber(a, b string) int {
	m, errA := strconv.ParseInt(a, 10, 64)
	n, errB := strconv.ParseInt(b, 10, 64)
	if errA == nil && errB == nil {
		return cmp.Compare(m, n)
	}
	return cmp.Compare(a, b)
}

// A nameSet is a set of parameter names.
type nameSet map[string]bool

func (n nameSet) has(name string) bool { return n[name] }

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

// The parameters except sig, as protocol.md 3 and 5 list them, and as pages of before did.
var (
	requestNames     = listed("openid openkey pay_token appid ts pf pfkey zoneid payitem goodsmeta goodsurl amt appmode max_num app_metadata userip format accounttype")
	oldRequestNames  = listed("openid openkey pay_token appid ts pf pfkey zoneid payitem goodsmeta goodsurl")
	callbackNames    = listed("openid appid zoneid token billno payitem amt payamt_coins pubacct_payamt_coins appmeta ts providetype version clientver channel_id paychannel paychannelsubid cftid discountid giftcoins")
	oldCallbackNames = listed("openid appid zoneid token billno payitem amt payamt_coins pubacct_payamt_coins ts providetype version")
)

// Midas sends a parameter whose first letter changes (protocol.md 5, delivery callback).
var decoy = regexp.MustCompile(`^[a-z]bazinga$`)
