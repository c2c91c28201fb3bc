package main

import (
	"encoding/json"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/cmd/midas/internal/explain"
	"github.com/stretchr/testify/require"
)

// runWith runs a command and returns its exit code and what it printed.
func runWith(t *testing.T, stdin string, env map[string]string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err strings.Builder
	code = run(t.Context(), args, &terminal{in: strings.NewReader(stdin), out: &out, err: &err, env: func(name string) string { return env[name] }})
	return code, out.String(), err.String()
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
		var got explain.Explanation
		require.NoError(t, json.Unmarshal([]byte(stdout), &got))
		if want == "" {
			require.Equal(t, exitOK, code)
			require.True(t, got.Verified)
			continue
		}
		require.Equal(t, exitFailed, code)
		require.Len(t, got.Signatures[0].Findings[0], 1, sig)
		require.Equal(t, want, got.Signatures[0].Findings[0][0].Name)
	}
}

// The documented callback, to which a gateway added parameters.
func TestWhatWasAddedOnTheWayIsToBeTakenOut(t *testing.T) {
	t.Parallel()
	for added, want := range map[string]string{
		"trace=1":                       `take it out before verifying`,
		"s=/pay/notify":                 `take it out before verifying`,
		"u8ChannelID=7&trace=1":         `take them out before verifying`,
		"u8ChannelID=7&s=/pay&trace=1":  `take them out before verifying`,
		"format=json":                   `take it out before verifying`, // of requests, not of callbacks
		"a=1&b=2&c=3&d=4&channelName=x": `take them out before verifying`,
	} {
		code, stdout, _ := runWith(t, "", nil, "explain", "-key", documentedKey, "/pay/mt.php?"+added+"&"+documentedQuery)
		require.Equal(t, exitFailed, code)
		before, after, other := strings.Cut(stdout, "\nOr, which produces the same signature of this message:\n")
		require.True(t, other, stdout)
		require.Contains(t, before, "added-on-the-way: ")
		require.Contains(t, before, "To change: "+want+".\n  It is this if Midas sent this callback: it signs all that it sends.")
		require.Regexp(t, `(left-out|fixed-names): `, after)
		require.Contains(t, after, "To change: sign every parameter")
		require.Contains(t, after, "It is this if your own code")
		for pair := range strings.SplitSeq(added, "&") {
			name, _, _ := strings.Cut(pair, "=")
			require.Contains(t, before, `"`+name+`"`)
		}
	}

	// A decoy comes from Midas, and one's own signature of a genuine callback lacks what one left out.
	for sig, query := range map[string]string{"": "ebazinga=1&" + documentedQuery, "8lnki5OP51iIA3WGy9/59dgqB2U=": documentedQuery} {
		_, stdout, _ := runWith(t, "", nil, "explain", "-key", documentedKey, "-sig", sig, "/pay/mt.php?"+query)
		require.Contains(t, stdout, "left-out: ")
		require.NotContains(t, stdout, "added-on-the-way")
	}
}

func TestWhatWasAddedIsNamedAlsoWhereTheLibraryRefusesIt(t *testing.T) {
	t.Parallel()
	for query, want := range map[string]string{
		"/pay/notify&" + documentedQuery:              `without "/pay/notify=" the signature is right`,
		"appid=7&" + documentedQuery:                  `without "appid=7" the signature is right`,
		documentedQuery + "&zoneid=2":                 `without "zoneid=2" the signature is right`,
		documentedQuery + "&a[]=1&a[]=2":              `without "a[]=1", "a[]=2" the signature is right`,
		"amt%3D1%26appid=145&" + documentedQuery[10:]: "",
	} {
		code, stdout, _ := runWith(t, "", nil, "explain", "-key", documentedKey, "/pay/mt.php?"+query)
		require.Equal(t, exitFailed, code)
		require.Contains(t, stdout, "REFUSED: ")
		if want == "" {
			require.NotContains(t, stdout, "the signature is right")
			continue
		}
		require.Contains(t, stdout, "Note: "+want+": that was added on the way; take it out before verifying.")
	}
}

