package dbtest

import (
	"fmt"
	"testing"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midassql"
	"github.com/stretchr/testify/require"
)

func TestSpentIsWhatWasChargedLessWhatWasRefunded(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		china := time.FixedZone("", 8*3600)
		month := time.Date(2024, 2, 1, 0, 0, 0, 0, china)
		next := time.Date(2024, 3, 1, 0, 0, 0, 0, china)
		c := clockAt(month)
		store := db.store(t, midassql.Options{Now: c.now, AcceptAppOrders: true})
		inbox := newInbox(t, store, midassql.InboxOptions{})
		n := 0
		pay := func(openID string, charged midas.Amount, at time.Time, deliver midas.DeliverFunc) (billNo string) {
			n++
			c.set(at)
			d := paid(openID, "token", fmt.Sprint("-", n), func(d *midas.Delivery) { d.Charged = charged })
			require.NoError(t, deliver(t.Context(), d))
			return d.BillNo
		}
		once := store.Once(db.grant)
		spent := func(openIDs ...string) int {
			t.Helper()
			amount, err := store.Spent(t.Context(), openIDs, month, next)
			require.NoError(t, err)
			return int(amount)
		}
		require.Zero(t, spent("qq"))

		pay("qq", 100, month.Add(-time.Second), once)
		pay("qq", 600, month, once)
		pay("qq", 3000, next.Add(-time.Second), once)
		pay("qq", 9999, next, once)
		pay("stranger", 5, month, once)
		require.Equal(t, 3600, spent("qq"))
		ever, err := store.Spent(t.Context(), []string{"qq"}, time.Unix(-1<<32, 0), time.Unix(1<<33, 0)) // MySQL's column has no such times
		require.NoError(t, err)
		require.EqualValues(t, 100+3600+9999, ever)

		waits := pay("wechat", 50, month, inbox.Deliver)
		pay("wechat", 7, month, once)
		require.Equal(t, 57, spent("wechat"), "what waits is paid")
		require.Equal(t, 3657, spent("qq", "wechat", "qq", "nobody"), "one person's logins, each once")

		require.NoError(t, inbox.Cancel(t.Context(), "wechat", waits, "to be refunded"))
		require.Equal(t, 57, spent("wechat"), "the money is back when its refund is known")
		db.must(t, "UPDATE deliveries SET refunded = 50 WHERE billno = ?", waits)
		require.Equal(t, 7, spent("wechat"))
		db.must(t, "UPDATE deliveries SET refunded = 2 WHERE openid = 'wechat' AND refunded = 0")
		require.Equal(t, 5, spent("wechat"), "a part")
		db.must(t, "UPDATE deliveries SET refunded = 99 WHERE openid = 'wechat'")
		require.Zero(t, spent("wechat"), "too much is no credit")
		require.Equal(t, 3600, spent("qq", "wechat"))

		many := []string{"qq"}
		for i := range 1100 {
			many = append(many, fmt.Sprint("nobody", i))
		}
		require.Equal(t, 3600, spent(many...))

		for name, ask := range map[string]func() (midas.Amount, error){
			"nobody":               func() (midas.Amount, error) { return store.Spent(t.Context(), nil, month, next) },
			"an empty openid":      func() (midas.Amount, error) { return store.Spent(t.Context(), []string{"qq", ""}, month, next) },
			"the wrong way round":  func() (midas.Amount, error) { return store.Spent(t.Context(), []string{"qq"}, next, month) },
			"a range without time": func() (midas.Amount, error) { return store.Spent(t.Context(), []string{"qq"}, month, month) },
			"no times": func() (midas.Amount, error) {
				return store.Spent(t.Context(), []string{"qq"}, time.Time{}, time.Time{})
			},
		} {
			_, err := ask()
			var field *midas.FieldError
			require.ErrorAs(t, err, &field, name)
		}
	})
}

