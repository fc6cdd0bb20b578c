package download

import (
	"bytes"
	"crypto/sha256"
	"encoding"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"syscall"
)

const (
	// stateSuffix marks the state file beside a temporary one.
	stateSuffix = ".state"
	// maxState is larger than any state file, in bytes: keys and ETags are bounded.
	maxState = 16 << 10
	// tailBytes is how much before the offset is compared before a prefix is trusted.
	tailBytes = 64 << 10
)

// errState is returned for an unusable state file or temporary file. It does not fail the
// download: the download begins at 0.
var errState = errors.New("cannot resume")

// state is a download's saved progress: the first Offset bytes of the temporary file are
// on disk and have this hash. It is trusted only for the same object and the same file,
// and only if the bytes before the offset are unchanged.
type state struct {
	Object identity
	Inode  uint64
	Offset int64
	Tail   string // SHA-256 of the last bytes before the offset, in hex
	SHA256 []byte // the marshalled hash
	Other  []byte // the same for partial.other
}

// write overwrites the old state by one write(2): a killed process leaves the old or the
// new one. A power cut may leave a torn one; its first line, the SHA-256 of the second,
// then does not match.
func (s state) write(f *os.File) error {
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(fmt.Appendf(nil, "%s\n%s\n", sumHex(text), text), 0)
	return err
}

// readState reads a state file.
func readState(f *os.File) (state, error) {
	var s state
	text, err := io.ReadAll(io.NewSectionReader(f, 0, maxState))
	if err != nil {
		return s, err
	}
	sum, text, _ := bytes.Cut(text, []byte("\n"))
	text, _, _ = bytes.Cut(text, []byte("\n"))
	if string(sum) != sumHex(text) {
		return s, fmt.Errorf("%w: the state is torn", errState)
	}
	return s, json.Unmarshal(text, &s)
}

// checkMatches checks that the state belongs to the object and the file.
func (s state) checkMatches(id identity, f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	switch {
	case s.Object != id:
		return fmt.Errorf("%w: it belongs to another object", errState)
	case s.Inode != inode(info):
		return fmt.Errorf("%w: it belongs to another file", errState)
	case s.Offset <= 0 || s.Offset > id.Size || info.Size() < s.Offset || info.Size() > id.Size:
		return fmt.Errorf("%w: offset %d in a file of %d bytes", errState, s.Offset, info.Size())
	}
	tail, err := tailOf(f, s.Offset)
	if err == nil && tail != s.Tail {
		err = fmt.Errorf("%w: the file does not end as it did at %d", errState, s.Offset)
	}
	return err
}

// tailOf returns the SHA-256 of the bytes right before the offset, in hex.
func tailOf(f *os.File, offset int64) (string, error) {
	from := max(0, offset-tailBytes)
	text := make([]byte, offset-from)
	if _, err := f.ReadAt(text, from); err != nil {
		return "", err
	}
	return sumHex(text), nil
}

func sumHex(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// marshalHash returns the state of a hash, nil for nil.
func marshalHash(h hash.Hash) ([]byte, error) {
	if h == nil {
		return nil, nil
	}
	m, ok := h.(encoding.BinaryMarshaler)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	return m.MarshalBinary()
}

// unmarshalHash restores the state of a hash.
func unmarshalHash(h hash.Hash, text []byte) error {
	if h == nil {
		return nil
	}
	m, ok := h.(encoding.BinaryUnmarshaler)
	if !ok {
		return errors.ErrUnsupported
	}
	return m.UnmarshalBinary(text)
}

// openNoFollow opens a file, but never through a link.
func openNoFollow(path string, flags int) (*os.File, error) {
	return os.OpenFile(path, flags|syscall.O_NOFOLLOW, 0o600)
}
