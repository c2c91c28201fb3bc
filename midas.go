// Package midas sells game items through Tencent Midas (米大师), item
// direct-purchase (道具直购), from a game's backend.
//
// # Orders
//
// The player's app logs in with QQ or WeChat and sends openid, openkey, pf and pfkey
// to the backend. The backend places the order with [Client.CreateOrder], stores it
// under its token, and hands Order.URLParams to the app unchanged. Prices come from
// the server's own catalogue, never from the app.
//
// # Deliveries
//
// When the player has paid, Midas calls the delivery URL (发货回调).
// [Client.DeliveryHandler] verifies the call, runs the game's [DeliverFunc] within the
// two seconds that Midas waits, and answers with the exact bytes Midas wants. The same
// payment may be called back again, at once or much later: (OpenID, BillNo) is its
// identity, and its items must be granted once. Package midassql does that with the
// game's database. The handler mounts in every framework that takes an http.Handler;
// [Client.ParseDeliveryQuery] and [ReplyTo] are for the rest. None of them returns a
// [Delivery] that was not verified.
//
// # Money
//
// There is one type, [Amount], and no float. Prices are in Q-points on the wire, the
// amount charged is in fen; Amount keeps the factor of ten out of your code.
//
// # Errors
//
// Errors a caller can act on match with errors.Is ([ErrLoginExpired], [ErrSignature]
// and others) or errors.As ([Error], [ResponseError], [ParamError], [ConfigError]).
// No error and no log line shows a pay key, an openkey, a pfkey, a pay_token, a sig or
// the query of a URL. docs/errors.md says what to do about each.
//
// # Logging and metrics
//
// Config.Logger and Config.OnCallback get one [CallbackEvent] for each callback.
// Without them the package is silent.
//
// # Testing
//
// Package midastest is a Midas for tests: it checks signatures, cookies and parameters
// like the real one, lets players pay, and judges the answer to the delivery callback.
//
// # Concurrency
//
// A Client is safe for use by multiple goroutines. Blocking calls return when their
// context ends.
//
// Comments cite sections of docs/protocol.md, which describes the protocol.
package midas

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/midas-go/midas/internal/report"
)

// Defaults of Config, and limits.
const (
	defaultRetries    = 2
	defaultRetryDelay = 100 * time.Millisecond
	defaultHTTPLimit  = 5 * time.Second // for one try; the app waits for the order meanwhile
	maxAnswerBytes    = 64 << 10        // a real answer has less than 1 KiB

	// The time between these two is for telling a commit from a rollback, and the time after
	// them for the answer to reach Midas before it hangs up.
	defaultDeliverTimeout = 1500 * time.Millisecond
	defaultAnswerTimeout  = 1800 * time.Millisecond

	// 2,048 grants of 100 ms each are 20,000 payments a second, more than any game sells.
	// If as many hang, their answers still leave in time.
	defaultMaxDeliveries = 2048
)

// A Gateway says where requests go and what is signed for them: request path, signed
// path and the cookie org_loc are three separate things (protocol.md 2, request
// signature). Start from [Production], [Sandbox], [MSDK] or [MSDKSandbox] and change a
// field.
type Gateway struct {
	BaseURL      string // scheme, host and perhaps a path, in front of "/mpay/…"
	SignPrefix   string // in front of "/mpay/…" in the signed path
	OrgLocPrefix string // in front of "/mpay/…" in the cookie org_loc, which names the call (protocol.md 4, cookies)
	PayToken     bool   // older gateways: the parameter pay_token is always sent, empty for WeChat
}

// Production returns the live YSDK gateway.
func Production() Gateway {
	return Gateway{BaseURL: "https://ysdk.qq.com", SignPrefix: "/v3/r", OrgLocPrefix: "/v3/r"}
}

// Sandbox returns the YSDK sandbox (沙箱), which has a pay key of its own.
func Sandbox() Gateway {
	return Gateway{BaseURL: "https://ysdktest.qq.com", SignPrefix: "/v3/r", OrgLocPrefix: "/v3/r"}
}

// MSDK returns the older live gateway. It is only known to speak plain HTTP, so openkey
// and pay_token can be read in transit.
func MSDK() Gateway { return Gateway{BaseURL: "http://msdk.qq.com", PayToken: true} }

// MSDKSandbox returns the sandbox of the older gateway, plain HTTP as well.
func MSDKSandbox() Gateway { return Gateway{BaseURL: "http://msdktest.qq.com", PayToken: true} }

