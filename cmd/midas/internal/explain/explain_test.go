package explain

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/midas-go/midas/cmd/midas/internal/lang"
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

func readJSON(t testing.TB, name string, v any) {
	t.Helper()
	data, err := os.ReadFile(name)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(data, v))
}

// How well the mistakes of all recorded messages are named: run it with -v for the figures.
func TestExplainNamesEachMistake(t *testing.T) {
	t.Parallel()
	var tally tally
	t.Cleanup(func() { t.Log(&tally) })
	var cases []mistakeCase
	readJSON(t, "testdata/mistakes.json", &cases)
	require.NotEmpty(t, cases)
	for i, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			if len(c.Want) != 1 || i%10 > 0 {
				skipUnderRaceDetector(t)
			}
			e := explained(t, c.Input, "", Options{Keys: c.Keys, Path: c.Path})
			text, err := json.Marshal(e)
			require.NoError(t, err)
			for _, key := range c.Keys {
				require.NotContains(t, string(text), key)
			}
			require.Empty(t, e.Problems)
			got := &e.Signatures[0]
			tally.judge(t, got, c.Want)
			right := c.Want != nil && len(c.Want) == 0
			require.Equal(t, right, e.Verified)
			require.Equal(t, right, got.Verified)
			require.ElementsMatch(t, c.Want, got.names(), "findings: %v", got.Findings)
		})
	}
	for i, c := range encoderCases(t) {
		t.Run(c.String(), func(t *testing.T) {
			t.Parallel()
			if i%10 > 0 {
				skipUnderRaceDetector(t)
			}
			e := explained(t, c.Input, "", Options{Keys: []string{documentedKey}, Path: c.Path})
			got := &e.Signatures[0]
			if c.BaseString == got.Signed { // for this message the encoder is right
				require.True(t, e.Verified)
				tally.judge(t, got, nil)
				return
			}
			tally.judge(t, got, []string{c.Want})
			// In a callback the whole string holds few characters that encoders disagree about: the
			// values are encoded by then. Elsewhere a value with every character tells them apart.
			if c.Telling && (c.Kind == "request" || c.Place != "whole") {
				require.Equal(t, []string{c.Want}, got.names())
				require.Len(t, got.Findings, 1)
				require.Contains(t, got.Findings[0][0].What.In("en"), strings.TrimSuffix(c.Function, ".stringify"))
			}
		})
	}
}

var otherKey = Options{Keys: []string{"k", "other"}, Mask: func(p Param) Param { return p }}

func explained(t testing.TB, text, body string, o Options) *Explanation {
	t.Helper()
	m, err := Parse(text, body)
	require.NoError(t, err)
	e, err := m.Explain(o)
	require.NoError(t, err)
	return e
}

