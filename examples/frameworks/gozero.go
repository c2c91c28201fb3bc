package frameworks

import (
	"net/http"

	"github.com/zeromicro/go-zero/rest"
)

// GoZero mounts the callback beside go-zero's router. In the router it works too, but the
// middleware there logs the query of each request, and under load sheds callbacks with a
// status 503 that Midas does not understand.
func GoZero(deliveries http.Handler) rest.StartOption {
	return func(server *http.Server) {
		mux := http.NewServeMux()
		mux.Handle("/", server.Handler)
		mux.Handle(deliveryPath, deliveries)
		mux.Handle(deliveryPath+"/", deliveries) // or the router logs it as not found, with its query
		server.Handler = mux
	}
}

// StartGoZero starts a go-zero server and returns when it has ended.
func StartGoZero(conf rest.RestConf, routes []rest.Route, deliveries http.Handler, more ...rest.StartOption) {
	server := rest.MustNewServer(conf)
	server.AddRoutes(routes)
	server.StartWithOpts(append(more, GoZero(deliveries))...)
}
