package minigame

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"time"
)

const maxAnswerBytes = 1 << 20

// A repeat says when a call may be sent again by itself (minigame.md 7). Each repetition has
// the same business numbers, and a fresh ts and signatures.
type repeat int

const (
	never   repeat = iota
	query          // asks only: any time
	numbers        // changes something once for its number: so the outcome of a fault is found out by repeating
)

// A serverCall is one call to WeChat: which of the two signatures it carries beside the access
// token, and whether it may be repeated. The table is the only place that says so.
type serverCall struct {
	path        string
	miniProgram bool
	paySig      bool // pay_sig under AppKey
	userSig     bool // signature under the player's session_key
	repeat      repeat
}

var (
	callQueryOrderInfo = serverCall{"/wxa/game/queryorderinfo", false, true, true, query}
	callGetBalance     = serverCall{"/wxa/game/getbalance", false, true, true, query}
	callPay            = serverCall{"/wxa/game/pay", false, true, true, numbers}
	callCancelPay      = serverCall{"/wxa/game/cancelpay", false, true, true, numbers}
	callPresent        = serverCall{"/wxa/game/present", false, true, true, numbers}

	callQueryUserBalance   = serverCall{"/xpay/query_user_balance", true, true, true, query}
	callCurrencyPay        = serverCall{"/xpay/currency_pay", true, true, true, numbers}
	callCancelCurrencyPay  = serverCall{"/xpay/cancel_currency_pay", true, true, true, numbers}
	callPresentCurrency    = serverCall{"/xpay/present_currency", true, true, false, numbers} // new pages list no signature: an extra one is not known to hurt
	callQueryOrder         = serverCall{"/xpay/query_order", true, true, false, query}
	callNotifyProvideGoods = serverCall{"/xpay/notify_provide_goods", true, true, false, numbers} // as present_currency
	callRefundOrder        = serverCall{"/xpay/refund_order", true, true, false, numbers}
	callDownloadBill       = serverCall{"/xpay/download_bill", true, true, false, query}
)

// calls are all of them, for the tests.
var calls = []serverCall{
	callQueryOrderInfo, callGetBalance, callPay, callCancelPay, callPresent,
	callQueryUserBalance, callCurrencyPay, callCancelCurrencyPay, callPresentCurrency,
	callQueryOrder, callNotifyProvideGoods, callRefundOrder, callDownloadBill,
}

// post sends a server call and reads its answer into out. body makes the body of one try
// at a time; it is serialised once, and what is signed is what is sent.
//
// repeated says that WeChat answered "done before": this very number was taken in an
// earlier try, or an earlier call.
func (c *Client) post(ctx context.Context, api serverCall, env Env, sessionKey Secret, body func(ts int64) any, out any) (repeated bool, err error) {
	cfg := c.config()
	if api.miniProgram != cfg.MiniProgram {
		return false, fmt.Errorf("minigame: %s is a call of the other product: see Config.MiniProgram", api.path)
	}
	key, err := cfg.appKey(env)
	if err != nil {
		return false, fmt.Errorf("minigame: %s: %w", api.path, err)
	}
	// An answer that does not say whether an earlier try was taken leaves the outcome unknown.
	unknown := false
	fail := func(err error) (bool, error) {
		if unknown && api.repeat == numbers {
			err = fmt.Errorf("%w: %w", ErrOutcomeUnknown, err)
		}
		return false, fmt.Errorf("minigame: %w", err)
	}
	token, renewed := "", false
	for try := 0; ; try++ {
		if token == "" {
			if token, err = c.token(ctx, ""); err != nil {
				return fail(fmt.Errorf("%s: access token: %w", api.path, err))
			}
		}
		sent, err := json.Marshal(body(cfg.Now().Unix()))
		if err != nil {
			return fail(fmt.Errorf("%s: %w", api.path, err))
		}
		params := url.Values{"access_token": {token}}
		if api.paySig {
			params.Set("pay_sig", PaySig(api.path, string(sent), key))
		}
		if api.userSig {
			params.Set("signature", Signature(string(sent), string(sessionKey)))
			if !api.miniProgram {
				params.Set("sig_method", "hmac_sha256")
			}
		}
		err = c.send(ctx, http.MethodPost, api.path, params, sent, out, token, key, string(sessionKey))
		var refusal *Error
		again := err != nil && worthRepeating(err)
		unknown = unknown || again
		switch {
		case err == nil:
			return false, nil
		case errors.As(err, &refusal) && refusal.doneBefore() && api.repeat == numbers:
			return true, nil
		case refusal != nil && refusal.judged():
			return false, fmt.Errorf("minigame: %w", err)
		case ctx.Err() != nil && api.repeat == numbers:
			unknown = true // of a refusal that came as ctx ended, too: the next call tells
			return fail(ctx.Err())
		case ctx.Err() != nil:
			return false, ctx.Err()
		case refusal != nil && refusal.tokenRefused() && !renewed:
			renewed = true // once: a second new token would not be better
			if token, err = c.token(ctx, token); err != nil {
				return fail(fmt.Errorf("%s: access token: %w", api.path, err))
			}
			try--
			continue
		case !again || api.repeat == never || try >= cfg.MaxRetries:
			return fail(err)
		}
		if err := c.backOff(ctx, api.path, try, err); err != nil && api.repeat == numbers {
			return fail(err)
		} else if err != nil {
			return false, err
		}
	}
}

