package midas

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"net/url"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"
)

// Limits of a callback.
const (
	maxQueryBytes = 16 << 10
	maxBillNo     = 64           // characters, protocol.md 5
	maxUnixTime   = 253402300799 // the last second of the year 9999, as far as time.Time's JSON goes
)

// A Delivery is a verified callback: Midas says that this player paid for these items.
// It comes from [Client.ParseDelivery], [Client.ParseDeliveryQuery] or
// [Client.DeliveryHandler] only. Before granting, compare it with the stored order. One that
// you fill in yourself, in a test or to grant what a reconciliation found, is as good as your
// word.
type Delivery struct {
	OpenID  string // the player, as in the order; case-sensitive
	BillNo  string // Midas's serial number, at most 64 characters; (OpenID, BillNo) is the payment's identity
	Token   string // of the order
	ZoneID  string // as in the order
	Items   []Item // what was really bought: with MaxQuantity the player may have changed the quantity
	Charged Amount // what was really paid; with a discount less than the items' prices, never demand equality

	// Metadata is the order's. PayMethod ("wechat", "qqwallet", "qdqb" …) and Platform
	// ("qq", "wechat" …) are what Midas appended to it. All are empty where the order
	// had no Metadata. If appmeta has fewer than two "*", all of it is Metadata.
	Metadata, PayMethod, Platform string

	Time        time.Time // when Midas made the call; old ones are not refused
	ProvideType int       // 5 for mobile direct purchase; 0 also when absent

	// Params holds every verified parameter, decoded, one value each: without sig, and
	// without cee_extend where it is not signed.
	Params url.Values
}

// DeliverFunc grants the items of a verified delivery. It is called concurrently, also
// for the same payment, and must grant once for (OpenID, BillNo): a payment that was
// granted before is answered nil again.
//
// ctx ends after Config.DeliverTimeout, or when Midas hangs up; then give up and roll back.
// What it returns decides the answer: see [ReplyTo]. d is its own to keep and to change.
type DeliverFunc func(ctx context.Context, d *Delivery) error

// ParseDelivery returns the delivery that r calls for. It reads r.Method and
// r.URL.RawQuery only. For errors see [Client.ParseDeliveryQuery].
func (c *Client) ParseDelivery(r *http.Request) (*Delivery, error) {
	if r.Method != http.MethodGet {
		return nil, fmt.Errorf("midas: callback: %w: method %q, want GET", ErrSignature, clip(r.Method, 16))
	}
	return c.ParseDeliveryQuery(r.URL.RawQuery)
}

// ParseDeliveryQuery returns the delivery in the raw query of a callback: what follows
// the "?" of the request line, untouched. A query that went through a parser does
// not verify any more (protocol.md 5).
//
// Every error means that nothing may be granted. [ErrSignature] says that the query is not
// verified; with it may come a [*ParamError] that says why it cannot be. A *ParamError
// alone is a verified callback with a parameter that is missing, does not fit, or is
// another app's. A [*ConfigError] says that Config.DeliveryPath is not set.
// [ReplyTo] turns each into an answer. No error repeats text from the query.
//
// The age of a callback does not matter: a late repeat of a payment must be honoured.
// A query over 16 KiB is refused.
func (c *Client) ParseDeliveryQuery(rawQuery string) (*Delivery, error) {
	d, err := c.parse(rawQuery)
	if err != nil {
		return nil, fmt.Errorf("midas: callback: %w", err)
	}
	return d, nil
}

// parse is ParseDeliveryQuery, but with the error of a verified callback it returns as much
// of the delivery as can be read: that player has paid.
func (c *Client) parse(rawQuery string) (*Delivery, error) {
	if c.cfg.DeliveryPath == "" {
		return nil, errNoDeliveryPath
	}
	params, err := c.verify(make([]param, 0, usualParams), rawQuery)
	if err != nil {
		return nil, err
	}
	return newDelivery(params, c.cfg.AppID)
}

var errNoDeliveryPath = &ConfigError{"DeliveryPath", "empty: set it to the path of the delivery URL as registered at Tencent"}

