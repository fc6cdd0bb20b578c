package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/rs/zerolog"
)

// logPatience is how long a line of the log may take to be written.
const logPatience = time.Second

// logTime is RFC 3339 with milliseconds: several events happen within one.
const logTime = "2006-01-02T15:04:05.000Z07:00"

// The forms of the log. Without one it is for people if they read it on a terminal.
const (
	formatJSON    = "json"
	formatConsole = "console"
)

// newLogger writes JSON for machines, or lines for people; colours are for a terminal.
func newLogger(level, format string, w io.Writer, terminal bool) zerolog.Logger {
	format = strings.ToLower(format)
	if format == formatConsole || format == "" && terminal {
		w = zerolog.ConsoleWriter{Out: w, TimeFormat: "15:04:05.000", NoColor: !terminal}
	}
	l, err := zerolog.ParseLevel(level)
	if err != nil { // refused by checkCommon; without it, say more rather than less
		l = zerolog.DebugLevel
	}
	setLogForms()
	zerolog.SetGlobalLevel(l) // of the whole process: SIGHUP can change it
	return zerolog.New(w).With().Timestamp().Logger()
}

// setLogForms sets what zerolog keeps for the whole process. Loggers may be made at the
// same time, so only the first of them sets it.
var setLogForms = sync.OnceFunc(func() {
	zerolog.TimeFieldFormat, zerolog.DurationFieldInteger = logTime, true
})

// surviveLog keeps the process alive after the reader of its log has ended. Without it
// Go's runtime ends the process at the next write to standard error. The signal is caught
// rather than ignored: child processes would ignore it as well.
func surviveLog() {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
}

// patientLog is a log for a reader that may stop reading: a full pipe would hold the
// writer of a line, and with it the daemon, forever. Write returns when the line is
// written, or after logPatience. Until such a line is through, all others are lost, and
// the log then says how many. A failed write is not an error: there is nobody to tell.
type patientLog struct {
	w     io.Writer
	turn  chan struct{} // buffered by one: whoever writes has put something into it
	stuck atomic.Bool
	lost  atomic.Int64
}

func newPatientLog(w io.Writer) *patientLog { return &patientLog{w: w, turn: make(chan struct{}, 1)} }

// Write implements io.Writer.
func (l *patientLog) Write(line []byte) (int, error) {
	patience := time.NewTimer(logPatience)
	defer patience.Stop()
	if !l.begin(patience.C) {
		l.lost.Add(1)
		return len(line), nil
	}
	text, done := bytes.Clone(line), make(chan struct{})
	go func() { // waited for, as long as that makes sense
		defer close(done)
		if n := l.lost.Swap(0); n > 0 {
			const lost = `{"level":"warn","lines":%d,"message":"lines of the log were lost: nobody read it"}`
			text = fmt.Appendf(nil, lost+"\n%s", n, text)
		}
		_, _ = l.w.Write(text)
		l.stuck.Store(false)
		<-l.turn
	}()
	select {
	case <-done:
	case <-patience.C:
		l.stuck.Store(true)
	}
	return len(line), nil
}

// begin reports whether it is this line's turn in time. Behind a stuck line it does not
// wait.
func (l *patientLog) begin(end <-chan time.Time) bool {
	if l.stuck.Load() {
		select {
		case l.turn <- struct{}{}:
			return true
		default:
			return false
		}
	}
	select {
	case l.turn <- struct{}{}:
		return true
	case <-end:
		return false
	}
}
