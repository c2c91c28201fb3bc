package failovertest

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midassql"
	"github.com/midas-go/midas/midassql/midassqltest"
	"github.com/stretchr/testify/require"
)

var vitessPayments = flag.Int64("vitess-payments", 300, "payments under each fault of Vitess")

// A vitess is the cluster of docs/shards.md: a topology server, two vtgates, and shards of three vttablets, each with
// a mysqld of its own, under vtorc.
type vitess struct {
	t       *testing.T
	account *account
	mysql   *mysqlNodes
	bin     string   // folder of its programs
	topo    []string // flags that say where the topology is
	admin   string   // address of vtctld
	gates   []*gate
	tablets []*tablet

	mu      sync.Mutex
	reasons map[string]int // why callbacks were not answered OK
}

type gate struct {
	*node
	mysql string // address
}

type tablet struct {
	*node  // the vttablet
	mysqld *node
	uid    int
	shard  string
}

// What a vttablet logs in with.
const vitessUsers = `
CREATE USER vt_dba@localhost, vt_app@localhost, vt_appdebug@localhost, vt_allprivs@localhost, vt_filtered@localhost, vt_repl@'%';
GRANT ALL ON *.* TO vt_dba@localhost, vt_app@localhost, vt_appdebug@localhost, vt_allprivs@localhost, vt_filtered@localhost;
GRANT REPLICATION SLAVE ON *.* TO vt_repl@'%';
`

func startVitess(t *testing.T) *vitess {
	t.Helper()
	bin := os.Getenv("MIDAS_TEST_VITESS")
	if bin == "" {
		missing(t, "MIDAS_TEST_VITESS is not set")
	}
	v := &vitess{t: t, bin: bin, mysql: newMySQLNodes(t, vitessUsers), admin: freeAddress(t), reasons: make(map[string]int)}
	v.account = v.mysql.account
	v.mysql.settings = append(slices.Concat(v.mysql.settings, v.mysql.semiSync), "--plugin-load-add=mysql_clone.so",
		"--rpl-semi-sync-source-timeout=1000000000", "--skip-replica-start", "--super-read-only", "--relay-log-recovery=ON", "--replica-net-timeout=8", "--report-host=127.0.0.1")
	t.Setenv("VTDATAROOT", v.account.folder)

	etcd, peer := newNode(t, v.account, "etcd"), freeAddress(t)
	etcd.args = []string{program(t, "etcd", "/usr/bin/"), "--data-dir", etcd.data, "--listen-client-urls", "http://" + etcd.address, "--advertise-client-urls", "http://" + etcd.address,
		"--listen-peer-urls", "http://" + peer, "--initial-advertise-peer-urls", "http://" + peer, "--initial-cluster", "default=http://" + peer}
	etcd.start(t, etcd.answers("/health"))
	v.topo = []string{"--topo-implementation", "etcd2", "--topo-global-server-address", etcd.address, "--topo-global-root", "/vitess/global"}
	v.ctl(slices.Concat([]string{"--server", "internal"}, v.topo, []string{"AddCellInfo", "--root", "/vitess/zone1", "--server-address", etcd.address, "zone1"})...)
	v.start("vtctld", "--service-map", "grpc-vtctl,grpc-vtctld", "--grpc-bind-address", "127.0.0.1", "--grpc-port", portOf(v.admin))
	v.ctl("CreateKeyspace", "--durability-policy=semi_sync", keyspace)
	v.declare()

	for i := range 3 {
		v.startTablet(101+i, "-80")
		v.startTablet(201+i, "80-")
	}
	v.reparent(v.tablets[0])
	v.reparent(v.tablets[1])
	v.start("vtorc", "--cell", "zone1", "--instance-poll-time", "1s", "--recovery-poll-duration", "1s", "--prevent-cross-cell-failover=false")
	for range 2 {
		g := &gate{mysql: freeAddress(t)}
		g.node = v.start("vtgate", "--grpc-bind-address", "127.0.0.1", "--grpc-port", portOf(freeAddress(t)), "--mysql-server-bind-address", "127.0.0.1", "--mysql-server-port", portOf(g.mysql),
			"--mysql-auth-server-impl", "none", "--cell", "zone1", "--cells-to-watch", "zone1", "--tablet-types-to-wait", "PRIMARY", "--service-map", "grpc-vtgateservice",
			"--enable-buffer", "--buffer-min-time-between-failovers", "1s")
		v.gates = append(v.gates, g)
	}
	return v
}

const keyspace = "game"

