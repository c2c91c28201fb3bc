package minigame

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"time"

	"github.com/midas-go/midas/internal/call"
)

const maxAnswerBytes = 1 << 20

// A repeat says when a call may be sent again by itself (minigame.md 2.4). Each repetition has
// the same business numbers, and a fresh ts and signatures.
type repeat int

const (
	never   repeat = iota
	query          // read-only: safe to repeat
	numbers        // idempotent by its number: repeat to learn the outcome
)

// A serverCall is one call to WeChat: which of the two signatures it carries beside the access
// token, and whether it may be repeated. The table is the only place that says so.
type serverCall struct {
	path    string
	paySig  bool // pay_sig under AppKey
	userSig bool // signature under the player's session_key
	repeat  repeat
}

var (
	callGameOrder   = serverCall{"/wxa/game/queryorderinfo", true, true, query}
	callCoinBalance = serverCall{"/wxa/game/getbalance", true, true, query}
	callSpendCoins  = serverCall{"/wxa/game/pay", true, true, numbers}
	callReturnCoins = serverCall{"/wxa/game/cancelpay", true, true, numbers}
	callGiveCoins   = serverCall{"/wxa/game/present", true, true, numbers}

	callTokenBalance    = serverCall{"/xpay/query_user_balance", true, true, query}
	callSpendTokens     = serverCall{"/xpay/currency_pay", true, true, numbers}
	callReturnTokens    = serverCall{"/xpay/cancel_currency_pay", true, true, numbers}
	callGiveTokens      = serverCall{"/xpay/present_currency", true, false, numbers} // new pages list no signature: an extra one is not known to hurt
	callProgramOrder    = serverCall{"/xpay/query_order", true, false, query}
	callNotifyDelivered = serverCall{"/xpay/notify_provide_goods", true, false, numbers} // as present_currency
	callRefundOrder     = serverCall{"/xpay/refund_order", true, false, numbers}
	callStartDownload   = serverCall{"/xpay/start_download_order", true, false, never}
	callQueryDownload   = serverCall{"/xpay/query_download_order", true, false, query}
	callBill            = serverCall{"/xpay/download_bill", true, false, query}
	callAppleBill       = serverCall{"/xpay/download_ios_settlement_bill", true, false, query}
)

// A CallPlayer is whom a call is about. SessionKey is the newest; IP is the player's public
// address, which calls about coins require.
type CallPlayer struct {
	OpenID     string
	SessionKey Secret
	IP         string
}

// A body is that of a call. What is "" is left out.
type body map[string]any

// post sends a call and reads its answer into out, unless something is wrong with its fields. It
// is serialised once for each try, and what is signed is what is sent.
//
// repeated says that WeChat answered "done before": this very number was taken in an
// earlier try, or an earlier call.
func (c *core) post(ctx context.Context, api serverCall, env Env, sessionKey Secret, body body, out any, wrong ...error) (repeated bool, err error) {
	if err := errors.Join(wrong...); err != nil {
		return false, fmt.Errorf("minigame: %s: %w", api.path, err)
	}
	cfg := c.config()
	key, err := cfg.appKey(env)
	if err != nil {
		return false, fmt.Errorf("minigame: %s: %w", api.path, err)
	}
	maps.DeleteFunc(body, func(_ string, value any) bool { return value == "" })
	openID, _ := body["openid"].(string)
	token := heldToken{core: c, path: api.path}
	tried, unknown := false, false // unknown: a try may have been taken
	var refusal *Error
	err = c.repeat(ctx, api.path).Do(ctx, func() (again bool, err error) {
		refusal = nil
		err = token.with(ctx, func(token string) error {
			if !c.program {
				body["ts"] = cfg.Now().Unix()
			}
			sent, err := json.Marshal(body)
			if err != nil {
				return fmt.Errorf("%s: %w", api.path, err)
			}
			params := url.Values{"access_token": {token}}
			if api.paySig {
				params.Set("pay_sig", PaySig(api.path, string(sent), key))
			}
			if api.userSig {
				params.Set("signature", Signature(string(sent), string(sessionKey)))
				if !c.program {
					params.Set("sig_method", "hmac_sha256")
				}
			}
			tried = true
			return c.send(ctx, http.MethodPost, api.path, params, sent, out, token, key, string(sessionKey), openID)
		})
		errors.As(err, &refusal)
		again = !errors.Is(err, errNoToken) && worthRepeating(err) // a token's own tries are over
		unknown = unknown || again
		return again && api.repeat != never, err
	})
	switch {
	case err == nil:
		return false, nil
	case refusal != nil && refusal.doneBefore() && api.repeat == numbers:
		return true, nil
	case refusal != nil && refusal.judged() && !(unknown && refusal.Code == returnedBefore):
		return false, fmt.Errorf("minigame: %w", refusal)
	case ctx.Err() != nil:
		unknown = tried // of a refusal that came as ctx ended, too: the next call tells
	}
	if unknown && api.repeat == numbers {
		err = fmt.Errorf("%w: %w", ErrOutcomeUnknown, err)
	} else if ctx.Err() != nil {
		return false, ctx.Err()
	}
	return false, fmt.Errorf("minigame: %w", err)
}

