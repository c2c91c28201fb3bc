package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
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

// writeFile returns the name of a file with text.
func writeFile(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "export.csv")
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	return file
}

// From a spreadsheet in GBK, with what it does to numbers, and lines that are no payments.
func TestImport(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, databaseURL string) {
		t.Parallel()
		s := newLedger(t, databaseURL)
		s.storeOrder(t, "bob", "t1")
		require.NoError(t, s.store.Once(s.grant)(t.Context(), delivery("bob", "-4", "t1", 600)))
		const chinese = "流水号,用户,金额(元),时间,道具,单号\r\n" +
			"`-1,anna,\"6.00\",2026-11-23 20:15:00,gem60*60*1,4200001\r\n" +
			"=\"-2\",anna,4.80,2026/11/24 9:05,gem60*60*1,\r\n" +
			"-3,bob,6,2026-11-24T09:30:00+08:00,,\r\n" +
			"-4,bob,6.00,1763946000,,\r\n" +
			"-5,bob,free,2026-11-24 09:30:00,,\r\n" +
			"-6,bob,6.00,yesterday,,\r\n" +
			"-7,bob,600,2026-11-24 09:30:00,gem60*60*1,\r\n" +
			",bob,6.00,2026-11-24 09:30:00,,\r\n" +
			"-9,bob,0,2026-11-24 09:30:00,gem60,\r\n" +
			"- 10,bob,6.00,2026-11-24 09:30:00,,\r\n" +
			"-11,bob,6.00,2009-11-24 09:30:00,,\r\n" +
			"########,bob,6.00,2026-11-24 09:30:00,,\r\n" +
			"1.20124E+27,bob,6.00,2026-11-24 09:30:00,,\r\n" +
			"-1,anna,6.00,2026-11-23 20:15:00,,\r\n" +
			"-1,anna,4.80,2026-11-23 20:15:00,,\r\n" +
			"-4,bob,600.00,2026-11-24 09:30:00,,\r\n" +
			"-12,bob,6.00,2026-11-24 09:30:00,,,\r\n" +
			"总计\r\n"
		gbk, err := simplifiedchinese.GBK.NewEncoder().String(chinese)
		require.NoError(t, err)
		args := []string{"import", "-file", writeFile(t, gbk), "-encoding", "gbk", "-unit", "yuan", "-app-id", "1450000000", "-by", "wang",
			"-columns", "billno=流水号,openid=用户,amount=金额(元),time=时间,items=道具,number=单号"}
		for _, test := range []struct {
			dryRun bool
			says   string
		}{
			{true, "nothing was changed: 3 to import, 1 imported before, 1 here already, 13 lines that cannot be read\n"},
			{false, "3 imported, 1 imported before, 1 here already, 13 lines that cannot be read\n"},
			{false, "0 imported, 4 imported before, 1 here already, 13 lines that cannot be read\n"},
		} {
			out, err := runOn(t, databaseURL, append(args, fmt.Sprint("-dry-run=", test.dryRun))...)
			require.ErrorIs(t, err, errLook)
			for _, line := range []string{
				`line 6: the amount "free" is none in yuan`,
				`line 7: the time "yesterday" is none`,
				`line 8: 600.00 yuan were charged for items that cost 6.00: is -unit right?`,
				"line 9: ",
				"line 10: the items: ",
				"line 11: ", "white space",
				`line 12: the time "2009-11-24 09:30:00" is before 2010`,
				`line 13: the billno "########" is what a spreadsheet made of it`,
				`line 14: the billno "1.20124E+27" is what a spreadsheet made of it`,
				"line 16: 4.80 yuan for a payment that an earlier line has with 6.00",
				"line 17: 600.00 yuan for a payment that an earlier line has with 6.00",
				"line 18: it has 7 cells, and the header 6",
				"line 19: it has 1 cells, and the header 6",
				test.says + "22.80 yuan were charged for the 4 payments of the file\n",
			} {
				require.Contains(t, out, line)
			}
			require.Regexp(t, `(?s)HERE ALREADY.*-4 +bob +done +yes: the player may have it twice`, out)
		}
		out, err := runOn(t, databaseURL, append(args, "-dry-run")...)
		require.ErrorIs(t, err, errLook)
		require.Contains(t, out, "nothing was changed: 0 to import, 5 imported before, 0 here already")

		// Their callbacks come again.
		for i, openID := range []string{"anna", "anna", "bob", "bob"} {
			d := delivery(openID, fmt.Sprint("-", i+1), "t1", 600)
			d.AppID = "1450000000"
			require.NoError(t, s.store.Once(s.grant)(t.Context(), d))
		}
		require.Equal(t, map[payment]int{{"bob", "-4", "gem60", 1}: 1}, granted(t, s.db))
		out, err = runOn(t, databaseURL, "payments", "-number", "4200001")
		require.NoError(t, err)
		require.Regexp(t, `2026-11-23 20:15:00 +-1 +anna .*done.*wang +granted by an earlier backend`, out)

		// The bill of that day has them, and so has the ledger.
		out, err = runOn(t, databaseURL, "reconcile", "-bill", writeFile(t, "no,yuan\n-2,6.00\n"), "-columns", "billno=no,amount=yuan", "-from", "2026-11-24", "-to", "2026-11-25")
		require.ErrorIs(t, err, errDiffers)
		require.Regexp(t, `(?s)IN THE LEDGER ONLY.*-3 +bob.*wang`, out)
		require.NotContains(t, out, "-1 ")

		// Their items are in no journal of this backend.
		out, err = runOn(t, databaseURL, "refund", "-openid", "anna", "-billno", "-1", "-id", "4711", "-yuan", "6.00", "-by", "lee", "-reason", "a child")
		require.NoError(t, err)
		require.Contains(t, out, "noted: 6.00 of 6.00 yuan went back\nTHE JOURNAL HAS NO ITEMS OF THIS PAYMENT")
		out, err = runOn(t, databaseURL, "refund", "-number", "4200001", "-id", "4711", "-yuan", "6.00", "-by", "lee", "-reason", "a child")
		require.NoError(t, err)
		require.Contains(t, out, "noted before: 6.00 of 6.00 yuan went back\nTHE JOURNAL HAS NO ITEMS OF THIS PAYMENT")
	})
}

