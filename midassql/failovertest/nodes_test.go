package failovertest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Nodes of databases, each a process on a free port of loopback, with its data in a temporary
// folder; and the network between them.

const startTime = 2 * time.Minute // for a node to come up

// missing skips the test, or fails it where everything must be there.
func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("MIDAS_TEST_REQUIRE_ALL") == "1" {
		t.Fatal(what)
	}
	t.Skip("SKIPPED, NOT TESTED: " + what)
}

// An account runs the nodes of a test; database servers refuse to run as root.
type account struct {
	folder     string // belongs to it
	credential *syscall.Credential
	disks      bool // each new node has a disk of its own for its data, if it may be mounted
}

func newAccount(t *testing.T, name string) *account {
	t.Helper()
	folder, err := os.MkdirTemp("", "failover-"+name+"-") // not t.TempDir, into which another account cannot go
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(folder) })
	a := &account{folder: folder}
	if os.Geteuid() != 0 {
		return a
	}
	u, err := user.Lookup(name)
	if err != nil {
		missing(t, "there is no account "+name)
	}
	uid, err := strconv.Atoi(u.Uid)
	require.NoError(t, err)
	gid, err := strconv.Atoi(u.Gid)
	require.NoError(t, err)
	a.credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	require.NoError(t, os.Chown(folder, uid, gid))
	return a
}

// command returns a command that runs under the account and writes to a file log.
func (a *account) command(log string, args ...string) (*exec.Cmd, error) {
	file, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o666)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = a.folder, file, file
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: a.credential, Pdeathsig: syscall.SIGKILL}
	return cmd, nil
}

// run runs a command to its end.
func (a *account) run(t *testing.T, args ...string) {
	t.Helper()
	log := filepath.Join(a.folder, "run.log")
	cmd, err := a.command(log, args...)
	require.NoError(t, err)
	err = cmd.Run()
	require.NoError(t, err, "%s: %s", args, tail(log))
}

// A node is a process that is killed as a power cut would end it.
type node struct {
	account *account
	name    string
	address string
	data    string // folder
	disk    *disk  // where it is, and nil: with everything else
	log     string
	args    []string // that start it

	cmd   *exec.Cmd
	ended chan struct{} // closed when cmd has ended
}

func newNode(t *testing.T, a *account, name string) *node {
	t.Helper()
	n := &node{account: a, name: name, address: freeAddress(t), data: filepath.Join(a.folder, name), log: filepath.Join(a.folder, name+".log")}
	t.Cleanup(func() {
		n.kill()
		if t.Failed() {
			t.Logf("the end of the log of %s:\n%s", name, tail(n.log))
		}
	})
	if a.disks {
		n.disk = newDisk(t, a, n.data)
	}
	return n
}

func (n *node) port() string {
	_, port, _ := net.SplitHostPort(n.address)
	return port
}

// start starts the node and returns once ready returns nil.
func (n *node) start(t *testing.T, ready func() error, extra ...string) {
	t.Helper()
	args := append(append([]string{}, n.args...), extra...)
	cmd, err := n.account.command(n.log, args...)
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	ended := make(chan struct{})
	n.cmd, n.ended = cmd, ended
	go func() {
		cmd.Wait()
		close(ended)
	}()
	eventually(t, n.name+" to start", func() error {
		select {
		case <-ended:
			t.Fatalf("%s ended at once: %s", n.name, tail(n.log))
		default:
		}
		return ready()
	})
}

// kill kills the process and its children, the ones that it starts meanwhile included.
func (n *node) kill() {
	if n.cmd == nil {
		return
	}
	n.cmd.Process.Signal(syscall.SIGSTOP) // so that it starts no more; an error means that it has ended
	started := children(n.cmd.Process.Pid)
	for _, child := range started {
		syscall.Kill(child, syscall.SIGKILL)
	}
	n.cmd.Process.Kill()
	<-n.ended
	for _, child := range started { // PostgreSQL does not start while one of them still has its shared memory
		for hasMemory(child) {
			pause(context.Background(), time.Millisecond)
		}
	}
	n.cmd = nil
}

// hasMemory reports whether a process has neither ended nor is what is left of one that has.
func hasMemory(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	state := stat[strings.LastIndex(string(stat), ")")+1:]
	return err == nil && !strings.HasPrefix(string(state), " Z") && !strings.HasPrefix(string(state), " X")
}

func children(pid int) (pids []int) {
	list, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	for field := range strings.FieldsSeq(string(list)) {
		if child, err := strconv.Atoi(field); err == nil {
			pids = append(pids, child)
		}
	}
	return pids
}

// eventually polls until try returns nil.
func eventually(t *testing.T, what string, try func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(startTime); time.Now().Before(end); pause(context.Background(), 50*time.Millisecond) {
		if err = try(); err == nil {
			return
		}
	}
	t.Fatalf("waited %v for %s: %v", startTime, what, err)
}

// program returns the path of a program. Debian keeps those of servers out of PATH.
func program(t *testing.T, name, elsewhere string) string {
	t.Helper()
	paths, err := filepath.Glob(elsewhere + name)
	require.NoError(t, err)
	if len(paths) > 0 {
		return paths[len(paths)-1] // the newest
	}
	path, err := exec.LookPath(name)
	if err != nil {
		missing(t, name+" is not installed")
	}
	return path
}

// ports are this process's: 400, below those that Linux gives to outgoing connections, since one of these would take
// a port before its server does. A UDP socket keeps other processes from the same 400.
var ports struct {
	draw  sync.Once
	held  net.PacketConn
	first int
	tried atomic.Int64
}

func freeAddress(t *testing.T) string {
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

func tail(file string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	const most = 2000
	if len(text) > most {
		text = text[len(text)-most:]
	}
	return string(text)
}

// A link is a network that can be stalled: it forwards an address to another one.
type link struct {
	address string

	there, back sync.RWMutex // held for writing while nothing is carried to the target, and from it

	mu     sync.Mutex
	target string
	conns  map[net.Conn]bool
}

func newLink(t *testing.T) *link {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	l := &link{address: listener.Addr().String(), conns: make(map[net.Conn]bool)}
	t.Cleanup(func() {
		listener.Close()
		l.lead("")
	})
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go l.forward(conn)
		}
	}()
	return l
}

// lead closes the link's connections, and has new ones forwarded to target.
func (l *link) lead(target string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.target = target
	for conn := range l.conns {
		conn.Close()
	}
	clear(l.conns)
}

// stall stops the link from carrying anything, until resume. What is under way arrives only
// if the connection lasts until then.
func (l *link) stall() {
	l.there.Lock()
	l.back.Lock()
}

func (l *link) resume() {
	l.there.Unlock()
	l.back.Unlock()
}

func (l *link) forward(from net.Conn) {
	defer from.Close()
	l.mu.Lock()
	target := l.target
	l.mu.Unlock()
	to, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	defer to.Close()
	l.mu.Lock()
	if l.target != target {
		l.mu.Unlock()
		return
	}
	l.conns[from], l.conns[to] = true, true
	l.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { carry(to, from, &l.there) })
	both.Go(func() { carry(from, to, &l.back) })
	both.Wait()
	l.mu.Lock()
	delete(l.conns, from)
	delete(l.conns, to)
	l.mu.Unlock()
}

func carry(to, from net.Conn, gate *sync.RWMutex) {
	defer to.Close()
	defer from.Close()
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		gate.RLock()
		_, werr := to.Write(buffer[:n])
		gate.RUnlock()
		if err != nil || werr != nil {
			return
		}
	}
}
