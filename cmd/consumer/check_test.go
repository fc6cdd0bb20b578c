package main

import (
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
)

const someQueue = "https://sqs.us-east-1.amazonaws.com/111122223333/images"

// configured is the configuration of `consumer run` under an environment, over one that
// is right.
func configured(t *testing.T, env map[string]string) (config, error) {
	t.Helper()
	all := map[string]string{
		"S3_BUCKET": "demo", "SQS_QUEUE_URL": someQueue, "AWS_REGION": "",
		"AWS_ENDPOINT_URL": "", "AWS_ENDPOINT_URL_S3": "", "AWS_ENDPOINT_URL_SQS": "",
	}
	maps.Copy(all, env)
	for k, v := range all {
		t.Setenv(k, v)
	}
	c, err := load(t)
	if err != nil {
		return c, err
	}
	return c, c.checkRun()
}

// refusals are settings that are refused, and what the text says besides the variable's
// name.
type refusals []struct{ value, says string }

func (r refusals) check(t *testing.T, name string, more map[string]string) {
	t.Helper()
	for _, c := range r {
		t.Run(c.value, func(t *testing.T) {
			env := map[string]string{name: c.value}
			maps.Copy(env, more)
			_, err := configured(t, env)
			if err == nil {
				t.Fatalf("%s=%q is taken", name, c.value)
			}
			if !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), c.says) ||
				strings.Contains(err.Error(), "\n") {
				t.Errorf("%s=%q: want one problem that says %q, have: %v", name, c.value, c.says, err)
			}
		})
	}
}

// taken checks that the values pass, and what the region is then.
func taken(t *testing.T, name, region string, values ...string) {
	t.Helper()
	for _, value := range values {
		t.Run(value, func(t *testing.T) {
			c, err := configured(t, map[string]string{name: value})
			if err != nil {
				t.Errorf("%s=%q is refused: %v", name, value, err)
			}
			if c.region() != region {
				t.Errorf("%s=%q: region %s, want %s", name, value, c.region(), region)
			}
		})
	}
}

// Whatever is not a bucket name is refused: no event ever names it, so that every message
// would be foreign, and leave the queue.
func TestBucketSlips(t *testing.T) {
	refusals{
		{"s3://demo", "alone, demo,"},
		{"S3://demo/images/", "alone, demo,"},
		{"https://demo.s3.amazonaws.com", "AWS_ENDPOINT_URL"},
		{"arn:aws:s3:::demo", "alone, demo"},
		{"arn:aws-cn:s3:::demo/images", "alone, demo"},
		{"arn:aws:s3:us-east-1:111122223333:accesspoint/demo", "name"},
		{"demo/images", "S3_PREFIX=images"},
		{" demo", "write demo"},
		{"demo\n", "write demo"},
		{"de", "3 to 63"},
		{strings.Repeat("x", 64), "3 to 63"},
		{"-demo", "letter or digit at both ends"},
		{"demo.", "letter or digit at both ends"},
		{"de..mo", "bucket name"},
		{"192.168.5.4", "bucket name"},
		{"démo", "lower-case letters"},
		{"demo-abc123-s3alias", "alias"},
		{"demo--use1-az4--x-s3", "no notifications"},
	}.check(t, "S3_BUCKET", nil)
	taken(t, "S3_BUCKET", "us-east-1", "demo", "my.demo-1", "123", strings.Repeat("x", 63), "container-images",
		"Demo", "my_demo", "Acme_Images") // as us-east-1 allowed until 2018
}

