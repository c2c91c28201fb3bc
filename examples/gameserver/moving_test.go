package main

import (
	"bytes"
	"context"
	"encoding/csv"
	"flag"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/examples/internal/servers"
	"github.com/midas-go/midas/midassql"
	"github.com/midas-go/midas/midastest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var callbacksFlag = flag.Int("callbacks", 200, "how many payments TestMoving moves over")

// An oldBackend is one in PHP, on several servers.
type oldBackend struct {
	php, folder, store string
	servers            []*servers.Process
}

func startOldBackend(t *testing.T, n int) *oldBackend {
	t.Helper()
	folder, err := filepath.Abs("testdata/old")
	require.NoError(t, err)
	b := &oldBackend{php: servers.Program(t, "php", "/usr/bin/"), folder: folder, store: t.TempDir()}
	for i := range n {
		b.servers = append(b.servers, servers.Start(t, fmt.Sprint("php", i), t.TempDir(), "http://%s", func(address string) []string {
			return []string{"env", "STORE=" + b.store, b.php, "-S", address, filepath.Join(folder, "notify.php")}
		}))
	}
	return b
}

// call sends a callback to one of the servers.
func (b *oldBackend) call(ctx context.Context, i int, rawQuery string) int {
	return servers.Call(ctx, servers.Apps, b.servers[i%len(b.servers)].URL+"/pay/notify", rawQuery)
}

// stop lets every server answer ret 1 and grant no more, and returns when what was running has ended: a server runs
// one script after the other.
func (b *oldBackend) stop(t *testing.T) {
	t.Helper()
	require.NoError(t, os.WriteFile(filepath.Join(b.store, "stopped"), nil, 0o600))
	for i := range b.servers {
		require.Equal(t, 1, b.call(t.Context(), i, ""))
	}
}

// run runs one of the backend's programs.
func (b *oldBackend) run(t *testing.T, program, input string) (output string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), b.php, filepath.Join(b.folder, program))
	cmd.Env, cmd.Stdin = append(os.Environ(), "STORE="+b.store), strings.NewReader(input)
	text, err := cmd.Output()
	require.NoError(t, err)
	return string(text)
}

// granted returns how often the backend granted each payment.
func (b *oldBackend) granted(t *testing.T) map[string]int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(b.store, "granted"))
	require.NoError(t, err)
	n := make(map[string]int)
	for line := range strings.Lines(string(text)) {
		n[strings.TrimSpace(line)]++
	}
	return n
}

// A move is from the old backend to the new one.
type move struct {
	*testing.T
	databaseURL string
	fake        *midastest.Server
	old         *oldBackend
	next        []*servers.Process
}

func newMove(t *testing.T, databaseURL string) *move {
	m := &move{T: t, databaseURL: databaseURL, fake: servers.Midas(t, "/pay/notify"), old: startOldBackend(t, 4)}
	for range 2 {
		m.next = append(m.next, startServer(t, m.fake, databaseURL, "-app-orders"))
	}
	return m
}

// A moved is a payment with its callback.
type moved struct{ openID, billNo, rawQuery string }

func (p moved) key() string { return p.openID + " " + p.billNo }

// pay returns the callback of a payment for an order that the old backend placed or, with a server, this one.
func (m *move) pay(i int, by *servers.Process) (p moved, err error) {
	p = moved{openID: fmt.Sprint("oPlayer", i%50), billNo: fmt.Sprint("-moving-", i)}
	var token string
	if by == nil {
		token = m.fake.AppOrder(midas.OrderRequest{Player: midas.Player{Login: midas.QQ, OpenID: p.openID},
			Items: []midas.Item{{ID: "gem60", Price: 60 * midas.QPoint, Quantity: 1}}})
	}
	for token == "" && m.Context().Err() == nil { // an app asks again
		token, _ = placeOrder(m.Context(), by, p.openID, "gem60", 1)
	}
	p.rawQuery, err = m.fake.Callback(token, midastest.BillNo(p.billNo))
	return p, err
}

// callNext calls the new backend until it answers OK.
func (m *move) callNext(i int, p moved) {
	new(servers.Caller).UntilOK(m.Context(), m.T, p.rawQuery, func(n int) string { return m.next[(i+n)%len(m.next)].URL + "/pay/notify" })
}

// exportOld returns the file of what the old backend granted.
func (m *move) exportOld() string { return writeFile(m.T, m.old.run(m.T, "export.php", "")) }

// importOld runs gameserver import on such a file.
func (m *move) importOld(file string, args ...string) (out string, err error) {
	return runOn(m.T, m.databaseURL, append([]string{"import", "-file", file, "-by", "wang", "-unit", "fen", "-app-id", servers.AppID,
		"-columns", "billno=billno,openid=openid,amount=amt,items=payitem,zone=zoneid,token=token,time=time"}, args...)...)
}