// start starts one of Vitess's servers.
func (v *vitess) start(name string, args ...string) *node {
	v.t.Helper()
	n := newNode(v.t, v.account, fmt.Sprintf("%s%d", name, len(v.gates)+len(v.tablets)))
	n.args = slices.Concat([]string{filepath.Join(v.bin, name)}, v.topo, []string{"--bind-address", "127.0.0.1", "--port", n.port(), "--log-format", "text"}, args)
	n.start(v.t, n.answers("/debug/vars"))
	return n
}

func (v *vitess) restart(n *node) { n.start(v.t, n.answers("/debug/vars")) }

func (v *vitess) startTablet(uid int, shard string) *tablet {
	v.t.Helper()
	m := &tablet{mysqld: v.mysql.newNode(v.t), uid: uid, shard: shard}
	startMySQLNode(v.t, m.mysqld)
	m.node = v.start("vttablet", "--tablet-path", m.alias(), "--tablet-hostname", "127.0.0.1", "--init-keyspace", keyspace, "--init-shard", shard, "--init-tablet-type", "replica",
		"--health-check-interval", "1s", "--grpc-bind-address", "127.0.0.1", "--grpc-port", portOf(freeAddress(v.t)), "--service-map", "grpc-queryservice,grpc-tabletmanager,grpc-updatestream",
		"--db-socket", filepath.Join(m.mysqld.data+".tmp", "socket"), "--queryserver-config-transaction-cap", "60", "--queryserver-config-pool-size", "30",
		"--queryserver-config-transaction-timeout", transactionTimeout.String())
	v.tablets = append(v.tablets, m)
	return m
}

// transactionTimeout ends the transactions that a vtgate leaves behind when it dies.
const transactionTimeout = 5 * time.Second

func (m *tablet) alias() string { return fmt.Sprintf("zone1-%010d", m.uid) }

func portOf(address string) string { return address[strings.LastIndexByte(address, ':')+1:] }

// answers says whether a server answers over HTTP.
func (n *node) answers(path string) func() error {
	return func() error {
		response, err := http.Get("http://" + n.address + path)
		if err == nil {
			response.Body.Close()
		}
		return err
	}
}

// ctl calls vtctldclient and returns what it prints.
func (v *vitess) ctl(args ...string) string {
	v.t.Helper()
	out, err := v.try(args...)
	require.NoError(v.t, err, "%s: %s", args, out)
	return out
}

func (v *vitess) try(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), startTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(v.bin, "vtctldclient"), append([]string{"--server", v.admin}, args...)...)
	cmd.Dir, cmd.SysProcAttr = v.account.folder, &syscall.SysProcAttr{Credential: v.account.credential}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// declare tells vtgate what the tables are sharded by: midassql's, the game's, and those of midassqltest.
func (v *vitess) declare() {
	v.t.Helper()
	content, err := os.ReadFile("../schema/vitess.json")
	require.NoError(v.t, err)
	var schema struct {
		Sharded  bool           `json:"sharded"`
		Vindexes map[string]any `json:"vindexes"`
		Tables   map[string]any `json:"tables"`
	}
	require.NoError(v.t, json.Unmarshal(content, &schema))
	by := func(column string) any {
		return map[string]any{"column_vindexes": []any{map[string]string{"column": column, "name": "xxhash"}}}
	}
	for name, table := range maps.Clone(schema.Tables) {
		schema.Tables["midassqltest_"+strings.TrimPrefix(name, "midas_")] = table
	}
	for _, name := range []string{"items", "balances", "byhand", "midassqltest_granted_by_test"} {
		schema.Tables[name] = by("openid")
	}
	schema.Tables["guilds"] = by("guild")
	text, err := json.Marshal(schema)
	require.NoError(v.t, err)
	v.ctl("ApplyVSchema", "--vschema", string(text), keyspace)
}

// open opens the keyspace through a vtgate.
func (v *vitess) open(t *testing.T, g *gate, mode string) *sql.DB {
	return openMySQL(t, vitessDSN(g.mysql, mode))
}

func vitessDSN(address, mode string) string {
	return mysqlDSN(address, keyspace, "&interpolateParams=true&transaction_mode=%27"+mode+"%27")
}

// transaction_mode
const (
	single = "single" // refuses a transaction that writes to two shards
	multi  = "multi"
)

// createTables drops what is there, and creates the tables.
func (v *vitess) createTables(t *testing.T) {
	t.Helper()
	v.empty(t)
	createTables(t, newWriter(t, v.open(t, v.gates[0], multi), midassql.MySQL, false), midassql.MySQL)
}

