package dbtest

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midassql"
	"github.com/midas-go/midas/midassql/dbtest/testdb"
	"github.com/midas-go/midas/minigame"
	"github.com/midas-go/midas/minigame/minigamesql"
	"github.com/midas-go/midas/minigame/minigametest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var (
	paymentsFlag = flag.Int("payments", 300, "how many payments TestMiniGameServersCrash makes at least")
	killsFlag    = flag.Int("kills", 10, "how often TestMiniGameServersCrash kills a server")
)

// Two servers take the pushes of a mini game and are killed at random moments. What was not
// acknowledged comes again on WeChat's schedule, on a clock that jumps to the next push.
func TestMiniGameServersCrash(t *testing.T) {
	testdb.OnEach(t, func(t *testing.T, db *testdb.Database) {
		require.NoError(t, crashMiniGame(t, db, "", *paymentsFlag, *killsFlag))
	})
}

// Servers that are wrong in the usual ways fail the same check.
func TestTheMiniGameProofSeesWhatIsLostOrDoubled(t *testing.T) {
	for fault, want := range map[string]string{writeBehind: "lost", grantOutside: "doubled"} {
		t.Run(fault, func(t *testing.T) {
			// A kill does not always hit the moment that matters.
			tried, seen := make(map[string]bool), make(map[string]int)
			for round := 0; round == 0 || round < 10 && len(seen) < len(tried); round++ {
				testdb.On(t, func(t *testing.T, db *testdb.Database) {
					tried[db.Name] = true
					if seen[db.Name] > 0 {
						return
					}
					var wrong *ledgerError
					if err := crashMiniGame(t, db, fault, 300, 10); err != nil {
						require.ErrorAs(t, err, &wrong)
						if n := map[string]int{"lost": wrong.lost, "doubled": wrong.doubled}[want]; n > 0 {
							seen[db.Name] = n
						}
					}
				}, midassql.PostgreSQL, midassql.MySQL)
			}
			for name := range tried {
				require.NotZero(t, seen[name], "%s: none was %s", name, want)
			}
		})
	}
}

// The faults of a shopServer.
const (
	writeBehind  = "acknowledges before the commit"
	grantOutside = "grants outside the transaction"
)

// shopEnv makes TestMain a shopServer; it holds a shopServer in JSON.
const shopEnv = "MIDAS_TEST_SHOP"

// A shopServer is a mini game's server in a process of its own.
type shopServer struct {
	Driver, DSN, Prefix string
	Dialect             midassql.Dialect
	Fault               string
}

// wechatConfig is what both WeChat and the servers are configured with.
var wechatConfig = minigametest.Config{
	AppID: "wx00000000000000c0", OfferID: "1450000000", AppKey: "test-app-key", SandboxAppKey: "test-sandbox-key", Secret: "test-secret",
	Token: "testtoken", EncodingAESKey: strings.Repeat("A", 42) + "E",
}

