package midastest

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/midas-go/midas"
)

const buyGoods = "/mpay/buy_goods_m"

// A Fault is what goes wrong with one order. Fields can be combined; of several answers, Body
// comes before Status and HTML, and these before Ret. With the zero value nothing goes wrong.
type Fault struct {
	Delay  time.Duration // wait before answering, or until the caller hangs up
	Status int           // this HTTP status, with an HTML page as proxies send
	Ret    int           // refuse with this ret, Msg and Code
	Msg    string        // with Ret; if Msg and Code are both empty, the real gateway's for 1001, 1016 and 1018
	Code   string        // with Ret: err_code
	HTML   bool          // status 200 and an HTML page
	Cut    bool          // break the connection in the middle of the body
	Body   string        // this body instead of any other
}

// NextOrders sets the faults of the next orders, one for each, in this sequence; the orders
// after them work again. An order that gets another answer than its own is not checked. A login
// error that passes by itself, as once seen in the wild, is NextOrders(Fault{Ret: 1018}).
func (s *Server) NextOrders(faults ...Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, faults...)
}

// An OrderAttempt is a request for an order, and its outcome.
type OrderAttempt struct {
	Time       time.Time
	RawQuery   string     // as received: openkey, pfkey and sig included
	Params     url.Values // decoded; nil if the query could not be read
	Cookies    []*http.Cookie
	Token      string   // the order's; empty if it was refused
	Status     int      // HTTP status of the answer; 0 if the caller hung up first
	Body       string   // the answer's
	Ret        int      // the answer's
	Problem    string   // why it was refused; empty if it was not
	Notes      []string // what was let pass although Tencent's pages ask for something else: see Config.Strict
	BaseString string   // what should have been signed; set if the signature is the problem
}

// An order was accepted by the fake, or placed by the app itself.
type order struct {
	params url.Values
	login  midas.Login
	made   time.Time
}

// A refusal is an answer with a ret other than 0.
type refusal struct {
	ret        int
	msg, code  string
	problem    string // told to the developer, not to the caller
	baseString string
}

// words are the real gateway's own (protocol.md 4, answer).
func words(ret int) (msg, code string) {
	switch ret {
	case 1001:
		return "请求参数错误", ""
	case 1016:
		return "对不起,你还没有接入权限", "1016-1016-0"
	case 1018:
		return "请先登录", "1018--2-20"
	}
	return "", ""
}

// refuse returns the refusal of a bad parameter.
func refuse(param, problem string) *refusal {
	msg, code := words(1001)
	return &refusal{ret: 1001, msg: msg + "(" + param + ")", code: code, problem: "parameter " + param + ": " + problem}
}

// ServeHTTP answers requests for orders.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != buyGoods {
		s.complain("%s %s: no such path; orders go to %s", r.Method, r.URL.Path, buyGoods)
		http.Error(w, "midastest: no such path; orders go to "+buyGoods, http.StatusNotFound)
		return
	}
	fault := s.nextFault()
	if fault.Delay > 0 {
		timer := time.NewTimer(fault.Delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-r.Context().Done():
			s.observe(OrderAttempt{Time: s.cfg.Now(), RawQuery: r.URL.RawQuery, Cookies: r.Cookies(), Problem: "the caller hung up during the delay that was asked for"})
			return
		}
	}
	attempt := s.answer(r, fault)
	s.observe(attempt)
	w.Header().Set("Content-Type", "text/html; charset=utf-8") // as the real one
	body := attempt.Body
	if fault.Cut { // promise the whole, send half
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		body = body[:len(body)/2]
	}
	w.WriteHeader(attempt.Status)
	fmt.Fprint(w, body)
}

func (s *Server) nextFault() Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.faults) == 0 {
		return Fault{}
	}
	fault := s.faults[0]
	s.faults = s.faults[1:]
	return fault
}

// answer answers with a fault, or checks an order and keeps it.
func (s *Server) answer(r *http.Request, fault Fault) OrderAttempt {
	attempt := OrderAttempt{Time: s.cfg.Now(), RawQuery: r.URL.RawQuery, Cookies: r.Cookies(), Status: http.StatusOK}
	if fault.Status != 0 {
		attempt.Status = fault.Status
	}
	attempt.Problem = "a fault was asked for"
	switch {
	case fault.Body != "":
		attempt.Body = fault.Body
		return attempt
	case fault.Status != 0 || fault.HTML:
		// Proxies like to repeat the URL.
		attempt.Body = fmt.Sprintf("<html><body><h1>midastest: fault asked for</h1><p>%s</p></body></html>", html.EscapeString(r.URL.String()))
		return attempt
	case fault.Ret != 0:
		if fault.Msg == "" && fault.Code == "" {
			fault.Msg, fault.Code = words(fault.Ret)
		}
		attempt.Ret, attempt.Body = fault.Ret, refusalJSON(fault.Ret, fault.Msg, fault.Code)
		return attempt
	}

	login, refused := s.check(r, &attempt)
	if refused != nil {
		attempt.Ret, attempt.Problem, attempt.BaseString = refused.ret, refused.problem, refused.baseString
		attempt.Body = refusalJSON(refused.ret, refused.msg, refused.code)
		s.complain("order refused: %s", refused.problem)
		return attempt
	}
	attempt.Problem = ""
	kept := http.Header(attempt.Params).Clone() // its values, too: OnOrder may change what it gets
	attempt.Token = s.keep(&order{url.Values(kept), login, attempt.Time})
	urlParams := "/v1/sx8/" + s.cfg.AppID + "/mobile_goods_info?token_id=" + attempt.Token
	attempt.Body = `{"ret":0,"token":` + quote(attempt.Token) + `,"url_params":` + quote(urlParams) + `,"attach":""}`
	return attempt
}

