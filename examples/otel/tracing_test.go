package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midastest"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/baggage"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
)

const appKey = "SECRET-app-key"

var order = midas.OrderRequest{
	Player:    midas.Player{Login: midas.QQ, OpenID: "openid", OpenKey: "SECRET openkey", PayToken: "SECRET-pay-token", PF: "pf", PFKey: "SECRET/pfkey"},
	Items:     []midas.Item{{ID: "gem60", Price: 60 * midas.QPoint, Quantity: 1}},
	GoodsName: "60 gems", GoodsDescription: "A purse of sixty gems",
}

// telemetry keeps what is recorded.
type telemetry struct {
	spans   *tracetest.InMemoryExporter
	reader  *metric.ManualReader
	options []otelhttp.Option
}

func newTelemetry(t *testing.T) *telemetry {
	tel := &telemetry{spans: tracetest.NewInMemoryExporter(), reader: metric.NewManualReader()}
	tracers := trace.NewTracerProvider(trace.WithSyncer(tel.spans))
	meters := metric.NewMeterProvider(metric.WithReader(tel.reader))
	t.Cleanup(func() { tracers.Shutdown(context.Background()) })
	tel.options = []otelhttp.Option{otelhttp.WithTracerProvider(tracers), otelhttp.WithMeterProvider(meters)}
	return tel
}

// text returns everything recorded, as an exporter would send it.
func (tel *telemetry) text(t *testing.T) string {
	var metrics metricdata.ResourceMetrics
	require.NoError(t, tel.reader.Collect(t.Context(), &metrics))
	inJSON, err := json.Marshal(metrics)
	require.NoError(t, err)
	text := new(strings.Builder)
	fmt.Fprintf(text, "%s\n%+v\n", inJSON, tel.spans.GetSpans())
	for _, span := range tel.spans.GetSpans() {
		for _, attr := range span.Attributes {
			fmt.Fprintln(text, attr.Key, attr.Value.String())
		}
		for _, event := range span.Events {
			for _, attr := range event.Attributes {
				fmt.Fprintln(text, attr.Key, attr.Value.String())
			}
		}
	}
	return text.String()
}

// requireNoSecret looks for secrets as they are and as they are written in a URL.
func requireNoSecret(t *testing.T, text string, sigs ...string) {
	t.Helper()
	require.NotContains(t, text, "SECRET")
	require.NotContains(t, text, "sig=")
	require.NotContains(t, text, "openkey")
	for _, sig := range sigs {
		require.NotContains(t, text, sig)
		require.NotContains(t, text, url.QueryEscape(sig))
	}
}

// A sale whose first try meets a proxy's page that repeats the URL.
func TestASalesTracesHoldNoSecret(t *testing.T) {
	t.Parallel()
	tel := newTelemetry(t)
	var sigs []string
	fake := midastest.NewServer(midastest.Config{AppKey: appKey, Like: midas.MSDK(), Errorf: t.Errorf, OnOrder: func(attempt midastest.OrderAttempt) {
		query, err := url.ParseQuery(attempt.RawQuery)
		if err == nil {
			sigs = append(sigs, query.Get("sig"))
		}
	}})
	defer fake.Close()
	fake.NextOrders(midastest.Fault{Status: http.StatusBadGateway})
	client, err := midas.New(midas.Config{
		AppID: fake.AppID(), AppKey: appKey, Gateway: fake.Gateway(), DeliveryPath: "/pay/notify",
		HTTPClient: tracedClient(http.DefaultTransport, tel.options...),
	})
	require.NoError(t, err)

	placed, err := client.CreateOrder(t.Context(), order)
	require.NoError(t, err)
	deliveries := client.DeliveryHandler(func(context.Context, *midas.Delivery) error { return nil })
	fake.DeliverToHandler(tracedDeliveries(deliveries, tel.options...), "/pay/notify")
	receipt, err := fake.Pay(t.Context(), placed.Token)
	require.NoError(t, err)
	require.True(t, receipt.Accepted, receipt.Reason)
	called, err := url.Parse(receipt.URL)
	require.NoError(t, err)
	sigs = append(sigs, called.Query().Get("sig"))

	var names []string
	for _, span := range tel.spans.GetSpans() {
		names = append(names, span.Name)
	}
	require.Equal(t, []string{"midas buy_goods_m", "midas buy_goods_m", "midas delivery"}, names)
	require.Len(t, sigs, 3)
	text := tel.text(t)
	require.Contains(t, text, "url.full "+fake.Gateway().BaseURL+"/mpay/buy_goods_m\n")
	require.Contains(t, text, "http.client.request.duration")
	requireNoSecret(t, text, sigs...)
}

