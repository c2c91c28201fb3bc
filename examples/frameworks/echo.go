package frameworks

import (
	"fmt"
	"io"
	"net/http"

	"github.com/labstack/echo/v4"
	"github.com/labstack/echo/v4/middleware"
)

// Echo mounts the callback in echo. The URI that its loggers write by default holds the query.
func Echo(deliveries, game http.Handler, accessLog io.Writer) http.Handler {
	e := echo.New()
	e.Use(
		middleware.RequestLoggerWithConfig(middleware.RequestLoggerConfig{
			LogMethod: true, LogURIPath: true, LogStatus: true, // and not LogURI
			LogValuesFunc: func(_ echo.Context, v middleware.RequestLoggerValues) error {
				_, err := fmt.Fprintln(accessLog, v.Method, v.URIPath, v.Status)
				return err
			},
		}),
		middleware.Recover(),
		middleware.GzipWithConfig(middleware.GzipConfig{Skipper: func(c echo.Context) bool { return c.Path() == deliveryPath }}),
	)
	e.GET(deliveryPath, echo.WrapHandler(deliveries))

	e.Any("/game/*", echo.WrapHandler(game))
	return e
}
