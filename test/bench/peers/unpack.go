package main

import (
	"context"
	"os"

	"github.com/Microsoft/hcsshim/ext4/tar2ext4"
	"github.com/containerd/containerd/v2/pkg/archive"
)

// apply is containerd's: it unpacks a tar into a directory.
func apply(ctx context.Context, tar, dir string) error {
	src, err := os.Open(tar)
	if err != nil {
		return err
	}
	defer src.Close()
	_, err = archive.Apply(ctx, dir, src)
	return err
}

// convert is hcsshim's: it writes a file system of its own to a device.
func convert(tar, device string) error {
	src, err := os.Open(tar)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer dst.Close()
	if err := tar2ext4.Convert(src, dst); err != nil {
		return err
	}
	return dst.Sync()
}
