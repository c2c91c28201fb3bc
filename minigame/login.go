package minigame

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/midas-go/midas/internal/call"
)

// A Session is a player's login.
type Session struct {
	OpenID  string
	UnionID string // empty unless the account belongs to an open platform

	// SessionKey signs orders and calls. Keep the newest of each player on the server:
	// WeChat replaces it at times, and it lives for days. Never hand it out.
	SessionKey Secret
}

// Code2Session turns the code of wx.login into the player's session (minigame.md 2.1). A code
// works once, for five minutes: it is sent once and never repeated.
//
// Errors: [ErrCode], [ErrBlocked], [ErrRateLimit], [ErrBusy], a [*ResponseError], a
// [*FieldError] for an empty code. After a fault the code may be used up: let the app
// log in again.
func (c *core) Code2Session(ctx context.Context, code string) (*Session, error) {
	cfg := c.config()
	switch {
	case cfg.Secret == "":
		return nil, fmt.Errorf("minigame: Code2Session: %w", &ConfigError{"Secret", "empty: set the account's AppSecret"})
	case code == "" || len(code) > call.MaxSecret:
		return nil, fmt.Errorf("minigame: Code2Session: %w", &FieldError{"code", "js_code", "empty or over 1024 bytes"})
	}
	params := url.Values{"appid": {cfg.AppID}, "secret": {string(cfg.Secret)}, "js_code": {code}, "grant_type": {"authorization_code"}}
	var answer struct {
		OpenID     string `json:"openid"`
		UnionID    string `json:"unionid"`
		SessionKey string `json:"session_key"`
	}
	const path = "/sns/jscode2session"
	err := c.send(ctx, http.MethodGet, path, params, nil, &answer, string(cfg.Secret), code)
	if err == nil && (answer.OpenID == "" || answer.SessionKey == "") {
		err = &ResponseError{path, http.StatusOK, "openid or session_key is missing"}
	}
	if err != nil {
		return nil, contextOr(ctx, err)
	}
	return &Session{answer.OpenID, answer.UnionID, Secret(answer.SessionKey)}, nil
}

// CheckSessionKey returns nil if the session_key is still the player's, and
// [ErrLoginExpired] if it is not. It is repeated after a fault.
func (c *core) CheckSessionKey(ctx context.Context, openID string, sessionKey Secret) error {
	const path = "/wxa/checksession"
	held := heldToken{core: c, path: path}
	err := held.with(ctx, func(token string) error {
		params := url.Values{
			"access_token": {token}, "openid": {openID}, "sig_method": {"hmac_sha256"},
			"signature": {Signature("", string(sessionKey))}, // a GET signs the empty string
		}
		return c.sendAgain(ctx, http.MethodGet, path, params, nil, nil, string(sessionKey))
	})
	return contextOr(ctx, err)
}

// contextOr returns ctx.Err() if ctx ended, else err as this package returns it.
func contextOr(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return fmt.Errorf("minigame: %w", err)
}

// An AccessTokenFunc returns an access token of the account. rejected is empty, or the
// token that WeChat has just refused: then a new one is wanted. It is called concurrently.
type AccessTokenFunc func(ctx context.Context, rejected string) (string, error)

// tokenMargin is how long before its end an access token is no longer used. stable_token
// returns the same token to every process until then, so processes need not share it.
const tokenMargin = 5 * time.Minute

// A stableToken is an access token from stable_token in its normal mode, fetched once for
// all who wait for it. force_refresh is never used: it kills the token of other processes. A core has
// it behind a func, since printers show fields and not closures.
type stableToken struct {
	core *core

	mu      sync.Mutex
	token   string
	expires time.Time
	flight  *flight // nil unless one is under way
}

// A flight is one fetch; token and err may be read once done is closed.
type flight struct {
	done  chan struct{}
	token string
	err   error
}

// get is an AccessTokenFunc.
func (s *stableToken) get(ctx context.Context, rejected string) (string, error) {
	s.mu.Lock()
	if token := s.token; token != "" && token != rejected && s.core.config().Now().Before(s.expires) {
		s.mu.Unlock()
		return token, nil
	}
	f := s.flight
	if f == nil {
		f = &flight{done: make(chan struct{})}
		s.flight = f
		go s.fetch(context.WithoutCancel(ctx), f) // one caller's end is not the others'
	}
	s.mu.Unlock()
	select {
	case <-ctx.Done():
		return "", ctx.Err()
	case <-f.done: // whatever is left of its life: to fetch again at once would bring the same token
		return f.token, f.err
	}
}

func (s *stableToken) fetch(ctx context.Context, f *flight) {
	cfg := s.core.config()
	ctx, cancel := context.WithTimeout(ctx, 2*defaultHTTPLimit)
	defer cancel()
	var answer struct {
		Token   string `json:"access_token"`
		Expires int64  `json:"expires_in"`
	}
	var asked time.Time
	err := errors.New("stable_token: the fetch ended its goroutine")
	defer func() { // deferred, for a transport or a clock that panics or calls runtime.Goexit
		if cause := recover(); cause != nil {
			err = errors.New("stable_token: the fetch panicked")
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if f.err = err; err == nil {
			life := time.Duration(min(answer.Expires, 7200)) * time.Second
			// A token near its end is good until then; at least it is not fetched for every call.
			f.token = answer.Token
			s.token, s.expires = answer.Token, asked.Add(max(life-tokenMargin, life/2))
		}
		s.flight = nil
		close(f.done)
	}()
	asked = cfg.Now()
	if cfg.Secret == "" {
		err = &ConfigError{"Secret", "empty, and so is AccessToken: set one of them"}
		return
	}
	const path = "/cgi-bin/stable_token"
	body, _ := json.Marshal(map[string]any{
		"grant_type": "client_credential", "appid": cfg.AppID, "secret": string(cfg.Secret), "force_refresh": false,
	})
	err = s.core.sendAgain(ctx, http.MethodPost, path, url.Values{}, body, &answer, string(cfg.Secret))
	if err == nil && (answer.Token == "" || answer.Expires <= 0) {
		err = &ResponseError{path, http.StatusOK, "access_token or expires_in is missing"}
	}
}
