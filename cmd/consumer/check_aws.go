package main

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"unicode"

	"imagemanager.internal/internal/download"
)

// defaultRegion is the specification's (SC-4).
const defaultRegion = "us-east-1"

// region returns where requests go and are signed for: the region that was set, or the
// queue's.
func (c config) region() string {
	queue, _ := url.Parse(c.QueueURL) // checkQueues refuses a bad one
	return cmp.Or(c.Region, regionOf(queue), defaultRegion)
}

func (c config) endpointS3() string  { return cmp.Or(c.EndpointS3, c.Endpoint) }
func (c config) endpointSQS() string { return cmp.Or(c.EndpointSQS, c.Endpoint) }

// queueEndpoint returns the queue's own host if it is not a regional one: an emulator, a
// VPC endpoint, FIPS. Otherwise it is empty, and the region decides.
func (c config) queueEndpoint() string {
	u, err := url.Parse(c.QueueURL)
	if err != nil || u.Host == "" || regionalHost().MatchString(u.Hostname()) ||
		legacyHost().MatchString(u.Hostname()) && ofAWS().MatchString("."+u.Hostname()) {
		return ""
	}
	return u.Scheme + "://" + u.Host
}

// onUse compiles a pattern when it is used first: few commands use any, and all together
// they would be a tenth of the start of the program.
func onUse(pattern string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(pattern) })
}

// Hosts of SQS, from the AWS General Reference, "Amazon SQS endpoints and quotas", and
// "Legacy endpoints" there.
var (
	regionalHost = onUse(`^sqs\.([a-z0-9-]+)\.amazonaws\.com(\.cn)?$`)
	// legacyHost is also one of LocalStack's forms of a URL.
	legacyHost = onUse(`^(?:([a-z0-9-]+)\.)?queue\.` +
		`(?:amazonaws\.com(?:\.cn)?|localhost\.localstack\.cloud)$`)
	// anyHost finds the region after the service's name: regional, FIPS, dual-stack and
	// VPC endpoints, other partitions, LocalStack.
	anyHost = onUse(`(?:^|\.)sqs(?:-fips)?\.([a-z]{2,4}(?:-[a-z]+)+-[0-9]+)\.`)
	ofAWS   = onUse(`\.(?:` +
		`amazonaws\.(?:com(?:\.cn)?|eu)|api\.aws|api\.amazonwebservices\.com\.cn|[a-z0-9-]+\.(?:ic|sgov)\.gov)$`)
)

// regionOf returns the region in a URL's host, "" without one.
func regionOf(u *url.URL) string {
	if u == nil {
		return ""
	}
	if m := legacyHost().FindStringSubmatch(u.Hostname()); m != nil {
		return cmp.Or(m[1], "us-east-1")
	}
	if m := anyHost().FindStringSubmatch(u.Hostname()); m != nil {
		return m[1]
	}
	return ""
}

// checkBucket returns the problems of bucket and prefix.
func (c config) checkBucket() []error {
	var p problems
	switch err := bucketName(c.Bucket); {
	case c.Bucket == "":
		p.bad(true, "S3_BUCKET (or --bucket) is not set: the bucket to take images from")
	case err != nil:
		p.bad(true, "S3_BUCKET %q %w", c.Bucket, err)
	}
	if err := prefix(c.Prefix); err != nil {
		p.bad(true, "S3_PREFIX %q %w", c.Prefix, err)
	}
	return p
}

var (
	bucketShape = onUse(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)
	// oldBucket is the rule of us-east-1 until March 2018. Such buckets still exist.
	oldBucket = onUse(`^[A-Za-z0-9._-]{3,255}$`)
	bucketARN = onUse(`^arn:aws[a-z-]*:s3:::([^/]+)`)
	// strangeBucket are beginnings and ends reserved by S3, never those of a bucket with
	// notifications.
	strangeBucket = onUse(`^(?:xn--|sthree-|amzn-s3-demo-)|(?:-s3alias|--ol-s3|\.mrap|--x-s3|--table-s3)$`)
)

