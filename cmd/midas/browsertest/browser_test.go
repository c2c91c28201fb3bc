// Package browsertest drives the pages of "midas sandbox" with a real Chromium, headless,
// against a real backend. It is a module of its own, so that the root module does not
// depend on a browser driver.
package browsertest

import (
	"bufio"
	"context"
	"flag"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/midas-go/midas"
	"github.com/stretchr/testify/require"
)

var screenshots = flag.String("screenshots", "", "write the screenshots to this folder, such as ../../../docs")

const (
	appID  = "1450000000"
	appKey = "browsertest-key"
)

// A shop is a backend as a game would have it.
type shop struct {
	client *midas.Client
	url    string
	sloppy atomic.Bool // it then ends its answer with a newline
}

func newShop(t *testing.T) *shop {
	s := &shop{}
	verifier, err := midas.New(midas.Config{AppID: appID, AppKey: appKey, DeliveryPath: "/pay/notify"})
	require.NoError(t, err)
	deliver := verifier.DeliveryHandler(func(context.Context, *midas.Delivery) error { return nil })
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.sloppy.Load() {
			w.Write([]byte("{\"ret\": 0, \"msg\": \"OK\"}\n"))
			return
		}
		deliver.ServeHTTP(w, r)
	}))
	t.Cleanup(backend.Close)
	s.url = backend.URL + "/pay/notify"
	return s
}

// startSandbox builds the command and starts it at addr. It returns its address and what stops it.
func startSandbox(t *testing.T, addr, callback string, flags ...string) (address string, stop func()) {
	binary := filepath.Join(t.TempDir(), "midas")
	build := exec.Command("go", "build", "-o", binary, "github.com/midas-go/midas/cmd/midas")
	out, err := build.CombinedOutput()
	require.NoError(t, err, string(out))
	cmd := exec.Command(binary, append([]string{"sandbox", "-addr", addr, "-app-id", appID, "-callback", callback}, flags...)...)
	cmd.Env = append(os.Environ(), "MIDAS_APP_KEY="+appKey, "LC_ALL=C")
	pipe, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	stdout := bufio.NewReader(pipe)
	first, err := stdout.ReadString('\n')
	require.NoError(t, err)
	var reading sync.WaitGroup
	reading.Go(func() { _, _ = io.Copy(io.Discard, stdout) }) // or a full pipe would hold it up
	stop = sync.OnceFunc(func() {
		require.NoError(t, cmd.Process.Signal(os.Interrupt))
		reading.Wait()
		require.NoError(t, cmd.Wait(), "it ends well on Ctrl-C")
	})
	t.Cleanup(stop) // after the browser's
	address = regexp.MustCompile(`http://127\.0\.0\.1:\d+`).FindString(first)
	require.NotEmpty(t, address, first)
	return address, stop
}

func request(name string) midas.OrderRequest {
	return midas.OrderRequest{
		Player:    midas.Player{Login: midas.QQ, OpenID: "o_TESTopenid", OpenKey: "test-openkey", PF: "qq_m_qq-2001-android-2011-test", PFKey: "test-pfkey"},
		Items:     []midas.Item{{ID: "sword", Price: 60 * midas.QPoint, Quantity: 1}},
		GoodsName: name, GoodsDescription: "一把好刀", Metadata: "order-1",
	}
}

func (s *shop) order(t *testing.T, name string) *midas.Order {
	order, err := s.client.CreateOrder(t.Context(), request(name))
	require.NoError(t, err)
	return order
}

// orderForTheOlderGateway places an order that is signed for the URL's path.
func orderForTheOlderGateway(t *testing.T, address string) {
	gateway := midas.Sandbox().At(address)
	gateway.SignPrefix = ""
	mistaken, err := midas.New(midas.Config{AppID: appID, AppKey: appKey, Gateway: gateway})
	require.NoError(t, err)
	_, err = mistaken.CreateOrder(t.Context(), request("倚天剑"))
	require.ErrorIs(t, err, midas.ErrSignature)
}

