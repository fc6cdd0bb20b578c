package main

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

// The dashboard has every panel in its row, and every query asks for the chosen hosts.
func TestDashboard(t *testing.T) {
	var d struct {
		Panels []struct {
			Type, Title string
			Targets     []struct{ Expr string }
			GridPos     struct{ X, W int }
		}
	}
	if err := json.Unmarshal([]byte(read(t, "deploy/observe/grafana.json")), &d); err != nil {
		t.Fatal(err)
	}
	var have, want []string
	for _, p := range d.Panels {
		have = append(have, p.Title)
		if p.GridPos.X+p.GridPos.W > 24 || p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("%s: %+v", p.Title, p)
		}
		for _, q := range p.Targets {
			selected, err := selectors(q.Expr)
			if err != nil || strings.Count(q.Expr, `instance=~"$instance"`) != len(selected) {
				t.Errorf("%s: %s, %v", p.Title, q.Expr, err)
			}
		}
	}
	for _, r := range rows {
		want = append(want, r.title)
		for _, p := range r.panels {
			want = append(want, p.title)
		}
	}
	if !slices.Equal(have, want) {
		t.Errorf("have %q\nwant %q", have, want)
	}
}
