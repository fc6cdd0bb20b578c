package main

import (
	"slices"
	"strings"
)

// emfAgent returns the configuration of a CloudWatch agent without PromQL. It keeps the
// counters and gauges of the dashboard as classic metrics; histograms are dropped.
func emfAgent() ([]byte, error) {
	declarations, err := declarations()
	if err != nil {
		return nil, err
	}
	return indented(object{"logs": object{"metrics_collected": object{"prometheus": object{
		"log_group_name":         "imagemanager",
		"prometheus_config_path": "/opt/aws/amazon-cloudwatch-agent/etc/imagemanager-scrape.yml",
		"emf_processor": object{
			"metric_namespace":   "ImageManager",
			"metric_declaration": declarations,
		},
	}}}})
}

// object is an object of JSON.
type object map[string]any

// declaration says which labels become dimensions of which metrics.
type declaration struct {
	SourceLabels    []string   `json:"source_labels"`
	LabelMatcher    string     `json:"label_matcher"`
	Dimensions      [][]string `json:"dimensions"`
	MetricSelectors []string   `json:"metric_selectors"`
}

// declarations returns one declaration for the metrics with the same labels.
func declarations() ([]declaration, error) {
	all, err := plainMetrics()
	if err != nil {
		return nil, err
	}
	byLabels := map[string][]string{}
	for metric, labels := range all {
		key := strings.Join(labels, ",")
		byLabels[key] = append(byLabels[key], metric)
	}
	var list []declaration
	for _, key := range sortedKeys(byLabels) {
		dimensions := []string{"instance"}
		if key != "" {
			dimensions = append(dimensions, strings.Split(key, ",")...)
		}
		slices.Sort(byLabels[key])
		list = append(list, declaration{
			[]string{"job"},
			"^imagemanager$",
			[][]string{dimensions},
			[]string{"^(" + strings.Join(byLabels[key], "|") + ")$"},
		})
	}
	return list, nil
}

// plainMetrics returns the dashboard's metrics other than histograms, with the labels
// that it tells apart.
func plainMetrics() (map[string][]string, error) {
	all := map[string][]string{}
	for _, q := range panelList() {
		selected, err := selectors(q.Expr)
		if err != nil {
			return nil, err
		}
		for _, s := range selected {
			if isHistogram(s.metric) {
				continue
			}
			all[s.metric] = append(all[s.metric], s.labels...)
			slices.Sort(all[s.metric])
			all[s.metric] = slices.Compact(all[s.metric])
		}
	}
	return all, nil
}

// lostPanels returns the titles of the panels that have no data without histograms.
func lostPanels() ([]string, error) {
	var lost []string
	for _, q := range panelList() {
		selected, err := selectors(q.Expr)
		if err != nil {
			return nil, err
		}
		isLost := slices.ContainsFunc(selected, func(s selector) bool { return isHistogram(s.metric) })
		if isLost && !slices.Contains(lost, q.Panel) {
			lost = append(lost, q.Panel)
		}
	}
	return lost, nil
}
