package midas

import (
	"fmt"
	"maps"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/midas-go/midas/internal/answer"
	"github.com/midas-go/midas/internal/call"
)

// commonParams are the parameters of every call, without ts and sig, which each try makes anew
// (protocol.md 3, parameters). A field has the name of the Player's that it comes from.
type commonParams struct {
	OpenID   text  `url:"openid"`
	OpenKey  text  `url:"openkey"`
	PayToken *text `url:"pay_token,omitempty"` // sent empty where it points to ""
	AppID    text  `url:"appid"`
	PF       text  `url:"pf"`
	PFKey    text  `url:"pfkey"`
	ZoneID   text  `url:"zoneid"`
	UserIP   text  `url:"userip,omitempty"`
	Format   text  `url:"format"`
}

// text is a string that is its own query.Encoder: half the work of go-querystring's way
// through package fmt.
type text string

// EncodeValues implements query.Encoder.
func (t text) EncodeValues(name string, values *url.Values) error {
	values.Set(name, string(t))
	return nil
}

// namesIn returns the parameter of each field of a struct that is sent.
func namesIn[T any]() map[string]string {
	names := make(map[string]string)
	for _, field := range reflect.VisibleFields(reflect.TypeFor[T]()) {
		if name, _, _ := strings.Cut(field.Tag.Get("url"), ","); name != "" {
			names[field.Name] = name
		}
	}
	return names
}

// commonNames are the parameters of every call, by field.
var commonNames = func() map[string]string {
	names := namesIn[commonParams]()
	names["Login"], names["ts"], names["sig"] = "session_type", "ts", "sig"
	return names
}()

// A refuser takes what is wrong with a field.
type refuser func(field, format string, args ...any)

// refuseInto returns a refuser that appends a *FieldError to errs, with the parameter that
// names have for the field.
func refuseInto(errs *[]error, names map[string]string) refuser {
	return func(field, format string, args ...any) {
		name, _, _ := strings.Cut(strings.TrimPrefix(field, "Player."), "[")
		*errs = append(*errs, &FieldError{Field: field, Param: names[name], Reason: fmt.Sprintf(format, args...)})
	}
}

// A textRule is the limit on a text, in bytes, and why it must not be empty; "" if it may be.
type textRule struct {
	field, value string
	limit        int
	missing      string
}

func checkTexts(refuse refuser, rules []textRule) {
	for _, r := range rules {
		switch {
		case r.value == "" && r.missing != "":
			refuse(r.field, "%s", r.missing)
		case len(r.value) > r.limit:
			refuse(r.field, "%d bytes, at most %d are allowed", len(r.value), r.limit)
		case !utf8.ValidString(r.value):
			refuse(r.field, "not UTF-8")
		}
	}
}

// wrongValues returns a *FieldError for each parameter of a field that is not one of the
// library's own names, with a plain name and one value.
func wrongValues(field string, params url.Values, own map[string]string) (errs []error) {
	for _, name := range slices.Sorted(maps.Keys(params)) { // sorted: the same request gets the same error
		e := &FieldError{Field: fmt.Sprintf("%s[%q]", field, answer.Clip(name, 64)), Param: name}
		switch values := params[name]; {
		case slices.Contains(slices.Collect(maps.Values(own)), name):
			e.Reason = "not allowed here: the library sets it"
		case !isPlainName(name):
			e.Param, e.Reason = "", "a name holds letters, digits and _ . - only"
		case len(values) > 1:
			e.Reason = fmt.Sprintf("%d values, want one", len(values))
		case len(values) == 1 && (len(values[0]) > call.MaxSecret || !utf8.ValidString(values[0])):
			e.Reason = fmt.Sprintf("over %d bytes, or not UTF-8", call.MaxSecret)
		default:
			continue
		}
		errs = append(errs, e)
	}
	return errs
}

// add copies the parameters that have a value.
func add(params, more url.Values) {
	for name, values := range more {
		if len(values) == 1 {
			params[name] = values
		}
	}
}
