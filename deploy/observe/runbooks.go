package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/prometheus/common/model"
)

const runbooksHead = `# Runbooks

<!-- Made by ` + "`make observe`" + ` from deploy/observe/alerts.go. Do not edit. -->

One section for each alert: what it means, where to look, what to do. KEY is the key of an image, or
its id. [Operating](operating.md) has the rest.
`

// runbookPage returns docs/runbooks.md.
func runbookPage() []byte {
	var b strings.Builder
	b.WriteString(runbooksHead + "\n")
	for _, a := range alerts {
		fmt.Fprintf(&b, "- [%s](#%s)\n", a.title(), strings.ToLower(a.title()))
	}
	for _, a := range alerts {
		meaning := fmt.Sprintf("*%s, %s.* %s", a.severity, since(a.pending), a.meaning)
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\nLook:\n\n", a.title(), wrapped(meaning, ""))
		bullets(&b, a.look)
		b.WriteString("\nDo:\n\n")
		bullets(&b, a.do)
	}
	return []byte(b.String())
}

func since(pending time.Duration) string {
	if pending == 0 {
		return "at once"
	}
	return "after " + model.Duration(pending).String()
}

func bullets(b *strings.Builder, items []string) {
	for _, item := range items {
		b.WriteString(wrapped("- "+item, "  ") + "\n")
	}
}

const pageWidth = 100

// wrapped breaks text between words; later lines are indented.
func wrapped(text, indent string) string {
	var b strings.Builder
	column := 0
	for word := range strings.FieldsSeq(text) {
		switch {
		case column == 0:
		case column+1+len(word) > pageWidth:
			b.WriteString("\n" + indent)
			column = len(indent)
		default:
			b.WriteString(" ")
			column++
		}
		b.WriteString(word)
		column += len(word)
	}
	return b.String()
}
