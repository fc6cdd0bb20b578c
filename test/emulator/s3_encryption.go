package emulator

import (
	"crypto/md5" //nolint:gosec // what S3 names a key by
	"encoding/base64"
	"net/http"
)

// encryption is how an object is encrypted at rest, as far as it can be seen: nothing is
// encrypted here. Of a customer's key the digest alone is kept, as S3 does.
type encryption struct {
	method   string // AES256 is S3's own key, and the default
	kmsKey   string // where the method is one of KMS's
	customer string // MD5 of the customer's key, base64; method is empty then
}

const (
	sseHeader        = "X-Amz-Server-Side-Encryption"
	copySourcePrefix = "X-Amz-Copy-Source-Server-Side-Encryption"
	aes256           = "AES256"
)

// customerKey is what a request says of a key that the customer has.
type customerKey struct{ algorithm, key, md5 string }

// keyIn reads a customer's key from headers that begin so.
func keyIn(h http.Header, prefix string) customerKey {
	prefix += "-Customer-"
	return customerKey{h.Get(prefix + "Algorithm"), h.Get(prefix + "Key"), h.Get(prefix + "Key-Md5")}
}

// encryptionOf is how a request wants an object to be encrypted.
func encryptionOf(h http.Header) (encryption, error) {
	e := encryption{method: h.Get(sseHeader), kmsKey: h.Get(sseHeader + "-Aws-Kms-Key-Id")}
	key := keyIn(h, sseHeader)
	switch {
	case key != (customerKey{}):
		if e.method != "" {
			return encryption{}, errArgument.with(
				"Server Side Encryption with Customer provided key " +
					"is incompatible with the encryption method specified")
		}
		return encryption{customer: key.md5}, key.check()
	case e.method == "":
		return encryption{method: aes256}, nil
	case e.method != aes256 && e.method != "aws:kms" && e.method != "aws:kms:dsse":
		return encryption{}, errArgument.with("The encryption method specified is not supported")
	}
	return e, nil
}

// check refuses a key that is not whole, or not the one that its digest is of.
func (k customerKey) check() error {
	key, err := base64.StdEncoding.DecodeString(k.key)
	sum := md5.Sum(key) //nolint:gosec // what S3 names a key by
	switch {
	case k.algorithm == "":
		return errArgument.with(
			"Requests specifying Server Side Encryption with Customer provided keys " +
				"must provide a valid encryption algorithm.")
	case k.algorithm != aes256:
		return errEncryption
	case k.key == "":
		return errArgument.with(
			"Requests specifying Server Side Encryption with Customer provided keys " +
				"must provide an appropriate secret key.")
	case k.md5 == "" || err != nil || len(key) != 32:
		return errArgument.with("The secret key was invalid for the specified algorithm.")
	case k.md5 != base64.StdEncoding.EncodeToString(sum[:]):
		return errArgument.with("The calculated MD5 hash of the key did not match the hash that was provided.")
	}
	return nil
}

// opens refuses a request that does not have the key of an object, or has one for an
// object that needs none.
func (k customerKey) opens(e encryption) error {
	switch {
	case k == customerKey{}:
		if e.customer != "" {
			return errInvalidRequest.with(
				"The object was stored using a form of Server Side Encryption. " +
					"The correct parameters must be provided to retrieve the object.")
		}
		return nil
	case k.algorithm != aes256:
		return errEncryption
	case e.customer == "":
		return errInvalidRequest.with("The encryption parameters are not applicable to this object.")
	case k.check() != nil || k.md5 != e.customer:
		return errWrongKey
	}
	return nil
}

// takes refuses a part that is not encrypted as its upload.
func (e encryption) takes(k customerKey) error {
	switch {
	case (k == customerKey{}) != (e.customer == ""):
		return errInvalidRequest.with(
			"The multipart upload initiate requested encryption. " +
				"Subsequent part requests must include the appropriate encryption parameters.")
	case k == customerKey{}:
		return nil
	case k.md5 != e.customer:
		return errInvalidRequest.with("The provided encryption parameters did not match the ones used originally.")
	}
	return k.check()
}

// announce tells of the encryption in an answer's header.
func (e encryption) announce(h http.Header) {
	if e.customer != "" {
		h.Set(sseHeader+"-Customer-Algorithm", aes256)
		h.Set(sseHeader+"-Customer-Key-Md5", e.customer)
		return
	}
	h.Set(sseHeader, e.method)
	if e.kmsKey != "" {
		h.Set(sseHeader+"-Aws-Kms-Key-Id", e.kmsKey)
	}
}

// digest is what the ETag is made of: the MD5 of the content where S3's own key is used,
// and otherwise something that tells contents apart, but is no MD5 of them.
func (e encryption) digest(sum []byte) []byte {
	if e.method == aes256 {
		return sum
	}
	other := md5.Sum(append([]byte(e.method+e.customer), sum...)) //nolint:gosec // what ETags look like
	return other[:]
}
