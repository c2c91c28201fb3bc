package failovertest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midassql"
	"github.com/stretchr/testify/require"
)

// galera is a cluster of three nodes, all of which are written to.
type galera struct {
	nodes []*node
}

func startGalera(t *testing.T) *galera {
	t.Helper()
	provider := program(t, "libgalera_smm.so", "/usr/lib/galera*/")
	program(t, "rsync", "/usr/bin/")
	made := newMariaDBNodes(t)
	var ports []galeraPorts
	var cluster []string
	for range 3 {
		p := galeraPorts{group: freeAddress(t), ist: freeAddress(t), sst: freeAddress(t)}
		ports = append(ports, p)
		cluster = append(cluster, p.group)
	}
	g := &galera{}
	for i, p := range ports {
		_, groupPort, _ := net.SplitHostPort(p.group)
		n := made.newNode(t, "--wsrep-on=ON", "--wsrep-provider="+provider,
			"--wsrep-cluster-name=midas", "--wsrep-cluster-address=gcomm://"+strings.Join(cluster, ","),
			"--wsrep-node-name="+fmt.Sprint("node", i), "--wsrep-node-address=127.0.0.1:"+groupPort,
			"--wsrep-sst-method=rsync", "--wsrep-sst-receive-address="+p.sst,
			"--wsrep-provider-options=gmcast.listen_addr=tcp://"+p.group+";ist.recv_addr="+p.ist+
				";evs.keepalive_period=PT0.3S;evs.inactive_check_period=PT0.3S;evs.suspect_timeout=PT2S;evs.inactive_timeout=PT4S;gcache.size=32M",
			"--innodb-autoinc-lock-mode=2")
		g.nodes = append(g.nodes, n)
		if i == 0 {
			g.start(t, n, "--wsrep-new-cluster")
		} else {
			g.start(t, n)
		}
	}
	execute(t, openMySQL(t, mysqlDSN(g.nodes[0].address, "", "")), "CREATE DATABASE game")
	return g
}

type galeraPorts struct{ group, ist, sst string }

// start starts a node and returns once the cluster has taken it in.
func (g *galera) start(t *testing.T, n *node, extra ...string) {
	t.Helper()
	db := openMySQL(t, mysqlDSN(n.address, "", ""))
	defer db.Close()
	n.start(t, func() error {
		var name, ready string
		err := db.QueryRowContext(t.Context(), "SHOW STATUS LIKE 'wsrep_ready'").Scan(&name, &ready)
		if err == nil && ready != "ON" {
			err = errors.New("not ready")
		}
		return err
	}, extra...)
}

var recovered = regexp.MustCompile(`Recovered position:\s*(\S+)`)

// restart kills a node and lets it rejoin.
func (g *galera) restart(t *testing.T, n *node) {
	t.Helper()
	n.kill()
	pause(t.Context(), stalled) // the others go on
	log := n.log + ".recover"
	require.NoError(t, os.RemoveAll(log))
	cmd, err := n.account.command(log, append(append([]string{}, n.args...), "--wsrep-recover")...)
	require.NoError(t, err)
	require.NoError(t, cmd.Run(), tail(log))
	position := recovered.FindStringSubmatch(tail(log))
	require.NotNil(t, position, tail(log))
	g.start(t, n, "--wsrep-start-position="+position[1])
}

// writers has a game server on each node.
func (g *galera) writers(t *testing.T, reads bool, more string) (writers []*writer) {
	for _, n := range g.nodes {
		writers = append(writers, newWriter(t, openMySQL(t, mysqlDSN(n.address, "game", more)), midassql.MySQL, reads))
	}
	createTables(t, writers[0], midassql.MySQL)
	return writers
}

const syncWait = "&wsrep_sync_wait=1"

func TestGalera(t *testing.T) {
	g := startGalera(t)
	writers := g.writers(t, false, syncWait)
	r := during(t, writers, writers[0].db, func() {
		for i := range *kills {
			g.restart(t, g.nodes[i%len(g.nodes)])
			pause(t.Context(), time.Second)
		}
	})
	requireExactlyOnce(t, r)
}

