package main

import (
	"encoding/json"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A mistakeCase is a message of testdata/mistakes.json, signed by Python.
type mistakeCase struct {
	Name  string
	Keys  []string
	Path  string
	Input string
	Want  []string // empty: verified; nil: nothing fits
}

func TestExplainNamesEachMistake(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("testdata/mistakes.json")
	require.NoError(t, err)
	var cases []mistakeCase
	require.NoError(t, json.Unmarshal(data, &cases))
	require.NotEmpty(t, cases)
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			args := []string{"explain", "-json", "-path", c.Path}
			for _, key := range c.Keys {
				args = append(args, "-key", key)
			}
			code, stdout, stderr := runWith(t, "", nil, append(args, c.Input)...)
			require.Empty(t, stderr)
			var got explanation
			require.NoError(t, json.Unmarshal([]byte(stdout), &got))
			require.Empty(t, got.Problem)
			if c.Want != nil && len(c.Want) == 0 {
				require.True(t, got.Verified)
				require.Equal(t, exitOK, code)
				return
			}
			require.False(t, got.Verified)
			require.Equal(t, exitFailed, code)
			var names []string
			for _, m := range got.Mistakes {
				names = append(names, m.Name)
				require.NotEmpty(t, m.What)
				require.NotEmpty(t, m.Cure)
			}
			require.Equal(t, c.Want, names, "alike: %v", got.Alike)
			for _, key := range c.Keys {
				require.NotContains(t, stdout, key)
			}
		})
	}
}

// runWith runs a command and returns its exit code and what it printed.
func runWith(t *testing.T, stdin string, env map[string]string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err strings.Builder
	code = run(t.Context(), args, &terminal{strings.NewReader(stdin), &out, &err, func(name string) string { return env[name] }})
	return code, out.String(), err.String()
}

func TestEveryMistakeHasACaseAndIsDocumented(t *testing.T) {
	t.Parallel()
	cases, err := os.ReadFile("testdata/mistakes.json")
	require.NoError(t, err)
	known := map[string]bool{}
	for _, query := range []string{"billno=1&sig=x", "openkey=1&sig=x"} {
		m, err := parseMessage("http://203.0.113.9/pay/notify?" + query)
		require.NoError(t, err)
		for _, method := range []string{"GET", "POST"} {
			m.method = method
			for _, mistake := range mistakesFor(m, newRecipe(m, "/api/pay/notify", "k"), []string{"other"}) {
				known[mistake.Name] = true
			}
		}
	}
	known["msdk-path"] = true // for a request that is to be signed for the path of YSDK
	require.Greater(t, len(known), 30)
	for _, page := range []string{"../../docs/sandbox.md", "../../docs/sandbox.zh-CN.md"} {
		text, err := os.ReadFile(page)
		require.NoError(t, err)
		for name := range known {
			require.Contains(t, string(text), "`"+name+"`", page)
		}
	}
	for name := range known {
		if name != "sig-signed" { // no message can hold it: see TestExplainSigExplainsOnesOwnSignature
			require.Contains(t, string(cases), `"`+name+`"`)
		}
	}
}

func TestRightRecipeMatchesTheKnownAnswers(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("../../testdata/signatures.json")
	require.NoError(t, err)
	var vectors []struct {
		Name, Kind, Method, Path, Sig string
		AppKey                        string `json:"app_key"`
		BaseString                    string `json:"base_string"`
		Params                        map[string]string
	}
	require.NoError(t, json.Unmarshal(data, &vectors))
	require.Len(t, vectors, 107)
	for _, v := range vectors {
		query := url.Values{"sig": {v.Sig}}
		for name, value := range v.Params {
			query.Set(name, value)
		}
		m := &message{callback: v.Kind == "callback", method: v.Method, query: query.Encode()}
		right := newRecipe(m, v.Path, v.AppKey)
		right.method = strings.ToUpper(v.Method) // in the vectors callbacks come with POST too
		require.Equal(t, v.BaseString, right.base(), v.Name)
		require.Equal(t, v.Sig, right.sign(), v.Name)
		require.True(t, right.fits(), v.Name)
	}
}