func TestWrongImports(t *testing.T) {
	t.Parallel()
	databaseURL := newDatabase(t, sqlite)
	s := newLedger(t, databaseURL)
	const header = "billno,openid,fen,time\n"
	for _, test := range []struct{ name, text, flag, value, want string }{
		{"no file", header, "-file", "", "-file is missing"},
		{"a file that is not there", header, "-file", "nowhere.csv", "nowhere.csv"},
		{"nobody", header, "-by", "", "-by is missing"},
		{"no columns", header, "-columns", "", "-columns is missing"},
		{"no time", header, "-columns", "billno=billno,openid=openid,amount=fen", "time is missing"},
		{"a column that is not there", header, "-columns", "billno=no,openid=openid,amount=fen,time=time", `no "no"`},
		{"a column of no use", header, "-columns", "billno=billno,price=fen", `"price"`},
		{"no unit", header, "-unit", "", "-unit is missing"},
		{"another unit", header, "-unit", "QPoint", "-unit"},
		{"another encoding", header, "-encoding", "latin1", "-encoding"},
		{"an empty file", "", "", "", "the header"},
		{"a quote that is not closed", header + "-1,anna,600,1763946000\n\"-2" + strings.Repeat(",anna,600,1763946000\n-3", 60_000), "", "", "the line after line 2 is longer than 1 MiB"},
		{"a quote that swallows payments", header + "-1,anna,600,1763946000\n\"-2,anna,600,1763946000\n-3,anna,600,1763946000\n", "", "", "line 3: a cell holds a line break"},
		{"a quote that swallows the next line", header + "\"-2,anna,600,1763946000\n-3\",anna,600,1763946000\n", "", "", "line 2: a cell holds a line break"},
		{"a header without end", strings.Repeat("billno,", 200_000), "", "", "the header: "},
	} {
		t.Run(test.name, func(t *testing.T) {
			args := map[string]string{"-file": writeFile(t, test.text), "-by": "wang", "-unit": "fen", "-columns": "billno=billno,openid=openid,amount=fen,time=time", test.flag: test.value}
			command := []string{"import"}
			for name, value := range args {
				if name != "" {
					command = append(command, name, value)
				}
			}
			_, err := runOn(t, databaseURL, command...)
			require.ErrorContains(t, err, test.want)
			require.NotErrorIs(t, err, errLook)
		})
	}
	require.Equal(t, 1, stored(t, s), "what came before the quote stays, and the file is imported again when it is mended")

	// A file of another kind: the first lines are shown, the others counted.
	out, err := runOn(t, databaseURL, "import", "-file", writeFile(t, header+strings.Repeat("-1,anna,"+strings.Repeat("x", 1000)+",0\n", 5000)),
		"-by", "wang", "-unit", "fen", "-columns", "billno=billno,openid=openid,amount=fen,time=time")
	require.ErrorIs(t, err, errLook)
	require.Contains(t, out, "and 4900 more lines\n")
	require.Contains(t, out, "5000 lines that cannot be read\n")
	require.Less(t, len(out), 100*300)
}

