package dbtest

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/midas-go/midas/midassql"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// claimed returns the tokens that ClaimUnpaid claims.
func claimed(t testing.TB, store *midassql.Store, prefix string, limit int) (tokens []string) {
	t.Helper()
	orders, err := store.ClaimUnpaid(t.Context(), prefix, limit)
	require.NoError(t, err)
	for _, o := range orders {
		require.Equal(t, []any{"player", "1", gem}, []any{o.OpenID, o.ZoneID, o.Items[0]})
		tokens = append(tokens, o.Token)
	}
	return tokens
}

func TestUnpaidOrdersAreClaimedOnceForEachTimeThatTheyAreDue(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		const day = 24 * time.Hour
		noon := time.Date(2024, 2, 8, 12, 0, 0, 0, time.UTC)
		c := clockAt(noon)
		store := db.store(t, midassql.Options{Now: c.now})
		ordered(t, store, "player", "token")
		require.Empty(t, claimed(t, store, "", 10))
		due := []time.Duration{time.Minute, 5 * time.Minute, 15 * time.Minute, time.Hour, day, 2 * day, 3 * day, 4 * day, 5 * day, 6 * day, 7 * day, 8 * day}
		for i, age := range due[:len(due)-1] {
			c.set(noon.Add(age - time.Second))
			require.Empty(t, claimed(t, store, "", 10), "a second before %v", age)
			c.set(noon.Add(age))
			orders, err := store.ClaimUnpaid(t.Context(), "", 10)
			require.NoError(t, err)
			require.Len(t, orders, 1, "after %v", age)
			require.WithinDuration(t, noon, orders[0].Saved, 0)
			require.WithinDuration(t, noon.Add(due[i+1]), orders[0].Until, 0)
			require.Empty(t, claimed(t, store, "", 10), "again after %v", age)
		}
		for _, age := range []time.Duration{8 * day, 9 * day, 800 * day} {
			c.set(noon.Add(age))
			require.Empty(t, claimed(t, store, "", 10), "dead after %v", age)
		}
	})
}

func TestAWorkerThatWasDownClaimsOnceForAllTheTimesThatPassed(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		const day = 24 * time.Hour
		noon := time.Date(2024, 2, 8, 12, 0, 0, 0, time.UTC)
		c := clockAt(noon.Add(-time.Second))
		store := db.store(t, midassql.Options{Now: c.now})
		ordered(t, store, "player", "dead")
		c.set(noon)
		ordered(t, store, "player", "token")
		c.set(noon.Add(8*day - time.Second))
		require.Equal(t, []string{"token"}, claimed(t, store, "", 10))
		require.Empty(t, claimed(t, store, "", 10))

		c.set(noon)
		ordered(t, store, "player", "later")
		c.set(noon.Add(20 * time.Minute))
		require.Equal(t, []string{"later"}, claimed(t, store, "", 10))
		c.set(noon.Add(time.Hour - time.Second))
		require.Empty(t, claimed(t, store, "", 10))
		c.set(noon.Add(time.Hour))
		require.Equal(t, []string{"later"}, claimed(t, store, "", 10))

		// Purge deletes what was claimed as it deletes the rest.
		c.set(noon.Add(30 * day))
		purged, err := store.Purge(t.Context(), 7*day)
		require.NoError(t, err)
		require.EqualValues(t, 3, purged)
	})
}

func TestAPaidOrderIsNotClaimed(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		noon := time.Date(2024, 2, 8, 12, 0, 0, 0, time.UTC)
		c := clockAt(noon)
		store := db.store(t, midassql.Options{Now: c.now})
		inbox := newInbox(t, store, midassql.InboxOptions{})
		for _, token := range []string{"once", "waiting", "between", "unpaid"} {
			ordered(t, store, "player", token)
		}
		for i := range 250 { // more than are looked at in one transaction
			ordered(t, store, "player", fmt.Sprint("a", i))
			require.NoError(t, inbox.Deliver(t.Context(), paid("player", fmt.Sprint("a", i), fmt.Sprint("-a", i))))
		}
		require.NoError(t, store.Once(db.grant)(t.Context(), paid("player", "once", "-once")))
		require.NoError(t, inbox.Deliver(t.Context(), paid("player", "waiting", "-waiting")))
		c.set(noon.Add(time.Minute))
		require.Equal(t, []string{"between", "unpaid"}, claimed(t, store, "", 10))
		require.NoError(t, store.Once(db.grant)(t.Context(), paid("player", "between", "-between")))
		c.set(noon.Add(time.Hour))
		require.Equal(t, []string{"unpaid"}, claimed(t, store, "", 10))
	})
}

