package tap_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/midas-go/midas/cmd/midas/internal/tap"
	"github.com/stretchr/testify/require"
)

// BenchmarkTap compares a backend behind a tap with the same one alone, at 1,000 callbacks a
// second each, recorded and masked.
func BenchmarkTap(b *testing.B) {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"ret":0,"msg":"OK"}`) }))
	defer backend.Close()
	r := start(b, tap.Callback, backend.URL)
	const query = "/pay/notify?amt=95&appid=1450000000&appmeta=146%2Awechat%2Awechat&billno=-APPDJ00000-20180116-1150260000&openid=o_TESTopenid_ABCdef-0123456789&payitem=test_item_30%2A10%2A1&token=00000000000000000000000000000000000A1&ts=1516080285&version=v3&zoneid=1&sig=Vb7Nq%2Fhs%2B82kdJw1Lp0zXcTyGm4%3D"
	call := func(base string) {
		resp, err := http.Get(base + query)
		if err != nil {
			b.Fatal(err)
		}
		_, err = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if err != nil {
			b.Fatal(err)
		}
	}
	var took [2][]time.Duration
	tick := time.NewTicker(time.Second / 2000) // of which every other one goes through the tap
	defer tick.Stop()
	for b.Loop() {
		for i := range 4000 {
			<-tick.C
			start := time.Now()
			call([]string{backend.URL, "http://" + r.addr}[i%2])
			took[i%2] = append(took[i%2], time.Since(start))
		}
	}
	http.DefaultClient.CloseIdleConnections()
	require.Zero(b, r.stop(), "all of them are recorded")
	for i := range took {
		slices.Sort(took[i])
	}
	floor, subject := took[0][len(took[0])/2], took[1][len(took[1])/2]
	b.ReportMetric(float64(subject)/float64(floor), "x-floor")
	b.ReportMetric(float64(floor.Microseconds()), "floor-µs")
	b.ReportMetric(float64((subject - floor).Microseconds()), "added-µs")
	b.ReportMetric(0, "ns/op")
}
