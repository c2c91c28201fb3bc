package tap

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/midas-go/midas"
)

// An Exchange is a request and its answer: a line of a recording.
type Exchange struct {
	Seq    int       `json:"seq"`  // in the sequence in which they ended; where one is missing it was lost
	Time   time.Time `json:"time"` // of the request's first byte
	Kind   string    `json:"kind"`
	Masked bool      `json:"masked"`         // secrets and openids are replaced, so no signature verifies
	URL    string    `json:"url,omitempty"`  // that the request went to
	Lost   int       `json:"lost,omitempty"` // how many exchanges before this one are missing

	Caller  Caller   `json:"caller"`
	Request *Message `json:"request,omitempty"`
	Answer  *Message `json:"answer,omitempty"`
	Verdict *Verdict `json:"verdict,omitempty"` // about the request as it came
	Error   string   `json:"error,omitempty"`   // why this is not a whole exchange

	// AnsweredOK says that the answer, as it came, is what Midas takes for a delivery: status
	// 200 and exactly these bytes (protocol.md 5, delivery callback).
	AnsweredOK bool `json:"answered_ok,omitempty"`

	Broke time.Duration `json:"broke_ns,omitempty"` // since Time, where it ended without a whole answer

	now                  func() time.Time
	base, method, target string // as they came
	answered             bool
}

// A Caller is who connected to the tap.
type Caller struct {
	Address    string `json:"address"`
	TLS        string `json:"tls,omitempty"` // version, where the tap speaks TLS
	Connection int    `json:"connection"`
	Request    int    `json:"request"` // 1 is the first on its connection
}

// A Message is what went one way.
type Message struct {
	Status int           `json:"status,omitempty"`   // of an answer
	Head   Text          `json:"head,omitempty"`     // first line and headers, as they came
	Body   Text          `json:"body,omitempty"`     // without the framing of chunks
	Size   int64         `json:"size"`               // bytes on the wire
	Cut    bool          `json:"cut,omitempty"`      // more came than is recorded
	Left   string        `json:"left_out,omitempty"` // why the body is not here as it came
	Begun  time.Duration `json:"begun_ns"`           // since Time
	Ended  time.Duration `json:"ended_ns"`           // 0 if it broke off

	unread bool // it is not HTTP, so nothing in it can be masked
}

// A Verdict says whether a request verifies, and if not, why.
type Verdict struct {
	OK      bool   `json:"ok"`
	English string `json:"en"`
	Chinese string `json:"zh"`

	// What a masked recording could not tell any more: how the signature was made, where that
	// is open (words of whoever judged), and what a push says that verifies, as JSON, decrypted
	// and with its Payload unpacked. The latter is masked as a body is.
	Signed  []string `json:"signed,omitempty"`
	Message Text     `json:"message,omitempty"`
}

// Text is bytes that are shown as a string where they are UTF-8, and else in base64.
type Text []byte

// MarshalJSON implements json.Marshaler.
func (t Text) MarshalJSON() ([]byte, error) {
	if utf8.Valid(t) {
		return encode(string(t))
	}
	return encode(map[string][]byte{"base64": t})
}

// UnmarshalJSON implements json.Unmarshaler.
func (t *Text) UnmarshalJSON(data []byte) error {
	var text string
	if json.Unmarshal(data, &text) == nil {
		*t = Text(text)
		return nil
	}
	var binary struct{ Base64 []byte }
	err := json.Unmarshal(data, &binary)
	*t = binary.Base64
	return err
}

// encode is json.Marshal without escapes for HTML: a URL is to be read and copied.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

func (e *Exchange) setTarget(line string) {
	e.method, e.target, _ = strings.Cut(line, " ")
	if i := strings.LastIndex(e.target, " HTTP/1."); i >= 0 {
		e.target = e.target[:i]
	}
}

func (e *Exchange) size() int {
	n := 1 << 10
	for _, m := range []*Message{e.Request, e.Answer} {
		if m != nil {
			n += len(m.Head) + len(m.Body)
		}
	}
	return n
}

// What may wait for the disk.
const (
	maxWaiting      = 1000
	maxWaitingBytes = 32 << 20
)

// A recorder writes exchanges in a goroutine of its own. Whoever adds one never waits.
type recorder struct {
	cfg  Config
	mask *masker
	done chan struct{}

	mu      sync.Mutex
	wake    *sync.Cond
	waiting []*Exchange
	bytes   int
	seq     int
	lost    int // since the last line
	ending  bool

	torn bool      // the last line was not written whole
	told time.Time // of trouble
	all  int       // lost ones since the start
}

func newRecorder(cfg Config) *recorder {
	r := &recorder{cfg: cfg, done: make(chan struct{})}
	r.wake = sync.NewCond(&r.mu)
	if !cfg.KeepSecrets {
		r.mask = newMasker(cfg.Secret)
	}
	go r.work()
	return r
}

func (r *recorder) add(e *Exchange) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seq++
	e.Seq = r.seq
	size := e.size()
	if len(r.waiting) >= maxWaiting || r.bytes+size > maxWaitingBytes {
		r.lost++
		r.all++
		return
	}
	r.waiting = append(r.waiting, e)
	r.bytes += size
	r.wake.Signal()
}

