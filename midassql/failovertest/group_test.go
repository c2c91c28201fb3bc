package failovertest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midassql"
	"github.com/stretchr/testify/require"
)

// A groupReplication is a group of MySQL's Group Replication in which every member takes writes.
type groupReplication struct{ cluster }

func startGroupReplication(t *testing.T) *groupReplication {
	t.Helper()
	made := newMySQLNodes(t)
	g := &groupReplication{cluster{waits: before}}
	var members []string
	for range 3 {
		members = append(members, freeAddress(t))
	}
	for i, member := range members {
		n := made.newNode(t, "--plugin-load-add=group_replication.so",
			"--report-host=127.0.0.1", // where a member that joins gets from what it has missed
			"--group-replication-group-name=5c18fa1e-0b1d-4a11-9d1c-7f1d3a3a6f10",
			"--group-replication-start-on-boot=OFF",
			"--group-replication-local-address="+member,
			"--group-replication-group-seeds="+strings.Join(members, ","),
			"--group-replication-single-primary-mode=OFF",
			"--group-replication-enforce-update-everywhere-checks=ON",
			"--group-replication-member-expel-timeout=0")
		g.nodes = append(g.nodes, n)
		startMySQLNode(t, n)
		db := g.admin(t, n)
		execute(t, db, "CHANGE REPLICATION SOURCE TO source_user = 'root' FOR CHANNEL 'group_replication_recovery'")
		if i == 0 {
			execute(t, db, "SET GLOBAL group_replication_bootstrap_group = ON")
		}
		execute(t, db, "START GROUP_REPLICATION", "SET GLOBAL group_replication_bootstrap_group = OFF")
	}
	g.awaitMembers(t, g.nodes[0], len(g.nodes), "ONLINE")
	return g
}

// admin opens a node for statements that take their time.
func (g *groupReplication) admin(t *testing.T, n *node) *sql.DB {
	return openMySQL(t, mysqlDSN(n.address, "", "&readTimeout=2m"))
}

// awaitMembers waits until a node says that so many members have a state.
func (g *groupReplication) awaitMembers(t *testing.T, n *node, want int, state string) {
	t.Helper()
	db := g.admin(t, n)
	defer db.Close()
	eventually(t, fmt.Sprint(want, " members ", state), func() error {
		var found int
		err := db.QueryRowContext(t.Context(), `SELECT COUNT(*) FROM performance_schema.replication_group_members WHERE member_state LIKE ?`, state).Scan(&found)
		if err == nil && found != want {
			err = fmt.Errorf("%d members", found)
		}
		return err
	})
}

// killAndRejoin kills a node, and lets it join again once the others have put it out of the group and
// meanwhile has returned.
func (g *groupReplication) killAndRejoin(t *testing.T, i int, meanwhile func()) {
	t.Helper()
	g.nodes[i].kill()
	g.awaitMembers(t, g.nodes[(i+1)%len(g.nodes)], len(g.nodes)-1, "%")
	meanwhile()
	startMySQLNode(t, g.nodes[i], "--group-replication-start-on-boot=ON") // and read-only until it takes part
}

const (
	before   = "&group_replication_consistency=%27BEFORE%27"
	eventual = "&group_replication_consistency=%27EVENTUAL%27" // the default before 8.4
)

