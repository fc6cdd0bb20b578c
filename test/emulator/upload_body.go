package emulator

import (
	"crypto/md5" //nolint:gosec // what ETags are made of
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"net/http"
	"strconv"
)

// received is a body that has been stored and is what its sender said it is.
type received struct {
	segment
	md5 []byte
	sum checksum
}

// payload is a request's body without framing.
func payload(r *http.Request) io.Reader {
	if isChunked(r) {
		return newChunkReader(r.Body)
	}
	return r.Body
}

// receive stores a request's body and compares it with every digest that came with it,
// before or behind it. Nothing is stored where one differs.
func (b *buckets) receive(r *http.Request) (received, error) {
	alg, explicit, err := requested(r)
	if err != nil {
		return received{}, err
	}
	from := payload(r)
	hashes := digests{md5: md5.New(), sum: alg.new(), sha256: sha256.New()} //nolint:gosec // what ETags are made of
	tap := io.MultiWriter(hashes.md5, hashes.sum)
	if _, err := hex.DecodeString(r.Header.Get("X-Amz-Content-Sha256")); err == nil {
		tap = io.MultiWriter(tap, hashes.sha256)
	}
	seg, err := b.spool.write(from, tap)
	if err != nil {
		return received{}, incomplete(err)
	}
	want := r.Header.Get(alg.header())
	if c, ok := from.(*chunkReader); ok && want == "" {
		want = c.trailer.Get(alg.header())
	}
	value := base64.StdEncoding.EncodeToString(hashes.sum.Sum(nil))
	if err = hashes.compare(r, seg.size); err == nil && explicit && want != "" && want != value {
		err = errBadDigest.with("The %s you specified did not match the calculated checksum.", alg.name)
	}
	if err != nil {
		b.spool.remove(body{seg})
		return received{}, err
	}
	return received{seg, hashes.md5.Sum(nil), checksum{alg, value, fullObject}}, nil
}

// incomplete turns the errors of a body that the client cut short into S3's; others are
// returned as they are.
func incomplete(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, errChunks) {
		return errIncomplete
	}
	return err
}

// digests are taken while a body is stored.
type digests struct {
	md5, sum, sha256 hash.Hash
}

// compare checks the digests and the size that the header announces.
func (d digests) compare(r *http.Request, size int64) error {
	if length := r.Header.Get("X-Amz-Decoded-Content-Length"); length != "" && length != strconv.FormatInt(size, 10) {
		return errIncomplete
	}
	if text := r.Header.Get("Content-Md5"); text != "" {
		raw, err := base64.StdEncoding.DecodeString(text)
		if err != nil || len(raw) != md5.Size {
			return errInvalidDigest
		}
		if string(raw) != string(d.md5.Sum(nil)) {
			return errBadDigest
		}
	}
	raw, err := hex.DecodeString(r.Header.Get("X-Amz-Content-Sha256"))
	if err == nil && len(raw) == sha256.Size && string(raw) != string(d.sha256.Sum(nil)) {
		return errSHA256
	}
	return nil
}

// copyPart stores what a section holds as a part.
func (b *buckets) copyPart(in io.WriterTo, alg algorithm) (part, error) {
	hashes := digests{md5: md5.New(), sum: alg.new()} //nolint:gosec // what ETags are made of
	seg, err := b.spool.writeFrom(in, io.MultiWriter(hashes.md5, hashes.sum))
	if err != nil {
		return part{}, err
	}
	sum := checksum{alg, base64.StdEncoding.EncodeToString(hashes.sum.Sum(nil)), fullObject}
	return part{content: body{seg}, size: seg.size, md5: hashes.md5.Sum(nil), sum: sum, modified: b.clock.Now()}, nil
}
