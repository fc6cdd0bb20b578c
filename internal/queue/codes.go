package queue

import (
	"errors"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/smithy-go"

	"imagemanager.internal/internal/awserr"
)

// The codes of SQS for a receipt handle that has expired. Two occur in practice, the
// third is in the API reference. SQS uses invalidParameter both for an expired handle and
// for a wrong parameter.
const (
	handleInvalid    = "ReceiptHandleIsInvalid"
	notInflight      = "MessageNotInflight"
	invalidParameter = "InvalidParameterValue"
)

// errUnanswered is the error of an entry missing from the answer to its batch.
var errUnanswered = errors.New("the answer does not mention the entry")

// entryError is the error of an entry that failed under an answer with status 200. awserr
// reads it like any other.
func entryError(f types.BatchResultErrorEntry) error {
	e := &smithy.GenericAPIError{
		Code: aws.ToString(f.Code), Message: aws.ToString(f.Message),
		Fault: smithy.FaultServer,
	}
	if f.SenderFault {
		e.Fault = smithy.FaultClient
	}
	return e
}

// handleExpired reports whether an entry failed because its handle has expired. An
// invalid parameter must be the handle: the only other one, the time-out, is within its
// limits.
func handleExpired(err error) bool {
	switch awserr.Code(err) {
	case handleInvalid, notInflight, invalidParameter:
		return true
	}
	return false
}
