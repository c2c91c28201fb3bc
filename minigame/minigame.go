// Package minigame sells game items in WeChat mini games (小游戏道具直购) and mini programs
// (虚拟支付), from a game's backend.
//
// It speaks another protocol than package midas, whose name it shares: its signatures, pushes
// and error codes are different. docs/minigame.md says which of the two a game needs.
//
// # Two products
//
// A mini game's account takes a [Game], a mini program's a [Program]. Each has the calls and
// the pushes of its product only. What both have means the same in both.
//
// # Orders
//
// The app logs in with wx.login and sends its code; Code2Session turns the code into an openid
// and a session_key, which the backend keeps and never hands out. When the player picks an
// item, NewOrder builds signData, signs it twice and returns what the app passes on unchanged.
// WeChat is not called. The backend stores the order before the app gets it: prices come from
// the server's own catalogue.
//
// # Deliveries
//
// When the player has paid, WeChat posts a push (发货推送). PushHandler verifies it, runs the
// game's function and answers with the exact bytes WeChat wants. The same push may come twice,
// at once or a day later: (AppID, Env, OutTradeNo) identifies the payment, and [BillNo] makes
// one text of them; grant its items exactly once. Ignore what the app reports about the
// payment. An unverified [Delivery] is never returned.
//
// # Money
//
// Money is a [midas.Amount], in fen, and prints in yuan. There are no floats.
//
// # Not yet run against a live account
//
// The package follows Tencent's pages, type definitions and documented samples. What they leave
// open is listed in docs/minigame.md with the default chosen.
//
// # Concurrency
//
// A Game and a Program are safe for use by multiple goroutines. Blocking calls return when
// their context ends.
//
// Comments cite sections of docs/minigame.md, as "minigame.md 4.3".
package minigame

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/midas-go/midas/internal/answer"
	"github.com/midas-go/midas/internal/call"
)

// Env is the environment of a payment. URLs, account and offer id are the same in both;
// AppKey, zones and items are not.
type Env int

// The environments.
const (
	Live    Env = 0 // 现网
	Sandbox Env = 1 // 沙箱: a payment costs nothing, and its push comes to the same URL
)

// weChatPatience is how long WeChat waits for the answer to a push (minigame.md 2.3).
const weChatPatience = 3 * time.Second

// defaultHTTPLimit is the time limit of one try of a call.
const defaultHTTPLimit = 5 * time.Second

// PushKey is what one push configuration of the console holds.
type PushKey struct {
	Token          Secret // Token(令牌)
	EncodingAESKey Secret // 43 characters; empty in plaintext mode, which only a Game takes
}

// GameConfig configures a [Game]. AppID is required, and for each thing that a Game does what
// the comments say; every other field has a usable zero value. Printed or logged it shows no
// key.
type GameConfig struct {
	AppID string // of the account: "wx…"

	// OfferID (支付应用ID) and the AppKeys (支付密钥) are needed for orders, pushes and calls.
	// Either key may be empty: then nothing can be done in its environment.
	OfferID       string
	AppKey        Secret // live
	SandboxAppKey Secret

	// OtherAppKeys are up to three more live AppKeys, older or newer ones: a PayEventSig verifies
	// under any of them, orders and calls are signed with AppKey. With them a key is changed
	// without losing a payment, step by step as docs/deployment.md says for mobile games;
	// [PushEvent].Key tells when the old one is no longer used.
	OtherAppKeys []Secret

	// Secret is the account's AppSecret, for Code2Session, and for access tokens where
	// AccessToken is nil.
	Secret Secret

	// PushKeys are the push configurations of the console: 发货推送, 事件订阅 and 消息推送 have a
	// Token and a key each. A push that verifies under one of them is accepted, so the old and
	// the new one stand here together while one is changed; [PushEvent].PushKey tells which it was.
	PushKeys []PushKey

	// DeliverSandbox delivers sandbox payments too, which cost nothing: for test servers
	// only. If false, their pushes are answered with a failure and nothing is granted.
	DeliverSandbox bool

	// ZoneID is the zone (分区) of requests that name none. Empty means "1".
	ZoneID string

	// MaxAttach is the limit on an order's Attach, in bytes. Zero means 1024. (None is
	// documented.)
	MaxAttach int

	// AccessToken optionally specifies the source of access tokens. If nil, they are fetched
	// with Secret from stable_token (minigame.md 2.1).
	AccessToken AccessTokenFunc

	// BaseURL is where calls go. Empty means https://api.weixin.qq.com.
	BaseURL string

	// HTTPClient optionally specifies the client for calls. It is never modified: a copy is
	// used that follows no redirect and keeps no cookies. One that skips TLS verification is
	// refused. After an answer that cannot be used its idle connections are closed. If nil, a
	// client is used that gives each try 5 s.
	HTTPClient *http.Client

	// MaxRetries is how often a call is repeated where that is safe (minigame.md 2.4). Zero
	// means 2; negative means never; at most 10. RetryDelay is the wait before the first
	// repetition; each further wait is twice as long, and up to half of it is taken off at
	// random. Zero means 100 ms; negative or over a minute is refused.
	MaxRetries int
	RetryDelay time.Duration

	// DeliverTimeout is when the context of the game's function ends, AnswerTimeout when the
	// answer to a push leaves at the latest, both counted from its arrival. Zero means 2 s and
	// 2.5 s; negative is refused. AnswerTimeout must not be less than DeliverTimeout, and must
	// be below WeChat's 3 s.
	DeliverTimeout, AnswerTimeout time.Duration

	// MaxDeliveries is how many of the game's functions may run at once. Further pushes are
	// answered with a failure at once, and come again. Zero means 256; negative is refused.
	MaxDeliveries int

	// Logger optionally specifies where pushes and repeated calls are logged. If nil, nothing is.
	// OnPush optionally gets an event for every answer, and one more where a function returned
	// after it. It is called after the answer, one event at a time: if it blocks or panics,
	// nothing waits for it except the next event and Wait, which it must not call.
	Logger *slog.Logger
	OnPush func(PushEvent)

	// Now optionally specifies the clock: of ts, of access tokens and of AnswerBy. If nil, time.Now.
	Now func() time.Time
}

