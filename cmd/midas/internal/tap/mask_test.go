package tap_test

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/midas-go/midas/cmd/midas/internal/tap"
	"github.com/stretchr/testify/require"
)

// A masker is the recorder's, with another exchange for each call.
func masked(t testing.TB, request, requestBody, answer, answerBody string) string {
	line, err := json.Marshal(tap.Mask(secret, request, requestBody, answer, answerBody))
	require.NoError(t, err)
	return string(line)
}

const (
	openKey = "OPENKEYq7Zp9Wk3=+/mN5"
	session = "sess-RT6yHjK8"
	sig     = "Vb7Nq/hs+82kdJw1Lp0zXcTyGm4="
	openID  = "oQ9vZb3kT-hwPrYx5mNcJs7uLdEg"
)

func TestNoSecretIsRecordedInAnyNotation(t *testing.T) {
	t.Parallel()
	q := url.QueryEscape
	nested, _ := json.Marshal(`{"openkey":"` + openKey + `","OpenId":"` + openID + `"}`)
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	fmt.Fprintf(w, `{"msg":"bad openkey %s"}`, openKey)
	w.Close()
	const head = "HTTP/1.1 200 OK\r\n\r\n"
	for _, test := range []struct{ what, request, requestBody, answer, answerBody string }{
		{"a query", "GET /mpay/buy_goods_m?openid=" + openID + "&openkey=" + q(openKey) + "&sig=" + q(sig) + " HTTP/1.1\r\n\r\n", "", head, ""},
		{"a query in lower-case hex", "GET /p?openkey=" + strings.ReplaceAll(strings.ToLower(q("=")), "%3d", "") + lower(q(openKey)) + "&sig=" + lower(q(sig)) + " HTTP/1.1\r\n\r\n", "", head, ""},
		{"encoded twice", "GET /p?pfkey=" + q(q(openKey)) + "&openid=" + q(q(openID)) + " HTTP/1.1\r\n\r\n", "", head, openKey + openID},
		{"a value that is not encoded", "GET /p?openkey=" + openKey + ";" + openKey + " HTTP/1.1\r\n\r\n", "", head, ""},
		{"a query whose mark is encoded", "GET /p%3Fopenkey%3D" + q(openKey) + "%26x HTTP/1.1\r\n\r\n", "", head, ""},
		{"a query in a parameter", "GET /p?a=" + q("b=1&pay_token="+openKey+"&openid="+openID) + " HTTP/1.1\r\n\r\n", "", head, ""},
		{"JSON in a parameter", "GET /p?a=" + q(`{"access_token": "`+openKey+`"}`) + " HTTP/1.1\r\n\r\n", "", head, ""},
		{"an absolute URL", "GET http://x/p?access_token=" + q(openKey) + " HTTP/1.1\r\n\r\n", "", head, ""},
		{"a query without HTTP", "GET /p?openkey=" + openKey + "\r\n\r\n", "", head, ""},
		{"an encoded name", "GET /p?open%6bey=" + q(openKey) + " HTTP/1.1\r\n\r\n", "", head, ""},
		{"cookies", "GET / HTTP/1.1\r\nCookie: session_id=openid; sid=" + session + ";openkey=" + q(openKey) + "\r\n\r\n", "", head, ""},
		{"a cookie that is set", "GET / HTTP/1.1\r\n\r\n", "", "HTTP/1.1 200 OK\r\nSet-Cookie: sid=" + session + "; Path=/; HttpOnly\r\n\r\n", ""},
		{"headers", "GET / HTTP/1.1\r\nAuthorization: Bearer " + openKey + "\r\nX-Access-Token: " + session + "\r\nReferer: http://x/?openkey=" + q(openKey) + "\r\n\r\n", "", head, ""},
		{"headers that go on", "GET / HTTP/1.1\r\nCookie: a=1;\r\n sid=" + session + "\r\nAuthorization:\r\n\tBearer " + openKey + "\r\n\r\n", "", head, ""},
		{"a header after a bare CR", "GET / HTTP/1.1\r\nX: y\rCookie : sid=" + session + "\rAuthorization: " + openKey + "\r\n\r\n", "", head, ""},
		{"a token repeated without its scheme", "GET / HTTP/1.1\r\nAuthorization: Bearer " + openKey + "\r\n\r\n", "", head, "unknown " + openKey},
		{"a redirect", "GET / HTTP/1.1\r\n\r\n", "", "HTTP/1.1 302 Found\r\nLocation: http://x/?openkey=" + q(openKey) + "\r\n\r\n", ""},
		{"a form", "POST / HTTP/1.1\r\n\r\n", "openid=" + openID + "&openkey=" + q(openKey) + "&sig=" + q(sig), head, ""},
		{"a form with parts", "POST / HTTP/1.1\r\n\r\n", "--B\r\nContent-Disposition: form-data; name=\"openkey\"\r\n\r\n" + openKey + "\r\n--B--\r\n", head, ""},
		{"JSON", "POST / HTTP/1.1\r\n\r\n", `{"openid" : "` + openID + `", "session_key":"` + openKey + `","pay_sig":"` + sig + `"}`, head, ""},
		{"JSON with escapes", "POST / HTTP/1.1\r\n\r\n", `{"open\u006bey":"` + strings.ReplaceAll(openKey, "/", `\/`) + `"}`, head, ""},
		{"JSON with escapes for letters", "POST / HTTP/1.1\r\n\r\n", `{"openkey":"\u004f\u0050ENKEYq7Zp9Wk3=+\/mN5"}`, head, "OPENKEYq7Zp9Wk3=+/mN5"},
		{"JSON in JSON", "POST / HTTP/1.1\r\n\r\n", `{"MiniGame":{"Payload":` + string(nested) + `,"PayEventSig":"` + sig + `"}}`, head, ""},
		{"XML", "POST / HTTP/1.1\r\n\r\n", "<xml><OpenId><![CDATA[" + openID + "]]></OpenId><PayEventSig>" + sig + "</PayEventSig></xml>", head, ""},
		{"an error page that repeats the query", "GET /p?openkey=" + q(openKey) + "&openid=" + openID + " HTTP/1.1\r\n\r\n", "", head, "<p>" + html.EscapeString("/p?openkey="+q(openKey)) + " " + openKey + " for " + openID},
		{"an error page that repeats the decoded query", "GET /p?openkey=" + q(q(openKey)) + " HTTP/1.1\r\n\r\n", "", head, html.EscapeString(openKey) + " " + strings.ReplaceAll(openKey, "/", `\/`)},
		{"an answer that breaks off in a secret", "GET /p?openkey=" + q(openKey) + " HTTP/1.1\r\n\r\n", "", head, "bad " + openKey[:len(openKey)-2]},
		{"a secret that breaks off", "GET /p?a=1&openkey=" + q(openKey), "", head, ""},
		{"an answer in gzip", "GET /p?openkey=" + q(openKey) + " HTTP/1.1\r\n\r\n", "", "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n", packed.String()},
		{"an answer in another encoding", "GET / HTTP/1.1\r\n\r\n", "", "HTTP/1.1 200 OK\r\ncontent-encoding:br\r\n\r\n", openKey},
	} {
		t.Run(test.what, func(t *testing.T) {
			t.Parallel()
			requireNoSecret(t, masked(t, test.request, test.requestBody, test.answer, test.answerBody), openKey, session, sig, openID)
		})
	}
}

