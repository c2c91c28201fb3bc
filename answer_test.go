package midas_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/midas-go/midas"
	"github.com/stretchr/testify/require"
)

func TestTheAnswerIsUnderstood(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ what, body, attach string }{
		{"ret is a number", goldenAnswer, ""},
		{"ret is a numeric string", strings.Replace(goldenAnswer, `"ret":0`, `"ret":"0"`, 1), ""},
		{"attach is an object", strings.Replace(goldenAnswer, `"attach":""`, `"attach":{"a":1}`, 1), `{"a":1}`},
		{"attach is null", strings.Replace(goldenAnswer, `"attach":""`, `"attach":null`, 1), ""},
		{"attach is escaped", strings.Replace(goldenAnswer, `"attach":""`, `"attach":"\u5251\/"`, 1), "剑/"},
		{"blanks in front", "\r\n\t " + goldenAnswer, ""},
		{"64 KiB", padded(64 << 10), ""},
		{"more fields than expected", strings.Replace(goldenAnswer, `{`, `{"new":[1,2],`, 1), ""},
	} {
		t.Run(test.what, func(t *testing.T) {
			t.Parallel()
			order, err := newGateway(t, answering(test.body)).client(t).CreateOrder(t.Context(), goldenOrder())
			require.NoError(t, err)
			require.Equal(t, "842C2C19D11B7780D0E9B4D8E73ED80531721", order.Token)
			require.Equal(t, test.attach, order.Attach)
		})
	}
}

// padded returns an answer of that many bytes.
func padded(size int) string {
	return goldenAnswer + strings.Repeat(" ", size-len(goldenAnswer))
}

func TestURLParamsAreHandedOnByteForByte(t *testing.T) {
	t.Parallel()
	const odd = `/v1/x?a=1&b=%2F%2f+ ~<>"\'` + "剑\u2028"
	body, err := json.Marshal(map[string]any{"ret": 0, "token": "T", "url_params": odd})
	require.NoError(t, err)
	order, err := newGateway(t, answering(string(body))).client(t).CreateOrder(t.Context(), goldenOrder())
	require.NoError(t, err)
	require.Equal(t, odd, order.URLParams)
}

func TestARefusalByMidasIsAnErrorToMatch(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		body string
		want midas.Error
		is   error
		says string
	}{
		{`{"ret":1018,"msg":"请先登录","err_code":"1018--2-20"}`, midas.Error{Ret: 1018, Msg: "请先登录", Code: "1018--2-20"}, midas.ErrLoginExpired, "let the app log in again"},
		{`{"ret":"1016","msg":"no permission","err_code":"1016-1016-0"}`, midas.Error{Ret: 1016, Msg: "no permission", Code: "1016-1016-0"}, midas.ErrPermission, "of the same environment"},
		{`{"ret":1001,"msg":"sig error"}`, midas.Error{Ret: 1001, Msg: "sig error"}, midas.ErrSignature, "check the pay key"},
		{`{"ret":1001,"msg":"请求参数错误：(sig)"}`, midas.Error{Ret: 1001, Msg: "请求参数错误：(sig)"}, midas.ErrSignature, "check the pay key"},
		{`{"ret":1001,"msg":"请求参数错误(pfkey)"}`, midas.Error{Ret: 1001, Msg: "请求参数错误(pfkey)"}, nil, "请求参数错误(pfkey)"},
		{`{"ret":1001,"msg":"bad design","err_code":7}`, midas.Error{Ret: 1001, Msg: "bad design", Code: "7"}, nil, "fix the request"},
		{`{"ret":1001,"msg":"sig error, base=GET"}`, midas.Error{Ret: 1001, Msg: "[withheld]"}, midas.ErrSignature, "check the pay key"}, // a pair of a query, perhaps
		{`{"ret":1001,"msg":"please sign in"}`, midas.Error{Ret: 1001, Msg: "please sign in"}, nil, "fix the request"},
		{`{"ret":1018,"msg":"m","token":0,"url_params":[]}`, midas.Error{Ret: 1018, Msg: "m"}, midas.ErrLoginExpired, "log in again"}, // PHP's empty array
		{`{"ret":-5}`, midas.Error{Ret: -5}, nil, "ret -5"},
	} {
		t.Run(test.body, func(t *testing.T) {
			t.Parallel()
			g := newGateway(t, answering(test.body))
			order, err := g.client(t).CreateOrder(t.Context(), goldenOrder())
			require.Nil(t, order)
			var refused *midas.Error
			require.ErrorAs(t, err, &refused)
			require.Equal(t, test.want, midas.Error{Ret: refused.Ret, Msg: refused.Msg, Code: refused.Code})
			for _, sentinel := range []error{midas.ErrLoginExpired, midas.ErrPermission, midas.ErrSignature, midas.ErrTokenExpired, midas.ErrTokenNotFound} {
				require.Equal(t, sentinel == test.is, errors.Is(err, sentinel), "%v", sentinel)
			}
			require.ErrorContains(t, err, test.says)
			require.Len(t, g.requests, 1, "a refusal is not repeated")
		})
	}
}

func TestANilErrorMatchesNothing(t *testing.T) {
	t.Parallel()
	require.NotErrorIs(t, (*midas.Error)(nil), midas.ErrLoginExpired)
}