func (s *Server) observe(attempt OrderAttempt) {
	if s.cfg.OnOrder != nil {
		s.cfg.OnOrder(attempt)
	}
}

// Forget drops an order, for a server that runs for long: its token is unknown from now on.
func (s *Server) Forget(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.orders, token)
}

// keep stores an order under a new token.
func (s *Server) keep(o *order) (token string) {
	var b [16]byte
	rand.Read(b[:])
	token = fmt.Sprintf("%X%05d", b, o.made.UnixMilli()%100_000)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.orders[token] = o
	return token
}

func refusalJSON(ret int, msg, code string) string {
	body := `{"ret":` + strconv.Itoa(ret) + `,"msg":` + quote(msg)
	if code != "" {
		body += `,"err_code":` + quote(code)
	}
	return body + "}"
}

// quote writes JSON as Midas's PHP does, with "/" escaped.
func quote(s string) string {
	text, _ := json.Marshal(s) // a string always marshals
	return strings.ReplaceAll(string(text), "/", `\/`)
}

// check verifies a request for an order against protocol.md 2, 3 and 4. It sets Params and
// Notes of attempt.
func (s *Server) check(r *http.Request, attempt *OrderAttempt) (midas.Login, *refusal) {
	if r.Method != http.MethodGet {
		return "", refuse("method", r.Method+", want GET; the signature covers it")
	}
	query := r.URL.RawQuery
	if strings.Contains(query, ";") { // url.ParseQuery takes no bare semicolon
		if s.cfg.Strict {
			return "", refuse("query", `cannot be read: a ";" is not percent-encoded`)
		}
		query = strings.ReplaceAll(query, ";", "%3B")
		attempt.Notes = append(attempt.Notes, `the query holds a bare ";", taken as part of a value; whether Midas does so is not known: send %3B`)
	}
	params, err := url.ParseQuery(query)
	if err != nil {
		return "", refuse("query", "cannot be read: a value is not percent-encoded")
	}
	attempt.Params = params
	for _, name := range slices.Sorted(maps.Keys(params)) {
		if len(params[name]) > 1 {
			return "", refuse(name, "sent twice")
		}
	}
	for _, name := range []string{"openid", "openkey", "appid", "ts", "pf", "pfkey", "zoneid", "payitem", "goodsmeta", "sig"} {
		if params.Get(name) == "" {
			return "", refuse(name, "missing or empty")
		}
	}
	if params.Get("appid") != s.cfg.AppID {
		msg, code := words(1016)
		return "", &refusal{ret: 1016, msg: msg, code: code, problem: "parameter appid: " + strconv.Quote(params.Get("appid")) + " is not this app's offer id"}
	}
	signedPath := s.cfg.Like.SignPrefix + buyGoods
	want := midas.Sign(r.Method, signedPath, params, s.cfg.AppKey)
	if subtle.ConstantTimeCompare([]byte(want), []byte(params.Get("sig"))) != 1 {
		return "", &refusal{ret: 1001, msg: "sig error", baseString: midas.BaseString(r.Method, signedPath, params),
			problem: "the signature does not match: wrong pay key, wrong signed path (here " + signedPath + "), or wrong encoding"}
	}
	login, refused := s.checkCookies(r, attempt)
	if refused == nil {
		refused = checkParams(params, login)
	}
	return login, refused
}

// checkCookies returns the login that the session cookies stand for (protocol.md 4, cookies).
func (s *Server) checkCookies(r *http.Request, attempt *OrderAttempt) (midas.Login, *refusal) {
	notLoggedIn := func(problem string) *refusal {
		msg, code := words(1018)
		return &refusal{ret: 1018, msg: msg, code: code, problem: problem}
	}
	cookie := func(name string) string {
		if c, err := r.Cookie(name); err == nil {
			return c.Value
		}
		return ""
	}
	login, known := map[[2]string]midas.Login{
		{"openid", "kp_actoken"}:    midas.QQ,
		{"hy_gameid", "wc_actoken"}: midas.WeChat,
		{"hy_gameid", "st_dummy"}:   midas.Guest,
		{"openid", "openkey"}:       midas.H5,
	}[[2]string{cookie("session_id"), cookie("session_type")}]
	if !known {
		return "", notLoggedIn(fmt.Sprintf("cookies session_id=%q and session_type=%q belong to no login", cookie("session_id"), cookie("session_type")))
	}
	orgLoc, want := cookie("org_loc"), strings.ReplaceAll(s.cfg.Like.OrgLocPrefix+buyGoods, "/", "%2F")
	if orgLoc != want {
		// Shipped servers, Tencent's PHP SDK among them, send either path, encoded or raw.
		path, _ := url.PathUnescape(orgLoc)
		if s.cfg.Strict || !slices.Contains([]string{s.cfg.Like.OrgLocPrefix + buyGoods, "/v3/r" + buyGoods, buyGoods}, path) {
			return "", notLoggedIn(fmt.Sprintf("cookie org_loc=%q, want %q", orgLoc, want))
		}
		attempt.Notes = append(attempt.Notes, fmt.Sprintf("cookie org_loc=%q, which shipped servers send too; Tencent's page says %q", orgLoc, want))
	}
	if s.cfg.Like.PayToken {
		switch payToken, sent := attempt.Params["pay_token"]; {
		case !sent:
			return "", refuse("pay_token", "missing; this gateway always wants it, if only empty")
		case login == midas.QQ && payToken[0] == "":
			return "", refuse("pay_token", "empty with a QQ login")
		case login == midas.WeChat && payToken[0] != "":
			return "", refuse("pay_token", "not empty with a WeChat login")
		}
	}
	return login, nil
}

