package minigame

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"strconv"
)

// A Reply is the answer to a push (minigame.md 2.3, 3.3 and 4.3). [Push.Reply] and
// [Push.ReplyAdvice] make one.
type Reply struct {
	ok          bool
	contentType string
	body        string
}

// OK reports whether the answer acknowledges the push. WeChat sends others again.
func (r Reply) OK() bool { return r.ok }

// Bytes returns the body to send, with status 200, Content-Length and nothing around it.
func (r Reply) Bytes() []byte { return []byte(r.body) }

// ContentType returns the value of the header Content-Type.
func (r Reply) ContentType() string { return r.contentType }

const (
	typeJSON = "application/json"
	typeXML  = "application/xml"
	typeText = "text/plain; charset=utf-8"

	failedJSON = `{"ErrCode":99999,"ErrMsg":"internal error"}`
	failedXML  = `<xml><ErrCode>99999</ErrCode><ErrMsg>internal error</ErrMsg></xml>`
)

// Reply returns the answer to p: nil acknowledges it, any error asks for it again. What
// the error says is not sent. The zero Push can only be refused, with any error.
func (p *Push) Reply(err error) Reply {
	switch {
	case err != nil && p.xml:
		return Reply{false, typeXML, failedXML}
	case err != nil || !p.verified:
		return Reply{false, typeJSON, failedJSON}
	case p.flat: // the bare word is right for every message, and needs no encryption
		return Reply{true, typeText, "success"}
	case p.xml:
		return Reply{true, typeXML, `<xml><ErrCode>0</ErrCode><ErrMsg>Success</ErrMsg></xml>`}
	}
	return Reply{true, typeJSON, `{"ErrCode":0,"ErrMsg":"Success"}`}
}

// ReplyAdvice returns the answer to a RefundInquiry, encrypted as it came.
func (p *Push) ReplyAdvice(a Advice) Reply {
	if p.key == nil { // it is none
		return p.Reply(errors.New("no question"))
	}
	code := 0
	if a.Against {
		code = 1
	}
	plain := p.marshal(struct {
		XMLName  xml.Name `json:"-" xml:"xml"`
		Code     int      `json:"result_code" xml:"result_code"`
		Info     string   `json:"result_info" xml:"result_info"`
		Evidence string   `json:"evidence" xml:"evidence"`
	}{Code: code, Info: a.Info, Evidence: a.Evidence})
	key := p.key()
	encrypted, err := EncryptPush(string(key.EncodingAESKey), p.appID, plain.Bytes())
	if err != nil {
		return p.Reply(err)
	}
	stamp, _ := strconv.ParseInt(p.timestamp, 10, 64)
	return p.marshal(struct {
		XMLName      xml.Name `json:"-" xml:"xml"`
		Encrypt      string
		MsgSignature string
		TimeStamp    int64
		Nonce        string
	}{Encrypt: encrypted, MsgSignature: PushSignature(string(key.Token), strconv.FormatInt(stamp, 10), p.nonce, encrypted), TimeStamp: stamp, Nonce: p.nonce})
}

// marshal writes an answer, which is of strings and numbers, in the format of the push.
func (p *Push) marshal(answer any) Reply {
	if p.xml {
		body, _ := xml.Marshal(answer)
		return Reply{true, typeXML, string(body)}
	}
	body, _ := json.Marshal(answer)
	return Reply{true, typeJSON, string(body)}
}
