package midas_test

import (
	"bytes"
	"log/slog"
	"testing"

	"github.com/midas-go/midas"
	"github.com/stretchr/testify/require"
)

func TestARefusalIsLoggedAsAGroup(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Error("x", "refused", &midas.Error{Ret: 1018, Msg: "m", Code: "c"})
	require.Contains(t, log.String(), "refused.ret=1018 refused.msg=m refused.err_code=c")
}

func TestErrorsSayWhatToDo(t *testing.T) {
	t.Parallel()
	for want, err := range map[string]error{
		`midas refused: ret 1018 (login expired: try once more in some seconds, then let the app log in again; on YSDK a QQ player's OpenKey is the value called pay_token): "x", err_code "1018--2-20"`: &midas.Error{Ret: 1018, Msg: "x", Code: "1018--2-20"},
		`midas refused: ret 7`:                                            &midas.Error{Ret: 7},
		`no usable answer (HTTP status 502): want status 200`:             &midas.ResponseError{StatusCode: 502, Length: -1, Reason: "want status 200"},
		`no usable answer (HTTP status 200, text/html, 7 bytes): it is x`: &midas.ResponseError{StatusCode: 200, ContentType: "text/html", Length: 7, Reason: "it is x"},
		`parameter amt: missing`:                                          &midas.ParamError{Param: "amt", Reason: "missing"},
		`Items[0].Price (parameter payitem): below one fen`:               &midas.FieldError{Param: "payitem", Field: "Items[0].Price", Reason: "below one fen"},
		`ctx: is nil`:                &midas.FieldError{Field: "ctx", Reason: "is nil"},
		`payitem: empty`:             &midas.FieldError{Field: "payitem", Param: "payitem", Reason: "empty"},
		`midas.Config.AppKey: empty`: &midas.ConfigError{Field: "AppKey", Reason: "empty"},
	} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			require.EqualError(t, err, want)
		})
	}
}