// Of a genuine callback the path given is right, and a signature of one's own is for another.
func TestThePathIsWrongWhereTheSignatureIsOnesOwn(t *testing.T) {
	t.Parallel()
	sig := midas.SignCallback("GET", "/pay/mt.php/", documentedParams(t), documentedKey)
	const doubt = "if Midas itself sent this callback"
	_, stdout, _ := runWith(t, "", nil, "explain", "-key", documentedKey, "-sig", sig, "/pay/mt.php?"+documentedQuery)
	require.Contains(t, stdout, "trailing-slash: ")
	require.NotContains(t, stdout, doubt)
	_, stdout, _ = runWith(t, "", nil, "explain", "-key", documentedKey, "-path", "/pay/mt.php/", "/pay/mt.php?"+documentedQuery)
	require.Contains(t, stdout, "trailing-slash: ")
	require.Contains(t, stdout, doubt)
}

func documentedParams(t *testing.T) url.Values {
	params, err := url.ParseQuery(documentedQuery)
	require.NoError(t, err)
	return params
}

func TestExplainSaysWhichOfSeveralSignaturesIsWrong(t *testing.T) {
	t.Parallel()
	_, stdout, _ := runWith(t, "", nil, "explain", "-key", documentedKey, "-sig", "AAAA", "/pay/mt.php?trace=1&"+documentedQuery)
	require.Contains(t, stdout, "Note: the sig in the message itself does not match the parameters either: explain it without -sig first.")
}

func TestExplainSpeaksChinese(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"-lang", "zh"}, nil} {
		args = append([]string{"explain"}, args...)
		args = append(args, "-key", documentedKey)
		env := map[string]string{"LANG": "zh_CN.UTF-8"}
		code, stdout, _ := runWith(t, "", env, append(args, "/pay/mt.php?"+documentedQuery)...)
		require.Equal(t, exitOK, code)
		require.Contains(t, stdout, "通过：签名正确。")
		require.Contains(t, stdout, "实付 32 Q点（3.20 元）")
		_, stdout, _ = runWith(t, "", env, append(args, "/pay/mt.php?trace=1&"+documentedQuery)...)
		require.Contains(t, stdout, "签名错误（sig error）：收到的 sig 是按下面这种错误做法算出来的：")
		require.Contains(t, stdout, `added-on-the-way：参数 trace 是中途被加上的（网关、框架或渠道 SDK）。`)
		require.Contains(t, stdout, "改法：验签之前把它去掉。")
		require.Contains(t, stdout, "判断依据：这个回调确是米大师发来的，它发出的参数全都签名。")
		require.Contains(t, stdout, "下面这种错误也会得到同一个签名：")
		_, stdout, _ = runWith(t, "", env, append(args, "/other?"+strings.Replace(documentedQuery, "amt=320", "amt=321", 1))...)
		require.Regexp(t, `\d+ 种已知错误及其两两组合都对不上`, stdout)
		_, stdout, _ = runWith(t, "", env, append(args, "/pay/mt.php?"+documentedQuery+"&amt=1")...)
		require.Contains(t, stdout, "拒绝：参数 amt：重复出现。")
	}
	_, stdout, _ := runWith(t, "", map[string]string{"LANG": "zh_CN"}, "explain", "-h")
	require.Contains(t, stdout, "用法：midas explain")
}

func TestExplainSaysSoWhenNothingFits(t *testing.T) {
	t.Parallel()
	code, stdout, _ := runWith(t, "", nil, "explain", "-key", "another-key", "/pay/mt.php?"+documentedQuery)
	require.Equal(t, exitFailed, code)
	require.Regexp(t, `none of the \d+ mistakes tried produces it, nor any two of them together`, stdout)
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
	for _, query := range []string{ // as a value, twice, and in a name
		"openid=o&billno=1&access_token=SECRET-1&amt=1&amt=2&sig=x", "openid=o&billno=1&access_token=SECRET-1&access_token=SECRET-1&sig=x", "openid=o&billno=1&openkey%3DSECRET-1=&sig=x",
		`{"openid":"o","billno":"1","openkey":"SECRET-1","sig":"x"}`,
	} {
		for _, format := range []string{"-json", "-json=false"} {
			_, stdout, _ = runWith(t, "", nil, "explain", format, "-key", "key", "-path", "/p", query)
			require.NotContains(t, stdout, "SECRET-1", query)
			require.Contains(t, stdout, "[masked]", query)
		}
	}
	_, stdout, _ = runWith(t, "", nil, "explain", "-key", "key", strings.ReplaceAll(query, "OPENKEY-1", "[masked]"))
	require.Contains(t, stdout, `parameter "openkey": is masked in this text`)
}

