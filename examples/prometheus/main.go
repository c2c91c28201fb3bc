// Command prometheus counts callbacks and orders with client_golang, and alerts.yml says when
// somebody should look. It plays Midas itself, so it needs no set-up:
//
//	go run .
//
// prints what a scrape of it returns.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midastest"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

func main() {
	if err := run(os.Stdout); err != nil {
		log.Fatal(err)
	}
}

// run sells an item and writes a scrape to out.
func run(out io.Writer) error {
	ctx := context.Background()
	fake := midastest.NewServer(midastest.Config{Errorf: log.Printf})
	defer fake.Close()

	registry := prometheus.NewRegistry()
	metrics := NewMetrics(registry)
	cfg := fake.ClientConfig("/pay/notify")
	cfg.OnCallback = metrics.OnCallback
	client, err := midas.New(cfg)
	if err != nil {
		return err
	}
	metrics.Watch(client)

	mux := http.NewServeMux()
	mux.Handle("/pay/notify", client.DeliveryHandler(func(context.Context, *midas.Delivery) error {
		return nil // grant once for (OpenID, BillNo)
	}))
	mux.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{})) // not on the port that the internet sees
	fake.DeliverToHandler(mux, "/pay/notify")

	order, err := client.CreateOrder(ctx, midas.OrderRequest{
		Player:    midas.Player{Login: midas.WeChat, OpenID: "o_openid", OpenKey: "access-token", PF: "wechat_wx-2001-android-2011-xxxx", PFKey: "pfkey"},
		Items:     []midas.Item{{ID: "gem60", Price: 60 * midas.QPoint, Quantity: 1}},
		GoodsName: "60 gems", GoodsDescription: "A purse of sixty gems",
	})
	metrics.Order(err)
	if err != nil {
		return err
	}
	if _, err := fake.Pay(ctx, order.Token); err != nil {
		return err
	}
	if err := client.Wait(ctx); err != nil { // for the event
		return err
	}

	scrape := httptest.NewRecorder()
	mux.ServeHTTP(scrape, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	for line := range strings.Lines(scrape.Body.String()) {
		if !strings.HasSuffix(line, " 0\n") { // what has not happened
			fmt.Fprint(out, line)
		}
	}
	return nil
}
