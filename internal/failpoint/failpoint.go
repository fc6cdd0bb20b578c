//go:build failpoint

// Package failpoint lets the crash tests end the process, or the machine, at named places
// of the program. Only a program built with the tag failpoint has it; in all others Here
// does nothing and costs nothing.
//
// CIM_CRASH_AT says where: at a name, such as "after:step:unpack:sealed", or at "#17",
// the 17th passage of any failpoint since the process started. CIM_CRASH_HOW says how:
// "kill", the default, is SIGKILL to the process itself; "kernel" brings the whole kernel
// down without a sync, which is meant for user-mode-linux. CIM_CRASH_TRACE names a file
// that every passage is appended to, a line each.
//
// CIM_HOLD_AT is the name of a place where every passage waits until the file
// CIM_HOLD_UNTIL is there, so that whatever else the program does happens between two
// steps.
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

// Here is a passage of the place that the words name; they are joined by colons. It does
// not return where a crash was asked for.
func Here(words ...string) {
	name := strings.Join(words, ":")
	pass(name)
	if holdAt == name {
		hold()
	}
}

func pass(name string) {
	mu.Lock() // passages have an order; whoever dies keeps the lock, so that nobody passes meanwhile
	defer mu.Unlock()
	passed++
	if trace != nil {
		fmt.Fprintln(trace, name)
	}
	if at == name || at == fmt.Sprintf("#%d", passed) {
		crash(name)
	}
}

// hold returns once the file is there.
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

// killKernel brings the kernel down at once: no sync, no unmount, no process goes on. It
// returns only if it cannot. So that whoever runs the guest knows it for deliberate, it
// leaves a file that says why, where `uml-run` looks for it.
func killKernel(why string) {
	err := os.WriteFile(filepath.Join(os.Getenv("CIM_BOOT_DIR"), "down"), []byte(why), 0o600)
	if err == nil {
		err = os.WriteFile("/proc/sysrq-trigger", []byte("c"), 0) // a panic; "b" waits for ever in user-mode-linux 6.1
	}
	fmt.Fprintf(os.Stderr, "CIM_CRASH_HOW=kernel: %v\n", err)
	os.Exit(2)
}
