package emulator

import (
	"encoding/json"
	"slices"
	"strings"
)

// checkDestination refuses a queue that is not there or, if its policy is to be looked
// at, that does not let S3 send for the bucket.
func (q *queues) checkDestination(arn, bucketARN string, policy bool) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	k := q.byARN(arn)
	if k == nil || policy && !allows(k.attributes["Policy"], arn, bucketARN) {
		return errNoDestination
	}
	return nil
}

// statement is as much of an IAM policy statement as matters for S3's events.
type statement struct {
	Effect    string
	Principal any
	Action    any
	Resource  any
	Condition map[string]map[string]any
}

// allows reports whether a queue policy lets S3 send messages for a bucket: user guide,
// "Granting permissions to publish event notification messages". A condition that it does
// not know does not hold.
func allows(policy, queueARN, bucketARN string) bool {
	var p struct{ Statement []statement }
	if json.Unmarshal([]byte(policy), &p) != nil {
		return false
	}
	return slices.ContainsFunc(p.Statement, func(s statement) bool {
		principal := s.Principal
		if m, ok := principal.(map[string]any); ok {
			principal = append(words(m["Service"]), words(m["AWS"])...)
		}
		return s.Effect == "Allow" && anyCovers(principal, "s3.amazonaws.com") && anyCovers(s.Resource, queueARN) &&
			(anyCovers(s.Action, "sqs:SendMessage") || anyCovers(s.Action, "SQS:SendMessage")) && s.holds(bucketARN)
	})
}

// holds reports whether the statement's conditions hold for a bucket of the emulator.
func (s statement) holds(bucketARN string) bool {
	facts := map[string]string{"aws:sourcearn": bucketARN, "aws:sourceaccount": Account}
	for operator, conditions := range s.Condition {
		known := slices.Contains([]string{"ArnLike", "ArnEquals", "StringLike", "StringEquals"}, operator)
		for key, values := range conditions {
			if fact, ok := facts[strings.ToLower(key)]; !ok || !known || !anyCovers(values, fact) {
				return false
			}
		}
	}
	return true
}

// words are the strings of a policy's element, which is one or a list.
func words(v any) []string {
	switch v := v.(type) {
	case string:
		return []string{v}
	case []string:
		return v
	case []any:
		var all []string
		for _, w := range v {
			all = append(all, words(w)...)
		}
		return all
	}
	return nil
}

func anyCovers(v any, name string) bool {
	return slices.ContainsFunc(words(v), func(pattern string) bool { return covers(pattern, name) })
}