// empty drops the tables that are there.
func (v *vitess) empty(t *testing.T) {
	t.Helper()
	db := v.open(t, v.gates[0], multi)
	defer db.Close()
	rows, err := db.QueryContext(t.Context(), "SHOW TABLES")
	require.NoError(t, err)
	defer rows.Close()
	var names []string
	for rows.Next() {
		var name string
		require.NoError(t, rows.Scan(&name))
		names = append(names, name)
	}
	require.NoError(t, rows.Err())
	for _, name := range names {
		execute(t, db, "DROP TABLE "+name)
	}
}

// writers has two game servers on each vtgate, with empty tables, whose callbacks must stay on one shard.
func (v *vitess) writers(t *testing.T) (writers []*writer) {
	t.Helper()
	v.createTables(t)
	clear(v.reasons)
	for i := range 4 {
		w := newWriter(t, v.open(t, v.gates[i%2], single), midassql.MySQL, i < 2)
		deliver := w.deliver
		w.deliver = func(ctx context.Context, d *midas.Delivery) error {
			err := deliver(ctx, d)
			v.note(err)
			return err
		}
		writers = append(writers, w)
	}
	return writers
}

var figures = regexp.MustCompile(`\S*[0-9]\S*`)

// note counts why a callback was not answered OK.
func (v *vitess) note(err error) {
	if err == nil {
		return
	}
	reason, _, _ := strings.Cut(err.Error(), "(CallerID")
	reason = figures.ReplaceAllString(reason, "…")
	v.mu.Lock()
	defer v.mu.Unlock()
	v.reasons[reason[:min(len(reason), 200)]]++
}

// during lets players pay while happen happens, and until there are enough payments.
func (v *vitess) during(t *testing.T, happen func()) {
	t.Helper()
	l := startLoad(t, v.writers(t))
	pause(t.Context(), time.Second)
	began := time.Now()
	happen()
	t.Logf("it took %v", time.Since(began).Round(time.Second/10))
	for l.payments.Load() < *vitessPayments && t.Context().Err() == nil {
		pause(t.Context(), betweenCalls)
	}
	r := l.stop(t)
	for _, reason := range slices.Sorted(maps.Keys(v.reasons)) {
		t.Logf("not answered OK, %d times: %s", v.reasons[reason], reason)
		require.NotContains(t, reason, "multi-db", "a callback that is not of one shard")
	}
	requireExactlyOnce(t, r)
}

// primary returns the tablet that leads a shard.
func (v *vitess) primary(shard string) *tablet {
	v.t.Helper()
	var found *tablet
	eventually(v.t, "a primary of "+shard, func() error {
		out, err := v.try("GetShard", keyspace+"/"+shard)
		if err != nil {
			return err
		}
		var answer struct {
			Shard struct {
				PrimaryAlias struct {
					UID int `json:"uid"`
				} `json:"primary_alias"`
			} `json:"shard"`
		}
		if err := json.Unmarshal([]byte(out), &answer); err != nil {
			return err
		}
		i := slices.IndexFunc(v.tablets, func(m *tablet) bool { return m.uid == answer.Shard.PrimaryAlias.UID })
		if i < 0 {
			return errors.New("none yet")
		}
		found = v.tablets[i]
		return nil
	})
	return found
}

// shards returns the shards that there are before the split.
func (v *vitess) shards() []string { return []string{"-80", "80-"} }

// replica returns a tablet that does not lead its shard.
func (v *vitess) replica(shard string) *tablet {
	primary := v.primary(shard)
	i := slices.IndexFunc(v.tablets, func(m *tablet) bool { return m.shard == shard && m != primary })
	return v.tablets[i]
}

// reparent makes a tablet the primary of its shard, as an operator does.
func (v *vitess) reparent(to *tablet) {
	v.t.Helper()
	eventually(v.t, "a reparent to "+to.alias(), func() error { // a tablet that just started may not be ready
		out, err := v.try("PlannedReparentShard", keyspace+"/"+to.shard, "--new-primary", to.alias())
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		return err
	})
}

// killGate kills a vtgate, and starts it again.
func (v *vitess) killGate(i int) {
	v.gates[i].kill()
	pause(v.t.Context(), time.Second)
	v.restart(v.gates[i].node)
}

