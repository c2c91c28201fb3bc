package report

import (
	"maps"
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/cmd/midas/internal/explain"
	"github.com/midas-go/midas/cmd/midas/internal/lang"
)

// A Point is a question that the protocol leaves open. Its texts are in the catalogue: what is
// asked under "point." and its ID, and what decides it under that and ".by".
type Point struct {
	ID      string
	Section string // of docs/protocol.md, or of the page of docs that stands before it, as in "minigame 4.3"

	// decide adds what a recording says about it, if it says anything: nothing is guessed.
	decide func(*recording, *findings)
}

// Question returns what is asked.
func (p Point) Question() lang.Text { return lang.T("point." + p.ID) }

// By returns what decides it.
func (p Point) By() lang.Text { return lang.T("point." + p.ID + ".by") }

// Points are the open points that a recording can decide, and one that it cannot. docs/open-points.md and
// docs/open-points-minigame.md show the same tables.
var Points = []Point{
	{"token-life", "1", undecided},
	{"repeat-ret0", "1", repeatAfter("ok")},
	{"repeat-ret1", "1", repeatAfter("ret1")},
	{"repeat-ret2", "1", repeatAfter("ret2")},
	{"repeat-ret3", "1", repeatAfter("ret3")},
	{"repeat-ret4", "1", repeatAfter("ret4")},
	{"repeat-late", "1", repeatAfter("late")},
	{"repeat-broken", "1", repeatAfter("broken")},
	{"pf-length", "3", pfLength},
	{"amt-sent", "3", amtSent},
	{"order-names", "3", orderNames},
	{"org-loc-prefix", "4", orgLoc("/v3/r/mpay/buy_goods_m")},
	{"org-loc-bare", "4", orgLoc("/mpay/buy_goods_m")},
	{"org-loc-raw", "4", orgLocRaw},
	{"attach", "4", attach},
	{"zone", "5", zone},
	{"item-sequence", "5", itemSequence},
	{"amount", "5", amount},
	{"decoy", "5", decoy},
	{"empty", "5", empty},
	{"new-names", "5", newNames},
	{"plus", "5", bySignature(SignedPlusSpace, SignedPlusItself)},
	{"cee-extend", "5", bySignature(SignedCEE, SignedNoCEE)},
	{"escaped-path", "5", bySignature(SignedEscapedPath, SignedDecodedPath)},
	{"post", "5", postCallback},
	{"order-by-post", "5", orderByPost},
	{"http-version", "6", ofCaller(func(c callback) string { return c.http })},
	{"keep-alive", "6", keepAlive},
	{"tls", "6", ofCaller(func(c callback) string { return c.caller.TLS })},
	{"address-family", "6", ofCaller(addressFamily)},

	{"mini-sig", "minigame-live 8", miniSig},
	{"mini-mock", "minigame-live 8", miniMock},
	{"mini-orig-price", "minigame-live 8", miniPrice("OrigPrice")},
	{"mini-actual-price", "minigame-live 8", miniPrice("ActualPrice")},
	{"mini-shop-event", "minigame-live 8", miniShopEvent},
	{"mini-shop-test", "minigame-live 8", miniShopTest},
	{"mini-coin-amount", "minigame-live 8", miniCoinAmount},
	{"mini-refund-number", "minigame-live 8", miniRefundNumber},
	{"mini-names", "minigame 3.3", miniNames},
	{"mini-format", "minigame-live 8", miniFormat},
	{"mini-url", "minigame-live 8", miniURL},
	{"mini-timestamp", "minigame-live 8", miniTimestamp},
	{"mini-success", "minigame 2.3", miniTaken(false)},
	{"mini-user-ip", "minigame 3.4", miniUserIP},
	{"mini-return-codes", "minigame 3.4", miniReturnCodes},
	{"xpay-repeat", "minigame 4.3", xpayRepeat},
	{"xpay-success", "minigame-live 8", miniTaken(true)},
	{"xpay-sandbox", "minigame-live 8", xpaySandbox},
	{"xpay-attach", "minigame-live 8", xpayAttach},
	{"xpay-apple-env", "minigame-live 8", xpayAppleEnv},
	{"xpay-tokens", "minigame-live 8", xpayTokens},
	{"xpay-pay-sig", "minigame-live 8", xpayPaySig},
	{"xpay-part-refund", "minigame 4.4", xpayPartRefund},
}

