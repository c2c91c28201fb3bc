package failovertest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midassql"
	"github.com/stretchr/testify/require"
)

type galera struct{ cluster }

func startGalera(t *testing.T) *galera {
	t.Helper()
	provider := program(t, "libgalera_smm.so", "/usr/lib/galera*/")
	program(t, "rsync", "/usr/bin/")
	made := newMariaDBNodes(t)
	var ports []galeraPorts
	var members []string
	for range 3 {
		p := galeraPorts{group: freeAddress(t), ist: freeAddress(t), sst: freeAddress(t)}
		ports = append(ports, p)
		members = append(members, p.group)
	}
	g := &galera{cluster{waits: syncWait}}
	for i, p := range ports {
		_, groupPort, _ := net.SplitHostPort(p.group)
		n := made.newNode(t, "--wsrep-on=ON", "--wsrep-provider="+provider,
			"--wsrep-cluster-name=midas", "--wsrep-cluster-address=gcomm://"+strings.Join(members, ","),
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

const (
	syncWait   = "&wsrep_sync_wait=1"
	noSyncWait = "&wsrep_sync_wait=0" // the default
)

// slowly is for the WHERE of a SELECT: it keeps the server busy while it prepares the statement, for no
// time or for some, up to many times what a transaction takes on another node. That is where a node of Galera
// swallows the error that it has rolled the transaction back.
func slowly() string {
	terms := 0
	if n := rand.IntN(6); n > 0 {
		terms = 10000 << n // 20,000 to 320,000
	}
	return strings.Repeat("AND 1 = 1 ", terms)
}

func TestGalera(t *testing.T) {
	g := startGalera(t)
	t.Run("killed nodes", func(t *testing.T) {
		writers := g.writers(t, false, "")
		r := during(t, writers, func() {
			for i := range *kills {
				g.restart(t, g.nodes[i%len(g.nodes)])
				pause(t.Context(), time.Second)
			}
		})
		requireExactlyOnce(t, r)
	})

	t.Run("each payment on two nodes at once", func(t *testing.T) {
		writers := g.writers(t, false, "")[:2]
		requireExactlyOnce(t, race(t, writers, *races, never))
	})

	// A node that rolls a transaction back while it prepares a SELECT for it does not say so: what
	// follows is committed by itself.
	t.Run("doubles: a prepared SELECT in the transaction", func(t *testing.T) {
		writers := g.writers(t, false, "")[:2]
		for _, w := range writers {
			w.deliver = onceByHand(w.db, midassql.MySQL, true)
		}
		raceUntilTwice(t, writers)
	})

	// A grant of the game's own may do so, too. midassql notices, and can only say so.
	t.Run("doubles: a grant with a prepared SELECT", func(t *testing.T) {
		writers := g.writers(t, true, "")[:2]
		raceUntilTwice(t, writers)
		require.NotZero(t, writers[0].broken.Load()+writers[1].broken.Load())
	})

	// Here the driver writes the arguments into the statements, and prepares none. (These are slow, and where
	// it prepares them some twenty double.)
	t.Run("a grant with a SELECT, interpolateParams", func(t *testing.T) {
		writers := g.writers(t, true, "&interpolateParams=true")[:2]
		requireExactlyOnce(t, race(t, writers, max(30, *races/10), never))
	})

	// Check tells the two settings of the DSN that the doubles above and the refusals below come from.
	t.Run("Check", func(t *testing.T) {
		found := func(more string) (settings []string) {
			g.writers(t, false, "")
			store, err := midassql.New(g.open(t, g.nodes[0], more), midassql.MySQL, midassql.Options{})
			require.NoError(t, err)
			findings, err := store.Check(t.Context())
			require.NoError(t, err)
			for _, f := range findings {
				settings = append(settings, f.Setting)
			}
			return settings
		}
		require.Subset(t, found(noSyncWait), []string{"wsrep_sync_wait", "prepared_statements"})
		well := found(syncWait + "&interpolateParams=true")
		require.NotContains(t, well, "wsrep_sync_wait")
		require.NotContains(t, well, "prepared_statements")
	})

	// A callback on another node than the order, which is not there yet, finds no order. Were it not
	// young by its ts, that would be ret 3, which is final.
	t.Run("refuses: a node that is behind, a ts of an hour ago", func(t *testing.T) {
		r, err := g.calledBackBehind(t, noSyncWait, time.Hour)
		require.ErrorIs(t, err, midas.ErrTokenNotFound, "the order was found: the proof would not see a refusal")
		require.Equal(t, 1, r.refused)
	})
	t.Run("a node that is behind", func(t *testing.T) {
		r, err := g.calledBackBehind(t, noSyncWait, 0)
		require.ErrorIs(t, err, midassql.ErrNoOrder)
		requireExactlyOnce(t, r)
	})
	t.Run("a node that is behind, wsrep_sync_wait", func(t *testing.T) {
		r, err := g.calledBackBehind(t, syncWait, time.Hour)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		requireExactlyOnce(t, r)
	})

	// How often that happens to a callback that comes at once depends on the machine: docs/databases.md
	// quotes the figures.
	t.Run("at once on another node, a ts of an hour ago", func(t *testing.T) {
		r := atOnce(t, g.elsewhere(t, noSyncWait), *races, time.Hour)
		r.refused = 0
		requireExactlyOnce(t, r)
	})
	t.Run("at once on another node", func(t *testing.T) {
		requireExactlyOnce(t, atOnce(t, g.elsewhere(t, noSyncWait), *races, 0))
	})
	t.Run("at once on another node, wsrep_sync_wait, a ts of an hour ago", func(t *testing.T) {
		requireExactlyOnce(t, atOnce(t, g.elsewhere(t, syncWait), *races, time.Hour))
	})
}
