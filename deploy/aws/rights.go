// Package aws has what the program needs on AWS: its rights, and a CloudFormation
// template of bucket, queues and role. `make docs` writes both to files.
package aws

// Place is what a right is on.
type Place string

// The places. Objects are those under S3_PREFIX.
const (
	Objects         Place = "Objects"
	Bucket          Place = "Bucket"
	Queue           Place = "Queue"
	DeadLetterQueue Place = "DeadLetterQueue"
)

// places are in the order of the statements.
var places = []Place{Objects, Bucket, Queue, DeadLetterQueue}

// Right allows the program an action: Service Authorization Reference, "Actions,
// resources, and condition keys".
type Right struct {
	Action  string
	On      Place
	Callers []string // commands; run is the daemon
	Reason  string   // what it is for, or what happens without it
}

// Rights are all rights that the program uses.
var Rights = []Right{
	{"s3:GetObject", Objects, []string{"run", "backfill", "submit", "doctor"}, "downloads, and what an object is"},
	{"s3:GetObjectVersion", Objects, []string{"run"}, "downloads from a bucket with versions"},
	{
		"s3:ListBucket", Bucket,
		[]string{"run", "backfill", "submit", "doctor"},
		"backfills, and the question whether the bucket answers at all. Without it S3 answers 403 instead of 404 for " +
			"a deleted object; the image is then retried instead of recorded as vanished",
	},
	{
		"s3:GetBucketNotification", Bucket,
		[]string{"run", "doctor"},
		"whether the bucket announces its images to the queue. Without it the daemon does not look at its start",
	},
	{"sqs:ReceiveMessage", Queue, []string{"run"}, "polls"},
	{"sqs:DeleteMessage", Queue, []string{"run"}, "messages whose images have ended"},
	{"sqs:ChangeMessageVisibility", Queue, []string{"run"}, "messages that are worked on, or given back"},
	{
		"sqs:GetQueueAttributes", Queue,
		[]string{"run", "doctor"},
		"the metric of its depth (`SQS_DEPTH_INTERVAL`). Without it there is a warning",
	},
	{"sqs:SendMessage", Queue, []string{"quarantine requeue"}, "messages in quarantine"},
	{
		"sqs:GetQueueAttributes", DeadLetterQueue,
		[]string{"run", "doctor"},
		"the metric of its depth, and the check at the start that it exists. Without it each is only a warning",
	},
	{"sqs:GetQueueUrl", DeadLetterQueue, []string{"doctor"}, "whether the redrive policy names a queue that exists"},
	{"sqs:SendMessage", DeadLetterQueue, []string{"run"}, "dead-lettering"},
}

// Document is a policy of IAM.
type Document struct {
	Version   string
	Statement []Statement
}

// Statement allows actions on one place.
type Statement struct {
	Sid      string
	Effect   string
	Action   []string
	Resource any // an ARN, or what computes it in a template
}

// Policy returns the rights as a policy. at has the ARN of each place.
func Policy(at map[Place]any) Document {
	d := Document{Version: "2012-10-17"}
	for _, p := range places {
		s := Statement{Sid: string(p), Effect: "Allow", Resource: at[p]}
		for _, r := range Rights {
			if r.On == p {
				s.Action = append(s.Action, r.Action)
			}
		}
		d.Statement = append(d.Statement, s)
	}
	return d
}
