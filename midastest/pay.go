package midastest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"github.com/midas-go/midas"
)

// A PayOption changes how the player pays, or breaks the callback in one way.
type PayOption func(*payment)

// A payment is a callback in the making.
type payment struct {
	percent    int    // of the price, to be charged
	quantity   int    // 0: as ordered
	method     string // "": the login's own
	key        string // "": the right one
	path       string // to sign; "": the delivery URL's
	billNo     string
	late       bool
	duplicates int
	signed     map[string]string // set before signing
	tampered   map[string]string // set after signing
}

// Discount charges percent (1 to 100) of the price, rounded down to a fen but at least one.
// Midas's channels do so; 95 and 80 were seen (protocol.md 5, delivery
// callback).
func Discount(percent int) PayOption { return func(p *payment) { p.percent = percent } }

// Quantity lets the player buy n of a single item. The real Midas allows up to max_num; here
// any n goes, so that you can test that your backend refuses it.
func Quantity(n int) PayOption { return func(p *payment) { p.quantity = n } }

// PayMethod sets the pay method in appmeta, such as "qqwallet", "wechat" or "qdqb".
func PayMethod(name string) PayOption { return func(p *payment) { p.method = name } }

// WrongKey signs the callback with another pay key: a forgery.
func WrongKey(key string) PayOption { return func(p *payment) { p.key = key } }

// SignedPath signs the callback for this path instead of the delivery URL's: the path
// registered at Tencent where a proxy rewrites it, or a wrong one. An empty path changes
// nothing.
func SignedPath(path string) PayOption { return func(p *payment) { p.path = path } }

// Duplicates sends the callback n times at once (once if n is below 1). Receipt.Duplicates
// has the other receipts.
func Duplicates(n int) PayOption { return func(p *payment) { p.duplicates = n } }

// ExpiredToken lets the player pay with an expired token.
func ExpiredToken() PayOption { return func(p *payment) { p.late = true } }

// BillNo sets Midas's serial number. With that of an earlier receipt, the same payment is
// called back again.
func BillNo(billNo string) PayOption { return func(p *payment) { p.billNo = billNo } }

// Param sets any parameter of the callback before it is signed.
func Param(name, value string) PayOption { return func(p *payment) { p.signed[name] = value } }

// Tampered sets any parameter of the callback after it was signed, as an attacker would.
func Tampered(name, value string) PayOption { return func(p *payment) { p.tampered[name] = value } }

// AppOrder places an order as the app itself does (APP下单), without the backend, and returns
// its token. It uses the login, openid, zone, items and metadata of req and ignores the rest.
func (s *Server) AppOrder(req midas.OrderRequest) (token string) {
	params := url.Values{
		"openid": {req.Player.OpenID}, "zoneid": {cmp.Or(req.Player.ZoneID, "1")}, "payitem": {midas.FormatItems(req.Items)}, "app_metadata": {req.Metadata},
	}
	return s.keep(&order{params, req.Player.Login, s.cfg.Now()})
}

// Pay lets the player pay for the order with this token: it sends the signed callback to the
// delivery URL, once or as [Duplicates] says, and judges the answer. A bad answer is not an
// error: see [Receipt].
//
// The error is midas.ErrTokenNotFound or midas.ErrTokenExpired if the cashier would not open,
// ctx.Err(), or says that there is no delivery URL.
func (s *Server) Pay(ctx context.Context, token string, opts ...PayOption) (*Receipt, error) {
	query, p, err := s.callback(token, opts)
	if err != nil {
		return nil, fmt.Errorf("midastest: Pay: %w", err)
	}
	receipts := make([]*Receipt, max(p.duplicates, 1))
	errs := make([]error, len(receipts))
	var calls sync.WaitGroup
	for i := range receipts {
		calls.Go(func() { receipts[i], errs[i] = s.Deliver(ctx, query) })
	}
	calls.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	for _, receipt := range receipts {
		// A forgery deserves that answer; anything else may need a hint.
		if p.key == "" && len(p.tampered) == 0 && string(receipt.Body) == `{"ret":4,"msg":"bad_parameter:sig"}` {
			receipt.Reason += "; the callback is signed for the path " + p.path + ": does the backend verify for that path, with the same pay key?"
		}
	}
	receipts[0].Duplicates = receipts[1:]
	return receipts[0], nil
}

