package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strconv"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"imagemanager.internal/internal/store"
)

func cmdQuarantineList(ctx context.Context, args []string, out io.Writer) error {
	return show(ctx, "quarantine list", "", args, out, func(s *system, _ *flag.FlagSet, asJSON bool) error {
		list, err := s.store.QuarantinedMessages(ctx)
		if err != nil {
			return err
		}
		if asJSON {
			return printJSON(out, nonNil(list))
		}
		t := newTable(out, "ID", "MESSAGE", "ATTEMPTS", "SINCE", "REASON")
		for _, q := range list {
			t.row(fmt.Sprint(q.ID), quoted(q.MessageID), fmt.Sprint(q.Attempts), ago(q.CreatedAt), oneLine(q.Reason))
		}
		return t.flush()
	})
}

// quarantined is a command about one message in quarantine.
func quarantined(ctx context.Context, name string, args []string, out io.Writer,
	do func(*system, store.QuarantinedMessage, bool) error,
) error {
	return show(ctx, name, "<id>", args, out, func(s *system, fs *flag.FlagSet, asJSON bool) error {
		id, err := strconv.ParseInt(fs.Arg(0), 10, 64)
		if err != nil || fs.NArg() != 1 {
			return &usageError{fmt.Errorf("%s takes one id: `consumer quarantine list` shows them", name)}
		}
		q, err := s.store.QuarantinedMessage(ctx, id)
		if err != nil {
			return err
		}
		return do(s, q, asJSON)
	})
}

func cmdQuarantineShow(ctx context.Context, args []string, out io.Writer) error {
	return quarantined(ctx, "quarantine show", args, out,
		func(_ *system, q store.QuarantinedMessage, asJSON bool) error {
			if asJSON {
				return printJSON(out, q)
			}
			fmt.Fprintf(out, "message %s, quarantined %s after %d attempts: %s\n%q\n", quoted(q.MessageID),
				ago(q.CreatedAt), q.Attempts, oneLine(q.Reason), q.Body)
			return nil
		})
}

func cmdQuarantineDrop(ctx context.Context, args []string, out io.Writer) error {
	return quarantined(ctx, "quarantine drop", args, out,
		func(s *system, q store.QuarantinedMessage, asJSON bool) error {
			if err := s.store.DropQuarantined(ctx, q.ID); err != nil {
				return err
			}
			return printResult(out, asJSON, "dropped", q)
		})
}

// cmdQuarantineRequeue sends first and forgets then: killed between the two, the message
// is sent twice, and the second is handed off.
func cmdQuarantineRequeue(ctx context.Context, args []string, out io.Writer) error {
	return quarantined(ctx, "quarantine requeue", args, out,
		func(s *system, q store.QuarantinedMessage, asJSON bool) error {
			if err := errors.Join(append(s.cfg.checkQueues(), s.cfg.checkPlaces()...)...); err != nil {
				return &usageError{err}
			}
			_, queue, err := s.clients(ctx)
			if err != nil {
				return err
			}
			if _, err := queue.SendMessage(ctx,
				&sqs.SendMessageInput{QueueUrl: aws.String(s.cfg.QueueURL), MessageBody: aws.String(q.Body)}); err != nil {
				return fmt.Errorf("send to %s: %w", s.cfg.QueueURL, err)
			}
			if err := s.store.DropQuarantined(ctx, q.ID); err != nil {
				return err
			}
			return printResult(out, asJSON, "requeued", q)
		})
}

func printResult(out io.Writer, asJSON bool, what string, q store.QuarantinedMessage) error {
	if asJSON {
		return printJSON(out, map[string]any{"result": what, "message": q})
	}
	fmt.Fprintf(out, "message %s %s\n", quoted(q.MessageID), what)
	return nil
}
