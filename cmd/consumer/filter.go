package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// filter picks rows of a listing.
type filter struct {
	states states
	key    string
	latest bool
	last   uint
}

// addTo adds the flags that need nothing but a list.
func (f *filter) addTo(cmd *cobra.Command) {
	cmd.Flags().UintVarP(&f.last, "last", "n", 0, "only the last so many; 0 for all")
}

// addStates adds the flag --state for something that has these states.
func addStates[S ~string](f *filter, cmd *cobra.Command, all []S) {
	for _, s := range all {
		f.states.all = append(f.states.all, string(s))
	}
	cmd.Flags().Var(&f.states, "state", "only in this state, or these: "+strings.Join(f.states.all, ", "))
	_ = cmd.RegisterFlagCompletionFunc("state",
		cobra.FixedCompletions(f.states.all, cobra.ShellCompDirectiveNoFileComp))
}

// addKeys adds the flags for something that has a key.
func (f *filter) addKeys(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.key, "key", "", "only where the key has this text in it")
	cmd.Flags().BoolVar(&f.latest, "latest", false, "only the newest of each key, before --state is looked at")
}

// pick returns the rows of a list, oldest first, that the filter lets through.
func pick[T any](f filter, list []T, about func(T) (key, state string)) []T {
	newest := map[string]int{}
	for i, row := range list {
		key, _ := about(row)
		newest[key] = i
	}
	picked := []T{}
	for i, row := range list {
		key, state := about(row)
		if strings.Contains(key, f.key) && f.states.has(state) && (!f.latest || newest[key] == i) {
			picked = append(picked, row)
		}
	}
	if n := uint(len(picked)); f.last > 0 && f.last < n {
		return picked[n-f.last:]
	}
	return picked
}

// states is the value of --state.
type states struct{ all, chosen []string }

// Set implements pflag.Value.
func (s *states) Set(text string) error {
	for _, state := range strings.Split(text, ",") {
		if !slices.Contains(s.all, state) {
			return fmt.Errorf("there is no state %q, but %s", state, strings.Join(s.all, ", "))
		}
		s.chosen = append(s.chosen, state)
	}
	return nil
}

// String and Type implement pflag.Value.
func (s *states) String() string { return strings.Join(s.chosen, ",") }
func (*states) Type() string     { return "state" }

// has reports whether the state was chosen, or none was.
func (s *states) has(state string) bool {
	return len(s.chosen) == 0 || slices.Contains(s.chosen, state)
}
