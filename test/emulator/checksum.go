package emulator

import (
	"crypto/md5"  //nolint:gosec // what ETags are made of
	"crypto/sha1" //nolint:gosec // one of S3's algorithms
	"crypto/sha256"
	"encoding/base64"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"net/http"
	"strconv"
	"strings"
)

// algorithm is one of the checksums that S3 keeps beside an object.
type algorithm struct {
	name string // as in headers, upper case
	new  func() hash.Hash
	// whole is how the checksum of an object uploaded in parts is taken unless said: of
	// the content, or of the parts' checksums.
	whole bool
}

// header is where the checksum is in requests and answers.
func (a algorithm) header() string { return "X-Amz-Checksum-" + a.name }

// lower is how S3's messages name it.
func (a algorithm) lower() string { return strings.ToLower(a.name) }

// crc64NVME is the polynomial of the NVM Express specification, reversed.
const crc64NVME = 0x9a6c9329ac4bc9b5

var algorithms = []algorithm{
	{"CRC32", func() hash.Hash { return crc32.NewIEEE() }, false},
	{"CRC32C", func() hash.Hash { return crc32.New(crc32.MakeTable(crc32.Castagnoli)) }, false},
	{"CRC64NVME", func() hash.Hash { return crc64.New(crc64.MakeTable(crc64NVME)) }, true},
	{"SHA1", sha1.New, false},
	{"SHA256", sha256.New, false},
}

// byDefault is what S3 takes of a body that comes without a checksum.
var byDefault = algorithms[2]

func findAlgorithm(name string) (algorithm, bool) {
	for _, a := range algorithms {
		if strings.EqualFold(a.name, name) {
			return a, true
		}
	}
	return algorithm{}, false
}

const (
	fullObject = "FULL_OBJECT"
	composite  = "COMPOSITE"
)

// checksum is a value with its meaning; the zero value is none.
type checksum struct {
	alg   algorithm
	value string // base64; behind it "-" and the number of parts where it is composite
	kind  string // fullObject or composite
}

// announce puts the checksum into the answer's header.
func (s checksum) announce(h http.Header) {
	if s.value != "" {
		h.Set(s.alg.header(), s.value)
		h.Set("X-Amz-Checksum-Type", s.kind)
	}
}

// checksumFields are the checksum in the XML documents.
type checksumFields struct {
	ChecksumCRC32     string `xml:",omitempty"`
	ChecksumCRC32C    string `xml:",omitempty"`
	ChecksumCRC64NVME string `xml:",omitempty"`
	ChecksumSHA1      string `xml:",omitempty"`
	ChecksumSHA256    string `xml:",omitempty"`
}

// fields is the checksum in the form of the documents.
func (s checksum) fields() checksumFields {
	var f checksumFields
	if p := f.of(s.alg.name); p != nil {
		*p = s.value
	}
	return f
}

// of is the field of an algorithm.
func (f *checksumFields) of(name string) *string {
	return map[string]*string{
		"CRC32": &f.ChecksumCRC32, "CRC32C": &f.ChecksumCRC32C, "CRC64NVME": &f.ChecksumCRC64NVME,
		"SHA1": &f.ChecksumSHA1, "SHA256": &f.ChecksumSHA256,
	}[name]
}

// requested is the algorithm of the checksum that a request brings, in header or
// trailer; ok is false where it brings none.
func requested(r *http.Request) (a algorithm, ok bool, err error) {
	for _, a := range algorithms {
		value := r.Header.Get(a.header())
		if value == "" {
			continue
		}
		if raw, err := base64.StdEncoding.DecodeString(value); err != nil || len(raw) != a.new().Size() {
			return algorithm{}, false, errInvalidRequest.with("Value for %s header is invalid.",
				strings.ToLower(a.header()))
		}
		return a, true, nil
	}
	trailer := r.Header.Get("X-Amz-Trailer")
	switch {
	case trailer == "" && r.Header.Get("X-Amz-Sdk-Checksum-Algorithm") != "":
		return algorithm{}, false,
			errInvalidRequest.with("x-amz-sdk-checksum-algorithm specified, but no " +
				"corresponding x-amz-checksum-* or x-amz-trailer headers were found.")
	case trailer == "":
		return byDefault, false, nil
	}
	name := strings.TrimPrefix(strings.ToLower(trailer), "x-amz-checksum-")
	if a, ok = findAlgorithm(name); !ok {
		return algorithm{}, false, errInvalidRequest.with("Checksum algorithm provided is unsupported: %s", name)
	}
	return a, true, nil
}

// combine makes the checksum of an object of the parts' ones, of which each must have one
// of the algorithm.
func combine(a algorithm, parts []checksum) checksum {
	h := a.new()
	for _, p := range parts {
		raw, _ := base64.StdEncoding.DecodeString(p.value) // we encoded it
		h.Write(raw)
	}
	return checksum{a, base64.StdEncoding.EncodeToString(h.Sum(nil)) + "-" + strconv.Itoa(len(parts)), composite}
}

// sum takes the checksum of a body by reading it.
func (b body) sum(a algorithm) (checksum, error) {
	s, err := b.open(0, b.size())
	if err != nil {
		return checksum{}, err
	}
	defer s.Close()
	h := a.new()
	if _, err := s.WriteTo(h); err != nil {
		return checksum{}, err
	}
	return checksum{a, base64.StdEncoding.EncodeToString(h.Sum(nil)), fullObject}, nil
}

// md5Algorithm is for ETags. S3 does not offer it as a checksum.
var md5Algorithm = algorithm{"MD5", md5.New, true}
