package tap_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/midas-go/midas/cmd/midas/internal/tap"
	"github.com/stretchr/testify/require"
)

// A running is a tap in front of something.
type running struct {
	addr      string
	recording *file
	stop      func() (lost int)
}

// A file is what a recorder writes to.
type file struct {
	mu sync.Mutex
	bytes.Buffer
}

func (f *file) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.Buffer.Write(p)
}

// exchanges returns what was recorded; stop the tap first.
func (r *running) exchanges(t testing.TB) (all []*tap.Exchange) {
	torn, err := tap.Read(&r.recording.Buffer, func(e *tap.Exchange) error { all = append(all, e); return nil })
	require.NoError(t, err)
	require.Zero(t, torn)
	return all
}

func secret(name, value string) bool {
	if slices.Contains([]string{"openid", "kp_actoken", "hy_gameid", "/v3/r/mpay/buy_goods_m"}, value) {
		return false
	}
	name = strings.ToLower(name)
	for _, part := range []string{"key", "token", "auth", "cookie", "session"} {
		if strings.Contains(name, part) {
			return true
		}
	}
	return false
}

func start(t testing.TB, kind, to string, change ...func(*tap.Config)) *running {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	u, err := url.Parse(to)
	require.NoError(t, err)
	r := &running{addr: listener.Addr().String(), recording: new(file)}
	cfg := tap.Config{Legs: []tap.Leg{{Kind: kind, Listener: listener, To: u}}, Recording: r.recording, Secret: secret}
	for _, f := range change {
		f(&cfg)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan int, 1)
	go func() {
		lost, err := tap.Run(ctx, cfg)
		if err != nil {
			t.Error(err)
		}
		ended <- lost
	}()
	var once sync.Once
	lost := 0
	r.stop = func() int {
		once.Do(func() { cancel(); lost = <-ended })
		return lost
	}
	t.Cleanup(func() { r.stop() })
	return r
}

// A script is what a server at the other end does with a connection.
type script struct {
	answer []byte
	early  bool // it answers before it has read everything
	cut    int  // it closes the connection after so many bytes, if above 0
}

// A peer is a server that takes any bytes. Each connection gets the next script.
type peer struct {
	net.Listener
	mu      sync.Mutex
	scripts []script
	got     chan []byte
}

func newPeer(t testing.TB, scripts ...script) *peer {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &peer{Listener: listener, scripts: scripts, got: make(chan []byte, 1)}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			p.serve(conn)
		}
	}()
	return p
}

func (p *peer) serve(conn net.Conn) {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	p.mu.Lock()
	s := p.scripts[0]
	p.scripts = p.scripts[1:]
	p.mu.Unlock()
	if s.cut > 0 {
		got := make([]byte, s.cut)
		n, _ := io.ReadFull(conn, got)
		p.got <- got[:n]
		return
	}
	if s.early {
		conn.Write(s.answer)
	}
	got, _ := io.ReadAll(conn)
	if !s.early {
		conn.Write(s.answer)
	}
	p.got <- got
}

// talk sends bytes in pieces and then no more, and returns what comes back.
func talk(addr string, sent []byte, pieces *rand.Rand) ([]byte, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	got := make(chan []byte, 1)
	var failed error
	go func() {
		b, err := io.ReadAll(conn)
		failed = err
		got <- b
	}()
	for len(sent) > 0 {
		n := len(sent)
		if pieces.IntN(2) == 0 {
			n = min(n, 1+pieces.IntN(1+pieces.IntN(2000)))
		}
		if _, err := conn.Write(sent[:n]); err != nil {
			break
		}
		sent = sent[n:]
	}
	_ = conn.(*net.TCPConn).CloseWrite()
	return <-got, failed
}

func pick[T any](r *rand.Rand, from ...T) T { return from[r.IntN(len(from))] }

