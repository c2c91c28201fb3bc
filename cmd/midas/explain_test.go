package main

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"

	"github.com/midas-go/midas"
	"github.com/stretchr/testify/assert"
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

// How well explain names the mistakes of all cases: run it with -v for the figures.
func TestExplainNamesEachMistake(t *testing.T) {
	t.Parallel()
	var tally tally
	t.Cleanup(func() { t.Log(&tally) })
	data, err := os.ReadFile("testdata/mistakes.json")
	require.NoError(t, err)
	var cases []mistakeCase
	require.NoError(t, json.Unmarshal(data, &cases))
	require.NotEmpty(t, cases)
	for i, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			if len(c.Want) != 1 || i%10 > 0 {
				skipUnderRaceDetector(t)
			}
			args := []string{"explain", "-json", "-path", c.Path}
			for _, key := range c.Keys {
				args = append(args, "-key", key)
			}
			code, stdout, stderr := runWith(t, "", nil, append(args, c.Input)...)
			require.Empty(t, stderr)
			for _, key := range c.Keys {
				require.NotContains(t, stdout, key)
			}
			var got explanation
			require.NoError(t, json.Unmarshal([]byte(stdout), &got))
			require.Empty(t, got.Problem)
			tally.judge(t, &got, c.Want)
			if c.Want != nil && len(c.Want) == 0 {
				require.True(t, got.Verified)
				require.Equal(t, exitOK, code)
				return
			}
			require.False(t, got.Verified)
			require.Equal(t, exitFailed, code)
			require.ElementsMatch(t, c.Want, namesOf(got.Mistakes), "alternatives: %v", got.Alternatives)
			for _, m := range got.Mistakes {
				require.NotEmpty(t, m.What)
				require.NotEmpty(t, m.Cure)
			}
		})
	}
	for i, c := range encoderCases(t) {
		t.Run(c.String(), func(t *testing.T) {
			t.Parallel()
			if i%10 > 0 {
				skipUnderRaceDetector(t)
			}
			m, err := parseMessage(c.Input)
			require.NoError(t, err)
			e := &explanation{lang: "en"}
			require.NoError(t, e.explain(m, c.Path, []string{documentedKey}, "", true))
			if c.BaseString == e.BaseString { // for this message the encoder is right
				require.True(t, e.Verified)
				tally.judge(t, e, nil)
				return
			}
			tally.judge(t, e, []string{c.Want})
			// In a callback the whole string holds few characters that encoders disagree about: the
			// values are encoded by then. Elsewhere a value with every character tells them apart.
			if c.Telling && (c.Kind == "request" || c.Place != "whole") {
				require.Equal(t, []string{c.Want}, namesOf(e.Mistakes))
				require.Empty(t, e.Alternatives)
				require.Contains(t, e.Mistakes[0].What, strings.TrimSuffix(c.Function, ".stringify"))
			}
		})
	}
}

// A search makes hundreds or thousands of signatures, in one goroutine: the race detector makes
// it thirty times slower and has nothing to find. Some cases are enough for it.
func skipUnderRaceDetector(t *testing.T) {
	info, ok := debug.ReadBuildInfo()
	if ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		t.Skip("a long search in one goroutine")
	}
}

// A tally counts how cases were judged.
type tally struct {
	mu                                         sync.Mutex
	cases, right, among, wrong, missed, signed int
}

func (c *tally) String() string {
	return fmt.Sprintf("%d cases: %d named right, %d named among others that make the same signature, %d named wrong, %d not named (nothing known fits them), %d right signatures",
		c.cases, c.right, c.among, c.wrong, c.missed, c.signed)
}

