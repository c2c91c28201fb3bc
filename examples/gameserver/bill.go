package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midassql"
)

// margin is by how much the bill's clock and the ledger's may differ.
const margin = time.Hour

// A billed payment is a line of the bill.
type billed struct {
	line           int
	billNo, openID string // no openid where the bill has none
	amount         midas.Amount
}

// reconcile compares the payments of some days with the bill. It changes nothing.
func reconcile(flags *flag.FlagSet) action {
	today := time.Now().Truncate(time.Second)
	today = time.Date(today.Year(), today.Month(), today.Day(), 0, 0, 0, 0, time.Local)
	from, to := today.AddDate(0, 0, -1), today
	file := flags.String("bill", "", "CSV `file` with a header")
	columns := flags.String("columns", "", "`names` in the header: billno=…,amount=… and, if the bill has it, openid=…")
	encoding := flags.String("encoding", "utf-8", "of the file: utf-8 or gbk")
	unit := flags.String("unit", "yuan", "of the amounts: yuan or fen")
	appID := flags.String("app-id", "", "compare payments of this offer `id` only, where several apps, or a mini game, share the tables")
	dayVar(flags, &from, "from", "first `day` on the bill, such as 2026-11-24 (default yesterday)")
	dayVar(flags, &to, "to", "`day` after the last (default today)")
	return func(ctx context.Context, s *shop, out, terminal io.Writer) error {
		if *file == "" || *columns == "" {
			return errors.New("-bill or -columns is missing")
		}
		if !from.Before(to) { // no payment is between them, so nothing could be amiss
			return fmt.Errorf("-from %s is not before -to %s: -to is the day after the last", from.Format(time.DateOnly), to.Format(time.DateOnly))
		}
		f, err := os.Open(*file)
		if err != nil {
			return err
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			return err
		}
		show := newProgress(terminal, "reading the bill", info.Size())
		bill, wrong, err := readBill(ctx, io.TeeReader(f, show), *columns, *encoding, *unit)
		show.end()
		if err != nil {
			return fmt.Errorf("%s: %w", *file, err)
		}
		for _, problem := range wrong {
			fmt.Fprintln(out, visible(problem))
		}
		c := newComparison(bill, from, to, out)
		c.appID = *appID
		if err := c.readLedger(ctx, s.store, terminal); err != nil {
			return err
		}
		if err := c.lookUpRest(ctx, s.store, terminal); err != nil {
			return err
		}
		c.ledgerOnly.flush()
		c.another.flush()
		c.undelivered.flush()
		c.billOnly.flush()
		fmt.Fprintf(out, "%d lines on the bill: %d on the bill only, %d in the ledger only, %d with another amount, %d not delivered, %d that cannot be read\n",
			len(bill), c.billOnly.n, c.ledgerOnly.n, c.another.n, c.undelivered.n, len(wrong))
		if c.billOnly.n+c.ledgerOnly.n+c.another.n+c.undelivered.n+len(wrong) > 0 {
			return errDiffers
		}
		return nil
	}
}

// A comparison of the ledger with the bill of [from, to).
type comparison struct {
	from, to time.Time
	appID    string              // empty: every app's
	lines    map[string][]billed // of the bill, by billno; what is found in the ledger is taken off
	found    map[string]bool     // payments that are on the bill, by their id

	ledgerOnly, another, undelivered, billOnly *table
}

func newComparison(bill []billed, from, to time.Time, out io.Writer) *comparison {
	c := &comparison{
		from: from, to: to, lines: make(map[string][]billed, len(bill)), found: make(map[string]bool, len(bill)),
		ledgerOnly:  newTable(out, "IN THE LEDGER ONLY", "BILLNO", "OPENID", "ITEMS", "YUAN", "STATE", "BY"),
		another:     newTable(out, "ANOTHER AMOUNT", "BILLNO", "OPENID", "ON THE BILL", "IN THE LEDGER"),
		undelivered: newTable(out, "PAID, NOT DELIVERED", "BILLNO", "OPENID", "YUAN", "STATE", "NOTE"),
		billOnly:    newTable(out, "ON THE BILL ONLY", "BILLNO", "OPENID", "YUAN"),
	}
	for _, b := range bill {
		c.lines[b.billNo] = append(c.lines[b.billNo], b)
	}
	return c
}

