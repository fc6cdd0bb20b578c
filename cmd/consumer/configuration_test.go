package main

import (
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The tables of settings stand between these lines of the page.
const (
	settingsBegin = "<!-- The settings: `make docs` makes these tables. -->\n"
	settingsEnd   = "<!-- End of the settings. -->\n"
)

// settingTitles are the titles of the tables, by the variable that each begins with.
var settingTitles = map[string]string{
	"S3_BUCKET":         "Bucket and queue",
	"STATE_DIR":         "Places and logs",
	"IMAGE_POLICY":      "Images",
	"MAX_ATTEMPTS":      "Attempts",
	"MAX_DOWNLOADS":     "Stages",
	"SQS_WAIT":          "Messages",
	"BACKFILL_AT_START": "Comparisons",
	"STATE_MIN_FREE":    "Reserves",
}

// The page of settings has every setting with its default, its flag and its meaning.
func TestPageOfSettings(t *testing.T) {
	const path = "../../docs/configuration.md"
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, begun := strings.Cut(string(page), settingsBegin)
	_, after, ended := strings.Cut(rest, settingsEnd)
	if !begun || !ended {
		t.Fatalf("%s does not say where the settings begin and end", path)
	}
	same(t, path, before+settingsBegin+settingTables(t)+"\n"+settingsEnd+after)
}

// The README's few settings have their defaults.
func TestSettingsOfReadme(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := regexp.MustCompile("(?m)^\\| `([A-Z0-9_]+)` \\| (.*?) ?\\|").FindAllStringSubmatch(string(readme), -1)
	if len(rows) < 5 {
		t.Errorf("only %d settings", len(rows))
	}
	fields := reflect.TypeFor[config]()
	for _, row := range rows {
		field, found := fields.FieldByNameFunc(func(name string) bool {
			f, _ := fields.FieldByName(name)
			return f.Tag.Get("envconfig") == row[1]
		})
		if !found || field.Tag.Get("default") != row[2] {
			t.Errorf("README.md: the default of %s is %q, not %q", row[1], field.Tag.Get("default"), row[2])
		}
	}
}

// settingTables renders the settings as the page has them.
func settingTables(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	titles := 0
	fields := reflect.TypeFor[config]()
	for i := range fields.NumField() {
		tag := fields.Field(i).Tag
		name := tag.Get("envconfig")
		if name == "" {
			continue
		}
		if title := settingTitles[name]; title != "" {
			titles++
			fmt.Fprintf(&b, "\n## %s\n\n| variable | default | flag | meaning |\n|---|---|---|---|\n", title)
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", name, tag.Get("default"), flagOf(name), describe(name))
	}
	if titles != len(settingTitles) {
		t.Errorf("%d of %d tables: a table begins with a variable that does not exist", titles, len(settingTitles))
	}
	return b.String()
}

// flagOf returns the flag of a setting, if it has one.
func flagOf(variable string) string {
	i := slices.IndexFunc(settingFlags, func(s settingFlag) bool { return s.variable == variable })
	if i < 0 {
		return ""
	}
	return "`--" + settingFlags[i].name + "`"
}
