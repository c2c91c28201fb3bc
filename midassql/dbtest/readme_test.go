package dbtest

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/go-sql-driver/mysql"
	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midassql"
	"github.com/midas-go/midas/midastest"
	"github.com/stretchr/testify/require"
)

// The code of README.md, and a test that sells with it on MariaDB and MySQL.

// Price and items are the server's, never the app's.
var catalogue = map[string]midas.OrderRequest{
	"starter": {GoodsName: "Starter pack", GoodsDescription: "60 gems and a sword", Items: []midas.Item{
		{ID: "gem60", Price: 60 * midas.QPoint, Quantity: 1},
		{ID: "sword", Price: 18 * midas.QPoint, Quantity: 1},
	}},
}

// VARBINARY, since openids that differ only in case are two players: "oAbC" is not "oaBc".
const playerItems = `CREATE TABLE IF NOT EXISTS player_items (
	id BIGINT AUTO_INCREMENT PRIMARY KEY, openid VARBINARY(255) NOT NULL, zone VARBINARY(64) NOT NULL,
	item VARBINARY(64) NOT NULL, quantity BIGINT NOT NULL, KEY (openid, zone)) ENGINE=InnoDB`

// newBackend mounts the two handlers of a shop.
func newBackend(ctx context.Context, client *midas.Client, store *midassql.Store, db *sql.DB) (http.Handler, error) {
	_, err := db.ExecContext(ctx, playerItems)
	if err = errors.Join(err, store.Migrate(ctx)); err != nil { // Migrate makes the ledger's tables
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("POST /orders", orders(client, store))
	mux.Handle("/pay/notify", client.DeliveryHandler(store.Once(grant))) // the path registered at Tencent
	return mux, nil
}

// orders places an order, stores it, and only then hands it to the app.
func orders(client *midas.Client, store *midassql.Store) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var ask struct {
			Player  midas.Player // as the client SDK gave it to the app; login is "qq", "wx" or "guest"
			Product string
		}
		err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 16<<10)).Decode(&ask)
		req, sold := catalogue[ask.Product]
		if err != nil || !sold {
			http.Error(w, "no such product", http.StatusBadRequest)
			return
		}
		req.Player = ask.Player    // its ZoneID comes from your session; empty is zone "1"
		req.Metadata = rand.Text() // your reference: the callback brings it back, with pay method and platform
		order, err := client.CreateOrder(r.Context(), req)
		if err == nil {
			err = store.SaveOrder(r.Context(), req, order) // first: the player may pay as soon as the app has it
		}
		var wrong *midas.FieldError
		switch {
		case errors.As(err, &wrong):
			http.Error(w, wrong.Error(), http.StatusBadRequest)
		case errors.Is(err, midas.ErrLoginExpired):
			http.Error(w, "log in again", http.StatusUnauthorized)
		case err != nil:
			slog.WarnContext(r.Context(), "no order", "error", err) // holds no secret
			http.Error(w, "try again later", http.StatusBadGateway)
		default:
			w.Header().Set("Content-Type", "application/json")
			json.NewEncoder(w).Encode(order) // token, url_params and expires, for the client SDK
		}
	}
}

// grant runs once for each verified payment, in the transaction that stores it: all is committed or nothing.
func grant(ctx context.Context, tx *sql.Tx, d *midas.Delivery) error {
	for _, item := range d.Items { // what was really bought; d.Charged may be less than the price
		_, err := tx.ExecContext(ctx, "INSERT INTO player_items (openid, zone, item, quantity) VALUES (?, ?, ?, ?)",
			d.OpenID, d.ZoneID, item.ID, item.Quantity)
		if err != nil {
			return err // rolled back, and Midas is answered ret 1
		}
	}
	return nil
}

