package minigametest

import (
	"context"
	"crypto/rand"
	"crypto/sha1"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/midas-go/midas/minigame"
)

// Patience is how long WeChat waits for the answer to a push.
const Patience = 3 * time.Second

// schedule is the waits before a delivery is pushed again (minigame.md 4.4).
var schedule = []time.Duration{
	15 * time.Second, 15 * time.Second, 30 * time.Second, 3 * time.Minute, 10 * time.Minute, 20 * time.Minute, 30 * time.Minute, 30 * time.Minute,
	30 * time.Minute, time.Hour, 3 * time.Hour, 3 * time.Hour, 3 * time.Hour, 6 * time.Hour, 6 * time.Hour,
}

// doubling is the schedule of mini programs (minigame.md 4.6), its unit taken for seconds.
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
}

// Push posts any message, in the Server's mode, once. message is JSON or XML.
func (s *Server) Push(ctx context.Context, message string) (*Receipt, error) {
	return s.push(ctx, &push{event: "a message", raw: message})
}

// push posts a message, and queues it if it is not accepted.
func (s *Server) push(ctx context.Context, p *push) (*Receipt, error) {
	receipt, err := s.try(ctx, p)
	if err != nil {
		return nil, err
	}
	s.settle(p, receipt)
	return receipt, nil
}

// settle takes note of an accepted push and queues another for its next try.
func (s *Server) settle(p *push, receipt *Receipt) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if receipt.Accepted {
		if p.order != nil {
			p.order.delivered = true
		}
		return
	}
	if p.tries <= len(p.schedule) {
		p.due = s.cfg.Now().Add(p.schedule[p.tries-1])
		s.pushes = append(s.pushes, p)
	}
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

// PushDue posts the pushes whose time has come by Config.Now.
func (s *Server) PushDue(ctx context.Context) ([]*Receipt, error) {
	s.mu.Lock()
	now := s.cfg.Now()
	var due []*push
	s.pushes = slices.DeleteFunc(s.pushes, func(p *push) bool {
		if p.due.After(now) {
			return false
		}
		due = append(due, p)
		return true
	})
	s.mu.Unlock()
	var receipts []*Receipt
	for _, p := range due {
		receipt, err := s.try(ctx, p)
		if err != nil {
			return receipts, err
		}
		s.settle(p, receipt)
		receipts = append(receipts, receipt)
	}
	return receipts, nil
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
	p.tries++
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
	receipt := &Receipt{Event: p.event, Try: p.tries}
	var err error
	receipt.Status, receipt.Body, err = s.do(patience, http.MethodPost, query, body)
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil:
		receipt.Reason = "no answer within 3s"
	default:
		receipt.Reason = s.judge(receipt.Status, receipt.Body, strings.HasPrefix(message, "<"))
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
	answer := object{}
	if isXML {
		var in struct {
			ErrCode *int
		}
		if xml.Unmarshal(body, &in) != nil || in.ErrCode == nil {
			return "no ErrCode in XML"
		}
		answer["ErrCode"] = json.Number(strconv.Itoa(*in.ErrCode))
	} else {
		d := json.NewDecoder(strings.NewReader(string(body)))
		d.UseNumber()
		if d.Decode(&answer) != nil {
			return "not the JSON of an answer"
		}
	}
	if answer["ErrCode"] != json.Number("0") {
		return fmt.Sprintf("ErrCode %v", answer["ErrCode"])
	}
	return ""
}

// do sends a request to the game's URL or handler.
func (s *Server) do(ctx context.Context, method string, query url.Values, body string) (status int, answer []byte, err error) {
	s.mu.Lock()
	target, to := s.target, s.url
	s.mu.Unlock()
	if to == "" {
		return 0, nil, fmt.Errorf("minigametest: no push URL: call PushTo or PushToHandler")
	}
	req, err := http.NewRequestWithContext(ctx, method, to+"?"+query.Encode(), strings.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	if target != nil {
		w := httptest.NewRecorder()
		target.ServeHTTP(w, req)
		return w.Code, w.Body.Bytes(), nil
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	return resp.StatusCode, answer, err
}
