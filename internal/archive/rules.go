package archive

import "slices"

// Reason is the code of a rule. Codes are stable: metrics and journals have them.
type Reason string

// The rules' codes.
const (
	AbsoluteName  Reason = "absolute_name"
	DotdotName    Reason = "dotdot_name"
	EmptyName     Reason = "empty_name"
	RootNotDir    Reason = "root_not_dir"
	ControlChar   Reason = "control_char"
	InvalidUTF8   Reason = "invalid_utf8"
	NameTooLong   Reason = "name_too_long"
	PathTooLong   Reason = "path_too_long"
	TooDeep       Reason = "too_deep"
	Duplicate     Reason = "duplicate"
	ParentNotDir  Reason = "parent_not_dir"
	ThroughLink   Reason = "through_symlink"
	Whiteout      Reason = "whiteout"
	WhiteoutName  Reason = "whiteout_name"
	AufsMetadata  Reason = "aufs_metadata"
	OverlayMarker Reason = "overlay_whiteout"

	SymlinkEmpty    Reason = "symlink_empty"
	SymlinkTooLong  Reason = "symlink_too_long"
	SymlinkEscapes  Reason = "symlink_escapes"
	SymlinkAbsolute Reason = "symlink_absolute"
	SymlinkMaze     Reason = "symlink_maze"

	OutsideRoot      Reason = "outside_root"
	HardlinkAbsolute Reason = "hardlink_absolute"
	HardlinkDotdot   Reason = "hardlink_dotdot"
	HardlinkToDir    Reason = "hardlink_to_dir"
	HardlinkSelf     Reason = "hardlink_self"
	HardlinkMissing  Reason = "hardlink_missing_target"
	HardlinkForward  Reason = "hardlink_forward"
	HardlinkWithData Reason = "hardlink_with_data"
	HardlinkLimit    Reason = "hardlink_limit"

	DeviceNode      Reason = "device_node"
	FIFO            Reason = "fifo"
	UnknownType     Reason = "unknown_type"
	Sparse          Reason = "sparse"
	SetuidSetgid    Reason = "setuid_setgid"
	SpecialBits     Reason = "special_bits"
	ModeOverflow    Reason = "mode_overflow"
	UIDRange        Reason = "uid_range"
	XattrPrivileged Reason = "xattr_privileged"
	XattrInvalid    Reason = "xattr_invalid"
	XattrLimit      Reason = "xattr_limit"
	MtimeRange      Reason = "mtime_range"

	ParseError      Reason = "parse_error"
	AmbiguousHeader Reason = "ambiguous_header"
	PAXGlobalPath   Reason = "pax_global_path"
	PAXLimit        Reason = "pax_limit"
	NoEOFMarker     Reason = "no_eof_marker"
	TrailingGarbage Reason = "trailing_garbage"
	EmptyArchive    Reason = "empty_archive"
	Format          Reason = "format_unknown"

	ImageTooBig    Reason = "image_too_big"
	FileTooBig     Reason = "file_too_big"
	TooManyEntries Reason = "too_many_entries"
	TooManyLayers  Reason = "too_many_layers"
	TreeLimit      Reason = "tree_limit"
	ManifestLimit  Reason = "manifest_limit"

	Layout         Reason = "layout"
	BadManifest    Reason = "bad_manifest"
	MultipleImages Reason = "multiple_images"
	NoPlatform     Reason = "no_platform"
	MissingBlob    Reason = "missing_blob"
	DigestMismatch Reason = "digest_mismatch"
)

// Disposition is what happens to an entry that breaks a rule.
type Disposition string

// The dispositions. All but Keep and Reject leave an Adjustment.
const (
	Reject  Disposition = "reject"
	Keep    Disposition = "keep"
	Rewrite Disposition = "rewrite" // a link or name becomes the equivalent relative one
	Strip   Disposition = "strip"   // bits or attributes are removed
	Skip    Disposition = "skip"    // the entry is not written; its name stays taken
	Replace Disposition = "replace" // the entry takes the place of an earlier one
	Clamp   Disposition = "clamp"   // a time becomes the nearest one that the file system can hold
	Close   Disposition = "close"   // a layer is read as if it had the end marker that it lacks
)