func lower(s string) string {
	return regexp.MustCompile(`%..`).ReplaceAllStringFunc(s, strings.ToLower)
}

// requireNoSecret looks for each run of letters and digits in the secrets, which is what no
// encoding changes.
func requireNoSecret(t testing.TB, line string, secrets ...string) {
	t.Helper()
	for _, piece := range regexp.MustCompile(`"base64":"([^"]*)"`).FindAllStringSubmatch(line, -1) {
		b, _ := base64.StdEncoding.DecodeString(piece[1])
		line += string(b)
	}
	for _, secret := range secrets {
		for _, run := range regexp.MustCompile(`[0-9A-Za-z]{5,}`).FindAllString(secret, -1) {
			require.NotContains(t, line, run, secret)
		}
	}
}

// What is kept is what the protocol leaves open: lengths, kinds of characters, the order's
// token, the words of cookies.
func TestWhatIsMaskedKeepsItsShape(t *testing.T) {
	t.Parallel()
	e := tap.Mask(secret, "GET /mpay/buy_goods_m?openkey=aZ9%2B-g&sig=Gg%2Fz0%3D&token=T1&channel_id=00-android-869782022252681-x&empty= HTTP/1.1\r\nCookie: session_id=hy_gameid; org_loc=%2Fv3%2Fr%2Fmpay%2Fbuy_goods_m\r\n\r\n", "",
		"HTTP/1.1 200 OK\r\n\r\n", `{"ret":0,"token":"842C","url_params":"/v1/x?token_id=842C","access_token":"ab12"}`)
	require.True(t, e.Masked)
	head := string(e.Request.Head)
	require.Regexp(t, `^GET /mpay/buy_goods_m\?openkey=aX0%2B-x&sig=Xx%2Fx0%3D&token=T1&channel_id=00-android-\d{15}-x&empty= HTTP/1\.1\r\n`, head)
	require.NotContains(t, head, "869782022252681")
	require.True(t, strings.HasSuffix(head, "Cookie: session_id=hy_gameid; org_loc=%2Fv3%2Fr%2Fmpay%2Fbuy_goods_m\r\n\r\n"), head)
	require.Equal(t, `{"ret":0,"token":"842C","url_params":"/v1/x?token_id=842C","access_token":"aa00"}`, string(e.Answer.Body))
}