func TestTheREADMEsBackendSells(t *testing.T) {
	for _, kind := range []struct {
		name string
		open func(testing.TB) *database
	}{
		{"MariaDB", func(t testing.TB) *database { return openDatabase(t, mariaDB) }},
		{"MySQL", func(t testing.TB) *database { return openDatabase(t, mySQL) }},
	} {
		t.Run(kind.name, func(t *testing.T) {
			db := ownDatabase(t, kind.open(t))
			fake := midastest.New(midastest.Config{Errorf: t.Errorf})
			store, err := midassql.New(db, midassql.MySQL, midassql.Options{})
			require.NoError(t, err)
			config := fake.ClientConfig("/pay/notify")
			config.OnCallback = store.OnCallback
			client, err := midas.New(config)
			require.NoError(t, err)
			backend, err := newBackend(t.Context(), client, store, db)
			require.NoError(t, err)
			fake.DeliverToHandler(backend, "/pay/notify")

			const player = `{"login":"wx","openid":"oBO","openkey":"access-token","pf":"wechat_wx-2001-android-2011-xxxx","pfkey":"k"}`
			answer := post(backend, `{"player":`+player+`,"product":"starter"}`)
			require.Equal(t, http.StatusOK, answer.Code, answer.Body)
			var order midas.Order
			require.NoError(t, json.Unmarshal(answer.Body.Bytes(), &order))
			receipt, err := fake.Pay(t.Context(), order.Token, midastest.Discount(80), midastest.Duplicates(3))
			require.NoError(t, err)
			for _, r := range append(receipt.Duplicates, receipt) {
				require.True(t, r.Accepted, r.Reason)
			}
			var got string
			require.NoError(t, db.QueryRow(`SELECT GROUP_CONCAT(openid, ' ', zone, ' ', item, ' ', quantity ORDER BY item SEPARATOR '; ') FROM player_items`).Scan(&got))
			require.Equal(t, "oBO 1 gem60 1; oBO 1 sword 1", got)
			var metadata, payMethod string
			require.NoError(t, db.QueryRow("SELECT metadata, pay_method FROM midas_deliveries").Scan(&metadata, &payMethod))
			require.Len(t, metadata, 26)
			require.NotEmpty(t, payMethod)

			for body, want := range map[string]string{
				`{"player":` + player + `,"product":"crown"}`: "no such product\n",
				`nonsense`: "no such product\n",
				`{"player":{"login":"wx","openid":"oBO","pf":"x","pfkey":"k"},"product":"starter"}`: "Player.OpenKey (parameter openkey): missing; it comes from the player's login\n",
			} {
				answer := post(backend, body)
				require.Equal(t, http.StatusBadRequest, answer.Code, body)
				require.Equal(t, want, answer.Body.String())
			}
			_, err = fake.Pay(t.Context(), order.Token, midastest.Param("token", "F00")) // an order that was not saved
			require.NoError(t, err)
			require.NoError(t, client.Wait(t.Context()))
			require.NoError(t, store.Wait(t.Context()))
			var failed int
			for _, err := range store.Attempts(t.Context(), midassql.Query{OpenID: "oBO"}) {
				require.NoError(t, err)
				failed++
			}
			require.Equal(t, 1, failed, "support finds what was not answered OK")

			fake.NextOrders(midastest.Fault{Ret: 1018})
			require.Equal(t, http.StatusUnauthorized, post(backend, `{"player":`+player+`,"product":"starter"}`).Code)
		})
	}
}

func post(handler http.Handler, body string) *httptest.ResponseRecorder {
	answer := httptest.NewRecorder()
	handler.ServeHTTP(answer, httptest.NewRequest(http.MethodPost, "/orders", strings.NewReader(body)))
	return answer
}

// ownDatabase makes a database on db's server, since the code of a page has the ledger's own
// names for its tables.
func ownDatabase(t *testing.T, db *database) *sql.DB {
	config, err := mysql.ParseDSN(db.dsn)
	require.NoError(t, err)
	config.DBName = "gameserver_readme_" + strings.ToLower(rand.Text()) // a prefix that the tests' account may create
	db.must(t, "CREATE DATABASE "+config.DBName)
	t.Cleanup(func() { db.Exec("DROP DATABASE " + config.DBName) })
	own, err := sql.Open("mysql", config.FormatDSN())
	require.NoError(t, err)
	t.Cleanup(func() { own.Close() })
	return own
}

// sandboxClient is what the README's section on the sandbox shows.
func sandboxClient(db *sql.DB) (*midassql.Store, *midas.Client, error) {
	store, err := midassql.New(db, midassql.MySQL, midassql.Options{Logger: slog.Default()}) // MariaDB too; or PostgreSQL, SQLite
	if err != nil {
		return nil, nil, err
	}
	client, err := midas.New(midas.Config{
		AppID: "1450000000", AppKey: "my-test-key", DeliveryPath: "/pay/notify", Logger: slog.Default(),
		OnCallback: store.OnCallback,                            // keeps what was not answered OK, for support
		Gateway:    midas.Sandbox().At("http://127.0.0.1:9100"), // where "midas sandbox" listens
	})
	return store, client, err
}

var _ = sandboxClient // a sandbox is another process