// Orders of several apps lie in one table.
func TestOnlyOrdersWithThePrefixAreClaimed(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		c := clockAt(time.Date(2024, 2, 8, 12, 0, 0, 0, time.UTC))
		store := db.store(t, midassql.Options{Now: c.now})
		for _, token := range []string{"wx1", "wx1.", "wx1/0/a", "wx1/1/单号", "wx1/\U0010FFFE", "WX1/0/a", "wx10/0/a", "wx2/0/a", "w"} {
			ordered(t, store, "player", token)
		}
		c.add(time.Minute)
		require.ElementsMatch(t, []string{"wx1/0/a", "wx1/1/单号", "wx1/\U0010FFFE"}, claimed(t, store, "wx1/", 10))
		require.Len(t, claimed(t, store, "", 4), 4)
		require.Len(t, claimed(t, store, "", 4), 2)
	})
}

func TestAnOrderThatCannotBeReadDoesNotHideTheOthers(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		store := db.store(t, midassql.Options{})
		db.must(t, "INSERT INTO orders (token, openid, zone, items, metadata, max_quantity, saved_at) VALUES ('bad', 'player', '1', '[]', '', 0, ?)",
			time.Now().Add(-time.Hour).Unix())
		db.must(t, "INSERT INTO orders (token, openid, zone, items, metadata, max_quantity, saved_at) VALUES ('good', 'player', '1', 'gem60*60*2', '', 0, ?)",
			time.Now().Add(-time.Hour).Unix())
		require.Equal(t, []string{"good"}, claimed(t, store, "", 1))
		require.Empty(t, claimed(t, store, "", 1))
	})
}

func TestTwoServersNeverClaimTheSameOrder(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		const orders = 230
		c := clockAt(time.Date(2024, 2, 8, 12, 0, 0, 0, time.UTC))
		first := db.store(t, midassql.Options{Now: c.now})
		second, err := midassql.New(db.open(), db.dialect, midassql.Options{TablePrefix: db.prefix, Now: c.now})
		require.NoError(t, err)
		var want []string
		for i := range orders {
			want = append(want, fmt.Sprintf("token%03d", i))
			ordered(t, first, "player", want[i])
		}
		c.add(time.Minute)
		var mu sync.Mutex
		var got []string
		var servers sync.WaitGroup
		for i := range 6 {
			store := []*midassql.Store{first, second}[i%2]
			servers.Go(func() {
				for {
					claims, err := store.ClaimUnpaid(t.Context(), "", 7)
					mu.Lock()
					for _, o := range claims {
						got = append(got, o.Token)
					}
					all := len(got) >= orders
					mu.Unlock()
					if !assert.NoError(t, err) || all {
						return
					}
				}
			})
		}
		servers.Wait()
		slices.Sort(got)
		require.Equal(t, want, got)
	})
}

// One server claims between the other's look and its UPDATE: what the UPDATE changed decides.
func TestWhatTheUpdateChangedIsClaimed(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		rewrite func(string) string
		twice   bool
	}{
		{"as it is", func(query string) string { return query }, false},
		{"an UPDATE that does not look at asked_ms", func(query string) string {
			return strings.Replace(query, "orders.asked_ms = ", "orders.asked_ms >= ", 1)
		}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			on(t, func(t *testing.T, db *database) {
				c := clockAt(time.Date(2024, 2, 8, 12, 0, 0, 0, time.UTC))
				first := db.store(t, midassql.Options{Now: c.now})
				ordered(t, first, "player", "token")
				c.add(time.Minute)
				var other []string
				var once sync.Once
				slow := &recorder{rewrite: test.rewrite, before: func(query string) error {
					if strings.HasPrefix(query, "UPDATE "+db.prefix+"orders") {
						once.Do(func() {
							c.add(4 * time.Minute) // MySQL counts no row that it leaves as it was
							other = claimed(t, first, "", 1)
						})
					}
					return nil
				}}
				got := claimed(t, slow.store(t, db, midassql.Options{Now: c.now}), "", 1)
				require.Equal(t, []string{"token"}, other)
				require.Equal(t, test.twice, len(got) > 0, "the slow one claimed %v", got)
			}, midassql.PostgreSQL, midassql.MySQL) // on SQLite a transaction that writes is alone
		})
	}
}
