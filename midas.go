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
// [Client.DeliveryHandler] verifies the callback, runs the game's [DeliverFunc] within the
// two seconds that Midas waits, and answers with the exact bytes Midas wants. The same
// payment may be called back again, at once or much later: (OpenID, BillNo) identifies the
// payment; grant its items exactly once. Package midassql does that with the game's
// database. The handler mounts in every framework that takes an http.Handler;
// [Client.ParseDeliveryQuery] and [ReplyTo] are for the rest. None of them hands on a
// callback that was not verified.
//
// # Money
//
// All money is an [Amount]; there are no floats. Prices are in Q-points on the wire, the
// amount charged is in fen; Amount keeps the factor of ten out of your code.
//
// # Errors
//
// Errors a caller can act on match with errors.Is ([ErrLoginExpired], [ErrSignature]
// and others) or errors.As ([Error], [ResponseError], [FieldError], [ParamError], [ConfigError]).
// No error and no log line shows a pay key, an openkey, a pfkey, a pay_token, a sig or
// the query of a URL. docs/errors.md says what to do about each.
//
// # Logging and metrics
//
// Config.Logger and Config.OnCallback get one [CallbackEvent] for each answer, and one more for
// a result that came too late. Without them the package is silent.
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
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/midas-go/midas/internal/answer"
	"github.com/midas-go/midas/internal/call"
)

// Defaults of Config, and limits.
const (
	defaultRetries    = 2
	defaultRetryDelay = 100 * time.Millisecond
	defaultHTTPLimit  = 5 * time.Second // for one try; the app waits for the order meanwhile

	// The first gap lets a DeliverFunc finish its commit or rollback; the second lets the
	// answer reach Midas before it hangs up.
	defaultDeliverTimeout = 1500 * time.Millisecond
	defaultAnswerTimeout  = 1800 * time.Millisecond

	// 2,048 grants of 100 ms each are 20,000 payments a second, more than any game sells.
	// If as many hang, their answers still leave in time.
	defaultMaxDeliveries = 2048

	maxOtherKeys = 3
)

// A Gateway says where requests go and what is signed for them: request path, signed
// path and the cookie org_loc are three separate things (protocol.md 2, request
// signature). Start from [Production], [Sandbox], [MSDK] or [MSDKSandbox] and change a
// field.
type Gateway struct {
	BaseURL      string // scheme, host and perhaps a path, in front of "/mpay/…"
	SignPrefix   string // in front of "/mpay/…" in the signed path
	OrgLocPrefix string // in front of "/mpay/…" in the cookie org_loc, which names the call (protocol.md 4, cookies)
	PayToken     bool   // older gateways: send pay_token with every call, empty for WeChat
}

// buyGoods is the API path of an order, as it follows each of a Gateway's prefixes.
const buyGoods = "/mpay/buy_goods_m"

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

// Config configures a [Client]. AppID and AppKey are required; every other field has a
// usable zero value. Printed, logged or marshalled it does not show the pay keys.
type Config struct {
	AppID  string // offer id, the app's id at Midas; for QQ and WeChat players alike
	AppKey string // pay key (支付密钥) of the gateway's environment, without the trailing "&"

	// OtherAppKeys are up to three more pay keys, older or newer ones: callbacks verify under
	// any of them, orders are signed with AppKey. With them a key is changed without losing a
	// payment, as docs/deployment.md says step by step; [CallbackEvent].Key tells when the old
	// one is no longer used.
	OtherAppKeys []string

	// Gateway is where orders go. The zero value means [Production].
	Gateway Gateway

	// DeliveryPath is the path of the delivery URL exactly as registered at Tencent, such
	// as "/pay/notify". Case and trailing slash count, and it is not what a backend behind
	// a rewriting proxy sees. Callbacks are signed for it (protocol.md 5, delivery
	// callback). It may be empty where only orders are made.
	DeliveryPath string

	// HTTPClient optionally specifies the client for calls. It is never modified: a copy
	// is used that follows no redirect and keeps no cookies, since requests carry secrets.
	// New rejects a client that skips TLS verification. After an unusable answer the idle
	// connections of its transport are closed. If nil, a client is used that gives each try 5 s.
	HTTPClient *http.Client

	// Logger optionally specifies where callbacks and retries are logged. If nil, nothing is.
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

	// MaxRetries is the number of times a call is tried again after a network fault (unless the
	// certificate is not trusted), a 5xx or a 429. Zero means 2; negative means never; at most
	// 10.
	MaxRetries int

	// RetryDelay is the wait before the second try; each further wait is twice as
	// long, and up to half of it is taken off at random. Zero means 100 ms; negative or
	// over a minute is refused.
	RetryDelay time.Duration

	// DeliverTimeout is when a DeliverFunc's context ends, AnswerTimeout when the answer
	// leaves at the latest, both counted from the arrival of the callback. Zero means 1.5 s
	// and 1.8 s. AnswerTimeout must not be less than DeliverTimeout, and must be below the
	// 2 s after which Midas may cancel the charge.
	DeliverTimeout, AnswerTimeout time.Duration

	// Now optionally specifies the clock for ts and Order.Expires; it is called concurrently. If
	// nil, time.Now.
	Now func() time.Time
}

