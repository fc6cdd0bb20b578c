package e2e

import (
	"testing"

	tarballs "imagemanager.internal/test/images"
)

// Status asks the daemon; without one it asks the kernel for the pool, and attaches
// nothing. Show and trace have what a real unpack left in the journal.
func TestCommandsThatLook(t *testing.T) {
	h := newHost(t, "IMAGE_POLICY=distro", "LISTEN_ADDR=127.0.0.1:19190")
	h.put("images/d.tar", tarballs.RootFS("x", 1, tarballs.Entry{Name: "etc/mtab", Link: "/etc/x"}))
	h.Start()
	h.WaitActive("images/d.tar")
	h.WaitDrained()
	const pool, active = "Pool:  read-write; data ", "Images:  1: 1 active"
	for _, says := range []string{"● consumer: ready", pool, active, "0 of at most", "unpack    2        0"} {
		h.expectOutput(says, "status")
	}
	for _, says := range []string{
		"● image 1: active", "distro, which changed 1 entry", `entry "etc/mtab": "/etc/x" becomes "x"`,
		"Took:  download ", "consumer snapshot 1 --mount DIR",
	} {
		h.expectOutput(says, "show", "d.tar")
	}
	for _, step := range []string{"download ", "  judge ", "  mkfs ", "  extract ", "  read back ", "  activate "} {
		h.expectOutput("\n"+step, "trace", "d.tar")
	}
	h.Stop()
	for _, says := range []string{"● consumer: not running", pool, active} {
		h.expectOutput(says, "status")
	}
	h.Consumer("pool", "detach")
	for range 2 {
		h.expectOutput("Pool:  detached; the next start of the daemon attaches it", "status")
	}
	h.Start()
	h.Stop()
	h.Look()
}