// The callback of Tencent's documentation (vector documented-cb-mobile-mt-php-empty-value).
const (
	documentedKey   = "Lf6AtMEB1QlE8BYS"
	documentedQuery = "openid=F11669C63D76BAB0BC2F6CC869B19E53&appid=1101255891&ts=1396325191&payitem=G1*20*2&token=5056117C0597793C38C4F1D29F884C5E25887" +
		"&billno=-APPDJSX18246-20140401-1206311492&version=v3&zoneid=1&providetype=5&amt=320&payamt_coins=0&pubacct_payamt_coins=" +
		"&appmeta=customkey*qdqb*qq&clientver=android&sig=ai1eD5CA16n5pWBx9abjZguMR5Y%3D"
)

func TestExplainReadsEveryKindOfInput(t *testing.T) {
	t.Parallel()
	keyFile := filepath.Join(t.TempDir(), "pay.key")
	require.NoError(t, os.WriteFile(keyFile, []byte(documentedKey+"\r\n"), 0o600))
	target := "/pay/mt.php?" + documentedQuery
	for name, c := range map[string]struct {
		args  []string
		stdin string
		env   map[string]string
	}{
		"a URL":                         {args: []string{"-key", documentedKey, "https://shop.example" + target}},
		"a path with its query":         {args: []string{"-key", documentedKey, target}},
		"a bare query":                  {args: []string{"-key", documentedKey, "-path", "/pay/mt.php", documentedQuery}},
		"standard input":                {args: []string{"-key", documentedKey, "-"}, stdin: "https://shop.example" + target + "\n"},
		"the key in the environment":    {args: []string{target}, env: map[string]string{"MIDAS_APP_KEY": documentedKey}},
		"the key in a file":             {args: []string{"-key-file", keyFile, target}},
		"an nginx or Apache log line":   {args: []string{"-key", documentedKey, "-"}, stdin: `203.0.113.7 - - [01/Apr/2014:12:06:31 +0800] "GET ` + target + ` HTTP/1.1" 200 20 "-" "Midas/1.0"` + "\n"},
		"a log line in JSON":            {args: []string{"-key", documentedKey, "-"}, stdin: `{"time":"2014","request":"GET ` + target + ` HTTP/1.1","status":200}`},
		"a log line with another query": {args: []string{"-key", documentedKey, "-"}, stdin: `x "https://r.example/?a=b" "GET ` + target + ` HTTP/1.1"`},
		"a quote in a URL is no log":    {args: []string{"-key", documentedKey, target + "&cee_extend=it's"}},
		"a log line that nginx escaped": {args: []string{"-key", documentedKey, "-"}, stdin: `1.2.3.4 "GET ` + strings.ReplaceAll(target, "*", `\x2A`) + ` HTTP/1.1" 200`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, stdout, stderr := runWith(t, c.stdin, c.env, append([]string{"explain"}, c.args...)...)
			require.Empty(t, stderr)
			require.Equal(t, exitOK, code)
			require.Contains(t, stdout, "VERIFIED: the signature is right.")
			require.NotContains(t, stdout, documentedKey)
			// Both stages, as the vector has them.
			require.Contains(t, stdout, "billno=%2DAPPDJSX18246%2D20140401%2D1206311492&clientver")
			require.Contains(t, stdout, "GET&%2Fpay%2Fmt.php&amt%3D320%26appid%3D1101255891%26appmeta%3Dcustomkey%2Aqdqb%2Aqq%26billno%3D%252DAPPDJSX18246%252D20140401")
			require.Contains(t, stdout, "charged: 32 Q-points (3.20 yuan)")
		})
	}
}

