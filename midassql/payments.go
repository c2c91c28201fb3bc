package midassql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/midas-go/midas"
)

// A State is where a payment is on its way to the player.
type State string

// The states.
const (
	StateDone      State = "done"      // Once granted it, or the game called Inbox.Done
	StateWaiting   State = "waiting"   // in an Inbox
	StateStuck     State = "stuck"     // waiting, and failing for 72 h
	StateCancelled State = "cancelled" // taken back by Inbox.Cancel or by a refund in full
	StateBroken    State = "broken"    // the grant ended its transaction: see ErrBroken
	StateNoted     State = "noted"     // not here yet: a refund came before the payment
)

// What the column state holds.
const (
	storedDone = iota
	storedWaiting
	storedCancelled
	storedBroken
	storedNoted
)

// states are the states by what is stored. A stuck payment is stored as waiting.
var states = []State{
	storedDone:      StateDone,
	storedWaiting:   StateWaiting,
	storedCancelled: StateCancelled,
	storedBroken:    StateBroken,
	storedNoted:     StateNoted,
}

// A Query selects payments or orders: those that match every field that is set. Set at least one of
// OpenID, BillNo, Number, Token and Metadata, or both From and To, or State to StateWaiting or StateStuck:
// nothing reads the whole history. A field that a look-up's rows do not have is an error.
//
// Each look-up uses an index and reads pages of 500 rows; between two pages it holds neither
// connection nor lock. Rows that are stored meanwhile may or may not come.
type Query struct {
	OpenID   string // the player's
	BillNo   string // payments only
	Number   string // payments only: one of Delivery.Numbers, as on the player's receipt
	Token    string // of the order; an order can be paid more than once
	Metadata string // the game's own reference
	State    State  // payments only
	AppID    string // payments only: of this offer id, or this mini game

	From, To time.Time // stored in [From, To), by Options.Now, to the second (attempts and acts: the millisecond); zero: no limit
}

// A condition is the WHERE of a look-up or of a claim.
type condition struct {
	sql  string
	args []any
	time string // what the rows of a look-up are ordered by first

	still string // of a claim: what has to hold when the row is locked
}

func (w *condition) and(sql string, args ...any) {
	if w.sql != "" {
		w.sql += " AND "
	}
	w.sql += sql
	w.args = append(w.args, args...)
}

// keyed reports whether q asks for a key of payments or orders.
func (q Query) keyed() bool { return q.OpenID+q.BillNo+q.Number+q.Token+q.Metadata != "" }

// rows are what a look-up reads.
type rows struct {
	name, table string   // "orders"; as in the statement
	time        string   // column
	fields      []string // of a Query that they have
}

var (
	paymentRows = rows{"payments", "d", "granted_at", []string{"OpenID", "BillNo", "Number", "Token", "Metadata", "AppID", "State"}}
	orderRows   = rows{"orders", "o", "saved_at", []string{"OpenID", "Token", "Metadata"}}
	attemptRows = rows{"attempts", "a", "tried_ms", []string{"OpenID", "BillNo", "Token"}}
	actRows     = rows{"acts", "a", "acted_ms", []string{"OpenID", "BillNo"}}
)

// where returns the condition for rows. A State is left to the caller.
func (q Query) where(of rows) (*condition, error) {
	w, narrow := new(condition), new(condition)
	for _, key := range []struct {
		field, column, value string
		w                    *condition
	}{
		{"OpenID", of.table + ".openid", q.OpenID, w}, {"BillNo", of.table + ".billno", q.BillNo, w}, {"Number", "n.number", q.Number, w},
		{"Token", of.table + ".token", q.Token, w}, {"Metadata", of.table + ".metadata", q.Metadata, w},
		{"AppID", of.table + ".app_id", q.AppID, narrow}, {"State", "", string(q.State), nil},
	} {
		switch {
		case key.value == "":
		case !slices.Contains(of.fields, key.field):
			return nil, errors.New("Query: " + of.name + " have no " + key.field)
		case key.w != nil:
			key.w.and(key.column+" = ?", key.value)
		}
	}
	at := of.table + "." + of.time
	// The few rows of a key are sorted. If an index on the time could give the order, PostgreSQL might
	// read that index from its beginning until it meets the key.
	w.time = at + " + 0"
	if w.sql == "" {
		w.time = at
		if q.From.IsZero() || q.To.IsZero() {
			return nil, errors.New("Query: want a player, a billno, a number, a token, metadata, or both From and To")
		}
	}
	if narrow.sql != "" {
		w.and(narrow.sql, narrow.args...)
	}
	q.times(w, at)
	return w, nil
}

