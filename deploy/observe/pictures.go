package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// drawn are the panels in the picture of the README, row by row.
var drawn = [][]string{
	{"Images by state", "Messages in SQS"},
	{"Duration", "Throughput"},
	{"Workers by step of the unpack", "Pool data in use"},
}

// recording has what a live run showed, of the panels that are drawn: `make pictures`.
const recording = directory + "recording.json"

// recorded is what one query of a panel showed.
type recorded struct {
	listed
	Curves []curve `json:"curves"`
}

// curve has values at seconds since the start of the run.
type curve struct {
	Labels map[string]string `json:"labels,omitempty"`
	Points plotter.XYs       `json:"-"`
	Pairs  [][2]float64      `json:"points"`
}

// readRecording reads what a run of TestDashboardOfALiveRun recorded.
func readRecording(path string) ([]recorded, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var run []recorded
	if err := json.Unmarshal(text, &run); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	for _, r := range run {
		for i := range r.Curves {
			c := &r.Curves[i]
			for _, p := range c.Pairs {
				c.Points = append(c.Points, plotter.XY{X: p[0], Y: p[1]})
			}
		}
	}
	return run, nil
}

// keep writes the drawn part of a run's recording into the repository.
func keep(root, run string) error {
	all, err := readRecording(run)
	if err != nil {
		return err
	}
	var kept []recorded
	for _, r := range all {
		if isDrawn(r.Panel) {
			kept = append(kept, r)
		}
	}
	text, err := json.Marshal(kept)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(root, recording), append(text, '\n'), 0o644)
}

func isDrawn(title string) bool {
	for _, line := range drawn {
		for _, t := range line {
			if t == title {
				return true
			}
		}
	}
	return false
}

// picture draws the panels of a recording below each other.
func picture(root string) ([]byte, error) {
	run, err := readRecording(filepath.Join(root, recording))
	if err != nil {
		return nil, err
	}
	plots := make([][]*plot.Plot, len(drawn))
	for i, line := range drawn {
		for _, title := range line {
			p, err := plotPanel(find(title), run)
			if err != nil {
				return nil, fmt.Errorf("panel %s: %w", title, err)
			}
			plots[i] = append(plots[i], p)
		}
	}
	canvas := vgsvg.New(26*vg.Centimeter, 21*vg.Centimeter)
	const gap = vg.Centimeter / 4
	tiles := draw.Tiles{
		Rows: len(drawn), Cols: len(drawn[0]), PadX: 2 * gap, PadY: 2 * gap,
		PadTop: gap, PadBottom: gap, PadLeft: gap, PadRight: gap,
	}
	cells := plot.Align(plots, tiles, draw.New(canvas))
	for i := range plots {
		for j, p := range plots[i] {
			p.Draw(cells[i][j])
		}
	}
	var b bytes.Buffer
	_, err = canvas.WriteTo(&b)
	return b.Bytes(), err
}

// find returns the panel with the title.
func find(title string) panel {
	for _, r := range rows {
		for _, p := range r.panels {
			if p.title == title {
				return p
			}
		}
	}
	return panel{title: title}
}

// axes has, for each unit of Grafana's, its name on an axis, and how many of it make one
// of those.
var axes = map[string]struct {
	name string
	size float64
}{
	"":            {"number", 1},
	"s":           {"seconds", 1},
	"Bps":         {"MiB a second", 1 << 20},
	"percentunit": {"percent", 0.01},
}

// plotPanel draws the curves of one panel over the seconds of the run.
func plotPanel(def panel, run []recorded) (*plot.Plot, error) {
	axis, known := axes[def.unit]
	if !known {
		return nil, fmt.Errorf("the unit %q has no axis", def.unit)
	}
	plot.DefaultFont.Variant = "Sans"
	p := plot.New()
	p.Title.Text = def.title
	p.X.Label.Text, p.Y.Label.Text = "seconds of the run", axis.name
	p.Y.Min = 0
	p.Legend.Top, p.Legend.Left = true, true
	p.Legend.TextStyle.Font.Size = vg.Points(8)
	p.Add(plotter.NewGrid())
	n := 0
	for _, q := range def.queries {
		for _, r := range run {
			if r.Panel != def.title || r.Expr != q.expr {
				continue
			}
			for _, c := range r.Curves {
				if c.isZero() {
					continue
				}
				if err := addCurve(p, q.name(c.Labels), scaled(c.Points, axis.size), n); err != nil {
					return nil, err
				}
				n++
			}
		}
	}
	p.Y.Max *= 1.4 // room for the legend
	if n == 0 {
		return nil, fmt.Errorf("%s has no data of it: make pictures", recording)
	}
	return p, nil
}

// isZero reports whether a curve would only fill the legend.
func (c curve) isZero() bool {
	for _, p := range c.Points {
		if p.Y != 0 {
			return false
		}
	}
	return true
}

// addCurve draws one curve.
func addCurve(p *plot.Plot, name string, points plotter.XYs, n int) error {
	line, err := plotter.NewLine(points)
	if err != nil {
		return err
	}
	line.Color, line.Dashes = plotutil.Color(n), plotutil.Dashes(n/len(plotutil.DefaultColors))
	line.Width = vg.Points(1.5)
	p.Add(line)
	p.Legend.Add(name, line)
	return nil
}

func scaled(points plotter.XYs, size float64) plotter.XYs {
	all := make(plotter.XYs, len(points))
	for i, p := range points {
		all[i] = plotter.XY{X: p.X, Y: p.Y / size}
	}
	return all
}

// name is the name of a series: the legend with the values of its labels.
func (q query) name(labels map[string]string) string {
	name := q.legend
	for label, value := range labels {
		name = strings.ReplaceAll(name, "{{"+label+"}}", value)
	}
	return name
}
