package minigame

import (
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"hash"
	"slices"
	"strings"
	"sync"
)

// The methods of the client that sell items. They are the first argument of [PaySig].
const (
	requestMidasPaymentGameItem = "requestMidasPaymentGameItem" // mini games
	requestVirtualPayment       = "requestVirtualPayment"       // mini programs
)

// PaySig returns the paySig of an order or the pay_sig of a server call
// (minigame.md 2.2, 3.1 and 4.1): HMAC-SHA256 under the AppKey, in lower-case hex.
//
// what is the client's method ("requestMidasPaymentGameItem", "requestVirtualPayment")
// or the path of the server call with its leading "/" and without host and query
// ("/xpay/query_order"). signed is the signData of the order or the body of the call,
// byte for byte as it is sent. appKey is the key of the order's or call's environment,
// as it is: unlike the older Midas, nothing is appended to it.
func PaySig(what, signed, appKey string) string {
	return appKeyMAC(appKey, what, signed)
}

// Signature returns the player's signature (用户登录态签名) of an order's signData or of a
// server call's body: HMAC-SHA256 under the session_key, in lower-case hex. sessionKey
// is the string that code2Session returned: it looks like base64 and must not be
// decoded. A GET request signs the empty string.
func Signature(signed, sessionKey string) string {
	return hexSum(hmac.New(sha256.New, []byte(sessionKey)), []byte(signed))
}

// PayEventSig returns the PayEventSig of a mini game's push (minigame.md 2.2). event is
// the push's Event as received, payload its Payload after the JSON or XML around it was
// decoded, and nothing else done to it. appKey is the key of the Env that the payload
// names.
func PayEventSig(event, payload, appKey string) string {
	return appKeyMAC(appKey, event, payload)
}

// PushSignature returns the signature of a push: the SHA-1, in lower-case hex, of the
// parts sorted bytewise and joined. The parts are token, timestamp and nonce for the
// parameter signature; with Encrypt as the fourth it is the msg_signature of secure
// mode, and the MsgSignature of an encrypted answer.
func PushSignature(parts ...string) string {
	parts = slices.Clone(parts)
	slices.Sort(parts)
	h := sha1.New()
	for _, part := range parts {
		h.Write([]byte(part))
	}
	return hex.EncodeToString(h.Sum(nil))
}

// A keyedMAC is an HMAC under an AppKey. A process signs under one or two of these over
// and over, and preparing the key costs more than hashing a push.
type keyedMAC struct {
	hash.Hash
	appKey  string
	message []byte // working memory
}

var macs sync.Pool // of *keyedMAC; never of session_keys, which are many and not ours to keep

func appKeyMAC(appKey, what, signed string) string {
	mac, _ := macs.Get().(*keyedMAC)
	if mac == nil || mac.appKey != appKey {
		mac = &keyedMAC{Hash: hmac.New(sha256.New, []byte(appKey)), appKey: appKey}
	}
	mac.Reset()
	mac.message = append(append(append(mac.message[:0], what...), '&'), signed...)
	signature := hexSum(mac, mac.message)
	if len(mac.message) <= 16<<10 { // do not pool the occasional large buffer
		macs.Put(mac)
	}
	return signature
}

// hexSum returns the MAC of the message, in lower-case hex.
func hexSum(mac hash.Hash, message []byte) string {
	mac.Write(message)
	var sum [sha256.Size]byte
	return hex.EncodeToString(mac.Sum(sum[:0]))
}

// equal compares a signature that was received with the one it must be, in constant time.
func equal(received, want string) bool {
	return subtle.ConstantTimeCompare([]byte(received), []byte(want)) == 1
}

const alphanumeric = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// only reports whether s holds nothing but these characters.
func only(s, characters string) bool { return strings.Trim(s, characters) == "" }
