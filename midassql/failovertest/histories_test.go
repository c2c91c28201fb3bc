package failovertest

import (
	"bufio"
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midassql"
	"github.com/stretchr/testify/require"
)

var (
	historyTime = flag.Duration("history-time", 2*time.Second, "how long players pay under each fault")
	historySeed = flag.Uint64("history-seed", 0, "seed of the faults (0: one that is printed)")
	rounds      = flag.Int("history-rounds", 1, "how often, each time with a new database")
)

// A history is what was called and answered, by payment.
type history struct {
	mu         sync.Mutex
	operations map[int][]porcupine.Operation
}

func (h *history) add(payment, client int, c call, called int64, a answer, returned int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	same := func(o porcupine.Operation) bool { return o.Input == c && o.Output == a }
	if c.Op == "callback" && a.Unknown && slices.ContainsFunc(h.operations[payment], same) {
		return // whatever it does, the one before it may do later; many of them would take the checker for ever
	}
	h.operations[payment] = append(h.operations[payment], porcupine.Operation{ClientId: client, Input: c, Call: called, Output: a, Return: returned})
}

// forever is when a call returned whose effect may still come.
const forever = int64(1) << 62

func now() int64 { return time.Now().UnixNano() }

// A world is the servers of a game, a database behind a network, and the game's record of what it saved.
type world struct {
	t       *testing.T
	db      *sql.DB // of the test, around the network
	store   *midassql.Store
	node    *node
	restart func()
	link    *link
	faults  map[string]func(w *world, r *rand.Rand) // by name
	config  serverConfig
	servers []*serverProcess
	history
	follow      func() *replica // starts one
	replica     *replica        // once reads are split
	seen        map[string]int  // faults whose effect was looked for, and seen
	hands       sync.RWMutex    // read-locked by whoever was handed a payment, until it has said what it did
	leaseMayEnd atomic.Bool     // the database's clock was stepped
	calm        atomic.Bool     // all that is left is to hand out what waits
	client      atomic.Int64
	payments    atomic.Int64
	pictures    string        // folder
	patience    time.Duration // with a payment that is not answered OK, or waits
}

// A serverProcess is replaced by another one when it is killed.
type serverProcess struct {
	w *world

	mu      sync.Mutex
	process *exec.Cmd
	in      io.Writer
	waiting map[int]chan answer
	next    int
	ahead   time.Duration
	step    time.Duration
}

func (s *serverProcess) start() {
	config := s.w.config
	config.Ahead = s.ahead
	text, err := json.Marshal(config)
	require.NoError(s.w.t, err)
	process := exec.Command(os.Args[0])
	process.Env = append(os.Environ(), serverEnv+"="+string(text))
	process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	process.Stderr = os.Stderr
	in, err := process.StdinPipe()
	require.NoError(s.w.t, err)
	out, err := process.StdoutPipe()
	require.NoError(s.w.t, err)
	require.NoError(s.w.t, process.Start())
	s.mu.Lock()
	s.process, s.in = process, in
	s.forget()
	s.mu.Unlock()
	go s.listen(process, in, out)
	if s.step > 0 {
		s.ask(request{Op: "clock", Step: s.step})
	}
}

// forget leaves open what a process was asked that has ended. The caller holds mu.
func (s *serverProcess) forget() {
	for _, open := range s.waiting {
		open <- answer{Unknown: true}
	}
	s.waiting = make(map[int]chan answer)
}

// listen reads what a process says until it ends; what it was asked then stays open.
func (s *serverProcess) listen(process *exec.Cmd, in io.Writer, out io.Reader) {
	for lines := bufio.NewScanner(out); lines.Scan(); {
		var r response
		if json.Unmarshal(lines.Bytes(), &r) != nil {
			continue
		}
		if r.ID < 0 {
			go s.handed(in, r, now())
			continue
		}
		s.mu.Lock()
		if s.process == process && s.waiting[r.ID] != nil {
			s.waiting[r.ID] <- r.Answer
			delete(s.waiting, r.ID)
		}
		s.mu.Unlock()
	}
	process.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == process {
		s.forget()
	}
}

