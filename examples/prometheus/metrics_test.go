package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midastest"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/stretchr/testify/require"
)

// What is scraped over HTTP after callbacks of each kind, to the line.
func TestAScrapeShowsEachCallback(t *testing.T) {
	t.Parallel()
	fake := midastest.New(midastest.Config{Errorf: t.Errorf})
	registry := prometheus.NewRegistry()
	metrics := NewMetrics(registry)
	cfg := fake.ClientConfig("/pay/notify")
	cfg.OnCallback = metrics.OnCallback
	client, err := midas.New(cfg)
	require.NoError(t, err)
	metrics.Watch(client)
	handler := client.DeliveryHandler(func(_ context.Context, d *midas.Delivery) error {
		switch d.OpenID {
		case "fails":
			return errors.New("the database is away")
		case "panics":
			panic("a bug")
		case "declines":
			return midas.ErrTokenNotFound
		}
		return nil
	})
	fake.DeliverToHandler(handler, "/pay/notify")
	pay := func(openID string, opts ...midastest.PayOption) {
		token := fake.AppOrder(midas.OrderRequest{Player: midas.Player{Login: midas.QQ, OpenID: openID},
			Items: []midas.Item{{ID: "gem60", Price: 60 * midas.QPoint, Quantity: 1}}})
		_, err := fake.Pay(t.Context(), token, opts...)
		require.NoError(t, err)
	}
	pay("good")
	pay("good")
	pay("fails")
	pay("panics")
	pay("declines")
	pay("forged", midastest.WrongKey("guessed"))
	pay("malformed", midastest.Param("amt", "free"))
	hungUp, cancel := context.WithCancel(t.Context())
	cancel()
	token := fake.AppOrder(midas.OrderRequest{Player: midas.Player{Login: midas.QQ, OpenID: "gone"}, Items: []midas.Item{{ID: "gem60", Price: 600, Quantity: 1}}})
	rawQuery, err := fake.Callback(token)
	require.NoError(t, err)
	handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/pay/notify?"+rawQuery, nil).WithContext(hungUp))
	require.NoError(t, client.Wait(t.Context()))

	server := httptest.NewServer(promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	defer server.Close()
	resp, err := http.Get(server.URL)
	require.NoError(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)

	var got []string
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); !strings.HasPrefix(line, "#") && !strings.HasSuffix(line, " 0") &&
			!strings.Contains(line, "_bucket{") && !strings.Contains(line, "_sum{") {
			got = append(got, line)
		}
	}
	require.ElementsMatch(t, []string{
		`midas_callbacks_total{late="false",outcome="delivered",repeat="false"} 2`,
		`midas_callbacks_total{late="false",outcome="failed",repeat="false"} 1`,
		`midas_callbacks_total{late="false",outcome="panicked",repeat="false"} 1`,
		`midas_callbacks_total{late="false",outcome="declined",repeat="false"} 1`,
		`midas_callbacks_total{late="false",outcome="unverified",repeat="false"} 1`,
		`midas_callbacks_total{late="false",outcome="malformed",repeat="false"} 1`,
		`midas_callbacks_total{late="false",outcome="hung_up",repeat="false"} 1`,
		`midas_callback_duration_seconds_count{outcome="delivered"} 2`,
		`midas_callback_duration_seconds_count{outcome="failed"} 1`,
		`midas_callback_duration_seconds_count{outcome="panicked"} 1`,
		`midas_callback_duration_seconds_count{outcome="declined"} 1`,
		`midas_callback_duration_seconds_count{outcome="malformed"} 1`,
		`midas_callback_duration_seconds_count{outcome="hung_up"} 1`,
		`midas_callbacks_to_reconcile_total 1`,
		`midas_ready 1`,
	}, got)
	for _, secret := range []string{"good", "forged", "-APPDJ", "sig", cfg.AppKey} {
		require.NotContains(t, string(text), secret)
	}
	problems, err := testutil.GatherAndLint(registry)
	require.NoError(t, err)
	require.Empty(t, problems)
}

func TestOrdersAreCountedByWhatToDo(t *testing.T) {
	t.Parallel()
	metrics := NewMetrics(prometheus.NewRegistry())
	for result, err := range map[string]error{
		placed:       nil,
		wrongRequest: fmt.Errorf("wrapped: %w", &midas.FieldError{Param: "openid", Reason: "missing"}),
		loginExpired: &midas.Error{Ret: 1018},
		noPermission: &midas.Error{Ret: 1016},
		refused:      &midas.Error{Ret: 9999},
		unreachable:  context.DeadlineExceeded,
	} {
		metrics.Order(err)
		require.InDelta(t, 1, testutil.ToFloat64(metrics.orders.WithLabelValues(result)), 0, result)
	}
}

