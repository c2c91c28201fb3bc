package tap

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// A masker replaces what a recording must not hold, in two steps: by position, the values of
// parameters, cookies, headers and fields with the name of a secret; then every other place in
// the exchange where the same value stands, since error pages repeat what they were sent.
type masker struct {
	secret func(name, value string) bool
	key    [32]byte // for names; of this recording alone, and not in it
}

func newMasker(secret func(name, value string) bool) *masker {
	m := &masker{secret: secret}
	_, _ = rand.Read(m.key[:]) // it never fails
	return m
}

// A replacer returns text of the same length in bytes.
type replacer func(string) string

// placeholder keeps what kind each character is: digits become 0, letters a or x (those of
// hexadecimal numbers a), capitals A or X, punctuation stays, anything else becomes "?".
func placeholder(s string) string {
	p := []byte(s)
	for i, b := range p {
		switch {
		case '0' <= b && b <= '9':
			p[i] = '0'
		case 'a' <= b && b <= 'f':
			p[i] = 'a'
		case 'g' <= b && b <= 'z':
			p[i] = 'x'
		case 'A' <= b && b <= 'F':
			p[i] = 'A'
		case 'G' <= b && b <= 'Z':
			p[i] = 'X'
		case b < ' ' || b >= 0x7f:
			p[i] = '?'
		}
	}
	return string(p)
}

// alias returns the name of a player in this recording: the same for the same openid, and with
// each character of the same kind.
func (m *masker) alias(s string) string {
	p := []byte(s)
	var stream []byte
	for i, b := range p {
		if len(stream) == 0 {
			mac := hmac.New(sha256.New, m.key[:])
			mac.Write(binary.BigEndian.AppendUint32(nil, uint32(i)))
			mac.Write([]byte(s))
			stream = mac.Sum(nil)
		}
		random := stream[0]
		stream = stream[1:]
		switch {
		case '0' <= b && b <= '9':
			p[i] = '0' + random%10
		case 'a' <= b && b <= 'f':
			p[i] = 'a' + random%6
		case 'g' <= b && b <= 'z':
			p[i] = 'g' + random%20
		case 'A' <= b && b <= 'F':
			p[i] = 'A' + random%6
		case 'G' <= b && b <= 'Z':
			p[i] = 'G' + random%20
		case b < ' ' || b >= 0x7f:
			p[i] = '?'
		}
	}
	return string(p)
}

var longNumber = regexp.MustCompile(`[0-9]{8,}`)

// device replaces the long numbers in a channel_id: one of them is the phone's (protocol.md 5).
func (m *masker) device(s string) string { return longNumber.ReplaceAllStringFunc(s, m.alias) }

// plain returns a name in lower case, letters and digits alone; of a long one its end.
func plain(name string) string {
	var p [64]byte
	n := 0
	for i := max(len(name)-len(p), 0); i < len(name); i++ {
		switch b := name[i]; {
		case 'a' <= b && b <= 'z', '0' <= b && b <= '9':
			p[n] = b
			n++
		case 'A' <= b && b <= 'Z':
			p[n] = b - 'A' + 'a'
			n++
		}
	}
	return string(p[:n])
}

// rule returns what replaces the value of a name, or nil if it stays. Both are decoded.
func (m *masker) rule(name, value string) replacer {
	switch plain := plain(name); {
	case value == "", plain == "token", plain == "tokenid": // the order's token is no secret
		return nil
	case strings.HasSuffix(plain, "openid"), strings.HasSuffix(plain, "unionid"), plain == "fromusername", plain == "touser", plain == "userip":
		if m.secret != nil && !m.secret("cookie", value) { // the word openid is a session_id
			return nil
		}
		return m.alias
	case plain == "channelid":
		return m.device
	case plain == "sig", strings.HasSuffix(plain, "sig"), strings.HasSuffix(plain, "signature"), plain == "sign":
		return placeholder
	case m.secret != nil && m.secret(name, value):
		return placeholder
	}
	return nil
}

// A replacement is a value that is found and what it becomes.
type replacement struct{ old, new string }

// findings are the values of an exchange that are replaced.
type findings struct {
	*masker
	values []replacement
	known  map[string]bool // old ones, and new ones, which are not to be replaced again
	full   bool            // there were more

	erasing bool // names are removed with their values, to see what is left: see conceals
	named   bool // while erasing: a name may be a value's end, and what follows a name that has no value
	unread  bool // while erasing: a secret has a value that cannot be told from what follows
}

