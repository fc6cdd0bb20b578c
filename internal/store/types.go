package store

import "time"

// Stage names one of the three stages an image goes through, in this order. The empty
// stage follows the last.
type Stage string

// The stages.
const (
	StageDownload Stage = "download"
	StageUnpack   Stage = "unpack"
	StageActivate Stage = "activate"
)

// next returns the stage after s, "" after the last.
func (s Stage) next() Stage {
	switch s {
	case StageDownload:
		return StageUnpack
	case StageUnpack:
		return StageActivate
	}
	return ""
}

// State says where an image stands.
type State string

// The states of an image. All but Pending are terminal. Active is reopened when a result
// was lost; Removed only when an operator submits it again; the others by a new event, a
// refusal (Rejected, Violation) only once policy or limits differ.
const (
	StatePending   State = "pending"   // in the pipeline, or waiting for its next attempt
	StateActive    State = "active"    // every stage done, a snapshot is active
	StateRejected  State = "rejected"  // refused for what it is
	StateViolation State = "violation" // refused as an attack
	// Its key was overwritten before it was fetched; the newer is an image of its own.
	StateSuperseded State = "superseded"
	StateVanished   State = "vanished" // the object was deleted before it was fetched
	StateDead       State = "dead"     // given up after too many attempts; a new message about it is a new chance
	StateRemoved    State = "removed"  // by an operator; a new message about it changes nothing
)

// Refused tells whether the image ended without a result, or its results were removed:
// nothing of it is kept.
func (s State) Refused() bool { return s != "" && s != StatePending && s != StateActive }

// EventKind says what an event records.
type EventKind string

// The kinds of events.
const (
	EventQueued   EventKind = "queued"   // the object became an image of ours
	EventBegun    EventKind = "begun"    // an attempt at a stage starts
	EventStep     EventKind = "step"     // a device changed state
	EventDone     EventKind = "done"     // the stage's result is there
	EventFailed   EventKind = "failed"   // the attempt ended with a verdict
	EventUndone   EventKind = "undone"   // the attempt was rolled back without a verdict: shutdown, or a crash before
	EventReopened EventKind = "reopened" // the results from this stage on were lost and are made again

	EventRemoved     EventKind = "removed"     // an operator removed the image, or the one snapshot that the event names
	EventResubmitted EventKind = "resubmitted" // an operator asked for a removed image again
)

// Object identifies an S3 object: (Bucket, Key, Version) is its identity.
type Object struct {
	Bucket    string `json:"bucket"`
	Key       string `json:"key"`
	VersionID string `json:"version_id,omitempty"`
	ETag      string `json:"etag,omitempty"`
	Sequencer string `json:"sequencer,omitempty"`
	Size      int64  `json:"size"` // bytes as notified, 0 unknown
}

// noVersion is the version id that S3 gives to objects from before a bucket's versions.
const noVersion = "null"

// Version is the third part of the object's identity: the versionId where the bucket has
// versions, else the eTag.
func (o Object) Version() string {
	if o.VersionID != "" && o.VersionID != noVersion {
		return o.VersionID
	}
	return o.ETag
}

// Blob is a downloaded archive as it lies on disk.
type Blob struct {
	Path    string    `json:"path"`
	SHA256  string    `json:"sha256"` // hex
	Size    int64     `json:"size"`   // bytes
	Inode   uint64    `json:"inode"`
	ModTime time.Time `json:"mtime"`
}

// Tree is what an unpacked image holds, recorded when its device is sealed.
type Tree struct {
	Device  int64  `json:"device"` // thin device id
	Shape   string `json:"shape"`
	Policy  string `json:"policy"`
	Digest  string `json:"digest"` // of the manifest: "sha256:…"
	Entries int    `json:"entries"`
	Files   int    `json:"files"`
	Bytes   int64  `json:"bytes"`
	Changed int    `json:"changed"` // entries that the policy rewrote, stripped or skipped
}

// DeviceKind tells an image's own device from a snapshot of it.
type DeviceKind string

// The kinds of thin devices.
const (
	DeviceKindImage    DeviceKind = "image"
	DeviceKindSnapshot DeviceKind = "snapshot"
)

// DeviceState is the life of a thin device: before Sealed a crash rolls it back, from
// Sealed on forward.
type DeviceState string

// The states of a thin device, in order.
const (
	DeviceReserved  DeviceState = "reserved"  // id taken, the pool may or may not know it
	DeviceCreated   DeviceState = "created"   // the pool has it
	DeviceFormatted DeviceState = "formatted" // it holds an empty file system
	DeviceFilled    DeviceState = "filled"    // the tree is written, synced and unmounted
	DeviceSealed    DeviceState = "sealed"    // the tree was read back and agrees; its digest is recorded
	DeviceReady     DeviceState = "ready"     // image: inactive, an origin for snapshots. Snapshot: active
	DeviceDeleting  DeviceState = "deleting"  // being removed; never activated again
	DeviceGone      DeviceState = "gone"      // the pool no longer has it
)

// Verified reports whether a device in this state holds a tree that was read back and agreed.
func (s DeviceState) Verified() bool { return s == DeviceSealed || s == DeviceReady }

// Device is a thin device of the pool.
type Device struct {
	ID        int64       `json:"id"`
	Image     int64       `json:"image_id"`
	Kind      DeviceKind  `json:"kind"`
	State     DeviceState `json:"state"`
	Origin    int64       `json:"origin,omitempty"`
	Bytes     int64       `json:"bytes"`
	FSUUID    string      `json:"fs_uuid,omitempty"`
	UpdatedAt time.Time   `json:"updated_at"`
}

// Snapshot is an active copy-on-write snapshot of an image.
type Snapshot struct {
	Device    int64     `json:"device_id"`
	Image     int64     `json:"image_id"`
	Key       string    `json:"s3_key"`
	Path      string    `json:"path"`
	State     string    `json:"state"` // active, gone
	CreatedAt time.Time `json:"created_at"`
}

// Attempt is the fencing token of one attempt at a stage: only the image's newest may
// write.
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
	Verdict string    `json:"verdict,omitempty"`
	Reason  string    `json:"reason,omitempty"`
	Detail  Detail    `json:"detail"`
}

// Detail carries what an event changed; only the parts that its kind has are set.
type Detail struct {
	Object   *Object   `json:"object,omitempty"`
	Blob     *Blob     `json:"blob,omitempty"`
	Device   *Device   `json:"device,omitempty"`
	Tree     *Tree     `json:"tree,omitempty"`
	Snapshot *Snapshot `json:"snapshot,omitempty"`

	CutOff bool `json:"cut_off,omitempty"` // the process or the machine died during the attempt
	// of a failure: the end that it suspects, to be seen twice before it is believed
	Doubt   State        `json:"doubt,omitempty"`
	Rules   string       `json:"rules,omitempty"`   // of a refusal: policy and limits that it was given under
	Resumed bool         `json:"resumed,omitempty"` // of a reopening: nothing was lost, a waiting image is taken up now
	Fetched int64        `json:"fetched,omitempty"` // of a failed download: bytes newly on disk
	Kept    *KeptResults `json:"kept,omitempty"`

	Messages []string `json:"messages,omitempty"` // begun, failed: the ids of the messages that waited for it
}

// KeptResults is what an image has when an attempt fails for good. It decides whether the image
// stays active.
type KeptResults struct {
	Device    bool `json:"device"`    // its own, as recorded in its tree
	Snapshots int  `json:"snapshots"` // that were handed out
}
