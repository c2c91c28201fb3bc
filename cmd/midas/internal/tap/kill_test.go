package tap_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/midas-go/midas/cmd/midas/internal/tap"
	"github.com/stretchr/testify/require"
)

const (
	killedTo   = "TAP_TEST_KILLED_TO"
	killedFile = "TAP_TEST_KILLED_FILE"
)

// TestMain is a tap of its own where a test wants one that it can kill.
func TestMain(m *testing.M) {
	if to := os.Getenv(killedTo); to != "" {
		runKilled(to)
	}
	os.Exit(m.Run())
}

func runKilled(to string) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	file, err := os.OpenFile(os.Getenv(killedFile), os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		panic(err)
	}
	u, err := url.Parse(to)
	if err != nil {
		panic(err)
	}
	fmt.Println(listener.Addr())
	_, err = tap.Run(context.Background(), tap.Config{Legs: []tap.Leg{{Kind: tap.Callback, Listener: listener, To: u}}, Recording: file, Secret: secret})
	panic(err)
}

func TestKilledAtAnyMomentTheRecordingIsReadable(t *testing.T) {
	t.Parallel()
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("OK")) }))
	defer backend.Close()
	client := &http.Client{Transport: &http.Transport{}}
	whole := 0
	for round := range 5 {
		name := filepath.Join(t.TempDir(), fmt.Sprint(round))
		child := exec.CommandContext(t.Context(), os.Args[0])
		child.Env = append(os.Environ(), killedTo+"="+backend.URL, killedFile+"="+name)
		out, err := child.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, child.Start())
		addr, err := bufio.NewReader(out).ReadString('\n')
		require.NoError(t, err)
		target := "http://" + strings.TrimSpace(addr) + "/?" + strings.Repeat("a=b&", 1000)
		for range 20 + 7*round { // the last ones are still on their way to the file
			resp, err := client.Get(target)
			require.NoError(t, err)
			resp.Body.Close()
		}
		require.NoError(t, child.Process.Kill())
		_ = child.Wait()
		client.CloseIdleConnections()
		file, err := os.Open(name)
		require.NoError(t, err)
		torn, err := tap.Read(file, func(e *tap.Exchange) error { whole++; return nil })
		file.Close()
		require.NoError(t, err)
		require.LessOrEqual(t, torn, 1)
	}
	require.Positive(t, whole)
}

// Wherever a recording ends, the lines before that are there.
func TestHalfALastLineIsSurvived(t *testing.T) {
	t.Parallel()
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Write([]byte(r.URL.RawQuery)) }))
	defer backend.Close()
	r := start(t, tap.Callback, backend.URL)
	client := &http.Client{Transport: &http.Transport{}}
	for i := range 3 {
		resp, err := client.Get(fmt.Sprintf("http://%s/?n=%d", r.addr, i))
		require.NoError(t, err)
		resp.Body.Close()
	}
	client.CloseIdleConnections()
	require.Zero(t, r.stop())
	text := r.recording.String()
	ends := 0
	for end := range len(text) + 1 {
		var got []string
		torn, err := tap.Read(strings.NewReader(text[:end]), func(e *tap.Exchange) error { got = append(got, e.URL); return nil })
		require.NoError(t, err)
		if end > 0 && text[end-1] == '\n' {
			ends++
			require.Zero(t, torn)
		}
		require.GreaterOrEqual(t, len(got), ends)
		require.LessOrEqual(t, len(got)-ends+torn, 1)
	}
	require.Equal(t, 3, ends)
}
