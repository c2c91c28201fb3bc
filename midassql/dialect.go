package midassql

import (
	"context"
	"database/sql"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
)

// A Dialect is the SQL that a database speaks. The zero value is refused.
type Dialect string

// The dialects, named like their files in the folder schema.
const (
	PostgreSQL Dialect = "postgresql"
	MySQL      Dialect = "mysql" // MariaDB too
	SQLite     Dialect = "sqlite"
)

// A grammar is everything in which a dialect differs, apart from the schema.
type grammar struct {
	classify func(error) Class // see Dialect.Classify; called for each error of a tree
	mayEndTx func(error) bool  // see Store.mayEndTx; called for each error of a tree

	// cancelledCommitMayHold: a COMMIT that was cancelled can succeed with less than was asked of it.
	// When ctx ends, lib/pq cancels the COMMIT; one that waits for a synchronous standby then succeeds
	// without the standby.
	cancelledCommitMayHold bool

	numbered   bool   // $1, $2 … instead of ?
	nowMS      string // the database's clock in unix milliseconds, fixed for a statement
	insertOnce string // the beginning of an INSERT that leaves a row that is there alone,
	ifAbsent   string // and its end
	skipLocked string // at the end of the SELECT that finds what to claim
	forUpdate  string // at the end of a SELECT that locks what it finds
	integer    string // what CAST calls an integer of 64 bits: a SUM of them is a decimal
	returning  bool   // that SELECT can stand in an UPDATE … RETURNING

	// claims is the isolation of a transaction that claims. InnoDB's default locks the gaps between
	// the rows it reads, and Deliver would wait for them.
	claims sql.IsolationLevel

	// beforeClaim is the first statement of a transaction that claims. PostgreSQL overestimates the cost
	// of looking at a player's other payments and would JIT-compile each claim, which takes half a second;
	// and a plan for any zone, made while little waited, may walk over the due payments of every zone.
	beforeClaim string

	// inline writes the arguments of a SELECT inside a writing transaction into its text. With prepared
	// SELECTs, a Galera node swallows the error that it rolled back.
	inline bool

	// Migrate: tryMigrationLock keeps two processes from changing the same tables at once, which IF NOT
	// EXISTS does not do; nil where the database does it by itself. hasColumn and hasIndex count what is
	// there. lockTimeout precedes a change, oldLockTimeout follows it where the limit would outlast the
	// transaction.
	tryMigrationLock            func(ctx context.Context, s *Store) (release func(), locked bool, err error)
	hasColumn, hasIndex         string
	lockTimeout, oldLockTimeout string

	settings func(context.Context, *sql.Tx) (map[string]string, error) // for Check
	rules    []rule
}

