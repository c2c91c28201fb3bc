package inprocess_test

import (
	"context"
	"io"
	"net/http"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/midas-go/midas/internal/inprocess"
)

func TestAHandlerSeesWhatAServerWouldShow(t *testing.T) {
	t.Parallel()
	client := &http.Client{Transport: inprocess.Transport{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || r.URL.Host != "" || r.RequestURI != "/p?a=1" || r.Host != "game.example" {
			w.WriteHeader(http.StatusTeapot)
		}
		w.Write(append([]byte("got "), body...))
	})}}
	resp, err := client.Get("http://game.example/p?a=1")
	require.NoError(t, err)
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, resp.StatusCode)
	require.Equal(t, "got ", string(body))
}

func TestABrokenConnection(t *testing.T) {
	t.Parallel()
	for name, broken := range map[string]func(w http.ResponseWriter){
		"a panic":   func(http.ResponseWriter) { panic("no such table") },
		"t.FailNow": func(http.ResponseWriter) { runtime.Goexit() },
	} {
		client := &http.Client{Transport: inprocess.Transport{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, "OK")
			broken(w)
		})}}
		_, err := client.Get("http://game.example/")
		require.ErrorContains(t, err, "the handler broke off", name)
	}
	client := &http.Client{Transport: inprocess.Transport{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		io.WriteString(w, "OK")
	})}}
	resp, err := client.Get("http://game.example/")
	require.NoError(t, err)
	_, err = io.ReadAll(resp.Body)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
}

func TestTheCallerMayHangUp(t *testing.T) {
	t.Parallel()
	ctx, hangUp := context.WithCancel(t.Context())
	client := &http.Client{Transport: inprocess.Transport{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		hangUp()
		<-t.Context().Done() // long after the request has ended
	})}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://game.example/", nil)
	require.NoError(t, err)
	_, err = client.Do(req)
	require.ErrorIs(t, err, context.Canceled)
}
