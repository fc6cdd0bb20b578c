package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"
)

const (
	// askTimeout bounds how long a command waits for the daemon: longer than the daemon
	// waits for its database.
	askTimeout = statusTimeout + time.Second
	// longestStatus bounds the answer in bytes. One job is some 300 of them.
	longestStatus = 4 << 20
)

// errOther is returned when it is not the daemon that answers.
var errOther = errors.New("another program answers there")

// askDaemon asks the daemon of this state directory for its status.
func askDaemon(ctx context.Context, cfg config) (*daemonStatus, error) {
	if cfg.Listen == "" {
		return nil, errors.New("it is empty here")
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+dialled(cfg.Listen)+"/status", http.NoBody)
	if err != nil {
		return nil, err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // without a proxy
	answer, err := client.Do(req)
	if err != nil {
		return nil, asPlain(err)
	}
	defer answer.Body.Close()
	var s daemonStatus
	err = json.NewDecoder(io.LimitReader(answer.Body, longestStatus)).Decode(&s)
	switch {
	case answer.StatusCode != http.StatusOK, err != nil, s.StateDir == "":
		return nil, errOther
	case !sameDirectory(s.StateDir, cfg.StateDir):
		return nil, fmt.Errorf("the daemon of %s answers there", s.StateDir)
	}
	return &s, nil
}

// dialled is the address at which a listener is reached from its own host.
func dialled(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if ip := net.ParseIP(host); err == nil && (host == "" || ip != nil && ip.IsUnspecified()) {
		return net.JoinHostPort("localhost", port)
	}
	return listen
}

// asPlain says in plain words why nobody answered.
func asPlain(err error) error {
	var number syscall.Errno
	var slow net.Error
	switch {
	case errors.As(err, &number):
		return number
	case errors.As(err, &slow) && slow.Timeout():
		return fmt.Errorf("no answer within %s", askTimeout)
	case errors.Is(err, io.EOF):
		return errOther
	}
	return err
}

// sameDirectory reports whether two paths lead to one directory.
func sameDirectory(a, b string) bool {
	if a == b {
		return true
	}
	infoA, errA := os.Stat(a)
	infoB, errB := os.Stat(b)
	return errA == nil && errB == nil && os.SameFile(infoA, infoB)
}