// run prints the address it listens on and serves pushes until it is killed, or its parent
// ends.
func (s shopServer) run() error {
	pool, err := sql.Open(s.Driver, s.DSN)
	if err != nil {
		return err
	}
	defer pool.Close()
	db := &testdb.Database{DB: pool, Kind: testdb.Kind{Dialect: s.Dialect}, Prefix: s.Prefix}
	store, err := midassql.New(pool, s.Dialect, midassql.Options{TablePrefix: s.Prefix})
	if err != nil {
		return err
	}
	grant := db.Grant
	if s.Fault == grantOutside {
		grant = func(ctx context.Context, _ *sql.Tx, d *midas.Delivery) error {
			for _, item := range d.Items {
				_, err := pool.ExecContext(ctx, db.SQL("INSERT INTO items (openid, billno, item, quantity) VALUES (?, ?, ?, ?)"), d.OpenID, d.BillNo, item.ID, item.Quantity)
				if err != nil {
					return err
				}
			}
			time.Sleep(20 * time.Millisecond) // some other work of the game
			return nil
		}
	}
	ledger := minigamesql.New(store, minigamesql.Options{
		AppID: wechatConfig.AppID, Deliver: store.Once(grant),
		Refund: func(ctx context.Context, tx *sql.Tx, r *minigame.RefundPush, _ *midassql.Payment, granted bool) error {
			_, err := tx.ExecContext(ctx, db.SQL("INSERT INTO told (outtradeno, refundid, granted) VALUES (?, ?, ?)"), r.OutTradeNo, r.RefundID, fmt.Sprint(granted))
			return err
		},
	})
	deliver := ledger.Deliver
	if s.Fault == writeBehind {
		deliver = func(_ context.Context, d *minigame.Delivery) error {
			time.AfterFunc(50*time.Millisecond, func() { ledger.Deliver(context.Background(), d) })
			return nil
		}
	}
	client, err := minigame.NewGame(minigame.GameConfig{
		AppID: wechatConfig.AppID, OfferID: wechatConfig.OfferID, AppKey: minigame.Secret(wechatConfig.AppKey), Secret: minigame.Secret(wechatConfig.Secret),
		PushKeys: []minigame.PushKey{{Token: minigame.Secret(wechatConfig.Token), EncodingAESKey: minigame.Secret(wechatConfig.EncodingAESKey)}},
	})
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go func() {
		io.Copy(io.Discard, os.Stdin)
		listener.Close()
	}()
	fmt.Println(listener.Addr())
	err = http.Serve(listener, client.PushHandler(minigame.GameHandlers{Deliver: deliver, Refund: ledger.Refund}))
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// A shopProcess is a running shopServer.
type shopProcess struct {
	config shopServer
	url    atomic.Pointer[string]
	cmd    *exec.Cmd
	stdin  io.Closer
}

// start returns once the server listens, each time on a port of its own.
func (p *shopProcess) start() error {
	config, err := json.Marshal(p.config)
	if err != nil {
		return err
	}
	p.cmd = exec.Command(os.Args[0])
	p.cmd.Env = append(os.Environ(), shopEnv+"="+string(config))
	p.cmd.Stderr = os.Stderr
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := p.cmd.Start(); err != nil {
		return err
	}
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		p.kill()
		return fmt.Errorf("the server does not start: %w", err)
	}
	url := "http://" + strings.TrimSpace(address)
	p.url.Store(&url)
	return nil
}

// kill ends the server as a power cut would.
func (p *shopProcess) kill() {
	p.cmd.Process.Kill()
	p.cmd.Wait()
	p.stdin.Close()
}

// A road carries WeChat's pushes to the servers, and sees what is acknowledged: what the
// ledger is measured by. It is safe for concurrent use.
type road struct {
	servers []*shopProcess

	mu           sync.Mutex
	tries        map[string]int    // of each push: it goes to one server and the other in turn
	acknowledged map[string]bool   // outTradeNo of deliveries, RefundId of refunds
	refundIDs    map[string]string // by outTradeNo
	held         map[string]*hold  // by outTradeNo
	unanswered   int
}

// A hold keeps a delivery on the road until it is released.
type hold struct{ arrived, release chan struct{} }

// hold holds the delivery of an order.
func (r *road) hold(outTradeNo string) *hold {
	h := &hold{arrived: make(chan struct{}, 1), release: make(chan struct{})}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held[outTradeNo] = h
	return h
}

func (r *road) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	outTradeNo, refundID, err := readPush(body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	name := outTradeNo
	r.mu.Lock()
	if refundID != "" {
		name = refundID
		r.refundIDs[outTradeNo] = refundID
	}
	server := r.servers[r.tries[name]%len(r.servers)]
	r.tries[name]++
	held := r.held[name]
	r.mu.Unlock()
	if held != nil {
		select {
		case held.arrived <- struct{}{}:
		default:
		}
		select {
		case <-held.release:
		case <-req.Context().Done():
			w.WriteHeader(http.StatusGatewayTimeout)
			return
		}
	}
	answer, err := post(req.Context(), *server.url.Load()+"?"+req.URL.RawQuery, body)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.unanswered++
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	if string(answer) == `{"ErrCode":0,"ErrMsg":"Success"}` {
		r.acknowledged[name] = true
	}
	w.Write(answer)
}

func post(ctx context.Context, url string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(resp.Body)
}

func readPush(body []byte) (outTradeNo, refundID string, err error) {
	var outer struct{ Encrypt string }
	if err := json.Unmarshal(body, &outer); err != nil {
		return "", "", err
	}
	message, err := minigame.DecryptPush(wechatConfig.EncodingAESKey, wechatConfig.AppID, outer.Encrypt)
	if err != nil {
		return "", "", err
	}
	var push struct{ MiniGame struct{ Payload string } }
	if err := json.Unmarshal(message, &push); err != nil {
		return "", "", err
	}
	var payload struct{ OutTradeNo, RefundId string }
	err = json.Unmarshal([]byte(push.MiniGame.Payload), &payload)
	return payload.OutTradeNo, payload.RefundId, err
}

// A refundTime says when a payment was refunded, as far as WeChat can know.
type refundTime int