// At returns g at another base URL, such as that of a proxy, or of a sandbox on this
// machine: midas.Sandbox().At("http://127.0.0.1:9100").
func (g Gateway) At(baseURL string) Gateway {
	g.BaseURL = baseURL
	return g
}

// Config configures a [Client]. AppID and AppKey are required; every other field has a
// usable zero value. Printed, logged or marshalled it does not show the pay key.
type Config struct {
	AppID  string // offer id, the app's id at Midas; for QQ and WeChat players alike
	AppKey string // pay key of the gateway's environment, without the trailing "&"

	// Gateway is where orders go. The zero value means [Production].
	Gateway Gateway

	// DeliveryPath is the path of the delivery URL exactly as registered at Tencent, such
	// as "/pay/notify". Case and trailing slash count, and it is not what a backend behind
	// a rewriting proxy sees. Callbacks are signed for it (protocol.md 5, delivery
	// callback). It may be empty where only orders are made.
	DeliveryPath string

	// HTTPClient optionally specifies the client for orders. It is never modified: a copy
	// is used that follows no redirect and keeps no cookies, since requests carry secrets.
	// One that skips TLS verification is refused. After an answer that cannot be used its idle
	// connections are closed. If nil, a client is used that gives each try 5 s.
	HTTPClient *http.Client

	// Logger optionally specifies where callbacks and repeated tries are logged. If nil,
	// nothing is.
	Logger *slog.Logger

	// OnCallback optionally specifies a function that gets an event for every answer to a
	// callback, and one more where a DeliverFunc returned after its answer. It is called
	// after the answer, one event at a time: if it blocks or panics, nothing waits for it but
	// the next event and [Client.Wait], which it must not call.
	OnCallback func(CallbackEvent)

	// MaxDeliveries is how many DeliverFuncs may run at once. While that many are running,
	// verified callbacks are answered ret 1 at once, and [Client.Ready] returns an error.
	// Zero means 2048, which no healthy game reaches; negative is refused.
	MaxDeliveries int

	// MaxRetries is how often an order is sent again after a network fault, a 5xx or a
	// 429. Zero means 2; negative means never; at most 10.
	MaxRetries int

	// RetryDelay is the wait before the first repeated try; each further wait is twice as
	// long, and up to half of it is taken off at random. Zero means 100 ms; negative or
	// over a minute is refused.
	RetryDelay time.Duration

	// DeliverTimeout is when a DeliverFunc's context ends, AnswerTimeout when the answer
	// leaves at the latest, both counted from the arrival of the callback. Zero means 1.5 s
	// and 1.8 s. AnswerTimeout must not be less than DeliverTimeout, and must be below the
	// 2 s after which Midas may cancel the charge.
	DeliverTimeout, AnswerTimeout time.Duration

	// Now optionally specifies the clock for ts and Order.Expires. If nil, time.Now.
	Now func() time.Time
}

// A Client talks to Midas for one app in one environment. Make one with [New] and share
// it: it is safe for use by multiple goroutines. It needs no closing; before a process
// exits, [Client.Wait] waits for what is still running. The zero value is not usable.
type Client struct {
	cfg     Config        // every default filled in; without AppKey
	appKey  func() string // a func: printers show fields, not closures
	http    *http.Client
	running *report.Counter // DeliverFuncs
	log     *report.Reporter
	hook    *report.Reporter
	forged  *report.Limit
}

// New returns a Client, or everything that is wrong with cfg as joined [*ConfigError]
// values. It sends nothing.
func New(cfg Config) (*Client, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	c := &Client{
		cfg:     cfg,
		appKey:  func() string { return cfg.AppKey },
		http:    quietHTTPClient(cfg.HTTPClient),
		running: new(report.Counter),
		forged:  new(report.Limit),
	}
	c.cfg.AppKey = ""
	if cfg.Logger != nil {
		c.log = new(report.Reporter)
	}
	if cfg.OnCallback != nil {
		c.hook = new(report.Reporter)
	}
	return c, nil
}