// A prefix that no acceptable key begins with is refused.
func TestPrefixSlips(t *testing.T) {
	refusals{
		{"/images/", "write images/"},
		{"s3://demo/images/", "images/"},
		{" images/", "write images/"},
		{"images/*", "write images/"},
		{"images//", "no key"},
		{"../images/", "no key"},
		{"images\\", "no key"},
		{strings.Repeat("x", 1024), "no key"},
	}.check(t, "S3_PREFIX", nil)
	taken(t, "S3_PREFIX", "us-east-1", "", "images/", "images", "a/b/c/", "images/prod-")
	if c, err := configured(t, map[string]string{"S3_PREFIX": ""}); err != nil || c.Prefix != "" {
		t.Errorf("an empty prefix is %q, %v: it means every key", c.Prefix, err)
	}
}

// A policy for keys that are never taken is a slip: what it was to apply to would be
// refused, or worse, taken.
func TestPolicySlips(t *testing.T) {
	refusals{
		{"debian/:distro", `"images/debian/"`},
		{"images/a/:strict, images/b/:distro", `" images/b/"`},
		{"images/a/:lax", "strict, distro or trusted"},
		{"images/a/", "prefix:policy"},
		{"images/a/=distro", "prefix:policy"},
	}.check(t, "IMAGE_POLICIES", nil)
	taken(t, "IMAGE_POLICIES", "us-east-1", "", "images/debian/:distro", "images:distro,images/own/:trusted")
}

// Both queues' URLs are held to the form that SQS gives them, and to one region.
func TestQueueSlips(t *testing.T) {
	slips := refusals{
		{"images", "get-queue-url"},
		{"arn:aws:sqs:eu-west-1:111122223333:images", "https://sqs.eu-west-1.amazonaws.com/111122223333/images"},
		{someQueue + " ", "write " + someQueue},
		{someQueue + "/", "queue's name"},
		{"sqs.us-east-1.amazonaws.com/111122223333/images", "get-queue-url"},
		{"ftp://sqs.us-east-1.amazonaws.com/111122223333/images", "get-queue-url"},
		{"https://sqs.us-east-1.amazonaws.com/images", "12 digits"},
		{"https://sqs.us-east-1.amazonaws.com/1111/images", "12 digits"},
		{"https://sqs.us-east-1.amazonaws.com/111122223333/my images", "12 digits"},
		{"https://sqs.us-east-1.amazonaws.com/111122223333/" + strings.Repeat("x", 81), "80 letters"},
		{"https://sns.us-east-1.amazonaws.com/111122223333/images", "no host of SQS"},
		{"https://us-east-1.console.aws.amazon.com/sqs/v3/home?region=us-east-1#/queues", "console"},
		{"https://me:secret@sqs.us-east-1.amazonaws.com/111122223333/images", "a user"},
		{someQueue + ".fifo", "FIFO"},
	}
	for _, name := range []string{"SQS_QUEUE_URL", "SQS_DEAD_LETTER_URL"} {
		t.Run(name, func(t *testing.T) { slips.check(t, name, nil) })
	}
	refusals{
		{someQueue, "queue itself"},
		{"https://queue.amazonaws.com/111122223333/images", "queue itself"}, // its old host
		{"https://sqs.eu-west-1.amazonaws.com/111122223333/images-dlq", "eu-west-1"},
	}.check(t, "SQS_DEAD_LETTER_URL", nil)
	taken(t, "SQS_DEAD_LETTER_URL", "us-east-1", "", someQueue+"-dlq")
}

