package dbtest

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midassql"
	"github.com/midas-go/midas/midassql/internal/migratetest"
	"github.com/stretchr/testify/require"
)

// named returns a Store of a process of its own on db's tables, which it does not migrate.
func (db *database) named(t testing.TB, environment string, change ...func(*midassql.Options)) *midassql.Store {
	t.Helper()
	opts := midassql.Options{TablePrefix: db.prefix, Environment: environment}
	for _, c := range change {
		c(&opts)
	}
	store, err := midassql.New(db.DB, db.dialect, opts)
	require.NoError(t, err)
	return store
}

func TestAServerOfAnotherEnvironmentWritesNothing(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		live := db.store(t, midassql.Options{Environment: "live"})
		inbox := newInbox(t, live, midassql.InboxOptions{})
		ordered(t, live, "player", "token")
		require.NoError(t, live.Once(db.grant)(t.Context(), paid("player", "token", "-1")))
		require.NoError(t, inbox.Deliver(t.Context(), paid("player", "token", "-2")))
		require.NoError(t, inbox.Deliver(t.Context(), paid("player", "token", "-3")))
		require.NoError(t, inbox.Done(t.Context(), "player", "-3"))
		rows := func() (all [5]int) {
			for i, table := range []string{"orders", "deliveries", "inbox", "zones", "items"} {
				all[i] = db.count(t, "SELECT COUNT(*) FROM "+table)
			}
			return all
		}
		before := rows()

		for _, environment := range []string{"sandbox", ""} {
			store := db.named(t, environment)
			other := newInbox(t, store, midassql.InboxOptions{})
			refused := func(what string, err error) {
				t.Helper()
				require.ErrorIs(t, err, midassql.ErrEnvironment, what)
				require.ErrorContains(t, err, `"live"`, what)
				require.Equal(t, 1, midas.ReplyTo(err).Ret(), what)
			}
			refused("Migrate", store.Migrate(t.Context()))
			refused("SaveOrder", store.SaveOrder(t.Context(), midas.OrderRequest{Player: midas.Player{OpenID: "player"}, Items: []midas.Item{gem}}, &midas.Order{Token: "new"}))
			refused("Once", store.Once(db.grant)(t.Context(), paid("player", "token", "-4")))
			refused("a repeat", store.Once(db.grant)(t.Context(), paid("player", "token", "-1")))
			refused("Deliver", other.Deliver(t.Context(), paid("player", "token", "-4")))
			_, err := store.Settle(t.Context(), midassql.Settlement{Delivery: paid("player", "token", "-4"), By: "wang"}, db.grant)
			refused("Settle", err)
			refused("Cancel", other.Cancel(t.Context(), "player", "-2", "refunded"))
			refused("Done", other.Done(t.Context(), "player", "-2"))
			_, err = other.MoveZone(t.Context(), "1", "2")
			refused("MoveZone", err)
			_, err = other.Retry(t.Context(), midassql.RetryOptions{DoneFrom: time.Now().Add(-time.Hour)})
			refused("Retry", err)
			_, err = store.Purge(t.Context(), 8*24*time.Hour)
			refused("Purge", err)
			waiting := 0
			for _, err := range other.Waiting(t.Context(), "player") {
				refused("Waiting", err)
				waiting++
			}
			require.Equal(t, 1, waiting)
			require.Equal(t, []string{"-1", "-2", "-3"}, payments(t, store, midassql.Query{OpenID: "player"}), "looking does no harm")
		}
		require.Equal(t, before, rows())
		require.NoError(t, live.Once(db.grant)(t.Context(), paid("player", "token", "-4")))
	})
}

func TestWorkOfAnotherEnvironmentHandsNothingOut(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		live := db.store(t, midassql.Options{Environment: "live"})
		db.stored(t, live, newInbox(t, live, midassql.InboxOptions{}), "player", "-1")
		logged := new(lines)
		ctx, cancel := context.WithCancel(t.Context())
		other := db.named(t, "sandbox", func(o *midassql.Options) {
			o.Logger = slog.New(logs(func(line string) {
				if strings.Contains(line, "cannot claim") {
					cancel()
				}
				logged.Write([]byte(line))
			}))
		})
		err := newInbox(t, other, midassql.InboxOptions{Poll: time.Millisecond}).Work(ctx, func(context.Context, *midas.Delivery) error {
			t.Error("handed out")
			return nil
		})
		require.ErrorIs(t, err, context.Canceled)
		require.Contains(t, logged.String(), "another environment")
	})
}