// race has each payment called back on two nodes at once, until both said OK.
func race(t *testing.T, writers []*writer, most int, enough func() bool) map[int]error {
	t.Helper()
	answered := make(map[int]error)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	l := &load{writers: writers}
	for i := 0; i < most && !enough(); i++ {
		token := fmt.Sprint("token", i)
		require.NoError(t, l.untilDone(ctx, func(ctx context.Context, w *writer) error {
			token = fmt.Sprint(token, "_")
			return w.store.SaveOrder(ctx, order(i), &midas.Order{Token: token})
		}))
		var both sync.WaitGroup
		errs := make([]error, 2)
		for j := range errs {
			both.Go(func() {
				one := &load{writers: writers[j : j+1]}
				errs[j] = one.untilDone(ctx, func(ctx context.Context, w *writer) error { return w.deliver(ctx, payment(i, token)) })
			})
		}
		both.Wait()
		answered[i] = errors.Join(errs...)
	}
	return answered
}

func never() bool { return false }

func TestGaleraRaceOfTwoWriters(t *testing.T) {
	g := startGalera(t)
	writers := g.writers(t, false, syncWait)
	answered := race(t, writers, *races, never)
	r := compare(t, writers[0].db, answered)
	r.payments = len(answered)
	t.Log(r)
	requireExactlyOnce(t, r)

	t.Run("counter-example: a prepared SELECT in the transaction", func(t *testing.T) {
		execute(t, writers[0].db, "DELETE FROM items", "UPDATE balances SET amount = 0")
		for _, w := range writers {
			w.deliver = onceByHand(w.db, midassql.MySQL, true)
		}
		const most = 5000
		answered := race(t, writers, most, func() bool { return twice(t, writers[0].db) })
		r := compare(t, writers[0].db, answered)
		r.payments = len(answered)
		t.Log(r)
		require.NotZero(t, r.twice, "nothing was granted twice: the proof would not see it")
	})
}

func twice(t *testing.T, db *sql.DB) bool {
	t.Helper()
	var n int
	require.NoError(t, db.QueryRowContext(t.Context(), `SELECT COUNT(*) - COUNT(DISTINCT billno) FROM items`).Scan(&n))
	return n > 0
}

// A grant that reads by a prepared SELECT may lose its transaction on Galera, as midassql's own
// did: with interpolateParams it cannot.
func TestGaleraInterpolateParams(t *testing.T) {
	g := startGalera(t)
	writers := g.writers(t, true, syncWait+"&interpolateParams=true")
	r := during(t, writers, writers[0].db, func() { pause(t.Context(), stalled) })
	requireExactlyOnce(t, r)
}

// Without wsrep_sync_wait a callback that comes at once, on another node than the order, finds
// no order: ret 3, which is final.
func TestGaleraRefusesWithoutSyncWait(t *testing.T) {
	g := startGalera(t)
	for _, c := range []struct {
		name, more string
		refuses    bool
	}{{"without", "", true}, {"with", syncWait, false}} {
		t.Run(c.name, func(t *testing.T) {
			var stores []*midassql.Store
			var writers []*writer
			for _, n := range g.nodes {
				w := newWriter(t, openMySQL(t, mysqlDSN(n.address, "game", c.more)), midassql.MySQL, false)
				stores, writers = append(stores, w.store), append(writers, w)
			}
			if c.refuses {
				createTables(t, writers[0], midassql.MySQL)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			var refused, payments int
			for i := 0; i < *races; i++ {
				token := c.name + fmt.Sprint(i)
				require.NoError(t, stores[0].SaveOrder(ctx, order(i), &midas.Order{Token: token}))
				one := &load{writers: writers[1:2]}
				d := payment(i, token)
				d.BillNo = c.name + d.BillNo
				err := one.untilDone(ctx, func(ctx context.Context, w *writer) error { return w.deliver(ctx, d) })
				payments++
				if errors.Is(err, midas.ErrTokenNotFound) {
					refused++
				} else {
					require.NoError(t, err)
				}
			}
			t.Logf("%d of %d callbacks refused for good", refused, payments)
			require.Equal(t, c.refuses, refused > 0)
		})
	}
}
