package midas

import (
	"errors"
	"slices"
	"strconv"
)

// A Reply is the answer to a callback (protocol.md 5, delivery callback); [ReplyTo]
// makes one. The zero Reply is not usable.
type Reply struct {
	ret int
	msg string // without whitespace and without text from the caller
}

// ReplyTo returns the answer to what a DeliverFunc or a Parse method returned:
//
//	nil                          0  OK
//	ErrTokenExpired              2  token_expired
//	ErrTokenNotFound             3  token_not_found
//	*ParamError, ErrSignature    4  bad_parameter:amt (known names only)
//	anything else                1  system_busy
//
// An [*Error], [*ResponseError], [*FieldError], [*ConfigError] or network fault always counts
// as "anything else", even when it is wrapped together with one of the others: it is about a
// call or an amount, and the player has paid.
func ReplyTo(err error) Reply {
	var param *ParamError
	switch {
	case err == nil:
		return Reply{0, "OK"}
	case aboutCall(err):
		return systemBusy
	case errors.Is(err, ErrTokenExpired):
		return Reply{2, "token_expired"}
	case errors.Is(err, ErrTokenNotFound):
		return Reply{3, "token_not_found"}
	case errors.As(err, &param) && param != nil && slices.Contains(callbackNames, param.Param):
		return Reply{4, "bad_parameter:" + param.Param}
	case param != nil:
		return Reply{4, "bad_parameter"}
	case errors.Is(err, ErrSignature):
		return Reply{4, "bad_parameter:sig"}
	}
	return systemBusy
}

var systemBusy = Reply{1, "system_busy"}

// Ret returns 0 for delivered, 1 for system busy, 2 for token expired, 3 for no such
// token, or 4 for a bad parameter.
func (r Reply) Ret() int { return r.ret }

// Bytes returns the body to send: these bytes and nothing else, with their
// Content-Length. A JSON encoder would add a line end that Midas does not accept.
func (r Reply) Bytes() []byte {
	return []byte(`{"ret":` + strconv.Itoa(r.ret) + `,"msg":"` + r.msg + `"}`)
}