// newBrowser starts a browser and returns its first tab.
func newBrowser(t *testing.T, language, scheme string) context.Context {
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.NoSandbox, // containers and CI run as root
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.UserDataDir(t.TempDir()),
	)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(cancel)
	return newTab(t, ctx, language, scheme)
}

// newTab returns a tab that fails the test when a page logs an error: a script that throws,
// a file that is missing, something that the Content-Security-Policy blocks.
func newTab(t *testing.T, parent context.Context, language, scheme string) context.Context {
	tab, cancel := chromedp.NewContext(parent)
	var watching sync.WaitGroup
	t.Cleanup(func() {
		cancel()
		watching.Wait()
	})
	require.NoError(t, chromedp.Do(tab, chromedp.Func(func(_ context.Context, target *chromedp.Target) error {
		entries := cdp.Events(tab, target, log.EntryAdded)
		watching.Go(func() {
			for event, err := range entries {
				if err != nil { // the end of the tab
					return
				}
				if event.Entry.Level == log.EntryLevelError {
					t.Errorf("the page logged: %s (%s)", event.Entry.Text, event.Entry.URL)
				}
			}
		})
		thrown := cdp.Events(tab, target, runtime.ExceptionThrown)
		watching.Go(func() {
			for event, err := range thrown {
				if err != nil {
					return
				}
				t.Errorf("the page threw: %+v", event.ExceptionDetails)
			}
		})
		if _, err := cdp.Call(tab, target, log.Enable, cdp.Empty{}); err != nil {
			return err
		}
		if _, err := cdp.Call(tab, target, network.SetExtraHTTPHeaders, network.SetExtraHTTPHeadersParams{
			Headers: network.Headers{"Accept-Language": language},
		}); err != nil {
			return err
		}
		_, err := cdp.Call(tab, target, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
		})
		return err
	})))
	return tab
}

type void = chromedp.Void

// do runs steps in a tab.
func do(t *testing.T, tab context.Context, steps ...chromedp.Action[void]) {
	t.Helper()
	require.NoError(t, chromedp.Do(tab, steps...))
}

// get runs a step that has a result.
func get[T any](t *testing.T, tab context.Context, step chromedp.Action[T]) T {
	t.Helper()
	result, err := chromedp.Run(tab, step)
	require.NoError(t, err)
	return result
}

func css(selector string) chromedp.CSS { return chromedp.CSS(selector) }

// save writes a screenshot where the flag asks for it.
func save(t *testing.T, name string, png []byte) {
	require.Greater(t, len(png), 5000)
	if *screenshots != "" {
		require.Less(t, len(png), 150<<10, "%s is for the README: keep it small", name)
		require.NoError(t, os.WriteFile(filepath.Join(*screenshots, name), png, 0o644))
	}
}

// newSandbox starts the command for a shop, which then orders from it.
func newSandbox(t *testing.T, shop *shop) (address string, stop func()) {
	address, stop = startSandbox(t, "127.0.0.1:0", shop.url)
	var err error
	shop.client, err = midas.New(midas.Config{AppID: appID, AppKey: appKey, Gateway: midas.Sandbox().At(address)})
	require.NoError(t, err)
	return address, stop
}

