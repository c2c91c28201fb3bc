package main

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midassql"
)

// What customer service, finance and operations ask of the ledger, each a command of its own:
//
//	gameserver payments -openid ...
//	gameserver regrant -openid ... -billno ... -items gem60*60*1 -by anna -reason "ticket 4711"
//	gameserver refund -billno ... -openid ... -id 4711 -yuan 6.00 -by anna -reason "bought by a child"
//	gameserver reconcile -bill FILE -columns billno=...,openid=...,amount=...
//	gameserver import -file FILE -columns billno=...,openid=...,amount=...,time=... -unit fen -by anna
//	gameserver migrate

// A command does one thing and ends. define adds its flags and returns what it does once they
// are parsed.
type command struct {
	usage  string
	define func(flags *flag.FlagSet) action
	slow   bool // a statement may take as long as it needs
}

// An action writes its result to out and, if somebody watches, its progress to terminal.
type action func(ctx context.Context, s *shop, out, terminal io.Writer) error

var commands = map[string]command{
	"payments":  {"Look up payments, and orders that nobody paid, of a player or by any number of theirs.", payments, false},
	"regrant":   {"Grant a payment that stands on Tencent's bill and was not delivered (补单). The ledger keeps who did it and why, and grants nothing twice.", regrant, false},
	"refund":    {"Note a refund (退款) in the ledger, and take the items back when all of the money goes back. Refund in Tencent's console after it.", refund, false},
	"migrate":   {"Make the tables, or change those of an earlier release, before the servers of this one start.", migrateTables, true},
	"import":    {"Put the payments that an earlier backend granted into the ledger, so that none is granted again: a CSV file with a header. Exits with 1 if a line cannot be read, or somebody has to look at a payment; it can be run again.", importPayments, false},
	"reconcile": {"Compare the ledger with Tencent's bill (对账): a CSV file with a header. Exits with 1 if anything differs, with 2 if it could not compare.", reconcile, false},
}

// errDiffers is what reconcile found. It has said what.
var errDiffers = errors.New("the ledger and the bill differ")

func isCommand(args []string) bool {
	return len(args) > 0 && commands[args[0]].define != nil
}

// runCommand runs a command on the database of -db or MIDAS_DATABASE_URL.
func runCommand(ctx context.Context, name string, args []string, getenv func(string) string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("gameserver "+name, flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprintf(stderr, "%s\n\n", commands[name].usage)
		flags.PrintDefaults()
	}
	url := flags.String("db", "", "database, as the server has it (default MIDAS_DATABASE_URL)")
	gateway := flags.String("midas", "", "`gateway`, as the server has it: live tables take no regrant of the sandbox's (default MIDAS_GATEWAY)")
	do := commands[name].define(flags)
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return err
	case err != nil:
		return errUsage
	case flags.NArg() > 0:
		return fmt.Errorf("unexpected argument %q: everything is a flag", flags.Arg(0))
	}

	databaseURL := cmp.Or(*url, getenv("MIDAS_DATABASE_URL"), "gameserver.db")
	if commands[name].slow {
		databaseURL = withoutLimits(databaseURL)
	}
	db, err := openDatabase(databaseURL)
	if err != nil {
		return err
	}
	defer db.Close()
	log := slog.New(slog.NewTextHandler(stderr, nil))
	store, err := midassql.New(db.DB, db.dialect, midassql.Options{Logger: log, Classify: db.classify, Environment: environmentOf(cmp.Or(*gateway, getenv("MIDAS_GATEWAY")))})
	if err != nil {
		return err
	}
	var terminal io.Writer
	if isTerminal(stderr) {
		terminal = stderr
	}
	err = do(ctx, &shop{store: store, db: db, log: log}, stdout, terminal)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("stopped: %w", ctx.Err())
	case errors.Is(err, midassql.ErrEnvironment):
		return fmt.Errorf("%w (here -midas or MIDAS_GATEWAY names it)", err)
	case noTable(err):
		return fmt.Errorf("%w: run gameserver migrate first, or is it another database?", err)
	}
	return err
}

// withoutLimits gives statements the time that a callback does not have, such as for an index on
// MySQL. A COMMIT then lasts as long as the server waits for its replica, whatever becomes of the
// context.
func withoutLimits(name string) string {
	switch {
	case !strings.HasPrefix(name, "mysql://"):
		return name
	case strings.Contains(name, "?"):
		return name + "&readTimeout=0s&writeTimeout=0s"
	}
	return name + "?readTimeout=0s&writeTimeout=0s"
}

