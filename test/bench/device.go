package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"imagemanager.internal/internal/devmapper/ext4"
)

const fsUUID = "6d1f4c5e-6d0b-4b6f-8d0e-5b1f1a2b3c4d"

// freshDevice puts a new sparse file behind a loop device that reads and writes it
// directly. remove takes both away.
func (l *lab) freshDevice(ctx context.Context, size int64) (device string, remove func() error, err error) {
	path := filepath.Join(l.work, "device.img")
	f, err := os.Create(path)
	if err != nil {
		return "", nil, err
	}
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		return "", nil, err
	}
	out, err := command(ctx, "losetup", "--direct-io=on", "--find", "--show", path)
	if err != nil {
		return "", nil, errors.Join(err, os.Remove(path))
	}
	device = strings.TrimSpace(out)
	return device, func() error {
		_, err := command(context.WithoutCancel(ctx), "losetup", "--detach", device)
		return errors.Join(err, os.Remove(path))
	}, nil
}

// format makes the file system that the product's devices have.
func format(ctx context.Context, device string) error { return ext4.Make(ctx, device, fsUUID) }

// check has e2fsck look for anything wrong with the file system on a device.
func check(ctx context.Context, device string) error {
	_, err := command(ctx, "e2fsck", "-fn", device)
	return err
}

// mount mounts a device as the peers need it, at a path.
func mount(device, dir string) error { return ext4.MountAt(device, dir, true) }

// unmount makes everything durable, as the product does, and unmounts.
func unmount(dir string) error {
	root, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = unix.Syncfs(int(root.Fd()))
	return errors.Join(err, root.Close(), syscall.Unmount(dir, 0))
}

// command runs a program and returns what it prints.
func command(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(said.String()))
	}
	return string(out), nil
}
