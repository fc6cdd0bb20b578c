package fstree

// MaxShown is the largest length of a name in a message, in bytes.
const MaxShown = 256

// TruncateName shortens a text from an archive to MaxShown bytes, for use in a message.
func TruncateName(s string) string {
	if len(s) <= MaxShown {
		return s
	}
	return s[:MaxShown-3] + "..."
}
