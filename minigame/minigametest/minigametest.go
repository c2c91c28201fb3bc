// Package minigametest is a WeChat for tests of mini games and mini programs: it logs
// players in, verifies every query parameter and signature of a server call, keeps orders
// and coins, lets players pay, pushes in every mode and format, repeats pushes on WeChat's
// schedule by an injected clock, and has faults on demand.
//
//	wechat := minigametest.NewServer(minigametest.Config{Errorf: t.Errorf})
//	defer wechat.Close()
//	game, err := minigame.NewGame(wechat.GameConfig())
//	wechat.PushToHandler(game.PushHandler(handlers), "/push")
//	wechat.Publish("sword", 600*midas.Fen)
//	session, err := game.Code2Session(ctx, wechat.Login("player-1"))
//	order, err := game.NewOrder(...)
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
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/internal/inprocess"
	"github.com/midas-go/midas/minigame"
)

// A Mode is how pushes are sent (minigame.md 2.3).
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
	MiniProgram           bool   // a mini program's account, whose Mode must be Secure or Compatible
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
	files     map[string]string // path -> what a task or a bill made
	tasks     map[string]*task  // of downloads, by their id
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
		faults: map[string][]Fault{}, calls: map[string]int{}, files: map[string]string{}, tasks: map[string]*task{},
	}
	s.http = httptest.NewServer(s)
	return s
}

// Close stops the Server.
func (s *Server) Close() { s.http.Close() }

// GameConfig returns the configuration of a Game of this account, ready for [minigame.NewGame].
// Change what you like before using it: it delivers live payments only, for example.
func (s *Server) GameConfig() minigame.GameConfig {
	key := minigame.PushKey{Token: minigame.Secret(s.cfg.Token), EncodingAESKey: minigame.Secret(s.cfg.EncodingAESKey)}
	if s.cfg.Mode == Plaintext {
		key.EncodingAESKey = ""
	}
	return minigame.GameConfig{
		AppID: s.cfg.AppID, OfferID: s.cfg.OfferID, AppKey: minigame.Secret(s.cfg.AppKey), SandboxAppKey: minigame.Secret(s.cfg.SandboxAppKey),
		Secret: minigame.Secret(s.cfg.Secret), PushKeys: []minigame.PushKey{key}, BaseURL: s.http.URL, RetryDelay: time.Millisecond, Now: s.cfg.Now,
	}
}

// ProgramConfig is GameConfig for a [minigame.Program].
func (s *Server) ProgramConfig() minigame.ProgramConfig {
	cfg := s.GameConfig()
	return minigame.ProgramConfig{
		AppID: cfg.AppID, OfferID: cfg.OfferID, AppKey: cfg.AppKey, SandboxAppKey: cfg.SandboxAppKey,
		Secret: cfg.Secret, PushKeys: cfg.PushKeys, BaseURL: cfg.BaseURL, RetryDelay: cfg.RetryDelay, Now: cfg.Now,
	}
}

// PushTo sets the URL of pushes, as it stands in the console. It panics if that is not an absolute
// http or https URL with a path and without a query.
func (s *Server) PushTo(pushURL string) {
	u, err := url.Parse(pushURL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.Path == "" || u.RawQuery != "" {
		panic(fmt.Sprintf("minigametest: PushTo(%q): want an absolute URL with a path and without a query", pushURL))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.url, s.transport = pushURL, http.DefaultTransport
}

// PushToHandler is PushTo without a socket: pushes go straight to h, at path. It is waited for as a
// server is: for Patience, and a panic is a broken connection. It panics if path does not begin
// with "/".
func (s *Server) PushToHandler(h http.Handler, path string) {
	if !strings.HasPrefix(path, "/") {
		panic(fmt.Sprintf("minigametest: PushToHandler: path %q does not begin with \"/\"", path))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.url, s.transport = "http://game.example"+path, inprocess.Transport{Handler: h}
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

// A Fault is what goes wrong with one call. Fields can be combined; of several answers, Body wins,
// then Status, then HTML, then Code.
type Fault struct {
	Delay  time.Duration // wait before answering, or until the caller hangs up
	Done   bool          // carry the call out first; otherwise nothing is
	Status int           // this HTTP status, with an HTML page as proxies send; a 3xx points to another host
	Code   int           // refuse with this errcode and Msg
	Msg    string        // with Code; if empty, WeChat's for -1
	HTML   bool          // status 200 and an HTML page
	Cut    bool          // break the connection in the middle of the body
	Body   string        // this body instead of any other
}

// NextCalls sets the faults of the next calls of a path, one for each, in this sequence; the calls
// after them work again.
func (s *Server) NextCalls(path string, faults ...Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults[path] = append(s.faults[path], faults...)
}

// ServeHTTP answers the server calls.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	fault, answer := s.play(r)
	if fault.Delay > 0 {
		select {
		case <-r.Context().Done():
			return
		case <-time.After(fault.Delay):
		}
	}
	if fault.Status/100 == 3 {
		w.Header().Set("Location", "http://127.0.0.1:1/?"+r.URL.RawQuery)
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(answer)))
	w.WriteHeader(cmp.Or(fault.Status, http.StatusOK))
	if fault.Cut {
		answer = answer[:len(answer)/2] // less than was promised: the server closes the connection
	}
	io.WriteString(w, answer)
}

// play returns the fault of a call, and its answer.
func (s *Server) play(r *http.Request) (fault Fault, answer string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	path := r.URL.Path
	s.calls[path]++
	if queue := s.faults[path]; len(queue) > 0 {
		fault, s.faults[path] = queue[0], queue[1:]
	}
	page := fault.Status != 0 || fault.HTML
	if fault.Done || fault.Body == "" && !page && fault.Code == 0 {
		if answer = s.files[path]; answer == "" {
			answer = write(s.answer(r))
		}
	}
	switch {
	case fault.Body != "":
		answer = fault.Body
	case page:
		answer = fmt.Sprintf("<html>%s</html>", r.URL)
	case fault.Code != 0:
		answer = write(failure(fault.Code, fault.Msg))
	}
	return fault, answer
}

type object map[string]any

// words are WeChat's for an errcode, where they are known.
var words = map[int]string{
	-1:        "system error",
	40001:     "invalid credential, access_token is invalid or not latest",
	40013:     "invalid appid",
	40125:     "invalid appsecret",
	40163:     "code been used",
	43002:     "require POST method",
	47001:     "data format error",
	48001:     "api unauthorized",
	87009:     "invalid signature",
	90010:     "signature error",
	90011:     "pay_sig error",
	90016:     "session_key expired",
	90019:     "out_trade_no not found",
	268490009: "session_key expired",
}

// failure refuses a call with these words, or WeChat's.
func failure(code int, msg string) object {
	return object{"errcode": code, "errmsg": cmp.Or(msg, words[code]) + " rid: 69ddee24-00000000-00000000"}
}

func write(answer object) string {
	if _, ok := answer["errcode"]; !ok {
		answer["errcode"], answer["errmsg"] = 0, "ok"
	}
	text, _ := json.Marshal(answer)
	return string(text)
}

// hexMAC is the HMAC of minigame.md 2.2, a second implementation.
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
