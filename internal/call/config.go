package call

import (
	"net/http"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Client returns a copy of hc that follows no redirect, since requests carry secrets, and
// keeps no cookies, since one player's session is not another's. For nil it returns a
// client with a time limit, unlike http.DefaultClient, that keeps enough connections to one
// host for a busy backend.
func Client(hc *http.Client, limit time.Duration) *http.Client {
	quiet := http.Client{
		Timeout: limit,
		Transport: &http.Transport{
			Proxy:               http.ProxyFromEnvironment,
			ForceAttemptHTTP2:   true,
			MaxIdleConnsPerHost: 32,
			IdleConnTimeout:     90 * time.Second,
		},
	}
	if hc != nil {
		quiet = *hc
	}
	quiet.Jar = nil
	quiet.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &quiet
}

// WrongClient says why hc, which may be nil, is not used, or "".
func WrongClient(hc *http.Client) string {
	if hc == nil {
		return ""
	}
	transport := hc.Transport
	if transport == nil {
		transport = http.DefaultTransport
	}
	if t, ok := transport.(*http.Transport); ok && t != nil && t.TLSClientConfig != nil && t.TLSClientConfig.InsecureSkipVerify {
		return "its transport skips TLS verification: add the certificate to RootCAs instead"
	}
	return ""
}

// NotCopiedAlone is the reason for refusing a value that is BadlyCopied.
const NotCopiedAlone = "holds whitespace, an invisible character or quotes, or is over 1024 bytes: did surrounding characters get copied along with it?"

// MaxSecret is the limit, in bytes, on each credential and other text that the app sends:
// several times the longest value seen, and short enough to look for in an answer.
const MaxSecret = 1024

// BadlyCopied reports whether s looks pasted: it has spaces, quotes or invisible characters.
func BadlyCopied(s string) bool {
	const quotes = "\"'“”"
	return strings.Trim(s, quotes) != s || len(s) > MaxSecret || !utf8.ValidString(s) ||
		strings.ContainsFunc(s, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) })
}
