package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/examples/internal/servers"
	"github.com/midas-go/midas/midassql"
	"github.com/stretchr/testify/require"
	"golang.org/x/text/encoding/simplifiedchinese"
)

// newLedger returns a shop on a database.
func newLedger(t *testing.T, databaseURL string) *shop {
	db := reader(t, databaseURL)
	store, err := midassql.New(db.DB, db.dialect, midassql.Options{Classify: db.classify})
	require.NoError(t, err)
	s := &shop{store: store, db: db, log: slog.New(slog.DiscardHandler)}
	require.NoError(t, s.migrate(t.Context()))
	return s
}

// order stores an order for 60 gems, and pay delivers it.
func (s *shop) storeOrder(t *testing.T, openID, token string) {
	require.NoError(t, s.store.SaveOrder(t.Context(), midas.OrderRequest{Player: midas.Player{OpenID: openID}, Metadata: "no-" + token,
		Items: []midas.Item{{ID: "gem60", Price: 60 * midas.QPoint, Quantity: 1}}}, &midas.Order{Token: token}))
}

func delivery(openID, billNo, token string, charged midas.Amount) *midas.Delivery {
	return &midas.Delivery{OpenID: openID, BillNo: billNo, Token: token, ZoneID: "1", Charged: charged, Metadata: "no-" + token, Time: time.Now(),
		Items: []midas.Item{{ID: "gem60", Price: 60 * midas.QPoint, Quantity: 1}}}
}

func runOn(t *testing.T, databaseURL string, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	err := run(t.Context(), args, environment("MIDAS_DATABASE_URL", databaseURL), &out, io.Discard)
	return out.String(), err
}

// A player has paid and has nothing: found, granted from the bill, and never twice, also when
// Midas calls after all.
func TestSupport(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, databaseURL string) {
		t.Parallel()
		s := newLedger(t, databaseURL)
		deliver := s.store.Once(s.grant)
		s.storeOrder(t, "anna", "t1")
		s.storeOrder(t, "anna", "t2")
		require.NoError(t, deliver(t.Context(), delivery("anna", "-1", "t1", 540)))

		for _, by := range [][]string{{"-openid", "anna"}, {"-billno", "-1"}, {"-token", "t1"}, {"-metadata", "no-t1"}} {
			out, err := runOn(t, databaseURL, append([]string{"payments"}, by...)...)
			require.NoError(t, err)
			require.Regexp(t, `-1 +anna +1 +gem60\*60\*1 +5\.40 +done +0 +t1 +no-t1`, out)
			require.Contains(t, out, "1 payments\n")
			require.Equal(t, by[0] == "-openid", strings.Contains(out, "no-t2"), "the order without a payment")
		}
		out, err := runOn(t, databaseURL, "payments", "-from", time.Now().AddDate(0, 0, -1).Format(time.DateOnly), "-to", time.Now().AddDate(0, 0, 1).Format(time.DateOnly))
		require.NoError(t, err)
		require.Regexp(t, `(?s)-1 +anna.*1 payments\n.*t2 +no-t2\n\n1 orders without a payment`, out)
		out, err = runOn(t, databaseURL, "payments", "-openid", "nobody")
		require.NoError(t, err)
		require.Contains(t, out, "0 payments\n0 orders without a payment\n")

		regrant := []string{"regrant", "-openid", "anna", "-billno", "-2", "-items", "gem60*60*1", "-charged", "6.00", "-zone", "1", "-by", "lee", "-reason", "ticket 4711"}
		for i, want := range []string{"granted", "nothing changed", "nothing changed"} {
			out, err := runOn(t, databaseURL, regrant...)
			require.NoError(t, err)
			require.Contains(t, out, want, i)
		}
		require.NoError(t, deliver(t.Context(), delivery("anna", "-2", "t2", 600)), "the late callback")
		out, err = runOn(t, databaseURL, "payments", "-billno", "-2")
		require.NoError(t, err)
		require.Regexp(t, `6\.00 +done +\d +t2 .*lee +ticket 4711`, out)
		require.Regexp(t, `(?s)BY HAND.*-2 +anna +settle +lee +ticket 4711`, out)
		require.Equal(t, map[payment]int{{"anna", "-1", "gem60", 1}: 1, {"anna", "-2", "gem60", 1}: 1}, granted(t, s.db))

		s.store.OnCallback(midas.CallbackEvent{Outcome: midas.TimedOut, Ret: 1, OpenID: "anna", BillNo: "-3", Token: "t2", Err: context.DeadlineExceeded})
		require.NoError(t, s.store.Wait(t.Context()))
		for _, by := range [][]string{{"-openid", "anna"}, {"-billno", "-3"}, {"-token", "t2"}} {
			out, err := runOn(t, databaseURL, append([]string{"payments"}, by...)...)
			require.NoError(t, err)
			require.Regexp(t, `(?s)NOT ANSWERED OK.*-3 +anna +t2 +timed_out +1 +context deadline exceeded`, out)
		}
	})
}