// bucketName holds a name to S3's rules (Amazon S3 user guide, "General purpose bucket
// naming rules"): events name a bucket by it alone, so with any other text every event
// would be foreign. The error continues a sentence about the name.
func bucketName(name string) error {
	if m := bucketARN().FindStringSubmatch(name); m != nil {
		return fmt.Errorf("is an ARN: write the bucket's name alone, %s", m[1])
	}
	if _, rest, ok := strings.Cut(name, "://"); ok {
		if strings.EqualFold(name[:min(len(name), 5)], "s3://") {
			bucket, _, _ := strings.Cut(rest, "/")
			return fmt.Errorf("is a URI: write the bucket's name alone, %s, and what follows it as S3_PREFIX", bucket)
		}
		return errors.New("is a URL: write the bucket's name alone; another endpoint than AWS is AWS_ENDPOINT_URL")
	}
	if bucket, rest, ok := strings.Cut(name, "/"); ok && bucket != "" {
		return fmt.Errorf("has a path: write the bucket's name alone, %s, and S3_PREFIX=%s", bucket, rest)
	}
	_, notIP := netip.ParseAddr(name)
	switch {
	case strings.TrimSpace(name) != name:
		return fmt.Errorf("has a blank before or after it: write %s", strings.TrimSpace(name))
	case strings.HasPrefix(name, "arn:"):
		return errors.New("is an ARN of something else than a bucket: events name the bucket itself; write that name")
	case strings.ContainsAny(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_") && oldBucket().MatchString(name):
		return nil
	case !bucketShape().MatchString(name), strings.Contains(name, ".."), notIP == nil:
		return errors.New("is not a bucket name: 3 to 63 lower-case letters, digits, hyphens and dots, a letter or " +
			"digit at both ends; `aws s3 ls` lists yours")
	case strangeBucket().MatchString(name):
		return errors.New("is an alias, or a kind of bucket that sends no notifications: events name the bucket " +
			"itself; write that name")
	}
	return nil
}

// prefix accepts the beginning of any valid key (download.ValidateKey). The empty prefix
// is every key's. The error continues a sentence about the prefix.
func prefix(prefix string) error {
	if prefix == "" {
		return nil
	}
	trimmed := strings.TrimLeft(strings.TrimSpace(prefix), "/")
	switch {
	case strings.Contains(prefix, "://"), strings.HasPrefix(prefix, "arn:"):
		return errors.New("is a URI: write the beginning of the keys alone, such as images/")
	case strings.TrimSpace(prefix) != prefix:
		return fmt.Errorf("has a blank before or after it: write %s", trimmed)
	case strings.HasPrefix(prefix, "/"):
		return fmt.Errorf("begins with a slash, and no key that is taken does: write %s", trimmed)
	case strings.ContainsAny(prefix, "*?"):
		return fmt.Errorf("has a wildcard: every key that begins with the prefix is taken; write %s",
			trimmed[:strings.IndexAny(trimmed, "*?")])
	}
	if err := download.ValidateKey(prefix+"x", prefix); err != nil {
		return fmt.Errorf("would fit no key that is taken: %w", err)
	}
	return nil
}

// checkQueues returns the problems of the queues' URLs, each for itself and together.
func (c config) checkQueues() []error {
	var p problems
	if c.QueueURL == "" {
		p.bad(true, "SQS_QUEUE_URL (or --queue-url) is not set: the queue with the bucket's notifications")
	}
	p = append(p, c.checkQueue("SQS_QUEUE_URL", c.QueueURL)...)
	p.bad(strings.HasSuffix(c.QueueURL, ".fifo"), "SQS_QUEUE_URL %q is a FIFO queue: S3 cannot notify one; use a "+
		"standard queue", c.QueueURL)
	dead := c.checkQueue("SQS_DEAD_LETTER_URL", c.DeadLetter)
	p = append(p, dead...)
	p.bad(strings.HasSuffix(c.DeadLetter, ".fifo"), "SQS_DEAD_LETTER_URL %q is a FIFO queue: that of a standard "+
		"queue is a standard queue", c.DeadLetter)
	p.bad(dead == nil && c.DeadLetter != "" && sameQueue(c.DeadLetter, c.QueueURL),
		"SQS_DEAD_LETTER_URL is the queue itself: name another one, or none")
	return p
}

// sameQueue reports whether two URLs name the same queue of the same account: it may be
// written with several hosts.
func sameQueue(a, b string) bool {
	ua, errA := url.Parse(a)
	ub, errB := url.Parse(b)
	if errA != nil || errB != nil {
		return a == b
	}
	ra, rb := regionOf(ua), regionOf(ub)
	return ua.Path == ub.Path && (ra == rb || ra == "" || rb == "")
}

var (
	queueARN  = onUse(`^arn:aws[a-z-]*:sqs:([a-z0-9-]+):([0-9]+):([A-Za-z0-9_.-]+)$`)
	queuePath = onUse(`^/[0-9]{12}/[A-Za-z0-9_-]{1,75}[A-Za-z0-9_.-]{0,5}$`)
)

// checkQueue checks the form of one queue's URL, and its region.
func (c config) checkQueue(name, text string) []error {
	var p problems
	u, err := url.Parse(text)
	arn := queueARN().FindStringSubmatch(text)
	switch {
	case text == "":
	case strings.TrimSpace(text) != text:
		p.bad(true, "%s %q has a blank before or after it: write %s", name, text, strings.TrimSpace(text))
	case arn != nil:
		p.bad(true, "%s %q is an ARN: write the URL, which would be https://sqs.%s.amazonaws.com/%s/%s", name, text,
			arn[1], arn[2], arn[3])
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		p.bad(true, "%s %q is not a URL: write what `aws sqs get-queue-url --queue-name NAME` prints, such as "+
			"https://sqs.us-east-1.amazonaws.com/123456789012/images", name, text)
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		p.bad(true, "%s %q has a user, a query or a fragment: a page of the console, perhaps; write what `aws sqs "+
			"get-queue-url --queue-name NAME` prints", name, u.Redacted())
	case strings.HasSuffix(u.Path, "/") || u.Path == "":
		p.bad(true, "%s %q does not end in a queue's name: write what `aws sqs get-queue-url --queue-name NAME` "+
			"prints", name, text)
	case ofAWS().MatchString(u.Hostname()):
		return c.checkQueueOfAWS(name, u)
	}
	return p
}

// checkQueueOfAWS knows more of a URL than of an emulator's.
func (c config) checkQueueOfAWS(name string, u *url.URL) []error {
	var p problems
	region := regionOf(u)
	p.bad(region == "", "%s %q is at no host of SQS: write https://sqs.REGION.amazonaws.com/ACCOUNT/NAME", name, u)
	p.bad(!queuePath().MatchString(u.Path), "%s %q has not the path /ACCOUNT/NAME, an account of 12 digits and a "+
		"name of at most 80 letters, digits, hyphens and underscores", name, u)
	elsewhere := c.endpointSQS() != "" // an emulator with AWS's names for queues
	p.bad(region != "" && region != c.region() && !elsewhere,
		"%s is in %s, and the region is %s: leave AWS_REGION (or --region) out, or set it to %s; both queues are "+
			"in one region", name, region, c.region(), region)
	return p
}

var (
	regionShape = onUse(`^[a-z0-9]+(?:-[a-z0-9]+)*$`)
	zone        = onUse(`^([a-z]{2,4}(?:-[a-z]+)+-[0-9]+)[a-z]$`)
)

// checkPlaces returns the problems of region and endpoints.
func (c config) checkPlaces() []error {
	var p problems
	if m := zone().FindStringSubmatch(c.Region); m != nil {
		p.bad(true, "AWS_REGION %q is an availability zone: write its region, %s", c.Region, m[1])
	}
	p.bad(c.Region != "" && !regionShape().MatchString(c.Region),
		"AWS_REGION %q is not a region: write its code, such as eu-west-1", c.Region)
	for _, e := range []struct{ name, text string }{
		{"AWS_ENDPOINT_URL", c.Endpoint}, {"AWS_ENDPOINT_URL_S3", c.EndpointS3}, {
			"AWS_ENDPOINT_URL_SQS",
			c.EndpointSQS,
		},
	} {
		if err := endpoint(e.text); err != nil {
			p.bad(true, "%s %q %w", e.name, e.text, err)
		}
	}
	return p
}

// endpoint accepts an absolute URL. The error continues a sentence about the text.
func endpoint(text string) error {
	if text == "" {
		return nil
	}
	u, err := url.Parse(text)
	switch {
	case strings.IndexFunc(text, unicode.IsSpace) >= 0:
		return errors.New("has a blank: write http://localhost:4566 or the like")
	case !strings.Contains(text, "://"):
		return fmt.Errorf("has no http:// or https:// before it: write http://%s", text)
	case err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https":
		return errors.New("is not a URL: write http://localhost:4566 or the like")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return errors.New("has a user, a query or a fragment: write scheme, host and port alone")
	}
	return nil
}
