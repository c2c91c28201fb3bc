package minigametest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/minigame"
	"github.com/stretchr/testify/require"
)

func TestOrdersThatAClientWouldRefuse(t *testing.T) {
	t.Parallel()
	for _, program := range []bool{false, true} {
		for _, test := range []struct {
			sentence      string
			game, program int
			change        func(*Server, *minigame.Order)
		}{
			{"signData that is an object", -15011, -15016, func(_ *Server, o *minigame.Order) { o.SignData = "[object Object]" }},
			{"another paySig", -15014, -15006, func(_ *Server, o *minigame.Order) { o.PaySig = o.Signature }},
			{"another signature", -15012, -15005, func(_ *Server, o *minigame.Order) { o.Signature = o.PaySig }},
			{"signData that the client wrote anew", -15014, -15006, func(_ *Server, o *minigame.Order) { o.SignData += " " }},
			{"an expired session", -15015, -15007, func(s *Server, _ *minigame.Order) { s.ExpireSession("p") }},
			{"another price", -15016, -15013, func(s *Server, _ *minigame.Order) { s.Publish("sword", 1) }},
			{"an item that is not published", 3017, -15010, func(s *Server, _ *minigame.Order) { s.products = nil }},
			{"an order that was used", -15003, -15002, func(s *Server, o *minigame.Order) {
				_, _ = s.Pay(context.Background(), "p", o)
			}},
		} {
			t.Run(fmt.Sprintf("%s, mini program %v", test.sentence, program), func(t *testing.T) {
				t.Parallel()
				s := NewServer(Config{MiniProgram: program, Errorf: t.Errorf})
				defer s.Close()
				s.Publish("sword", 100)
				client := newAccount(t, s)
				session, err := client.Code2Session(t.Context(), s.Login("p"))
				require.NoError(t, err)
				order, err := client.NewOrder(minigame.OrderRequest{SessionKey: session.SessionKey, ProductID: "sword", Quantity: 1, Price: 100})
				require.NoError(t, err)
				test.change(s, order)
				_, err = s.Pay(t.Context(), "p", order)
				var refused *ClientError
				require.ErrorAs(t, err, &refused)
				want := test.game
				if program {
					want = test.program
				}
				require.Equal(t, want, refused.Code, err.Error())
			})
		}
	}
}

