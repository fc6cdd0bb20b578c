package ext4

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imagemanager.internal/internal/devmapper/tool"
)

func TestParseVersion(t *testing.T) {
	for out, want := range map[string][3]int{
		"mke2fs 1.47.0 (5-Feb-2023)\n\tUsing EXT2FS Library version 1.47.0": {1, 47, 0},
		"mke2fs 1.46.5 (30-Dec-2021)":                                       {1, 46, 5},
		"mke2fs 1.43-WIP (18-May-2015)":                                     {1, 43, 0},
	} {
		if got, ok := parseVersion(out); !ok || got != want {
			t.Errorf("%q: %v %t", out, got, ok)
		}
	}
	for _, out := range []string{"", "mke2fs", "busybox 1.47.0", "mke2fs x.y", "mke2fs 99999999999999999999.1"} {
		if got, ok := parseVersion(out); ok {
			t.Errorf("%q: %v", out, got)
		}
	}
}

func TestMkfsOptions(t *testing.T) {
	for _, tt := range []struct {
		version   [3]int
		prezeroed bool
		noItable  bool
	}{
		{[3]int{1, 46, 9}, false, true},
		{[3]int{1, 47, 0}, true, false},
		{[3]int{1, 48, 0}, true, false},
		{[3]int{2, 0, 0}, true, false},
	} {
		all := strings.Join(mkfsOptions(tt.version, "u", deviceSize), " ")
		if strings.Contains(all, "assume_storage_prezeroed=1") != tt.prezeroed ||
			strings.Contains(all, "lazy_itable_init=1") != tt.noItable ||
			!strings.Contains(all, "nodiscard") || !strings.Contains(all, "hash_seed=u") {
			t.Errorf("%v: %s", tt.version, all)
		}
	}
}

// mke2fs accepts both sets of options: on a file of zeros, like a thin device.
func TestMkfsOptionsAreAccepted(t *testing.T) {
	path, err := mke2fs.Find()
	check(t, err)
	version, err := askVersion(t.Context(), path)
	check(t, err)
	for _, v := range [][3]int{{1, 46, 0}, version} {
		image := newFile(t, deviceSize)
		_, err := run(t.Context(), nil, path,
			append(mkfsOptions(v, "5d8a1ad4-4a24-4b1e-8bd4-4bb0f3a2b0c6", deviceSize), image)...)
		if err != nil {
			t.Errorf("%v: %v", v, err)
		}
		if n := allocated(t, image); n > 3*mib {
			t.Errorf("%v: %d bytes written", v, n)
		}
	}
}

// mkfsHosts are hosts on which mke2fs is told otherwise: by configuration files, and by
// its environment.
var mkfsHosts = map[string][2]string{
	"upstream": {"MKE2FS_CONFIG", `[defaults]
	base_features = sparse_super,large_file,filetype,resize_inode,dir_index,ext_attr
	default_mntopts = acl,user_xattr
	enable_periodic_fsck = 0
	blocksize = 4096
	inode_size = 256
	inode_ratio = 16384
[fs_types]
	ext4 = {
		features = has_journal,extent,huge_file,flex_bg,metadata_csum,metadata_csum_seed,` +
		`64bit,dir_nlink,extra_isize,orphan_file
	}
`},
	"odd": {"MKE2FS_CONFIG", `[defaults]
	base_features = sparse_super,large_file,filetype,dir_index,ext_attr
	inode_size = 128
	reserved_ratio = 5.0
	enable_periodic_fsck = 1
	errors = panic
	flex_bg_size = 64
	hash_alg = tea
	packed_meta_blocks = 1
[fs_types]
	ext4 = {
		features = extent,huge_file,flex_bg,64bit,dir_nlink,quota,project,casefold,encrypt,verity,large_dir
		default_mntopts = data=journal
	}
`},
	"meta_bg":    {"MKE2FS_FIRST_META_BG", "0"},
	"sector":     {"MKE2FS_DEVICE_SECTSIZE", "8192"},
	"physical":   {"MKE2FS_DEVICE_PHYS_SECTSIZE", "65536"},
	"undo":       {"E2FSPROGS_UNDO_DIR", "/nowhere"},
	"other time": {"E2FSPROGS_FAKE_TIME", "1"},
}

// A device of a size gets the same file system on every host.
func TestFilesystemIsTheSameOnEveryHost(t *testing.T) {
	t.Setenv("MKE2FS_CONFIG", "/dev/null")
	want := filesystemFacts(t)
	for name, host := range mkfsHosts {
		t.Run(name, func(t *testing.T) {
			variable, value := host[0], host[1]
			if variable == "MKE2FS_CONFIG" {
				conf := filepath.Join(t.TempDir(), "mke2fs.conf")
				check(t, os.WriteFile(conf, []byte(value), 0o600))
				value = conf
			}
			t.Setenv(variable, value)
			if got := filesystemFacts(t); got != want {
				t.Errorf("there:\n%s\nelsewhere:\n%s", got, want)
			}
		})
	}
}

// filesystemFacts makes a file system and returns what dumpe2fs says of it, but for
// times, and checksums over them.
func filesystemFacts(t *testing.T) string {
	t.Helper()
	path := newFile(t, 256*mib)
	check(t, Make(t.Context(), path, "11111111-2222-3333-4444-555555555555"))
	dumpe2fs, err := tool.Program{Name: "dumpe2fs", Package: "e2fsprogs"}.Find()
	check(t, err)
	out, err := tool.Run(t.Context(), dumpe2fs, path)
	check(t, err)
	var facts []string
	for line := range strings.Lines(out) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		switch name {
		case "Filesystem created", "Last write time", "Last checked":
			if strings.Contains(value, "1970") {
				t.Errorf("%s:%s: the environment's time", name, value)
			}
			continue
		}
		if !strings.Contains(strings.ToLower(line), "checksum") && !strings.Contains(line, "csum 0x") {
			facts = append(facts, strings.Join(strings.Fields(line), " "))
		}
	}
	return strings.Join(facts, "\n")
}

func TestJournalSize(t *testing.T) {
	for bytes, want := range map[int64]string{
		16 * mib: "size=4", 256 * mib: "size=16", 20 << 30: "size=128",
		100e9: "size=512", 1 << 40: "size=1024",
	} {
		if got := journalSize(bytes); got != want {
			t.Errorf("%d bytes: %s, want %s", bytes, got, want)
		}
	}
}
