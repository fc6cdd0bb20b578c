package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// output is where and how a command prints.
type output struct {
	out    io.Writer
	errs   io.Writer // notes and progress
	asJSON bool
	quiet  bool // ids only
	wide   bool // all columns
	room   int  // letters in a line of a table, 0 for any number
	colour bool // the screen has colours, and its user wants them
}

// withJSON adds --json to a command.
func withJSON(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().Bool("json", false, "print JSON for programs")
	return cmd
}

// withTable adds to a command what tables take.
func withTable(cmd *cobra.Command) *cobra.Command {
	forms := []cobra.Completion{"table", "wide", "json"}
	cmd.Flags().StringP("output", "o", forms[0], "form of the output: "+strings.Join(forms, ", ")+
		"; wide has all columns")
	cmd.Flags().Bool("no-trunc", false, "do not shorten what does not fit the terminal")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(forms, cobra.ShellCompDirectiveNoFileComp))
	return withJSON(cmd)
}

// withListing adds to a command what listings take.
func withListing(cmd *cobra.Command, ids string) *cobra.Command {
	cmd.Flags().BoolP("quiet", "q", false, "print "+ids+" only")
	return withTable(cmd)
}

// newOutput reads what was added. A flag that the command does not have is not set.
func newOutput(cmd *cobra.Command) (*output, error) {
	o := &output{out: cmd.OutOrStdout(), errs: cmd.ErrOrStderr()}
	form, _ := cmd.Flags().GetString("output")
	o.asJSON, _ = cmd.Flags().GetBool("json")
	o.quiet, _ = cmd.Flags().GetBool("quiet")
	whole, _ := cmd.Flags().GetBool("no-trunc")
	switch form {
	case "", "table":
	case "wide":
		o.wide = true
	case "json":
		o.asJSON = true
	default:
		return nil, &usageError{fmt.Errorf("--output %q is not table, wide or json", form)}
	}
	if o.asJSON && o.quiet {
		return nil, &usageError{errors.New("--quiet prints no JSON: give one of the two")}
	}
	if screen, ok := o.out.(*os.File); ok {
		o.colour = term.IsTerminal(int(screen.Fd())) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
		if !whole {
			o.room, _, _ = term.GetSize(int(screen.Fd())) // 0 if it is no terminal
		}
	}
	return o, nil
}

// printIDs prints each on a line.
func printIDs[T any](out io.Writer, list []T, id func(T) string) error {
	for _, row := range list {
		if _, err := fmt.Fprintln(out, id(row)); err != nil {
			return err
		}
	}
	return nil
}

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

// oneLine keeps a text on its line of a table.
func oneLine(text string) string {
	q := strconv.Quote(text)
	return strings.ReplaceAll(q[1:len(q)-1], `\"`, `"`)
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