const (
	minValue  = 6   // bytes of a value that is looked for elsewhere: a shorter one would be found in what has nothing to do with it
	maxValues = 100 // of them; each costs a search
)

func (f *findings) add(value string, by replacer) {
	if f.erasing || len(value) < minValue || f.known[value] {
		return
	}
	if len(f.values) == maxValues {
		f.full = true
		return
	}
	made := by(value)
	f.known[value], f.known[made] = true, true
	f.values = append(f.values, replacement{value, made})
}

// rule is the masker's, for what has not been replaced yet.
func (f *findings) rule(name, value string) replacer {
	if f.erasing && value == "" { // it is read, there is just nothing to replace
		value = "a value"
	}
	by := f.masker.rule(name, value)
	if by == nil {
		return nil
	}
	return func(s string) string {
		for _, v := range f.values {
			switch s {
			case v.new:
				return s
			case v.old:
				return v.new
			}
		}
		return by(s)
	}
}

// Masking returns what masks the exchanges of a recording that was made with its secrets, as a
// recorder does, and leaves those of another as they are.
func Masking(secret func(name, value string) bool) func(*Exchange) {
	m := newMasker(secret)
	return func(e *Exchange) {
		if !e.Masked {
			m.exchange(e)
			e.setTarget(e.Line())
		}
	}
}

// exchange masks an exchange.
func (m *masker) exchange(e *Exchange) {
	e.Masked = true
	f := &findings{masker: m, known: map[string]bool{}}
	var messages []*Message
	var said *Message // what a push says
	if e.Verdict != nil && len(e.Verdict.Message) > 0 {
		said = &Message{Body: e.Verdict.Message}
	}
	for _, msg := range []*Message{e.Request, e.Answer, said} {
		switch {
		case msg == nil:
		case !msg.unread:
			msg.decode()
			messages = append(messages, msg)
		case len(msg.Head)+len(msg.Body) > 0:
			msg.Head, msg.Body, msg.Left = nil, nil, "it is not HTTP/1, so what is secret in it cannot be told"
		}
	}
	for _, msg := range messages { // for the values alone
		f.head(string(msg.Head))
		f.body(string(msg.Body))
	}
	// First the values, whole ones: what a position says may be a part of one.
	everywhere := f.replacer()
	for _, msg := range messages {
		head := string(msg.Head)
		if f.full && msg == e.Answer { // its headers may repeat what is not looked for
			head, _, _ = strings.Cut(head, "\n")
		}
		msg.Head = Text(f.head(everywhere(head)))
		body := string(msg.Body)
		msg.Body = Text(f.body(everywhere(body)))
		switch {
		case body == "":
		case f.full:
			msg.Body, msg.Left = nil, fmt.Sprintf("the messages hold more than %d secrets, too many to look for in a body", maxValues)
		case f.conceals(body, everywhere):
			msg.Body, msg.Left = nil, "it names a secret whose value cannot be told from the rest"
		}
	}
	if e.URL != "" {
		e.URL = e.base + f.target(everywhere(e.URL[len(e.base):]))
	}
	e.Error = everywhere(e.Error)
	if e.Verdict != nil {
		v := *e.Verdict
		v.English, v.Chinese, v.Message = everywhere(v.English), everywhere(v.Chinese), nil
		if said != nil {
			v.Message = said.Body
		}
		e.Verdict = &v
	}
}

var contentEncoding = regexp.MustCompile(`(?im)^content-encoding[ \t]*:[ \t]*([^\r\n]*?)[ \t]*\r?$`)

// decode replaces a compressed body by what it holds, since nothing could be replaced in it.
func (msg *Message) decode() {
	found := contentEncoding.FindAllSubmatch(msg.Head, -1)
	if len(found) == 0 || len(msg.Body) == 0 || len(found) == 1 && strings.EqualFold(string(found[0][1]), "identity") {
		return
	}
	encoding := string(found[0][1])
	packed := msg.Body
	msg.Body, msg.Left = nil, "it is encoded, so what is secret in it cannot be told"
	if len(found) > 1 || !strings.EqualFold(encoding, "gzip") && !strings.EqualFold(encoding, "x-gzip") {
		return
	}
	unpack, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return
	}
	var plain bytes.Buffer
	_, err = io.CopyN(&plain, unpack, int64(max(len(packed), defaultLimit))) // what a cut body still holds is enough
	msg.Body, msg.Left = plain.Bytes(), "it came as gzip; this is what was in it"
	msg.Cut = msg.Cut || err == nil
}

var headLine = regexp.MustCompile(`[^\r\n]*(?:\r?\n|\r|$)`) // some servers end a line at a bare CR