// readLedger compares the payments of the bill's days.
func (c *comparison) readLedger(ctx context.Context, store *midassql.Store, terminal io.Writer) error {
	begin, end := c.from.Add(-margin), c.to.Add(margin)
	show := newProgress(terminal, "reading the ledger", int64(end.Sub(begin)))
	defer show.end()
	for p, err := range store.Payments(ctx, midassql.Query{From: begin, To: end, AppID: c.appID}) {
		if err != nil {
			return err
		}
		if !c.match(p) && !p.Stored.Before(c.from) && p.Stored.Before(c.to) {
			c.ledgerOnly.row(clock(p.Stored), p.BillNo, p.OpenID, midas.FormatItems(p.Items), p.Charged.Yuan(), string(p.State), p.SettledBy)
		}
		show.at(int64(p.Stored.Sub(begin)))
	}
	return nil
}

// lookUpRest looks for the lines that are left: their payments may have come long before or
// after their day on the bill.
func (c *comparison) lookUpRest(ctx context.Context, store *midassql.Store, terminal io.Writer) error {
	rest := slices.Concat(slices.Collect(maps.Values(c.lines))...)
	slices.SortFunc(rest, func(a, b billed) int { return cmp.Compare(a.line, b.line) })
	show := newProgress(terminal, "looking up what is left", int64(len(rest)))
	defer show.end()
	for i, b := range rest {
		for p, err := range store.Payments(ctx, midassql.Query{BillNo: b.billNo, OpenID: b.openID, AppID: c.appID}) {
			if err != nil {
				return err
			}
			c.match(p)
		}
		if slices.Contains(c.lines[b.billNo], b) {
			c.billOnly.row(fmt.Sprint("line ", b.line), b.billNo, b.openID, b.amount.Yuan())
		}
		show.at(int64(i + 1))
	}
	return nil
}

// match takes the line of a payment off, and reports whether there was one. A payment has one
// line: another with its number is one too many.
func (c *comparison) match(p midassql.Payment) bool {
	if p.State == midassql.StateNoted { // no payment yet: a refund came before it
		return true
	}
	id := midas.PaymentID(p.OpenID, p.BillNo)
	if c.found[id] {
		return true
	}
	lines := c.lines[p.BillNo]
	i := slices.IndexFunc(lines, func(b billed) bool { return b.openID == "" || b.openID == p.OpenID })
	if i < 0 {
		return false
	}
	if lines[i].amount != p.Charged {
		c.another.row(fmt.Sprint("line ", lines[i].line), p.BillNo, p.OpenID, lines[i].amount.Yuan(), p.Charged.Yuan())
	}
	switch p.State {
	case midassql.StateDone, midassql.StateWaiting: // a player who is away gets it at the next login
	default:
		c.undelivered.row(fmt.Sprint("line ", lines[i].line), p.BillNo, p.OpenID, p.Charged.Yuan(), string(p.State), why(p))
	}
	c.lines[p.BillNo] = slices.Delete(lines, i, i+1)
	c.found[id] = true
	return true
}

// why says why a payment is not delivered.
func why(p midassql.Payment) string {
	if p.RefundedInFull {
		return "refunded in full"
	}
	return cmp.Or(p.Note, p.LastError)
}

// readBill reads the lines of a bill. wrong are those that say something else than a payment, and
// why; lines without a number, such as totals, are passed over.
func readBill(ctx context.Context, r io.Reader, columns, encoding, unit string) (bill []billed, wrong []string, err error) {
	parse, err := amountsIn(unit)
	if err != nil {
		return nil, nil, err
	}
	lines, err := openSheet(r, encoding, columns, []string{"billno", "amount"}, []string{"openid"})
	if err != nil {
		return nil, nil, err
	}
	for ctx.Err() == nil {
		err := lines.next()
		if errors.Is(err, io.EOF) {
			return bill, wrong, nil
		}
		if err != nil {
			return nil, nil, err
		}
		b := billed{line: lines.line, billNo: lines.cell("billno"), openID: lines.cell("openid")}
		if b.billNo == "" {
			continue
		}
		if err := lines.whole(); err != nil {
			wrong = append(wrong, fmt.Sprintf("line %d: %s: %v", b.line, short(b.billNo), err))
			continue
		}
		if b.amount, err = parse(lines.cell("amount")); err != nil {
			wrong = append(wrong, fmt.Sprintf("line %d: %s: the amount %q is none in %s", b.line, short(b.billNo), short(lines.cell("amount")), unit))
			continue
		}
		bill = append(bill, b)
	}
	return nil, nil, ctx.Err()
}
