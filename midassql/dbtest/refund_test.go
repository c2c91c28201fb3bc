package dbtest

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midassql"
	"github.com/midas-go/midas/midastest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const offer = "1450000000"

// charged is what such a payment costs.
var charged = gem.Price * midas.Amount(gem.Quantity)

func ofOffer(d *midas.Delivery) { d.AppID = offer }

// part is a refund of the payment -1 of player.
func part(id string, amount midas.Amount) midassql.Refund {
	return midassql.Refund{ID: id, AppID: offer, OpenID: "player", BillNo: "-1", Amount: amount}
}

// A teller is a game that is told of refunds.
type teller struct {
	mu   sync.Mutex
	told []bool // granted, of each
	sums []midas.Amount
}

func (g *teller) tell(_ context.Context, _ *sql.Tx, p *midassql.Payment, granted bool) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.told, g.sums = append(g.told, granted), append(g.sums, p.Refunded)
	return nil
}

func TestARefundSaysWhatBecameOfIt(t *testing.T) {
	t.Parallel()
	type result = midassql.RefundResult
	for _, test := range []struct {
		name    string
		before  bool // the refunds come before the payment
		refunds []midas.Amount
		want    []result
		state   midassql.State
		items   int
	}{
		{"in full", false, []midas.Amount{charged}, []result{{Full: true, Granted: true, Refunded: charged, Charged: charged}}, midassql.StateDone, 1},
		{"in full, the amount is not told", false, []midas.Amount{0}, []result{{Full: true, Granted: true, Charged: charged}}, midassql.StateDone, 1},
		{"in part", false, []midas.Amount{100}, []result{{Granted: true, Refunded: 100, Charged: charged}}, midassql.StateDone, 1},
		{"in two parts", false, []midas.Amount{100, charged - 100}, []result{{Granted: true, Refunded: 100, Charged: charged},
			{Full: true, Granted: true, Refunded: charged, Charged: charged}}, midassql.StateDone, 1},
		{"more than was charged", false, []midas.Amount{charged, 1}, []result{{Full: true, Granted: true, Refunded: charged, Charged: charged},
			{Full: true, Granted: true, Over: true, Refunded: charged + 1, Charged: charged}}, midassql.StateDone, 1},
		{"in full, before", true, []midas.Amount{charged}, []result{{Early: true, Refunded: charged}}, midassql.StateCancelled, 0},
		{"in full, before, the amount is not told", true, []midas.Amount{0}, []result{{Early: true, Full: true}}, midassql.StateCancelled, 0},
		{"in part, before", true, []midas.Amount{100}, []result{{Early: true, Refunded: 100}}, midassql.StateDone, 1},
		{"in two parts, before", true, []midas.Amount{100, charged - 100}, []result{{Early: true, Refunded: 100}, {Early: true, Refunded: charged}}, midassql.StateCancelled, 0},
		{"more than was charged, before", true, []midas.Amount{charged + 1}, []result{{Early: true, Refunded: charged + 1}}, midassql.StateCancelled, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			onEach(t, func(t *testing.T, db *database) {
				store, logged := db.loggedStore(t)
				ordered(t, store, "player", "token")
				deliver := func() {
					require.NoError(t, store.Once(db.grant)(t.Context(), paid("player", "token", "-1", ofOffer)), "it is answered OK whatever was refunded")
				}
				if !test.before {
					deliver()
				}
				var game teller
				var sum midas.Amount
				for i, amount := range test.refunds {
					sum += amount
					for range 2 { // and repeated
						got, err := store.Refund(t.Context(), part(fmt.Sprint("R", i), amount), game.tell)
						require.NoError(t, err)
						require.Equal(t, test.want[i], got)
						test.want[i].Repeat = true
					}
					require.Len(t, game.told, i+1, "once for each refund")
					require.Equal(t, test.want[i].Granted, game.told[i])
					require.Equal(t, sum, game.sums[i])
					test.want[i].Repeat = false
				}
				if test.before {
					p := onlyPayment(t, store, midassql.Query{OpenID: "player"})
					require.Equal(t, midassql.StateNoted, p.State)
					require.Equal(t, offer, p.AppID)
					deliver()
				}
				deliver()
				p := onlyPayment(t, store, midassql.Query{OpenID: "player"})
				require.Equal(t, test.state, p.State)
				require.Equal(t, sum, p.Refunded)
				require.Equal(t, gem.ID, p.Items[0].ID)
				require.Equal(t, charged, p.Charged)
				require.Equal(t, test.items, db.count(t, "SELECT COUNT(*) FROM items"))
				require.Equal(t, sum > charged, strings.Contains(logged.String(), "more was refunded than was charged"), logged.String())
			})
		})
	}
}

