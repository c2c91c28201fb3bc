package failovertest

import (
	"database/sql"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/midas-go/midas/midassql"
	"github.com/stretchr/testify/require"
)

// newMySQLNodes makes nodes of Oracle's MySQL. Its mysqld is where MIDAS_TEST_MYSQLD says: what goes by
// that name on Debian is MariaDB. They know the users of more, which is SQL.
func newMySQLNodes(t *testing.T, more ...string) *mysqlNodes {
	t.Helper()
	server := os.Getenv("MIDAS_TEST_MYSQLD")
	if server == "" {
		missing(t, "MIDAS_TEST_MYSQLD is not set")
	}
	m := &mysqlNodes{account: newAccount(t, "mysql"), server: []string{server},
		settings: []string{"--gtid-mode=ON", "--enforce-gtid-consistency=ON", "--innodb-redo-log-capacity=32M"},
		semiSync: []string{"--plugin-load-add=semisync_source.so", "--plugin-load-add=semisync_replica.so"},
		words: strings.NewReplacer("CHANGE MASTER TO", "CHANGE REPLICATION SOURCE TO", "SHOW MASTER STATUS", "SHOW BINARY LOG STATUS",
			"master_use_gtid = slave_pos", "source_auto_position = 1", "master", "source", "slave", "replica", "SLAVE", "REPLICA"),
		applied: `SELECT GTID_SUBSET(received_transaction_set, @@global.gtid_executed) FROM performance_schema.replication_connection_status`}
	m.template = filepath.Join(m.account.folder, "template")
	setUp := filepath.Join(m.account.folder, "init.sql")
	require.NoError(t, os.WriteFile(setUp, []byte("CREATE USER root@'127.0.0.1';\nGRANT ALL ON *.* TO root@'127.0.0.1' WITH GRANT OPTION;\n"+strings.Join(more, "")), 0o644))
	m.account.run(t, server, "--initialize-insecure", "--datadir="+m.template, "--tmpdir="+m.account.folder, "--init-file="+setUp)
	require.NoError(t, os.Remove(filepath.Join(m.template, "auto.cnf"))) // the server's UUID: each copy gets one of its own
	return m
}

func TestMySQL(t *testing.T) {
	nodes := newMySQLNodes(t)
	t.Run("a cut, and the primary killed", func(t *testing.T) {
		m := startSemiSync(t, nodes, practicallyForever)
		requireSurvives(t, m.writers(t), func() { m.failover(t) })
	})
	// After a timeout the primary goes on alone. (The default is 10 s.)
	t.Run("loses: rpl_semi_sync_source_timeout of 1 s", func(t *testing.T) {
		m := startSemiSync(t, nodes, time.Second)
		writers := m.writers(t)
		r := during(t, writers, func() { m.failover(t) })
		require.NotZero(t, r.lost, "nothing was lost: the proof would not see a loss")
	})

	// A server that stands alone, with sync_binlog=1 and innodb_flush_log_at_trx_commit=1, MySQL's defaults.
	t.Run("the server killed", func(t *testing.T) {
		n := nodes.startAlone(t)
		requireSurvives(t, newWriters(t, func() *sql.DB { return openGame(t, n.address) }, midassql.MySQL), func() {
			n.kill()
			startMySQLNode(t, n)
		})
	})
	// What the server keeps in its own memory is lost with the process. It is written once a second, or as often as
	// is said here.
	t.Run("loses: innodb_flush_log_at_trx_commit=0, the server killed", func(t *testing.T) {
		nodes.losesAtOnce(t, func(*node) {}, func(*sql.DB) {}, "--innodb-flush-log-at-trx-commit=0", "--innodb-flush-log-at-timeout=60")
	})
	t.Run("loses: sync_binlog=0, a power cut", nodes.losesWithoutSyncBinlog)
	t.Run("the page's settings", nodes.startWithThePagesSettings)
}
