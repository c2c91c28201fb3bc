package midassql

import (
	"context"
	"database/sql"
	"iter"
	"math/rand/v2"
	"strconv"
	"time"
)

// An ActKind is what somebody did to a payment.
type ActKind string

// The kinds of acts.
const (
	ActSettle          ActKind = "settle"            // Store.Settle, Inbox.Settle
	ActCancel          ActKind = "cancel"            // Inbox.Cancel
	ActRetry           ActKind = "retry"             // Inbox.Retry put it back
	ActMoveZone        ActKind = "move_zone"         // Inbox.MoveZone
	ActRefund          ActKind = "refund"            // Store.Refund, by hand or because the payment system told of it
	ActImport          ActKind = "import"            // Store.Import, once for each payment
	ActDoneAfterCancel ActKind = "done_after_cancel" // Inbox.Done came for a payment that was cancelled: the player has the items
)

// An Act is what somebody did to a payment by hand. It is written in the transaction that did it: an act is
// there if and only if it happened. Acts are never deleted.
type Act struct {
	Kind           ActKind
	OpenID, BillNo string
	Time           time.Time // by Options.Now, to the millisecond
	By             string    // Settlement.By, Refund.By, or who [By] said; may be empty
	Reason         string    // why, at most 255 bytes

	id int64 // of the call; one call may act on many payments
}

type byKey struct{}

// By returns a context that says who acts: [Inbox.Cancel], [Inbox.Retry], [Inbox.MoveZone] and [Store.Import]
// write it down for [Store.Acts]. A Settlement and a Refund name their own.
func By(ctx context.Context, who string) context.Context {
	return context.WithValue(ctx, byKey{}, who)
}

func actor(ctx context.Context) string {
	who, _ := ctx.Value(byKey{}).(string)
	return who
}

// newAct returns an act of who is named in ctx.
func (s *Store) newAct(ctx context.Context, kind ActKind, reason string) Act {
	return Act{Kind: kind, Time: s.opts.Now(), By: actor(ctx), Reason: reason, id: rand.Int64()}
}

const actColumns = `openid, billno, id, acted_ms, act, actor, reason`

func (a Act) values() []any {
	return []any{a.id, a.Time.UnixMilli(), string(a.Kind), clip(a.By), clip(a.Reason)}
}

// storeAct writes down an act on one payment.
func (s *Store) storeAct(ctx context.Context, tx *sql.Tx, a Act, id paymentID) error {
	_, err := tx.ExecContext(ctx, s.sql.insertAct, append([]any{id.openID, id.billNo}, a.values()...)...)
	return err
}

// storeDoneAfterCancel writes down, once for each payment, that the game has granted what was cancelled.
func (s *Store) storeDoneAfterCancel(ctx context.Context, tx *sql.Tx, id paymentID, note string) error {
	a := s.newAct(ctx, ActDoneAfterCancel, note)
	a.id = 0 // a Done that is called again finds the act
	return s.storeAct(ctx, tx, a, id)
}

// storeActs locks the payments of the inbox that match where and writes down an act on each. What follows in
// tx acts on those alone: see actedOn.
func (s *Store) storeActs(ctx context.Context, tx *sql.Tx, a Act, where condition) error {
	_, err := tx.ExecContext(ctx, s.write(`INSERT INTO midas_acts (`+actColumns+`)
		SELECT midas_inbox.openid, midas_inbox.billno, ?, ?, ?, ?, ? FROM midas_inbox WHERE `+where.sql+s.grammar.forUpdate),
		append(a.values(), where.args...)...)
	return err
}

// actedOn is the condition for the payments of the inbox that an act was written down for.
func actedOn(a Act) condition {
	return condition{sql: `EXISTS (SELECT 1 FROM midas_acts WHERE midas_acts.openid = midas_inbox.openid
		AND midas_acts.billno = midas_inbox.billno AND midas_acts.id = ?)`, args: []any{a.id}}
}

// Acts iterates over the acts that q asks for, oldest first: on a payment or on a player's, by OpenID and
// BillNo, or those of a time range. The other fields of a Query are not an act's. An error, including that
// of ctx, comes as the last pair.
func (s *Store) Acts(ctx context.Context, q Query) iter.Seq2[*Act, error] {
	return pages(ctx, s.look, "Acts", func(tx *sql.Tx, last **Act) ([]*Act, error) {
		w, err := q.where(actRows)
		if err != nil {
			return nil, err
		}
		if last != nil {
			a, at := *last, (*last).Time.UnixMilli()
			w.and("a.acted_ms >= ? AND (a.acted_ms > ? OR a.id > ? OR a.id = ? AND (a.openid > ? OR a.openid = ? AND a.billno > ?))",
				at, at, a.id, a.id, a.OpenID, a.OpenID, a.BillNo)
		}
		return query(ctx, tx, scanAct, s.write(`SELECT `+actColumns+` FROM midas_acts a WHERE `+w.sql+
			` ORDER BY `+w.time+`, a.id, a.openid, a.billno LIMIT `+strconv.Itoa(pageSize)), w.args...)
	})
}

func scanAct(rows *sql.Rows) (*Act, error) {
	var (
		a     Act
		acted int64
	)
	err := rows.Scan(&a.OpenID, &a.BillNo, &a.id, &acted, &a.Kind, &a.By, &a.Reason)
	a.Time = time.UnixMilli(acted)
	return &a, err
}
