package minigametest

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/midas-go/midas/minigame"
)

// A move is coins that one number moved.
type move struct{ amount, returned int64 }

// body is every field of a server call.
type body struct {
	OpenID     string       `json:"openid"`
	OfferID    string       `json:"offer_id"`
	TS         int64        `json:"ts"`
	ZoneID     string       `json:"zone_id"`
	Env        minigame.Env `json:"env"`
	UserIP     string       `json:"user_ip"`
	OutTradeNo string       `json:"out_trade_no"`
	BizID      int          `json:"biz_id"`
	CoinType   int          `json:"coin_type"`
	Amount     int64        `json:"amount"`
	BillNo     string       `json:"bill_no"`
	PayBillNo  string       `json:"pay_bill_no"`
	PayItem    string       `json:"payitem"`
	Remark     string       `json:"remark"`

	OrderID       string `json:"order_id"`
	WxOrderID     string `json:"wx_order_id"`
	PayOrderID    string `json:"pay_order_id"`
	RefundOrderID string `json:"refund_order_id"`
	LeftFee       int64  `json:"left_fee"`
	RefundFee     int64  `json:"refund_fee"`
	BizMeta       string `json:"biz_meta"`
	RefundReason  string `json:"refund_reason"`
	ReqFrom       string `json:"req_from"`
	BeginDS       int    `json:"begin_ds"`
	EndDS         int    `json:"end_ds"`
	OrderType     int    `json:"order_type"`
	PayChannel    int    `json:"pay_channel"`
	IsProvided    *bool  `json:"is_provided"`
	TaskID        string `json:"task_id"`
	StartMonth    string `json:"start_month"`
	EndMonth      string `json:"end_month"`
}

// rules say what each call must look like (minigame.md 3.4 and 4.4): its query and its body.
var rules = map[string]struct{ query, required string }{
	"/wxa/game/queryorderinfo": {"access_token pay_sig sig_method signature", "openid offer_id ts zone_id env out_trade_no biz_id"},
	"/wxa/game/getbalance":     {"access_token pay_sig sig_method signature", "openid offer_id ts zone_id env user_ip"},
	"/wxa/game/pay":            {"access_token pay_sig sig_method signature", "openid offer_id ts zone_id env user_ip amount bill_no"},
	"/wxa/game/cancelpay":      {"access_token pay_sig sig_method signature", "openid offer_id ts zone_id env user_ip amount bill_no pay_bill_no"},
	"/wxa/game/present":        {"access_token pay_sig sig_method signature", "openid offer_id ts zone_id env user_ip amount bill_no"},

	"/xpay/query_user_balance":   {"access_token pay_sig signature", "openid env user_ip"},
	"/xpay/currency_pay":         {"access_token pay_sig signature", "openid env user_ip amount order_id"},
	"/xpay/cancel_currency_pay":  {"access_token pay_sig signature", "openid env user_ip pay_order_id order_id amount"},
	"/xpay/present_currency":     {"access_token pay_sig", "openid env order_id amount"},
	"/xpay/query_order":          {"access_token pay_sig", "openid env"},
	"/xpay/notify_provide_goods": {"access_token pay_sig", "env"},
	"/xpay/refund_order":         {"access_token pay_sig", "openid refund_order_id left_fee refund_fee refund_reason req_from env"},
	"/xpay/download_bill":        {"access_token pay_sig", "begin_ds end_ds"},

	"/xpay/start_download_order":         {"access_token pay_sig", "begin_ds end_ds order_type pay_channel env"},
	"/xpay/query_download_order":         {"access_token pay_sig", "task_id env"},
	"/xpay/download_ios_settlement_bill": {"access_token pay_sig", "start_month end_month"},
}