// times adds From and To, in milliseconds for a column whose name says so.
func (q Query) times(w *condition, column string) {
	number := time.Time.Unix
	if strings.HasSuffix(column, "_ms") {
		number = time.Time.UnixMilli
	}
	if !q.From.IsZero() {
		w.and(column+" >= ?", number(q.From))
	}
	if !q.To.IsZero() {
		w.and(column+" < ?", number(q.To))
	}
}

// A Payment is a payment in the ledger.
type Payment struct {
	// Delivery is what the callback said, without Params and Numbers; or what was settled by hand. Of a
	// noted payment it is OpenID, BillNo and AppID.
	midas.Delivery

	State  State
	Stored time.Time // by Options.Now, when the transaction began; imported: when it was granted; to the second

	// DoneAt is when Inbox.Done came, by the database's clock; Stored for a payment that Once or
	// Store.Settle granted or Store.Import stored; zero unless State is StateDone.
	DoneAt time.Time

	Repeats   int    // callbacks answered OK, and settlements, for a payment that was already stored
	SettledBy string // who settled or imported it; empty: a callback came
	Note      string // why it was settled, cancelled or broken; that it was imported

	Refunded       midas.Amount // sum of its refunds, as far as their amounts are known
	RefundedInFull bool

	// MayHave says of a payment that waits or is cancelled that the player may have its items all the same:
	// it was handed out, and not given back for certain.
	MayHave bool

	// Set while the payment waits.
	Attempts  int       // failed ones, and the running one
	Due       time.Time // when Work hands it out next
	LastError string    // of the last attempt
}

// Payments iterates over the payments that q asks for, oldest first; with StateWaiting or StateStuck
// and no key of the payment set, in the order of OpenID and BillNo. To compare a day with Tencent's
// bill, ask for the day with a margin: transactions take a while, and the bill has a different clock.
// An error, including that of ctx, comes as the last pair.
func (s *Store) Payments(ctx context.Context, q Query) iter.Seq2[Payment, error] {
	return pages(ctx, s.look, "Payments", func(tx *sql.Tx, last *Payment) ([]Payment, error) {
		order := " ORDER BY w.openid, w.billno"
		from, w := " FROM midas_deliveries d"+joinInbox, new(condition)
		if q.keyed() || q.State != StateWaiting && q.State != StateStuck {
			var err error
			if w, err = q.where(paymentRows); err != nil {
				return nil, err
			}
			order = " ORDER BY " + w.time + ", d.billno, d.openid"
			if last != nil {
				w.and("d.granted_at >= ? AND (d.granted_at > ? OR d.billno > ? OR (d.billno = ? AND d.openid > ?))",
					last.Stored.Unix(), last.Stored.Unix(), last.BillNo, last.BillNo, last.OpenID)
			}
		} else { // the small table leads
			from = " FROM midas_inbox w JOIN midas_deliveries d ON d.openid = w.openid AND d.billno = w.billno"
			q.times(w, "d.granted_at")
			if q.AppID != "" {
				w.and("d.app_id = ?", q.AppID)
			}
			if last != nil {
				w.and("(w.openid > ? OR (w.openid = ? AND w.billno > ?))", last.OpenID, last.OpenID, last.BillNo)
			}
		}
		if q.Number != "" {
			from = " FROM midas_numbers n JOIN midas_deliveries d ON d.openid = n.openid AND d.billno = n.billno" + joinInbox
		}
		switch stored := slices.Index(states, q.State); {
		case q.State == "":
		case q.State == StateStuck:
			w.and("d.state = 1 AND w.stuck = 1")
		case stored < 0:
			return nil, errors.New("Query: unknown State " + strconv.Quote(string(q.State)))
		default:
			w.and("d.state = " + strconv.Itoa(stored))
		}
		return query(ctx, tx, scanPayment, s.write("SELECT "+paymentColumns+from+" WHERE "+w.sql+order+" LIMIT "+strconv.Itoa(pageSize)), w.args...)
	})
}