// ProgramConfig configures a [Program]. Its fields are those of [GameConfig] without ZoneID and
// OtherAppKeys (no AppKey signs its pushes), and each of PushKeys needs its EncodingAESKey: a mini program's push carries no signature over
// its body, so only secure mode (安全模式) keeps others from writing one.
type ProgramConfig struct {
	AppID, OfferID                            string
	AppKey, SandboxAppKey, Secret             Secret
	PushKeys                                  []PushKey
	DeliverSandbox                            bool
	MaxAttach                                 int
	AccessToken                               AccessTokenFunc
	BaseURL                                   string
	HTTPClient                                *http.Client
	MaxRetries                                int
	RetryDelay, DeliverTimeout, AnswerTimeout time.Duration
	MaxDeliveries                             int
	Logger                                    *slog.Logger
	OnPush                                    func(PushEvent)
	Now                                       func() time.Time
}

// A Game does the server's part for one mini game (小游戏). Make one with [NewGame] and share
// it: it is safe for concurrent use and has nothing to close. The zero value is not usable.
type Game struct{ *core }

// NewGame returns a Game, or everything that is wrong with cfg as joined [*ConfigError] values.
// It sends nothing.
func NewGame(cfg GameConfig) (*Game, error) {
	cfg.ZoneID = cmp.Or(cfg.ZoneID, "1")
	c, err := newCore(cfg, false)
	if err != nil {
		return nil, err
	}
	return &Game{c}, nil
}

// A Program does the server's part for one mini program (小程序). Make one with [NewProgram] and
// share it: it is safe for concurrent use and has nothing to close. The zero value is not usable.
type Program struct{ *core }

// NewProgram returns a Program, or everything that is wrong with cfg as joined [*ConfigError]
// values. It sends nothing.
func NewProgram(cfg ProgramConfig) (*Program, error) {
	c, err := newCore(GameConfig{
		AppID: cfg.AppID, OfferID: cfg.OfferID, AppKey: cfg.AppKey, SandboxAppKey: cfg.SandboxAppKey, Secret: cfg.Secret,
		PushKeys: cfg.PushKeys, DeliverSandbox: cfg.DeliverSandbox, MaxAttach: cfg.MaxAttach, AccessToken: cfg.AccessToken,
		BaseURL: cfg.BaseURL, HTTPClient: cfg.HTTPClient, MaxRetries: cfg.MaxRetries, RetryDelay: cfg.RetryDelay,
		DeliverTimeout: cfg.DeliverTimeout, AnswerTimeout: cfg.AnswerTimeout, MaxDeliveries: cfg.MaxDeliveries,
		Logger: cfg.Logger, OnPush: cfg.OnPush, Now: cfg.Now,
	}, true)
	if err != nil {
		return nil, err
	}
	return &Program{c}, nil
}

// A core is what both products share.
type core struct {
	program bool
	config  func() *GameConfig // a func: printers show fields, not closures
	http    *http.Client
	token   AccessTokenFunc
	running *answer.Places // the game's functions
	events  *answer.Events

	warnAttach sync.Once
}