func TestAQueryForOneAppLeavesTheOthersOut(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		store := db.store(t, midassql.Options{AcceptAppOrders: true})
		inbox := newInbox(t, store, midassql.InboxOptions{})
		for _, app := range []string{"1450000000", "wx1"} {
			for billNo, deliver := range map[string]midas.DeliverFunc{"-once-" + app: store.Once(db.grant), "-waits-" + app: inbox.Deliver} {
				require.NoError(t, deliver(t.Context(), paid("player", "token", billNo, func(d *midas.Delivery) { d.AppID = app })))
			}
		}
		from, to := time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
		require.Len(t, payments(t, store, midassql.Query{From: from, To: to}), 4)
		require.ElementsMatch(t, []string{"-once-wx1", "-waits-wx1"}, payments(t, store, midassql.Query{From: from, To: to, AppID: "wx1"}))
		require.ElementsMatch(t, []string{"-once-wx1", "-waits-wx1"}, payments(t, store, midassql.Query{OpenID: "player", AppID: "wx1"}))
		require.Equal(t, []string{"-waits-wx1"}, payments(t, store, midassql.Query{State: midassql.StateWaiting, AppID: "wx1"}))
		require.ErrorContains(t, failure(store.Payments(t.Context(), midassql.Query{AppID: "wx1"})), "Query", "an app's whole history")
		require.ErrorContains(t, failure(store.Orders(t.Context(), midassql.Query{OpenID: "player", AppID: "wx1"})), "AppID")
	})
}

// Refunds as the ledger notes them: of a part, of a payment that waits, of one that has not come, and one whose
// amount nobody told.
func TestSpentKnowsTheLedgersRefunds(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		store := db.store(t, midassql.Options{AcceptAppOrders: true})
		inbox := newInbox(t, store, midassql.InboxOptions{})
		spent := func() int {
			t.Helper()
			amount, err := store.Spent(t.Context(), []string{"player"}, time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
			require.NoError(t, err)
			return int(amount)
		}
		refund := func(id, billNo string, amount midas.Amount) {
			t.Helper()
			_, err := store.Refund(t.Context(), midassql.Refund{ID: id, AppID: "1450000000", OpenID: "player", BillNo: billNo, Amount: amount, By: "anna", Reason: "ticket 7"}, nil)
			require.NoError(t, err)
		}
		pay := func(billNo string, deliver midas.DeliverFunc) {
			t.Helper()
			require.NoError(t, deliver(t.Context(), paid("player", "token", billNo, func(d *midas.Delivery) { d.AppID = "1450000000" })))
		}
		once := store.Once(db.grant)
		pay("-1", once)
		pay("-2", inbox.Deliver)
		pay("-3", once)
		refund("part", "-1", 200)
		refund("waits", "-2", 1200)
		refund("not told", "-3", 0)
		refund("early", "-4", 300)
		require.Equal(t, 1000, spent(), "what is noted only is no payment")
		pay("-4", once)
		require.Equal(t, 1900, spent())
		refund("over", "-1", 5000)
		require.Equal(t, 900, spent(), "too much is no credit")

		require.Equal(t, []string{"refund player/-1 by anna: ticket 7"}, acts(t, store, midassql.Query{OpenID: "player", BillNo: "-1"})[:1])
		refund("part", "-1", 200) // a repeat
		require.Len(t, acts(t, store, midassql.Query{OpenID: "player", BillNo: "-1"}), 2)
		for _, badly := range []midassql.Refund{{ID: "r", AppID: "a", OpenID: "player ", BillNo: "-1"}, {ID: "r", AppID: "a", OpenID: "player", BillNo: "\u20131"}} {
			_, err := store.Refund(t.Context(), badly, nil)
			var field *midas.FieldError
			require.ErrorAs(t, err, &field)
		}
		require.Equal(t, 4, db.count(t, "SELECT COUNT(*) FROM deliveries"))
	})
}
