package minigame

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A vector is one known answer; testdata/README.md says where they come from.
type vector struct {
	Kind, Name, Key string
	Message         string
	MessageParts    []json.RawMessage `json:"message_parts"`
	MessageBytes    int               `json:"message_bytes"`
	MessageSHA256   string            `json:"message_sha256"`
	Signature       string
	Echostr, Answer string
	Expected        json.RawMessage
	Inputs          struct {
		Method, SessionKey, SignData string
		URI, Body, PostBody          string
		Event, Payload, Format       string
		Token, Timestamp, Nonce      string
		Encrypt, MsgSignature, AppID string
		Random, Plain                string
		FieldsInOrder                [][2]any
	}
}

func (v *vector) UnmarshalJSON(b []byte) error {
	type plain vector
	// The file's names have underscores, Go's decoder ignores only the case.
	for _, name := range []string{"session_key", "sign_data", "post_body", "msg_signature", "fields_in_order"} {
		b = []byte(strings.ReplaceAll(string(b), `"`+name+`":`, `"`+strings.ReplaceAll(name, "_", "")+`":`))
	}
	return json.Unmarshal(b, (*plain)(v))
}

func (v *vector) expected(t *testing.T) (s string) {
	require.NoError(t, json.Unmarshal(v.Expected, &s))
	return s
}

// message is the first stage, as the file gives it.
func (v *vector) message(t *testing.T) string {
	message := v.Message
	for _, raw := range v.MessageParts {
		var text string
		var count int
		require.NoError(t, json.Unmarshal(raw, &[]any{&text, &count}))
		message += strings.Repeat(text, count)
	}
	sum := sha256.Sum256([]byte(message))
	require.Equal(t, v.MessageSHA256, hex.EncodeToString(sum[:]))
	require.Len(t, message, v.MessageBytes)
	return message
}

func vectors(t testing.TB, kind string) (found []vector) {
	t.Helper()
	data, err := os.ReadFile("testdata/minigame.json")
	require.NoError(t, err)
	var file struct{ Vectors []vector }
	require.NoError(t, json.Unmarshal(data, &file))
	for _, v := range file.Vectors {
		if v.Kind == kind {
			found = append(found, v)
		}
	}
	require.NotEmpty(t, found, kind)
	return found
}

func eachVector(t *testing.T, kind string, check func(t *testing.T, v *vector)) {
	for _, v := range vectors(t, kind) {
		t.Run(kind+"/"+v.Name, func(t *testing.T) { check(t, &v) })
	}
}
