package doctor

import (
	"context"
	"regexp"

	"imagemanager.internal/internal/devmapper"
	"imagemanager.internal/internal/devmapper/tool"
)

// programs looks whether the programs are there that the daemon runs, and do run.
func programs(ctx context.Context) (found []Finding) {
	for _, p := range devmapper.Programs() {
		f := program(p)
		if f.Result == OK {
			f = version(ctx, p, f.Text)
		}
		found = append(found, f)
	}
	return found
}

func program(p tool.Program) Finding {
	path, err := p.Find()
	if err != nil {
		return fail(p.Name, "apt install "+p.Package, "there is no program %s", p.Name)
	}
	return ok(p.Name, "%s", path)
}

var versionShape = regexp.MustCompile(`\d+\.\d+[\w.~+-]*`)

// version asks the program at path for its version.
func version(ctx context.Context, p tool.Program, path string) Finding {
	text, err := tool.Run(ctx, path, "-V")
	if err != nil {
		return fail(p.Name, "apt install --reinstall "+p.Package, "%s does not run: %v", path, err)
	}
	return ok(p.Name, "%s, version %s", path, versionShape.FindString(text))
}
