package frameworks

import (
	"log/slog"

	"github.com/rs/zerolog"
	"github.com/sirupsen/logrus"
	logrusslog "github.com/sirupsen/logrus/hooks/slog"
	"go.uber.org/zap"
	"go.uber.org/zap/exp/zapslog"
)

// FromZap returns a logger for midas.Config.Logger and midassql.Options.Logger that writes to l.
func FromZap(l *zap.Logger) *slog.Logger {
	return slog.New(zapslog.NewHandler(l.Core()))
}

// FromZerolog is FromZap for zerolog.
func FromZerolog(l zerolog.Logger) *slog.Logger {
	return slog.New(zerolog.NewSlogHandler(l))
}

// FromLogrus is FromZap for logrus.
func FromLogrus(l *logrus.Logger) *slog.Logger {
	return slog.New(logrusslog.NewHandler(l, nil))
}
