package images

import (
	"encoding/base64"
	"strings"
)

// capability is cap_net_raw+ep, as in Debian's ping.
const capability = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

func modeCases() []Case {
	return []Case{
		good("sticky directory", "flat", with(Entry{Name: "var/tmp/", Mode: 0o1777})),
		strictly("setuid", "setuid_setgid", 1, with(Entry{Name: "usr/bin/su", Mode: 0o4755, Body: "x"})).
			says("IMAGE_POLICY=distro"),
		strictly("setgid", "setuid_setgid", 1, with(Entry{Name: "usr/bin/su", Mode: 0o2755, Body: "x"})),
		strictly("setgid directory", "setuid_setgid", 1, with(Entry{Name: "var/mail/", Mode: 0o2775, GID: 8})),
		strictly("setuid on the root", "setuid_setgid", 1, before(Entry{Name: "./", Mode: 0o4755})),
		strictly("setuid with another owner", "setuid_setgid", 1,
			with(Entry{Name: "usr/bin/su", Mode: 0o6755, UID: 7, GID: 9, Body: "x"})),
		strictly("sticky file", "special_bits", 1, with(Entry{Name: "etc/x", Mode: 0o1644, Body: "x"})),
		strictly("all special bits", "special_bits", 2, with(Entry{Name: "etc/x", Mode: 0o7777, Body: "x"})),
		good("bits on a symlink", "flat", with(Entry{Name: "etc/l", Link: "hello", Mode: 0o7777})),
		good("mode with file type", "flat",
			with(Entry{Name: "etc/x", Mode: 0o100644, Body: "x"}, Entry{Name: "srv/", Mode: 0o040755},
				Entry{Name: "etc/l", Mode: 0o120777, Link: "x"})),
		refused("mode with another file type", "mode_overflow", with(Entry{Name: "etc/x", Mode: 0o020644, Body: "x"})),
		refused("mode above 07777", "mode_overflow", with(Entry{Name: "etc/x", Mode: 0o10000, Body: "x"})),
		attack("owner -1", "uid_range", with(Entry{Name: "etc/x", UID: 1<<32 - 1, Body: "x"})),
		attack("owner 2^32", "uid_range", with(Entry{Name: "etc/x", UID: 1 << 32, Body: "x"})),
		attack("group 2^32 in PAX", "uid_range", with(pax("gid=4294967296"))),
		attack("negative owner in base-256", "uid_range", with(Entry{Name: "etc/x", UID: -1, Body: "x"})),
		attack("negative group in base-256", "uid_range", with(Entry{Name: "etc/x", GID: -1, Body: "x"})),
		attack("negative owner in octal", "uid_range", oneEdited(func(b []byte) { copy(b[108:116], "-000001\x00") })),
		attack("negative blank-padded group", "uid_range",
			oneEdited(func(b []byte) { copy(b[116:124], "     -1\x00") })),
		attack("negative owner in PAX", "uid_range", with(pax("uid=-1"))),
		attack("owner -1 of 64 bits in PAX", "uid_range", with(pax("uid=18446744073709551615"))),
		refused("owner in PAX that is not a number", "parse_error", with(pax("uid=root"))),
		strictly("time after 2446", "mtime_range", 1, with(pax("mtime=15032385536"))),
		strictly("time before 1901", "mtime_range", 1, with(Entry{Name: "etc/x", Body: "x", MTime: -(1 << 31) - 1})),
		good("first and last time of ext4", "flat",
			with(pax("mtime=-2147483648"), Entry{Name: "etc/y", PAX: []string{"mtime=15032385535"}})),
	}
}

func typeCases() []Case {
	return []Case{
		strictly("character device", "device_node", 1, with(Entry{Name: "etc/null", Type: '3', Dev: [2]int64{1, 3}})).
			says("etc/null"),
		strictly("block device", "device_node", 1, with(Entry{Name: "etc/sda", Type: '4', Dev: [2]int64{8, 0}})),
		strictly("device 0:0 in no layer", "device_node", 1, with(Entry{Name: "etc/x", Type: '3'})),
		strictly("file over device", "duplicate", 1,
			with(Entry{Name: "etc/null", Type: '3'}, Entry{Name: "etc/null", Body: "x"})).leaves("etc/null"),
		strictly("device over file", "duplicate", 2, with(Entry{Name: "etc/hello", Type: '3'})).
			leaves("!etc/hello"),
		refused("below a device", "parent_not_dir",
			with(Entry{Name: "etc/null", Type: '3'}, Entry{Name: "etc/null/x", Body: "x"})),
		strictly("fifo", "fifo", 1, with(Entry{Name: "etc/pipe", Type: '6'})).leaves("!etc/pipe"),
		strictly("hard link to a fifo", "fifo", 2,
			with(Entry{Name: "etc/pipe", Type: '6'}, Entry{Name: "etc/p2", Type: '1', Link: "etc/pipe"})).
			leaves("!etc/pipe !etc/p2"),
		refused("contiguous file", "unknown_type", with(Entry{Name: "etc/x", Type: '7', Body: "x"})),
		refused("unknown type", "unknown_type", with(Entry{Name: "etc/x", Type: '9'})),
		refused("socket", "unknown_type", with(Entry{Name: "etc/x", Type: 's'})),
		refused("GNU volume label", "unknown_type", with(Entry{Name: "label", Type: 'V'})).says("option -V"),
		refused("GNU multi-volume", "unknown_type", with(Entry{Name: "etc/x", Type: 'M', Body: "x"})).says("option -M"),
		refused("GNU incremental directory", "unknown_type",
			with(Entry{Name: "etc/x/", Type: 'D', Body: "Yx\x00\x00"})),
		refused("GNU old long names", "unknown_type",
			with(Entry{Name: "x", Type: 'N', Body: "Rename etc/hello to ../x\n"})),
		refused("GNU sparse", "sparse", with(Entry{Name: "etc/x", Type: 'S', Body: "x"})),
		refused("PAX sparse 0.1", "sparse", with(pax("GNU.sparse.map=0,1", "GNU.sparse.size=1099511627776"))),
		refused("PAX sparse 1.0", "sparse",
			with(pax("GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.name=../x", "GNU.sparse.realsize=9"))),
		refused("star sparse", "sparse", with(pax("SCHILY.realsize=99999"))),
		refused("Solaris sparse", "sparse", with(pax("SUN.holesdata= 0 512"))),
		refused("type in PAX", "unknown_type", with(pax("SCHILY.filetype=sock"))),
		good("type NUL is a file", "flat", with(Entry{Name: "etc/x", Body: "x", Edit: func(b []byte) { b[156] = 0 }})),
	}
}