// refunded says how much of a payment was refunded.
func refunded(p midassql.Payment) string {
	switch {
	case p.RefundedInFull && p.Refunded == 0:
		return "all"
	case p.Refunded == 0:
		return ""
	}
	return p.Refunded.Yuan()
}

// mayHave says whether the player may have what waits or was cancelled.
func mayHave(p midassql.Payment) string {
	if p.MayHave {
		return "yes"
	}
	return ""
}

// payments prints what the ledger knows.
func payments(flags *flag.FlagSet) action {
	var q midassql.Query
	flags.StringVar(&q.OpenID, "openid", "", "of the `player`")
	flags.StringVar(&q.BillNo, "billno", "", "Midas's serial `number`, as the bill has it")
	flags.StringVar(&q.Number, "number", "", "the `number` on the player's receipt")
	flags.StringVar(&q.Token, "token", "", "of the `order`")
	flags.StringVar(&q.Metadata, "metadata", "", "the game's own order `number`")
	flags.StringVar(&q.AppID, "app-id", "", "payments of this offer `id` only, where several apps share the tables")
	dayVar(flags, &q.From, "from", "first `day`, such as 2026-11-24")
	dayVar(flags, &q.To, "to", "`day` after the last")
	return func(ctx context.Context, s *shop, out, _ io.Writer) error {
		if q == (midassql.Query{}) {
			return errors.New("say whom or what to look for: -openid, -billno, -number, -token, -metadata, or -from and -to")
		}

		table := newTable(out, "STORED", "BILLNO", "OPENID", "ZONE", "ITEMS", "YUAN", "REFUNDED", "STATE", "MAY HAVE", "REPEATS", "TOKEN", "METADATA", "BY", "NOTE", "LAST ERROR")
		for p, err := range s.store.Payments(ctx, q) {
			if err != nil {
				return err
			}
			table.row(clock(p.Stored), p.BillNo, p.OpenID, p.ZoneID, midas.FormatItems(p.Items), p.Charged.Yuan(), refunded(p), string(p.State),
				mayHave(p), strconv.Itoa(p.Repeats), p.Token, p.Metadata, p.SettledBy, p.Note, p.LastError)
		}
		table.flush()
		fmt.Fprintf(out, "%d payments\n", table.n)
		if err := history(ctx, s.store, q, out); err != nil {
			return err
		}
		if q.BillNo+q.Number != "" { // an order has none
			return nil
		}
		unpaid := newTable(out, "ORDERED", "OPENID", "ZONE", "ITEMS", "TOKEN", "METADATA")
		q.AppID = ""
		for o, err := range unpaidOrders(ctx, s.store, q) {
			if err != nil {
				return err
			}
			unpaid.row(clock(o.Saved), o.OpenID, o.ZoneID, midas.FormatItems(o.Items), o.Token, o.Metadata)
		}
		unpaid.flush()
		fmt.Fprintf(out, "%d orders without a payment\n", unpaid.n)
		return nil
	}
}

// history prints the callbacks that were not answered OK, and who did what by hand.
func history(ctx context.Context, store *midassql.Store, q midassql.Query, out io.Writer) error {
	if q.Metadata+q.Number != "" { // callbacks that failed are not known by these
		return nil
	}
	q.AppID = ""
	failed := newTable(out, "NOT ANSWERED OK", "BILLNO", "OPENID", "TOKEN", "OUTCOME", "RET", "ERROR")
	for a, err := range store.Attempts(ctx, q) {
		if err != nil {
			return err
		}
		failed.row(clock(a.Time), a.BillNo, a.OpenID, a.Token, string(a.Outcome), strconv.Itoa(a.Ret), a.Error)
	}
	failed.flush()
	if q.Token != "" { // nor is what somebody did
		return nil
	}
	byHand := newTable(out, "BY HAND", "BILLNO", "OPENID", "WHAT", "WHO", "WHY")
	for a, err := range store.Acts(ctx, q) {
		if err != nil {
			return err
		}
		byHand.row(clock(a.Time), a.BillNo, a.OpenID, string(a.Kind), a.By, a.Reason)
	}
	byHand.flush()
	return nil
}

