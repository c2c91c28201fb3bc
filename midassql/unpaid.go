package midassql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"time"
	"unicode/utf8"

	"github.com/midas-go/midas"
)

// askAfter are the first ages at which a payment system is asked about an order (minigame.md 1). From then
// on it is asked daily, last at lastAsk: from 7 days on Purge may delete the order.
var askAfter = []time.Duration{time.Minute, 5 * time.Minute, 15 * time.Minute, time.Hour}

const (
	askEvery = 24 * time.Hour
	lastAsk  = minPurgeAge

	neverAsk = math.MaxInt64 // in asked_ms
)

// nextAsk returns when an order is due again that is asked about now: in askedMS never, if that was the last
// time, and then until is when the order is dead.
func nextAsk(saved, now time.Time) (until time.Time, askedMS int64) {
	age := now.Sub(saved)
	for _, after := range askAfter {
		if age < after {
			until = saved.Add(after)
			return until, until.UnixMilli()
		}
	}
	until = saved.Add((age/askEvery + 1) * askEvery)
	if age >= lastAsk {
		return until, neverAsk
	}
	return until, until.UnixMilli()
}

// A ClaimedOrder is an order that [Store.ClaimUnpaid] has claimed.
type ClaimedOrder struct {
	StoredOrder
	Until time.Time // by Options.Now: from then on another ClaimUnpaid may claim it, unless this was the last time
}

// claimBatch is how many due orders each of ClaimUnpaid's two SELECTs reads.
const claimBatch = 100

// ClaimUnpaid returns at most limit orders that no payment belongs to and that are due, for a worker that
// asks the payment system whether they were paid: its callback may never have come. Only orders whose token
// begins with prefix are claimed. An order is due 1, 5, 15 and 60 minutes after SaveOrder, then each day, for
// the last time after 7 days; where nobody claimed it at one time, it is claimed once for all that have
// passed. From 8 days on it is dead, and not claimed any more.
//
// However many processes call it, an order is returned once for each time that it is due: also where the
// caller dies before it has asked. It may be paid in this very moment, so grant through a DeliverFunc of this
// Store. Times are Options.Now's. Its cost depends on the number of orders that became due, not on
// the size of the tables. None: no order is due, unless another process claims at the same time. Fewer than
// limit: there may be more. An order that cannot be read is logged and not returned.
//
// A limit below 1 and a prefix that cannot be stored are each a [*midas.FieldError]; an empty prefix is that of
// every order. After another error, what was claimed all the same is due again later.
func (s *Store) ClaimUnpaid(ctx context.Context, prefix string, limit int) ([]ClaimedOrder, error) {
	claimed, err := s.claimUnpaid(ctx, prefix, limit)
	if err != nil {
		return nil, fmt.Errorf("midassql: ClaimUnpaid: %w", err)
	}
	return claimed, nil
}

func (s *Store) claimUnpaid(ctx context.Context, prefix string, limit int) ([]ClaimedOrder, error) {
	switch {
	case limit < 1:
		return nil, &midas.FieldError{Field: "limit", Reason: "below 1"}
	case checkText(prefix) != "":
		return nil, &midas.FieldError{Field: "prefix", Reason: checkText(prefix)}
	}
	for {
		now := s.opts.Now()
		due, err := s.dueOrders(ctx, prefix, now)
		if err != nil || len(due) == 0 {
			return nil, err
		}
		claimed, progress, err := s.claimOrders(ctx, due, now, limit)
		// A page of orders that were all paid hides the next page. One in which nothing was left to change
		// is another process's.
		if err != nil || len(claimed) > 0 || !progress {
			return claimed, err
		}
	}
}

// A dueOrder is an order whose asked_ms, or whose first time, has come.
type dueOrder struct {
	StoredOrder
	askedMS          int64
	paid, unreadable bool
}

// dueOrders returns some of the orders that are due; those that were paid since they were claimed last
// among them.
func (s *Store) dueOrders(ctx context.Context, prefix string, now time.Time) (due []dueOrder, err error) {
	// The greatest character of UTF-8 is above whatever follows the prefix, in the order of the bytes.
	end := prefix + string(utf8.MaxRune)
	err = s.look(ctx, func(tx *sql.Tx) (err error) {
		if due, err = query(ctx, tx, scanDueOrder, s.sql.againDueOrders, now.UnixMilli(), prefix, end, claimBatch); err != nil {
			return err
		}
		first, err := query(ctx, tx, scanDueOrder, s.sql.firstDueOrders, now.Add(-askAfter[0]).Unix(), prefix, end, claimBatch)
		due = append(due, first...)
		return err
	})
	return due, err
}

func scanDueOrder(rows *sql.Rows) (o dueOrder, err error) {
	o.StoredOrder, err = scanOrderAnd(rows, &o.askedMS, &o.paid)
	if errors.Is(err, errUnreadableOrder) {
		o.unreadable, err = true, nil // the others go on
	}
	return o, err
}

// claimOrders claims orders of due: an order is claimed by whoever changes its asked_ms. progress is
// whether it changed one, claimed or taken off the list.
func (s *Store) claimOrders(ctx context.Context, due []dueOrder, now time.Time, limit int) (claimed []ClaimedOrder, progress bool, err error) {
	var unreadable []dueOrder
	err = s.inTxAt(ctx, s.grammar.claims, func(tx *sql.Tx) error {
		claimed, unreadable, progress = nil, nil, false // another try may have failed
		for _, o := range due {
			until, askedMS := nextAsk(o.Saved, now)
			dead := now.Sub(o.Saved) >= lastAsk+askEvery
			ask := !o.paid && !dead && !o.unreadable
			switch {
			case !ask:
				askedMS = neverAsk
			case len(claimed) == limit:
				continue
			}
			won, err := changed(ctx, tx, s.sql.claimOrder, askedMS, o.OpenID, o.Token, o.askedMS)
			if err != nil {
				return err
			}
			progress = progress || won
			switch {
			case won && ask:
				claimed = append(claimed, ClaimedOrder{o.StoredOrder, until})
			case won && o.unreadable:
				unreadable = append(unreadable, o)
			}
		}
		return nil
	})
	if err != nil {
		return nil, false, err
	}
	for _, o := range unreadable {
		s.log(ctx, "midassql: a stored order cannot be read: nobody asks whether it was paid", slog.String("openid", o.OpenID), slog.String("token", o.Token))
	}
	return claimed, progress, nil
}