// ask asks the process for something and waits for the answer.
func (s *serverProcess) ask(r request) answer {
	got := make(chan answer, 1)
	s.mu.Lock()
	s.next++
	r.ID = s.next
	s.waiting[r.ID] = got
	in := s.in
	s.mu.Unlock()
	s.tell(in, r)
	select {
	case a := <-got:
		return a
	case <-time.After(2 * callTime): // its process was killed, or is paused
		return answer{Unknown: true}
	}
}

// tell writes to the input of a process, which may have ended.
func (s *serverProcess) tell(in io.Writer, r request) {
	line, _ := json.Marshal(r)
	in.Write(append(line, '\n'))
}

// handed is the game: it was handed a payment, saves it or not, and says so.
func (s *serverProcess) handed(in io.Writer, r response, began int64) {
	w := s.w
	w.hands.RLock()
	defer w.hands.RUnlock()
	client := int(w.client.Add(1))
	if began >= r.Deadline {
		return // the lease ended before anybody heard of it
	}
	outcome := saves
	if n := rand.IntN(10); !w.calm.Load() && n < 4 {
		outcome = []string{accepts, accepts, isAbsent, fails}[n]
	}
	c := call{Inbox: true, Server: client}
	c.Op = "hand"
	if w.leaseMayEnd.Load() {
		c.Op = "hand, leases may end"
	}
	w.add(r.Payment, client, c, began-int64(lease), answer{}, began)
	pause(w.t.Context(), time.Duration(rand.IntN(30))*time.Millisecond)
	saved := outcome == saves || outcome == accepts
	c.Op = "back"
	ended := min(now(), r.Deadline)
	if outcome == accepts {
		w.add(r.Payment, client, c, ended, answer{Saved: true}, ended)
		s.tell(in, request{ID: r.ID, Op: outcome})
		w.call(s, r.Payment, call{Op: "done", Inbox: true})
		return
	}
	w.add(r.Payment, client, c, ended, answer{Saved: saved}, ended)
	if saved { // Work calls Done
		w.add(r.Payment, client, call{Op: "done", Inbox: true}, ended, answer{Unknown: true}, forever)
	}
	s.tell(in, request{ID: r.ID, Op: outcome})
}

// call calls a server and writes down what it answered.
func (w *world) call(s *serverProcess, payment int, c call) bool {
	called := now()
	a := s.ask(request{Op: c.Op, Payment: payment, Call: c})
	returned := now()
	if a.Unknown {
		returned = forever
	}
	if c.Op == "retry" && w.leaseMayEnd.Load() {
		a.Unknown = true // what is done in the future, by the clock that another server has from the database, is not found
	}
	if c.Op != "order" {
		w.add(payment, int(w.client.Add(1)), c, called, a, returned)
	}
	return !a.Unknown
}

func (w *world) server() *serverProcess { return w.servers[rand.IntN(len(w.servers))] }

// pay is the life of a payment: callbacks, some at once, and whatever else people do about it.
func (w *world) pay(ctx context.Context, i int) {
	inbox := i%2 == 1
	for !w.call(w.server(), i, call{Op: "order"}) {
		if ctx.Err() != nil {
			return
		}
		pause(ctx, betweenCalls)
	}
	calls := []call{{Op: "callback"}, {Op: "callback"}}
	for _, other := range []struct {
		chance int // of 10
		call
	}{
		{4, call{Op: "refund"}}, {5, call{Op: "refund", Refund: 1}}, {2, call{Op: "refund"}}, {2, call{Op: "settle"}}, {1, call{Op: "cancel"}}, {2, call{Op: "retry"}},
		{3, call{Op: "callback"}}, {3, call{Op: "page"}},
	} {
		if rand.IntN(10) < other.chance && (inbox || other.Op != "cancel" && other.Op != "retry") && (w.replica != nil || other.Op != "page") {
			calls = append(calls, other.call)
		}
	}
	rand.Shuffle(len(calls), func(i, j int) { calls[i], calls[j] = calls[j], calls[i] })
	var all sync.WaitGroup
	for _, c := range calls {
		c.Inbox = inbox
		all.Go(func() { w.call(w.server(), i, c) })
		if rand.IntN(2) == 0 {
			pause(ctx, time.Duration(rand.IntN(100))*time.Millisecond)
		}
	}
	all.Wait()
}

