package midassql

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFindings(t *testing.T) {
	t.Parallel()
	type settings = map[string]string
	for _, row := range []struct {
		name     string
		dialect  Dialect
		settings settings
		found    []string // settings
	}{
		{"as docs/databases has PostgreSQL", PostgreSQL, settings{"synchronous_commit": "on", "fsync": "on", "full_page_writes": "on",
			"synchronous_standby_names": "FIRST 1 (standby1, standby2)", "in_recovery": "false", "transaction_read_only": "off"}, nil},
		{"remote_apply is more than on", PostgreSQL, settings{"synchronous_commit": "remote_apply"}, nil},
		{"commits that do not wait for the disk", PostgreSQL, settings{"synchronous_commit": "off", "fsync": "off", "full_page_writes": "off"},
			[]string{"synchronous_commit", "fsync", "full_page_writes"}},
		{"commits that do not wait for the standby", PostgreSQL, settings{"synchronous_commit": "local"}, []string{"synchronous_commit"}},
		{"any standby", PostgreSQL, settings{"synchronous_standby_names": "ANY 1 (*)"}, []string{"synchronous_standby_names"}},
		{"a standby", PostgreSQL, settings{"in_recovery": "true", "transaction_read_only": "on"}, []string{"in_recovery", "transaction_read_only"}},

		{"as docs/databases has MariaDB", MySQL, settings{"innodb_flush_log_at_trx_commit": "1", "log_bin": "ON", "sync_binlog": "1", "binlog_format": "MIXED",
			"innodb_lock_wait_timeout": "1", "read_only": "OFF", "character_set_client": "utf8mb4", "rpl_semi_sync_master_enabled": "ON",
			"rpl_semi_sync_master_timeout": "3600000", "rpl_semi_sync_master_wait_no_slave": "ON", "prepared_statements": "1"}, nil},
		{"no binary log", MySQL, settings{"log_bin": "OFF", "sync_binlog": "0", "binlog_format": "STATEMENT"}, nil},
		{"MariaDB's defaults with a binary log", MySQL, settings{"log_bin": "ON", "sync_binlog": "0", "innodb_lock_wait_timeout": "50"},
			[]string{"sync_binlog", "innodb_lock_wait_timeout"}},
		{"a group of commits for one flush", MySQL, settings{"log_bin": "1", "sync_binlog": "100"}, []string{"sync_binlog"}},
		{"statements in the binary log", MySQL, settings{"log_bin": "ON", "binlog_format": "STATEMENT"}, []string{"binlog_format"}},
		{"a log that is flushed each second", MySQL, settings{"innodb_flush_log_at_trx_commit": "2"}, []string{"innodb_flush_log_at_trx_commit"}},
		{"a replica", MySQL, settings{"read_only": "ON"}, []string{"read_only"}},
		{"MariaDB 12's word for a replica", MySQL, settings{"read_only": "NO_LOCK"}, []string{"read_only"}},
		{"gbk", MySQL, settings{"character_set_client": "gbk"}, []string{"character_set_client"}},
		{"semi-synchronous for ten seconds", MySQL, settings{"rpl_semi_sync_master_enabled": "ON", "rpl_semi_sync_master_timeout": "10000", "rpl_semi_sync_master_wait_no_slave": "OFF"},
			[]string{"rpl_semi_sync_master_timeout", "rpl_semi_sync_master_wait_no_slave"}},
		{"the same in MySQL 8", MySQL, settings{"rpl_semi_sync_source_enabled": "ON", "rpl_semi_sync_source_timeout": "10000", "rpl_semi_sync_source_wait_for_replica_count": "1", "rpl_semi_sync_source_wait_no_replica": "OFF"},
			[]string{"rpl_semi_sync_source_timeout", "rpl_semi_sync_source_wait_no_replica"}},
		{"semi-synchronous and off", MySQL, settings{"rpl_semi_sync_master_enabled": "OFF", "rpl_semi_sync_master_timeout": "10000"}, nil},
		{"Galera as it comes", MySQL, settings{"wsrep_on": "ON", "wsrep_sync_wait": "0", "prepared_statements": "1"}, []string{"wsrep_sync_wait", "prepared_statements"}},
		{"Galera as it should be", MySQL, settings{"wsrep_on": "ON", "wsrep_sync_wait": "1", "prepared_statements": "0"}, nil},
		{"prepared, and no Galera", MySQL, settings{"wsrep_on": "OFF", "wsrep_sync_wait": "0", "prepared_statements": "1"}, nil},

		{"a group of writers as it comes", MySQL, settings{"group_replication_start_on_boot": "OFF", "group_replication_enforce_update_everywhere_checks": "ON", "group_replication_consistency": "EVENTUAL"},
			[]string{"group_replication_start_on_boot", "group_replication_consistency"}},
		{"a group of writers as it should be", MySQL, settings{"group_replication_start_on_boot": "ON", "group_replication_enforce_update_everywhere_checks": "ON", "group_replication_consistency": "BEFORE"}, nil},
		{"a group with one writer", MySQL, settings{"group_replication_start_on_boot": "ON", "group_replication_enforce_update_everywhere_checks": "OFF", "group_replication_consistency": "EVENTUAL"}, nil},
		{"MySQL 5.7", MySQL, settings{"version": "5.7.44"}, []string{"version"}},
		{"TencentDB for MySQL 5.7", MySQL, settings{"version": "5.7.18-txsql-log"}, []string{"version"}},
		{"MySQL 8", MySQL, settings{"version": "8.0.30-txsql"}, nil},
		{"the first with SKIP LOCKED", MySQL, settings{"version": "8.0.1-dmr"}, nil},
		{"MySQL 9", MySQL, settings{"version": "9.7.4"}, nil},
		{"MariaDB 10.5", MySQL, settings{"version": "10.5.29-MariaDB-log"}, []string{"version"}},
		{"MariaDB 10.6", MySQL, settings{"version": "10.6.0-MariaDB"}, nil},
		{"no version at all", MySQL, settings{"version": "Vitess"}, nil},

		{"as docs/databases has SQLite", SQLite, settings{"synchronous": "2", "journal_mode": "wal", "busy_timeout": "500"}, nil},
		{"SQLite that loses", SQLite, settings{"synchronous": "1", "journal_mode": "off"}, []string{"synchronous", "journal_mode"}},
		{"no patience", SQLite, settings{"busy_timeout": "0"}, []string{"busy_timeout"}},
		{"too much patience", SQLite, settings{"busy_timeout": "5000"}, []string{"busy_timeout"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			var found []string
			for _, f := range findings(row.settings, grammars[row.dialect].rules) {
				found = append(found, f.Setting)
				require.Equal(t, row.settings[f.Setting], f.Value)
				require.NotEmpty(t, f.Advice)
			}
			require.Equal(t, row.found, found)
		})
	}
}