// judge compares what explain says with the mistakes that were made.
func (c *tally) judge(t *testing.T, e *explanation, want []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := append([]finding{e.Mistakes}, e.Alternatives...)
	is := func(f finding) bool {
		return slices.Equal(slices.Sorted(slices.Values(namesOf(f))), slices.Sorted(slices.Values(want)))
	}
	c.cases++
	switch {
	case e.Verified:
		c.signed++
		assert.Empty(t, e.Mistakes)
	case e.Mistakes == nil:
		c.missed++
		assert.Empty(t, want, "not named")
	case is(e.Mistakes):
		c.right++
	case slices.ContainsFunc(all, is):
		c.among++
	default:
		c.wrong++
		t.Errorf("named wrong: want %v, got %v", want, all)
	}
	assertTold(t, all)
}

// assertTold asserts that explanations which differ in what to change say when they hold.
func assertTold(t *testing.T, all []finding) {
	t.Helper()
	for _, f := range all {
		for _, m := range f {
			cures := func(other mistake) bool { return other.Cure == m.Cure }
			if slices.ContainsFunc(all, func(f finding) bool { return !slices.ContainsFunc(f, cures) }) {
				assert.NotEmpty(t, m.If, "%s, of %v", m.Name, all)
			}
		}
	}
}

// An encoderCase is a message of testdata/encoders.json, encoded by the language it names.
type encoderCase struct {
	Language, Function, Kind, Place, Path, Input, Want string
	Telling                                            bool
	BaseString                                         string `json:"base_string"`
}

func (c encoderCase) String() string {
	return c.Language + " " + c.Function + ", " + c.Kind + ", " + c.Place
}

func encoderCases(t *testing.T) []encoderCase {
	data, err := os.ReadFile("testdata/encoders.json")
	require.NoError(t, err)
	var file struct{ Cases []encoderCase }
	require.NoError(t, json.Unmarshal(data, &file))
	require.NotEmpty(t, file.Cases)
	return file.Cases
}

