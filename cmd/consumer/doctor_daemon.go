package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
)

// daemonAt returns the process of the daemon that answers at LISTEN_ADDR. An error is
// returned if none does.
func daemonAt(ctx context.Context, cfg config) (pid int, err error) {
	const longest = 4 << 20 // bytes of an answer
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	host, port, err := net.SplitHostPort(cfg.Listen)
	if ip := net.ParseIP(host); err == nil && (host == "" || ip != nil && ip.IsUnspecified()) {
		host = "localhost"
	}
	url := fmt.Sprintf("http://%s/status", net.JoinHostPort(host, port))
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return 0, err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // without a proxy
	answer, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	var s daemonStatus
	if err := json.NewDecoder(io.LimitReader(answer.Body, longest)).Decode(&s); err != nil || s.Queue == "" {
		return 0, errors.New("another program answers")
	}
	return s.PID, nil
}
