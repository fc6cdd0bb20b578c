package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/kelseyhightower/envconfig"

	"imagemanager.internal/internal/archive"
	"imagemanager.internal/internal/pipeline"
	"imagemanager.internal/internal/provision"
	"imagemanager.internal/internal/queue"
)

// config is everything an operator may set: by environment, and the common ones by flag
// as well.
type config struct {
	Bucket   string `envconfig:"S3_BUCKET" desc:"bucket to take images from (run)"`
	Prefix   string `envconfig:"S3_PREFIX" default:"images/" desc:"key prefix of images"`
	QueueURL string `envconfig:"SQS_QUEUE_URL" desc:"queue with the bucket's notifications (run)"`
	Region   string `envconfig:"AWS_REGION" desc:"AWS region; by default that of SQS_QUEUE_URL, else us-east-1"`

	Endpoint    string `envconfig:"AWS_ENDPOINT_URL" desc:"another endpoint for S3 and SQS, such as LocalStack"`
	EndpointS3  string `envconfig:"AWS_ENDPOINT_URL_S3" desc:"another endpoint for S3 alone"`
	EndpointSQS string `envconfig:"AWS_ENDPOINT_URL_SQS" desc:"another endpoint for SQS alone; by default the host of SQS_QUEUE_URL unless that is a regional one"`

	StateDir string `envconfig:"STATE_DIR" default:"/var/lib/consumer" desc:"database, archives, and the pool's files"`
	Listen   string `envconfig:"LISTEN_ADDR" default:"127.0.0.1:9090" desc:"address of /metrics, /healthz, /readyz; empty: none"`
	LogLevel string `envconfig:"LOG_LEVEL" default:"info" desc:"debug, info, warn, error"`

	Policy      string            `envconfig:"IMAGE_POLICY" default:"strict" desc:"strict, distro or trusted: what archives may contain"`
	Policies    map[string]string `envconfig:"IMAGE_POLICIES" desc:"policies of key prefixes: images/debian/:distro,images/own/:trusted"`
	DeviceSize  size              `envconfig:"DEVICE_SIZE" default:"20GiB" desc:"virtual size of an image's thin device, a multiple of 64KiB, at most 100GB"`
	MaxImage    size              `envconfig:"MAX_IMAGE_SIZE" default:"10GiB" desc:"largest archive, and largest sum of its files"`
	MaxFile     size              `envconfig:"MAX_FILE_SIZE" default:"1GiB" desc:"largest file in an archive"`
	MaxEntries  int               `envconfig:"MAX_ENTRIES" default:"100000" desc:"most entries in an archive"`
	Violations  size              `envconfig:"VIOLATIONS_SIZE" default:"10GiB" desc:"how much of archives that were refused as attacks is kept; 0: none"`
	MaxAttempts int               `envconfig:"MAX_ATTEMPTS" default:"10" desc:"failures in a row before an image is given up"`
	MaxCutOffs  int               `envconfig:"MAX_CUT_OFFS" default:"3" desc:"attempts in a row during which the process died, before an image is tried alone, once, and then given up"`

	Downloads       int           `envconfig:"MAX_DOWNLOADS" default:"5" desc:"downloads at once, at most 5"`
	Unpacks         int           `envconfig:"MAX_UNPACKS" default:"2" desc:"unpacks at once, at most 2"`
	Activations     int           `envconfig:"MAX_ACTIVATIONS" default:"1" desc:"activations at once, at most 32"`
	DownloadTimeout time.Duration `envconfig:"DOWNLOAD_TIMEOUT" default:"5m" desc:"for one attempt, at most 5m"`
	UnpackTimeout   time.Duration `envconfig:"UNPACK_TIMEOUT" default:"30m" desc:"for one attempt, at most 30m"`
	ActivateTimeout time.Duration `envconfig:"ACTIVATE_TIMEOUT" default:"1m" desc:"for one attempt, at most 1h"`

	Wait       time.Duration `envconfig:"SQS_WAIT" default:"20s" desc:"long poll, 1s to 20s"`
	Visibility time.Duration `envconfig:"SQS_VISIBILITY" default:"60s" desc:"visibility time-out of a held message; extended while it is held"`
	Backoff    time.Duration `envconfig:"RETRY_BACKOFF" default:"5s" desc:"before the second attempt; doubles, with jitter, up to 15m"`
	Drain      time.Duration `envconfig:"SQS_DRAIN" default:"2s" desc:"how long a poll in flight may go on after SIGTERM; one that is cut may hide a message for SQS_VISIBILITY"`
	DeadLetter string        `envconfig:"SQS_DEAD_LETTER_URL" desc:"queue for messages that nothing comes of; none: they are kept in quarantine"`
	Foreign    string        `envconfig:"FOREIGN_EVENTS" default:"keep" desc:"events about other buckets or prefixes: keep (as above) or drop"`
	Grace      time.Duration `envconfig:"SHUTDOWN_GRACE" default:"30s" desc:"how long running stages may go on after SIGTERM"`

	BackfillAtStart bool          `envconfig:"BACKFILL_AT_START" default:"false" desc:"compare the bucket with the journal when the daemon starts"`
	BackfillEvery   time.Duration `envconfig:"BACKFILL_INTERVAL" default:"0s" desc:"and so often; 0: never"`

	ReconcileEvery time.Duration `envconfig:"RECONCILE_INTERVAL" default:"10m" desc:"compare journal, pool and files so often; 0: only at the start"`

	MinFreeDisk     size    `envconfig:"STATE_MIN_FREE" default:"1GiB" desc:"free space under STATE_DIR, and under the pool's files; below, intake pauses"`
	MinFreeData     float64 `envconfig:"POOL_MIN_FREE_DATA" default:"10" desc:"percent of the pool's data; below, intake pauses"`
	MinFreeMetadata float64 `envconfig:"POOL_MIN_FREE_METADATA" default:"25" desc:"percent of the pool's metadata; below, intake pauses"`

	unread []error // problems found while reading; what could not be read has its default
}

