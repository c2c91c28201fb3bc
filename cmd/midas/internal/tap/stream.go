package tap

import (
	"bytes"
	"errors"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// maxLine is how much of a header line is read: those that say where a message ends are short.
const maxLine = 8 << 10

// What a stream expects next.
type state int

const (
	startLine state = iota
	headerLine
	body      // left bytes
	chunkLine // the size of the next chunk
	chunk     // left bytes
	chunkEnd  // an empty line
	trailer   // header lines after the last chunk
	untilEnd  // of the connection
	notFollowed
)

// A stream follows the messages of one direction of a connection (RFC 9112). It reads as
// strictly as the strictest server: where two readers might not agree where a message ends, it
// gives up and only passes on. It keeps of a message what may be recorded, and not more.
type stream struct {
	limit    int
	isAnswer bool
	host     string // to write in place of the header Host; "" to leave it

	begun func() (*Exchange, *Message, error)
	ended func()
	asked func() string // the method that an answer is to

	state state
	line  []byte // the current line, its beginning
	size  int    // of the current line, all of it
	left  int64
	last  *Exchange // of the current message, or the one before
	msg   *Message  // nil between messages

	// Of the current head.
	start              string
	lengths, encodings []string
	wrong              error

	lost       error // why it is not followed any more
	unrecorded int64 // bytes since then

	// Where the header Host is replaced.
	out      []byte
	held     []byte // the beginning of a header line, too short to tell
	told     bool   // the current line was looked at
	swallows bool   // what is left of the current line
}

func (s *stream) name() string {
	if s.isAnswer {
		return "answer"
	}
	return "request"
}

// feed reads what came, and returns what is to be passed on.
func (s *stream) feed(p []byte) []byte {
	all := p
	s.out = s.out[:0]
	for len(p) > 0 {
		if s.state == notFollowed {
			s.unrecorded += int64(len(p))
			s.pass(p)
			break
		}
		if s.msg == nil && !s.isAnswer && (p[0] == '\r' || p[0] == '\n') { // servers skip it before a request
			s.pass(p[:1])
			p = p[1:]
			continue
		}
		if s.msg == nil && !s.begin() {
			continue
		}
		n := s.take(p)
		p = p[n:]
	}
	if s.host == "" {
		return all
	}
	return s.out
}

// begin begins a message.
func (s *stream) begin() bool {
	e, msg, err := s.begun()
	if err != nil {
		s.lose(err)
		return false
	}
	s.last, s.msg = e, msg
	s.msg.Begun = e.since()
	s.state, s.start, s.lengths, s.encodings, s.wrong = startLine, "", nil, nil, nil
	return true
}

// take reads the next piece of a message and returns its size.
func (s *stream) take(p []byte) int {
	switch s.state {
	case body, chunk:
		n := int(min(int64(len(p)), s.left))
		s.left -= int64(n)
		s.keepBody(p[:n])
		s.pass(p[:n])
		if s.left == 0 && s.state == chunk {
			s.state = chunkEnd
		} else if s.left == 0 {
			s.end()
		}
		return n
	case untilEnd:
		s.keepBody(p)
		s.pass(p)
		return len(p)
	}
	piece, whole := p, false
	if i := bytes.IndexByte(p, '\n'); i >= 0 {
		piece, whole = p[:i+1], true
	}
	s.msg.Size += int64(len(piece))
	switch s.state {
	case startLine, headerLine:
		s.keepHead(piece)
	}
	limit := maxLine
	if s.state == startLine {
		limit = s.limit
	}
	s.line = append(s.line, piece[:min(len(piece), max(limit-len(s.line), 0))]...)
	s.size += len(piece)
	if s.state == headerLine {
		s.passHeader(piece, whole)
	} else {
		s.pass(piece)
	}
	if whole {
		line, long := s.line, s.size > len(s.line)
		s.endLine(string(bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r"))), long)
		s.line, s.size = s.line[:0], 0
	}
	return len(piece)
}

var (
	requestLine = regexp.MustCompile(`^([!-~]+) ([^ ]+) HTTP/1\.[01]$`)
	statusLine  = regexp.MustCompile(`^HTTP/1\.[01] ([1-9][0-9]{2})(?: |$)`)
	headerName  = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")
	chunkSize   = regexp.MustCompile(`^([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?$`)
	digits      = regexp.MustCompile(`^[0-9]{1,18}$`)
)

func (s *stream) endLine(line string, long bool) {
	switch s.state {
	case startLine:
		switch {
		case long:
			// Its end was not kept; whether it is HTTP the other end will say.
			s.start = line
		case s.isAnswer && !statusLine.MatchString(line), !s.isAnswer && !requestLine.MatchString(line):
			s.lose(errors.New("this is not the first line of an HTTP/1 message"))
			return
		default:
			s.start = line
		}
		if !s.isAnswer {
			s.last.setTarget(s.start)
		}
		s.state = headerLine
	case headerLine:
		if line != "" || long {
			s.header(line, long)
			return
		}
		s.endHead()
	case chunkLine:
		found := chunkSize.FindStringSubmatch(line)
		if found == nil || long || strings.ContainsAny(line, "\r\x00") {
			s.lose(errors.New("a chunk without a size"))
			return
		}
		s.left, _ = strconv.ParseInt(found[1], 16, 64) // at most 15 digits
		s.state = chunk
		if s.left == 0 {
			s.state = trailer
		}
	case chunkEnd:
		if line != "" || long {
			s.lose(errors.New("a chunk that is longer than its size"))
			return
		}
		s.state = chunkLine
	case trailer:
		if line == "" && !long {
			s.end()
		}
	}
}

// header reads a header line.
func (s *stream) header(line string, long bool) {
	name, value, _ := strings.Cut(line, ":")
	if !headerName.MatchString(name) || strings.ContainsAny(line, "\r\x00") {
		s.wrong = errors.New("a header line that some servers read otherwise than others")
		return
	}
	value = strings.Trim(value, " \t")
	var values *[]string
	switch strings.ToLower(name) {
	case "content-length":
		values = &s.lengths
	case "transfer-encoding":
		values = &s.encodings
	default:
		return
	}
	if long {
		value = "too long"
	}
	if len(*values) < 2 {
		*values = append(*values, value)
	}
}

// endHead finds out where the message ends.
func (s *stream) endHead() {
	if s.isAnswer {
		status := 0
		if found := statusLine.FindStringSubmatch(s.start); found != nil {
			status, _ = strconv.Atoi(found[1])
		}
		s.msg.Status = status
		asked := s.asked()
		switch {
		case status == 101 || asked == "CONNECT" && status/100 == 2:
			s.lose(errors.New("another protocol follows"))
			return
		case status/100 == 1: // before the answer
			s.msg.Head, s.state = nil, startLine
			s.lengths, s.encodings, s.wrong = nil, nil, nil
			return
		case asked == "HEAD" || status == 204 || status == 304:
			s.end()
			return
		}
	}
	chunked := len(s.encodings) == 1 && strings.EqualFold(s.encodings[0], "chunked") && strings.Contains(s.start, "HTTP/1.1")
	switch {
	case s.wrong != nil:
		s.lose(s.wrong)
	case len(s.encodings) > 0 && (!chunked || len(s.lengths) > 0):
		s.lose(errors.New("a Transfer-Encoding that some servers read otherwise than others"))
	case chunked:
		s.state = chunkLine
	case len(s.lengths) == 2 && s.lengths[0] != s.lengths[1], len(s.lengths) > 0 && !digits.MatchString(s.lengths[0]):
		s.lose(errors.New("a Content-Length that some servers read otherwise than others"))
	case len(s.lengths) > 0:
		s.left, _ = strconv.ParseInt(s.lengths[0], 10, 64) // at most 18 digits
		s.state = body
		if s.left == 0 {
			s.end()
		}
	case s.isAnswer:
		s.state = untilEnd
	default:
		s.end()
	}
}

func (s *stream) end() {
	s.msg.Ended = s.last.since()
	s.msg = nil
	s.ended()
}

// lose gives up following the messages: a guess where one ends would show another message than
// the one that the other end sees. They are passed on as before.
func (s *stream) lose(why error) {
	s.state, s.lost = notFollowed, why
	if s.msg != nil {
		s.msg.unread = s.start == ""
		s.last.say("not followed from here on: " + why.Error())
	}
}

// finish is told when nothing more comes, and returns what was held.
func (s *stream) finish() []byte {
	held := s.held
	s.held = nil
	if s.msg != nil && s.state == untilEnd {
		s.end()
	}
	return held
}

func (s *stream) keepHead(p []byte) {
	kept := min(len(p), s.limit-len(s.msg.Head))
	s.msg.Head = append(s.msg.Head, p[:kept]...)
	s.msg.Cut = s.msg.Cut || kept < len(p)
}

func (s *stream) keepBody(p []byte) {
	kept := min(len(p), s.limit-len(s.msg.Body))
	s.msg.Body = append(s.msg.Body, p[:kept]...)
	s.msg.Size += int64(len(p))
	s.msg.Cut = s.msg.Cut || kept < len(p)
}

// pass passes bytes on as they are.
func (s *stream) pass(p []byte) {
	if s.host != "" {
		s.out = append(append(s.out, s.held...), p...)
		s.held = s.held[:0]
	}
}

// passHeader passes a piece of a header line on, with another value if it is Host.
func (s *stream) passHeader(piece []byte, whole bool) {
	const host = "host:"
	switch {
	case s.host == "":
		return
	case s.swallows:
	case s.told:
		s.pass(piece)
	default:
		s.held = append(s.held, piece...)
		if s.swallows = len(s.held) >= len(host) && strings.EqualFold(string(s.held[:len(host)]), host); s.swallows {
			s.out = append(append(s.out, s.held[:len(host)]...), " "+s.host+"\r\n"...)
			s.held = s.held[:0]
		} else if s.told = len(s.held) >= len(host) || whole; s.told {
			s.pass(nil)
		}
	}
	if whole {
		s.told, s.swallows = false, false
	}
}

// since returns the time since an exchange began, at least a nanosecond.
func (e *Exchange) since() time.Duration { return max(e.now().Sub(e.Time), 1) }
