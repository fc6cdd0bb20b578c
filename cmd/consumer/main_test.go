package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/store"
)

// Every setting is explained, and nothing else.
func TestEverySettingIsDescribed(t *testing.T) {
	explained := map[string]bool{}
	for line := range strings.Lines(settingsText) {
		explained[strings.Fields(line)[0]] = true
	}
	fields := reflect.TypeFor[config]()
	for i := range fields.NumField() {
		name := fields.Field(i).Tag.Get("envconfig")
		if name != "" && describe(name) == "" {
			t.Errorf("settings.txt does not explain %s", name)
		}
		delete(explained, name)
	}
	for name := range explained {
		t.Errorf("settings.txt explains %s, which does not exist", name)
	}
}

// load is loadConfig for a command line.
func load(t *testing.T, args ...string) (config, error) {
	t.Helper()
	root := newProgram(io.Discard)
	if err := root.ParseFlags(args); err != nil {
		t.Fatal(err)
	}
	return loadConfig(root.Flags())
}

func TestDefaultsAreTheSpecification(t *testing.T) {
	c, err := load(t, "--bucket", "demo", "--queue-url", someQueue)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.checkRun(); err != nil {
		t.Errorf("the defaults are refused: %v", err)
	}
	for what, ok := range map[string]bool{
		"region us-east-1":      c.region() == "us-east-1",
		"prefix images/":        c.Prefix == "images/",
		"5 downloads":           c.Downloads == 5,
		"2 unpacks":             c.Unpacks == 2,
		"5 minutes to download": c.DownloadTimeout.Minutes() == 5,
		"30 minutes to unpack":  c.UnpackTimeout.Minutes() == 30,
		"10 GiB an image":       c.MaxImage == 10<<30,
		"1 GiB a file":          c.MaxFile == 1<<30,
		"100,000 entries":       c.MaxEntries == 100_000,
		"policy strict":         c.Policy == "strict",
	} {
		if !ok {
			t.Errorf("the default is not %s: %+v", what, c)
		}
	}
}

func TestFlagsWinOverTheEnvironment(t *testing.T) {
	t.Setenv("S3_BUCKET", "from-environment")
	t.Setenv("AWS_ENDPOINT_URL", "http://localhost:4566")
	if c, err := load(t); err != nil || c.Bucket != "from-environment" || c.Endpoint != "http://localhost:4566" {
		t.Errorf("environment: %+v, %v", c, err)
	}
	if c, err := load(t, "--bucket", "from-flag"); err != nil || c.Bucket != "from-flag" {
		t.Errorf("flag: %+v, %v", c, err)
	}
}

// A bad configuration names every problem at once.
func TestAllProblemsAtOnce(t *testing.T) {
	for name, value := range map[string]string{
		"MAX_DOWNLOADS": "0", "MAX_UNPACKS": "-1", "MAX_ACTIVATIONS": "0", "UNPACK_ENGINE": "fast", "VERIFY": "no",
		"VERIFY_SAMPLE": "-1", "SQS_WAIT": "30s", "SQS_DRAIN": "0s",
		"SQS_VISIBILITY": "13h", "IMAGE_POLICY": "lenient",
		"LOG_LEVEL": "loud", "DEVICE_SIZE": "200GB", "MAX_IMAGE_SIZE": "11GiB", "MAX_FILE_SIZE": "2GiB",
		"MAX_ENTRIES": "100001", "MAX_ATTEMPTS": "0", "MAX_CUT_OFFS": "0",
		"RETRY_BACKOFF": "0s", "SHUTDOWN_GRACE": "-1s", "POOL_MIN_FREE_DATA": "99", "POOL_MIN_FREE_METADATA": "-1",
		"FOREIGN_EVENTS":    "eat",
		"BACKFILL_INTERVAL": "-1s", "SQS_QUEUE_URL": "https://sqs.us-east-1.amazonaws.com/1/q.fifo",
		"SQS_DEAD_LETTER_URL": "nowhere",
		"DOWNLOAD_TIMEOUT":    "0s", "UNPACK_TIMEOUT": "0s", "ACTIVATE_TIMEOUT": "0s",
	} {
		t.Setenv(name, value)
	}
	c, err := load(t)
	if err != nil {
		t.Fatal(err)
	}
	err = c.checkRun()
	if err == nil {
		t.Fatal("accepted")
	}
	for _, name := range []string{
		"MAX_DOWNLOADS", "MAX_UNPACKS", "MAX_ACTIVATIONS", "UNPACK_ENGINE", "VERIFY ", "VERIFY_SAMPLE",
		"SQS_WAIT", "SQS_DRAIN", "SQS_VISIBILITY", "IMAGE_POLICY",
		"LOG_LEVEL", "DEVICE_SIZE", "MAX_IMAGE_SIZE",
		"MAX_FILE_SIZE", "MAX_ENTRIES", "MAX_ATTEMPTS", "MAX_CUT_OFFS", "RETRY_BACKOFF", "SHUTDOWN_GRACE",
		"POOL_MIN_FREE_DATA", "POOL_MIN_FREE_METADATA", "FOREIGN_EVENTS",
		"BACKFILL_INTERVAL", "SQS_QUEUE_URL", "SQS_DEAD_LETTER_URL", "DOWNLOAD_TIMEOUT", "UNPACK_TIMEOUT",
		"ACTIVATE_TIMEOUT", "S3_BUCKET",
	} {
		if !strings.Contains(err.Error(), name) {
			t.Errorf("%s is not named in: %v", name, err)
		}
	}
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]size{
		"4096": 4096, "20GiB": 20 << 30, "100GB": 100e9, "64k": 64000,
		"64KiB": 64 << 10,
	} {
		var s size
		if err := s.Decode(text); err != nil || s != want {
			t.Errorf("%s: %d, %v; want %d", text, s, err, want)
		}
	}
	var s size
	for _, text := range []string{"", "much", "-", "1 parsec"} {
		if err := s.Decode(text); err == nil {
			t.Errorf("%q is taken for %d bytes", text, s)
		}
	}
}

