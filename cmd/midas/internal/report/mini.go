package report

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/midas-go/midas/cmd/midas/internal/lang"
)

// The open points of mini games and mini programs.

const (
	gamePays    = "minigame_game_pay_goods_deliver_notify"
	shopPays    = "minigame_h5_goods_deliver_notify"
	shopPaysToo = "minigame_deliver_h5_pay_products"
	coinsCome   = "minigame_coin_deliver_completed"
	refunded    = "minigame_pay_refund_succ_notify"
	gift        = "minigame_deliver_goods"
	xpayPays    = "xpay_goods_deliver_notify"
)

func (p push) delivers() bool {
	return slices.Contains([]string{gamePays, shopPays, shopPaysToo, xpayPays}, p.event) && !p.mock
}

// text returns a field of what a push is about as text, a number as it is written.
func (p push) text(names ...string) string {
	fields := p.payload
	for _, name := range names[:len(names)-1] {
		fields, _ = fields[name].(map[string]any)
	}
	if v := fields[names[len(names)-1]]; v != nil {
		return fmt.Sprint(v)
	}
	return ""
}

// key returns the number of the AppKey, among those given to tap, under which the PayEventSig of a
// push matches; 0 for none.
func (p push) key() int {
	for _, way := range p.signed {
		if number, ok := strings.CutPrefix(way, SignedPayEvent); ok {
			n, _ := strconv.Atoi(number)
			return n
		}
	}
	return 0
}

func miniSig(r *recording, f *findings) {
	for _, p := range r.pushes {
		if p.key() > 0 && !p.mock {
			f.found(lang.T("answer.as-printed", p.key(), env(p)), p.line)
		}
	}
}

// env returns the environment that a push says it is of: 0 live, 1 sandbox.
func env(p push) string {
	if env := p.text("Env"); env == "0" || env == "1" {
		return env
	}
	return "?"
}

// miniMock says how a mock push is signed. One that matches none of the keys given decides nothing.
func miniMock(r *recording, f *findings) {
	for _, p := range r.pushes {
		mini, _ := p.fields["MiniGame"].(map[string]any)
		switch sig, _ := mini["PayEventSig"].(string); {
		case !p.mock:
		case p.key() > 0:
			f.found(lang.T("answer.mock-signed", p.key(), env(p)), p.line)
		case sig == "":
			f.found(lang.T("answer.mock-unsigned"), p.line)
		}
	}
}

// miniPrice compares two deliveries of one item in different quantities: with one alone nobody knows
// whether its price is of a piece.
func miniPrice(field string) func(*recording, *findings) {
	return func(r *recording, f *findings) {
		before := map[[2]string]push{} // of an item and an environment, the latest
		for _, p := range r.pushes {
			price, quantity := amounts(p, field)
			if !p.delivers() || price <= 0 || quantity <= 0 {
				continue
			}
			item := [2]string{p.text("GoodsInfo", "ProductId"), env(p)}
			if other, known := before[item]; known {
				otherPrice, otherQuantity := amounts(other, field)
				switch {
				case quantity == otherQuantity:
				case price == otherPrice:
					f.found(lang.T("answer.of-a-piece"), other.line, p.line)
				case price*otherQuantity == otherPrice*quantity:
					f.found(lang.T("answer.of-all"), other.line, p.line)
				}
			}
			before[item] = p
		}
	}
}

func amounts(p push, field string) (price, quantity int) {
	price, _ = number(p.text("GoodsInfo", field))
	quantity, _ = number(p.text("GoodsInfo", "Quantity"))
	return price, quantity
}

func miniShopEvent(r *recording, f *findings) {
	found := map[string][]int{}
	for _, p := range r.pushes {
		if p.event == shopPays || p.event == shopPaysToo {
			found[p.event] = append(found[p.event], p.line)
		}
	}
	f.list("answer.names", found)
}

func miniShopTest(r *recording, f *findings) {
	for _, p := range r.pushes {
		if p.delivers() && p.text("GoodsInfo", "OrderSource") == "3" {
			f.found(lang.T("answer.comes"), p.line)
		}
	}
}

func miniCoinAmount(r *recording, f *findings) {
	found := map[string][]int{}
	for _, p := range r.pushes {
		for _, name := range []string{"ActualPrice", "TotalPrice"} {
			if p.event == coinsCome && p.text("CoinInfo", name) != "" {
				found[name] = append(found[name], p.line)
			}
		}
	}
	f.list("answer.names", found)
}

