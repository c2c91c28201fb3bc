package midas_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"html/template"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/midas-go/midas"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Secrets with every character that some encoding changes.
var secrets = map[string]string{
	"pay key":   `SECRET+key/"1"<=~`,
	"other key": `SECRET+other/"6"<=~`,
	"openkey":   `SECRET+openkey/"2"<=~`,
	"pay_token": `SECRET+paytoken/"3"<=~`,
	"pfkey":     `SECRET+pfkey/"4"<=~`,
	"extra":     `SECRET+extra/"5"<=~`,
}

func secretOrder() midas.OrderRequest {
	req := goldenOrder()
	req.Player.OpenKey, req.Player.PayToken, req.Player.PFKey = secrets["openkey"], secrets["pay_token"], secrets["pfkey"]
	req.Extra = url.Values{"sp_info": {secrets["extra"]}}
	return req
}

func secretCall() midas.Call {
	return midas.Call{API: "/mpay/get_balance_m", Player: secretOrder().Player, Params: url.Values{"sp_info": {secrets["extra"]}}}
}

func pointerTo[T any](v T) *T { return &v }

func secretConfig() midas.Config {
	return midas.Config{AppID: testAppID, AppKey: secrets["pay key"], OtherAppKeys: []string{secrets["other key"]}, Gateway: midas.MSDK(), DeliveryPath: "/pay/notify", RetryDelay: time.Nanosecond}
}