func TestPlayerPaysAndTheDeveloperSeesIt(t *testing.T) {
	shop := newShop(t)
	address, _ := newSandbox(t, shop)

	dashboard := newBrowser(t, "en", "light")
	do(t, dashboard, chromedp.EmulateViewport(900, 900), chromedp.Navigate(address+"/"), chromedp.WaitVisible(css("#live.on")))
	require.Contains(t, get(t, dashboard, chromedp.Text(css("#none"))), "Have your backend place one")
	require.Equal(t, address, get(t, dashboard, chromedp.Text(css("#none pre"))))
	do(t, dashboard, chromedp.Evaluate[void]("window.loaded = 1"))

	// An order appears without a reload.
	order := shop.order(t, "屠龙刀")
	card := `[data-token="` + order.Token + `"] `
	do(t, dashboard, chromedp.WaitVisible(css(card)))

	// The player opens the cashier on a phone, and pays with the keyboard alone.
	phone := newTab(t, dashboard, "en", "light")
	do(t, phone, chromedp.EmulateViewport(390, 760, chromedp.EmulateMobile), chromedp.Navigate(address+order.URLParams))
	require.Equal(t, "屠龙刀", get(t, phone, chromedp.Text(css("h1"))))
	require.Equal(t, "60 Q-points 6.00 yuan", get(t, phone, chromedp.Evaluate[string]("document.querySelector('.total').innerText.split(/\\s+/).join(' ')")))
	require.True(t, get(t, phone, chromedp.Evaluate[bool]("document.documentElement.scrollWidth <= 390")), "the cashier is wider than the phone")
	do(t, phone,
		chromedp.KeyEvent(kb.Tab),   // to the pay methods
		chromedp.KeyEvent(kb.Tab),   // to Pay
		chromedp.KeyEvent(kb.Enter), // presses it
		chromedp.WaitVisible(css("[role=status].good")))
	require.Equal(t, "Paid. The backend has delivered.", get(t, phone, chromedp.Text(css("[role=status]"))))

	// The verdict appears live, with the bytes of the reply.
	require.Equal(t, "accepted", get(t, dashboard, chromedp.Text(css(card+"[data-action=pay] .verdict.good"))))
	require.Equal(t, `{"ret":0,"msg":"OK"}`, get(t, dashboard, chromedp.Text(css(card+"[data-action=pay] .bytes"))))

	// A forgery is refused by the shop.
	do(t, dashboard, chromedp.Click(css(card+`button[data-post$="/forge"]`)))
	require.Equal(t, "refused, as a forgery should be", get(t, dashboard, chromedp.Text(css(card+"[data-action=forge] .verdict.good"))))

	// An answer with a newline is refused by Midas; one can see it.
	shop.sloppy.Store(true)
	do(t, dashboard, chromedp.Click(css(card+`button[data-post$="/repeat"]`)))
	require.Contains(t, get(t, dashboard, chromedp.Text(css(card+"[data-action=repeat] .verdict.bad"))), "refused because the body ends in a newline")
	require.Equal(t, `{"ret":SP0,SP"msg":SP"OK"}LF`, get(t, dashboard, chromedp.Text(css(card+"[data-action=repeat] .bytes"))))

	// A backend that signs the URL's path is told so.
	orderForTheOlderGateway(t, address)
	require.Contains(t, get(t, dashboard, chromedp.Text(css(".order:first-child .mistakes"))), "msdk-path: it is signed for the path of the older gateways")

	require.Equal(t, 1, get(t, dashboard, chromedp.Evaluate[int]("window.loaded")), "the dashboard was reloaded")

	// The next order is refused as asked, and leaves no token.
	do(t, dashboard, chromedp.SendKeys(css("input[name=ret]"), "1018"+kb.Enter), chromedp.WaitVisible(css("main > [role=status].good")))
	_, err := shop.client.CreateOrder(t.Context(), request("axe"))
	require.ErrorIs(t, err, midas.ErrLoginExpired)
	do(t, dashboard, chromedp.WaitVisible(css(".order:nth-child(3)"))) // it has arrived
	require.Equal(t, "ret 1018, as asked for", get(t, dashboard, chromedp.Text(css(".order:first-child > .verdict.plain"))))
	require.Equal(t, "ret 1001", get(t, dashboard, chromedp.Text(css(".order:nth-child(2) > .verdict.bad code"))), "a refusal that nobody asked for")

	// The other buttons. The newest callback is the first.
	shop.sloppy.Store(false)
	press := func(button, newest, amount string) {
		t.Helper()
		do(t, dashboard, chromedp.Click(css(card+button)), chromedp.WaitVisible(css(card+newest)))
		require.Contains(t, get(t, dashboard, chromedp.Text(css(card+newest+" .head"))), amount)
	}
	press(`button[data-body*="times"]`, ".callback:first-child:nth-last-child(5)", "60 Q-points") // two more than the three
	press(`button[data-body*="percent"]`, ".callback:first-child:nth-last-child(6)", "57 Q-points · 5.70 yuan")
	press(`button[data-post$="/expire"]`, "[data-action=expire]:first-child", "60 Q-points")
	do(t, phone, chromedp.Click(css(`button[data-body*="percent"]`)), chromedp.WaitVisible(css("[role=status].good")))
	do(t, dashboard, chromedp.WaitVisible(css(card+"[data-action=pay]:first-child:nth-last-child(8)")))
	require.Contains(t, get(t, dashboard, chromedp.Text(css(card+".callback:first-child .head"))), "57 Q-points")
	do(t, phone, chromedp.Click(css(`button[data-post$="/cancel"]`)))
	do(t, dashboard, chromedp.WaitVisible(css(card+".callback:first-child:nth-last-child(9)")))
	require.Contains(t, get(t, dashboard, chromedp.Text(css(card+".callback:first-child"))), "The player left the cashier.")
	require.Equal(t, "Cancelled. Nothing was charged.", get(t, phone, chromedp.Text(css("[role=status].good"))))
}

