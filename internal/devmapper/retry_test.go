package devmapper

import (
	"errors"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

func TestRetryWhile(t *testing.T) {
	transient := isErrno(unix.EBUSY)
	synctest.Test(t, func(t *testing.T) {
		began, calls := time.Now(), 0
		err := retryWhile(time.Second, transient, func() error {
			if calls++; calls < 5 {
				return unix.EBUSY
			}
			return nil
		})
		if err != nil || calls != 5 || time.Since(began) != 15*time.Millisecond {
			t.Errorf("%v after %d calls and %v", err, calls, time.Since(began))
		}
		calls = 0
		began = time.Now()
		err = retryWhile(time.Second, transient, func() error { calls++; return unix.EBUSY })
		if took := time.Since(began); !errors.Is(err, unix.EBUSY) || took < time.Second ||
			took > 1200*time.Millisecond {
			t.Errorf("%v after %v", err, took)
		}
		calls = 0
		if err := retryWhile(time.Second, transient, func() error { calls++; return unix.EIO }); !errors.Is(err,
			unix.EIO) || calls != 1 {
			t.Errorf("%v after %d calls: "+strconv.Itoa(calls), err, calls)
		}
	})
}