// during lets players pay while happen happens, and judges what they saw.
func (w *world) during(happen func()) (payments int, wrong []string) {
	ctx, cancel := context.WithTimeout(w.t.Context(), *historyTime)
	defer cancel()
	w.calm.Store(false)
	first := int(w.payments.Load())
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			for ctx.Err() == nil {
				w.pay(ctx, int(w.payments.Add(1))-1)
			}
		})
	}
	happen()
	all.Wait()
	w.calm.Store(true)
	last := int(w.payments.Load())
	ended := make([]error, last)
	var next atomic.Int64
	next.Store(int64(first))
	for range callers {
		all.Go(func() {
			for i := int(next.Add(1)) - 1; i < last; i = int(next.Add(1)) - 1 {
				ended[i] = w.end(i)
			}
		})
	}
	all.Wait()
	w.hands.Lock() // before that, a Done that ended a payment may not be written down yet
	defer w.hands.Unlock()
	unknown := 0
	for i := first; i < last && unknown <= (last-first)/2; i++ {
		switch result, picture := w.judge(i); result {
		case porcupine.Illegal:
			wrong = append(wrong, picture)
		case porcupine.Unknown: // too long for the checker, not wrong
			unknown++
			w.t.Log(picture)
		}
	}
	if unknown > (last-first)/2 {
		wrong = append(wrong, fmt.Sprintf("more than half of %d histories are too long for the checker", last-first))
	}
	for i, err := range ended {
		if err != nil {
			wrong = append(wrong, fmt.Sprintf("payment %d %v", i, err))
		}
	}
	return last - first, wrong
}

// end calls a payment back until it is answered OK, waits until it is handed out, and looks.
func (w *world) end(i int) error {
	inbox := i%2 == 1
	w.mu.Lock()
	ordered := len(w.operations[i]) > 0
	w.mu.Unlock()
	if !ordered {
		return nil // no order was saved, so that nobody could pay
	}
	ctx, cancel := context.WithTimeout(w.t.Context(), w.patience)
	defer cancel()
	for !w.call(w.server(), i, call{Op: "callback", Inbox: inbox}) {
		if ctx.Err() != nil {
			return errors.New("is never answered OK")
		}
		pause(ctx, betweenCalls)
	}
	d := historyPayment(i)
	var failed error
	for ; ctx.Err() == nil; pause(ctx, betweenCalls) { // the pool may hold connections to a database that was killed
		var waits int
		err := w.db.QueryRowContext(ctx, placeholders(w.config.Dialect, `SELECT COUNT(*) FROM midas_inbox WHERE openid = ?`), d.OpenID).Scan(&waits)
		called := now()
		var a answer
		if err == nil && waits == 0 {
			a, err = w.look(ctx, d)
		}
		switch {
		case err == nil && waits == 0:
			w.add(i, 0, call{Op: "look", Inbox: inbox}, called, a, now())
			return nil
		case ctx.Err() == nil:
			failed = err
		}
	}
	return fmt.Errorf("waits for ever: %w", cmp.Or(failed, ctx.Err()))
}