// killPrimary kills the mysqld of a shard's primary. When vtorc has promoted another tablet, the old one becomes a copy
// of that: it may have a commit that nobody acknowledged, an errant GTID, with which vtorc lets it join no more.
func (v *vitess) killPrimary(shard string) {
	v.t.Helper()
	old := v.primary(shard)
	old.mysqld.kill()
	eventually(v.t, "another primary", func() error {
		if v.primary(shard) == old {
			return errors.New("still the old one")
		}
		return nil
	})
	old.kill()
	v.copy(v.primary(shard).mysqld, old.mysqld)
	v.restart(old.node)
	v.mysql.awaitReplicas(v.t, v.primary(shard).mysqld.address, "2")
}

// copy gives a mysqld the data of another one that runs.
func (v *vitess) copy(from, to *node) {
	v.t.Helper()
	require.NoError(v.t, os.RemoveAll(to.data))
	v.account.run(v.t, "cp", "-a", v.mysql.template, to.data)
	startMySQLNode(v.t, to)
	db := openMySQL(v.t, mysqlDSN(to.address, "", "&readTimeout=2m"))
	execute(v.t, db, "SET GLOBAL super_read_only = OFF", "SET GLOBAL clone_valid_donor_list = '"+from.address+"'")
	_, err := db.ExecContext(v.t.Context(), "CLONE INSTANCE FROM root@'127.0.0.1':"+from.port()+" IDENTIFIED BY ''")
	require.ErrorContains(v.t, err, "3707") // it has ended, and nobody is there to start it
	<-to.ended
	startMySQLNode(v.t, to)
}

// killTablet kills a primary's vttablet alone, and starts it again.
func (v *vitess) killTablet(shard string) {
	m := v.primary(shard)
	m.kill()
	pause(v.t.Context(), time.Second)
	v.restart(m.node)
}

// cutOff keeps a shard from answering for a while: its vttablets are paused.
func (v *vitess) cutOff(shard string, d time.Duration) {
	signal := func(signal syscall.Signal) {
		for _, m := range v.tablets {
			if m.shard == shard {
				m.cmd.Process.Signal(signal)
			}
		}
	}
	signal(syscall.SIGSTOP)
	pause(v.t.Context(), d)
	signal(syscall.SIGCONT)
}

// split makes four shards of the two.
func (v *vitess) split() {
	v.t.Helper()
	shards := []string{"-40", "40-80", "80-c0", "c0-"}
	for i, shard := range shards {
		first := v.startTablet(301+100*i, shard)
		v.startTablet(302+100*i, shard)
		v.reparent(first)
	}
	reshard := func(args ...string) (string, error) {
		return v.try(append([]string{"Reshard", "--workflow", "four", "--target-keyspace", keyspace}, args...)...)
	}
	out, err := reshard("create", "--source-shards", strings.Join(v.shards(), ","), "--target-shards", strings.Join(shards, ","))
	require.NoError(v.t, err, out)
	eventually(v.t, "the copy", func() error {
		out, err := reshard("status")
		if err == nil && strings.Count(out, "Running") < len(shards) {
			err = errors.New(out)
		}
		return err
	})
	eventually(v.t, "the switch", func() error {
		out, err := reshard("SwitchTraffic")
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		return err
	})
	out, err = reshard("complete")
	require.NoError(v.t, err, out)
}

func TestVitess(t *testing.T) {
	began := time.Now()
	v := startVitess(t)
	t.Logf("two shards are up after %v", time.Since(began).Round(time.Second/10))

	t.Run("midassqltest", func(t *testing.T) {
		midassqltest.Run(t, func() (*sql.DB, error) { return sql.Open("mysql", vitessDSN(v.gates[0].mysql, multi)) }, midassql.MySQL, midassql.Options{})
	})
	t.Run("routes", v.routes)
	t.Run("nothing happens", func(t *testing.T) { v.during(t, func() {}) })
	t.Run("vtgates killed", func(t *testing.T) {
		v.during(t, func() {
			for i := range 2 * *failovers {
				v.killGate(i % 2)
				pause(t.Context(), between)
			}
		})
	})
	t.Run("planned reparents", func(t *testing.T) {
		v.during(t, func() {
			for range *failovers {
				for _, shard := range v.shards() {
					v.reparent(v.replica(shard))
				}
				pause(t.Context(), between)
			}
		})
	})
	t.Run("a primary's mysqld killed", func(t *testing.T) {
		v.during(t, func() {
			for i := range *failovers {
				v.killPrimary(v.shards()[i%2])
				pause(t.Context(), between)
			}
		})
	})
	t.Run("a vttablet killed", func(t *testing.T) {
		v.during(t, func() {
			for i := range *failovers {
				v.killTablet(v.shards()[i%2])
				pause(t.Context(), between)
			}
		})
	})
	t.Run("a shard cut off", func(t *testing.T) {
		v.during(t, func() {
			for i := range *failovers {
				v.cutOff(v.shards()[i%2], 3*time.Second)
				pause(t.Context(), between)
			}
		})
	})
	t.Run("a vtgate leaves its locks", v.locksOfADeadGate)
	t.Run("loses: a grant on another shard", v.losesOnAnotherShard)
	t.Run("a token looked up on all shards", v.looksUpOnAllShards)
	t.Run("histories", v.histories)
	t.Run("two shards become four", func(t *testing.T) { v.during(t, v.split) })
}

