package main

import (
	"bytes"
	"cmp"
	"embed"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midastest"
)

//go:embed pages
var pageFiles embed.FS

var templates = template.Must(template.New("").Funcs(template.FuncMap{"visible": visible}).ParseFS(pageFiles, "pages/*.html"))

// maxShown is how many orders the dashboard shows.
const maxShown = 100

// A view is what the templates see.
type view struct {
	Lang string
	T    map[string]string // the words of the page in its language
	exchange
	Callbacks []view // newest first

	// Of an order: what is sold, and where to pay.
	Name, Description string
	Items             []midas.Item
	Total             midas.Amount
	Cashier           string
	Method            string // the login's own pay method
	Expired           bool
}

// viewOf returns the view of an exchange.
func (s *sandbox) viewOf(lang string, e exchange) view {
	v := view{Lang: lang, T: words[lang], exchange: e}
	if e.Kind != "order" {
		return v
	}
	v.Name, v.Description, _ = strings.Cut(value(e.Params, "goodsmeta"), "*")
	v.Items, _ = parseItems(value(e.Params, "payitem")) // in an order that was refused it may be anything
	for _, item := range v.Items {
		v.Total += item.Price * midas.Amount(item.Quantity)
	}
	v.Cashier = cashierPath(s.appID, e.Token)
	return v
}

// Charged returns what a callback says was paid.
func (v view) Charged() midas.Amount {
	fen, _ := strconv.ParseInt(value(v.Params, "amt"), 10, 64) // midastest wrote it
	return midas.Amount(fen)
}

// Clock returns the time of day.
func (v view) Clock() string { return v.Time.Format(time.TimeOnly) }

// PatienceMS returns how long Midas waits for the answer to a callback.
func (v view) PatienceMS() int64 { return midastest.Patience.Milliseconds() }

// ActionWord returns what a callback came from, in words.
func (v view) ActionWord() string { return v.T[v.Action] }

func (s *sandbox) serveDashboard(w http.ResponseWriter, r *http.Request) {
	lang := pageLanguage(r)
	exchanges, _ := s.since(0)
	last := 0
	var cards []view                 // newest first
	callbacks := map[string][]view{} // by token; they come after their order
	for _, e := range slices.Backward(exchanges) {
		last = max(last, e.Seq)
		v := s.viewOf(lang, e)
		if e.Kind != "order" {
			callbacks[e.Token] = append(callbacks[e.Token], v)
		} else if len(cards) < maxShown {
			v.Callbacks = callbacks[e.Token]
			cards = append(cards, v)
		}
	}
	writePage(w, http.StatusOK, "dashboard.html", map[string]any{
		"Lang": lang, "T": words[lang], "Orders": cards, "Last": s.eventID(last), "Shown": maxShown,
		"Base": "http://" + r.Host, "AppID": s.appID, "Path": s.path, "Curl": s.curl("http://" + r.Host),
	})
}

// serveCashier shows the page that url_params stands for (protocol.md 4).
func (s *sandbox) serveCashier(w http.ResponseWriter, r *http.Request) {
	lang := pageLanguage(r)
	o, found := s.order(r.FormValue("token_id"))
	if !found || r.PathValue("appid") != s.appID {
		writePage(w, http.StatusNotFound, "cashier.html", view{Lang: lang, T: words[lang]})
		return
	}
	v := s.viewOf(lang, o)
	v.Expired = s.now().After(expiry(o))
	v.Method = "qqwallet"
	if value(o.Cookies, "session_id") == "hy_gameid" { // WeChat, or a guest (protocol.md 4)
		v.Method = "wechat"
	}
	writePage(w, http.StatusOK, "cashier.html", v)
}

// serveEvents tells the dashboard of every exchange after the one it knows, as it happens.
func (s *sandbox) serveEvents(w http.ResponseWriter, r *http.Request) {
	lang := pageLanguage(r)
	known := cmp.Or(r.Header.Get("Last-Event-ID"), r.FormValue("after")) // the first where the browser comes back
	start, seq, _ := strings.Cut(known, "-")
	after, _ := strconv.Atoi(seq)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	if known != "" && start != s.start { // the page is that of an earlier run
		io.WriteString(w, "event: reload\ndata: -\n\n")
		return
	}
	stream := http.NewResponseController(w)
	alive := time.NewTicker(20 * time.Second) // a write that fails ends a page that was closed unseen
	defer alive.Stop()
	for {
		exchanges, changed := s.since(after)
		var events bytes.Buffer
		for _, e := range exchanges {
			after = e.Seq
			var html bytes.Buffer
			if err := templates.ExecuteTemplate(&html, e.Kind, s.viewOf(lang, e)); err != nil {
				panic(err)
			}
			data, _ := json.Marshal(map[string]string{"kind": e.Kind, "token": e.Token, "html": html.String()}) // strings always marshal
			fmt.Fprintf(&events, "id: %s\ndata: %s\n\n", s.eventID(e.Seq), data)
		}
		stream.SetWriteDeadline(time.Now().Add(10 * time.Second))
		if events.Len() == 0 {
			events.WriteString(":\n\n")
		}
		if _, err := w.Write(events.Bytes()); err != nil || stream.Flush() != nil {
			return
		}
		select {
		case <-changed:
		case <-alive.C:
		case <-r.Context().Done():
			return
		}
	}
}

