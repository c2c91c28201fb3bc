package midassql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"time"

	"github.com/midas-go/midas"
)

// minPurgeAge is how long an order is kept. No schedule of late callbacks is documented
// (protocol.md 1, the whole flow).
const minPurgeAge = 7 * 24 * time.Hour

// SaveOrder stores an order that [midas.Client.CreateOrder] placed, under its token.
//
// Call it after CreateOrder and before Order.URLParams leaves the server. The player can pay
// as soon as the app has them, and the callback may come at once: without the stored
// order it would be refused (ret 3) although the player has paid. When SaveOrder fails,
// do not hand the order out; place a new one, which costs nothing.
//
// Token, openid, zone, items, metadata and quantity limit are stored; openkey, pfkey and
// pay_token never are. A value that cannot be stored is a [*midas.FieldError]; a token that is
// stored already, and anything else, is the driver's error. An empty ZoneID is stored as
// "1", as CreateOrder sends it. A transaction that fails with [ClassAgain] is tried again while ctx lasts.
func (s *Store) SaveOrder(ctx context.Context, req midas.OrderRequest, order *midas.Order) error {
	if err := s.saveOrder(ctx, req, order); err != nil {
		return fmt.Errorf("midassql: SaveOrder: %w", err)
	}
	return nil
}

func (s *Store) saveOrder(ctx context.Context, req midas.OrderRequest, order *midas.Order) error {
	if order == nil {
		return errors.New("order is nil")
	}
	req.Player.ZoneID = zoneOf(req.Player.ZoneID)
	payitem, wrong := formatItems(req.Items)
	var refused []error
	for _, p := range []struct{ field, param, reason string }{
		{"Order.Token", "token", checkKey(order.Token)}, {"OpenID", "openid", checkKey(req.Player.OpenID)}, {"ZoneID", "zoneid", checkText(req.Player.ZoneID)},
		{"Metadata", "app_metadata", checkText(req.Metadata)}, {"Items", "payitem", wrong},
	} {
		if p.reason != "" {
			refused = append(refused, &midas.FieldError{Param: p.param, Field: p.field, Reason: p.reason})
		}
	}
	if refused != nil {
		return errors.Join(refused...)
	}
	return s.inTx(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, s.sql.saveOrder, order.Token, req.Player.OpenID, req.Player.ZoneID, payitem,
			req.Metadata, req.MaxQuantity, s.opts.Now().Unix())
		return err
	})
}

// purgeBatch is the number of orders that Purge deletes at once: few enough for a callback that waits
// for their locks.
const purgeBatch = 500

// purgeSlack is how long after its saved_at an order may appear in the table: clocks of servers differ,
// and transactions take a while.
const purgeSlack = 24 * time.Hour

// Purge deletes the orders that were stored at least age ago, paid or not, and returns their
// number, even when it stopped at an error; and the attempts that are older than Options.AttemptsKept. The
// payment keeps what it needs of its order. Purge works in
// batches of 500, each in its own transaction, so that orders and callbacks go on meanwhile; the end of
// ctx stops it. Its cost depends on the number of deleted orders, not on the size of the tables.
//
// An age under 7 days is refused. A later callback for a deleted order is answered ret 1 and logged
// (see [ErrNoOrder]), never ret 3: the player has paid.
func (s *Store) Purge(ctx context.Context, age time.Duration) (int64, error) {
	if age < minPurgeAge {
		return 0, fmt.Errorf("midassql: Purge: age %v is under %v: a late callback for a purged order would be refused", age, minPurgeAge)
	}
	purged, err := s.purge(ctx, s.opts.Now().Add(-age).Unix())
	for more := true; err == nil && more; {
		more, err = s.purgeAttempts(ctx)
	}
	if err != nil {
		return purged, fmt.Errorf("midassql: Purge: %w", err)
	}
	return purged, nil
}

func (s *Store) purge(ctx context.Context, until int64) (purged int64, err error) {
	// The orders before the end of the last Purge are deleted, but their index entries may still be
	// there: do not begin among them.
	var swept int64
	err = s.look(ctx, func(tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, s.sql.meta, "swept").Scan(&swept)
	})
	from := min(swept, until) - int64(purgeSlack/time.Second)
	for more := true; err == nil && more; {
		var n, next int64
		n, next, more, err = s.purgeSome(ctx, from, until)
		if err == nil {
			purged, from = purged+n, next
		}
	}
	if err == nil {
		err = s.raiseMeta(ctx, "swept", until)
	}
	return purged, err
}

// raiseMeta sets a single value unless it is greater already.
func (s *Store) raiseMeta(ctx context.Context, name string, value int64) error {
	return s.inTx(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, s.sql.setMeta, value, name, value)
		return err
	})
}