// hostile returns a request that no well-behaved client sends, or several.
func hostile(r *rand.Rand) []byte {
	random := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return string(b)
	}
	var b bytes.Buffer
	for range 1 + r.IntN(1+r.IntN(5)) { // pipelined
		end := pick(r, "\r\n", "\r\n", "\r\n", "\n", "\r", "\r\r\n")
		query := pick(r, "a=1&sig=x%2B", "a=%zz&;&==&a=1;b", "openkey=K&"+strings.Repeat("x=y&", r.IntN(3000)), "%00%0d%0a", "\xe9\x81\x93=\xff", "a b c", "#fragment?")
		if r.IntN(40) == 0 {
			query = strings.Repeat("q=0123456789&", 80_000) // 1 MB
		}
		fmt.Fprintf(&b, "%s %s %s%s", pick(r, "GET", "GET", "POST", "HEAD", "CONNECT", "get", "G\x00T", "", "PRI"),
			pick(r, "/pay/notify?"+query, "http://other.example/p?"+query, "*", "//", "/../"+query, ""),
			pick(r, "HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "HTTP/0.9", "", "HTTP/1.1 "), end)
		body := pick(r, "", "body", random(r.IntN(100)), strings.Repeat("long ", r.IntN(60_000)))
		for range r.IntN(8) {
			b.WriteString(pick(r, "Cookie: session_id=openid; x=\"y\"", "X-Odd:\t v ", "x-lower:1", "Folded: a\r\n b", " leading: space", "NoColon", ": no name", "Sp ace: x",
				"Name : x", "X: "+random(5), "X-Long: "+strings.Repeat("v", r.IntN(70_000)), "Connection: close", "Connection: keep-alive, Upgrade", "Upgrade: websocket",
				"Expect: 100-continue", "Host: a.example", "HOST: b.example", "hOsT:c.example", "Host", "Hos: t", "Content-Encoding: gzip", "TE: trailers", "X\x00Y: z"))
			b.WriteString(end)
		}
		chunked := func() string {
			var c strings.Builder
			for rest := body; rest != ""; {
				n := 1 + r.IntN(len(rest))
				fmt.Fprintf(&c, "%s%s%s%s%s", pick(r, "", "0", "000")+fmt.Sprintf("%x", n), pick(r, "", "", ";ext=\"v\"", " ", ";\n"), end, rest[:n], end)
				rest = rest[n:]
			}
			return c.String() + pick(r, "0", "0", "00;last", "-1", "fffffffffffffffff") + end + pick(r, "", "Trailer: x"+end) + end
		}
		switch r.IntN(9) {
		case 0:
			fmt.Fprintf(&b, "%s: %d%s%s%s", pick(r, "Content-Length", "content-LENGTH"), len(body), end, end, body)
		case 1:
			fmt.Fprintf(&b, "Content-Length: %d%s%s%s", len(body)+r.IntN(100), end, end, body) // cut
		case 2:
			fmt.Fprintf(&b, "Content-Length: %s%s%s%s", pick(r, "-1", "+4", "0x4", "4 4", "99999999999999999999", "", "4,4"), end, end, body)
		case 3:
			fmt.Fprintf(&b, "Content-Length: %d%sContent-Length: %d%s%s%s", len(body), end, len(body)+r.IntN(2), end, end, body)
		case 4:
			fmt.Fprintf(&b, "Transfer-Encoding: %s%s%s%s", pick(r, "chunked", "chunked", "Chunked", "xchunked", "gzip, chunked", "chunked\x00", "identity"), end, end, chunked())
		case 5:
			fmt.Fprintf(&b, "Transfer-Encoding: chunked%sContent-Length: %d%s%s%s", end, len(body), end, end, chunked())
		case 6: // the head is cut
		default:
			b.WriteString(end)
		}
	}
	sent := b.Bytes()
	switch r.IntN(12) {
	case 0:
		return sent[:r.IntN(len(sent)+1)]
	case 1:
		return []byte(random(1 + r.IntN(2000)))
	case 2:
		return append([]byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"), sent...) // as TLS begins
	}
	return sent
}

// odd returns requests that net/http takes, odd as they are; the last one sometimes is not.
func odd(r *rand.Rand) []byte {
	var b bytes.Buffer
	for range 1 + r.IntN(4) {
		body := pick(r, "", "a=b", strings.Repeat("0123456789", r.IntN(2000)))
		fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\n", pick(r, "GET", "POST", "PUT", "DELETE"),
			pick(r, "/pay/notify?a=%zz&b=;&sig=+", "/%2e%2F?\xff", "http://other.example/p?q", "//p", "/?"+strings.Repeat("a=b&", r.IntN(5000))), pick(r, "a.example", "B.example:80", "[::1]"))
		for range r.IntN(6) {
			b.WriteString(pick(r, "Cookie: session_id=openid; x=\"y\"\r\n", "X-Odd:\t v \r\n", "x-lower:1\r\n", "X-Twice: 1\r\nx-twice: 2\r\n", "X: \xff\r\n", "X-Empty:\r\n", "X-LF: 1\n", "TE: trailers\r\n"))
		}
		switch r.IntN(3) {
		case 0:
			fmt.Fprintf(&b, "Content-Length: %d\r\n\r\n%s", len(body), body)
		case 1:
			fmt.Fprintf(&b, "Transfer-Encoding: chunked\r\n\r\n%x;ext\r\n%s\r\n0\r\nTrailer: x\r\n\r\n", len(body)+1, body+"!")
		case 2:
			b.WriteString("\r\n")
		}
	}
	b.WriteString(pick(r, "", "", "GET / HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\ncut", "\x16\x03"))
	return b.Bytes()
}

func hostileAnswer(r *rand.Rand) []byte {
	var b bytes.Buffer
	for range 1 + r.IntN(1+r.IntN(3)) {
		body := pick(r, "", `{"ret":0,"msg":"OK"}`, strings.Repeat("<p>", r.IntN(50_000)))
		fmt.Fprintf(&b, "%s%s", pick(r, "HTTP/1.1 200 OK\r\n", "HTTP/1.0 500 \r\n", "HTTP/1.1 204 No\n", "HTTP/1.1 304 X\r\n", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n", "HTTP/1.1 101 Switching\r\n", "HTTP/1.1 999\r\n", "ICY 200\r\n", "\x00\r\n", ""),
			pick(r, "", "Set-Cookie: a=b\r\n", "X\r\n", " folded\r\n"))
		switch r.IntN(5) {
		case 0:
			fmt.Fprintf(&b, "Content-Length: %d\r\n\r\n%s", len(body), body)
		case 1:
			fmt.Fprintf(&b, "Content-Length: %d\r\n\r\n%s", len(body)+5, body)
		case 2:
			fmt.Fprintf(&b, "Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(body), body)
		case 3:
			fmt.Fprintf(&b, "Transfer-Encoding: chunked\r\n\r\n%s", body)
		case 4:
			fmt.Fprintf(&b, "\r\n%s", body)
		}
	}
	return b.Bytes()
}

// Whatever comes, each end gets the bytes that it would get without the tap.
func TestHostileMessagesPassUnchanged(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{tap.Callback, tap.Order} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			far := newPeer(t)
			recorded := make(chan int, 10_000) // connections, one for each exchange
			r := start(t, kind, "http://"+far.Addr().String(), func(cfg *tap.Config) {
				cfg.Seen = func(e *tap.Exchange) { recorded <- e.Caller.Connection }
			})
			random := rand.New(rand.NewPCG(25, 1))
			connections := 0
			for i := range 500 {
				sent, s := hostile(random), script{answer: hostileAnswer(random), early: random.IntN(3) == 0}
				if len(sent) == 0 {
					continue
				}
				if random.IntN(10) == 0 {
					s = script{cut: 1 + random.IntN(len(sent))}
				}
				far.mu.Lock()
				far.scripts = append(far.scripts, s)
				far.mu.Unlock()
				got, err := talk(r.addr, sent, random)
				reached := <-far.got
				for connections++; <-recorded != connections; { // so that however slow the machine is, the recorder keeps up
				}
				if s.cut > 0 { // how much of it arrives is chance with or without a tap
					require.True(t, sameHead(kind, sent, reached, far.Addr().String(), true), "%d: %q", i, sent)
					continue
				}
				require.NoError(t, err, "%d: %q", i, sent)
				require.Equal(t, string(s.answer), string(got), "%d: answer to %.2000q", i, sent)
				require.True(t, sameHead(kind, sent, reached, far.Addr().String(), false), "%d: sent %.3000q\nreached %.3000q", i, sent, reached)
			}
			require.Zero(t, r.stop())
			all := r.exchanges(t)
			require.GreaterOrEqual(t, len(all), connections)
			for i, e := range all {
				require.Equal(t, []int{i + 1, 0}, []int{e.Seq, e.Lost})
			}
		})
	}
}