// loadConfig reads the environment, then the flags.
func loadConfig(fs *flag.FlagSet, args []string) (config, error) {
	c := readEnvironment()
	fs.StringVar(&c.Bucket, "bucket", c.Bucket, "bucket to take images from (S3_BUCKET)")
	fs.StringVar(&c.QueueURL, "queue-url", c.QueueURL, "queue with the bucket's notifications (SQS_QUEUE_URL)")
	fs.StringVar(&c.Region, "region", c.Region, "AWS region (AWS_REGION)")
	fs.StringVar(&c.StateDir, "state-dir", c.StateDir, "database, archives, and the pool's files (STATE_DIR)")
	fs.StringVar(&c.Policy, "policy", c.Policy, "strict, distro or trusted (IMAGE_POLICY)")
	fs.StringVar(&c.Listen, "listen", c.Listen, "address of /metrics, /healthz, /readyz (LISTEN_ADDR)")
	fs.StringVar(&c.LogLevel, "log-level", c.LogLevel, "debug, info, warn or error (LOG_LEVEL)")
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return c, err
		}
		return c, &usageError{err}
	}
	switch {
	case c.StateDir == "":
		c.unread = append(c.unread, errors.New("--state-dir is empty: name a directory, such as /var/lib/consumer"))
	case strings.HasPrefix(c.StateDir, "~"):
		c.unread = append(c.unread, fmt.Errorf("STATE_DIR %q begins with ~, which only a shell replaces: write "+
			"the whole path", c.StateDir))
	}
	var err error
	c.StateDir, err = filepath.Abs(c.StateDir)
	return c, err
}

// provision translates the configuration for package provision. checkCommon has passed.
func (c config) provision() provision.Config {
	limits := archive.DefaultLimits()
	limits.ImageBytes, limits.FileBytes, limits.Entries = int64(c.MaxImage), int64(c.MaxFile), c.MaxEntries
	policies := map[string]archive.Policy{}
	for prefix, policy := range c.Policies {
		policies[prefix] = archive.Policy(policy)
	}
	return provision.Config{
		Prefix: c.Prefix,
		Policy: archive.Policy(c.Policy), Policies: policies, Limits: limits, DeviceBytes: int64(c.DeviceSize),
		StateDir: c.StateDir, MinFreeDisk: int64(c.MinFreeDisk),
		ManifestDir:  filepath.Join(c.StateDir, "manifests"),
		ViolationDir: filepath.Join(c.StateDir, "violations"), ViolationBytes: int64(c.Violations),
	}
}

// pipeline translates the configuration for the pipeline. checkCommon has passed.
func (c config) pipeline() pipeline.Config {
	p := c.provision()
	return pipeline.Config{
		Bucket: c.Bucket, Prefix: c.Prefix,
		Downloads: c.Downloads, Unpacks: c.Unpacks, Activations: c.Activations,
		DownloadTimeout: c.DownloadTimeout, UnpackTimeout: c.UnpackTimeout, ActivateTimeout: c.ActivateTimeout,
		MaxAttempts: c.MaxAttempts, MaxCutOffs: c.MaxCutOffs, Unclaimed: 2 * c.Visibility, Backoff: c.Backoff,
		Grace:       c.Grace,
		KeepForeign: c.Foreign == "keep", BackfillAtStart: c.BackfillAtStart, BackfillEvery: c.BackfillEvery,
		StateDir: c.StateDir, MinFreeDisk: int64(c.MinFreeDisk), ReconcileEvery: c.ReconcileEvery,
		MinFreeData: c.MinFreeData / 100, MinFreeMetadata: c.MinFreeMetadata / 100,
		Kept: map[string]string{
			"archives":  filepath.Join(c.StateDir, "blobs"),
			"manifests": p.ManifestDir, "violations": p.ViolationDir,
		},
	}
}

// queue translates the configuration for the queue client.
func (c config) queue(o queue.Observer) queue.Config {
	return queue.Config{
		URL: c.QueueURL, DeadLetterURL: c.DeadLetter, Wait: c.Wait, Visibility: c.Visibility,
		Drain: c.Drain, Observer: o,
	}
}

// printEnvironment writes the table of settings.
func printEnvironment(w io.Writer) error {
	const table = "VARIABLE\tDEFAULT\tMEANING\n{{range .}}{{usage_key .}}\t{{usage_default .}}\t{{usage_description .}}\n{{end}}"
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	if err := envconfig.Usagef("", &config{}, tw, table); err != nil {
		return err
	}
	return tw.Flush()
}

// stderrIsTerminal tells whether a person reads the log.
func stderrIsTerminal() bool {
	info, err := os.Stderr.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
