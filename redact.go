package midas

import (
	"cmp"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

const redacted = "[redacted]"

// The types below hold secrets. However one is printed, as a value or through a
// pointer, its secrets are replaced. Format rather than String is defined because
// verbs such as %d would pass String by.

// plainConfig is a Config without the methods.
type plainConfig Config

func (c Config) redacted() plainConfig {
	c.AppKey = mask(c.AppKey)
	return plainConfig(c)
}

// Format prints c without the pay key. (What fmt does with a Config inside an
// unexported field of another type cannot be guarded: keep Configs out of those.)
func (c Config) Format(f fmt.State, verb rune) {
	fmt.Fprintf(f, fmt.FormatString(f, verb), c.redacted())
}

// LogValue logs c without the pay key.
func (c Config) LogValue() slog.Value {
	return slog.GroupValue(
		slog.String("app_id", c.AppID),
		slog.String("app_key", mask(c.AppKey)),
		slog.Any("gateway", c.Gateway),
		slog.String("delivery_path", c.DeliveryPath),
	)
}

// MarshalJSON shows what identifies c, without the pay key.
func (c Config) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		AppID, AppKey string
		Gateway       Gateway
		DeliveryPath  string
	}{c.AppID, mask(c.AppKey), c.Gateway, c.DeliveryPath})
}

// Format prints what identifies c, without the pay key.
func (c Client) Format(f fmt.State, verb rune) {
	fmt.Fprintf(f, "midas.Client{AppID:%q Gateway:%q DeliveryPath:%q}", c.cfg.AppID, c.cfg.Gateway.BaseURL, c.cfg.DeliveryPath)
}

// LogValue logs the configuration of c without the pay key.
func (c Client) LogValue() slog.Value { return c.cfg.LogValue() }

// MarshalJSON shows what identifies c, without the pay key.
func (c Client) MarshalJSON() ([]byte, error) { return c.cfg.MarshalJSON() }

// plainOrderRequest is an OrderRequest without the methods.
type plainOrderRequest OrderRequest

func (r OrderRequest) redacted() plainOrderRequest {
	r.OpenKey, r.PayToken, r.PFKey = mask(r.OpenKey), mask(r.PayToken), mask(r.PFKey)
	extra := make(url.Values, len(r.Extra)) // what the table does not know may be secret too
	for name := range r.Extra {
		extra.Set(name, redacted)
	}
	r.Extra = extra
	return plainOrderRequest(r)
}

// Format prints r without openkey, pay_token, pfkey and the values of Extra. (What
// fmt does with an OrderRequest inside an unexported field of another type cannot
// be guarded.)
func (r OrderRequest) Format(f fmt.State, verb rune) {
	fmt.Fprintf(f, fmt.FormatString(f, verb), r.redacted())
}

// LogValue logs r without openkey, pay_token, pfkey and the values of Extra.
func (r OrderRequest) LogValue() slog.Value { return slog.AnyValue(r.redacted()) }

// MarshalJSON shows r without openkey, pay_token, pfkey and the values of Extra:
// it is for people to read, an order cannot be read back from it.
func (r OrderRequest) MarshalJSON() ([]byte, error) { return json.Marshal(r.redacted()) }

// mask hides a secret, but not that it is missing.
func mask(secret string) string {
	if secret == "" {
		return ""
	}
	return redacted
}

// secretParams are the parameters nobody but Midas may see.
var secretParams = []string{"openkey", "pfkey", "pay_token", "sig"}

var (
	// queryInText is the query of a URL that a proxy repeats in its error page: what follows
	// a "?", or pairs joined by "&".
	queryInText = regexp.MustCompile(`(\?|%3[Ff])[^\s"'<>]+|[\w.%+*-]+(?:=|%3[Dd]|%253[Dd])[^\s"'<>]*(?:&|%26|%2526)[^\s"'<>]*`)
	// secretInText is a secret parameter in some other notation, perhaps cut short.
	secretInText = regexp.MustCompile(`(?i)\b((?:openkey|pfkey|pay_token|sig)(?:"|'|&quot;|\\")?(?:\s*[:=>]\s*|%3D|%253D|&#61;)(?:"|'|&quot;|\\")?)[^\s"'<>&,]+`)
)

// shortSecret is a length below which a value cannot be told from ordinary text: a guest's
// openkey may be "1", and Midas's err_code would be gone.
const shortSecret = 4

// redact masks in text from outside every secret, in whatever notation a proxy or a server
// repeats it, and anything that looks like the query of a URL.
func redact(text string, secrets []string) string {
	// One secret may hold another: the longer one first.
	slices.SortFunc(secrets, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	for _, secret := range secrets {
		if len(secret) >= shortSecret {
			text = regexp.MustCompile(anyNotation(secret)).ReplaceAllLiteralString(text, redacted)
		}
	}
	text = queryInText.ReplaceAllString(text, "${1}"+redacted)
	return secretInText.ReplaceAllString(text, "${1}"+redacted)
}

// anyNotation returns a pattern for s in which each character other than letters and digits
// may stand as it is, be percent-encoded any number of times, be an HTML entity, or be escaped
// as in JSON. s is UTF-8 and at most maxSecret bytes: a pattern has its limits too.
func anyNotation(s string) string {
	var b strings.Builder
	for _, c := range s {
		raw := regexp.QuoteMeta(string(c))
		if c < utf8.RuneSelf && alphanumeric(byte(c)) {
			b.WriteString(raw)
			continue
		}
		fmt.Fprintf(&b, `(?:\\?%s|(?i:`, raw)
		for _, octet := range []byte(string(c)) {
			fmt.Fprintf(&b, `%%(?:25)*%02x`, octet)
		}
		fmt.Fprintf(&b, `|&#0*%d;|&#x0*%x;|\\u%04x)`, c, c, c)
		for entity, char := range map[string]rune{"&amp;": '&', "&lt;": '<', "&gt;": '>', "&quot;": '"', "&apos;": '\'', " ": '+', `\+`: ' '} {
			if c == char {
				b.WriteString("|" + entity)
			}
		}
		b.WriteString(")")
	}
	return b.String()
}

// excerptBytes is how much of an unusable answer an error shows.
const excerptBytes = 200

// excerpt returns the beginning of a body for an error text: masked first, cut
// afterwards, so that no secret is cut in two and overlooked.
func excerpt(body []byte, redact func(string) string) string {
	text := redact(strings.ToValidUTF8(string(body), "\uFFFD"))
	if len(text) <= excerptBytes {
		return text
	}
	cut := excerptBytes
	for !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut] + "…"
}
