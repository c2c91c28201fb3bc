// Package call is what the calls of both protocols share: an HTTP client that leaks no
// secret, one bounded answer at a time, repetitions, and what may be shown of foreign text.
// It knows neither protocol.
package call

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync/atomic"
	"time"
)

// A Request is one try of a call.
type Request struct {
	Method, URL, Query string
	Header             http.Header
	Body               []byte
	Most               int64           // limit on the body of the answer, in bytes
	Values             func() []string // what must not be shown of the call; asked for after a fault

	// Once keeps net/http from sending a GET again by itself, as it does where a kept connection
	// breaks. On HTTP/2 the server then sees a GET whose length is not announced.
	Once bool
}

// AnswerError is an answer that is not the server's own, or only a part of it.
type AnswerError struct {
	StatusCode  int
	ContentType string // without parameters; empty where it is missing or odd
	Length      int64  // as announced or as far as it was read, in bytes; -1 if unknown
	Reason      string
	Cause       error // the fault that cut it off, or nil
}

func (u *AnswerError) Error() string { return u.Reason }

// Do sends r and has read take the body of its answer, which says what is wrong with it. Its
// error is a *NetworkError if there was no answer, or an *AnswerError.
func Do(ctx context.Context, hc *http.Client, r Request, read func(body []byte) (wrong string)) error {
	body, unusable, err := r.receive(ctx, hc)
	if err != nil {
		return err
	}
	if unusable.Reason == "" {
		unusable.Reason = read(body)
	}
	if unusable.Reason == "" {
		return nil
	}
	// net/http logs the first bytes of anything that arrives on an idle connection; they may
	// echo our query. (The connection itself may be another call's by now.)
	hc.CloseIdleConnections()
	unusable.ContentType = ContentType(unusable.ContentType, r.Values())
	return unusable
}

// Open sends r and returns its answer, whose body the caller closes. Its error is a *NetworkError.
func (r *Request) Open(ctx context.Context, hc *http.Client) (resp *http.Response, err error) {
	if err := ctx.Err(); err != nil {
		return nil, faultOf(err, r.Values(), true)
	}
	var connection struct {
		asked, made atomic.Bool
		httptrace.ClientTrace
	}
	connection.GetConn = func(string) { connection.asked.Store(true) }
	connection.GotConn = func(httptrace.GotConnInfo) { connection.made.Store(true) }
	ctx = httptrace.WithClientTrace(ctx, &connection.ClientTrace)
	var reader io.Reader
	if r.Body != nil {
		reader = bytes.NewReader(r.Body)
	} else if r.Once {
		reader = io.MultiReader() // empty, and not one that net/http can send again
	}
	req, err := http.NewRequestWithContext(ctx, r.Method, r.URL, reader)
	if err != nil {
		return nil, faultOf(err, r.Values(), true)
	}
	req.URL.RawQuery, req.Header = r.Query, r.Header
	defer r.survive(&err)
	if resp, err = hc.Do(req); err != nil {
		return nil, faultOf(err, r.Values(), connection.asked.Load() && !connection.made.Load())
	}
	return resp, nil
}

// survive turns a panic, of a transport of the user's own, into a *NetworkError.
func (r *Request) survive(err *error) {
	if cause := recover(); cause != nil {
		*err = &NetworkError{"no answer: the transport panicked: " + Words(fmt.Sprint(cause), r.Values()), errors.New("the transport panicked"), false}
	}
}

// receive sends r and returns the body of its answer, or what is wrong with it. A body that
// cannot be the server's own is not read to its end, or net/http would keep the connection.
func (r *Request) receive(ctx context.Context, hc *http.Client) (body []byte, u *AnswerError, err error) {
	resp, err := r.Open(ctx, hc)
	if err != nil {
		return nil, nil, err
	}
	defer r.survive(&err)
	defer resp.Body.Close()
	u = &AnswerError{StatusCode: resp.StatusCode, ContentType: resp.Header.Get("Content-Type"), Length: resp.ContentLength}
	switch {
	case resp.StatusCode/100 == 3:
		u.Reason = "redirects are not followed, because the query carries secrets; check the base URL"
		return nil, u, nil
	case resp.StatusCode != http.StatusOK:
		u.Reason = "want status 200"
		return nil, u, nil
	}
	body = make([]byte, 1, 512)
	read, err := io.ReadFull(resp.Body, body)
	if read == 1 && !strings.Contains("{ \t\r\n", string(body)) {
		u.Reason = "it is not JSON"
		return nil, u, nil
	}
	if err == nil {
		var rest []byte
		rest, err = io.ReadAll(io.LimitReader(resp.Body, r.Most))
		body = append(body, rest...)
		read = len(body)
	}
	switch {
	case errors.Is(err, io.EOF):
		u.Reason, u.Length = "it is empty", 0
	case err != nil:
		u.Reason, u.Length, u.Cause = "connection lost while reading the body", int64(read), faultOf(err, r.Values(), false)
	case int64(len(body)) > r.Most:
		u.Reason = fmt.Sprintf("over %d KiB", r.Most>>10)
	default:
		u.Length = int64(len(body))
	}
	return body, u, nil
}

// Passing reports whether the same call may be answered in a moment: after half an answer, a
// 5xx or a 429.
func (u *AnswerError) Passing() bool {
	cutOff := u.Cause != nil && u.StatusCode == http.StatusOK
	return cutOff || u.StatusCode >= 500 || u.StatusCode == http.StatusTooManyRequests
}

// Passing reports whether err is a *NetworkError after which the same call may be answered in a
// moment. A certificate that is not trusted now will not be trusted soon.
func Passing(err error) bool {
	var untrusted *tls.CertificateVerificationError
	var fault *NetworkError
	return errors.As(err, &fault) && !errors.As(err, &untrusted)
}

// A Retry says how often a call is tried again, and after which wait at first: each further
// one is twice as long, and up to half of it is taken off at random.
type Retry struct {
	Most  int
	Delay time.Duration
	Log   func(try int, delay time.Duration, err error)
}

// CheckRetries calls refuse for each field of a configuration that is out of its range.
func CheckRetries(retries int, delay time.Duration, refuse func(field, reason string)) {
	if retries > 10 {
		refuse("MaxRetries", "over 10")
	}
	if delay < 0 || delay > time.Minute {
		refuse("RetryDelay", "negative, or over a minute")
	}
}

// Do calls try until it succeeds, does not say again, or ctx ends: then the error is ctx.Err().
func (r Retry) Do(ctx context.Context, try func() (again bool, err error)) error {
	for n := 0; ; n++ {
		again, err := try()
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case n >= r.Most || !again:
			return err
		}
		delay := r.Delay << n
		delay -= rand.N(delay/2 + 1)
		r.Log(n+1, delay, err)
		if ended := Sleep(ctx, delay); ended != nil {
			return fmt.Errorf("%w; the last try: %w", ended, err)
		}
	}
}

// Sleep waits, and returns nil; or ctx.Err() if ctx ends first.
func Sleep(ctx context.Context, delay time.Duration) error {
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
