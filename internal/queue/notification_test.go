package queue

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"
)

// s3Body is S3's own form with one record; key as it is on the wire.
func s3Body(key string) string {
	return fmt.Sprintf(`{"Records":[{
		"eventVersion":"2.1","eventSource":"aws:s3","awsRegion":"us-east-1",
		"eventTime":"2026-11-01T10:00:00.000Z","eventName":"ObjectCreated:Put",
		"s3":{
			"s3SchemaVersion":"1.0","configurationId":"images-created",
			"bucket":{"name":"demo","arn":"arn:aws:s3:::demo"},
			"object":{
				"key":%q,"size":1048576,"eTag":"0123456789abcdef0123456789abcdef",
				"versionId":"v1","sequencer":"0066F1A2B3C4D5E6F7"
			}
		}
	}]}`, key)
}

// eventBridgeBody is EventBridge's form.
func eventBridgeBody(key string) string {
	return fmt.Sprintf(`{
		"version":"0","id":"e1","detail-type":"Object Created","source":"aws.s3",
		"account":"111122223333","time":"2026-11-01T10:00:00Z","region":"us-east-1",
		"resources":["arn:aws:s3:::demo"],
		"detail":{
			"version":"0","bucket":{"name":"demo"},
			"object":{
				"key":%q,"size":1048576,"etag":"0123456789abcdef0123456789abcdef",
				"version-id":"v1","sequencer":"0066F1A2B3C4D5E6F7"
			},
			"reason":"PutObject"
		}
	}`, key)
}

const testEvent = `{
	"Service":"Amazon S3","Event":"s3:TestEvent","Time":"2026-11-01T10:00:00.000Z",
	"Bucket":"demo","RequestId":"R1","HostId":"H1"
}`

// inSNS wraps a body as SNS does.
func inSNS(body string) string {
	text, err := json.Marshal(body)
	if err != nil {
		return err.Error()
	}
	return `{
		"Type":"Notification","MessageId":"m1","TopicArn":"arn:aws:sns:us-east-1:111122223333:t",
		"Subject":"Amazon S3 Notification","Message":` + string(text) + `,
		"Timestamp":"2026-11-01T10:00:00.000Z","SignatureVersion":"1","Signature":"x"
	}`
}

// Every form gives the same object, in full.
func TestEnvelopes(t *testing.T) {
	want := Object{
		Bucket: "demo", Key: "images/a b+c.tar", VersionID: "v1", ETag: "0123456789abcdef0123456789abcdef",
		Sequencer: "0066F1A2B3C4D5E6F7", Size: 1 << 20,
	}
	bridged := want
	bridged.AltKey = "images/a b c.tar"
	for _, tc := range []struct {
		name, body string
		want       Object
	}{
		{"S3", s3Body("images/a+b%2Bc.tar"), want},
		{"SNS", inSNS(s3Body("images/a+b%2Bc.tar")), want},
		{"EventBridge", eventBridgeBody("images/a b+c.tar"), bridged},
		{"EventBridge in SNS", inSNS(eventBridgeBody("images/a b+c.tar")), bridged},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n, err := Parse(tc.body)
			if err != nil || len(n.Ignored) != 0 || len(n.Objects) != 1 || n.Objects[0] != tc.want {
				t.Errorf("%v\n got %+v\nwant %+v", err, n, tc.want)
			}
		})
	}
}

