package main

import (
	"slices"
	"strings"
	"testing"
)

// runs are runs that took so many seconds.
func runs(job, kind string, seconds ...float64) series {
	s := series{Job: job, Kind: kind}
	for _, t := range seconds {
		s.Runs = append(s.Runs, runResult{Seconds: t})
	}
	return s
}

// A cell has the median, its ratio to the other's, and the range of that.
func TestAgainst(t *testing.T) {
	tar := runs(baseline, peer, 2, 1, 3)
	for want, s := range map[string]series{
		"2.00 [1.00–3.00] n=3":               tar,
		"1.00 **x2.00** [0.50–4.00] n=3":     runs("engine", ours, 0.5, 1, 4),
		"0.050 **x40.00** [40.00–40.00] n=2": runs("engine", ours, 0.05, 0.05),
		"–":                                  runs("engine", ours),
		"20.0 **x0.10** [0.10–0.10] n=1":     runs("engine", ours, 20),
		"0.50 **x4.00** [2.00–20.00] n=4":    runs("engine", ours, 0.1, 0.4, 0.6, 1),
	} {
		if got := against(s, tar); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// The page is the same for the same results, has every job in its table, and says how
// many runs do not count.
func TestPage(t *testing.T) {
	r := &results{Others: 12, Unpack: []setResult{{
		set{Name: "a set", Entries: 7, Bytes: 3e6},
		[]series{runs(baseline, peer, 2), runs("engine", ours, 1), {Job: "bsdtar", Kind: peer, Discarded: 4}},
	}}}
	page := r.write()
	for _, want := range []string{
		"a set (3 MB, 7 entries)", "\n| product: engine | 1.00 **x2.00** ", "\n| peer: bsdtar | – |\n",
		"\ncount. 4 were", "**engine**",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("no %q in\n%s", want, page)
		}
	}
	if page != r.write() {
		t.Error("the page is another one each time")
	}
	if err := drawAll(r, t.TempDir()); err != nil {
		t.Error(err)
	}
}

// What the test in the guest says is read, and nothing else is taken for it.
func TestReadMessages(t *testing.T) {
	said := "100 images, all are active: takes work after 1.25s, all active after 2s; until then 70 ioctls\n" +
		"duplicates about 1 of the images: 80 a second\nduplicates about 100 of the images: 75 a second\n" +
		"100 images, none is active: takes work after 0.5s, all active after 2s; until then 70 ioctls\n" +
		"duplicates about 1 of the images: 81 a second\nduplicates about 100 of the images: 76 a second\n"
	d := many{Images: 100}
	err := d.readMessages(said)
	if want := (many{Images: 100, Rate: 76, Ready: "1.25s"}); err != nil || d != want {
		t.Errorf("%+v, %v, want %+v", d, err, want)
	}
	if err := (&many{Images: 1000}).readMessages(said); err == nil {
		t.Error("other output is taken")
	}
}

// The benchmark's name ends with the number of CPUs if there are several.
func TestReadActivations(t *testing.T) {
	got, err := readActivations("cpu: AMD EPYC\n" +
		"BenchmarkActivation/active=1  \t 200\t  2960694 ns/op\t  2.748 p50-ms\t  6.268 p99-ms\n" +
		"BenchmarkActivation/active=1000-8  \t 200\t  3298358 ns/op\t  2.970 p50-ms\t  6.290 p99-ms\n")
	want := []many{{Images: 1, Activation: 2.748}, {Images: 1000, Activation: 2.97}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
	if _, err := readActivations("BenchmarkSnapshot 200 1 ns/op"); err == nil {
		t.Error("other output is taken")
	}
}

// What others used is neither this process's nor, once it is taken off, the job's.
func TestOthers(t *testing.T) {
	if got := (cpu{all: 110, self: 4}).others(cpu{all: 100, self: 1}); got != 7 {
		t.Errorf("%v seconds, want 7", got)
	}
	if now := sampleCPU(); now.all <= 0 || now.self < 0 {
		t.Errorf("%+v", now)
	}
}
