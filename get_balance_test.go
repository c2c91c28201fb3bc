package midas

import (
	"encoding/json"
	"net/url"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// The request of Tencent's page on get_balance_m, with the sig that the page shows. The page
// names an older gateway: the signed path is that of the URL (protocol.md 2, request signature).
func TestTheDocumentedBalanceRequestHasItsSignature(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("testdata/get-balance.json")
	require.NoError(t, err)
	var known struct {
		Vector
		URLPath string `json:"url_path"`
		Wire    string
		Cookie  string
	}
	require.NoError(t, json.Unmarshal(data, &known))
	require.Equal(t, "w0swu02BmhUPQyrAiS+pwuRgCcI=", known.Sig)
	require.Equal(t, known.BaseString, BaseString(known.Method, known.Path, known.Values()))
	require.Equal(t, known.Sig, Sign(known.Method, known.Path, known.Values(), known.AppKey))

	// The same read back from the query that goes over the wire: sig is among it, and not signed.
	sent, err := url.ParseQuery(known.Wire)
	require.NoError(t, err)
	require.Equal(t, known.Sig, sent.Get("sig"))
	require.Equal(t, known.Sig, Sign(known.Method, known.URLPath, sent, known.AppKey))

	require.NotEqual(t, known.Sig, Sign(known.Method, "/v3/r"+known.Path, sent, known.AppKey), "YSDK's path")
	require.NotEqual(t, known.Sig, Sign("POST", known.Path, sent, known.AppKey), "another method")
}
