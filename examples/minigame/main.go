// Minigame runs a mini game's sale from the login to the item in one process and needs
// nothing: a fake WeChat, a shop on SQLite (shop.go, to be copied), a player who pays, pushes that
// are repeated, forged, mocked and refunded.
//
//	cd examples/minigame && go run .
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/minigame"
	"github.com/midas-go/midas/minigame/minigametest"
)

func main() {
	if err := tell(context.Background(), os.Stdout, openShop); err != nil {
		fmt.Fprintln(os.Stderr, "minigame:", err)
		os.Exit(1)
	}
}

// A story is a run of the shop against a fake WeChat, told line by line.
type story struct {
	out    io.Writer
	wechat *minigametest.Server
	shop   *shop
	now    time.Time
	wrong  int // steps that were not as they should be
}

// An opener opens a shop: openShop, or one with a mistake.
type opener func(ctx context.Context, game *minigame.Game, appID, file string) (*shop, error)

// tell runs the story. The error says how many steps were not as they should be.
func tell(ctx context.Context, out io.Writer, open opener) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	s := &story{out: out, now: time.Now()}
	s.wechat = minigametest.NewServer(minigametest.Config{
		Now:    func() time.Time { return s.now },
		Errorf: func(format string, args ...any) { s.check(false, fmt.Sprintf(format, args...)) },
	})
	defer s.wechat.Close()
	cfg := s.wechat.GameConfig() // in real life the fields come from the console
	game, err := minigame.NewGame(cfg)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "minigame")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if s.shop, err = open(ctx, game, cfg.AppID, filepath.Join(dir, "game.db")); err != nil {
		return err
	}
	defer s.shop.db.Close()
	s.wechat.PushToHandler(s.shop.handler, "/push")
	for id, price := range catalogue {
		s.wechat.Publish(id, price)
	}
	if err := s.run(ctx); err != nil {
		return err
	}
	if err := game.Wait(ctx); err != nil {
		return err
	}
	if s.wrong > 0 {
		return fmt.Errorf("%d of the steps above are not as they should be: see the lines with ✗", s.wrong)
	}
	fmt.Fprintln(out, "\nAll of it is as it should be.")
	return nil
}