// The reason for all this.
func TestOtelhttpAloneRecordsTheLogin(t *testing.T) {
	t.Parallel()
	tel := newTelemetry(t)
	fake := midastest.NewServer(midastest.Config{AppKey: appKey, Errorf: t.Errorf})
	defer fake.Close()
	client, err := midas.New(midas.Config{
		AppID: fake.AppID(), AppKey: appKey, Gateway: fake.Gateway(),
		HTTPClient: &http.Client{Transport: otelhttp.NewTransport(http.DefaultTransport, tel.options...)},
	})
	require.NoError(t, err)
	_, err = client.CreateOrder(t.Context(), order)
	require.NoError(t, err)
	require.Contains(t, tel.text(t), "&openkey=SECRET%20openkey&")
}

// A server that is none and repeats the request: net/http quotes it in its error.
func TestAFailedTrysTraceHoldsNoSecret(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			line, _ := bufio.NewReader(conn).ReadString('\n')
			fmt.Fprint(conn, line)
			conn.Close()
		}
	}()
	gateway := midas.Production()
	gateway.BaseURL = "http://" + listener.Addr().String()

	place := func(client *http.Client) error {
		c, err := midas.New(midas.Config{AppID: "1450000000", AppKey: appKey, Gateway: gateway, HTTPClient: client, MaxRetries: -1})
		require.NoError(t, err)
		_, err = c.CreateOrder(t.Context(), order)
		require.ErrorContains(t, err, "no answer: [withheld]") // the cause can be matched, its text holds the query
		return err
	}

	tel := newTelemetry(t)
	err = place(tracedClient(http.DefaultTransport, tel.options...))
	requireNoSecret(t, tel.text(t))
	require.Contains(t, tel.text(t), "*fmt.wrapError", "the error's type is all that is said of it")
	requireNoSecret(t, err.Error())

	alone := newTelemetry(t)
	_ = place(&http.Client{Transport: otelhttp.NewTransport(http.DefaultTransport, alone.options...)})
	require.Contains(t, alone.text(t), "malformed HTTP status code \"/mpay/buy_goods_m?", "the span's status has it too")
}

// Neither the trace's id nor the baggage of a caller goes to Tencent.
func TestMidasGetsNoBaggage(t *testing.T) {
	otel.SetTextMapPropagator(propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{}))
	headers := make(chan http.Header, 1)
	backend := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { headers <- r.Header }))
	defer backend.Close()
	member, err := baggage.NewMember("user", "42")
	require.NoError(t, err)
	bag, err := baggage.New(member)
	require.NoError(t, err)
	req, err := http.NewRequestWithContext(baggage.ContextWithBaggage(t.Context(), bag), http.MethodGet, backend.URL, nil)
	require.NoError(t, err)
	resp, err := tracedClient(http.DefaultTransport, newTelemetry(t).options...).Do(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	sent := <-headers
	require.NotContains(t, sent, "Baggage")
	require.NotContains(t, sent, "Traceparent")
}

func TestTheExampleRuns(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	require.NoError(t, run(&out))
	require.Contains(t, out.String(), "midas buy_goods_m\n")
	require.Contains(t, out.String(), "grant\nmidas delivery\n")
	requireNoSecret(t, out.String())
}
