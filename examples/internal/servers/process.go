// Package servers is what the tests of the examples stand on: servers in processes of their own that
// can be killed (the example itself, databases, Redis), Midas's side of a callback, and the
// players' apps.
package servers

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// StartTime is for a server to start, its recovery included.
const StartTime = 2 * time.Minute

// AsServer is in the environment of a test binary that is to be the server.
const AsServer = "EXAMPLE_PROCESS=1"

// Main is for TestMain. It lets the test binary be the server too: so a server process is built as
// the tests are, with the race detector or without.
func Main(m *testing.M, server func()) {
	if slices.Contains(os.Environ(), AsServer) {
		server()
		return
	}
	os.Exit(m.Run())
}

// Example starts the example's own server, which listens where its flag -listen says. The
// environment is the test's, and env.
func Example(t *testing.T, name string, env []string, args ...string) *Process {
	t.Helper()
	p := newProcess(t, name, t.TempDir(), "http://%s", func(address string) []string {
		return append(append([]string{os.Args[0]}, args...), "-listen", address)
	})
	p.env = append(env, AsServer)
	p.mustStart(t)
	return p
}

// A Process is a server on a free port of its own, which it keeps when it is started again.
type Process struct {
	Name    string
	Address string // 127.0.0.1:port
	URL     string // for clients
	Log     string // file of what it prints

	// Stop is the signal that ends it in order.
	Stop syscall.Signal

	folder  string // in which it runs
	command []string
	env     []string
	ready   []string // a command that succeeds when it is up; nil: it is as soon as it listens

	cmd   *exec.Cmd
	ended chan struct{} // closed when cmd has ended
}

// Start starts a server and returns once it answers. It is killed when the test ends. The URL has
// "%s" for the address.
func Start(t *testing.T, name, folder, url string, command func(address string) []string) *Process {
	t.Helper()
	p := newProcess(t, name, folder, url, command)
	p.mustStart(t)
	return p
}

// newProcess is Start without the start.
func newProcess(t *testing.T, name, folder, url string, command func(address string) []string) *Process {
	t.Helper()
	address := FreeAddress(t)
	p := &Process{Name: name, Address: address, URL: fmt.Sprintf(url, address), Log: filepath.Join(folder, name+".log"), folder: folder,
		Stop: syscall.SIGTERM, command: command(address)}
	t.Cleanup(func() {
		p.Kill()
		if t.Failed() {
			t.Logf("the end of the log of %s at %s:\n%s", name, address, Tail(p.Log))
		}
	})
	return p
}

func (p *Process) mustStart(t *testing.T) {
	t.Helper()
	require.NoError(t, p.Start(t.Context()))
}

// Start starts a server that has ended. As under systemd it is started again when it ends because
// what it needs is not there.
func (p *Process) Start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, StartTime)
	defer cancel()
	for {
		log, err := os.OpenFile(p.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		cmd, ended := exec.Command(p.command[0], p.command[1:]...), make(chan struct{})
		cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = p.folder, append(os.Environ(), p.env...), log, log
		err = cmd.Start()
		log.Close()
		if err != nil {
			return err
		}
		p.cmd, p.ended = cmd, ended
		go func() {
			_ = cmd.Wait() // End has the exit code
			close(ended)
		}()
		if Listens(ctx, ended, p.Address) && p.isReady(ctx) {
			return nil
		}
		p.Kill()
		if ctx.Err() != nil {
			return fmt.Errorf("%s does not start: %s", p.Name, Tail(p.Log))
		}
		Pause(ctx, 50*time.Millisecond)
	}
}

func (p *Process) isReady(ctx context.Context) bool {
	for p.ready != nil && exec.CommandContext(ctx, p.ready[0], p.ready[1:]...).Run() != nil {
		select {
		case <-p.ended:
			return false
		case <-ctx.Done():
			return false
		case <-time.After(20 * time.Millisecond):
		}
	}
	return true
}

// Kill ends the server as a power cut would.
func (p *Process) Kill() { p.End(syscall.SIGKILL) }

