package devmapper

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"imagemanager.internal/internal/devmapper/tool"
)

func TestMetadataSize(t *testing.T) {
	const gib = 1 << 30
	tests := []struct {
		data, block int64
		thins       int
		want        int64
	}{
		{0, 64 << 10, 0, minMetadataSize},
		{gib, 0, 10, minMetadataSize},
		{100 * gib, 64 << 10, 10000, 100*gib/(64<<10)*48 + 10000*16<<10},
		{1 << 50, 64 << 10, 10000, maxMetadataSize},
	}
	for _, tt := range tests {
		if got := MetadataSize(tt.data, tt.block, tt.thins); got != tt.want || got%metadataBlock != 0 {
			t.Errorf("MetadataSize(%d, %d, %d) is %d, want %d", tt.data, tt.block, tt.thins, got, tt.want)
		}
	}
}

// The tool's own estimate is the least that we take, for a small host and for a large
// one.
func TestMetadataSizeAgainstTool(t *testing.T) {
	path, err := tool.Program{Name: "thin_metadata_size", Package: "thin-provisioning-tools"}.Find()
	if err != nil && os.Getenv("CIM_REQUIRE_DM") == "1" {
		t.Fatal(err)
	}
	if err != nil {
		t.Skip(err)
	}
	for _, tt := range []struct {
		data, block int64
		thins       int
	}{
		{2 << 30, 64 << 10, 1000},
		{100 << 30, 64 << 10, 10000},
		{1 << 40, 64 << 10, 10000},
		{1 << 40, 128 << 10, 10000},
	} {
		out, err := tool.Run(t.Context(), path, "-n", "-ub", "-b", strconv.FormatInt(tt.block, 10), "-s",
			strconv.FormatInt(tt.data, 10), "-m", strconv.Itoa(tt.thins))
		check(t, err)
		least, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(out), "b"), 10, 64)
		check(t, err)
		if got := MetadataSize(tt.data, tt.block, tt.thins); got < min(least, maxMetadataSize) {
			t.Errorf("%+v: %d, thin_metadata_size says %d", tt, got, least)
		}
	}
}

func TestCreateFiles(t *testing.T) {
	dir := t.TempDir()
	data, metadata := filepath.Join(dir, "data.img"), filepath.Join(dir, "metadata.img")
	for range 2 { // again changes nothing
		check(t, CreateFiles(data, metadata, 100*mib, minMetadataSize))
		for path, want := range map[string]int64{data: 100 * mib, metadata: minMetadataSize} {
			info, err := os.Stat(path)
			check(t, err)
			if info.Size() != want || info.Mode().Perm() != 0o600 || allocated(t, path) > mib != (path == metadata) {
				t.Errorf("%s: %d bytes, %v, %d allocated", path, info.Size(), info.Mode(), allocated(t, path))
			}
			if path == metadata && allocated(t, path) < want {
				t.Errorf("%s: %d bytes are not set aside", path, want-allocated(t, path))
			}
		}
		check(t, os.WriteFile(metadata+".keep", nil, 0o600))
	}
	check(t, os.Truncate(metadata, 0)) // a crash between the file and its size
	check(t, CreateFiles(data, metadata, 100*mib, minMetadataSize))
	check(t, os.Symlink(data, filepath.Join(dir, "link")))
	for name, err := range map[string]error{
		"other size": CreateFiles(data, metadata, 200*mib, minMetadataSize),
		"directory":  CreateFiles(data, dir, 100*mib, minMetadataSize),
		"link":       CreateFiles(filepath.Join(dir, "link"), metadata, 100*mib, minMetadataSize),
		"too small":  CreateFiles(filepath.Join(dir, "new"), metadata, 100*mib, 4096),
	} {
		if err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if err := CreateFiles(data, metadata, 200*mib, minMetadataSize); !errors.Is(err, fs.ErrExist) {
		t.Errorf("other size: %v, want ErrExist", err)
	}
}
