// Package midas sells game items through Tencent Midas (米大师), item
// direct-purchase (道具直购), from a game's backend.
//
// # Orders
//
// The player's app logs in with QQ or WeChat and sends openid, openkey, pf and
// pfkey to the backend, which places the order with [Client.CreateOrder], stores
// it under its token, and hands Order.URLParams to the app unchanged. Prices come
// from the server's own catalogue, never from the app.
//
// # Deliveries
//
// When the player has paid, Midas calls the delivery URL (发货回调).
// [Client.DeliveryHandler] verifies the call, runs the game's [DeliverFunc] within
// Midas's two seconds and answers with the exact bytes Midas wants. The same
// payment may come twice, at once or much later: (OpenID, BillNo) is its
// identity, and granting must happen once for it; package midassql does that on the
// game's database. For other HTTP stacks there are
// [Client.ParseDeliveryQuery] and [ReplyTo]. A [Delivery] that was not verified
// is never returned.
//
// # Money
//
// There is one type, [Amount], and no float. Prices are in Q-points on the wire,
// what was charged is in fen; Amount keeps the factor of ten out of your code.
//
// # Errors
//
// What a caller does something about is matched with errors.Is ([ErrLoginExpired],
// [ErrSignature] and others) or errors.As ([Error], [ResponseError],
// [ParamError], [ConfigError]). No error and no log line holds a pay key, an
// openkey, a pfkey, a pay_token, a sig or the query of a URL. docs/errors.md says of each
// error what to do.
//
// # Logging
//
// Config.Logger receives a line for each callback and for each repeated try of an
// order. Without one the package is silent.
//
// # Testing
//
// Package midastest is a Midas for tests: it checks signatures, cookies and
// parameters as the real one does, lets players pay, and judges the answer to the
// delivery callback. docs/testing.md has recipes.
//
// # Concurrency
//
// A Client is safe for use by multiple goroutines. Every wait ends with its context.
//
// Comments refer to the protocol's description, docs/protocol.md, by section.
package midas

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Defaults of Config, and limits.
const (
	defaultRetries    = 2
	defaultRetryDelay = 100 * time.Millisecond
	defaultHTTPLimit  = 5 * time.Second // for one try; the app waits for the order meanwhile
	maxAnswerBytes    = 1 << 20

	// Midas hangs up after 2 s (protocol.md 1). The two moments leave time for a commit
	// to be told from a rollback, and for the answer to travel.
	defaultDeliverTimeout = 1500 * time.Millisecond
	defaultAnswerTimeout  = 1800 * time.Millisecond
	midasPatience         = 2 * time.Second
)

// A Gateway says where requests go and what is signed for them; request path,
// signed path and the cookie org_loc are three separate things (protocol.md 2).
// Start from [Production], [Sandbox], [MSDK] or [MSDKSandbox] and change a field.
type Gateway struct {
	BaseURL      string // scheme, host and perhaps a path, in front of "/mpay/…"
	SignPrefix   string // in front of "/mpay/…" in the signed path
	OrgLocPrefix string // in front of "/mpay/…" in the cookie org_loc, which says what is called (protocol.md 4)
	PayToken     bool   // older gateways: the parameter pay_token is always sent, empty for WeChat
}

// Production returns the live YSDK gateway.
func Production() Gateway {
	return Gateway{BaseURL: "https://ysdk.qq.com", SignPrefix: "/v3/r", OrgLocPrefix: "/v3/r"}
}

// Sandbox returns the YSDK sandbox (沙箱). It has a pay key of its own.
func Sandbox() Gateway {
	return Gateway{BaseURL: "https://ysdktest.qq.com", SignPrefix: "/v3/r", OrgLocPrefix: "/v3/r"}
}

// MSDK returns the older live gateway. It is known with plain HTTP only, so openkey
// and pay_token can be read on the way.
func MSDK() Gateway { return Gateway{BaseURL: "http://msdk.qq.com", PayToken: true} }

// MSDKSandbox returns the sandbox of the older gateway, plain HTTP as well.
func MSDKSandbox() Gateway { return Gateway{BaseURL: "http://msdktest.qq.com", PayToken: true} }

