package midassql

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/midas-go/midas"
)

// Once returns the DeliverFunc that runs grant in a transaction, exactly once for each
// (OpenID, BillNo), however often, wherever and however concurrently it is called. A
// payment that was granted before is nil again, and so is one that an [Inbox] has stored. Two
// payments for one token are both granted: they are two (protocol.md 1, the whole flow).
//
// The transaction's steps are: the delivery is inserted under its unique key; the stored
// order is looked up by token and compared; grant runs; commit. An error anywhere rolls all
// of it back:
//
//   - [midas.ErrTokenNotFound], which is ret 3, if there is no such order (but see
//     Options.AcceptAppOrders); [ErrNoOrder], which is ret 1, where the order may exist all the
//     same;
//   - a [*midas.ParamError] naming openid or payitem if openid, item ids, prices or
//     quantities are not the order's. A different quantity is right only up to the order's
//     MaxQuantity; a lower charge is a discount and always right (protocol.md 5, delivery
//     callback). Zone and metadata are stored and not compared, nor is the sequence of the items;
//   - grant's own error, wrapped;
//   - any other error if the database failed or ctx ended.
//
// Errors that Options.Classify calls Again are answered by another try as long as ctx lasts. A
// commit that failed is not tried again unless the database said that it rolled back:
// nobody knows its outcome. That is an error, so ret 1 is answered, and the next
// callback finds the row or grants. nil is returned only after a commit known to have
// happened.
//
// grant works through tx alone, since it may run again after a rollback. It must return
// every error of tx, as it is or wrapped (on MySQL a deadlock has rolled everything back, and what
// follows would be committed on its own), must not commit or roll back itself, and gives up when
// ctx ends. It should be quick: ctx ends 1.5 s after the callback came. On MySQL and SQLite a
// grant that breaks these rules is caught: the result is [ErrBroken], a line in Options.Logger,
// and a payment that is [Broken]. Its callbacks are answered ret 1 until somebody has looked
// at what the player has. It is not caught if ctx ends in it as well, or if it went on after its
// transaction was lost and then returns an error with which the database may have rolled all
// of it back: a deadlock, a full disk, an interrupt.
//
// On MySQL every table that grant writes must be InnoDB too, and there must be no CREATE,
// ALTER, TRUNCATE or LOCK TABLES in it: each commits what was done until then, and what
// fails after it is never granted. On SQLite there must be no ON CONFLICT ROLLBACK, OR ROLLBACK or
// RAISE(ROLLBACK): they end the transaction, which the error does not tell.
//
// Once panics if grant is nil. The DeliverFunc is safe for concurrent use. It returns soon
// after ctx ended, apart from a commit under way, which takes as long as the driver waits.
func (s *Store) Once(grant func(ctx context.Context, tx *sql.Tx, d *midas.Delivery) error) midas.DeliverFunc {
	if grant == nil {
		panic("midassql: Once without a grant")
	}
	return func(ctx context.Context, d *midas.Delivery) error {
		_, err := s.store(ctx, d, entry{state: stateDone}, grant)
		if err != nil {
			return fmt.Errorf("midassql: %w", err)
		}
		return nil
	}
}

// States of a payment, as the column has them.
const (
	stateDone = iota
	stateWaiting
	stateCancelled
	stateBroken
)

// Places of arguments of insertPayment.
const (
	argItems = 4
	argMark  = 8
	argState = 9
	argNote  = 16
)

// An entry is how a payment comes into the ledger.
type entry struct {
	state           int
	settledBy, note string // by hand; else empty
}

func (e entry) byHand() bool { return e.settledBy != "" }