func newCore(cfg GameConfig, program bool) (*core, error) {
	cfg.BaseURL = cmp.Or(strings.TrimRight(cfg.BaseURL, "/"), "https://api.weixin.qq.com")
	cfg.MaxAttach = cmp.Or(cfg.MaxAttach, 1024)
	cfg.MaxRetries = cmp.Or(cfg.MaxRetries, 2)
	cfg.RetryDelay = cmp.Or(cfg.RetryDelay, 100*time.Millisecond)
	cfg.DeliverTimeout = cmp.Or(cfg.DeliverTimeout, 2000*time.Millisecond)
	cfg.AnswerTimeout = cmp.Or(cfg.AnswerTimeout, 2500*time.Millisecond)
	cfg.MaxDeliveries = cmp.Or(cfg.MaxDeliveries, 256)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if err := cfg.validate(program); err != nil {
		return nil, err
	}
	c := &core{
		program: program,
		config:  func() *GameConfig { return &cfg },
		http:    call.Client(cfg.HTTPClient, defaultHTTPLimit),
		token:   cfg.AccessToken,
		running: answer.NewPlaces(cfg.MaxDeliveries),
		events:  answer.NewEvents(cfg.Logger, cfg.OnPush != nil),
	}
	if c.token == nil {
		c.token = (&stableToken{core: c}).get
	}
	return c, nil
}

func (cfg *GameConfig) validate(program bool) error {
	var errs []error
	refuse := func(field, reason string) { errs = append(errs, &ConfigError{field, reason}) }
	if cfg.AppID == "" {
		refuse("AppID", `empty: set the account's AppID, "wx…"`)
	}
	for _, f := range []struct{ field, value string }{
		{"AppID", cfg.AppID}, {"OfferID", cfg.OfferID}, {"ZoneID", cfg.ZoneID},
		{"AppKey", string(cfg.AppKey)}, {"SandboxAppKey", string(cfg.SandboxAppKey)}, {"Secret", string(cfg.Secret)},
	} {
		if call.BadlyCopied(f.value) {
			refuse(f.field, call.NotCopiedAlone)
		}
	}
	if strings.HasSuffix(string(cfg.AppKey), "&") || strings.HasSuffix(string(cfg.SandboxAppKey), "&") {
		refuse("AppKey", `ends in "&": that belongs to the older Midas, here the key is used as it is`)
	}
	live := cfg.liveKeys()
	if cfg.SandboxAppKey != "" && slices.Contains(live, cfg.SandboxAppKey) {
		refuse("SandboxAppKey", "is a live key: sandbox payments would pass for live ones")
	}
	for i, key := range cfg.OtherAppKeys {
		if key == "" || call.BadlyCopied(string(key)) || strings.HasSuffix(string(key), "&") || slices.Contains(live[:i+1], key) {
			refuse(fmt.Sprintf("OtherAppKeys[%d]", i), "empty, copied with something around it, or the same as one before it")
		}
	}
	if len(cfg.OtherAppKeys) > 3 {
		refuse("OtherAppKeys", "over three")
	}
	for i, key := range cfg.PushKeys {
		if key.Token == "" || call.BadlyCopied(string(key.Token)) {
			refuse(fmt.Sprintf("PushKeys[%d].Token", i), "empty, or copied with something around it")
		}
		_, err := aesKey(string(key.EncodingAESKey))
		switch field := fmt.Sprintf("PushKeys[%d].EncodingAESKey", i); {
		case key.EncodingAESKey == "" && program:
			refuse(field, "empty: in plaintext mode nothing signs the body of a mini program's push, so whoever has seen the URL of one could post any payment; choose 安全模式 in the console and set its key")
		case key.EncodingAESKey != "" && err != nil:
			refuse(field, "has other than 43 characters of A-Z a-z 0-9 + /")
		}
	}
	u, err := url.Parse(cfg.BaseURL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || strings.ContainsAny(cfg.BaseURL, "?#") {
		refuse("BaseURL", `is not of the form "https://host"`)
	}
	if reason := call.WrongClient(cfg.HTTPClient); reason != "" {
		refuse("HTTPClient", reason)
	}
	if cfg.MaxAttach < 0 {
		refuse("MaxAttach", "negative")
	}
	call.CheckRetries(cfg.MaxRetries, cfg.RetryDelay, refuse)
	answer.CheckLimits(cfg.MaxDeliveries, cfg.DeliverTimeout, cfg.AnswerTimeout, weChatPatience, refuse)
	return errors.Join(errs...)
}

// liveKeys returns AppKey, with which orders are signed, and the others.
func (cfg *GameConfig) liveKeys() []Secret { return append([]Secret{cfg.AppKey}, cfg.OtherAppKeys...) }

// appKey returns the key of an environment, or an error that says what to set.
func (cfg *GameConfig) appKey(env Env) (string, error) {
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

// offered returns an error if there is no offer id.
func (cfg *GameConfig) offered() error {
	if cfg.OfferID == "" {
		return &ConfigError{"OfferID", "empty: set the offer id (支付应用ID) of virtual payment 2.0"}
	}
	return nil
}
