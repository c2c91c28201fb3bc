package report

import (
	"io"
	"regexp"
	"slices"

	"github.com/midas-go/midas/cmd/midas/internal/explain"
	"github.com/midas-go/midas/cmd/midas/internal/lang"
	"github.com/midas-go/midas/cmd/midas/internal/tap"
)

// A Sheet says which open points a recording decides.
type Sheet struct {
	Seen     counts     `json:"seen"`
	Points   []Result   `json:"points"`
	Compared Comparison `json:"compared"`
}

// A Result is what a recording says about a point.
type Result struct {
	ID       string      `json:"id"`
	Section  string      `json:"section"`
	Question lang.Text   `json:"question"`
	By       lang.Text   `json:"decided_by"`
	Decided  bool        `json:"decided"`
	Answers  []lang.Text `json:"answers"`
	Lines    []int       `json:"lines"` // of the recording, by their seq
}

// Make makes the sheet of a recording. mask masks an exchange that was recorded with its secrets
// ([tap.Masking]).
func Make(recording io.Reader, mask func(*tap.Exchange)) (*Sheet, error) {
	s := &Sheet{}
	r, err := read(recording, mask, &s.Compared)
	if err != nil {
		return nil, err
	}
	s.Seen = r.seen
	for _, p := range Points {
		var f findings
		p.decide(r, &f)
		slices.Sort(f.lines)
		s.Points = append(s.Points, Result{
			ID: p.ID, Section: p.Section, Question: p.Question(), By: p.By(),
			Decided: len(f.answers) > 0, Answers: f.answers, Lines: slices.Compact(f.lines),
		})
	}
	return s, nil
}

// A Comparison counts on which callbacks a backend and this library agree.
type Comparison struct {
	Agreed      int          `json:"agreed"`
	Verified    int          `json:"verified"`    // of those that agreed: the others were forgeries to both
	Differences []Difference `json:"differences"` // the most frequent reason first
}

// A Difference is our verdict about callbacks to which the backend answered otherwise.
type Difference struct {
	Verdict *tap.Verdict `json:"verdict"` // OK, and why
	Count   int          `json:"count"`
}

// Add adds an exchange if it is a callback with a verdict, and reports whether the two differ.
func (c *Comparison) Add(e *tap.Exchange) (differs bool) {
	switch {
	case e.Kind != tap.Callback || e.Verdict == nil || IsPush(e.Target()):
		return false
	case e.Verdict.OK == e.AnsweredOK:
		// A health check, or a browser that wants an icon, is refused by everybody.
		if p := params(e); explain.Value(p, "billno") != "" && explain.Value(p, "sig") != "" {
			c.Agreed++
			if e.Verdict.OK {
				c.Verified++
			}
		}
		return false
	}
	i := slices.IndexFunc(c.Differences, func(d Difference) bool { return d.Verdict.English == e.Verdict.English })
	if i < 0 {
		i = len(c.Differences)
		c.Differences = append(c.Differences, Difference{Verdict: &tap.Verdict{OK: e.Verdict.OK, English: e.Verdict.English, Chinese: e.Verdict.Chinese}})
	}
	c.Differences[i].Count++
	for ; i > 0 && c.Differences[i].Count > c.Differences[i-1].Count; i-- {
		c.Differences[i], c.Differences[i-1] = c.Differences[i-1], c.Differences[i]
	}
	return true
}

var aboutParam = regexp.MustCompile(`^parameter ([a-z_]+): `)

// printable leaves of a verdict only words of this program: whoever wrote the file may have put others there.
func printable(v *tap.Verdict) {
	if v == nil {
		return
	}
	why := lang.T("tap-report.otherwise")
	for _, key := range []string{"tap.verified", "tap.not-verified", "tap.not-get"} {
		if v.English == lang.T(key).In("en") {
			why = lang.T(key)
		}
	}
	if found := aboutParam.FindStringSubmatch(v.English); found != nil && slices.Contains(callbackNames, found[1]) {
		why = lang.T("tap-report.parameter", found[1])
	}
	v.English, v.Chinese = why.In("en"), why.In("zh")
}