// TestCallsThatWeChatWouldRefuse sends calls with the mistakes of minigame.md 7.
func TestCallsThatWeChatWouldRefuse(t *testing.T) {
	t.Parallel()
	for sentence, test := range map[string]struct {
		change func(query map[string]string, body *string)
		method string
		path   string
		code   int
	}{
		"nothing wrong": {code: 0},
		"the key with & behind it": {change: func(q map[string]string, b *string) {
			q["pay_sig"] = hexMAC("minigametest-live-key&", "/wxa/game/getbalance&"+*b)
		}, code: 90011},
		"the uri without its slash": {change: func(q map[string]string, b *string) {
			q["pay_sig"] = hexMAC("minigametest-live-key", "wxa/game/getbalance&"+*b)
		}, code: 90011},
		"the English name": {change: func(q map[string]string, b *string) {
			q["pay_sig"] = hexMAC("minigametest-live-key", "pay_v2.getBalance&"+*b)
		}, code: 90011},
		"the sandbox key": {change: func(q map[string]string, b *string) {
			q["pay_sig"] = hexMAC("minigametest-sandbox-key", "/wxa/game/getbalance&"+*b)
		}, code: 90011},
		"upper case":                          {change: func(q map[string]string, _ *string) { q["pay_sig"] = strings.ToUpper(q["pay_sig"]) }, code: 90011},
		"a body that was written anew":        {change: func(_ map[string]string, b *string) { *b += " " }, code: 90011},
		"another session_key":                 {change: func(q map[string]string, b *string) { q["signature"] = hexMAC("other", *b) }, code: 90010},
		"no sig_method":                       {change: func(q map[string]string, _ *string) { delete(q, "sig_method") }, code: 90018},
		"another token":                       {change: func(q map[string]string, _ *string) { q["access_token"] = "x" }, code: 40001},
		"a field nobody knows":                {change: func(_ map[string]string, b *string) { *b = strings.Replace(*b, "{", `{"remake":"",`, 1) }, code: 47001},
		"no user_ip":                          {change: func(_ map[string]string, b *string) { *b = strings.Replace(*b, "203.0.113.7", "", 1) }, code: 90018},
		"another offer id":                    {change: func(_ map[string]string, b *string) { *b = strings.Replace(*b, "1450000000", "1", 1) }, code: 90018},
		"GET":                                 {method: http.MethodGet, code: 43002},
		"a call of the other product":         {path: "/xpay/query_order", code: 48001},
		"a call nobody knows":                 {path: "/wxa/game/nothing", code: 48001},
		"stable_token with a wrong secret":    {path: "/cgi-bin/stable_token", code: 40013},
		"code2Session with a wrong appid":     {path: "/sns/jscode2session", code: 40013},
		"checksession without its sig_method": {path: "/wxa/checksession", change: func(q map[string]string, _ *string) { delete(q, "sig_method") }, code: -1},
	} {
		t.Run(sentence, func(t *testing.T) {
			t.Parallel()
			complaints := 0
			s := NewServer(Config{Errorf: func(string, ...any) { complaints++ }})
			defer s.Close()
			s.sessions["p"] = "the-session"
			body := `{"openid":"p","offer_id":"1450000000","ts":1,"zone_id":"1","env":0,"user_ip":"203.0.113.7"}`
			query := map[string]string{
				"access_token": s.token, "sig_method": "hmac_sha256",
				"pay_sig": hexMAC("minigametest-live-key", "/wxa/game/getbalance&"+body), "signature": hexMAC("the-session", body),
			}
			if test.change != nil {
				test.change(query, &body)
			}
			path, method := "/wxa/game/getbalance", http.MethodPost
			if test.path != "" {
				path = test.path
			}
			if test.method != "" {
				method = test.method
			}
			req, err := http.NewRequestWithContext(t.Context(), method, s.http.URL+path, strings.NewReader(body))
			require.NoError(t, err)
			values := req.URL.Query()
			for name, value := range query {
				values.Set(name, value)
			}
			req.URL.RawQuery = values.Encode()
			resp, err := http.DefaultTransport.RoundTrip(req)
			require.NoError(t, err)
			defer resp.Body.Close()
			var answer struct{ ErrCode int }
			require.NoError(t, json.NewDecoder(resp.Body).Decode(&answer))
			require.Equal(t, test.code, answer.ErrCode)
			byMistake := test.code != 0 && test.code != 40001 && test.code != 90010 // these happen to careful callers too
			require.Equal(t, byMistake, complaints > 0)
		})
	}
}

func TestAnswersThatWeChatWouldNotTake(t *testing.T) {
	t.Parallel()
	answering := func(status int, body string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			w.WriteHeader(status)
			io.WriteString(w, body)
		})
	}
	for _, test := range []struct {
		body           string
		status         int
		xml            bool
		game, program_ bool
	}{
		{`{"ErrCode":0,"ErrMsg":"Success"}`, 200, false, true, true},
		{`{"ErrCode":0}`, 200, false, true, true},
		{`<xml><ErrCode>0</ErrCode></xml>`, 200, true, true, true},
		{`success`, 200, false, false, true},
		{``, 200, false, false, true},
		{`{"errcode":0}`, 200, false, false, false},
		{`{"ErrCode":"0"}`, 200, false, false, false},
		{`{"ErrCode":99999}`, 200, false, false, false},
		{`{"ErrCode":0}`, 500, false, false, false},
		{`{"ErrCode":0}`, 200, true, false, false},
		{" { \"ErrCode\" : 0 } \r\n", 200, false, true, true},
		{`{"ErrCode":0,"ErrMsg":"Success"}<html>oops`, 200, false, false, false},
		{`{"ErrCode":0}{"ErrCode":0}`, 200, false, false, false},
		{`{"ErrCode":0}}`, 200, false, false, false},
		{`{}`, 200, false, false, false},
		{"<xml><ErrCode>0</ErrCode></xml>\n", 200, true, true, true},
		{`<xml><ErrCode>0</ErrCode></xml><html>oops`, 200, true, false, false},
		{`<xml><ErrCode>0</ErrCode></xml>oops`, 200, true, false, false},
	} {
		for _, program := range []bool{false, true} {
			s := NewServer(Config{MiniProgram: program, XML: test.xml})
			s.PushToHandler(answering(test.status, test.body), "/push")
			message := `{"Event":"x"}`
			if test.xml {
				message = `<xml><Event>x</Event></xml>`
			}
			receipt, err := s.Push(t.Context(), message)
			require.NoError(t, err)
			want := test.game
			if program {
				want = test.program_
			}
			require.Equal(t, want, receipt.Accepted, "%s, mini program %v: %s", test.body, program, receipt.Reason)
			s.Close()
		}
	}
}