// repeat says how calls are repeated where that is safe.
func (c *core) repeat(ctx context.Context, path string) call.Retry {
	cfg := c.config()
	return call.Retry{Most: cfg.MaxRetries, Delay: cfg.RetryDelay, Log: func(try int, delay time.Duration, err error) {
		c.events.Log(ctx, "minigame: call failed, trying again",
			slog.String("call", path), slog.Int("try", try), slog.String("error", err.Error()), slog.Duration("delay", delay))
	}}
}

// A heldToken is the access token of one call and its repetitions.
type heldToken struct {
	core     *core
	path     string // of the call
	token    string
	rejected string
}

// errNoToken is in the error of a call that was not made: there is no access token for it.
var errNoToken = errors.New("access token")

// with makes a try with the token, and once more with a new one if WeChat refuses it: a
// second new token would not be better.
func (t *heldToken) with(ctx context.Context, try func(token string) error) error {
	for {
		if t.token == "" {
			token, err := t.core.token(ctx, t.rejected)
			if err != nil {
				return fmt.Errorf("%s: %w: %w", t.path, errNoToken, err)
			}
			t.token = token
		}
		err := try(t.token)
		var refusal *Error
		if t.rejected != "" || !errors.As(err, &refusal) || !refusal.tokenRefused() {
			return err
		}
		t.token, t.rejected = "", t.token
	}
}

// worthRepeating reports whether the same call may succeed later: after a fault, or when
// WeChat is busy.
func worthRepeating(err error) bool {
	var refusal *Error
	var unusable *ResponseError
	switch {
	case errors.As(err, &refusal):
		return refusal.Code == -1
	case errors.As(err, &unusable):
		return unusable.StatusCode/100 != 3
	}
	return call.Passing(err)
}

// sendAgain is send, repeated after a fault: for what only asks and carries no signature
// over a time.
func (c *core) sendAgain(ctx context.Context, method, path string, params url.Values, body []byte, out any, secrets ...string) error {
	return c.repeat(ctx, path).Do(ctx, func() (again bool, err error) {
		err = c.send(ctx, method, path, params, body, out, secrets...)
		return worthRepeating(err), err
	})
}

// send sends one request and reads the answer into out: an *Error if WeChat refused, a
// *ResponseError if it cannot be used, a network fault if there was none.
func (c *core) send(ctx context.Context, method, path string, params url.Values, body []byte, out any, secrets ...string) error {
	for _, value := range params {
		secrets = append(secrets, value...)
	}
	var refused *Error
	request := call.Request{
		Method: method, URL: c.config().BaseURL + path, Query: params.Encode(), Header: http.Header{},
		Body: body, Most: maxAnswerBytes, Values: func() []string { return secrets }, Once: body == nil, // a login code works once
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	err := call.Do(ctx, c.http, request, func(answer []byte) (wrong string) {
		var head struct {
			ErrCode int64  `json:"errcode"`
			ErrMsg  string `json:"errmsg"`
		}
		switch {
		case json.Unmarshal(answer, &head) != nil:
			return "not the JSON of an answer"
		case head.ErrCode != 0:
			refused = newError(path, head.ErrCode, head.ErrMsg, secrets)
		case out != nil && json.Unmarshal(answer, out) != nil:
			return "a field has another type"
		}
		return ""
	})
	var unusable *call.AnswerError
	switch {
	case errors.As(err, &unusable):
		return &ResponseError{path, unusable.StatusCode, unusable.Reason}
	case err != nil:
		return fmt.Errorf("%s: %w", path, err)
	case refused != nil:
		return refused
	}
	return nil
}

// given refuses what WeChat would refuse, before anything is sent.
func given(field, value string) error {
	if value == "" || len(value) > call.MaxSecret {
		return &FieldError{Field: field, Reason: "empty or over 1024 bytes"}
	}
	return nil
}

// numbered refuses a number of a coin payment or a refund that does not fit (minigame.md 3.4 and 4.4).
func numbered(field, s string, least, most int) error {
	if len(s) >= least && len(s) <= most && s[0] != '_' && only(s, alphanumeric+"_-") {
		return nil
	}
	return &FieldError{Field: field, Reason: fmt.Sprintf(`not %d to %d of A-Z a-z 0-9 _ - without "_" in front`, least, most)}
}

func positive(field string, n int64) error {
	if n > 0 {
		return nil
	}
	return &FieldError{Field: field, Reason: "below 1"}
}
