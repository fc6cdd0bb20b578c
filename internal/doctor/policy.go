package doctor

import (
	"encoding/json"
	"fmt"
	"path"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

// s3Service is S3 as a principal of a policy.
const s3Service = "s3.amazonaws.com"

// statement is one of a queue's policy. A field may have one value or a list (IAM user
// guide, "Grammar of the IAM JSON policy language").
type statement struct {
	Effect    string
	Principal any
	Action    any
	Resource  any
	Condition map[string]map[string]any
}

// policy looks whether the queue's policy lets S3 send for the bucket. direct is false if
// S3 sends by way of SNS or EventBridge.
func (c *Cloud) policy(queue attributes, direct bool) Finding {
	const check = "queue-policy"
	bucket := c.bucketARN(queue.arn())
	remedy := fmt.Sprintf("allow %s sqs:SendMessage on %s with the condition ArnEquals aws:SourceArn %s; "+
		"localstack/setup.sh writes such a policy", s3Service, queue.arn(), bucket)
	statements, err := readPolicy(queue[string(types.QueueAttributeNamePolicy)])
	switch {
	case queue == nil:
		return skipped("the queue's attributes cannot be read", check)[0]
	case !direct:
		return ok(check, "not needed: S3 does not send to the queue itself")
	case err != nil:
		return warn(check, remedy, "the queue's policy cannot be read: %v", err)
	case len(statements) == 0:
		return fail(check, remedy, "the queue has no policy: S3 may not send to it")
	}
	var allowed, others []statement
	for _, s := range statements {
		if !s.about(queue.arn()) {
			continue
		}
		switch holds, all := s.holds(bucket); {
		case s.Effect == "Deny" && len(s.Condition) == 0:
			return fail(check, "take that statement away", "the queue's policy denies S3 to send")
		case s.Effect == "Allow" && holds && all:
			allowed = append(allowed, s)
		case s.Effect == "Allow":
			others = append(others, s)
		}
	}
	return judgePolicy(check, remedy, bucket, allowed, others)
}

func judgePolicy(check, remedy, bucket string, allowed, others []statement) Finding {
	for _, s := range allowed {
		if len(s.Condition) > 0 {
			return ok(check, "S3 may send for %s", bucket)
		}
	}
	switch {
	case len(allowed) > 0:
		return warn(check, remedy, "everybody's buckets may send to the queue: its policy has no aws:SourceArn")
	case len(others) > 0:
		return fail(check, remedy, "the queue's policy lets S3 send, but not for %s (aws:SourceArn)", bucket)
	}
	return fail(check, remedy, "the queue's policy does not let S3 send")
}

// bucketARN is in the partition of the queue.
func (c *Cloud) bucketARN(queue string) string {
	partition := "aws"
	if parts := strings.Split(queue, ":"); len(parts) > 1 {
		partition = parts[1]
	}
	return fmt.Sprintf("arn:%s:s3:::%s", partition, c.Bucket)
}

// readPolicy returns the statements of a policy: one, or a list.
func readPolicy(text string) (list []statement, err error) {
	if text == "" {
		return nil, nil
	}
	var policy struct{ Statement json.RawMessage }
	if err := json.Unmarshal([]byte(text), &policy); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(policy.Statement, &list); err == nil {
		return list, nil
	}
	list = make([]statement, 1)
	return list, json.Unmarshal(policy.Statement, &list[0])
}

// about reports whether the statement is about S3's sending to the queue, conditions
// aside.
func (s statement) about(queue string) bool {
	who := words(s.Principal)
	if byKind, is := s.Principal.(map[string]any); is {
		who = append(words(byKind["Service"]), words(byKind["AWS"])...)
	}
	return anyCovers(who, s3Service) && anyCovers(words(s.Action), "sqs:SendMessage") &&
		anyCovers(words(s.Resource), queue)
}

// holds reports whether the conditions hold for the bucket's events, and whether all of
// them are understood.
func (s statement) holds(bucket string) (holds, all bool) {
	holds, all = true, true
	for operator, conditions := range s.Condition {
		for key, value := range conditions {
			switch {
			case strings.EqualFold(key, "aws:SourceArn") && isEquality(operator):
				holds = holds && anyCovers(words(value), bucket)
			case !strings.EqualFold(key, "aws:SourceAccount"): // the account is not seen from here
				all = false
			}
		}
	}
	return holds, all
}

// isEquality accepts the operators that compare, with wildcards or without.
func isEquality(operator string) bool {
	switch strings.TrimSuffix(strings.ToLower(operator), "ifexists") {
	case "arnequals", "arnlike", "stringequals", "stringlike":
		return true
	}
	return false
}

// words returns the strings of one value or a list.
func words(v any) []string {
	switch v := v.(type) {
	case string:
		return []string{v}
	case []any:
		var all []string
		for _, one := range v {
			all = append(all, words(one)...)
		}
		return all
	}
	return nil
}

// anyCovers reports whether a pattern with the wildcards * and ? covers the name. None of
// the names compared has a slash, so those of path.Match are the same.
func anyCovers(patterns []string, name string) bool {
	for _, pattern := range patterns {
		covers, err := path.Match(strings.ToLower(pattern), strings.ToLower(name))
		if err == nil && covers {
			return true
		}
	}
	return false
}
