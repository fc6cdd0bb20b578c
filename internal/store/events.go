package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"
)

// EventKind says what an event records.
type EventKind string

// The kinds of events.
const (
	EventQueued EventKind = "queued" // the object became an image
	EventBegun  EventKind = "begun"  // an attempt at a stage began
	EventStep   EventKind = "step"   // a device changed state
	EventDone   EventKind = "done"   // the attempt ended with the result of its stage
	EventFailed EventKind = "failed" // the attempt ended with a verdict
	// The attempt was rolled back without a verdict: after a shutdown, or after a crash.
	EventUndone EventKind = "undone"
	// The results from this stage on were lost and have to be made again.
	EventReopened EventKind = "reopened"
	// An operator removed the image, or only the snapshot named in the event.
	EventRemoved EventKind = "removed"
	// An operator asked for a removed image again.
	EventResubmitted EventKind = "resubmitted"
)

// Attempt is the fencing token of one attempt at a stage. Only the image's newest attempt
// may write.
type Attempt struct {
	Image int64
	Stage Stage
	N     int64
}

// Event is one line of the journal.
type Event struct {
	Seq     int64     `json:"seq"`
	Image   int64     `json:"image_id"`
	At      time.Time `json:"at"`
	Kind    EventKind `json:"kind"`
	Stage   Stage     `json:"stage,omitempty"`
	Attempt int64     `json:"attempt,omitempty"`
	Verdict string    `json:"verdict,omitempty"` // see Failure
	Reason  string    `json:"reason,omitempty"`
	Detail  Detail    `json:"detail"`
}

// Detail holds what an event changed. Each kind of event sets only its own parts.
type Detail struct {
	Object   *Object   `json:"object,omitempty"`
	TraceID  string    `json:"trace_id,omitempty"` // queued: see Image
	Blob     *Blob     `json:"blob,omitempty"`
	Device   *Device   `json:"device,omitempty"`
	Tree     *Tree     `json:"tree,omitempty"`
	Snapshot *Snapshot `json:"snapshot,omitempty"`

	CutOff  bool         `json:"cut_off,omitempty"` // undone: the process or the machine died during the attempt
	Doubt   State        `json:"doubt,omitempty"`   // failed: see Failure
	Rules   string       `json:"rules,omitempty"`   // failed: see Failure
	Fetched int64        `json:"fetched,omitempty"` // failed: see Failure
	Kept    *KeptResults `json:"kept,omitempty"`    // failed for good
	Resumed bool         `json:"resumed,omitempty"` // reopened: nothing was lost, a waiting image is taken up now

	Messages []string `json:"messages,omitempty"` // begun, failed: ids of the messages waiting for the image
}

// KeptResults are the devices of an image at the moment of a final failure. They decide
// whether the image stays active.
type KeptResults struct {
	Device    bool `json:"device"`    // its own, as recorded in its tree
	Snapshots int  `json:"snapshots"` // handed out
}

const (
	eventColumns = `seq, image_id, at, kind, stage, attempt, verdict, reason, detail`
	eventsOf     = `SELECT ` + eventColumns + ` FROM events WHERE image_id = ? ORDER BY seq`
	eventsAfter  = `SELECT ` + eventColumns + ` FROM events WHERE seq > ? ORDER BY seq LIMIT 1000`
	eventInsert  = `INSERT INTO events (image_id, at, kind, stage, attempt, verdict, reason, detail)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?)`
	messageTried = `SELECT EXISTS (SELECT 1 FROM events, json_each(events.detail, '$.messages') AS m
		WHERE events.image_id = +? AND m.value = +?)`
)

// History returns the events of an image in order.
func (s *Store) History(ctx context.Context, image int64) ([]Event, error) {
	return queryAll(ctx, s.readDB, "events", scanEvent, eventsOf, image)
}

// Since returns the events of all images after seq, at most 1,000 of them.
func (s *Store) Since(ctx context.Context, seq int64) ([]Event, error) {
	return queryAll(ctx, s.readDB, "events", scanEvent, eventsAfter, seq)
}

// Tried reports whether an attempt at the image began or failed while the message waited
// for the image.
func (s *Store) Tried(ctx context.Context, image int64, message string) (bool, error) {
	tried, err := queryBool(ctx, s.readDB, messageTried, image, message)
	if err != nil {
		return false, fmt.Errorf("look for message %s of image %d: %w", message, image, err)
	}
	return tried, nil
}

func scanEvent(row scanner) (Event, error) {
	var e Event
	var at int64
	var detail string
	err := row.Scan(&e.Seq, &e.Image, &at, &e.Kind, &e.Stage, &e.Attempt, &e.Verdict, &e.Reason, &detail)
	if err != nil {
		return e, fmt.Errorf("read event: %w", err)
	}
	e.At = time.Unix(0, at).UTC()
	if err := json.Unmarshal([]byte(detail), &e.Detail); err != nil {
		return e, fmt.Errorf("detail of event %d: %w", e.Seq, err)
	}
	return e, nil
}

func insertEvent(ctx context.Context, tx transaction, e Event) error {
	detail, err := json.Marshal(e.Detail)
	if err != nil {
		return fmt.Errorf("encode event: %w", err)
	}
	_, err = tx.ExecContext(ctx, eventInsert, e.Image, e.At.UnixNano(), string(e.Kind), string(e.Stage), e.Attempt,
		e.Verdict, e.Reason, string(detail))
	if err != nil {
		return fmt.Errorf("insert event: %w", err)
	}
	return nil
}
