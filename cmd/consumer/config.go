package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/docker/go-units"
	"github.com/kelseyhightower/envconfig"
	"github.com/rs/zerolog"

	"imagemanager.internal/internal/archive"
	"imagemanager.internal/internal/pipeline"
	"imagemanager.internal/internal/queue"
)

// config is everything an operator may set: by environment, and the common ones by flag as well.
type config struct {
	Bucket   string `envconfig:"S3_BUCKET" desc:"bucket to take images from (run)"`
	Prefix   string `envconfig:"S3_PREFIX" default:"images/" desc:"key prefix of images"`
	QueueURL string `envconfig:"SQS_QUEUE_URL" desc:"queue with the bucket's notifications (run)"`
	Region   string `envconfig:"AWS_REGION" default:"us-east-1" desc:"AWS region"`
	Endpoint string `envconfig:"AWS_ENDPOINT_URL" desc:"another endpoint for S3 and SQS, such as LocalStack"`

	StateDir string `envconfig:"STATE_DIR" default:"/var/lib/consumer" desc:"database, archives, and the pool's files"`
	Listen   string `envconfig:"LISTEN_ADDR" default:"127.0.0.1:9090" desc:"address of /metrics, /healthz, /readyz; empty: none"`
	LogLevel string `envconfig:"LOG_LEVEL" default:"info" desc:"debug, info, warn, error"`

	Policy      string            `envconfig:"IMAGE_POLICY" default:"strict" desc:"strict, distro or trusted: what archives may contain"`
	Policies    map[string]string `envconfig:"IMAGE_POLICIES" desc:"policies of key prefixes: images/debian/:distro,images/own/:trusted"`
	DeviceSize  size              `envconfig:"DEVICE_SIZE" default:"20GiB" desc:"virtual size of an image's thin device, at most 100GB"`
	MaxImage    size              `envconfig:"MAX_IMAGE_SIZE" default:"10GiB" desc:"largest archive, and largest sum of its files"`
	MaxFile     size              `envconfig:"MAX_FILE_SIZE" default:"1GiB" desc:"largest file in an archive"`
	MaxEntries  int               `envconfig:"MAX_ENTRIES" default:"100000" desc:"most entries in an archive"`
	Violations  size              `envconfig:"VIOLATIONS_SIZE" default:"10GiB" desc:"how much of archives that were refused as attacks is kept; 0: none"`
	MaxAttempts int               `envconfig:"MAX_ATTEMPTS" default:"10" desc:"failures in a row before an image is given up"`

	MaxCutOffs int `envconfig:"MAX_CUT_OFFS" default:"3" desc:"attempts in a row during which the process died, before an image is tried alone, once, and then given up"`

	Downloads       int           `envconfig:"MAX_DOWNLOADS" default:"5" desc:"downloads at once"`
	Unpacks         int           `envconfig:"MAX_UNPACKS" default:"2" desc:"unpacks at once"`
	Activations     int           `envconfig:"MAX_ACTIVATIONS" default:"1" desc:"activations at once"`
	DownloadTimeout time.Duration `envconfig:"DOWNLOAD_TIMEOUT" default:"5m" desc:"for one attempt"`
	UnpackTimeout   time.Duration `envconfig:"UNPACK_TIMEOUT" default:"30m" desc:"for one attempt"`
	ActivateTimeout time.Duration `envconfig:"ACTIVATE_TIMEOUT" default:"1m" desc:"for one attempt"`

	Wait       time.Duration `envconfig:"SQS_WAIT" default:"20s" desc:"long poll, at most 20s"`
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
}

// size is a number of bytes, written like 20GiB, 100GB or 4096.
type size int64

// Decode implements envconfig.Decoder. GiB and the like are powers of 1024, GB and the like of 1000.
func (s *size) Decode(text string) error {
	parse := units.FromHumanSize
	if strings.HasSuffix(strings.ToLower(text), "ib") {
		parse = units.RAMInBytes
	}
	n, err := parse(text)
	if err != nil {
		return fmt.Errorf("%q is no size: write 20GiB, 100GB or a number of bytes", text)
	}
	*s = size(n)
	return nil
}

