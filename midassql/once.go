package midassql

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/midas-go/midas"
)

// Once returns the DeliverFunc that runs grant exactly once for each (OpenID, BillNo), in one transaction
// with the payment's row, however often and wherever it is called. nil means committed: now, by an earlier
// call, or by an [Inbox]; it calls [midas.MarkRepeat] for a payment that was there before. A payment that was
// refunded in full before it came (see [Store.Refund]) is nil, too, and is not granted. Two payments for one
// token are both granted (protocol.md 1, the whole flow).
//
// A payment that does not match the stored order is a [*midas.ParamError]; a lower charge is a discount
// (protocol.md 5, delivery callback). If there is no order it is [midas.ErrTokenNotFound], or [ErrNoOrder] if
// the order may exist all the same; but see Options.AcceptAppOrders. Other errors are grant's, wrapped, the
// database's or ctx's. A transaction that fails with [ClassAgain] is tried again while ctx lasts; a commit
// without an answer is not: the next callback finds the row or grants.
//
// grant works through tx alone, since it may run again, returns every error of tx, gives up when ctx ends
// (1.5 s after the callback came), and never commits or rolls back. docs/ledger.md, "What a grant may not do",
// has the rules of each database; a breach that is noticed is [ErrBroken].
//
// Once panics if grant is nil. The DeliverFunc is safe for concurrent use. It returns soon after ctx ends,
// apart from a commit under way, which takes as long as the driver waits.
func (s *Store) Once(grant func(ctx context.Context, tx *sql.Tx, d *midas.Delivery) error) midas.DeliverFunc {
	if grant == nil {
		panic("midassql: Once without a grant")
	}
	return func(ctx context.Context, d *midas.Delivery) error {
		_, err := s.record(ctx, d, entry{state: storedDone}, grant)
		if err != nil {
			return fmt.Errorf("midassql: Once: %w", err)
		}
		return nil
	}
}

// An entry says how a payment was recorded.
type entry struct {
	state           int
	settledBy, note string // by hand; else empty
	imported        bool
}

func (e entry) byHand() bool { return e.settledBy != "" }

// refuse returns the error about a parameter that is missing or wrong: a person reads it, or Midas.
func (e entry) refuse(param, field, reason string) error {
	if e.byHand() {
		return &midas.FieldError{Param: param, Field: field, Reason: reason}
	}
	return &midas.ParamError{Param: param, Reason: reason}
}

// A row is a payment in the table deliveries.
type row struct {
	openID, billNo                       string
	state                                int
	token, zone, items                   string
	charged, calledAt, grantedAt, mark   int64
	appID, metadata, payMethod, platform string
	provideType                          int
	settledBy, note                      string
	tokenTyped                           int
}

// rowColumns are the columns of args.
const rowColumns = `openid, billno, state, token, zone, items, charged, called_at, granted_at, mark,
	app_id, metadata, pay_method, platform, provide_type, settled_by, note, token_typed`

func (r row) args() []any {
	return []any{r.openID, r.billNo, r.state, r.token, r.zone, r.items, r.charged, r.calledAt, r.grantedAt, r.mark,
		r.appID, r.metadata, r.payMethod, r.platform, r.provideType, r.settledBy, r.note, r.tokenTyped}
}

// filling returns the arguments of fillNoted.
func (r row) filling() []any { return append(r.args()[2:], r.openID, r.billNo) }

// newRow returns the row of d, or the error about it. Its mark is random: with it, the transaction
// that writes the row knows the row again.
func (s *Store) newRow(d *midas.Delivery, e entry) (row, error) {
	items, err := checkDelivery(d, e)
	r := row{
		openID: d.OpenID, billNo: d.BillNo, state: e.state, token: d.Token, zone: d.ZoneID, items: items,
		charged: int64(d.Charged), calledAt: d.Time.Unix(), grantedAt: s.opts.Now().Unix(), mark: rand.Int64(),
		appID: clip(d.AppID), metadata: clip(d.Metadata), payMethod: clip(d.PayMethod), platform: clip(d.Platform),
		provideType: d.ProvideType,
		settledBy:   clip(e.settledBy), note: clip(e.note),
	}
	if e.byHand() {
		r.tokenTyped = 1
	}
	return r, err
}