// Spent returns what players paid in [from, to) less what was refunded of it, by the time at which the payment
// was stored: what a backend asks before it places an order of a minor (未成年人; docs/backend.md, "Before the
// order"). openIDs are all those of one person, who has one for each login. It reads the payments of these
// players alone. What waits or is broken counts, since it is paid; so does what was cancelled, unless its
// refund is in the ledger.
//
// An order that is open is not paid: two orders at once can pass a limit together, unless the backend locks.
// An empty openIDs, an empty openid and a range that does not end after it begins are each a [*midas.FieldError], never 0.
func (s *Store) Spent(ctx context.Context, openIDs []string, from, to time.Time) (midas.Amount, error) {
	spent, err := s.spent(ctx, openIDs, from, to)
	if err != nil {
		return 0, fmt.Errorf("midassql: Spent: %w", err)
	}
	return spent, nil
}

func (s *Store) spent(ctx context.Context, openIDs []string, from, to time.Time) (spent midas.Amount, err error) {
	switch {
	case len(openIDs) == 0 || slices.Contains(openIDs, ""):
		return 0, &midas.FieldError{Field: "openIDs", Reason: "empty, or one of them is"}
	case !from.Before(to):
		return 0, &midas.FieldError{Field: "to", Reason: "is not after from"}
	}
	openIDs = slices.Compact(slices.Sorted(slices.Values(openIDs)))
	err = s.look(ctx, func(tx *sql.Tx) error {
		spent = 0
		for some := range slices.Chunk(openIDs, pageSize) {
			args := []any{from.Unix(), to.Unix()}
			for _, openID := range some {
				args = append(args, openID)
			}
			var part midas.Amount
			// A refund above the charge is no credit. What is noted only is no payment.
			err := tx.QueryRowContext(ctx, s.write(`SELECT CAST(COALESCE(SUM(CASE WHEN {d.full} THEN 0 ELSE d.charged - d.refunded END), 0) AS `+s.grammar.integer+`)
				FROM midas_deliveries d WHERE d.granted_at >= ? AND d.granted_at < ? AND d.state <> 4
					AND d.openid IN (?`+strings.Repeat(", ?", len(some)-1)+`)`),
				args...).Scan(&part)
			if err != nil {
				return err
			}
			spent += part
		}
		return nil
	})
	return spent, err
}

// The columns of a payment d and of its row w in the inbox.
const (
	joinInbox = " LEFT JOIN midas_inbox w ON w.openid = d.openid AND w.billno = d.billno"

	deliveryColumns = `d.openid, d.billno, d.token, d.zone, d.items, d.charged, d.called_at,
		d.app_id, d.metadata, d.pay_method, d.platform, d.provide_type`

	paymentColumns = deliveryColumns + `, d.state, d.granted_at, COALESCE(d.done_ms, 0), d.repeats, d.settled_by, d.note,
		d.refunded, CASE WHEN {d.full} THEN 1 ELSE 0 END, CASE WHEN d.may_have = 1 OR w.may_have = 1 OR w.lease_ms > 0 THEN 1 ELSE 0 END,
		COALESCE(w.stuck, 0), COALESCE(w.attempts, 0), COALESCE(w.due_ms, 0), COALESCE(w.last_error, '')`
)

// scanDelivery scans deliveryColumns, and more.
func scanDelivery(rows *sql.Rows, d *midas.Delivery, more ...any) (err error) {
	var (
		items  string
		called int64
	)
	if err := rows.Scan(append([]any{&d.OpenID, &d.BillNo, &d.Token, &d.ZoneID, &items, &d.Charged, &called,
		&d.AppID, &d.Metadata, &d.PayMethod, &d.Platform, &d.ProvideType}, more...)...); err != nil {
		return err
	}
	d.Time = time.Unix(called, 0)
	d.Items, err = parseItems(items)
	return err
}

func scanPayment(rows *sql.Rows) (p Payment, err error) {
	var (
		state, stuck          int
		stored, doneAt, dueAt int64
	)
	err = scanDelivery(rows, &p.Delivery, &state, &stored, &doneAt, &p.Repeats, &p.SettledBy, &p.Note,
		&p.Refunded, &p.RefundedInFull, &p.MayHave, &stuck, &p.Attempts, &dueAt, &p.LastError)
	p.Stored = time.Unix(stored, 0)
	if err == nil && state >= 0 && state < len(states) {
		p.State = states[state]
	}
	switch p.State {
	case StateDone: // done_ms stays NULL for what Once granted: Retry knows an inbox's payments by it
		p.DoneAt = p.Stored
		if doneAt > 0 {
			p.DoneAt = time.UnixMilli(doneAt)
		}
	case StateWaiting:
		p.Due = time.UnixMilli(dueAt)
		if stuck == 1 {
			p.State = StateStuck
		}
	}
	return p, err
}