const (
	never     refundTime = iota
	early                // acknowledged before the delivery reached a server
	late                 // sent after the delivery was acknowledged
	meanwhile            // anything else: a server was killed in between
)

// crashMiniGame lets players pay until there are enough payments and kills, then lets WeChat
// push what is left, and compares the database with what WeChat knows.
func crashMiniGame(t *testing.T, db *testdb.Database, fault string, payments, kills int) error {
	t.Helper()
	start := time.Now()
	limit, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	store := db.Store(t, midassql.Options{})
	db.Create(t, "told", "outtradeno, refundid, granted", "")

	r := &road{tries: map[string]int{}, acknowledged: map[string]bool{}, refundIDs: map[string]string{}, held: map[string]*hold{}}
	for range 2 {
		p := &shopProcess{config: shopServer{Driver: testdb.DriverName(db.Dialect), DSN: db.DSN, Prefix: db.Prefix, Dialect: db.Dialect, Fault: fault}}
		require.NoError(t, p.start())
		t.Cleanup(p.kill)
		r.servers = append(r.servers, p)
	}
	var clock atomic.Int64
	clock.Store(time.Now().Unix())
	cfg := wechatConfig
	cfg.Errorf = t.Errorf
	cfg.Now = func() time.Time { return time.Unix(clock.Load(), 0) }
	wechat := minigametest.NewServer(cfg)
	defer wechat.Close()
	wechat.PushToHandler(r, "/push")
	wechat.Publish("sword", 600)
	client, err := minigame.NewGame(wechat.GameConfig())
	require.NoError(t, err)
	ledger := minigamesql.New(store, minigamesql.Options{AppID: cfg.AppID, Deliver: store.Once(db.Grant)}) // only orders come here

	var mu sync.Mutex
	sold := make(map[string]refundTime) // by outTradeNo
	var made, killsDone atomic.Int64
	enoughKilled := func() bool { // and a push was running at one of them
		r.mu.Lock()
		defer r.mu.Unlock()
		return killsDone.Load() >= int64(kills) && r.unanswered > 0
	}
	pay := func(openID string, req minigame.OrderRequest, n int) error {
		order, err := client.NewOrder(req)
		if err != nil {
			return err
		}
		if err := ledger.SaveOrder(limit, openID, req, order); err != nil {
			return nil // no order, no payment: the app asks again
		}
		refunded := never
		defer func() {
			mu.Lock()
			defer mu.Unlock()
			sold[order.OutTradeNo] = refunded
			made.Add(1)
		}()
		switch n % 10 {
		case 3: // the refund overtakes the delivery
			refunded = meanwhile
			held := r.hold(order.OutTradeNo)
			paid := make(chan error, 1)
			go func() {
				_, err := wechat.Pay(limit, openID, order)
				paid <- err
			}()
			select {
			case <-held.arrived:
			case err := <-paid:
				return errors.Join(errors.New("no delivery was pushed"), err)
			}
			receipt, err := wechat.Refund(limit, minigame.Live, order.OutTradeNo)
			if err == nil && receipt.Accepted {
				refunded = early
			}
			close(held.release)
			return errors.Join(err, <-paid)
		case 6: // the refund comes after the delivery
			refunded = meanwhile
			receipt, err := wechat.Pay(limit, openID, order)
			if err != nil {
				return err
			}
			if receipt.Accepted {
				refunded = late
			}
			_, err = wechat.Refund(limit, minigame.Live, order.OutTradeNo)
			return err
		case 1, 4, 8: // WeChat pushes more often than it must
			_, err := wechat.Pay(limit, openID, order)
			again := make(chan error, 1)
			go func() {
				_, err := wechat.Repeat(limit, minigame.Live, order.OutTradeNo)
				again <- err
			}()
			_, err2 := wechat.Repeat(limit, minigame.Live, order.OutTradeNo)
			return errors.Join(err, err2, <-again)
		default:
			_, err := wechat.Pay(limit, openID, order)
			return err
		}
	}

	var players, rest sync.WaitGroup
	for player := range 12 {
		openID := fmt.Sprint("oPlayer", player)
		session, err := client.Code2Session(limit, wechat.Login(openID))
		require.NoError(t, err)
		req := minigame.OrderRequest{SessionKey: session.SessionKey, ProductID: "sword", Quantity: 1, Price: 600}
		players.Go(func() {
			for n := player; limit.Err() == nil && (made.Load() < int64(payments) || !enoughKilled()); n++ {
				if !assert.NoError(t, pay(openID, req, n)) {
					return
				}
			}
		})
	}
	over := make(chan struct{})
	rest.Go(func() { // WeChat's retries
		for limit.Err() == nil {
			due, waiting := wechat.NextPush()
			if !waiting {
				select {
				case <-over:
					return
				case <-time.After(2 * time.Millisecond):
				}
				continue
			}
			if due.Unix() > clock.Load() {
				clock.Store(due.Unix())
			}
			if _, err := wechat.PushDue(limit); !assert.NoError(t, err) {
				return
			}
		}
	})
	for !enoughKilled() && limit.Err() == nil {
		time.Sleep(time.Duration(50+rand.IntN(150)) * time.Millisecond)
		victim := r.servers[rand.IntN(2)]
		victim.kill()
		if !assert.NoError(t, victim.start()) {
			break
		}
		killsDone.Add(1)
	}
	players.Wait()
	close(over)
	rest.Wait()
	require.NoError(t, limit.Err())
	require.False(t, t.Failed())
	require.True(t, enoughKilled())
	if fault == writeBehind {
		time.Sleep(time.Second) // its last writes are no loss
	}

	w := compare(sold, r, readPairs(t, db, "SELECT billno, item FROM items"), readPairs(t, db, "SELECT outtradeno, refundid FROM told"),
		readPairs(t, db, "SELECT outtradeno, granted FROM told"))
	counts := map[refundTime]int{}
	for _, refunded := range sold {
		counts[refunded]++
	}
	pushes := 0
	for _, n := range r.tries {
		pushes += n
	}
	t.Logf("%d kills, %d payments, %d pushes of which %d were not answered; refunded: %d before their delivery, %d after, %d while a server was killed; WeChat's clock went %v ahead; %v",
		killsDone.Load(), len(sold), pushes, r.unanswered, counts[early], counts[late], counts[meanwhile],
		time.Unix(clock.Load(), 0).Sub(start).Round(time.Second), time.Since(start).Round(time.Millisecond))
	if *w == (ledgerError{}) {
		require.NotZero(t, counts[early])
		require.NotZero(t, counts[late])
	}
	if *w != (ledgerError{}) {
		t.Log(w)
		return w
	}
	return nil
}

