package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"iter"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midassql"
)

// errLook is what import found. It has said what.
var errLook = errors.New("somebody has to look at what was imported")

// importPayments puts what an earlier backend granted into the ledger.
func importPayments(flags *flag.FlagSet) action {
	file := flags.String("file", "", "CSV `file` with a header; - is the standard input")
	columns := flags.String("columns", "", "`names` in the header: billno=…,openid=…,amount=…,time=… and, as far as there are, items=…,token=…,zone=…,metadata=…,number=…")
	encoding := flags.String("encoding", "utf-8", "of the file: utf-8 or gbk")
	unit := flags.String("unit", "", "of the amounts: yuan or fen (amt of the callback is in fen); no default, since a refund goes by it")
	appID := flags.String("app-id", "", "offer `id` of all these payments: needed for their refunds")
	by := flags.String("by", "", "`who` does this; the ledger keeps it")
	dryRun := flags.Bool("dry-run", false, "read the file, look up each payment, and change nothing")
	return func(ctx context.Context, s *shop, out, terminal io.Writer) error {
		for name, value := range map[string]string{"file": *file, "columns": *columns, "unit": *unit, "by": *by} {
			if value == "" {
				return fmt.Errorf("-%s is missing", name)
			}
		}
		f := os.Stdin
		if *file != "-" {
			var err error
			if f, err = os.Open(*file); err != nil {
				return err
			}
			defer f.Close()
		}
		info, err := f.Stat()
		if err != nil {
			return err
		}
		show := newProgress(terminal, "importing", info.Size())
		old := &export{store: s.store, appID: *appID, unit: *unit, most: maxPayments, read: make(map[[sha256.Size]byte]midas.Amount)}
		if old.amount, err = amountsIn(*unit); err != nil {
			return err
		}
		old.lines, err = openSheet(io.TeeReader(f, show), *encoding, *columns, []string{"billno", "openid", "amount", "time"}, []string{"items", "token", "zone", "metadata", "number"})
		if err != nil {
			return fmt.Errorf("%s: %w", *file, err)
		}
		imports := s.store.Import
		if *dryRun {
			imports = s.lookUp
		}
		result, err := imports(midassql.By(ctx, *by), old.payments())
		show.end()
		look := old.report(result, *dryRun, out) // also of what was done before an error
		return cmp.Or(err, look)
	}
}

// shownLines is how many lines that cannot be read are shown; the others are counted.
const shownLines = 100

// maxPayments of one file are remembered while it is read, in less than 1 GiB.
const maxPayments = 5_000_000

// An export is a file of an earlier backend's payments.
type export struct {
	store  *midassql.Store
	lines  *sheet
	amount func(string) (midas.Amount, error)
	unit   string
	appID  string
	most   int // payments

	read  map[[sha256.Size]byte]midas.Amount // what was charged, by the hash of the payment's id
	twice int                                // lines of payments that an earlier line has
	sum   midas.Amount                       // of what was read
	wrong []string                           // lines that cannot be read, and why: the first ones
	n     int                                // of them all
}

// payments iterates over what can be read, each payment once.
func (e *export) payments() iter.Seq2[*midas.Delivery, error] {
	return func(yield func(*midas.Delivery, error) bool) {
		for {
			err := e.lines.next()
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				yield(nil, err)
				return
			}
			d, err := e.payment()
			if err == nil {
				err = e.store.CheckImport(d)
			}
			if err == nil {
				id := sha256.Sum256([]byte(midas.PaymentID(d.OpenID, d.BillNo)))
				switch charged, again := e.read[id]; {
				case !again && len(e.read) == e.most:
					yield(nil, fmt.Errorf("line %d: the file has more than %d payments: split it", e.lines.line, e.most))
					return
				case !again:
					e.read[id] = d.Charged
					e.sum += d.Charged
					if !yield(d, nil) {
						return
					}
					continue
				case charged == d.Charged:
					e.twice++
					continue
				default:
					err = fmt.Errorf("%s yuan for a payment that an earlier line has with %s", d.Charged.Yuan(), charged.Yuan())
				}
			}
			if e.n++; len(e.wrong) < shownLines {
				e.wrong = append(e.wrong, visible(short(fmt.Sprintf("line %d: %s", e.lines.line, strings.ReplaceAll(strings.TrimPrefix(err.Error(), "midassql: CheckImport: "), "\n", "; ")))))
			}
		}
	}
}

// asNumber is what spreadsheets make of a long number.
var asNumber = regexp.MustCompile(`^#|^\d+(\.\d+)?E\+\d+$`)

