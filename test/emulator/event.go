package emulator

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"time"
)

// event is what happened to an object, before it is put into a form.
type event struct {
	name      string // "ObjectCreated:Put"
	bucket    string
	region    string
	config    string // Id of the notification configuration
	key       string
	size      int64
	etag      string
	version   string // empty where the bucket has none
	sequencer string
	when      time.Time
	requestID string
	address   string // of the client
}

// Envelope is the form in which a queue gets an event.
type Envelope int

// The forms. The zero value is what a queue gets that the bucket notifies itself.
const (
	Direct           Envelope = iota // S3's own: Records
	SNS                              // through a topic, not raw
	EventBridge                      // one event a message, whatever Records of [Delivery] says
	EventBridgeInSNS                 // the one in the other
)

// encodeKey encodes a key as S3 does in its events: form-encoded, but for slashes.
func encodeKey(key string) string {
	return strings.ReplaceAll(url.QueryEscape(key), "%2F", "/")
}

// record is the event in S3's form: user guide, "Event message structure", version 2.1.
func (e event) record() map[string]any {
	object := map[string]any{"key": encodeKey(e.key), "sequencer": e.sequencer}
	if strings.HasPrefix(e.name, "ObjectCreated:") {
		object["size"], object["eTag"] = e.size, e.etag
	}
	if e.version != "" {
		object["versionId"] = e.version
	}
	return map[string]any{
		"eventVersion":      "2.1",
		"eventSource":       "aws:s3",
		"awsRegion":         e.region,
		"eventTime":         e.when.UTC().Format("2006-01-02T15:04:05.000Z"),
		"eventName":         e.name,
		"userIdentity":      map[string]any{"principalId": "AWS:AIDACKCEVSQ6C2EXAMPLE"},
		"requestParameters": map[string]any{"sourceIPAddress": e.address},
		"responseElements":  map[string]any{"x-amz-request-id": e.requestID, "x-amz-id-2": e.requestID},
		"s3": map[string]any{
			"s3SchemaVersion": "1.0",
			"configurationId": e.config,
			"bucket": map[string]any{
				"name": e.bucket, "arn": "arn:aws:s3:::" + e.bucket,
				"ownerIdentity": map[string]any{"principalId": "A3NL1KOZZKExample"},
			},
			"object": object,
		},
	}
}

// reasons are EventBridge's words for the events.
var reasons = map[string]string{
	"ObjectCreated:Put": "PutObject", "ObjectCreated:Copy": "CopyObject",
	"ObjectCreated:CompleteMultipartUpload": "CompleteMultipartUpload",
	"ObjectRemoved:Delete":                  "DeleteObject", "ObjectRemoved:DeleteMarkerCreated": "DeleteObject",
}

// eventBridge is the event in EventBridge's form, whose key is not encoded: user guide,
// "EventBridge event message structure".
func (e event) eventBridge() map[string]any {
	object := map[string]any{"key": e.key, "sequencer": e.sequencer}
	kind := "Object Deleted"
	if strings.HasPrefix(e.name, "ObjectCreated:") {
		kind = "Object Created"
		object["size"], object["etag"] = e.size, e.etag
	}
	if e.version != "" {
		object["version-id"] = e.version
	}
	return map[string]any{
		"version": "0", "id": newID(), "detail-type": kind, "source": "aws.s3", "account": Account, "region": e.region,
		"time":      e.when.UTC().Format(time.RFC3339),
		"resources": []string{"arn:aws:s3:::" + e.bucket},
		"detail": map[string]any{
			"version": "0", "bucket": map[string]any{"name": e.bucket}, "object": object, "reason": reasons[e.name],
			"request-id": e.requestID, "requester": Account, "source-ip-address": e.address,
		},
	}
}

// testEvent is what S3 sends to a queue when a configuration names it.
func testEvent(bucket string, when time.Time, requestID string) string {
	return encode(map[string]any{
		"Service": "Amazon S3", "Event": "s3:TestEvent", "Time": when.UTC().Format("2006-01-02T15:04:05.000Z"),
		"Bucket":    bucket,
		"RequestId": requestID, "HostId": requestID,
	})
}

// inSNS puts a body into the form that SNS sends where raw delivery is off: SNS developer
// guide, "HTTP/HTTPS notification JSON format".
func inSNS(body, region string, when time.Time) string {
	return encode(map[string]any{
		"Type": "Notification", "MessageId": newID(), "TopicArn": fmt.Sprintf("arn:aws:sns:%s:%s:images",
			region, Account),
		"Subject": "Amazon S3 Notification", "Message": body, "Timestamp": when.UTC().
				Format("2006-01-02T15:04:05.000Z"),
		"SignatureVersion": "1", "Signature": "EXAMPLE", "SigningCertURL": "https://sns.invalid/cert.pem",
		"UnsubscribeURL": "https://sns.invalid/",
	})
}

func encode(v any) string {
	text, _ := json.Marshal(v) // maps of strings and numbers always marshal
	return string(text)
}
