package midas

import (
	"net/netip"
	"strings"
	"unicode/utf8"

	"github.com/midas-go/midas/internal/call"
)

// A Player is what the app got when the player logged in. To store one, convert it to a type
// without methods (type stored midas.Player), and encrypt that: printed, logged or
// marshalled a Player shows "[redacted]" for OpenKey, PayToken and PFKey.
//
// The JSON of an app decodes into it: login, openid, openkey, pay_token, pf and pfkey. ZoneID
// and UserIP are the server's to set: they stay as they are, whatever the JSON says. A Player's
// own redacted JSON is refused with a [*FieldError]. Every text has at most 1024 bytes unless
// its comment says otherwise.
type Player struct {
	Login  Login  `json:"login"`  // how the player logged in; required
	OpenID string `json:"openid"` // the player, case-sensitive; a guest's has at most 32 characters, none of ' < > ( ) | & = * ^; required

	// OpenKey is the player's credential; required. On YSDK it is what the app calls
	// pay_token for QQ, the access_token for WeChat, and any text for guests. On the
	// older gateways it is the access_token.
	OpenKey string `json:"openkey"`

	// PayToken is for the older gateways only, where QQ players need it; others ignore it.
	PayToken string `json:"pay_token,omitempty"`

	PF    string `json:"pf"`    // platform and channel (平台信息), as received; at most 150 bytes; required
	PFKey string `json:"pfkey"` // what vouches for PF; required

	ZoneID string `json:"zoneid,omitempty"` // server zone (大区), "1" if empty; for a role in it "zone_role", the role percent-encoded
	UserIP string `json:"userip,omitempty"` // the player's public IP address, IPv4 or IPv6, without a port; may be empty
}

const maxPF = 150 // bytes; protocol.md 3, parameters

// maxGuestOpenID is the limit on a guest's openid, in characters (protocol.md 3, parameters).
const maxGuestOpenID = 32

// commonParams returns the parameters of every call, for a valid player.
func (c *Client) commonParams(p *Player) commonParams {
	params := commonParams{
		OpenID: text(p.OpenID), OpenKey: text(p.OpenKey), AppID: text(c.cfg.AppID), PF: text(p.PF), PFKey: text(p.PFKey),
		ZoneID: text(p.ZoneID), UserIP: text(p.UserIP), Format: "json",
	}
	if p.ZoneID == "" {
		params.ZoneID = "1"
	}
	if c.cfg.Gateway.PayToken {
		payToken := text(p.PayToken)
		if p.Login == WeChat {
			payToken = ""
		}
		params.PayToken = &payToken
	}
	return params
}

// validate calls refuse for each limit of protocol.md 3, parameters, that p does not meet.
func (p *Player) validate(g Gateway, refuse refuser) {
	if id, _ := p.Login.session(); id == "" {
		refuse("Player.Login", `unknown: want midas.QQ ("qq"), midas.WeChat ("wx"), midas.Guest ("guest") or midas.H5 ("h5")`)
	}
	const fromLogin = "missing; it comes from the player's login"
	payToken := "" // may be missing
	if g.PayToken && p.Login == QQ {
		payToken = "missing; this gateway asks for it with a QQ login"
	}
	checkTexts(refuse, []textRule{
		{"Player.OpenID", p.OpenID, call.MaxSecret, fromLogin},
		{"Player.OpenKey", p.OpenKey, call.MaxSecret, fromLogin},
		{"Player.PayToken", p.PayToken, call.MaxSecret, payToken},
		{"Player.PF", p.PF, maxPF, fromLogin},
		{"Player.PFKey", p.PFKey, call.MaxSecret, fromLogin},
		{"Player.ZoneID", p.ZoneID, call.MaxSecret, ""},
	})
	if p.Login == Guest && utf8.RuneCountInString(p.OpenID) > maxGuestOpenID {
		refuse("Player.OpenID", "a guest's has at most %d characters", maxGuestOpenID)
	}
	if p.Login == Guest && strings.ContainsAny(p.OpenID, `'<>()|&=*^`) {
		refuse("Player.OpenID", "a guest's holds none of ' < > ( ) | & = * ^")
	}
	if _, err := netip.ParseAddr(p.UserIP); p.UserIP != "" && err != nil {
		refuse("Player.UserIP", "not an IP address; give it without a port")
	}
}