// The encodings of keys that are in use: AWS's, and those of the emulators.
func TestKeys(t *testing.T) {
	for _, tc := range []struct{ name, wire, key string }{
		{"AWS: form-encoded, slashes literal", "images/a+b%2Bc.tar", "images/a b+c.tar"},
		{"LocalStack: spaces as %20", "images/a%20b%2Bc.tar", "images/a b+c.tar"},
		{"moto, MinIO: slashes encoded", "images%2Fa+b.tar", "images/a b.tar"},
		{"raw, nothing to decode", "images/a.tar", "images/a.tar"},
		{"not Latin", "images/%E6%97%A5%E6%9C%AC.tar", "images/日本.tar"},
		{"not Latin, raw", "images/日本.tar", "images/日本.tar"},
		{"a percent sign", "images/100%25.tar", "images/100%.tar"},
		{"encoded twice is decoded once", "images/a%252Fb.tar", "images/a%2Fb.tar"},
		{"traversal is for others to judge", "images/..%2F..%2Fetc", "images/../../etc"},
		{"any byte", "images/%00%FF", "images/\x00\xff"},
		{"separators of forms", "images/a;b&c=d", "images/a;b&c=d"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n, err := Parse(s3Body(tc.wire))
			if err != nil || n.Objects[0].Key != tc.key || n.Objects[0].AltKey != "" {
				t.Errorf("%v, %+v; want %q", err, n, tc.key)
			}
		})
	}
}

// EventBridge's keys are raw with AWS and encoded with LocalStack; both readings are
// given, the raw one first.
func TestEventBridgeKeys(t *testing.T) {
	for _, tc := range []struct{ wire, alt string }{
		{"images/a.tar", ""},
		{"images/a b.tar", ""},
		{"images/a+b.tar", "images/a b.tar"},
		{"images/a%20b.tar", "images/a b.tar"},
		{"images/100%.tar", ""},
	} {
		n, err := Parse(eventBridgeBody(tc.wire))
		if err != nil || n.Objects[0].Key != tc.wire || n.Objects[0].AltKey != tc.alt {
			t.Errorf("%q: %v, %+v; want %q beside it", tc.wire, err, n, tc.alt)
		}
	}
}

// Little is required, and what senders get wrong is forgiven where nothing depends on it.
func TestLenient(t *testing.T) {
	for _, tc := range []struct {
		name, body string
		want       Object
	}{
		{
			"nothing but bucket and key",
			`{"Records":[{"eventName":"ObjectCreated:Copy","s3":{"bucket":{"name":"b"},"object":{"key":"k"}}}]}`,
			Object{Bucket: "b", Key: "k"},
		},
		{
			"MinIO: its own source, a prefixed name, more at the top",
			`{"EventName":"s3:ObjectCreated:Put","Key":"b/k","Records":[{
				"eventVersion":"2.0","eventSource":"minio:s3","eventName":"s3:ObjectCreated:Put",
				"s3":{"bucket":{"name":"b"},"object":{"key":"k"}}
			}]}`,
			Object{Bucket: "b", Key: "k"},
		},
		{
			"a time without zone, a quoted ETag, a newer minor version",
			`{"Records":[{
				"eventVersion":"2.9","eventTime":"2026-11-01T10:00:00","eventName":"ObjectCreated:Put",
				"s3":{"bucket":{"name":"b"},"object":{"key":"k","eTag":"\"e\""}}
			}]}`,
			Object{Bucket: "b", Key: "k", ETag: "e"},
		},
		{
			"no time that can be read",
			`{"Records":[{
				"eventTime":"yesterday","eventName":"ObjectCreated:Put",
				"s3":{"bucket":{"name":"b"},"object":{"key":"k"}}
			}]}`,
			Object{Bucket: "b", Key: "k"},
		},
		{
			"EventBridge without a reason",
			`{"detail-type":"Object Created","source":"aws.s3","detail":{"bucket":{"name":"b"},"object":{"key":"k"}}}`,
			Object{Bucket: "b", Key: "k"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n, err := Parse(tc.body)
			if err != nil || len(n.Objects) != 1 || n.Objects[0] != tc.want {
				t.Errorf("%v\n got %+v\nwant %+v", err, n, tc.want)
			}
		})
	}
}

