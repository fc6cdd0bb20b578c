package images

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
)

// File is a layer that is too large for memory.
type File struct {
	Path   string
	SHA256 string // hex
	Size   int64

	body string // of a layer that is in memory
}

// LayerFile looks at a layer that lies in a file.
func LayerFile(path string) (File, error) {
	f, err := os.Open(path)
	if err != nil {
		return File{}, err
	}
	defer f.Close()
	hash := sha256.New()
	n, err := io.Copy(hash, f)
	return File{Path: path, SHA256: hex.EncodeToString(hash.Sum(nil)), Size: n}, err
}

// layers are all of an image's, lowest first.
func (im Image) layers() []File {
	var all []File
	for _, l := range im.Layers {
		all = append(all, File{SHA256: Sum(l), Size: int64(len(l)), body: string(l)})
	}
	return append(all, im.Files...)
}

func (f File) entry(name string) Entry {
	e := Entry{Name: name, Body: f.body, From: f.Path}
	if f.Path != "" {
		e.Size = f.Size
	}
	return e
}

// Write writes the archive of the entries, with its end marker, as Tar makes it in
// memory.
func Write(w io.Writer, entries ...Entry) error {
	for _, e := range entries {
		if _, err := w.Write(Blocks(e)); err != nil {
			return err
		}
		if e.From == "" {
			continue
		}
		if err := copyFile(w, e.From, e.Size); err != nil {
			return err
		}
	}
	_, err := w.Write(End(nil))
	return err
}

// copyFile writes a file of that size, padded to a block.
func copyFile(w io.Writer, path string, size int64) (err error) {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	n, err := io.Copy(w, f)
	if err == nil && n != size {
		err = fmt.Errorf("%s has %d bytes, declared %d", path, n, size)
	}
	if err != nil {
		return err
	}
	_, err = w.Write(make([]byte, (blockSize-n%blockSize)%blockSize))
	return err
}
