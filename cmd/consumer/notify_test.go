package main

import (
	"errors"
	"net"
	"path/filepath"
	"testing"

	"github.com/rs/zerolog"

	"imagemanager.internal/internal/pipeline/health"
)

// What systemd is told from the start to the end.
func TestNotifierMessages(t *testing.T) {
	const alive = "WATCHDOG=1"
	n := &notifier{ready: newReadiness()}
	low := health.Reasons{health.DiskLow: errors.New("disk is low:\nmake room")}
	for _, step := range []struct {
		is   source
		want string
	}{
		{
			only{health.Starting, errStarting},
			"EXTEND_TIMEOUT_USEC=30000000\nSTATUS=" + errStarting.Error() + "\n" + alive,
		},
		{only{health.Starting, errStarting}, "EXTEND_TIMEOUT_USEC=30000000\n" + alive},
		{
			only{health.Recovering, errRecovering},
			"EXTEND_TIMEOUT_USEC=30000000\nSTATUS=" + errRecovering.Error() + "\n" + alive,
		},
		{ // units that are ordered after it mount snapshots
			fixed{activated: 1, toActivate: 2},
			"EXTEND_TIMEOUT_USEC=30000000\nSTATUS=activating snapshots: 1 of 2\n" + alive,
		},
		{fixed{reasons: low}, "READY=1\nSTATUS=disk is low: make room\n" + alive}, // intake pauses, but it runs
		{fixed{}, "STATUS=ready\n" + alive},
		{fixed{}, alive},
		{fixed{stuck: errors.New("a loop")}, ""},
		{only{health.Stopping, errStopping}, "STOPPING=1\nSTATUS=" + errStopping.Error() + "\n" + alive},
		{only{health.Stopping, errStopping}, alive},
	} {
		n.ready.follow(step.is)
		if got := n.message(); got != step.want {
			t.Errorf("got %q, want %q", got, step.want)
		}
	}
}

// The socket is the one that systemd names. A daemon without one, or with one that is
// gone, runs all the same.
func TestNotifySystemd(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "notify")
	var listen net.ListenConfig
	conn, err := listen.ListenPacket(t.Context(), "unixgram", socket)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{socket, "", filepath.Join(t.TempDir(), "gone")} {
		t.Setenv("NOTIFY_SOCKET", name)
		notifySystemd(zerolog.Nop(), following(fixed{}))()
	}
	buffer := make([]byte, 4096)
	k, _, err := conn.ReadFrom(buffer)
	if got := string(buffer[:k]); err != nil || got != "READY=1\nSTATUS=ready\nWATCHDOG=1" {
		t.Errorf("%q, %v", got, err)
	}
}