// The pictures of the pages in docs, each in its language, and the same pages on a small phone.
func TestThePagesInEachLanguage(t *testing.T) {
	for language, c := range map[string]struct{ ending, total, paid, forged, newline, mistake string }{
		"en":    {"", "60 Q-points 6.00 yuan", "Paid. The backend has delivered.", "refused, as a forgery should be", "the body ends in a newline", "msdk-path: it is signed for the path of the older gateways"},
		"zh-CN": {".zh-CN", "60 Q点 6.00 元", "支付成功，道具已发货。", "已拒绝伪造的回调（正确）", "应答以换行结尾", "msdk-path：签名用了老网关（MSDK）的路径"},
	} {
		t.Run(language, func(t *testing.T) {
			shop := newShop(t)
			address, _ := newSandbox(t, shop)
			dashboard := newBrowser(t, language, "light")
			do(t, dashboard, chromedp.EmulateViewport(900, 900), chromedp.Navigate(address+"/"), chromedp.WaitVisible(css("#live.on")))
			order := shop.order(t, "屠龙刀")
			card := `[data-token="` + order.Token + `"] `
			do(t, dashboard, chromedp.WaitVisible(css(card)))

			phone := newTab(t, dashboard, language, "light")
			do(t, phone, chromedp.EmulateViewport(390, 760, chromedp.EmulateMobile), chromedp.Navigate(address+order.URLParams))
			require.Equal(t, c.total, get(t, phone, chromedp.Evaluate[string]("document.querySelector('.total').innerText.split(/\\s+/).join(' ')")))
			save(t, "cashier"+c.ending+".png", get(t, phone, chromedp.CaptureScreenshot()))
			do(t, phone, chromedp.Click(css("button.main")), chromedp.WaitVisible(css("[role=status].good")))
			require.Equal(t, c.paid, get(t, phone, chromedp.Text(css("[role=status]"))))

			do(t, dashboard, chromedp.Click(css(card+`button[data-post$="/forge"]`)))
			require.Equal(t, c.forged, get(t, dashboard, chromedp.Text(css(card+"[data-action=forge] .verdict.good"))))
			shop.sloppy.Store(true)
			do(t, dashboard, chromedp.Click(css(card+`button[data-post$="/repeat"]`)))
			require.Contains(t, get(t, dashboard, chromedp.Text(css(card+"[data-action=repeat] .verdict.bad"))), c.newline)
			orderForTheOlderGateway(t, address)
			require.Contains(t, get(t, dashboard, chromedp.Text(css(".order:first-child .mistakes"))), c.mistake)
			do(t, dashboard, chromedp.Evaluate[void]("scrollTo(0, 0)"))
			save(t, "dashboard"+c.ending+".png", get(t, dashboard, chromedp.CaptureScreenshot()))

			// An order of which nothing could be read has no price.
			response, err := http.Get(address + "/mpay/buy_goods_m")
			require.NoError(t, err)
			response.Body.Close()
			do(t, dashboard, chromedp.WaitVisible(css(".order:nth-child(3)")))
			require.Equal(t, 0, get(t, dashboard, chromedp.Evaluate[int]("document.querySelectorAll('.order:first-child .price').length")))

			small := newTab(t, dashboard, language, "light")
			for _, page := range []string{"/", order.URLParams} {
				do(t, small, chromedp.EmulateViewport(320, 640, chromedp.EmulateMobile), chromedp.Navigate(address+page), chromedp.WaitVisible(css("button.main")))
				require.True(t, get(t, small, chromedp.Evaluate[bool]("document.documentElement.scrollWidth <= 320")), "%s is wider than the phone", page)
				require.Empty(t, get(t, small, chromedp.Evaluate[string](`[...document.querySelectorAll('.took span, .price, button, .total b, .total span, time')]
					.filter((e) => e.getClientRects().length && lines(e) > 1).map((e) => e.innerText).join('|');
					function lines(e) { const r = document.createRange(); r.selectNodeContents(e); return new Set([...r.getClientRects()].filter((b) => b.width > 1).map((b) => Math.round(b.bottom / 12))).size; }`)), "%s: what wraps", page)
			}
		})
	}
}

