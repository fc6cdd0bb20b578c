package archive

import (
	"regexp"
	"strings"
	"sync"
)

// Commands in remedies stand in backquotes. IN is the refused file, OUT the one to upload
// instead, and DIR a directory that the text explains. The tests run them.

// advice has the remedies for rules that have the same one always. Attacks have none.
var advice = map[Reason]string{
	EmptyName:    "leave the entry out",
	ControlChar:  "rename the entry",
	InvalidUTF8:  "rename the entry",
	NameTooLong:  "rename the entry",
	PathTooLong:  "move the entry up",
	TooDeep:      "move the entry up",
	Duplicate:    "leave one of the two out",
	ParentNotDir: "leave the entry or the file out",
	ThroughLink:  "name the directory itself",
	Whiteout:     "rename the entry; names with .wh. are for layers of images",

	SymlinkEmpty:     "leave the link out",
	SymlinkTooLong:   "shorten the target",
	SymlinkMaze:      "make fewer links that lead to links",
	HardlinkToDir:    "make it a symbolic link",
	HardlinkSelf:     "leave the entry out",
	HardlinkMissing:  "put the target into the archive",
	HardlinkForward:  "put the target before the link",
	HardlinkWithData: "leave the data to the target",
	HardlinkLimit:    "copy the file for further names",

	UnknownType:     "write the archive without such entries",
	Sparse:          "write the archive without tar's option -S, or with --no-read-sparse if it is bsdtar",
	ModeOverflow:    "write the archive again with a current tar",
	XattrLimit:      "remove attributes from the file",
	ParseError:      "upload the archive again, or write it again with a current tar",
	PAXLimit:        "shorten the entry's name and attributes",
	NoEOFMarker:     "upload the archive again; if it is whole, write it again with a current tar",
	TrailingGarbage: "upload one archive alone; to join archives, tar has the option -A",
	EmptyArchive:    "upload a root file system or an image",
	Format:          "upload a tar archive of a root file system, or an image",

	ImageTooBig:    "make the image smaller",
	FileTooBig:     "make the file smaller, or leave it out",
	TooManyEntries: "leave files out",
	TooManyLayers:  "build the image with fewer layers",
	TreeLimit:      "shorten names, link targets and attributes, or leave entries out",
	ManifestLimit:  "put one image alone into the archive",
	BadManifest:    "save the image again",
	MissingBlob:    "save the image again, with all of its layers",
}

// plainName is what can stand in a command as it is. It is compiled when it is first
// used, which is seldom: its repetition makes a large program.
var plainName = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}$`)
})

// skopeoCopy is the command that copies an image out of an archive: one image, without
// compression.
func skopeoCopy(source string) string { return "`skopeo copy " + source + " docker-archive:OUT`" }

// decompressLayers returns the remedy for an image with compressed layers. source is how
// skopeo names the image, or "".
func decompressLayers(source string, reason Reason) string {
	const remedy = "write the image without compression"
	switch {
	case source == "":
		return remedy
	case reason == compressed+"zstd" && strings.HasPrefix(source, "oci-"):
		// In one step it fails: Docker's manifest has no such type.
		return remedy + ": `skopeo copy --dest-decompress " + source +
			" dir:DIR && skopeo copy dir:DIR docker-archive:OUT`, DIR being a new directory"
	}
	return remedy + ": " + skopeoCopy(source)
}

// decompressors write what is in a compressed file.
var decompressors = map[string]string{
	"gzip": "gzip", "compress": "gzip", "bzip2": "bzip2", "xz": "xz", "lzma": "xz", "zstd": "zstd", "lz4": "lz4",
	"lzip": "lzip", "lzop": "lzop",
}

// formatRemedy returns the remedy for a file of another format than tar.
func formatRemedy(f format) string {
	const files = "make a tar archive of its files"
	switch program := decompressors[f.name]; {
	case program != "":
		return "decompress it before upload: `" + program + " -dc < IN > OUT`"
	case f.name == "squashfs":
		return files + ", as root: `unsquashfs -d rootfs IN && tar -cf OUT rootfs`"
	case f.name == "sif":
		return files + ": unpack it with apptainer's build --sandbox rootfs, and pack rootfs/ with tar"
	}
	if f.compressed {
		return "decompress it before upload, and " + files
	}
	return files
}

// isCompressed reports whether a rejection is for a compressed file.
func (r *Rejection) isCompressed() bool { return strings.HasPrefix(string(r.Reason), compressed) }
