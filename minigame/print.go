package minigame

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"reflect"

	"github.com/midas-go/midas"
)

// A Secret is a key or a session_key. Printed or logged it shows only whether it is empty,
// and it refuses to be marshalled. Where it has to be stored, convert it to a string. Do not make
// it the key of a map, which encoding/json shows, nor print it with %p.
type Secret string

const redacted = "[redacted]"

func (s Secret) shown() string {
	if s == "" {
		return ""
	}
	return redacted
}

// Format prints s without its value. (fmt does not call it for an unexported field of
// another type: keep Secrets out of those.)
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, `"`+s.shown()+`"`) }

// LogValue logs s without its value.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.shown()) }

// MarshalText returns an error: stored unnoticed a secret would leak, and masked
// unnoticed it would be lost.
func (s Secret) MarshalText() ([]byte, error) { return nil, errNoMarshal }

// GobEncode returns an error.
func (s Secret) GobEncode() ([]byte, error) { return nil, errNoMarshal }

var errNoMarshal = errors.New("minigame: a Secret is not marshalled: store string(secret), encrypted")

// printInYuan is %+v for a struct whose money is a [midas.Amount], which by itself prints
// Q-points too: WeChat knows none. Raw, which repeats the rest, is left out.
func printInYuan(f fmt.State, v any) {
	s := reflect.ValueOf(v)
	fmt.Fprintf(f, "%s{", s.Type())
	for i := range s.NumField() {
		name, value := s.Type().Field(i).Name, s.Field(i).Interface()
		if name == "Raw" {
			continue
		}
		if i > 0 {
			_, _ = io.WriteString(f, " ")
		}
		if amount, ok := value.(midas.Amount); ok {
			value = amount.Yuan() + " yuan"
		}
		fmt.Fprintf(f, "%s:%+v", name, value)
	}
	_, _ = io.WriteString(f, "}")
}

// Format prints the fields with money in yuan, and without the session_key.
func (r OrderRequest) Format(f fmt.State, _ rune) { printInYuan(f, r) }

// Format prints the fields with money in yuan.
func (d Delivery) Format(f fmt.State, _ rune) { printInYuan(f, d) }

// Format prints the fields with money in yuan. (That of the Delivery would print the Delivery alone.)
func (c SubscriptionCharge) Format(f fmt.State, _ rune) { printInYuan(f, c) }

// Format prints the fields with money in yuan.
func (p CoinPayment) Format(f fmt.State, _ rune) { printInYuan(f, p) }

// Format prints the fields with money in yuan.
func (r RefundPush) Format(f fmt.State, _ rune) { printInYuan(f, r) }

// Format prints the fields with money in yuan.
func (o ProgramOrder) Format(f fmt.State, _ rune) { printInYuan(f, o) }

// Format prints the fields with money in yuan.
func (r RefundRequest) Format(f fmt.State, _ rune) { printInYuan(f, r) }