func TestExitCodes(t *testing.T) {
	for want, errs := range map[int][]error{
		0: {nil},
		1: {errors.New("anything")},
		2: {&usageError{errors.New("x")}, fmt.Errorf("x: %w", &usageError{errors.New("y")})},
		3: {
			devmapper.ErrUnavailable, fmt.Errorf("x: %w", devmapper.ErrForeign), errNoPool, errPoolLost,
			fmt.Errorf("x: %w", store.ErrCorrupt), errNotPermitted,
		},
		4:   {fmt.Errorf("%w: /x", errLocked)},
		5:   {fmt.Errorf("x: %w", store.ErrNotFound)},
		6:   {errVerify, errors.Join(fmt.Errorf("x: %w", devmapper.ErrReadOnly), fmt.Errorf("x: %w", errVerify))},
		7:   {fmt.Errorf("2 %w", errLeftAlone)},
		8:   {fmt.Errorf("x.tar %w", errRejected)},
		9:   {fmt.Errorf("x.tar %w", errViolation)},
		130: {context.Canceled},
	} {
		for _, err := range errs {
			if got := report(err, io.Discard); got != want {
				t.Errorf("%v: exit code %d, want %d", err, got, want)
			}
		}
	}
}

// The page for operators has the exit codes of the program, and no others.
func TestOperatingHasTheExitCodes(t *testing.T) {
	text, err := os.ReadFile("../../docs/operating.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "| exit code | meaning |\n|---|---|\n")
	table, _, _ := strings.Cut(rest, "\n\n")
	documented := map[string]bool{}
	for line := range strings.Lines(table) {
		documented[strings.TrimSpace(strings.Split(line, "|")[1])] = true
	}
	for _, e := range exitCodes {
		if !documented[fmt.Sprint(e.code)] {
			t.Errorf("docs/operating.md does not say what exit code %d means", e.code)
		}
		delete(documented, fmt.Sprint(e.code))
	}
	for code := range documented {
		t.Errorf("docs/operating.md has exit code %s, which no error has", code)
	}
}

// commands returns the command and all those that it holds.
func commands(cmd *cobra.Command) []*cobra.Command {
	all := []*cobra.Command{cmd}
	for _, c := range cmd.Commands() {
		all = append(all, commands(c)...)
	}
	return all
}

// Every command answers --help with all that its user has to know, and refuses what it
// does not know.
func TestEveryCommandHelps(t *testing.T) {
	t.Setenv("STATE_DIR", filepath.Join(t.TempDir(), "none"))
	for _, c := range commands(newProgram(io.Discard)) {
		if c.Annotations[exitsNote] == "" {
			own := strings.HasPrefix(c.CommandPath(), "consumer completion ") || c.Name() == "help" // cobra's
			if c.Runnable() && !c.HasSubCommands() && !own {
				t.Errorf("%s does not say its exit codes", c.CommandPath())
			}
			continue
		}
		name := commandName(c)
		_, text := perform(t, name+" --help")
		for _, says := range []string{
			"Usage:\n  " + c.CommandPath(), "Examples:\n  ", "--state-dir", "Exit Codes:\n  0 ",
		} {
			if !strings.Contains(text, says) {
				t.Errorf("%s --help does not say %q: %s", name, says, text)
			}
		}
		if _, same := perform(t, "help "+name); same != text {
			t.Errorf("help %s is not %s --help: %s", name, name, same)
		}
		for args, refused := range map[string]bool{
			" --no-such-flag": true,
			" 1 2":            !strings.HasSuffix(c.Use, "..."),
			"":                strings.Contains(c.Use, " <"),
		} {
			if code, text := perform(t, name+args); refused && (code != 2 || strings.Count(text, "\n") != 1) {
				t.Errorf("%s: exit code %d, want 2 and one line: %s", name+args, code, text)
			}
		}
	}
}

// A command or a flag that does not exist is refused, and what was meant is named.
func TestSlips(t *testing.T) {
	for line, says := range map[string]string{
		"":                         "Images:\n",
		"pool":                     "  grow ",
		"quarantine":               "  requeue ",
		"completion":               "  fish ",
		"fly":                      "see `consumer --help`",
		"stauts":                   "did you mean `consumer status`?",
		"stauts --json":            "did you mean `consumer status`?",
		"--verson":                 "unknown flag --verson: did you mean `--version`?",
		"ls":                       "did you mean `consumer images`?",
		"help stauts":              "did you mean `consumer status`?",
		"pool creat":               "did you mean `consumer pool create`?",
		"help pool creat":          "did you mean `consumer pool create`?",
		"quarantine fly":           "see `consumer quarantine --help`",
		"completion bsh":           "did you mean `consumer completion bash`",
		"completion bash now":      "unknown command",
		"images --jsn":             "unknown flag --jsn: did you mean `--json`?",
		"images -json":             "unknown flag -json: did you mean `--json`?",
		"run --polciy strict":      "did you mean `--policy`?",
		"images --state-dri x":     "did you mean `--state-dir`?",
		"images --state-dir":       "needs an argument",
		"images --x":               "see `consumer images --help`",
		"pool grow --data-size 1x": "write 20GiB",
	} {
		if code, text := perform(t, line); code != 2 || !strings.Contains(text, says) {
			t.Errorf("%q: exit code %d, want 2 and %q: %s", line, code, says, text)
		}
	}
}

// Flags may stand anywhere, and those of settings are taken by every command.
func TestFlagsAnywhere(t *testing.T) {
	dir := filepath.Dir(stateWith(t, "images/a.tar"))
	t.Setenv("STATE_DIR", "/nowhere")
	for _, line := range []string{
		"--state-dir %s history 1 --json",
		"history --state-dir %s --json 1",
		"history 1 --json=true --state-dir=%s",
		"history --bucket b --region r --queue-url q --listen l --policy strict --json 1 --state-dir %s",
	} {
		if code, text := perform(t, fmt.Sprintf(line, dir)); code != 0 || !strings.Contains(text, `"kind": "queued"`) {
			t.Errorf(line+": exit code %d: %s", dir, code, text)
		}
	}
}

// Commands that read the journal work without a daemon, a pool, or a network; without a
// journal they say so.
func TestShow(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("STATE_DIR", dir)
	if code := report(dispatch(t.Context(), []string{"images"}, io.Discard), io.Discard); code != 3 {
		t.Errorf("no journal: exit code %d, want 3", code)
	}
	s, err := store.Open(t.Context(), databasePath(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	img, _, err := s.Enqueue(t.Context(), store.Object{Bucket: "b", Key: "images/\x1b[31mred.tar", ETag: "e", Size: 7})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Quarantine(t.Context(),
		store.QuarantinedMessage{MessageID: "m-1", Body: "{\x1b", Reason: "malformed"}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ args, says string }{
		{"status", "1 pending"},
		{"status --json", `"pending": 1`},
		{"images", "pending"},
		{"images --json", `"key": "images/\u001b[31mred.tar"`},
		{"snapshots", "DEVICE"},
		{"snapshots --json", "[]"},
		{"history 1", "queued"},
		{"history --json 1", `"kind": "queued"`},
		{"quarantine list", "m-1"},
		{"quarantine show 1", `{\x1b`},
		{"quarantine drop --json 1", `"dropped"`},
		{"quarantine list --json", "[]"},
	} {
		var out bytes.Buffer
		if err := dispatch(t.Context(), strings.Fields(c.args), &out); err != nil {
			t.Errorf("%s: %v", c.args, err)
		}
		if !strings.Contains(out.String(), c.says) || strings.Contains(out.String(), "\x1b") {
			t.Errorf("%s: %q, want %q and no escape sequence", c.args, out.String(), c.says)
		}
	}
	for _, args := range [][]string{
		{"history", "images/none.tar"},
		{"history", fmt.Sprint(img.ID + 1)},
		{"quarantine", "show", "99"},
	} {
		if code := report(dispatch(t.Context(), args, io.Discard), io.Discard); code != 5 {
			t.Errorf("%v: exit code %d, want 5", args, code)
		}
	}
}
