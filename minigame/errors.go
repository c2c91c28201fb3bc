package minigame

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
)

// Errors a caller can act on. They come wrapped; use [errors.Is].
var (
	// ErrSignature: a push is not verified, so nothing in it can be trusted; or WeChat
	// refused the pay_sig of a call: AppKey and Env do not belong together. Repeating does
	// not help.
	ErrSignature = errors.New("signature not verified")

	// ErrEnvironment: a push is about a payment in an environment this server does not
	// deliver.
	ErrEnvironment = errors.New("environment not served")

	// ErrLoginExpired: the session_key is not the player's current one, or has expired.
	// Take the newest; if that was it, let the app log in again, once.
	ErrLoginExpired = errors.New("login expired")

	// ErrCode: the code of wx.login is wrong, used or older than five minutes. Let the app
	// log in again.
	ErrCode = errors.New("login code not valid")

	// ErrInsufficient: the player has too few coins or tokens.
	ErrInsufficient = errors.New("balance too low")

	// ErrNotFound: WeChat knows no such order. A mini game's was not opened, or not paid.
	ErrNotFound = errors.New("order not found")

	// ErrNotReady: what was asked for is being made, or a refund is in progress. Ask again
	// later with the same parameters.
	ErrNotReady = errors.New("not ready yet")

	// ErrRateLimit: too many calls. Wait, longer each time.
	ErrRateLimit = errors.New("rate limit")

	// ErrBusy: WeChat has a fault of its own. Repeat later with the same parameters.
	ErrBusy = errors.New("WeChat is busy")

	// ErrAccessToken: WeChat refuses the access token, although it was renewed once.
	ErrAccessToken = errors.New("access token refused")

	// ErrIPNotAllowed: this server's address is not on the account's whitelist.
	ErrIPNotAllowed = errors.New("IP address not on the whitelist")

	// ErrBlocked: WeChat blocked the player as a risk.
	ErrBlocked = errors.New("player blocked")

	// ErrOutcomeUnknown: coins may have moved or not. Repeat the call with the same
	// numbers until it succeeds or the payment itself is refused, see [Client.Pay]; another number
	// would charge twice.
	ErrOutcomeUnknown = errors.New("outcome unknown, repeat with the same numbers")
)

// A meaning is what an errcode says, and which error it matches; nil for one nobody can
// act on.
type meaning struct {
	text string
	is   error
}

// meanings are the errcodes of both products (minigame.md 7). Their numbers do not
// overlap, unlike those of the clients.
var meanings = map[int64]meaning{
	-1: {"system busy", ErrBusy},

	90000: {"the order does not exist", ErrNotFound},
	90010: {"the signature does not match: use the newest session_key", ErrLoginExpired},
	90011: {"the pay_sig does not match: check AppKey and Env", ErrSignature},
	90012: {"this bill_no was used before", nil},
	90013: {"too few coins", ErrInsufficient},
	90016: {"the session_key has expired", ErrLoginExpired},
	90018: {"a parameter is wrong", nil},
	90019: {"the out_trade_no is not known: not opened or not paid yet", ErrNotFound},
	87009: {"the session_key is not valid", ErrLoginExpired},

	268490001: {"the openid is wrong", nil},
	268490002: {"a parameter is wrong", nil},
	268490003: {"a signature does not match: check AppKey and Env, then the session_key", ErrSignature},
	268490004: {"done before", nil},
	268490005: {"returned before by cancel_currency_pay", nil},
	268490006: {"too few tokens", ErrInsufficient},
	268490007: {"a picture or text was refused", nil},
	268490008: {"the tokens are not published", nil},
	268490009: {"the session_key is missing or has expired", ErrLoginExpired},
	268490011: {"the data are being made", ErrNotReady},
	268490012: {"the task is still running", ErrNotReady},
	268490013: {"a written-off order cannot be refunded", nil},
	268490014: {"the refund is in progress", ErrNotReady},
	268490015: {"too many calls", ErrRateLimit},
	268490016: {"left_fee does not match: query the order again", nil},
	268490021: {"the merchant is not onboarded", nil},

	40001: {"the access token is not valid", ErrAccessToken},
	40014: {"the access token is not valid", ErrAccessToken},
	42001: {"the access token has expired", ErrAccessToken},
	41001: {"the access token is missing", ErrAccessToken},
	40013: {"the AppID is wrong", nil},
	40029: {"the code is wrong", ErrCode},
	40125: {"the Secret is wrong", nil},
	40163: {"the code was used before", ErrCode},
	40164: {"this server's IP address is not on the whitelist", ErrIPNotAllowed},
	40226: {"the player is blocked as a risk", ErrBlocked},
	43002: {"POST is needed", nil},
	44002: {"the body is empty", nil},
	45009: {"the quota is used up", ErrRateLimit},
	45011: {"too many calls in a minute", ErrRateLimit},
	47001: {"the body is not JSON", nil},
	48001: {"no permission for this call", nil},
}

// doneBefore are the errcodes of a repetition of what succeeded: success.
var doneBefore = []int64{90012, 268490004}

// tokenRefused are the errcodes after which a new access token may help.
var tokenRefused = []int64{40001, 40014, 42001}

// Error is a refusal by WeChat: an answer whose errcode is not 0. Get at it with
// [errors.As], or match what it stands for with [errors.Is].
type Error struct {
	Call string // path of the call
	Code int64  // errcode
	Msg  string // errmsg; "[withheld]" where it may repeat values of the request
}

func (e *Error) Error() string {
	text := e.Call + " refused: errcode " + strconv.FormatInt(e.Code, 10)
	if m, ok := meanings[e.Code]; ok {
		text += " (" + m.text + ")"
	}
	if e.Msg != "" {
		text += ": " + strconv.Quote(e.Msg)
	}
	return text
}

// Is makes errors.Is(err, ErrLoginExpired) and the like work.
func (e *Error) Is(target error) bool {
	return e != nil && meanings[e.Code].is != nil && meanings[e.Code].is == target
}

func (e *Error) doneBefore() bool { return slices.Contains(doneBefore, e.Code) }

// judged reports whether WeChat looked at the numbers of a call before it refused it. What is wrong
// with the call itself, or comes too often, is refused before that.
func (e *Error) judged() bool {
	return e.Code >= 90000 && !e.Is(ErrLoginExpired) && !e.Is(ErrSignature) && !e.Is(ErrRateLimit)
}

func (e *Error) tokenRefused() bool { return slices.Contains(tokenRefused, e.Code) }

// ResponseError is an answer that cannot be used: an HTTP status other than 200, HTML,
// nothing, half an answer, or over 1 MiB of it. Its body is never shown, since proxies
// repeat the URL with its access token there.
type ResponseError struct {
	Call       string // path of the call
	StatusCode int
	Reason     string
}

func (e *ResponseError) Error() string {
	return fmt.Sprintf("%s: no usable answer (HTTP status %d): %s", e.Call, e.StatusCode, e.Reason)
}

// ConfigError is a field of [Config] that is missing or wrong. [New] reports all of them
// at once, joined; a method that needs a field which may be empty reports that one.
type ConfigError struct {
	Field  string // name in Config: "AppKey"
	Reason string
}

func (e *ConfigError) Error() string { return "minigame.Config." + e.Field + ": " + e.Reason }
