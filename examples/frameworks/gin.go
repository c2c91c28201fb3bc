package frameworks

import (
	"io"
	"net/http"

	"github.com/gin-contrib/gzip"
	"github.com/gin-gonic/gin"
)

// Gin mounts the callback in gin. gin.Logger, which gin.Default uses, logs the query.
func Gin(deliveries, game http.Handler, accessLog io.Writer) http.Handler {
	router := gin.New()
	router.Use(
		gin.LoggerWithConfig(gin.LoggerConfig{Output: accessLog, SkipQueryString: true}),
		gin.Recovery(),
		gzip.Gzip(gzip.DefaultCompression, gzip.WithExcludedPaths([]string{deliveryPath})),
	)
	router.GET(deliveryPath, gin.WrapH(deliveries))

	router.Any("/game/*path", gin.WrapH(game))
	return router
}
