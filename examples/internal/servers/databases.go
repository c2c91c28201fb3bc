package servers

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// Databases of a test's own, with their data in a temporary folder and an account that may do
// everything, and what else the examples stand on.

// postgresPrograms is where Debian keeps those of PostgreSQL.
const postgresPrograms = "/usr/lib/postgresql/*/bin/"

// PostgreSQL starts an empty PostgreSQL.
func PostgreSQL(t *testing.T, options ...string) *Process {
	t.Helper()
	initdb := Program(t, "initdb", postgresPrograms)
	return startPostgreSQL(t, options, func(data string) []string {
		return []string{initdb, "-D", data, "-U", "game", "-A", "trust", "-E", "UTF8", "--locale=C"}
	})
}

// Standby starts a PostgreSQL that follows primary, read-only until SELECT pg_promote().
func Standby(t *testing.T, primary *Process) *Process {
	t.Helper()
	backup := Program(t, "pg_basebackup", postgresPrograms)
	return startPostgreSQL(t, nil, func(data string) []string {
		return []string{backup, "-d", primary.URL, "-D", data, "-R", "-X", "stream", "-c", "fast"}
	})
}

func startPostgreSQL(t *testing.T, options []string, fill func(data string) []string) *Process {
	t.Helper()
	postgres, isReady := Program(t, "postgres", postgresPrograms), Program(t, "pg_isready", postgresPrograms)
	folder, as := newFolder(t, "postgres")
	data := filepath.Join(folder, "data")
	run(t, folder, slices.Concat(as, fill(data))...)
	p := newProcess(t, "postgresql", folder, "postgres://game@%s/postgres?sslmode=disable", func(address string) []string {
		host, port, _ := net.SplitHostPort(address)
		return slices.Concat(as, []string{postgres, "-D", data, "-h", host, "-p", port, "-k", folder}, options)
	})
	p.ready = []string{isReady, "-q", "-d", p.URL}
	p.Stop = syscall.SIGINT
	// Its other processes end with it. (After a SIGKILL they end when they see it, and until then
	// the server does not start again.)
	t.Cleanup(func() { p.End(syscall.SIGQUIT) })
	p.mustStart(t)
	return p
}

// MariaDB starts a MariaDB with an empty database.
func MariaDB(t *testing.T, options ...string) *Process {
	t.Helper()
	install, server := Program(t, "mariadb-install-db", "/usr/bin/"), Program(t, "mariadbd", "/usr/sbin/")
	return startMySQL(t, "mariadb", []string{install, "--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"},
		append([]string{server, "--no-defaults"}, options...))
}

// MySQL starts Oracle's MySQL with an empty database. Its mysqld is where MIDAS_TEST_MYSQLD says:
// what goes by that name on Debian is MariaDB.
func MySQL(t *testing.T, options ...string) *Process {
	t.Helper()
	server := os.Getenv("MIDAS_TEST_MYSQLD")
	if server == "" {
		Missing(t, "MIDAS_TEST_MYSQLD is not set")
	}
	return startMySQL(t, "mysql", []string{server, "--initialize-insecure"}, append([]string{server}, options...))
}

func startMySQL(t *testing.T, name string, fill, server []string) *Process {
	t.Helper()
	folder, as := newFolder(t, "mysql")
	// A folder for temporary files of its own: when it starts it deletes those of others.
	files := []string{"--datadir=" + filepath.Join(folder, "data"), "--tmpdir=" + folder}
	run(t, folder, slices.Concat(as, fill, files)...)
	setUp := filepath.Join(folder, "init.sql")
	require.NoError(t, os.WriteFile(setUp, []byte("CREATE DATABASE IF NOT EXISTS game;\n"+
		"CREATE USER IF NOT EXISTS root@'127.0.0.1';\nGRANT ALL ON *.* TO root@'127.0.0.1' WITH GRANT OPTION;\n"), 0o644))
	return Start(t, name, folder, "mysql://root@%s/game", func(address string) []string {
		host, port, _ := net.SplitHostPort(address)
		return slices.Concat(as, server, files, []string{"--bind-address=" + host, "--port=" + port, "--init-file=" + setUp,
			"--socket=" + filepath.Join(folder, "socket"), "--pid-file=" + filepath.Join(folder, "pid")})
	})
}

// Redis starts a Redis that has what it answered on disk.
func Redis(t *testing.T, options ...string) *Process {
	t.Helper()
	server := Program(t, "redis-server", "/usr/bin/")
	return Start(t, "redis", t.TempDir(), "redis://%s/0", func(address string) []string {
		host, port, _ := net.SplitHostPort(address)
		return append([]string{server, "--bind", host, "--port", port, "--save", "", "--appendonly", "yes", "--appendfsync", "always"}, options...)
	})
}

// PgBouncer starts one in transaction mode in front of a PostgreSQL. The URL has no parameters.
func PgBouncer(t *testing.T, postgres *Process) *Process {
	t.Helper()
	bouncer := Program(t, "pgbouncer", "/usr/sbin/")
	folder, as := newFolder(t, "postgres")
	behindHost, behindPort, err := net.SplitHostPort(postgres.Address)
	require.NoError(t, err)
	users, config := filepath.Join(folder, "users"), filepath.Join(folder, "pgbouncer.ini")
	require.NoError(t, os.WriteFile(users, []byte(`"game" ""`), 0o644))
	return Start(t, "pgbouncer", folder, "postgres://game@%s/postgres", func(address string) []string {
		host, port, _ := net.SplitHostPort(address)
		require.NoError(t, os.WriteFile(config, fmt.Appendf(nil, `[databases]
postgres = host=%s port=%s
[pgbouncer]
listen_addr = %s
listen_port = %s
unix_socket_dir =
auth_type = trust
auth_file = %s
pool_mode = transaction
default_pool_size = 4
`, behindHost, behindPort, host, port, users), 0o644))
		return slices.Concat(as, []string{bouncer, config})
	})
}