// Set and String implement flag.Value.
func (s *size) Set(text string) error { return s.Decode(text) }
func (s *size) String() string        { return units.BytesSize(float64(*s)) }

// loadConfig reads the environment, then the flags.
func loadConfig(fs *flag.FlagSet, args []string) (config, error) {
	var c config
	if err := envconfig.Process("", &c); err != nil {
		return c, &usageError{fmt.Errorf("environment: %w", err)}
	}
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
	var err error
	if c.StateDir, err = filepath.Abs(c.StateDir); err != nil {
		return c, err
	}
	return c, nil
}

// checkRun returns every problem of a configuration for `run`, not only the first.
func (c config) checkRun() error {
	problems := c.checkCommon()
	bad := func(cond bool, format string, args ...any) {
		if cond {
			problems = append(problems, fmt.Errorf(format, args...))
		}
	}
	bad(c.Bucket == "", "S3_BUCKET (or --bucket) is not set: the bucket to take images from")
	bad(c.QueueURL == "", "SQS_QUEUE_URL (or --queue-url) is not set: the queue with the bucket's notifications")
	if u, err := url.Parse(c.QueueURL); c.QueueURL != "" && (err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https") {
		bad(true, "SQS_QUEUE_URL %q is no URL", c.QueueURL)
	}
	bad(strings.HasSuffix(c.QueueURL, ".fifo"), "SQS_QUEUE_URL %q is a FIFO queue: S3 cannot notify one; use a standard queue", c.QueueURL)
	if u, err := url.Parse(c.DeadLetter); c.DeadLetter != "" && (err != nil || u.Host == "") {
		bad(true, "SQS_DEAD_LETTER_URL %q is no URL", c.DeadLetter)
	}
	bad(c.DeadLetter != "" && c.DeadLetter == c.QueueURL, "SQS_DEAD_LETTER_URL is the queue itself")
	bad(c.Wait < 0 || c.Wait > 20*time.Second, "SQS_WAIT %s is outside 0..20s", c.Wait)
	bad(c.Drain <= 0, "SQS_DRAIN %s is not positive", c.Drain)
	bad(c.Visibility < 10*time.Second || c.Visibility > 12*time.Hour, "SQS_VISIBILITY %s is outside 10s..12h", c.Visibility)
	return errors.Join(problems...)
}