// record stores d exactly once: in one transaction it writes the row, compares it with the order and
// runs grant. recorded is false if d was there before, or was refunded in full before it came; neither is an
// error.
func (s *Store) record(ctx context.Context, d *midas.Delivery, e entry, grant func(context.Context, *sql.Tx, *midas.Delivery) error) (recorded bool, err error) {
	r, err := s.newRow(d, e)
	if err != nil {
		return false, err
	}
	if s.opts.AcceptAppOrders && !e.byHand() { // settlement has looked
		if err := s.orderedByAnother(ctx, d); err != nil {
			return false, err
		}
	}
	// Each of these is the first statement of its transaction. It waits for a concurrent one on the same key,
	// and SQLite would refuse a write after a read that another write has outdated. The unique key decides,
	// never a read before the write (protocol.md 1, the whole flow). An INSERT that was ignored keeps a shared
	// lock on MySQL, so it is rolled back before the row of an early refund is looked for.
	for _, noted := range []bool{false, true} {
		statement, args := s.sql.insertPayment, r.args()
		if noted {
			statement, args = s.sql.takeNoted, append([]any{r.charged}, r.filling()...)
		}
		var (
			p        paymentState
			repeat   bool
			granting bool // in this try, or in one before it
			ordered  StoredOrder
			others   int // early refunds of another app
		)
		err = s.inTx(ctx, func(tx *sql.Tx) error {
			p, ordered, others = paymentState{}, StoredOrder{}, 0 // a try before this one may have set them
			written, err := changed(ctx, tx, statement, args...)
			repeat = err == nil && !written && noted
			switch {
			case err != nil:
				return err
			case repeat:
				return s.repeated(ctx, tx, d, e)
			case !written:
				return errStoredBefore // and roll back
			}
			if ordered, err = s.compare(ctx, tx, d, e); err != nil {
				return err
			}
			if err := s.saveNumbers(ctx, tx, d); err != nil {
				return err
			}
			if noted {
				if p, err = s.state(ctx, tx, paymentID{d.OpenID, d.BillNo}); err != nil {
					return err
				}
				statement, args := s.inline(s.sql.anotherApp, d.OpenID, d.BillNo, r.appID)
				if err := tx.QueryRowContext(ctx, statement, args...).Scan(&others); err != nil {
					return err
				}
				if p.full {
					return e.refunded()
				}
			}
			granting = true
			err = grant(ctx, tx, d)
			if err != nil && s.mayEndTx(err) {
				return err
			}
			lost := s.checkMark(ctx, tx, r)
			if err != nil && errors.Is(lost, errNotOneTransaction) {
				return notOneTransaction(err)
			}
			return cmp.Or(err, lost)
		})
		switch s.outcome(ctx, r, granting, err) {
		case recordedNow:
			if repeat && !e.byHand() {
				midas.MarkRepeat(ctx)
			}
			if p.refunded > p.charged {
				s.logOver(ctx, paymentID{d.OpenID, d.BillNo}, p.refunded, p.charged)
			}
			if others > 0 {
				s.log(ctx, "midassql: a refund was noted before its payment and under another AppID: is it noted under the payment's, too?",
					slog.String("openid", d.OpenID), slog.String("billno", d.BillNo), slog.String("app_id", r.appID))
			}
			if !repeat && !p.full {
				s.warnOfZone(ctx, d, ordered)
			}
			return !repeat && !p.full, nil
		case notRecorded:
			if errors.Is(err, errNotOrdered) {
				err = s.notOrdered(ctx, d)
			}
			return false, err
		case broken:
			err = notOneTransaction(err)
			s.storeBroken(ctx, d, r, err)
			return false, err
		}
	}
	return false, err
}

// refunded is what becomes of a payment that was refunded in full before it came: a callback is answered OK
// and the payment stored as cancelled, a person is told and nothing is stored.
func (e entry) refunded() error {
	if e.byHand() {
		return ErrRefunded
	}
	return nil
}