func (cfg Config) withDefaults() Config {
	if cfg.Gateway == (Gateway{}) {
		cfg.Gateway = Production()
	}
	cfg.Gateway.BaseURL = strings.TrimRight(cfg.Gateway.BaseURL, "/")
	if cfg.HTTPClient == nil {
		cfg.HTTPClient = defaultHTTPClient()
	}
	if cfg.MaxDeliveries == 0 {
		cfg.MaxDeliveries = defaultMaxDeliveries
	}
	if cfg.MaxRetries == 0 {
		cfg.MaxRetries = defaultRetries
	}
	if cfg.RetryDelay == 0 {
		cfg.RetryDelay = defaultRetryDelay
	}
	if cfg.DeliverTimeout == 0 {
		cfg.DeliverTimeout = defaultDeliverTimeout
	}
	if cfg.AnswerTimeout == 0 {
		cfg.AnswerTimeout = defaultAnswerTimeout
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return cfg
}

func (cfg Config) validate() error {
	var errs []error
	refuse := func(field, reason string) { errs = append(errs, &ConfigError{field, reason}) }
	switch {
	case cfg.AppID == "":
		refuse("AppID", "empty: set the offer id")
	case badlyCopied(cfg.AppID):
		refuse("AppID", notCopiedAlone)
	case cfg.Gateway.SignPrefix == Production().SignPrefix && weChatAppID.MatchString(cfg.AppID):
		refuse("AppID", "is a WeChat app id: on YSDK WeChat players are charged with the offer id too, and with its pay key")
	}
	switch {
	case cfg.AppKey == "":
		refuse("AppKey", "empty: set the pay key of this environment")
	case strings.HasSuffix(cfg.AppKey, "&"):
		refuse("AppKey", `ends in "&": leave the "&" out, it is added when signing`)
	case badlyCopied(cfg.AppKey):
		refuse("AppKey", notCopiedAlone)
	}
	if reason := cfg.Gateway.wrong(); reason != "" {
		refuse("Gateway", reason)
	}
	if reason := wrongDeliveryPath(cfg.DeliveryPath); reason != "" {
		refuse("DeliveryPath", reason)
	}
	transport := cfg.HTTPClient.Transport
	if transport == nil {
		transport = http.DefaultTransport
	}
	if t, ok := transport.(*http.Transport); ok && t != nil && t.TLSClientConfig != nil && t.TLSClientConfig.InsecureSkipVerify {
		refuse("HTTPClient", "its transport skips TLS verification: add the certificate to RootCAs instead")
	}
	if cfg.MaxDeliveries < 0 {
		refuse("MaxDeliveries", "negative: 0 means the default")
	}
	if cfg.MaxRetries > 10 {
		refuse("MaxRetries", "over 10")
	}
	if cfg.RetryDelay < 0 || cfg.RetryDelay > time.Minute {
		refuse("RetryDelay", "negative, or over a minute")
	}
	if cfg.DeliverTimeout < 0 || cfg.DeliverTimeout > cfg.AnswerTimeout {
		refuse("DeliverTimeout", fmt.Sprintf("%s is negative, or above AnswerTimeout, which is %s", cfg.DeliverTimeout, cfg.AnswerTimeout))
	}
	if cfg.AnswerTimeout < 0 || cfg.AnswerTimeout >= midasPatience {
		refuse("AnswerTimeout", "negative, or not below the 2s that Midas waits")
	}
	return errors.Join(errs...)
}

var weChatAppID = regexp.MustCompile("^wx[0-9a-f]{16}$")

const notCopiedAlone = "holds whitespace, an invisible character or quotes, or is over 1024 bytes: was it copied with something around it?"

// badlyCopied reports whether a value holds what comes along when it is copied from a page.
func badlyCopied(s string) bool {
	const quotes = "\"'“”"
	return strings.Trim(s, quotes) != s || len(s) > maxSecret || !utf8.ValidString(s) ||
		strings.ContainsFunc(s, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) })
}

// wrong says what is wrong with g, or "".
func (g Gateway) wrong() string {
	if g.BaseURL == "" {
		return "has no BaseURL: start from Production(), Sandbox(), MSDK() or MSDKSandbox() and change a field"
	}
	u, err := url.Parse(g.BaseURL)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return `BaseURL is not of the form "https://host"`
	case u.User != nil || strings.ContainsAny(g.BaseURL, "?#"):
		return "BaseURL holds a user, a query or a fragment"
	case g.SignPrefix == "" && slices.Contains([]string{"ysdk.qq.com", "ysdktest.qq.com"}, strings.ToLower(u.Hostname())):
		return "has no SignPrefix, so its orders would be signed for the older gateway: start from Production() or Sandbox() and change a field"
	case strings.HasSuffix(u.Path, buyGoods), strings.HasSuffix(u.Path, "/mpay"):
		return `BaseURL goes too far: leave "/mpay/buy_goods_m" out`
	}
	for _, prefix := range []string{g.SignPrefix, g.OrgLocPrefix} {
		if prefix != "" && (prefix[0] != '/' || strings.HasSuffix(prefix, "/")) {
			return `a prefix begins with "/" and does not end with it, such as "/v3/r"`
		}
	}
	return ""
}