// head replaces what is secret in a first line and headers.
func (f *findings) head(text string) string {
	var out strings.Builder
	name := "" // of the header, also where it goes on in the next line
	for i, line := range headLine.FindAllString(text, -1) {
		value := strings.TrimRight(line, "\r\n")
		end := line[len(value):]
		goesOn := i > 0 && value != "" && (value[0] == ' ' || value[0] == '\t')
		if before, after, isHeader := strings.Cut(value, ":"); !goesOn && i > 0 && isHeader {
			out.WriteString(f.target(before) + ":")
			name, value = strings.TrimSpace(before), after
		} else if !goesOn {
			name = ""
		}
		switch by := f.rule(name, strings.TrimSpace(value)); {
		case strings.EqualFold(name, "cookie"), strings.EqualFold(name, "set-cookie"):
			value = f.cookies(value)
		case by != nil:
			bare := strings.TrimLeft(value, " \t")
			if _, token, found := strings.Cut(bare, " "); found { // after a scheme, such as Bearer
				f.add(token, placeholder)
			}
			value = value[:len(value)-len(bare)] + f.raw(bare, by)
		default:
			value = f.target(value)
		}
		out.WriteString(value + end)
	}
	return out.String()
}

// cookies replaces what is secret in a header Cookie or Set-Cookie: anything but the words of
// the protocol may be the backend's own secret.
func (f *findings) cookies(text string) string {
	parts := strings.Split(text, ";")
	for i, part := range parts {
		name, value, found := strings.Cut(part, "=")
		plain := strings.TrimSpace(name)
		decoded := decodeTwice(strings.TrimSpace(value))
		by := f.rule(plain, decoded)
		switch {
		case !found:
			parts[i] = f.free(part)
			continue
		case by == nil && slices.ContainsFunc([]string{"path", "domain", "expires", "max-age", "samesite", "priority"}, func(s string) bool { return strings.EqualFold(s, plain) }):
			continue
		case by == nil && f.secret != nil && f.secret("cookie", decoded):
			by = placeholder
		}
		if by != nil {
			value = f.raw(value, by)
		}
		parts[i] = name + "=" + value
	}
	return strings.Join(parts, ";")
}

var queryMark = regexp.MustCompile(`\?|%3[Ff]`)

// target replaces what is secret in a URL, or in text that may hold one.
func (f *findings) target(text string) string {
	at := queryMark.FindStringIndex(text)
	if at == nil {
		return f.pairs(text)
	}
	return f.pairs(text[:at[1]]) + f.pairs(text[at[1]:])
}

// lastName returns the name at the end of what stands before a "=".
func lastName(text string) string {
	i := len(text)
	for i > 0 && len(text)-i < 200 {
		switch b := text[i-1]; {
		case 'a' <= b && b <= 'z', 'A' <= b && b <= 'Z', '0' <= b && b <= '9', strings.IndexByte("_.%-", b) >= 0:
			i--
			continue
		}
		break
	}
	return text[i:]
}

// pairs replaces what is secret in name=value pairs that "&" separates, and in what else is
// there.
func (f *findings) pairs(text string) string {
	parts := strings.Split(text, "&")
	for i, part := range parts {
		name, value, found := strings.Cut(part, "=")
		if !found || value == "" && !f.erasing || lastName(name) == "" || value[:min(len(value), 1)] == ">" || lastName(name) != name && f.names(name) { // no pair, or in a value
			parts[i] = f.free(part)
			continue
		}
		tail := " HTTP/1." // of a request line
		if at := strings.LastIndex(value, tail); at >= 0 && len(value)-at == len(tail)+1 {
			value, tail = value[:at], value[at:]
		} else {
			tail = ""
		}
		decoded := decodeOnce(value)
		by := f.rule(decodeTwice(lastName(name)), decoded)
		if by == nil && (f.names(decoded) || f.names(decodeOnce(decoded))) {
			by = placeholder // a secret is somewhere in it
		}
		switch {
		case by != nil && f.erasing:
			last := lastName(name)
			f.named = f.named || (value != "" || last != name) && !holdsOne(value) && f.rule(decodeTwice(last), decoded) != nil
			name, value = strings.TrimSuffix(name, last)+nameless(last), ""
		case by != nil:
			value = f.raw(value, by)
		default:
			value = f.free(value)
		}
		parts[i] = f.free(name) + "=" + value + tail
	}
	return strings.Join(parts, "&")
}

