package minigame

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/midas-go/midas/internal/call"
)

// A DownloadKind is what [Program.DownloadOrders] lists.
type DownloadKind int

// The kinds of orders.
const (
	TokenOrders        DownloadKind = 1
	ItemOrders         DownloadKind = 2
	SubscriptionOrders DownloadKind = 3
	RefundOrders       DownloadKind = 4
)

// A Download says which orders [Program.DownloadOrders] lists.
type Download struct {
	Env        Env
	Begin, End time.Time // their days in China, at most 31 days apart
	Kind       DownloadKind
	Apple      bool // orders paid through Apple; false: through WeChat Pay

	// Delivered lists the items and subscriptions that were delivered; false lists those that were
	// not, and WeChat wants to be asked once for each. Other kinds ignore it.
	Delivered bool

	// Progress optionally hears how long the list has been in the making, each time that WeChat
	// says that it is not ready.
	Progress func(taken time.Duration)
}

// DownloadOrders has WeChat list a mini program's orders and returns the list as WeChat made it;
// its format is not documented. The caller closes it. It is the only list in bulk that finds
// payments which were never delivered.
//
// It starts a task and asks for it (/xpay/start_download_order, /xpay/query_download_order), first
// after RetryDelay, then at intervals that double up to 30 s, until ctx ends. Give ctx a time limit:
// that of HTTPClient does not count for the file. After a fault at the start, call it again.
func (p *Program) DownloadOrders(ctx context.Context, d Download) (io.ReadCloser, error) {
	started := body{"begin_ds": day(d.Begin), "end_ds": day(d.End), "order_type": d.Kind, "pay_channel": 1, "env": d.Env}
	if d.Apple {
		started["pay_channel"] = 2
	}
	if d.Kind == ItemOrders || d.Kind == SubscriptionOrders {
		started["is_provided"] = d.Delivered
	}
	var wrong []error
	if d.Kind < TokenOrders || d.Kind > RefundOrders {
		wrong = append(wrong, &FieldError{"Kind", "order_type", "is none of the kinds"})
	}
	if day(d.End) < day(d.Begin) || day(d.End) > day(d.Begin.In(china).AddDate(0, 0, 31)) {
		wrong = append(wrong, &FieldError{"End", "end_ds", "before Begin, or over 31 days after it"})
	}
	var task struct {
		ID     string `json:"task_id"`
		Status int    `json:"status"`
		URL    string `json:"download_url"`
	}
	if _, err := p.post(ctx, callStartDownload, d.Env, "", started, &task, wrong...); err != nil {
		return nil, err
	}
	begun, wait := p.config().Now(), p.config().RetryDelay
	for id := task.ID; ; wait = min(2*wait, 30*time.Second) {
		if err := call.Sleep(ctx, wait); err != nil {
			return nil, err
		}
		_, err := p.post(ctx, callQueryDownload, d.Env, "", body{"task_id": id, "env": d.Env}, &task, given("task_id", id))
		if err != nil && !errors.Is(err, ErrNotReady) {
			return nil, err
		}
		switch task.Status { // unlike the tasks of goods: 0 new, 1 running, 2 done, 3 failed
		case 2:
			return p.open(ctx, callQueryDownload.path, task.URL)
		case 3:
			return nil, fmt.Errorf("minigame: %w", &ResponseError{callQueryDownload.path, http.StatusOK, "WeChat's task failed: start another"})
		}
		if d.Progress != nil {
			d.Progress(p.config().Now().Sub(begun))
		}
	}
}

// DownloadBill returns the bill of the days in China from begin to end (/xpay/download_bill), as
// WeChat made it; its format is not documented. The caller closes it. [ErrNotReady]: it is being
// made, ask again later. It is repeated after a fault. Give ctx a time limit that lasts until the
// file is read: the one of HTTPClient does not count for the file.
func (p *Program) DownloadBill(ctx context.Context, begin, end time.Time) (io.ReadCloser, error) {
	var a struct {
		URL string `json:"url"`
	}
	if _, err := p.post(ctx, callBill, Live, "", body{"begin_ds": day(begin), "end_ds": day(end)}, &a); err != nil {
		return nil, err
	}
	return p.open(ctx, callBill.path, a.URL)
}

// DownloadAppleBill is DownloadBill for what Apple settles (/xpay/download_ios_settlement_bill):
// the bill of a month in China.
func (p *Program) DownloadAppleBill(ctx context.Context, month time.Time) (io.ReadCloser, error) {
	of := month.In(china).Format("200601")
	var a struct {
		Bills []struct {
			Month string `json:"month"`
			URL   string `json:"bill_url"`
		} `json:"bill_list"`
	}
	if _, err := p.post(ctx, callAppleBill, Live, "", body{"start_month": of, "end_month": of}, &a); err != nil {
		return nil, err
	}
	var file string
	for _, bill := range a.Bills {
		if bill.Month == of {
			file = bill.URL
		}
	}
	return p.open(ctx, callAppleBill.path, file)
}

var china = time.FixedZone("CST", 8*60*60)

// day returns t's day in China as yyyymmdd.
func day(t time.Time) int {
	year, month, day := t.In(china).Date()
	return year*10000 + int(month)*100 + day
}

// open opens the file that a call answered with. Its address holds a signature, so no error shows
// it.
func (p *Program) open(ctx context.Context, path, address string) (io.ReadCloser, error) {
	if address == "" {
		return nil, fmt.Errorf("minigame: %s: %w", path, ErrNotReady)
	}
	address, query, _ := strings.Cut(address, "?")
	request := call.Request{Method: http.MethodGet, URL: address, Query: query, Header: http.Header{}, Values: func() []string { return []string{address, query} }}
	hc := *p.http
	hc.Timeout = 0 // which is that of a call, and a file may be long
	resp, err := request.Open(ctx, &hc)
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil:
		return nil, fmt.Errorf("minigame: %s: the file: %w", path, err)
	case resp.StatusCode != http.StatusOK:
		resp.Body.Close()
		return nil, fmt.Errorf("minigame: %w", &ResponseError{path, resp.StatusCode, "of its file"})
	}
	return resp.Body, nil
}
