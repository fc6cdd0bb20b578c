package main

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	s3types "github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"imagemanager.internal/internal/store"
)

// world is everything the demo starts, and the way to end it.
type world struct {
	system
	out  io.Writer
	self string // this program
	dir  string // scratch: state directory, emulator's bodies
	env  []string
	s3   *s3.Client
	sqs  *sqs.Client

	daemon *daemon
	step   int
}

// newWorld makes a scratch directory, an S3 and SQS to talk to, and the bucket that
// notifies the queue.
func newWorld(ctx context.Context, cfg config, out io.Writer, emulator string) (_ *world, err error) {
	w := &world{out: out}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.Close())
		}
	}()
	if w.self, err = os.Executable(); err != nil {
		return nil, err
	}
	if w.dir, err = os.MkdirTemp("", "consumer-demo-"); err != nil {
		return nil, err
	}
	w.onClose(func() error { return os.RemoveAll(w.dir) })
	cfg.StateDir = filepath.Join(w.dir, "state")
	if cfg.Bucket == "" {
		cfg.Bucket = "demo"
	}
	if os.Getenv("IMAGE_POLICY") == "" {
		cfg.Policy = "distro"
	}
	w.cfg = cfg
	if cfg.endpointS3() == "" || cfg.endpointSQS() == "" {
		if err := w.startEmulator(ctx, emulator); err != nil {
			return nil, err
		}
	}
	if w.s3, w.sqs, err = w.clients(ctx); err != nil {
		return nil, err
	}
	if err := w.makeQueue(ctx); err != nil {
		return nil, err
	}
	w.setEnv()
	w.onClose(w.detachPool)
	return w, nil
}

// setEnv is the configuration of every consumer that the demo starts.
func (w *world) setEnv() {
	w.env = append(os.Environ(), "S3_BUCKET="+w.cfg.Bucket, "SQS_QUEUE_URL="+w.cfg.QueueURL, "AWS_ENDPOINT_URL="+
		w.cfg.Endpoint,
		"AWS_ENDPOINT_URL_S3="+w.cfg.EndpointS3, "AWS_ENDPOINT_URL_SQS="+w.cfg.EndpointSQS,
		"AWS_REGION="+w.cfg.region(), "STATE_DIR="+w.cfg.StateDir, "IMAGE_POLICY="+w.cfg.Policy,
		"LOG_LEVEL=debug", "LISTEN_ADDR=127.0.0.1:0")
}

func (w *world) title(format string, args ...any) {
	w.step++
	fmt.Fprintf(w.out, "\n=== %d. %s\n", w.step, fmt.Sprintf(format, args...))
}

func (w *world) say(format string, args ...any) { fmt.Fprintf(w.out, format+"\n", args...) }

// startEmulator serves S3 and SQS on the loopback interface.
func (w *world) startEmulator(ctx context.Context, program string) error {
	if program == "" {
		program = filepath.Join(filepath.Dir(w.self), "emulator")
	}
	if _, err := os.Stat(program); err != nil {
		return fmt.Errorf("no S3 and SQS to talk to: set AWS_ENDPOINT_URL, or build the emulator (`make build`): %w",
			err)
	}
	for _, kv := range [][2]string{{"AWS_ACCESS_KEY_ID", "demo"}, {"AWS_SECRET_ACCESS_KEY", "demo"}} {
		if err := os.Setenv(kv[0], kv[1]); err != nil {
			return err
		}
	}
	dir := filepath.Join(w.dir, "s3")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	cmd := exec.Command(program, "--listen", "127.0.0.1:0", "--dir", dir) //nolint:noctx // ended by Close, in its turn
	ready, err := startChild(cmd, cmd.StdoutPipe)
	if err != nil {
		return err
	}
	w.onClose(func() error { return stopChild(cmd, nil) })
	line, err := firstLine(ctx, ready)
	if err != nil {
		return fmt.Errorf("emulator: %w", err)
	}
	fields := strings.Fields(line)
	w.cfg.EndpointS3, w.cfg.EndpointSQS = "", ""
	w.cfg.Endpoint = fields[len(fields)-1]
	if !strings.HasPrefix(w.cfg.Endpoint, "http") {
		w.cfg.Endpoint = "http://" + w.cfg.Endpoint
	}
	return nil
}