// dumps are what backends print of what they know of a player: no value in them was in the
// request, so it can only be found by its name.
var dumps = map[string]func(name, value string) string{
	"print_r":                    func(n, v string) string { return "Array\n(\n    [" + n + "] => " + v + "\n    [zone] => 1\n)\n" },
	"print_r, one":               func(n, v string) string { return "[" + n + "] => " + v },
	"print_r of an object":       func(n, v string) string { return "User Object\n(\n    [" + n + ":protected] => " + v + "\n)\n" },
	"print_r of a private field": func(n, v string) string { return "User Object\n(\n    [" + n + ":App\\User:private] => " + v + "\n)\n" },
	"print_r of a list":          func(n, v string) string { return "[" + n + "] => Array\n (\n [0] => " + v + "\n )\n" },
	"var_dump": func(n, v string) string {
		return fmt.Sprintf("array(1) {\n  [\"%s\"]=>\n  string(%d) \"%s\"\n}\n", n, len(v), v)
	},
	"var_dump of an object": func(n, v string) string {
		return fmt.Sprintf("[\"%s\":\"User\":private]=>\n  string(%d) \"%s\"\n}\n", n, len(v), v)
	},
	"var_dump of a list": func(n, v string) string {
		return fmt.Sprintf("[\"%s\"]=>\n array(1) {\n [0]=>\n string(%d) \"%s\"\n}\n", n, len(v), v)
	},
	"var_export": func(n, v string) string { return "array (\n  '" + n + "' => '" + v + "',\n)" },
	"serialize":  func(n, v string) string { return fmt.Sprintf("a:1:{s:%d:\"%s\";s:%d:\"%s\";}", len(n), n, len(v), v) },
	"serialize of a list": func(n, v string) string {
		return fmt.Sprintf("a:1:{s:%d:\"%s\";a:1:{i:0;s:%d:\"%s\";}}", len(n), n, len(v), v)
	},
	"a session of PHP": func(n, v string) string { return fmt.Sprintf("%s|s:%d:\"%s\";", n, len(v), v) },
	"an arrow":         func(n, v string) string { return "$user->" + n + "->" + v },
	"a list in JSON":   func(n, v string) string { return `{"` + n + `":["first",` + quoted(v) + `]}` },
	"an object in JSON": func(n, v string) string {
		return `{"` + n + `":{"value":` + quoted(v) + `,"old":[{"v":[` + quoted(v) + `]}]}}`
	},
	"an object in JSON by player": func(n, v string) string { return `{"` + n + `":{` + quoted(v) + `:1}}` },
	"a list in JSON that is cut":  func(n, v string) string { return `{"` + n + `":["first",` + quoted(v) },
	"a list in JSON in JSON":      func(n, v string) string { return `{"data":` + quoted(`{"`+n+`":["x",`+quoted(v)+`]}`) + `}` },
	"a message in JSON": func(n, v string) string {
		return `{"msg":` + strings.ReplaceAll(quoted("bad "+n+"="+v), "/", `\/`) + `}`
	},
	"a dictionary of Python": func(n, v string) string { return "{'" + n + "': '" + v + "', 'zone': 1}" },
	"bytes of Python":        func(n, v string) string { return "{'" + n + "': b'" + v + "'}" },
	"a list of Python":       func(n, v string) string { return "{'" + n + "': ['', '" + v + "']}" },
	"a hash of Ruby":         func(n, v string) string { return `{"` + n + `"=>"` + v + `", :zone=>1}` },
	"a map of Go":            func(n, v string) string { return "map[" + n + ":[first " + v + "] zone:[1]]" },
	"a map of Go as source":  func(n, v string) string { return `url.Values{"` + n + `":[]string{"first", "` + v + `"}}` },
	"a map of Java":          func(n, v string) string { return "{" + n + "=[first, " + v + "], zone=1}" },
	"a table": func(n, v string) string {
		return "<tr><td>" + n + "</td><td><b>" + html.EscapeString(v) + "</b></td></tr>"
	},
	"a list in HTML": func(n, v string) string { return "&#39;" + n + "&#39;: &#39;" + html.EscapeString(v) + "&#39;" },
	"elements in an element": func(n, v string) string {
		return "<xml><" + n + "><item>" + html.EscapeString(v) + "</item></" + n + "></xml>"
	},
	"name and value apart in JSON": func(n, v string) string { return `{"name":"` + n + `","value":` + quoted(v) + `}` },
	"comma-separated values":       func(n, v string) string { return "zone," + n + "\n1," + v + "\n" },
	"a sentence":                   func(n, v string) string { return v + " is no " + n + ", sorry" },
	"a value with a space":         func(n, v string) string { return "your " + n + "=first " + v },
	"another operator":             func(n, v string) string { return n + " := " + v },
}