// The queue's URL says where the queue is, in every form that AWS and others give it.
// AWS_REGION may repeat it and not contradict it.
func TestQueueRegions(t *testing.T) {
	taken(t, "SQS_QUEUE_URL", "eu-west-1", "https://sqs.eu-west-1.amazonaws.com/111122223333/images",
		"https://sqs-fips.eu-west-1.amazonaws.com/111122223333/images",
		"https://sqs.eu-west-1.api.aws/111122223333/images",
		"https://eu-west-1.queue.amazonaws.com/111122223333/images",
		"https://vpce-0a1b-2c3d.sqs.eu-west-1.vpce.amazonaws.com/111122223333/images",
		"https://vpce-0a1b-eu-west-1a.sqs.eu-west-1.vpce.amazonaws.com/111122223333/images",
		"http://sqs.eu-west-1.localhost.localstack.cloud:4566/000000000000/images",
		"http://eu-west-1.queue.localhost.localstack.cloud:4566/000000000000/images")
	taken(t, "SQS_QUEUE_URL", "us-east-1", someQueue, "https://queue.amazonaws.com/111122223333/images",
		"http://localhost:4566/000000000000/images", "http://localhost:4566/queue/us-east-1/000000000000/images",
		// LocalStack
		"http://localhost:9324/000000000000/images", "http://localhost:9324/queue/images",
		"http://[::1]:9324/queue/images", // ElasticMQ
		"http://goaws:4100/images", "https://message-queue.api.cloud.yandex.net/b1g/dj6/images")
	taken(t, "SQS_QUEUE_URL", "cn-north-1", "https://sqs.cn-north-1.amazonaws.com.cn/111122223333/images")
	taken(t, "SQS_QUEUE_URL", "us-gov-west-1", "https://sqs.us-gov-west-1.amazonaws.com/111122223333/images")
	taken(t, "SQS_QUEUE_URL", "us-iso-east-1", "https://sqs.us-iso-east-1.c2s.ic.gov/111122223333/images")

	const ireland = "https://sqs.eu-west-1.amazonaws.com/111122223333/images"
	refusals{{ireland, "AWS_REGION (or --region) out, or set it to eu-west-1"}}.check(t, "SQS_QUEUE_URL",
		map[string]string{"AWS_REGION": "us-east-1"})
	for name, env := range map[string]map[string]string{
		"the same": {"AWS_REGION": "eu-west-1"},
		"an emulator that names as AWS does": {
			"AWS_REGION":       "us-east-1",
			"AWS_ENDPOINT_URL": "http://localhost:5000",
		},
		"an emulator of SQS that does so, too": {
			"AWS_REGION":           "us-east-1",
			"AWS_ENDPOINT_URL_SQS": "http://localhost:5000",
		},
	} {
		env["SQS_QUEUE_URL"] = ireland
		if c, err := configured(t, env); err != nil || c.region() != env["AWS_REGION"] {
			t.Errorf("%s: region %s, %v", name, c.region(), err)
		}
	}
}

func TestPlaceSlips(t *testing.T) {
	refusals{{"eu-west-1a", "write its region, eu-west-1"}, {"Ireland", "eu-west-1"}, {
		"us east 1",
		"eu-west-1",
	}}.check(t, "AWS_REGION",
		map[string]string{"SQS_QUEUE_URL": "http://localhost:4566/000000000000/images"})
	for _, name := range []string{"AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL_SQS"} {
		t.Run(name, func(t *testing.T) {
			refusals{
				{"localhost:4566", "write http://localhost:4566"},
				{"http://", "http://localhost:4566"},
				{"tcp://localhost:4566", "is not a URL"},
				{"http://localhost:4566 ", "blank"},
				{"http://localhost:4566/?x=y", "query"},
			}.check(t, name, nil)
			taken(t, name, "us-east-1", "http://localhost:4566", "https://s3.example.com/base", "http://[::1]:4566/")
		})
	}
	for _, name := range []string{"LISTEN_ADDR", "DEBUG_ADDR"} {
		refusals{
			{"9090", "host:port"},
			{"http://127.0.0.1:9090", "URL"},
			{"127.0.0.1", "host:port"},
			{"127.0.0.1:99999", "65535"},
			{"::1:9090", "[::1]:9090"},
			{"a b:1", "blank"},
		}.check(t, name, nil)
		taken(t, name, "us-east-1", "", ":9090", "127.0.0.1:0", "[::1]:9090", "host.example:80")
	}
	refusals{{"~/state", "whole path"}}.check(t, "STATE_DIR", nil)
}

