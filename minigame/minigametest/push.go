package minigametest

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha1"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/midas-go/midas/minigame"
)

// Patience is how long WeChat waits for the answer to a push.
const Patience = 3 * time.Second

// schedule is the waits before a delivery is pushed again (minigame.md 3.3).
var schedule = []time.Duration{
	15 * time.Second, 15 * time.Second, 30 * time.Second, 3 * time.Minute, 10 * time.Minute, 20 * time.Minute, 30 * time.Minute, 30 * time.Minute,
	30 * time.Minute, time.Hour, 3 * time.Hour, 3 * time.Hour, 3 * time.Hour, 6 * time.Hour, 6 * time.Hour,
}

// doubling is the schedule of mini programs (minigame.md 4.3), its unit taken for seconds.
func doubling() (waits []time.Duration) {
	for i := range 15 {
		waits = append(waits, 2*time.Second<<i)
	}
	return waits
}

// A push is a message on its way.
type push struct {
	event    string
	env      minigame.Env
	payload  object // of mini games, signed
	flat     object // of mini programs
	raw      string // or any message, as it is
	mock     bool
	order    *order // delivered once the push is accepted; nil if there is none
	schedule []time.Duration
	tries    int
	due      time.Time
}

// A Receipt is what became of one push.
type Receipt struct {
	Event    string
	Try      int // counts from 1
	Status   int // HTTP status; 0 without an answer
	Body     []byte
	Accepted bool
	Reason   string // why it is not accepted; empty if it is

	Advice *minigame.Advice // the answer to AskRefund; nil if it is none
}

// Push posts any message, in the Server's mode, once. message is JSON or XML.
func (s *Server) Push(ctx context.Context, message string) (*Receipt, error) {
	return s.push(ctx, &push{event: "a message", raw: message})
}

// push posts a message, and queues it for its next try if it is not accepted. What ctx ended is
// no try: it waits as before, unless it is a message that is pushed once.
func (s *Server) push(ctx context.Context, p *push) (*Receipt, error) {
	if p.tries == 0 {
		p.due = s.cfg.Now()
	}
	receipt, err := s.try(ctx, p)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		if len(p.schedule) > 0 {
			s.pushes = append(s.pushes, p)
		}
		return nil, err
	}
	p.tries++
	switch {
	case receipt.Accepted:
		if p.order != nil {
			p.order.delivered = true
		}
	case p.tries <= len(p.schedule):
		p.due = s.cfg.Now().Add(p.schedule[p.tries-1])
		s.pushes = append(s.pushes, p)
	}
	return receipt, nil
}

// NextPush returns when the next push is due, and whether any is waiting.
func (s *Server) NextPush() (due time.Time, waiting bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.pushes {
		if due.IsZero() || p.due.Before(due) {
			due = p.due
		}
	}
	return due, len(s.pushes) > 0
}

// PushDue posts the pushes whose time has come by Config.Now. If ctx ends, the one under way
// and those that it did not come to are still waiting.
func (s *Server) PushDue(ctx context.Context) ([]*Receipt, error) {
	now := s.cfg.Now()
	var receipts []*Receipt
	for p := s.takeDue(now); p != nil; p = s.takeDue(now) {
		receipt, err := s.push(ctx, p)
		if err != nil {
			return receipts, err
		}
		receipts = append(receipts, receipt)
	}
	return receipts, nil
}

// takeDue takes a push whose time has come out of the queue; nil if there is none.
func (s *Server) takeDue(now time.Time) *push {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.pushes, func(p *push) bool { return !p.due.After(now) })
	if i < 0 {
		return nil
	}
	p := s.pushes[i]
	s.pushes = slices.Delete(s.pushes, i, i+1)
	return p
}

// Repeat posts the delivery of an order again, accepted or not, as WeChat may.
func (s *Server) Repeat(ctx context.Context, env minigame.Env, outTradeNo string) (*Receipt, error) {
	s.mu.Lock()
	o := s.orders[orderKey(env, outTradeNo)]
	s.mu.Unlock()
	if o == nil {
		return nil, &ClientError{-15017, "no such order"}
	}
	return s.pushOrder(ctx, o)
}

// Verify is the console's GET: it returns nil if the answer is the echostr and nothing else.
func (s *Server) Verify(ctx context.Context) error {
	query := s.signedQuery()
	echo := rand.Text()
	query.Set("echostr", echo)
	status, body, err := s.do(ctx, http.MethodGet, query, "")
	switch {
	case err != nil:
		return err
	case status != 200 || string(body) != echo:
		return fmt.Errorf("minigametest: verification: status %d, %q in place of the echostr", status, body)
	}
	return nil
}

func (s *Server) signedQuery() url.Values {
	timestamp, nonce := strconv.FormatInt(s.cfg.Now().Unix(), 10), strconv.Itoa(int(rand.Text()[0])*7919)
	return url.Values{"timestamp": {timestamp}, "nonce": {nonce}, "signature": {sortedSHA1(s.cfg.Token, timestamp, nonce)}}
}

func sortedSHA1(parts ...string) string {
	slices.Sort(parts)
	sum := sha1.Sum([]byte(strings.Join(parts, "")))
	return hex.EncodeToString(sum[:])
}

