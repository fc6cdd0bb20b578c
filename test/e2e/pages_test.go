package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"imagemanager.internal/test/cloud"
	machine "imagemanager.internal/test/host"
	tarballs "imagemanager.internal/test/images"
	"imagemanager.internal/test/page"
	"imagemanager.internal/test/program"
)

const (
	readme         = "README.md"
	gettingStarted = "docs/getting-started.md"
)

// The README's commands work, in their order.
func TestCommandsOfReadme(t *testing.T) {
	newReader(t).work(readme, preparedCloud(t))
}

// The commands of the page for beginners work, in their order. It makes its own cloud.
func TestCommandsOfGettingStarted(t *testing.T) {
	newReader(t).work(gettingStarted, nil)
}

// The commands of every other page work, in the order of each.
func TestCommandsOfOtherPages(t *testing.T) {
	machine.NeedPool(t)
	blocks, err := page.ShellBlocks(repository)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{readme: true, gettingStarted: true}
	for _, b := range blocks {
		if _, elsewhere := page.FindElsewhere(b); elsewhere || seen[b.Page] {
			continue
		}
		seen[b.Page] = true
		t.Run(b.Page, func(t *testing.T) { newReader(t).work(b.Page, preparedCloud(t)) })
	}
}

// repository is its root, as the tests of this package see it.
const repository = "../.."

// preparedCloud returns the settings for an S3 and SQS in which somebody has made
// my-bucket and its queue.
func preparedCloud(t *testing.T) []string {
	t.Helper()
	c, err := cloud.Emulate(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	bucket, err := c.Bucket(t.Context(), "my-bucket")
	if err != nil {
		t.Fatal(err)
	}
	if err := bucket.Notify(t.Context()); err != nil {
		t.Fatal(err)
	}
	return []string{
		"AWS_ENDPOINT_URL=" + c.URL, "AWS_REGION=us-east-1", "AWS_ACCESS_KEY_ID=x", "AWS_SECRET_ACCESS_KEY=x",
		"S3_BUCKET=" + bucket.Name, "SQS_QUEUE_URL=" + bucket.Queue, "IMAGE_POLICY=distro",
	}
}

// reader is somebody with a checkout who types what a page says.
type reader struct {
	*testing.T
	dir string // looks like the checkout, and can be written to
	env []string
}

func newReader(t *testing.T) *reader {
	t.Helper()
	machine.NeedPool(t)
	r := &reader{T: t, dir: t.TempDir()}
	entries, err := filepath.Glob(filepath.Join(repository, "*"))
	r.check(err)
	for _, path := range entries {
		path, err = filepath.Abs(path)
		r.check(err)
		r.check(os.Symlink(path, filepath.Join(r.dir, filepath.Base(path))))
	}
	r.check(os.WriteFile(filepath.Join(r.dir, "small.tar"), debianLike(), 0o600))
	r.env = append(os.Environ(),
		"PATH="+r.tools()+":"+os.Getenv("PATH"), "STATE_DIR="+filepath.Join(r.dir, "state"))
	return r
}

func (r *reader) check(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

// debianLike is an image with what a Debian has that only the policy distro takes.
func debianLike() []byte {
	return tarballs.RootFS("hello", 3,
		tarballs.Entry{Name: "etc/debian_version", Body: "12.0\n", Mode: 0o644},
		tarballs.Entry{Name: "bin", Link: "/usr/bin", Type: '2'},
		tarballs.Entry{Name: "usr/su", Body: "su\n", Mode: 0o4755})
}

// tools makes a directory with the program as it is installed, and with an AWS CLI that
// takes its endpoint from the environment. Before version 2.13 it does not.
func (r *reader) tools() string {
	r.Helper()
	consumer := os.Getenv("CONSUMER_BIN")
	if consumer == "" {
		r.Fatal("CONSUMER_BIN is not set: run `make build-test` and name bin/consumer-failpoint there")
	}
	dir := r.TempDir()
	r.check(os.Symlink(consumer, filepath.Join(dir, "consumer")))
	aws := fmt.Sprintf("#!/bin/sh\nexec %s ${AWS_ENDPOINT_URL:+--endpoint-url \"$AWS_ENDPOINT_URL\"} \"$@\"\n",
		program.Require(r, "aws", "awscli"))
	r.check(os.WriteFile(filepath.Join(dir, "aws"), []byte(aws), 0o700)) //nolint:gosec // a program
	return dir
}

// ending ends what the reader left in the background.
const ending = `trap 'kill $(jobs -p) 2>/dev/null || :; wait' EXIT` + "\n"

// work types every block of a page into one shell, and those of the tests in place of
// what cannot run here.
func (r *reader) work(name string, env []string) {
	r.Helper()
	pages, err := page.All(repository)
	r.check(err)
	var script strings.Builder
	script.WriteString(ending)
	var samples []page.Block
	for _, b := range page.Blocks(name, pages[name]) {
		if b.Language != page.Shell {
			samples = append(samples, b)
			continue
		}
		text := b.Text
		if e, elsewhere := page.FindElsewhere(b); elsewhere {
			text = e.Instead + "\n"
		}
		fmt.Fprintf(&script, "echo '### %s'\n%s", b, text)
	}
	cmd := exec.CommandContext(r.Context(), "bash", "-euxo", "pipefail", "-c", script.String())
	cmd.Dir, cmd.Env = r.dir, slices.Concat(r.env, env)
	r.Cleanup(func() { r.detach(cmd.Env) })
	said := r.show(cmd)
	if name == gettingStarted {
		r.compare(samples, said)
	}
}

// compare fails unless the first line of each sample is one that the shell has printed,
// but for the widths of columns.
func (r *reader) compare(samples []page.Block, said string) {
	r.Helper()
	printed := map[string]bool{}
	for line := range strings.Lines(said) {
		printed[strings.Join(strings.Fields(line), " ")] = true
	}
	for _, b := range samples {
		first, _, _ := strings.Cut(b.Text, "\n")
		if !printed[strings.Join(strings.Fields(first), " ")] {
			r.Errorf("%s: nothing printed %q", b, first)
		}
	}
}

// show runs the shell and returns what it said. What it leaves behind may hold its output
// open, so that is a file.
func (r *reader) show(cmd *exec.Cmd) string {
	r.Helper()
	out, err := os.Create(filepath.Join(r.TempDir(), "output"))
	r.check(err)
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	failure := cmd.Run()
	text, err := os.ReadFile(out.Name())
	r.check(err)
	r.Logf("%s", text)
	r.check(failure)
	return string(text)
}

// detach takes away the pool that a page made, if it left one.
func (r *reader) detach(env []string) {
	if _, err := os.Stat(filepath.Join(r.dir, "state", "consumer.db")); err != nil {
		return
	}
	cmd := exec.Command(os.Getenv("CONSUMER_BIN"), "pool", "detach")
	cmd.Env = env
	if out, err := cmd.CombinedOutput(); err != nil {
		r.Errorf("pool detach: %v: %s", err, out)
	}
}
