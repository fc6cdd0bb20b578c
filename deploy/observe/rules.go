package main

import (
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"go.yaml.in/yaml/v3"
)

// generated is the head of the files that can have comments.
const generated = "# Made by `make observe` from deploy/observe. Do not edit.\n"

// rules returns the alerts as a file of rules for Prometheus. Runbooks is the address of
// docs/runbooks.md.
func rules(runbooks string) ([]byte, error) {
	group := rulefmt.RuleGroup{Name: "imagemanager"}
	for _, a := range alerts {
		group.Rules = append(group.Rules, rulefmt.Rule{
			Alert:  a.title(),
			Expr:   a.expr,
			For:    model.Duration(a.pending),
			Labels: map[string]string{"severity": string(a.severity)},
			Annotations: map[string]string{
				"summary":     a.summary,
				"runbook_url": a.runbook(runbooks),
			},
		})
	}
	text, err := yaml.Marshal(rulefmt.RuleGroups{Groups: []rulefmt.RuleGroup{group}})
	return append([]byte(generated), text...), err
}

func (a alert) title() string { return alertPrefix + a.name }

// runbook returns the address of the alert's section.
func (a alert) runbook(page string) string { return page + "#" + strings.ToLower(a.title()) }
