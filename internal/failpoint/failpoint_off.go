//go:build !failpoint

// Package failpoint lets the crash tests end the process, or the machine, at named places
// of the program. Only a program built with the tag failpoint has it. In all others Here
// does nothing.
package failpoint

// Here does nothing outside of the crash tests.
func Here(...string) {}
