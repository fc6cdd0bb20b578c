package queue

import (
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"
)

// ErrMalformed says that a message body is none of the known notifications, or a broken
// one. No later delivery will be better.
var ErrMalformed = errors.New("malformed notification")

// Reasons for which a record is left out of Notification.Objects. They are few, and fit
// for a metric's label.
const (
	ReasonTestEvent  = "test_event"  // S3 sends one when a bucket's notification is configured
	ReasonNotCreated = "not_created" // about an object, but not that it was created
	ReasonNotS3      = "not_s3"      // from another service
	ReasonEmpty      = "empty"       // a list of no records
	ReasonSNSControl = "sns_control" // SNS about a subscription, not a notification
)

// Object is one "object created" record.
type Object struct {
	Bucket    string
	Key       string // decoded; not validated, it may hold any bytes
	AltKey    string // what Key may be instead, "" if nothing; see fromEventBridge
	VersionID string // empty where the bucket has no versions, or the sender leaves them out
	ETag      string // without quotes; may be empty
	// hex; orders events of one key only; constant or absent with some senders, so never
	// a reason to drop an event
	Sequencer string
	Size      int64 // in bytes; 0 means that it was not sent
}

// Ignored is a record, or a whole notification, that asks for no work.
type Ignored struct {
	Reason string // one of the Reason constants
	Detail string // for people
}

// Notification is what one message says. Each of its records is judged alone.
type Notification struct {
	Objects []Object
	Ignored []Ignored
	Broken  []error // records of which nothing can come: ErrMalformed, with the reason
}

// envelope has the fields by which the forms are told apart.
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

// Parse reads a message body. It recognises, by itself, S3's own form, EventBridge's, and
// S3's test event, each as it is or in an SNS notification; fields it does not know are
// ignored. A body of which nothing but broken records, or nothing at all, can be read is
// ErrMalformed, and comes without a Notification.
func Parse(body string) (Notification, error) {
	e, err := open(body)
	if err != nil {
		return Notification{}, err
	}
	if e.Type == "" || e.Records != nil {
		return e.notification()
	}
	if e.Type != "Notification" {
		return ignored(ReasonSNSControl, e.Type), nil
	}
	if e.Message == nil {
		return Notification{}, fmt.Errorf("%w: an SNS notification without Message", ErrMalformed)
	}
	inner, err := open(*e.Message)
	if err != nil {
		return Notification{}, fmt.Errorf("in an SNS notification: %w", err)
	}
	return inner.notification()
}

// open decodes a body without looking into it. JSON with invalid UTF-8 is refused here:
// the decoder would replace the bytes, and a key with replaced bytes names another
// object.
func open(body string) (envelope, error) {
	if !utf8.ValidString(body) {
		return envelope{}, fmt.Errorf("%w: not valid UTF-8", ErrMalformed)
	}
	var e envelope
	if err := json.Unmarshal([]byte(body), &e); err != nil {
		return envelope{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return e, nil
}

// notification reads the forms that hold records themselves.
func (e envelope) notification() (Notification, error) {
	switch {
	case len(e.Records) > 0:
		return fromS3(e.Records)
	case e.Records != nil:
		return ignored(ReasonEmpty, "Records is an empty list"), nil
	case e.Event == "s3:TestEvent":
		return ignored(ReasonTestEvent, "bucket "+e.Bucket), nil
	case e.DetailType != "" && e.Source != "":
		return fromEventBridge(e)
	}
	return Notification{}, fmt.Errorf("%w: neither S3, SNS nor EventBridge", ErrMalformed)
}

func ignored(reason, detail string) Notification {
	return Notification{Ignored: []Ignored{{Reason: reason, Detail: detail}}}
}
