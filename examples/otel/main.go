// Command otel traces a sale with OpenTelemetry, and keeps the player's login out of the traces.
// It plays Midas itself, so it needs no set-up:
//
//	go run .
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midastest"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
)

func main() {
	if err := run(os.Stdout); err != nil {
		log.Fatal(err)
	}
}

// run sells an item, the first try of the order failing, and writes the spans to out.
func run(out io.Writer) error {
	ctx := context.Background()
	exporter := tracetest.NewInMemoryExporter() // yours sends them to a collector
	provider := trace.NewTracerProvider(trace.WithSyncer(exporter))

	fake := midastest.NewServer(midastest.Config{Errorf: log.Printf})
	defer fake.Close()
	fake.NextOrders(midastest.Fault{Status: http.StatusBadGateway})

	client, err := midas.New(midas.Config{
		AppID:        fake.AppID(),
		AppKey:       fake.AppKey(),
		Gateway:      fake.Gateway(),
		DeliveryPath: "/pay/notify",
		HTTPClient:   tracedClient(http.DefaultTransport, otelhttp.WithTracerProvider(provider)),
	})
	if err != nil {
		return err
	}
	tracer := provider.Tracer("game")
	deliveries := client.DeliveryHandler(func(ctx context.Context, d *midas.Delivery) error {
		_, span := tracer.Start(ctx, "grant")
		defer span.End()
		return nil // grant once for (d.OpenID, d.BillNo)
	})
	mux := http.NewServeMux()
	mux.Handle("/pay/notify", tracedDeliveries(deliveries, otelhttp.WithTracerProvider(provider)))
	fake.DeliverToHandler(mux, "/pay/notify")

	order, err := client.CreateOrder(ctx, midas.OrderRequest{
		Player:    midas.Player{Login: midas.WeChat, OpenID: "o_openid", OpenKey: "access-token", PF: "wechat_wx-2001-android-2011-xxxx", PFKey: "pfkey"},
		Items:     []midas.Item{{ID: "gem60", Price: 60 * midas.QPoint, Quantity: 1}},
		GoodsName: "60 gems", GoodsDescription: "A purse of sixty gems",
	})
	if err != nil {
		return err
	}
	if _, err := fake.Pay(ctx, order.Token); err != nil {
		return err
	}

	if err := provider.ForceFlush(ctx); err != nil {
		return err
	}
	for _, span := range exporter.GetSpans() {
		fmt.Fprintf(out, "%s\n", span.Name)
		for _, attr := range span.Attributes {
			fmt.Fprintf(out, "    %s = %s\n", attr.Key, attr.Value.String())
		}
	}
	return nil
}