// A refund by hand is noted once, and takes the items back once, when all of the money went back.
func TestARefundByHand(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, databaseURL string) {
		t.Parallel()
		s := newLedger(t, databaseURL)
		s.storeOrder(t, "anna", "t1")
		s.storeOrder(t, "anna", "t2")
		d := delivery("anna", "-1", "t1", 600)
		d.AppID, d.Numbers = "1450000000", []string{"4200001"}
		require.NoError(t, s.store.Once(s.grant)(t.Context(), d))
		refund := func(id, yuan string, by ...string) (string, error) {
			return runOn(t, databaseURL, append([]string{"refund", "-id", id, "-yuan", yuan, "-by", "lee", "-reason", "ticket " + id}, by...)...)
		}
		for _, test := range []struct {
			id, yuan string
			by       []string
			says     string
			has      int
		}{
			{"1", "2.00", []string{"-openid", "anna", "-billno", "-1"}, "noted: 2.00 of 6.00 yuan went back\n", 1},
			{"1", "2.00", []string{"-openid", "anna", "-billno", "-1"}, "noted before: 2.00 of 6.00 yuan went back\n", 1},
			{"2", "4.00", []string{"-number", "4200001"}, "noted: 6.00 of 6.00 yuan went back\nthe items were taken back\n", 0},
			{"2", "4.00", []string{"-number", "4200001"}, "noted before: 6.00 of 6.00 yuan went back\nthe items were taken back\n", 0},
			{"3", "1.00", []string{"-number", "4200001"}, "MORE WENT BACK THAN WAS CHARGED", 0},
		} {
			out, err := refund(test.id, test.yuan, test.by...)
			require.NoError(t, err)
			require.Contains(t, out, test.says)
			var has int
			for p, n := range granted(t, s.db) {
				if p.billNo == "-1" {
					has += n * p.quantity
				}
			}
			require.Equal(t, test.has, has)
		}
		out, err := runOn(t, databaseURL, "payments", "-billno", "-1")
		require.NoError(t, err)
		require.Regexp(t, `6\.00 +7\.00 +done`, out)
		require.Regexp(t, `(?s)BY HAND.*-1 +anna +refund +lee +ticket 1`, out)

		_, err = refund("4", "6.00", "-openid", "anna", "-billno", "-2")
		require.ErrorContains(t, err, "AppID")
		out, err = refund("4", "6.00", "-openid", "anna", "-billno", "-2", "-app-id", "1450000000")
		require.NoError(t, err)
		require.Contains(t, out, "has not come yet")
		require.NoError(t, s.store.Once(s.grant)(t.Context(), delivery("anna", "-2", "t2", 600)), "a late callback")
		for p := range granted(t, s.db) {
			require.NotEqual(t, "-2", p.billNo)
		}
		for _, wrong := range []string{"", "-1", "six"} {
			_, err = refund("5", wrong, "-openid", "anna", "-billno", "-1")
			require.ErrorContains(t, err, "-yuan")
		}
	})
}

