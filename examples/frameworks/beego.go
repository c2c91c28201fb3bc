package frameworks

import (
	"net/http"
	"strings"

	"github.com/beego/beego/v2/server/web"
	"github.com/beego/beego/v2/server/web/context"
)

// Beego mounts the callback in beego. Its access log, which goes to logs.AccessLog where
// AccessLogs is on, has the query; so the callback stays out of it. The package midas writes a
// line of its own for each.
func Beego(deliveries, game http.Handler) http.Handler {
	web.BConfig.RunMode = web.PROD
	web.BConfig.Log.AccessLogs = true
	web.BConfig.EnableGzip = true // for what a controller answers; it leaves the callback alone
	web.DefaultAccessLogFilter = notDeliveries{web.DefaultAccessLogFilter}
	app := web.NewHttpSever()
	app.Handlers.Handler(deliveryPath, deliveries)

	app.Handlers.Handler("/game/*", game)
	app.Handlers.Init()
	return app.Handlers
}

// notDeliveries keeps the callback out of the access log, and what another filter does.
type notDeliveries struct{ web.FilterHandler }

func (f notDeliveries) Filter(ctx *context.Context) bool {
	return strings.HasPrefix(ctx.Request.URL.Path, deliveryPath) || f.FilterHandler.Filter(ctx)
}
