package images

import (
	"fmt"
	"strings"
)

func goodCases() []Case {
	long := strings.Repeat("d/", 60) + strings.Repeat("n", 200)
	return []Case{
		good("flat", "flat", with()),
		good("bundle", "bundle", Tar(Bundle()...)),
		good("bundle with root entries", "bundle",
			Tar(append([]Entry{{Name: "./"}, {Name: "rootfs/", Mode: 0o750, UID: 5}}, Bundle()...)...)),
		good("leading dot slash", "flat",
			Tar(Entry{Name: "./"}, Entry{Name: "./etc/"}, Entry{Name: "./usr/"}, Entry{Name: "./var/"},
				Entry{Name: "./etc/x", Body: "x"})),
		good("root entry as dot", "flat", before(Entry{Name: ".", Type: '5', Mode: 0o711})),
		good("implied directories", "flat",
			Tar(Entry{Name: "etc/a/b/c", Body: "x"}, Entry{Name: "usr/x", Body: "x"}, Entry{Name: "var/x", Body: "x"})),
		good("implied, then listed", "flat",
			with(Entry{Name: "srv/a/b", Body: "x"}, Entry{Name: "srv/a/", Mode: 0o700, UID: 7},
				Entry{Name: "srv/", GID: 8})),
		good("repeated directory", "flat", with(Entry{Name: "etc/", Mode: 0o700, UID: 3})),
		good("directory without rights", "flat",
			before(Entry{Name: "srv/", Mode: 0o1000}, Entry{Name: "srv/x", Body: "x", Mode: 0o000001})),
		good("doubled slashes and dots", "flat", with(Entry{Name: "etc//./x", Body: "x"})),
		good("backslash", "flat", with(Entry{Name: `etc/..\..\x`, Body: "x"})),
		good("beyond ASCII", "flat",
			with(Entry{Name: "etc/Főtanúsítvány.pem", Body: "x"}, Entry{Name: "etc/日本", Link: "Főtanúsítvány.pem"})),
		good("dots that are no component", "flat",
			with(Entry{Name: "etc/..x", Body: "x"}, Entry{Name: "etc/...", Body: "x"},
				Entry{Name: "etc/x..", Body: "x"})),
		good("empty and large files", "flat",
			with(Entry{Name: "var/empty"},
				Entry{Name: "var/large", Body: strings.Repeat("0123456789abcde\n", 200_000)})),
		good("long path", "flat", with(Long('L', long), Entry{Name: "x", Body: "x"})),
		good("name of 255 bytes", "flat",
			with(Entry{Name: "x", Body: "x", PAX: []string{"path=etc/" + strings.Repeat("n", 255)}})),
		good("ustar prefix", "flat",
			with(Entry{Name: "file", Body: "x", Edit: func(b []byte) { copy(b[345:], "usr/share") }})),
		good("v7", "flat", Tar(v7(Root()...)...)),
		good("gnu", "flat", Tar(gnu(Root()...)...)),
		good("more zeros at the end", "flat", append(with(), make([]byte, 20*blockSize+77)...)),
		good("owners and times", "flat",
			with(Entry{Name: "etc/x", Body: "x", UID: 1<<32 - 2, GID: 65534, MTime: -5},
				Entry{Name: "etc/y", Body: "y", PAX: []string{"mtime=1700000000.123456789", "uid=100000"}})),
		good("many names in a directory", "flat", with(many(3000)...)),
		good("global comment", "flat",
			before(Entry{Name: "pax_global_header", Type: 'g', Body: Records("comment=0123456789abcdef")})),
	}
}

func many(n int) []Entry {
	var list []Entry
	for i := range n {
		list = append(list, Entry{Name: fmt.Sprintf("usr/share/%05d", i), Body: strings.Repeat("x", i%3)})
	}
	return list
}

// v7 takes the magic away, as in the oldest format. It leaves the types, as GNU tar does.
func v7(list ...Entry) []Entry { return edit(list, func(b []byte) { clear(b[257:]) }) }

func gnu(list ...Entry) []Entry {
	return edit(list, func(b []byte) { copy(b[257:], "ustar  \x00") })
}

func edit(list []Entry, change func([]byte)) []Entry {
	for i := range list {
		list[i].Edit = change
	}
	return list
}

func pax(records ...string) Entry { return Entry{Name: "etc/x", Body: "x", PAX: records} }