// findings are what a recording says about a point, and the lines that show it.
type findings struct {
	answers []lang.Text
	lines   []int
}

// found adds an answer once, and its lines.
func (f *findings) found(answer lang.Text, lines ...int) {
	f.lines = append(f.lines, lines...)
	if !slices.ContainsFunc(f.answers, func(a lang.Text) bool { return a.In("en") == answer.In("en") }) {
		f.answers = append(f.answers, answer)
	}
}

// list adds an answer that lists values, each once.
func (f *findings) list(key string, values map[string][]int) {
	if len(values) == 0 {
		return
	}
	f.found(lang.T(key, strings.Join(slices.Sorted(maps.Keys(values)), ", ")), slices.Concat(slices.Collect(maps.Values(values))...)...)
}

// ordered returns the order that a callback is about.
func (r *recording) ordered(c callback) (order, bool) {
	i, known := r.byToken[c.value("token")]
	if !known || r.orders[i].end.After(c.time) {
		return order{}, false
	}
	return r.orders[i], true
}

// payments returns the callbacks of each payment in their sequence. What another program sent again, such
// as "midas replay", is not Midas's: it has another User-Agent.
func (r *recording) payments() [][]callback {
	var payments [][]callback
	at := map[[3]string]int{}
	for _, c := range r.callbacks {
		key := [3]string{c.value("openid"), c.value("billno"), c.agent}
		i, known := at[key]
		if !known {
			i = len(payments)
			at[key], payments = i, append(payments, nil)
		}
		payments[i] = append(payments[i], c)
	}
	for _, p := range payments {
		slices.SortStableFunc(p, func(a, b callback) int { return a.time.Compare(b.time) })
	}
	return payments
}

// undecided is for what no recording shows. How long a token lives is one: a callback that comes late may
// be the repeat of one that did not arrive, and nothing in it says when the player paid.
func undecided(*recording, *findings) {}