// Config configures a [Client]. AppID and AppKey are required; every other field
// has a usable zero value. Printed or logged it does not show the pay key.
type Config struct {
	AppID  string // offer id, the app's id at Midas; for QQ and WeChat players alike
	AppKey string // pay key of the gateway's environment, without the trailing "&"

	// Gateway is where orders go. The zero value means [Production].
	Gateway Gateway

	// DeliveryPath is the path of the delivery URL exactly as registered at Tencent,
	// such as "/pay/notify": case and trailing slash count, and it is not what a backend
	// behind a rewriting proxy sees. Callbacks are signed for it (protocol.md 5).
	// It may be empty where only orders are made.
	DeliveryPath string

	// HTTPClient optionally specifies the client for orders. It is not modified: a copy
	// is used that follows no redirect and keeps no cookies, since requests carry secrets.
	// One that skips TLS verification is refused. If nil, one is used that gives a try 5 s.
	HTTPClient *http.Client

	// Logger optionally specifies where callbacks and repeated tries are logged. If nil,
	// nothing is.
	Logger *slog.Logger

	// MaxRetries is how often an order is sent again after a network fault, a 5xx or a
	// 429. Zero means 2; negative means never; at most 10.
	MaxRetries int

	// RetryDelay is the wait before the first repeated try; each further wait is twice as
	// long, and up to half of it is taken off at random. Zero means 100 ms; negative or over a
	// minute is refused.
	RetryDelay time.Duration

	// DeliverTimeout is when a DeliverFunc's context ends, AnswerTimeout when the answer
	// goes out at the latest, both counted from the arrival of the callback. Zero means
	// 1.5 s and 1.8 s. AnswerTimeout cannot be less than DeliverTimeout, and must be below the
	// 2 s after which Midas may cancel the charge.
	DeliverTimeout, AnswerTimeout time.Duration

	// Now optionally specifies the clock of ts and Order.Expires. If nil, time.Now.
	Now func() time.Time
}

// A Client talks to Midas for one app in one environment. Make one with [New] and
// share it: it is safe for use by multiple goroutines. It holds nothing to close. The zero
// value is not usable.
type Client struct {
	cfg       Config        // every default filled in; without AppKey
	appKey    func() string // a func, since what prints a Client's unexported fields does not call one
	http      *http.Client
	running   *running
	forged    *logLimit
	malformed *logLimit
}

