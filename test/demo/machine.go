package main

import (
	"archive/tar"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"imagemanager.internal/internal/store"
	"imagemanager.internal/test/cloud"
)

// machine is everything the demo starts, and the way to end it.
type machine struct {
	out     io.Writer
	program string
	dir     string // scratch: state directory, and the emulator's files
	policy  string
	env     []string
	bucket  *cloud.Bucket

	daemon *daemon
	store  *store.Store
	titles int
	undo   []func() error
}

// newMachine makes a scratch directory, an S3 and SQS to talk to, and a bucket with a
// queue for its notifications.
func newMachine(ctx context.Context, program string, out io.Writer) (_ *machine, err error) {
	m := &machine{out: out, policy: cmp.Or(os.Getenv("IMAGE_POLICY"), "distro")}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.close())
		}
	}()
	if m.program, err = filepath.Abs(program); err != nil {
		return nil, err
	}
	if m.dir, err = os.MkdirTemp("", "consumer-demo-"); err != nil {
		return nil, err
	}
	m.onClose(func() error { return os.RemoveAll(m.dir) })
	c, err := m.openCloud()
	if err != nil {
		return nil, err
	}
	m.onClose(c.Close)
	if m.bucket, err = c.Bucket(ctx, "consumer-demo"); err != nil {
		return nil, fmt.Errorf("%s: %w", c.URL, err)
	}
	if err := m.bucket.Notify(ctx); err != nil {
		return nil, err
	}
	m.env = append(os.Environ(), "S3_BUCKET="+m.bucket.Name, "SQS_QUEUE_URL="+m.bucket.Queue,
		"AWS_ENDPOINT_URL="+c.URL, "AWS_REGION=us-east-1", "AWS_ACCESS_KEY_ID=x", "AWS_SECRET_ACCESS_KEY=x",
		"STATE_DIR="+m.stateDir(), "IMAGE_POLICY="+m.policy, "LOG_LEVEL=debug", "LISTEN_ADDR=127.0.0.1:0")
	m.onClose(m.detachPool)
	return m, nil
}

// openCloud connects to AWS_ENDPOINT_URL, or starts an emulator.
func (m *machine) openCloud() (*cloud.Cloud, error) {
	if url := os.Getenv("AWS_ENDPOINT_URL"); url != "" {
		return cloud.Connect(url), nil
	}
	dir := filepath.Join(m.dir, "s3")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	return cloud.Emulate(dir, nil)
}

func (m *machine) stateDir() string { return filepath.Join(m.dir, "state") }

func (m *machine) onClose(fn func() error) { m.undo = append(m.undo, fn) }

// close ends what was started, the last first.
func (m *machine) close() error {
	var errs []error
	for i := len(m.undo) - 1; i >= 0; i-- {
		errs = append(errs, m.undo[i]())
	}
	m.undo = nil
	return errors.Join(errs...)
}

func (m *machine) title(format string, args ...any) {
	m.titles++
	fmt.Fprintf(m.out, "\n=== %d. %s\n", m.titles, fmt.Sprintf(format, args...))
}

func (m *machine) say(format string, args ...any) { fmt.Fprintf(m.out, format+"\n", args...) }

// consumer runs one command as an operator would.
func (m *machine) consumer(ctx context.Context, args ...string) error {
	fmt.Fprintf(m.out, "\n$ consumer %s\n", strings.Join(args, " "))
	text, err := m.output(ctx, args...)
	fmt.Fprint(m.out, text)
	return err
}

// output runs one command and returns what it printed.
func (m *machine) output(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, m.program, args...)
	cmd.Env = m.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a Ctrl-C reaches it through us
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	text, err := cmd.CombinedOutput()
	if err != nil {
		err = errors.Join(fmt.Errorf("consumer %s: %w", strings.Join(args, " "), err), ctx.Err())
	}
	return string(text), err
}

// startDaemon starts `consumer run` and opens the journal beside it.
func (m *machine) startDaemon(ctx context.Context) (err error) {
	fmt.Fprintf(m.out, "\n$ consumer run\n")
	if m.daemon, err = startDaemon(m.program, m.env, m.out); err != nil {
		return err
	}
	m.onClose(m.daemon.stop)
	if err := m.daemon.waitRunning(ctx); err != nil {
		return err
	}
	if m.store, err = store.OpenExisting(ctx, filepath.Join(m.stateDir(), "consumer.db")); err != nil {
		return err
	}
	m.onClose(m.store.Close)
	return nil
}

// detachPool leaves no device behind, whatever state the demo ended in.
func (m *machine) detachPool() error {
	if _, err := os.Stat(filepath.Join(m.stateDir(), "consumer.db")); errors.Is(err, os.ErrNotExist) {
		return nil // no pool was made
	}
	text, err := m.output(context.Background(), "pool", "detach") // also after an interrupt
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 3 { // there is none
		return nil
	}
	if err != nil {
		return fmt.Errorf("%w: %s", err, text)
	}
	return nil
}

// put uploads a file.
func (m *machine) put(ctx context.Context, key, file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	in := &s3.PutObjectInput{Bucket: aws.String(m.bucket.Name), Key: aws.String(key), Body: f}
	if _, err := m.bucket.S3.PutObject(ctx, in); err != nil {
		return fmt.Errorf("upload %s: %w", key, err)
	}
	return nil
}

// upload puts a file and waits until its image is terminal.
func (m *machine) upload(ctx context.Context, key, file string) (store.Image, error) {
	if err := m.put(ctx, key, file); err != nil {
		return store.Image{}, err
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		images, err := m.store.ByKey(ctx, key)
		if err != nil {
			return store.Image{}, err
		}
		if n := len(images); n > 0 && images[n-1].State != store.StatePending {
			return images[n-1], nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return store.Image{}, ctx.Err()
		case <-m.daemon.ended:
			return store.Image{}, errors.New("the daemon ended")
		}
	}
}

// writeHostile writes an archive with one hostile entry. Without it, it is a fine image.
func writeHostile(dir string) (string, error) {
	name := filepath.Join(dir, "hostile.tar")
	f, err := os.Create(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	tw := tar.NewWriter(f)
	for _, d := range []string{"etc/", "usr/", "var/"} {
		if err := tw.WriteHeader(&tar.Header{Name: d, Typeflag: tar.TypeDir, Mode: 0o755}); err != nil {
			return "", err
		}
	}
	text := "* * * * * root touch /owned\n"
	entry := &tar.Header{Name: "../../etc/cron.d/owned", Mode: 0o644, Size: int64(len(text))}
	if err := tw.WriteHeader(entry); err != nil {
		return "", err
	}
	if _, err := io.WriteString(tw, text); err != nil {
		return "", err
	}
	return name, errors.Join(tw.Close(), f.Close())
}
