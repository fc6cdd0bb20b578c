package localstack

import (
	"net/http"
	"strconv"
	"strings"
	"testing"

	"imagemanager.internal/test/emulator"
)

// A queue's policy with a statement of others is not overwritten unless that is asked
// for.
func TestPolicyOfOthers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "us-east-1")
	foreign := `{"Statement":[{"Sid":"Theirs","Effect":"Deny","Principal":"*","Action":"sqs:*","Resource":"*"}]}`
	w.send(http.MethodPost, "/", "CreateQueue", `{"QueueName":"images"}`)
	w.sqs("SetQueueAttributes", "images", `,"Attributes":{"Policy":`+strconv.Quote(foreign)+`}`)

	got := execute(t, w.env(), setup, "--bucket", "container-images")
	if got.code != 1 || got.out != "" || !strings.Contains(got.errs, "--replace-policy") {
		t.Errorf("exit code %d, output %q, %s; want 1, none, and the remedy", got.code, got.out, got.errs)
	}
	if p := w.attributes("images")["Policy"]; p != foreign {
		t.Errorf("the policy was changed to %s", p)
	}
}

// S3 refuses a queue whose policy it does not see yet. The script waits for that, within
// a limit.
func TestNotificationRefused(t *testing.T) {
	t.Parallel()
	const op = "PutBucketNotificationConfiguration"
	w := newWorld(t, "us-east-1")
	w.emu.Fault(emulator.Fault{Op: op, Times: 1, Status: 400, Code: "InvalidArgument"})
	if succeed(t, w.env(), setup, "--bucket", "container-images"); w.emu.Calls(op) != 2 {
		t.Errorf("%d calls, want one refused and one accepted", w.emu.Calls(op))
	}
	before := w.emu.Calls(op)
	w.emu.Fault(emulator.Fault{Op: op, Status: 400, Code: "InvalidArgument"})
	got := execute(t, w.env(), setup, "--bucket", "container-images")
	if calls := w.emu.Calls(op) - before; got.code != 1 || calls != 3 || got.out != "" ||
		!strings.Contains(got.errs, "InvalidArgument") {
		t.Errorf("exit code %d after %d calls, output %q, %s; want 1 after SETUP_TRIES, none, and the reason",
			got.code, calls, got.out, got.errs)
	}
}

// A server that accepts a notification and forgets it is not a success; one that shows it
// a little later is.
func TestNotificationIgnored(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "us-east-1")
	w.blind.Store(2)
	if got := succeed(t, w.env(), setup, "--bucket", "container-images"); !strings.Contains(got.errs, "try 2 of 3") ||
		!settings.MatchString(got.out) {
		t.Errorf("shown late: output %q, %s", got.out, got.errs)
	}
	w = newWorld(t, "us-east-1")
	w.deaf.Store(true)
	got := execute(t, w.env(), setup, "--bucket", "container-images")
	if got.code != 1 || got.out != "" {
		t.Errorf("ignored: exit code %d, output %q; want 1 and none", got.code, got.out)
	}
	for _, want := range []string{
		w.url, "container-images", "'container-images'", "queue images", "does not have it",
		"answers 'None'", "consumer backfill",
	} {
		if !strings.Contains(got.errs, want) {
			t.Errorf("the message does not have %q:\n%s", want, got.errs)
		}
	}
}

// A call that fails ends the script there, with the CLI's own words.
func TestCallFails(t *testing.T) {
	for _, op := range []string{"CreateBucket", "SetQueueAttributes", "PutBucketNotificationConfiguration"} {
		t.Run(op, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "us-east-1")
			w.emu.Fault(emulator.Fault{Op: op, Status: 403, Code: "AccessDenied"})
			got := execute(t, w.env(), setup, "--bucket", "container-images")
			if got.code == 0 || got.out != "" || !strings.Contains(got.errs, "AccessDenied") ||
				!strings.Contains(got.errs, op) {
				t.Errorf("exit code %d, output %q, %s", got.code, got.out, got.errs)
			}
			const last = "PutBucketNotificationConfiguration"
			if n := w.emu.Calls(op); n != 1 || op != last && w.emu.Calls(last) != 0 {
				t.Errorf("%d calls: it tried again, or went on", n)
			}
		})
	}
}

// Bad arguments are named, all of them, before any call.
func TestArguments(t *testing.T) {
	long := strings.Repeat("x", 81)
	for name, c := range map[string]struct {
		args, env []string
		want      []string // in the message, each
	}{
		"no bucket": {nil, nil, []string{"--bucket or S3_BUCKET"}},
		"unknown": {
			[]string{"--bukket", "x"},
			nil,
			[]string{"unknown option --bukket", "unexpected argument x"},
		},
		"unknown with =":  {[]string{"--bukket=x"}, nil, []string{"unknown option --bukket"}},
		"no value":        {[]string{"--bucket"}, nil, []string{"--bucket"}},
		"argument":        {[]string{"bucket"}, nil, []string{"unexpected argument bucket"}},
		"bucket name":     {[]string{"--bucket", "Up"}, nil, []string{"'Up' is not a bucket name"}},
		"two lines":       {[]string{"--bucket", "good\n--evil"}, nil, []string{"is not a bucket name"}},
		"quote in prefix": {[]string{"--prefix", "a`'\"b"}, nil, []string{"--prefix"}},
		"no prefix":       {nil, []string{"S3_PREFIX="}, []string{"--prefix ''"}},
		"suffix":          {[]string{"--suffix", "*.tar"}, nil, []string{"--suffix"}},
		"long queue":      {[]string{"--queue", long}, nil, []string{"--queue '" + long, "--dlq '" + long}},
		"fifo":            {[]string{"--queue", "q.fifo"}, nil, []string{"FIFO"}},
		"dlq is queue":    {[]string{"--queue", "q", "--dlq", "q"}, nil, []string{"the queue itself"}},
		"two modes":       {[]string{"--check", "--dry-run"}, nil, []string{"--check and --dry-run"}},
		"numbers": {
			[]string{
				"--max-receives", "1001", "--visibility", "-1", "--retention", "59", "--tries", "0", "--pause",
				"x",
			},
			nil,
			[]string{"--max-receives", "--visibility", "--retention", "--tries", "--pause"},
		},
		"environment": {
			nil,
			[]string{
				"MAX_RECEIVES=no", "AWS_REGION=mars", "AWS_ACCOUNT_ID=1",
				"AWS_ENDPOINT_URL=ftp://x",
			},
			[]string{"--max-receives 'no'", "--region 'mars'", "--account '1'", "--endpoint-url 'ftp://x'"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := execute(t, append(c.env, "AWS_CLI=false"), setup, c.args...)
			if got.code != 2 || got.out != "" {
				t.Errorf("exit code %d, output %q; want 2 and none", got.code, got.out)
			}
			for _, want := range append(c.want, "--help") {
				if !strings.Contains(got.errs, want) {
					t.Errorf("the message does not have %q:\n%s", want, got.errs)
				}
			}
		})
	}
}

// Without the AWS CLI the script says what to install.
func TestNoCLI(t *testing.T) {
	got := execute(t, []string{"AWS_CLI=no-such-program"}, setup, "--bucket", "container-images")
	if got.code != 1 || !strings.Contains(got.errs, "awscli") {
		t.Errorf("exit code %d: %s", got.code, got.errs)
	}
}