// saveNumbers stores what the payment system calls d. A number that cannot be stored byte for byte is left
// out: a payment is not refused because of it.
func (s *Store) saveNumbers(ctx context.Context, tx *sql.Tx, d *midas.Delivery) error {
	for _, number := range d.Numbers {
		if checkKey(number) != "" {
			continue
		}
		if _, err := tx.ExecContext(ctx, s.sql.insertNumber, number, clip(d.AppID), d.OpenID, d.BillNo); err != nil {
			return err
		}
	}
	return nil
}

// An outcome is what became of a payment whose transaction has ended.
type outcome int

const (
	notRecorded    outcome = iota // everything was rolled back, or the commit got no answer
	recordedNow                   // the row and what the grant did are committed, or that it was there
	recordedBefore                // the row was there
	broken                        // the grant ended its transaction: part of what it did may be committed
)

// outcome says what became of r, whose transaction ended with err. granting is whether a grant has run:
// one that failed may have ended its transaction by itself, and the rollback came too late, or too early.
func (s *Store) outcome(ctx context.Context, r row, granting bool, err error) outcome {
	mayBeBroken := granting && !errors.Is(err, errOutcomeUnknown)
	switch {
	case err == nil:
		return recordedNow
	case mayBeBroken && (errors.Is(err, errNotOneTransaction) || s.isThere(ctx, r)):
		return broken
	case errors.Is(err, errStoredBefore):
		return recordedBefore
	}
	return notRecorded
}

// checkDelivery returns the payitem of d, or an error for each text that cannot be stored.
func checkDelivery(d *midas.Delivery, e entry) (payitem string, err error) {
	payitem, wrong := formatItems(d.Items)
	token := checkKey(d.Token)
	if e.byHand() {
		token = checkText(d.Token)
	}
	if e.imported && len(d.Items) == 0 { // the earlier backend did not keep them
		wrong = ""
	}
	provideType := ""
	if d.ProvideType < math.MinInt32 || d.ProvideType > math.MaxInt32 { // MySQL's INSERT IGNORE would store another number
		provideType = "is out of range"
	}
	for _, p := range []struct{ param, field, reason string }{
		{"openid", "OpenID", checkKey(d.OpenID)}, {"billno", "BillNo", checkKey(d.BillNo)}, {"token", "Token", token},
		{"zoneid", "ZoneID", checkText(d.ZoneID)}, {"payitem", "Items", wrong}, {"providetype", "ProvideType", provideType},
	} {
		if p.reason != "" {
			err = errors.Join(err, e.refuse(p.param, p.field, p.reason))
		}
	}
	return payitem, err
}

// repeated returns nil if tx sees the row of d, and is not the transaction whose insert was
// ignored: then another transaction has committed it. An ignored insert alone proves nothing: with
// INSERT IGNORE a trigger or a foreign key can cause it, and so can another player's payment in a
// table whose collation ignores case.
//
// The row is written and not only read, because it can be seen before it is safe: InnoDB
// shows a commit and then flushes it, and a crash in between takes the row back, after this
// callback was answered OK. Our own commit flushes everything before it; the same holds for
// synchronous replicas.
func (s *Store) repeated(ctx context.Context, tx *sql.Tx, d *midas.Delivery, e entry) error {
	statement, args := s.sql.repeatPayment, []any{d.Token, int64(d.Charged), clip(d.AppID), d.OpenID, d.BillNo, d.Token}
	if e.byHand() { // the bill has no token to compare
		statement, args = s.sql.settlePayment, []any{d.OpenID, d.BillNo}
	}
	found, err := changed(ctx, tx, statement, args...)
	if err != nil {
		return err
	}
	if found && !e.byHand() {
		return s.saveNumbers(ctx, tx, d)
	}
	p, err := s.state(ctx, tx, paymentID{d.OpenID, d.BillNo})
	switch {
	case err != nil && !errors.Is(err, ErrNoPayment):
		return err
	case found && p.full:
		return ErrRefunded
	case found:
		return s.saveNumbers(ctx, tx, d)
	case err == nil && p.state == storedBroken:
		return ErrBroken
	case err == nil && p.state == storedNoted:
		return errors.New("somebody has just changed the payment by hand: the next call grants it")
	}
	return errors.New("the database ignored the insert of a payment that is not there with this openid, billno and token: " +
		"is another payment's billno the same, is there a trigger or a foreign key on the table, or does a collation ignore case?")
}