func TestARefundThatIsRefused(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		store := db.store(t, midassql.Options{AcceptAppOrders: true})
		require.NoError(t, store.Once(db.grant)(t.Context(), paid("player", "token", "-1", ofOffer)))
		_, err := store.Refund(t.Context(), part("R1", 100), nil)
		require.NoError(t, err)
		require.NoError(t, store.Once(db.grant)(t.Context(), paid("player", "token", "-unnamed"))) // stored without an app
		for _, test := range []struct {
			name   string
			change func(r *midassql.Refund)
			field  string
		}{
			{"no ID", func(r *midassql.Refund) { r.ID = "" }, "ID"},
			{"an ID that cannot be stored", func(r *midassql.Refund) { r.ID = "\xff" }, "ID"},
			{"another payment's ID", func(r *midassql.Refund) { r.ID, r.BillNo = "R1", "-2" }, "ID"},
			{"another amount", func(r *midassql.Refund) { r.ID, r.Amount = "R1", 99 }, "ID"},
			{"no player", func(r *midassql.Refund) { r.OpenID = "" }, "OpenID"},
			{"no payment", func(r *midassql.Refund) { r.BillNo = "" }, "BillNo"},
			{"two names of the payment", func(r *midassql.Refund) { r.Number = "4200" }, "BillNo"},
			{"another app", func(r *midassql.Refund) { r.AppID = "1450000001" }, "AppID"},
			{"no app, of a payment stored without one", func(r *midassql.Refund) { r.AppID, r.BillNo = "", "-unnamed" }, "AppID"},
			{"no app, before the payment", func(r *midassql.Refund) { r.AppID, r.BillNo = "", "-3" }, "AppID"},
			{"an app with a blank behind, before the payment", func(r *midassql.Refund) { r.AppID, r.BillNo = offer+" ", "-3" }, "AppID"},
			{"an app with a full-width digit, before the payment", func(r *midassql.Refund) { r.AppID, r.BillNo = "145000000\uff10", "-3" }, "AppID"},
			{"a negative amount", func(r *midassql.Refund) { r.Amount = -1 }, "Amount"},
			{"an amount that no sum would hold", func(r *midassql.Refund) { r.Amount = 1 << 62 }, "Amount"},
		} {
			t.Run(test.name, func(t *testing.T) {
				r := part("R2", 100)
				test.change(&r)
				_, err := store.Refund(t.Context(), r, func(context.Context, *sql.Tx, *midassql.Payment, bool) error {
					t.Error("told")
					return nil
				})
				var field *midas.FieldError
				require.ErrorAs(t, err, &field)
				require.Equal(t, test.field, field.Field)
				require.Equal(t, 1, db.count(t, "SELECT COUNT(*) FROM refunds"))
				require.Equal(t, 2, db.count(t, "SELECT COUNT(*) FROM deliveries"), "nothing is stored")
				require.Equal(t, 100, db.count(t, "SELECT SUM(refunded) FROM deliveries"))
			})
		}

		// Without an app it is the payment's, and the same refund.
		same := part("R1", 100)
		same.AppID = ""
		result, err := store.Refund(t.Context(), same, nil)
		require.NoError(t, err)
		require.True(t, result.Repeat)
	})
}

// What tell has written is rolled back with the note, and told again.
func TestARefundIsToldUntilItIsTaken(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		store := db.store(t, midassql.Options{})
		calls := 0
		tell := func(ctx context.Context, tx *sql.Tx, p *midassql.Payment, _ bool) error {
			_, err := tx.ExecContext(ctx, db.sql("INSERT INTO items (openid, billno, item, quantity) VALUES (?, ?, 'taken back', 1)"), p.OpenID, p.BillNo)
			if calls++; err == nil && calls == 1 {
				err = errors.New("not now")
			}
			return err
		}
		_, err := store.Refund(t.Context(), part("R1", 1), tell)
		require.ErrorContains(t, err, "not now")
		require.Zero(t, db.count(t, "SELECT COUNT(*) FROM deliveries"))
		for range 2 {
			_, err = store.Refund(t.Context(), part("R1", 1), tell)
			require.NoError(t, err)
		}
		require.Equal(t, 1, db.count(t, "SELECT COUNT(*) FROM items"))
		require.Equal(t, 2, calls)
	})
}

// Nothing is answered nil that is not on disk.
func TestATellThatEndsItsTransaction(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		store := db.store(t, midassql.Options{})
		_, err := store.Refund(t.Context(), part("R1", 1), func(ctx context.Context, tx *sql.Tx, _ *midassql.Payment, _ bool) error {
			tx.ExecContext(ctx, "ROLLBACK") // as after a deadlock whose error is ignored
			return nil
		})
		require.ErrorContains(t, err, "tell ended its transaction")
		_, err = store.Refund(t.Context(), part("R1", 1), nil)
		require.NoError(t, err)
	})
}

// DDL commits on MySQL, and a grant may end its transaction anywhere: the refund is noted, so that nothing would
// tell of it again, and somebody has to look.
func TestATellThatCommitsAndFails(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		for _, failure := range []error{errors.New("not now"), fmt.Errorf("as after a deadlock: %w", driver.ErrBadConn)} {
			store, logged := db.loggedStore(t)
			db.must(t, "DELETE FROM refunds")
			runs := 0
			tell := func(ctx context.Context, tx *sql.Tx, _ *midassql.Payment, _ bool) error {
				runs++
				tx.ExecContext(ctx, "COMMIT")
				return failure
			}
			_, err := store.Refund(t.Context(), part("R1", 1), tell)
			require.ErrorIs(t, err, midassql.ErrTellEnded)
			require.ErrorContains(t, err, failure.Error())
			require.Contains(t, logged.String(), "a refund was told in part")
			require.Equal(t, 1, runs)
			require.Equal(t, 1, db.count(t, "SELECT COUNT(*) FROM refunds"))
		}

		// Somebody else's note of the same refund is none of that.
		db.must(t, "DELETE FROM refunds")
		store, logged := db.loggedStore(t)
		_, err := store.Refund(t.Context(), part("R1", 1), func(ctx context.Context, tx *sql.Tx, _ *midassql.Payment, _ bool) error {
			tx.ExecContext(ctx, "ROLLBACK")
			_, err := store.Refund(ctx, part("R1", 1), nil)
			return errors.Join(err, errors.New("not now"))
		})
		require.ErrorContains(t, err, "not now")
		require.NotErrorIs(t, err, midassql.ErrTellEnded)
		require.NotContains(t, logged.String(), "a refund was told in part")
	})
}

