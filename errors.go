package midas

import (
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strconv"
)

// The things a caller does something about. Match them with [errors.Is]; they
// come wrapped, with the details.
var (
	// ErrSignature: a callback is not verified, so nothing in it can be trusted; or
	// Midas refused the signature of an order (ret 1001, "sig error"). Check the pay
	// key and its environment, and for callbacks Config.DeliveryPath.
	ErrSignature = errors.New("signature not verified")

	// ErrLoginExpired: Midas no longer knows the player's login (ret 1018). The app
	// logs in again and sends a new openkey, pf and pfkey.
	ErrLoginExpired = errors.New("login expired")

	// ErrPermission: no permission (ret 1016), mostly because sandbox and live are
	// mixed up: gateway, offer id and pay key must be of one environment.
	ErrPermission = errors.New("no permission")

	// ErrTokenExpired is what a DeliverFunc returns to answer ret 2. That a callback comes
	// late is no reason for it: that player has paid.
	ErrTokenExpired = errors.New("token expired")

	// ErrTokenNotFound is what a DeliverFunc returns for an order it never placed,
	// to answer ret 3.
	ErrTokenNotFound = errors.New("token not found")
)

// Error is a refusal by Midas: an answer whose ret is not 0 (protocol.md 4).
// Sending the same request again does not help. Get at it with [errors.As], or
// match what it stands for with [errors.Is]: 1016 is [ErrPermission], 1018 is
// [ErrLoginExpired], 1001 whose msg speaks of the sig is [ErrSignature].
type Error struct {
	Ret  int    // Midas's return code, mostly 1000 and above
	Msg  string // Midas's words, the request's secrets masked; may be empty
	Code string // err_code as received, such as "1018--2-20"; may be empty
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
		return "the signature differs: check the pay key and the gateway"
	case e.Ret == 1001:
		return "bad parameter: fix the request"
	case e.Is(ErrPermission):
		return "no permission: are gateway, offer id and pay key of the same environment, sandbox or live?"
	case e.Is(ErrLoginExpired):
		return "login expired: let the app log in again; on YSDK a QQ player's OpenKey is the value called pay_token"
	}
	return ""
}

var aboutSig = regexp.MustCompile(`(?i)\bsig(nature)?\b`)

// Is makes errors.Is(err, ErrLoginExpired) and its like work.
func (e *Error) Is(target error) bool {
	if e == nil {
		return false
	}
	switch target {
	case ErrSignature:
		return e.Ret == 1001 && aboutSig.MatchString(e.Msg)
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

// ResponseError is an answer that cannot be used: an HTTP status other than 200,
// HTML, nothing, half an answer, or over 1 MiB of it. Whether the order exists is
// unknown; as no money has moved, placing it again is safe.
type ResponseError struct {
	StatusCode int    // HTTP status
	Excerpt    string // the beginning of the body, the request's secrets masked; may be empty
	Reason     string // what is wrong with it
	cause      error
}

func (e *ResponseError) Error() string {
	text := fmt.Sprintf("no usable answer (HTTP status %d): %s", e.StatusCode, e.Reason)
	if e.Excerpt != "" {
		text += ": " + strconv.Quote(e.Excerpt)
	}
	return text
}

// Unwrap returns what broke off the reading of the answer, if anything did.
func (e *ResponseError) Unwrap() error { return e.cause }

// ParamError is a parameter that is missing or wrong, in an order (nothing was
// sent) or in a callback (nothing was delivered). A DeliverFunc returns one to
// answer ret 4 naming the parameter.
type ParamError struct {
	Param  string // name on the wire: "payitem", "amt"
	Reason string // what is wrong; never holds a secret
}

func (e *ParamError) Error() string { return "parameter " + e.Param + ": " + e.Reason }

// ConfigError is a field of [Config] that is missing or wrong. [New] reports all of
// them at once, joined.
type ConfigError struct {
	Field  string // name in Config: "AppKey"
	Reason string
}

func (e *ConfigError) Error() string { return "midas.Config." + e.Field + ": " + e.Reason }
