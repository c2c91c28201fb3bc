package midassql

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
)

// A Finding is a setting of the server, or of a connection to it, that can lose payments, grant twice, hold
// up callbacks or keep an Inbox from handing out. docs/databases.md says what was seen with each.
type Finding struct {
	Setting, Value string // as the server calls it and has it
	Advice         string // what to set instead, and why
}

// String returns the finding as a sentence.
func (f Finding) String() string { return f.Setting + " is " + f.Value + ": " + f.Advice }

// Check reads the settings of the server and of one connection of the pool, and returns those that
// docs/databases.md warns of; none is a good sign and no proof. It sees nothing of what is not a setting there,
// such as a standby that is asynchronous on purpose, or readTimeout, writeTimeout and rejectReadOnly in the DSN
// of go-sql-driver. It changes nothing.
func (s *Store) Check(ctx context.Context) ([]Finding, error) {
	var found []Finding
	err := s.look(ctx, func(tx *sql.Tx) error {
		settings, err := s.grammar.settings(ctx, tx)
		found = findings(settings, s.grammar.rules)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("midassql: Check: %w", err)
	}
	return found, nil
}

// logFindings logs what Check finds. That it cannot be read is no reason to refuse the tables.
func (s *Store) logFindings(ctx context.Context) {
	found, err := s.Check(ctx)
	if err != nil {
		s.logAt(ctx, slog.LevelWarn, "midassql: the settings of the database cannot be read", slog.Any("error", err))
	}
	for _, f := range found {
		s.logAt(ctx, slog.LevelWarn, "midassql: a setting of the database can lose payments, or hold up callbacks or an Inbox (docs/databases.md)",
			slog.String("setting", f.Setting), slog.String("value", f.Value), slog.String("advice", f.Advice))
	}
}

// A rule says which values of a setting are wrong. Settings that a server does not have are not looked at.
type rule struct {
	setting string
	wrong   func(value string, all map[string]string) bool
	advice  string
}

func findings(settings map[string]string, rules []rule) (found []Finding) {
	for _, r := range rules {
		if value, there := settings[r.setting]; there && r.wrong(value, settings) {
			found = append(found, Finding{r.setting, value, r.advice})
		}
	}
	return found
}

// is reports whether a value is one of some.
func is(values ...string) func(string, map[string]string) bool {
	return func(value string, _ map[string]string) bool {
		for _, v := range values {
			if strings.EqualFold(value, v) {
				return true
			}
		}
		return false
	}
}

// above reports whether a value is a number above n.
func above(n int64) func(string, map[string]string) bool {
	return func(value string, _ map[string]string) bool {
		number, err := strconv.ParseInt(value, 10, 64)
		return err == nil && number > n
	}
}

func below(n int64) func(string, map[string]string) bool {
	return func(value string, _ map[string]string) bool {
		number, err := strconv.ParseInt(value, 10, 64)
		return err == nil && number < n
	}
}

// where is wrong, in a server that has another setting on.
func where(other string, wrong func(string, map[string]string) bool) func(string, map[string]string) bool {
	return func(value string, all map[string]string) bool {
		on := all[other]
		return (on == "1" || strings.EqualFold(on, "on")) && wrong(value, all)
	}
}

// namesAny reports whether synchronous_standby_names names any standby.
func namesAny(value string, _ map[string]string) bool { return strings.Contains(value, "*") }

// skipsNoLocks reports whether the version is one of MySQL before 8.0.1 or of MariaDB before 10.6, which do not
// know SKIP LOCKED.
func skipsNoLocks(version string, _ map[string]string) bool {
	var major, minor, patch int
	if n, _ := fmt.Sscanf(version, "%d.%d.%d", &major, &minor, &patch); n < 2 {
		return false
	}
	first := []int{8, 0, 1}
	if strings.Contains(version, "MariaDB") {
		first = []int{10, 6, 0}
	}
	return slices.Compare([]int{major, minor, patch}, first) < 0
}

const aReplica = "this is a replica: use the primary, since a replica lags behind and its writes are refused or lost"

// lockWait is how long a statement may wait for a lock, in seconds on MySQL; the answer is due after 1.8 s.
const lockWait = 1

var postgresRules = []rule{
	{"synchronous_commit", is("off", "local"), `set it to "on": a commit is answered before it is on disk, or on the standby, and a crash takes it back`},
	{"fsync", is("off"), `set it to "on": a crash of the machine loses commits`},
	{"full_page_writes", is("off"), `set it to "on": a crash of the machine can break pages`},
	{"synchronous_standby_names", namesAny, "name the standbys: with *, a running pg_basebackup counts as one"},
	{"in_recovery", is("true"), aReplica},
	{"transaction_read_only", is("on"), `connect to the node that takes writes (target_session_attrs=read-write)`},
}

func postgresSettings(ctx context.Context, tx *sql.Tx) (map[string]string, error) {
	return readSettings(ctx, tx, `SELECT name, setting FROM pg_settings WHERE name IN
		('synchronous_commit', 'fsync', 'full_page_writes', 'synchronous_standby_names', 'transaction_read_only')
		UNION ALL SELECT 'in_recovery', CASE WHEN pg_is_in_recovery() THEN 'true' ELSE 'false' END`)
}

var mysqlRules = []rule{
	{"version", skipsNoLocks, "use MySQL 8 or MariaDB 10.6 for an Inbox, whose payments are never handed out here, as the server does not know SKIP LOCKED; Store.Once needs nothing newer than MySQL 5.7"},
	{"innodb_flush_log_at_trx_commit", is("0", "2"), "set it to 1: a crash loses the last second"},
	{"sync_binlog", where("log_bin", func(value string, _ map[string]string) bool { return value != "1" }),
		"set it to 1: after a power cut the server rolls back what its binary log does not have"},
	{"binlog_format", where("log_bin", is("STATEMENT")), "set it to ROW or MIXED: InnoDB refuses to hand out payments of an Inbox"},
	{"innodb_lock_wait_timeout", above(lockWait), "put innodb_lock_wait_timeout=1 into the DSN: the server goes on waiting for a lock after its client gave up"},
	{"read_only", is("1", "ON", "NO_LOCK", "NO_LOCK_NO_ADMIN"), aReplica},
	{"character_set_client", is("gbk", "gb18030", "gb2312", "big5", "sjis", "cp932"),
		"use utf8mb4: with interpolateParams a quote behind 中 ends the text, and what follows runs as SQL"},
	{"rpl_semi_sync_master_timeout", where("rpl_semi_sync_master_enabled", below(3600000)), "set it to 3600000: after that time commits wait for no replica"},
	{"rpl_semi_sync_source_timeout", where("rpl_semi_sync_source_enabled", below(3600000)), "set it to 3600000: after that time commits wait for no replica"},
	{"rpl_semi_sync_master_wait_no_slave", where("rpl_semi_sync_master_enabled", is("OFF")), "set it to ON: without a replica nothing waits"},
	{"rpl_semi_sync_source_wait_no_replica", where("rpl_semi_sync_source_enabled", is("OFF")), "set it to ON: without a replica nothing waits"},
	{"group_replication_start_on_boot", is("OFF"), "set it to ON, or super_read_only=ON in the server's file: a member that comes back and does not join takes writes, which are lost"},
	{"group_replication_consistency", where("group_replication_enforce_update_everywhere_checks", is("EVENTUAL", "BEFORE_ON_PRIMARY_FAILOVER")),
		"put group_replication_consistency='BEFORE' into the DSN: a member that is behind does not find the order"},
	{"wsrep_sync_wait", where("wsrep_on", is("0")), "put wsrep_sync_wait=1 into the DSN: a node that is behind does not find the order"},
	{"prepared_statements", where("wsrep_on", above(0)),
		"put interpolateParams=true into the DSN, or write to one node only: a prepared SELECT swallows a rollback, and payments are granted twice"},
}

// mysqlSettings also counts what the driver prepares, which no variable tells.
func mysqlSettings(ctx context.Context, tx *sql.Tx) (map[string]string, error) {
	const prepared = `SHOW SESSION STATUS LIKE 'Com_stmt_prepare'`
	before, err := readSettings(ctx, tx, prepared)
	if err != nil {
		return nil, err
	}
	var one string
	if err := tx.QueryRowContext(ctx, `SELECT ?`, "1").Scan(&one); err != nil {
		return nil, err
	}
	after, err := readSettings(ctx, tx, prepared)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(mysqlRules))
	for i, r := range mysqlRules {
		names[i] = r.setting
	}
	settings, err := readSettings(ctx, tx, `SHOW VARIABLES WHERE Variable_name IN ('log_bin', 'wsrep_on', 'rpl_semi_sync_master_enabled',
		'rpl_semi_sync_source_enabled', 'group_replication_enforce_update_everywhere_checks', '`+strings.Join(names, "', '")+`')`)
	if err != nil {
		return nil, err
	}
	from, _ := strconv.ParseInt(before["Com_stmt_prepare"], 10, 64)
	to, _ := strconv.ParseInt(after["Com_stmt_prepare"], 10, 64)
	settings["prepared_statements"] = strconv.FormatInt(to-from, 10)
	return settings, nil
}

var sqliteRules = []rule{
	{"synchronous", is("0", "1"), "leave it at FULL (2): a crash of the machine loses commits"},
	{"journal_mode", is("off", "memory"), "use wal or delete: a crash breaks the file"},
	{"busy_timeout", is("0"), "set it, such as to 500 ms: a callback that meets another writer fails at once"},
	{"busy_timeout", above(1500), "set it below 1500 ms: a callback is answered after 1.8 s at the latest"},
}

func sqliteSettings(ctx context.Context, tx *sql.Tx) (map[string]string, error) {
	settings := make(map[string]string)
	for _, name := range []string{"synchronous", "journal_mode", "busy_timeout"} {
		var value string
		if err := tx.QueryRowContext(ctx, "PRAGMA "+name).Scan(&value); err != nil {
			return nil, err
		}
		settings[name] = value
	}
	return settings, nil
}

// readSettings reads rows of a name and a value.
func readSettings(ctx context.Context, tx *sql.Tx, statement string) (map[string]string, error) {
	settings := make(map[string]string)
	_, err := query(ctx, tx, func(rows *sql.Rows) (none struct{}, err error) {
		var name, value string
		err = rows.Scan(&name, &value)
		settings[name] = value
		return none, err
	}, statement)
	return settings, err
}
