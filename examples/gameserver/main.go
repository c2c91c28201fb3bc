// Gameserver is a small but real game backend that sells items through Midas: it places
// orders, stores them, and grants each payment exactly once, on SQLite, PostgreSQL, MySQL
// or MariaDB.
//
//	go run .                       a shop with a Midas inside, on an SQLite file
//	go run . -h                    flags and environment
//
// Read it from shop.go: an order, a delivery. database.go opens each database as midassql
// wants it.
package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midassql"
)

const usage = `Gameserver is a small game backend that sells items through Tencent Midas (米大师).

  gameserver                                     a Midas inside, an SQLite file: try it with curl
  gameserver -midas sandbox -dry-run             Tencent's bring-up step: verify, log, answer OK
  gameserver -midas sandbox -db postgres://...   the sandbox, on PostgreSQL
  gameserver -midas live -listen :443 -tls-cert server.crt -tls-key server.key
  gameserver -midas live -listen :9001           Tencent CVM: plain HTTP on the internal port 9001
  gameserver -midas live -listen :9001 -delivery-path /ceecloudpay/notify      Tencent CEE

For customer service and finance, on the same database (-h shows the flags of each):
  gameserver payments -openid ID                 what a player paid for, and what became of it
  gameserver regrant -openid ID -billno NO …     grant what the bill shows and nobody delivered (补单)
  gameserver refund -openid ID -billno NO …      note a refund, and take the items back (退款)
  gameserver reconcile -bill FILE -columns …     compare the ledger with Tencent's bill (对账)
  gameserver import -file FILE -columns … -unit … -by …  take over what an earlier backend granted
  gameserver migrate                             change the tables of an earlier release, for as long as that takes

Endpoints:
  POST /login                    stub: what an app gets from the login SDK; begins a session (a cookie) in a zone
  POST /orders                   an order of the session; answers what the app hands to the cashier
  GET  <delivery path>           the delivery callback of Midas
  GET  /players/{openid}/items   what a player has
  GET  /healthz                  200 when a payment could be stored now; for monitoring
  GET  /livez                    200 while a restart would help nobody
  GET  /readyz                   200 once the tables are there; a database that is away changes nothing

The pay key comes from the environment only, where no process list shows it:
  MIDAS_APP_KEY                  of the gateway's environment, without the trailing "&"

Flags (where one is not given, the environment variable in brackets is used):
`

// config is what flags and environment say.
type config struct {
	listen, db                 string
	midas, appID, appKey       string
	deliveryPath, callbackPath string
	tlsCert, tlsKey            string
	zones                      string
	dryRun, appOrders          bool
	gateway                    midas.Gateway // the fake has its own
}

// errUsage is a command line that flag has told about.
var errUsage = errors.New("wrong usage")

// readConfig reads the command line and, for flags that are not given, the environment.
func readConfig(args []string, getenv func(string) string, stderr io.Writer) (*config, error) {
	var c config
	flags := flag.NewFlagSet("gameserver", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprint(stderr, usage)
		flags.PrintDefaults()
	}
	envOf := make(map[string]string) // by flag
	text := func(p *string, name, env, value, usage string) {
		flags.StringVar(p, name, value, usage+" ["+env+"]")
		envOf[name] = env
	}
	text(&c.listen, "listen", "MIDAS_LISTEN", "127.0.0.1:8080", "`address` to listen on")
	text(&c.db, "db", "MIDAS_DATABASE_URL", "gameserver.db", "database: postgres://… or mysql://… (MariaDB too), or the `file` of an SQLite database")
	text(&c.midas, "midas", "MIDAS_GATEWAY", "fake", "`gateway`: fake, sandbox, live, msdk-sandbox, msdk, or the URL of a proxy in front of a YSDK gateway")
	text(&c.appID, "app-id", "MIDAS_APP_ID", "", "offer `id`")
	text(&c.deliveryPath, "delivery-path", "MIDAS_DELIVERY_PATH", "/pay/notify", "`path` of the delivery URL exactly as registered at Tencent; callbacks are signed for it")
	text(&c.callbackPath, "callback-path", "MIDAS_CALLBACK_PATH", "", "`path` on which callbacks arrive here, where a proxy rewrites it (default the delivery path)")
	text(&c.tlsCert, "tls-cert", "MIDAS_TLS_CERT", "", "`file` with the certificate chain: serve HTTPS")
	text(&c.tlsKey, "tls-key", "MIDAS_TLS_KEY", "", "`file` with the certificate's key")
	text(&c.zones, "zones", "MIDAS_ZONES", "1", "the `zones` that players can be in, joined by \",\"")
	flags.BoolVar(&c.dryRun, "dry-run", false, "bring-up: verify and log callbacks, answer OK, grant nothing (sandbox and fake only) [MIDAS_DRY_RUN]")
	envOf["dry-run"] = "MIDAS_DRY_RUN"
	flags.BoolVar(&c.appOrders, "app-orders", false, "grant payments whose order is not stored, if the catalogue has item and price: for a day after another backend placed the orders [MIDAS_APP_ORDERS]")
	envOf["app-orders"] = "MIDAS_APP_ORDERS"
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return nil, err
	case err != nil:
		return nil, errUsage
	case flags.NArg() > 0:
		return nil, fmt.Errorf("unexpected argument %q: everything is a flag", flags.Arg(0))
	}
	// Not as the flags' defaults: -h prints those, and a database's URL holds a password.
	flags.Visit(func(f *flag.Flag) { delete(envOf, f.Name) })
	for name, env := range envOf {
		if value := getenv(env); value != "" {
			if err := flags.Set(name, value); err != nil {
				return nil, fmt.Errorf("%s: %w", env, err)
			}
		}
	}
	c.appKey = getenv("MIDAS_APP_KEY")
	c.callbackPath = cmp.Or(c.callbackPath, c.deliveryPath)
	return &c, c.validate()
}

