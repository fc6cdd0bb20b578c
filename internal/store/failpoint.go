//go:build failpoint

package store

import (
	"fmt"
	"os"
	"syscall"
)

// failpoint kills the process, as kill -9 would, when the event is the one that CIM_CRASH_AT names:
// when:kind:stage:device state, such as "after:step:unpack:sealed" or "before:done:download:".
func failpoint(when string, e Event) {
	var state DeviceState
	if e.Detail.Device != nil {
		state = e.Detail.Device.State
	}
	if os.Getenv("CIM_CRASH_AT") == fmt.Sprintf("%s:%s:%s:%s", when, e.Kind, e.Stage, state) {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // the signal is on its way
	}
}
