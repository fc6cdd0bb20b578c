package archive

import (
	"fmt"
	"runtime/debug"
)

// Panic is the panic of a goroutine that works on an archive, as an error: a defect shown
// by one archive must not end the work on all others. Panics of the caller's own
// goroutines are not caught.
type Panic struct { //nolint:errname // what is returned is a panic
	Value any    // the value of the panic
	Stack []byte // of the goroutine, as debug.Stack formats it
}

// Error returns one line. The stack is for the log.
func (p *Panic) Error() string { return fmt.Sprintf("panic: %v", p.Value) }

// CatchPanic calls do and returns its error, or its panic as a *Panic.
func CatchPanic(do func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &Panic{Value: v, Stack: debug.Stack()}
		}
	}()
	return do()
}
