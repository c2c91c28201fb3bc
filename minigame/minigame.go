// Package minigame sells game items in WeChat mini games (小游戏道具直购) and mini
// programs (虚拟支付), from a game's backend.
//
// It is another protocol than that of package midas, which shares its name with this
// one: other signatures, other pushes, other error codes. docs/minigame.md says which
// of the two a game needs.
//
// # Orders
//
// The app logs in with wx.login and sends its code; [Client.Code2Session] turns it into
// an openid and a session_key, which the backend keeps and never hands out. When the
// player picks an item, [Client.NewOrder] builds signData, signs it twice and returns
// what the app passes on unchanged. WeChat is not called for it. The backend stores the
// order before the app gets it: prices come from the server's own catalogue.
//
// # Deliveries
//
// When the player has paid, WeChat posts a push (发货推送). [Client.PushHandler] verifies
// it, runs the game's function and answers with the exact bytes WeChat wants. The same
// push may come twice, at once or a day later: (AppID, Env, OutTradeNo) is the payment's
// identity, and granting must happen once for it. What the app says about the payment
// counts for nothing. An unverified [Delivery] is never returned.
//
// # Two products
//
// Config.MiniProgram says which of the two an account is. The names of methods follow the
// calls: [Client.QueryOrderInfo] and [Client.Pay] are the mini game's,
// [Client.QueryOrder] and [Client.CurrencyPay] the mini program's.
//
// # Money
//
// Money is a [midas.Amount], in fen. No float is used anywhere.
//
// # Not yet run against a live account
//
// The package follows Tencent's pages, type definitions and documented samples; what
// they leave open is listed in docs/minigame.md with the default chosen.
//
// # Concurrency
//
// A Client is safe for use by multiple goroutines. Blocking calls return when their
// context ends.
//
// Comments refer to the protocol's description, docs/minigame.md, by section as
// "minigame.md 4".
package minigame

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/midas-go/midas/internal/report"
)

// Env is the environment of a payment. URLs, account and offer id are the same in both;
// AppKey, zones and items are not.
type Env int

// The environments.
const (
	Live    Env = 0 // 现网
	Sandbox Env = 1 // 沙箱: a payment costs nothing, and its push comes to the same URL
)

// Defaults of Config, and limits.
const (
	defaultBaseURL    = "https://api.weixin.qq.com"
	defaultZoneID     = "1"
	defaultMaxAttach  = 1024
	defaultRetries    = 2
	defaultRetryDelay = 100 * time.Millisecond
	defaultHTTPLimit  = 5 * time.Second // for one try
	defaultDeliveries = 256
	maxSecret         = 1024 // bytes of a key

	// WeChat records a timeout after 3 s (minigame.md 4.1).
	weChatPatience        = 3 * time.Second
	defaultDeliverTimeout = 2000 * time.Millisecond
	defaultAnswerTimeout  = 2500 * time.Millisecond
)

// PushKey is what one push configuration of the console holds.
type PushKey struct {
	Token          Secret // Token(令牌)
	EncodingAESKey Secret // 43 characters; empty for plaintext mode only
}

