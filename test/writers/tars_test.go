package writers

import (
	"slices"
	"strings"
)

// writer is a way to write an archive.
type writer struct {
	tool   string
	how    string // the command in short, as the page has it
	shape  string // what is written; "other" if the product knows no such shape
	script string // writes $OUT from what prepare.sh has made
	tree   string // the only tree to write, if it is not all of tree.sh
}

// writers returns all of them, in the order of the page.
func writers() []writer { return slices.Concat(tarWriters(), imageWriters()) }

const (
	flat   = "flat"
	bundle = "bundle"
	other  = "other"
)

// tar returns the writer of a plain root file system by a command with tar's options.
// Names in without are left out: the dialect cannot have them.
func tar(tool, command string, without ...string) writer {
	script := []string{command}
	for _, name := range without {
		script = append(script, "--exclude='"+name+"'")
	}
	script = append(script, `-C "$TREE" -cf "$OUT" .`)
	return writer{tool: tool, how: command, shape: flat, script: strings.Join(script, " ")}
}

// What dialects before PAX and GNU's cannot have.
const (
	long    = "./usr/share/long"
	devices = "./dev/*"
)

// reproducible is what reproducible-builds.org recommends.
const reproducible = "tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --format=posix " +
	"--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime"

const unpackDebian = `mkdir "$WORK/root"
tar --xattrs --xattrs-include='*' -C "$WORK/root" -xpf "$CACHE/debian-minbase.tar"
`

// tarWriters write a root file system into one tar archive.
func tarWriters() []writer {
	return []writer{
		tar("GNU tar", "tar --format=v7", long, devices),
		tar("GNU tar", "tar --format=ustar", long),
		tar("GNU tar", "tar --format=oldgnu"),
		tar("GNU tar", "tar --format=gnu"),
		tar("GNU tar", "tar --format=posix"),
		tar("GNU tar", "tar --xattrs --xattrs-include='*' --acls"),
		tar("GNU tar", reproducible),
		tar("GNU tar", "tar --sparse"),
		tar("GNU tar", "tar --label=root"),
		{
			tool: "GNU tar", how: "tar --listed-incremental", shape: flat,
			script: `tar --listed-incremental="$WORK/list" -C "$TREE" -cf "$OUT" .`,
		},
		tar("GNU tar", "tar --gzip"),
		{
			tool: "GNU tar", how: "tar --absolute-names /*", shape: flat,
			script: `cd "$TREE" && tar --absolute-names --transform='flags=rh;s,^,/,' -cf "$OUT" *`,
		},
		{
			tool: "GNU tar", how: "tar rootfs", shape: bundle,
			script: `tar -C "$BUNDLE" -cf "$OUT" rootfs`,
		},
		tar("bsdtar", "bsdtar --format=v7", long, devices),
		tar("bsdtar", "bsdtar --format=ustar", long),
		tar("bsdtar", "bsdtar --format=gnutar"),
		tar("bsdtar", "bsdtar --format=pax"),
		tar("bsdtar", "bsdtar"),
		tar("bsdtar", "bsdtar --no-read-sparse --xattrs --acls"),
		{
			tool: "bsdtar", how: "bsdtar --no-read-sparse in the C locale", shape: flat,
			script: `LC_ALL=C bsdtar --no-read-sparse -C "$TREE" -cf "$OUT" .`,
		},
		tar("busybox", "busybox tar"),
		python("GNU_FORMAT"),
		python("PAX_FORMAT"),
		python("USTAR_FORMAT"),
		{
			tool: "git", how: "git archive", shape: flat,
			script: `git -C "$REPOSITORY" archive --output="$OUT" HEAD`,
		},
		{
			tool: "git", how: "git archive --prefix=rootfs/", shape: bundle,
			script: `git -C "$REPOSITORY" archive --prefix=rootfs/ --output="$OUT" HEAD`,
		},
		{
			tool: "mmdebstrap", how: "mmdebstrap --variant=minbase --format=tar", shape: flat, tree: debian,
			script: `ln -s "$CACHE/debian-minbase.tar" "$OUT"`,
		},
		{
			tool: "GNU tar", how: "tar --xattrs --xattrs-include='*' --acls of mmdebstrap's", shape: flat, tree: debian,
			script: unpackDebian + `tar --xattrs --xattrs-include='*' --acls -C "$WORK/root" -cf "$OUT" .`,
		},
		{
			tool: "bsdtar", how: "bsdtar --no-read-sparse of mmdebstrap's", shape: flat, tree: debian,
			script: unpackDebian + `bsdtar --no-read-sparse -C "$WORK/root" -cf "$OUT" .`,
		},
		{
			tool: "debootstrap", how: "debootstrap --variant=minbase, then tar", shape: flat, tree: debian,
			script: `ln -s "$CACHE/debootstrap.tar" "$OUT"`,
		},
	}
}

// python returns a writer by Python's tarfile, in one of its formats.
func python(format string) writer {
	keep := "m"
	if format == "USTAR_FORMAT" {
		keep = "None if '/long' in m.name else m"
	}
	return writer{
		tool: "Python", how: "tarfile." + format, shape: flat,
		script: `python3 -c "
import sys, tarfile
with tarfile.open(sys.argv[1], 'w', format=tarfile.` + format + `) as t:
    t.add(sys.argv[2], '.', filter=lambda m: ` + keep + `)
" "$OUT" "$TREE"`,
	}
}
