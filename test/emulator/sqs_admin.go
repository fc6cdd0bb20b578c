package emulator

import (
	"context"
	"maps"
	"regexp"
	"slices"
	"strings"
)

type createQueueInput struct {
	QueueName  string
	Attributes map[string]string `query:"Attribute"`
	Tags       map[string]string `json:"tags" query:"Tag,Key,Value"`
}

type queueInput struct {
	QueueUrl string //nolint:revive // the API's name
}

type queueURLOutput struct {
	QueueUrl string //nolint:revive // the API's name
}

type nothing struct{}

var validQueueName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,75}(\.fifo|[A-Za-z0-9_-]{0,5})$`)

// createQueue makes a queue, or returns one that has the same attributes.
func (q *queues) createQueue(_ context.Context, req sqsRequest, in *createQueueInput) (queueURLOutput, error) {
	if !validQueueName.MatchString(in.QueueName) {
		return queueURLOutput{},
			errParameter.with("Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length")
	}
	if strings.HasSuffix(in.QueueName, ".fifo") != (in.Attributes["FifoQueue"] == "true") {
		return queueURLOutput{},
			errParameter.with("The name of a FIFO queue can only include alphanumeric characters, " +
				"hyphens, or underscores, must end with .fifo suffix and be 1 to 80 in length.")
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	out := queueURLOutput{req.base + "/" + Account + "/" + in.QueueName}
	if k := q.named[in.QueueName]; k != nil {
		for name, value := range in.Attributes {
			if k.attribute(name) != value {
				return queueURLOutput{}, errQueueExists
			}
		}
		return out, nil
	}
	now := q.clock.Now()
	k := &queue{
		name: in.QueueName, arn: q.arnOf(in.QueueName), created: now,
		modified:   now,
		attributes: map[string]string{}, tags: map[string]string{}, byID: map[string]*message{},
		changed: make(chan struct{}),
	}
	if err := q.set(k, in.Attributes); err != nil {
		return queueURLOutput{}, err
	}
	maps.Copy(k.tags, in.Tags)
	q.named[in.QueueName] = k
	return out, nil
}

type getQueueURLInput struct {
	QueueName string
}

func (q *queues) getQueueURL(_ context.Context, req sqsRequest, in *getQueueURLInput) (queueURLOutput, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.named[in.QueueName] == nil {
		return queueURLOutput{}, errNoQueue
	}
	return queueURLOutput{req.base + "/" + Account + "/" + in.QueueName}, nil
}

type listQueuesInput struct {
	QueueNamePrefix string
	MaxResults      int
	NextToken       string
}

type listQueuesOutput struct {
	QueueUrls []string `json:",omitempty" query:"QueueUrl"`
	NextToken string   `json:",omitempty"`
}

// listQueues returns queues by name; the token is the last name of the page before.
func (q *queues) listQueues(_ context.Context, req sqsRequest, in *listQueuesInput) (listQueuesOutput, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	var out listQueuesOutput
	limit := 1000
	if in.MaxResults > 0 {
		limit = min(limit, in.MaxResults)
	}
	last := ""
	for _, name := range slices.Sorted(maps.Keys(q.named)) {
		if !strings.HasPrefix(name, in.QueueNamePrefix) || name <= in.NextToken && in.NextToken != "" {
			continue
		}
		if len(out.QueueUrls) == limit {
			out.NextToken = last
			break
		}
		out.QueueUrls = append(out.QueueUrls, req.base+"/"+Account+"/"+name)
		last = name
	}
	return out, nil
}

// deleteQueue also ends the polls of the queue: they find it gone.
func (q *queues) deleteQueue(_ context.Context, _ sqsRequest, in *queueInput) (nothing, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	k, err := q.find(in.QueueUrl)
	if err != nil {
		return nothing{}, err
	}
	delete(q.named, k.name)
	k.gone = true
	k.wake()
	return nothing{}, nil
}

func (q *queues) purgeQueue(_ context.Context, _ sqsRequest, in *queueInput) (nothing, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	k, err := q.find(in.QueueUrl)
	if err != nil {
		return nothing{}, err
	}
	k.byID = map[string]*message{}
	k.visible.Init()
	k.hidden, k.delayed = nil, 0
	return nothing{}, nil
}

type tagQueueInput struct {
	QueueUrl string            //nolint:revive // the API's name
	Tags     map[string]string `query:"Tag,Key,Value"`
}

func (q *queues) tagQueue(_ context.Context, _ sqsRequest, in *tagQueueInput) (nothing, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	k, err := q.find(in.QueueUrl)
	if err != nil {
		return nothing{}, err
	}
	maps.Copy(k.tags, in.Tags)
	return nothing{}, nil
}

type untagQueueInput struct {
	QueueUrl string   //nolint:revive // the API's name
	TagKeys  []string `query:"TagKey"`
}

func (q *queues) untagQueue(_ context.Context, _ sqsRequest, in *untagQueueInput) (nothing, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	k, err := q.find(in.QueueUrl)
	if err != nil {
		return nothing{}, err
	}
	for _, key := range in.TagKeys {
		delete(k.tags, key)
	}
	return nothing{}, nil
}

type listQueueTagsOutput struct {
	Tags map[string]string `json:",omitempty" query:"Tag,Key,Value"`
}

func (q *queues) listQueueTags(_ context.Context, _ sqsRequest, in *queueInput) (listQueueTagsOutput, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	k, err := q.find(in.QueueUrl)
	if err != nil {
		return listQueueTagsOutput{}, err
	}
	return listQueueTagsOutput{maps.Clone(k.tags)}, nil
}
