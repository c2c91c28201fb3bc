package midas_test

import (
	"bytes"
	"encoding/base64"
	"encoding/gob"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/midas-go/midas"
	"github.com/stretchr/testify/require"
)

const (
	openKeyInTest = `1111806DC5+1C52/50CF<405E>"42222&`
	pfKeyInTest   = "1B59A5C3D77C7C56D7AFC3E2C823105D"
)

// placeAnsweredBy places an order that is answered with a status and a body.
func placeAnsweredBy(t testing.TB, status int, contentType, body string, change func(*midas.OrderRequest)) error {
	answers := roundTripper(func(r *http.Request) (*http.Response, error) {
		return &http.Response{
			StatusCode: status, ProtoMajor: 1, Header: http.Header{"Content-Type": {contentType}},
			Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)), Request: r,
		}, nil
	})
	c, err := midas.New(midas.Config{AppID: testAppID, AppKey: testAppKey, MaxRetries: -1, HTTPClient: &http.Client{Transport: answers}})
	require.NoError(t, err)
	req := goldenOrder()
	change(&req)
	_, err = c.CreateOrder(t.Context(), req)
	return err
}

func TestOfABodyThatIsNoAnswerOnlyItsOutsideIsShown(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		what, contentType, body string
		status                  int
		want                    string
	}{
		{"a proxy's page", "text/html; charset=utf-8", "<p>/mpay/buy_goods_m?openkey=SECRET</p>", 502, "(HTTP status 502, text/html, 39 bytes): want status 200"},
		{"a page with status 200", "text/html", "<p>SECRET</p>", 200, "(HTTP status 200, text/html, 13 bytes): it is not JSON"},
		{"half an answer", "application/json", `{"ret":0,"token":"SECRET`, 200, "(HTTP status 200, application/json, 24 bytes): it is not the JSON of an answer"},
		{"nothing", "", "", 200, "(HTTP status 200, 0 bytes): it is empty"},
		{"an odd content type", "SECRET=1", "x", 500, "(HTTP status 500, 1 bytes): want status 200"},
		{"a redirect", "text/plain", "SECRET", 302, "(HTTP status 302, text/plain, 6 bytes): redirects are not followed"},
		{"over 64 KiB", "text/json", `{"msg":"` + strings.Repeat("SECRET", 1<<16) + `"}`, 200, "(HTTP status 200, text/json, 393226 bytes): over 64 KiB"},
	} {
		t.Run(test.what, func(t *testing.T) {
			t.Parallel()
			err := placeAnsweredBy(t, test.status, test.contentType, test.body, func(*midas.OrderRequest) {})
			var unusable *midas.ResponseError
			require.ErrorAs(t, err, &unusable)
			require.Equal(t, test.status, unusable.StatusCode)
			require.ErrorContains(t, err, test.want)
			require.NotContains(t, err.Error(), "SECRET")
		})
	}
}

// Whatever an answer holds, and in whatever notation: no 8 bytes of a credential, and no
// encoded credential, are in the part of the error that comes from outside.
func FuzzNoPieceOfACredentialShows(f *testing.F) {
	encoders := []func(string) string{
		func(s string) string { return s }, url.QueryEscape, url.PathEscape, html.EscapeString,
		func(s string) string { text, _ := json.Marshal(s); return string(text[1 : len(text)-1]) },
		func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) },
		func(s string) string { return hex.EncodeToString([]byte(s)) },
	}
	for i := range encoders {
		f.Add("请求参数错误(", openKeyInTest, pfKeyInTest, ")", uint8(i), true)
		f.Add("<p>", "&amp;&amp;&amp;&amp;", "++++++++", "</p>", uint8(i), false)
		f.Add(strings.Repeat("x", 250), `\u0041\u0042`, "%41%42%43", "", uint8(i), true)
		f.Add("0", "0 0 0 0 0 0 0 0 0", "0", "0", uint8(i), true)
		f.Add("0", "0000000\r1000000\n", "0", "0", uint8(i), true)
	}
	f.Fuzz(func(t *testing.T, before, openKey, pfKey, after string, encoder uint8, inMsg bool) {
		encode := encoders[int(encoder)%len(encoders)]
		body := before + encode(openKey) + encode(pfKey) + after
		if inMsg {
			body = `{"ret":1001,"msg":` + string(must(json.Marshal(body))) + `,"err_code":` + string(must(json.Marshal(encode(pfKey)))) + `}`
		}
		err := placeAnsweredBy(t, 200, "text/html", body, func(req *midas.OrderRequest) { req.Player.OpenKey, req.Player.PFKey = openKey, pfKey })
		var refused *midas.Error
		if !errors.As(err, &refused) {
			return // nothing foreign is shown then
		}
		for _, shown := range []string{refused.Msg, refused.Code} {
			if shown == "[withheld]" {
				continue
			}
			for _, secret := range []string{openKey, pfKey} {
				if len(secret) < 8 {
					continue
				}
				for i := 0; i+8 <= len(secret); i++ {
					require.NotContains(t, shown, secret[i:i+8])
				}
				if len(secret) >= 2*8 { // a shorter one may melt into what stands beside it: a "%" before "41"
					require.NotContains(t, shown, encode(secret))
				}
			}
		}
	})
}

