package midas

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"path"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-querystring/query"
	"github.com/midas-go/midas/internal/call"
)

// maxAnswerBytes is the limit on an answer; a real one has less than 1 KiB.
const maxAnswerBytes = 64 << 10

// A Call is a request to an API of buy_goods_m's family that this module has no method for: a
// GET that is signed with the pay key and carries the session's cookies. Printed, logged or
// marshalled it shows neither the Player's secrets nor the values of Params.
type Call struct {
	API    string // path, as it follows Gateway.BaseURL: "/mpay/get_balance_m"; required
	Player Player // required

	// Params are the API's own parameters, one value of at most 1024 bytes each; a name without
	// a value is left out. Those that every call has are the library's: openid, openkey, pay_token, appid, pf, pfkey, zoneid,
	// userip, format, ts and sig.
	Params url.Values

	// SignedPath and OrgLoc are the path that is signed and the one in the cookie org_loc. Empty
	// means the gateway's prefix followed by API. On YSDK the calls about Q-points want API
	// itself in org_loc (protocol.md 7, neighbours).
	SignedPath, OrgLoc string

	// SendOnce is for a call that moves money: it is never sent twice, whatever happens.
	// Otherwise it is sent again like an order, see [Client.CreateOrder].
	SendOnce bool
}

// Call makes a call and decodes Midas's JSON, at most 64 KiB of it, into answer, a pointer to
// a struct, or nil. The struct needs no fields for ret, msg and err_code: an answer whose ret is
// not 0 is an [*Error].
//
// The other errors are those of [Client.CreateOrder]. [ErrNotSent] among them says that
// nothing left the process; after an [*Error] Midas has refused; after any other the outcome is
// unknown, and only asking Midas can tell. No error shows a secret or a value of Params, nor an
// 8-byte piece of one.
func (c *Client) Call(ctx context.Context, call Call, answer any) error {
	if err := c.validateCall(ctx, call, answer); err != nil {
		return fmt.Errorf("midas: Call: %w", err)
	}
	params, err := query.Values(c.commonParams(&call.Player))
	if err == nil {
		add(params, call.Params)
		_, err = c.call(ctx, apiCall{
			path: call.API, signed: call.SignedPath, orgLoc: call.OrgLoc, login: call.Player.Login, params: params, once: call.SendOnce,
		}, answer)
	}
	if err != nil {
		return fmt.Errorf("midas: %s: %w", path.Base(call.API), err)
	}
	return nil
}

func (c *Client) validateCall(ctx context.Context, call Call, answer any) error {
	var errs []error
	refuse := refuseInto(&errs, commonNames)
	if ctx == nil {
		refuse("ctx", "is nil: pass the context of the player's request")
	}
	if v := reflect.ValueOf(answer); answer != nil && (v.Kind() != reflect.Pointer || v.IsNil()) {
		refuse("answer", "is neither nil nor a pointer to a value")
	}
	if call.API == "" {
		refuse("API", `empty: want a path such as "/mpay/get_balance_m"`)
	}
	for _, p := range []struct{ field, path string }{{"API", call.API}, {"SignedPath", call.SignedPath}, {"OrgLoc", call.OrgLoc}} {
		if reason := wrongPath(p.path); reason != "" {
			refuse(p.field, "%s", reason)
		}
	}
	call.Player.validate(c.cfg.Gateway, refuse)
	errs = append(errs, wrongValues("Params", call.Params, commonNames)...)
	return wrongFields(errs)
}

// An apiCall is one call to Midas, whatever the API.
type apiCall struct {
	path   string // as it follows each of a Gateway's prefixes: "/mpay/buy_goods_m"
	signed string // the signed path, if it is not that of the gateway
	orgLoc string // the cookie org_loc likewise
	login  Login
	params url.Values // raw, without ts and sig, which each try makes anew
	shown  []string   // the parameters whose values an error may show; all others are secret
	once   bool       // never sent twice
}

// call makes a call, reads its answer into answer, and returns when it was sent. Unless it is
// to be sent once, it is tried again after a network fault, a 5xx or a 429, each time with a
// fresh ts and sig. answer is a pointer to a struct for JSON; if it has a method wrong, that
// says what is wrong with an answer whose ret is 0.
func (c *Client) call(ctx context.Context, api apiCall, answer any) (sent time.Time, err error) {
	retry := call.Retry{Most: c.cfg.MaxRetries, Delay: c.cfg.RetryDelay, Log: func(try int, delay time.Duration, err error) {
		c.events.Log(ctx, "midas: call failed, trying again",
			slog.String("api", api.path), slog.Int("try", try), slog.String("error", err.Error()), slog.Duration("delay", delay))
	}}
	if api.once {
		retry.Most = 0
	}
	unsent := true
	var refused *Error // also where ctx ended as it came
	err = retry.Do(ctx, func() (again bool, err error) {
		sent = c.cfg.Now()
		err = c.try(ctx, api, answer, sent)
		var fault *call.NetworkError
		unsent = unsent && errors.As(err, &fault) && fault.Unsent
		errors.As(err, &refused)
		var u *call.AnswerError
		if errors.As(err, &u) {
			return u.Passing(), &ResponseError{u.StatusCode, u.ContentType, u.Length, u.Reason, u.Cause}
		}
		return call.Passing(err), err
	})
	switch {
	case refused != nil:
		return sent, refused
	case err != nil && unsent:
		return sent, &notSentError{err}
	}
	return sent, err
}

