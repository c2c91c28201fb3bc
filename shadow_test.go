package midas_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/midas-go/midas"
	"github.com/stretchr/testify/require"
)

const taken = `{"ret":0,"msg":"OK"}` // what Midas takes for a delivery

func TestShadowLogsWhereTheVerdictsDiffer(t *testing.T) {
	t.Parallel()
	forged := strings.Replace(signed(nil), "amt=600", "amt=601", 1)
	const refuses, accepts = "midas: shadow: the callback verifies, but the old handler did not answer OK", "midas: shadow: the old handler answered OK, but the callback would be refused"
	read := map[string]any{"billno": "-APPDJ0-1", "openid": "o_TE…", "zoneid": "1", "items": "sword*60*1", "charged": "60 Q-points (6.00 yuan)"}
	for _, test := range []struct {
		what, method, query string
		status              int
		body                string
		message             string         // "" for no line
		want                map[string]any // beside the times
	}{
		{"both accept", "GET", signed(nil), 200, taken, "", nil},
		{"both refuse", "GET", forged, 200, `{"ret":4,"msg":"sig"}`, "", nil},
		{"both refuse another method", "POST", signed(nil), 405, "", "", nil},
		{"the old one refuses a payment", "GET", signed(nil), 200, `{"ret":4,"msg":"bad sign"}`, refuses, map[string]any{"old_status": 200.0, "old_ret": "4"}},
		{"the old one says OK in other bytes", "GET", signed(nil), 200, taken + "\n", refuses, map[string]any{"old_status": 200.0, "old_ret": "0"}},
		{"the old one says OK with status 500", "GET", signed(nil), 500, taken, refuses, map[string]any{"old_status": 500.0, "old_ret": "0"}},
		{"the old one answers a page", "GET", signed(nil), 200, taken + strings.Repeat(" ", 1<<20), refuses, map[string]any{"old_status": 200.0}},
		{"the old one answers nothing", "GET", signed(nil), 0, "", refuses, nil},
		{"the old one takes a forgery", "GET", forged, 200, taken, accepts, map[string]any{"old_status": 200.0, "old_ret": "0", "path": "/pay/notify", "remote": "192.0.2.1:1234"}},
		{"the old one takes a POST", "POST", signed(nil), 200, taken, accepts, map[string]any{"old_status": 200.0, "old_ret": "0", "path": "/pay/notify", "remote": "192.0.2.1:1234", "error": "the method is not GET"}},
		{"the old one takes a query that is too long", "GET", signed(nil) + strings.Repeat("&", 16<<10), 200, taken, accepts, map[string]any{"old_status": 200.0, "old_ret": "0"}},
		{"the old one takes what cannot be read", "GET", signed(map[string]string{"amt": "1.5"}), 200, taken, accepts, map[string]any{"billno": "-APPDJ0-1", "openid": "o_TE…"}},
	} {
		t.Run(test.what, func(t *testing.T) {
			t.Parallel()
			var log journal
			c := callbackClient(t, log.attach)
			h := c.Shadow(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				r.URL.RawQuery, r.Method = "rewritten", "PUT"      // as old routers do
				for start := time.Now(); time.Since(start) <= 0; { // some clocks are coarse
				}
				if test.status > 0 {
					w.WriteHeader(test.status)
				}
				io.WriteString(w, test.body)
			}))
			answer := serve(h, test.method, test.query)
			require.Equal(t, test.body, answer.Body.String())
			require.NoError(t, c.Wait(t.Context()))
			if test.message == "" {
				require.Empty(t, log.lines(t))
				return
			}
			lines := log.lines(t)
			require.Len(t, lines, 1)
			require.Equal(t, []any{test.message, "WARN"}, []any{lines[0]["msg"], lines[0]["level"]})
			require.Contains(t, lines[0], "duration")
			require.Positive(t, lines[0]["old_duration"])
			if test.message == refuses {
				require.Subset(t, lines[0], read)
			} else {
				require.NotEmpty(t, lines[0]["error"])
			}
			require.Subset(t, lines[0], test.want)
			for _, secret := range []string{"sig=", "o_TESTopenid", testAppKey, "bad sign"} {
				require.NotContains(t, log.String(), secret)
			}
		})
	}
}