// The signatures are those of openssl dgst -sha1 -hmac over the base string with a mistake.
func TestExplainSigExplainsOnesOwnSignature(t *testing.T) {
	t.Parallel()
	for sig, want := range map[string]string{
		"ai1eD5CA16n5pWBx9abjZguMR5Y=":   "", // the right one
		"fCHJ5ILfa2iQEbzyx0iDTBDlXPQ=":   "key-without-ampersand",
		"DTWAM/8ZPlZljhV+1lijUAsxV4U=":   "sig-signed",
		"ai1eD5CA16n5pWBx9abjZguMR5Y%3D": "sig-not-decoded",
	} {
		code, stdout, stderr := runWith(t, "", nil, "explain", "-json", "-key", documentedKey, "-sig", sig, "/pay/mt.php?"+documentedQuery)
		require.Empty(t, stderr)
		var got explanation
		require.NoError(t, json.Unmarshal([]byte(stdout), &got))
		if want == "" {
			require.Equal(t, exitOK, code)
			require.True(t, got.Verified)
			continue
		}
		require.Equal(t, exitFailed, code)
		require.Len(t, got.Mistakes, 1, sig)
		require.Equal(t, want, got.Mistakes[0].Name)
	}
}

func TestExplainSaysSoWhenNothingFits(t *testing.T) {
	t.Parallel()
	code, stdout, _ := runWith(t, "", nil, "explain", "-key", "another-key", "/pay/mt.php?"+documentedQuery)
	require.Equal(t, exitFailed, code)
	require.Regexp(t, `none of the \d+ mistakes tried makes it,\nnor any two of them together`, stdout)
	require.NotContains(t, stdout, "another-key")
}

func TestExplainRefusesWhatTheLibraryRefuses(t *testing.T) {
	t.Parallel()
	for query, want := range map[string]string{
		documentedQuery + "&amt=1":                                      "parameter amt: comes twice",
		documentedQuery + "&amt%3D1%26appid=145":                        "parameter query: a name holds",
		strings.ReplaceAll(documentedQuery, "&sig=", "&nosig="):         "parameter sig: missing",
		strings.ReplaceAll(documentedQuery, "version=v3", "version=v5"): "parameter version: v5",
	} {
		code, stdout, _ := runWith(t, "", nil, "explain", "-key", documentedKey, "/pay/mt.php?"+query)
		require.Equal(t, exitFailed, code)
		require.Contains(t, stdout, "REFUSED: "+want)
	}
}

func TestExplainMasksThePlayersCredentials(t *testing.T) {
	t.Parallel()
	const query = "openid=o&openkey=OPENKEY-1&pfkey=PFKEY-1&pay_token=PAYTOKEN-1&goodsmeta=a*b&sig=x"
	_, stdout, _ := runWith(t, "", nil, "explain", "-key", "key", query)
	for _, secret := range []string{"OPENKEY-1", "PFKEY-1", "PAYTOKEN-1"} {
		require.NotContains(t, stdout, secret)
	}
	require.Contains(t, stdout, "[masked]")
	_, stdout, _ = runWith(t, "", nil, "explain", "-secrets", "-key", "key", query)
	for _, secret := range []string{"OPENKEY-1", "PFKEY-1", "PAYTOKEN-1"} {
		require.Contains(t, stdout, secret)
	}
	_, stdout, _ = runWith(t, "", nil, "explain", "-key", "key", strings.ReplaceAll(query, "OPENKEY-1", "[masked]"))
	require.Contains(t, stdout, `parameter "openkey": is masked in this text`)
}

func TestExplainIsSafeForATerminal(t *testing.T) {
	t.Parallel()
	_, stdout, _ := runWith(t, "", nil, "explain", "-key", "key", "-path", "/p", "billno=%1b%5d0;owned%07&na%1bme=1&sig=%9b%00")
	for _, b := range []byte(stdout) {
		require.True(t, b == '\n' || b >= ' ' && b != 0x7f, "byte %#x", b)
	}
}