// store is the transaction that makes a payment one: it inserts d, compares it with the order
// and runs then. stored is false if d was there before, which is no error.
func (s *Store) store(ctx context.Context, d *midas.Delivery, e entry, then func(context.Context, *sql.Tx, *midas.Delivery) error) (stored bool, err error) {
	payitem, err := checkDelivery(d, e)
	if err != nil {
		return false, err
	}
	p := []any{d.OpenID, d.BillNo, d.Token, d.ZoneID, payitem, int64(d.Charged), d.Time.Unix(), s.opts.Now().Unix(),
		rand.Int64(), e.state, clip(d.AppID), clip(d.Metadata), clip(d.PayMethod), clip(d.Platform), d.ProvideType, clip(e.settledBy), clip(e.note)}
	ran := false
	err = s.inTx(ctx, func(tx *sql.Tx) error {
		// The insert is the first statement. It waits for a concurrent one of the same key,
		// and SQLite would refuse a write after a read that another write has outdated. The
		// unique key decides, never a read before the write (protocol.md 1, the whole flow).
		inserted, err := changed(ctx, tx, s.sql.insertPayment, p...)
		if err != nil {
			return err
		}
		if !inserted {
			return errStoredBefore // and roll back
		}
		if err := s.compare(ctx, tx, d, e); err != nil {
			return err
		}
		ran = true
		err = then(ctx, tx, d)
		if err != nil && s.mayEndTx(err) {
			return err
		}
		lost := s.checkMark(ctx, tx, d, p[argMark])
		if err != nil && errors.Is(lost, errNotOneTransaction) {
			return notOneTransaction(err)
		}
		return cmp.Or(err, lost)
	})
	if err != nil && ran && s.grammar.losesTx && !errors.Is(err, errOutcomeUnknown) {
		// The rollback may have come too late, or too early.
		if s.tookOver(ctx, d, p[argMark]) {
			err = notOneTransaction(err)
		}
		if errors.Is(err, errNotOneTransaction) {
			s.broken(ctx, d, p, err)
			return false, err
		}
	}
	if errors.Is(err, errStoredBefore) {
		return false, s.repeated(ctx, d, e)
	}
	return err == nil, err
}

// checkDelivery returns what of d goes into the column items, or a *midas.ParamError.
func checkDelivery(d *midas.Delivery, e entry) (payitem string, err error) {
	payitem, wrong := formatItems(d.Items)
	token := checkKey(d.Token)
	if e.byHand() {
		token = checkText(d.Token)
	}
	for _, p := range []struct{ param, reason string }{
		{"openid", checkKey(d.OpenID)}, {"billno", checkKey(d.BillNo)}, {"token", token}, {"zoneid", checkText(d.ZoneID)}, {"payitem", wrong},
	} {
		if p.reason != "" {
			return "", &midas.ParamError{Param: p.param, Reason: p.reason}
		}
	}
	return payitem, nil
}

// repeated returns nil if the row of d is visible outside the transaction whose insert was
// ignored, which means that another one has committed it. An ignored insert alone proves
// nothing: under INSERT IGNORE a trigger or a foreign key can cause one too, and in a table
// whose collation ignores case another player's payment can.
//
// The row is written and not only read, because it can be seen before it is safe: InnoDB
// shows a commit and then flushes it, and a crash in between takes the row back, after this
// callback was answered OK. Our own commit flushes everything before it; the same holds for
// synchronous replicas.
func (s *Store) repeated(ctx context.Context, d *midas.Delivery, e entry) error {
	return s.inTx(ctx, func(tx *sql.Tx) error {
		statement, args := s.sql.repeatPayment, []any{d.Token, d.OpenID, d.BillNo, d.Token}
		if e.byHand() { // the bill has no token to compare
			statement, args = s.sql.settlePayment, []any{d.OpenID, d.BillNo}
		}
		found, err := changed(ctx, tx, statement, args...)
		if err != nil || found {
			return err
		}
		p, err := s.state(ctx, tx, paymentID{d.OpenID, d.BillNo})
		switch {
		case err != nil && !errors.Is(err, ErrNoPayment):
			return err
		case err == nil && p.state == stateBroken:
			return ErrBroken
		}
		return errors.New("the database ignored the insert of a payment that is not there with this openid, billno and token: " +
			"is another payment's billno the same, is there a trigger or a foreign key on the table, or does a collation ignore case?")
	})
}

// checkMark returns an error unless the row that was inserted with mark is still what tx sees. After
// a tx.Rollback by the grant that is sql.ErrTxDone: nothing has happened.
func (s *Store) checkMark(ctx context.Context, tx *sql.Tx, d *midas.Delivery, mark any) error {
	if !s.grammar.losesTx {
		return nil
	}
	var found int64
	statement, args := s.inline(s.sql.paymentMark, d.OpenID, d.BillNo)
	err := tx.QueryRowContext(ctx, statement, args...).Scan(&found)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, sql.ErrNoRows), err == nil && found != mark:
		return errNotOneTransaction
	}
	return err
}

// notOneTransaction says so of a grant that failed with err, which it only quotes: what the grant
// wanted answered, ret 3 for one, is not right any more.
func notOneTransaction(err error) error {
	if errors.Is(err, errNotOneTransaction) {
		return err
	}
	return fmt.Errorf("%w (the grant returned: %s)", errNotOneTransaction, err.Error())
}

// brokenTime is for the look at what a grant that failed has left.
const brokenTime = time.Second

// tookOver reports whether the row of a transaction that failed is there all the same: the grant
// committed it, by DDL or by hand.
func (s *Store) tookOver(ctx context.Context, d *midas.Delivery, mark any) bool {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), brokenTime)
	defer cancel()
	var found int64
	err := s.inTx(ctx, func(tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, s.sql.paymentMark, d.OpenID, d.BillNo).Scan(&found)
	})
	return err == nil && found == mark
}