// Config configures a [Client]. AppID is required, and for each thing a Client does what
// the comments say; every other field has a usable zero value. Printed or logged it shows
// no key.
type Config struct {
	AppID       string // of the account: "wx…"
	MiniProgram bool   // the account is a mini program, not a mini game

	// OfferID (支付应用ID) and the AppKeys (支付密钥) are needed for orders, pushes and server
	// calls. Either key may be empty: then nothing can be done in its environment.
	OfferID       string
	AppKey        Secret // live
	SandboxAppKey Secret

	// Secret is the account's AppSecret, for Code2Session, and for access tokens where
	// AccessToken is nil.
	Secret Secret

	// PushKeys are the push configurations of the console: 发货推送, 事件订阅 and 消息推送 have a
	// Token and a key each. A push that verifies under one of them is accepted.
	PushKeys []PushKey

	// DeliverSandbox delivers sandbox payments too, which cost nothing: for test servers
	// only. If false, their pushes are answered with a failure and nothing is granted.
	DeliverSandbox bool

	// TrustPlaintext delivers the pushes of a mini program in plaintext mode on the word of
	// their URL's signature, which does not cover the body: whoever has seen one such URL
	// can post any payment. If false, query_order is asked first whether the order is paid
	// or refunded; it does not tell item and quantity, so compare these with the stored
	// order; and complaints and refund inquiries, which nothing confirms, go to Handlers.Other.
	// Use secure mode instead.
	TrustPlaintext bool

	// ZoneID is the zone (分区) of requests that name none. Empty means "1".
	ZoneID string

	// MaxAttach is the limit on an order's Attach, in bytes. Zero means 1024. (None is
	// documented.)
	MaxAttach int

	// AccessToken optionally specifies the source of access tokens. rejected is empty, or
	// the token that WeChat has just refused, so that the source can renew it. If nil, the
	// Client fetches them with Secret from stable_token (minigame.md 1.4).
	AccessToken AccessTokenFunc

	// BaseURL is where server calls go. Empty means https://api.weixin.qq.com.
	BaseURL string

	// HTTPClient optionally specifies the client for server calls. It is not modified: the
	// copy that is used follows no redirect and keeps no cookies. One that skips TLS
	// verification is refused. After an answer that cannot be used its idle connections are
	// closed. If nil, one is used that gives a try 5 s.
	HTTPClient *http.Client

	// MaxRetries is how often a server call is repeated where that is safe (minigame.md 7).
	// Zero means 2; negative means never; at most 10. RetryDelay is the wait before the
	// first repetition; each further wait is twice as long, and up to half of it is taken
	// off at random. Zero means 100 ms.
	MaxRetries int
	RetryDelay time.Duration

	// DeliverTimeout is when the context of the game's function ends, AnswerTimeout when
	// the answer to a push leaves at the latest, both counted from its arrival. Zero means
	// 2 s and 2.5 s. AnswerTimeout must be below WeChat's 3 s.
	DeliverTimeout, AnswerTimeout time.Duration

	// MaxDeliveries is how many of the game's functions may run at once. Further pushes are
	// answered with a failure at once, and come again. Zero means 256.
	MaxDeliveries int

	// Logger optionally specifies where pushes and repeated calls are logged. OnPush
	// optionally gets the same as events. Neither can hold up an answer.
	Logger *slog.Logger
	OnPush func(PushEvent)

	// Now optionally specifies the clock of ts. If nil, time.Now.
	Now func() time.Time
}

// A Client does the server's part for one account. Make one with [New] and share it: it
// is safe for concurrent use and has nothing to close. The zero value is not usable.
type Client struct {
	config  func() *Config // a func: printers show fields, not closures
	http    *http.Client
	token   AccessTokenFunc
	running *report.Counter
	log     *report.Reporter // nil without a Logger
	hook    *report.Reporter // nil without OnPush
	forged  *report.Limit

	warnAttach *sync.Once
}

// New returns a Client, or everything that is wrong with cfg as joined [*ConfigError]
// values. It sends nothing.
func New(cfg Config) (*Client, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	quiet := *cfg.HTTPClient // one player's session is not another's, and redirects would carry secrets
	quiet.Jar = nil
	quiet.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	c := &Client{
		warnAttach: new(sync.Once),
		config:     func() *Config { return &cfg },
		http:       &quiet,
		token:      cfg.AccessToken,
		running:    new(report.Counter),
		forged:     new(report.Limit),
	}
	if c.token == nil {
		c.token = newStableToken(c).get
	}
	if cfg.Logger != nil {
		c.log = new(report.Reporter)
	}
	if cfg.OnPush != nil {
		c.hook = new(report.Reporter)
	}
	return c, nil
}

