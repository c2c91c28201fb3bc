package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/midas-go/midas"
	"github.com/stretchr/testify/require"
)

func TestTheStoryEndsWellAndShowsTheWireWithoutSecrets(t *testing.T) {
	t.Parallel()
	var out, errOut bytes.Buffer
	require.Equal(t, 0, run(nil, &out, &errOut), "%s%s", &out, &errOut)

	story := out.String()
	require.Contains(t, story, "GET /mpay/buy_goods_m?app_metadata=")
	require.Contains(t, story, "session_id=hy_gameid; session_type=wc_actoken")
	require.Regexp(t, `GET /pay/notify\?\S*\bamt=960&`, story, "80 % of 2 x 60 Q-points, in fen") // a decoy may sort first
	require.Contains(t, story, "200 `{\"ret\":0,\"msg\":\"OK\"}`")
	require.Contains(t, story, "`{\"ret\":4,\"msg\":\"bad_parameter:sig\"}`")
	require.NotContains(t, story, "✗")
	require.Less(t, strings.Count(story, "\n"), 60, "it is read at a glance")

	require.NotContains(t, story, "from-the-login")
	require.NotContains(t, story, "midastest-demo-key")
	require.NotRegexp(t, `(openkey|pfkey|sig)=[^\[]`, story)
}

func TestTheStoryFailsOnABackendThat(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		sentence string
		sabotage func(*shop, *http.ServeMux)
		says     string
	}{
		{"forgets which payments it granted", func(s *shop, mux *http.ServeMux) {
			callback := s.midas.DeliveryHandler(s.deliver)
			mux.HandleFunc(deliveryPath, func(w http.ResponseWriter, r *http.Request) {
				s.mu.Lock()
				clear(s.granted)
				s.mu.Unlock()
				callback.ServeHTTP(w, r)
			})
		}, "owns map[sword:2], want map[sword:1]"},
		{"ends its answers with a newline", func(s *shop, mux *http.ServeMux) {
			mux.HandleFunc(deliveryPath, func(w http.ResponseWriter, r *http.Request) {
				io.WriteString(w, `{"ret":0,"msg":"OK"}`+"\n")
			})
		}, "does not accept the answer: the body ends in a newline"},
		{"answers OK but grants nothing", func(s *shop, mux *http.ServeMux) {
			mux.HandleFunc(deliveryPath, func(w http.ResponseWriter, r *http.Request) {
				io.WriteString(w, `{"ret":0,"msg":"OK"}`)
			})
		}, "owns map[], want map[sword:1]"},
		{"grants without looking at the order", func(s *shop, mux *http.ServeMux) {
			mux.Handle(deliveryPath, s.midas.DeliveryHandler(func(ctx context.Context, d *midas.Delivery) error {
				s.mu.Lock()
				s.orders[d.Token] = order{d.OpenID, d.ZoneID, d.Items}
				s.mu.Unlock()
				return s.deliver(ctx, d)
			}))
		}, "CHEAT owns map[sword:99], want map[]"},
		{"believes forgeries", func(s *shop, mux *http.ServeMux) {
			mux.HandleFunc(deliveryPath, func(w http.ResponseWriter, r *http.Request) {
				q := r.URL.Query()
				s.mu.Lock()
				items := s.orders[q.Get("token")].items
				s.mu.Unlock()
				err := s.deliver(r.Context(), &midas.Delivery{
					OpenID: q.Get("openid"), BillNo: q.Get("billno"), Token: q.Get("token"), ZoneID: q.Get("zoneid"), Items: items,
				})
				w.Write(midas.ReplyTo(err).Bytes())
			})
		}, "CHEAT owns map[sword:1], want map[]"},
		{"answers OK to a forgery that it does not grant", func(s *shop, mux *http.ServeMux) {
			callback := s.midas.DeliveryHandler(s.deliver)
			mux.HandleFunc(deliveryPath, func(w http.ResponseWriter, r *http.Request) {
				callback.ServeHTTP(httptest.NewRecorder(), r)
				io.WriteString(w, `{"ret":0,"msg":"OK"}`)
			})
		}, "the shop answers `{\"ret\":0,\"msg\":\"OK\"}`, want `{\"ret\":4,"},
		{"takes no orders", func(s *shop, mux *http.ServeMux) {
			mux.HandleFunc("POST /orders", func(w http.ResponseWriter, r *http.Request) {
				http.Error(w, "closed", http.StatusServiceUnavailable)
			})
		}, "POST /orders: the shop answered 503"},
	} {
		t.Run(test.sentence, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			err := tell(t.Context(), &out, func(client *midas.Client) http.Handler {
				s := newShop(client, slog.New(slog.DiscardHandler))
				mux := http.NewServeMux()
				mux.Handle("/", s.handler(deliveryPath))
				test.sabotage(s, mux)
				return mux
			})
			require.Error(t, err)
			require.Contains(t, out.String()+err.Error(), test.says)
		})
	}
}

