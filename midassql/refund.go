package midassql

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/midas-go/midas"
)

// A Refund is one refund of a payment, in full or in part.
type Refund struct {
	// ID is the payment system's name of the refund, or support's for one by hand, such as the number of a
	// ticket; required. (AppID, ID) is its key: the same refund may be noted more than once.
	ID string

	// AppID is the payment's offer id (a mini game's appid). It may be empty once the payment is stored with
	// one, and is required before.
	AppID string

	// The payment is named by OpenID and BillNo, or by Number, one of its Delivery.Numbers; with Number,
	// OpenID is optional and must be the payment's.
	OpenID, BillNo string
	Number         string

	// Amount is what was refunded, in fen. 0: all of it, and the payment system did not tell how much that is.
	Amount midas.Amount

	Time time.Time // of the refund, if it is known; kept to the second

	By, Reason string // of a refund by hand: who and why; at most 255 bytes of each are kept
}

// A RefundResult is what became of a [Refund]. For a repeat it is what the first call returned, and Repeat.
type RefundResult struct {
	Repeat  bool // it was noted before: tell was not called
	Early   bool // the payment has not come yet
	Full    bool // the payment's refunds, this one included, are all that was charged
	Granted bool // as tell was told
	Over    bool // they are more than that: somebody has to look

	Refunded, Charged midas.Amount // of the payment; Charged is 0 while it has not come
}

// over: until its payment has come, nobody knows what was charged.
func (r RefundResult) over() bool { return !r.Early && r.Refunded > r.Charged }

// maxRefund is above any payment, and far below what a sum of refunds can hold.
const maxRefund = 1_000_000_000_000 * midas.Fen

// Refund notes a refund on its payment and calls tell, in one transaction, once for each refund. nil means
// that it is on disk.
//
//   - Refunded in full, a payment that waits in an [Inbox] is cancelled, and one that has not come yet is
//     never granted when it comes: its callback is answered OK.
//   - Refunded in part, it is granted, or handed out, like any other. [Payment].Refunded shows the sum.
//   - A payment that the player has stays done. Taking its items back is the game's part: granted tells tell
//     that the player has the items or may have, which is so for a payment that is done or broken, or was
//     handed out and not given back for certain. Take back together with the payment's id, so that a
//     hand-out under way adds nothing (docs/inbox.md, "Refunds").
//
// p is the payment with this refund in it; of one that has not come yet it has OpenID, BillNo and AppID. tell
// may be nil. It works through tx alone, since it may run again after a rollback, and returns every error of
// tx; its error rolls everything back and is returned, wrapped. Nor does it commit, by itself or by DDL on
// MySQL: if it then fails, the refund is noted all the same and the error is [ErrTellEnded], once.
//
// A field that is missing or wrong is a [*midas.FieldError], and nothing is stored: an OpenID or BillNo with
// white space or invisible characters, a BillNo or AppID that is not ASCII, an AppID that is not the
// payment's, a refund before its payment without an AppID, an ID that was noted with another payment or
// amount. A Number that no payment has is [ErrNoPayment], and one that two have is an error: give OpenID and
// BillNo. Refunds that add up to more than was charged are logged, and Over. Other errors are as those of
// [Store.Once].
func (s *Store) Refund(ctx context.Context, r Refund, tell func(ctx context.Context, tx *sql.Tx, p *Payment, granted bool) error) (RefundResult, error) {
	result, err := s.refund(ctx, r, tell)
	if err != nil {
		return RefundResult{}, fmt.Errorf("midassql: Refund: %w", err)
	}
	return result, nil
}