// makeQueue makes queue and bucket and connects them. It is idempotent.
func (w *world) makeQueue(ctx context.Context) error {
	const name = "consumer-demo"
	q, err := w.sqs.CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: aws.String(name)})
	if err != nil {
		return fmt.Errorf("create queue: %w", err)
	}
	w.cfg.QueueURL = aws.ToString(q.QueueUrl)
	_, err = w.s3.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: aws.String(w.cfg.Bucket)})
	var owned *s3types.BucketAlreadyOwnedByYou
	if err != nil && !errors.As(err, &owned) {
		return fmt.Errorf("create bucket: %w", err)
	}
	arn := string(sqstypes.QueueAttributeNameQueueArn)
	attrs, err := w.sqs.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{
		QueueUrl: q.QueueUrl, AttributeNames: []sqstypes.QueueAttributeName{sqstypes.QueueAttributeNameQueueArn},
	})
	if err != nil {
		return fmt.Errorf("queue attributes: %w", err)
	}
	_, err = w.s3.PutBucketNotificationConfiguration(ctx, &s3.PutBucketNotificationConfigurationInput{
		Bucket: aws.String(w.cfg.Bucket),
		NotificationConfiguration: &s3types.NotificationConfiguration{QueueConfigurations: []s3types.QueueConfiguration{{
			QueueArn: aws.String(attrs.Attributes[arn]),
			Events:   []s3types.Event{"s3:ObjectCreated:*"},
			Filter: &s3types.NotificationConfigurationFilter{Key: &s3types.S3KeyFilter{
				FilterRules: []s3types.FilterRule{{
					Name:  s3types.FilterRuleNamePrefix,
					Value: aws.String(w.cfg.Prefix),
				}},
			}},
		}}},
	})
	if err != nil {
		return fmt.Errorf("bucket notification: %w", err)
	}
	return nil
}

// consumer runs one command of this program as an operator would.
func (w *world) consumer(ctx context.Context, args ...string) error {
	fmt.Fprintf(w.out, "\n$ consumer %s\n", strings.Join(args, " "))
	cmd := exec.CommandContext(ctx, w.self, args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = w.env, w.out, w.out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	if err := cmd.Run(); err != nil {
		return errors.Join(fmt.Errorf("consumer %s: %w", strings.Join(args, " "), err), ctx.Err())
	}
	return nil
}

// startDaemon starts `consumer run` and opens the journal beside it.
func (w *world) startDaemon(ctx context.Context) error {
	fmt.Fprintf(w.out, "\n$ consumer run --bucket %s\n", w.cfg.Bucket)
	d, err := startDaemon(w.self, w.env, w.out, "--bucket", w.cfg.Bucket)
	if err != nil {
		return err
	}
	w.daemon = d
	w.onClose(d.stop)
	if err := w.openStore(ctx); err != nil {
		return err
	}
	if err := w.daemon.running(ctx); err != nil {
		return err
	}
	return w.openPool(ctx)
}

func (w *world) stopDaemon() error {
	began := time.Now()
	err := w.daemon.stop()
	w.say("daemon gone after %s", time.Since(began).Round(time.Millisecond))
	return err
}

// detachPool leaves no device behind, whatever state the demo ended in.
func (w *world) detachPool() error {
	if _, err := os.Stat(databasePath(w.cfg.StateDir)); errors.Is(err, os.ErrNotExist) { // no pool was made
		return nil
	}
	cmd := exec.Command(w.self, "pool", "detach") //nolint:noctx // runs also after an interrupt
	cmd.Env = w.env
	text, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 3 { // there is none
		return nil
	}
	if err != nil {
		return fmt.Errorf("detach: %w: %s", err, text)
	}
	return nil
}

// put uploads a file.
func (w *world) put(ctx context.Context, key, file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := w.s3.PutObject(ctx,
		&s3.PutObjectInput{Bucket: aws.String(w.cfg.Bucket), Key: aws.String(key), Body: f}); err != nil {
		return fmt.Errorf("upload %s: %w", key, err)
	}
	return nil
}

// upload puts a file and waits until its image is terminal.
func (w *world) upload(ctx context.Context, key, file string) (store.Image, error) {
	if err := w.put(ctx, key, file); err != nil {
		return store.Image{}, err
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		images, err := w.store.ByKey(ctx, key)
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
		case <-w.daemon.gone:
			return store.Image{}, errors.New("the daemon ended")
		}
	}
}

// writeHostile writes an archive that is a fine image but for one entry.
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
	if err := tw.WriteHeader(&tar.Header{
		Name: "../../etc/cron.d/owned", Mode: 0o644,
		Size: int64(len(text)),
	}); err != nil {
		return "", err
	}
	if _, err := io.WriteString(tw, text); err != nil {
		return "", err
	}
	return name, errors.Join(tw.Close(), f.Close())
}

// pathJoin resolves a relative link's target from the link's directory.
func pathJoin(link, target string) string {
	if path.IsAbs(target) {
		return path.Join("rootfs", target)
	}
	return path.Join(path.Dir(link), target)
}
