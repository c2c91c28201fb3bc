package midas

import (
	"errors"
	"log/slog"
	"regexp"
	"slices"
	"strconv"
)

// Errors a caller can act on. They come wrapped; use [errors.Is].
var (
	// ErrSignature: a callback is not verified, so nothing in it can be trusted; or
	// Midas refused the signature of an order (ret 1001, "sig error"). Check the pay
	// key and its environment, and for callbacks Config.DeliveryPath.
	ErrSignature = errors.New("signature not verified")

	// ErrLoginExpired: Midas does not know the player's login (ret 1018). It has been
	// seen to pass within seconds, so one more try is worthwhile while the player
	// waits; after that the app logs in again and sends a new openkey, pf and pfkey.
	ErrLoginExpired = errors.New("login expired")

	// ErrPermission: no permission (ret 1016). Gateway, offer id and pay key must be of
	// one environment, sandbox or live, and the sandbox must be published in the console.
	ErrPermission = errors.New("no permission")

	// ErrTokenExpired makes a DeliverFunc's answer ret 2. It is hardly ever right: a
	// callback that comes late is from a player who has paid.
	ErrTokenExpired = errors.New("token expired")

	// ErrTokenNotFound makes a DeliverFunc's answer ret 3, which is final: return it
	// for an order that was never placed.
	ErrTokenNotFound = errors.New("token not found")
)

// Error is a refusal by Midas: an answer whose ret is not 0 (protocol.md 4,
// answer). Sending the same request again does not help. Use [errors.As] for its
// fields and [errors.Is] for what it means: 1016 is [ErrPermission], 1018 is
// [ErrLoginExpired], 1001 with a msg about the sig is [ErrSignature].
type Error struct {
	Ret  int    // Midas's return code, mostly 1000 and above
	Msg  string // Midas's words; "[withheld]" where they repeat a value of the request
	Code string // err_code, such as "1018--2-20", withheld likewise; may be empty

	aboutSig bool // Midas's words were about the sig, whether they are shown or not
}

func (e *Error) Error() string {
	text := "midas refused: ret " + strconv.Itoa(e.Ret)
	if hint := e.hint(); hint != "" {
		text += " (" + hint + ")"
	}
	if e.Msg != "" {
		text += ": " + strconv.Quote(e.Msg)
	}
	if e.Code != "" {
		text += ", err_code " + strconv.Quote(e.Code)
	}
	return text
}

func (e *Error) hint() string {
	switch {
	case e.Is(ErrSignature):
		return "the signature does not match: check the pay key and the gateway"
	case e.Ret == 1001:
		return "bad parameter: fix the request"
	case e.Is(ErrPermission):
		return "no permission: are gateway, offer id and pay key of the same environment, and is the sandbox published in the console?"
	case e.Is(ErrLoginExpired):
		return "login expired: try once more in some seconds, then let the app log in again; on YSDK a QQ player's OpenKey is the value called pay_token"
	}
	return ""
}

var aboutSig = regexp.MustCompile(`(?i)\bsig(nature)?(\b|_)`)

// Is makes errors.Is(err, ErrLoginExpired) and the like work.
func (e *Error) Is(target error) bool {
	if e == nil {
		return false
	}
	switch target {
	case ErrSignature:
		return e.Ret == 1001 && (e.aboutSig || aboutSig.MatchString(e.Msg))
	case ErrPermission:
		return e.Ret == 1016
	case ErrLoginExpired:
		return e.Ret == 1018
	}
	return false
}

// LogValue shows the fields as a group.
func (e *Error) LogValue() slog.Value {
	return slog.GroupValue(slog.Int("ret", e.Ret), slog.String("msg", e.Msg), slog.String("err_code", e.Code))
}

// ResponseError is an answer to an order that cannot be used: an HTTP status other
// than 200, HTML, nothing, half an answer, or too much of it. Its body is never
// shown, since proxies repeat the URL with its secrets there. Whether the order
// exists is unknown; no money has moved, so placing it again is safe.
type ResponseError struct {
	StatusCode  int    // HTTP status
	ContentType string // media type without parameters; empty where it is missing or odd
	Length      int64  // of the body as announced or as far as it was read, in bytes; -1 if unknown
	Reason      string // what is wrong with it
	cause       error
}

func (e *ResponseError) Error() string {
	text := "no usable answer (HTTP status " + strconv.Itoa(e.StatusCode)
	if e.ContentType != "" {
		text += ", " + e.ContentType
	}
	if e.Length >= 0 {
		text += ", " + strconv.FormatInt(e.Length, 10) + " bytes"
	}
	return text + "): " + e.Reason
}

// Unwrap returns the network fault that cut the answer short, or nil.
func (e *ResponseError) Unwrap() error { return e.cause }

// ParamError is a parameter that is missing or wrong: in an order or an amount
// (nothing was sent), or in a callback (nothing was delivered). Only errors of
// orders and amounts have a Field. A DeliverFunc returns one without a Field to
// answer ret 4, naming the parameter.
type ParamError struct {
	Param  string // name on the wire: "payitem", "amt"; empty where there is none
	Reason string // what is wrong; never holds a secret
	Field  string // where it comes from in Go: "Login", "Items[0].Price"; empty for a callback
}

func (e *ParamError) Error() string {
	switch {
	case e.Field == "":
		return "parameter " + e.Param + ": " + e.Reason
	case e.Param == "" || e.Param == e.Field:
		return e.Field + ": " + e.Reason
	}
	return e.Field + " (parameter " + e.Param + "): " + e.Reason
}

// aboutOrder reports whether err or anything it wraps is about an order or an
// amount, which says nothing about a callback.
func aboutOrder(err error) bool {
	switch e := err.(type) { //nolint:errorlint // this walks the tree itself: errors.As stops at the first match
	case *Error, *ResponseError, *fault:
		return true
	case *ParamError:
		return e != nil && e.Field != ""
	case interface{ As(any) bool }: // it may have that instead of an Unwrap
		var refused *Error
		var param *ParamError
		if e.As(&refused) || e.As(&param) && aboutOrder(param) {
			return true
		}
	}
	switch e := err.(type) { //nolint:errorlint // as above
	case interface{ Unwrap() error }:
		return aboutOrder(e.Unwrap())
	case interface{ Unwrap() []error }:
		return slices.ContainsFunc(e.Unwrap(), aboutOrder)
	}
	return false
}

// ConfigError is a field of [Config] that is missing or wrong. [New] reports all
// of them at once, joined.
type ConfigError struct {
	Field  string // name in Config: "AppKey"
	Reason string
}

func (e *ConfigError) Error() string { return "midas.Config." + e.Field + ": " + e.Reason }
