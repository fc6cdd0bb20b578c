package images

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
)

func numbered(format string, n int) []string {
	var list []string
	for i := range n {
		list = append(list, fmt.Sprintf(format, i))
	}
	return list
}

// oneEdited is a file whose header is changed.
func oneEdited(change func([]byte)) []byte {
	return with(Entry{Name: "etc/x", Body: "x", Edit: change})
}

func framingCases() []Case {
	whole := with()
	badSum := slices.Clone(whole)
	badSum[4*blockSize]++ // the name of the fifth header
	return []Case{
		refused("wrong checksum", "parse_error", badSum).says("parse_error at byte 2048: wrong header checksum"),
		refused("truncated data", "parse_error", whole[:9*blockSize+100]).
			says("(number 8, header at byte 4096): parse_error: truncated: 1200 bytes of data declared, 100 there"),
		refused("truncated header", "parse_error", whole[:3*blockSize+100]).
			says("parse_error at byte 1536: truncated header: 100 bytes there, of 512"),
		refused("no end marker", "no_eof_marker", Blocks(Root()...)).says("no_eof_marker at byte 6144: "),
		refused("half an end marker", "no_eof_marker", append(Blocks(Root()...), make([]byte, blockSize)...)),
		refused("entries behind one block of zeros", "no_eof_marker",
			slices.Concat(Blocks(Root()...), make([]byte, blockSize), with(Entry{Name: "late", Body: "x"}))),
		refused("second archive", "trailing_garbage", slices.Concat(whole, with(Entry{Name: "late", Body: "x"}))),
		refused("garbage at the end", "trailing_garbage", append(slices.Clone(whole), 'x')).
			says("trailing_garbage at byte 7168: data after the zeros that begin at byte 6144"),
		refused("no entries", "empty_archive", make([]byte, 10240)),
		refused("empty file", "empty_archive", nil),
		refused("negative size", "parse_error", oneEdited(func(b []byte) { octal(b[124:136], -1) })),
		refused("size in base-256 beyond 63 bits", "parse_error",
			oneEdited(func(b []byte) { copy(b[124:136], "\xbf\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff") })),
		refused("size of 8 EiB - 1", "parse_error",
			oneEdited(func(b []byte) { copy(b[124:136], "\x80\x00\x00\x00\x7f\xff\xff\xff\xff\xff\xff\xff") })),
		refused("size that is not a number", "parse_error",
			oneEdited(func(b []byte) { copy(b[124:136], "00000000009\x00") })),
		refused("size in hex", "parse_error",
			oneEdited(func(b []byte) { copy(b[124:136], "0x1\x00\x00\x00\x00\x00\x00\x00\x00\x00") })),
		refused("mode that is not a number", "parse_error", oneEdited(func(b []byte) { copy(b[100:108], "rw-r--r-") })),
		attack("symlink with data", "ambiguous_header", with(Entry{Name: "etc/l", Link: "hello", Body: "data"})),
		attack("device with data", "ambiguous_header", with(Entry{Name: "etc/null", Type: '3', Body: "data"})),
		attack("unknown dialect", "ambiguous_header", oneEdited(func(b []byte) { copy(b[257:], "ustar!!!") })),
		attack("GNU header with a prefix", "ambiguous_header",
			oneEdited(func(b []byte) { copy(b[257:], "ustar  \x00"); copy(b[345:], "usr/evil") })),
		attack("GNU header with times", "ambiguous_header",
			oneEdited(func(b []byte) { copy(b[257:], "ustar  \x00"); octal(b[345:357], moment) })),
		attack("v7 header with a prefix", "ambiguous_header",
			oneEdited(func(b []byte) { copy(b[257:], "none\x00\x00\x00\x00"); copy(b[345:], "usr") })),
		refused("v7 header with text for a device", "parse_error",
			oneEdited(func(b []byte) { clear(b[257:]); copy(b[337:], "x") })),
		good("base-256 size", "flat",
			oneEdited(func(b []byte) { copy(b[124:136], "\x80\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01") })),
		good("blank padded numbers", "flat",
			oneEdited(func(b []byte) { copy(b[100:108], "   644 \x00"); copy(b[124:136], "          1 ") })),
	}
}

