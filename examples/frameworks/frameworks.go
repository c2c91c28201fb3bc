// Package frameworks mounts the delivery callback in the web frameworks that Go game servers
// use. Each file is one framework with its access log, panic recovery and compression on, as
// backends have them. The callback's query stays out of the log, since it holds openid and
// sig, and its answer is not compressed, since Midas wants the bare bytes.
//
// In every one of them [midas.Client.DeliveryHandler] stays what it is: it answers in time,
// catches panics and refuses other methods. handle_test.go has the one table of requests that
// all are put through. gorm.go and xorm.go write on the delivery's own transaction.
package frameworks

// deliveryPath is the path of the delivery URL, as registered at Tencent.
const deliveryPath = "/pay/notify"