// wrongDeliveryPath says what is wrong with a delivery path, or "". Whether and how
// Midas signs a query or an escaped path is not known (protocol.md 5, delivery
// callback): better to refuse one now than every callback later.
func wrongDeliveryPath(path string) string {
	switch {
	case path == "":
		return "" // only orders are made
	case strings.Contains(path, "://"):
		return `is a URL: give its path alone, such as "/pay/notify"`
	case path[0] != '/':
		return `does not begin with "/"`
	case strings.ContainsAny(path, "?#"):
		return "holds a query or a fragment: register the URL without it"
	case (&url.URL{Path: path}).EscapedPath() != path:
		return "holds a character that is escaped in a URL: register a plain ASCII path"
	case strings.HasSuffix(path, buyGoods):
		return "is the path of orders: callbacks are signed for the path of your own delivery URL"
	}
	return ""
}

// defaultHTTPClient has a time limit, unlike http.DefaultClient, and keeps enough
// connections to one host for a busy backend.
func defaultHTTPClient() *http.Client {
	return &http.Client{
		Timeout: defaultHTTPLimit,
		Transport: &http.Transport{
			Proxy:               http.ProxyFromEnvironment,
			ForceAttemptHTTP2:   true,
			MaxIdleConnsPerHost: 32,
			IdleConnTimeout:     90 * time.Second,
		},
	}
}

// quietHTTPClient returns a copy of hc that follows no redirect, since the query
// carries secrets, and has no cookie jar, since one player's session is not another's.
func quietHTTPClient(hc *http.Client) *http.Client {
	quiet := *hc
	quiet.Jar = nil
	quiet.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &quiet
}

// get makes one API call and returns its answer with ret 0, and when it was sent. It
// tries again after a network fault, a 5xx or a 429, each time with a fresh ts and sig.
// api is the path of the call without prefix; params are raw values without ts and sig.
func (c *Client) get(ctx context.Context, api string, params url.Values, login Login) (answer orderAnswer, sent time.Time, err error) {
	for try := 0; ; try++ {
		answer, sent, err = c.try(ctx, api, params, login)
		switch {
		case err == nil:
			return answer, sent, nil
		case ctx.Err() != nil:
			return orderAnswer{}, sent, ctx.Err()
		case try >= c.cfg.MaxRetries || !isWorthRetrying(err):
			return orderAnswer{}, sent, err
		}
		delay := c.cfg.RetryDelay << try
		delay -= rand.N(delay/2 + 1)
		if c.log != nil {
			attrs := []any{"api", api, "try", try + 1, "error", err.Error(), "delay", delay}
			logCtx := context.WithoutCancel(ctx)
			c.log.Add("", func(missed int) {
				if missed > 0 {
					attrs = append(attrs, "missed", missed)
				}
				c.cfg.Logger.WarnContext(logCtx, "midas: call failed, trying again", attrs...)
			})
		}
		if ended := sleep(ctx, delay); ended != nil {
			return orderAnswer{}, sent, fmt.Errorf("%w; the last try: %w", ended, err)
		}
	}
}

// sleep waits for d or the end of ctx.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// isWorthRetrying reports whether the same call may succeed in a moment. A refusal by
// Midas does not, nor does a server whose certificate is not trusted.
func isWorthRetrying(err error) bool {
	var refused *Error
	var untrusted *tls.CertificateVerificationError
	if errors.As(err, &refused) || errors.As(err, &untrusted) {
		return false
	}
	var respErr *ResponseError
	if errors.As(err, &respErr) {
		cutOff := respErr.cause != nil && respErr.StatusCode == http.StatusOK
		return cutOff || respErr.StatusCode >= 500 || respErr.StatusCode == http.StatusTooManyRequests
	}
	return true // no answer at all
}

// try makes one API call once.
func (c *Client) try(ctx context.Context, api string, params url.Values, login Login) (answer orderAnswer, sent time.Time, err error) {
	sent = c.cfg.Now()
	query, sig := c.signedQuery(api, params, sent)
	show := func(text string) string { return withhold(text, c.secretsOf(params, sig)) }

	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.cfg.Gateway.BaseURL+api, nil)
	if err != nil {
		return answer, sent, faultOf(err, show)
	}
	req.URL.RawQuery = query
	req.Header["Cookie"] = []string{c.cfg.Gateway.cookies(login, api)}
	resp, err := c.http.Do(req)
	if err != nil {
		return answer, sent, faultOf(err, show)
	}
	answer, err = readAnswer(resp, show)
	resp.Body.Close()
	var unusable *ResponseError
	if errors.As(err, &unusable) {
		// Of what else comes on an idle connection net/http prints the beginning, which may repeat our
		// query. (The connection itself may be another order's by now.)
		c.http.CloseIdleConnections()
	}
	return answer, sent, err
}

