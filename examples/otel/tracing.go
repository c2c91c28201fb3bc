package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/propagation"
)

// tracedClient returns a client for midas.Config.HTTPClient that makes a span of each try of
// an order. base is what sends, such as http.DefaultTransport.
//
// otelhttp records the whole URL, and an order's holds openkey, pfkey and sig. So the query is
// taken off in front of otelhttp, and put back behind it.
func tracedClient(base http.RoundTripper, opts ...otelhttp.Option) *http.Client {
	opts = append([]otelhttp.Option{
		otelhttp.WithSpanNameFormatter(func(_ string, r *http.Request) string { return "midas " + path.Base(r.URL.Path) }),
		otelhttp.WithPropagators(propagation.NewCompositeTextMapPropagator()), // none: baggage is not for Tencent
	}, opts...)
	return &http.Client{
		Transport: hideQuery{otelhttp.NewTransport(showQuery{base}, opts...)},
		Timeout:   5 * time.Second, // for one try
	}
}

type queryKey struct{}

// hideQuery hides the query of a request from the next transport.
type hideQuery struct{ next http.RoundTripper }

func (t hideQuery) RoundTrip(r *http.Request) (*http.Response, error) {
	hidden := r.Clone(context.WithValue(r.Context(), queryKey{}, r.URL.RawQuery))
	hidden.URL.RawQuery = ""
	resp, err := t.next.RoundTrip(hidden)
	if quiet := (quietError{}); errors.As(err, &quiet) {
		err = quiet.error // the library masks what it says of it
	}
	return resp, err
}

// showQuery gives the next transport the query that hideQuery took.
type showQuery struct{ next http.RoundTripper }

func (t showQuery) RoundTrip(r *http.Request) (*http.Response, error) {
	shown := r.Clone(r.Context())
	shown.URL.RawQuery, _ = r.Context().Value(queryKey{}).(string)
	resp, err := t.next.RoundTrip(shown)
	if err != nil {
		err = quietError{err}
	}
	return resp, err
}

// A quietError says only of what type it is: net/http quotes a line that is not HTTP, and what
// sent it may have repeated the request.
type quietError struct{ error }

func (e quietError) Error() string { return fmt.Sprintf("%T", e.error) }

// tracedDeliveries makes a span of each delivery callback; what the DeliverFunc does with its
// context comes under it. otelhttp does not record the query of a server's request.
func tracedDeliveries(deliveries http.Handler, opts ...otelhttp.Option) http.Handler {
	opts = append([]otelhttp.Option{
		otelhttp.WithSpanNameFormatter(func(operation string, _ *http.Request) string { return operation }),
		otelhttp.WithPublicEndpointFn(func(*http.Request) bool { return true }), // anybody can send a traceparent
	}, opts...)
	return otelhttp.NewHandler(deliveries, "midas delivery", opts...)
}
