package midassql

import (
	"context"
	"database/sql"
	"errors"
	"iter"
	"strconv"
	"time"

	"github.com/midas-go/midas"
)

// A State is where a payment is on its way to the player.
type State string

// The states.
const (
	Done      State = "done"      // Once granted it, or the game called Inbox.Done
	Waiting   State = "waiting"   // in an Inbox
	Stuck     State = "stuck"     // waiting, and failed for 72 h
	Cancelled State = "cancelled" // taken back by Inbox.Cancel
	Broken    State = "broken"    // the grant ended its transaction: see [Store.Once]
)

// A Query says which payments or orders are looked for: those for which everything that is set
// holds. At least one of OpenID, BillNo, Token and Metadata, or both From and To, must be set, or
// a State of Waiting or Stuck: nothing reads the whole history.
//
// Each look-up uses an index and reads pages of 500 rows; between two pages it holds neither
// connection nor lock. Rows that are stored meanwhile may or may not come.
type Query struct {
	OpenID   string // the player's
	BillNo   string // payments only
	Token    string // of the order; an order can be paid more than once
	Metadata string // the game's own reference
	State    State  // payments only

	From, To time.Time // stored in [From, To), by Options.Now, to the second; zero: no limit
}

// A condition is the WHERE of a look-up or of a claim.
type condition struct {
	sql  string
	args []any
	time string // of a look-up: what the rows are ordered by first
}

func (w *condition) and(sql string, args ...any) {
	if w.sql != "" {
		w.sql += " AND "
	}
	w.sql += sql
	w.args = append(w.args, args...)
}

// where returns the condition for rows whose time is in column. ok is whether all of q can be
// asked of them.
func (q Query) where(column string, ok bool) (*condition, error) {
	if !ok {
		return nil, errors.New("orders have neither a billno nor a state")
	}
	w := new(condition)
	for _, key := range []struct{ column, value string }{{"openid", q.OpenID}, {"billno", q.BillNo}, {"token", q.Token}, {"metadata", q.Metadata}} {
		if key.value != "" {
			w.and(key.column+" = ?", key.value)
		}
	}
	// The rows of a key are few and get sorted. Where the order could be had from the index on the
	// time, PostgreSQL might read that from its beginning until it meets the key.
	w.time = column + " + 0"
	if w.sql == "" {
		w.time = column
		if q.From.IsZero() || q.To.IsZero() {
			return nil, errors.New("Query: want a player, a billno, a token, metadata, or both From and To")
		}
	}
	q.times(w, column)
	return w, nil
}

func (q Query) times(w *condition, column string) {
	if !q.From.IsZero() {
		w.and(column+" >= ?", q.From.Unix())
	}
	if !q.To.IsZero() {
		w.and(column+" < ?", q.To.Unix())
	}
}

// A Payment is a payment in the ledger.
type Payment struct {
	// Delivery is what the callback said, without Params; or what was settled by hand.
	midas.Delivery

	State  State
	Stored time.Time // by Options.Now, when the transaction began; to the second
	Done   time.Time // when Inbox.Done came; zero for what Once granted

	Repeats   int    // callbacks answered OK, and settlements, for a payment that was already stored
	SettledBy string // who settled it by hand; empty: a callback came
	Note      string // why it was settled, cancelled or broken, or its last refund

	// Of a payment that waits.
	Attempts  int       // that failed, and the running one
	Due       time.Time // when Work hands it out next
	LastError string    // of the last attempt
}

// Payments iterates over the payments that q asks for, oldest first; with State Waiting or Stuck and
// no key of the payment set, in the order of OpenID and BillNo. To compare a day with Tencent's
// bill, ask for the day with a margin: transactions take a while, and the bill's clock is another
// one. An error, also that of ctx, comes as the last pair.
func (s *Store) Payments(ctx context.Context, q Query) iter.Seq2[Payment, error] {
	return pages(ctx, s, "Payments", func(tx *sql.Tx, last *Payment) ([]Payment, error) {
		order := " ORDER BY openid, billno"
		join, w := " LEFT JOIN", new(condition)
		if q.OpenID+q.BillNo+q.Token+q.Metadata != "" || q.State != Waiting && q.State != Stuck {
			var err error
			if w, err = q.where("granted_at", true); err != nil {
				return nil, err
			}
			order = " ORDER BY " + w.time + ", openid, billno"
			if last != nil {
				w.and("granted_at >= ? AND (granted_at > ? OR openid > ? OR (openid = ? AND billno > ?))",
					last.Stored.Unix(), last.Stored.Unix(), last.OpenID, last.OpenID, last.BillNo)
			}
		} else {
			join = " JOIN"
			q.times(w, "granted_at")
			if last != nil {
				w.and("(openid > ? OR (openid = ? AND billno > ?))", last.OpenID, last.OpenID, last.BillNo)
			}
		}
		switch q.State {
		case "":
		case Done:
			w.and("state = 0")
		case Waiting:
			w.and("state = 1")
		case Stuck:
			w.and("state = 1 AND stuck = 1")
		case Cancelled:
			w.and("state = 2")
		case Broken:
			w.and("state = 3")
		default:
			return nil, errors.New("Query: unknown State " + strconv.Quote(string(q.State)))
		}
		from := " FROM midas_deliveries" + join + " midas_inbox USING (openid, billno)"
		if join == " JOIN" { // the small table leads
			from = " FROM midas_inbox" + join + " midas_deliveries USING (openid, billno)"
		}
		return query(ctx, tx, scanPayment, s.write("SELECT "+paymentColumns+from+" WHERE "+w.sql+order+" LIMIT "+strconv.Itoa(pageSize)), w.args...)
	})
}

const deliveryColumns = `openid, billno, token, midas_deliveries.zone, items, charged, called_at,
	app_id, metadata, pay_method, platform, provide_type`

const paymentColumns = deliveryColumns + `, state, granted_at, COALESCE(done_ms, 0), repeats, settled_by, note,
	COALESCE(stuck, 0), COALESCE(attempts, 0), COALESCE(due_ms, 0), COALESCE(last_error, '')`

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
		&stuck, &p.Attempts, &dueAt, &p.LastError)
	p.Stored = time.Unix(stored, 0)
	if doneAt > 0 {
		p.Done = time.UnixMilli(doneAt)
	}
	switch state {
	case stateDone:
		p.State = Done
	case stateWaiting:
		p.State, p.Due = Waiting, time.UnixMilli(dueAt)
		if stuck == 1 {
			p.State = Stuck
		}
	case stateCancelled:
		p.State = Cancelled
	case stateBroken:
		p.State = Broken
	}
	return p, err
}
