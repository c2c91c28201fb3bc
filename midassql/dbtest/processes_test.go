package dbtest

import (
	"bufio"
	"context"
	"database/sql"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midassql"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A process of its own: TestMain makes it a worker.
const workerEnv = "MIDAS_TEST_WORKER"

func TestMain(m *testing.M) {
	if name := os.Getenv(wrongEnv); name != "" {
		testing.Main(regexp.MatchString, []testing.InternalTest{{Name: "Engine", F: func(t *testing.T) { runWrong(t, name) }}}, nil, nil)
	}
	if file := os.Getenv(workerEnv); file != "" {
		if err := work(file); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// work prints what it is handed out, and ends with its standard input.
func work(dsnAndPrefix string) error {
	dsn, prefix, _ := strings.Cut(dsnAndPrefix, " ")
	db, err := sql.Open("sqlite", dsn)
	if err != nil {
		return err
	}
	defer db.Close()
	store, err := midassql.New(db, midassql.SQLite, midassql.Options{TablePrefix: prefix})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	go func() {
		bufio.NewReader(os.Stdin).ReadByte()
		cancel()
	}()
	inbox, err := store.Inbox(midassql.InboxOptions{Poll: 5 * time.Millisecond, Workers: 2})
	if err != nil {
		return err
	}
	inbox.Work(ctx, func(_ context.Context, d *midas.Delivery) error {
		fmt.Println(d.OpenID, d.BillNo)
		return nil
	})
	return nil
}

// Two processes work on one SQLite file: each payment is handed to one of them.
func TestTwoProcessesOnSQLite(t *testing.T) {
	t.Parallel()
	db := openDatabase(t, sqlite)
	const payments = 200
	store := db.store(t, midassql.Options{})
	inbox := newInbox(t, store, midassql.InboxOptions{})
	var mu sync.Mutex
	handed := make(map[string]int)
	by := make([]int, 2)
	all := make(chan struct{})
	var processes sync.WaitGroup
	var stop []func() error
	for i := range 2 {
		process := exec.CommandContext(t.Context(), os.Args[0])
		process.Env = append(os.Environ(), workerEnv+"="+db.dsn+" "+db.prefix)
		process.Stderr = os.Stderr
		out, err := process.StdoutPipe()
		require.NoError(t, err)
		in, err := process.StdinPipe()
		require.NoError(t, err)
		require.NoError(t, process.Start())
		stop = append(stop, in.Close)
		processes.Go(func() {
			for lines := bufio.NewScanner(out); lines.Scan(); {
				mu.Lock()
				handed[lines.Text()]++
				by[i]++
				if handed[lines.Text()] == 1 && len(handed) == payments {
					close(all)
				}
				mu.Unlock()
			}
			assert.NoError(t, process.Wait())
		})
	}
	for i := range payments {
		db.stored(t, store, inbox, fmt.Sprint("player", i%20), fmt.Sprint("-", i))
	}
	select {
	case <-all:
	case <-time.After(30 * time.Second):
		t.Error("not all payments were handed out")
	}
	for _, close := range stop {
		require.NoError(t, close())
	}
	processes.Wait()
	for payment, times := range handed {
		require.Equal(t, 1, times, payment)
	}
	require.NotZero(t, by[0])
	require.NotZero(t, by[1])
	require.Zero(t, db.count(t, "SELECT COUNT(*) FROM inbox"))
}
