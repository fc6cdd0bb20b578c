package main

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// runInTerminal runs a program that reads from our terminal. The guest's console puts the
// terminal into raw mode; a guest that is killed does not put it back.
func runInTerminal(args []string) (int, error) {
	fd := int(os.Stdin.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return 0, errors.New("-t: standard input is not a terminal")
	}
	defer term.Restore(fd, before) //nolint:errcheck // the terminal may be gone
	return run(args, os.Stdin)
}

// openConsoles opens the program's standard input, output and error in a guest.
func openConsoles(terminal bool) (in, out, errs *os.File, err error) {
	if terminal {
		tty, err := os.OpenFile("/dev/tty1", os.O_RDWR|unix.O_NOCTTY, 0)
		return tty, tty, tty, err
	}
	if out, err = rawConsole("/dev/tty1"); err != nil {
		return nil, nil, nil, err
	}
	if in, err = os.OpenFile(os.DevNull, os.O_RDWR, 0); err != nil {
		return nil, nil, nil, errors.Join(err, out.Close())
	}
	return in, out, os.Stderr, nil
}
