package minigame

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/midas-go/midas/internal/call"
)

// Errors a caller can act on. They come wrapped; use [errors.Is]. None is one of package midas.
var (
	// ErrSignature: a push is not verified, so nothing in it can be trusted; or WeChat
	// refused the pay_sig of a call: AppKey and Env do not belong together. Repeating does
	// not help.
	ErrSignature = errors.New("signature not verified")

	// ErrEnvironment: a push is about a payment in an environment this server does not
	// deliver, or an order that was asked for belongs to the other environment.
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

	// ErrOutcomeUnknown: the coins may or may not have moved. Repeat the call with the same
	// numbers until it succeeds or the payment itself is refused, see [Game.SpendCoins]; another
	// number would charge twice.
	ErrOutcomeUnknown = errors.New("outcome unknown, repeat with the same numbers")
)

// A meaning is what an errcode says, and which error it matches: nil if no caller can act on it.
type meaning struct {
	text string
	is   error
}

// meanings are the errcodes of both products (minigame.md 2.4). Unlike the client's numbers, they
// do not overlap.
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

	268490001:       {"the openid is wrong", nil},
	268490002:       {"a parameter is wrong", nil},
	eitherSignature: {"a signature does not match: check AppKey and Env, then the session_key", ErrSignature},
	268490004:       {"done before", nil},
	returnedBefore:  {"returned before by cancel_currency_pay", nil},
	268490006:       {"too few tokens", ErrInsufficient},
	268490007:       {"a picture or text was refused", nil},
	268490008:       {"the tokens are not published", nil},
	268490009:       {"the session_key is missing or has expired", ErrLoginExpired},
	268490011:       {"the data are being made", ErrNotReady},
	268490012:       {"the task is still running", ErrNotReady},
	268490013:       {"a written-off order cannot be refunded", nil},
	268490014:       {"the refund is in progress", ErrNotReady},
	268490015:       {"too many calls", ErrRateLimit},
	268490016:       {"left_fee does not match: query the order again", nil},
	268490021:       {"the merchant is not onboarded", nil},

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

// eitherSignature is the one errcode of mini programs for both signatures. Which one it is stands
// in WeChat's words alone.
const eitherSignature = 268490003

// returnedBefore does not say whether it was an earlier try of the same call that returned it.
const returnedBefore = 268490005

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

	means int64 // the code that says the same more exactly, or 0
}

func newError(path string, code int64, msg string, secrets []string) *Error {
	e := &Error{Call: path, Code: code, Msg: call.WithRequestID(msg, secrets)}
	if words := strings.ToLower(msg); code == eitherSignature {
		switch {
		case strings.Contains(words, "pay_sig"), strings.Contains(words, "paysig"), strings.Contains(words, "支付签名"):
			e.means = 90011
		case strings.Contains(words, "signature"), strings.Contains(words, "用户"):
			e.means = 90010
		}
	}
	return e
}

func (e *Error) meaning() meaning { return meanings[cmp.Or(e.means, e.Code)] }

func (e *Error) Error() string {
	text := e.Call + " refused: errcode " + strconv.FormatInt(e.Code, 10)
	if m := e.meaning(); m.text != "" {
		text += " (" + m.text + ")"
	}
	if e.Msg != "" {
		text += ": " + strconv.Quote(e.Msg)
	}
	return text
}

// Is makes errors.Is(err, ErrLoginExpired) and the like work.
func (e *Error) Is(target error) bool {
	return e != nil && target != nil && e.meaning().is == target
}

func (e *Error) doneBefore() bool { return slices.Contains(doneBefore, e.Code) }

// judged reports whether WeChat looked at the numbers of a call before it refused it. What is
// wrong with the call itself, or comes too often, is refused before that.
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

// FieldError is a field of a request that is missing or wrong; nothing was sent.
type FieldError struct {
	Field  string // in Go: "Price"
	Param  string // name on the wire, such as "goodsPrice"; empty where there is none
	Reason string // what is wrong; never holds a secret
}

func (e *FieldError) Error() string {
	if e.Param == "" {
		return e.Field + ": " + e.Reason
	}
	return e.Field + " (parameter " + e.Param + "): " + e.Reason
}

// ParamError is a parameter of a verified push that is missing or wrong; nothing was granted.
type ParamError struct {
	Param  string // name on the wire: "GoodsInfo.Quantity"
	Reason string // what is wrong; never holds a secret
}

func (e *ParamError) Error() string { return "parameter " + e.Param + ": " + e.Reason }

// ConfigError is a field of a [GameConfig] or [ProgramConfig] that is missing or wrong. NewGame
// and NewProgram report all of them at once, joined; a method that needs a field which may be
// empty reports that one.
type ConfigError struct {
	Field  string // name in the configuration: "AppKey"
	Reason string
}

func (e *ConfigError) Error() string { return "minigame: configuration: " + e.Field + ": " + e.Reason }
