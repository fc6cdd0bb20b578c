package main

import (
	"io"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/creack/pty"

	"imagemanager.internal/internal/store"
)

// changing finds what is different in every run: times, and the ids of traces.
var changing = regexp.MustCompile(
	`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC|` +
		`\b[0-9a-f]{32}\b|(Less than a|About a|\d+) (second|minute)s? ago`)

// steady puts something that stays in the place of what changes. A table with something
// that changes loses its columns: they are as wide as that is long.
func steady(text string) string {
	if strings.Contains(text, " ago") {
		text = regexp.MustCompile("  +").ReplaceAllString(text, "  ")
	}
	return changing.ReplaceAllString(text, "…")
}

// listings are the commands that list, each with the file of its JSON and what a row is.
var listings = []struct {
	line, file string
	row        reflect.Type
}{
	{"images", "images.json", reflect.TypeFor[store.Image]()},
	{"snapshots", "snapshots.json", reflect.TypeFor[store.Snapshot]()},
	{"history images/debian/12.tar", "history.json", reflect.TypeFor[store.Event]()},
	{"history 2", "history-refused.json", reflect.TypeFor[store.Event]()},
	{"quarantine list", "quarantine.json", reflect.TypeFor[store.QuarantinedMessage]()},
	{"pool devices", "devices.json", reflect.TypeFor[store.Device]()},
}

// Programs depend on the form of the JSON, and people on all columns being there.
func TestGoldenListings(t *testing.T) {
	someJournal(t)
	var tables strings.Builder
	for _, line := range []string{
		"images", "images -o wide", "snapshots -o wide", "history 2 -o wide", "quarantine list", "pool devices -o wide",
	} {
		code, text := perform(t, line)
		if code != 0 || strings.Contains(text, "\x1b") {
			t.Errorf("%s: exit code %d: %s", line, code, text)
		}
		tables.WriteString("$ consumer " + line + "\n" + steady(text) + "\n")
	}
	same(t, "testdata/listings.txt", tables.String())
	for _, l := range listings {
		code, text := perform(t, l.line+" --json")
		if code != 0 {
			t.Errorf("%s: exit code %d: %s", l.line, code, text)
		}
		same(t, "testdata/json/"+l.file, steady(text))
		if _, other := perform(t, l.line+" -o json"); other != text {
			t.Errorf("%s: --output json is not --json: %s", l.line, other)
		}
	}
}

// The page on JSON has every field that a listing can have.
func TestFieldsAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/json.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range listings {
		_, section, found := strings.Cut(string(text), "## consumer "+strings.Fields(l.line)[0])
		section, _, _ = strings.Cut(section, "\n## ")
		fields := fieldsOf(l.row, "")
		if !found || len(fields) < 5 {
			t.Errorf("%s: no section, or only the fields %v", l.line, fields)
		}
		for _, field := range fields {
			if !strings.Contains(section, "`"+field+"`") {
				t.Errorf("docs/json.md does not say what %s of `consumer %s` is", field, l.line)
			}
		}
	}
}

// fieldsOf returns the names that a type's fields have in JSON.
func fieldsOf(row reflect.Type, prefix string) []string {
	if row.Kind() == reflect.Pointer {
		row = row.Elem()
	}
	if row.Kind() != reflect.Struct || row == reflect.TypeFor[time.Time]() {
		return nil
	}
	var all []string
	for i := range row.NumField() {
		f := row.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous:
			all = append(all, fieldsOf(f.Type, prefix)...)
		default:
			all = append(all, prefix+name)
			all = append(all, fieldsOf(f.Type, prefix+name+".")...)
		}
	}
	return all
}

// Each filter does what its flag says, together with the others.
func TestFilters(t *testing.T) {
	someJournal(t)
	for line, want := range map[string]string{
		"images -q":                                           "1 2 3 4 5 6",
		"images -q --state active":                            "1 3",
		"images -q --state rejected,violation":                "2 5",
		"images -q --state rejected --state pending":          "2 4 6",
		"images -q --latest":                                  "2 3 4 5 6",
		"images -q --latest --state active":                   "3",
		"images -q --key debian":                              "1 3",
		"images -q --key nothing":                             "",
		"images -q -n 2":                                      "5 6",
		"images -q -n 1 --state active":                       "3",
		"images -q --last 100":                                "1 2 3 4 5 6",
		"snapshots -q":                                        "snapshot:2 snapshot:4",
		"snapshots --quiet --latest":                          "snapshot:4",
		"snapshots -q -n1":                                    "snapshot:4",
		"history -q -n 2 images/debian/12.tar":                "30 31",
		"history -q --latest -n 100 images/busy.tar":          "32 33 34",
		"quarantine list -q":                                  "1 2",
		"quarantine list -qn1":                                "2",
		"pool devices -q":                                     "1 2 3 4",
		"pool devices -q --state reserved,sealed":             "",
		"pool devices -q --state ready -n 3 --log-level=warn": "2 3 4",
	} {
		code, text := perform(t, line)
		if have := strings.Join(strings.Fields(text), " "); code != 0 || have != want {
			t.Errorf("%s: exit code %d, %q, want %q", line, code, have, want)
		}
	}
	if _, text := perform(t, "images --json --state dead"); text != "[]\n" {
		t.Errorf("nothing is %q", text)
	}
}

