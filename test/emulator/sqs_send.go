package emulator

import (
	"context"
	"crypto/md5" //nolint:gosec // what SQS uses
	"encoding/binary"
	"encoding/hex"
	"hash"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// messageAttribute is a value that travels beside the body.
type messageAttribute struct {
	DataType    string
	StringValue string `json:",omitempty"`
	BinaryValue []byte `json:",omitempty"`
}

type sendInput struct {
	QueueUrl string //nolint:revive // the API's name
	sendEntry
}

// sendEntry is what SendMessage and an entry of SendMessageBatch have in common.
type sendEntry struct {
	MessageBody             string
	DelaySeconds            *int
	MessageAttributes       map[string]messageAttribute `query:"MessageAttribute"`
	MessageSystemAttributes map[string]messageAttribute `query:"MessageSystemAttribute"`
	MessageGroupId          string                      //nolint:revive // the API's name
}

type sendOutput struct {
	MessageId              string //nolint:revive // the API's name
	MD5OfMessageBody       string
	MD5OfMessageAttributes string `json:",omitempty"`
}

func (q *queues) sendMessage(_ context.Context, _ sqsRequest, in *sendInput) (sendOutput, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	k, err := q.find(in.QueueUrl)
	if err != nil {
		return sendOutput{}, err
	}
	return q.accept(k, in.sendEntry)
}

// accept checks a message and puts it into the queue.
func (q *queues) accept(k *queue, e sendEntry) (sendOutput, error) {
	if err := k.check(e); err != nil {
		return sendOutput{}, err
	}
	delay := k.seconds("DelaySeconds")
	if e.DelaySeconds != nil {
		delay = time.Duration(*e.DelaySeconds) * time.Second
	}
	now := q.clock.Now()
	m := &message{
		id: newID(), body: e.MessageBody, attributes: e.MessageAttributes, sent: now, sender: Account,
		group: e.MessageGroupId,
		trace: e.MessageSystemAttributes["AWSTraceHeader"].StringValue,
	}
	k.add(m, now, delay)
	return sendOutput{m.id, md5Hex(m.body), md5OfAttributes(m.attributes)}, nil
}

func (k *queue) check(e sendEntry) error {
	limit, _ := strconv.Atoi(k.attribute("MaximumMessageSize")) // checked when it was set
	switch {
	case strings.HasSuffix(k.name, ".fifo"):
		return errUnsupported.with("The emulator does not deliver through FIFO queues.")
	case e.MessageBody == "":
		return errMissing.with("The request must contain the parameter MessageBody.")
	case e.size() > limit:
		return errParameter.with("One or more parameters are invalid. Reason: Message must be shorter than %d bytes.",
			limit)
	case !validContents(e.MessageBody):
		return errContents
	case e.DelaySeconds != nil && (*e.DelaySeconds < 0 || *e.DelaySeconds > 900):
		return errParameter.with(
			"Value %d for parameter DelaySeconds is invalid. Reason: DelaySeconds must be >= 0 and <= 900.",
			*e.DelaySeconds)
	case len(e.MessageAttributes) > 10:
		return errParameter.with("Number of message attributes [%d] exceeds the allowed maximum [10].",
			len(e.MessageAttributes))
	}
	return nil
}

// size is what counts against MaximumMessageSize, in bytes.
func (e sendEntry) size() int {
	n := len(e.MessageBody)
	for name, a := range e.MessageAttributes {
		n += len(name) + len(a.DataType) + len(a.StringValue) + len(a.BinaryValue)
	}
	return n
}

// validContents reports whether a body has only the characters that SQS takes: those of
// XML 1.0.
func validContents(body string) bool {
	return utf8.ValidString(body) && !strings.ContainsFunc(body, func(r rune) bool {
		return r < 0x20 && r != '\t' && r != '\n' && r != '\r' || r == 0xfffe || r == 0xffff
	})
}

func md5Hex(s string) string {
	sum := md5.Sum([]byte(s)) //nolint:gosec // what SQS uses
	return hex.EncodeToString(sum[:])
}

// md5OfAttributes is the digest described in the SQS developer guide, "Calculating the
// MD5 message digest for message attributes".
func md5OfAttributes(attributes map[string]messageAttribute) string {
	if len(attributes) == 0 {
		return ""
	}
	h := md5.New() //nolint:gosec // what SQS uses
	for _, name := range slices.Sorted(maps.Keys(attributes)) {
		a := attributes[name]
		writeSized(h, []byte(name))
		writeSized(h, []byte(a.DataType))
		if strings.HasPrefix(a.DataType, "Binary") {
			h.Write([]byte{2})
			writeSized(h, a.BinaryValue)
		} else {
			h.Write([]byte{1})
			writeSized(h, []byte(a.StringValue))
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

func writeSized(h hash.Hash, b []byte) {
	var n [4]byte
	binary.BigEndian.PutUint32(n[:], uint32(len(b))) //nolint:gosec // within MaximumMessageSize
	h.Write(n[:])
	h.Write(b)
}