// With the token of a stored order the zone is the order's.
func TestARegrantGoesToTheZoneOfTheOrder(t *testing.T) {
	t.Parallel()
	databaseURL := newDatabase(t, sqlite)
	s := newLedger(t, databaseURL)
	require.NoError(t, s.store.SaveOrder(t.Context(), midas.OrderRequest{Player: midas.Player{OpenID: "anna", ZoneID: "3"}, Metadata: "shop-7",
		Items: []midas.Item{{ID: "gem60", Price: 60 * midas.QPoint, Quantity: 1}}}, &midas.Order{Token: "t1"}))
	_, err := runOn(t, databaseURL, "regrant", "-openid", "anna", "-billno", "-1", "-token", "t1", "-items", "gem60*60*1", "-charged", "6.00", "-by", "lee", "-reason", "ticket")
	require.NoError(t, err)
	out, err := runOn(t, databaseURL, "payments", "-billno", "-1")
	require.NoError(t, err)
	require.Regexp(t, `-1 +anna +3 +gem60.*shop-7`, out)
}

// A command of the sandbox changes no live tables.
func TestCommandsKnowTheEnvironment(t *testing.T) {
	t.Parallel()
	databaseURL := newDatabase(t, sqlite)
	newLedger(t, databaseURL)
	_, err := runOn(t, databaseURL, "migrate", "-midas", "live")
	require.NoError(t, err)
	regrant := []string{"regrant", "-openid", "anna", "-billno", "-1", "-zone", "1", "-items", "gem60*60*1", "-charged", "6.00", "-by", "lee", "-reason", "ticket"}
	for _, gateway := range []string{"sandbox", "msdk-sandbox", "fake", ""} {
		_, err := runOn(t, databaseURL, append(regrant, "-midas", gateway)...)
		require.ErrorIs(t, err, midassql.ErrEnvironment, gateway)
		_, err = runOn(t, databaseURL, "payments", "-openid", "anna", "-midas", gateway)
		require.NoError(t, err, "looking does no harm")
	}
	for i, gateway := range []string{"live", "msdk"} {
		out, err := runOn(t, databaseURL, append(regrant, "-midas", gateway)...)
		require.NoError(t, err)
		require.Contains(t, out, []string{"granted", "nothing changed"}[i])
	}
}

// A mini game in the same tables is not "in the ledger only".
func TestReconcileOfOneApp(t *testing.T) {
	t.Parallel()
	databaseURL := newDatabase(t, sqlite)
	s := newLedger(t, databaseURL)
	for billNo, app := range map[string]string{"-1": "1450000000", "wx1/0/no-1": "wx1"} {
		s.storeOrder(t, "anna", "token of "+app)
		d := delivery("anna", billNo, "token of "+app, 600)
		d.AppID = app
		require.NoError(t, s.store.Once(s.grant)(t.Context(), d))
	}
	file := filepath.Join(t.TempDir(), "bill.csv")
	require.NoError(t, os.WriteFile(file, []byte("no,fen\n-1,600\n"), 0o600))
	reconcile := []string{"reconcile", "-bill", file, "-columns", "billno=no,amount=fen", "-unit", "fen",
		"-from", time.Now().AddDate(0, 0, -1).Format(time.DateOnly), "-to", time.Now().AddDate(0, 0, 1).Format(time.DateOnly)}
	out, err := runOn(t, databaseURL, reconcile...)
	require.ErrorIs(t, err, errDiffers)
	require.Contains(t, out, "wx1/0/no-1")
	out, err = runOn(t, databaseURL, append(reconcile, "-app-id", "1450000000")...)
	require.NoError(t, err, out)
}

func TestWrongRegrants(t *testing.T) {
	t.Parallel()
	databaseURL := newDatabase(t, sqlite)
	s := newLedger(t, databaseURL)
	s.storeOrder(t, "anna", "t1")
	good := map[string]string{"-openid": "anna", "-billno": "-1", "-token": "t1", "-items": "gem60*60*1", "-charged": "6", "-by": "lee", "-reason": "ticket"}
	for _, test := range []struct{ flag, value, want string }{
		{"-by", "", "-by is missing"},
		{"-reason", "", "-reason is missing"},
		{"-billno", "", "-billno is missing"},
		{"-openid", "bob", "openid"}, // not the order's
		{"-zone", "2", "zoneid"},
		{"-token", "", "-zone is missing"},
		{"-token", "purged", "zoneid"},
		{"-billno", "-1 ", "white space"},
		{"-billno", "\u20131", "ASCII"},
		{"-items", "gem60*60*2", "payitem"},
		{"-items", "gem60*6*1", "catalogue"},
		{"-items", "crown*60*1", "catalogue"},
		{"-items", "gem60", "-items"},
		{"-charged", "6.001", "-charged"},
		{"-charged", "0", "-charged"},
		{"-charged", "-6.00", "-charged"},
	} {
		t.Run(test.flag+" "+test.value, func(t *testing.T) {
			flags := maps.Clone(good)
			flags[test.flag] = test.value
			args := []string{"regrant"}
			for name, value := range flags {
				args = append(args, name, value)
			}
			_, err := runOn(t, databaseURL, args...)
			require.ErrorContains(t, err, test.want)
		})
	}
	require.Empty(t, granted(t, s.db))
}

