package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/cmd/midas/internal/explain"
	"github.com/midas-go/midas/cmd/midas/internal/lang"
	"github.com/midas-go/midas/midastest"
)

const (
	maxBody  = 4 << 10
	maxDelay = time.Minute
)

// handler returns everything the sandbox serves, under the address it listens on and hosts.
// What changes something is refused to pages of other sites.
func (s *sandbox) handler(listen netip.Addr, hosts []string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc(orderPath, fromNoOtherSite(s.serveOrder))
	mux.HandleFunc("/mpay/", fromNoOtherSite(s.serveWrongPath))
	mux.HandleFunc(ysdkPrefix+"/mpay/", fromNoOtherSite(s.serveWrongPath))
	mux.HandleFunc("GET /v1/{channel}/{appid}/mobile_goods_info", orByLink(s.serveCashier))
	mux.HandleFunc("GET /{$}", orByLink(s.serveDashboard))
	mux.HandleFunc("GET /events", fromNoOtherSite(s.serveEvents))
	mux.HandleFunc("GET /pages/{file}", servePageFile)
	mux.HandleFunc("GET /api/exchanges", fromNoOtherSite(s.serveExchanges))
	mux.HandleFunc("POST /api/next", s.serveNext)
	for name, do := range map[string]action{"pay": s.pay, "repeat": s.repeat, "forge": s.forge, "expire": s.expire, "cancel": s.cancel} {
		mux.HandleFunc("POST /api/orders/{token}/"+name, s.serveAction(do))
	}
	sameOrigin := http.NewCrossOriginProtection()
	sameOrigin.SetDenyHandler(http.HandlerFunc(refusePage))
	checked := checkHost(sameOrigin.Handler(mux), listen, hosts)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength != 0 {
			// The server has no limit for reading a request whole, since orders may be delayed. This
			// one holds for the rest of a body, too, that net/http reads after the answer; for the
			// next request it sets another.
			http.NewResponseController(w).SetReadDeadline(time.Now().Add(s.bodyTime))
		}
		checked.ServeHTTP(w, r)
	})
}

// fromNoOtherSite refuses what a page of another site makes a browser fetch with GET, which the
// protection against other sites lets pass: orders go to Midas with GET, and showing all there
// is has its cost.
func fromNoOtherSite(next http.HandlerFunc) http.HandlerFunc { return fromThisSite(next, false) }

// orByLink lets the browser follow a link of another site to a page.
func orByLink(page http.HandlerFunc) http.HandlerFunc { return fromThisSite(page, true) }

func fromThisSite(next http.HandlerFunc, byLink bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		site, origin := r.Header.Get("Sec-Fetch-Site"), r.Header.Get("Origin")
		if (site == "" || site == "same-origin" || site == "none") && (origin == "" || origin == "http://"+r.Host) || byLink && r.Header.Get("Sec-Fetch-Dest") == "document" {
			next(w, r)
		} else {
			refusePage(w, r)
		}
	}
}

func refusePage(w http.ResponseWriter, r *http.Request) { writeError(w, r, lang.T("api.other-site")) }

// serveOrder has midastest answer an order, with the fault that is next.
func (s *sandbox) serveOrder(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	if len(s.faults) > 0 {
		s.midas.NextOrders(s.faults[0])
		s.faults = s.faults[1:]
	}
	s.mu.Unlock()
	s.midas.ServeHTTP(w, r)
}

// What begins a query, or a further pair of it, inside a path: also escaped, once or more often.
var queryInPath = regexp.MustCompile(`[&;]|%(25)*(26|3[BFbf])`)

// serveWrongPath answers where there is no call, and shows it.
func (s *sandbox) serveWrongPath(w http.ResponseWriter, r *http.Request) {
	problem := lang.T("api.no-call", orderPath, ysdkPrefix).Error()
	before, query := r.URL.EscapedPath()+"?", r.URL.RawQuery
	if found := queryInPath.FindStringIndex(before); found != nil { // it may hold an openkey, as a query does
		inPath := strings.TrimSuffix(before[found[1]:], "?")
		before, query = before[:found[1]], strings.TrimSuffix(inPath+"&"+query, "&")
		problem = lang.T("api.no-query").Error()
	}
	s.ordered(before, midastest.OrderAttempt{
		Time: s.now(), RawQuery: query, Cookies: r.Cookies(), Status: http.StatusNotFound, Body: problem + "\n", Problem: problem,
	})
	http.Error(w, problem, http.StatusNotFound)
}

