package midas

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// A Vector is a known answer of testdata/signatures.json; testdata/README.md says where each is from.
type Vector struct {
	Name       string
	Kind       string // "request" or "callback"
	Method     string
	Path       string
	AppKey     string `json:"app_key"`
	Params     map[string]string
	BaseString string `json:"base_string"`
	Sig        string
	Source     string
}

func (v Vector) Values() url.Values {
	values := url.Values{}
	for name, value := range v.Params {
		values.Set(name, value)
	}
	return values
}

// Vectors returns all of them, read once.
var Vectors = sync.OnceValue(func() []Vector {
	var vectors []Vector
	data, err := os.ReadFile("testdata/signatures.json")
	if err == nil {
		err = json.Unmarshal(data, &vectors)
	}
	if err != nil || len(vectors) != 107 {
		panic(fmt.Sprintf("testdata/signatures.json: %d vectors, %v", len(vectors), err))
	}
	return vectors
})

func TestSignaturesMatchTheKnownAnswers(t *testing.T) {
	t.Parallel()
	for _, v := range Vectors() {
		t.Run(v.Name, func(t *testing.T) {
			t.Parallel()
			base, sig := BaseString, Sign
			if v.Kind == "callback" {
				base, sig = CallbackBaseString, SignCallback
			}
			require.Equal(t, v.BaseString, base(v.Method, v.Path, v.Values()), "stage 1, the base string, differs (%s)", v.Source)
			require.Equal(t, v.Sig, sig(v.Method, v.Path, v.Values(), v.AppKey), "stage 1 matches; stage 2, the HMAC of it, differs (%s)", v.Source)
		})
	}
}

// The tables are checked against what protocol.md says in words, with fmt-style hex.
func TestEachByteIsEncodedAsTheProtocolSays(t *testing.T) {
	t.Parallel()
	const alphanumeric = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	percent := func(s string) string { // every byte of s as %XX
		var b strings.Builder
		for i := range len(s) {
			hex := strings.ToUpper(strconv.FormatUint(uint64(s[i]), 16))
			b.WriteString("%" + strings.Repeat("0", 2-len(hex)) + hex)
		}
		return b.String()
	}
	e := func(s string) string {
		var b strings.Builder
		for i := range len(s) {
			if strings.IndexByte(alphanumeric+"-_.", s[i]) >= 0 {
				b.WriteByte(s[i])
			} else {
				b.WriteString(percent(s[i : i+1]))
			}
		}
		return b.String()
	}
	for i := range 256 {
		s := string([]byte{byte(i)})
		c := percent(s)
		if strings.Contains(alphanumeric+"!*()", s) {
			c = s
		}
		require.Equal(t, e("x"+s+s+"y"), string(requestValue.append(nil, "x"+s+s+"y")))
		require.Equal(t, e("x"+c+c+"y"), string(callbackValue.append(nil, "x"+s+s+"y")))
	}
}

func TestWhatIsSigned(t *testing.T) {
	t.Parallel()
	params := url.Values{"b": {"1", "2"}, "a": {""}, "none": {}, "sig": {"x"}, "cee_extend": {"x"}, "Z": {"-"}}
	before := maps.Clone(params)
	require.Equal(t, "GET&%2Fx&Z%3D-%26a%3D%26b%3D1%26cee_extend%3Dx", BaseString("get", "/x", params),
		"first values, empty ones too, in byte order, without sig")
	require.Equal(t, "GET&%2Fx&Z%3D%252D%26a%3D%26b%3D1", CallbackBaseString("get", "/x", params),
		"values encoded twice, without cee_extend")
	require.Equal(t, before, params)
	require.Equal(t, "POST&&", BaseString("POST", "", nil))
}

// Names that agree in their first eight bytes, as paychannel and paychannelsubid do. Base
// string and sig were made with PHP.
func TestNamesWithALongCommonBeginningAreSorted(t *testing.T) {
	t.Parallel()
	params := url.Values{"paychannelsubid": {"1"}, "paychannel": {"wechat"}, "pay_x": {"-"}, "paychann": {"a"}, "paychanm": {"b"}, "billno": {"-APPDJ0-1"}}
	require.Equal(t, "GET&%2Fpay%2Fnotify&billno%3D%252DAPPDJ0%252D1%26pay_x%3D%252D%26paychanm%3Db%26paychann%3Da%26paychannel%3Dwechat%26paychannelsubid%3D1",
		CallbackBaseString("GET", "/pay/notify", params))
	require.Equal(t, "IZlWFIVwXHsoFiNAgWGI3nl5+cc=", SignCallback("GET", "/pay/notify", params, "test-pay-key"))
}

// More parameters than fit on the stack, several keys at once: the pools must not mix them up.
func TestSignaturesAreTheSameFromManyGoroutines(t *testing.T) {
	t.Parallel()
	vectors := Vectors()
	var goroutines sync.WaitGroup
	for range 8 {
		goroutines.Go(func() {
			for _, v := range vectors {
				sig := Sign
				if v.Kind == "callback" {
					sig = SignCallback
				}
				if got := sig(v.Method, v.Path, v.Values(), v.AppKey); got != v.Sig {
					t.Errorf("%s: %s, want %s", v.Name, got, v.Sig)
				}
			}
		})
	}
	goroutines.Wait()

	var want strings.Builder
	many := url.Values{}
	for i := range 500 {
		many.Set("p"+strconv.Itoa(1000+i), strconv.Itoa(i))
		want.WriteString("p" + strconv.Itoa(1000+i) + "%3D" + strconv.Itoa(i) + "%26")
	}
	require.Equal(t, "GET&%2F&"+strings.TrimSuffix(want.String(), "%26"), BaseString("GET", "/", many))
}
