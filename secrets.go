package midas

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
)

const redacted = "[redacted]" // in place of a secret of our own

// The types below hold secrets. Printed or marshalled in any way, by value or by
// pointer, they show "[redacted]" for each secret. Format is defined rather than String,
// because verbs such as %d ignore String. %p and %w ignore Format too and print everything;
// go vet reports %w, but not %p. What reads fields by reflection, such as the diff of an
// assertion library, shows everything as well: do not compare these types in tests.

// plainConfig is a Config without the methods.
type plainConfig Config

func (c Config) masked() plainConfig {
	c.AppKey = mask(c.AppKey)
	c.OtherAppKeys = slices.Repeat([]string{redacted}, len(c.OtherAppKeys))
	return plainConfig(c)
}

// shownConfig is what a Config is marshalled as.
type shownConfig struct {
	AppID, AppKey string
	Gateway       Gateway
	DeliveryPath  string
}

func (c Config) shown() shownConfig {
	return shownConfig{c.AppID, mask(c.AppKey), c.Gateway, c.DeliveryPath}
}

// Format prints c without the pay keys. fmt does not call it for a Config in an
// unexported field of another struct, nor for %p and %w; go vet catches only %w.
func (c Config) Format(f fmt.State, verb rune) {
	fmt.Fprintf(f, fmt.FormatString(f, verb), c.masked())
}

// LogValue logs c without the pay keys.
func (c Config) LogValue() slog.Value { return slog.AnyValue(c.shown()) }

// MarshalJSON shows what identifies c, without the pay keys.
func (c Config) MarshalJSON() ([]byte, error) { return json.Marshal(c.shown()) }

// MarshalYAML shows what identifies c, without the pay keys.
func (c Config) MarshalYAML() (any, error) { return c.shown(), nil }

// GobEncode returns an error: gob would store the pay keys.
func (c Config) GobEncode() ([]byte, error) { return nil, errNoGob }

// Format prints what identifies c, without the pay keys.
func (c Client) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "midas.Client{AppID:%q Gateway:%q DeliveryPath:%q}", c.cfg.AppID, c.cfg.Gateway.BaseURL, c.cfg.DeliveryPath)
}

// LogValue logs the configuration of c without the pay keys.
func (c Client) LogValue() slog.Value { return c.cfg.LogValue() }

// MarshalJSON shows what identifies c, without the pay keys.
func (c Client) MarshalJSON() ([]byte, error) { return c.cfg.MarshalJSON() }

// MarshalYAML shows what identifies c, without the pay keys.
func (c Client) MarshalYAML() (any, error) { return c.cfg.shown(), nil }

// plainPlayer is a Player without the methods.
type plainPlayer Player

func (p Player) masked() plainPlayer {
	p.OpenKey, p.PayToken, p.PFKey = mask(p.OpenKey), mask(p.PayToken), mask(p.PFKey)
	return plainPlayer(p)
}

// Format prints p without OpenKey, PayToken and PFKey. fmt does not call it for a
// Player in an unexported field of another struct, nor for %p and %w; go vet catches only %w.
func (p Player) Format(f fmt.State, verb rune) { fmt.Fprintf(f, fmt.FormatString(f, verb), p.masked()) }

// LogValue logs p without OpenKey, PayToken and PFKey.
func (p Player) LogValue() slog.Value { return slog.AnyValue(p.masked()) }

// MarshalJSON shows p without OpenKey, PayToken and PFKey.
func (p Player) MarshalJSON() ([]byte, error) { return json.Marshal(p.masked()) }

// MarshalYAML shows p without OpenKey, PayToken and PFKey.
func (p Player) MarshalYAML() (any, error) { return p.masked(), nil }

// GobEncode returns an error: gob would store the player's credentials.
func (p Player) GobEncode() ([]byte, error) { return nil, errNoGob }

// UnmarshalJSON reads what an app sends. ZoneID and UserIP stay as they are.
func (p *Player) UnmarshalJSON(data []byte) error {
	read := plainPlayer(*p)
	if err := json.Unmarshal(data, &read); err != nil {
		return fmt.Errorf("midas: Player: %w", err)
	}
	for _, secret := range []struct{ field, value string }{{"OpenKey", read.OpenKey}, {"PayToken", read.PayToken}, {"PFKey", read.PFKey}} {
		if secret.value == redacted {
			return fmt.Errorf("midas: %w", &FieldError{Field: "Player." + secret.field, Param: commonNames[secret.field],
				Reason: "is the redacted form that a Player prints; to store one, convert it to a type without methods"})
		}
	}
	read.ZoneID, read.UserIP = p.ZoneID, p.UserIP
	*p = Player(read)
	return nil
}

// plainOrderRequest is an OrderRequest without the methods.
type plainOrderRequest OrderRequest

func (r OrderRequest) masked() plainOrderRequest {
	r.Extra, r.Player = maskAll(r.Extra), Player(r.Player.masked())
	return plainOrderRequest(r)
}

// Format prints r without the Player's secrets or the values of Extra. fmt does
// not call it for an OrderRequest in an unexported field of another struct, nor for %p and %w;
// go vet catches only %w.
func (r OrderRequest) Format(f fmt.State, verb rune) {
	fmt.Fprintf(f, fmt.FormatString(f, verb), r.masked())
}

// LogValue logs r without the Player's secrets or the values of Extra.
func (r OrderRequest) LogValue() slog.Value { return slog.AnyValue(r.masked()) }

// MarshalJSON shows r without the Player's secrets or the values of Extra. It is
// for people to read: an order cannot be read back from it.
func (r OrderRequest) MarshalJSON() ([]byte, error) { return json.Marshal(r.masked()) }

// MarshalYAML shows r without the Player's secrets or the values of Extra.
func (r OrderRequest) MarshalYAML() (any, error) { return r.masked(), nil }

// GobEncode returns an error: gob would store the player's credentials.
func (r OrderRequest) GobEncode() ([]byte, error) { return nil, errNoGob }

// plainCall is a Call without the methods.
type plainCall Call

func (c Call) masked() plainCall {
	c.Params, c.Player = maskAll(c.Params), Player(c.Player.masked())
	return plainCall(c)
}

// Format prints c without the Player's secrets or the values of Params, as an OrderRequest's
// does.
func (c Call) Format(f fmt.State, verb rune) { fmt.Fprintf(f, fmt.FormatString(f, verb), c.masked()) }

// LogValue logs c without the Player's secrets or the values of Params.
func (c Call) LogValue() slog.Value { return slog.AnyValue(c.masked()) }

// MarshalJSON shows c without the Player's secrets or the values of Params.
func (c Call) MarshalJSON() ([]byte, error) { return json.Marshal(c.masked()) }

// MarshalYAML shows c without the Player's secrets or the values of Params.
func (c Call) MarshalYAML() (any, error) { return c.masked(), nil }

// GobEncode returns an error: gob would store the player's credentials.
func (c Call) GobEncode() ([]byte, error) { return nil, errNoGob }

var errNoGob = errors.New("midas: this type holds secrets and is not encoded with gob: store the fields that you need")

// mask hides a secret, but not that it is missing.
func mask(secret string) string {
	if secret == "" {
		return ""
	}
	return redacted
}

// maskAll hides the values of parameters that this module does not know.
func maskAll(params url.Values) url.Values {
	masked := make(url.Values, len(params))
	for name := range params {
		masked.Set(name, redacted)
	}
	return masked
}
