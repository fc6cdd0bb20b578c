package emulator

import (
	"encoding/xml"
	"net/http"
)

// The errors of S3, as in the API reference under "Error responses".
var (
	errS3Internal     = &apiError{code: "InternalError", status: http.StatusInternalServerError}
	errNotImplemented = &apiError{
		code: "NotImplemented", status: http.StatusNotImplemented,
		message: "A header or query you provided implies functionality that is not implemented.",
	}
	errMethod = &apiError{
		code: "MethodNotAllowed", status: http.StatusMethodNotAllowed,
		message: "The specified method is not allowed against this resource.",
	}
	errNoBucket = &apiError{
		code: "NoSuchBucket", status: http.StatusNotFound,
		message: "The specified bucket does not exist",
	}
	errNoKey = &apiError{
		code: "NoSuchKey", status: http.StatusNotFound,
		message: "The specified key does not exist.",
	}
	errNoVersion = &apiError{
		code: "NoSuchVersion", status: http.StatusNotFound,
		message: "The specified version does not exist.",
	}
	errNoUpload = &apiError{
		code: "NoSuchUpload", status: http.StatusNotFound,
		message: "The specified upload does not exist.",
	}
	errOtherRegion = &apiError{
		code: "PermanentRedirect", status: http.StatusMovedPermanently,
		message: "The bucket you are attempting to access must be addressed using the specified endpoint.",
	}
	errBucketName = &apiError{
		code: "InvalidBucketName", status: http.StatusBadRequest,
		message: "The specified bucket is not valid.",
	}
	errBucketExists = &apiError{
		code: "BucketAlreadyOwnedByYou", status: http.StatusConflict,
		message: "Your previous request to create the named bucket succeeded and you already own it.",
	}
	errNotEmpty = &apiError{
		code: "BucketNotEmpty", status: http.StatusConflict,
		message: "The bucket you tried to delete is not empty",
	}
	errKeyTooLong = &apiError{
		code: "KeyTooLongError", status: http.StatusBadRequest,
		message: "Your key is too long",
	}
	errMalformedXML = &apiError{
		code: "MalformedXML", status: http.StatusBadRequest,
		message: "The XML you provided was not well-formed or did not validate against our published schema",
	}
	errArgument       = &apiError{code: "InvalidArgument", status: http.StatusBadRequest}
	errInvalidRequest = &apiError{code: "InvalidRequest", status: http.StatusBadRequest}
	errRange          = &apiError{
		code: "InvalidRange", status: http.StatusRequestedRangeNotSatisfiable,
		message: "The requested range is not satisfiable",
	}
	errPartNumber = &apiError{
		code: "InvalidPartNumber", status: http.StatusRequestedRangeNotSatisfiable,
		message: "The requested partnumber is not satisfiable",
	}
	errPrecondition = &apiError{
		code: "PreconditionFailed", status: http.StatusPreconditionFailed,
		message: "At least one of the pre-conditions you specified did not hold",
	}
	errNotModified = &apiError{code: "NotModified", status: http.StatusNotModified}
	errBadDigest   = &apiError{
		code: "BadDigest", status: http.StatusBadRequest,
		message: "The Content-MD5 you specified did not match what we received.",
	}
	errInvalidDigest = &apiError{
		code: "InvalidDigest", status: http.StatusBadRequest,
		message: "The Content-MD5 you specified was invalid.",
	}
	errSHA256 = &apiError{
		code: "XAmzContentSHA256Mismatch", status: http.StatusBadRequest,
		message: "The provided 'x-amz-content-sha256' header does not match what was computed.",
	}
	errIncomplete = &apiError{
		code: "IncompleteBody", status: http.StatusBadRequest,
		message: "The request body terminated unexpectedly",
	}
	errInvalidPart = &apiError{
		code: "InvalidPart", status: http.StatusBadRequest,
		message: "One or more of the specified parts could not be found.",
	}
	errPartOrder = &apiError{
		code: "InvalidPartOrder", status: http.StatusBadRequest,
		message: "The list of parts was not in ascending order.",
	}
	errTooSmall = &apiError{
		code: "EntityTooSmall", status: http.StatusBadRequest,
		message: "Your proposed upload is smaller than the minimum allowed size",
	}
	errEncryption = &apiError{
		code: "InvalidEncryptionAlgorithmError", status: http.StatusBadRequest,
		message: "The Encryption request you specified is not valid. Supported value: AES256.",
	}
	errWrongKey = &apiError{
		code: "AccessDenied", status: http.StatusForbidden,
		message: "Requests specifying Server Side Encryption with Customer provided keys " +
			"must provide the correct secret key.",
	}
	errTag         = &apiError{code: "InvalidTag", status: http.StatusBadRequest}
	errTooManyTags = &apiError{
		code: "BadRequest", status: http.StatusBadRequest,
		message: "Object tags cannot be greater than 10",
	}
	errExpiredRequest = &apiError{code: "AccessDenied", status: http.StatusForbidden, message: "Request has expired"}
	errNoDestination  = errArgument.with("Unable to validate the following destination configurations")
)

// s3Error is an error's body.
type s3Error struct {
	XMLName   xml.Name `xml:"Error"`
	Code      string
	Message   string
	Resource  string
	RequestID string `xml:"RequestId"`
	HostID    string `xml:"HostId"`
}