func (r Refund) check() error {
	var refused []error
	refuse := func(field, reason string) {
		if reason != "" {
			refused = append(refused, &midas.FieldError{Field: field, Reason: reason})
		}
	}
	if err := checkTyped(r.OpenID, r.BillNo, "", r.AppID); err != nil {
		refused = append(refused, err)
	}
	refuse("ID", checkKey(r.ID))
	refuse("AppID", checkText(r.AppID))
	if r.Number != "" {
		refuse("Number", checkText(r.Number))
		refuse("OpenID", checkText(r.OpenID))
		if r.BillNo != "" {
			refuse("BillNo", "give either BillNo or Number")
		}
	} else {
		refuse("OpenID", checkKey(r.OpenID))
		refuse("BillNo", checkKey(r.BillNo))
	}
	if r.Amount < 0 || r.Amount > maxRefund {
		refuse("Amount", fmt.Sprintf("%d fen: want 0 to %d", int64(r.Amount), int64(maxRefund)))
	}
	return errors.Join(refused...)
}

func (s *Store) refund(ctx context.Context, r Refund, tell func(context.Context, *sql.Tx, *Payment, bool) error) (RefundResult, error) {
	if err := r.check(); err != nil {
		return RefundResult{}, err
	}
	// What is read before the write is read in transactions of its own: on MySQL the first SELECT of a
	// transaction decides what the later ones see. It decides nothing but which write is tried first.
	if err := s.find(ctx, &r); err != nil {
		return RefundResult{}, err
	}
	for range 10 { // a payment comes once, so a second round is the last one
		stored, err := s.payment(ctx, &r)
		if err != nil {
			return RefundResult{}, err
		}
		result, err := s.noteRefund(ctx, r, stored, tell)
		if errors.Is(err, ErrTellEnded) {
			s.log(ctx, "midassql: a refund was told in part: see what the player has (docs/repair.md)",
				slog.String("openid", r.OpenID), slog.String("billno", r.BillNo), slog.String("refund", r.ID), slog.Any("error", err))
		}
		if !errors.Is(err, errStoredBefore) {
			if err == nil && result.Over {
				s.logOver(ctx, paymentID{r.OpenID, r.BillNo}, result.Refunded, result.Charged)
			}
			return result, err
		}
		result, err = s.repeatedRefund(ctx, r)
		if err != nil || result.Repeat {
			return result, err
		}
	}
	return RefundResult{}, errors.New("the database ignores the write of a refund: is there a trigger or a foreign key on the tables?")
}

// find names the payment of r, where r has only a number of it.
func (s *Store) find(ctx context.Context, r *Refund) error {
	if r.Number == "" {
		return nil
	}
	type numbered struct {
		paymentID
		app string
	}
	var found []numbered
	another := false // app has this number
	err := s.look(ctx, func(tx *sql.Tx) error {
		all, err := query(ctx, tx, func(rows *sql.Rows) (n numbered, err error) {
			return n, rows.Scan(&n.openID, &n.billNo, &n.app)
		}, s.sql.numbered, r.Number)
		found = nil
		for _, n := range all {
			switch {
			case r.OpenID != "" && n.openID != r.OpenID:
			case r.AppID != "" && n.app != "" && n.app != r.AppID:
				another = true
			default:
				found = append(found, n)
			}
		}
		return err
	})
	switch {
	case err != nil:
		return err
	case len(found) > 1:
		return errors.New("more than one payment has this Number: give OpenID and BillNo")
	case len(found) == 0 && another:
		return &midas.FieldError{Field: "AppID", Reason: "is not that of the payment with this Number"}
	case len(found) == 0:
		s.log(ctx, "midassql: a refund names a payment that is not here: note it again when the payment has come",
			slog.String("refund", r.ID), slog.String("app_id", r.AppID), slog.String("number", r.Number))
		return fmt.Errorf("%w with this Number", ErrNoPayment)
	}
	r.OpenID, r.BillNo = found[0].openID, found[0].billNo
	return nil
}