func TestWrongUsage(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"no command":                 {nil, "Usage: midas COMMAND"},
		"another command":            {[]string{"pay"}, `there is no command "pay"`},
		"another flag":               {[]string{"explain", "-kee", "x"}, "flag provided but not defined: -kee"},
		"explain without input":      {[]string{"explain", "-key", "k"}, "want one URL or query"},
		"explain without a key":      {[]string{"explain", "a=b"}, "give -key KEY or -key-file FILE, or set MIDAS_APP_KEY"},
		"explain with a key with &":  {[]string{"explain", "-key", "k&", "a=b"}, `-key: ends in "&"`},
		"explain without a path":     {[]string{"explain", "-key", "k", "billno=1&sig=x"}, "-path: a callback is signed for"},
		"explain with an odd path":   {[]string{"explain", "-key", "k", "-path", "pay", "billno=1&sig=x"}, `-path "pay": does not begin with "/"`},
		"explain with no query":      {[]string{"explain", "-key", "k", "hello"}, "no URL with a query"},
		"explain with several lines": {[]string{"explain", "-key", "k", "a=b\nc=d"}, "several lines"},
		"explain with a lost file":   {[]string{"explain", "-key-file", "/does/not/exist", "a=b"}, "-key-file: "},
		"sign without parameters":    {[]string{"sign", "-key", "k"}, "give NAME=VALUE"},
		"sign with half a parameter": {[]string{"sign", "-key", "k", "openid"}, `"openid" is not NAME=VALUE`},
		"sign with one twice":        {[]string{"sign", "-key", "k", "a=1", "a=2"}, `parameter "a": given twice`},
		"sign -callback, no path":    {[]string{"sign", "-key", "k", "-callback", "a=1"}, "-path: "},
		"callback without a token":   {[]string{"callback", "-key", "k"}, "-token: missing"},
		"callback with an odd path":  {[]string{"callback", "-key", "k", "-token", "t", "-url", "http://127.0.0.1/p", "-path", "p"}, `-path: does not begin with "/"`},
		"callback without a URL":     {[]string{"callback", "-key", "k", "-token", "t"}, "-url: missing"},
		"callback with an odd item":  {[]string{"callback", "-key", "k", "-token", "t", "-url", "http://127.0.0.1/p", "-payitem", "x"}, "-payitem: item 1: want id*price*num"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, stdout, stderr := runWith(t, "", nil, c.args...)
			require.Equal(t, exitUsage, code)
			require.Empty(t, stdout)
			require.Contains(t, stderr, c.want)
		})
	}
}

func TestBadInputIsNoWrongUsage(t *testing.T) {
	t.Parallel()
	code, stdout, stderr := runWith(t, "hello\n", nil, "explain", "-key", "k", "-")
	require.Equal(t, exitFailed, code)
	require.Empty(t, stdout)
	require.Contains(t, stderr, "no URL with a query")
}

func TestHelpGoesToStandardOutput(t *testing.T) {
	t.Parallel()
	for _, command := range []string{"", "sandbox", "explain", "sign", "callback"} {
		args := append(strings.Fields(command), "-h")
		code, stdout, stderr := runWith(t, "", nil, args...)
		require.Equal(t, exitOK, code)
		require.Empty(t, stderr)
		require.Contains(t, stdout, "Usage: midas "+command)
	}
}

func FuzzExplain(f *testing.F) {
	f.Add("/pay/mt.php?" + documentedQuery)
	f.Add(`1.2.3.4 "POST /a?openkey=%zz&;sig=\x2A HTTP/1.1"`)
	f.Fuzz(func(t *testing.T, text string) {
		m, err := parseMessage(text)
		if err != nil {
			return
		}
		right := newRecipe(m, "/pay/mt.php", "k")
		base := right.base()
		for _, mistake := range mistakesFor(m, right, []string{"other"}) {
			wrong := right
			mistake.apply(&wrong)
			wrong.sign()
			require.Equal(t, base, right.base(), "%s changes the right recipe", mistake.Name)
		}
	})
}
