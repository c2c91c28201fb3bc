// Package failovertest proves what midassql promises on databases that are replicated: while
// nodes are killed and others take over, each payment that was answered OK is granted exactly
// once. It starts the databases itself, on loopback.
//
// A proof that nothing was lost is worth something only if it would have seen a loss. So each
// has counter-examples beside it, a setting or a program with a mistake in it, which must
// lose a payment or grant one twice. docs/databases.md quotes their figures.
package failovertest

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midassql"
	"github.com/stretchr/testify/require"
)

var (
	failovers = flag.Int("failovers", 1, "failovers of PostgreSQL, MariaDB and MySQL")
	kills     = flag.Int("kills", 1, "nodes of Galera and of Group Replication killed")
	conflicts = flag.Int("conflicts", 1, "members of Group Replication killed while commits conflict")
	pgFolder  = flag.String("postgresql", "", "folder of PostgreSQL's programs (default: of the newest that is installed)")
	races     = flag.Int("races", 300, "payments called back at once on two nodes of Galera, and on three of Group Replication")
)

const (
	players      = 40                      // few, so that payments of one player meet
	callers      = 12                      // payments under way at once
	callTime     = 1500 * time.Millisecond // what a callback may take (protocol.md 1)
	betweenCalls = 50 * time.Millisecond
)

// A writer is a game server: it has a pool of connections of its own.
type writer struct {
	db      *sql.DB
	store   *midassql.Store
	deliver midas.DeliverFunc

	slow bool // its grant reads by a SELECT that takes long to prepare

	calls, notOK, broken, unknown atomic.Int64
}

// newWriter returns a writer that delivers by Store.Once. The grant inserts a row and changes
// another one; reads says that it reads the balance before, instead of letting the UPDATE add.
func newWriter(t *testing.T, db *sql.DB, dialect midassql.Dialect, reads bool) *writer {
	t.Helper()
	store, err := midassql.New(db, dialect, midassql.Options{})
	require.NoError(t, err)
	w := &writer{db: db, store: store}
	w.deliver = store.Once(func(ctx context.Context, tx *sql.Tx, d *midas.Delivery) error {
		where := ""
		if w.slow {
			where = slowly()
		}
		return grant(ctx, tx, dialect, d, reads, where)
	})
	return w
}

// newWriters returns three, each with a pool that open returns, and creates the tables.
func newWriters(t *testing.T, open func() *sql.DB, dialect midassql.Dialect) (writers []*writer) {
	t.Helper()
	for i := range 3 {
		writers = append(writers, newWriter(t, open(), dialect, i > 0))
	}
	createTables(t, writers[0], dialect)
	return writers
}

// The tables have no unique key for a payment: a second grant would show.
var tables = map[midassql.Dialect][]string{
	midassql.PostgreSQL: {
		`CREATE TABLE items (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, openid text NOT NULL, billno text NOT NULL)`,
		`CREATE TABLE balances (openid text PRIMARY KEY, amount bigint NOT NULL)`,
		`CREATE TABLE byhand (openid text, billno text, PRIMARY KEY (openid, billno))`,
	},
	midassql.MySQL: {
		`CREATE TABLE items (id BIGINT AUTO_INCREMENT PRIMARY KEY, openid VARBINARY(64) NOT NULL, billno VARBINARY(64) NOT NULL) ENGINE=InnoDB`,
		`CREATE TABLE balances (openid VARBINARY(64) PRIMARY KEY, amount BIGINT NOT NULL) ENGINE=InnoDB`,
		`CREATE TABLE byhand (openid VARBINARY(64), billno VARBINARY(64), PRIMARY KEY (openid, billno)) ENGINE=InnoDB`,
	},
}

// placeholders writes the arguments of a statement for PostgreSQL if need be.
func placeholders(dialect midassql.Dialect, statement string) string {
	if dialect == midassql.MySQL {
		return statement
	}
	var numbered []byte
	n := 0
	for _, c := range []byte(statement) {
		if c == '?' {
			n++
			numbered = fmt.Appendf(numbered, "$%d", n)
			continue
		}
		numbered = append(numbered, c)
	}
	return string(numbered)
}