func quoted(s string) string {
	text, _ := json.Marshal(s)
	return string(text)
}

func TestWhatABackendPrintsOfAPlayerIsNotRecorded(t *testing.T) {
	t.Parallel()
	for what, dump := range dumps {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			for name, value := range map[string]string{"openkey": openKey, "pay_token": openKey, "session_key": session, "openid": openID} {
				requireNoSecret(t, masked(t, "GET / HTTP/1.1\r\n\r\n", "", "HTTP/1.1 500 \r\n\r\n", dump(name, value)), value)
			}
			for _, odd := range []string{"", "+", "/", "==", "-_.", "0aZ+/="} {
				line := masked(t, "GET / HTTP/1.1\r\n\r\n", "", "HTTP/1.1 200 OK\r\n\r\n", dump("openkey", "QW7ZKPM4"+odd+"kjw8vtqz")+"\nthe rest of a page")
				requireNoSecret(t, line, "QW7ZKPM4", "kjw8vtqz")
			}
		})
	}
}

// Pushes whose ciphertext happens to hold the names of secrets, as one of a thousand does.
var (
	sealed     = strings.Repeat("Zm1/kEy+", 8) + "b3yknHuZopenkeyBmugAAA==" // 64 bytes
	sealedJSON = `{"ToUserName":"gh_1","Encrypt":"` + sealed + `"}`
	sealedXML  = "<xml><ToUserName>gh_1</ToUserName><Encrypt><![CDATA[" + sealed + "]]></Encrypt></xml>"
)

