package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"text/template"
	"time"

	_ "embed" // the meaning of the settings

	"golang.org/x/term"

	"github.com/kelseyhightower/envconfig"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"imagemanager.internal/internal/archive"
	"imagemanager.internal/internal/pipeline"
	"imagemanager.internal/internal/provision"
	"imagemanager.internal/internal/queue"
)

// config is everything an operator may set: by environment, and the common ones by flag
// as well.
type config struct {
	Bucket   string `envconfig:"S3_BUCKET"`
	Prefix   string `envconfig:"S3_PREFIX" default:"images/"`
	QueueURL string `envconfig:"SQS_QUEUE_URL"`
	Region   string `envconfig:"AWS_REGION"`

	Endpoint    string `envconfig:"AWS_ENDPOINT_URL"`
	EndpointS3  string `envconfig:"AWS_ENDPOINT_URL_S3"`
	EndpointSQS string `envconfig:"AWS_ENDPOINT_URL_SQS"`

	StateDir  string `envconfig:"STATE_DIR" default:"/var/lib/consumer"`
	Listen    string `envconfig:"LISTEN_ADDR" default:"127.0.0.1:9090"`
	Debug     string `envconfig:"DEBUG_ADDR"`
	LogLevel  string `envconfig:"LOG_LEVEL" default:"info"`
	LogFormat string `envconfig:"LOG_FORMAT"`

	Policy      string            `envconfig:"IMAGE_POLICY" default:"strict"`
	Policies    map[string]string `envconfig:"IMAGE_POLICIES"`
	DeviceSize  size              `envconfig:"DEVICE_SIZE" default:"20GiB"`
	MaxImage    size              `envconfig:"MAX_IMAGE_SIZE" default:"10GiB"`
	MaxFile     size              `envconfig:"MAX_FILE_SIZE" default:"1GiB"`
	MaxEntries  int               `envconfig:"MAX_ENTRIES" default:"100000"`
	Violations  size              `envconfig:"VIOLATIONS_SIZE" default:"10GiB"`
	MaxAttempts int               `envconfig:"MAX_ATTEMPTS" default:"10"`
	MaxCutOffs  int               `envconfig:"MAX_CUT_OFFS" default:"3"`

	Downloads       int           `envconfig:"MAX_DOWNLOADS" default:"5"`
	Unpacks         int           `envconfig:"MAX_UNPACKS" default:"2"`
	Activations     int           `envconfig:"MAX_ACTIVATIONS" default:"1"`
	DownloadTimeout time.Duration `envconfig:"DOWNLOAD_TIMEOUT" default:"5m"`
	UnpackTimeout   time.Duration `envconfig:"UNPACK_TIMEOUT" default:"30m"`
	ActivateTimeout time.Duration `envconfig:"ACTIVATE_TIMEOUT" default:"1m"`

	Engine       string `envconfig:"UNPACK_ENGINE" default:"direct"`
	Verify       string `envconfig:"VERIFY" default:"device"`
	VerifySample int    `envconfig:"VERIFY_SAMPLE" default:"20"`

	Wait       time.Duration `envconfig:"SQS_WAIT" default:"20s"`
	Visibility time.Duration `envconfig:"SQS_VISIBILITY" default:"60s"`
	Backoff    time.Duration `envconfig:"RETRY_BACKOFF" default:"5s"`
	Drain      time.Duration `envconfig:"SQS_DRAIN" default:"2s"`
	DeadLetter string        `envconfig:"SQS_DEAD_LETTER_URL"`
	DepthEvery time.Duration `envconfig:"SQS_DEPTH_INTERVAL" default:"1m"`
	Foreign    string        `envconfig:"FOREIGN_EVENTS" default:"keep"`
	Grace      time.Duration `envconfig:"SHUTDOWN_GRACE" default:"30s"`

	BackfillAtStart bool          `envconfig:"BACKFILL_AT_START" default:"false"`
	BackfillEvery   time.Duration `envconfig:"BACKFILL_INTERVAL" default:"0s"`

	ReconcileEvery time.Duration `envconfig:"RECONCILE_INTERVAL" default:"10m"`

	MinFreeDisk     size    `envconfig:"STATE_MIN_FREE" default:"1GiB"`
	MinFreeData     float64 `envconfig:"POOL_MIN_FREE_DATA" default:"10"`
	MinFreeMetadata float64 `envconfig:"POOL_MIN_FREE_METADATA" default:"25"`

	unread []error // problems found while reading; what could not be read has its default
}

