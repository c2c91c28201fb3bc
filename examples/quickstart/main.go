// Quickstart runs a sale from the order to the item in one process and needs nothing: a
// fake Midas, a shop (shop.go, to be copied), players who pay, repeat and cheat.
//
// With -replay it verifies a recorded delivery callback instead:
//
//	go run ./examples/quickstart -replay testdata/documented-callback.url -key Lf6AtMEB1QlE8BYS -path /pay/mt.php
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"

	"github.com/midas-go/midas"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run returns the exit code: 0 if all was as it should be, 1 if not, 2 if the flags are wrong.
func run(args []string, out, errOut io.Writer) int {
	flags := flag.NewFlagSet("quickstart", flag.ContinueOnError)
	flags.SetOutput(errOut)
	file := flags.String("replay", "", "verify the callback URL in this `file` instead of running the story")
	key := flags.String("key", "", "with -replay: the `pay key`, without the trailing \"&\"")
	path := flags.String("path", "", "with -replay: the `path` of the delivery URL as registered at Tencent; if empty, the URL's own")
	appID := flags.String("app-id", "", "with -replay: your `offer id`; if empty, the callback's appid is believed")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	case flags.NArg() > 0:
		fmt.Fprintln(errOut, "quickstart: arguments without a flag are not understood")
		return 2
	case *file == "" && flags.NFlag() > 0:
		fmt.Fprintln(errOut, "quickstart: -key, -path and -app-id belong to -replay")
		return 2
	}

	var err error
	if *file != "" {
		err = replay(out, *file, *key, *path, *appID)
	} else {
		err = tell(context.Background(), out, func(client *midas.Client) http.Handler {
			return newShop(client, slog.New(slog.DiscardHandler)).handler(deliveryPath)
		})
	}
	if err != nil {
		fmt.Fprintln(errOut, "quickstart:", err)
		return 1
	}
	return 0
}