// purgeSome deletes the oldest orders that were saved in [from, until]. It returns their number, which is
// less than it found if another Purge is running, and the from of the next call: no order is older than
// that. more is whether it found any.
func (s *Store) purgeSome(ctx context.Context, from, until int64) (n, next int64, more bool, err error) {
	var tokens []any
	err = s.look(ctx, func(tx *sql.Tx) error {
		tokens, next = nil, from
		_, err := query(ctx, tx, func(rows *sql.Rows) (token string, err error) {
			err = rows.Scan(&token, &next)
			tokens = append(tokens, token)
			return token, err
		}, s.sql.oldOrders, from, until, purgeBatch)
		return err
	})
	if err != nil || tokens == nil {
		return 0, from, false, err
	}
	// See tokenNotFound. It is committed before an order goes: on several shards a commit can succeed in part.
	if err := s.raiseMeta(ctx, "purged", until); err != nil {
		return 0, from, true, err
	}
	// By key, and not in one statement with the look-up: MySQL locks every row that a
	// DELETE reads.
	err = s.inTx(ctx, func(tx *sql.Tx) error {
		result, err := tx.ExecContext(ctx, s.write(`DELETE FROM midas_orders WHERE token IN (?`+strings.Repeat(", ?", len(tokens)-1)+`)`), tokens...)
		if err == nil {
			n, err = result.RowsAffected()
		}
		return err
	})
	return n, next, true, err
}

// A StoredOrder is an order as [Store.SaveOrder] stored it.
type StoredOrder struct {
	Token, OpenID, ZoneID string
	Items                 []midas.Item
	Metadata              string
	MaxQuantity           int       // 0: the quantity was fixed
	Saved                 time.Time // to the second
}

// Orders iterates over the orders that q asks for, in the order of their time. An order is there until
// [Store.Purge] deletes it. See [Query].
func (s *Store) Orders(ctx context.Context, q Query) iter.Seq2[StoredOrder, error] {
	return s.orders(ctx, "Orders", q, "")
}

// UnpaidOrders iterates over the orders that were stored in [from, to) and that no payment
// belongs to, oldest first. Many players look at the cashier and do not pay, so this is for
// statistics and for a player who complains. Orders younger than [midas.TokenLifetime]
// can still be paid. An error, including that of ctx, comes as the last pair.
func (s *Store) UnpaidOrders(ctx context.Context, from, to time.Time) iter.Seq2[StoredOrder, error] {
	return s.orders(ctx, "UnpaidOrders", Query{From: from, To: to},
		` AND NOT `+orderPaid)
}

func (s *Store) orders(ctx context.Context, what string, q Query, and string) iter.Seq2[StoredOrder, error] {
	return pages(ctx, s.look, what, func(tx *sql.Tx, last *StoredOrder) ([]StoredOrder, error) {
		w, err := q.where(orderRows)
		if err != nil {
			return nil, err
		}
		if last != nil {
			w.and("o.saved_at >= ? AND (o.saved_at > ? OR o.token > ?)", last.Saved.Unix(), last.Saved.Unix(), last.Token)
		}
		return query(ctx, tx, scanOrder, s.write(`SELECT `+orderColumns+` FROM midas_orders o
			WHERE `+w.sql+and+` ORDER BY `+w.time+`, o.token LIMIT `+strconv.Itoa(pageSize)), w.args...)
	})
}

// order returns the player's order with a token, if it is stored. Another player's is not looked for here:
// see elsewhere.
func (s *Store) order(ctx context.Context, tx *sql.Tx, openID, token string) (o StoredOrder, stored bool, err error) {
	statement, args := s.inline(s.sql.order, openID, token)
	orders, err := query(ctx, tx, scanOrder, statement, args...)
	if err != nil || len(orders) == 0 {
		return StoredOrder{}, false, err
	}
	return orders[0], true, nil
}

// orderPaid is whether a payment belongs to the order o.
const orderPaid = `EXISTS (SELECT 1 FROM midas_deliveries d WHERE d.openid = o.openid AND d.token = o.token)`

const orderColumns = `o.token, o.openid, o.zone, o.items, o.metadata, o.max_quantity, o.saved_at`

// errUnreadableOrder hides the error of its items: a ParamError in the tree would be about a callback.
var errUnreadableOrder = errors.New("the stored order cannot be read")

func scanOrder(rows *sql.Rows) (StoredOrder, error) { return scanOrderAnd(rows) }

// scanOrderAnd scans the orderColumns and those that follow. With errUnreadableOrder it returns
// everything but the items.
func scanOrderAnd(rows *sql.Rows, more ...any) (o StoredOrder, err error) {
	var (
		items string
		saved int64
	)
	if err := rows.Scan(append([]any{&o.Token, &o.OpenID, &o.ZoneID, &items, &o.Metadata, &o.MaxQuantity, &saved}, more...)...); err != nil {
		return StoredOrder{}, err
	}
	o.Saved = time.Unix(saved, 0)
	if o.Items, err = parseItems(items); err != nil {
		return o, errUnreadableOrder
	}
	return o, nil
}
