package main

import (
	"errors"
	"strconv"

	"github.com/midas-go/midas"
	"github.com/prometheus/client_golang/prometheus"
)

// Metrics counts callbacks and orders. Its labels take a fixed set of values: neither a player
// nor a stranger can add a series.
type Metrics struct {
	callbacks *prometheus.CounterVec
	duration  *prometheus.HistogramVec
	reconcile prometheus.Counter
	missed    prometheus.Counter
	orders    *prometheus.CounterVec
	registry  prometheus.Registerer
}

var outcomes = []midas.Outcome{
	midas.Delivered, midas.Declined, midas.Failed, midas.Panicked, midas.TimedOut,
	midas.Shed, midas.HungUp, midas.Malformed, midas.Unverified,
}

// Results of orders, by what somebody has to do about them.
const (
	placed       = "placed"
	wrongRequest = "wrong_request" // a *midas.FieldError: fix the backend
	loginExpired = "login_expired" // the player's app logs in again
	noPermission = "no_permission" // sandbox and live are mixed up, or the pay key is wrong
	refused      = "refused"       // Midas does not like it
	unreachable  = "unreachable"   // the network, a 5xx, a proxy's page
)

// NewMetrics registers the metrics with registry.
func NewMetrics(registry prometheus.Registerer) *Metrics {
	m := &Metrics{
		callbacks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "midas_callbacks_total",
			Help: "Delivery callbacks by outcome; late ones came after their callback was answered ret 1, repeats were granted before.",
		}, []string{"outcome", "late", "repeat"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "midas_callback_duration_seconds",
			Help:    "From a verified callback's arrival to its answer. Midas waits for 2 s.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 1.5, 1.8, 2},
		}, []string{"outcome"}),
		reconcile: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "midas_callbacks_to_reconcile_total",
			Help: "Deliveries that Midas may not know of, so that the charge may have been cancelled.",
		}),
		missed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "midas_callback_events_missed_total",
			Help: "Events that were dropped because OnCallback took too long.",
		}),
		orders: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "midas_orders_total",
			Help: "Orders by what became of them.",
		}, []string{"result"}),
		registry: registry,
	}
	registry.MustRegister(m.callbacks, m.duration, m.reconcile, m.missed, m.orders)
	// A counter that appears with its first event has no increase to alert on.
	for _, outcome := range outcomes {
		m.callbacks.WithLabelValues(string(outcome), "false", "false")
		m.callbacks.WithLabelValues(string(outcome), "true", "false")
	}
	m.callbacks.WithLabelValues(string(midas.Delivered), "false", "true")
	for _, result := range []string{placed, wrongRequest, loginExpired, noPermission, refused, unreachable} {
		m.orders.WithLabelValues(result)
	}
	return m
}

// OnCallback is for midas.Config.
func (m *Metrics) OnCallback(e midas.CallbackEvent) {
	m.callbacks.WithLabelValues(string(e.Outcome), strconv.FormatBool(e.Late), strconv.FormatBool(e.Repeat)).Inc()
	if !e.Late && e.Outcome != midas.Unverified {
		m.duration.WithLabelValues(string(e.Outcome)).Observe(e.Duration.Seconds())
	}
	if e.MustReconcile() {
		m.reconcile.Inc()
	}
	m.missed.Add(float64(e.Missed))
}

// Order counts what CreateOrder returned.
func (m *Metrics) Order(err error) {
	var (
		param   *midas.FieldError
		another *midas.Error
	)
	result := placed
	switch {
	case err == nil:
	case errors.As(err, &param):
		result = wrongRequest
	case errors.Is(err, midas.ErrLoginExpired):
		result = loginExpired
	case errors.Is(err, midas.ErrPermission), errors.Is(err, midas.ErrSignature):
		result = noPermission
	case errors.As(err, &another):
		result = refused
	default:
		result = unreachable
	}
	m.orders.WithLabelValues(result).Inc()
}

// Watch adds whether client has room for another callback.
func (m *Metrics) Watch(client *midas.Client) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "midas_ready",
		Help: "1, or 0 while new callbacks are answered ret 1 because too many DeliverFuncs are running.",
	}, func() float64 {
		if client.Ready() != nil {
			return 0
		}
		return 1
	}))
}
