package main

import (
	"fmt"
	"slices"
	"strings"
)

// calm is the use of a CPU by others, in percent, that the figures are still good with.
const calm = 25

// text collects the page.
type text struct{ strings.Builder }

// linef writes a line.
func (t *text) linef(format string, args ...any) { fmt.Fprintf(t, format+"\n", args...) }

// row writes a row of a table.
func (t *text) row(cells ...string) { t.linef("| %s |", strings.Join(cells, " | ")) }

// write returns the page.
func (r *results) write() string {
	t := &text{}
	t.linef("# Performance")
	t.linef("")
	t.linef("This page is made by `make bench`; do not edit it.")
	t.linef("")
	t.linef("%s. %s.", strings.Join(r.Machine, ", "), strings.Join(r.Tools, ", "))
	t.linef("")
	t.linef("Runs of all jobs take turns, each in a process of its own on a new file system. A run during which")
	t.linef("other programs used more than %.0f %% of one CPU is discarded; n is the number of runs that", r.Others)
	t.linef("count. %d were discarded. Compare ratios within a table rather than absolute values.", r.discarded())
	t.linef("")
	if r.Others > calm {
		t.linef("**The machine was busy meanwhile: these figures are rough.**")
		t.linef("")
	}
	r.writeUnpack(t)
	r.writePhases(t)
	r.writeDownload(t)
	r.writeMany(t)
	r.writeStart(t)
	return t.String()
}

func (r *results) discarded() (n int) {
	all := slices.Clone(r.Start)
	for _, s := range append(slices.Clone(r.Unpack), r.Download...) {
		all = append(all, s.Series...)
	}
	for _, s := range all {
		n += s.Discarded
	}
	return n
}

// jobs are the names of all jobs of a kind, in their order.
func jobs(all []setResult, kind string) (names []string) {
	for _, r := range all {
		for _, s := range r.Series {
			if s.Kind == kind && !slices.Contains(names, s.Job) {
				names = append(names, s.Job)
			}
		}
	}
	return names
}

func (r *results) writeUnpack(t *text) {
	t.linef("## Unpack")
	t.linef("")
	t.linef("From the start of the process until the device is synchronised and unmounted. The product judges the")
	t.linef("archive, takes the SHA-256 of every file and seals the device; an engine that is not said to leave it")
	t.linef("out verifies what it wrote as well. The peers do none of this. mke2fs is not timed, except as a part")
	t.linef("of tar2ext4. The device is a loop device with direct I/O, with the product's file system. The archive")
	t.linef("comes from memory.")
	t.linef("")
	t.linef("Cells are medians in seconds, the ratio to GNU tar's (more than 1 is faster), and its range.")
	t.linef("")
	head, rule := []string{""}, []string{"---"}
	for _, s := range r.Unpack {
		head = append(head, fmt.Sprintf("%s (%d MB, %d entries)", s.Set.Name, s.Set.Bytes/1e6, s.Set.Entries))
		rule = append(rule, "---")
	}
	t.row(head...)
	t.linef("|%s|", strings.Join(rule, "|"))
	for _, kind := range []string{ours, peer, limit} {
		for _, name := range jobs(r.Unpack, kind) {
			cells := []string{kind + ": " + name}
			for _, s := range r.Unpack {
				cells = append(cells, against(s.find(name), s.find(baseline)))
			}
			t.row(cells...)
		}
	}
	t.linef("")
	t.linef("![Speed of each job as a multiple of GNU tar's, for each archive](performance-unpack.svg)")
	t.linef("")
	t.linef("![Seconds of an unpack against the number of entries, on logarithmic axes](performance-entries.svg)")
	t.linef("")
}

// against is a cell: the median, and how much faster it is than the other one.
func against(s, base series) string {
	if len(s.Runs) == 0 {
		return "–"
	}
	if len(base.Runs) == 0 || s.Job == base.Job {
		return fmt.Sprintf("%s [%s–%s] n=%d", seconds(s.median()), seconds(s.min()), seconds(s.max()), len(s.Runs))
	}
	b, m := base.median(), s.median()
	return fmt.Sprintf("%s **x%.2f** [%.2f–%.2f] n=%d", seconds(m), b/m, b/s.max(), b/s.min(), len(s.Runs))
}

