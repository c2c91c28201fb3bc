package midassql

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/midas-go/midas"
)

// An ImportResult is what became of imported payments. Each is counted in one of the three, in New and Repeats
// together where an earlier Import was interrupted.
type ImportResult struct {
	New     int            // stored as done
	Repeats int            // imported before
	Known   []KnownPayment // this ledger had them before they were imported, now or by an earlier Import
}

// A KnownPayment is an imported payment that this ledger had already.
type KnownPayment struct {
	OpenID, BillNo string
	State          State // as Import met it

	// MayHave: this ledger has granted it, too, or may have. The player may have the items twice, and somebody
	// has to look.
	MayHave bool
}

const (
	importBatch = 100 // payments in one transaction, for which their callbacks wait

	// importID is the id of the act of an import. There is one for each payment, and it says how Import met the
	// payment, so that a repeat returns what the first Import found.
	importID     = 1
	importedNew  = "new"
	importedToo  = ", and this ledger may have granted it, too"
	importedNote = "granted by an earlier backend"

	maxImportAhead = 24 * time.Hour // of our clock
)

// Import stores payments that an earlier backend has granted, as done: a callback for one of them is answered
// OK from then on and grants nothing, and no [Inbox] hands it out. Import itself grants nothing. It takes as
// long as there are payments, in transactions of 100. A payment that was imported before changes nothing, so
// after a crash or an error all of them are imported again.
//
// Of a payment OpenID, BillNo, Charged and Time are needed. Time is when it was granted, and is its
// Payment.Stored, by which [Store.Spent] and the comparison with a bill go. Charged is in fen. Without AppID a
// refund has to name it, and without Items the game has to know what to take back. Token, Charged and AppID
// give way to those of the first callback. [Store.CheckImport] says what is refused. [By] says who imports.
//
// A payment that is here already becomes done, too, and is in ImportResult.Known: one that waits leaves the
// Inbox, and one whose refund came first is done though it may be refunded in full. What was cancelled or is
// broken stays so. What this ledger has granted, or may have, has MayHave set there: a callback that came
// before the import was granted, whatever Import does. So the earlier backend grants no more before the
// payments are exported, and callbacks come here after the import only (docs/moving.md).
//
// Tables that are not there, or another environment's, are an error before payments is asked, also if it has
// none. Import ends with the first error of payments, of a payment that is refused, or of the database; the result
// has what was done until then, and Known is kept in memory. No transaction is open while payments is asked
// for the next one. It is safe beside everything else that uses the tables.
func (s *Store) Import(ctx context.Context, payments iter.Seq2[*midas.Delivery, error]) (ImportResult, error) {
	var result ImportResult
	if err := s.importAll(ctx, payments, &result); err != nil {
		return result, fmt.Errorf("midassql: Import: %w", err)
	}
	return result, nil
}

// CheckImport returns why [Store.Import] refuses d, a [*midas.FieldError] for each reason, or nil. OpenID, BillNo,
// Charged or Time is missing; a Time is more than a day ahead, a charge above 10^12 fen; OpenID, BillNo, Token or
// AppID hold white space, invisible characters or, BillNo and AppID, what is not ASCII; OpenID, BillNo, Token or
// ZoneID are longer than 255 bytes or cannot be stored; an item cannot be written as id*price*num; ProvideType
// takes more than 32 bits. Other texts that are longer are cut. It does not use the database.
func (s *Store) CheckImport(d *midas.Delivery) error {
	if err := s.checkImport(d); err != nil {
		return fmt.Errorf("midassql: CheckImport: %w", err)
	}
	return nil
}

func (s *Store) checkImport(d *midas.Delivery) error {
	if d == nil {
		return &midas.FieldError{Field: "Delivery", Reason: "missing"}
	}
	refused := checkTyped(d.OpenID, d.BillNo, d.Token, d.AppID)
	if d.Charged <= 0 || d.Charged > maxRefund { // without it any refund would be all of it
		refused = errors.Join(refused, &midas.FieldError{Field: "Charged", Param: "amt", Reason: "missing or out of range: give what the player paid, in fen"})
	}
	switch {
	case d.Time.Unix() <= 0:
		refused = errors.Join(refused, &midas.FieldError{Field: "Time", Param: "ts", Reason: "missing: say when it was granted"})
	case d.Time.After(s.opts.Now().Add(maxImportAhead)):
		refused = errors.Join(refused, &midas.FieldError{Field: "Time", Param: "ts", Reason: "is in the future"})
	}
	_, err := checkDelivery(d, imported(""))
	return errors.Join(refused, err)
}

func imported(by string) entry {
	return entry{state: storedDone, settledBy: cmp.Or(by, "import"), note: importedNote, imported: true}
}

func (s *Store) importAll(ctx context.Context, payments iter.Seq2[*midas.Delivery, error], result *ImportResult) error {
	if err := s.checkEnvironment(ctx); err != nil {
		return err
	}
	batch := make([]*midas.Delivery, 0, importBatch)
	for d, err := range payments {
		if err == nil {
			err = s.checkImport(d)
		}
		if err != nil { // what came before it is stored
			return errors.Join(err, s.importBatch(ctx, batch, result))
		}
		if batch = append(batch, d); len(batch) == importBatch {
			if err := s.importBatch(ctx, batch, result); err != nil {
				return err
			}
			batch = batch[:0]
		}
	}
	return s.importBatch(ctx, batch, result)
}