// A body is left out only where it must be: what names a secret and gives none stays, and so
// does what was read.
func TestABodyStaysWhereEverySecretInItIsRead(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]string{
		`{"ret":4,"msg":"bad_parameter:openid"}`:                                                                `{"ret":4,"msg":"bad_parameter:openid"}`,
		`{"ret":1018,"msg":"请校验openkey(1018--2-20)"}`:                                                           `{"ret":1018,"msg":"请校验openkey(1018--2-20)"}`,
		`{"ret":1001,"msg":"Invalid openkey or pfkey","err_code":"1001-1"}`:                                     `{"ret":1001,"msg":"Invalid openkey or pfkey","err_code":"1001-1"}`,
		"openkey=ABab9%2B&zone=12345678&pfkey=&sig=":                                                            "openkey=AAaa0%2B&zone=12345678&pfkey=&sig=",
		`{"openkey":"Zz\/9","pfkey":"","pay_token":null,"n":1,"b":"ORDER-12345678"}`:                            `{"openkey":"Xx\/0","pfkey":"","pay_token":null,"n":1,"b":"ORDER-12345678"}`,
		`{"openkey":["Zz9",12,null],"pfkey":{"value":"K1"},"b":"ORDER-12345678"}`:                               `{"openkey":["Xx0",00,null],"pfkey":{"value":"X0"},"b":"ORDER-12345678"}`,
		"<xml><OpenKey><![CDATA[Zz9]]></OpenKey><PfKey></PfKey><Id>ORDER-12345678</Id></xml>":                   "<xml><OpenKey><![CDATA[Xx0]]></OpenKey><PfKey></PfKey><Id>ORDER-12345678</Id></xml>",
		"--B1234567\r\nContent-Disposition: form-data; name=\"openkey\"\r\n\r\nZz9\r\n--B1234567--\r\n":         "--B1234567\r\nContent-Disposition: form-data; name=\"openkey\"\r\n\r\nXx0\r\n--B1234567--\r\n",
		"Array\n(\n    [openkey] => Zz 9\n    [billno] => ORDER-12345678\n)\n":                                  "Array\n(\n    [openkey] => Xx 0\n    [billno] => ORDER-12345678\n)\n",
		"array(2) {\n  [\"openkey\"]=>\n  string(4) \"Zz\"9\"\n  [\"b\"]=>\n  string(14) \"ORDER-12345678\"\n}": "array(2) {\n  [\"openkey\"]=>\n  string(4) \"Xx\"0\"\n  [\"b\"]=>\n  string(14) \"ORDER-12345678\"\n}",
		`a:2:{s:7:"openkey";s:4:"Zz"9";s:1:"b";s:14:"ORDER-12345678";}`:                                         `a:2:{s:7:"openkey";s:4:"Xx"0";s:1:"b";s:14:"ORDER-12345678";}`,
		"{'openkey': 'Zz 9', 'b': 'ORDER-12345678'}":                                                            "{'openkey': 'Xx 0', 'b': 'ORDER-12345678'}",
		sealedJSON: sealedJSON, sealedXML: sealedXML,
	} {
		e := tap.Mask(secret, "GET / HTTP/1.1\r\n\r\n", "", "HTTP/1.1 200 OK\r\n\r\n", body)
		require.Empty(t, e.Answer.Left, body)
		require.Equal(t, want, string(e.Answer.Body))
	}
	e := tap.Mask(secret, "GET /?openkey=Zz99Zz HTTP/1.1\r\n\r\n", "", "HTTP/1.1 200 OK\r\n\r\n", "Zz99Zz is no openkey")
	require.Equal(t, "Xx00Xx is no openkey", string(e.Answer.Body))
	for _, body := range []string{"openkey " + openKey, `{"msg":"wrong openkey","Encrypt":"` + sealed + `"}`} {
		e = tap.Mask(secret, "GET / HTTP/1.1\r\n\r\n", "", "HTTP/1.1 200 OK\r\n\r\n", body)
		require.Equal(t, "it names a secret whose value cannot be told from the rest", e.Answer.Left)
	}
}