// Rule is one line of the table of rules.
type Rule struct {
	Reason    Reason
	Group     string
	When      string // how an archive breaks the rule
	Strict    Disposition
	Distro    Disposition
	Trusted   Disposition
	Violation bool // an attack, here or on another extractor; refused under every policy
}

// For returns the disposition under a policy.
func (r Rule) For(p Policy) Disposition {
	switch p {
	case Distro:
		return r.Distro
	case Trusted:
		return r.Trusted
	}
	return r.Strict
}

// Adjusts reports whether a policy changes entries for this rule and accepts them.
func (r Rule) Adjusts() bool {
	for _, p := range []Policy{Strict, Distro, Trusted} {
		if d := r.For(p); d != Keep && d != Reject {
			return true
		}
	}
	return false
}

// Rules returns the table of all rules, for documentation. Check judges by the same
// table.
func Rules() []Rule { return slices.Clone(table) }

var table = slices.Concat([]Rule{
	{AbsoluteName, "names", "a name starts with /", Reject, Rewrite, Rewrite, false},
	attack("names", DotdotName, `a name has a component "..", even one that stays inside`),
	never("names", EmptyName, "a name is empty"),
	attack("names", RootNotDir, "the root entry is not a directory"),
	never("names", ControlChar, "a name or link target has a control character"),
	never("names", InvalidUTF8, "a name or link target is not UTF-8"),
	never("names", NameTooLong, "a component has more than 255 bytes"),
	never("names", PathTooLong, "a path has more than 4,095 bytes"),
	never("names", TooDeep, "a path has more than 128 components"),
	{
		Duplicate, "names", "a name is there twice; directories may repeat, the last attributes count (distro and " +
			"trusted take the last entry, but not in the archive around an image, nor in place of a directory with " +
			"entries)",
		Reject, Replace, Replace, false,
	},
	never("names", ParentNotDir, "an entry lies below a file"),
	{
		ThroughLink, "names", "an entry, or a hard link's target, lies below a symbolic link (distro and trusted " +
			"take it for the path where the link leads, if that is a directory in the root; whiteouts follow no link)",
		Reject, Rewrite, Rewrite, false,
	},
	never("names", Whiteout, "a whiteout in an archive without layers"),
	attack("names", WhiteoutName, "a whiteout is not an empty file, or names nothing, itself or a parent"),
	{AufsMetadata, "names", "a name starts with .wh..wh. and is not the opaque marker", Reject, Skip, Skip, false},
	{
		OverlayMarker, "names", "an overlayfs-style whiteout in a layer (character device 0:0)", Reject, Skip, Skip,
		false,
	},

	never("links", SymlinkEmpty, "a symbolic link has no target"),
	never("links", SymlinkTooLong, "a symbolic link's target has more than 4,095 bytes"),
	{
		SymlinkEscapes, "links",
		`a symbolic link climbs above the root in the finished tree, by its own ".." (distro and trusted stop it ` +
			"at the root, as a chroot does)",
		// Trusted does not keep it. An absolute link means the same wherever it is read;
		// outside of a chroot, a climbing one depends on the depth of the mount point.
		Reject, Rewrite, Rewrite, false,
	},
	{SymlinkAbsolute, "links", "a symbolic link's target is absolute", Reject, Rewrite, Keep, false},
	never("links", SymlinkMaze, "following all symbolic links takes more than 8 million steps"),
	attack("links", OutsideRoot,
		"written by its name alone, an entry would be outside of the root: in one tarball it repeats the name of a "+
			"symbolic link that climbs above the root, or lies below such a link or (without layers) an absolute one; "+
			"or it is a hard link to an absolute name that is not in the archive"),
	{HardlinkAbsolute, "links", "a hard link's target is absolute", Reject, Rewrite, Rewrite, false},
	attack("links", HardlinkDotdot, `a hard link's target has a component ".."`),
	never("links", HardlinkToDir, "a hard link to a directory"),
	never("links", HardlinkSelf, "a hard link to itself"),
	never("links", HardlinkMissing, "a hard link to a name that is not in the archive"),
	never("links", HardlinkForward, "a hard link to a later entry"),
	never("links", HardlinkWithData, "a hard link that declares data"),
	never("links", HardlinkLimit, "a file with more than 65,000 names"),

	{DeviceNode, "types", "a character or block device", Reject, Skip, Skip, false},
	{FIFO, "types", "a named pipe", Reject, Skip, Skip, false},
	never("types", UnknownType, "an entry of a type that is not understood"),
	never("types", Sparse, "a sparse file, in any spelling"),
	{SetuidSetgid, "modes", "setuid or setgid, on files and directories", Reject, Strip, Keep, false},
	{SpecialBits, "modes", "sticky on a file", Reject, Strip, Strip, false},
	never("modes", ModeOverflow, "mode bits above 07777 that are not the entry's own file type"),
	attack("owners", UIDRange, "an owner outside of 0..2^32-2, in any spelling: it would become another, perhaps root"),
	{
		XattrPrivileged, "attributes",
		"attributes other than user.*: capabilities, ACLs, security.*, trusted.*, system.*, file flags " +
			"(trusted keeps capabilities)",
		Reject, Strip, Strip, false,
	},
	{XattrInvalid, "attributes", "an attribute that Linux would not take", Reject, Strip, Strip, false},
	never("attributes", XattrLimit, "attributes of a file that do not fit 4 KiB"),
	{MtimeRange, "times", "a time that ext4 cannot hold", Reject, Clamp, Clamp, false},

	never("framing", ParseError, "a malformed or truncated header, or truncated data"),
	attack("framing", AmbiguousHeader, "headers that readers understand differently"),
	attack("framing", PAXGlobalPath, "a global header that changes more of entries than times"),
	never("framing", PAXLimit, "extended headers of more than 64 KiB for one entry, or a global header of more"),
	{
		NoEOFMarker, "framing", "fewer than two blocks of zeros at the end (distro and trusted take such a layer, " +
			"even one of zero bytes, as its digest proves that nothing is missing)",
		Reject, Close, Close, false,
	},
	never("framing", TrailingGarbage, "something other than zeros after the end"),
	never("framing", EmptyArchive, "no entries"),
	never("framing", Format, "the file is not a tar archive, and of no known format"),

	never("limits", ImageTooBig, "the archive, its files together, or its layers together, exceed 10 GiB"),
	never("limits", FileTooBig, "a file exceeds 1 GiB"),
	never("limits", TooManyEntries, "more than 100,000 entries, implied directories included"),
	never("limits", TooManyLayers, "more than 128 layers"),
	never("limits", TreeLimit, "names, link targets and attributes exceed 20 MiB together, each attribute taken "+
		"for 64 bytes more"),
	never("limits", ManifestLimit, "an image's indexes and manifests name more than 10,000 things, or its "+
		"documents exceed 16 MiB together"),

	never("shape", Layout, "no root file system with etc, usr and var; or something beside rootfs/"),
	never("shape", BadManifest, "an image's manifest, index or configuration is malformed; or there are signatures, "+
		"attestations and other artifacts only"),
	never("shape", MultipleImages, "more than one image for this platform and of the best variant, each counted once "+
		"under all of its names"),
	never("shape", NoPlatform, "no image for this platform, as its descriptor or its configuration says"),
	never("shape", MissingBlob, "a layer, manifest or configuration is not in the archive"),
	attack("shape", DigestMismatch, "content that does not have its digest or size"),
}, formatRules())

// never returns a rule without exception.
func never(group string, reason Reason, when string) Rule {
	return Rule{Reason: reason, Group: group, When: when, Strict: Reject, Distro: Reject, Trusted: Reject}
}

// attack returns a rule without exception. No honest writer breaks it.
func attack(group string, reason Reason, when string) Rule {
	r := never(group, reason, when)
	r.Violation = true
	return r
}

var byReason = func() map[Reason]Rule {
	m := make(map[Reason]Rule, len(table))
	for _, r := range table {
		m[r.Reason] = r
	}
	return m
}()
