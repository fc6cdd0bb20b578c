package queue

import (
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"
)

// ErrMalformed is returned for a message body that is not a known notification, or a
// broken one. A later delivery will be no better.
var ErrMalformed = errors.New("malformed notification")

// The reasons for leaving a record out of Notification.Objects. They are few, so they
// serve as a metric's label.
const (
	ReasonTestEvent  = "test_event"  // S3 sends one when a bucket's notification is configured
	ReasonNotCreated = "not_created" // about an object, but not about its creation
	ReasonNotS3      = "not_s3"      // from another service
	ReasonEmpty      = "empty"       // an empty list of records
	ReasonSNSControl = "sns_control" // about an SNS subscription, not a notification
)

// Reasons returns all of them.
func Reasons() []string {
	return []string{ReasonTestEvent, ReasonNotCreated, ReasonNotS3, ReasonEmpty, ReasonSNSControl}
}

// Object is one "object created" record.
type Object struct {
	Bucket    string
	Key       string // decoded, not validated: it may hold any bytes
	AltKey    string // another reading of the key, "" if there is none; see fromEventBridge
	VersionID string // empty if the bucket has no versions, or the sender leaves them out
	ETag      string // without quotes; may be empty
	// hex; orders the events of one key only. Some senders leave it out or send a
	// constant, so it is never a reason to drop an event.
	Sequencer string
	Size      int64 // in bytes; 0 if it was not sent
}

// Ignored is a record, or a whole notification, with no work in it.
type Ignored struct {
	Reason string // one of the Reason constants
	Detail string // for people
}

// Notification is the content of one message. Each of its records is read on its own.
type Notification struct {
	Objects []Object
	Ignored []Ignored
	Broken  []error // unreadable records: ErrMalformed, with the reason
}

// envelope has the fields needed to tell the forms apart.
type envelope struct {
	Records []json.RawMessage `json:"Records"` // Amazon S3 user guide, "Event message structure"

	Event  string `json:"Event"` // "s3:TestEvent", together with Bucket
	Bucket string `json:"Bucket"`

	Type    string  `json:"Type"` // Amazon SNS developer guide, "Parsing JSON formats"
	Message *string `json:"Message"`

	DetailType string          `json:"detail-type"` // Amazon S3 user guide, "EventBridge event message structure"
	Source     string          `json:"source"`
	Detail     json.RawMessage `json:"detail"`
}

// Parse reads a message body. It recognises S3's own form, EventBridge's, and S3's test
// event, each bare or in an SNS notification. It ignores unknown fields. A body with only
// broken records, or none of these forms, is ErrMalformed; then the Notification is
// empty.
func Parse(body string) (Notification, error) {
	e, err := decodeEnvelope(body)
	if err != nil {
		return Notification{}, err
	}
	if e.Type == "" || e.Records != nil {
		return e.notification()
	}
	if e.Type != "Notification" {
		return ignoring(ReasonSNSControl, e.Type), nil
	}
	if e.Message == nil {
		return Notification{}, fmt.Errorf("%w: an SNS notification without Message", ErrMalformed)
	}
	inner, err := decodeEnvelope(*e.Message)
	if err != nil {
		return Notification{}, fmt.Errorf("in an SNS notification: %w", err)
	}
	return inner.notification()
}

// decodeEnvelope decodes the outer level of a body. It refuses JSON with invalid UTF-8:
// the decoder would replace the bytes, and a key with replaced bytes names another
// object.
func decodeEnvelope(body string) (envelope, error) {
	if !utf8.ValidString(body) {
		return envelope{}, fmt.Errorf("%w: not valid UTF-8", ErrMalformed)
	}
	var e envelope
	if err := json.Unmarshal([]byte(body), &e); err != nil {
		return envelope{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return e, nil
}

// notification reads the forms other than SNS.
func (e envelope) notification() (Notification, error) {
	switch {
	case len(e.Records) > 0:
		return fromS3(e.Records)
	case e.Records != nil:
		return ignoring(ReasonEmpty, "Records is an empty list"), nil
	case e.Event == "s3:TestEvent":
		return ignoring(ReasonTestEvent, "bucket "+e.Bucket), nil
	case e.DetailType != "" && e.Source != "":
		return fromEventBridge(e)
	}
	return Notification{}, fmt.Errorf("%w: neither S3, SNS nor EventBridge", ErrMalformed)
}

func ignoring(reason, detail string) Notification {
	return Notification{Ignored: []Ignored{{Reason: reason, Detail: detail}}}
}
