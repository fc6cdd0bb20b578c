package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// It says where it listens, serves, and ends with its context, also while a poll waits;
// its directory is as before.
func TestRun(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	done := make(chan error)
	go func() { done <- run(ctx, []string{"--listen", "127.0.0.1:0", "--dir", dir}, w) }()
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(line)
	url := fields[len(fields)-1]
	if !strings.HasPrefix(url, "http://127.0.0.1:") {
		t.Fatalf("no URL at the end of %q", line)
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("%d entries in the directory, want one of its own", len(left))
	}
	sqs(t, url, "CreateQueue", `{"QueueName":"q"}`)
	polled := make(chan int)
	go func() { polled <- sqs(t, url, "ReceiveMessage", `{"QueueUrl":"q","WaitTimeSeconds":20}`) }()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if code := <-polled; code == http.StatusOK {
		t.Error("the poll found nothing rather than an end")
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("%d entries left in the directory", len(left))
	}
	http.DefaultClient.CloseIdleConnections()
}

// sqs calls an operation, and returns the status; 0 where there was no answer.
func sqs(t *testing.T, url, op, body string) int {
	req, err := http.NewRequestWithContext(context.WithoutCancel(t.Context()), http.MethodPost, url,
		strings.NewReader(body))
	if err != nil {
		t.Error(err)
		return 0
	}
	req.Header.Set("X-Amz-Target", "AmazonSQS."+op)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0 // the listener was closed before
	}
	defer resp.Body.Close()
	return resp.StatusCode
}

func TestRunRefuses(t *testing.T) {
	for name, args := range map[string][]string{
		"an address":  {"--listen", "nonsense"},
		"a directory": {"--dir", "/dev/null/x"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := run(t.Context(), append([]string{"--dir", t.TempDir()}, args...), io.Discard); err == nil {
				t.Error("no error")
			}
		})
	}
	if err := run(t.Context(), []string{"-h"}, io.Discard); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("-h: %v", err)
	}
}