var grammars = map[Dialect]grammar{
	PostgreSQL: {
		classify:               classifyPostgres,
		mayEndTx:               postgresMayEndTx,
		cancelledCommitMayHold: true,

		numbered:    true,
		nowMS:       `CAST(EXTRACT(EPOCH FROM statement_timestamp()) * 1000 AS bigint)`,
		insertOnce:  `INSERT INTO`,
		ifAbsent:    ` ON CONFLICT DO NOTHING`,
		skipLocked:  ` FOR UPDATE SKIP LOCKED`,
		forUpdate:   ` FOR UPDATE`,
		integer:     `bigint`,
		returning:   true,
		beforeClaim: `SELECT set_config('jit', 'off', true), set_config('plan_cache_mode', 'force_custom_plan', true)`,

		tryMigrationLock: tryPostgresLock,
		hasColumn: `SELECT COUNT(*) FROM information_schema.columns
			WHERE table_schema = current_schema() AND table_name = ? AND column_name = ?`,
		hasIndex:    `SELECT COUNT(*) FROM pg_index WHERE indexrelid = to_regclass(quote_ident(current_schema()) || '.' || ?) AND indisvalid`,
		lockTimeout: `SET LOCAL lock_timeout = '500ms'`,

		settings: postgresSettings,
		rules:    postgresRules,
	},
	MySQL: {
		classify: classifyMySQL,
		mayEndTx: mysqlMayEndTx,

		nowMS:      `TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(3)) DIV 1000`,
		insertOnce: `INSERT IGNORE INTO`, // hides more than duplicates: see repeated
		skipLocked: ` FOR UPDATE SKIP LOCKED`,
		forUpdate:  ` FOR UPDATE`,
		integer:    `SIGNED`,
		claims:     sql.LevelReadCommitted,
		inline:     true,

		tryMigrationLock: tryMySQLLock,
		hasColumn: `SELECT COUNT(*) FROM information_schema.columns
			WHERE table_schema = DATABASE() AND table_name = ? AND column_name = ?`,
		hasIndex:       `SELECT COUNT(*) FROM information_schema.statistics WHERE table_schema = DATABASE() AND index_name = ?`,
		lockTimeout:    `SET @midas_lock_wait_timeout = @@SESSION.lock_wait_timeout, SESSION lock_wait_timeout = 1`,
		oldLockTimeout: `SET SESSION lock_wait_timeout = @midas_lock_wait_timeout`,

		settings: mysqlSettings,
		rules:    mysqlRules,
	},
	SQLite: {
		classify: classifySQLite,
		mayEndTx: sqliteMayEndTx,

		nowMS:      `CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)`,
		insertOnce: `INSERT INTO`,
		ifAbsent:   ` ON CONFLICT DO NOTHING`,
		integer:    `INTEGER`,
		returning:  true,

		hasColumn: `SELECT COUNT(*) FROM pragma_table_info(?) WHERE name = ?`,
		hasIndex:  `SELECT COUNT(*) FROM sqlite_master WHERE type = 'index' AND name = ?`,

		settings: sqliteSettings,
		rules:    sqliteRules,
	},
}

const defaultPrefix = "midas_"

// write returns a statement as the Store's database reads it: {now} is the database's clock,
// {insert} … {once} is an INSERT that leaves a row that is there alone, {full} whether a payment's refunds
// add up to what was charged, {d.full} the same of the table d, and SELECT … {lock} locks its row.
func (s *Store) write(statement string) string {
	statement = strings.NewReplacer(defaultPrefix, s.opts.TablePrefix, "{now}", s.grammar.nowMS,
		"{insert}", s.grammar.insertOnce, "{once}", s.grammar.ifAbsent, "{full}", full(""), "{d.full}", full("d."), "{lock}", s.grammar.forUpdate).Replace(statement)
	if !s.grammar.numbered {
		return statement
	}
	var numbered strings.Builder
	for i, part := range strings.Split(statement, "?") {
		if i > 0 {
			numbered.WriteString("$" + strconv.Itoa(i))
		}
		numbered.WriteString(part)
	}
	return numbered.String()
}

// inline returns a SELECT inside a writing transaction, and its arguments, as the dialect wants
// them: see grammar. Texts are written as hexadecimal literals, which hold anything.
func (s *Store) inline(statement string, args ...string) (string, []any) {
	if !s.grammar.inline {
		anys := make([]any, len(args))
		for i, arg := range args {
			anys[i] = arg
		}
		return statement, anys
	}
	for _, arg := range args {
		statement = strings.Replace(statement, "?", "x'"+hex.EncodeToString([]byte(arg))+"'", 1)
	}
	return statement, nil
}

// statements are the package's fixed SQL, in the dialect and with the table prefix of a Store.
type statements struct {
	// orders
	saveOrder, order, orderElsewhere, oldOrders, meta, setMeta string
	againDueOrders, firstDueOrders, claimOrder                 string
	// payments
	insertPayment, takeNoted, repeatPayment, paymentMark, settlePayment, breakPayment, fillNoted string
	insertNumber, payment, paymentState, donePayment, cancelPayment, reopenPayment, regenerate   string
	// inbox
	insertWaiting, removeWaiting, release, accept string
	anyWaiting, nextGeneration, now, handedOut    string
	seeZone, addZone, zones, forgetZone           string
	// what happened
	insertAct, insertAttempt, olderAttempts, oldAttempts, deleteAttempt string
	environment, addEnvironment                                         string
	// import
	importWaiting, imported string
	// refunds
	noteEarly, noteRefund, insertRefund, repeatRefund, refund string
	mayHave, numbered, refundsSince, anotherApp, acted        string
	refundElsewhere                                           string
}

