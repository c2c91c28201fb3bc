package call_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/midas-go/midas/internal/call"
	"github.com/stretchr/testify/require"
)

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func do(t *testing.T, hc *http.Client, url string, read func([]byte) string) error {
	t.Helper()
	return call.Do(t.Context(), hc, call.Request{Method: http.MethodGet, URL: url, Header: http.Header{}, Most: 64, Values: func() []string { return []string{"the secret words"} }}, read)
}

func takes([]byte) string { return "" }

// failing returns a client whose transport fails with err.
func failing(err error) *http.Client {
	return &http.Client{Transport: roundTripper(func(*http.Request) (*http.Response, error) { return nil, err })}
}

func TestAFaultSaysWhatHappenedWithoutItsURL(t *testing.T) {
	t.Parallel()
	address := &net.TCPAddr{IP: net.IPv4(198, 51, 100, 7), Port: 443, Zone: "the secret words"}
	refused := &net.OpError{Op: "dial", Net: "tcp", Addr: address, Err: errors.New("connect: connection refused")}
	for _, test := range []struct {
		what string
		err  error
		want string
	}{
		{"refused", refused, "no answer: dial tcp 198.51.100.7:443: connect: connection refused"},
		{"by a proxy", &net.OpError{Op: "proxyconnect", Net: "tcp", Err: refused}, "no answer: proxyconnect tcp: dial tcp 198.51.100.7:443: connect: connection refused"},
		{"an address that is none", &net.OpError{Op: "read", Net: "tcp", Addr: &net.UnixAddr{Name: "/the secret words"}, Err: io.EOF}, "no answer: read tcp: EOF"},
		{"no address", &net.OpError{Op: "read", Net: "tcp", Addr: (*net.TCPAddr)(nil), Err: io.EOF}, "no answer: read tcp: EOF"},
		{"no such host", &net.DNSError{Err: "no such host", Name: "ysdk.qq.com", Server: "198.51.100.53:53"}, "no answer: lookup ysdk.qq.com: no such host"},
		{"an old certificate", &tls.CertificateVerificationError{Err: x509.CertificateInvalidError{Reason: x509.Expired, Detail: "current time 2026-11-29T09:46:51Z is after 2026-01-01T00:00:00Z"}},
			"no answer: tls: failed to verify certificate: x509: certificate has expired or is not yet valid"},
		{"an odd certificate", &tls.CertificateVerificationError{Err: x509.CertificateInvalidError{Reason: x509.NotAuthorizedToSign}},
			"no answer: tls: failed to verify certificate: x509: certificate is not authorized to sign other certificates"},
		{"a URL inside", &url.Error{Op: "Get", URL: "http://x/?openkey=SECRET", Err: &url.Error{Op: "Get", URL: "http://x/?openkey=SECRET", Err: io.ErrUnexpectedEOF}}, "no answer: unexpected EOF"},
		{"a query in the text", errors.New("proxy: /mpay/buy_goods_m?openkey=SECRET"), "no answer: [withheld]"},
		{"a value of the call", errors.New("proxy: the secret words"), "no answer: [withheld]"},
	} {
		t.Run(test.what, func(t *testing.T) {
			t.Parallel()
			err := do(t, failing(test.err), "http://127.0.0.1/", takes)
			require.EqualError(t, err, test.want)
			var fault *call.NetworkError
			require.ErrorAs(t, err, &fault)
			require.False(t, fault.Unsent, "a transport that tells nothing of its connections may have sent something")
			var urlErr *url.Error
			require.NotErrorAs(t, err, &urlErr)
			require.NoError(t, errors.Unwrap(err))
		})
	}
	err := do(t, failing(refused), "http://127.0.0.1/", takes)
	require.ErrorIs(t, err, refused)
	var op *net.OpError
	require.ErrorAs(t, err, &op)
}

func TestATransportThatPanicsIsAFault(t *testing.T) {
	t.Parallel()
	for what, transport := range map[string]roundTripper{
		"in RoundTrip": func(*http.Request) (*http.Response, error) { panic("out of order") },
		"in Read": func(r *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 200, Body: io.NopCloser(panicking{}), Request: r}, nil
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			err := do(t, &http.Client{Transport: transport}, "http://127.0.0.1/", takes)
			require.EqualError(t, err, "no answer: the transport panicked: out of order")
			require.True(t, call.Passing(err))
		})
	}
	err := do(t, &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) { panic(r.URL.String() + "?sig=x") })}, "http://127.0.0.1/", takes)
	require.EqualError(t, err, "no answer: the transport panicked: [withheld]")
}

