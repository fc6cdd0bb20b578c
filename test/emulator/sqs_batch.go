package emulator

import (
	"context"
	"net/http"
	"regexp"
)

type batchResult struct {
	Id string //nolint:revive // the API's name
}

type batchFailure struct {
	Id          string //nolint:revive // the API's name
	Code        string
	Message     string
	SenderFault bool
}

var validBatchID = regexp.MustCompile(`^[A-Za-z0-9_-]{1,80}$`)

// checkBatch is what all three batch operations refuse as a whole.
func checkBatch[E any](entries []E, id func(E) string) error {
	switch {
	case len(entries) == 0:
		return errBatchEmpty
	case len(entries) > maxBatch:
		return errBatchTooMany
	}
	seen := map[string]bool{}
	for _, e := range entries {
		switch {
		case !validBatchID.MatchString(id(e)):
			return errBatchID
		case seen[id(e)]:
			return errBatchDistinct.with("Id %s repeated.", id(e))
		}
		seen[id(e)] = true
	}
	return nil
}

// entryError is why the i-th entry fails on demand, or nil.
func (f Fault) entryError(i int) *apiError {
	if f.Entries >= 0 && i >= f.Entries {
		return nil
	}
	e := &apiError{code: f.Code, status: f.Status, message: "on demand"}
	if e.status == 0 {
		e.status = http.StatusInternalServerError
	}
	if e.code == "" {
		e.code = codes[e.status]
	}
	return e
}

func failure(id string, err error) batchFailure {
	e, ok := err.(*apiError) //nolint:errorlint // operations return nothing else
	if !ok {
		e = errSQSInternal.with("%v", err)
	}
	return batchFailure{
		Id: id, Code: e.code, Message: e.message,
		SenderFault: e.status < http.StatusInternalServerError,
	}
}

type sendBatchInput struct {
	QueueUrl string           //nolint:revive // the API's name
	Entries  []sendBatchEntry `query:"SendMessageBatchRequestEntry"`
}

type sendBatchEntry struct {
	Id string //nolint:revive // the API's name
	sendEntry
}

type sendBatchOutput struct {
	Successful []sendBatchResult `query:"SendMessageBatchResultEntry"`
	Failed     []batchFailure    `json:",omitempty" query:"BatchResultErrorEntry"`
}

type sendBatchResult struct {
	Id                     string //nolint:revive // the API's name
	MessageId              string //nolint:revive // the API's name
	MD5OfMessageBody       string
	MD5OfMessageAttributes string `json:",omitempty"`
}

// maxBatchBytes is the sum of the sizes of a batch's messages that SQS takes: the largest
// message's.
const maxBatchBytes = 1 << 20

func (q *queues) sendMessageBatch(_ context.Context, req sqsRequest, in *sendBatchInput) (sendBatchOutput, error) {
	out := sendBatchOutput{Successful: []sendBatchResult{}}
	q.mu.Lock()
	defer q.mu.Unlock()
	k, err := q.find(in.QueueUrl)
	if err != nil {
		return out, err
	}
	if err := checkBatch(in.Entries, func(e sendBatchEntry) string { return e.Id }); err != nil {
		return out, err
	}
	total := 0
	for _, e := range in.Entries {
		total += e.size()
	}
	if total > maxBatchBytes {
		return out, errBatchTooLong.with("Batch requests cannot be longer than %d bytes. You have sent %d bytes.",
			maxBatchBytes, total)
	}
	for i, e := range in.Entries {
		if bad := req.fault.entryError(i); bad != nil {
			out.Failed = append(out.Failed, failure(e.Id, bad))
			continue
		}
		sent, err := q.accept(k, e.sendEntry)
		if err != nil {
			out.Failed = append(out.Failed, failure(e.Id, err))
			continue
		}
		out.Successful = append(out.Successful,
			sendBatchResult{e.Id, sent.MessageId, sent.MD5OfMessageBody, sent.MD5OfMessageAttributes})
	}
	return out, nil
}

type deleteBatchInput struct {
	QueueUrl string             //nolint:revive // the API's name
	Entries  []deleteBatchEntry `query:"DeleteMessageBatchRequestEntry"`
}

type deleteBatchEntry struct {
	Id string //nolint:revive // the API's name
	deleteEntry
}

type deleteBatchOutput struct {
	Successful []batchResult  `query:"DeleteMessageBatchResultEntry"`
	Failed     []batchFailure `json:",omitempty" query:"BatchResultErrorEntry"`
}

func (q *queues) deleteMessageBatch(_ context.Context, req sqsRequest, in *deleteBatchInput) (deleteBatchOutput,
	error,
) {
	q.mu.Lock()
	defer q.mu.Unlock()
	k, err := q.find(in.QueueUrl)
	if err != nil {
		return deleteBatchOutput{}, err
	}
	ok, failed, err := eachEntry(in.Entries, req.fault, func(e deleteBatchEntry) string { return e.Id },
		func(e deleteBatchEntry) error { return q.discard(k, e.deleteEntry) })
	return deleteBatchOutput{ok, failed}, err
}

type visibilityBatchInput struct {
	QueueUrl string                 //nolint:revive // the API's name
	Entries  []visibilityBatchEntry `query:"ChangeMessageVisibilityBatchRequestEntry"`
}

type visibilityBatchEntry struct {
	Id string //nolint:revive // the API's name
	visibilityEntry
}

type visibilityBatchOutput struct {
	Successful []batchResult  `query:"ChangeMessageVisibilityBatchResultEntry"`
	Failed     []batchFailure `json:",omitempty" query:"BatchResultErrorEntry"`
}

func (q *queues) changeMessageVisibilityBatch(_ context.Context, req sqsRequest,
	in *visibilityBatchInput,
) (visibilityBatchOutput, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	k, err := q.find(in.QueueUrl)
	if err != nil {
		return visibilityBatchOutput{}, err
	}
	ok, failed, err := eachEntry(in.Entries, req.fault, func(e visibilityBatchEntry) string { return e.Id },
		func(e visibilityBatchEntry) error { return q.extend(k, e.visibilityEntry) })
	return visibilityBatchOutput{ok, failed}, err
}

// eachEntry does something with every entry, in order, and sorts the outcomes.
func eachEntry[E any](entries []E, f Fault, id func(E) string, do func(E) error) ([]batchResult, []batchFailure,
	error,
) {
	if err := checkBatch(entries, id); err != nil {
		return nil, nil, err
	}
	ok := []batchResult{}
	var failed []batchFailure
	for i, e := range entries {
		var err error
		if bad := f.entryError(i); bad != nil {
			err = bad
		} else {
			err = do(e)
		}
		if err != nil {
			failed = append(failed, failure(id(e), err))
			continue
		}
		ok = append(ok, batchResult{id(e)})
	}
	return ok, failed, nil
}
