package main

import (
	"bytes"
	"cmp"
	"embed"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/cmd/midas/internal/explain"
	"github.com/midas-go/midas/cmd/midas/internal/lang"
)

//go:embed pages
var pageFiles embed.FS

var templates = sync.OnceValue(func() *template.Template {
	return template.Must(template.New("").Funcs(template.FuncMap{"visible": visible}).ParseFS(pageFiles, "pages/*.html"))
})

// maxShown is how many orders the dashboard shows.
const maxShown = 100

// A view is what the templates see.
type view struct {
	Lang string
	T    map[string]string // the words of the page in its language
	*exchange
	Callbacks []view // newest first

	// Of an order: what is sold, and where to pay.
	Name, Description string
	Items             []midas.Item
	Total             midas.Amount
	Cashier           string
	Method            string // the login's own pay method
	Expired           bool
}

// viewOf returns the view of an exchange.
func (s *sandbox) viewOf(language string, e *exchange) view {
	v := view{Lang: language, T: lang.Page(language), exchange: e}
	if e.Kind != "order" {
		return v
	}
	v.Name, v.Description, _ = strings.Cut(explain.Value(e.Params, "goodsmeta"), "*")
	v.Items, _ = midas.ParseItems(explain.Value(e.Params, "payitem")) // in an order that was refused it may be anything
	for _, item := range v.Items {
		v.Total += item.Price * midas.Amount(item.Quantity)
	}
	v.Cashier = cashierPath(s.appID, e.Token)
	return v
}

// Charged returns what a callback says was paid.
func (v view) Charged() midas.Amount {
	fen, _ := strconv.ParseInt(explain.Value(v.Params, "amt"), 10, 64) // midastest wrote it
	return midas.Amount(fen)
}

// Say returns a sentence of midastest in the page's language.
func (v view) Say(sentence string) string { return lang.Said(sentence).In(v.Lang) }

// Text returns a text of the catalogue in the page's language.
func (v view) Text(key string, args ...any) string { return lang.T(key, args...).In(v.Lang) }

// Verdict says in words how it went.
func (v view) Verdict() string { return v.verdict().In(v.Lang) }

func (s *sandbox) serveDashboard(w http.ResponseWriter, r *http.Request) {
	language := pageLanguage(r)
	exchanges := s.all()
	last := 0
	var cards []view                 // newest first
	callbacks := map[string][]view{} // by token; they come after their order
	for _, e := range slices.Backward(exchanges) {
		last = max(last, e.Seq)
		v := s.viewOf(language, e)
		if e.Kind != "order" {
			callbacks[e.Token] = append(callbacks[e.Token], v)
		} else if len(cards) < maxShown {
			v.Callbacks = callbacks[e.Token]
			cards = append(cards, v)
		}
	}
	curl := ""
	if s.callback == "" {
		curl = s.curl("http://" + r.Host)
	}
	writePage(w, http.StatusOK, "dashboard.html", map[string]any{
		"Lang": language, "T": lang.Page(language), "Orders": cards, "Last": s.eventID(last), "Shown": maxShown,
		"Base": "http://" + r.Host, "AppID": s.appID, "Path": s.path, "Curl": curl,
	})
}

// serveCashier shows the page that url_params stands for (protocol.md 4).
func (s *sandbox) serveCashier(w http.ResponseWriter, r *http.Request) {
	language := pageLanguage(r)
	o, found := s.order(r.FormValue("token_id"))
	if !found || r.PathValue("appid") != s.appID {
		writePage(w, http.StatusNotFound, "cashier.html", view{Lang: language, T: lang.Page(language), exchange: &exchange{}})
		return
	}
	v := s.viewOf(language, o)
	v.Expired = s.now().After(expiry(o))
	v.Method = "qqwallet"
	if explain.Value(o.Cookies, "session_id") == "hy_gameid" { // WeChat, or a guest (protocol.md 4)
		v.Method = "wechat"
	}
	writePage(w, http.StatusOK, "cashier.html", v)
}

// serveEvents tells the dashboard of every exchange after the one it knows, as it happens. One
// that knows none is told of those to come.
func (s *sandbox) serveEvents(w http.ResponseWriter, r *http.Request) {
	language := pageLanguage(r)
	known := cmp.Or(r.Header.Get("Last-Event-ID"), r.FormValue("after")) // the first where the browser comes back
	start, seq, _ := strings.Cut(known, "-")
	after, err := strconv.Atoi(seq)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	if known != "" && start != s.start { // the page is that of an earlier run
		io.WriteString(w, "event: reload\ndata: -\n\n")
		return
	}
	if err != nil {
		after = s.newest()
	}
	stream := http.NewResponseController(w)
	send := func(event string) (sent bool) {
		stream.SetWriteDeadline(time.Now().Add(10 * time.Second))
		_, err := io.WriteString(w, event)
		return err == nil && stream.Flush() == nil
	}
	alive := time.NewTicker(20 * time.Second) // a write that fails ends a page that was closed unseen
	defer alive.Stop()
	for sent := send(":\n\n"); sent; {
		e, changed := s.after(after)
		if e != nil {
			after = e.Seq
			sent = send(s.event(language, e))
			continue
		}
		select {
		case <-changed:
		case <-alive.C:
			sent = send(":\n\n")
		case <-r.Context().Done():
			return
		}
	}
}

// event returns an exchange as an event with its piece of the page.
func (s *sandbox) event(language string, e *exchange) string {
	var html bytes.Buffer
	if err := templates().ExecuteTemplate(&html, e.Kind, s.viewOf(language, e)); err != nil {
		panic(err)
	}
	data, _ := json.Marshal(map[string]string{"kind": e.Kind, "token": e.Token, "html": html.String()}) // strings always marshal
	return fmt.Sprintf("id: %s\ndata: %s\n\n", s.eventID(e.Seq), data)
}

// eventID names an exchange beyond this run.
func (s *sandbox) eventID(seq int) string { return s.start + "-" + strconv.Itoa(seq) }

func writePage(w http.ResponseWriter, status int, name string, data any) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Vary", "Accept-Language")
	h.Set("Cache-Control", "no-store")
	// Were anything on the page not escaped, it still would not run.
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	w.WriteHeader(status)
	// Straight to the caller, who may be slow: a page takes many times what is kept. An error
	// means that it hung up.
	_ = templates().ExecuteTemplate(w, name, data)
}

// servePageFile serves the script, the style and the icon.
func servePageFile(w http.ResponseWriter, r *http.Request) {
	if strings.HasSuffix(r.PathValue("file"), ".html") { // a template
		http.NotFound(w, r)
		return
	}
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-cache")
	http.ServeFileFS(w, r, pageFiles, "pages/"+r.PathValue("file"))
}

// pageLanguage returns the first of the browser's languages that there is.
func pageLanguage(r *http.Request) string {
	for tag := range strings.SplitSeq(r.Header.Get("Accept-Language"), ",") {
		tag = strings.ToLower(strings.TrimSpace(tag))
		if language := tag[:min(len(tag), 2)]; language == "en" || language == "zh" {
			return language
		}
	}
	return "en"
}
