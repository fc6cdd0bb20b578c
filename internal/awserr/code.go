package awserr

import (
	"errors"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/smithy-go"
)

// credentialCodes are about the credentials of the caller: none, wrong or expired ones,
// or a wrong clock.
var credentialCodes = []string{
	"AccountProblem",
	"AllAccessDisabled",
	"CredentialsNotSupported",
	"ExpiredToken",
	"ExpiredTokenException",
	"IncompleteSignature",
	"InvalidAccessKeyId",
	"InvalidClientTokenId",
	"InvalidSecurity",
	"InvalidToken",
	"MissingAuthenticationToken",
	"MissingSecurityHeader",
	"NotSignedUp",
	"RequestExpired",
	"RequestTimeTooSkewed",
	"SignatureDoesNotMatch",
	"TokenRefreshRequired",
	"UnauthorizedAccess",
	"UnrecognizedClientException",
}

// classes has the other codes. They say more than the status: SQS answers 400 to nearly
// everything.
var classes = map[string]Class{
	"AccessDenied":          Denied,
	"AccessDeniedException": Denied,
	"KmsAccessDenied":       Denied,
	"KmsDisabled":           Denied,
	"KmsOptInRequired":      Denied,
	"OptInRequired":         Denied,

	"NoSuchBucket":              NotFound,
	"NoSuchKey":                 NotFound,
	"NoSuchVersion":             NotFound,
	"NonExistentQueue":          NotFound,
	"QueueDoesNotExist":         NotFound,
	"ResourceNotFoundException": NotFound,

	"KmsThrottled": Throttled,
	"OverLimit":    Throttled,
}

// byCode returns the class of a code without prefixes.
func byCode(code string) (Class, bool) {
	switch {
	case IsThrottling(code):
		return Throttled, true
	case IsCredentials(code):
		return Credentials, true
	}
	class, known := classes[code]
	return class, known
}

// IsThrottling reports whether the code is one of AWS's general throttling codes. The SDK
// knows them.
func IsThrottling(code string) bool {
	_, known := retry.DefaultThrottleErrorCodes[code]
	return known
}

// IsCredentials reports whether the code is about the credentials of the caller.
func IsCredentials(code string) bool { return slices.Contains(credentialCodes, code) }

// NamesMissing reports whether the service itself, by its code, reports a missing queue,
// bucket or key. A status of 404 alone may be a proxy's.
func NamesMissing(err error) bool { return classes[Code(err)] == NotFound }

// Code returns the error code of the answer without prefixes, "" if the error has none.
func Code(err error) string {
	var api smithy.APIError
	if !errors.As(err, &api) {
		return ""
	}
	return shortCode(api.ErrorCode())
}

// shortCode strips the prefixes of an error code: SQS sends
// "AWS.SimpleQueueService.NonExistentQueue" in its query form and
// "com.amazonaws.sqs#QueueDoesNotExist" in JSON.
func shortCode(code string) string {
	return code[strings.LastIndexAny(code, ".#")+1:]
}