func nameCases() []Case {
	return []Case{
		strictly("absolute", "absolute_name", 1, with(Entry{Name: "/etc/passwd", Body: "x"})).leaves("etc/passwd"),
		strictly("absolute, doubled", "absolute_name", 1, with(Entry{Name: "//etc/passwd", Body: "x"})),
		strictly("absolute in PAX", "absolute_name", 1, with(pax("path=/etc/passwd"))),
		strictly("absolute directory", "absolute_name", 1, with(Entry{Name: "/"})).says("IMAGE_POLICY=distro"),
		strictly("absolute by prefix", "absolute_name", 1,
			with(Entry{Name: "passwd", Body: "x", Edit: func(b []byte) { copy(b[345:], "/etc") }})),
		attack("climbing and absolute", "dotdot_name", with(Entry{Name: "/etc/../../x", Body: "x"})),
		attack("climbing, behind a mere refusal", "dotdot_name",
			with(Entry{Name: "etc/a\nb"}, Entry{Name: "../../etc/cron.d/x", Body: "x"})).says("1 more: 1 control_char"),
		attack("climbing, then truncated", "dotdot_name",
			Blocks(Entry{Name: "etc/a\nb"}, Entry{Name: "../x", Body: "x"})).says(`"../x"`),
		attack("climbing", "dotdot_name", with(Entry{Name: "../../etc/cron.d/x", Body: "x"})),
		attack("climbing within", "dotdot_name", with(Entry{Name: "etc/../usr/x", Body: "x"})),
		attack("climbing at the end", "dotdot_name", with(Entry{Name: "etc/..", Type: '5'})),
		attack("climbing in a long name", "dotdot_name",
			with(Long('L', "usr/"+strings.Repeat("../", 50)+"x"), Entry{Name: "x", Body: "x"})),
		attack("climbing by prefix", "dotdot_name",
			with(Entry{Name: "x", Body: "x", Edit: func(b []byte) { copy(b[345:], "..") }})),
		attack("climbing in PAX", "dotdot_name", with(pax("path=../x"))),
		refused("empty", "empty_name", with(Entry{Type: '0', Body: "x"})),
		refused("empty directory name", "empty_name", with(Entry{Type: '5'})),
		attack("root as file", "root_not_dir", before(Entry{Name: ".", Body: "x"})),
		attack("root as symlink", "root_not_dir", before(Entry{Name: ".", Link: "/tmp"})),
		refused("newline", "control_char", with(Entry{Name: "etc/a\nb", Body: "x"})),
		refused("escape sequence", "control_char", with(Entry{Name: "etc/\x1b[2J", Body: "x"})),
		refused("DEL", "control_char", with(Entry{Name: "etc/\x7f", Body: "x"})),
		refused("not UTF-8", "invalid_utf8", with(Entry{Name: "etc/\xff\xfe", Body: "x"})),
		refused("overlong UTF-8 slash", "invalid_utf8", with(Entry{Name: "etc/\xc0\xaf", Body: "x"})),
		refused("name of 256 bytes", "name_too_long", with(pax("path=etc/"+strings.Repeat("n", 256)))),
		refused("path of 4096 bytes", "path_too_long", with(pax("path="+strings.Repeat("n/", 2047)+"nn"))),
		refused("129 deep", "too_deep", with(pax("path="+strings.Repeat("d/", 128)+"x"))),
		refused("below a file", "parent_not_dir", with(Entry{Name: "etc/hello/x", Body: "x"})),
		refused("whiteout", "whiteout", with(Entry{Name: "etc/.wh.hello"})),
		refused("opaque marker", "whiteout", with(Entry{Name: "etc/.wh..wh..opq"})),
		refused("whiteout as directory", "whiteout", with(Entry{Name: "etc/.wh.x/y", Body: "x"})),
	}
}

func symlinkCases() []Case {
	chain := []Entry{}
	for i := range 50 {
		chain = append(chain, Entry{Name: fmt.Sprintf("srv/l%02d", i), Link: fmt.Sprintf("l%02d", i+1)})
	}
	maze := []Entry{}
	for i := range 30 {
		next := fmt.Sprintf("m%02d/", i+1)
		maze = append(maze, Entry{Name: fmt.Sprintf("srv/m%02d", i), Link: strings.Repeat(next+"../", 10) + next})
	}
	return []Case{
		good("relative", "flat", with(Entry{Name: "usr/x", Link: "../etc/hello"})),
		good("dangling", "flat", with(Entry{Name: "usr/x", Link: "nowhere/at/all"})),
		good("to the root", "flat", with(Entry{Name: "usr/x", Link: ".."}, Entry{Name: "x", Link: "."})),
		good("loop", "flat", with(Entry{Name: "a", Link: "b"}, Entry{Name: "b", Link: "a"},
			Entry{Name: "c", Link: "c/../../.."})),
		good("chain of 50", "flat", with(chain...)),
		good("branching chain", "flat", with(maze...)),
		good("behind a file, which leads nowhere", "flat", with(Entry{Name: "etc/l", Link: "hello/../.."})),
		good("long target", "flat", with(Long('K', strings.Repeat("d/", 2000)+"x"), Entry{Name: "etc/l", Link: "x"})),
		strictly("absolute", "symlink_absolute", 1, with(Entry{Name: "etc/mtab", Link: "/proc/mounts"})),
		strictly("absolute to the root", "symlink_absolute", 2,
			with(Entry{Name: "etc/r", Link: "/"}, Entry{Name: "r", Link: "///"})),
		strictly("absolute through a symlink", "symlink_absolute", 1, with(Entry{Name: "etc/t", Link: "/bin/tool"})),
		strictly("absolute in a bundle's place", "symlink_absolute", 1,
			with(Entry{Name: "etc/t", Link: "/rootfs/bin/"})),
	}
}

