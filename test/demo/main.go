// Command demo shows the whole system at work: a real daemon, the real protocols of S3
// and SQS, a real thin pool. It uploads an image, uploads it again, and then uploads a
// hostile archive. Whatever happens, it leaves nothing behind: no device, no loop, no
// process, no file. `make demo` runs it in user-mode-linux.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path"
	"strings"
	"syscall"
	"time"

	"github.com/docker/go-units"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/devmapper/ext4"
	"imagemanager.internal/internal/store"
)

const (
	imageKey   = "images/demo.tar" // uploaded twice
	hostileKey = "images/hostile.tar"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout)) }

func run(args []string, out io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // the second signal ends the program at once
	fs := flag.NewFlagSet("demo", flag.ContinueOnError)
	program := fs.String("consumer", "bin/consumer", "the program to show")
	dataSize := fs.String("data-size", "4GiB", "size of the pool's sparse data file")
	fs.Usage = func() {
		fmt.Fprint(fs.Output(), "Usage: demo [flags] <archive.tar>\n\n"+
			"With AWS_ENDPOINT_URL it uses the S3 and SQS there, otherwise an emulator.\n\n")
		fs.PrintDefaults()
	}
	switch err := fs.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	case fs.NArg() != 1:
		fs.Usage()
		return 2
	}
	err := play(ctx, *program, *dataSize, fs.Arg(0), out)
	switch {
	case errors.Is(err, context.Canceled):
		fmt.Fprintln(os.Stderr, "demo: interrupted")
		return 130
	case err != nil:
		fmt.Fprintf(os.Stderr, "demo: %v\n", err)
		return 1
	}
	return 0
}

// play is the script of the demo.
func play(ctx context.Context, program, dataSize, tarball string, out io.Writer) (err error) {
	if err := devmapper.Probe(); err != nil {
		return fmt.Errorf("%w; `make demo` boots a user-mode-linux that has it", err)
	}
	m, err := newMachine(ctx, program, out)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.close()) }()
	m.title("A thin pool, on sparse files behind loop devices")
	if err := m.consumer(ctx, "pool", "create", "--data-size", dataSize, "--thins", "1000"); err != nil {
		return err
	}
	m.title("The daemon, with policy %q: a real distribution has absolute links, setuid files and devices; "+
		"strict, the default, refuses them", m.policy)
	if err := m.startDaemon(ctx); err != nil {
		return err
	}
	for _, scene := range []func(context.Context, string) error{m.showImage, m.showAgain, m.showHostile} {
		if err := scene(ctx, tarball); err != nil {
			return err
		}
	}
	m.title("Stop: SIGTERM to the daemon, detach the pool")
	began := time.Now()
	if err := m.daemon.stop(); err != nil {
		return err
	}
	m.say("daemon gone after %s", time.Since(began).Round(time.Millisecond))
	return m.consumer(ctx, "pool", "detach")
}

// showImage uploads the image and shows what became of it.
func (m *machine) showImage(ctx context.Context, tarball string) error {
	info, err := os.Stat(tarball)
	if err != nil {
		return err
	}
	m.title("Upload %s (%s) as s3://%s/%s; S3 notifies the queue, the daemon does the rest",
		tarball, units.BytesSize(float64(info.Size())), m.bucket.Name, imageKey)
	began := time.Now()
	img, err := m.upload(ctx, imageKey, tarball)
	if err != nil {
		return err
	}
	if img.State != store.StateActive {
		return fmt.Errorf("image ended %s: %s", img.State, img.Reason)
	}
	m.say("active after %s", time.Since(began).Round(10*time.Millisecond))
	for _, command := range [][]string{{"images"}, {"snapshots"}, {"pool", "status"}, {"history", imageKey}} {
		if err := m.consumer(ctx, command...); err != nil {
			return err
		}
	}
	if err := m.lookInside(ctx, img); err != nil {
		return err
	}
	return m.consumer(ctx, "verify", imageKey)
}

// lookInside mounts the snapshot read-only and shows a file of the image.
func (m *machine) lookInside(ctx context.Context, img store.Image) (err error) {
	snapshots, err := m.store.SnapshotsOf(ctx, img.ID)
	if err != nil || len(snapshots) != 1 {
		return errors.Join(err, fmt.Errorf("%d snapshots, want 1", len(snapshots)))
	}
	m.title("Inside the snapshot %s", snapshots[0].Path)
	mount, err := devmapper.MountDetached(snapshots[0].Path, ext4.MountInspect)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, mount.Close()) }()
	text, err := readInside(mount.Root(), "rootfs/etc/os-release")
	switch {
	case errors.Is(err, os.ErrNotExist):
		m.say("no rootfs/etc/os-release in this image")
		return nil
	case err != nil:
		return err
	}
	m.say("$ cat rootfs/etc/os-release\n%s", strings.TrimSpace(string(text)))
	return nil
}

// readInside reads a file of a mounted image through at most a few links. They cannot
// leave the image.
func readInside(dir *os.File, name string) ([]byte, error) {
	root, err := os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d", dir.Fd()))
	if err != nil {
		return nil, err
	}
	defer root.Close()
	for range 8 {
		target, err := root.Readlink(name)
		if err != nil { // not a link: the file itself
			return root.ReadFile(name)
		}
		if path.IsAbs(target) {
			name = path.Join("rootfs", target)
		} else {
			name = path.Join(path.Dir(name), target)
		}
	}
	return nil, fmt.Errorf("%s: too many links", name)
}

// showAgain uploads the same bytes once more: nothing is to be done, and nothing is.
func (m *machine) showAgain(ctx context.Context, tarball string) error {
	m.title("Upload the same object again")
	devices, err := m.store.Devices(ctx)
	if err != nil {
		return err
	}
	began := time.Now()
	if err := m.put(ctx, imageKey, tarball); err != nil {
		return err
	}
	at, err := m.daemon.waitHandedOff(ctx)
	if err != nil {
		return err
	}
	after, err := m.store.Devices(ctx)
	if err != nil {
		return err
	}
	if len(after) != len(devices) {
		return fmt.Errorf("the second upload made a device: %d before, %d after", len(devices), len(after))
	}
	m.say("handed off after %s: the image is there already; no new device", at.Sub(began).Round(10*time.Millisecond))
	return nil
}

// showHostile uploads an archive with an entry outside of its root.
func (m *machine) showHostile(ctx context.Context, _ string) error {
	m.title("Upload a hostile archive: an entry named ../../etc/cron.d/owned")
	before, err := m.output(ctx, "pool", "status", "--json")
	if err != nil {
		return err
	}
	archive, err := writeHostile(m.dir)
	if err != nil {
		return err
	}
	img, err := m.upload(ctx, hostileKey, archive)
	if err != nil {
		return err
	}
	if img.State != store.StateViolation {
		return fmt.Errorf("the hostile archive ended %s", img.State)
	}
	if err := m.consumer(ctx, "history", hostileKey); err != nil {
		return err
	}
	after, err := m.output(ctx, "pool", "status", "--json")
	if err != nil {
		return err
	}
	if before != after {
		return fmt.Errorf("the pool changed: %s before, %s after", before, after)
	}
	m.say("refused by name; the pool is as before")
	return nil
}
