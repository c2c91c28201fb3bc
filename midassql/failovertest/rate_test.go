package failovertest

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midassql"
	"github.com/midas-go/midas/midastest"
	"github.com/stretchr/testify/require"
)

var (
	rate     = flag.Int("rate", 50, "payments a second while a primary fails over")
	rateTime = flag.Duration("rate-time", 2*time.Second, "how long they come before that, and after it")
)

// A callback is one that was answered.
type callback struct {
	called time.Time
	took   time.Duration
	ok     bool
}

// A rush is payments that come at a rate, whether the ones before are answered or not, each of a player of its own.
// Their orders were saved some seconds before, as players take that long to pay.
type rush struct {
	fake     *midastest.Server
	writers  []*writer
	handlers []http.Handler // of the writers
	ordered  chan paid

	mu        sync.Mutex
	callbacks []callback
	results   map[int]error // by payment: nil is OK
}

// paid is a payment that Midas calls back by a query.
type paid struct {
	number int
	query  string
	err    error // there is no order
}

const notify = "/pay/notify"

// newRush has callbacks answered by the handlers of a game whose grant inserts a row.
func newRush(t *testing.T, writers []*writer) *rush {
	t.Helper()
	r := &rush{fake: midastest.New(midastest.Config{}), writers: writers, ordered: make(chan paid, 1<<20), results: make(map[int]error)}
	for _, w := range writers {
		config := r.fake.ClientConfig(notify)
		config.Logger = slog.New(slog.DiscardHandler)
		client, err := midas.New(config)
		require.NoError(t, err)
		r.handlers = append(r.handlers, client.DeliveryHandler(w.store.Once(func(ctx context.Context, tx *sql.Tx, d *midas.Delivery) error {
			_, err := tx.ExecContext(ctx, `INSERT INTO items (openid, billno) VALUES (?, ?)`, d.OpenID, d.BillNo)
			return err
		})))
	}
	return r
}

// order saves the order of a payment. One that was not saved is not handed out: the next one has another token.
func (r *rush) order(ctx context.Context, i int) {
	req := order(i)
	req.Player.OpenID = fmt.Sprintf("oRush%023d", i) // as long as a real one
	var token string
	err := untilDone(ctx, r.writers, func(ctx context.Context, w *writer) error {
		token = r.fake.AppOrder(req)
		return w.store.SaveOrder(ctx, req, &midas.Order{Token: token})
	})
	query, failed := r.fake.Callback(token, midastest.BillNo(billNo(i)), midastest.SignedPath(notify))
	r.ordered <- paid{i, query, errors.Join(err, failed)}
}

// callBack calls a payment back until it is answered OK.
func (r *rush) callBack(ctx context.Context, p paid) error {
	if p.err != nil {
		return p.err
	}
	for {
		request := httptest.NewRequestWithContext(ctx, http.MethodGet, notify+"?"+p.query, nil)
		response, c := httptest.NewRecorder(), callback{called: time.Now()}
		n := p.number % len(r.handlers)
		r.handlers[n].ServeHTTP(response, request)
		c.took, c.ok = time.Since(c.called), response.Body.String() == `{"ret":0,"msg":"OK"}`
		r.writers[n].calls.Add(1)
		r.mu.Lock()
		r.callbacks = append(r.callbacks, c)
		r.mu.Unlock()
		if c.ok {
			return nil
		}
		r.writers[n].notOK.Add(1)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		pause(ctx, time.Second)
	}
}

// during lets payments come while happen happens.
func (r *rush) during(t *testing.T, happen func()) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	var paying, first sync.WaitGroup
	ahead := 10 * *rate
	for n := range callers {
		first.Go(func() {
			for i := n; i < ahead; i += callers {
				r.order(ctx, i)
			}
		})
	}
	first.Wait()
	stop := make(chan struct{})
	paying.Go(func() {
		ticks := time.NewTicker(time.Second / time.Duration(*rate))
		defer ticks.Stop()
		for i := ahead; ; i++ {
			select {
			case <-stop:
				return
			case <-ticks.C:
			}
			paying.Go(func() { r.order(ctx, i) })
			paying.Go(func() {
				p := <-r.ordered
				err := r.callBack(ctx, p)
				r.mu.Lock()
				defer r.mu.Unlock()
				r.results[p.number] = err
			})
		}
	})
	happen()
	close(stop)
	paying.Wait()
}

// say logs how the callbacks were answered that came in a time.
func (r *rush) say(t *testing.T, what string, from, to time.Time) {
	t.Helper()
	var took []time.Duration
	notOK := 0
	for _, c := range r.callbacks {
		switch {
		case c.called.Before(from) || c.called.After(to):
		case c.ok:
			took = append(took, c.took)
		default:
			notOK++
		}
	}
	require.NotEmpty(t, took)
	slices.Sort(took)
	t.Logf("%s, in %v: %d callbacks answered OK, after %v at the median, %v at the 99th percentile; %d ret 1", what, to.Sub(from).Round(time.Second/10), len(took),
		took[len(took)/2].Round(time.Millisecond/10), took[len(took)*99/100].Round(time.Millisecond/10), notOK)
}

// Payments come as fast while the primary fails over as before and after it. How long they took is logged, and no
// more: docs/capacity.md has what was measured.
func TestMySQLFailsOverInARush(t *testing.T) {
	m := startSemiSync(t, newMySQLNodes(t), practicallyForever)
	var writers []*writer
	for range 2 {
		db := openMySQL(t, mysqlDSN(m.front.address, "game", "&interpolateParams=true"))
		db.SetMaxOpenConns(20)
		db.SetMaxIdleConns(20)
		writers = append(writers, newWriter(t, db, midassql.MySQL, false))
	}
	createTables(t, writers[0], midassql.MySQL)
	r := newRush(t, writers)
	var began, failing, failed, ended time.Time
	r.during(t, func() {
		began = time.Now()
		pause(t.Context(), *rateTime)
		failing = time.Now()
		m.failover(t)
		pause(t.Context(), 2*time.Second) // so that what had to wait is answered
		failed = time.Now()
		pause(t.Context(), *rateTime)
		ended = time.Now()
	})
	t.Logf("%.0f payments a second", float64(len(r.results))/ended.Sub(began).Seconds())
	r.say(t, "before", began, failing)
	r.say(t, "meanwhile", failing, failed)
	r.say(t, "after", failed, ended)
	longest := slices.MaxFunc(r.callbacks, func(a, b callback) int { return int(a.took - b.took) })
	t.Logf("the slowest answer took %v", longest.took.Round(time.Millisecond))
	requireExactlyOnce(t, compare(t, writers, r.results))
}