// Texts that are signed are shown as they are, except for what is secret in them.
func TestExplainMasksSecretsInOrdersCallsAndPushes(t *testing.T) {
	t.Parallel()
	const session, appKey, token, inURL = "4f2a9c+8/77Q1dVbZ0pQeA==", "theAppKeyIsLongEnough", "thePushTokenIsToo", "https://api.weixin.qq.com/xpay/query_order?access_token=T&pay_sig=00"
	give := []string{"-key", appKey, "-session-key", session, "-token", token}
	order := func(data string) string {
		text, err := json.Marshal(map[string]string{"signData": data, "paySig": "00", "signature": "00"})
		require.NoError(t, err)
		return string(text)
	}
	for name, c := range map[string]struct {
		text, body string
		secrets    []string
		kept       string
	}{
		"a form":                      {inURL, "openid=o_KEPT&session_key=SECRET-1&openkey=SECRET-2", []string{"SECRET-1", "SECRET-2"}, "openid=o_KEPT&"},
		"JSON":                        {inURL, `{"openid":"o_KEPT","session_key":"SECRET-1","openkey" : "SECRET \" 2"}`, []string{"SECRET"}, `"openid":"o_KEPT",`},
		"a number":                    {inURL, `{"openkey":123456789,"env":0}`, []string{"123456789"}, `"env":0`},
		"a list":                      {inURL, `{"env":0,"openkey":["SECRET-1"]}`, []string{"SECRET-1"}, `"env":0`},
		"an object":                   {inURL, `{"env":0,"session_key":{"value":"SECRET-1"}}`, []string{"SECRET-1"}, `"env":0`},
		"JSON in JSON":                {inURL, `{"openid":"o_KEPT","attach":"{\"session_key\":\"SECRET-1\"}"}`, []string{"SECRET-1"}, `"openid":"o_KEPT",`},
		"a slash as PHP writes it":    {inURL, `{"openid":"o_KEPT","any":"` + strings.ReplaceAll(session, "/", `\/`) + `"}`, []string{"4f2a9c", "77Q1dV"}, "o_KEPT"},
		"as PHP prints it":            {inURL, "[env] => KEPT [openkey] => SECRET-1", []string{"SECRET-1"}, "KEPT"},
		"XML":                         {"/push?signature=00&timestamp=1&nonce=2", "<xml><Event>e</Event><MiniGame><Payload>openkey=SECRET-1&amp;env=KEPT</Payload><PayEventSig>0</PayEventSig></MiniGame></xml>", []string{"SECRET-1"}, "KEPT"},
		"XML in a payload":            {"/push?signature=00&timestamp=1&nonce=2", `{"Event":"KEPT","MiniGame":{"Payload":"<session_key><![CDATA[SECRET-1]]></session_key>","PayEventSig":"0"}}`, []string{"SECRET-1"}, "KEPT"},
		"an order":                    {order(`{"mode":"goods","attach":"KEPT","openkey":"SECRET-1"}`), "", []string{"SECRET-1"}, "KEPT"},
		"an order's note":             {order(`{"mode":"goods","attach":"KEPT","outTradeNo":"` + session + `"}`), "", nil, "KEPT"},
		"a session_key that is given": {inURL, `{"openid":"o_KEPT","any":"` + session + `"}`, nil, "o_KEPT"},
		"the same, encoded":           {inURL, "openid=o_KEPT&any=" + url.QueryEscape(session), []string{"4f2a9c"}, "o_KEPT"},
		"in hexadecimal of .NET":      {inURL, "openid=o_KEPT&any=" + strings.ToLower(url.QueryEscape("+8/77Q1")) + "&any=4f2a9c%2b8%2f77Q1dVbZ0pQeA%3d%3d", []string{"4f2a9c", "Q1dVbZ0"}, "o_KEPT"},
		"in JSON of .NET":             {inURL, `{"openid":"o_KEPT","any":"4f2a9c\u002B8/77Q1dVbZ0pQeA=="}`, []string{"4f2a9c", "Q1dVbZ0"}, "o_KEPT"},
		"encoded twice":               {inURL, "openid=o_KEPT&any=" + url.QueryEscape(url.QueryEscape(session)), []string{"4f2a9c", "Q1dVbZ0"}, "o_KEPT"},
		"an AppKey that is given":     {inURL, `{"openid":"o_KEPT","any":"` + appKey + `"}`, []string{appKey}, "o_KEPT"},
		"a Token that is given":       {inURL, `{"openid":"o_KEPT","any":"` + token + `"}`, []string{token}, "o_KEPT"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, format := range []string{"-json", "-json=false"} {
				args := append([]string{"explain", format, "-body", c.body}, give...)
				_, stdout, stderr := runWith(t, "", nil, append(args, c.text)...)
				require.Empty(t, stderr)
				for _, secret := range append(c.secrets, session) {
					require.NotContains(t, stdout, secret)
				}
				require.Contains(t, stdout, "[masked]")
				require.Contains(t, strings.ReplaceAll(stdout, `\"`, `"`), c.kept)
			}
			_, stdout, _ := runWith(t, "", nil, append(append([]string{"explain", "-secrets", "-body", c.body}, give...), c.text)...)
			require.NotContains(t, stdout, session) // keys are not shown even then
			for _, secret := range c.secrets {
				if strings.HasPrefix(secret, "SECRET") {
					require.Contains(t, stdout, secret)
				}
			}
		})
	}
}