// locksOfADeadGate: nobody rolls back what a vtgate had begun when it died, until vttablet's limit for transactions.
func (v *vitess) locksOfADeadGate(t *testing.T) {
	v.createTables(t)
	dying, living := v.open(t, v.gates[0], multi), v.open(t, v.gates[1], multi)
	tx, err := dying.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	_, err = tx.ExecContext(t.Context(), "UPDATE balances SET amount = amount + 1 WHERE openid = ?", player(0))
	require.NoError(t, err)
	update := "UPDATE balances SET amount = amount + 10 WHERE openid = '" + player(0) + "'"
	_, err = living.ExecContext(t.Context(), update)
	require.ErrorContains(t, err, "1205")
	killed := time.Now()
	v.gates[0].kill()
	eventually(t, "the lock", func() error {
		_, err := living.ExecContext(t.Context(), update)
		return err
	})
	t.Logf("after %v, with a limit of %v", time.Since(killed).Round(time.Second/10), transactionTimeout)
	var amount int
	require.NoError(t, living.QueryRowContext(t.Context(), "SELECT amount FROM balances WHERE openid = ?", player(0)).Scan(&amount))
	require.Equal(t, 10, amount)
	tx.Rollback()
	v.restart(v.gates[0].node)
}

// elsewhere returns a player and the guild of one on the other shard.
func (v *vitess) elsewhere(t *testing.T) (openID, guild string) {
	t.Helper()
	lives := func(shard, openID string) bool {
		var n int
		db := openMySQL(t, mysqlDSN(v.primary(shard).mysqld.address, "vt_"+keyspace, ""))
		defer db.Close()
		require.NoError(t, db.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM balances WHERE openid = ?", openID).Scan(&n))
		return n == 1
	}
	for i := range players {
		switch id := player(i); {
		case openID == "" && lives("-80", id):
			openID = id
		case guild == "" && lives("80-", id):
			guild = id
		}
	}
	require.NotEmpty(t, openID)
	require.NotEmpty(t, guild)
	return openID, guild
}

// guildGame has a grant that writes to a table that is sharded by something else than openid; then happens before
// the commit.
func (v *vitess) guildGame(t *testing.T, mode string, then func()) (w *writer, d *midas.Delivery) {
	t.Helper()
	v.createTables(t)
	openID, guild := v.elsewhere(t)
	w = newWriter(t, v.open(t, v.gates[0], mode), midassql.MySQL, false)
	execute(t, w.db, "CREATE TABLE guilds (guild VARBINARY(64), billno VARBINARY(64), PRIMARY KEY (guild, billno))")
	w.deliver = w.store.Once(func(ctx context.Context, tx *sql.Tx, d *midas.Delivery) error {
		_, err := tx.ExecContext(ctx, "INSERT INTO guilds (guild, billno) VALUES (?, ?)", guild, d.BillNo)
		if err == nil {
			then()
		}
		return err
	})
	d = payment(0, "token of a guild")
	d.OpenID = openID
	req := order(0)
	req.Player.OpenID = openID
	require.NoError(t, w.store.SaveOrder(t.Context(), req, &midas.Order{Token: d.Token}))
	return w, d
}

// A commit on two shards is two commits. The second fails here, since its connection is ended: half of it stays, and
// the next callback finds the payment.
func (v *vitess) losesOnAnotherShard(t *testing.T) {
	once := true
	w, d := v.guildGame(t, multi, func() {
		if !once {
			return
		}
		once = false
		db := openMySQL(t, mysqlDSN(v.primary("80-").mysqld.address, "", ""))
		var id int
		require.NoError(t, db.QueryRowContext(t.Context(), "SELECT trx_mysql_thread_id FROM information_schema.innodb_trx WHERE trx_rows_modified > 0").Scan(&id))
		execute(t, db, fmt.Sprint("KILL ", id))
	})
	first := w.call(t.Context(), d)
	t.Log(first)
	require.Error(t, first)
	require.NoError(t, callUntilDone(t.Context(), []*writer{w}, d))
	var granted int
	require.NoError(t, w.db.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM guilds").Scan(&granted))
	require.Zero(t, granted, "it was granted: docs/shards.md says otherwise")

	// In the mode that docs/shards.md has for callbacks, the grant is refused as often as it is tried.
	w, d = v.guildGame(t, single, func() { t.Error("written to another shard") })
	require.ErrorContains(t, w.call(t.Context(), d), "multi-db")
	require.ErrorContains(t, w.call(t.Context(), d), "multi-db")
}

// A transaction may read wherever it likes, also in the mode that refuses to write on two shards: a token that is
// looked up on all of them costs a transaction on each, and no payment.
func (v *vitess) looksUpOnAllShards(t *testing.T) {
	v.createTables(t)
	openID, guild := v.elsewhere(t)
	db := v.open(t, v.gates[0], single)
	tx, err := db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	defer tx.Rollback()
	add := func(openID string) error {
		_, err := tx.ExecContext(t.Context(), "UPDATE balances SET amount = amount + 1 WHERE openid = ?", openID)
		return err
	}
	require.NoError(t, add(openID))
	var n int
	require.NoError(t, tx.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM midas_orders WHERE token = ?", "token").Scan(&n))
	require.NoError(t, add(openID))
	require.ErrorContains(t, add(guild), "multi-db")
}

// histories are judged as those on other engines. The faults are those of the game's servers, of a vtgate, of the
// network before it, and of the shards.
func (v *vitess) histories(t *testing.T) {
	v.empty(t)
	seed := *historySeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-history-seed %d", seed)
	w := newWorld(t, func(w *world) {
		g := v.gates[0]
		w.node = &node{address: g.mysql}
		w.db = v.open(t, v.gates[1], multi)
		w.config = serverConfig{Driver: "mysql", DSN: vitessDSN(w.link.address, multi), Dialect: midassql.MySQL}
	})
	w.node = v.gates[0].node
	w.restart = func() { v.restart(w.node) }
	shard := func(r *rand.Rand) string { return v.shards()[r.IntN(2)] }
	w.faults = map[string]func(w *world, r *rand.Rand){
		"a vttablet is killed":  func(_ *world, r *rand.Rand) { v.killTablet(shard(r)) },
		"a shard is reparented": func(_ *world, r *rand.Rand) { v.reparent(v.replica(shard(r))) },
		"a shard is cut off":    func(_ *world, r *rand.Rand) { v.cutOff(shard(r), time.Second) },
		"a primary is killed":   func(_ *world, r *rand.Rand) { v.killPrimary(shard(r)) },
	}
	for _, name := range []string{"the database is killed", "the database is paused", "a server is killed", "a server is paused", "a server's clock is wrong", "the network is cut"} {
		w.faults[name] = faults[name]
	}
	all := slices.Sorted(maps.Keys(w.faults))
	for _, name := range all {
		w.under(rand.New(rand.NewPCG(seed, 0)), name, []string{name})
	}
	w.under(rand.New(rand.NewPCG(seed, 1)), "anything", all)
}

var variant = regexp.MustCompile(`"Variant": *"(\w+)"`)

// routes compares where vtgate sends each statement with testdata/vitess-routes.txt.
func (v *vitess) routes(t *testing.T) {
	v.createTables(t)
	db := v.open(t, v.gates[0], multi)
	want := readRoutes(t)
	argument := regexp.MustCompile(`\?`)
	for statement := range exercised(t) {
		values := 0
		text := argument.ReplaceAllStringFunc(strings.ReplaceAll(statement, "LIMIT ?", "LIMIT 1"), func(string) string {
			values++ // two players are not one
			return fmt.Sprintf("'%d'", values)
		})
		var plan string
		require.NoError(t, db.QueryRowContext(t.Context(), "VEXPLAIN PLAN "+text).Scan(&plan), text)
		route := "one"
		for _, found := range variant.FindAllStringSubmatch(plan, -1) {
			switch found[1] {
			case "IN", "MultiEqual":
				if route == "one" {
					route = "some"
				}
			case "Scatter":
				route = "all"
			}
		}
		require.Equal(t, want[shapeOf(statement)], route, "%s\n%s", text, plan)
	}
}
