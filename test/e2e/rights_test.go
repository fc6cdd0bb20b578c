package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	s3types "github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	deploy "imagemanager.internal/deploy/aws"
	"imagemanager.internal/internal/store"
	"imagemanager.internal/test/emulator"
	tarballs "imagemanager.internal/test/images"
)

// sqsARN is how the ARNs of the emulator's queues begin.
const sqsARN = "arn:aws:sqs:us-east-1:" + emulator.Account + ":"

// restrict gives each command, and the daemon, the rights that operators are told to give
// them, and no others. The name of the command is its access key, so that their requests
// can be told apart. The test itself has another one.
func (h *host) restrict(commands []string, queue, deadLetters string) {
	h.T.Helper()
	bucket := "arn:aws:s3:::" + h.Cloud.Name
	policy, err := json.Marshal(deploy.Policy(map[deploy.Place]any{
		deploy.Objects: bucket + "/images/*", deploy.Bucket: bucket,
		deploy.Queue: sqsARN + queue, deploy.DeadLetterQueue: sqsARN + deadLetters,
	}))
	h.Check(err)
	for _, c := range commands {
		h.Check(h.emulator().Attach(c, policy))
	}
}

// place returns what a resource is.
func place(arn, queue string) deploy.Place {
	switch {
	case strings.HasPrefix(arn, sqsARN) && strings.HasSuffix(arn, ":"+queue):
		return deploy.Queue
	case strings.HasPrefix(arn, sqsARN):
		return deploy.DeadLetterQueue
	case strings.Contains(arn, "/"):
		return deploy.Objects
	}
	return deploy.Bucket
}

// The daemon and each command ask for the rights that deploy/aws says they use, and for
// no others.
func TestRights(t *testing.T) {
	h := newHost(t)
	dlq := h.deadLetterQueue()
	commands, queue := []string{"run", "submit", "backfill", "quarantine requeue", "doctor"}, h.Cloud.Name
	h.restrict(commands, queue, path.Base(dlq))
	h.worksOnAll(dlq)
	for _, command := range commands {
		granted, denied := h.emulator().Asked(command)
		if len(denied) > 0 {
			t.Errorf("%s asked for what it may not do: %v", command, denied)
		}
		for _, r := range deploy.Rights {
			used := slices.ContainsFunc(granted, func(g emulator.Grant) bool {
				return g.Action == r.Action && place(g.Resource, queue) == r.On
			})
			if documented := slices.Contains(r.Callers, command); used != documented {
				t.Errorf("%s: %s on the %s: used %t, documented %t", command, r.Action, r.On, used, documented)
			}
		}
	}
}

// by runs a command with the access key of its name.
func (h *host) by(command string, succeeds bool, args ...string) {
	h.T.Helper()
	out, code := h.TryWith([]string{"AWS_ACCESS_KEY_ID=" + command}, append(strings.Fields(command), args...)...)
	if (code == 0) != succeeds {
		h.T.Errorf("%s %q: exit code %d\n%s", command, args, code, out)
	}
}

// redrive has SQS itself dead-letter messages.
func (h *host) redrive(dlq string) {
	h.T.Helper()
	policy := fmt.Sprintf(`{"deadLetterTargetArn":"%s%s","maxReceiveCount":100}`, sqsARN, path.Base(dlq))
	_, err := h.Cloud.SQS.SetQueueAttributes(h.T.Context(), &sqs.SetQueueAttributesInput{
		QueueUrl: &h.Cloud.Queue, Attributes: map[string]string{"RedrivePolicy": policy},
	})
	h.Check(err)
}

// worksOnAll has the daemon and the commands do everything that takes a right.
func (h *host) worksOnAll(dlq string) {
	h.T.Helper()
	const key = "AWS_ACCESS_KEY_ID=run"
	ctx, body := h.T.Context(), tarballs.RootFS("hello", 3)
	h.Start(key) // without a dead-letter queue: what is no notification goes to quarantine
	h.send("no notification")
	h.waitQuarantined()
	list, err := h.Store.QuarantinedMessages(ctx)
	h.Check(err)
	h.Stop()
	h.by("quarantine requeue", true, fmt.Sprint(list[0].ID))

	h.Start(key, "SQS_DEAD_LETTER_URL="+dlq, "BACKFILL_AT_START=true")
	h.WaitFor("it is copied", func() bool { return h.countMessages(dlq) == "1" })
	h.emulator().Fault(emulator.Fault{Op: "GetObject", Status: http.StatusServiceUnavailable})
	h.put("images/given-back.tar", body)
	h.WaitFor("its message is given back", func() bool {
		return h.emulator().Calls("ChangeMessageVisibilityBatch") > 0
	})
	h.emulator().Clear()
	h.WaitActive("images/given-back.tar")
	_, err = h.Cloud.S3.PutBucketVersioning(ctx, &s3.PutBucketVersioningInput{
		Bucket:                  &h.Cloud.Name,
		VersioningConfiguration: &s3types.VersioningConfiguration{Status: s3types.BucketVersioningStatusEnabled},
	})
	h.Check(err)
	h.put("images/version.tar", body)
	h.WaitActive("images/version.tar")
	h.Check(h.Cloud.Silence(ctx))
	h.put("images/unannounced.tar", body)
	h.put("images/by-hand.tar", body)
	h.by("submit", true, "images/by-hand.tar")
	h.by("submit", false, "images/none.tar")
	h.by("backfill", true)
	h.WaitActive("images/unannounced.tar")
	h.WaitActive("images/by-hand.tar")
	h.WaitDrained()
	h.redrive(dlq)
	h.diagnose([]string{"AWS_ACCESS_KEY_ID=doctor", "SQS_DEAD_LETTER_URL=" + dlq})
	h.Stop()
	if n := h.countImages(store.StateActive); n != 4 {
		h.T.Errorf("%d active images", n)
	}
}