// A filter that can let nothing through is a slip.
func TestSlipsOfListings(t *testing.T) {
	someJournal(t)
	for line, says := range map[string]string{
		"images --state actve":   "there is no state \"actve\", but pending, active",
		"pool devices --state x": "there is no state \"x\", but reserved",
		"images -n -1":           "--last: \"-1\" is not a whole number",
		"images -n many":         "is not a whole number",
		"images --json=perhaps":  "is not true or false",
		"images -o yaml":         "is not table, wide or json",
		"images -q --json":       "one of the two",
		"images -qo json":        "one of the two",
		"pool create --thins x":  "--thins: \"x\" is not a whole number",
	} {
		code, text := perform(t, line)
		if code != 2 || !strings.Contains(text, says) || strings.Contains(text, "strconv") ||
			strings.Count(text, "\n") != 1 {
			t.Errorf("%s: exit code %d, want 2, one line, and %q: %s", line, code, says, text)
		}
	}
}

// Columns are narrowed until a row fits, the widest first. What can no longer be read is
// not narrowed.
func TestFit(t *testing.T) {
	for name, c := range map[string]struct {
		widths, want []int
		room         int
	}{
		"no terminal":     {[]int{5, 400}, []int{5, 400}, 0},
		"enough room":     {[]int{5, 40}, []int{5, 40}, 47},
		"one too many":    {[]int{5, 41}, []int{5, 40}, 47},
		"the widest":      {[]int{5, 30, 100}, []int{5, 30, 41}, 80},
		"several":         {[]int{5, 50, 100}, []int{5, 35, 36}, 80},
		"hidden":          {[]int{5, 0, 100}, []int{5, 0, 73}, 80},
		"far too little":  {[]int{5, 50, 100}, []int{5, 12, 12}, 10},
		"nothing to give": {[]int{5, 5}, []int{5, 5}, 3},
	} {
		t.Run(name, func(t *testing.T) {
			fit(c.widths, c.room)
			for i := range c.want {
				if c.widths[i] != c.want[i] {
					t.Fatalf("%v, want %v", c.widths, c.want)
				}
			}
		})
	}
}

// On a terminal no line of a listing is longer than the terminal is wide. The history is
// not shortened: what to do stands at the end of a reason.
func TestTerminal(t *testing.T) {
	someJournal(t)
	const columns, remedy = 80, "it would be stripped"
	for _, line := range []string{"images", "quarantine list", "pool devices", "snapshots"} {
		text := onTerminal(t, columns, line)
		for row := range strings.SplitSeq(text, "\r\n") {
			if n := utf8.RuneCountInString(row); n > columns {
				t.Errorf("%s: %d letters: %s", line, n, row)
			}
		}
		if line == "images" && (!strings.Contains(text, "…") || strings.Contains(text, remedy)) {
			t.Errorf("nothing was shortened: %s", text)
		}
	}
	for _, line := range []string{"images --no-trunc", "history 2"} {
		if text := onTerminal(t, columns, line); !strings.Contains(text, remedy) {
			t.Errorf("%s was shortened: %s", line, text)
		}
	}
}

// onTerminal returns what a command line prints on a terminal so many columns wide.
func onTerminal(t *testing.T, columns uint16, line string) string {
	t.Helper()
	master, slave, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	if err := pty.Setsize(slave, &pty.Winsize{Rows: 24, Cols: columns}); err != nil {
		t.Fatal(err)
	}
	code := report(dispatch(t.Context(), strings.Fields(line), slave), slave)
	if _, err := slave.WriteString("\x04"); err != nil || code != 0 {
		t.Fatalf("%s: exit code %d, %v", line, code, err)
	}
	var text strings.Builder
	for b := make([]byte, 1<<16); !strings.HasSuffix(text.String(), "\x04"); {
		n, err := master.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		text.Write(b[:n])
	}
	slave.Close()
	return strings.TrimSuffix(text.String(), "\x04")
}

// Whoever lists takes the same flags.
func TestListingsAreAlike(t *testing.T) {
	for _, l := range listings {
		cmd, _, err := newProgram(io.Discard).Find(strings.Fields(l.line))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"json", "quiet", "no-trunc", "output", "last"} {
			if cmd.Flags().Lookup(name) == nil {
				t.Errorf("%s has no --%s", l.line, name)
			}
		}
	}
}
