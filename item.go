package midas

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
)

// Limits of the parameter payitem (protocol.md 3, parameters).
const (
	maxPayItem = 511           // bytes
	maxTotal   = 2_000_000_000 // fen
)

// An Item is something a player buys: its id in the game's catalogue, the price
// of one, and how many. ID is printable ASCII without "*", ";", "|" and spaces. In
// an order, Price is at least one fen and Quantity at least one.
type Item struct {
	ID       string
	Price    Amount
	Quantity int
}

// FormatItems returns items in the notation of the parameter payitem:
// id*price*num, joined by ";", the price in Q-points (protocol.md 3, parameters).
// It does not check them; [Client.CreateOrder] does.
func FormatItems(items []Item) string {
	var b strings.Builder
	for i, item := range items {
		if i > 0 {
			b.WriteByte(';')
		}
		b.WriteString(item.ID)
		b.WriteByte('*')
		b.WriteString(item.Price.QPoints())
		b.WriteByte('*')
		b.WriteString(strconv.Itoa(item.Quantity))
	}
	return b.String()
}

// ParseItems reads the notation that [FormatItems] writes, with the trailing zeros in
// prices that callbacks show. The error is a [*FieldError] for payitem. It accepts a price of 0
// and any non-empty id; the limits of Item apply to orders only.
func ParseItems(payitem string) ([]Item, error) {
	items, reason := parseItems(payitem)
	if reason != "" {
		return nil, &FieldError{Field: "payitem", Param: "payitem", Reason: reason}
	}
	return items, nil
}

// parseItems is ParseItems with the bare reason, since an error about a callback must not
// look like one about an order (see ReplyTo).
func parseItems(payitem string) (items []Item, reason string) {
	items = make([]Item, 0, strings.Count(payitem, ";")+1)
	for part := range strings.SplitSeq(payitem, ";") {
		id, rest, _ := strings.Cut(part, "*")
		price, num, complete := strings.Cut(rest, "*")
		amount, isAmount := parseDecimal(price, 1)
		quantity, err := strconv.ParseUint(num, 10, 31)
		switch {
		case id == "" || !complete:
			reason = "want id*price*num"
		case !isAmount:
			reason = "the price is not a number of Q-points with at most one decimal, or too large"
		case err != nil || quantity == 0:
			reason = "the quantity is not a number from 1 to 2147483647"
		default:
			items = append(items, Item{id, amount, int(quantity)})
			continue
		}
		return nil, fmt.Sprintf("item %d: %s", len(items)+1, reason)
	}
	return items, ""
}

// payItems are items as go-querystring writes them.
type payItems []Item

// EncodeValues implements query.Encoder.
func (items payItems) EncodeValues(name string, values *url.Values) error {
	values.Set(name, FormatItems(items))
	return nil
}

// validateItems calls refuse for each limit that items do not meet
// (protocol.md 3, parameters).
func validateItems(items []Item, refuse func(field, format string, args ...any)) {
	if len(items) == 0 {
		refuse("Items", "empty: an order needs an item")
		return
	}
	left := Amount(maxTotal)
	for i, item := range items {
		field := fmt.Sprintf("Items[%d].", i)
		if item.ID == "" || strings.ContainsFunc(item.ID, func(c rune) bool { return c <= ' ' || c >= 0x7f || strings.ContainsRune("*;|", c) }) {
			refuse(field+"ID", "empty, or not plain ASCII without * ; | and spaces")
		}
		if item.Price < Fen {
			refuse(field+"Price", "below one fen")
		}
		if item.Quantity < 1 {
			refuse(field+"Quantity", "below 1")
		}
		switch {
		case item.Price < Fen || item.Quantity < 1 || left < 0:
		case item.Price > left/Amount(item.Quantity): // the product could overflow
			left = -1
		default:
			left -= item.Price * Amount(item.Quantity)
		}
	}
	if left < 0 {
		refuse("Items", "the total is over %s yuan", Amount(maxTotal).Yuan())
	}
	if n := len(FormatItems(items)); n > maxPayItem {
		refuse("Items", "%d bytes as id*price*num, at most %d are allowed", n, maxPayItem)
	}
}
