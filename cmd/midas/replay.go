package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/cmd/midas/internal/explain"
	"github.com/midas-go/midas/cmd/midas/internal/lang"
	"github.com/midas-go/midas/cmd/midas/internal/tap"
	"github.com/midas-go/midas/midastest"
)

// What is read at most.
const (
	maxLine   = 8 << 20  // bytes of a line; tap writes long ones
	maxReplay = 64 << 20 // bytes of all callbacks together
)

func runReplay(ctx context.Context, args []string, t *terminal) int {
	const name = "replay"
	flags := newFlags(name)
	endpoint := flags.String("url", "", "")
	since := flags.String("since", "", "")
	rate := flags.Int("rate", 5, "")
	live := flags.Bool("live", false, "")
	if code, ok := t.parse(flags, args); !ok {
		return code
	}
	from, err := parseSince(*since, time.Now())
	if t.refused(name, when(flags.NArg() != 1, lang.T("replay.no-file")), flagError("-url", checkDeliveryURL(*endpoint)), when(!*live && checkDeliveryURL(*endpoint) == nil && !onThisMachine(*endpoint), lang.T("replay.not-here")),
		when(*rate < 1 || *rate > 1000, lang.T("replay.rate")), flagError("-since", err)) {
		return exitUsage
	}
	in := t.in
	if flags.Arg(0) != "-" {
		file, err := os.Open(flags.Arg(0))
		if err != nil {
			return t.failed(name, err)
		}
		defer file.Close()
		in = file
	}
	var recorded []recordedCallback
	var skipped int
	read := make(chan error, 1)
	go func() {
		var err error
		recorded, skipped, err = readCallbacks(in, from)
		read <- err
	}()
	select {
	case err := <-read:
		if err != nil {
			return t.failed(name, err)
		}
	case <-ctx.Done(): // a terminal, or a pipe, may never end
		return t.failed(name, lang.T("replay.stopped-early"))
	}
	fmt.Fprintln(t.out, t.say("replay.read", len(recorded), skipped))
	srv := midastest.New(midastest.Config{CallbackClient: ownClient})
	srv.DeliverTo(*endpoint)
	return (&replay{terminal: t, pause: time.Second / time.Duration(*rate), deliver: srv.Deliver, progress: t.progress()}).run(ctx, recorded)
}

// onThisMachine reports whether the host of a URL is this machine. A name other than localhost
// may mean another one tomorrow.
func onThisMachine(endpoint string) bool {
	u, _ := url.Parse(endpoint) // checked before
	ip, err := netip.ParseAddr(u.Hostname())
	return err == nil && ip.Unmap().IsLoopback() || strings.EqualFold(u.Hostname(), "localhost")
}

// parseSince reads a time as -since describes; the zero time where there is none.
func parseSince(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if seconds, err := strconv.ParseInt(text, 10, 64); err == nil {
		return time.Unix(seconds, 0), nil
	}
	if back, err := time.ParseDuration(text); err == nil && back >= 0 {
		return now.Add(-back), nil
	}
	for _, layout := range []string{time.RFC3339, time.DateTime, "2006-01-02 15:04", time.DateOnly} {
		if at, err := time.ParseInLocation(layout, text, now.Location()); err == nil {
			return at, nil
		}
	}
	return time.Time{}, lang.T("replay.since", text)
}

// A recordedCallback is the query of a callback, and what it says of itself.
type recordedCallback struct {
	query   string
	billNo  string
	ts      int64
	payment string // (openid, billno)
}

// readCallbacks returns the callbacks of a record or an access log from a time on, in their
// sequence, and how many lines were left out.
func readCallbacks(in io.Reader, from time.Time) (recorded []recordedCallback, skipped int, err error) {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, maxLine)
	seen := map[string]bool{}
	size, number := 0, 0
	for lines.Scan() {
		number++
		if tap.Masked(lines.Text()) {
			return nil, 0, lang.T("replay.masked", number)
		}
		c, ok := readCallback(lines.Text())
		if !ok || seen[c.query] || c.ts < from.Unix() && !from.IsZero() {
			skipped++
			continue
		}
		seen[c.query] = true
		recorded = append(recorded, c)
		if size += len(c.query); size > maxReplay {
			return nil, 0, lang.T("replay.much", number)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, 0, lang.T("replay.line", number+1, err)
	}
	return recorded, skipped, nil
}

// readCallback reads a line of a record or of an access log.
func readCallback(line string) (c recordedCallback, ok bool) {
	if strings.HasPrefix(line, "{") {
		var e struct{ Kind, Action, URL string }
		if json.Unmarshal([]byte(line), &e) == nil && e.Kind != "" {
			if e.Kind != "callback" || e.Action == "forge" {
				return c, false
			}
			line = e.URL
		}
	}
	m, err := explain.Parse(line, "")
	if err != nil || m.Kind != explain.Callback || m.Method != "" && m.Method != "GET" || m.FromJSON {
		return c, false
	}
	params := m.Params()
	c = recordedCallback{query: m.RawQuery, billNo: explain.Value(params, "billno")}
	c.payment = midas.PaymentID(explain.Value(params, "openid"), c.billNo)
	c.ts, _ = strconv.ParseInt(explain.Value(params, "ts"), 10, 64) // one that is no number is before every time
	return c, c.billNo != "" && explain.Value(params, "openid") != "" && explain.Value(params, "sig") != ""
}

// A replay sends recorded callbacks.
type replay struct {
	*terminal
	pause    time.Duration // from the beginning of one to the next, at least
	deliver  func(ctx context.Context, rawQuery string) (*midastest.Receipt, error)
	progress func(text string)
}

func (r *replay) run(ctx context.Context, recorded []recordedCallback) (code int) {
	begin, refused := time.Now(), 0
	paid := make(map[string]bool) // payments among the accepted callbacks: an answer cannot tell a repeat from a grant
	tick := time.NewTicker(r.pause)
	defer tick.Stop()
	for i, c := range recorded {
		if ctx.Err() != nil {
			next := slices.MinFunc(recorded[i:], func(a, b recordedCallback) int { return cmp.Compare(a.ts, b.ts) })
			r.progress("")
			fmt.Fprintln(r.out, r.say("replay.stopped", i, len(recorded)-i, next.ts))
			return exitFailed
		}
		// One under way is not cut off: the backend may be granting.
		receipt, err := r.deliver(context.WithoutCancel(ctx), c.query)
		if err != nil {
			r.progress("")
			return r.failed("replay", err)
		}
		e := newCallback("replay", receipt)
		colour := explain.Green
		if e.Accepted {
			paid[c.payment] = true
		} else {
			refused++
			colour = explain.Red
		}
		r.progress("")
		fmt.Fprintf(r.out, "%d/%d  %s  %s\n", i+1, len(recorded), lang.Printable(c.billNo), r.paint(colour, e.verdict().In(r.lang)))
		left := len(recorded) - i - 1
		if left == 0 {
			break
		}
		each := max(r.pause, time.Since(begin)/time.Duration(i+1))
		r.progress(r.say("replay.left", left, refused, (each * time.Duration(left)).Round(time.Second)))
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	fmt.Fprintln(r.out, r.say("replay.done", len(recorded)-refused, refused, len(paid)))
	if refused > 0 {
		return exitFailed
	}
	return exitOK
}
