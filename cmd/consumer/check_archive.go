package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"imagemanager.internal/internal/archive"
	"imagemanager.internal/internal/download"
	"imagemanager.internal/internal/provision"
)

func checkCommand() *cobra.Command {
	var key, platform string
	cmd := withSettings(withJSON(&cobra.Command{
		Use:   "check <archive>",
		Short: "Judge an archive before its upload, as the daemon would",
		Long: `Check reads an archive, writes nothing, and lists every rule that is broken, every
change that the policy makes, and the space that the image takes. It needs no
root, pool, AWS or settings. Policy and limits are those of the daemon if its
settings are in the environment.`,
		Example: `  consumer check image.tar
  consumer check --policy distro --json image.tar
  consumer check --key images/debian/12.tar --platform linux/arm64 12.tar`,
		Annotations: exits(8, 9),
		Args: cobra.MatchAll(checkArgs, func(cmd *cobra.Command, _ []string) error {
			if key != "" && cmd.Flags().Changed("policy") {
				return errors.New("check takes --policy, or --key for the policy of IMAGE_POLICIES")
			}
			return nil
		}),
		RunE: needs{judging, noJournal}.then(func(ctx context.Context, c *call) error {
			return checkArchive(ctx, c, key, platform)
		}),
	}), "policy")
	cmd.Flags().StringVar(&key, "key", "", "key that it will have: IMAGE_POLICIES may have a policy for it")
	cmd.Flags().StringVar(&platform, "platform", "", "platform of the daemon, such as linux/arm64 (default this one's)")
	return cmd
}

// judging are the settings of concern to the judging.
func judging(cfg config) error { return errors.Join(cfg.checkJudging()...) }

// checkArchive judges an archive, and prints what is found.
func checkArchive(ctx context.Context, c *call, key, platform string) error {
	opts, err := c.cfg.options(key, platform)
	if err != nil {
		return &usageError{err}
	}
	result, err := checkFile(ctx, c.arg(), opts, c.cfg.provision())
	if err != nil {
		return err
	}
	return errors.Join(result.print(c.out, c.asJSON), result.err())
}

// options returns how the daemon would judge an archive with a key; an empty one matches
// no prefix. The platform is this machine's if it is empty.
func (c config) options(key, platform string) (archive.Options, error) {
	opts := c.provision().Judging(key)
	if key != "" {
		if err := download.ValidateKey(key, c.Prefix); err != nil {
			return opts, fmt.Errorf("--key %q: %w", key, err)
		}
	}
	if platform == "" {
		return opts, nil
	}
	system, architecture, found := strings.Cut(platform, "/")
	if !found || system == "" || architecture == "" || strings.Contains(architecture, "/") {
		return opts, fmt.Errorf("--platform %q is not a system and an architecture: write linux/amd64", platform)
	}
	opts.Platform = archive.Platform{OS: system, Architecture: architecture}
	return opts, nil
}

// checkFile judges a file.
func checkFile(ctx context.Context, path string, opts archive.Options, cfg provision.Config) (*checked, error) {
	src, err := openArchive(path)
	if err != nil {
		return nil, err
	}
	defer src.Close()
	info, err := src.Stat()
	if err != nil {
		return nil, err
	}
	var from io.ReaderAt = src
	if stderrIsTerminal() {
		p := &progressFile{File: src, size: info.Size(), out: os.Stderr, every: time.Second}
		defer p.end()
		from = p
	}
	report, err := archive.Judge(ctx, from, info.Size(), opts)
	if err != nil {
		return nil, err
	}
	return newChecked(path, info.Size(), opts, report, cfg), nil
}

// openArchive opens a regular file: judging reads it more than once, and not in order.
func openArchive(path string) (*os.File, error) {
	if path == "-" {
		return nil, errors.New("standard input cannot be judged, as it is read only once: name a file")
	}
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, err
	case info.IsDir():
		return nil, fmt.Errorf("%s is a directory: make an archive of it, as with `tar -C %[1]s -cf x.tar .`",
			quoted(path))
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is not a file, and judging reads it more than once: save it to a file", quoted(path))
	}
	return os.Open(path)
}

// progressFile is an archive that shows on a terminal where it is being read.
type progressFile struct {
	*os.File
	size  int64
	out   io.Writer
	every time.Duration
	next  time.Time // zero before the first reading
	shown bool
}

// ReadAt implements io.ReaderAt, for one goroutine.
func (p *progressFile) ReadAt(b []byte, off int64) (int, error) {
	switch now := time.Now(); {
	case p.next.IsZero():
		p.next = now.Add(p.every)
	case !now.Before(p.next):
		p.next, p.shown = now.Add(p.every), true
		fmt.Fprintf(p.out, "\rreading at %s of %s\x1b[K", bytesSize(off), bytesSize(p.size))
	}
	return p.File.ReadAt(b, off)
}

// end takes the line away.
func (p *progressFile) end() {
	if p.shown {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
}