// grant gives the player one item, and adds it to his balance. If it reads the balance before, where is a
// part of the SELECT's WHERE.
func grant(ctx context.Context, tx *sql.Tx, dialect midassql.Dialect, d *midas.Delivery, reads bool, where string) error {
	update, args := `UPDATE balances SET amount = amount + ? WHERE openid = ?`, []any{1, d.OpenID}
	if reads {
		var amount int
		err := tx.QueryRowContext(ctx, placeholders(dialect, `SELECT amount FROM balances WHERE openid = ? `+where+`FOR UPDATE`), d.OpenID).Scan(&amount)
		if err != nil {
			return err
		}
		update, args[0] = `UPDATE balances SET amount = ? WHERE openid = ?`, amount+1
	}
	if _, err := tx.ExecContext(ctx, placeholders(dialect, update), args...); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, placeholders(dialect, `INSERT INTO items (openid, billno) VALUES (?, ?)`), d.OpenID, d.BillNo)
	return err
}

// createTables creates midassql's tables and the game's, with a balance for each player.
func createTables(t *testing.T, w *writer, dialect midassql.Dialect) {
	t.Helper()
	require.NoError(t, w.store.Migrate(t.Context()))
	for _, statement := range tables[dialect] {
		_, err := w.db.ExecContext(t.Context(), statement)
		require.NoError(t, err)
	}
	for i := range players {
		_, err := w.db.ExecContext(t.Context(), placeholders(dialect, `INSERT INTO balances (openid, amount) VALUES (?, 0)`), player(i))
		require.NoError(t, err)
	}
}

// awaitTables waits until a replica has what createTables has made.
func awaitTables(t *testing.T, db *sql.DB) {
	t.Helper()
	eventually(t, "the tables", func() error {
		var amount int
		return db.QueryRowContext(t.Context(), `SELECT amount FROM balances WHERE openid = '`+player(players-1)+`'`).Scan(&amount)
	})
}

func player(i int) string { return fmt.Sprintf("player%02d", i%players) }

var gem = midas.Item{ID: "gem60", Price: 60 * midas.QPoint, Quantity: 1}

func order(i int) midas.OrderRequest {
	return midas.OrderRequest{Player: midas.Player{Login: midas.QQ, OpenID: player(i)}, Items: []midas.Item{gem}}
}

func billNo(i int) string { return fmt.Sprintf("bill%06d", i) }

func payment(i int, token string) *midas.Delivery {
	return &midas.Delivery{OpenID: player(i), Token: token, BillNo: billNo(i), ZoneID: "1",
		Items: []midas.Item{gem}, Charged: gem.Price, Time: time.Unix(1518081937, 0)}
}

// A load is payments that players make and Midas calls back, while something happens to the
// database. Each callback is repeated until it is answered OK or refused for good.
type load struct {
	writers []*writer
	cancel  context.CancelFunc
	stopped chan struct{}
	running sync.WaitGroup

	payments atomic.Int64

	mu       sync.Mutex
	answered map[int]error // by payment: nil is OK
}

// startLoad starts payments until stop is called. Callbacks go to writers at random.
func startLoad(t *testing.T, writers []*writer) *load {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	l := &load{writers: writers, cancel: cancel, stopped: make(chan struct{}), answered: make(map[int]error)}
	t.Cleanup(cancel)
	for range callers {
		l.running.Go(func() {
			for {
				select {
				case <-l.stopped:
					return
				default:
					l.pay(ctx, int(l.payments.Add(1))-1)
				}
			}
		})
	}
	return l
}

// pay is one payment: an order, and three callbacks at once.
func (l *load) pay(ctx context.Context, i int) {
	token, err := saveUntilDone(ctx, l.writers, i)
	if err != nil {
		l.answer(i, err)
		return
	}
	var calls sync.WaitGroup
	for range 3 {
		calls.Go(func() { l.answer(i, callUntilDone(ctx, l.writers, payment(i, token))) })
	}
	calls.Wait()
	pause(ctx, betweenCalls)
}

// answer notes the answer to a callback. A refusal counts as that of the payment.
func (l *load) answer(i int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if before, there := l.answered[i]; !there || before == nil {
		l.answered[i] = err
	}
}

// saveUntilDone saves an order, on any of the writers. One that was not saved is not handed out:
// the next one has another token.
func saveUntilDone(ctx context.Context, writers []*writer, i int) (token string, err error) {
	err = untilDone(ctx, writers, func(ctx context.Context, w *writer) error {
		token = fmt.Sprintf("token%06d_%d", i, rand.Uint32())
		return w.store.SaveOrder(ctx, order(i), &midas.Order{Token: token})
	})
	return token, err
}

// callUntilDone calls d back as Midas does, on any of the writers.
func callUntilDone(ctx context.Context, writers []*writer, d *midas.Delivery) error {
	return untilDone(ctx, writers, func(ctx context.Context, w *writer) error { return w.call(ctx, d) })
}

