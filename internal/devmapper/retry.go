package devmapper

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

func isErrno(errno unix.Errno) func(error) bool {
	return func(err error) bool { return errors.Is(err, errno) }
}

const (
	// busyTimeout is how long a device may stay open after this program closed it: udev
	// and other watchers look at devices.
	busyTimeout = 3 * time.Second
	// reloadTimeout is how long a pool may be suspended while another process of this
	// program grows it: beside a busy udevd on one CPU, for more than a second.
	reloadTimeout = 10 * time.Second
	// tornTimeout is how long a superblock may look damaged.
	tornTimeout = 200 * time.Millisecond
	// lockTimeout is how long another process of this program may hold the pool's lock.
	lockTimeout = 30 * time.Second
)

// retryWhile calls fn until it succeeds, fails with an error that is not transient, or
// the time is up, and returns its last error. The pauses grow from 1 to 100 ms.
func retryWhile(timeout time.Duration, transient func(error) bool, fn func() error) error {
	const longest = 100 * time.Millisecond
	deadline := time.Now().Add(timeout)
	for pause := time.Millisecond; ; pause = min(2*pause, longest) {
		err := fn()
		if err == nil || !transient(err) || time.Now().After(deadline) {
			return err
		}
		<-time.After(pause)
	}
}