// payment is the body of an action. The zero value pays what was ordered, once.
type payment struct {
	Percent  *int   `json:"percent"`
	Times    *int   `json:"times"`
	Method   string `json:"method"`
	Quantity *int   `json:"quantity"`
}

// options returns what p asks of midastest.
func (p payment) options() (options []midastest.PayOption, err error) {
	for _, field := range []struct {
		name   string
		value  *int
		most   int
		option func(int) midastest.PayOption
	}{
		{"percent", p.Percent, 100, midastest.Discount},
		{"times", p.Times, 10, midastest.Duplicates},
		{"quantity", p.Quantity, 1_000_000, midastest.Quantity},
	} {
		if field.value != nil {
			options = append(options, field.option(*field.value))
			err = cmp.Or(err, when(*field.value < 1 || *field.value > field.most, lang.T("api.range", field.name, field.most)))
		}
	}
	return append(options, midastest.PayMethod(p.Method)), cmp.Or(err, when(len(p.Method) > 64, lang.T("api.method")))
}

// outcome is the answer to an action: its callback, and those sent at the same time.
type outcome struct {
	exchange
	Duplicates []exchange `json:"duplicates,omitempty"`
}

// An action does something with an order.
type action func(context.Context, *exchange, payment) (outcome, error)

func (s *sandbox) serveAction(do action) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var p payment
		var out outcome
		err := readJSON(w, r, &p)
		order, found := s.order(r.PathValue("token"))
		if err = cmp.Or(err, when(!found, midas.ErrTokenNotFound)); err == nil {
			// A caller that hangs up ends no action: the backend is called, so it has to be seen.
			out, err = do(context.WithoutCancel(r.Context()), order, p)
		}
		if err != nil {
			writeError(w, r, err)
			return
		}
		out.Reason = lang.Said(out.Reason).In(pageLanguage(r)) // the cashier shows it
		writeJSON(w, http.StatusOK, out)
	}
}

func (s *sandbox) pay(ctx context.Context, order *exchange, p payment) (outcome, error) {
	return s.send(ctx, "pay", order, p)
}

func (s *sandbox) forge(ctx context.Context, order *exchange, p payment) (outcome, error) {
	return s.send(ctx, "forge", order, p, midastest.WrongKey(s.appKey+"-forged"), midastest.ExpiredToken())
}

// expire pays at a time when the token is dead, so far as the callback's ts tells.
func (s *sandbox) expire(ctx context.Context, order *exchange, p payment) (outcome, error) {
	late := expiry(order).Add(time.Minute)
	if now := s.now(); now.After(late) {
		late = now
	}
	return s.send(ctx, "expire", order, p, midastest.ExpiredToken(), midastest.Param("ts", strconv.FormatInt(late.Unix(), 10)))
}

func (s *sandbox) send(ctx context.Context, action string, order *exchange, p payment, options ...midastest.PayOption) (outcome, error) {
	asked, err := p.options()
	several := strings.Contains(explain.Value(order.Params, "payitem"), ";")
	if err := cmp.Or(err, when(p.Quantity != nil && several, lang.T("api.quantity"))); err != nil {
		return outcome{}, err
	}
	options = append(append(options, asked...), midastest.SignedPath(s.path)) // mostly it is the right one
	receipt, err := s.midas.Pay(ctx, order.Token, options...)
	if err != nil {
		return outcome{}, err
	}
	out := outcome{exchange: s.called(order, newCallback(action, receipt))}
	for _, duplicate := range receipt.Duplicates {
		out.Duplicates = append(out.Duplicates, s.called(order, newCallback(action, duplicate)))
	}
	return out, nil
}

func (s *sandbox) repeat(ctx context.Context, order *exchange, _ payment) (outcome, error) {
	last, found := s.last(order.Token, func(e *exchange) bool { return e.Kind == "callback" && e.Action != "forge" })
	if !found {
		return outcome{}, lang.T("api.nothing-yet")
	}
	_, query, _ := strings.Cut(last.URL, "?")
	receipt, err := s.midas.Deliver(ctx, query)
	if err != nil {
		return outcome{}, err
	}
	return outcome{exchange: s.called(order, newCallback("repeat", receipt))}, nil
}

