package e2e

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"imagemanager.internal/internal/store"
	"imagemanager.internal/test/emulator"
	tarballs "imagemanager.internal/test/images"
)

// panel is one query of the dashboard.
type panel struct {
	Row   string `json:"row"`
	Panel string `json:"panel"`
	Expr  string `json:"expr"`
}

// Prometheus scrapes a daemon that takes a good image, a slow one, a refused one, an
// attack and a failure that is tried again, and whose pool fills up. Every panel of the
// dashboard then has data, every name in dashboard, rules and documentation is one that
// was scraped, an attack is alerted at once, and a filling pool before intake pauses.
func TestDashboardOfALiveRun(t *testing.T) {
	h := newSizedHost(t, "1GiB", "POOL_MIN_FREE_DATA=85", "SQS_DEPTH_INTERVAL=1s")
	h.Start()
	h.WaitRunning()
	p := h.startPrometheus()
	p.first("imagemanager_ready == 1")

	h.makeTrouble()
	p.wantSoon("imagemanager_security_violations_total > 0",
		`ALERTS{alertname="ImageManagerSecurityViolation",alertstate="firing"}`)
	p.fillPool()
	warned := p.first(`ALERTS{alertname="ImageManagerPoolDataFilling",alertstate="firing"}`)
	if paused := p.first("imagemanager_ready == 0"); warned >= paused {
		t.Errorf("the alert on the pool came %g s after intake paused", warned-paused)
	}
	p.wantPanels()
	p.wantNames()
	h.Stop()
}

// makeTrouble takes images in until each kind of end has been reached.
func (h *host) makeTrouble() {
	h.T.Helper()
	h.emulator().Fault(emulator.Fault{Op: "GetObject", Target: h.Cloud.Name + "/images/slow.tar", Rate: 2 << 10})
	h.emulator().Fault(emulator.Fault{
		Op: "GetObject", Target: h.Cloud.Name + "/images/denied.tar", Status: http.StatusForbidden,
		Code: "AccessDenied", Times: 2,
	})
	for name, body := range map[string][]byte{
		"good": tarballs.RootFS("hello", 40), "slow": tarballs.RootFS("hello", 10),
		"denied": tarballs.RootFS("hello", 3), "text": []byte("not a tar archive"),
		"attack": tarballs.Tar(tarballs.Entry{Name: "../up", Body: "x"}),
	} {
		h.put("images/"+name+".tar", body)
	}
	for name, want := range map[string]store.State{
		"good": store.StateActive, "slow": store.StateActive, "denied": store.StateActive,
		"text": store.StateRejected, "attack": store.StateViolation,
	} {
		if img := h.WaitEnded("images/" + name + ".tar"); img.State != want {
			h.Errorf("%s is %s: %s", name, img.State, img.Reason)
		}
	}
	h.WaitDrained()
}

// fillPool takes images in, one after the other, until intake pauses. Each takes less
// than the space between the alert and the pause. Three are there already.
func (p *prometheus) fillPool() {
	h := p.h
	h.T.Helper()
	random := rand.NewChaCha8([32]byte{})
	noise := make([]byte, 16<<20)
	for i := 0; ; i++ {
		_, _ = random.Read(noise) // it never fails
		key := fmt.Sprintf("images/fill%d.tar", i)
		h.put(key, tarballs.RootFS("hello", 3, tarballs.Entry{Name: "usr/noise", Body: string(noise)}))
		paused := false
		h.WaitFor("the image is active, or intake is paused", func() bool {
			code, text := h.Get("/readyz")
			paused = code != http.StatusOK && strings.Contains(text, "low on space")
			list := h.ImagesOf(key)
			return paused || len(list) > 0 && list[0].State == store.StateActive
		})
		if paused {
			return
		}
		p.first(fmt.Sprintf(`imagemanager_images{state="active"} >= %d`, i+4)) // as slowly as it looks
	}
}

// wantSoon checks that an alert fires at the first evaluation after its cause was
// scraped. Both times are Prometheus's own.
func (p *prometheus) wantSoon(cause, alert string) {
	p.h.T.Helper()
	seen, fired := p.first(cause), p.first(alert)
	p.h.T.Logf("%s: %g s after its cause was scraped", alert, fired-seen)
	if most := 2 * scrapeInterval.Seconds(); fired-seen > most {
		p.h.Errorf("%s fired %g s after its cause was scraped, want at most %g s", alert, fired-seen, most)
	}
}

// wantPanels checks that every query of the dashboard has data, and prints how much.
func (p *prometheus) wantPanels() {
	h := p.h
	h.T.Helper()
	text, err := os.ReadFile(filepath.Join(observeDir, "panels.json"))
	h.Check(err)
	var panels []panel
	h.Check(json.Unmarshal(text, &panels))
	if len(panels) < 24 {
		h.Errorf("only %d queries", len(panels))
	}
	var run []recorded
	for _, q := range panels {
		found := p.curves(q.Expr)
		n := samples(found)
		h.T.Logf("%-14s %-55s %3d curves %5d samples", q.Row, q.Panel, len(found), n)
		if n == 0 {
			h.Errorf("panel %q has no data: %s", q.Panel, q.Expr)
		}
		run = append(run, recorded{q, p.relative(found)})
	}
	p.record(run)
}

// wantNames checks that whatever is named in dashboard, rules and documentation was
// scraped.
func (p *prometheus) wantNames() {
	p.h.T.Helper()
	scraped := p.names()
	for _, path := range []string{
		"panels.json", "grafana.json", "prometheus-rules.yml", "../../docs/operating.md", "../../docs/runbooks.md",
	} {
		text, err := os.ReadFile(filepath.Join(observeDir, path))
		p.h.Check(err)
		for _, name := range regexp.MustCompile(`imagemanager_[a-z_]+[a-z]`).FindAllString(string(text), -1) {
			if !scraped[name] && !scraped[name+"_bucket"] {
				p.h.Errorf("%s names %s, which was not scraped", path, name)
			}
		}
	}
}

// recorded is what a panel showed of a run.
type recorded struct {
	panel
	Curves []recordedCurve `json:"curves"`
}

// recordedCurve has values at seconds since the start.
type recordedCurve struct {
	Labels map[string]string `json:"labels,omitempty"`
	Points [][2]float64      `json:"points"`
}

// relative leaves out what is no number, and counts time from the start of Prometheus.
func (p *prometheus) relative(curves []curve) (list []recordedCurve) {
	for _, c := range curves {
		r := recordedCurve{Labels: c.Labels}
		for _, pt := range c.Points {
			if math.IsNaN(pt.value) || math.IsInf(pt.value, 0) {
				continue
			}
			r.Points = append(r.Points, [2]float64{pt.at - float64(p.began.Unix()), pt.value})
		}
		if r.Points != nil {
			list = append(list, r)
		}
	}
	return list
}

// record writes the run for `make pictures`, if that asks for it.
func (p *prometheus) record(run []recorded) {
	path := os.Getenv("CIM_RECORD")
	if path == "" {
		return
	}
	text, err := json.Marshal(run)
	p.h.Check(err)
	p.h.Check(os.WriteFile(path, text, 0o644)) //nolint:gosec // a part of the repository
}