// The specification's limits (SC-2) are the most that can be set, and values that mean
// nothing are refused, not replaced.
func TestCeilings(t *testing.T) {
	for _, c := range []struct{ name, most, more string }{
		{"MAX_DOWNLOADS", "5", "6"},
		{"MAX_UNPACKS", "2", "3"},
		{"MAX_ACTIVATIONS", "32", "33"},
		{"DOWNLOAD_TIMEOUT", "5m", "5m1s"},
		{"UNPACK_TIMEOUT", "30m", "31m"},
		{"ACTIVATE_TIMEOUT", "1h", "2h"},
		{"DEVICE_SIZE", "99999940608", "101GB"},
		{"DEVICE_SIZE", "64MiB", "100GB"}, // no multiple of 64 KiB
		{"MAX_IMAGE_SIZE", "10GiB", "10.1GiB"},
		{"MAX_FILE_SIZE", "1GiB", "1025MiB"},
		{"MAX_ENTRIES", "100000", "100001"},
		{"SQS_WAIT", "20s", "21s"},
		{"SQS_WAIT", "1s", "0"},
		{"SQS_WAIT", "2s", "1500ms"},
		{"SQS_VISIBILITY", "12h", "12h1s"},
		{"SQS_VISIBILITY", "10s", "10500ms"},
		{"SQS_DEPTH_INTERVAL", "0", "-1s"},
		{"SQS_DEPTH_INTERVAL", "1s", "999ms"},
		{"RETRY_BACKOFF", "15m", "16m"},
		{"POOL_MIN_FREE_DATA", "90", "NaN"},
		{"POOL_MIN_FREE_METADATA", "0", "90.5"},
		{"LOG_LEVEL", "WARN", "fatal"},
		{"LOG_FORMAT", "Console", "text"},
		{"STATE_MIN_FREE", "0", "-1GiB"},
		{"VIOLATIONS_SIZE", "1TiB", "99999999PiB"},
	} {
		taken(t, c.name, "us-east-1", c.most)
		refusals{{c.more, ""}}.check(t, c.name, nil)
	}
}

// What cannot be read is named like what is wrong otherwise, all at once, and not in the
// words of Go's libraries.
func TestUnreadableSettings(t *testing.T) {
	env := map[string]string{
		"SQS_WAIT": "20", "MAX_DOWNLOADS": "many", "DEVICE_SIZE": "big", "POOL_MIN_FREE_DATA": "10%",
		"BACKFILL_AT_START": "perhaps", "IMAGE_POLICIES": "x",
		"S3_BUCKET": "s3://demo",
	}
	_, err := configured(t, env)
	if err == nil {
		t.Fatal("accepted")
	}
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != len(env) {
		t.Errorf("%d problems, want %d", len(lines), len(env))
	}
	for name := range env {
		if !slices.ContainsFunc(lines, func(l string) bool {
			return strings.HasPrefix(l, name) && strings.Contains(l,
				"write ")
		}) {
			t.Errorf("%s has no remedy in: %v", name, err)
		}
	}
	for _, word := range []string{"strconv", "parse", "time:", "envconfig", "type"} {
		if strings.Contains(err.Error(), word) {
			t.Errorf("%q is a programmer's word: %v", word, err)
		}
	}
}

// A variable that is empty, as a compose file leaves it, is one that is not set.
func TestEmptySettings(t *testing.T) {
	fields := reflect.TypeFor[config]()
	for i := range fields.NumField() {
		if name := fields.Field(i).Tag.Get("envconfig"); name != "" {
			t.Setenv(name, "x")
			if err := os.Unsetenv(name); err != nil {
				t.Fatal(err)
			}
		}
	}
	want, err := load(t)
	if err != nil {
		t.Fatal(err)
	}
	for i := range fields.NumField() {
		if name := fields.Field(i).Tag.Get("envconfig"); name != "" && !mayBeEmpty[name] {
			t.Setenv(name, "")
		}
	}
	if got, err := load(t); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v\nwant %+v", got, err, want)
	}
}
