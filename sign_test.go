package midas

import (
	"encoding/json"
	"net/url"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// A vector is a known answer of testdata/signatures.json; testdata/README.md says where each is from.
type vector struct {
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

func (v vector) values() url.Values {
	values := url.Values{}
	for name, value := range v.Params {
		values.Set(name, value)
	}
	return values
}

func readVectors(tb testing.TB) []vector {
	data, err := os.ReadFile("testdata/signatures.json")
	require.NoError(tb, err)
	var vectors []vector
	require.NoError(tb, json.Unmarshal(data, &vectors))
	require.Len(tb, vectors, 107)
	return vectors
}

func TestSignaturesMatchTheKnownAnswers(t *testing.T) {
	t.Parallel()
	for _, v := range readVectors(t) {
		t.Run(v.Name, func(t *testing.T) {
			t.Parallel()
			base, sig := BaseString, Sign
			if v.Kind == "callback" {
				base, sig = CallbackBaseString, SignCallback
			}
			require.Equal(t, v.BaseString, base(v.Method, v.Path, v.values()), "stage 1, the base string, differs (%s)", v.Source)
			require.Equal(t, v.Sig, sig(v.Method, v.Path, v.values(), v.AppKey), "stage 1 matches; stage 2, the HMAC of it, differs (%s)", v.Source)
		})
	}
}
