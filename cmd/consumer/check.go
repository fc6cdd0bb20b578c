package main

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"

	"imagemanager.internal/internal/archive"
	"imagemanager.internal/internal/provision"
	"imagemanager.internal/internal/tracing"
)

// The caps and time-outs of the specification (SC-2): configurable downwards.
const (
	mostDownloads         = 5
	mostUnpacks           = 2
	mostDownloadTime      = 5 * time.Minute
	mostUnpackTime        = 30 * time.Minute
	leastDevice      size = 16 << 20 // of our own
	mostDevice       size = 100e9
	deviceUnit       size = 64 << 10
)

// Ceilings of our own: beyond them a setting does nothing, or is a slip.
const (
	mostActivations  = 32
	mostActivateTime = time.Hour
	mostBackoff      = 15 * time.Minute // what it doubles up to
)

// problems collects what is wrong with a configuration.
type problems []error

func (p *problems) bad(cond bool, format string, args ...any) {
	if cond {
		*p = append(*p, fmt.Errorf(format, args...))
	}
}

// checkRun returns every problem of a configuration for `run`, not only the first.
func (c config) checkRun() error {
	p := problems(c.checkCommon())
	p = append(p, c.checkBucket()...)
	p = append(p, c.checkQueues()...)
	p = append(p, c.checkPlaces()...)
	p = append(p, checkAddress("LISTEN_ADDR", c.Listen)...)
	p = append(p, checkAddress("DEBUG_ADDR", c.Debug)...)
	if _, err := tracing.ReadConfig(); err != nil {
		p = append(p, err)
	}
	p.bad(c.Wait < time.Second || c.Wait > 20*time.Second || c.Wait%time.Second != 0,
		"SQS_WAIT %s is not 1s to 20s in whole seconds: a poll that does not wait costs a call for every look", c.Wait)
	p.bad(c.Drain <= 0, "SQS_DRAIN %s is not positive", c.Drain)
	p.bad(c.DepthEvery != 0 && c.DepthEvery < time.Second, "SQS_DEPTH_INTERVAL %s is neither 0 nor 1s or more",
		c.DepthEvery)
	p.bad(c.Visibility < 10*time.Second || c.Visibility > 12*time.Hour || c.Visibility%time.Second != 0,
		"SQS_VISIBILITY %s is not 10s to 12h in whole seconds", c.Visibility)
	return errors.Join(p...)
}

// checkCommon returns the problems of concern to every command.
func (c config) checkCommon() []error {
	p := problems(c.checkJudging())
	p.bad(!slices.Contains(logLevels, strings.ToLower(c.LogLevel)),
		"LOG_LEVEL %q is not debug, info, warn or error", c.LogLevel)
	p.bad(!slices.Contains([]string{"", formatJSON, formatConsole}, strings.ToLower(c.LogFormat)),
		"LOG_FORMAT %q is not json or console; without it the log is for people on a terminal, and JSON elsewhere",
		c.LogFormat)
	p.bad(c.MaxAttempts < 1, "MAX_ATTEMPTS %d is below 1", c.MaxAttempts)
	p.bad(c.MaxCutOffs < 1, "MAX_CUT_OFFS %d is below 1", c.MaxCutOffs)
	p.bad(c.Foreign != "keep" && c.Foreign != "drop", "FOREIGN_EVENTS %q is not keep or drop", c.Foreign)
	p.bad(c.BackfillEvery < 0, "BACKFILL_INTERVAL %s is negative", c.BackfillEvery)
	p.bad(c.ReconcileEvery < 0, "RECONCILE_INTERVAL %s is negative", c.ReconcileEvery)
	p.bad(c.Backoff <= 0 || c.Backoff > mostBackoff, "RETRY_BACKOFF %s is not above 0 and at most %s", c.Backoff,
		mostBackoff)
	p.bad(c.Grace < 0, "SHUTDOWN_GRACE %s is negative", c.Grace)
	p.percent("POOL_MIN_FREE_DATA", c.MinFreeData)
	p.percent("POOL_MIN_FREE_METADATA", c.MinFreeMetadata)
	return append(p, c.checkCaps()...)
}

// checkJudging returns the problems of concern to the judging of an archive.
func (c config) checkJudging() []error {
	p := problems(slices.Clone(c.unread))
	if _, err := archive.ParsePolicy(c.Policy); err != nil {
		p.bad(true, "IMAGE_POLICY: %w", err)
	}
	p = append(p, c.checkPolicies()...)
	return append(p, c.checkSizes()...)
}