// backOff waits before a repetition, or returns ctx.Err().
func (c *Client) backOff(ctx context.Context, path string, try int, cause error) error {
	cfg := c.config()
	delay := cfg.RetryDelay << try
	delay -= rand.N(delay/2 + 1)
	if c.log != nil {
		ctx := context.WithoutCancel(ctx)
		c.log.Add("", func(missed int) {
			cfg.Logger.WarnContext(ctx, "minigame: call failed, trying again", "call", path, "try", try+1, "error", cause.Error(), "delay", delay, "missed", missed)
		})
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// worthRepeating reports whether the same call may succeed later: after a fault, or when
// WeChat is busy. A server that is not trusted now will not be trusted soon.
func worthRepeating(err error) bool {
	var refusal *Error
	if errors.As(err, &refusal) {
		return refusal.Code == -1
	}
	var response *ResponseError
	if errors.As(err, &response) && response.StatusCode/100 == 3 {
		return false
	}
	var untrusted *tls.CertificateVerificationError
	return !errors.As(err, &untrusted)
}

// sendAgain is send, repeated after a fault: for what only asks and carries no signature
// over a time.
func (c *Client) sendAgain(ctx context.Context, method, path string, params url.Values, body []byte, out any, secrets ...string) error {
	for try := 0; ; try++ {
		err := c.send(ctx, method, path, params, body, out, secrets...)
		if err == nil || ctx.Err() != nil || try >= c.config().MaxRetries || !worthRepeating(err) {
			return err
		}
		if err := c.backOff(ctx, path, try, err); err != nil {
			return err
		}
	}
}

// send sends one request and reads the answer into out: an *Error if WeChat refused, a
// *ResponseError if it cannot be used, a *fault if there was none.
func (c *Client) send(ctx context.Context, method, path string, params url.Values, body []byte, out any, secrets ...string) (err error) {
	var reader io.Reader = bytes.NewReader(body)
	if body == nil {
		// net/http sends a GET without a body again by itself when a kept connection breaks,
		// and a login code works once. An empty reader is a body that it cannot send again.
		reader = io.MultiReader()
	}
	req, err := http.NewRequestWithContext(ctx, method, c.config().BaseURL+path+"?"+params.Encode(), reader)
	if err != nil {
		return &fault{path + ": the request cannot be made", nil}
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return faultOf(path, err)
	}
	defer func() {
		resp.Body.Close()
		var unusable *ResponseError
		if errors.As(err, &unusable) {
			// Of what else comes on an idle connection net/http prints the beginning, which may repeat our
			// query. (The connection itself may be another call's by now.)
			c.http.CloseIdleConnections()
		}
	}()
	unusable := func(reason string) error { return &ResponseError{path, resp.StatusCode, reason} }
	// The body of an answer that cannot be WeChat's is not read to its end, or net/http would keep the
	// connection.
	switch {
	case resp.StatusCode/100 == 3:
		return unusable("redirects are not followed, the query carries secrets; check Config.BaseURL")
	case resp.StatusCode != http.StatusOK:
		return unusable("want status 200")
	}
	answer := make([]byte, 1, 512)
	n, err := io.ReadFull(resp.Body, answer)
	if n == 1 && !strings.Contains("{ \t\r\n", string(answer)) {
		return unusable("not the JSON of an answer")
	}
	if err == nil {
		var rest []byte
		rest, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswerBytes))
		answer = append(answer, rest...)
	}
	switch {
	case errors.Is(err, io.EOF):
		return unusable("not the JSON of an answer")
	case err != nil:
		return unusable("connection lost while reading the body")
	case len(answer) > maxAnswerBytes:
		return unusable("over 1 MiB")
	}
	var head struct {
		ErrCode *int64 `json:"errcode"`
		ErrMsg  string `json:"errmsg"`
	}
	if err := json.Unmarshal(answer, &head); err != nil {
		return unusable("not the JSON of an answer")
	}
	if head.ErrCode != nil && *head.ErrCode != 0 {
		return &Error{path, *head.ErrCode, plainText(head.ErrMsg, secrets...)}
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return unusable("a field has another type")
	}
	return nil
}

// A fault is a call without an answer. Its text leaves out the URL, which carries secrets
// and which net/http's own error prints. The cause can be matched; there is no Unwrap, since
// whatever prints a chain of errors would print the cause's own text.
type fault struct {
	text  string
	cause error
}

func (f *fault) Error() string        { return f.text }
func (f *fault) Is(target error) bool { return errors.Is(f.cause, target) }
func (f *fault) As(target any) bool   { return errors.As(f.cause, target) }

func faultOf(path string, err error) error {
	var urlErr *url.Error
	for errors.As(err, &urlErr) { // a transport may have wrapped one in another
		err = urlErr.Err
	}
	return &fault{path + ": no answer: " + plainText(err.Error()), err}
}
