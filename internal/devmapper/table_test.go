package devmapper

import (
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"
)

func TestParseStatus(t *testing.T) {
	const block = 64 << 10
	tests := []struct {
		name, params string
		want         Status
		bad          bool
	}{
		{
			"new", "0 60/512 0/8192 - rw discard_passdown error_if_no_space - 1024",
			Status{Mode: ModeReadWrite, UsedMetadata: 60 * 4096, TotalMetadata: 512 * 4096, TotalData: 8192 * block},
			false,
		},
		{
			"held, txid", "7 60/512 3/8192 77 rw no_discard_passdown error_if_no_space - 1024",
			Status{
				Mode: ModeReadWrite, TransactionID: 7, UsedMetadata: 60 * 4096, TotalMetadata: 512 * 4096,
				UsedData: 3 * block, TotalData: 8192 * block, HeldRoot: true, heldRoot: 77,
			},
			false,
		},
		{
			"full", "0 1/2 9/9 - out_of_data_space discard_passdown queue_if_no_space - 1024",
			Status{
				Mode: ModeOutOfDataSpace, UsedMetadata: 4096, TotalMetadata: 8192, UsedData: 9 * block,
				TotalData: 9 * block,
			},
			false,
		},
		{
			"broken", "0 1/2 0/9 - ro discard_passdown error_if_no_space needs_check 1024",
			Status{Mode: ModeReadOnly, NeedsCheck: true, UsedMetadata: 4096, TotalMetadata: 8192, TotalData: 9 * block},
			false,
		},
		{
			"older kernel, no low-water mark", "0 1/2 0/9 - ro discard_passdown error_if_no_space -",
			Status{Mode: ModeReadOnly, UsedMetadata: 4096, TotalMetadata: 8192, TotalData: 9 * block},
			false,
		},
		{
			"newer kernel, more fields", "0 1/2 0/9 - rw discard_passdown error_if_no_space - 1024 what next",
			Status{Mode: ModeReadWrite, UsedMetadata: 4096, TotalMetadata: 8192, TotalData: 9 * block},
			false,
		},
		{"failed", "Fail", Status{Mode: ModeFailed, NeedsCheck: true}, false},
		{"error", "Error", Status{Mode: ModeFailed, NeedsCheck: true}, false},
		{"empty", "", Status{}, true},
		{"short", "0 1/2 0/9 - rw", Status{}, true},
		{"no ratio", "0 1 0/9 - rw a b - 1", Status{}, true},
		{"negative", "0 1/2 -1/9 - rw a b - 1", Status{}, true},
		{"overflow", "0 1/2 0/9223372036854775807 - rw a b - 1", Status{}, true},
		{"unknown mode", "0 1/2 0/9 - maybe a b - 1", Status{}, true},
		{"unknown check", "0 1/2 0/9 - rw a b perhaps 1", Status{}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseStatus(tt.params, block)
			if tt.bad != errors.Is(err, errMalformed) || got != tt.want {
				t.Errorf("%+v, %v; want %+v", got, err, tt.want)
			}
		})
	}
}

func FuzzParseStatus(f *testing.F) {
	f.Add("7 60/512 3/8192 77 rw no_discard_passdown error_if_no_space - 1024", int64(65536))
	f.Add("Fail", int64(1<<30))
	f.Fuzz(func(t *testing.T, params string, block int64) {
		if block < minBlockSize || block > maxBlockSize {
			return
		}
		s, err := parseStatus(params, block)
		if err != nil {
			if s != (Status{}) {
				t.Errorf("%q: %+v with %v", params, s, err)
			}
			return
		}
		if s.UsedData < 0 || s.TotalData < 0 || s.UsedMetadata < 0 || s.TotalMetadata < 0 || s.Mode == "" ||
			s.UsedData%block != 0 {
			t.Errorf("%q: %+v", params, s)
		}
	})
}

func TestWritable(t *testing.T) {
	for s, ok := range map[Status]bool{
		{Mode: ModeReadWrite}: true, {Mode: ModeOutOfDataSpace}: true,
		{Mode: ModeReadOnly}: false, {Mode: ModeFailed}: false, {Mode: ModeReadWrite, NeedsCheck: true}: false,
		{}: false,
	} {
		if err := s.writable(); (err == nil) != ok || !ok && !errors.Is(err, ErrReadOnly) {
			t.Errorf("%+v: %v", s, err)
		}
	}
}

