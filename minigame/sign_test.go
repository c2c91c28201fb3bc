package minigame

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSignaturesOfTheVectors(t *testing.T) {
	t.Parallel()
	client := func(t *testing.T, v *vector) {
		require.Equal(t, v.message(t), v.Inputs.Method+"&"+v.Inputs.SignData)
		require.Equal(t, v.expected(t), PaySig(v.Inputs.Method, v.Inputs.SignData, v.Key))
		require.Equal(t, v.Signature, Signature(v.Inputs.SignData, v.Inputs.SessionKey))
	}
	eachVector(t, "minigame_client_pay_sig", client)
	eachVector(t, "miniprogram_client_pay_sig", client)
	eachVector(t, "server_pay_sig", func(t *testing.T, v *vector) {
		message := v.message(t)
		body := strings.TrimPrefix(message, v.Inputs.URI+"&")
		if len(v.MessageParts) == 0 {
			require.Equal(t, v.Inputs.PostBody, body)
		}
		require.Equal(t, v.expected(t), PaySig(v.Inputs.URI, body, v.Key))
	})
	eachVector(t, "user_signature", func(t *testing.T, v *vector) {
		require.Equal(t, v.expected(t), Signature(v.message(t), v.Key))
	})
	eachVector(t, "pay_event_sig", func(t *testing.T, v *vector) {
		require.Equal(t, v.message(t), v.Inputs.Event+"&"+v.Inputs.Payload)
		require.Equal(t, v.expected(t), PayEventSig(v.Inputs.Event, v.Inputs.Payload, v.Key))
	})
	eachVector(t, "push_signature", func(t *testing.T, v *vector) {
		require.Equal(t, v.expected(t), PushSignature(v.Inputs.Token, v.Inputs.Timestamp, v.Inputs.Nonce))
	})
	eachVector(t, "push_msg_signature", func(t *testing.T, v *vector) {
		require.Equal(t, v.expected(t), PushSignature(v.Inputs.Token, v.Inputs.Timestamp, v.Inputs.Nonce, v.Inputs.Encrypt))
	})
}

func TestPushSignatureDoesNotModifyItsParts(t *testing.T) {
	t.Parallel()
	parts := []string{"token", "2", "1"}
	PushSignature(parts...)
	require.Equal(t, []string{"token", "2", "1"}, parts)
}

func TestNearMissesDiffer(t *testing.T) {
	t.Parallel()
	// The values that are right, among those that this package computes for the vectors.
	right := map[string]bool{}
	for _, kind := range []string{"minigame_client_pay_sig", "miniprogram_client_pay_sig", "server_pay_sig", "user_signature", "pay_event_sig", "push_signature", "push_msg_signature", "push_minigame_body"} {
		for _, v := range vectors(t, kind) {
			in := v.Inputs
			switch kind {
			case "minigame_client_pay_sig", "miniprogram_client_pay_sig":
				right[PaySig(in.Method, in.SignData, v.Key)] = true
			case "server_pay_sig":
				right[PaySig(in.URI, in.PostBody, v.Key)] = true
			case "user_signature":
				right[Signature(in.Body, v.Key)] = true
			case "pay_event_sig":
				right[PayEventSig(in.Event, in.Payload, v.Key)] = true
			case "push_signature":
				right[PushSignature(in.Token, in.Timestamp, in.Nonce)] = true
			case "push_msg_signature":
				right[PushSignature(in.Token, in.Timestamp, in.Nonce, in.Encrypt)] = true
			case "push_minigame_body":
				var want struct{ Event, Payload string }
				require.NoError(t, json.Unmarshal(v.Expected, &want))
				right[PayEventSig(want.Event, want.Payload, v.Key)] = true
			}
		}
	}
	right[PaySig("requestMidasPaymentGameItem", `{"mode":"goods","offerId":"123","buyQuantity":1,"env":0,"currencyType":"CNY","platform":"android","zoneId":"1","productId":"testproductId","goodsPrice":10,"outTradeNo":"xxxxxx","attach":"testdata"}`, "12345")] = true
	right[PayEventSig(eventGoods, `{"RefundId":"refund_id","RefundAmount":100,"RefundSource":1,"Env":0, "WeChatPayInfo":{"MchOrderNo":"xxxxxxx","TransactionId":"xxxxxxx"}}`, "12345")] = true
	eachVector(t, "near_miss", func(t *testing.T, v *vector) {
		var pair struct{ Right, Wrong string }
		require.NoError(t, json.Unmarshal(v.Expected, &pair))
		require.True(t, right[pair.Right], "this package computes the right value")
		require.False(t, right[pair.Wrong], "and never the wrong one")
	})
}

