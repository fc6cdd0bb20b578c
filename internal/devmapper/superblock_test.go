package devmapper

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestHasSuperblock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m")
	if _, err := HasSuperblock(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	whole := superblockOf(1, 64<<10)
	magicGone := superblockOf(1, 64<<10)
	magicGone[offMagic] ^= 0xff
	withChecksum(magicGone, superblockSalt)
	sumGone := superblockOf(1, 64<<10)
	sumGone[0] ^= 0xff
	for name, tt := range map[string]struct {
		bytes []byte
		want  bool
	}{
		"empty": {nil, false}, "short": {whole[:4000], false}, "blank": {make([]byte, 8192), false},
		"text":       {[]byte(strings.Repeat("x", 5000)), false},
		"superblock": {whole, true}, "without magic": {magicGone, true}, "without checksum": {sumGone, true},
	} {
		check(t, os.WriteFile(path, tt.bytes, 0o600))
		got, err := HasSuperblock(path)
		if err != nil || got != tt.want {
			t.Errorf("%s: %t, %v", name, got, err)
		}
	}
}
