// Package minigametest is a WeChat for tests of mini games and mini programs: it logs
// players in, verifies every query parameter and signature of a server call, keeps orders
// and coins, lets players pay, pushes in every mode and format, repeats pushes on WeChat's
// schedule by an injected clock, and has faults on demand.
//
//	wechat := minigametest.NewServer(minigametest.Config{Errorf: t.Errorf})
//	defer wechat.Close()
//	client, err := minigame.New(wechat.ClientConfig())
//	wechat.PushToHandler(client.PushHandler(handlers))
//	wechat.Publish("sword", 600*midas.Fen)
//	session, err := client.Code2Session(ctx, wechat.Login("player-1"))
//	order, err := client.NewOrder(...)
//	receipt, err := wechat.Pay(ctx, "player-1", order)
//
// It signs with code of its own, so that a mistake of package minigame does not hide in
// both. It is not WeChat: docs/minigame.md lists what is open.
package minigametest

import (
	"cmp"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/minigame"
)

// A Mode is how pushes are sent (minigame.md 4.1).
type Mode int

// The modes of pushes.
const (
	Secure     Mode = iota // encrypted
	Plaintext              // neither encrypted nor covered by the URL's signature
	Compatible             // both
)

// Config configures a [Server]. The zero value is a mini game with made-up keys, in secure
// mode and JSON.
type Config struct {
	AppID, OfferID        string
	AppKey, SandboxAppKey string
	Secret                string
	Token, EncodingAESKey string // of pushes
	MiniProgram           bool
	Mode                  Mode
	XML                   bool

	// Now optionally specifies the clock of tokens and of the retries of pushes. If nil,
	// time.Now.
	Now func() time.Time

	// Errorf optionally hears of every call that WeChat would refuse for how it is made:
	// t.Errorf in a test.
	Errorf func(format string, args ...any)
}

// A Server is a WeChat that listens on loopback. It is safe for concurrent use.
type Server struct {
	cfg  Config
	http *httptest.Server

	mu        sync.Mutex
	codes     map[string]string // wx.login's code -> openid
	sessions  map[string]string // openid -> the newest session_key
	expired   map[string]bool   // session_keys that WeChat ended
	token     string
	products  map[string]midas.Amount
	orders    map[string]*order // env/outTradeNo
	refunds   map[string]body   // env/number of the refund -> the call that asked for it
	coins     map[string]int64  // openid/env/zone
	moves     map[string]move   // openid/env/zone/number -> what it moved
	faults    map[string][]Fault
	calls     map[string]int
	pushes    []*push
	transport http.RoundTripper // to the game
	url       string
}

// NewServer starts a Server. Close it.
func NewServer(cfg Config) *Server {
	for field, value := range map[*string]string{
		&cfg.AppID: "wx0123456789abcdef", &cfg.OfferID: "1450000000",
		&cfg.AppKey: "minigametest-live-key", &cfg.SandboxAppKey: "minigametest-sandbox-key",
		&cfg.Secret: "minigametest-secret", &cfg.Token: "minigametestToken",
		&cfg.EncodingAESKey: "minigametest0123456789ABCDEFGHIJKLMNOPQRSTU",
	} {
		if *field == "" {
			*field = value
		}
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Errorf == nil {
		cfg.Errorf = func(string, ...any) {}
	}
	s := &Server{
		cfg: cfg, codes: map[string]string{}, sessions: map[string]string{}, expired: map[string]bool{}, token: "token-" + rand.Text(),
		products: map[string]midas.Amount{}, orders: map[string]*order{}, refunds: map[string]body{}, coins: map[string]int64{}, moves: map[string]move{},
		faults: map[string][]Fault{}, calls: map[string]int{},
	}
	s.http = httptest.NewServer(s)
	return s
}

// Close stops the Server.
func (s *Server) Close() { s.http.Close() }

// ClientConfig returns the configuration of a Client of this account. It delivers live
// payments only; set DeliverSandbox for a test server.
func (s *Server) ClientConfig() minigame.Config {
	key := minigame.PushKey{Token: minigame.Secret(s.cfg.Token), EncodingAESKey: minigame.Secret(s.cfg.EncodingAESKey)}
	if s.cfg.Mode == Plaintext {
		key.EncodingAESKey = ""
	}
	return minigame.Config{
		AppID: s.cfg.AppID, MiniProgram: s.cfg.MiniProgram, OfferID: s.cfg.OfferID,
		AppKey: minigame.Secret(s.cfg.AppKey), SandboxAppKey: minigame.Secret(s.cfg.SandboxAppKey),
		Secret: minigame.Secret(s.cfg.Secret), PushKeys: []minigame.PushKey{key},
		BaseURL: s.http.URL, RetryDelay: time.Millisecond, Now: s.cfg.Now,
	}
}

// PushTo sets the URL of pushes.
func (s *Server) PushTo(url string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.url, s.transport = url, http.DefaultTransport
}

// PushToHandler sends pushes to a handler without a socket. It is waited for as a server is:
// for Patience, and a panic is a broken connection.
func (s *Server) PushToHandler(h http.Handler) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.url, s.transport = "http://game.example/push", inProcess{h}
}

