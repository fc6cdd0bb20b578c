package fstree

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"
	"testing"
)

// savedInventory is an inventory with everything a record can have.
func savedInventory() *Inventory {
	root := &Record{Name: "rootfs", Type: TypeDir, Mode: 0o755, Sec: -5}
	etc := &Record{Parent: root, Name: "etc", Type: TypeDir, Mode: 0o1777, UID: 1<<32 - 2, GID: 7, Nsec: 999_999_999}
	sum := sha256.Sum256([]byte("x"))
	a := &Record{
		Parent: etc, Name: "a", Type: TypeFile, Mode: 0o640, Size: 1 << 29, SHA256: &sum,
		Xattrs: []Xattr{{"user.x", []byte{0, 1}}, {"user.y", nil}},
	}
	a.First = a
	b := &Record{Parent: etc, Name: "b", Type: TypeFile, Mode: 0o640, Size: 1 << 29, SHA256: &sum, First: a}
	link := &Record{Parent: root, Name: "l\xc3\xa9", Type: TypeSymlink, Mode: 0o777, Target: "etc/a"}
	return &Inventory{Records: []*Record{root, etc, a, b, link}}
}

func TestSavedInventory(t *testing.T) {
	m := savedInventory()
	var out bytes.Buffer
	n, err := m.WriteTo(&out)
	if err != nil || n != int64(out.Len()) {
		t.Fatalf("%d bytes of %d, %v", n, out.Len(), err)
	}
	if sum := sha256.Sum256(out.Bytes()); "sha256:"+hex.EncodeToString(sum[:]) != m.Digest() {
		t.Error("the saved form's SHA-256 is not the digest")
	}
	again, err := ReadInventory(&out)
	if err != nil {
		t.Fatal(err)
	}
	if diff := m.Diff(again, 10); len(diff) > 0 || again.Digest() != m.Digest() {
		t.Errorf("read back differently: %q", diff)
	}
}

// Any damage is an error or another digest, never a crash and never unnoticed.
func TestDamagedInventory(t *testing.T) {
	m := savedInventory()
	var out bytes.Buffer
	if _, err := m.WriteTo(&out); err != nil {
		t.Fatal(err)
	}
	for i := range out.Len() {
		for _, damaged := range [][]byte{out.Bytes()[:i], flipped(out.Bytes(), i)} {
			got, err := ReadInventory(bytes.NewReader(damaged))
			if err == nil && got.Digest() == m.Digest() || err != nil && !errors.Is(err, ErrInventory) {
				t.Fatalf("damage at byte %d: %v", i, err)
			}
		}
	}
}

func flipped(b []byte, i int) []byte {
	b = slices.Clone(b)
	b[i] ^= 0x55
	return b
}

func FuzzReadInventory(f *testing.F) {
	var out bytes.Buffer
	if _, err := savedInventory().WriteTo(&out); err != nil {
		f.Fatal(err)
	}
	f.Add(out.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ReadInventory(bytes.NewReader(b))
		if err != nil {
			return
		}
		var again bytes.Buffer
		if _, err := m.WriteTo(&again); err != nil {
			t.Fatal(err)
		}
		if second, err := ReadInventory(&again); err != nil || second.Digest() != m.Digest() {
			t.Errorf("accepted, and not the same when saved again: %v", err)
		}
	})
}
