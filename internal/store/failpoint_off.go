//go:build !failpoint

package store

// failpoint does nothing outside of the crash tests.
func failpoint(string, Event) {}