func TestExplainIsSafeForATerminal(t *testing.T) {
	t.Parallel()
	_, stdout, _ := runWith(t, "", nil, "explain", "-key", "key", "-path", "/p", "billno=%1b%5d0;owned%07&na%1bme=1&sig=%9b%00")
	for _, b := range []byte(stdout) {
		require.True(t, b == '\n' || b >= ' ' && b != 0x7f, "byte %#x", b)
	}
}

// wrongUsages are command lines that are refused, and what is said of them.
var wrongUsages = map[string]struct {
	args []string
	want string
}{
	"no command":                 {nil, "Usage: midas COMMAND"},
	"another command":            {[]string{"pay"}, `there is no command "pay"`},
	"another flag":               {[]string{"explain", "-kee", "x"}, "flag provided but not defined: -kee"},
	"explain without input":      {[]string{"explain", "-key", "k"}, "want one message, quoted"},
	"explain without a key":      {[]string{"explain", "a=b"}, "give -key KEY or -key-file FILE, or set MIDAS_APP_KEY"},
	"explain with a key with &":  {[]string{"explain", "-key", "k&", "a=b"}, `-key: ends in "&"`},
	"explain without a path":     {[]string{"explain", "-key", "k", "billno=1&sig=x"}, "-path: a callback is signed for"},
	"explain with an odd path":   {[]string{"explain", "-key", "k", "-path", "pay", "billno=1&sig=x"}, `-path "pay": does not begin with "/"`},
	"explain with a lost file":   {[]string{"explain", "-key-file", "/does/not/exist", "a=b"}, "-key-file: "},
	"sign without parameters":    {[]string{"sign", "-key", "k"}, "give NAME=VALUE"},
	"sign with half a parameter": {[]string{"sign", "-key", "k", "openid"}, `"openid" is not NAME=VALUE`},
	"sign with one twice":        {[]string{"sign", "-key", "k", "a=1", "a=2"}, `parameter "a": given twice`},
	"sign -callback, no path":    {[]string{"sign", "-key", "k", "-callback", "a=1"}, "-path: "},
	"callback without a token":   {[]string{"callback", "-key", "k"}, "-token: missing"},
	"callback with an odd path":  {[]string{"callback", "-key", "k", "-token", "t", "-url", "http://127.0.0.1/p", "-path", "p"}, `-path: does not begin with "/"`},
	"callback without a URL":     {[]string{"callback", "-key", "k", "-token", "t"}, "-url: missing"},
	"callback with an odd item":  {[]string{"callback", "-key", "k", "-token", "t", "-url", "http://127.0.0.1/p", "-payitem", "x"}, "payitem: item 1: want id*price*num"},
	"an odd language":            {[]string{"explain", "-lang", "fr", "a=b"}, "want en or zh"},
	"a flag without its value":   {[]string{"sign", "-key"}, "flag needs an argument: -key"},
	"a number that is none":      {[]string{"replay", "-rate", "x", "f"}, `invalid value "x" for flag -rate: parse error`},
	"sandbox without its key":    {[]string{"sandbox", "-app-id", "1450000000"}, "no pay key"},
	"sandbox without its id":     {[]string{"sandbox", "-app-key", "k"}, "-app-id: missing"},
	"sandbox with an argument":   {[]string{"sandbox", "x"}, "all settings are flags"},
	"sandbox with an odd URL":    {[]string{"sandbox", "-callback", "ftp://x"}, "is not of the form http://host/path"},
	"explain for the order path": {[]string{"explain", "-key", "k", "-path", "/v3/r/mpay/buy_goods_m", "billno=1&sig=x"}, "is the path of orders: callbacks are signed for"},
	"a URL for a path":           {[]string{"explain", "-key", "k", "-path", "http://x/p", "billno=1&sig=x"}, "is a URL: give its path alone"},
	"a path with a query":        {[]string{"explain", "-key", "k", "-path", "/p?a", "billno=1&sig=x"}, "holds a query or a fragment: leave it out"},
	"a path that is escaped":     {[]string{"explain", "-key", "k", "-path", "/道", "billno=1&sig=x"}, "holds a character that is escaped in a URL"},
	"an id with a blank":         {[]string{"sandbox", "-app-id", "1 2", "-app-key", "k"}, "-app-id: holds whitespace"},
	"a key with a blank":         {[]string{"sign", "-key", "k ", "a=1"}, "-key: holds whitespace"},
	"replay to another machine":  {[]string{"replay", "-url", "http://203.0.113.9/p", "f"}, "not on this machine"},
	"replay without a file":      {[]string{"replay", "-url", "http://127.0.0.1/p"}, "want one file after the flags"},
	"replay from an odd time":    {[]string{"replay", "-url", "http://127.0.0.1/p", "-since", "soon", "f"}, `"soon" is neither a time`},
}