func TestGroupReplication(t *testing.T) {
	g := startGroupReplication(t)
	for i := range *kills {
		t.Run(fmt.Sprint("killed member ", i+1), func(t *testing.T) {
			writers := g.writers(t, false, "&interpolateParams=true")
			victim := 1 + i%2 // the first looks at the result, which one that is not back does not know
			requireExactlyOnce(t, during(t, writers, func() { g.killAndRejoin(t, victim, func() {}) }))
			g.awaitMembers(t, g.nodes[0], len(g.nodes), "ONLINE")
		})
	}

	t.Run("each payment on all three at once", func(t *testing.T) {
		writers := g.writers(t, false, "&interpolateParams=true&readTimeout=30s") // a commit that is cut off is unknown, and rightly
		requireExactlyOnce(t, race(t, writers, *races, never))
		for _, w := range writers {
			require.Zero(t, w.unknown.Load(), "a rollback counted as an unknown outcome")
		}
	})

	// A lock holds on its own member alone, and certification compares what transactions have written:
	// where each locks the player, looks for the payment and inserts another row, no two conflict.
	t.Run("doubles: a grant once by a lock", func(t *testing.T) {
		writers := g.writers(t, false, "&interpolateParams=true")
		for _, w := range writers {
			w.deliver = onceByLock(w.db)
		}
		raceUntilTwice(t, writers)
	})

	// A commit that lost against one of another member says 1180 "Got error 149", or 3101, and midassql tries again. So
	// no row of such a commit may be there, on no member, whoever is killed meanwhile.
	for i := range *conflicts {
		t.Run(fmt.Sprint("a lost commit does not last, killed member ", i+1), func(t *testing.T) { g.certify(t, i%len(g.nodes)) })
	}

	// As on Galera: a callback on another member than the order, which is not there yet.
	t.Run("refuses: a member that is behind, a ts of an hour ago", func(t *testing.T) {
		r, err := g.calledBackBehind(t, eventual, time.Hour)
		require.ErrorIs(t, err, midas.ErrTokenNotFound, "the order was found: the proof would not see a refusal")
		require.Equal(t, 1, r.refused)
	})
	t.Run("a member that is behind", func(t *testing.T) {
		r, err := g.calledBackBehind(t, eventual, 0)
		require.ErrorIs(t, err, midassql.ErrNoOrder)
		requireExactlyOnce(t, r)
	})
	t.Run("a member that is behind, BEFORE", func(t *testing.T) {
		r, err := g.calledBackBehind(t, before, time.Hour)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		requireExactlyOnce(t, r)
	})
	// How often that happens is in docs/mysql.md.
	t.Run("at once on another member", func(t *testing.T) {
		requireExactlyOnce(t, atOnce(t, g.elsewhere(t, eventual), *races, 0))
	})
	t.Run("at once on another member, BEFORE, a ts of an hour ago", func(t *testing.T) {
		requireExactlyOnce(t, atOnce(t, g.elsewhere(t, before), *races, time.Hour))
	})

	t.Run("Check", func(t *testing.T) {
		g.writers(t, false, "")
		for more, want := range map[string]bool{eventual: true, before: false} {
			store, err := midassql.New(g.open(t, g.nodes[0], more), midassql.MySQL, midassql.Options{})
			require.NoError(t, err)
			found, err := store.Check(t.Context())
			require.NoError(t, err)
			require.Equal(t, want, slices.ContainsFunc(found, func(f midassql.Finding) bool { return f.Setting == "group_replication_consistency" }), "%v", found)
		}
	})

	t.Run("loses: a member that comes back and does not join", func(t *testing.T) {
		const alone = 2
		writers := g.writers(t, false, "")
		token, err := saveUntilDone(t.Context(), writers, 0)
		require.NoError(t, err)
		for _, w := range writers { // each has the order
			eventually(t, "the order", func() error {
				var found string
				return w.db.QueryRowContext(t.Context(), `SELECT openid FROM midas_orders WHERE token = ?`, token).Scan(&found)
			})
		}
		g.nodes[alone].kill()
		startMySQLNode(t, g.nodes[alone]) // with group_replication_start_on_boot=OFF
		err = callUntilDone(t.Context(), writers[alone:], payment(0, token))
		require.NoError(t, err, "the member takes no writes: docs/databases.md says otherwise")
		require.Equal(t, 1, compare(t, writers[:1], map[int]error{0: err}).lost, "docs/databases.md says otherwise")
	})
}