// full is whether a payment was refunded in full. A charge of 0 without a refund is not, and what will be
// charged for one that is only noted is not known.
func full(table string) string {
	return strings.ReplaceAll("(T.refunded_all > 0 OR T.state <> 4 AND T.refunded > 0 AND T.refunded >= T.charged)", "T.", table)
}

// fillNoted makes a payment of the row that an early refund has noted under its key.
func fillNoted(state string) string {
	var set strings.Builder
	for _, column := range strings.Split(rowColumns, ",")[3:] { // after openid, billno, state
		set.WriteString(", " + strings.TrimSpace(column) + " = ?")
	}
	return `UPDATE midas_deliveries SET state = ` + state + set.String() + ` WHERE openid = ? AND billno = ? AND state = 4`
}

// selectDue finds orders that are due.
func selectDue(when string) string {
	return `SELECT ` + orderColumns + `, o.asked_ms, CASE WHEN ` + orderPaid + ` THEN 1 ELSE 0 END
		FROM midas_orders o WHERE ` + when + ` AND o.token >= ? AND o.token < ? ORDER BY o.asked_ms, o.token LIMIT ?`
}

func (s *Store) statements() statements {
	return statements{
		saveOrder: s.write(`INSERT INTO midas_orders (token, openid, zone, items, metadata, max_quantity, saved_at)
			VALUES (?, ?, ?, ?, ?, ?, ?)`),
		order:          s.write(`SELECT ` + orderColumns + ` FROM midas_orders o WHERE o.openid = ? AND o.token = ?`),
		orderElsewhere: s.write(`SELECT COUNT(*) FROM midas_orders WHERE token = ? AND openid <> ?`),
		oldOrders:      s.write(`SELECT token, saved_at FROM midas_orders WHERE saved_at >= ? AND saved_at <= ? ORDER BY saved_at LIMIT ?`),
		// Two statements, so that each walks over the index and meets nothing but what is due.
		againDueOrders: s.write(selectDue(`o.asked_ms > 0 AND o.asked_ms <= ?`)),
		firstDueOrders: s.write(selectDue(`o.asked_ms = 0 AND o.saved_at <= ?`)),
		claimOrder: s.write(`UPDATE midas_orders SET asked_ms = ?
			WHERE midas_orders.openid = ? AND midas_orders.token = ? AND midas_orders.asked_ms = ?`),
		meta:    s.write(`SELECT value FROM midas_meta WHERE name = ?`),
		setMeta: s.write(`UPDATE midas_meta SET value = ? WHERE name = ? AND value < ?`),

		insertPayment: s.write(`{insert} midas_deliveries (` + rowColumns + `)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?){once}`),
		// The charge is an argument: MySQL's CASE would see the new one, the others' the old one.
		takeNoted: s.write(fillNoted(`CASE WHEN refunded_all > 0 OR refunded > 0 AND refunded >= ? THEN 2 ELSE ? END`)),
		fillNoted: s.write(fillNoted(`?`)),
		// A payment that was settled by hand takes the token, the charge and the app of the first callback, whatever
		// was typed. token_typed comes last: MySQL sees the new values of columns to the left.
		repeatPayment: s.write(`UPDATE midas_deliveries SET repeats = repeats + 1, token = ?,
				charged = CASE WHEN token_typed = 1 THEN ? ELSE charged END,
				app_id = CASE WHEN token_typed = 1 THEN ? ELSE app_id END, token_typed = 0
			WHERE openid = ? AND billno = ? AND (token = ? OR token_typed = 1) AND state NOT IN (3, 4)`),
		breakPayment:  s.write(`UPDATE midas_deliveries SET state = 3, note = ? WHERE openid = ? AND billno = ? AND mark = ?`),
		settlePayment: s.write(`UPDATE midas_deliveries SET repeats = repeats + 1 WHERE openid = ? AND billno = ? AND state NOT IN (3, 4)`),
		paymentMark:   s.write(`SELECT mark FROM midas_deliveries WHERE openid = ? AND billno = ?`),
		insertNumber:  s.write(`{insert} midas_numbers (number, app, openid, billno) VALUES (?, ?, ?, ?){once}`),

		payment: s.write(`SELECT ` + paymentColumns + ` FROM midas_deliveries d` + joinInbox + ` WHERE d.openid = ? AND d.billno = ?`),
		paymentState: s.write(`SELECT state, generation, note, refunded, charged, CASE WHEN {full} THEN 1 ELSE 0 END
			FROM midas_deliveries WHERE openid = ? AND billno = ?`),
		donePayment: s.write(`UPDATE midas_deliveries SET state = 0, done_ms = {now}
			WHERE openid = ? AND billno = ? AND state = 1 AND generation <= ?`),
		cancelPayment: s.write(`UPDATE midas_deliveries SET state = 2, note = ? WHERE openid = ? AND billno = ? AND state = 1`),
		reopenPayment: s.write(`UPDATE midas_deliveries SET state = 1, generation = ?
			WHERE openid = ? AND billno = ? AND state = 0 AND done_ms IS NOT NULL AND generation < ? AND NOT {full}`),
		regenerate: s.write(`UPDATE midas_deliveries SET generation = ? WHERE openid = ? AND billno = ? AND state = 1 AND generation < ?`),

		insertWaiting: s.write(`INSERT INTO midas_inbox (openid, billno, zone, base, stored_ms, due_ms, may_have)
			VALUES (?, ?, ?, ?, {now}, {now}, ?)`),
		removeWaiting: s.write(`DELETE FROM midas_inbox WHERE openid = ? AND billno = ?`),
		release: s.write(`UPDATE midas_inbox SET due_ms = CASE WHEN due_ms = 0 THEN {now} ELSE {now} + ? END, lease_ms = 0, accepted = 0, attempts = attempts - ?,
				failing_ms = ?, stuck = ?, last_error = ?, may_have = CASE WHEN ? = 1 THEN 1 ELSE may_have END
			WHERE openid = ? AND billno = ? AND owner = ? AND claims = ? AND lease_ms > {now}`),
		accept: s.write(`UPDATE midas_inbox SET accepted = 1
			WHERE openid = ? AND billno = ? AND owner = ? AND claims = ? AND lease_ms > {now}`),

		// What was handed out and not given back may be saved.
		handedOut: s.write(`SELECT CASE WHEN may_have = 1 OR lease_ms > 0 THEN 1 ELSE 0 END FROM midas_inbox
			WHERE openid = ? AND billno = ?{lock}`),
		anyWaiting: s.write(`SELECT COUNT(*) FROM midas_inbox WHERE openid = ?`),

		now:            s.write(`SELECT {now}`),
		nextGeneration: s.write(`UPDATE midas_meta SET value = value + 1 WHERE name = 'generation'`),

		seeZone:    s.write(`UPDATE midas_zones SET seen_ms = {now} WHERE name = ?`),
		addZone:    s.write(`{insert} midas_zones (name, seen_ms) VALUES (?, {now}){once}`),
		zones:      s.write(`SELECT name, CASE WHEN seen_ms >= {now} - ? THEN 1 ELSE 0 END FROM midas_zones`),
		forgetZone: s.write(`DELETE FROM midas_zones WHERE name = ?`),

		insertAct: s.write(`{insert} midas_acts (` + actColumns + `) VALUES (?, ?, ?, ?, ?, ?, ?){once}`),
		// A batch may be stored twice: its commit got no answer.
		insertAttempt: s.write(`{insert} midas_attempts (` + attemptColumns + `) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?){once}`),
		olderAttempts: s.write(fmt.Sprintf(`SELECT id FROM midas_attempts WHERE openid = ? AND billno = ?
			ORDER BY tried_ms DESC, id DESC LIMIT %d OFFSET %d`, 2*attemptsBatch, attemptsOfPayment)),
		oldAttempts:   s.write(`SELECT openid, billno, id FROM midas_attempts WHERE tried_ms < ? ORDER BY tried_ms LIMIT ?`),
		deleteAttempt: s.write(`DELETE FROM midas_attempts WHERE openid = ? AND billno = ? AND id = ?`),

		environment:    s.write(`SELECT word FROM midas_meta WHERE name = 'environment'`),
		addEnvironment: s.write(`{insert} midas_meta (name, value, word) VALUES ('environment', 0, ?){once}`),

		// Without a time of Done, as for what Once granted: Retry hands none of it out.
		importWaiting: s.write(`UPDATE midas_deliveries SET state = 0, done_ms = NULL WHERE openid = ? AND billno = ? AND state = 1`),
		imported:      s.write(fmt.Sprintf(`SELECT reason FROM midas_acts WHERE openid = ? AND billno = ? AND id = %d`, importID)),

		noteEarly: s.write(`{insert} midas_deliveries (openid, billno, state, app_id, called_at, granted_at, refunded, refunded_all,
				token, zone, items, charged)
			VALUES (?, ?, 4, ?, ?, ?, ?, ?, '', '', '', 0){once}`),
		// The state comes first: MySQL would add to a sum that is new already.
		noteRefund: s.write(`UPDATE midas_deliveries
			SET state = CASE WHEN state = 1 AND (refunded_all > 0 OR ? = 1 OR refunded + ? >= charged) THEN 2 ELSE state END,
				refunded = refunded + ?, refunded_all = refunded_all + ?, app_id = CASE WHEN app_id = '' THEN ? ELSE app_id END
			WHERE openid = ? AND billno = ?`),
		insertRefund: s.write(`{insert} midas_refunds (app_id, refund_id, openid, billno, amount, refunded_at, noted_at,
				early, granted, in_full, refunded, charged, noted_by, reason)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?){once}`),
		repeatRefund: s.write(`UPDATE midas_refunds SET repeats = repeats + 1
			WHERE app_id = ? AND refund_id = ? AND openid = ? AND billno = ? AND amount = ?`),
		refund: s.write(`SELECT early, granted, in_full, refunded, charged FROM midas_refunds
			WHERE app_id = ? AND refund_id = ? AND openid = ? AND billno = ?`),
		refundElsewhere: s.write(`SELECT COUNT(*) FROM midas_refunds WHERE app_id = ? AND refund_id = ? AND (openid <> ? OR billno <> ?)`),
		mayHave:         s.write(`UPDATE midas_deliveries SET may_have = 1 WHERE openid = ? AND billno = ? AND state = 2`),
		numbered: s.write(`SELECT n.openid, n.billno, d.app_id FROM midas_numbers n
			JOIN midas_deliveries d ON d.openid = n.openid AND d.billno = n.billno WHERE n.number = ?`),
		anotherApp: s.write(`SELECT COUNT(*) FROM midas_refunds WHERE openid = ? AND billno = ? AND app_id <> ?`),
		acted:      s.write(`SELECT COUNT(*) FROM midas_acts WHERE openid = ? AND billno = ? AND id = ?`),
		refundsSince: s.write(`SELECT r.app_id, r.refund_id, r.openid, r.billno, r.amount, r.refunded_at, r.noted_at, r.noted_by, r.reason, d.zone
			FROM midas_refunds r JOIN midas_deliveries d ON d.openid = r.openid AND d.billno = r.billno
			WHERE r.noted_at >= ? AND (r.noted_at > ? OR r.app_id > ? OR r.app_id = ? AND r.refund_id > ?) AND r.granted = 1
			ORDER BY r.noted_at, r.app_id, r.refund_id LIMIT ?`),
	}
}
