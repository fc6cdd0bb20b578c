package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/spf13/cobra"

	"imagemanager.internal/internal/store"
)

func quarantineListCommand() *cobra.Command {
	var f filter
	cmd := withListing(&cobra.Command{
		Use:   "list",
		Short: "List the messages in quarantine: given up on, and not dead-lettered",
		Long: `List shows the messages that failed for good while no dead-letter queue was set, with
the reason of each, oldest first.`,
		Example: `  consumer quarantine list
  consumer quarantine list -q -n 10`,
		SuggestFor:  []string{"ls"},
		Annotations: exits(3, 5),
		RunE:        looking(func(ctx context.Context, c *call) error { return listQuarantine(ctx, c, f) }),
	}, "ids")
	f.addTo(cmd)
	return cmd
}

func listQuarantine(ctx context.Context, c *call, f filter) error {
	list, err := c.store.QuarantinedMessages(ctx)
	if err != nil {
		return err
	}
	list = pick(f, list, func(store.QuarantinedMessage) (string, string) { return "", "" })
	switch {
	case c.asJSON:
		return printJSON(c.out, list)
	case c.quiet:
		return printIDs(c.out, list, func(q store.QuarantinedMessage) string { return fmt.Sprint(q.ID) })
	}
	t := c.table("ID", "MESSAGE", "ATTEMPTS", "SINCE", "REASON")
	for _, q := range list {
		t.row(fmt.Sprint(q.ID), quoted(q.MessageID), fmt.Sprint(q.Attempts), ago(q.CreatedAt), oneLine(q.Reason))
	}
	return t.flush()
}

// quarantined returns the message in quarantine that the argument names.
func (c *call) quarantined(ctx context.Context) (store.QuarantinedMessage, error) {
	id, err := strconv.ParseInt(c.arg(), 10, 64)
	if err != nil {
		return store.QuarantinedMessage{},
			&usageError{fmt.Errorf("%s takes one id: `consumer quarantine list` shows them",
				c.name)}
	}
	return c.store.QuarantinedMessage(ctx, id)
}

func quarantineShowCommand() *cobra.Command {
	return completing(withJSON(&cobra.Command{
		Use:         "show <id>",
		Short:       "Show a message in quarantine, with its body",
		Long:        "Show prints a message in quarantine: its reason, and its body as it was received.",
		Example:     "  consumer quarantine show 3",
		Annotations: exits(3, 5),
		RunE:        looking(showQuarantined),
	}), quarantinedIDs)
}

func showQuarantined(ctx context.Context, c *call) error {
	q, err := c.quarantined(ctx)
	if err != nil {
		return err
	}
	if c.asJSON {
		return printJSON(c.out, q)
	}
	fmt.Fprintf(c.out, "message %s, quarantined %s after %d attempts: %s\n%s\n", quoted(q.MessageID),
		ago(q.CreatedAt), q.Attempts, oneLine(q.Reason), bodyText(q.Body))
	return nil
}

// bodyText is the body of a message for a terminal. JSON has lines of its own; anything
// else is quoted.
func bodyText(body string) string {
	var lines bytes.Buffer
	if err := json.Indent(&lines, []byte(body), "", "  "); err != nil {
		return strconv.Quote(body)
	}
	return strings.Map(func(r rune) rune {
		if r == '\n' || unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, lines.String())
}

func quarantineDropCommand() *cobra.Command {
	return completing(withJSON(&cobra.Command{
		Use:         "drop <id>",
		Short:       "Drop a message in quarantine",
		Long:        "Drop deletes a message in quarantine. It cannot be brought back.",
		Example:     "  consumer quarantine drop 3",
		SuggestFor:  []string{"rm", "delete", "remove"},
		Annotations: exits(3, 5),
		RunE:        withJournal(dropQuarantined),
	}), quarantinedIDs)
}

func dropQuarantined(ctx context.Context, c *call) error {
	q, err := c.quarantined(ctx)
	if err != nil {
		return err
	}
	if err := c.store.DropQuarantined(ctx, q.ID); err != nil {
		return err
	}
	return c.printResult("dropped", q)
}

func quarantineRequeueCommand() *cobra.Command {
	return completing(withJSON(withSettings(&cobra.Command{
		Use:   "requeue <id>",
		Short: "Send a message in quarantine to the queue again",
		Long: `Requeue sends a message in quarantine to SQS_QUEUE_URL, and takes it out of the
quarantine.`,
		Example:     "  consumer quarantine requeue 3",
		SuggestFor:  []string{"retry", "resend"},
		Annotations: exits(3, 5),
		RunE:        withJournal(requeueQuarantined),
	}, "queue-url", "region", "endpoint-url")), quarantinedIDs)
}

// requeueQuarantined sends first and forgets then: killed between the two, the message is
// sent twice, and the second is handed off.
func requeueQuarantined(ctx context.Context, c *call) error {
	q, err := c.quarantined(ctx)
	if err != nil {
		return err
	}
	if err := errors.Join(append(c.cfg.checkQueues(), c.cfg.checkPlaces()...)...); err != nil {
		return &usageError{err}
	}
	_, queue, err := c.clients(ctx)
	if err != nil {
		return err
	}
	if _, err := queue.SendMessage(ctx,
		&sqs.SendMessageInput{QueueUrl: aws.String(c.cfg.QueueURL), MessageBody: aws.String(q.Body)}); err != nil {
		return fmt.Errorf("send to %s: %w", c.cfg.QueueURL, err)
	}
	if err := c.store.DropQuarantined(ctx, q.ID); err != nil {
		return err
	}
	return c.printResult("requeued", q)
}

// printResult says what became of the message.
func (c *call) printResult(what string, q store.QuarantinedMessage) error {
	if c.asJSON {
		return printJSON(c.out, map[string]any{"result": what, "message": q})
	}
	fmt.Fprintf(c.out, "message %s %s\n", quoted(q.MessageID), what)
	return nil
}