func miniRefundNumber(r *recording, f *findings) {
	for _, p := range r.pushes {
		switch {
		case p.event != refunded || p.mock:
		case p.text("OutTradeNo") != "":
			f.found(lang.T("answer.comes"), p.line)
		default:
			f.found(lang.T("answer.missing"), p.line)
		}
	}
}

// pushNames are the fields of what a push is about (minigame.md 3.3).
var pushNames = []string{
	"OpenId", "Env", "OutTradeNo", "GoodsInfo", "WeChatPayInfo", "CoinInfo", "RefundId", "RefundAmount", "RefundSource",
	"ProductId", "Quantity", "ZoneId", "OrigPrice", "ActualPrice", "TotalPrice", "BuyQuantity", "Attach", "OrderSource", "MchOrderNo", "TransactionId",
}

func miniNames(r *recording, f *findings) {
	found := map[string][]int{}
	for _, p := range r.pushes {
		if p.key() == 0 || p.mock {
			continue
		}
		walk(p.payload, func(name string) {
			if plainName.MatchString(name) && !slices.Contains(pushNames, name) {
				found[name] = append(found[name], p.line)
			}
		})
	}
	f.list("answer.names", found)
}

func walk(fields map[string]any, each func(name string)) {
	for name, value := range fields {
		each(name)
		if inner, ok := value.(map[string]any); ok {
			walk(inner, each)
		}
	}
}

func miniFormat(r *recording, f *findings) {
	found := map[string][]int{}
	for _, p := range r.pushes {
		for way, name := range map[string]string{SignedJSON: "JSON", SignedXML: "XML"} {
			if p.delivers() && p.event != xpayPays && p.has(way) {
				found[name] = append(found[name], p.line)
			}
		}
	}
	f.list("answer.names", found)
}

// miniURL says whether a delivery and a push of another kind came to one path. Each alone says nothing.
func miniURL(r *recording, f *findings) {
	at := slices.IndexFunc(r.pushes, push.delivers)
	if at < 0 {
		return
	}
	delivery := r.pushes[at]
	for _, p := range r.pushes {
		switch {
		case p.delivers() || p.mock || !slices.Contains(otherEvents, p.event):
		case p.path == delivery.path:
			f.found(lang.T("answer.one-url", p.event), delivery.line, p.line)
		default:
			f.found(lang.T("answer.two-urls", p.event), delivery.line, p.line)
		}
	}
}

var otherEvents = []string{coinsCome, "minigame_recharge_center_coin_deliver_completed", refunded, gift, "xpay_refund_notify", "xpay_coin_pay_notify", "xpay_complaint_notify"}

// deliveries returns the pushes of each delivery in their sequence. As with payments, another User-Agent
// is another program, which sends again what WeChat sent.
func (r *recording) deliveries() (all [][]push) {
	at := map[[4]string]int{}
	for _, p := range r.pushes {
		if !p.delivers() || p.text("OutTradeNo") == "" {
			continue
		}
		key := [4]string{p.event, p.text("Env"), p.text("OutTradeNo"), p.agent}
		i, known := at[key]
		if !known {
			i = len(all)
			at[key], all = i, append(all, nil)
		}
		all[i] = append(all[i], p)
	}
	for _, d := range all {
		slices.SortStableFunc(d, func(a, b push) int { return a.time.Compare(b.time) })
	}
	return all
}

func miniTimestamp(r *recording, f *findings) {
	for _, d := range r.deliveries() {
		for i, p := range d[1:] {
			if !p.time.After(d[i].end) {
				continue
			}
			if p.value("timestamp") == d[i].value("timestamp") {
				f.found(lang.T("answer.timestamp-old"), d[i].line, p.line)
			} else {
				f.found(lang.T("answer.timestamp-new"), d[i].line, p.line)
			}
		}
	}
}

// miniTaken says whether the bare word success counts for the delivery of a mini game, or for an
// encrypted one of a mini program. That it does is shown only where another delivery, whose answer
// was none, was pushed again, and the recording went on much longer than that took.
func miniTaken(program bool) func(*recording, *findings) {
	return func(r *recording, f *findings) {
		if !r.whole {
			return
		}
		var again time.Duration // how long it took until what failed was pushed again
		failed := [2]int{}
		var taken []push
		for _, d := range r.deliveries() {
			for i, p := range d {
				switch last := i == len(d)-1; {
				case (p.event == xpayPays) != program || program && !p.has(SignedEncrypted):
				case p.answered == "success" && p.status == 200 && last:
					taken = append(taken, p)
				case p.answered == "success" && p.status == 200:
					f.found(lang.T("answer.pushed-again", seconds(d[i+1].time.Sub(p.time))), p.line, d[i+1].line)
				case !last && again == 0 && p.status == 200 && strings.Contains(p.answered, `"ErrCode":`) && !strings.Contains(p.answered, `"ErrCode":0`):
					again, failed = d[i+1].time.Sub(p.time), [2]int{p.line, d[i+1].line}
				}
			}
		}
		for _, p := range taken {
			if quiet := r.seen.To.Sub(p.end); again > 0 && quiet > 5*again+time.Minute {
				f.found(lang.T("answer.success-taken", seconds(quiet), seconds(again)), p.line, failed[0], failed[1])
			}
		}
	}
}

