package call

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/url"
)

// A NetworkError is a call that got no answer. It says what happened without the URL, which carries
// secrets and which net/http's own error prints. The cause can be matched.
type NetworkError struct {
	text  string
	cause error

	// Unsent says that no connection was made, so that nothing of the call left the process.
	Unsent bool
}

func (f *NetworkError) Error() string { return f.text }

// Is matches the cause. There is no Unwrap: what prints a chain of errors would print the
// cause's own text.
func (f *NetworkError) Is(target error) bool { return errors.Is(f.cause, target) }

// As matches the cause.
func (f *NetworkError) As(target any) bool { return errors.As(f.cause, target) }

func faultOf(err error, values []string, unsent bool) *NetworkError {
	var urlErr *url.Error
	for errors.As(err, &urlErr) { // a transport may have wrapped one in another
		err = urlErr.Err
	}
	text := "no answer: "
	if unsent {
		text = "no connection: "
	}
	return &NetworkError{text + describe(err, values), err, unsent}
}

// describe returns the text of a network fault. Addresses and times are not plain words, so
// they are taken from where they cannot be foreign text.
func describe(err error, values []string) string {
	switch e := err.(type) { //nolint:errorlint // each layer has its own text
	case *net.OpError:
		text := Words(e.Op+" "+e.Net, values)
		if tcp, ok := e.Addr.(*net.TCPAddr); ok && tcp != nil {
			text += " " + (&net.TCPAddr{IP: tcp.IP, Port: tcp.Port}).String() // without the zone, which is text
		}
		return text + ": " + describe(e.Err, values)
	case *net.DNSError:
		return Words("lookup "+e.Name+": "+e.Err, values)
	case *tls.CertificateVerificationError:
		return "tls: failed to verify certificate: " + describe(e.Err, values)
	case x509.CertificateInvalidError:
		if e.Reason == x509.Expired {
			return "x509: certificate has expired or is not yet valid"
		}
	}
	return Words(err.Error(), values)
}