// A stranger sends what does not verify; that the old handler takes it must be seen, and must
// not fill the disk.
func TestStrangersCauseTenLinesAMinuteInTheShadow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log journal
		c := callbackClient(t, log.attach)
		h := c.Shadow(answering(taken))
		call := func(query string, n int) {
			for range n {
				serve(h, "GET", query)
			}
			require.NoError(t, c.Wait(t.Context()))
		}
		call("sig=x", 500)
		require.Len(t, log.lines(t), 10)
		time.Sleep(time.Minute) // in a bubble
		call("sig=x", 1)
		require.EqualValues(t, 490, log.lines(t)[10]["missed"])
		c.Shadow(answering(`{"ret":1,"msg":"busy"}`)).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/?"+signed(nil), nil))
		call("sig=x", 1)
		require.Len(t, log.lines(t), 13)
	})
}

// The answer must not wait for the log, and what waits for it is bounded.
func TestShadowDelaysNoAnswer(t *testing.T) {
	t.Parallel()
	stuck, release := make(chan struct{}), make(chan struct{})
	var log journal
	c := callbackClient(t, func(cfg *midas.Config) {
		once := make(chan struct{}, 1)
		once <- struct{}{}
		cfg.Logger = slog.New(slog.NewJSONHandler(writerFunc(func(p []byte) (int, error) {
			select {
			case <-once:
				close(stuck)
				<-release
			default:
			}
			return log.Write(p)
		}), nil))
	})
	h := c.Shadow(answering(`{"ret":1,"msg":"busy"}`))
	serve(h, "GET", signed(nil))
	<-stuck
	for range 1500 { // returns although the log does not
		serve(h, "GET", signed(nil))
	}
	close(release)
	require.NoError(t, c.Wait(t.Context()))
	serve(h, "GET", signed(nil))
	require.NoError(t, c.Wait(t.Context()))
	lines := log.lines(t)
	require.Len(t, lines, 1002)
	require.EqualValues(t, 500, lines[1001]["missed"])
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestWhatIsMissedIsSaidByTheNextLine(t *testing.T) {
	t.Parallel()
	stuck, release := make(chan struct{}), make(chan struct{})
	var log journal
	c := callbackClient(t, func(cfg *midas.Config) {
		first := true
		cfg.Logger = slog.New(slog.NewJSONHandler(writerFunc(func(p []byte) (int, error) {
			if first {
				first = false
				close(stuck)
				<-release
			}
			return log.Write(p)
		}), nil))
	})
	refusing, taking := c.Shadow(answering(`{"ret":1,"msg":"busy"}`)), c.Shadow(answering(taken))
	serve(refusing, "GET", signed(nil))
	<-stuck
	for range 1200 {
		serve(taking, "GET", signed(nil)) // both agree: no line
	}
	close(release)
	require.NoError(t, c.Wait(t.Context()))
	serve(taking, "GET", signed(nil)) // learns of the missed ones, and writes no line
	require.NoError(t, c.Wait(t.Context()))
	serve(refusing, "GET", signed(nil))
	require.NoError(t, c.Wait(t.Context()))
	lines := log.lines(t)
	require.Len(t, lines, 2)
	require.EqualValues(t, 200, lines[1]["missed"])
}

func TestAPanicOfTheOldHandlerPassesThroughItsShadow(t *testing.T) {
	t.Parallel()
	var log journal
	c := callbackClient(t, log.attach)
	for _, cause := range []error{http.ErrAbortHandler, errors.New("old bug")} {
		h := c.Shadow(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, taken)
			panic(cause)
		}))
		require.PanicsWithValue(t, cause, func() { serve(h, "GET", signed(nil)) })
	}
	require.NoError(t, c.Wait(t.Context()))
	lines := log.lines(t)
	require.Len(t, lines, 2)
	require.Equal(t, true, lines[0]["old_panicked"])
	require.NotContains(t, log.String(), "old bug")
}

