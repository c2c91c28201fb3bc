// Package inprocess calls a handler as if it were behind a socket, for the fakes.
package inprocess

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing/iotest"
)

// A Transport calls its Handler instead of a server. The handler may outlive the request; one
// that panics or ends its goroutine breaks the connection.
type Transport struct{ Handler http.Handler }

// RoundTrip ends with the context of r.
func (t Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	in := r.Clone(r.Context()) // as a server would see it
	in.RequestURI = r.URL.RequestURI()
	in.RemoteAddr = "192.0.2.1:1234"
	in.URL.Scheme, in.URL.Host = "", ""
	if in.Body == nil {
		in.Body = http.NoBody
	}
	rec := httptest.NewRecorder()
	done := make(chan any, 1)
	go func() {
		broken := any("it did not return") // after t.FailNow, of which recover knows nothing
		defer func() {
			if p := recover(); p != nil {
				broken = p
			}
			done <- broken
		}()
		t.Handler.ServeHTTP(rec, in)
		broken = nil
	}()
	select {
	case broken := <-done:
		if broken != nil { // a server would close the connection
			return nil, fmt.Errorf("the handler broke off: %v", broken)
		}
		resp := rec.Result()
		resp.Request = r
		if resp.ContentLength > int64(rec.Body.Len()) { // a server would close the connection early
			resp.Body = io.NopCloser(io.MultiReader(resp.Body, iotest.ErrReader(io.ErrUnexpectedEOF)))
		}
		return resp, nil
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
}