func (s *story) run(ctx context.Context) error {
	const anna = "oUrsf0TSXNtiZjP7JL9UUFiGJzmQ"

	s.chapter("The console presses 提交 for the push URL: WeChat sends the GET verification.")
	s.check(s.wechat.Verify(ctx) == nil, "the echostr comes back, and nothing else")

	s.chapter("And 模拟推送: a delivery with random values.")
	if err := s.pushed(s.wechat.Mock(ctx)); err != nil {
		return err
	}
	s.owns(ctx, "", 0)

	s.chapter("Anna logs in: wx.login's code becomes a session, whose key stays on the server.")
	if err := s.shop.login(ctx, s.wechat.Login(anna)); err != nil {
		return err
	}

	s.chapter("She picks two swords. The shop signs and stores an order; WeChat is not called.")
	order, err := s.shop.order(ctx, anna, minigame.Live, "sword", 2)
	if err != nil {
		return err
	}
	fmt.Fprintln(s.out, "  signData", order.SignData)

	s.chapter("She pays 80 % with a coupon. The shop's database is down, so the push is not acknowledged.")
	s.shop.down.Store(true)
	receipt, err := s.wechat.Pay(ctx, anna, order, minigametest.Charged(960*midas.Fen))
	if err != nil {
		return err
	}
	s.show(receipt)
	s.check(!receipt.Accepted, "WeChat will push it again")
	s.owns(ctx, anna, 0)

	s.chapter("15 seconds later WeChat pushes again, and the shop is back.")
	s.shop.down.Store(false)
	due, _ := s.wechat.NextPush()
	s.now = due
	receipts, err := s.wechat.PushDue(ctx)
	if err != nil {
		return err
	}
	for _, receipt := range receipts {
		if err := s.pushed(receipt, nil); err != nil {
			return err
		}
	}
	s.owns(ctx, anna, 2)

	s.chapter("The same push comes once more.")
	if err := s.pushed(s.wechat.Repeat(ctx, minigame.Live, order.OutTradeNo)); err != nil {
		return err
	}
	s.owns(ctx, anna, 2)

	s.chapter("A cheat pays in the sandbox, where it costs nothing.")
	free, err := s.shop.order(ctx, anna, minigame.Sandbox, "sword", 99)
	if err != nil {
		return err
	}
	receipt, err = s.wechat.Pay(ctx, anna, free)
	if err != nil {
		return err
	}
	s.show(receipt)
	s.check(!receipt.Accepted, "this server delivers live payments only")
	s.owns(ctx, anna, 2)

	s.chapter("And posts a push of his own, without the keys.")
	forger := minigametest.NewServer(minigametest.Config{EncodingAESKey: "aGuess0123456789abcdefghijklmnopqrstuvwxyz0"})
	defer forger.Close()
	forger.PushToHandler(s.shop.handler, "/push")
	receipt, err = forger.Push(ctx, `{"Event":"minigame_game_pay_goods_deliver_notify"}`)
	if err != nil {
		return err
	}
	s.show(receipt)
	s.check(receipt.Status == 403, "it does not verify")
	s.owns(ctx, anna, 2)

	s.chapter("No push for a while? The shop asks. WeChat's access token has just been replaced.")
	s.wechat.ExpireToken()
	info, err := s.shop.ask(ctx, anna, order.OutTradeNo)
	if err != nil {
		return err
	}
	s.check(info.Paid && info.Delivered && info.ProductID == "sword", "paid and delivered")

	s.chapter("Anna gets 2 yuan back for a complaint: she keeps the swords.")
	if err := s.pushed(s.wechat.Refund(ctx, minigame.Live, order.OutTradeNo, minigametest.Part(200*midas.Fen))); err != nil {
		return err
	}
	s.owns(ctx, anna, 2)

	s.chapter("And then the rest, in a push that does not tell the order's number: the shop takes the swords back.")
	if err := s.pushed(s.wechat.Refund(ctx, minigame.Live, order.OutTradeNo, minigametest.WithoutOutTradeNo())); err != nil {
		return err
	}
	s.owns(ctx, anna, 0)

	s.chapter("Her session_key has expired when she orders again: the app logs in anew.")
	s.wechat.ExpireSession(anna)
	order, err = s.shop.order(ctx, anna, minigame.Live, "gem", 1)
	if err != nil {
		return err
	}
	_, err = s.wechat.Pay(ctx, anna, order)
	s.check(err != nil && err.Error() == "client error -15015: session_key expired", fmt.Sprint("the app gets: ", err))
	if err := s.shop.login(ctx, s.wechat.Login(anna)); err != nil {
		return err
	}
	if order, err = s.shop.order(ctx, anna, minigame.Live, "gem", 1); err != nil {
		return err
	}
	if err := s.pushed(s.wechat.Pay(ctx, anna, order)); err != nil {
		return err
	}
	s.owns(ctx, anna, 1)
	return nil
}

func (s *story) chapter(text string) { fmt.Fprintf(s.out, "\n%s\n", text) }

func (s *story) show(r *minigametest.Receipt) {
	fmt.Fprintf(s.out, "  push %d of %s -> %d `%s`\n", r.Try, r.Event, r.Status, r.Body)
}

// pushed shows a push that has to be acknowledged.
func (s *story) pushed(r *minigametest.Receipt, err error) error {
	if err != nil {
		return err
	}
	s.show(r)
	s.check(r.Accepted, "WeChat takes the answer "+r.Reason)
	return nil
}

func (s *story) owns(ctx context.Context, openID string, want int) {
	got, err := s.shop.items(ctx, openID)
	s.check(err == nil && got == want, fmt.Sprintf("the player owns %d items, want %d", got, want))
}

func (s *story) check(ok bool, text string) {
	mark := "✓"
	if !ok {
		mark = "✗"
		s.wrong++
	}
	fmt.Fprintf(s.out, "  %s %s\n", mark, text)
}
