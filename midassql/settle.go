package midassql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"unicode"

	"github.com/midas-go/midas"
)

// A Settlement is a payment that is settled by hand (补单): it is in Tencent's bill, and no callback for
// it was answered OK.
type Settlement struct {
	// Delivery is the payment as the bill has it. OpenID, BillNo, Items and Charged are needed, BillNo exactly
	// as Midas writes it: it keeps a callback that may still come from granting again. Charged decides which
	// refunds are all of the money.
	//
	// With a Token whose order is stored, the payment is compared with that order, and zone and metadata are
	// the order's; a ZoneID that is given has to be the same. Without such an order ZoneID is needed: the
	// items go to that zone, and nothing moves them to another one.
	Delivery *midas.Delivery

	By     string // who does it; needed
	Reason string // why, such as the number of a support ticket
}

// Settle grants a payment by hand, in the same transaction as [Store.Once] would, and stores who did it
// and why: [Payment] shows both. granted is false if the payment is in the ledger already; then only
// Payment.Repeats changes. A broken payment is refused with [ErrBroken]. A later callback is answered OK
// and grants nothing; the payment takes its Token, Charged and AppID, whatever the settlement had.
//
// What is wrong with the settlement is a [*midas.FieldError]: something is missing, it is not the stored
// order's, or OpenID, BillNo, Token or AppID hold white space, invisible characters or, BillNo and AppID, what is not
// ASCII, as text does that was pasted from a spreadsheet. The other errors are those of Once. The grant
// should be the same as Once's.
func (s *Store) Settle(ctx context.Context, p Settlement, grant func(ctx context.Context, tx *sql.Tx, d *midas.Delivery) error) (granted bool, err error) {
	_, granted, err = s.settle(ctx, p, storedDone, grant)
	return granted, err
}

// Settle is [Store.Settle] for a player who lives elsewhere: the payment is stored as waiting, and
// handed out like any other.
func (b *Inbox) Settle(ctx context.Context, p Settlement) (stored bool, err error) {
	d, stored, err := b.store.settle(ctx, p, storedWaiting, b.store.insertWaiting)
	if stored {
		b.stored(ctx, d)
	}
	return stored, err
}

// settle returns the payment as it was settled.
func (s *Store) settle(ctx context.Context, p Settlement, state int, grant func(context.Context, *sql.Tx, *midas.Delivery) error) (d *midas.Delivery, settled bool, err error) {
	switch {
	case p.Delivery == nil:
		err = &midas.FieldError{Field: "Delivery", Reason: "missing"}
	case p.By == "":
		err = &midas.FieldError{Field: "By", Reason: "missing: say who settles it"}
	case grant == nil:
		err = errors.New("grant is nil")
	default:
		d, err = s.settlement(ctx, *p.Delivery)
	}
	if err == nil {
		act := s.newAct(By(ctx, p.By), ActSettle, p.Reason)
		settled, err = s.record(ctx, d, entry{state: state, settledBy: p.By, note: p.Reason},
			func(ctx context.Context, tx *sql.Tx, d *midas.Delivery) error {
				if err := s.storeAct(ctx, tx, act, paymentID{d.OpenID, d.BillNo}); err != nil {
					return err
				}
				return grant(ctx, tx, d)
			})
	}
	if err != nil {
		return nil, false, fmt.Errorf("midassql: Settle: %w", err)
	}
	return d, settled, nil
}

// settlement returns d with what its order says. The order is looked up in a transaction of its own: in the
// one that inserts, a SELECT before the insert would fix a snapshot without what others commit meanwhile.
func (s *Store) settlement(ctx context.Context, d midas.Delivery) (*midas.Delivery, error) {
	if err := checkTyped(d.OpenID, d.BillNo, d.Token, d.AppID); err != nil {
		return nil, err
	}
	if d.Charged <= 0 { // any refund would be all of it
		return nil, &midas.FieldError{Field: "Charged", Param: "amt", Reason: "missing: give what the player paid, as the bill has it"}
	}
	var o StoredOrder
	ordered := false
	if d.Token != "" {
		err := s.look(ctx, func(tx *sql.Tx) (err error) {
			o, ordered, err = s.order(ctx, tx, d.OpenID, d.Token)
			return err
		})
		if err == nil && !ordered { // if it is another player's, its zone is nobody's business
			var another bool
			if another, err = s.elsewhere(ctx, s.sql.orderElsewhere, d.Token, d.OpenID); another {
				err = &midas.FieldError{Field: "OpenID", Param: "openid", Reason: "is not the order's"}
			}
		}
		if err != nil {
			return nil, err
		}
	}
	switch {
	case !ordered && d.ZoneID == "":
		return nil, &midas.FieldError{Field: "ZoneID", Param: "zoneid", Reason: "missing, and no order with this token is stored that would say it"}
	case !ordered && badlyTyped(d.ZoneID, false) != "": // no server has this name
		return nil, &midas.FieldError{Field: "ZoneID", Param: "zoneid", Reason: badlyTyped(d.ZoneID, false)}
	case ordered && d.ZoneID != "" && zoneOf(d.ZoneID) != zoneOf(o.ZoneID):
		return nil, &midas.FieldError{Field: "ZoneID", Param: "zoneid", Reason: fmt.Sprintf("is %q, the order's is %q: leave it out", clip(d.ZoneID), o.ZoneID)}
	case ordered:
		d.ZoneID, d.Metadata = o.ZoneID, o.Metadata
	}
	return &d, nil
}

// checkTyped returns a *midas.FieldError unless a payment's key, token and app, as a person typed or pasted
// them, can be what Midas writes. A blank that came along makes another key, and a key of its own is
// granted once more; a refund's app is part of its key. A verified callback is never refused for this.
func checkTyped(openID, billNo, token, appID string) error {
	var refused []error
	for _, key := range []struct {
		field, param, value string
		ascii               bool
	}{{"OpenID", "openid", openID, false}, {"BillNo", "billno", billNo, true}, {"Token", "token", token, false}, {"AppID", "appid", appID, true}} {
		if reason := badlyTyped(key.value, key.ascii); reason != "" {
			refused = append(refused, &midas.FieldError{Field: key.field, Param: key.param, Reason: reason})
		}
	}
	return errors.Join(refused...)
}

// invisible reports whether a reader sees nothing of r, or too little to tell it from its absence.
func invisible(r rune) bool {
	return unicode.IsSpace(r) || !unicode.IsGraphic(r) || r == '\u2800' || // the empty braille pattern
		unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}

func badlyTyped(value string, ascii bool) (reason string) {
	switch {
	case strings.ContainsFunc(value, invisible):
		return "holds white space or invisible characters: type it as Midas writes it"
	case ascii && strings.ContainsFunc(value, func(r rune) bool { return r > unicode.MaxASCII }):
		return "holds characters that are not ASCII, such as a dash that a spreadsheet made: type it as Midas writes it"
	}
	return ""
}