// escapingCases are symlinks that climb out of the tree, and malformed ones.
func escapingCases() []Case {
	return []Case{
		strictly("escaping", "symlink_escapes", 1, with(Entry{Name: "etc/l", Link: "../../../x"})),
		strictly("escaping by one", "symlink_escapes", 1, with(Entry{Name: "etc/l", Link: "../.."})),
		strictly("escaping at the top", "symlink_escapes", 1, with(Entry{Name: "l", Link: ".."})),
		strictly("escaping behind a missing name", "symlink_escapes", 1,
			with(Entry{Name: "etc/l", Link: "none/../../../x"})),
		strictly("escaping behind a file", "symlink_escapes", 1, with(Entry{Name: "etc/l", Link: "hello/../../../x"})),
		strictly("escaping behind a missing and a real name", "symlink_escapes", 1,
			with(Entry{Name: "l", Link: "none/bin/../../.."})),
		strictly("escaping through an absolute link", "symlink_absolute", 2,
			with(Entry{Name: "srv/a/b/c/abs", Link: "/etc"}, Entry{Name: "l", Link: "srv/a/b/c/abs/../.."})),
		strictly("escaping through three links", "symlink_escapes", 1,
			with(Entry{Name: "a/b/c/u2", Link: ".."}, Entry{Name: "a/b/u3", Link: ".."},
				Entry{Name: "u1", Link: "a/b/c"}, Entry{Name: "l", Link: "u1/u2/u3/../../x"})),
		strictly("escaping, doubled slashes", "symlink_escapes", 1, with(Entry{Name: "etc/l", Link: ".././/../x"})),
		strictly("escaping by a chain", "symlink_escapes", 1,
			with(Entry{Name: "a/b/c/up", Link: "../../.."}, Entry{Name: "l", Link: "a/b/c/up/../x"})),
		strictly("escaping by a chain, link first", "symlink_escapes", 1,
			before(Entry{Name: "l", Link: "a/b/up/../x"}, Entry{Name: "a/b/up", Link: "../.."})),
		strictly("escaping by a later directory link", "symlink_escapes", 1,
			with(Entry{Name: "x/y/l", Link: "../d/../../z"}, Entry{Name: "x/d", Link: ".."})),
		strictly("escaping by name of two steps", "symlink_escapes", 1,
			with(Entry{Name: "q", Link: "usr/bin/z"}, Entry{Name: "usr/bin/z", Link: "../../../.."})),
		strictly("absolute with climbing", "symlink_escapes", 1, with(Entry{Name: "x", Link: "/../etc"})),
		strictly("bundle: escaping to beside rootfs", "symlink_escapes", 1,
			Tar(Bundle(Entry{Name: "rootfs/etc/l", Link: "../../x"})...)).shaped("bundle"),
		refused("empty target", "symlink_empty", with(Entry{Name: "etc/l", Type: '2'})),
		refused("target of 4096 bytes", "symlink_too_long",
			with(Long('K', strings.Repeat("n", 4096)), Entry{Name: "etc/l", Link: "x"})),
		refused("target with newline", "control_char", with(Entry{Name: "etc/l", Link: "a\nb"})),
		refused("target not UTF-8", "invalid_utf8", with(Entry{Name: "etc/l", Link: "\xff"})),
		strictly("absolute with climbing inside", "symlink_absolute", 1, with(Entry{Name: "x", Link: "/usr/../etc"})),
		strictly("as in a chroot, with certificates", "symlink_escapes", 1,
			with(Entry{Name: "usr/lib/jvm/cacerts", Link: strings.Repeat("../", 10) + "etc/pki/java/cacerts"})).
			says("IMAGE_POLICY=distro"),
		strictly("in reach when another is shorter", "symlink_escapes", 2, with(reached()...)),
		{
			Name: "too long as a relative one", Strict: "symlink_absolute", Distro: "symlink_too_long", Shape: "flat",
			Bytes: with(Long('K', "/"+strings.Repeat("d/", 2040)),
				Entry{Name: strings.Repeat("s/", 20) + "l", Link: "x"}),
		},
		{
			Name: "violation behind a mere refusal", Strict: "dotdot_name", Distro: "dotdot_name",
			Trusted: "dotdot_name", Violation: true,
			Bytes: with(Entry{Name: "a", Link: "/etc"}, Entry{Name: "../b", Link: "x"}), Says: `"../b"`,
		},
	}
}

