package main

import (
	"fmt"
	"io"
	"net/url"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/midas-go/midas"
)

// replay verifies the callback URL in a file and prints its delivery.
func replay(out io.Writer, file, key, path, appID string) error {
	content, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	// The first word with a "?" in it: the file may hold a line of an access log. It is cut by
	// hand, since a parser for URLs would refuse what Midas may send.
	words := strings.Fields(string(content))
	i := slices.IndexFunc(words, func(word string) bool { return strings.Contains(word, "?") })
	if i < 0 {
		return fmt.Errorf("%s holds no URL with a query", file)
	}
	address, query, _ := strings.Cut(strings.Trim(words[i], `"`), "?")
	if path == "" {
		u, err := url.Parse(address)
		if err != nil || u.Path == "" {
			return fmt.Errorf("the URL in %s has no path: give the registered one with -path", file)
		}
		path = u.Path
	}
	if appID == "" {
		params, _ := url.ParseQuery(query) // what cannot be read is refused below
		appID = params.Get("appid")
	}

	client, err := midas.New(midas.Config{AppID: appID, AppKey: key, DeliveryPath: path})
	if err != nil {
		return fmt.Errorf("-app-id, -key or -path is wrong or missing:\n%w", err)
	}
	d, err := client.ParseDeliveryQuery(query)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}

	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "verified: signed for %s with this key\n\n", path)
	fmt.Fprintf(table, "OpenID\t%q\n", d.OpenID)
	fmt.Fprintf(table, "BillNo\t%q\n", d.BillNo)
	fmt.Fprintf(table, "Token\t%q\n", d.Token)
	fmt.Fprintf(table, "ZoneID\t%q\n", d.ZoneID)
	var listed midas.Amount
	for _, item := range d.Items {
		fmt.Fprintf(table, "Item\t%q, %d for %s each\n", item.ID, item.Quantity, item.Price)
		listed += item.Price * midas.Amount(item.Quantity)
	}
	fmt.Fprintf(table, "Charged\t%s", d.Charged)
	if d.Charged < listed {
		fmt.Fprintf(table, ", a discount on %s", listed)
	}
	fmt.Fprintf(table, "\nMetadata\t%q\n", d.Metadata)
	fmt.Fprintf(table, "PayMethod\t%q\n", d.PayMethod)
	fmt.Fprintf(table, "Platform\t%q\n", d.Platform)
	fmt.Fprintf(table, "Time\t%s\n", d.Time.UTC().Format(time.RFC3339))
	fmt.Fprintf(table, "ProvideType\t%d\n", d.ProvideType)
	return table.Flush()
}
