package midas

import (
	"errors"
	"log/slog"
	"net"
	"regexp"
	"strconv"

	"github.com/midas-go/midas/internal/call"
)

// Errors a caller can act on. They come wrapped; use [errors.Is].
var (
	// ErrSignature: a callback is not verified, so nothing in it can be trusted; or
	// Midas refused the signature of an order (ret 1001, "sig error"). Check the pay
	// key and its environment, and for callbacks Config.DeliveryPath.
	ErrSignature = errors.New("signature not verified")

	// ErrLoginExpired: Midas does not know the player's login (ret 1018). It sometimes
	// clears up within seconds, so one more try is worthwhile while the player
	// waits; after that the app logs in again and sends a new openkey, pf and pfkey.
	ErrLoginExpired = errors.New("login expired")

	// ErrPermission: no permission (ret 1016). Gateway, offer id and pay key must be of
	// one environment, sandbox or live, and the sandbox must be published in the console.
	ErrPermission = errors.New("no permission")

	// ErrNotSent: nothing of a call left the process, so making it again cannot do it twice. It
	// is joined with the reason, from [Client.Call] and [Client.CreateOrder]; a [*FieldError] has
	// to be fixed first. After any other error but an [*Error] the outcome is unknown.
	ErrNotSent = errors.New("nothing was sent")

	// ErrTokenExpired: a DeliverFunc that returns it answers ret 2. It is hardly ever right:
	// a callback that comes late is from a player who has paid.
	ErrTokenExpired = errors.New("token expired")

	// ErrTokenNotFound: a DeliverFunc that returns it answers ret 3, which is assumed to be
	// final: return it for an order that was never placed.
	ErrTokenNotFound = errors.New("token not found")
)

// Error is a refusal by Midas: an answer whose ret is not 0 (protocol.md 4,
// answer). Sending the same request again helps at most after [ErrLoginExpired]. Use
// [errors.As] for its
// fields and [errors.Is] for what it means: 1016 is [ErrPermission], 1018 is
// [ErrLoginExpired], 1001 with a msg about the sig is [ErrSignature].
type Error struct {
	Ret  int    // Midas's return code, mostly 1000 and above
	Msg  string // Midas's message; "[withheld]" unless it is plain words without a value of the request
	Code string // err_code, such as "1018--2-20"; "[withheld]" if it does not look like one; may be empty

	aboutSig bool // the message is about the sig, whether it is shown or not
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

// meanings are the return codes that a caller can act on (protocol.md 4, answer).
var meanings = map[int]struct {
	is   error
	hint string
}{
	1001: {nil, "bad parameter: fix the request"},
	1016: {ErrPermission, "no permission: are gateway, offer id and pay key of the same environment, and is the sandbox published in the console?"},
	1018: {ErrLoginExpired, "login expired: try once more in some seconds, then let the app log in again; on YSDK a QQ player's OpenKey is the value called pay_token"},
}

func (e *Error) hint() string {
	if e.Is(ErrSignature) {
		return "the signature does not match: check the pay key and the gateway"
	}
	return meanings[e.Ret].hint
}

var aboutSig = regexp.MustCompile(`(?i)\bsig(nature)?(\b|_)`)

// Is makes errors.Is(err, ErrLoginExpired) and the like work.
func (e *Error) Is(target error) bool {
	switch {
	case e == nil || target == nil:
		return false
	case target == ErrSignature:
		return e.Ret == 1001 && (e.aboutSig || aboutSig.MatchString(e.Msg))
	}
	return meanings[e.Ret].is == target
}

// LogValue shows the fields as a group.
func (e *Error) LogValue() slog.Value {
	return slog.GroupValue(slog.Int("ret", e.Ret), slog.String("msg", e.Msg), slog.String("err_code", e.Code))
}

// ResponseError is an answer to a call that cannot be used: an HTTP status other
// than 200, HTML, nothing, half an answer, or too much of it. Its body is never
// shown, since proxies repeat the URL with its secrets there. Whether Midas did what
// was asked is unknown. An order moves no money, so placing it again is safe.
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

// FieldError is a field of a request, an amount or an item that is missing or wrong; nothing
// was sent or stored. It says nothing about a callback: see [ReplyTo].
type FieldError struct {
	Field  string // in Go: "Player.Login", "Items[0].Price"
	Param  string // name on the wire, such as "payitem"; empty where there is none
	Reason string // what is wrong; never holds a secret
}

func (e *FieldError) Error() string {
	if e.Param == "" || e.Param == e.Field {
		return e.Field + ": " + e.Reason
	}
	return e.Field + " (parameter " + e.Param + "): " + e.Reason
}

// ParamError is a parameter of a callback that is missing or wrong; nothing was delivered. A
// DeliverFunc that returns one refuses the payment: it is answered ret 4, naming the
// parameter, with the exceptions of [ReplyTo].
type ParamError struct {
	Param  string // name on the wire: "amt"
	Reason string // what is wrong; never holds a secret
}

func (e *ParamError) Error() string { return "parameter " + e.Param + ": " + e.Reason }

// A notSentError is an error after which nothing has left the process.
type notSentError struct{ error }

func (e *notSentError) Is(target error) bool { return target == ErrNotSent }
func (e *notSentError) Unwrap() error        { return e.error }

// wrongFields joins errs, all of them *FieldError values, or returns nil.
func wrongFields(errs []error) error {
	if errs == nil {
		return nil
	}
	return &notSentError{errors.Join(errs...)}
}

// aboutCall reports whether err or anything it wraps is about a call, an amount or the
// network, which says nothing about a callback.
func aboutCall(err error) bool {
	var (
		refused  *Error
		unusable *ResponseError
		field    *FieldError
		config   *ConfigError
		fault    *call.NetworkError
		network  net.Error
	)
	return errors.As(err, &refused) || errors.As(err, &unusable) || errors.As(err, &field) ||
		errors.As(err, &config) || errors.As(err, &fault) || errors.As(err, &network)
}

// ConfigError is a field of [Config] that is missing or wrong. [New] reports all
// of them at once, joined.
type ConfigError struct {
	Field  string // name in Config: "AppKey"
	Reason string
}

func (e *ConfigError) Error() string { return "midas.Config." + e.Field + ": " + e.Reason }