// verify returns the verified parameters of a callback, sorted by name, in the memory of dst.
func (c *Client) verify(dst []param, rawQuery string) ([]param, error) {
	params, err := splitQuery(dst, rawQuery, ' ')
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSignature, err)
	}
	if signed := c.signedParams(params); signed != nil {
		return signed, nil
	}
	if strings.Contains(rawQuery, "+") { // whether Midas ever means a literal "+" by it is open: try once
		if params, err = splitQuery(dst, rawQuery, '+'); err == nil {
			if signed := c.signedParams(params); signed != nil {
				return signed, nil
			}
		}
	}
	return nil, fmt.Errorf("%w: check the pay key, its environment, and that DeliveryPath, %s, is the registered path", ErrSignature, c.cfg.DeliveryPath)
}

// signedParams returns those of the sorted parameters that the signature among them
// covers, or nil. It reuses the memory of params.
func (c *Client) signedParams(params []param) []param {
	sig := strings.ReplaceAll(value(params, "sig"), " ", "+") // base64 has no blank: a "+" was not escaped
	params = slices.DeleteFunc(params, func(p param) bool { return p.name == "sig" })
	verified := func(params []param) bool {
		want := signSorted(http.MethodGet, c.cfg.DeliveryPath, params, c.appKey(), &callbackValue)
		return subtle.ConstantTimeCompare([]byte(sig), []byte(want)) == 1
	}
	i := slices.IndexFunc(params, func(p param) bool { return p.name == "cee_extend" })
	if i < 0 {
		if verified(params) {
			return params
		}
		return nil
	}
	// The documentation leaves cee_extend out of the signature, Tencent's SDKs do not.
	if without := slices.Delete(slices.Clone(params), i, i+1); verified(without) {
		return without
	}
	if verified(params) {
		return params
	}
	return nil
}

// splitQuery reads a raw query as Midas writes it (protocol.md 5), which no standard
// parser does, and returns its parameters, appended to dst and sorted by name. A bare "+"
// is read as plus. It refuses what no signature could make safe: odd names, repeated names,
// another protocol.
func splitQuery(dst []param, rawQuery string, plus byte) ([]param, error) {
	if len(rawQuery) > maxQueryBytes {
		return nil, &ParamError{"query", "over 16 KiB"}
	}
	params := dst
	for pair, rest := "", rawQuery; rest != ""; {
		pair, rest, _ = strings.Cut(rest, "&") // ";" is data
		if pair == "" {
			continue
		}
		name, value, _ := strings.Cut(pair, "=") // a bare name has an empty value
		name, value = unescape(name, plus), unescape(value, plus)
		// Names are not encoded before signing: "amt%3D1&appid=145" would carry the
		// signature of "amt=1&appid=145".
		if !plainName(name) {
			return nil, &ParamError{"query", "holds a name with other than letters, digits and _ . -"}
		}
		params = append(params, param{name, value})
	}
	sortParams(params)
	for i := 1; i < len(params); i++ {
		if params[i].name == params[i-1].name {
			return nil, &ParamError{knownName(params[i].name), "comes twice"}
		}
	}
	if value(params, "version") == "v5" {
		return nil, &ParamError{"version", "v5 is the order centre's callback, signed with RSA: another protocol"}
	}
	if value(params, "sig") == "" {
		return nil, &ParamError{"sig", "missing"}
	}
	return params, nil
}

// value returns the value of a parameter, or "".
func value(params []param, name string) string {
	for _, p := range params {
		if p.name == name {
			return p.value
		}
	}
	return ""
}