func (s *Server) answer(r *http.Request) object {
	query := r.URL.Query()
	for name, values := range query {
		if len(values) > 1 {
			s.cfg.Errorf("minigametest: %s: %s comes twice", r.URL.Path, name)
		}
	}
	sent, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return failure(-1, "")
	}
	switch r.URL.Path {
	case "/sns/jscode2session":
		openID, ok := s.codes[query.Get("js_code")]
		switch {
		case r.Method != http.MethodGet, query.Get("appid") != s.cfg.AppID, query.Get("grant_type") != "authorization_code":
			return s.wrong(40013, "%s: wrong method, appid or grant_type", r.URL.Path)
		case query.Get("secret") != s.cfg.Secret:
			return s.wrong(40125, "%s: wrong secret", r.URL.Path)
		case !ok:
			return failure(40163, "")
		}
		delete(s.codes, query.Get("js_code"))
		s.sessions[openID] = base64.StdEncoding.EncodeToString([]byte(rand.Text()[:16]))
		return object{"openid": openID, "session_key": s.sessions[openID]}
	case "/cgi-bin/stable_token":
		var in struct {
			GrantType    string `json:"grant_type"`
			AppID        string `json:"appid"`
			Secret       string `json:"secret"`
			ForceRefresh bool   `json:"force_refresh"`
		}
		if json.Unmarshal(sent, &in) != nil || in.GrantType != "client_credential" || in.AppID != s.cfg.AppID || in.Secret != s.cfg.Secret {
			return s.wrong(40013, "%s: wrong body", r.URL.Path)
		}
		if in.ForceRefresh {
			return s.wrong(45009, "%s: force_refresh kills the token of other processes", r.URL.Path)
		}
		return object{"access_token": s.token, "expires_in": 7200}
	}
	if query.Get("access_token") != s.token {
		return failure(40001, "")
	}
	if r.URL.Path == "/wxa/checksession" {
		if query.Get("sig_method") != "hmac_sha256" {
			return s.wrong(-1, "%s: sig_method", r.URL.Path)
		}
		key := s.sessions[query.Get("openid")]
		if key == "" || s.expired[key] || query.Get("signature") != hexMAC(key, "") {
			return failure(87009, "")
		}
		return object{}
	}
	return s.call(r, sent)
}

// wrong reports a call that is made wrongly, and answers it.
func (s *Server) wrong(code int, format string, args ...any) object {
	return s.say(code, "", format, args...)
}

// say is wrong with WeChat's words.
func (s *Server) say(code int, msg, format string, args ...any) object {
	s.cfg.Errorf("minigametest: "+format, args...)
	return failure(code, msg)
}

// call verifies a payment call and carries it out.
func (s *Server) call(r *http.Request, sent []byte) object {
	path, query := r.URL.Path, r.URL.Query()
	rule, ok := rules[path]
	if !ok || s.cfg.MiniProgram != strings.HasPrefix(path, "/xpay/") {
		return s.wrong(48001, "%s: no call of this product", path)
	}
	signature, paySig, parameter := 90010, 90011, 90018
	expired := 90016
	userWords, payWords := "", ""
	if s.cfg.MiniProgram {
		signature, paySig, parameter, expired = 268490003, 268490003, 268490002, 268490009
		userWords, payWords = "用户态签名(signature)校验失败", "支付签名(pay_sig)校验失败"
	}
	if r.Method != http.MethodPost {
		return s.wrong(43002, "%s: POST is needed", path)
	}
	names := slices.Sorted(maps.Keys(query))
	if got := strings.Join(names, " "); got != rule.query {
		return s.say(parameter, "invalid args", "%s: query parameters %q, want %q", path, got, rule.query)
	}
	var fields map[string]json.RawMessage
	var in body
	decoder := json.NewDecoder(bytes.NewReader(sent))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&in); err != nil || json.Unmarshal(sent, &fields) != nil {
		return s.wrong(47001, "%s: body: %v", path, err)
	}
	invalid := func(name string) object {
		return s.say(parameter, fmt.Sprintf("[%s] %[1]s is invalid", name), "%s: %s is missing or wrong", path, name)
	}
	for name := range strings.FieldsSeq(rule.required) {
		if v := string(fields[name]); v == "" || v == `""` {
			return invalid(name)
		}
	}
	switch {
	case in.OfferID != "" && in.OfferID != s.cfg.OfferID:
		return invalid("offer_id")
	case in.Env != 0 && in.Env != 1:
		return invalid("env")
	}
	if got, want := query.Get("pay_sig"), hexMAC(s.appKey(in.Env), path+"&"+string(sent)); got != want {
		return s.say(paySig, payWords, "%s: pay_sig%s", path, inUpperCase(got, want))
	}
	if strings.Contains(rule.query, "signature") {
		key := s.sessions[in.OpenID]
		got, want := query.Get("signature"), hexMAC(key, string(sent))
		switch {
		case s.expired[key]:
			return failure(expired, "")
		case key != "" && strings.EqualFold(got, want) && got != want:
			return s.say(signature, userWords, "%s: signature%s", path, inUpperCase(got, want))
		case key == "" || got != want:
			return failure(signature, userWords)
		}
	}
	return s.carryOut(path, &in)
}