// reconcile compares the ledger with the bill, and returns what is on the bill only.
func (m *move) reconcile(bill []moved) (billOnly map[string]string, err error) {
	text := "billno,openid,yuan\n"
	for _, p := range bill {
		text += p.billNo + "," + p.openID + ",6.00\n"
	}
	out, err := runOn(m.T, m.databaseURL, "reconcile", "-bill", writeFile(m.T, text), "-columns", "billno=billno,openid=openid,amount=yuan",
		"-from", time.Now().AddDate(0, 0, -1).Format(time.DateOnly), "-to", time.Now().AddDate(0, 0, 2).Format(time.DateOnly))
	require.Contains(m, out, " 0 in the ledger only, 0 with another amount, 0 not delivered, 0 that cannot be read\n")
	billOnly = make(map[string]string)
	for _, found := range regexp.MustCompile(`(?m)^line \d+ +(\S+) +(\S+) +6\.00`).FindAllStringSubmatch(out, -1) {
		billOnly[found[1]] = found[2]
	}
	return billOnly, err
}

// grants returns how often each payment was granted, by both backends together.
func (m *move) grants() map[string]int {
	n := m.old.granted(m.T)
	for p, times := range granted(m.T, reader(m.T, m.databaseURL)) {
		n[p.openID+" "+p.billNo] += times
	}
	return n
}

// The move of docs/moving.md under load: callbacks come all the time, before, while and after every old server
// answers ret 1. Of those not answered OK most are called again; the others are settled.
func TestMoving(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, databaseURL string) {
		t.Parallel()
		start := time.Now()
		m := newMove(t, databaseURL)
		n := *callbacksFlag
		stopAt, resumeAt := n*2/5, n*3/5 // the callbacks between them come while nothing is granted
		var (
			begun    atomic.Int64
			stopping = make(chan struct{}) // closed when the callback stopAt has begun
			exported = make(chan struct{}) // what the old backend granted; the upper half of the gap waits for it
			switched = make(chan struct{})
			mu       sync.Mutex
			paid     []moved // what is on the bill
			forgone  []moved // not answered OK, and Midas does not call again
			later    []moved // it does
		)
		var load sync.WaitGroup
		for range 16 {
			load.Go(func() {
				for i := int(begun.Add(1)) - 1; i < n; i = int(begun.Add(1)) - 1 {
					if i == stopAt {
						close(stopping)
					}
					if i >= (stopAt+resumeAt)/2 {
						<-exported
					}
					var by *servers.Process
					if i >= resumeAt {
						<-switched
						if i%2 == 0 {
							by = m.next[i/2%2]
						}
					}
					p, err := m.pay(i, by)
					if !assert.NoError(t, err) {
						return
					}
					mu.Lock()
					paid = append(paid, p)
					mu.Unlock()
					ret := 0
					if i < resumeAt {
						ret = m.old.call(t.Context(), i, p.rawQuery)
					} else {
						m.callNext(i, p)
					}
					mu.Lock()
					switch {
					case ret == 1 && i%5 == 0: // without an answer it may have been granted
						forgone = append(forgone, p)
					case ret != 0 || i%7 == 0: // some come again that were answered OK
						later = append(later, p)
					}
					mu.Unlock()
				}
			})
		}

		<-stopping
		m.old.stop(t)
		file := m.exportOld()
		close(exported)
		out, err := m.importOld(file, "-dry-run")
		require.NoError(t, err, out)
		require.Empty(t, remembered(t, reader(t, databaseURL)))
		out, err = m.importOld(file)
		require.NoError(t, err, out)
		imported := len(m.old.granted(t))
		require.Equal(t, fmt.Sprintf("%d imported, 0 imported before, 0 here already, 0 lines that cannot be read\n%d.00 yuan were charged for the %[1]d payments of the file\n", imported, 6*imported), out)
		close(switched)
		load.Wait()
		concurrently(16, len(later), func(i int) {
			if i%3 == 0 { // a server that is not switched yet
				assert.Equal(t, 1, m.old.call(t.Context(), i, later[i].rawQuery))
			}
			m.callNext(i, later[i])
		})
		require.False(t, t.Failed())
		require.Len(t, m.old.granted(t), imported, "the old backend granted after its export")
		require.Greater(t, len(forgone), 3)

		// What Midas does not call again is on the bill, apart from a charge that was cancelled: half of it is in the
		// recording and replayed, the other half settled by hand.
		cancelled := forgone[0]
		bill := make([]moved, 0, n)
		for _, p := range paid {
			if p != cancelled {
				bill = append(bill, p)
			}
		}
		billOnly, err := m.reconcile(bill)
		require.ErrorIs(t, err, errDiffers)
		require.Len(t, billOnly, len(forgone)-1)
		for i, p := range forgone[1:] {
			require.Equal(t, p.openID, billOnly[p.billNo])
			if i%2 == 0 {
				m.callNext(i, p)
				continue
			}
			out, err := runOn(t, databaseURL, "regrant", "-openid", p.openID, "-billno", p.billNo, "-zone", "1", "-app-id", servers.AppID,
				"-items", "gem60*60*1", "-charged", "6.00", "-by", "wang", "-reason", "on the bill, not answered OK during the switch")
			require.NoError(t, err)
			require.Contains(t, out, "granted: ")
		}
		billOnly, err = m.reconcile(bill)
		require.NoError(t, err)
		require.Empty(t, billOnly)
		m.requireOnce(bill)

		// The way back is the same: stop, export, import, switch.
		for _, server := range m.next {
			server.End(server.Stop)
		}
		m.old.run(t, "import.php", ledgerCSV(t, databaseURL))
		require.NoError(t, os.Remove(filepath.Join(m.old.store, "stopped")))
		for i, p := range bill[:min(200, len(bill))] {
			require.Zero(t, m.old.call(t.Context(), i, p.rawQuery))
		}
		m.requireOnce(bill)
		t.Logf("%d payments: %d granted by the old backend and imported, %d called again, %d replayed or settled, 1 cancelled; each granted once; %v",
			n, imported, len(later), len(forgone)-1, time.Since(start).Round(time.Millisecond))
	})
}