// What is remembered of a file has a limit.
func TestTheLimitOfAnImport(t *testing.T) {
	t.Parallel()
	s := newLedger(t, newDatabase(t, sqlite))
	lines, err := openSheet(strings.NewReader("billno,openid,fen,time\n-1,a,600,1763946000\n-1,a,600,1763946000\n-2,a,600,1763946000\n-3,a,600,1763946000\n"),
		"utf-8", "billno=billno,openid=openid,amount=fen,time=time", nil, []string{"billno", "openid", "amount", "time"})
	require.NoError(t, err)
	e := &export{store: s.store, lines: lines, amount: parseFen, most: 2, read: make(map[[sha256.Size]byte]midas.Amount)}
	result, err := s.store.Import(t.Context(), e.payments())
	require.ErrorContains(t, err, "line 5: the file has more than 2 payments: split it")
	require.Equal(t, 2, result.New)
}

// A dry run refuses what the import would refuse, and each says what to do.
func TestImportKnowsItsTables(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, databaseURL string) {
		t.Parallel()
		args := []string{"import", "-file", writeFile(t, "billno,openid,fen,time\n-1,anna,600,1763946000\n"), "-by", "wang", "-unit", "fen",
			"-columns", "billno=billno,openid=openid,amount=fen,time=time"}
		dry := append([]string{"import", "-dry-run"}, args[1:]...)
		for _, args := range [][]string{args, dry} {
			_, err := runOn(t, databaseURL, args...)
			require.ErrorContains(t, err, "run gameserver migrate first")
		}
		_, err := runOn(t, databaseURL, "migrate", "-midas", "live")
		require.NoError(t, err)
		for _, args := range [][]string{args, dry} {
			_, err := runOn(t, databaseURL, args...)
			require.ErrorIs(t, err, midassql.ErrEnvironment)
			require.ErrorContains(t, err, "-midas or MIDAS_GATEWAY")
		}
		out, err := runOn(t, databaseURL, append(dry, "-midas", "live")...)
		require.NoError(t, err)
		require.Contains(t, out, "1 to import")
	})
}

func stored(t *testing.T, s *shop) (n int) {
	t.Helper()
	require.NoError(t, s.db.QueryRow("SELECT COUNT(*) FROM midas_deliveries").Scan(&n))
	return n
}

// An import that is killed is called again, and each payment is there once.
func TestAnImportIsKilled(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, databaseURL string) {
		t.Parallel()
		s := newLedger(t, databaseURL)
		const payments = 1000
		var file bytes.Buffer
		fmt.Fprintln(&file, "no,player,fen,at")
		half := 0
		for i := range payments {
			if i == payments/2 {
				half = file.Len()
			}
			fmt.Fprintf(&file, "-%d,player-%d,600,1763946000\n", i, i%7)
		}
		args := []string{"import", "-columns", "billno=no,openid=player,amount=fen,time=at", "-unit", "fen", "-by", "wang", "-app-id", "1450000000", "-file"}
		cmd := exec.Command(os.Args[0], append(args, "-")...)
		cmd.Env = append(os.Environ(), servers.AsServer, "MIDAS_DATABASE_URL="+databaseURL)
		stdin, err := cmd.StdinPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		ended := make(chan struct{})
		go func() { defer close(ended); cmd.Wait() }()
		_, err = io.Copy(stdin, bytes.NewReader(file.Bytes()[:half])) // it waits for the other half
		require.NoError(t, err)
		for stored(t, s) == 0 {
			select {
			case <-ended:
				require.Fail(t, "it ended by itself")
			case <-time.After(5 * time.Millisecond):
			}
		}
		require.NoError(t, cmd.Process.Kill())
		<-ended

		out, err := runOn(t, databaseURL, append(args, writeFile(t, file.String()))...)
		require.NoError(t, err)
		var imported, before int
		_, err = fmt.Sscanf(out, "%d imported, %d imported before, 0 here already, 0 lines that cannot be read\n", &imported, &before)
		require.NoError(t, err, out)
		require.Equal(t, payments, imported+before)
		require.Positive(t, before)
		require.Less(t, before, payments)
		require.Zero(t, before%100, "batches are whole")
		require.Equal(t, payments, stored(t, s))
		for i := range payments / 50 {
			d := delivery(fmt.Sprint("player-", 50*i%7), fmt.Sprint("-", 50*i), "t1", 600*midas.Fen)
			require.NoError(t, s.store.Once(s.grant)(t.Context(), d))
		}
		require.Empty(t, granted(t, s.db))
		t.Logf("killed after %d of %d payments", before, payments)
	})
}
