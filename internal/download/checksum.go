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

// checksum is what S3 says of all bytes of an object. The zero value says nothing.
type checksum struct {
	Algorithm types.ChecksumAlgorithm
	Value     string // base64
}

// nvme is the polynomial of CRC-64/NVME, which S3 gives to every object uploaded without
// a checksum.
var nvme = crc64.MakeTable(0x9a6c9329ac4bc9b5)

// best picks the checksum to hold the bytes against. A composite one, that of a multipart
// upload's parts, says nothing about the whole and is not taken.
func best(kind types.ChecksumType, etag *string, all ...checksum) checksum {
	for _, c := range all {
		if c.Value != "" && !c.composite(kind, aws.ToString(etag)) {
			return c
		}
	}
	return checksum{}
}

// composite reports whether a checksum is that of the parts, or may be. S3 says it by the
// type, and by "-" and the number of parts behind the value. There are servers that do
// neither (moto 5.2): where the ETag is that of an upload in parts and there is no type,
// only CRC-64/NVME is certain to be of the whole, since there is no composite one.
func (c checksum) composite(kind types.ChecksumType, etag string) bool {
	inParts := strings.Contains(etag, "-")
	return kind == types.ChecksumTypeComposite || strings.Contains(c.Value, "-") ||
		kind == "" && inParts && c.Algorithm != types.ChecksumAlgorithmCrc64nvme
}

// ofHead is the checksum that a HeadObject answered with.
func ofHead(out *s3.HeadObjectOutput) checksum {
	return best(out.ChecksumType, out.ETag,
		checksum{types.ChecksumAlgorithmSha256, aws.ToString(out.ChecksumSHA256)},
		checksum{types.ChecksumAlgorithmCrc64nvme, aws.ToString(out.ChecksumCRC64NVME)},
		checksum{types.ChecksumAlgorithmCrc32c, aws.ToString(out.ChecksumCRC32C)},
		checksum{types.ChecksumAlgorithmCrc32, aws.ToString(out.ChecksumCRC32)})
}

// ofGet is the SHA-256 that a GetObject answered with. Its other algorithms are the SDK's
// to validate.
func ofGet(out *s3.GetObjectOutput) checksum {
	return best(out.ChecksumType, out.ETag, checksum{types.ChecksumAlgorithmSha256, aws.ToString(out.ChecksumSHA256)})
}

// hasher takes the checksum; nil where it is the SHA-256 that is taken anyway, or
// nothing.
func (c checksum) hasher() hash.Hash {
	switch c.Algorithm {
	case types.ChecksumAlgorithmCrc64nvme:
		return crc64.New(nvme)
	case types.ChecksumAlgorithmCrc32c:
		return crc32.New(crc32.MakeTable(crc32.Castagnoli))
	case types.ChecksumAlgorithmCrc32:
		return crc32.NewIEEE()
	}
	return nil
}

// compare holds what was taken of the bytes against what S3 says.
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

// hexOf is how a SHA-256 is written everywhere but in S3's headers.
func hexOf(sum hash.Hash) string { return hex.EncodeToString(sum.Sum(nil)) }
