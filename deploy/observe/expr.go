package main

import (
	"slices"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

var promQL = parser.NewParser(parser.Options{})

// selector is a place in an expression where series are selected.
type selector struct {
	metric string
	labels []string // that it is selected or grouped by, sorted
}

// selectors returns what an expression selects.
func selectors(expr string) ([]selector, error) {
	root, err := promQL.ParseExpr(expr)
	if err != nil {
		return nil, err
	}
	var all []selector
	parser.Inspect(root, func(n parser.Node, path []parser.Node) error {
		if v, ok := n.(*parser.VectorSelector); ok {
			all = append(all, selector{v.Name, distinguishing(v, path)})
		}
		return nil
	})
	return all, nil
}

// distinguishing returns the labels by which v is selected, and grouped further out.
func distinguishing(v *parser.VectorSelector, path []parser.Node) []string {
	var names []string
	for _, m := range v.LabelMatchers {
		if m.Name != model.MetricNameLabel {
			names = append(names, m.Name)
		}
	}
	for _, n := range path {
		if a, ok := n.(*parser.AggregateExpr); ok && !a.Without {
			names = append(names, a.Grouping...)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// rewrite returns the expression after a change of its selectors.
func rewrite(expr string, change func(*parser.VectorSelector)) (string, error) {
	root, err := promQL.ParseExpr(expr)
	if err != nil {
		return "", err
	}
	parser.Inspect(root, func(n parser.Node, _ []parser.Node) error {
		if v, ok := n.(*parser.VectorSelector); ok {
			change(v)
		}
		return nil
	})
	return root.String(), nil
}

// ofInstance makes an expression depend on the dashboard's choice of hosts.
func ofInstance(expr string) (string, error) {
	chosen := labels.MustNewMatcher(labels.MatchRegexp, "instance", "$instance")
	return rewrite(expr, func(v *parser.VectorSelector) { v.LabelMatchers = append(v.LabelMatchers, chosen) })
}

// inCloudWatch makes an expression fit for CloudWatch, which keeps every histogram as a
// native one: a metric of its own instead of a series for each bucket.
func inCloudWatch(expr string) (string, error) {
	return rewrite(expr, func(v *parser.VectorSelector) {
		v.Name = strings.TrimSuffix(v.Name, "_bucket")
		for i, m := range v.LabelMatchers {
			if m.Name == model.MetricNameLabel {
				v.LabelMatchers[i] = labels.MustNewMatcher(labels.MatchEqual, m.Name, v.Name)
			}
		}
	})
}

// isHistogram reports whether a metric is a series of a histogram.
func isHistogram(metric string) bool {
	return slices.ContainsFunc([]string{"_bucket", "_sum", "_count"}, func(suffix string) bool {
		return strings.HasSuffix(metric, suffix)
	})
}
