package extract

import (
	"errors"
	"fmt"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"

	"imagemanager.internal/internal/archive"
)

// confine calls work on a confined thread and returns its error, or its panic as a
// *archive.Panic. If the thread cannot be confined, it returns why, and work is not
// called.
type confine func(work func() error) error

// confined calls fn on a thread confined by in, and returns what fn returns.
func confined[T any](in confine, fn func() (T, error)) (T, error) {
	var result T
	err := in(func() (err error) { result, err = fn(); return err })
	return result, err
}

// withOnlyCapabilities confines work to a new thread with these capabilities and no
// others. Those of reserve are not in effect; withRaised uses them for one call.
// Capabilities that the process does not have are not requested. The thread cannot gain
// any by executing a program (no_new_privs, prctl(2)), and it ends with work.
//
// Goroutines that work starts run on other threads with all capabilities of the process,
// so they must be confined themselves. They cannot inherit anything from this thread: the
// runtime makes threads from a template and not from a locked thread (runtime/proc.go,
// templateThread).
func withOnlyCapabilities(effective, reserve capabilities) confine {
	return func(work func() error) (err error) {
		var done sync.WaitGroup
		done.Go(func() {
			runtime.LockOSThread()
			if unix.Gettid() == unix.Getpid() {
				// The main thread does not end with its goroutine. The runtime would park
				// it as it is for good, and the system shows its capabilities as those of
				// the process. While this goroutine holds it, the next one gets another
				// thread.
				defer runtime.UnlockOSThread()
				err = withOnlyCapabilities(effective, reserve)(work)
				return
			}
			// The thread is never unlocked: so it ends with the goroutine.
			if err = dropTo(effective, reserve); err == nil {
				err = archive.CatchPanic(work)
			}
		})
		done.Wait()
		return err
	}
}

// dropTo takes all other capabilities from the calling thread, for good. The bounding set
// may stay: without new privileges it has no meaning. The ambient set is cleared with the
// inheritable one. Source: capabilities(7).
func dropTo(effective, reserve capabilities) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("confine a thread: %w", err)
		}
	}()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	c, err := getCaps()
	if err != nil {
		return err
	}
	c.permitted &= effective | reserve
	c.effective, c.inheritable = c.permitted&effective, 0
	return c.set()
}

// withRaised calls fn with the reserve in effect, if the calling thread has it. The
// thread must be locked.
func withRaised[T any](reserve capabilities, fn func() (T, error)) (result T, err error) {
	c, err := getCaps()
	if err != nil {
		return result, err
	}
	more := c
	more.effective |= c.permitted & reserve
	if more == c {
		return fn()
	}
	if err := more.set(); err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, c.set()) }()
	return fn()
}