// cancel keeps that the player left. The token lives on, as with the real Midas.
func (s *sandbox) cancel(_ context.Context, order *exchange, _ payment) (outcome, error) {
	return outcome{exchange: s.called(order, exchange{Time: s.now(), Kind: "cancel", OK: true})}, nil
}

// serveNext sets what is wrong with the answer to the next order.
func (s *sandbox) serveNext(w http.ResponseWriter, r *http.Request) {
	var next struct {
		Ret     int    `json:"ret"`
		Msg     string `json:"msg"`
		Code    string `json:"err_code"`
		DelayMS int    `json:"delay_ms"`
		HTML    bool   `json:"html"`
		Status  int    `json:"status"`
		Cut     bool   `json:"cut"`
	}
	err := readJSON(w, r, &next)
	delay := time.Duration(next.DelayMS) * time.Millisecond
	fault := midastest.Fault{Delay: delay, Status: next.Status, Ret: next.Ret, Msg: next.Msg, Code: next.Code, HTML: next.HTML, Cut: next.Cut}
	odd := next.Status != 0 && (next.Status < 200 || next.Status > 599 || next.Status == 204 || next.Status == 205 || next.Status == 304)
	s.mu.Lock()
	defer s.mu.Unlock()
	err = cmp.Or(err, when(fault == midastest.Fault{}, lang.T("api.next-how")), when(delay < 0 || delay > maxDelay, lang.T("api.range", "delay_ms", maxDelay.Milliseconds())),
		when(odd, lang.T("api.status")), when(next.Ret != 0 && (next.HTML || next.Status != 0), lang.T("api.ret-and-page")),
		when(next.Ret == 0 && (next.Msg != "" || next.Code != ""), lang.T("api.msg-without-ret")), when(len(s.faults) >= maxFaults, lang.T("api.full", maxFaults)))
	if err != nil {
		writeError(w, r, err)
		return
	}
	s.faults = append(s.faults, fault)
	w.WriteHeader(http.StatusNoContent)
}

func (s *sandbox) serveExchanges(w http.ResponseWriter, r *http.Request) {
	after, err := strconv.Atoi(r.FormValue("after"))
	if err != nil && r.FormValue("after") != "" {
		writeError(w, r, lang.T("api.after"))
		return
	}
	// One after another: all of them in JSON would take much more memory than what is kept.
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("X-Content-Type-Options", "nosniff")
	out := json.NewEncoder(w)
	out.SetEscapeHTML(false)
	before := ""
	io.WriteString(w, "[")
	for e, _ := s.after(after); e != nil; e, _ = s.after(e.Seq) {
		io.WriteString(w, before)
		if out.Encode(e) != nil { // the caller hung up
			return
		}
		before = ","
	}
	io.WriteString(w, "]\n")
}

// readJSON reads a body into v; an empty one leaves v as it is.
func readJSON(w http.ResponseWriter, r *http.Request, v any) error {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return lang.T("api.body", err)
	}
	if len(body) == 0 {
		return nil
	}
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.DisallowUnknownFields() // a misspelt one would be forgotten in silence
	if err := decoder.Decode(v); err != nil {
		return lang.T("api.not-json", err)
	}
	_, err = decoder.Token()
	return when(!errors.Is(err, io.EOF), lang.T("api.more-than-json"))
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	out := json.NewEncoder(w)
	out.SetEscapeHTML(false)
	out.Encode(v) // an error means that the caller hung up
}

// The statuses of errors that are not 400.
var statuses = map[string]int{
	"api.other-site": http.StatusForbidden, "api.other-host": http.StatusForbidden,
	"said.token": http.StatusNotFound, "api.nothing-yet": http.StatusConflict, "api.full": http.StatusConflict, "api.expired": http.StatusGone,
}

// writeError says what is wrong, in the language of the page that asked, or in English.
func writeError(w http.ResponseWriter, r *http.Request, err error) {
	text := lang.T("text", err)
	switch {
	case errors.Is(err, midas.ErrTokenExpired):
		text = lang.T("api.expired")
	case errors.Is(err, midas.ErrTokenNotFound):
		text = lang.T("said.token")
	default:
		errors.As(err, &text)
	}
	writeJSON(w, cmp.Or(statuses[text.Key], http.StatusBadRequest), map[string]string{"error": text.In(pageLanguage(r))})
}
