package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/csv"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midassql"
	"golang.org/x/text/encoding/simplifiedchinese"
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
	for p, err := range store.Payments(ctx, midassql.Query{From: begin, To: end}) {
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
		for p, err := range store.Payments(ctx, midassql.Query{BillNo: b.billNo, OpenID: b.openID}) {
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
	case midassql.Done, midassql.Waiting: // a player who is away gets it at the next login
	default:
		c.undelivered.row(fmt.Sprint("line ", lines[i].line), p.BillNo, p.OpenID, p.Charged.Yuan(), string(p.State), cmp.Or(p.Note, p.LastError))
	}
	c.lines[p.BillNo] = slices.Delete(lines, i, i+1)
	c.found[id] = true
	return true
}

// readBill reads the lines of a bill. wrong are those that say something else than a payment, and
// why; lines without a number, such as totals, are passed over.
func readBill(ctx context.Context, r io.Reader, columns, encoding, unit string) (bill []billed, wrong []string, err error) {
	switch encoding {
	case "utf-8":
	case "gbk":
		r = simplifiedchinese.GB18030.NewDecoder().Reader(r) // GBK and more
	default:
		return nil, nil, fmt.Errorf("-encoding %q: want utf-8 or gbk", encoding)
	}
	parse := map[string]func(string) (midas.Amount, error){"yuan": midas.ParseYuan, "fen": parseFen}[unit]
	if parse == nil {
		return nil, nil, fmt.Errorf("-unit %q: want yuan or fen", unit)
	}
	buffered := bufio.NewReader(r)
	if first, _ := buffered.Peek(3); string(first) == "\ufeff" { // a byte order mark
		_, _ = buffered.Discard(3)
	}
	lines := csv.NewReader(buffered)
	lines.FieldsPerRecord, lines.LazyQuotes, lines.ReuseRecord = -1, true, true
	header, err := lines.Read()
	if err != nil {
		return nil, nil, fmt.Errorf("the header: %w", err)
	}
	at := map[string]int{"openid": -1}
	for pair := range strings.SplitSeq(columns, ",") {
		name, title, _ := strings.Cut(pair, "=")
		i := slices.IndexFunc(header, func(cell string) bool { return plain(cell) == title })
		switch {
		case name != "billno" && name != "openid" && name != "amount":
			return nil, nil, fmt.Errorf("-columns: %q: want billno, openid or amount", name)
		case i < 0:
			return nil, nil, fmt.Errorf("-columns: the header has no %q; is -encoding right? It has: %s", title, visible(strings.Join(header, ", ")))
		}
		at[name] = i
	}
	for _, name := range []string{"billno", "amount"} {
		if _, ok := at[name]; !ok {
			return nil, nil, fmt.Errorf("-columns: %s is missing", name)
		}
	}
	for ctx.Err() == nil {
		cells, err := lines.Read()
		if errors.Is(err, io.EOF) {
			return bill, wrong, nil
		}
		if err != nil {
			return nil, nil, err
		}
		line, _ := lines.FieldPos(0)
		cell := func(name string) string {
			if i := at[name]; i >= 0 && i < len(cells) {
				return strings.Clone(plain(cells[i]))
			}
			return ""
		}
		b := billed{line: line, billNo: cell("billno"), openID: cell("openid")}
		if b.billNo == "" {
			continue
		}
		if b.amount, err = parse(strings.ReplaceAll(cell("amount"), ",", "")); err != nil {
			wrong = append(wrong, fmt.Sprintf("line %d: %s: the amount %q is none in %s", line, b.billNo, cell("amount"), unit))
			continue
		}
		bill = append(bill, b)
	}
	return nil, nil, ctx.Err()
}

// plain takes off what keeps spreadsheets from making a number of a long one: `123, '123 and ="123".
func plain(cell string) string {
	cell = strings.TrimSpace(cell)
	cell = strings.TrimPrefix(strings.TrimPrefix(cell, "`"), "'")
	if inner, ok := strings.CutPrefix(cell, `="`); ok {
		cell = strings.TrimSuffix(inner, `"`)
	}
	return strings.TrimSpace(cell)
}

// parseFen reads whole fen.
func parseFen(text string) (midas.Amount, error) {
	fen, err := strconv.ParseUint(text, 10, 62)
	return midas.Amount(fen) * midas.Fen, err
}