// Nobody can hide a secret behind so many others that it is not looked for.
func TestASecretAmongManyIsNotRecorded(t *testing.T) {
	t.Parallel()
	var many strings.Builder
	for i := range 120 {
		fmt.Fprintf(&many, "openid=player%04d&", i)
	}
	for what, in := range map[string]struct{ request, requestBody string }{
		"in a query": {"POST /p?" + many.String() + "openkey=" + url.QueryEscape(openKey) + " HTTP/1.1\r\n\r\n", openKey},
		"in a body":  {"POST /p HTTP/1.1\r\n\r\n", many.String() + "openkey=" + url.QueryEscape(openKey)},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			line := masked(t, in.request, in.requestBody, "HTTP/1.1 500 Oops\r\nX-Echo: "+openKey+"\r\n\r\n", "cannot log in with "+openKey)
			requireNoSecret(t, line, openKey)
			require.Contains(t, line, "HTTP/1.1 500 Oops")
			require.Contains(t, line, "more than 100 secrets")
		})
	}
}

func FuzzNoSecretIsRecorded(f *testing.F) {
	f.Add("/p?x=", "&", "{\"a\":\"", "%2B+")
	f.Add("/p%3F", "&a=b%26", "<x>", "\"\\u0041")
	f.Add("/?a&&=;", "", "openid=", "'<>&")
	f.Add("/", "", "\n[openid] => ", " +/=")
	f.Fuzz(func(t *testing.T, before, after, page, odd string) {
		if strings.ContainsAny(before+after, " \r\n") {
			return
		}
		// Runs that cannot be a piece of what is around them.
		const first, second = "QW7ZKPM4", "kjw8vtqz"
		for _, text := range []string{before, after, page, odd} {
			if strings.Contains(text, "QW7Z") || strings.Contains(text, "jw8v") {
				return
			}
		}
		key := first + odd + second
		for name, encoded := range map[string]string{"openkey": url.QueryEscape(key), "pfkey": strings.ReplaceAll(url.QueryEscape(key), "+", "%20"), "sig": url.QueryEscape(url.QueryEscape(key)), "access_token": lower(url.QueryEscape(key))} {
			line := masked(t, "GET "+before+"&"+name+"="+encoded+"&"+after+" HTTP/1.1\r\nCookie: s="+encoded+"\r\n\r\n", name+"="+encoded+"&"+after,
				"HTTP/1.1 200 OK\r\n\r\n", page+`"`+name+`":`+quoted(key)+`,`+page+html.EscapeString(key)+page+encoded)
			requireNoSecret(t, line, first, second)
		}
	})
}

// The cost of masking must not depend on what somebody sends.
func BenchmarkMask(b *testing.B) {
	for name, body := range map[string]string{
		"pairs": strings.Repeat("a=b&", 16<<10), "keys": strings.Repeat("openkey=abcdef&", 4<<10), "quotes": strings.Repeat(`"`, 64<<10), "colons": strings.Repeat(`"a":"`, 13<<10), "backslashes": strings.Repeat(`\`, 64<<10),
		"percents": strings.Repeat("%25", 21<<10), "elements": strings.Repeat("<openkey>", 7<<10), "names": strings.Repeat("openkey", 9<<10), "equals": strings.Repeat("=", 64<<10), "plain": strings.Repeat("x", 64<<10), "an order": "openkey=" + openKey,
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				tap.Mask(secret, "GET /p?openid="+openID+"&openkey="+url.QueryEscape(openKey)+"&pfkey=KKKKKKKKKKKKKKK&sig="+url.QueryEscape(sig)+" HTTP/1.1\r\n\r\n", body, "HTTP/1.1 200 OK\r\n\r\n", body)
			}
		})
	}
}