// eventID names an exchange beyond this run.
func (s *sandbox) eventID(seq int) string { return s.start + "-" + strconv.Itoa(seq) }

func writePage(w http.ResponseWriter, status int, name string, data any) {
	var page bytes.Buffer
	if err := templates.ExecuteTemplate(&page, name, data); err != nil {
		panic(err)
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Vary", "Accept-Language")
	h.Set("Cache-Control", "no-store")
	// Were anything on the page not escaped, it still would not run.
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	w.WriteHeader(status)
	w.Write(page.Bytes())
}

// servePageFile serves the script, the style and the icon.
func servePageFile(w http.ResponseWriter, r *http.Request) {
	if strings.HasSuffix(r.PathValue("file"), ".html") { // a template
		http.NotFound(w, r)
		return
	}
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-cache")
	http.ServeFileFS(w, r, pageFiles, "pages/"+r.PathValue("file"))
}

// pageLanguage returns the first of the browser's languages that there is.
func pageLanguage(r *http.Request) string {
	for tag := range strings.SplitSeq(r.Header.Get("Accept-Language"), ",") {
		tag = strings.ToLower(strings.TrimSpace(tag))
		switch {
		case strings.HasPrefix(tag, "zh"):
			return "zh"
		case strings.HasPrefix(tag, "en"):
			return "en"
		}
	}
	return "en"
}

// words are the texts of the pages. Those named like an action are what it is called.
var words = map[string]map[string]string{
	"en": {
		"sandbox": "Midas sandbox", "live": "live", "lost": "connection lost", "none": "No orders yet. Place one:",
		"baseURL": "Base URL", "offerID": "Offer id", "signedFor": "Callbacks signed for", "cashier": "Cashier",
		"next": "The next order gets", "ret": "ret", "delay": "delay, ms", "html": "an HTML page", "set": "Set", "isSet": "The next order gets that answer.",
		"pay": "Pay", "twice": "Twice at once", "discount": "Pay 95 %", "repeat": "Repeat the last", "forge": "Forged", "expire": "After expiry",
		"issued": "token issued", "refused": "refused because", "accepted": "accepted", "forgeryRefused": "refused, as a forgery should be",
		"forgeryAccepted": "A FORGERY WAS ACCEPTED: the backend does not check the signature", "cancelled": "The player left the cashier.",
		"asked": "What was asked", "called": "What was called", "params": "Parameters", "cookies": "Cookies", "baseString": "Base string of the right signature",
		"answer": "Answer", "status": "status", "of": "of 2 s", "made": "The signature received was made with this mistake:",
		"change": "To change:", "player": "Player", "zone": "zone",
		"unknown": "No such order", "unknownHint": "The token is unknown here: place an order and open the url_params of its answer.",
		"expired": "This order has expired. Place a new one.", "method": "Pay with", "qqwallet": "QQ Wallet", "wechat": "WeChat Pay", "qdqb": "Q-coins",
		"qpoints": "Q-points", "yuan": "yuan", "payNow": "Pay", "payDiscount": "Pay with 5 % discount", "cancel": "Cancel",
		"paid": "Paid. The backend has delivered.", "notDelivered": "Paid, but not delivered:", "left": "Cancelled. Nothing was charged.", "test": "Sandbox: no money moves",
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
		"change": "改法：", "player": "玩家", "zone": "大区",
		"unknown": "没有这个订单", "unknownHint": "这里不认识该 token：请先下单，再打开应答里的 url_params。",
		"expired": "订单已过期，请重新下单。", "method": "支付方式", "qqwallet": "QQ 钱包", "wechat": "微信支付", "qdqb": "Q 币",
		"qpoints": "Q点", "yuan": "元", "payNow": "立即支付", "payDiscount": "95 折支付", "cancel": "取消",
		"paid": "支付成功，道具已发货。", "notDelivered": "已支付，但未发货：", "left": "已取消，没有扣款。", "test": "沙箱环境，不会真实扣款",
	},
}