// logs is a log handler that calls a function with the text of each line.
func logs(line func(string)) slog.Handler {
	return slog.NewTextHandler(writer(line), nil)
}

type writer func(string)

func (w writer) Write(p []byte) (int, error) { w(string(p)); return len(p), nil }

func TestAnEnvironmentThatIsNamedAndNotStored(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		db.store(t, midassql.Options{}) // migrations of their own
		store := db.named(t, "live")
		ordered := func() error {
			return store.SaveOrder(t.Context(), midas.OrderRequest{Player: midas.Player{OpenID: "player"}, Items: []midas.Item{gem}}, &midas.Order{Token: "token"})
		}
		err := ordered()
		require.ErrorIs(t, err, midassql.ErrEnvironment)
		_, statement, there := strings.Cut(err.Error(), "or you: ")
		require.True(t, there, err.Error())
		_, err = db.Exec(statement)
		require.NoError(t, err, "the text has the statement that helps")
		require.NoError(t, ordered(), "at once")
		require.ErrorIs(t, db.named(t, "sandbox").Migrate(t.Context()), midassql.ErrEnvironment)
		require.NoError(t, db.named(t, "live").Migrate(t.Context()))
	})
}

// Not even the tables of an earlier release are changed.
func TestAServerOfAnotherEnvironmentMigratesNothing(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		db.store(t, midassql.Options{Environment: "live"})
		files, version := db.next(t)
		for _, environment := range []string{"sandbox", ""} {
			require.ErrorIs(t, migratetest.MigrateTo(t.Context(), db.named(t, environment), files, version), midassql.ErrEnvironment)
			_, err := db.Exec(db.sql("SELECT colour FROM deliveries"))
			require.Error(t, err)
		}
		require.NoError(t, migratetest.MigrateTo(t.Context(), db.named(t, "live"), files, version))
		db.must(t, "SELECT colour FROM deliveries")
	})
}

// A server that ran without a word when "live" was written goes on for a minute at most.
func TestTheEnvironmentIsReadAgainEachMinute(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		c := clockAt(time.Unix(1707393600, 0))
		logged := new(lines)
		sandbox := db.store(t, midassql.Options{Now: c.now, AcceptAppOrders: true, Logger: slog.New(slog.NewTextHandler(logged, nil))})
		deliver := func(billNo string) error {
			return sandbox.Once(db.grant)(t.Context(), paid("player", "token", billNo))
		}
		require.NoError(t, deliver("-1"))
		require.Equal(t, 1, strings.Count(logged.String(), "Options.Environment is empty"), "one warning")
		require.NoError(t, db.named(t, "live").Migrate(t.Context()))
		c.add(time.Minute - 1)
		require.NoError(t, deliver("-2"))
		c.add(1)
		require.ErrorIs(t, deliver("-3"), midassql.ErrEnvironment)
		c.add(1)
		require.ErrorIs(t, deliver("-3"), midassql.ErrEnvironment, "and it stays refused")
		require.Equal(t, 2, db.count(t, "SELECT COUNT(*) FROM items"))
		db.must(t, "DELETE FROM meta WHERE name = 'environment'")
		require.NoError(t, deliver("-3"), "until somebody mends it")
		require.Equal(t, 1, strings.Count(logged.String(), "Options.Environment is empty"))
	})
}

// Two servers that migrate at once with two words: one of them has the tables.
func TestTwoEnvironmentsAtOnce(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		errs := make(chan error, 2)
		for _, environment := range []string{"live", "sandbox"} {
			store := db.named(t, environment)
			go func() { errs <- store.Migrate(t.Context()) }()
		}
		refused := 0
		for range 2 {
			if err := <-errs; err != nil {
				require.ErrorIs(t, err, midassql.ErrEnvironment)
				refused++
			}
		}
		require.Equal(t, 1, refused)
	})
}

func TestEnvironmentsAreWords(t *testing.T) {
	t.Parallel()
	db := openDatabase(t, sqlite)
	for _, environment := range []string{"Live", "live ", "live'; DROP TABLE midas_orders", "生产", strings.Repeat("x", 65), "-"} {
		_, err := midassql.New(db.DB, db.dialect, midassql.Options{Environment: environment})
		require.ErrorContains(t, err, "Options.Environment", "%q", environment)
	}
	require.Equal(t, "live", db.named(t, "live").Environment())
}
