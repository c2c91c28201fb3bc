package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRecordHoldsEveryExchangeButNoCredential(t *testing.T) {
	t.Parallel()
	for _, secrets := range []bool{false, true} {
		name := filepath.Join(t.TempDir(), "record.jsonl")
		require.NoError(t, os.WriteFile(name, nil, 0o666)) // one that was there before
		record, err := openRecord(name)
		require.NoError(t, err)
		base := serve(t, "", func(s *sandbox) {
			s.secrets = secrets
			s.seen = func(e exchange) {
				if err := writeRecord(record, e); err != nil {
					t.Error(err)
				}
			}
		})
		params := rawOrder()
		params["pay_token"] = "PAYTOKEN-SECRET"
		token, _ := place(t, base, params)
		post(t, base+"/api/orders/"+token+"/pay", "")
		call(t, "GET", rawOrderURL(base, params, "wrong"), "", rawCookies)
		call(t, "POST", base+"/api/next", `{"html":true}`, nil)
		call(t, "GET", rawOrderURL(base, params, "wrong"), "", rawCookies)
		require.NoError(t, record.Close())

		info, err := os.Stat(name)
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode())
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
		require.Len(t, lines, 4)
		for _, line := range lines {
			require.True(t, json.Valid(line))
		}
		for _, secret := range []string{"OPENKEY-SECRET", "PFKEY-SECRET", "PAYTOKEN-SECRET"} {
			require.Equal(t, secrets, bytes.Contains(text, []byte(secret)), secret)
		}
		require.NotContains(t, string(text), rawAppKey)

		// A recorded callback can be explained as it is.
		code, stdout, stderr := runWith(t, string(lines[1]), nil, "explain", "-key", rawAppKey, "-")
		require.Equal(t, exitOK, code, stdout+stderr)
	}
}