func must(text []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return text
}

func TestYAMLAndGobShowNoSecret(t *testing.T) {
	t.Parallel()
	client, err := midas.New(secretConfig())
	require.NoError(t, err)
	for what, v := range map[string]any{"Config": secretConfig(), "OrderRequest": secretOrder(), "Player": secretOrder().Player, "Call": secretCall(), "Client": client} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			shown, err := v.(interface{ MarshalYAML() (any, error) }).MarshalYAML() // what the YAML packages call
			require.NoError(t, err)
			for _, text := range []string{fmt.Sprintf("%+v", shown), fmt.Sprintf("%#v", shown)} {
				require.NotContains(t, text, "SECRET")
			}
			var buf bytes.Buffer
			require.Error(t, gob.NewEncoder(&buf).Encode(v))
			require.NotContains(t, buf.String(), "SECRET")
		})
	}
}

// After anything but an answer of Midas's the connection is given up: net/http logs what
// else comes on an idle one, and proxies repeat the URL there.
func TestAConnectionIsUsedAgainOnlyAfterACleanAnswer(t *testing.T) {
	const good = `{"ret":0,"token":"T","url_params":"/v1?t"}`
	answer := func(status, body string, more ...string) string {
		return "HTTP/1.1 " + status + "\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n" + body + strings.Join(more, "")
	}
	for _, test := range []struct {
		what, answer string
		connections  int // for this answer and a good one after it
	}{
		{"a good answer", answer("200 OK", good), 1},
		{"a refusal", answer("200 OK", `{"ret":1001,"msg":"sig error"}`), 1},
		{"an error page", answer("502 Bad Gateway", "page"), 2},
		{"an error without a page", answer("502 Bad Gateway", ""), 2},
		{"a page with status 200", answer("200 OK", "<p>"), 2},
		{"broken JSON", answer("200 OK", `{"ret":`), 2},
		{"more than was announced", answer("502 Bad Gateway", "page", "GET /mpay/buy_goods_m?openkey=SECRET"), 2},
		{"a page and more", answer("200 OK", "<p>", "GET /mpay/buy_goods_m?openkey=SECRET"), 2},
	} {
		t.Run(test.what, func(t *testing.T) {
			var logged bytes.Buffer // by net/http, on the standard logger
			previous := log.Writer()
			log.SetOutput(&logged)
			defer log.SetOutput(previous)
			used := connectionsFor(t, test.answer, answer("200 OK", good))
			for range 4 { // net/http does not keep every connection that it could, on a slow machine
				if used <= test.connections {
					break
				}
				used = connectionsFor(t, test.answer, answer("200 OK", good))
			}
			require.Equal(t, test.connections, used)
			require.NotContains(t, logged.String(), "SECRET")
		})
	}
}

// connectionsFor places an order for each answer, and returns how many connections the orders came on.
func connectionsFor(t *testing.T, answers ...string) int {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	c, err := midas.New(midas.Config{AppID: testAppID, AppKey: testAppKey, Gateway: midas.Sandbox().At("http://" + listener.Addr().String()), MaxRetries: -1, HTTPClient: &http.Client{Transport: new(http.Transport)}})
	require.NoError(t, err)
	orders := len(answers)
	connections := make(chan int, 1)
	go func() {
		accepted := 0
		for len(answers) > 0 {
			conn, err := listener.Accept()
			if err != nil {
				break
			}
			accepted++
			buf := make([]byte, 16<<10)
			for len(answers) > 0 {
				if _, err := conn.Read(buf); err != nil {
					break
				}
				io.WriteString(conn, answers[0])
				answers = answers[1:]
			}
			defer conn.Close()
		}
		connections <- accepted
	}()
	for range orders {
		_, err = c.CreateOrder(t.Context(), goldenOrder())
	}
	require.NoError(t, err, "of the last")
	return <-connections
}
