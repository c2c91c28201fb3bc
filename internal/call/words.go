package call

import (
	"regexp"
	"strings"
	"unicode"
)

// Withheld stands in place of foreign text that may hold a secret.
const Withheld = "[withheld]"

const (
	// maxForeign is how much foreign text is shown, in bytes: the server's message and that
	// of a network fault are a sentence.
	maxForeign = 256

	// pieceLength is the shortest piece of a value, in bytes, that counts as a leak. A shorter
	// value cannot be told from ordinary text: a guest's openkey may be "1".
	pieceLength = 8

	// A credential is a long run of letters and digits, in whatever notation; or many short
	// ones, as a list of its bytes is. Words are neither.
	maxWord       = 20 // bytes of a run
	maxWithDigits = 3  // runs with a digit in them
	maxShort      = 4  // runs of one or two bytes that follow each other
)

// Clip returns the part of foreign text that is looked at: its first 256 bytes, no character
// cut in two.
func Clip(text string) string {
	if len(text) > maxForeign {
		text = strings.TrimRight(strings.ToValidUTF8(text[:maxForeign], "\uFFFD"), "\uFFFD") + "…"
	}
	return text
}

// Words returns foreign text the way errors and logs show it: only if it is plain words, and
// holds no 8-byte piece of a value. It costs time linear in the text and the values; what they
// hold does not matter.
func Words(text string, values []string) string {
	text = Clip(text)
	if !plain(text) || holdsPiece(text, values) {
		return Withheld
	}
	return text
}

func plain(text string) bool {
	var word, withDigits, short int
	digit := false
	end := func() bool { // of a run
		switch {
		case word > maxWord, word >= pieceLength && digit:
			return false
		case word == 0:
			return true
		case word <= 2:
			short++
		default:
			short = 0
		}
		if digit {
			withDigits++
		}
		word, digit = 0, false
		return short <= maxShort && withDigits <= maxWithDigits
	}
	for _, r := range text {
		switch {
		case '0' <= r && r <= '9':
			word, digit = word+1, true
		case 'A' <= r && r <= 'Z', 'a' <= r && r <= 'z', r == '_', r == '-': // base64 has "-" too
			word++
		case unicode.IsLetter(r), strings.ContainsRune(" .,:;!()[]/。，：；！（）、“”…", r):
			if !end() {
				return false
			}
		default:
			return false
		}
	}
	return end()
}

func holdsPiece(text string, values []string) bool {
	for i := 0; i+pieceLength <= len(text); i++ {
		for _, value := range values {
			if strings.Contains(value, text[i:i+pieceLength]) {
				return true
			}
		}
	}
	return false
}

var (
	errCode     = regexp.MustCompile(`^-?\d{1,4}(-{1,2}\d{1,4})*$`)
	requestID   = regexp.MustCompile(`,? rid: [0-9a-f]{8}-[0-9a-f]{8}-[0-9a-f]{8}$`)
	contentType = regexp.MustCompile(`^[a-z]+/[a-z.+-]{1,40}$`)
)

// Code is Words for an err_code of Midas, such as "1018--2-20".
func Code(code string, values []string) string {
	if code != "" && (len(code) > 16 || !errCode.MatchString(code) || holdsPiece(code, values)) {
		return Withheld
	}
	return code
}

// WithRequestID is Words for a message of WeChat's, which ends in the id of the request:
// "system error rid: 69ddee24-00000000-00000000".
func WithRequestID(text string, values []string) string {
	text = strings.TrimRight(text, " ")
	at := len(text)
	if found := requestID.FindStringIndex(text); found != nil {
		at = found[0]
	}
	message, id := Words(text[:at], values), text[at:]
	if holdsPiece(id, values) {
		return Withheld
	}
	return message + id
}

// ContentType returns the media type in a header Content-Type, or "" where it is odd.
func ContentType(header string, values []string) string {
	mediaType, _, _ := strings.Cut(header, ";")
	mediaType = strings.ToLower(strings.TrimSpace(mediaType))
	if !contentType.MatchString(mediaType) || holdsPiece(mediaType, values) {
		return ""
	}
	return mediaType
}
