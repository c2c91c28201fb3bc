// Command zoneserver is a game whose players live in the memory of zone servers and are saved
// to Redis or to an SQL database. The gateway places orders and stores payments with midassql's
// Inbox; each zone server takes those of its own zone, and saves the items together with the
// payment's id.
//
//	zoneserver gateway -listen 127.0.0.1:9000 -db postgres://… -redis redis://127.0.0.1:6379/0
//	zoneserver zone -name 1 -listen 127.0.0.1:9001 -db postgres://… -redis redis://127.0.0.1:6379/0
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midassql"
	"github.com/redis/go-redis/v9"
)

const usage = "usage: zoneserver gateway|zone [flags]; -h after either lists the flags"

const defaultRedis = "redis://127.0.0.1:6379/0"

// A config is what the flags and the environment say.
type config struct {
	listen, db, redis, environment string

	midas, appID, appKey, deliveryPath, zones string // the gateway's

	zone  string // the zone server's
	save  time.Duration
	lease time.Duration

	players      string
	waitReplicas int
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	switch err := run(ctx, os.Args[1:], os.Stderr); {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "zoneserver:", err)
		os.Exit(1)
	}
}

// run serves until ctx ends, and then until what is running has ended.
func run(ctx context.Context, args []string, stderr io.Writer) error {
	if len(args) == 0 {
		return errors.New(usage)
	}
	var c config
	flags := flag.NewFlagSet("zoneserver "+args[0], flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&c.listen, "listen", "127.0.0.1:9000", "`address` to listen on")
	flags.StringVar(&c.db, "db", "", "`URL` of the database of orders and payments, postgres://… or mysql://… (default $DATABASE_URL)")
	flags.StringVar(&c.redis, "redis", "", "`URL` of the Redis that carries the news of payments, and that players are saved to; for that it must run with appendonly yes and appendfsync always (default $REDIS_URL, or else "+defaultRedis+")")
	flags.StringVar(&c.environment, "environment", os.Getenv("MIDAS_ENVIRONMENT"), "live or sandbox: `whose` tables these are; a server that names another one grants nothing (default $MIDAS_ENVIRONMENT)")
	serve := serveGateway
	switch args[0] {
	case "gateway":
		flags.StringVar(&c.midas, "midas", "sandbox", "sandbox, live, or the `URL` of a sandbox such as the one of cmd/midas")
		flags.StringVar(&c.appID, "app-id", "", "offer `id`; the pay key is read from $MIDAS_APP_KEY")
		flags.StringVar(&c.deliveryPath, "delivery-path", "/pay/notify", "`path` of the delivery URL as registered at Tencent")
		flags.StringVar(&c.zones, "zones", "1", "the `zones` that players can log in to, joined by \",\"")
	case "zone":
		serve = serveZone
		flags.StringVar(&c.zone, "name", "1", "the zone, as orders name it in zoneid")
		flags.DurationVar(&c.save, "save", time.Second, "how often players are saved who have only played")
		flags.StringVar(&c.players, "players", "redis", "where players are saved: redis, or sql, which is the table players in the database of -db")
		flags.IntVar(&c.waitReplicas, "wait-replicas", 0, "how many replicas of Redis must have a save before it counts")
		flags.DurationVar(&c.lease, "lease", 30*time.Second, "how long a payment belongs to a zone server that no more is heard of")
	default:
		return errors.New(usage)
	}
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	// Not as the flags' defaults: -h prints those, and a URL may hold a password.
	c.db, c.redis = cmp.Or(c.db, os.Getenv("DATABASE_URL")), cmp.Or(c.redis, os.Getenv("REDIS_URL"), defaultRedis)
	c.appKey = os.Getenv("MIDAS_APP_KEY")
	log := slog.New(slog.NewJSONHandler(stderr, nil))

	db, err := openDatabase(c.db)
	if err != nil {
		return err
	}
	defer db.Close()
	store, err := midassql.New(db.DB, db.dialect, midassql.Options{Logger: log, Classify: db.classify, Environment: c.environment})
	if err != nil {
		return err
	}
	options, err := redis.ParseURL(c.redis)
	if err != nil {
		return errors.New("-redis: want redis://user:password@host:6379/0") // err may show the password
	}
	// A save that got no answer may still be on its way. It must not be sent a second time: the
	// first one could arrive after the session's next save, and undo that.
	options.MaxRetries = -1
	options.ContextTimeoutEnabled = true
	client := redis.NewClient(options)
	defer client.Close()
	return serve(ctx, &c, db, store, client, log)
}

func serveGateway(ctx context.Context, c *config, _ *database, store *midassql.Store, news *redis.Client, log *slog.Logger) error {
	endpoint := midas.Sandbox()
	switch c.midas {
	case "sandbox":
	case "live":
		endpoint = midas.Production()
	default:
		endpoint = endpoint.At(c.midas)
	}
	zones := strings.Split(c.zones, ",")
	if slices.Contains(zones, "") {
		return errors.New(`-zones: want names joined by ",", such as 1,2`)
	}
	client, err := midas.New(midas.Config{AppID: c.appID, AppKey: c.appKey, Gateway: endpoint, DeliveryPath: c.deliveryPath, Logger: log, OnCallback: store.OnCallback})
	if err != nil {
		return err
	}
	if err := store.Migrate(ctx); err != nil {
		return err
	}
	g := &gateway{client: client, store: store, sessions: news, zones: zones, log: log}
	inbox, err := store.Inbox(midassql.InboxOptions{OnStored: announce(news)})
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle(c.deliveryPath, client.DeliveryHandler(inbox.Deliver))
	mux.HandleFunc("POST /login", g.login)
	mux.HandleFunc("POST /orders", g.order)
	err = serve(ctx, c.listen, mux, log)
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTime)
	defer cancel()
	return errors.Join(err, client.Wait(grace), store.Wait(grace))
}

func serveZone(ctx context.Context, c *config, db *database, store *midassql.Store, client *redis.Client, log *slog.Logger) error {
	switch {
	case c.zone == "":
		return errors.New("-name: want the name of a zone")
	case c.save <= 0:
		return errors.New("-save: want more than 0")
	case c.lease < time.Second:
		return errors.New("-lease: want 1s or more")
	}
	var players players
	switch c.players {
	case "redis":
		players = &redisPlayers{client, c.waitReplicas}
	case "sql":
		var err error
		if players, err = openSQLPlayers(ctx, db); err != nil {
			return err
		}
	default:
		return errors.New("-players: want redis or sql")
	}
	inbox, err := store.Inbox(midassql.InboxOptions{Zones: []string{c.zone}, Lease: c.lease})
	if err != nil {
		return err
	}
	return newZone(c.zone, store, inbox, players, log).serve(ctx, c.listen, client, c.save)
}

// shutdownTime is how long running requests have when the server stops.
const shutdownTime = 10 * time.Second

func serve(ctx context.Context, address string, handler http.Handler, log *slog.Logger) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("-listen: %w", err)
	}
	server := &http.Server{
		Handler:           http.MaxBytesHandler(handler, 16<<10),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      20 * time.Second, // an order may be tried three times
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    32 << 10, // the query of a callback is 16 KiB at most
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	log.InfoContext(ctx, "listening", "address", listener.Addr().String())
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTime)
	defer cancel()
	return server.Shutdown(grace)
}
