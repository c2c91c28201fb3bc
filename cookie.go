package midas

import "net/http"

// Login is how the player logged in; it decides the session cookies that go with
// an order (protocol.md 4). Its values are those the apps send. The zero value is
// refused.
type Login string

// The logins Midas knows.
const (
	QQ     Login = "qq"
	WeChat Login = "wx"    // 微信
	Guest  Login = "guest" // 游客
	H5     Login = "h5"    // H5 or third party: one source only, see protocol.md 4
)

// session returns the values of the cookies session_id and session_type, and
// whether l is a known login.
func (l Login) session() (id, kind string, known bool) {
	switch l {
	case QQ:
		return "openid", "kp_actoken", true // the word "openid" itself
	case WeChat:
		return "hy_gameid", "wc_actoken", true
	case Guest:
		return "hy_gameid", "st_dummy", true
	case H5:
		return "openid", "openkey", true
	}
	return "", "", false
}

// cookies returns the session cookies of a call; without them Midas refuses it.
// The value of org_loc is a path, percent-encoded.
func (g Gateway) cookies(login Login, path string) []*http.Cookie {
	id, kind, _ := login.session()
	return []*http.Cookie{
		{Name: "session_id", Value: id},
		{Name: "session_type", Value: kind},
		{Name: "org_loc", Value: string(requestValue.append(nil, g.OrgLocPrefix+path))},
	}
}