// importBatch stores the payments that are new in one transaction, and then looks at each of the others in one of
// its own. An INSERT that was ignored keeps a shared lock on MySQL, which two that go on to write deadlock over.
func (s *Store) importBatch(ctx context.Context, batch []*midas.Delivery, result *ImportResult) error {
	if len(batch) == 0 {
		return nil
	}
	act := s.newAct(ctx, ActImport, importedNew)
	act.id = importID
	var known []*midas.Delivery
	err := s.inTx(ctx, func(tx *sql.Tx) error {
		known = nil
		for _, d := range batch {
			r, err := s.importRow(ctx, d)
			if err != nil {
				return err
			}
			switch isNew, err := changed(ctx, tx, s.sql.insertPayment, r.args()...); {
			case err != nil:
				return err
			case !isNew:
				known = append(known, d)
				continue
			}
			if err := s.saveNumbers(ctx, tx, d); err != nil {
				return err
			}
			if err := s.storeAct(ctx, tx, act, paymentID{d.OpenID, d.BillNo}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	result.New += len(batch) - len(known)
	if len(known) == 0 {
		return nil
	}
	before := make([]string, len(known)) // how an earlier Import met it, or ""
	err = s.look(ctx, func(tx *sql.Tx) (err error) {
		for i, d := range known {
			if before[i], err = s.howImported(ctx, tx, d); err != nil {
				return err
			}
		}
		return nil
	})
	for i, d := range known {
		if err == nil {
			err = s.importKnown(ctx, d, before[i], act, result)
		}
	}
	return err
}

func (s *Store) importRow(ctx context.Context, d *midas.Delivery) (row, error) {
	r, err := s.newRow(d, imported(actor(ctx)))
	r.grantedAt = r.calledAt
	return r, err
}

// importKnown imports a payment that is there, unless how says that an earlier Import did.
func (s *Store) importKnown(ctx context.Context, d *midas.Delivery, how string, act Act, result *ImportResult) error {
	for tries := 0; how == ""; tries++ { // its state may change between two statements
		if tries == 10 {
			return errors.New("the database ignored the insert of a payment that is not there with this openid and billno: " +
				"is there a trigger or a foreign key on the table, or does a collation ignore case?")
		}
		err := s.inTx(ctx, func(tx *sql.Tx) (err error) {
			how, err = s.resolve(ctx, tx, d, act)
			return err
		})
		if err != nil {
			return err
		}
	}
	if how == importedNew {
		result.Repeats++
		return nil
	}
	state, mayHave := strings.CutSuffix(how, importedToo)
	result.Known = append(result.Known, KnownPayment{d.OpenID, d.BillNo, State(state), mayHave})
	return nil
}

// howImported returns what the act of an earlier import says, or "".
func (s *Store) howImported(ctx context.Context, tx *sql.Tx, d *midas.Delivery) (how string, err error) {
	statement, args := s.inline(s.sql.imported, d.OpenID, d.BillNo)
	err = tx.QueryRowContext(ctx, statement, args...).Scan(&how)
	if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	return how, err
}

// resolve makes d done, unless it is cancelled or broken, and returns how it was met, which its act says, too; "" if
// it has to be called again. The writes come first: see record.
func (s *Store) resolve(ctx context.Context, tx *sql.Tx, d *midas.Delivery, act Act) (how string, err error) {
	id := paymentID{d.OpenID, d.BillNo}
	r, err := s.importRow(ctx, d)
	if err != nil {
		return "", err
	}
	waited, err := changed(ctx, tx, s.sql.importWaiting, id.openID, id.billNo)
	noted := false
	if err == nil && !waited {
		noted, err = changed(ctx, tx, s.sql.fillNoted, r.filling()...)
	}
	if err != nil {
		return "", err
	}
	var (
		state   State
		mayHave bool // from this ledger
	)
	switch {
	case waited:
		state = StateWaiting
		mayHave, _, err = s.takeBack(ctx, tx, id)
	case noted:
		state = StateNoted
	default:
		if how, err = s.howImported(ctx, tx, d); how != "" { // by another Import, just now
			return how, err
		}
		var p Payment
		if err == nil {
			p, err = s.readPayment(ctx, tx, id)
		}
		switch state = p.State; state {
		case StateDone, StateBroken:
			mayHave = true
		case StateCancelled:
			mayHave = p.MayHave
			_, err = tx.ExecContext(ctx, s.sql.mayHave, id.openID, id.billNo) // from the earlier backend
		default: // it waits or is noted since the writes, or it is gone
			if errors.Is(err, ErrNoPayment) {
				err = nil
			}
			return "", err
		}
	}
	if err == nil {
		err = s.saveNumbers(ctx, tx, d)
	}
	if err != nil {
		return "", err
	}
	how = string(state)
	if mayHave {
		how += importedToo
	}
	act.Reason = how
	return how, s.storeAct(ctx, tx, act, id)
}