// settingFlag is a setting that is a flag as well.
type settingFlag struct {
	name, variable string
	field          func(*config) *string
	values         []cobra.Completion // all that it can be, if these are few
}

// addTo adds the flag to a command, or to all that it holds.
func (s settingFlag) addTo(cmd *cobra.Command, flags *pflag.FlagSet) *pflag.Flag {
	flags.String(s.name, "", describe(s.variable)+" ("+s.variable+")")
	if s.values != nil { // fails if the flag is not there
		_ = cmd.RegisterFlagCompletionFunc(s.name,
			cobra.FixedCompletions(s.values, cobra.ShellCompDirectiveNoFileComp))
	}
	return flags.Lookup(s.name)
}

// logLevels are those of LOG_LEVEL.
var logLevels = []string{"debug", "info", "warn", "error"}

// The first two concern every command.
var settingFlags = []settingFlag{
	{"state-dir", "STATE_DIR", func(c *config) *string { return &c.StateDir }, nil},
	{"log-level", "LOG_LEVEL", func(c *config) *string { return &c.LogLevel }, logLevels},
	{"bucket", "S3_BUCKET", func(c *config) *string { return &c.Bucket }, nil},
	{"queue-url", "SQS_QUEUE_URL", func(c *config) *string { return &c.QueueURL }, nil},
	{"region", "AWS_REGION", func(c *config) *string { return &c.Region }, nil},
	{"endpoint-url", "AWS_ENDPOINT_URL", func(c *config) *string { return &c.Endpoint }, nil},
	{"policy", "IMAGE_POLICY", func(c *config) *string { return &c.Policy }, []string{"strict", "distro", "trusted"}},
	{"listen", "LISTEN_ADDR", func(c *config) *string { return &c.Listen }, nil},
}

// addSettings gives every command the flags of all settings. Those of no concern to it
// are taken, as a script may give them everywhere, but not shown.
func addSettings(root *cobra.Command) {
	for i, s := range settingFlags {
		s.addTo(root, root.PersistentFlags()).Hidden = i > 1
	}
	root.PersistentFlags().String(envFileFlag, "", "`file` with settings, one NAME=value a line, as systemd reads it "+
		"(default "+defaultEnvFile+")")
	_ = root.MarkPersistentFlagFilename(envFileFlag) // fails if the flag is not there
}

// withSettings shows the flags of these settings in the command's help.
func withSettings(cmd *cobra.Command, names ...string) *cobra.Command {
	for _, s := range settingFlags {
		if slices.Contains(names, s.name) {
			s.addTo(cmd, cmd.Flags())
		}
	}
	return cmd
}

// loadConfig reads the environment with the file of settings, then the flags.
func loadConfig(flags *pflag.FlagSet) (config, error) {
	lines, unread := useEnvFile(flags, defaultEnvFile)
	c := readEnvironment(lines)
	if unread != nil {
		c.unread = append([]error{unread}, c.unread...)
	}
	for _, s := range settingFlags {
		if f := flags.Lookup(s.name); f.Changed {
			*s.field(&c) = f.Value.String()
		}
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
		Engine: provision.Engine(c.Engine), Verify: provision.Verification(c.Verify), VerifySample: c.VerifySample,
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
		DepthEvery: c.DepthEvery,
		StateDir:   c.StateDir, MinFreeDisk: int64(c.MinFreeDisk), ReconcileEvery: c.ReconcileEvery,
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

// settingsText has a line for every setting: its name, and what it means.
//
//go:embed settings.txt
var settingsText string

// describe returns what a setting means.
func describe(name string) string {
	for line := range strings.Lines(settingsText) {
		if text, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(text)
		}
	}
	return ""
}

// printEnvironment writes the table of settings.
func printEnvironment(w io.Writer) error {
	const row = "VARIABLE\tDEFAULT\tMEANING\n" +
		"{{range .}}{{.Key}}\t{{.Tags.Get \"default\"}}\t{{describe .Key}}\n{{end}}"
	t, err := template.New("settings").Funcs(template.FuncMap{"describe": describe}).Parse(row)
	if err != nil {
		return err
	}
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	if err := envconfig.Usaget("", &config{}, tw, t); err != nil {
		return err
	}
	return tw.Flush()
}

// stderrIsTerminal reports whether a person reads the log.
func stderrIsTerminal() bool { return term.IsTerminal(int(os.Stderr.Fd())) }
