package dbtest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midassql"
	"github.com/stretchr/testify/require"
)

// acts returns the acts as texts, without their times.
func acts(t testing.TB, store *midassql.Store, q midassql.Query) (all []string) {
	t.Helper()
	for a, err := range store.Acts(t.Context(), q) {
		require.NoError(t, err)
		all = append(all, fmt.Sprintf("%s %s/%s by %s: %s", a.Kind, a.OpenID, a.BillNo, a.By, a.Reason))
	}
	return all
}

func TestWhatSomebodyDidIsWrittenDown(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		c := clockAt(time.UnixMilli(1707393600123))
		store := db.store(t, midassql.Options{Now: func() time.Time { return c.add(time.Millisecond) }})
		inbox := newInbox(t, store, midassql.InboxOptions{})
		anna := midassql.By(t.Context(), "anna")
		of := func(billNo string) []string { return acts(t, store, midassql.Query{OpenID: "player", BillNo: billNo}) }

		_, err := store.Settle(t.Context(), midassql.Settlement{Delivery: paid("player", "", "-once"), By: "wang", Reason: "ticket 7"}, db.grant)
		require.NoError(t, err)
		for range 2 { // the second one does nothing
			_, err = inbox.Settle(anna, midassql.Settlement{Delivery: paid("player", "", "-inbox"), By: "wang", Reason: "ticket 8"})
			require.NoError(t, err)
		}
		require.Equal(t, []string{"settle player/-once by wang: ticket 7"}, of("-once"))
		require.Equal(t, []string{"settle player/-inbox by wang: ticket 8"}, of("-inbox"))

		db.stored(t, store, inbox, "player", "-cancelled")
		for range 2 {
			require.NoError(t, inbox.Cancel(anna, "player", "-cancelled", "ticket 9"))
		}
		for range 2 { // a game that has saved it all the same, and calls again
			require.ErrorIs(t, inbox.Done(t.Context(), "player", "-cancelled"), midassql.ErrCancelled)
		}
		require.Equal(t, []string{"cancel player/-cancelled by anna: ticket 9", "done_after_cancel player/-cancelled by : ticket 9"}, of("-cancelled"))

		db.stored(t, store, inbox, "player", "-stuck", "-waits", "-done")
		db.must(t, "UPDATE inbox SET stuck = 1 WHERE billno = '-stuck'")
		require.NoError(t, inbox.Done(t.Context(), "player", "-done"))
		n, err := inbox.Retry(anna, midassql.RetryOptions{DoneFrom: time.Now().Add(-time.Hour), Reason: "restored"})
		require.NoError(t, err)
		require.EqualValues(t, 2, n.PutBack)
		require.Equal(t, []string{"retry player/-stuck by anna: restored"}, of("-stuck"))
		require.Equal(t, []string{"retry player/-done by anna: restored"}, of("-done"))
		require.Empty(t, of("-waits"), "nothing was done to it")

		db.stored(t, store, inbox, "player", "-moves")
		db.must(t, "UPDATE inbox SET zone = '7_3', base = '7' WHERE billno = '-moves'")
		moved, err := inbox.MoveZone(anna, "7", "3")
		require.NoError(t, err)
		require.EqualValues(t, 1, moved)
		require.Equal(t, []string{"move_zone player/-moves by anna: from 7 to 3"}, of("-moves"))
		require.Equal(t, 1, db.count(t, "SELECT COUNT(*) FROM inbox WHERE zone = '3' AND base = '3' AND billno = '-moves'"))

		require.Len(t, acts(t, store, midassql.Query{OpenID: "player"}), 7)
		require.Len(t, acts(t, store, midassql.Query{BillNo: "-stuck"}), 1)
		var last time.Time
		for a, err := range store.Acts(t.Context(), midassql.Query{From: time.UnixMilli(1707393600123), To: c.now().Add(time.Minute)}) {
			require.NoError(t, err)
			require.False(t, a.Time.Before(last), "oldest first")
			last = a.Time
		}
		require.NotZero(t, last)
		require.Empty(t, acts(t, store, midassql.Query{OpenID: "player", To: time.UnixMilli(1707393600123)}))
		for _, q := range []midassql.Query{{}, {Token: "token"}, {OpenID: "player", Metadata: "m"}, {OpenID: "player", AppID: "a"}, {OpenID: "player", State: midassql.StateDone}} {
			require.ErrorContains(t, failure(store.Acts(t.Context(), q)), "Query", "%+v", q)
		}
	})
}

// An act and what it tells of are one transaction: neither is there without the other.
func TestAnActIsThereIfItHappened(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		store := db.store(t, midassql.Options{})
		inbox := newInbox(t, store, midassql.InboxOptions{})
		db.stored(t, store, inbox, "player", "-1", "-2")
		require.NoError(t, inbox.Done(t.Context(), "player", "-2"))

		settlement := midassql.Settlement{Delivery: paid("player", "", "-3"), By: "wang"}
		_, err := store.Settle(t.Context(), settlement, func(context.Context, *sql.Tx, *midas.Delivery) error { return errors.New("the bag is full") })
		require.ErrorContains(t, err, "the bag is full")
		require.Zero(t, db.count(t, "SELECT COUNT(*) FROM acts"), "what was refused left nothing")

		db.must(t, "DROP TABLE acts")
		_, err = store.Settle(t.Context(), settlement, db.grant)
		require.Error(t, err)
		require.Error(t, inbox.Cancel(t.Context(), "player", "-1", "refunded"))
		_, err = inbox.MoveZone(t.Context(), "1", "2")
		require.Error(t, err)
		_, err = inbox.Retry(t.Context(), midassql.RetryOptions{DoneFrom: time.Now().Add(-time.Hour)})
		require.Error(t, err)
		require.Equal(t, 2, db.count(t, "SELECT COUNT(*) FROM deliveries"))
		require.Equal(t, 1, db.count(t, "SELECT COUNT(*) FROM deliveries WHERE billno = '-1' AND state = 1"))
		require.Equal(t, 1, db.count(t, "SELECT COUNT(*) FROM deliveries WHERE billno = '-2' AND state = 0"))
		require.Equal(t, 1, db.count(t, "SELECT COUNT(*) FROM inbox WHERE zone = '1'"))
		require.Zero(t, db.count(t, "SELECT COUNT(*) FROM items"))
	})
}

// More than a page of one moment, as a MoveZone makes them.
func TestActsOfSeveralPages(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		store := db.store(t, midassql.Options{})
		inbox := newInbox(t, store, midassql.InboxOptions{})
		series, text := db.series(1203)
		db.must(t, "INSERT INTO inbox (openid, billno, zone, base, stored_ms, due_ms) SELECT "+text("player")+", "+text("-")+", '7', '7', 1, 1 FROM "+series)
		moved, err := inbox.MoveZone(midassql.By(t.Context(), "anna"), "7", "8")
		require.NoError(t, err)
		require.EqualValues(t, 1203, moved)
		seen := make(map[string]bool)
		for a, err := range store.Acts(t.Context(), midassql.Query{From: time.Now().Add(-time.Minute), To: time.Now().Add(time.Minute)}) {
			require.NoError(t, err)
			seen[a.OpenID] = true
		}
		require.Len(t, seen, 1203)
	})
}
