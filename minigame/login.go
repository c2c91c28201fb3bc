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

	"github.com/midas-go/midas"
)

// A Session is a player's login.
type Session struct {
	OpenID  string
	UnionID string // empty unless the account belongs to an open platform

	// SessionKey signs orders and calls. Keep the newest of each player on the server:
	// WeChat replaces it at times, and it lives for days. Never hand it out.
	SessionKey Secret
}

// Code2Session turns the code of wx.login into the player's session (minigame.md 1.4). A code
// works once, for five minutes: it is sent once and never repeated.
//
// Errors: [ErrCode], [ErrBlocked], [ErrRateLimit], [ErrBusy], a [*ResponseError], a
// [*midas.ParamError] for an empty code. After a fault the code may be used up: let the app
// log in again.
func (c *Client) Code2Session(ctx context.Context, code string) (*Session, error) {
	cfg := c.config()
	switch {
	case cfg.Secret == "":
		return nil, fmt.Errorf("minigame: Code2Session: %w", &ConfigError{"Secret", "empty: set the account's AppSecret"})
	case code == "" || len(code) > maxSecret:
		return nil, fmt.Errorf("minigame: Code2Session: %w", &midas.ParamError{Param: "js_code", Field: "code", Reason: "empty or over 1024 bytes"})
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
func (c *Client) CheckSessionKey(ctx context.Context, openID string, sessionKey Secret) error {
	for rejected := ""; ; {
		token, err := c.token(ctx, rejected)
		if err != nil {
			return fmt.Errorf("minigame: CheckSessionKey: access token: %w", err)
		}
		params := url.Values{
			"access_token": {token}, "openid": {openID}, "sig_method": {"hmac_sha256"},
			"signature": {Signature("", string(sessionKey))}, // a GET signs the empty string
		}
		err = c.sendAgain(ctx, http.MethodGet, "/wxa/checksession", params, nil, nil, token, string(sessionKey))
		var refusal *Error
		if errors.As(err, &refusal) && refusal.tokenRefused() && rejected == "" {
			rejected = token
			continue
		}
		return contextOr(ctx, err)
	}
}

// contextOr returns ctx.Err() if ctx ended, else err as this package returns it.
func contextOr(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("minigame: %w", err)
	}
	return nil
}

// An AccessTokenFunc returns an access token of the account. rejected is empty, or the
// token that WeChat has just refused: then a new one is wanted. It is called concurrently.
type AccessTokenFunc func(ctx context.Context, rejected string) (string, error)

// tokenMargin is how long before its end an access token is no longer used. stable_token
// returns the same token to every process until then, so processes need not share it.
const tokenMargin = 5 * time.Minute

// A stableToken is an access token from stable_token in its normal mode, fetched once for
// all who wait for it. force_refresh is never used: it kills the token of other processes.
type stableToken struct {
	client *Client

	mu      sync.Mutex
	token   func() string // a func: printers show fields, not closures
	expires time.Time
	flight  *flight // nil if nobody fetches
}

type flight struct {
	done chan struct{}
	err  error
}

func newStableToken(c *Client) *stableToken {
	return &stableToken{client: c, token: func() string { return "" }}
}

// get is an AccessTokenFunc.
func (s *stableToken) get(ctx context.Context, rejected string) (string, error) {
	for waited := false; ; waited = true {
		s.mu.Lock()
		token := s.token()
		fresh := token != "" && s.client.config().Now().Before(s.expires)
		if fresh && (token != rejected || waited) {
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
		case <-f.done:
			if f.err != nil {
				return "", f.err
			}
		}
	}
}

func (s *stableToken) fetch(ctx context.Context, f *flight) {
	cfg := s.client.config()
	ctx, cancel := context.WithTimeout(ctx, 2*defaultHTTPLimit)
	defer cancel()
	var answer struct {
		Token   string `json:"access_token"`
		Expires int64  `json:"expires_in"`
	}
	asked := cfg.Now()
	err := error(&ConfigError{"Secret", "empty, and so is AccessToken: set one of them"})
	if cfg.Secret != "" {
		const path = "/cgi-bin/stable_token"
		body, _ := json.Marshal(map[string]any{
			"grant_type": "client_credential", "appid": cfg.AppID, "secret": string(cfg.Secret), "force_refresh": false,
		})
		err = s.client.sendAgain(ctx, http.MethodPost, path, url.Values{}, body, &answer, string(cfg.Secret))
		if err == nil && (answer.Token == "" || answer.Expires <= 0) {
			err = &ResponseError{path, http.StatusOK, "access_token or expires_in is missing"}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.err = err; err == nil {
		life := time.Duration(min(answer.Expires, 7200)) * time.Second
		// A token near its end is good until then; at least it is not fetched for every call.
		s.token, s.expires = func() string { return answer.Token }, asked.Add(max(life-tokenMargin, life/2))
	}
	s.flight = nil
	close(f.done)
}