// broken stores that nobody knows what the player got, so that no callback grants again, or is
// answered OK, before somebody has looked. It leaves a row alone that another callback has
// granted meanwhile.
func (s *Store) broken(ctx context.Context, d *midas.Delivery, p []any, cause error) {
	finish, cancel := context.WithTimeout(context.WithoutCancel(ctx), brokenTime)
	defer cancel()
	p[argState], p[argNote] = stateBroken, clip(strings.TrimPrefix(cause.Error(), ErrBroken.Error()+": "))
	err := s.inTx(finish, func(tx *sql.Tx) error {
		there, err := changed(finish, tx, s.sql.breakPayment, p[argNote], d.OpenID, d.BillNo, p[argMark])
		if err == nil && !there {
			_, err = tx.ExecContext(finish, s.sql.insertPayment, p...)
		}
		return err
	})
	s.log(ctx, "midassql: a grant ended its transaction: part of it may be granted; see what the player has (docs/ledger.md, payments that need a person)",
		slog.String("openid", d.OpenID), slog.String("billno", d.BillNo), slog.Any("items", p[argItems]), slog.Any("error", errors.Join(cause, err)))
}

// compare returns an error unless d is a payment for the stored order.
func (s *Store) compare(ctx context.Context, tx *sql.Tx, d *midas.Delivery, e entry) error {
	if d.Token == "" {
		return nil // settled by hand without one
	}
	var (
		openID, items string
		maxQuantity   int
	)
	statement, args := s.inline(s.sql.order, d.Token)
	err := tx.QueryRowContext(ctx, statement, args...).Scan(&openID, &items, &maxQuantity)
	switch {
	case errors.Is(err, sql.ErrNoRows) && (s.opts.AcceptAppOrders || e.byHand()):
		return nil
	case errors.Is(err, sql.ErrNoRows):
		return s.tokenNotFound(ctx, tx, d.Time)
	case err != nil:
		return err
	}
	ordered, err := parseItems(items)
	if err != nil {
		return errors.New("the stored order cannot be read") // a ParamError in the tree would be about this callback
	}
	if d.OpenID != openID {
		return &midas.ParamError{Param: "openid", Reason: "is not the order's"}
	}
	return compareItems(d.Items, ordered, maxQuantity)
}

// youngCallback: for this long after its ts, a callback with an unknown token is not refused for
// good, because the node may be behind. (A clock that is ahead of Midas's makes it shorter.)
const youngCallback = 10 * time.Second

// tokenNotFound returns midas.ErrTokenNotFound, which refuses a payment for good (ret 3), only
// if the order can neither be still on its way nor have been deleted.
func (s *Store) tokenNotFound(ctx context.Context, tx *sql.Tx, called time.Time) error {
	var purged int64
	statement, args := s.inline(s.sql.meta, "purged")
	if err := tx.QueryRowContext(ctx, statement, args...).Scan(&purged); err != nil {
		return err
	}
	if purged > 0 {
		return fmt.Errorf("%w, but orders have been purged: look for the payment in Tencent's bill, and settle it (Store.Settle) or let it be refunded", ErrNoOrder)
	}
	if s.opts.Now().Sub(called) < youngCallback {
		return fmt.Errorf("%w, yet the callback is only seconds old: the next one finds the order if this node was behind (on Galera set wsrep_sync_wait=1); "+
			"if it does not, was the order handed out without SaveOrder?", ErrNoOrder)
	}
	return midas.ErrTokenNotFound
}

// compareItems returns a *midas.ParamError unless paid is what was ordered. The charged
// amount is not compared: it may be less (protocol.md 5, delivery callback).
func compareItems(paid, ordered []midas.Item, maxQuantity int) error {
	refuse := func(format string, args ...any) error {
		return &midas.ParamError{Param: "payitem", Reason: fmt.Sprintf(format, args...)}
	}
	if len(paid) != len(ordered) {
		return refuse("%d items, %d were ordered", len(paid), len(ordered))
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
			return refuse("an item is not the one ordered")
		case item.Price != want.Price:
			return refuse("the price of an item is %s, ordered was %s", item.Price, want.Price)
		case item.Quantity < fewest || item.Quantity > most:
			return refuse("the quantity of an item is %d, allowed is %d to %d", item.Quantity, fewest, most)
		}
	}
	return nil
}

func sortedItems(items []midas.Item) []midas.Item {
	return slices.SortedFunc(slices.Values(items), func(a, b midas.Item) int {
		return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Price, b.Price), cmp.Compare(a.Quantity, b.Quantity))
	})
}