func (s *Server) try(ctx context.Context, p *push) (*Receipt, error) {
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	message := s.message(p)
	query, body := s.signedQuery(), message
	if s.cfg.Mode != Plaintext {
		encrypted, err := minigame.EncryptPush(s.cfg.EncodingAESKey, s.cfg.AppID, []byte(message))
		if err != nil {
			return nil, err
		}
		query.Set("encrypt_type", "aes")
		query.Set("msg_signature", sortedSHA1(s.cfg.Token, query.Get("timestamp"), query.Get("nonce"), encrypted))
		outer := object{"ToUserName": "gh_0", "Encrypt": encrypted}
		if s.cfg.Mode == Compatible {
			outer["Event"], outer["MsgType"] = p.event, "event"
		}
		body = s.write(outer)
	}
	patience, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	receipt := &Receipt{Event: p.event, Try: p.tries + 1}
	var err error
	receipt.Status, receipt.Body, err = s.do(patience, http.MethodPost, query, body)
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.Is(err, errNoURL):
		return nil, err
	case patience.Err() != nil: // even if the answer came, it came too late
		receipt.Reason = "no answer within 3s"
	case err != nil:
		if with := new(url.Error); errors.As(err, &with) { // what comes before is the URL with its signatures
			err = with.Err
		}
		receipt.Reason = "no answer: " + err.Error()
	default:
		receipt.Advice = s.advice(receipt.Body)
		if receipt.Advice == nil {
			receipt.Reason = s.judge(receipt.Status, receipt.Body, strings.HasPrefix(message, "<"))
		}
	}
	receipt.Accepted = receipt.Reason == ""
	return receipt, nil
}

// message writes a push in the Server's format.
func (s *Server) message(p *push) string {
	if p.raw != "" {
		return p.raw
	}
	m := object{"ToUserName": "gh_0", "FromUserName": "o0", "CreateTime": s.cfg.Now().Unix(), "MsgType": "event", "Event": p.event}
	maps.Copy(m, p.flat)
	if p.payload != nil {
		payload, _ := json.Marshal(p.payload)
		m["MiniGame"] = object{"Payload": string(payload), "PayEventSig": hexMAC(s.appKey(p.env), p.event+"&"+string(payload)), "IsMock": p.mock}
	}
	return s.write(m)
}

func (s *Server) write(m object) string {
	if !s.cfg.XML {
		text, _ := json.Marshal(m)
		return string(text)
	}
	var b strings.Builder
	writeXML(&b, "xml", m)
	return b.String()
}

func writeXML(b *strings.Builder, name string, value any) {
	if list, ok := value.([]object); ok {
		for _, element := range list {
			writeXML(b, name, element)
		}
		return
	}
	fmt.Fprintf(b, "<%s>", name)
	if members, ok := value.(object); ok {
		names := make([]string, 0, len(members))
		for member := range members {
			names = append(names, member)
		}
		slices.Sort(names)
		for _, member := range names {
			writeXML(b, member, members[member])
		}
	} else {
		_ = xml.EscapeText(b, []byte(fmt.Sprint(value))) // a Builder does not fail
	}
	fmt.Fprintf(b, "</%s>", name)
}

// judge says why WeChat does not take an answer for an acknowledgement, or "".
func (s *Server) judge(status int, body []byte, isXML bool) string {
	if status != http.StatusOK {
		return fmt.Sprintf("status %d", status)
	}
	if s.cfg.MiniProgram && (len(body) == 0 || string(body) == "success") {
		return ""
	}
	var code string
	if isXML {
		var in struct{ ErrCode *int }
		d := xml.NewDecoder(bytes.NewReader(body))
		if d.Decode(&in) != nil || in.ErrCode == nil || len(bytes.TrimSpace(body[d.InputOffset():])) > 0 {
			return "not the XML of an answer"
		}
		code = strconv.Itoa(*in.ErrCode)
	} else {
		var in map[string]json.RawMessage // a struct would take errcode for ErrCode
		if json.Unmarshal(body, &in) != nil {
			return "not the JSON of an answer"
		}
		code = string(in["ErrCode"])
	}
	if code != "0" {
		return "ErrCode " + cmp.Or(code, "missing")
	}
	return ""
}

// advice decrypts the answer to a question about a refund, or returns nil.
func (s *Server) advice(body []byte) *minigame.Advice {
	read := json.Unmarshal
	if s.cfg.XML {
		read = xml.Unmarshal
	}
	var outer struct {
		Encrypt, MsgSignature, Nonce string
		TimeStamp                    int64
	}
	if read(body, &outer) != nil || outer.MsgSignature != sortedSHA1(s.cfg.Token, strconv.FormatInt(outer.TimeStamp, 10), outer.Nonce, outer.Encrypt) {
		return nil
	}
	plain, err := minigame.DecryptPush(s.cfg.EncodingAESKey, s.cfg.AppID, outer.Encrypt)
	var in struct {
		Code     *int   `json:"result_code" xml:"result_code"`
		Info     string `json:"result_info" xml:"result_info"`
		Evidence string `json:"evidence" xml:"evidence"`
	}
	if err != nil || read(plain, &in) != nil || in.Code == nil || in.Evidence == "" {
		return nil
	}
	return &minigame.Advice{Against: *in.Code == 1, Info: in.Info, Evidence: in.Evidence}
}

var errNoURL = errors.New("minigametest: no push URL: call PushTo or PushToHandler")

// do sends a request to the game's URL or handler.
func (s *Server) do(ctx context.Context, method string, query url.Values, body string) (status int, answer []byte, err error) {
	s.mu.Lock()
	transport, to := s.transport, s.url
	s.mu.Unlock()
	if to == "" {
		return 0, nil, errNoURL
	}
	req, err := http.NewRequestWithContext(ctx, method, to+"?"+query.Encode(), strings.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Accept-Encoding", "identity") // otherwise the transport asks for gzip, and unpacks it
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	return resp.StatusCode, answer, err
}