func namesOf(f finding) (names []string) {
	for _, m := range f {
		names = append(names, m.Name)
	}
	return names
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
	encoders, err := os.ReadFile("testdata/encoders.json")
	require.NoError(t, err)
	cases = append(cases, encoders...)
	known := map[string]bool{}
	for _, query := range []string{"billno=1&sig=x", "openkey=1&sig=x"} {
		m, err := parseMessage("http://203.0.113.9/pay/notify?" + query)
		require.NoError(t, err)
		for _, method := range []string{"GET", "POST"} {
			m.method = method
			search := newSearch("en", m, newRecipe(m, "/api/pay/notify", "k"), []string{"other"}, true)
			for _, mistake := range slices.Concat(search.mistakes, search.written) {
				known[mistake.Name] = true
			}
		}
	}
	for _, name := range []string{"msdk-path", "added-on-the-way", "url-encoded-twice", "path-in-other-case"} { // of other messages
		known[name] = true
	}
	require.Greater(t, len(known), 70)
	for _, page := range []string{"../../docs/sandbox.md", "../../docs/sandbox.zh-CN.md"} {
		text, err := os.ReadFile(page)
		require.NoError(t, err)
		for name := range known {
			if !strings.Contains(string(text), "`"+name+"`") {
				t.Errorf("%s does not name %s", page, name)
			}
		}
	}
	for name := range known {
		if name != "sig-signed" { // no message can hold it: see TestExplainSigExplainsOnesOwnSignature
			if !strings.Contains(string(cases), `"`+name+`"`) {
				t.Errorf("no case makes %s", name)
			}
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
		before, after, other := strings.Cut(stdout, "\nOr, which makes the same signature of this message:\n")
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

func TestALongMessageIsGivenUp(t *testing.T) {
	t.Parallel()
	skipUnderRaceDetector(t)
	long := "/pay/notify?billno=1&appmeta=" + strings.Repeat("a", maxMessage-100) + "&sig=AAAA"
	_, stdout, _ := runWith(t, "", nil, "explain", "-key", "k", long)
	require.Contains(t, stdout, "The message is too long to try every\ncombination")
	_, stdout, _ = runWith(t, "", nil, "explain", "-lang", "zh", "-key", "k", long)
	require.Contains(t, stdout, "消息太长")

	// What is made with one mistake is found all the same.
	m, err := parseMessage(long)
	require.NoError(t, err)
	right := newRecipe(m, "/pay/notify", "k")
	for _, name := range []string{"key-without-ampersand", "order-path", "nothing-encoded", "hmac-sha256", "trailing-ampersand"} {
		s := newSearch("en", m, right, nil, false)
		i := slices.IndexFunc(s.mistakes, func(m mistake) bool { return m.Name == name })
		wrong := right
		s.mistakes[i].apply(&wrong)
		wanted := right
		wanted.sig = wrong.sign()
		found := s.find(wanted)
		require.NotEmpty(t, found, name)
		require.Equal(t, []string{name}, namesOf(found[0]))
	}
}

func TestExplainSaysWhichOfSeveralSignaturesIsWrong(t *testing.T) {
	t.Parallel()
	_, stdout, _ := runWith(t, "", nil, "explain", "-key", documentedKey, "-sig", "AAAA", "/pay/mt.php?trace=1&"+documentedQuery)
	require.Contains(t, stdout, "Note: the sig in the message itself is another one than the parameters want, too: explain it without -sig first.")
}

func TestExplainSpeaksChinese(t *testing.T) {
	t.Parallel()
	chinese := func(s string) bool {
		return strings.ContainsFunc(s, func(r rune) bool { return unicode.Is(unicode.Han, r) })
	}
	for _, args := range [][]string{{"-lang", "zh"}, nil} {
		args = append([]string{"explain"}, args...)
		args = append(args, "-key", documentedKey)
		env := map[string]string{"LANG": "zh_CN.UTF-8"}
		code, stdout, _ := runWith(t, "", env, append(args, "/pay/mt.php?"+documentedQuery)...)
		require.Equal(t, exitOK, code)
		require.Contains(t, stdout, "通过：签名正确。")
		require.Contains(t, stdout, "实付 32 Q 点（3.20 元）")
		_, stdout, _ = runWith(t, "", env, append(args, "/pay/mt.php?trace=1&"+documentedQuery)...)
		require.Contains(t, stdout, "签名不对：收到的是另一个签名，它是这样算出来的：")
		require.Contains(t, stdout, `added-on-the-way：参数 "trace" 是半路加上的（网关、框架或渠道 SDK）。`)
		require.Contains(t, stdout, "改法：验签之前把它去掉。")
		require.Contains(t, stdout, "如果这个回调确是米大师发来的：它发出的参数全都签名，就是这一种。")
		require.Contains(t, stdout, "也可能是下面这种，对这条消息算出的签名相同：")
		_, stdout, _ = runWith(t, "", env, append(args, "/other?"+strings.Replace(documentedQuery, "amt=320", "amt=321", 1))...)
		require.Regexp(t, `试过的 \d+ 种错误及其两两组合都算不出它`, stdout)
		_, stdout, _ = runWith(t, "", env, append(args, "/pay/mt.php?"+documentedQuery+"&amt=1")...)
		require.Contains(t, stdout, "拒绝：参数 amt：重复出现。")
	}
	_, stdout, _ := runWith(t, "", map[string]string{"LANG": "zh_CN"}, "explain", "-h")
	require.Contains(t, stdout, "用法：midas explain")

	for _, query := range []string{"billno=1&a=b;c&appmeta=%25&sig=x", "openkey=1&a=+%2525&sig=x"} {
		m, err := parseMessage("http://203.0.113.9/pay/Notify?" + query)
		require.NoError(t, err)
		for _, own := range []bool{false, true} {
			right := newRecipe(m, "/api/pay/notify", "k")
			zh, en := newSearch("zh", m, right, []string{"other"}, own), newSearch("en", m, right, []string{"other"}, own)
			english := slices.Concat(en.mistakes, en.written)
			for i, m := range slices.Concat(zh.mistakes, zh.written) {
				require.Equal(t, english[i].Name, m.Name)
				require.True(t, chinese(m.What), "%s: %s", m.Name, m.What)
				require.True(t, chinese(m.Cure), "%s: %s", m.Name, m.Cure)
				require.Equal(t, english[i].If == "", m.If == "")
				require.True(t, m.If == "" || chinese(m.If), "%s: %s", m.Name, m.If)
				require.False(t, chinese(english[i].What+english[i].Cure+english[i].If), english[i].Name)
			}
		}
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
		for _, mistake := range newSearch("en", m, right, []string{"other"}, true).mistakes {
			wrong := right
			mistake.apply(&wrong)
			wrong.sign()
			require.Equal(t, base, right.base(), "%s changes the right recipe", mistake.Name)
		}
	})
}

// costly returns messages that are long, or whose search is.
func costly() map[string]string {
	long := func(pair string) string { return strings.Repeat(pair, (maxMessage-200)/len(pair)) }
	numbered := func(n int, value string) (query string) {
		for i := range n {
			query += fmt.Sprintf("p%d=%s&", i, value)
		}
		return query
	}
	return map[string]string{
		"an ordinary callback":       documentedQuery,
		"one long value":             "billno=1&appmeta=" + long("a"),
		"a long value to be encoded": "billno=1&appmeta=" + long("~"),
		"a long Chinese value":       "billno=1&appmeta=" + long("道"),
		"an order with a long value": "openkey=1&goodsmeta=" + long("*"),
		"thousands of parameters":    long("a&") + "billno=1",
		"parameters of one byte":     long("a=b&") + "billno=1",
		"64 parameters":              numbered(64, "") + "billno=1",
		"200 long parameters":        numbered(200, strings.Repeat("x", 70)) + "billno=1",
		"an order of 64 parameters":  numbered(64, "道") + "openkey=1",
		"bare plus signs":            "billno=1&appmeta=" + long("+"),
		"stray percent signs":        "billno=1&appmeta=" + long("%"),
		"escapes of escapes":         "billno=1&appmeta=" + long("%2525"),
		"a long path":                "/" + long("a/") + "?billno=1",
	}
}

// Whatever the message, the search makes no more signatures than maxWork allows.
func TestNoInputMakesTheSearchLong(t *testing.T) {
	t.Parallel()
	skipUnderRaceDetector(t)
	for name, text := range costly() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if !strings.Contains(text, "?") {
				text = "/api/v1/pay/Notify?" + text
			}
			m, err := parseMessage(text + "&sig=AAAAAAAAAAAAAAAAAAAAAAAAAAA%3D")
			require.NoError(t, err)
			right := newRecipe(m, m.path, "k")
			s := newSearch("en", m, right, []string{"other"}, false)
			require.Less(t, len(s.mistakes), 700)
			require.Empty(t, s.find(right))
			one := len(right.base()) + workPerParam*len(right.params)
			require.LessOrEqual(t, s.work, maxWork+4*one, "work")
			require.Less(t, s.signings, 60_000)
			t.Logf("%d mistakes, %d signatures, %d MiB of work, gave up: %v", len(s.mistakes), s.signings, s.work>>20, s.gaveUp)
		})
	}
}

// The figure that counts is how many signatures a search takes the time of.
func BenchmarkExplain(b *testing.B) {
	for name, text := range costly() {
		b.Run(name, func(b *testing.B) {
			if !strings.Contains(text, "?") {
				text = "/api/v1/pay/Notify?" + text
			}
			m, err := parseMessage(text + "&sig=AAAAAAAAAAAAAAAAAAAAAAAAAAA%3D")
			require.NoError(b, err)
			right := newRecipe(m, m.path, "k")
			start := time.Now()
			for range 100 {
				right.sign()
			}
			one := time.Since(start) / 100
			for b.Loop() {
				newSearch("en", m, newRecipe(m, m.path, "k"), []string{"other"}, false).find(right)
			}
			b.ReportMetric(float64(b.Elapsed())/float64(b.N)/float64(one), "signings")
		})
	}
}
