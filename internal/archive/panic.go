package archive

import (
	"fmt"
	"runtime/debug"
)

// Panic is a panic in one of the goroutines that Extract, ReadManifest, WriteSeal and
// ReadSeal start, as their error: a defect of this program, met in one archive, is not to
// end the work on all others. Their callers' own goroutines are for the callers to guard.
type Panic struct { //nolint:errname // what is returned is a panic
	Value any    // that the goroutine panicked with
	Stack []byte // of the goroutine, as debug.Stack formats it
}

// Error is one line; the stack is for the log.
func (p *Panic) Error() string { return fmt.Sprintf("panic: %v", p.Value) }

// guarded calls do, whose panic becomes its error.
func guarded(do func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &Panic{Value: v, Stack: debug.Stack()}
		}
	}()
	return do()
}