// percent refuses a NaN as well: its comparison is written for that.
func (p *problems) percent(name string, value float64) {
	inside := value >= 0 && value <= 90
	p.bad(!inside, "%s %g is outside 0..90", name, value)
}

// checkCaps holds the caps and time-outs of the stages to the specification.
func (c config) checkCaps() []error {
	var p problems
	count := func(name string, value, most int) {
		p.bad(value < 1 || value > most, "%s %d is outside 1..%d", name, value, most)
	}
	count("MAX_DOWNLOADS", c.Downloads, mostDownloads)
	count("MAX_UNPACKS", c.Unpacks, mostUnpacks)
	count("MAX_ACTIVATIONS", c.Activations, mostActivations)
	timeout := func(name string, value, most time.Duration) {
		p.bad(value <= 0 || value > most, "%s %s is not above 0 and at most %s", name, value, most)
	}
	timeout("DOWNLOAD_TIMEOUT", c.DownloadTimeout, mostDownloadTime)
	timeout("UNPACK_TIMEOUT", c.UnpackTimeout, mostUnpackTime)
	timeout("ACTIVATE_TIMEOUT", c.ActivateTimeout, mostActivateTime)
	p.bad(c.Engine != string(provision.EngineDirect) && c.Engine != string(provision.EngineMounted),
		"UNPACK_ENGINE %q is not direct or mounted", c.Engine)
	p.bad(c.Verify != string(provision.VerifyDevice) && c.Verify != string(provision.VerifyKernel),
		"VERIFY %q is not device or kernel", c.Verify)
	p.bad(c.VerifySample < 0, "VERIFY_SAMPLE %d is negative: 0 reads none through a mount", c.VerifySample)
	return p
}

func (c config) checkSizes() []error {
	var p problems
	most := archive.DefaultLimits()
	p.bad(c.DeviceSize < leastDevice || c.DeviceSize > mostDevice, "DEVICE_SIZE %s is outside 16MiB..100GB",
		c.DeviceSize.String())
	p.bad(c.DeviceSize%deviceUnit != 0 && c.DeviceSize >= leastDevice && c.DeviceSize <= mostDevice,
		"DEVICE_SIZE %d is not a multiple of 64 KiB: write %d", c.DeviceSize, c.DeviceSize/deviceUnit*deviceUnit)
	p.bad(c.MaxImage < 1 || int64(c.MaxImage) > most.ImageBytes, "MAX_IMAGE_SIZE %s is outside 1..%s",
		c.MaxImage.String(), units.BytesSize(float64(most.ImageBytes)))
	p.bad(c.MaxFile < 1 || int64(c.MaxFile) > most.FileBytes, "MAX_FILE_SIZE %s is outside 1..%s", c.MaxFile.String(),
		units.BytesSize(float64(most.FileBytes)))
	p.bad(c.MaxEntries < 1 || c.MaxEntries > most.Entries, "MAX_ENTRIES %d is outside 1..%d", c.MaxEntries,
		most.Entries)
	return p
}

// checkPolicies finds unknown policies, and policies for prefixes outside of S3_PREFIX.
func (c config) checkPolicies() []error {
	var p problems
	for prefix, policy := range c.Policies {
		if _, err := archive.ParsePolicy(policy); err != nil || policy == "" {
			p.bad(true, "IMAGE_POLICIES: policy %q of %q is not strict, distro or trusted", policy, prefix)
		}
		p.bad(!strings.HasPrefix(prefix, c.Prefix) && !strings.HasPrefix(c.Prefix, prefix),
			"IMAGE_POLICIES: no key under S3_PREFIX %q begins with %q: write whole keys' beginnings, such as %q",
			c.Prefix, prefix, c.Prefix+strings.TrimLeft(prefix, "/ "))
	}
	return p
}

// checkAddress accepts what net.Listen takes. Nothing listens on an empty address.
func checkAddress(name, addr string) []error {
	if addr == "" {
		return nil
	}
	var p problems
	host, port, err := net.SplitHostPort(addr)
	_, numErr := strconv.ParseUint(port, 10, 16)
	switch {
	case strings.Contains(addr, "://"):
		p.bad(true, "%s %q is a URL: write host and port alone, such as 127.0.0.1:9090", name, addr)
	case err != nil:
		p.bad(true, "%s %q is not host:port: write 127.0.0.1:9090, [::1]:9090, or :9090 for every address",
			name, addr)
	case numErr != nil:
		p.bad(true, "%s %q has no port from 0 to 65535: write 127.0.0.1:9090", name, addr)
	case strings.ContainsAny(host, " /\t"):
		p.bad(true, "%s %q has a blank or a slash in its host: write 127.0.0.1:9090", name, addr)
	}
	return p
}
