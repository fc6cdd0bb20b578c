package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// The lock files in the state directory. Processes lock them by flock(2): the kernel
// drops a lock with its process.
const (
	daemonLock = "daemon.lock" // held by a daemon, and by a command not to be run beside one
	poolLock   = "pool.lock"   // held during changes of the pool
	nextLock   = "pool.next"   // held by the next owner of pool.lock
)

// How long to wait for the owner of a lock.
const (
	lookPatience  = time.Second      // for a command, to see whether a daemon runs
	poolPatience  = 10 * time.Second // for another command, or the daemon's reconciling
	startPatience = 10 * time.Minute // the daemon, and a long verify, for commands
	lockPause     = 50 * time.Millisecond
	lockReport    = 30 * time.Second // interval of the log lines about the owner
)

// lockState takes the lock for this process alone.
func (s *system) lockState(name string) error {
	if err := os.MkdirAll(s.cfg.StateDir, 0o700); err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(s.cfg.StateDir, name), os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("lock: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return errors.Join(fmt.Errorf("%w: %s is held by %s", errLocked, f.Name(), lockHolder(f.Name())), f.Close())
	}
	s.onClose(f.Close)
	return nil
}

// waitLock is lockState with patience: at its end the error is errLocked. The end of ctx
// ends the wait at once.
func (s *system) waitLock(ctx context.Context, name string, patience time.Duration) error {
	tick, began := time.NewTicker(lockPause), time.Now()
	defer tick.Stop()
	for report := lookPatience; ; {
		err := s.lockState(name)
		waited := time.Since(began)
		if !errors.Is(err, errLocked) || waited >= patience {
			return err
		}
		if waited >= report {
			s.log.Warn().Err(err).Dur("waited_ms", waited).Dur("at_most_ms", patience).
				Msg("waiting for another process")
			report = waited + lockReport
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// lockPool keeps others out of the pool. Only one process waits for the lock at a time,
// and holds pool.next meanwhile. Otherwise a command that takes the lock again and again,
// for one image after the other, would keep the others out.
func (s *system) lockPool(ctx context.Context, patience time.Duration) (err error) {
	next := &system{cfg: s.cfg, log: s.log}
	defer func() { err = errors.Join(err, next.Close()) }()
	if err := next.waitLock(ctx, nextLock, patience); err != nil {
		return err
	}
	return s.waitLock(ctx, poolLock, patience)
}

// lockAll keeps a daemon and everybody else away.
func (s *system) lockAll(ctx context.Context) error {
	if err := s.waitLock(ctx, daemonLock, lookPatience); err != nil {
		return err
	}
	return s.lockPool(ctx, poolPatience)
}

// holdingPool calls do while others are kept out of the pool.
func (s *system) holdingPool(ctx context.Context, patience time.Duration, do func() error) error {
	alone := &system{cfg: s.cfg, log: s.log}
	if err := alone.lockPool(ctx, patience); err != nil {
		return errors.Join(err, alone.Close())
	}
	return errors.Join(do(), alone.Close())
}

// exclusive keeps other commands out of the pool until the function returned is called.
// It does not wait: the daemon has other things to do.
func (s *system) exclusive() (func() error, error) {
	alone := &system{cfg: s.cfg}
	if err := alone.lockState(poolLock); err != nil {
		return nil, errors.Join(err, alone.Close())
	}
	return alone.Close, nil
}

// lockOwner names the process with a lock of a state directory; it is empty if nobody has
// it. It makes nothing. A lock that this user may not open is only looked up in /proc.
func lockOwner(stateDir, name string) (string, error) {
	path := filepath.Join(stateDir, name)
	f, err := os.Open(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", nil
	case errors.Is(err, fs.ErrPermission):
		return lockedBy(path), nil
	case err != nil:
		return "", fmt.Errorf("lock: %w", err)
	}
	defer f.Close()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB); err != nil {
		return lockHolder(path), nil
	}
	return "", nil
}

// daemonRunning reports whether a daemon holds the state directory.
func (s *system) daemonRunning() bool {
	owner, _ := lockOwner(s.cfg.StateDir, daemonLock) // a lock that cannot be read is nobody's for all we know
	return owner != ""
}

// lockHolder names the process that holds a lock, as far as /proc tells.
func lockHolder(path string) string {
	return cmp.Or(lockedBy(path), "a process that is not visible from here")
}

// lockedBy looks a lock up in /proc/locks; it is empty if it is not there. Each line is
// "1: FLOCK ADVISORY WRITE 4711 fd:01:1234 0 EOF", with the process and the inode.
func lockedBy(path string) string {
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		return ""
	}
	inode := strconv.FormatUint(st.Ino, 10)
	locks, err := os.Open("/proc/locks")
	if err != nil {
		return ""
	}
	defer locks.Close()
	for lines := bufio.NewScanner(locks); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) > 5 && fields[1] == "FLOCK" && strings.HasSuffix(fields[5], ":"+inode) {
			return process(fields[4])
		}
	}
	return ""
}

// process is a process with its command line.
func process(pid string) string {
	line, err := os.ReadFile(filepath.Join("/proc", pid, "cmdline"))
	if err != nil {
		return "process " + pid
	}
	words := strings.ReplaceAll(strings.TrimRight(string(line), "\x00"), "\x00", " ")
	return fmt.Sprintf("process %s (%s)", pid, cut(oneLine(words), 160))
}