func TestReplayPrintsTencentsDocumentedCallback(t *testing.T) {
	t.Parallel()
	var out, errOut bytes.Buffer
	code := run([]string{"-replay", "../../testdata/documented-callback.url", "-key", "Lf6AtMEB1QlE8BYS", "-path", "/pay/mt.php"}, &out, &errOut)
	require.Equal(t, 0, code, errOut.String())
	require.Equal(t, `verified: signed for /pay/mt.php with this key

OpenID       "F11669C63D76BAB0BC2F6CC869B19E53"
BillNo       "-APPDJSX18246-20140401-1206311492"
Token        "5056117C0597793C38C4F1D29F884C5E25887"
ZoneID       "1"
Item         "G1", 2 for 20 Q-points (2.00 yuan) each
Charged      32 Q-points (3.20 yuan), a discount on 40 Q-points (4.00 yuan)
Metadata     "customkey"
PayMethod    "qdqb"
Platform     "qq"
Time         2014-04-01T04:06:31Z
ProvideType  5
`, out.String())
}

func TestReplayReadsALineOfAnAccessLog(t *testing.T) {
	t.Parallel()
	recorded, err := os.ReadFile("../../testdata/documented-callback.url")
	require.NoError(t, err)
	_, query, _ := strings.Cut(strings.TrimSpace(string(recorded)), "?")
	for _, request := range []string{`"GET /pay/mt.php?` + query + ` HTTP/1.1"`, `"/pay/mt.php?` + query + `"`} {
		file := filepath.Join(t.TempDir(), "access.log")
		line := `203.0.113.7 - - [01/Apr/2014:12:06:31 +0800] ` + request + ` 200 20 "-" "a?b"` + "\n"
		require.NoError(t, os.WriteFile(file, []byte(line), 0o600))
		var out, errOut bytes.Buffer
		require.Equal(t, 0, run([]string{"-replay", file, "-key", "Lf6AtMEB1QlE8BYS"}, &out, &errOut), errOut.String())
		require.Contains(t, out.String(), "-APPDJSX18246-20140401-1206311492")
	}
}

func TestReplaySaysWhyNotAndNeverPrintsTheKey(t *testing.T) {
	t.Parallel()
	recorded, err := os.ReadFile("../../testdata/documented-callback.url")
	require.NoError(t, err)
	const key = "Lf6AtMEB1QlE8BYS"
	for _, test := range []struct {
		name    string
		content string
		args    []string
		code    int
		says    string
	}{
		{"another key", string(recorded), []string{"-key", "WRONG" + key}, 1, "signature not verified"},
		{"a key with its &", string(recorded), []string{"-key", key + "&"}, 1, `leave the "&" out`},
		{"no key", string(recorded), nil, 1, "AppKey: empty"},
		{"another path", string(recorded), []string{"-key", key, "-path", "/pay/mt.php/"}, 1, "signature not verified"},
		{"another app", string(recorded), []string{"-key", key, "-app-id", "1450000000"}, 1, "parameter appid"},
		{"a changed amount", strings.Replace(string(recorded), "amt=320", "amt=321", 1), []string{"-key", key}, 1, "signature not verified"},
		{"no query", "https://game.example/pay/mt.php\n", []string{"-key", key}, 1, "no URL with a query"},
		{"no path", "?a=b", []string{"-key", key}, 1, "-path"},
		{"a key without -replay's file", "", []string{"-replay", "", "-key", key}, 2, "belong to -replay"},
		{"an unknown flag", "", []string{"-secret=" + key}, 2, "flag provided but not defined"},
		{"a key as an argument", "", []string{key}, 2, "not understood"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "callback.url")
			require.NoError(t, os.WriteFile(file, []byte(test.content), 0o600))
			var out, errOut bytes.Buffer
			require.Equal(t, test.code, run(append([]string{"-replay", file}, test.args...), &out, &errOut))
			require.Contains(t, errOut.String(), test.says)
			require.Empty(t, out.String())
			require.NotContains(t, errOut.String(), key)
		})
	}
	t.Run("a file that is not there", func(t *testing.T) {
		t.Parallel()
		var errOut bytes.Buffer
		require.Equal(t, 1, run([]string{"-replay", filepath.Join(t.TempDir(), "nothing"), "-key", key}, io.Discard, &errOut))
		require.Contains(t, errOut.String(), "no such file")
	})
}