// inUpperCase says so of a signature that is right otherwise.
func inUpperCase(got, want string) string {
	if got != want && strings.EqualFold(got, want) {
		return " is in upper case"
	}
	return ""
}

// find returns the order of a call by its number or by WeChat's (minigame.md 4.4); nil if there
// is none of this player's. One call names no player.
func (s *Server) find(in *body) *order {
	o := s.orders[orderKey(in.Env, in.OutTradeNo+in.OrderID)]
	if in.WxOrderID != "" {
		for _, other := range s.orders {
			if other.transactionID == in.WxOrderID && other.env == in.Env {
				o = other
			}
		}
	}
	if o != nil && in.OpenID != "" && o.openID != in.OpenID {
		return nil
	}
	return o
}

func (s *Server) carryOut(path string, in *body) object {
	o := s.find(in)
	switch path {
	case "/wxa/game/queryorderinfo":
		if o == nil {
			return failure(90019, "")
		}
		delivered := 1
		if o.delivered {
			delivered = 2
		}
		return object{"out_trade_no": o.outTradeNo, "product_id": o.productID, "pay_state": 2, "deliver_state": delivered,
			"pay_finish_time": o.paid.Unix(), "mch_order_no": o.mchOrderNo, "transaction_id": o.transactionID}
	case "/xpay/query_order":
		if refund, ok := s.refunds[orderKey(in.Env, in.OrderID)]; ok && o == nil && refund.OpenID == in.OpenID {
			return object{"order": object{"order_id": refund.RefundOrderID, "wx_order_id": "wx" + refund.RefundOrderID, "status": 8, "env_type": int(in.Env) + 1,
				"order_type": 1, "order_fee": refund.RefundFee, "refund_fee": refund.RefundFee, "left_fee": 0}}
		}
		if o == nil {
			return failure(268490002, "order not exist")
		}
		status := 2
		switch {
		case o.refunded > 0:
			status = 8
		case o.delivered:
			status = 4
		}
		return object{"order": object{"order_id": o.outTradeNo, "wx_order_id": o.transactionID, "status": status, "env_type": int(o.env) + 1,
			"order_type": 0, "order_fee": o.charged, "paid_fee": o.charged, "left_fee": o.charged - o.refunded, "paid_time": o.paid.Unix()}}
	case "/xpay/notify_provide_goods":
		if o == nil {
			return failure(268490002, "order not exist")
		}
		o.delivered = true
		return object{}
	case "/xpay/refund_order":
		if o == nil {
			return failure(268490002, "order not exist")
		}
		refund := *in
		refund.OrderID, refund.WxOrderID = o.outTradeNo, "" // either names the order
		key := orderKey(in.Env, in.RefundOrderID)
		before, ok := s.refunds[key]
		switch {
		case ok && before == refund:
			return failure(268490004, "refund done before")
		case ok:
			return failure(268490002, "refund_order_id was used with other parameters")
		case in.RefundFee < 1 || in.RefundFee > in.LeftFee:
			return s.wrong(268490002, "%s: refund_fee is not from 1 to left_fee", path)
		case in.LeftFee != int64(o.charged-o.refunded):
			return failure(268490016, "left_fee")
		}
		s.refunds[key] = refund
		o.refunded += fen(in.RefundFee)
		return object{"refund_order_id": in.RefundOrderID, "refund_wx_order_id": "wx" + in.RefundOrderID, "pay_order_id": o.outTradeNo, "pay_wx_order_id": o.transactionID}
	case "/xpay/download_bill":
		return object{"url": s.file(fmt.Sprintf("bill of %d to %d", in.BeginDS, in.EndDS))}
	case "/xpay/download_ios_settlement_bill":
		return object{"bill_list": []object{{"month": in.StartMonth, "bill_url": s.file("Apple's bill of " + in.StartMonth)}}}
	case "/xpay/start_download_order":
		return s.startDownload(in)
	case "/xpay/query_download_order":
		made := s.tasks[in.TaskID]
		if made == nil {
			return failure(268490002, "[task_id] task_id is invalid")
		}
		if made.asked++; made.asked == 1 {
			return object{"task_id": in.TaskID, "status": 1}
		}
		return object{"task_id": in.TaskID, "status": 2, "download_url": made.url, "expire_at": s.cfg.Now().Add(30 * time.Minute).Unix()}
	case "/wxa/game/getbalance", "/xpay/query_user_balance":
		n := s.coins[account(in.OpenID, in.Env, in.ZoneID)]
		return object{"balance": n, "present_balance": 0, "sum_save": n, "first_save": true, "first_save_flag": 1}
	}
	return s.moveCoins(path, in)
}

