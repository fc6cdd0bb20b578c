package localstack

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"imagemanager.internal/test/emulator"
)

// replayDryRun shows that a dry run makes no request, and that what it prints is a script
// that makes every call of a real first run, with the same result.
func replayDryRun(t *testing.T, hooked *world) {
	t.Helper()
	w := newWorld(t, "us-east-1")
	args := []string{"--bucket", "container-images", "--account", emulator.Account, "--dry-run"}
	printed := succeed(t, w.env(), setup, args...).out
	if n := w.requests.Load(); n != 0 {
		t.Fatalf("a dry run made %d requests", n)
	}
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte(printed), 0o600); err != nil {
		t.Fatal(err)
	}
	succeed(t, w.env(), "sh", "-eu", script)
	for _, op := range []string{
		"HeadBucket", "CreateBucket", "GetQueueUrl", "CreateQueue", "GetQueueAttributes", "SetQueueAttributes",
		"GetBucketNotificationConfiguration", "PutBucketNotificationConfiguration",
	} {
		if made, replayed := hooked.emu.Calls(op), w.emu.Calls(op); replayed == 0 || replayed != made {
			t.Errorf("%s: %d calls in what was printed, %d in a real run", op, replayed, made)
		}
	}
	if got, want := w.state(), hooked.state(); got != want {
		t.Errorf("what was printed makes\n%s\na real run makes\n%s", got, want)
	}
}

// us-east-1 is the one region that S3 does not want named; China and GovCloud have ARNs
// and addresses of their own.
func TestDryRunRegions(t *testing.T) {
	for region, want := range map[string][]string{
		"us-east-1": {"https://sqs.us-east-1.amazonaws.com/ACCOUNT_ID/images ", "arn:aws:s3:::b-b"},
		"eu-central-1": {
			"LocationConstraint=eu-central-1", "https://sqs.eu-central-1.amazonaws.com/",
			"arn:aws:sqs:eu-central-1:ACCOUNT_ID:images",
		},
		"cn-north-1": {
			"LocationConstraint=cn-north-1", "https://sqs.cn-north-1.amazonaws.com.cn/",
			"arn:aws-cn:s3:::b-b",
		},
		"us-gov-west-1": {
			"LocationConstraint=us-gov-west-1", "arn:aws-us-gov:s3:::b-b",
			"arn:aws-us-gov:sqs:us-gov-west-1:",
		},
	} {
		got := succeed(t, []string{"AWS_CLI=false", "AWS_REGION=" + region}, setup, "--bucket", "b-b", "--dry-run").out
		for _, w := range want {
			if !strings.Contains(got, w) {
				t.Errorf("%s: %q is not in\n%s", region, w, got)
			}
		}
		if named := strings.Contains(got, "LocationConstraint"); named == (region == "us-east-1") {
			t.Errorf("%s: a location constraint: %t", region, named)
		}
		if strings.Contains(got, "--endpoint-url") {
			t.Errorf("%s: an endpoint, though none was given", region)
		}
	}
}

// The help names every option and variable that the script knows, with the default that
// holds.
func TestHelp(t *testing.T) {
	help := succeed(t, nil, setup, "--help").out
	text, err := os.ReadFile(setup)
	if err != nil {
		t.Fatal(err)
	}
	row := func(option string) string { return regexp.MustCompile(`(?m)^` + option + ` .*$`).FindString(help) }
	options := regexp.MustCompile(`(?m)^\t(--[a-z-]+)\) ([a-z_]+)=\$2`).FindAllStringSubmatch(string(text), -1)
	if len(options) < 12 {
		t.Fatalf("found %d options in the script: this test does not see them", len(options))
	}
	for _, o := range options {
		r := row(o[1])
		from := regexp.MustCompile(`(?m)^` + o[2] + `=\$\{([A-Z0-9_]+)(?::?-([^${}]*))?`).
			FindStringSubmatch(string(text))
		if from == nil {
			t.Errorf("%s has no variable in the environment", o[1])
		} else if fields := strings.Fields(r); len(fields) < 4 || fields[2] != from[1] || from[2] != "" &&
			fields[3] != from[2] {
			t.Errorf("%s is %s with the default %q in the script; --help says %q", o[1], from[1], from[2], r)
		}
	}
}
