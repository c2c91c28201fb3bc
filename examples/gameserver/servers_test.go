package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Database servers of a test's own, on a free port, with their data in a temporary folder.

// newFolder makes a folder that belongs to account if the test runs as root, as whom
// database servers do not run. (Not t.TempDir, into which the other account could not go.)
// It returns also what to put in front of a command to run it under the account.
func newFolder(t *testing.T, account string) (folder string, as []string) {
	t.Helper()
	if os.Geteuid() == 0 {
		if _, err := user.Lookup(account); err != nil {
			missing(t, "the database does not run as root, and there is no account "+account)
		}
		as = []string{"runuser", "-u", account, "--"}
	}
	folder, err := os.MkdirTemp("", "gameserver-"+account+"-")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(folder) })
	if as != nil {
		require.NoError(t, exec.Command("chown", account, folder).Run())
	}
	return folder, as
}

// runIn runs a command in folder, to its end.
func runIn(folder string, command ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Dir = folder
	// To a file: a server that pg_ctl starts would hold a pipe open.
	output, err := os.CreateTemp(folder, "output")
	if err != nil {
		return err
	}
	defer output.Close()
	cmd.Stdout, cmd.Stderr = output, output
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", command, err, tail(output.Name()))
	}
	return nil
}

// program returns the path of a program, or skips the test. Debian keeps those of servers
// out of PATH.
func program(t *testing.T, name, elsewhere string) string {
	t.Helper()
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	paths, err := filepath.Glob(elsewhere + name)
	require.NoError(t, err)
	if len(paths) == 0 {
		missing(t, name+" is not installed")
	}
	return paths[len(paths)-1]
}

// A databaseServer can be restarted.
type databaseServer interface {
	restart(crash bool) error
	databaseURL() string
}

type postgreSQL struct {
	url, folder string
	pgCtl       []string
	options     string // of the server
}

func startPostgreSQL(t *testing.T) *postgreSQL {
	t.Helper()
	initdb, pgCtl := program(t, "initdb", "/usr/lib/postgresql/*/bin/"), program(t, "pg_ctl", "/usr/lib/postgresql/*/bin/")
	folder, as := newFolder(t, "postgres")
	data := filepath.Join(folder, "data")
	s := &postgreSQL{folder: folder, pgCtl: append(as, pgCtl, "-D", data, "-w", "-l", filepath.Join(folder, "log"))}
	host, port, err := net.SplitHostPort(freeAddress(t))
	require.NoError(t, err)
	s.url = fmt.Sprintf("postgres://game@%s:%s/postgres?sslmode=disable", host, port)

	require.NoError(t, runIn(folder, slices.Concat(as, []string{initdb, "-D", data, "-U", "game", "-A", "trust", "-E", "UTF8", "--locale=C"})...))
	s.run(t, host, port)
	return s
}

// startStandby starts a server that follows s, read-only until it is promoted.
func (s *postgreSQL) startStandby(t *testing.T) *postgreSQL {
	t.Helper()
	backup := program(t, "pg_basebackup", "/usr/lib/postgresql/*/bin/")
	folder, as := newFolder(t, "postgres")
	data := filepath.Join(folder, "data")
	require.NoError(t, runIn(folder, slices.Concat(as, []string{backup, "-d", s.url, "-D", data, "-R", "-X", "stream", "-c", "fast"})...))
	standby := &postgreSQL{folder: folder, pgCtl: append(as, program(t, "pg_ctl", "/usr/lib/postgresql/*/bin/"), "-D", data, "-w", "-l", filepath.Join(folder, "log"))}
	host, port, err := net.SplitHostPort(freeAddress(t))
	require.NoError(t, err)
	standby.url = fmt.Sprintf("postgres://game@%s:%s/postgres?sslmode=disable", host, port)
	standby.run(t, host, port)
	return standby
}

func (s *postgreSQL) run(t *testing.T, host, port string) {
	t.Helper()
	s.options = fmt.Sprintf("-p %s -k %s -c listen_addresses=%s", port, s.folder, host)
	require.NoError(t, s.control("start"))
	t.Cleanup(func() {
		if err := s.control("stop", "-m", "immediate"); err != nil {
			t.Error(err)
		}
	})
}

func (s *postgreSQL) control(args ...string) error {
	if args[0] == "start" {
		args = append(args, "-o", s.options)
	}
	return runIn(s.folder, slices.Concat(s.pgCtl, args)...)
}

func (s *postgreSQL) databaseURL() string { return s.url }

func (s *postgreSQL) restart(crash bool) error {
	if crash {
		return s.control("restart", "-m", "immediate") // the server recovers when it starts
	}
	return s.control("restart", "-m", "fast")
}

type mariaDB struct {
	address, folder string
	args            []string

	cmd   *exec.Cmd
	ended chan struct{} // closed when cmd has ended
}

func startMariaDB(t *testing.T, settings ...string) *mariaDB {
	t.Helper()
	install := program(t, "mariadb-install-db", "/usr/bin/")
	s := &mariaDB{address: freeAddress(t)}
	server := program(t, "mariadbd", "/usr/sbin/")
	folder, as := newFolder(t, "mysql")
	s.folder = folder
	// A folder for temporary files of its own: when it starts it deletes those of others.
	files := []string{"--no-defaults", "--datadir=" + filepath.Join(folder, "data"), "--tmpdir=" + folder}
	require.NoError(t, runIn(folder, slices.Concat(as, []string{install}, files, []string{"--auth-root-authentication-method=normal", "--skip-test-db"})...))
	host, port, err := net.SplitHostPort(s.address)
	require.NoError(t, err)
	s.args = slices.Concat([]string{server}, files, []string{"--bind-address=" + host, "--port=" + port,
		"--socket=" + filepath.Join(folder, "socket"), "--pid-file=" + filepath.Join(folder, "pid")}, settings)
	if as != nil {
		s.args = append(s.args, "--user=mysql") // and not runuser, which would be killed in its place
	}
	t.Cleanup(s.kill)
	require.NoError(t, s.start())
	db := reader(t, "mysql://root@"+s.address+"/")
	_, err = db.Exec("CREATE DATABASE game")
	require.NoError(t, err)
	return s
}

func (s *mariaDB) databaseURL() string { return "mysql://root@" + s.address + "/game" }

func (s *mariaDB) start() error {
	log, err := os.OpenFile(filepath.Join(s.folder, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	s.cmd = exec.Command(s.args[0], s.args[1:]...)
	s.cmd.Dir, s.cmd.Stdout, s.cmd.Stderr = s.folder, log, log
	if err := s.cmd.Start(); err != nil {
		return err
	}
	s.ended = make(chan struct{})
	go func() {
		s.cmd.Wait()
		close(s.ended)
	}()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if !listens(ctx, s.ended, s.address) {
		return fmt.Errorf("MariaDB does not start: %s", tail(log.Name()))
	}
	return nil
}

// kill ends the server as a power cut would.
func (s *mariaDB) kill() {
	if s.ended != nil {
		s.cmd.Process.Kill() // an error means that it has ended
		<-s.ended
	}
}

// restart restarts the server, which then recovers: it is always a crash.
func (s *mariaDB) restart(bool) error {
	s.kill()
	return s.start()
}
