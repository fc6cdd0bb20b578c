package main

import (
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
)

// modules are the versions of the peers that are Go modules.
func modules() (all []string) {
	names := map[string]string{
		"github.com/containerd/containerd/v2":                     "containerd",
		"github.com/Microsoft/hcsshim":                            "hcsshim (tar2ext4)",
		"github.com/aws/aws-sdk-go-v2/feature/s3/manager":         "s3/manager",
		"github.com/aws/aws-sdk-go-v2/feature/s3/transfermanager": "s3/transfermanager",
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return nil
	}
	for _, m := range info.Deps {
		if name := names[m.Path]; name != "" {
			all = append(all, name+" "+strings.TrimPrefix(m.Version, "v"))
		}
	}
	slices.Sort(all)
	return all
}

// printVersions prints one a line.
func printVersions() error {
	for _, m := range modules() {
		if _, err := fmt.Println(m); err != nil {
			return err
		}
	}
	return nil
}
