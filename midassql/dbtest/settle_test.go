package dbtest

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midassql"
	"github.com/stretchr/testify/require"
)

// zoneAndMetadata returns what the ledger has of a payment.
func zoneAndMetadata(t testing.TB, store *midassql.Store, billNo string) string {
	t.Helper()
	for p, err := range store.Payments(t.Context(), midassql.Query{BillNo: billNo}) {
		require.NoError(t, err)
		return p.ZoneID + " " + p.Metadata
	}
	return "not there"
}

func refusedField(t testing.TB, err error, param string) {
	t.Helper()
	var field *midas.FieldError
	require.ErrorAs(t, err, &field)
	require.Equal(t, param, field.Param)
}

func TestASettledPaymentGoesToTheZoneOfItsOrder(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		store := db.store(t, midassql.Options{})
		inbox := newInbox(t, store, midassql.InboxOptions{})
		ordered(t, store, "player", "of-zone-3", func(r *midas.OrderRequest) { r.Player.ZoneID, r.Metadata = "3", "shop-7" })
		ordered(t, store, "player", "of-no-zone", func(r *midas.OrderRequest) { r.Metadata = "shop-8" })
		for _, row := range []struct {
			name, token, zone string
			want              string // zone and metadata; empty: refused
		}{
			{"the order says it", "of-zone-3", "", "3 shop-7"},
			{"the same as the order's", "of-zone-3", "3", "3 shop-7"},
			{"another than the order's", "of-zone-3", "1", ""},
			{"an order without a zone is of zone 1", "of-no-zone", "", "1 shop-8"},
			{"1 is that zone", "of-no-zone", "1", "1 shop-8"},
			{"2 is not", "of-no-zone", "2", ""},
			{"no token, and a zone", "", "4", "4 typed"},
			{"no token, and none", "", "", ""},
			{"no token, and a zone with a blank", "", "4 ", ""},
			{"an order that is gone, and a zone", "purged", "5", "5 typed"},
			{"an order that is gone, and none", "purged", "", ""},
		} {
			for way, settle := range map[string]func(midassql.Settlement) (bool, error){
				"Store": func(p midassql.Settlement) (bool, error) { return store.Settle(t.Context(), p, db.grant) },
				"Inbox": func(p midassql.Settlement) (bool, error) { return inbox.Settle(t.Context(), p) },
			} {
				billNo := "-" + way + strings.ReplaceAll(row.name, " ", "-")
				typed := paid("player", row.token, billNo, func(d *midas.Delivery) { d.ZoneID, d.Metadata = row.zone, "typed" })
				settled, err := settle(midassql.Settlement{Delivery: typed, By: "wang"})
				require.Equal(t, row.zone+" typed", typed.ZoneID+" "+typed.Metadata, "the caller's stays as it was")
				if row.want == "" {
					refusedField(t, err, "zoneid")
					require.Equal(t, "not there", zoneAndMetadata(t, store, billNo), "%s: %s", way, row.name)
					continue
				}
				require.NoError(t, err, "%s: %s", way, row.name)
				require.True(t, settled)
				require.Equal(t, row.want, zoneAndMetadata(t, store, billNo), "%s: %s", way, row.name)
			}
		}
		three := newInbox(t, store, midassql.InboxOptions{Zones: []string{"3"}})
		require.Len(t, waiting(t, three, "player"), 2, "zone 3 hands them out")
	})
}

func TestTheFirstCallbackBringsTheToken(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		store := db.store(t, midassql.Options{})
		deliver := store.Once(db.grant)
		ordered(t, store, "player", "token")
		ordered(t, store, "player", "token2")
		granted, err := store.Settle(t.Context(), midassql.Settlement{Delivery: paid("player", "tokem", "-1"), By: "wang"}, db.grant)
		require.NoError(t, err)
		require.True(t, granted)
		granted, err = store.Settle(t.Context(), midassql.Settlement{Delivery: paid("player", "", "-1"), By: "li"}, db.grant)
		require.NoError(t, err)
		require.False(t, granted, "a second settlement confirms no token")

		require.NoError(t, deliver(t.Context(), paid("player", "token", "-1")), "the typed token gives way")
		require.NoError(t, deliver(t.Context(), paid("player", "token", "-1")))
		require.ErrorContains(t, deliver(t.Context(), paid("player", "token2", "-1")), "token", "the first callback's does not")
		require.Equal(t, 1, db.count(t, "SELECT COUNT(*) FROM deliveries WHERE token = ?", "token"))
		require.Equal(t, 1, db.count(t, "SELECT COUNT(*) FROM items"))

		// A token that came with a callback gives way to no settlement.
		require.NoError(t, deliver(t.Context(), paid("player", "token2", "-2")))
		granted, err = store.Settle(t.Context(), midassql.Settlement{Delivery: paid("player", "tokem", "-2"), By: "wang"}, db.grant)
		require.NoError(t, err)
		require.False(t, granted)
		require.ErrorContains(t, deliver(t.Context(), paid("player", "token", "-2")), "token")
		require.NoError(t, deliver(t.Context(), paid("player", "token2", "-2")))
	})
}

