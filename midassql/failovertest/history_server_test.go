package failovertest

import (
	"bufio"
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midassql"
)

// A game server of the histories, as a process of its own that is killed and paused. It is told what to do by
// lines on its standard input, and answers by lines on its output.

const serverEnv = "MIDAS_TEST_HISTORY_SERVER"

const lease = 2 * time.Second

type serverConfig struct {
	Driver, DSN string
	Dialect     midassql.Dialect
	Ahead       time.Duration // the server's clock
	Replace     []string      // parts of statements, and what stands there instead: a fault in the ledger
	Replica     string        // DSN: SELECTs outside a transaction go there
	SplitAll    bool          // those in a transaction, too, unless they lock
}

// A request asks for a call, tells what the game did with a hand-out (Op is an outcome), or steps the database's
// clock.
type request struct {
	ID      int
	Op      string
	Payment int
	Call    call
	Step    time.Duration
}

// What a game does with a payment that it was handed.
const (
	saves, accepts, isAbsent, fails = "saves", "accepts", "is absent", "fails"
)

// A response answers a request; or it is a hand-out, whose ID is below 0.
type response struct {
	ID       int
	Payment  int
	Answer   answer
	Deadline int64 // of a hand-out, in Unix nanoseconds
}

type gameServer struct {
	config serverConfig
	db     *sql.DB
	store  *midassql.Store
	inbox  *midassql.Inbox
	step   atomic.Int64 // of the database's clock

	mu     sync.Mutex // of the output and what follows
	out    *json.Encoder
	handed map[int]chan string
	hands  int
}

// serve is the process.
func serve(config string) error {
	s := &gameServer{out: json.NewEncoder(os.Stdout), handed: make(map[int]chan string)}
	if err := json.Unmarshal([]byte(config), &s.config); err != nil {
		return err
	}
	named, err := sql.Open(s.config.Driver, s.config.DSN)
	if err != nil {
		return err
	}
	primary := &rewritten{named.Driver(), s.config.DSN, s.rewrite}
	var connector driver.Connector = primary
	if s.config.Replica != "" {
		connector = &splitting{primary, &rewritten{named.Driver(), s.config.Replica, s.rewrite}, s.config.SplitAll}
	}
	s.db = sql.OpenDB(connector)
	defer s.db.Close()
	s.store, err = midassql.New(s.db, s.config.Dialect, midassql.Options{Now: func() time.Time { return time.Now().Add(s.config.Ahead) }})
	if err != nil {
		return err
	}
	s.inbox, err = s.store.Inbox(midassql.InboxOptions{Lease: lease, Poll: 20 * time.Millisecond})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go s.inbox.Work(ctx, s.work)
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var r request
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return err
		}
		go s.handle(ctx, r)
	}
	return nil
}

// rewrite steps the database's clock and puts the fault in.
func (s *gameServer) rewrite(query string) string {
	if step := time.Duration(s.step.Load()); step > 0 {
		query = strings.NewReplacer("statement_timestamp()", fmt.Sprintf("(statement_timestamp() + interval '%d s')", step/time.Second),
			"UTC_TIMESTAMP(3)", fmt.Sprintf("TIMESTAMPADD(SECOND, %d, UTC_TIMESTAMP(3))", step/time.Second)).Replace(query)
	}
	return strings.NewReplacer(s.config.Replace...).Replace(query)
}

func (s *gameServer) say(r response) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.out.Encode(r)
}