// What the payment system calls a payment finds it: written by the payment, by a repeat that brings it, by a
// settlement.
func TestRefundsAndLookUpsByNumber(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		store, logged := db.loggedStore(t)
		for _, token := range []string{"token1", "token2", "token3"} {
			ordered(t, store, "player", token)
		}
		once := store.Once(db.grant)
		pays := func(token, billNo string, numbers ...string) *midas.Delivery {
			return paid("player", token, billNo, ofOffer, func(d *midas.Delivery) { d.Numbers = numbers })
		}
		require.NoError(t, once(t.Context(), pays("token1", "-1", "4200001", "shop-1", "", "\xff")))
		require.NoError(t, once(t.Context(), pays("token2", "-2")))
		require.NoError(t, once(t.Context(), pays("token2", "-2", "4200002")), "a repeat that brings it")
		_, err := store.Settle(t.Context(), midassql.Settlement{Delivery: pays("token3", "-3", "4200003"), By: "wang"}, db.grant)
		require.NoError(t, err)
		require.NoError(t, once(t.Context(), paid("player", "token1", "-4", ofOffer, func(d *midas.Delivery) { d.Numbers = []string{"twice"} })))
		require.NoError(t, once(t.Context(), paid("player", "token1", "-5", ofOffer, func(d *midas.Delivery) { d.Numbers = []string{"twice"} })))

		for number, billNo := range map[string]string{"4200001": "-1", "shop-1": "-1", "4200002": "-2", "4200003": "-3"} {
			require.Equal(t, []string{billNo}, payments(t, store, midassql.Query{Number: number}))
			result, err := store.Refund(t.Context(), midassql.Refund{ID: number, Number: number, Amount: 1}, nil)
			require.NoError(t, err, number)
			require.True(t, result.Granted)
		}
		require.Equal(t, []string{"-4", "-5"}, payments(t, store, midassql.Query{Number: "twice"}))
		require.Empty(t, payments(t, store, midassql.Query{Number: "4200001", OpenID: "another"}))

		refuse := func(r midassql.Refund) error {
			t.Helper()
			rows := db.count(t, "SELECT COUNT(*) FROM refunds")
			_, err := store.Refund(t.Context(), r, nil)
			require.Error(t, err)
			require.Equal(t, rows, db.count(t, "SELECT COUNT(*) FROM refunds"), "nothing is stored")
			return err
		}
		require.ErrorIs(t, refuse(midassql.Refund{ID: "R1", AppID: offer, Number: "4299999"}), midassql.ErrNoPayment)
		require.Contains(t, logged.String(), "4299999")
		require.ErrorIs(t, refuse(midassql.Refund{ID: "R1", Number: "4200001", OpenID: "another"}), midassql.ErrNoPayment)
		require.ErrorContains(t, refuse(midassql.Refund{ID: "R1", Number: "twice"}), "more than one payment")
		var field *midas.FieldError
		require.ErrorAs(t, refuse(midassql.Refund{ID: "R1", AppID: "1450000001", Number: "4200001"}), &field)
		require.Equal(t, "AppID", field.Field)
	})
}

// Who notes a refund by hand, and why, is kept with it, and overwrites nothing that the payment says.
func TestARefundLeavesTheNoteOfItsPayment(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		store := db.store(t, midassql.Options{})
		_, err := store.Settle(t.Context(), midassql.Settlement{Delivery: paid("player", "", "-1", ofOffer), By: "wang", Reason: "ticket 7"}, db.grant)
		require.NoError(t, err)
		r := part("ticket 8", charged)
		r.By, r.Reason, r.Time = "lee", "bought by mistake", time.Unix(1707393600, 0)
		_, err = store.Refund(t.Context(), r, nil)
		require.NoError(t, err)
		p := onlyPayment(t, store, midassql.Query{OpenID: "player"})
		require.Equal(t, "wang ticket 7", p.SettledBy+" "+p.Note)
		require.True(t, p.RefundedInFull)
		require.Equal(t, 1, db.count(t, "SELECT COUNT(*) FROM refunds WHERE noted_by = 'lee' AND reason = 'bought by mistake' AND refunded_at = 1707393600"))

		granted, err := store.Settle(t.Context(), midassql.Settlement{Delivery: paid("player", "", "-1", ofOffer), By: "wang"}, db.grant)
		require.ErrorIs(t, err, midassql.ErrRefunded)
		require.False(t, granted)
		_, err = store.Refund(t.Context(), midassql.Refund{ID: "R2", AppID: offer, OpenID: "player", BillNo: "-2"}, nil)
		require.NoError(t, err)
		_, err = store.Settle(t.Context(), midassql.Settlement{Delivery: paid("player", "", "-2", ofOffer), By: "wang"}, db.grant)
		require.ErrorIs(t, err, midassql.ErrRefunded, "nor where the refund came first")
		require.Equal(t, 1, db.count(t, "SELECT COUNT(*) FROM deliveries WHERE billno = '-2' AND state = 4"))
	})
}

