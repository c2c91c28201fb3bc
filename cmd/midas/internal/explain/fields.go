package explain

import (
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/midas-go/midas/cmd/midas/internal/lang"
)

// A call is one to WeChat: which signatures it carries, and the members of its body.
type call struct {
	userSig bool     // signature under the session_key; all but checkSession have pay_sig
	body    string   // name:type, n a number, b a boolean and s a string; "?" where it may be left out, "~" where the pages disagree on that, name|name where one of two is there
	names   []string // what the call is called, which is not what is signed
}

const checkSession = "/wxa/checksession"

// signedCall reports whether the calls of a path are signed, those too that are not in the table.
func signedCall(path string) bool {
	return path == checkSession || strings.HasPrefix(path, "/wxa/game/") || strings.HasPrefix(path, "/xpay/")
}

const (
	gameBody    = "openid:s offer_id:s ts:n zone_id:s env:n user_ip~:s "
	balanceBody = "openid:s env:n user_ip:s "
)

// calls are those of minigame.md 3.4 and 4.4 that games need.
var calls = map[string]call{
	checkSession:                         {true, "", []string{"checkSessionKey"}},
	"/wxa/game/queryorderinfo":           {true, strings.Replace(gameBody, "~", "?", 1) + "out_trade_no:s biz_id:n", []string{"pay_v2.queryOrder", "pay_v2.queryOrderInfo"}},
	"/wxa/game/getbalance":               {true, gameBody + "coin_type?:n", []string{"pay_v2.getBalance"}},
	"/wxa/game/pay":                      {true, gameBody + "amount:n bill_no:s payitem?:s remark?:s", []string{"pay_v2.pay"}},
	"/wxa/game/cancelpay":                {true, gameBody + "amount:n bill_no:s pay_bill_no:s", []string{"pay_v2.cancelPay"}},
	"/wxa/game/present":                  {true, gameBody + "amount:n bill_no:s", []string{"pay_v2.present"}},
	"/xpay/query_user_balance":           {true, balanceBody, []string{"xpay.queryUserBalance", "query_user_balance"}},
	"/xpay/currency_pay":                 {true, balanceBody + "amount:n order_id:s payitem?:s remark?:s", []string{"xpay.currencyPay", "currency_pay"}},
	"/xpay/cancel_currency_pay":          {true, balanceBody + "amount:n order_id:s pay_order_id:s", []string{"cancel_currency_pay"}},
	"/xpay/present_currency":             {false, "openid:s env:n amount:n order_id:s", []string{"present_currency"}},
	"/xpay/query_order":                  {false, "openid:s env:n order_id|wx_order_id:s", []string{"xpay.queryOrder", "queryOrder", "query_order"}},
	"/xpay/notify_provide_goods":         {false, "env:n order_id|wx_order_id:s openid?:s", []string{"notify_provide_goods"}},
	"/xpay/refund_order":                 {false, "openid:s env:n order_id|wx_order_id:s refund_order_id:s left_fee:n refund_fee:n biz_meta:s refund_reason:s req_from:s", []string{"refund_order"}},
	"/xpay/download_bill":                {false, "begin_ds:n end_ds:n", []string{"download_bill"}},
	"/xpay/start_download_order":         {false, "begin_ds:n end_ds:n order_type:n pay_channel:n env:n order_info?:s is_provided?:b refund_status?:n", []string{"start_download_order"}},
	"/xpay/download_ios_settlement_bill": {false, "start_month:s end_month:s", []string{"download_ios_settlement_bill"}},
	"/xpay/query_download_order":         {false, "task_id:s env:n", []string{"query_download_order"}},
}

// unquoted are the members that are numbers or booleans in any call.
var unquoted = listed("ts env amount biz_id coin_type left_fee refund_fee begin_ds end_ds order_type pay_channel is_provided refund_status")

// orderFields are the members of signData (minigame.md 3.1 and 4.1).
func orderFields(what string) string {
	if what == forGames {
		return "mode:s offerId:s buyQuantity:n env?:n currencyType:s platform?:s zoneId?:s productId?:s goodsPrice:n outTradeNo:s attach?:s extraInfo?:*"
	}
	return "mode?:s offerId:s buyQuantity:n env?:n currencyType:s productId?:s goodsPrice?:n activitySellingPrice?:n outTradeNo:s attach~:s extraInfo?:*"
}

// outTradeNo is what an order's number may be; of mini programs it has at least 8 characters.
var outTradeNo = regexp.MustCompile(`^[0-9A-Za-z|*@-][0-9A-Za-z_|*@-]{0,31}$`)

// noteFields refuses an order's or a call's JSON that lacks a member, and notes each that has
// another type or name than its table says, or another value than can be. The signatures cover any.
func (e *Explanation) noteFields(text, table, kind string) {
	var fields map[string]json.RawMessage
	if json.Unmarshal([]byte(text), &fields) != nil {
		return
	}
	known := nameSet{}
	for member := range strings.FieldsSeq(table) {
		names, want, _ := strings.Cut(member, ":")
		names, optional := strings.CutSuffix(names, "?")
		names, disputed := strings.CutSuffix(names, "~")
		found := false
		for name := range strings.SplitSeq(names, "|") {
			known[name] = true
			if raw := fields[name]; raw != nil {
				found = true
				e.noteField(name, string(raw), want)
			}
		}
		if missing := lang.T("member-missing", strings.ReplaceAll(names, "|", " / ")); !found && disputed {
			e.Notes = append(e.Notes, missing)
		} else if !found && !optional {
			e.refuse(missing)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if !known.has(name) {
			e.note("note.member-unknown-"+kind, name)
		}
	}
}

func (e *Explanation) noteField(name, raw, want string) {
	value := strings.Trim(raw, `"`)
	switch {
	case want == "s" && raw[0] != '"', want == "b" && raw != "true" && raw != "false", want == "n" && !strings.ContainsRune("-0123456789", rune(raw[0])):
		e.note("note.type-"+want, name)
	case want == "n" && strings.ContainsAny(raw, ".eE"):
		e.note("note.whole-number", name, raw)
	case name == "env" && raw != "0" && raw != "1":
		e.note("note.env", raw)
	case name == "env" && (raw == "1" || !e.Signatures[0].Verified): // which key it wants
		e.note("note.env-" + raw)
	case name == "currencyType" && value != "CNY":
		e.note("note.currency")
	case name == "outTradeNo" && !outTradeNo.MatchString(value):
		e.note("note.out-trade-no", value)
	}
}
