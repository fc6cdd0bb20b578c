package images

import "strings"

// duplicateCases have a name twice in a tarball.
func duplicateCases() []Case {
	return []Case{
		strictly("file twice", "duplicate", 1, with(Entry{Name: "etc/hello", Body: "other"})).
			says("IMAGE_POLICY=distro"),
		strictly("file three times", "duplicate", 4,
			with(Entry{Name: "etc/hello", Body: "other"}, Entry{Name: "/etc/hello", Type: '6'})).leaves("!etc/hello"),
		strictly("file over empty directory", "duplicate", 1, with(Entry{Name: "srv/"}, Entry{Name: "srv", Body: "x"})),
		refused("file over directory", "duplicate", with(Entry{Name: "etc", Body: "x"})).says("not empty"),
		strictly("directory over file", "duplicate", 1, with(Entry{Name: "etc/hello/"}, Entry{Name: "etc/hello/x"})).
			leaves("etc/hello/x"),
		strictly("directory over symlink", "duplicate", 1, with(Entry{Name: "bin/"}, Entry{Name: "bin/x"})).
			leaves("bin/x !usr/bin/x"),
		strictly("symlink over symlink", "duplicate", 2,
			with(Entry{Name: "l", Link: "../outside"}, Entry{Name: "l", Link: "../outside"})),
		attack("file over climbing symlink", "outside_root",
			with(Entry{Name: "l", Link: "../outside"}, Entry{Name: "l", Body: "x"})).says(`"../outside"`),
		attack("file over a symlink to a climbing one", "outside_root",
			with(Entry{Name: "up", Link: "../.."}, Entry{Name: "etc/l", Link: "../up/x"},
				Entry{Name: "etc/l", Body: "x"})),
		refused("symlink over implied directory", "duplicate", before(Entry{Name: "bin/x", Body: "x"})),
		strictly("twice by spelling", "duplicate", 1, with(Entry{Name: "./etc//hello", Body: "x"})),
	}
}

// placedCases have entries below symbolic links.
func placedCases() []Case {
	return []Case{
		strictly("through a symlink", "through_symlink", 1, with(Entry{Name: "bin/x", Body: "x"})).
			leaves("usr/bin/x bin !bin/x").says("IMAGE_POLICY=distro"),
		strictly("through two symlinks", "through_symlink", 1,
			with(Entry{Name: "usr/bin/up", Link: "../../etc"}, Entry{Name: "bin/up/d/x", Body: "x"})).leaves("etc/d/x"),
		strictly("directory through a symlink", "through_symlink", 1, with(Entry{Name: "bin/d/"})).leaves("usr/bin/d"),
		strictly("in a bundle, through a symlink", "through_symlink", 1,
			Tar(Bundle(Entry{Name: "rootfs/bin/x", Body: "x"})...)).shaped("bundle").leaves("usr/bin/x"),
		attack("in a bundle, through a symlink to beside rootfs", "outside_root",
			Tar(Bundle(Entry{Name: "rootfs/up", Link: "../x"}, Entry{Name: "x/"}, Entry{Name: "rootfs/up/x"})...)),
		attack("through an escaping symlink", "outside_root",
			with(Entry{Name: "esc", Link: "../../tmp"}, Entry{Name: "esc/x", Body: "x"})),
		attack("through an absolute symlink", "outside_root",
			with(Entry{Name: "abs", Link: "/etc"}, Entry{Name: "abs/x", Body: "x"})).says(`"/etc"`),
		refused("through a dangling symlink", "through_symlink",
			with(Entry{Name: "d", Link: "srv/none"}, Entry{Name: "d/x", Body: "x"})).says("name the directory itself"),
		refused("through a symlink to a file", "through_symlink",
			with(Entry{Name: "d", Link: "etc/hello"}, Entry{Name: "d/x", Body: "x"})),
		refused("through a symlink to itself", "through_symlink",
			with(Entry{Name: "d", Link: "d"}, Entry{Name: "d/x", Body: "x"})),
		refusedAfter("129 deep through a symlink", "too_deep", "too_deep",
			with(pax("path=srv/"+strings.Repeat("d/", 126)+"x"), Entry{Name: "l", Link: "srv/d/d/d/d/d/d/d/d/d/d"},
				pax("path=l/"+strings.Repeat("e/", 118)+"x"))),
	}
}
