package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/docker/go-units"

	"imagemanager.internal/internal/archive"
	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/store"
)

// cmdDemo shows the whole system at work: a real daemon, a real queue protocol, a real
// thin pool. Whatever happens, it leaves nothing behind: no device, no loop, no process,
// no file.
func cmdDemo(ctx context.Context, args []string, out io.Writer) (err error) {
	fs := flags("demo", "<archive.tar>", out)
	emulator := fs.String("emulator", "",
		"program that serves S3 and SQS when AWS_ENDPOINT_URL is not set (default: emulator beside consumer)")
	dataSize := size(4 << 30)
	fs.Var(&dataSize, "data-size", "size of the pool's sparse data file")
	cfg, err := loadConfig(fs, args)
	if err != nil {
		return err
	}
	if fs.NArg() != 1 {
		return &usageError{errors.New("demo takes one image tarball: `make demo` makes one and calls this")}
	}
	if err := devmapper.Probe(); err != nil {
		return fmt.Errorf("%w; `make demo` boots a user-mode-linux that has it", err)
	}
	w, err := newWorld(ctx, cfg, out, *emulator)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	return w.play(ctx, fs.Arg(0), dataSize)
}

// play is the script of the demo.
func (w *world) play(ctx context.Context, tarball string, dataSize size) error {
	w.title("A thin pool, on sparse files behind loop devices")
	if err := w.consumer(ctx, "pool", "create", "--data-size", fmt.Sprint(int64(dataSize)), "--thins",
		"1000"); err != nil {
		return err
	}
	w.title("The daemon, with policy %q: a real distribution has absolute links, setuid files and devices; strict, the default, refuses them", w.cfg.Policy)
	if err := w.startDaemon(ctx); err != nil {
		return err
	}
	first, err := w.playFirst(ctx, tarball)
	if err != nil {
		return err
	}
	if err := w.playAgain(ctx, tarball, first); err != nil {
		return err
	}
	if err := w.playHostile(ctx); err != nil {
		return err
	}
	w.title("Stop: SIGTERM to the daemon, detach the pool")
	if err := w.stopDaemon(); err != nil {
		return err
	}
	return w.consumer(ctx, "pool", "detach")
}

// demoKey is the object that the demo uploads twice.
const demoKey = "images/demo.tar"

// playFirst uploads the image and shows what became of it.
func (w *world) playFirst(ctx context.Context, tarball string) (store.Image, error) {
	info, err := os.Stat(tarball)
	if err != nil {
		return store.Image{}, err
	}
	w.title("Upload %s (%s) as s3://%s/%s; S3 notifies the queue, the daemon does the rest",
		tarball, units.BytesSize(float64(info.Size())), w.cfg.Bucket, demoKey)
	began := time.Now()
	img, err := w.upload(ctx, demoKey, tarball)
	if err != nil {
		return img, err
	}
	if img.State != store.StateActive {
		return img, fmt.Errorf("image ended %s: %s", img.State, img.Reason)
	}
	w.say("active after %s", time.Since(began).Round(10*time.Millisecond))
	for _, command := range [][]string{{"images"}, {"snapshots"}, {"pool", "status"}, {"history", demoKey}} {
		if err := w.consumer(ctx, command...); err != nil {
			return img, err
		}
	}
	return img, w.lookInside(ctx, img)
}

// lookInside mounts the snapshot read-only and reads all of it.
func (w *world) lookInside(ctx context.Context, img store.Image) (err error) {
	snapshots, err := w.store.SnapshotsOf(ctx, img.ID)
	if err != nil || len(snapshots) != 1 {
		return errors.Join(err, fmt.Errorf("%d snapshots, want 1", len(snapshots)))
	}
	w.title("Inside the snapshot %s", snapshots[0].Path)
	m, err := devmapper.MountDetached(snapshots[0].Path, devmapper.MountInspect)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	text, err := readInside(m.Root(), "rootfs/etc/os-release")
	switch {
	case errors.Is(err, os.ErrNotExist):
		w.say("no rootfs/etc/os-release in this image")
	case err != nil:
		return err
	default:
		w.say("$ cat rootfs/etc/os-release\n%s", strings.TrimSpace(string(text)))
	}
	manifest, err := archive.ReadManifest(ctx, m.Root())
	if err != nil {
		return err
	}
	w.say("%d files and directories; tree digest %s", len(manifest.Records), manifest.Digest())
	if manifest.Digest() != img.Tree.Digest {
		return fmt.Errorf("the journal has another digest: %s", img.Tree.Digest)
	}
	w.say("the journal has the same digest, taken while the archive was unpacked")
	return nil
}

// readInside reads a file of a mounted image through at most a few relative links, which
// cannot leave the image.
func readInside(dir *os.File, name string) ([]byte, error) {
	root, err := os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d", dir.Fd()))
	if err != nil {
		return nil, err
	}
	defer root.Close()
	for range 8 {
		target, err := root.Readlink(name)
		if err != nil { // no link: the file itself
			return root.ReadFile(name)
		}
		name = pathJoin(name, target)
	}
	return nil, fmt.Errorf("%s: too many links", name)
}

// playAgain uploads the same bytes once more: nothing is to be done, and nothing is.
func (w *world) playAgain(ctx context.Context, tarball string, before store.Image) error {
	w.title("Upload the same object again")
	devices, err := w.store.Devices(ctx)
	if err != nil {
		return err
	}
	if err := w.put(ctx, demoKey, tarball); err != nil {
		return err
	}
	took, err := w.daemon.handedOff(ctx)
	if err != nil {
		return err
	}
	after, err := w.store.Devices(ctx)
	if err != nil {
		return err
	}
	if len(after) != len(devices) {
		return fmt.Errorf("the second upload made a device: %d before, %d after", len(devices), len(after))
	}
	w.say("handed off in %s: image %d is there already; no new device", took, before.ID)
	return nil
}

// playHostile uploads an archive that tries to write outside of its root.
func (w *world) playHostile(ctx context.Context) error {
	w.title("Upload a hostile archive: an entry named ../../etc/cron.d/owned")
	before, err := w.poolUse()
	if err != nil {
		return err
	}
	path, err := writeHostile(w.dir)
	if err != nil {
		return err
	}
	const key = "images/hostile.tar"
	img, err := w.upload(ctx, key, path)
	if err != nil {
		return err
	}
	if img.State != store.StateViolation && img.State != store.StateRejected {
		return fmt.Errorf("the hostile archive ended %s", img.State)
	}
	if err := w.consumer(ctx, "history", key); err != nil {
		return err
	}
	after, err := w.poolUse()
	if err != nil {
		return err
	}
	if before != after {
		return fmt.Errorf("the pool changed: %s before, %s after", before, after)
	}
	w.say("refused by name; the pool is as before: %s", after)
	return nil
}

// poolUse says how much of the pool is in use.
func (w *world) poolUse() (string, error) {
	s, err := w.pool.Status()
	if err != nil {
		return "", err
	}
	thins, err := w.pool.Thins()
	return fmt.Sprintf("%d thin devices, %d bytes of data", len(thins), s.UsedData), err
}