// What net/http's own ResponseWriter can do, the old handler can do in the shadow.
func TestTheOldHandlersResponseWriterCanWhatItCould(t *testing.T) {
	t.Parallel()
	file := t.TempDir() + "/answer"
	long := strings.Repeat("0123456789", 100)
	require.NoError(t, os.WriteFile(file, []byte(long), 0o600))
	for _, test := range []struct {
		what, want string
		lines      int
		old        func(w http.ResponseWriter) error
	}{
		{"Flush", taken, 0, func(w http.ResponseWriter) error {
			w.(http.Flusher).Flush()
			io.WriteString(w, taken[:5])
			defer io.WriteString(w, taken[5:])
			return http.NewResponseController(w).Flush()
		}},
		{"deadlines through Unwrap", taken, 0, func(w http.ResponseWriter) error {
			defer io.WriteString(w, taken)
			return http.NewResponseController(w).SetWriteDeadline(time.Now().Add(time.Minute))
		}},
		{"early hints", taken, 0, func(w http.ResponseWriter) error {
			w.WriteHeader(http.StatusEarlyHints)
			_, err := io.WriteString(w, taken)
			return err
		}},
		{"ReadFrom of an answer", taken, 0, func(w http.ResponseWriter) error {
			n, err := w.(io.ReaderFrom).ReadFrom(strings.NewReader(taken))
			if n != int64(len(taken)) {
				return fmt.Errorf("%d bytes", n)
			}
			return err
		}},
		{"ReadFrom of a file", long, 1, func(w http.ResponseWriter) error {
			f, err := os.Open(file)
			if err != nil {
				return err
			}
			defer f.Close()
			if n, err := io.Copy(w, f); err != nil || n != int64(len(long)) {
				return fmt.Errorf("%d bytes, %w", n, err)
			}
			return nil
		}},
		{"Hijack", taken, 1, func(w http.ResponseWriter) error {
			conn, rw, err := w.(http.Hijacker).Hijack()
			if err != nil {
				return err
			}
			defer conn.Close()
			fmt.Fprintf(rw, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(taken), taken)
			return rw.Flush()
		}},
	} {
		t.Run(test.what, func(t *testing.T) {
			t.Parallel()
			var log journal
			c := callbackClient(t, log.attach)
			shadow := c.Shadow(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if err := test.old(w); err != nil {
					t.Error(err)
				}
			}))
			returned := make(chan struct{})
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				defer close(returned)
				shadow.ServeHTTP(w, r)
			}))
			defer srv.Close()
			resp, err := http.Get(srv.URL + "/pay/notify?" + signed(nil))
			require.NoError(t, err)
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			require.Equal(t, test.want, string(body))
			require.Equal(t, 200, resp.StatusCode)
			<-returned // srv.Close does not wait for a connection that was hijacked
			require.NoError(t, c.Wait(t.Context()))
			require.Len(t, log.lines(t), test.lines)
		})
	}
	t.Run("Hijack where the server cannot", func(t *testing.T) {
		t.Parallel()
		var log journal
		c := callbackClient(t, log.attach)
		var err error
		serve(c.Shadow(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _, err = w.(http.Hijacker).Hijack()
			io.WriteString(w, taken)
		})), "GET", signed(nil))
		require.ErrorIs(t, err, http.ErrNotSupported)
		require.NoError(t, c.Wait(t.Context()))
		require.Empty(t, log.lines(t))
	})
}

// A handler that leaves a goroutine behind must not bring the process down.
func TestAnOldHandlerThatWritesTooLateStaysItsOwnAffair(t *testing.T) {
	t.Parallel()
	var log journal
	c := callbackClient(t, log.attach)
	var kept http.ResponseWriter
	serve(c.Shadow(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		kept = w
		io.WriteString(w, taken)
	})), "GET", signed(nil))
	require.NoError(t, c.Wait(t.Context()))
	_, err := io.WriteString(kept, "late")
	require.NoError(t, err)
}

func TestShadowNeedsAPathAndAHandler(t *testing.T) {
	t.Parallel()
	require.Panics(t, func() { callbackClient(t).Shadow(nil) })
	require.Panics(t, func() {
		callbackClient(t, func(cfg *midas.Config) { cfg.DeliveryPath = "" }).Shadow(answering(taken))
	})
	old := &http.ServeMux{}
	require.Same(t, old, callbackClient(t).Shadow(old), "without a Logger")
}

func ExampleClient_Shadow() {
	client, err := midas.New(midas.Config{
		AppID: "1101255891", AppKey: "Lf6AtMEB1QlE8BYS", DeliveryPath: "/pay/mt.php",
		Logger: slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			switch a.Key {
			case "time", "old_duration", "duration":
				return slog.Attr{}
			}
			return a
		}})),
	})
	if err != nil {
		panic(err)
	}
	old := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("amt") != "400" { // two for 20 Q-points each; but this player got a discount
			io.WriteString(w, `{"ret":4,"msg":"amt"}`)
			return
		}
		io.WriteString(w, `{"ret":0,"msg":"OK"}`)
	})
	backend := httptest.NewServer(client.Shadow(old))
	defer backend.Close()

	resp, err := http.Get(backend.URL + "/pay/mt.php?" + documentedCallback) // as Midas does
	if err != nil {
		panic(err)
	}
	resp.Body.Close()
	backend.Close()
	client.Wait(context.Background())
	// Output:
	// level=WARN msg="midas: shadow: the callback verifies, but the old handler did not answer OK" old_status=200 old_ret=4 billno=-APPDJSX18246-20140401-1206311492 openid=F116… zoneid=1 items=G1*20*2 charged="32 Q-points (3.20 yuan)"
}
