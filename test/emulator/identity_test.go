package emulator_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"imagemanager.internal/test/emulator"
)

const narrow = `{"Version": "2012-10-17", "Statement": [
  {"Sid": "A", "Effect": "Allow", "Action": ["s3:GetObject", "s3:GetObjectVersion"], "Resource": "%[1]s/images/*"},
  {"Effect": "Allow", "Action": "s3:ListBucket", "Resource": ["%[1]s"]},
  {"Effect": "Allow", "Action": "sqs:DeleteMessage", "Resource": "%[2]s"}]}`

// A policy allows its actions on its resources and nothing else, whatever the operation
// is called, and only whoever has the access key is asked for it.
func TestAttach(t *testing.T) {
	w := emulated(t, emulator.Config{})
	ctx := t.Context()
	name, url := w.newBucket(), w.newQueue(nil)
	b, bARN, qARN := &name, "arn:aws:s3:::"+name, w.attributes(url)["QueueArn"]
	w.put(name, "images/a", "a")
	w.put(name, "other", "b")
	w.check(w.emu.Attach("another", []byte(`{}`)))
	w.get(&s3.GetObjectInput{Bucket: b, Key: aws.String("other")})
	w.check(w.emu.Attach("x", fmt.Appendf(nil, narrow, bARN, qARN)))
	head := func(key string, version *string) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := w.s3.HeadObject(ctx, &s3.HeadObjectInput{Bucket: b, Key: aws.String(key), VersionId: version})
			return err
		}
	}
	for _, c := range []struct {
		name    string
		call    func(ctx context.Context) error
		allowed bool
	}{
		{"head", head("images/a", nil), true},
		{"head of a version", head("images/a", aws.String("null")), true},
		{"head beside the prefix", head("other", nil), false},
		{"list", func(ctx context.Context) error {
			_, err := w.s3.ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: b})
			return err
		}, true},
		{"put", func(ctx context.Context) error {
			_, err := w.s3.PutObject(ctx, &s3.PutObjectInput{Bucket: b, Key: aws.String("images/a")})
			return err
		}, false},
		{"receive", func(ctx context.Context) error {
			_, err := w.sqs.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{QueueUrl: &url})
			return err
		}, false},
	} {
		var e interface{ HTTPStatusCode() int } // a refusal of HEAD has no code of its own
		switch err := c.call(ctx); {
		case c.allowed && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case !c.allowed && (!errors.As(err, &e) || e.HTTPStatusCode() != http.StatusForbidden):
			t.Errorf("%s: %v, want 403", c.name, err)
		}
	}
	granted, denied := w.emu.Asked("x")
	if want := []emulator.Grant{
		{Action: "s3:GetObject", Resource: bARN + "/images/a"},
		{Action: "s3:GetObjectVersion", Resource: bARN + "/images/a"},
		{Action: "s3:ListBucket", Resource: bARN},
	}; !reflect.DeepEqual(granted, want) {
		t.Errorf("granted %v, want %v", granted, want)
	}
	if want := []emulator.Grant{
		{Action: "s3:GetObject", Resource: bARN + "/other"},
		{Action: "s3:PutObject", Resource: bARN + "/images/a"},
		{Action: "sqs:ReceiveMessage", Resource: qARN},
	}; !reflect.DeepEqual(denied, want) {
		t.Errorf("denied %v, want %v", denied, want)
	}
}

// What the emulator could not judge as IAM would is no policy.
func TestAttachRefuses(t *testing.T) {
	w := emulated(t, emulator.Config{})
	for _, policy := range []string{
		"", `{"Statement": [{"Effect": "Deny", "Action": "s3:*", "Resource": "*"}]}`,
		`{"Statement": [{"Effect": "Allow", "NotAction": "s3:*", "Resource": "*"}]}`,
		`{"Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*", "Condition": {}}]}`,
	} {
		if w.emu.Attach("x", []byte(policy)) == nil {
			t.Errorf("%s was taken", policy)
		}
	}
}
