package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midastest"
)

const (
	maxBody  = 4 << 10
	maxDelay = time.Minute
)

// handler returns everything the sandbox serves. What changes something is a POST and
// refused to pages of other sites.
func (s *sandbox) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/mpay/", s.midas)
	mux.HandleFunc("GET /v1/{channel}/{appid}/mobile_goods_info", s.serveCashier)
	mux.HandleFunc("GET /{$}", s.serveDashboard)
	mux.HandleFunc("GET /events", s.serveEvents)
	mux.HandleFunc("GET /pages/{file}", servePageFile)
	mux.HandleFunc("GET /api/exchanges", s.serveExchanges)
	mux.HandleFunc("POST /api/next", s.serveNext)
	mux.HandleFunc("POST /api/orders/{token}/pay", s.action(s.pay))
	mux.HandleFunc("POST /api/orders/{token}/repeat", s.action(s.repeat))
	mux.HandleFunc("POST /api/orders/{token}/forge", s.action(s.forge))
	mux.HandleFunc("POST /api/orders/{token}/expire", s.action(s.expire))
	mux.HandleFunc("POST /api/orders/{token}/cancel", s.action(s.cancel))
	return http.NewCrossOriginProtection().Handler(mux)
}

// payment is the body of an action. The zero value pays what was ordered, once.
type payment struct {
	Percent  int    `json:"percent"`
	Times    int    `json:"times"`
	Method   string `json:"method"`
	Quantity int    `json:"quantity"`
}

// options returns what p asks of midastest.
func (p payment) options() ([]midastest.PayOption, error) {
	var options []midastest.PayOption
	for _, field := range []struct {
		name          string
		value, lo, hi int
		option        func(int) midastest.PayOption
	}{
		{"percent", p.Percent, 1, 100, midastest.Discount},
		{"times", p.Times, 1, 10, midastest.Duplicates},
		{"quantity", p.Quantity, 1, 1_000_000, midastest.Quantity},
	} {
		switch {
		case field.value == 0: // not asked for
		case field.value < field.lo || field.value > field.hi:
			return nil, fmt.Errorf("%s: want a number from %d to %d", field.name, field.lo, field.hi)
		default:
			options = append(options, field.option(field.value))
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
func (s *sandbox) action(do func(*http.Request, *order, payment) (outcome, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var p payment
		if err := readJSON(w, r, &p); err != nil {
			writeError(w, http.StatusBadRequest, err)
			return
		}
		o := s.find(r.PathValue("token"))
		if o == nil {
			writeError(w, http.StatusNotFound, midas.ErrTokenNotFound)
			return
		}
		switch out, err := do(r, o, p); {
		case errors.Is(err, midas.ErrTokenExpired):
			writeError(w, http.StatusGone, errors.New("the token expired: place a new order, or use the action expire"))
		case errors.Is(err, errNotNow):
			writeError(w, http.StatusConflict, err)
		case err != nil:
			writeError(w, http.StatusBadRequest, err)
		default:
			writeJSON(w, http.StatusOK, out)
		}
	}
}

func (s *sandbox) pay(r *http.Request, o *order, p payment) (outcome, error) {
	return s.send(r, "pay", o, p)
}

func (s *sandbox) forge(r *http.Request, o *order, p payment) (outcome, error) {
	return s.send(r, "forge", o, p, midastest.WrongKey(s.appKey+"-forged"), midastest.ExpiredToken())
}

// expire pays at a time when the token is dead, so far as the callback's ts tells.
func (s *sandbox) expire(r *http.Request, o *order, p payment) (outcome, error) {
	late := o.expires.Add(time.Minute)
	if now := s.now(); now.After(late) {
		late = now
	}
	return s.send(r, "expire", o, p, midastest.ExpiredToken(), midastest.Param("ts", strconv.FormatInt(late.Unix(), 10)))
}

func (s *sandbox) send(r *http.Request, action string, o *order, p payment, options ...midastest.PayOption) (outcome, error) {
	asked, err := p.options()
	if err != nil {
		return outcome{}, err
	}
	options = append(append(options, asked...), midastest.WrongPath(s.path)) // mostly it is the right one
	receipt, err := s.midas.Pay(r.Context(), o.Token, options...)
	if err != nil {
		return outcome{}, err
	}
	out := outcome{exchange: s.called(o, newCallback(action, receipt))}
	for _, duplicate := range receipt.Duplicates {
		out.Duplicates = append(out.Duplicates, s.called(o, newCallback(action, duplicate)))
	}
	return out, nil
}

func (s *sandbox) repeat(r *http.Request, o *order, _ payment) (outcome, error) {
	s.mu.Lock()
	query := o.last
	s.mu.Unlock()
	if query == "" {
		return outcome{}, errNotNow
	}
	receipt, err := s.midas.Deliver(r.Context(), query)
	if err != nil {
		return outcome{}, err
	}
	return outcome{exchange: s.called(o, newCallback("repeat", receipt))}, nil
}

// cancel keeps that the player left. The token lives on, as with the real Midas.
func (s *sandbox) cancel(_ *http.Request, o *order, _ payment) (outcome, error) {
	return outcome{exchange: s.called(o, exchange{Time: s.now(), Kind: "cancel"})}, nil
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
	switch {
	case err != nil:
	case fault == midastest.Fault{}:
		err = errors.New(`say how: {"ret":1018}, {"delay_ms":3000}, {"html":true}, {"status":502} or {"cut":true}`)
	case delay < 0 || delay > maxDelay:
		err = fmt.Errorf("delay_ms: want a number from 1 to %d", maxDelay.Milliseconds())
	case next.Status != 0 && (next.Status < 200 || next.Status > 599):
		err = errors.New("status: want an HTTP status from 200 to 599")
	}
	if err != nil {
		writeError(w, http.StatusBadRequest, err)
		return
	}
	s.midas.NextOrders(fault)
	w.WriteHeader(http.StatusNoContent)
}

func (s *sandbox) serveExchanges(w http.ResponseWriter, r *http.Request) {
	after, err := strconv.Atoi(r.FormValue("after"))
	if err != nil && r.FormValue("after") != "" {
		writeError(w, http.StatusBadRequest, errors.New("after: want the seq of an exchange"))
		return
	}
	exchanges, _ := s.since(after)
	writeJSON(w, http.StatusOK, exchanges)
}

// readJSON reads a body into v; an empty one leaves v as it is.
func readJSON(w http.ResponseWriter, r *http.Request, v any) error {
	// The server has no limit for reading a request whole, since orders may be delayed.
	http.NewResponseController(w).SetReadDeadline(time.Now().Add(5 * time.Second))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	http.NewResponseController(w).SetReadDeadline(time.Time{})
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

func writeError(w http.ResponseWriter, status int, err error) {
	writeJSON(w, status, map[string]string{"error": err.Error()})
}