func (cfg Config) withDefaults() Config {
	cfg.BaseURL = strings.TrimRight(cfg.BaseURL, "/")
	setDefault(&cfg.BaseURL, defaultBaseURL)
	setDefault(&cfg.ZoneID, defaultZoneID)
	setDefault(&cfg.MaxAttach, defaultMaxAttach)
	setDefault(&cfg.MaxRetries, defaultRetries)
	setDefault(&cfg.RetryDelay, defaultRetryDelay)
	setDefault(&cfg.DeliverTimeout, defaultDeliverTimeout)
	setDefault(&cfg.AnswerTimeout, defaultAnswerTimeout)
	setDefault(&cfg.MaxDeliveries, defaultDeliveries)
	if cfg.HTTPClient == nil {
		cfg.HTTPClient = &http.Client{
			Timeout: defaultHTTPLimit,
			Transport: &http.Transport{
				Proxy:               http.ProxyFromEnvironment,
				ForceAttemptHTTP2:   true,
				MaxIdleConnsPerHost: 32,
				IdleConnTimeout:     90 * time.Second,
			},
		}
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return cfg
}

func setDefault[T comparable](field *T, value T) {
	if *field == *new(T) {
		*field = value
	}
}

func (cfg Config) validate() error {
	var errs []error
	refuse := func(field, reason string) { errs = append(errs, &ConfigError{field, reason}) }
	if cfg.AppID == "" {
		refuse("AppID", `empty: set the account's AppID, "wx…"`)
	}
	for _, f := range []struct{ field, value string }{
		{"AppID", cfg.AppID}, {"OfferID", cfg.OfferID}, {"ZoneID", cfg.ZoneID},
		{"AppKey", string(cfg.AppKey)}, {"SandboxAppKey", string(cfg.SandboxAppKey)}, {"Secret", string(cfg.Secret)},
	} {
		if badlyCopied(f.value) {
			refuse(f.field, "holds whitespace, an invisible character or quotes: was it copied with something around it?")
		}
	}
	if strings.HasSuffix(string(cfg.AppKey), "&") || strings.HasSuffix(string(cfg.SandboxAppKey), "&") {
		refuse("AppKey", `ends in "&": that belongs to the older Midas, here the key is used as it is`)
	}
	if cfg.AppKey != "" && cfg.AppKey == cfg.SandboxAppKey {
		refuse("SandboxAppKey", "is the live key: sandbox payments would pass for live ones")
	}
	for i, key := range cfg.PushKeys {
		if key.Token == "" || badlyCopied(string(key.Token)) {
			refuse(fmt.Sprintf("PushKeys[%d].Token", i), "empty, or copied with something around it")
		}
		if _, err := aesKey(string(key.EncodingAESKey)); err != nil && key.EncodingAESKey != "" {
			refuse(fmt.Sprintf("PushKeys[%d].EncodingAESKey", i), "has other than 43 characters of A-Z a-z 0-9 + /")
		}
	}
	u, err := url.Parse(cfg.BaseURL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || strings.ContainsAny(cfg.BaseURL, "?#") {
		refuse("BaseURL", `is not of the form "https://host"`)
	}
	if t, ok := cfg.HTTPClient.Transport.(*http.Transport); ok && t != nil && t.TLSClientConfig != nil && t.TLSClientConfig.InsecureSkipVerify {
		refuse("HTTPClient", "skips TLS verification: add the certificate to RootCAs instead")
	}
	if cfg.MaxAttach < 0 {
		refuse("MaxAttach", "negative")
	}
	if cfg.MaxRetries > 10 {
		refuse("MaxRetries", "over 10")
	}
	if cfg.RetryDelay < 0 || cfg.RetryDelay > time.Minute {
		refuse("RetryDelay", "negative, or over a minute")
	}
	if cfg.DeliverTimeout < 0 || cfg.DeliverTimeout > cfg.AnswerTimeout {
		refuse("DeliverTimeout", "negative, or above AnswerTimeout")
	}
	if cfg.AnswerTimeout < 0 || cfg.AnswerTimeout >= weChatPatience {
		refuse("AnswerTimeout", "negative, or not below the 3s that WeChat waits")
	}
	if cfg.MaxDeliveries < 0 {
		refuse("MaxDeliveries", "negative")
	}
	return errors.Join(errs...)
}

// appKey returns the key of an environment, or an error that says what to set.
func (cfg *Config) appKey(env Env) (string, error) {
	key, field := cfg.AppKey, "AppKey"
	switch env {
	case Live:
	case Sandbox:
		key, field = cfg.SandboxAppKey, "SandboxAppKey"
	default:
		return "", fmt.Errorf("minigame: Env %d is neither Live nor Sandbox", env)
	}
	if key == "" {
		return "", &ConfigError{field, "empty: it is the key of this environment"}
	}
	return string(key), nil
}

// badlyCopied reports whether a value holds what a copy from a page brings along.
func badlyCopied(s string) bool {
	const quotes = "\"'“”"
	return strings.Trim(s, quotes) != s || len(s) > maxSecret || !utf8.ValidString(s) ||
		strings.ContainsFunc(s, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) })
}