// unpaidOrders iterates over the orders that q asks for and no payment belongs to.
func unpaidOrders(ctx context.Context, store *midassql.Store, q midassql.Query) iter.Seq2[midassql.StoredOrder, error] {
	if q == (midassql.Query{From: q.From, To: q.To}) {
		return store.UnpaidOrders(ctx, q.From, q.To)
	}
	return func(yield func(midassql.StoredOrder, error) bool) {
		for o, err := range store.Orders(ctx, q) { // a player's: they are few
			paid := false
			if err == nil {
				for _, err = range store.Payments(ctx, midassql.Query{Token: o.Token}) {
					paid = err == nil
					break
				}
			}
			if !paid && !yield(o, err) {
				return
			}
		}
	}
}

// regrant grants by hand what the bill shows.
func regrant(flags *flag.FlagSet) action {
	d := &midas.Delivery{Time: time.Now()}
	p := midassql.Settlement{Delivery: d}
	flags.StringVar(&d.OpenID, "openid", "", "of the `player`")
	flags.StringVar(&d.BillNo, "billno", "", "Midas's serial `number`, exactly as the bill has it")
	flags.StringVar(&d.Token, "token", "", "of the `order`, if it is known: then the payment is compared with the order")
	flags.StringVar(&d.ZoneID, "zone", "", "`zone` that the items go to: needed where no order is stored that says it, compared with the order's where one is")
	flags.StringVar(&d.AppID, "app-id", "", "offer `id`, where several apps share the tables")
	flags.StringVar(&p.By, "by", "", "`who` does this; the ledger keeps it")
	flags.StringVar(&p.Reason, "reason", "", "`why`, such as the number of a ticket; the ledger keeps it")
	items := flags.String("items", "", "what was paid for, as `id*price*quantity`, prices in Q-points, several joined by \";\"")
	charged := flags.String("charged", "", "what the player paid, in `yuan`, as the bill has it")
	return func(ctx context.Context, s *shop, out, _ io.Writer) error {
		for name, value := range map[string]string{"openid": d.OpenID, "billno": d.BillNo, "items": *items, "charged": *charged, "by": p.By, "reason": p.Reason} {
			if value == "" {
				return fmt.Errorf("-%s is missing", name)
			}
		}
		if d.Token == "" && d.ZoneID == "" {
			return errors.New("-zone is missing: without -token nothing says where the items go")
		}
		var err error
		if d.Items, err = midas.ParseItems(*items); err != nil {
			return fmt.Errorf("-items: %w", err)
		}
		if d.Charged, err = midas.ParseYuan(*charged); err != nil {
			return fmt.Errorf("-charged: %w", err)
		}
		if d.Charged <= 0 { // any refund would be all of it
			return errors.New("-charged: want what the player paid, such as 6.00")
		}
		for _, item := range d.Items { // without a token nothing else would notice a slip
			if goods, known := catalogue[item.ID]; !known || goods.price != item.Price {
				return fmt.Errorf("-items: %s at %s Q-points is not in the catalogue", item.ID, item.Price.QPoints())
			}
		}
		granted, err := s.store.Settle(ctx, p, s.grant)
		if err != nil {
			return err
		}
		if granted {
			fmt.Fprintf(out, "granted: %s to %s for %s\n", *items, d.OpenID, d.BillNo)
			return nil
		}
		for before, err := range s.store.Payments(ctx, midassql.Query{OpenID: d.OpenID, BillNo: d.BillNo}) {
			if err != nil {
				return err
			}
			fmt.Fprintf(out, "nothing changed: %s is in the ledger since %s, %s (%s)\n",
				d.BillNo, clock(before.Stored), before.State, midas.FormatItems(before.Items))
		}
		return nil
	}
}

