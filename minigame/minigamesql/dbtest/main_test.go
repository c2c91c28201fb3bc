// Package dbtest tests minigamesql on real databases: see package testdb, which opens them. It is a module
// of its own because the drivers are.
package dbtest

import (
	"encoding/json"
	"fmt"
	"os"
	"testing"

	"github.com/midas-go/midas/midassql"
	"github.com/stretchr/testify/require"
)

// TestMain makes a process that is started for it a shopServer.
func TestMain(m *testing.M) {
	config := os.Getenv(shopEnv)
	if config == "" {
		os.Exit(m.Run())
	}
	var server shopServer
	err := json.Unmarshal([]byte(config), &server)
	if err == nil {
		err = server.run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func newInbox(t testing.TB, store *midassql.Store, opts midassql.InboxOptions) *midassql.Inbox {
	t.Helper()
	inbox, err := store.Inbox(opts)
	require.NoError(t, err)
	return inbox
}