// Callback returns the raw query of the callback that [Server.Pay] would send, for tests that
// send it themselves. With [SignedPath] no delivery URL is needed.
func (s *Server) Callback(token string, opts ...PayOption) (rawQuery string, err error) {
	query, _, err := s.callback(token, opts)
	if err != nil {
		return "", fmt.Errorf("midastest: Callback: %w", err)
	}
	return query, nil
}

func (s *Server) callback(token string, opts []PayOption) (string, *payment, error) {
	p := &payment{percent: 100, signed: map[string]string{}, tampered: map[string]string{}}
	for _, opt := range opts {
		opt(p)
	}
	now := s.cfg.Now()
	s.mu.Lock()
	o, found := s.orders[token]
	deliver := s.deliver
	s.serial++
	serial := s.serial
	s.mu.Unlock()
	switch {
	case !found:
		return "", nil, midas.ErrTokenNotFound
	case now.Sub(o.made) > midas.TokenLifetime && !p.late:
		return "", nil, midas.ErrTokenExpired
	case p.path == "" && deliver == nil:
		return "", nil, errNoTarget
	case p.path == "":
		p.path = deliver.path
	}

	items, err := midas.ParseItems(o.params.Get("payitem"))
	if err != nil { // the app's own order: see AppOrder
		return "", nil, err
	}
	if p.quantity != 0 {
		if len(items) != 1 {
			return "", nil, errors.New("Quantity is for orders of a single item")
		}
		items[0].Quantity = p.quantity
	}
	var total midas.Amount
	for _, item := range items {
		total += item.Price * midas.Amount(item.Quantity)
	}
	charged := max(total*midas.Amount(p.percent)/100, midas.Fen)

	if p.billNo == "" {
		p.billNo = fmt.Sprintf("-APPDJ00000-%s-%s%04d", now.Format("20060102"), now.Format("150405"), serial)
	}
	method, platform := payMethods[o.login][0], payMethods[o.login][1]
	if p.method != "" {
		method = p.method
	}
	params := url.Values{
		"openid": {o.params.Get("openid")}, "appid": {s.cfg.AppID}, "zoneid": {o.params.Get("zoneid")}, "token": {token},
		"billno": {p.billNo}, "payitem": {midas.FormatItems(items)}, "amt": {strconv.FormatInt(int64(charged), 10)},
		"payamt_coins": {"0"}, "pubacct_payamt_coins": {""}, "ts": {strconv.FormatInt(now.Unix(), 10)},
		"providetype": {"5"}, "version": {"v3"}, "clientver": {"android"}, "paychannelsubid": {"1"},
		"channel_id": {"00000000-android-00000000-000000000000000-ysdkwater-" + platform},
		"cftid":      {fmt.Sprintf("42000001%s%010d", now.Format("20060102150405"), serial)},
		string(rune('a'+rand.IntN(26))) + "bazinga": {"1"}, // Midas's decoy: no backend can rely on fixed names
	}
	if metadata := o.params.Get("app_metadata"); metadata != "" {
		params.Set("appmeta", metadata+"*"+method+"*"+platform)
	}
	for name, value := range p.signed {
		params.Set(name, value)
	}
	params.Set("sig", midas.SignCallback("GET", p.path, params, cmp.Or(p.key, s.cfg.AppKey)))
	for name, value := range p.tampered {
		params.Set(name, value)
	}
	return strings.ReplaceAll(params.Encode(), "+", "%20"), p, nil
}

// payMethods maps a login to the pay method and the platform in appmeta.
var payMethods = map[midas.Login][2]string{
	midas.QQ:     {"qqwallet", "qq"},
	midas.WeChat: {"wechat", "wechat"},
	midas.Guest:  {"wechat", "st_dummy"},
	midas.H5:     {"qqwallet", "qq"},
	"":           {"qqwallet", "qq"},
}

var errNoTarget = errors.New("no delivery URL is set: call DeliverTo or DeliverToHandler")