// refund notes a refund that no callback tells of.
func refund(flags *flag.FlagSet) action {
	r := midassql.Refund{Time: time.Now()}
	flags.StringVar(&r.OpenID, "openid", "", "of the `player`")
	flags.StringVar(&r.BillNo, "billno", "", "Midas's serial `number`, exactly as the bill has it")
	flags.StringVar(&r.Number, "number", "", "the `number` on the player's receipt, instead of -billno")
	flags.StringVar(&r.AppID, "app-id", "", "offer `id`: needed where the payment has not come yet")
	flags.StringVar(&r.ID, "id", "", "of the refund, such as the `number` of a ticket: the same one is noted once")
	flags.StringVar(&r.By, "by", "", "`who` does this; the ledger keeps it")
	flags.StringVar(&r.Reason, "reason", "", "`why`; the ledger keeps it")
	yuan := flags.String("yuan", "", "how much goes back, in `yuan`")
	return func(ctx context.Context, s *shop, out, _ io.Writer) error {
		for name, value := range map[string]string{"id": r.ID, "yuan": *yuan, "by": r.By, "reason": r.Reason} {
			if value == "" {
				return fmt.Errorf("-%s is missing", name)
			}
		}
		var err error
		if r.Amount, err = midas.ParseYuan(*yuan); err != nil {
			return fmt.Errorf("-yuan: %w", err)
		}
		if r.Amount <= 0 {
			return errors.New("-yuan: want what goes back, such as 6.00")
		}
		result, err := s.store.Refund(ctx, r, s.takeBack)
		if err != nil {
			return err
		}
		had, err := s.inJournal(ctx, r)
		if err != nil {
			return err
		}
		said := "noted"
		if result.Repeat {
			said = "noted before"
		}
		fmt.Fprintf(out, "%s: %s of %s yuan went back\n", said, result.Refunded.Yuan(), result.Charged.Yuan())
		switch {
		case result.Early:
			fmt.Fprintln(out, "the payment has not come yet: what is charged then decides whether it is granted")
		case result.Full && result.Granted && had:
			fmt.Fprintln(out, "the items were taken back")
		case result.Full && result.Granted: // an imported payment
			fmt.Fprintln(out, "THE JOURNAL HAS NO ITEMS OF THIS PAYMENT: take them back where they were granted")
		case result.Full:
			fmt.Fprintln(out, "the player never had the items")
		}
		if result.Over {
			fmt.Fprintln(out, "MORE WENT BACK THAN WAS CHARGED: compare with the bill")
		}
		return nil
	}
}

// takeBack takes back what the journal has for a payment, once all of its money went back.
func (s *shop) takeBack(ctx context.Context, tx *sql.Tx, p *midassql.Payment, granted bool) error {
	if !granted || !p.RefundedInFull {
		return nil
	}
	_, err := tx.ExecContext(ctx, s.db.takeBack, p.OpenID, p.BillNo)
	return err
}

// inJournal reports whether the journal has, or had, items of the payment that r refunds.
func (s *shop) inJournal(ctx context.Context, r midassql.Refund) (had bool, err error) {
	for p, err := range s.store.Payments(ctx, midassql.Query{OpenID: r.OpenID, BillNo: r.BillNo, Number: r.Number}) {
		if err != nil {
			return false, err
		}
		if err := s.db.QueryRowContext(ctx, s.db.hadItems, p.OpenID, p.BillNo).Scan(&had); err != nil || had {
			return had, err
		}
	}
	return false, nil
}

// dayVar adds a flag for a day of the local calendar.
func dayVar(flags *flag.FlagSet, p *time.Time, name, usage string) {
	flags.Func(name, usage, func(text string) (err error) {
		*p, err = time.ParseInLocation(time.DateOnly, text, time.Local)
		return err
	})
}

func clock(t time.Time) string { return t.Format(time.DateTime) }

// A table is text in columns, followed by a blank line. Without rows it is nothing.
type table struct {
	out   io.Writer
	heads []string
	rows  *tabwriter.Writer // nil without rows
	n     int
}

func newTable(out io.Writer, heads ...string) *table { return &table{out: out, heads: heads} }

func (t *table) row(cells ...string) {
	t.n++
	if t.rows == nil {
		t.rows = tabwriter.NewWriter(t.out, 0, 4, 2, ' ', 0)
		fmt.Fprintln(t.rows, strings.Join(t.heads, "\t"))
	}
	for i, cell := range cells {
		if i > 0 {
			fmt.Fprint(t.rows, "\t")
		}
		fmt.Fprint(t.rows, visible(cell))
	}
	fmt.Fprintln(t.rows)
}

func (t *table) flush() {
	if t.rows != nil {
		t.rows.Flush()
		fmt.Fprintln(t.out)
	}
}

// visible keeps text from elsewhere from moving columns or the terminal's cursor.
func visible(text string) string {
	if strings.ContainsFunc(text, func(c rune) bool { return !strconv.IsPrint(c) }) {
		return strings.Trim(strconv.Quote(text), `"`)
	}
	return text
}
