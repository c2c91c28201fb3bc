package tap

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"sync"
	"syscall"
	"time"
)

// buffers are for copying.
var buffers = sync.Pool{New: func() any { return new([32 << 10]byte) }}

// dial connects to where a leg goes. Its error says nothing but why.
func dial(ctx context.Context, leg Leg) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	addr := hostPort(leg.To)
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil || leg.To.Scheme != "https" {
		return conn, err
	}
	cfg := &tls.Config{}
	if leg.TLS != nil {
		cfg = leg.TLS.Clone()
	}
	cfg.ServerName, cfg.NextProtos = leg.To.Hostname(), []string{"http/1.1"}
	secure := tls.Client(conn, cfg)
	if err := secure.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return secure, nil
}

func hostPort(to *url.URL) string {
	port := to.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[to.Scheme]
	}
	return net.JoinHostPort(to.Hostname(), port)
}

// run passes on what comes until both ends have nothing more to say.
func (c *conversation) run(ctx context.Context) {
	defer c.end()
	defer c.close()
	if secure, ok := c.client.(*tls.Conn); ok {
		handshake, cancel := context.WithTimeout(ctx, handshakeTime)
		err := secure.HandshakeContext(handshake)
		cancel()
		if err != nil {
			return // no request came
		}
		c.callerTLS = tls.VersionName(secure.ConnectionState().Version)
	}
	server, err := dial(ctx, c.leg)
	if err != nil {
		c.unreachable(err)
		return
	}
	if !c.connected(server) {
		server.Close()
		return
	}
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		c.pass(c.client, server, c.answers)
		c.noMoreAnswers()
		// The caller may still be writing; without this, or once it has waited long enough,
		// nothing would end that.
		_ = c.client.SetReadDeadline(time.Now().Add(lingerTime))
	}()
	c.pass(server, c.client, c.requests)
	<-answered
}

// pass copies from one end to the other until the first ends, and hands that on: the end of
// what it says, or a reset.
func (c *conversation) pass(to, from net.Conn, s *stream) {
	buffer := buffers.Get().(*[32 << 10]byte)
	defer buffers.Put(buffer)
	for {
		n, err := from.Read(buffer[:])
		if n > 0 {
			_, broken := to.Write(c.feed(s, buffer[:n]))
			c.written()
			if broken != nil {
				if s.isAnswer {
					reset(from) // nobody is left to answer
					return
				}
				// Its answer may be on its way nevertheless.
				_, _ = io.Copy(io.Discard, from)
				return
			}
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			if rest := c.finish(s); len(rest) > 0 {
				_, _ = to.Write(rest)
			}
			closeWrite(to)
			c.written()
			return
		default:
			var waited net.Error
			if !errors.As(err, &waited) || !waited.Timeout() {
				c.finish(s)
				reset(to)
				c.written()
			}
			return
		}
	}
}

// unreachable answers 502, once the request has been read so that it can be recorded.
func (c *conversation) unreachable(cause error) {
	end := time.Now().Add(lingerTime)
	_ = c.client.SetReadDeadline(end)
	buffer := buffers.Get().(*[32 << 10]byte)
	defer buffers.Put(buffer)
	for read := 0; read < c.tap.cfg.Limit && !c.hasRequest(); {
		n, err := c.client.Read(buffer[:])
		c.feed(c.requests, buffer[:n])
		read += n
		if err != nil {
			break
		}
	}
	to := "backend"
	if c.leg.Kind == Order {
		to = "gateway"
	}
	c.fail(fmt.Errorf("the %s at %s cannot be reached: %w", to, c.leg.To.Host, cause))
	body := "midas tap: the " + to + " cannot be reached\n"
	answer := fmt.Sprintf("HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(body), body)
	c.feed(c.answers, []byte(answer))
	_ = c.client.SetWriteDeadline(end)
	if _, err := io.WriteString(c.client, answer); err == nil {
		closeWrite(c.client)
		_, _ = io.Copy(io.Discard, c.client) // a reset would destroy the answer
	}
}

func closeWrite(conn net.Conn) {
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
	if secure, ok := conn.(*tls.Conn); ok { // which says goodbye, and leaves the connection open
		closeWrite(secure.NetConn())
	}
}

// reset ends a connection as one that broke.
func reset(conn net.Conn) {
	plain := conn
	if secure, ok := conn.(*tls.Conn); ok {
		plain = secure.NetConn()
	}
	if tcp, ok := plain.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	plain.Close()
}

// isShortage reports whether Accept failed for want of something that comes back.
func isShortage(err error) bool {
	for _, errno := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}
