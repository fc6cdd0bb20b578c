package store

import "time"

// Stage names one of the three stages of an image, in this order. The empty stage follows
// the last one.
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

// The states of an image. All but StatePending are terminal. They are reopened as
// follows:
//   - StateActive when a result was lost
//   - StateRemoved only when an operator submits the image again
//   - StateRejected and StateViolation by a new event, once policy or limits differ
//   - the others by a new event
const (
	StatePending   State = "pending"   // in the pipeline, or waiting for its next attempt
	StateActive    State = "active"    // every stage done, a snapshot is active
	StateRejected  State = "rejected"  // refused for its content
	StateViolation State = "violation" // refused as an attack
	// Its key was overwritten before it was fetched. The newer object is another image.
	StateSuperseded State = "superseded"
	StateVanished   State = "vanished" // the object was deleted before it was fetched
	StateDead       State = "dead"     // given up after too many attempts; a new message is a new chance
	StateRemoved    State = "removed"  // by an operator; a new message about it changes nothing
)

// Refused reports whether the image ended without a result, or its results were removed.
// Nothing of it is kept.
func (s State) Refused() bool { return s != "" && s != StatePending && s != StateActive }

// Object identifies an S3 object: (Bucket, Key, Version) is its identity.
type Object struct {
	Bucket    string `json:"bucket"`
	Key       string `json:"key"`
	VersionID string `json:"version_id,omitempty"`
	ETag      string `json:"etag,omitempty"`
	Sequencer string `json:"sequencer,omitempty"`
	Size      int64  `json:"size"` // bytes as notified, 0 unknown
}

// noVersion is S3's version id of an object older than the versioning of its bucket.
const noVersion = "null"

// Version is the third part of the object's identity: the versionId, or the eTag in a
// bucket without versions.
func (o Object) Version() string {
	if o.VersionID != "" && o.VersionID != noVersion {
		return o.VersionID
	}
	return o.ETag
}

// Blob is a downloaded archive on disk.
type Blob struct {
	Path    string    `json:"path"`
	SHA256  string    `json:"sha256"` // hex
	Size    int64     `json:"size"`   // bytes
	Inode   uint64    `json:"inode"`
	ModTime time.Time `json:"mtime"`
}

// Tree describes the content of an unpacked image, as recorded when its device is sealed.
type Tree struct {
	Device  int64  `json:"device"` // thin device id
	Shape   string `json:"shape"`
	Policy  string `json:"policy"`
	Digest  string `json:"digest"` // of the manifest: "sha256:…"
	Entries int    `json:"entries"`
	Files   int    `json:"files"`
	Bytes   int64  `json:"bytes"`
	Changed int    `json:"changed"` // entries rewritten, stripped or skipped by the policy

	Layers []Layer `json:"layers,omitempty"` // lowest first; none for a plain root file system, or after a rebuild
}

// Layer is a layer of an image, as its archive has it.
type Layer struct {
	Digest string `json:"digest"` // "sha256:…"
	Size   int64  `json:"size"`   // bytes
}
