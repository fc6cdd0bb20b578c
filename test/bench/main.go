// Command bench compares the product with its peers on the machine at hand, and writes
// docs/performance.md with its plots. Runs of all jobs take turns, each on a file system
// of its own; runs during which other programs used much CPU are discarded.
//
// The jobs are in jobs.go, and the product's engines in product/engines.go.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
)

// options are the command line.
type options struct {
	smoke          bool
	work, bin      string
	page           string
	minbase, large string
	rounds         int
	others         float64
	from           string
	huge           int64
	guests         string
}

func main() {
	var o options
	flag.BoolVar(&o.smoke, "smoke", false, "run everything once on tiny data, to see that it works")
	flag.StringVar(&o.work, "work", "", "directory for data and devices; without one, a temporary one")
	flag.StringVar(&o.bin, "bin", "", "directory of the programs product, peers, umoci and consumer")
	flag.StringVar(&o.page, "page", "", "page to write, with its plots beside it; without one, it is not kept")
	flag.StringVar(&o.minbase, "minbase", "", "tar of a small Debian")
	flag.StringVar(&o.large, "large", "", "tar of a larger Debian")
	flag.IntVar(&o.rounds, "rounds", 5, "undisturbed runs of each job")
	flag.Float64Var(&o.others, "others", 12, "percent of one CPU that others may use during a run")
	flag.StringVar(&o.from, "from", "", "write the page from these results; measure nothing, or with -guests only that")
	flag.Int64Var(&o.huge, "huge", 10<<30, "bytes of each of five objects downloaded at once; 0 leaves it out")
	flag.StringVar(&o.guests, "guests", "", "directory of uml-run and uml-test; without one, guests are left out")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) (err error) {
	if o.work == "" {
		if o.work, err = os.MkdirTemp("", "bench"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(o.work)) }()
	}
	if o.page == "" {
		o.page = filepath.Join(o.work, "performance.md")
	}
	var r *results
	if o.from != "" {
		r, err = again(ctx, o)
	} else {
		r, err = measure(ctx, o)
	}
	if err != nil {
		return err
	}
	if err := drawAll(r, filepath.Dir(o.page)); err != nil {
		return err
	}
	return os.WriteFile(o.page, []byte(r.write()), 0o644)
}

// measure runs all jobs, and keeps the results in the working directory as well.
func measure(ctx context.Context, o options) (*results, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("only root may attach loop devices and mount: run this as root")
	}
	l, err := newLab(o)
	if err != nil {
		return nil, err
	}
	r := &results{Machine: machine(), Others: o.others}
	if r.Tools, err = l.tools(ctx); err != nil {
		return nil, err
	}
	sets, err := l.sets(ctx, o)
	if err != nil {
		return nil, err
	}
	for _, set := range sets {
		jobs, err := l.unpackJobs(ctx, set)
		if err != nil {
			return nil, err
		}
		fmt.Printf("%s: %d entries, %d MB\n", set.Name, set.Entries, set.Bytes/1e6)
		series, err := l.turns(ctx, jobs)
		if err != nil {
			return nil, err
		}
		r.Unpack = append(r.Unpack, setResult{set, series})
	}
	if r.Download, err = l.downloads(ctx, o); err != nil {
		return nil, err
	}
	often := *l
	often.rounds *= 8 // it takes milliseconds
	start := []job{{name: "consumer --help", argv: []string{"consumer", "--help"}}}
	if r.Start, err = often.turns(ctx, start); err != nil {
		return nil, err
	}
	if r.Many, err = measureMany(ctx, o); err != nil {
		return nil, err
	}
	return r, r.save(filepath.Join(o.work, "results.json"))
}

// again takes earlier results, and measures in the guest if there is one.
func again(ctx context.Context, o options) (*results, error) {
	text, err := os.ReadFile(o.from)
	if err != nil {
		return nil, err
	}
	r := &results{}
	if err := json.Unmarshal(text, r); err != nil || o.guests == "" {
		return r, err
	}
	if r.Many, err = measureMany(ctx, o); err != nil {
		return nil, err
	}
	return r, r.save(o.from)
}

func (r *results) save(path string) error {
	text, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o600)
}