// A name, and the sign after it that gives it a value, in any notation: what languages print for
// a map or an object has brackets, arrows and types there.
var assignment = regexp.MustCompile(`([A-Za-z][\w.-]{1,63})` +
	`(?::(?:["'\\]{0,2}[\w\\]{1,64}["'\\]{0,2}:)?(?:protected|private))?` +
	`(?:["'\\\s\])]|%22|%27|%5[CcDd]|%20){0,8}(?:[=:>]|%3[AaDdEe]){1,3}(?:["'\\\s]|%22|%27|%5[Cc]|%20)*` +
	`(?:(?:string\(\d{1,9}\)\s?|int\(|float\(|[bBuU]["'])["'\\]{0,2})?`)

// names reports whether text names a secret and gives its value.
func (f *findings) names(text string) bool {
	if !strings.ContainsAny(text, "=:>%") {
		return false
	}
	for _, at := range assignment.FindAllStringSubmatchIndex(text, -1) {
		if at[1] < len(text) && f.rule(text[at[2]:at[3]], "a value") != nil {
			return true
		}
	}
	return false
}

// free replaces what is secret in text without a notation that is known: what follows a name up
// to the next sign that could end it.
func (f *findings) free(text string) string {
	if !strings.ContainsAny(text, "=:>%") { // mostly, and much faster
		return text
	}
	out := f.edit(text)
	for _, at := range assignment.FindAllStringSubmatchIndex(text, -1) {
		if at[0] < out.done {
			continue
		}
		if f.unread { // then nothing else matters, and values may overlap
			break
		}
		begin := at[1]
		value := freeValue(text, at[0], begin)
		by := f.rule(text[at[2]:at[3]], decodeOnce(value))
		f.named = f.named || f.erasing && by != nil && !holdsOne(value)
		switch {
		case by == nil, !f.erasing && slices.Contains(literals, value):
		case f.erasing && at[0] > 0 && text[at[0]-1] == '/' && text[begin-1] == '>': // the end of an element
		case f.erasing && !isScalar(value, text[begin+len(value):]):
			f.unread = true
		case strings.Contains(value, `\`):
			f.add(strings.ReplaceAll(value, `\/`, "/"), by)
			out.replace(at[0], begin, begin+len(value), escaped(value))
		default:
			out.replace(at[0], begin, begin+len(value), f.raw(value, by))
		}
	}
	return out.String()
}

// freeValue returns the value that begins somewhere after an assignment: up to the quote that
// ends it, in what PHP's print_r writes up to the end of the line.
func freeValue(text string, name, begin int) string {
	rest := text[begin:]
	switch quote := text[begin-1]; {
	case quote == '"' || quote == '\'':
		slashes := len(text[name:begin-1]) - len(strings.TrimRight(text[name:begin-1], `\`))
		return rest[:endOfString(rest, quote, slashes)]
	case strings.Contains(text[name:begin], "]") && strings.Contains(text[name:begin], "=>"):
		line, _, _ := strings.Cut(rest, "\n")
		return strings.TrimSuffix(line, "\r")
	}
	for i := 0; i < len(rest); i++ {
		if rest[i] == '\\' && strings.HasPrefix(rest[i:], `\/`) { // how PHP writes a slash in JSON
			i++
		} else if strings.IndexByte("&;, \t\r\n\"'<>\\", rest[i]) >= 0 {
			return rest[:i]
		}
	}
	return rest
}

// isScalar reports whether a value is one and whole: not the beginning of several, or of one
// with spaces in it.
func isScalar(value, rest string) bool {
	if value == "" && strings.HasPrefix(rest, "<") || strings.ContainsAny(value, "([{<") {
		return false
	}
	rest = rest[:min(len(rest), 200)]
	line := strings.TrimLeft(rest, " \t")
	word := line[:len(line)-len(strings.TrimLeftFunc(line, func(r rune) bool { return !unicode.IsSpace(r) }))]
	if len(line) < len(rest) && !firstName.MatchString(word) && mayHoldSecret(word) || strings.HasPrefix(line, "[") {
		return false
	}
	line = strings.TrimLeft(line, " \t\r\n")
	return line == "" || line[0] != '(' && line[0] != '{'
}

var firstName = regexp.MustCompile(`^[\w.-]+[=:]`)

// An edit is a text in which values are replaced, or, while erasing, removed with their names.
type edit struct {
	text    string
	erasing bool
	done    int // so much of the text is in out
	out     strings.Builder
}

func (f *findings) edit(text string) *edit { return &edit{text: text, erasing: f.erasing} }

func (e *edit) replace(name, begin, end int, with string) {
	e.out.WriteString(e.text[e.done:name])
	if e.erasing {
		e.out.WriteString(nameless(e.text[name:begin]) + " ")
	} else {
		e.out.WriteString(e.text[name:begin] + with)
	}
	e.done = end
}

// nameless removes a name that was erased; but where base64 ends in "=" it may be a value.
func nameless(text string) string {
	return nameWord.ReplaceAllStringFunc(text, func(name string) string {
		if len(name) < 24 && !strings.ContainsAny(name, "0123456789") {
			return " "
		}
		return secretWord.ReplaceAllString(name, " ")
	})
}

// holdsOne reports whether a value may be the secret that a name before it promises.
func holdsOne(value string) bool {
	return !secretWord.MatchString(value) && strings.ContainsFunc(value, func(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) })
}

var nameWord = regexp.MustCompile(`[\w.%-]{2,}`)

func (e *edit) String() string { return e.out.String() + e.text[e.done:] }

// body replaces what is secret in a body, whatever notation it is in.
func (f *findings) body(text string) string {
	if text == "" {
		return ""
	}
	// A look is much cheaper than an expression.
	if strings.Contains(text, `"`) && strings.Contains(text, ":") {
		text = f.json(text)
	}
	if strings.Contains(text, ">") {
		text = f.xml(text)
	}
	if strings.Contains(text, `="`) {
		text = f.multipart(text)
	}
	if strings.Contains(text, `s:`) || strings.Contains(text, "string(") {
		text = f.sized(text)
	}
	if strings.IndexByte("{[<", text[0]) >= 0 {
		return f.free(text)
	}
	return f.pairs(text)
}

// Words of the protocol and its neighbours that promise a secret, however they are written.
var secretWord = regexp.MustCompile(`(?i)(?:open|pf|app|session|private)[\W_]{0,2}key|(?:pay|access|refresh|ac)[\W_]{0,2}token|secret|(?:open|union)[\W_]{0,2}id|signature|(?:\b|_|pay|event)sig\b`)

// Parts of the names for which rule returns anything, misspelt ones aside, and of secretWord.
var secretParts = []string{"key", "token", "secret", "pass", "sess", "auth", "ticket", "cookie", "id", "sig", "user"}

// A run of characters that may be a secret.
var valueWord = regexp.MustCompile(`[A-Za-z0-9+/=_]{6,}`)

var encrypted = regexp.MustCompile(`("Encrypt"\s*:\s*"|<Encrypt>(?:<!\[CDATA\[)?)((?:[A-Za-z0-9+/]|\\/){64,}={0,2})("|\]\]></Encrypt>|</Encrypt>)`)

// withoutCiphertext takes the ciphertext out of a push, since it may hold any word by chance. WeChat pads to 32 bytes.
func withoutCiphertext(text string) string {
	return encrypted.ReplaceAllStringFunc(text, func(field string) string {
		part := encrypted.FindStringSubmatch(field)
		bytes, err := base64.StdEncoding.DecodeString(strings.ReplaceAll(part[2], `\/`, "/"))
		if err != nil || len(bytes)%32 != 0 {
			return field
		}
		return part[1] + part[3]
	})
}

// conceals reports whether a body may hold a secret that is not replaced: it names one whose
// value is not found. Where nothing in it but words could be one, it is an error message.
func (f *findings) conceals(text string, everywhere func(string) string) bool {
	bare := withoutCiphertext(text)
	sealed := bare != text
	text = bare
	if all := strings.ToLower(unescape(decodeTwice(text))); !slices.ContainsFunc(secretParts, func(part string) bool { return strings.Contains(all, part) }) {
		return false // mostly, and much faster
	}
	left := &findings{masker: f.masker, values: f.values, known: f.known, erasing: true}
	text = left.body(text)
	if left.unread {
		return true
	}
	text = html.UnescapeString(unescape(decodeTwice(everywhere(text))))
	if !left.named && !secretWord.MatchString(text) {
		return false
	}
	text = secretWord.ReplaceAllString(text, " ")
	return sealed || mayHoldSecret(text) // what stands beside the name of a secret need not be ciphertext
}

func mayHoldSecret(text string) bool {
	return slices.ContainsFunc(valueWord.FindAllString(text, -1), func(s string) bool { return !areWords(s) && placeholder(s) != s })
}

// areWords reports whether s is words of small letters, the first perhaps with a capital.
func areWords(s string) bool {
	for _, word := range strings.FieldsFunc(s, func(r rune) bool { return strings.ContainsRune("+/=_", r) }) {
		if len(word) > 16 || len(word) >= minValue && strings.ContainsAny(word, "0123456789") || strings.ToLower(word[1:]) != word[1:] && len(word) >= minValue {
			return false
		}
	}
	return true
}

// A field of JSON, also of JSON in a string of JSON, up to its value.
var (
	jsonField  = regexp.MustCompile(`(\\*)"((?:[^"\\]|\\+u[0-9a-fA-F]{4}){1,64})\\*"\s*:\s*(?:(\\*)"|(-?[0-9][0-9.eE+-]*)|([\[{])|(null|true|false))`)
	jsonEscape = regexp.MustCompile(`\\+u([0-9a-fA-F]{4})`)
)

// unescape replaces the escapes of JSON for a character by it.
func unescape(text string) string {
	if !strings.Contains(text, `\u`) {
		return text
	}
	return jsonEscape.ReplaceAllStringFunc(text, func(escape string) string {
		var s string
		_ = json.Unmarshal([]byte(`"\u`+escape[len(escape)-4:]+`"`), &s)
		return s
	})
}

func (f *findings) json(text string) string {
	out := f.edit(text)
	for _, at := range jsonField.FindAllStringSubmatchIndex(text, -1) {
		if at[0] < out.done {
			continue
		}
		name := unescape(text[at[4]:at[5]])
		switch {
		case at[10] >= 0:
			if f.rule(name, "a value") != nil {
				end := at[10] + endOfContainer(text[at[10]:])
				f.unread = f.unread || f.erasing && !endsField(text[end:])
				out.replace(at[0], at[10], end, f.scalars(name, text[at[10]:end]))
			}
		case at[12] >= 0:
			if f.erasing && f.rule(name, "a value") != nil {
				f.unread = f.unread || !endsField(text[at[13]:])
				out.replace(at[0], at[12], at[13], "")
			}
		default:
			begin, end := at[8], at[9] // of a number
			if begin < 0 {
				begin = at[1]
				end = begin + endOfString(text[begin:], '"', at[7]-at[6])
			}
			if made, secret := f.scalar(name, text[begin:end]); secret {
				f.unread = f.unread || f.erasing && !endsField(strings.TrimLeft(text[end:], `\"`))
				out.replace(at[0], begin, end, made)
			}
		}
	}
	return out.String()
}

// endsField reports whether nothing that follows a value of JSON can be a part of it.
func endsField(rest string) bool {
	rest = strings.TrimLeft(rest, " \t\r\n")
	return rest == "" || strings.IndexByte(",}]", rest[0]) >= 0
}

// literals are the values of JSON that are no secret.
var literals = []string{"null", "true", "false"}

// scalar returns what replaces a string or number of JSON.
func (f *findings) scalar(name, value string) (made string, secret bool) {
	decoded := value
	if json.Unmarshal([]byte(`"`+value+`"`), &decoded) != nil {
		decoded = value
	}
	by := f.rule(name, decoded)
	if by == nil {
		return value, false
	}
	made = escaped(value)
	if !strings.Contains(value, `\`) {
		made = by(value)
	}
	f.add(decoded, by)
	return made, true
}

// A string of JSON up to its first character, a bare word or number, or a bracket.
var jsonToken = regexp.MustCompile(`(\\*)"|[^\s,:\[\]{}"\\]+|[\[\]{}]`)

// tokens calls each for the tokens of JSON until it returns false. Of a string begin and end are
// those of what is between its quotes, and next is where the text goes on after it.
func tokens(text string, each func(isString bool, begin, end, next int) bool) {
	for i := 0; i < len(text); {
		at := jsonToken.FindStringSubmatchIndex(text[i:])
		if at == nil {
			return
		}
		isString := at[2] >= 0
		begin, end := i+at[0], i+at[1]
		next := end
		if isString {
			begin = end
			end += endOfString(text[begin:], '"', at[3]-at[2])
			next = min(end+at[1]-at[0], len(text))
		}
		if !each(isString, begin, end, next) {
			return
		}
		i = next
	}
}

// endOfContainer returns where the array or object ends that text begins with.
func endOfContainer(text string) int {
	depth, length := 0, len(text)
	tokens(text, func(isString bool, begin, end, next int) bool {
		switch {
		case isString:
		case text[begin] == '[' || text[begin] == '{':
			depth++
		case text[begin] == ']' || text[begin] == '}':
			depth--
		}
		if depth == 0 {
			length = next
		}
		return depth > 0
	})
	return length
}

// scalars replaces every scalar in an array or object, and the names of fields that are no words.
func (f *findings) scalars(name, text string) string {
	var out strings.Builder
	done := 0
	tokens(text, func(isString bool, begin, end, next int) bool {
		value := text[begin:end]
		switch {
		case strings.ContainsAny(value[:min(len(value), 1)], "[]{}") && !isString, !isString && slices.Contains(literals, value):
			return true
		case isString && areWords(value) && strings.HasPrefix(strings.TrimLeft(text[next:], " \t\r\n"), ":"):
			return true
		}
		made, _ := f.scalar(name, value)
		out.WriteString(text[done:begin] + made)
		done = end
		return true
	})
	return out.String() + text[done:]
}

// endOfString returns where a string ends whose quotes have so many backslashes before them.
func endOfString(text string, quote byte, slashes int) int {
	run := 0
	for i := range len(text) {
		switch text[i] {
		case '\\':
			run++
			continue
		case quote:
			if run <= slashes {
				return i - run
			}
		}
		run = 0
	}
	return len(text)
}

// escaped is placeholder for a string of JSON with escapes, which stay escapes.
func escaped(text string) string {
	var out strings.Builder
	for i := 0; i < len(text); {
		begin := i
		for i < len(text) && text[i] == '\\' {
			i++
		}
		out.WriteString(text[begin:i])
		switch {
		case i == len(text):
		case i > begin && text[i] == 'u' && len(text)-i >= 5:
			out.WriteString("u003F")
			i += 5
		case i > begin:
			out.WriteByte(text[i])
			i++
		default:
			out.WriteString(placeholder(text[i : i+1]))
			i++
		}
	}
	return out.String()
}

var (
	xmlElement = regexp.MustCompile(`<([A-Za-z_][\w:.-]{0,63})(?:\s[^<>]{0,200})?>\s*(<!\[CDATA\[)?`)
	xmlEnd     = regexp.MustCompile(`^(?:\]\]>)?\s{0,20}(?:$|</[^<>]{0,80}>)`)
)

func (f *findings) xml(text string) string {
	out := f.edit(text)
	for _, at := range xmlElement.FindAllStringSubmatchIndex(text, -1) {
		if at[0] < out.done {
			continue
		}
		stop := "<"
		if at[4] >= 0 {
			stop = "]]>"
		}
		value, _, _ := strings.Cut(text[at[1]:], stop)
		decoded := value
		if at[4] < 0 {
			decoded = html.UnescapeString(value)
		}
		by := f.rule(text[at[2]:at[3]], decoded)
		if by == nil {
			continue
		}
		made := by(value)
		if decoded != value {
			made = placeholder(value)
		}
		f.add(decoded, by)
		end := at[1] + len(value)
		if f.erasing {
			closed := xmlEnd.FindString(text[end:])
			f.unread = f.unread || closed == "" && end < len(text) // there are elements in it
			end += len(closed)
		}
		out.replace(at[0], at[1], end, made)
	}
	return out.String()
}

var formPart = regexp.MustCompile(`(?i)name="([^"\r\n]{1,64})"[^\r\n]*\r?\n(?:[^\r\n]+\r?\n){0,8}\r?\n`)

func (f *findings) multipart(text string) string {
	out := f.edit(text)
	for _, at := range formPart.FindAllStringSubmatchIndex(text, -1) {
		if at[0] < out.done {
			continue
		}
		value, _, _ := strings.Cut(text[at[1]:], "\n--")
		value = strings.TrimSuffix(value, "\r")
		if by := f.rule(text[at[2]:at[3]], value); by != nil {
			out.replace(at[0], at[1], at[1]+len(value), by(value))
			f.add(value, by)
		}
	}
	return out.String()
}

// A name and the length of its value, as PHP's serialize, its sessions and var_dump write them.
var sizedField = regexp.MustCompile(`([A-Za-z][\w.-]{1,63})(?:\\*";|\||["'\]:\w]{1,80}=>\s*)(?:s:|string\()(\d{1,6})(?::|\) )\\*"`)

func (f *findings) sized(text string) string {
	out := f.edit(text)
	for _, at := range sizedField.FindAllStringSubmatchIndex(text, -1) {
		length, _ := strconv.Atoi(text[at[4]:at[5]])
		end := min(at[1]+length, len(text)) // it may be cut
		if at[0] < out.done || end < len(text) && strings.IndexByte(`\"`, text[end]) < 0 {
			continue // with escapes in it, it is longer
		}
		value := text[at[1]:end]
		if by := f.rule(text[at[2]:at[3]], value); by != nil {
			out.replace(at[0], at[1], end, by(value))
			f.add(value, by)
		}
	}
	return out.String()
}

// raw replaces a percent-encoded value, whose escapes stay escapes.
func (f *findings) raw(value string, by replacer) string {
	decoded, shape := decode(value)
	f.add(decoded, by)
	if strings.Contains(value, "+") { // which may be a space
		f.add(decodeOnce(strings.ReplaceAll(value, "+", " ")), by)
	}
	if twice := decodeOnce(decoded); twice != decoded {
		f.add(twice, by)
		if inner, _ := decode(decoded); inner != decoded { // %252B: what is inside is escaped, too
			return encodeAs(f.raw(decoded, by), shape)
		}
	}
	return encodeAs(by(decoded), shape)
}

// decode decodes %XX and returns which bytes were escaped.
func decode(s string) (decoded string, shape []bool) {
	if strings.IndexByte(s, '%') < 0 {
		return s, nil
	}
	var out []byte
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if b, err := url.PathUnescape(s[i : i+3]); err == nil {
				out, shape = append(out, b...), append(shape, true)
				i += 2
				continue
			}
		}
		out, shape = append(out, s[i]), append(shape, false)
	}
	return string(out), shape
}