// sameHead reports whether what reached the other end is what was sent. On the way to the
// gateway only what a header line Host says may differ, and then it is the gateway's name.
func sameHead(kind string, sent, reached []byte, host string, begins bool) bool {
	if kind == tap.Callback {
		if begins {
			return bytes.HasPrefix(sent, reached)
		}
		return bytes.Equal(sent, reached)
	}
	a, b := bytes.SplitAfter(sent, []byte("\n")), bytes.SplitAfter(reached, []byte("\n"))
	if len(a) != len(b) && !begins || len(b) > len(a) {
		return false
	}
	for i := range b {
		if bytes.Equal(a[i], b[i]) || begins && i == len(b)-1 {
			continue
		}
		isHost := len(a[i]) > 5 && strings.EqualFold(string(a[i][:5]), "host:")
		if !isHost || string(b[i]) != string(a[i][:5])+" "+host+"\r\n" {
			return false
		}
	}
	return true
}

// What net/http makes of a message is the same with and without a tap.
func TestABackendSeesWhatItWouldSeeWithoutATap(t *testing.T) {
	t.Parallel()
	seen := make(chan string, 100)
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		seen <- fmt.Sprintf("%s %s %s %q %v %d %q %v", r.Method, r.RequestURI, r.Host, r.Header, r.TransferEncoding, r.ContentLength, body, err != nil)
		io.WriteString(w, `{"ret":0,"msg":"OK"}`)
	}))
	defer backend.Close()
	r := start(t, tap.Callback, backend.URL)
	random := rand.New(rand.NewPCG(7, 7))
	ask := func(addr string, sent []byte) (answer string, saw []string) {
		got, _ := talk(addr, sent, random)
		for {
			select {
			case s := <-seen:
				saw = append(saw, s)
				continue
			default:
			}
			break
		}
		lines := slices.DeleteFunc(strings.SplitAfter(string(got), "\n"), func(l string) bool { return strings.HasPrefix(l, "Date: ") })
		return strings.Join(lines, ""), saw
	}
	compared := 0
	for range 300 {
		sent := odd(random)
		answer, direct := ask(backend.Listener.Addr().String(), sent)
		throughTap, tapped := ask(r.addr, sent)
		require.Equal(t, direct, tapped, "%.2000q", sent)
		require.Equal(t, answer, throughTap, "%.2000q", sent)
		compared += len(direct)
	}
	require.Greater(t, compared, 300)
}