func seconds(d time.Duration) string {
	if d < time.Minute {
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

// repeatAfter looks for payments that were called back again after an answer of one kind. That one
// was not called again decides nothing: it may be later.
func repeatAfter(outcome string) func(*recording, *findings) {
	return func(r *recording, f *findings) {
		if !r.whole { // what is missing may have been answered otherwise
			return
		}
		for _, p := range r.payments() {
			var when []string
			var lines []int
			for i, c := range p[:len(p)-1] {
				if next := p[i+1]; c.outcome == outcome && !next.time.Before(c.end) { // not two at once
					when = append(when, seconds(next.time.Sub(c.time)))
					lines = append(lines, c.line, next.line)
				}
			}
			if when != nil {
				f.found(lang.T("answer.repeated", strings.Join(when, ", ")), lines...)
			}
		}
	}
}

func pfLength(r *recording, f *findings) {
	for _, o := range r.orders {
		if n := len(o.value("pf")); n > 100 {
			f.found(lang.T("answer.pf-length", n), o.line)
		}
	}
}

func amtSent(r *recording, f *findings) {
	for _, o := range r.orders {
		items, err := midas.ParseItems(o.value("payitem"))
		amt, wrong := midas.ParseQPoints(o.value("amt"))
		if err != nil || wrong != nil {
			continue
		}
		switch sum := total(items); {
		case sum <= 0:
		case amt == sum:
			f.found(lang.T("answer.amt-points"), o.line)
		case amt == 10*sum:
			f.found(lang.T("answer.amt-fen"), o.line)
		}
	}
}

func total(items []midas.Item) (sum midas.Amount) {
	for _, item := range items {
		sum += item.Price * midas.Amount(item.Quantity)
	}
	return sum
}

// orderNames looks for the parameters that only single texts name (protocol.md 3). Other names are the
// backend's, and may be anything.
func orderNames(r *recording, f *findings) {
	found := map[string][]int{}
	for _, o := range r.orders {
		for _, name := range []string{"out_trade_no", "sp_info"} {
			if o.value(name) != "" {
				found[name] = append(found[name], o.line)
			}
		}
	}
	f.list("answer.taken-names", found)
}

// orgLoc looks for orders to YSDK with a value of that cookie: older gateways have another one.
func orgLoc(path string) func(*recording, *findings) {
	return func(r *recording, f *findings) {
		for _, o := range r.orders {
			if o.has(SignedYSDK) && explain.Decode(o.cookies["org_loc"]) == path {
				f.found(lang.T("answer.taken"), o.line)
			}
		}
	}
}

func orgLocRaw(r *recording, f *findings) {
	for _, o := range r.orders {
		if o.has(SignedYSDK) && strings.HasSuffix(o.cookies["org_loc"], "/mpay/buy_goods_m") {
			f.found(lang.T("answer.taken"), o.line)
		}
	}
}

func attach(r *recording, f *findings) {
	for _, o := range r.orders {
		if o.attach != "" {
			f.found(lang.T("answer.attach", len(o.attach)), o.line)
		}
	}
}

func zone(r *recording, f *findings) {
	for _, c := range r.callbacks {
		o, known := r.ordered(c)
		if !known || o.value("zoneid") == "" {
			continue
		}
		withoutRole, _, withRole := strings.Cut(o.value("zoneid"), "_")
		switch got := c.value("zoneid"); {
		case got == o.value("zoneid") && withRole:
			f.found(lang.T("answer.zone-role-same"), o.line, c.line)
		case got == o.value("zoneid"):
			f.found(lang.T("answer.zone-same"), o.line, c.line)
		case withRole && got == withoutRole:
			f.found(lang.T("answer.zone-no-role"), o.line, c.line)
		default:
			f.found(lang.T("answer.zone-other"), o.line, c.line)
		}
	}
}

func itemSequence(r *recording, f *findings) {
	ids := func(payitem string) (ids []string) {
		items, _ := midas.ParseItems(payitem)
		for _, item := range items {
			ids = append(ids, item.ID)
		}
		return ids
	}
	for _, c := range r.callbacks {
		o, known := r.ordered(c)
		if !known {
			continue
		}
		asked, got := ids(o.value("payitem")), ids(c.value("payitem"))
		if len(asked) < 2 || len(got) == 0 {
			continue
		}
		switch {
		case slices.Equal(asked, got):
			f.found(lang.T("answer.items-same"), o.line, c.line)
		case slices.Equal(slices.Sorted(slices.Values(asked)), slices.Sorted(slices.Values(got))):
			f.found(lang.T("answer.items-otherwise"), o.line, c.line)
		default:
			f.found(lang.T("answer.items-others"), o.line, c.line)
		}
	}
}

func amount(r *recording, f *findings) {
	found := map[string][]int{}
	for _, c := range r.callbacks {
		items, err := midas.ParseItems(c.value("payitem"))
		amt, wrong := strconv.ParseInt(c.value("amt"), 10, 63)
		price := total(items)
		if err == nil && wrong == nil && price > 0 {
			percent := strconv.FormatFloat(100*float64(amt)/float64(price), 'f', -1, 64)
			whole, part, _ := strings.Cut(percent, ".")
			if part != "" {
				whole += "." + part[:min(len(part), 2)]
			}
			found[whole+" %"] = append(found[whole+" %"], c.line)
		}
	}
	f.list("answer.amount", found)
}

var (
	decoyName = regexp.MustCompile(`^.bazinga$`)
	plainName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.-]{0,39}$`)
)

func decoy(r *recording, f *findings) { f.list("answer.names", r.names(isDecoy)) }

func isDecoy(p explain.Param) bool { return decoyName.MatchString(p.Name) }

func empty(r *recording, f *findings) {
	f.list("answer.empty", r.names(func(p explain.Param) bool { return p.Value == "" && !isDecoy(p) && p.Name != "cee_extend" }))
}

// callbackNames are the parameters of protocol.md 5.
var callbackNames = []string{
	"openid", "appid", "zoneid", "token", "billno", "payitem", "amt", "payamt_coins", "pubacct_payamt_coins", "appmeta", "ts", "providetype", "version",
	"clientver", "channel_id", "paychannel", "paychannelsubid", "discountid", "giftcoins", "cftid", "cee_extend", "sig",
}

func newNames(r *recording, f *findings) {
	f.list("answer.names", r.names(func(p explain.Param) bool { return !isDecoy(p) && !slices.Contains(callbackNames, p.Name) }))
}

// names returns the names of parameters of callbacks, and the lines in which they are.
func (r *recording) names(which func(explain.Param) bool) map[string][]int {
	found := map[string][]int{}
	for _, c := range r.callbacks {
		for _, p := range c.params {
			if which(p) && plainName.MatchString(p.Name) {
				found[p.Name] = append(found[p.Name], c.line)
			}
		}
	}
	return found
}

// bySignature says what only the signature of a callback tells.
func bySignature(ways ...string) func(*recording, *findings) {
	return func(r *recording, f *findings) {
		for _, c := range r.callbacks {
			for _, way := range ways {
				if c.has(way) {
					f.found(lang.T("answer."+way), c.line)
				}
			}
		}
	}
}

func postCallback(r *recording, f *findings) {
	for _, c := range r.callbacks {
		if c.has(SignedPost) {
			f.found(lang.T("answer.post"), c.line)
		}
	}
}

func orderByPost(r *recording, f *findings) {
	for _, c := range r.callbacks {
		if o, known := r.ordered(c); known && o.method == http.MethodPost && (c.method == http.MethodGet || c.method == http.MethodPost) {
			f.found(lang.T("answer.callback-by", c.method), o.line, c.line)
		}
	}
}

// ofCaller says something about who calls back. Behind a proxy it would be about that.
func ofCaller(what func(callback) string) func(*recording, *findings) {
	return func(r *recording, f *findings) {
		found := map[string][]int{}
		for _, c := range r.callbacks {
			if value := what(c); value != "" && c.direct {
				found[value] = append(found[value], c.line)
			}
		}
		f.list("answer.names", found)
	}
}

var carrierNAT = netip.MustParsePrefix("100.64.0.0/10") // clouds have their load balancers there, too

// addressFamily says nothing of an address that is not a public one: a tunnel ends there.
func addressFamily(c callback) string {
	at, err := netip.ParseAddrPort(c.caller.Address)
	addr := at.Addr().Unmap()
	switch {
	case err != nil || !addr.IsGlobalUnicast() || addr.IsPrivate() || carrierNAT.Contains(addr):
		return ""
	case addr.Is4():
		return "IPv4"
	}
	return "IPv6"
}

// keepAlive says whether the caller asks for the end of a connection, or used one twice. That it
// did not use one twice decides nothing: the other end may have closed it.
func keepAlive(r *recording, f *findings) {
	for _, c := range r.callbacks {
		switch {
		case !c.direct:
		case c.caller.Request > 1:
			f.found(lang.T("answer.reused"), c.line)
		case strings.Contains(c.connection, "close"), c.http == "HTTP/1.0" && !strings.Contains(c.connection, "keep-alive"):
			f.found(lang.T("answer.close"), c.line)
		}
	}
}
