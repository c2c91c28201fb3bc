package report_test

import (
	"encoding/json"
	"os"
	"path"
	"regexp"
	"strings"
	"testing"

	"github.com/midas-go/midas/cmd/midas/internal/report"
	"github.com/midas-go/midas/cmd/midas/internal/tap"
	"github.com/stretchr/testify/require"
)

// The pages of open points show the same tables as the code, in both languages, and each section
// that a point names is there.
func TestThePagesShowThePoints(t *testing.T) {
	t.Parallel()
	const docs = "../../../../docs"
	for language, ending := range map[string]string{"en": ".md", "zh": ".zh-CN.md"} {
		read := func(page string) string {
			text, err := os.ReadFile(path.Join(docs, page+ending))
			require.NoError(t, err)
			return string(text)
		}
		var want strings.Builder
		for _, p := range report.Points {
			shown, where, number := p.Section, "protocol", p.Section
			if page, section, other := strings.Cut(p.Section, " "); other {
				where, number = page, section
				shown = "[" + page + "](" + page + ending + ") " + section
			}
			require.Regexp(t, `(?m)^##+ `+regexp.QuoteMeta(number)+`[. ]`, read(where), p.ID)
			want.WriteString("| `" + p.ID + "` | " + shown + " | " + p.Question().In(language) + " | " + p.By().In(language) + " |\n")
		}
		var got strings.Builder
		for line := range strings.Lines(read("open-points") + read("open-points-minigame")) {
			if strings.HasPrefix(line, "| `") {
				got.WriteString(line)
			}
		}
		require.Equal(t, want.String(), got.String(), language)
	}
}

// Whatever a file holds, there is a sheet or an error, and no value of a secret in it.
func FuzzMake(f *testing.F) {
	const secret = "SECRET~1234"
	order := `{"seq":1,"time":"2026-11-28T10:00:00Z","kind":"order","masked":true,"url":"http://h/mpay/buy_goods_m","caller":{"address":"203.0.113.7:1","connection":1,"request":1},` +
		`"request":{"head":"GET /mpay/buy_goods_m?openid=` + secret + `&openkey=` + secret + `&payitem=a*1*1;b*1*1&zoneid=1_2&pf=x&amt=2 HTTP/1.1\r\nCookie: org_loc=%2Fmpay%2Fbuy_goods_m; x=` + secret + `\r\n\r\n","size":1,"begun_ns":1,"ended_ns":2},` +
		`"answer":{"status":200,"head":"HTTP/1.1 200 OK\r\n\r\n","body":"{\"ret\":0,\"token\":\"T\",\"attach\":\"` + secret + `\"}","size":1,"begun_ns":3,"ended_ns":4},"verdict":{"ok":true,"en":"verified","zh":"x","signed":["ysdk-path"]}}` + "\n"
	callback := `{"seq":2,"time":"2026-11-28T11:00:00Z","kind":"callback","masked":true,"caller":{"address":"203.0.113.7:1","tls":"TLS 1.3","connection":1,"request":2},` +
		`"request":{"head":"GET /pay/notify?openid=` + secret + `&billno=` + secret + `&token=T&payitem=b*1*1&amt=9&ts=1795860000&zoneid=1&qbazinga=1&new=` + secret + `&sig=` + secret + ` HTTP/1.1\r\n\r\n","size":1,"begun_ns":1,"ended_ns":2},` +
		`"answer":{"status":200,"head":"HTTP/1.1 200 OK\r\n\r\n","body":"{\"ret\":1}","size":1,"begun_ns":3,"ended_ns":4},"verdict":{"ok":true,"en":"verified","zh":"x","signed":["get","plus-space"]}}` + "\n"
	push := `{"seq":3,"time":"2026-11-28T11:00:01Z","kind":"callback","masked":true,"caller":{"address":"127.0.0.1:1","connection":2,"request":1},` +
		`"request":{"head":"POST /push?signature=` + secret + `&timestamp=1&nonce=2 HTTP/1.1\r\n\r\n","size":1,"begun_ns":1,"ended_ns":2},` +
		`"answer":{"status":200,"head":"HTTP/1.1 200 OK\r\n\r\n","body":"success","size":1,"begun_ns":3,"ended_ns":4},"verdict":{"ok":true,"en":"verified","zh":"x","signed":["json","pay-event-sig-1"],` +
		`"message":"{\"Event\":\"minigame_game_pay_goods_deliver_notify\",\"MiniGame\":{\"Payload\":{\"OpenId\":\"` + secret + `\",\"Env\":0,\"OutTradeNo\":\"` + secret + `\",\"GoodsInfo\":{\"ProductId\":\"` + secret + `\",\"Quantity\":1,\"OrigPrice\":6}},\"IsMock\":false}}"}}` + "\n"
	f.Add(order + callback + callback + push + push)
	f.Add(strings.ReplaceAll(order+callback, `"masked":true`, `"masked":false`))
	// What a stranger may put where the program has its own words.
	f.Add(strings.NewReplacer(`"TLS 1.3"`, `"`+secret+`"`, `"http://h/`, `"http://`+secret+`/`, `"verified"`, `"`+secret+`"`, `"x"`, `"`+secret+`"`, "GET /pay", secret+" /pay", "GET /mpay", "POST /mpay").Replace(order + callback + push))
	f.Add("{\"kind\":\"callback\",\"request\":{}}\n\nx\n")
	mask := func(name, _ string) bool { return strings.Contains(strings.ToLower(name), "key") }
	f.Fuzz(func(t *testing.T, recording string) {
		sheet, err := report.Make(strings.NewReader(recording), tap.Masking(mask))
		if err != nil {
			return
		}
		text, err := json.Marshal(sheet)
		require.NoError(t, err)
		if strings.Count(recording, "SECRET~1234") == strings.Count(recording, "SECRET") {
			require.NotContains(t, string(text), "SECRET")
		}
	})
}
