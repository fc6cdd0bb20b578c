package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"
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

// duplicates asks that test, in a guest, for each number of images.
func (l *lab) duplicates(ctx context.Context, o options) (all []duplicates, err error) {
	if o.guest == "" {
		return nil, nil
	}
	for _, n := range []int{1, 100, 1000} {
		cmd := exec.CommandContext(ctx, o.guest, "-v", "-run", "^"+manyImages+"$", "./test/e2e")
		cmd.Env = append(os.Environ(), "CIM_IMAGES="+strconv.Itoa(n), "CIM_DUPLICATES="+strconv.Itoa(messages))
		out, err := cmd.CombinedOutput()
		if err != nil {
			return nil, fmt.Errorf("%s: %w\n%s", cmd, err, out)
		}
		d, err := readDuplicates(n, string(out))
		if err != nil {
			return nil, err
		}
		fmt.Printf("  %d images: %+v\n", n, d)
		all = append(all, d)
	}
	return all, nil
}

// readDuplicates reads what the test says. Its first start finds all snapshots active.
// Its last messages are about all images; those before meet a daemon that has just begun.
func readDuplicates(n int, out string) (duplicates, error) {
	d := duplicates{Images: n}
	ready, rates := saidReady.FindStringSubmatch(out), saidRate.FindAllStringSubmatch(out, -1)
	if ready == nil || len(rates) != 4 || rates[3][1] != strconv.Itoa(n) {
		return d, fmt.Errorf("%s says something else:\n%s", manyImages, strings.TrimSpace(out))
	}
	var err error
	d.Ready = ready[1]
	d.Rate, err = strconv.ParseFloat(rates[3][2], 64)
	return d, err
}

// ready is the time with as many digits as are worth it.
func (d duplicates) ready() string {
	took, err := time.ParseDuration(d.Ready)
	if err != nil {
		return d.Ready
	}
	return took.Round(10 * time.Millisecond).String()
}
