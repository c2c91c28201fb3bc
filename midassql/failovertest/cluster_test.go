package failovertest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midassql"
	"github.com/stretchr/testify/require"
)

// A cluster has three nodes, all of which are written to.
type cluster struct {
	nodes     []*node
	waits     string // ends a DSN: a node answers once it has applied what the others had committed before
	databases int
}

// writers has a game server on each node, in a database of its own. Its grant may read, slowly.
func (c *cluster) writers(t *testing.T, reads bool, more string) (writers []*writer) {
	t.Helper()
	c.databases++
	game := fmt.Sprint("game", c.databases)
	execute(t, openMySQL(t, mysqlDSN(c.nodes[0].address, "", "")), "CREATE DATABASE "+game)
	for _, n := range c.nodes {
		w := newWriter(t, c.open(t, n, c.waits+more), midassql.MySQL, reads)
		w.slow = reads
		writers = append(writers, w)
	}
	createTables(t, writers[0], midassql.MySQL)
	return writers
}

// open opens the newest of the databases on a node.
func (c *cluster) open(t *testing.T, n *node, more string) *sql.DB {
	return openMySQL(t, mysqlDSN(n.address, fmt.Sprint("game", c.databases), more))
}

// elsewhere has a game server that orders on the first node and one that is called back on the second,
// with a DSN that ends so. (The former waits: it is the one that looks at the result.)
func (c *cluster) elsewhere(t *testing.T, more string) []*writer {
	t.Helper()
	writers := c.writers(t, false, "")[:1]
	return append(writers, newWriter(t, c.open(t, c.nodes[1], more), midassql.MySQL, false))
}

// behind keeps the second node from applying the orders that are saved on the others, until catchUp
// is called.
func (c *cluster) behind(t *testing.T) (catchUp func()) {
	t.Helper()
	db := c.open(t, c.nodes[1], "")
	awaitTables(t, db)
	conn, err := db.Conn(t.Context())
	require.NoError(t, err)
	_, err = conn.ExecContext(t.Context(), "LOCK TABLES midas_orders READ")
	require.NoError(t, err)
	return func() {
		_, err := conn.ExecContext(t.Context(), "UNLOCK TABLES")
		require.NoError(t, err)
		require.NoError(t, conn.Close())
	}
}

// calledBackBehind has a payment with a ts that is so old called back on a node that does not have its
// order yet, and again once it has. first is the first answer.
func (c *cluster) calledBackBehind(t *testing.T, more string, age time.Duration) (r result, first error) {
	t.Helper()
	writers := c.elsewhere(t, more)
	catchUp := c.behind(t)
	token, err := saveUntilDone(t.Context(), writers[:1], 0)
	require.NoError(t, err)
	d := payment(0, token)
	d.Time = time.Now().Add(-age)
	ctx, cancel := context.WithTimeout(t.Context(), callTime)
	first = writers[1].call(ctx, d)
	cancel()
	catchUp()
	answer := first
	if !errors.Is(first, midas.ErrTokenNotFound) {
		answer = callUntilDone(t.Context(), writers[1:], d)
	}
	return compare(t, writers, map[int]error{0: answer}), first
}

// race has payments called back on all writers at once, until each said OK; enough ends it early.
func race(t *testing.T, writers []*writer, most int, enough func() bool) result {
	t.Helper()
	return ordersThen(t, writers, most, enough, func(ctx context.Context, d *midas.Delivery) error {
		var all sync.WaitGroup
		errs := make([]error, len(writers))
		for i := range errs {
			all.Go(func() { errs[i] = callUntilDone(ctx, writers[i:i+1], d) })
		}
		all.Wait()
		return errors.Join(errs...)
	})
}

func never() bool { return false }

// raceUntilTwice fails unless a payment is granted twice.
func raceUntilTwice(t *testing.T, writers []*writer) {
	t.Helper()
	const most = 1000
	r := race(t, writers, most, func() bool {
		return len(counts(t, writers[0].db, `SELECT billno, COUNT(*) FROM items GROUP BY billno HAVING COUNT(*) > 1`)) > 0
	})
	require.NotZero(t, r.twice, "nothing was granted twice: the proof would not see it")
}

// atOnce has payments called back on the second writer as soon as the first has saved their order, with
// a ts that is so old.
func atOnce(t *testing.T, writers []*writer, most int, age time.Duration) result {
	t.Helper()
	return ordersThen(t, writers, most, never, func(ctx context.Context, d *midas.Delivery) error {
		d.Time = time.Now().Add(-age)
		return callUntilDone(ctx, writers[1:], d)
	})
}

// ordersThen makes payments one by one; their orders are saved on the first node.
func ordersThen(t *testing.T, writers []*writer, most int, enough func() bool, call func(context.Context, *midas.Delivery) error) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	answered := make(map[int]error)
	for i := 0; i < most && !enough(); i++ {
		token, err := saveUntilDone(ctx, writers[:1], i)
		require.NoError(t, err)
		answered[i] = call(ctx, payment(i, token))
	}
	return compare(t, writers, answered)
}
