package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/reconcile"
	"imagemanager.internal/internal/store"
)

// exitCode is one way to end.
type exitCode struct {
	code    int
	meaning string
	errs    []error // the errors with this code
}

// exitCodes are searched from the top.
var exitCodes = []exitCode{
	{0, "success", nil},
	{1, "failure", nil}, // every other error
	{2, "wrong usage or configuration", nil},
	{6, "an image is not what was sealed", []error{errVerify}}, // whatever could not be looked at besides
	{4, "another instance holds the state directory", []error{errLocked}},
	{3, "the machine, the pool or the database is not as it must be", []error{
		devmapper.ErrUnavailable, devmapper.ErrForeign, devmapper.ErrNoSuperblock, devmapper.ErrHasSuperblock,
		devmapper.ErrReadOnly, devmapper.ErrDamaged, devmapper.ErrUnidentified, errNoPool, errPoolLost,
		errNoDatabase, errDatabaseLost, errNoParts, errNotPermitted,
		reconcile.ErrWrongPool, store.ErrNewer,
	}},
	{5, "not found", []error{store.ErrNotFound, errNoObject, errWasGone, errNotMounted}},
	{7, "recover left devices of the pool alone", []error{errLeftAlone}},
	{8, "the archive is rejected, or would be", []error{errRejected, errWasRejected}},
	{9, "the archive is refused as an attack, or would be", []error{errViolation, errWasAttack}},
	{130, "interrupted", nil},
}

// damagedAdvice follows every error about a damaged database, wherever it was noticed.
const damagedAdvice = `consumer: the database, consumer.db in the state directory, is damaged; nothing was written
to it. Stop the daemon, move consumer.db, consumer.db-wal and consumer.db-shm away, and put the newest
` + "`consumer backup` there as consumer.db; without one, rebuild it with `consumer recover`."

// report prints the error and chooses the exit code.
func report(err error, w io.Writer) int {
	if err == nil {
		return 0
	}
	if errors.Is(err, context.Canceled) {
		fmt.Fprintln(w, "consumer: interrupted")
		return 130
	}
	fmt.Fprintf(w, "consumer: %v\n", err)
	damaged := store.Corrupt(err)
	if damaged {
		fmt.Fprintln(w, damagedAdvice)
	}
	if usage := new(usageError); errors.As(err, &usage) {
		return 2
	}
	for _, e := range exitCodes {
		for _, target := range e.errs {
			if errors.Is(err, target) {
				return e.code
			}
		}
		if e.code == 3 && damaged {
			return 3
		}
	}
	return 1
}

// exitCodeTable lists what the exit codes mean; without any, all of them.
func exitCodeTable(codes ...int) string {
	var b strings.Builder
	b.WriteString("Exit Codes:\n")
	byCode := func(a, b exitCode) int { return a.code - b.code }
	for _, e := range slices.SortedFunc(slices.Values(exitCodes), byCode) {
		if len(codes) == 0 || slices.Contains(codes, e.code) {
			fmt.Fprintf(&b, "  %-4d %s\n", e.code, e.meaning)
		}
	}
	return b.String()
}

// exits notes what the exit codes of a command mean: these, and those that all have.
func exits(codes ...int) map[string]string {
	return map[string]string{exitsNote: exitCodeTable(append([]int{0, 1, 2}, codes...)...)}
}

// exitsNote is the annotation of a command with its exit codes.
const exitsNote = "exit codes"
