package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// gap stands between two columns.
const gap = "  "

// table is text in columns.
type table struct {
	out    io.Writer
	rows   [][]string // the first has the titles
	hidden []bool     // columns that are not shown
	wide   bool       // show all
	room   int        // letters in a line, 0 for any number
	begun  []int      // widths of the columns so far, once something was printed
}

// table begins a table with these columns.
func (o *output) table(columns ...string) *table {
	return &table{
		out: o.out, rows: [][]string{columns}, hidden: make([]bool, len(columns)), wide: o.wide,
		room: o.room,
	}
}

// wideOnly hides columns unless all are asked for.
func (t *table) wideOnly(columns ...string) *table {
	if t.wide {
		return t
	}
	return t.without(columns...)
}

// without hides columns.
func (t *table) without(columns ...string) *table {
	for i, title := range t.rows[0] {
		t.hidden[i] = t.hidden[i] || slices.Contains(columns, title)
	}
	return t
}

func (t *table) row(cells ...string) { t.rows = append(t.rows, cells) }

// flush prints the table. More rows may follow: they are printed by the next flush,
// without the titles.
func (t *table) flush() error {
	widths, rows := t.widths(), t.rows
	if t.begun != nil {
		rows = rows[1:]
	}
	t.begun, t.rows = slices.Clone(widths), t.rows[:1]
	fit(widths, t.room)
	var b strings.Builder
	for _, row := range rows {
		line := ""
		for i, cell := range row {
			if !t.hidden[i] {
				line += fmt.Sprintf("%-*s"+gap, widths[i], cut(cell, widths[i]))
			}
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	_, err := io.WriteString(t.out, b.String())
	return err
}

// widths returns how wide each column wants to be; a hidden one is 0.
func (t *table) widths() []int {
	widths := make([]int, len(t.rows[0]))
	copy(widths, t.begun)
	for _, row := range t.rows {
		for i, cell := range row {
			if !t.hidden[i] {
				widths[i] = max(widths[i], utf8.RuneCountInString(cell))
			}
		}
	}
	return widths
}

// fit narrows the widest columns until a row fits into the room, but none so far that it
// says nothing.
func fit(widths []int, room int) {
	const least = 12
	need := -len(gap)
	for _, w := range widths {
		if w > 0 {
			need += w + len(gap)
		}
	}
	for ; room > 0 && need > room; need-- {
		widest := slices.Max(widths)
		if widest <= least {
			return
		}
		widths[slices.Index(widths, widest)]--
	}
}

// cut shortens a text to so many letters.
func cut(text string, width int) string {
	if utf8.RuneCountInString(text) <= width {
		return text
	}
	return string([]rune(text)[:width-1]) + "…"
}
