package dmctl

import (
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// What is packed for the kernel has its layout: sector_start u64, length u64, status i32,
// next u32, target_type[16], parameters.
func TestPackTable(t *testing.T) {
	want := Table{Sectors: 4096, Target: "thin", Params: "253:0 5"}
	b := want.pack()
	if len(b)%8 != 0 || int(binary.NativeEndian.Uint32(b[20:])) != len(b) {
		t.Errorf("%d bytes, next %d", len(b), binary.NativeEndian.Uint32(b[20:]))
	}
	if binary.NativeEndian.Uint64(b) != 0 || b[unix.SizeofDmTargetSpec+len(want.Params)] != 0 {
		t.Error("start is not 0, or the parameters have no end")
	}
	got, err := unpackTable(b)
	if err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := unpackTable(b[:30]); !errors.Is(err, errMalformed) {
		t.Errorf("short: %v", err)
	}
}

// nameList builds an answer to DM_LIST_DEVICES.
func nameList(names ...string) []byte {
	var b []byte
	for i, name := range names {
		entry := make([]byte, (12+len(name)+1+7)&^7)
		binary.NativeEndian.PutUint64(entry, uint64(i+1))
		if i < len(names)-1 {
			binary.NativeEndian.PutUint32(entry[8:], uint32(len(entry)))
		}
		copy(entry[12:], name)
		b = append(b, entry...)
	}
	return b
}

func TestUnpackNames(t *testing.T) {
	want := []string{"a", "cim-images-pool", strings.Repeat("x", 127)}
	got, err := unpackNames(nameList(want...))
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := unpackNames(make([]byte, 16)); err != nil || len(got) != 0 {
		t.Errorf("no devices: %q, %v", got, err)
	}
	for name, b := range map[string][]byte{
		"cut":      nameList(want...)[:20],
		"no end":   nameList("aaaaaaaaaa")[:16],
		"far next": append(binary.NativeEndian.AppendUint32(make([]byte, 8), 1<<30), "name\x00"...),
		"loop":     append(binary.NativeEndian.AppendUint32(make([]byte, 8), 1), "name\x00"...),
	} {
		if got, err := unpackNames(b); !errors.Is(err, errMalformed) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func FuzzUnpackNames(f *testing.F) {
	f.Add(nameList("a", "bb", "ccc"))
	f.Fuzz(func(t *testing.T, b []byte) {
		names, err := unpackNames(b)
		if err == nil && len(names)*13 > len(b) {
			t.Errorf("%d names in %d bytes", len(names), len(b))
		}
	})
}