func paxCases() []Case {
	x := func(records ...string) Entry { return Entry{Name: "x", Type: 'x', Body: Records(records...)} }
	file := Entry{Name: "etc/x", Body: "x"}
	hidden := string(Blocks(Entry{Name: "etc/hidden", Body: "x"}))
	return []Case{
		good("path", "flat", with(pax("path=usr/elsewhere"))),
		good("link path", "flat", with(Entry{Name: "etc/l", Link: "x", PAX: []string{"linkpath=../etc/hello"}})),
		good("size over zero", "flat",
			with(Entry{
				Name: "etc/x", Body: "xyz", PAX: []string{"size=3"},
				Edit: func(b []byte) { octal(b[124:136], 0) },
			})),
		good("the same size", "flat", with(Entry{Name: "etc/x", Body: "xyz", PAX: []string{"size=3"}})),
		good("unknown keys", "flat", with(pax("VENDOR.key=value", "comment=x", "uname=root", "atime=1", "ctime=2.5"))),
		good("empty extended header", "flat", with(Entry{Name: "x", Type: 'x'}, file)),
		attack("two extended headers", "ambiguous_header", with(x("path=etc/a"), x("path=etc/b"), file)),
		attack("extended header and long name", "ambiguous_header", with(x("path=etc/a"), Long('L', "etc/b"), file)),
		attack("long name and extended header", "ambiguous_header", with(Long('L', "etc/b"), x("path=etc/a"), file)),
		attack("two long names", "ambiguous_header", with(Long('L', "etc/a"), Long('L', "etc/b"), file)),
		attack("two long links", "ambiguous_header",
			with(Long('K', "a"), Long('K', "b"), Entry{Name: "etc/l", Link: "x"})),
		attack("extended header at the end", "ambiguous_header", with(x("path=etc/a"))),
		attack("long name at the end", "ambiguous_header", with(Long('L', "etc/a"))),
		refused("extended header, then nothing", "parse_error", Blocks(append(Root(), x("path=etc/a"))...)),
		refused("long name, then nothing", "parse_error", Blocks(append(Root(), Long('L', "etc/a"))...)),
		attack("global header in between", "ambiguous_header",
			with(x("path=etc/a"), Entry{Name: "g", Type: 'g', Body: Records("comment=x")}, file)),
		attack("smaller size", "ambiguous_header", with(Entry{Name: "etc/x", Body: hidden, PAX: []string{"size=1"}})).
			says("1024 bytes by the header, 1 by the extended header"),
		attack("larger size", "ambiguous_header",
			with(Entry{Name: "etc/x", Body: "x", PAX: []string{"size=1024"}}, Entry{Name: "etc/y", Body: "y"})),
		attack("size on a directory", "ambiguous_header",
			with(Entry{Name: "srv/", PAX: []string{"size=1024"}}, Entry{Name: "etc/y", Body: "y"})),
		attack("a record twice", "ambiguous_header", with(pax("path=etc/a", "path=etc/b"))),
		attack("an empty path", "ambiguous_header", with(pax("path="))),
		attack("an empty link path", "ambiguous_header",
			with(Entry{Name: "etc/l", Link: "hello", PAX: []string{"linkpath="}})),
		attack("an empty size", "ambiguous_header", with(pax("size="))),
		attack("an empty owner", "ambiguous_header", with(pax("uid="))),
		attack("an empty group", "ambiguous_header", with(pax("gid="))),
		good("empty times and names of owners", "flat", with(pax("mtime=", "atime=", "ctime=", "uname=", "gname="))),
		attack("an empty long name", "ambiguous_header",
			with(Entry{Name: "././@LongLink", Type: 'L', Body: "\x00"}, file)),
		good("global time and comment", "flat",
			before(Entry{Name: "g", Type: 'g', Body: Records("comment=x", "mtime=1600000000", "uname=x", "atime=1")})),
		refused("global time that is not a number", "parse_error",
			before(Entry{Name: "g", Type: 'g', Body: Records("mtime=NaN")})),
		refused("global access time that is not a number", "parse_error",
			before(Entry{Name: "g", Type: 'g', Body: Records("mtime=1600000000", "atime=E")})),
		refused("global user name with a NUL", "parse_error",
			before(Entry{Name: "g", Type: 'g', Body: Records("uname=a\x00")})),
		attack("global path", "pax_global_path", before(Entry{Name: "g", Type: 'g', Body: Records("path=etc/all")})),
		attack("global size", "pax_global_path", before(Entry{Name: "g", Type: 'g', Body: Records("size=512")})),
		attack("global link path", "pax_global_path",
			before(Entry{Name: "g", Type: 'g', Body: Records("linkpath=/etc/shadow")})),
		attack("global owner", "pax_global_path", before(Entry{Name: "g", Type: 'g', Body: Records("uid=0")})),
		attack("global sparse map", "pax_global_path",
			before(Entry{Name: "g", Type: 'g', Body: Records("GNU.sparse.size=9")})),
	}
}

