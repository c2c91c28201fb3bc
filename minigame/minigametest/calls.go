package minigametest

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

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
}

// rules say what each call must look like (minigame.md 5 and 6): its query and its body.
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
		return failure(-1, "no body")
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
			return failure(40163, "code been used, rid: 1")
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
		return failure(40001, "invalid credential, access_token is invalid or not latest, rid: 1")
	}
	if r.URL.Path == "/wxa/checksession" {
		if query.Get("sig_method") != "hmac_sha256" {
			return s.wrong(-1, "%s: sig_method", r.URL.Path)
		}
		key := s.sessions[query.Get("openid")]
		if key == "" || s.expired[key] || query.Get("signature") != hexMAC(key, "") {
			return failure(87009, "invalid signature")
		}
		return object{}
	}
	return s.call(r, sent)
}

// wrong reports a call that is made wrongly, and answers it.
func (s *Server) wrong(code int, format string, args ...any) object {
	s.cfg.Errorf("minigametest: "+format, args...)
	return failure(code, "refused")
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
	if s.cfg.MiniProgram {
		signature, paySig, parameter, expired = 268490003, 268490003, 268490002, 268490009
	}
	if r.Method != http.MethodPost {
		return s.wrong(43002, "%s: POST is needed", path)
	}
	names := make([]string, 0, len(query))
	for name := range query {
		names = append(names, name)
	}
	slices.Sort(names)
	if got := strings.Join(names, " "); got != rule.query {
		return s.wrong(parameter, "%s: query parameters %q, want %q", path, got, rule.query)
	}
	var fields map[string]json.RawMessage
	var in body
	decoder := json.NewDecoder(bytes.NewReader(sent))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&in); err != nil || json.Unmarshal(sent, &fields) != nil {
		return s.wrong(47001, "%s: body: %v", path, err)
	}
	for name := range strings.FieldsSeq(rule.required) {
		if v := string(fields[name]); v == "" || v == `""` {
			return s.wrong(parameter, "%s: %s is missing", path, name)
		}
	}
	if in.OfferID != "" && in.OfferID != s.cfg.OfferID || in.Env != 0 && in.Env != 1 {
		return s.wrong(parameter, "%s: offer_id or env", path)
	}
	if query.Get("pay_sig") != hexMAC(s.appKey(in.Env), path+"&"+string(sent)) {
		return s.wrong(paySig, "%s: pay_sig", path)
	}
	if strings.Contains(rule.query, "signature") {
		switch key := s.sessions[in.OpenID]; {
		case s.expired[key]:
			return failure(expired, "session_key expired")
		case key == "" || query.Get("signature") != hexMAC(key, string(sent)):
			return failure(signature, "signature error")
		}
	}
	return s.carryOut(path, &in)
}

// find returns the order of a call by its number or by WeChat's (minigame.md 6); nil if there
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
			return failure(90019, "out_trade_no not found")
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
		return object{"url": "https://bill.example/" + fmt.Sprint(in.BeginDS)}
	case "/wxa/game/getbalance", "/xpay/query_user_balance":
		n := s.coins[account(in.OpenID, in.Env, in.ZoneID)]
		return object{"balance": n, "present_balance": 0, "sum_save": n, "first_save": true, "first_save_flag": 1}
	}
	return s.moveCoins(path, in)
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