// A ledgerError counts what is wrong in the database.
type ledgerError struct {
	lost, doubled, unpaid int // payments
	unacknowledged        int // deliveries and refunds
	refundedAndGranted    int // payments that were refunded before their delivery
	untold, toldWrong     int // refunds
}

func (w *ledgerError) Error() string {
	return fmt.Sprintf("%d payments lost, %d doubled, %d granted that nobody paid; %d pushes never acknowledged; %d granted in spite of an early refund; %d refunds not handed over, %d wrongly",
		w.lost, w.doubled, w.unpaid, w.unacknowledged, w.refundedAndGranted, w.untold, w.toldWrong)
}

// compare compares the database with what was sold. The maps hold rows by outTradeNo, grants
// by BillNo.
func compare(sold map[string]refundTime, r *road, grants, toldIDs, toldGranted map[string][]string) *ledgerError {
	w := &ledgerError{unpaid: len(grants)}
	for outTradeNo, refunded := range sold {
		granted := len(grants[wechatConfig.AppID+"/0/"+outTradeNo])
		if granted > 0 {
			w.unpaid--
		}
		if granted > 1 {
			w.doubled++
		}
		if !r.acknowledged[outTradeNo] {
			w.unacknowledged++
		}
		if refunded == never || refunded == late {
			if granted == 0 {
				w.lost++
			}
		}
		if refunded == early && granted > 0 {
			w.refundedAndGranted++
		}
		if refunded == never {
			if len(toldIDs[outTradeNo]) > 0 {
				w.toldWrong++
			}
			continue
		}
		if !r.acknowledged[r.refundIDs[outTradeNo]] {
			w.unacknowledged++
		}
		if len(toldIDs[outTradeNo]) == 0 {
			w.untold++
			continue
		}
		for i, id := range toldIDs[outTradeNo] {
			if id != r.refundIDs[outTradeNo] || toldGranted[outTradeNo][i] != fmt.Sprint(granted > 0) {
				w.toldWrong++
			}
		}
	}
	return w
}

// readPairs returns the second column of a query by the first.
func readPairs(t *testing.T, db *testdb.Database, query string) map[string][]string {
	t.Helper()
	rows, err := db.Query(db.SQL(query))
	require.NoError(t, err)
	defer rows.Close()
	pairs := make(map[string][]string)
	for rows.Next() {
		var first, second string
		require.NoError(t, rows.Scan(&first, &second))
		pairs[first] = append(pairs[first], second)
	}
	require.NoError(t, rows.Err())
	return pairs
}
