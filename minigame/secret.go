package minigame

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
)

// A Secret is a key or a session_key. Printed or logged it shows only whether it is empty,
// and it refuses to be marshalled. Where it has to be stored, convert it to a string.
type Secret string

const redacted = "[redacted]"

func (s Secret) shown() string {
	if s == "" {
		return ""
	}
	return redacted
}

// Format prints s without its value. (fmt does not call it for an unexported field of
// another type: keep Secrets out of those.)
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, `"`+s.shown()+`"`) }

// LogValue logs s without its value.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.shown()) }

// MarshalText returns an error: stored unnoticed a secret would leak, and masked
// unnoticed it would be lost.
func (s Secret) MarshalText() ([]byte, error) { return nil, errNoMarshal }

// GobEncode returns an error.
func (s Secret) GobEncode() ([]byte, error) { return nil, errNoMarshal }

var errNoMarshal = errors.New("minigame: a Secret is not marshalled: store string(secret), encrypted")

// Format prints what identifies c.
func (c Client) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "minigame.Client{AppID:%q}", c.config().AppID)
}

// LogValue logs what identifies c.
func (c Client) LogValue() slog.Value {
	return slog.GroupValue(slog.String("app_id", c.config().AppID))
}

// MarshalJSON shows what identifies c.
func (c Client) MarshalJSON() ([]byte, error) {
	return []byte(fmt.Sprintf(`{"AppID":%q}`, c.config().AppID)), nil
}

// maxForeign is how much of WeChat's words is shown, in bytes.
const maxForeign = 200

// plainText returns text from outside the way errors show it: if it is a sentence of
// plain words. Otherwise it is "[withheld]": WeChat repeats the body of a call whose
// pay_sig does not hold, raw and in base64, and a proxy may repeat the URL. Keys, tokens,
// openids and signatures are all long runs, and so is base64.
func plainText(text string, secrets ...string) string {
	if len(text) > maxForeign {
		text = text[:maxForeign]
	}
	run := 0
	for i := 0; i < len(text); i++ {
		switch b := text[i]; {
		case isAlphanumeric(b) || b == '_':
			if run++; run > 20 {
				return withheld
			}
		case b == '-': // of a rid, whose pieces are short
			run = 0
		case strings.IndexByte(" []().,:;", b) >= 0:
			run = 0
		default:
			return withheld
		}
	}
	for _, secret := range secrets {
		if secret != "" && strings.Contains(text, secret) {
			return withheld
		}
	}
	return text
}

const withheld = "[withheld]"

func isAlphanumeric(b byte) bool {
	return '0' <= b && b <= '9' || 'A' <= b && b <= 'Z' || 'a' <= b && b <= 'z'
}
