package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"
)

// output is where and how a command prints.
type output struct {
	out    io.Writer
	asJSON bool
}

// withJSON adds --json to a command.
func withJSON(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().Bool("json", false, "print JSON for programs")
	return cmd
}

// newOutput reads what withJSON has added.
func newOutput(cmd *cobra.Command) (*output, error) {
	o := &output{out: cmd.OutOrStdout()}
	if cmd.Flags().Lookup("json") == nil {
		return o, nil
	}
	var err error
	o.asJSON, err = cmd.Flags().GetBool("json")
	return o, err
}

// table is text in columns.
type table struct{ w *tabwriter.Writer }

func newTable(out io.Writer, columns ...string) *table {
	t := &table{tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)}
	t.row(columns...)
	return t
}

func (t *table) row(cells ...string) { fmt.Fprintln(t.w, strings.Join(cells, "\t")) }
func (t *table) flush() error        { return t.w.Flush() }

func printJSON(out io.Writer, v any) error {
	enc := json.NewEncoder(out)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// nonNil makes an empty list print as [], not null.
func nonNil[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// quoted escapes what a hostile key could do to a terminal.
func quoted(key string) string {
	if q := strconv.Quote(key); q != `"`+key+`"` {
		return q
	}
	return key
}

// oneLine keeps a reason on its line of a table.
func oneLine(text string) string {
	const most = 160
	text = strings.Trim(strconv.Quote(text), `"`)
	if len(text) > most {
		text = text[:most] + "…"
	}
	return strings.ReplaceAll(text, `\"`, `"`)
}

func short(hex string) string { return hex[:min(12, len(hex))] }

func dash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

func ago(t time.Time) string { return units.HumanDuration(time.Since(t)) + " ago" }

func yesNo(yes bool) string {
	if yes {
		return "yes"
	}
	return "no"
}