// seconds has as many digits as are worth it.
func seconds(s float64) string {
	switch {
	case s >= 10:
		return fmt.Sprintf("%.1f", s)
	case s >= 0.1:
		return fmt.Sprintf("%.2f", s)
	}
	return fmt.Sprintf("%.3f", s)
}

func (r *results) writePhases(t *text) {
	t.linef("## Where the time goes")
	t.linef("")
	t.linef("Medians in milliseconds. What is not in a phase is the start and the end of the process.")
	for _, name := range jobs(r.Unpack, ours) {
		var phases []string
		for _, s := range r.Unpack {
			for _, run := range s.find(name).Runs {
				for _, p := range run.Report.Phases {
					if !slices.Contains(phases, p.Name) {
						phases = append(phases, p.Name)
					}
				}
			}
		}
		t.linef("")
		t.linef("**%s**", name)
		t.linef("")
		t.row(append(append([]string{""}, phases...), "all", "CPU, programs", "CPU, kernel", "memory, MB")...)
		t.linef("|%s", strings.Repeat("---|", len(phases)+5))
		for _, s := range r.Unpack {
			r.writePhaseRow(t, s.Set.Name, s.find(name), phases)
		}
	}
	t.linef("")
}

func (r *results) writePhaseRow(t *text, name string, s series, phases []string) {
	if len(s.Runs) == 0 {
		return
	}
	ms := func(v float64) string { return fmt.Sprintf("%.0f", v*1e3) }
	cells := []string{name}
	for _, p := range phases {
		cells = append(cells, ms(s.phase(p)))
	}
	t.row(append(cells, ms(s.median()), ms(s.of(func(r runResult) float64 { return r.User })),
		ms(s.of(func(r runResult) float64 { return r.System })), fmt.Sprint(s.rss()>>20))...)
}

func (r *results) writeDownload(t *text) {
	t.linef("## Download")
	t.linef("")
	t.linef("From a server of our own on the same machine, with 30 ms to the first byte and 80 MiB/s a connection.")
	t.linef("Everything ends with the file on disk and its SHA-256. The ratio is to `manager` with 5 connections.")
	t.linef("")
	t.row("", "object", "seconds", "memory, MB")
	t.linef("|---|---|---|---|")
	for _, s := range r.Download {
		base := s.find("manager, read again for the hash")
		for _, one := range s.Series {
			t.row(one.Job, s.Set.Name, against(one, base), fmt.Sprint(one.rss()>>20))
		}
	}
	t.linef("")
}

func (r *results) writeMany(t *text) {
	if len(r.Many) == 0 {
		return
	}
	t.linef("## Many images")
	t.linef("")
	t.linef("In a guest with a real pool. The guest has one CPU of the machine to itself, and is several times")
	t.linef("slower than the machine. `%s` sends %d messages about images that are", manyImages, messages)
	t.linef("active already, all in turn; the daemon and the emulator share the CPU. `BenchmarkActivation` is the")
	t.linef("last stage alone, from the beginning of the attempt to the record of the active snapshot.")
	t.linef("")
	t.row("active images", "duplicate messages a second", "start until the daemon takes work", "activation, median")
	t.linef("|---|---|---|---|")
	for _, d := range r.Many {
		t.row(fmt.Sprint(d.Images), fmt.Sprintf("%.0f", d.Rate), d.ready(), fmt.Sprintf("%.1f ms", d.Activation))
	}
	t.linef("")
	t.linef("![Duplicate messages a second against the number of active images](performance-duplicates.svg)")
	t.linef("")
}

func (r *results) writeStart(t *text) {
	t.linef("## Start of the program")
	t.linef("")
	for _, s := range r.Start {
		t.linef("`%s` takes %.1f ms [%.1f–%.1f], n=%d.", s.Job, s.median()*1e3, s.min()*1e3, s.max()*1e3, len(s.Runs))
	}
}