func xattrCases() []Case {
	c := Case{
		Name: "capability", Strict: "xattr_privileged", Adjusted: 1, Shape: "flat",
		Bytes: with(pax("SCHILY.xattr.security.capability=" + capability)),
	}
	return []Case{
		c,
		{
			Name: "capability in libarchive's spelling", Strict: "xattr_privileged", Adjusted: 1, Shape: "flat",
			Bytes: with(pax("LIBARCHIVE.xattr.security%2Ecapability=" +
				base64.RawStdEncoding.EncodeToString([]byte(capability)))),
		},
		good("user attribute", "flat",
			with(pax("SCHILY.xattr.user.comment=hello"),
				Entry{Name: "etc/d/", PAX: []string{"SCHILY.xattr.user.d=1", "SCHILY.xattr.user.a=2"}})),
		good("user attribute in both spellings", "flat",
			with(pax("SCHILY.xattr.user.x=abc", "LIBARCHIVE.xattr.user.x=YWJj"))),
		good("binary and empty values", "flat", with(pax("SCHILY.xattr.user.x=\x00\n=\xff", "SCHILY.xattr.user.y="))),
		good("attributes of a hard link are ignored", "flat",
			with(Entry{
				Name: "etc/h", Type: '1', Link: "etc/hello",
				PAX: []string{"SCHILY.xattr.security.capability=" + capability},
			})),
		strictly("ACL", "xattr_privileged", 1,
			with(pax("SCHILY.acl.access=user::rwx,user:0:rwx,group::r-x,mask::rwx,other::r-x"))),
		strictly("ACL as attribute", "xattr_privileged", 1,
			with(pax("SCHILY.xattr.system.posix_acl_access=\x02\x00\x00\x00"))),
		strictly("overlay attribute", "xattr_privileged", 1,
			with(Entry{Name: "srv/", PAX: []string{"SCHILY.xattr.trusted.overlay.opaque=y"}})),
		strictly("overlay redirect", "xattr_privileged", 1,
			with(Entry{Name: "srv/", PAX: []string{"SCHILY.xattr.trusted.overlay.redirect=/etc"}})),
		strictly("SELinux label", "xattr_privileged", 1,
			with(pax("RHT.security.selinux=system_u:object_r:etc_t:s0\x00"))),
		strictly("file flags", "xattr_privileged", 1, with(pax("SCHILY.fflags=immutable"))),
		strictly("IMA signature", "xattr_privileged", 1, with(pax("SCHILY.xattr.security.ima=\x03\x02"))),
		strictly("broken capability", "xattr_privileged", 1, with(pax("SCHILY.xattr.security.capability=xx"))),
		strictly("capability on a directory", "xattr_privileged", 1,
			with(Entry{Name: "srv/", PAX: []string{"SCHILY.xattr.security.capability=" + capability}})),
		strictly("foreign namespace", "xattr_invalid", 1, with(pax("SCHILY.xattr.com.apple.quarantine=0081"))),
		strictly("no name", "xattr_invalid", 1, with(pax("SCHILY.xattr.user.=x"))),
		strictly("long name", "xattr_invalid", 1, with(pax("SCHILY.xattr.user."+strings.Repeat("n", 251)+"=x"))),
		strictly("user attribute of a symlink", "xattr_invalid", 1,
			with(Entry{Name: "etc/l", Link: "hello", PAX: []string{"SCHILY.xattr.user.x=y"}})),
		good("as much as fits", "flat", with(pax("SCHILY.xattr.user.x="+strings.Repeat("v", 3900)))),
		refused("more than fits", "xattr_limit", with(pax("SCHILY.xattr.user.x="+strings.Repeat("v", 4000)))),
		refused("many small ones", "xattr_limit", with(pax(numbered("SCHILY.xattr.user.attribute-%03d=v", 200)...))),
		attack("two values", "ambiguous_header", with(pax("SCHILY.xattr.user.x=abc", "LIBARCHIVE.xattr.user.x=YWJk"))),
		refused("bad base64", "parse_error", with(pax("LIBARCHIVE.xattr.user.x=!!!!"))),
	}
}