func TestPushesOverASocket(t *testing.T) {
	t.Parallel()
	s := NewServer(Config{Errorf: t.Errorf})
	defer s.Close()
	client, err := minigame.NewGame(s.GameConfig())
	require.NoError(t, err)
	game := httptest.NewServer(client.PushHandler(minigame.GameHandlers{}))
	s.PushTo(game.URL + "/push")
	require.NoError(t, s.Verify(t.Context()))
	receipt, err := s.Mock(t.Context())
	require.NoError(t, err)
	require.True(t, receipt.Accepted, receipt.Reason)

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = s.Mock(ended)
	require.Equal(t, context.Canceled, err)
	game.Close()
	receipt, err = s.Mock(t.Context())
	require.NoError(t, err)
	require.False(t, receipt.Accepted)
	require.Error(t, s.Verify(t.Context()))
	s.PushToHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, r.URL.Query().Get("echostr")+"\n")
	}), "/push")
	require.ErrorContains(t, s.Verify(t.Context()), "in place of the echostr")
}

func TestOrdersNobodyPaid(t *testing.T) {
	t.Parallel()
	s := NewServer(Config{})
	defer s.Close()
	_, err := s.Refund(t.Context(), minigame.Live, "never")
	require.Error(t, err)
	_, err = s.Repeat(t.Context(), minigame.Live, "never")
	require.Error(t, err)
	_, waiting := s.NextPush()
	require.False(t, waiting)
}

func TestMiniProgramsRepeatAtDoublingIntervals(t *testing.T) {
	t.Parallel()
	now := time.Unix(1700000000, 0)
	s := NewServer(Config{MiniProgram: true, Now: func() time.Time { return now }})
	defer s.Close()
	tries := 0
	s.PushToHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { tries++; w.WriteHeader(500) }), "/push")
	s.Publish("sword", 100*midas.Fen)
	_, err := s.BuyInShop(t.Context(), "p", "sword", 1)
	require.NoError(t, err)
	var waits []time.Duration
	for due, waiting := s.NextPush(); waiting; due, waiting = s.NextPush() {
		waits = append(waits, due.Sub(now))
		now = due
		_, err := s.PushDue(t.Context())
		require.NoError(t, err)
	}
	require.Equal(t, []time.Duration{2 * time.Second, 4 * time.Second, 8 * time.Second}, waits[:3])
	require.Equal(t, 16, tries)
}