type panicking struct{}

func (panicking) Read([]byte) (int, error) { panic("out of order") }

func TestAFaultSaysWhetherAnythingWasSent(t *testing.T) {
	t.Parallel()
	refusing := &http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("refused") }}}
	hangsUp := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	defer hangsUp.Close()
	untrusted := httptest.NewTLSServer(http.NotFoundHandler())
	defer untrusted.Close()
	for url, unsent := range map[string]bool{"http://nobody.invalid": true, hangsUp.URL: false, untrusted.URL: true} {
		hc := call.Client(nil, time.Minute)
		if url == "http://nobody.invalid" {
			hc = refusing
		}
		err := do(t, hc, url, takes)
		var fault *call.NetworkError
		require.ErrorAs(t, err, &fault)
		require.Equal(t, unsent, fault.Unsent, "%v", err)
		require.Equal(t, unsent, strings.HasPrefix(err.Error(), "no connection: "), "%v", err)
		require.Equal(t, url != untrusted.URL, call.Passing(err))
		hc.CloseIdleConnections()
	}
}

func TestAnAnswerIsReadWithinItsLimit(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		what    string
		status  int
		body    string
		length  int64 // as announced; 0: that of body
		want    call.AnswerError
		passing bool
	}{
		{"an answer", 200, `{"ret":0}`, 0, call.AnswerError{}, false},
		{"at the limit", 200, strings.Repeat(" ", 64), 0, call.AnswerError{}, false},
		{"over the limit", 200, strings.Repeat(" ", 65), 0, call.AnswerError{StatusCode: 200, Length: 65, Reason: "over 0 KiB"}, false},
		{"what read refuses", 200, ` refuse`, 0, call.AnswerError{StatusCode: 200, Length: 7, Reason: "refused"}, false},
		{"a page", 200, "<p>", 0, call.AnswerError{StatusCode: 200, Length: 3, Reason: "it is not JSON"}, false},
		{"nothing", 200, "", 0, call.AnswerError{StatusCode: 200, Reason: "it is empty"}, false},
		{"nothing of an announced body", 200, "", 9, call.AnswerError{StatusCode: 200, Length: 0, Reason: "connection lost while reading the body"}, true},
		{"half", 200, "{", 9, call.AnswerError{StatusCode: 200, Length: 1, Reason: "connection lost while reading the body"}, true},
		{"503", 503, "{}", 0, call.AnswerError{StatusCode: 503, Length: 2, Reason: "want status 200"}, true},
		{"429", 429, "{}", 0, call.AnswerError{StatusCode: 429, Length: 2, Reason: "want status 200"}, true},
		{"404", 404, "{}", 0, call.AnswerError{StatusCode: 404, Length: 2, Reason: "want status 200"}, false},
		{"a redirect", 302, "", 0, call.AnswerError{StatusCode: 302, Reason: "redirects are not followed, because the query carries secrets; check the base URL"}, false},
	} {
		t.Run(test.what, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header()["Content-Type"] = nil
				w.Header().Set("Location", "/elsewhere")
				if test.length > 0 {
					w.Header().Set("Content-Length", fmt.Sprint(test.length))
				}
				w.WriteHeader(test.status)
				io.WriteString(w, test.body)
			}))
			defer server.Close()
			err := do(t, call.Client(server.Client(), 0), server.URL, func(body []byte) string {
				require.Equal(t, test.body, string(body))
				if strings.Contains(test.body, "refuse") {
					return "refused"
				}
				return ""
			})
			if test.want.Reason == "" {
				require.NoError(t, err)
				return
			}
			var got *call.AnswerError
			require.ErrorAs(t, err, &got)
			require.Equal(t, test.length > 0, got.Cause != nil)
			got.Cause = nil
			require.Equal(t, test.want, *got)
			require.EqualError(t, err, test.want.Reason)
			if test.length == 0 {
				require.Equal(t, test.passing, got.Passing())
			}
		})
	}
	require.True(t, (&call.AnswerError{StatusCode: 200, Cause: io.EOF}).Passing())
}