// readAnswer reads and judges the answer to a call. The body of an answer that cannot be
// Midas's is not read to its end, or net/http would take the connection for reusable.
func readAnswer(resp *http.Response, show func(string) string) (orderAnswer, error) {
	unusable := func(length int64, reason string, cause error) error {
		mediaType, _, _ := mime.ParseMediaType(clip(resp.Header.Get("Content-Type"), 100))
		return &ResponseError{resp.StatusCode, show(mediaType), length, reason, cause}
	}
	switch {
	case resp.StatusCode/100 == 3:
		return orderAnswer{}, unusable(resp.ContentLength, "redirects are not followed, because the query carries secrets; check Gateway.BaseURL", nil)
	case resp.StatusCode != http.StatusOK:
		return orderAnswer{}, unusable(resp.ContentLength, "want status 200", nil)
	}
	body := make([]byte, 1, 512)
	n, err := io.ReadFull(resp.Body, body)
	switch {
	case errors.Is(err, io.EOF):
		return orderAnswer{}, unusable(0, "it is empty", nil)
	case n == 1 && !strings.Contains("{ \t\r\n", string(body)):
		return orderAnswer{}, unusable(resp.ContentLength, "it is not JSON", nil)
	case err == nil:
		var rest []byte
		rest, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswerBytes))
		body = append(body, rest...)
	}
	switch {
	case err != nil:
		return orderAnswer{}, unusable(int64(len(body)), "connection lost while reading the body", faultOf(err, show))
	case len(body) > maxAnswerBytes:
		return orderAnswer{}, unusable(resp.ContentLength, "over 64 KiB", nil)
	}
	answer, reason := decodeOrderAnswer(body)
	switch {
	case reason != "":
		return orderAnswer{}, unusable(int64(len(body)), reason, nil)
	case *answer.Ret != 0:
		msg := string(answer.Msg)
		return orderAnswer{}, &Error{
			Ret: int(*answer.Ret), Msg: show(msg), Code: show(string(answer.Code)),
			aboutSig: aboutSig.MatchString(msg[:min(len(msg), maxForeign)]),
		}
	}
	return answer, nil
}

// signedQuery sets ts in values and returns the query of a call, every value
// percent-encoded once.
func (c *Client) signedQuery(api string, values url.Values, now time.Time) (query, sig string) {
	values.Set("ts", strconv.FormatInt(now.Unix(), 10))
	params := signedParams(values)
	sig = sign(http.MethodGet, c.cfg.Gateway.SignPrefix+api, params, c.appKey(), &requestValue)
	withBuffer(func(q []byte) []byte {
		for _, p := range params {
			q = append(requestValue.append(q, p.Name), '=')
			q = append(requestValue.append(q, p.Value), '&')
		}
		q = requestValue.append(append(q, "sig="...), sig)
		query = string(q)
		return q
	})
	return query, sig
}

// secretsOf returns what must not be shown of a call: the player's credentials, the pay
// key, the signature, and parameters that the library does not know.
func (c *Client) secretsOf(params url.Values, sig string) []string {
	secrets := []string{c.appKey(), sig}
	for name, values := range params {
		if slices.Contains(secretParams, name) || !orderParamNames[name] {
			secrets = append(secrets, values[0])
		}
	}
	return secrets
}

var secretParams = []string{"openid", "openkey", "pfkey", "pay_token"}

// A fault is a call without an answer. It says what happened without the URL, which
// carries secrets and which net/http's own error prints. The cause can be matched.
type fault struct {
	text  string
	cause error
}

func (f *fault) Error() string { return f.text }

// Is and As match the cause. There is no Unwrap: what prints a chain of errors would print
// the cause's own text.
func (f *fault) Is(target error) bool { return errors.Is(f.cause, target) }
func (f *fault) As(target any) bool   { return errors.As(f.cause, target) }

func faultOf(err error, show func(string) string) error {
	var urlErr *url.Error
	for errors.As(err, &urlErr) { // a transport may have wrapped one in another
		err = urlErr.Err
	}
	return &fault{"no answer: " + show(err.Error()), err}
}