// checkCommon returns the problems that concern every command.
func (c config) checkCommon() []error {
	var problems []error
	bad := func(cond bool, format string, args ...any) {
		if cond {
			problems = append(problems, fmt.Errorf(format, args...))
		}
	}
	if _, err := archive.ParsePolicy(c.Policy); err != nil {
		bad(true, "IMAGE_POLICY: %w", err)
	}
	for prefix, policy := range c.Policies {
		if _, err := archive.ParsePolicy(policy); err != nil || policy == "" {
			bad(true, "IMAGE_POLICIES: policy %q of %q is not strict, distro or trusted", policy, prefix)
		}
	}
	bad(c.Violations < 0, "VIOLATIONS_SIZE %d is negative", c.Violations)
	if _, err := zerolog.ParseLevel(c.LogLevel); err != nil {
		bad(true, "LOG_LEVEL %q is not debug, info, warn or error", c.LogLevel)
	}
	most := archive.DefaultLimits()
	bad(c.Downloads < 1, "MAX_DOWNLOADS %d is below 1", c.Downloads)
	bad(c.Unpacks < 1, "MAX_UNPACKS %d is below 1", c.Unpacks)
	bad(c.Activations < 1, "MAX_ACTIVATIONS %d is below 1", c.Activations)
	bad(c.MaxAttempts < 1, "MAX_ATTEMPTS %d is below 1", c.MaxAttempts)
	bad(c.MaxCutOffs < 1, "MAX_CUT_OFFS %d is below 1", c.MaxCutOffs)
	bad(c.DownloadTimeout <= 0, "DOWNLOAD_TIMEOUT %s is not positive", c.DownloadTimeout)
	bad(c.UnpackTimeout <= 0, "UNPACK_TIMEOUT %s is not positive", c.UnpackTimeout)
	bad(c.ActivateTimeout <= 0, "ACTIVATE_TIMEOUT %s is not positive", c.ActivateTimeout)
	bad(c.Foreign != "keep" && c.Foreign != "drop", "FOREIGN_EVENTS %q is not keep or drop", c.Foreign)
	bad(c.BackfillEvery < 0, "BACKFILL_INTERVAL %s is negative", c.BackfillEvery)
	bad(c.Backoff <= 0, "RETRY_BACKOFF %s is not positive", c.Backoff)
	bad(c.Grace < 0, "SHUTDOWN_GRACE %s is negative", c.Grace)
	bad(c.DeviceSize < 16<<20 || c.DeviceSize > 100e9, "DEVICE_SIZE %s is outside 16MiB..100GB", c.DeviceSize.String())
	bad(c.DeviceSize%(64<<10) != 0, "DEVICE_SIZE %d is no multiple of 64 KiB", c.DeviceSize)
	bad(c.MaxImage < 1 || int64(c.MaxImage) > most.ImageBytes, "MAX_IMAGE_SIZE %s is outside 1..%s", c.MaxImage.String(), units.BytesSize(float64(most.ImageBytes)))
	bad(c.MaxFile < 1 || int64(c.MaxFile) > most.FileBytes, "MAX_FILE_SIZE %s is outside 1..%s", c.MaxFile.String(), units.BytesSize(float64(most.FileBytes)))
	bad(c.MaxEntries < 1 || c.MaxEntries > most.Entries, "MAX_ENTRIES %d is outside 1..%d", c.MaxEntries, most.Entries)
	bad(c.ReconcileEvery < 0, "RECONCILE_INTERVAL %s is negative", c.ReconcileEvery)
	bad(c.MinFreeDisk < 0, "STATE_MIN_FREE %s is negative", c.MinFreeDisk.String())
	bad(c.MinFreeData < 0 || c.MinFreeData > 90, "POOL_MIN_FREE_DATA %g is outside 0..90", c.MinFreeData)
	bad(c.MinFreeMetadata < 0 || c.MinFreeMetadata > 90, "POOL_MIN_FREE_METADATA %g is outside 0..90", c.MinFreeMetadata)
	return problems
}

// pipeline translates the configuration for the pipeline. checkCommon has passed.
func (c config) pipeline() pipeline.Config {
	limits := archive.DefaultLimits()
	limits.ImageBytes, limits.FileBytes, limits.Entries = int64(c.MaxImage), int64(c.MaxFile), c.MaxEntries
	policies := map[string]archive.Policy{}
	for prefix, policy := range c.Policies {
		policies[prefix] = archive.Policy(policy)
	}
	return pipeline.Config{
		Bucket: c.Bucket, Prefix: c.Prefix, Policies: policies,
		ManifestDir: filepath.Join(c.StateDir, "manifests"), ViolationDir: filepath.Join(c.StateDir, "violations"), ViolationBytes: int64(c.Violations),
		Downloads: c.Downloads, Unpacks: c.Unpacks, Activations: c.Activations,
		DownloadTimeout: c.DownloadTimeout, UnpackTimeout: c.UnpackTimeout, ActivateTimeout: c.ActivateTimeout,
		Policy: archive.Policy(c.Policy), Limits: limits, DeviceBytes: int64(c.DeviceSize),
		MaxAttempts: c.MaxAttempts, MaxCutOffs: c.MaxCutOffs, Unclaimed: 2 * c.Visibility, Backoff: c.Backoff, Grace: c.Grace,
		KeepForeign: c.Foreign == "keep", BackfillAtStart: c.BackfillAtStart, BackfillEvery: c.BackfillEvery,
		StateDir: c.StateDir, MinFreeDisk: int64(c.MinFreeDisk), ReconcileEvery: c.ReconcileEvery,
		MinFreeData: c.MinFreeData / 100, MinFreeMetadata: c.MinFreeMetadata / 100,
	}
}

// queue translates the configuration for the queue client.
func (c config) queue(o queue.Observer) queue.Config {
	return queue.Config{URL: c.QueueURL, DeadLetterURL: c.DeadLetter, Wait: c.Wait, Visibility: c.Visibility, Drain: c.Drain, Observer: o}
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
