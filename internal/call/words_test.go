package call_test

import (
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/midas-go/midas/internal/call"
	"github.com/stretchr/testify/require"
)

const (
	openKeyInTest = `1111806DC5+1C52/50CF<405E>"42222&`
	pfKeyInTest   = "1B59A5C3D77C7C56D7AFC3E2C823105D"
)

// What Midas, WeChat and net/http have been seen to say.
func TestPlainWordsAreShown(t *testing.T) {
	t.Parallel()
	for _, words := range []string{
		"", "请求参数错误(pfkey)", "请求参数错误：(sig)", "对不起,你还没有接入权限", "sig error", "token校验失败(20)", "system busy, try later", "invalid session_key",
		"access_token expired", "not permitted to use this call [20]", "who are you, 1",
		"connect: connection refused", "tls: failed to verify certificate: x509: certificate signed by unknown authority", "unexpected EOF", "i/o timeout",
		"net/http: HTTP/1.x transport connection broken", "http: server gave HTTP response to HTTPS client", "context deadline exceeded (Client.Timeout exceeded while awaiting headers)",
		"stream error: stream ID 5; INTERNAL_ERROR; received from peer", "lookup ysdk.qq.com: no such host",
		"a word of abcdefghijklmnopqrst", "one1, two2, three3", "it is so ab", "digit7s", // at each limit
	} {
		t.Run(words, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, words, call.Words(words, []string{openKeyInTest, pfKeyInTest, "1"}))
		})
	}
	require.Equal(t, "sig error", call.Words("sig error", []string{"sig err"}), "7 bytes cannot be told from ordinary text")
	require.Equal(t, "[withheld]", call.Words("sig error", []string{"sig erro"}), "8 bytes give a value away")
	require.Equal(t, strings.Repeat("错", 85)+"…", call.Words(strings.Repeat("错", 100_000), nil), "256 bytes are shown, no character cut in two")
}

func TestTextThatMayHoldASecretIsWithheldWhole(t *testing.T) {
	t.Parallel()
	twice := func(encode func(string) string) func(string) string {
		return func(s string) string { return encode(encode(s)) }
	}
	inJSON := func(s string) string {
		text, err := json.Marshal(s)
		require.NoError(t, err)
		return strings.Trim(string(text), `"`)
	}
	eachByte := func(format, between string) func(string) string {
		return func(s string) string {
			bytes := make([]string, len(s))
			for i := range bytes {
				bytes[i] = fmt.Sprintf(format, s[i])
			}
			return strings.Join(bytes, between)
		}
	}
	for notation, encode := range map[string]func(string) string{
		"as it is":                 func(s string) string { return s },
		"the first 8 bytes":        func(s string) string { return s[:8] },
		"the last 8 bytes":         func(s string) string { return s[len(s)-8:] },
		"percent-encoded":          url.QueryEscape,
		"percent-encoded twice":    twice(url.PathEscape),
		"lower-case escapes":       func(s string) string { return strings.ToLower(url.QueryEscape(s)) },
		"JSON":                     inJSON,
		"JSON in JSON":             twice(inJSON),
		"HTML":                     html.EscapeString,
		"HTML of a percent":        func(s string) string { return html.EscapeString(url.QueryEscape(s)) },
		"numeric entities":         eachByte("&#x%X;", ""),
		"base64":                   func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) },
		"base64 without padding":   func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) },
		"base64 of something more": func(s string) string { return base64.RawStdEncoding.EncodeToString([]byte("xy" + s + "z")) },
		"base64 in lines":          func(s string) string { return inLines(base64.RawStdEncoding.EncodeToString([]byte(s))) },
		"base32":                   func(s string) string { return base32.StdEncoding.EncodeToString([]byte(s)) },
		"hex":                      func(s string) string { return hex.EncodeToString([]byte(s)) },
		"hex twice":                twice(func(s string) string { return hex.EncodeToString([]byte(s)) }),
		"upper-case hex":           func(s string) string { return strings.ToUpper(hex.EncodeToString([]byte(s))) },
		"hex with a digit before":  func(s string) string { return "4" + hex.EncodeToString([]byte(s)) },
		"wrapped lines":            inLines,
		"lower case":               strings.ToLower,
		"table":                    func(s string) string { return "[openkey] > " + s[:12] },
		"many layers":              func(s string) string { return twice(twice(url.QueryEscape))(s) + "%25252525252541" },
		"a []byte by %v":           func(s string) string { return fmt.Sprint([]byte(s)) },
		"bytes of Go":              eachByte("0x%02x", ","),
		"hex with blanks":          eachByte("%02x", " "),
		"hex with colons":          eachByte("%02x", ":"),
		"octal":                    eachByte(`\%03o`, ""),
		"decimals with dots":       eachByte("%d", "."),
		"escapes of CSS":           eachByte(`\u{%x}`, ""),
		"UTF-16":                   eachByte("%c\x00", ""),
		"backwards": func(s string) string {
			bytes := []byte(s)
			slices.Reverse(bytes)
			return string(bytes)
		},
		"tags between":   eachByte("%c", "<b></b>"),
		"dots between":   eachByte("%c", "."),
		"blanks between": eachByte("%c", " "),
	} {
		t.Run(notation, func(t *testing.T) {
			t.Parallel()
			for _, secret := range []string{openKeyInTest, pfKeyInTest} {
				require.Equal(t, "[withheld]", call.Words("参数错误 "+encode(secret)+" !", []string{"unrelated value", secret}))
			}
		})
	}
	for what, text := range map[string]string{
		"a query":                      "/mpay/buy_goods_m?a",
		"a pair of one":                "openid=o1",
		"the same, escaped":            "x%3D1",
		"a list of bytes":              "[53 95 115 101]",
		"a list with commas":           "0x35,0x5f,0x73,0x65",
		"bare hex":                     "35 5f 73 65",
		"letters and digits by dots":   "o.p.q.1.2.3",
		"an openid of base64url":       "openid oOpEnId-AbCd-EfGh-IjKl is wrong",
		"an openid with digits":        "openid oOpEnId0-AbCd-EfGh-1234 is wrong",
		"the beginning of a token":     "token 84_Ab3dEf-h",
		"a line break":                 "two\nlines",
		"half a character":             "half \xe9",
		"a backslash":                  `C:\temp`,
		"an address":                   "198.51.100.7:443",
		"a long number":                "order 20181116000001",
		"a date":                       "2026-11-29T09:46:51Z",
		"full-width digits":            "１２３４５６７８",
		"an invisible character":       "a\u200bb",
		"a right-to-left override":     "a\u202eb",
		"an escape of a terminal":      "\x1b[31m",
		"hexadecimal of another value": "deadbeefdeadbeefdeadbeef",
		"a word of 21 letters":         "abcdefghijklmnopqrstu",
		"four runs with a digit":       "one1, two2, three3, four4",
		"five short runs":              "it is so ab cd",
		"eight bytes with a digit":     "digits7s",
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, "[withheld]", call.Words(text, nil))
		})
	}
}