// checkMark returns an error unless tx still sees r: a grant can end its transaction without an error, by
// an error that it ignores (a deadlock on MySQL, a full disk on SQLite) or by itself. After a tx.Rollback
// by the grant the error is sql.ErrTxDone: nothing has happened.
func (s *Store) checkMark(ctx context.Context, tx *sql.Tx, r row) error {
	var found int64
	statement, args := s.inline(s.sql.paymentMark, r.openID, r.billNo)
	err := tx.QueryRowContext(ctx, statement, args...).Scan(&found)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, sql.ErrNoRows), err == nil && found != r.mark:
		return errNotOneTransaction
	}
	return err
}

// notOneTransaction returns errNotOneTransaction for a grant that failed with err. It quotes err and
// does not wrap it, so that an answer the grant asked for, such as ret 3, is not given.
func notOneTransaction(err error) error {
	if errors.Is(err, errNotOneTransaction) {
		return err
	}
	return fmt.Errorf("%w (the grant returned: %s)", errNotOneTransaction, err.Error())
}

// brokenTime limits the look at what a failed grant has left, and the note about it.
const brokenTime = time.Second

// isThere reports whether r is there although its transaction failed: the grant committed it, by DDL
// or by hand.
func (s *Store) isThere(ctx context.Context, r row) bool {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), brokenTime)
	defer cancel()
	var found int64
	err := s.look(ctx, func(tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, s.sql.paymentMark, r.openID, r.billNo).Scan(&found)
	})
	return err == nil && found == r.mark
}

// storeBroken stores r as broken, so that no callback grants it again, or is answered OK, before
// support has looked at what the player has. It does not touch a row that another callback has granted
// meanwhile. A row that is only noted would be granted by the next callback, so it becomes broken, too.
func (s *Store) storeBroken(ctx context.Context, d *midas.Delivery, r row, cause error) {
	finish, cancel := context.WithTimeout(context.WithoutCancel(ctx), brokenTime)
	defer cancel()
	r.state, r.note = storedBroken, clip(strings.TrimPrefix(cause.Error(), ErrBroken.Error()+": "))
	store := func(tx *sql.Tx) error {
		there, err := changed(finish, tx, s.sql.breakPayment, r.note, r.openID, r.billNo, r.mark)
		if err == nil && !there {
			there, err = changed(finish, tx, s.sql.fillNoted, r.filling()...)
		}
		if err == nil && !there {
			there, err = changed(finish, tx, s.sql.insertPayment, r.args()...)
		}
		switch {
		case err != nil:
			return err
		case !there:
			return errStoredBefore
		}
		return s.saveNumbers(finish, tx, d)
	}
	err := s.inTx(finish, store)
	if errors.Is(err, errStoredBefore) { // an early refund was noted just before the INSERT
		err = s.inTx(finish, store)
	}
	if errors.Is(err, errStoredBefore) { // another callback has granted it
		err = nil
	}
	s.log(ctx, "midassql: a grant ended its transaction: part of it may be granted; see what the player has (docs/repair.md)",
		slog.String("openid", r.openID), slog.String("billno", r.billNo), slog.String("items", r.items), slog.Any("error", errors.Join(cause, err)))
}

// errNotOrdered is compare's error where the player has no order with the token: see notOrdered.
var errNotOrdered = errors.New("the player has no order with this token")

// compare returns the stored order, and an error unless d is a payment for it. Metadata is not compared,
// and another zone is no error: see warnOfZone.
func (s *Store) compare(ctx context.Context, tx *sql.Tx, d *midas.Delivery, e entry) (StoredOrder, error) {
	if d.Token == "" {
		return StoredOrder{}, nil // settled by hand without one
	}
	o, stored, err := s.order(ctx, tx, d.OpenID, d.Token)
	switch {
	case err != nil:
		return StoredOrder{}, err
	case !stored && (s.opts.AcceptAppOrders || e.byHand()): // nor is it another player's: that was looked at before
		return StoredOrder{}, nil
	case !stored:
		return StoredOrder{}, errNotOrdered
	}
	if reason := compareItems(d.Items, o.Items, o.MaxQuantity); reason != "" {
		return StoredOrder{}, e.refuse("payitem", "Items", reason)
	}
	return o, nil
}