// The findings, from a bill as spreadsheets and Tencent write them.
func TestReconcile(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, databaseURL string) {
		t.Parallel()
		s := newLedger(t, databaseURL)
		deliver := s.store.Once(s.grant)
		for i, p := range []struct {
			openID, billNo string
			charged        midas.Amount
		}{{"anna", "-1", 600}, {"anna", "-2", 480}, {"bob", "-3", 600}, {"bob", "-4", 600}, {"carl", "-4", 600}} {
			token := fmt.Sprint("t", i)
			s.storeOrder(t, p.openID, token)
			require.NoError(t, deliver(t.Context(), delivery(p.openID, p.billNo, token, p.charged)))
		}
		yesterday := time.Now().AddDate(0, 0, -1).Format(time.DateOnly) // midnight may pass meanwhile
		tomorrow := time.Now().AddDate(0, 0, 1).Format(time.DateOnly)
		reconcile := func(file, columns string, more ...string) (string, error) {
			return runOn(t, databaseURL, append([]string{"reconcile", "-bill", file, "-columns", columns, "-from", yesterday, "-to", tomorrow}, more...)...)
		}
		write := func(text []byte) string {
			file := filepath.Join(t.TempDir(), "bill.csv")
			require.NoError(t, os.WriteFile(file, text, 0o600))
			return file
		}

		const chinese = "时间,流水号,用户,金额(元)\r\n" +
			"2026-11-24,`-1,anna,6.00\r\n2026-11-24,=\"-2\",anna,6.00\r\n2026-11-24,'-4,bob,6\r\n2026-11-24,-9,dora,\"1,234.50\"\r\n2026-11-24,-10,dora,free\r\n总计,,,24.00\r\n"
		gbk, err := simplifiedchinese.GBK.NewEncoder().String(chinese)
		require.NoError(t, err)
		for encoding, text := range map[string]string{"gbk": gbk, "utf-8": "\ufeff" + chinese} {
			out, err := reconcile(write([]byte(text)), "billno=流水号,openid=用户,amount=金额(元)", "-encoding", encoding)
			require.ErrorIs(t, err, errDiffers)
			require.Contains(t, out, `line 6: -10: the amount "free"`)
			require.Regexp(t, `(?s)IN THE LEDGER ONLY.*-3 +bob.*-4 +carl.*ANOTHER AMOUNT.*line 3 +-2 +anna +6\.00 +4\.80.*ON THE BILL ONLY.*line 5 +-9 +dora +1234\.50`, out)
			require.Contains(t, out, "4 lines on the bill: 1 on the bill only, 2 in the ledger only, 1 with another amount, 0 not delivered, 1 that cannot be read\n")
		}

		// The same in fen and without openid: nothing differs.
		out, err := reconcile(write([]byte("no,fen\n-1,600\n-2,480\n-3,600\n-4,600\n-4,600\n")), "billno=no,amount=fen", "-unit", "fen")
		require.NoError(t, err, out)
		require.Contains(t, out, "5 lines on the bill: 0 on the bill only, 0 in the ledger only, 0 with another amount")

		// Totals without a number are passed over, and a line with a cell too few is none.
		out, err = reconcile(write([]byte("day,no,fen\n1,-1,600\n1,-2,480\n1,-3,600\n1,-4,600\n1,-4,600\n1,-9\nsum\nsum,,,2880\n")), "billno=no,amount=fen", "-unit", "fen")
		require.ErrorIs(t, err, errDiffers)
		require.Contains(t, out, "line 7: -9: it has 2 cells, and the header 3\n")
		require.Contains(t, out, "5 lines on the bill: 0 on the bill only, 0 in the ledger only, 0 with another amount, 0 not delivered, 1 that cannot be read\n")
		_, err = reconcile(write([]byte("no,fen\n\"-1,600\n-2,480\n")), "billno=no,amount=fen", "-unit", "fen")
		require.ErrorContains(t, err, "line 2: a cell holds a line break")

		// A line that stands there twice, as a refund may, is one too many.
		out, err = reconcile(write([]byte("no,fen\n-1,600\n-2,480\n-3,600\n-4,600\n-4,600\n-1,600\n")), "billno=no,amount=fen", "-unit", "fen")
		require.ErrorIs(t, err, errDiffers)
		require.Regexp(t, `line 7 +-1`, out)

		// What is paid and stored, and has not reached the player.
		for billNo, state := range map[string]int{"-1": 3, "-2": 2, "-3": 1} { // broken, cancelled, waiting
			_, err := s.db.Exec(fmt.Sprintf("UPDATE midas_deliveries SET state = %d WHERE billno = '%s'", state, billNo))
			require.NoError(t, err)
		}
		out, err = reconcile(write([]byte("no,fen\n-1,600\n-2,480\n-3,600\n-4,600\n-4,600\n")), "billno=no,amount=fen", "-unit", "fen")
		require.ErrorIs(t, err, errDiffers)
		require.Regexp(t, `(?s)PAID, NOT DELIVERED.*line 2 +-1 +anna +6\.00 +broken.*line 3 +-2 +anna +4\.80 +cancelled`, out)
		require.Contains(t, out, "0 with another amount, 2 not delivered, 0 that cannot be read\n")
		_, err = s.db.Exec("UPDATE midas_deliveries SET state = 0")
		require.NoError(t, err)

		// A payment of long ago that the bill shows only now is in the ledger.
		_, err = runOn(t, databaseURL, "reconcile", "-bill", write([]byte("no,fen\n-1,600\n")), "-columns", "billno=no,amount=fen", "-unit", "fen", "-from", "2024-01-01", "-to", "2024-01-02")
		require.NoError(t, err)

		for columns, want := range map[string]string{"billno=no": "amount is missing", "billno=NO,amount=fen": `no "NO"`, "number=no,amount=fen": `"number"`} {
			_, err := reconcile(write([]byte("no,fen\n-1,600\n")), columns)
			require.ErrorContains(t, err, want)
		}
	})
}