// The gateway is reached under its own name, and everything else is as the backend sent it.
func TestAnOrderReachesTheGatewayUnderItsName(t *testing.T) {
	t.Parallel()
	var got *http.Request
	gateway := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r
		w.Header()["x-odd"] = []string{"kept"}
		w.WriteHeader(502)
		io.WriteString(w, "<html>\n")
	}))
	defer gateway.Close()
	roots := x509.NewCertPool()
	roots.AddCert(gateway.Certificate())
	r := start(t, tap.Order, gateway.URL, func(cfg *tap.Config) { cfg.Legs[0].TLS = &tls.Config{RootCAs: roots} })
	const request = "GET /mpay/buy_goods_m?b=%2f&a=x+y;z&sig=S%2Bg%3D HTTP/1.1\r\nhost: 127.0.0.1:9200\r\ncookie: session_id=openid;session_type=kp_actoken; org_loc=%2Fv3%2Fr%2Fmpay%2Fbuy_goods_m\r\nConnection: close\r\n\r\n"
	answer, err := talk(r.addr, []byte(request), rand.New(rand.NewPCG(1, 1)))
	require.NoError(t, err)
	require.Contains(t, string(answer), "502 Bad Gateway\r\n")
	require.Contains(t, string(answer), "x-odd: kept\r\n")
	require.Equal(t, gateway.Listener.Addr().String(), got.Host)
	require.Equal(t, "/mpay/buy_goods_m?b=%2f&a=x+y;z&sig=S%2Bg%3D", got.RequestURI)
	require.Equal(t, http.Header{"Cookie": {"session_id=openid;session_type=kp_actoken; org_loc=%2Fv3%2Fr%2Fmpay%2Fbuy_goods_m"}, "Connection": {"close"}}, got.Header)
	require.Zero(t, r.stop())
	all := r.exchanges(t)
	require.Len(t, all, 1)
	require.Equal(t, 502, all[0].Answer.Status)
	require.Contains(t, string(all[0].Request.Head), "org_loc=%2Fv3%2Fr%2Fmpay%2Fbuy_goods_m")
	require.Contains(t, string(all[0].Request.Head), "b=%2f&a=x+y;z&sig=X%2Bx%3D HTTP/1.1\r\n")
}

