package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// tolerance is how many letters a slip may differ from what was meant.
func tolerance(slip string) int { return min(2, len(slip)/3) }

// newGroup returns a command that does nothing but hold others.
func newGroup(name, short string, commands ...*cobra.Command) *cobra.Command {
	group := &cobra.Command{Use: name, Short: short}
	asGroup(group)
	addTo(group, commands...)
	return group
}

// asGroup makes a command print those that it holds, and refuse all others.
func asGroup(group *cobra.Command) {
	group.DisableFlagsInUseLine = true
	group.Args = refuseUnknown
	group.RunE = func(cmd *cobra.Command, _ []string) error {
		return errors.Join(cmd.Help(), &usageError{errors.New("no command given")})
	}
}

// addTo adds commands to a group. Their arguments are those of their usage line, unless
// they say otherwise.
func addTo(group *cobra.Command, commands ...*cobra.Command) {
	for _, c := range commands {
		if c.Args == nil {
			c.Args = checkArgs
		}
		if c.Use == c.Name() { // takes no argument
			c.ValidArgsFunction = cobra.NoFileCompletions
		}
	}
	group.AddCommand(commands...)
}

// refuseUnknown refuses the name of a command that a group does not have.
func refuseUnknown(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	cmd.SuggestionsMinimumDistance = tolerance(args[0])
	path := cmd.CommandPath() + " "
	return fmt.Errorf("unknown command %q: %s", strings.TrimPrefix(path, cmd.Root().Name()+" ")+args[0],
		didYouMean(cmd, path, cmd.SuggestionsFor(args[0])))
}

// didYouMean says what to write instead.
func didYouMean(cmd *cobra.Command, before string, suggestions []string) string {
	if len(suggestions) == 0 {
		return fmt.Sprintf("see `%s --help`", cmd.CommandPath())
	}
	slices.Sort(suggestions)
	return fmt.Sprintf("did you mean `%s`?", before+strings.Join(suggestions, "` or `"+before))
}

// refuseFlag says what is wrong with a flag, in one line. If it follows an unknown
// command, it is the command that is wrong.
func refuseFlag(cmd *cobra.Command, err error) error {
	if args := cmd.Flags().Args(); cmd.HasSubCommands() && len(args) > 0 {
		return refuseUnknown(cmd, args)
	}
	invalid := new(pflag.InvalidValueError)
	if errors.As(err, &invalid) {
		return refuseValue(invalid)
	}
	unknown := new(pflag.NotExistError)
	if !errors.As(err, &unknown) {
		return fmt.Errorf("%w: see `%s --help`", err, cmd.CommandPath())
	}
	name, dashes := unknown.GetSpecifiedName(), "--"
	if letters := unknown.GetSpecifiedShortnames(); letters != "" {
		name, dashes = letters, "-" // or a long flag with one dash
	}
	return fmt.Errorf("unknown flag %s%s: %s", dashes, name, didYouMean(cmd, "--", flagsLike(cmd, name)))
}

// refuseValue says what a flag takes.
func refuseValue(invalid *pflag.InvalidValueError) error {
	flag, why := invalid.GetFlag(), errors.Unwrap(invalid)
	if number := new(strconv.NumError); errors.As(why, &number) { // from Go, which people need not know
		takes := "a whole number"
		if flag.Value.Type() == "bool" {
			takes = "true or false"
		}
		why = fmt.Errorf("%q is not %s", invalid.GetValue(), takes)
	}
	return fmt.Errorf("--%s: %w", flag.Name, why)
}

// flagsLike returns the command's flags with a name like this one. It is cobra that
// compares; it does so for commands only.
func flagsLike(cmd *cobra.Command, name string) []string {
	flags := &cobra.Command{SuggestionsMinimumDistance: tolerance(name)}
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		flags.AddCommand(&cobra.Command{Use: f.Name, Hidden: f.Hidden, Run: func(*cobra.Command, []string) {}})
	})
	return flags.SuggestionsFor(name)
}

// addHelp makes the help of every command end with its exit codes, and its errors name
// the way out.
func addHelp(root *cobra.Command) {
	root.SetFlagErrorFunc(refuseFlag)
	help := root.HelpFunc()
	root.SetHelpFunc(func(cmd *cobra.Command, args []string) {
		help(cmd, args)
		if codes := cmd.Annotations[exitsNote]; codes != "" {
			fmt.Fprint(cmd.OutOrStdout(), "\n", codes)
		}
	})
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		switch c.Name() {
		case "help":
			c.Run, c.RunE = nil, showHelp
		case "completion":
			asGroup(c)
		}
	}
}

// showHelp is `consumer help`. Cobra's own ends well where nothing was found.
func showHelp(cmd *cobra.Command, args []string) error {
	about, rest, err := cmd.Root().Find(args)
	if err == nil {
		err = refuseUnknown(about, rest)
	}
	if err != nil {
		return &usageError{err}
	}
	about.InitDefaultHelpFlag()
	return about.Help()
}

// topic is a page of help that is no command.
func topic(name, short string, text func() (string, error)) *cobra.Command {
	page := &cobra.Command{Use: name, Short: short}
	page.SetHelpFunc(func(cmd *cobra.Command, _ []string) {
		body, err := text()
		if err != nil {
			body = err.Error()
		}
		fmt.Fprint(cmd.OutOrStdout(), body)
	})
	return page
}

// settingsIntro says where settings come from.
const settingsIntro = `Settings are environment variables. A flag wins over its variable; "consumer run
--help" has the flags.

Variables that are not set may be in a file, one NAME=value a line, in the form of
systemd's EnvironmentFile=. It is the one of --env-file, or else
` + defaultEnvFile + `, which the service reads too. The latter is not read where
STATE_DIR or --state-dir names another state directory.

`

func settingsTopic() *cobra.Command {
	return topic("settings", "The environment variables, with their defaults", func() (string, error) {
		var b strings.Builder
		b.WriteString(settingsIntro)
		err := printEnvironment(&b)
		return b.String(), err
	})
}

func namesTopic() *cobra.Command {
	return topic("names", "How to name images and snapshots", func() (string, error) { return namesText, nil })
}

func exitCodesTopic() *cobra.Command {
	return topic("exit-codes", "What the exit codes mean", func() (string, error) { return exitCodeTable(), nil })
}