// keys returns AppKey, with which orders are signed, and the others.
func (cfg Config) keys() []string { return append([]string{cfg.AppKey}, cfg.OtherAppKeys...) }

func (cfg Config) withDefaults() Config {
	if cfg.Gateway == (Gateway{}) {
		cfg.Gateway = Production()
	}
	cfg.Gateway.BaseURL = strings.TrimRight(cfg.Gateway.BaseURL, "/")
	cfg.MaxDeliveries = cmp.Or(cfg.MaxDeliveries, defaultMaxDeliveries)
	cfg.MaxRetries = cmp.Or(cfg.MaxRetries, defaultRetries)
	cfg.RetryDelay = cmp.Or(cfg.RetryDelay, defaultRetryDelay)
	cfg.DeliverTimeout = cmp.Or(cfg.DeliverTimeout, defaultDeliverTimeout)
	cfg.AnswerTimeout = cmp.Or(cfg.AnswerTimeout, defaultAnswerTimeout)
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
	case call.BadlyCopied(cfg.AppID):
		refuse("AppID", call.NotCopiedAlone)
	case cfg.Gateway.SignPrefix == Production().SignPrefix && weChatAppID.MatchString(cfg.AppID):
		refuse("AppID", "is a WeChat app id: on YSDK WeChat players are charged with the offer id too, and with its pay key")
	}
	for i, key := range cfg.keys() {
		field := "AppKey"
		if i > 0 {
			field = fmt.Sprintf("OtherAppKeys[%d]", i-1)
		}
		switch {
		case key == "":
			refuse(field, "empty: set the pay key of this environment")
		case strings.HasSuffix(key, "&"):
			refuse(field, `ends in "&": leave the "&" out, it is added when signing`)
		case call.BadlyCopied(key):
			refuse(field, call.NotCopiedAlone)
		case slices.Contains(cfg.keys()[:i], key):
			refuse(field, "is the same as one before it")
		}
	}
	if len(cfg.OtherAppKeys) > maxOtherKeys {
		refuse("OtherAppKeys", "over three: a callback that does not verify is tried with each")
	}
	if reason := cfg.Gateway.wrong(); reason != "" {
		refuse("Gateway", reason)
	}
	if reason := wrongDeliveryPath(cfg.DeliveryPath); reason != "" {
		refuse("DeliveryPath", reason)
	}
	if reason := call.WrongClient(cfg.HTTPClient); reason != "" {
		refuse("HTTPClient", reason)
	}
	call.CheckRetries(cfg.MaxRetries, cfg.RetryDelay, refuse)
	answer.CheckLimits(cfg.MaxDeliveries, cfg.DeliverTimeout, cfg.AnswerTimeout, midasPatience, refuse)
	return errors.Join(errs...)
}

var weChatAppID = regexp.MustCompile("^wx[0-9a-f]{16}$")

// wrongDeliveryPath says what is wrong with a delivery path, or "". Whether and how
// Midas signs a query or an escaped path is not known (protocol.md 5, delivery
// callback): better to refuse one now than every callback later.
func wrongDeliveryPath(path string) string {
	switch {
	case path == "":
		return "" // only orders are made
	case strings.HasSuffix(path, buyGoods):
		return "is the path of orders: callbacks are signed for the path of your own delivery URL"
	}
	return wrongPath(path)
}

// A Client talks to Midas for one app in one environment. Make one with [New] and share
// it: it is safe for use by multiple goroutines. There is nothing to close. Call
// [Client.Wait] before the process exits, so that running DeliverFuncs can finish. The zero
// value is not usable.
type Client struct {
	cfg     Config          // every default filled in; without the keys
	keys    func() []string // AppKey and OtherAppKeys; a func: printers show fields, not closures
	http    *http.Client
	running *answer.Places // DeliverFuncs
	events  *answer.Events
}

// New validates cfg and returns a Client. The error joins one [*ConfigError] for each wrong
// field. New does no I/O.
func New(cfg Config) (*Client, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	keys := cfg.keys()
	c := &Client{
		cfg:     cfg,
		keys:    func() []string { return keys },
		http:    call.Client(cfg.HTTPClient, defaultHTTPLimit),
		running: answer.NewPlaces(cfg.MaxDeliveries),
		events:  answer.NewEvents(cfg.Logger, cfg.OnCallback != nil),
	}
	c.cfg.AppKey, c.cfg.OtherAppKeys = "", nil
	return c, nil
}
