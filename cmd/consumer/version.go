package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	build "github.com/prometheus/common/version"
	"github.com/spf13/cobra"

	"imagemanager.internal/internal/metric"
)

// buildInfo says which build the program is.
type buildInfo struct {
	Version  string `json:"version"`
	Commit   string `json:"commit"` // of the source; "-modified" at its end: and changes
	Date     string `json:"date"`   // of the commit, unless the linker set that of the build; RFC 3339
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func readBuildInfo() buildInfo {
	b := buildInfo{
		Version: metric.Version(), Commit: build.GetRevision(), Date: build.BuildDate,
		Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH,
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.time" && b.Date == "" {
			b.Date = s.Value
		}
	}
	return b
}

func versionCommand() *cobra.Command {
	return withJSON(&cobra.Command{
		Use:         "version",
		Short:       "Show which build this is",
		Long:        "Version prints the version, the commit and its date, the version of Go, and the platform.",
		Example:     "  consumer version\n  consumer version --json",
		Annotations: exits(),
		RunE:        func(cmd *cobra.Command, _ []string) error { return showVersion(cmd) },
	})
}

func showVersion(cmd *cobra.Command) error {
	o, err := newOutput(cmd)
	if err != nil {
		return err
	}
	b := readBuildInfo()
	if o.asJSON {
		return printJSON(o.out, b)
	}
	_, err = fmt.Fprintf(o.out, "consumer %s\n  commit    %s\n  date      %s\n  go        %s\n  platform  %s\n",
		b.Version, b.Commit, dash(b.Date), b.Go, b.Platform)
	return err
}

// addVersion adds --version to the program.
func addVersion(root *cobra.Command) {
	asked := root.Flags().Bool("version", false, "show which build this is")
	list := root.RunE
	root.RunE = func(cmd *cobra.Command, args []string) error {
		if *asked {
			return showVersion(cmd)
		}
		return list(cmd, args)
	}
}
