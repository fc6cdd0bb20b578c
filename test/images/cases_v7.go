package images

// directoryCases are the ways to say that an entry is a directory, and how large it is.
func directoryCases() []Case {
	old := func(name string, records ...string) Entry { return Entry{Name: name, PAX: records, Edit: oldType} }
	return []Case{
		good("v7 without types", "flat", Tar(edit(Root(Entry{Name: "srv/"}), untyped)...)).leaves("srv etc/hello"),
		good("old type under POSIX", "flat", with(old("srv/"))).leaves("srv"),
		good("old directory with another name", "flat", with(old("x/", "path=srv/"))).leaves("srv !x"),
		attack("old directory with data", "ambiguous_header", with(Entry{Name: "srv/", Size: 512, Edit: oldType})),
		attack("old directory with the name of a file", "ambiguous_header", with(old("x/", "path=srv"))),
		attack("old file with the name of a directory", "ambiguous_header", with(old("x", "path=srv/"))),
		attack("file with a slash", "ambiguous_header", with(Entry{Name: "etc/x/", Type: '0'})),
		attack("symlink with a slash", "ambiguous_header", with(Entry{Name: "etc/x/", Type: '2', Link: "hello"})),
		good("size on a directory, no data", "flat",
			with(Entry{Name: "srv/", Size: 4096}, Entry{Name: "etc/x", Body: "x"})).leaves("srv etc/x"),
		good("size on a directory, entries in place of data", "flat",
			with(Entry{Name: "srv/", Body: string(Blocks(Entry{Name: "etc/x", Body: "x"}))})).leaves("srv etc/x"),
	}
}

// oldType removes the type of a file or directory, as in the v7 format.
func oldType(b []byte) { b[156] = 0 }

// untyped makes a header of the v7 format: no magic, and a type for links only.
func untyped(b []byte) {
	if clear(b[257:]); b[156] != '2' {
		oldType(b)
	}
}