// unescape decodes %XX, and "+" as plus; a "%" that starts no valid escape is itself.
func unescape(s string, plus byte) string {
	plain := 0
	for plain < len(s) && s[plain] != '%' && s[plain] != '+' {
		plain++
	}
	if plain == len(s) {
		return s
	}
	var b strings.Builder
	b.Grow(len(s))
	b.WriteString(s[:plain])
	for i := plain; i < len(s); i++ {
		switch {
		case s[i] == '+':
			b.WriteByte(plus)
		case s[i] == '%' && i+2 < len(s) && isHex(s[i+1]) && isHex(s[i+2]):
			b.WriteByte(fromHex(s[i+1])<<4 | fromHex(s[i+2]))
			i += 2
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

func isHex(b byte) bool {
	return '0' <= b && b <= '9' || 'a' <= b && b <= 'f' || 'A' <= b && b <= 'F'
}

func fromHex(b byte) byte {
	if b <= '9' {
		return b - '0'
	}
	return b&^0x20 - 'A' + 10
}

// plainName reports whether a name is one or more of A-Za-z0-9_.-
func plainName(name string) bool {
	for i := 0; i < len(name); i++ {
		switch b := name[i]; {
		case 'a' <= b && b <= 'z', 'A' <= b && b <= 'Z', '0' <= b && b <= '9', b == '_', b == '.', b == '-':
		default:
			return false
		}
	}
	return name != ""
}

// newDelivery makes a Delivery of verified parameters. Numbers that do not fit are
// errors, never wrong values; with an error comes a Delivery that is incomplete.
func newDelivery(params []param, appID string) (*Delivery, error) {
	d := &Delivery{Params: make(url.Values, len(params))}
	values := make([]string, len(params)) // one piece of memory for all the one-value slices
	for i, p := range params {
		values[i] = p.value
		d.Params[p.name] = values[i : i+1 : i+1]
	}

	d.OpenID, d.BillNo = d.Params.Get("openid"), d.Params.Get("billno")
	d.Token, d.ZoneID = d.Params.Get("token"), d.Params.Get("zoneid")
	for _, required := range []string{"appid", "openid", "billno", "token", "payitem", "amt", "ts"} {
		if d.Params.Get(required) == "" {
			return d, &ParamError{required, "missing"}
		}
	}
	if d.Params.Get("appid") != appID {
		return d, &ParamError{"appid", "is not this client's; callbacks of several apps need a Client each"}
	}
	if version, ok := d.Params["version"]; ok && version[0] != "v3" {
		return d, &ParamError{"version", "is not v3"}
	}
	if utf8.RuneCountInString(d.BillNo) > maxBillNo {
		return d, &ParamError{"billno", "over 64 characters"}
	}
	d.Metadata, d.PayMethod, d.Platform = splitAppMeta(d.Params.Get("appmeta"))

	var err error
	if d.Items, err = parsePayItems(d.Params.Get("payitem")); err != nil {
		return d, err
	}
	charged, err := parseNumber(d.Params, "amt", math.MaxInt64)
	if err != nil {
		return d, err
	}
	d.Charged = Amount(charged) // 0.1 Q-points, that is fen
	ts, err := parseNumber(d.Params, "ts", maxUnixTime)
	if err != nil {
		return d, err
	}
	d.Time = time.Unix(ts, 0)
	if d.Params.Get("providetype") != "" {
		n, err := parseNumber(d.Params, "providetype", math.MaxInt32)
		if err != nil {
			return d, err
		}
		d.ProvideType = int(n)
	}
	return d, nil
}

// parseNumber reads a parameter as decimal digits up to limit.
func parseNumber(params url.Values, name string, limit int64) (int64, error) {
	s := params.Get(name)
	n, err := strconv.ParseInt(s, 10, 64)
	if !isDigits(s) || err != nil || n > limit {
		return 0, &ParamError{name, fmt.Sprintf("not a number from 0 to %d", limit)}
	}
	return n, nil
}

// splitAppMeta reads "<app_metadata>*<pay method>*<platform>". The game's part may hold
// "*", so it is split from the right.
func splitAppMeta(s string) (metadata, payMethod, platform string) {
	last := strings.LastIndexByte(s, '*')
	if last < 0 {
		return s, "", ""
	}
	middle := strings.LastIndexByte(s[:last], '*')
	if middle < 0 {
		return s, "", ""
	}
	return s[:middle], s[middle+1 : last], s[last+1:]
}

// Reply is the answer to a callback (protocol.md 5). Midas takes its bytes and nothing
// else: no blank, no line end, nothing around them. The zero value is no answer that Midas
// takes; [ReplyTo] makes one.
type Reply struct {
	Ret int    // 0 delivered, 1 system busy, 2 token expired, 3 no such token, 4 bad parameter
	Msg string // printable ASCII; any other byte, blank, quote, backslash, < > & is sent as "_"
}

// ReplyTo returns the answer to what a DeliverFunc or a Parse method returned:
//
//	nil                          0  OK
//	ErrTokenExpired              2  token_expired
//	ErrTokenNotFound             3  token_not_found
//	*ParamError, ErrSignature    4  bad_parameter:amt (known names only)
//	anything else                1  system_busy
//
// An [*Error] is Midas's word about an order, not about a callback: anything else.
func ReplyTo(err error) Reply {
	var (
		param   *ParamError
		refused *Error // of an order: it may match ErrSignature, but says nothing about the callback
	)
	switch {
	case err == nil:
		return Reply{0, "OK"}
	case errors.As(err, &refused):
		return Reply{1, "system_busy"}
	case errors.Is(err, ErrTokenExpired):
		return Reply{2, "token_expired"}
	case errors.Is(err, ErrTokenNotFound):
		return Reply{3, "token_not_found"}
	case errors.As(err, &param) && param != nil && slices.Contains(callbackNames, param.Param):
		return Reply{4, "bad_parameter:" + param.Param}
	case param != nil:
		return Reply{4, "bad_parameter"}
	case errors.Is(err, ErrSignature):
		return Reply{4, "bad_parameter:sig"}
	}
	return Reply{1, "system_busy"}
}

// Bytes returns the body to send, with Content-Length and without a line end.
func (r Reply) Bytes() []byte {
	b := append(make([]byte, 0, 48), `{"ret":`...)
	b = strconv.AppendInt(b, int64(r.Ret), 10)
	b = append(b, `,"msg":"`...)
	for i := 0; i < len(r.Msg); i++ {
		if c := r.Msg[i]; c > ' ' && c < 0x7f && !strings.ContainsRune(`"\<>&`, rune(c)) {
			b = append(b, c)
		} else {
			b = append(b, '_')
		}
	}
	return append(b, `"}`...)
}

// String returns the body to send.
func (r Reply) String() string { return string(r.Bytes()) }

// MarshalJSON returns the body to send. (json.Encoder, which some frameworks use, adds a
// line end that Midas does not take.)
func (r Reply) MarshalJSON() ([]byte, error) { return r.Bytes(), nil }

// callbackNames are the parameters of protocol.md 5. Only these are repeated in answers
// and errors: anything else is text from the caller.
var callbackNames = []string{
	"openid", "appid", "zoneid", "token", "billno", "payitem", "amt", "payamt_coins", "pubacct_payamt_coins",
	"appmeta", "ts", "providetype", "version", "clientver", "channel_id", "paychannel", "paychannelsubid",
	"cftid", "discountid", "giftcoins", "cee_extend", "sig",
}

// knownName returns name if it is in protocol.md 5, else "query".
func knownName(name string) string {
	if slices.Contains(callbackNames, name) {
		return name
	}
	return "query"
}

// DeliveryHandler returns the handler of the delivery URL: it verifies each callback, runs
// deliver for it and answers Midas. It serves whatever path it is mounted at; what was
// signed is Config.DeliveryPath.
//
// Every GET gets status 200 and the bytes of a [Reply] with their Content-Length, any other
// method 405. The answer goes out after Config.AnswerTimeout at the latest: without a
// result by then it is ret 1. A panic of deliver is caught, logged with its stack, and is
// ret 1 too.
//
// Each call is logged once; callbacks that are refused at Warn level, ten a minute at the
// most of those that do not verify, and ten of those that do. A delivery that succeeds after
// ret 1 was sent, or after Midas hung up, is logged at Error level as well, with its billno:
// the charge may have been cancelled, so it must be reconciled.
//
// It panics if Config.DeliveryPath is empty or deliver is nil. The handler is safe for
// concurrent use.
func (c *Client) DeliveryHandler(deliver DeliverFunc) http.Handler {
	if c.cfg.DeliveryPath == "" {
		panic(errNoDeliveryPath.Error())
	}
	if deliver == nil {
		panic("midas: DeliveryHandler without a DeliverFunc")
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		if r.Method != http.MethodGet { // the signature covers the method
			w.Header().Set("Allow", http.MethodGet)
			w.Header().Set("Content-Length", "0")
			w.WriteHeader(http.StatusMethodNotAllowed)
			c.logRefused(r, nil, fmt.Errorf("%w: method is not GET", ErrSignature), start)
			return
		}
		d, err := c.parse(r.URL.RawQuery)
		if err != nil {
			_ = send(w, ReplyTo(err)) // nothing was delivered, whether it arrives or not
			c.logRefused(r, d, err, start)
			return
		}
		p := payment{d.OpenID, d.BillNo}
		result := c.run(r.Context(), deliver, d, p, start)
		hungUp := r.Context().Err() != nil
		sent := send(w, result.reply)
		c.logDelivery(r.Context(), p, result, start)
		if result.reply.Ret == 0 && (hungUp || sent != nil) {
			c.logUnanswered(p, "delivered after Midas hung up")
		}
	})
}

// send sends an answer. It does not wait for the handler's end: the log may be slow.
func send(w http.ResponseWriter, reply Reply) error {
	body := reply.Bytes()
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store")
	if _, err := w.Write(body); err != nil {
		return err
	}
	if err := http.NewResponseController(w).Flush(); !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	return nil
}

// A payment is what the log needs to know of a Delivery, which is the DeliverFunc's.
type payment struct{ openID, billNo string }

// A result is what became of a delivery: the answer, the error's text if there is one, and the
// stack if DeliverFunc panicked.
type result struct {
	reply      Reply
	err, stack string
}

// run runs deliver and returns its result, or ret 1 once the answer must go out. Then
// deliver goes on in the background; see Wait.
func (c *Client) run(ctx context.Context, deliver DeliverFunc, d *Delivery, p payment, start time.Time) result {
	answerBy := time.NewTimer(c.cfg.AnswerTimeout)
	defer answerBy.Stop()
	ctx, cancel := context.WithTimeout(ctx, c.cfg.DeliverTimeout)

	// Who sets answered first decides what is answered: the result or the timer. So a nil
	// is either answered 0 or known to be late, never lost in between.
	var answered atomic.Bool
	results := make(chan result, 1)
	c.running.add()
	go func() {
		defer c.running.done()
		defer cancel()
		res := result{reply: Reply{1, "system_busy"}, err: "DeliverFunc did not return"}
		defer func() { // a deferred call, for a DeliverFunc that ends its goroutine
			switch {
			case answered.CompareAndSwap(false, true):
				results <- res
			case res.reply.Ret == 0:
				c.logUnanswered(p, "delivered after ret 1 was answered")
			case res.stack != "":
				c.logDelivery(context.WithoutCancel(ctx), p, res, start)
			}
		}()
		callSafely(ctx, deliver, d, &res)
	}()

	select {
	case res := <-results:
		return res
	case <-answerBy.C:
		if answered.CompareAndSwap(false, true) {
			return result{reply: Reply{1, "system_busy"}, err: "no result in time"}
		}
		return <-results
	}
}

// callSafely calls deliver and sets res. Only a nil that it returns becomes an answer 0: a
// panic, also of the error that it returns, is ret 1; panic(nil) leaves res as it is.
func callSafely(ctx context.Context, deliver DeliverFunc, d *Delivery, res *result) {
	defer func() {
		if cause := recover(); cause != nil {
			*res = result{Reply{1, "system_busy"}, fmt.Sprint("DeliverFunc panicked: ", cause), string(debug.Stack())}
		}
	}()
	err := deliver(ctx, d)
	text := ""
	if err != nil {
		text = err.Error()
	}
	*res = result{reply: ReplyTo(err), err: text}
}

// Wait returns when every DeliverFunc that is running has returned, also those whose
// callback was answered long ago; or with ctx.Err() when ctx ends. For a graceful shutdown
// call it after http.Server.Shutdown and before the database is closed.
func (c *Client) Wait(ctx context.Context) error {
	select {
	case <-c.running.idle():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// running counts DeliverFuncs. (A sync.WaitGroup must not be waited for while its
// counter rises from zero, which callbacks may do at any time.)
type running struct {
	mu   sync.Mutex
	n    int
	zero chan struct{} // closed when n falls to 0; nil if nobody waits
}

func (r *running) add() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.n++
}

func (r *running) done() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.n--; r.n == 0 && r.zero != nil {
		close(r.zero)
		r.zero = nil
	}
}

// idle returns a channel that is closed once nothing runs.
func (r *running) idle() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.n == 0 {
		nothing := make(chan struct{})
		close(nothing)
		return nothing
	}
	if r.zero == nil {
		r.zero = make(chan struct{})
	}
	return r.zero
}

// logDelivery logs the outcome of a verified callback.
func (c *Client) logDelivery(ctx context.Context, p payment, res result, start time.Time) {
	level, outcome := slog.LevelInfo, "delivered"
	switch res.reply.Ret {
	case 0:
	case 1:
		level, outcome = slog.LevelError, "failed"
	default:
		level, outcome = slog.LevelWarn, "not delivered"
	}
	if !c.cfg.Logger.Enabled(ctx, level) {
		return
	}
	attrs := append(p.attrs(),
		slog.String("outcome", outcome),
		slog.Int("ret", res.reply.Ret),
		slog.Duration("duration", time.Since(start)))
	if res.err != "" {
		attrs = append(attrs, slog.String("error", res.err))
	}
	if res.stack != "" {
		attrs = append(attrs, slog.String("stack", res.stack))
	}
	c.cfg.Logger.LogAttrs(ctx, level, "midas: callback", attrs...)
}

// attrs are the payment in a log line.
func (p payment) attrs() []slog.Attr {
	return []slog.Attr{slog.String("billno", clip(p.billNo, 4*maxBillNo)), slog.String("openid", clip(p.openID, 4))}
}

// logUnanswered logs a delivery that Midas does not know of.
func (c *Client) logUnanswered(p payment, what string) {
	c.cfg.Logger.LogAttrs(context.Background(), slog.LevelError,
		"midas: "+what+": the charge may have been cancelled, reconcile it", p.attrs()...)
}

// logRefused logs a callback that was refused unseen by the DeliverFunc; d is what is known
// of it if it was verified, else nil. Anybody can cause such lines, so they are limited; those of
// verified callbacks, whose players paid, have a limit of their own.
func (c *Client) logRefused(r *http.Request, d *Delivery, err error, start time.Time) {
	limit, attrs := c.forged, []slog.Attr(nil)
	if d != nil {
		limit, attrs = c.malformed, payment{d.OpenID, d.BillNo}.attrs()
	}
	suppressed, ok := limit.allow(start)
	if !ok {
		return
	}
	c.cfg.Logger.LogAttrs(r.Context(), slog.LevelWarn, "midas: callback", append(attrs,
		slog.String("outcome", "refused"),
		slog.String("error", err.Error()),
		slog.String("path", clip(r.URL.Path, 100)),
		slog.String("remote", r.RemoteAddr),
		slog.Duration("duration", time.Since(start)),
		slog.Int("suppressed", suppressed))...)
}

// logLimit lets ten lines a minute pass.
type logLimit struct {
	mu         sync.Mutex
	minute     time.Time // start of the current minute
	lines      int       // in the current minute
	suppressed int       // since the last line
}

// allow reports whether a line may be written now, and how many were not since the last one.
func (l *logLimit) allow(now time.Time) (suppressed int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.minute) >= time.Minute {
		l.minute, l.lines = now, 0
	}
	if l.lines == 10 {
		l.suppressed++
		return 0, false
	}
	l.lines++
	suppressed, l.suppressed = l.suppressed, 0
	return suppressed, true
}

// clip shortens text for a log line.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return s[:n] + "…"
}
