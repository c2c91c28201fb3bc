package frameworks

import (
	"io"
	"net/http"

	"github.com/labstack/echo/v4"
	"github.com/labstack/echo/v4/middleware"
)

// Echo mounts the callback in echo. The default format of its Logger has ${uri}, which holds
// the query.
func Echo(deliveries, game http.Handler, accessLog io.Writer) http.Handler {
	e := echo.New()
	e.Use(
		middleware.LoggerWithConfig(middleware.LoggerConfig{Output: accessLog, Format: "${time_rfc3339} ${method} ${path} ${status} ${latency_human}\n"}),
		middleware.Recover(),
		middleware.GzipWithConfig(middleware.GzipConfig{Skipper: func(c echo.Context) bool { return c.Path() == deliveryPath }}),
	)
	e.GET(deliveryPath, echo.WrapHandler(deliveries))

	e.Any("/game/*", echo.WrapHandler(game))
	return e
}
