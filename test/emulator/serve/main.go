// Command emulator serves an emulated S3 and SQS for the demo and for experiments by
// hand. It prints one line that ends in its URL when it listens, and ends on SIGINT or
// SIGTERM, taking its files with it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"imagemanager.internal/test/emulator"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "emulator:", err)
		os.Exit(1)
	}
}

// grace is how long requests in hand may take after the end was asked for.
const grace = 2 * time.Second

// run serves until ctx ends.
func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("emulator", flag.ContinueOnError)
	listen := flags.String("listen", "127.0.0.1:0",
		"address to listen on; port 0 takes a free one. Anyone who reaches it may do anything")
	dir := flags.String("dir", os.TempDir(), "directory for the bodies of objects; they are removed at the end")
	region := flags.String("region", "us-east-1", "region of queues and buckets")
	policy := flags.Bool("check-policy", false,
		"refuse notifications to queues whose policy does not let S3 send, as AWS does")
	if err := flags.Parse(args); err != nil {
		return err
	}
	emu, err := emulator.New(emulator.Config{Dir: *dir, Region: *region, CheckPolicy: *policy})
	if err != nil {
		return err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", *listen)
	if err != nil {
		return errors.Join(err, emu.Close())
	}
	return serve(ctx, l, emu, out)
}

func serve(ctx context.Context, l net.Listener, emu *emulator.Server, out io.Writer) error {
	srv := &http.Server{Handler: emu, ReadHeaderTimeout: time.Minute}
	served := make(chan error, 1) // nobody receives when the print fails
	go func() { served <- srv.Serve(l) }()
	_, err := fmt.Fprintf(out, "emulated S3 and SQS on http://%s\n", l.Addr())
	if err == nil {
		select {
		case err = <-served:
		case <-ctx.Done():
		}
	}
	return errors.Join(err, end(srv, emu))
}

// end closes the listener, lets the requests in hand end, and cuts those that do not.
func end(srv *http.Server, emu *emulator.Server) error {
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	closed := make(chan error, 1) // so that its sender always ends
	go func() { closed <- emu.Close() }()
	if err := srv.Shutdown(ctx); err != nil {
		return errors.Join(srv.Close(), <-closed)
	}
	return <-closed
}
