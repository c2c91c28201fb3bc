package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midastest"
)

const deliveryPath = "/pay/notify"

// A story is a run of the shop against a fake Midas, told line by line.
type story struct {
	out     io.Writer
	midas   *midastest.Server
	shopURL string
	wrong   int // steps that were not as they should be

	ordered, paid bool // and shown in full: what follows is shown in brief
}

// tell runs the story with the shop that backend makes of a client. The error says how
// many steps were not as they should be.
func tell(ctx context.Context, out io.Writer, backend func(*midas.Client) http.Handler) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	s := &story{out: out}
	s.midas = midastest.NewServer(midastest.Config{
		OnOrder: s.showOrder,
		Errorf:  func(format string, args ...any) { s.check(false, format, args...) },
	})
	defer s.midas.Close()
	client, err := midas.New(s.midas.ClientConfig(deliveryPath)) // a real one has midas.Sandbox() or midas.Production()
	if err != nil {
		return err
	}

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: backend(client), ReadHeaderTimeout: 5 * time.Second}
	go server.Serve(listener)
	defer server.Close()
	s.shopURL = "http://" + listener.Addr().String()
	s.midas.DeliverTo(s.shopURL + deliveryPath) // as registered at Tencent in real life

	fmt.Fprintf(out, "Midas (a fake one) is at %s, the shop at %s.\n", s.midas.Gateway().BaseURL, s.shopURL)
	if err := s.run(ctx); err != nil {
		return err
	}
	if s.wrong > 0 {
		return fmt.Errorf("%d of the steps above are not as they should be: see the lines with ✗", s.wrong)
	}
	fmt.Fprintln(out, "\nAll of it is as it should be.")
	return nil
}

func (s *story) run(ctx context.Context) error {
	const anna, bo = "ANNA0000000000000000000000000001", "o_bo_wechat_0000000000000002"

	s.chapter("Anna, logged in with QQ, orders a sword.")
	sword, err := s.order(ctx, midas.QQ, anna, "sword", 1)
	if err != nil {
		return err
	}
	s.chapter("Anna pays. Midas calls the shop back, and the shop grants the sword.")
	paid, err := s.pay(ctx, sword)
	if err != nil {
		return err
	}
	s.accepted(paid)
	s.owns(ctx, anna, map[string]int{"sword": 1})
	fmt.Fprintln(s.out, "  (The parameter that ends in bazinga is a decoy of Midas, with a random first letter: no backend can rely on fixed names.)")

	s.chapter("Midas calls back for the same payment again, as it may at any time.")
	_, rawQuery, _ := strings.Cut(paid.URL, "?")
	repeat, err := s.midas.Deliver(ctx, rawQuery)
	if err != nil {
		return err
	}
	s.showCallback(repeat)
	s.accepted(repeat)
	s.owns(ctx, anna, map[string]int{"sword": 1})

	s.chapter("Bo, logged in with WeChat, orders 2 x 60 gems and pays 80 % of the price: a discount of his pay channel. The callback comes three times at once.")
	gems, err := s.order(ctx, midas.WeChat, bo, "gem60", 2)
	if err != nil {
		return err
	}
	discounted, err := s.pay(ctx, gems, midastest.Discount(80), midastest.Duplicates(3))
	if err != nil {
		return err
	}
	s.accepted(append(discounted.Duplicates, discounted)...)
	s.owns(ctx, bo, map[string]int{"gem60": 2})

	s.chapter("A cheat orders a sword and forges the callback, without the pay key.")
	unpaid, err := s.order(ctx, midas.QQ, "CHEAT", "sword", 1)
	if err != nil {
		return err
	}
	forged, err := s.pay(ctx, unpaid, midastest.WrongKey("a-guess"))
	if err != nil {
		return err
	}
	s.answered(forged, `{"ret":4,"msg":"bad_parameter:sig"}`)
	s.owns(ctx, "CHEAT", map[string]int{})

	s.chapter("A callback that is signed well, but for 99 swords instead of the one ordered.")
	changed, err := s.pay(ctx, unpaid, midastest.Quantity(99))
	if err != nil {
		return err
	}
	s.answered(changed, `{"ret":4,"msg":"bad_parameter:payitem"}`)
	s.owns(ctx, "CHEAT", map[string]int{})
	return nil
}

