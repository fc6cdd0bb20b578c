package devmapper

import (
	"slices"
	"testing"
)

func TestParseMountinfo(t *testing.T) {
	const text = `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
40 35 253:7 / /srv/two\040words\011\134040 rw - ext4 /dev/dm-7 rw
41 35 253:8 / /odd\ \04 rw - ext4 /dev/dm-8 rw
short line
`
	want := []mountEntry{
		{"98:0", "/mnt2"},
		{"253:7", "/srv/two words\t\\040"},
		{"253:8", `/odd\`}, // not what the kernel writes; taken as it is
	}
	if got := parseMountinfo(text); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	for in, want := range map[string]string{`\0`: `\0`, `\999a`: `\999a`, `\012`: "\n", `a\\040`: `a\ `} {
		if got := decodeOctal(in); got != want {
			t.Errorf("%q is decoded to %q, want %q", in, got, want)
		}
	}
	mounts, err := readMounts("/proc/self")
	if err != nil || !slices.ContainsFunc(mounts, func(m mountEntry) bool { return m.point == "/" }) {
		t.Errorf("%d mounts without a root, %v", len(mounts), err)
	}
}
