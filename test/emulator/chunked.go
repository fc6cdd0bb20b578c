package emulator

import (
	"bufio"
	"errors"
	"io"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
)

// errChunks is returned for a body without the framing that its request announces.
var errChunks = errors.New("malformed aws-chunked body")

// chunkReader reads the framing that S3 clients put around a body whose checksum or
// signature follows it: "Signature calculation, transferring payload in multiple chunks".
// Signatures are skipped; the trailer is known after the end.
type chunkReader struct {
	r       *bufio.Reader
	left    int64 // of the chunk
	opened  bool  // a chunk was begun: its end has a line end
	done    bool
	trailer http.Header
}

func newChunkReader(r io.Reader) *chunkReader {
	return &chunkReader{r: bufio.NewReaderSize(r, 64<<10), trailer: http.Header{}}
}

// Read returns content without framing. io.EOF comes only after a complete last chunk and
// trailer.
func (c *chunkReader) Read(p []byte) (int, error) {
	for c.left == 0 {
		if c.done {
			return 0, io.EOF
		}
		if err := c.next(); err != nil {
			return 0, noEOF(err)
		}
	}
	n, err := c.r.Read(p[:min(int64(len(p)), c.left)])
	c.left -= int64(n)
	return n, noEOF(err)
}

// noEOF makes the end of the connection an error: the last chunk says where the body
// ends.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// next reads a chunk's header and, behind the last, the trailer.
func (c *chunkReader) next() error {
	if c.opened {
		if line, err := c.line(); err != nil || line != "" {
			return errors.Join(errChunks, err)
		}
	}
	line, err := c.line()
	if err != nil {
		return err
	}
	size, _, _ := strings.Cut(line, ";")
	c.left, err = strconv.ParseInt(size, 16, 64)
	if err != nil || c.left < 0 {
		return errChunks
	}
	c.opened = true
	if c.left == 0 {
		c.done = true
		return c.end()
	}
	return nil
}

// end reads the trailer up to an empty line, or the end: clients differ.
func (c *chunkReader) end() error {
	for {
		line, err := c.line()
		if errors.Is(err, io.EOF) || err == nil && line == "" {
			return nil
		}
		name, value, ok := strings.Cut(line, ":")
		if err != nil || !ok {
			return errors.Join(errChunks, err)
		}
		c.trailer.Set(textproto.TrimString(name), textproto.TrimString(value))
	}
}

func (c *chunkReader) line() (string, error) {
	line, err := c.r.ReadSlice('\n')
	if err != nil {
		return "", err
	}
	return strings.TrimRight(string(line), "\r\n"), nil
}

// isChunked reports whether the body of a request is framed.
func isChunked(r *http.Request) bool {
	return strings.HasPrefix(r.Header.Get("X-Amz-Content-Sha256"), "STREAMING-") ||
		strings.Contains(r.Header.Get("Content-Encoding"), "aws-chunked")
}
