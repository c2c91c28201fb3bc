package minigame

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"strings"
)

const (
	encodingAESKeyLength = 43 // characters, minigame.md 2.3
	frameHead            = 16 + 4
	paddingBlock         = 32 // PKCS#7 pads to 32, not to the cipher's 16
)

// errDecrypt is the one error for everything that is wrong with an encrypted push: which
// check failed would help only an attacker.
var errDecrypt = errors.New("does not decrypt: check EncodingAESKey and AppID")

// DecryptPush returns the message of a push in secure mode (minigame.md 2.3). encrypted
// is the value of Encrypt, encodingAESKey the 43 characters of the console, appID the
// account's own.
//
// Decryption does not authenticate: compare the msg_signature first, see
// [PushSignature]. Whatever is wrong with encrypted, the error is the same, and so for an appID that does
// not match; an encodingAESKey that is no key has an error of its own.
func DecryptPush(encodingAESKey, appID, encrypted string) ([]byte, error) {
	key, err := aesKey(encodingAESKey)
	if err != nil {
		return nil, err
	}
	frame, err := base64.StdEncoding.DecodeString(encrypted)
	if err != nil || len(frame) == 0 || len(frame)%aes.BlockSize != 0 || strings.ContainsAny(encrypted, "\r\n") {
		return nil, errDecrypt
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, errDecrypt
	}
	cipher.NewCBCDecrypter(block, key[:aes.BlockSize]).CryptBlocks(frame, frame)

	last := frame[len(frame)-1:]
	padding := int(last[0])
	if padding < 1 || padding > paddingBlock || padding > len(frame)-frameHead || !bytes.HasSuffix(frame, bytes.Repeat(last, padding)) {
		return nil, errDecrypt
	}
	frame = frame[:len(frame)-padding]
	length, rest := binary.BigEndian.Uint32(frame[16:frameHead]), frame[frameHead:]
	if uint64(length) > uint64(len(rest)) || string(rest[length:]) != appID {
		return nil, errDecrypt
	}
	return rest[:length:length], nil
}

// EncryptPush is the inverse of [DecryptPush]: what WeChat does with a push, and a server
// with the few answers that must be encrypted. Each call gives another result, since the
// frame begins with random bytes.
func EncryptPush(encodingAESKey, appID string, message []byte) (string, error) {
	random := make([]byte, 16)
	_, _ = rand.Read(random) // never fails
	return encrypt(encodingAESKey, appID, random, message)
}

func encrypt(encodingAESKey, appID string, random, message []byte) (string, error) {
	key, err := aesKey(encodingAESKey)
	if err != nil {
		return "", err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return "", err
	}
	frame := make([]byte, 0, frameHead+len(message)+len(appID)+paddingBlock)
	frame = append(frame, random...)
	frame = binary.BigEndian.AppendUint32(frame, uint32(len(message)))
	frame = append(append(frame, message...), appID...)
	padding := paddingBlock - len(frame)%paddingBlock
	frame = append(frame, bytes.Repeat([]byte{byte(padding)}, padding)...)
	cipher.NewCBCEncrypter(block, key[:aes.BlockSize]).CryptBlocks(frame, frame)
	return base64.StdEncoding.EncodeToString(frame), nil
}

// aesKey decodes an EncodingAESKey. The decoder is not a strict one: the last character
// may carry bits that do not count, and in Tencent's own sample it does.
func aesKey(encoded string) ([]byte, error) {
	key, err := base64.RawStdEncoding.DecodeString(encoded)
	if err != nil || len(encoded) != encodingAESKeyLength || len(key) != 32 {
		return nil, errors.New("minigame: an EncodingAESKey has 43 characters, A-Z a-z 0-9 + /")
	}
	return key, nil
}
