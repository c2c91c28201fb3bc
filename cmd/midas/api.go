package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/midas-go/midas"
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
	mux.HandleFunc("POST /api/orders/{token}/pay", s.action(s.pay))
	mux.HandleFunc("POST /api/orders/{token}/repeat", s.action(s.repeat))
	mux.HandleFunc("POST /api/orders/{token}/forge", s.action(s.forge))
	mux.HandleFunc("POST /api/orders/{token}/expire", s.action(s.expire))
	mux.HandleFunc("POST /api/orders/{token}/cancel", s.action(s.cancel))
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
func fromNoOtherSite(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		site, origin := r.Header.Get("Sec-Fetch-Site"), r.Header.Get("Origin")
		if (site == "" || site == "same-origin" || site == "none") && (origin == "" || origin == "http://"+r.Host) {
			next(w, r)
		} else {
			refusePage(w, r)
		}
	}
}

// orByLink lets the browser follow a link of another site to a page.
func orByLink(page http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Sec-Fetch-Dest") == "document" {
			page(w, r)
		} else {
			fromNoOtherSite(page)(w, r)
		}
	}
}

func refusePage(w http.ResponseWriter, r *http.Request) {
	writeError(w, r, http.StatusForbidden, errors.New("called by a page of another site"))
}

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
	problem := "there is no such call: orders go to " + orderPath + "; " + ysdkPrefix + " stands in the signed path alone"
	before, query := r.URL.EscapedPath()+"?", r.URL.RawQuery
	if found := queryInPath.FindStringIndex(before); found != nil { // it may hold an openkey, as a query does
		inPath := strings.TrimSuffix(before[found[1]:], "?")
		before, query = before[:found[1]], strings.TrimSuffix(inPath+"&"+query, "&")
		problem = `there is no such call: the "?" before the query is missing or escaped`
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
func (p payment) options() ([]midastest.PayOption, error) {
	var options []midastest.PayOption
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
		switch {
		case field.value == nil:
		case *field.value < 1 || *field.value > field.most:
			return nil, fmt.Errorf("%s: want a number from 1 to %d", field.name, field.most)
		default:
			options = append(options, field.option(*field.value))
		}
	}
	if len(p.Method) > 64 {
		return nil, errors.New("method: over 64 bytes")
	}
	return append(options, midastest.PayMethod(p.Method)), nil
}

// outcome is the answer to an action: its callback, and those sent at the same time.
type outcome struct {
	exchange
	Duplicates []exchange `json:"duplicates,omitempty"`
}

// errNotNow is an action that the order is not ready for.
var errNotNow = errors.New("no callback was sent for this order yet: pay first")

// action is the handler of an action on an order.
func (s *sandbox) action(do func(context.Context, *exchange, payment) (outcome, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var p payment
		if err := readJSON(w, r, &p); err != nil {
			writeError(w, r, http.StatusBadRequest, err)
			return
		}
		order, found := s.order(r.PathValue("token"))
		if !found {
			writeError(w, r, http.StatusNotFound, midas.ErrTokenNotFound)
			return
		}
		// A caller that hangs up ends no action: the backend is called, so it has to be seen.
		switch out, err := do(context.WithoutCancel(r.Context()), order, p); {
		case errors.Is(err, midas.ErrTokenNotFound): // forgotten meanwhile
			writeError(w, r, http.StatusNotFound, midas.ErrTokenNotFound)
		case errors.Is(err, midas.ErrTokenExpired):
			writeError(w, r, http.StatusGone, errors.New("the token expired: place a new order, or use the action expire"))
		case errors.Is(err, errNotNow):
			writeError(w, r, http.StatusConflict, err)
		case err != nil:
			writeError(w, r, http.StatusBadRequest, err)
		default:
			out.Reason = translate(pageLanguage(r), out.Reason) // the cashier shows it
			writeJSON(w, http.StatusOK, out)
		}
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
	if err != nil {
		return outcome{}, err
	}
	if p.Quantity != nil && strings.Contains(value(order.Params, "payitem"), ";") {
		return outcome{}, errors.New("quantity: for orders of a single item")
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
		return outcome{}, errNotNow
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
	return outcome{exchange: s.called(order, exchange{Time: s.now(), Kind: "cancel"})}, nil
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
	page := next.HTML || next.Status != 0
	switch {
	case err != nil:
	case fault == midastest.Fault{}:
		err = errors.New(`say how: {"ret":1018}, {"delay_ms":3000}, {"html":true}, {"status":502} or {"cut":true}`)
	case delay < 0 || delay > maxDelay:
		err = fmt.Errorf("delay_ms: want a number from 1 to %d", maxDelay.Milliseconds())
	case next.Status != 0 && (next.Status < 200 || next.Status > 599 || next.Status == 204 || next.Status == 205 || next.Status == 304):
		err = errors.New("status: want an HTTP status from 200 to 599 that has a body")
	case next.Ret != 0 && page:
		err = errors.New("ret: not together with html or status, which make the answer a page")
	case next.Ret == 0 && (next.Msg != "" || next.Code != ""):
		err = errors.New("msg, err_code: want a ret with them")
	}
	if err != nil {
		writeError(w, r, http.StatusBadRequest, err)
		return
	}
	s.mu.Lock()
	full := len(s.faults) >= maxFaults
	if !full {
		s.faults = append(s.faults, fault)
	}
	s.mu.Unlock()
	if full {
		writeError(w, r, http.StatusConflict, fmt.Errorf("%d answers are waiting for orders: place those first", maxFaults))
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (s *sandbox) serveExchanges(w http.ResponseWriter, r *http.Request) {
	after, err := strconv.Atoi(r.FormValue("after"))
	if err != nil && r.FormValue("after") != "" {
		writeError(w, r, http.StatusBadRequest, errors.New("after: want the seq of an exchange"))
		return
	}
	// One after another: all of them in JSON would take much more memory than what is kept.
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("X-Content-Type-Options", "nosniff")
	out := json.NewEncoder(w)
	out.SetEscapeHTML(false)
	before := "["
	for {
		e, _ := s.after(after)
		if e == nil {
			break
		}
		io.WriteString(w, before)
		if out.Encode(e) != nil { // the caller hung up
			return
		}
		before, after = ",", e.Seq
	}
	if before == "[" {
		io.WriteString(w, before)
	}
	io.WriteString(w, "]\n")
}

// readJSON reads a body into v; an empty one leaves v as it is.
func readJSON(w http.ResponseWriter, r *http.Request, v any) error {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return fmt.Errorf("the body: %w", err)
	}
	if len(body) == 0 {
		return nil
	}
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.DisallowUnknownFields() // a misspelt one would be forgotten in silence
	if err := decoder.Decode(v); err != nil {
		return fmt.Errorf("the body is not the JSON wanted: %w", err)
	}
	if _, err := decoder.Token(); err != io.EOF {
		return errors.New("the body is not the JSON wanted: something follows it")
	}
	return nil
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	out := json.NewEncoder(w)
	out.SetEscapeHTML(false)
	out.Encode(v) // an error means that the caller hung up
}

// writeError says what is wrong, in the language of the page that asked, or in English.
func writeError(w http.ResponseWriter, r *http.Request, status int, err error) {
	writeJSON(w, status, map[string]string{"error": translate(pageLanguage(r), err.Error())})
}