// New returns a Client, or everything that is wrong with cfg as joined
// [*ConfigError] values. It sends nothing.
func New(cfg Config) (*Client, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	c := &Client{
		cfg:       cfg,
		appKey:    func() string { return cfg.AppKey },
		http:      quietHTTPClient(cfg.HTTPClient),
		running:   new(running),
		forged:    new(logLimit),
		malformed: new(logLimit),
	}
	c.cfg.AppKey = ""
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
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
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
		refuse("AppID", "holds whitespace, an invisible character or quotes: was it copied with something around it?")
	}
	switch {
	case cfg.AppKey == "":
		refuse("AppKey", "empty: set the pay key of this environment")
	case strings.HasSuffix(cfg.AppKey, "&"):
		refuse("AppKey", `ends in "&": leave the "&" out, it is added when signing`)
	case badlyCopied(cfg.AppKey):
		refuse("AppKey", "holds whitespace, an invisible character or quotes: was it copied with something around it?")
	}
	if reason := cfg.Gateway.wrong(); reason != "" {
		refuse("Gateway", reason)
	}
	if reason := wrongDeliveryPath(cfg.DeliveryPath); reason != "" {
		refuse("DeliveryPath", reason)
	}
	if t, ok := cfg.HTTPClient.Transport.(*http.Transport); ok && t != nil && t.TLSClientConfig != nil && t.TLSClientConfig.InsecureSkipVerify {
		refuse("HTTPClient", "skips TLS verification: add the certificate to RootCAs instead")
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

// badlyCopied reports whether a value holds what a copy from a page brings along.
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

// wrongDeliveryPath says what is wrong with a delivery path, or "". Whether Midas
// signs a query or an escaped path, and in which form, is not known
// (protocol.md 5): better refused now than by every callback.
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

// defaultHTTPClient differs from http.DefaultClient in its time limit, and keeps enough
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

// quietHTTPClient returns a copy of hc that sends secrets nowhere but to the
// gateway: it follows no redirect (the query carries secrets), and has no cookie jar
// (one player's session is not another's).
func quietHTTPClient(hc *http.Client) *http.Client {
	quiet := *hc
	quiet.Jar = nil
	quiet.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &quiet
}

// A response is the body of an answer with HTTP status 200.
type response struct {
	body   []byte
	sent   time.Time           // by Config.Now, when the request was signed
	redact func(string) string // masks the request's secrets in what is said of the response
}

// unusable returns the error for a response that makes no sense.
func (r *response) unusable(reason string) error {
	return &ResponseError{StatusCode: http.StatusOK, Excerpt: excerpt(r.body, r.redact), Reason: reason}
}

// get sends one API call, and sends it again after a network fault, a 5xx or a 429:
// each try with a fresh ts and sig. api is the path of the call without prefix;
// params are raw values without ts and sig.
func (c *Client) get(ctx context.Context, api string, params url.Values, login Login) (*response, error) {
	for try := 0; ; try++ {
		resp, err := c.try(ctx, api, params, login)
		if err == nil {
			return resp, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if try >= c.cfg.MaxRetries || !worthRetrying(err) {
			return nil, err
		}
		delay := c.cfg.RetryDelay << try
		delay -= rand.N(delay/2 + 1)
		c.cfg.Logger.WarnContext(ctx, "midas: call failed, trying again",
			"api", api, "try", try+1, "error", err.Error(), "delay", delay)
		if ended := sleep(ctx, delay); ended != nil {
			return nil, fmt.Errorf("%w; the last try: %w", ended, err)
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

// worthRetrying reports whether the same call may succeed later. Midas's refusals
// do not get here; a server that is not trusted now will not be trusted soon.
func worthRetrying(err error) bool {
	var untrusted *tls.CertificateVerificationError
	if errors.As(err, &untrusted) {
		return false
	}
	var respErr *ResponseError
	if errors.As(err, &respErr) {
		cutOff := respErr.cause != nil && respErr.StatusCode == http.StatusOK
		return cutOff || respErr.StatusCode >= 500 || respErr.StatusCode == http.StatusTooManyRequests
	}
	return true // no answer at all
}

// try sends one API call once.
func (c *Client) try(ctx context.Context, api string, params url.Values, login Login) (*response, error) {
	now := c.cfg.Now()
	signed, sig := c.signedURL(api, params, now)
	redact := func(text string) string { return redact(text, c.secretsOf(params, sig)) }

	req, err := http.NewRequestWithContext(ctx, http.MethodGet, signed, nil)
	if err != nil {
		return nil, faultOf(err, redact)
	}
	for _, cookie := range c.cfg.Gateway.cookies(login, api) {
		req.AddCookie(cookie)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, faultOf(err, redact)
	}
	defer resp.Body.Close()

	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswerBytes+1))
	reason := ""
	switch {
	case err != nil:
		reason, err = "it broke off", faultOf(err, redact)
	case resp.StatusCode/100 == 3:
		reason = "redirects are not followed, the query carries secrets; check Gateway.BaseURL"
	case resp.StatusCode != http.StatusOK:
		reason = "want status 200"
	case len(body) > maxAnswerBytes:
		reason = "over 1 MiB"
	default:
		return &response{body, now, redact}, nil
	}
	return nil, &ResponseError{resp.StatusCode, excerpt(body, redact), reason, err}
}

// signedURL sets ts in values and returns the URL of a call, every value percent-encoded once.
func (c *Client) signedURL(api string, values url.Values, now time.Time) (signed, sig string) {
	values.Set("ts", strconv.FormatInt(now.Unix(), 10))
	params := collect(make([]param, 0, usualParams), values)
	sig = signSorted(http.MethodGet, c.cfg.Gateway.SignPrefix+api, params, c.appKey(), &requestValue)
	withBuffer(func(u []byte) []byte {
		u = append(u, c.cfg.Gateway.BaseURL...)
		u = append(append(u, api...), '?')
		for _, p := range params {
			u = append(requestValue.append(u, p.name), '=')
			u = append(requestValue.append(u, p.value), '&')
		}
		u = requestValue.append(append(u, "sig="...), sig)
		signed = string(u)
		return u
	})
	return signed, sig
}

// secretsOf returns what must not be repeated of a call.
func (c *Client) secretsOf(params url.Values, sig string) []string {
	secrets := []string{c.appKey(), sig}
	for name, values := range params {
		// Beyond the table, anything long enough to be told from ordinary text may be secret.
		if slices.Contains(secretParams, name) || !orderParamNames[name] && len(values[0]) >= 8 {
			secrets = append(secrets, values[0])
		}
	}
	return secrets
}

// A fault is a call without an answer. It says what happened without the URL, which
// carries secrets: net/http's own error prints it. The cause can be matched.
type fault struct {
	text  string
	cause error
}

func (f *fault) Error() string { return f.text }

// Is and As match the cause. There is no Unwrap, since what prints a chain of errors would
// print the cause's own text, and that may repeat a secret.
func (f *fault) Is(target error) bool { return errors.Is(f.cause, target) }
func (f *fault) As(target any) bool   { return errors.As(f.cause, target) }

func faultOf(err error, redact func(string) string) error {
	var urlErr *url.Error
	for errors.As(err, &urlErr) { // a transport may have wrapped one in another
		err = urlErr.Err
	}
	return &fault{fmt.Sprintf("no answer: %s", redact(err.Error())), err}
}
