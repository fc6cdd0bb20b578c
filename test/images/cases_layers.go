package images

import "slices"

// stacked is an image of the base layer and the given ones.
func stacked(layers ...[]byte) []byte {
	return Tar(Image{Layers: append([][]byte{base()}, layers...)}.OCI()...)
}

func layerCases() []Case {
	return []Case{
		good("replaced file", "oci", stacked(upper(Entry{Name: "etc/hello", Body: "new", Mode: 0o600}))).
			leaves("etc/hello srv/b"),
		good("whiteout", "oci", stacked(upper(Entry{Name: "srv/.wh.b"}))).leaves("srv srv/a/x !srv/b !srv/.wh.b"),
		good("whiteout of a directory", "oci", stacked(upper(Entry{Name: "srv/.wh.a"}))).
			leaves("srv/b !srv/a !srv/a/x"),
		good("whiteout of nothing", "oci", stacked(upper(Entry{Name: "srv/.wh.none"}, Entry{Name: "none/.wh.x"}))).
			leaves("srv/b !none"),
		good("whiteout and file of one layer", "oci",
			stacked(upper(Entry{Name: "srv/b", Body: "new"}, Entry{Name: "srv/.wh.b"}))).leaves("srv/b"),
		good("opaque directory", "oci",
			stacked(upper(Entry{Name: "srv/"}, Entry{Name: "srv/new", Body: "x"}, Entry{Name: "srv/.wh..wh..opq"}))).
			leaves("srv/new !srv/a !srv/b !srv/.wh..wh..opq"),
		good("opaque root", "oci", stacked(upper(Entry{Name: ".wh..wh..opq"}), Tar(Root()...))).
			leaves("etc/hello !srv"),
		good("directory over file", "oci", stacked(upper(Entry{Name: "srv/b/"}, Entry{Name: "srv/b/x", Body: "x"}))).
			leaves("srv/b/x"),
		good("directory over symlink", "oci", stacked(upper(Entry{Name: "bin/"}, Entry{Name: "bin/x", Body: "x"}))).
			leaves("bin/x usr/bin/tool"),
		good("file over directory", "oci", stacked(upper(Entry{Name: "srv/a", Body: "x"}))).leaves("srv/a !srv/a/x"),
		good("symlink over directory", "oci", stacked(upper(Entry{Name: "srv/a", Link: "../etc"}))).
			leaves("srv/a !srv/a/x"),
		good("attributes of a directory", "oci", stacked(upper(Entry{Name: "srv/", Mode: 0o700, UID: 5}))).
			leaves("srv/a/x srv/b"),
		good("hard link to a lower layer", "oci", stacked(upper(Entry{Name: "etc/h", Type: '1', Link: "etc/hello"}))).
			leaves("etc/h etc/hello"),
		good("hard link that outlives its target", "oci",
			stacked(upper(Entry{Name: "etc/h", Type: '1', Link: "srv/b"}), upper(Entry{Name: "srv/.wh.b"}))).
			leaves("etc/h !srv/b"),
		good("empty layer", "oci", stacked(Tar(), upper(Entry{Name: "x", Body: "x"}))).leaves("x"),
		good("whiteout takes the escape away", "oci",
			stacked(upper(Entry{Name: "l", Link: "../x"}), upper(Entry{Name: ".wh.l"}))).leaves("!l"),
	}
}