// encodeAs escapes the bytes that were escaped.
func encodeAs(s string, shape []bool) string {
	var out strings.Builder
	for i := range len(s) {
		if i < len(shape) && shape[i] {
			fmt.Fprintf(&out, "%%%02X", s[i])
		} else {
			out.WriteByte(s[i])
		}
	}
	return out.String()
}

func decodeOnce(s string) string {
	decoded, _ := decode(s)
	return decoded
}

func decodeTwice(s string) string { return decodeOnce(decodeOnce(s)) }

// replacer returns what replaces every value found, in each way that it could be written. Where
// two overlap, all that they cover becomes a placeholder.
func (f *findings) replacer() func(string) string {
	var all []replacement
	seen := map[string]bool{}
	for _, v := range f.values {
		for _, write := range notations {
			if old := write(v.old); !seen[old] {
				seen[old] = true
				all = append(all, replacement{old, write(v.new)})
			}
		}
	}
	return func(text string) string {
		type span struct {
			begin, end int
			by         string // "" for a placeholder
		}
		var spans []span
		for _, r := range all {
			for at := 0; ; at++ {
				i := strings.Index(text[at:], r.old)
				if i < 0 {
					break
				}
				at += i
				spans = append(spans, span{at, at + len(r.old), r.new})
			}
			// What was cut off in the middle of a value ends with the beginning of one.
			for n := min(len(r.old)-1, len(text)); n >= minValue; n-- {
				if text[len(text)-n] == r.old[0] && strings.HasSuffix(text, r.old[:n]) {
					spans = append(spans, span{len(text) - n, len(text), ""})
					break
				}
			}
		}
		slices.SortFunc(spans, func(a, b span) int { return cmp.Or(cmp.Compare(a.begin, b.begin), cmp.Compare(b.end, a.end)) })
		var out strings.Builder
		done := 0
		for i := 0; i < len(spans); {
			s := spans[i]
			for i++; i < len(spans) && spans[i].begin < s.end; i++ {
				if spans[i].end > s.end {
					s.end, s.by = spans[i].end, ""
				}
			}
			if s.by == "" {
				decoded, shape := decode(text[s.begin:s.end])
				s.by = encodeAs(placeholder(decoded), shape)
			}
			out.WriteString(text[done:s.begin] + s.by)
			done = s.end
		}
		return out.String() + text[done:]
	}
}

// notations are the ways in which a value is written that was sent in another one.
var notations = []func(string) string{
	func(s string) string { return s },
	url.QueryEscape,
	url.PathEscape,
	func(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") },
	func(s string) string { return lowerEscapes(url.QueryEscape(s)) },
	func(s string) string { return url.QueryEscape(url.QueryEscape(s)) },
	html.EscapeString,
	func(s string) string { return html.EscapeString(url.QueryEscape(s)) },
	func(s string) string {
		quoted, _ := encode(s)
		return string(quoted[1 : len(quoted)-1])
	},
	func(s string) string { return strings.ReplaceAll(s, "/", `\/`) },
	func(s string) string {
		quoted, _ := json.Marshal(s)
		return string(quoted[1 : len(quoted)-1])
	},
}

var escapes = regexp.MustCompile(`%[0-9A-F]{2}`)

func lowerEscapes(s string) string { return escapes.ReplaceAllStringFunc(s, strings.ToLower) }
