package main

import (
	"html"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/midas-go/midas/cmd/midas/internal/explain"
)

const masked = explain.Masked

type param = explain.Param

// credentials are the player's, in the spelling that names are compared in: see plain.
var credentials = []string{"openkey", "pfkey", "paytoken", "accesstoken"}

// Parts of a name that promise a secret, however it is called.
var secretPart = regexp.MustCompile(`key|token|secret|pass|sess|auth|ticket|cookie`)

// secretName reports whether a parameter of this name may hold a secret: a player's
// credential also if its name is misspelt, since then it is still in there.
func secretName(name string) bool {
	name = plain(name)
	return name != "token" && (secretPart.MatchString(name) || misspelt(name)) // token is the order's
}

// misspelt reports whether a plain name is that of a credential, or nearly.
func misspelt(name string) bool {
	return len(name) >= 5 && slices.ContainsFunc(credentials, func(c string) bool { return near(name, c, 2) })
}

// plain returns a name in lower case without anything but letters and digits: openKey,
// open_key and open-key are one.
func plain(name string) string { return notPlain.ReplaceAllString(strings.ToLower(name), "") }

var notPlain = regexp.MustCompile(`[^a-z0-9]+`)

// near reports whether at most n letters are to be added, removed or replaced to make b of a.
func near(a, b string, n int) bool {
	for a != "" && b != "" && a[0] == b[0] {
		a, b = a[1:], b[1:]
	}
	if a == "" || b == "" {
		return len(a)+len(b) <= n
	}
	return n > 0 && (near(a[1:], b, n-1) || near(a, b[1:], n-1) || near(a[1:], b[1:], n-1))
}

// A name and the sign after it that gives it a value, in a query, a cookie or JSON.
var assignment = regexp.MustCompile(`([\w-]+)\W*[=:]`)

// assigns reports whether a text names a credential and gives its value.
func assigns(text string) bool {
	if !strings.ContainsAny(text, "=:") { // mostly, and much faster
		return false
	}
	return slices.ContainsFunc(assignment.FindAllStringSubmatch(text, -1), func(found []string) bool {
		name := plain(found[1])
		return misspelt(name) || holdsCredential(name)
	})
}

// holdsCredential reports whether the name of a credential is a part of a plain name.
func holdsCredential(name string) bool {
	return slices.ContainsFunc(credentials, func(c string) bool { return strings.Contains(name, c) })
}

// mask returns p without a secret.
func mask(p param) param {
	name := explain.Decode(p.Name)
	switch {
	case assigns(name), p.Value == "" && holdsCredential(plain(name)) && !misspelt(plain(name)):
		return param{Name: masked, Value: masked} // the value is in the name
	case p.Value != "" && (secretName(name) || assigns(explain.Decode(p.Value))):
		p.Value = masked
	}
	return p
}

// maskQuery masks secrets in a raw query.
func maskQuery(query string) string {
	pairs := strings.Split(query, "&")
	for i, pair := range pairs {
		name, value, _ := strings.Cut(pair, "=")
		before := param{Name: explain.Decode(name), Value: explain.Decode(value)}
		after := mask(before)
		if after.Name != before.Name {
			name = after.Name
		}
		if after != before {
			pairs[i] = name + "=" + after.Value
		}
	}
	return strings.Join(pairs, "&")
}

// What session cookies hold (protocol.md 4). Anything else may be the backend's own secret.
var sessionCookie = regexp.MustCompile(`^(openid|hy_gameid|kp_actoken|wc_actoken|st_dummy|openkey|(/v3/r)?/mpay/(buy_goods_m|pay_m)|)$`)

// mask masks what is secret in an order whose URL is what comes before the query, and the query.
func (e *exchange) mask(before, query string) {
	e.URL = mask(param{Name: before}).Name + maskQuery(query)
	for i, p := range e.Params {
		e.Params[i] = mask(p)
	}
	// Of all answers only an error page repeats the query.
	e.Reply = strings.ReplaceAll(e.Reply, html.EscapeString(query), html.EscapeString(maskQuery(query)))
	for i, c := range e.Cookies {
		if !sessionCookie.MatchString(explain.Decode(explain.Decode(c.Value))) {
			e.Cookies[i].Value = masked
			e.Reason = strings.ReplaceAll(e.Reason, strconv.Quote(c.Value), strconv.Quote(masked))
		}
	}
}
