package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// rule is one configuration of the bucket's notifications: which events go where.
type rule struct {
	to             string // ARN
	events         []types.Event
	prefix, suffix string
}

func newRule(to *string, events []types.Event, filter *types.NotificationConfigurationFilter) rule {
	r := rule{to: aws.ToString(to), events: events}
	if filter == nil || filter.Key == nil {
		return r
	}
	for _, f := range filter.Key.FilterRules {
		switch strings.ToLower(string(f.Name)) {
		case "prefix":
			r.prefix = aws.ToString(f.Value)
		case "suffix":
			r.suffix = aws.ToString(f.Value)
		}
	}
	return r
}

// rules returns the configurations about uploads, to queues, topics and functions.
func rules(out *s3.GetBucketNotificationConfigurationOutput) (all []rule) {
	for _, q := range out.QueueConfigurations {
		all = append(all, newRule(q.QueueArn, q.Events, q.Filter))
	}
	for _, t := range out.TopicConfigurations {
		all = append(all, newRule(t.TopicArn, t.Events, t.Filter))
	}
	for _, f := range out.LambdaFunctionConfigurations {
		all = append(all, newRule(f.LambdaFunctionArn, f.Events, f.Filter))
	}
	return slices.DeleteFunc(all, func(r rule) bool { return len(untold([]rule{r})) == len(uploads) })
}

// uploads are the events of all ways to upload an object (Amazon S3 user guide,
// "Supported event types").
var uploads = []string{"Put", "Post", "Copy", "CompleteMultipartUpload"}

// tells reports whether the rule is about uploads of this kind.
func (r rule) tells(upload string) bool {
	return slices.ContainsFunc(r.events, func(e types.Event) bool {
		return e == "s3:ObjectCreated:*" || string(e) == "s3:ObjectCreated:"+upload
	})
}

// fits reports whether both filters let some key pass.
func (r rule) fits(o rule) bool {
	return (strings.HasPrefix(r.prefix, o.prefix) || strings.HasPrefix(o.prefix, r.prefix)) &&
		(strings.HasSuffix(r.suffix, o.suffix) || strings.HasSuffix(o.suffix, r.suffix))
}

// overlaps reports whether both tell of some upload.
func (r rule) overlaps(o rule) bool {
	both := func(upload string) bool { return r.tells(upload) && o.tells(upload) }
	return r.fits(o) && slices.ContainsFunc(uploads, both)
}

// untold returns the kinds of uploads that no rule is about.
func untold(rules []rule) []string {
	return slices.DeleteFunc(slices.Clone(uploads), func(upload string) bool {
		return slices.ContainsFunc(rules, func(r rule) bool { return r.tells(upload) })
	})
}

// notification looks how the queue gets to know of uploads. direct is false if it does by
// way of SNS or EventBridge, which cannot be followed from here.
func (c *Cloud) notification(ctx context.Context, queue string) (f Finding, direct bool) {
	out, err := c.notifications(ctx)
	switch {
	case err != nil:
		return refusal("notification", Warn, "s3:GetBucketNotification", "arn:aws:s3:::"+c.Bucket, err), true
	case queue == "":
		return skipped("the queue's attributes cannot be read", "notification")[0], true
	}
	return c.judgeNotifications(out, queue)
}

func (c *Cloud) notifications(ctx context.Context) (*s3.GetBucketNotificationConfigurationOutput, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return c.S3.GetBucketNotificationConfiguration(ctx,
		&s3.GetBucketNotificationConfigurationInput{Bucket: aws.String(c.Bucket)})
}

func (c *Cloud) judgeNotifications(out *s3.GetBucketNotificationConfigurationOutput, queue string) (f Finding,
	direct bool,
) {
	const check = "notification"
	var ours, others []rule
	for _, r := range rules(out) {
		if r.to == queue {
			ours = append(ours, r)
		} else {
			others = append(others, r)
		}
	}
	switch detours := len(out.TopicConfigurations) > 0 || out.EventBridgeConfiguration != nil; {
	case len(ours) > 0:
		return c.judgeRules(ours, others), true
	case detours:
		return warn(check, "upload an object, and see that a message arrives",
			"the bucket tells SNS or EventBridge of "+
				"uploads; whether the queue hears of it is not seen from here"), false
	}
	return fail(check, fmt.Sprintf("localstack/setup.sh --bucket %s sets it up, or `aws s3api "+
		"put-bucket-notification-configuration`", c.Bucket), "the bucket tells nothing to %s", queue), true
}

// judgeRules judges what the queue is told, and what others are told as well.
func (c *Cloud) judgeRules(ours, others []rule) Finding {
	const check = "notification"
	i := slices.IndexFunc(ours, rule{prefix: c.Prefix}.fits)
	if i < 0 {
		return fail(check,
			fmt.Sprintf("set S3_PREFIX to %q, or the notification's prefix to %q", ours[0].prefix, c.Prefix),
			"the queue is told of keys under %q alone, and S3_PREFIX is %q", ours[0].prefix, c.Prefix)
	}
	r := ours[i]
	rest := slices.Delete(slices.Clone(ours), i, i+1)
	switch kinds := untold(ours); {
	case len(kinds) > 0:
		return warn(check, "give the notification the event s3:ObjectCreated:*",
			"the queue is not told of uploads by %s", strings.Join(kinds, ", "))
	case len(r.prefix) > len(c.Prefix) && len(rest) == 0:
		return warn(check, fmt.Sprintf("set the notification's prefix to %q, or S3_PREFIX to %q", c.Prefix, r.prefix),
			"the queue is told of keys under %q alone, and S3_PREFIX is %q", r.prefix, c.Prefix)
	case slices.ContainsFunc(ours, func(r rule) bool { return !strings.HasPrefix(r.prefix, c.Prefix) }):
		return warn(check, fmt.Sprintf("set the notification's prefix to %q, or a shorter S3_PREFIX; until then "+
			"FOREIGN_EVENTS says what becomes of those messages", c.Prefix),
			"the queue is also told of keys outside of S3_PREFIX %q", c.Prefix)
	case slices.ContainsFunc(append(rest, others...), r.overlaps):
		return warn(check, "give each key to one configuration: see `aws s3api get-bucket-notification-configuration`",
			"a second configuration is about the same uploads")
	case r.suffix != "":
		return ok(check, "of keys under %q that end in %q; others are not told", r.prefix, r.suffix)
	}
	return ok(check, "of all uploads under %q", r.prefix)
}