func TestAnUnusableAnswerIsAResponseError(t *testing.T) {
	t.Parallel()
	status := func(code int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(code)
			io.WriteString(w, body)
		}
	}
	for _, test := range []struct {
		what   string
		answer http.HandlerFunc
		status int
		length int64 // of the body, as far as it is known
		reason string
		tries  int
	}{
		{"nothing", answering(""), 200, 0, "it is empty", 1},
		{"HTML", answering("<html>hello"), 200, 11, "it is not JSON", 1},
		{"half an answer, in full", answering(goldenAnswer[:20]), 200, 20, "not the JSON", 1},
		{"JSON of something else", answering(`[]`), 200, 2, "it is not JSON", 1},
		{"no ret", answering(`{"msg":"x"}`), 200, 11, "no ret", 1},
		{"ret is null", answering(`{"ret":null}`), 200, 12, "no ret", 1},
		{"ret is no number", answering(`{"ret":"ok"}`), 200, 12, "not the JSON", 1},
		{"ret is a fraction", answering(`{"ret":0.5}`), 200, 11, "not the JSON", 1},
		{"ret 0 without a token", answering(`{"ret":0,"url_params":"/v1"}`), 200, 28, "token or url_params is missing", 1},
		{"ret 0 without url_params", answering(`{"ret":0,"token":"T"}`), 200, 21, "token or url_params is missing", 1},
		{"ret 0 and not UTF-8", answering(`{"ret":0,"token":"T","url_params":"` + "\xff" + `"}`), 200, 38, "not UTF-8", 1},
		{"url_params with half a character", answering(`{"ret":0,"token":"T","url_params":"\ud800"}`), 200, 43, "not UTF-8", 1},
		{"ret 0 with an empty array", answering(`{"ret":0,"token":"T","url_params":[]}`), 200, 37, "a field is of another type", 1},
		{"64 KiB and a byte", answering(padded(64<<10 + 1)), 200, -1, "over 64 KiB", 1},
		{"10 MiB", answering(padded(10 << 20)), 200, -1, "over 64 KiB", 1},
		{"a redirect", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", "https://login.example/?next="+r.URL.String())
			w.WriteHeader(302)
		}, 302, 0, "redirects are not followed", 1},
		{"204", status(204, ""), 204, 0, "want status 200", 1},
		{"404 that breaks off", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "500")
			w.WriteHeader(404)
			io.WriteString(w, "no such")
		}, 404, 500, "want status 200", 1},
		{"404", status(404, "no such page"), 404, 12, "want status 200", 1},
		{"429", status(429, "slow down"), 429, 9, "want status 200", 3},
		{"500", status(500, "oops"), 500, 4, "want status 200", 3},
		{"an answer that counts, with status 503", status(503, goldenAnswer), 503, int64(len(goldenAnswer)), "want status 200", 3},
		{"a body that breaks off", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "500")
			io.WriteString(w, goldenAnswer)
		}, 200, int64(len(goldenAnswer)), "connection lost while reading the body", 3},
	} {
		t.Run(test.what, func(t *testing.T) {
			t.Parallel()
			g := newGateway(t, test.answer)
			_, err := g.client(t).CreateOrder(t.Context(), goldenOrder())
			var respErr *midas.ResponseError
			require.ErrorAs(t, err, &respErr)
			require.Equal(t, test.status, respErr.StatusCode)
			require.Equal(t, test.length, respErr.Length)
			require.Contains(t, respErr.Reason, test.reason)
			require.ErrorContains(t, err, fmt.Sprintf("midas: buy_goods_m: no usable answer (HTTP status %d", test.status))
			require.Len(t, g.requests, test.tries)
			requireNoURLError(t, err)
		})
	}
}

// Whoever answers cannot make the library read more than it takes to see that it is too much.
func TestAnEndlessAnswerIsReadTo64KiB(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		what   string
		status int
		of     byte
		most   int
	}{
		{"blanks", 200, ' ', 64<<10 + 1},
		{"a page", 200, '<', 1},
		{"an error", 502, ' ', 0},
	} {
		t.Run(test.what, func(t *testing.T) {
			t.Parallel()
			body := &endless{of: test.of, left: 4 << 20}
			c := newClient(t, midas.Config{AppID: testAppID, AppKey: testAppKey, MaxRetries: -1, HTTPClient: &http.Client{
				Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
					return &http.Response{StatusCode: test.status, ProtoMajor: 1, Body: body, ContentLength: -1, Request: r}, nil
				}),
			}})
			_, err := c.CreateOrder(t.Context(), goldenOrder())
			var unusable *midas.ResponseError
			require.ErrorAs(t, err, &unusable)
			require.EqualValues(t, -1, unusable.Length)
			require.Equal(t, test.most, body.read)
			require.True(t, body.closed)
		})
	}
}

// endless is a body of one byte over and over; it ends after all, for the sake of a failing test.
type endless struct {
	of         byte
	left, read int
	closed     bool
}

func (e *endless) Read(p []byte) (int, error) {
	n := min(len(p), e.left)
	for i := range p[:n] {
		p[i] = e.of
	}
	e.left -= n
	e.read += n
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

func (e *endless) Close() error { e.closed = true; return nil }

func FuzzOrderAnswer(f *testing.F) {
	f.Add([]byte(goldenAnswer))
	f.Add([]byte(`{"ret":"1018","msg":"x","err_code":7}`))
	f.Add([]byte(`{"ret":0,"token":1}`))
	f.Add([]byte("\x00"))
	f.Fuzz(func(t *testing.T, body []byte) {
		token, urlParams, refused, wrong := midas.ReadOrderAnswer(body)
		if wrong == "" && refused == nil {
			require.NotEmpty(t, token)
			require.NotEmpty(t, urlParams)
			// encoding/json, into no type of ours, reads the same.
			var plain map[string]any
			require.NoError(t, json.Unmarshal(body, &plain))
		}
	})
}
