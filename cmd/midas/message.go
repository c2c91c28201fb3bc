package main

import (
	"encoding/hex"
	"errors"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A message is a request or a delivery callback as it went over the wire.
type message struct {
	callback bool
	method   string // as recorded, or GET
	site     string // "http://host", or ""
	path     string // of the URL, decoded; "" where there was only a query
	query    string // raw
}

// A param is one parameter.
type param struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// maxMessage is as much as the library takes of a callback; it keeps the search for mistakes short.
const maxMessage = 16 << 10

// The request line in a line of an access log: a URL with a query, perhaps after a method.
var requestLine = regexp.MustCompile(`(?:\b([A-Z]{3,7}) )?([^\s"<>]*\?[^\s"<>]+)`)

// nginx writes bytes that are not plain ASCII as \xHH.
var logEscape = regexp.MustCompile(`\\x[0-9A-Fa-f]{2}`)

// parseMessage reads a URL, a raw query, or a line of an access log that holds a URL.
func parseMessage(text string) (*message, error) {
	text = strings.TrimSpace(text)
	m := &message{method: "GET"}
	target := text
	switch {
	case len(text) > maxMessage:
		return nil, errors.New("the input is over 16 KiB")
	case strings.Contains(text, "\n"):
		return nil, errors.New("the input has several lines: give the one to be explained")
	case strings.ContainsAny(text, " \t\""):
		found := requestLine.FindAllStringSubmatch(text, -1)
		i := slices.IndexFunc(found, func(f []string) bool { return strings.Contains(f[2], "sig=") })
		switch {
		case i >= 0:
			target = logEscape.ReplaceAllStringFunc(found[i][2], func(s string) string {
				b, _ := strconv.ParseUint(s[2:], 16, 8) // the pattern is two hex digits
				return string([]byte{byte(b)})
			})
			if found[i][1] != "" {
				m.method = found[i][1]
			}
		case strings.ContainsAny(text, " \t"):
			return nil, errors.New("no URL with a query and a sig in this line")
		}
	}
	before, query, isURL := strings.Cut(target, "?")
	if !isURL {
		before, query = "", target
	}
	m.query, _, _ = strings.Cut(query, "#")
	if !strings.Contains(m.query, "=") {
		return nil, errors.New("this is no URL with a query, and no query either: want name=value&name=value")
	}
	u, err := url.Parse(before)
	if err != nil {
		return nil, errors.New("the part before the \"?\" is no URL")
	}
	m.path = u.Path
	if u.Host != "" {
		m.site = u.Scheme + "://" + u.Host
	}
	// openkey, pfkey and goodsmeta go to Midas and never come from it (protocol.md 3 and 5).
	m.callback = !slices.ContainsFunc(m.params(once), func(p param) bool {
		return p.Name == "openkey" || p.Name == "pfkey" || p.Name == "goodsmeta"
	})
	return m, nil
}

// params splits the query as protocol.md 5 obliges, which no standard parser does: on "&"
// alone, empty pairs skipped, cut at the first "=", names decoded like values.
func (m *message) params(decode func(string) string) []param {
	var params []param
	for pair := range strings.SplitSeq(m.query, "&") {
		if pair != "" {
			name, value, _ := strings.Cut(pair, "=")
			params = append(params, param{decode(name), decode(value)})
		}
	}
	return params
}

// once decodes %XX, and "+" to a space; a "%" that starts no valid escape is itself.
func once(s string) string { return literalPlus(strings.ReplaceAll(s, "+", " ")) }

// literalPlus decodes %XX alone.
func literalPlus(s string) string {
	var out strings.Builder
	for {
		before, after, found := strings.Cut(s, "%")
		out.WriteString(before)
		if !found {
			return out.String()
		}
		if b, err := hex.DecodeString(after[:min(len(after), 2)]); err == nil && len(b) == 1 {
			out.WriteByte(b[0])
			s = after[2:]
		} else {
			out.WriteByte('%')
			s = after
		}
	}
}

// value returns the first value of a name, or "".
func value(params []param, name string) string {
	for _, p := range params {
		if p.Name == name {
			return p.Value
		}
	}
	return ""
}