// The alerts load as Prometheus loads them, and each fires for what it is named after, and for
// nothing on a quiet day.
func TestAlerts(t *testing.T) {
	t.Parallel()
	rules, errs := rulefmt.ParseFile("alerts.yml", false, model.UTF8Validation, parser.NewParser(parser.Options{}), slog.New(slog.DiscardHandler))
	require.Empty(t, errs)

	// Series of 30 minutes, a sample a minute.
	const quiet = `midas_callbacks_to_reconcile_total 0x30
midas_callbacks_total{outcome="delivered", late="false"} 0+5x30
midas_callbacks_total{outcome="failed", late="false"} 0x30
midas_callbacks_total{outcome="unverified", late="false"} 0+1x30
midas_orders_total{result="placed"} 0+9x30
midas_orders_total{result="refused"} 0+1x30
midas_orders_total{result="wrong_request"} 0+1x30
midas_callback_duration_seconds_bucket{outcome="delivered", le="1"} 0+5x30
midas_callback_duration_seconds_bucket{outcome="delivered", le="2"} 0+5x30
midas_callback_duration_seconds_bucket{outcome="delivered", le="+Inf"} 0+5x30
midas_ready 1x30`
	events := map[string]string{
		"MidasReconcile":           `midas_callbacks_to_reconcile_total 0x20 1x9`,
		"MidasPaidButNotDelivered": `midas_callbacks_total{outcome="failed", late="false"} 0x25 1x4`,
		"MidasNothingVerifies": "midas_callbacks_total{outcome=\"delivered\", late=\"false\"} 7x30\n" +
			"midas_callbacks_total{outcome=\"unverified\", late=\"false\"} 0+3x30",
		"MidasNoCallbacks": "midas_callbacks_total{outcome=\"delivered\", late=\"false\"} 7x30\n" +
			"midas_callbacks_total{outcome=\"unverified\", late=\"false\"} 0+3x30",
		"MidasSlowAnswers":   `midas_callback_duration_seconds_bucket{outcome="delivered", le="1"} 0+4x30`,
		"MidasBusy":          `midas_ready 1x25 0x4`,
		"MidasOrdersFail":    `midas_orders_total{result="refused"} 0+9x30`,
		"MidasWrongRequests": `midas_orders_total{result="wrong_request"} 0+12x30`,
	}
	for _, rule := range rules.Groups[0].Rules {
		t.Run(rule.Alert, func(t *testing.T) {
			require.Contains(t, rule.Annotations, "action")
			require.Contains(t, rule.Labels, "severity")
			event, ok := events[rule.Alert]
			require.True(t, ok, "nothing shows that it fires")
			delete(events, rule.Alert)
			require.Zero(t, fires(t, rule.Expr, quiet), "on a quiet day")
			require.NotZero(t, fires(t, rule.Expr, with(quiet, event)))
			for name, strangers := range map[string]string{"in the day": with(quiet, stranger), "at night": with(night, stranger), "a player at night": with(night, player)} {
				require.Zero(t, fires(t, rule.Expr, strangers), name)
			}
		})
	}
	require.Empty(t, events)
}

// What must ring nobody: hours in which nobody buys, somebody who finds the delivery URL, and a player who
// opens the cashier again and again, pays nothing, and sends seven wrong orders a minute.
const (
	night = `midas_callbacks_to_reconcile_total 7x30
midas_callbacks_total{outcome="delivered", late="false"} 7x30
midas_callbacks_total{outcome="failed", late="false"} 0x30
midas_callbacks_total{outcome="unverified", late="false"} 0x30
midas_orders_total{result="placed"} 7x30
midas_orders_total{result="refused"} 0x30
midas_orders_total{result="wrong_request"} 0x30
midas_ready 1x30`
	stranger = `midas_callbacks_total{outcome="unverified", late="false"} 0+1000x30`
	player   = "midas_orders_total{result=\"placed\"} 7+1x30\n" + `midas_orders_total{result="wrong_request"} 0+7x30`
)

// with returns the series, those that the event names replaced by it.
func with(series, event string) string {
	kept := strings.Split(event, "\n")
	for line := range strings.Lines(series) {
		// A line is a name, perhaps with labels that hold blanks, and the values.
		end := strings.LastIndex(line, "} ") + 1
		if end == 0 {
			end = strings.Index(line, " ")
		}
		if name := strings.TrimSpace(line[:end]); !strings.Contains(event, name+" ") {
			kept = append(kept, strings.TrimSpace(line))
		}
	}
	return strings.Join(kept, "\n")
}

// fires returns how many alerts an expression makes of the series at their end.
func fires(t *testing.T, expr, series string) int {
	store := promqltest.LoadedStorage(t, "load 1m\n"+series)
	engine := promqltest.NewTestEngine(t, false, 0, promqltest.DefaultMaxSamplesPerQuery)
	query, err := engine.NewInstantQuery(t.Context(), store, nil, expr, model.Time(29*60*1000).Time())
	require.NoError(t, err)
	defer query.Close()
	result := query.Exec(t.Context())
	require.NoError(t, result.Err)
	vector, err := result.Vector()
	require.NoError(t, err)
	return len(vector)
}