// requireNoSecret fails if text holds a secret in any notation, or the query of an order.
func requireNoSecret(t *testing.T, text string) {
	t.Helper()
	for notation, decode := range map[string]func(string) string{
		"as it is":         func(s string) string { return s },
		"percent-encoded":  unescapeAll,
		"encoded twice":    func(s string) string { return unescapeAll(unescapeAll(s)) },
		"as HTML":          html.UnescapeString,
		"HTML and percent": func(s string) string { return html.UnescapeString(unescapeAll(s)) },
		"as JSON":          strings.NewReplacer(`\/`, `/`, `\"`, `"`, `\\`, `\`, `\u003c`, "<", `\u0026`, "&").Replace,
	} {
		require.NotContains(t, decode(text), "SECRET", "%s, %s", text, notation)
		require.NotContains(t, decode(text), "openid=o_TEST", "the query: %s, %s", text, notation)
	}
}

func unescapeAll(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if i+2 < len(s) && s[i] == '%' {
			if decoded, err := url.PathUnescape(s[i : i+3]); err == nil {
				b.WriteString(decoded)
				i += 2
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// faces returns all the ways in which an error, or anything, can be printed.
func faces(v any) []string {
	var text, inJSON bytes.Buffer
	slog.New(slog.NewTextHandler(&text, nil)).Info("x", "v", v)
	slog.New(slog.NewJSONHandler(&inJSON, nil)).Info("x", "v", v)
	marshalled, err := json.Marshal(v)
	return []string{
		fmt.Sprintf("%v", v), fmt.Sprintf("%+v", v), fmt.Sprintf("%#v", v), fmt.Sprintf("%s", v), fmt.Sprintf("%q", v), fmt.Sprintf("%d", v), fmt.Sprintf("%x", v),
		text.String(), inJSON.String(), string(marshalled), fmt.Sprint(err),
	}
}

// A transcript is all that was printed while an order or a callback went wrong.
type transcript struct {
	log    journal
	texts  []string
	hidden []string // what must not be in it, besides the secrets
}

func (tr *transcript) hide(values ...string) { tr.hidden = append(tr.hidden, values...) }

// add adds all faces of all errors in the chain of err.
func (tr *transcript) add(err error) {
	for ; err != nil; err = errors.Unwrap(err) {
		tr.texts = append(tr.texts, faces(err)...)
	}
}

// requireNoSecret checks everything, when c has written its log.
func (tr *transcript) requireNoSecret(t *testing.T, c *midas.Client) {
	t.Helper()
	require.NoError(t, c.Wait(t.Context()))
	texts := append(tr.texts, strings.Split(tr.log.String(), "\n")...)
	require.NotEmpty(t, texts)
	for _, text := range texts {
		requireNoSecret(t, text)
		for _, hidden := range tr.hidden {
			require.NotContains(t, text, hidden)
			require.NotContains(t, text, url.QueryEscape(hidden))
		}
	}
}

// Answers that repeat the request, the way proxies and servers do.
func TestNoErrorOrLogLineShowsASecret(t *testing.T) {
	t.Parallel()
	echo := func(r *http.Request, format string) string {
		q := r.URL.Query()
		raw, sig := r.URL.RawQuery, q.Get("sig")
		inJSON, _ := json.Marshal(sig + q.Get("openkey") + q.Get("pfkey") + q.Get("sp_info"))
		return strings.NewReplacer(
			"URL", r.URL.String(),
			"HTML", html.EscapeString(r.URL.String()),
			"TWICE", url.QueryEscape(raw),
			"LOWER", strings.ToLower(url.QueryEscape(sig))+" "+lowerEscapes(raw),
			"VALUES", strings.Join([]string{sig, q.Get("openkey"), q.Get("pfkey"), q.Get("pay_token"), q.Get("sp_info"), secrets["pay key"]}, " | "),
			"JSONED", strings.ReplaceAll(string(inJSON), "/", `\/`),
			"TEMPLATE", template.HTMLEscapeString(sig+q.Get("openkey")), // "+" as &#43;
			"ENTITIES", entities(sig+q.Get("openkey")+secrets["pay key"]),
			"DOUBLE", url.QueryEscape(url.QueryEscape(q.Get("openkey"))),
			"BLANKS", strings.ReplaceAll(sig+q.Get("openkey"), "+", " "),
			"ESCAPED", html.EscapeString(q.Get("openkey"))+" "+url.QueryEscape(q.Get("pfkey"))+" "+url.PathEscape(q.Get("pay_token")),
		).Replace(format)
	}
	for _, format := range []string{
		"<a href=\"URL\">", "<p>HTML</p>", "TWICE", "LOWER", "VALUES", "JSONED", "ESCAPED", "TEMPLATE", "ENTITIES", "BLANKS", "DOUBLE",
		`{"ret":1001,"msg":"TWICE"}`, `{"ret":1001,"msg":"source: TWICE","err_code":"LOWER"}`, `{"ret":1001,"msg":JSONED}`, `{"ret":"URL"}`,
		`{"ret":1001,"msg":"TEMPLATE","err_code":"ENTITIES"}`, `{"ret":1001,"msg":"BLANKS","err_code":"DOUBLE"}`,
		"openkey=SECRET", "openkey: 'SECRET", "sig%3DSECRET", "<openkey>SECRET", // cut off in the middle of a value
	} {
		for _, status := range []int{200, 502} {
			t.Run(fmt.Sprint(status, " ", format), func(t *testing.T) {
				t.Parallel()
				var tr transcript
				g := newGateway(t, func(w http.ResponseWriter, r *http.Request) {
					w.WriteHeader(status)
					io.WriteString(w, echo(r, format))
				})
				cfg := secretConfig()
				cfg.Gateway = cfg.Gateway.At(g.URL)
				c := newClient(t, cfg, tr.log.attach)
				_, err := c.CreateOrder(t.Context(), secretOrder())
				require.Error(t, err)
				tr.add(err)
				for _, r := range g.requests {
					tr.hide(r.URL.Query().Get("sig"))
				}
				tr.requireNoSecret(t, c)
			})
		}
	}
}

func TestNoNetworkFaultShowsASecret(t *testing.T) {
	t.Parallel()
	for what, fail := range map[string]func(*http.Request) error{
		"the URL in words": func(r *http.Request) error { return fmt.Errorf("cannot reach %s", r.URL) },
		"a url.Error": func(r *http.Request) error {
			return &url.Error{Op: "Get", URL: r.URL.String(), Err: errors.New("refused")}
		},
		"a url.Error, wrapped": func(r *http.Request) error {
			return fmt.Errorf("x: %w", &url.Error{Op: "Get", URL: r.URL.String(), Err: errors.New("refused")})
		},
		"a url.Error in another": func(r *http.Request) error {
			return &url.Error{Op: "Get", URL: r.URL.String(), Err: &url.Error{Op: "Get", URL: r.URL.String(), Err: errors.New("refused")}}
		},
		"openkey alone": func(r *http.Request) error { return errors.New("odd value " + r.URL.Query().Get("openkey")) },
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			var tr transcript
			c := newClient(t, secretConfig(), tr.log.attach, func(cfg *midas.Config) {
				cfg.HTTPClient = &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
					tr.hide(r.URL.Query().Get("sig"))
					return nil, fail(r)
				})}
			})
			_, err := c.CreateOrder(t.Context(), secretOrder())
			require.Error(t, err)
			requireNoURLError(t, err)
			tr.add(err)
			tr.requireNoSecret(t, c)
		})
	}
}

func TestAnOrderThatIsNotSentShowsNoSecret(t *testing.T) {
	t.Parallel()
	for what, change := range map[string]func(*midas.OrderRequest){
		"login":                  func(r *midas.OrderRequest) { r.Player.Login = "x" },
		"pf":                     func(r *midas.OrderRequest) { r.Player.PF = "" },
		"openkey too long":       func(r *midas.OrderRequest) { r.Player.OpenKey = strings.Repeat(r.Player.OpenKey, 100) },
		"items":                  func(r *midas.OrderRequest) { r.Items = nil },
		"openkey in Extra":       func(r *midas.OrderRequest) { r.Extra.Set("openkey", secrets["openkey"]) },
		"two values in Extra":    func(r *midas.OrderRequest) { r.Extra.Add("sp_info", secrets["extra"]) },
		"a value too long there": func(r *midas.OrderRequest) { r.Extra.Set("sp_info", strings.Repeat(secrets["extra"], 100)) },
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			var tr transcript
			c := newClient(t, secretConfig(), tr.log.attach)
			req := secretOrder()
			change(&req)
			_, err := c.CreateOrder(t.Context(), req)
			require.Error(t, err)
			tr.add(err)
			tr.requireNoSecret(t, c)
		})
	}
}

func TestNoAnswerOrLogLineOfACallbackShowsASecret(t *testing.T) {
	t.Parallel()
	for outcome, deliver := range map[string]midas.DeliverFunc{
		"delivered": func(context.Context, *midas.Delivery) error { return nil },
		"failed":    func(context.Context, *midas.Delivery) error { return errors.New("no") },
		"declined": func(context.Context, *midas.Delivery) error {
			return &midas.ParamError{Param: "amt", Reason: "differs"}
		},
		"panicked": func(context.Context, *midas.Delivery) error { panic("x") },
	} {
		for what, change := range map[string]func(url.Values){
			"as it is":            func(url.Values) {},
			"the signature":       func(q url.Values) { q.Set("sig", "SECRETsig") },
			"a number":            func(q url.Values) { q.Set("amt", "SECRET") },
			"the player":          func(q url.Values) { q.Set("openid", "SECRET") },
			"a name, twice":       func(q url.Values) { q.Set("SECRET", "x"); q.Add("SECRET", "y") },
			"a name with a blank": func(q url.Values) { q.Set("SEC RET", "SECRET") },
		} {
			t.Run(outcome+", "+what, func(t *testing.T) {
				t.Parallel()
				var tr transcript
				c := newClient(t, secretConfig(), tr.log.attach)
				q, err := url.ParseQuery(signed(nil))
				require.NoError(t, err)
				q.Set("openid", "o_TESTlonglonglong")
				sig := midas.SignCallback("GET", "/pay/notify", q, secrets["pay key"])
				q.Set("sig", sig)
				tr.hide(sig, "o_TESTlonglonglong") // openids are shortened
				change(q)

				w := serve(c.DeliveryHandler(deliver), "GET", q.Encode())
				_, err = c.ParseDeliveryQuery(q.Encode())
				tr.add(err)
				tr.texts = append(tr.texts, w.Body.String())
				tr.requireNoSecret(t, c)
			})
		}
	}
}

// entities writes every character but letters as a hexadecimal HTML entity.
func entities(s string) string {
	var b strings.Builder
	for _, c := range s {
		if c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || c >= '0' && c <= '9' {
			b.WriteRune(c)
		} else {
			fmt.Fprintf(&b, "&#x%X;", c)
		}
	}
	return b.String()
}

func lowerEscapes(s string) string {
	b := []byte(s)
	for i := range b {
		if i >= 2 && (b[i-1] == '%' || b[i-2] == '%') {
			b[i] = strings.ToLower(string(b[i]))[0]
		}
	}
	return string(b)
}

func TestWhatHoldsSecretsDoesNotPrintThem(t *testing.T) {
	t.Parallel()
	cfg := secretConfig()
	c := newClient(t, cfg)
	req := secretOrder()
	type exported struct {
		Config  midas.Config
		Client  *midas.Client
		Request *midas.OrderRequest
		Orders  []midas.OrderRequest
		Player  midas.Player
		Players map[string]*midas.Player
	}
	for what, v := range map[string]any{
		"Config": cfg, "*Config": &cfg, "Client": *c, "*Client": c, "OrderRequest": req, "*OrderRequest": &req, "Player": req.Player, "*Player": &req.Player, "Call": secretCall(), "*Call": pointerTo(secretCall()),
		"inside another type": exported{cfg, c, &req, []midas.OrderRequest{req}, req.Player, map[string]*midas.Player{"p": &req.Player}},
		"in a map":            map[string]any{"cfg": cfg, "req": &req},
		"a Client in an unexported field": struct {
			c *midas.Client
			v midas.Client
		}{c, *c},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			for _, text := range faces(v) {
				requireNoSecret(t, text)
				require.NotContains(t, strings.ToLower(text), fmt.Sprintf("%x", "SECRET"))
			}
		})
	}

	// testify prints what differs with all pointers followed and all methods off.
	require.NotContains(t, spewed(c), "SECRET")

	// What is no secret is still there to be read.
	require.Contains(t, fmt.Sprint(cfg), testAppID)
	require.Contains(t, fmt.Sprint(c), "/pay/notify")
	require.Contains(t, fmt.Sprintf("%+v", req), "OpenID:o_TEST-openid OpenKey:[redacted]")
	inJSON, err := json.Marshal(req)
	require.NoError(t, err)
	require.Contains(t, string(inJSON), `"openkey":"[redacted]"`)
	require.Contains(t, string(inJSON), `"openid":"o_TEST-openid"`)
	require.Equal(t, secrets["openkey"], req.Player.OpenKey, "printing changes nothing")
	require.Equal(t, secrets["extra"], req.Extra.Get("sp_info"))
}

// spewed returns how testify shows v in a failure.
func spewed(v any) string {
	var failure recorder
	assert.Equal(&failure, nil, v) //nolint:testifylint // the failure of Equal is what is looked at
	return failure.text
}

type recorder struct{ text string }

func (r *recorder) Errorf(format string, args ...any) { r.text += fmt.Sprintf(format, args...) }

func TestShortSecretsDoNotGarbleTheDiagnosis(t *testing.T) {
	t.Parallel()
	g := newGateway(t, answering(`{"ret":1018,"msg":"who are you, 1","err_code":"1018--2-20"}`))
	req := goldenOrder()
	req.Player.Login, req.Player.OpenKey = midas.Guest, "1"
	_, err := g.client(t).CreateOrder(t.Context(), req)
	var refused *midas.Error
	require.ErrorAs(t, err, &refused)
	require.Equal(t, midas.Error{Ret: 1018, Msg: "who are you, 1", Code: "1018--2-20"}, *refused)
}

// In plain words, so that it is the value that is recognised.
func TestWhatMidasRepeatsOfARequestIsWithheld(t *testing.T) {
	t.Parallel()
	req := goldenOrder()
	req.Player.OpenID, req.Player.OpenKey, req.Player.PFKey, req.Player.PayToken = "openid in words", "openkey in words", "pfkey in words", "pay token in words"
	req.Extra = url.Values{"sp_info": {"extra in words"}}
	req.GoodsName, req.GoodsDescription = "sword of words", "it cuts"
	for name, shown := range map[string]bool{
		"openid": false, "openkey": false, "pfkey": false, "pay_token": false, "sp_info": false, "sig": false, "goodsmeta": true,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var words string
			g := newGateway(t, func(w http.ResponseWriter, r *http.Request) {
				value, _, _ := strings.Cut(r.URL.Query().Get(name), "*")
				words = "bad value " + strings.TrimRight(value, "=")
				inJSON, _ := json.Marshal(words)
				fmt.Fprintf(w, `{"ret":1001,"msg":%s}`, inJSON)
			})
			// At a fixed time, since one sig of some hundred thousand holds the word "sig".
			_, err := g.client(t, at(1518081937), func(cfg *midas.Config) { cfg.Gateway.PayToken = true }).CreateOrder(t.Context(), req)
			if !shown {
				words = "[withheld]"
			}
			var refused *midas.Error
			require.ErrorAs(t, err, &refused)
			require.Equal(t, midas.Error{Ret: 1001, Msg: words}, *refused)
		})
	}
}

func TestWhatMidasSaysOfThePayKeyIsWithheld(t *testing.T) {
	t.Parallel()
	for _, key := range []string{testAppKey, "another-key", "a-third-key"} {
		_, err := newGateway(t, answering(`{"ret":1001,"msg":"signed with `+key+`"}`)).client(t, func(cfg *midas.Config) {
			cfg.OtherAppKeys = []string{"another-key", "a-third-key"}
		}).CreateOrder(t.Context(), goldenOrder())
		var refused *midas.Error
		require.ErrorAs(t, err, &refused)
		require.Equal(t, midas.Error{Ret: 1001, Msg: "[withheld]"}, *refused)
	}
}
