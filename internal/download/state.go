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
	// stateSuffix marks the file beside a temporary one that says how much of it counts.
	stateSuffix = ".state"
	// maxState is more than a state file ever has, in bytes: keys and ETags are bounded.
	maxState = 16 << 10
	// tailBytes is how much before the offset is read again before a prefix counts.
	tailBytes = 64 << 10
)

// errState says that a state file, or the temporary file that it describes, is not to be
// used. It is no reason to fail: the download begins again.
var errState = errors.New("cannot resume")

// state is a download's progress: the first Offset bytes of the temporary file are on
// disk and have this hash. It is trusted only for the very object and the very file, and
// only if the file is that long and ends, at the offset, as it did.
type state struct {
	Object identity
	Inode  uint64
	Offset int64
	Tail   string // SHA-256 of the last bytes before the offset, in hex
	SHA256 []byte // the hash's own state
	Other  []byte // that of S3's checksum, where it is another
}

// save writes the state over the one before, by one write(2): a killed process leaves the
// old or the new one. After a power cut it may be torn, which its first line, the SHA-256
// of the second, gives away.
func (s state) save(f *os.File) error {
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(fmt.Appendf(nil, "%s\n%s\n", sumHex(text), text), 0)
	return err
}

// load reads a state file.
func load(f *os.File) (state, error) {
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

// describes tells whether the state is that of the object in the file.
func (s state) describes(id identity, f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	switch {
	case s.Object != id:
		return fmt.Errorf("%w: it is of another object", errState)
	case s.Inode != inode(info):
		return fmt.Errorf("%w: it is of another file", errState)
	case s.Offset <= 0 || s.Offset > id.Size || info.Size() < s.Offset || info.Size() > id.Size:
		return fmt.Errorf("%w: offset %d in a file of %d bytes", errState, s.Offset, info.Size())
	}
	tail, err := tailOf(f, s.Offset)
	if err == nil && tail != s.Tail {
		err = fmt.Errorf("%w: the file does not end as it did at %d", errState, s.Offset)
	}
	return err
}

// tailOf is the SHA-256 of the bytes right before the offset.
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

// freeze is a hash's state; that of no hash is nil.
func freeze(h hash.Hash) ([]byte, error) {
	if h == nil {
		return nil, nil
	}
	m, ok := h.(encoding.BinaryMarshaler)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	return m.MarshalBinary()
}

// thaw brings a hash back to its state.
func thaw(h hash.Hash, text []byte) error {
	if h == nil {
		return nil
	}
	m, ok := h.(encoding.BinaryUnmarshaler)
	if !ok {
		return errors.ErrUnsupported
	}
	return m.UnmarshalBinary(text)
}

// open opens a file of ours, never what a link leads to.
func open(path string, flags int) (*os.File, error) {
	return os.OpenFile(path, flags|syscall.O_NOFOLLOW, 0o600)
}