// What is packed for the kernel has its layout: sector_start u64, length u64, status i32,
// next u32, target_type[16], parameters.
func TestPackTable(t *testing.T) {
	want := table{sectors: 4096, target: targetThin, params: "253:0 5"}
	b := want.pack()
	if len(b)%8 != 0 || int(binary.NativeEndian.Uint32(b[20:])) != len(b) {
		t.Errorf("%d bytes, next %d", len(b), binary.NativeEndian.Uint32(b[20:]))
	}
	if binary.NativeEndian.Uint64(b) != 0 || b[unix.SizeofDmTargetSpec+len(want.params)] != 0 {
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

func TestPoolTable(t *testing.T) {
	m, d := blockDevice{dev: unix.Mkdev(7, 300)}, blockDevice{dev: unix.Mkdev(8, 16), size: 10<<20 + 777}
	tbl := newPoolTable(m, d, 64<<10)
	if want := (table{
		sectors: 160 * 128, target: targetPool,
		params: "7:300 8:16 128 8 1 error_if_no_space",
	}); tbl != want {
		t.Errorf("%+v, want %+v", tbl, want)
	}
	got, err := parsePoolTable(tbl)
	if err != nil || got.sameAs(m, d, 64<<10) != nil {
		t.Errorf("%+v, %v, %v", got, err, got.sameAs(m, d, 64<<10))
	}
	bad := []string{
		"", "7:0 7:1 128 8", "7:0 7:1 x 8 0", "7:0 7:1 128 8 2 error_if_no_space", "7:0 7:1 128 8 -1",
		"7:0 7:1 128 8 0 more",
	}
	for _, params := range bad {
		if _, err := parsePoolTable(table{target: targetPool, params: params}); !errors.Is(err, errMalformed) {
			t.Errorf("%q: %v", params, err)
		}
	}
	if _, err := parsePoolTable(table{target: "linear", params: tbl.params}); !errors.Is(err, errMalformed) {
		t.Errorf("linear: %v", err)
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

func TestNames(t *testing.T) {
	c := Config{Name: "images", UUID: "u-1"}
	for text, want := range map[string]ID{"CIM-u-1-0": 0, "CIM-u-1-16777215": maxID} {
		if id, ok := c.thinID(text); !ok || id != want || c.thinUUID(id) != text {
			t.Errorf("%s: %d %t", text, id, ok)
		}
	}
	for _, text := range []string{
		"CIM-u-1-pool", "CIM-u-1-16777216", "CIM-u-1--1", "CIM-u-1-01", "CIM-u-1-+1",
		"CIM-u-11-1", "CIM-u-1", "LVM-u-1-1", "",
	} {
		if id, ok := c.thinID(text); ok {
			t.Errorf("%s taken for device %d", text, id)
		}
	}
	for name, ours := range map[string]bool{
		"cim-images-pool": true, "cim-images-image-5": true, "cim-images-snapshot-16777215": true,
		"cim-images-image-": false, "cim-images-image-05": false, "cim-images-2-image-5": false,
		"cim-images-other-5": false, "images-image-5": false,
	} {
		if c.ownsName(name) != ours {
			t.Errorf("ownsName(%q) is %t", name, !ours)
		}
	}
}

func TestConfigCheck(t *testing.T) {
	good := Config{
		Name: "im.a-g_1", UUID: "0b5e1c1a-8d5e-4f4e-9a55-0d2f3c5a7b11", Data: "/d", Metadata: "/m",
		BlockSize: 128 << 10,
	}
	if err := good.check(); err != nil {
		t.Error(err)
	}
	for name, spoil := range map[string]func(*Config){
		"no name": func(c *Config) { c.Name = "" }, "slash": func(c *Config) { c.Name = "a/b" },
		"hidden": func(c *Config) { c.Name = ".a" },
		"space":  func(c *Config) { c.Name = "a b" }, "long": func(c *Config) { c.Name = strings.Repeat("a", 65) },
		"no uuid": func(c *Config) { c.UUID = "" }, "nil uuid": func(c *Config) { c.UUID = uuid.Nil.String() },
		"newline":    func(c *Config) { c.UUID += "\n" },
		"upper case": func(c *Config) { c.UUID = strings.ToUpper(c.UUID) },
		"no data":    func(c *Config) { c.Data = "" }, "same": func(c *Config) { c.Data = "/m" },
		"small": func(c *Config) { c.BlockSize = 4096 }, "odd": func(c *Config) { c.BlockSize = 100 << 10 },
		"large": func(c *Config) { c.BlockSize = 2 << 30 },
	} {
		c := good
		spoil(&c)
		if c.check() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
