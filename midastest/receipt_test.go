package midastest_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midastest"
	"github.com/stretchr/testify/require"
)

func TestJudgeSaysWhyAnAnswerIsNotTaken(t *testing.T) {
	t.Parallel()
	const ok = `{"ret":0,"msg":"OK"}`
	for _, test := range []struct {
		name   string
		status int
		body   string
		took   time.Duration
		reason string // a part of it; "" is accepted
	}{
		{"right", 200, ok, time.Second, ""},
		{"right at the last moment", 200, ok, 2 * time.Second, ""},
		{"late", 200, ok, 2*time.Second + time.Millisecond, "took 2.001s"},
		{"a redirect", 301, ok, 0, "redirect"},
		{"another status of success", 204, "", 0, "status 204"},
		{"an error of the server", 500, ok, 0, "status 500"},
		{"nothing", 200, "", 0, "empty"},
		{"a newline at the end", 200, ok + "\n", 0, "ends in a newline"},
		{"a carriage return at the end", 200, ok + "\r", 0, "space, a tab or a line break"},
		{"a blank in front", 200, " " + ok, 0, "space"},
		{"a blank inside", 200, `{"ret": 0,"msg":"OK"}`, 0, "space"},
		{"a tab", 200, "\t" + ok, 0, "space"},
		{"pretty printed", 200, "{\n  \"ret\": 0,\n  \"msg\": \"OK\"\n}", 0, "space"},
		{"a byte order mark", 200, "\ufeff" + ok, 0, "byte order mark"},
		{"compressed", 200, "\x1f\x8b\x08\x00\n", 0, "compressed"},
		{"in lower case", 200, `{"ret":0,"msg":"ok"}`, 0, `msg is "ok"`},
		{"ret as a string", 200, `{"ret":"0","msg":"OK"}`, 0, "is not"},
		{"no msg", 200, `{"ret":0}`, 0, "is not"},
		{"the other order", 200, `{"msg":"OK","ret":0}`, 0, "not the bytes"},
		{"something more", 200, `{"ret":0,"msg":"OK","x":1}`, 0, "not the bytes"},
		{"HTML", 200, `<html>OK</html>`, 0, "is not"},
		{"twice", 200, ok + ok, 0, "is not"},
		{"busy", 200, `{"ret":1,"msg":"system_busy"}`, 0, "ret 1 (system_busy)"},
		{"a bad parameter", 200, `{"ret":4,"msg":"bad_parameter:amt"}`, 0, "ret 4 (bad_parameter:amt)"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			reason := midastest.Judge(test.status, []byte(test.body), test.took)
			if test.reason == "" {
				require.Empty(t, reason)
				return
			}
			require.Contains(t, reason, test.reason)
		})
	}
}

func TestAReceiptHoldsTheAnswersBytesWithAndWithoutSockets(t *testing.T) {
	t.Parallel()
	answer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body) // a server's request always has one
		if err != nil || len(body) > 0 || r.URL.Host != "" || r.Host == "" || r.RequestURI != r.URL.RequestURI() {
			http.Error(w, "not a request as a server gets it", http.StatusTeapot)
			return
		}
		fmt.Fprintln(w, `{"ret":0,"msg":"OK"}`)
	})
	backend := httptest.NewServer(answer)
	defer backend.Close()

	overSocket := midastest.New(midastest.Config{Errorf: t.Errorf})
	overSocket.DeliverTo(backend.URL + deliveryPath)
	inProcess := midastest.New(midastest.Config{Errorf: t.Errorf})
	inProcess.DeliverToHandler(answer, deliveryPath)
	for _, srv := range []*midastest.Server{overSocket, inProcess} {
		receipt, err := srv.Pay(t.Context(), srv.AppOrder(orderRequest(midas.QQ)))
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, receipt.Status)
		require.Equal(t, "{\"ret\":0,\"msg\":\"OK\"}\n", string(receipt.Body))
		require.False(t, receipt.Accepted)
		require.Contains(t, receipt.Reason, "newline")
		require.Positive(t, receipt.Took)
	}
}

