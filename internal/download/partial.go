package download

import (
	"crypto/sha256"
	"errors"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"imagemanager.internal/internal/durable"
	"imagemanager.internal/internal/failpoint"
)

// partial is a temporary file that is filled from several places at once. Its prefix up
// to offset is on disk, hashed, and described by the state file beside it; what lies
// beyond may be anything.
type partial struct {
	file, state *os.File
	object      identity
	inode       uint64
	offset      int64
	sha256      hash.Hash
	other       hash.Hash // S3's checksum, where it is another
	failed      error     // of an advance: the hashes are beyond the offset, and nothing more is to be saved
}

// openPartial takes up the temporary file at path where it is one of this object, and
// begins a new one where not.
func openPartial(path string, id identity) (*partial, error) {
	if p, err := resumePartial(path, id); err == nil {
		return p, nil
	}
	return beginPartial(path, id) // a disk that is to blame will say so again
}

// resumePartial takes up what an earlier download left.
func resumePartial(path string, id identity) (_ *partial, err error) {
	p := &partial{object: id, sha256: sha256.New(), other: id.Checksum.hasher()}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	if p.state, err = open(path+stateSuffix, os.O_RDWR); err != nil {
		return nil, err
	}
	if p.file, err = open(path, os.O_RDWR); err != nil {
		return nil, err
	}
	s, err := load(p.state)
	if err != nil {
		return nil, err
	}
	if err := s.describes(id, p.file); err != nil {
		return nil, err
	}
	p.inode, p.offset = s.Inode, s.Offset
	return p, errors.Join(thaw(p.sha256, s.SHA256), thaw(p.other, s.Other))
}

// beginPartial makes a new temporary file, with room for all of the object, and an empty
// state.
func beginPartial(path string, id identity) (_ *partial, err error) {
	// The old state must be gone for good before there are new bytes for it to lie about.
	if err := errors.Join(discard(path), durable.SyncDir(filepath.Dir(path))); err != nil {
		return nil, err
	}
	p := &partial{object: id, sha256: sha256.New(), other: id.Checksum.hasher()}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	if p.file, err = open(path, os.O_RDWR|os.O_CREATE|os.O_EXCL); err != nil {
		return nil, err
	}
	if err := reserve(p.file, id.Size); err != nil {
		return nil, err
	}
	info, err := p.file.Stat()
	if err != nil {
		return nil, err
	}
	p.inode = inode(info)
	p.state, err = open(path+stateSuffix, os.O_RDWR|os.O_CREATE|os.O_EXCL)
	return p, err
}

// advance hashes the bytes from the offset up to there, which are all written, and moves
// the offset. The order is what makes the state true after a power cut: first the bytes
// are on disk, then it is written that they are.
func (p *partial) advance(to int64) error {
	if p.failed == nil {
		p.failed = p.follow(to)
	}
	return p.failed
}

// follow is advance, which nothing follows if it fails.
func (p *partial) follow(to int64) error {
	all := io.Writer(p.sha256)
	if p.other != nil {
		all = io.MultiWriter(p.sha256, p.other)
	}
	// From the page cache: the bytes were written a moment ago. So no part is kept in
	// memory until its turn comes.
	n, err := io.CopyBuffer(all, io.NewSectionReader(p.file, p.offset, to-p.offset), make([]byte, chunk))
	if err == nil && n < to-p.offset {
		err = &fs.PathError{Op: "read", Path: p.file.Name(), Err: io.ErrUnexpectedEOF}
	}
	if err != nil {
		return err
	}
	if err := p.file.Sync(); err != nil {
		return err
	}
	p.offset = to
	failpoint.Here("before", "progress", "blob")
	defer failpoint.Here("after", "progress", "blob")
	return p.save()
}

// save writes the state file.
func (p *partial) save() error {
	s := state{Object: p.object, Inode: p.inode, Offset: p.offset}
	var errs [3]error
	s.Tail, errs[0] = tailOf(p.file, p.offset)
	s.SHA256, errs[1] = freeze(p.sha256)
	s.Other, errs[2] = freeze(p.other)
	if err := errors.Join(errs[:]...); err != nil {
		return err
	}
	return s.save(p.state)
}

// finish compares the checksum and describes the file, of which all is on disk now.
func (p *partial) finish() (Blob, error) {
	sum := p.sha256
	if p.other != nil {
		sum = p.other
	}
	if err := p.object.Checksum.compare(sum.Sum(nil)); err != nil {
		return Blob{}, err
	}
	blob, err := describe(p.file)
	blob.SHA256, blob.ETag, blob.VersionID = hexOf(p.sha256), p.object.ETag, p.object.VersionID
	return blob, err
}

func (p *partial) close() {
	for _, f := range []*os.File{p.file, p.state} {
		if f != nil {
			f.Close()
		}
	}
}

// discard removes a temporary file and its state, the state first: one without the other
// must not be taken for progress.
func discard(path string) error {
	for _, p := range []string{path + stateSuffix, path} {
		if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
