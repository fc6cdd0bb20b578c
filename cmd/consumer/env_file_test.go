package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"imagemanager.internal/internal/envfile"
)

// unset removes variables for the test, and what it sets instead.
func unset(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		t.Setenv(name, "") // restores it at the end
		if err := os.Unsetenv(name); err != nil {
			t.Fatal(err)
		}
	}
}

// envFile writes a file of settings.
func envFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "consumer.env")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// A flag wins over the environment, and that over the file, whose last line wins.
func TestEnvFile(t *testing.T) {
	unset(t, "STATE_DIR", "S3_BUCKET", "SQS_QUEUE_URL", "IMAGE_POLICY", "AWS_PROFILE")
	t.Setenv("S3_PREFIX", "")
	t.Setenv("MAX_UNPACKS", "")
	t.Setenv("SQS_QUEUE_URL", "http://environment/1/q")
	path := envFile(t, `# settings of a host
S3_BUCKET=first
S3_BUCKET="file"
S3_PREFIX=images/
SQS_QUEUE_URL=http://file/1/q
IMAGE_POLICY=distro
MAX_UNPACKS=1
AWS_PROFILE=images
STATE_DIR=/srv/state
`)
	c, err := load(t, "--env-file", path, "--policy", "trusted")
	if err != nil || len(c.unread) > 0 {
		t.Fatal(err, c.unread)
	}
	if c.Bucket != "file" || c.QueueURL != "http://environment/1/q" || c.Policy != "trusted" || c.Unpacks != 1 ||
		c.Prefix != "" || c.StateDir != "/srv/state" {
		t.Errorf("%+v", c)
	}
	if os.Getenv("AWS_PROFILE") != "images" {
		t.Error("the AWS SDK does not see its variables")
	}
}

// The file of the installed daemon is read for its state directory only.
func TestStandardEnvFile(t *testing.T) {
	standard := envFile(t, "S3_BUCKET=standard\n")
	for name, c := range map[string]struct {
		env, flags string
		file, want string
	}{
		"read":              {"", "", standard, "standard"},
		"another directory": {"/srv", "", standard, ""},
		"by flag":           {"", "--state-dir=/srv", standard, ""},
		"not there":         {"", "", "/none", ""},
		"another file":      {"/srv", "--env-file=" + standard, "/none", "standard"},
	} {
		t.Run(name, func(t *testing.T) {
			unset(t, "S3_BUCKET", "STATE_DIR")
			t.Setenv("STATE_DIR", c.env)
			root := newProgram(&bytes.Buffer{})
			if err := root.ParseFlags(strings.Fields(c.flags)); err != nil {
				t.Fatal(err)
			}
			if _, err := useEnvFile(root.Flags(), c.file); err != nil || os.Getenv("S3_BUCKET") != c.want {
				t.Errorf("S3_BUCKET=%s, %v", os.Getenv("S3_BUCKET"), err)
			}
		})
	}
}

// Every mistake is named with its line, together with all other mistakes.
func TestEnvFileMistakes(t *testing.T) {
	unset(t, "STATE_DIR", "S3_BUCKET", "SQS_QUEUE_URL", "MAX_DOWNLOADS")
	path := envFile(t, "S3_BUCKET my-bucket\nexport SQS_QUEUE_URL=x\n\nMAX_DOWNLOADS=many\nSTATE_DIR="+t.TempDir())
	code, text := perform(t, "run --env-file "+path)
	for _, says := range []string{
		path + ":1: \"S3_BUCKET my-bucket\" is not NAME=value", path + ":2: \"export SQS_QUEUE_URL\" is not the name",
		path + ":4: MAX_DOWNLOADS \"many\" cannot be read", "S3_BUCKET (or --bucket) is not set",
	} {
		if code != 2 || !strings.Contains(text, says) {
			t.Errorf("exit code %d, want 2 and %q: %s", code, says, text)
		}
	}
	code, text = perform(t, "images --env-file /none")
	if code != 2 || !strings.Contains(text, "--env-file: open /none") {
		t.Errorf("no file: exit code %d: %s", code, text)
	}
}

// What setup.sh prints, and what the package installs, is such a file as it is.
func TestEnvFilesOfOurs(t *testing.T) {
	const printed = `eval "$(sed -n '/^settings() {/,/^}/p' ../../localstack/setup.sh)"
		bucket=b prefix=images/ queue_url=http://h/1/q dlq_url=http://h/1/d region=r endpoint=http://h settings`
	out, err := exec.CommandContext(t.Context(), "sh", "-euc", printed).Output()
	if err != nil {
		t.Fatal(err)
	}
	installed, err := os.ReadFile("../../deploy/systemd/consumer.env")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"setup.sh": string(out), "installed": strings.ReplaceAll(string(installed), "\n#S", "\nS"),
	} {
		all, err := envfile.Parse(name, text)
		if err != nil || len(all) < 6 {
			t.Errorf("%d variables, %v", len(all), err)
		}
	}
}