// look returns how often the player has a payment, and what the ledger says of it.
func (w *world) look(ctx context.Context, d *midas.Delivery) (a answer, err error) {
	err = w.db.QueryRowContext(ctx, placeholders(w.config.Dialect, `SELECT COUNT(*) FROM items WHERE openid = ?`), d.OpenID).Scan(&a.Rows)
	if err != nil {
		return a, err
	}
	for p, err := range w.store.Payments(ctx, midassql.Query{OpenID: d.OpenID, BillNo: d.BillNo}) {
		if err != nil {
			return a, err
		}
		a.State, a.Sum = string(p.State), p.Refunded
	}
	return a, nil
}

// judge checks whether an order explains a history; if none is found, it returns the file with its picture.
func (w *world) judge(i int) (result porcupine.CheckResult, picture string) {
	w.mu.Lock()
	operations := slices.Clone(w.operations[i])
	w.mu.Unlock()
	clients := make(map[int]int) // numbered as the checker wants them
	for n := range operations {
		if _, known := clients[operations[n].ClientId]; !known {
			clients[operations[n].ClientId] = len(clients)
		}
		operations[n].ClientId = clients[operations[n].ClientId]
	}
	result, info := porcupine.CheckOperationsVerbose(model, operations, 20*time.Second)
	if result == porcupine.Ok {
		return result, ""
	}
	picture = filepath.Join(w.pictures, fmt.Sprintf("midas-history-%d-%d.html", os.Getpid(), i))
	if err := porcupine.VisualizePath(model, info, picture); err != nil {
		picture = err.Error()
	}
	return result, fmt.Sprintf("payment %d (%s): %s", i, result, picture)
}

// engines are the databases that histories are made on.
var engines = map[string]func(w *world){
	"PostgreSQL": func(w *world) {
		p := newPostgreSQL(w.t)
		p.account.disks = true
		w.node = p.newNode(w.t, "histories")
		// The log begins a new file each second, for which a full disk has no room: PostgreSQL panics.
		w.node.args = append(w.node.args, "-c", "unix_socket_directories=", "-c", "archive_timeout=1s", "-c", "wal_keep_size=64MB")
		p.init(w.t, w.node, "--wal-segsize=1")
		w.restart = func() { p.start(w.t, w.node) }
		w.follow = func() *replica {
			p.account.disks = false
			p.primary, p.standby = w.node, p.newNode(w.t, "replica")
			p.replication.lead(p.primary.address)
			p.makeStandby(w.t)
			return &replica{p.open(w.t, p.standby.address), p.url(p.standby.address), "SELECT pg_wal_replay_pause()", "SELECT pg_wal_replay_resume()"}
		}
		w.restart()
		w.db = p.open(w.t, w.node.address)
		w.config = serverConfig{Driver: "pgx", DSN: p.url(w.link.address), Dialect: midassql.PostgreSQL}
	},
	"MariaDB": func(w *world) { w.mysql(newMariaDBNodes(w.t)) },
	"MySQL":   func(w *world) { w.mysql(newMySQLNodes(w.t)) },
}

func (w *world) mysql(nodes *mysqlNodes) {
	nodes.account.disks = true
	w.node = nodes.startAlone(w.t)
	w.restart = func() { startMySQLNode(w.t, w.node) }
	w.follow = func() *replica {
		nodes.account.disks = false
		n := nodes.newNode(w.t)
		nodes.follow(w.t, n, w.node.address)
		patient := openMySQL(w.t, mysqlDSN(n.address, "game", "&readTimeout=2m")) // until its applier has stopped
		return &replica{patient, mysqlDSN(n.address, "game", ""), nodes.words.Replace("STOP SLAVE SQL_THREAD"), nodes.words.Replace("START SLAVE SQL_THREAD")}
	}
	w.db = openGame(w.t, w.node.address)
	w.config = serverConfig{Driver: "mysql", DSN: mysqlDSN(w.link.address, "game", ""), Dialect: midassql.MySQL}
}

// A replica follows the database.
type replica struct {
	db           *sql.DB
	dsn          string
	stop, follow string // statements: it falls behind, and comes after
}

