package midassql

import (
	"database/sql"
	"encoding/hex"
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

// A grammar is all in which a dialect differs, apart from the schema.
type grammar struct {
	numbered   bool   // $1, $2 … instead of ?
	nowMS      string // the database's clock in unix milliseconds, fixed for a statement
	insertOnce string // the beginning of an INSERT that leaves a row that is there alone,
	ifAbsent   string // and its end
	skipLocked string // at the end of the SELECT that finds what to claim
	returning  bool   // that SELECT can stand in an UPDATE … RETURNING

	// claims is the isolation of a transaction that claims. InnoDB's default locks the gaps between
	// the rows it reads, and Deliver would wait for them.
	claims sql.IsolationLevel

	// beforeClaim is what a transaction that claims begins with. PostgreSQL overestimates the look at a
	// player's other payments and would JIT-compile each claim, which takes half a second; and a plan
	// for any zone, made while little waited, may walk over what is due in all of them.
	beforeClaim string

	// losesTx: statements may find that their transaction has ended without a word, so that the row
	// is looked at before the commit.
	losesTx bool

	// inline: arguments of those SELECTs are written into them. With prepared SELECTs, a
	// Galera node swallows the error that it rolled back.
	inline bool

	// What Migrate asks: whether a column or an index is there.
	hasColumn, hasIndex string
	lockTimeout         string // what it sets before a change,
	oldLockTimeout      string // and after it, where that would outlast the transaction
}

var grammars = map[Dialect]grammar{
	PostgreSQL: {
		numbered:    true,
		nowMS:       `CAST(EXTRACT(EPOCH FROM statement_timestamp()) * 1000 AS bigint)`,
		insertOnce:  `INSERT INTO`,
		ifAbsent:    ` ON CONFLICT DO NOTHING`,
		skipLocked:  ` FOR UPDATE SKIP LOCKED`,
		returning:   true,
		beforeClaim: `SELECT set_config('jit', 'off', true), set_config('plan_cache_mode', 'force_custom_plan', true)`,
		hasColumn: `SELECT COUNT(*) FROM information_schema.columns
			WHERE table_schema = current_schema() AND table_name = ? AND column_name = ?`,
		hasIndex:    `SELECT COUNT(*) FROM pg_index WHERE indexrelid = to_regclass(quote_ident(current_schema()) || '.' || ?) AND indisvalid`,
		lockTimeout: `SET LOCAL lock_timeout = '500ms'`,
	},
	MySQL: {
		nowMS:      `TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(3)) DIV 1000`,
		insertOnce: `INSERT IGNORE INTO`, // hides more than duplicates: see repeated
		skipLocked: ` FOR UPDATE SKIP LOCKED`,
		claims:     sql.LevelReadCommitted,
		losesTx:    true,
		inline:     true,
		hasColumn: `SELECT COUNT(*) FROM information_schema.columns
			WHERE table_schema = DATABASE() AND table_name = ? AND column_name = ?`,
		hasIndex:       `SELECT COUNT(*) FROM information_schema.statistics WHERE table_schema = DATABASE() AND index_name = ?`,
		lockTimeout:    `SET @midas_lock_wait_timeout = @@SESSION.lock_wait_timeout, SESSION lock_wait_timeout = 1`,
		oldLockTimeout: `SET SESSION lock_wait_timeout = @midas_lock_wait_timeout`,
	},
	SQLite: {
		nowMS:      `CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)`,
		insertOnce: `INSERT INTO`,
		ifAbsent:   ` ON CONFLICT DO NOTHING`,
		returning:  true,
		losesTx:    true, // a full disk rolls back
		hasColumn:  `SELECT COUNT(*) FROM pragma_table_info(?) WHERE name = ?`,
		hasIndex:   `SELECT COUNT(*) FROM sqlite_master WHERE type = 'index' AND name = ?`,
	},
}

const defaultPrefix = "midas_"

// write returns a statement as the Store's database reads it: {now} is the database's clock,
// {insert} … {once} is an INSERT that leaves a row that is there alone.
func (s *Store) write(statement string) string {
	statement = strings.NewReplacer(defaultPrefix, s.opts.TablePrefix, "{now}", s.grammar.nowMS,
		"{insert}", s.grammar.insertOnce, "{once}", s.grammar.ifAbsent).Replace(statement)
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

// inline returns statement and its arguments as the dialect wants those of a SELECT in a
// transaction that writes. Texts are written as hexadecimal literals, which hold anything.
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
	saveOrder, order, oldOrders, meta, setMeta string
	// payments
	insertPayment, repeatPayment, paymentMark, settlePayment, breakPayment string
	paymentState, donePayment, cancelPayment, reopenPayment                string
	regenerate, doneSince                                                  string
	// inbox
	insertWaiting, removeWaiting, release, accept string
	anyWaiting, nextGeneration, now               string
	seeZone, addZone, zones, forgetZone           string
	// mini games
	orderItems, paymentItems, saveShopOrder, refunded       string
	insertRefund, repeatRefund, insertRefunded, notePayment string
}

// refunded is 1 where the refunds of a row of deliveries are all that was charged. A refund of 0 is one
// whose amount is not told: of all.
const refunded = `SELECT CASE WHEN MIN(r.amount) = 0 OR SUM(r.amount) >= midas_deliveries.charged THEN 1 ELSE 0 END
	FROM midas_refunds r WHERE r.openid = midas_deliveries.openid AND r.billno = midas_deliveries.billno`

func (s *Store) statements() statements {
	return statements{
		saveOrder: s.write(`INSERT INTO midas_orders (token, openid, zone, items, metadata, max_quantity, saved_at)
			VALUES (?, ?, ?, ?, ?, ?, ?)`),
		order:     s.write(`SELECT openid, items, max_quantity FROM midas_orders WHERE token = ?`),
		oldOrders: s.write(`SELECT token, saved_at FROM midas_orders WHERE saved_at >= ? AND saved_at <= ? ORDER BY saved_at LIMIT ?`),
		meta:      s.write(`SELECT value FROM midas_meta WHERE name = ?`),
		setMeta:   s.write(`UPDATE midas_meta SET value = ? WHERE name = ? AND value < ?`),

		insertPayment: s.write(`{insert} midas_deliveries (openid, billno, token, zone, items, charged, called_at, granted_at,
				mark, state, app_id, metadata, pay_method, platform, provide_type, settled_by, note)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?){once}`),
		// A payment that was settled without its token takes that of the first callback.
		repeatPayment: s.write(`UPDATE midas_deliveries SET repeats = repeats + 1, token = ?
			WHERE openid = ? AND billno = ? AND token IN (?, '') AND state <> 3`),
		breakPayment:  s.write(`UPDATE midas_deliveries SET state = 3, note = ? WHERE openid = ? AND billno = ? AND mark = ?`),
		settlePayment: s.write(`UPDATE midas_deliveries SET repeats = repeats + 1 WHERE openid = ? AND billno = ? AND state <> 3`),
		paymentMark:   s.write(`SELECT mark FROM midas_deliveries WHERE openid = ? AND billno = ?`),

		paymentState: s.write(`SELECT state, generation, note FROM midas_deliveries WHERE openid = ? AND billno = ?`),
		donePayment: s.write(`UPDATE midas_deliveries SET state = 0, done_ms = {now}
			WHERE openid = ? AND billno = ? AND state = 1 AND generation <= ?`),
		cancelPayment: s.write(`UPDATE midas_deliveries SET state = 2, note = ? WHERE openid = ? AND billno = ? AND state = 1`),
		reopenPayment: s.write(`UPDATE midas_deliveries SET state = 1, generation = ?
			WHERE openid = ? AND billno = ? AND state = 0 AND done_ms IS NOT NULL AND generation < ?`),
		regenerate: s.write(`UPDATE midas_deliveries SET generation = ? WHERE openid = ? AND billno = ? AND state = 1 AND generation < ?`),
		doneSince: s.write(`SELECT openid, billno, zone, done_ms, CASE WHEN items = '' THEN 1 ELSE 0 END,
				(` + refunded + `) FROM midas_deliveries WHERE done_ms >= ? AND done_ms < ? AND state = 0
				AND (done_ms > ? OR openid > ? OR (openid = ? AND billno > ?))
			ORDER BY done_ms, openid, billno LIMIT ?`),

		insertWaiting: s.write(`INSERT INTO midas_inbox (openid, billno, zone, base, stored_ms, due_ms) VALUES (?, ?, ?, ?, {now}, {now})`),
		removeWaiting: s.write(`DELETE FROM midas_inbox WHERE openid = ? AND billno = ?`),
		release: s.write(`UPDATE midas_inbox SET due_ms = CASE WHEN due_ms = 0 THEN {now} ELSE {now} + ? END, lease_ms = 0, accepted = 0, attempts = attempts - ?,
				failing_ms = ?, stuck = ?, last_error = ?
			WHERE openid = ? AND billno = ? AND owner = ? AND claims = ? AND lease_ms > {now}`),
		accept: s.write(`UPDATE midas_inbox SET accepted = 1
			WHERE openid = ? AND billno = ? AND owner = ? AND claims = ? AND lease_ms > {now}`),

		anyWaiting: s.write(`SELECT COUNT(*) FROM midas_inbox WHERE openid = ?`),

		now:            s.write(`SELECT {now}`),
		nextGeneration: s.write(`UPDATE midas_meta SET value = value + 1 WHERE name = 'generation'`),

		seeZone:    s.write(`UPDATE midas_zones SET seen_ms = {now} WHERE name = ?`),
		addZone:    s.write(`{insert} midas_zones (name, seen_ms) VALUES (?, {now}){once}`),
		zones:      s.write(`SELECT name, CASE WHEN seen_ms >= {now} - ? THEN 1 ELSE 0 END FROM midas_zones`),
		forgetZone: s.write(`DELETE FROM midas_zones WHERE name = ?`),

		orderItems:   s.write(`SELECT items FROM midas_orders WHERE token = ?`),
		paymentItems: s.write(`SELECT items FROM midas_deliveries WHERE openid = ? AND billno = ?`),
		saveShopOrder: s.write(`{insert} midas_orders (token, openid, zone, items, metadata, max_quantity, saved_at)
			VALUES (?, ?, ?, ?, ?, ?, ?){once}`),
		refunded: s.write(`SELECT (` + refunded + `) FROM midas_deliveries WHERE openid = ? AND billno = ?`),
		insertRefund: s.write(`{insert} midas_refunds (refund_id, openid, billno, amount, noted_at)
			VALUES (?, ?, ?, ?, ?){once}`),
		repeatRefund: s.write(`UPDATE midas_refunds SET repeats = repeats + 1 WHERE refund_id = ? AND openid = ? AND billno = ?`),
		insertRefunded: s.write(`{insert} midas_deliveries (openid, billno, token, zone, items, charged, called_at, granted_at, state, app_id, note)
			VALUES (?, ?, '', '', '', 0, ?, ?, 2, ?, ?){once}`),
		notePayment: s.write(`UPDATE midas_deliveries SET note = ? WHERE openid = ? AND billno = ?`),
	}
}