// A typed charge or AppID that stays would make a part of the money all of it, or refuse every refund.
func TestTheFirstCallbackBringsTheChargeAndTheAppID(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		store := db.store(t, midassql.Options{})
		inbox := newInbox(t, store, midassql.InboxOptions{})
		ordered(t, store, "player", "token")
		settled, err := inbox.Settle(t.Context(), midassql.Settlement{By: "wang",
			Delivery: paid("player", "", "-1", func(d *midas.Delivery) { d.AppID, d.Charged = "1450000001", 1 })})
		require.NoError(t, err)
		require.True(t, settled)
		require.NoError(t, inbox.Deliver(t.Context(), paid("player", "token", "-1", ofOffer)))
		later := paid("player", "token", "-1", func(d *midas.Delivery) { d.AppID, d.Charged = "1450000002", 2 })
		require.NoError(t, inbox.Deliver(t.Context(), later), "the second one changes nothing")

		p := onlyPayment(t, store, midassql.Query{OpenID: "player"})
		require.Equal(t, charged, p.Charged)
		require.Equal(t, offer, p.AppID)
		result, err := store.Refund(t.Context(), part("R1", 1), nil)
		require.NoError(t, err)
		require.Equal(t, midassql.RefundResult{Refunded: 1, Charged: charged}, result)
		require.Equal(t, []string{"-1"}, waiting(t, inbox, "player"))
	})
}

// What is missing or wrong is a FieldError that names it, before anything is stored.
func TestASettlementThatIsRefused(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		store := db.store(t, midassql.Options{})
		inbox := newInbox(t, store, midassql.InboxOptions{})
		for _, test := range []struct {
			name   string
			change func(p *midassql.Settlement)
			field  string
		}{
			{"no payment", func(p *midassql.Settlement) { p.Delivery = nil }, "Delivery"},
			{"nobody's", func(p *midassql.Settlement) { p.By = "" }, "By"},
			{"no charge", func(p *midassql.Settlement) { p.Delivery.Charged = 0 }, "Charged"},
			{"a negative charge", func(p *midassql.Settlement) { p.Delivery.Charged = -1 }, "Charged"},
			{"an app with a blank behind", func(p *midassql.Settlement) { p.Delivery.AppID = offer + " " }, "AppID"},
			{"an app with a full-width digit", func(p *midassql.Settlement) { p.Delivery.AppID = "145000000\uff10" }, "AppID"},
		} {
			for way, settle := range map[string]func(midassql.Settlement) (bool, error){
				"Store": func(p midassql.Settlement) (bool, error) { return store.Settle(t.Context(), p, db.grant) },
				"Inbox": func(p midassql.Settlement) (bool, error) { return inbox.Settle(t.Context(), p) },
			} {
				p := midassql.Settlement{Delivery: paid("player", "", "-1", ofOffer), By: "wang"}
				test.change(&p)
				_, err := settle(p)
				var field *midas.FieldError
				require.ErrorAs(t, err, &field, "%s: %s", way, test.name)
				require.Equal(t, test.field, field.Field, "%s: %s", way, test.name)
			}
		}
		require.Zero(t, db.count(t, "SELECT COUNT(*) FROM deliveries"))
	})
}

