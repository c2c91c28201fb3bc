package midassql

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/midas-go/midas"
)

// minPurgeAge is how long an order is kept although nobody seems to have paid for it. No
// schedule of late callbacks is documented (protocol.md 1).
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
// "1", as it is sent.
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
	if len(req.Items) == 0 {
		return &midas.ParamError{Param: "payitem", Reason: "Items is empty"}
	}
	if err := errors.Join(checkKey("token", order.Token), checkKey("openid", req.OpenID),
		checkText("zoneid", req.ZoneID), checkText("app_metadata", req.Metadata)); err != nil {
		return err
	}
	items, err := json.Marshal(req.Items)
	if err != nil {
		return err
	}
	_, err = s.db.ExecContext(ctx, s.sql.saveOrder, order.Token, req.OpenID, req.ZoneID, string(items),
		req.Metadata, req.MaxQuantity, s.opts.Now().Unix())
	return err
}

// A StoredOrder is an order as [Store.SaveOrder] stored it.
type StoredOrder struct {
	Token, OpenID, ZoneID string
	Items                 []midas.Item
	Metadata              string
	MaxQuantity           int       // 0: the quantity was fixed
	Saved                 time.Time // to the second
}

// UnpaidOrders iterates over the orders that were stored at least age ago and that no
// delivery belongs to, oldest first. Many players look at the cashier and do not
// pay, so this is for statistics and for a player who complains. Orders younger than
// [midas.TokenLifetime] can still be paid.
//
// It uses a connection until the loop ends: with SetMaxOpenConns(1) do not use the database
// within it. An error, also that of ctx, comes as the last pair.
func (s *Store) UnpaidOrders(ctx context.Context, age time.Duration) iter.Seq2[StoredOrder, error] {
	return all(ctx, s, scanOrder, s.sql.unpaidOrders, s.opts.Now().Add(-age).Unix())
}

func scanOrder(rows *sql.Rows) (StoredOrder, error) {
	var (
		o     StoredOrder
		items []byte
		saved int64
	)
	if err := rows.Scan(&o.Token, &o.OpenID, &o.ZoneID, &items, &o.Metadata, &o.MaxQuantity, &saved); err != nil {
		return StoredOrder{}, err
	}
	o.Saved = time.Unix(saved, 0)
	return o, json.Unmarshal(items, &o.Items)
}

// purgeBatch is how many orders Purge deletes at once: few enough for a callback that waits
// for their locks.
const purgeBatch = 500

// Purge deletes the orders that were stored at least age ago and that no delivery belongs
// to, and returns how many they were, also when it stopped at an error. Paid orders and
// deliveries are kept. It works through them in batches of 500, each a transaction of its
// own, so that orders and callbacks go on meanwhile; the end of ctx stops it.
//
// An age under 7 days is refused: a late callback for a purged order would be a paid item
// that is refused (ret 3).
func (s *Store) Purge(ctx context.Context, age time.Duration) (int64, error) {
	if age < minPurgeAge {
		return 0, fmt.Errorf("midassql: Purge: age %v is under %v: a late callback for a purged order would be refused", age, minPurgeAge)
	}
	var purged, from int64
	until := s.opts.Now().Add(-age).Unix()
	for {
		var n int64
		err := s.retry(ctx, func() (err error) {
			n, from, err = s.purgeSome(ctx, from, until)
			return err
		})
		purged += n
		if err != nil {
			return purged, fmt.Errorf("midassql: Purge: %w", err)
		}
		if n == 0 {
			return purged, nil
		}
	}
}

// purgeSome deletes the oldest unpaid orders that were saved in [from, until]. It returns how
// many they were, and from for the next: there is none before it any more.
func (s *Store) purgeSome(ctx context.Context, from, until int64) (n, next int64, err error) {
	rows, err := s.db.QueryContext(ctx, s.sql.oldestUnpaid, from, until, purgeBatch)
	if err != nil {
		return 0, from, err
	}
	defer rows.Close()
	next = from
	var tokens []any
	for rows.Next() {
		var token string
		if err := rows.Scan(&token, &next); err != nil {
			return 0, from, err
		}
		tokens = append(tokens, token)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil || tokens == nil {
		return 0, from, err
	}
	// By key, and not in one statement with the look-up: MySQL locks every row that a
	// DELETE reads. What was paid meanwhile stays.
	result, err := s.db.ExecContext(ctx, s.write(`DELETE FROM midas_orders WHERE token IN (?`+strings.Repeat(", ?", len(tokens)-1)+`)
		AND NOT EXISTS (SELECT 1 FROM midas_deliveries WHERE midas_deliveries.token = midas_orders.token)`), tokens...)
	if err != nil {
		return 0, from, err
	}
	n, err = result.RowsAffected()
	return n, next, err
}