// A payment that only a refund has noted is no payment yet.
func TestANotedPaymentIsNoPayment(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		store := db.store(t, midassql.Options{})
		inbox := newInbox(t, store, midassql.InboxOptions{})
		_, err := store.Refund(t.Context(), part("R1", 1), nil)
		require.NoError(t, err)
		require.ErrorIs(t, inbox.Cancel(t.Context(), "player", "-1", "why"), midassql.ErrNoPayment)
		require.ErrorIs(t, inbox.Done(t.Context(), "player", "-1"), midassql.ErrNoPayment)
		require.ErrorIs(t, inbox.Fail(t.Context(), "player", "-1", errors.New("why")), midassql.ErrNoPayment)
		require.Empty(t, waiting(t, inbox, "player"))
		counts, err := inbox.Counts(t.Context())
		require.NoError(t, err)
		require.Zero(t, counts.Waiting)
		result, err := inbox.Retry(t.Context(), midassql.RetryOptions{DoneFrom: time.Now().Add(-time.Hour)})
		require.NoError(t, err)
		require.Zero(t, result.PutBack)
		require.Equal(t, []string{"-1"}, payments(t, store, midassql.Query{State: midassql.StateNoted, OpenID: "player"}))

		// Nothing is lost of what the payment says when it comes.
		ordered(t, store, "player", "token")
		d := paid("player", "token", "-1", ofOffer, func(d *midas.Delivery) {
			d.Metadata, d.PayMethod, d.Platform, d.ProvideType = "shop-7", "wechat", "qq", 5
		})
		require.NoError(t, inbox.Deliver(t.Context(), d))
		p := onlyPayment(t, store, midassql.Query{OpenID: "player"})
		require.Equal(t, midassql.StateWaiting, p.State)
		require.Equal(t, *d, p.Delivery)
		require.EqualValues(t, 1, p.Refunded)
		require.Equal(t, []string{"-1"}, waiting(t, inbox, "player"))
	})
}

// A rule is a part of a statement, without which the ledger is wrong: see ledger-model in the table's
// comments. A scenario returns in what it is wrong, or "".
type rule struct {
	name     string
	dialects []midassql.Dialect // where it shows; nil: everywhere
	from, to string             // what the counter-example does to the SQL; "|" parts alternatives, of which one is there
	scenario func(t *testing.T, db *database, s *midassql.Store) string
}

// wrong returns text if told is not what it should be.
func wrong[T comparable](text string, want, got T) string {
	if want != got {
		return fmt.Sprintf("%s: %v instead of %v", text, got, want)
	}
	return ""
}

// refundedInFull refunds all of the payment -1 and returns what tell was told.
func refundedInFull(t *testing.T, store *midassql.Store) bool {
	t.Helper()
	var game teller
	result, err := store.Refund(t.Context(), part("R1", charged), game.tell)
	require.NoError(t, err)
	require.Equal(t, []bool{result.Granted}, game.told)
	return result.Granted
}

