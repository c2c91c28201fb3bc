package frameworks

import (
	"context"
	"fmt"
	"io"
	"net/http"

	"github.com/cloudwego/hertz/pkg/app"
	"github.com/cloudwego/hertz/pkg/app/server"
	"github.com/cloudwego/hertz/pkg/common/adaptor"
	"github.com/cloudwego/hertz/pkg/common/config"
	"github.com/hertz-contrib/gzip"
)

// Hertz mounts the callback in hertz; server.Default has Recovery. hertz has no access log of
// its own, and the default format of hertz-contrib/logger/accesslog has the query:
// take ${queryParams} out.
func Hertz(deliveries, game http.Handler, accessLog io.Writer, opts ...config.Option) *server.Hertz {
	h := server.Default(opts...)
	h.Use(
		func(ctx context.Context, c *app.RequestContext) {
			c.Next(ctx)
			fmt.Fprintf(accessLog, "%s %s %d\n", c.Method(), c.Path(), c.Response.StatusCode())
		},
		gzip.Gzip(gzip.DefaultCompression), // leaves alone what comes through the adaptor
	)
	h.GET(deliveryPath, adaptor.HertzHandler(deliveries))

	h.Any("/game/*path", adaptor.HertzHandler(game))
	return h
}
