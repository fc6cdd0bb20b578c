package archive

import (
	"errors"
	"fmt"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// capabilities is a set of them: bit n is the capability n of linux/capability.h.
type capabilities uint64

func setOf(numbers ...int) (set capabilities) {
	for _, n := range numbers {
		set |= 1 << n
	}
	return set
}

// What is kept, and what needs it. Absent are, among others, MKNOD, SETUID, SYS_CHROOT,
// SYS_PTRACE and NET_ADMIN; SYS_ADMIN is never in effect but for one call.
var (
	// writing is what every tree takes: owners, modes and times of what belongs to others
	// by then, and user.* attributes of what is read-only by then.
	writing = setOf(unix.CAP_CHOWN, unix.CAP_FOWNER, unix.CAP_DAC_OVERRIDE)
	// special keeps setgid on what belongs to other groups (the kernel strips it else),
	// and sets file capabilities.
	special = setOf(unix.CAP_FSETID, unix.CAP_SETFCAP)
	// reading opens what nobody may read, but cannot write it.
	reading = setOf(unix.CAP_DAC_READ_SEARCH)
	// listing is what the kernel wants of who is to see trusted.* attributes. A
	// verification that does not see them would pass a tree to which one was added.
	listing = setOf(unix.CAP_SYS_ADMIN)
)

// toWrite is what the writer keeps. It depends on the policy and not on the tree: a file
// capability that slipped through the policy is to fail here.
func toWrite(p Policy) capabilities {
	if byReason[SetuidSetgid].For(p) == Keep {
		return writing | special
	}
	return writing
}

// confinement calls work and returns what it returns, a panic as a *Panic; or why it
// could not be confined and was not called.
type confinement func(work func() error) error

// only calls work on a thread of its own that has no capabilities but those in effect,
// and those in reserve, which raised takes for a call; that can gain none by executing a
// program (no_new_privs, prctl(2)); and that ends with it. Capabilities that the process
// does not have are not asked for.
//
// Goroutines that work starts run on other threads, with everything: they have to be
// confined for themselves. A goroutine that is merely started from here cannot inherit
// anything, as the runtime makes threads from a template and not from a locked one
// (runtime/proc.go, templateThread).
func only(effect, reserve capabilities) confinement {
	return func(work func() error) (err error) {
		var done sync.WaitGroup
		done.Go(func() {
			runtime.LockOSThread()
			if unix.Gettid() == unix.Getpid() {
				// The main thread does not end with its goroutine: the runtime would park
				// it for good as it is, and its capabilities are what the system shows as
				// the process's. While it is held here, the next goroutine gets another.
				defer runtime.UnlockOSThread()
				err = only(effect, reserve)(work)
				return
			}
			// Never unlocked: that is what ends the thread.
			if err = reduce(effect, reserve); err == nil {
				err = guarded(work)
			}
		})
		done.Wait()
		return err
	}
}

// reduce takes from the calling thread what is not listed, for good. The bounding set can
// stay: without new privileges, no execution looks at it. The ambient set goes with the
// inheritable one. Source: capabilities(7).
func reduce(effect, reserve capabilities) (err error) {
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
	c.permitted &= effect | reserve
	c.effective, c.inheritable = c.permitted&effect, 0
	return c.set()
}

// raised calls do with the reserve in effect, as far as the calling thread, which must be
// locked, has it.
func raised(reserve capabilities, do func() error) (err error) {
	c, err := getCaps()
	if err != nil {
		return err
	}
	more := c
	more.effective |= c.permitted & reserve
	if more == c {
		return do()
	}
	if err := more.set(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.set()) }()
	return do()
}

// threadCaps are a thread's sets.
type threadCaps struct{ permitted, effective, inheritable capabilities }

// getCaps returns those of the calling thread. Source: capget(2).
func getCaps() (threadCaps, error) {
	var data [2]unix.CapUserData // of 32 bits each, in version 3
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if err := unix.Capget(&header, &data[0]); err != nil {
		return threadCaps{}, fmt.Errorf("get capabilities: %w", err)
	}
	join := func(low, high uint32) capabilities { return capabilities(high)<<32 | capabilities(low) }
	return threadCaps{
		permitted:   join(data[0].Permitted, data[1].Permitted),
		effective:   join(data[0].Effective, data[1].Effective),
		inheritable: join(data[0].Inheritable, data[1].Inheritable),
	}, nil
}

// set gives the calling thread these. Source: capset(2).
func (c threadCaps) set() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{
		{Permitted: uint32(c.permitted), Effective: uint32(c.effective), Inheritable: uint32(c.inheritable)},
		{
			Permitted: uint32(c.permitted >> 32), Effective: uint32(c.effective >> 32),
			Inheritable: uint32(c.inheritable >> 32),
		},
	}
	if err := unix.Capset(&header, &data[0]); err != nil {
		return fmt.Errorf("set capabilities: %w", err)
	}
	return nil
}