func TestEachRuleOfTheLedgerIsNeeded(t *testing.T) {
	t.Parallel()
	delivered := func(t *testing.T, store *midassql.Store) *midassql.Inbox {
		t.Helper()
		inbox := newInbox(t, store, midassql.InboxOptions{})
		require.NoError(t, inbox.Deliver(t.Context(), paid("player", "token", "-1", ofOffer)))
		return inbox
	}
	handedOut := func(t *testing.T, inbox *midassql.Inbox) {
		t.Helper()
		require.Equal(t, []string{"-1"}, waiting(t, inbox, "player"))
	}
	for _, rule := range []rule{
		{"a payment that is handed out is told as granted", nil, // F1
			"CASE WHEN may_have = 1 OR lease_ms > 0 THEN 1 ELSE 0 END FROM", "0 FROM",
			func(t *testing.T, _ *database, store *midassql.Store) string {
				handedOut(t, delivered(t, store))
				return wrong("told granted", true, refundedInFull(t, store))
			}},
		{"Cancel keeps that it was handed out", nil, // F2
			"SET may_have = 1", "SET may_have = 0",
			func(t *testing.T, _ *database, store *midassql.Store) string {
				inbox := delivered(t, store)
				handedOut(t, inbox)
				require.NoError(t, inbox.Cancel(t.Context(), "player", "-1", "a refund"))
				shown := onlyPayment(t, store, midassql.Query{OpenID: "player"}).MayHave
				return wrong("told granted", true, refundedInFull(t, store)) + wrong("shown", true, shown)
			}},
		{"a Done that meets a cancelled payment says so", nil,
			"SET may_have = 1", "SET may_have = 0",
			func(t *testing.T, db *database, store *midassql.Store) string {
				inbox := delivered(t, store)
				handedOut(t, inbox)
				require.NoError(t, inbox.Fail(t.Context(), "player", "-1", midassql.ErrNotNow))
				require.NoError(t, inbox.Cancel(t.Context(), "player", "-1", "a refund"))
				require.False(t, onlyPayment(t, store, midassql.Query{OpenID: "player"}).MayHave)
				require.ErrorIs(t, inbox.Done(t.Context(), "player", "-1"), midassql.ErrCancelled) // it was saved all the same
				return wrong("told granted", true, refundedInFull(t, store))
			}},
		{"Retry puts nothing back that was refunded in full", nil, // F3
			" AND NOT (refunded_all > 0 OR state <> 4 AND refunded > 0 AND refunded >= charged)", "",
			func(t *testing.T, _ *database, store *midassql.Store) string {
				inbox := delivered(t, store)
				handedOut(t, inbox)
				require.NoError(t, inbox.Done(t.Context(), "player", "-1"))
				require.True(t, refundedInFull(t, store))
				_, err := inbox.Retry(t.Context(), midassql.RetryOptions{DoneFrom: time.Now().Add(-time.Hour)})
				require.NoError(t, err)
				return wrong("state", midassql.StateDone, onlyPayment(t, store, midassql.Query{OpenID: "player"}).State)
			}},
		{"what Retry puts back may be there", nil, // F4
			"may_have = 1 OR lease_ms > 0", "lease_ms > 0",
			func(t *testing.T, _ *database, store *midassql.Store) string {
				inbox := delivered(t, store)
				handedOut(t, inbox)
				require.NoError(t, inbox.Done(t.Context(), "player", "-1"))
				_, err := inbox.Retry(t.Context(), midassql.RetryOptions{DoneFrom: time.Now().Add(-time.Hour)})
				require.NoError(t, err)
				return wrong("told granted", true, refundedInFull(t, store))
			}},
		{"a settled payment takes the token of the first callback", nil, // F6
			" OR token_typed = 1", "",
			func(t *testing.T, db *database, store *midassql.Store) string {
				_, err := store.Settle(t.Context(), midassql.Settlement{Delivery: paid("player", "tokne", "-1", ofOffer), By: "wang"}, db.grant)
				require.NoError(t, err)
				if err := store.Once(db.grant)(t.Context(), paid("player", "token", "-1", ofOffer)); err != nil {
					return err.Error()
				}
				require.Error(t, store.Once(db.grant)(t.Context(), paid("player", "another", "-1", ofOffer)), "of the first one alone")
				return wrong("token", "token", onlyPayment(t, store, midassql.Query{OpenID: "player"}).Token)
			}},
		{"a repeat never matches what is noted", []midassql.Dialect{midassql.PostgreSQL}, // F8; the others' UPDATE before it keeps the row locked
			"state NOT IN (3, 4)", "state <> 3",
			func(t *testing.T, db *database, store *midassql.Store) string {
				require.ErrorIs(t, store.Once(func(ctx context.Context, tx *sql.Tx, _ *midas.Delivery) error {
					tx.ExecContext(ctx, "ROLLBACK")
					return nil
				})(t.Context(), paid("player", "token", "-1", ofOffer)), midassql.ErrBroken)
				err := store.Once(db.grant)(context.WithValue(t.Context(), beforeKey{}, func(query string) {
					if strings.Contains(query, "repeats = repeats + 1") { // here somebody who has looked puts the row back
						db.must(t, "UPDATE deliveries SET state = 4, mark = 0")
					}
				}), paid("player", "token", "-1", ofOffer))
				if err != nil {
					return ""
				}
				return wrong("items of what was answered OK", 1, db.count(t, "SELECT COUNT(*) FROM items"))
			}},
		{"what was noted is granted once", nil,
			"billno = $19 AND state = 4|billno = ? AND state = 4", "billno = $19 AND state IN (0, 4)|billno = ? AND state IN (0, 4)",
			func(t *testing.T, db *database, store *midassql.Store) string {
				for range 2 {
					require.NoError(t, store.Once(db.grant)(t.Context(), paid("player", "token", "-1", ofOffer)))
				}
				return wrong("items", 1, db.count(t, "SELECT COUNT(*) FROM items"))
			}},
		{"a grant that loses its transaction breaks what is noted", nil, // F10
			"deliveries SET state = $1,|deliveries SET state = ?,", "deliveries SET charged = charged + 0 * $1,|deliveries SET charged = charged + 0 * ?,",
			func(t *testing.T, db *database, store *midassql.Store) string {
				_, err := store.Refund(t.Context(), part("R1", 1), nil)
				require.NoError(t, err)
				runs := 0
				for range 2 {
					store.Once(func(ctx context.Context, tx *sql.Tx, d *midas.Delivery) error {
						runs++
						tx.ExecContext(ctx, "ROLLBACK")
						return db.grant(ctx, tx, d) // committed on its own
					})(t.Context(), paid("player", "token", "-1", ofOffer))
				}
				return wrong("grants that ran", 1, runs)
			}},
		{"refunded in full, a waiting payment leaves the queue", nil, // W1
			"THEN 2 ELSE state END", "THEN state ELSE state END",
			func(t *testing.T, _ *database, store *midassql.Store) string {
				delivered(t, store)
				for _, id := range []string{"R1", "R2"} {
					_, err := store.Refund(t.Context(), part(id, charged/2), nil)
					require.NoError(t, err)
				}
				return wrong("state", midassql.StateCancelled, onlyPayment(t, store, midassql.Query{OpenID: "player"}).State)
			}},
		{"refunded in full, what was noted is cancelled", nil,
			"THEN 2 ELSE $2 END|THEN 2 ELSE ? END", "THEN 0 ELSE $2 END|THEN 0 ELSE ? END",
			func(t *testing.T, db *database, store *midassql.Store) string {
				require.False(t, refundedInFull(t, store))
				require.NoError(t, store.Once(db.grant)(t.Context(), paid("player", "token", "-1", ofOffer)))
				return wrong("state", midassql.StateCancelled, onlyPayment(t, store, midassql.Query{OpenID: "player"}).State)
			}},
		{"the look at the inbox waits for a claim", []midassql.Dialect{midassql.PostgreSQL, midassql.MySQL}, // F14
			"billno = $2 FOR UPDATE|x'2d31' FOR UPDATE", "billno = $2|x'2d31'",
			func(t *testing.T, db *database, store *midassql.Store) string {
				delivered(t, store)
				var (
					told bool
					once sync.Once
					both sync.WaitGroup
				)
				var claims atomic.Bool
				claimer := &recorder{rewrite: func(query string) string {
					if strings.Contains(query, "claims = claims + 1") {
						claims.Store(true)
					}
					return query
				}}
				claimer.commit = func() {
					if claims.Load() {
						once.Do(func() {
							over := make(chan struct{})
							both.Go(func() {
								defer close(over)
								told = refundedInFull(t, store)
							})
							db.AwaitWaiter(t, over)
						})
					}
				}
				for _, err := range newInbox(t, claimer.store(t, db, midassql.Options{}), midassql.InboxOptions{}).Waiting(t.Context(), "player") {
					assert.NoError(t, err)
				}
				both.Wait()
				return wrong("told granted", true, told)
			}},
		{"not now forgets no older hand-out", nil, // F15
			"= 1 THEN 1 ELSE may_have END", "= 1 THEN 1 ELSE 0 END",
			lateNotNow(delivered)},
		{"a lease that ends without a word leaves a trace", nil, // F15
			"may_have = CASE WHEN lease_ms > 0 THEN 1", "may_have = CASE WHEN lease_ms < 0 THEN 1",
			lateNotNow(delivered)},
		{"a hand-out that failed may be saved", nil,
			"= 1 THEN 1 ELSE may_have END", "= 2 THEN 1 ELSE may_have END",
			func(t *testing.T, _ *database, store *midassql.Store) string {
				inbox := delivered(t, store)
				handedOut(t, inbox)
				require.NoError(t, inbox.Fail(t.Context(), "player", "-1", errors.New("no answer from Redis")))
				return wrong("told granted", true, refundedInFull(t, store))
			}},
	} {
		t.Run(rule.name, func(t *testing.T) {
			t.Parallel()
			dialects := rule.dialects
			if dialects == nil {
				dialects = []midassql.Dialect{midassql.PostgreSQL, midassql.MySQL, midassql.SQLite}
			}
			on(t, func(t *testing.T, db *database) {
				db.store(t, midassql.Options{})
				opts := midassql.Options{AcceptAppOrders: true, Logger: slog.New(slog.DiscardHandler)}
				require.Empty(t, rule.scenario(t, db, new(recorder).store(t, db, opts)))

				var left atomic.Int64
				without := &recorder{rewrite: func(query string) string {
					from, to := strings.Split(rule.from, "|"), strings.Split(rule.to, "|")
					for i := range from {
						if strings.Contains(query, from[i]) {
							left.Add(1)
							return strings.ReplaceAll(query, from[i], to[i])
						}
					}
					return query
				}}
				seen := ""
				for round := 0; round < 10 && seen == ""; round++ { // who waits for which lock is the database's to say
					for _, table := range []string{"deliveries", "inbox", "refunds", "numbers", "items"} {
						db.must(t, "DELETE FROM "+table)
					}
					seen = rule.scenario(t, db, without.store(t, db, opts))
				}
				require.NotEmpty(t, seen, "the counter-example holds: the test sees nothing")
				require.NotZero(t, left.Load(), "no statement has the rule")
			}, dialects...)
		})
	}
}

