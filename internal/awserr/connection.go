package awserr

import (
	"errors"
	"io"
	"net"
	"slices"
	"syscall"
)

// connectionErrors are the ways in which a connection fails or ends. Any other errno is
// the machine's trouble, not the network's.
var connectionErrors = []error{
	io.EOF, io.ErrUnexpectedEOF, net.ErrClosed,
	syscall.ECONNABORTED, syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EHOSTDOWN, syscall.EHOSTUNREACH,
	syscall.ENETDOWN, syscall.ENETRESET, syscall.ENETUNREACH, syscall.EPIPE, syscall.ETIMEDOUT,
}

// Disconnected reports whether the error is that of a connection: the name, the route,
// TLS, or an end before the answer was complete. An error of a file may look the same
// (io.ErrUnexpectedEOF); the caller must look for fs.PathError first.
func Disconnected(err error) bool {
	var unsent interface{ ConnectionError() bool } // the SDK could not send the request
	if errors.As(err, &unsent) && unsent.ConnectionError() {
		return true
	}
	if _, is := netError(err); is {
		return true
	}
	return slices.ContainsFunc(connectionErrors, func(is error) bool { return errors.Is(err, is) })
}

// netError returns the net.Error in the chain. A bare errno does not count: every errno
// has the methods of a net.Error, whatever it means.
func netError(err error) (net.Error, bool) {
	var netErr net.Error
	if !errors.As(err, &netErr) {
		return nil, false
	}
	_, bare := netErr.(syscall.Errno)
	return netErr, !bare
}
