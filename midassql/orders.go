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
// pay_token never are. What cannot be stored is a [*midas.ParamError]; a token that is
// stored already, and anything else, is the driver's error. An empty ZoneID is stored as
// "1", as it is sent. Errors that Options.Classify calls Again are answered by another try as
// long as ctx lasts.
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
	if req.ZoneID == "" {
		req.ZoneID = "1"
	}
	payitem, wrong := formatItems(req.Items)
	var refused []error
	for _, p := range []struct{ field, param, reason string }{
		{"Order.Token", "token", checkKey(order.Token)}, {"OpenID", "openid", checkKey(req.OpenID)}, {"ZoneID", "zoneid", checkText(req.ZoneID)},
		{"Metadata", "app_metadata", checkText(req.Metadata)}, {"Items", "payitem", wrong},
	} {
		if p.reason != "" {
			refused = append(refused, &midas.ParamError{Param: p.param, Field: p.field, Reason: p.reason})
		}
	}
	if refused != nil {
		return errors.Join(refused...)
	}
	return s.inTx(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, s.sql.saveOrder, order.Token, req.OpenID, req.ZoneID, payitem,
			req.Metadata, req.MaxQuantity, s.opts.Now().Unix())
		return err
	})
}

// purgeBatch is how many orders Purge deletes at once: few enough for a callback that waits
// for their locks.
const purgeBatch = 500

// purgeSlack is how much later than its time an order may come into the table: clocks of
// servers differ, and transactions take a while.
const purgeSlack = 24 * time.Hour

// Purge deletes the orders that were stored at least age ago, paid or not, and returns how
// many they were, also when it stopped at an error. What a payment needs of its order is
// stored with the payment. It works in batches of 500, each a transaction of its own, so that
// orders and callbacks go on meanwhile; the end of ctx stops it. What it costs
// depends on what it deletes and not on what is stored.
//
// An age under 7 days is refused. A callback that comes still later, for an order that is
// deleted, is answered ret 1 and reported (see [Store.Once]), never ret 3: that player has
// paid.
func (s *Store) Purge(ctx context.Context, age time.Duration) (int64, error) {
	if age < minPurgeAge {
		return 0, fmt.Errorf("midassql: Purge: age %v is under %v: a late callback for a purged order would be refused", age, minPurgeAge)
	}
	purged, err := s.purge(ctx, s.opts.Now().Add(-age).Unix())
	if err != nil {
		return purged, fmt.Errorf("midassql: Purge: %w", err)
	}
	return purged, nil
}

func (s *Store) purge(ctx context.Context, until int64) (purged int64, err error) {
	// What the last Purge went through is deleted, but its index entries may still be there: do
	// not begin among them.
	var swept int64
	err = s.inTx(ctx, func(tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, s.sql.meta, "swept").Scan(&swept)
	})
	from := min(swept, until) - int64(purgeSlack/time.Second)
	for more := true; err == nil && more; {
		var n, next int64
		err = s.inTx(ctx, func(tx *sql.Tx) (err error) {
			n, next, more, err = s.purgeSome(ctx, tx, from, until)
			if err == nil && !more {
				_, err = tx.ExecContext(ctx, s.sql.setMeta, until, "swept", until)
			}
			return err
		})
		if err == nil {
			purged, from = purged+n, next
		}
	}
	return purged, err
}

// purgeSome deletes the oldest orders that were saved in [from, until]. It returns how many they
// were, which is less than it found where another Purge is at it, and from for the next: there is
// none before it any more. more is whether it found any.
func (s *Store) purgeSome(ctx context.Context, tx *sql.Tx, from, until int64) (n, next int64, more bool, err error) {
	rows, err := tx.QueryContext(ctx, s.sql.oldOrders, from, until, purgeBatch)
	if err != nil {
		return 0, from, false, err
	}
	defer rows.Close()
	next = from
	var tokens []any
	for rows.Next() {
		var token string
		if err := rows.Scan(&token, &next); err != nil {
			return 0, from, false, err
		}
		tokens = append(tokens, token)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil || tokens == nil {
		return 0, from, false, err
	}
	if _, err := tx.ExecContext(ctx, s.sql.setMeta, until, "purged", until); err != nil { // see tokenNotFound
		return 0, from, true, err
	}
	// By key, and not in one statement with the look-up: MySQL locks every row that a
	// DELETE reads.
	result, err := tx.ExecContext(ctx, s.write(`DELETE FROM midas_orders WHERE token IN (?`+strings.Repeat(", ?", len(tokens)-1)+`)`), tokens...)
	if err != nil {
		return 0, from, true, err
	}
	n, err = result.RowsAffected()
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
// can still be paid. An error, also that of ctx, comes as the last pair.
func (s *Store) UnpaidOrders(ctx context.Context, from, to time.Time) iter.Seq2[StoredOrder, error] {
	return s.orders(ctx, "UnpaidOrders", Query{From: from, To: to},
		` AND NOT EXISTS (SELECT 1 FROM midas_deliveries WHERE midas_deliveries.token = midas_orders.token)`)
}

func (s *Store) orders(ctx context.Context, what string, q Query, and string) iter.Seq2[StoredOrder, error] {
	return pages(ctx, s, what, func(tx *sql.Tx, last *StoredOrder) ([]StoredOrder, error) {
		w, err := q.where("saved_at", q.BillNo == "" && q.State == "")
		if err != nil {
			return nil, err
		}
		if last != nil {
			w.and("saved_at >= ? AND (saved_at > ? OR token > ?)", last.Saved.Unix(), last.Saved.Unix(), last.Token)
		}
		return query(ctx, tx, scanOrder, s.write(`SELECT token, openid, zone, items, metadata, max_quantity, saved_at FROM midas_orders
			WHERE `+w.sql+and+` ORDER BY `+w.time+`, token LIMIT `+strconv.Itoa(pageSize)), w.args...)
	})
}

func scanOrder(rows *sql.Rows) (o StoredOrder, err error) {
	var (
		items string
		saved int64
	)
	if err := rows.Scan(&o.Token, &o.OpenID, &o.ZoneID, &items, &o.Metadata, &o.MaxQuantity, &saved); err != nil {
		return StoredOrder{}, err
	}
	o.Saved = time.Unix(saved, 0)
	o.Items, err = parseItems(items)
	return o, err
}