// printed returns what e prints in a language.
func printed(e *Explanation, language string) string {
	var out strings.Builder
	e.Print(&out, language, func(_, text string) string { return text })
	return out.String()
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

// judge compares what is said of a signature with the mistakes that were made.
func (c *tally) judge(t *testing.T, s *Signature, want []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := s.Findings
	is := func(f Finding) bool {
		return slices.Equal(slices.Sorted(slices.Values(namesOf(f))), slices.Sorted(slices.Values(want)))
	}
	c.cases++
	switch {
	case s.Verified:
		c.signed++
		assert.Empty(t, s.Findings)
	case s.Findings == nil:
		c.missed++
		assert.Empty(t, want, "not named")
	case is(all[0]):
		c.right++
	case slices.ContainsFunc(all, is):
		c.among++
	default:
		c.wrong++
		t.Errorf("named wrong: want %v, got %v", want, all)
	}
	assertTold(t, all)
}

// assertTold asserts that explanations which differ in what to change say when they hold, and
// that whatever they say is in the catalogue.
func assertTold(t *testing.T, all []Finding) {
	t.Helper()
	for _, f := range all {
		for _, m := range f {
			for _, text := range []lang.Text{m.What, m.Cure} {
				assert.True(t, lang.Has(text.Key), text.Key)
			}
			cures := func(other Mistake) bool { return other.Cure.Error() == m.Cure.Error() }
			if slices.ContainsFunc(all, func(f Finding) bool { return !slices.ContainsFunc(f, cures) }) {
				assert.False(t, m.If.IsZero(), "%s, of %v", m.Name, all)
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
	var file struct{ Cases []encoderCase }
	readJSON(t, "testdata/encoders.json", &file)
	require.NotEmpty(t, file.Cases)
	return file.Cases
}

// names are those of the likeliest finding.
func (s Signature) names() []string {
	return namesOf(slices.Concat(s.Findings[:min(len(s.Findings), 1)]...))
}

func namesOf(f Finding) (names []string) {
	for _, m := range f {
		names = append(names, m.Name)
	}
	return names
}

// everyMistake returns the names of all mistakes that are known, of all kinds of messages.
func everyMistake(t *testing.T) map[string]bool {
	known := map[string]bool{}
	add := func(searches ...*search) {
		for _, s := range searches {
			for _, m := range slices.Concat(s.mistakes, s.written) {
				known[m.Name] = true
				for _, text := range []lang.Text{m.What, m.Cure} {
					assert.True(t, lang.Has(text.Key), "%s: %s is not in the catalogue", m.Name, text.Key)
				}
			}
		}
	}
	for _, query := range []string{"billno=1&a=b%2525&sig=x", "openkey=1&a=b%2525&sig=x"} {
		for _, path := range []string{"/api/pay/Notify", "/v3/r/mpay/buy_goods_m"} {
			m, err := Parse("http://203.0.113.9/pay/notify?"+query, "")
			require.NoError(t, err)
			for _, method := range []string{"GET", "POST"} {
				for _, own := range []bool{false, true} {
					right := m.recipe(path, "k")
					right.method = method
					add(m.newSearch(right, otherKey, own))
				}
			}
		}
	}
	keys := keysInstead([]string{"AAAA", "b+"}, "session-key-used", []string{"s"}, "token-used", []string{"t"})
	texts := slices.Concat(textSlips(`{"a": "<中/>"}`), textSlips(" a=1&b=2&c=%20&d=&lt;"), textSlips(`"{\"a\":1}"`))
	add(miniSearch(keys, slices.Concat(prefixSlips("/wxa/game/getbalance", "access_token=x"), prefixSlips(forGames, "")), texts))
	add(pushSearch(keysInstead([]string{"t+"}, "app-key-used", []string{"a"}, "token-missing", []string{""}), nil))
	for _, c := range fieldCases(t) {
		if m, err := Parse(c.Input.Text, c.Input.Body); err == nil {
			e, err := m.Explain(c.options())
			require.NoError(t, err)
			for _, s := range e.Signatures {
				for _, f := range s.Findings {
					for _, m := range f {
						known[m.Name] = true
					}
				}
			}
		}
	}
	return known
}

func TestEveryMistakeHasACaseAndIsDocumented(t *testing.T) {
	t.Parallel()
	var cases []byte
	for _, name := range []string{"mistakes", "encoders", "minigame", "kinds"} {
		data, err := os.ReadFile("testdata/" + name + ".json")
		require.NoError(t, err)
		cases = append(cases, data...)
	}
	known := everyMistake(t)
	require.Greater(t, len(known), 110)
	for _, page := range []string{"../../../../docs/explain.md", "../../../../docs/explain.zh-CN.md"} {
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
	var vectors []struct {
		Name, Kind, Method, Path, Sig string
		AppKey                        string `json:"app_key"`
		BaseString                    string `json:"base_string"`
		Params                        map[string]string
	}
	readJSON(t, "../../../../testdata/signatures.json", &vectors)
	require.Len(t, vectors, 107)
	for _, v := range vectors {
		query := url.Values{"sig": {v.Sig}}
		for name, value := range v.Params {
			query.Set(name, value)
		}
		m := &Message{Kind: v.Kind, Method: v.Method, RawQuery: query.Encode()}
		right := m.recipe(v.Path, v.AppKey)
		right.method = strings.ToUpper(v.Method) // in the vectors callbacks come with POST too
		require.Equal(t, v.BaseString, right.baseString(), v.Name)
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

func TestALongMessageIsGivenUp(t *testing.T) {
	t.Parallel()
	skipUnderRaceDetector(t)
	long := "/pay/notify?billno=1&appmeta=" + strings.Repeat("a", MaxQuery-100) + "&sig=AAAA"
	e := explained(t, long, "", Options{Keys: []string{"k"}})
	require.Contains(t, printed(e, "en"), "The message is too long to try every combination")
	require.Contains(t, printed(e, "zh"), "消息太长")

	// What is made with one mistake is found all the same.
	m, err := Parse(long, "")
	require.NoError(t, err)
	right := m.recipe("/pay/notify", "k")
	for _, name := range []string{"key-without-ampersand", "order-path", "nothing-encoded", "hmac-sha256", "trailing-ampersand"} {
		s := m.newSearch(right, otherKey, false)
		i := slices.IndexFunc(s.mistakes, func(m Mistake) bool { return m.Name == name })
		wrong := right
		s.mistakes[i].apply(&wrong)
		wanted := right
		wanted.sig = wrong.sign()
		found := s.find(wanted)
		require.NotEmpty(t, found, name)
		require.Equal(t, []string{name}, namesOf(found[0]))
	}
}

func FuzzExplain(f *testing.F) {
	f.Add("/pay/mt.php?" + documentedQuery)
	f.Add(`1.2.3.4 "POST /a?openkey=%zz&;sig=\x2A HTTP/1.1"`)
	f.Fuzz(func(t *testing.T, text string) {
		m, err := Parse(text, "")
		if err != nil || m.Kind != Callback && m.Kind != Request {
			return
		}
		right := m.recipe("/pay/mt.php", "k")
		base := right.baseString()
		for _, mistake := range m.newSearch(right, otherKey, true).mistakes {
			wrong := right
			mistake.apply(&wrong)
			wrong.sign()
			require.Equal(t, base, right.baseString(), "%s changes the right recipe", mistake.Name)
		}
	})
}

// costly returns messages that are long, or whose search is.
func costly() map[string]string {
	long := func(pair string) string { return strings.Repeat(pair, (MaxQuery-200)/len(pair)) }
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
			m, err := Parse(text+"&sig=AAAAAAAAAAAAAAAAAAAAAAAAAAA%3D", "")
			require.NoError(t, err)
			right := m.recipe(m.path, "k")
			s := m.newSearch(right, otherKey, false)
			require.Less(t, len(s.mistakes), 700)
			require.Empty(t, s.find(right))
			one := len(right.baseString()) + workPerParam*len(right.params)
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
			m, err := Parse(text+"&sig=AAAAAAAAAAAAAAAAAAAAAAAAAAA%3D", "")
			require.NoError(b, err)
			right := m.recipe(m.path, "k")
			start := time.Now()
			for range 100 {
				right.sign()
			}
			one := time.Since(start) / 100
			for b.Loop() {
				m.newSearch(m.recipe(m.path, "k"), otherKey, false).find(right)
			}
			b.ReportMetric(float64(b.Elapsed())/float64(b.N)/float64(one), "signings")
		})
	}
}
