package emulator

import (
	"encoding/xml"
	"net/http"
	"slices"
	"strings"
)

// notificationConfiguration is what a bucket notifies of. Topics and functions are
// refused: the emulator has none. EventBridge is taken, and gets nothing, for the same
// reason.
type notificationConfiguration struct {
	XMLName     xml.Name             `xml:"NotificationConfiguration"`
	Queues      []queueConfiguration `xml:"QueueConfiguration"`
	Topics      []struct{}           `xml:"TopicConfiguration"`
	Functions   []struct{}           `xml:"CloudFunctionConfiguration"`
	EventBridge *struct{}            `xml:"EventBridgeConfiguration"`
}

type queueConfiguration struct {
	ID     string       `xml:"Id"`
	Queue  string       // ARN
	Events []string     `xml:"Event"`
	Rules  []filterRule `xml:"Filter>S3Key>FilterRule"`
}

type filterRule struct {
	Name, Value string
}

// wants reports whether the queue gets an event, by its kind and by the key before it is
// encoded.
func (q queueConfiguration) wants(name, key string) bool {
	if !slices.ContainsFunc(q.Events, func(pattern string) bool { return covers(pattern, "s3:"+name) }) {
		return false
	}
	for _, rule := range q.Rules {
		prefix := strings.EqualFold(rule.Name, "prefix")
		if prefix && !strings.HasPrefix(key, rule.Value) || !prefix && !strings.HasSuffix(key, rule.Value) {
			return false
		}
	}
	return true
}

// covers reports whether an event type, "s3:ObjectCreated:*" for one, is of a pattern.
func covers(pattern, name string) bool {
	kind, all := strings.CutSuffix(pattern, "*")
	return pattern == name || all && strings.HasPrefix(name, kind)
}

func (c *s3Call) getNotification(w http.ResponseWriter, _ *http.Request) error {
	c.buckets.mu.Lock()
	k, err := c.buckets.find(c.bucket)
	if err != nil {
		c.buckets.mu.Unlock()
		return err
	}
	cfg := k.notification
	c.buckets.mu.Unlock()
	c.answer(w, http.StatusOK, cfg)
	return nil
}

// putNotification replaces the configuration, and sends a test event to each queue in it.
// An empty one turns notifications off.
func (c *s3Call) putNotification(w http.ResponseWriter, r *http.Request) error {
	var cfg notificationConfiguration
	if err := document(r, &cfg); err != nil {
		return err
	}
	b := c.buckets
	b.mu.Lock()
	defer b.mu.Unlock()
	k, err := b.find(c.bucket)
	if err != nil {
		return err
	}
	if len(cfg.Topics)+len(cfg.Functions) > 0 {
		return errNoDestination.with("%s: the emulator has queues only", errNoDestination.message)
	}
	for i := range cfg.Queues {
		if err := b.check(k, &cfg.Queues[i]); err != nil {
			return err
		}
		for _, before := range cfg.Queues[:i] {
			if before.overlaps(cfg.Queues[i]) {
				return errArgument.with(
					"Configurations overlap. Configurations on the same bucket cannot share a common event type.")
			}
		}
	}
	k.notification = cfg
	for _, q := range cfg.Queues {
		b.courier.test(q.Queue, k.name, w.Header().Get("X-Amz-Request-Id"))
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

// check completes a queue's configuration, or says what is wrong with it.
func (b *buckets) check(k *bucket, q *queueConfiguration) error {
	if q.ID == "" {
		q.ID = newID()
	}
	if len(q.Events) == 0 {
		return errMalformedXML
	}
	for _, e := range q.Events {
		if !covers("s3:ObjectCreated:*", e) && !covers("s3:ObjectRemoved:*", e) {
			return errArgument.with("The event %s is not supported for notifications", e)
		}
	}
	seen := map[string]bool{}
	for i, rule := range q.Rules {
		name := strings.ToLower(rule.Name)
		if name != "prefix" && name != "suffix" {
			return errArgument.with("filter rule name must be either prefix or suffix")
		}
		if seen[name] {
			return errArgument.with("Cannot specify more than one %s rule in a filter.", name)
		}
		seen[name] = true
		q.Rules[i].Name = map[string]string{"prefix": "Prefix", "suffix": "Suffix"}[name] // as AWS answers them
	}
	if strings.HasSuffix(q.Queue, ".fifo") {
		return errArgument.with("FIFO SQS queues are not supported.")
	}
	return b.courier.queues.checkDestination(q.Queue, "arn:aws:s3:::"+k.name, b.checkPolicy)
}

// overlaps reports whether both would want the events of some key.
func (q queueConfiguration) overlaps(o queueConfiguration) bool {
	shared := slices.ContainsFunc(q.Events, func(a string) bool {
		return slices.ContainsFunc(o.Events, func(b string) bool { return covers(a, b) || covers(b, a) })
	})
	prefixes := strings.HasPrefix(q.rule("prefix"), o.rule("prefix")) ||
		strings.HasPrefix(o.rule("prefix"), q.rule("prefix"))
	suffixes := strings.HasSuffix(q.rule("suffix"), o.rule("suffix")) ||
		strings.HasSuffix(o.rule("suffix"), q.rule("suffix"))
	return shared && prefixes && suffixes
}

func (q queueConfiguration) rule(name string) string {
	for _, r := range q.Rules {
		if strings.EqualFold(r.Name, name) {
			return r.Value
		}
	}
	return ""
}

// notify tells the queues of a change. The mutex is held, so that events of a key leave
// in the order of its changes.
func (b *buckets) notify(k *bucket, e event) {
	for _, q := range k.notification.Queues {
		if q.wants(e.name, e.key) {
			e.config = q.ID
			b.courier.event(q.Queue, e)
		}
	}
}
