package main

import (
	"bytes"
	"image/color"
	"os"
	"path/filepath"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// drawAll writes the plots beside the page.
func drawAll(r *results, dir string) error {
	plot.DefaultFont.Variant = "Sans"
	for name, one := range map[string]func(*results) (*plot.Plot, error){
		"performance-unpack.svg": ratios, "performance-entries.svg": entries, "performance-duplicates.svg": rates,
	} {
		p, err := one(r)
		if err != nil {
			return err
		}
		if p == nil {
			continue
		}
		canvas := vgsvg.New(26*vg.Centimeter, 12*vg.Centimeter)
		p.Draw(draw.Crop(draw.New(canvas), 0, -vg.Centimeter, 0, 0)) // room for half a label
		var b bytes.Buffer
		if _, err := canvas.WriteTo(&b); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name), b.Bytes(), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// colour is that of the n-th job in all plots.
func colour(n int) color.Color {
	all := slices.Concat(plotutil.SoftColors, plotutil.DarkColors)
	return all[n%len(all)]
}

// ratios draws a bar for each job and archive: how much faster than GNU tar.
func ratios(r *results) (*plot.Plot, error) {
	p := plot.New()
	p.Title.Text, p.Y.Label.Text = "unpack, as a multiple of GNU tar's speed", "times as fast"
	p.Legend.Top, p.Legend.XOffs = true, -vg.Centimeter/2
	names := append(jobs(r.Unpack, ours), jobs(r.Unpack, peer)...)
	width := 22 * vg.Centimeter / vg.Length(max(1, len(r.Unpack))*(len(names)+1))
	var sets []string
	for _, s := range r.Unpack {
		sets = append(sets, s.Set.Name)
	}
	for i, name := range names {
		var values plotter.Values
		for _, s := range r.Unpack {
			v := 0.0
			if m := s.find(name).median(); m > 0 {
				v = s.find(baseline).median() / m
			}
			values = append(values, v)
		}
		bars, err := plotter.NewBarChart(values, width)
		if err != nil {
			return nil, err
		}
		bars.Color, bars.LineStyle.Width = colour(i), 0
		bars.Offset = width * vg.Length(float64(i)-float64(len(names)-1)/2)
		p.Add(bars)
		p.Legend.Add(name, bars)
	}
	p.Add(plotter.NewGrid())
	p.NominalX(sets...)
	p.Y.Max *= 1.5 // room for the legend
	return p, nil
}

// entries draws the time of the sets that differ in their number of files; nil without
// any.
func entries(r *results) (*plot.Plot, error) {
	if !slices.ContainsFunc(r.Unpack, func(s setResult) bool { return s.Set.Many && s.find(baseline).median() > 0 }) {
		return nil, nil
	}
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = "unpack of small files", "entries", "seconds"
	p.Legend.Top, p.Legend.Left = true, true
	for i, name := range append(jobs(r.Unpack, ours), jobs(r.Unpack, peer)...) {
		var points plotter.XYs
		for _, s := range r.Unpack {
			if m := s.find(name).median(); s.Set.Many && m > 0 {
				points = append(points, plotter.XY{X: float64(s.Set.Entries), Y: m})
			}
		}
		if err := curve(p, name, points, i); err != nil {
			return nil, err
		}
	}
	logarithmic(&p.X)
	logarithmic(&p.Y)
	p.Y.Max *= 3
	return p, nil
}

// rates draws duplicates against images; nil without any.
func rates(r *results) (*plot.Plot, error) {
	if len(r.Many) == 0 {
		return nil, nil
	}
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = "duplicate messages", "active images", "messages a second"
	var points plotter.XYs
	for _, d := range r.Many {
		points = append(points, plotter.XY{X: float64(d.Images), Y: d.Rate})
	}
	if err := curve(p, "", points, 0); err != nil {
		return nil, err
	}
	logarithmic(&p.X)
	p.Y.Min, p.Y.Max = 0, p.Y.Max*1.3
	return p, nil
}

func logarithmic(a *plot.Axis) {
	a.Scale, a.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
}

// curve draws one line with its points.
func curve(p *plot.Plot, name string, points plotter.XYs, n int) error {
	if len(points) == 0 {
		return nil
	}
	line, dots, err := plotter.NewLinePoints(points)
	if err != nil {
		return err
	}
	line.Color, line.Width = colour(n), vg.Points(1.5)
	dots.Color, dots.Shape = colour(n), plotutil.Shape(n)
	p.Add(line, dots)
	if name != "" {
		p.Legend.Add(name, line, dots)
	}
	return nil
}