// payment reads a line.
func (e *export) payment() (d *midas.Delivery, err error) {
	if err := e.lines.whole(); err != nil {
		return nil, err
	}
	d = &midas.Delivery{BillNo: e.lines.cell("billno"), OpenID: e.lines.cell("openid"), AppID: e.appID, Token: e.lines.cell("token"),
		ZoneID: e.lines.cell("zone"), Metadata: e.lines.cell("metadata")}
	if asNumber.MatchString(d.BillNo) {
		return nil, fmt.Errorf("the billno %q is what a spreadsheet made of it: export it as text", short(d.BillNo))
	}
	if number := e.lines.cell("number"); number != "" {
		d.Numbers = []string{number}
	}
	if d.Charged, err = e.amount(e.lines.cell("amount")); err != nil {
		return nil, fmt.Errorf("the amount %q is none in %s", short(e.lines.cell("amount")), e.unit)
	}
	if d.Time, err = parseTime(e.lines.cell("time")); err != nil {
		return nil, err
	}
	if d.Time.Year() < 2010 { // Midas is younger: it is a number of days, or of something else
		return nil, fmt.Errorf("the time %q is before 2010", short(e.lines.cell("time")))
	}
	items := e.lines.cell("items")
	if items == "" {
		return d, nil
	}
	if d.Items, err = midas.ParseItems(items); err != nil {
		return nil, fmt.Errorf("the items: %w", err)
	}
	cost := midas.Amount(0)
	for _, item := range d.Items {
		cost += item.Price * midas.Amount(item.Quantity)
	}
	if d.Charged > cost { // discounts there are, and surcharges not (protocol.md 5)
		return nil, fmt.Errorf("%s yuan were charged for items that cost %s: is -unit right?", d.Charged.Yuan(), cost.Yuan())
	}
	return d, nil
}

// parseTime reads what databases and spreadsheets write: local time, a time with its zone, or seconds since 1970.
func parseTime(text string) (time.Time, error) {
	if seconds, err := strconv.ParseInt(text, 10, 64); err == nil {
		return time.Unix(seconds, 0), nil
	}
	for _, layout := range []string{time.RFC3339, "2006-1-2 15:04:05", "2006/1/2 15:04:05", "2006/1/2 15:04"} {
		if at, err := time.ParseInLocation(layout, text, time.Local); err == nil {
			return at, nil
		}
	}
	return time.Time{}, fmt.Errorf("the time %q is none: want 2026-11-24 09:30:00, 2026-11-24T09:30:00+08:00 or seconds since 1970", short(text))
}

// lookUp says what Import would do, as far as the ledger stays as it is.
func (s *shop) lookUp(ctx context.Context, payments iter.Seq2[*midas.Delivery, error]) (result midassql.ImportResult, err error) {
	none := func(func(*midas.Delivery, error) bool) {}
	if result, err = s.store.Import(ctx, none); err != nil { // the tables are not there, or another environment's
		return result, err
	}
	for d, err := range payments {
		if err != nil {
			return result, err
		}
		q := midassql.Query{OpenID: d.OpenID, BillNo: d.BillNo}
		var known *midassql.KnownPayment
		for p, err := range s.store.Payments(ctx, q) {
			if err != nil {
				return result, err
			}
			granted := p.State == midassql.StateDone || p.State == midassql.StateBroken
			known = &midassql.KnownPayment{OpenID: p.OpenID, BillNo: p.BillNo, State: p.State, MayHave: granted || p.MayHave}
		}
		before := false
		for a, err := range s.store.Acts(ctx, q) {
			if err != nil {
				return result, err
			}
			before = before || a.Kind == midassql.ActImport
		}
		switch {
		case before:
			result.Repeats++
		case known != nil:
			result.Known = append(result.Known, *known)
		default:
			result.New++
		}
	}
	return result, nil
}

// report prints what became of the payments, and of the lines that are none.
func (e *export) report(result midassql.ImportResult, dryRun bool, out io.Writer) error {
	for _, problem := range e.wrong {
		fmt.Fprintln(out, problem)
	}
	if more := e.n - len(e.wrong); more > 0 {
		fmt.Fprintf(out, "and %d more lines\n", more)
	}
	table, look := newTable(out, "HERE ALREADY", "OPENID", "STATE", "GRANTED HERE, TOO"), e.n > 0
	for _, k := range result.Known {
		granted := ""
		if k.MayHave {
			granted = "yes: the player may have it twice"
		}
		table.row(k.BillNo, k.OpenID, string(k.State), granted)
		look = look || k.MayHave || k.State != midassql.StateWaiting
	}
	table.flush()
	result.Repeats += e.twice
	said := "%d imported, %d imported before, %d here already, %d lines that cannot be read\n"
	if dryRun {
		said = "nothing was changed: %d to import, %d imported before, %d here already, %d lines that cannot be read\n"
	}
	fmt.Fprintf(out, said, result.New, result.Repeats, len(result.Known), e.n)
	fmt.Fprintf(out, "%s yuan were charged for the %d payments of the file\n", e.sum.Yuan(), len(e.read))
	if look {
		return errLook
	}
	return nil
}
