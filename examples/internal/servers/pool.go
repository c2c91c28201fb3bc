package servers

import (
	"context"
	"database/sql"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestFewConnectionsAreOpenedAtOnce has open make a pool of connections to a PostgreSQL that accepts
// and does not answer, and fails unless it opens two at once, and no third one.
func TestFewConnectionsAreOpenedAtOnce(t *testing.T, open func(url string) *sql.DB) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer silent.Close()
	db := open("postgres://game@" + silent.Addr().String() + "/game?sslmode=disable&connect_timeout=30")
	defer db.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var pings sync.WaitGroup
	for range 10 {
		pings.Go(func() { assert.ErrorIs(t, db.PingContext(ctx), context.Canceled) })
	}
	for range 2 {
		conn, err := silent.Accept()
		require.NoError(t, err)
		defer conn.Close()
	}
	time.AfterFunc(300*time.Millisecond, cancel) // a third one would have come
	pings.Wait()

	last, err := net.Dial("tcp", silent.Addr().String())
	require.NoError(t, err)
	defer last.Close()
	next, err := silent.Accept()
	require.NoError(t, err)
	defer next.Close()
	require.Equal(t, last.LocalAddr().String(), next.RemoteAddr().String(), "a third one was opened")
}

// TestNothingIsPrepared fails unless the arguments of a statement to a MySQL are written into it, which saves the
// round trip that prepares it.
func TestNothingIsPrepared(t *testing.T, db *sql.DB) {
	t.Helper()
	conn, err := db.Conn(t.Context())
	require.NoError(t, err)
	defer conn.Close()
	const text = `中'"\`
	var name, value string
	require.NoError(t, conn.QueryRowContext(t.Context(), "SELECT ?", text).Scan(&value))
	require.Equal(t, text, value)
	require.NoError(t, conn.QueryRowContext(t.Context(), "SHOW SESSION STATUS LIKE 'Com_stmt_prepare'").Scan(&name, &value))
	require.Equal(t, "0", value)
}
