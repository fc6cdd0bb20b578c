// Package images makes tarballs for tests, good and hostile, block by block:
// archive/tar's writer refuses most of what an attacker sends. Cases lists them, one for
// each rule and shape, with what must become of each under each policy; Corpus is what
// other projects test their extractors with.
package images

import (
	"bytes"
	"fmt"
	"strings"
)

const blockSize = 512

// Entry is one header with its data. What is left out is filled in: a directory when the
// name ends in a slash, a symbolic link when Link is set, otherwise a regular file; mode
// 0755 for directories and 0644 for others; the size of Body.
type Entry struct {
	Name, Link, Body string
	From             string // file that has the data; Size is its size, and only Write copies it
	Type             byte
	Mode, UID, GID   int64
	Size             int64              // declared instead of len(Body)
	MTime            int64              // 0 means the same moment for all
	PAX              []string           // records "key=value" in an extended header before the entry
	Edit             func(block []byte) // changes the header before its checksum is taken
	Dev              [2]int64
}

// moment is the time of entries that do not say otherwise.
const moment = 1700000000

// Tar is the archive of the entries, with its end marker.
func Tar(entries ...Entry) []byte { return End(Blocks(entries...)) }

// End adds the end marker.
func End(b []byte) []byte { return append(b, make([]byte, 2*blockSize)...) }

// Blocks is the archive of the entries without its end marker.
func Blocks(entries ...Entry) []byte {
	var b bytes.Buffer
	for _, e := range entries {
		if len(e.PAX) > 0 {
			b.Write(Blocks(Entry{Name: "PaxHeaders/x", Type: 'x', Body: Records(e.PAX...)}))
		}
		b.Write(e.header())
		b.WriteString(e.Body)
		b.Write(make([]byte, (blockSize-len(e.Body)%blockSize)%blockSize))
	}
	return b.Bytes()
}

// Records encodes PAX records from "key=value".
func Records(pairs ...string) string {
	var b strings.Builder
	for _, p := range pairs {
		n := len(p) + 3
		for len(fmt.Sprint(n))+len(p)+2 != n {
			n = len(fmt.Sprint(n)) + len(p) + 2
		}
		fmt.Fprintf(&b, "%d %s\n", n, p)
	}
	return b.String()
}

func (e Entry) header() []byte {
	e.defaults()
	b := make([]byte, blockSize)
	copy(b, e.Name)
	octal(b[100:108], e.Mode)
	octal(b[108:116], e.UID)
	octal(b[116:124], e.GID)
	octal(b[124:136], e.Size)
	octal(b[136:148], e.MTime)
	b[156] = e.Type
	copy(b[157:257], e.Link)
	copy(b[257:], "ustar\x0000")
	octal(b[329:337], e.Dev[0])
	octal(b[337:345], e.Dev[1])
	if e.Edit != nil {
		e.Edit(b)
	}
	Checksum(b)
	return b
}

func (e *Entry) defaults() {
	switch {
	case e.Type != 0:
	case strings.HasSuffix(e.Name, "/"):
		e.Type = '5'
	case e.Link != "":
		e.Type = '2'
	default:
		e.Type = '0'
	}
	if e.Mode == 0 {
		e.Mode = 0o644
		if e.Type == '5' {
			e.Mode = 0o755
		}
	}
	if e.Size == 0 {
		e.Size = int64(len(e.Body))
	}
	if e.MTime == 0 {
		e.MTime = moment
	}
}

// octal fills a numeric field; what is negative or does not fit is written in base-256,
// as GNU tar does.
func octal(field []byte, n int64) {
	text := fmt.Sprintf("%0*o", len(field)-1, n)
	if n >= 0 && len(text) < len(field) {
		copy(field, text)
		return
	}
	for i := len(field) - 1; i >= 0; i-- {
		field[i] = byte(n)
		n >>= 8
	}
	field[0] |= 0x80
}

// Checksum corrects a header's checksum.
func Checksum(block []byte) {
	copy(block[148:156], "        ")
	sum := 0
	for _, c := range block[:blockSize] {
		sum += int(c)
	}
	copy(block[148:156], fmt.Sprintf("%06o\x00 ", sum))
}

// Long is GNU's way to give the next entry a name or, with typ 'K', a link target of any
// length.
func Long(typ byte, name string) Entry {
	return Entry{
		Name: "././@LongLink", Type: typ, Body: name + "\x00",
		Edit: func(b []byte) { copy(b[257:], "ustar  \x00") },
	}
}

// Root is a small root file system with the entries added.
func Root(more ...Entry) []Entry { return rootIn("", more...) }

// Bundle is a small root file system under rootfs/, with the entries added as they are.
func Bundle(more ...Entry) []Entry { return rootIn("rootfs/", more...) }

func rootIn(prefix string, more ...Entry) []Entry {
	list := []Entry{
		{Name: "etc/"},
		{Name: "usr/"},
		{Name: "usr/bin/"},
		{Name: "var/"},
		{Name: "tmp/", Mode: 0o1777},
		{Name: "etc/hello", Body: "hello\n"},
		{Name: "bin", Link: "usr/bin"},
		{Name: "usr/bin/tool", Body: strings.Repeat("tool", 300), Mode: 0o755},
	}
	for i := range list {
		list[i].Name = prefix + list[i].Name
	}
	return append(list, more...)
}

// RootFS is the archive of a small root file system: etc/hello holds the text,
// usr/greeting links to it, and usr/share has that many files of a few KiB.
func RootFS(text string, files int, more ...Entry) []byte {
	list := []Entry{
		{Name: "etc/"},
		{Name: "usr/"},
		{Name: "usr/share/"},
		{Name: "var/"},
		{Name: "etc/hello", Body: text},
		{Name: "usr/greeting", Link: "../etc/hello"},
	}
	for i := range files {
		list = append(list, Entry{Name: fmt.Sprintf("usr/share/%04d", i), Body: strings.Repeat(text, 500)})
	}
	return Tar(append(list, more...)...)
}