// try makes a call once.
func (c *Client) try(ctx context.Context, api apiCall, answer any, now time.Time) error {
	signedQuery, sig := c.signedQuery(api, now)
	values := func() []string {
		values := append(slices.Clone(c.keys()), sig)
		for name, value := range api.params {
			if !slices.Contains(api.shown, name) {
				values = append(values, value[0])
			}
		}
		return values
	}
	var refused *Error
	err := call.Do(ctx, c.http, call.Request{
		Method: http.MethodGet, URL: c.cfg.Gateway.BaseURL + api.path, Query: signedQuery, Once: api.once,
		Header: http.Header{"Cookie": {cookies(api.login, cmp.Or(api.orgLoc, c.cfg.Gateway.OrgLocPrefix+api.path))}},
		Most:   maxAnswerBytes, Values: values,
	}, func(body []byte) (wrong string) {
		refused, wrong = readAnswer(body, answer, values)
		return wrong
	})
	if err == nil && refused != nil {
		return refused
	}
	return err
}

// readAnswer reads the body of an answer (protocol.md 4, answer) into answer, or returns
// Midas's refusal. wrong says what else is wrong with it, without text from the body.
func readAnswer(body []byte, answer any, values func() []string) (refused *Error, wrong string) {
	var head answerHead
	own, ok := answer.(interface{ head() *answerHead })
	if ok { // one decoding is enough
		wrong = decode(body, answer)
		head = *own.head()
	} else if wrong = decode(body, &head); wrong != "" {
		return nil, wrong
	}
	switch {
	case head.Ret == nil && wrong == "":
		return nil, "it has no ret"
	case head.Ret == nil:
		return nil, wrong
	case *head.Ret != 0: // a refusal may come with "url_params":[]
		msg, code := string(head.Msg), string(head.Code)
		return &Error{
			Ret: int(*head.Ret), Msg: call.Words(msg, values()), Code: call.Code(code, values()), aboutSig: aboutSig.MatchString(call.Clip(msg)),
		}, ""
	case !ok && answer != nil:
		wrong = decode(body, answer)
	}
	if checked, ok := answer.(interface{ wrong() string }); ok && wrong == "" {
		wrong = checked.wrong()
	}
	return nil, wrong
}

// answerHead is what every answer has. An answer type of this package embeds it.
type answerHead struct {
	Ret  *retCode `json:"ret"`
	Msg  anyText  `json:"msg"`
	Code anyText  `json:"err_code"`
}

func (h *answerHead) head() *answerHead { return h }

// decode reads JSON into v, or says what is wrong with it.
func decode(body []byte, v any) (wrong string) {
	var mismatch *json.UnmarshalTypeError
	switch err := json.Unmarshal(body, v); {
	case err == nil:
		return ""
	case errors.As(err, &mismatch):
		return "a field is of another type"
	}
	return "it is not the JSON of an answer"
}

// signedQuery returns the query of a call with its ts and sig, every value percent-encoded
// once.
func (c *Client) signedQuery(api apiCall, now time.Time) (query, sig string) {
	api.params.Set("ts", strconv.FormatInt(now.Unix(), 10))
	params := signedParams(api.params)
	sig = sign(http.MethodGet, cmp.Or(api.signed, c.cfg.Gateway.SignPrefix+api.path), params, c.keys()[0], &requestValue)
	withBuffer(func(q []byte) []byte {
		for _, p := range params {
			q = append(requestValue.append(q, p.Name), '=')
			q = append(requestValue.append(q, p.Value), '&')
		}
		q = requestValue.append(append(q, "sig="...), sig)
		query = string(q)
		return q
	})
	return query, sig
}

// retCode is a number, or a string that holds one.
type retCode int

func (r *retCode) UnmarshalJSON(data []byte) error {
	n, err := strconv.ParseInt(strings.Trim(string(data), `"`), 10, 32)
	*r = retCode(n)
	return err
}

// anyText is a string; of anything else the JSON text is kept.
type anyText string

func (t *anyText) UnmarshalJSON(data []byte) error {
	switch {
	case data[0] == '"' && bytes.IndexByte(data, '\\') < 0:
		*t = anyText(data[1 : len(data)-1])
	case data[0] == '"':
		return json.Unmarshal(data, (*string)(t))
	case string(data) != "null":
		*t = anyText(data)
	}
	return nil
}
