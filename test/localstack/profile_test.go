package localstack

import (
	"encoding/json"
	"net/url"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The profile adds services, and the others do without them.
func TestObserveProfile(t *testing.T) {
	p := compose(t)
	var added []string
	for name, s := range p.Services {
		if slices.Equal(s.Profiles, []string{"observe"}) {
			added = append(added, name)
		}
		for other := range s.DependsOn {
			if p.Services[other].Profiles != nil {
				t.Errorf("%s does not start without the profile: it depends on %s", name, other)
			}
		}
	}
	slices.Sort(added)
	if want := []string{"grafana", "jaeger", "prometheus"}; !slices.Equal(added, want) {
		t.Errorf("the profile adds %q, want %q", added, want)
	}
}

type scrapes struct {
	RuleFiles []string `yaml:"rule_files"`
	Configs   []struct {
		JobName string                       `yaml:"job_name"`
		Static  []struct{ Targets []string } `yaml:"static_configs"`
	} `yaml:"scrape_configs"`
}

// Prometheus scrapes the daemon under the name that the rules know, and has the rules.
func TestObservePrometheus(t *testing.T) {
	p := compose(t)
	const flag, config = "--config.file=", "/etc/prometheus/prometheus.yml"
	if !slices.Contains(p.Services["prometheus"].Command, flag+config) {
		t.Errorf("Prometheus is started with %q", p.Services["prometheus"].Command)
	}
	var here, published scrapes
	decodeYAML(t, read(t, p.Services["prometheus"].mounted(t, config)), &here)
	decodeYAML(t, read(t, filepath.Join(root, "deploy", "observe", "prometheus.yml")), &published)
	if len(here.Configs) != 1 || here.Configs[0].JobName != published.Configs[0].JobName {
		t.Fatalf("jobs %+v, want %s", here.Configs, published.Configs[0].JobName)
	}
	_, port, _ := strings.Cut(p.Services["consumer"].Environment["LISTEN_ADDR"], ":")
	if got := here.Configs[0].Static[0].Targets; !slices.Equal(got, []string{"consumer:" + port}) {
		t.Errorf("scrapes %q, and the daemon listens on port %s", got, port)
	}
	if len(here.RuleFiles) != 1 {
		t.Fatalf("rule files %q", here.RuleFiles)
	}
	rules := p.Services["prometheus"].mounted(t, path.Join(path.Dir(config), here.RuleFiles[0]))
	if want := filepath.Join(root, "deploy", "observe", "prometheus-rules.yml"); rules != want {
		t.Errorf("the rules are %s, want %s", rules, want)
	}
}

type dataSource struct {
	Name, Type, UID, URL string
	Default              bool `yaml:"isDefault"`
	JSONData             struct {
		Exemplars []struct {
			UID string `yaml:"datasourceUid"`
		} `yaml:"exemplarTraceIdDestinations"`
	} `yaml:"jsonData"`
}

// dataSources are those that Grafana is given, by their UIDs.
func dataSources(t *testing.T, grafana service) map[string]dataSource {
	t.Helper()
	var file struct{ Datasources []dataSource }
	decodeYAML(t, read(t, grafana.mounted(t, "/etc/grafana/provisioning/datasources/imagemanager.yml")), &file)
	sources := map[string]dataSource{}
	for _, s := range file.Datasources {
		sources[s.UID] = s
	}
	if len(sources) != len(file.Datasources) || len(sources) < 2 {
		t.Fatalf("data sources %+v: not two or more with a UID each", file.Datasources)
	}
	return sources
}

// Grafana's data sources are services of the project. Exemplars lead to the one with the
// traces.
func TestObserveDataSources(t *testing.T) {
	p := compose(t)
	sources := dataSources(t, p.Services["grafana"])
	for uid, s := range sources {
		u, err := url.Parse(s.URL)
		if err != nil || p.Services[u.Hostname()].Profiles == nil || u.Hostname() != s.Type {
			t.Errorf("%s, of type %s, is at %s", uid, s.Type, s.URL)
		}
		for _, e := range s.JSONData.Exemplars {
			if sources[e.UID].Type != "jaeger" {
				t.Errorf("exemplars of %s lead to %q", uid, e.UID)
			}
		}
	}
}

// The dashboard is there and is the first page. Its variable for the data source takes
// the default one, and all its queries go through the variable.
func TestObserveDashboard(t *testing.T) {
	grafana := compose(t).Services["grafana"]
	home := grafana.Environment["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
	var file struct {
		Providers []struct{ Options struct{ Path string } }
	}
	decodeYAML(t, read(t, grafana.mounted(t, "/etc/grafana/provisioning/dashboards/imagemanager.yml")), &file)
	if len(file.Providers) != 1 || file.Providers[0].Options.Path != path.Dir(home) {
		t.Errorf("dashboards are read from %+v, and the first page is %s", file.Providers, home)
	}
	dashboard := grafana.mounted(t, home)
	if want := filepath.Join(root, "deploy", "observe", "grafana.json"); dashboard != want {
		t.Errorf("the dashboard is %s, want %s", dashboard, want)
	}
	wanted, uids := asked(t, read(t, dashboard))
	for uid, s := range dataSources(t, grafana) {
		if s.Default != (s.Type == wanted) {
			t.Errorf("the dashboard takes a source of type %s; default of %s, of type %s, is %t",
				wanted, uid, s.Type, s.Default)
		}
	}
	for uid := range uids {
		if uid != "${datasource}" && uid != "-- Grafana --" {
			t.Errorf("a query of the dashboard goes to %q", uid)
		}
	}
}

// asked returns the type that the dashboard's variable for the data source takes, and the
// UIDs that its queries name.
func asked(t *testing.T, text string) (kind string, uids map[string]bool) {
	t.Helper()
	type query struct{ Datasource struct{ UID string } }
	var d struct {
		Templating struct {
			List []struct{ Type, Name, Query string }
		}
		Panels []struct {
			Targets []query
		}
	}
	if err := json.Unmarshal([]byte(text), &d); err != nil {
		t.Fatal(err)
	}
	for _, v := range d.Templating.List {
		if v.Type == "datasource" && v.Name == "datasource" {
			kind = v.Query
		}
	}
	uids = map[string]bool{}
	for _, p := range d.Panels {
		for _, q := range p.Targets {
			uids[q.Datasource.UID] = true
		}
	}
	if kind == "" || len(uids) == 0 {
		t.Fatalf("the dashboard has a source of type %q, and queries to %v", kind, uids)
	}
	return kind, uids
}