// As they come out of spreadsheets and chats. Seven of these were seven grants of one payment.
func TestAPastedNumberIsNotAnotherPayment(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		store := db.store(t, midassql.Options{})
		inbox := newInbox(t, store, midassql.InboxOptions{})
		for _, row := range []struct {
			name, text string
			billNoOnly bool
		}{
			{"a blank behind", "-B1 ", false},
			{"a blank in front", " -B1", false},
			{"a blank inside", "-B 1", false},
			{"a no-break space", "-B1\u00a0", false},
			{"an ideographic space", "-B1\u3000", false},
			{"a carriage return", "-B1\r", false},
			{"a line end", "-B1\n", false},
			{"a tab", "\t-B1", false},
			{"a byte order mark", "\ufeff-B1", false},
			{"a zero width space", "-B\u200b1", false},
			{"a zero width joiner", "-B1\u200d", false},
			{"a mark of direction", "\u202a-B1\u202c", false},
			{"a soft hyphen", "-B\u00ad1", false},
			{"a Hangul filler", "-B1\u3164", false},
			{"a variation selector", "-B1\ufe0f", false},
			{"a non-breaking hyphen", "\u2011B1", true},
			{"a dash", "\u2013B1", true},
			{"a full-width digit", "-B\uff11", true},
		} {
			t.Run(row.name, func(t *testing.T) {
				settle := func(openID, token, billNo string) error {
					_, err := store.Settle(t.Context(), midassql.Settlement{Delivery: paid(openID, token, billNo), By: "wang"}, db.grant)
					return err
				}
				refusedField(t, settle("player", "", row.text), "billno")
				refusedField(t, inbox.Cancel(t.Context(), "player", row.text, "refunded"), "billno")
				if !row.billNoOnly {
					refusedField(t, settle(row.text, "", "-B1"), "openid")
					refusedField(t, settle("player", row.text, "-B1"), "token")
					refusedField(t, inbox.Cancel(t.Context(), row.text, "-B1", "refunded"), "openid")
				}
				_, err := inbox.Settle(t.Context(), midassql.Settlement{Delivery: paid("player", "", row.text), By: "wang"})
				refusedField(t, err, "billno")

				// What Midas has signed is the payment's name, whatever it looks like.
				token := "token " + row.text
				ordered(t, store, "player", token)
				require.NoError(t, store.Once(db.grant)(t.Context(), paid("player", token, row.text)))
				require.Equal(t, 1, db.count(t, "SELECT COUNT(*) FROM items WHERE billno = ?", row.text))
			})
		}
		require.Zero(t, db.count(t, "SELECT COUNT(*) FROM deliveries WHERE settled_by <> ''"))
	})
}

func TestAPaymentInAnotherZoneIsGrantedAndLogged(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, order, callback string
		warned                bool
	}{
		{"the same", "3", "3", false},
		{"none in the callback, and 1", "", "", false},
		{"1 and none", "1", "", false},
		{"another", "3", "4", true},
		{"none, which is 1, for 3", "3", "", true},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			db := openDatabase(t, sqlite)
			var logged bytes.Buffer
			store := db.store(t, midassql.Options{Logger: slog.New(slog.NewJSONHandler(&logged, nil))})
			ordered(t, store, "player", "token", func(r *midas.OrderRequest) { r.Player.ZoneID = row.order })
			logged.Reset()
			for range 2 {
				require.NoError(t, store.Once(db.grant)(t.Context(), paid("player", "token", "-1", func(d *midas.Delivery) { d.ZoneID = row.callback })))
			}
			require.Equal(t, row.callback+" ", zoneAndMetadata(t, store, "-1"), "it goes where the callback says")
			if !row.warned {
				require.Empty(t, logged.String())
				return
			}
			var line struct {
				Level        string `json:"level"`
				BillNo       string `json:"billno"`
				OrderZone    string `json:"order_zone"`
				CallbackZone string `json:"callback_zone"`
			}
			require.NoError(t, json.Unmarshal(logged.Bytes(), &line), "one line: %s", &logged)
			require.Equal(t, "WARN -1 3 "+row.callback, strings.Join([]string{line.Level, line.BillNo, line.OrderZone, line.CallbackZone}, " "))
		})
	}
}

// An empty zoneid is sent as "1": the server of zone 1 gets what is paid without one.
func TestAnEmptyZoneIsZone1(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, db *database) {
		store := db.store(t, midassql.Options{})
		ordered(t, store, "player", "token")
		one, two := newInbox(t, store, midassql.InboxOptions{Zones: []string{"1"}}), newInbox(t, store, midassql.InboxOptions{Zones: []string{"2"}})
		require.NoError(t, one.Deliver(t.Context(), paid("player", "token", "-1", func(d *midas.Delivery) { d.ZoneID = "" })))
		require.Empty(t, waiting(t, two, "player"))
		require.Equal(t, []string{"-1"}, waiting(t, one, "player"))
		require.NoError(t, one.Done(t.Context(), "player", "-1"))
		n, err := two.Retry(t.Context(), midassql.RetryOptions{DoneFrom: time.Now().Add(-time.Minute)})
		require.NoError(t, err)
		require.Zero(t, n.PutBack)
		n, err = one.Retry(t.Context(), midassql.RetryOptions{DoneFrom: time.Now().Add(-time.Minute)})
		require.NoError(t, err)
		require.EqualValues(t, 1, n.PutBack)
		require.Equal(t, []string{"-1"}, waiting(t, one, "player"))
	})
}
