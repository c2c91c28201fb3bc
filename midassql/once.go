package midassql

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/midas-go/midas"
)

// Once returns the DeliverFunc that runs grant in a transaction, exactly once for each
// (OpenID, BillNo), however often, wherever and however concurrently it is called. A
// payment that was granted before is nil again. Two payments for one token are both
// granted: they are two (protocol.md 1).
//
// The transaction's steps are: the delivery is inserted under its unique key; the stored
// order is looked up by token and compared; grant runs; commit. An error anywhere rolls all
// of it back:
//
//   - [midas.ErrTokenNotFound] if there is no such order (but see Options.AcceptAppOrders);
//   - a [*midas.ParamError] naming openid or payitem if openid, item ids, prices or
//     quantities are not the order's. A different quantity is right only up to the order's
//     MaxQuantity; a lower charge is a discount and always right (protocol.md 5). Zone and
//     metadata are stored and not compared, nor is the sequence of the items;
//   - grant's own error, wrapped;
//   - any other error if the database failed or ctx ended.
//
// Errors that Options.Transient reports are answered by another try as long as ctx lasts. A
// commit that failed is not tried again unless the database said that it rolled back:
// nobody knows its outcome. That is an error, so ret 1 is answered, and the next
// callback finds the row or grants. nil is returned only after a commit known to have
// happened.
//
// grant works through tx alone, since it may run again after a rollback. It must return
// every error of tx (on MySQL a deadlock has rolled everything back, and what follows
// would be committed on its own), must not commit or roll back itself, and gives up when
// ctx ends. It should be quick: ctx ends 1.5 s after the callback came.
//
// On MySQL every table that grant writes must be InnoDB too, and there must be no CREATE,
// ALTER, TRUNCATE or LOCK TABLES in it: each commits what was done until then, and what
// fails after it is never granted.
//
// Once panics if grant is nil. The DeliverFunc is safe for concurrent use. It returns soon
// after ctx ended, apart from a commit under way, which takes as long as the driver waits.
func (s *Store) Once(grant func(ctx context.Context, tx *sql.Tx, d *midas.Delivery) error) midas.DeliverFunc {
	if grant == nil {
		panic("midassql: Once without a grant")
	}
	return func(ctx context.Context, d *midas.Delivery) error {
		err := s.retry(ctx, func() error { return s.deliver(ctx, grant, d) })
		if err != nil {
			return fmt.Errorf("midassql: %w", err)
		}
		return nil
	}
}

// errOutcomeUnknown is a commit that failed in a way that may have come after it.
var errOutcomeUnknown = errors.New("outcome of the commit unknown")

// deliver is one try.
func (s *Store) deliver(ctx context.Context, grant func(context.Context, *sql.Tx, *midas.Delivery) error, d *midas.Delivery) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() // does nothing after a commit

	// The insert is the first statement. It waits for a concurrent one of the same key,
	// and SQLite would refuse a write after a read that another write has outdated.
	inserted, err := s.insertDelivery(ctx, tx, d)
	if err != nil {
		return err
	}
	if !inserted {
		tx.Rollback()
		return s.grantedBefore(ctx, d)
	}
	if err := s.compare(ctx, tx, d); err != nil {
		return err
	}
	if err := grant(ctx, tx, d); err != nil {
		return err
	}
	err = tx.Commit()
	if err != nil && !rolledBack(err) {
		return fmt.Errorf("%w: %w", errOutcomeUnknown, err)
	}
	return err
}

// insertDelivery inserts d, and reports whether that was the first time.
func (s *Store) insertDelivery(ctx context.Context, tx *sql.Tx, d *midas.Delivery) (inserted bool, err error) {
	if err := errors.Join(checkKey("openid", d.OpenID), checkKey("billno", d.BillNo),
		checkKey("token", d.Token), checkText("zoneid", d.ZoneID)); err != nil {
		return false, err
	}
	items, err := json.Marshal(d.Items)
	if err != nil {
		return false, err
	}
	result, err := tx.ExecContext(ctx, s.sql.insertDelivery, d.OpenID, d.BillNo, d.Token, d.ZoneID,
		string(items), int64(d.Charged), d.Time.Unix(), s.opts.Now().Unix())
	if err != nil {
		return false, err
	}
	n, err := result.RowsAffected()
	return n == 1, err
}