// A certificate that does not fit is an answer 502, and no byte of the order leaves.
func TestAGatewayThatIsNotVerifiedGetsNothing(t *testing.T) {
	t.Parallel()
	gateway := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("it got the order") }))
	gateway.Config.ErrorLog = log.New(io.Discard, "", 0) // where it says that nobody trusts it
	gateway.StartTLS()
	defer gateway.Close()
	r := start(t, tap.Order, gateway.URL)
	answer, err := talk(r.addr, []byte("GET /mpay/buy_goods_m?openkey=OPENKEYSECRET HTTP/1.1\r\nHost: x\r\n\r\n"), rand.New(rand.NewPCG(1, 1)))
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(string(answer), "HTTP/1.1 502 Bad Gateway\r\n"), string(answer))
	require.Zero(t, r.stop())
	all := r.exchanges(t)
	require.Len(t, all, 1)
	require.Contains(t, all[0].Error, "certificate")
	require.Equal(t, 502, all[0].Answer.Status)
}

func TestABackendThatIsDownIsAnAnswer502(t *testing.T) {
	t.Parallel()
	r := start(t, tap.Callback, "http://127.0.0.1:1")
	answer, err := talk(r.addr, []byte("GET /pay/notify?a=1 HTTP/1.1\r\nHost: x\r\n\r\n"), rand.New(rand.NewPCG(1, 1)))
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(string(answer), "HTTP/1.1 502 Bad Gateway\r\n"), string(answer))
	require.Zero(t, r.stop())
	require.Equal(t, "/pay/notify?a=1", strings.TrimPrefix(r.exchanges(t)[0].URL, "http://127.0.0.1:1"))
}

// Neither leg waits longer than the other end: the backend learns that Midas hung up, and Midas
// that the backend did.
func TestWhoHangsUpIsNotHidden(t *testing.T) {
	t.Parallel()
	begun, gone := make(chan struct{}), make(chan struct{})
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(begun)
		<-r.Context().Done()
		close(gone)
	}))
	defer backend.Close()
	r := start(t, tap.Callback, backend.URL)
	conn, err := net.Dial("tcp", r.addr)
	require.NoError(t, err)
	io.WriteString(conn, "GET /pay/notify HTTP/1.1\r\nHost: x\r\n\r\n")
	<-begun
	conn.Close()
	<-gone
	require.Zero(t, r.stop())
	require.Contains(t, r.exchanges(t)[0].Error, "the caller had closed its side before the answer came")

	silent := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	defer silent.Close()
	r = start(t, tap.Callback, silent.URL)
	answer, _ := talk(r.addr, []byte("GET /pay/notify HTTP/1.1\r\nHost: x\r\n\r\n"), rand.New(rand.NewPCG(1, 1)))
	require.Empty(t, answer)
}

// An answer is passed on piece by piece, not when it is whole.
func TestAnswersStream(t *testing.T) {
	t.Parallel()
	more := make(chan struct{})
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "first")
		w.(http.Flusher).Flush()
		<-more
		io.WriteString(w, "second")
	}))
	defer backend.Close()
	r := start(t, tap.Callback, backend.URL)
	resp, err := http.Get("http://" + r.addr)
	require.NoError(t, err)
	defer resp.Body.Close()
	first := make([]byte, 5)
	_, err = io.ReadFull(resp.Body, first)
	require.NoError(t, err)
	close(more)
	rest, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, "firstsecond", string(first)+string(rest))
	http.DefaultClient.CloseIdleConnections()
	require.Zero(t, r.stop())
	require.Equal(t, "firstsecond", string(r.exchanges(t)[0].Answer.Body))
}

// What is over the limit is passed on whole and recorded cut.
func TestWhatIsLongIsRecordedCut(t *testing.T) {
	t.Parallel()
	var got int
	backend := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got = len(r.RequestURI) + len(body)
		w.Write(body)
	}))
	backend.Config.MaxHeaderBytes = 4 << 20
	backend.Start()
	defer backend.Close()
	r := start(t, tap.Callback, backend.URL)
	query, body := strings.Repeat("a=b&", 1<<18), strings.Repeat("x", 3<<20)
	resp, err := http.Post("http://"+r.addr+"/p?"+query, "text/plain", strings.NewReader(body))
	require.NoError(t, err)
	answer, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	resp.Body.Close()
	require.Len(t, answer, len(body))
	require.Equal(t, len("/p?")+len(query)+len(body), got)
	http.DefaultClient.CloseIdleConnections()
	require.Zero(t, r.stop())
	e := r.exchanges(t)[0]
	require.True(t, e.Request.Cut)
	require.True(t, e.Answer.Cut)
	require.Len(t, e.Request.Head, 64<<10)
	require.Len(t, e.Answer.Body, 64<<10)
	require.Greater(t, e.Request.Size, int64(len(query)+len(body)))
}

