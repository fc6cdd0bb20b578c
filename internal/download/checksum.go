package download

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// checksum is S3's checksum of all bytes of an object. The zero value is none.
type checksum struct {
	Algorithm types.ChecksumAlgorithm
	Value     string // base64
}

// crc64NVME has the polynomial of CRC-64/NVME. S3 uses it for every object uploaded
// without a checksum.
var crc64NVME = crc64.MakeTable(0x9a6c9329ac4bc9b5)

// pickChecksum returns the first usable checksum. A composite one is not usable: it is
// that of a multipart upload's parts and says nothing about the whole.
func pickChecksum(kind types.ChecksumType, etag *string, all ...checksum) checksum {
	for _, c := range all {
		if c.Value != "" && !c.composite(kind, aws.ToString(etag)) {
			return c
		}
	}
	return checksum{}
}

// composite reports whether a checksum is, or may be, that of the parts. S3 marks it by
// the type, and by "-" and the number of parts after the value. Some servers do neither
// (moto 5.2): if there is no type and the ETag is that of an upload in parts, only
// CRC-64/NVME is certain to be of the whole, because it has no composite form.
func (c checksum) composite(kind types.ChecksumType, etag string) bool {
	inParts := strings.Contains(etag, "-")
	return kind == types.ChecksumTypeComposite || strings.Contains(c.Value, "-") ||
		kind == "" && inParts && c.Algorithm != types.ChecksumAlgorithmCrc64nvme
}

// headChecksum is the checksum in the answer to a HeadObject.
func headChecksum(out *s3.HeadObjectOutput) checksum {
	return pickChecksum(out.ChecksumType, out.ETag,
		checksum{types.ChecksumAlgorithmSha256, aws.ToString(out.ChecksumSHA256)},
		checksum{types.ChecksumAlgorithmCrc64nvme, aws.ToString(out.ChecksumCRC64NVME)},
		checksum{types.ChecksumAlgorithmCrc32c, aws.ToString(out.ChecksumCRC32C)},
		checksum{types.ChecksumAlgorithmCrc32, aws.ToString(out.ChecksumCRC32)})
}

// getChecksum is the SHA-256 in the answer to a GetObject. The SDK validates the other
// algorithms.
func getChecksum(out *s3.GetObjectOutput) checksum {
	return pickChecksum(out.ChecksumType, out.ETag,
		checksum{types.ChecksumAlgorithmSha256, aws.ToString(out.ChecksumSHA256)})
}

// newHash returns a hash for the checksum's algorithm. It is nil without a checksum, and
// for SHA-256: that one is computed anyway.
func (c checksum) newHash() hash.Hash {
	switch c.Algorithm {
	case types.ChecksumAlgorithmCrc64nvme:
		return crc64.New(crc64NVME)
	case types.ChecksumAlgorithmCrc32c:
		return crc32.New(crc32.MakeTable(crc32.Castagnoli))
	case types.ChecksumAlgorithmCrc32:
		return crc32.NewIEEE()
	}
	return nil
}

// compare checks the sum of the bytes against S3's checksum.
func (c checksum) compare(sum []byte) error {
	if c == (checksum{}) {
		return nil
	}
	if want, err := base64.StdEncoding.DecodeString(c.Value); err != nil || !bytes.Equal(want, sum) {
		return fmt.Errorf("%w: %s is %s, S3 says %s",
			ErrCorrupt, c.Algorithm, base64.StdEncoding.EncodeToString(sum), c.Value)
	}
	return nil
}

// hexOf writes a SHA-256 in hex. Only S3's headers have it in base64.
func hexOf(sum hash.Hash) string { return hex.EncodeToString(sum.Sum(nil)) }
