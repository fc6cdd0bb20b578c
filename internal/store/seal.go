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

// ErrSeal says that bytes are not a seal record of a format that this program knows.
var ErrSeal = errors.New("not a seal record")

const (
	sealFormat = 1
	maxSeal    = 16 << 10 // bytes; a key of 1,024 bytes, escaped, takes six
	// MaxImage is the largest image id that is believed: the sequence that goes on from
	// it must not end.
	MaxImage = 1 << 53
)

// Seal is what a sealed device says of itself, in a file beside the tree: enough to make
// the journal's rows anew when the database is lost. It has field types of its own: bytes
// that lie on devices do not change because a row does.
//
// It proves nothing by itself: whoever uses a snapshot can write one. It is believed only
// of a device that was never handed out, which the pool's metadata tell; there the digest
// proves the tree.
type Seal struct {
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
	ArchiveSize   int64  `json:"archive_size"`

	Device      int64  `json:"device_id"` // a snapshot carries its image's
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

// SealOf is the seal of an image whose archive is there and whose tree is on the device.
func SealOf(p Pool, img Image, b Blob, d Device, t Tree) Seal {
	o := img.Object
	return Seal{
		Format: sealFormat, PoolUUID: p.UUID, PoolName: p.Name, Image: img.ID, CreatedAt: img.CreatedAt.UTC(),
		Bucket: o.Bucket, Key: o.Key, VersionID: o.VersionID, ETag: o.ETag, Sequencer: o.Sequencer, ObjectSize: o.Size,
		ArchiveSHA256: b.SHA256, ArchiveSize: b.Size,
		Device: d.ID, DeviceBytes: d.Bytes, FSUUID: d.FSUUID,
		Shape: t.Shape, Policy: t.Policy, Digest: t.Digest, Entries: t.Entries, Files: t.Files, Bytes: t.Bytes,
		Changed: t.Changed,
	}
}

// Object is the S3 object that the image is.
func (s Seal) Object() Object {
	return Object{
		Bucket: s.Bucket, Key: s.Key, VersionID: s.VersionID, ETag: s.ETag, Sequencer: s.Sequencer,
		Size: s.ObjectSize,
	}
}

// Tree is what the device holds.
func (s Seal) Tree() Tree {
	return Tree{
		Device: s.Device, Shape: s.Shape, Policy: s.Policy, Digest: s.Digest, Entries: s.Entries,
		Files: s.Files, Bytes: s.Bytes, Changed: s.Changed,
	}
}

// Encode is the one form of the seal that ParseSeal accepts. ErrSeal says that there is
// none, such as for a key that is not UTF-8.
func (s Seal) Encode() ([]byte, error) {
	b, err := s.text()
	if err != nil {
		return nil, err
	}
	_, err = ParseSeal(b)
	return b, err
}

func (s Seal) text() ([]byte, error) {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSeal, err)
	}
	return append(b, '\n'), nil
}

// ParseSeal reads a seal. It takes what Encode writes, byte for byte, and nothing else:
// no field twice, in another order or case, none unknown or missing, nothing behind.
func ParseSeal(b []byte) (Seal, error) {
	var s Seal
	if len(b) > maxSeal {
		return Seal{}, fmt.Errorf("%w: %d bytes, the limit is %d", ErrSeal, len(b), maxSeal)
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return Seal{}, fmt.Errorf("%w: %w", ErrSeal, err)
	}
	if s.Format != sealFormat {
		return Seal{}, fmt.Errorf("%w: format %d, known is %d", ErrSeal, s.Format, sealFormat)
	}
	if same, err := s.text(); err != nil || !bytes.Equal(same, b) {
		return Seal{}, errors.Join(fmt.Errorf("%w: not in its canonical form", ErrSeal), err)
	}
	return s, s.check()
}

var (
	hexSum     = regexp.MustCompile(`^[0-9a-f]{64}$`)
	plainID    = regexp.MustCompile(`^[0-9A-Za-z._-]{1,64}$`)
	maxDevice  = int64(1<<24 - 1) // the kernel's, see the table devices
	sectorSize = int64(512)
)

// check finds what no seal of ours says.
func (s Seal) check() error {
	_, offset := s.CreatedAt.Zone()
	for what, wrong := range map[string]bool{
		"pool":    !plainID.MatchString(s.PoolUUID) || !plainID.MatchString(s.PoolName),
		"image":   s.Image < 1 || s.Image > MaxImage,
		"time":    s.CreatedAt.Year() < 1970 || s.CreatedAt.Year() > 2261 || offset != 0, // Unix nanoseconds in 64 bits
		"object":  s.Bucket == "" || s.Key == "" || s.ObjectSize < 0,
		"archive": !hexSum.MatchString(s.ArchiveSHA256) || s.ArchiveSize < 0,
		"device": s.Device < 1 || s.Device > maxDevice || s.DeviceBytes < sectorSize ||
			s.DeviceBytes%sectorSize != 0 || !plainID.MatchString(s.FSUUID),
		"digest": !hexSum.MatchString(strings.TrimPrefix(s.Digest, "sha256:")) ||
			!strings.HasPrefix(s.Digest, "sha256:"),
		"tree": s.Shape == "" || s.Policy == "" || s.Entries < 0 || s.Files < 0 || s.Bytes < 0 || s.Changed < 0,
	} {
		if wrong {
			return fmt.Errorf("%w: no valid %s in it", ErrSeal, what)
		}
	}
	return nil
}

// Differs names what another seal says otherwise, one line a field.
func (s Seal) Differs(o Seal) []string {
	var lines []string
	a, b := reflect.ValueOf(s), reflect.ValueOf(o)
	for i := range a.NumField() {
		if x, y := a.Field(i).Interface(), b.Field(i).Interface(); x != y {
			lines = append(lines, fmt.Sprintf("%s is %v, should be %v", a.Type().Field(i).Tag.Get("json"), y, x))
		}
	}
	return lines
}