// grantedBefore returns nil if the row of d is there, seen from outside the transaction
// whose insert was ignored: so another one has committed it. It must be looked for. A trigger
// or a foreign key under INSERT IGNORE may make the database ignore an insert too, and
// a payment would be lost.
//
// The row is written and not only read, because it can be seen before it is safe: InnoDB
// shows a commit and then flushes it, and a crash in between takes the row back, after this
// callback was answered OK. A commit of our own is flushed with all before it. So it is
// with replicas that a commit waits for.
func (s *Store) grantedBefore(ctx context.Context, d *midas.Delivery) error {
	result, err := s.db.ExecContext(ctx, s.sql.repeatDelivery, d.OpenID, d.BillNo)
	if err != nil {
		return err
	}
	switch n, err := result.RowsAffected(); {
	case err != nil:
		return err
	case n != 1:
		return errors.New("the database ignored the insert of a delivery that is not there: is there a trigger or a foreign key on the table?")
	}
	return nil
}

// compare returns an error unless d is a payment for the stored order.
func (s *Store) compare(ctx context.Context, tx *sql.Tx, d *midas.Delivery) error {
	var (
		openID      string
		items       []byte
		maxQuantity int
	)
	err := tx.QueryRowContext(ctx, s.sql.order, d.Token).Scan(&openID, &items, &maxQuantity)
	switch {
	case errors.Is(err, sql.ErrNoRows) && s.opts.AcceptAppOrders:
		return nil
	case errors.Is(err, sql.ErrNoRows):
		return midas.ErrTokenNotFound
	case err != nil:
		return err
	}
	var ordered []midas.Item
	if err := json.Unmarshal(items, &ordered); err != nil {
		return fmt.Errorf("the stored order cannot be read: %w", err)
	}
	if d.OpenID != openID {
		return &midas.ParamError{Param: "openid", Reason: "is not the order's"}
	}
	return compareItems(d.Items, ordered, maxQuantity)
}

// compareItems returns a *midas.ParamError unless paid is what was ordered. The charged
// amount is not compared: it may be less (protocol.md 5).
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

// A StoredDelivery is a payment whose items were granted.
type StoredDelivery struct {
	OpenID, BillNo, Token, ZoneID string
	Items                         []midas.Item
	Charged                       midas.Amount
	Called                        time.Time // Midas's clock, when it made the call that was granted
	Granted                       time.Time // Options.Now, when the transaction began; to the second
}

// Deliveries iterates over what was granted in [from, to), oldest first, to be compared with
// Tencent's bill. Transactions take a while: a range is complete a few seconds after its
// end. The bill's clock is another one, so look a few minutes beyond its ends.
//
// It uses a connection until the loop ends: with SetMaxOpenConns(1) do not use the database
// within it. An error, also that of ctx, comes as the last pair.
func (s *Store) Deliveries(ctx context.Context, from, to time.Time) iter.Seq2[StoredDelivery, error] {
	return all(ctx, s, scanDelivery, s.sql.listDeliveries, from.Unix(), to.Unix())
}

func scanDelivery(rows *sql.Rows) (StoredDelivery, error) {
	var (
		d               StoredDelivery
		items           []byte
		called, granted int64
	)
	if err := rows.Scan(&d.OpenID, &d.BillNo, &d.Token, &d.ZoneID, &items, &d.Charged, &called, &granted); err != nil {
		return StoredDelivery{}, err
	}
	d.Called, d.Granted = time.Unix(called, 0), time.Unix(granted, 0)
	return d, json.Unmarshal(items, &d.Items)
}
