package doctor

import (
	"context"
	"errors"
	"net"
	"syscall"
)

// address looks whether the daemon can listen, or does. Nobody can connect in the moment
// that it takes.
func (m *Machine) address(ctx context.Context) Finding {
	const check = "listen-address"
	if m.Listen == "" {
		return ok(check, "none (LISTEN_ADDR): no metrics, no health")
	}
	pid, err := m.Daemon(ctx)
	if err == nil {
		return ok(check, "the daemon, process %d, answers at %s", pid, m.Listen)
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", m.Listen)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fail(check, "set LISTEN_ADDR to another port, or end that program: `ss -ltnp` names it",
			"%s is taken by another program", m.Listen)
	case errors.Is(err, syscall.EACCES):
		return warn(check, notRoot, "%s is for root alone", m.Listen)
	case err != nil:
		return fail(check, "set LISTEN_ADDR to an address of this machine, such as 127.0.0.1:9090",
			"nobody can listen "+
				"at %s: %v", m.Listen, err)
	}
	_ = l.Close() // nothing came
	return ok(check, "%s is free", m.Listen)
}