func miniUserIP(r *recording, f *findings) {
	for _, c := range r.calls {
		if !strings.HasPrefix(c.path, "/wxa/game/") || c.path == "/wxa/game/queryorderinfo" || c.fields["user_ip"] != nil {
			continue
		}
		message, _ := c.answer["errmsg"].(string)
		switch code, ok := c.code(); {
		case ok && code == 0:
			f.found(lang.T("answer.not-required"), c.line)
		case ok && code == 90018 && strings.Contains(message, "user_ip"):
			f.found(lang.T("answer.required"), c.line)
		}
	}
}

func miniReturnCodes(r *recording, f *findings) {
	found := map[string][]int{}
	for _, c := range r.calls {
		if code, ok := c.code(); ok && code != 0 && c.path == "/wxa/game/cancelpay" {
			found[strconv.Itoa(code)] = append(found[strconv.Itoa(code)], c.line)
		}
	}
	f.list("answer.names", found)
}

func xpayRepeat(r *recording, f *findings) {
	if !r.whole {
		return
	}
	for _, d := range r.deliveries() {
		var when []string
		var lines []int
		for i, p := range d[1:] {
			if p.event == xpayPays && d[i].status != 0 && p.time.After(d[i].end) {
				when, lines = append(when, seconds(p.time.Sub(d[i].time))), append(lines, d[i].line, p.line)
			}
		}
		if when != nil {
			f.found(lang.T("answer.repeated", strings.Join(when, ", ")), lines...)
		}
	}
}

func xpaySandbox(r *recording, f *findings) {
	for _, p := range r.pushes {
		if p.event == xpayPays && p.text("Env") == "1" {
			f.found(lang.T("answer.comes"), p.line)
		}
	}
}

func xpayAttach(r *recording, f *findings) {
	for _, p := range r.pushes {
		goods, _ := p.payload["GoodsInfo"].(map[string]any)
		if attach, there := goods["Attach"]; p.event == xpayPays && there && attach == "" && p.payload["AppleSubscriptionInfo"] == nil {
			f.found(lang.T("answer.taken"), p.line)
		}
	}
}

func xpayAppleEnv(r *recording, f *findings) {
	for _, p := range r.pushes {
		switch {
		case p.event != xpayPays || p.payload["AppleSubscriptionInfo"] == nil:
		case p.text("Env") != "":
			f.found(lang.T("answer.comes"), p.line)
		default:
			f.found(lang.T("answer.missing"), p.line)
		}
	}
}

func xpayTokens(r *recording, f *findings) {
	for _, p := range r.pushes {
		if p.event == xpayPays && p.payload["CoinInfo"] != nil && p.text("GoodsInfo", "ProductId") == "" {
			f.found(lang.T("answer.comes"), p.line)
		}
	}
}

func xpayPaySig(r *recording, f *findings) {
	for _, c := range r.calls {
		api := strings.TrimPrefix(c.path, "/xpay/")
		if code, ok := c.code(); api != "present_currency" && api != "notify_provide_goods" || !ok || code != 0 {
			continue
		}
		if c.value("pay_sig") != "" {
			f.found(lang.T("answer.with-pay-sig", api), c.line)
		} else {
			f.found(lang.T("answer.without-pay-sig", api), c.line)
		}
	}
}

func xpayPartRefund(r *recording, f *findings) {
	found := map[string][]int{}
	for _, c := range r.calls {
		o, _ := c.answer["order"].(map[string]any)
		refund, _ := number(o["refund_fee"])
		left, _ := number(o["left_fee"])
		if status, ok := number(o["status"]); ok && c.path == "/xpay/query_order" && refund > 0 && left > 0 {
			found[strconv.Itoa(status)] = append(found[strconv.Itoa(status)], c.line)
		}
	}
	f.list("answer.names", found)
}