func TestACompressedAnswerIsNotUnpackedInSilence(t *testing.T) {
	t.Parallel()
	asked := make(chan string, 1)
	always := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.Header.Get("Accept-Encoding")
		w.Header().Set("Content-Encoding", "gzip")
		zip := gzip.NewWriter(w)
		io.WriteString(zip, `{"ret":0,"msg":"OK"}`)
		zip.Close()
	})
	backend := httptest.NewTLSServer(always)
	defer backend.Close()
	plain := httptest.NewServer(always)
	defer plain.Close()

	overSocket := midastest.New(midastest.Config{})
	overSocket.DeliverTo(plain.URL + deliveryPath)
	ownClient := midastest.New(midastest.Config{CallbackClient: backend.Client()})
	ownClient.DeliverTo(backend.URL + deliveryPath)
	inProcess := midastest.New(midastest.Config{})
	inProcess.DeliverToHandler(always, deliveryPath)
	for _, srv := range []*midastest.Server{overSocket, ownClient, inProcess} {
		receipt, err := srv.Pay(t.Context(), srv.AppOrder(orderRequest(midas.QQ)))
		require.NoError(t, err)
		require.False(t, receipt.Accepted)
		require.Contains(t, receipt.Reason, "compressed")
		require.True(t, bytes.HasPrefix(receipt.Body, []byte("\x1f\x8b")))
		require.Equal(t, "identity", <-asked)
	}
}

// As behind a socket: what was written before does not arrive.
func TestAHandlerThatBreaksOffIsABrokenConnection(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(){"a panic": func() { panic("no such table") }, "t.FailNow": runtime.Goexit} {
		srv := midastest.New(midastest.Config{Errorf: t.Errorf})
		srv.DeliverToHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { answerOK(w, r); end() }), deliveryPath)
		receipt, err := srv.Pay(t.Context(), srv.AppOrder(orderRequest(midas.QQ)))
		require.NoError(t, err, name)
		require.False(t, receipt.Accepted, name)
		require.Contains(t, receipt.Reason, "no answer: ", name)
		require.Zero(t, receipt.Status, name)
	}
}

func TestMidasHangsUpAfterTwoSeconds(t *testing.T) {
	t.Parallel()
	for name, hang := range map[string]func(http.ResponseWriter, *http.Request){
		"a handler that hangs":                      func(w http.ResponseWriter, r *http.Request) { time.Sleep(time.Hour) },
		"a handler that waits for Midas to hang up": func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"a handler that is right, but late":         func(w http.ResponseWriter, r *http.Request) { time.Sleep(2001 * time.Millisecond); answerOK(w, r) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				srv := midastest.New(midastest.Config{Errorf: t.Errorf})
				srv.DeliverToHandler(http.HandlerFunc(hang), deliveryPath)
				receipt, err := srv.Pay(t.Context(), srv.AppOrder(orderRequest(midas.QQ)))
				require.NoError(t, err)
				require.False(t, receipt.Accepted)
				require.Contains(t, receipt.Reason, "no answer within 2s")
				require.Equal(t, 2*time.Second, receipt.Took)
				require.Zero(t, receipt.Status)
				time.Sleep(time.Hour) // until the handler has returned, as a bubble wants
			})
		})
	}
}

func TestASlowDeliverFuncIsAnsweredInTimeByTheHandler(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		srv := midastest.New(midastest.Config{Errorf: t.Errorf})
		client := newClient(t, srv)
		srv.DeliverToHandler(client.DeliveryHandler(func(context.Context, *midas.Delivery) error {
			time.Sleep(time.Minute)
			return nil
		}), deliveryPath)
		receipt, err := srv.Pay(t.Context(), srv.AppOrder(orderRequest(midas.QQ)))
		require.NoError(t, err)
		require.Equal(t, "the backend answered ret 1 (system_busy)", receipt.Reason)
		require.Equal(t, 1800*time.Millisecond, receipt.Took)
		require.NoError(t, client.Wait(t.Context()))
	})
}

func TestAPanicOfTheHandlerIsNoAnswer(t *testing.T) {
	t.Parallel()
	panics := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	backend := httptest.NewServer(panics)
	defer backend.Close()

	overSocket := midastest.New(midastest.Config{Errorf: t.Errorf})
	overSocket.DeliverTo(backend.URL + deliveryPath)
	inProcess := midastest.New(midastest.Config{Errorf: t.Errorf})
	inProcess.DeliverToHandler(panics, deliveryPath)
	for _, srv := range []*midastest.Server{overSocket, inProcess} {
		receipt, err := srv.Pay(t.Context(), srv.AppOrder(orderRequest(midas.QQ)))
		require.NoError(t, err)
		require.False(t, receipt.Accepted)
		require.Contains(t, receipt.Reason, "no answer: ")
		require.Zero(t, receipt.Status)
	}
}

