package servers

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/midas-go/midas/midastest"
	"github.com/stretchr/testify/assert"
)

// The app of the tests.
const (
	AppID  = "1450000000"
	AppKey = "test-pay-key"
)

// Midas returns a Midas of the test's own. Its callbacks are signed for path, and the tests send
// them themselves, with Call.
func Midas(t *testing.T, path string) *midastest.Server {
	fake := midastest.NewServer(midastest.Config{AppID: AppID, AppKey: AppKey, Errorf: t.Errorf})
	t.Cleanup(fake.Close)
	fake.DeliverTo("http://backend.test" + path)
	return fake
}

// Callers is Midas's side of a callback: it hangs up after 2 s.
var Callers = &http.Client{
	Timeout:   midastest.Patience,
	Transport: &http.Transport{MaxIdleConnsPerHost: 64, MaxIdleConns: 256},
}

// NoAnswer is what Call returns when there was no usable answer.
const NoAnswer = -1

// Call sends a callback and returns the ret of the answer, after having checked its form.
func Call(ctx context.Context, midas *http.Client, deliveryURL, rawQuery string) int {
	_, body, err := do(ctx, midas, http.MethodGet, deliveryURL+"?"+rawQuery, nil)
	if err != nil {
		return NoAnswer
	}
	for ret, form := range []string{`{"ret":0,"msg":"OK"}`, `{"ret":1,"msg":"system_busy"}`, `{"ret":2,"msg":"token_expired"}`, `{"ret":3,"msg":"token_not_found"}`} {
		if string(body) == form {
			return ret
		}
	}
	if strings.HasPrefix(string(body), `{"ret":4,"msg":"bad_parameter`) {
		return 4
	}
	return NoAnswer
}

// A Caller repeats callbacks as Midas does, and counts.
type Caller struct {
	Running          atomic.Int64 // calls under way
	Busy, Unanswered atomic.Int64 // and repeated
}

// UntilOK repeats a callback until it is answered OK; deliveryURL says where the n-th call goes.
func (c *Caller) UntilOK(ctx context.Context, t *testing.T, rawQuery string, deliveryURL func(n int) string) {
	for n := 0; ctx.Err() == nil; n++ {
		c.Running.Add(1)
		ret := Call(ctx, Callers, deliveryURL(n), rawQuery)
		c.Running.Add(-1)
		switch ret {
		case 0:
			return
		case 1:
			c.Busy.Add(1)
		case NoAnswer:
			c.Unanswered.Add(1)
		default:
			assert.Fail(t, "a payment was refused", "ret %d", ret)
			return
		}
		Pause(ctx, 5*time.Millisecond)
	}
	assert.Fail(t, "a payment was never answered OK")
}

// Apps is the HTTP client of the players' apps.
var Apps = &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 64, MaxIdleConns: 256}}

// An Order is what an app asks a server for.
type Order struct {
	OpenID   string `json:"openid"`
	Zone     string `json:"-"` // that the player logs in to; empty: the server's first one
	Item     string `json:"item"`
	Quantity int    `json:"quantity"`
}

// sessions are the cookies of players who have logged in, by the server and the player.
var sessions sync.Map

// logIn logs a player in, once, and returns the cookie.
func logIn(ctx context.Context, serverURL string, order Order) (*http.Cookie, error) {
	if cookie, ok := sessions.Load(serverURL + order.OpenID); ok {
		return cookie.(*http.Cookie), nil
	}
	body, err := json.Marshal(map[string]string{"openid": order.OpenID, "zone": order.Zone})
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, serverURL+"/login", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	resp, err := Apps.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if len(resp.Cookies()) != 1 {
		return nil, fmt.Errorf("no session: status %d", resp.StatusCode)
	}
	sessions.Store(serverURL+order.OpenID, resp.Cookies()[0])
	return resp.Cookies()[0], nil
}

// PlaceOrder orders an item as the app does, in the player's session, and returns the token. Where
// the server does not know the session any more, it logs in once more, as an app does.
func PlaceOrder(ctx context.Context, serverURL string, order Order) (token string, err error) {
	body, err := json.Marshal(struct {
		Order
		Login   string `json:"login"`
		OpenKey string `json:"openkey"`
		Pf      string `json:"pf"`
		PfKey   string `json:"pfkey"`
	}{order, "qq", "SECRET-openkey", "qq_m_qq-2001-android-2011-xxxx", "SECRET-pfkey"})
	if err != nil {
		return "", err
	}
	var (
		status int
		text   []byte
	)
	for range 2 {
		session, err := logIn(ctx, serverURL, order)
		if err != nil {
			return "", err
		}
		if status, text, err = do(ctx, Apps, http.MethodPost, serverURL+"/orders", body, session); err != nil {
			return "", err
		}
		if status != http.StatusUnauthorized {
			break
		}
		sessions.Delete(serverURL + order.OpenID)
	}
	var answer struct{ Token, Error string }
	if err := json.Unmarshal(text, &answer); err != nil || status != http.StatusCreated || answer.Token == "" {
		return "", fmt.Errorf("no order: status %d: %s", status, answer.Error)
	}
	return answer.Token, nil
}

// Post lets an app ask a server for something. It reports whether it was done.
func Post(ctx context.Context, url string) bool {
	status, _, err := do(ctx, Apps, http.MethodPost, url, nil)
	return err == nil && status < 300
}

func do(ctx context.Context, client *http.Client, method, url string, body []byte, cookies ...*http.Cookie) (status int, answer []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	for _, cookie := range cookies {
		req.AddCookie(cookie)
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return resp.StatusCode, answer, err
}

var seedFlag = flag.Uint64("seed", 0, "seed of random tests; 0: another one each time")

// Random returns random numbers that -seed repeats, and prints their seed.
func Random(t *testing.T) *rand.Rand {
	seed := *seedFlag
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed: -seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}