// Publish puts an item up for sale in both environments, or changes its price.
func (s *Server) Publish(productID string, price midas.Amount) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.products[productID] = price
}

// GiveCoins puts coins or tokens into a player's account; the coins of mini games, which have
// zones, into that of zone "1".
func (s *Server) GiveCoins(openID string, env minigame.Env, n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.coins[account(openID, env, "")] += n
}

// account is the key of a player's coins. The tokens of mini programs have no zone.
func account(openID string, env minigame.Env, zoneID string) string {
	return fmt.Sprintf("%s/%d/%s", openID, env, cmp.Or(zoneID, "1"))
}

// Login is wx.login: it returns a code that works once.
func (s *Server) Login(openID string) (code string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	code = rand.Text()
	s.codes[code] = openID
	return code
}

// ExpireSession ends a player's session_key, as WeChat does at times. It does nothing for a
// player who never logged in.
func (s *Server) ExpireSession(openID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if key := s.sessions[openID]; key != "" {
		s.expired[key] = true
	}
}

// ExpireToken ends the access token, as another process's force_refresh does.
func (s *Server) ExpireToken() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.token = "token-" + rand.Text()
}

// Calls returns how often a path was called.
func (s *Server) Calls(path string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[path]
}

// A Fault is something that goes wrong with one call.
type Fault int

// The faults.
const (
	LoseAnswer  Fault = iota + 1 // the call is carried out, the connection breaks
	BusyAfter                    // the call is carried out, the answer is -1
	Busy                         // nothing is carried out, the answer is -1
	BadGateway                   // a proxy's page with status 502
	LoginPage                    // a proxy's page with status 200
	Redirect                     // a redirect to another host
	HalfAnswer                   // half of the JSON
	HugeAnswer                   // two megabytes
	EmptyAnswer                  // nothing with status 200
)

// Fail makes the next calls of a path go wrong, one for each fault.
func (s *Server) Fail(path string, faults ...Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults[path] = append(s.faults[path], faults...)
}

// ServeHTTP answers the server calls.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	path := r.URL.Path
	s.calls[path]++
	var fault Fault
	if queue := s.faults[path]; len(queue) > 0 {
		fault, s.faults[path] = queue[0], queue[1:]
	}
	switch fault {
	case Busy:
		writeJSON(w, failure(-1, "system error"))
		return
	case BadGateway:
		w.WriteHeader(http.StatusBadGateway)
		fmt.Fprintf(w, "<html>%s</html>", r.URL)
		return
	case LoginPage:
		fmt.Fprintf(w, "<html>%s</html>", r.URL)
		return
	case Redirect:
		http.Redirect(w, r, "http://127.0.0.1:1/?"+r.URL.RawQuery, http.StatusFound)
		return
	case EmptyAnswer:
		return
	}
	answer := s.answer(r)
	switch fault {
	case LoseAnswer:
		panic(http.ErrAbortHandler)
	case BusyAfter:
		writeJSON(w, failure(-1, "system error"))
	case HalfAnswer:
		body, _ := json.Marshal(answer)
		w.Write(body[:len(body)/2])
	case HugeAnswer:
		w.Write(make([]byte, 2<<20))
	default:
		writeJSON(w, answer)
	}
}

type object map[string]any

func failure(code int, msg string) object { return object{"errcode": code, "errmsg": msg} }

func writeJSON(w http.ResponseWriter, answer object) {
	if _, ok := answer["errcode"]; !ok {
		answer["errcode"], answer["errmsg"] = 0, "ok"
	}
	json.NewEncoder(w).Encode(answer)
}

// hexMAC is the HMAC of minigame.md 3, a second implementation.
func hexMAC(key, message string) string {
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write([]byte(message))
	return hex.EncodeToString(mac.Sum(nil))
}

func (s *Server) appKey(env minigame.Env) string {
	if env == minigame.Sandbox {
		return s.cfg.SandboxAppKey
	}
	return s.cfg.AppKey
}