func TestAnOpenDashboardShowsTheSandboxThatWasStartedAnew(t *testing.T) {
	shop := newShop(t)
	address, stop := newSandbox(t, shop)
	shop.order(t, "屠龙刀")
	tab, cancel := chromedp.NewContext(newBrowser(t, "en", "light")) // not one that minds a lost connection
	t.Cleanup(cancel)
	do(t, tab, chromedp.Navigate(address+"/"), chromedp.WaitVisible(css(".order")), chromedp.WaitVisible(css("#live.on")))
	shop.order(t, "倚天剑")
	do(t, tab, chromedp.WaitVisible(css(".order:nth-child(2)"))) // it came with a number
	stop()
	startSandbox(t, strings.TrimPrefix(address, "http://"), shop.url)
	do(t, tab, chromedp.WaitVisible(css("#none"))) // no orders yet
	shop.order(t, "axe")
	do(t, tab, chromedp.WaitVisible(css(".order:only-child")))
}

func TestMarkupInAnOrderIsText(t *testing.T) {
	shop := newShop(t)
	address, _ := newSandbox(t, shop)
	const markup = `</h1><img src=x onerror="window.hacked=1"><script>window.hacked=1</script>`
	harmless := func(tab context.Context) {
		require.Zero(t, get(t, tab, chromedp.Evaluate[int]("window.hacked || 0")))
		require.Zero(t, get(t, tab, chromedp.Evaluate[int]("document.querySelectorAll('[onerror], body script, .order img').length")))
	}

	tab := newBrowser(t, "zh-CN,zh;q=0.9", "dark")
	do(t, tab, chromedp.Navigate(address+"/"), chromedp.WaitVisible(css("#live.on")))
	require.Equal(t, "rgb(20, 23, 28)", get(t, tab, chromedp.Evaluate[string]("getComputedStyle(document.body).backgroundColor")), "dark")
	require.Equal(t, "已连接", get(t, tab, chromedp.Text(css("#live"))))
	order := shop.order(t, markup) // arrives live
	require.Equal(t, markup, get(t, tab, chromedp.Text(css(".order h2"))))
	harmless(tab)
	do(t, tab, chromedp.Reload()) // comes with the page
	require.Equal(t, markup, get(t, tab, chromedp.Text(css(".order h2"))))
	harmless(tab)
	do(t, tab, chromedp.Navigate(address+order.URLParams))
	require.Equal(t, markup, get(t, tab, chromedp.Text(css("h1"))))
	require.Equal(t, "立即支付 60 Q点", get(t, tab, chromedp.Text(css("button.main"))))
	harmless(tab)
}