func TestPushesOfTheVectorsDecrypt(t *testing.T) {
	t.Parallel()
	eachVector(t, "push_decrypt", func(t *testing.T, v *vector) {
		var want struct {
			Msg, AppID, Random string
			MsgBytes           int `json:"msg_bytes"`
		}
		require.NoError(t, json.Unmarshal(v.Expected, &want))
		require.Equal(t, v.Inputs.MsgSignature, PushSignature(v.Inputs.Token, v.Inputs.Timestamp, v.Inputs.Nonce, v.Inputs.Encrypt))
		got, err := DecryptPush(v.Key, v.Inputs.AppID, v.Inputs.Encrypt)
		require.NoError(t, err)
		require.Len(t, got, want.MsgBytes)
		require.Equal(t, want.Msg, string(got))

		again, err := encrypt(v.Key, want.AppID, []byte(want.Random), got)
		require.NoError(t, err)
		require.Equal(t, v.Inputs.Encrypt, again)
	})
	eachVector(t, "push_decrypt_refused", func(t *testing.T, v *vector) {
		var want struct{ Refused string }
		require.NoError(t, json.Unmarshal(v.Expected, &want))
		signed := v.Inputs.MsgSignature == PushSignature(v.Inputs.Token, v.Inputs.Timestamp, v.Inputs.Nonce, v.Inputs.Encrypt)
		require.Equal(t, want.Refused != "signature", signed)
		if signed {
			_, err := DecryptPush(v.Key, v.Inputs.AppID, v.Inputs.Encrypt)
			require.Equal(t, errDecrypt, err, "the same error for every reason")
		}
	})
}

func TestAnswersOfTheVectorsEncrypt(t *testing.T) {
	t.Parallel()
	eachVector(t, "reply_encrypt", func(t *testing.T, v *vector) {
		var want struct {
			Encrypt, MsgSignature, Nonce string
			TimeStamp                    int64
		}
		require.NoError(t, json.Unmarshal(v.Expected, &want))
		got, err := encrypt(v.Key, v.Inputs.AppID, []byte(v.Inputs.Random), []byte(v.Inputs.Plain))
		require.NoError(t, err)
		require.Equal(t, want.Encrypt, got)
		require.Equal(t, want.MsgSignature, PushSignature(v.Inputs.Token, v.Inputs.Timestamp, v.Inputs.Nonce, got))
	})
}

func TestEncryptionRoundTripsAtEveryPaddingLength(t *testing.T) {
	t.Parallel()
	const key = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"
	for n := range 70 {
		message := strings.Repeat("x", n)
		encrypted, err := EncryptPush(key, "wx1", []byte(message))
		require.NoError(t, err)
		got, err := DecryptPush(key, "wx1", encrypted)
		require.NoError(t, err)
		require.Equal(t, message, string(got))
	}
	one, _ := EncryptPush(key, "wx1", nil)
	two, _ := EncryptPush(key, "wx1", nil)
	require.NotEqual(t, one, two)
}

func TestDecryptPushRefuses(t *testing.T) {
	t.Parallel()
	const key = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"
	good, err := EncryptPush(key, "wx1", []byte("hello"))
	require.NoError(t, err)
	for sentence, in := range map[string]struct{ key, encrypted string }{
		"an empty key":              {"", good},
		"a key of 42 characters":    {key[:42], good},
		"a key with its padding":    {key + "=", good},
		"a key with another letter": {"!" + key[1:], good},
		"nothing":                   {key, ""},
		"half a block":              {key, base64.StdEncoding.EncodeToString(make([]byte, 24))},
		"a line break":              {key, good[:8] + "\n" + good[8:]},
	} {
		t.Run(sentence, func(t *testing.T) {
			_, err := DecryptPush(in.key, "wx1", in.encrypted)
			require.Error(t, err)
			_, err = EncryptPush("short", "wx1", nil)
			require.Error(t, err)
		})
	}
}

func TestTheLegacySignatureIsAnotherOne(t *testing.T) {
	t.Parallel()
	eachVector(t, "legacy_v1_sig", func(t *testing.T, v *vector) {
		require.Equal(t, v.expected(t), Signature(v.message(t), v.Key), "an HMAC of the same kind")
		require.NotEqual(t, v.expected(t), PaySig("/cgi-bin/midas/getbalance", v.Message, v.Key))
	})
}