// What asks for no work, and why.
func TestIgnored(t *testing.T) {
	record := func(source, name string) string {
		return fmt.Sprintf(`{"eventSource":%q,"eventName":%q,"s3":{"bucket":{"name":"b"},"object":{"key":"k"}}}`,
			source, name)
	}
	bridge := func(source, kind string) string {
		return fmt.Sprintf(`{"detail-type":%q,"source":%q,"detail":{}}`, kind, source)
	}
	for _, tc := range []struct{ name, body, reason string }{
		{"test event", testEvent, ReasonTestEvent},
		{"test event in SNS", inSNS(testEvent), ReasonTestEvent},
		{"no records", `{"Records":[]}`, ReasonEmpty},
		{"no records in SNS", inSNS(`{"Records":[]}`), ReasonEmpty},
		{"removed", `{"Records":[` + record("aws:s3", "ObjectRemoved:Delete") + `]}`, ReasonNotCreated},
		{"restored", `{"Records":[` + record("aws:s3", "ObjectRestore:Completed") + `]}`, ReasonNotCreated},
		{
			"a name that only begins alike", `{"Records":[` + record("aws:s3", "ObjectCreatedElsewhere") + `]}`,
			ReasonNotCreated,
		},
		{"another service", `{"Records":[` + record("aws:ses", "ObjectCreated:Put") + `]}`, ReasonNotS3},
		{"EventBridge: deleted", bridge("aws.s3", "Object Deleted"), ReasonNotCreated},
		{"EventBridge: another service", bridge("aws.ec2", "EC2 Instance State-change Notification"), ReasonNotS3},
		{
			"SNS: subscribed",
			`{"Type":"SubscriptionConfirmation","Message":"You have chosen","SubscribeURL":"https://x"}`,
			ReasonSNSControl,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n, err := Parse(tc.body)
			if err != nil || len(n.Objects) != 0 || len(n.Ignored) != 1 || n.Ignored[0].Reason != tc.reason {
				t.Errorf("%v, %+v; want %s", err, n, tc.reason)
			}
		})
	}
}

func TestMalformed(t *testing.T) {
	for name, body := range map[string]string{
		"nothing":                 "",
		"no JSON":                 "hello",
		"cut off":                 s3Body("k")[:200],
		"more than one document":  s3Body("k") + "{}",
		"no object":               `[1]`,
		"null":                    `null`,
		"records null":            `{"Records":null}`,
		"records of another type": `{"Records":"x"}`,
		"something else":          `{"foo":1}`,
		"a Bucket, no event":      `{"Event":"s3:OtherEvent","Bucket":"b"}`,
		"not UTF-8":               strings.Replace(s3Body("kk"), "kk", "\xff", 1),
		"bad escape in key":       s3Body("images/100%.tar"),
		"newer major version":     strings.Replace(s3Body("k"), `"2.1"`, `"3.0"`, 1),
		"no bucket":               `{"Records":[{"eventName":"ObjectCreated:Put","s3":{"object":{"key":"k"}}}]}`,
		"no key":                  `{"Records":[{"eventName":"ObjectCreated:Put","s3":{"bucket":{"name":"b"}}}]}`,
		"negative size":           strings.Replace(s3Body("k"), "1048576", "-1", 1),
		"size beyond 64 bits":     strings.Replace(s3Body("k"), "1048576", "99999999999999999999", 1),
		"SNS without Message":     `{"Type":"Notification"}`,
		"SNS with no JSON":        inSNS("hello"),
		"SNS with not UTF-8":      `{"Type":"Notification","Message":"\xff"}`,
		"SNS in SNS":              inSNS(inSNS(s3Body("k"))),
		"EventBridge, no detail":  `{"detail-type":"Object Created","source":"aws.s3"}`,
		"EventBridge, no key": `{"detail-type":"Object Created","source":"aws.s3",
			"detail":{"bucket":{"name":"b"}}}`,
		"nested too deep": strings.Repeat(`{"Records":`, 20000),
	} {
		t.Run(name, func(t *testing.T) {
			if n, err := Parse(body); !errors.Is(err, ErrMalformed) || !reflect.DeepEqual(n, Notification{}) {
				t.Errorf("%v, %+v; want ErrMalformed", err, n)
			}
		})
	}
}

