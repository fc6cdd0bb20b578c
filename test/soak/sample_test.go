package soak

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"imagemanager.internal/internal/store"
)

// sample is what there is at one moment. Sizes are in bytes; what is the daemon's is 0
// while there is none.
type sample struct {
	after                           time.Duration // the beginning
	steps                           uint64
	pending, active, refused        int // images
	pid                             int
	rss, descriptors, goroutines    float64
	database, wal                   int64
	thins, dm, files, poolMegabytes int
}

const sampleColumns = "   after  step pending active refused" +
	"     pid  rss MB   fds gorout  db MB wal MB thins    dm files pool MB"

func (p sample) String() string {
	return fmt.Sprintf("%8s %5d %7d %6d %7d %7d %7.1f %5.0f %6.0f %6.2f %6.2f %5d %5d %5d %7d",
		p.after.Round(time.Second), p.steps, p.pending, p.active, p.refused, p.pid, p.rss/1e6, p.descriptors,
		p.goroutines,
		float64(p.database)/1e6, float64(p.wal)/1e6, p.thins, p.dm, p.files, p.poolMegabytes)
}

// sample takes one and prints it.
func (s *soak) sample() {
	s.T.Helper()
	p := sample{
		after: time.Since(s.began), active: s.count(store.StateActive), pending: s.count(store.StatePending),
		refused: s.count(store.StateRejected, store.StateViolation, store.StateSuperseded, store.StateVanished,
			store.StateDead, store.StateRemoved),
		database: size(s.Database()), wal: size(s.Database() + "-wal"), files: countFiles(s.State),
	}
	devices, err := s.Store.Devices(s.T.Context())
	s.Check(err)
	p.thins = len(devices)
	list, err := filepath.Glob("/sys/block/dm-*")
	s.Check(err)
	p.dm = len(list)
	if s.daemonMu.TryLock() { // otherwise it is being restarted
		s.addDaemon(&p)
		s.daemonMu.Unlock()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p.steps = s.steps
	if len(s.samples)%20 == 0 {
		fmt.Println(sampleColumns)
	}
	s.samples = append(s.samples, p)
	fmt.Println(p)
}

// addDaemon adds what the daemon says of itself. One that has ended by itself is started
// again.
func (s *soak) addDaemon(p *sample) {
	s.T.Helper()
	select {
	case <-s.Done():
		s.Errorf("the daemon ended by itself, exit code %d: %s", s.ExitCode(), s.lastWords())
		s.start()
		return
	default:
	}
	_, text := s.Get("/metrics")
	p.pid = s.PID()
	p.rss, p.descriptors = metric(text, "process_resident_memory_bytes"), metric(text, "process_open_fds")
	p.goroutines = metric(text, "go_goroutines")
	p.poolMegabytes = int(metric(text, `imagemanager_pool_data_used_bytes`) / 1e6)
}

// metric is the value of a metric, with its labels; 0 if there is none.
func metric(text, name string) float64 {
	found := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + ` (\S+)$`).FindStringSubmatch(text)
	if found == nil {
		return 0
	}
	n, _ := strconv.ParseFloat(found[1], 64) // what Prometheus prints is a number
	return n
}

// unclaimed adds up the gauges of what no row of the journal claims.
func unclaimed(text string) (sum float64) {
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "imagemanager_unclaimed{") {
			n, _ := strconv.ParseFloat(strings.Fields(line)[1], 64) // likewise
			sum += n
		}
	}
	return sum
}

func size(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0 // it comes and goes
	}
	return info.Size()
}

func countFiles(dir string) (n int) {
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error { // files come and go
		if err == nil && !d.IsDir() {
			n++
		}
		return nil
	})
	return n
}