// Days between which there is none would find nothing in the ledger, and so nothing amiss.
func TestReconcileWantsADay(t *testing.T) {
	t.Parallel()
	databaseURL := newDatabase(t, sqlite)
	newLedger(t, databaseURL)
	file := filepath.Join(t.TempDir(), "bill.csv")
	require.NoError(t, os.WriteFile(file, []byte("no,fen\n"), 0o600))
	for _, to := range []string{"2026-11-24", "2026-11-23"} {
		_, err := runOn(t, databaseURL, "reconcile", "-bill", file, "-columns", "billno=no,amount=fen", "-from", "2026-11-24", "-to", to)
		require.ErrorContains(t, err, "-from 2026-11-24 is not before -to "+to)
		require.NotErrorIs(t, err, errDiffers)
	}
}

// Ctrl-C: the command ends, and says so.
func TestACommandStops(t *testing.T) {
	t.Parallel()
	databaseURL := newDatabase(t, sqlite)
	newLedger(t, databaseURL)
	ctx, stop := context.WithCancel(t.Context())
	stop()
	file := filepath.Join(t.TempDir(), "bill.csv")
	require.NoError(t, os.WriteFile(file, []byte("no,fen\n-1,600\n"), 0o600))
	for _, args := range [][]string{{"payments", "-openid", "anna"}, {"migrate"}, {"reconcile", "-bill", file, "-columns", "billno=no,amount=fen"}} {
		err := run(ctx, args, environment("MIDAS_DATABASE_URL", databaseURL), io.Discard, io.Discard)
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorContains(t, err, "stopped")
		require.NotErrorIs(t, err, errDiffers)
	}
}