// Records are each their own: a broken one does not spoil the others.
func TestRecords(t *testing.T) {
	good := `{"eventName":"ObjectCreated:Put","s3":{"bucket":{"name":"b"},"object":{"key":"k%d"}}}`
	var list []string
	for i := range 100 {
		list = append(list, fmt.Sprintf(good, i))
	}
	list = append(list, `{"eventName":"ObjectRemoved:Delete","s3":{"bucket":{"name":"b"},"object":{"key":"k"}}}`)
	n, err := Parse(`{"Records":[` + strings.Join(list, ",") + `]}`)
	if err != nil || len(n.Objects) != 100 || len(n.Ignored) != 1 || n.Objects[99].Key != "k99" {
		t.Errorf("%v, %d objects, %d ignored", err, len(n.Objects), len(n.Ignored))
	}
	for name, broken := range map[string]string{
		"bad escape": `{"eventName":"ObjectCreated:Put","s3":{"bucket":{"name":"b"},"object":{"key":"%zz"}}}`,
		"wrong type": `{"eventName":"ObjectCreated:Put",
			"s3":{"bucket":{"name":"b"},"object":{"key":"k","size":"12"}}}`,
		"not a record": `[1]`,
	} {
		n, err := Parse(`{"Records":[` + broken + `,` + list[0] + `,` + broken + `,` + list[1] + `]}`)
		if err != nil || len(n.Objects) != 2 || len(n.Broken) != 2 || !errors.Is(n.Broken[1], ErrMalformed) {
			t.Errorf("%s: %v, %+v", name, err, n)
		}
		if n, err := Parse(`{"Records":[` + broken + `,` + list[100] + `]}`); err != nil || len(n.Ignored) != 1 ||
			len(n.Broken) != 1 {
			t.Errorf("%s beside an ignored record: %v, %+v", name, err, n)
		}
		if n, err := Parse(`{"Records":[` + broken + `,` + broken + `]}`); !errors.Is(err, ErrMalformed) ||
			len(n.Broken) != 0 {
			t.Errorf("%s twice: %v, %+v", name, err, n)
		}
	}
}

// Whatever comes: no panic; an error is ErrMalformed and comes alone; an object can be
// fetched by name, and its name comes back when it is sent again as AWS sends it.
func FuzzParse(f *testing.F) {
	for _, body := range []string{
		s3Body("images/a+b%2Bc.tar"), s3Body("%00%ff"), eventBridgeBody("images/a b+c%20.tar"), inSNS(s3Body("k")),
		inSNS(eventBridgeBody("k")),
		`{"Records":[1,{"eventName":"ObjectCreated:Put","s3":{"bucket":{"name":"b"},"object":{"key":"k"}}}]}`,
		testEvent, inSNS(testEvent), `{"Records":[]}`, `{"Records":null}`, `{"Type":"Notification","Message":null}`,
		`{"type":"x","Type":1}`,
	} {
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body string) {
		n, err := Parse(body)
		if err != nil {
			if !errors.Is(err, ErrMalformed) || len(n.Objects)+len(n.Ignored) != 0 {
				t.Fatalf("%v, %+v", err, n)
			}
			return
		}
		if !utf8.ValidString(body) || len(n.Objects)+len(n.Ignored) == 0 {
			t.Fatalf("accepted, and says nothing: %+v", n)
		}
		for _, o := range n.Objects {
			if o.Bucket == "" || o.Key == "" || o.Size < 0 {
				t.Fatalf("%+v", o)
			}
			again, err := Parse(s3Body(url.QueryEscape(o.Key)))
			if err != nil || again.Objects[0].Key != o.Key {
				t.Fatalf("key %q came back as %+v, %v", o.Key, again, err)
			}
		}
		for _, err := range n.Broken {
			if !errors.Is(err, ErrMalformed) {
				t.Fatal(err)
			}
		}
		for _, i := range n.Ignored {
			switch i.Reason {
			case ReasonTestEvent, ReasonNotCreated, ReasonNotS3, ReasonEmpty, ReasonSNSControl:
			default:
				t.Fatalf("reason %q", i.Reason)
			}
		}
	})
}
