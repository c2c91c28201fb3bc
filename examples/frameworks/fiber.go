package frameworks

import (
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/gofiber/fiber/v3"
	"github.com/gofiber/fiber/v3/middleware/adaptor"
	"github.com/gofiber/fiber/v3/middleware/compress"
	"github.com/gofiber/fiber/v3/middleware/logger"
	"github.com/gofiber/fiber/v3/middleware/recover"
)

// Fiber mounts the callback in fiber. Its logger's default format has no query; the formats
// with ${url} and ${queryParams} have it.
func Fiber(deliveries, game http.Handler, accessLog io.Writer) *fiber.App {
	app := fiber.New(fiber.Config{ReadBufferSize: 20 << 10}) // a callback's query is up to 16 KiB
	app.Use(
		logger.New(logger.Config{Stream: accessLog, DisableColors: true}),
		recover.New(),
		compress.New(), // leaves alone what is under 200 bytes
	)
	app.Get(deliveryPath, adaptor.HTTPHandler(ownRequest(deliveries)))

	app.Use("/game", adaptor.HTTPHandler(game))
	return app
}

// ownRequest returns a handler that calls h with a request of its own. fasthttp, on which fiber
// stands, reuses a request's context as soon as the answer is out, while a DeliverFunc may still
// be running with it.
func ownRequest(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		uri := strings.Clone(r.RequestURI)
		u, err := url.ParseRequestURI(uri)
		if err != nil {
			http.Error(w, "bad request", http.StatusBadRequest)
			return
		}
		own := &http.Request{Method: strings.Clone(r.Method), URL: u, RequestURI: uri, RemoteAddr: r.RemoteAddr, Body: http.NoBody}
		h.ServeHTTP(bare{w}, own)
	})
}

// bare hides that a ResponseWriter can flush: fasthttp sends a flushed answer in chunks.
type bare struct{ http.ResponseWriter }