// payment reports whether the payment of r is stored, and completes r.AppID, which is part of its key.
func (s *Store) payment(ctx context.Context, r *Refund) (stored bool, err error) {
	err = s.look(ctx, func(tx *sql.Tx) error {
		p, err := s.readPayment(ctx, tx, paymentID{r.OpenID, r.BillNo})
		stored = err == nil
		if errors.Is(err, ErrNoPayment) {
			err = nil
		}
		r.AppID = cmp.Or(r.AppID, p.AppID)
		return err
	})
	switch {
	case err != nil:
		return false, err
	case r.AppID == "" && stored:
		return false, &midas.FieldError{Field: "AppID", Reason: "missing: the payment is stored without one"}
	case r.AppID == "":
		return false, &midas.FieldError{Field: "AppID", Reason: "missing: the payment has not come yet"}
	}
	return stored, nil
}

func (s *Store) readPayment(ctx context.Context, tx *sql.Tx, id paymentID) (Payment, error) {
	statement, args := s.inline(s.sql.payment, id.openID, id.billNo)
	found, err := query(ctx, tx, scanPayment, statement, args...)
	if err == nil && len(found) == 0 {
		err = ErrNoPayment
	}
	if err != nil {
		return Payment{}, err
	}
	return found[0], nil
}

// noteRefund is the transaction of [Store.Refund]. The sum is a column of the payment's row, so that one
// UPDATE of that row adds to it and decides: two refunds at once, or a refund and its payment, wait for each
// other there. The error is errStoredBefore if the payment came meanwhile, or the refund is noted already.
func (s *Store) noteRefund(ctx context.Context, r Refund, stored bool, tell func(context.Context, *sql.Tx, *Payment, bool) error) (result RefundResult, err error) {
	id := paymentID{r.OpenID, r.BillNo}
	inFull := bit(r.Amount == 0)
	act := s.newAct(By(ctx, cmp.Or(r.By, actor(ctx))), ActRefund, cmp.Or(r.Reason, r.ID))
	var told error // what tell returned, in this try or in one before it
	err = s.inTx(ctx, func(tx *sql.Tx) error {
		now := s.opts.Now().Unix()
		statement, args := s.sql.noteRefund, []any{inFull, int64(r.Amount), int64(r.Amount), inFull, r.AppID, r.OpenID, r.BillNo}
		if !stored {
			statement, args = s.sql.noteEarly, []any{r.OpenID, r.BillNo, r.AppID, now, now, int64(r.Amount), inFull}
		}
		noted, err := changed(ctx, tx, statement, args...)
		if err == nil && !noted {
			err = errStoredBefore
		}
		if err != nil {
			return err
		}
		p, err := s.readPayment(ctx, tx, id)
		if err != nil {
			return err
		}
		if p.AppID != r.AppID {
			return &midas.FieldError{Field: "AppID", Reason: "is not the payment's"}
		}
		granted, err := s.mayHave(ctx, tx, id, &p)
		if err != nil {
			return err
		}
		result = RefundResult{Early: p.State == StateNoted, Full: p.RefundedInFull, Granted: granted, Refunded: p.Refunded, Charged: p.Charged}
		result.Over = result.over()
		first, err := changed(ctx, tx, s.sql.insertRefund, r.AppID, r.ID, r.OpenID, r.BillNo, int64(r.Amount), unix(r.Time), now,
			bit(result.Early), bit(granted), bit(result.Full), int64(result.Refunded), int64(result.Charged), clip(r.By), clip(r.Reason))
		switch {
		case err != nil:
			return err
		case !first:
			return errStoredBefore
		}
		if err := s.storeAct(ctx, tx, act, id); err != nil || tell == nil {
			return err
		}
		if told = tell(ctx, tx, &p, granted); told != nil {
			return told
		}
		_, err = s.readRefund(ctx, tx, r)
		if errors.Is(err, sql.ErrNoRows) {
			err = errTellEndedTx
		}
		return err
	})
	if told != nil && err != nil && !errors.Is(err, errOutcomeUnknown) && s.isActed(ctx, act, id) {
		// It quotes what tell returned and does not wrap it, as notOneTransaction does.
		err = fmt.Errorf("%w (tell returned: %s)", ErrTellEnded, told.Error())
	}
	return result, err
}

