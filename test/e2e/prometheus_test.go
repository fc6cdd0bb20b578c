package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"
	"time"
)

// observeDir has the dashboards and rules.
const observeDir = "../../deploy/observe"

// scrapeInterval is how often the tests' Prometheus scrapes, and evaluates the rules.
const scrapeInterval = time.Second

// prometheus is Debian's Prometheus, which scrapes the daemon of one host.
type prometheus struct {
	h     *host
	url   string
	began time.Time
}

// startPrometheus lets Prometheus scrape the running daemon every second. The rules are
// those of the repository, but fire at once instead of after their time.
func (h *host) startPrometheus() *prometheus {
	h.T.Helper()
	dir := h.T.TempDir()
	rules, err := os.ReadFile(filepath.Join(observeDir, "prometheus-rules.yml"))
	h.Check(err)
	rules = regexp.MustCompile(`(?m)^ *for: .*\n`).ReplaceAll(rules, nil)
	h.Check(os.WriteFile(filepath.Join(dir, "rules.yml"), rules, 0o600))
	config := fmt.Sprintf("global: {scrape_interval: %[1]s, scrape_timeout: %[1]s, evaluation_interval: %[1]s}\n"+
		"rule_files: [rules.yml]\n"+
		"scrape_configs: [{job_name: imagemanager, static_configs: [{targets: [%q]}]}]\n", scrapeInterval, h.Address())
	h.Check(os.WriteFile(filepath.Join(dir, "prometheus.yml"), []byte(config), 0o600))
	p := &prometheus{h: h, url: "http://" + h.freeAddress(), began: time.Now()}
	p.start(dir)
	h.WaitFor("Prometheus is ready", func() bool {
		code, _ := p.get("/-/ready", nil)
		return code == http.StatusOK
	})
	return p
}

// start starts the program, which ends with the test.
func (p *prometheus) start(dir string) {
	h := p.h
	h.T.Helper()
	var log bytes.Buffer
	cmd := exec.Command(prometheusProgram(h), "--config.file="+filepath.Join(dir, "prometheus.yml"),
		"--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+p.url[len("http://"):])
	cmd.Stderr = &log
	h.Check(cmd.Start())
	h.T.Cleanup(func() {
		h.Check(cmd.Process.Signal(syscall.SIGTERM))
		if err := cmd.Wait(); err != nil {
			h.T.Errorf("Prometheus: %v\n%s", err, &log)
		}
	})
}

// prometheusProgram is what `make setup-test` fetched, or the machine's own.
func prometheusProgram(h *host) string {
	h.T.Helper()
	program, err := filepath.Abs("../../.cache/prometheus/prometheus")
	h.Check(err)
	if _, err := os.Stat(program); err == nil {
		return program
	}
	program, err = exec.LookPath("prometheus")
	h.Check(err)
	return program
}

// freeAddress returns an address on which nobody listens.
func (h *host) freeAddress() string {
	h.T.Helper()
	l, err := new(net.ListenConfig).Listen(h.T.Context(), "tcp", "127.0.0.1:0")
	h.Check(err)
	h.Check(l.Close())
	return l.Addr().String()
}

// get sends a request to Prometheus. The code is 0 while it does not listen.
func (p *prometheus) get(path string, query url.Values) (code int, body []byte) {
	p.h.T.Helper()
	req, err := http.NewRequestWithContext(p.h.T.Context(), http.MethodGet, p.url+path+"?"+query.Encode(), http.NoBody)
	p.h.Check(err)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(resp.Body)
	p.h.Check(err)
	return resp.StatusCode, body
}

// curve is one series of an answer.
type curve struct {
	Labels map[string]string `json:"metric"`
	Points []point           `json:"values"`
}

// point is a value at a time, in seconds since 1970. In JSON it is Prometheus's pair.
type point struct{ at, value float64 }

func (p *point) UnmarshalJSON(data []byte) error {
	var pair [2]any
	if err := json.Unmarshal(data, &pair); err != nil {
		return err
	}
	at, isNumber := pair[0].(float64)
	text, isText := pair[1].(string)
	if !isNumber || !isText {
		return fmt.Errorf("no point: %s", data)
	}
	value, err := strconv.ParseFloat(text, 64)
	p.at, p.value = at, value
	return err
}

// curves evaluates an expression at every second since Prometheus began.
func (p *prometheus) curves(expr string) []curve {
	p.h.T.Helper()
	code, body := p.get("/api/v1/query_range", url.Values{
		"query": {expr}, "step": {"1"},
		"start": {strconv.FormatInt(p.began.Unix(), 10)}, "end": {strconv.FormatInt(time.Now().Unix(), 10)},
	})
	var answer struct {
		Error string
		Data  struct{ Result []curve }
	}
	p.h.Check(json.Unmarshal(body, &answer))
	if code != http.StatusOK {
		p.h.Check(fmt.Errorf("%s: %s", expr, answer.Error))
	}
	return answer.Data.Result
}

// samples counts the points of all curves that are numbers.
func samples(curves []curve) (n int) {
	for _, c := range curves {
		for _, p := range c.Points {
			if !math.IsNaN(p.value) {
				n++
			}
		}
	}
	return n
}

// first returns when an expression first had a value, in seconds since 1970. It waits for
// that.
func (p *prometheus) first(expr string) float64 {
	p.h.T.Helper()
	var found []curve
	p.h.WaitFor("Prometheus has "+expr, func() bool {
		found = p.curves(expr)
		return samples(found) > 0
	})
	at := math.Inf(1)
	for _, c := range found {
		at = min(at, c.Points[0].at)
	}
	return at
}

// names returns the names of all series that Prometheus has.
func (p *prometheus) names() map[string]bool {
	p.h.T.Helper()
	_, body := p.get("/api/v1/label/__name__/values", nil)
	var answer struct{ Data []string }
	p.h.Check(json.Unmarshal(body, &answer))
	all := map[string]bool{}
	for _, name := range answer.Data {
		all[name] = true
	}
	return all
}