func TestEveryFaultIsPlayed(t *testing.T) {
	t.Parallel()
	s := NewServer(Config{})
	defer s.Close()
	get := func() (int, string, error) {
		resp, err := http.DefaultTransport.RoundTrip(httptest.NewRequestWithContext(t.Context(), http.MethodGet, s.http.URL+"/x", nil))
		if err != nil {
			return 0, "", err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		return resp.StatusCode, string(bytes.TrimSpace(body)), err
	}
	s.NextCalls("/x", Fault{Cut: true}, Fault{Done: true, Code: -1}, Fault{Code: -1}, Fault{Status: 502}, Fault{HTML: true}, Fault{Status: 302},
		Fault{Done: true, Body: "{"}, Fault{Body: strings.Repeat(" ", 2<<20)}, Fault{Code: 90018, Msg: "[x] x is invalid", Delay: 1})
	type answer struct {
		status  int
		body    string
		refused bool
	}
	var seen []answer
	for range 9 {
		status, body, err := get()
		seen = append(seen, answer{status, body, err != nil})
	}
	require.Equal(t, 9, s.Calls("/x"))
	busy := answer{200, `{"errcode":-1,"errmsg":"system error rid: 69ddee24-00000000-00000000"}`, false}
	page := "<html>/x</html>"
	require.Equal(t, []answer{
		{200, `{"errcode":40001,"errmsg":"invalid credential, access_token`, true}, busy, busy, {502, page, false}, {200, page, false}, {302, page, false}, {200, "{", false}, {200, "", false},
		{200, `{"errcode":90018,"errmsg":"[x] x is invalid rid: 69ddee24-00000000-00000000"}`, false},
	}, seen)

	s.NextCalls("/x", Fault{Delay: time.Hour})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := http.DefaultTransport.RoundTrip(httptest.NewRequestWithContext(ctx, http.MethodGet, s.http.URL+"/x", nil))
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

// The URL or path of pushes is the console's.
func TestPushesGoToTheirPath(t *testing.T) {
	t.Parallel()
	s := NewServer(Config{})
	defer s.Close()
	var path string
	s.PushToHandler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { path = r.URL.Path }), "/wx/push")
	_, err := s.Push(t.Context(), `{"Event":"x"}`)
	require.NoError(t, err)
	require.Equal(t, "/wx/push", path)
	require.Panics(t, func() { s.PushToHandler(http.NotFoundHandler(), "push") })
	for _, wrong := range []string{"/push", "game.example/push", "http://game.example", "http://game.example/push?x=1", "http://game.example:x/push", "gopher://127.0.0.1/push"} {
		require.Panics(t, func() { s.PushTo(wrong) }, wrong)
	}
}

// WeChat's words, as far as they are known (field log, D13 and D17).
func TestRefusalsHaveWeChatsWords(t *testing.T) {
	t.Parallel()
	var complaints []string
	s := NewServer(Config{MiniProgram: true, Errorf: func(format string, args ...any) { complaints = append(complaints, fmt.Sprintf(format, args...)) }})
	defer s.Close()
	s.Publish("sword", 100)
	program := newAccount(t, s).(*minigame.Program)
	session, err := program.Code2Session(t.Context(), s.Login("p"))
	require.NoError(t, err)
	player := minigame.CallPlayer{OpenID: "p", SessionKey: "an older one", IP: "203.0.113.7"}
	_, err = program.TokenBalance(t.Context(), player, minigame.Live)
	require.ErrorIs(t, err, minigame.ErrLoginExpired)
	require.ErrorContains(t, err, "用户态签名(signature)校验失败")
	wrong := s.ProgramConfig()
	wrong.AppKey = "another-key"
	other, err := minigame.NewProgram(wrong)
	require.NoError(t, err)
	_, err = other.TokenBalance(t.Context(), player, minigame.Live)
	require.ErrorIs(t, err, minigame.ErrSignature)
	require.NotErrorIs(t, err, minigame.ErrLoginExpired)

	order := func(change func(o *minigame.Order)) string {
		o, err := program.NewOrder(minigame.OrderRequest{SessionKey: session.SessionKey, ProductID: "sword", Quantity: 1, Price: 100})
		require.NoError(t, err)
		change(o)
		_, err = s.Pay(t.Context(), "p", o)
		require.Error(t, err)
		return err.Error()
	}
	require.Equal(t, "client error -15016: signData: OfferID is a number", order(func(o *minigame.Order) {
		o.SignData = strings.Replace(o.SignData, `"offerId":"1450000000"`, `"offerId":1450000000`, 1)
	}))
	complaints = nil
	require.Equal(t, "client error -15005: SIGNATURE_INVALID", order(func(o *minigame.Order) { o.Signature = strings.ToUpper(o.Signature) }))
	require.Equal(t, "client error -15006: PAY_SIG_INVALID", order(func(o *minigame.Order) { o.PaySig = strings.ToUpper(o.PaySig) }))
	require.Equal(t, []string{"minigametest: requestVirtualPayment: signature is in upper case", "minigametest: requestVirtualPayment: paySig is in upper case"}, complaints)
}