// warnOfZone logs a payment in another zone than its order's. It is granted, in the zone of the callback:
// nobody can forge that, and an honest payment is not refused because Midas writes the zone otherwise.
func (s *Store) warnOfZone(ctx context.Context, d *midas.Delivery, o StoredOrder) {
	if o.Token != "" && zoneOf(o.ZoneID) != zoneOf(d.ZoneID) {
		s.logAt(ctx, slog.LevelWarn, "midassql: a payment came with another zone than its order has; it is granted in the callback's",
			slog.String("openid", d.OpenID), slog.String("billno", d.BillNo), slog.String("order_zone", o.ZoneID), slog.String("callback_zone", d.ZoneID))
	}
}

// youngCallback: for this long after its ts, a callback with an unknown token is not refused for
// good, because the node may be behind. (A clock that is ahead of Midas's makes it shorter.)
const youngCallback = 10 * time.Second

// notOrdered returns why the player has no order with the token of d. Neither the token of another player's
// order nor the mark of Purge is on the player's shard, so that both are read after the transaction.
func (s *Store) notOrdered(ctx context.Context, d *midas.Delivery) error {
	if err := s.orderedByAnother(ctx, d); err != nil {
		return err
	}
	return s.tokenNotFound(ctx, d.Time)
}

// orderedByAnother returns an error if another player has an order with the token of d.
func (s *Store) orderedByAnother(ctx context.Context, d *midas.Delivery) error {
	another, err := s.elsewhere(ctx, s.sql.orderElsewhere, d.Token, d.OpenID)
	if another {
		err = &midas.ParamError{Param: "openid", Reason: "is not the order's"}
	}
	return err
}

// tokenNotFound returns midas.ErrTokenNotFound, which refuses a payment for good (ret 3), only
// if the order can neither be still on its way nor have been deleted.
func (s *Store) tokenNotFound(ctx context.Context, called time.Time) error {
	var purged int64
	err := s.look(ctx, func(tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, s.sql.meta, "purged").Scan(&purged)
	})
	if err != nil {
		return err
	}
	if purged > 0 {
		return fmt.Errorf("%w, but orders have been purged: look for the payment in Tencent's bill, and settle it (Store.Settle) or let it be refunded", ErrNoOrder)
	}
	if s.opts.Now().Sub(called) < youngCallback {
		return fmt.Errorf("%w, yet the callback is only seconds old: the next one finds the order if this node was behind (on Galera set wsrep_sync_wait=1); "+
			"if it does not, was the order handed out without SaveOrder?", ErrNoOrder)
	}
	return fmt.Errorf("%w: was the order handed out without SaveOrder, or placed by another backend (Options.AcceptAppOrders)?", midas.ErrTokenNotFound)
}

// compareItems says in what paid differs from what was ordered; "" if it does not. The charged
// amount is not compared: it may be less (protocol.md 5, delivery callback).
func compareItems(paid, ordered []midas.Item, maxQuantity int) (reason string) {
	if len(paid) != len(ordered) {
		return fmt.Sprintf("%d items, %d were ordered", len(paid), len(ordered))
	}
	// As multisets: nothing says that Midas keeps the sequence.
	paid, ordered = sortedItems(paid), sortedItems(ordered)
	for i, item := range paid {
		want := ordered[i]
		fewest, most := want.Quantity, want.Quantity
		if maxQuantity > 0 {
			fewest, most = 1, maxQuantity
		}
		switch {
		case item.ID != want.ID:
			return "an item is not the one ordered"
		case item.Price != want.Price:
			return fmt.Sprintf("the price of an item is %s, ordered was %s", item.Price, want.Price)
		case item.Quantity < fewest || item.Quantity > most:
			return fmt.Sprintf("the quantity of an item is %d, allowed is %d to %d", item.Quantity, fewest, most)
		}
	}
	return ""
}

func sortedItems(items []midas.Item) []midas.Item {
	return slices.SortedFunc(slices.Values(items), func(a, b midas.Item) int {
		return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Price, b.Price), cmp.Compare(a.Quantity, b.Quantity))
	})
}
