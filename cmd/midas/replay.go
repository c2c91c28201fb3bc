package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/midas-go/midas/midastest"
)

// What is read at most.
const (
	maxLine   = 1 << 20  // bytes of a line
	maxReplay = 64 << 20 // bytes of all callbacks together
)

const replayAbout = `Usage: midas replay -url http://127.0.0.1:8080/pay/notify [-since TIME] [-rate N] FILE

Sends recorded callbacks to an endpoint once more, byte for byte, one after another, and says of each
reply whether Midas would take it for a delivery. FILE is one that "midas sandbox -record" wrote, or an
access log whose lines still hold the query with its sig; "-" is standard input. Lines without a callback
are left out; a callback that stands there several times is sent once. The sandbox's own forgeries are left
out, too, since the record names them. An access log does not: what was forged there is sent, and refused again.

The endpoint has to grant nothing twice: what it granted before it accepts again.

Only an endpoint on this machine is called, unless -live is given: a callback whose answer came too late
may be one whose charge was cancelled, and would be granted all the same. Check them against the bill first.

Ctrl-C lets the callback under way finish, and says what is left and how to go on.
Exit code 0: all accepted; 1: not; 2: wrong usage.
`

func runReplay(ctx context.Context, args []string, t *terminal) int {
	const name = "replay"
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	endpoint := flags.String("url", "", "delivery `URL` to call")
	since := flags.String("since", "", "leave out callbacks whose ts is before this `time`: \"2026-11-25 10:00:00\" (local), \"2026-11-25\", \"2026-11-25T10:00:00+08:00\", unix seconds, or a duration back from now such as 2h")
	rate := flags.Int("rate", 5, "callbacks a second, at most `N`")
	live := flags.Bool("live", false, "call an endpoint that is not on this machine")
	lang := langFlag(flags)
	if code, ok := t.parse(flags, args, replayAbout); !ok {
		return code
	}
	if flags.NArg() != 1 {
		return t.misused(name, errors.New(`want one file after the flags ("-" for standard input)`))
	}
	if err := checkDeliveryURL(*endpoint); err != nil {
		return t.misused(name, fmt.Errorf("-url: %w", err))
	}
	if !*live && !onThisMachine(*endpoint) {
		return t.misused(name, errors.New("-url: not on this machine; a callback whose charge was cancelled would be granted, so check the bill first, then give -live"))
	}
	if *rate < 1 || *rate > 1000 {
		return t.misused(name, errors.New("-rate: want a number from 1 to 1000"))
	}
	from, err := parseSince(*since, time.Now())
	if err != nil {
		return t.misused(name, fmt.Errorf("-since: %w", err))
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
		return t.failed(name, errors.New("stopped before anything was sent"))
	}
	say := words[language(*lang, t.env)]
	fmt.Fprintf(t.out, say["replayRead"], len(recorded), skipped)
	srv := midastest.New(midastest.Config{})
	srv.DeliverTo(*endpoint)
	return (&replay{
		terminal: t, lang: language(*lang, t.env), pause: time.Second / time.Duration(*rate), deliver: srv.Deliver, progress: t.progress(),
	}).run(ctx, recorded)
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
	return time.Time{}, fmt.Errorf("%s is neither a time such as \"2026-11-25 10:00:00\" nor a duration such as 2h", quote(text))
}

// A recordedCallback is the query of a callback, and what it says of itself.
type recordedCallback struct {
	query  string
	billNo string
	ts     int64
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
		c, ok := readCallback(lines.Text())
		if !ok || seen[c.query] || c.ts < from.Unix() && !from.IsZero() {
			skipped++
			continue
		}
		seen[c.query] = true
		recorded = append(recorded, c)
		if size += len(c.query); size > maxReplay {
			return nil, 0, fmt.Errorf("line %d: more than 64 MiB of callbacks; take a part of the file, or give -since", number)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, 0, fmt.Errorf("line %d: %w", number+1, err)
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
	m, err := parseMessage(line)
	if err != nil || !m.callback || m.method != "GET" {
		return c, false
	}
	params := m.params(once)
	c = recordedCallback{query: m.query, billNo: value(params, "billno")}
	c.ts, _ = strconv.ParseInt(value(params, "ts"), 10, 64) // one that is no number is before every time
	return c, c.billNo != "" && value(params, "openid") != "" && value(params, "sig") != ""
}

// A replay sends recorded callbacks.
type replay struct {
	*terminal
	lang     string
	pause    time.Duration // from the beginning of one to the next, at least
	deliver  func(ctx context.Context, rawQuery string) (*midastest.Receipt, error)
	progress func(text string)
}

func (r *replay) run(ctx context.Context, recorded []recordedCallback) (code int) {
	say := words[r.lang]
	begin, refused := time.Now(), 0
	tick := time.NewTicker(r.pause)
	defer tick.Stop()
	for i, c := range recorded {
		if ctx.Err() != nil {
			next := slices.MinFunc(recorded[i:], func(a, b recordedCallback) int { return cmp.Compare(a.ts, b.ts) })
			r.progress("")
			fmt.Fprintf(r.out, say["replayStopped"], i, len(recorded)-i, next.ts)
			return exitFailed
		}
		// One under way is not cut off: the backend may be granting.
		receipt, err := r.deliver(context.WithoutCancel(ctx), c.query)
		if err != nil {
			r.progress("")
			return r.failed("replay", err)
		}
		e := newCallback("replay", receipt)
		colour := green
		if !e.Accepted {
			refused++
			colour = red
		}
		r.progress("")
		fmt.Fprintf(r.out, "%d/%d  %s  %s\n", i+1, len(recorded), printable(c.billNo), r.paint(colour, e.verdict(r.lang)))
		left := len(recorded) - i - 1
		if left == 0 {
			break
		}
		each := max(r.pause, time.Since(begin)/time.Duration(i+1))
		r.progress(fmt.Sprintf(say["replayLeft"], left, refused, (each * time.Duration(left)).Round(time.Second)))
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	fmt.Fprintf(r.out, say["replayDone"], len(recorded)-refused, refused)
	if refused > 0 {
		return exitFailed
	}
	return exitOK
}
