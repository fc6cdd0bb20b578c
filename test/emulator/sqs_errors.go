package emulator

import "net/http"

// The errors of SQS, by their names in the JSON protocol.
var (
	errSQSMalformed = &apiError{
		code: "SerializationException", status: http.StatusBadRequest,
		message: "malformed request",
	}
	errSQSUnknown     = &apiError{code: "InvalidAction", status: http.StatusBadRequest}
	errSQSInternal    = &apiError{code: "InternalFailure", status: http.StatusInternalServerError}
	errSQSUnavailable = &apiError{
		code: "ServiceUnavailable", status: http.StatusServiceUnavailable,
		message: "emulator is closed",
	}

	errNoQueue = &apiError{
		code: "QueueDoesNotExist", status: http.StatusBadRequest,
		message: "The specified queue does not exist.",
	}
	errQueueExists = &apiError{
		code: "QueueNameExists", status: http.StatusBadRequest,
		message: "A queue already exists with the same name and a different value for an attribute.",
	}
	errAttributeName = &apiError{code: "InvalidAttributeName", status: http.StatusBadRequest}
	errAttribute     = &apiError{code: "InvalidAttributeValue", status: http.StatusBadRequest}
	errParameter     = &apiError{code: "InvalidParameterValue", status: http.StatusBadRequest}
	errMissing       = &apiError{code: "MissingParameter", status: http.StatusBadRequest}
	errContents      = &apiError{
		code: "InvalidMessageContents", status: http.StatusBadRequest,
		message: "The message contains characters outside the allowed set.",
	}
	errUnsupported = &apiError{code: "UnsupportedOperation", status: http.StatusBadRequest}
	errNoResource  = &apiError{code: "ResourceNotFoundException", status: http.StatusBadRequest}
	errOverLimit   = &apiError{
		code: "OverLimit", status: http.StatusForbidden,
		message: "Too many messages in flight.",
	}

	errHandle = &apiError{
		code: "ReceiptHandleIsInvalid", status: http.StatusBadRequest,
		message: "The input receipt handle is invalid.",
	}

	errBatchEmpty = &apiError{
		code: "EmptyBatchRequest", status: http.StatusBadRequest,
		message: "There should be at least one entry in the request.",
	}
	errBatchTooMany = &apiError{
		code: "TooManyEntriesInBatchRequest", status: http.StatusBadRequest,
		message: "Maximum number of entries per request are 10.",
	}
	errBatchDistinct = &apiError{
		code: "BatchEntryIdsNotDistinct", status: http.StatusBadRequest,
		message: "Two or more batch entries in the request have the same Id.",
	}
	errBatchID = &apiError{
		code: "InvalidBatchEntryId", status: http.StatusBadRequest,
		message: "A batch entry id can only contain alphanumeric characters, hyphens and underscores, at most 80.",
	}
	errBatchTooLong = &apiError{code: "BatchRequestTooLong", status: http.StatusBadRequest}
)

// prefixed are the codes that carry "AWS.SimpleQueueService." in the query protocol and
// in the X-Amzn-Query-Error header.
var prefixed = map[string]bool{
	"MessageNotInflight": true, "UnsupportedOperation": true, "EmptyBatchRequest": true,
	"TooManyEntriesInBatchRequest": true,
	"BatchEntryIdsNotDistinct":     true, "InvalidBatchEntryId": true, "BatchRequestTooLong": true,
	"PurgeQueueInProgress": true,
	"QueueDeletedRecently": true,
}

// renamed are the codes that have another name there.
var renamed = map[string]string{
	"QueueDoesNotExist": "AWS.SimpleQueueService.NonExistentQueue",
	"QueueNameExists":   "QueueAlreadyExists",
}
