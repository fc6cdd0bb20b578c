package emulator

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
)

// defaultAttributes are those that a queue has without being told, as in the API
// reference of SetQueueAttributes.
var defaultAttributes = map[string]string{
	"DelaySeconds":                  "0",
	"MaximumMessageSize":            "262144",
	"MessageRetentionPeriod":        "345600",
	"ReceiveMessageWaitTimeSeconds": "0",
	"VisibilityTimeout":             "30",
	"SqsManagedSseEnabled":          "true",
}

// ranges bound the attributes that are numbers, both ends included.
var ranges = map[string][2]int{
	"DelaySeconds":                  {0, 900},
	"MaximumMessageSize":            {1024, 1 << 20},
	"MessageRetentionPeriod":        {60, 1_209_600},
	"ReceiveMessageWaitTimeSeconds": {0, 20},
	"VisibilityTimeout":             {0, maxVisibility},
}

// free are the attributes that are kept as they come, and mean nothing here but for
// Policy.
var free = []string{
	"Policy", "KmsMasterKeyId", "KmsDataKeyReusePeriodSeconds", "SqsManagedSseEnabled", "FifoQueue",
	"ContentBasedDeduplication",
	"DeduplicationScope", "FifoThroughputLimit", "RedriveAllowPolicy",
}

// redrivePolicy is the attribute RedrivePolicy. SQS also takes the number as a
// string.
type redrivePolicy struct {
	DeadLetterTargetArn string      `json:"deadLetterTargetArn"`
	MaxReceiveCount     json.Number `json:"maxReceiveCount"`
}

type getAttributesInput struct {
	QueueUrl       string   //nolint:revive // the API's name
	AttributeNames []string `query:"AttributeName"`
}

type getAttributesOutput struct {
	Attributes map[string]string `json:",omitempty" query:"Attribute"`
}

func (q *queues) getQueueAttributes(_ context.Context, _ sqsRequest, in *getAttributesInput) (getAttributesOutput,
	error,
) {
	q.mu.Lock()
	defer q.mu.Unlock()
	k, err := q.find(in.QueueUrl)
	if err != nil {
		return getAttributesOutput{}, err
	}
	k.settle(q.clock.Now())
	all := k.allAttributes()
	if slices.Contains(in.AttributeNames, "All") {
		return getAttributesOutput{all}, nil
	}
	out := map[string]string{}
	for _, name := range in.AttributeNames {
		value, has := all[name]
		if has {
			out[name] = value
		} else if _, known := ranges[name]; !known && !slices.Contains(free, name) && name != "RedrivePolicy" {
			return getAttributesOutput{}, errAttributeName.with("Unknown Attribute %s.", name)
		}
	}
	return getAttributesOutput{out}, nil
}

// allAttributes are those that are set, those by default, and those that SQS computes.
func (k *queue) allAttributes() map[string]string {
	all := maps.Clone(defaultAttributes)
	maps.Copy(all, k.attributes)
	all["QueueArn"] = k.arn
	all["ApproximateNumberOfMessages"] = strconv.Itoa(k.visible.Len())
	all["ApproximateNumberOfMessagesNotVisible"] = strconv.Itoa(k.flying())
	all["ApproximateNumberOfMessagesDelayed"] = strconv.Itoa(k.delayed)
	all["CreatedTimestamp"] = strconv.FormatInt(k.created.Unix(), 10)
	all["LastModifiedTimestamp"] = strconv.FormatInt(k.modified.Unix(), 10)
	return all
}

type setAttributesInput struct {
	QueueUrl   string            //nolint:revive // the API's name
	Attributes map[string]string `query:"Attribute"`
}

func (q *queues) setQueueAttributes(_ context.Context, _ sqsRequest, in *setAttributesInput) (nothing, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	k, err := q.find(in.QueueUrl)
	if err != nil {
		return nothing{}, err
	}
	k.modified = q.clock.Now()
	return nothing{}, q.set(k, in.Attributes)
}

// set takes all the attributes or none. An empty policy takes the one there is away.
func (q *queues) set(k *queue, attributes map[string]string) error {
	for name, value := range attributes {
		if err := q.checkAttribute(name, value); err != nil {
			return err
		}
	}
	for name, value := range attributes {
		if value == "" {
			delete(k.attributes, name)
		} else {
			k.attributes[name] = value
		}
	}
	return nil
}

func (q *queues) checkAttribute(name, value string) error {
	if bounds, ok := ranges[name]; ok {
		n, err := strconv.Atoi(value)
		if err != nil || n < bounds[0] || n > bounds[1] {
			return errAttribute.with("Invalid value for the parameter %s.", name)
		}
		return nil
	}
	switch {
	case name == "RedrivePolicy" && value != "":
		return q.checkRedrive(value)
	case name == "Policy" && value != "" && !json.Valid([]byte(value)):
		return errAttribute.with("Invalid value for the parameter Policy.")
	case name == "RedrivePolicy" || slices.Contains(free, name):
		return nil
	}
	return errAttributeName.with("Unknown Attribute %s.", name)
}

func (q *queues) checkRedrive(value string) error {
	var p redrivePolicy
	invalid := errParameter.with("Value %s for parameter RedrivePolicy is invalid.", value)
	if err := json.Unmarshal([]byte(value), &p); err != nil {
		return invalid
	}
	if n, err := strconv.Atoi(p.MaxReceiveCount.String()); err != nil || n < 1 || n > 1000 {
		return invalid.with("%s Reason: Invalid value for maxReceiveCount: %s, "+
			"valid values are from 1 to 1000 both inclusive.", invalid.message, p.MaxReceiveCount)
	}
	if q.byARN(p.DeadLetterTargetArn) == nil {
		return invalid.with("%s Reason: Dead letter target does not exist.", invalid.message)
	}
	return nil
}

// redrive is the queue's dead-letter queue and after how many receives a message goes
// there; nil where it has none.
func (q *queues) redrive(k *queue) (*queue, int) {
	var p redrivePolicy
	if json.Unmarshal([]byte(k.attributes["RedrivePolicy"]), &p) != nil {
		return nil, 0
	}
	n, _ := strconv.Atoi(p.MaxReceiveCount.String()) // checked when it was set
	return q.byARN(p.DeadLetterTargetArn), n
}
