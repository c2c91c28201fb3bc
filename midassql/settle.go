package midassql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/midas-go/midas"
)

// A Settlement is a payment that somebody settles by hand (补单): it stands in Tencent's bill, and
// no callback for it was answered OK.
type Settlement struct {
	// Delivery is the payment as the bill has it. OpenID, BillNo and Items are needed, BillNo exactly
	// as Midas writes it: it is what keeps the callback that may still come from granting again.
	// Token may be empty; with one whose order is stored, the payment is compared with it.
	Delivery *midas.Delivery

	By     string // who does it; needed
	Reason string // why, such as the number of a support ticket
}

// Settle grants a payment by hand, in the same transaction as [Store.Once] would, and writes down
// who did it and why: [Payment] shows both. granted is false if the payment is in the ledger
// already; then nothing changes but Payment.Repeats. A broken one is refused with [ErrBroken]. A
// callback that comes later is answered OK and grants nothing; if the settlement had no token, the
// payment takes that of the callback.
//
// The errors are those of Once; if the token is not stored, nothing is compared.
// The grant should be the one that Once has.
func (s *Store) Settle(ctx context.Context, p Settlement, grant func(ctx context.Context, tx *sql.Tx, d *midas.Delivery) error) (granted bool, err error) {
	return s.settle(ctx, p, stateDone, grant)
}

// Settle is [Store.Settle] for a player who lives elsewhere: the payment is stored as waiting, and
// handed out like any other.
func (b *Inbox) Settle(ctx context.Context, p Settlement) (stored bool, err error) {
	stored, err = b.store.settle(ctx, p, stateWaiting, b.store.insertWaiting)
	if stored {
		b.stored(ctx, p.Delivery)
	}
	return stored, err
}

func (s *Store) settle(ctx context.Context, p Settlement, state int, then func(context.Context, *sql.Tx, *midas.Delivery) error) (bool, error) {
	var err error
	switch {
	case p.Delivery == nil:
		err = errors.New("the Delivery is nil")
	case p.By == "":
		err = errors.New("nobody is named in By: somebody has to answer for it")
	case then == nil:
		err = errors.New("grant is nil")
	}
	var stored bool
	if err == nil {
		stored, err = s.store(ctx, p.Delivery, entry{state: state, settledBy: p.By, note: p.Reason}, then)
	}
	if err != nil {
		return false, fmt.Errorf("midassql: Settle: %w", err)
	}
	return stored, nil
}