func (c *config) validate() error {
	host, _, err := net.SplitHostPort(c.listen)
	switch {
	case err != nil:
		return fmt.Errorf("-listen %q: want host:port or :port", c.listen)
	case (c.tlsCert == "") != (c.tlsKey == ""):
		return errors.New("-tls-cert and -tls-key: give both or none")
	case c.dryRun && c.midas != "fake" && c.midas != "sandbox" && c.midas != "msdk-sandbox":
		return fmt.Errorf("-dry-run with -midas %s: it answers OK and grants nothing, so it is for the sandbox only", c.midas)
	case slices.Contains(strings.Split(c.zones, ","), ""):
		return fmt.Errorf(`-zones %q: want names joined by ",", such as 1,2`, c.zones)
	case !strings.HasPrefix(c.deliveryPath, "/"):
		return fmt.Errorf(`-delivery-path %q: want a path such as "/pay/notify"`, c.deliveryPath)
	}
	if err := checkCallbackPath(c.callbackPath); err != nil {
		return fmt.Errorf("-callback-path (where not given, -delivery-path) %q: %w", c.callbackPath, err)
	}
	if c.midas != "fake" {
		if c.gateway, err = gatewayNamed(c.midas); err != nil {
			return err
		}
		if c.appID == "" {
			return errors.New("-app-id (or MIDAS_APP_ID) is missing: set the offer id, or try -midas fake")
		}
		if c.appKey == "" {
			return errors.New("MIDAS_APP_KEY is missing: set the pay key of the gateway's environment")
		}
		return nil
	}
	// With a Midas inside, everything is for nothing: not in production by mistake.
	ip := net.ParseIP(host)
	switch {
	case c.appID != "" || c.appKey != "":
		return errors.New("-midas fake with an app id or pay key: they are for -midas sandbox or live")
	case host != "localhost" && (ip == nil || !ip.IsLoopback()):
		return fmt.Errorf("-midas fake with -listen %s: it sells for nothing, so it listens on a loopback address only", c.listen)
	case c.tlsCert != "" || c.callbackPath != c.deliveryPath:
		return errors.New("-midas fake with -tls-cert or -callback-path: the fake calls back directly, over plain HTTP")
	}
	return nil
}

// checkCallbackPath returns an error unless http.ServeMux hands what arrives on p to the
// callback's handler: it redirects paths that are not clean, and Midas follows nowhere.
func checkCallbackPath(p string) error {
	if !strings.HasPrefix(p, "/") || strings.ContainsAny(p, "{}?# \t") {
		return errors.New(`want a path such as "/pay/notify"`)
	}
	clean := path.Clean(p)
	if strings.HasSuffix(p, "/") && clean != "/" {
		clean += "/"
	}
	if p != clean {
		return fmt.Errorf("callbacks do not arrive there: have the proxy pass them on to a path such as %q", clean)
	}
	own := http.NewServeMux()
	new(shop).endpoints(own)
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		if _, pattern := own.Handler(&http.Request{Method: method, URL: &url.URL{Path: p}}); pattern != "" {
			return fmt.Errorf("is the endpoint %q: have the proxy pass callbacks on to another path", pattern)
		}
	}
	return nil
}