// checkParams checks the limits of protocol.md 3, parameters. They are written down a second time on
// purpose: a fake that shared the client's limits would share its mistakes.
func checkParams(params url.Values, login midas.Login) *refusal {
	openid := params.Get("openid")
	if login == midas.Guest && (utf8.RuneCountInString(openid) > 32 || strings.ContainsAny(openid, "'<>()|&=*^")) {
		return refuse("openid", "a guest's has at most 32 characters and none of ' < > ( ) | & = * ^")
	}
	switch ts, err := strconv.ParseUint(params.Get("ts"), 10, 63); {
	case err != nil:
		return refuse("ts", "not unix seconds")
	case ts >= 1e12: // of 13 digits; seconds have as many in 30,000 years
		return refuse("ts", "in milliseconds, want unix seconds")
	}
	for _, limit := range []struct {
		name  string
		bytes int
	}{{"pf", 150}, {"payitem", 511}, {"goodsurl", 511}, {"app_metadata", 128}} {
		if len(params.Get(limit.name)) > limit.bytes {
			return refuse(limit.name, fmt.Sprintf("over %d bytes", limit.bytes))
		}
	}
	items, total, refused := checkItems(params.Get("payitem"))
	if refused != nil {
		return refused
	}
	if amt := params.Get("amt"); amt != "" {
		if sum, err := midas.ParseQPoints(amt); err != nil || sum != total {
			return refuse("amt", "not the sum of price*num in Q-points; best left out")
		}
	}
	meta := params.Get("goodsmeta")
	if !utf8.ValidString(meta) || utf8.RuneCountInString(meta) > 256 || strings.Count(meta, "*") != 1 || strings.ContainsAny(meta, "\r\n") {
		return refuse("goodsmeta", "want name*description, one pair, at most 256 characters of UTF-8 without line breaks")
	}
	appMode := params.Get("appmode")
	switch {
	case appMode != "" && appMode != "1" && appMode != "2":
		return refuse("appmode", "want 1 or 2")
	case len(items) > 1 && appMode != "1":
		return refuse("appmode", "must be 1 with several items")
	}
	if maxNum := params.Get("max_num"); maxNum != "" {
		n, err := strconv.Atoi(maxNum)
		if err != nil || appMode == "1" || n <= items[0].Quantity {
			return refuse("max_num", "want a number above num, with appmode 2")
		}
	}
	if strings.ContainsFunc(params.Get("app_metadata"), func(c rune) bool { return c >= utf8.RuneSelf }) {
		return refuse("app_metadata", "not ASCII")
	}
	if format := params.Get("format"); format != "" && format != "json" {
		return refuse("format", "want json")
	}
	if account := params.Get("accounttype"); account != "" && account != "common" && account != "security" {
		return refuse("accounttype", "want common or security")
	}
	return nil
}

// checkItems reads payitem, checks its limits and returns the sum too.
func checkItems(payitem string) (items []midas.Item, total midas.Amount, refused *refusal) {
	const most = 2_000_000_000 * midas.Fen
	items, err := midas.ParseItems(payitem)
	if wrong := (*midas.FieldError)(nil); errors.As(err, &wrong) {
		return nil, 0, refuse("payitem", wrong.Reason)
	}
	for i, item := range items {
		wrong := func(problem string) *refusal { return refuse("payitem", fmt.Sprintf("item %d: %s", i+1, problem)) }
		switch {
		case strings.ContainsFunc(item.ID, func(c rune) bool { return c <= ' ' || c > '~' || c == '|' }):
			return nil, 0, wrong("the id is not plain ASCII without spaces and |")
		case item.Price == 0:
			return nil, 0, wrong("the price is 0")
		case item.Price > most/midas.Amount(item.Quantity) || total > most-item.Price*midas.Amount(item.Quantity):
			return nil, 0, refuse("payitem", "over 2,000,000,000 fen in all")
		}
		total += item.Price * midas.Amount(item.Quantity)
	}
	return items, total, nil
}