func TestWrongUsage(t *testing.T) {
	t.Parallel()
	for name, c := range wrongUsages {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, stdout, stderr := runWith(t, "", nil, c.args...)
			require.Equal(t, exitUsage, code)
			require.Empty(t, stdout)
			require.Contains(t, stderr, c.want)
			if c.args == nil {
				return
			}
			// The same in Chinese: what is left of English are names and code.
			chinese := map[string]string{"LANG": "zh_CN.UTF-8"}
			_, _, stderr = runWith(t, "", chinese, c.args...)
			require.Regexp(t, `\p{Han}`, stderr)
			require.NotRegexp(t, `[a-z]{3,} [a-z]+ [a-z]+`, regexp.MustCompile(`midas \w+ -h`).ReplaceAllString(stderr, ""))
			require.Contains(t, stderr, "用法见 midas")
		})
	}
}

func TestBadInputIsNoWrongUsage(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"hello":     "this is neither a URL with a query nor a query",
		"a=b\nc=d":  "several lines",
		"hello you": "no URL with a query and a sig in this line",
		`{"a":"b"}`: "this JSON holds none of what can be explained",
		`203.0.113.9 - - [29/Nov/2026:03:40:00 +0000] "GET /pay/notify HTTP/1.1" 200 20`:     "the log left out the query of /pay/notify",
		`[GIN] 2026/11/29 - 10:00:00 | 200 |  1.2ms |  203.0.113.9 | GET      "/pay/notify"`: "the log left out the query of /pay/notify",
		`{"time":"2026","level":"INFO","msg":"GET /pay/notify","status":200}`:                "this JSON holds none of what can be explained",
		"https://api.weixin.qq.com/cgi-bin/midas/pay?access_token=x":                         "this is a call of virtual payment 1.0",
		"https://api.weixin.qq.com/wxa/msg_sec_check?access_token=x":                         "nothing is signed with the AppKey",
		"https://api.mch.weixin.qq.com/v3/pay/transactions/jsapi?a=b":                        "this is a call of WeChat Pay",
		"POST https://api.q.qq.com/api/json/openApiPay/GamePrePay?access_token=x":            "QQ's mini games",
	} {
		for _, fromInput := range []bool{false, true} {
			args, stdin := []string{"explain", "-key", "k", text}, ""
			if fromInput {
				args[3], stdin = "-", text+"\n"
			}
			code, stdout, stderr := runWith(t, stdin, nil, args...)
			require.Equal(t, exitFailed, code, text)
			require.Empty(t, stdout)
			require.Contains(t, stderr, want)
		}
	}
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
