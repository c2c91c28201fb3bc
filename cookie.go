package midas

// Login is how the player logged in. It decides the session cookies of a call
// (protocol.md 4, cookies). The values are the ones that the apps send. The zero
// value is refused.
type Login string

// The logins that Midas knows.
const (
	QQ     Login = "qq"
	WeChat Login = "wx"    // 微信
	Guest  Login = "guest" // 游客
	H5     Login = "h5"    // H5 or third party; a single source says so
)

// session returns the values of the cookies session_id and session_type, which
// are empty for an unknown login.
func (l Login) session() (id, kind string) {
	switch l {
	case QQ:
		return "openid", "kp_actoken" // the word "openid" itself
	case WeChat:
		return "hy_gameid", "wc_actoken"
	case Guest:
		return "hy_gameid", "st_dummy"
	case H5:
		return "openid", "openkey"
	}
	return "", ""
}

// cookies returns the Cookie header of a call, without which Midas refuses it.
// The value of org_loc is percent-encoded.
func cookies(login Login, orgLoc string) string {
	id, kind := login.session()
	header := "session_id=" + id + "; session_type=" + kind + "; org_loc="
	return string(requestValue.append([]byte(header), orgLoc))
}
