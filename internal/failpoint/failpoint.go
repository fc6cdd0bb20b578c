//go:build failpoint

// Package failpoint lets the crash tests end the process, or the machine, at named places
// of the program. Only a program built with the tag failpoint has it. In all others Here
// does nothing.
//
// The tests control it by environment variables:
//   - CIM_CRASH_AT is the place of the crash: a name such as "after:step:unpack:sealed",
//     or a number such as "#17", the 17th passage of any failpoint since the start.
//   - CIM_CRASH_HOW is "kill", the default, for SIGKILL to the process itself, or
//     "kernel" for the end of the whole kernel without a sync, in user-mode-linux.
//   - CIM_CRASH_TRACE is a file. Every passage appends its name to it, a line each.
//   - CIM_HOLD_AT is the name of a place. Every passage there waits until the file
//     CIM_HOLD_UNTIL exists. Meanwhile the rest of the program goes on between two steps.
package failpoint

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

var (
	at, how = os.Getenv("CIM_CRASH_AT"), os.Getenv("CIM_CRASH_HOW")
	mu      sync.Mutex
	passed  int
	trace   = openTrace(os.Getenv("CIM_CRASH_TRACE"))

	holdAt, holdUntil = os.Getenv("CIM_HOLD_AT"), os.Getenv("CIM_HOLD_UNTIL")
)

// Here is a passage of the place named by the words, joined by colons. It does not return
// at the place of the crash.
func Here(words ...string) {
	name := strings.Join(words, ":")
	pass(name)
	if holdAt == name {
		hold()
	}
}

func pass(name string) {
	mu.Lock() // passages have an order, and nobody passes during a crash
	defer mu.Unlock()
	passed++
	if trace != nil {
		fmt.Fprintln(trace, name)
	}
	if at == name || at == fmt.Sprintf("#%d", passed) {
		crash(name)
	}
}

// hold waits until the file CIM_HOLD_UNTIL exists.
func hold() {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := os.Stat(holdUntil); err == nil {
			return
		}
		<-tick.C
	}
}

func openTrace(path string) *os.File {
	if path == "" {
		return nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		fmt.Fprintf(os.Stderr, "CIM_CRASH_TRACE: %v\n", err)
		os.Exit(2)
	}
	return f
}

func crash(name string) {
	if how == "kernel" {
		killKernel(name)
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // the signal is on its way
}

// killKernel brings the kernel down at once, without a sync or an unmount. It returns
// only on failure. First it writes a file that says why, for `uml-run`: the end of the
// guest is deliberate.
func killKernel(why string) {
	err := os.WriteFile(filepath.Join(os.Getenv("CIM_BOOT_DIR"), "down"), []byte(why), 0o600)
	if err == nil {
		err = os.WriteFile("/proc/sysrq-trigger", []byte("c"), 0) // a panic; "b" hangs in user-mode-linux 6.1
	}
	fmt.Fprintf(os.Stderr, "CIM_CRASH_HOW=kernel: %v\n", err)
	os.Exit(2)
}