// A faulty is a disk that is full for a while, or for ever, and may write a part of a line.
type faulty struct {
	file
	full func(line int) bool
	n    int
}

func (f *faulty) Write(p []byte) (int, error) {
	f.n++
	if f.full(f.n) {
		n, _ := f.file.Write(p[:len(p)/2])
		return n, errors.New("no space left on device")
	}
	return f.file.Write(p)
}

func TestAFullDiskLosesNoMessageAndCountsWhatItLost(t *testing.T) {
	t.Parallel()
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.URL.RawQuery) }))
	defer backend.Close()
	disk := &faulty{full: func(line int) bool { return line > 5 && line <= 12 }}
	var trouble []string
	r := start(t, tap.Callback, backend.URL, func(cfg *tap.Config) {
		cfg.Recording = disk
		cfg.Trouble = func(err error, lost int) { trouble = append(trouble, fmt.Sprint(err, " ", lost)) }
	})
	for i := range 20 {
		resp, err := http.Get(fmt.Sprintf("http://%s/?n=%d", r.addr, i))
		require.NoError(t, err)
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		resp.Body.Close()
		require.Equal(t, fmt.Sprintf("n=%d", i), string(body))
	}
	http.DefaultClient.CloseIdleConnections()
	require.Equal(t, 7, r.stop())
	require.Equal(t, []string{"no space left on device 1"}, trouble, "once a minute")
	var whole, lost int
	torn, err := tap.Read(&disk.Buffer, func(e *tap.Exchange) error { whole++; lost += e.Lost; return nil })
	require.NoError(t, err)
	require.Equal(t, []int{13, 7, 7}, []int{whole, lost, torn})
}

// A disk that does not answer holds up nothing; what waits for it is bounded.
func TestASlowDiskHoldsUpNoMessage(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "OK") }))
	defer srv.Close()
	release := make(chan struct{})
	var recorded file
	stuck := true
	r := start(t, tap.Callback, srv.URL, func(cfg *tap.Config) {
		cfg.Recording = writerFunc(func(p []byte) (int, error) {
			if stuck {
				<-release
				stuck = false
			}
			return recorded.Write(p)
		})
	})
	client := &http.Client{Transport: &http.Transport{}}
	for range 1500 {
		resp, err := client.Get("http://" + r.addr)
		require.NoError(t, err)
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		resp.Body.Close()
		require.Equal(t, "OK", string(body))
	}
	client.CloseIdleConnections()
	close(release)
	lost := r.stop()
	require.InDelta(t, 500, lost, 1, "one more is with the disk")
	all := (&running{recording: &recorded}).exchanges(t)
	require.Len(t, all, 1500-lost)
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// Requests on one connection stay on one, and each gets the gateway's name.
func TestAConnectionIsKeptAsTheBackendKeepsIt(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var hosts, remotes []string
	gateway := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		hosts, remotes = append(hosts, r.Host), append(remotes, r.RemoteAddr)
		io.Copy(w, r.Body)
	}))
	defer gateway.Close()
	r := start(t, tap.Order, gateway.URL)
	backend, err := net.Dial("tcp", r.addr) // net/http does not keep every connection that it could
	require.NoError(t, err)
	answers := bufio.NewReader(backend)
	for i := range 3 {
		const sent = "Host: in the body\r\n"
		fmt.Fprintf(backend, "POST /mpay/x HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n%s", r.addr, len(sent), sent)
		resp, err := http.ReadResponse(answers, nil)
		require.NoError(t, err)
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		resp.Body.Close()
		require.Equal(t, sent, string(body), "%d", i)
	}
	backend.Close()
	require.Zero(t, r.stop())
	host := gateway.Listener.Addr().String()
	require.Equal(t, []string{host, host, host}, hosts)
	require.Equal(t, remotes[0], remotes[2])
	for i, e := range r.exchanges(t) {
		require.Equal(t, []int{1, i + 1}, []int{e.Caller.Connection, e.Caller.Request})
		require.Empty(t, e.Error)
	}
}

