package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"imagemanager.internal/internal/store"
)

func watchCommand() *cobra.Command {
	return withSettings(&cobra.Command{
		Use:   "watch",
		Short: "Watch the stages, the pool, the queue and the journal at work",
		Long: `Watch shows what status does, and the newest events of the journal, every second,
until Ctrl-C, which is its normal end. If its output is not a terminal, it prints
a line for each event, and one whenever the health or the number of images changes.`,
		Example:     "  consumer watch\n  consumer watch | tee journal.txt",
		SuggestFor:  []string{"top"},
		Annotations: exits(3),
		RunE:        looking(watch),
	}, "listen")
}

const (
	// watchPause is how long a picture stays.
	watchPause = time.Second
	// eventsBefore is how many events are printed that came before the watch.
	eventsBefore = 10
)

// What a terminal is told (ECMA-48, and xterm's control sequences).
const (
	screenBegin = "\x1b[?1049h\x1b[?25l\x1b[?7l" // another screen, no cursor, no wrapping of long lines
	screenEnd   = "\x1b[?7h\x1b[?25h\x1b[?1049l"
	pictureHome = "\x1b[H"
	lineEnd     = "\x1b[K\r\n" // clear the rest of the line
	pictureEnd  = "\x1b[K\x1b[J"
)

func watch(ctx context.Context, c *call) error {
	screen, isFile := c.out.(*os.File)
	if !isFile || !term.IsTerminal(int(screen.Fd())) || os.Getenv("TERM") == "dumb" {
		return c.watchLines(ctx)
	}
	fmt.Fprint(screen, screenBegin)
	defer fmt.Fprint(screen, screenEnd)
	return repeat(ctx, watchPause, func(ctx context.Context) error { return c.paint(ctx, screen) })
}

// paint puts one picture on the screen, as large as the screen is now.
func (c *call) paint(ctx context.Context, screen *os.File) error {
	width, height, err := term.GetSize(int(screen.Fd()))
	if err != nil {
		return err
	}
	r, err := c.statusReport(ctx)
	if err != nil {
		return err
	}
	s, err := c.newestEvents(ctx, height)
	if err != nil {
		return err
	}
	events, err := s.next(ctx)
	if err != nil {
		return err
	}
	lines, err := c.picture(r, events, width, height)
	if err != nil {
		return err
	}
	_, err = io.WriteString(screen, pictureHome+strings.Join(lines, lineEnd)+pictureEnd)
	return err
}

// newestEvents is the stream of all events from the last so many on.
func (c *call) newestEvents(ctx context.Context, most int) (*eventStream, error) {
	size, err := c.store.Size(ctx)
	return &eventStream{
		store: c.store, seq: max(0, size.Events-int64(most)), want: func(store.Event) bool { return true },
	}, err
}

// watchLines is watch without a terminal.
func (c *call) watchLines(ctx context.Context) error {
	s, err := c.newestEvents(ctx, eventsBefore)
	if err != nil {
		return err
	}
	p, last := c.eventPrinter(true), ""
	return repeat(ctx, watchPause, func(ctx context.Context) error {
		r, err := c.statusReport(ctx)
		if err != nil {
			return err
		}
		if line := r.summary(); line != last {
			fmt.Fprintf(c.out, "%s consumer: %s\n", time.Now().UTC().Format(dateTime), line)
			last = line
		}
		return s.printNext(ctx, p)
	})
}

// summary is the report in one line. It has nothing that changes all the time.
func (r *statusReport) summary() string {
	_, health := r.health()
	parts := append([]string{health}, r.conditions()...)
	return strings.Join(append(parts, "images "+imagesText(r.Images)), "; ")
}
