package main

import (
	"bufio"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/midas-go/midas/cmd/midas/internal/explain"
	"github.com/stretchr/testify/require"
)

func TestEveryValueOnThePagesIsEscaped(t *testing.T) {
	t.Parallel()
	const markup = `"'><script>alert(1)</script><img src=x onerror=alert(1)>{{.}}`
	var mode atomic.Value
	mode.Store("markup")
	base := serve(t, rawBackend(t, &mode).URL+"/pay/notify")
	params := rawOrder()
	for _, name := range []string{"openid", "openkey", "pfkey", "pf", "zoneid", "goodsurl", "app_metadata"} {
		params[name] = markup
	}
	params["payitem"], params["goodsmeta"], params["extra"] = `<b>id</b>*0.1*1`, markup+"*"+markup, markup
	token, urlParams := place(t, base, params)
	post(t, base+"/api/orders/"+token+"/pay", `{"method":"<i>qq</i>"}`)
	params["payitem"], params[`<u>name</u>`] = markup, markup // refused, and shown all the same
	call(t, "GET", rawOrderURL(base, params, markup), "", map[string]string{"Cookie": `session_id=<s>x</s>; session_type=<s>y</s>`})
	call(t, "GET", base+"/mpay/buy_goods_m?<b>raw</b>&payitem=<b>", "", nil)

	_, dashboard := call(t, "GET", base+"/", "", nil)
	_, cashier := call(t, "GET", base+urlParams, "", nil)
	start := regexp.MustCompile(`data-last="([A-Z0-9]+)-4"`).FindStringSubmatch(dashboard)
	require.NotNil(t, start)
	live := nextEvents(t, openEvents(t, base+"/events?after="+start[1]+"-0", ""), 4)
	for name, page := range map[string]string{"dashboard": dashboard, "cashier": cashier, "live": live} {
		require.Contains(t, page, "&lt;script&gt;alert(1)", name)
		for _, tag := range []string{"<script>", "<img src=x", "<b>id", "<i>qq", "<u>", "<s>", "<b>raw", `"'>`} {
			require.NotContains(t, page, tag, name)
		}
	}
	require.Contains(t, dashboard, "&lt;/pre&gt;&lt;script&gt;alert(1)&lt;/script&gt;<mark>BOM</mark>")
	require.NotContains(t, dashboard, "OPENKEY-SECRET")
}

func TestEventsArriveAsTheyHappenAndGoOnAfterAReconnect(t *testing.T) {
	t.Parallel()
	base := serve(t, "")
	events := openEvents(t, base+"/events", "")
	token, _ := place(t, base, rawOrder())
	require.Contains(t, nextEvents(t, events, 1), `<article class="order" data-token="`+token+`">`)
	post(t, base+"/api/orders/"+token+"/pay", "")
	require.Contains(t, nextEvents(t, events, 1), `data-action="pay"`)
	post(t, base+"/api/orders/"+token+"/cancel", "")
	require.Contains(t, nextEvents(t, events, 1), `The player left the cashier.`)

	// What a browser does: first it has the number from the page, later from the stream.
	_, dashboard := call(t, "GET", base+"/", "", nil)
	last := regexp.MustCompile(`data-last="([A-Z0-9]+)-3"`).FindStringSubmatch(dashboard)
	require.NotNil(t, last)
	again := openEvents(t, base+"/events?after="+last[1]+"-0", last[1]+"-2")
	for again.Scan() && !strings.HasPrefix(again.Text(), "id: ") { // past what says that the stream is alive
	}
	require.Equal(t, "id: "+last[1]+"-3", again.Text())

	// One that knows no number is told nothing of what was before.
	fresh := openEvents(t, base+"/events", "")
	require.True(t, fresh.Scan())
	require.Equal(t, ":", fresh.Text())
	post(t, base+"/api/orders/"+token+"/cancel", "")
	for fresh.Scan() && !strings.HasPrefix(fresh.Text(), "id: ") {
	}
	require.Equal(t, "id: "+last[1]+"-4", fresh.Text())

	restarted := serve(t, "") // the numbers begin anew
	place(t, restarted, rawOrder())
	for _, events := range []*bufio.Scanner{openEvents(t, restarted+"/events?after="+last[1]+"-3", ""), openEvents(t, restarted+"/events", last[1]+"-3")} {
		require.True(t, events.Scan())
		require.Equal(t, "event: reload", events.Text())
	}
}

