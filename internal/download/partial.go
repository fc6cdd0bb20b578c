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

// partial is a temporary file written at several places at once. Its prefix up to offset
// is on disk, hashed, and recorded in the state file beside it. The bytes beyond may be
// anything.
type partial struct {
	file, state *os.File
	object      identity
	inode       uint64
	offset      int64
	sha256      hash.Hash
	other       hash.Hash // for S3's checksum; nil if that is the SHA-256 or there is none
	failed      error     // of an advance: the hashes are beyond the offset, so nothing more may be saved
}

// openPartial resumes the temporary file at path if it belongs to this object, and begins
// a new one if not.
func openPartial(path string, id identity) (*partial, error) {
	if p, err := resumePartial(path, id); err == nil {
		return p, nil
	}
	return beginPartial(path, id) // if the disk is to blame, this fails too
}

// resumePartial opens the files of an earlier download.
func resumePartial(path string, id identity) (_ *partial, err error) {
	p := &partial{object: id, sha256: sha256.New(), other: id.Checksum.newHash()}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	if p.state, err = openNoFollow(path+stateSuffix, os.O_RDWR); err != nil {
		return nil, err
	}
	if p.file, err = openNoFollow(path, os.O_RDWR); err != nil {
		return nil, err
	}
	s, err := readState(p.state)
	if err != nil {
		return nil, err
	}
	if err := s.checkMatches(id, p.file); err != nil {
		return nil, err
	}
	p.inode, p.offset = s.Inode, s.Offset
	return p, errors.Join(unmarshalHash(p.sha256, s.SHA256), unmarshalHash(p.other, s.Other))
}

// beginPartial creates a temporary file, with space allocated for the whole object, and
// an empty state.
func beginPartial(path string, id identity) (_ *partial, err error) {
	// The old state must be durably removed first: it would be wrong about the new bytes.
	if err := errors.Join(removeTemp(path), durable.SyncDir(filepath.Dir(path))); err != nil {
		return nil, err
	}
	p := &partial{object: id, sha256: sha256.New(), other: id.Checksum.newHash()}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	if p.file, err = openNoFollow(path, os.O_RDWR|os.O_CREATE|os.O_EXCL); err != nil {
		return nil, err
	}
	if err := preallocate(p.file, id.Size); err != nil {
		return nil, err
	}
	info, err := p.file.Stat()
	if err != nil {
		return nil, err
	}
	p.inode = inode(info)
	p.state, err = openNoFollow(path+stateSuffix, os.O_RDWR|os.O_CREATE|os.O_EXCL)
	return p, err
}

// advance hashes the bytes up to the new offset, all of them written, and moves the
// offset. The order makes the state true after a power cut: first the bytes are on disk,
// then the state says so. After a failure every further advance fails as well.
func (p *partial) advance(to int64) error {
	if p.failed == nil {
		p.failed = p.advanceOnce(to)
	}
	return p.failed
}

// advanceOnce is advance without the memory of failures.
func (p *partial) advanceOnce(to int64) error {
	all := io.Writer(p.sha256)
	if p.other != nil {
		all = io.MultiWriter(p.sha256, p.other)
	}
	// The bytes were written a moment ago, so they come from the page cache. No part has
	// to stay in memory until its turn comes.
	buf := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(buf)
	n, err := io.CopyBuffer(all, io.NewSectionReader(p.file, p.offset, to-p.offset), buf[:])
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
	s.SHA256, errs[1] = marshalHash(p.sha256)
	s.Other, errs[2] = marshalHash(p.other)
	if err := errors.Join(errs[:]...); err != nil {
		return err
	}
	return s.write(p.state)
}

// finish compares the checksum and returns the blob. The whole file is on disk.
func (p *partial) finish() (Blob, error) {
	sum := p.sha256
	if p.other != nil {
		sum = p.other
	}
	if err := p.object.Checksum.compare(sum.Sum(nil)); err != nil {
		return Blob{}, err
	}
	blob, err := statBlob(p.file)
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

// removeTemp removes a temporary file and its state. The state goes first: a state alone
// must not be taken for progress.
func removeTemp(path string) error {
	for _, p := range []string{path + stateSuffix, path} {
		if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