// What a page says, it says in its own language, and what was tolerated in an order is noted.
func TestVerdictsAndNotesAreInThePagesLanguage(t *testing.T) {
	for name, c := range map[string]struct{ language, note, verdict, cashier, failed string }{
		"English": {"en", `Tolerated: cookie org_loc="%2Fmpay%2Fbuy_goods_m", which shipped servers send too; Tencent's page says "%2Fv3%2Fr%2Fmpay%2Fbuy_goods_m"`,
			"refused because the body ends in a newline: json.Encoder and fmt.Fprintln write one", "Paid, but not delivered: the body ends in a newline: json.Encoder and fmt.Fprintln write one", "no callback was sent for this order yet: pay first"},
		"Chinese": {"zh-CN", `不影响受理，但请注意：Cookie org_loc="%2Fmpay%2Fbuy_goods_m"：已上线的服务器也有这样传的；腾讯文档写的是 "%2Fv3%2Fr%2Fmpay%2Fbuy_goods_m"`,
			"被拒绝，原因：应答以换行结尾：json.Encoder 和 fmt.Fprintln 会写换行", "已支付，但未发货：应答以换行结尾：json.Encoder 和 fmt.Fprintln 会写换行", "这个订单还没有回调过：请先支付"},
	} {
		t.Run(name, func(t *testing.T) {
			shop := newShop(t)
			address, _ := newSandbox(t, shop)
			gateway := midas.Sandbox().At(address)
			gateway.OrgLocPrefix = "" // as Tencent's PHP SDK
			var err error
			shop.client, err = midas.New(midas.Config{AppID: appID, AppKey: appKey, Gateway: gateway})
			require.NoError(t, err)

			dashboard := newBrowser(t, c.language, "light")
			do(t, dashboard, chromedp.Navigate(address+"/"), chromedp.WaitVisible(css("#live.on")))
			order := shop.order(t, "屠龙刀")
			card := `[data-token="` + order.Token + `"] `
			do(t, dashboard, chromedp.WaitVisible(css(card)))
			require.Equal(t, c.note, get(t, dashboard, chromedp.Text(css(card+".note"))), "live")

			quiet, cancel := chromedp.NewContext(dashboard) // not one that minds the 409, which a browser logs as an error
			t.Cleanup(cancel)
			do(t, quiet, chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
				_, err := cdp.Call(ctx, target, network.SetExtraHTTPHeaders, network.SetExtraHTTPHeadersParams{Headers: network.Headers{"Accept-Language": c.language}})
				return err
			}), chromedp.Navigate(address+"/"), chromedp.WaitVisible(css("#live.on")))
			do(t, quiet, chromedp.Click(css(card+`button[data-post$="/repeat"]`)), chromedp.WaitVisible(css("main > [role=status].bad")))
			require.Equal(t, c.failed, get(t, quiet, chromedp.Text(css("main > [role=status]"))))
			require.Equal(t, c.note, get(t, quiet, chromedp.Text(css(card+".note"))), "with the page")

			shop.sloppy.Store(true)
			phone := newTab(t, dashboard, c.language, "light")
			do(t, phone, chromedp.Navigate(address+order.URLParams), chromedp.Click(css("button.main")), chromedp.WaitVisible(css("[role=status].bad")))
			require.Equal(t, c.cashier, get(t, phone, chromedp.Text(css("[role=status]"))))
			require.Equal(t, c.verdict, get(t, dashboard, chromedp.Text(css(card+"[data-action=pay] .verdict.bad"))))
		})
	}
}

func TestTheSandboxsOwnBackendShowsALineThatPlacesAnOrder(t *testing.T) {
	address, _ := startSandbox(t, "127.0.0.1:0", "")
	dashboard := newBrowser(t, "en", "light")
	do(t, dashboard, chromedp.Navigate(address+"/"), chromedp.WaitVisible(css("#live.on")))
	line := get(t, dashboard, chromedp.Text(css("#none pre")))
	out, err := exec.Command("sh", "-c", line+" -s").Output()
	require.NoError(t, err)
	require.Contains(t, string(out), `{"ret":0,"token":"`)
	do(t, dashboard, chromedp.WaitVisible(css(".order .actions")))
}