func TestRepetitionsObeyTheirContext(t *testing.T) {
	t.Parallel()
	failed := errors.New("failed")
	for _, test := range []struct {
		what        string
		ends        time.Duration // of the context; 0: never
		succeeds    int           // this try
		again       bool
		tries       int
		least, most time.Duration
		want        error
	}{
		{"at once", 0, 1, true, 1, 0, 0, nil},
		{"at the third try", 0, 3, true, 3, 1500 * time.Millisecond, 3 * time.Second, nil},
		{"never", 0, 0, true, 4, 3500 * time.Millisecond, 7 * time.Second, failed},
		{"not again", 0, 0, false, 1, 0, 0, failed},
		{"until the end", time.Millisecond, 0, true, 1, time.Millisecond, time.Millisecond, context.DeadlineExceeded},
	} {
		t.Run(test.what, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ctx := t.Context()
				if test.ends > 0 {
					limited, cancel := context.WithTimeout(ctx, test.ends)
					defer cancel()
					ctx = limited
				}
				start, tries, logged := time.Now(), 0, 0
				repeat := call.Retry{Most: 3, Delay: time.Second, Log: func(try int, _ time.Duration, err error) {
					logged++
					require.Equal(t, logged, try)
					require.Equal(t, failed, err)
				}}
				err := repeat.Do(ctx, func() (bool, error) {
					if tries++; tries == test.succeeds {
						return false, nil
					}
					return test.again, failed
				})
				require.ErrorIs(t, err, test.want)
				require.Equal(t, test.tries, tries)
				require.GreaterOrEqual(t, time.Since(start), test.least)
				require.LessOrEqual(t, time.Since(start), test.most)
			})
		})
	}
	ended, cancel := context.WithCancel(t.Context())
	err := call.Retry{Most: 3, Delay: time.Hour}.Do(ended, func() (bool, error) { cancel(); return true, failed })
	require.Equal(t, context.Canceled, err, "bare where it ended during a try")
}

// Not a parallel test: it changes http.DefaultTransport, which a client without a transport uses.
func TestAClientThatSkipsTLSVerificationIsNotUsed(t *testing.T) {
	skipping := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	require.Empty(t, call.WrongClient(nil))
	require.Empty(t, call.WrongClient(http.DefaultClient))
	require.Empty(t, call.WrongClient(&http.Client{Transport: roundTripper(nil)}))
	require.Contains(t, call.WrongClient(&http.Client{Transport: skipping}), "RootCAs")
	previous := http.DefaultTransport
	defer func() { http.DefaultTransport = previous }()
	http.DefaultTransport = skipping
	require.Contains(t, call.WrongClient(http.DefaultClient), "RootCAs")
	require.Empty(t, call.WrongClient(nil), "our own does not use it")
}

func TestAConfigurationOutOfRangeIsRefused(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		retries int
		delay   time.Duration
		want    string
	}{{10, time.Minute, ""}, {-1, 0, ""}, {11, 0, "MaxRetries"}, {0, -1, "RetryDelay"}, {11, time.Minute + 1, "MaxRetries RetryDelay"}} {
		var refused []string
		call.CheckRetries(test.retries, test.delay, func(field, _ string) { refused = append(refused, field) })
		require.Equal(t, test.want, strings.Join(refused, " "))
	}
	for _, pasted := range []string{" k", "k\n", `"k"`, "k\u200b", "k\u00a0", "“k”", "\xff", strings.Repeat("k", 1025)} {
		require.True(t, call.BadlyCopied(pasted), "%q", pasted)
	}
	for _, alone := range []string{"", "k", "k&=+/~*", "it's", "密钥", strings.Repeat("k", 1024)} {
		require.False(t, call.BadlyCopied(alone), "%q", alone)
	}
}

func TestARequestThatCannotBeMadeIsNotSent(t *testing.T) {
	t.Parallel()
	err := do(t, http.DefaultClient, "http://127.0.0.1:port/", takes)
	var fault *call.NetworkError
	require.ErrorAs(t, err, &fault)
	require.True(t, fault.Unsent)
}