func TestPagesSpeakTheBrowsersLanguageAndAllowNoForeignCode(t *testing.T) {
	t.Parallel()
	base := serve(t, "")
	for accept, want := range map[string]string{
		"": "Midas sandbox", "en-GB,en;q=0.9,zh;q=0.8": "Midas sandbox", "zh-CN,zh;q=0.9,en;q=0.8": "米大师沙箱", "fr, zh-TW": "米大师沙箱", "de": "Midas sandbox",
	} {
		_, page := call(t, "GET", base+"/", "", map[string]string{"Accept-Language": accept})
		require.Contains(t, page, "<title>"+want+"</title>", accept)
	}
	resp, err := http.Get(base + "/")
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
		resp.Header.Get("Content-Security-Policy"))
	require.Equal(t, "nosniff", resp.Header.Get("X-Content-Type-Options"))
	total := 0
	for _, file := range []string{"style.css", "sandbox.js", "icon.svg"} {
		status, text := call(t, "GET", base+"/pages/"+file, "", nil)
		require.Equal(t, http.StatusOK, status)
		require.NotRegexp(t, `https?://[^w]`, text, "a foreign asset") // w: the namespace of SVG
		total += len(text)
	}
	require.Less(t, total, 12<<10, "a few kilobytes")
	status, _ := call(t, "GET", base+"/pages/cashier.html", "", nil)
	require.Equal(t, http.StatusNotFound, status)
}

func TestTheDashboardShowsWhatADeveloperLooksFor(t *testing.T) {
	t.Parallel()
	base := serve(t, "", func(s *sandbox) {
		s.now = func() time.Time { return time.Date(2018, 2, 8, 17, 25, 37, 0, time.UTC) }
	})
	first, _ := place(t, base, rawOrder())
	second, _ := place(t, base, rawOrder())
	call(t, "GET", rawOrderURL(base, map[string]string{"openid": "1", "openkey": "1", "appid": rawAppID, "ts": "1", "pf": "1", "pfkey": "1", "zoneid": "1", "payitem": "1", "goodsmeta": "1"}, "x"), "", rawCookies)
	_, dashboard := call(t, "GET", base+"/", "", nil)
	require.Contains(t, dashboard, "<time>17:25:37</time>")
	require.Contains(t, dashboard, "<tr><th>session_type<td>kp_actoken")
	require.Contains(t, dashboard, "<pre>GET&amp;%2Fv3%2Fr%2Fmpay%2Fbuy_goods_m&amp;appid%3D"+rawAppID+"%26goodsmeta%3D1%26openid%3D1%26openkey%3D%5Bmasked%5D%26")
	newest, older := strings.Index(dashboard, `data-token="`+second+`"`), strings.Index(dashboard, `data-token="`+first+`"`)
	require.Positive(t, newest)
	require.Less(t, newest, older)
}

func TestTheCashierBeginsWithTheLoginsOwnPayMethod(t *testing.T) {
	t.Parallel()
	base := serve(t, "")
	right := rawSign(rawAppKey, "/v3/r/mpay/buy_goods_m", rawOrder(), func(v string) string { return v })
	for session, want := range map[string]string{"session_id=openid; session_type=kp_actoken": "qqwallet", "session_id=hy_gameid; session_type=wc_actoken": "wechat"} {
		call(t, "GET", rawOrderURL(base, rawOrder(), right), "", map[string]string{"Cookie": session + "; org_loc=%2Fv3%2Fr%2Fmpay%2Fbuy_goods_m"})
		exchanges := exchangesOf(t, base)
		_, cashier := call(t, "GET", base+cashierPath(rawAppID, exchanges[len(exchanges)-1].Token), "", nil)
		require.Equal(t, []string{`value="` + want + `" checked`}, regexp.MustCompile(`value="\w+" checked`).FindAllString(cashier, -1))
	}
}

// Each button of the pages, pressed as their script does.
func TestEachButtonDoesWhatItSays(t *testing.T) {
	t.Parallel()
	var mode atomic.Value
	base := serve(t, rawBackend(t, &mode).URL+"/pay/notify")
	params := rawOrder()
	params["payitem"] = "sword*60*1"
	token, urlParams := place(t, base, params)
	_, dashboard := call(t, "GET", base+"/", "", nil)
	_, cashier := call(t, "GET", base+urlParams, "", nil)
	var got []string
	for _, button := range regexp.MustCompile(`<button[^>]* data-post="([^"]*)"(?: data-body='([^']*)')?`).FindAllStringSubmatch(dashboard+cashier, -1) {
		path, body := button[1], button[2]
		if path == "/api/next" { // its fields are the form's
			body = `{"ret":1018}`
		}
		before := len(exchangesOf(t, base))
		status, _ := call(t, "POST", base+path, body, nil)
		require.Less(t, status, 300, path)
		line := strings.TrimPrefix(path, "/api/orders/"+token)
		for _, e := range exchangesOf(t, base)[before:] {
			line += fmt.Sprintf(" %s %s ok=%t", e.Kind, explain.Value(e.Params, "amt"), e.OK)
		}
		got = append(got, line)
	}
	require.Equal(t, []string{
		"/api/next",
		"/pay callback 600 ok=true",
		"/pay callback 600 ok=true callback 600 ok=true",
		"/pay callback 570 ok=true",
		"/repeat callback 570 ok=true",
		"/forge callback 600 ok=true",
		"/expire callback 600 ok=true",
		"/pay callback 600 ok=true",
		"/pay callback 570 ok=true",
		"/cancel cancel  ok=true",
	}, got)
}
