package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"strings"
	"time"
)

// ErrNotSealRecord is returned when bytes are not a seal record, or have an unknown
// format.
var ErrNotSealRecord = errors.New("not a seal record")

const (
	sealFormat    = 1
	maxSealRecord = 16 << 10 // bytes; a key of 1,024 bytes takes six times as many when escaped
	sectorSize    = 512      // bytes
	// MaxImageID is the largest image id accepted from outside. The sequence continues
	// from it and must not run out.
	MaxImageID = 1 << 53
)

var (
	hexSum  = regexp.MustCompile(`^[0-9a-f]{64}$`)
	plainID = regexp.MustCompile(`^[0-9A-Za-z._-]{1,64}$`)
)

// SealRecord describes a sealed device, in a file beside the tree. It is enough to
// rebuild the journal's rows when the database is lost. It shares no types with the
// journal: bytes that lie on devices must not change because a row does.
//
// It proves nothing by itself: whoever uses a snapshot can write one. It is believed only
// on a device that was never handed out, according to the pool's metadata. There the
// digest proves the tree.
type SealRecord struct {
	Format    int       `json:"format"`
	PoolUUID  string    `json:"pool_uuid"`
	PoolName  string    `json:"pool_name"`
	Image     int64     `json:"image_id"`
	CreatedAt time.Time `json:"created_at"` // of the image

	Bucket     string `json:"bucket"`
	Key        string `json:"key"`
	VersionID  string `json:"version_id"`
	ETag       string `json:"etag"`
	Sequencer  string `json:"sequencer"`
	ObjectSize int64  `json:"object_size"` // bytes as notified, 0 unknown

	ArchiveSHA256 string `json:"archive_sha256"` // hex
	ArchiveSize   int64  `json:"archive_size"`   // bytes

	Device      int64  `json:"device_id"` // on a snapshot: its image's
	DeviceBytes int64  `json:"device_bytes"`
	FSUUID      string `json:"fs_uuid"`

	Shape   string `json:"shape"`
	Policy  string `json:"policy"`
	Digest  string `json:"digest"`
	Entries int    `json:"entries"`
	Files   int    `json:"files"`
	Bytes   int64  `json:"bytes"`
	Changed int    `json:"changed"`
}

// NewSealRecord is the record of an image with the archive b and the tree t on the device
// d.
func NewSealRecord(p Pool, img Image, b Blob, d Device, t Tree) SealRecord {
	o := img.Object
	return SealRecord{
		Format: sealFormat, PoolUUID: p.UUID, PoolName: p.Name, Image: img.ID, CreatedAt: img.CreatedAt.UTC(),
		Bucket: o.Bucket, Key: o.Key, VersionID: o.VersionID, ETag: o.ETag, Sequencer: o.Sequencer, ObjectSize: o.Size,
		ArchiveSHA256: b.SHA256, ArchiveSize: b.Size,
		Device: d.ID, DeviceBytes: d.Bytes, FSUUID: d.FSUUID,
		Shape: t.Shape, Policy: t.Policy, Digest: t.Digest, Entries: t.Entries, Files: t.Files, Bytes: t.Bytes,
		Changed: t.Changed,
	}
}

// Object is the S3 object of the image.
func (r SealRecord) Object() Object {
	return Object{
		Bucket: r.Bucket, Key: r.Key, VersionID: r.VersionID, ETag: r.ETag, Sequencer: r.Sequencer,
		Size: r.ObjectSize,
	}
}

// Tree describes the content of the device.
func (r SealRecord) Tree() Tree {
	return Tree{
		Device: r.Device, Shape: r.Shape, Policy: r.Policy, Digest: r.Digest, Entries: r.Entries,
		Files: r.Files, Bytes: r.Bytes, Changed: r.Changed,
	}
}

// Encode returns the one form of the record that ParseSealRecord accepts. It returns
// ErrNotSealRecord if there is none, for example for a key that is not UTF-8.
func (r SealRecord) Encode() ([]byte, error) {
	b, err := r.marshal()
	if err != nil {
		return nil, err
	}
	_, err = ParseSealRecord(b)
	return b, err
}

func (r SealRecord) marshal() ([]byte, error) {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotSealRecord, err)
	}
	return append(b, '\n'), nil
}

// ParseSealRecord reads a record. It accepts only the exact bytes written by Encode:
// every field once, in the same order and case, and nothing unknown, missing or trailing.
func ParseSealRecord(b []byte) (SealRecord, error) {
	var r SealRecord
	if len(b) > maxSealRecord {
		return SealRecord{}, fmt.Errorf("%w: %d bytes, the limit is %d", ErrNotSealRecord, len(b), maxSealRecord)
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return SealRecord{}, fmt.Errorf("%w: %w", ErrNotSealRecord, err)
	}
	if r.Format != sealFormat {
		return SealRecord{}, fmt.Errorf("%w: format %d, known is %d", ErrNotSealRecord, r.Format, sealFormat)
	}
	if same, err := r.marshal(); err != nil || !bytes.Equal(same, b) {
		return SealRecord{}, errors.Join(fmt.Errorf("%w: not in its canonical form", ErrNotSealRecord), err)
	}
	return r, r.validate()
}

// validate refuses values that no sealed device has.
func (r SealRecord) validate() error {
	_, offset := r.CreatedAt.Zone()
	for what, wrong := range map[string]bool{
		"pool":    !plainID.MatchString(r.PoolUUID) || !plainID.MatchString(r.PoolName),
		"image":   r.Image < 1 || r.Image > MaxImageID,
		"time":    r.CreatedAt.Year() < 1970 || r.CreatedAt.Year() > 2261 || offset != 0, // Unix nanoseconds in 64 bits
		"object":  r.Bucket == "" || r.Key == "" || r.ObjectSize < 0,
		"archive": !hexSum.MatchString(r.ArchiveSHA256) || r.ArchiveSize < 0,
		"device": r.Device < 1 || r.Device > maxDeviceID || r.DeviceBytes < sectorSize ||
			r.DeviceBytes%sectorSize != 0 || !plainID.MatchString(r.FSUUID),
		"digest": !hexSum.MatchString(strings.TrimPrefix(r.Digest, "sha256:")) ||
			!strings.HasPrefix(r.Digest, "sha256:"),
		"tree": r.Shape == "" || r.Policy == "" || r.Entries < 0 || r.Files < 0 || r.Bytes < 0 || r.Changed < 0,
	} {
		if wrong {
			return fmt.Errorf("%w: its %s is not valid", ErrNotSealRecord, what)
		}
	}
	return nil
}

// Differences lists the fields with another value in the record found, a line each.
func (r SealRecord) Differences(found SealRecord) []string {
	var lines []string
	a, b := reflect.ValueOf(r), reflect.ValueOf(found)
	for i := range a.NumField() {
		if x, y := a.Field(i).Interface(), b.Field(i).Interface(); x != y {
			lines = append(lines, fmt.Sprintf("%s is %v, should be %v", a.Type().Field(i).Tag.Get("json"), y, x))
		}
	}
	return lines
}
