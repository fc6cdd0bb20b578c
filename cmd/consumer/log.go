package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/rs/zerolog"
)

// logPatience is how long a line of the log may take to be written.
const logPatience = time.Second

// newLogger writes JSON for machines, and lines for people when stderr is a terminal.
func newLogger(level string, w io.Writer, terminal bool) zerolog.Logger {
	if terminal {
		w = zerolog.ConsoleWriter{Out: w, TimeFormat: time.TimeOnly}
	}
	l, err := zerolog.ParseLevel(level)
	if err != nil { // refused by checkCommon; without it, say more rather than less
		l = zerolog.DebugLevel
	}
	zerolog.SetGlobalLevel(l) // the one level of the process, so that SIGHUP can change it
	return zerolog.New(w).With().Timestamp().Logger()
}

// surviveLog makes the end of whoever reads the log cost lines, and nothing more: Go's
// runtime would end the process at the next write to a standard error without a reader.
// The signal is caught and not ignored: what is ignored is ignored by child processes,
// too.
func surviveLog() {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
}

// patientLog is a log whose reader may stand still: a pipe that nobody empties would hold
// whoever writes a line, and with it the daemon, for ever. A line is written before Write
// returns, but for one that takes longer than logPatience; until that one is through, all
// others are lost, and the log says how many. What cannot be written is lost without an
// error: there is nobody to tell.
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
			text = fmt.Appendf(nil, `{"level":"warn","lines":%d,"message":"lines of the log were lost: nobody read it"}`+"\n%s", n, text)
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

// begin reports whether it is this line's turn in time. Behind one that is stuck there is
// no time.
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