// brokenPAXCases are headers that cannot be read, and long ones.
func brokenPAXCases() []Case {
	file := Entry{Name: "etc/x", Body: "x"}
	long := strings.Repeat("n", 120)
	return []Case{
		refused("NUL in the path", "parse_error", with(pax("path=etc/a\x00b"))),
		refused("NUL in the link path", "parse_error",
			with(Entry{Name: "etc/l", Link: "x", PAX: []string{"linkpath=a\x00b"}})),
		attack("text after a NUL in a long name", "ambiguous_header",
			with(Entry{Name: "././@LongLink", Type: 'L', Body: "etc/a\x00/../../b\x00"}, file)),
		attack("text after a NUL and the size of a long name", "ambiguous_header",
			with(Entry{Name: "././@LongLink", Type: 'L', Body: "etc/a\x00/../../b\x00", Size: 6}, file)),
		attack("a long name longer than its size", "ambiguous_header",
			with(Entry{Name: "././@LongLink", Type: 'L', Body: "usr/" + long, Size: 15}, file)),
		attack("a long link longer than its size", "ambiguous_header",
			with(Entry{Name: "././@LongLink", Type: 'K', Body: long, Size: 15}, Entry{Name: "etc/l", Link: "x"})),
		good("a long name without a NUL", "flat",
			with(Entry{Name: "././@LongLink", Type: 'L', Body: "usr/" + long}, file)).leaves("usr/" + long),
		refused("record too long", "parse_error", with(Entry{Name: "x", Type: 'x', Body: "99 path=etc/a\n"}, file)),
		refused("record too short", "parse_error", with(Entry{Name: "x", Type: 'x', Body: "5 path=etc/a\n"}, file)),
		refused("record without equals", "parse_error", with(Entry{Name: "x", Type: 'x', Body: "10 pathab\n"}, file)),
		refused("record without newline", "parse_error",
			with(Entry{Name: "x", Type: 'x', Body: "14 path=etc/ab"}, file)),
		refused("record of negative length", "parse_error",
			with(Entry{Name: "x", Type: 'x', Body: "-1 path=etc/a\n"}, file)),
		refused("record with leading zero", "parse_error",
			with(Entry{Name: "x", Type: 'x', Body: "015 path=etc/a\n"}, file)),
		refused("negative PAX size", "parse_error", with(pax("size=-1"))),
		refused("PAX size overflow", "parse_error", with(pax("size=9223372036854775808"))),
		refused("time that is not a number", "parse_error", with(pax("mtime=NaN"))),
		refused("truncated extended header", "parse_error",
			Blocks(Entry{Name: "x", Type: 'x', Body: "x", Size: 40000})).
			says("parse_error at byte 0: truncated extended header: 40448 bytes declared, 512 there"),
		refused("extended header without its last block's end", "parse_error",
			Blocks(Entry{Name: "x", Type: 'x', Body: Records("path=etc/a")})[:blockSize+14]),
		refused("huge extended header", "pax_limit",
			with(Entry{Name: "x", Type: 'x', Body: Records("comment=" + strings.Repeat("x", 65<<10))}, file)).
			says("pax_limit at byte 6144: extended headers of 66575 bytes for one entry, over the limit of 64 KiB"),
		refused("huge long name", "pax_limit", with(Long('L', strings.Repeat("n/", 40<<10)), file)),
		refused("huge together", "pax_limit",
			with(Long('K', strings.Repeat("n/", 17<<10)), Long('L', strings.Repeat("n/", 17<<10)), file)),
		refused("huge global header", "pax_limit",
			before(Entry{Name: "g", Type: 'g', Body: Records("comment=" + strings.Repeat("x", 65<<10))})),
		refused("extended header of 8 GiB", "pax_limit", with(Entry{Name: "x", Type: 'x', Body: "x", Size: 8 << 30})),
		refused("long name over the path limit", "path_too_long",
			with(Long('L', strings.Repeat("n/", 3000)+"n"), file)),
		good("long name before many zeros", "flat", with(Long('L', "etc/tail"+strings.Repeat("\x00", 40<<10)),
			file)).leaves("etc/tail"),
		good("long names", "flat",
			with(Long('L', "etc/"+long), file, Long('K', long), Long('L', "usr/"+long), Entry{Name: "x", Link: "x"})),
	}
}