// lateNotNow: a worker saves and dies before its Done, and the next one returns "not now".
func lateNotNow(delivered func(*testing.T, *midassql.Store) *midassql.Inbox) func(*testing.T, *database, *midassql.Store) string {
	return func(t *testing.T, db *database, store *midassql.Store) string {
		require.Equal(t, []string{"-1"}, waiting(t, delivered(t, store), "player"))
		db.pass(t, time.Hour)
		next := newInbox(t, store, midassql.InboxOptions{})
		require.Equal(t, []string{"-1"}, waiting(t, next, "player"))
		require.NoError(t, next.Fail(t.Context(), "player", "-1", midassql.ErrNotNow))
		return wrong("told granted", true, refundedInFull(t, store))
	}
}

// docs/repair.md, "Broken": the row is put to noted and never deleted, since the payment's refunds are in it.
func TestABrokenPaymentIsPutBackAndNotDeleted(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, statement string
		refunded        bool
		items           int
		counter         bool
	}{
		{"noted, and not refunded", "UPDATE deliveries SET state = 4, mark = 0 WHERE openid = 'player' AND billno = '-1' AND state = 3", false, 1, false},
		{"noted, and refunded in full", "UPDATE deliveries SET state = 4, mark = 0 WHERE openid = 'player' AND billno = '-1' AND state = 3", true, 0, false},
		{"counter-example: deleted, and refunded in full", "DELETE FROM deliveries WHERE openid = 'player' AND billno = '-1' AND state = 3", true, 1, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			onEach(t, func(t *testing.T, db *database) {
				store := db.store(t, midassql.Options{})
				ordered(t, store, "player", "token")
				d := paid("player", "token", "-1", ofOffer)
				require.ErrorIs(t, store.Once(func(ctx context.Context, tx *sql.Tx, _ *midas.Delivery) error {
					tx.ExecContext(ctx, "ROLLBACK")
					return nil
				})(t.Context(), d), midassql.ErrBroken)
				if test.refunded {
					require.True(t, refundedInFull(t, store), "the player may have the items")
				}
				db.must(t, test.statement)
				require.NoError(t, store.Once(db.grant)(t.Context(), d))
				require.NoError(t, store.Once(db.grant)(t.Context(), d))
				require.Equal(t, test.items, db.count(t, "SELECT COUNT(*) FROM items"))
				if !test.counter {
					require.Equal(t, test.refunded, onlyPayment(t, store, midassql.Query{OpenID: "player"}).State == midassql.StateCancelled)
				}
			})
		})
	}
}

