// Firstpayment is a backend for an afternoon in Tencent's sandbox (docs/first-payment.md): it places
// orders for one app, verifies callbacks, grants nothing, and answers them as it is told to, so that
// "midas tap" can record what Midas does then.
//
//	firstpayment -app-id 1450000000 -key-file pay.key -gateway http://127.0.0.1:9101 -items 'sword*1*1'
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/midas-go/midas"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "firstpayment:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("firstpayment", flag.ContinueOnError)
	appID := flags.String("app-id", "", "`offer id`")
	keyFile := flags.String("key-file", "", "`file` with the sandbox's pay key, without the trailing \"&\"")
	gateway := flags.String("gateway", "", "`URL` that orders go to: the tap's")
	items := flags.String("items", "", "`id*price*number`, as published in the console; the price in Q-points; several joined by \";\"")
	path := flags.String("delivery-path", "/pay/notify", "`path` of the delivery URL as registered at Tencent")
	listen := flags.String("listen", "127.0.0.1:8080", "`address` for callbacks")
	control := flags.String("control", "127.0.0.1:8081", "`address` for you: /orders and /answer")
	if err := flags.Parse(args); err != nil {
		return err
	}
	key, err := os.ReadFile(*keyFile)
	if err != nil {
		return fmt.Errorf("-key-file: %w", err)
	}
	if _, err := midas.ParseItems(*items); err != nil {
		return fmt.Errorf("-items: %w", err)
	}
	b := &backend{out: out, items: *items, answer: "ok"}
	for bare, client := range map[bool]**midas.Client{false: &b.client, true: &b.bare} {
		g := midas.Sandbox().At(*gateway)
		if bare { // as Tencent's PHP SDK: protocol.md 4, cookies
			g.OrgLocPrefix = ""
		}
		if *client, err = midas.New(midas.Config{AppID: *appID, AppKey: strings.TrimRight(string(key), "\r\n"), Gateway: g, DeliveryPath: *path}); err != nil {
			return err
		}
	}
	callbacks, yours := http.NewServeMux(), http.NewServeMux()
	callbacks.HandleFunc(*path, b.callback)
	yours.HandleFunc("POST /orders", b.order) // not beside callbacks, which all the world can reach
	yours.HandleFunc("POST /answer", b.setAnswer)
	var listeners []net.Listener
	for _, addr := range []string{*listen, *control} {
		listener, err := net.Listen("tcp", addr)
		if err != nil {
			return err
		}
		defer listener.Close()
		listeners = append(listeners, listener)
	}
	fmt.Fprintf(out, "listening on http://%s, callbacks are answered ok\norders and answers on http://%s\n", listeners[0].Addr(), listeners[1].Addr())
	ended := make(chan error, 2)
	for i, handler := range []http.Handler{callbacks, yours} {
		server := &http.Server{Handler: handler, ReadTimeout: 10 * time.Second}
		context.AfterFunc(ctx, func() { server.Close() })
		go func() { ended <- server.Serve(listeners[i]) }()
	}
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// A backend sells what is published, and grants nothing.
type backend struct {
	out          io.Writer
	items        string
	client, bare *midas.Client // bare sends org_loc without /v3/r

	mu     sync.Mutex
	answer string
}

func (b *backend) say(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	fmt.Fprintf(b.out, format+"\n", args...)
}

// order places an order for the player whose login the app got, in the body.
func (b *backend) order(w http.ResponseWriter, r *http.Request) {
	var player midas.Player
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10)).Decode(&player); err != nil {
		http.Error(w, "want the JSON of the app's login: login, openid, openkey, pf, pfkey", http.StatusBadRequest)
		return
	}
	asked := r.URL.Query()
	player.ZoneID = asked.Get("zone")
	items, err := midas.ParseItems(cmp.Or(asked.Get("items"), b.items))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	client := b.client
	if asked.Get("org_loc") == "bare" {
		client = b.bare
	}
	order, err := client.CreateOrder(r.Context(), midas.OrderRequest{
		Player: player, Items: items, GoodsName: "test", GoodsDescription: "the first payment", Metadata: "first-payment",
	})
	if err != nil {
		b.say("order refused: %v", err)
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	b.say("order taken")
	_ = json.NewEncoder(w).Encode(order) // whoever asked may have gone
}

// answers are what a verified callback can be answered.
var answers = map[string]func(w http.ResponseWriter){
	"ok":     reply(nil),
	"ret1":   reply(errors.New("asked for")),
	"ret2":   reply(midas.ErrTokenExpired),
	"ret3":   reply(midas.ErrTokenNotFound),
	"ret4":   reply(&midas.ParamError{Param: "payitem", Reason: "asked for"}),
	"broken": func(http.ResponseWriter) { panic(http.ErrAbortHandler) },
	"late": func(w http.ResponseWriter) {
		time.Sleep(3 * time.Second) // Midas hangs up, and this goes on as it would in a slow backend
		reply(nil)(w)
	},
}

func reply(err error) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) { _, _ = w.Write(midas.ReplyTo(err).Bytes()) }
}

func (b *backend) setAnswer(w http.ResponseWriter, r *http.Request) {
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 100))
	name := strings.TrimSpace(string(text))
	if err != nil || answers[name] == nil {
		http.Error(w, "want one of "+strings.Join(slices.Sorted(maps.Keys(answers)), ", "), http.StatusBadRequest)
		return
	}
	b.mu.Lock()
	b.answer = name
	b.mu.Unlock()
	fmt.Fprintln(w, "callbacks are answered", name)
}

func (b *backend) callback(w http.ResponseWriter, r *http.Request) {
	d, err := b.client.ParseDelivery(r)
	if err != nil {
		b.say("callback refused: %v", err)
		reply(err)(w)
		return
	}
	b.mu.Lock()
	name := b.answer
	b.mu.Unlock()
	b.say("callback verified: %s, charged %s; answered %s", midas.FormatItems(d.Items), d.Charged, name)
	answers[name](w)
}