func (r *recorder) work() {
	defer close(r.done)
	for {
		r.mu.Lock()
		for len(r.waiting) == 0 && !r.ending {
			r.wake.Wait()
		}
		if len(r.waiting) == 0 {
			r.mu.Unlock()
			return
		}
		e := r.waiting[0]
		r.waiting[0] = nil
		r.waiting = r.waiting[1:]
		r.bytes -= e.size()
		e.Lost, r.lost = r.lost, 0
		r.mu.Unlock()
		r.record(e)
	}
}

var errSlow = errors.New("the recording is slower than the messages come")

// record writes a line.
func (r *recorder) record(e *Exchange) {
	if e.method != "" {
		e.URL = strings.ToValidUTF8(e.base+e.target, "\uFFFD")
		if r.cfg.Verdict != nil {
			e.Verdict = r.cfg.Verdict(e)
		}
	}
	if e.Answer != nil { // before it is masked, which unpacks it
		e.AnsweredOK = e.Answer.Status == http.StatusOK && !e.Answer.Cut && bytes.Equal(e.Answer.Body, midas.ReplyTo(nil).Bytes())
	}
	if r.mask != nil {
		r.mask.exchange(e)
	}
	var err error
	if r.cfg.Recording != nil {
		err = r.write(e)
	}
	r.mu.Lock()
	if err != nil {
		r.lost += e.Lost + 1
		r.all++
	} else if e.Lost > 0 {
		err = errSlow
	}
	all := r.all
	r.mu.Unlock()
	if err != nil && r.cfg.Trouble != nil && time.Since(r.told) >= time.Minute {
		r.told = time.Now()
		r.cfg.Trouble(err, all)
	}
	if r.cfg.Seen != nil {
		r.cfg.Seen(e)
	}
}

func (r *recorder) write(e *Exchange) error {
	line, err := encode(e)
	if err != nil {
		return err
	}
	line = append(line, '\n')
	if r.torn { // what was written of the line before is not to spoil this one
		line = append([]byte{'\n'}, line...)
	}
	n, err := r.cfg.Recording.Write(line)
	if n > 0 {
		r.torn = n < len(line)
	}
	return err
}

// finish writes what waits, unless nothing is written for a time.
func (r *recorder) finish(grace time.Duration) (lost int) {
	r.mu.Lock()
	r.ending = true
	r.wake.Signal()
	r.mu.Unlock()
	timer := time.NewTicker(grace)
	defer timer.Stop()
	for before := -1; ; {
		done := false
		select {
		case <-r.done:
			done = true
		case <-timer.C:
		}
		r.mu.Lock()
		all, waiting := r.all, len(r.waiting)
		r.mu.Unlock()
		if done || waiting == before {
			return all + waiting
		}
		before = waiting
	}
}

// maxRecorded is more than a line has: each byte of four parts may take six.
const maxRecorded = 8 << 20

// Read calls each for every exchange of a recording, and returns how many lines are not whole:
// a process that was killed, or a disk that was full, leaves half a line.
func Read(r io.Reader, each func(*Exchange) error) (torn int, err error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxRecorded)
	for lines.Scan() {
		if len(bytes.TrimSpace(lines.Bytes())) == 0 {
			continue
		}
		var e Exchange
		if json.Unmarshal(lines.Bytes(), &e) != nil || e.Kind == "" {
			torn++
			continue
		}
		e.setTarget(e.Line())
		if err := each(&e); err != nil {
			return torn, err
		}
	}
	if err := lines.Err(); err != nil {
		return torn, fmt.Errorf("a recording: %w", err)
	}
	return torn, nil
}

// Masked reports whether a line is of a recording in which secrets were replaced. Its signature
// does not verify any more, so it must not be sent again: the verdict in it is what was found
// when it came.
func Masked(line string) bool {
	if !strings.HasPrefix(strings.TrimSpace(line), "{") {
		return false
	}
	var e struct {
		Kind   string
		Masked bool
		Caller *Caller // which other recordings do not have
	}
	return json.Unmarshal([]byte(line), &e) == nil && e.Kind != "" && e.Masked && e.Caller != nil
}

// Method returns the request's method as it came, or "".
func (e *Exchange) Method() string { return e.method }

// Target returns what the request's first line asks for, as it came or masked, or "".
func (e *Exchange) Target() string { return e.target }

// Header returns the values of a header of a message, in their sequence.
func (m *Message) Header(name string) (values []string) {
	if m == nil {
		return nil
	}
	for line := range strings.Lines(string(m.Head)) {
		if before, value, found := strings.Cut(line, ":"); found && strings.EqualFold(before, name) {
			values = append(values, strings.TrimSpace(value))
		}
	}
	return values
}

// Line returns the first line of the request, or "".
func (e *Exchange) Line() string {
	if e.Request == nil {
		return ""
	}
	line, _, _ := strings.Cut(string(e.Request.Head), "\n")
	return strings.TrimSuffix(line, "\r")
}

// Took returns the time from the end of the request to the end of the answer; 0 without both.
func (e *Exchange) Took() time.Duration {
	if e.Request == nil || e.Answer == nil || e.Answer.Ended == 0 {
		return 0
	}
	return e.Answer.Ended - e.Request.Ended
}
