package frameworks

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/midas-go/midas"
)

// The two moments of a callback, as the handler has them: Midas hangs up after 2 s.
const (
	deliverTime = 1500 * time.Millisecond
	answerTime  = 1800 * time.Millisecond
)

// ByHand answers a callback where no http.Handler can be mounted, and is the last resort: log
// lines, events, the limit on running grants and Client.Wait are the handler's. rawQuery is
// what follows the "?" on the request line, untouched, in memory that nobody reuses. The
// answer goes out with its Content-Length, and nothing around it.
func ByHand(client *midas.Client, deliver midas.DeliverFunc, method, rawQuery string) (status int, body []byte) {
	if method != http.MethodGet { // the signature covers the method
		return http.StatusMethodNotAllowed, nil
	}
	d, err := client.ParseDeliveryQuery(rawQuery)
	if err != nil {
		return http.StatusOK, midas.ReplyTo(err).Bytes()
	}
	openID, billNo := d.OpenID, d.BillNo // d is the grant's from here on
	// Not the request's context: a grant may outlive its answer.
	ctx, cancel := context.WithTimeout(context.Background(), deliverTime)
	results := make(chan error, 1)
	go func() {
		defer cancel()
		results <- safely(ctx, deliver, d)
	}()

	answerBy := time.NewTimer(answerTime)
	defer answerBy.Stop()
	select {
	case err = <-results:
	case <-answerBy.C:
		err = errors.New("no result in time")
		go func() {
			if <-results == nil {
				slog.Error("delivered after ret 1 was answered: reconcile it", "openid", openID, "billno", billNo)
			}
		}()
	}
	if err != nil {
		slog.Error("not delivered", "openid", openID, "billno", billNo, "error", err)
	}
	return http.StatusOK, midas.ReplyTo(err).Bytes()
}

// safely makes an error of a panic, which in a goroutine would end the process.
func safely(ctx context.Context, deliver midas.DeliverFunc, d *midas.Delivery) (err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("panic: %v\n%s", cause, debug.Stack())
		}
	}()
	return deliver(ctx, d)
}