// docs/repair.md, "Cancelled by mistake": the UPDATE decides, so that what was refunded in full stays cancelled.
func TestAPaymentThatWasCancelledByMistake(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		store := db.store(t, midassql.Options{AcceptAppOrders: true})
		inbox := newInbox(t, store, midassql.InboxOptions{Zones: []string{"1"}})
		require.NoError(t, inbox.Deliver(t.Context(), paid("player", "token", "-1", ofOffer)))
		require.NoError(t, inbox.Cancel(t.Context(), "player", "-1", "the wrong one"))
		restore := func() (n int64) {
			result, err := db.ExecContext(t.Context(), db.sql(`UPDATE deliveries SET state = 1, may_have = 0
				WHERE openid = 'player' AND billno = '-1' AND state = 2 AND refunded_all = 0 AND (refunded = 0 OR refunded < charged)`))
			require.NoError(t, err)
			n, err = result.RowsAffected()
			require.NoError(t, err)
			return n
		}
		for _, r := range []midassql.Refund{part("R1", charged), part("R2", 0)} { // refunded meanwhile
			_, err := store.Refund(t.Context(), r, nil)
			require.NoError(t, err)
			require.Zero(t, restore())
			db.must(t, "UPDATE deliveries SET refunded = 0, refunded_all = 0")
		}
		require.EqualValues(t, 1, restore())
		db.must(t, "INSERT INTO inbox (openid, billno, zone, base, stored_ms, due_ms, may_have) VALUES ('player', '-1', '1', '1', 1707393600000, 0, 1)")
		require.Equal(t, []string{"-1"}, worked(t, inbox, 1, saved))
		require.Equal(t, midassql.StateDone, onlyPayment(t, store, midassql.Query{OpenID: "player"}).State)
	})
}

// An early refund that was noted under another AppID is not the payment's own: somebody has to compare.
func TestAnEarlyRefundOfAnotherAppIsLogged(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		store, logged := db.loggedStore(t)
		ordered(t, store, "player", "token")
		for _, test := range []struct {
			billNo, app string
			logged      bool
		}{{"-1", offer, false}, {"-2", "1450000001", true}} {
			_, err := store.Refund(t.Context(), midassql.Refund{ID: "R" + test.billNo, AppID: test.app, OpenID: "player", BillNo: test.billNo, Amount: 1}, nil)
			require.NoError(t, err)
			require.NoError(t, store.Once(db.grant)(t.Context(), paid("player", "token", test.billNo, ofOffer)))
			require.Equal(t, test.logged, strings.Contains(logged.String(), "under another AppID"), logged)
		}
	})
}

// A refund that is noted between two statements of storing a payment as broken does not let it be granted
// again. Only PostgreSQL lets one in there: the others' UPDATE locks the gap, or the table.
func TestABrokenPaymentStaysBrokenWhateverComesBetween(t *testing.T) {
	t.Parallel()
	on(t, func(t *testing.T, db *database) {
		db.store(t, midassql.Options{})
		store := new(recorder).store(t, db, midassql.Options{AcceptAppOrders: true})
		inserts, runs := 0, 0
		ctx := context.WithValue(t.Context(), beforeKey{}, func(query string) {
			if strings.Contains(query, "INSERT INTO "+db.prefix+"deliveries") {
				if inserts++; inserts == 2 { // the first is the payment's own
					_, err := store.Refund(t.Context(), part("R1", 1), nil)
					assert.NoError(t, err)
				}
			}
		})
		for range 2 {
			require.ErrorIs(t, store.Once(func(ctx context.Context, tx *sql.Tx, d *midas.Delivery) error {
				runs++
				tx.ExecContext(ctx, "ROLLBACK")
				return db.grant(ctx, tx, d)
			})(ctx, paid("player", "token", "-1", ofOffer)), midassql.ErrBroken)
		}
		require.Equal(t, 1, runs)
		p := onlyPayment(t, store, midassql.Query{OpenID: "player"})
		require.Equal(t, midassql.StateBroken, p.State)
		require.EqualValues(t, 1, p.Refunded)
	}, midassql.PostgreSQL)
}