// reached are a link that climbs out behind more than 40 others, where nobody gets to,
// and one of these others: stopped at the root, it has 30 less behind it.
func reached() []Entry {
	return []Entry{
		{Name: "srv/h", Link: "."},
		{Name: "srv/far", Link: "near/" + strings.Repeat("h/", 20) + "../../x"},
		{Name: "srv/near", Link: strings.Repeat("h/", 30) + "../../srv"},
	}
}

func hardlinkCases() []Case {
	link := func(name, target string) Entry { return Entry{Name: name, Type: '1', Link: target} }
	return []Case{
		good("hard link", "flat", with(link("etc/h", "etc/hello"), link("var/h", "./etc/hello"))),
		good("of a hard link", "flat", with(link("etc/h", "etc/hello"), link("aaa", "etc/h"))),
		good("before its target in the tree", "flat",
			before(Entry{Name: "zz/d/"}, Entry{Name: "zz/f", Body: "data"}, link("aa/f", "zz/f"),
				Entry{Name: "aa/", Mode: 0o700})),
		good("attributes are ignored", "flat",
			with(Entry{Name: "etc/h", Type: '1', Link: "etc/hello", Mode: 0o4777, UID: 99})),
		good("of a symlink", "flat",
			with(Entry{Name: "usr/bin/s", Link: "../../etc/hello"}, link("usr/bin/t", "usr/bin/s"))),
		strictly("of a symlink, elsewhere", "symlink_escapes", 1,
			with(Entry{Name: "usr/bin/s", Link: "../../etc/hello"}, link("t", "usr/bin/s"))),
		strictly("absolute", "hardlink_absolute", 1, with(link("etc/h", "/etc/hello"))).leaves("etc/h"),
		attack("absolute, to a file of the host", "outside_root",
			with(link("a", "etc/none"), link("etc/h", "/etc/passwd"))).says(`"/etc/passwd"`),
		refusedAfter("absolute, forward", "hardlink_absolute", "hardlink_forward",
			with(link("etc/h", "/var/later"), Entry{Name: "var/later", Body: "x"})),
		attack("climbing", "hardlink_dotdot", with(link("etc/h", "../etc/passwd"))),
		attack("climbing within", "hardlink_dotdot", with(link("etc/h", "usr/../etc/hello"))),
		strictly("through a symlink", "through_symlink", 1, with(link("etc/h", "bin/tool"))).leaves("etc/h"),
		attack("through an escaping symlink", "outside_root",
			with(Entry{Name: "esc", Link: "../etc"}, link("etc/h", "esc/passwd"))),
		refusedAfter("to itself through a symlink", "through_symlink", "hardlink_missing_target",
			with(link("usr/bin/tool", "bin/tool"))),
		refused("to a directory", "hardlink_to_dir", with(link("etc/h", "usr"))),
		refused("to the root", "hardlink_to_dir", with(link("etc/h", "."))),
		refused("to itself", "hardlink_self", with(link("etc/h", "./etc/h"))),
		refused("to nothing", "hardlink_missing_target", with(link("etc/h", "etc/none"))),
		refused("without target", "hardlink_missing_target", with(link("etc/h", ""))),
		refused("forward", "hardlink_forward", with(link("etc/h", "var/later"), Entry{Name: "var/later", Body: "x"})),
		refused("with data", "hardlink_with_data",
			with(Entry{Name: "etc/h", Type: '1', Link: "etc/hello", Body: "data"})),
		strictly("over a file", "duplicate", 1, with(link("etc/hello", "usr/bin/tool"))),
		strictly("to a file that is replaced", "duplicate", 1,
			with(link("etc/h", "etc/hello"), Entry{Name: "etc/hello", Body: "other"})).leaves("etc/h etc/hello"),
		strictly("to a file by its other name", "duplicate", 1,
			with(link("etc/h", "etc/hello"), link("etc/hello", "etc/h"))).leaves("etc/h etc/hello"),
		refused("control character", "control_char", with(link("etc/h", "etc/\x01"))),
		strictly("of a device", "device_node", 2,
			with(Entry{Name: "etc/null", Type: '3', Dev: [2]int64{1, 3}}, link("etc/n2", "etc/null"))),
	}
}

func (c Case) says(text string) Case {
	c.Says = text
	return c
}
