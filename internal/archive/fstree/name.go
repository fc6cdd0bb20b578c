package fstree

// MaxShown is the largest number of bytes of a name that appear in a message.
const MaxShown = 256

// TruncateName shortens a text from an archive to MaxShown bytes, for use in a message.
func TruncateName(s string) string {
	if len(s) <= MaxShown {
		return s
	}
	return s[:MaxShown-3] + "..."
}