// onceByLock looks whether a payment was granted while it holds the player's lock, which is right on one node.
func onceByLock(db *sql.DB) midas.DeliverFunc {
	return func(ctx context.Context, d *midas.Delivery) error {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer tx.Rollback()
		var amount, granted int
		if err := tx.QueryRowContext(ctx, `SELECT amount FROM balances WHERE openid = ? FOR UPDATE`, d.OpenID).Scan(&amount); err != nil {
			return err
		}
		if err := tx.QueryRowContext(ctx, `SELECT COUNT(*) FROM items WHERE billno = ?`, d.BillNo).Scan(&granted); err != nil || granted > 0 {
			return err
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO items (openid, billno) VALUES (?, ?)`, d.OpenID, d.BillNo); err != nil {
			return err
		}
		return tx.Commit()
	}
}

// certify kills a member while transactions on all of them conflict, and compares what their commits said
// with what is there, on each survivor and then on the member that is back.
func (g *groupReplication) certify(t *testing.T, victim int) {
	const callers, enough = 2, 5 // on each member; failures before the kill, and after it
	writers := g.writers(t, false, "")
	execute(t, writers[0].db, "CREATE TABLE tries (id VARBINARY(64) PRIMARY KEY)")
	var (
		mu      sync.Mutex
		said    = make(map[string]error) // by id: what COMMIT said
		failed  int                      // with 1180
		running sync.WaitGroup
	)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for i, w := range writers {
		for j := range callers {
			running.Go(func() {
				for n := 0; ctx.Err() == nil; n++ {
					id := fmt.Sprint(i, j, n)
					committing, err := try(w.db, id)
					mu.Lock()
					if committing {
						said[id] = err
					}
					if lostAgainst(err, applied) {
						failed++
					}
					mu.Unlock()
					if err != nil {
						pause(ctx, 10*time.Millisecond)
					}
				}
			})
		}
	}
	awaitMore := func() {
		mu.Lock()
		from := failed
		mu.Unlock()
		eventually(t, "commits that fail", func() error {
			mu.Lock()
			defer mu.Unlock()
			if failed < from+enough {
				return fmt.Errorf("%d of %d", failed-from, enough)
			}
			return nil
		})
	}
	awaitMore()
	g.killAndRejoin(t, victim, func() {
		awaitMore()
		cancel()
		running.Wait()
		g.compareTries(t, said, (victim+1)%len(g.nodes))
		g.compareTries(t, said, (victim+2)%len(g.nodes))
	})
	g.awaitMembers(t, g.nodes[victim], len(g.nodes), "ONLINE")
	g.compareTries(t, said, victim)
}

// try commits a row with an id and adds to one of two rows, which others add to as well.
func try(db *sql.DB, id string) (committing bool, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), callTime)
	defer cancel()
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return false, err
	}
	defer tx.Rollback()
	if _, err := tx.ExecContext(ctx, `INSERT INTO tries (id) VALUES (?)`, id); err != nil {
		return false, err
	}
	if _, err := tx.ExecContext(ctx, `UPDATE balances SET amount = amount + 1 WHERE openid = ?`, player(rand.IntN(2))); err != nil {
		return false, err
	}
	return true, tx.Commit()
}

// The two ways in which a commit loses against one of another member: that one is applied while this one waits for
// its turn, or had its turn before.
const applied, certified = 1180, 3101

func lostAgainst(err error, number uint16) bool {
	var refused *mysql.MySQLError
	return errors.As(err, &refused) && refused.Number == number && (number != applied || strings.Contains(refused.Message, "Got error 149 - "))
}

// compareTries compares what commits said with what is there on a node.
func (g *groupReplication) compareTries(t *testing.T, said map[string]error, node int) {
	t.Helper()
	there := counts(t, g.open(t, g.nodes[node], before), `SELECT id, 1 FROM tries`)
	kinds := make(map[string]int)
	for id, err := range said {
		switch {
		case err == nil:
			kinds["OK"]++
			require.Contains(t, there, id, "a commit that succeeded was lost")
		case lostAgainst(err, applied), lostAgainst(err, certified):
			kinds[err.Error()]++
			require.NotContains(t, there, id, "a commit lasts that said %v", err)
		default:
			kinds[fmt.Sprintf("%v, there %d", err, there[id])]++
		}
	}
	t.Logf("node %d: %v", node+1, kinds)
}
