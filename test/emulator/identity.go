package emulator

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
)

// identities are the policies of those who sign requests, by access key.
type identities struct {
	mu    sync.Mutex
	byKey map[string]*identity
}

// identity is a policy, and what was asked of it.
type identity struct {
	statements      []statement
	granted, denied map[Grant]bool
}

// Grant is an action of IAM on the ARN of a resource.
type Grant struct{ Action, Resource string }

// Attach gives the owner of an access key a policy of IAM. What it does not allow is
// refused from now on: 403 AccessDenied. An access key without a policy may do anything.
// A policy may allow actions on resources; an error is returned for anything else.
func (s *Server) Attach(accessKey string, policy []byte) error {
	var p struct{ Statement []statement }
	if err := json.Unmarshal(policy, &p); err != nil {
		return fmt.Errorf("emulator: policy: %w", err)
	}
	for _, st := range p.Statement {
		if st.Effect != "Allow" || st.Condition != nil || len(words(st.Action)) == 0 || len(words(st.Resource)) == 0 {
			return errors.New("emulator: policy: a statement that does not plainly allow actions on resources")
		}
	}
	s.identities.mu.Lock()
	defer s.identities.mu.Unlock()
	s.identities.byKey[accessKey] = &identity{p.Statement, map[Grant]bool{}, map[Grant]bool{}}
	return nil
}

// Asked returns what the owner of an access key with a policy has been granted, and what
// denied, each in order.
func (s *Server) Asked(accessKey string) (granted, denied []Grant) {
	s.identities.mu.Lock()
	defer s.identities.mu.Unlock()
	i := s.identities.byKey[accessKey]
	if i == nil {
		return nil, nil
	}
	order := func(a, b Grant) int { return strings.Compare(a.Action+" "+a.Resource, b.Action+" "+b.Resource) }
	return slices.SortedFunc(maps.Keys(i.granted), order), slices.SortedFunc(maps.Keys(i.denied), order)
}

// allow reports whether the signer of a request may do what it asks for.
func (s *Server) allow(r *http.Request, call service) bool {
	s.identities.mu.Lock()
	defer s.identities.mu.Unlock()
	i := s.identities.byKey[accessKey(r)]
	if i == nil {
		return true
	}
	g := s.grant(r, call)
	allowed := slices.ContainsFunc(i.statements, func(st statement) bool {
		return anyCovers(st.Action, g.Action) && anyCovers(st.Resource, g.Resource)
	})
	if allowed {
		i.granted[g] = true
	} else {
		i.denied[g] = true
	}
	return allowed
}

// accessKey is that of the request's signature, which is not looked at.
func accessKey(r *http.Request) string {
	_, rest, _ := strings.Cut(r.Header.Get("Authorization"), "Credential=")
	key, _, _ := strings.Cut(rest, "/")
	return key
}

var errNotAllowed = &apiError{
	code: "AccessDenied", status: http.StatusForbidden, message: "no identity-based policy allows the action",
}

// actionOf has the actions that are not called as the operation: Service Authorization
// Reference, "Actions, resources, and condition keys" for Amazon S3 and Amazon SQS.
var actionOf = map[string]string{
	"HeadObject":                         "GetObject",
	"HeadBucket":                         "ListBucket",
	"ListObjects":                        "ListBucket",
	"ListObjectsV2":                      "ListBucket",
	"ListObjectVersions":                 "ListBucketVersions",
	"GetBucketNotificationConfiguration": "GetBucketNotification",
	"PutBucketNotificationConfiguration": "PutBucketNotification",
	"SendMessageBatch":                   "SendMessage",
	"DeleteMessageBatch":                 "DeleteMessage",
	"ChangeMessageVisibilityBatch":       "ChangeMessageVisibility",
}

// grant is what a request needs.
func (s *Server) grant(r *http.Request, call service) Grant {
	action, target := call.name()
	if a := actionOf[action]; a != "" {
		action = a
	}
	if isSQS(r) {
		return Grant{"sqs:" + action, s.queues.arnOf(target)}
	}
	if action == "GetObject" && r.URL.Query().Has("versionId") {
		action = "GetObjectVersion"
	}
	return Grant{"s3:" + action, "arn:aws:s3:::" + target}
}