// Support looks a broken payment up by the number on the player's receipt, and refunds it by it.
func TestABrokenPaymentHasItsNumbers(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		store := db.store(t, midassql.Options{AcceptAppOrders: true})
		require.ErrorIs(t, store.Once(func(ctx context.Context, tx *sql.Tx, _ *midas.Delivery) error {
			tx.ExecContext(ctx, "ROLLBACK")
			return nil
		})(t.Context(), paid("player", "token", "-1", ofOffer, func(d *midas.Delivery) { d.Numbers = []string{"4200001"} })), midassql.ErrBroken)
		require.Equal(t, []string{"-1"}, payments(t, store, midassql.Query{Number: "4200001"}))
	})
}

// What the game took back after the backup may be in the restored records again: Retry says so.
func TestRetryReportsWhatWasRefundedSinceTheBackup(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		now := time.Unix(1707393600, 0)
		var logged lines
		store := db.store(t, midassql.Options{AcceptAppOrders: true, Now: func() time.Time { return now },
			Logger: slog.New(slog.NewTextHandler(&logged, nil))})
		inbox := newInbox(t, store, midassql.InboxOptions{Zones: []string{"1"}})
		refund := func(id, billNo string, amount midas.Amount) {
			_, err := store.Refund(t.Context(), midassql.Refund{ID: id, AppID: offer, OpenID: "player", BillNo: billNo, Amount: amount,
				By: "lee", Reason: "a child", Time: now.Add(-time.Minute)}, nil)
			require.NoError(t, err)
		}
		for billNo, zone := range map[string]string{"-1": "1", "-2": "1", "-3": "1", "-4": "2", "-5": ""} {
			require.NoError(t, inbox.Deliver(t.Context(), paid("player", "token", billNo, ofOffer, func(d *midas.Delivery) { d.ZoneID = zone })))
			if billNo != "-3" {
				require.NoError(t, inbox.Done(t.Context(), "player", billNo))
			}
		}
		refund("R0", "-1", 1)
		backup := now.Add(time.Hour)
		now = now.Add(2 * time.Hour)
		refund("R1", "-1", charged-1)
		refund("R2", "-2", 100)
		refund("R3", "-3", charged) // nobody had it
		refund("R4", "-4", charged) // another zone's
		refund("R5", "-5", 100)     // no zone is zone 1

		result, err := inbox.Retry(t.Context(), midassql.RetryOptions{DoneFrom: backup})
		require.NoError(t, err)
		require.Equal(t, []midassql.Refund{
			{ID: "R1", AppID: offer, OpenID: "player", BillNo: "-1", Amount: charged - 1, By: "lee", Reason: "a child", Time: now.Add(-time.Minute)},
			{ID: "R2", AppID: offer, OpenID: "player", BillNo: "-2", Amount: 100, By: "lee", Reason: "a child", Time: now.Add(-time.Minute)},
			{ID: "R5", AppID: offer, OpenID: "player", BillNo: "-5", Amount: 100, By: "lee", Reason: "a child", Time: now.Add(-time.Minute)},
		}, result.Refunded)
		require.Equal(t, 3, strings.Count(logged.String(), "take back again"))
	})
}

// A repeat is told from a grant, in the log and to Config.OnCallback.
func TestARepeatIsMarked(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		for _, way := range []string{"Once", "Inbox"} {
			wechat := midastest.NewServer(midastest.Config{Errorf: t.Errorf})
			defer wechat.Close()
			events := make(chan midas.CallbackEvent, 10)
			cfg := wechat.ClientConfig("/pay/notify")
			cfg.OnCallback = func(e midas.CallbackEvent) { events <- e }
			client, err := midas.New(cfg)
			require.NoError(t, err)
			store := db.store(t, midassql.Options{})
			deliver := store.Once(db.grant)
			if way == "Inbox" {
				deliver = newInbox(t, store, midassql.InboxOptions{}).Deliver
			}
			wechat.DeliverToHandler(client.DeliveryHandler(deliver), "/pay/notify")
			req := midas.OrderRequest{Player: midas.Player{Login: midas.QQ, OpenID: "player", OpenKey: "key", PayToken: "token", PF: "pf", PFKey: "pfkey", ZoneID: "1", UserIP: "127.0.0.1"},
				Items: []midas.Item{gem}, GoodsName: "gems", GoodsDescription: "gems", GoodsURL: "https://example.com/gem.png"}
			order, err := client.CreateOrder(t.Context(), req)
			require.NoError(t, err)
			require.NoError(t, store.SaveOrder(t.Context(), req, order))
			_, err = wechat.Pay(t.Context(), order.Token, midastest.BillNo("-"+way), midastest.Duplicates(2))
			require.NoError(t, err)
			require.NoError(t, client.Wait(t.Context()))
			close(events)
			repeats := make(map[bool]int)
			for e := range events {
				repeats[e.Repeat]++
			}
			require.Equal(t, 1, repeats[false], way)
			require.NotZero(t, repeats[true], way)
			require.Len(t, payments(t, store, midassql.Query{BillNo: "-" + way}), 1)
			require.NotEmpty(t, db.count(t, "SELECT COUNT(*) FROM numbers WHERE billno = '-"+way+"'"), "its cftid")
		}
	})
}