// isActed reports whether a is there although its transaction failed: somebody committed it.
func (s *Store) isActed(ctx context.Context, a Act, id paymentID) bool {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), brokenTime)
	defer cancel()
	n := 0
	err := s.look(ctx, func(tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, s.sql.acted, id.openID, id.billNo, a.id).Scan(&n)
	})
	return err == nil && n > 0
}

// errTellEndedTx: see Store.Refund. The next call notes the refund, and tells again.
var errTellEndedTx = errors.New("tell ended its transaction, and part of what it did may be committed: does it ignore or replace an error of its tx?")

// mayHave reports whether the player has the items of p, or may have. A payment that this transaction has
// cancelled leaves the queue.
func (s *Store) mayHave(ctx context.Context, tx *sql.Tx, id paymentID, p *Payment) (may bool, err error) {
	switch p.State {
	case StateDone, StateBroken:
		return true, nil
	case StateWaiting, StateStuck:
		p.MayHave, _, err = s.handedOut(ctx, tx, id)
	case StateCancelled:
		var waiting bool
		if may, waiting, err = s.takeBack(ctx, tx, id); waiting {
			p.MayHave = may
		}
	case StateNoted:
	}
	return p.MayHave, err
}

// repeatedRefund returns what became of a refund that is noted already. It writes the row and does not only
// read it: see repeated.
func (s *Store) repeatedRefund(ctx context.Context, r Refund) (result RefundResult, err error) {
	err = s.inTx(ctx, func(tx *sql.Tx) error {
		result = RefundResult{}
		repeat, err := changed(ctx, tx, s.sql.repeatRefund, r.AppID, r.ID, r.OpenID, r.BillNo, int64(r.Amount))
		if err != nil {
			return err
		}
		noted, err := s.readRefund(ctx, tx, r)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			return nil
		case err == nil && !repeat:
			return &midas.FieldError{Field: "ID", Reason: "was noted with another amount"}
		}
		result = noted
		result.Repeat = true
		return err
	})
	if err == nil && !result.Repeat {
		err = s.notedElsewhere(ctx, r)
	}
	return result, err
}

// notedElsewhere returns an error if the refund was noted with another payment.
func (s *Store) notedElsewhere(ctx context.Context, r Refund) error {
	there, err := s.elsewhere(ctx, s.sql.refundElsewhere, r.AppID, r.ID, r.OpenID, r.BillNo)
	if err == nil && there {
		err = &midas.FieldError{Field: "ID", Reason: "was noted with another payment"}
	}
	return err
}

func (s *Store) readRefund(ctx context.Context, tx *sql.Tx, r Refund) (result RefundResult, err error) {
	statement, args := s.inline(s.sql.refund, r.AppID, r.ID, r.OpenID, r.BillNo)
	err = tx.QueryRowContext(ctx, statement, args...).Scan(&result.Early, &result.Granted, &result.Full, &result.Refunded, &result.Charged)
	result.Over = result.over()
	return result, err
}

func (s *Store) logOver(ctx context.Context, id paymentID, refunded, charged midas.Amount) {
	s.log(ctx, "midassql: more was refunded than was charged: compare the payment's refunds with the bill",
		slog.String("openid", id.openID), slog.String("billno", id.billNo), slog.Int64("refunded", int64(refunded)), slog.Int64("charged", int64(charged)))
}

// A notedRefund is a row of the table refunds.
type notedRefund struct {
	Refund
	at   int64 // when it was noted
	zone string
}

func scanNotedRefund(rows *sql.Rows) (r notedRefund, err error) {
	var refundedAt int64
	err = rows.Scan(&r.AppID, &r.ID, &r.OpenID, &r.BillNo, &r.Amount, &refundedAt, &r.at, &r.By, &r.Reason, &r.zone)
	r.zone = zoneOf(r.zone)
	if refundedAt != 0 {
		r.Time = time.Unix(refundedAt, 0)
	}
	return r, err
}

// unix is 0 for the zero time.
func unix(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}
