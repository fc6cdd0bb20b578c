package store

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
)

func someSeal(n int64) SealRecord {
	return NewSealRecord(Pool{UUID: "0b7cf2ea-3d4b-4f0a-9f0e-7b7d1f4a2c11", Name: "images"},
		Image{ID: n, Object: Object{
			Bucket: "b", Key: "images/ä <&>\u2028.tar", VersionID: strings.Repeat("v", int(n)),
			ETag: "e", Sequencer: "s", Size: 9,
		}, CreatedAt: time.Unix(1700000000, 123).UTC()},
		Blob{SHA256: strings.Repeat("ab", 32), Size: 10240},
		Device{ID: 10 * n, Bytes: 256 << 20, FSUUID: "5a1e7c3a-7a52-4a4e-9d3f-0c0f1d2e3b4a"},
		Tree{
			Device: 10 * n, Shape: "bundle", Policy: "strict", Digest: "sha256:" + strings.Repeat("0f", 32),
			Entries: 12, Files: 11, Bytes: 99, Changed: 1,
		})
}

// What was encoded is read again, with what the journal needs of it.
func TestSeal(t *testing.T) {
	s := someSeal(1)
	b := must[[]byte](t)(s.Encode())
	if again := must[SealRecord](t)(ParseSealRecord(b)); again != s {
		t.Errorf("%+v\nbecame %+v", s, again)
	}
	if o := s.Object(); o.Version() != "v" || o.Key != s.Key || o.Size != 9 {
		t.Errorf("object %+v", o)
	}
	if tr := s.Tree(); !reflect.DeepEqual(tr,
		Tree{
			Device: 10, Shape: "bundle", Policy: "strict", Digest: s.Digest, Entries: 12, Files: 11, Bytes: 99,
			Changed: 1,
		}) {
		t.Errorf("tree %+v", tr)
	}
	other := s
	other.Key, other.Entries = "images/b.tar", 13
	if lines := s.Differences(other); len(lines) != 2 || !strings.Contains(lines[0], "key is images/b.tar") ||
		!strings.Contains(lines[1], "entries is 13, should be 12") {
		t.Errorf("differences: %q", lines)
	}
	if lines := s.Differences(s); lines != nil {
		t.Errorf("it differs from itself: %q", lines)
	}
	s.Key = "images/\xff.tar"
	if _, err := s.Encode(); !errors.Is(err, ErrNotSealRecord) {
		t.Errorf("a key that JSON cannot hold: %v, want ErrNotSealRecord", err)
	}
}

// Every field counts: a seal with another value is another seal, and none can be left
// out.
func TestSealHasNoSpareField(t *testing.T) {
	s := someSeal(1)
	for i := range reflect.TypeFor[SealRecord]().NumField() {
		zero := s
		reflect.ValueOf(&zero).Elem().Field(i).SetZero()
		if lines := s.Differences(zero); len(lines) != 1 {
			t.Errorf("field %d: %q", i, lines)
		}
	}
}

// Only the canonical form of a valid seal is taken.
func TestSealIsStrict(t *testing.T) {
	good := string(must[[]byte](t)(someSeal(1).Encode()))
	replace := func(old, now string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("the seal has no %s", old)
		}
		return strings.Replace(good, old, now, 1)
	}
	for name, bad := range map[string]string{
		"empty":             "",
		"null":              "null\n",
		"list":              "[]\n",
		"behind":            good + "{}",
		"blank behind":      good + "\n",
		"compact":           strings.ReplaceAll(good, "\n", ""),
		"field twice":       replace(`"image_id": 1,`, `"image_id": 1, "image_id": 1,`),
		"other case":        replace(`"image_id"`, `"Image_ID"`),
		"unknown field":     replace(`"format": 1,`, `"format": 1, "more": 1,`),
		"missing field":     replace("  \"changed\": 1\n", ""),
		"newer format":      replace(`"format": 1`, `"format": 2`),
		"number as text":    replace(`"image_id": 1`, `"image_id": "1"`),
		"other spelling":    replace(`"image_id": 1`, `"image_id": 1.0`),
		"image 0":           replace(`"image_id": 1`, `"image_id": 0`),
		"image without end": replace(`"image_id": 1`, `"image_id": 9223372036854775807`),
		"device 0":          replace(`"device_id": 10`, `"device_id": 0`),
		"device too large":  replace(`"device_id": 10`, `"device_id": 16777216`),
		"no key":            replace(`"bucket": "b"`, `"bucket": ""`),
		"negative size":     replace(`"archive_size": 10240`, `"archive_size": -1`),
		"odd device size":   replace(`"device_bytes": 268435456`, `"device_bytes": 268435457`),
		"other digest":      replace(`"sha256:0f`, `"sha512:0f`),
		"short digest":      replace(`"sha256:0f`, `"sha256:0`),
		"no shape":          replace(`"shape": "bundle"`, `"shape": ""`),
		"path as UUID":      replace(`"fs_uuid": "5a`, `"fs_uuid": "../5a`),
		"too long":          replace(`"sequencer": "s"`, `"sequencer": "`+strings.Repeat("s", maxSealRecord)+`"`),
		"other time zone":   replace(`.000000123Z"`, `.000000123+01:00"`),
		"before the epoch":  replace(`"created_at": "2023`, `"created_at": "1023`),
	} {
		if s, err := ParseSealRecord([]byte(bad)); !errors.Is(err, ErrNotSealRecord) {
			t.Errorf("%s: %+v, %v, want ErrNotSealRecord", name, s, err)
		}
	}
}

// Whatever bytes are read: an error, or a seal that is encoded to these very bytes and
// makes rows that the database takes.
func FuzzSeal(f *testing.F) {
	for n := range int64(3) {
		b, err := someSeal(n + 1).Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte("{}\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := ParseSealRecord(b)
		if err != nil {
			if !errors.Is(err, ErrNotSealRecord) {
				t.Fatal(err)
			}
			return
		}
		again, err := s.Encode()
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%q became %q, %v", b, again, err)
		}
		if s.CreatedAt.UnixNano() < 0 {
			t.Fatalf("created at %s", s.CreatedAt)
		}
	})
}