func TestMigrate(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, databaseURL string) {
		t.Parallel()
		for range 2 {
			out, err := runOn(t, databaseURL, "migrate")
			require.NoError(t, err)
			require.Equal(t, "the tables are there\n", out)
		}
		require.Empty(t, granted(t, reader(t, databaseURL)))
		s := &shop{db: reader(t, databaseURL)}
		require.Empty(t, s.indexProgress(t.Context()), "no index is being built")
	})
	name := withoutLimits("mysql://u:p@h/d")
	require.Equal(t, "mysql://u:p@h/d?readTimeout=0s&writeTimeout=0s", name)
	require.Equal(t, "mysql://u:p@h/d?tls=true&readTimeout=0s&writeTimeout=0s", withoutLimits("mysql://u:p@h/d?tls=true"))
	require.Equal(t, "postgres://h/d", withoutLimits("postgres://h/d"))
}

// A primary that waits for a replica waits for an hour, and a COMMIT does not end with Ctrl-C.
func TestARegrantDoesNotWaitForAReplica(t *testing.T) {
	t.Parallel()
	server := servers.MariaDB(t, "--log-bin", "--rpl-semi-sync-master-timeout=3600000")
	_, err := runOn(t, server.URL, "migrate")
	require.NoError(t, err)
	execSQL(t, reader(t, server.URL), "SET GLOBAL rpl_semi_sync_master_enabled = ON")
	ended := make(chan error, 1)
	go func() {
		_, err := runOn(t, server.URL, "regrant", "-openid", "anna", "-billno", "-1", "-items", "gem60*60*1", "-charged", "6", "-zone", "1", "-by", "lee", "-reason", "ticket")
		ended <- err
	}()
	select {
	case err := <-ended:
		require.ErrorContains(t, err, "unknown") // the outcome
	case <-time.After(20 * time.Second):
		require.Fail(t, "it hangs")
	}
}

// A nightly job goes by the exit code.
func TestExitCodes(t *testing.T) {
	t.Parallel()
	databaseURL := newDatabase(t, sqlite)
	newLedger(t, databaseURL)
	file := filepath.Join(t.TempDir(), "bill.csv")
	require.NoError(t, os.WriteFile(file, []byte("no,fen\n-1,600\n"), 0o600))
	for _, test := range []struct {
		args string
		code int
	}{
		{"payments -openid anna", 0},
		{"payments", 2},
		{"payments -nobody", 2},
		{"payments -h", 0},
		{"reconcile -columns billno=no,amount=fen -bill " + file, 1},
		{"reconcile -columns billno=no,amount=fen -bill " + file + ".none", 2},
		{"reconcile -columns billno=no,amount=fen -from 2026-11-24 -to 2026-11-24 -bill " + file, 2},
	} {
		t.Run(test.args, func(t *testing.T) {
			cmd := exec.Command(os.Args[0], strings.Fields(test.args)...)
			cmd.Env = append(os.Environ(), servers.AsServer, "MIDAS_DATABASE_URL="+databaseURL)
			output, err := cmd.CombinedOutput()
			require.Equal(t, test.code, cmd.ProcessState.ExitCode(), "%v: %s", err, output)
		})
	}
}

func TestProgressSaysWhatIsLeft(t *testing.T) {
	t.Parallel()
	var terminal bytes.Buffer
	now := time.Unix(0, 0)
	p := &progress{out: &terminal, what: "reading the bill", total: 4000, now: func() time.Time { return now }}
	for range 4 {
		p.Write(make([]byte, 500))
		p.Write(make([]byte, 500))
		now = now.Add(10 * time.Second)
	}
	p.end()
	require.Equal(t, "\r\x1b[Kreading the bill: 37 %, 17s left\r\x1b[Kreading the bill: 62 %, 12s left\r\x1b[Kreading the bill: 87 %, 4s left\r\x1b[K", terminal.String())

	silent := &progress{total: 10, now: time.Now}
	silent.at(5)
	silent.end()
	require.False(t, isTerminal(&terminal))
}

// What somebody wrote into a name moves no cursor of the one who looks it up.
func TestTextFromElsewhereIsVisible(t *testing.T) {
	t.Parallel()
	require.Equal(t, `\x1b[2Jgone`, visible("\x1b[2Jgone"))
	require.Equal(t, "流水号", visible("流水号"))
}
