package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/pflag"

	"imagemanager.internal/internal/envfile"
)

const (
	envFileFlag = "env-file"
	// defaultEnvFile is where the package has the settings of the installed daemon.
	defaultEnvFile = "/etc/consumer/consumer.env"
)

// useEnvFile puts what a file sets into the environment, for the AWS SDK too. What is set
// there already stays. It returns where each variable is from, as "FILE:LINE: ". The
// error has all that is wrong with the file.
//
// Without --env-file it is the file of the installed daemon, unless the state directory
// is named: then another installation is meant. Who may not read that file may not use
// its state directory either, and is told so there.
func useEnvFile(flags *pflag.FlagSet, standard string) (lines map[string]string, err error) {
	path, given := flags.Lookup(envFileFlag).Value.String(), flags.Changed(envFileFlag)
	if !given {
		if isSet("STATE_DIR") || flags.Changed("state-dir") {
			return nil, nil
		}
		path = standard
	}
	text, err := os.ReadFile(path)
	switch {
	case err != nil && !given && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission)):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("--env-file: %w", err)
	}
	variables, err := envfile.Parse(path, string(text))
	lines = map[string]string{}
	for _, v := range variables {
		if isSet(v.Name) && lines[v.Name] == "" {
			continue
		}
		lines[v.Name] = fmt.Sprintf("%s:%d: ", path, v.Line)
		err = errors.Join(err, os.Setenv(v.Name, v.Value))
	}
	return lines, err
}

// isSet reports whether the environment has a variable. An empty one does not count,
// where that means nothing of its own.
func isSet(name string) bool {
	value, set := os.LookupEnv(name)
	return set && (value != "" || mayBeEmpty[name])
}
