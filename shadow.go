package midas

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/midas-go/midas/internal/answer"
)

// Shadow returns a handler for the delivery URL of a backend that moves to this package: old
// answers each callback as before, and the Client verifies the same callback beside it and
// logs where the two disagree. Days without such a line say that [Client.DeliveryHandler] can
// take over.
//
// Old's verdict is OK if its answer is what Midas takes for a delivery: status 200 and exactly
// the bytes {"ret":0,"msg":"OK"} (protocol.md 5, delivery callback). A panic is not OK, nor is
// a connection that old takes over. The Client's verdict is OK if the callback verifies and
// can be read. No DeliverFunc is called, so old may have a reason of the game's to refuse.
//
// Each line is at Warn. It shows what the Client read (billno, the openid shortened, zone,
// items, what was charged), its error, and the time that each took. A stranger can cause lines
// too, where old answers OK to a callback that does not verify: ten a minute at most. No line
// shows text of old's answer.
//
// No answer is changed or delayed: the callback is verified after old has returned, in another
// goroutine. A thousand callbacks may wait for it; more are left out, and the next line counts
// them as missed. [Client.Wait] waits for those that wait. Old may use http.Flusher,
// http.Hijacker, io.ReaderFrom and http.ResponseController as before, and a panic of old goes
// on to the server.
//
// Without Config.Logger old itself is returned, since there is nothing to do. Shadow panics if
// Config.DeliveryPath is empty or old is nil. The handler is safe for concurrent use.
func (c *Client) Shadow(old http.Handler) http.Handler {
	if c.cfg.DeliveryPath == "" {
		panic(errNoDeliveryPath.Error())
	}
	if old == nil {
		panic("midas: Shadow without a handler")
	}
	if c.cfg.Logger == nil {
		return old
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := &shadowed{start: time.Now(), isGet: r.Method == http.MethodGet}
		// Old may change r, and some servers use its memory again. One byte more than is
		// allowed is enough of a query to be refused.
		s.query = strings.Clone(r.URL.RawQuery[:min(len(r.URL.RawQuery), maxQueryBytes+1)])
		s.path, s.remote = answer.Stranger(r)
		ctx, watched, panicked := r.Context(), &watchedWriter{ResponseWriter: w}, true
		defer func() { // without recover: the panic goes on with old's stack
			s.oldAnswer, s.panicked, s.took = watched.oldAnswer, panicked, time.Since(s.start)
			c.events.Check(ctx, func() (answer.Event, bool) { return s.compare(c) }, s.start)
		}()
		old.ServeHTTP(watched, r)
		panicked = false
	})
}

// A shadowed is a callback that another handler answered.
type shadowed struct {
	isGet               bool
	query, path, remote string
	start               time.Time

	oldAnswer
	panicked bool
	took     time.Duration
}

// compare verifies the callback, and returns the event if the two verdicts differ.
func (s *shadowed) compare(c *Client) (event answer.Event, differ bool) {
	start := time.Now()
	var d *Delivery
	err := errNotGet
	if s.isGet {
		d, _, err = c.parse(s.query)
	}
	took := time.Since(start)
	oldOK := !s.panicked && s.ok()
	if oldOK == (err == nil) {
		return event, false
	}
	event.Level, event.Message = slog.LevelWarn, "midas: shadow: the callback verifies, but the old handler did not answer OK"
	if oldOK {
		event.Message = "midas: shadow: the old handler answered OK, but the callback would be refused"
	}
	path, remote := s.path, s.remote
	if d == nil {
		d, event.Stranger = new(Delivery), "shadow"
	} else {
		path, remote = "", ""
	}
	event.Attrs = func(missed int) []slog.Attr {
		return answer.Attrs(
			slog.Int("old_status", s.status),
			slog.String("old_ret", s.ret()),
			slog.Bool("old_panicked", s.panicked),
			slog.Bool("old_hijacked", s.hijacked),
			slog.Duration("old_duration", s.took),
			slog.Duration("duration", took),
			slog.String("billno", answer.Clip(d.BillNo, 4*maxBillNo)),
			slog.String("openid", answer.ShortID(d.OpenID)),
			slog.String("zoneid", answer.Clip(d.ZoneID, 200)),
			slog.String("items", answer.Clip(FormatItems(d.Items), maxPayItem)),
			slog.String("charged", chargedText(d)),
			slog.String("error", answer.Text(err)),
			slog.String("path", path),
			slog.String("remote", remote),
			slog.Int("missed", missed),
		)
	}
	return event, true
}

// chargedText returns what was charged, or "" if that could not be read.
func chargedText(d *Delivery) string {
	if d.Items == nil { // which are read before it
		return ""
	}
	return d.Charged.String()
}

// An oldAnswer is the status and the beginning of another handler's answer.
type oldAnswer struct {
	status   int       // 0 before the answer
	body     [128]byte // more than any reply to a callback has
	size     int       // of what is in body
	long     bool      // there is more
	hijacked bool
}

// ok reports whether Midas takes the answer for a delivery.
func (a *oldAnswer) ok() bool {
	status := a.status
	if status == 0 && !a.hijacked {
		status = http.StatusOK // net/http answers so for a handler that wrote nothing
	}
	return status == http.StatusOK && !a.long && string(a.body[:a.size]) == string(ReplyTo(nil).Bytes())
}

// ret returns the ret of the answer, or "" if it has none.
func (a *oldAnswer) ret() string {
	var reply struct{ Ret *int }
	if a.long || json.Unmarshal(a.body[:a.size], &reply) != nil || reply.Ret == nil {
		return ""
	}
	return strconv.Itoa(*reply.Ret)
}

// A watchedWriter passes an answer on as it comes.
type watchedWriter struct {
	http.ResponseWriter
	oldAnswer
}

// WriteHeader implements http.ResponseWriter.
func (w *watchedWriter) WriteHeader(status int) {
	if w.status == 0 && status >= 200 { // 1xx come before the answer
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w *watchedWriter) Write(p []byte) (int, error) {
	w.begin()
	kept := copy(w.body[w.size:], p)
	w.size += kept
	w.long = w.long || kept < len(p)
	return w.ResponseWriter.Write(p)
}

// begin notes the status of an answer that begins without one.
func (w *watchedWriter) begin() {
	if w.status == 0 {
		w.status = http.StatusOK
	}
}

// ReadFrom implements io.ReaderFrom: what is not kept goes the server's own way, which may be
// sendfile.
func (w *watchedWriter) ReadFrom(r io.Reader) (n int64, err error) {
	n, err = io.CopyN(struct{ io.Writer }{w}, r, int64(len(w.body)-w.size))
	if errors.Is(err, io.EOF) {
		return n, nil
	}
	if err != nil {
		return n, err
	}
	w.begin()
	more, err := io.Copy(w.ResponseWriter, r)
	w.long = w.long || more > 0
	return n + more, err
}

// Flush implements http.Flusher.
func (w *watchedWriter) Flush() { _ = w.FlushError() }

// FlushError is what http.ResponseController calls.
func (w *watchedWriter) FlushError() error {
	err := http.NewResponseController(w.ResponseWriter).Flush()
	if err == nil {
		w.begin()
	}
	return err
}

// Hijack implements http.Hijacker.
func (w *watchedWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	w.hijacked = w.hijacked || err == nil
	return conn, rw, err
}

// Unwrap is for http.ResponseController.
func (w *watchedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