// End sends a signal, waits for the end, and returns the exit code.
func (p *Process) End(signal os.Signal) int {
	if p.cmd == nil {
		return 0
	}
	_ = p.cmd.Process.Signal(signal) // an error means that it has ended
	<-p.ended
	return p.cmd.ProcessState.ExitCode()
}

// Signal sends a signal that does not end the server.
func (p *Process) Signal(signal os.Signal) error { return p.cmd.Process.Signal(signal) }

// Restart ends the server with a signal, and starts it again.
func (p *Process) Restart(ctx context.Context, signal os.Signal) error {
	p.End(signal)
	return p.Start(ctx)
}

// Listens polls until somebody listens at address, or ended is closed or ctx ends.
func Listens(ctx context.Context, ended <-chan struct{}, address string) bool {
	every := time.NewTicker(10 * time.Millisecond)
	defer every.Stop()
	for {
		if conn, err := net.Dial("tcp", address); err == nil {
			conn.Close()
			return true
		}
		select {
		case <-every.C:
		case <-ended:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

// ports are this process's: 400, below those that Linux gives to outgoing connections, since one of these would take
// a port before its server does. A UDP socket keeps other processes from the same 400.
var ports struct {
	draw  sync.Once
	held  net.PacketConn
	first int
	tried atomic.Int64
}

// FreeAddress returns an address of loopback that nobody listens at.
func FreeAddress(t testing.TB) string {
	t.Helper()
	ports.draw.Do(func() {
		for range 500 {
			ports.first = 10000 + 400*rand.IntN(50)
			var err error
			if ports.held, err = net.ListenPacket("udp", fmt.Sprint("127.0.0.1:", ports.first)); err == nil {
				return
			}
		}
	})
	if ports.held == nil {
		t.Fatal("no UDP socket on loopback")
	}
	for range 400 {
		address := fmt.Sprint("127.0.0.1:", ports.first+int(ports.tried.Add(1)%400))
		if l, err := net.Listen("tcp", address); err == nil {
			l.Close()
			return address
		}
	}
	t.Fatal("400 ports are taken")
	return ""
}

// Tail returns the end of a file.
func Tail(file string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-3000):])
}

// Pause waits for d, or the end of ctx.
func Pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// Program returns the path of a program, or skips the test. Debian keeps those of servers
// elsewhere, a pattern, and out of PATH.
func Program(t *testing.T, name, elsewhere string) string {
	t.Helper()
	paths, err := filepath.Glob(elsewhere + name)
	require.NoError(t, err)
	if len(paths) > 0 {
		return paths[len(paths)-1] // the newest
	}
	path, err := exec.LookPath(name)
	if err != nil {
		Missing(t, name+" is not installed")
	}
	return path
}

// Missing skips the test with words, or fails it where everything must be there.
func Missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("MIDAS_TEST_REQUIRE_ALL") == "1" {
		t.Fatalf("%s, and MIDAS_TEST_REQUIRE_ALL=1", what)
	}
	t.Skipf("SKIPPED, NOT TESTED: %s", what)
}

// newFolder makes a folder that belongs to account if the test runs as root, as whom database
// servers do not run. (Not t.TempDir, into which the other account could not go.) It also
// returns what to put in front of a command to run it under the account.
func newFolder(t *testing.T, account string) (folder string, as []string) {
	t.Helper()
	if os.Geteuid() == 0 {
		if _, err := user.Lookup(account); err != nil {
			Missing(t, "the database does not run as root, and there is no account "+account)
		}
		// It becomes the command, so a signal reaches that. (runuser would be killed in its place.)
		as = []string{"setpriv", "--reuid", account, "--regid", account, "--init-groups", "--"}
	}
	folder, err := os.MkdirTemp("", "example-"+account+"-")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(folder) })
	if as != nil {
		require.NoError(t, exec.Command("chown", account, folder).Run())
	}
	return folder, as
}

// run runs a command in a folder, to its end.
func run(t *testing.T, folder string, command ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), StartTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Dir = folder
	output, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s: %s", command, output)
}
