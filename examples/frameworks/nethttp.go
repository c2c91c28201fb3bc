package frameworks

import (
	"fmt"
	"io"
	"net/http"

	"github.com/gorilla/handlers"
)

// NetHTTP mounts the callback in http.ServeMux, with gorilla/handlers around the game's own.
// handlers.CombinedLoggingHandler would log the query.
func NetHTTP(deliveries, game http.Handler, accessLog io.Writer) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/game/", handlers.CompressHandler(game))
	mux.Handle(deliveryPath, deliveries) // one that ends in "/": "/pay/notify/{$}"

	logged := handlers.CustomLoggingHandler(accessLog, mux, func(w io.Writer, p handlers.LogFormatterParams) {
		fmt.Fprintln(w, p.TimeStamp.Format("15:04:05"), p.Request.Method, p.URL.Path, p.StatusCode)
	})
	return handlers.RecoveryHandler()(logged)
}