// Midas calls with HTTPS, and the tap says with which version.
func TestCallbacksComeByTLS(t *testing.T) {
	t.Parallel()
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, `{"ret":0,"msg":"OK"}`) }))
	defer backend.Close()
	certified := httptest.NewTLSServer(nil)
	defer certified.Close()
	r := start(t, tap.Callback, backend.URL, func(cfg *tap.Config) {
		cfg.Legs[0].Listener = tls.NewListener(cfg.Legs[0].Listener, &tls.Config{Certificates: certified.TLS.Certificates, NextProtos: []string{"http/1.1"}})
	})
	client := certified.Client()
	resp, err := client.Get("https://" + r.addr + "/pay/notify?a=1")
	require.NoError(t, err)
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, `{"ret":0,"msg":"OK"}`, string(body))
	plain, err := net.Dial("tcp", r.addr) // no TLS: hung up on, and no harm done
	require.NoError(t, err)
	io.WriteString(plain, "GET / HTTP/1.1\r\n\r\n")
	_, err = io.ReadAll(plain)
	require.NoError(t, err)
	plain.Close()
	client.CloseIdleConnections()
	require.Zero(t, r.stop())
	all := r.exchanges(t)
	require.Len(t, all, 1)
	require.Equal(t, "TLS 1.3", all[0].Caller.TLS)
	require.True(t, all[0].AnsweredOK)
	require.True(t, strings.HasSuffix(all[0].URL, "/pay/notify?a=1"))
}

// Whether a backend took a delivery does not depend on how it is recorded: Midas asked for no
// gzip, so an answer in gzip is not OK to it.
func TestAnAnswerIsJudgedAsItCame(t *testing.T) {
	t.Parallel()
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	io.WriteString(w, `{"ret":0,"msg":"OK"}`)
	w.Close()
	for what, c := range map[string]struct {
		header, body string
		want         bool
	}{
		"exactly the bytes": {"", `{"ret":0,"msg":"OK"}`, true},
		"gzip":              {"Content-Encoding: gzip\r\n", packed.String(), false},
		"a line end":        {"", "{\"ret\":0,\"msg\":\"OK\"}\n", false},
	} {
		for _, keep := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, secrets kept: %t", what, keep), func(t *testing.T) {
				t.Parallel()
				far := newPeer(t, script{answer: fmt.Appendf(nil, "HTTP/1.1 200 OK\r\n%sContent-Length: %d\r\n\r\n%s", c.header, len(c.body), c.body)})
				var seen []bool
				r := start(t, tap.Callback, "http://"+far.Addr().String(), func(cfg *tap.Config) {
					cfg.KeepSecrets = keep
					cfg.Seen = func(e *tap.Exchange) { seen = append(seen, e.AnsweredOK) }
				})
				// The parameter is a piece of the answer, which is therefore masked in it.
				_, err := talk(r.addr, []byte("GET /pay/notify?openid=%22msg%22%3A%22OK HTTP/1.1\r\nHost: x\r\n\r\n"), rand.New(rand.NewPCG(1, 1)))
				require.NoError(t, err)
				<-far.got
				require.Zero(t, r.stop())
				require.Equal(t, []bool{c.want}, seen)
				require.Equal(t, c.want, r.exchanges(t)[0].AnsweredOK, "also in the recording")
			})
		}
	}
}

// A body streams: a tap of it in memory would be twice as large as what is allowed here.
func TestALargeBodyTakesLittleMemory(t *testing.T) {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) }))
	defer backend.Close()
	r := start(t, tap.Callback, backend.URL)
	const size = 128 << 20
	var before, now, peak runtime.MemStats
	runtime.ReadMemStats(&before)
	sent := int64(0)
	piece := bytes.Repeat([]byte("x"), 1<<20)
	body := readerFunc(func(p []byte) (int, error) {
		if sent >= size {
			return 0, io.EOF
		}
		if sent%(16<<20) < int64(len(p)) {
			if runtime.ReadMemStats(&now); now.HeapAlloc > peak.HeapAlloc {
				peak = now
			}
		}
		n := copy(p, piece)
		sent += int64(n)
		return n, nil
	})
	resp, err := http.Post("http://"+r.addr, "text/plain", body)
	require.NoError(t, err)
	resp.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	require.Zero(t, r.stop())
	require.Less(t, int64(peak.HeapAlloc)-int64(before.HeapAlloc), int64(size/2))
	require.GreaterOrEqual(t, r.exchanges(t)[0].Request.Size, int64(size))
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