// splitReads puts a proxy before the servers that reads from a replica.
func (w *world) splitReads() {
	w.replica = w.follow()
	eventually(w.t, "the replica", func() error {
		late, err := w.isLate()
		if late {
			err = errors.New("is late")
		}
		return err
	})
	w.config.Replica = w.replica.dsn
	w.startServersAgain()
}

func (w *world) startServersAgain() {
	for _, s := range w.servers {
		s.kill()
		s.start()
	}
}

// isLate reports whether the replica has fewer items than the database.
func (w *world) isLate() (bool, error) {
	var items, there int
	err := w.replica.db.QueryRowContext(w.t.Context(), `SELECT COUNT(*) FROM items`).Scan(&there)
	if err == nil {
		err = w.db.QueryRowContext(w.t.Context(), `SELECT COUNT(*) FROM items`).Scan(&items)
	}
	return there < items, err
}

// newWorld starts a database behind a network, and three servers.
func newWorld(t *testing.T, database func(w *world)) *world {
	t.Helper()
	w := &world{t: t, link: newLink(t), faults: faults, pictures: os.TempDir(), patience: time.Minute, seen: make(map[string]int),
		history: history{operations: make(map[int][]porcupine.Operation)}}
	database(w)
	w.link.lead(w.node.address)
	game := newWriter(t, w.db, w.config.Dialect, false)
	createTables(t, game, w.config.Dialect)
	w.store = game.store
	for range 3 {
		s := &serverProcess{w: w}
		s.start()
		t.Cleanup(s.kill)
		w.servers = append(w.servers, s)
	}
	return w
}

func (s *serverProcess) signal(signal syscall.Signal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.process.Process.Signal(signal)
}

func (s *serverProcess) kill() { s.signal(syscall.SIGKILL) }

// wait waits for up to most milliseconds and 100 more.
func (w *world) wait(r *rand.Rand, most int) {
	pause(w.t.Context(), time.Duration(100+r.IntN(most))*time.Millisecond)
}

// until waits until a fault has had its effect, for the time of two callbacks at most.
func (w *world) until(fault string, effect func() bool) {
	for end := time.Now().Add(2 * callTime); time.Now().Before(end); pause(w.t.Context(), betweenCalls) {
		if effect() {
			w.seen[fault]++
			return
		}
	}
}

func (w *world) pauseDatabase(d time.Duration) {
	pids := append(children(w.node.cmd.Process.Pid), w.node.cmd.Process.Pid)
	for _, pid := range pids {
		syscall.Kill(pid, syscall.SIGSTOP)
	}
	pause(w.t.Context(), d)
	for _, pid := range pids {
		syscall.Kill(pid, syscall.SIGCONT)
	}
}

// writes reports whether the database takes a write in the time of a callback.
func (w *world) writes() bool {
	ctx, cancel := context.WithTimeout(w.t.Context(), callTime)
	defer cancel()
	_, err := w.db.ExecContext(ctx, "UPDATE balances SET amount = amount + 1")
	return err == nil
}

// revive restarts a database that died of a full disk, or does not write soon after: MySQL and MariaDB look again
// after a minute whether their binary log has room.
func (w *world) revive() {
	for end := time.Now().Add(callTime); time.Now().Before(end); pause(w.t.Context(), betweenCalls) {
		if w.writes() {
			return
		}
	}
	w.t.Log("the database does not write after its disk was full: it is restarted")
	w.node.kill()
	w.restart()
}

const (
	// By then each server has another time from the database: leases end early from then on.
	clockIsStepped = "the database's clock is stepped"
	diskIsFull     = "the disk is full"
	diskIsSlow     = "the disk is slow"
	replicaLags    = "reads are split, and the replica lags"
)