// A task makes a list of orders.
type task struct {
	url   string
	asked int // how often it was asked for: the first time it is still running
}

// startDownload makes a list of orders: a line for each with its number, player and item.
func (s *Server) startDownload(in *body) object {
	switch asksDelivered := in.OrderType == 2 || in.OrderType == 3; {
	case in.OrderType < 1 || in.OrderType > 4 || in.PayChannel != 1 && in.PayChannel != 2:
		return s.say(268490002, "[order_type] order_type is invalid", "order_type or pay_channel")
	case asksDelivered != (in.IsProvided != nil):
		return s.say(268490002, "[is_provided] is_provided is invalid", "is_provided is for items and subscriptions, which need it")
	}
	var lines []string
	for _, o := range s.orders {
		if in.OrderType == 2 && in.PayChannel == 1 && o.env == in.Env && o.delivered == *in.IsProvided {
			lines = append(lines, fmt.Sprintf("%s,%s,%s,%d\n", o.outTradeNo, o.openID, o.productID, o.quantity))
		}
	}
	slices.Sort(lines)
	id := "task" + rand.Text()
	s.tasks[id] = &task{url: s.file(strings.Join(lines, ""))}
	return object{"task_id": id}
}

// file returns the address of a file that is made.
func (s *Server) file(content string) string {
	path := "/file/" + rand.Text()
	s.files[path] = content + "\n"
	return s.http.URL + path + "?sign=" + rand.Text()
}

// moveCoins carries out a call that moves coins, once for its number.
func (s *Server) moveCoins(path string, in *body) object {
	before, insufficient, unknown := 90012, 90013, 90000
	number, pays := in.BillNo, in.PayBillNo
	if s.cfg.MiniProgram {
		before, insufficient, unknown = 268490004, 268490006, 268490002
		number, pays = in.OrderID, in.PayOrderID
	}
	owner := account(in.OpenID, in.Env, in.ZoneID)
	id := owner + "/"
	balance := s.coins[owner]
	if _, ok := s.moves[id+number]; ok {
		return failure(before, "order already exists")
	}
	switch {
	case strings.Contains(path, "cancel"):
		paid, ok := s.moves[id+pays]
		if !ok || paid.returned+in.Amount > paid.amount {
			return failure(unknown, "nothing to return")
		}
		paid.returned += in.Amount
		s.moves[id+pays] = paid
		balance += in.Amount
	case strings.Contains(path, "present"):
		balance += in.Amount
	case balance < in.Amount:
		return failure(insufficient, "balance not enough")
	default:
		balance -= in.Amount
	}
	s.moves[id+number] = move{amount: in.Amount}
	s.coins[owner] = balance
	return object{"bill_no": number, "order_id": number, "balance": balance, "used_present_amount": 0}
}
