package failovertest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midassql"
	"github.com/stretchr/testify/require"
)

// poolSize is how many connections PgBouncer has to the database.
const poolSize = 4

// TestPgBouncer shows which of pgx's ways to run a statement go with which of PgBouncer's
// pooling modes. The version is the one that Debian has: from 1.21 on PgBouncer can keep prepared
// statements in transaction mode (max_prepared_statements).
func TestPgBouncer(t *testing.T) {
	p := startPostgreSQL(t, false)
	createTables(t, newWriter(t, openPGX(t, p.dsn()), midassql.PostgreSQL, false), midassql.PostgreSQL)
	program := program(t, "pgbouncer", "/usr/sbin/")
	payments := 0
	for _, mode := range []struct {
		pooling string
		conns   int               // of the game's pool; in session mode no more than PgBouncer's own
		fails   map[string]string // with which error; with none if empty
	}{
		{"session", poolSize, map[string]string{"cache_statement": "", "cache_describe": "", "describe_exec": "", "exec": "", "simple_protocol": ""}},
		{"session", 10, map[string]string{"exec": context.DeadlineExceeded.Error()}},
		{"transaction", 10, map[string]string{"cache_statement": "42P05", "cache_describe": "", "describe_exec": "", "exec": "", "simple_protocol": ""}},
		{"statement", 10, map[string]string{"exec": "transaction blocks not allowed"}},
	} {
		address := p.startPgBouncer(t, program, mode.pooling)
		for exec, fails := range mode.fails {
			t.Run(fmt.Sprintf("%s/%s/%d", mode.pooling, exec, mode.conns), func(t *testing.T) {
				db := openPGX(t, "postgres://game@"+address+"/postgres?sslmode=disable&default_query_exec_mode="+exec)
				db.SetMaxOpenConns(mode.conns)
				w := newWriter(t, db, midassql.PostgreSQL, true)
				limit := callTime
				if fails == "" {
					limit = time.Minute // a slow disk is not what this is about
				}
				const each = 25
				var failed atomic.Int64
				answered := make([]error, callers*each)
				first := payments
				var running sync.WaitGroup
				for c := range callers {
					running.Go(func() {
						for i := c * each; i < (c+1)*each; i++ {
							ctx, cancel := context.WithTimeout(context.Background(), limit)
							answered[i] = w.payOnce(ctx, first+i)
							cancel()
							if answered[i] != nil {
								failed.Add(1)
							}
						}
					})
				}
				running.Wait()
				payments += len(answered)
				t.Logf("%d of %d payments failed", failed.Load(), len(answered))
				if err := errors.Join(answered...); fails == "" {
					require.NoError(t, err)
				} else {
					require.ErrorContains(t, err, fails)
				}
			})
		}
	}
}

// payOnce is a payment whose order and callback come once.
func (w *writer) payOnce(ctx context.Context, i int) error {
	token := fmt.Sprint("token", i)
	if err := w.store.SaveOrder(ctx, order(i), &midas.Order{Token: token}); err != nil {
		return err
	}
	return w.deliver(ctx, payment(i, token))
}

// startPgBouncer returns the address of a PgBouncer in front of the primary.
func (p *postgreSQL) startPgBouncer(t *testing.T, program, pooling string) string {
	t.Helper()
	n := newNode(t, p.account, "pgbouncer-"+pooling)
	host, port, err := net.SplitHostPort(p.primary.address)
	require.NoError(t, err)
	ini, users := filepath.Join(p.account.folder, n.name+".ini"), filepath.Join(p.account.folder, n.name+".users")
	require.NoError(t, os.WriteFile(users, []byte("\"game\" \"\"\n"), 0o644))
	require.NoError(t, os.WriteFile(ini, fmt.Appendf(nil, `[databases]
postgres = host=%s port=%s dbname=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %s
unix_socket_dir =
auth_type = trust
auth_file = %s
pool_mode = %s
default_pool_size = %d
`, host, port, n.port(), users, pooling, poolSize), 0o644))
	n.args = []string{program, ini}
	n.start(t, func() error {
		conn, err := net.Dial("tcp", n.address)
		if err == nil {
			conn.Close()
		}
		return err
	})
	return n.address
}