func inLines(s string) string {
	var b strings.Builder
	for len(s) > 6 {
		b.WriteString(s[:6] + "\n  ")
		s = s[6:]
	}
	return b.String() + s
}

func TestAnErrorCodeIsShownByItsShape(t *testing.T) {
	t.Parallel()
	for code, want := range map[string]string{
		"": "", "1018--2-20": "1018--2-20", "1016-1016-0": "1016-1016-0", "7": "7", "-5": "-5", "1018-1018-1018": "1018-1018-1018",
		"12345": "[withheld]", "1018-20181": "[withheld]", "1-1-1-1-1-1-1-1-1": "[withheld]", "E7": "[withheld]", "-": "[withheld]", "10 18": "[withheld]", "1018-": "[withheld]", "1018\n": "[withheld]",
	} {
		t.Run(code, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, want, call.Code(code, []string{"unrelated value"}))
		})
	}
	require.Equal(t, "[withheld]", call.Code("1018--2-20", []string{"x1018--2-"}), "a piece of a value")
}

func TestTheIDOfARequestIsShown(t *testing.T) {
	t.Parallel()
	const rid = " rid: 69ddee24-00000000-00000000"
	for text, want := range map[string]string{
		"system error" + rid:               "system error" + rid,
		"invalid code," + rid:              "invalid code," + rid,
		"system error" + rid + " ":         "system error" + rid,
		"system error" + rid + "-00000000": "[withheld]",
		"x=y" + rid:                        "[withheld]" + rid,
		"system error" + rid + rid:         "[withheld]" + rid,
		"system error RID: 69DDEE24":       "[withheld]",
		"invalid ip 192.0.2.7":             "[withheld]",
	} {
		t.Run(text, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, want, call.WithRequestID(text, nil))
		})
	}
	require.Equal(t, "[withheld]", call.WithRequestID("system error"+rid, []string{"69ddee24-0"}), "a piece of a value")
}

func TestAContentTypeIsShownByItsShape(t *testing.T) {
	t.Parallel()
	for header, want := range map[string]string{
		"text/html; charset=utf-8": "text/html", "Application/JSON": "application/json", "application/vnd.api+json": "application/vnd.api+json",
		"": "", "SECRET=1": "", "text": "", "text/x 1": "", "text/" + pfKeyInTest: "", "text/" + strings.Repeat("a", 50): "", "text/html<b>": "",
	} {
		t.Run(header, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, want, call.ContentType(header, []string{"secretive"}))
			require.Empty(t, call.ContentType("text/secretive", []string{"secretive"}))
		})
	}
}

// What an error says of an answer costs the same memory whatever the player's openkey
// holds (reliability review, R1: 76 MiB for one refusal).
func TestAnOpenKeyDoesNotDecideWhatARefusalCosts(t *testing.T) {
	refuse := func(openKey string) func() {
		return func() { call.Words("请求参数错误(pfkey)", []string{openKey, openKey, openKey}) }
	}
	allocated := func(f func()) uint64 { // by 100 calls; not a parallel test, so by nobody else
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range 100 {
			f()
		}
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc
	}
	ordinary := allocated(refuse(strings.Repeat("1B59A5C3D77C7C56", 64)))
	for _, worst := range []string{strings.Repeat("+", 1023) + "a", strings.Repeat("%25", 341), strings.Repeat("号", 341)} {
		require.LessOrEqual(t, allocated(refuse(worst)), 2*ordinary+1<<20, "%.4s", worst) // the runtime allocates a little, too
	}
}
