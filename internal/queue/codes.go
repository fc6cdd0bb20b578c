package queue

import (
	"errors"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/smithy-go"

	"imagemanager.internal/internal/awserr"
)

// The codes with which SQS says that a receipt handle is of no use any more. They are two
// in practice and a third in the API reference; invalidParameter says so for an expired
// handle, and for parameters that are wrong indeed.
const (
	handleInvalid    = "ReceiptHandleIsInvalid"
	notInflight      = "MessageNotInflight"
	invalidParameter = "InvalidParameterValue"
)

// errUnanswered is the error of an entry that the answer to its batch does not mention.
var errUnanswered = errors.New("the answer does not mention the entry")

// entryError makes an error of an entry that failed under an answer with status 200.
// awserr reads it like any other.
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

// gone tells whether an entry's error says that its handle is of no use any more. An
// invalid parameter is the handle, because the other one, the time-out, is kept within
// its limits.
func gone(err error) bool {
	switch awserr.Code(err) {
	case handleInvalid, notInflight, invalidParameter:
		return true
	}
	return false
}