// work asks what the game does with the payment.
func (s *gameServer) work(ctx context.Context, d *midas.Delivery) error {
	deadline, _ := ctx.Deadline()
	outcome := make(chan string, 1)
	s.mu.Lock()
	s.hands++
	id := -s.hands
	s.handed[id] = outcome
	s.mu.Unlock()
	s.say(response{ID: id, Payment: paymentOf(d.OpenID), Deadline: deadline.UnixNano()})
	select {
	case what := <-outcome:
		return map[string]error{accepts: midassql.ErrAccepted, isAbsent: midassql.NotNow(time.Second), fails: errors.New("no answer from the game")}[what]
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *gameServer) handle(ctx context.Context, r request) {
	switch r.Op {
	case saves, accepts, isAbsent, fails:
		s.mu.Lock()
		outcome := s.handed[r.ID]
		delete(s.handed, r.ID)
		s.mu.Unlock()
		if outcome != nil {
			outcome <- r.Op
		}
		return
	case "clock":
		s.step.Store(int64(r.Step))
		s.say(response{ID: r.ID})
		return
	}
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	a, err := s.call(ctx, r)
	if err != nil {
		a = answer{Unknown: true}
	}
	s.say(response{ID: r.ID, Answer: a})
}

func (s *gameServer) call(ctx context.Context, r request) (a answer, err error) {
	d := historyPayment(r.Payment)
	give := func(ctx context.Context, tx *sql.Tx, d *midas.Delivery) error {
		_, err := tx.ExecContext(ctx, placeholders(s.config.Dialect, `INSERT INTO items (openid, billno) VALUES (?, ?)`), d.OpenID, d.BillNo)
		return err
	}
	switch r.Op {
	case "order":
		req := midas.OrderRequest{Player: midas.Player{Login: midas.QQ, OpenID: d.OpenID}, Items: d.Items}
		err = s.store.SaveOrder(ctx, req, &midas.Order{Token: d.Token})
	case "callback":
		deliver := s.store.Once(give)
		if r.Call.Inbox {
			deliver = s.inbox.Deliver
		}
		err = deliver(ctx, d)
	case "settle":
		settlement := midassql.Settlement{Delivery: d, By: "wang"}
		if r.Call.Inbox {
			a.Granted, err = s.inbox.Settle(ctx, settlement)
		} else {
			a.Granted, err = s.store.Settle(ctx, settlement, give)
		}
	case "refund":
		var result midassql.RefundResult
		result, err = s.store.Refund(ctx, midassql.Refund{ID: fmt.Sprint(d.BillNo, "-", r.Call.Refund), AppID: d.AppID, OpenID: d.OpenID, BillNo: d.BillNo, Amount: price / 2},
			func(_ context.Context, _ *sql.Tx, _ *midassql.Payment, granted bool) error {
				a.Told = granted
				return nil
			})
		a.Repeat, a.Sum = result.Repeat, result.Refunded
	case "cancel":
		err = s.inbox.Cancel(ctx, d.OpenID, d.BillNo, "a ticket")
	case "done":
		err = s.inbox.Done(ctx, d.OpenID, d.BillNo)
	case "retry":
		_, err = s.inbox.Retry(ctx, midassql.RetryOptions{OpenID: d.OpenID, DoneFrom: time.Now().Add(-time.Hour)})
	case "page": // of the player's items
		err = s.db.QueryRowContext(ctx, placeholders(s.config.Dialect, `SELECT COUNT(*) FROM items WHERE openid = ?`), d.OpenID).Scan(&a.Rows)
	}
	return a, err
}

func historyPayment(i int) *midas.Delivery {
	return &midas.Delivery{AppID: "1450000000", OpenID: fmt.Sprint("player", i), BillNo: fmt.Sprint("-", i), Token: fmt.Sprint("token", i), ZoneID: "1",
		Items: []midas.Item{{ID: "gem60", Price: price, Quantity: 1}}, Charged: price, Time: time.Unix(1518081937, 0)}
}

func paymentOf(openID string) (i int) {
	fmt.Sscanf(openID, "player%d", &i)
	return i
}

// A rewritten driver gives the database other statements than it gets.
type rewritten struct {
	driver  driver.Driver
	dsn     string
	rewrite func(string) string
}

func (r *rewritten) Driver() driver.Driver { return r.driver }

func (r *rewritten) Connect(context.Context) (driver.Conn, error) {
	conn, err := r.driver.Open(r.dsn)
	return &rewrittenConn{conn, r.rewrite}, err
}

type rewrittenConn struct {
	driver.Conn
	rewrite func(string) string
}

func (c *rewrittenConn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	return c.Conn.(driver.ConnBeginTx).BeginTx(ctx, opts)
}

func (c *rewrittenConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	return c.Conn.(driver.ExecerContext).ExecContext(ctx, c.rewrite(query), args)
}

func (c *rewrittenConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	return c.Conn.(driver.QueryerContext).QueryContext(ctx, c.rewrite(query), args)
}

func (c *rewrittenConn) Prepare(query string) (driver.Stmt, error) {
	return c.Conn.Prepare(c.rewrite(query))
}

func (c *rewrittenConn) CheckNamedValue(value *driver.NamedValue) error {
	return c.Conn.(driver.NamedValueChecker).CheckNamedValue(value)
}

func (c *rewrittenConn) ResetSession(ctx context.Context) error {
	return c.Conn.(driver.SessionResetter).ResetSession(ctx)
}

func (c *rewrittenConn) IsValid() bool {
	valid, ok := c.Conn.(driver.Validator)
	return !ok || valid.IsValid()
}

// A splitting driver is a proxy that sends reads to a replica.
type splitting struct {
	*rewritten
	replica *rewritten
	all     bool // what a transaction reads before it writes goes there, too
}

func (s *splitting) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := s.rewritten.Connect(ctx)
	return &splittingConn{rewrittenConn: conn.(*rewrittenConn), proxy: s}, err
}

type splittingConn struct {
	*rewrittenConn
	proxy   *splitting
	inTx    bool
	wrote   bool           // in the transaction
	replica *rewrittenConn // once something was read there
}

func (c *splittingConn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	tx, err := c.rewrittenConn.BeginTx(ctx, opts)
	c.inTx, c.wrote = err == nil, false
	return &splittingTx{tx, c}, err
}

type splittingTx struct {
	driver.Tx
	c *splittingConn
}

func (tx *splittingTx) Commit() error {
	tx.c.inTx = false
	return tx.Tx.Commit()
}

func (tx *splittingTx) Rollback() error {
	tx.c.inTx = false
	return tx.Tx.Rollback()
}

// at returns the connection that a statement goes to.
func (c *splittingConn) at(ctx context.Context, query string) (*rewrittenConn, error) {
	reads := strings.HasPrefix(query, "SELECT") && !strings.Contains(query, "FOR UPDATE")
	c.wrote = c.wrote || !reads
	if !reads || c.inTx && (c.wrote || !c.proxy.all) {
		return c.rewrittenConn, nil
	}
	if c.replica == nil {
		conn, err := c.proxy.replica.Connect(ctx)
		if err != nil {
			return nil, err
		}
		c.replica = conn.(*rewrittenConn)
	}
	return c.replica, nil
}

func (c *splittingConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	c.wrote = true
	return c.rewrittenConn.ExecContext(ctx, query, args)
}

func (c *splittingConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	conn, err := c.at(ctx, query)
	if err != nil {
		return nil, err
	}
	return conn.QueryContext(ctx, query, args)
}

func (c *splittingConn) Prepare(query string) (driver.Stmt, error) {
	conn, err := c.at(context.Background(), query)
	if err != nil {
		return nil, err
	}
	return conn.Prepare(query)
}

func (c *splittingConn) IsValid() bool {
	return c.rewrittenConn.IsValid() && (c.replica == nil || c.replica.IsValid())
}

func (c *splittingConn) Close() error {
	if c.replica != nil {
		c.replica.Close()
	}
	return c.rewrittenConn.Close()
}
