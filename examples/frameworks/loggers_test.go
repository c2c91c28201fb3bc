package frameworks

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/midas-go/midas"
	"github.com/midas-go/midas/midastest"
	"github.com/rs/zerolog"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// A login is a struct of a game's own, as it is logged by habit.
type login struct {
	Role   string
	Player midas.Player
	Order  *midas.OrderRequest
}

// zap, zerolog and logrus do not know slog.LogValuer: they print through JSON.
func TestNoLoggerShowsWhatAPlayerLoggedInWith(t *testing.T) {
	t.Parallel()
	player := midas.Player{Login: midas.QQ, OpenID: "ANNA", OpenKey: "SECRET-1", PayToken: "SECRET-2", PF: "qq_m_qq-2001-android-2011-xxxx", PFKey: "SECRET-3"}
	own := login{Role: "role-7", Player: player, Order: &midas.OrderRequest{Player: player}}
	for name, log := range map[string]func(out *bytes.Buffer, v any){
		"zap": func(out *bytes.Buffer, v any) {
			core := zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(out), zap.DebugLevel)
			zap.New(core).Info("x", zap.Any("v", v))
			zap.New(core).Sugar().Infow("x", "v", v)
			zap.New(core).Sugar().Infof("%+v", v)
		},
		"zap in a console": func(out *bytes.Buffer, v any) {
			core := zapcore.NewCore(zapcore.NewConsoleEncoder(zap.NewDevelopmentEncoderConfig()), zapcore.AddSync(out), zap.DebugLevel)
			zap.New(core).Info("x", zap.Any("v", v), zap.Reflect("r", v))
		},
		"zerolog": func(out *bytes.Buffer, v any) {
			l := zerolog.New(out)
			l.Info().Any("v", v).Interface("i", v).Msgf("%v", v)
		},
		"logrus": func(out *bytes.Buffer, v any) {
			l := logrus.New()
			l.Out, l.Formatter = out, new(logrus.JSONFormatter)
			l.WithField("v", v).Infof("%+v", v)
			l.Formatter = &logrus.TextFormatter{DisableColors: true}
			l.WithField("v", v).Info("x")
		},
		"slog in JSON": func(out *bytes.Buffer, v any) { slog.New(slog.NewJSONHandler(out, nil)).Info("x", "v", v) },
		"slog in text": func(out *bytes.Buffer, v any) { slog.New(slog.NewTextHandler(out, nil)).Info("x", "v", v) },
	} {
		for what, v := range map[string]any{"a Player": player, "a pointer to one": &player, "a struct that holds one": own, "a pointer to that": &own} {
			t.Run(name+": "+what, func(t *testing.T) {
				t.Parallel()
				var out bytes.Buffer
				log(&out, v)
				require.Contains(t, out.String(), "ANNA")
				require.NotContains(t, out.String(), "SECRET")
			})
		}
	}
	inJSON, err := json.Marshal(own)
	require.NoError(t, err)
	require.Contains(t, string(inJSON), `"Role":"role-7"`, "a field that is not embedded hides nothing beside it")
}

// A callback that fails is one line of each logger, and that shows the player's openid cut off.
func TestEachLoggerHasTheCallbacksLine(t *testing.T) {
	t.Parallel()
	for name, logger := range map[string]func(out *bytes.Buffer) *slog.Logger{
		"zap": func(out *bytes.Buffer) *slog.Logger {
			return FromZap(zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(out), zap.DebugLevel)))
		},
		"zerolog": func(out *bytes.Buffer) *slog.Logger { return FromZerolog(zerolog.New(out)) },
		"logrus": func(out *bytes.Buffer) *slog.Logger {
			l := logrus.New()
			l.Out, l.Formatter = out, new(logrus.JSONFormatter)
			return FromLogrus(l)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			fake := midastest.New(midastest.Config{})
			cfg := fake.ClientConfig(deliveryPath)
			cfg.Logger = logger(&out)
			client, err := midas.New(cfg)
			require.NoError(t, err)
			fake.DeliverToHandler(client.DeliveryHandler(func(context.Context, *midas.Delivery) error { return errors.New("the bag is full") }), deliveryPath)
			token := fake.AppOrder(midas.OrderRequest{Player: midas.Player{OpenID: "ANNA-SECRET"}, Items: []midas.Item{{ID: "gem60", Price: 600, Quantity: 1}}})
			_, err = fake.Pay(t.Context(), token)
			require.NoError(t, err)
			require.NoError(t, client.Wait(t.Context())) // for the line, which comes after the answer
			var line map[string]any
			require.NoError(t, json.Unmarshal(out.Bytes(), &line), out.String())
			require.Equal(t, "failed", line["outcome"])
			require.Equal(t, "error", strings.ToLower(line["level"].(string)))
			require.Contains(t, line["error"], "the bag is full")
			require.NotContains(t, out.String(), "SECRET")
			require.Equal(t, "ANNA…", line["openid"])
		})
	}
}
