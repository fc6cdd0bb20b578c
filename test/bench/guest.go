package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// manyImages is a test that says how the daemon does beside many active images.
const manyImages = "TestStartWithManyImages"

// messages is how many duplicates are sent at a time: so many that it does not matter
// what else a daemon does that has just begun.
const messages = 2000

// saidRate and saidReady find what it says.
var (
	saidRate  = regexp.MustCompile(`duplicates about (\d+) of the images: (\d+) a second`)
	saidReady = regexp.MustCompile(`\d+ images, all are active: takes work after ([\d.]+m?s)`)
)

// saidMedian finds what the benchmark says of an activation.
var saidMedian = regexp.MustCompile(`BenchmarkActivation/active=(\d+)(?:-\d+)?\s.*\s([\d.]+) p50-ms`)

// measureMany measures in guests, for each number of active images.
func measureMany(ctx context.Context, o options) (all []many, err error) {
	if o.guests == "" {
		return nil, nil
	}
	out, err := onOneCPU(ctx, 0, "go", "test", "-run", "^$", "-bench", "^BenchmarkActivation$", "-benchtime", "200x",
		"-exec", filepath.Join(o.guests, "uml-run"), "./internal/provision")
	if err != nil {
		return nil, err
	}
	if all, err = readActivations(out); err != nil {
		return nil, err
	}
	for i := range all {
		out, err := onOneCPU(ctx, all[i].Images, filepath.Join(o.guests, "uml-test"),
			"-v", "-run", "^"+manyImages+"$", "./test/e2e")
		if err == nil {
			err = all[i].readMessages(out)
		}
		if err != nil {
			return nil, err
		}
		fmt.Printf("  %d images: %+v\n", all[i].Images, all[i])
	}
	return all, nil
}

// onOneCPU runs a command that boots a guest, and returns what it says. A guest has one
// CPU, and its kernel is another process of the machine than its programs: between two
// CPUs, each of their system calls takes about three times as long.
func onOneCPU(ctx context.Context, images int, argv ...string) (string, error) {
	var allowed unix.CPUSet
	if err := unix.SchedGetaffinity(0, &allowed); err != nil {
		return "", fmt.Errorf("CPUs: %w", err)
	}
	first := 0
	for !allowed.IsSet(first) {
		first++
	}
	cmd := exec.CommandContext(ctx, "taskset", slices.Concat([]string{"-c", strconv.Itoa(first)}, argv)...)
	cmd.Env = append(os.Environ(), "CIM_IMAGES="+strconv.Itoa(images), "CIM_DUPLICATES="+strconv.Itoa(messages))
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", cmd, err, out)
	}
	return string(out), nil
}

// readActivations reads what the benchmark says of each number of images.
func readActivations(out string) (all []many, err error) {
	for _, m := range saidMedian.FindAllStringSubmatch(out, -1) {
		n, err := strconv.Atoi(m[1])
		if err != nil {
			return nil, err
		}
		median, err := strconv.ParseFloat(m[2], 64)
		if err != nil {
			return nil, err
		}
		all = append(all, many{Images: n, Activation: median})
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("BenchmarkActivation says something else:\n%s", strings.TrimSpace(out))
	}
	return all, nil
}

// readMessages reads what the test says. Its first start finds all snapshots active. Its
// last messages are about all images; those before meet a daemon that has just begun.
func (d *many) readMessages(out string) (err error) {
	ready, rates := saidReady.FindStringSubmatch(out), saidRate.FindAllStringSubmatch(out, -1)
	if ready == nil || len(rates) != 4 || rates[3][1] != strconv.Itoa(d.Images) {
		return fmt.Errorf("%s says something else:\n%s", manyImages, strings.TrimSpace(out))
	}
	d.Ready = ready[1]
	d.Rate, err = strconv.ParseFloat(rates[3][2], 64)
	return err
}

// ready is the time with as many digits as are worth it.
func (d many) ready() string {
	took, err := time.ParseDuration(d.Ready)
	if err != nil {
		return d.Ready
	}
	return took.Round(10 * time.Millisecond).String()
}