func formatCases() []Case {
	var list []Case
	pad := func(head string) []byte { return append([]byte(head), bytes.Repeat([]byte("x"), 40<<10)...) }
	for _, f := range []struct{ name, magic string }{
		{name: "gzip", magic: "\x1f\x8b\x08"},
		{name: "bzip2", magic: "BZh91AY&SY"},
		{name: "xz", magic: "\xfd7zXZ\x00"},
		{name: "zstd", magic: "\x28\xb5\x2f\xfd"},
		{name: "zstd", magic: "\x50\x2a\x4d\x18"},
		{name: "lz4", magic: "\x04\x22\x4d\x18"},
		{name: "lz4", magic: "\x02\x21\x4c\x18"},
		{name: "lzma", magic: "\x5d\x00\x00\x80"},
		{name: "zip", magic: "PK\x03\x04"},
		{name: "7z", magic: "7z\xbc\xaf\x27\x1c"},
		{name: "lzop", magic: "\x89LZO\x00\r\n\x1a\n"},
		{name: "compress", magic: "\x1f\x9d\x90"},
		{name: "lzip", magic: "LZIP\x01"},
	} {
		list = append(list, refused(fmt.Sprintf("%s %x", f.name, f.magic), "compressed:"+f.name, pad(f.magic)).
			says("decompress it before upload"))
	}
	for _, f := range []struct{ name, magic string }{
		{name: "squashfs", magic: "hsqs"},
		{name: "cpio", magic: "070701"},
		{name: "elf", magic: "\x7fELF"},
		{name: "qcow2", magic: "QFI\xfb"},
		{name: "ar", magic: "!<arch>\n"},
		{name: "rpm", magic: "\xed\xab\xee\xdb\x03\x00"},
		{name: "sif", magic: "#!/usr/bin/env run-singularity\n\x00SIF_MAGIC\x00"},
	} {
		list = append(list, refused(f.name, "format_"+f.name, pad(f.magic)).says(f.name))
	}
	erofs := make([]byte, 64<<10)
	copy(erofs[1024:], "\xe2\xe1\xf5\xe0")
	ext4 := make([]byte, 64<<10)
	copy(ext4[1080:], "\x53\xef")
	iso := make([]byte, 64<<10)
	copy(iso[32769:], "CD001")
	return append(list,
		refused("erofs", "format_erofs", erofs), refused("ext4", "format_ext4", ext4),
		refused("iso9660", "format_iso9660", iso),
		refused("text", "format_unknown", []byte(strings.Repeat("this is no tar\n", 100))),
		refused("a few bytes", "format_unknown", []byte("x")),
		good("name that begins like bzip2", "flat", before(Entry{Name: "BZh91AY", Body: "x"})),
	)
}

func shapeCases() []Case {
	return []Case{
		refused("no root file system", "layout", Tar(Entry{Name: "readme", Body: "x"})).says("etc, usr, var"),
		refused("var missing", "layout", Tar(Entry{Name: "etc/"}, Entry{Name: "usr/"})).says("missing: var"),
		refused("etc is a symlink", "layout",
			Tar(Entry{Name: "usr/"}, Entry{Name: "usr/etc/"}, Entry{Name: "var/"},
				Entry{Name: "etc", Link: "usr/etc"})).says(`: etc is a symbolic link to "usr/etc"`),
		refused("etc is a file", "layout",
			Tar(Entry{Name: "usr/"}, Entry{Name: "etc", Body: "x"})).says("missing: var; etc is a file"),
		refused("rootfs is empty", "layout", Tar(Entry{Name: "rootfs/"})),
		refused("rootfs is a symlink", "layout", Tar(Entry{Name: "real/"}, Entry{Name: "rootfs", Link: "real"})),
		refused("beside rootfs", "layout", Tar(Bundle(Entry{Name: "evil", Body: "x"})...)).says("evil"),
		refused("nested in a directory", "layout", Tar(below(Root(), "image/")...)).says("a plain root file system"),
		refused("rootfs through a symlink", "through_symlink",
			Tar(Entry{Name: "rootfs", Link: "real"}, Entry{Name: "rootfs/etc/"})),
		good("rootfs is empty, as a mount point in a plain root file system", "flat", with(Entry{Name: "rootfs/"})).
			leaves("rootfs usr/bin/tool"),
		good("rootfs without the layout, in a plain root file system", "flat",
			with(Entry{Name: "rootfs/"}, Entry{Name: "rootfs/etc/"}, Entry{Name: "rootfs/x", Body: "x"})),
		refused("rootfs without the layout, the top neither", "layout",
			Tar(Entry{Name: "etc/"}, Entry{Name: "usr/"}, Entry{Name: "rootfs/"}, Entry{Name: "rootfs/var/"})),
		refused("two root file systems", "layout", Tar(append(Root(), Bundle()...)...)).says("beside rootfs/"),
		good("merged usr", "flat", with(Entry{Name: "lib", Link: "usr/lib"}, Entry{Name: "sbin", Link: "usr/sbin"})),
		good("a root file system with manifest.json", "flat",
			with(Entry{Name: "manifest.json", Body: "[]"}, Entry{Name: "oci-layout", Body: "x"})),
		good("own lost+found", "flat", with(Entry{Name: "lost+found/", Mode: 0o700})),
		good("own image.json", "flat", with(Entry{Name: "image.json", Body: "{}"})),
	}
}

// below puts the entries below a directory.
func below(list []Entry, dir string) []Entry {
	for i := range list {
		list[i].Name = dir + list[i].Name
	}
	return list
}