// call calls d back.
func (w *writer) call(ctx context.Context, d *midas.Delivery) error {
	err := w.deliver(ctx, d)
	w.calls.Add(1)
	if err != nil {
		w.notOK.Add(1)
	}
	if errors.Is(err, midassql.ErrBroken) {
		w.broken.Add(1)
	}
	if err != nil && strings.Contains(err.Error(), "outcome of the commit unknown") {
		w.unknown.Add(1)
	}
	return err
}

// untilDone calls writers until one succeeds or refuses, or ctx ends.
func untilDone(ctx context.Context, writers []*writer, call func(context.Context, *writer) error) error {
	for {
		callCtx, cancel := context.WithTimeout(ctx, callTime)
		err := call(callCtx, writers[rand.IntN(len(writers))])
		cancel()
		if err == nil || errors.Is(err, midas.ErrTokenNotFound) || ctx.Err() != nil {
			return err
		}
		pause(ctx, betweenCalls)
	}
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// A result is what became of a load.
type result struct {
	payments, calls, notOK int
	lost                   int // answered OK, and not granted
	twice                  int // granted more than once
	refused                int // ret 3
	unanswered             int
	balances               int // players whose balance is not the number of their items
}

func (r result) String() string {
	return fmt.Sprintf("%d payments, %d callbacks, %d of them not answered OK; lost %d, granted twice %d, refused (ret 3) %d, never answered %d, wrong balances %d",
		r.payments, r.calls, r.notOK, r.lost, r.twice, r.refused, r.unanswered, r.balances)
}

// stop lets the payments that are under way end, and compares what was answered with what was
// granted.
func (l *load) stop(t *testing.T) result {
	t.Helper()
	close(l.stopped)
	timer := time.AfterFunc(time.Minute, l.cancel)
	l.running.Wait()
	timer.Stop()
	l.cancel()
	return compare(t, l.writers, l.answered)
}

// compare compares answers with what was granted, and logs the result.
func compare(t *testing.T, writers []*writer, answered map[int]error) result {
	t.Helper()
	db := writers[0].db
	r := result{payments: len(answered)}
	for _, w := range writers {
		r.calls += int(w.calls.Load())
		r.notOK += int(w.notOK.Load())
	}
	granted := counts(t, db, `SELECT billno, COUNT(*) FROM items GROUP BY billno`)
	for i, err := range answered {
		n := granted[billNo(i)]
		switch {
		case n > 1:
			r.twice++
		case errors.Is(err, midas.ErrTokenNotFound):
			r.refused++
		case err != nil:
			r.unanswered++
		case n == 0:
			r.lost++
		}
	}
	items := counts(t, db, `SELECT openid, COUNT(*) FROM items GROUP BY openid`)
	for openID, amount := range counts(t, db, `SELECT openid, amount FROM balances`) {
		if amount != items[openID] {
			r.balances++
		}
	}
	t.Log(r)
	return r
}

// counts may meet connections of the pool to a node that was killed.
func counts(t *testing.T, db *sql.DB, query string) (all map[string]int) {
	t.Helper()
	eventually(t, "the result", func() (err error) {
		all, err = count(t.Context(), db, query)
		return err
	})
	return all
}

func count(ctx context.Context, db *sql.DB, query string) (map[string]int, error) {
	rows, err := db.QueryContext(ctx, query)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	all := make(map[string]int)
	for rows.Next() {
		var key string
		var n int
		if err := rows.Scan(&key, &n); err != nil {
			return nil, err
		}
		all[key] = n
	}
	return all, rows.Err()
}

// requireExactlyOnce fails unless each payment was granted once and answered OK.
func requireExactlyOnce(t *testing.T, r result) {
	t.Helper()
	require.NotZero(t, r.payments)
	require.Equal(t, result{payments: r.payments, calls: r.calls, notOK: r.notOK}, r)
}

// during runs the load while happen changes the database under it.
func during(t *testing.T, writers []*writer, happen func()) result {
	t.Helper()
	l := startLoad(t, writers)
	pause(t.Context(), time.Second)
	happen()
	pause(t.Context(), time.Second)
	return l.stop(t)
}

// requireSurvives fails unless each payment is granted exactly once while a failover happens as often as the flag
// says.
func requireSurvives(t *testing.T, writers []*writer, failover func()) {
	t.Helper()
	requireExactlyOnce(t, during(t, writers, func() {
		for range *failovers {
			failover()
			pause(t.Context(), between)
		}
	}))
}

func TestMain(m *testing.M) {
	mysql.SetLogger(&mysql.NopLogger{}) // connections break all the time here
	if config := os.Getenv(serverEnv); config != "" {
		if err := serve(config); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	flag.Parse()
	os.Exit(m.Run())
}