// refusedLayerCases are layers that strict or all policies refuse.
func refusedLayerCases() []Case {
	return []Case{
		strictly("layers escape together", "symlink_escapes", 1,
			stacked(upper(Entry{Name: "l", Link: "srv/a/../../x"}), upper(Entry{Name: "srv/a", Link: "../etc"}))).
			layered(),
		strictly("through a lower symlink", "through_symlink", 1, stacked(upper(Entry{Name: "bin/x", Body: "x"}))).
			layered().leaves("usr/bin/x usr/bin/tool !bin/x"),
		strictly("through a lower absolute symlink", "through_symlink", 2,
			stacked(upper(Entry{Name: "run", Link: "/srv/a"}), upper(Entry{Name: "run/y", Body: "x"}))).
			layered().leaves("srv/a/x srv/a/y"),
		strictly("through a lower climbing symlink", "through_symlink", 2,
			stacked(upper(Entry{Name: "up", Link: "../srv"}), upper(Entry{Name: "up/y", Body: "x"}))).
			layered().leaves("srv/y"),
		strictly("through a symlink that an upper layer replaces", "through_symlink", 1,
			stacked(upper(Entry{Name: "bin/x", Body: "x"}),
				upper(Entry{Name: "bin/"}, Entry{Name: "bin/y", Body: "y"}))).
			layered().leaves("usr/bin/x bin/y !bin/x"),
		refused("whiteout through a symlink", "through_symlink", stacked(upper(Entry{Name: "bin/.wh.tool"}))),
		attack("whiteout of a parent", "whiteout_name", stacked(upper(Entry{Name: "srv/.wh..."}))),
		attack("whiteout of itself", "whiteout_name", stacked(upper(Entry{Name: "srv/.wh.."}))),
		attack("whiteout without a name", "whiteout_name", stacked(upper(Entry{Name: "srv/.wh."}))),
		attack("whiteout with data", "whiteout_name", stacked(upper(Entry{Name: "srv/.wh.b", Body: "x"}))),
		attack("whiteout as a directory", "whiteout_name", stacked(upper(Entry{Name: "srv/.wh.b/"}))),
		refused("whiteout as a parent", "whiteout", stacked(upper(Entry{Name: "srv/.wh.b/x", Body: "x"}))),
		strictly("duplicate in a layer", "duplicate", 1,
			stacked(upper(Entry{Name: "x", Body: "1"}, Entry{Name: "x", Body: "2"}))).layered().says("layer 2"),
		strictly("file and its child in a layer", "duplicate", 1,
			stacked(upper(Entry{Name: "srv/a/y", Body: "1"}, Entry{Name: "srv/a", Body: "2"}))).layered().
			leaves("srv/a !srv/a/x !srv/a/y"),
		refusedAfter("hard link over the directory of its target", "duplicate", "hardlink_missing_target",
			stacked(upper(Entry{Name: "d/f", Body: "x"}, Entry{Name: "d", Type: '1', Link: "d/f"}))),
		attack("attack behind a fault of a lower layer", "dotdot_name",
			stacked(upper(Entry{Name: "srv/a\nb"}), upper(Entry{Name: "../x", Body: "x"}))).says("layer 3"),
		refused("below a lower file", "parent_not_dir", stacked(upper(Entry{Name: "srv/b/x", Body: "1"}))),
		refused("hard link to what is hidden", "hardlink_missing_target",
			stacked(upper(Entry{Name: "srv/.wh.b"}), upper(Entry{Name: "h", Type: '1', Link: "srv/b"}))),
		strictly("aufs metadata", "aufs_metadata", 2,
			stacked(upper(Entry{Name: ".wh..wh.aufs"}, Entry{Name: ".wh..wh.plnk/"},
				Entry{Name: ".wh..wh.plnk/1.2", Body: "x"}))).layered().leaves("!.wh..wh.aufs !.wh..wh.plnk srv/b"),
		strictly("overlay whiteout", "overlay_whiteout", 1, stacked(upper(Entry{Name: "srv/b", Type: '3'}))).layered().
			leaves("!srv/b srv/a"),
		strictly("overlay opaque attribute", "xattr_privileged", 1,
			stacked(upper(Entry{Name: "srv/", PAX: []string{"SCHILY.xattr.trusted.overlay.opaque=y"}}))).layered(),
		strictly("setuid in a lower layer", "setuid_setgid", 1,
			stacked(upper(Entry{Name: "usr/bin/su", Mode: 0o4755, Body: "x"}), upper(Entry{Name: "x", Body: "x"}))).
			layered(),
		strictly("setuid by a hard link that outlives", "setuid_setgid", 1,
			stacked(upper(Entry{Name: "usr/su", Mode: 0o4755, Body: "x"}),
				upper(Entry{Name: "usr/h", Type: '1', Link: "usr/su"}), upper(Entry{Name: "usr/.wh.su"}))).layered(),
		good("setuid that is hidden", "oci",
			stacked(upper(Entry{Name: "usr/bin/su", Mode: 0o4755, Body: "x"}), upper(Entry{Name: "usr/bin/.wh.su"}))).
			leaves("!usr/bin/su"),
	}
}

// unterminatedCases are layers that lack their end marker, or a part of it. Nothing else
// can be missing from a layer with the right digest.
func unterminatedCases() []Case {
	block := make([]byte, blockSize)
	file := Blocks(Entry{Name: "etc/x", Body: "x"})
	layer := func(parts ...[]byte) []byte { return stacked(slices.Concat(parts...)) }
	return []Case{
		strictly("layer of zero bytes", "no_eof_marker", 1, layer()).layered().says("layer 2").leaves("etc/hello"),
		strictly("layer of docker of zero bytes", "no_eof_marker", 1,
			Tar(Image{Layers: [][]byte{{}, base()}}.Docker()...)).shaped("docker").says("layer 1"),
		strictly("layer without end marker", "no_eof_marker", 1, layer(file)).layered().says("at byte").leaves("etc/x"),
		strictly("layer without the padding of its last file", "no_eof_marker", 1, layer(file[:len(file)-100])).
			layered().leaves("etc/x"),
		strictly("layer with half an end marker", "no_eof_marker", 1, layer(file, block)).layered().leaves("etc/x"),
		strictly("layer with more than half an end marker", "no_eof_marker", 1, layer(file, block, block[:9])).
			layered().leaves("etc/x"),
		refused("layer goes on behind half an end marker", "no_eof_marker", layer(file, block, End(file))),
		refused("layer with something behind half an end marker", "no_eof_marker", layer(file, block, []byte("x"))),
		refused("layer that ends in a header", "parse_error", layer(file, file[:100])),
		refused("layer that ends in a file", "parse_error", layer(file[:blockSize])),
		refused("image without end marker, layers with one", "no_eof_marker",
			Blocks(Image{Layers: [][]byte{base()}}.OCI()...)),
		attack("attack in a layer without end marker", "dotdot_name", layer(Blocks(Entry{Name: "../x", Body: "x"}))),
	}
}

func (c Case) layered() Case { return c.shaped("oci") }