// order lets the app ask the shop for an order, and returns the order's token.
func (s *story) order(ctx context.Context, login midas.Login, openID, item string, quantity int) (token string, err error) {
	body, err := json.Marshal(map[string]any{
		"login": login, "openid": openID, "openkey": "from-the-login", "pf": "qq_m_qq-2001-android-2011-xxxx", "pfkey": "from-the-login",
		"item": item, "quantity": quantity,
	})
	if err != nil {
		return "", err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.shopURL+"/orders", bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	var placed midas.Order
	if err := ask(req, &placed); err != nil {
		return "", err
	}
	if placed.Token == "" {
		return "", errors.New("the shop gave the app no token")
	}
	s.check(strings.HasSuffix(placed.URLParams, placed.Token), "the app has its url_params %s", placed.URLParams)
	return placed.Token, nil
}

func (s *story) pay(ctx context.Context, token string, opts ...midastest.PayOption) (*midastest.Receipt, error) {
	receipt, err := s.midas.Pay(ctx, token, opts...)
	if err == nil {
		s.showCallback(receipt)
	}
	return receipt, err
}

// owns checks what the shop says that a player owns.
func (s *story) owns(ctx context.Context, openID string, want map[string]int) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.shopURL+"/players/"+openID+"/items", nil)
	var got map[string]int
	if err == nil {
		err = ask(req, &got)
	}
	if err != nil {
		s.check(false, "%s's items cannot be had: %v", openID, err)
		return
	}
	if !maps.Equal(got, want) {
		s.check(false, "%s owns %v, want %v", openID, got, want)
		return
	}
	s.check(true, "%s owns %v", openID, got)
}

// accepted checks that Midas takes the item for delivered, at each of a payment's callbacks.
func (s *story) accepted(receipts ...*midastest.Receipt) {
	for _, receipt := range receipts {
		if !receipt.Accepted {
			s.check(false, "Midas does not accept the answer: %s", receipt.Reason)
			return
		}
	}
	if len(receipts) == 1 {
		s.check(true, "Midas accepts the answer")
	} else {
		s.check(true, "Midas accepts all %d answers", len(receipts))
	}
}

// answered checks that a callback was refused, in these words.
func (s *story) answered(receipt *midastest.Receipt, want string) {
	if string(receipt.Body) != want {
		s.check(false, "the shop answers %#q, want %#q", receipt.Body, want)
		return
	}
	s.check(true, "the shop refuses it: %s", want)
}

// ask sends a request to the shop and decodes the answer.
func ask(req *http.Request, answer any) error {
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: the shop answered %s", req.Method, req.URL.Path, resp.Status)
	}
	return json.NewDecoder(resp.Body).Decode(answer)
}

func (s *story) chapter(text string) { fmt.Fprintf(s.out, "\n%s\n", text) }

// check tells a fact, and whether it is as it should be.
func (s *story) check(ok bool, format string, args ...any) {
	mark := "✓"
	if !ok {
		mark = "✗"
		s.wrong++
	}
	fmt.Fprintf(s.out, "  %s %s\n", mark, fmt.Sprintf(format, args...))
}

// showOrder shows what goes over the wire between shop and Midas.
func (s *story) showOrder(o midastest.OrderAttempt) {
	cookies := make([]string, len(o.Cookies))
	for i, cookie := range o.Cookies {
		cookies[i] = cookie.String()
	}
	s.wire("shop -> Midas", "GET /mpay/buy_goods_m?"+query(o.RawQuery, s.ordered))
	s.wire("", "Cookie: "+strings.Join(cookies, "; "))
	if !s.ordered {
		s.wire("Midas -> shop", o.Body)
	}
	s.ordered = true
}

// showCallback shows a callback and the bytes of its answer.
func (s *story) showCallback(receipt *midastest.Receipt) {
	path, rawQuery, _ := strings.Cut(strings.TrimPrefix(receipt.URL, s.shopURL), "?")
	s.wire("Midas -> shop", "GET "+path+"?"+query(rawQuery, s.paid))
	s.wire("shop -> Midas", fmt.Sprintf("%d %#q after %s", receipt.Status, receipt.Body, receipt.Took.Round(time.Microsecond)))
	s.paid = true
}

// wire prints a line of the wire, broken behind an "&" where it is long.
func (s *story) wire(direction, line string) {
	const width = 90
	for len(line) > width {
		end := strings.LastIndexByte(line[:width], '&') + 1
		if end == 0 {
			break
		}
		fmt.Fprintf(s.out, "  %-14s %s\n", direction, line[:end])
		direction, line = "", line[end:]
	}
	fmt.Fprintf(s.out, "  %-14s %s\n", direction, line)
}

var secret = regexp.MustCompile(`\b(openkey|pfkey|pay_token|sig)=[^&]+`)

// query hides the secrets of a query. In brief it is what the story is about.
func query(rawQuery string, brief bool) string {
	if brief {
		var parts []string
		for part := range strings.SplitSeq(rawQuery, "&") {
			name, _, _ := strings.Cut(part, "=")
			switch {
			case slices.Contains([]string{"amt", "openid", "payitem"}, name):
				parts = append(parts, part)
			case len(parts) == 0 || parts[len(parts)-1] != "…":
				parts = append(parts, "…")
			}
		}
		rawQuery = strings.Join(parts, "&")
	}
	return secret.ReplaceAllString(rawQuery, "$1=[hidden]")
}
