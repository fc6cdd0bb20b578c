package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"imagemanager.internal/test/images"
)

// checkBytes runs the command on an archive, as a file x.tar in the current directory.
func checkBytes(t *testing.T, b []byte, flags ...string) (code int, out string) {
	t.Helper()
	t.Chdir(t.TempDir())
	if err := os.WriteFile("x.tar", b, 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, _ = checkPath(t.Context(), append(flags, "x.tar")...)
	return code, out
}

func checkPath(ctx context.Context, args ...string) (code int, out, errs string) {
	var stdout, stderr bytes.Buffer
	err := dispatch(ctx, append([]string{"check"}, args...), &stdout)
	return report(err, &stderr), stdout.String(), stderr.String()
}

// checkJSON is what a program reads of the result.
func checkJSON(t *testing.T, b []byte, flags ...string) (code int, c checked) {
	t.Helper()
	code, out := checkBytes(t, b, append(flags, "--json")...)
	if err := json.Unmarshal([]byte(out), &c); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return code, c
}

// layered is an image for a platform of its own, whatever machine tests it.
func layered(layers ...[]byte) []byte {
	config := func(o images.Object) { o["architecture"] = "riscv64" }
	return images.Tar(images.Image{Layers: layers, Config: config}.OCI()...)
}

// garbled changes a name, so that the checksum of its header is wrong.
func garbled(archive []byte, name string) []byte {
	return bytes.Replace(archive, []byte(name), bytes.ToUpper([]byte(name)), 1)
}

var goldenArchives = []struct {
	name  string
	code  int
	flags []string
	bytes []byte
}{
	{"accepted", 0, nil, images.Tar(images.Root()...)},
	{"adjusted", 0, []string{"--policy", "distro"}, images.Tar(images.Root(
		images.Entry{Name: "usr/bin/su", Mode: 0o4755},
		images.Entry{Name: "usr/sh", Link: "/usr/bin/tool"},
		images.Entry{Name: "usr/pipe", Type: '6'},
		images.Entry{Name: "usr/passwd", Mode: 0o4755},
	)...)},
	{"three-rules", 8, nil, images.Tar(images.Root(
		images.Entry{Name: "usr/bin/su", Mode: 0o4755},
		images.Entry{Name: "usr/sh", Link: "/usr/bin/tool"},
		images.Entry{Name: "usr/etc", Link: "/etc"},
		images.Entry{Name: "usr/log", Type: '6'},
	)...)},
	{"hidden-violation", 9, []string{"--policy", "distro"}, images.Tar(images.Root(
		images.Entry{Name: "etc/\x1b[2J"},
		images.Entry{Name: "usr/sh", Link: "/usr/bin/tool"},
		images.Entry{Name: "../../etc/cron.d/x", Body: "x"},
	)...)},
	{"layers", 8, []string{"--platform", "linux/riscv64"}, layered(
		images.Tar(images.Root()...),
		images.Tar(images.Entry{Name: "usr/bin/su", Mode: 0o4755}, images.Entry{Name: "etc/hello/x"}),
	)},
	{"image", 0, []string{"--platform", "linux/riscv64"}, layered(
		images.Tar(images.Root()...), images.Tar(images.Entry{Name: "usr/.wh.bin"}),
	)},
	{"unread", 8, nil, garbled(images.Tar(images.Root(
		images.Entry{Name: "usr/bin/su", Mode: 0o4755}, images.Entry{Name: "usr/x"}, images.Entry{Name: "../x"},
	)...), "usr/x")},
}

// People and programs depend on the form of the result.
func TestCheckResults(t *testing.T) {
	here, err := filepath.Abs("testdata/check")
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range goldenArchives {
		for kind, flags := range map[string][]string{".txt": nil, ".json": {"--json"}} {
			t.Run(a.name+kind, func(t *testing.T) {
				golden := filepath.Join(here, a.name+kind)
				code, have := checkBytes(t, a.bytes, append(flags, a.flags...)...)
				if code != a.code {
					t.Errorf("exit code %d, want %d", code, a.code)
				}
				same(t, golden, have)
				if strings.Contains(have, "\x1b") {
					t.Error("it has an escape sequence")
				}
			})
		}
	}
}

// The command refuses what the daemon refuses, for the same rule, under every policy.
func TestCheckAgreesWithTheDaemon(t *testing.T) {
	for _, c := range images.Cases() {
		for _, policy := range []string{"strict", "distro", "trusted"} {
			code, got := checkJSON(t, c.Bytes, "--policy", policy)
			rule, want := "", 0
			if len(got.Faults) > 0 {
				rule, want = string(got.Faults[0].Rule), 8
				if got.Faults[0].Violation {
					want = 9
				}
			}
			if rule != c.Outcome(policy) || code != want || code == 0 != (got.Image != nil) {
				t.Errorf("%s/%s under %s: exit code %d, rule %q, want %q", c.Group, c.Name, policy, code, rule,
					c.Outcome(policy))
			}
		}
	}
}

// Settings that concern the judging count, as they do for the daemon. No others are
// needed, or may be in the way.
func TestCheckTakesTheSettings(t *testing.T) {
	t.Setenv("STATE_DIR", filepath.Join(t.TempDir(), "none"))
	t.Setenv("LOG_LEVEL", "loud")
	t.Setenv("IMAGE_POLICIES", "images/debian/:distro")
	fifo := images.Tar(images.Root(images.Entry{Name: "usr/pipe", Type: '6'})...)
	large := images.Tar(images.Root(images.Entry{Name: "usr/x", Body: strings.Repeat("x", 20<<20)})...)
	for _, c := range []struct {
		setting, value string
		flags          []string
		bytes          []byte
		rule           string
	}{
		{"IMAGE_POLICY", "", nil, fifo, "fifo"},
		{"IMAGE_POLICY", "trusted", nil, fifo, ""},
		{"IMAGE_POLICY", "trusted", []string{"--policy", "strict"}, fifo, "fifo"},
		{"IMAGE_POLICY", "strict", []string{"--key", "images/debian/12.tar"}, fifo, ""},
		{"IMAGE_POLICY", "strict", []string{"--key", "images/x.tar"}, fifo, "fifo"},
		{"MAX_FILE_SIZE", "1KiB", nil, fifo, "file_too_big"},
		{"MAX_IMAGE_SIZE", "1KiB", nil, fifo, "image_too_big"},
		{"MAX_ENTRIES", "3", nil, fifo, "too_many_entries"},
		{"DEVICE_SIZE", "", nil, large, ""},
		{"DEVICE_SIZE", "16MiB", nil, large, "device_too_small"},
	} {
		t.Run(c.setting+"="+c.value, func(t *testing.T) {
			t.Setenv(c.setting, c.value)
			code, got := checkJSON(t, c.bytes, c.flags...)
			if code != 8*min(1, len(c.rule)) || c.rule != "" && string(got.Faults[0].Rule) != c.rule {
				t.Errorf("exit code %d, want the rule %q: %+v", code, c.rule, got.Faults)
			}
		})
	}
}

// What cannot be judged has no verdict: another exit code, and a text that says what to
// do.
func TestCheckOfNoArchive(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	tarball := filepath.Join(dir, "x.tar")
	if err := os.WriteFile(tarball, images.Tar(images.Root()...), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		code int
		says string
		args []string
	}{
		{1, "name a file", []string{"-"}},
		{1, "tar -C " + dir, []string{dir}},
		{1, "save it to a file", []string{fifo}},
		{1, "no such file", []string{filepath.Join(dir, "none")}},
		{2, "object key refused", []string{"--key", "images/../x", tarball}},
		{2, "--policy, or --key", []string{"--key", "images/x.tar", "--policy", "distro", tarball}},
		{2, "write linux/amd64", []string{"--platform", "linux", tarball}},
		{2, "strict, distro or trusted", []string{"--policy", "lax", tarball}},
	} {
		code, out, errs := checkPath(t.Context(), c.args...)
		if code != c.code || out != "" || !strings.Contains(errs, c.says) {
			t.Errorf("%s: exit code %d, want %d; %q, %q", c.args, code, c.code, out, errs)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if code, out, _ := checkPath(ctx, tarball); code != 130 || out != "" {
		t.Errorf("interrupted: exit code %d, %q", code, out)
	}
}

// On a terminal a long reading shows where it is, and leaves nothing behind.
func TestProgressOfReading(t *testing.T) {
	src, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	var out bytes.Buffer
	p := &progressFile{File: src, size: 4 << 20, out: &out, every: time.Hour}
	read := func(off int64) {
		if _, err := p.ReadAt(make([]byte, 1), off); err != io.EOF { //nolint:errorlint // as io.ReaderAt says
			t.Fatal(err)
		}
	}
	read(0)
	read(1 << 20)
	p.end()
	if out.Len() > 0 {
		t.Errorf("a short reading shows %q", &out)
	}
	p.next = time.Now()
	read(3 << 20)
	p.end()
	if want := "\rreading at 3MiB of 4MiB\x1b[K\r\x1b[K"; out.String() != want {
		t.Errorf("%q, want %q", &out, want)
	}
}

// Authors find every field of the result in the table of docs/check.md, and one result
// for people.
func TestCheckIsDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/check.md")
	if err != nil {
		t.Fatal(err)
	}
	sample, err := os.ReadFile("testdata/check/three-rules.txt")
	if err != nil || !strings.Contains(string(page), "```text\n"+string(sample)+"```") {
		t.Errorf("docs/check.md does not show this result (%v):\n%s", err, sample)
	}
	documented := map[string]bool{}
	for _, m := range regexp.MustCompile("`([a-z0-9_.\\[\\]]+)`").FindAllStringSubmatch(string(page), -1) {
		documented[m[1]] = true
	}
	results, err := filepath.Glob("testdata/check/*.json")
	if err != nil || len(results) != len(goldenArchives) {
		t.Fatalf("%d results, want %d: %v", len(results), len(goldenArchives), err)
	}
	for _, name := range results {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var result any
		if err := json.Unmarshal(text, &result); err != nil {
			t.Fatal(err)
		}
		for _, path := range paths(result, "") {
			if !documented[path] && !strings.Contains(path, "_by_rule.") {
				t.Errorf("docs/check.md does not name %s", path)
			}
		}
	}
}