// faults are what may happen once, and is over when it returns.
var faults = map[string]func(w *world, r *rand.Rand){
	"a server is killed": func(w *world, r *rand.Rand) {
		s := w.servers[r.IntN(len(w.servers))]
		s.kill()
		w.wait(r, 200)
		s.start()
	},
	"a server is paused": func(w *world, r *rand.Rand) {
		s := w.servers[r.IntN(len(w.servers))]
		s.signal(syscall.SIGSTOP)
		pause(w.t.Context(), time.Duration(r.IntN(3000))*time.Millisecond) // longer than a lease, or not
		s.signal(syscall.SIGCONT)
	},
	"a server's clock is wrong": func(w *world, r *rand.Rand) {
		s := w.servers[r.IntN(len(w.servers))]
		s.kill()
		s.ahead = []time.Duration{time.Minute, time.Hour, -time.Minute, -time.Hour}[r.IntN(4)]
		s.start()
		w.wait(r, 500)
	},
	"the database is killed": func(w *world, r *rand.Rand) {
		w.node.kill()
		w.restart()
	},
	"the database is paused": func(w *world, r *rand.Rand) {
		w.pauseDatabase(time.Duration(100+r.IntN(2000)) * time.Millisecond)
	},
	"the network is cut": func(w *world, r *rand.Rand) {
		w.link.stall()
		w.wait(r, 1500)
		w.link.resume()
	},
	"the network is cut one way": func(w *world, r *rand.Rand) {
		way := []*sync.RWMutex{&w.link.there, &w.link.back}[r.IntN(2)]
		way.Lock()
		w.wait(r, 1500)
		way.Unlock()
	},
	"connections break": func(w *world, r *rand.Rand) {
		w.link.lead(w.node.address)
		w.wait(r, 300)
	},
	diskIsFull: func(w *world, r *rand.Rand) {
		require.NoError(w.t, w.node.disk.whileFull(func() {
			w.until(diskIsFull, func() bool { return !w.writes() })
			w.wait(r, 500)
		}))
		w.revive()
	},
	diskIsSlow: func(w *world, r *rand.Rand) {
		stops := 1 + r.IntN(20) // one that is long, or many that are short
		for range stops {
			require.NoError(w.t, w.node.disk.freeze(time.Second/time.Duration(stops)))
			pause(w.t.Context(), 10*time.Millisecond)
		}
	},
	replicaLags: func(w *world, r *rand.Rand) {
		execute(w.t, w.replica.db, w.replica.stop)
		w.until(replicaLags, func() bool {
			late, err := w.isLate()
			return late && err == nil
		})
		w.wait(r, 500)
		execute(w.t, w.replica.db, w.replica.follow)
	},
	clockIsStepped: func(w *world, r *rand.Rand) {
		w.leaseMayEnd.Store(true)
		for _, s := range w.servers {
			s.step += []time.Duration{time.Minute, time.Hour}[r.IntN(2)]
			s.ask(request{Op: "clock", Step: s.step})
		}
		w.wait(r, 500)
	},
}

// Whatever happens, no history is one that a single ledger could not have: under each fault alone, and under all
// of them. Reads are split all along: there is nothing in them that midassql would notice. The clock's step comes last,
// since nobody can say "never handed out twice at once" after it.
func TestHistories(t *testing.T) {
	seed := *historySeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	for round := range *rounds {
		for engine := range engines {
			t.Run(fmt.Sprint(engine, round), func(t *testing.T) {
				t.Parallel()
				t.Logf("-history-seed %d", seed)
				w := newWorld(t, engines[engine])
				r := rand.New(rand.NewPCG(seed, uint64(round)))
				all := slices.DeleteFunc(slices.Sorted(maps.Keys(faults)), func(name string) bool {
					return name == clockIsStepped || name == replicaLags || w.node.disk == nil && (name == diskIsFull || name == diskIsSlow)
				})
				w.splitReads()
				w.under(r, replicaLags, []string{replicaLags})
				require.NotZero(t, w.seen[replicaLags], "the replica was never late")
				for _, name := range all {
					w.under(r, name, []string{name})
				}
				require.True(t, w.node.disk == nil || w.seen[diskIsFull] > 0, "a full disk had no effect")
				w.under(r, "anything", append(all, replicaLags))
				w.under(r, clockIsStepped, []string{clockIsStepped})
			})
		}
	}
}