func gatewayNamed(name string) (midas.Gateway, error) {
	switch name {
	case "sandbox":
		return midas.Sandbox(), nil
	case "live":
		return midas.Production(), nil
	case "msdk-sandbox":
		return midas.MSDKSandbox(), nil
	case "msdk":
		return midas.MSDK(), nil
	}
	u, err := url.Parse(name)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" {
		return midas.Gateway{}, fmt.Errorf("-midas %q: want fake, sandbox, live, msdk-sandbox, msdk or a URL", name)
	}
	g := midas.Production()
	g.BaseURL = name
	return g, nil
}

// environmentOf returns which environment's tables belong to a gateway: what was paid in the sandbox must
// not be granted from the live ones. A fake and a proxy could be either.
func environmentOf(gateway string) string {
	switch gateway {
	case "live", "msdk":
		return "live"
	case "sandbox", "msdk-sandbox":
		return "sandbox"
	}
	return ""
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	switch err := run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr); {
	case err == nil, errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errDiffers), errors.Is(err, errLook):
		os.Exit(1)
	case errors.Is(err, errUsage):
		os.Exit(2)
	default:
		fmt.Fprintln(os.Stderr, "gameserver:", err)
		if isCommand(os.Args[1:]) {
			os.Exit(2) // 1 is what reconcile found
		}
		os.Exit(1)
	}
}

// shutdownTime is how long running requests and deliveries have when the server stops. A
// callback is answered within 2 s; its commit may take somewhat longer.
const shutdownTime = 10 * time.Second

// run serves until ctx ends, and then until what is running has ended.
func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) error {
	if isCommand(args) {
		return runCommand(ctx, args[0], args[1:], getenv, stdout, stderr)
	}
	c, err := readConfig(args, getenv, stderr)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewJSONHandler(stderr, nil))

	db, err := openDatabase(c.db)
	if err != nil {
		return err
	}
	defer db.Close()
	store, err := midassql.New(db.DB, db.dialect, midassql.Options{Logger: log, Classify: db.classify, Environment: environmentOf(c.midas), AcceptAppOrders: c.appOrders})
	if err != nil {
		return err
	}
	shop := &shop{store: store, db: db, log: log, zones: strings.Split(c.zones, ","), appOrders: c.appOrders}
	defer shop.createTables(ctx)()

	listener, err := net.Listen("tcp", c.listen)
	if err != nil {
		return fmt.Errorf("-listen: %w", err)
	}
	defer listener.Close()

	mux := http.NewServeMux()
	midasConfig := midas.Config{AppID: c.appID, AppKey: c.appKey, Gateway: c.gateway, DeliveryPath: c.deliveryPath, Logger: log, OnCallback: store.OnCallback}
	if c.midas == "fake" {
		fake := startFake(mux, "http://"+listener.Addr().String()+c.deliveryPath, log)
		defer fake.Close()
		midasConfig.AppID, midasConfig.AppKey, midasConfig.Gateway = fake.AppID(), fake.AppKey(), fake.Gateway()
	}
	client, err := midas.New(midasConfig)
	if err != nil {
		return err
	}
	shop.client = client
	shop.register(mux, c.callbackPath, c.dryRun)

	server := &http.Server{
		Handler:           http.MaxBytesHandler(mux, maxBody),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      20 * time.Second, // an order may be tried three times
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    32 << 10, // the query of a callback is 16 KiB at most
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		// Go's ciphers are sound, and Midas shows no client certificate (protocol.md 6).
		TLSConfig: &tls.Config{MinVersion: tls.VersionTLS12},
	}
	serve := func() error { return server.Serve(listener) }
	if c.tlsCert != "" {
		serve = func() error { return server.ServeTLS(listener, c.tlsCert, c.tlsKey) }
	}
	ended := make(chan error, 1)
	go func() { ended <- serve() }()
	log.Info("listening", "address", listener.Addr().String(), "tls", c.tlsCert != "", "midas", c.midas,
		"database", string(db.dialect), "delivery_path", c.deliveryPath, "dry_run", c.dryRun)
	if c.midas == "fake" {
		printCommands(stdout, "http://"+listener.Addr().String())
	}

	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	// First the requests, then the deliveries whose callback was answered ret 1 already; the
	// database is closed after both.
	log.Info("stopping")
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTime)
	defer cancel()
	err = errors.Join(server.Shutdown(grace), client.Wait(grace), store.Wait(grace))
	log.Info("stopped")
	return err
}