func TestARedirectIsNotFollowed(t *testing.T) {
	t.Parallel()
	var granted atomic.Int32
	mux := http.NewServeMux() // which sends /pay/notify to /pay/notify/
	mux.HandleFunc("/pay/notify/", func(w http.ResponseWriter, r *http.Request) {
		granted.Add(1)
		answerOK(w, r)
	})
	backend := httptest.NewServer(mux)
	defer backend.Close()

	overSocket := midastest.New(midastest.Config{Errorf: t.Errorf, CallbackClient: backend.Client()})
	overSocket.DeliverTo(backend.URL + deliveryPath)
	inProcess := midastest.New(midastest.Config{Errorf: t.Errorf})
	inProcess.DeliverToHandler(mux, deliveryPath)
	for _, srv := range []*midastest.Server{overSocket, inProcess} {
		receipt, err := srv.Pay(t.Context(), srv.AppOrder(orderRequest(midas.QQ)))
		require.NoError(t, err)
		require.Contains(t, receipt.Reason, "a redirect: is the handler mounted at the registered path")
		require.Zero(t, granted.Load())
	}
}

func TestAnAnswerCannotBeEndless(t *testing.T) {
	t.Parallel()
	srv := midastest.New(midastest.Config{Errorf: t.Errorf})
	srv.DeliverToHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, strings.Repeat("x", 1<<20))
	}), deliveryPath)
	receipt, err := srv.Pay(t.Context(), srv.AppOrder(orderRequest(midas.QQ)))
	require.NoError(t, err)
	require.False(t, receipt.Accepted)
	require.Len(t, receipt.Body, 64<<10)
}

func TestABackendThatCannotBeReachedIsNoAnswerAndTheReasonHoldsNoSignature(t *testing.T) {
	t.Parallel()
	srv := midastest.New(midastest.Config{Errorf: t.Errorf})
	srv.DeliverTo("http://127.0.0.1:1" + deliveryPath) // where nobody listens
	receipt, err := srv.Pay(t.Context(), srv.AppOrder(orderRequest(midas.QQ)))
	require.NoError(t, err)
	require.False(t, receipt.Accepted)
	require.Contains(t, receipt.Reason, "refused")
	require.NotContains(t, receipt.Reason, "sig=")
}

func TestADeliveryURLWithACertificateOfItsOwn(t *testing.T) {
	t.Parallel()
	backend := httptest.NewTLSServer(http.HandlerFunc(answerOK))
	defer backend.Close()
	srv := midastest.New(midastest.Config{Errorf: t.Errorf, CallbackClient: backend.Client()})
	srv.DeliverTo(backend.URL + deliveryPath)
	receipt, err := srv.Pay(t.Context(), srv.AppOrder(orderRequest(midas.QQ)))
	require.NoError(t, err)
	require.True(t, receipt.Accepted, receipt.Reason)
}

func TestARecordedCallbackIsDeliveredAsItIs(t *testing.T) {
	t.Parallel()
	const recorded = "a=1;2&b=%zz&&sig=x+y&c"
	var got string
	srv := midastest.New(midastest.Config{})
	srv.DeliverToHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r.URL.RawQuery
		answerOK(w, r)
	}), deliveryPath)
	receipt, err := srv.Deliver(t.Context(), recorded)
	require.NoError(t, err)
	require.True(t, receipt.Accepted, receipt.Reason)
	require.Equal(t, recorded, got)
	require.Empty(t, receipt.BillNo)
}

func TestAQueryThatNoURLCanHoldIsAnErrorWithoutTheQuery(t *testing.T) {
	t.Parallel()
	srv := midastest.New(midastest.Config{})
	srv.DeliverToHandler(http.HandlerFunc(answerOK), deliveryPath)
	_, err := srv.Deliver(t.Context(), "sig=secret\n")
	require.ErrorContains(t, err, "control character")
	require.NotContains(t, err.Error(), "secret")
}

// Printed in a failing test, a receipt shows the answer and not the sig.
func TestAReceiptPrintsItsBodyAsText(t *testing.T) {
	t.Parallel()
	r := &midastest.Receipt{URL: "http://x/?sig=SECRET", Status: 200, Body: []byte(`{"ret":1,"msg":"system_busy"}`), Took: 3 * time.Millisecond, Reason: "the backend answered ret 1 (system_busy)"}
	want := `not accepted: the backend answered ret 1 (system_busy); status 200 after 3ms, body "{\"ret\":1,\"msg\":\"system_busy\"}"`
	require.Equal(t, want, fmt.Sprint(r))
	require.Equal(t, want, fmt.Sprintf("%+v", *r))
	r = &midastest.Receipt{Status: 200, Body: []byte(`{"ret":0,"msg":"OK"}`), Accepted: true, Duplicates: []*midastest.Receipt{{}, {}}}
	require.Equal(t, `accepted; status 200 after 0s, body "{\"ret\":0,\"msg\":\"OK\"}"; and 2 duplicates`, r.String())
}