// draw lets faults happen, one after the other, while players pay.
func (w *world) draw(r *rand.Rand, names []string) (happened int) {
	if len(names) == 0 {
		return 0
	}
	end := time.Now().Add(*historyTime)
	for w.wait(r, 300); time.Now().Before(end); w.wait(r, 300) {
		w.faults[names[r.IntN(len(names))]](w, r)
		happened++
	}
	return happened
}

// under fails unless the histories of payments under faults, drawn one after the other, are right.
func (w *world) under(r *rand.Rand, what string, names []string) {
	happened := 0
	payments, wrong := w.during(func() { happened = w.draw(r, names) })
	w.log(what, payments, happened)
	require.Empty(w.t, wrong, strings.Join(wrong, "\n"))
	require.NotZero(w.t, payments)
}

func (w *world) log(name string, payments, happened int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	calls, unknown := 0, 0
	for i := int(w.payments.Load()) - payments; i < int(w.payments.Load()); i++ {
		calls += len(w.operations[i])
		for _, o := range w.operations[i] {
			if o.Output.(answer).Unknown {
				unknown++
			}
		}
	}
	w.t.Logf("%s, %d times: %d payments, %d calls, %d of them with an unknown outcome", name, happened, payments, calls, unknown)
}

// A ledger with a fault is found out within seconds, and so is a proxy that splits what it may not.
func TestHistoriesSeeWhatIsWrong(t *testing.T) {
	t.Parallel()
	w := newWorld(t, engines["PostgreSQL"])
	w.patience, w.pictures = 5*time.Second, t.TempDir()
	sum := "(SELECT COALESCE(SUM(r.amount), 0) FROM midas_refunds r WHERE r.openid = midas_deliveries.openid AND r.billno = midas_deliveries.billno)"
	for _, wrong := range []struct {
		name    string
		found   string
		faults  []string
		replace []string
		sql     string
	}{
		{"a proxy splits transactions", "waits for ever", []string{replicaLags}, nil, ""},
		{"a claim is decided by its SELECT", "Illegal", nil, []string{" FOR UPDATE SKIP LOCKED", "",
			" AND lease_ms <= CAST(EXTRACT(EPOCH FROM statement_timestamp()) * 1000 AS bigint) RETURNING", " RETURNING"}, ""},
		{"the sum of the refunds is read", "Illegal", nil, []string{"refunded + $2 >=", "$2 + " + sum + " >=", "refunded = refunded + $3", "refunded = $3 + " + sum}, ""},
		{"there is no unique key", "Illegal", nil, nil, "ALTER TABLE midas_deliveries DROP CONSTRAINT midas_deliveries_pkey; ALTER TABLE midas_inbox DROP CONSTRAINT midas_inbox_pkey"},
	} {
		w.config.Replace = wrong.replace
		if wrong.sql != "" {
			execute(t, w.db, wrong.sql)
		}
		if len(wrong.faults) > 0 {
			w.config.SplitAll = true
			w.splitReads()
		} else {
			w.config.Replica = ""
			w.startServersAgain()
		}
		began := time.Now()
		var seen []string
		for round := 0; round < 20 && !strings.Contains(strings.Join(seen, "\n"), wrong.found); round++ {
			_, more := w.during(func() { w.draw(rand.New(rand.NewPCG(uint64(round), 0)), wrong.faults) })
			seen = append(seen, more...)
		}
		require.Contains(t, strings.Join(seen, "\n"), wrong.found, "%s: the counter-example holds: the checker sees nothing", wrong.name)
		t.Logf("%s: seen after %v; %s", wrong.name, time.Since(began).Round(time.Second/10), seen[0])
	}
}
