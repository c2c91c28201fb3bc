package midastest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
	"unicode"
)

// Patience is how long Midas waits for the answer to a callback. After that it hangs up,
// reports "system busy" and may cancel the charge (protocol.md 1, the whole
// flow).
const Patience = 2 * time.Second

// A Receipt tells how a callback went.
type Receipt struct {
	URL      string // called, signature included
	BillNo   string
	Status   int           // HTTP status; 0 if there was no answer
	Body     []byte        // the answer's first 64 KiB
	Took     time.Duration // until the last byte of the answer
	Accepted bool          // whether Midas considers the item delivered
	Reason   string        // why it does not; empty if accepted

	Duplicates []*Receipt // the other n-1 of the option Duplicates(n)
}

// String says how the callback went, with the body as text and without the URL, whose query
// holds the sig.
func (r Receipt) String() string {
	text := "accepted"
	if !r.Accepted {
		text = "not accepted: " + r.Reason
	}
	text += fmt.Sprintf("; status %d after %s, body %.200q", r.Status, r.Took.Round(time.Millisecond), r.Body)
	if n := len(r.Duplicates); n > 0 {
		text += fmt.Sprintf("; and %d duplicates", n)
	}
	return text
}

// Deliver sends any raw query to the delivery URL: a repeated callback, a forgery, noise. The
// error is ctx.Err(), or says that there is no delivery URL or that no URL can hold the query.
func (s *Server) Deliver(ctx context.Context, rawQuery string) (*Receipt, error) {
	s.mu.Lock()
	to := s.deliver
	s.mu.Unlock()
	if to == nil {
		return nil, fmt.Errorf("midastest: Deliver: %w", errNoTarget)
	}
	receipt := &Receipt{URL: to.url + "?" + rawQuery}
	if params, err := url.ParseQuery(rawQuery); err == nil {
		receipt.BillNo = params.Get("billno")
	}

	patience, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	req, err := http.NewRequestWithContext(patience, http.MethodGet, receipt.URL, nil)
	if err != nil {
		return nil, fmt.Errorf("midastest: Deliver: %w", withoutURL(err))
	}
	// Without it Go's transport asks for gzip, and unpacks in silence what Midas would not take.
	req.Header.Set("Accept-Encoding", "identity")
	start := time.Now()
	resp, err := to.client.Do(req)
	if err == nil {
		receipt.Status = resp.StatusCode
		receipt.Body, err = io.ReadAll(io.LimitReader(resp.Body, 64<<10))
		resp.Body.Close()
	}
	receipt.Took = time.Since(start)
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case patience.Err() != nil:
		receipt.Reason = "no answer within 2s: Midas hangs up and may cancel the charge"
	case err != nil:
		receipt.Reason = "no answer: " + withoutURL(err).Error()
	default:
		receipt.Reason = Judge(receipt.Status, receipt.Body, receipt.Took)
	}
	receipt.Accepted = receipt.Reason == ""
	return receipt, nil
}

// withoutURL strips the URL from an error of net/http: its query holds the sig.
func withoutURL(err error) error {
	var urlErr *url.Error
	if errors.As(err, &urlErr) {
		return urlErr.Err
	}
	return err
}

// Judge says why Midas would not accept an answer to a callback, or returns "" if it would:
// status 200 and exactly {"ret":0,"msg":"OK"}, within [Patience].
func Judge(status int, body []byte, took time.Duration) string {
	var reply struct {
		Ret *int
		Msg *string
	}
	inJSON := json.Unmarshal(body, &reply) == nil && reply.Ret != nil && reply.Msg != nil
	switch {
	case took > Patience:
		return fmt.Sprintf("took %s: Midas hangs up after 2s and may cancel the charge", took.Round(time.Millisecond))
	case status/100 == 3:
		return fmt.Sprintf("status %d, a redirect: is the handler mounted at the registered path, trailing slash included?", status)
	case status == http.StatusNotFound:
		return "status 404: is the handler mounted at the registered path?"
	case status != http.StatusOK:
		return fmt.Sprintf("status %d, want 200", status)
	case string(body) == `{"ret":0,"msg":"OK"}`:
		return ""
	case len(body) == 0:
		return "the body is empty"
	case bytes.HasPrefix(body, []byte("\xef\xbb\xbf")):
		return "the body begins with a byte order mark"
	case bytes.HasPrefix(body, []byte("\x1f\x8b")):
		return "the body is compressed with gzip: keep compression off the delivery URL"
	case bytes.HasSuffix(body, []byte("\n")):
		return "the body ends in a newline: json.Encoder and fmt.Fprintln write one"
	case bytes.ContainsFunc(body, unicode.IsSpace):
		return "the body holds a space, a tab or a line break"
	case !inJSON:
		return `the body is not {"ret":…,"msg":"…"}`
	case *reply.Ret != 0:
		return fmt.Sprintf("the backend answered ret %d (%s)", *reply.Ret, *reply.Msg)
	case *reply.Msg != "OK":
		return fmt.Sprintf("msg is %q, want OK", *reply.Msg)
	}
	return `the body is JSON but not the bytes {"ret":0,"msg":"OK"}`
}
