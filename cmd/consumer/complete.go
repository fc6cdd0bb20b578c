package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"imagemanager.internal/internal/store"
)

// mostOffered is how many words a shell is offered at most.
const mostOffered = 200

// offer returns what an argument that begins so can be.
type offer func(ctx context.Context, st *store.Store, begin string) ([]cobra.Completion, error)

// completing makes the shell complete the arguments of a command.
func completing(cmd *cobra.Command, offers ...offer) *cobra.Command {
	several := strings.HasSuffix(cmd.Use, "...")
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, begin string) ([]cobra.Completion,
		cobra.ShellCompDirective,
	) {
		if len(args) > 0 && !several {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return offered(cmd, begin, offers), cobra.ShellCompDirectiveNoFileComp
	}
	return cmd
}

// offered looks into the database, and writes nothing. Without a database there is
// nothing to offer: nobody wants an error in the line that he is typing.
func offered(cmd *cobra.Command, begin string, offers []offer) []cobra.Completion {
	cfg, err := loadConfig(cmd.Flags())
	if err != nil {
		return nil
	}
	st, err := store.OpenReadOnly(cmd.Context(), databasePath(cfg.StateDir))
	if err != nil {
		return nil
	}
	defer st.Close()
	var all []cobra.Completion
	for _, o := range offers {
		some, err := o(cmd.Context(), st, begin)
		if err != nil {
			return nil
		}
		all = append(all, some...)
	}
	return all
}

// imageKeys offers the keys of images. It leaves out those that no shell can type.
func imageKeys(ctx context.Context, st *store.Store, begin string) ([]cobra.Completion, error) {
	images, err := st.Named(ctx, begin, mostOffered)
	var keys []cobra.Completion
	for _, img := range images {
		if strings.HasPrefix(img.Key, begin) && quoted(img.Key) == img.Key {
			keys = append(keys, img.Key)
		}
	}
	slices.Sort(keys)
	return slices.Compact(keys), err
}

// imageIDs offers the ids of images once a digit was typed: nobody knows ids by heart.
func imageIDs(ctx context.Context, st *store.Store, begin string) ([]cobra.Completion, error) {
	if begin == "" {
		return nil, nil
	}
	images, err := st.Named(ctx, begin, mostOffered)
	var ids []cobra.Completion
	for _, img := range images {
		if id := strconv.FormatInt(img.ID, 10); strings.HasPrefix(id, begin) {
			ids = append(ids, cobra.CompletionWithDesc(id, quoted(img.Key)))
		}
	}
	return ids, err
}

// snapshotNames offers the active snapshots by their ids, and by their paths once a slash
// was typed.
func snapshotNames(ctx context.Context, st *store.Store, begin string) ([]cobra.Completion, error) {
	snapshots, err := st.Snapshots(ctx)
	var names []cobra.Completion
	for _, sn := range snapshots {
		name := snapshotPrefix + strconv.FormatInt(sn.Device, 10)
		if strings.HasPrefix(begin, "/") {
			name = sn.Path
		}
		if strings.HasPrefix(name, begin) && len(names) < mostOffered {
			of := fmt.Sprintf("of image %d, %s", sn.Image, quoted(sn.Key))
			names = append(names, cobra.CompletionWithDesc(name, of))
		}
	}
	return names, err
}

// quarantinedIDs offers the messages in quarantine.
func quarantinedIDs(ctx context.Context, st *store.Store, begin string) ([]cobra.Completion, error) {
	messages, err := st.QuarantinedMessages(ctx)
	var ids []cobra.Completion
	for _, q := range messages {
		if id := strconv.FormatInt(q.ID, 10); strings.HasPrefix(id, begin) && len(ids) < mostOffered {
			ids = append(ids, cobra.CompletionWithDesc(id, cut(oneLine(q.Reason), 80)))
		}
	}
	return ids, err
}
