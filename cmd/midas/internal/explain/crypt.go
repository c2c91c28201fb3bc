package explain

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"encoding/binary"
	"slices"
	"strings"

	"github.com/midas-go/midas/cmd/midas/internal/lang"
)

// open decrypts a push with the first EncodingAESKey that does and returns what is in it, or
// nil: then it says at which step the last one fails. (Package minigame tells nobody: there the
// caller may be an attacker.)
func (e *Explanation) open(m *Message, o Options) (inner *Message) {
	var s Signature
	for _, key := range o.AESKeys {
		if s, inner = e.openWith(m, key, o.AppID); inner != nil {
			break
		}
	}
	e.Signatures = append(e.Signatures, s)
	return inner
}

// openWith does the steps of minigame.md 2.2, AES.
func (e *Explanation) openWith(m *Message, encodingKey, appID string) (s Signature, inner *Message) {
	s = Signature{Name: "Encrypt", Received: m.encrypt}
	fail := func(step string, args ...any) (Signature, *Message) {
		by := search{contexts: []string{".mini"}}
		s.Findings = []Finding{{by.new(step, args...)}}
		return s, nil
	}
	const keyLength, block, head = 43, 32, 16 + 4
	if len(encodingKey) != keyLength {
		return fail("aes-key-length", len(encodingKey), keyLength)
	}
	key, err := base64.RawStdEncoding.DecodeString(encodingKey) // not a strict one: Tencent's own sample needs that
	if err != nil {
		return fail("aes-key-not-base64")
	}
	if strings.ContainsAny(m.encrypt, " ") {
		return fail("encrypt-plus-lost")
	}
	frame, err := base64.StdEncoding.DecodeString(m.encrypt)
	if err != nil {
		return fail("encrypt-not-base64")
	}
	if len(frame) == 0 || len(frame)%aes.BlockSize != 0 {
		return fail("encrypt-cut", len(frame), aes.BlockSize)
	}
	c, _ := aes.NewCipher(key) // 43 characters are 32 bytes
	cipher.NewCBCDecrypter(c, key[:aes.BlockSize]).CryptBlocks(frame, frame)
	padding := int(frame[len(frame)-1])
	if padding < 1 || padding > block || padding > len(frame) || slices.ContainsFunc(frame[len(frame)-padding:], func(b byte) bool { return int(b) != padding }) {
		return fail("other-aes-key", block)
	}
	if frame = frame[:len(frame)-padding]; len(frame) < head {
		return fail("frame-too-short", len(frame), head)
	}
	length, rest := uint64(binary.BigEndian.Uint32(frame[16:head])), frame[head:]
	if length > uint64(len(rest)) {
		return fail("frame-length", length, len(rest))
	}
	message, behind := string(rest[:length]), string(rest[length:])
	if appID != "" && behind != appID {
		return fail("other-app-id", behind, appID)
	}
	if appID == "" {
		e.note("note.app-id", behind)
	}
	if padding > aes.BlockSize {
		e.note("note.padding", padding, aes.BlockSize)
	}
	s.Verified, s.Signed = true, message
	inner = &Message{Kind: Push}
	if err := inner.readPush(message); err != nil {
		e.refuse(lang.T("problem.inner", err))
	}
	return s, inner
}