// requireOnce fails unless what is on the bill was granted once each, and nothing else.
func (m *move) requireOnce(bill []moved) {
	m.Helper()
	grants, lost, twice := m.grants(), 0, 0
	for _, p := range bill {
		switch grants[p.key()] {
		case 0:
			lost++
		case 1:
		default:
			twice++
		}
		delete(grants, p.key())
	}
	require.Zero(m, lost+twice+len(grants), "of %d payments %d were lost, %d granted twice, and %d that are not on the bill granted", len(bill), lost, twice, len(grants))
}

// ledgerCSV is what an older backend needs to know of the ledger.
func ledgerCSV(t *testing.T, databaseURL string) string {
	t.Helper()
	var out bytes.Buffer
	file := csv.NewWriter(&out)
	for p, err := range newLedger(t, databaseURL).store.Payments(t.Context(), midassql.Query{From: time.Unix(0, 0), To: time.Now().Add(time.Hour)}) {
		require.NoError(t, err)
		require.NoError(t, file.Write([]string{p.BillNo, p.OpenID, strconv.Itoa(int(p.Charged)), midas.FormatItems(p.Items), p.ZoneID, p.Token,
			strconv.FormatInt(p.Stored.Unix(), 10)}))
	}
	file.Flush()
	return out.String()
}

// The counter-example: one server after the other, while an old one still grants. A callback that it granted and
// did not answer in time comes again, to a new one. No import helps; it says so afterwards.
func TestMovingOneByOneGrantsTwice(t *testing.T) {
	t.Parallel()
	m := newMove(t, newDatabase(t, sqlite))
	_, err := m.importOld(m.exportOld())
	require.NoError(t, err)
	var bill []moved
	for i := range 10 {
		p, err := m.pay(i, nil)
		require.NoError(t, err)
		require.Zero(t, m.old.call(t.Context(), 0, p.rawQuery)) // Midas has hung up meanwhile
		m.callNext(i, p)
		bill = append(bill, p)
	}
	grants := m.grants()
	for _, p := range bill {
		require.Equal(t, 2, grants[p.key()])
	}
	m.old.stop(t)
	out, err := m.importOld(m.exportOld())
	require.ErrorIs(t, err, errLook)
	require.Equal(t, 10, strings.Count(out, "yes: the player may have it twice"), out)
}

// Shadowing a day: the two backends agree on what Midas sent, and not on what somebody forged, which the old one
// grants.
func TestTheOldBackendInTheShadow(t *testing.T) {
	t.Parallel()
	m := &move{T: t, fake: servers.Midas(t, "/pay/notify"), old: startOldBackend(t, 1)}
	behind, err := url.Parse(m.old.servers[0].URL)
	require.NoError(t, err)
	var log bytes.Buffer
	config := m.fake.ClientConfig("/pay/notify")
	config.Logger = slog.New(slog.NewTextHandler(&log, nil))
	client, err := midas.New(config)
	require.NoError(t, err)
	front := httptest.NewServer(client.Shadow(httputil.NewSingleHostReverseProxy(behind)))
	defer front.Close()
	for i := range 20 {
		p, err := m.pay(i, nil)
		require.NoError(t, err)
		require.Zero(t, servers.Call(t.Context(), servers.Apps, front.URL+"/pay/notify", p.rawQuery))
	}
	require.NoError(t, client.Wait(t.Context()))
	require.Empty(t, log.String())

	forged := "openid=thief&billno=-forged&amt=600&payitem=gem300*300*1&zoneid=1&token=x&ts=1518081937&sig=x"
	require.Zero(t, servers.Call(t.Context(), servers.Apps, front.URL+"/pay/notify", forged))
	require.NoError(t, client.Wait(t.Context()))
	require.Equal(t, 1, strings.Count(log.String(), "the old handler answered OK, but the callback would be refused"), log.String())
	require.Equal(t, 1, m.old.granted(t)["thief -forged"])
}
